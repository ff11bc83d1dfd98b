"Chapter 7: its smoke run, and one on a rendered copy in the layout of Market-1501."

from chapters import ChapterTests, run_chapter

from scalable_arch.data import render_dataset

CHAPTER = "ch7_cdnet"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "market1501", 20
    waiting = {"quick": 1, "desk": 24}  # searches, which come first; the record is one small training so far
    studies = [f"cdnet_supp_t{n}" for n in range(1, 6)] + ["cdnet_supp_f1", "cdnet_supp_f2"]


def test_on_a_copy_in_the_layout_of_market1501(worlds, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=4, num_test_ids=3)
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="market1501", data_root="market")
    cell = run.cell("cdnet_supp_t5", "CDNet", "R1", dataset="Market-1501")
    assert cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"
