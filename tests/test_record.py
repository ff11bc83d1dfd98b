"The record of a chapter: what goes in comes out, the same bytes for the same results, and no damaged bit passes."

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.study.record import (
    array_of,
    leaves,
    packed,
    planted,
    read_jsonl,
    read_trials,
    trial_checksum,
    unpacked,
    write_jsonl,
    write_trials,
)
from scalable_arch.study.trials import trial_name
from scalable_arch.versions import VERSIONS

ROOT = Path(__file__).parents[1]
CHAPTERS = {"ch3_han": 196, "ch4_hdl": 43, "ch5_nge": 174, "ch6_nos": 144}

# ---- any record ----

names = st.text(max_size=4) | st.sampled_from(["a/b", "", "%", "%2F", "test", "R1", "../x", "a\\b", "\0"])
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaf = st.none() | st.booleans() | numbers | st.text()
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
small = st.integers(-300, 70_000)
scores = st.lists(small) | st.lists(st.floats(allow_nan=False, allow_infinity=False)) | st.lists(st.text(max_size=3))
nested = lambda leaves: st.dictionaries(names, st.dictionaries(names, leaves, max_size=2) | leaves, max_size=2)
records = st.fixed_dictionaries(
    {"config": st.dictionaries(names, anything, max_size=3), "metrics": nested(numbers)},
    optional={
        "queries": nested(scores | anything),
        "people": nested(st.lists(st.integers(-1, 2000)) | st.lists(st.integers())),
        "curves": st.lists(st.dictionaries(names, numbers | nested(numbers) | anything, max_size=3), max_size=3),
        "genotype": anything,
    },
)
named = records.map(lambda record: {"trial": trial_name(record["config"])} | record)


@given(named)
def test_any_record_comes_back_from_its_line_and_arrays(record):
    line, arrays = packed(record)
    line = json.loads(json.dumps(line, allow_nan=False))
    assert unpacked(line, arrays) == record
    assert trial_checksum(line, arrays) == trial_checksum(*packed(unpacked(line, arrays)))


@settings(max_examples=30, deadline=None)  # a busy disk is no fault
@given(st.lists(named, max_size=4, unique_by=lambda record: record["trial"]), st.randoms(use_true_random=False))
def test_the_same_results_are_the_same_bytes_in_any_order(tmp_path_factory, found, random):
    folder, other = (tmp_path_factory.mktemp("record") for _ in range(2))
    write_trials(folder, found)
    assert read_trials(folder) == {record["trial"]: record for record in found}
    again = list(read_trials(folder).values())
    random.shuffle(again)
    write_trials(other, again)
    content = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
    assert content(folder) == content(other)


@given(nested(leaf))
def test_paths_and_leaves(tree):
    assert planted(leaves(tree)) == tree


@pytest.mark.parametrize(
    "values, kind",
    [
        ([0, 1, 1], "uint8"),
        ([-1, 200], "int16"),
        ([0, 70_000], "uint32"),
        ([0.25, 1], "float32"),
        ([1 / 3], "float64"),
        (["one", "two"], "<U3"),
        ([[1, 2], [3, 4]], "uint8"),
        ([True, False], "bool"),
        ([-1, 2**63 + 1], None),  # numpy makes floats of these
        ([2**80], None),
        ([[1], [1, 2]], None),
        (["x", 1], None),
        (["x\0"], None),
        ([None], None),
        ([], None),
        (3, None),
    ],
)
def test_what_becomes_an_array(values, kind):
    array = array_of(values)
    assert (array is None) == (kind is None) and (array is None or array.dtype == kind)


# ---- files ----


def record(seed=0, model="han", scores=(1, 0, 1), people=(7, 7, 9)):
    config = {"kind": "toy", "model": model, "seed": seed}
    return {
        "trial": trial_name(config),
        "config": config,
        "metrics": {"test": {"joint": {"R1": float(np.mean(scores))}}},
        "versions": {"model.han": 1},
        "queries": {"test": {"joint": {"R1": list(scores), "mAP": [0.7011, 0.25, 1.0]}}},
        "people": {"test": {"joint": list(people)}},
        "curves": [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25}],
    }


def test_lines_stand_by_configuration_with_the_seeds_of_one_together(tmp_path):
    written = [record(seed, model) for seed in (10, 2, 0) for model in ("resnet", "han")]
    write_trials(tmp_path, written)
    lines = read_jsonl(tmp_path / "trials.jsonl")
    assert [(line["config"]["model"], line["config"]["seed"]) for line in lines] == [
        (model, seed) for model in ("han", "resnet") for seed in (0, 10, 2)
    ]


def test_others_tools_read_both_files(tmp_path):
    write_trials(tmp_path, [record(seed) for seed in range(3)])
    frame = pd.read_json(tmp_path / "trials.jsonl", lines=True)
    assert frame.config.str["seed"].tolist() == [0, 1, 2] and frame.versions.str["model.han"].tolist() == [1, 1, 1]
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as arrays:
        scores = arrays[f"{frame.trial[0]}/queries/test/joint/R1"]
        pids = arrays[frame.people[0]["test"]["joint"]]
        assert scores.tolist() == [1, 0, 1] and pids.tolist() == [7, 7, 9] and pids.dtype == np.int64
        assert sum(name.startswith("people/") for name in arrays.files) == 1  # kept once for all three
        assert arrays[f"{frame.trial[0]}/curves"]["loss"].tolist() == [2.5, 1.25]


def test_people_of_other_shape_are_not_taken_for_each_other():
    one, other = packed(record(people=([7, 7], [9, 9]))), packed(record(people=(7, 7, 9, 9)))
    assert unpacked(*one)["people"] == {"test": {"joint": [[7, 7], [9, 9]]}}
    assert unpacked(*other)["people"] == {"test": {"joint": [7, 7, 9, 9]}}


def test_files_that_are_right_already_are_left_alone(tmp_path):
    write_trials(tmp_path, [record()])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_trials(tmp_path, read_trials(tmp_path).values())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    write_trials(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["trials.jsonl"] and read_trials(tmp_path) == {}


def test_lines_of_other_ends_and_letters_are_written_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    for content in (b'{"a": "\xff"}\n', b'{"a": 1}\r\n'):
        path.write_bytes(content)
        write_jsonl(path, [{"a": 1}])
        assert path.read_bytes() == b'{"a": 1}\n'


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["trials.jsonl", "scores.npz"]), st.integers(0, 10**6), st.integers(0, 7))
def test_no_flipped_bit_passes(tmp_path_factory, name, place, bit):
    folder = tmp_path_factory.mktemp("record")
    good = {one["trial"]: one for one in (record(), record(1, scores=(0, 0, 1)))}
    write_trials(folder, good.values())
    content = bytearray((folder / name).read_bytes())
    content[place % len(content)] ^= 1 << bit
    (folder / name).write_bytes(content)
    try:
        found = read_trials(folder)
    except ValueError as error:
        assert str(folder / name) in str(error) or str(folder / "trials.jsonl") in str(error)
        found = read_trials(folder, skip_damaged=True)
        assert found.items() <= good.items()
    else:  # times and the like in the zip, which decide nothing
        assert name == "scores.npz" and found == good


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    write_trials(tmp_path, [record()])

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) if path.suffix == ".npz" else read(path))
    with pytest.raises(PermissionError):
        read_trials(tmp_path, skip_damaged=True)


# ---- what is committed ----


@pytest.fixture(scope="module")
def committed():
    return {chapter: read_trials(ROOT / "reports" / chapter) for chapter in CHAPTERS}


def test_all_committed_trials_read_back_whole(committed, tmp_path):
    for chapter, trials in committed.items():
        assert len(trials) >= CHAPTERS[chapter]
        assert all(trial_name(record["config"]) == name for name, record in trials.items())
        write_trials(tmp_path, trials.values())
        for name in ("trials.jsonl", "scores.npz"):
            assert (tmp_path / name).read_bytes() == (ROOT / "reports" / chapter / name).read_bytes()


def test_every_committed_trial_names_its_processor_and_its_versions(committed):
    for record in (record for trials in committed.values() for record in trials.values()):
        assert record["processor"] == "not noted" or ", " in record["processor"]  # model name, instruction set
        assert record["versions"] and record["versions"].keys() <= VERSIONS.keys()
        assert all(1 <= number <= VERSIONS[name] for name, number in record["versions"].items())
        assert {"metrics", "wall_seconds", "date", "torch"} <= record.keys()


def test_no_new_trial_leaves_its_processor_out(committed):
    "Those of before the migration did not note it: there are no more of them than then."
    processors = Counter(record["processor"] for trials in committed.values() for record in trials.values())
    assert processors["not noted"] <= 557


def test_results_come_from_commits_of_this_history(committed):
    git = lambda *words: subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("a part of the history only")
    made = {record["commit"].rstrip("+") for trials in committed.values() for record in trials.values()}
    for path in (ROOT / "reports").glob("ch*/studies.jsonl"):
        made |= {line["about"]["facts"]["commit"] for line in read_jsonl(path) if "about" in line}
    places = (ROOT / "reports" / "bench").glob("*/provenance.json")
    made |= {json.loads(path.read_text(encoding="utf-8"))["commit"] for path in places}
    gone = {commit for commit in made if git("merge-base", "--is-ancestor", commit, "HEAD").returncode}
    assert not gone, "run them again from a commit that stays"
