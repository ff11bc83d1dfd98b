"""nas.operations and nas.supernet: geometry, the printed costs, and the fast supernet
against one module an operation."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scalable_arch.nas.genotype import SPACES, Space
from scalable_arch.nas.networks import Position
from scalable_arch.nas.operations import OPERATIONS, FactorizedReduce, make_operation
from scalable_arch.nas.supernet import (
    AlphaController,
    MixedNode,
    NodeViews,
    NormalisedMix,
    SearchCell,
    Supernet,
    depthwise_conv,
    plain,
)
from scalable_arch.nn.cost import measure


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(OPERATIONS),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    affine=st.booleans(),
)
def test_operations_keep_channels_and_halve_rounding_up(name, stride, height, width, affine):
    operation = make_operation(name, 6, stride, affine=affine).eval()
    assert operation(torch.randn(2, 6, height, width)).shape == (2, 6, -(-height // stride), -(-width // stride))
    norms = [module for module in operation.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.affine == affine for norm in norms)


def test_operations_compute_what_their_names_say():
    x = torch.randn(2, 3, 5, 6)
    assert torch.equal(make_operation("none", 3, 2)(x), torch.zeros(2, 3, 3, 3))
    assert torch.equal(make_operation("skip_connect", 3)(x), x)
    corner = make_operation("avg_pool_3x3", 3)(x)[:, :, 0, 0]
    assert torch.allclose(corner, x[:, :, :2, :2].mean((2, 3)))  # the border is not counted
    dilated = make_operation("dil_conv_3x3", 3, affine=False).eval()
    slow = F.conv2d(F.relu(x), dilated[1].weight, padding=2, dilation=2, groups=3)
    assert torch.allclose(dilated(x), F.conv2d(slow, dilated[2].weight) / (1 + 1e-5) ** 0.5)
    pooled = make_operation("max_pool_3x3", 3, pool_norm=True)(x)
    assert pooled.mean((0, 2, 3)).abs().max() < 1e-6


def test_factorized_reduce_sees_every_pixel_of_odd_maps():
    reduce = FactorizedReduce(1, 2, affine=False).eval()
    for part in (reduce.conv_even, reduce.conv_odd):
        torch.nn.init.ones_(part.weight)
    x = torch.arange(1.0, 16).view(1, 1, 3, 5)
    even, odd = reduce(x)[0] * (1 + 1e-5) ** 0.5
    assert torch.allclose(even, x[0, 0, ::2, ::2])
    assert torch.allclose(odd, torch.tensor([[7.0, 9, 0], [0, 0, 0]]))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: make_operation("sep_conv_3", 8), "did you mean 'sep_conv_3x3'"),
        (lambda: make_operation("sep_conv_3x3", 8, 3), "unknown stride 3"),
    ],
)
def test_operations_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@settings(max_examples=20, deadline=None)
@given(
    size=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2]),
    channels=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    threads=st.sampled_from([1, 2]),
)
def test_depthwise_has_the_gradients_of_torch(size, stride, dilation, channels, height, width, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x = torch.randn(3, channels, height, width, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(channels, 1, size, size, dtype=torch.float64, requires_grad=True)
        ours, slow = (
            depthwise_conv(x, weight, stride, dilation),
            F.conv2d(x, weight, None, stride, dilation * (size // 2), dilation, channels),
        )
        found, wanted = (torch.autograd.grad((y**2).sum(), [x, weight]) for y in (ours, slow))
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(ours, slow) and all(torch.allclose(a, b) for a, b in zip(found, wanted))


def test_a_folded_normalisation_passes_gradcheck():
    torch.manual_seed(0)
    random = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *given: NormalisedMix.apply(*given)[0],
        (random(2, 2), random(2, 2, 3, 2), random(7, 2, 3), random(7, 2, 3)),
    )


def gradients(network, images, labels):
    "(loss, a copy of the network with the gradients in the place of its parameters)."
    holder = copy.deepcopy(network)
    loss = F.cross_entropy(network(images), labels)
    for x, g in zip(holder.parameters(), torch.autograd.grad(loss, list(network.parameters()))):
        x.data.copy_(g)
    return loss, holder


SMALL = {
    "darts": SPACES["darts"],
    "few": Space("few", ("skip_connect", "none"), inner_nodes=2),
    "pools": Space("pools", ("avg_pool_3x3", "max_pool_3x3"), inner_nodes=1),
    "wide": Space("wide", ("sep_conv_7x7", "conv_7x1_1x7", "dil_conv_5x5", "skip_connect"), inner_nodes=3),
}


@pytest.mark.parametrize("space, size", [("darts", (9, 6)), ("few", (5, 4)), ("pools", (9, 8)), ("wide", (10, 9))])
def test_the_fast_supernet_is_the_plain_one(space, size):
    torch.manual_seed(0)
    fast = Supernet(SMALL[space], channels=3, cells=3, num_classes=4).double()
    for table in fast.controller.parameters():
        table.data.mul_(1000)  # far from uniform
    slow, images, labels = plain(fast), torch.randn(5, 3, *size, dtype=torch.float64), torch.arange(5) % 4
    (loss, ours), (plain_loss, theirs) = (gradients(network, images, labels) for network in (fast, slow))
    assert abs(loss - plain_loss) < 1e-12
    for (name, a), b in zip(plain(ours).named_parameters(), theirs.parameters()):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-11), name
    found, wanted = plain(fast).state_dict(), slow.state_dict()
    assert all(torch.allclose(found[name], x) for name, x in wanted.items() if "running" in name)
    assert torch.allclose(fast.eval()(images), slow.eval()(images))
    eval_found, eval_wanted = (
        torch.autograd.grad(F.cross_entropy(net(images), labels), list(net.controller.parameters()))
        for net in (fast, slow)
    )
    assert all(torch.allclose(a, b) for a, b in zip(eval_found, eval_wanted))


def test_single_precision_is_as_close_to_double_as_the_plain_supernet_is():
    torch.manual_seed(0)
    fast = Supernet("nge", channels=4, cells=3)
    images, labels = torch.randn(12, 3, 8, 8), torch.arange(12) % 10
    exact = gradients(plain(fast).double(), images.double(), labels)[1].controller.parameters()
    ours, theirs = (gradients(network, images, labels)[1].controller.parameters() for network in (fast, plain(fast)))
    for a, b, c in zip(ours, theirs, exact):
        assert (a - c).abs().max() < 2e-6 + 3 * (b - c).abs().max() and (a - b).abs().max() < 1e-4


def test_a_mixed_node_takes_any_order_of_strides_and_batches():
    torch.manual_seed(0)
    node, operations = (
        MixedNode(4, [1, 2, 1], ["sep_conv_3x3", "skip_connect", "max_pool_3x3"]),
        ["sep_conv_3x3", "skip_connect", "max_pool_3x3"],
    )
    views = [
        NodeViews(4, stride, operations)(torch.randn(1, 4, side, side)) for stride, side in ((1, 3), (2, 6), (1, 3))
    ]
    table = torch.rand(3, 3)
    whole, alone = node(views, table), [node(views, table * torch.eye(3)[j][:, None]) for j in range(3)]
    assert whole.shape == (1, 4, 3, 3) and torch.allclose(whole, sum(alone), atol=1e-5)


def test_the_printed_size_of_the_supernet():
    supernet = Supernet("nge")
    controller = sum(x.numel() for x in supernet.controller.parameters())
    cost = measure(supernet, (3, 32, 32))
    assert (cost.macs, cost.params - controller) == (300_255_744, 1_930_618)  # 300.3 M, 1.931 M
    assert controller == 2 * 14 * 7


def test_the_plain_supernet_costs_the_same():
    supernet = Supernet("darts", channels=4, cells=3)
    assert measure(plain(supernet), (3, 9, 12)) == measure(supernet, (3, 9, 12))


def test_the_controller_is_part_of_the_supernet():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.row = torch.nn.Parameter(torch.zeros(7))

        def forward(self):
            return dict.fromkeys(("normal", "reduction"), self.row.expand(14, 7))

    supernet = Supernet("nge", channels=2, cells=3, controller=Shared())
    assert "controller.row" in supernet.state_dict() and all(
        x is not supernet.controller.row for x in supernet.weights()
    )
    images = torch.randn(2, 3, 8, 8)
    supernet(images).sum().backward()
    assert supernet.controller.row.grad.abs().sum() > 0
    tables = {cell: torch.full((14, 7), 1 / 7) for cell in ("normal", "reduction")}
    logits, maps = supernet.forward_with_maps(images, tables)
    assert torch.allclose(logits, supernet(images)) and [tuple(x.shape[1:]) for x in maps] == [
        (8, 8, 8),
        (16, 4, 4),
        (32, 2, 2),
    ]
    assert [x.shape[1] for x in maps] == supernet.feature_channels


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown space 'ngee'"):
        Supernet("ngee")
    with pytest.raises(ValueError, match="nos has a second tier"):
        Supernet("nos")
    with pytest.raises(ValueError, match="controller's logits must be a dict with a tensor of shape \\(14, 7\\)"):
        Supernet("nge", channels=2, cells=3, controller=AlphaController(SPACES["darts"]))
    with pytest.raises(ValueError, match="at least 3 cells"):
        Supernet("nge", cells=2)
    supernet = Supernet("nge", channels=2, cells=3)
    with pytest.raises(ValueError, match="both sides at least 4 pixels"):
        supernet(torch.randn(2, 3, 3, 8))
    with pytest.raises(ValueError, match="probabilities must be a dict"):
        supernet(torch.randn(2, 3, 8, 8), {"normal": torch.ones(14, 7)})
    with pytest.raises(ValueError, match="unknown operation 'conv'"):
        MixedNode(4, [1, 1], ["conv"])
    assert SearchCell(SPACES["nge"], Position("normal", 2, False, 0), 6, 6).out_channels == 8
