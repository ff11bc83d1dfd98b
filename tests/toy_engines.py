"Functions that the tests of the engines call side by side, in a module of their own because workers must import them."

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm


class Stubborn(Exception):
    "An error that is packed but cannot be unpacked."

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


def fail(name, signs):
    raise ValueError(f"{name} does not please")


def die(name, signs):
    "As soon as `slow` is in the middle of it."
    wait_for(lambda: list(signs.glob("slow-*")))
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(name, signs):
    if len(list(signs.glob(f"{name}-*"))) == 1:
        die(name, signs)
    return name.upper()


def hold(name, signs):
    "Until it is killed, with a bar as a training shows it."
    for _ in tqdm(range(1), file=open(os.devnull, "w")):
        time.sleep(600)


def follow(name, signs):
    "After the file `go` is there."
    wait_for((signs / "go").exists)
    return name.upper()


DEEDS = {
    "upper": lambda name, signs: name.upper(),
    "fail": fail,
    "die": die,
    "die_once": die_once,
    "hold": hold,
    "follow": follow,
    "leave": lambda name, signs: sys.exit(3),
    "lambda": lambda name, signs: lambda: name,
    "stubborn": lambda name, signs: (_ for _ in ()).throw(Stubborn("this", "that")),
    "returned": lambda name, signs: Stubborn("this", "that"),
    "locked": lambda name, signs: (_ for _ in ()).throw(ValueError(f"{name} is locked", threading.Lock())),
}


def act(item, *, signs):
    "Do what (name, deed) says, after a sign NAME-PID of who began it."
    name, deed = item
    (Path(signs) / f"{name}-{os.getpid()}").touch()
    return DEEDS[deed](name, Path(signs))


def versions():
    "What every worker must know as we do."
    return {"han": 1, "loss": 3}


def versions_of_a_pupil():
    "As `versions`, but a worker has another one."
    return versions() | ({} if multiprocessing.parent_process() is None else {"loss": 2})


def versions_of_a_stranger():
    "As `versions`, but a worker cannot find them out."
    if multiprocessing.parent_process() is not None:
        raise ModuleNotFoundError("No module named 'ours'")
    return versions()
