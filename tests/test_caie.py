"""Pruning under budgets: impacts against finite differences and networks built, order against every set of filters,
budgets met and hardly overshot, mistakes in one sentence."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch.caie import (
    RESOURCES,
    effective_impacts,
    endless_batches,
    loss_impacts,
    order_of_removal,
    prune,
    resource_impacts,
    still_to_go,
)
from scalable_arch.nn.classic import VDSR, mobilenetv2, resnet34_cifar, vgg16_cifar
from scalable_arch.nn.cost import measure
from scalable_arch.nn.prune import Channels, Group, pruned

SIZE = (3, 16, 16)


def network(**options):
    torch.manual_seed(0)
    return resnet34_cifar(3, **{"width": 8, "depths": (1, 1), **options})


def batches():
    images, labels = torch.randn(8, *SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    while True:
        yield images, labels


def loss_of(model):
    images, labels = next(batches())
    return F.cross_entropy(model(images.double()), labels)


def test_impact_on_the_loss_is_what_shrinking_a_channel_does():
    model = network().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    loss = loss_of(model)
    loss.backward()
    channels = Channels(model, SIZE)
    found, step = loss_impacts(channels, order="sum first"), 1e-6
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for group in channels.groups.values():
        channel = group.channels[0]
        with torch.no_grad():
            before = [(x, x.clone()) for norm in norms.values() for x in (norm.weight, norm.bias)]
            for name, norm in norms.items():
                here = torch.from_numpy(channels.sides[f"{name}.weight"][0] == channel)
                norm.weight[here] *= 1 - step
                norm.bias[here] *= 1 - step
            change = (loss - loss_of(model)).item() / step
            for x, old in before:
                x.copy_(old)
        assert change**2 == pytest.approx(found[channel], rel=1e-3, abs=1e-12)


def test_squares_are_summed_or_sums_are_squared():
    model = network().train()
    F.cross_entropy(model(next(batches())[0]), next(batches())[1]).backward()
    channels = Channels(model, SIZE)
    tied = next(group for group in channels.groups.values() if len(group.layers) > 1).channels
    alone = next(group for group in channels.groups.values() if len(group.layers) == 1).channels
    first, last = loss_impacts(channels, order="square first"), loss_impacts(channels, order="sum first")
    assert np.allclose(first[alone], last[alone]) and not np.allclose(first[tied], last[tied])


@pytest.mark.parametrize("make, size", [(network, SIZE), (lambda: mobilenetv2(3, width=0.125), (3, 32, 32))])
def test_impact_on_a_resource_is_what_the_network_without_a_channel_lacks(make, size):
    model = make()
    channels = Channels(model, size)
    whole, impacts = measure(model, size), resource_impacts(channels, ["params", "macs"])
    for name, group in channels.groups.items():
        less = measure(pruned(channels, group.channels[-1:]), size)
        expected = [1 - less.params / whole.params, 1 - less.macs / whole.macs]
        assert impacts[name] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=3), st.floats(0.1, 10))
def test_only_what_has_still_to_go_counts(now, unit):
    limits = [0.5 * now[0], *now[1:]]
    objective = still_to_go(now, limits)
    assert objective == pytest.approx([0.5, *[0] * (len(now) - 1)])
    impacts = {"a": np.arange(1.0, len(now) + 1)}
    assert effective_impacts(impacts, objective) == pytest.approx({"a": 1.0}), "a met resource has no weight"
    assert effective_impacts(impacts, unit * objective) == pytest.approx({"a": 1.0}), "nor has the unit"


class Invented:
    "Groups of channels with losses and shares of a resource of their own, without a network."

    def __init__(self, sizes):
        ends = np.cumsum([0, *sizes])
        self.groups = {f"g{i}": Group(np.arange(a, b), (f"g{i}",)) for i, (a, b) in enumerate(zip(ends, ends[1:]))}


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_greedy_is_best_but_for_its_last_filter(seed):
    rng = np.random.default_rng(seed)
    invented, losses = Invented([3, 4, 3]), rng.exponential(size=10)
    free = {name: rng.uniform(0.02, 0.1) for name in invented.groups}
    share = np.concatenate([[free[name]] * len(group.channels) for name, group in invented.groups.items()])
    order = order_of_removal(invented, losses, free, dict.fromkeys(invented.groups, 0))
    order = np.concatenate(order)
    assert sorted(order) == list(range(10))
    wanted = 0.5 * share.sum()
    taken = order[: int(np.searchsorted(np.cumsum(share[order]), wanted)) + 1]
    sets = (list(chosen) for number in range(11) for chosen in combinations(range(10), number))
    best = min(losses[chosen].sum() for chosen in sets if share[chosen].sum() >= wanted - 1e-12)
    assert losses[taken].sum() <= best + losses[taken[-1]] + 1e-9
    again = order_of_removal(invented, 7 * losses, free, dict.fromkeys(invented.groups, 0))
    assert np.array_equal(np.concatenate(again), order), "a unit of loss changes nothing"


@pytest.mark.parametrize("targets", [{"macs": 0.5}, {"params": 0.4}, {"macs": 0.6, "params": 0.45}, {"cycles": 0.7}])
@pytest.mark.parametrize("aware", [True, False])
def test_every_budget_is_met_and_the_tightest_hardly_overshot(targets, aware):
    model = network()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    smaller, log = prune(model, SIZE, targets, batches(), aware=aware, filters=4, steps=2)
    channels, whole = Channels(smaller, SIZE), Channels(model, SIZE)
    left = {name: RESOURCES[name](channels, ()) / RESOURCES[name](whole, ()) for name in targets}
    assert all(left[name] <= share for name, share in targets.items())
    assert {name: log[-1]["left"][name] for name in targets} == pytest.approx(left)
    most = max(impact.max() for impact in resource_impacts(whole, [*targets]).values())
    slack = min(share - left[name] for name, share in targets.items())
    assert slack <= 2 * most, "no more than a filter or so beyond"
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items()), "the model is left as it was"
    assert smaller.training is model.training and all(entry["removed"] > 0 for entry in log)


def test_both_budgets_at_once_where_one_leaves_the_other():
    targets = {"macs": 0.5, "params": 0.5}
    shares = lambda pruning: np.array([pruning.log[-1]["left"][name] for name in ("macs", "params")])
    aware, alone = (
        shares(prune(network(), SIZE, targets, batches(), aware=a, filters=2, steps=2)) for a in (True, False)
    )
    assert (aware <= 0.5).all() and (alone <= 0.5).all()
    assert (0.5 - aware).max() <= (0.5 - alone).max()
    one = shares(prune(network(), SIZE, {"macs": 0.5}, batches(), filters=2, steps=2))
    assert one[0] <= 0.5 < one[1]


def test_a_target_that_is_met_leaves_the_network_alone():
    model = network()
    smaller, log = prune(model, SIZE, {"macs": 1.0}, batches())
    assert not log and all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), smaller.state_dict().values())
    )


def test_channels_go_in_blocks():
    smaller, _ = prune(network(), SIZE, {"macs": 0.6}, batches(), filters=4, steps=1, multiple=4)
    assert all(len(group.channels) % 4 == 0 for group in Channels(smaller, SIZE).groups.values())


def test_floors_and_layers_left_out():
    model, skipped = network(), "blocks.0.conv1.weight"
    smaller, _ = prune(model, SIZE, {"macs": 0.45}, batches(), filters=8, steps=1, floor=0.4, skip=[skipped])
    before, after = (Channels(one, SIZE).groups for one in (model, smaller))
    assert len(after[skipped].channels) == len(before[skipped].channels)
    assert all(len(after[name].channels) >= 0.4 * len(group.channels) for name, group in before.items())


def test_the_same_run_again_is_the_same_network():
    runs = [prune(network(), SIZE, {"macs": 0.6}, batches(), filters=4, steps=2) for _ in range(2)]
    assert runs[0].log == runs[1].log
    assert all(torch.equal(a, b) for a, b in zip(*(run.model.state_dict().values() for run in runs)))


def test_batches_go_round_all_images():
    images, labels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 8, 8), np.arange(10)
    source = endless_batches(images, labels, batch_size=5, crop_padding=0, flip=False)
    rounds = [sorted(torch.cat([next(source)[1] for _ in range(2)]).tolist()) for _ in range(3)]
    assert rounds == [list(range(10))] * 3
    again = endless_batches(images, labels, batch_size=5, crop_padding=0, flip=False)
    assert torch.equal(
        next(again)[0], next(endless_batches(images, labels, batch_size=5, crop_padding=0, flip=False))[0]
    )


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"targets": {"macs": 0}}, "macs: a target is a share of what there is now, above 0 and at most 1, not 0"),
        ({"targets": {"macs": 1.2}}, "above 0 and at most 1, not 1.2"),
        ({"targets": {}}, "targets is empty"),
        ({"targets": {"flops": 0.5}}, "unknown resource 'flops'"),
        ({"targets": {"macs": 0.001}}, "macs of 0.1% cannot be had: with the channels that stay in any case"),
        ({"filters": 0}, "filters must be a whole number from 1 on, not 0"),
        ({"floor": 1.0}, "floor is a share of a group's channels"),
        ({"skip": ["blocks.0.conv3.weight"]}, "unknown layer to skip 'blocks.0.conv3.weight'"),
    ],
)
def test_mistakes_are_one_sentence(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        prune(network(), SIZE, **{"targets": {"macs": 0.5}, "batches": batches(), **changed})


def test_a_network_without_normalisation_is_refused():
    pictures = iter(lambda: (torch.rand(2, 1, 9, 9), torch.rand(2, 1, 9, 9)), None)
    loss = lambda model, x, y: F.mse_loss(model(x), y)
    with pytest.raises(ValueError, match="no batch normalisation scales the channels of layers.0.weight"):
        prune(VDSR(depth=3, width=4), (1, 9, 9), {"macs": 0.5}, pictures, loss=loss)


def test_vgg_of_an_eighth_under_two_budgets():
    torch.manual_seed(0)
    images = iter(lambda: (torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), None)
    smaller, log = prune(
        vgg16_cifar(4, width=8), (3, 32, 32), {"macs": 0.44, "params": 0.2}, images, filters=24, steps=1
    )
    assert log[-1]["left"]["macs"] <= 0.44 and log[-1]["left"]["params"] <= 0.2
    assert smaller(torch.randn(1, 3, 32, 32)).shape == (1, 4)
