"The rule: its interval is that of the loops and covers, looks come in order, and verdicts follow from intervals."

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from scalable_arch.study.claims import Claim, parse_relation
from scalable_arch.study.rule import (
    LOOKS,
    Contrast,
    Estimate,
    Scores,
    check_claim,
    common_contrasts,
    contrast_at,
    decide,
    estimate,
    in_print,
    joint_verdict,
    null_control,
    null_rate,
    null_sentence,
    planned_looks,
    relation_verdict,
    scores_by_person,
    seeds_expected,
    seeds_needed,
    smallest_difference,
    undecided_said,
)


def alone(values):
    "The contrast of one test set, values (seeds, persons)."
    return Contrast(tuple(range(len(values))), ((1.0, np.asarray(values, float)),))


def drawn(rng, truth, seeds, people, sd_seeds=0.0, sd_people=5.0, sd_rest=10.0):
    "One table with a true contrast of `truth`."
    rows, columns = rng.normal(0, sd_seeds, (seeds, 1)), rng.normal(0, sd_people, (1, people))
    return truth + rows + columns + rng.normal(0, sd_rest, (seeds, people))


# scores


def test_sums_of_persons():
    scores = scores_by_person([[1, 0, 1, 1], [0, 0, 1, 0]], ["b", "a", "b", "c"], scale=100)
    assert scores.people == ("a", "b", "c") and scores.sizes.tolist() == [1, 2, 1] and scores.seeds == (0, 1)
    assert scores.sums.tolist() == [[0, 200, 100], [0, 100, 0]] and scores.means.tolist() == [75, 25]


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 9))
def test_values_of_persons_have_the_mean_of_all_queries(seed, seeds, people):
    rng = np.random.default_rng(seed)
    scores = scores_by_person(rng.random((seeds, 30)), rng.integers(0, people, 30))
    np.testing.assert_allclose(scores.values.mean(1), scores.means)
    equal = scores_by_person(rng.random((seeds, 30)), np.arange(30) // 3)
    np.testing.assert_allclose(equal.values, equal.sums / 3)  # of equally many queries: each person's mean


@pytest.mark.parametrize(
    "samples, options, sentence",
    [
        ([], {}, "one list of scores for each seed"),
        ([[1, 0], [1]], {}, "all equally long"),
        ([[1, float("nan")]], {}, "no finite numbers"),
        ([[1, 0]], {"people": [1]}, "one person for each of 2 queries"),
        ([[1, 0]], {"seeds": [1, 2]}, "1 different names"),
        ([[1, 0], [1, 0]], {"seeds": [1, 1]}, "2 different names"),
    ],
)
def test_samples_that_do_not_fit(samples, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        scores_by_person(samples, **options)


# the interval


def by_loops(sets, level, independent=False):
    "(mean, low, high) as the notebook's formulas say, number by number."
    seeds = len(sets[0][1])
    of_seed = [sum(w * sum(values[s]) / len(values[s]) for w, values in sets) for s in range(seeds)]
    mean = sum(of_seed) / seeds
    apart = [[w * sum(values[s]) / len(values[s]) for s in range(seeds)] for w, values in sets]
    parts, dfs = [], []
    for means in apart if independent else [of_seed]:
        centre = sum(means) / seeds
        parts.append(sum((x - centre) ** 2 for x in means) / (seeds - 1) / seeds)
        dfs.append(seeds - 1)
    for w, values in sets:
        people = len(values[0])
        if people > 1:
            of_person = [sum(values[s][p] for s in range(seeds)) / seeds for p in range(people)]
            centre = sum(of_person) / people
            parts.append(w**2 * sum((x - centre) ** 2 for x in of_person) / (people - 1) / people)
            dfs.append(people - 1)
    total = sum(parts)
    df = total**2 / sum(part**2 / df for part, df in zip(parts, dfs))
    half = student_t.ppf(1 - level / 2, df) * math.sqrt(total)
    return mean, mean - half, mean + half


@given(st.integers(0, 2**31), st.integers(2, 6), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.booleans())
def test_the_interval_is_that_of_the_loops(seed, seeds, people, independent):
    rng = np.random.default_rng(seed)
    sets = [(1 / len(people), rng.normal(size=(seeds, count))) for count in people]
    found = estimate(Contrast(tuple(range(seeds)), tuple(sets), independent))
    got = found.mean, *found.interval(0.015)
    wanted = by_loops([(w, values.tolist()) for w, values in sets], 0.015, independent)
    np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9)
    assert found.people == sum(count for count in people if count > 1)


def test_independent_sets_cover_too_and_with_narrower_intervals():
    rng, inside, widths = np.random.default_rng(0), {False: 0, True: 0}, {False: 0.0, True: 0.0}
    for _ in range(1500):
        sets = tuple((0.5, rng.normal(0, 3, (4, 1)) + rng.normal(0, 3, (1, 50))) for _ in range(2))
        for independent in inside:
            low, high = estimate(Contrast((0, 1, 2, 3), sets, independent)).interval(0.05)
            inside[independent] += low <= 0 <= high
            widths[independent] += high - low
    assert min(inside.values()) > 0.93 * 1500 and widths[True] < 0.95 * widths[False]


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.floats(-5, 5), st.floats(0.01, 100))
def test_the_interval_moves_and_stretches_with_the_contrast(seed, shift, scale):
    values = np.random.default_rng(seed).normal(size=(4, 12))
    one, other = estimate(alone(values)), estimate(alone(scale * values + shift))
    np.testing.assert_allclose(other.interval(0.05), [scale * x + shift for x in one.interval(0.05)], atol=1e-9 * scale)


def test_one_seed_has_no_interval_and_no_variance_no_width():
    assert math.isinf(estimate(alone([[1.0, 2.0]])).half_width(0.05))
    assert estimate(alone([[2.0, 2.0]] * 4)).interval(0.01) == (2.0, 2.0)


def test_people_make_intervals_wider_than_queries_on_their_own():
    rng = np.random.default_rng(4)
    people = np.arange(200) // 10
    rows = rng.normal(0, 1, 20)[people] + rng.normal(0, 0.1, (4, 200))
    width = lambda scores: estimate(alone(scores.values)).half_width(0.05)
    assert width(scores_by_person(rows, people)) > 2 * width(scores_by_person(rows))


@pytest.mark.parametrize("seeds, people, sd_seeds", [(4, 50, 0.0), (8, 50, 1.0), (8, 200, 0.4), (16, 50, 0.5)])
def test_the_interval_covers(seeds, people, sd_seeds):
    # 1,500 tables, numpy's seed 2026 taken before any rate was seen; three deviations of the binomial are allowed.
    rng, level = np.random.default_rng(2026), LOOKS[seeds]
    misses = 0
    for _ in range(1500):
        low, high = estimate(alone(drawn(rng, 0, seeds, people, sd_seeds))).interval(level)
        misses += not low <= 0 <= high
    assert misses <= 1500 * level + 3 * math.sqrt(1500 * level)


# the smallest difference


@pytest.mark.parametrize(
    "sign, printed, unit, expected",
    [
        (">", [2.0, 8.0], "percent", 2.5),
        (">", [-2.0, -8.0], "percent", 2.5),
        (">", [8.0, -8.0], "percent", 1.0),
        (">", [0.5], "percent", 1.0),
        ("~", [0.5, -2.6], "percent", 2.6),
        ("~", [0.2], "percent", 1.0),
        (">", [], "percent", 1.0),
        (">", [], "share", 0.05),
        ("~", [], "fraction", 0.05),
        (">", [0.4], "share", 0.2),
    ],
)
def test_the_smallest_difference_that_matters(sign, printed, unit, expected):
    assert smallest_difference(sign, printed, unit) == pytest.approx(expected)


# verdicts


def at(low, high):
    "An estimate whose interval is this at every level: no, at 5 % with many people."
    half = (high - low) / 2
    part = (half / student_t.ppf(0.975, 10**6)) ** 2
    return Estimate((low + high) / 2, 4, 0.0, part, 10**6, 100)


@pytest.mark.parametrize(
    "sign, low, high, verdict",
    [
        (">", 0.1, 2, "supported"),
        (">", 0.1, 9, "supported"),
        (">", -2, -0.1, "contradicted"),
        (">", -1, 1, "no difference"),
        (">", -4, 1, "undecided"),
        (">", -1, 4, "undecided"),
        ("~", -1, 1, "supported"),
        ("~", -4, 1, "undecided"),
        ("~", 3.5, 5, "contradicted"),
        ("~", -5, -3.5, "contradicted"),
        ("~", -5, 5, "undecided"),
    ],
)
def test_verdicts_follow_from_intervals(sign, low, high, verdict):
    assert relation_verdict(sign, at(low, high), 3, 0.05) == verdict


def test_contradictions_are_corrected_for_the_number_of_relations_and_support_is_not():
    assert relation_verdict(">", at(-4, -0.1), 3, 0.05, count=4) == "undecided"
    assert relation_verdict(">", at(0.1, 2), 3, 0.05, count=4) == "supported"
    assert relation_verdict(">", at(-2.9, 2.9), 3, 0.05, count=1) == "no difference"
    assert relation_verdict(">", at(-2.9, 2.9), 3, 0.05, count=4) == "undecided"


@pytest.mark.parametrize(
    "verdicts, joint",
    [
        ("ss", "supported"),
        ("su", "undecided"),
        ("sunc", "contradicted"),
        ("sun", "no difference"),
        ("sn", "no difference"),
        ("u", "undecided"),
    ],
)
def test_joint_verdict(verdicts, joint):
    words = {"s": "supported", "c": "contradicted", "n": "no difference", "u": "undecided"}
    assert joint_verdict([words[letter] for letter in verdicts]) == joint


# looks


def test_looks_come_at_4_8_and_16_seeds_and_share_five_percent():
    assert [look for look, _ in planned_looks(99)] == [4, 8, 16] and sum(LOOKS.values()) <= 0.05
    assert planned_looks(3) == [] == planned_looks(3, fixed=True)
    assert planned_looks(7) == planned_looks(4) and planned_looks(20, fixed=True) == [(20, 0.05)]


def steady(means, people=60):
    "A table whose seeds have these means and whose persons scatter little."
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.5, (len(means), people))
    return np.array(means)[:, None] + noise - noise.mean(1, keepdims=True)


def test_a_claim_is_decided_at_the_first_look_that_decides_it():
    good, bad = [5.0, 5.1, 4.9, 5.0], [-5.0] * 12
    decision = decide([alone(steady(good + bad))], [">"], [1.0])
    assert (decision.verdict, decision.look, decision.level) == ("supported", 4, LOOKS[4])  # whatever comes later
    open_first = decide([alone(steady([9.0, -7, 8, -8] + [5, 5.1, 4.9, 5] * 3))], [">"], [1.0])
    assert open_first.look > 4 and open_first.estimates[0].seeds == open_first.look
    three = decide([alone(steady(good[:3]))], [">"], [1.0])
    assert (three.verdict, three.look, three.level) == ("undecided", None, None)
    assert decide([alone(steady(good + bad))], [">"], [1.0], fixed=True).look == 16


@pytest.mark.parametrize(
    "truth, relations, sd_seeds, wrong",
    [
        (0.0, 1, 0.3, {"supported", "contradicted"}),
        (0.0, 1, 2.0, {"supported", "contradicted"}),
        (0.0, 4, 1.0, {"supported", "contradicted"}),
        (1.0, 1, 0.3, {"contradicted", "no difference"}),
        (1.0, 4, 2.0, {"contradicted", "no difference"}),
    ],
)
def test_at_most_five_percent_of_claims_are_decided_wrongly_over_all_looks(truth, relations, sd_seeds, wrong):
    # 600 claims, numpy's seed 2027 taken before any rate was seen. 5 % are 30; three deviations more are 46.
    rng, found = np.random.default_rng(2027), 0
    for _ in range(600):
        contrasts = [alone(drawn(rng, truth, 16, 100, sd_seeds)) for _ in range(relations)]
        found += decide(contrasts, [">"] * relations, [1.0] * relations).verdict in wrong
    assert found <= 46


def test_a_difference_that_is_there_is_found_and_one_that_is_none_too():
    rng = np.random.default_rng(3)
    verdict = lambda truth: decide([alone(drawn(rng, truth, 16, 400, 0.5, 2, 5))], [">"], [1.5]).verdict
    found = {truth: [verdict(truth) for _ in range(40)] for truth in (4.0, -4.0, 0.0)}
    assert found[4.0].count("supported") >= 38 and found[-4.0].count("contradicted") >= 38
    assert found[0.0].count("no difference") >= 34


# what is still needed


def test_seeds_needed_are_the_fewest_whose_interval_decides():
    found = Estimate(mean=2.0, seeds=4, seeds_ms=4.0, people_part=0.05, people_df=199.0, people=200)
    needs = seeds_needed(">", found, 3.0)
    assert set(needs) == {"supported", "no difference"}
    level = lambda seeds: next((a for look, a in LOOKS.items() if look >= seeds), 0.025)
    for verdict, width in (("supported", 2.0), ("no difference", 1.0)):
        fits = [seeds for seeds in range(4, 65) if found.half_width(level(seeds), seeds) < width]
        assert needs[verdict] == (fits[0] if fits else None)
    assert 4 < needs["supported"] <= 16


def test_more_seeds_are_never_worse_within_a_look():
    found = Estimate(2.0, 4, 4.0, 0.05, 199.0, 200)
    widths = [found.half_width(0.025, seeds) for seeds in range(2, 200)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    "needs, verdicts, expected",
    [
        ([{"supported": 6}], "u", 6),
        ([{"supported": 6}, {"supported": 20}], "uu", 20),
        ([{"supported": 6}, {"supported": None, "no difference": None}], "uu", None),
        ([{"supported": 60, "no difference": 9}, {"supported": 20}], "uu", 9),
        ([{"supported": None, "contradicted": None}, {"contradicted": 5}], "uu", 5),
        ([{"supported": 4}, {"supported": 12}], "su", 12),
        ([{}], "u", None),
    ],
)
def test_seeds_at_which_a_claim_is_expected_to_be_decided(needs, verdicts, expected):
    words = {"s": "supported", "u": "undecided"}
    assert seeds_expected(needs, [words[letter] for letter in verdicts]) == expected


def said(seeds, *, seeds_ms=4.0, people_part=0.02, mean=2.0, have=None):
    "What a claim of one relation waits for, after as many seeds as its table has."
    found = Estimate(mean, have or seeds, seeds_ms, people_part, 199.0, 200)
    decision = decide([alone(steady([9.0, -9.0] * (seeds // 2) + [0.0] * (seeds % 2)))], [">"], [1.0])
    assert decision.verdict == "undecided"
    return undecided_said(decision, [">"], [found], [1.0])[0]


def test_what_an_undecided_claim_waits_for_is_said():
    assert said(1) == "at least 3 seeds more" and said(3, seeds_ms=0.1) == "about 1 seed more"
    assert said(5) == "about 11 seeds more"  # the next look that suffices has 16
    assert said(4, people_part=9.0) == "more people" and said(4, seeds_ms=4000.0) == "more than 60 seeds more"


# a claim and its cells

X = np.arange(200) // 2


def claim(*relations, **fields):
    return Claim("toy", "n", "t", "s", tuple(map(parse_relation, relations)), **{"metrics": ("R1",), **fields})


def cell(rate, *, seeds=(0, 1, 2, 3), sd=0.5, people=X, salt=0):
    "A cell of this mean, in percent; seeds scatter by `sd`, persons alike in all cells."
    rng = np.random.default_rng([salt, int(1000 * rate)])
    skill = np.random.default_rng(9).normal(0, 10, 200)
    rows = [rate + skill - skill.mean() + rng.normal(0, sd) + rng.normal(0, 2, 200) for _ in seeds]
    return scores_by_person(rows, people, seeds=seeds)


def cells_of(dataset="X", metric="R1", **rates):
    return {(row, "", dataset, metric): cell(rate) for row, rate in rates.items()}


def test_a_claim_needs_all_its_relations():
    cells = cells_of(a=70, b=60, c=50)
    assert check_claim(claim("[a] > [b]", "[b] > [c]"), cells)["said"] == "supported (at 4 seeds)"
    assert check_claim(claim("[a] > [b]", "[c] > [b]"), cells)["verdict"] == "contradicted"
    assert check_claim(claim("[a] > [b]", "[a] > [d]"), cells)["said"] == "not testable here (not run: d)"
    assert check_claim(claim("[d] > [e]"), cells)["said"] == "not testable here (not run: d, e)"
    assert check_claim(claim("[a] > [b]", metrics=("R1", "mAP")), cells)["said"] == "not testable here (not run: mAP)"
    assert check_claim(claim("[a] > [b]"), {})["relations"][0]["places"] == []


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("[a] > [b]", "supported"),
        ("[a] < [b]", "contradicted"),
        ("[b] < [a]", "supported"),
        ("[a] ~ [b]", "contradicted"),
        ("[a] - 10 ~ [b]", "supported"),
        ("[a] - 12 > [b]", "contradicted"),
        ("[a] > [b] + 8", "supported"),
        ("2 * [b] > [a]", "supported"),
        ("[a] > 2 * [b]", "contradicted"),
        ("[a] > [b] + 10", "no difference"),
    ],
)
@pytest.mark.parametrize("measured", [True, False])
def test_each_relation_on_cells_whose_verdict_is_known(text, verdict, measured):
    cells = cells_of(a=70, b=60)
    if measured:
        cells = {
            key: Scores(value.sums * 0 + mean * value.sizes, value.sizes, value.seeds, value.people)
            for (key, value), mean in zip(cells.items(), (70.0, 60.0))
        }
    else:
        cells = {key: mean for key, mean in zip(cells, (70.0, 60.0))}
        verdict = "contradicted" if verdict == "no difference" else verdict  # arithmetic: 70 is not above 70
    assert check_claim(claim(text), cells)["verdict"] == verdict


def test_a_relation_is_one_number_over_scores_and_test_sets():
    cells = cells_of(a=70, b=60) | cells_of("Y", a=60, b=64) | cells_of("X", "mAP", a=50, b=40)
    cells |= cells_of("Y", "mAP", a=30, b=30)
    [entry] = check_claim(claim("[a] > [b]", metrics=("R1", "mAP")), cells)["relations"]
    assert entry["difference"] == pytest.approx(np.mean([at["difference"] for at in entry["places"]]), abs=1e-4)
    assert len(entry["places"]) == 4 and entry["people"] == 200 and 3 < entry["difference"] < 5
    assert check_claim(claim("[a] > [b]", datasets=("X",)), cells)["relations"][0]["difference"] > 9
    lost = check_claim(claim("[a] > [b]", datasets=("X", "Z")), cells)
    assert lost["said"] == "not testable here (not run: Z)"


def test_scores_of_the_same_people_are_averaged_and_other_people_are_others():
    cells = cells_of(a=70, b=60) | cells_of("X (MQ)", a=70, b=60) | cells_of("Y", a=70, b=60)
    relation = claim("[a] > [b]").estimands[0]
    places = {
        ("R1", d): contrast_at(relation, {(r, ""): cells[r, "", d, "R1"] for r in "ab"}) for d in ("X", "X (MQ)", "Y")
    }
    [contrast] = common_contrasts([places])
    assert [weight for weight, _ in contrast.sets] == pytest.approx([2 / 3, 1 / 3])
    assert contrast.sets[0][1].shape == (4, 100)


def test_seeds_are_those_that_all_cells_have_in_the_order_of_their_numbers():
    cells = {
        ("a", "", "X", "R1"): cell(70, seeds=(7, 0, 3, 5, 1)),
        ("b", "", "X", "R1"): cell(60, seeds=(3, 1, 0, 9, 7)),
    }
    cells[("c", "", "X", "R1")] = cell(50, seeds=(0, 1, 3, 7, 8, 9))
    claims = claim("[a] > [b]", "[b] > [c]")
    places = [{("R1", "X"): contrast_at(r, {k: cells[*k, "X", "R1"] for k in r.cells})} for r in claims.estimands]
    assert [contrast.seeds for contrast in common_contrasts(places)] == [(0, 1, 3, 7)] * 2


def test_a_test_set_of_one_seed_is_not_mixed_with_others():
    cells = cells_of(a=70, b=60) | {(r, "", "Y", "R1"): cell(rate, seeds=(0,)) for r, rate in (("a", 10), ("b", 90))}
    [entry] = check_claim(claim("[a] > [b]"), cells)["relations"]
    assert entry["seeds"] == 4 and entry["difference"] == pytest.approx(10, abs=1.5) and entry["verdict"] == "supported"
    assert {place["dataset"] for place in entry["places"]} == {"X", "Y"}  # what was measured is shown all the same
    only = check_claim(claim("[a] > [b]", datasets=("Y",)), cells)
    assert only["said"] == "undecided (at least 3 seeds more)" and "low" not in only["relations"][0]


def test_no_seed_in_common_is_undecided():
    cells = {("a", "", "X", "R1"): cell(70, seeds=(0, 1)), ("b", "", "X", "R1"): cell(60, seeds=(2, 3))}
    found = check_claim(claim("[a] > [b]"), cells)
    assert found["said"] == "undecided (at least 4 seeds more)" and found["relations"][0]["places"] == []


def test_a_mean_of_relations_where_the_sentence_is_hedged():
    cells = cells_of(a=70, b=60, c=64)
    both = ("[a] > [b]", "[c] > [a]")  # +10 and -6
    assert check_claim(claim(*both), cells)["verdict"] == "contradicted"
    hedged = check_claim(claim(*both, average=True), cells)
    assert hedged["verdict"] == "supported" and len(hedged["relations"]) == 1
    assert hedged["relations"][0]["difference"] == pytest.approx(2, abs=1)


def test_fixed_claims_look_once_at_all_seeds():
    cells = {(row, "", "X", "R1"): cell(rate, seeds=tuple(range(10)), sd=0.1) for row, rate in (("a", 62), ("b", 60))}
    found = check_claim(claim("[a] > [b]", fixed=True), cells)
    assert found["look"] == 10 and found["relations"][0]["level"] == 0.05


def test_structural_claims_are_arithmetic():
    cells = {("a", "", "", "FLOPs"): 2.0, ("b", "", "", "FLOPs"): 3.0}
    found = check_claim(claim("[a] < [b]", metrics=("FLOPs",), datasets=("X",)), cells)
    assert found["said"] == "supported" and "low" not in found["relations"][0] and found["look"] is None
    assert check_claim(claim("[a] > [b]", metrics=("FLOPs",)), cells)["said"] == "contradicted"
    assert (
        check_claim(claim("[a] > [b]", metrics=("FLOPs",)), cells | {("b", "", "", "FLOPs"): 2.0})["said"]
        == "contradicted"
    )


def test_cells_that_cannot_be_paired():
    cells = cells_of(a=70, b=60)
    other = cells | {("b", "", "X", "R1"): cell(60, people=np.arange(200) // 4)}
    with pytest.raises(ValueError, match="different queries"):
        check_claim(claim("[a] > [b]"), other)
    with pytest.raises(ValueError, match="mixes structural cells with measured ones"):
        check_claim(claim("[a] > [b]"), cells | {("b", "", "X", "R1"): 3.0})
    with pytest.raises(ValueError, match="mixes structural cells with measured ones"):
        mixed = cells | {("a", "", "X", "FLOPs"): 1.0, ("b", "", "X", "FLOPs"): 2.0}
        check_claim(claim("[a] > [b]", metrics=("R1", "FLOPs")), mixed)


@pytest.mark.parametrize(
    "rates, units, ended",
    [
        ((1.0, 1.9), {}, True),
        ((99.0, 98.5), {}, True),
        ((1.0, 5.0), {}, False),
        ((1.0, 99.0), {}, False),
        ((1.0, 1.9), {"R1": "share"}, False),
    ],
)
def test_a_score_at_floor_or_ceiling_tells_nothing(rates, units, ended):
    flat = lambda value: scores_by_person([np.full(50, value)] * 4)
    cells = {(row, "", "X", "R1"): flat(rate) for row, rate in zip("ab", rates)}
    found = check_claim(claim("[a] > [b]"), cells, units=units)
    assert (found["verdict"] == "not testable here") == ended and ("points of" in found["said"]) == ended


def test_why_a_claim_is_not_testable_here():
    cells = cells_of(a=70, b=60, c=50)
    untrained = {("b", "", "X", "R1"): "training accuracy 9 %, below 80 %"}
    found = check_claim(claim("[a] > [b]"), cells, untrained=untrained)
    assert found["said"] == "not testable here (b did not train: training accuracy 9 %, below 80 %)"
    assert found["relations"][0]["verdict"] == "not testable here" and found["relations"][0]["difference"] > 9
    assert check_claim(claim("[a] > [c]"), cells, untrained=untrained)["verdict"] == "supported"
    assert check_claim(claim("[a] > [b]"), cells, control="no control")["said"] == "not testable here (no control)"
    rivals = check_claim(claim("[a] > [b]", untestable="of ImageNet"), cells)
    assert rivals["said"] == "not testable here (of ImageNet)" and rivals["look"] is None


def test_no_difference_says_of_how_much():
    cells = {key: cell(60, sd=0.05, salt=at) for at, key in enumerate(cells_of(a=1, b=1))}
    assert check_claim(claim("[a] > [b]"), cells)["said"] == "no difference of 1.0 points (at 4 seeds)"


# in print


def test_printed_values_are_tested_by_the_same_estimand():
    [entry] = in_print(Claim("wei_li_thesis_t3_04", "", "", "", (parse_relation("[SSA] < [No Attention]"),)))
    assert (
        entry["in_paper"] == "contradicted" and entry["printed"] < 0 and entry["sesoi"] == max(1, -entry["printed"] / 2)
    )
    assert in_print(claim("[a] > [b]")) == [
        {"relation": "[a] > [b]", "unit": "percent", "sesoi": 1.0, "printed": None, "in_paper": "not printed"}
    ]


def test_equal_printed_values_are_equal_in_binary_too():
    assert contrast_at(parse_relation("[a] - [b] > [c]"), {("a", ""): 85.9, ("b", ""): 73.2, ("c", ""): 12.7}) == 0.0


# null controls


def test_null_controls_are_the_first_four_seeds_against_the_next():
    rates = dict(zip((9, 1, 2, 3, 4, 5, 6, 7, 8), (99, 10, 11, 12, 13, 20, 21, 22, 23)))
    scores = scores_by_person([[rate] for rate in rates.values()], seeds=tuple(rates))
    found = null_control(scores)
    assert found["difference"] == -10 and found["p"] < 0.001
    assert null_control(scores_by_person([[1.0]] * 7)) is None
    assert null_control(scores_by_person([[1.0]] * 8)) == {"difference": 0.0, "p": 1.0}


def test_null_controls_differ_at_their_rate():
    rng = np.random.default_rng(5)
    nulls = [null_control(scores_by_person(rng.normal(50, 3, (8, 1)) + rng.normal(0, 9, 40))) for _ in range(400)]
    differ, count, _ = null_rate(nulls)
    assert count == 400 and 7 <= differ <= 33  # 20, and three deviations of the binomial
    few = [{"p": 0.01}] + [{"p": 0.5}] * 19
    assert null_rate(few) == (1, 20, True) and "1 of 20 null controls differ" in null_sentence(few)
    shifted = [null | {"p": 0.01} for null in nulls[:20]]
    assert null_rate(shifted) == (20, 20, False) and "not compatible" in null_sentence(shifted)
    assert null_sentence([]) == "No null control: no cell has 8 seeds."
