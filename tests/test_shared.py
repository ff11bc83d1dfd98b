"What chapters share: how a plan is run, what stands in for CIFAR, how errors and claims reach the pages."

import pytest

from scalable_arch.study.reports import Report, WrongParameter
from scalable_arch.study.shared import (
    check_data_root,
    claims_table,
    how_to_run,
    put_errors,
    run_plan,
    say_if_another,
)
from scalable_arch.study.tables import Study

toy = lambda seed: {"run": "toy_trials:train", "width": 4, "epochs": 1, "seed": seed}


def test_a_missing_folder_of_images_is_said_at_once(tmp_path):
    check_data_root("world", "", without=["world"])
    check_data_root("world", "/nowhere", without=["world"])
    check_data_root("prw", str(tmp_path), without=["world"])
    with pytest.raises(
        WrongParameter,
        match="dataset prw is read from a folder: say which, as in -p data_root /data/prw; without one there is world, digits",
    ):
        check_data_root("prw", "", without=["world", "digits"])
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(WrongParameter, match=f"data_root '{wrong}' is no folder"):
            check_data_root("prw", str(wrong), without=["world"])


def test_a_core_each_unless_starting_takes_longer_than_working():
    assert how_to_run("quick", workers=3, scheduler="local", data_root="/data") == {
        "workers": 3,
        "scheduler": "local",
        "progress": None,
        "given": {"data_root": "/data", "device": how_to_run("quick")["given"]["device"]},
    }
    assert (
        how_to_run("smoke")["workers"] == 1 <= how_to_run("quick")["workers"]
        and how_to_run("quick")["scheduler"] is None
    )


def test_bars_show_where_somebody_looks_on(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert how_to_run("quick")["progress"] is None  # on a terminal, also on that of `reproduce` around papermill
    monkeypatch.setenv("JPY_SESSION_NAME", "nbs/ch3_han.ipynb")  # as a Jupyter server sets it for its kernels
    assert how_to_run("quick")["progress"] is True


def test_a_network_that_is_not_its_trials_is_said_to_be_another(capsys):
    record = {"trial": "6c9192a1df5d", "curves": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.25}]}
    say_if_another(record, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.25}])
    assert capsys.readouterr().out == ""
    say_if_another(record, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}])
    assert "trial 6c9192a1df5d: its last loss is 1.5000, the trial's 1.2500" in capsys.readouterr().out


def test_records_come_under_the_keys_of_their_plan(tmp_path, capsys):
    plan = {("a", 0): toy(0), ("b", 1): toy(1), "again": toy(0)}
    found = run_plan(plan, tmp_path, "toys", workers=1, scheduler=None, given={})
    assert list(found) == list(plan) and found["again"] == found["a", 0]
    assert all(found[key]["config"] == config for key, config in plan.items())
    assert capsys.readouterr().out.startswith("3 toys, which took 0 minutes")


def test_errors_and_claims_reach_the_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    report = Report("ch6_nos", "quick", data="digits")
    study = Study("wei_li_thesis_t6_03", report, data={"CIFAR-10": "digits", "CIFAR-100": "persons"})
    trial = lambda seed, wrong: {
        "trial": f"{seed:012d}",
        "config": {"seed": seed},
        "queries": {"test": {"top1": wrong, "top5": [0] * len(wrong)}},
    }
    for row, wrong in (("w/o AGS", [1, 1, 0, 0]), ("w/ AGS", [1, 0, 0, 0])):
        put_errors(study, [trial(seed, wrong) for seed in range(3)], row=row, dataset="CIFAR-10")
    put_errors(study, [], row="w/ AGS", dataset="CIFAR-100")
    study.table()
    ours = {cell["row"]: cell["ours"]["mean"] for cell in study.all() if cell["ours"]}
    assert ours == {"w/o AGS": 50.0, "w/ AGS": 25.0} and len(study.trials) == 3
    capsys.readouterr()
    page = claims_table(report, "Claims").data
    verdicts = page["here"].value_counts()
    assert capsys.readouterr().out.strip() == "; ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    assert set(page.index) == {"wei_li_thesis_t6_03"} and verdicts.sum() == len(page) > 0
