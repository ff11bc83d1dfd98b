"Chapter 13: its smoke run, and one on small copies in the layout of CIFAR-10."

from chapters import ChapterTests, run_chapter, write_cifar

CHAPTER = "ch13_caie"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "cifar10", 10
    studies = ["liu_thesis_t6_01", "liu_thesis_t6_02"]
    waiting = {"desk": 22}  # one seed of VGG-16 is there


def test_on_copies_in_the_layout_of_cifar(worlds, tmp_path):
    write_cifar(tmp_path / "cifar")
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="cifar10", data_root="cifar")
    cells = run.studies()["liu_thesis_t6_01"]["cells"]
    found = [cell for cell in cells if cell["row"] == "VGG16-BN" and cell["metric"] == "Top1" and cell["ours"]]
    assert len(found) == 5 and {cell["dataset"] for cell in found} == {"CIFAR-10"}
    assert all(cell["ours"]["n"] == 1 and not cell["stand_in"] for cell in found)
