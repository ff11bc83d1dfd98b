"""Searches in a table: rewards, scores and regrets against loops, trials that come out the same again, settings that
were not chosen by their outcome."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from scalable_arch.data.classification import nas_bench_macro
from scalable_arch.kinds import tabular
from scalable_arch.kinds.tabular import (
    SEARCHES,
    TABULAR,
    compare,
    compare_searches,
    comparison,
    invented_table,
    make_policy,
    mean_and_half,
    noisy_reward,
    regret_table,
    regrets,
    settings,
    settled,
    settling,
    table_of,
)
from scalable_arch.nas.discrete import Search, random_search

FEW = {name: SEARCHES[name] for name in ("random search", "evolution", "REINFORCE, NGE")}


def test_reward_is_one_of_the_three_runs_and_each_equally_often():
    table, choices = nas_bench_macro(), (0, 2, 0, 1, 2, 1, 0, 0)
    runs = [89.47, 88.95, 89.17]  # as published, to two decimals
    reward = noisy_reward(table, seed=3)
    drawn = [round(reward(choices), 2) for _ in range(900)]
    assert sorted(set(drawn)) == sorted(runs) and all(abs(drawn.count(run) - 300) < 75 for run in runs)


def test_regrets_against_a_loop():
    table = invented_table(5)
    search = random_search((3,) * 8, noisy_reward(table, 0), budget=40, seed=2)
    best, held, expected = 100 * max(table.accuracies.mean(1)), (-np.inf, None), []
    for choices, reward in zip(search.choices, search.rewards):
        if reward > held[0]:
            held = reward, 100 * table.accuracies[table.index(choices)].mean()
        expected.append(best - held[1])
    assert np.allclose(regrets(table, search), expected) and min(expected) >= 0


def test_a_lucky_run_is_not_a_good_network():
    table = nas_bench_macro()
    worse, better = (0,) * 8, (2, 2, 2, 1, 2, 2, 0, 2)
    regret = regrets(table, Search(np.array([better, worse]), np.array([50.0, 99.0])))
    assert regret[1] > regret[0] + 10


def test_invented_tables_are_of_their_seed_and_like_the_real_one():
    first, again, other, real = invented_table(1), invented_table(1), invented_table(2), nas_bench_macro()
    assert np.array_equal(first.accuracies, again.accuracies) and not np.array_equal(first.accuracies, other.accuracies)
    assert np.array_equal(first.choices, real.choices) and first.accuracies.shape == real.accuracies.shape
    with pytest.raises(ValueError, match="unknown table 'makro'"):
        table_of({"table": "makro", "seed": 0})


def test_a_trial_is_the_same_again_and_its_curve_ends_where_its_metrics_say():
    config = comparison(7, budget=60, searches=FEW)
    record, again = TABULAR.run(config, checkpoint=None, given={}, progress=False), compare_searches(config)
    assert record["metrics"] == again["metrics"] and record["curves"] == again["curves"]
    assert set(record["metrics"]) == set(FEW) and record["curves"][-1]["queries"] == 60
    for name, found in record["metrics"].items():
        assert record["curves"][-1][name] == found["regret"]
        assert found["accuracy"] + found["regret"] == pytest.approx(
            100 * nas_bench_macro().mean_accuracy.max(), abs=1e-3
        )
    assert compare_searches({**config, "seed": 8})["metrics"] != record["metrics"]


def test_a_seed_decides_the_draws_of_rewards_the_searches_and_an_invented_table(monkeypatch):
    seeds = {"noisy_reward": [], "run_search": [], "invented_table": []}
    for name in seeds:
        function = getattr(tabular, name)
        noted = lambda *given, name=name, function=function, **options: (
            seeds[name].append(options.get("seed", given[-1])) or function(*given, **options)
        )
        monkeypatch.setattr(tabular, name, noted)
    for seed in (7, 8):
        compare_searches(comparison(seed, table="invented", budget=5, searches={"random": {"search": "random"}}))
    assert seeds == dict.fromkeys(seeds, [7, 8])


def test_order_of_searches_does_not_matter():
    config = comparison(1, budget=60, searches=FEW)
    backwards = comparison(1, budget=60, searches=dict(reversed(FEW.items())))
    assert compare_searches(config)["metrics"] == compare_searches(backwards)["metrics"]


def test_budget_that_thirty_does_not_divide_still_ends_at_the_last_query():
    for budget in (7, 61, 100):
        queries = [
            point["queries"]
            for point in compare_searches(
                comparison(0, budget=budget, searches={"random search": SEARCHES["random search"]})
            )["curves"]
        ]
        assert queries[-1] == budget and queries == sorted(set(queries)) and len(queries) <= 31


@pytest.mark.parametrize("policy", ["logits", "plain", "nge"])
def test_policies_fit_the_space(policy):
    assert make_policy(policy, (3,) * 8)().shape == (8, 3)


def fake(seed, **regret):
    return {
        "config": {"seed": seed, "searches": {}},
        "metrics": {
            name: {"accuracy": 90 - value[seed], "regret": value[seed], "mean_regret": value[seed]}
            for name, value in regret.items()
        },
    }


def test_comparison_is_a_paired_t_test():
    rng = np.random.default_rng(0)
    a = rng.normal(1, 0.3, 12)
    b, c = a + rng.normal(0.5, 0.1, 12), a + rng.normal(0, 0.4, 12)
    records = [fake(seed, a=a, b=b, c=c) for seed in range(12)]
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    found = compare(records, "a", "b")
    assert found["difference"] - found["half"] == pytest.approx(low) and found["difference"] + found[
        "half"
    ] == pytest.approx(high)
    assert (
        found["verdict"] == "lower"
        and compare(records, "b", "a")["verdict"] == "higher"
        and compare(records, "a", "c")["verdict"] == "undecided"
    )
    assert compare(records[:1], "a", "b")["verdict"] == "undecided", "one seed decides nothing"
    assert np.isnan(mean_and_half([1.0])[1])
    table = regret_table(records, rivals=("b",))
    assert table.loc["a", "regret against b"] == "lower" and table.loc["b", "regret against b"] == ""


def test_settings_are_as_many_for_every_search_and_the_least_mean_regret_wins():
    assert {name: len(settings(name)) for name in SEARCHES} == {
        name: 6 * (name != "random search") for name in SEARCHES
    }
    config = settling(0)
    assert config["table"] == "invented" and len(config["searches"]) == 6 * (len(SEARCHES) - 1)
    regret = {label: (0.1 if label.endswith(": 3") else 0.5) for label in config["searches"]}
    record = {"config": config, "metrics": {label: {"mean_regret": value} for label, value in regret.items()}}
    assert settled([record]) == {name: settings(name)[3] for name in SEARCHES if settings(name)}
