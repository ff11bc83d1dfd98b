"Studies: cells beside printed ones, honest columns, files that are the same for the same cells."

import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt

from scalable_arch.study import printed
from scalable_arch.study.claims import load_claims
from scalable_arch.study.kind import Kind, trained_above
from scalable_arch.study.layout import markdown, number, printed_number, study_title, styled, verdict_parts
from scalable_arch.study.record import read_jsonl
from scalable_arch.study.reports import Report
from scalable_arch.study.tables import (
    Cells,
    Study,
    UsedData,
    claims_note,
    last_place,
    put_lines,
    read_studies,
    same_digits,
    structural_verdict,
)
from scalable_arch.study.tables import tested_again as lines_again  # a name that pytest takes for no test
from scalable_arch.versions import versions_of

BOTH = {"Market-1501": "plaza", "DukeMTMC": "campus"}
PEOPLE = np.arange(60) // 3


@pytest.fixture
def report(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    monkeypatch.setattr("scalable_arch.study.reports.commit", lambda: "abc1234")
    return Report("ch0_toy", "smoke", seed=0)


def fill(study, rows, *, dataset="Market-1501", seeds=3, best=0.8):
    "Rows of falling rates, all on the same queries."
    rng = np.random.default_rng(0)
    skill = rng.normal(0, 0.05, 60)
    for at, row in enumerate(rows):
        for metric in ("R1", "mAP"):
            study.measured(
                [best - 0.1 * at + skill + rng.normal(0, 0.01, 60) for _ in range(seeds)],
                row=row,
                dataset=dataset,
                metric=metric,
                people=PEOPLE,
            )


def filled(report, **options):
    study = Study("wei_li_thesis_t3_04", report, data=BOTH, **options)
    fill(study, ["HAN(All)", "SSA+SCA", "SSA", "No Attention"])
    return study


def record_of(report, name):
    return next(study for study in read_studies(report.folder) if study["study"] == name)


def page_of(report):
    return (report.folder / "tables.md").read_text(encoding="utf-8")


def frame_of(study):
    "The table as it was shown."
    return study.show().tables[0].data


def trial(seed, hits, *, parts=("joint",), people=(7, 7, 8), name=None):
    "A trial that searched the plaza: its hits in each part of the feature."
    found = {part: {"R1": hits if part == "joint" else [0, 0, 0], "mAP": [0.5, 0.5, 0.5]} for part in parts}
    return {
        "trial": name or f"t{seed}",
        "config": {"seed": seed},
        "versions": {"kind.reid": 1},
        "metrics": {"test": {"mIoU": sum(hits) / len(hits)}},
        "queries": {"plaza": found},
        "people": {"plaza": {part: list(people) for part in parts}},
    }


# what is shown


def test_a_study_writes_its_csv_and_into_two_files_of_the_run(report):
    study = filled(report)
    shown = study.show()._repr_html_()
    assert "SSA+SCA" in shown and "each alone" in shown
    names = {"wei_li_thesis_t3_04.csv", "tables.md", "studies.jsonl"}
    assert {path.name for path in report.folder.iterdir()} == names
    kinds = [next(kind for kind in line if kind != "study") for line in read_jsonl(report.folder / "studies.jsonl")]
    assert kinds == ["about"] + ["cell"] * 8 + ["claim"] * len(load_claims(study.name))  # no printed value again


def test_studies_stand_in_the_order_of_what_is_printed_each_once(report):
    later = Study("wei_li_thesis_t3_07", report)
    later.structural(708.6e6, row="Depthwise", metric="FLOPs")
    for study in (later, filled(report), later):
        study.show()
    names = [line["study"] for line in read_jsonl(report.folder / "studies.jsonl") if "about" in line]
    assert names == ["wei_li_thesis_t3_04", "wei_li_thesis_t3_07"] and len(read_studies(report.folder)) == 2


def test_a_stand_in_shares_no_column_with_printed_values(report):
    study = filled(report)
    columns = frame_of(study).columns
    assert ("plaza, stand-in for Market-1501", "R1 ours") in columns and ("Market-1501", "R1 paper") in columns
    assert not [sub for head, sub in columns if head == "Market-1501" and not sub.endswith("paper")]
    cells = {(cell["row"], cell["dataset"], cell["metric"]): cell for cell in record_of(report, study.name)["cells"]}
    ours = cells["SSA", "Market-1501", "R1"]
    assert (
        ours["verdict"] == "needs data"
        and ours["gap"] is None
        and ours["stand_in"]
        and ours["data"] == "plaza"
        and ours["paper"] == 86.3
    )
    assert cells["SSA", "DukeMTMC", "R1"]["verdict"] == "not run" and cells["SSA", "DukeMTMC", "R1"]["ours"] is None
    assert page_of(report).startswith(
        "# Tables of ch0_toy, smoke\n\n## wei_li_thesis_t3_04\n\nW Table 3.4; plaza stands in for Market-1501; campus "
        "stands in for DukeMTMC; seeds: 3 (ch0_toy; profile smoke; seed 0; commit abc1234)"
    )


def test_real_data_has_a_gap_and_a_verdict(report):
    study = Study("wei_li_thesis_t3_11", report, data={"MSMT17": "MSMT17"}, margin=1.0)
    point = lambda percent: [np.full(60, percent / 100)] * 4
    study.measured(point(60.6), row="HAN(Large)", dataset="MSMT17", metric="R1")
    study.measured(point(40.0), row="HAN(Medium)", dataset="MSMT17", metric="R1")
    frame = frame_of(study)
    assert (
        frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 gap")] == "+0.5"
        and frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 verdict")] == "met"
    )
    assert frame.loc[("HAN(Medium)", ""), ("MSMT17", "R1 verdict")] == "not met"
    assert frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 ours")] == "60.6 ± 0.0 (4)"
    study.measured(point(60.6)[:3], row="HAN(Large)", dataset="MSMT17", metric="R1")
    assert frame_of(study).loc[("HAN(Large)", ""), ("MSMT17", "R1 verdict")] == "undecided"  # of three seeds


def test_rows_of_rivals_stay_and_say_that_they_were_not_run(report):
    study = Study("wei_li_thesis_t3_12", report, data={"Market-1501": "plaza"})
    study.measured([[0.5, 0.6]], row="HAN(Large)", dataset="Market-1501 (SQ)", metric="R1")
    remarks = frame_of(study)["", "remark"]
    assert (
        remarks["MobileNet"] == "printed only"
        and remarks["HAN(Small)"] == "not run"
        and remarks["HAN(Large)"] == ""  # its stand-in's run stands beside
    )
    assert ("plaza (SQ), stand-in for Market-1501", "R1 ours") in frame_of(study).columns


MET, NOT_MET = "computed, printed digits met", "computed, not met"


@pytest.mark.parametrize(
    "ours, paper, bound, tolerance, verdict",
    [
        (708.6e6, "7.01e8", "", 0.015, "computed, within 1.5 %"),
        (708.6e6, "7.01e8", "", 0.01, NOT_MET),
        (701.4e6, "7.01e8", "", 0.01, MET),
        (2, "2", "", 0, MET),
        (1, "2", "", 0, NOT_MET),
        (4.1e9, "3.8e9", ">", 0.01, MET),
        (3.7e9, "3.8e9", ">", 0.01, NOT_MET),
        (9e9, "3.8e9", ">>", 0, MET),
        (1e9, "3.8e9", "<", 0, MET),
        (3.84e9, "3.80e9", "~", 0.02, "computed, within 2 %"),
        (3.84e9, "3.8e9", "~", 0.02, MET),
        (0, "0", "", 0.01, MET),
    ],
)
def test_structural_verdicts(ours, paper, bound, tolerance, verdict):
    assert structural_verdict(ours, float(paper), bound, tolerance, place=last_place(paper)) == verdict


def test_structural_cells(report):
    study = Study("wei_li_thesis_t3_07", report, data=BOTH)
    for row, value in {"Depthwise": 708.6e6, "Inception": 1088e6, "Residual": 1.5e9}.items():
        study.structural(value, row=row, metric="FLOPs", tolerance=0.015)
    frame = frame_of(study)
    within = "computed, within 1.5 %"
    assert frame.loc["Depthwise", ("", "FLOPs gap")] == "+1.1 %"
    assert frame["", "FLOPs verdict"].tolist() == [within, MET, NOT_MET]
    claims = {claim["name"]: claim for claim in record_of(report, study.name)["claims"]}
    assert claims["depthwise cheapest"]["said"] == "supported" and claims["depthwise cheapest"]["group"] == "structural"
    other = claims["depthwise most accurate"]
    assert other["group"] == "measured" and other["said"].startswith("not testable here (not run: ")


def test_what_was_typed_in_is_transcribed_whatever_it_is(report):
    study = Study("wei_li_thesis_t3_01", report)
    for row, stride in {"HAN(Small)": 2, "HAN(Medium)": 5}.items():
        study.structural(stride, row=row, metric="stride_s1", tolerance=0, transcribed=True)
    assert frame_of(study)["", "stride_s1 verdict"].tolist()[:2] == ["transcribed", "transcribed"]
    cells = [cell for cell in record_of(report, study.name)["cells"] if cell["ours"]]
    assert [cell["ours"]["transcribed"] for cell in cells] == [True, True]
    again = lines_again(record_of(report, study.name), {})
    assert [line["cell"]["verdict"] for line in again if "cell" in line] == ["transcribed", "transcribed"]


def test_claims_are_recorded_with_intervals_here_and_in_the_paper(report):
    study = filled(report)
    study.show()
    claims = {claim["name"]: claim for claim in record_of(report, study.name)["claims"]}
    assert set(claims) == {claim.name for claim in load_claims(study.name)}
    pair = claims["soft pair"]
    first = next(entry for entry in pair["relations"] if entry["relation"] == "[SSA+SCA] > [SSA]")
    assert [(at["metric"], at["data"]) for at in first["places"]] == [("R1", "plaza"), ("mAP", "plaza")]
    assert pair["said"] == "not testable here (not run: SCA)" and pair["in_paper"] == "supported"


def test_a_claim_is_tested_from_four_seeds_on(report, tmp_path, monkeypatch):
    claims_of(tmp_path, monkeypatch, "[HAN(All)] > [SSA+SCA]")
    for seeds, said in ((3, "undecided (about 1 seed more)"), (4, "supported (at 4 seeds)")):
        study = filled(report)
        fill(study, ["HAN(All)", "SSA+SCA"], seeds=seeds)
        study.show()
        [claim] = record_of(report, study.name)["claims"]
        [entry] = claim["relations"]
        assert claim["said"] == said and entry["seeds"] == seeds and entry["people"] == 20
        assert abs(entry["difference"] - 10) < 1 and ("low" in entry) == (seeds == 4)
    text = page_of(report)
    assert re.search(r"\| \+\d+\.\d \[\+\d\.\d, \+\d\d\.\d\] supported \|", text) and "4 seeds; sd 0." in text
    assert claims_note({}) in text and "plaza R1 +" in text


HEAD = 'written = "now"\nknown = "nothing"\n'


def claims_of(folder, monkeypatch, *relations, more=""):
    "Let W Table 3.4 have these claims, each of one relation."
    entries = [
        f'[[claim]]\nstudy = "wei_li_thesis_t3_04"\nname = "n{at}"\ntext = "t"\nsource = "s"\nrelations = ["{text}"]\n'
        for at, text in enumerate(relations)
    ]
    (folder / "claims").mkdir(exist_ok=True)
    (folder / "claims" / "a.toml").write_text(HEAD + "".join(entries) + more)
    monkeypatch.setattr("scalable_arch.study.claims.claims_dir", lambda: folder / "claims")


@pytest.mark.parametrize("half, found", [(0.6, True), (0.95, False)])
def test_a_positive_control_must_be_found_before_a_study_speaks(report, tmp_path, monkeypatch, half, found):
    claims_of(
        tmp_path, monkeypatch, "[HAN(All)] > [SSA+SCA]", "[HAN(All)] > [half the people]", more="control = true\n"
    )
    study = filled(report)
    fill(study, ["HAN(All)", "SSA+SCA"], seeds=4)
    rng = np.random.default_rng(1)
    trials = [trial(seed, (rng.random(60) < 0.5).astype(int).tolist(), people=PEOPLE.tolist()) for seed in range(4)]
    with pytest.raises(ValueError, match="unknown row of a control of wei_li_thesis_t3_04, 'half the persons'"):
        study.control(trials, row="half the persons", search="plaza", dataset="Market-1501", metrics=("R1",))
    study.control(trials, row="half the people", search="plaza", dataset="Market-1501", metrics=("R1",))
    assert ("half the people", "", "Market-1501", "R1") in study.ours
    for metric in ("R1", "mAP"):
        where = {"row": "half the people", "dataset": "Market-1501", "metric": metric, "printed": False}
        study.measured([np.full(60, half)] * 4, people=PEOPLE, **where)
    study.show()
    control, claim = record_of(report, study.name)["claims"]
    assert (control["group"], claim["group"]) == ("control", "measured")
    assert (control["verdict"] == "supported") == found and (claim["verdict"] == "supported") == found
    lost = "the positive control n1 was not found: contradicted (at 4 seeds)"
    assert (claim["said"] == f"not testable here ({lost})") != found and (lost in study.headline()) != found
    assert "Controls of W Table 3.4" in page_of(report)


def test_networks_that_did_not_train_speak_for_nothing(report, tmp_path, monkeypatch):
    claims_of(tmp_path, monkeypatch, "[SSA] > [No Attention]")
    kinds = {"reid": Kind("reid", None, None, None, None, criterion=trained_above(0.8))}
    rng = np.random.default_rng(2)

    def shown(accuracies):
        study = Study("wei_li_thesis_t3_04", report, data=BOTH, kinds=kinds)
        for row, rate in (("SSA", 0.8), ("No Attention", 0.3)):
            records = []
            for seed, accuracy in enumerate(accuracies[row]):
                hits = (rng.random(60) < rate).astype(int).tolist()
                record = trial(seed, hits, people=PEOPLE.tolist(), name=f"{row} {seed}")
                record["queries"]["plaza"]["joint"]["mAP"] = hits
                record["config"]["kind"] = "reid"
                record |= {"learnt": accuracy} if accuracy else {}
                records.append(record)
            study.searched(records, search="plaza", row=row, dataset="Market-1501")
            trials.update({record["trial"]: record for record in records})
        study.show()
        return record_of(report, study.name)

    trials = {}
    good = shown({"SSA": [0.99] * 4, "No Attention": [0.95] * 4})
    assert good["claims"][0]["verdict"] == "supported" and "not noted" not in page_of(report)
    silent = shown({"SSA": [0.99] * 4, "No Attention": [None] * 4})
    assert silent["claims"][0]["verdict"] == "supported"
    assert "Training accuracy not noted: No Attention." in page_of(report)
    bad = shown({"SSA": [0.99] * 4, "No Attention": [0.95, 0.95, 0.09, 0.95]})
    said = "not testable here (No Attention did not train: training accuracy 9 %, below 80 %)"
    assert bad["claims"][0]["said"] == said
    for given in (None, kinds):  # the ledger may not know the kinds: what was said stays
        again = [line["claim"] for line in lines_again(bad, trials, given) if "claim" in line]
        assert again[0]["said"] == said
    assert (
        lines_again(bad, trials, {"reid": Kind("reid", None, None, None, None)})[-1]["claim"]["verdict"] == "supported"
    )


def test_cells_of_eight_seeds_have_a_null_control(report):
    study = filled(report)
    study.show()
    assert "Null controls" not in page_of(report)
    fill(study, ["HAN(All)"], seeds=8)
    study.show()
    cells = [cell for cell in record_of(report, study.name)["cells"] if cell["ours"]]
    assert {cell["row"] for cell in cells if "null" in cell["ours"]} == {"HAN(All)"}
    assert page_of(report).count("Null controls") == 1 and len(report.nulls[study.name]) == 2


@pytest.mark.parametrize(
    "value, printed, same",
    [
        (0.005687, "0.01", True),
        (0.0263, "0.03", True),
        (0.17, "0.15", False),
        (11.174, "11.17", True),
        (11.176, "11.17", False),
        (555422720.0, "555420000", False),
        (555422720.0, "5.5542e8", True),
        (3.84e9, "3.80e9", False),
    ],
)
def test_digits_are_those_that_are_printed(value, printed, same):
    assert same_digits(value, float(printed), last_place(printed)) == same


def test_one_score_of_one_seed_decides_nothing(report):
    study = Study("wei_li_thesis_f6_06", report, data={"CIFAR-10": "digits"})
    for row, value in (("vanilla", 0.5), ("distillation only", 0.4)):
        study.measured([[value]], row=row, dataset="CIFAR-10", metric="valid")
    study.figure(plt.subplots()[0], "")
    found = {claim["name"]: claim for claim in record_of(report, study.name)["claims"]}["distillation helps"]
    [entry] = found["relations"]
    assert found["said"] == "undecided (at least 3 seeds more)"
    assert abs(entry["difference"] + 10) < 1e-9 and "low" not in entry
    assert "| -10.0 |" in page_of(report)


def test_figures_have_cells_claims_and_pictures(report):
    study = Study("wei_li_thesis_f3_07", report, data={"Market-1501": "plaza"})
    for level, value in ((1, 0.3), (3, 0.2)):
        study.measured([np.full(10, value)] * 2, row=f"soft level {level}", dataset="Market-1501", metric="spread")
    picture, _ = plt.subplots()
    study.figure(picture, "attention of two persons")
    caption = page_of(report).split("\n\n")[2]
    assert caption.startswith("W Fig. 3.7; plaza stands in for Market-1501; seeds: 2 (ch0_toy; profile smoke")
    found = record_of(report, study.name)
    verdicts = {claim["name"]: claim["verdict"] for claim in found["claims"]}
    assert verdicts["soft maps narrow"] == "undecided" and set(verdicts.values()) <= {"undecided", "not testable here"}
    assert found["figure"] == "figures/wei_li_thesis_f3_07.svg"
    assert "seeds: 2; attention of two persons (ch0_toy" in (report.folder / found["figure"]).read_text()
    assert {path.name for path in report.folder.iterdir()} == {
        "wei_li_thesis_f3_07.csv",
        "tables.md",
        "studies.jsonl",
        "figures",
    }


def test_a_figure_of_photographs_is_a_jpeg(report):
    picture, axis = plt.subplots()
    axis.imshow(np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8))
    study = Study("wei_li_thesis_f3_07", report)
    study.figure(picture)
    found = record_of(report, study.name)
    assert found["cells"] == [] and found["figure"] == "figures/wei_li_thesis_f3_07.jpg"
    assert [path.name for path in (report.folder / "figures").iterdir()] == ["wei_li_thesis_f3_07.jpg"]
    assert not list(report.folder.glob("*.csv"))


def test_cells_that_the_paper_does_not_have(report):
    study = Study("wei_li_thesis_t3_12", report)
    study.structural(117e6, row="MobileNet at 160x64", metric="FLOPs", printed=False)
    frame = frame_of(study)
    assert (
        frame.loc["MobileNet at 160x64", ("", "FLOPs ours")] == "1.17e8"
        and frame.loc["MobileNet at 160x64", ("", "FLOPs paper")] == "–"
    )
    assert frame.loc["MobileNet at 160x64", ("", "remark")] == "not printed"


# what it rests on


def test_same_cells_same_bytes(report):
    first_shown = filled(report).show()._repr_html_()
    read = lambda: {path.name: path.read_bytes() for path in report.folder.iterdir()}
    first = read()
    again = filled(report)
    fill(again, ["HAN(All)", "SSA+SCA", "SSA", "No Attention"])  # a cell run twice in a notebook
    assert again.show()._repr_html_() == first_shown and read() == first


def test_trials_versions_and_marks_are_recorded(report):
    study = filled(report, versions=["model.han"], trials=[trial(0, [1, 0, 0], name="aa")])
    study.scored([trial(1, [1, 0, 0], name="bb")], "queries/plaza/joint/R1", row="HRA", dataset="DukeMTMC", metric="R1")
    study.show()
    found = record_of(report, study.name)
    assert found["trials"] == ["aa", "bb"] and found["versions"] == versions_of(["model.han", "claims.rule"])
    assert found["marks"].keys() == {"printed values", "claims"}
    assert found["profile"] == "smoke" and found["facts"]["commit"] == "abc1234"
    assert found["data"]["DukeMTMC"] == {"used": "campus", "stand_in": True}
    with pytest.raises(ValueError, match=r"unknown version 'model.hann' \(did you mean 'model.han'\?\)"):
        Study("wei_li_thesis_t3_04", report, versions=["model.hann"])


# cells from trials


def ours(study):
    return {(cell["row"], cell["metric"]): cell["ours"]["mean"] for cell in study.all() if cell["ours"]}


def test_a_row_takes_the_part_of_the_feature_that_it_is_asked_for(report):
    records = [trial(seed, [1, 1, 0], parts=("joint", "global", "local")) for seed in (3, 5)]
    study = Study("wei_li_thesis_t3_03", report, data=BOTH)
    for row, part in {"Global+Local": "joint", "Global": "global", "Local": "local"}.items():
        study.searched(records, search="plaza", part=part, row=row, dataset="Market-1501")
    found = ours(study)
    assert found["Global+Local", "R1"] == pytest.approx(200 / 3) and found["Global", "R1"] == found["Local", "R1"] == 0
    study.show()
    cells = [cell for cell in record_of(report, study.name)["cells"] if cell["ours"]]
    assert {cell["row"]: cell["from"]["path"].split("/")[2] for cell in cells} == {
        "Global+Local": "joint",
        "Global": "global",
        "Local": "local",
    }
    assert cells[0]["ours"]["seeds"] == [3, 5] and cells[0]["ours"]["people"] == 2
    assert record_of(report, study.name)["trials"] == ["t3", "t5"]


def test_trials_that_searched_for_different_people_are_refused(report):
    study = Study("wei_li_thesis_t3_04", report, data=BOTH)
    records = [trial(3, [1, 1, 0]), trial(5, [1, 0, 0], people=(7, 8, 8))]
    said = "wei_li_thesis_t3_04, SSA: the trials t3, t5 searched for different people"
    with pytest.raises(ValueError, match=said):
        study.searched(records, search="plaza", row="SSA", dataset="Market-1501")
    where = {"row": "SSA", "dataset": "Market-1501", "metric": "R1"}
    with pytest.raises(ValueError, match=said):
        study.scored(records[:1], "queries/plaza/joint/R1", minus=records[1:], **where)
    with pytest.raises(ValueError, match=r"SSA: what is taken off is of other seeds than \[3\]"):
        study.scored(records[:1], "queries/plaza/joint/R1", minus=[trial(4, [1, 0, 0])], **where)
    with pytest.raises(ValueError, match="the trial t3 has no score under queries/plaza/global/R1"):
        study.searched(records[:1], search="plaza", part="global", row="SSA", dataset="Market-1501")
    study.searched([], search="plaza", row="SSA", dataset="Market-1501")
    assert not ours(study)


def test_scores_less_those_of_other_trials(report):
    study = Study("wei_li_thesis_t3_04", report, data=BOTH)
    records = [trial(seed, [1, 1, 0]) for seed in (0, 1)]
    others = [trial(seed, [1, 0, 0], name=f"u{seed}") for seed in (0, 1)]
    where = {"row": "SSA", "dataset": "Market-1501"}
    study.scored(records, "queries/plaza/joint/R1", minus=others, metric="R1", **where)
    study.scored(records, "metrics/test/mIoU", metric="mAP", **where)
    assert list(ours(study).values()) == [pytest.approx(100 / 3), pytest.approx(200 / 3)]
    study.show()
    found = record_of(report, study.name)
    assert found["trials"] == ["t0", "t1", "u0", "u1"]
    cells = {cell["metric"]: cell for cell in found["cells"] if cell["ours"]}
    assert cells["R1"]["from"] == {
        "trials": ["t0", "t1"],
        "path": "queries/plaza/joint/R1",
        "minus": ["u0", "u1"],
    }
    assert cells["R1"]["ours"]["queries"] == 3 and cells["mAP"]["ours"]["queries"] == 1


def test_a_study_tested_again_is_what_was_shown(report):
    trials = {record["trial"]: record for record in (trial(seed, [1, seed % 2, 0]) for seed in range(4))}
    study = Study("wei_li_thesis_t3_04", report, data=BOTH, versions=["model.han"], trials=[trial(9, [0, 0, 0])])
    for row, seeds in {"SSA": (0, 1), "SSA+SCA": (1, 3), "No Attention": (1, 0)}.items():
        study.searched([trials[f"t{seed}"] for seed in seeds], search="plaza", row=row, dataset="Market-1501")
    trials |= {record["trial"]: record for record in (trial(seed, [1, 0, 0], name=f"u{seed}") for seed in (1, 3))}
    records, others = ([trials[name] for name in pair] for pair in (("t1", "t3"), ("u1", "u3")))
    path, where = "queries/plaza/joint/R1", {"row": "HRA", "dataset": "Market-1501", "metric": "R1"}
    study.scored(records, path, minus=others, **where)
    study.structural(12.5, row="ours alone", metric="FLOPs", unit="FLOPs", tolerance=0.2, printed=False)
    study.show()
    path = report.folder / "studies.jsonl"
    before = path.read_bytes()
    put_lines(report.folder, lines_again(record_of(report, study.name), trials))
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="wei_li_thesis_t3_04, .*, cannot be tested again: run its chapter"):
        lines_again(record_of(report, study.name), {name: trials[name] for name in ("t1", "t3", "u1", "u3")})
    filled(report).show()  # of scores that no trial has
    with pytest.raises(ValueError, match="cannot be tested again: run its chapter"):
        lines_again(record_of(report, study.name), trials)


def test_nothing_is_lost_when_the_disk_is_full(report, monkeypatch):
    filled(report).show()
    before = (report.folder / "studies.jsonl").read_bytes()
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(full))
    other = filled(report)
    fill(other, ["SSA"], best=0.2)
    with pytest.raises(OSError, match="No space left"):
        other.show()
    assert (report.folder / "studies.jsonl").read_bytes() == before


def test_the_csv_has_every_value(report):
    study = filled(report)
    study.show()
    frame = pd.read_csv(report.folder / f"{study.name}.csv")
    table = printed.printed_table(study.name)
    assert frame.paper.tolist() == table.value.tolist() and frame.row.tolist() == table.row.tolist()
    ours = frame[frame.ours.notna()]
    assert (
        len(ours) == 8
        and (ours.n == 3).all()
        and (ours.queries == 60).all()
        and (ours.verdict == "needs data").all()
        and ours.gap.isna().all()
    )


# mistakes


@pytest.mark.parametrize(
    "where, sentence",
    [
        ({"row": "SSB"}, r"unknown row of wei_li_thesis_t3_04, 'SSB' \(did you mean 'SSA'\?\)"),
        ({"metric": "map"}, "unknown metric of wei_li_thesis_t3_04, 'map'"),
        ({"dataset": "MSMT17"}, "unknown data set of wei_li_thesis_t3_04, 'MSMT17'"),
        ({"group": "RR"}, "unknown group of wei_li_thesis_t3_04, 'RR'"),
    ],
)
def test_cells_that_are_not_printed(report, where, sentence):
    study = Study("wei_li_thesis_t3_04", report, data=BOTH)
    with pytest.raises(ValueError, match=sentence):
        study.measured([[1, 0]], **{"row": "SSA", "dataset": "Market-1501", "metric": "R1", **where})
    with pytest.raises(ValueError, match=sentence):
        study.structural(1.0, **{"row": "SSA", "dataset": "Market-1501", "metric": "R1", **where})


def test_studies_that_cannot_be(report):
    with pytest.raises(
        ValueError, match=r"unknown table or figure 'wei_li_thesis_t3_4' \(did you mean 'wei_li_thesis_t3_04'\?\)"
    ):
        Study("wei_li_thesis_t3_4", report)
    with pytest.raises(
        ValueError, match=r"unknown data set of wei_li_thesis_t3_04, 'Market1501' \(did you mean 'Market-1501'\?\)"
    ):
        Study("wei_li_thesis_t3_04", report, data={"Market1501": "plaza"})
    with pytest.raises(ValueError, match="say what was used for DukeMTMC with data={'DukeMTMC': its name}"):
        Study("wei_li_thesis_t3_04", report, data={"Market-1501": "plaza"}).measured(
            [[1]], row="SSA", dataset="DukeMTMC", metric="R1"
        )


def test_queries_that_differ_between_cells_are_no_pair(report):
    study = Study("wei_li_thesis_t3_03", report, data=BOTH)
    fill(study, ["Global+Local"])
    study.measured([[1, 0]] * 3, row="Global", dataset="Market-1501", metric="R1")
    with pytest.raises(ValueError, match="measured on different queries"):
        study.show()
    assert not (report.folder / "wei_li_thesis_t3_03.json").exists()


# layout


def test_names_are_escaped_and_repeats_left_blank():
    frame = pd.DataFrame(
        [["a & b", "supported"], ["<c>", "+1.0 [+0.1, +1.9] contradicted"]],
        index=pd.MultiIndex.from_tuples([("x", "1"), ("x", "2")], names=["k", None]),
        columns=pd.MultiIndex.from_tuples([("top", "p"), ("top", "q")]),
    )
    assert markdown(frame).splitlines() == [
        "| k |  | top p | top q |",
        "| --- | --- | --- | --- |",
        "| x | 1 | a & b | supported |",
        "|  | 2 | <c> | +1.0 [+0.1, +1.9] contradicted |",
    ]
    assert "| a \\| b |" in markdown(pd.DataFrame([["a | b"]], columns=["p"]))
    page = styled(frame, "toy", "A caption").to_html()
    assert 'rowspan="2">x' in page and 'colspan="2"' in page and "A caption" in page
    colours = dict(re.findall(r"#T_toy_row(\d)_col1 {\s+color: (#\w+)", page))
    assert len(set(colours.values())) == 2 and page == styled(frame, "toy", "A caption").to_html()


@pytest.mark.parametrize(
    "text, verdict, tone",
    [
        ("supported (at 4 seeds)", "supported (at 4 seeds)", "good"),
        ("+2.1 [+0.4, +3.9] contradicted", "contradicted", "bad"),
        ("no difference of 1.3 points (at 8 seeds)", "no difference of 1.3 points (at 8 seeds)", ""),
        ("undecided (more people)", "undecided (more people)", "open"),
        ("not met", "not met", "bad"),
        ("computed, within 1.5 %", "computed, within 1.5 %", "good"),
        ("the claim is supported by nobody", "", ""),
        ("metres", "", ""),
        ("", "", ""),
    ],
)
def test_verdicts_are_found_at_the_end_of_a_text(text, verdict, tone):
    before, found, colour = verdict_parts(text)
    assert (found, colour) == (verdict, tone) and before + found == text


def test_numbers_and_titles():
    assert [
        number(63.149, "percent"),
        number(7.086e8, "FLOPs"),
        number(2.0, "M"),
        number(0.0447, "M"),
        number(None),
        number(-0.04, "percent", sign=True),
    ] == ["63.1", "7.09e8", "2", "0.0447", "–", "-0.0"]
    assert [printed_number(72.0, "percent"), printed_number(58.47, "percent"), printed_number(3.8e9, "FLOPs", ">")] == [
        "72.0",
        "58.47",
        ">3.80e9",
    ]
    assert [
        study_title(name)
        for name in (
            "wei_li_thesis_t3_04",
            "wei_li_thesis_t3_10",
            "cdnet_supp_t1",
            "han_ijcv_t09",
            "wei_li_thesis_f3_06",
        )
    ] == ["W Table 3.4", "W Table 3.10", "C Table 1", "J Table 9", "W Fig. 3.6"]


def test_data_sets_and_their_protocols():
    used = UsedData({"Market-1501": "plaza", "CUHK03 (Labelled)": "subway", "MSMT17": "MSMT17"})
    assert [used.label(name) for name in ("Market-1501", "Market-1501 (SQ)", "CUHK03 (Labelled)", "MSMT17", "PRW")] == [
        "plaza",
        "plaza (SQ)",
        "subway",
        "MSMT17",
        "",
    ]
    assert used.stand_in("Market-1501 (MQ)") and not used.stand_in("MSMT17") and used.stand_in("")


def test_units_come_from_the_printed_table():
    cells = Cells("wei_li_thesis_t3_12")
    assert cells.unit("FLOPs") == "FLOPs" and cells.unit("R1") == "percent" and cells.unit("spread") == "percent"


# what is committed


def test_committed_cells_take_the_part_of_the_feature_that_their_row_and_column_name():
    folder = Path(__file__).parents[1] / "reports" / "ch3_han"
    if not (folder / "studies.jsonl").is_file():
        pytest.skip("no chapter 3 on record")
    seen = 0
    for study in read_studies(folder):
        for cell in (
            cell for cell in study["cells"] if cell.get("from", {}).get("path", "").startswith("queries/test/")
        ):
            part = cell["from"]["path"].split("/")[2]
            rows = {"Global ": "global", "Local ": "local"} if study["study"].endswith(("t3_03", "t3_05")) else {}
            whole = next((part for start, part in rows.items() if f"{cell['row']} ".startswith(start)), "joint")
            wanted = [whole, *(["RR"] if "RR" in cell["group"] else []), *(["MQ"] if "(MQ)" in cell["dataset"] else [])]
            assert part.split() == wanted, f"{study['study']}, {cell['row']}"
            seen += 1
    assert seen > 100
