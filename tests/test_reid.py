"""A re-identification trial: what it searches by, what its seed and recipe decide, and that it gives the same record
again."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.data import cache_dir
from scalable_arch.data.standins import SearchSet
from scalable_arch.kinds import reid
from scalable_arch.kinds.reid import REID
from scalable_arch.kinds.weights import training_seed

TINY = {
    "kind": "reid",
    "model": "han_small",
    "options": {"widths": [8, 16, 24], "stem_width": 4, "feature_dim": 32},
    "train": {"world": "plaza", "people": 6},
    "search": {"test": {"world": "plaza", "people": 5}},
    "size": [64, 32],
    "recipe": {"epochs": 1, "milestones": []},
    "parts": list(reid.FEATURE_PARTS),
    "attention": True,
    "keep_model": True,
    "seed": 3,
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    "A cache for all tests here, for what is rendered."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_weights_yet(worlds, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(worlds))
    shutil.rmtree(worlds / "models", ignore_errors=True)


def run(config):
    return REID.run(config, checkpoint=None, given={}, progress=False)


def toy_set():
    "Three people in two cameras, two images each; the first image of each person and camera is a query."
    pids = np.repeat([1, 2, 3], 4)
    camids = np.tile([1, 1, 2, 2], 3)
    query = np.tile([True, False], 6)
    return SearchSet(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), pids, camids, query, ~query)


def test_branches_are_told_by_length():
    one, two = np.eye(3, dtype=np.float32), np.concatenate([np.eye(3), np.eye(3)], 1).astype(np.float32)
    assert reid.num_branches(one) == 1 and reid.num_branches(two) == 2
    assert np.allclose(np.linalg.norm(reid.unit_branches(5 * two, 2).reshape(3, 2, 3), axis=2), 1)


def halves_that_disagree():
    """A query and three images of a gallery, the first of them right, and features of two halves: it comes first by the
    global half, last by the local one, second by both together."""
    query = np.array([True, False, False, False])
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    found = SearchSet(images, np.array([1, 1, 2, 3]), np.array([1, 2, 2, 2]), query, ~query)
    at = lambda cosine: [cosine, (1 - cosine**2) ** 0.5]
    pairs = [(1, 1), (1, -1), (0.5, 1), (-1, 0.5)]  # cosines of the angles to the query, by half
    return found, np.array([[*at(whole), *at(local)] for whole, local in pairs], np.float32)


RIGHT_BY_HALVES = {"joint": 1 / 2, "global": 1.0, "local": 1 / 3}  # AP of a single right image at rank 2, 1, 3


def test_each_part_searches_by_its_own_half():
    found, features = halves_that_disagree()
    metrics, queries, people = reid.retrieval_scores(found, features, list(RIGHT_BY_HALVES))
    assert {part: scores["mAP"] for part, scores in metrics.items()} == pytest.approx(RIGHT_BY_HALVES)
    assert {part: scores["R1"] for part, scores in queries.items()} == {"joint": [0], "global": [1], "local": [0]}
    assert people == {part: [1] for part in RIGHT_BY_HALVES}
    with pytest.raises(ValueError, match="part"):
        reid.search_gallery(found, features, "middle")


def test_a_trial_has_each_parts_scores_under_its_name(monkeypatch):
    found, features = halves_that_disagree()
    monkeypatch.setattr(reid, "open_source", lambda source, split, **asked: found)
    monkeypatch.setattr(reid, "trained_reid_net", lambda config, **running: (torch.nn.Linear(1, 1), []))
    monkeypatch.setattr(reid, "embed_images", lambda model, images: features)
    monkeypatch.setattr(reid, "share_learnt", lambda config, model, given: 1.0)
    metrics = run(TINY | {"parts": ["local", "joint", "global"], "attention": False})["metrics"]["test"]
    assert {part: scores["mAP"] for part, scores in metrics.items()} == pytest.approx(RIGHT_BY_HALVES)


def slow_scores(found, features):
    "R1 and AP of each query, one after the other: images of the person in the query's own camera do not count."
    first, precision = [], []
    for q in np.flatnonzero(found.query):
        ranked = sorted(np.flatnonzero(found.gallery), key=lambda g: np.linalg.norm(features[g] - features[q]))
        same = lambda g: found.pids[g] == found.pids[q]
        hits = [same(g) for g in ranked if not (same(g) and found.camids[g] == found.camids[q])]
        ranks = np.flatnonzero(hits) + 1
        if len(ranks):
            first.append(int(hits[0]))
            precision.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return first, precision


@given(st.integers(0, 10_000))
def test_a_search_leaves_out_the_person_in_the_querys_own_camera(seed):
    rng = np.random.default_rng(seed)
    pids, camids, query = rng.integers(1, 5, 24), rng.integers(1, 4, 24), rng.random(24) < 0.4
    query[:2] = True, False
    found = SearchSet(torch.zeros(24, 3, 8, 8, dtype=torch.uint8), pids, camids, query, ~query)
    features = rng.standard_normal((24, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    first, precision = slow_scores(found, features)
    if not first:
        return
    metrics, queries, _ = reid.retrieval_scores(found, features, ["joint"])
    assert queries["joint"]["R1"] == first and metrics["joint"]["R1"] == pytest.approx(np.mean(first))
    assert np.allclose(queries["joint"]["mAP"], precision, atol=1e-4)


def test_multi_query_is_one_query_a_person_and_camera():
    found, rng = toy_set(), np.random.default_rng(0)
    features = reid.unit_branches(rng.standard_normal((12, 6)).astype(np.float32), 2)
    asked, pids, camids = reid.queries_of(found, features, "joint MQ")
    assert list(zip(pids, camids)) == [(p, c) for p in (1, 2, 3) for c in (1, 2)]
    mean = features[(found.pids == 2) & (found.camids == 1)].mean(0)
    expected = np.concatenate([half / np.linalg.norm(half) for half in np.split(mean, 2)])
    assert np.allclose(asked[2], expected, atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_coverage_lies_between_a_point_and_the_whole(height, width, seed):
    maps = torch.from_numpy(np.random.default_rng(seed).random((2, height, width)))
    value = reid.map_coverage(maps)
    assert ((value > 1 / (height * width) - 1e-9) & (value < 1 + 1e-9)).all()
    assert torch.allclose(reid.map_coverage(torch.ones(1, height, width)), torch.ones(1))


def test_trial_gives_the_same_record_again():
    first = run(TINY)
    json.dumps(first, allow_nan=False)
    assert set(first["metrics"]["test"]) == set(reid.FEATURE_PARTS) and first["queries"]["test"]["attention"]
    for part in reid.FEATURE_PARTS:
        queries, people = first["queries"]["test"][part], first["people"]["test"][part]
        assert len(queries["R1"]) == len(queries["mAP"]) == len(people)
        assert np.mean(queries["mAP"]) == pytest.approx(first["metrics"]["test"][part]["mAP"], abs=1e-4)
    kept = reid.reid_weights_path(TINY)
    assert kept.is_file() and kept.parent == cache_dir() / "models"
    assert run(TINY) == first  # from the kept weights
    shutil.rmtree(kept.parent)
    assert run(TINY | {"keep_model": False}) == first and not kept.exists()  # trained anew, and not kept
    assert run(TINY | {"seed": 4})["queries"] != first["queries"]


@pytest.mark.parametrize("source", [{"world": "plaza", "people": 4}, {"mixed": True, "people": 4}])
def test_a_seed_decides_initial_weights_and_not_who_is_trained_on(monkeypatch, source):
    given_to_fit = []

    def noted(model, images, labels, *, seed, **recipe):
        weights = torch.cat([x.detach().flatten() for x in model.parameters()])
        given_to_fit.append((weights, images.clone(), seed))
        return [{"epoch": 1, "loss": 0.0}]

    monkeypatch.setattr(reid, "fit", noted)
    for seed, before in ((3, 0), (3, 1), (4, 1)):
        torch.manual_seed(before)  # what was drawn before must not matter
        reid.trained_reid_net({**TINY, "train": source, "keep_model": False, "seed": seed})
    (weights, images, seed), again, other = given_to_fit
    assert torch.equal(weights, again[0]) and seed == again[2] == training_seed({**TINY, "train": source, "seed": 3})
    assert weights.shape == other[0].shape and not torch.equal(weights, other[0]) and other[2] != seed
    assert torch.equal(images, again[1]) and torch.equal(images, other[1])


def test_what_a_recipe_asks_for_is_done():
    plain = {**TINY, "keep_model": False, "parts": ["joint"], "attention": False, "search": {}}
    curve = run(plain)["curves"]
    for change in (
        {"erasing": True},
        {"flip": True},
        {"lr": 0.01},
        {"loss": "triplet", "batch_size": 8, "num_shots": 2},
    ):
        assert run({**plain, "recipe": TINY["recipe"] | change})["curves"] != curve, change


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"train": {"world": "plasa", "people": 6}}, "unknown world 'plasa'"),
        ({"search": {"real people": {"video": "vtests"}}}, "unknown video 'vtests'"),
        ({"model": "han_smal"}, "did you mean 'han_small'"),
        ({"recipe": {"loss": "tripled"}}, "unknown loss 'tripled'"),
        ({"parts": ["middle"]}, "unknown part 'middle'"),
    ],
)
def test_wrong_configurations(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(TINY | {"attention": False} | changed)
