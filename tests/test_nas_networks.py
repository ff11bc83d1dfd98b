"""Networks made of cells: published counts, the plain recipe, drop-path, image sizes, output stride, cost tables."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scalable_arch import create_model, list_models
from scalable_arch.nas.genotype import PUBLISHED, SPACES, Genotype, Space, derive, genotype_cost, random_genotype
from scalable_arch.nas.networks import (
    AuxiliaryHead,
    CifarNetwork,
    EvaluationCell,
    ImageNetNetwork,
    Position,
    cell_costs,
    cell_positions,
    drop_path,
    spread_kernels,
)
from scalable_arch.nas.operations import FactorizedReduce, make_operation
from scalable_arch.nn.cost import Cost, measure
from scalable_arch.train.checkpoint import load_model, save_model

SMALL = {"channels": 4, "cells": 5}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def settled(network, size):
    "The network in eval mode, after its normalisations have seen some images and its weights are no longer all alike."
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return network.eval()


# ---- what is published


@pytest.mark.parametrize(
    "name, size, params, with_head, macs",
    [("darts_v2_cifar", 32, 3_349_342, 3.826, 528.4), ("darts_v2_imagenet", 224, 4_718_752, 5.980, 529.9)],
)
def test_darts_to_the_last_parameter(name, size, params, with_head, macs):
    cost = measure(create_model(name), (3, size, size))
    assert cost.params == params and round(cost.macs / 1e6, 1) == macs
    assert round(sum(p.numel() for p in create_model(name, auxiliary=True).parameters()) / 1e6, 3) == with_head


@pytest.mark.parametrize("name", [f"{cells}_{images}" for cells in PUBLISHED for images in ("cifar", "imagenet")])
def test_published_networks_by_name(name):
    assert name in list_models()
    size = 33 if "cifar" in name else 70
    model = create_model(name, num_classes=7, **SMALL)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)
    bare = create_model(name, num_classes=None, auxiliary=True, **SMALL)
    assert bare.auxiliary is None and bare(torch.rand(2, 3, size, size + 2)).shape == (2, bare.num_features)


def test_where_the_reductions_stand():
    kinds = ["".join(p.kind[0] for p in cell_positions(16, cells)) for cells in (8, 20, 14, 3)]
    assert kinds == ["nnrnnrnn", "nnnnnnrnnnnnnrnnnnnn", "nnnnrnnnnrnnnn", "nrr"]
    assert [p.channels for p in cell_positions(16, 8)] == [16, 16, 32, 32, 32, 64, 64, 64]
    assert [p.halves_before for p in cell_positions(16, 8, halved_stem=True)] == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def plain_forward(network, genotype_lists, images):
    """The published recipe step by step: lists of (operation, source) in the published order, modules taken from the
    network."""
    first = second = network.stem(images)
    for i, cell in enumerate(network.cells):
        kind = "reduction" if i in (len(network.cells) // 3, 2 * len(network.cells) // 3) else "normal"
        edges, concat = genotype_lists[kind]
        sorted_edges = [edge for node in network.genotype.nodes(kind) for edge in node]
        states, left = [cell.preprocess0(first), cell.preprocess1(second)], list(zip(sorted_edges, cell.operations))
        for k in range(len(edges) // 2):
            total, here = 0, left[2 * k : 2 * k + 2]
            for edge in edges[2 * k : 2 * k + 2]:
                match = next(j for j, (other, _) in enumerate(here) if other == edge)
                total = total + here.pop(match)[1](states[edge[1]])
            states.append(total)
        first, second = second, torch.cat([states[k] for k in concat], 1)
    return network.classifier(F.adaptive_avg_pool2d(second, 1).flatten(1))


def test_the_recipe_followed_by_hand():
    normal = [
        ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 0),
        ("sep_conv_3x3", 0),
        ("avg_pool_3x3", 1),
        ("skip_connect", 0),
        ("avg_pool_3x3", 0),
        ("avg_pool_3x3", 0),
        ("sep_conv_3x3", 1),
        ("skip_connect", 1),
    ]
    reduction = [
        ("sep_conv_5x5", 1),
        ("sep_conv_7x7", 0),
        ("max_pool_3x3", 1),
        ("sep_conv_7x7", 0),
        ("avg_pool_3x3", 1),
        ("sep_conv_5x5", 0),
        ("skip_connect", 3),
        ("avg_pool_3x3", 2),
        ("sep_conv_3x3", 2),
        ("max_pool_3x3", 1),
    ]
    network = settled(CifarNetwork(PUBLISHED["nasnet"], channels=4, cells=6), 32)
    images = torch.rand(2, 3, 32, 32)
    expected = plain_forward(network, {"normal": (normal, range(2, 7)), "reduction": (reduction, (4, 5, 6))}, images)
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


# ---- training: heads and drop-path


def test_auxiliary_logits_only_in_training_and_gradients_everywhere():
    network = CifarNetwork(PUBLISHED["darts_v2"], **SMALL, num_classes=3, drop_path=0.2)
    images = torch.rand(4, 3, 32, 32)
    logits, hints = network(images)
    assert logits.shape == hints.shape == (4, 3)
    (logits.sum() + 0.4 * hints.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert isinstance(network.eval()(images), torch.Tensor)
    assert isinstance(CifarNetwork(PUBLISHED["darts_v2"], **SMALL, auxiliary=False)(images), torch.Tensor)


def test_auxiliary_head_sits_after_the_second_reduction():
    for cells in (3, 5, 8):
        network = CifarNetwork(PUBLISHED["darts_v1"], channels=4, cells=cells)
        assert network.positions[network.auxiliary_place] == Position(
            "reduction", 16, network.positions[network.auxiliary_place].halves_before, 2
        )
        assert [p.stage for p in network.positions].index(2) == network.auxiliary_place


@pytest.mark.parametrize("stride, published", [(3, 8), (2, 7)])
def test_auxiliary_head_is_the_published_one_at_its_size_and_takes_others(stride, published):
    head = AuxiliaryHead(6, 5, stride=stride, norm=stride == 3).eval()
    x = torch.randn(2, 6, published, published)
    plain = nn.Sequential(nn.ReLU(), nn.AvgPool2d(5, stride), head.narrow, head.widen, nn.Flatten(), head.classifier)
    torch.testing.assert_close(head(x), plain(x))
    for size in ((1, 1), (3, 20), (published + 9, published)):
        assert head(torch.randn(2, 6, *size)).shape == (2, 5)
    assert any(isinstance(part, nn.BatchNorm2d) for part in head.widen) == (stride == 3)


def test_drop_path_takes_whole_images_and_keeps_the_mean():
    dropped = drop_path(torch.rand(4000, 3, 2, 2) + 1, 0.25)
    gone = (dropped == 0).flatten(1)
    assert torch.equal(gone.all(1), gone.any(1)) and gone.all(1).float().mean() == pytest.approx(0.25, abs=0.03)
    assert dropped.mean() == pytest.approx(1.5, abs=0.04)
    x = torch.rand(50, 3, 2, 2)
    kept = drop_path(x, 0.5)
    assert torch.equal(kept[kept.flatten(1).any(1)], x[kept.flatten(1).any(1)] * 2)


def test_drop_path_spares_the_identity_and_is_off_in_eval():
    space = Space("identities", ("skip_connect",))
    nodes = [[("skip_connect", 0), ("skip_connect", 1)]] * 4
    genotype = Genotype(nodes, nodes, space)
    normal, reduction = (
        EvaluationCell(genotype, Position(kind, 4, False, 0), 4, 4) for kind in ("normal", "reduction")
    )
    x = torch.rand(64, 4, 6, 6)
    assert torch.equal(normal(x, x, 0.9), normal(x, x, 0.0))
    assert (reduction(x, x, 0.9).flatten(1) == 0).all(1).any() and not (reduction(x, x, 0.0).flatten(1) == 0).all(
        1
    ).any()
    assert torch.equal(reduction.eval()(x, x, 0.9), reduction(x, x, 0.0))


def test_the_rate_can_be_raised_from_outside():
    network = CifarNetwork(PUBLISHED["darts_v2"], **SMALL, auxiliary=False)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(network(images), network(images))
    network.drop_path_rate = 0.5
    assert not torch.equal(network(images), network(images))


# ---- images of any size, any device and type


@pytest.mark.parametrize("make, smallest", [(CifarNetwork, 4), (ImageNetNetwork, 32)])
def test_image_sizes(make, smallest):
    network = make(PUBLISHED["nasnet"], **SMALL, num_classes=3)
    for height, width in ((smallest, smallest), (smallest + 1, 2 * smallest + 5), (99, smallest)):
        logits, hints = network(torch.rand(2, 3, height, width))
        assert logits.shape == hints.shape == (2, 3)
    for size in ((smallest - 1, 64), (64, smallest - 1)):
        with pytest.raises(
            ValueError, match=f"images of {size[0]}x{size[1]} are too small.*at least {smallest} pixels"
        ):
            network(torch.rand(2, 3, *size))
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\), not \(2, 1, 64, 64\)"):
        network.features(torch.rand(2, 1, 64, 64))


def test_features_of_the_three_stages():
    network = CifarNetwork(PUBLISHED["amoebanet"], **SMALL).eval()
    maps = network.features(torch.rand(2, 3, 32, 30))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, h, w) for c, h, w in zip(network.feature_channels, (32, 16, 8), (30, 15, 8))
    ]
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(images), network.classifier(network.features(images)[-1].mean((2, 3))))
    assert network.feature_channels[-1] == network.num_features == 3 * 16


def test_nothing_stays_on_the_processor_or_in_single_precision():
    network = CifarNetwork(PUBLISHED["darts_v2"], **SMALL, drop_path=0.3)
    assert copy.deepcopy(network).double()(torch.rand(2, 3, 33, 33, dtype=torch.float64))[1].dtype == torch.float64
    assert network.to("meta")(torch.rand(2, 3, 33, 33, device="meta"))[0].device.type == "meta"


def test_weights_survive_a_file(tmp_path):
    network = settled(ImageNetNetwork(PUBLISHED["amoebanet"], **SMALL, num_classes=5), 64)
    save_model(tmp_path / "network.safetensors", network)
    other = ImageNetNetwork(PUBLISHED["amoebanet"], **SMALL, num_classes=5).eval()
    load_model(tmp_path / "network.safetensors", other)
    images = torch.rand(1, 3, 40, 50)
    assert torch.equal(network(images), other(images))


# ---- output stride


@pytest.mark.parametrize(
    "name, output_stride, size",
    [
        ("darts_v2", 16, (97, 65)),
        ("nasnet", 16, (64, 96)),
        ("amoebanet", 16, (70, 101)),
        ("amoebanet", 8, (97, 33)),
        ("darts_v1", 8, (64, 64)),
    ],
)
@pytest.mark.parametrize("cells", [3, 5])
def test_spread_kernels_give_what_the_network_gave(name, output_stride, size, cells):
    network = settled(ImageNetNetwork(PUBLISHED[name], channels=4, cells=cells, num_classes=None), 64)
    dense = ImageNetNetwork(
        PUBLISHED[name], channels=4, cells=cells, num_classes=None, output_stride=output_stride
    ).eval()
    dense.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, *size)
    for stage, (coarse, fine) in enumerate(zip(network.features(images), dense.features(images))):
        every = {16: (1, 1, 2), 8: (1, 2, 4)}[output_stride][stage]
        assert fine.shape[2:] == tuple(-(-side // min(output_stride, 8 * 2**stage)) for side in size)
        torch.testing.assert_close(fine[:, :, ::every, ::every], coarse, rtol=1e-4, atol=1e-5)
        assert coarse.std() > 0.01
    dense.train().features(torch.rand(2, 3, *size))[-1].sum().backward()


@pytest.mark.parametrize("operation", SPACES["nasnet"].operations + ("none",))
@pytest.mark.parametrize("dilation", [1, 2])
def test_each_operation_spread(operation, dilation):
    "A dense map holds dilation x dilation coarse ones; the operation treats each as it would alone."
    module = settled(make_operation(operation, 4, 2), 8)
    x = torch.randn(1, 4, 9 * dilation, 12 * dilation)
    expected = [[module(x[:, :, i::dilation, j::dilation]) for j in range(dilation)] for i in range(dilation)]
    found = spread_kernels(module, dilation)(x)
    for i in range(dilation):
        for j in range(dilation):
            torch.testing.assert_close(
                found[:, :, i::dilation, j::dilation][:, :, ::2, ::2], expected[i][j], rtol=1e-4, atol=1e-5
            )


# ---- other cells, and mistakes


class Sum(nn.Module):
    "A cell of another method: a 1x1 convolution of the newer input."

    def __init__(self, genotype, position, before, last):
        super().__init__()
        self.conv, self.out_channels = (
            nn.Conv2d(last, position.channels, 1, 2 if position.kind == "reduction" else 1),
            position.channels,
        )

    def forward(self, before, last, rate):
        return self.conv(last)


def test_cells_of_another_method():
    network = CifarNetwork(random_genotype(SPACES["nos"], 0), **SMALL, cell=Sum)
    assert [m.shape[-1] for m in network.features(torch.rand(1, 3, 16, 16))] == [
        16,
        8,
        4,
    ] and network.feature_channels == [4, 8, 16]
    with pytest.raises(ValueError, match="needs cells of the class EvaluationCell"):
        ImageNetNetwork(PUBLISHED["darts_v1"], **SMALL, cell=Sum, output_stride=16)


@pytest.mark.parametrize(
    "make, change, words",
    [
        (CifarNetwork, {"cells": 2}, "at least 3 cells"),
        (CifarNetwork, {"channels": 0}, "channels must be at least 1"),
        (CifarNetwork, {"num_classes": 0}, "num_classes must be at least 1, or None"),
        (CifarNetwork, {"drop_path": 1.0}, "below 1, not 1.0"),
        (CifarNetwork, {"genotype": "darts_v2"}, "genotype must be a scalable_arch.nas.Genotype.*not str"),
        (CifarNetwork, {"genotype": random_genotype(SPACES["nos"], 0)}, "space nos has a second tier"),
        (ImageNetNetwork, {"channels": 5}, "channels must be even"),
        (ImageNetNetwork, {"output_stride": 4}, "unknown output_stride 4.*8, 16, 32"),
    ],
)
def test_mistakes_in_one_sentence(make, change, words):
    with pytest.raises(ValueError, match=words):
        make(**{"genotype": PUBLISHED["darts_v2"], **SMALL} | change)


# ---- cost tables


@pytest.mark.parametrize(
    "space, make, size, quantity",
    [
        ("nge", CifarNetwork, (30, 17), "macs"),
        ("darts", ImageNetNetwork, (65, 90), "macs"),
        ("nasnet", CifarNetwork, (32, 32), "params"),
    ],
)
def test_tables_add_up_to_the_count(space, make, size, quantity):
    space = SPACES[space]
    cost = cell_costs(space, make, image_size=size, quantity=quantity, num_classes=6, channels=4, cells=4)
    genotype = random_genotype(space, 1)
    counted = measure(make(genotype, num_classes=6, auxiliary=False, channels=4, cells=4), (3, *size))
    assert genotype_cost(genotype, cost) == getattr(counted, quantity)


def test_a_derived_network_meets_its_budget():
    space, options = SPACES["nge"], {"channels": 4, "cells": 3}
    cost = cell_costs(space, CifarNetwork, **options)
    wish = {
        cell: np.random.default_rng(3).dirichlet(np.ones(7), 14) * [0.3, 0.3, 0.3, 1, 2, 1, 2]
        for cell in ("normal", "reduction")
    }
    free = genotype_cost(derive(wish, space), cost)
    budget = 0.8 * free
    found = derive(wish, space, budget=budget, cost=cost)
    assert 0.9 * budget < measure(CifarNetwork(found, auxiliary=False, **options), (3, 32, 32)).macs <= budget
    with pytest.raises(ValueError, match="no genotype of the space nge costs at most 1,000: the cheapest costs"):
        derive(wish, space, budget=1000, cost=cost)


def test_operations_of_another_method_bring_their_own_costs():
    seen = set()

    def flat(name, channels, stride, size):
        seen.add((channels, stride, size))
        return Cost(macs=len(name), params=0)

    cost = cell_costs(SPACES["nos"], CifarNetwork, image_size=16, operation_cost=flat, cell=Sum, **SMALL)
    assert seen == {(4, 1, (16, 16)), (8, 2, (16, 16)), (8, 1, (8, 8)), (16, 2, (8, 8)), (16, 1, (4, 4))}
    assert (
        cost["normal"].shape == (18, 11)
        and cost["normal"][0, 0] == 3 * len("max_pool_3x3")
        and cost["reduction"][17, 2] == 2 * len("skip_connect")
    )
    with pytest.raises(ValueError, match="unknown quantity 'flops'"):
        cell_costs(SPACES["nge"], quantity="flops")


def test_factorized_reduce_stays_what_it_was_for_others():
    reduce = FactorizedReduce(4, 6)
    keys = list(reduce.state_dict())
    assert list(spread_kernels(reduce, 2).state_dict()) == keys
