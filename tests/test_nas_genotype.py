"""Genotypes: spaces counted, genotypes checked, derivation against trying everything, pictures whose labels can be
read."""

import io
import json
import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.nas.genotype import (
    ATTENTIONS,
    CELLS,
    FEATURES,
    PUBLISHED,
    SPACES,
    Genotype,
    Space,
    choice_sizes,
    derive,
    draw,
    genotype_cost,
    genotype_from_choices,
    kind_of,
    random_genotype,
    slots,
    style_of,
    uniform_genotype,
)

seeds = st.integers(0, 10_000)
TINY = Space("tiny", ("skip_connect", "sep_conv_3x3"), inner_nodes=2)
TIERS = Space(
    "tiers",
    ("sep_conv_3x3", "spatial_attention", "dynamic_conv_3x3"),
    inner_nodes=1,
    second_tier=True,
    required=("sep_conv_3x3",),
)
PAIRS = Space("pairs", ("skip_connect", "max_pool_3x3"), inner_nodes=2, distinct=False)
SMALL = (TINY, TIERS, PAIRS)


def every_cell(space):
    "All cells of a small space by trying every list of edges and keeping those that the rules allow."

    def nodes(k):
        edges = [(operation, source) for source in range(k) for operation in space.operations]
        for chosen in set(tuple(sorted(pair)) for pair in product(edges, repeat=space.edges_per_node)):
            if space.distinct and chosen[0][1] == chosen[1][1]:
                continue
            if space.required and not any(operation in space.required for operation, _ in chosen):
                continue
            yield from [(*chosen, (second, k)) for second in space.operations] if space.second_tier else [chosen]

    return list(product(*[list(nodes(k)) for k in range(2, 2 + space.inner_nodes)]))


def tables(space, rng, draw=None):
    shape = (len(space.edges()), len(space.operations))
    return {cell: (draw or rng.random)(size=shape) for cell in CELLS}


def entry(table, space, edge, target):
    return table[space.edges().index((edge[1], target)), space.operations.index(edge[0])]


def slow_total(nodes, table, space, combine=sum):
    return combine(entry(table, space, edge, k) for k, node in enumerate(nodes, 2) for edge in node)


# ---- spaces


def test_edges_are_in_the_order_of_darts():
    assert (
        SPACES["nge"].edges()[:6] == [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4)]
        and len(SPACES["nge"].edges()) == 14
    )
    assert len(SPACES["nos"].edges()) == 18 and SPACES["nos"].edges()[14:] == [(k, k) for k in range(2, 6)]
    assert [len(SPACES[name].operations) for name in ("nge", "darts", "nos")] == [7, 8, 11]


def test_sizes_are_those_the_thesis_counts():
    pairs = math.prod((n + 1) * n // 2 for n in range(1, 5))
    assert SPACES["nge"].size() == SPACES["darts"].size(exclude=["none"]) == pairs * 7**8 == 1_037_664_180
    assert SPACES["nos"].size(required=()) == pairs * 11**12
    assert SPACES["nos"].size() == pairs * ((11**2 - 4**2) * 11) ** 4


@pytest.mark.parametrize("space", SMALL, ids=lambda space: space.name)
def test_size_against_trying_everything(space):
    assert space.size() == len(every_cell(space))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"operations": ()}, "must have operations"),
        ({"operations": ("a", "a")}, "different name"),
        ({"inner_nodes": 0}, "at least one inner node"),
        ({"edges_per_node": 3}, "edges_per_node must be 1 or 2"),
        ({"required": ("b",)}, "does not have: b"),
    ],
)
def test_spaces_that_hold_nothing(options, words):
    with pytest.raises(ValueError, match=words):
        Space(**{"name": "mine", "operations": ("a",)} | options)


# ---- genotypes


@given(seeds, st.sampled_from(list(SPACES) + list(SMALL)))
@settings(max_examples=60, deadline=None)
def test_json_round_trip_and_hash(seed, space):
    space = SPACES.get(space, space)
    genotype = random_genotype(space, seed)
    again = Genotype.from_json(json.dumps(json.loads(genotype.to_json())))
    assert again == genotype and hash(again) == hash(genotype) and again.to_json() == genotype.to_json()
    shuffled = [[node[1], node[0], *node[2:]] for node in genotype.normal]
    assert Genotype(shuffled, genotype.reduction, space) == genotype
    assert genotype.space == space and len(genotype.to_json().splitlines()) == 1


def test_published_genotypes_survive_json_with_their_outputs():
    for genotype in PUBLISHED.values():
        assert Genotype.from_json(genotype.to_json()) == genotype
    assert PUBLISHED["amoebanet"].concat("reduction") == (3, 4, 6) and PUBLISHED["darts_v2"].concat("normal") == (
        2,
        3,
        4,
        5,
    )
    assert len(set(PUBLISHED.values())) == 4
    assert PUBLISHED["darts_v2"].nodes("normal")[3] == (("skip_connect", 0), ("dil_conv_3x3", 2))


good = [list(node) for node in PUBLISHED["darts_v1"].normal]
nos = [[("sep_conv_3x3", 0), ("spatial_attention", 1), ("skip_connect", k)] for k in range(2, 6)]


@pytest.mark.parametrize(
    "space, place, node, words",
    [
        (
            "darts",
            1,
            [("sep_conv3x3", 0), ("skip_connect", 1)],
            "unknown operation at node 3 of the normal cell 'sep_conv3x3'.*did you mean 'sep_conv_3x3'",
        ),
        (
            "darts",
            0,
            [("channel_attention", 0), ("skip_connect", 1)],
            "node 2 of the normal cell uses 'channel_attention' of the space nos",
        ),
        (
            "nge",
            0,
            [("none", 0), ("skip_connect", 1)],
            "'none' of the space darts, but the genotype is one of the space nge",
        ),
        (
            "darts",
            1,
            [("skip_connect", 0), ("skip_connect", 4)],
            "node 3 of the normal cell reads node 4, which closes a cycle.*0 to 2",
        ),
        ("darts", 1, [("skip_connect", 0), ("skip_connect", 3)], "reads node 3, which closes a cycle"),
        (
            "darts",
            1,
            [("skip_connect", 0), ("skip_connect", -1)],
            "reads -1: a source must be the number of a node, from 0 to 2",
        ),
        ("darts", 1, [("skip_connect", 0), ("skip_connect", "1")], "reads '1'"),
        ("darts", 2, [("skip_connect", 0)], "node 4 of the normal cell has 1 edges.*asks for 2"),
        ("darts", 2, [("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2)], "has 3 edges"),
        ("darts", 2, [("skip_connect", 1), ("sep_conv_3x3", 1)], "node 4 of the normal cell has two edges from node 1"),
        ("nos", 0, [("sep_conv_3x3", 0), ("skip_connect", 1)], "has 0 second-tier edges"),
        (
            "nos",
            0,
            [("channel_attention", 0), ("spatial_attention", 1), ("skip_connect", 2)],
            "no feature for its other operations",
        ),
    ],
)
def test_wrong_nodes_in_one_sentence(space, place, node, words):
    cell = [list(edges) for edges in (nos if space == "nos" else good)]
    Genotype(cell, cell, space)
    with pytest.raises(ValueError, match=words) as caught:
        Genotype(cell[:place] + [node] + cell[place + 1 :], cell, space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"normal": good[:3]}, "normal cell has 3 inner nodes, but one of the space darts has 4"),
        ({"reduction": 5}, "reduction cell must be a list of nodes"),
        ({"normal": [[1, 2]] * 4}, "must be a list of nodes"),
        ({"space": "dart"}, "unknown space 'dart' .did you mean 'darts'"),
        ({"normal_concat": (2, 2)}, "stacks the nodes"),
        ({"reduction_concat": ()}, "stacks the nodes"),
        ({"normal_concat": (1, 2)}, "2 to 5"),
    ],
)
def test_wrong_cells_in_one_sentence(change, words):
    with pytest.raises(ValueError, match=words):
        Genotype(**{"normal": good, "reduction": good, "space": "darts"} | change)


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not the JSON of a genotype"),
        ("[1]", "this has list"),
        ('{"normal": []}', "this has normal"),
        ('{"space": "darts", "normal": [], "reduction": [], "more": 1}', "more"),
        ('{"space": {"name": "x"}, "normal": [], "reduction": []}', "space in the JSON"),
    ],
)
def test_text_that_is_no_genotype(text, words):
    with pytest.raises(ValueError, match=words):
        Genotype.from_json(text)


def test_unknown_cell():
    with pytest.raises(ValueError, match="normal, reduction"):
        PUBLISHED["darts_v1"].nodes("reduce")


# ---- derivation


def slow_darts(table, space):
    "The published rule: per node the two edges with the strongest operation other than none, then that operation."
    columns = [i for i, operation in enumerate(space.operations) if operation != "none"]
    nodes, start = [], 0
    for k in range(2, 6):
        rows = table[start : start + k]
        best = sorted(range(k), key=lambda i: -max(rows[i, columns]))[:2]
        nodes.append([(space.operations[max(columns, key=lambda c: rows[i, c])], i) for i in best])
        start += k
    return nodes


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_derivation_is_the_rule_of_darts(seed):
    space, rng = SPACES["darts"], np.random.default_rng(seed)
    wish = tables(space, rng)
    found = derive(wish, space, exclude=["none"])
    assert found == Genotype(slow_darts(wish["normal"], space), slow_darts(wish["reduction"], space), space)
    assert found == derive(
        {cell: torch.tensor(table, requires_grad=True) for cell, table in wish.items()}, space, exclude=["none"]
    )


def test_certain_operations_are_kept():
    space, wish = SPACES["nge"], {cell: np.zeros((14, 7)) for cell in CELLS}
    for cell in CELLS:
        for row, edge in enumerate(space.edges()):
            wish[cell][row, 4] = edge in [(0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (0, 5), (4, 5)]
    expected = [[("sep_conv_5x5", i) for i in pair] for pair in ((0, 1), (1, 2), (2, 3), (0, 4))]
    assert derive(wish, space) == Genotype(expected, expected, space)


@given(seeds, st.floats(0.05, 1.1), st.sampled_from(SMALL), st.booleans())
@settings(max_examples=60, deadline=None)
def test_budget_against_trying_everything(seed, share, space, whole):
    rng = np.random.default_rng(seed)
    wish = tables(space, rng)
    cost = tables(space, rng, lambda size: rng.integers(0, 5, size)) if whole else tables(space, rng)
    cost["fixed"] = 3
    cells = every_cell(space)
    prices, scores = (
        [np.array([slow_total(nodes, table[cell], space, combine) for nodes in cells]) for cell in CELLS]
        for table, combine in ((cost, sum), (wish, math.prod))
    )
    total, merit = cost["fixed"] + np.add.outer(*prices), np.multiply.outer(*scores)
    budget = total.min() + share * (total.max() - total.min())
    found = derive(wish, space, budget=budget, cost=cost)
    reached = math.prod(slow_total(found.nodes(cell), wish[cell], space, math.prod) for cell in CELLS)
    assert reached == pytest.approx(merit[total <= budget].max(), rel=1e-9)
    assert genotype_cost(found, cost) <= budget
    assert genotype_cost(found, cost) == pytest.approx(
        cost["fixed"] + sum(slow_total(found.nodes(cell), cost[cell], space) for cell in CELLS)
    )
    free = derive(wish, space)
    assert math.prod(slow_total(free.nodes(cell), wish[cell], space, math.prod) for cell in CELLS) == pytest.approx(
        merit.max(), rel=1e-9
    )


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_nos_keeps_a_feature_in_every_node_and_the_best_second_operation(seed):
    space, rng = SPACES["nos"], np.random.default_rng(seed)
    wish = tables(space, rng)
    for cell in CELLS:
        wish[cell][:, 7:] += 1  # attention and dynamic convolution win everywhere
    found = derive(wish, space)
    for cell in CELLS:
        for k, node in enumerate(found.nodes(cell), 2):
            assert (
                Counter(kind_of(operation) for operation, _ in node[:2])["feature"] == 1
                and len({source for _, source in node[:2]}) == 2
            )
            assert node[2] == (space.operations[wish[cell][14 + k - 2].argmax()], k)
            options = [
                wish[cell][space.edges().index((i, k)), :7].max() * wish[cell][space.edges().index((j, k)), 7:].max()
                for i, j in combinations(range(k), 2)
                for i, j in ((i, j), (j, i))
            ]
            assert math.prod(entry(wish[cell], space, edge, k) for edge in node[:2]) == pytest.approx(max(options))


def test_a_budget_of_all_costs_of_their_own_is_still_quick_and_exact():
    space, rng = SPACES["nge"], np.random.default_rng(0)
    wish, cost = tables(space, rng), tables(space, rng) | {"fixed": 0}
    spent = [genotype_cost(derive(wish, space, budget=budget, cost=cost), cost) for budget in (1.5, 3, 6, 100)]
    assert spent == sorted(spent) and all(a <= b for a, b in zip(spent, (1.5, 3, 6, 100)))
    assert spent[-1] == genotype_cost(derive(wish, space), cost)


even = {cell: np.ones((14, 7)) for cell in CELLS}


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"budget": 5, "cost": even | {"fixed": 2.5e6}},
            "no genotype of the space nge costs at most 5: the cheapest costs 2,500,016",
        ),
        ({"budget": 5}, "a budget needs cost"),
        ({"budget": 5, "cost": even}, "a budget needs cost"),
        ({"budget": -1, "cost": even}, "budget must be positive"),
        ({"exclude": ["none"]}, "unknown operation of the space nge 'none'"),
        ({"exclude": FEATURES}, "exclude fewer operations"),
        ({"probabilities": np.ones((14, 7))}, "dict with the tables"),
        ({"probabilities": {"normal": np.ones((14, 7))}}, "dict with the tables"),
        (
            {"probabilities": even | {"reduction": np.ones((14, 8))}},
            r"\['reduction'\] must be numbers of shape \(14, 7\)",
        ),
        ({"probabilities": even | {"normal": np.full((14, 7), np.nan)}}, "finite numbers that are not negative"),
        ({"probabilities": even | {"normal": np.full((14, 7), -0.1)}}, "not negative"),
    ],
)
def test_wrong_requests_in_one_sentence(change, words):
    with pytest.raises(ValueError, match=words):
        derive(**{"probabilities": even, "space": SPACES["nge"]} | change)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_probabilities_of_any_precision(dtype):
    "As what they hold in float64; half precision alone would add logarithms up to steps of a hundredth."
    rng = np.random.default_rng(0)
    tables = {cell: torch.from_numpy(rng.dirichlet(np.ones(7), 14)).to(dtype) for cell in CELLS}
    assert derive(tables, SPACES["nge"]) == derive({cell: x.double() for cell, x in tables.items()}, SPACES["nge"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_probabilities_of_zero_leave_a_genotype(dtype):
    "All edges are certain of `none`, which is left out: of equals the first operations and sources stay."
    tables = {cell: torch.eye(8)[[0] * 14].to(dtype) for cell in CELLS}
    found = derive(tables, SPACES["darts"], exclude=["none"])
    assert set(found.normal) == {(("max_pool_3x3", 0), ("max_pool_3x3", 1))}


def test_numbers_of_numpy_are_written():
    whole = np.int64
    space = Space("mine", ("skip_connect",), inner_nodes=whole(2), second_tier=np.bool_(False))
    nodes = [[("skip_connect", whole(0)), ("skip_connect", whole(1))]] * 2
    genotype = Genotype(nodes, nodes, space, normal_concat=np.array([2, 3]), reduction_concat=[whole(3)])
    plain = [[("skip_connect", 0), ("skip_connect", 1)]] * 2
    same = Genotype(plain, plain, Space("mine", ("skip_connect",), inner_nodes=2), reduction_concat=[3])
    assert genotype == same and hash(genotype) == hash(same) and genotype.to_json() == same.to_json()
    assert Genotype.from_json(genotype.to_json()) == genotype
    for wrong in (np.float64(1), np.bool_(True), 1.0):
        with pytest.raises(ValueError, match="a source must be the number of a node, from 0 to 1"):
            Genotype([[("skip_connect", 0), ("skip_connect", wrong)]] * 2, nodes, space)
    with pytest.raises(ValueError, match="must be different inner nodes"):
        Genotype(nodes, nodes, space, normal_concat=[2.0, 3.0])


# ---- by chance


@pytest.mark.parametrize("space", SMALL, ids=lambda space: space.name)
def test_every_genotype_is_equally_likely(space):
    rng = np.random.default_rng(0)
    seen = Counter(random_genotype(space, rng).normal for _ in range(25 * space.size()))
    assert len(seen) == space.size()
    statistic = sum((count - 25) ** 2 / 25 for count in seen.values())
    assert statistic < space.size() + 4 * math.sqrt(
        2 * space.size()
    )  # chi-square of as many classes, 4 standard deviations


def test_random_genotypes_keep_rules_and_budget():
    space, cost = SPACES["nos"], {cell: np.ones((18, 11)) * (np.arange(11) % 4) for cell in CELLS} | {"fixed": 0}
    drawn = [random_genotype(space, seed, budget=30, cost=cost) for seed in range(30)]
    assert len(set(drawn)) == 30 and max(genotype_cost(g, cost) for g in drawn) <= 30
    assert random_genotype(space, 7) == random_genotype(space, 7) != random_genotype(space, 8)
    assert random_genotype(SPACES["darts"], 0, exclude=SPACES["darts"].operations[:-1]).normal[0] == (
        ("dil_conv_5x5", 0),
        ("dil_conv_5x5", 1),
    )


def test_budgets_that_chance_does_not_meet():
    cost = {cell: np.ones((14, 7)) for cell in CELLS} | {"fixed": 0}
    with pytest.raises(ValueError, match="costs at most 15: the cheapest costs 16"):
        random_genotype(SPACES["nge"], 0, budget=15, cost=cost, attempts=3)
    cost["normal"] = np.tile(np.arange(7), (14, 1))
    with pytest.raises(ValueError, match="none of 3 random genotypes of the space nge costs at most 8"):
        random_genotype(SPACES["nge"], 0, budget=8, cost=cost, attempts=3)


@given(seeds, st.sampled_from([*SMALL, SPACES["nos"], SPACES["darts"]]))
@settings(max_examples=30, deadline=None)
def test_choices_by_number(seed, space):
    rng, (target, offered) = np.random.default_rng(seed), slots(space)[0]
    choices = rng.integers(choice_sizes(space))
    genotype = genotype_from_choices(choices, space)
    half, first = len(choices) // 2, space.edges_per_node
    assert (
        target == 2
        and genotype.normal[0][:first] == offered[choices[0]]
        and genotype.reduction[0][:first] == offered[choices[half]]
    )
    assert (
        genotype_from_choices(choices[:half].tolist() * 2, space).normal
        == genotype.normal
        == genotype_from_choices(choices[:half].tolist() * 2, space).reduction
    )


def test_choices_reach_every_genotype_once():
    assert (
        len({genotype_from_choices(choices, TIERS) for choices in product(*map(range, choice_sizes(TIERS)))})
        == TIERS.size() ** 2
        == math.prod(choice_sizes(TIERS))
    )
    for wrong in ([0, 0, 0], [0, 3, 0, 0], [-1, 0, 0, 0]):
        with pytest.raises(ValueError, match="must be 4 numbers, each from 0 and below its size"):
            genotype_from_choices(wrong, TIERS)
    assert choice_sizes(SPACES["darts"], exclude=["none"]) == choice_sizes(SPACES["nge"])


# ---- pictures


@pytest.mark.parametrize(
    "genotype",
    [*PUBLISHED.values(), *(random_genotype(SPACES["nos"], seed) for seed in range(3))],
    ids=[*PUBLISHED, "nos 0", "nos 1", "nos 2"],
)
def test_labels_can_be_read(genotype):
    figure = draw(genotype, title="cells:")
    figure.canvas.draw()
    edges = [edge for cell in CELLS for node in genotype.nodes(cell) for edge in node]
    labels = [
        text for ax in figure.axes for text in ax.texts if text.get_text()
    ]  # annotations without text are the arrows
    boxes = [
        text.get_window_extent().padded(3) for text in labels + [ax._left_title for ax in figure.axes]
    ]  # frames are 3 pixels wider than words
    nodes = genotype.space.inner_nodes
    assert len(labels) == len(edges) + 2 * (3 + nodes + nodes * genotype.space.second_tier)
    for a, b in combinations(boxes, 2):
        assert not a.overlaps(b)
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {style_of(operation) for operation, _ in edges}


def test_kinds_are_drawn_apart_and_as_lines():
    genotype = random_genotype(SPACES["nos"], 1)
    assert {kind_of(operation) for cell in CELLS for node in genotype.nodes(cell) for operation, _ in node} == {
        "feature",
        "attention",
        "dynamic",
    }
    file = io.StringIO()
    draw(genotype).savefig(file, format="svg")
    assert "<image" not in file.getvalue() and "stroke-dasharray" in file.getvalue()
    looks = {style_of(operation) for operation in (*FEATURES, *ATTENTIONS, "dynamic_conv_3x3")}
    assert looks == {"convolution", "pooling", "identity", "attention", "dynamic convolution"}
    assert len(draw(genotype, "reduction").axes) == 1


@pytest.mark.parametrize("name", ["nge", "darts", "nos"])
def test_a_uniform_genotype_has_one_operation_everywhere(name):
    space = SPACES[name]
    genotype = uniform_genotype(space, "sep_conv_3x3")
    assert Genotype.from_json(genotype.to_json()) == genotype
    for cell in CELLS:
        for node, edges in enumerate(genotype.nodes(cell), 2):
            assert [source for _, source in edges] == [0, 1, node][: 3 if space.second_tier else 2]
            assert {operation for operation, _ in edges} == {"sep_conv_3x3"}
    with pytest.raises(ValueError, match="sep_conv_3x3"):
        uniform_genotype(space, "sep_conv_4x4")
