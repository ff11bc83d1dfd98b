"""Whole scenes: boxes are those of the painted pixels, shares are counted, sets are dealt fairly, the cache never
lies, real frames have honest galleries."""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scalable_arch import versions
from scalable_arch.data import load_scenes, render_scene, scenes
from scalable_arch.data.camera import make_camera
from scalable_arch.data.painter import paint_parts
from scalable_arch.data.person import FOLDS, Garment, linear, make_person, stream
from scalable_arch.data.scenes import (
    APART,
    SEEN,
    SQUARE,
    Layer,
    SceneSet,
    Standing,
    box_of,
    choose_queries,
    draw_galleries,
    draw_spot,
    empty_place,
    ground_of,
    layer_of,
    load_vtest_scenes,
    moment_of,
    plan_scenes,
    stand_person,
    visible_shares,
    vtest_gallery,
    vtest_queries,
    window_of,
)
from scalable_arch.data.vtest import read_tracks

SIZE = (96, 128)
SMALL = dict(people=5, scenes=12, cameras=3, size=SIZE)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "worlds"


def figure(pid, camid, spot, size=SIZE, seed=3, hat=None):
    """(placed, light, window) of a person at a spot (shares of the frame's free width and of the walking zone)."""
    camera, window = make_camera(camid, seed, SQUARE), window_of(size)
    person = make_person(pid, seed)
    person = person if hat is None else person.replace(hat=hat)
    row = camera.rows[0] + spot[1] * (camera.rows[1] - camera.rows[0])
    x = window.left + spot[0] * (720 - 2 * window.left)
    return stand_person(person, camera, 0, (x, row), window, seed), moment_of(camera, 0, seed)[0], window


def painted(placed, light, shape):
    """Slow reference: mask and light of a figure on a canvas, from two paintings, on black and on white."""
    pictures = []
    for ground in (0.0, 1.0):
        canvas = np.full((*shape, 3), ground, np.float32)
        paint_parts(
            canvas,
            placed.rows,
            placed.parts,
            placed.materials,
            light.on_screen(placed.pitch),
            FOLDS,
            np.array(placed.box),
            placed.foot[1],
            placed.scale,
        )
        pictures.append(canvas)
    return 1 - (pictures[1] - pictures[0])[..., 0], pictures[0]


# ---- exact boxes


@settings(max_examples=25, deadline=None)
@given(pid=st.integers(0, 5000), camid=st.integers(1, 40), x=st.floats(-0.05, 1.05), y=st.floats(0, 1))
def test_layer_and_box_are_the_painted_pixels(pid, camid, x, y):
    placed, light, window = figure(pid, camid, (x, y))
    layer, shape = layer_of(placed, light), (window.height, window.width)
    cover, shown = painted(placed, light, shape)
    where, part = scenes.inside(layer, shape)
    assert np.abs(layer.cover[part] - cover[where]).max(initial=0) < 1e-4
    outside = cover.copy()
    outside[where] = 0
    assert outside.max() == 0
    np.testing.assert_allclose(layer.light[part], shown[where], atol=2e-5)
    rows, columns = np.nonzero(cover > 0.25)
    box = box_of(layer, window)
    if len(rows):
        assert box.tolist() == [columns.min() / 2, rows.min() / 2, (columns.max() + 1) / 2, (rows.max() + 1) / 2]
    else:
        assert box is None


def test_box_of_a_brimmed_hat_ends_at_its_pixels_and_so_does_the_painters_bound():
    hat = Garment("brim", (linear((60, 60, 60)), linear((60, 60, 60))))
    placed, light, window = figure(7, 4, (0.5, 0.9), size=(800, 1066), hat=hat)
    box = box_of(layer_of(placed, light), window)
    cover, _ = painted(placed, light, (window.height, window.width))
    assert box[1] == np.flatnonzero((cover > 0.25).any(1))[0] == pytest.approx(placed.box[1], abs=1)


def test_every_box_of_a_scene_is_inside_and_as_tall_as_its_camera_says():
    for camid in range(1, 7):
        camera, window = make_camera(camid, 5, SQUARE), window_of((192, 256))
        scene = render_scene([1, 2, 3, 4, -1], camid, 0, seed=5)
        x1, y1, x2, y2 = scene.boxes.T
        assert (
            (x1 >= 0).all()
            and (y1 >= 0).all()
            and (x2 <= 256).all()
            and (y2 <= 192).all()
            and (x2 > x1).all()
            and (y2 > y1).all()
        )
        for (x1, y1, x2, y2), pid in zip(scene.boxes, scene.pids):
            if pid >= 0 and 2 < x1 and x2 < 254 and y1 > 1 and y2 < 191:
                row = y2 * 2 / window.zoom + window.top
                expected = make_person(int(pid), 5).height * camera.scale(row) * window.zoom / 2
                assert 0.75 * expected < y2 - y1 < 1.25 * expected


def test_who_is_far_is_small():
    camera = make_camera(2, 3, SQUARE)
    near, far = (box_of(layer_of(*figure(11, 2, (0.5, y))[:2]), window_of(SIZE)) for y in (1.0, 0.0))
    ratio = (near[3] - near[1]) / (far[3] - far[1])
    assert ratio == pytest.approx(camera.scale(camera.rows[1]) / camera.scale(camera.rows[0]), rel=0.12) and ratio > 1.5


# ---- hiding one another


def test_visible_share_is_what_nobody_nearer_covers():
    camera, window, seed = make_camera(6, 3, SQUARE), window_of(SIZE), 3
    light, shape = moment_of(camera, 0, seed)[0], (window.height, window.width)
    rng = np.random.default_rng(0)
    spots = [
        (window.left + rng.uniform(0.3, 0.6) * (720 - 2 * window.left), rng.uniform(*camera.rows)) for _ in range(5)
    ]
    people = []
    for number, spot in enumerate(spots):
        placed = stand_person(make_person(number, seed), camera, 0, spot, window, seed)
        people.append(Standing(number, spot[1], placed, layer_of(placed, light)))
    _, things = empty_place(6, seed, SIZE)
    shares, masks = visible_shares(people, things, shape), []
    for row, layer in [(one.row, one.layer) for one in people] + things:
        mask = np.zeros(shape, bool)
        for (y, x), value in np.ndenumerate(layer.cover):
            if value > 0 and 0 <= y + layer.top < shape[0] and 0 <= x + layer.left < shape[1]:
                mask[y + layer.top, x + layer.left] = True
        masks.append((row, mask))
    for number, (row, mask) in enumerate(masks[:5]):
        nearer = np.zeros(shape, bool)
        for other, (other_row, other_mask) in enumerate(masks):
            if other_row > row and other != number:
                nearer |= other_mask
        assert shares[number] == pytest.approx(
            (mask & ~nearer).sum() / (people[number].layer.cover > 0).sum(), abs=1e-6
        )
    assert shares.min() < 0.9


def test_the_nearer_figure_is_painted_over_the_farther():
    black, white = (
        Layer(0, 0, np.full((4, 4, 3), value, np.float32), np.ones((4, 4), np.float32)) for value in (0.0, 1.0)
    )
    camera = make_camera(1, 3, SQUARE)
    people = []
    canvas = scenes.compose_scene(
        people, [(10.0, white), (5.0, black)], np.full((6, 6, 3), 0.5, np.float32), camera.light
    )
    assert (canvas[:4, :4] == 1).all() and (canvas[4:] == 0.5).all()
    half = Layer(0, 0, np.full((4, 4, 3), 0.25, np.float32), np.full((4, 4), 0.5, np.float32))
    canvas = scenes.compose_scene(people, [(10.0, half), (5.0, white)], np.zeros((6, 6, 3), np.float32), camera.light)
    assert (canvas[:4, :4] == 0.75).all()


def test_everybody_in_a_scene_can_be_seen_and_stands_apart():
    seen = [
        render_scene([1, 2, 3, 4, 5, -1, -1, -1], camid, number, size=SIZE, seed=9)
        for camid in (1, 2, 3)
        for number in range(3)
    ]
    assert all(
        (scene.visible >= SEEN).all() and len(scene.boxes) == len(scene.pids) == len(scene.visible) for scene in seen
    )
    assert min(scene.visible.min() for scene in seen) < 0.7 < np.mean(np.concatenate([scene.visible for scene in seen]))
    assert all(len(set(scene.pids[scene.pids > 0])) == (scene.pids > 0).sum() for scene in seen)
    camera, window, spots = make_camera(3, 9, SQUARE), window_of(SIZE), []
    for _ in range(6):
        spots.append(draw_spot(stream(9, 3, len(spots)), camera, window, spots))
    ground = [ground_of(camera, *spot) for spot in spots]
    assert min(math.dist(a, b) for k, a in enumerate(ground) for b in ground[:k]) > APART


def test_who_finds_no_place_to_be_seen_is_left_out():
    crowded = render_scene([*range(1, 101)], 2, 0, size=(64, 64), seed=4)
    assert 5 < len(crowded.pids) < 100 and (crowded.visible >= SEEN).all() and set(crowded.pids) < set(range(1, 101))


def test_a_scene_may_be_empty():
    scene = render_scene([], 1, 0, size=SIZE, seed=4)
    assert scene.boxes.shape == (0, 4) and scene.pids.shape == scene.visible.shape == (0,) and scene.image.std() > 5


# ---- the same call, the same bits


def test_same_arguments_same_bits_in_another_process_too():
    code = (
        "import hashlib; from scalable_arch.data import render_scene; s = render_scene([1, 2, -1], 3, 4, size=(96, "
        "128), seed=6);"
        "print(hashlib.sha256(b''.join(part.tobytes() for part in s)).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
    render_scene([9, 8], 3, 4, size=SIZE, seed=6)
    here = render_scene([1, 2, -1], 3, 4, size=SIZE, seed=6)
    assert hashlib.sha256(b"".join(part.tobytes() for part in here)).hexdigest() == other
    for changed in (dict(number=5), dict(seed=7), dict(camid=2)):
        again = render_scene([1, 2, -1], **dict(dict(camid=3, number=4, size=SIZE, seed=6), **changed))
        assert (again.image != here.image).mean() > 0.5


def test_people_keep_their_clothes_from_camera_to_camera():
    """A person is nearer in colour to the same person in other cameras than to others, summed over many."""
    seed, crops = 2, {}
    for camid in range(1, 7):
        for pid in range(1, 13):
            placed, light, _ = figure(pid, camid, (0.5, 0.5), seed=seed)
            layer = layer_of(placed, light)
            body = layer.light[layer.cover == 1]
            crops[pid, camid] = np.concatenate(
                [np.median(part, 0) for part in np.array_split(np.sqrt(np.clip(body, 0, 1)), 3)]
            )
    hits = 0
    for pid in range(1, 13):
        nearest = min(
            (key for key in crops if key[1] != 1),
            key=lambda key: np.abs(crops[pid, 1] / crops[pid, 1].mean() - crops[key] / crops[key].mean()).sum(),
        )
        hits += nearest[0] == pid
    assert hits >= 9


@pytest.mark.parametrize("size", [(192, 256), (800, 800), (108, 192), (400, 300)])
def test_other_sizes(size):
    scene = render_scene([1, 2, 3], 1, 0, size=size, seed=5)
    assert scene.image.shape == (3, *size) and scene.image.dtype == np.uint8 and len(scene.pids) == 3
    assert (scene.boxes[:, 2] <= size[1]).all() and (scene.boxes[:, 3] <= size[0]).all()
    window = window_of(size)
    assert window.height / window.samples == size[0] and 0 <= window.left and 0 <= window.top
    assert abs((720 - 2 * window.left) / (480 - window.top) - size[1] / size[0]) < 1e-9


# ---- sets


def test_a_plan_deals_persons_evenly_and_never_twice_into_a_scene():
    plans, _ = plan_scenes("train", people=13, scenes=100, cameras=7)
    counts = np.bincount([pid for plan in plans for pid in plan.pids if pid > 0], minlength=14)[1:]
    assert counts.max() - counts.min() <= 3 and counts.min() > 20
    assert all(len({pid for pid in plan.pids if pid > 0}) == sum(pid > 0 for pid in plan.pids) for plan in plans)
    assert {plan.camid for plan in plans} == set(range(1, 8)) and len(
        {(plan.camid, plan.number) for plan in plans}
    ) == 100
    assert 4 < np.mean([len(plan.pids) for plan in plans]) < 6 and any(-1 in plan.pids for plan in plans)


def test_splits_share_neither_people_nor_cameras_nor_do_worlds_of_other_seeds():
    train, settle, test = load_scenes(**SMALL), load_scenes("settle", **SMALL), load_scenes("test", **SMALL)
    assert set(train.labels) == set(range(1, 6)) and sorted(train.labels.values()) == list(range(5))
    assert len(set(train.labels) | set(settle.scenes.labels) | set(test.scenes.labels)) == 15
    assert len(settle.queries) and settle.scenes.pixels.shape == test.scenes.pixels.shape
    draws = [
        plan_scenes(split, people=5, scenes=2, cameras=2, seed=seed)[1]
        for split in ("train", "settle", "test")
        for seed in (0, 1)
    ]
    assert len(set(draws)) == 6
    mounts = [make_camera(camid, draw, SQUARE).mount for draw in draws for camid in (1, 2, 3)]
    assert len(set(mounts)) == 18


def test_fewer_scenes_are_the_first_ones_and_fewer_people_are_the_same_people():
    whole, fewer = load_scenes(**SMALL), load_scenes(**SMALL | {"scenes": 7})
    assert torch.equal(fewer.pixels, whole.pixels[:7])
    assert all(torch.equal(a, b) for a, b in zip(fewer.boxes, whole.boxes))
    smaller = load_scenes(**SMALL | {"people": 3})
    assert set(smaller.labels) < set(whole.labels)
    assert (
        plan_scenes("train", people=3, scenes=1, cameras=1)[1] == plan_scenes("train", people=5, scenes=1, cameras=1)[1]
    )


@pytest.mark.parametrize("split", ["settle", "test"])
@pytest.mark.parametrize("protocol, cameras", [("cuhk_sysu", 20), ("prw", 6)])
def test_200_people_and_more_are_asked_for_unless_said_otherwise(protocol, cameras, split):
    counts = scenes.DEFAULTS[split] | {"cameras": cameras}
    plans, _ = plan_scenes(split, **counts)  # everybody dealt is counted: who finds no place to be seen is rare
    pids = [torch.tensor(plan.pids) for plan in plans]
    dealt = SceneSet([""] * len(pids), np.array([plan.camid for plan in plans]), [], pids, [], np.zeros((0, 2)))
    assert len(choose_queries(dealt, protocol)) >= 200


def test_a_set_is_what_its_scenes_are():
    found, (plans, seed) = load_scenes(**SMALL), plan_scenes("train", people=5, scenes=12, cameras=3)
    assert len(found) == 12 and found.image(3).shape == (3, *SIZE) and found.sizes.tolist() == [list(SIZE)] * 12
    scene = render_scene(plans[7].pids, plans[7].camid, plans[7].number, size=SIZE, seed=seed)
    assert (found.image(7).numpy() == scene.image).all() and (found.boxes[7].numpy() == scene.boxes).all()
    assert (
        found.pids[7].tolist() == scene.pids.tolist()
        and (found.visible[7].numpy() == scene.visible).all()
        and found.camids[7] == plans[7].camid
    )
    assert found.boxes[7].dtype == torch.float32 and found.pids[7].dtype == torch.int64 and len(set(found.names)) == 12


def test_queries_of_both_protocols():
    cameras = load_scenes("test", **SMALL)
    once = load_scenes("test", **SMALL, protocol="cuhk_sysu")
    for search in (cameras, once):
        pids = search.query_pids()
        assert (pids > 0).all()
        for number, (scene, _) in enumerate(search.queries):
            gallery = search.gallery(number)
            assert scene not in gallery and len(gallery) == 11
            assert any((search.scenes.pids[other] == pids[number]).any() for other in gallery)
    assert (
        sorted(once.query_pids()) == sorted(once.scenes.labels)
        and once.galleries is None
        and once.protocol == "cuhk_sysu"
    )
    pairs = {
        (pid, camid)
        for pids, camid in zip(cameras.scenes.pids, cameras.scenes.camids)
        for pid in pids.tolist()
        if pid > 0
    }
    asked = [(pid, cameras.scenes.camids[scene]) for pid, (scene, _) in zip(cameras.query_pids(), cameras.queries)]
    assert len(asked) == len(set(asked)) == len(pairs) and set(asked) == pairs and cameras.protocol == "prw"
    for pid, (scene, box) in zip(once.query_pids(), once.queries):
        best = max(
            float(share)
            for pids, shares in zip(once.scenes.pids, once.scenes.visible)
            for other, share in zip(pids, shares)
            if other == pid
        )
        assert float(once.scenes.visible[scene][box]) == best


def test_who_is_seen_once_is_no_query():
    empty = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    boxes = [torch.tensor([[0.0, 0, 2, 4], [2, 0, 4, 4]]), torch.tensor([[0.0, 0, 2, 4]])]
    found = SceneSet(
        ["a", "b"], np.array([1, 2]), boxes, [torch.tensor([3, 4]), torch.tensor([4])], empty, np.array([[8, 8]] * 2)
    )
    assert choose_queries(found, "prw").tolist() == [[0, 1], [1, 0]] and choose_queries(
        found, "cuhk_sysu"
    ).tolist() == [[0, 1]]


def test_galleries_hold_the_persons_scenes_first_and_grow():
    search = load_scenes("test", **SMALL, protocol="cuhk_sysu", gallery_size=9)
    small = draw_galleries(search.scenes, search.queries, 8)
    for number, (scene, box) in enumerate(search.queries):
        pid, gallery = search.query_pids()[number], search.gallery(number)
        has = [bool((search.scenes.pids[other] == pid).any()) for other in gallery]
        total = sum(bool((pids == pid).any()) for pids in search.scenes.pids)
        assert (
            sum(has) == total - 1
            and has == sorted(has, reverse=True)
            and len(gallery) == max(9, total - 1) == len(set(gallery.tolist()))
        )
        assert scene not in gallery and gallery[: len(small[number])].tolist() == small[number].tolist()


# ---- the cache


def test_what_was_rendered_is_not_rendered_again(monkeypatch, own_cache):
    first, calls = load_scenes(**SMALL), []
    monkeypatch.setattr(scenes, "render_scene", lambda *a, **o: calls.append(a) or render_scene(*a, **o))
    again = load_scenes(**SMALL)
    assert (
        not calls
        and torch.equal(first.pixels, again.pixels)
        and all(torch.equal(a, b) for a, b in zip(first.boxes, again.boxes))
    )
    images = next(path for path in own_cache.iterdir() if ".boxes" not in path.name)
    for damaged in (images, images.with_suffix(".boxes.npy")):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[: len(whole) // 2])
        calls.clear()
        repaired = load_scenes(**SMALL)
        assert len(calls) == 12 and torch.equal(repaired.pixels, first.pixels) and damaged.read_bytes() == whole
    load_scenes(**dict(SMALL, size=(104, 128)))
    assert len(list(own_cache.iterdir())) == 4


def test_a_cache_that_cannot_be_written_costs_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written .*set SCALABLE_ARCH_CACHE") as caught:
        assert len(load_scenes(people=2, scenes=1, cameras=1, size=SIZE)) == 1
    assert len(caught) == 1


def test_a_raised_version_paints_anew(monkeypatch, own_cache):
    load_scenes(**SMALL)
    for number, world in enumerate(("world.scenes", "world.people"), start=2):
        monkeypatch.setitem(versions.VERSIONS, world, versions.VERSIONS[world] + 1)
        load_scenes(**SMALL)
        assert len(list(own_cache.glob("scenes-*.npy"))) == 2 * number
    monkeypatch.setitem(versions.VERSIONS, "world.masks", versions.VERSIONS["world.masks"] + 1)
    load_scenes(**SMALL)
    assert len(list(own_cache.glob("scenes-*.npy"))) == 6


# ---- mistakes


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (dict(split="tests"), "unknown split 'tests'.*did you mean 'test'.*train, settle, test"),
        (dict(people=1), "people must be a whole number from 2"),
        (dict(scenes=0), "scenes must be"),
        (dict(cameras=2.5), "cameras must be .* not 2.5"),
        (dict(size=(20, 30)), "size must be .* not \\(20, 30\\)"),
        (dict(size=192), "size must be"),
        (dict(split="test", protocol="cuhk"), "unknown protocol 'cuhk'"),
        (dict(split="test", protocol="cuhk_sysu", gallery_size=0), "gallery_size must be"),
        (dict(split="test", gallery_size=10), "cuhk_sysu' alone: leave 10 out for 'prw'"),
    ],
)
def test_mistakes_are_told_in_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_scenes(**wrong)
    assert "\n" not in str(caught.value)


def test_a_missing_or_damaged_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "c.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "grey.png")
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "grey.png")]
    none = [torch.zeros(0, 4)] * 5, [torch.zeros(0, dtype=torch.int64)] * 5
    found = SceneSet(list("abcde"), np.zeros(5, np.int64), *none, paths, np.array([[40, 30]] * 5))
    assert (
        found.image(0).shape == (3, 40, 30) == found.image(4).shape
        and found.image(0).dtype == torch.uint8
        and found.labels == {}
    )
    for index, kind in ((1, ValueError), (2, ValueError), (3, FileNotFoundError)):
        with pytest.raises(kind, match=f"{'abcd'[index]}.jpg"):
            found.image(index)


# ---- real frames


def test_the_gallery_of_a_real_query_leaves_out_its_visit_and_what_is_not_known():
    tracks, frames = read_tracks(), np.arange(5, 796, 5)
    for person, visit in (("A", 1), ("F", 3), ("G", 2)):
        gallery = set(frames[vtest_gallery(tracks, frames, person, visit)].tolist())
        own = tracks[(tracks.person == person) & (tracks.visit == visit)].frame
        others = tracks[(tracks.person == person) & (tracks.visit != visit)]
        assert not any(own.min() - 10 <= frame <= own.max() + 10 for frame in gallery)
        assert set(others.frame) & set(frames.tolist()) <= gallery
        spans = [(some.min() - 10, some.max() + 10) for _, some in others.groupby("visit").frame]
        for frame in gallery - set(others.frame):
            assert not any(low <= frame <= high for low, high in spans)


def test_real_queries_are_of_people_who_come_back_and_spread_over_each_visit():
    tracks = read_tracks()
    boxes = tracks[tracks.frame % 5 == 0].sort_values(["frame", "track"]).reset_index(drop=True)
    chosen = vtest_queries(boxes, {frame: frame for frame in boxes.frame}, 4)
    assert {row[2] for row in chosen} == set("ABCDEFG") and len(chosen) == 16 * 4
    for frame, number, person, visit in chosen:
        row = boxes[boxes.frame == frame].iloc[number]
        assert (row.person, row.visit) == (person, visit)
    assert len({row[0] for row in chosen if row[2:] == ("F", 4)}) == 4


def test_frames_become_scenes(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "flat.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (768, 576))
    for number in range(795):
        writer.write(np.full((576, 768, 3), number // 4, np.uint8))
    writer.release()
    search = load_vtest_scenes(path, every=100, size=(288, 384), queries_per_visit=1)
    assert search.scenes.names == [
        f"frame {number}" for number in range(100, 800, 100)
    ] and search.scenes.pixels.shape == (7, 3, 288, 384)
    assert [int(search.scenes.image(k).float().mean().round()) for k in range(7)] == pytest.approx(
        [(99 + 100 * k) // 4 for k in range(7)], abs=2
    )
    tracks = read_tracks()
    rows = tracks[tracks.frame == 500].sort_values("track")
    k = search.scenes.names.index("frame 500")
    np.testing.assert_allclose(
        search.scenes.boxes[k].numpy(),
        np.column_stack([rows.x, rows.y, rows.x + rows.w, rows.y + rows.h]) / 2,
        rtol=1e-5,
    )
    assert (
        search.scenes.pids[k].tolist() == [-1 if letter == "?" else ord(letter) - 64 for letter in rows.person]
        and -1 in search.scenes.pids[k]
    )
    assert (search.query_pids() > 0).all() and len(search.galleries) == len(search.queries)
    for wrong in (dict(every=0), dict(queries_per_visit=0), dict(every=900), dict(size=(10, 10))):
        with pytest.raises(ValueError, match="every must be|size must be"):
            load_vtest_scenes(path, **wrong)
    with pytest.raises(FileNotFoundError, match="data get vtest"):
        load_vtest_scenes(tmp_path / "none.avi")
