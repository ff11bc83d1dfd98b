"""Simulated vehicles: who they are, how they are built and painted, what a world of them gives, VeRi-776 on disk."""

import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from scalable_arch.cli import main
from scalable_arch.data import (
    check_dataset,
    load_dataset,
    load_images,
    load_manifest,
    load_traffic,
    make_vehicle,
    open_source,
    render_vehicle,
    render_veri,
    track_distances,
    traffic,
)
from scalable_arch.data.bodywork import PLANS, Frame, bodywork, build, with_wheels_turned
from scalable_arch.data.camera import FRAME
from scalable_arch.data.mesh import (
    FACES,
    Mesh,
    Shape,
    add_block,
    add_hull,
    add_wheel,
    decal,
    ellipse,
    nearest_triangles,
    paint_mesh,
    place_mesh,
    placed_at,
    project,
    rectangle,
    shadow_mask,
    surface,
)
from scalable_arch.data.painter import Light, pixel_loop
from scalable_arch.data.person import CLOUDS
from scalable_arch.data.render import Shot
from scalable_arch.data.sources import source_title, source_versions
from scalable_arch.data.traffic import SAMPLING, box_round, make_pass, plan_traffic, road_camera, stand_vehicle
from scalable_arch.data.vehicle import KINDS, MAKES, MARKS, make_of
from scalable_arch.metrics import evaluate

CALM = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
SMALL = dict(vehicles=3, size=(24, 32))
NO_SUN = Light((0, 0, 1), (0, 0, 0), (1, 1, 1), 0.0)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


# ---- who a vehicle is


def alike(one, other):
    "Whether two vehicles are of one make and colour."
    return one.make == other.make and np.array_equal(one.colour, other.colour)


def test_a_vehicle_is_a_function_of_seed_and_number():
    one, again = make_vehicle(7, 3), make_vehicle.__wrapped__(7, 3)
    assert repr(one) == repr(again) != repr(make_vehicle(7, 4)) and one.vid == 7


def test_all_kinds_and_a_share_of_twins_occur():
    fleet = [make_vehicle(vid, 1) for vid in range(600)]
    kinds = Counter(vehicle.make.kind for vehicle in fleet)
    assert set(kinds) == set(KINDS) and kinds.most_common(1)[0][0] == "saloon"
    twins = [(a, b) for a, b in zip(fleet, fleet[1:]) if alike(a, b)]
    assert 0.15 < len(twins) / 600 < 0.45
    changed = [sum(repr(getattr(a, name)) != repr(getattr(b, name)) for name in MARKS) for a, b in twins]
    assert np.mean(changed) < 4.5 and np.mean(np.array(changed) > 0) > 0.9  # some marks are drawn the same again


def test_makes_are_those_of_every_world():
    assert len({make_of(kind, number) for kind in KINDS for number in range(MAKES)}) == MAKES * len(KINDS)
    seen = [{make_vehicle(vid, seed).make for vid in range(1000)} for seed in (1, 2)]
    assert seen[0] == seen[1] and len(seen[0]) == MAKES * len(KINDS)


# ---- how it is built


@pytest.mark.parametrize("kind", KINDS)
def test_a_vehicle_has_its_measures_and_stands_on_its_wheels(kind):
    for number in range(MAKES):
        vehicle = make_vehicle(number, 5).replace(make=make_of(kind, number), roof="bare")
        vertices, triangles, parts, decals, starts = build(vehicle).arrays()
        assert abs(vertices[:, 2].min()) < 1e-6 and np.isfinite(vertices).all() and np.isfinite(decals).all()
        frame = Frame(vehicle)
        body = vertices[np.unique(triangles[triangles[:, 3] == 0, :3])]
        assert abs(np.ptp(body[:, 0]) - frame.width) < 0.02 and np.ptp(vertices[:, 0]) < frame.width + 0.7
        assert frame.height - 0.06 < body[:, 2].max() < frame.height + 0.06
        assert 0 <= np.ptp(vertices[:, 1]) - frame.overall < 0.3 and abs(vertices[:, 1].mean()) < 0.2 * frame.overall
        assert triangles[:, :3].max() < len(vertices) and len(starts) == 5 * len(parts) + 1
        length, width, height = PLANS[kind].size
        assert 0.9 < frame.width / width < 1.1 and 0.9 < frame.length / length < 1.1 and height > 1.3


def test_a_vehicle_is_the_same_on_both_sides_but_for_its_marks():
    plain = make_vehicle(3, 5).replace(stickers=(), dents=(), roof="bare", windscreen=(), load=(0, (0, 0, 0)))
    for kind in KINDS:
        vertices = build(plain.replace(make=make_of(kind, 2))).arrays()[0][:, :3]
        mirrored = vertices * (-1, 1, 1)
        near = lambda points: {tuple(np.round(point, 3) + 0.0) for point in points.astype(float)}
        assert near(vertices) == near(mirrored)


def test_normals_point_outwards_and_triangles_turn_the_same_way():
    mesh = Mesh()
    add_hull(mesh, Shape(((-1, 1), (1, 1)), 0.2, 0.6, 0.8, 1.0), mesh.add_part((1, 1, 1)))
    add_block(mesh, (0, 0, 2), (1, 1, 1), (1, 1, 1))
    for x in (-0.7, 0.7):
        add_wheel(mesh, x, 0.0, 0.3, 0.2)
    vertices, triangles, *_ = mesh.arrays()
    assert np.allclose(np.linalg.norm(vertices[:, 3:], axis=1), 1, atol=1e-5)
    middles = {0: (0, 0, 0.6), 1: (0, 0, 2), 2: (-0.6, 0, 0.3), 3: (0.6, 0, 0.3)}
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    turning = np.cross(b[:, :3] - a[:, :3], c[:, :3] - a[:, :3])
    area = np.linalg.norm(turning, axis=1)
    outwards = (a + b + c)[:, :3] / 3 - [middles[part] for part in triangles[:, 3]]
    real = area > 1e-5
    assert ((turning * outwards).sum(1)[real] > 0).all()
    smooth = (turning * (a + b + c)[:, 3:]).sum(1)[real] / area[real]
    assert (smooth > 0).mean() > 0.98


def test_wheels_turn_and_nothing_else():
    arrays = bodywork(4, 2)
    turned = with_wheels_turned(arrays, 1.5)
    wheels = arrays[2][:, 7] > 0
    assert (
        wheels.sum() == 4
        and (turned[2][wheels, -1] == 1.5).all()
        and np.array_equal(turned[2][:, :-1], arrays[2][:, :-1])
    )
    assert (arrays[2][:, -1] == 0).all() and all(a is b for k, (a, b) in enumerate(zip(arrays, turned)) if k != 2)


# ---- how it is painted

finite = st.floats(-3, 3)


@given(points=st.lists(st.tuples(finite, finite, st.floats(0, 3)), min_size=1, max_size=4), yaw=st.floats(-4, 4))
@CALM
def test_projection_is_that_of_a_pinhole(points, yaw):
    vertices = np.array([(*point, 0, 0, 1) for point in points], np.float32)
    focal, horizon, mount, middle, x, distance = 900.0, 100.0, 5.0, 360.0, 1.5, 20.0
    rows = project(
        vertices, np.array([focal, horizon, mount, middle]), np.array([x, distance, math.cos(yaw), math.sin(yaw)])
    )
    for (a, b, up), row in zip(points, rows):
        across, away = x + a * math.cos(yaw) - b * math.sin(yaw), distance + a * math.sin(yaw) + b * math.cos(yaw)
        assert np.allclose(row[:2], (middle + focal * across / away, horizon + focal * (mount - up) / away), atol=1e-2)


def test_front_faces_the_camera_at_yaw_0_and_right_at_a_quarter():
    camera = road_camera(1, 0)
    nose = np.zeros((1, 6), np.float32)
    nose[0, 1] = -2
    ahead, right = (
        place_mesh((nose, None), camera, foot=(360, camera.rows[1]), yaw=yaw).rows[0] for yaw in (0, math.pi / 2)
    )
    assert ahead[1] > camera.rows[1] and abs(ahead[0] - 360) < 0.01  # nearer, so lower in the picture
    assert right[0] > 380 and abs(right[1] - camera.rows[1]) < 0.01


@pixel_loop
def colours_of(parts, part, decals, starts, face, points, tile):
    found = np.empty((points.shape[0], 4))
    for n in range(points.shape[0]):
        found[n] = surface(parts, part, decals, starts, face, points[n, 0], points[n, 1], points[n, 2], tile)
    return found


corners = st.tuples(finite, finite, st.floats(0.1, 2), st.floats(0.1, 2))


@given(
    quads=st.lists(corners, min_size=1, max_size=5), round_ones=st.lists(corners, max_size=3), seed=st.integers(0, 99)
)
@CALM
def test_the_uppermost_decal_of_a_face_shows(quads, round_ones, seed):
    """Against a slow search from the last decal down, for each face."""
    rng = np.random.default_rng(seed)
    name = lambda: str(rng.choice(FACES[:5]))
    layers = [("quad", name(), rectangle(a, b, a + c, b + d)) for a, b, c, d in quads]
    layers += [("round", name(), ((a, b), (c, d))) for a, b, c, d in round_ones]
    colours = rng.uniform(0, 1, (len(layers), 3)).astype(np.float32)
    mesh = Mesh()
    rows = [
        decal((face,), shape, colour) if kind == "quad" else ellipse((face,), *shape, colour)
        for (kind, face, shape), colour in zip(layers, colours)
    ]
    mesh.add_part((0.5, 0.5, 0.5))  # a part before, without decals
    part = mesh.add_part((0.1, 0.2, 0.3), decals=rows)
    mesh.add_grid(np.zeros((2, 2, 3)), "top", part)
    *_, parts, decals, starts = mesh.arrays()
    points = rng.uniform(-4, 5, (25, 3))
    for number, face in enumerate(FACES[:5]):
        uv = points[:, {"left": [1, 2], "right": [1, 2], "top": [0, 1]}.get(face, [0, 2])]
        found = colours_of(parts, part, decals, starts, number, points, CLOUDS)
        for (u, v), row in zip(uv, found):
            inside = [
                n for n, (kind, where, shape) in enumerate(layers) if where == face and lies_in(kind, shape, u, v)
            ]
            expected = colours[inside[-1]] if inside else (0.1, 0.2, 0.3)
            assert np.allclose(row[:3], expected, atol=1e-6)


def lies_in(kind, shape, u, v):
    if kind == "round":
        (x, y), (a, b) = shape
        return ((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1
    (left, low), _, (right, top), _ = shape
    return left <= u <= right and low <= v <= top


def test_a_slanted_patch_covers_what_is_between_its_edges():
    mesh = Mesh()
    part = mesh.add_part((0, 0, 0), decals=[decal(("left",), ((0, 0), (2, 0), (3, 1), (1, 1)), (1, 1, 1))])
    mesh.add_grid(np.zeros((2, 2, 3)), "top", part)
    *_, parts, decals, starts = mesh.arrays()
    points = np.array([(0, y, z) for y, z in ((0.2, 0.1), (0.2, 0.5), (1.5, 0.5), (2.4, 0.5), (2.6, 0.5), (2.9, 0.95))])
    assert colours_of(parts, part, decals, starts, 0, points, CLOUDS)[:, 0].tolist() == [1, 0, 1, 1, 0, 1]


def test_the_nearest_triangle_is_found_as_by_trying_all():
    placed = place_mesh(bodywork(9, 1), road_camera(2, 0), foot=(300, road_camera(2, 0).rows[0]), yaw=0.7)
    left, top, right, low = (int(value) for value in placed.box)
    found = nearest_triangles(placed.rows, placed.arrays[1], left, top, low - top + 1, right - left + 1)
    a, b, c = (placed.rows[placed.arrays[1][:, k], :3].astype(float) for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    area[area == 0] = 1  # seen from the edge: no hit
    rng = np.random.default_rng(0)
    for iy, ix in zip(rng.integers(0, found.shape[0], 80), rng.integers(0, found.shape[1], 80)):
        x, y = ix + (0.25 if iy % 2 == 0 else 0.75) + left, (iy + 0.5) * 0.5 + top
        v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (y - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])) / area
        hit = (area < -1e-6) & (v >= 0) & (w >= 0) & (v + w <= 1)
        depth = np.where(hit, a[:, 2] + (b[:, 2] - a[:, 2]) * v + (c[:, 2] - a[:, 2]) * w, -1)
        if hit.any() or found[iy, ix] >= 0:
            assert abs(depth.max() - depth[found[iy, ix]]) < 1e-5


def test_the_box_is_exact():
    camera = road_camera(4, 0)
    for vid, yaw in ((1, 0.0), (2, 1.1), (3, 2.5)):
        placed = place_mesh(bodywork(vid, 3), camera, foot=(330, camera.rows[1]), yaw=yaw)
        canvas, (left, top, right, low) = np.full((*FRAME, 3), 0.3, np.float32), placed.box
        seen = nearest_triangles(placed.rows, placed.arrays[1], 0, 0, *FRAME) >= 0
        rows, columns = np.flatnonzero(seen.any(1)) / 2, np.flatnonzero(seen.any(0))
        painted = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 0.5])
        assert np.abs(painted - np.clip((left, top, right, low), 0, (720, 480, 720, 480))).max() < 1.6
        paint_mesh(canvas, placed, NO_SUN)
        assert np.isfinite(canvas).all() and (canvas[: int(top) - 2] == np.float32(0.3)).all()


def test_light_and_shadow():
    """Twice the light is twice as bright; the sun's shadow lies away from it, and below it is dark in any weather."""
    camera = road_camera(4, 0)
    placed = place_mesh(bodywork(2, 3), camera, foot=(360, camera.rows[0]), yaw=1.57)
    canvases = []
    for light in (NO_SUN, Light((0, 0, 1), (0, 0, 0), (2, 2, 2), 0.0), Light((1, 0, 1), (0, 0, 0), (1, 1, 1), 0.5)):
        canvas = np.ones((*FRAME, 3), np.float32)
        paint_mesh(canvas, placed, light)
        canvases.append(canvas)
    plain, double, sunny = canvases
    seen = nearest_triangles(placed.rows, placed.arrays[1], 0, 0, *FRAME) >= 0
    both = seen[::2] & seen[1::2]
    assert np.allclose(double[both], 2 * plain[both], rtol=1e-4)
    dark = (plain < 0.9).all(-1) & ~both
    assert dark.any() and dark[: int(placed.box[1])].sum() == 0
    shadow = (sunny < 0.6).all(-1) & (plain > 0.95).all(-1)
    assert shadow.any() and np.nonzero(shadow)[1].mean() < 360  # the sun is to the right


def test_a_flat_shadow_covers_its_triangles():
    rows = np.array([(2, 2), (12, 2), (2, 12)], np.float32)
    mask = shadow_mask(rows, np.array([(0, 1, 2)]), 0, 0, 16, 16)
    slow = np.array([[x + 0.5 >= 2 and y + 0.5 >= 2 and x + y + 1 <= 14 for x in range(16)] for y in range(16)])
    assert np.array_equal(mask, slow)


def test_moving_is_placing_elsewhere():
    camera = road_camera(4, 0)
    placed = place_mesh(bodywork(2, 3), camera, foot=(360, camera.rows[0]), yaw=0.3)
    moved = placed.moved(1.0, 2.0, 0.5)
    there = placed_at(
        placed.arrays, placed.camera, (placed.pose[0] + 1, placed.pose[1] + 2, math.cos(0.8), math.sin(0.8))
    )
    assert np.allclose(moved.rows, there.rows, atol=1e-3) and moved.scale < placed.scale


# ---- the world


@pytest.mark.parametrize("split", SAMPLING)
def test_splits_hold_what_they_should(split):
    found, (cameras, per_id, shots, _) = load_traffic(split, **SMALL), SAMPLING[split]
    assert found.images.dtype == torch.uint8 and found.images.shape == (3 * per_id * shots, 3, 24, 32)
    assert len(set(found.pids)) == 3 and set(found.camids) <= set(range(1, cameras + 1))
    if split == "train":
        assert sorted(set(found.labels)) == [0, 1, 2]
        return
    assert (found.query ^ found.gallery).all() and found.query.sum() == 3 * per_id
    pairs = Counter(zip(found.pids[found.query].tolist(), found.camids[found.query].tolist()))
    assert set(pairs.values()) == {1}


def test_twenty_cameras_look_at_test_vehicles():
    plan, _ = plan_traffic("test", 200)
    assert len({shot.camid for shot in plan}) == load_manifest("veri776")["printed"]["cameras"] == 20


def test_splits_and_seeds_share_neither_vehicles_nor_cameras():
    pids, cameras, colours = [], [], []
    for split in SAMPLING:
        for seed in (0, 1):
            plan, render_seed = plan_traffic(split, 20, seed)
            pids.append({shot.pid for shot in plan})
            cameras += [road_camera(camid, render_seed).mount for camid in range(1, SAMPLING[split].cameras + 1)]
            colours.append({make_vehicle(pid, render_seed).colour.tobytes() for pid in pids[-1]})
    assert len(set(cameras)) == len(cameras) == 2 * (40 + 20 + 20)
    assert len(set.union(*colours)) == sum(map(len, colours)) and len(set.union(*pids)) == 60


@pytest.mark.parametrize("split", SAMPLING)
def test_fewer_vehicles_are_the_first_of_more(split):
    few, more = load_traffic(split, vehicles=2, size=(24, 32)), load_traffic(split, **SMALL)
    assert torch.equal(few.images, more.images[np.isin(more.pids, few.pids)])


def test_threads_change_nothing_and_a_second_call_renders_nothing(monkeypatch):
    first = load_traffic("settle", vehicles=2, size=(16, 16), seed=9).images.clone()
    with monkeypatch.context() as patch:
        patch.setattr(traffic, "prepared_arrays", lambda name, versions, recipe, parts, make: make())
        assert torch.equal(first, load_traffic("settle", vehicles=2, size=(16, 16), seed=9, workers=3).images)
    monkeypatch.setattr(traffic, "vehicle_jpeg", lambda *given: pytest.fail("rendered again"))
    assert torch.equal(first, load_traffic("settle", vehicles=2, size=(16, 16), seed=9).images)


def test_a_source_opens_it():
    source = {"world": "traffic", "vehicles": 3}
    for split in SAMPLING:
        found, expected = open_source(source, split, task="reid", size=(24, 32)), load_traffic(split, **SMALL)
        assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(found, expected))
    assert source_versions(source, "reid") == ["world.people", "world.traffic"] and source_title(source) == "traffic"


@pytest.mark.parametrize(
    "source, words",
    [
        ({"world": "traffic", "people": 3}, "'people'; choose one of: vehicles"),
        ({"world": "traffic", "boxes": "labelled"}, "'boxes'"),
        ({"world": "plaza", "vehicles": 3}, "'vehicles'; choose one of: people, boxes"),
        ({"world": "trafic", "vehicles": 3}, "did you mean 'traffic'"),
        ({"world": "traffic", "vehicles": 1}, "vehicles must be a whole number"),
        ({"world": "traffic", "vehicles": 2.5}, "vehicles must be a whole number"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(source, words):
    with pytest.raises(ValueError, match=words) as caught:
        open_source(source, "train", task="reid", size=(24, 32))
    assert "\n" not in str(caught.value)


def test_a_size_or_split_that_is_none_is_one_sentence():
    with pytest.raises(ValueError, match="size"):
        load_traffic("train", vehicles=2, size=(2, 2))
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        load_traffic("valid", vehicles=2)


def test_what_stays_is_told_from_what_passes():
    """Crops of one vehicle in one camera are nearer in colour than those of vehicles of other paints."""
    found = load_traffic("settle", vehicles=5, size=(24, 32))
    means = found.images[:, :, 6:18, 8:24].float().mean((2, 3)).numpy()
    camera = {
        row: np.flatnonzero((found.pids == found.pids[row]) & (found.camids == found.camids[row])) for row in range(100)
    }
    same = np.mean([np.linalg.norm(means[rows] - means[row], axis=1).mean() for row, rows in camera.items()])
    every = np.linalg.norm(means[:, None] - means[None], axis=2).mean()
    assert same < 0.5 * every


def test_a_vehicle_keeps_within_the_frame_and_boxes_keep_it():
    rng = np.random.default_rng(0)
    for camid in range(1, 21):
        camera = road_camera(camid, 3)
        visit = make_pass(5, camera, 0, 3)
        for number in range(4):
            placed = stand_vehicle(5, camera, visit, number, rng, 3)
            left, top, right, low = placed.box
            assert -0.3 * FRAME[1] < left < right < 1.3 * FRAME[1] and top > -40
            box = np.array(box_round(rng, placed.box, camera.boxes))
            assert np.abs(box - placed.box).max() < 0.35 * (low - top)


def test_one_crop_alone_is_that_of_the_set():
    found = load_traffic("test", **SMALL)
    plan, seed = plan_traffic("test", 3)
    alone = np.asarray(render_vehicle(plan[7], seed=seed, size=(24, 32)), float)
    assert np.abs(alone - found.images[7].permute(1, 2, 0).numpy()).mean() < 12  # but for the file's own JPEG
    natural = render_vehicle(Shot(1, 1), seed=2, size=None)
    assert isinstance(natural, Image.Image) and min(natural.size) >= 24


# ---- VeRi-776

TINY = dict(num_train_ids=3, num_test_ids=2, num_cameras=3, shots=2, size=(24, 32))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("veri") / "copy"
    render_veri(root, **TINY)
    return root


@pytest.fixture
def own_copy(copy, tmp_path):
    return shutil.copytree(copy, tmp_path / "VeRi")


def test_manifest_has_the_published_counts():
    manifest = load_manifest("veri776")
    expected, printed = manifest["expected"], manifest["printed"]
    assert [expected[split]["images"] for split in ("train", "query", "gallery")] == [37_778, 1_678, 11_579]
    assert [expected[split]["ids"] for split in ("train", "query", "gallery")] == [576, 200, 200]
    assert printed["images"] == 37_778 + 11_579 and printed["ids"] == 776
    assert "non-commercial" in manifest["licence"] and "ask its authors" in manifest["obtain"]


def test_a_rendered_copy_is_read_back(copy):
    found = load_dataset("veri776", copy)
    assert [len(getattr(found, split)) for split in ("train", "query", "gallery")] == [18, 6, 6]
    assert found.num_train_pids == 3 and {sample.camid for sample in found.query} == {1, 2, 3}
    for split, folder in traffic.VERI_FOLDERS.items():
        listed = (copy / traffic.VERI_LISTS[split]).read_text().split()
        assert listed == sorted(path.name for path in (copy / folder).iterdir())
        assert all(traffic_name(name) for name in listed)
    assert check_dataset("veri776", copy, decode=True).ok
    assert "simulated vehicles" in str(check_dataset("veri776", copy))


def traffic_name(name):
    "Whether a name is like 0001_c001_00016450_0.jpg."
    vehicle, camera, frame, number = name.removesuffix(".jpg").split("_")
    return (len(vehicle), len(camera), camera[0], len(frame), number.isdecimal()) == (4, 4, "c", 8, True)


def test_it_is_the_same_bytes_whatever_the_threads(copy, tmp_path):
    render_veri(tmp_path / "again", workers=3, **TINY)
    content = lambda root: {path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")}
    assert content(copy) == content(tmp_path / "again") and len(content(copy)) == 30
    world = json.loads((copy / "world.json").read_text())
    assert world["name"] == "veri776" and world["arguments"]["num_cameras"] == 3
    with pytest.raises(FileExistsError):
        render_veri(copy, **TINY)


def test_unseen_cameras_are_others(tmp_path):
    render_veri(tmp_path / "veri", unseen_cameras=True, cameras_per_id=2, **TINY)
    found = load_dataset("veri776", tmp_path / "veri")
    assert {sample.camid for sample in found.train} <= {1, 2, 3} and {sample.camid for sample in found.query} <= {
        4,
        5,
        6,
    }


def test_it_is_a_source_too(copy):
    real, opening = load_dataset("veri776", copy), dict(task="reid", size=(24, 32), data_root=copy)
    train = open_source({"dataset": "veri776"}, "train", **opening)
    assert torch.equal(train.images, load_images([sample.path for sample in real.train], size=(24, 32)))
    found = open_source({"dataset": "veri776"}, "test", **opening)
    assert found.query.sum() == 6 and found.gallery.sum() == 6
    with pytest.raises(ValueError, match="leaves none to settle on"):
        open_source({"dataset": "veri776"}, "settle", **opening)


def first_line(file, line):
    "Replace the first line of a list."
    file.write_text("\n".join([line, *file.read_text().split()[1:]]) + "\n")


DAMAGES = {
    "missing image": (
        lambda root: next((root / "image_query").iterdir()).unlink(),
        r"1 listed image\(s\) are not in .*image_query, the first is 000",
    ),
    "unknown image": (
        lambda root: first_line(root / "name_test.txt", "0009_c001_00000001_0.jpg"),
        "not in .*image_test, the first is 0009_c001_00000001_0.jpg",
    ),
    "no name": (
        lambda root: first_line(root / "name_train.txt", "car.jpg"),
        "line 1 of .*name_train.txt is not a name",
    ),
    "name of no image": (
        lambda root: first_line(root / "name_train.txt", "0001_c001_00000001_0"),
        "line 1 of .*not a name",
    ),
    "folder in front": (
        lambda root: first_line(root / "name_train.txt", "image_train/0001_c001_00000001_0.jpg"),
        "line 1 of .*but 'image_train/0001",
    ),
    "list missing": (lambda root: (root / "name_query.txt").unlink(), "name_query.txt is missing"),
    "list empty": (lambda root: (root / "name_query.txt").write_text("\n"), "query split .* holds no image"),
    "list is a folder": (
        lambda root: ((root / "name_test.txt").unlink(), (root / "name_test.txt").mkdir()),
        "name_test.txt is a folder, not a file",
    ),
    "listed twice": (
        lambda root: (root / "name_query.txt").write_text((root / "name_query.txt").read_text() * 2),
        "is listed twice in the query split",
    ),
    "line lost": (
        lambda root: (root / "name_test.txt").write_text("\n".join((root / "name_test.txt").read_text().split()[1:])),
        "gallery has 5 images where the rendered set has 6",
    ),
    "folder missing": (lambda root: shutil.rmtree(root / "image_test"), "image_test is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_one_clear_sentence(own_copy, damage):
    break_it, words = DAMAGES[damage]
    break_it(own_copy)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        load_dataset("veri776", own_copy)
    assert (
        "\n" not in str(caught.value)
        and str(caught.value).startswith("veri776: ")
        or "not complete" in str(caught.value)
    )
    check = check_dataset("veri776", own_copy)
    assert not check.ok and check.problems[0] in str(check) and "\n" not in check.problems[0]


def test_check_names_missing_and_surplus_images(own_copy):
    gone = next((own_copy / "image_train").iterdir())
    gone.rename(own_copy / "image_test" / gone.name)
    problems = check_dataset("veri776", own_copy).problems
    assert f"{gone} (missing)" in problems[0] and problems[0].startswith("1 of 30")
    assert problems[1] == f"1 image files are in no list, the first is {own_copy / 'image_test' / gone.name}"


def test_a_byte_order_mark_and_stray_files_do_no_harm(own_copy):
    listing = own_copy / "name_train.txt"
    listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes().replace(b"\n", b"\r\n"))
    (own_copy / "image_train" / "Thumbs.db").write_bytes(b"x")
    (own_copy / "train_label.xml").write_text("<a/>")
    assert check_dataset("veri776", own_copy).ok and len(load_dataset("veri776", own_copy.parent).train) == 18


def test_a_copy_of_fewer_images_is_compared_with_the_published_counts(own_copy):
    (own_copy / "world.json").unlink()
    with pytest.raises(ValueError, match="train has 3 ids where the published set has 576"):
        load_dataset("veri776", own_copy)


@pytest.mark.parametrize(
    "changed, words",
    [
        (dict(num_cameras=1), "num_cameras must be"),
        (dict(shots=1), "shots must be"),
        (dict(num_train_ids=0), "num_train_ids must be"),
        (dict(cameras_per_id=0), "cameras_per_id must be"),
        (dict(workers=0), "workers must be"),
    ],
)
def test_what_cannot_be_rendered_is_one_sentence(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words):
        render_veri(tmp_path / "x", **TINY | changed)
    assert not (tmp_path / "x").exists()


def test_render_and_check_from_the_command_line(capsys, tmp_path):
    root = str(tmp_path / "veri")
    assert main(["data", "render", "veri776", "--out", root, "--ids", "3", "--cameras", "2", "--shots", "2"]) == 0
    assert "12 images of simulated vehicles, laid out as veri776" in capsys.readouterr().out
    assert main(["data", "check", "veri776", "--root", root, "--decode"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("complete")
    next((tmp_path / "veri" / "image_query").iterdir()).unlink()
    assert main(["data", "check", "veri776", "--root", root]) == 2
    assert "(missing)" in capsys.readouterr().out


# ---- the two protocols


@given(seed=st.integers(0, 999), gallery=st.integers(1, 30))
@CALM
def test_tracks_are_as_near_as_their_nearest_image(seed, gallery):
    rng = np.random.default_rng(seed)
    distances, pids, camids = rng.random((4, gallery)), rng.integers(0, 4, gallery), rng.integers(1, 4, gallery)
    found, track_pids, track_camids = track_distances(distances, pids, camids)
    pairs = sorted(set(zip(pids.tolist(), camids.tolist())))
    assert list(zip(track_pids.tolist(), track_camids.tolist())) == pairs
    for column, (pid, camid) in enumerate(pairs):
        assert np.array_equal(found[:, column], distances[:, (pids == pid) & (camids == camid)].min(1))


def test_image_to_track_counts_each_camera_once():
    """Query of vehicle 1 in camera 1: its own camera is junk; the first track from another camera is a match."""
    distances = np.array([[0.0, 0.1, 0.3, 0.9, 0.2]])
    pids, camids = np.array([1, 1, 1, 1, 2]), np.array([1, 1, 2, 2, 3])
    asked = dict(query_pids=[1], query_camids=[1])
    images = evaluate(distances=distances, gallery_pids=pids, gallery_camids=camids, **asked)
    nearest, track_pids, track_camids = track_distances(distances, pids, camids)
    tracks = evaluate(distances=nearest, gallery_pids=track_pids, gallery_camids=track_camids, **asked)
    assert images.first_match.tolist() == tracks.first_match.tolist() == [1]
    assert images.mAP == pytest.approx((1 / 2 + 2 / 3) / 2) and tracks.mAP == pytest.approx(1 / 2)


def test_labels_that_do_not_fit_are_one_sentence():
    with pytest.raises(ValueError, match="need a pid and a camid for each column"):
        track_distances(np.zeros((2, 3)), [1, 2], [1, 2, 3])
