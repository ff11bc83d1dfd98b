"""The same examples in every run, so that a red test means a change; HYPOTHESIS_PROFILE=explore draws new ones. And
what the tests of chapters share."""

import os

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("explore", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_modifyitems(items):
    "The files that take longest come first, so that processes side by side end together."
    items.sort(key=lambda item: not item.path.name.startswith(("test_ch", "test_lab", "test_book", "test_use_it")))


@pytest.fixture(autouse=True)
def threads_as_they_were():
    "torch's number of threads belongs to the process: who changes it changes how later sums are rounded."
    import torch

    before = torch.get_num_threads()
    yield
    now = torch.get_num_threads()
    torch.set_num_threads(before)
    assert now == before, f"torch is left with {now} threads, it had {before}"


@pytest.fixture(scope="session")
def worlds(tmp_path_factory):
    "Folder of the simulated worlds that chapters render, shared by all processes of this run of the tests."
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "worlds"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def smoke(request, tmp_path_factory, worlds):
    "The `chapters.Run` of the CHAPTER that a file of tests names, in `smoke`: run once for all of them."
    from chapters import run_chapter

    return run_chapter(request.module.CHAPTER, tmp_path_factory.mktemp("smoke"), worlds)
