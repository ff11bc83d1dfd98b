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
from scalable_arch.study.layout import markdown, number, printed_number, same_digits, study_title, styled
from scalable_arch.study.record import read_jsonl
from scalable_arch.study.reports import Report
from scalable_arch.study.tables import (
    Cells,
    Study,
    UsedData,
    claims_note,
    put_lines,
    read_studies,
    structural_verdict,
)
from scalable_arch.study.tables import tested_again as lines_again  # a name that pytest takes for no test

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
    point = lambda percent: [np.full(60, percent / 100)] * 2
    study.measured(point(60.6), row="HAN(Large)", dataset="MSMT17", metric="R1")
    study.measured(point(40.0), row="HAN(Medium)", dataset="MSMT17", metric="R1")
    frame = frame_of(study)
    assert (
        frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 gap")] == "+0.5"
        and frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 verdict")] == "holds"
    )
    assert frame.loc[("HAN(Medium)", ""), ("MSMT17", "R1 verdict")] == "fails"
    assert frame.loc[("HAN(Large)", ""), ("MSMT17", "R1 ours")] == "60.6 ± 0.0 (2)"


def test_rows_of_rivals_stay_and_say_that_they_were_not_run(report):
    study = Study("wei_li_thesis_t3_12", report, data={"Market-1501": "plaza"})
    study.measured([[0.5, 0.6]], row="HAN(Large)", dataset="Market-1501 (SQ)", metric="R1")
    remarks = frame_of(study)["", "remark"]
    assert (
        remarks["MobileNet"] == "printed only"
        and remarks["HAN(Small)"] == "not run"
        and remarks["HAN(Large)"] == "needs data"
    )
    assert ("plaza (SQ), stand-in for Market-1501", "R1 ours") in frame_of(study).columns


@pytest.mark.parametrize(
    "ours, paper, bound, tolerance, verdict",
    [
        (708.6e6, 7.01e8, "", 0.015, "exact"),
        (708.6e6, 7.01e8, "", 0.01, "fails"),
        (2, 2, "", 0, "exact"),
        (1, 2, "", 0, "fails"),
        (4.1e9, 3.8e9, ">", 0.01, "exact"),
        (3.7e9, 3.8e9, ">", 0.01, "fails"),
        (9e9, 3.8e9, ">>", 0, "exact"),
        (1e9, 3.8e9, "<", 0, "exact"),
        (3.85e9, 3.8e9, "~", 0.02, "exact"),
        (0, 0, "", 0.01, "exact"),
    ],
)
def test_structural_verdicts(ours, paper, bound, tolerance, verdict):
    assert structural_verdict(ours, paper, bound, tolerance) == verdict


def test_structural_cells(report):
    study = Study("wei_li_thesis_t3_07", report, data=BOTH)
    for row, value in {"Depthwise": 708.6e6, "Inception": 1088e6, "Residual": 1.5e9}.items():
        study.structural(value, row=row, metric="FLOPs", tolerance=0.015)
    frame = frame_of(study)
    assert frame.loc["Depthwise", ("", "FLOPs gap")] == "+1.1 %" and frame["", "FLOPs verdict"].tolist() == [
        "exact",
        "exact",
        "fails",
    ]
    claims = {claim["name"]: claim for claim in record_of(report, study.name)["claims"]}
    assert (
        claims["depthwise cheapest"]["verdict"] == "holds" and claims["depthwise most accurate"]["verdict"] == "not run"
    )


def test_claims_are_recorded_with_intervals_here_and_in_the_paper(report):
    study = filled(report)
    study.show()
    claims = {claim["name"]: claim for claim in record_of(report, study.name)["claims"]}
    assert set(claims) == {claim.name for claim in load_claims(study.name)}
    pair = claims["soft pair"]
    tested = [entry for entry in pair["relations"] if entry["relation"] == "[SSA+SCA] > [SSA]"]
    assert [(entry["metric"], entry["data"], entry["verdict"]) for entry in tested] == [
        ("R1", "plaza", "holds"),
        ("mAP", "plaza", "holds"),
    ]
    assert all(entry["low"] < 10 < entry["high"] and entry["seeds"] == 3 and entry["people"] == 20 for entry in tested)
    assert pair["verdict"] == "not run" and pair["in_paper"] == "holds"  # SCA was not run
    assert {entry["dataset"] for entry in pair["printed"]} == {"Market-1501", "DukeMTMC"}


def test_one_seed_says_that_only_persons_vary(report):
    study = Study("wei_li_thesis_t3_03", report, data=BOTH)
    fill(study, ["Global+Local", "Global", "Local"], seeds=1)
    study.show()
    text = page_of(report)
    assert (
        "bootstrap over persons only, since there is one seed" in text
        and re.search(r"\| \d\d\.\d \(1\) \|", text)
        and "±" not in text
    )


@pytest.mark.parametrize(
    "queries, people, seeds, said",
    [
        (6, 2, 1, "over persons only, since there is one seed"),
        (6, 2, 3, "over persons and seeds"),
        (6, 6, 3, "over images and seeds"),
        (6, 6, 1, "over images only"),
        (1, 1, 3, "over seeds]"),
        (1, 1, 1, "[no interval, since there is one score of one seed]"),
    ],
)
def test_what_intervals_rest_on_is_said(queries, people, seeds, said):
    assert said in claims_note([{"n": seeds, "people": people, "queries": queries}, {"n": None}])
    assert "over persons and seeds]" in claims_note([{"n": None}])


@pytest.mark.parametrize(
    "value, printed, same",
    [
        (0.005687, 0.01, True),
        (0.0263, 0.03, True),
        (0.17, 0.15, False),
        (11.174, 11.17, True),
        (11.176, 11.17, False),
        (555422720.0, 555420000.0, False),
    ],
)
def test_a_gap_of_rounding_is_none(value, printed, same):
    assert same_digits(value, printed) == same


def test_one_score_of_one_seed_decides_nothing(report):
    study = Study("wei_li_thesis_f6_06", report, data={"CIFAR-10": "digits"})
    for row, value in (("vanilla", 0.5), ("distillation only", 0.4)):
        study.measured([[value]], row=row, dataset="CIFAR-10", metric="valid")
    study.figure(plt.subplots()[0], "")
    [entry] = next(claim for claim in record_of(report, study.name)["claims"] if claim["name"] == "distillation helps")[
        "relations"
    ]
    assert entry["verdict"] == "undecided" and abs(entry["difference"] + 10) < 1e-9 and "low" not in entry
    assert "-10.0 undecided" in page_of(report)


def test_figures_have_cells_claims_and_pictures(report):
    study = Study("wei_li_thesis_f3_07", report, data={"Market-1501": "plaza"})
    for level, value in ((1, 0.3), (3, 0.2)):
        study.measured([np.full(10, value)] * 2, row=f"soft level {level}", dataset="Market-1501", metric="spread")
    picture, _ = plt.subplots()
    study.figure(picture, "attention of two persons")
    caption = page_of(report).split("\n\n")[2]
    assert caption.startswith("W Fig. 3.7; plaza stands in for Market-1501; seeds: 2 (ch0_toy; profile smoke")
    found = record_of(report, study.name)
    assert {claim["name"]: claim["verdict"] for claim in found["claims"]} == {
        "soft maps narrow": "holds",
        "regions in order": "not run",
    }
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
    assert found["trials"] == ["aa", "bb"] and found["versions"] == {"model.han": 1, "claims.bootstrap": 1}
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
        [["a & b", "holds"], ["<c>", "+1.0 fails"]],
        index=pd.MultiIndex.from_tuples([("x", "1"), ("x", "2")], names=["k", None]),
        columns=pd.MultiIndex.from_tuples([("top", "p"), ("top", "q")]),
    )
    assert markdown(frame).splitlines() == [
        "| k |  | top p | top q |",
        "| --- | --- | --- | --- |",
        "| x | 1 | a & b | holds |",
        "|  | 2 | <c> | +1.0 fails |",
    ]
    assert "| a \\| b |" in markdown(pd.DataFrame([["a | b"]], columns=["p"]))
    page = styled(frame, "toy", "A caption").to_html()
    assert 'rowspan="2">x' in page and 'colspan="2"' in page and "A caption" in page
    colours = dict(re.findall(r"#T_toy_row(\d)_col1 {\s+color: (#\w+)", page))
    assert len(set(colours.values())) == 2 and page == styled(frame, "toy", "A caption").to_html()


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
