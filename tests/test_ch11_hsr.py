"Chapter 11: its smoke run."

from chapters import ChapterTests

CHAPTER = "ch11_hsr"
WAITING = {"quick": 4, "desk": 48}  # trainings; all draws are on record


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "market1501", 25
    waiting = WAITING
    studies = ["liu_thesis_t4_01", "liu_thesis_t4_02", "liu_thesis_f4_04", "liu_thesis_f4_05"]
