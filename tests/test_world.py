"""The simulated world: what is promised of persons, cameras, the painter, crops and rendered data sets."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from scalable_arch.data import check_dataset, load_dataset, render
from scalable_arch.data.camera import CLOUDS, FRAME, LINEAR, blur, cut_out, make_camera, sample_tile
from scalable_arch.data.figure import Pose, cone, material, pose_joints
from scalable_arch.data.painter import Light, draw_person, paint_parts, place, project_parts
from scalable_arch.data.person import FOLDS, SHOT, TWIN_ATTRIBUTES, display, linear, make_person, stream
from scalable_arch.data.render import (
    DATASET_CAMERAS,
    Shot,
    draw_box,
    inside_frame,
    make_visit,
    plan_dataset,
    render_crop,
    render_crops,
    render_dataset,
    split_query,
    stand,
)

SMALL = dict(num_train_ids=3, num_test_ids=2, num_cameras=4, shots=2)


def same(first, second):
    """Equality of two persons, garments and arrays included."""
    if hasattr(first, "__dataclass_fields__"):
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__
        )
    if isinstance(first, tuple):
        return isinstance(second, tuple) and len(first) == len(second) and all(map(same, first, second))
    return bool(np.all(first == second))


def overlap(a, b):
    """Intersection over union of two boxes, the obvious way."""
    wide, tall = max(0, min(a[2], b[2]) - max(a[0], b[0])), max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return wide * tall / (area(a) + area(b) - wide * tall)


# ---- persons and motion


def test_a_person_is_a_function_of_seed_and_pid():
    fresh = make_person.__wrapped__
    assert all(same(fresh(pid, 4), fresh(pid, 4)) for pid in range(20))
    assert not any(same(fresh(pid, 4), fresh(pid, 5)) or same(fresh(pid, 4), fresh(pid + 1, 4)) for pid in range(20))


def test_near_twins_exist_and_differ_in_one_or_two_attributes():
    changes = []
    for pid in range(1, 400):
        one, two = make_person(pid - 1), make_person(pid)
        differing = [name for name in TWIN_ATTRIBUTES if not same(getattr(one, name), getattr(two, name))]
        if same(one.hair_style, two.hair_style) and len(differing) <= 2:
            changes.append(len(differing))
    assert 30 < len(changes) < 110 and max(changes) <= 2


def test_wardrobes_are_mostly_dark_or_neutral():
    colours = np.array(
        [display((make_person(pid).outer or make_person(pid).top).colours[0]) for pid in range(400)], float
    )
    neutral = np.ptp(colours, axis=1) < 40
    assert np.mean(neutral | (colours.mean(1) < 70)) > 0.6


@given(phase=st.floats(0, 7), stride=st.floats(0, 0.6), height=st.floats(1.4, 2.0))
def test_bones_keep_their_length_and_one_foot_is_on_the_ground(phase, stride, height):
    joints = pose_joints(Pose(phase=phase, stride=stride), height)
    for start in (0, 4):
        assert math.dist(joints[start], joints[start + 1]) == pytest.approx(0.245 * height, abs=0.01)
        assert math.dist(joints[start + 1], joints[start + 2]) == pytest.approx(0.24 * height, abs=0.01)
    assert min(joints[[2, 3, 6, 7], 2]) == pytest.approx(0.022 * height)


# ---- painter


@settings(deadline=None)
@given(
    pid=st.integers(0, 5000),
    yaw=st.floats(0, 6.3),
    pitch=st.floats(0, 0.7),
    phase=st.floats(0, 6.3),
    scale=st.floats(25, 250),
)
@example(pid=156, yaw=0.0, pitch=0.0, phase=0.0, scale=90.0)  # a brimmed hat
def test_the_box_is_that_of_the_painted_pixels(pid, yaw, pitch, phase, scale):
    light = Light(sun=(0.3, 0.3, 0.3), sky=(0.5, 0.5, 0.5))
    placed = place(make_person(pid), Pose(phase=phase), foot=(300.3, 615.6), scale=scale, yaw=yaw, pitch=pitch)
    ground, canvas = 7.0, np.full((760, 600, 3), 7.0, np.float32)  # brighter than anything painted
    paint_parts(
        canvas,
        placed.rows,
        placed.parts,
        placed.materials,
        light.on_screen(pitch),
        FOLDS,
        np.array((0.0, 0.0, 600.0, 760.0)),  # wherever a cone may reach
        placed.foot[1],
        scale,
    )
    rows, columns = np.nonzero((canvas < ground).any(2))
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(found, placed.box)).max() < 1


def test_a_cone_without_length_is_a_disc_and_the_nearer_one_hides_the_other():
    table = np.array([material((0.2, 0.2, 0.2), folds=0), material((0.9, 0.1, 0.1), folds=0)], np.float32)
    light = np.array([0, 0, 1, 0, 0, 0, 1, 1, 1], np.float32)
    discs = {}
    for order in ((0, 1), (1, 0)):
        parts = np.array(
            [
                cone((0, depth, 1), (0, depth, 1), radius, material=number)
                for number, depth, radius in [((0, 0.0, 0.5), (1, -0.6, 0.25))[k] for k in order]
            ],
            np.float32,
        )
        canvas = np.zeros((100, 100, 3), np.float32)
        rows = project_parts(parts, 50.0, 90.0, 40.0, 0.0, 0.0, 0.0, 0.0, False)
        paint_parts(
            canvas,
            rows,
            parts,
            table,
            light,
            np.zeros((256, 256), np.float32),
            np.array((30, 30, 70, 70.0)),
            90.0,
            40.0,
        )
        discs[order] = canvas
    assert np.array_equal(discs[0, 1], discs[1, 0])
    assert (canvas.sum(2) > 0).sum() == pytest.approx(math.pi * 20**2, rel=0.06)
    assert canvas[50, 50, 0] > 5 * canvas[50, 50, 1]  # the small red one is in front


def test_turning_round_shows_the_back():
    person = next(
        make_person(pid) for pid in range(500) if make_person(pid).bag and make_person(pid).bag.kind == "backpack"
    )
    views = []
    for yaw in (0.0, 2 * math.pi, math.pi):
        canvas = np.full((200, 120, 3), 0.3, np.float32)
        draw_person(canvas, person, Pose(stride=0.0), foot=(60, 190), scale=95, yaw=yaw)
        views.append(canvas)
    assert np.abs(views[0] - views[1]).max() < 0.2 < np.abs(views[0] - views[2]).max()


# ---- cameras, against slow references


def test_blur_is_a_gaussian():
    image = np.random.default_rng(0).random((30, 20, 3)).astype(np.float32)
    for sigma_x, sigma_y in ((1.3, 0.6), (0.0, 1.0), (0.0, 0.0)):
        slow = ndimage.gaussian_filter(image, (sigma_y, sigma_x, 0), mode="nearest", truncate=3.0)
        assert np.abs(blur(image, sigma_x, sigma_y) - slow).max() < 0.02


def test_cut_out_repeats_the_border():
    scene = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    slow = LINEAR[np.pad(scene, ((5, 5), (5, 5), (0, 0)), mode="edge")]
    assert np.array_equal(cut_out(scene, -4, -3, 14, 13, LINEAR), slow[2:16, 1:14])


def test_sample_tile_interpolates_and_repeats():
    points = np.random.default_rng(0).uniform(-300, 600, (2, 4, 50))
    slow = ndimage.map_coordinates(CLOUDS, points[::-1] % 256, order=1, mode="grid-wrap")
    assert np.allclose(sample_tile(CLOUDS, points[0], points[1]), slow, atol=1e-4)


def test_people_get_smaller_with_distance_as_under_a_pinhole():
    for camid in range(40):
        camera = make_camera(camid)
        near, far = camera.rows[1], camera.rows[0]
        assert 0 < camera.scale(far) < camera.scale(near) and near < FRAME[0]
        assert 30 < 1.7 * camera.scale((near + far) / 2) < 200
        assert -0.01 < camera.pitch(near) < 1.0


def test_casts_are_mild_and_cameras_differ():
    casts = np.array([make_camera(camid).tone["cast"] for camid in range(200)])
    assert casts.std(0).max() < 0.09 and 0.02 < casts.std(0).max()
    assert len({make_camera(camid).optics["quality"] for camid in range(200)}) > 20


def test_display_inverts_linear():
    values = np.arange(256)
    assert np.array_equal(display(linear(values)), values)


# ---- crops


@given(left=st.floats(-900, 1500), top=st.floats(-900, 1500), width=st.floats(1, 900), height=st.floats(1, 900))
def test_boxes_end_inside_the_frame(left, top, width, height):
    x0, y0, x1, y1 = inside_frame((left, top, left + width, top + height))
    assert 0 <= x0 < x1 <= FRAME[1] and 0 <= y0 < y1 <= FRAME[0] and x1 - x0 >= 10 and y1 - y0 >= 24


def test_hand_boxes_are_tighter_than_detections_and_junk_is_beside():
    exact, means = (100.0, 100.0, 150.0, 230.0), {}
    for kind in ("labelled", "detected", "junk"):
        boxes = [draw_box(stream(0, SHOT, k), exact, make_camera(k).boxes, kind) for k in range(300)]
        means[kind] = np.mean([overlap(exact, box) for box in boxes])
    assert means["labelled"] > 0.85 > means["detected"] > 0.6 > 0.45 > means["junk"]


def test_shots_of_one_visit_resemble_each_other():
    person, camera = make_person(3), make_camera(2)
    for number in range(6):
        visit = make_visit(person, camera, number)
        yaws = [stand(person, camera, visit, shot, stream(0, SHOT, shot)).yaw for shot in range(4)]
        assert np.ptp(yaws) < 1.3
    assert np.std([make_visit(person, camera, number).yaw for number in range(30)]) > 0.5


def test_pixels_do_not_depend_on_order_threads_or_what_else_is_rendered():
    whole = render_crops(range(1, 5), [1, 2, 5], shots=2, size=(64, 32))
    again = render_crops(range(1, 5), [5, 2, 1], shots=2, size=(64, 32), workers=3)
    assert whole.images.dtype == np.uint8 and whole.images.shape == (24, 64, 32, 3)
    assert all(np.array_equal(a, b) for a, b in zip(whole, again))
    one = render_crops([3], [2], shots=2, size=(64, 32))
    with pytest.raises(ValueError, match="cameras must be a list, a range or the like, .* not a generator"):
        render_crops([3], (camera for camera in (1, 2)))
    assert np.array_equal(one.images, whole.images[(whole.pids == 3) & (whole.camids == 2)])
    other = render_crops(range(1, 5), [1, 2, 5], shots=2, size=(64, 32), seed=1)
    assert all(not np.array_equal(a, b) for a, b in zip(whole.images, other.images))
    assert len({image.tobytes() for image in whole.images}) == 24


def test_pixels_are_the_same_in_another_process():
    code = "import hashlib; from scalable_arch.data import render_crops\n"
    code += "images = render_crops([2], [3, 4], shots=2).images"
    code += "; print(hashlib.sha256(images).hexdigest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import hashlib

    assert done.stdout.strip() == hashlib.sha256(render_crops([2], [3, 4], shots=2).images).hexdigest()


def test_cameras_per_id_limits_who_sees_whom():
    crops = render_crops(range(1, 7), range(1, 9), shots=1, cameras_per_id=3, size=(32, 16))
    seen = {pid: set(crops.camids[crops.pids == pid]) for pid in range(1, 7)}
    assert all(len(cameras) == 3 for cameras in seen.values()) and len(set(map(frozenset, seen.values()))) > 1


def test_natural_size_and_kinds():
    sizes = {
        render_crop(Shot(k, 1 + k % 3, kind=kind), size=None).size
        for k in range(6)
        for kind in ("detected", "labelled", "junk", "distractor")
    }
    assert len(sizes) > 10
    assert render_crop(Shot(1, 1, kind="labelled")).tobytes() != render_crop(Shot(1, 1)).tobytes()


def test_split_query_takes_one_image_of_each_person_and_camera():
    pids, camids = np.repeat([5, 5, 8], 3), np.array([1, 1, 1, 2, 2, 2, 1, 1, 1])
    assert split_query(pids, camids).tolist() == [True, False, False] * 3


# ---- data sets


@pytest.mark.parametrize("name", DATASET_CAMERAS)
def test_the_readers_read_what_was_rendered(name, tmp_path):
    out = tmp_path / "copy"
    world = render_dataset(name, out, **SMALL)
    for boxes in ("labelled", "detected") if name == "cuhk03" else (None,):
        data, checked = load_dataset(name, out, boxes=boxes), check_dataset(name, out, boxes=boxes, decode=True)
        assert checked.ok and checked.source == "rendered"
        views = 2 if name == "cuhk03" else 4
        assert (len(data.train), len(data.query), len(data.gallery)) == (3 * views * 2, 2 * views, 2 * views)
        if not name.startswith("msmt17"):  # MSMT17 numbers its test persons from 0 again
            assert not {sample.pid for sample in data.train} & {sample.pid for sample in data.query + data.gallery}
    assert json.loads((out / "world.json").read_text()) == json.loads(json.dumps(world))
    next(out.rglob("*.jpg" if name != "cuhk03" else "detected/*/*.png")).unlink()
    assert not check_dataset(name, out, boxes="detected" if name == "cuhk03" else None).ok


def test_distractors_junk_and_unseen_cameras(tmp_path):
    render_dataset("market1501", tmp_path / "m", **SMALL, num_distractors=5, num_junk=3, unseen_cameras=True)
    data = load_dataset("market1501", tmp_path / "m")
    pids = [sample.pid for sample in data.gallery]
    assert pids.count(0) == 5 and pids.count(-1) == 3
    assert {sample.camid for sample in data.train} == {1, 2, 3, 4}
    assert {sample.camid for sample in data.query + data.gallery} == {5, 6, 7, 8}


@given(
    ids=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    name=st.sampled_from(list(DATASET_CAMERAS)),
    unseen=st.booleans(),
    per_id=st.sampled_from([None, 2, 3]),
    shots=st.integers(2, 9),
)
def test_every_plan_has_distinct_files_and_disjoint_persons(ids, name, unseen, per_id, shots):
    entries = plan_dataset(
        name, num_train_ids=ids[0], num_test_ids=ids[1], shots=shots, cameras_per_id=per_id, unseen_cameras=unseen
    )
    assert len({entry.path for entry in entries}) == len(entries)
    train = [entry for entry in entries if entry.split in ("train", "val")]
    test = [entry for entry in entries if entry.split in ("query", "gallery")]
    assert not {entry.shot.pid for entry in train} & {entry.shot.pid for entry in test}
    if unseen:
        assert not {entry.shot.camid for entry in train} & {entry.shot.camid for entry in test}


def test_same_arguments_same_bytes_whatever_the_threads(tmp_path):
    for folder, workers in (("a", 1), ("b", 4)):
        render_dataset("dukemtmc", tmp_path / folder, **SMALL, workers=workers)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 41
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)


def test_a_data_set_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write, done = render.write_entry, []

    def full_disk(entry, *args):
        done.append(entry)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        write(entry, *args)

    monkeypatch.setattr(render, "write_entry", full_disk)
    with pytest.raises(OSError, match="No space left"):
        render_dataset("market1501", tmp_path / "out", **SMALL)
    assert len(done) == 5 and list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(FileExistsError, match="not empty"):
        render_dataset("market1501", tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    render_dataset("market1501", tmp_path / "empty", **SMALL)
    assert (tmp_path / "empty" / "world.json").is_file()


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(name="market"), "did you mean 'market1501'"),
        (dict(num_train_ids=0), "num_train_ids must be a whole number of at least 1, not 0"),
        (dict(shots=1), "shots must be at least 2"),
        (dict(num_cameras=1), "num_cameras must be at least 2"),
        (dict(name="cuhk03", num_cameras=5), "even"),
        (dict(name="msmt17", num_junk=2), "msmt17 has no distractors"),
        (dict(num_test_ids=2.5), "num_test_ids"),
        (dict(workers=0), "workers"),
    ],
)
def test_a_wrong_request_gets_one_sentence(changes, sentence, tmp_path):
    arguments = dict(name="market1501", out=tmp_path / "out", **SMALL) | changes
    with pytest.raises(ValueError, match=sentence) as caught:
        render_dataset(**arguments)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
