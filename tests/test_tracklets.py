"Tracklets: walks go on from frame to frame, every fault has its dial and truth, files are read in the order of time."

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from scalable_arch.cli import main
from scalable_arch.data import (
    all_clips,
    check_track_dataset,
    flip_clips,
    load_mot_tracks,
    load_track_dataset,
    load_tracks,
    open_source,
    read_mot,
    read_track_folder,
    rect_masks,
    render_track_dataset,
    restricted_random,
    set_of_tracks,
    truth_scores,
)
from scalable_arch.data.camera import FRAME
from scalable_arch.data.scenes import ground_of
from scalable_arch.data.standins import PLAZA
from scalable_arch.data.track_folders import TRACK_READERS, by_number
from scalable_arch.data.track_videos import vtest_rows, vtest_truth
from scalable_arch.data.tracklets import EVENTS, box_overlaps
from scalable_arch.data.walks import Passing, pass_by, spot_of, things_of, tremble, wander
from scalable_arch.metrics import PROTOCOLS, evaluate, evaluate_tracks

SMALL = dict(people=4, frames=8, size=(32, 16))
tiny = lambda noise=0, split="test", **options: load_tracks("plaza", split, noise=noise, **SMALL | options)
play = lambda pid=7, camid=1, visit=0, frames=12, **company: pass_by(
    Passing(pid, camid, visit, frames, **company), seed=5, crowd=PLAZA.crowd, places=PLAZA.places
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    "What is recorded here is shared by the tests of this file."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# ---- walks


def test_noise_wanders_with_the_memory_it_is_given():
    noise = wander(np.random.default_rng(0), 20_000, 2, 0.6)
    assert abs(noise.std() - 1) < 0.05 and abs((noise[1:] * noise[:-1]).mean() - 0.6) < 0.03
    assert abs((noise[:, 0] * noise[:, 1]).mean()) < 0.05


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 500), st.integers(1, 20), st.integers(0, 2))
def test_a_walk_goes_on_from_frame_to_frame_and_stays_in_the_view(pid, camid, visit):
    played = play(pid, camid, visit, 16)
    feet = np.array([[one.placed.foot for one in here] for here in played.people])[:, 0]
    height = np.diff(played.boxes[:, 0][:, 1::2])[:, 0]
    assert (np.linalg.norm(np.diff(feet, axis=0), axis=1) < 0.12 * height[:-1]).all(), "nobody jumps"
    assert (feet[:, 0] > 0.04 * FRAME[1]).all() and (feet[:, 0] < 0.96 * FRAME[1]).all()
    assert (np.abs(np.diff(height)) < 0.08 * height[:-1]).all()
    assert ((0 <= played.visible) & (played.visible <= 1)).all()


def test_ground_and_picture_are_the_same_place():
    camera = play().camera
    for x, row in ((100.0, camera.rows[0]), (650.0, camera.rows[1])):
        assert spot_of(camera, ground_of(camera, x, row)) == pytest.approx((x, row))


def test_whoever_crosses_is_in_the_same_place_of_the_picture_once_and_soon_gone():
    for visit in range(12):
        played = play(visit=visit, frames=24, cross=11)
        centre = played.boxes[..., ::2].mean(2)
        apart = np.abs(centre[:, 0] - centre[:, 1]) / np.diff(played.boxes[:, 0][:, 1::2])[:, 0]
        assert apart[played.when] < 0.12 and 1 <= (apart < 0.17).sum() <= 14
        assert apart[0] > apart[played.when] < apart[-1]


def test_company_alongside_stays_alongside():
    played = play(frames=24, along=9)
    centre = played.boxes[..., ::2].mean(2)
    apart = np.abs(centre[:, 0] - centre[:, 1]) / np.diff(played.boxes[:, 0][:, 1::2])[:, 0]
    assert apart.max() < 0.6 and played.pids.tolist() == [7, 9] and played.when == -1


def test_things_stand_in_the_scene_and_hide_whoever_passes():
    here = things_of(1, 5, PLAZA.places)
    assert here and here is things_of(1, 5, PLAZA.places)
    assert play(7).things is play(8, visit=2).things is here, "the same for everybody"
    seen = [play(pid, camid).visible[:, 0] < 0.8 for pid in range(1, 5) for camid in range(1, 13)]
    runs = np.concatenate([np.diff(np.flatnonzero(np.diff(np.r_[0, one, 0])))[::2] for one in seen])
    assert 0.02 < np.concatenate(seen).mean() < 0.4 and np.median(runs) > 2, "for some frames in a row"


def test_the_visible_share_is_that_of_the_pixels():
    played = play(7, 1, 2, 12, cross=11)
    t = played.when
    canvas, mine = np.zeros(FRAME, int), 0
    order = sorted(
        [*((one.row, one.number, one.layer) for one in played.people[t])]
        + [(row, -1, layer) for row, layer, _ in played.things],
        key=lambda x: x[0],
    )
    for _, number, layer in order:
        for y, x in zip(*np.nonzero(layer.cover)):
            row, column = y + layer.top, x + layer.left
            mine += number == 0
            if 0 <= row < FRAME[0] and 0 <= column < FRAME[1]:
                canvas[row, column] = 1 + (number == 0)
    assert played.visible[t, 0] == pytest.approx((canvas == 2).sum() / mine, abs=1e-6)


def test_boxes_tremble_as_a_trackers_do():
    habits = play().camera.boxes | dict(aspect=0.0, cuts=(0.0, 0.0), spread=0.05)
    exact = np.tile([100.0, 100.0, 140.0, 200.0], (4000, 1))
    boxes, cut = tremble(np.random.default_rng(0), exact, habits)
    error = boxes[:, 1] - boxes[:, 1].mean()
    assert abs(error.std() - 5) < 0.5 and abs((error[1:] * error[:-1]).mean() / error.var() - 0.8) < 0.05
    assert not cut.any()
    boxes, cut = tremble(np.random.default_rng(0), exact, habits, "labelled", cuts=0.2)
    assert abs(cut.mean() - 0.2) < 0.05 and boxes[cut, 3].max() < 195 < boxes[~cut, 3].min()


# ---- sets


def test_the_same_source_is_the_same_pixels_and_fewer_people_are_the_first_of_more(monkeypatch, tmp_path):
    one, more = tiny(2, people=2), tiny(2, people=4)
    mine = np.isin(more.truth.own, [10001, 10002])
    people = np.isin(more.corrected, [10001, 10002])
    assert torch.equal(one.of(one.pids > 0).images(np.arange(5)), more.of(people).images(np.arange(5)))
    assert mine.any() and one.truth.own[0] == 10001
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path))
    again = tiny(2, people=2)
    assert torch.equal(again.pixels, one.pixels) and (again.truth.table() == one.truth.table()).all().all()


def test_splits_share_neither_people_nor_cameras_scenes():
    train, settle, test = (tiny(split=split) for split in ("train", "settle", "test"))
    assert not set(train.pids) & set(test.pids) and not set(settle.pids) & set(test.pids)
    assert not train.query.any() and not train.gallery.any() and set(train.labels) == set(range(4))
    for found in (settle, test):
        assert (found.query ^ found.gallery).all()
        pairs = list(zip(found.pids[found.query], found.camids[found.query]))
        assert len(pairs) == len(set(pairs)) == len(set(zip(found.pids, found.camids)))
    assert test.lengths.min() >= 6 and test.lengths.max() <= 10 and test.starts[-1] == len(test.frames)


def test_a_part_of_a_set_keeps_what_belongs_together():
    whole = tiny(2)
    part = whole.of(np.array([3, 1]))
    for new, old in enumerate((3, 1)):
        assert torch.equal(part.track(new), whole.track(old)) and part.pids[new] == whole.pids[old]
        assert (part.truth.own[part.rows(new)] == whole.truth.own[whole.rows(old)]).all()
    assert len(whole.of(whole.pids > 0)) == (whole.pids > 0).sum() and set(part.labels) <= {0, 1}


def test_clean_labels_are_right_and_clean_boxes_fit():
    clean = tiny(0, people=8)
    assert (clean.corrected == clean.pids).all() and (clean.second == -1).all() and (clean.pids > 0).all()
    scores = truth_scores(clean)
    assert scores["overlap"] > 0.8 and scores["right"] > 0.85
    assert truth_scores(tiny(2, people=8))["overlap"] < scores["overlap"]


def test_every_dial_does_what_it_says_and_nothing_else():
    clean, many = tiny(0, people=8), len(tiny(0, people=8).frames)
    event = lambda found, word: (found.truth.event == EVENTS.index(word)).mean()
    assert abs(1 - len(tiny({"misses": 0.3}, people=8).frames) / many - 0.3) < 0.12
    assert event(tiny({"jumps": 0.2}, people=8), "jump") == pytest.approx(0.2, abs=0.05)
    assert event(tiny({"cuts": 0.2}, people=8), "cut") > 0.08
    broken = tiny({"fragments": 1.0}, people=8)
    assert len(broken) == 2 * len(clean) and torch.equal(broken.pixels, clean.pixels)
    wrong = tiny({"wrong": 0.5}, people=8)
    assert 0.3 < (wrong.pids != wrong.corrected).mean() < 0.7 and (wrong.corrected == clean.pids).all()
    assert set(wrong.pids) <= set(clean.pids)
    double = tiny({"doubles": 0.5}, people=8)
    assert set(double.pids) - set(clean.pids) == {pid + 30_000 for pid in set(double.pids - 30_000) & set(clean.pids)}
    assert (double.corrected == clean.pids).all() and torch.equal(double.pixels, clean.pixels)
    copied = tiny({"copies": 1.0, "strangers": 1.0}, people=8)
    assert (copied.pids == 0).sum() == 2 * len(clean) and (copied.corrected[copied.pids == 0] == 0).all()
    assert (~copied.query[copied.pids == 0]).all()


def test_drifts_return_switches_do_not_and_pairs_hold_both():
    for word, share in (("drifts", "drift"), ("switches", "switch")):
        found = tiny({word: 1.0}, people=8, frames=16)
        hit = [found.truth.event[found.rows(k)] == EVENTS.index(share) for k in range(len(found))]
        company = (found.truth.others[found.starts[:-1], 0, 0] >= 0) | (
            found.truth.others[found.starts[:-1], 1, 0] >= 0
        )
        assert (np.array([one.any() for one in hit]) == company).all() and 0.3 < company.mean() < 0.8
        ends = np.array([one[-1] for one in hit if one.any()])
        assert ends.all() if share == "switch" else ends.mean() < 0.5
        lengths = [one.sum() for one in hit if one.any() and not one[-1]]
        assert share == "switch" or (min(lengths) >= 3 and max(lengths) <= 10)
    both = tiny({"pairs": 1.0}, people=8)
    with_second = np.flatnonzero(both.second >= 0)
    assert len(with_second) and truth_scores(both.of(with_second))["overlap"] < 0.75
    for k in with_second:
        rows = both.rows(k)
        assert (both.truth.others[rows, 0, 0] == both.second[k]).all()
        inside = np.minimum(both.truth.others[rows, 0, 3], both.truth.boxes[rows, 2]) - np.maximum(
            both.truth.others[rows, 0, 1], both.truth.boxes[rows, 0]
        )
        assert (inside > 0.4 * (both.truth.others[rows, 0, 3] - both.truth.others[rows, 0, 1])).mean() > 0.8


def test_more_of_a_fault_keeps_what_was_there_and_changes_no_other_frame():
    few, many = tiny({"drifts": 0.4}, people=8), tiny({"drifts": 0.9}, people=8)
    drift = EVENTS.index("drift")
    assert few.truth.event[few.truth.event == drift].size < (many.truth.event == drift).sum()
    assert (many.truth.event[few.truth.event == drift] == drift).all()
    rows = np.flatnonzero((many.truth.boxes == tiny(0, people=8).truth.boxes).all(1))
    assert len(rows) > 100 and torch.equal(many.images(rows), tiny(0, people=8).images(rows))


def test_who_is_shown_is_whoever_fills_the_box():
    found = tiny({"boxes": "detected", "drifts": 0.8, "jumps": 0.1}, people=8)
    truth = found.truth
    for row in range(0, len(found.frames), 7):
        best, name = 0.1, -1
        own = [(truth.own[row], truth.exact[row], truth.visible[row], 0.05)]
        for pid, box, seen, more in own + [(o[0], o[1:5], o[5], 0.0) for o in truth.others[row] if o[0] >= 0]:
            size = np.minimum(box[2:], truth.boxes[row][2:]) - np.maximum(box[:2], truth.boxes[row][:2])
            both = max(0.0, float(size[0])) * max(0.0, float(size[1]))
            area = lambda b: float(b[2] - b[0]) * float(b[3] - b[1])
            share = both / (area(box) + area(truth.boxes[row]) - both) * float(seen)
            share += more * (share >= 0.1)
            if share >= best:
                best, name = share + 1e-9, pid
        assert truth.shown[row] == name
    pids, boxes = truth.people(3)
    left, top, right, low = truth.boxes[3]
    back = boxes * [right - left, low - top, right - left, low - top] + [left, top, left, top]
    assert pids[0] == truth.own[3] and back[0] == pytest.approx(truth.exact[3], abs=1e-2)


def test_overlap_of_boxes():
    one = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2]], float)
    two = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2]], float)
    assert box_overlaps(one, two) == pytest.approx([1 / 3, 0, 1])


@pytest.mark.parametrize(
    "options, sentence",
    [
        (dict(noise=3), "unknown noise level 3.*0, 1, 2"),
        (dict(noise={"drift": 0.2}), "unknown dial of noise 'drift' .did you mean 'drifts'"),
        (dict(noise={"drifts": 1.2}), "the dial drifts of noise is a share from 0 to 1, not 1.2"),
        (dict(noise={"boxes": "loose"}), "unknown boxes 'loose'"),
        (dict(people=1), "people must be a whole number from 2"),
        (dict(frames=0), "frames must be a whole number from 1"),
        (dict(size=(4, 4)), "size must be .height, width."),
        (dict(split="val"), "unknown split 'val'"),
    ],
)
def test_a_set_that_cannot_be_is_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**options)


def test_tracks_of_one_frame():
    found = tiny(1, frames=1, people=2)
    assert (found.lengths == 1).any() and found.lengths.max() == 1
    assert restricted_random(1, 4).tolist() == [0, 0, 0, 0] and all_clips(1, 4).tolist() == [[0, 0, 0, 0]]
    assert found.images(found.rows(0)[restricted_random(1, 4)]).shape == (4, 3, 32, 16)


# ---- which frames


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_a_random_frame_of_every_chunk(length, clip, seed):
    chosen = restricted_random(length, clip, torch.Generator().manual_seed(seed))
    first = restricted_random(length, clip)
    for t in range(clip):
        assert t * length // clip <= chosen[t] < max((t + 1) * length / clip, t * length // clip + 1)
        assert first[t] == t * length // clip
    assert (np.diff(chosen) >= 0).all() and chosen.max() < length
    assert clip < length or set(first) == set(range(length)), "a short track is shown whole"


def test_all_frames_of_a_chunk_are_drawn_as_often():
    generator, counts = torch.Generator().manual_seed(0), np.zeros(12)
    for _ in range(3000):
        counts[restricted_random(12, 3, generator)] += 1
    assert abs(counts - 750).max() < 120


@given(st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_clips_cover_a_track(length, clip, strided):
    clips = all_clips(length, clip, strided=strided)
    assert clips.shape == (-(-length // clip), clip) and set(clips.ravel()) == set(range(length))
    assert (np.diff(clips, axis=1) >= 0).all()
    assert (clips[0] == (restricted_random(length, clip) if strided else np.minimum(np.arange(clip), length - 1))).all()


@pytest.mark.parametrize("length, clip", [(0, 4), (4, 0), (2.5, 4)])
def test_no_frames_are_no_clip(length, clip):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        restricted_random(length, clip)


share = st.floats(0, 1).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(share, share, share, share), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 6))
def test_masks_are_shares_of_cells_and_never_empty(corners, height, width):
    rects = torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners], dtype=torch.float64)
    masks = rect_masks(rects, height, width)
    for rect, mask in zip(rects.tolist(), masks):
        x0, y0, x1, y1 = rect if rect[0] < rect[2] and rect[1] < rect[3] else (0, 0, 1, 1)
        for i in range(height):
            for j in range(width):
                tall = max(0.0, min(y1 * height, i + 1) - max(y0 * height, i))
                wide = max(0.0, min(x1 * width, j + 1) - max(x0 * width, j))
                assert mask[i, j].item() == pytest.approx(tall * wide, abs=1e-9)
        assert mask.sum() > 0


def test_a_flip_turns_a_whole_track_and_its_masks():
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(16, 3, 3, 4, 6)
    rects = torch.rand(16, 3, 4).sort(-1).values[..., [0, 1, 2, 3]]
    flipped, mirrored = flip_clips(clips, generator, rects)
    turned = [torch.equal(after, before.flip(-1)) for after, before in zip(flipped, clips)]
    kept = [torch.equal(after, before) for after, before in zip(flipped, clips)]
    assert all(a != b for a, b in zip(turned, kept)) and 2 < sum(turned) < 14
    masks, after = rect_masks(rects, 4, 6), rect_masks(mirrored, 4, 6)
    for row, flip in enumerate(turned):
        assert torch.allclose(after[row], masks[row].flip(-1) if flip else masks[row], atol=1e-6)
    assert flip_clips(clips, generator)[1] is None


# ---- protocols


def scores_by_hand(features, pids, camids, query, gallery, corrected, second, name):
    "mAP, rank-1 and the number of valid queries of a protocol, in loops."
    rules, aps, firsts = PROTOCOLS[name], [], []
    right = [c if rules.corrected and p > 0 else p for p, c in zip(pids, corrected)]
    ids = [({int(p)} | ({int(s)} if rules.second_ids else set())) - {0, -1} for p, s in zip(right, second)]
    zero = pids == 0
    for q in np.flatnonzero(query):
        found = []
        for g in range(len(pids)):
            inside = (gallery[g] or query[g]) if rules.queries_in_gallery else (gallery[g] and not query[g])
            if not inside or pids[g] == -1 or (zero[g] and rules.distractors == "dropped"):
                continue
            same = bool(ids[q] & ids[g])
            near = camids[g] == camids[q]
            if near and (same or (zero[g] and rules.distractors.startswith("ignored"))):
                continue
            found.append((float(np.linalg.norm(features[q] - features[g])), g, same))
        places = [place for place, (_, _, same) in enumerate(sorted(found), 1) if same]
        if places:
            area = 0.0
            for k, place in enumerate(places, 1):
                before = 1.0 if place == 1 else (k - 1) / (place - 1)
                area += k / place if rules.ap == "rectangle" else (before + k / place) / 2
            aps.append(area / len(places))
            firsts.append(places[0] == 1)
    return np.mean(aps), np.mean(firsts), len(aps)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_protocols_against_loops(name, seed):
    rng = np.random.default_rng(seed)
    pids, camids = rng.integers(-1, 6, 60), rng.integers(1, 4, 60)
    query = (rng.random(60) < 0.4) & (pids > 0)
    gallery = ~query | (rng.random(60) < 0.2)
    corrected = np.where(rng.random(60) < 0.2, rng.integers(1, 6, 60), pids)
    second = np.where(rng.random(60) < 0.2, rng.integers(1, 6, 60), -1)
    labels = dict(pids=pids, camids=camids, query=query, gallery=gallery, corrected=corrected, second=second)
    features = rng.normal(size=(60, 3))
    found = evaluate_tracks(features, **labels, protocol=name)
    assert (found.mAP, found.rank(1), found.num_valid) == pytest.approx(scores_by_hand(features, **labels, name=name))
    assert found.num_query == query.sum() and found.protocol["name"] == name


def test_the_official_protocol_is_evaluate_with_queries_in_the_gallery():
    found = tiny(2)
    features = found.images(found.starts[:-1]).float().mean((2, 3)).numpy()
    whose = found.whose()
    mine = evaluate_tracks(features, **whose)
    usual = evaluate(
        features[found.query],
        features,
        query_pids=found.pids[found.query],
        gallery_pids=found.pids,
        query_camids=found.camids[found.query],
        gallery_camids=found.camids,
        ap="trapezoid",
    )
    assert (mine.mAP, mine.mINP) == (usual.mAP, usual.mINP) and (mine.cmc == usual.cmc).all()
    assert (mine.protocol["ap"], mine.protocol["queries_in_gallery"]) == ("trapezoid", True)
    clean = evaluate_tracks(features, **whose, protocol="mars_clean")
    assert clean.num_valid < mine.num_valid <= mine.num_query and clean.protocol["distractors_in_gallery"] == 0
    assert "rectangle" in str(clean) and json.loads(json.dumps(clean.protocol))["name"] == "mars_clean"


def test_nobody_is_no_second_id_and_a_copy_in_the_same_camera_is_ignored():
    labels = dict(pids=[1, 1, 0, 2], camids=[1, 2, 1, 2], second=[-1, -1, -1, -1], corrected=[1, 1, 0, 2])
    labels |= dict(query=np.array([True, False, False, False]), gallery=np.array([False, True, True, True]))
    features = np.array([[0.0], [2.0], [0.1], [3.0]])
    score = lambda name, **changed: evaluate_tracks(features, **labels | changed, protocol=name).mAP
    assert score("mars_official") == pytest.approx(0.25) and score("mars_clean") == score("cfaan_new") == 1
    assert score("cfaan_new", camids=[1, 2, 2, 2]) == 0.5, "elsewhere a distractor is wrong"
    assert score("cfaan_new", second=[-1, -1, -1, 1], camids=[1, 2, 3, 2]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert score("cfaan_new", corrected=[2, 1, 0, 2]) == pytest.approx(0.5), "the relabelled track is the match"


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (dict(camids=[1] * 4), "all images are from one camera"),
        (dict(query=np.array([False] * 4)), "there is no query track"),
        (dict(query=np.array([True] * 4)), "there is no gallery track"),
        (dict(pids=[0, 1, 1, 2]), "a query must be of a person, but 1 are of id 0"),
        (dict(query=[1, 0, 0, 0]), "query must be booleans, one for each of the 4 tracks"),
        (dict(pids=[1, 1]), "pids has shape .2,., but there are 4 tracks"),
    ],
)
def test_tracks_that_cannot_be_scored(changed, sentence):
    labels = dict(pids=[1, 1, 2, 2], camids=[1, 2, 1, 2], query=np.array([True, False, False, False]))
    labels = labels | dict(gallery=~labels["query"]) | changed
    with pytest.raises(ValueError, match=sentence):
        evaluate_tracks(np.eye(4), **labels, protocol="mars_clean")
    with pytest.raises(ValueError, match="unknown protocol 'mars'.*mars_official"):
        evaluate_tracks(np.eye(4), **labels, protocol="mars")


# ---- folders


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    "A rendered copy of every set of tracks."
    root = tmp_path_factory.mktemp("copies")
    for name in TRACK_READERS:
        render_track_dataset(name, root / name, num_train_ids=3, num_test_ids=3, frames=4, size=(24, 12))
    return root


@pytest.fixture
def copy(copies, tmp_path):
    "Copies that a test may spoil."
    return lambda name: Path(shutil.copytree(copies / name, tmp_path / name))


@pytest.mark.parametrize("name", TRACK_READERS)
def test_copies_are_read_in_the_order_of_time_and_not_touched(copies, name):
    before = sorted((path, path.stat().st_mtime_ns) for path in (copies / name).rglob("*"))
    found = load_track_dataset(name, copies / name)
    for track in (*found.train, *found.test):
        assert list(track.paths) == sorted(track.paths, key=by_number) and len(track.paths) >= 3
        assert len({Path(path).parent for path in track.paths}) == 1
    assert {track.pid for track in found.train} == {1, 2, 3} and not any(track.query for track in found.train)
    assert {track.pid for track in found.test} - {0, -1} == {4, 5, 6} and any(track.query for track in found.test)
    assert check_track_dataset(name, copies / name, decode=True, progress=False).ok
    for split in ("train", "settle", "test"):
        source = {"dataset": name, "held_out": True}
        tracks = open_source(source, split, task="video", size=(16, 8), data_root=copies / name)
        assert tracks.track(0).shape[1:] == (3, 16, 8) and tracks.query.any() == (split != "train")
    assert sorted((path, path.stat().st_mtime_ns) for path in (copies / name).rglob("*")) == before


def test_what_is_particular_to_each_layout(copies):
    mars = load_track_dataset("mars", copies / "mars")
    rows = loadmat(copies / "mars/info/tracks_test_info.mat")["track_test_info"]
    names = (copies / "mars/info/test_name.txt").read_text().split()
    for track, (first, last, pid, camid) in zip(mars.test, rows.tolist()):
        assert [Path(path).name for path in track.paths] == names[first - 1 : last]
        assert (track.pid, track.camid) == (pid, camid)
    assert sum(len(track.paths) for track in mars.test) == len(names) and {0, -1} < {track.pid for track in mars.test}
    duke = load_track_dataset("dukemtmc_video", copies / "dukemtmc_video")
    firsts = [Path(track.paths[0]).name for track in duke.train]
    assert any("F0002" in name for name in firsts) and any("F0001" in name for name in firsts)
    assert any("_" in name for name in firsts) and any("_" not in name for name in firsts)
    queries = [track for track in duke.test if track.query]
    assert len(queries) == len({(track.pid, track.camid) for track in queries})
    for pairs in ("ilids_vid", "prid2011"):
        found = load_track_dataset(pairs, copies / pairs, fold=3)
        assert [track.camid for track in found.test] == [1, 2] * 3 and all(
            t.query == (t.camid == 1) for t in found.test
        )
    assert by_number("f10.png") > by_number("f9.png")


def test_rows_that_do_not_fit_are_named(copy):
    mars = copy("mars")
    file = mars / "info/tracks_train_info.mat"
    rows = loadmat(file)["track_train_info"]
    savemat(file, {"track_train_info": rows - [1, 1, 0, 0]})  # counted from 0
    with pytest.raises(ValueError, match="row 1 of .*tracks_train_info.mat counts frames 0 to"):
        load_track_dataset("mars", mars)
    savemat(file, {"track_train_info": rows - [0, -1, 0, 0]})  # the last not included
    with pytest.raises(ValueError, match="the rows count from 1 and include the last|counts frames"):
        load_track_dataset("mars", mars)
    file.write_bytes(b"MATLAB")
    with pytest.raises(ValueError, match="tracks_train_info.mat cannot be read, it is damaged"):
        load_track_dataset("mars", mars)


def test_missing_and_cut_frames_are_found(copy, capsys):
    prid = copy("prid2011")
    track = load_track_dataset("prid2011", prid).train[0]
    data = Path(track.paths[1]).read_bytes()
    Path(track.paths[1]).write_bytes(data[: len(data) // 2])
    assert main(["data", "check", "prid2011", "--root", str(prid), "--decode"]) == 2
    assert "1 of " in (said := capsys.readouterr().out) and Path(track.paths[1]).name in said
    tracks = set_of_tracks([track], (16, 8))
    with pytest.raises(ValueError, match=f"{Path(track.paths[1]).name}.*copy them again"):
        tracks.track(0)
    shutil.rmtree(Path(track.paths[0]).parent)
    with pytest.raises(ValueError, match="there is no frame of person_"):
        load_track_dataset("prid2011", prid)
    assert not check_track_dataset("prid2011", prid).ok


def test_a_copy_that_is_not_whole_says_so(copy):
    duke = copy("dukemtmc_video")
    shutil.rmtree(next(path for path in sorted((duke / "train/0001").iterdir())))
    with pytest.raises(
        ValueError, match="dukemtmc_video in .* is not complete: train has .* tracks where the rendered"
    ):
        load_track_dataset("dukemtmc_video", duke)
    assert load_track_dataset("dukemtmc_video", duke, check=False).train
    shutil.rmtree(duke / "query")
    with pytest.raises(FileNotFoundError, match="query is missing.*withdrawn, 2019"):
        load_track_dataset("dukemtmc_video", duke)
    (duke / "world.json").unlink()
    check = check_track_dataset("dukemtmc_video", duke)
    assert not check.ok and "withdrawn" in check.problems[0]


def test_folds_and_copies_that_cannot_be(copies, tmp_path):
    with pytest.raises(ValueError, match="fold must be a whole number from 0 to 9"):
        load_track_dataset("ilids_vid", copies / "ilids_vid", fold=10)
    with pytest.raises(ValueError, match="ilids_vid has two cameras"):
        render_track_dataset("ilids_vid", tmp_path / "x", num_train_ids=3, num_test_ids=3, num_cameras=4)
    with pytest.raises(ValueError, match="split in halves"):
        render_track_dataset("ilids_vid", tmp_path / "x", num_train_ids=6, num_test_ids=3)
    with pytest.raises(FileExistsError, match="nothing of yours is written over"):
        render_track_dataset("mars", copies / "mars", num_train_ids=2, num_test_ids=2)
    assert not (tmp_path / "x").exists()


def test_the_command_renders_and_checks(tmp_path, capsys):
    out = str(tmp_path / "mars")
    assert main(["data", "render", "mars", "--out", out, "--ids", "4", "--frames", "2", "--cameras", "2"]) == 0
    assert "laid out as mars" in capsys.readouterr().out
    assert main(["data", "check", "mars", "--root", out]) == 0
    assert main(["data", "render", "mars", "--out", str(tmp_path / "x"), "--ids", "4", "--shots", "3"]) == 2
    assert "mars knows no --shots: leave it out, or choose of --frames, --noise" in capsys.readouterr().err


# ---- one's own


def write_own(folder, tracks, size=(24, 12)):
    "Frames of random pixels: {camera/track: number of frames}."
    rng = np.random.default_rng(0)
    for name, count in tracks.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"f{number + 8}.jpg")
    return folder


def test_ones_own_folder_with_all_that_may_be_wrong(tmp_path):
    own = write_own(tmp_path / "own", {"gate/1": 4, "gate/2": 1, "hall/1": 3})
    Image.fromarray(np.zeros((90, 30, 3), np.uint8)).save(own / "gate/1/f99.png")  # of another size
    (own / "hall/1/f8.jpg").write_bytes((own / "hall/1/f8.jpg").read_bytes()[:200])
    (own / "hall/1/._f9.jpg").write_bytes(b"of a Mac")
    (own / "hall/empty").mkdir()
    tracks, names, notes = read_track_folder(own, (20, 10))
    assert names == ["gate/1", "gate/2", "hall/1"] and tracks.lengths.tolist() == [5, 1, 2]
    assert tracks.camids.tolist() == [1, 1, 2] and tracks.pids.tolist() == [1, 2, 3]
    assert [Path(path).name for path in tracks.pixels.paths[:3]] == ["f8.jpg", "f9.jpg", "f10.jpg"]
    assert tracks.track(0).shape == (5, 3, 20, 10)
    assert "1 frames cannot be read" in notes[0] and "f8.jpg" in notes[0] and "hall/empty" in notes[1]
    assert tracks.of(np.array([2])).track(0).shape == (2, 3, 20, 10)
    with pytest.raises(ValueError, match="holds no track: put frames into .*/CAMERA/TRACK/FRAME.jpg"):
        read_track_folder(own / "hall/empty")
    with pytest.raises(FileNotFoundError, match="there is no folder of tracks"):
        read_track_folder(tmp_path / "none")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    "A video of six frames, 64 x 48, and boxes of two tracks in it, some of which cannot be used."
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("video")
    writer = cv2.VideoWriter(str(folder / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(6):
        writer.write(np.full((48, 64, 3), 30 * number, np.uint8))
    writer.release()
    lines = [f"{frame},1,10,10,20,30,1,-1,-1,-1" for frame in (3, 1, 2)]
    lines += ["2,7,-15,20,20,40,1", "4,7,70,10,10,20,1", "9,7,1,1,10,20,1", "5,8,100,0,5,5,1", "6,1,0,0,9,9,0"]
    (folder / "mot.txt").write_text("\n".join(lines) + "\n")
    return folder / "v.avi", folder / "mot.txt"


def test_a_video_with_a_file_of_boxes(video):
    tracks, names, notes, used = load_mot_tracks(*video, size=(16, 8))
    assert names == ["1", "7"] and tracks.lengths.tolist() == [3, 1] and tracks.frames.tolist() == [1, 2, 3, 2]
    bright = tracks.pixels.float().mean((1, 2, 3)).tolist()
    assert bright == pytest.approx([0, 30, 60, 30], abs=3), "each frame at its place"
    assert "2 of 7 boxes lie outside the picture, the first is of track 7 in frame 4" in notes[0]
    assert "1 of 7 boxes are in frames that" in notes[1] and "frame 9" in notes[1] and "1 of 3 tracks" in notes[2]
    assert used.x.tolist() == [10, 10, 10, -15] and set(tracks.camids) == {1}


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("1,1,2\n", "line 1 of .* is no box but '1,1,2'"),
        ("1,1,2,3,4,5\n1,x,2,3,4,5\n", "line 2 of .* is no box"),
        ("0,1,2,3,4,5\n", "frames count from 1"),
        ("1,1,2,3,0,5\n", "width and height are above 0"),
        ("1,1.5,2,3,4,5\n", "tracks are whole numbers"),
        ("1,1,nan,3,4,5\n", "line 1 of .* is no box"),
        ("1,1,2,3,4,5\n1,1,2,3,4,6\n", "two boxes of track 1 in frame 1"),
        ("1,1,2,3,4,5,0\n", "holds no box"),
        ("", "holds no box"),
    ],
)
def test_boxes_that_are_none(tmp_path, text, sentence):
    (tmp_path / "mot.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_mot(tmp_path / "mot.txt")


def test_boxes_of_another_video(video, tmp_path):
    (tmp_path / "far.txt").write_text("70,1,2,3,4,5\n3,2,-50,3,4,5\n")
    with pytest.raises(ValueError, match="no box of .*far.txt is in .*outside the picture.*frames that"):
        load_mot_tracks(video[0], tmp_path / "far.txt")
    (tmp_path / "no.avi").write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot be read as a video"):
        load_mot_tracks(tmp_path / "no.avi", video[1])
    with pytest.raises(FileNotFoundError, match="there is no video"):
        load_mot_tracks(tmp_path / "none.avi", video[1])


def test_clips_of_real_people_and_who_switches():
    for clip in (8, 16, 32):
        boxes, names = vtest_rows(clip)
        assert (np.unique(names, return_counts=True)[1] == clip).all() and (
            np.diff(np.flatnonzero(np.diff(names))) == clip
        ).all()
        parts = boxes.groupby(names)
        assert (parts.person.nunique() == 1).all() and (parts.visit.nunique() == 1).all()
        assert all(part.frame.is_monotonic_increasing for _, part in parts)
    boxes, names = vtest_rows(None)
    truth = vtest_truth(boxes, names, boxes)
    mixed = [k for k in range(35) if len(set(truth.shown[names == k]) - {-1}) > 1]
    assert mixed == [3, 9, 11]
    for k, (first, last, change) in {3: (6, 5, 37), 9: (9, 6, 152), 11: (7, 10, 143)}.items():
        shown, frames = truth.shown[names == k], boxes.frame.to_numpy()[names == k]
        assert set(truth.own[names == k]) == {first} and shown[shown > 0][-1] == last
        assert frames[np.flatnonzero(shown == last)[0]] == change
    assert (truth.shown == -1).sum() == 103
