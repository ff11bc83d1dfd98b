"Neural graph embedding against loops, counts by hand, and what is printed of it."

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scalable_arch.nas.discrete import reinforce
from scalable_arch.nas.genotype import SPACES
from scalable_arch.nge import (
    ADJACENCIES,
    GCN,
    ChainSpace,
    GraphPolicy,
    NGEController,
    PlainController,
    RNNController,
    augmented_adjacency,
    chain_policy,
)

SPACE = SPACES["nge"]
CONTROLLERS = {"plain": PlainController, "rnn": RNNController, "nge": NGEController}
each_controller = pytest.mark.parametrize("make", CONTROLLERS.values(), ids=CONTROLLERS)
count = lambda module: sum(p.numel() for p in module.parameters())


def printed(i, j, reading):
    "Entry of A, W Eq. 5.5, for nodes i and j counted from 0, in one of its readings."
    if reading == "predecessors":
        return 1 / (i + 1) if j < i and i > 1 else 0
    first = 1 if reading == "literal_from_one" else 0
    return 1 / (i + first + 1) if i < j and i + first > 1 else 0


@pytest.mark.parametrize("reading", ADJACENCIES)
def test_adjacency_of_a_cell_is_equation_5_5(reading):
    heard = augmented_adjacency(SPACE.edges(), reading)
    for i, j in itertools.product(range(6), repeat=2):
        assert heard[i, j].item() == pytest.approx(printed(i, j, reading) + (i == j))


@settings(max_examples=40)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda edge: edge[0] < edge[1]), min_size=1))
def test_predecessors_and_oneself_are_a_mean_on_any_graph(edges):
    heard = augmented_adjacency(sorted(edges))
    for node in range(len(heard)):
        before = [source for source, target in edges if target == node]
        assert heard[node, node] == 1 and (heard[node] > 0).sum() == len(before) + 1
        assert torch.allclose(heard[node, before], torch.tensor(1 / (len(before) + 1)))


def gcn_by_loops(gcn, x, heard):
    "Eq. 5.7, one number after the other."
    for layer in gcn.layers:
        weight = layer.weight.weight
        nodes, channels = len(x), len(weight)
        new = torch.zeros(nodes, channels)
        for node, channel in itertools.product(range(nodes), range(channels)):
            total = sum(
                heard[node, other] * weight[channel, n] * x[other, n]
                for other in range(nodes)
                for n in range(x.shape[1])
            )
            new[node, channel] = max(total, 0)
        x = new
    return x


@pytest.mark.parametrize("reading", ADJACENCIES)
def test_gcn_against_loops(reading):
    torch.manual_seed(0)
    gcn, x, heard = GCN([3, 4, 2]), torch.randn(6, 3), augmented_adjacency(SPACE.edges(), reading)
    with torch.no_grad():
        assert torch.allclose(gcn(x, heard), gcn_by_loops(gcn, x, heard), atol=1e-6)


def test_nge_against_equations_edge_by_edge():
    torch.manual_seed(1)
    controller = NGEController(SPACE, embedding=8, hidden=6, out=5, edge=4)
    first, _, second = controller.edge_mlp
    with torch.no_grad():
        for cell, logits in controller().items():
            nodes = gcn_by_loops(controller.gcn, controller.inputs[cell], augmented_adjacency(SPACE.edges()))
            for (source, target), row in zip(SPACE.edges(), logits):
                ends = torch.cat([nodes[source], nodes[target]])
                assert torch.allclose(
                    row, controller.head.weight @ (second.weight @ F.relu(first.weight @ ends)), atol=1e-5
                )


def test_sizes_that_follow_from_the_thesis():
    nge = NGEController(SPACE)
    assert (count(nge.gcn), count(nge.edge_mlp), count(nge.head), count(nge.inputs)) == (32768, 12288, 448, 2 * 6 * 64)
    assert count(nge) - count(nge.inputs) == 45504
    assert count(PlainController(SPACE)) == 12288 + 448 + 768
    assert count(RNNController(SPACE)) == 12288 + 448 + 768 + 2 * 2 * 64 * 64


@each_controller
def test_shapes_one_hot_start_and_gradients_to_all_parameters(make):
    torch.manual_seed(0)
    controller = make(SPACE)
    assert all(torch.equal(x, torch.eye(6, 64)) for x in controller.inputs.values())
    logits = controller()
    assert set(logits) == {"normal", "reduction"} and all(rows.shape == (14, 7) for rows in logits.values())
    torch.cat(list(logits.values())).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in controller.parameters())
    found = controller.embeddings()["normal"]
    assert found.nodes.shape == (6, 64) and found.edges.shape == (14, 64)
    assert not {"ends", "heard"} & set(controller.state_dict()), "what the space says is no weight"


@each_controller
def test_cells_share_all_but_x(make):
    controller = make(SPACE)
    with torch.no_grad():
        before = controller()
        controller.inputs["normal"] += 1
        after = controller()
    assert torch.equal(before["reduction"], after["reduction"]) and not torch.equal(before["normal"], after["normal"])


@pytest.mark.parametrize(
    "name, node, nodes_moved",
    [
        ("plain", 3, {3}),
        ("rnn", 3, {3, 4, 5}),
        ("nge", 3, {3, 4, 5}),
        ("nge", 1, {1, 2, 3, 4, 5}),
        ("nge", 5, {5}),
    ],
)
def test_who_hears_of_a_change(name, node, nodes_moved):
    torch.manual_seed(0)
    controller = CONTROLLERS[name](SPACE)
    with torch.no_grad():
        before = controller.embeddings()["normal"].nodes.clone()
        controller.inputs["normal"][node] += torch.randn(64)
        after = controller.embeddings()["normal"].nodes
    assert set((before - after).abs().amax(1).gt(1e-6).nonzero().flatten().tolist()) == nodes_moved


@pytest.mark.parametrize(
    "make",
    [*CONTROLLERS.values(), lambda space: NGEController(space, adjacency="literal")],
    ids=[*CONTROLLERS, "literal"],
)
def test_every_controller_can_learn_any_cell(make):
    torch.manual_seed(0)
    controller, wanted = make(SPACE), torch.randint(7, (28,))
    optimizer = torch.optim.Adam(controller.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(torch.cat(list(controller().values())), wanted).backward()
        optimizer.step()
    assert torch.equal(torch.cat(list(controller().values())).argmax(1), wanted)


def test_state_dict_carries_over():
    torch.manual_seed(0)
    first, second = NGEController(SPACE), NGEController(SPACE)
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first().values(), second().values()))


def test_chain_policy_is_a_controller_over_the_layers():
    torch.manual_seed(0)
    policy = chain_policy(5, ("identity", "small", "large"))
    assert isinstance(policy, GraphPolicy) and ChainSpace(5, ("a",)).edges() == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert torch.equal(policy(), policy.controller()["chain"]) and policy().shape == (5, 3)
    assert count(policy.controller.inputs) == 6 * 64 and not torch.allclose(policy()[0], policy()[1])
    both = GraphPolicy(NGEController(SPACE))
    assert torch.equal(both(), torch.cat([both.controller()["normal"], both.controller()["reduction"]]))


def test_reinforce_with_nge_learns_a_code():
    sizes, code = (3,) * 6, (2, 0, 1, 1, 2, 0)
    right = lambda choices: sum(choice == wanted for choice, wanted in zip(choices, code))
    last = []
    for seed in range(3):
        torch.manual_seed(seed)
        search = reinforce(sizes, right, budget=250, policy=chain_policy(6, "abc"), lr=3e-4, seed=seed)
        last.append(search.rewards[-50:].mean())
    by_chance, sd = 2, (6 * 2 / 9 / 50) ** 0.5  # of a mean of 50 networks drawn at random
    assert min(last) > by_chance + 10 * sd


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: NGEController(SPACE, adjacency="litteral"), "unknown adjacency 'litteral' (did you mean 'literal'?)"),
        (lambda: NGEController(SPACE, layers=0), "layers must be a whole number of at least 1, not 0"),
        (
            lambda: NGEController(SPACE, embedding=5),
            "embedding 5 is too small: 6 nodes, each one-hot at first, need at least 6",
        ),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(ValueError) as stop:
        call()
    assert str(stop.value).startswith(sentence) and "\n" not in str(stop.value)
