"Power: what undecided claims need, and the experiment drawn again from the variances found."

import numpy as np
import pytest

from scalable_arch.cli import main
from scalable_arch.study.claims import load_claims
from scalable_arch.study.ledger import test_again as ledger_again  # a name that pytest takes for no test
from scalable_arch.study.power import (
    chapter_cells,
    claims_to_draw,
    drawn_again,
    drawn_frame,
    drawn_sentence,
    needs_frame,
    set_moments,
    variance_root,
)
from scalable_arch.study.record import write_trials
from scalable_arch.study.reports import Report
from scalable_arch.study.rule import Contrast, estimate
from scalable_arch.study.tables import Cells, Study

TABLE = "wei_li_thesis_t3_04"
RATES = {"No Attention": 0.60, "SSA": 0.63, "SCA": 0.66, "HRA": 0.70, "SSA+SCA": 0.68, "SSA+HRA": 0.72, "SCA+HRA": 0.72}


def table_of(relations=2, seeds=40, people=300, *, sd_seeds=3.0, sd_people=10.0, sd_rest=20.0, shared=0.8):
    "Contrasts of relations that share a part of all that scatters."
    rng = np.random.default_rng(0)
    mix = lambda *shape: (
        np.sqrt(shared) * rng.normal(size=shape) + np.sqrt(1 - shared) * rng.normal(size=(relations, *shape))
    )
    values = sd_seeds * mix(seeds, 1) + sd_people * mix(1, people) + sd_rest * mix(seeds, people)
    return [Contrast(tuple(range(seeds)), ((1.0, values[at]),)) for at in range(relations)]


def test_a_root_is_a_root_and_forgets_negative_variances():
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    root = variance_root(matrix)
    np.testing.assert_allclose(root @ root.T, matrix)
    assert variance_root(-np.eye(2)).tolist() == np.zeros((2, 2)).tolist()


def test_moments_are_those_of_the_parts():
    values = np.stack([contrast.sets[0][1] for contrast in table_of()])
    persons, rest = set_moments(values)
    np.testing.assert_allclose(rest, 400 * np.array([[1, 0.8], [0.8, 1]]), rtol=0.1)
    np.testing.assert_allclose(persons, 100 * np.array([[1, 0.8], [0.8, 1]]), rtol=0.25)
    assert set_moments(values[:, :, :1])[1].tolist() == [[0, 0], [0, 0]]  # one number a seed


def test_what_is_drawn_scatters_as_what_was_found():
    found, rng = table_of(), np.random.default_rng(1)
    drawn = [drawn_again(found, (5.0, -2.0), rng, 16) for _ in range(150)]
    means = np.array([[estimate(contrast).mean for contrast in pair] for pair in drawn])
    np.testing.assert_allclose(means.mean(0), [5, -2], atol=0.4)
    known = estimate(found[0])
    sd = np.sqrt(np.mean([estimate(pair[0]).seeds_ms for pair in drawn]))
    assert sd == pytest.approx(known.seeds_ms**0.5, rel=0.15)
    assert np.corrcoef(means.T)[0, 1] > 0.6 and drawn[0][0].seeds == tuple(range(16))
    people = np.mean([estimate(pair[0]).people_part for pair in drawn])
    assert people == pytest.approx(known.people_part, rel=0.25)


def toy(seeds=4, sd=0.01, people=100):
    "W Table 3.4 on a stand-in."
    rng, cells = np.random.default_rng(0), Cells(TABLE, data={"Market-1501": "plaza"})
    skill = rng.normal(0, 0.1, people)
    for row, rate in (RATES | {"HAN(All)": 0.76}).items():
        for metric in ("R1", "mAP"):
            rows = [rate + skill + rng.normal(0, sd) + rng.normal(0, 0.1, people) for _ in range(seeds)]
            cells.measured(rows, row=row, dataset="Market-1501", metric=metric)
    return cells


def test_what_is_needed_comes_cheapest_first():
    frame = needs_frame([toy(3)])
    waits = frame["waits for"].str.extract(r"about (\d+) seed")[0].dropna().astype(int).tolist()
    assert waits == sorted(waits) and len(frame) >= 3
    assert set(frame.seeds) == {"3"} and set(frame.interval) == {"–"} and frame["sd of seeds"].str.len().min() > 0
    assert needs_frame([]).empty
    one = needs_frame([toy(1)])
    assert set(one["waits for"]) == {"undecided (at least 3 seeds more)"} and set(one.supported) == {"–"}


def test_true_differences_are_found_and_none_seldom():
    drawn = drawn_frame([toy(4)], repeats=40)
    named = [claim for claim in load_claims(TABLE) if not claim.control and not claim.untestable]
    assert len(drawn) == len(named) == len(claims_to_draw([toy(4)]))
    assert drawn.wrong.mean() <= 0.08 and drawn.supported.max() > 0.8
    assert "claims with printed differences above D are supported. If nothing differs" in drawn_sentence(drawn)
    noisy = drawn_frame([toy(4, sd=0.2)], repeats=40)
    assert noisy.supported.max() < drawn.supported.max()
    assert drawn_frame([toy(1)]).empty and drawn_sentence(drawn_frame([])) == "No claim has two seeds to draw from."


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCALABLE_ARCH_REPORTS", str(tmp_path))
    monkeypatch.setattr("scalable_arch.study.reports.commit", lambda: "abc1234")
    rng = np.random.default_rng(0)
    report, trials = Report("ch0_toy", "desk"), []
    study = Study(TABLE, report, data={"Market-1501": "plaza"})
    for row, rate in RATES.items():
        records = [
            {
                "trial": f"{row} {seed}",
                "config": {"kind": "reid", "seed": seed},
                "versions": {},
                "metrics": {},
                "queries": {
                    "test": {"joint": {name: (rng.random(80) < rate).astype(int).tolist() for name in ("R1", "mAP")}}
                },
            }
            for seed in range(3)
        ]
        study.searched(records, row=row, dataset="Market-1501")
        trials += records
    study.show()
    write_trials(report.folder, trials)
    assert not ledger_again(tmp_path)
    assert [cells.name for cells in chapter_cells(tmp_path / "ch0_toy")] == [TABLE]
    assert main(["power", "ch0_toy", "--simulate", "--repeats", "5"]) == 0
    out = capsys.readouterr().out
    assert "W Table 3.4" in out and "waits for" in out and "If nothing differs" in out
    assert main(["power", "ch0_toys"]) == 2
    assert "unknown chapter on record 'ch0_toys' (did you mean 'ch0_toy'?)" in capsys.readouterr().err
    assert main(["power", "ch0_toy", "--reports", str(tmp_path / "no")]) == 2
    assert f"{tmp_path / 'no'} holds no report" in capsys.readouterr().err
