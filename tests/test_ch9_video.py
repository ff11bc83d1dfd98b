"Chapter 9: its smoke run, one on a copy in the layout of MARS with the recipe of the paper, and training on clips."

import numpy as np
import pytest
import safetensors.torch
import torch
from chapters import ChapterTests, run_chapter, run_plan

from scalable_arch import create_model
from scalable_arch.data import load_tracks, render_track_dataset
from scalable_arch.kinds.video import VIDEO, file_digest
from scalable_arch.nn.clips import resnet50_clips
from scalable_arch.train.clips import clip_features, fit_clips, share_of_tracks_named
from scalable_arch.train.losses import soft_triplet
from scalable_arch.train.run import in_mode

CHAPTER = "ch9_video"
RECIPE = {"epochs": 1, "num_ids": 2, "num_shots": 2, "lr": 1e-3, "milestones": []}
TRIAL = {
    "kind": "video",
    "model": "nvan",
    "options": {"width": 0.0625},
    "train": {"world": "plaza", "people": 4, "frames": 4},
    "search": {"test": {"world": "plaza", "people": 3, "frames": 4}},
    "size": [32, 16],
    "frames": 2,
    "base": RECIPE,
    "recipe": RECIPE,
    "frozen": "conv3_3",
    "seed": 0,
}


class TestChapter(ChapterTests):
    chapter, real, most_trials = CHAPTER, "mars", 30
    waiting = {"quick": 3, "desk": 108}  # its trials are still to be run
    studies = [f"liu_thesis_t2_{n:02d}" for n in range(1, 11)] + [f"liu_thesis_f2_{n:02d}" for n in (5, 7, 12)]

    def test_structural_values_meet_the_print(self, smoke):
        cells = smoke.studies()["liu_thesis_t2_08"]["cells"]
        found = {cell["verdict"] for cell in cells if cell["metric"].startswith("FLOPs")}
        assert found and all(verdict.startswith("computed, ") and "not met" not in verdict for verdict in found)
        cells = smoke.studies()["liu_thesis_t2_01"]["cells"]
        assert "computed, not met" not in {cell["verdict"] for cell in cells if cell["metric"] == "FLOPs"}

    def test_a_claim_on_cost_depends_on_what_is_counted(self, smoke):
        claims = {claim["name"]: claim for claim in smoke.studies()["liu_thesis_t2_10"]["claims"]}
        assert claims["cost as the simplest"]["verdict"] == "supported"
        assert claims["cost as the simplest, all counted"]["verdict"] == "contradicted"


@pytest.fixture(scope="module")
def tracks():
    return load_tracks("plaza", "train", people=4, frames=4, size=(32, 16), progress=False)


def small_net(**options):
    torch.manual_seed(0)
    return resnet50_clips(4, width=0.0625, **options)


def test_the_recipe_of_the_paper_on_a_copy_in_the_layout_of_mars(monkeypatch, tmp_path):
    "With a reader's file of ImageNet weights, and toy sizes in place of 256x128 and 200 epochs."
    render_track_dataset("mars", tmp_path / "mars", num_train_ids=8, num_test_ids=3, frames=3, size=(32, 16))
    weights = tmp_path / "resnet50.safetensors"
    safetensors.torch.save_file(create_model("resnet50_clips", width=0.0625).backbone.state_dict(), weights)
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path / "reports"))
    given = dict(dataset="mars", data_root=str(tmp_path / "mars"), imagenet=str(weights), profile="paper")
    with pytest.raises(LookupError):
        monkeypatch.setattr("scalable_arch.study.trials.run_missing", stop)
        run_plan(CHAPTER, **given)
    plan = stop.configs
    assert {config["recipe"]["epochs"] for config in plan} == {200}
    assert all(config["train"] == {"dataset": "mars"} and config["size"] == (256, 128) for config in plan)
    assert {config["base"]["imagenet"] for config in plan} == {file_digest(weights)}
    small = {"size": [32, 16], "options": {"width": 0.0625}, "frames": 4, "recipe": plan[0]["recipe"] | {"epochs": 1}}
    record = VIDEO.run(plan[0] | small, given={"data_root": given["data_root"], "imagenet": str(weights)})
    assert set(record["metrics"]["test"]) == {"mars_official", "mars_clean", "cfaan_new", "early"}


def stop(configs, *_, **__):
    stop.configs = list(configs)
    raise LookupError("trials are not on record")


def test_smoke_on_a_copy_in_the_layout_of_mars(worlds, tmp_path):
    render_track_dataset("mars", tmp_path / "mars", num_train_ids=4, num_test_ids=3, frames=3, size=(32, 16))
    run = run_chapter(CHAPTER, tmp_path, worlds, dataset="mars", data_root="mars")
    cell = run.cell("liu_thesis_t2_01", "NVAN", "R1", group="FPL", dataset="MARS")
    assert cell["paper"] == 90.0 and cell["ours"]["n"] == 1 and not cell["stand_in"] and cell["verdict"] != "needs data"


# ---- the kind of trial


def test_a_trial_is_the_same_twice_and_shares_its_base():
    first, again = (VIDEO.run(TRIAL, progress=False) for _ in range(2))
    assert first == again
    other = VIDEO.run(TRIAL | {"model": "resnet50_clips", "recipe": RECIPE | {"lr": 0.0}}, progress=False)
    still = VIDEO.run(TRIAL | {"recipe": RECIPE | {"lr": 0.0}}, progress=False)
    assert other["metrics"] == still["metrics"], "without learning NVAN is its base"
    assert still["curves"][-1]["new"] == 0 < first["curves"][-1]["new"]


def test_cleaned_tracks_are_other_tracks():
    raw, clean = (VIDEO.run(TRIAL | more, progress=False) for more in ({}, {"relink": {"recall": 0.9}}))
    assert raw["curves"] != clean["curves"] and "method.relink" in VIDEO.versions(TRIAL | {"relink": {}})


def test_another_file_of_weights_is_told(tmp_path):
    for name in ("a", "b"):
        safetensors.torch.save_file({"x": torch.tensor([ord(name)])}, tmp_path / name)
    config = TRIAL | {"base": {"imagenet": file_digest(tmp_path / "a")}}
    with pytest.raises(ValueError, match="is another file than the"):
        VIDEO.run(config, given={"imagenet": str(tmp_path / "b")}, progress=False)


# ---- training on clips


def test_a_killed_training_goes_on_to_the_same_bits(tracks, tmp_path):
    how = dict(frames=2, num_ids=2, num_shots=2, lr=1e-3, schedule="cosine", milestones=(), settle_batches=1)
    whole, killed = small_net(), small_net()
    fit_clips(whole, tracks, epochs=2, **how)

    def kill(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_clips(killed, tracks, epochs=2, checkpoint=tmp_path, on_epoch=kill, **how)
    resumed = small_net()
    fit_clips(resumed, tracks, epochs=2, checkpoint=tmp_path, **how)
    assert all(torch.equal(x, y) for x, y in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_it_learns_its_tracks(tracks):
    model = small_net(stem_pool=False)
    how = dict(frames=2, num_ids=4, num_shots=2, lr=1e-2, schedule="cosine", warmup=5, milestones=(), flip=False)
    curve = fit_clips(model, tracks, epochs=40, **how)
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert share_of_tracks_named(model, tracks, frames=2) > 0.8


def test_features_of_all_clips_are_their_mean(tracks):
    model = small_net().eval()
    found = clip_features(model, tracks, frames=2, clips="all")
    assert found.shape == (len(tracks), 128) and torch.allclose(found.norm(dim=1), torch.ones(len(tracks)), atol=1e-5)
    one = tracks.of(np.array([0]))
    assert torch.allclose(clip_features(model, one, frames=2, clips="all"), found[:1], atol=1e-5)
    assert not torch.allclose(clip_features(model, tracks, frames=2), found, atol=1e-3)


def test_padding_is_masked_and_mirrored(tracks):
    from dataclasses import replace

    rects = np.tile(np.float32([0, 0, 1, 0.5]), (len(tracks.pixels), 1))
    padded = replace(tracks, rects=rects)
    model = small_net().eval()
    assert not torch.allclose(clip_features(model, padded, frames=2), clip_features(model, tracks, frames=2), atol=1e-3)
    assert clip_features(model, replace(tracks, rects=0 * rects), frames=2).isfinite().all(), "empty masks"
    fit_clips(small_net(), padded, frames=2, epochs=1, num_ids=2, num_shots=2, milestones=())


def test_soft_triplets_against_loops():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(8, 5, generator=generator).double(), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])
    terms = []
    for a in range(8):
        same = [p for p in range(8) if labels[p] == labels[a] and p != a]
        other = [n for n in range(8) if labels[n] != labels[a]]
        if same:
            far, near = max((x[a] - x[p]).norm() for p in same), min((x[a] - x[n]).norm() for n in other)
            terms.append(torch.log1p((far - near).exp()))
    output = type("Output", (), {"embeddings": (x,)})
    assert torch.allclose(soft_triplet(output, labels), torch.stack(terms).mean())
    assert soft_triplet(output, torch.zeros(8, dtype=torch.long)) == 0 == soft_triplet(output, torch.arange(8))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"num_ids": 5}, "a batch of num_ids=5 persons needs as many"),
        ({"num_ids": 1}, "num_ids must be a whole number of at least 2"),
        ({"frames": 0}, "frames must be a whole number of at least 1"),
        ({"loss": "softest"}, "unknown loss 'softest'"),
        ({"schedule": "zigzag"}, "unknown schedule 'zigzag'"),
    ],
)
def test_wrong_recipes_get_one_sentence(tracks, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_clips(small_net(), tracks, **{"frames": 2, "num_ids": 2, "num_shots": 2, "epochs": 1} | options)


def test_wrong_tracks_get_one_sentence(tracks):
    with pytest.raises(ValueError, match="frames are pooled in pairs, and there are 3"):
        clip_features(small_net(temporal=True), tracks, frames=3)
    with pytest.raises(ValueError, match="there are no tracks"):
        clip_features(small_net(), tracks.of(np.zeros(len(tracks), bool)))
    with pytest.raises(ValueError, match="unknown clips 'some'"):
        clip_features(small_net(), tracks, clips="some")
    with pytest.raises(ValueError, match="in train mode there must be at least two clips"):
        with in_mode(small_net(), True) as model:
            model(torch.zeros(1, 2, 3, 32, 16))


def test_tracks_of_one_frame_are_trained_and_found(tracks):
    short = load_tracks("plaza", "train", people=3, frames=1, size=(32, 16), progress=False)
    model = small_net()
    fit_clips(model, short, frames=4, epochs=1, num_ids=2, num_shots=2, milestones=())
    assert clip_features(model, short, frames=4, clips="all").isfinite().all()
