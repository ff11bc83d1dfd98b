"The ledger: all that is printed is in it, the best run counts, and what is damaged or stale is named."

import io
import re

import numpy as np
import pandas as pd
import pytest

from scalable_arch.cli import main
from scalable_arch.study import ledger as ledger_module
from scalable_arch.study import printed
from scalable_arch.study.claims import load_claims
from scalable_arch.study.ledger import (
    best_records,
    catalogue,
    chapter_counts,
    ledger,
    standing,
    structural_keys,
    total_lines,
    value_counts,
    write_ledger,
)
from scalable_arch.study.printed import list_printed, printed_table, structural
from scalable_arch.study.record import write_trials
from scalable_arch.study.reports import Report
from scalable_arch.study.rule import VERDICTS
from scalable_arch.study.tables import Study

ITEMS = catalogue()
TABLE = "wei_li_thesis_t3_07"


@pytest.fixture
def reports(monkeypatch, tmp_path):
    "An empty folder of reports."
    folder = tmp_path / "reports"
    folder.mkdir()
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(folder))
    monkeypatch.setattr("scalable_arch.study.reports.commit", lambda: "abc1234")
    return folder


def run(profile="desk", *, seeds=4, flops=708.6e6):
    "A study of W Table 3.7: its costs, and three of its rows on a stand-in."
    study = Study(TABLE, Report("ch0_toy", profile), data={"Market-1501": "plaza"}, versions=["model.han"])
    for row, value in {"Depthwise": flops, "Inception": 1088e6}.items():
        study.structural(value, row=row, metric="FLOPs", tolerance=0.015)
    rng = np.random.default_rng(0)
    for row, rate in {"Depthwise": 0.7, "Inception": 0.5, "Residual": 0.4}.items():
        for metric in ("R1", "mAP"):
            study.measured(
                [rate + rng.normal(0, 0.05, 50) for _ in range(seeds)], row=row, dataset="Market-1501", metric=metric
            )
    study.show()
    return study


def entry_of(found, name=TABLE):
    return next(entry for entry in found["entries"] if entry["id"] == name)


# what is in it


def test_the_catalogue_has_all_that_is_printed():
    tables = [item for item in ITEMS if item["kind"] == "table"]
    assert len(tables) == 83 and len({item["id"] for item in ITEMS}) == len(ITEMS)
    assert {item["id"] for item in ITEMS if item["kind"] == "figure"} >= {
        f"wei_li_thesis_f3_0{number}" for number in (5, 6, 7)
    }
    assert [section for section in dict.fromkeys(item["section"] for item in tables)] == [
        *(("W", f"chapter {number}") for number in (3, 4, 5, 6)),
        ("J", ""),
        ("C", ""),
        *(("N", f"chapter {number}") for number in range(2, 9)),
        ("M", ""),
    ]
    assert all(item["title"] and item["caption"] for item in ITEMS)
    assert (
        sum(len(item["structural"]) for item in tables)
        == sum(structural(printed_table(name)).sum() for name in list_printed())
        > 800
    )


def test_an_empty_folder_covers_nothing(reports):
    found = write_ledger(reports)
    assert (
        found["problems"] == {}
        and found["totals"]["tables"] == 83
        and found["totals"]["tables_covered"] == 0
        and found["totals"]["values"] == {}
    )
    assert {path.name for path in reports.iterdir()} == {"ledger.csv", "ledger.md"}
    assert all(standing(entry) == [("not run", "")] for entry in found["entries"])
    claims = [claim for entry in found["entries"] for claim in entry["claims"]]  # all of them, though nothing was run
    assert len(claims) == len(load_claims()) and {claim["verdict"] for claim in claims} == {"not testable here"}
    lines = pd.read_csv(reports / "ledger.csv", keep_default_na=False)
    assert lines.id.tolist() == [item["id"] for item in ITEMS] and not lines.covered.any()


def test_totals_are_sums_over_what_is_printed(reports):
    run()
    found = ledger(reports)
    entry, same, sums = entry_of(found), entry_of(found, "han_ijcv_t12"), found["totals"]
    assert (entry["structural"], entry["measured"], entry["seeds"], entry["profile"]) == (3, 6, 4, "desk")
    assert value_counts([entry]) == value_counts([same]) == {"met": 1, "within": 1}
    assert (entry["data"], entry["commit"], len(entry["date"])) == ("plaza for Market-1501", "abc1234", 10)
    assert (same["claims"], same["measured"], same["own"]) == ([], 0, False)
    assert ("as W Table 3.7", "") in standing(same)
    assert sums["values"] == {"met": 1, "within": 1} and sums["structural"] == sum(
        len(item["structural"]) for item in ITEMS if not item["same_as"]
    )  # printed twice, counted once
    assert sums["tables_covered"] == 2 and sums["figures_covered"] == 0
    once = {(claim.name, claim.source) if claim.control else (claim.study, claim.name) for claim in load_claims()}
    assert sum(map(sum, (counts.values() for counts in sums["claims"].values()))) == len(once)
    assert sums["testable"] <= sum(sums["claims"]["measured"].values())
    words = {words: number for number, words, _ in total_lines(sums)}
    assert words["tables covered"] == "2 of 83"
    assert words["distinct computed costs and counts meet the last printed digit"] == "1 of 2"
    chapter = chapter_counts([entry, same])
    assert chapter["structural met"] == "1 of 2" and sum(chapter[verdict] for verdict in VERDICTS) == len(
        [claim for claim in entry["claims"] if claim["group"] == "measured"]
    )


def test_one_number_in_two_tables_counts_once(reports):
    run()
    study = Study("wei_li_thesis_t3_08", Report("ch0_toy", "desk"))
    for group in ("", "RR"):
        study.structural(3.7e8, row="HAN(Small)", group=group, metric="FLOPs", tolerance=0.015)
    study.show()
    found = ledger(reports)
    assert value_counts([entry_of(found, "wei_li_thesis_t3_08")]) == {"within": 2}
    assert found["totals"]["values"] == {"met": 1, "within": 2}


def test_what_was_typed_in_is_in_no_total(reports):
    study = Study("wei_li_thesis_t3_01", Report("ch0_toy", "desk"))
    study.structural(2, row="HAN(Small)", metric="stride_s1", tolerance=0, transcribed=True)
    study.structural(3.68e8, row="HAN(Small)", metric="FLOPs")
    study.show()
    found = ledger(reports)
    assert found["totals"]["values"] == {"met": 1, "transcribed": 1}
    assert standing(entry_of(found, "wei_li_thesis_t3_01"))[:2] == [
        ("1 printed digits met", "good"),
        ("1 transcribed", ""),
    ]
    assert chapter_counts(found["entries"])["structural met"] == "1 of 1"


def test_a_structural_value_that_is_not_met_counts_as_covered(reports):
    run(flops=800e6)
    entry = entry_of(ledger(reports))
    assert value_counts([entry]) == {"met": 1, "not met": 1} and ("1 not met", "bad") in standing(entry)


def test_shares_of_claims_are_of_those_that_a_stand_in_can_test():
    sums = {"tables_covered": 0, "tables": 0, "figures_covered": 0, "figures": 0, "structural": 0, "stale": 0}
    sums |= {"values": {}, "nulls": [], "contradicted_in_paper": 0, "testable": 20}
    measured = {"supported": 6, "contradicted": 4, "no difference": 2, "undecided": 7, "not testable here": 21}
    sums["claims"] = {"measured": measured, "structural": {"supported": 3}, "control": {"supported": 1, "undecided": 1}}
    words = {words: number for number, words, _ in total_lines(sums)}
    assert words["of the 20 claims that a stand-in can test supported or contradicted"] == "50 %"
    assert words["of them without a difference that matters"] == "10 %"
    assert words["of all 40 claims decided"] == "30 %"
    assert words["positive controls found"] == "1 of 2" and words["structural claims supported"] == "3 of 3"


def test_null_controls_stand_in_the_ledger_once_for_the_same_trials(reports):
    rng = np.random.default_rng(1)
    trials = [
        {"trial": f"t{seed}", "config": {"seed": seed}, "versions": {}, "metrics": {"m": float(rng.random())}}
        for seed in range(8)
    ]
    for name in (TABLE, "wei_li_thesis_t3_04"):
        study = Study(name, Report("ch0_toy", "desk"), data={"Market-1501": "plaza"})
        row = "Depthwise" if name == TABLE else "SSA"
        study.scored(trials, "metrics/m", row=row, dataset="Market-1501", metric="R1")
        study.show()
    assert len(ledger(reports)["totals"]["nulls"]) == 1
    write_trials(reports / "ch0_toy", trials)
    write_ledger(reports)
    assert "**1** null controls. " in (reports / "ledger.md").read_text(encoding="utf-8")


def test_the_best_run_counts(reports):
    for profile in ("smoke", "quick", "desk"):
        run(profile, seeds={"smoke": 1, "quick": 2, "desk": 3}[profile])
    assert entry_of(ledger(reports))["profile"] == "desk"
    (reports / "ch0_toy" / "studies.jsonl").unlink()
    assert entry_of(ledger(reports))["profile"] == "quick"
    (reports / "ch0_toy" / "quick" / "studies.jsonl").unlink()
    assert not entry_of(ledger(reports))["covered"]  # smoke is no result


def test_the_larger_profile_counts():
    record = lambda profile: {
        "study": "x",
        "profile": profile,
        "cells": [{"ours": {"n": 1}}],
        "facts": {"date": "2026-01-01"},
    }
    ranked = ["quick", "desk", "gpu", "paper"]
    for low, high in zip(ranked, ranked[1:]):
        assert best_records([record(high), record(low)])["x"]["profile"] == high


def test_of_two_runs_of_one_profile_the_one_with_more_seeds_counts_then_the_later():
    cell = lambda n: [{"ours": {"n": n}}, {"ours": None}]
    record = lambda n, date, where: {
        "study": "x",
        "profile": "desk",
        "cells": cell(n),
        "facts": {"date": date},
        "where": where,
    }
    assert best_records([record(5, "2026-01-01", "gpu"), record(3, "2026-02-01", "cpu")])["x"]["where"] == "gpu"
    assert best_records([record(3, "2026-02-01", "late"), record(3, "2026-01-01", "early")])["x"]["where"] == "late"


def test_claims_stand_with_their_intervals(reports):
    run()
    write_ledger(reports)
    text = (reports / "ledger.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "[Depthwise] > [Inception]" in line)
    assert re.match(
        r"  - \[Depthwise\] > \[Inception\]: \+\d\d\.\d \[\+\d\d\.\d, \+\d\d\.\d\] supported \(D 1.0; 4 seeds", line
    )
    assert re.search(r"plaza R1 \+\d\d\.\d, plaza mAP \+\d\d\.\d; printed \+", line)
    assert "– **supported (at 4 seeds)** (in the paper: supported)" in text
    chapter = next(line for line in text.splitlines() if line.startswith("| W chapter 3"))
    assert "1 of 2" in chapter and "- *undecided*: more seeds or people are needed" in text


# what cannot be used

DAMAGES = {
    "cut off": (lambda text: text[: len(text) // 2], "studies.jsonl is damaged in line "),
    "a list": (lambda text: "[1, 2]\n" + text, "studies.jsonl is damaged in line 1"),
    "no text": (lambda text: text + "\udcff", "studies.jsonl is damaged in line "),
    "another table": (
        lambda text: text.replace(f'"study": "{TABLE}"', '"study": "wei_li_thesis_t3_77"', 1),
        "studies.jsonl, line 1, is about no cell or claim of a printed table",
    ),
    "no line about it": (lambda text: text.partition("\n")[2], f"studies.jsonl does not say what {TABLE} rests on"),
    "no marks": (lambda text: text.replace('"marks"', '"mark"'), "studies.jsonl, line 1: the about lacks marks"),
    "no verdict": (lambda text: text.replace('"stand_in": true, "gap"', '"g"'), ": the cell lacks stand_in"),
    "values that are none": (
        lambda text: text.replace('"ours": {"kind"', '"ours": {"kid"'),
        ": the ours lacks kind",
    ),
    "cells that are none": (
        lambda text: re.sub(r'"cell": {.*}}', '"cell": 3}', text, count=1),
        ": the cell lacks row",
    ),
    "relations that are none": (
        lambda text: text.replace('"relation":', '"relatio":'),
        ": the relation lacks relation",
    ),
    "data that are none": (lambda text: text.replace('"used": "plaza"', '"use": "plaza"'), "studies that are damaged"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_record_is_named_and_the_rest_written(reports, capsys, kind):
    damage, sentence = DAMAGES[kind]
    run("quick")
    run("desk")
    path = reports / "ch0_toy" / "studies.jsonl"
    text = path.read_text(encoding="utf-8")
    assert damage(text) != text
    path.write_bytes(damage(text).encode(errors="surrogateescape"))
    assert main(["ledger", "--reports", str(reports)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("scalable-arch: ") and err.count("\n") == 1 and "ch0_toy (ch0_toy" in err and sentence in err
    assert "2 of 83 tables covered" in out and entry_of(ledger(reports))["profile"] == "quick"
    text = (reports / "ledger.md").read_text(encoding="utf-8")
    assert sentence in text and ": what lies in ch0_toy is not counted." in text


def test_a_damaged_trial_is_named_and_its_studies_are_not_counted(reports, capsys):
    run()
    (reports / "ch0_toy" / "trials.jsonl").write_text('{"trial": "0123456789ab"')
    assert main(["ledger", "--reports", str(reports)]) == 2
    assert "ch0_toy (ch0_toy/trials.jsonl is damaged in line 1)" in capsys.readouterr().err
    assert not entry_of(ledger(reports))["covered"]


def test_other_files_are_passed_over(reports):
    run()
    (reports / "ch0_toy" / "trials.jsonl.damaged-1").write_text('{"trial"')  # the runner sets such files aside
    (reports / "ch0_toy" / "other.json").write_text('{"a": 1}')
    found = ledger(reports)
    assert found["problems"] == {} and found["totals"]["tables_covered"] == 2


def test_folders_that_are_not_there(reports, capsys):
    run()
    for arguments in (["--reports", str(reports / "no")], ["--reports", str(reports), "--out", str(reports / "no")]):
        assert main(["ledger", *arguments]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(reports / "no") in err


def test_command_writes_where_it_is_told(reports, capsys, tmp_path):
    run()
    (tmp_path / "out").mkdir()
    assert main(["ledger", "--reports", str(reports), "--out", str(tmp_path / "out")]) == 0
    assert "2 of 83 tables covered" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ledger.csv", "ledger.md"}
    assert not list(reports.glob("ledger.*"))
    assert main(["ledger"]) == 0 and (reports / "ledger.md").is_file()  # the folder of reports in use


def test_an_interrupted_writing_loses_nothing(reports, monkeypatch):
    write_ledger(reports)
    before = (reports / "ledger.md").read_bytes()
    run()
    monkeypatch.setattr(
        "os.replace",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(OSError):
        write_ledger(reports)
    assert (reports / "ledger.md").read_bytes() == before


def test_same_reports_same_bytes(reports):
    run()
    write_ledger(reports)
    read = lambda: {path.name: path.read_bytes() for path in reports.glob("ledger.*")}
    first = read()
    write_ledger(reports)
    assert read() == first and len(first) == 2


def test_csv_and_markdown_agree_with_the_ledger(reports):
    run()
    found = write_ledger(reports)
    lines = pd.read_csv(io.StringIO((reports / "ledger.csv").read_text(encoding="utf-8")), keep_default_na=False)
    once = lines[lines.same_as == ""]
    assert (
        once[["met", "within", "not_met"]].sum().sum() == sum(found["totals"]["values"].values())
        and once.structural.sum() == found["totals"]["structural"]
        and lines[lines.covered].id.tolist() == [TABLE, "han_ijcv_t12"]
    )
    text = (reports / "ledger.md").read_text(encoding="utf-8")
    assert (
        text.count("\n| W Table") == 26 == sum(item["section"][0] == "W" and item["kind"] == "table" for item in ITEMS)
    )


# what is printed has to be right first


def test_a_printed_table_with_a_wrong_header_stops_the_ledger_in_one_sentence(reports, capsys, monkeypatch):
    run()
    read = printed.read_sheet
    monkeypatch.setattr(
        printed,
        "read_sheet",
        lambda name: read(name).rename(columns={"value": "val"} if name == "cdnet_supp_t1" else {}),
    )
    assert main(["ledger", "--reports", str(reports)]) == 2
    err = capsys.readouterr().err
    assert "cdnet_supp_t1.csv must have the columns" in err and err.count("\n") == 1
    assert not list(reports.glob("ledger.*"))


def test_where_the_journal_prints_another_value_nothing_is_carried_over(reports, monkeypatch):
    run()
    other = lambda name: (
        structural_keys(name)
        if name != "han_ijcv_t12"
        else {key: (own, value + 1) for key, (own, value) in structural_keys(name).items()}
    )
    monkeypatch.setattr(ledger_module, "structural_keys", other)
    assert not value_counts([entry_of(ledger(reports), "han_ijcv_t12")])
