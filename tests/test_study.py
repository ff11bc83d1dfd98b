"Chapters' parameters, reports with their provenance, and printed values."

import json
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from scalable_arch.study.printed import list_printed, printed_table, printed_value
from scalable_arch.study.reports import Report, check_parameters, markdown_table, replace, report_dir


def test_parameters_that_are_right_pass():
    names = {"profile": "quick", "seed": 3, "_i1": "profile = 1", "In": [], "Out": {}, "json": json, "check": len}
    check_parameters(names, profile=["smoke", "quick"], seed=int)


@pytest.mark.parametrize(
    "names, sentence",
    [
        ({"profile": "quick", "profil": "x"}, r"unknown parameter 'profil' \(did you mean 'profile'\?\)"),
        (
            {"profile": "quik"},
            r"unknown value of profile, 'quik' \(did you mean 'quick'\?\); choose one of: smoke, quick",
        ),
    ],
)
def test_parameters_that_are_wrong_stop(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_parameters(names, profile=["smoke", "quick"])


def test_a_type_is_checked_exactly():
    with pytest.raises(ValueError, match="parameter seed must be of type int, not True"):
        check_parameters({"seed": True}, seed=int)


def test_names_of_later_cells_are_no_parameters_in_a_second_run():
    names = {"profile": "quick"}
    check_parameters(names, profile=["smoke", "quick"])
    names |= {"BOTH": [1, 2], "profile": "quik"}
    with pytest.raises(ValueError, match="unknown value of profile, 'quik'"):
        check_parameters(names, profile=["smoke", "quick"])
    names["profile"] = "smoke"
    check_parameters(names, profile=["smoke", "quick"])
    with pytest.raises(ValueError, match="unknown parameter 'BOTH'"):
        check_parameters({"profile": "quick", "BOTH": [1, 2]}, profile=["smoke", "quick"])


def test_a_single_seed_from_the_command_line_becomes_a_text():
    names = {"seeds": 0}
    check_parameters(names, seeds=str)
    assert names["seeds"] == "0"
    with pytest.raises(ValueError, match="parameter seeds must be of type str, not True"):
        check_parameters({"seeds": True}, seeds=str)


def test_report_says_what_it_rests_on(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    report = Report("ch0", "smoke", data="toy", seeds=[1, 2])
    frame = pd.DataFrame({"mAP": [12.345]}, index=pd.Index(["a"], name="method"))
    report.table("scores", frame, "Scores", digits=2)
    figure, _ = plt.subplots()
    caption = report.figure("empty", figure, "Nothing")
    folder = tmp_path / "ch0" / "smoke"
    assert {path.name for path in folder.iterdir()} == {
        "provenance.json",
        "scores.csv",
        "scores.md",
        "empty.png",
        "empty.svg",
    }
    other = report.resting_on(data="another toy", queries=5)
    assert (
        other.folder == report.folder
        and "data another toy; queries 5; commit" in other.caption("Scores")
        and "data toy; seeds [1, 2]; commit" in report.caption("Scores")
    )
    facts = json.loads((folder / "provenance.json").read_text())
    assert (
        facts["profile"] == "smoke"
        and facts["seeds"] == [1, 2]
        and {"commit", "torch", "date", "machine"} <= set(facts)
    )
    text = (folder / "scores.md").read_text()
    assert text.startswith("Scores (ch0; profile smoke; data toy; seeds [1, 2]; commit ") and "| a | 12.35 |" in text
    assert pd.read_csv(folder / "scores.csv").mAP.tolist() == [12.345]
    assert caption in (folder / "empty.svg").read_text() and caption.path == folder / "empty.svg"
    assert figure.number not in plt.get_fignums()  # or a notebook would show it twice


def test_photographs_are_kept_as_jpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    figure, axis = plt.subplots()
    axis.imshow(np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8))
    (tmp_path / "ch0" / "smoke").mkdir(parents=True)
    (tmp_path / "ch0" / "smoke" / "noise.svg").write_text("of an earlier run")
    picture = Report("ch0", "smoke").figure("noise", figure, "Noise")
    assert {path.name for path in (tmp_path / "ch0" / "smoke").iterdir()} == {"provenance.json", "noise.jpg"}
    with Image.open(picture.path) as image:
        assert image.info["comment"].decode() == picture


def test_a_picture_shows_itself_with_its_caption(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    picture = Report("ch0", "smoke").figure("empty", plt.figure(), "Nothing")
    picture._ipython_display_()
    assert "<svg" in shown[0]["image/svg+xml"] and capsys.readouterr().out.startswith("Nothing (ch0; profile smoke")


def test_a_text_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    replace(path, "first")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError):
        replace(path, "second")
    assert path.read_text() == "first"


def test_markdown_table_of_mixed_cells():
    frame = pd.DataFrame({"x": [1.25, math.nan], "n": ["a", "b"]}, index=pd.Index(["r", "s"], name="row"))
    assert markdown_table(frame).splitlines() == [
        "| row | x | n |",
        "| --- | --- | --- |",
        "| r | 1.2 | a |",
        "| s |  | b |",
    ]


def test_report_folder_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.delenv("SCALABLE_ARCH_REPORTS", raising=False)
    monkeypatch.setattr("scalable_arch.study.reports.checkout_root", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert report_dir("ch0") == tmp_path / "reports" / "ch0"


def test_printed_values():
    assert len(list_printed()) >= 12
    for name in list_printed():
        assert set(printed_table(name).columns) >= {"row", "group", "dataset", "metric", "value", "bound", "unit"}
    assert printed_value("wei_li_thesis_t3_07", row="Residual", metric="FLOPs") == 1.34e9
    with pytest.raises(ValueError, match="unknown printed table 'wei_li_thesis_t3_1'"):
        printed_table("wei_li_thesis_t3_1")
    with pytest.raises(ValueError, match="12 values of wei_li_thesis_t3_01 have {}"):
        printed_value("wei_li_thesis_t3_01")
