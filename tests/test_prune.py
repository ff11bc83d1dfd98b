"""Channels that hang together: removal against masks (to the bit where sums are exact), counts against networks built,
ties against expectation, and what may not be removed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch.models import create_model
from scalable_arch.nn.classic import (
    VDSR,
    VGG,
    mobilenetv2,
    resnet32_cifar,
    resnet34,
    resnet34_cifar,
    vgg16_cifar,
    vgg19_cifar,
)
from scalable_arch.nn.cost import measure
from scalable_arch.nn.prune import Channels, PadChannels, masked, pruned


class Everything(nn.Module):
    "Each kind of tie once: sum, zeros for missing channels, depthwise layer, concatenation, PReLU, flattening."

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.depthwise, self.again = nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1)
        self.wider, self.pad = nn.Conv2d(4, 6, 3, 2, 1), PadChannels([0, 1, 2, 3, -1, -1], stride=2)
        self.slope, self.side = nn.PReLU(6), nn.Conv2d(4, 3, 1, 2)
        self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.rows, self.out = nn.Linear(9 * 4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        x = x + self.again(self.depthwise(x))
        wide = self.slope(self.wider(x) + self.pad(x)) * self.scale
        both = torch.cat([wide, self.side(x)], 1)
        return self.out(F.relu(self.rows(both.flatten(1))))


def whole_numbers(model, rng):
    "Weights, shifts and statistics of whole numbers, so that sums are exact in any order."
    with torch.no_grad():
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            if x.is_floating_point():
                x.copy_(torch.from_numpy(rng.integers(1 if "running_var" in name else -2, 3, x.shape)))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.running_var.fill_(1)
    return model.double().eval()


def some_channels(channels, rng, share=0.5):
    "Channels drawn from each group, never all."
    chosen = [rng.permutation(group.channels)[: int(share * len(group.channels))] for group in channels.groups.values()]
    return np.concatenate(chosen).tolist()


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_removed_and_masked_networks_agree_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    model = whole_numbers(Everything(), rng)
    channels = Channels(model, (2, 4, 4))
    removed = some_channels(channels, rng)
    image = torch.from_numpy(rng.integers(-3, 4, (2, 2, 4, 4))).double()
    with torch.no_grad(), masked(channels, removed) as with_masks:
        expected = with_masks(image)
    smaller = pruned(channels, removed)
    assert torch.equal(smaller(image), expected)
    assert measure(smaller, (2, 4, 4)) == channels.cost(removed)
    assert not torch.equal(model(image), expected) or not expected.any()


def test_a_mask_on_weights_would_not_do():
    "The shift of a normalisation passes where weights are zero: masks stand behind it."
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1)).double().eval()
    nn.init.ones_(model[1].bias)
    channels = Channels(model, (1, 3, 3))
    (group,) = channels.groups.values()
    image, removed = torch.randn(1, 1, 3, 3).double(), group.channels[:1]
    right = pruned(channels, removed)(image)
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
    assert not torch.allclose(model(image), right)
    with masked(channels, removed):
        assert torch.allclose(model(image), right)
    assert not torch.allclose(model(image), right), "the mask is gone again"


NETWORKS = {
    "vgg": (lambda: VGG(depth=16, width=4), (3, 32, 32)),
    "resnet with 1x1 shortcuts": (lambda: resnet34_cifar(width=4, depths=(2, 2, 1)), (3, 16, 16)),
    "resnet with loose shortcuts": (lambda: resnet32_cifar(width=4, depths=(2, 2)), (3, 16, 16)),
    "resnet with zeros": (lambda: resnet34(width=4, depths=(1, 2, 1)), (3, 32, 32)),
    "mobilenetv2": (lambda: mobilenetv2(10, width=0.125), (3, 32, 32)),
    "vdsr": (lambda: VDSR(depth=5, width=6), (1, 9, 9)),
    "pyramidnet": (lambda: create_model("pyramidnet110_cifar", depth=11, alpha=6, width=4), (3, 16, 16)),
    "resnet50": (lambda: create_model("resnet50_reid"), (3, 64, 32)),
    "mobilenet": (lambda: create_model("mobilenet", width=0.25), (3, 64, 64)),
    "han": (lambda: create_model("han_small", widths=(8, 16, 24), stem_width=4, feature_dim=16), (3, 64, 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_this_book(name):
    make, size = NETWORKS[name]
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = make().double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_()
                module.running_mean.normal_(0, 0.1)
        if name == "vdsr":
            model.layers[-1].weight.normal_()
    channels = Channels(model, size)
    assert channels.groups and channels.cost() == measure(model, size)
    removed, images = some_channels(channels, rng), torch.randn(2, *size).double()
    smaller = pruned(channels, removed)
    with torch.no_grad(), masked(channels, removed):
        expected = model(images)
    found = smaller(images)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert measure(smaller, size) == channels.cost(removed) != channels.cost()
    smaller.float().train()(images.float())  # goes on learning
    again = Channels(smaller, size)
    assert sum(len(group.channels) for group in again.groups.values()) == sum(
        len(group.channels) for group in channels.groups.values()
    ) - len(removed), "what is left can be pruned further"


def test_who_is_tied_to_whom():
    channels = Channels(Everything(), (2, 4, 4))
    layers = {name: group.layers for name, group in channels.groups.items()}
    assert layers == {
        "first.weight": ("first.weight", "again.weight"),
        "wider.weight": ("wider.weight",),
        "side.weight": ("side.weight",),
        "rows.weight": ("rows.weight",),
    }
    assert channels.sides["depthwise.weight"][0].tolist() == channels.sides["norm.weight"][0].tolist()
    assert channels.sides["scale"][1].tolist() == channels.sides["slope.weight"][0].tolist()
    assert len(channels.sides["rows.weight"][1]) == 36


def test_a_layer_called_twice_is_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.same, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            return self.last(self.same(self.same(self.first(x))))

    channels = Channels(Twice().double(), (1, 2, 2))
    (group,) = channels.groups.values()
    assert group.layers == ("first.weight", "same.weight")
    smaller = pruned(channels, group.channels[:1])
    image = torch.randn(1, 1, 2, 2).double()
    with masked(channels, group.channels[:1]) as model:
        assert torch.allclose(smaller(image), model(image))
    assert channels.cost(group.channels[:1]) == measure(smaller, (1, 2, 2))


def test_what_mixes_channels_stays_and_says_why():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.last(F.softmax(self.first(x), 1))

    model = Mixed()
    channels = Channels(model, (3, 2, 2))
    assert not channels.groups
    first = channels.sides["first.weight"][0][0]
    with pytest.raises(ValueError, match="cannot be removed: softmax may mix channels"):
        channels.cost([first])
    assert pruned(channels, []) is not model


def test_mistakes_are_one_sentence():
    channels = Channels(vgg16_cifar(width=4), (3, 32, 32))
    group = channels.groups["layers.0.weight"]
    with pytest.raises(ValueError, match="there is no channel 10000"):
        channels.cost([10000])
    with pytest.raises(ValueError, match="nothing would be left of layers.0.weight: keep one of its 4 channels"):
        pruned(channels, group.channels)
    with pytest.raises(ValueError, match="cannot be removed: it belongs to the input"):
        channels.cost([0])


# multiply-adds and parameters as printed: N Tables 5.1, 5.3, 5.5, 5.7, 5.8, and shares of shallow networks (5.2, 5.4)
PRINTED = [
    (vgg16_cifar, (3, 32, 32), "3.13e8", "1.5e7"),
    (vgg19_cifar, (3, 32, 32), None, "2.0e7"),
    (resnet32_cifar, (3, 32, 32), "2.8e8", "1.9e6"),
    (VDSR, (1, 41, 41), "1.1e9", "6.7e5"),
    (resnet34, (3, 224, 224), "3.64e9", "2.16e7"),
]


@pytest.mark.parametrize("make, size, macs, params", PRINTED)
def test_printed_costs(make, size, macs, params):
    cost = measure(make(), size)
    for value, printed in ((cost.macs, macs), (cost.params, params)):
        if printed:
            digits = len(printed.partition("e")[0].replace(".", "")) - 1
            assert float(f"{value:.{digits}e}") == float(printed)


def test_printed_shares_of_shallow_networks():
    deep, shallow = (measure(VDSR(depth=depth), (1, 41, 41)) for depth in (20, 10))
    assert round(100 * shallow.macs / deep.macs, 2) == 44.54
    deep, shallow = (measure(VGG(depth=depth), (3, 32, 32)) for depth in (19, 5))
    assert shallow.params / deep.params == pytest.approx(0.1951, rel=0.01)
    assert shallow.macs / deep.macs == pytest.approx(0.1717, rel=0.01)
    assert deep.macs == pytest.approx(3.9e8, rel=0.025), "printed 3.9e8, cut and not rounded"


def test_zeros_where_channels_are_missing():
    pad = PadChannels([1, -1, 0], stride=2)
    x = torch.arange(18.0).view(1, 2, 3, 3)
    assert torch.equal(pad(x), torch.stack([x[:, 1], torch.zeros(1, 3, 3), x[:, 0]], 1)[:, :, ::2, ::2])
    program = torch.export.export(resnet34(10, width=4, depths=(1, 1)).eval(), (torch.randn(2, 3, 32, 32),))
    assert program.module()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
