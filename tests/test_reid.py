"""A re-identification trial: what it searches by, and that it gives the same record again."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.data import cache_dir
from scalable_arch.data.standins import SearchSet
from scalable_arch.study import reid
from scalable_arch.study.trials import execute, trial_name

TINY = {
    "run": "scalable_arch.study.reid:train_and_search",
    "model": "han_small",
    "options": {"widths": [8, 16, 24], "stem_width": 4, "feature_dim": 32},
    "train": {"world": "plaza", "people": 6},
    "search": {"test": {"world": "plaza", "people": 5}},
    "size": [64, 32],
    "recipe": {"epochs": 1, "milestones": []},
    "parts": list(reid.PARTS),
    "attention": True,
    "keep_model": True,
    "seed": 3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))


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


def test_parts_of_the_feature():
    found = toy_set()
    person = np.eye(3, dtype=np.float32)[found.pids - 1]
    camera = np.eye(3, dtype=np.float32)[found.camids - 1]
    features = np.concatenate([person, camera], 1)  # the global half knows the person, the local half only the camera
    assert reid.search(found, features, "global")[0].mAP == 1
    assert reid.search(found, features, "local")[0].mAP < 1
    with pytest.raises(ValueError, match="part"):
        reid.search(found, features, "middle")


def test_multi_query_is_one_query_a_person_and_camera():
    found, rng = toy_set(), np.random.default_rng(0)
    features = reid.unit_branches(rng.standard_normal((12, 6)).astype(np.float32), 2)
    asked, pids, camids = reid.queries_of(found, features, "joint MQ")
    assert list(zip(pids, camids)) == [(p, c) for p in (1, 2, 3) for c in (1, 2)]
    mean = features[(found.pids == 2) & (found.camids == 1)].mean(0)
    expected = np.concatenate([half / np.linalg.norm(half) for half in np.split(mean, 2)])
    assert np.allclose(asked[2], expected, atol=1e-6)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_spread_lies_between_a_point_and_the_whole(height, width, seed):
    maps = torch.from_numpy(np.random.default_rng(seed).random((2, height, width)))
    value = reid.spread(maps)
    assert ((value > 1 / (height * width) - 1e-9) & (value < 1 + 1e-9)).all()
    assert torch.allclose(reid.spread(torch.ones(1, height, width)), torch.ones(1))


def test_trial_gives_the_same_record_again():
    first = execute(TINY)
    json.dumps(first, allow_nan=False)
    assert set(first["metrics"]["test"]) == set(reid.PARTS) and first["queries"]["test"]["attention"]
    for part in reid.PARTS:
        queries, people = first["queries"]["test"][part], first["people"]["test"][part]
        assert len(queries["R1"]) == len(queries["mAP"]) == len(people)
        assert np.mean(queries["mAP"]) == pytest.approx(first["metrics"]["test"][part]["mAP"], abs=1e-4)
    kept = cache_dir() / "models" / f"{trial_name(TINY)}.safetensors"
    assert kept.is_file()
    for again in (
        execute(TINY),
        shutil.rmtree(kept.parent) or execute(TINY),
    ):  # from the kept weights, and trained anew
        assert again["queries"] == first["queries"] and again["curves"] == first["curves"]
    other = execute(TINY | {"seed": 4})
    assert other["queries"] != first["queries"] and other["trial"] != first["trial"]


def test_a_source_that_is_not_there():
    with pytest.raises(ValueError, match="plasa"):
        execute(TINY | {"train": {"world": "plasa", "people": 6}})
    with pytest.raises(ValueError, match="vtests"):
        reid.search_set({"video": "vtests"}, (64, 32))
