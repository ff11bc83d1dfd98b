"MSINet: its size, every operation against a slow reference, the memories, the search, and what it says to wrong input."

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scalable_arch import create_model, load, save
from scalable_arch.kinds import KINDS
from scalable_arch.kinds.reid import loss_versions, with_loss
from scalable_arch.msinet import (
    INTERACTIONS,
    PERSONS,
    Activations,
    AlignedOutput,
    IdentityMemory,
    MixedMeeting,
    MSICell,
    MSIGenotype,
    MSISupernet,
    SpatialAlignment,
    alignment_loss,
    correlation_activations,
    msinet_loss,
    search_meetings,
)
from scalable_arch.nn.cost import measure

tiny = dict(width=1 / 16)
maps = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def pair_of(generator, channels=4, size=(3, 2)):
    return [torch.randn(2, channels, *size, generator=generator) for _ in range(2)]


# ---- structure


def test_size_of_the_release():
    "2.33 M parameters without classifiers; 1.09 G multiply-adds at 256x128 where products of maps are not counted."
    model = create_model("msinet")
    cost, silent = measure(model, (3, 256, 128)), measure(create_model("msinet", genotype=["none"] * 12), (3, 256, 128))
    assert cost.params == 2_328_035
    products = sum(  # two for each branch and direction, one of them shared: C x C x N three times
        3 * channels**2 * positions
        for name, channels, positions in zip(
            PERSONS, [64] * 4 + [96] * 4 + [128] * 4, [2048] * 4 + [512] * 4 + [128] * 4
        )
        if name == "cross_attention"
    )
    assert cost.macs - products == pytest.approx(1.09e9, rel=0.005)
    assert silent.macs == pytest.approx(cost.macs - products, rel=1e-3), "gates cost next to nothing"
    assert create_model("msinet", num_classes=576).neck.classify[0].weight.shape == (576, 512)
    assert model.eval()(torch.zeros(1, 3, 256, 128)).shape == (1, 768)


def test_the_release_has_these_twelve():
    assert len(PERSONS) == 12 and PERSONS.count("cross_attention") == 3 and PERSONS.count("exchange") == 2
    assert PERSONS[7] == "none" and PERSONS[:2] == ("channel_gate",) * 2


@pytest.mark.parametrize("name", INTERACTIONS)
def test_alone_in_all_twelve_places(name):
    model = create_model("msinet", num_classes=3, genotype=[name] * 12, align=True, **tiny)
    output = model(torch.randn(4, 3, 32, 32))
    assert isinstance(output, AlignedOutput) and [x.shape for x in output.logits] == [(4, 3)] * 2
    msinet_loss(output, torch.tensor([0, 0, 1, 1])).backward()
    missing = [name for name, x in model.named_parameters() if x.requires_grad and x.grad is None]
    assert not missing


def test_eval_needs_no_alignment_and_transfer_takes_what_is_behind_bn():
    images = torch.randn(3, 3, 64, 32)
    plain = create_model("msinet", num_classes=2, **tiny).eval()
    other = create_model("msinet", num_classes=2, transfer=True, align=True, **tiny).eval()
    other.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        _, before, last = plain.backbone.features(images)
        parts = plain.neck(last, before)
        halves = before.shape[2] // 2
        stripes = [plain.neck.reduce(x).mean((2, 3)) for x in (before[:, :, :halves], before[:, :, halves:])]
        assert torch.allclose(parts[1], torch.cat(stripes, 1), atol=1e-6)
        assert torch.allclose(plain(images), F.normalize(torch.cat(parts, 1)))
        behind = torch.cat([layer(part) for layer, part in zip(plain.neck.embed, parts)], 1)
        assert torch.allclose(other(images), F.normalize(behind))


def test_saved_and_loaded(tmp_path):
    model = create_model("msinet", num_classes=3, genotype=["exchange", "none"] * 6, align=True, **tiny).eval()
    save(tmp_path / "mine.safetensors", model)
    again = load(tmp_path / "mine.safetensors").eval()
    images = torch.randn(2, 3, 32, 16)
    assert again.genotype == ("exchange", "none") * 6 and torch.equal(again(images), model(images))


# ---- interactions


@settings(max_examples=20, deadline=None)
@given(maps, st.floats(-2, 2))
def test_cross_attention_channel_by_channel(generator, strength):
    module = INTERACTIONS["cross_attention"](4)
    module.strength.data.fill_(strength)
    a, b = pair_of(generator)
    with torch.no_grad():
        found = module(a, b)
        for own, other, got in ((a, b, found[0]), (b, a, found[1])):
            for image in range(2):
                for i in range(4):
                    unlike = torch.stack([-(own[image, i] * other[image, j]).sum() for j in range(4)])
                    mask = unlike.exp() / unlike.exp().sum()
                    wanted = own[image, i] + strength * sum(mask[j] * own[image, j] for j in range(4))
                    assert torch.allclose(got[image, i], wanted, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(maps)
def test_what_is_symmetric_is(generator):
    "The same weights for both branches: swapped inputs give swapped outputs."
    a, b = pair_of(generator, channels=8)
    for make in INTERACTIONS.values():
        module = make(8)
        for x in module.parameters():
            x.data = torch.randn(x.shape, generator=generator)
        with torch.no_grad():
            there, back = module(a, b), module(b, a)
        assert torch.allclose(there[0], back[1], atol=1e-5) and torch.allclose(there[1], back[0], atol=1e-5)


def test_a_gate_is_between_0_and_1_and_knows_only_means():
    gate = INTERACTIONS["channel_gate"](32)
    x = torch.randn(2, 32, 4, 3)
    weights = gate(x, x)[0] / x
    assert 0 < weights.min() and weights.max() < 1
    assert torch.allclose(weights, weights[:, :, :1, :1].expand_as(x), rtol=1e-3), "one number a channel"
    assert torch.allclose(weights, (gate(x.flip(2, 3), x)[0] / x.flip(2, 3)), rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(maps)
def test_a_mixture_is_the_sum_of_all(generator):
    meeting, p = MixedMeeting(8), torch.rand(4, generator=generator)
    a, b = pair_of(generator, channels=8)
    with torch.no_grad():
        found = meeting(a, b, p)
        for side in range(2):
            wanted = sum(p[k] * module(a, b)[side] for k, module in enumerate(meeting.interactions))
            assert torch.allclose(found[side], wanted, atol=1e-5)


def test_a_cell_sums_branches_and_input():
    torch.manual_seed(0)
    cell = MSICell(8, 8, 4, [INTERACTIONS["exchange"](4), INTERACTIONS["none"](4)]).eval()
    x = torch.randn(2, 8, 6, 4)
    fine, coarse = (squeeze(x) for squeeze in cell.squeeze)
    fine, coarse = cell.scales[0][1](coarse), cell.scales[0][0](fine)
    fine, coarse = cell.scales[1][0](fine), cell.scales[1][1](coarse)
    assert torch.allclose(cell(x), F.relu(cell.restore[0](fine) + cell.restore[1](coarse) + x), atol=1e-6)


# ---- alignment


@settings(max_examples=15, deadline=None)
@given(maps)
def test_activations_entry_by_entry(generator):
    x = torch.randn(3, 5, 2, 2, generator=generator)
    found, flat = correlation_activations(x), x.flatten(2)
    for i in range(3):
        for j in range(3):
            wanted = [max((flat[i, :, n] * flat[j, :, m]).sum().item() for m in range(4)) for n in range(4)]
            assert torch.allclose(found[i, j], torch.tensor(wanted), atol=1e-5)


def slow_loss(seen, labels, divide):
    total, cosine = 0.0, lambda x, y: (x @ y / x.norm() / y.norm()).item()
    for i in range(len(labels)):
        same = [j for j in range(len(labels)) if labels[j] == labels[i]]
        others = [j for j in range(len(labels)) if labels[j] != labels[i]]
        total += sum(1 - cosine(seen.own[i], seen.pairs[i, p]) for p in same) / len(same)
        pairs = [1 - cosine(seen.pairs[i, n], seen.pairs[i, m]) for n in others for m in others]
        total += sum(pairs) / (len(pairs) if divide == "pairs" else len(others))
    return total / len(labels)


@settings(max_examples=15, deadline=None)
@given(maps, st.lists(st.integers(0, 2), min_size=3, max_size=6).filter(lambda labels: len(set(labels)) > 1))
def test_alignment_in_both_readings(generator, labels):
    number = len(labels)
    seen = Activations(torch.rand(number, number, 5, generator=generator), torch.rand(number, 5, generator=generator))
    for reading in ("pairs", "negatives"):
        found = alignment_loss(seen, torch.tensor(labels), reading=reading).item()
        assert found == pytest.approx(slow_loss(seen, labels, reading), rel=1e-3, abs=1e-5)


def test_alignment_makes_maps_agree():
    torch.manual_seed(2)
    maps, labels = torch.rand(8, 8, 4, 2, requires_grad=True), torch.arange(8) // 2
    align = SpatialAlignment(8)
    optimizer, losses = torch.optim.Adam([maps, *align.parameters()], lr=0.02), []
    for _ in range(60):
        losses.append(alignment_loss(align(maps), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 3


# ---- memories


@settings(max_examples=15, deadline=None)
@given(maps, st.floats(0.01, 1), st.floats(0, 0.9))
def test_a_memory_step_by_step(generator, temperature, momentum):
    memory = IdentityMemory(5, 3, temperature=temperature, momentum=momentum)
    begin, who = torch.randn(6, 3, generator=generator), torch.tensor([0, 0, 2, 2, 4, 4])
    memory.begin(begin, who)
    unit = lambda x: x / x.norm()
    vectors = {c: unit(unit(begin[2 * k]) + unit(begin[2 * k + 1])) for k, c in enumerate((0, 2, 4))}
    features, labels = torch.randn(3, 3, generator=generator, requires_grad=True), torch.tensor([2, 2, 0])
    loss, logits = memory(features, labels)
    loss.backward()
    wanted = []
    for feature, label in zip(features.detach(), labels.tolist()):
        scores = {c: math.exp((unit(feature) @ vector - 1).item() / temperature) for c, vector in vectors.items()}
        wanted.append(-math.log(scores[label] / sum(scores.values())))
    assert loss.item() == pytest.approx(sum(wanted) / 3, rel=1e-3, abs=1e-4)
    for feature, label in zip(features.detach(), labels.tolist()):
        vectors[label] = unit(momentum * vectors[label] + (1 - momentum) * unit(feature))
    for c, vector in vectors.items():
        assert torch.allclose(memory.vectors[c], vector, atol=1e-5)
    assert torch.isinf(logits[:, [1, 3]]).all() and features.grad.abs().sum() > 0


def test_a_memory_is_saved_and_no_parameter():
    memory = IdentityMemory(3, 2)
    assert not list(memory.parameters()) and set(memory.state_dict()) == {"vectors", "known"}


# ---- searches

who = torch.arange(8).repeat_interleave(4)
quick = dict(epochs=2, batch_size=8, num_shots=2, crop_padding=0, progress=False)


def noise(number=32):
    return torch.randint(0, 256, (number, 3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def supernet(seed=0, **options):
    torch.manual_seed(seed)
    return MSISupernet(8, **tiny, **options)


@pytest.mark.parametrize("options, overlap", [({}, 0.0), ({}, 0.4), ({"guide": "shared"}, 0.0)])
def test_who_guides_whom(options, overlap):
    net = supernet(**options)
    share = 0.4 if overlap else 0.5
    history = search_meetings(net, noise(), who, overlap=overlap, share=share, **quick)
    assert len(MSIGenotype.from_json(history[-1]["genotype"])) == 12
    table = torch.tensor(history[-1]["probabilities"]["meetings"])
    assert table.shape == (12, 4) and torch.allclose(table.sum(1), torch.ones(12).to(table))
    best = [list(INTERACTIONS)[k] for k in table.argmax(1)]
    assert best == list(MSIGenotype.from_json(history[-1]["genotype"]))
    if not options:
        sides = [set(memory.known.nonzero().flatten().tolist()) for memory in net.memories.values()]
        assert sides[0] | sides[1] == set(range(8)) and len(sides[0] & sides[1]) == (3 if overlap else 0)


def test_memories_begin_as_centroids_or_zeros():
    for begin, wanted in (("centroids", 1.0), ("zeros", 0.0)):
        net = supernet()
        before = []

        def note(entry):
            before.append({side: memory.vectors.clone() for side, memory in net.memories.items()})

        search_meetings(
            net, noise(), who, begin=begin, on_epoch=note, **(quick | dict(epochs=1, lr=0.0, controller_lr=0))
        )
        lengths = torch.cat([x[m.known].norm(dim=1) for x, m in zip(before[0].values(), net.memories.values())])
        assert len(lengths) == 8 and ((lengths - 1).abs() < 1e-5).sum() >= 8 * wanted


def test_a_search_that_was_killed_goes_on_to_the_same_genotype(tmp_path):
    whole = supernet()
    wanted = search_meetings(whole, noise(), who, seed=3, **quick)
    killed = supernet()

    def kill(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_meetings(killed, noise(), who, seed=3, checkpoint=tmp_path, checkpoint_every=3, on_epoch=kill, **quick)
    again = supernet(seed=0)
    found = search_meetings(again, noise(), who, seed=3, checkpoint=tmp_path, checkpoint_every=3, **quick)
    assert found[-1]["probabilities"] == wanted[-1]["probabilities"]
    for side, memory in again.memories.items():
        assert torch.equal(memory.vectors, whole.memories[side].vectors), "the memories go on as well"


def test_the_weights_learn_from_their_memory_and_the_architecture_from_its_own():
    net = supernet()
    frozen = copy.deepcopy(net.state_dict())
    search_meetings(net, noise(), who, **(quick | dict(epochs=1, lr=0.0, weight_decay=0.0, controller_lr=0.1)))
    moved = {key for key, x in net.state_dict().items() if not torch.equal(x, frozen[key])}
    weights = {name for name, x in net.named_parameters() if name != "controller.logits"}
    assert not moved & weights and "controller.logits" in moved
    assert {"memories.weights.vectors", "memories.architecture.vectors"} <= moved


def test_one_alone_is_the_network_of_its_genotype():
    "A supernet in which one interaction has all the probability computes what its cells with that one compute."
    net = supernet().eval()
    for place, name in enumerate(INTERACTIONS):
        alone = torch.zeros(12, 4)
        alone[:, place] = 1
        body = copy.deepcopy(net.backbone)
        for cell in body.blocks:
            cell.meetings = torch.nn.ModuleList(meeting.interactions[place] for meeting in cell.meetings)
        images = torch.randn(2, 3, 32, 16)
        with torch.no_grad():
            assert torch.allclose(
                net.backbone.features(images, alone.split(2))[-1], body.features(images)[-1], atol=1e-5
            ), name


def test_a_trial_of_a_search_repeats():
    config = {
        "kind": "msinet_search",
        "supernet": {"width": 0.0625, "guide": "twins"},
        "train": {"world": "plaza", "people": 4},
        "size": [32, 16],
        "search": {"epochs": 1, "batch_size": 4, "num_shots": 2, "crop_padding": 0},
        "seed": 0,
    }
    kind = KINDS["msinet_search"]
    first, again = (kind.run(config, progress=False) for _ in range(2))
    assert first == again and "world.plaza" in kind.versions(config) and "loss.twins" in kind.versions(config)
    shared = config | {"supernet": config["supernet"] | {"guide": "shared"}}
    assert "loss.twins" not in kind.versions(shared) and "shared" in kind.about(shared)


def test_losses_by_name():
    assert loss_versions({"loss": "msinet"}) == ["loss.msinet", "loss.cross_entropy", "loss.triplet"]
    output, labels = create_model("msinet", num_classes=2, align=True, **tiny)(torch.randn(4, 3, 32, 16)), who[2:6] * 1
    seen = alignment_loss(output.seen, labels)
    plain = with_loss({"loss": "msinet"})["loss"](output, labels)
    printed = with_loss({"loss": "msinet, negatives"})["loss"](output, labels)
    assert plain.item() - msinet_loss(output._replace(seen=None), labels).item() == pytest.approx(
        2 * seen.item(), rel=1e-4
    )
    assert printed > plain and with_loss({"loss": "triplet"}) == {"loss": "triplet"}


# ---- bad input


def one_sentence(error, *parts):
    text = str(error.value)
    assert all(part in text for part in parts) and "\n" not in text, text


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"genotype": ["none"] * 11}, ["12 interactions", "11 of them"]),
        ({"genotype": "none"}, ["12 interactions", "'none'"]),
        ({"genotype": ["none"] * 11 + ["swap"]}, ["unknown interaction", "'swap'", "exchange"]),
        ({"width": 0.01}, ["width must be at least 0.0625", "0.01"]),
    ],
)
def test_options_that_no_network_can_have(options, parts):
    with pytest.raises(ValueError) as error:
        create_model("msinet", **options)
    one_sentence(error, *parts)


@pytest.mark.parametrize(
    "images, parts",
    [
        (torch.zeros(2, 3, 240, 128), ["height 15", "multiple of 32"]),
        (torch.zeros(2, 3, 16, 128), ["at least 32x16", "16x128"]),
        (torch.zeros(2, 1, 64, 32), ["(B, 3, H, W)"]),
        (torch.zeros(2, 3, 64, 32, dtype=torch.uint8), ["takes floats", "uint8"]),
        (torch.zeros(1, 3, 64, 32), ["two images a batch"]),
    ],
)
def test_images_that_do_not_fit(images, parts):
    with pytest.raises(ValueError) as error:
        create_model("msinet", num_classes=2, **tiny)(images)
    one_sentence(error, *parts)


def test_a_batch_without_negatives():
    seen = SpatialAlignment(8)(torch.rand(3, 8, 2, 2))
    with pytest.raises(ValueError) as error:
        alignment_loss(seen, torch.zeros(3, dtype=torch.long))
    one_sentence(error, "two identities or more in a batch", "all 3 here show one")
    with pytest.raises(ValueError, match="unknown reading"):
        alignment_loss(seen, torch.arange(3), reading="pair")


@pytest.mark.parametrize(
    "labels, options, parts",
    [
        (torch.zeros(32, dtype=torch.long), {}, ["identities", "two identities or more on either side"]),
        (torch.cat([who[:31], torch.tensor([8])]), {}, ["identity 8 has one image", "needs two"]),
        (who, {"begin": "zero"}, ["unknown begin", "'zero'", "centroids"]),
        (who, {"batch_size": 64, "num_shots": 2}, ["32 people x 2 images"]),
        (who, {"share": 1.0}, ["share=1.0", "between 0 and 1"]),
    ],
)
def test_searches_that_cannot_be(labels, options, parts):
    torch.manual_seed(0)
    net = MSISupernet(9, **tiny)
    with pytest.raises(ValueError) as error:
        search_meetings(net, noise(), labels, **(quick | options))
    one_sentence(error, *parts)


def test_memories_that_cannot_be():
    with pytest.raises(ValueError) as error:
        IdentityMemory(3, 2, temperature=0)
    one_sentence(error, "temperature must be above 0")
    memory = IdentityMemory(3, 2)
    memory.begin(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError) as error:
        memory(torch.eye(2), torch.tensor([0, 2]))
    one_sentence(error, "identity 2 is not in this memory")
    with pytest.raises(ValueError, match="unknown guide"):
        MSISupernet(3, guide="twin")
