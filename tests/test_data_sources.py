"""Sources: one dict, one opener, which gives what the data sets themselves give; who is in a set is drawn once, and the
people and images that recipes are settled on are in no other."""

from inspect import signature

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
    render_voc,
    scenes,
    segmentation,
    standins,
)
from scalable_arch.data.sources import OPENERS, SOURCE_SPLITS, area_resized, source_title, source_versions
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
    for split in ("train", "settle", "test"):
        found = open_source(SMALL_WORLD, split, **opening)
        assert same(found, load_world("gate", split, people=3, boxes="detected", size=(32, 16)))
        masked, options = open_source(MASKS, split, task="segmentation"), dict(scenes=3, people=4, cameras=2)
        own = "val" if split == "test" else split
        assert same(masked, load_segmentation("scenes", split=own, size=(64, 64), **options))
    for split in ("settle", "test"):
        search = open_source(SCENES, split, task="person_search", size=[96, 128])
        expected = load_scenes(split, people=4, scenes=3, cameras=6, size=(96, 128), protocol="prw")
        assert same([search.queries, search.scenes.pixels], [expected.queries, expected.scenes.pixels])
        assert search.protocol == "prw"


SIMULATED = [
    (SMALL_WORLD, "reid", (32, 16), lambda data: data.images),
    ({"mixed": True, "people": 3}, "reid", (32, 16), lambda data: data.images),
    (SCENES, "person_search", (64, 96), lambda data: data.pixels if hasattr(data, "pixels") else data.scenes.pixels),
    ({"people": 3, "size": 16}, "classification", None, lambda data: data[0]),
    (MASKS, "segmentation", None, lambda data: data[0]),
]


@pytest.mark.parametrize("source, task, size, pixels", SIMULATED)
def test_who_is_in_a_set_is_drawn_once_and_the_splits_differ(source, task, size, pixels):
    opened = {split: pixels(open_source(source, split, task=task, size=size)) for split in ("train", "settle", "test")}
    for split, images in opened.items():
        torch.manual_seed(5)
        assert torch.equal(images, pixels(open_source(source, split, task=task, size=size)))
    seen = [image.numpy().tobytes() for images in opened.values() for image in images]
    assert len(set(seen)) == len(seen) and "seed" not in signature(open_source).parameters


@pytest.mark.parametrize("source, task, size, pixels", SIMULATED)
def test_what_is_simulated_is_rendered_once(source, task, size, pixels, monkeypatch):
    opened = lambda split: pixels(open_source(source, split, task=task, size=size))
    before = {split: opened(split) for split in ("train", "settle", "test")}
    for module, painter in ((standins, "render_shots"), (scenes, "render_scene"), (segmentation, "render_masked")):
        monkeypatch.setattr(module, painter, lambda *given, **options: pytest.fail("rendered again"))
    assert all(torch.equal(images, opened(split)) for split, images in before.items())


@pytest.mark.parametrize("split", ["train", "settle", "test"])
@pytest.mark.parametrize("source, task", [({"mixed": True}, "reid"), ({"size": 16}, "classification")])
def test_fewer_people_are_the_first_of_more(source, task, split):
    few, more = (open_source({**source, "people": people}, split, task=task, size=(32, 16)) for people in (2, 3))
    (images, names), (all_images, all_names) = ((found[0], np.asarray(found[1])) for found in (few, more))
    assert torch.equal(images, all_images[np.isin(all_names, names)]) and len(set(all_names) - set(names)) == 1


def test_mixed_people_of_three_splits_are_nine():
    pids = [
        open_source({"mixed": True, "people": 3}, split, task="reid", size=(32, 16)).pids for split in SOURCE_SPLITS
    ]
    assert len(set(np.concatenate(pids))) == 9 and min(map(min, pids)) > 0


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


def test_settling_takes_the_last_people_of_a_real_set_out_of_training(tmp_path):
    root = tmp_path / "market"
    render_dataset("market1501", root, num_train_ids=22, num_test_ids=2, num_cameras=2, shots=2, size=(32, 16))
    held_out, whole = {"dataset": "market1501", "held_out": True}, {"dataset": "market1501"}
    opening = dict(task="reid", size=(32, 16), data_root=root)
    train, every = (open_source(source, "train", **opening) for source in (held_out, whole))
    settle = open_source(held_out, "settle", **opening)
    assert set(train.pids) == set(range(1, 21)) and set(settle.pids) == {21, 22} and len(set(every.pids)) == 22
    assert train.labels.max() == 19 and len(train.images) + len(settle.images) == len(every.images)
    assert settle.query.sum() == 4 and (settle.query ^ settle.gallery).all()
    assert same(open_source(held_out, "test", **opening), open_source(whole, "test", **opening))


def test_settling_takes_the_last_people_of_real_scenes_out_of_training(tmp_path):
    render_person_search("prw", tmp_path / "set", people=(30, 4), scenes=(30, 4), cameras=(2, 2), size=(96, 128))
    opening = dict(task="person_search", size=(1, 1), data_root=tmp_path / "set")
    every = open_source({"dataset": "prw"}, "train", **opening)
    train, settle = (
        open_source({"dataset": "prw", "held_out": True}, split, **opening) for split in ("train", "settle")
    )
    last = set(sorted(every.labels)[-3:])
    assert not last & set(train.labels) and set(settle.scenes.labels) == last and settle.protocol == "prw"
    assert sorted(train.names + settle.scenes.names) == sorted(every.names)
    assert set(settle.query_pids()) <= last and len(settle.queries) >= 2
    for part in (train, settle.scenes):
        for row, name in enumerate(part.names):
            old = every.names.index(name)
            assert torch.equal(part.boxes[row], every.boxes[old]) and torch.equal(part.image(row), every.image(old))
            expected = [pid if pid in last or part is train else -1 for pid in every.pids[old].tolist()]
            assert part.pids[row].tolist() == expected and part.camids[row] == every.camids[old]


@pytest.mark.parametrize("size", [None, [32, 40]])
def test_settling_takes_the_last_masked_images_out_of_training(tmp_path, size):
    render_voc(tmp_path / "voc", people=(4, 3), scenes=(12, 2), extra=10, cameras=(2, 1), size=(64, 80))
    source, opening = {"dataset": "voc2012", "size": size}, dict(task="segmentation", data_root=tmp_path / "voc")
    every = open_source(source, "train", **opening)
    parts = [open_source(source | {"held_out": True}, split, **opening) for split in ("train", "settle")]
    assert [len(part[0]) for part in parts] == [20, 2] == [len(part[1]) for part in parts]
    for kind in (0, 1):
        joined = [parts[number][kind][row] for number, length in ((0, 20), (1, 2)) for row in range(length)]
        assert all(torch.equal(one, every[kind][row]) for row, one in enumerate(joined))
    assert len(open_source(source | {"held_out": True}, "test", **opening)[0]) == 2


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


def test_settling_takes_the_last_images_of_each_class_out_of_training():
    source, opening = {"dataset": "digits"}, dict(task="classification")
    (images, labels), (train, names), (settle, others) = (
        open_source({**source, "held_out": held_out}, split, **opening)
        for held_out, split in ((False, "train"), (True, "train"), (True, "settle"))
    )
    for label in range(10):
        mine, count = images[labels == label], int((others == label).sum())
        assert count == len(mine) // 10
        assert torch.equal(train[names == label], mine[:-count]) and torch.equal(settle[others == label], mine[-count:])
    limited, _ = open_source({**source, "held_out": True, "limit": 50}, "train", **opening)
    kept, taken = ({image.numpy().tobytes() for image in part} for part in (train, limited))
    assert taken < kept and same(
        *(open_source({**source, **held}, "test", **opening) for held in ({}, {"held_out": True}))
    )


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
        ({}, "train", "reid", "one of world, mixed, birds, target, video, dataset, such as .*plaza.*, not {}"),
        ("plaza", "train", "reid", "one of world, mixed, birds, target, video, dataset, .* not 'plaza'"),
        ({"world": "plaza", "dataset": "market1501"}, "train", "reid", "a dict with one of world"),
        ({"world": "plasa"}, "train", "reid", "unknown world 'plasa' .*did you mean 'plaza'"),
        ({"world": "street"}, "train", "reid", "unknown world 'street'"),
        ({"world": "yrad"}, "test", "person_search", "unknown world 'yrad' .*did you mean 'yard'"),
        ({"world": "plaza", "poeple": 6}, "train", "reid", "'poeple' .*did you mean 'people'"),
        ({"dataset": "digits", "limt": 6}, "train", "classification", "'limt' .*did you mean 'limit'"),
        ({"dataset": "digitz"}, "test", "classification", "did you mean 'digits'"),
        ({"mixed": True}, "test", "reid", "the mixed world needs its number of people"),
        ({"video": "vtst"}, "test", "reid", "unknown video 'vtst'"),
        ({"video": "vtest"}, "train", "person_search", "can be searched, not trained on or"),
        ({"dataset": "scense"}, "train", "segmentation", "unknown data set 'scense'"),
        ({"world": "plaza"}, "val", "reid", "unknown split 'val'.*train, settle, test"),
        ({"video": "vtest"}, "settle", "reid", "can be searched, not trained on or settled on"),
        ({"dataset": "digits"}, "settle", "classification", "leaves none to settle on: write 'held_out': true into it"),
        ({"dataset": "market1501"}, "settle", "reid", "leaves none to settle on"),
        ({"dataset": "prw"}, "settle", "person_search", "leaves none to settle on"),
        ({"dataset": "voc2012"}, "settle", "segmentation", "leaves none to settle on"),
        ({"dataset": "digits", "held_out": "no"}, "train", "classification", "held_out is true or false, not 'no'"),
        ({"dataset": "scenes", "held_out": True}, "settle", "segmentation", "leave held_out out"),
        ({"people": 2.5}, "train", "classification", "people must be a whole number"),
        ({"mixed": True, "people": 1}, "train", "reid", "people must be a whole number"),
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
    example = {
        "world": {"reid": "city", "person_search": "yard", "video": "campus"},
        "dataset": "scenes",
        "video": "vtest",
        "people": 3,
        "target": "plaza",
        "birds": "cub200",
    }
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
