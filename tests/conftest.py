"""The same examples in every run, so that a red test means a change; HYPOTHESIS_PROFILE=explore draws new ones."""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items):
    "The file that takes longest comes first, so that processes side by side end together."
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
