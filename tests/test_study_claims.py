"Claims: relations are read right, files say when they were written, and nothing is tested that is not printed."

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalable_arch.study.claims import claims_mark, load_claims, mean_relation, parse_relation
from scalable_arch.study.rule import in_print, paper_verdict

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


def test_a_relation_is_turned_so_that_it_says_above_zero():
    values = {("a", ""): 3.0, ("b", ""): 5.0}
    for text, value in (("[a] < [b] + 1", 3.0), ("[b] > [a]", 2.0), ("[a] ~ [b]", -2.0), ("2 * [b] < [a]", -7.0)):
        turned = parse_relation(text).towards()
        assert turned.value(values.get) == value and turned.sign == ("~" if "~" in text else ">")
        assert turned.towards() == turned and turned.text == text


def test_the_mean_of_relations_is_the_mean_of_what_they_say():
    relations = [parse_relation(text) for text in ("[a] > [b] + 1", "[a] < [c]", "[b] > 2 * [c] - 4")]
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {(row, ""): rng.normal() for row in "abc"}
        single = [relation.towards().value(values.get) for relation in relations]
        assert math.isclose(mean_relation(relations).value(values.get), sum(single) / 3, abs_tol=1e-12)
    assert mean_relation(relations).sign == ">"
    with pytest.raises(ValueError, match="not with ~"):
        mean_relation([parse_relation("[a] ~ [b]")])
    with pytest.raises(ValueError, match="cancel each other out"):
        mean_relation([parse_relation("[a] > [b]"), parse_relation("[a] < [b]")])


# the manifests

HEAD = """
written = "before any run"
known = "nothing"
"""
CLAIM = """
[[claim]]
study = "wei_li_thesis_t3_04"
name = "each"
text = "each helps"
source = "W L642"
relations = ["[SSA] > [No Attention]"]
"""


def test_all_claims_of_the_book_can_be_tested():
    claims = load_claims()
    assert len(claims) >= 33 and all(claim.source and claim.cells for claim in claims)
    assert all(claim.written and claim.known for claim in claims)
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
        ("[SSA]", "[SSA of half]", "unknown cell"),
        ('name = "each"', 'name = "each"\nmetrics = ["map"]', r"unknown metric 'map'"),
        (
            'name = "each"',
            'name = "each"\ndatasets = ["Market1501"]',
            r"unknown data set 'Market1501' \(did you mean 'Market-1501'\?\)",
        ),
        ('name = "each"', 'name = "each"\nmetric = "R1"', r"unknown field 'metric' \(did you mean 'metrics'\?\)"),
        ('name = "each"', 'name = "each"\nmetrics = "R1"', "metrics must be a list of texts, not 'R1'"),
        ('name = "each"', 'name = "each"\nmargin = 3.0', "unknown field 'margin'"),
        ("relations", "holds", "unknown field 'holds'"),
        ('name = "each"', 'name = "each"\naverage = 1', "average must be true or false, not 1"),
        ('name = "each"', 'name = "each"\nuntestable = true', "untestable must be a text, not True"),
        ('source = "W L642"', "", "it has no source"),
        ("[[claim]]", CLAIM + "[[claim]]", "has a claim of this name already"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_named(tmp_path, old, new, sentence):
    (tmp_path / "a.toml").write_text(HEAD + CLAIM.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=sentence) as caught:
        load_claims(folder=tmp_path)
    assert str(caught.value).startswith("a.toml, claim 'each': ") and "\n" not in str(caught.value)


def test_what_a_claim_may_say(tmp_path):
    more = 'average = true\nfixed = true\nuntestable = "of another world"\ndatasets = ["Market-1501"]\n'
    control = CLAIM.replace("each", "half").replace("[SSA]", "[half the people]") + "control = true\n"
    (tmp_path / "a.toml").write_text(HEAD + CLAIM + more + control, encoding="utf-8")
    ours = CLAIM.replace("each", "random").replace("[SSA]", "[random cell]") + 'ours = ["random cell"]\n'
    (tmp_path / "b.toml").write_text(HEAD + ours, encoding="utf-8")
    one, half, drawn = load_claims(folder=tmp_path)
    assert drawn.ours == ("random cell",) and half.ours == ()
    assert (one.average, one.fixed, one.untestable, one.control) == (True, True, "of another world", False)
    assert one.datasets == ("Market-1501",) and (one.written, one.known) == ("before any run", "nothing")
    assert [relation.sign for relation in one.estimands] == [">"] and half.control  # its row is not printed


@pytest.mark.parametrize(
    "head, sentence",
    [
        ("", 'a.toml must say in its head .* written = "..."'),
        ('written = "x"', 'must say in its head .* known = "..."'),
        ('written = "x"\nknown = " "', 'known = "..."'),
        ("written = 3\n", 'written = "..."'),
        (HEAD + 'when = "x"', r"unknown field in the head of a.toml, 'when'"),
    ],
)
def test_a_file_says_when_it_was_written_and_what_was_known(tmp_path, head, sentence):
    (tmp_path / "a.toml").write_text(head + CLAIM, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        load_claims(folder=tmp_path)


def test_a_damaged_file_of_claims_is_named(tmp_path):
    (tmp_path / "b.toml").write_text("[[claim]\n")
    with pytest.raises(ValueError, match="b.toml is no TOML file"):
        load_claims(folder=tmp_path)


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
            [claim.average, claim.fixed, claim.untestable, claim.control],
        ]
        mark = hashlib.sha256(json.dumps(says).encode()).hexdigest()[:8]
        found.setdefault(claim.study, {})[claim.name] = f"{paper_verdict(in_print(claim))} {mark}"
    return found


def test_every_claim_says_what_it_said_and_stands_in_the_paper_as_it_stood():
    pinned, found = json.loads(PINNED.read_text(encoding="utf-8")), pinned_claims()
    assert found == pinned, "a claim or a printed value has changed: where that is right, pin them anew as PIN says"


def test_a_relation_turned_round_shows_in_its_mark_and_in_the_paper():
    told = []
    for claim in load_claims():
        for at, relation in enumerate(claim.relations):
            if relation.sign != "~" and not claim.average:
                turned = replace(relation, sign="<" if relation.sign == ">" else ">")
                other = replace(claim, relations=(*claim.relations[:at], turned, *claim.relations[at + 1 :]))
                was = paper_verdict(in_print(claim))
                told += [paper_verdict(in_print(other))] if was == "supported" else []
    assert set(told) == {"contradicted"} and len(told) > 30


def test_a_mark_is_of_all_that_a_studys_claims_say(tmp_path, monkeypatch):
    monkeypatch.setattr("scalable_arch.study.claims.claims_dir", lambda: tmp_path)
    path, marks = tmp_path / "a.toml", []
    for text in (CLAIM, CLAIM.replace(">", "<"), CLAIM.replace("each helps", "each"), CLAIM + "fixed = true", CLAIM):
        path.write_text(HEAD + text, encoding="utf-8")
        marks.append(claims_mark("wei_li_thesis_t3_04"))
    assert len(set(marks[:4])) == 4 and marks[4] == marks[0]
    empty = claims_mark("wei_li_thesis_t3_05")
    path.write_text(HEAD, encoding="utf-8")
    assert claims_mark("wei_li_thesis_t3_05") == empty != marks[0]
