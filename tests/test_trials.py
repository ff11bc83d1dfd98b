"Trials under fire: kills, full disks, damaged files, two runners, other versions; and what comes out is the same."

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from toy_trials import KINDS

from scalable_arch.files import cache_dir, folder_lock
from scalable_arch.study import trials
from scalable_arch.study.record import read_trials
from scalable_arch.study.trials import (
    execute,
    family,
    keep,
    kept,
    kept_file,
    merge,
    merging,
    run_folder,
    seconds_left,
    trial_name,
    trials_on_record,
    until,
)
from scalable_arch.versions import VERSIONS, versions_of

COUNT = {"kind": "count", "start": 3, "seed": 0}
TRAIN = {"kind": "train", "width": 6, "epochs": 5, "seed": 0}
TIMES = ("wall_seconds", "cpu_seconds", "peak_memory_mb", "date", "machine", "continued")
timeless = lambda records: [{key: value for key, value in record.items() if key not in TIMES} for record in records]
alone = lambda config, **more: execute(config, KINDS[config["kind"]], **more)


def run_trials(configs, folder, **options):
    return trials.run_trials(configs, folder, KINDS, **options)


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    there = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(there))  # for processes that the tests start
    (tmp_path / "signs").mkdir()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "chapter"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def nothing_runs(monkeypatch):
    monkeypatch.setattr(trials, "run_missing", lambda *_, **__: pytest.fail("was run again"))


# ---- names and records ----

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
configs = st.dictionaries(
    st.text(),
    st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)),
    max_size=4,
)


@drawn(configs, configs)
def test_a_name_is_stable_and_its_own(one, other):
    assert trial_name(one) == trial_name(dict(reversed(one.items()))) == trial_name(json.loads(json.dumps(one)))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (trial_name(one) == trial_name(other)) == same and re.fullmatch("[0-9a-f]{12}", trial_name(one))


def test_a_name_never_changes():
    assert trial_name(COUNT) == "6f582b74d288"  # or every result on disk would be an orphan
    changes = ({}, {"start": 4}, {"start": 3.0}, {"start": None}, {"more": 0})
    assert len({trial_name(COUNT | change) for change in changes}) == 5
    assert family(COUNT) == family(COUNT | {"seed": 7}) != family(COUNT | {"start": 4})
    with pytest.raises(ValueError):
        trial_name({"lr": float("nan")})


def test_finished_trials_are_on_record_in_two_files_and_not_run_again(folder, monkeypatch):
    configs = [COUNT | {"start": n, "scores": True} for n in (5, 3, 5)]
    first = run_trials(configs, folder)
    assert [record["metrics"]["steps"] for record in first] == [6, 4, 6]
    assert {path.name for path in folder.iterdir()} == {"trials.jsonl", "scores.npz"}
    assert not list((cache_dir() / "trials").iterdir()) and not list((cache_dir() / "runs").iterdir())
    nothing_runs(monkeypatch)
    assert run_trials(configs, folder) == first
    assert read_trials(folder) == {record["trial"]: record for record in first}
    [new] = [COUNT | {"start": 4}]
    monkeypatch.undo()
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(folder.parent / "cache"))
    [other] = run_trials([new], folder)
    assert read_trials(folder) == {record["trial"]: record for record in [*first, other]}  # the old ones stay


def test_a_record_says_what_it_rests_on(folder):
    [record] = run_trials([TRAIN], folder)
    assert record["config"] == TRAIN and record["trial"] == trial_name(TRAIN) and not record["continued"]
    assert record["versions"] == versions_of(["loss.cross_entropy", "recipe.retrieval"])
    assert {"date", "commit", "torch", "python", "machine", "scalable_arch", "cpu_seconds", "curves"} <= record.keys()
    assert record["wall_seconds"] > 0 and record["peak_memory_mb"] > 50 and ", " in record["processor"]


# ---- damage ----


def cut(path):
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])


def change(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize(
    "name, spoil",
    [
        ("trials.jsonl", cut),
        ("trials.jsonl", lambda path: path.write_bytes(b"\0" * 100)),
        ("trials.jsonl", lambda path: path.write_bytes(b"\xff\xfe[1, 2]\r\n")),
        ("trials.jsonl", change(b'"steps": 4', b'"steps": 5')),
        ("trials.jsonl", change(b'"start": 3', b'"start": 4')),
        ("scores.npz", cut),
        ("scores.npz", lambda path: path.unlink()),
        ("scores.npz", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_damaged_file_is_named_set_aside_and_its_trials_run_again(folder, name, spoil):
    [good] = run_trials([COUNT | {"scores": True}], folder)
    path = folder / name
    spoil(path)
    spoilt = path.read_bytes() if path.exists() else None
    with pytest.raises(ValueError, match=f"{folder}.* damaged") as stop:
        read_trials(folder)
    assert "\n" not in str(stop.value)
    with pytest.warns(
        UserWarning, match=r"set aside as \*\.damaged-\d+; git has the committed ones, and what is asked"
    ):
        [again] = run_trials([COUNT | {"scores": True}], folder)
    assert timeless([again]) == timeless([good]) and read_trials(folder) == {again["trial"]: again}
    aside = [path.read_bytes() for path in folder.glob(f"{name}.damaged-*")]
    assert aside == ([] if spoilt is None else [spoilt])


def test_only_the_trial_that_is_damaged_is_run_again(folder, tmp_path):
    configs = [COUNT | {"start": start, "scores": True} for start in range(1, 6)]
    good = run_trials(configs, folder)
    change(b'"steps": 4', b'"steps": 5')(folder / "trials.jsonl")
    with pytest.warns(UserWarning, match=f"the trial {trial_name(configs[2])} or its scores are damaged"):
        again = run_trials(configs, folder, given={"count": str(tmp_path / "count")})
    assert (tmp_path / "count").read_text() == "x" and timeless(again) == timeless(good)


def test_a_damaged_array_takes_only_its_own_trial(folder):
    run_trials([COUNT | {"start": start, "scores": True} for start in range(1, 6)], folder)
    path, content = folder / "scores.npz", bytearray((folder / "scores.npz").read_bytes())
    content[40 + content.index(b".npy")] ^= 255  # in the first array's own bytes
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="scores.npz is damaged"):
        assert len(trials_on_record(folder)) == 4


# ---- versions ----


def test_trials_of_other_versions_are_kept_with_a_warning_or_run_again(folder, monkeypatch, tmp_path):
    configs, count = [TRAIN, COUNT], {"count": str(tmp_path / "count")}
    old = run_trials(configs, folder)
    monkeypatch.setitem(VERSIONS, "kind.tabular", 2)
    with pytest.warns(
        UserWarning,
        match=r"1 of 2 trials on record are stale: kind.tabular 2 \(made with 1\) since they were made; they are kept",
    ):
        assert run_trials(configs, folder, given=count) == old and not (tmp_path / "count").exists()
    new = run_trials(configs, folder, given=count, rerun_stale=True)
    assert (tmp_path / "count").read_text() == "x" and new[0] == old[0]  # exactly the stale one
    assert new[1]["versions"] == {"kind.tabular": 2} and new[1]["metrics"] == old[1]["metrics"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_trials(configs, folder, rerun_stale=True) == new


def test_a_finished_trial_of_other_versions_in_the_cache_is_not_taken(folder, monkeypatch, tmp_path):
    keep(alone(COUNT))
    monkeypatch.setitem(VERSIONS, "kind.tabular", 2)
    [record] = run_trials([COUNT], folder, given={"count": str(tmp_path / "count")})
    assert record["versions"] == {"kind.tabular": 2} and (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize("version, continued", [(1, True), (2, False)])
def test_a_checkpoint_is_continued_by_its_own_versions_only(version, continued, monkeypatch):
    with pytest.raises(OSError, match="stopped"):
        alone(TRAIN, given={"stop": 2})
    monkeypatch.setitem(VERSIONS, "loss.cross_entropy", version)
    record = alone(TRAIN)
    assert record["continued"] == continued and record["versions"]["loss.cross_entropy"] == version


@pytest.mark.parametrize(
    "wrong, options, sentence",
    [
        ({}, {}, "unknown kind of trial None; choose one of: train, count"),
        ({"kind": "cuont"}, {}, r"unknown kind of trial 'cuont' \(did you mean 'count'\?\)"),
        (COUNT, {"workers": 0}, "workers must be a whole number of at least 1, not 0"),
        (COUNT, {"workers": 1.5}, "workers must be a whole number of at least 1, not 1.5"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(wrong, options, sentence, folder):
    with pytest.raises(ValueError, match=sentence):
        run_trials([wrong], folder, **options)
    assert not folder.exists()


# ---- errors of one trial, of the disk, of a second runner ----


def test_a_trial_that_fails_does_not_stop_the_others(folder):
    failing = [{"kind": "fail", "seed": 5}, {"kind": "not_json", "seed": 1}]
    with pytest.raises(ValueError, match="does not like seed 5") as stop:
        run_trials([failing[0], COUNT, failing[1], TRAIN], folder)
    assert f"in the trial {trial_name(failing[0])}: {json.dumps(failing[0])}" in stop.value.__notes__
    assert read_trials(folder).keys() == {trial_name(COUNT), trial_name(TRAIN)}


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    fsync = os.fsync

    def full(path):
        def fail_there(handle):
            if Path(os.readlink(f"/proc/self/fd/{handle}")).is_relative_to(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        return fail_there

    for where in (folder, cache_dir()):  # first no room for the record, then none for the checkpoint
        other = TRAIN if where == folder else TRAIN | {"seed": 1}
        monkeypatch.setattr(os, "fsync", full(where))
        with pytest.raises(OSError, match="No space left on device") as stop:
            run_trials([other], folder)
        assert stop.value.errno == errno.ENOSPC and "\n" not in str(stop.value)
        monkeypatch.setattr(os, "fsync", fsync)
        assert not list(folder.iterdir())
    assert kept(trial_name(TRAIN))
    nothing_runs(monkeypatch)
    [record] = run_trials([TRAIN], folder)
    assert timeless([record]) == timeless([alone(TRAIN)])


def test_a_folder_that_cannot_be_written_stops_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    nothing_runs(monkeypatch)
    with pytest.raises(OSError, match="the folder of results .*file/chapter cannot be written .*: name another one"):
        run_trials([COUNT], tmp_path / "file" / "chapter")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match=r"cannot be written \(permission denied\)"):
        run_trials([COUNT], tmp_path / "chapter")


def test_the_engine_is_stopped_when_a_result_cannot_be_kept(folder, monkeypatch):
    ended = []

    def engine(function, configs, **_):
        try:
            for config in configs:
                yield config, function(config)
        finally:
            ended.append(True)

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(trials, "run_side_by_side", engine)
    monkeypatch.setattr(trials, "keep", full)
    with pytest.raises(OSError) as stop:
        run_trials([COUNT, TRAIN], folder)
    assert ended and stop.value.__traceback__  # although the traceback still holds the engine


def test_two_runners_on_one_trial(folder):
    name = trial_name(COUNT)
    with folder_lock(run_folder(name)):
        said = f"the trial {name} is in hand already: another run .process {os.getpid()}."
        with pytest.raises(BlockingIOError, match=said):
            run_trials([COUNT, TRAIN], folder)
        assert run_folder(name).is_dir()
    assert [record["config"] for record in read_trials(folder).values()] == [TRAIN]
    assert len(run_trials([COUNT, TRAIN], folder)) == 2


def test_runners_at_once_on_one_record_all_merge(folder):
    records = [alone(COUNT | {"start": start, "scores": True}) for start in range(12)]
    threads = [threading.Thread(target=merge, args=(folder, [record])) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_trials(folder) == {record["trial"]: record for record in records}


def test_who_reads_while_another_writes_sets_nothing_aside(folder):
    [record] = run_trials([COUNT | {"scores": True}], folder)
    found, path = [], folder / "scores.npz"
    whole = path.read_bytes()
    reader = threading.Thread(target=lambda: found.append(trials_on_record(folder)))
    with merging(folder):
        path.write_bytes(whole[:100])  # as between the two files of a record
        reader.start()
        time.sleep(0.3)
        path.write_bytes(whole)
    reader.join()
    assert found == [{record["trial"]: record}] and not list(folder.glob("*.damaged-*"))


def test_who_merges_is_waited_for_but_not_for_ever(folder):
    with merging(folder), pytest.raises(BlockingIOError, match="another run"), merging(folder, patience=0):
        pass
    with pytest.raises(BlockingIOError, match="of its own"), merging(folder):
        raise BlockingIOError("of its own")


# ---- kills and interrupts of a whole runner ----

# A shell's `&` starts programs with interrupts ignored: where the tests run like that, a runner must not.
PROGRAM = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from toy_trials import KINDS
from scalable_arch.study.trials import run_trials
if __name__ == "__main__":
    run_trials(kinds=KINDS, **json.loads(sys.argv[1]))
"""


def start_runner(tmp_path, **arguments):
    "A runner in a process, and a session, of its own."
    path = tmp_path / "runner.py"
    path.write_text(PROGRAM)
    text = json.dumps(arguments, default=str)
    return subprocess.Popen([sys.executable, path, text], stderr=subprocess.PIPE, text=True, start_new_session=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(signs):
    return {int(path.name.split("-")[2]) for path in signs.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_loses_nothing(workers, folder, tmp_path):
    configs, signs = [COUNT, TRAIN, TRAIN | {"width": 7}], tmp_path / "signs"
    runner = start_runner(tmp_path, configs=configs, folder=folder, workers=workers, given={"signs": signs, "hold": 2})
    wait_for(lambda: all(list(signs.glob(f"{width}-2-*")) for width in (6, 7)[:workers]))
    wait_for(lambda: kept_file(trial_name(COUNT)).is_file())  # finished, and not on record yet
    runner.kill()
    runner.communicate()
    wait_for(lambda: not any(map(alive, workers_of(signs))), seconds=30)  # nobody keeps a trial from the next runner
    assert read_trials(folder) == {}
    counted = tmp_path / "count"
    after = run_trials(configs, folder, given={"count": str(counted)})
    assert not counted.exists() and after[1]["continued"] and len(read_trials(folder)) == 3
    assert timeless(after) == timeless([alone(config) for config in configs])


def test_ctrl_c_merges_what_is_finished_and_keeps_the_checkpoints(folder, tmp_path):
    configs, signs = [COUNT, TRAIN, TRAIN | {"width": 7}], tmp_path / "signs"
    runner = start_runner(tmp_path, configs=configs, folder=folder, workers=2, given={"signs": signs, "hold": 1})
    wait_for(lambda: all(list(signs.glob(f"{width}-1-*")) for width in (6, 7)))
    wait_for(lambda: kept_file(trial_name(COUNT)).is_file())
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1 and said.strip().endswith("KeyboardInterrupt")
    assert not any(map(alive, workers_of(signs)))
    assert read_trials(folder).keys() == {trial_name(COUNT)} and not kept_file(trial_name(COUNT)).exists()
    for config in configs[1:]:
        assert list(run_folder(trial_name(config)).rglob("checkpoint.safetensors"))


def test_several_processes_give_what_one_gives(folder, tmp_path):
    configs = [TRAIN | {"kill": True}, TRAIN | {"seed": 1}, COUNT]
    records = run_trials(configs, folder, workers=2, given={"signs": str(tmp_path / "signs")})
    assert (tmp_path / "signs" / "killed").exists() and records[0]["continued"]
    assert timeless(records) == timeless([alone(config) for config in configs])


# ---- a cluster ----


@pytest.fixture
def cluster():
    "A scheduler and one worker with three threads, all in this process."
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield cluster


def test_a_worker_with_several_threads_runs_one_trial_at_a_time(folder, cluster):
    configs = [TRAIN | {"seed": seed} for seed in range(3)]
    with pytest.raises(ValueError, match="does not like seed 0"):
        run_trials([{"kind": "fail", "seed": 0}, *configs], folder, scheduler=cluster.scheduler_address)
    assert timeless(read_trials(folder).values()) == timeless(
        [alone(config) for config in sorted(configs, key=lambda config: config["seed"])]
    )


def test_a_worker_with_another_table_of_versions(folder, cluster, monkeypatch):
    tables = iter([{"model.han": 1}, {"model.han": 2}])  # first ours, then the worker's
    monkeypatch.setattr(trials, "library_versions", lambda: next(tables))
    with pytest.raises(OSError, match=r"has another version of the library than we \(model.han: 2 there, 1 here\)"):
        run_trials([COUNT], folder, scheduler=cluster.scheduler_address)
    assert not (folder / "trials.jsonl").exists()


def test_the_versions_that_must_agree_are_those_of_results():
    assert VERSIONS.items() <= trials.library_versions().items()
    assert {"torch", "scalable_arch"} <= trials.library_versions().keys()


# ---- progress ----


def test_progress_is_silent_but_on_a_terminal(folder, capsys, monkeypatch):
    run_trials([COUNT], folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_trials([COUNT | {"seed": seed} for seed in range(3)], folder)
    shown = re.split("[\r\n]", capsys.readouterr().err)
    assert any("trials: 2 of 2" in line for line in shown)
    assert any(re.search(r"about \d:\d\d:\d\d left, until \d\d:\d\d", line) for line in shown)


def test_time_left_is_reckoned_from_other_seeds():
    records = [
        {"config": TRAIN, "wall_seconds": 100},
        {"config": TRAIN | {"seed": 1}, "wall_seconds": 110},
        {"config": COUNT, "wall_seconds": 1},
    ]
    assert seconds_left([TRAIN | {"seed": 2}, TRAIN | {"seed": 3}, COUNT | {"seed": 1}], records, 1) == 105 + 105 + 1
    assert seconds_left([TRAIN | {"seed": 2}, TRAIN | {"seed": 3}], records, 2) == 105
    assert seconds_left([TRAIN | {"seed": 2}, COUNT | {"seed": 1}], records, 8) == 105
    assert seconds_left([TRAIN | {"width": 9}], records, 1) == pytest.approx(211 / 3)
    assert seconds_left([], records, 2) == 0 and seconds_left([TRAIN], [], 2) is None
    assert until(None) == "time left not known yet" and until(3725).startswith("about 1:02:05 left, until ")
