"CDNet, OSNet, the strong baseline: all that is printed of them, the search beside slow references, nonsense."

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from scalable_arch import create_model
from scalable_arch.cdnet import (
    GENOTYPES,
    PAIRS,
    CBlock,
    CDBlock,
    CDSupernet,
    Layers,
    SampledLayer,
    as_layers,
    cdnet,
    random_layers,
    sample_top,
)
from scalable_arch.kinds import KINDS
from scalable_arch.kinds.reid import untrained_reid_net
from scalable_arch.nas.search import search, split_images
from scalable_arch.nn.cost import measure
from scalable_arch.nn.inference import fold_batchnorm
from scalable_arch.nn.osnet import RESOLUTIONS, osnet, scaled_widths
from scalable_arch.nn.resnet import bag_of_tricks, load_backbone
from scalable_arch.study.printed import printed_table, printed_value
from scalable_arch.train import extract_features, fit
from scalable_arch.train.loop import training_accuracy

PAPER = (3, 256, 128)
MILLION = 1e6


def params(model):
    return sum(x.numel() for x in model.parameters())


# Printed structure: C Tables 1 to 5


@pytest.mark.parametrize("gamma", RESOLUTIONS)
@pytest.mark.parametrize("beta", RESOLUTIONS)
def test_all_costs_of_table_3(beta, gamma):
    size, group = (3, *RESOLUTIONS[gamma]), f"beta={beta} gamma={gamma}"
    value = lambda row, metric: printed_value("cdnet_supp_t3", row=row, group=group, metric=metric)
    for row, counted, kept in (
        ("CDNet", cdnet(width=beta, neck="plain"), cdnet(width=beta)),
        ("OSNet", osnet(width=beta), osnet(width=beta)),
    ):
        assert measure(counted, size).macs == pytest.approx(value(row, "FLOPs"), rel=2e-3)
        assert round(params(kept) / MILLION, 1) == value(row, "Params_M")


def test_the_genotypes_of_table_1():
    table = printed_table("cdnet_supp_t1")
    for name, genotype in GENOTYPES.items():
        row = name.replace("cdnet_top", "CDNet top-").replace("cnet_top", "CNet top-")
        mine = table[table.row == row]
        for number, layer in enumerate(genotype.layers, 1):
            printed = mine[mine.group == f"layer {number}"].set_index("metric").value
            assert layer == (printed["k1"], printed["k2"], printed.get("r", 1))
        assert genotype.depth == mine[mine.metric == "Depth"].value.iloc[0]


def test_tables_2_and_5():
    million = lambda model: round(params(model) / MILLION, 1)
    assert million(osnet()) == 2.2 and million(osnet(neck="fblneck")) == 1.7
    value = lambda row, metric: printed_value("cdnet_supp_t5", row=row, metric=metric)
    for row, model in {"CDNet": cdnet(), "OSNet": osnet(), "BagofTrick": bag_of_tricks()}.items():
        assert measure(model, PAPER).macs == pytest.approx(value(row, "FLOPs"), rel=1e-3)
    assert million(cdnet()) == value("CDNet", "Params_M")
    assert round(params(bag_of_tricks(751)) / MILLION, 1) == pytest.approx(value("BagofTrick", "Params_M"), abs=0.05)


def test_table_4_is_met_in_parameters_and_not_in_multiply_adds():
    one_branch = cdnet(1000, neck="blneck")
    assert round(params(one_branch) / MILLION, 1) == printed_value("cdnet_supp_t4", row="CDNet", metric="Params_M")
    macs = measure(cdnet(neck="plain"), (3, 224, 224)).macs + 512 * 512 + 512 * 1000
    assert macs / printed_value("cdnet_supp_t4", row="CDNet", metric="FLOPs") == pytest.approx(0.925, abs=0.001)


def test_widths_are_multiples_of_4():
    assert scaled_widths(0.75) == (48, 192, 288, 384)
    with pytest.raises(ValueError, match="width must be at least 0.0625"):
        scaled_widths(0.03)


# Blocks and networks


def test_cblock_is_what_it_says():
    torch.manual_seed(0)
    block, x = CBlock(8, 16, 3, 9).double(), torch.randn(3, 8, 6, 4, dtype=torch.float64)
    s = block.squeeze(x)
    gated = 0
    for chain, length in zip(block.chains, (1, 4)):
        y = s
        for light in chain:
            mixed = torch.einsum("oi,bihw->bohw", light.mix.weight[:, :, 0, 0], y)
            y = light.norm(nn.functional.conv2d(mixed, light.depth.weight, padding=1, groups=4)).relu()
        assert len(chain) == length
        mean = y.mean((2, 3))
        inner = (mean @ block.gate.reduce.weight[:, :, 0, 0].T + block.gate.reduce.bias).relu()
        scale = (inner @ block.gate.restore.weight[:, :, 0, 0].T + block.gate.restore.bias).sigmoid()
        gated = gated + scale[:, :, None, None] * y
    assert torch.allclose(block(x), (block.restore(gated) + block.shortcut(x)).relu(), atol=1e-12)


def test_heads_are_removable_and_normalisations_fold():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 64, 32)
    for name in ("cdnet", "cnet_top4", "osnet_x1_0", "bag_of_tricks"):
        model = create_model(name, num_classes=5, width=0.125)
        model(x)  # statistics that are not all 0 and 1
        slim = create_model(name, num_classes=None, width=0.125)
        missing, _ = slim.load_state_dict(model.state_dict(), strict=False)
        assert not missing and torch.equal(slim.eval()(x), model.eval()(x))
        assert torch.allclose(fold_batchnorm(model)(x), model(x), atol=1e-5)
        assert torch.allclose(model(x).norm(dim=1), torch.ones(4), atol=1e-6)


def people(number=4, shots=4, size=(32, 16)):
    "Noise of a colour of their own for each person."
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 216, (number, 3, 1, 1), generator=generator).repeat_interleave(shots, 0)
    noise = torch.randint(-30, 31, (number * shots, 3, *size), generator=generator)
    return (colours + noise).clamp(0, 255).to(torch.uint8), torch.arange(number).repeat_interleave(shots)


def test_a_cdnet_learns_people_and_its_accuracy_is_counted():
    images, labels = people()
    torch.manual_seed(0)
    model = create_model("cdnet", num_classes=4, width=0.125)
    shots = dict(batch_size=8, num_shots=2, loss="balance")
    history = fit(model, images, labels, epochs=40, lr=0.05, schedule="cosine", milestones=(), **shots)
    assert history[-1]["loss"] < history[0]["loss"] / 2 and training_accuracy(model, images, labels) > 0.7
    assert extract_features(model, images).shape == (16, 64 + 256)


# Sampling


@given(st.integers(1, 12), st.integers(0, 50))
@settings(max_examples=30)
def test_as_many_as_asked_for_are_drawn_none_twice(k, seed):
    torch.manual_seed(seed)
    drawn = sample_top(torch.rand(12).softmax(0), k).tolist()
    assert drawn == sorted(set(drawn)) and len(drawn) == k and set(drawn) <= set(range(12))


def test_draws_follow_the_probabilities():
    torch.manual_seed(0)
    p = torch.tensor([0.6, 0.3, 0.1])
    pairs = torch.stack([sample_top(p, 2) for _ in range(3000)])
    share = torch.stack([(pairs == i).any(1).double().mean() for i in range(3)])
    by_hand = torch.tensor([sum(p[i] if i == j else p[j] * p[i] / (1 - p[j]) for j in range(3)) for i in range(3)])
    assert torch.allclose(share, by_hand.double(), atol=0.04)
    assert 0 not in sample_top(torch.tensor([0.0, 0.5, 0.5]), 2)


@pytest.mark.parametrize("k", [1, 2, 12])
def test_gradients_are_those_of_computing_all_and_masking(k):
    torch.manual_seed(1)
    operations = [(*pair, r) for r in (1, 2) for pair in PAIRS]
    layer = SampledLayer(4, 8, operations, k).double()
    full = copy.deepcopy(layer)
    x = torch.randn(3, 4, 6, 4, dtype=torch.float64)
    p = torch.full((12,), 1 / 12, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(5)
    loss = layer(x, p).square().sum()
    mask = layer.drawn.bool()
    q = p.detach().clone().requires_grad_()
    weights = mask.double() + q - q.detach()
    slow = sum(w * operation(x) for w, operation in zip(weights, full.operations)).square().sum()
    assert mask.sum() == k and torch.allclose(loss, slow)
    found, wanted = (
        torch.autograd.grad(loss, p, retain_graph=True)[0],
        torch.autograd.grad(slow, q, retain_graph=True)[0],
    )
    assert torch.allclose(found[mask], wanted[mask]) and not found[~mask].any()
    loss.backward(), slow.backward()
    for number, (a, b) in enumerate(zip(layer.operations, full.operations)):
        for one, other in zip(a.parameters(), b.parameters()):
            if mask[number]:
                assert torch.allclose(one.grad, other.grad)
            else:
                assert one.grad is None and not other.grad.any(), "what is not drawn is not computed"


def test_the_other_reading_of_what_is_not_drawn():
    torch.manual_seed(1)
    layer = SampledLayer(4, 8, [(3, 5, 1), (3, 7, 1), (5, 7, 1)], 1, "constant")
    x, p = torch.randn(2, 4, 4, 4), torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
    torch.manual_seed(2)
    output = layer(x, p)
    (slope,) = torch.autograd.grad(output.sum(), p)
    chosen = layer.drawn.bool()
    assert torch.allclose(slope[~chosen], torch.full((2,), float(output.numel())))
    assert torch.allclose(output, layer.operations[int(chosen.nonzero())](x), atol=1e-6)


def test_all_is_the_weighed_sum():
    torch.manual_seed(1)
    layer = SampledLayer(4, 8, [(3, 5, 1), (3, 7, 1)], None)
    x, p = torch.randn(2, 4, 4, 4), torch.tensor([0.25, 0.75])
    wanted = 0.25 * layer.operations[0](x) + 0.75 * layer.operations[1](x)
    assert torch.allclose(layer(x, p), wanted, atol=1e-6) and not layer.drawn.any()


# The search


def searched(tmp_path=None, seed=0, epochs=2, **options):
    images, labels = people()
    torch.manual_seed(seed)
    net = CDSupernet(4, **{"k": 2, "width": 0.125} | options)
    how = dict(
        split=split_images(labels, 2), num_shots=2, batch_size=8, loss="balance", alternate="batch", crop_padding=1
    )
    return net, search(net, images, labels, epochs=epochs, controller_lr=0.05, checkpoint=tmp_path, **how)


def test_a_search_finds_six_layers_and_moves_its_logits():
    net, history = searched()
    genotype = Layers.from_json(history[-1]["genotype"])
    assert genotype == net.derive(net.probabilities()) and len(genotype.layers) == 6
    assert net.controller.logits.std() > 1e-3 and history[-1]["entropy"]["layers"] < history[0]["entropy"]["layers"]
    assert all(layer.drawn.sum() % 2 == 0 and layer.drawn.sum() > 0 for layer in net.frame.blocks)


def test_a_search_is_continued_to_the_bit(tmp_path):
    net, history = searched()
    searched(tmp_path / "a", epochs=2)
    again, found = searched(tmp_path / "a", seed=7)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values()))
    strip = lambda records: [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    assert strip(found) == strip(history)
    with pytest.raises(ValueError, match="k=2, not k=3"):
        searched(tmp_path / "a", k=3)


def test_random_genotypes_are_of_the_space():
    rng = np.random.default_rng(0)
    for repeats in ((1, 2), (1,)):
        assert all(r in repeats for _ in range(20) for _, _, r in random_layers(rng, repeats).layers)
    assert Layers.from_json(random_layers(rng).to_json()).depth >= 6


TRIAL = {
    "kind": "reid_search",
    "supernet": "cdnet",
    "options": {"k": 2, "width": 0.125},
    "train": {"world": "gate", "people": 3},
    "size": [32, 16],
    "split": {"by": "image", "number": 1},
    "search": {"loss": "balance", "num_shots": 2, "batch_size": 4, "epochs": 1},
    "seed": 0,
}


def test_a_trial_of_a_search_is_said(worlds):
    kind = KINDS["reid_search"]
    record = kind.run(TRIAL, progress=False)
    assert create_model("cdnet", genotype=record["genotype"], width=0.125)
    assert kind.about(TRIAL) == "search of cdnet, top-2, gate" and "accuracy train" in kind.said(record["metrics"])
    assert {"model.cdnet", "loss.balance", "recipe.search"} <= set(kind.versions(TRIAL))


# A reader's weights


def test_a_network_starts_from_a_readers_file(tmp_path):
    donor = bag_of_tricks(3, width=1 / 16).backbone
    names = {name: x for name, x in donor.state_dict().items()} | {"fc.weight": torch.zeros(10, 128)}
    save_file(names, tmp_path / "imagenet.safetensors")
    config = {
        "model": "bag_of_tricks",
        "options": {"width": 1 / 16},
        "train": {"world": "gate", "people": 3},
        "seed": 0,
        "starts_from": str(tmp_path / "imagenet.safetensors"),
    }
    model = untrained_reid_net(config, 3)
    assert torch.equal(model.backbone.conv1.weight, donor.conv1.weight)
    with pytest.raises(FileNotFoundError, match="there are no weights"):
        untrained_reid_net(config | {"starts_from": str(tmp_path / "none")}, 3)
    with pytest.raises(ValueError, match="a StagedNet needs weights of the same network, under its own names"):
        load_backbone(cdnet(width=0.125), names)


# Nonsense


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: cdnet(3, genotype=[(3, 5, 1)] * 5), "a genotype has 6 layers, two for each of three stages, not 5"),
        (lambda: cdnet(3, genotype=[(3, 4, 1)] * 6), r"the kernels one of \(3, 5\), .* not \(3, 4, 1\)"),
        (lambda: cdnet(3, genotype=[(5, 3)] * 6), r"not \(5, 3\)"),
        (lambda: cdnet(3, genotype=[(3, 5, 3)] * 6), "the repeats one of 1, 2"),
        (lambda: cdnet(3, genotype=[(3,)] * 6), r"not \(3,\)"),
        (lambda: CDBlock(4, 8, 3, 11), r"not \(3, 11, 1\)"),
        (lambda: as_layers("cdnet_top5"), "unknown genotype 'cdnet_top5' .*cdnet_top4"),
        (lambda: Layers.from_json('{"space": "nge"}'), "is no genotype of layers"),
        (lambda: CDSupernet(3, k=0), "k must be a number of operations to draw, from 1 to 12, .* not 0"),
        (lambda: CDSupernet(3, k=13), "from 1 to 12"),
        (lambda: CDSupernet(3, k=7, repeats=(1,)), "from 1 to 6"),
        (lambda: CDSupernet(3, k=True), "not True"),
        (lambda: CDSupernet(3, unsampled="ones"), "unknown unsampled 'ones'"),
        (lambda: cdnet(3, neck="fbl"), "unknown neck 'fbl'"),
        (lambda: cdnet(3, width=0.125)(torch.zeros(2, 3, 80, 32)), "height 5 cannot be cut into 2 equal stripes"),
        (lambda: KINDS["reid_search"].run(TRIAL | {"supernet": "cnet"}), "unknown supernet 'cnet'"),
        (lambda: KINDS["reid_search"].run(TRIAL | {"method": "evolution"}), "unknown method of search 'evolution'"),
    ],
)
def test_nonsense_is_one_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence) as stop:
        wrong()
    assert "\n" not in str(stop.value)


def test_one_person_cannot_be_searched_on():
    images, labels = people(1)
    with pytest.raises(ValueError, match="a batch of 4 people x 2 images needs as many people.* show 1"):
        search(
            CDSupernet(1, width=0.125),
            images,
            labels,
            split=split_images(labels, 2),
            num_shots=2,
            batch_size=8,
            loss="balance",
        )
    with pytest.raises(ValueError, match="identity 0 has one image"):
        split_images([0, 1, 1])
