"Chapter 5: its smoke run, and one on small copies in the layout of CIFAR-10 and CIFAR-100."

from chapters import ChapterTests, run_chapter, write_cifar

CHAPTER = "ch5_nge"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "cifar10", 35
    waiting = {"quick": 1, "desk": 19}  # its new recipe has no trials yet
    studies = [f"wei_li_thesis_t5_{n:02d}" for n in range(1, 5)] + ["wei_li_thesis_f5_03"]


def test_on_copies_in_the_layout_of_cifar(worlds, tmp_path):
    write_cifar(tmp_path / "cifar")
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="cifar10", data_root="cifar")
    found = [cell for cell in run.studies()["wei_li_thesis_t5_03"]["cells"] if cell["row"] == "NGE" and cell["ours"]]
    assert {cell["dataset"] for cell in found} == {"CIFAR-10", "CIFAR-100"}
    assert all(cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data" for cell in found)
