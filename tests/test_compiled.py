"Compiled loops: kept where there is a place for them, as good where there is none."

import os
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import FunctionCache

import scalable_arch
from scalable_arch import compiled
from scalable_arch.metrics import evaluate

USE = """
import warnings
warnings.simplefilter("always")
import numpy as np
import scalable_arch.nas, scalable_arch.nos
from scalable_arch import create_model
from scalable_arch.metrics import evaluate
from scalable_arch.metrics.kernels import count_before
create_model("hdl_student", num_classes=None)
rng = np.random.default_rng(0)
query, gallery = rng.standard_normal((5, 4)), rng.standard_normal((40, 4))
ids = dict(query_pids=rng.integers(0, 3, 5), gallery_pids=rng.integers(0, 3, 40))
score = evaluate(query, gallery, **ids, query_camids=None, gallery_camids=None).mAP
print(score, sum(count_before.stats.cache_hits.values()))
"""


@pytest.fixture
def package(tmp_path):
    "A copy of the library beside whose files nothing can be kept: `__pycache__` is a file there, also for root."
    copy = tmp_path / "installed" / "scalable_arch"
    shutil.copytree(Path(scalable_arch.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    for folder in (copy, *(path for path in copy.iterdir() if path.is_dir())):
        (folder / "__pycache__").touch()
    return copy


def use(package, limit=None, **settings):
    "What a process without a home prints and says that uses the copy; `limit`: bytes that a file may have."
    places = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package.parent), "HOME": "/proc/nobody"} | settings
    shrink = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run = subprocess.run(
        [sys.executable, "-c", USE],
        env=places,
        cwd=package.parent,
        capture_output=True,
        text=True,
        preexec_fn=shrink if limit else None,
    )
    assert run.returncode == 0, run.stderr
    score, hits = run.stdout.split()
    return float(score), int(hits), run.stderr.count("set SCALABLE_ARCH_CACHE to a folder")


def test_without_a_place_loops_are_compiled_anew_and_one_warning_says_what_to_do(package, tmp_path):
    rng = np.random.default_rng(0)
    query, gallery = rng.standard_normal((5, 4)), rng.standard_normal((40, 4))
    ids = dict(query_pids=rng.integers(0, 3, 5), gallery_pids=rng.integers(0, 3, 40))
    score = evaluate(query, gallery, **ids, query_camids=None, gallery_camids=None).mAP
    assert use(package) == (score, 0, 1)
    kept = tmp_path / "cache"
    assert use(package, SCALABLE_ARCH_CACHE=str(kept)) == (score, 0, 0)  # what the warning says helps
    assert len([*kept.glob("numba/**/*.nbc")]) == 2
    assert use(package, SCALABLE_ARCH_CACHE=str(kept)) == (score, 1, 0)


def test_a_full_disk_stops_nothing(package, tmp_path):
    settings = dict(NUMBA_CACHE_DIR=str(tmp_path / "numba"), SCALABLE_ARCH_CACHE=str(tmp_path / "cache"))
    assert use(package, limit=1000, **settings)[1:] == (0, 1) and not [*tmp_path.glob("*/**/*.nbc")]


SOURCE = """
from scalable_arch.compiled import compiled

@compiled
def double(x):
    return 2 * x
"""


def module(path):
    "The module at `path`, anew."
    scope = {"__name__": path.stem}
    exec(compile(path.read_text(), path, "exec"), scope)
    return scope["double"]


def test_a_file_that_is_cut_short_is_written_again(tmp_path):
    path = tmp_path / "doubled.py"
    path.write_text(SOURCE)
    assert module(path)(3) == 6
    for kind in ("nbi", "nbc"):
        (file,) = tmp_path.glob(f"__pycache__/*.{kind}")
        whole = file.read_bytes()
        for content in (b"", whole[: len(whole) // 2]):
            file.write_bytes(content)
            again = module(path)
            assert again(3) == 6 and not again.stats.cache_hits
            again = module(path)
            assert again(3) == 6 and again.stats.cache_hits


@pytest.mark.parametrize("method", ["load_overload", "save_overload"])
def test_trouble_while_a_loop_is_kept_stops_nothing(tmp_path, monkeypatch, method):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "doubled.py"
    path.write_text(SOURCE)
    monkeypatch.setattr(FunctionCache, method, full)
    compiled.warn_uncached.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert module(path)(3) == 6 and module(path)(4) == 8
    assert len(said) == (method == "save_overload")
