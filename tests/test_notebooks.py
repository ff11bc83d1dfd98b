"The notebooks run, are clean, and are what the library was exported from."
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import papermill
import pytest
from nbdev.test import test_nb as run_cells

from scalable_arch.data import get_dataset, render_dataset

root = Path(__file__).parents[1]
notebooks = sorted(path for path in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
read = lambda path: json.loads(path.read_text(encoding="utf-8"))
code_cells = lambda path: [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
tagged = lambda path: [cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
with_profiles = [path for path in notebooks if tagged(path)]
named = lambda path: str(path.relative_to(root / "nbs"))


@pytest.mark.parametrize("path", [path for path in notebooks if path not in with_profiles], ids=named)
def test_cells_run(path, monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    monkeypatch.setenv("IN_TEST", "1")  # test_nb sets it and leaves it; this takes it back
    monkeypatch.setenv("MPLBACKEND", "agg")
    success, _ = run_cells(path, do_print=False)
    assert success


@pytest.fixture
def own_folders(monkeypatch, tmp_path):
    "Reports, checkpoints and the current folder of one test alone; the video of real people where it can be had."
    try:
        video = get_dataset("vtest", progress=False)
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / video.name).symlink_to(video)
    except OSError:
        pass  # chapters go on without it
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path / "reports"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", with_profiles, ids=named)
def test_smoke_profile_from_any_folder(path, own_folders, tmp_path):
    papermill.execute_notebook(path, tmp_path / "out.ipynb", {"profile": "smoke"}, kernel_name="python3", progress_bar=False)
    errors = [output for cell in code_cells(tmp_path / "out.ipynb") for output in cell["outputs"] if output["output_type"] == "error"]
    assert not errors and any((tmp_path / "reports").rglob("*.csv"))


def test_chapter_3_on_a_copy_in_the_layout_of_market(own_folders, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=8, num_test_ids=4)
    parameters = {"profile": "paper", "dataset": "market1501", "data_root": "market", "epochs": 1, "num_seeds": 1}
    papermill.execute_notebook(root / "nbs/ch3_han.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False)
    scores = pd.read_csv(tmp_path / "reports/ch3_han/paper/retrieval.csv")
    assert set(scores["search in"]) == {"market1501"} and "trained HAN" in set(scores["method"])
    assert scores.loc[scores["method"] == "trained HAN", "paper rank-1"].astype(float).tolist() == [91.6]  # W Table 3.8


def test_chapter_3_stops_before_training_where_images_cannot_be_read(own_folders, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=4, num_test_ids=4)
    broken = sorted((tmp_path / "market" / "bounding_box_train").glob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    parameters = {"profile": "smoke", "dataset": "market1501", "data_root": str(tmp_path / "market")}
    with pytest.raises(papermill.PapermillExecutionError, match=f"1 of .* images cannot be read: .*{broken.name}"):
        papermill.execute_notebook(root / "nbs/ch3_han.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False)


@pytest.mark.parametrize("wrong, sentence", [
    ({"profle": "smoke"}, "unknown parameter 'profle' (did you mean 'profile'?)"),
    ({"profile": "smke"}, "unknown value of profile, 'smke' (did you mean 'smoke'?)"),
    ({"profile": "smoke", "seed": "one"}, "parameter seed must be of type int, not 'one'"),
])
def test_wrong_parameter_is_one_sentence(wrong, sentence, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as stop:
        papermill.execute_notebook(root / "nbs/ch3_han.ipynb", tmp_path / "out.ipynb", wrong, kernel_name="python3", progress_bar=False)
    said = stop.value.traceback[0] if isinstance(stop.value.traceback, list) else stop.value.traceback
    assert said.startswith("Wrong parameter: ") and sentence in said and "\n" not in said.strip()


@pytest.mark.parametrize("path", notebooks, ids=named)
def test_clean(path):
    notebook = read(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code_cells(path)), "carries outputs"
    assert len(tagged(path)) == bool(re.match(r"ch\d|bench_", path.name))


def test_cells_are_short():
    long = {f"{named(path)}: {''.join(cell['source']).splitlines()[0]}" for path in notebooks for cell in code_cells(path)
            if len("".join(cell["source"]).splitlines()) > 60}
    assert not long


def test_one_notebook_a_module():
    modules = {}
    for path in notebooks:
        cells = ["".join(cell["source"]) for cell in code_cells(path)]
        module = [match[1] for cell in cells for match in re.finditer(r"^#\|\s*default_exp\s+(\S+)", cell, re.M)]
        assert len(module) <= 1 and (module or not any(re.search(r"^#\|\s*export\b", cell, re.M) for cell in cells)), named(path)
        for name in module:
            assert modules.setdefault(name, path) == path
    exported = {str(path.relative_to(root / "scalable_arch").with_suffix("")).replace(os.sep, ".")
                for path in (root / "scalable_arch").rglob("*.py") if path.name not in ("__init__.py", "_modidx.py")}
    assert exported == set(modules)


def test_export_in_step(tmp_path):
    for name in ("nbs", "scalable_arch"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(root / name, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    subprocess.run([Path(sys.executable).with_name("nbdev_export")], cwd=tmp_path, env=environment, check=True, capture_output=True)
    for path in (tmp_path / "scalable_arch").rglob("*.py"):
        assert filecmp.cmp(path, root / path.relative_to(tmp_path), shallow=False), f"run make export: {path.name} is not in step"


def test_init_files_only_re_export():
    import ast
    for path in (root / "scalable_arch").rglob("__init__.py"):
        kinds = {type(node).__name__ for node in ast.parse(path.read_text()).body}
        assert kinds <= {"Expr", "ImportFrom", "Assign"}, path


def test_readme_in_step():
    from readme import readme
    assert (root / "README.md").read_text(encoding="utf-8") == readme()
