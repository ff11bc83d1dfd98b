"Clusterings from shared neighbours: sparse against slow dense programs, and what no clustering may break."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics import silhouette_samples, v_measure_score

from scalable_arch.metrics import cluster_dbscan, dbscan_eps, score_clusters, self_jaccard, silhouettes
from scalable_arch.metrics.clusters import NEARLY_0, distance_to_source, mix_source, singletons


def people(number, shots, dim=8, spread=0.6, seed=0):
    "Features of `number` persons with `shots` images each, and who is on them."
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(number), shots)
    features = rng.standard_normal((number, dim))[pids] + spread * rng.standard_normal((len(pids), dim))
    return features.astype(np.float32), pids


def dense_jaccard(features, k1, k2):
    "The definition of `metrics.reciprocal`, steps 1 to 5, with sets and full rows."
    n = len(features)
    squared = ((features[:, None].astype(float) - features[None]) ** 2).sum(2)
    order = [sorted(range(n), key=lambda g: (squared[i][g], g)) for i in range(n)]
    scaled = squared / np.maximum(squared.max(1, keepdims=True), 1e-300)
    named = lambda i, k: {g for g in order[i][: k + 1] if i in order[g][: k + 1]}
    V = np.zeros((n, n))
    for i in range(n):
        members = wide = named(i, k1)
        for g in wide:
            narrow = named(g, round(k1 / 2))
            if 3 * len(narrow & wide) > 2 * len(narrow):
                members = members | narrow
        V[i, list(members)] = np.exp(-scaled[i, list(members)])
        V[i] /= max(V[i].sum(), 1e-300)
    V = np.stack([V[order[i][:k2]].mean(0) for i in range(n)])
    shared = np.minimum(V[:, None], V[None]).sum(2)
    return 1 - shared / np.maximum(np.maximum(V[:, None], V[None]).sum(2), 1e-300)


def filled(distances):
    "The full matrix of sparse distances, exactly 0 from an image to itself."
    full = np.ones(distances.shape)
    rows = np.repeat(np.arange(len(full)), np.diff(distances.indptr))
    full[rows, distances.indices] = distances.data
    np.fill_diagonal(full, 0)
    return full


@pytest.mark.parametrize("k1, k2", [(20, 6), (5, 1), (1, 3), (60, 6)])
def test_equals_the_definition(k1, k2):
    features, _ = people(9, 5)
    distances, slow = self_jaccard(features, k1=k1, k2=k2), dense_jaccard(features, k1, k2)
    np.testing.assert_allclose(filled(distances)[~np.eye(45, dtype=bool)], slow[~np.eye(45, dtype=bool)], atol=1e-5)
    assert distances.has_sorted_indices and (distances.data >= NEARLY_0).all() and (distances.data < 1).all()
    assert abs(distances - distances.T).max() < 1e-5


def test_only_what_is_near_enough_is_kept():
    features, _ = people(30, 8)
    whole, near = self_jaccard(features), self_jaccard(features, at_most=0.5)
    assert (whole.data > 0.5).any() and near.nnz == (whole.data <= 0.5).sum()
    assert np.array_equal(near.data, whole.data[whole.data <= 0.5])


def test_same_bits_whatever_the_threads():
    features, _ = people(40, 10)
    one, two = self_jaccard(features, threads=1), self_jaccard(features, threads=2)
    assert one.data.tobytes() == two.data.tobytes() and np.array_equal(one.indices, two.indices)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.integers(1, 6))
def test_dbscan_on_csr_equals_dense(seed, eps, min_samples):
    features, _ = people(12, 6, spread=0.9, seed=seed)
    features[7] = features[3]  # copies
    distances = self_jaccard(features, k1=8, k2=3)
    full = filled(distances).astype(np.float32)
    expected = DBSCAN(eps=np.float32(eps), min_samples=min_samples, metric="precomputed").fit(full).labels_
    assert np.array_equal(cluster_dbscan(distances, eps, min_samples), expected)


def test_eps_is_the_mean_of_the_smallest():
    features, _ = people(20, 6)
    features[1] = features[0]
    distances = self_jaccard(features, k1=8, k2=3)
    upper = filled(distances)[np.triu_indices(120, 1)]
    upper = np.sort(upper[upper > 2 * NEARLY_0])
    for share in (0.001, 0.02, 0.5, 1.0):
        assert dbscan_eps(distances, share) == pytest.approx(upper[: round(share * len(upper))].mean(), rel=1e-5)


def test_the_source_term():
    features, _ = people(10, 4)
    source, _ = people(6, 4, seed=9)
    squared = ((features[:, None] - source[None]) ** 2).sum(2).min(1)
    v = distance_to_source(features, source)
    np.testing.assert_allclose(v, squared / squared.max(), rtol=1e-4)
    distances = self_jaccard(features, k1=5, k2=2)
    mixed = mix_source(distances, v, 0.1)
    expected = 0.9 * filled(distances) + 0.1 * (v[:, None] + v[None])
    np.fill_diagonal(expected, 0)
    stored = filled(distances) < 1
    np.testing.assert_allclose(filled(mixed)[stored], expected[stored], rtol=1e-5)
    assert mixed.diagonal().max() < 1e-5


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_silhouettes_equal_those_of_the_full_matrix(seed):
    features, _ = people(10, 6, spread=0.8, seed=seed)
    distances, rng = self_jaccard(features, k1=8, k2=3), np.random.default_rng(seed)
    labels = rng.integers(-1, 5, 60)
    labels[-1] = 9  # alone
    kept = labels >= 0
    expected = silhouette_samples(filled(distances)[kept][:, kept], labels[kept], metric="precomputed")
    found = silhouettes(distances, labels)
    np.testing.assert_allclose(found[kept], expected, atol=1e-5)
    assert np.isnan(found[~kept]).all()


def test_silhouettes_of_one_cluster_and_of_none():
    distances = self_jaccard(people(5, 4)[0])
    assert (silhouettes(distances, np.zeros(20, int)) == 0).all()
    assert np.isnan(silhouettes(distances, np.full(20, -1))).all()


def test_scores_by_hand():
    "Two people: one whole in cluster 0 with an image of the other, one image is noise."
    found = score_clusters([0, 0, 0, 1, -1], [7, 7, 8, 8, 8], [1, 2, 1, 1, 1])
    assert (found.clusters, found.people) == (2, 2) and found.noise == pytest.approx(0.2)
    assert found.purity == 3 / 4 and found.cameras == 1.5
    assert found.v_all == pytest.approx(v_measure_score([7, 7, 8, 8, 8], [0, 0, 0, 1, 2]))
    assert found.v_measure == pytest.approx(v_measure_score([7, 7, 8, 8], [0, 0, 0, 1]))


def test_all_noise_and_one_cluster_have_scores():
    pids = np.repeat([0, 1], 5)
    noise, one = score_clusters(np.full(10, -1), pids, pids), score_clusters(np.zeros(10, int), pids, pids)
    assert (noise.clusters, noise.noise, noise.purity, noise.cameras) == (0, 1.0, 0.0, 0.0) and noise.v_all > 0
    assert (one.clusters, one.homogeneity, one.completeness, one.purity) == (1, 0.0, 1.0, 0.5)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30))
def test_singletons_are_alone(labels):
    labels = np.array(labels)
    found = singletons(labels)
    assert np.array_equal(found[labels >= 0], labels[labels >= 0])
    assert all((found == label).sum() == 1 for label in found[labels < 0])


def test_people_in_one_place_are_one_cluster_each():
    features, pids = people(15, 8, spread=0.05)
    labels = cluster_dbscan(self_jaccard(features, k1=7, k2=3), 0.5)
    assert score_clusters(labels, pids).v_all == 1


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda f, d: self_jaccard(f[:1]), "at least two images, not 1"),
        (lambda f, d: self_jaccard(f * np.nan), "features"),
        (lambda f, d: self_jaccard(f, k1=0), "k1 must be a positive whole number"),
        (lambda f, d: cluster_dbscan(d, 1.0), "less than 1"),
        (lambda f, d: cluster_dbscan(d, float("nan")), "eps must be"),
        (lambda f, d: dbscan_eps(d, 0.0), "share must be"),
        (lambda f, d: dbscan_eps(d, 1e-6), "none at all: give a larger share"),
        (lambda f, d: score_clusters([0], [0, 1]), "1 and 2"),
        (lambda f, d: score_clusters([0.5], [0]), "labels"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    features, _ = people(4, 3)
    with pytest.raises(ValueError, match=sentence) as stop:
        call(features, self_jaccard(features))
    assert "\n" not in str(stop.value)


def test_fewer_images_than_neighbours():
    distances = self_jaccard(people(2, 2)[0], k1=20, k2=6)
    assert isinstance(distances, sparse.csr_array) and distances.shape == (4, 4)
