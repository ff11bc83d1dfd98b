"HSR: pairs across cameras, clusters split by halves, the weighted triplet loss, and what a round learns."

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch import hsr
from scalable_arch.nn.units import BranchOutput


def people(number=12, spread=0.3, seed=0):
    "Features of `number` persons with six images in three cameras each, persons and cameras."
    rng = np.random.default_rng(seed)
    pids, camids = np.repeat(np.arange(number), 6), np.tile([1, 1, 2, 2, 3, 3], number)
    features = rng.standard_normal((number, 6))[pids] + spread * rng.standard_normal((len(pids), 6))
    return features.astype(np.float32), pids, camids


def slow_lists(features, camids, k):
    "Algorithm 1, image by image."
    lists = []
    for i in range(len(features)):
        others = [j for j in range(len(features)) if camids[j] != camids[i]]
        others.sort(key=lambda j: (((features[i].astype(float) - features[j]) ** 2).sum(), j))
        lists.append(others[:k])
    return lists


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4))
def test_mutual_pairs_equal_brute_force_and_are_never_of_one_camera(seed, k, cameras):
    rng = np.random.default_rng(seed)
    features, camids = rng.standard_normal((25, 3)).astype(np.float32), rng.integers(0, cameras, 25)
    lists, slow = hsr.rank_lists(features, camids, k), slow_lists(features, camids, k)
    assert [[j for j in row if j >= 0] for row in lists.tolist()] == slow
    expected = [[i, j] for i in range(25) for j in range(i + 1, 25) if j in slow[i] and i in slow[j]]
    pairs = hsr.mutual_pairs(lists)
    assert pairs.tolist() == expected
    assert (camids[pairs[:, 0]] != camids[pairs[:, 1]]).all()


def test_one_camera_has_nobody_to_ask():
    features, pids, _ = people(3)
    lists = hsr.rank_lists(features, np.ones(18, int))
    assert (lists == -1).all() and hsr.mutual_pairs(lists).shape == (0, 2)
    found = hsr.mining_scores(lists, pids, pids)
    assert found["pairs"] == found["list precision"] == found["mutual hard"] == 0


def test_mining_scores_by_hand():
    "Images 0 and 1 name each other rightly and are in two clusters; 2 names 0, wrongly, and is not named."
    lists = np.array([[1, -1], [0, -1], [0, -1]])
    found = hsr.mining_scores(lists, np.array([5, 5, 6]), np.array([0, 1, 2]))
    expected = {"pairs": 1, "list precision": 2 / 3, "list hard": 2 / 3, "mutual precision": 1, "mutual hard": 1}
    assert found == pytest.approx(expected)


def test_people_in_one_camera_only_are_mined_from_others():
    features, pids, camids = people(4)
    camids[pids == 0] = 1
    lists = hsr.rank_lists(features, camids)
    assert (camids[lists[pids == 0]] != 1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_splitting_only_refines_into_at_most_four(seed, number):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, number, 40)
    labels[:number] = np.arange(number)
    chosen = rng.permutation(number)[: rng.integers(0, number + 1)]
    found = hsr.split_clusters(labels, rng.standard_normal((40, 3)), rng.standard_normal((40, 3)), chosen)
    for label in np.unique(found[found >= 0]):
        assert len(np.unique(labels[found == label])) == 1
    for label in range(number):
        parts = len(np.unique(found[labels == label]))
        assert parts <= (4 if label in chosen else 1)
    assert np.array_equal(found < 0, labels < 0) and set(found[found >= 0]) == set(range(found.max() + 1))


def test_splitting_by_both_halves():
    upper, lower = np.array([[0.0], [0], [9], [9]] * 2), np.array([[0.0], [9], [0], [9]] * 2)
    found = hsr.split_clusters(np.zeros(8, int), upper, lower, [0])
    assert sorted(np.bincount(found)) == [2, 2, 2, 2] and np.array_equal(found[:4], found[4:])
    copies = hsr.split_clusters(np.zeros(4, int), np.zeros((4, 1)), np.zeros((4, 1)), [0])
    assert (copies == 0).all(), "copies cannot be told apart"


@given(st.integers(2, 10), st.integers(0, 1000))
def test_nothing_lies_three_deviations_below_among_ten(number, seed):
    means = np.random.default_rng(seed).standard_cauchy(number)
    assert not (means < means.mean() - 3 * means.std() - 1e-9 * np.abs(means).max()).any()


def test_bad_clusters_are_those_with_low_silhouettes():
    features, pids, _ = people(14, spread=0.05)
    distances = hsr.cluster_target(features, share=0.05, k1=6, k2=2).distances
    labels = pids.copy()
    labels[[0, 6]] = 0
    labels[[1, 2, 3, 7, 8, 9]] = 0  # half of the first two people in one
    found = hsr.bad_clusters(distances, labels, 2)
    assert found.tolist() in ([0], [0, 1], [1])
    assert hsr.bad_clusters(distances, np.full(84, -1)).tolist() == []
    assert hsr.bad_clusters(distances, np.zeros(84, int)).tolist() == []


def test_halves():
    maps = torch.arange(12.0).reshape(1, 1, 6, 2)
    assert [half.item() for half in hsr.half_means(maps)] == [2.5, 8.5]


def test_the_weighted_triplet_loss_equals_a_slow_one():
    torch.manual_seed(0)
    x, groups = torch.randn(10, 3), torch.arange(10) // 3
    same = groups[:, None] == groups[None]
    positive, negative = same & ~torch.eye(10, dtype=torch.bool), ~same
    losses = []
    for a in range(9):  # the tenth has no positive
        d = [(x[a] - x[b]).norm().item() for b in range(10)]
        near = [b for b in range(10) if positive[a, b]], [b for b in range(10) if negative[a, b]]
        mean = lambda those, sign: (
            sum(math.exp(sign * d[b]) * d[b] for b in those) / sum(math.exp(sign * d[b]) for b in those)
        )
        losses.append(math.log(1 + math.exp(mean(near[0], 1) - mean(near[1], -1))))
    assert hsr.weighted_triplet(x, positive, negative).item() == pytest.approx(np.mean(losses), rel=1e-5)
    none = torch.zeros(10, 10, dtype=torch.bool)
    assert hsr.weighted_triplet(x, none, negative) == 0


def test_eps_is_kept_when_it_is_given():
    features, _, _ = people()
    first = hsr.cluster_target(features, share=0.05)
    again = hsr.cluster_target(features + 0.01, eps=first.eps)
    assert again.eps == first.eps and 0 < first.eps < 1


@pytest.mark.parametrize("share", [1e-9, 1.0])
def test_any_share_gives_an_eps(share):
    features, _, _ = people(3)
    found = hsr.cluster_target(features, features[:4] + 1, share=share)
    assert 0 < found.eps < 1


def test_a_round_equals_its_parts_and_repeats():
    features, pids, camids = people()
    halves = features[:, :3], features[:, 3:]
    one, two = (hsr.rectify(features, camids, halves, share=0.07, deviations=1) for _ in range(2))
    assert np.array_equal(one.labels, two.labels) and np.array_equal(one.lists, two.lists) and one.split > 0
    assert np.array_equal(one.lists, hsr.rank_lists(features, camids))
    plain = hsr.rectify(features, None, None, share=0.07)
    assert plain.lists is None and plain.split == 0 and np.array_equal(plain.labels, one.clusters.labels)


def test_batches_of_clusters_and_of_mined_pairs():
    features, pids, camids = people()
    labels = np.where(pids == 0, -1, pids - 1)
    objective = hsr.RectifiedClusters(labels, hsr.rank_lists(features, camids), num_groups=3, num_shots=4)
    pairs = {tuple(pair) for pair in hsr.mutual_pairs(objective.lists.numpy()).tolist()}
    assert objective.num_classes == 11
    for index in objective.batches(torch.Generator().manual_seed(0)):
        assert (labels[index[:12]] >= 0).all() and objective.batch_size(index) == 12
        for anchor, *partners in index[12:].reshape(-1, 4).tolist():
            assert all(tuple(sorted((anchor, partner))) in pairs for partner in partners)
        positive, negative = objective.mined_masks(index[12:])
        assert not (positive & negative).any() and not negative.diagonal().any()
        for a, b in torch.nonzero(negative).tolist():
            one, other = index[12:][a].item(), index[12:][b].item()
            assert labels[one] != labels[other] and min(labels[one], labels[other]) >= 0
            assert other not in objective.lists[one].tolist()


def test_a_round_without_mined_pairs_learns_its_clusters():
    labels = np.repeat([0, 1], 6)
    objective = hsr.RectifiedClusters(labels, np.full((12, 3), -1))
    [index] = objective.batches(torch.Generator().manual_seed(0))
    assert len(index) == 8
    torch.manual_seed(0)
    output = BranchOutput((torch.randn(8, 2, requires_grad=True),), (torch.randn(8, 3),))
    assert objective.loss(output, index) > 0


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda f, c: hsr.rank_lists(f, c[:3]), "one camera for each of 18 images, not 3"),
        (lambda f, c: hsr.rank_lists(f * np.nan, c), "not finite"),
        (lambda f, c: hsr.cluster_target(f[:1]), "at least two images"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    features, _, camids = people(3)
    with pytest.raises(ValueError, match=sentence) as stop:
        call(features, camids)
    assert "\n" not in str(stop.value)
