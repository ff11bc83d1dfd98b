"Claims: relations are read right, the bootstrap is what it says it is, and verdicts follow from intervals."

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.study.claims import (
    Claim,
    Scores,
    check_claim,
    check_relation,
    claims_mark,
    in_paper,
    joint_verdict,
    load_claims,
    paired_bootstrap,
    parse_relation,
    relation_verdict,
    resampled,
    scores_by_person,
    seed_deviations,
)

ROWS = [
    "SSA",
    "SSA+SCA",
    "HAN(All)",
    "Global (w/ CAIL)",
    "Cross-Entropy + Triplet",
    "GDAS [C=36,N=6]",
    "10 * x > y",
    "a ~ b",
]


# relations

terms = st.lists(
    st.tuples(
        st.sampled_from("+-"),
        st.one_of(st.none(), st.integers(1, 9), st.sampled_from([0.5, 1.05, 12.25])),
        st.one_of(st.none(), st.tuples(st.sampled_from(ROWS), st.sampled_from(["", "RR", "RR,RE"]))),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def written(side):
    "A side of a relation as text, from (sign, number, cell, number first?)."
    text = ""
    for at, (sign, factor, cell, first) in enumerate(side):
        name = cell and (f"[{cell[0]} | {cell[1]}]" if cell[1] else f"[{cell[0]}]")
        term = (
            str(factor or 1)
            if not cell
            else name
            if factor is None
            else f"{factor} * {name}"
            if first
            else f"{name}*{factor}"
        )
        text += (f" {sign} " if at else "-" if sign == "-" else "") + term
    return text


def summed(side, values):
    "The same side, added up term by term."
    return sum(
        (1 if sign == "+" else -1) * (factor or 1) * (values[cell] if cell else 1) for sign, factor, cell, _ in side
    )


@given(left=terms, right=terms, sign=st.sampled_from("<>~"))
def test_any_relation_is_read_as_it_is_written(left, right, sign):
    rng = np.random.default_rng(0)
    values = {(row, group): rng.random() for row in ROWS for group in ("", "RR", "RR,RE")}
    text = f"{written(left)} {sign} {written(right)}"
    try:
        relation = parse_relation(text)
    except ValueError as error:  # there is no cell, or all of them cancel out
        assert "says nothing about a cell" in str(error)
        nothing = {cell: 0.0 for *_, cell, _ in left + right if cell}
        for cell in nothing:
            one = nothing | {cell: 1.0}
            assert math.isclose(
                summed(left, one) - summed(right, one), summed(left, nothing) - summed(right, nothing), abs_tol=1e-12
            )
        return
    assert relation.sign == sign and relation.text == text
    assert math.isclose(relation.value(values.get), summed(left, values) - summed(right, values), abs_tol=1e-9)


def test_group_of_a_claim_is_for_cells_without_their_own():
    relation = parse_relation("[A | RE] - [B] > [A]", group="RR")
    assert relation.terms == ((1.0, ("A", "RE")), (-1.0, ("B", "RR")), (-1.0, ("A", "RR"))) and relation.constant == 0


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("[a] > ", "a .cell. or a number is missing at its end"),
        ("[a]", "none of the signs"),
        ("", "a .cell. or a number is missing"),
        ("[a] > [b] > [c]", "a second sign >"),
        ("[a] [b] > 1", r"\[b\] stands where a sign must stand"),
        ("[a] * [b] > 1", "only a number times a .cell."),
        ("2 * > [a]", "only a number times a .cell."),
        ("[a] >= [b]", "'= .b.' is neither"),
        ("[a > [b]", "does not close"),
        ("[] > [b]", "a .cell. is empty"),
        ("[a] - [a] > 0", "says nothing about a cell"),
        ("1 < 2", "says nothing about a cell"),
        ("a > b", "'a > b' is neither"),
    ],
)
def test_what_cannot_be_read_says_why_and_where(text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_relation(text)
    assert repr(text) in str(caught.value)


# the manifests

CLAIM = """
[[claim]]
study = "wei_li_thesis_t3_04"
name = "each"
text = "each helps"
source = "W L642"
holds = ["[SSA] > [No Attention]"]
"""


def test_all_claims_of_the_book_can_be_tested():
    claims = load_claims()
    assert len(claims) >= 33 and all(claim.source and claim.cells for claim in claims)
    assert (
        load_claims("wei_li_thesis_t3_04") == [claim for claim in claims if claim.study == "wei_li_thesis_t3_04"] != []
    )


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ("t3_04", "t3_4", r"unknown study 'wei_li_thesis_t3_4' \(did you mean 'wei_li_thesis_t3_04'\?\)"),
        ("[SSA]", "[SSB]", r"unknown cell '\[SSB\]' \(did you mean '\[SSA\]'\?\)"),
        ("[SSA]", "[SSA | RR]", r"unknown cell '\[SSA \| RR\]'"),
        ("[SSA] >", "[SSA]", r"relation '\[SSA\] \[No Attention\]' cannot be read"),
        ("[SSA] >", "[SSA] ~", "needs a margin above 0"),
        ('name = "each"', 'name = "each"\nmetrics = ["map"]', r"unknown metric 'map'"),
        (
            'name = "each"',
            'name = "each"\ndatasets = ["Market1501"]',
            r"unknown data set 'Market1501' \(did you mean 'Market-1501'\?\)",
        ),
        ('name = "each"', 'name = "each"\nmetric = "R1"', r"unknown field 'metric' \(did you mean 'metrics'\?\)"),
        ('name = "each"', 'name = "each"\nmetrics = "R1"', "metrics must be a list of texts, not 'R1'"),
        ('name = "each"', 'name = "each"\nmargin = "3"', "margin must be a number, not '3'"),
        ('source = "W L642"', "", "it has no source"),
        ("[[claim]]", CLAIM + "[[claim]]", "has a claim of this name already"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_named(tmp_path, old, new, sentence):
    (tmp_path / "a.toml").write_text(CLAIM.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=sentence) as caught:
        load_claims(folder=tmp_path)
    assert str(caught.value).startswith("a.toml, claim 'each': ") and "\n" not in str(caught.value)


def test_a_damaged_file_of_claims_is_named(tmp_path):
    (tmp_path / "b.toml").write_text("[[claim]\n")
    with pytest.raises(ValueError, match="b.toml is no TOML file"):
        load_claims(folder=tmp_path)


# the bootstrap


def by_loops(first, second, people, draws, seed):
    "Mean and interval of a difference, query by query and draw by draw, as the text describes it."
    names = sorted(set(people))
    num_seeds, queries = len(first), len(people)
    of_person = {name: [at for at in range(queries) if people[at] == name] for name in names}
    difference = [[first[s][q] - second[s][q] for q in range(queries)] for s in range(num_seeds)]
    mean_of_seed = [sum(row) / queries for row in difference]
    mean = sum(mean_of_seed) / num_seeds
    off = [value - mean for value in mean_of_seed]
    if num_seeds > 1:
        total = sum(value**2 for value in off) / (num_seeds - 1)
        chance = 0.0
        for name in names:
            for s in range(num_seeds):
                mine = sum(difference[s][q] for q in of_person[name])
                all_seeds = sum(difference[t][q] for q in of_person[name] for t in range(num_seeds)) / num_seeds
                chance += (mine - all_seeds - off[s] * len(of_person[name])) ** 2
        chance *= 1 / (num_seeds - 1) / queries**2 * len(names) / (len(names) - 1)
        t, z = {2: 12.7062047, 3: 4.3026527, 5: 2.7764451}[num_seeds], 1.959963985
        off = [
            value
            * math.sqrt(max(0, 1 - (1 - 1 / num_seeds) * chance / total))
            * t
            / z
            * math.sqrt(num_seeds / (num_seeds - 1))
            for value in off
        ]
    persons, seeds = resampled(len(names), draws, seed), resampled(num_seeds, draws, seed + 1)
    found = []
    for b in range(draws):
        chosen = [q for name, count in zip(names, persons[b]) for _ in range(int(count)) for q in of_person[name]]
        value = sum(difference[s][q] for s in range(num_seeds) for q in chosen) / num_seeds / len(chosen)
        found.append(value + sum(count * value for count, value in zip(seeds[b], off)) / num_seeds)
    return mean, *np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_bootstrap_is_that_of_the_loops(num_seeds):
    rng = np.random.default_rng(num_seeds)
    people = rng.integers(0, 12, 40).tolist()
    effect = rng.normal(0, 0.5, (num_seeds, 1))  # large enough that it is not all put down to chance
    first, second = rng.random((num_seeds, 40)) + effect, rng.random((num_seeds, 40))
    one, two = scores_by_person(first, people), scores_by_person(second, people)
    got = paired_bootstrap(one.sums - two.sums, one.sizes, draws=200, seed=7)
    np.testing.assert_allclose(got, by_loops(first.tolist(), second.tolist(), people, 200, 7), rtol=1e-6)
    assert num_seeds == 1 or np.abs(seed_deviations(one.sums - two.sums, one.sizes)).max() > 0


def test_resampled_counts():
    counts = resampled(30, 500, 0)
    assert (counts.sum(1) == 30).all() and counts.min() >= 0 and abs(counts.mean() - 1) < 1e-12
    with pytest.raises(ValueError):
        counts[0, 0] = 1  # shared by all claims, so nobody may write into it


samples = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).random((2, 3, 24)))


@settings(max_examples=30, deadline=None)
@given(samples, st.floats(-5, 5), st.floats(0.01, 100))
def test_interval_moves_and_stretches_with_the_difference(pair, shift, scale):
    one, two = (scores_by_person(sample, np.arange(24) // 3) for sample in pair)
    mean, low, high = paired_bootstrap(one.sums - two.sums, one.sizes, draws=300)
    assert low <= high
    moved = paired_bootstrap(scale * (one.sums - two.sums) + shift * one.sizes, one.sizes, draws=300)
    np.testing.assert_allclose(moved, [scale * value + shift for value in (mean, low, high)], atol=1e-9 * (1 + scale))


@settings(max_examples=30, deadline=None)
@given(samples, st.sampled_from(["<", ">"]))
def test_turning_a_relation_round_keeps_its_verdict(pair, sign):
    cells = {("a", ""): scores_by_person(pair[0], scale=100), ("b", ""): scores_by_person(pair[1], scale=100)}
    one = check_relation(parse_relation(f"[a] {sign} [b]"), cells)
    other = check_relation(parse_relation(f"[b] {'<>'['><'.index(sign)]} [a]"), cells)
    assert one["verdict"] == other["verdict"] and math.isclose(one["low"], -other["high"], abs_tol=1e-9)


@pytest.mark.parametrize("num_seeds, between", [(1, 0.0), (2, 0.0), (2, 0.1), (3, 0.0), (3, 0.1), (5, 0.02)])
def test_a_difference_that_is_none_is_seldom_found(num_seeds, between):
    # Each repeat draws its own world; numpy's seed 2026 was taken before any rate was seen. Of 300 repeats 5 % +- 2.5 %
    # are expected to be
    # false alarms; a long run gave up to 8.5 % with two or three seeds, and 12 % leaves two to three standard
    # deviations above that.
    rng, alarms = np.random.default_rng(2026), 0
    people = np.arange(120) // 3
    for _ in range(300):
        skill, seeds = rng.normal(0, 0.15, 40)[people], rng.normal(0, between, (num_seeds, 1))
        sums = skill + seeds + rng.normal(0, 0.4, (num_seeds, 120))
        cells = {
            ("a", ""): scores_by_person(sums, people),
            ("b", ""): scores_by_person(np.zeros((num_seeds, 120)), people),
        }
        alarms += check_relation(parse_relation("[a] > [b]"), cells)["verdict"] != "undecided"
    assert 0 < alarms <= 36


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(3)
    skill = rng.normal(0, 0.2, 300)
    cells = {
        (row, ""): scores_by_person(rate + skill + rng.normal(0, 0.1, (3, 300)), scale=100)
        for row, rate in (("a", 0.7), ("b", 0.6))
    }
    assert check_relation(parse_relation("[a] > [b]"), cells)["verdict"] == "holds"
    assert check_relation(parse_relation("[a] < [b]"), cells)["verdict"] == "fails"
    assert check_relation(parse_relation("[a] ~ [b]"), cells, margin=30)["verdict"] == "holds"
    assert check_relation(parse_relation("[a] ~ [b]"), cells, margin=2)["verdict"] == "fails"
    assert (
        check_relation(parse_relation("[a] - 10 ~ [b]"), cells, margin=5)["verdict"] == "holds"
    )  # constants are in percent as well
    assert check_relation(parse_relation("[a] > 2 * [b]"), cells)["verdict"] == "fails"


def test_people_make_intervals_wider_than_queries_on_their_own():
    rng = np.random.default_rng(4)
    people = np.arange(200) // 10
    row = rng.normal(0, 1, 20)[people] + rng.normal(0, 0.1, 200)
    width = lambda scores: np.diff(paired_bootstrap(scores.sums, scores.sizes)[1:]).item()
    assert width(scores_by_person([row], people)) > 2 * width(scores_by_person([row]))


@pytest.mark.parametrize(
    "sign, low, high, verdict",
    [
        (">", 0.1, 2, "holds"),
        (">", -2, -0.1, "fails"),
        (">", -1, 1, "undecided"),
        (">", 0.0, 1, "undecided"),
        (">", 0.0, 0.0, "fails"),
        ("<", -2, -0.1, "holds"),
        ("<", 0.1, 2, "fails"),
        ("<", -1, 1, "undecided"),
        ("<", 0.0, 0.0, "fails"),
        ("~", -1, 1, "holds"),
        ("~", -4, 1, "undecided"),
        ("~", 3.5, 5, "fails"),
        ("~", -5, -3.5, "fails"),
        ("~", -5, 5, "undecided"),
    ],
)
def test_verdicts_follow_from_intervals(sign, low, high, verdict):
    assert relation_verdict(sign, low, high, 3) == verdict


# cells


def test_sums_of_persons():
    scores = scores_by_person([[1, 0, 1, 1], [0, 0, 1, 0]], ["b", "a", "b", "c"], scale=100)
    assert scores.people == ("a", "b", "c") and scores.sizes.tolist() == [1, 2, 1] and scores.seeds == (0, 1)
    assert scores.sums.tolist() == [[0, 200, 100], [0, 100, 0]] and scores.means.tolist() == [75, 25]


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


def test_cells_that_cannot_be_paired():
    relation = parse_relation("[a] > [b]")
    one, other = scores_by_person([[1, 0, 1]], [1, 2, 3]), scores_by_person([[1, 0, 1]], [1, 2, 2])
    with pytest.raises(ValueError, match="different queries"):
        check_relation(relation, {("a", ""): one, ("b", ""): other})
    with pytest.raises(ValueError, match="no seed in common"):
        check_relation(relation, {("a", ""): one, ("b", ""): scores_by_person([[1, 0, 1]], [1, 2, 3], seeds=[5])})
    with pytest.raises(ValueError, match="mixes structural cells with measured ones"):
        check_relation(relation, {("a", ""): one, ("b", ""): 3.0})


def test_only_common_seeds_are_paired():
    one = scores_by_person([[1, 1], [0, 0], [1, 0]], seeds=[0, 1, 2])
    two = scores_by_person([[0, 0], [0, 1]], seeds=[2, 0])
    found = check_relation(parse_relation("[a] > [b]"), {("a", ""): one, ("b", ""): two})
    assert found["seeds"] == 2 and found["difference"] == 0.75 - 0.25 and found["queries"] == 2


def test_one_seed_draws_persons_only():
    found = check_relation(parse_relation("[a] > 0.25"), {("a", ""): scores_by_person([[1.0, 1.0, 1.0]])})
    assert found == {
        "difference": 0.75,
        "low": 0.75,
        "high": 0.75,
        "seeds": 1,
        "people": 3,
        "queries": 3,
        "verdict": "holds",
    }


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("[a] > [b]", "holds"),
        ("[a] < [b]", "fails"),
        ("[b] > [a]", "fails"),
        ("[b] < [a]", "holds"),
        ("[a] ~ [b]", "fails"),
        ("[a] ~ [b] + 10", "holds"),
        ("[a] - 10 > [b]", "fails"),
        ("[a] > [b] + 8", "holds"),
        ("2 * [b] > [a]", "holds"),
        ("[a] > 2 * [b]", "fails"),
    ],
)
@pytest.mark.parametrize("measured", [True, False])
def test_each_relation_on_cells_whose_verdict_is_known(text, verdict, measured):
    rng = np.random.default_rng(5)
    values = {"a": 70.0, "b": 60.0}
    cells = {(row, ""): value for row, value in values.items()}
    if measured:  # persons that scatter, alike in both
        skill = rng.normal(0, 0.1, 200)
        skill -= skill.mean()
        cells = {(row, ""): scores_by_person([value / 100 + skill] * 3, scale=100) for row, value in values.items()}
    assert check_relation(parse_relation(text), cells, margin=1)["verdict"] == verdict


# claims


def claim(*relations, **fields):
    return Claim("toy", "n", "t", "s", tuple(map(parse_relation, relations)), **{"metrics": ("R1",), **fields})


def cells_of(**values):
    "Cells on data set X in R1, all queries alike, so that intervals are points."
    return {(row, "", "X", "R1"): scores_by_person([np.full(4, value)]) for row, value in values.items()}


def test_a_claim_needs_all_its_relations():
    cells = cells_of(a=3, b=2, c=1)
    assert check_claim(claim("[a] > [b]", "[b] > [c]"), cells)["verdict"] == "holds"
    assert check_claim(claim("[a] > [b]", "[c] > [b]"), cells)["verdict"] == "fails"
    assert check_claim(claim("[a] > [b]", "[a] > [d]"), cells)["verdict"] == "not run"
    assert check_claim(claim("[d] > [e]"), cells)["verdict"] == "not run"
    assert check_claim(claim("[a] > [b]", metrics=("R1", "mAP")), cells)["verdict"] == "not run"
    assert check_claim(claim("[a] > [b]"), {})["relations"] == [
        {"relation": "[a] > [b]", "metric": "R1", "dataset": "", "verdict": "not run"}
    ]


def test_a_claim_is_tested_on_every_data_set_that_has_its_cells():
    cells = cells_of(a=3, b=2) | {
        ("a", "", "Y", "R1"): scores_by_person([np.zeros(4)]),
        ("b", "", "Y", "R1"): scores_by_person([np.ones(4)]),
    }
    cells[("a", "", "Z", "R1")] = scores_by_person([np.ones(4)])
    result = check_claim(claim("[a] > [b]"), cells)
    assert [(entry["dataset"], entry["verdict"]) for entry in result["relations"]] == [
        ("X", "holds"),
        ("Y", "fails"),
    ] and result["verdict"] == "fails"
    assert check_claim(claim("[a] > [b]", datasets=("X",)), cells)["verdict"] == "holds"
    assert check_claim(claim("[a] > [b]", datasets=("X", "Z")), cells)["verdict"] == "not run"


def test_structural_cells_need_no_data_set_even_where_a_claim_names_some():
    cells = {("a", "", "", "FLOPs"): 2.0, ("b", "", "", "FLOPs"): 3.0}
    found = check_claim(claim("[a] < [b]", metrics=("FLOPs",), datasets=("X",)), cells)
    assert found["verdict"] == "holds" and "low" not in found["relations"][0]


@pytest.mark.parametrize(
    "verdicts, joint",
    [
        (["holds", "holds"], "holds"),
        (["holds", "undecided"], "undecided"),
        (["undecided", "fails", "not run"], "fails"),
        (["holds", "not run"], "not run"),
        (["undecided", "not run"], "undecided"),
        (["not run"], "not run"),
        ([], "not run"),
    ],
)
def test_joint_verdict(verdicts, joint):
    assert joint_verdict(verdicts) == joint


PINNED = Path(__file__).with_name("claims.json")
PIN = """
import json
from test_study_claims import PINNED, pinned_claims
PINNED.write_text(json.dumps(pinned_claims(), indent=1, ensure_ascii=False) + "\\n", encoding="utf-8")
"""  # run in tests/ after a claim was changed on purpose, and read the difference


def pinned_claims():
    "{study: {claim: verdict on the printed values, and a mark of what it says}} of all claims."
    found = {}
    for claim in load_claims():
        says = [
            [relation.text for relation in claim.relations],
            claim.metrics,
            claim.datasets,
            claim.margin,
            claim.most,
        ]
        mark = hashlib.sha256(json.dumps(says).encode()).hexdigest()[:8]
        found.setdefault(claim.study, {})[claim.name] = f"{in_paper(claim)['verdict']} {mark}"
    return found


def test_every_claim_says_what_it_said_and_stands_in_the_paper_as_it_stood():
    pinned, found = json.loads(PINNED.read_text(encoding="utf-8")), pinned_claims()
    assert found == pinned, "a claim or a printed value has changed: where that is right, pin them anew as PIN says"


def test_a_relation_turned_round_shows_in_its_mark_and_in_the_paper():
    told = []
    for claim in load_claims():
        for at, relation in enumerate(claim.relations):
            if relation.sign != "~" and not claim.most:
                turned = replace(relation, sign="<" if relation.sign == ">" else ">")
                other = replace(claim, relations=(*claim.relations[:at], turned, *claim.relations[at + 1 :]))
                told += [in_paper(other)["verdict"]] if in_paper(claim)["verdict"] == "holds" else []
    assert set(told) == {"fails"} and len(told) > 30


def test_a_mark_is_of_all_that_a_studys_claims_say(tmp_path, monkeypatch):
    monkeypatch.setattr("scalable_arch.study.claims.claims_dir", lambda: tmp_path)
    path, marks = tmp_path / "a.toml", []
    for text in (CLAIM, CLAIM.replace(">", "<"), CLAIM.replace("each helps", "each"), CLAIM + "margin = 1", CLAIM):
        path.write_text(text, encoding="utf-8")
        marks.append(claims_mark("wei_li_thesis_t3_04"))
    assert len(set(marks[:4])) == 4 and marks[4] == marks[0]
    empty = claims_mark("wei_li_thesis_t3_05")
    path.write_text("", encoding="utf-8")
    assert claims_mark("wei_li_thesis_t3_05") == empty != marks[0]


def test_printed_values_under_the_papers_own_sentences():
    found = {(claim.study, claim.name): in_paper(claim)["verdict"] for claim in load_claims()}
    assert found["wei_li_thesis_t3_08", "erasing helps"] == "fails"  # HAN(Large): rank-1 falls from 91.6 to 91.1
    assert found["wei_li_thesis_t3_12", "two are worst"] == "fails"  # CondenseNet is above MobileNet on DukeMTMC
    assert found["wei_li_thesis_f3_06", "above ResNet50"] == "not printed"


def test_equal_printed_values_are_equal_in_binary_too():
    relation = parse_relation("[a] - [b] ~ [c]")
    found = check_relation(relation, {("a", ""): 85.9, ("b", ""): 73.2, ("c", ""): 12.7}, margin=1e-12)
    assert found == {"difference": 0.0, "verdict": "holds"}


def test_scores_are_what_check_relation_takes_for_measured():
    assert isinstance(scores_by_person([[1.0]]), Scores)


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        ("hhhhhf", "holds"),
        ("hhff", "undecided"),
        ("hff", "fails"),
        ("huu", "undecided"),
        ("hhnnn", "holds"),
        ("nn", "not run"),
        ("hhu", "holds"),
    ],
)
def test_most_cases_decide_where_the_text_says_most(verdicts, expected):
    words = {"h": "holds", "f": "fails", "u": "undecided", "n": "not run"}
    assert joint_verdict([words[letter] for letter in verdicts], most=True) == expected


def test_the_student_gains_more_in_most_printed_cases():
    claim = next(claim for claim in load_claims("wei_li_thesis_t4_02") if claim.most)
    verdicts = [entry["verdict"] for entry in in_paper(claim)["relations"]]
    assert verdicts.count("holds") == 5 and verdicts.count("fails") == 1 and in_paper(claim)["verdict"] == "holds"
