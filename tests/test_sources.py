"Fingerprints of code: what makes a result old, and what does not."

import json

import pytest

from scalable_arch.study import sources
from scalable_arch.study.sources import bare_code, fingerprint, fingerprints, required_modules, stale

CODE = '''"""What it is.

In several lines."""
import math  # for the sine


class Wave(ValueError): "A wave."


def double(x):
    "Twice x, also of \u00e4."

    # by adding
    return x + x


async def text(): "Ä docstring in a row."; return """kept # and

kept"""
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ("What it is.\n\nIn several lines.", "What it was."),
        ("# for the sine", ""),
        ("# by adding", "# by addition\n    # and nothing else"),
        ("Twice x", "Two times x"),
        ("A wave.", "Another wave, a longer one."),
        ("Ä docstring in a row.", "ü"),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
        ("x + x\n", "x + x   \n\n"),
        ("    # by adding\n", "    # x = x + 1\n"),
    ],
)
def test_words_do_not_count(old, new):
    assert old in CODE and bare_code(CODE.replace(old, new)) == bare_code(CODE)


@pytest.mark.parametrize(
    "old, new",
    [
        ("return x + x", "return 2 * x"),
        ("import math", "import cmath"),
        ("class Wave(ValueError)", "class Wave(OSError)"),
        ("async def text()", "async def texts()"),
        ("kept # and", "kept # or"),
        ("return x + x", "return x + x # + x\n    + x"),
        ("    # by adding\n    return", "    # by adding\n    if x: return"),
    ],
)
def test_code_counts(old, new):
    assert old in CODE and bare_code(CODE.replace(old, new)) != bare_code(CODE)


def within(guard, start="def f(x, rows):\n    y = 1\n", end="    return y\n"):
    return start + "".join(f"    {line}\n" for line in guard.split("\n")) + end


@pytest.mark.parametrize(
    "guard",
    [
        "if x < 1: raise ValueError",
        "if x < 1:\n    raise ValueError(f'x must be positive, not {x}')  # for a root",
        "if not isinstance(x, int) or len(rows) != 3:\n    raise TypeError('no')",
        "if x.shape[:2] != (3, 4):\n    raise ValueError(\n        'two'\n        'lines')",
        "if x < 1:\n    raise ValueError('small')\nelif x > 2:\n    raise ValueError('large')",
    ],
)
def test_refusals_do_not_count(guard):
    assert (
        bare_code(within(guard))
        == bare_code(within("# nothing"))
        == bare_code(within("if x is None: raise ValueError"))
    )
    loop = "for row in rows:\n    y += 1"
    assert bare_code(within(loop + "\n    " + guard.replace("\n", "\n    "))) == bare_code(within(loop))


@pytest.mark.parametrize(
    "guard",
    [
        "if x < 1: return 2",
        "if x < 1: raise StopIteration",
        "if x < 1: raise IndexError('no')",
        "if x < 1: raise",
        "if x < 1:\n    y = 2\n    raise ValueError(y)",
        "if next(rows) < 1: raise ValueError",
        "if rows.pop() < 1: raise ValueError",
        "if (y := x) < 1: raise ValueError",
        "if any(row < 1 for row in rows): raise ValueError",
        "if x < 1:\n    raise ValueError\nelse:\n    y = 3",
        "if x < 1:\n    raise ValueError\nelif x > 2:\n    y = 3",
        "if x < 1:\n    y = 3\nelif x > 2:\n    raise ValueError",
        "try:\n    if x < 1: raise ValueError\nexcept ValueError:\n    y = 3",
        "assert x > 1",
        "raise ValueError",
    ],
)
def test_what_looks_like_a_refusal_and_counts(guard):
    other = guard.replace("x", "(x)", 1) if "x" in guard else "pass"
    assert bare_code(within(guard)) != bare_code(within("# nothing")) and bare_code(within(guard)) != bare_code(
        within(other)
    )


TYPED = """from __future__ import annotations
from typing import NamedTuple
from typing import TYPE_CHECKING, Any
from collections.abc import Iterable
if TYPE_CHECKING:
    import numpy as np
    Rows = list[np.ndarray]


class Pair(NamedTuple):
    left: int
    right: int = 3


def f(a: int, /, b: dict[str, Any] = {"ü": 1}, *rest: Iterable[
        str], size: "tuple[int, int]" = (1, 2), last, **more: Any) -> Callable[[int],
        str]:
    async def inside(x: int = 3) -> None: return lambda y=2: x
    count: int = 0
    return inside
"""
BARE = """from typing import NamedTuple
class Pair(NamedTuple):
    left: int
    right: int = 3
def f(a, /, b={"ü": 1}, *rest, size=(1, 2), last, **more):
    async def inside(x=3): return lambda y=2: x
    count: int = 0
    return inside"""


def test_annotations_do_not_count():
    assert bare_code(TYPED) == BARE


@pytest.mark.parametrize(
    "layout",
    [
        "def f(a, b=(1, 2), *,\n      c):\n    return a",
        "def f(\n        a, b=(1,\n              2), *, c):\n    return a",
        "def f(a, b=(1, 2), *, c: int\n      ) -> int:\n    return a",
        "def f(a, b=(1, 2), *, c) -> tuple[\n        int]:\n    return a",
        "def f(a,  # first\n      b=(1, 2),\n\n      *, c):\n    return a",
    ],
)
def test_arguments_on_several_lines(layout):
    assert bare_code(layout) == "def f(a, b=(1, 2), *, c):\n    return a"


def test_what_follows_the_arguments_stays_on_its_line():
    code = "def f(a,\n      b): return a\nx = [1,\n     2]\n@g(1,\n   2)\ndef h():\n    return (1,\n            2)"
    assert bare_code(code) == code.replace("a,\n      b", "a, b")


@pytest.mark.parametrize(
    "code",
    [
        "from typing import Any\nx = Any",
        "from collections.abc import Callable\nisinstance(f, Callable)",
        "import typing",
        "from math import pi",
        "if True:\n    import math",
        "x: int = 3",
    ],
)
def test_what_looks_like_an_annotation_and_counts(code):
    assert bare_code(code) == code


def test_what_is_left():
    assert (
        bare_code('"""Doc."""\nx = 1  # one\n\n\ndef f(y):\n    "Sum."\n    return x + y\n')
        == "x = 1\ndef f(y):\n    return x + y"
    )


def test_a_text_with_magics_counts_as_it_is():
    assert bare_code("%timeit f()  # slow\n!ls") == "%timeit f()  # slow\n!ls"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small library of its own: write(name, text) puts a file there and, as if this process had begun now, into what
    it runs."""
    root = tmp_path / "scalable_arch"
    monkeypatch.setattr(sources, "LIBRARY", root)
    monkeypatch.setattr(sources, "TEXTS", {})

    def write(name, text, loaded=True):
        path = root / name if not name.startswith("nbs/") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if loaded and path.suffix == ".py":
            sources.TEXTS[path] = text

    return write


def test_imports_are_followed_wherever_they_stand(library):
    library("__init__.py", "from scalable_arch.unused import x")
    library("unused.py", "")
    library(
        "a.py",
        "import torch\nfrom .b import f\ndef g():\n    from scalable_arch.rooms.c import h\n    import "
        "scalable_arch.rooms.d as d",
    )
    library("b.py", "from . import e\nfrom .a import g")  # a circle does no harm
    library("e.py", "")
    library("rooms/__init__.py", "from .f import f")
    library("rooms/c.py", "from .. import b\nfrom . import names_only")
    library("rooms/d.py", "if 1:\n    from ..deep.g import x")
    library("rooms/f.py", "")
    library("deep/g.py", "")
    expected = ["a", "b", "e", "rooms.c", "rooms.d", "deep.g", "rooms", "rooms.f"]
    assert required_modules(["scalable_arch.a"]) == sorted(f"scalable_arch.{name}" for name in expected)
    assert required_modules(["scalable_arch.e", "scalable_arch.unused"]) == ["scalable_arch.e", "scalable_arch.unused"]


def test_what_makes_a_result_old(library):
    library("a.py", "def f():\n    from .b import g\n    return g()")
    library("b.py", "def g():\n    return 1")
    library("c.py", "x = 1")
    recorded = fingerprints(["scalable_arch.a"])
    assert list(recorded) == ["scalable_arch.a", "scalable_arch.b"] and stale(recorded) == []
    library("c.py", "x = 2")
    library("a.py", "def f():\n    # why not\n    from .b import g\n    return g()")
    assert stale(recorded) == []
    library("b.py", "def g():\n    return 2", loaded=False)
    assert stale(recorded) == [] == stale(fingerprints(["scalable_arch.a"]))  # this process still runs the old code
    library("b.py", "def g():\n    return 2")
    assert stale(recorded) == ["scalable_arch.b"]
    del sources.TEXTS[sources.LIBRARY / "b.py"]
    assert stale(recorded) == ["scalable_arch.b"]  # gone


def test_one_model_more_makes_no_result_old(library):
    library("a.py", "from .models import create_model")
    library("models.py", "MODELS = {}")
    recorded = fingerprints(["scalable_arch.a"])
    assert list(recorded) == ["scalable_arch.a"]
    recorded["scalable_arch.models"] = fingerprint("scalable_arch.models")  # as results of before have it
    library("models.py", "MODELS = {'one': 1}")
    assert stale(recorded) == []


def notebook(*cells):
    kinds = {"markdown": {}, "code": {"outputs": [], "execution_count": None}}
    return json.dumps(
        {
            "cells": [
                {"cell_type": kind, "source": text.splitlines(True), "metadata": {"tags": tags}, **kinds[kind]}
                for kind, text, *tags in cells
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def test_a_notebook_counts_by_its_code_but_for_its_parameters(library):
    cells = [("markdown", "# Title"), ("code", "profile = 'quick'", "parameters"), ("code", "run(profile)  # now")]
    library("nbs/ch9.ipynb", notebook(*cells))
    recorded = fingerprints(["nbs/ch9.ipynb", "nbs/none.ipynb"])
    assert list(recorded) == ["nbs/ch9.ipynb"]
    for same in (
        [("markdown", "# Other"), *cells[1:]],
        [cells[0], ("code", "profile = 'desk'", "parameters"), cells[2]],
        [*cells[:2], ("code", "profile = 'desk'", "injected-parameters"), ("code", "run(profile)")],
    ):
        library("nbs/ch9.ipynb", notebook(*same))
        assert stale(recorded) == []
    library("nbs/ch9.ipynb", notebook(*cells[:2], ("code", "run(profile, seeds=3)")))
    assert stale(recorded) == ["nbs/ch9.ipynb"]
    (sources.LIBRARY.parent / "nbs" / "ch9.ipynb").unlink()
    assert stale(recorded) == []  # a wheel has no notebooks, and its results are no older for it


def test_a_readers_own_module(library, tmp_path, monkeypatch):
    library("errors.py", "")
    (tmp_path / "my_study.py").write_text("from scalable_arch.errors import one_of")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(fingerprints(["my_study"])) == ["my_study", "scalable_arch.errors"]
    for name in ("no_such_module", "no_such.module", "scalable_arch.erors", "sys"):
        with pytest.raises(FileNotFoundError, match=f"there is no module {name}"):
            fingerprints([name])


def test_the_library_itself():
    names = required_modules(["scalable_arch.train.loop"])
    assert {"scalable_arch.train.losses", "scalable_arch.train.checkpoint", "scalable_arch.errors"} <= set(names)
    assert all(sources.fingerprint(name) for name in names) and fingerprint("scalable_arch.none") is None
