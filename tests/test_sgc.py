"SGC-DPL: affinity propagation guided by labelled people, whom to trust, and what a round learns."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AffinityPropagation
from torch.nn import functional as F

from scalable_arch import sgc
from scalable_arch.nn.units import BranchOutput


def people(number, shots=6, spread=0.3, seed=0):
    "Features of `number` persons with `shots` images each, and who is on them."
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(number), shots)
    return rng.standard_normal((number, 6))[pids] + spread * rng.standard_normal((len(pids), 6)), pids


def test_similarities_are_negative_squared_distances():
    features, _ = people(4)
    slow = [[-((a - b) ** 2).sum() for b in features] for a in features]
    np.testing.assert_allclose(sgc.similarities(features), slow, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(0, 1000), st.floats(0.1, 50), st.floats(-20, 20))
def test_ratios_sum_to_n_and_ignore_scale_and_place(number, seed, scale, shift):
    features = np.random.default_rng(seed).standard_normal((number, 4))
    ratios = sgc.similarity_ratios(sgc.similarities(features))
    assert ratios.sum() == pytest.approx(number)
    np.testing.assert_allclose(ratios, sgc.similarity_ratios(sgc.similarities(scale * features + shift)), rtol=1e-4)


def test_ratios_of_copies_are_all_one():
    assert (sgc.similarity_ratios(np.zeros((5, 5))) == 1).all()


def test_equals_scikit_learn_where_that_settles():
    near = sgc.similarities(people(8)[0])
    found = sgc.affinity_propagation(near, np.median(near))
    model = AffinityPropagation(affinity="precomputed", preference=np.median(near), damping=0.7, random_state=0).fit(
        near
    )
    assert found.settled and np.array_equal(found.labels, model.labels_)
    assert np.array_equal(found.exemplars, model.cluster_centers_indices_)


def test_what_does_not_settle_is_said_and_has_labels(monkeypatch):
    import sklearn.cluster
    from sklearn.exceptions import ConvergenceWarning

    def never(similarity, **options):
        import warnings

        warnings.warn("did not converge", ConvergenceWarning, stacklevel=2)
        return np.zeros(0, int), np.full(len(similarity), -1)

    monkeypatch.setattr(sklearn.cluster, "affinity_propagation", never)
    found = sgc.affinity_propagation(sgc.similarities(np.array([[0.0], [1.0], [5.0]])), -1.0)
    assert not found.settled and found.labels.tolist() == [0, 0, 0] and found.exemplars.tolist() == [1]


@pytest.mark.parametrize("reading", sgc.READINGS)
def test_the_search_finds_the_number_of_labelled_people(reading):
    features, pids = people(12, shots=8)
    labelled = pids < 4
    search = sgc.search_preference(sgc.similarities(features), labelled, 4, reading=reading)
    counts = dict(search.path)
    assert abs(counts[search.preference] - 4) == min(abs(count - 4) for count in counts.values()) <= 1


def test_the_readings_count_different_things():
    labelled = np.array([True, True, False, False])
    found = sgc.Affinity(np.array([1, 2]), np.array([0, 0, 1, 1]), True)
    assert sgc.labelled_clusters(found, labelled, "exemplars") == 1
    found = sgc.Affinity(np.array([2, 3]), np.array([0, 1, 0, 1]), True)
    assert sgc.labelled_clusters(found, labelled, "exemplars") == 0
    assert sgc.labelled_clusters(found, labelled, "chosen") == 2


def test_guided_clusters_are_those_of_the_people():
    features, pids = people(10, spread=0.05)
    found = sgc.guided_clusters(features, pids < 3, 3)
    rest = pids[pids >= 3]
    assert len(found.exemplars) == 7 and (rest == rest[found.exemplars][found.labels]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30))
def test_no_threshold_makes_fewer_errors(seed, more, less):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(1, 1, more), rng.normal(2, 1, less)
    errors = lambda tau: (positive >= tau).mean() + (negative < tau).mean()
    found = errors(sgc.error_threshold(positive, negative))
    assert all(found <= errors(tau) + 1e-12 for tau in [*positive, *negative, -10, 10])


def test_soft_labels_by_hand_and_far_away():
    np.testing.assert_allclose(sgc.soft_labels([[0, np.log(3)]]), [[0.75, 0.25]])
    np.testing.assert_allclose(sgc.soft_labels([[1e6, 1e6 + np.log(3)]]), [[0.75, 0.25]])
    np.testing.assert_allclose(sgc.soft_labels([[0, 1.0]], 1e-6), [[1, 0]])


def test_choosing():
    features, pids = people(10)
    labelled = pids < 3
    few, more = (sgc.choose(features, labelled, pids, growth=growth) for growth in (-0.95, 0))
    assert few.trusted.sum() < more.trusted.sum() and (more.trusted | ~few.trusted).all()
    assert sgc.choose(features, labelled, pids, progressive=False).trusted.all()
    hard = sgc.choose(features, labelled, pids, soft=False).soft
    assert ((hard == 0) | (hard == 1)).all() and (hard.sum(1) == 1).all()
    assert np.allclose(more.soft.sum(1), 1) and (more.soft.argmax(1) == more.clusters.labels).mean() > 0.9


def test_same_bits_on_a_second_run():
    features, pids = people(10)
    one, two = (sgc.choose(features, pids < 3, pids) for _ in range(2))
    assert one.soft.tobytes() == two.soft.tobytes() and np.array_equal(one.clusters.labels, two.clusters.labels)


def test_a_round_has_a_class_for_each_labelled_person_and_exemplar():
    features, pids = people(8)
    labelled = pids < 3
    chosen = sgc.choose(features, labelled, pids, growth=-0.9)
    objective = sgc.round_of(chosen, labelled, pids)
    assert objective.num_classes == 3 + len(chosen.clusters.exemplars)
    rows = set(np.flatnonzero(labelled)) | set(np.flatnonzero(~labelled)[chosen.trusted])
    assert set(objective.rows.tolist()) == rows
    for index in objective.batches(torch.Generator().manual_seed(0)):
        assert set(index.tolist()) <= rows


def said(number, classes, seed=0):
    torch.manual_seed(seed)
    return BranchOutput((torch.randn(number, classes),), (torch.randn(number, 4),))


def test_a_round_of_hard_labels_loses_cross_entropy_and_triplets():
    from scalable_arch.train.losses import triplet

    groups = torch.arange(8) // 2
    objective = sgc.PseudoPeople(torch.arange(10, 18), groups, torch.eye(4)[groups])
    output, index = said(8, 4), torch.arange(10, 18)
    expected = F.cross_entropy(output.logits[0], groups) + triplet(output, groups, mining="hardest")
    assert torch.isclose(objective.loss(output, index), expected)


def test_the_beginning_pairs_an_image_with_its_copy():
    objective = sgc.Beginning(torch.arange(8), torch.arange(8) // 2, torch.arange(8, 20), num_groups=2, num_shots=2)
    for index in objective.batches(torch.Generator().manual_seed(0)):
        known, drawn, copies = index[:4], *index[4:].chunk(2)
        assert (known < 8).all() and (drawn >= 8).all() and torch.equal(drawn, copies)
    alone = sgc.Beginning(torch.arange(8), torch.arange(8) // 2, [], num_groups=2, num_shots=2)
    assert all((index < 8).all() for index in alone.batches(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda f, p: sgc.similarities(f[:1]), "2 to 20,000 images, not 1"),
        (lambda f, p: sgc.similarities(f * np.nan), "not finite"),
        (lambda f, p: sgc.guided_clusters(f, p < 0, 3), "two at least, but 0 are labelled"),
        (lambda f, p: sgc.guided_clusters(f, p < 99, 3), "nothing to cluster"),
        (lambda f, p: sgc.guided_clusters(f, p < 3, 3, reading="all"), "reading"),
        (lambda f, p: sgc.choose(f, p < 1, p), "label two people"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as stop:
        call(*people(5))
    assert "\n" not in str(stop.value)


def test_too_many_images_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(sgc, "MOST_IMAGES", 10)
    with pytest.raises(ValueError, match="self_jaccard and cluster_dbscan"):
        sgc.similarities(people(5)[0])
