"The notebooks run, are clean, and are what the library was exported from."

import filecmp
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import psutil
import pytest
from nbclient import NotebookClient
from nbdev.test import test_nb as run_cells

from scalable_arch.data import get_dataset, render_dataset, render_person_search

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


@pytest.mark.parametrize("path", chapters, ids=named)
def test_all_cells_run_twice_in_one_kernel(path, own_folders, tmp_path):
    "As by a reader's Run All and Run All again, from any folder."
    notebook = nbformat.reads(
        path.read_text(encoding="utf-8").replace('profile = \\"quick\\"', 'profile = \\"smoke\\"'), as_version=4
    )
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any('profile = "smoke"' in cell.source for cell in cells)
    notebook.cells = [
        nbformat.from_dict({**cell, "id": f"{cell.id}-{run}"}) for run in ("once", "again") for cell in cells
    ]
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert any((tmp_path / "reports").rglob("*.csv"))


def start_chapter_3(folder, worlds=None, **parameters):
    """Papermill on chapter 3 as a process of its own, with reports and cache in `folder`; rendered worlds from another
    cache."""
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    if worlds and not (folder / "cache/worlds").exists():
        (folder / "cache/worlds").symlink_to(worlds)
    words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    places = {"SCALABLE_ARCH_CACHE": str(folder / "cache"), "SCALABLE_ARCH_REPORTS": str(folder / "reports")}
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(root / "nbs/ch3_han.ipynb"),
        str(folder / "out.ipynb"),
        "-k",
        "python3",
        "--no-progress-bar",
    ]
    return subprocess.Popen(
        [*command, *words], env=os.environ | places, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def tables_of(folder):
    """Contents of all tables and pages that a chapter's smoke run wrote, by name; a commit made between two runs is
    none of their business."""
    reports = folder / "reports/ch3_han/smoke"
    written = {path.name: path.read_text() for path in reports.iterdir() if path.suffix in (".csv", ".md", ".html")}
    return {name: re.sub(r"commit \w+\+?", "commit", text) for name, text in written.items()}


@pytest.fixture(scope="module")
def smoke_of_chapter_3(tmp_path_factory):
    "Folder of one whole run of chapter 3 in `smoke`."
    folder = tmp_path_factory.mktemp("whole")
    assert start_chapter_3(folder, profile="smoke").wait() == 0
    return folder


def test_chapter_3_has_every_table_and_figure_of_results(smoke_of_chapter_3):
    written = {path.stem for path in (smoke_of_chapter_3 / "reports/ch3_han/smoke").glob("*.json")}
    assert {f"wei_li_thesis_t3_{n:02d}" for n in range(1, 13)} | {
        f"wei_li_thesis_f3_{n:02d}" for n in (5, 6, 7)
    } <= written
    study = read(smoke_of_chapter_3 / "reports/ch3_han/smoke/wei_li_thesis_t3_04.json")
    assert {cell["row"] for cell in study["cells"] if cell["ours"]} >= {"SSA", "HRA", "HAN(All)"}
    assert {cell["verdict"] for cell in study["cells"] if cell["ours"]} == {"needs data"}, (
        "a stand-in gives no verdict on a printed accuracy"
    )


def test_killed_and_restarted_chapter_gives_the_same_tables(smoke_of_chapter_3, tmp_path):
    worlds, trials = smoke_of_chapter_3 / "cache/worlds", tmp_path / "reports/ch3_han/trials"
    killed_at = random.randint(1, 40)
    run = start_chapter_3(tmp_path, worlds, profile="smoke")
    while run.poll() is None and len(list(trials.glob("*.json"))) < killed_at:
        time.sleep(0.05)
    assert run.poll() is None, "the run was over before it could be killed"
    time.sleep(random.random())
    for process in [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]:
        process.kill()
    run.wait()
    assert not (tmp_path / "reports/ch3_han/smoke/wei_li_thesis_t3_12.csv").exists()
    assert start_chapter_3(tmp_path, worlds, profile="smoke").wait() == 0
    assert tables_of(tmp_path) == tables_of(smoke_of_chapter_3), f"killed after {killed_at} trials"


def test_chapter_3_on_a_copy_in_the_layout_of_market(own_folders, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=8, num_test_ids=4)
    parameters = {"profile": "smoke", "dataset": "market1501", "data_root": "market"}
    papermill.execute_notebook(
        root / "nbs/ch3_han.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    scores = pd.read_csv(tmp_path / "reports/ch3_han/smoke/retrieval.csv")
    assert "trained HAN" in set(scores["method"])
    study = read(tmp_path / "reports/ch3_han/smoke/wei_li_thesis_t3_08.json")
    cell = next(
        cell
        for cell in study["cells"]
        if (cell["row"], cell["group"], cell["metric"]) == ("HAN(Large)", "", "R1") and "SQ" in cell["dataset"]
    )
    assert cell["paper"] == 91.6 and cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"


def test_chapter_4_on_a_copy_in_the_layout_of_prw(own_folders, tmp_path):
    render_person_search("prw", tmp_path / "prw", people=(5, 4), scenes=(6, 8), cameras=(2, 3), size=(96, 128))
    parameters = {"profile": "smoke", "dataset": "prw", "data_root": "prw"}
    papermill.execute_notebook(
        root / "nbs/ch4_hdl.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    study = read(tmp_path / "reports/ch4_hdl/smoke/wei_li_thesis_t4_05.json")
    cell = next(cell for cell in study["cells"] if (cell["row"], cell["metric"]) == ("HDL(T)", "mAP"))
    assert cell["paper"] == 33.6 and cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"
    costs = {
        (cell["row"], cell["metric"]): cell["verdict"]
        for cell in study["cells"]
        if cell["metric"].startswith("FLOPs") and cell["row"].startswith("HDL")
    }
    assert costs == {
        ("HDL(S)", "FLOPs_scene"): "exact",
        ("HDL(S)", "FLOPs_person"): "exact",
        ("HDL(T)", "FLOPs_scene"): "fails",
        ("HDL(T)", "FLOPs_person"): "fails",
    }


@pytest.mark.parametrize("path", chapters, ids=named)
def test_use_it_needs_no_other_cell(path, tmp_path):
    cells = read(path)["cells"]
    start = next(number for number, cell in enumerate(cells) if re.match(r"## \d+\. Use it", "".join(cell["source"])))
    script = "\n\n".join("".join(cell["source"]) for cell in cells[start:] if cell["cell_type"] == "code")
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_chapter_3_stops_where_images_cannot_be_read(own_folders, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=4, num_test_ids=4)
    broken = sorted((tmp_path / "market" / "bounding_box_train").glob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    parameters = {"profile": "smoke", "dataset": "market1501", "data_root": str(tmp_path / "market")}
    with pytest.raises(papermill.PapermillExecutionError, match=f"1 of .* images cannot be read: .*{broken.name}"):
        papermill.execute_notebook(
            root / "nbs/ch3_han.ipynb", tmp_path / "out.ipynb", parameters, kernel_name="python3", progress_bar=False
        )


@pytest.mark.parametrize(
    "chapter, wrong, sentence",
    [
        ("ch3_han", {"profle": "smoke"}, "unknown parameter 'profle' (did you mean 'profile'?)"),
        ("ch3_han", {"profile": "smke"}, "unknown value of profile, 'smke' (did you mean 'smoke'?)"),
        ("ch3_han", {"profile": "smoke", "seed": "one"}, "parameter seed must be of type int, not 'one'"),
        ("ch3_han", {"dataset": "market1501"}, "dataset market1501 is read from a folder: say which"),
        (
            "ch4_hdl",
            {"dataset": "prw", "data_root": "nowhere"},
            "data_root 'nowhere' is no folder, and dataset prw is read from one",
        ),
        ("ch6_nos", {"dataset": "cifar10"}, "without one there is fashion_mnist, digits"),
    ],
)
def test_wrong_parameter_is_one_sentence(chapter, wrong, sentence, tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as stop:
        papermill.execute_notebook(
            root / f"nbs/{chapter}.ipynb", tmp_path / "out.ipynb", wrong, kernel_name="python3", progress_bar=False
        )
    said = stop.value.traceback[0] if isinstance(stop.value.traceback, list) else stop.value.traceback
    assert said.startswith("Wrong parameter: ") and sentence in said and "\n" not in said.strip()


@pytest.mark.parametrize("path", notebooks, ids=named)
def test_clean(path):
    notebook = read(path)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code_cells(path)), "carries outputs"
    assert len(tagged(path)) == bool(re.match(r"ch\d|bench_", path.name))


def test_cells_are_short():
    long = {
        f"{named(path)}: {''.join(cell['source']).splitlines()[0]}"
        for path in notebooks
        for cell in code_cells(path)
        if len("".join(cell["source"]).splitlines()) > 60
    }
    assert not long


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
