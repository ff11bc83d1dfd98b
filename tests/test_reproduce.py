"`scalable-arch reproduce` on small chapters of its own."

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from toy_trials import KINDS

from scalable_arch.cli import main
from scalable_arch.study import reproduce as module
from scalable_arch.study.record import read_trials
from scalable_arch.study.reproduce import cluster_address, list_chapters
from scalable_arch.study.trials import execute

distributed = pytest.importorskip("distributed")

PARAMETERS = 'profile = "quick"\nseeds = ""\nworkers = 0\nscheduler = ""\nrerun_stale = False\n'
BODY = """
if profile == "gpu":
    raise OSError("the roof is\\nleaking")
import json
from toy_trials import KINDS
from scalable_arch.study.reports import report_dir
from scalable_arch.study.trials import run_trials
configs = [{"kind": "train", "width": 6, "epochs": 2, "seed": int(seed)} for seed in (seeds or "7").split()]
running = {"workers": workers, "scheduler": scheduler or None, "rerun_stale": rerun_stale}
records = run_trials(configs, report_dir("ch0_toy"), KINDS, **running)
asked = [seeds, workers, scheduler, rerun_stale, len(records)]
(report_dir("ch0_toy", profile) / "asked.json").write_text(json.dumps(asked))
"""


def add_chapter(root, name, parameters, body):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(body)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "nbs" / f"{name}.ipynb")


@pytest.fixture(autouse=True)
def checkout(monkeypatch, tmp_path):
    "A checkout with two small chapters."
    (tmp_path / "nbs").mkdir()
    add_chapter(tmp_path, "ch0_toy", PARAMETERS, BODY)
    add_chapter(tmp_path, "ch1_plain", 'profile = "quick"', "assert profile == 'gpu'")
    monkeypatch.setattr(module, "checkout_root", lambda: tmp_path)
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    there = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(there))  # for the kernels
    monkeypatch.chdir(tmp_path)


def mistake(capsys, *arguments):
    assert main(["reproduce", "--chapters", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("scalable-arch: ") and said.count("\n") == 1
    return said


def test_a_chapter_on_a_cluster_gives_what_it_gives_alone(tmp_path, capsys):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        address = cluster.scheduler_address
        assert (
            main(
                [
                    "reproduce",
                    "--chapters",
                    "ch0_toy",
                    "--seeds",
                    "0",
                    "1",
                    "--workers",
                    "2",
                    "--scheduler",
                    address,
                    "--rerun-stale",
                    "--out",
                    "one",
                ]
            )
            == 0
        )
    [path, *_] = capsys.readouterr().out.split(" (executed notebook")
    assert Path(path) == tmp_path / "one" / "ch0_toy" / "quick" / "ch0_toy.ipynb" and Path(path).is_file()
    assert json.loads(Path(path).with_name("asked.json").read_text()) == ["0 1", 2, address, True, 2]
    assert (
        not {"SCALABLE_ARCH_REPORTS", "SCALABLE_ARCH_TERMINAL"} & os.environ.keys()
        and not (tmp_path / "reports").exists()
    )
    on_cluster = read_trials(tmp_path / "one" / "ch0_toy")
    assert {name: record["metrics"] for name, record in on_cluster.items()} == {
        name: execute(record["config"], KINDS["train"])["metrics"] for name, record in on_cluster.items()
    }


def test_a_notebook_lies_where_its_chapters_results_do(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "run_chapter", lambda chapter, path, parameters: asked.append((path, parameters)))
    for profile, place in (("desk", ""), ("smoke", "smoke")):
        assert main(["reproduce", "--chapters", "ch0_toy", "--workers", "1", "--profile", profile]) == 0
        path = tmp_path / "reproduced" / "ch0_toy" / place / "ch0_toy.ipynb"
        assert asked.pop() == (path, {"profile": profile, "workers": 1, "scheduler": ""})
        assert f"{path} (executed notebook" in capsys.readouterr().out


def test_a_chapter_that_stops_does_not_keep_the_others(tmp_path, capsys):
    said = mistake(capsys, "ch0_toy", "ch1_plain", "--profile", "gpu", "--workers", "1")
    path = tmp_path / "reproduced" / "ch0_toy" / "gpu" / "ch0_toy.ipynb"
    assert f"ch0_toy stopped with OSError: the roof is leaking; {path} shows where" in said
    assert path.is_file() and (tmp_path / "reproduced" / "ch1_plain" / "gpu" / "ch1_plain.ipynb").is_file()


def test_a_kernel_does_not_warn_of_its_ports(tmp_path, capfd):
    module.run_chapter("ch1_plain", tmp_path / "out.ipynb", {"profile": "gpu"})
    assert (tmp_path / "out.ipynb").is_file() and capfd.readouterr().err == ""


def test_mistakes_are_found_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "run_chapter", lambda *_: pytest.fail("runs"))
    assert "unknown chapter 'ch0_toi' (did you mean 'ch0_toy'?); choose one of: ch0_toy, ch1_plain" in mistake(
        capsys, "ch1_plain", "ch0_toi"
    )
    assert "unknown parameter of ch1_plain, 'seeds'; choose one of: profile" in mistake(
        capsys, "ch0_toy", "ch1_plain", "--seeds", "1"
    )
    assert "unknown parameter of ch1_plain, 'rerun_stale'; choose one of: profile" in mistake(
        capsys, "ch1_plain", "--rerun-stale"
    )
    assert "workers must be a whole number of at least 1, not -1" in mistake(capsys, "ch0_toy", "--workers", "-1")
    assert "no Dask scheduler answers at nonsense://x" in mistake(capsys, "ch0_toy", "--scheduler", "nonsense://x")
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert "pip install 'scalable_arch[nb]'" in mistake(capsys, "ch0_toy")
    monkeypatch.setattr(module, "checkout_root", lambda: None)
    assert "a wheel has none: clone the repository" in mistake(capsys, "ch0_toy")
    assert not (tmp_path / "reproduced").exists()


def test_a_cluster_of_our_own_only_where_it_helps(monkeypatch):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise OSError("refused")

    monkeypatch.setattr(module, "connect", refuse)
    with cluster_address(None, 1) as address:
        assert address == ""
    with pytest.raises(OSError, match="refused"), cluster_address(None, 2):
        pass
    with pytest.raises(OSError, match="refused"), cluster_address("tcp://there:1", 1):
        pass
    assert asked == [("local", 2), ("tcp://there:1", 1)]
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with cluster_address(None, 2) as address:
        assert address == ""  # the pool of processes does it then


def test_chapters_of_the_checkout(monkeypatch):
    monkeypatch.undo()
    assert "ch3_han" in list_chapters()
    assert {"profile"} <= set(module.chapter_parameters("ch3_han", asked={"profile": "smoke"}, offered={}))


def test_the_terminal_is_named_only_where_there_is_one(monkeypatch):
    assert module.terminal_name() == ""
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert module.terminal_name() == os.ttyname(theirs)
    os.close(ours)
