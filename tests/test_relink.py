"Re-detect and link: against loops, on faults whose truth is known, and as commands on one's own tracks."

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scalable_arch import create_model, models
from scalable_arch.cli import main
from scalable_arch.data import load_tracks, read_mot, truth_scores
from scalable_arch.models import save_pretrained
from scalable_arch.own import tracks as own_tracks
from scalable_arch.relink import (
    clean_tracks,
    cut_anew,
    found_by,
    largest_change,
    link,
    listed,
    oracle,
    place_of,
    usual_distance,
)

TINY = {"widths": (8, 12, 16), "stem_width": 4, "feature_dim": 16}
CARD = {"trained_on": "12 simulated people", "people": "nobody's", "chosen": "epoch 1", "scores": [], "size": [160, 64]}
CARD |= {"cost": {"parameters": 1, "multiply-adds": 2}, "recipe": {}, "command": "again", "versions": {}}
tiny = lambda noise, **options: load_tracks(
    "plaza", "settle", people=6, frames=8, size=(64, 32), noise=noise, **options
)
WHOLE = np.array([[0.0, 0, 1, 1]])


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    "What is recorded here is shared by the tests of this file."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# ---- linking


def linked_by_hand(boxes, features, alpha):
    "N sec. 2.5.1 in loops."
    track, chosen = None, []
    for here, described in zip(boxes, features):
        if not len(here):
            chosen.append(-1)
            continue
        if track is None:
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in here]
            best = areas.index(max(areas))
            track = [float(x) for x in described[best]]
        else:
            far = [sum((x - y) ** 2 for x, y in zip(one, track)) for one in described]
            best = far.index(min(far)) if len(here) > 1 else 0
            track = [alpha * x + (1 - alpha) * float(y) for x, y in zip(track, described[best])]
        chosen.append(best)
    return chosen


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.integers(0, 99))
def test_linking_against_loops(counts, alpha, seed):
    rng = np.random.default_rng(seed)
    boxes = [np.sort(rng.random((n, 2, 2)), 1).reshape(n, 4) for n in counts]
    features = [rng.normal(size=(n, 3)) for n in counts]
    assert link(boxes, features, alpha).tolist() == linked_by_hand(boxes, features, alpha)


def test_a_frame_with_nobody_moves_nothing():
    one, two = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]])
    at = lambda *values: np.array(values, float)[:, None]
    assert link([one, one[:0], two], [at(1), at(), at(3, 1.2)]).tolist() == [0, -1, 1]
    assert link([one[:0], two[::-1]], [at(), at(0, 0)]).tolist() == [-1, 1], "the first that is found is the largest"


# ---- cutting


@pytest.mark.parametrize(
    "box, filled",
    [
        ((0, 0, 1, 1), (0, 1)),
        ((0.3, 0.2, 0.7, 1.0), (0, 1)),  # slim, in the middle
        ((0, 0, 0.4, 0.8), (0.5, 1)),  # slim, at the left: moved to the right
        ((0.6, 0, 1, 0.8), (0, 0.5)),
        ((0, 0.5, 1, 1), (0, 1)),  # wide
        ((0, 0, 0.9, 1), (0, 1)),  # not slim
        ((0.08, 0, 0.98, 0.95), (0, 1)),  # at both sides
    ],
)
def test_slim_boxes_at_a_side_keep_their_shape_and_are_moved(box, filled):
    box = np.array(box, float)
    assert place_of(box, (64, 32)) == pytest.approx(filled)
    image = torch.full((3, 64, 32), 200, dtype=torch.uint8)
    picture, rect = cut_anew(image, box)
    assert picture.shape == image.shape and rect.tolist() == pytest.approx([filled[0], 0, filled[1], 1], abs=1 / 32)
    there = picture[0] > 0
    assert there.float().mean().item() == pytest.approx(filled[1] - filled[0], abs=1 / 32)
    assert there.all(0).int().sum() == there.any(0).int().sum() and (picture[0][there] == 200).all()


def test_what_is_cut_is_what_was_there():
    image = torch.zeros(3, 64, 32, dtype=torch.uint8)
    image[:, 16:48, 8:24] = 255
    picture, _ = cut_anew(image, np.array([0.25, 0.25, 0.75, 0.75]))
    assert (picture > 250).float().mean() > 0.9
    assert torch.equal(cut_anew(image, WHOLE[0])[0], image)


# ---- the whole


def test_a_perfect_detector_does_no_harm_to_clean_tracks_and_mends_noisy_ones():
    sure = oracle(recall=1.0, jitter=0.0, false=0.0)
    clean = tiny(0)
    after = truth_scores(clean_tracks(clean, sure).tracks)
    assert after["overlap"] > truth_scores(clean)["overlap"] and after["right"] > truth_scores(clean)["right"] - 0.02
    noisy = tiny({"boxes": "detected", "drifts": 1.0, "jumps": 0.1})
    found = clean_tracks(noisy, sure)
    before, after = truth_scores(noisy), truth_scores(found.tracks)
    assert after["overlap"] > before["overlap"] + 0.08 and after["right"] >= before["right"]
    assert (found.report.frames == noisy.lengths).all() and len(found.tracks.frames) == len(noisy.frames)


def test_frames_without_a_detection_stay_as_they_are_and_are_counted():
    noisy = tiny(2)
    found = clean_tracks(noisy, oracle(recall=0.4, false=0.0))
    kept = np.isnan(found.boxes).any(1)
    assert 0.2 < kept.mean() < 0.8 and found.report.undetected.sum() == kept.sum()
    assert (found.report.undetected + found.report.reboxed == found.report.frames).all()
    assert torch.equal(found.tracks.images(np.flatnonzero(kept)), noisy.images(np.flatnonzero(kept)))
    assert (found.tracks.rects[kept] == [0, 0, 1, 1]).all() and (
        found.tracks.truth.boxes[kept] == noisy.truth.boxes[kept]
    ).all()
    assert "without a detection kept as they were" in str(found)
    assert found.report.padded.sum() == (np.diff(found.tracks.rects[:, ::2])[:, 0] < 1).sum() > 0


def test_the_truth_moves_with_the_boxes():
    noisy = tiny(1)
    half = clean_tracks(noisy, lambda tracks, rows: [np.array([[0.0, 0.0, 1.0, 0.5]])] * len(rows)).tracks
    old, new = noisy.truth.boxes, half.truth.boxes
    assert new[:, 3] == pytest.approx((old[:, 1] + old[:, 3]) / 2, abs=1e-3) and (new[:, :3] == old[:, :3]).all()
    same = clean_tracks(noisy, lambda tracks, rows: [WHOLE] * len(rows)).tracks
    assert torch.equal(same.pixels, noisy.pixels) and (same.truth.shown == noisy.truth.shown).all()


def test_any_function_detects_with_padding_and_lists_are_boxes():
    noisy, seen = tiny(1), []

    def find(picture):
        seen.append(picture.shape)
        return np.array([[8.0, 16, 40, 80]])  # of a padded picture: the crop itself

    found = clean_tracks(noisy, found_by(find, 0.25))
    assert set(seen) == {(96, 48, 3)} and found.boxes == pytest.approx(np.repeat(WHOLE, len(noisy.frames), 0))
    again = clean_tracks(noisy, listed(list(found.boxes[:, None])))
    assert torch.equal(again.tracks.pixels, found.tracks.pixels)
    edge = found_by(lambda picture: [[0, 0, 1, 1]] if (picture[:16] == picture[16]).all() else [], 0.25)
    assert sum(map(len, edge(noisy, np.arange(4)))) == 4, "the rim repeats the border"


def test_switches_are_suspected_where_they_are():
    rng = np.random.default_rng(0)
    steady = [rng.normal(size=8) + 0.2 * rng.normal(size=(12, 8)) for _ in range(6)]
    gone = np.concatenate([steady[0][:7], steady[1][7:]])
    usual = usual_distance(np.stack([one.mean(0) for one in steady]))
    assert largest_change(gone)[0] == 7 and largest_change(gone)[1] > 0.75 * usual
    assert all(largest_change(one)[1] < 0.75 * usual for one in steady)
    assert largest_change(steady[0][:5]) == (-1, 0.0) and np.isnan(usual_distance(gone[:1]))
    by_hand = [np.linalg.norm(gone[max(0, k - 6) : k].mean(0) - gone[k : k + 6].mean(0)) for k in range(3, 10)]
    assert largest_change(gone) == (3 + int(np.argmax(by_hand)), pytest.approx(max(by_hand)))


def test_a_switch_of_a_track_is_suspected():
    clean = tiny({"boxes": "labelled"})
    plain = [
        k
        for k in range(len(clean))
        if clean.lengths[k] >= 7 and (clean.truth.shown == clean.truth.own)[clean.rows(k)].all()
    ]
    one, other = plain[0], next(k for k in plain if clean.pids[k] != clean.pids[plain[0]])
    swapped = clean.of(np.array(plain))
    length = min(clean.lengths[one], clean.lengths[other])
    swapped.pixels[swapped.rows(0)[4:length]] = clean.track(other)[4:length]
    found = clean_tracks(swapped, lambda tracks, rows: [WHOLE] * len(rows), change=0.6)
    assert found.report.switch[0] == 4


def test_a_single_track_and_tracks_of_one_frame():
    short = tiny(0).of(np.array([0]))
    assert clean_tracks(short, oracle(1.0)).report.switch.tolist() == [-1]
    ones = load_tracks("plaza", "settle", people=2, frames=1, size=(32, 16))
    assert (clean_tracks(ones, oracle(1.0, false=0)).report.frames == 1).all()


def test_what_cannot_be_cleaned_is_one_sentence():
    noisy = tiny(0)
    with pytest.raises(ValueError, match="finds nobody in any of .* frames: give more padding, or another detector"):
        clean_tracks(noisy, lambda tracks, rows: [np.zeros((0, 4))] * len(rows))
    with pytest.raises(ValueError, match="alpha is the share .* from 0 to 1, not 1.5"):
        clean_tracks(noisy, oracle(), alpha=1.5)
    with pytest.raises(ValueError, match="padding is a share .* not -0.1"):
        found_by(lambda picture: [], -0.1)
    with pytest.raises(ValueError, match="boxes for 3 frames, but the tracks have"):
        clean_tracks(noisy, listed([WHOLE] * 3))
    blind = noisy.of(np.array([0, 1]))
    object.__setattr__(blind, "truth", None)
    with pytest.raises(ValueError, match="the oracle needs tracks whose truth is known"):
        clean_tracks(blind, oracle())
    with pytest.raises(ValueError, match="only simulated tracks of people have a truth"):
        truth_scores(blind)


# ---- commands


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A folder of tracks, tiny weights in the place of those that ship, and a detector that finds the middle."
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(models, "weights_dir", lambda: tmp_path / "weights")
    torch.manual_seed(0)
    save_pretrained(tmp_path / "weights/han_small.safetensors", create_model("han_small", **TINY), CARD)
    monkeypatch.setattr(own_tracks, "hog_finder", lambda *options: middle)
    found = tiny(0)
    for k in range(6):
        folder = tmp_path / f"own/cam{found.camids[k]}/{k}"
        folder.mkdir(parents=True)
        for number, image in enumerate(found.track(k)[:3]):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number + 9}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


def middle(picture):
    "Boxes of somebody in the middle of a padded picture, nobody in a dark one."
    height, width = picture.shape[:2]
    return [[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]] if picture.mean() > 8 else []


def mistake(capsys, *arguments):
    "The one line that a wrong command ends with."
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("scalable-arch: ")
    return said


def test_clean_writes_beside_the_old_tracks_and_never_over_them(own, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in own.rglob("*"))
    assert main(["clean", str(own)]) == 0
    said = capsys.readouterr().out
    assert "6 tracks, 18 frames: 18 re-boxed, 0 without a detection kept as they were" in said and "own-clean" in said
    assert sorted((path, path.stat().st_mtime_ns) for path in own.rglob("*")) == before
    out = own.parent / "own-clean"
    names = {str(path.relative_to(out / "tracks").with_suffix("")) for path in (out / "tracks").rglob("*.jpg")}
    assert names == {str(path.relative_to(own).with_suffix("")) for path in own.glob("*/*/*.png")}
    rows = list(csv.DictReader(open(out / "report.csv", encoding="utf-8")))
    assert len(rows) == 6 and sum(int(row["reboxed"]) for row in rows) == 18 and rows[0]["track"].count("/") == 1
    frames = list(csv.DictReader(open(out / "frames.csv", encoding="utf-8")))
    assert [row["frame"] for row in frames[:3]] == ["9.png", "10.png", "11.png"] and frames[0]["done"] == "re-boxed"
    assert main(["clean", str(own)]) == 0 and (own.parent / "own-clean-2").is_dir()
    assert "nothing of yours is written over" in mistake(capsys, "clean", own, "--out", out)


def test_frames_with_nobody_are_kept_and_said(own, capsys, monkeypatch):
    dark = next(own.glob("*/*/9.png"))
    Image.fromarray(np.zeros((64, 32, 3), np.uint8)).save(dark)
    assert main(["clean", str(own), "--out", "out"]) == 0
    assert "17 re-boxed, 1 without a detection" in capsys.readouterr().out
    monkeypatch.setattr(own_tracks, "hog_finder", lambda *options: lambda picture: [])
    assert "finds nobody in any of 18 frames" in mistake(capsys, "clean", own, "--out", "none")
    assert not (own.parent / "none").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["clean", "nowhere"], "there is no folder of tracks or video nowhere"),
        (["clean", "own", "--boxes", "x.txt"], "own is a folder, which needs no --boxes"),
        (["clean", "own", "--alpha", "2"], "alpha is the share"),
        (["clean", "own", "--padding", "-1"], "padding is a share"),
        (["clean", "weights/han_small.safetensors"], "needs the boxes of a tracker"),
        (["clean", "weights"], "holds no track: put frames into"),
        (
            ["search", "own", "--tracks", "own", "--gallery", "own"],
            "either --gallery FOLDER or --video FILE or --tracks",
        ),
        (["search", "own", "--tracks", "own", "--boxes", "x"], "the boxes x are of a video"),
        (["search", "weights", "--tracks", "own"], "the query weights holds no frame that can be read"),
    ],
)
def test_commands_that_mean_nothing(own, capsys, words, sentence):
    assert sentence in mistake(capsys, *words)


def test_search_finds_tracks_by_a_track_or_a_picture(own, capsys):
    folders = sorted(own.glob("*/*"))
    asked = [str(folders[0]), str(next(folders[1].glob("*.png")))]
    assert main(["search", *asked, "--tracks", "own", "--top", "3"]) == 0
    rows = list(csv.DictReader(open("found/ranked.csv", encoding="utf-8")))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert all(row["query"] != row["found"] for row in rows[:3]) and str(folders[0]).endswith(rows[0]["query"][-6:])
    assert {row["found"] for row in rows} <= {
        str(path.relative_to(own.parent)) for path in folders
    } and "6 tracks of people" in (own.parent / "found/index.html").read_text(encoding="utf-8")


def test_a_video_with_boxes_is_cleaned_and_searched(own, capsys):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter("v.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for number in range(4):
        writer.write(np.random.default_rng(number).integers(60, 255, (64, 96, 3), np.uint8))
    writer.release()
    lines = [f"{frame},{track},{10 + 30 * track},4,20,50,1" for track in (1, 2) for frame in (1, 2, 3, 4)]
    with open("mot.txt", "w") as file:
        file.write("\n".join([*lines, "9,2,1,1,10,10,1"]) + "\n")
    assert main(["clean", "v.avi", "--boxes", "mot.txt"]) == 0
    said = capsys.readouterr()
    assert "1 of 9 boxes are in frames that" in said.err and "2 tracks, 8 frames: 8 re-boxed" in said.out
    new, old = read_mot("v-clean/boxes.txt"), read_mot("mot.txt")
    assert len(new) == 8 and new.frame.tolist() == old.frame[:8].tolist()
    assert new.x.tolist() == pytest.approx((old.x[:8] + 0.125 * old.w[:8]).tolist()) and set(new.w) == {15.0}
    assert set(new.y) == {10.2} and set(new.h) == {37.5}  # 4 + 50 / 8, with one digit
    query = str(next(own.glob("*/*/9.png")))
    assert main(["search", query, "--video", "v.avi", "--boxes", "mot.txt", "--top", "2"]) == 0
    rows = list(csv.DictReader(open("found/ranked.csv", encoding="utf-8")))
    assert {row["found"] for row in rows} == {"v.avi/track 1", "v.avi/track 2"}
