"Search, query expansion and the dimension study against plain numpy."

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.metrics import build_index, dimension_study, evaluate, expand_queries, recall, search
from scalable_arch.metrics.neighbours import principal_axes, reduce_features


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_query=st.integers(1, 5),
    num_gallery=st.integers(1, 200),
    k=st.integers(1, 220),
    grid=st.integers(1, 6),
)
def test_exact_search_is_a_stable_sort(seed, num_query, num_gallery, k, grid):
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(0, grid, (n, 3)).astype(np.float32) for n in (num_query, num_gallery))
    distances, indices = search(query, gallery, k)
    exact = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)
    assert np.array_equal(indices, np.argsort(exact, axis=1, kind="stable")[:, :k])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :k], atol=1e-9)


def clouds(n=3000, dim=64):
    rng = np.random.default_rng(0)
    pids, camids = rng.integers(0, 50, n), rng.integers(0, 4, n)
    features = (rng.standard_normal((50, dim))[pids] + 2 * rng.standard_normal((n, dim))).astype(np.float32)
    return (
        features[:200],
        features[200:],
        dict(query_pids=pids[:200], gallery_pids=pids[200:], query_camids=camids[:200], gallery_camids=camids[200:]),
    )


def test_exact_search_from_a_memory_map_and_threads(tmp_path):
    query, gallery, _ = clouds(dim=300)
    np.save(tmp_path / "gallery.npy", gallery)
    expected = search(query, gallery, 7, threads=1)
    for given_gallery, threads in (
        (np.load(tmp_path / "gallery.npy", mmap_mode="r"), 2),
        (torch.from_numpy(gallery), 3),
    ):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(expected, search(torch.from_numpy(query), given_gallery, 7, threads=threads))
        )


def test_faiss_methods_and_their_recall():
    pytest.importorskip("faiss")
    query, gallery, _ = clouds()
    distances, exact = search(query, gallery, 10)
    flat_distances, flat = search(query, gallery, 10, method="flat")
    assert recall(flat, exact) > 0.999
    np.testing.assert_allclose(flat_distances, distances, atol=1e-4)
    assert 0.9 < recall(search(query, gallery, 10, method="sq8")[1], exact) <= 1
    few, many = (recall(search(query, gallery, 10, method="ivfpq", cells=16, probes=p)[1], exact) for p in (1, 16))
    assert 0.05 < few < many < 1
    index = build_index(gallery, "ivfpq", cells=64, probes=1)
    found, indices = search(query, index, 500)
    assert (indices == -1).any() and np.isinf(found[indices == -1]).all()


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        ImportError,
        match=r"^approximate search needs faiss: pip install 'scalable_arch\[scale\]', or use method='exact'$",
    ):
        search(np.eye(3), np.eye(3), 1, method="flat")
    assert search(np.eye(3), np.eye(3), 1)[1].ravel().tolist() == [0, 1, 2]


def test_recall_counts_the_share_found():
    assert recall(np.array([[1, 2], [3, 4]]), np.array([[2, 9], [4, 3]])) == 0.75


def test_expanded_query_is_the_weighted_mean():
    query, gallery, ids = clouds()
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    for alpha in (0, 3):
        expected = []
        for q in unit(query):
            similarity = unit(gallery) @ q
            nearest = np.argsort(-similarity, kind="stable")[:5]
            expected.append(q + sum(max(similarity[g], 0) ** alpha * unit(gallery)[g] for g in nearest))
        ours = expand_queries(query, gallery, k=5, alpha=alpha)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, unit(np.array(expected)), atol=1e-5)
    assert evaluate(ours, unit(gallery), **ids).mAP > evaluate(unit(query), unit(gallery), **ids).mAP


def test_principal_axes_are_those_of_numpy():
    _, gallery, _ = clouds(n=9000, dim=12)
    gallery = gallery * np.linspace(3, 1, 12, dtype=np.float32)
    mean, axes = principal_axes(gallery)
    np.testing.assert_allclose(mean, gallery.astype(float).mean(0), atol=1e-9)
    _, _, expected = np.linalg.svd(gallery - gallery.astype(float).mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(axes.numpy().T @ expected.T), np.eye(12), atol=1e-3)
    variances = reduce_features(gallery, (mean, axes), 4).var(0)
    assert variances.shape == (4,) and (variances.diff() < 0).all()


def test_dimension_study():
    query, gallery, ids = clouds()
    study = dimension_study(query, gallery, (8, 32, 64, 512), **ids)
    assert study.dim.tolist() == [8, 32, 64] and study.bytes.tolist() == [32, 128, 256]
    assert abs(study.mAP.iloc[-1] - evaluate(query, gallery, **ids).mAP) < 1e-4  # all axes: a rotation
    assert study.mAP.iloc[0] < study.mAP.iloc[-1]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    slices = dimension_study(query, gallery, (8,), method="slice", ap="trapezoid", **ids)
    assert abs(slices.mAP[0] - evaluate(unit(query[:, :8]), unit(gallery[:, :8]), ap="trapezoid", **ids).mAP) < 1e-4
    other = dimension_study(query, gallery, (8,), fit=gallery[:100], **ids)
    assert other.mAP[0] != study.mAP[0]


@pytest.mark.parametrize(
    "attempt, message",
    [
        (lambda q, g, ids: search(q, g, 0), "k must be a positive whole number, not 0"),
        (lambda q, g, ids: search(q, g, method="hnsw"), "unknown method 'hnsw'"),
        (lambda q, g, ids: search(q, g, cells=3), "method 'exact' takes no cells"),
        (lambda q, g, ids: search(q[:, :3], g), "query_features have 3 dimensions but gallery_features 64"),
        (lambda q, g, ids: search(q, g[:0]), "gallery_features is empty"),
        (lambda q, g, ids: search(q.astype(int), g), "query_features must be floating point"),
        (lambda q, g, ids: expand_queries(q, g, alpha=-0.5), "alpha must not be negative"),
        (lambda q, g, ids: expand_queries(q, g * np.nan), "gallery_features row 0 is not finite"),
        (lambda q, g, ids: dimension_study(q, g, (65,), **ids), "none of the dimensions"),
        (lambda q, g, ids: dimension_study(q, g, (6,), method="umap", **ids), "unknown method 'umap'"),
        (lambda q, g, ids: recall(np.ones((2, 3)), np.ones((3, 3))), "found has 2 queries but exact 3"),
        (lambda q, g, ids: build_index(g, "exact"), "unknown method 'exact'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(attempt, message):
    with pytest.raises(ValueError, match="^" + message) as error:
        attempt(*clouds(n=400))
    assert "\n" not in str(error.value)


def test_ivfpq_mistakes():
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="needs as many gallery images, not 100"):
        build_index(np.ones((100, 8)), "ivfpq")
    with pytest.raises(ValueError, match="code_bytes must divide the dimension 64, which 7 does not"):
        build_index(clouds(n=900)[1], "ivfpq", code_bytes=7)
    with pytest.raises(ValueError, match="query_features have 5 dimensions but the gallery 8"):
        search(np.ones((2, 5)), build_index(np.ones((10, 8)), "flat"))
