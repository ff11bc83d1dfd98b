"""x"""
import logging
import os
import pickle
import traceback
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from pathlib import Path

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm




def check_workers(workers):
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be a whole number of at least 1, not {workers!r}")


def outcome(call, *arguments):
    "What a call returns, or its error."
    try:
        return call(*arguments)
    except Exception as error:
        return error


def run_here(function, items):
    "Pairs (item, result or error), one after the other in this process."
    for item in items:
        yield item, outcome(function, item)


def run_side_by_side(function, items, *, workers=1, scheduler=None, same=None):
    """Pairs (item, result) of one function called for many items, as they come; an error is given in the result's place.
    """
    check_workers(workers)
    if scheduler:
        return run_on_cluster(function, items, scheduler, workers, same)
    if workers == 1:
        return run_here(function, items)
    return run_in_processes(function, items, workers)


def leave_keyboard():
    "Make a worker of this process: an interrupt from the keyboard is its parent's to answer, and what it cuts short is no news."
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # its own lock is one among processes, which a kill would leave behind
    logging.getLogger("distributed").setLevel(logging.ERROR)


def connect(scheduler, workers):
    """Dask client of the scheduler at an address, or of a new cluster of `workers` processes here for "local".

    ImportError without the extra `scale`, OSError where nobody answers.
    """
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise ImportError("a cluster needs Dask: pip install 'scalable_arch[scale]'") from None
    if scheduler == "local":
        quiet = "from scalable_arch.study.engines import leave_keyboard; leave_keyboard()"
        return Client(
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=None, preload=quiet
            )
        )
    try:
        return Client(scheduler, timeout="5s")
    except (OSError, ValueError) as error:
        raise OSError(
            f'no Dask scheduler answers at {scheduler}: start one with `dask scheduler`, or give "local"'
        ) from error


PATIENCE = 30  # seconds


def require_same(client, same):
    """OSError unless the cluster has a worker within PATIENCE, and `same()` gives on all of them what it gives here."""
    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise OSError(
            f"the Dask scheduler at {address} has no worker: start one with `dask worker {address} --nthreads 1`"
        ) from None
    here = same() if same else None
    for worker, there in client.run(same, on_error="return").items() if same else ():
        if there != here:
            raise OSError(
                f"the Dask worker at {worker} has another version of the library than we ({difference(there, here)}): "
                "install ours there and restart it"
            )


def difference(there, here):
    "Where two values part, in words; of dicts the first entry that differs."
    if isinstance(there, dict) and isinstance(here, dict):
        name = min(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        return f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
    return f"{there!r} there, {here!r} here"


LOST = {  # what Dask calls it, and what to do
    "KilledWorker": "every worker that it was given to died: is there too little memory?",
    "FutureCancelledError": "the cluster's scheduler is gone: what is done is written, start again for the rest",
    "CommClosedError": "the connection to the cluster broke: what is done is written, start again for the rest",
}


# BEGIN engine
DIED = "two processes died in the middle of it: is there too little memory?"


def follow_parent():
    "End this process with its parent, however that ends; an interrupt from the keyboard is the parent's to answer."
    leave_keyboard()
    parent = os.getppid()

    def watch():  # loky's processes are told nothing of their parent
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def portable(error):
    "An error with a note of where it happened; what cannot be packed or unpacked becomes a RuntimeError of its words."
    where = f"in a worker:\n{''.join(traceback.format_exception(error))}"
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(where)
    return error


def numbered(function, begun, number, item):
    "An item's number and its result or error, after a file BEGUN/NUMBER that tells who was in hand when a worker dies."
    (begun / str(number)).touch()
    try:
        return number, pickle.dumps(function(item))
    except BaseException as error:
        return number, pickle.dumps(portable(error))


def side_by_side(function, items, numbers, workers, begun):
    "Numbers and results as they come from new processes, all of which are gone at the end."
    call = delayed(partial(numbered, function, begun))
    settings = {"batch_size": 1, "pre_dispatch": workers, "initializer": follow_parent, "return_as": "generator_unordered"}
    try:
        yield from Parallel(workers, "loky", **settings)(call(number, items[number]) for number in numbers)
    finally:
        get_reusable_executor(kill_workers=True).shutdown(kill_workers=True)


def run_in_processes(function, items, workers):
    "As `run_here`, in new processes; where one dies, loky ends all: those in hand are run again, each alone, then the rest."
    left, deaths = set(range(len(items))), Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="joblib")
        while left:
            suspects = [number for number in left if deaths[number]][:1]
            begun = Path(tempfile.mkdtemp(dir=folder))
            try:
                for number, result in side_by_side(function, items, suspects or sorted(left), workers, begun):
                    left.discard(number)
                    yield items[number], outcome(pickle.loads, result)
            except TerminatedWorkerError:
                for number in [int(path.name) for path in begun.iterdir() if int(path.name) in left]:
                    deaths[number] += 1
                    if deaths[number] == 2:
                        left.discard(number)
                        yield items[number], ChildProcessError(DIED)


def run_on_cluster(function, items, scheduler, workers, same):
    "As `run_here`, by a Dask cluster."
    client = connect(scheduler, workers)
    from dask.distributed import as_completed

    try:
        require_same(client, same)
        futures = {client.submit(function, item, pure=False): item for item in items}
        for future in as_completed(futures):
            result = outcome(future.result)
            lost = LOST.get(type(result).__name__)
            yield futures[future], ConnectionError(lost) if lost else result
    finally:
        cluster = client.cluster
        client.close()
        if cluster:
            cluster.close()
# END engine
