"k-reciprocal re-ranking against a slow, obvious reference; its streaming form; the mistakes."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.metrics import RerankedDistances, evaluate, rerank


def reference(distances, num_query, k1, k2, lambda_value, inclusive):
    """The definition with Python lists and sets: squared distances scaled by each point's largest, the point itself
    besides k1."""
    n = len(distances)
    order = [sorted(range(n), key=lambda g: (distances[i][g], g)) for i in range(n)]
    scaled = [[d * d / (max(row) ** 2 or 1) for d in row] for row in distances]

    def mutual(i, k):
        return {g for g in order[i][: k + 1] if i in order[g][: k + 1]}

    encodings = []
    for i in range(n):
        members = wide = mutual(i, k1)
        for g in wide:
            narrow = mutual(g, round(k1 / 2))
            overlap = len(narrow & wide) * 3
            if overlap > len(narrow) * 2 or (inclusive and overlap == len(narrow) * 2):
                members = members | narrow
        weights = {g: np.exp(-scaled[i][g]) for g in members}
        encodings.append({g: w / sum(weights.values()) for g, w in weights.items()})
    if k2 > 1:
        near = [order[i][:k2] for i in range(n)]
        encodings = [
            {j: sum(encodings[g].get(j, 0) for g in near[i]) / len(near[i]) for g in near[i] for j in encodings[g]}
            for i in range(n)
        ]
    result = np.empty((num_query, n - num_query))
    for q in range(num_query):
        for g in range(num_query, n):
            a, b = encodings[q], encodings[g]
            least = sum(min(a.get(j, 0), b.get(j, 0)) for j in a.keys() | b.keys())
            most = sum(max(a.get(j, 0), b.get(j, 0)) for j in a.keys() | b.keys())
            jaccard = 1 - least / most if most else 1
            result[q, g - num_query] = (1 - lambda_value) * jaccard + lambda_value * scaled[q][g]
    return result


@st.composite
def point_sets(draw):
    "Points on a coarse grid (ties, duplicates) or anywhere in between; queries from one to all but one."
    n = draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = rng.integers(0, draw(st.integers(1, 5)), (n, 2)).astype(float)
    if draw(st.booleans()):
        points += rng.standard_normal((n, 2))
    copies = draw(st.integers(0, n // 2))
    points[n - copies :] = points[:copies]
    return points, draw(st.integers(1, n - 1))


@settings(max_examples=120, deadline=None)
@given(
    problem=point_sets(),
    k1=st.integers(1, 40),
    k2=st.integers(1, 40),
    lambda_value=st.sampled_from([0, 0.3, 1]),
    inclusive=st.booleans(),
)
def test_equals_the_reference(problem, k1, k2, lambda_value, inclusive):
    points, num_query = problem
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    options = dict(k1=k1, k2=k2, lambda_value=lambda_value, inclusive=inclusive)
    expected = reference(distances.tolist(), num_query, **options)
    given_matrix = rerank(distances=distances, num_query=num_query, **options)
    assert given_matrix.dtype == np.float32 and given_matrix.shape == expected.shape
    np.testing.assert_allclose(given_matrix, expected, atol=1e-6)
    if np.array_equal(
        points, points.round()
    ):  # features round differently from a matrix unless the points are whole numbers
        np.testing.assert_allclose(rerank(points[:num_query], points[num_query:], **options), expected, atol=1e-6)


def test_equals_the_reference_on_float32_features():
    rng = np.random.default_rng(3)
    features = (rng.standard_normal((12, 48))[rng.integers(0, 12, 150)] + rng.standard_normal((150, 48))).astype(
        np.float32
    )
    distances = np.linalg.norm(features[:, None].astype(float) - features[None], axis=2)
    expected = reference(distances.tolist(), 40, 20, 6, 0.3, False)
    for query, gallery in (
        (features[:40], features[40:]),
        (torch.from_numpy(features[:40]), torch.from_numpy(features[40:])),
    ):
        np.testing.assert_allclose(rerank(query, gallery), expected, atol=1e-6)


def people(n=2600, num_query=300, dim=300):
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 90, n), rng.integers(0, 5, n)
    features = (rng.standard_normal((90, dim))[pids] + 2 * rng.standard_normal((n, dim))).astype(np.float32)
    features[-200:] = features[num_query : num_query + 200]
    return (
        features[:num_query],
        features[num_query:],
        dict(
            query_pids=pids[:num_query],
            gallery_pids=pids[num_query:],
            query_camids=camids[:num_query],
            gallery_camids=camids[num_query:],
        ),
    )


def test_streaming_equals_the_matrix_and_threads_change_no_bit():
    query, gallery, ids = people()
    matrix = rerank(query, gallery, threads=1)
    assert np.array_equal(matrix, rerank(query, gallery, threads=3))
    expected = evaluate(distances=matrix, **ids, top_k=7)
    assert evaluate(query, gallery, **ids).mAP + 0.05 < expected.mAP < 0.98
    for options in (dict(threads=1), dict(threads=2, block_mb=0.3)):
        streamed = evaluate(distances=RerankedDistances(query, gallery, threads=2), **ids, top_k=7, **options)
        for name in ("ap", "cmc", "first_match", "ranking", "ranking_distances"):
            assert np.array_equal(getattr(streamed, name), getattr(expected, name)), name
    assert (
        streamed.protocol["distance"]
        == "k-reciprocal re-ranking (k1=20, k2=6, lambda=0.3) of Euclidean distance of features"
    )


def test_lambda_one_is_the_first_distance_scaled():
    query, gallery, ids = people(n=400, num_query=50, dim=8)
    assert np.array_equal(
        evaluate(distances=rerank(query, gallery, lambda_value=1), **ids).first_match,
        evaluate(query, gallery, **ids).first_match,
    )


SQUARE = 1 - np.eye(5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(k1=0), "k1 must be a positive whole number of neighbours, not 0"),
        (dict(k1=2.5), "k1 must be a positive whole number of neighbours, not 2.5"),
        (dict(k2=-1), "k2 must be a positive whole number of neighbours, not -1"),
        (dict(lambda_value=1.1), r"lambda_value must lie in \[0, 1\]"),
        (dict(lambda_value=float("nan")), r"lambda_value must lie in \[0, 1\]"),
        (dict(num_query=0), "num_query must say how many of the 5 rows of distances are queries, from 1 to 4, not 0"),
        (dict(num_query=5), "num_query must say how many of the 5 rows of distances are queries, from 1 to 4, not 5"),
        (dict(num_query=None), "num_query must say how many of the 5 rows"),
        (dict(distances=SQUARE[:3]), r"distances must be square, over query then gallery .*, not \(3, 5\)"),
        (dict(distances=SQUARE[:0]), r"distances must have shape \(queries, gallery\)"),
        (dict(distances=SQUARE - 0.5), "distances must be Euclidean distances, but some are negative"),
        (dict(distances=np.where(SQUARE, np.inf, 0)), "distances row 0 is not finite"),
        (dict(distances=None), "give either query_features and gallery_features, or the square matrix"),
        (dict(query_features=np.ones((2, 3))), "give either query_features and gallery_features, or the square matrix"),
        (
            dict(distances=None, query_features=np.ones((2, 3)), gallery_features=np.ones((2, 4))),
            "query_features have 3 dimensions but",
        ),
        (
            dict(distances=None, query_features=np.ones((2, 3)), gallery_features=np.ones((2, 3), int)),
            "gallery_features must be floating point",
        ),
        (
            dict(
                distances=None, query_features=np.ones((2, 3)), gallery_features=np.array([[1, 2, 3], [1, np.nan, 1]])
            ),
            "gallery_features row 1 is not finite",
        ),
        (
            dict(distances=None, query_features=np.ones((2, 3)), gallery_features=np.ones((0, 3))),
            "gallery_features is empty",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(wrong, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        rerank(**{**dict(distances=SQUARE, num_query=2), **wrong})
    assert "\n" not in str(error.value)
