"Reports: tables and figures that say what they rest on, in few files."

import math
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from scalable_arch.study.printed import list_printed, printed_table, printed_value
from scalable_arch.study.reports import Report, markdown_table, processor, report_dir, run_place


def test_report_says_what_it_rests_on(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    report = Report("ch0", "smoke", data="toy", seeds=[1, 2])
    frame = pd.DataFrame({"mAP": [12.345]}, index=pd.Index(["a"], name="method"))
    report.table("scores", frame, "Scores", digits=2)
    figure, _ = plt.subplots()
    caption = report.figure("empty", figure, "Nothing")
    folder = tmp_path / "ch0" / "smoke"
    assert {path.name for path in folder.iterdir()} == {"scores.csv", "tables.md", "figures"}
    assert {path.name for path in (folder / "figures").iterdir()} == {"empty.svg"}
    other = report.resting_on(data="another toy", queries=5)
    assert (
        other.folder == report.folder
        and "data another toy; queries 5; commit" in other.caption("Scores")
        and "data toy; seeds [1, 2]; commit" in report.caption("Scores")
    )
    assert report.facts["profile"] == "smoke" and report.facts["seeds"] == [1, 2]
    assert {"commit", "torch", "date", "machine", "processor"} <= set(report.facts)
    text = (folder / "tables.md").read_text()
    assert text.startswith(
        "# Tables of ch0, smoke\n\n## scores\n\nScores (ch0; profile smoke; data toy; seeds [1, 2]; commit "
    )
    assert "| a | 12.35 |" in text
    assert pd.read_csv(folder / "scores.csv").mAP.tolist() == [12.345]
    assert (
        caption in (folder / "figures" / "empty.svg").read_text() and caption.path == folder / "figures" / "empty.svg"
    )
    assert figure.number not in plt.get_fignums()  # or a notebook would show it twice


def test_photographs_are_kept_as_jpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    figure, axis = plt.subplots()
    axis.imshow(np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8))
    folder = tmp_path / "ch0" / "smoke" / "figures"
    folder.mkdir(parents=True)
    (folder / "noise.svg").write_text("of an earlier run")
    picture = Report("ch0", "smoke").figure("noise", figure, "Noise")
    assert [path.name for path in folder.iterdir()] == ["noise.jpg"]
    with Image.open(picture.path) as image:
        assert image.info["comment"].decode() == picture


def test_a_picture_shows_itself_with_its_caption(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    picture = Report("ch0", "smoke").figure("empty", plt.figure(), "Nothing")
    picture._ipython_display_()
    assert "<svg" in shown[0]["image/svg+xml"] and capsys.readouterr().out.startswith("Nothing (ch0; profile smoke")


def test_the_same_figure_is_the_same_file(tmp_path):
    content = []
    for _ in range(2):
        figure, axis = plt.subplots()
        axis.plot([1, 2], [3, 4])
        content.append(Report("ch0", "smoke", root=tmp_path).figure("line", figure, "Line").path.read_bytes())
    assert content[0] == content[1]


def test_tables_stand_in_the_order_in_which_they_were_shown_first(tmp_path):
    report = Report("ch0", "smoke", root=tmp_path)
    for name, text in (("b", "one"), ("a", "two"), ("b", "three")):  # a cell run twice in a notebook
        report.section(name, text)
    text = (report.folder / "tables.md").read_text()
    assert re.findall("^## (.)$", text, re.M) == ["b", "a"] and "three" in text and "one" not in text


def test_the_desk_makes_the_record_and_other_profiles_lie_below_it():
    assert run_place("ch3_han", "desk") == ("ch3_han",)
    for profile in ("smoke", "quick", "gpu", "paper"):
        assert run_place("ch3_han", profile) == ("ch3_han", profile)


def test_the_processor_is_named_with_its_instruction_set(monkeypatch):
    assert re.fullmatch(".+, [A-Z0-9]+.*", processor())
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_: "processor : 0\nmodel name\t: Toy 9000\nflags : x")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert processor() == "Toy 9000, AVX2"


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
