"""Simulated data sets: the same call gives the same pixels, splits share nothing, the cache never lies, and the
characters differ."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch import versions
from scalable_arch.data import (
    cross_view_pairs,
    list_worlds,
    load_manifest,
    load_scenes,
    load_segmentation,
    load_world,
    prepared,
    standins,
    world_statistics,
)
from scalable_arch.data.camera import Place, make_camera
from scalable_arch.data.person import SHOT, Crowd, make_person, stream
from scalable_arch.data.prepared import read_array
from scalable_arch.data.render import draw_box, make_visit, render_crops, render_shots
from scalable_arch.data.standins import FIRST_PIDS, PEOPLE, WORLDS, labels_of, plan_world

SMALL = dict(people=3, size=(32, 16))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "worlds"


def renders(monkeypatch):
    """List that gets the number of images of every rendering from now on."""
    counts = []

    def counted(plan, **options):
        counts.append(len(plan))
        return render_shots(plan, **options)

    monkeypatch.setattr(standins, "render_shots", counted)
    return counts


def cameras(name, split, seed=0):
    """The cameras of a split."""
    plan, render_seed = plan_world(name, split, people=20, seed=seed)
    places = WORLDS[name].places
    return [
        make_camera(camid, render_seed, places[camid % len(places)]) for camid in sorted({shot.camid for shot in plan})
    ]


# ---- what a call gives


@pytest.mark.parametrize("name", list_worlds())
def test_a_training_set_has_images_people_and_labels(name):
    train, (_, per_id, shots, _) = load_world(name, **SMALL), WORLDS[name].train
    assert train.images.dtype == torch.uint8 and train.images.shape == (3 * per_id * shots, 3, 32, 16)
    assert sorted(set(train.labels)) == [0, 1, 2] and len({*zip(train.pids, train.labels)}) == 3


@pytest.mark.parametrize("split", ["settle", "test"])
@pytest.mark.parametrize("name", list_worlds())
def test_who_is_asked_for_is_in_the_gallery_of_another_camera(name, split):
    test, first = load_world(name, split, **SMALL), FIRST_PIDS[split]
    assert not (test.query & test.gallery).any() and (test.query | test.gallery).all()
    for row in np.flatnonzero(test.query):
        same = test.pids == test.pids[row]
        assert (same & test.query & (test.camids == test.camids[row])).sum() == 1
        assert (same & test.gallery & (test.camids != test.camids[row])).any()
    assert test.query.sum() == 3 * WORLDS[name].test.cameras_per_id
    assert set(test.pids[test.query]) == set(range(first, first + 3))


def test_only_plaza_has_junk_and_distractors_and_they_are_gallery():
    for name in list_worlds():
        pids, _ = labels_of(name, plan_world(name, "test", people=5)[0])
        assert (pids <= 0).any() == (name == "plaza")
    found = load_world("plaza", "test", **SMALL)
    assert ((found.pids == 0).sum(), (found.pids == -1).sum()) == (9, 12) and found.gallery[found.pids <= 0].all()


def test_gate_names_the_two_views_of_a_pair_as_cuhk03_does():
    plan, _ = plan_world("gate", "test", people=40)
    _, camids = labels_of("gate", plan)
    assert set(camids) == {1, 2}
    pairs = {frozenset(shot.camid for shot in plan if shot.pid == pid) for pid in {shot.pid for shot in plan}}
    assert pairs == {frozenset((camid, camid + 1)) for camid in range(1, 11, 2)}


def test_number_of_test_cameras_is_the_printed_one():
    for name in set(list_worlds()) - {"gate"}:
        printed = load_manifest(WORLDS[name].stands_for)["printed"]["cameras"]
        assert len(cameras(name, "test")) == printed == world_statistics().loc[name, ("stand-in", "test cameras")]


def test_statistics_count_what_load_world_gives():
    table = world_statistics(train_people=4, test_people=3)
    for name in list_worlds():
        train, test = load_world(name, people=4, size=(32, 16)), load_world(name, "test", **SMALL)
        row = table.loc[name]
        assert row["stand-in", "train images"] == len(train.images) and row["stand-in", "test images"] == len(
            test.images
        )
        assert row["stand-in", "queries"] == test.query.sum()
    assert table.loc["plaza", ("printed for the real set", "images")] == 32668


# ---- seeds and splits


@pytest.mark.parametrize("name", list_worlds())
def test_splits_share_neither_people_nor_cameras_nor_do_worlds_of_other_seeds(name):
    splits = [(split, seed) for split in FIRST_PIDS for seed in (0, 1)]
    people, places = [], []
    for split, seed in splits:
        plan, render_seed = plan_world(name, split, people=20, seed=seed)
        people += [
            make_person(pid, render_seed, WORLDS[name].crowd).height
            for pid in {shot.pid for shot in plan if shot.pid > 0}
        ]
        places += [camera.mount for camera in cameras(name, split, seed)]
    assert len(set(places)) == len(places)
    heights = [height for height in people if 1.42 < height < 1.98]  # the ends are clipped
    assert len(set(heights)) == len(heights)
    pids = [set(load_world(name, split, **SMALL).pids) - {-1, 0} for split in FIRST_PIDS]
    assert len(set.union(*pids)) == 9


@pytest.mark.parametrize("split", FIRST_PIDS)
@pytest.mark.parametrize("name", list_worlds())
def test_more_people_leave_the_first_ones_as_they_are(name, split):
    few, more = load_world(name, split, people=2, size=(32, 16)), load_world(name, split, **SMALL)
    same = np.isin(more.pids, few.pids[few.pids > 0])
    assert torch.equal(few.images[few.pids > 0], more.images[same]) and 0 < same.sum() < len(same)


@pytest.mark.parametrize("name", list_worlds())
def test_200_people_are_asked_for_unless_said_otherwise(name):
    assert PEOPLE["settle"] == PEOPLE["test"] == 200
    counts = world_statistics().loc[name, "stand-in"]
    assert counts["test people"] == 200 and counts["queries"] == 200 * WORLDS[name].test.cameras_per_id


def test_threads_change_nothing_and_no_traits_are_the_plain_world(own_cache):
    one = load_world("gate", **SMALL).images.clone()
    for file in own_cache.glob("*.npy"):
        file.unlink()
    assert torch.equal(one, load_world("gate", workers=3, **SMALL).images)
    plan = [standins.Shot(pid, camid, 0, number) for pid in (1, 2) for camid in (1, 2) for number in range(2)]
    plain = render_crops([1, 2], [1, 2], shots=2, size=(32, 16))
    assert np.array_equal(plain.images, render_shots(plan, size=(32, 16), crowd=Crowd(), places=(Place(),)).images)


# ---- cache


def test_a_second_call_maps_the_same_pixels_without_rendering(monkeypatch, own_cache):
    counts = renders(monkeypatch)
    first = load_world("campus", "test", **SMALL)
    second = load_world("campus", "test", **SMALL)
    assert counts == [36] and torch.equal(first.images, second.images) and len(list(own_cache.iterdir())) == 1
    second.images.zero_()  # a user's own copy of the pages
    assert torch.equal(first.images, load_world("campus", "test", **SMALL).images)


def test_every_argument_and_the_versions_are_part_of_the_key(monkeypatch, own_cache):
    counts = renders(monkeypatch)
    load_world("gate", **SMALL)
    for changed in (
        dict(seed=1),
        dict(boxes="detected"),
        dict(size=(32, 20)),
        dict(people=2),
        dict(name="plaza"),
        dict(split="test"),
        dict(split="settle"),
    ):
        load_world(**(dict(name="gate") | SMALL | changed))
    load_world("gate", boxes="labelled", **SMALL)  # gate's own kind of boxes
    assert len(counts) == 8 == len(list(own_cache.iterdir()))
    for changed, rendered in (("world.gate", 9), ("world.people", 10), ("world.city", 10)):
        monkeypatch.setitem(versions.VERSIONS, changed, versions.VERSIONS[changed] + 1)
        load_world("gate", **SMALL)
        assert len(counts) == rendered


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40], lambda data: b"", lambda data: b"\0" * len(data)]
)
def test_a_damaged_cache_file_is_rendered_again(damage, own_cache):
    whole = load_world("gate", **SMALL).images.clone()
    (file,) = own_cache.iterdir()
    data = file.read_bytes()
    file.write_bytes(damage(data))
    assert torch.equal(load_world("gate", **SMALL).images, whole) and file.read_bytes() == data


def test_a_killed_process_leaves_no_half_file(tmp_path, own_cache):
    code = (
        "import time\nfrom scalable_arch.data import load_world, prepared\n"
        "def slow(file, images):\n    file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
        "prepared.write_array = slow\nload_world('gate', people=3, size=(32, 16))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list(own_cache.glob("*.npy"))
    images = load_world("gate", **SMALL).images
    assert read_array(next(own_cache.glob("*.npy")), images.shape, np.uint8) is not None


def test_two_processes_at_once_both_get_the_pixels(own_cache):
    code = (
        "import hashlib\nfrom scalable_arch.data import load_world\n"
        "print(hashlib.sha256(load_world('gate', people=3, size=(32, 16)).images.numpy()).hexdigest())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in running}) == 1 and not any(
        process.returncode for process in running
    )
    assert [file.suffix for file in own_cache.iterdir()] == [".npy"]


def test_a_full_disk_costs_the_time_but_not_the_result(monkeypatch, own_cache):
    def full(file, images):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared, "write_array", full)
    with pytest.warns(UserWarning, match="rendered again.*No space left on device.*SCALABLE_ARCH_CACHE") as caught:
        images = load_world("gate", **SMALL).images
        load_world("city", **SMALL)
    assert images.float().std() > 10 and not list(own_cache.iterdir()) and len(caught) == 1


def test_a_file_size_limit_costs_one_warning_and_no_half_file(own_cache):
    """The kernel itself ends the write, as it does on a full disk."""
    code = (
        "import resource, warnings\nfrom scalable_arch.data import load_scenes, load_segmentation, load_world\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    load_world('gate', people=3, size=(32, 16))\n"
        "    load_scenes(people=2, scenes=2, cameras=1, size=(64, 80))\n"
        "    load_segmentation(people=2, scenes=2, cameras=1, size=(64, 80))\n"
        "told = [str(one.message) for one in told if 'compiled loops' not in str(one.message)]\n"
        "print(len(told), told[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 what is rendered is not kept and will be rendered again next time")
    assert "File too large" in done.stdout and "SCALABLE_ARCH_CACHE" in done.stdout
    assert all(file.stat().st_size <= 4096 and file.suffix == ".npy" for file in own_cache.iterdir())


def test_without_a_home_everything_works_uncached(monkeypatch):
    for name in ("SCALABLE_ARCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    prepared.warn_once.cache_clear()
    with pytest.warns(UserWarning, match="no home folder.*set SCALABLE_ARCH_CACHE") as caught:
        first = load_world("gate", **SMALL).images
        assert torch.equal(first, load_world("gate", **SMALL).images)
        load_scenes(people=2, scenes=2, cameras=1, size=(64, 80))
        load_segmentation(people=2, scenes=2, cameras=1, size=(64, 80))
    assert sum("rendered again" in str(one.message) for one in caught) == 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([np.uint8, np.float32, np.int64]))
def test_arrays_come_back_as_numpy_writes_them(tmp_path_factory, shape, dtype):
    folder = tmp_path_factory.mktemp("arrays")
    array = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    for number, given_array in enumerate((array, array.T)):
        path = folder / f"{number}.npy"
        with open(path, "wb") as file:
            prepared.write_array(file, given_array)
        found = read_array(path, [None] * len(shape), dtype) if array.size else np.load(path)
        assert np.array_equal(found, given_array) and np.array_equal(np.load(path), given_array)
        assert read_array(path, [length + 1 for length in given_array.shape], dtype) is None
        assert read_array(path, [None] * (len(shape) + 1), dtype) is None
        assert read_array(path, given_array.shape, np.float64) is None


# ---- mistakes


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(name="plazza"), "did you mean 'plaza'"),
        (dict(split="val"), "unknown split 'val'"),
        (dict(boxes="junk"), "detected, labelled"),
        (dict(people=1), "people must be a whole number from 2"),
        (dict(people=2.5), "people"),
        (dict(people=20000), "people"),
        (dict(size=64), "size must be"),
        (dict(size=(64, 4)), "size must be"),
        (dict(size=(64.0, 32)), "size must be"),
        (dict(workers=0), "workers"),
    ],
)
def test_a_mistake_gets_one_sentence(changes, sentence, own_cache):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_world(**(dict(name="plaza") | SMALL | changes))
    assert "\n" not in str(caught.value) and not own_cache.exists()


# ---- characters


def misalignment(name, kind):
    """Mean distance of a box's edges from the exact ones, in heights of the person."""
    exact, errors = (100.0, 100.0, 150.0, 230.0), []
    for number, camera in enumerate(cameras(name, "train")):
        boxes = [draw_box(stream(0, SHOT, number, k), exact, camera.boxes, kind) for k in range(20)]
        errors += [np.abs(np.subtract(box, exact))[[1, 3]].mean() / 130 for box in boxes]
    return np.mean(errors)


def test_detected_boxes_are_less_aligned_and_most_so_at_the_gate():
    assert all(misalignment(name, "detected") > 1.5 * misalignment(name, "labelled") for name in list_worlds())
    assert misalignment("gate", "detected") > misalignment("plaza", "detected") > misalignment("city", "detected")


def exposures(name):
    """What multiplies the light in each training picture: the camera's exposure and that of the visit."""
    plan, render_seed = plan_world(name, "train", people=20)
    places, crowd = WORLDS[name].places, WORLDS[name].crowd
    shots = [(make_camera(shot.camid, render_seed, places[shot.camid % len(places)]), shot) for shot in plan]
    return [
        camera.tone["exposure"]
        * make_visit(make_person(shot.pid, render_seed, crowd), camera, shot.visit, render_seed).exposure
        for camera, shot in shots
    ]


def test_campus_varies_most_in_resolution_and_city_in_light():
    tall = {
        name: [1.7 * camera.scale(row) for camera in cameras(name, "train") for row in camera.rows]
        for name in list_worlds()
    }
    spread = {name: np.std(np.log(heights)) for name, heights in tall.items()}
    assert max(spread, key=spread.get) == "campus" and np.median(tall["plaza"]) > 1.3 * np.median(tall["campus"])
    light = {name: np.std(np.log(exposures(name))) for name in list_worlds()}
    assert max(light, key=light.get) == "city" and light["city"] > 1.5 * light["plaza"]


def test_crowds_dress_for_their_weather():
    people = {name: [make_person(pid, 5, WORLDS[name].crowd) for pid in range(300)] for name in list_worlds()}
    coats = {name: np.mean([person.outer is not None for person in crowd]) for name, crowd in people.items()}
    bare = {
        name: np.mean([person.legs.kind in ("shorts", "skirt", "dress") for person in crowd])
        for name, crowd in people.items()
    }
    assert coats["campus"] > coats["city"] > coats["plaza"] and bare["plaza"] > 2 * bare["campus"]


def test_a_fifth_of_the_citys_cameras_hang_indoors():
    indoors = [camera.light.shadow == 0 and camera.place == standins.HALL for camera in cameras("city", "test")]
    assert sum(indoors) == 3


def test_cross_view_pairs_show_one_person_from_two_cameras(monkeypatch):
    plans = []
    monkeypatch.setattr(
        standins, "render_shots", lambda plan, **options: plans.append(plan) or render_shots(plan, **options)
    )
    pairs = cross_view_pairs("gate", 5, size=(64, 32))
    assert pairs.shape == (5, 2, 64, 32, 3) and pairs.dtype == np.uint8
    shots = plans[0]
    assert (
        all(a.pid == b.pid and a.camid != b.camid for a, b in zip(shots[::2], shots[1::2]))
        and len({shot.pid for shot in shots}) == 5
    )
    assert np.array_equal(pairs, cross_view_pairs("gate", 5, size=(64, 32)))
