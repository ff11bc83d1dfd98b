"What chapters do alike: parameters refused in a sentence, settings, seeds, trials on record, the comparison with it."

import json
import time

import numpy as np
import pytest
from toy_trials import KINDS

from scalable_arch.study import chapter as module
from scalable_arch.study.chapter import (
    Chapter,
    WrongParameter,
    beside_record,
    check_data_root,
    check_parameters,
    compare_trials,
    how_to_run,
    listed_seeds,
    profile_settings,
    say_if_another,
    seed_noise,
)
from scalable_arch.study.record import read_trials, write_trials
from scalable_arch.study.reports import Report
from scalable_arch.study.trials import trial_name
from scalable_arch.versions import VERSIONS

PROFILES = """
setting   | smoke      | quick     | desk | gpu | paper
num_seeds | 1          | 2         | 3    | 5   |
people    | 8          | 120       |      |     | 1000
epochs    | 1          | 6         |      | 20  | 300
drops     | (0.5, 0.9) | ("a", {}) |      |     | None
"""
GIVEN = {
    "profile": "quick",
    "dataset": "world",
    "data_root": "",
    "seed": 0,
    "seeds": "",
    "epochs": 0,
    "people": 0,
    "workers": 1,
    "scheduler": "",
    "rerun_stale": False,
}
COUNT = {"kind": "count", "start": 3, "seed": 0}


@pytest.fixture(autouse=True)
def reports(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("scalable_arch.study.reports.commit", lambda: "abc1234")
    return tmp_path / "reports"


def opened(**parameters):
    names = GIVEN | parameters
    return Chapter("ch0_toy", names, PROFILES, kinds=KINDS, dataset=["world", "prw"], without=["world"], people=0)


# ---- parameters ----


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (
            {"profile": "quik"},
            r"unknown value of profile, 'quik' \(did you mean 'quick'\?\); choose one of: smoke, quick",
        ),
        ({"profil": "x"}, r"unknown parameter 'profil' \(did you mean 'profile'\?\)"),
        ({"dataset": "worlds"}, r"unknown value of dataset, 'worlds' \(did you mean 'world'\?\)"),
        ({"dataset": "prw"}, "dataset prw is read from a folder: say which, as in -p data_root /data/prw"),
        ({"dataset": "prw", "data_root": "/nowhere"}, "data_root '/nowhere' is no folder"),
        ({"seeds": "0,1"}, "parameter seeds must be whole numbers from 0 on with spaces between, .*, not '0,1'"),
        ({"seeds": "0 -1"}, "parameter seeds must be whole numbers from 0 on"),
        ({"seeds": "1 0 1"}, "parameter seeds names one twice: '1 0 1'"),
        ({"seeds": True}, "parameter seeds must be of type str, not True"),
        ({"seed": -1}, "parameter seed must be at least 0, not -1"),
        ({"seed": True}, "parameter seed must be of type int, not True"),
        ({"epochs": -1}, "parameter epochs must be at least 0, not -1"),
        ({"epochs": 1.5}, "parameter epochs must be of type int, not 1.5"),
        ({"workers": -2}, "parameter workers must be at least 0, not -2"),
        ({"people": -1}, "parameter people must be at least 0, not -1"),
        ({"rerun_stale": 1}, "parameter rerun_stale must be of type bool, not 1"),
    ],
)
def test_wrong_parameters_stop_at_once_in_one_sentence(wrong, sentence, reports):
    start = time.perf_counter()
    with pytest.raises(WrongParameter, match=sentence) as stop:
        opened(**wrong)
    assert time.perf_counter() - start < 1 and "\n" not in str(stop.value) and not reports.exists()
    assert stop.value._render_traceback_() == [f"Wrong parameter: {stop.value}"]


def test_right_parameters_pass_with_all_that_a_notebook_has_anyhow():
    names = {"profile": "quick", "seed": 3, "_i1": "profile = 1", "In": [], "Out": {}, "json": json, "check": len}
    check_parameters(names | {"PROFILES": "a | b"}, profile=["smoke", "quick"], seed=0)


def test_names_of_later_cells_are_no_parameters_in_a_second_run():
    names = {"profile": "quick"}
    check_parameters(names, profile=["smoke", "quick"])
    names |= {"both": [1, 2], "profile": "quik"}
    with pytest.raises(ValueError, match="unknown value of profile, 'quik'"):
        check_parameters(names, profile=["smoke", "quick"])
    names["profile"] = "smoke"
    check_parameters(names, profile=["smoke", "quick"])
    with pytest.raises(ValueError, match="unknown parameter 'both'"):
        check_parameters({"profile": "quick", "both": [1, 2]}, profile=["smoke", "quick"])


def test_seeds_from_a_text_or_from_the_profile(tmp_path):
    assert listed_seeds("", 5, 3) == [5, 6, 7] and listed_seeds(" 4 0 ", 5, 3) == [4, 0]
    assert opened(seeds=7).seeds == [7]  # papermill reads -p seeds 7 as a number
    assert opened(seed=2).seeds == [2, 3] and opened(profile="paper").seeds == [0, 1]
    check_data_root("prw", str(tmp_path), without=["world"])


def test_a_place_that_is_empty_is_as_quick():
    assert profile_settings(PROFILES, "desk") == {"num_seeds": 3, "people": 120, "epochs": 6, "drops": ("a", {})}
    assert profile_settings(PROFILES, "paper")["drops"] is None
    with pytest.raises(ValueError, match=r"unknown profile 'dask' \(did you mean 'desk'\?\)"):
        profile_settings(PROFILES, "dask")
    with pytest.raises(ValueError, match="the profile quick has no value of width: 'wide'"):
        profile_settings("setting | smoke | quick\nwidth | 1 | wide", "quick")


def test_a_parameter_replaces_its_setting_unless_it_is_0():
    assert opened().settings == profile_settings(PROFILES, "quick")
    assert opened(people=30, epochs=2).settings == profile_settings(PROFILES, "quick") | {"people": 30, "epochs": 2}


def test_a_core_each_unless_starting_takes_longer_than_working(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert how_to_run("quick", workers=3, scheduler="local", data_root="/data") == {
        "workers": 3,
        "scheduler": "local",
        "progress": None,  # on a terminal, also on that of `reproduce` around papermill
        "given": {"data_root": "/data", "device": "cpu"},
    }
    assert how_to_run("smoke")["workers"] == 1 and how_to_run("quick")["workers"] == 6
    assert how_to_run("quick")["scheduler"] is None
    monkeypatch.setenv("JPY_SESSION_NAME", "nbs/ch3_han.ipynb")  # as a Jupyter server sets it for its kernels
    assert how_to_run("quick")["progress"] is True
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    assert how_to_run("quick")["workers"] == 1 and how_to_run("quick")["given"]["device"] == "cuda"


# ---- one run ----


def test_trials_come_under_the_keys_of_their_plan_and_on_record(reports, capsys):
    chapter = opened(profile="smoke")
    plan = {("a", 0): COUNT, ("b", 1): COUNT | {"seed": 1}, "again": COUNT}
    found = chapter.run(plan, "toys")
    assert list(found) == list(plan) and found["again"] == found["a", 0]
    assert all(found[key]["config"] == config for key, config in plan.items())
    assert capsys.readouterr().out.startswith("3 toys, which took 0 minutes of one core")
    assert read_trials(reports / "ch0_toy") == chapter.records and len(chapter.records) == 2
    assert chapter.report.folder == reports / "ch0_toy" / "smoke"
    assert opened(profile="desk").report.folder == reports / "ch0_toy"


def test_the_first_line_says_what_is_stale_and_it_is_run_again_where_asked(reports, capsys, monkeypatch, tmp_path):
    opened().run({0: COUNT, 1: COUNT | {"seed": 1}, 2: {"kind": "train", "width": 4, "epochs": 1, "seed": 0}})
    capsys.readouterr()
    opened()
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(VERSIONS, "kind.tabular", 2)
    said = "2 of 3 trials on record are stale: kind.tabular 2 (made with 1) since they were made: "
    with pytest.warns(UserWarning, match="they are kept"):
        assert opened().run({0: COUNT})[0]["versions"] == {"kind.tabular": 1}
    assert capsys.readouterr().out.startswith(f"{said}kept; -p rerun_stale True runs them again.\n")
    chapter = opened(rerun_stale=True)
    assert capsys.readouterr().out == f"{said}run again.\n"
    assert chapter.run({0: COUNT})[0]["versions"] == {"kind.tabular": 2}


def test_a_part_of_a_plan_is_run_and_the_rest_is_taken_from_the_record(reports, capsys):
    plan = {seed: COUNT | {"seed": seed} for seed in range(4)}
    desk = opened(profile="desk")
    assert list(desk.run(plan, only=[0, 2])) == [0, 2]
    capsys.readouterr()
    found = opened(profile="desk").run(plan, only=[3])
    assert list(found) == [0, 2, 3] and found[2] == desk.run({2: plan[2]})[2]
    assert (
        "1 trials, which took" in (said := capsys.readouterr().out)
        and "2 more trials are taken from the record" in said
    )
    laid_out = opened(profile="desk", from_record=True)
    assert list(laid_out.run(plan)) == [0, 2, 3] and laid_out.records == {}
    with pytest.raises(WrongParameter, match="parameter from_record must be of type bool, not 1"):
        opened(from_record=1)


def test_all_claims_of_the_studies_that_were_shown(capsys):
    chapter = opened()
    chapter.rests_on(data="digits", seeds=[0, 1, 2])
    study = chapter.study("wei_li_thesis_t6_03", data={"CIFAR-10": "digits", "CIFAR-100": "persons"})
    trial = lambda seed, wrong: {
        "trial": f"{seed:012d}",
        "config": {"seed": seed},
        "queries": {"test": {"top1": wrong}},
    }
    for row, wrong in (("w/o AGS", [1, 1, 0, 0]), ("w/ AGS", [1, 0, 0, 0])):
        records = [trial(seed, wrong) for seed in range(3)]
        study.scored(records, "queries/test/top1", row=row, metric="Error_C10", dataset="CIFAR-10")
    study.scored([], "queries/test/top1", row="w/ AGS", metric="Error_C100", dataset="CIFAR-100")
    study.show()
    capsys.readouterr()
    page = chapter.claims("Claims").data
    verdicts = page["here"].str.replace(r" \(.*", "", regex=True).value_counts()
    assert capsys.readouterr().out.strip() == "; ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    assert set(page.index) == {"wei_li_thesis_t6_03"} and verdicts.sum() == len(page) > 0
    assert {path.name for path in chapter.report.folder.iterdir()} >= {"claims.csv", "tables.md", "studies.jsonl"}
    assert "data digits; seeds [0, 1, 2]" in (chapter.report.folder / "tables.md").read_text()


def test_all_controls_of_the_studies_that_were_shown(capsys, monkeypatch, tmp_path):
    head = 'written = "now"\nknown = "nothing"\n[[claim]]\nstudy = "wei_li_thesis_t6_03"\nname = "half"\ntext = "t"\n'
    more = 'source = "s"\nmetrics = ["Error_C10"]\ncontrol = true\nrelations = ["[w/ AGS] < [half the images]"]\n'
    (tmp_path / "a.toml").write_text(head + more)
    monkeypatch.setattr("scalable_arch.study.claims.claims_dir", lambda: tmp_path)
    chapter = opened()
    study = chapter.study("wei_li_thesis_t6_03", data={"CIFAR-10": "digits"})
    rng = np.random.default_rng(0)
    trial = lambda seed, rate: {
        "trial": f"{seed:04d} {rate}",
        "config": {"seed": seed},
        "queries": {"test": {"joint": {"Error_C10": (rng.random(200) < rate).astype(int).tolist()}}},
    }
    where = {"dataset": "CIFAR-10", "metrics": ("Error_C10",)}
    study.searched([trial(seed, 0.1) for seed in range(8)], row="w/ AGS", **where)
    study.control([trial(seed, 0.5) for seed in range(8)], row="half the images", **where)
    study.show()
    capsys.readouterr()
    page = chapter.controls("Controls").data
    assert page["control"].tolist() == ["half", "null", "null"] and page["here"].iloc[0] == "supported (at 4 seeds)"
    assert page["on"].iloc[1] == "w/ AGS digits Error_C10" and "(p " in page["here"].iloc[1]
    assert capsys.readouterr().out.startswith(("0 of 2 null controls differ", "1 of 2 null controls differ"))
    assert chapter.claims("Claims").data.empty  # a control is no claim
    assert (chapter.report.folder / "controls.csv").is_file()


def test_results_that_rest_on_other_data_say_so():
    chapter = opened()
    first = chapter.rests_on(data="toy")
    assert chapter.report is first and "data toy" in first.caption("x")
    chapter.rests_on(data="another")
    assert "data another" in chapter.report.caption("x") and chapter.report.studies is first.studies
    assert isinstance(chapter.report, Report)


# ---- beside the record ----


def trial(score, seed=0, **more):
    config = {"kind": "toy", "seed": seed}
    metrics = {"test": {"R1": score, "name": "x"}}
    return {"trial": trial_name(config), "config": config, "metrics": metrics, "wall_seconds": 1, **more}


def on_record(*scores):
    return {record["trial"]: record for record in (trial(score, seed) for seed, score in enumerate(scores))}


def test_how_a_trial_stands_to_the_record():
    recorded = on_record(
        0.50, 0.52, 0.48
    )  # a deviation of 0.02: two of such differ by up to 3 * sqrt(2) * 0.02 = 0.085
    noise = seed_noise(recorded.values())
    assert list(noise.values()) == [pytest.approx(0.02)]
    told = lambda score: beside_record(trial(score), recorded[trial(score)["trial"]], noise)
    assert told(0.5) == "equal to the bit"
    assert told(0.58) == told(0.42) == "within what seeds scatter by"
    assert told(0.59) == told(0.41) == "outside of what seeds scatter by"
    assert beside_record(trial(0.5), None, noise) == "not on record"
    few = on_record(0.50, 0.52)
    said = "other, and too few seeds on record to tell by how much"
    assert beside_record(trial(0.6), few[trial(0.6)["trial"]], seed_noise(few.values())) == said


def test_seeds_that_scatter_by_nothing_allow_nothing():
    recorded = on_record(0.5, 0.5, 0.5)
    found = compare_trials([trial(0.5001), trial(0.5, seed=1), trial(0.5, seed=2), trial(0.5, seed=9)], recorded)
    assert {words: len(names) for words, names in found.items()} == {
        "equal to the bit": 2,
        "outside of what seeds scatter by": 1,
        "not on record": 1,
    }
    assert list(found)[0] == "equal to the bit"


def test_a_run_compares_itself_with_the_record_of_the_checkout(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "checkout_root", lambda: tmp_path / "checkout")
    chapter, record = opened(profile="smoke"), tmp_path / "checkout" / "reports" / "ch0_toy"
    [ours, other] = chapter.run({0: COUNT, 1: COUNT | {"seed": 1}}).values()
    write_trials(record, [ours, other])
    capsys.readouterr()
    chapter.compare()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Beside the record (2 trials; processors: " + ours["processor"] + "):", "   2 equal to the bit"]
    theirs = ours | {"processor": "another, AVX2", "metrics": {"steps": 9}}
    write_trials(record, [theirs])
    chapter.compare()
    assert capsys.readouterr().out.splitlines() == [
        "Beside the record (1 trials; processors: another, AVX2):",
        "   1 other, and too few seeds on record to tell by how much",
        "   1 not on record",
    ]
    monkeypatch.setattr(module, "checkout_root", lambda: None)  # a wheel has no record
    chapter.compare()
    assert "0 trials; processors: none" in capsys.readouterr().out


def test_a_network_that_is_not_its_trials_is_said_to_be_another(capsys):
    record = {"trial": "6c9192a1df5d", "curves": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.25}]}
    say_if_another(record, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.25}])
    assert capsys.readouterr().out == ""
    say_if_another(record, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}])
    assert "trial 6c9192a1df5d: its last loss is 1.5000, the trial's 1.2500" in capsys.readouterr().out


def test_a_whole_number_without_a_bound_is_any():
    check_parameters(names := {"seed": -3}, seed=int)
    assert names["seed"] == -3
    with pytest.raises(WrongParameter, match="parameter seed must be of type int, not 'one'"):
        check_parameters({"seed": "one"}, seed=int)
