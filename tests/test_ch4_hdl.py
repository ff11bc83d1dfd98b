"Chapter 4: its smoke run, and one on a small copy in the layout of PRW."

from chapters import ChapterTests, run_chapter

from scalable_arch.data import render_person_search

CHAPTER = "ch4_hdl"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "prw", 20
    waiting = {"quick": 1, "desk": 8}  # of its teachers alone, since warm-up is in epochs and a control is new
    studies = [f"wei_li_thesis_t4_{n:02d}" for n in range(1, 7)] + [f"wei_li_thesis_f4_{n:02d}" for n in (4, 5)]


def test_on_a_copy_in_the_layout_of_prw(worlds, tmp_path):
    render_person_search("prw", tmp_path / "prw", people=(5, 4), scenes=(6, 8), cameras=(2, 3), size=(96, 128))
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="prw", data_root="prw")
    cell = run.cell("wei_li_thesis_t4_05", "HDL(T)", "mAP")
    assert cell["paper"] == 33.6 and cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"
    costs = {
        (row, metric): run.cell("wei_li_thesis_t4_05", row, metric)["verdict"]
        for row in ("HDL(S)", "HDL(T)")
        for metric in ("FLOPs_scene", "FLOPs_person")
    }
    assert costs == {
        ("HDL(S)", "FLOPs_scene"): "computed, within 0.5 %",
        ("HDL(S)", "FLOPs_person"): "computed, printed digits met",
        ("HDL(T)", "FLOPs_scene"): "computed, not met",
        ("HDL(T)", "FLOPs_person"): "computed, not met",
    }
