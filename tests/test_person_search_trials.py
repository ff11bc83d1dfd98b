"""A person-search trial: its scores, its teacher, and that it gives the same record again."""

import shutil

import numpy as np
import pytest
import torch

from scalable_arch.data import cache_dir
from scalable_arch.data.scenes import SceneSearch, SceneSet
from scalable_arch.study import person_search
from scalable_arch.study.trials import execute, trial_name

SCENES = {"world": "yard", "people": 4, "scenes": 6}
TRAINING = {"train": SCENES, "size": [96, 128], "recipe": {"epochs": 1, "batch_size": 3, "milestones": []}, "seed": 1}
TEACHER = {"model": "hdl_teacher", "options": {"width": 0.0625, "anchor_heights": [24, 40]}, **TRAINING}
STUDENT = {
    "model": "hdl_student",
    "options": {"widths": [8, 16, 24, 32], "stem_width": 4, "anchor_heights": [24, 40]},
    **TRAINING,
}
TINY = {
    "run": "scalable_arch.study.person_search:train_and_find",
    **STUDENT,
    "search": {"test": SCENES},
    "galleries": [0, 2],
}
TAUGHT = {**TINY, "teacher": TEACHER, "distill": ["prediction"]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))


def found_again(record):
    "What a trial found, without when and where."
    return {key: record[key] for key in ("trial", "config", "metrics", "queries", "people", "curves")}


def test_a_taught_student_is_the_same_with_its_teacher_from_the_cache_and_trained_again():
    first = execute(TAUGHT, progress=False)
    assert {"prediction", "identity", "anchor"} <= set(first["curves"][0]) and {
        "scalable_arch.hdl",
        "scalable_arch.data.scenes",
    } <= set(first["sources"])
    assert person_search.weights_path(TEACHER).is_file()
    person_search.weights_path(TAUGHT).unlink()
    from_cache = execute(TAUGHT, progress=False)
    shutil.rmtree(cache_dir() / "models")
    anew = execute(TAUGHT, progress=False)
    assert found_again(first) == found_again(from_cache) == found_again(anew)


def test_weights_are_named_by_their_training_alone():
    other_search = {**TINY, "search": {"test": {**SCENES, "people": 9}}, "galleries": [0]}
    assert person_search.weights_path(TINY) == person_search.weights_path(other_search) and trial_name(
        TINY
    ) != trial_name(other_search)
    other_teacher = {**TAUGHT, "teacher": {**TEACHER, "seed": 2}}
    assert len({person_search.weights_path(config) for config in (TINY, TAUGHT, other_teacher)}) == 3


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
    metrics, queries, people = person_search.scores(found, perfect, who, [0, 2])
    assert metrics["detection"] == {"AP": 1, "recall": 1} and people == {"all scenes": [1, 2], "gallery 2": [1, 2]}
    assert all(
        metrics[part] == {"R1": 1, "mAP": 1} and queries[part] == {"R1": [1, 1], "mAP": [1, 1]} for part in people
    )
    blind = [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.float32))] * 4
    metrics, _, _ = person_search.scores(found, blind, who)
    assert metrics == {"detection": {"AP": 0, "recall": 0}, "all scenes": {"R1": 0, "mAP": 0}}


def test_what_only_one_scene_misses_counts_in_part():
    found, who = toy_search(), np.eye(2, dtype=np.float32)
    seen = [
        (boxes.numpy(), np.ones(len(boxes), np.float32), who[pids.numpy() - 1])
        for boxes, pids in zip(found.scenes.boxes, found.scenes.pids)
    ]
    seen[3] = tuple(part[:0] for part in seen[3])  # person 1 is overlooked in one of three scenes
    metrics, queries, _ = person_search.scores(found, seen, who)
    assert queries["all scenes"]["mAP"] == [0.6667, 1] and metrics["detection"]["recall"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"train": {**SCENES, "world": "yrad"}}, "unknown world 'yrad'.*did you mean 'yard'"),
        ({"search": {"test": {"video": "vtst"}}}, "unknown video 'vtst'"),
        ({"model": "hdl_pupil"}, "unknown model 'hdl_pupil'"),
        ({"teacher": TEACHER, "distill": ["predicton"]}, "unknown distillation 'predicton'"),
    ],
)
def test_wrong_configurations(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        execute({**TINY, **changed}, progress=False)
