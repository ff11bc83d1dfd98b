"Retrieval scores against a slow, obvious reference; the protocol; the mistakes."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.metrics import evaluate, multi_query, plot_ranked_list
from scalable_arch.metrics.retrieval import DistanceMatrix


def reference(distances, query_pids, gallery_pids, query_camids, gallery_camids, max_rank, ap):
    "Every definition spelled out with Python lists."
    aps, inps, cmcs = [], [], []
    for q in range(len(query_pids)):
        order = sorted(range(len(gallery_pids)), key=lambda g: (distances[q][g], g))
        good = []
        for g in order:
            same = gallery_pids[g] == query_pids[q]
            if gallery_pids[g] != -1 and not (same and gallery_camids[g] == query_camids[q]):
                good.append(bool(same))
        total = sum(good)
        if total == 0:
            aps.append(None), inps.append(None)
            continue
        found, score = 0, 0.0
        for place, match in enumerate(good):
            if match:
                before = found / place if place else 1.0
                found += 1
                now = found / (place + 1)
                score += (now if ap == "rectangle" else (before + now) / 2) / total
                last = place
        aps.append(score), inps.append(total / (last + 1))
        cmcs.append([any(good[:r]) for r in range(1, max_rank + 1)])
    return aps, inps, np.mean(cmcs, axis=0) if cmcs else None


@st.composite
def problems(draw):
    "Small problems on a coarse grid of distances: ties, junk, ids without matches, galleries of one."
    num_query, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    ids, cameras = st.integers(-1, 3), st.integers(0, 2)
    many = lambda kind, n: np.array(draw(st.lists(kind, min_size=n, max_size=n)))
    points = st.tuples(st.integers(0, 3), st.integers(0, 3))
    return dict(
        query=many(points, num_query),
        gallery=many(points, num_gallery),
        query_pids=many(ids, num_query),
        gallery_pids=many(ids, num_gallery),
        query_camids=many(cameras, num_query),
        gallery_camids=many(cameras, num_gallery),
    )


def check(result, expected):
    aps, inps, cmc = expected
    valid = [a is not None for a in aps]
    assert (result.num_valid, result.num_query) == (sum(valid), len(aps))
    assert np.array_equal(np.isnan(result.ap), ~np.array(valid))
    np.testing.assert_allclose(result.ap[valid], [a for a in aps if a is not None], atol=1e-9)
    np.testing.assert_allclose(result.inp[valid], [i for i in inps if i is not None], atol=1e-9)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-9)
    assert abs(result.mAP - np.mean([a for a in aps if a is not None])) < 1e-9
    assert abs(result.mINP - np.mean([i for i in inps if i is not None])) < 1e-9


@settings(max_examples=300, deadline=None)
@given(
    problem=problems(),
    ap=st.sampled_from(["rectangle", "trapezoid"]),
    max_rank=st.integers(1, 15),
    dtype=st.sampled_from("fd"),
    crumbs=st.booleans(),
)
def test_equals_the_reference(problem, ap, max_rank, dtype, crumbs):
    query, gallery = problem.pop("query").astype(dtype), problem.pop("gallery").astype(dtype)
    exact = ((query[:, None] - gallery[None]) ** 2).sum(2)  # small whole numbers: exact in either precision
    expected = reference(exact.tolist(), **problem, max_rank=max_rank, ap=ap)
    settings = dict(**problem, max_rank=max_rank, ap=ap, block_mb=1e-3 if crumbs else 64)  # 1e-3: pieces of one column
    if expected[2] is None:
        with pytest.raises(ValueError, match="^no query has a match from another camera: "):
            evaluate(query, gallery, **settings)
        return
    check(evaluate(query, gallery, **settings), expected)
    check(evaluate(distances=np.sqrt(exact), **settings), expected)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), top_k=st.integers(1, 14), crumbs=st.booleans())
def test_ranked_lists(problem, top_k, crumbs):
    query, gallery = problem.pop("query").astype(float), problem.pop("gallery").astype(float)
    problem["query_pids"][0] = problem["gallery_pids"][0] = 2  # one valid query
    problem["query_camids"][0], problem["gallery_camids"][0] = 0, 1
    result = evaluate(query, gallery, **problem, top_k=top_k, block_mb=1e-3 if crumbs else 64)
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    kept = min(top_k, len(gallery))
    assert np.array_equal(result.ranking[:, :kept], np.argsort(distances, axis=1, kind="stable")[:, :kept])
    np.testing.assert_allclose(result.ranking_distances[:, :kept], np.sort(distances, axis=1)[:, :kept], atol=1e-12)
    assert (result.ranking[:, kept:] == -1).all() and np.isinf(result.ranking_distances[:, kept:]).all()
    for q, row in enumerate(result.ranking[:, :kept]):
        for g, label in zip(row, result.ranking_labels[q]):
            same = problem["gallery_pids"][g] == problem["query_pids"][q]
            junk = problem["gallery_pids"][g] == -1 or (
                same and problem["gallery_camids"][g] == problem["query_camids"][q]
            )
            assert label == (-1 if junk else int(same))


def people(num_query=300, num_gallery=5000, dim=700, seed=0, copies=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((60, dim), dtype=np.float32)
    pids = rng.integers(0, 60, num_query + num_gallery)
    features = centres[pids] + 3 * rng.standard_normal((len(pids), dim), dtype=np.float32)
    if copies:
        features[-copies:] = features[num_query : num_query + copies]
    pids[num_query::11] = -1
    camids = rng.integers(0, 4, len(pids))
    return dict(
        query_features=features[:num_query],
        gallery_features=features[num_query:],
        query_pids=pids[:num_query],
        gallery_pids=pids[num_query:],
        query_camids=camids[:num_query],
        gallery_camids=camids[num_query:],
    )


def same_bits(a, b):
    return all(
        np.array_equal(getattr(a, k), getattr(b, k), equal_nan=k in ("ap", "inp"))
        for k in ("cmc", "mAP", "mINP", "ap", "inp", "first_match", "ranking", "ranking_distances", "ranking_labels")
    )


def test_threads_and_blocks_change_no_bit():
    problem = people(copies=1000)
    once = evaluate(**problem, threads=1, top_k=20)
    assert 0.05 < once.mAP < 0.95
    for changed in (dict(threads=2), dict(threads=3, block_mb=0.7), dict(block_mb=0.1)):
        assert same_bits(once, evaluate(**problem, top_k=20, **changed))


def test_numpy_torch_and_memory_maps_agree(tmp_path):
    problem = people(dim=100, num_gallery=700)
    once = evaluate(**problem, top_k=5)
    assert same_bits(once, evaluate(**{k: torch.from_numpy(v) for k, v in problem.items()}, top_k=5))
    np.save(tmp_path / "gallery.npy", problem["gallery_features"])
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert same_bits(once, evaluate(**{**problem, "gallery_features": mapped}, top_k=5))
    half = evaluate(**{k: torch.from_numpy(v).bfloat16() if "features" in k else v for k, v in problem.items()})
    assert abs(half.mAP - once.mAP) < 0.02


def test_equal_images_tie_wherever_they_lie():
    "A gallery that holds every image twice: the twin in the earlier place wins, to the last bit."
    problem = people(num_query=40, num_gallery=3000, dim=1000)
    twice = {k: np.concatenate([v, v]) if k.startswith("gallery") else v for k, v in problem.items()}
    ranking = evaluate(**twice, top_k=30).ranking
    assert np.array_equal(ranking[:, 1::2], ranking[:, ::2] + 3000)


def test_order_of_the_gallery_matters_only_to_ties():
    problem = people(dim=64, num_gallery=800)
    shuffle = np.random.default_rng(1).permutation(800)
    moved = evaluate(**{k: v[shuffle] if k.startswith("gallery") else v for k, v in problem.items()})
    assert np.array_equal(moved.ap, evaluate(**problem).ap, equal_nan=True)


def test_short_gallery_gives_a_monotone_cmc_of_full_length():
    result = evaluate(
        distances=[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]],
        query_pids=[1, 1],
        gallery_pids=[2, -1, 1],
        query_camids=[0, 0],
        gallery_camids=[1, 1, 1],
        max_rank=20,
    )
    assert result.cmc.tolist() == [0.5] + [1.0] * 19
    assert result.rank(1) == 0.5
    with pytest.raises(ValueError, match="rank 21 was not computed: choose 1 to 20"):
        result.rank(21)


def test_result_states_its_protocol():
    result = evaluate(
        distances=[[1.0, 2.0]],
        query_pids=[1],
        gallery_pids=[1, 2],
        query_camids=[0],
        gallery_camids=[1, 1],
        ap="trapezoid",
    )
    assert result.protocol["ap"] == "trapezoid" and set(result.protocol) == {"ap", "distance", "junk", "ties", "mean"}
    assert (
        str(result)
        == "rank-1 100.0%  rank-5 100.0%  rank-10 100.0%  mAP 100.0%  mINP 100.0%  (1 of 1 queries, trapezoid AP)"
    )
    assert result.summary()["num_valid"] == 1


def test_given_distances_are_left_as_they_are():
    distances = np.random.default_rng(0).random((5, 9), dtype=np.float32)
    before = distances.copy()
    evaluate(
        distances=distances,
        query_pids=[0] * 5,
        gallery_pids=[0] * 8 + [-1],
        query_camids=[0] * 5,
        gallery_camids=[0, 1] * 4 + [1],
    )
    assert np.array_equal(before, distances)


def test_multi_query_is_the_mean_of_one_person_in_one_camera():
    features, pids, camids = multi_query(
        torch.tensor([[1.0, 0.0], [5.0, 5.0], [3.0, 2.0], [0.0, 7.0]]), [9, 4, 9, 9], [1, 1, 1, 0]
    )
    with pytest.raises(
        ValueError, match=r"^camids has shape \(1,\), but there are 2 features: give one number for each"
    ):
        multi_query(np.ones((2, 3)), [1, 1], [0])
    assert (
        features.tolist() == [[2.0, 1.0], [5.0, 5.0], [0.0, 7.0]]
        and pids.tolist() == [9, 4, 9]
        and camids.tolist() == [1, 1, 0]
    )


IDS = dict(query_pids=[1, 2], gallery_pids=[1, 2, 3], query_camids=[0, 0], gallery_camids=[1, 1, 1])
FEATURES = dict(query_features=np.eye(2, 4), gallery_features=np.eye(3, 4))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (
            dict(query_features=np.array([[0, 0, 0, 0], [0, np.inf, 0, 0.0]])),
            r"query_features row 1 is not finite \(NaN or infinity",
        ),
        (
            dict(gallery_features=np.full((3, 4), 1e38, np.float32), query_features=np.eye(2, 4, dtype=np.float32)),
            "gallery_features row 0 is too large for float32 distances",
        ),
        (dict(gallery_features=np.ones((3, 5))), "query_features have 4 dimensions but gallery_features 5"),
        (dict(gallery_features=np.ones((3, 4), int)), "gallery_features must be floating point, not int64"),
        (
            dict(gallery_features=torch.ones(3, 4, dtype=torch.uint8)),
            "gallery_features must be floating point, not uint8",
        ),
        (dict(gallery_features=[["a"]]), "gallery_features must be an array of floating point numbers"),
        (
            dict(query_features=np.ones(4)),
            r"query_features must have two dimensions, \(images, features\), not shape \(4,\)",
        ),
        (dict(query_features=np.ones((0, 4))), "query_features is empty"),
        (dict(gallery_features=np.ones((0, 4))), "gallery_features is empty"),
        (dict(gallery_features=None), "give either query_features and gallery_features, or distances"),
        (dict(distances=np.ones((2, 3))), "give either query_features and gallery_features, or distances"),
        (dict(gallery_pids=[1, 2]), r"gallery_pids has shape \(2,\), but there are 3 gallery features"),
        (dict(query_camids=[0, 0, 0]), r"query_camids has shape \(3,\), but there are 2 query features"),
        (dict(query_pids=[1.0, 2.0]), "query_pids must be whole numbers, not float64"),
        (dict(ap="rect"), r"unknown ap 'rect' \(did you mean 'rectangle'\?\); choose one of: rectangle, trapezoid"),
        (dict(max_rank=0), "max_rank must be a whole number, at least 1, not 0"),
        (dict(top_k=-1), "top_k must be a whole number, at least 0, not -1"),
        (dict(threads=0), "threads must be a positive integer or None, not 0"),
        (dict(block_mb=0), "block_mb must be a positive and finite number of megabytes, not 0"),
        (
            dict(gallery_pids=[7, 8, 9]),
            r"no query has a match from another camera: query ids \(1, 2\) and gallery ids \(7, 8, 9\) have none",
        ),
        (
            dict(gallery_camids=[0, 0, 0]),
            r"no query has a match from another camera: all images are from one camera \(0\)",
        ),
        (
            dict(gallery_camids=[0, 0, 1]),
            "no query has a match from another camera: 2 ids are in both, but each only from the camera of its",
        ),
        (dict(query_pids=[-1, -1], gallery_pids=[-1, -1, 3]), "no query has a match from another camera: query ids"),
    ],
)
def test_mistakes_are_told_in_one_sentence(wrong, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        evaluate(**{**FEATURES, **IDS, **wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "distances, message",
    [
        (np.array([[1, 2, 3], [1, np.nan, 3]]), "distances row 1 is not finite"),
        (np.ones(3), r"distances must have shape \(queries, gallery\)"),
        (np.ones((0, 3)), r"distances must have shape \(queries, gallery\), neither of them 0"),
        (np.array([["a"]]), "distances must be numbers"),
    ],
)
def test_wrong_distances(distances, message):
    with pytest.raises(ValueError, match="^" + message):
        DistanceMatrix(distances)


def test_plot_marks_match_wrong_and_junk():
    import matplotlib

    matplotlib.use("Agg")
    images = [np.full((8, 4, 3), shade) for shade in (0.1, 0.4, 0.8)]
    axes = plot_ranked_list(images[0], images, [1, 0, -1], distances=[0.5, 1, 2])
    lines = [ax.spines["left"].get_linestyle() for ax in axes]
    colours = [ax.spines["left"].get_edgecolor() for ax in axes]
    assert lines == ["-", "-", "-", "--"] and len(set(colours)) == 4 and axes[1].get_xlabel() == "0.50"
    with pytest.raises(ValueError, match="there are 3 gallery images but 2 labels"):
        plot_ranked_list(images[0], images, [1, 0])
    with pytest.raises(ValueError, match="unknown label 5"):
        plot_ranked_list(images[0], images[:1], [5])
