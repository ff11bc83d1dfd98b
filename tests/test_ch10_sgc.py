"Chapter 10: its smoke run."

from chapters import ChapterTests

CHAPTER = "ch10_sgc"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "market1501", 25
    studies = [f"liu_thesis_t3_{n:02d}" for n in range(1, 7)] + [f"liu_thesis_f3_{n:02d}" for n in range(3, 7)]
