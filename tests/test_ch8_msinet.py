"Chapter 8: its smoke run, and one on a small copy in the layout of Market-1501."

import pandas as pd
import pytest
from chapters import ChapterTests, run_chapter

from scalable_arch.data import render_dataset
from scalable_arch.data.traffic import render_veri
from scalable_arch.msinet import PERSONS, MSIGenotype

CHAPTER = "ch8_msinet"


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "veri776", 30
    waiting = {"quick": 1, "desk": 4}  # its first run of trials: a search; settling of the recipe
    studies = ["msinet_report_t1", "msinet_report_t2", "msinet_report_f1", "msinet_report_f2"]

    def test_genotypes_that_were_found_are_trained(self, smoke):
        records = smoke.trials().values()
        searched = [r for r in records if r["config"]["kind"] == "msinet_search"]
        assert {r["config"]["supernet"]["guide"] for r in searched} == {"twins", "shared"}
        found = {MSIGenotype.from_json(r["genotype"]) for r in searched if "vehicles" in r["config"]["train"]}
        trained = {tuple(r["config"]["options"]["genotype"]) for r in records if r["config"]["kind"] == "reid"}
        assert found and found <= trained and PERSONS in trained

    def test_the_released_network_has_the_costs_of_the_release(self, smoke):
        costs = pd.read_csv(smoke.shown / "costs.csv", index_col=0)
        released = costs.loc["people 256x128, the released genotype"]
        assert round(released["parameters, M"], 2) == 2.33 and round(released["multiply-adds, layers, G"], 2) == 1.09


@pytest.mark.parametrize("name, title", [("market1501", "Market-1501"), ("veri776", "VeRi-776")])
def test_on_a_copy_in_the_layout_of_the_real_set(name, title, worlds, tmp_path):
    size = dict(num_train_ids=6, num_test_ids=3, progress=False)
    render_veri(tmp_path / "copy", **size) if name == "veri776" else render_dataset(name, tmp_path / "copy", **size)
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset=name, data_root="copy")
    cells = run.studies()["msinet_report_f1"]["cells"]
    found = {cell["row"]: cell for cell in cells if cell["ours"]}
    assert {"released", "twins", "shared classifier", "none"} <= set(found)
    assert all(cell["dataset"] == title and not cell["stand_in"] for cell in found.values())
    if name == "veri776":
        cell = run.cell("msinet_report_t2", "MSINet(改)", "R1", dataset=title)
        assert cell["paper"] == 96.2 and cell["ours"]["n"] == 1 and cell["verdict"] != "needs data"
