"""NOS: self-calibration against slow code, cells against their equations, the search cell against single operations,
guidance, costs, and what wrong input is told."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch.nas.genotype import (
    ATTENTIONS,
    DYNAMICS,
    FEATURES,
    SPACES,
    Genotype,
    Space,
    derive,
    genotype_cost,
    kind_of,
    random_genotype,
)
from scalable_arch.nas.networks import CifarNetwork, ImageNetNetwork, Position, cell_costs
from scalable_arch.nas.operations import make_operation
from scalable_arch.nas.search import search
from scalable_arch.nas.supernet import Supernet, plain_operation
from scalable_arch.nn.cifar import pyramidnet110_cifar, resnet18_cifar
from scalable_arch.nn.cost import measure
from scalable_arch.nos import (
    SELF_CALIBRATIONS,
    AttentionGuidance,
    ChannelGate,
    DynamicKernel,
    HeterogeneousBlock,
    HeterogeneousCell,
    HeterogeneousSearchCell,
    SpatialGate,
    Tier,
    apply_kernels,
    attention_vector,
    calibrate,
    depthwise_by_image,
    guidance_loss,
    heterogeneous_cost,
    make_calibration,
    nos_cifar,
    nos_imagenet,
    nos_supernet,
    self_calibration,
    single_calibration,
    sum_of_kernels,
)

NOS = SPACES["nos"]


# operations


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_dynamic_kernels_of_one_image_by_loops(kernel_size):
    maker, x = DynamicKernel(16, kernel_size, reduction=4).eval(), torch.randn(2, 16, 4, 5)
    for drawn in (
        maker.bottleneck[1].running_mean,
        maker.decode[1].running_mean,
        maker.decode[1].weight,
        maker.decode[1].bias,
    ):
        drawn.normal_()
    for image, kernels in zip(x, maker(x)):
        pixels = image.flatten(1).T  # (H * W, C)
        narrow = maker.bottleneck[1]((pixels @ maker.bottleneck[0].weight[:, :, 0, 0].T)[:, :, None, None])[:, :, 0, 0]
        for place, (row, column) in enumerate(itertools.product(range(kernel_size), repeat=2)):
            attention = (pixels @ maker.places.weight[place, :, 0, 0]).softmax(0)
            latent = F.relu(maker.transform.weight[:, :, 0, 0] @ (attention[:, None] * narrow).sum(0))
            decoded = maker.decode[1]((maker.decode[0].weight[:, :, 0, 0] @ latent)[None, :, None, None]).flatten()
            assert torch.allclose(kernels[:, row, column], decoded / kernel_size**2, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 3, 40]),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_applying_kernels_is_a_loop_over_images(images, channels, height, width, size, dilation, channels_last):
    x, kernels = (
        torch.randn(images, channels, height, width, dtype=torch.float64),
        torch.randn(images, channels, size, size, dtype=torch.float64),
    )
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    x, kernels, weights = x.requires_grad_(), kernels.requires_grad_(), torch.randn(x.shape, dtype=torch.float64)
    loop = torch.cat(
        [
            F.conv2d(a[None], k[:, None], padding=size // 2 * dilation, dilation=dilation, groups=channels)
            for a, k in zip(x, kernels)
        ]
    )
    ours, base = apply_kernels(x, kernels, dilation=dilation), torch.randn_like(x).requires_grad_()
    assert torch.allclose(ours, loop) and torch.allclose(depthwise_by_image(x, kernels, dilation), loop)
    added = apply_kernels(x, kernels, onto=base, dilation=dilation)
    assert torch.allclose(added, base + loop) and torch.equal(
        *torch.autograd.grad((added * weights).sum(), base), weights
    )
    for found, wanted in zip(*(torch.autograd.grad((y * weights).sum(), (x, kernels)) for y in (ours, loop))):
        assert torch.allclose(found, wanted)


@pytest.mark.parametrize("channels", [16, 128])
def test_threads_share_the_images_and_change_nothing(channels):
    x, kernels, threads = (
        torch.randn(5, channels, 6, 6, requires_grad=True),
        torch.randn(5, channels, 3, 3, requires_grad=True),
        torch.get_num_threads(),
    )
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            y = apply_kernels(x, kernels)
            found.append((y, *torch.autograd.grad(y.square().sum(), (x, kernels))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found))


def test_float32_within_1e_5_at_the_size_of_the_benchmark():
    x, kernels = (
        torch.randn(8, 128, 16, 16).contiguous(memory_format=torch.channels_last),
        torch.randn(8, 128, 5, 5) / 25,
    )
    loop = torch.cat([F.conv2d(a[None], k[:, None], padding=2, groups=128) for a, k in zip(x, kernels)])
    assert (apply_kernels(x, kernels) - loop).abs().max() < 1e-5


@pytest.mark.parametrize("name", DYNAMICS)
def test_a_fresh_dynamic_convolution_changes_nothing_and_learns(name):
    module, x = self_calibration(name)(40), torch.randn(4, 40, 8, 8)
    assert torch.equal(module(x), x)
    module(x).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=1e-3).step()
    assert not torch.allclose(module(x), x)
    assert make_calibration(name, 40, affine=False)(x).abs().max() > 0  # in a search no scale is learnt


@torch.no_grad()
def test_recorded_for_export_is_what_runs():
    module, x = self_calibration("dynamic_conv_3x3")(40).eval(), torch.randn(2, 40, 8, 8)
    module.operation.decode[1].weight.fill_(1)
    exported = torch.export.export(module, (x,)).module()
    assert torch.allclose(exported(x), module(x), atol=1e-5)


@torch.no_grad()
def test_attention_by_loops():
    x, spatial, channel = torch.randn(2, 32, 5, 6), SpatialGate(32).eval(), ChannelGate(32, reduction=4)
    looks = F.relu(torch.einsum("oc,bchw->bohw", spatial.look[0].weight[:, :, 0, 0], x) / (1 + 1e-5) ** 0.5)
    padded, expected = F.pad(looks, [1] * 4), torch.zeros(2, 1, 5, 6)
    for row, column in itertools.product(range(5), range(6)):
        window = padded[:, :, row : row + 3, column : column + 3]
        expected[:, 0, row, column] = (window * spatial.decide.weight[0]).sum((1, 2, 3)) + spatial.decide.bias
    assert torch.allclose(spatial(x), 1 / (1 + (-expected).exp()), atol=1e-6)
    squeezed = F.relu(x.mean((2, 3)) @ channel.squeeze.weight[:, :, 0, 0].T)
    assert channel.squeeze.out_channels == 8 and torch.allclose(
        channel(x).flatten(1), (squeezed @ channel.excite.weight[:, :, 0, 0].T).sigmoid(), atol=1e-6
    )


@torch.no_grad()
@pytest.mark.parametrize("side", [6, 7])
def test_stride_2_pools_the_weights_of_pixels(side):
    whole, x = SpatialGate(16).eval(), torch.randn(1, 16, side, side)
    halved = SpatialGate(16, 2).eval()
    halved.load_state_dict(whole.state_dict())
    full, half = whole(x)[0, 0], (side + 1) // 2
    assert halved(x).shape == (1, 1, half, half)
    for row, column in itertools.product(range(half), repeat=2):
        assert halved(x)[0, 0, row, column] == pytest.approx(
            full[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean().item(), abs=1e-6
        )


# blocks and cells


def by_equation(features, attentions, kernels):
    "W Eq. 6.4 term by term; `attentions` and `kernels` are lists."
    result = sum(features)
    calibrated = result.clone()
    for attention in attentions:
        calibrated = calibrated + result * attention
    for kernel in kernels:
        size = kernel.shape[-1]
        calibrated = calibrated + torch.cat(
            [F.conv2d(a[None], k[:, None], padding=size // 2, groups=len(a)) for a, k in zip(result, kernel)]
        )
    return calibrated


@torch.no_grad()
@pytest.mark.parametrize(
    "names",
    [
        ("sep_conv_3x3", "skip_connect"),
        ("skip_connect", "spatial_attention"),
        ("channel_attention", "max_pool_3x3"),
        ("dynamic_conv_5x5", "avg_pool_3x3"),
        (
            "skip_connect",
            "spatial_attention",
            "channel_attention",
            "dynamic_conv_3x3",
            "dynamic_conv_5x5",
            "skip_connect",
        ),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_tier_is_equation_6_4(names, stride):
    torch.manual_seed(0)
    tier, inputs = Tier(names, 8, [stride] * len(names)).eval(), [torch.randn(2, 8, 7, 7) for _ in names]
    found = {
        kind: [operation(x) for name, operation, x in zip(names, tier.operations, inputs) if kind_of(name) == kind]
        for kind in ("feature", "attention", "dynamic")
    }
    assert torch.allclose(tier(inputs), by_equation(*found.values()), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", SELF_CALIBRATIONS)
def test_second_tier_without_features_calibrates_the_surrogate(name):  # note O2
    block = HeterogeneousBlock(3, (("skip_connect", 0), ("skip_connect", 2), (name, 3)), 8, reduces=False).eval()
    states = [torch.randn(2, 8, 6, 6) for _ in range(3)]
    surrogate = states[0] + states[2]
    found = block.second.operations[0](surrogate)
    attentions, kernels = ([found], []) if name in ATTENTIONS else ([], [found])
    assert torch.allclose(block(states), by_equation([surrogate], attentions, kernels), atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 9999), st.sampled_from(["normal", "reduction"]), st.integers(5, 9), st.integers(5, 9))
def test_any_genotype_makes_a_cell_whose_every_weight_learns(seed, kind, height, width):
    torch.manual_seed(seed)
    genotype = random_genotype(NOS, seed)
    cell = HeterogeneousCell(genotype, Position(kind, 8, False, 0), 6, 10)
    y = cell(torch.randn(3, 6, height, width), torch.randn(3, 10, height, width))
    scale = 2 if kind == "reduction" else 1
    assert y.shape == (3, 32, -(-height // scale), -(-width // scale))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters())


def test_drop_path_silences_features_only_and_only_in_training():
    torch.manual_seed(0)
    tier, x = Tier(("sep_conv_3x3", "channel_attention"), 4, [1, 1]), torch.randn(400, 4, 3, 3)
    silent = (tier([x, x], 0.3).flatten(1) == 0).all(1).float().mean()
    assert abs(silent - 0.3) < 0.08
    assert not (tier.eval()([x, x], 0.3).flatten(1) == 0).all(1).any()
    identity = Tier(("skip_connect",), 4, [1])
    assert torch.equal(identity([x], 0.9), x)


def test_evaluation_networks_train_and_infer():
    genotype = random_genotype(NOS, 3)
    network = nos_cifar(genotype, channels=4, cells=3, drop_path=0.2)
    logits, hints = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == hints.shape == (2, 10) and [
        x.shape[-1] for x in network.features(torch.randn(2, 3, 32, 32))
    ] == [32, 16, 8]
    large = nos_imagenet(genotype, channels=4, cells=3, num_classes=7).eval()
    assert large(torch.randn(1, 3, 65, 50)).shape == (1, 7)


# search cell


def single(cell, node, source, name):
    "One operation of a search cell as a module of its own."
    second = cell.second[node - 2]
    if kind_of(name) != "feature":
        return (
            single_calibration(second.says, 0, name)
            if source == node
            else single_calibration(cell.says[source], node - max(source + 1, 2), name)
        )
    mixed, edge = (second.features, 0) if source == node else (cell.first[node - 2], source)
    ((group, place),) = [(group, rows.index(edge)) for group, rows in zip(mixed.groups, mixed.rows) if edge in rows]
    return plain_operation(group, place, name, cell.preprocess1[1].weight)


def written_out(cell, before, last, probabilities, space, modules):
    "The search cell by W Eq. 6.1 to 6.8 with one module an operation on every edge."
    states, row = [cell.preprocess0(before), cell.preprocess1(last)], {edge: i for i, edge in enumerate(space.edges())}
    for node in range(2, 2 + space.inner_nodes):
        surrogate = None  # what the first tier makes for the second
        for sources in (range(node), [node]):
            inputs = states if len(sources) > 1 else [surrogate]  # noqa: F821 of the first tier, below
            found = {"feature": [], "attention": [], "dynamic": []}
            for source, x in zip(sources, inputs):
                for name, share in zip(space.operations, probabilities[row[source, node]]):
                    found[kind_of(name)].append(share * modules[node, source, name](x))
            if len(sources) == 1:  # note O2
                calibrating = sum(
                    share
                    for name, share in zip(space.operations, probabilities[row[node, node]])
                    if kind_of(name) != "feature"
                )
                found["feature"].append(calibrating * surrogate)  # noqa: F821
            surrogate = by_equation(*found.values())
        states.append(surrogate)
    return torch.cat(states[2:], 1)


@pytest.mark.parametrize("kind", ["normal", "reduction"])
@pytest.mark.parametrize(
    "space",
    [
        NOS,
        Space(
            "few",
            ("channel_attention", "dynamic_conv_3x3", "sep_conv_3x3", "skip_connect"),
            inner_nodes=2,
            second_tier=True,
        ),
    ],
    ids=["nos", "few"],
)
def test_search_cell_and_its_gradients_against_single_operations(kind, space):
    torch.manual_seed(1)
    cell = HeterogeneousSearchCell(space, Position(kind, 4, False, 0), 6, 6).double()
    edges = [(source, node) for source, node in space.edges()]
    modules = {
        (node, source, name): single(cell, node, source, name) for source, node in edges for name in space.operations
    }
    pools = {key: module for key, module in modules.items() if "pool" in key[2]}
    for (node, source, name), module in pools.items():  # their normalisation has no weights
        stride = 2 if kind == "reduction" and source < 2 else 1
        modules[node, source, name] = make_operation(name, 4, stride, pool_norm=True).double()
    probabilities = torch.rand(len(edges), len(space.operations), dtype=torch.float64).softmax(1).requires_grad_()
    inputs = [torch.randn(2, 6, 5, 6, dtype=torch.float64) for _ in range(2)]
    ours, slow = cell(*inputs, probabilities), written_out(cell, *inputs, probabilities, space, modules)
    assert torch.allclose(ours, slow, atol=1e-9)
    first = cell.preprocess1[1].weight
    gradients = [torch.autograd.grad(y.pow(3).sum(), (probabilities, first)) for y in (ours, slow)]
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(*gradients))


def test_every_architecture_parameter_and_weight_learns():
    torch.manual_seed(0)
    supernet = nos_supernet(channels=16, cells=3)
    F.cross_entropy(supernet(torch.randn(6, 3, 8, 8)), torch.arange(6)).backward()
    assert {name: tuple(table.shape) for name, table in supernet.controller.logits.items()} == {
        "normal": (18, 11),
        "reduction": (18, 11),
    }
    assert all((table.grad != 0).all() for table in supernet.controller.parameters())
    silent = [name for name, p in supernet.named_parameters() if p.grad is None]
    assert silent == []


# derivation


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20))
def test_derivation_is_the_best_of_all_blocks_with_a_feature(seed, sharpness):
    rng = np.random.default_rng(seed)
    tables = {cell: rng.dirichlet(np.full(11, sharpness), 18) for cell in ("normal", "reduction")}
    genotype, row = derive(tables, NOS), {edge: i for i, edge in enumerate(NOS.edges())}
    for cell, table in tables.items():
        for number, node in enumerate(genotype.nodes(cell), 2):
            product = lambda edges: math.prod(
                table[row[source, number], NOS.operations.index(name)] for name, source in edges
            )
            pairs = [
                ((a, i), (b, j))
                for i, j in itertools.combinations(range(number), 2)
                for a, b in itertools.product(NOS.operations, repeat=2)
                if {a, b} & set(FEATURES)
            ]
            assert product(node[:2]) == pytest.approx(max(map(product, pairs)))
            assert node[2] == (NOS.operations[table[row[number, number]].argmax()], number)


# guidance


def test_guidance_losses_by_loops():
    student, teacher = [[torch.randn(3, channels, side, side) for side in (4, 2)] for channels in (5, 7)]
    literal, code = 0, 0
    for s, t in zip(student, teacher):
        for a, b in zip(s, t):
            x, y = ((m**2).sum(0).flatten() for m in (a, b))
            difference = x / x.norm() - y / y.norm()
            literal, code = literal + difference.norm().item() / 2 / 3, code + (difference**2).mean().item() / 3
    assert guidance_loss(student, teacher, form="paper").item() == pytest.approx(literal, rel=1e-5)
    assert guidance_loss(student, teacher).item() == pytest.approx(code, rel=1e-5)
    assert torch.allclose(attention_vector(student[0]).norm(dim=1), torch.ones(3))


def test_guidance_leaves_the_teacher_alone_and_teaches():
    torch.manual_seed(0)
    teacher, student = pyramidnet110_cifar(depth=11, alpha=6, width=4).train(), nos_supernet(channels=4, cells=3)
    before, images, guidance = (
        {name: x.clone() for name, x in teacher.state_dict().items()},
        torch.randn(4, 3, 16, 16),
        AttentionGuidance(teacher, weight=10),
    )
    optimizer, losses = torch.optim.SGD(student.weights(), lr=0.05, momentum=0.9), []
    for _ in range(4):
        losses.append(guidance(student.features(images), images))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] and teacher.training and all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())
    same = teacher.eval().features(images)
    assert (
        AttentionGuidance(teacher)(same, images).item() == 0
        and AttentionGuidance(teacher, form="paper")(same, images).item() == 0
    )


def test_guided_search_continues_to_the_same_genotype(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8, generator=generator), torch.arange(12) % 3

    class Killed(Exception):
        pass

    def run(stop_at=None, **options):
        torch.manual_seed(0)
        supernet, teacher = (
            nos_supernet(channels=2, cells=3, num_classes=3),
            pyramidnet110_cifar(depth=11, alpha=6, width=4),
        )
        guidance = AttentionGuidance(teacher)
        steps = []

        def watched(maps, batch):
            steps.append(1)
            if len(steps) == stop_at:
                raise Killed
            return guidance(maps, batch)

        watched.__qualname__ = guidance.__qualname__
        return search(
            supernet, images, labels, epochs=1, batch_size=3, controller_lr=0.1, guidance=watched, **options
        ), supernet

    whole, first = run()
    with pytest.raises(Killed):
        run(stop_at=3, checkpoint=tmp_path, checkpoint_every=1)
    continued, second = run(checkpoint=tmp_path, checkpoint_every=1)
    assert continued[-1]["genotype"] == whole[-1]["genotype"] and json.loads(whole[-1]["genotype"])["space"] == "nos"
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


# costs

STAGES = {64: 32, 128: 16, 256: 8}
ADDED = {
    "dynamic_conv_3x3": (3.85e6, "0.03"),
    "dynamic_conv_5x5": (7.62e6, "0.04"),
    "spatial_attention": (1.08e6, "0.01"),
    "channel_attention": (0.40e6, "0.17"),
}


@pytest.mark.parametrize("name", ADDED)
def test_additions_to_resnet_18(name):  # W Table 6.1, whose way of counting adds the elements of products and sums
    added, base = (
        measure(resnet18_cifar(calibration=self_calibration(name)), (3, 32, 32)),
        measure(resnet18_cifar(), (3, 32, 32)),
    )
    elements = sum(c * side**2 for c, side in STAGES.items())
    taps = {"dynamic_conv_3x3": 9, "dynamic_conv_5x5": 25}.get(name, 0)
    matrices = sum(c // 8 * side**2 * taps for c, side in STAGES.items())
    printed, digits = ADDED[
        name
    ]  # channel attention: 0.15 is printed, which no design that meets the cost has (note O8)
    assert added.macs - base.macs - matrices + elements * (1 if taps else 2) == pytest.approx(printed, rel=0.02)
    assert f"{(added.params - base.params) / 1e6:.2f}" == digits


@pytest.mark.parametrize(
    ("network", "make", "side"), [(CifarNetwork, nos_cifar, 32), (ImageNetNetwork, nos_imagenet, 80)]
)
def test_costs_add_up_over_edges(network, make, side):
    tables = {
        what: cell_costs(
            NOS,
            network,
            quantity=what,
            image_size=side,
            operation_cost=heterogeneous_cost,
            cell=HeterogeneousCell,
            channels=4,
            cells=3,
        )
        for what in ("macs", "params")
    }
    for seed in range(3):
        genotype = random_genotype(NOS, seed)
        found = measure(make(genotype, channels=4, cells=3, auxiliary=False), (3, side, side))
        assert (genotype_cost(genotype, tables["macs"]), genotype_cost(genotype, tables["params"])) == found


def test_sizes_of_the_spaces():
    assert NOS.size(required=()) == 180 * 11**12 and SPACES["nge"].size() == 180 * 7**8
    one_block = sum(1 for pair in itertools.product(NOS.operations, repeat=2) if set(pair) & set(FEATURES))
    assert NOS.size() == 180 * (one_block * 11) ** 4


# wrong input

GENOTYPE = random_genotype(NOS, 0)
STUDENT = [torch.randn(2, 4, side, side) for side in (32, 16, 8)]


class SequentialStages(nn.Module):
    "A network as many write it, whose `features` are its layers and give one map."

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: nos_cifar(random_genotype(SPACES["nge"], 0)),
            "a heterogeneous cell has two tiers, but the genotype is of the space nge, which has one",
        ),
        (lambda: CifarNetwork(GENOTYPE), "space nos has a second tier"),
        (lambda: nos_supernet("nge"), "a heterogeneous cell has two tiers, but the space nge has one"),
        (lambda: Supernet("nos"), "space nos has a second tier"),
        (
            lambda: nos_supernet(Space("calm", ATTENTIONS + DYNAMICS, second_tier=True)),
            "the space calm has no feature transformation, so there would be no maps to calibrate",
        ),
        (
            lambda: Space("calm", ATTENTIONS, second_tier=True, required=FEATURES),
            "the space 'calm' is not usable: required names operations that it does not have",
        ),
        (
            lambda: HeterogeneousBlock(
                2, (("channel_attention", 0), ("spatial_attention", 1), ("skip_connect", 2)), 4, False
            ),
            "node 2 has only channel_attention and spatial_attention from earlier nodes",
        ),
        (lambda: Genotype(GENOTYPE.normal, GENOTYPE.reduction, SPACES["nge"]), "node 2 of the normal cell"),
        (
            lambda: AttentionGuidance(pyramidnet110_cifar(depth=11), weight=-0.1),
            "the weight of the guidance must be at least 0",
        ),
        (
            lambda: AttentionGuidance(pyramidnet110_cifar(depth=11), weight=math.nan),
            "the weight of the guidance must be at least 0",
        ),
        (
            lambda: AttentionGuidance(pyramidnet110_cifar(depth=11), form="codes"),
            "unknown form 'codes' .did you mean 'code'",
        ),
        (lambda: AttentionGuidance(nn.Flatten()), "a Flatten cannot guide: it has no method features"),
        (
            lambda: AttentionGuidance(resnet18_cifar(width=4))(STUDENT, torch.randn(2, 3, 32, 32)),
            "the teacher's stages do not fit: they end with maps of 32x32, 16x16, 8x8, 4x4",
        ),
        (
            lambda: AttentionGuidance(pyramidnet110_cifar(depth=11))(STUDENT, torch.randn(2, 3, 16, 16)),
            "the teacher's stages do not fit: they end with maps of 16x16, 8x8, 4x4",
        ),
        (lambda: self_calibration("dynamic_conv_7x7"), "unknown self-calibration 'dynamic_conv_7x7'"),
        (lambda: make_calibration("skip_connect", 8), "unknown self-calibration 'skip_connect'"),
        (
            lambda: apply_kernels(STUDENT[2], torch.randn(2, 4, 4, 4)),
            r"maps of shape \(2, 4, 8, 8\) need kernels of shape \(2, 4, k, k\) with k odd, not \(2, 4, 4, 4\)",
        ),
        (
            lambda: apply_kernels(STUDENT[2][0], torch.randn(2, 4, 3, 3)),
            r"maps must be of shape \(B, C, H, W\), not \(4, 8, 8\)",
        ),
        (
            lambda: apply_kernels(torch.ones(2, 40, 5, 5), torch.ones(2, 40, 3, 3), onto=torch.ones(2, 40, 4, 4)),
            r"onto must have the shape of the maps, \(2, 40, 5, 5\), not \(2, 40, 4, 4\)",
        ),
        (
            lambda: apply_kernels(torch.ones(2, 40, 5, 5), torch.ones(2, 40, 3, 3), dilation=0),
            "dilation must be a whole number of at least 1, not 0",
        ),
        (
            lambda: apply_kernels(torch.ones(2, 40, 5, 5), torch.ones(2, 40, 3, 3), dilation=2.0),
            "dilation must be a whole number of at least 1, not 2.0",
        ),
        (lambda: self_calibration("channel_attention", dilation=2), "channel_attention has no dilation"),
        (
            lambda: AttentionGuidance(SequentialStages())(STUDENT, torch.randn(2, 3, 8, 8)),
            r"features\(images\) of a SequentialStages must return a list of the maps",
        ),
        (
            lambda: derive({cell: np.ones((14, 7)) for cell in ("normal", "reduction")}, NOS),
            r"must be numbers of shape \(18, 11\)",
        ),
    ],
)
def test_mistakes_get_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_sum_of_kernels_fills_up_the_smaller():
    small, large = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 3, 3)
    assert sum_of_kernels([small, large]).flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert calibrate(STUDENT[2]) is STUDENT[2]
