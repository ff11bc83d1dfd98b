"One function side by side under fire: kills, interrupts, errors that do not travel, lost workers."

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from toy_engines import act, versions, versions_of_a_pupil, versions_of_a_stranger, wait_for

from scalable_arch.study.engines import check_cluster, connect, first_difference, run_side_by_side

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
DIED = "two processes died in the middle of it: is there too little memory?"
ENGINES = {"here": {}, "processes": {"workers": 2}, "cluster": {"workers": 2, "scheduler": "local"}}
several = pytest.mark.parametrize("engine", [ENGINES["processes"], ENGINES["cluster"]], ids=["processes", "cluster"])


@pytest.fixture(autouse=True)
def signs(monkeypatch, tmp_path):
    "The folder in which each item leaves a sign NAME-PID."
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    folder = tmp_path / "signs"
    folder.mkdir()
    return folder


def begun(signs, name="*"):
    "Processes that began an item of this name."
    return [int(path.name.rpartition("-")[2]) for path in signs.glob(f"{name}-*")]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def in_session(session):
    "Living processes of a session, whoever started them."
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it just ended
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def results(items, signs, **engine):
    "{name: result} of items (name, deed); errors as their type and text."
    found = run_side_by_side(partial(act, signs=signs), items, **engine)
    pairs = [(name, repr(result) if isinstance(result, Exception) else result) for (name, _), result in found]
    assert len(dict(pairs)) == len(pairs) == len(items)
    return dict(pairs)


# ---- what all engines have in common ----


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_results_and_errors_come_from_every_engine(engine, signs):
    items = [("a", "upper"), ("b", "fail"), ("c", "upper"), ("d", "fail"), ("e", "upper")]
    wrong = {name: repr(ValueError(f"{name} does not please")) for name in "bd"}
    assert results(items, signs, **engine) == {"a": "A", "c": "C", "e": "E"} | wrong
    assert (os.getpid() in begun(signs)) == (not engine)
    assert results([], signs, **engine) == {}


def test_workers_are_counted(signs):
    for wrong in (0, -1, 1.5, "2", None):
        with pytest.raises(ValueError, match=f"workers must be a whole number of at least 1, not {wrong!r}"):
            run_side_by_side(partial(act, signs=signs), [("a", "upper")], workers=wrong)


def test_nothing_begins_before_it_is_asked_for(signs):
    found = run_side_by_side(partial(act, signs=signs), [("a", "upper"), ("b", "upper")])
    assert not begun(signs)
    assert next(found) == (("a", "upper"), "A") and not begun(signs, "b")


@several
def test_results_come_as_they_are_finished_and_nobody_waits_in_a_queue(engine, signs):
    items = [("slow", "follow"), *((name, "upper") for name in "abcd")]
    seen = []
    for (name, _), _ in run_side_by_side(partial(act, signs=signs), items, **engine):
        seen.append(name)
        if len(seen) == 4:
            (signs / "go").touch()  # `slow` is in hand all the while
    assert sorted(seen[:4]) == ["a", "b", "c", "d"] and seen[4] == "slow"
    assert (
        len(begun(signs)) == 5 and len(set(begun(signs))) == 2 and begun(signs, "slow")[0] not in begun(signs, "[a-d]")
    )


# ---- processes ----


@pytest.mark.parametrize("deed, said", [
    ("lambda", "pickle"),
    ("locked", "ValueError.*is locked"),
    ("stubborn", "Stubborn: this and that"),
    ("returned", "missing 1 required positional argument"),
    ("leave", DIED),
])  # fmt: skip
def test_what_cannot_travel_between_processes_is_told_as_an_error(deed, said, signs):
    found = run_side_by_side(partial(act, signs=signs), [("bad", deed), ("a", "upper"), ("b", "upper")], workers=2)
    found = {name: result for (name, _), result in found}
    assert found["a"] == "A" and found["b"] == "B"
    with pytest.raises(Exception, match=said):
        raise found["bad"]


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    "Its workers would run it again, so they die before they hear of an item, however long that is."
    script = tmp_path / "script.py"
    script.write_text(
        "from scalable_arch.study.engines import run_side_by_side\n"
        "for item, result in run_side_by_side(len, ['a' * 10**6, 'b'], workers=2):\n    print(repr(result))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ran.stdout == f"{ChildProcessError(DIED)!r}\n" * 2 and "if __name__ == '__main__':" in ran.stderr


def test_an_error_says_where_in_the_worker_it_happened(signs):
    [(_, error)] = run_side_by_side(partial(act, signs=signs), [("a", "fail")], workers=2)
    assert "toy_engines.py" in str(getattr(error, "__notes__", "")) + str(error.__cause__)


def test_a_worker_that_dies_is_replaced_and_disturbs_nobody(signs):
    items = [("once", "die_once"), ("twice", "die"), ("slow", "follow"), *((name, "upper") for name in "abc")]
    seen = {}
    for (name, _), result in run_side_by_side(partial(act, signs=signs), items, workers=3):
        seen[name] = result
        if len(seen) == 5:
            (signs / "go").touch()
    assert isinstance(seen["twice"], ChildProcessError) and str(seen.pop("twice")) == DIED
    assert seen == {"once": "ONCE", "slow": "SLOW", "a": "A", "b": "B", "c": "C"}
    assert len(begun(signs, "once")) == len(set(begun(signs, "once"))) == 2 == len(set(begun(signs, "twice")))
    assert all(len(begun(signs, name)) == 1 for name in ("slow", "a", "b", "c"))


def test_a_worker_that_dies_while_it_has_nothing_to_do_is_not_counted(signs):
    with closing(run_side_by_side(partial(act, signs=signs), [("a", "upper"), ("b", "follow")], workers=2)) as found:
        assert next(found)[1] == "A"
        for pid in (*begun(signs, "a"), *wait_for(partial(begun, signs, "b"))):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not alive(pid))
        (signs / "go").touch()
        assert [result for _, result in found] == ["B"] and len(begun(signs, "b")) == 2


def test_an_interrupt_from_the_keyboard_is_not_the_workers_to_answer(signs):
    def interrupt():
        for pid in wait_for(lambda: begun(signs, "a")) + wait_for(lambda: begun(signs, "b")):
            os.kill(pid, signal.SIGINT)
        (signs / "go").touch()

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert results([("a", "follow"), ("b", "follow")], signs, workers=2) == {"a": "A", "b": "B"}
    thread.join()
    assert len(begun(signs)) == 2


@several
def test_closed_in_the_middle_it_ends_all_workers_at_once(engine, signs):
    found = run_side_by_side(partial(act, signs=signs), [("a", "upper"), ("b", "hold"), ("c", "hold")], **engine)
    with closing(found):
        assert next(found)[1] == "A"
        wait_for(lambda: begun(signs, "b") and begun(signs, "c"))
    assert not any(map(alive, begun(signs)))


def test_at_the_end_nobody_is_left(signs):
    assert results([(name, "upper") for name in "abcd"], signs, workers=2)
    assert not any(map(alive, begun(signs)))


# ---- kills and interrupts of the whole ----

# A shell's `&` starts programs with interrupts ignored: where the tests run like that, a program must not.
PROGRAM = """
import json, signal, sys, time
from functools import partial
signal.signal(signal.SIGINT, signal.default_int_handler)
from toy_engines import act
from scalable_arch.study.engines import run_side_by_side
arguments = json.loads(sys.argv[1])
pause = arguments.pop("pause")
found = run_side_by_side(partial(act, signs=arguments.pop("signs")), **arguments)
for (name, _), result in found:
    print(name, result, flush=True)
    time.sleep(pause)  # the engine lies open then, and nobody closes it
"""


def start_program(signs, pause=0, **arguments):
    "A program in a process, and a session, of its own, that holds in both of its workers."
    items = [("a", "upper"), ("b", "hold"), ("c", "hold"), ("d", "hold")]
    text = json.dumps(arguments | {"signs": str(signs), "items": items, "pause": pause})
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout.readline() == "a A\n"
    wait_for(lambda: begun(signs, "b") and begun(signs, "c"))
    return program


@several
def test_workers_end_with_a_program_that_is_killed(engine, signs):
    program = start_program(signs, **engine)
    program.kill()
    program.wait()
    wait_for(lambda: not in_session(program.pid), seconds=30)
    program.communicate()


@pytest.mark.parametrize("pause, engine", [
    (0, ENGINES["processes"]),
    (600, ENGINES["processes"]),
    (0, ENGINES["cluster"]),
], ids=["processes", "processes, between two results", "cluster"])  # fmt: skip
def test_ctrl_c_ends_everything_and_says_so_once(pause, engine, signs):
    program = start_program(signs, pause, **engine)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    out, said = program.communicate(timeout=60)
    assert program.returncode == -signal.SIGINT and out == ""
    assert said.count("Traceback") == 1 and said.strip().endswith("KeyboardInterrupt")
    wait_for(lambda: not in_session(program.pid), seconds=5)
    assert len(begun(signs)) == 3


# ---- a cluster ----


@pytest.fixture
def cluster():
    "A scheduler and one worker with three threads, all in this process."
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield cluster


def test_a_cluster_that_runs_already_is_used_and_left_running(signs, cluster):
    items = [("a", "upper"), ("b", "upper")]
    for _ in range(2):
        assert results(items, signs, scheduler=cluster.scheduler_address, same=versions) == {"a": "A", "b": "B"}
    assert set(begun(signs)) == {os.getpid()}


def test_a_worker_of_a_cluster_that_dies_is_replaced_and_disturbs_nobody(signs):
    seen = {}
    items = [("slow", "follow"), ("once", "die_once"), ("a", "upper")]
    for (name, _), result in run_side_by_side(partial(act, signs=signs), items, workers=2, scheduler="local"):
        seen[name] = result
        if len(seen) == 2:
            (signs / "go").touch()
    assert seen == {"slow": "SLOW", "once": "ONCE", "a": "A"} and len(begun(signs, "slow")) == 1


def test_an_item_whose_workers_all_die_is_said_to_be_lost(signs):
    "With one other item only, on the other worker: Dask lays a death to all that its worker had in hand."
    items, seen = [("slow", "follow"), ("always", "die")], {}
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        for (name, _), result in run_side_by_side(partial(act, signs=signs), items, workers=2, scheduler="local"):
            seen[name] = result
            (signs / "go").touch()
    lost = seen.pop("always")
    assert isinstance(lost, ConnectionError) and seen == {"slow": "SLOW"}
    assert str(lost) == "every worker that it was given to died: is there too little memory?"


@pytest.mark.parametrize("same, what", [
    (versions_of_a_pupil, "loss: 2 there, 3 here"),
    (versions_of_a_stranger, "ModuleNotFoundError: No module named 'ours'"),
])  # fmt: skip
def test_a_worker_with_another_version_of_the_library(same, what, signs):
    said = rf"^the Dask worker at tcp://\S+ has another version of the library than we \({what}\): install ours there"
    with pytest.raises(OSError, match=said):
        results([("a", "upper")], signs, workers=2, scheduler="local", same=same)
    assert not begun(signs)


def test_a_worker_that_cannot_import_the_function(monkeypatch, tmp_path):
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        (tmp_path / "only_here.py").write_text("def double(n):\n    return 2 * n\n")
        monkeypatch.syspath_prepend(tmp_path)
        double = pytest.importorskip("only_here").double
        with pytest.raises(OSError, match="^the Dask worker at .* has another version .*No module named 'only_here'"):
            list(run_side_by_side(double, [1], scheduler=cluster.scheduler_address))


table = st.dictionaries(st.text(), st.integers() | st.none() | st.dictionaries(st.text(), st.integers(), max_size=2))


@given(table, st.text(), st.integers())
def test_what_differs_is_named(there, name, value):
    assume(there.get(name) != value)
    said = f"{name}: {there.get(name, 'nothing')} there, {value} here"
    assert first_difference(there, there | {name: value}) == said
    assert first_difference({"all": there, "b": 0}, {"all": there | {name: value}, "b": 0}) == f"all: {said}"


def test_a_cluster_without_workers():
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None, protocol="tcp") as cluster,
        connect(cluster.scheduler_address, 1) as client,
        pytest.raises(OSError, match=r"^the Dask scheduler at (\S+) has no worker: start one with `dask worker \1 --n"),
    ):
        check_cluster(client, len, patience=0.1)


def test_a_scheduler_that_goes_away_loses_only_what_is_not_done(signs, cluster):
    items = [("a", "upper"), ("b", "follow"), ("c", "follow")]
    found = run_side_by_side(partial(act, signs=signs), items, scheduler=cluster.scheduler_address)
    assert next(found) == (items[0], "A")
    thread = threading.Thread(target=cluster.close)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        thread.start()
        left = dict(found)
    (signs / "go").touch()
    thread.join()
    assert left.keys() == set(items[1:])
    for error in left.values():
        assert isinstance(error, ConnectionError)
        assert str(error).endswith("what is done is written, start again for the rest")


def test_a_cluster_that_is_not_there(monkeypatch, signs):
    for address in ("nonsense://somewhere", "127.0.0.1:9"):
        with pytest.raises(
            OSError, match=f"no Dask scheduler answers at {address}: start one with `dask scheduler`"
        ) as stop:
            connect(address, 2)
        assert "\n" not in str(stop.value)
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match=r"a cluster needs Dask: pip install 'scalable_arch\[scale\]'"):
        results([("a", "upper")], signs, scheduler="local")
