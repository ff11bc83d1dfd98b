"""Person-search scores against a slow, obvious reference; the protocols; the mistakes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from scalable_arch.metrics import evaluate_person_search, person_search

# Products of these are multiples of 1/4, exact in any order of adding: ties are ties for everybody.
DIRECTIONS = np.array(
    [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [-1, 0, 0, 0],
        *(np.array([a, b, c, 1]) / 2 for a in (1, -1) for b in (1, -1) for c in (1, -1)),
    ]
)


def iou_of_two(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def similar(a, b):
    return sum(x * y for x, y in zip(a.tolist(), b.tolist()))


def reference(
    query_features, detections, queries, truth_boxes, truth_pids, camids, galleries, protocol, iou_threshold, min_score
):
    """For each query: None without its person, else (similarities, labels) of the sorted list and in how many scenes
    he is."""
    lists = []
    for feature, (own, box) in zip(query_features, queries):
        pid = truth_pids[own][box]
        entries, held = [], 0
        for scene in range(len(detections)):
            listed = galleries is None or scene in list(galleries[len(lists)])
            if scene == own or not listed or (protocol == "prw_other_cameras" and camids[scene] == camids[own]):
                continue
            boxes, scores, features = detections[scene]
            found = [
                (-similar(feature, features[j]), scene, j)
                for j in range(len(boxes))
                if min_score is None or scores[j] >= min_score
            ]
            right = None
            places = [i for i, other in enumerate(truth_pids[scene]) if other == pid]
            if places:
                held += 1
                true = truth_boxes[scene][places[0]]
                w, h = true[2] - true[0], true[3] - true[1]
                needed = min(iou_threshold, w * h / ((w + 10) * (h + 10)))
                right = next((j for _, _, j in sorted(found) if iou_of_two(true, boxes[j]) >= needed), None)
            entries += [(*entry, int(entry[2] == right)) for entry in found]
        lists.append((sorted(entries), held) if held else None)
    return lists


def scores_of(lists, ks):
    aps, cmcs = [], []
    for entry in lists:
        if entry is None:
            aps.append(None)
            continue
        entries, held = entry
        found, ap = 0, 0.0
        for place, (*_, label) in enumerate(entries):
            if label:
                found += 1
                ap += found / (place + 1) / held
        aps.append(ap)
        cmcs.append([any(label for *_, label in entries[:k]) for k in ks])
    return aps, np.mean(cmcs, axis=0) if cmcs else None


@st.composite
def worlds(draw):
    """Few people in few scenes, found now and then, displaced, twice or not at all; sizes where the rule for small
    people matters."""
    pick = lambda *values: draw(st.sampled_from(values))
    num_scenes = draw(st.integers(1, 6))
    truth_boxes, truth_pids, detections = [], [], []
    for _ in range(num_scenes):
        pids = draw(st.lists(st.integers(-1, 3), max_size=4))
        size = [(pick(8, 12, 40), pick(20, 80)) for _ in pids]
        boxes = np.array([[i * 50, 0, i * 50 + w, h] for i, (w, h) in enumerate(size)], float).reshape(-1, 4)
        found = [
            box + np.tile([pick(0, 2, 4, 15), pick(0, 6)], 2) for box in boxes for _ in range(pick(0, 1, 1, 2))
        ] + [np.array([5.0, 5, 9, 9])] * pick(0, 1)
        kinds = [draw(st.integers(0, len(DIRECTIONS) - 1)) for _ in found]
        detections.append(
            (
                np.array(found).reshape(-1, 4),
                np.array([pick(0.2, 0.8) for _ in found]),
                DIRECTIONS[kinds].reshape(-1, 4),
            )
        )
        truth_boxes.append(boxes), truth_pids.append(np.array(pids, int))
    named = [(scene, box) for scene, pids in enumerate(truth_pids) for box, pid in enumerate(pids) if pid >= 0]
    if not named:
        truth_boxes[0], truth_pids[0], named = np.array([[0.0, 0, 40, 80]]), np.array([1]), [(0, 0)]
    queries = np.array(draw(st.lists(st.sampled_from(named), min_size=1, max_size=5)))
    protocol = pick(*person_search.PROTOCOLS)
    galleries = pick(None, [draw(st.lists(st.integers(0, num_scenes - 1), unique=True)) for _ in queries])
    return dict(
        query_features=DIRECTIONS[[draw(st.integers(0, len(DIRECTIONS) - 1)) for _ in queries]],
        detections=detections,
        queries=queries,
        truth_boxes=truth_boxes,
        truth_pids=truth_pids,
        camids=np.array([draw(st.integers(0, 1)) for _ in range(num_scenes)]),
        galleries=galleries,
        protocol=protocol,
        iou_threshold=pick(0.3, 0.5, 0.7),
        min_score=pick(None, 0.5),
    )


@settings(max_examples=200, deadline=None)
@given(worlds(), st.sampled_from([1, 20, 2**20]))
def test_against_loops(world, block):
    ks = (1, 2, 5)
    expected = reference(**world)
    aps, cmc = scores_of(expected, ks)
    valid = [ap is not None for ap in aps]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(person_search, "BLOCK_ELEMENTS", block)
        if not any(valid):
            with pytest.raises(ValueError, match="no query has its person in its scenes"):
                evaluate_person_search(**world)
            return
        result = evaluate_person_search(**world, ks=ks, top_k=4)
    assert (result.num_valid, result.num_query) == (sum(valid), len(valid))
    np.testing.assert_allclose(result.ap, [np.nan if ap is None else ap for ap in aps], atol=1e-12)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-12)
    assert abs(result.mAP - np.mean([ap for ap in aps if ap is not None])) < 1e-12
    for query, entry in enumerate(expected):
        if entry is not None:
            entries, held = entry
            labels = [label for *_, label in entries]
            assert result.num_truth[query] == held and result.num_found[query] == sum(labels)
            assert result.first_match[query] == (labels.index(1) if any(labels) else -1)
            top = entries[:4]
            assert result.ranking[query].tolist() == [[scene, j] for _, scene, j, _ in top] + [[-1, -1]] * (
                4 - len(top)
            )
            assert result.ranking_labels[query].tolist() == [label for *_, label in top] + [-1] * (4 - len(top))
            assert result.ranking_similarities[query, : len(top)].tolist() == [-value for value, *_ in top]


def town(seed=0, num_scenes=60, people=12, dim=8):
    "A world without ties, in which one person in five is not detected."
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    faces = rng.standard_normal((people, dim))
    truth_boxes = [np.array([[i * 60.0, 0, i * 60 + 40, 100] for i in range(4)]) for _ in range(num_scenes)]
    truth_pids = [rng.choice(people, 4, replace=False) for _ in range(num_scenes)]
    detections = []
    for boxes, pids in zip(truth_boxes, truth_pids):
        seen = rng.uniform(size=4) > 0.2
        detections.append(
            (
                boxes[seen] + rng.normal(0, 3, (seen.sum(), 1)),
                rng.uniform(size=seen.sum()),
                unit(faces[pids[seen]] + rng.normal(0, 0.8, (seen.sum(), dim))),
            )
        )
    queries = np.stack([np.arange(20), rng.integers(0, 4, 20)], 1)
    wanted = unit(faces[[truth_pids[scene][box] for scene, box in queries]] + rng.normal(0, 0.8, (20, dim)))
    return dict(
        query_features=wanted,
        detections=detections,
        queries=queries,
        truth_boxes=truth_boxes,
        truth_pids=truth_pids,
        camids=np.arange(num_scenes) % 3,
    )


def test_ap_is_that_of_scikit_learn_times_recall():
    world = town()
    result = evaluate_person_search(**world, protocol="prw")
    for ap, (entries, held) in zip(
        result.ap, reference(**world, galleries=None, protocol="prw", iou_threshold=0.5, min_score=None)
    ):
        labels = [label for *_, label in entries]
        assert ap == pytest.approx(
            average_precision_score(labels, [-entry[0] for entry in entries]) * sum(labels) / held, abs=1e-12
        )
    assert result.recall == pytest.approx(result.num_found.sum() / result.num_truth.sum()) and 0.5 < result.recall < 1


def test_sizes_of_galleries():
    "All scenes with the person stay, others fill up; smaller galleries are part of larger ones; the result says so."
    world = town()
    full = evaluate_person_search(**world)
    results = [evaluate_person_search(**world, gallery_size=size) for size in (1, 25, 40, 59, 1000)]
    assert all(
        np.array_equal(result.num_truth, full.num_truth) and np.array_equal(result.num_found, full.num_found)
        for result in results
    )
    for small, large in zip(results, results[1:]):
        assert (small.ap >= large.ap).all()
    assert results[0].mAP > results[2].mAP and results[3].mAP == results[4].mAP == full.mAP
    assert "25 of them" in results[1].protocol["scenes"] and "all scenes" in full.protocol["scenes"]


def test_size_of_listed_galleries_is_counted_in_scenes():
    world = town()
    truth = [
        {scene for scene, pids in enumerate(world["truth_pids"]) if world["truth_pids"][own][box] in pids} - {own}
        for own, box in world["queries"]
    ]
    listed = [np.random.default_rng(query).permutation(60) for query in range(20)]
    cut = []
    for order, held, (own, _) in zip(listed, truth, world["queries"]):
        others = [scene for scene in order if scene not in held and scene != own]
        cut.append(sorted(held) + others[: max(30 - len(held), 0)])
    assert any(len(held) < 30 for held in truth)
    assert (
        evaluate_person_search(**world, galleries=listed, gallery_size=30).mAP
        == evaluate_person_search(**world, galleries=cut).mAP
    )


@pytest.mark.parametrize(
    "true, found, counts",
    [
        ((0, 0, 40, 80), (0, 0, 40, 40), True),  # an IoU of 0.5 exactly is enough
        ((0, 0, 40, 80), (0, 0, 40, 39), False),
        ((0, 0, 10, 10), (0, 0, 10, 2.5), True),  # a small person: 100 / 400 is enough
        ((0, 0, 10, 10), (0, 0, 10, 2.4), False),
        ((5, 5, 5, 5), (0, 0, 10, 10), False),  # nobody without area is found, though nothing is asked of the overlap
    ],
)
def test_overlap_that_is_enough(true, found, counts):
    feature, own = DIRECTIONS[:1], (np.array([[0.0, 0, 40, 80]]), [1.0], DIRECTIONS[:1])
    result = evaluate_person_search(
        feature, [own, ([found], [1.0], feature)], queries=[[0, 0]], truth_boxes=[own[0], [true]], truth_pids=[[7], [7]]
    )
    assert result.num_truth[0] == 1 and result.num_found[0] == counts and result.mAP == counts


def test_float32_tensors_give_the_same():
    world = town()
    tensors = [
        tuple(torch.from_numpy(np.asarray(part, np.float32)) for part in detection) for detection in world["detections"]
    ]
    result = evaluate_person_search(
        torch.from_numpy(world["query_features"].astype(np.float32)),
        tensors,
        queries=torch.from_numpy(world["queries"]),
        truth_boxes=[torch.from_numpy(boxes) for boxes in world["truth_boxes"]],
        truth_pids=[torch.from_numpy(pids) for pids in world["truth_pids"]],
        camids=world["camids"].tolist(),
    )
    assert result.mAP == pytest.approx(evaluate_person_search(**world).mAP, abs=1e-6)


def test_detector_that_finds_nobody_scores_nothing():
    world = town() | dict(detections=[([], [], [])] * 60)
    result = evaluate_person_search(**world, top_k=2)
    assert (
        result.mAP == 0
        and not result.cmc.any()
        and result.recall == 0
        and result.num_valid == 20
        and (result.ranking == -1).all()
    )


def test_result_is_saved_with_its_protocol(tmp_path):
    result = evaluate_person_search(**town(), protocol="prw_other_cameras")
    saved = json.loads(result.save(tmp_path / "scores.json").read_text())
    assert (
        saved["mAP"] == result.mAP
        and saved["protocol"]["name"] == "prw_other_cameras"
        and "its camera" in saved["protocol"]["scenes"]
    )
    assert "rank-1" in str(result) and "prw_other_cameras" in str(result) and len(saved["ap"]) == 20
    with pytest.raises(ValueError, match="unknown rank 3"):
        result.rank(3)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(protocol="cuhk"), "unknown protocol 'cuhk'"),
        (dict(truth_pids=[]), "there are detections for 60 scenes but 0 truth_pids"),
        (dict(truth_pids=[np.zeros(3, int)] * 60), "truth_pids[0] must be whole numbers of shape (4,)"),
        (dict(queries=[[0, 0]]), "queries must be whole numbers of shape (20, 2)"),
        (dict(queries=[[0, 7]] * 20), "query 0 points at box 7 of scene 0, which does not exist"),
        (dict(queries=[[-1, 0]] * 20), "query 0 points at box 0 of scene -1, which does not exist"),
        (dict(truth_pids=[np.full(4, -1)] * 60), "a person without identity"),
        (dict(query_features=np.zeros((0, 8)), queries=np.zeros((0, 2), int)), "there are no queries"),
        (dict(query_features=np.ones((20, 8))), "query_features must have length 1, but one has length 2.828"),
        (dict(query_features=np.eye(20)), "the features of detections[0] must be floating point numbers of shape"),
        (
            dict(detections=[(np.zeros((1, 4)), [1.0])] * 60),
            "the features of detections[0] must be floating point numbers of shape (1, 8)",
        ),
        (
            dict(detections=[(np.zeros((1, 4)), [1.0], np.full((1, 8), np.nan))] * 60),
            "the features of detections[0] must have length 1, but one has length nan",
        ),
        (dict(galleries=[[0]]), "there are 20 queries but 1 galleries"),
        (dict(galleries=[[60]] * 20), "galleries[0] names scene 60, but there are scenes 0 to 59"),
        (dict(galleries=[[]] * 20), "no query has its person in its scenes (listed scenes, without the query's own)"),
        (dict(protocol="prw_other_cameras", camids=None), "prw_other_cameras needs camids"),
        (dict(camids=[0, 1]), "camids must be whole numbers of shape (60,)"),
        (dict(gallery_size=-1), "gallery_size must be a whole number from 1, or None for all scenes, not -1"),
        (dict(ks=(0,)), "ks must be whole numbers from 1"),
        (dict(iou_threshold=1.5), "iou_threshold must be above 0 and at most 1, not 1.5"),
    ],
)
def test_mistakes_are_one_sentence(change, sentence):
    with pytest.raises(ValueError) as stop:
        evaluate_person_search(**town() | change)
    assert sentence in str(stop.value) and "\n" not in str(stop.value)
