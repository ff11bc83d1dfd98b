"Searches among finitely many networks, against what can be worked out for them."

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.nas.discrete import (
    LogitsPolicy,
    PolicyGuide,
    Search,
    UniformGuide,
    mutation_log_probabilities,
    random_search,
    regularised_evolution,
    reinforce,
    valid_logits,
)

SIZES = (3, 2, 4, 3)
CODE = (2, 0, 3, 1)
count_right = lambda choices: sum(choice == right for choice, right in zip(choices, CODE))
SEARCHES = {
    "random": random_search,
    "evolution": lambda *args, **more: regularised_evolution(*args, population=10, sample=3, **more),
    "reinforce": lambda *args, **more: reinforce(*args, lr=0.05, **more),
    "guided": lambda *args, seed=0, **more: regularised_evolution(
        *args,
        population=10,
        sample=3,
        guide=PolicyGuide(LogitsPolicy(SIZES), SIZES, lr=0.05, seed=seed),
        seed=seed,
        **more,
    ),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


@each_search
def test_asks_as_often_as_the_budget_says_and_notes_all_it_was_told(search):
    asked = []
    evaluate = lambda choices: asked.append(choices) or float(len(asked))
    for budget in (1, 7, 40):
        asked.clear()
        found = search(SIZES, evaluate, budget=budget)
        assert len(asked) == budget and found.rewards.tolist() == list(range(1, budget + 1))
        assert [tuple(choices) for choices in found.choices.tolist()] == asked
        assert all(
            type(choice) is int and 0 <= choice < size for choices in asked for choice, size in zip(choices, SIZES)
        )


@each_search
def test_same_seed_same_search(search):
    first, again, other = (search(SIZES, count_right, budget=60, seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.choices, again.choices) and not np.array_equal(first.choices, other.choices)


def test_searches_leave_the_global_generators_alone():
    torch.manual_seed(0), np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for search in SEARCHES.values():
        search(SIZES, count_right, budget=30)
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_best_so_far_and_incumbents_against_a_loop(rewards):
    found = Search(np.arange(len(rewards))[:, None], np.array(rewards, float))
    best, incumbents = [], []
    for number, reward in enumerate(rewards):
        if not best or reward > best[-1]:
            best.append(reward), incumbents.append(number)
        else:
            best.append(best[-1]), incumbents.append(incumbents[-1])
    assert found.best_so_far().tolist() == best and found.incumbents().tolist() == incumbents
    assert found.best() == (incumbents[-1],)


def test_random_search_finds_on_average_what_the_closed_form_says():
    networks = list(itertools.product(*map(range, SIZES)))
    worth = {network: value for network, value in zip(networks, np.random.default_rng(3).normal(size=len(networks)))}
    ranked, queries = np.sort(list(worth.values())), 12
    expected = sum(value * ((n + 1) ** queries - n**queries) for n, value in enumerate(ranked)) / len(ranked) ** queries
    best = [random_search(SIZES, worth.get, budget=queries, seed=seed).rewards.max() for seed in range(1000)]
    assert abs(np.mean(best) - expected) < 4 * np.std(best) / math.sqrt(len(best))
    assert abs(np.mean(best[:500]) - ranked.mean()) > 10 * np.std(best) / math.sqrt(500), "far from a single draw"


@pytest.mark.parametrize("name, at_least", [("evolution", 0.9), ("reinforce", 0.9), ("guided", 0.9)])
def test_learning_searches_find_the_best_of_a_separable_space_more_often_than_chance(name, at_least):
    budget, networks = 60, math.prod(SIZES)
    by_chance = 1 - (1 - 1 / networks) ** budget
    hits = np.mean(
        [SEARCHES[name](SIZES, count_right, budget=budget, seed=seed).rewards.max() == 4 for seed in range(16)]
    )
    assert by_chance < 0.6 < at_least <= hits


def evolution_by_hand(seed, population, sample, budget):
    "Algorithm 1 of Real et al. in lists, with the draws in the library's order."
    rng, mutation = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    alive, asked = [], []
    while len(alive) < population:
        alive.append(tuple(int(choice) for choice in rng.integers(SIZES)))
        asked.append(alive[-1])
    while len(asked) < budget:
        few = [alive[number] for number in rng.integers(population, size=sample)]
        child = list(max(few, key=count_right))
        others = [size - 1 for size in SIZES]
        place = mutation.choice(len(SIZES), p=[n / sum(others) for n in others])
        child[place] = (child[place] + int(mutation.integers(1, SIZES[place]))) % SIZES[place]
        alive = alive[1:] + [tuple(child)]
        asked.append(tuple(child))
    return asked


def test_evolution_drops_the_oldest_as_in_the_paper():
    found = regularised_evolution(SIZES, count_right, budget=80, population=12, sample=4, seed=9)
    assert [tuple(choices) for choices in found.choices.tolist()] == evolution_by_hand(9, 12, 4, 80)


def test_uniform_guide_proposes_every_neighbour_equally_often():
    guide, parent = UniformGuide(SIZES, seed=0), (1, 0, 2, 2)
    children = [guide.propose(parent) for _ in range(8000)]
    assert all(sum(a != b for a, b in zip(parent, child)) == 1 for child in children)
    counts = {child: children.count(child) for child in set(children)}
    assert len(counts) == sum(size - 1 for size in SIZES) == 8
    assert max(abs(count - 1000) for count in counts.values()) < 5 * math.sqrt(1000)


@given(st.data())
def test_mutation_probabilities_against_a_loop(data):
    logits = torch.tensor(
        data.draw(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=2, max_size=4)),
        dtype=torch.float64,
    )
    parent = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(logits), max_size=len(logits))))
    found = mutation_log_probabilities(logits, parent).exp()
    weights = {
        (place, choice): math.exp(logits[place, choice] - logits[place, parent[place]])
        for place in range(len(logits))
        for choice in range(3)
        if choice != parent[place]
    }
    for place, choice in itertools.product(range(len(logits)), range(3)):
        assert found[place, choice].item() == pytest.approx(weights.get((place, choice), 0) / sum(weights.values()))


def test_policy_guide_never_proposes_what_is_not_there():
    policy = LogitsPolicy(SIZES)
    with torch.no_grad():
        policy.logits[1, 2:] = 50.0  # place 1 has two choices only
    guide = PolicyGuide(policy, SIZES)
    children = {guide.propose((0, 0, 0, 0)) for _ in range(300)}
    assert len(children) == 8 and all(choice < size for child in children for choice, size in zip(child, SIZES))


def test_policy_guide_learns_from_gains_alone():
    guide = PolicyGuide(LogitsPolicy(SIZES), SIZES, lr=0.1)
    parent = (0, 0, 0, 0)
    before = guide.changes(parent).exp().view(4, 4)
    guide.learn(parent, parent[:2] + (1, 0), 0.0)  # the first one is the usual
    guide.learn(parent, (2, 0, 0, 0), 1.0)
    guide.learn(parent, (0, 0, 0, 1), -1.0)
    after = guide.changes(parent).exp().view(4, 4)
    assert after[0, 2] > before[0, 2] and after[3, 1] < before[3, 1]


def test_reinforce_step_is_the_gradient_of_the_expected_reward():
    "The mean over all networks of advantage times score is the gradient of the expected reward, whatever the baseline."
    policy = LogitsPolicy(SIZES)
    with torch.no_grad():
        policy.logits.normal_(generator=torch.Generator().manual_seed(0))
    probabilities = valid_logits(policy, SIZES).softmax(1)
    networks = list(itertools.product(*map(range, SIZES)))
    chance = lambda network: math.prod(probabilities[place, choice] for place, choice in enumerate(network))
    (exact,) = torch.autograd.grad(sum(chance(network) * count_right(network) for network in networks), policy.logits)
    estimate = torch.zeros_like(exact)
    for network in networks:
        log_p = valid_logits(policy, SIZES).log_softmax(1).gather(1, torch.tensor(network)[:, None]).sum()
        (score,) = torch.autograd.grad(log_p, policy.logits)
        estimate += chance(network).item() * (count_right(network) - 1.7) * score
    assert torch.allclose(exact, estimate, atol=1e-5)


def test_reinforce_trains_the_policy_it_is_given():
    policy = LogitsPolicy(SIZES)
    reinforce(SIZES, count_right, budget=300, policy=policy, lr=0.05)
    assert policy().detach().argmax(1).tolist() == list(CODE)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: random_search((3, 0), count_right, budget=5), "a size must be a whole number of at least 1, not 0"),
        (
            lambda: random_search((1, 1), count_right, budget=5),
            "there is nothing to choose among sizes (1, 1): at least one place needs 2 choices or more",
        ),
        (
            lambda: random_search((), count_right, budget=5),
            "there is nothing to choose among sizes (): at least one place needs 2 choices or more",
        ),
        (lambda: random_search(SIZES, count_right, budget=0), "budget must be a whole number of at least 1, not 0"),
        (
            lambda: regularised_evolution(SIZES, count_right, budget=2.5),
            "budget must be a whole number of at least 1, not 2.5",
        ),
        (
            lambda: regularised_evolution(SIZES, count_right, budget=5, population=0),
            "population must be a whole number of at least 1, not 0",
        ),
        (
            lambda: regularised_evolution(SIZES, count_right, budget=5, sample=True),
            "sample must be a whole number of at least 1, not True",
        ),
        (lambda: random_search(SIZES, lambda choices: math.nan, budget=5, seed=1), "a reward must be a finite number"),
        (
            lambda: reinforce(SIZES, count_right, budget=5, policy=LogitsPolicy((3, 3))),
            "the policy gives logits of shape (2, 3), but 4 places of up to 4 choices need (4, 4)",
        ),
        (
            lambda: regularised_evolution(SIZES, count_right, budget=5, population=2, guide=Stubborn((9, 0, 0, 0))),
            "choice 9 at place 0 of (9, 0, 0, 0) must be a whole number from 0 to 2",
        ),
        (
            lambda: regularised_evolution(SIZES, count_right, budget=5, population=2, guide=Stubborn((0, 0))),
            "2 choices (0, 0) were given for 4 places: give one for each",
        ),
    ],
)
def test_mistakes_are_one_sentence(call, sentence):
    with pytest.raises(ValueError) as stop:
        call()
    assert sentence in str(stop.value) and "\n" not in str(stop.value)


class Stubborn:
    "A guide that always proposes the same."

    def __init__(self, child):
        self.child = child

    def propose(self, parent):
        return self.child

    def learn(self, parent, child, gain):
        pass
