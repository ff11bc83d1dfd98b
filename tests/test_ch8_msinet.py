"Chapter 8: its smoke run, and one on a small copy in the layout of Market-1501."

from chapters import ChapterTests, run_chapter

from scalable_arch.data import render_dataset
from scalable_arch.msinet import PERSONS, MSIGenotype

CHAPTER = "ch8_msinet"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "veri776", 30
    waiting = {"quick": 1, "desk": 16}
    studies = ["msinet_report_t1", "msinet_report_t2", "msinet_report_f1", "msinet_report_f2"]

    def test_genotypes_that_were_found_are_trained(self, smoke):
        records = smoke.trials().values()
        found = {MSIGenotype.from_json(r["genotype"]) for r in records if r["config"]["kind"] == "msinet_search"}
        trained = {tuple(r["config"]["options"]["genotype"]) for r in records if r["config"]["kind"] == "reid"}
        assert found <= trained and PERSONS in trained

    def test_the_released_network_has_the_costs_of_the_release(self, smoke):
        text = (smoke.shown / "costs.csv").read_text()
        assert "released genotype,2.328" in text.replace(" 256x128, the", "") or "2.328035" in text


def test_on_a_copy_in_the_layout_of_market(worlds, tmp_path):
    render_dataset("market1501", tmp_path / "market", num_train_ids=6, num_test_ids=3, progress=False)
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="market1501", data_root="market")
    cells = run.studies()["msinet_report_f1"]["cells"]
    found = {cell["row"]: cell for cell in cells if cell["ours"]}
    assert {"released", "twins", "shared classifier", "none"} <= set(found)
    assert all(cell["dataset"] == "Market-1501" and not cell["stand_in"] for cell in found.values())
