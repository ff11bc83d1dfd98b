"""Chapter 3: its smoke run, and, for all chapters, a second pass in one kernel, a kill and restart, and what stops a
run."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import nbformat
import numpy as np
import papermill
import psutil
import pytest
import torch
from chapters import ChapterTests, Run, cells_from_parameters, places, read_chapter, run_chapter, run_plan
from nbclient import NotebookClient

from scalable_arch.data import render_dataset

CHAPTER = "ch3_han"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "market1501", 40
    waiting = {"quick": 1, "desk": 206}  # its new recipe; 34 trials and 11 settling ones are there
    studies = [f"wei_li_thesis_t3_{n:02d}" for n in range(1, 13)] + [f"wei_li_thesis_f3_{n:02d}" for n in (5, 6, 7)]

    def test_every_kind_of_attention_was_tried(self, smoke):
        cells = smoke.studies()["wei_li_thesis_t3_04"]["cells"]
        assert {cell["row"] for cell in cells if cell["ours"]} >= {"SSA", "HRA", "HAN(All)"}

    def test_the_other_layout_of_embeddings(self):
        "UMAP takes seconds to load, so `smoke` goes without it."
        [source] = [source for source in cells_from_parameters(CHAPTER) if "def laid_out(" in source]
        exec(source, names := {})
        threads = torch.get_num_threads()
        features = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
        for name in ("t-SNE", "UMAP"):
            assert np.isfinite(names["laid_out"](name, features, 0)).all()
            assert names["laid_out"](name, features, 0).shape == (12, 2)
        torch.set_num_threads(threads)  # UMAP's compiled loops take all cores, and torch's number changes with them


def test_on_a_copy_in_the_layout_of_market(worlds, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=4, num_test_ids=3, progress=False)
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="market1501", data_root="market")
    assert "trained HAN" in (run.shown / "retrieval.csv").read_text()
    cell = run.cell("wei_li_thesis_t3_08", "HAN(Large)", "R1", group="", dataset="Market-1501 (SQ)")
    assert cell["paper"] == 91.6 and cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"


def test_stops_where_images_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    render_dataset("market1501", tmp_path / "market", num_train_ids=4, num_test_ids=3, progress=False)
    broken = sorted((tmp_path / "market" / "bounding_box_train").glob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"1 of .* images cannot be read: .*{broken.name}"):
        run_plan(CHAPTER, profile="smoke", dataset="market1501", data_root=str(tmp_path / "market"))


def test_a_wrong_parameter_given_to_papermill_prints_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    notebook = read_chapter(CHAPTER)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:3]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    files = [str(tmp_path / name) for name in ("in.ipynb", "out.ipynb")]
    with pytest.raises(papermill.PapermillExecutionError) as stop:
        papermill.execute_notebook(*files, {"profile": "smke"}, kernel_name="python3", progress_bar=False)
    said = stop.value.traceback[0] if isinstance(stop.value.traceback, list) else stop.value.traceback
    assert said.startswith("Wrong parameter: unknown value of profile, 'smke'") and "\n" not in said.strip()


def test_all_cells_run_twice_in_one_kernel(smoke, worlds, tmp_path, monkeypatch):
    "As by a reader's Run All and Run All again, from any folder; the trials are on record from the smoke run."
    for key, value in places(tmp_path, worlds).items():
        monkeypatch.setenv(key, value)
    shutil.copytree(smoke.record, tmp_path / "reports" / CHAPTER, ignore=shutil.ignore_patterns("smoke"))
    notebook = read_chapter(CHAPTER)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    [parameters] = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = parameters.source.replace('profile = "quick"', 'profile = "smoke"')
    notebook.cells = [
        nbformat.from_dict({**cell, "id": f"{cell.id}-{run}"}) for run in ("once", "again") for cell in cells
    ]
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place).execute()
    assert Run(CHAPTER, tmp_path).tables() == smoke.tables()


def start(folder, worlds):
    "Papermill on the whole chapter as a process of its own, with reports and cache in `folder`."
    where = os.environ | (places(folder, worlds) if not (folder / "cache").exists() else {})
    where |= {"SCALABLE_ARCH_CACHE": str(folder / "cache"), "SCALABLE_ARCH_REPORTS": str(folder / "reports")}
    files = [str(folder.parent / "in.ipynb"), str(folder / "out.ipynb")]
    command = [
        sys.executable,
        "-m",
        "papermill",
        *files,
        "-k",
        "python3",
        "--no-progress-bar",
        "-p",
        "profile",
        "smoke",
    ]
    return subprocess.Popen(command, env=where, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_killed_and_restarted_it_gives_the_same_tables(smoke, worlds, tmp_path):
    shutil.copy(smoke.folder / "in.ipynb", tmp_path)
    folder = tmp_path / "killed"
    folder.mkdir()
    finished, killed_at = folder / "cache/trials", random.randint(1, len(smoke.trials()) - 5)
    run = start(folder, worlds)
    while run.poll() is None and len(list(finished.glob("*.json"))) < killed_at:
        time.sleep(0.02)
    assert run.poll() is None, "the run was over before it could be killed"
    time.sleep(random.random() / 5)
    for process in [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]:
        process.kill()
    run.wait()
    assert not (folder / "reports" / CHAPTER / "trials.jsonl").exists(), "it was killed while its trials ran"
    kept = {path: path.read_bytes() for path in finished.glob("*.json")}
    assert start(folder, worlds).wait() == 0
    again = Run(CHAPTER, folder)
    assert again.tables() == smoke.tables(), f"killed after {killed_at} trials"
    dates = {name: record["date"] for name, record in again.trials().items()}
    assert all(dates[path.stem] == json.loads(text)["date"] for path, text in kept.items()), "none was run again"
