"""Sources: one dict, one opener, which gives what the data sets themselves give; the seed of a training set decides who
is in it."""

import numpy as np
import pytest
import torch

from scalable_arch.data import (
    load_classification,
    load_dataset,
    load_images,
    load_person_search,
    load_scenes,
    load_segmentation,
    load_world,
    open_source,
    render_dataset,
    render_person_search,
)
from scalable_arch.data.sources import OPENERS, area_resized, source_title, source_versions
from scalable_arch.versions import versions_of

SMALL_WORLD = {"world": "gate", "people": 3, "boxes": "detected"}
SCENES = {"world": "yard", "people": 4, "scenes": 3}
MASKS = {"dataset": "scenes", "scenes": 3, "people": 4, "cameras": 2, "size": [64, 64]}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def same(one, other):
    "Whether two tuples of arrays hold the same values."
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, other, strict=True))


def test_stand_ins_are_those_of_load_world():
    opening = dict(task="reid", size=[32, 16])
    train = open_source(SMALL_WORLD, "train", seed=3, **opening)
    assert same(train, load_world("gate", "train", people=3, boxes="detected", size=(32, 16), seed=3))
    found = open_source(SMALL_WORLD, "test", **opening)
    assert same(found, load_world("gate", "test", people=3, boxes="detected", size=(32, 16)))
    masked = open_source(MASKS, "train", task="segmentation", seed=2)
    assert same(masked, load_segmentation("scenes", scenes=3, people=4, cameras=2, size=(64, 64), seed=2))
    scenes = open_source(SCENES, "test", task="person_search", size=[96, 128])
    expected = load_scenes("test", people=4, scenes=3, cameras=6, size=(96, 128), protocol="prw")
    assert same([scenes.queries, scenes.scenes.pixels], [expected.queries, expected.scenes.pixels])
    assert scenes.protocol == "prw"


@pytest.mark.parametrize(
    "source, task, size, pixels",
    [
        (SMALL_WORLD, "reid", (32, 16), lambda data: data.images),
        ({"mixed": True, "people": 3}, "reid", (32, 16), lambda data: data.images),
        (
            SCENES,
            "person_search",
            (64, 96),
            lambda data: data.pixels if hasattr(data, "pixels") else data.scenes.pixels,
        ),
        (MASKS, "segmentation", None, lambda data: data[0]),
    ],
)
def test_a_seed_decides_who_is_in_the_training_world_and_nobody_in_the_test(source, task, size, pixels):
    opened = lambda split, seed: pixels(open_source(source, split, task=task, size=size, seed=seed))
    assert torch.equal(opened("train", 3), opened("train", 3))
    assert not torch.equal(opened("train", 3), opened("train", 4))
    assert torch.equal(opened("test", 3), opened("test", 4))


def test_a_real_set_is_read_whole(tmp_path):
    root = tmp_path / "market"
    render_dataset("market1501", root, num_train_ids=3, num_test_ids=3, size=(32, 16))
    real, opening = load_dataset("market1501", root), dict(task="reid", size=(32, 16), data_root=root)
    train = open_source({"dataset": "market1501"}, "train", **opening)
    assert torch.equal(train.images, load_images([sample.path for sample in real.train], size=(32, 16)))
    assert train.labels.tolist() == real.train_labels and train.pids.tolist() == [sample.pid for sample in real.train]
    found = open_source({"dataset": "market1501"}, "test", **opening)
    assert found.pids[found.query].tolist() == [sample.pid for sample in real.query]
    assert found.camids[found.gallery].tolist() == [sample.camid for sample in real.gallery]
    assert found.camids[found.query].tolist() == [sample.camid for sample in real.query]
    assert not (found.query & found.gallery).any()


def test_a_real_set_of_scenes_has_all_scenes_as_its_gallery(tmp_path):
    render_person_search("cuhk_sysu", tmp_path / "set", people=(4, 4), scenes=(3, 4), cameras=(2, 2), size=(96, 128))
    opening = dict(task="person_search", size=(1, 1), data_root=tmp_path / "set")
    train, test = load_person_search("cuhk_sysu", tmp_path / "set", None)
    assert open_source({"dataset": "cuhk_sysu"}, "train", **opening).names == train.names
    found = open_source({"dataset": "cuhk_sysu"}, "test", **opening)
    assert found.scenes.names == test.scenes.names
    assert all(np.array_equal(found.gallery(k), test.gallery(k)) for k in range(len(test.queries)))


def test_images_to_name_are_so_many_and_so_large():
    images, labels = open_source({"dataset": "digits", "limit": 30, "size": 4}, "train", task="classification")
    whole, expected = load_classification("digits", split="train", limit=30)
    assert torch.equal(images, area_resized(whole, 4)) and torch.equal(labels, expected)
    assert images.shape == (30, 3, 4, 4) and images.is_contiguous()


def test_images_are_means_of_the_pixels_they_cover():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    small = area_resized(images, 4)
    slow = torch.stack(
        [images[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].float().mean((2, 3)) for y in range(4) for x in range(4)],
        -1,
    ).view(3, 3, 4, 4)
    assert (small.float() - slow).abs().max() <= 0.5 and area_resized(images, None) is images


def test_persons_are_seen_by_other_cameras_in_the_test():
    (train, names), (test, again) = (
        open_source({"people": 3, "size": 16}, split, task="classification") for split in ("train", "test")
    )
    assert names.unique().tolist() == again.unique().tolist() == [0, 1, 2]
    assert len(train) == 2 * len(test) and train.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    "source, split, task, sentence",
    [
        ({}, "train", "reid", "one of world, mixed, video, dataset, such as .*plaza.*, not {}"),
        ("plaza", "train", "reid", "one of world, mixed, video, dataset, .* not 'plaza'"),
        ({"world": "plaza", "dataset": "market1501"}, "train", "reid", "a dict with one of world"),
        ({"world": "plasa"}, "train", "reid", "unknown world 'plasa' .*did you mean 'plaza'"),
        ({"world": "street"}, "train", "reid", "unknown world 'street'"),
        ({"world": "yrad"}, "test", "person_search", "unknown world 'yrad' .*did you mean 'yard'"),
        ({"world": "plaza", "poeple": 6}, "train", "reid", "'poeple' .*did you mean 'people'"),
        ({"dataset": "digits", "limt": 6}, "train", "classification", "'limt' .*did you mean 'limit'"),
        ({"dataset": "digitz"}, "test", "classification", "did you mean 'digits'"),
        ({"mixed": True}, "test", "reid", "the mixed world needs its number of people"),
        ({"video": "vtst"}, "test", "reid", "unknown video 'vtst'"),
        ({"video": "vtest"}, "train", "person_search", "can be searched, not trained on"),
        ({"dataset": "scense"}, "train", "segmentation", "unknown data set 'scense'"),
        ({"world": "plaza"}, "val", "reid", "unknown split 'val'"),
        ({"world": "plaza"}, "train", "reidd", "unknown task 'reidd'"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(source, split, task, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_source(source, split, task=task, size=(32, 16))


def test_versions_and_titles():
    assert source_versions(SMALL_WORLD, "reid") == ["world.people", "world.gate"]
    assert source_versions(SCENES, "person_search") == ["world.people", "world.scenes", "world.yard"]
    assert source_versions({"video": "vtest"}, "reid") == ["data.vtest"]
    assert source_versions({"dataset": "voc2012"}, "segmentation") == ["data.images"]
    for task, world in (("reid", "plasa"), ("person_search", "plaza")):
        with pytest.raises(ValueError, match="unknown world"):
            source_versions({"world": world}, task)
    example = {"world": {"reid": "city", "person_search": "yard"}, "dataset": "scenes", "video": "vtest", "people": 3}
    for task, sorts in OPENERS.items():
        for sort in sorts:
            value = example.get(sort, True)
            source = {sort: value[task] if isinstance(value, dict) else value}
            assert versions_of(source_versions(source, task))
    titles = [SMALL_WORLD, {"mixed": True, "people": 3}, {"people": 3}, {"video": "vtest"}, MASKS]
    assert [source_title(source) for source in titles] == [
        "gate (detected)",
        "mixed world",
        "3 persons",
        "vtest",
        "scenes",
    ]
