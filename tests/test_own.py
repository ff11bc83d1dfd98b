"One's own pictures: read, searched, trained on and scored; one sentence for whatever is wrong with them."

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scalable_arch import create_model, load, models, save
from scalable_arch.cli import main
from scalable_arch.data.vtest import VTest
from scalable_arch.models import save_pretrained
from scalable_arch.own import demo, features, folders, lists, people, scores, shipped, training

TINY = {"widths": (8, 12, 16), "stem_width": 4, "feature_dim": 16}
CARD = {"trained_on": "12 simulated people", "people": "nobody's", "chosen": "epoch 1", "scores": [], "size": [160, 64]}
CARD |= {"cost": {"parameters": 1, "multiply-adds": 2}, "recipe": {}, "command": "again", "versions": {}}
cv2 = pytest.importorskip("cv2")


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    "Tiny networks, tiny weights in the place of those that ship, and a folder of the test's own."
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(models, "weights_dir", lambda: tmp_path / "weights")
    monkeypatch.setattr(training, "NARROW", TINY)
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    save_pretrained(tmp_path / "weights/han_small.safetensors", create_model("han_small", **TINY), CARD)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def picture(person, number, height=96, width=40):
    "A picture of somebody: a coat and trousers of the person's colours, and noise."
    rng = np.random.default_rng(person)
    coat, trousers = rng.integers(30, 226, (2, 3))
    pixels = np.where(np.arange(height)[:, None, None] < height // 2, coat, trousers) * np.ones((height, width, 1))
    noise = np.random.default_rng((person, number)).normal(0, 12, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def write_people(folder, count=6, cameras=2, shots=2):
    "Pictures PERSON_cCAMERA_number.png of some people."
    folder.mkdir(parents=True)
    for person, camera, shot in itertools.product(range(count), range(1, cameras + 1), range(shots)):
        picture(person, 10 * camera + shot).save(folder / f"p{person}_c{camera}_{shot}.png")
    return folder


def mistake(capsys, *arguments):
    "Run a command that must fail by the user's mistake; returns its one sentence."
    assert main([str(argument) for argument in arguments]) == 2
    err = capsys.readouterr().err
    told = [line for line in err.splitlines() if line.startswith("scalable-arch: ")]
    assert len(told) == 1 and "Traceback" not in err
    return told[0]


# ---- folders ----


names = st.text(st.characters(whitelist_categories=["L", "Nd"], whitelist_characters="- ."), min_size=1, max_size=12)


@given(names, st.integers(0, 10**6), st.sampled_from(["", "s1_000451_03", "_0017", "-b"]))
def test_names_tell_person_and_camera(person, camera, rest):
    assert folders.person_and_camera(f"{person}_c{camera}{rest}.jpg") == (person, camera)


@pytest.mark.parametrize("name", ["holiday.jpg", "_c2_0.jpg", "anna_cat.jpg", "anna-c2.jpg"])
def test_other_names_tell_nobody(name):
    assert folders.person_and_camera(name) is None


def test_both_layouts_give_the_same_people(tmp_path):
    flat = write_people(tmp_path / "flat", 3)
    for path in flat.iterdir():
        person, _, rest = path.name.partition("_")
        (tmp_path / "deep" / person).mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / person / rest).write_bytes(path.read_bytes())
    one, other = (folders.read_people(tmp_path / name, (40, 16)) for name in ("flat", "deep"))
    assert one.names == other.names == ["p0", "p1", "p2"] and torch.equal(one.images, other.images)
    assert one.pids.tolist() == other.pids.tolist() and one.camids.tolist() == other.camids.tolist()


def test_a_picture_without_a_camera_leaves_cameras_out(tmp_path):
    for person in ("anna", "ben"):
        (tmp_path / "own" / person).mkdir(parents=True)
        picture(1, 1).save(tmp_path / "own" / person / "c1_0.png")
        picture(1, 2).save(tmp_path / "own" / person / "b.png")
    found = folders.read_people(tmp_path / "own", (40, 16))
    assert found.camids is None and "cameras are not used" in found.notes[0]


def test_what_cannot_be_read_is_named_and_counted(tmp_path):
    own = write_people(tmp_path / "own", 3)
    (own / "p1_c1_0.png").write_bytes(b"no picture")
    (own / "holiday.jpg").write_bytes(b"")
    (own / "-1_c1_7.png").write_bytes((own / "p0_c1_0.png").read_bytes())
    found = folders.read_people(own, (40, 16))
    assert len(found.paths) == 11 and "p1_c1_0.png" not in {path.name for path in found.paths}
    said = " ".join(found.notes)
    assert "1 of 12 pictures cannot be read" in said and "p1_c1_0.png (not an image)" in said
    assert "holiday.jpg" in said and "1 pictures of nobody" in said


@pytest.mark.parametrize(
    "made, told",
    [
        (lambda folder: None, "there is no folder of people"),
        (lambda folder: folder.write_text(""), "is a file, not a folder of people"),
        (lambda folder: folder.mkdir(), "there are no pictures in"),
        (lambda folder: (folder.mkdir(), picture(0, 0).save(folder / "holiday.png")), "says whose it is"),
        (lambda folder: (folder.mkdir(), (folder / "p_c1_0.png").write_bytes(b"x")), "no picture in .* can be read"),
    ],
)
def test_a_folder_that_holds_nobody_is_told(tmp_path, made, told):
    made(tmp_path / "own")
    with pytest.raises((ValueError, OSError), match=told):
        folders.read_people(tmp_path / "own")


# ---- scores ----


def slow_chance(right, total):
    "Mean rank-1 and AP over all orders."
    R1, ap = [], []
    for places in itertools.combinations(range(total), right):
        R1.append(places[0] == 0)
        ap.append(np.mean([(number + 1) / (place + 1) for number, place in enumerate(places)]))
    return np.mean(R1), np.mean(ap)


@pytest.mark.parametrize("right, total", [(1, 1), (1, 4), (2, 5), (3, 3), (4, 9), (2, 2)])
def test_chance_is_the_mean_of_all_orders(right, total):
    R1, ap = scores.chance_of([right], [total])
    assert (R1[0], ap[0]) == pytest.approx(slow_chance(right, total))


def slow_scores(features_of, pids, camids):
    "Rank-1 and AP of each query that has a match, by sorting."
    found = []
    for q in range(len(pids)):
        others = [g for g in range(len(pids)) if not (pids[g] == pids[q] and camids[g] == camids[q])]
        others.sort(key=lambda g: np.linalg.norm(features_of[g] - features_of[q]))
        right = [pids[g] == pids[q] for g in others]
        if any(right):
            ap = [sum(right[: place + 1]) / (place + 1) for place in range(len(right)) if right[place]]
            found.append((right[0], np.mean(ap), pids[q], sum(right), len(right)))
    return np.array(found, float).T


@settings(deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_scores_and_chance_are_those_of_slow_loops(seed, cameras):
    rng = np.random.default_rng(seed)
    pids, camids = np.array([0, 0, 1, 1, *rng.integers(0, 4, 8)]), np.array([0, 1, 0, 1, *rng.integers(0, 3, 8)])
    vectors = rng.random((12, 3))
    R1, ap, who, right, total = slow_scores(vectors, pids, camids if cameras else np.arange(12))
    found = scores.score(vectors, pids, camids if cameras else None)
    assert (found.R1, found.mAP) == pytest.approx((R1.mean(), ap.mean()))
    assert (found.queries, found.people) == (len(R1), len(set(who)))
    least = scores.chance(pids, camids if cameras else None)
    assert least.R1 == pytest.approx((right / total).mean()) and least.queries == len(R1)


def test_intervals_are_over_people_and_not_over_pictures():
    values, whose = np.repeat([0.0, 1.0], 500), np.repeat([0, 1], 500)
    assert scores.over_people(values, whose) == (0.0, 1.0)  # two people: either may come twice
    low, high = scores.over_people(values, np.arange(1000))
    assert 0.45 < low < 0.5 < high < 0.55
    assert scores.over_people(np.ones(5), np.zeros(5, int)) is None


@pytest.mark.parametrize(
    "pids, camids, told",
    [
        ([0, 0, 0], None, "all pictures are of one person"),
        ([0, 1, 2], None, "no person has two pictures"),
        ([0, 0, 1], [1, 1, 1], "no person was seen by two cameras"),
    ],
)
def test_nobody_to_find_again_is_told(pids, camids, told):
    for function in (lambda *given: scores.score(np.random.rand(3, 2), *given), scores.chance):
        with pytest.raises(ValueError, match=told):
            function(np.array(pids), None if camids is None else np.array(camids))


def test_evaluate_prints_scores_beside_chance(tmp_path, capsys):
    own = write_people(tmp_path / "own")
    assert main(["evaluate", str(own), "--out", "scores.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = ["chance", "colour histograms", "untrained", "this model"]
    assert [line.partition("  ")[0] for line in lines[:4]] == titles
    told = json.loads((tmp_path / "here" / "scores.json").read_text())
    assert list(told) == titles and told["chance"]["queries"] == 24 and told["colour histograms"]["R1"] > 0.9
    assert "scores.json is there already" in mistake(capsys, "evaluate", own, "--out", "scores.json")


# ---- devices, precisions, models ----


def test_precisions_agree(tmp_path):
    own = folders.read_people(write_people(tmp_path / "own", 3))
    net = create_model("han_small", **TINY)
    exact, rough = (
        features.describe(features.placed(net, "cpu", name), own.images) for name in ("float32", "bfloat16")
    )
    assert rough.dtype == np.float32 and 0 < np.abs(exact - rough).max() < 0.2


@pytest.mark.parametrize("name", ["cuda:7", "tpu", "gpu"])
def test_a_device_that_is_not_there_is_told(name):
    with pytest.raises(ValueError, match=f"there is no device '{name}' on this machine; choose one of: cpu"):
        features.pick_device(name)


def test_models_and_detectors_of_another_kind_are_told(tmp_path, capsys):
    own = write_people(tmp_path / "own")
    save(tmp_path / "det.safetensors", create_model("hdl_student", widths=(8, 8, 8, 8), stem_width=4))
    save(tmp_path / "reid.safetensors", create_model("han_small", **TINY))
    ask = ["search", own / "p0_c1_0.png", "--gallery", own]
    assert "finds people in whole pictures" in mistake(capsys, *ask, "--model", tmp_path / "det.safetensors")
    assert "finds nobody in a whole picture" in mistake(capsys, *ask, "--detector", tmp_path / "reid.safetensors")
    assert "unknown precision 'half'" in mistake(capsys, *ask, "--precision", "half")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02 a pickle")
    assert "old.pt is no file that save wrote" in mistake(capsys, *ask, "--model", tmp_path / "old.pt")
    assert "there is no file" in mistake(capsys, *ask, "--model", tmp_path / "none.safetensors")
    assert not list((tmp_path / "here").iterdir())


# ---- search ----


def test_search_writes_a_page_and_a_table(tmp_path, capsys):
    own, asked = write_people(tmp_path / "own"), [tmp_path / "own" / f"p{person}_c1_0.png" for person in (1, 4)]
    (own / "broken.jpg").write_bytes(b"no picture")
    (own / ".hidden.png").write_bytes(b"no picture")
    assert main(["search", *map(str, asked), "--gallery", str(own), "--top", "5", "--out", "found"]) == 0
    said = capsys.readouterr()
    assert "1 of 25 pictures cannot be read" in said.err and "broken.jpg" in said.err and "found/index.html" in said.out
    rows = list(csv.DictReader(open("found/ranked.csv", encoding="utf-8")))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"] * 2
    assert not any(row["query"] == row["found"] for row in rows), "a query is no hit of its own"
    read = folders.read_people(own)
    vectors = features.describe(features.placed(features.open_model()), read.images)
    place = {str(path): row for row, path in enumerate(read.paths)}
    for name in map(str, asked):
        far = np.linalg.norm(vectors - vectors[place[name]], axis=1)
        far[place[name]] = np.inf
        mine = [row for row in rows if row["query"] == name]
        assert [place[row["found"]] for row in mine] == np.argsort(far, kind="stable")[:5].tolist()
        assert [float(row["distance"]) for row in mine] == pytest.approx(np.sort(far)[:5].tolist(), abs=1e-3)
    page = (tmp_path / "here/found/index.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12 and page.count("data:image/jpeg;base64,") == 12
    assert not re.search(r"(src|href)=\"(?!data:)|<script|url\(|//", re.sub(r"base64,[^\"]*", "", page))
    assert "intended-use" in page


def test_a_second_search_takes_another_folder_and_a_named_one_is_kept(tmp_path, capsys):
    own = write_people(tmp_path / "own", 2)
    ask = ["search", str(own / "p0_c1_0.png"), "--gallery", str(own)]
    assert main(ask) == main(ask) == 0
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["found", "found-2"]
    assert "is there already and not empty" in mistake(capsys, *ask, "--out", "found")


def test_names_cannot_write_into_the_page(tmp_path):
    own = write_people(tmp_path / "own", 2)
    picture(0, 5).save(own / "<script>alert(1)<.png")
    lists.search_pictures([own / "p0_c1_0.png"], "found", gallery=own)
    assert "<script" not in (tmp_path / "here/found/index.html").read_text()


@pytest.mark.parametrize(
    "made, told",
    [
        (lambda gallery: None, "there is no gallery"),
        (lambda gallery: gallery.mkdir(), "holds no pictures"),
        (lambda gallery: (gallery.mkdir(), (gallery / "a.jpg").write_bytes(b"x")), "can be read"),
    ],
)
def test_a_gallery_without_pictures_is_told(tmp_path, capsys, made, told):
    own = write_people(tmp_path / "own", 2)
    made(tmp_path / "gallery")
    assert told in mistake(capsys, "search", own / "p0_c1_0.png", "--gallery", tmp_path / "gallery")
    assert not list((tmp_path / "here").iterdir())


def test_a_query_that_shows_nobody_is_told(tmp_path, capsys, monkeypatch):
    own = write_people(tmp_path / "own", 2)
    ask = lambda *queries: mistake(capsys, "search", *queries, "--gallery", own)
    Image.new("RGB", (40, 100), "white").save("flat.png")
    assert "flat.png shows nobody: it is all one colour" in ask("flat.png")
    picture(1, 1, 200, 300).save("meadow.png")
    assert "meadow.png shows nobody that the detector finds" in ask("meadow.png")
    assert "there is no query none.png" in ask("none.png")
    (tmp_path / "here/broken.png").write_bytes(b"x")
    assert "broken.png cannot be read as an image" in ask("broken.png")
    assert "none of the 2 queries can be used; the query flat.png" in ask("flat.png", "meadow.png")
    two = lambda picture: np.array([[0, 0, 40, 100], [50, 0, 90, 100]])
    monkeypatch.setattr(lists, "finder", lambda *given: two)
    assert "meadow.png shows 2 people: crop it" in ask("meadow.png")
    assert main(["search", "flat.png", str(own / "p0_c1_0.png"), "--gallery", str(own)]) == 0
    assert "flat.png shows nobody" in capsys.readouterr().err, "one bad query does not stop the other"


def test_one_place_to_search_in(tmp_path, capsys):
    own = write_people(tmp_path / "own", 2)
    assert "either --gallery FOLDER or --video FILE" in mistake(capsys, "search", own / "p0_c1_0.png")
    both = ["--gallery", own, "--video", "x.avi"]
    assert "either --gallery FOLDER or --video FILE" in mistake(capsys, "search", own / "p0_c1_0.png", *both)
    assert "top must be a whole number" in mistake(capsys, "search", own, "--gallery", own, "--top", "0")


def write_video(path, seconds=3, rate=5):
    "A video of noise."
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (160, 120))
    for number in range(seconds * rate):
        out.write(np.random.default_rng(number).integers(0, 60, (120, 160, 3), dtype=np.uint8))
    out.release()
    return path


def test_a_video_without_people_is_told(tmp_path, capsys):
    own, video = write_people(tmp_path / "own", 2), write_video(tmp_path / "empty.avi")
    told = mistake(capsys, "search", own / "p0_c1_0.png", "--video", video)
    assert "nobody was found in" in told and "3 frames were looked at" in told
    assert "there is no video" in mistake(capsys, "search", own / "p0_c1_0.png", "--video", "none.avi")
    (tmp_path / "text.avi").write_text("no video")
    assert "cannot be read as a video" in mistake(
        capsys, "search", own / "p0_c1_0.png", "--video", tmp_path / "text.avi"
    )
    assert not list((tmp_path / "here").iterdir())


def test_people_of_a_video_are_found_with_frame_and_box(tmp_path, monkeypatch):
    own, video = write_people(tmp_path / "own", 2), write_video(tmp_path / "walk.avi")
    monkeypatch.setattr(lists, "finder", lambda *given: lambda picture: np.array([[10.0, 20.0, 50.0, 110.0]]))
    ranked, _ = lists.search_pictures([own / "p0_c1_0.png"], "found", video=video, every=7)
    assert sorted(hit.where for hit in ranked[0].hits) == [
        f"frame {frame}, 0:0{second}, box 10 20 50 110" for frame, second in ((1, 0), (15, 3), (8, 2))
    ]


def test_a_network_finds_people_at_the_height_asked_for(tmp_path):
    save(tmp_path / "det.safetensors", create_model("hdl_student", widths=(8, 8, 8, 8), stem_width=4))
    find = people.network_finder(tmp_path / "det.safetensors", "cpu", 96)
    boxes = find(np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8))
    assert boxes.shape[1:] == (4,) and (boxes <= [256, 192, 256, 192]).all()


# ---- training ----


@settings(deadline=None)
@given(st.integers(4, 30), st.floats(0.01, 0.99), st.integers(0, 9))
def test_people_are_learnt_from_or_held_out(number, share, seed):
    pids = np.repeat(np.arange(number), 2)
    camids = np.tile([1, 2], number)
    camids[-1] = 1  # the last one was seen by one camera only
    names = [str(pid) for pid in range(number)]
    own = folders.OwnPeople([None] * len(pids), torch.zeros(len(pids), 3, 2, 2), pids, names, camids, [])
    held = training.hold_out(own, share, seed)
    seen, learnt = set(pids[held]), set(pids[~held])
    assert not seen & learnt and len(seen) >= 2 and len(learnt) >= 2 and number - 1 not in seen
    assert (held == training.hold_out(own, share, seed)).all()


def test_a_folder_is_learnt_and_the_best_epoch_kept(tmp_path, capsys):
    own = write_people(tmp_path / "own", 8)
    assert main(["train", str(own), "--out", "mine.safetensors", "--val", "0.25", "--epochs", "3"]) == 0
    said = capsys.readouterr().out
    assert "2 people are held out" in said and "before training: rank-1" in said and "epoch 3 of 3: loss" in said
    looks = training.read_looks(tmp_path / "here/mine.safetensors.run")
    best = max(looks, key=lambda look: look["mAP"])
    assert [look["epoch"] for look in looks] == [0, 1, 2, 3]
    held = training.hold_out(read := folders.read_people(own), 0.25)
    seen, model = read.of(held), load("mine.safetensors")
    found = scores.score(features.describe(features.placed(model), seen.images), seen.pids, seen.camids)
    assert found.mAP == pytest.approx(best["mAP"]) and model.made_by["options"]["num_classes"] is None
    assert "mine.safetensors is there already" in mistake(capsys, "train", own, "--out", "mine.safetensors")


def test_the_best_look_is_kept_and_not_the_last(tmp_path):
    nets, looks = [create_model("han_small", **TINY) for _ in range(3)], []
    for epoch, (net, mAP) in enumerate(zip(nets, (0.2, 0.5, 0.3))):
        training.note_look(tmp_path, looks, net, epoch, scores.Score(0.9, mAP, None, None, 4, 2))
    kept = load(tmp_path / training.BEST).state_dict()
    assert all(torch.equal(kept[name], x) for name, x in nets[1].state_dict().items())


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, capsys):
    own = write_people(tmp_path / "own", 6)

    def stopping(line):
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    whole = training.train_folder(own, "whole.safetensors", epochs=4)
    with pytest.raises(KeyboardInterrupt):
        training.train_folder(own, "cut.safetensors", epochs=4, say=stopping)
    assert not (tmp_path / "here/cut.safetensors").exists()
    other = mistake(capsys, "train", own, "--out", "cut.safetensors", "--epochs", 4, "--seed", 1)
    assert "is of a training with seed 0, not 1" in other
    said = []
    again = training.train_folder(own, "cut.safetensors", epochs=4, say=said.append)
    assert any(line == "goes on after epoch 2" for line in said)
    plain = lambda looks: [(look["epoch"], look["R1"], look["mAP"]) for look in looks]
    assert plain(again.looks) == plain(whole.looks)
    one, other = load("whole.safetensors").state_dict(), load("cut.safetensors").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_look_that_a_kill_cost_is_made_up_for(tmp_path):
    own, run = write_people(tmp_path / "own", 6), tmp_path / "here/cut.safetensors.run"

    def stopping(line):
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train_folder(own, "cut.safetensors", epochs=3, say=stopping)
    lines = (run / training.LOOKS).read_text().splitlines(True)
    (run / training.LOOKS).write_text("".join(lines[:2]) + '{"epoch": 2, "R1')
    again = training.train_folder(own, "cut.safetensors", epochs=3)
    assert [look["epoch"] for look in again.looks] == [0, 1, 2, 3]


def test_pretrained_weights_are_begun_from(tmp_path):
    own = write_people(tmp_path / "own", 6)
    trained = training.train_folder(own, "mine.safetensors", init="pretrained", epochs=1)
    held = training.hold_out(read := folders.read_people(own), 0.2)
    seen, net = read.of(held), features.open_model()
    before = scores.score(features.describe(features.placed(net), seen.images), seen.pids, seen.camids)
    assert trained.looks[0]["mAP"] == pytest.approx(before.mAP)
    again = training.train_folder(own, "more.safetensors", init="mine.safetensors", epochs=1)
    assert again.looks[0]["mAP"] == pytest.approx(trained.best["mAP"])


def test_bfloat16_learns_with_weights_in_float32(tmp_path):
    own = write_people(tmp_path / "own", 6)
    trained = training.train_folder(own, "mine.safetensors", epochs=2, precision="bfloat16")
    assert {x.dtype for x in load(trained.path).parameters()} == {torch.float32}
    losses = [look["loss"] for look in trained.looks[1:]]
    exact = training.train_folder(own, "exact.safetensors", epochs=2)
    assert losses != [look["loss"] for look in exact.looks[1:]]
    assert losses == pytest.approx([look["loss"] for look in exact.looks[1:]], rel=0.1)


@pytest.mark.parametrize("val", ["0", "1", "-0.5", "nan"])
def test_a_share_that_is_none_is_told(tmp_path, capsys, val):
    own = write_people(tmp_path / "own", 6)
    told = mistake(capsys, "train", own, "--out", "mine.safetensors", f"--val={val}")
    assert "--val is the share of the people held out, more than 0 and less than 1" in told
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    "count, cameras, shots, told",
    [
        (1, 2, 2, "training needs at least four people, two to learn from and two held out, but there is 1"),
        (2, 1, 1, "but there are 2"),
        (5, 1, 2, "nobody can be held out: at least two people must be seen by two cameras"),
    ],
)
def test_too_few_people_are_told(tmp_path, capsys, count, cameras, shots, told):
    own = write_people(tmp_path / "own", count, cameras, shots)
    assert told in mistake(capsys, "train", own, "--out", "mine.safetensors")
    assert not list((tmp_path / "here").iterdir())


def test_float16_is_not_for_training(tmp_path, capsys):
    own = write_people(tmp_path / "own", 6)
    told = mistake(capsys, "train", own, "--out", "mine.safetensors", "--precision", "float16")
    assert "training takes float32 or bfloat16" in told and not list((tmp_path / "here").iterdir())


def test_looks_go_to_tensorboard_where_it_is(tmp_path, monkeypatch):
    import sys
    import types

    noted = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def add_scalar(self, name, value, epoch):
            noted.append((self.folder.name, name, value, epoch))

    monkeypatch.setattr(training, "find_spec", lambda name: name == "tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    found = scores.Score(0.5, 0.25, None, None, 4, 2)
    assert training.note_look(tmp_path, [], create_model("han_small", **TINY), 3, found, loss=1.5)
    wanted = [("val/rank-1", 0.5), ("val/mAP", 0.25), ("loss", 1.5)]
    assert noted == [("tensorboard", name, value, 3) for name, value in wanted]


# ---- demo, weights, help ----


def few_people():
    "Something like vtest: three people, two of whom come back."
    pids, visits = torch.tensor([1, 1, 1, 2, 2, 3]), torch.tensor([1, 1, 2, 1, 2, 1])
    crops = [np.asarray(picture(pid, row, 160, 64)) for row, pid in enumerate(pids.tolist())]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    rows = torch.arange(6)
    return VTest(images, pids, visits, 10 * rows, rows[:5], rows)


def test_the_demo_writes_a_page_with_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "get_dataset", lambda name: None)
    monkeypatch.setattr(demo, "load_vtest", lambda **options: few_people())
    assert main(["demo"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("chance") and said[3].startswith("han_small, weights that ship")
    assert said[-1] == "Open demo/index.html"
    folder = tmp_path / "here/demo"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "ranked.csv",
        "ranked_lists.jpg",
        "scores.json",
    ]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "University of Reading" in page and page.count('class="query"') == 2 and "12 simulated people" in page
    rows = list(csv.DictReader(open(folder / "ranked.csv", encoding="utf-8")))
    assert {row["verdict"] for row in rows} == {"right", "wrong"}
    for row in rows:
        asked, found = (re.match(r"(person .), visit (\d)", row[side]).groups() for side in ("query", "found"))
        assert asked != found and (asked[0] == found[0]) == (row["verdict"] == "right")


def test_no_weights_no_demo(tmp_path, capsys):
    (tmp_path / "weights/han_small.safetensors").unlink()
    assert "there are no weights for han_small; models with weights: none so far" in mistake(capsys, "demo")
    assert not list((tmp_path / "here").iterdir())


def test_weights_are_trained_by_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "OPTIONS", {"han_small": TINY})
    monkeypatch.setattr(shipped, "find_video", lambda: None)
    opened = shipped.open_source

    def no_video(source, split, **options):
        if "video" in source:
            source = {"mixed": True, "people": 2}
        return opened(source, split, **options)

    monkeypatch.setattr(shipped, "open_source", no_video)
    asked = ["weights", "han_small", "--people", "4", "--others", "2", "--epochs", "1", "--out"]
    assert main([*asked, "new.safetensors"]) == 0
    said = capsys.readouterr().out
    assert "trained again by: scalable-arch weights han_small --people 4 --others 2 --epochs 1 --seed 0" in said
    card = models.load_card("new.safetensors")
    assert [one["set"] for one in card["scores"]] == ["simulated strangers", "vtest"]
    assert {"model.han", "recipe.retrieval", "world.mixed"} <= card["versions"].keys()
    assert "is there already" in mistake(capsys, *asked, "new.safetensors")
    (tmp_path / "weights/han_small.safetensors").write_bytes((tmp_path / "here/new.safetensors").read_bytes())
    assert create_model("han_small", pretrained=True).made_by["options"]["widths"] == [8, 12, 16]
    assert main(["models", "han_small"]) == 0 and "simulated strangers: rank-1" in capsys.readouterr().out


def test_models_tells_costs_and_weights(capsys):
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert re.search(r"2,022,442 +185\.6 M +160x64 +yes +3$", lines["han_small"])
    assert re.search(r"no +3$", lines["han_large"]) and "576" not in lines["hdl_student"]
    assert "there are no weights for han_large; models with weights: han_small" in mistake(
        capsys, "models", "han_large"
    )


COMMANDS = ["", "search", "train", "evaluate", "demo", "models", "weights", "intended-use", "data", "data get"]
COMMANDS += ["reproduce", "ledger"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_leads_to_intended_use(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert "scalable-arch intended-use" in " ".join(capsys.readouterr().out.split())


def test_intended_use_is_a_page_of_words(capsys):
    assert main(["intended-use"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# Intended use") and all(word in said for word in ("Consent", "Delete", "agreed"))


def test_pictures_of_vtest_become_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "load_vtest", lambda **options: few_people())
    own = folders.read_people(demo.write_vtest(tmp_path / "own"))
    assert own.names == ["A", "B", "C"] and own.camids.tolist() == [1, 1, 2, 1, 2, 1]


CHECKOUT = Path(__file__).parents[1]


def test_readme_prints_the_scores_that_the_demo_made():
    scores = json.loads((CHECKOUT / "reports/demo/scores.json").read_text())
    rows = {"chance": "chance", "colour histograms": "colour histograms", "untrained network": "the network, untrained"}
    rows["han_small, weights that ship"] = "the network, with the weights that ship"
    within = lambda pair: f"[{100 * pair[0]:.1f}, {100 * pair[1]:.1f}]"
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for method, title in rows.items():
        one = scores[method]
        cells = [f"{100 * one[key]:.1f} {within(one[f'{key}_interval'])}" for key in ("R1", "mAP")]
        assert f"| {title} | {cells[0]} | {cells[1]} |" in readme
    card = models.load_card(CHECKOUT / "scalable_arch/weights/han_small.safetensors")  # others are made up here
    [vtest] = [entry for entry in card["scores"] if entry["set"] == "vtest"]
    shipped = scores["han_small, weights that ship"]
    assert (vtest["R1"], vtest["mAP"]) == pytest.approx((shipped["R1"], shipped["mAP"]), abs=1e-3)
