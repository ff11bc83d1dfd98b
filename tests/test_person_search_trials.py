"""A person-search trial: its scores, its teacher, what its seed decides, and that it gives the same record again."""

import shutil

import numpy as np
import pytest
import torch

from scalable_arch.data import cache_dir
from scalable_arch.data.scenes import SceneSearch, SceneSet
from scalable_arch.kinds import person_search
from scalable_arch.kinds.person_search import PERSON_SEARCH, person_search_weights_path
from scalable_arch.kinds.weights import training_seed

SCENES = {"world": "yard", "people": 4, "scenes": 6}
TRAINING = {"train": SCENES, "size": [96, 128], "recipe": {"epochs": 1, "batch_size": 3, "milestones": []}, "seed": 1}
TEACHER = {"model": "hdl_teacher", "options": {"width": 0.0625, "anchor_heights": [24, 40]}, **TRAINING}
STUDENT = {
    "model": "hdl_student",
    "options": {"widths": [8, 16, 24, 32], "stem_width": 4, "anchor_heights": [24, 40]},
    **TRAINING,
}
TINY = {
    "kind": "person_search",
    **STUDENT,
    "search": {"test": SCENES},
    "galleries": [0, 2],
}
TAUGHT = {**TINY, "teacher": TEACHER, "distill": ["prediction"]}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    "A cache for all tests here, for what is rendered."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_weights_yet(worlds, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(worlds))
    shutil.rmtree(worlds / "models", ignore_errors=True)


def run(config):
    return PERSON_SEARCH.run(config, checkpoint=None, given={}, progress=False)


def test_a_taught_student_is_the_same_with_its_teacher_from_the_cache_and_trained_again():
    first = run(TAUGHT)
    assert {"prediction", "identity", "anchor"} <= set(first["curves"][0])
    assert person_search_weights_path(TEACHER).is_file()
    person_search_weights_path(TAUGHT).unlink()
    assert run(TAUGHT) == first  # its teacher from the cache
    shutil.rmtree(cache_dir() / "models")
    assert run(TAUGHT) == first


def test_weights_are_named_by_their_training_alone():
    other_search = {**TINY, "search": {"test": {**SCENES, "people": 9}}, "galleries": [0]}
    assert person_search_weights_path(TINY) == person_search_weights_path(other_search)
    other_teacher = {**TAUGHT, "teacher": {**TEACHER, "seed": 2}}
    assert len({person_search_weights_path(config) for config in (TINY, TAUGHT, other_teacher)}) == 3


def test_a_seed_decides_initial_weights_and_not_who_is_trained_on(monkeypatch):
    given_to_fit = []

    def noted(model, scenes, *, seed, **recipe):
        weights = torch.cat([x.detach().flatten() for x in model.backbone.parameters()])
        given_to_fit.append((weights, scenes.pixels.clone(), seed))
        return [{"epoch": 1, "loss": 0.0}]

    monkeypatch.setattr(person_search, "fit_person_search", noted)
    for seed, before in ((3, 0), (3, 1), (4, 1)):
        torch.manual_seed(before)  # what was drawn before must not matter
        person_search.trained_person_search_net({**STUDENT, "seed": seed})
        shutil.rmtree(cache_dir() / "models")
    (weights, pixels, seed), again, other = given_to_fit
    assert torch.equal(weights, again[0]) and not torch.equal(weights, other[0])
    assert torch.equal(pixels, again[1]) and torch.equal(pixels, other[1])
    assert seed == again[2] == training_seed({**STUDENT, "seed": 3}) != other[2]


def toy_search():
    """Four scenes of 40x40 with person 1 in all and person 2 in the first two, a query for each of their boxes in
    scene 0."""
    boxes = [torch.tensor([[0.0, 0, 10, 30], [20, 0, 30, 30]])[: 2 if scene < 2 else 1] for scene in range(4)]
    pids = [torch.tensor([1, 2])[: len(box)] for box in boxes]
    scenes = SceneSet(
        list("abcd"),
        np.zeros(4, np.int64),
        boxes,
        pids,
        torch.zeros(4, 3, 40, 40, dtype=torch.uint8),
        np.array([[40, 40]] * 4),
    )
    return SceneSearch(scenes, np.array([[0, 0], [0, 1]]))


def test_scores_of_a_perfect_search_and_of_a_blind_one():
    found = toy_search()
    who = np.eye(2, dtype=np.float32)
    perfect = [
        (boxes.numpy(), np.ones(len(boxes), np.float32), who[pids.numpy() - 1])
        for boxes, pids in zip(found.scenes.boxes, found.scenes.pids)
    ]
    metrics, queries, people = person_search.person_search_scores(found, perfect, who, [0, 2])
    assert metrics["detection"] == {"AP": 1, "recall": 1} and people == {"all scenes": [1, 2], "gallery 2": [1, 2]}
    assert all(
        metrics[part] == {"R1": 1, "mAP": 1} and queries[part] == {"R1": [1, 1], "mAP": [1, 1]} for part in people
    )
    blind = [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))] * 4
    metrics, _, _ = person_search.person_search_scores(found, blind, who)
    assert metrics == {"detection": {"AP": 0, "recall": 0}, "all scenes": {"R1": 0, "mAP": 0}}


def test_what_only_one_scene_misses_counts_in_part():
    found, who = toy_search(), np.eye(2, dtype=np.float32)
    seen = [
        (boxes.numpy(), np.ones(len(boxes), np.float32), who[pids.numpy() - 1])
        for boxes, pids in zip(found.scenes.boxes, found.scenes.pids)
    ]
    seen[3] = tuple(part[:0] for part in seen[3])  # person 1 is overlooked in one of three scenes
    metrics, queries, _ = person_search.person_search_scores(found, seen, who)
    assert queries["all scenes"]["mAP"] == [0.6667, 1] and metrics["detection"]["recall"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"train": {**SCENES, "world": "yrad"}}, "unknown world 'yrad'.*did you mean 'yard'"),
        ({"search": {"test": {"video": "vtst"}}}, "unknown video 'vtst'"),
        ({"model": "hdl_pupil"}, "unknown model 'hdl_pupil'"),
        ({"model": "han_small"}, "unknown model 'han_small'.*hdl_teacher, hdl_student"),
        ({"teacher": TEACHER, "distill": ["predicton"]}, "unknown distillation 'predicton'"),
    ],
)
def test_wrong_configurations(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        run({**TINY, **changed})
