"Trials under fire: kills, full disks, damaged files, two runners, lost workers; and what comes out is the same."

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

from scalable_arch import files
from scalable_arch.data.fetch import cache_dir
from scalable_arch.files import folder_lock
from scalable_arch.study import sources, trials
from scalable_arch.study.trials import (
    execute,
    family,
    finished_trial,
    read_trial,
    read_trials,
    run_trials,
    seconds_left,
    trial_name,
    until,
    write_trial,
)

COUNT = {"run": "scalable_arch.study.trials:count_down", "start": 3, "seed": 0}
TRAIN = {"run": "toy_trials:train", "width": 6, "epochs": 5, "seed": 0}
TIMES = ("wall_seconds", "cpu_seconds", "peak_memory_mb", "date", "machine", "continued", "checksum")
timeless = lambda records: [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for processes that the tests start
    (tmp_path / "signs").mkdir()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "trials"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


# ---- names and files ----

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
    assert trial_name(COUNT) == "a7184ea52a86"  # or every result on disk would be an orphan
    assert (
        len({trial_name(COUNT | change) for change in ({}, {"start": 4}, {"start": 3.0}, {"start": None}, {"more": 0})})
        == 5
    )
    assert family(COUNT) == family(COUNT | {"seed": 7}) != family(COUNT | {"start": 4})
    with pytest.raises(ValueError):
        trial_name({"lr": float("nan")})


def test_finished_trials_are_not_run_again(folder, monkeypatch):
    configs = [COUNT | {"start": n} for n in (5, 3, 5)]
    first = run_trials(configs, folder)
    assert [record["metrics"]["steps"] for record in first] == [6, 4, 6]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        {f"{trial_name(config)}.json" for config in configs}
    )
    monkeypatch.setattr(trials, "execute", lambda *_, **__: pytest.fail("was run again"))
    assert (
        run_trials(configs, folder)
        == first
        == [read_trial(folder / f"{trial_name(config)}.json") for config in configs]
    )


def test_a_record_says_what_it_rests_on(folder):
    [record] = run_trials([TRAIN], folder)
    assert record["config"] == TRAIN and record["trial"] == trial_name(TRAIN) and not record["continued"]
    assert {"date", "commit", "torch", "python", "machine", "scalable_arch", "cpu_seconds", "curves"} <= record.keys()
    assert record["wall_seconds"] > 0 and record["peak_memory_mb"] > 50
    assert {"toy_trials", "scalable_arch.train.loop", "scalable_arch.train.losses"} <= record["sources"].keys()
    assert not any(
        name.startswith("scalable_arch.study.") for name in record["sources"]
    )  # the runner makes no result old
    assert not (cache_dir() / "runs" / record["trial"]).exists()


@pytest.mark.parametrize(
    "spoil, what",
    [
        (lambda text: text[: len(text) // 2], "is damaged or no trial"),
        (lambda text: "", "is damaged or no trial"),
        (lambda text: "\0" * len(text), "is damaged or no trial"),
        (lambda text: "[1, 2]", "is damaged or no trial"),
        (lambda text: '{"config": 3, "metrics": {}}', "holds another configuration"),
        (lambda text: text.replace('"steps": 4', '"steps": 5'), "is damaged or no trial"),
        (lambda text: text.replace('"start": 3', '"start": 4'), "is damaged or no trial"),
        (lambda text: json.dumps(execute(COUNT | {"start": 9})), "holds another configuration than its name says"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_set_aside_and_run_again(folder, spoil, what):
    [good] = run_trials([COUNT], folder)
    path = folder / f"{trial_name(COUNT)}.json"
    spoilt = spoil(path.read_text())
    path.write_text(spoilt)
    with pytest.raises(ValueError, match=f"{path} {what}"):
        read_trials(folder)
    with pytest.warns(
        UserWarning, match=f"{path} {what}.*: it is set aside as {path.stem}.damaged-\\d+ and the trial run again"
    ):
        [again] = run_trials([COUNT], folder)
    assert timeless([again]) == timeless([good]) and read_trials(folder) == [again]
    [aside] = folder.glob("*.damaged-*")
    assert aside.read_text() == spoilt


def test_a_changed_configuration_leaves_the_old_result(folder):
    [old] = run_trials([COUNT], folder)
    [new] = run_trials([COUNT | {"start": 4}], folder)
    assert {record["trial"] for record in read_trials(folder)} == {old["trial"], new["trial"]}


def test_results_of_older_code_are_kept_with_a_warning_or_run_again(folder, monkeypatch):
    configs = [TRAIN, COUNT]
    old = run_trials(configs, folder)
    path = sources.module_path("scalable_arch.train.losses")
    monkeypatch.setitem(sources.TEXTS, path, sources.TEXTS[path] + "\nnew = 1\n")
    with pytest.warns(
        UserWarning,
        match="1 of 2 trials in .* were run before scalable_arch.train.losses changed: kept; rerun_stale=True",
    ):
        assert run_trials(configs, folder) == old
    new = run_trials(configs, folder, rerun_stale=True)
    assert new[0]["sources"] != old[0]["sources"] and new[0]["metrics"] == old[0]["metrics"] and new[1] == old[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_trials(configs, folder) == new


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({}, r"needs run='module:function', which can be imported, not None"),
        ({"run": "scalable_arch.study.trials"}, "needs run='module:function'"),
        ({"run": "scalable_arch.study.trials:count_up"}, "has no attribute 'count_up'"),
        ({"run": "scalable_arch.study.trails:count_down"}, "No module named 'scalable_arch.study.trails'"),
    ],
)
def test_a_function_that_is_not_there(wrong, sentence, folder):
    with pytest.raises(ValueError, match=sentence):
        run_trials([wrong], folder)
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, not 0"):
        run_trials([COUNT], folder, workers=0)


# ---- errors of one trial, of the disk, of a second runner ----


def test_a_trial_that_fails_does_not_stop_the_others(folder):
    failing = [{"run": "toy_trials:fail", "seed": 5}, {"run": "toy_trials:not_json", "seed": 1}]
    with pytest.raises(ValueError, match="does not like seed 5") as stop:
        run_trials([failing[0], COUNT, failing[1], TRAIN], folder)
    assert stop.value.__notes__ == [f"in the trial {trial_name(failing[0])}: {json.dumps(failing[0])}"]
    assert {record["trial"] for record in read_trials(folder)} == {trial_name(COUNT), trial_name(TRAIN)}


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    straight = execute(TRAIN)
    fsync = os.fsync

    def full(path):
        def fail_there(handle):
            if Path(os.readlink(f"/proc/self/fd/{handle}")).is_relative_to(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(handle)

        return fail_there

    for where in (folder, cache_dir()):  # first no room for the result, then none for the checkpoint
        other = TRAIN if where == folder else TRAIN | {"seed": 1}
        monkeypatch.setattr(files.os, "fsync", full(where))
        with pytest.raises(OSError, match="No space left on device") as stop:
            run_trials([other], folder)
        assert stop.value.errno == errno.ENOSPC and "\n" not in str(stop.value)
        monkeypatch.setattr(files.os, "fsync", fsync)
        assert not list(folder.iterdir())
    [record] = run_trials([TRAIN], folder)
    assert record["continued"] and timeless([record]) == timeless([straight])


def test_a_folder_that_cannot_be_written_stops_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(trials, "execute", lambda *_, **__: pytest.fail("worked in vain"))
    with pytest.raises(OSError, match="file"):
        run_trials([COUNT], tmp_path / "file" / "trials")


def test_the_engine_is_stopped_when_a_result_cannot_be_written(folder, monkeypatch):
    ended = []

    def engine(configs, **_):
        try:
            for config in configs:
                yield config, execute(config)
        finally:
            ended.append(True)

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(trials, "run_pending", engine)
    monkeypatch.setattr(trials, "write_trial", full)
    with pytest.raises(OSError) as stop:
        run_trials([COUNT, TRAIN], folder)
    assert ended and stop.value.__traceback__  # although the traceback still holds the engine


def test_two_runners_on_one_trial(folder):
    with folder_lock(cache_dir() / "runs" / trial_name(COUNT)):
        with pytest.raises(
            BlockingIOError,
            match=f"the trial {trial_name(COUNT)} is in hand already: another run .process {os.getpid()}.",
        ):
            run_trials([COUNT, TRAIN], folder)
    assert [record["config"] for record in read_trials(folder)] == [TRAIN]
    assert len(run_trials([COUNT, TRAIN], folder)) == 2


def test_a_checkpoint_that_another_runner_took_up_stays(folder):
    record = execute(COUNT)
    with folder_lock(cache_dir() / "runs" / trial_name(COUNT)):
        write_trial(folder, record)
        assert (cache_dir() / "runs" / trial_name(COUNT)).is_dir()
    assert finished_trial(folder, COUNT) == record


# ---- processes: kills and interrupts ----

# A shell's `&` starts programs with interrupts ignored: where the tests run like that, a runner must not.
PROGRAM = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from scalable_arch.study.trials import run_trials
run_trials(**json.loads(sys.argv[1]))
"""


def start_runner(**arguments):
    "A runner in a process, and a session, of its own."
    text = json.dumps(arguments, default=str)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, text], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_several_processes_give_what_one_gives_and_survive_each_other(folder, tmp_path):
    good = [TRAIN | {"kill": True}, TRAIN | {"seed": 1}, COUNT]
    deadly = {"run": "toy_trials:die", "seed": 0}
    with pytest.raises(ChildProcessError, match="two processes died in the middle of it: is there too little memory?"):
        run_trials([deadly, *good], folder, workers=2, given={"signs": tmp_path / "signs"})
    records = run_trials(good, folder)
    assert records[0]["continued"] and timeless(records) == timeless([execute(config) for config in good])


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_of_a_training_and_started_again(workers, folder, tmp_path):
    configs, signs = [TRAIN, TRAIN | {"width": 7}], tmp_path / "signs"
    runner = start_runner(configs=configs, folder=folder, workers=workers, given={"signs": signs, "hold": 2})
    wait_for(lambda: all(list(signs.glob(f"{width}-2-*")) for width in (6, 7)[:workers]))
    runner.kill()
    runner.communicate()
    workers = {int(path.name.split("-")[2]) for path in signs.iterdir()}
    wait_for(lambda: not any(map(alive, workers)), seconds=30)  # nobody keeps the trial from the next runner
    assert not list(folder.glob("*.json"))
    after = run_trials(configs, folder)
    assert after[0]["continued"] and after[0]["trial"] == trial_name(TRAIN)
    assert timeless(after) == timeless([execute(config) for config in configs])


def test_ctrl_c_ends_the_runner_and_its_processes_and_keeps_the_checkpoints(folder, tmp_path):
    configs, signs = [TRAIN, TRAIN | {"width": 7}], tmp_path / "signs"
    runner = start_runner(configs=configs, folder=folder, workers=2, given={"signs": signs, "hold": 1})
    wait_for(lambda: all(list(signs.glob(f"{width}-1-*")) for width in (6, 7)))
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    _, said = runner.communicate(timeout=60)
    assert (
        runner.returncode == -signal.SIGINT
        and said.count("Traceback") == 1
        and said.strip().endswith("KeyboardInterrupt")
    )
    assert not any(alive(int(path.name.split("-")[2])) for path in signs.iterdir())
    assert all(
        (cache_dir() / "runs" / trial_name(config) / "training" / "checkpoint.safetensors").is_file()
        for config in configs
    )


# ---- a cluster ----

distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster():
    "A scheduler and one worker with three threads, all in this process."
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield cluster


def test_two_local_workers_one_killed_give_what_one_process_gives(folder, tmp_path):
    configs = [TRAIN | {"kill": True}, TRAIN | {"seed": 1}, COUNT]
    records = run_trials(configs, folder, scheduler="local", workers=2, given={"signs": tmp_path / "signs"})
    assert (tmp_path / "signs" / "killed").exists() and records[0]["continued"] and len(read_trials(folder)) == 3
    assert not list((cache_dir() / "runs").iterdir())
    assert timeless(records) == timeless([execute(config) for config in configs])


def test_a_cluster_without_workers():
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as cluster,
        distributed.Client(cluster) as client,
    ):
        with pytest.raises(
            OSError,
            match=r"the Dask scheduler at tcp://\S+ has no worker: start one with `dask worker tcp://\S+ --nthreads 1`",
        ):
            trials.check_workers(client, ["toy_trials"], patience=0.1)


def test_a_worker_with_several_threads_runs_one_trial_at_a_time(folder, cluster):
    configs = [TRAIN | {"seed": seed} for seed in range(4)]
    with pytest.raises(ValueError, match="does not like seed 0"):
        run_trials([{"run": "toy_trials:fail", "seed": 0}, *configs], folder, scheduler=cluster.scheduler_address)
    assert timeless(run_trials(configs, folder)) == timeless([execute(config) for config in configs])


def test_a_worker_with_another_version_of_the_library(folder, cluster, monkeypatch):
    ours = trials.sources_of
    marks = iter([{}, {"scalable_arch.data.fetch": "0000"}])
    monkeypatch.setattr(
        trials, "sources_of", lambda modules: ours(modules) | next(marks)
    )  # first ours, then the worker's
    with pytest.raises(
        OSError,
        match=r"the Dask worker at tcp://\S+ has another version of the library than we .other code of scalable_arch.data.fetch.: install",
    ):
        run_trials([COUNT], folder, scheduler=cluster.scheduler_address)


def test_a_scheduler_that_goes_away_keeps_what_is_done(folder, cluster, tmp_path):
    def close_later():
        wait_for(lambda: list(folder.glob("*.json")))
        cluster.close()

    thread = threading.Thread(target=close_later)
    thread.start()
    configs = [TRAIN | {"seed": seed} for seed in range(3)]
    with pytest.raises(ConnectionError, match="what is done is written, start again for the rest"):
        run_trials(configs, folder, scheduler=cluster.scheduler_address, given={"pause": 0.2})
    thread.join()
    assert timeless(run_trials(configs, folder)) == timeless([execute(config) for config in configs])


def test_a_cluster_that_is_not_there(folder, monkeypatch):
    for address in ("nonsense://somewhere", "127.0.0.1:9"):
        with pytest.raises(
            OSError, match=f"no Dask scheduler answers at {address}: start one with `dask scheduler`"
        ) as stop:
            run_trials([COUNT], folder, scheduler=address)
        assert "\n" not in str(stop.value)
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"a cluster needs Dask: pip install 'scalable_arch\[scale\]'"):
        run_trials([COUNT], folder, scheduler="local")


# ---- progress ----


def test_progress_is_silent_but_on_a_terminal(folder, capsys, monkeypatch):
    run_trials([COUNT], folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_trials([COUNT | {"seed": seed} for seed in range(3)], folder)
    shown = re.split("[\r\n]", capsys.readouterr().err)
    assert any("trials: 2 of 2" in line for line in shown) and any(
        re.search(r"about \d:\d\d:\d\d left, until \d\d:\d\d", line) for line in shown
    )


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
