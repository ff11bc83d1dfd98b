"The notebooks that are no chapters run; all are clean, and are what the library was exported from."

import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
from chapters import places
from nbdev.test import test_nb as run_cells

from scalable_arch.models import list_pretrained

root = Path(__file__).parents[1]
notebooks = sorted(path for path in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
read = lambda path: json.loads(path.read_text(encoding="utf-8"))
code_cells = lambda path: [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
tagged = lambda path: [cell for cell in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
with_profiles = [path for path in notebooks if tagged(path)]
chapters = [path for path in with_profiles if path.stem.startswith("ch")]
named = lambda path: str(path.relative_to(root / "nbs"))


@pytest.mark.parametrize("path", [path for path in notebooks if path not in with_profiles], ids=named)
def test_cells_run(path, monkeypatch, tmp_path):
    if named(path) == "index.ipynb" and not list_pretrained():
        pytest.skip("the README's examples wait for the weights that ship")
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    monkeypatch.setenv("IN_TEST", "1")  # test_nb sets it and leaves it; this takes it back
    monkeypatch.setenv("MPLBACKEND", "agg")
    success, _ = run_cells(path, do_print=False)
    assert success


@pytest.fixture
def own_folders(monkeypatch, tmp_path, worlds):
    "Reports, checkpoints and the current folder of one test alone; worlds are shared."
    for key, value in places(tmp_path, worlds).items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [path for path in with_profiles if path not in chapters], ids=named)
def test_smoke_profile_from_any_folder(path, own_folders, tmp_path):
    papermill.execute_notebook(
        path, tmp_path / "out.ipynb", {"profile": "smoke"}, kernel_name="python3", progress_bar=False
    )
    errors = [
        output
        for cell in code_cells(tmp_path / "out.ipynb")
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
    assert not errors and any((tmp_path / "reports").rglob("*.csv"))


@pytest.mark.parametrize("path", notebooks, ids=named)
def test_clean(path):
    notebook = read(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code_cells(path)), "carries outputs"
    assert len(tagged(path)) == bool(re.match(r"ch\d|bench_", path.name))


def test_one_notebook_a_module():
    modules = {}
    for path in notebooks:
        cells = ["".join(cell["source"]) for cell in code_cells(path)]
        module = [match[1] for cell in cells for match in re.finditer(r"^#\|\s*default_exp\s+(\S+)", cell, re.M)]
        assert len(module) <= 1 and (module or not any(re.search(r"^#\|\s*export\b", cell, re.M) for cell in cells)), (
            named(path)
        )
        for name in module:
            assert modules.setdefault(name, path) == path
    exported = {
        str(path.relative_to(root / "scalable_arch").with_suffix("")).replace(os.sep, ".")
        for path in (root / "scalable_arch").rglob("*.py")
        if path.name not in ("__init__.py", "_modidx.py")
    }
    assert exported == set(modules)


def test_export_in_step(tmp_path):
    for name in ("nbs", "scalable_arch"):
        shutil.copytree(
            root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(root / name, tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    subprocess.run(
        [Path(sys.executable).with_name("nbdev_export")], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    for path in (tmp_path / "scalable_arch").rglob("*.py"):
        assert filecmp.cmp(path, root / path.relative_to(tmp_path), shallow=False), (
            f"run make export: {path.name} is not in step"
        )


def test_init_files_only_re_export():
    import ast

    for path in (root / "scalable_arch").rglob("__init__.py"):
        kinds = {type(node).__name__ for node in ast.parse(path.read_text()).body}
        assert kinds <= {"Expr", "ImportFrom", "Assign"}, path


def test_readme_in_step():
    from readme import readme

    assert (root / "README.md").read_text(encoding="utf-8") == readme()
