"""Networks for 32x32: the printed structure, shortcuts against plain code, calibration, stage maps, and what wrong
input is told."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scalable_arch import create_model
from scalable_arch.nn.cifar import BasicBlock, PyramidUnit, pyramidnet110_cifar, resnet18_cifar
from scalable_arch.nn.cost import measure


def test_printed_structure():
    assert measure(resnet18_cifar(), (3, 32, 32)) == (555_422_720, 11_173_962)  # W Table 6.1: 555.42 M, 11.17 M
    found = measure(pyramidnet110_cifar(), (3, 32, 32))
    assert (round(found.params / 1e6, 3), round(found.macs / 1e6, 1)) == (2.529, 506.9)  # W Table 6.2: 2.5 M
    assert sum(isinstance(m, nn.Conv2d) for m in pyramidnet110_cifar().modules()) + 1 == 110  # and the linear layer


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_pyramid_unit_against_plain_code(stride):
    unit, x = PyramidUnit(10, 4, stride=stride).train(), torch.randn(3, 10, 7, 7)
    pool = (
        x
        if stride == 1
        else torch.stack(
            [
                torch.stack([x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for j in range(0, 7, 2)], -1)
                for i in range(0, 7, 2)
            ],
            -2,
        )
    )
    norm = lambda y: (
        (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    )
    y = F.relu(norm(unit.conv1(norm(x))))
    y = norm(unit.conv3(F.relu(norm(unit.conv2(y)))))
    expected = torch.cat([y[:, :10] + pool, y[:, 10:]], 1)
    assert torch.allclose(unit(x), expected, atol=1e-5)


@torch.no_grad()
def test_basic_block_keeps_its_input_where_the_convolutions_are_silent():
    block, x = BasicBlock(4, 4).eval(), torch.randn(2, 4, 5, 5)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x.relu())


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "channels", "sides"),
    [
        (resnet18_cifar(width=4), [4, 8, 16, 32], [19, 10, 5, 3]),
        (pyramidnet110_cifar(depth=11, alpha=12), [80, 96, 112], [19, 10, 5]),
    ],
)
def test_stage_maps_and_logits_are_of_one_pass(network, channels, sides):
    images = torch.randn(2, 3, 19, 19)
    logits, maps = network.eval().forward_with_maps(images)
    assert torch.equal(logits, network(images)) and all(
        torch.equal(a, b) for a, b in zip(maps, network.features(images), strict=True)
    )
    assert [tuple(x.shape[1:]) for x in maps] == [(c, side, side) for c, side in zip(channels, sides)]


def test_calibration_sits_after_stages_1_to_3():
    seen = []
    network = resnet18_cifar(
        width=4, calibration=lambda channels: seen.append(channels) or nn.Conv2d(channels, channels, 1, bias=False)
    )
    assert seen == [4, 8, 16] and [isinstance(stage[-1], nn.Conv2d) for stage in network.stages] == [
        True,
        True,
        True,
        False,
    ]
    plain = resnet18_cifar(width=4)
    assert measure(network, (3, 16, 16)).params - measure(plain, (3, 16, 16)).params == 4**2 + 8**2 + 16**2


def test_every_weight_learns():
    for network in (resnet18_cifar(5, width=2), pyramidnet110_cifar(5, depth=11, alpha=6, width=4)):
        F.cross_entropy(network(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
        silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []


def test_features_without_a_classifier_by_name():
    model = create_model("pyramidnet110_cifar", num_classes=None, depth=11)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, model.num_features)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pyramidnet110_cifar(depth=100), r"depth must be 9 n \+ 2 \(11, 20, 29 ... 110\)"),
        (lambda: resnet18_cifar(0), "num_classes must be at least 1, or None for features, not 0"),
    ],
)
def test_mistakes_get_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
