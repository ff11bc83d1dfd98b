"Chapter 10: its smoke run."

from chapters import ChapterTests

CHAPTER = "ch10_sgc"
WAITING = {"quick": 4, "desk": 72}  # draws: trainings come after them


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "market1501", 25
    waiting = WAITING
    studies = [f"liu_thesis_t3_{n:02d}" for n in range(1, 7)] + [f"liu_thesis_f3_{n:02d}" for n in range(3, 7)]
