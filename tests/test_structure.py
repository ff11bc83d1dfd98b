"""`nn.structure`: what tells two networks or functions apart, and what does not."""

import copy
import json
from dataclasses import dataclass
from enum import Enum
from functools import partial, wraps
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch.models import MODELS, create_model, list_models
from scalable_arch.nn.structure import (
    as_text,
    changing,
    description,
    difference,
    function_facts,
    name_of,
    settled_facts,
)


@dataclass
class Options:
    width: int
    names: tuple = ()


class Place(NamedTuple):
    row: int


class Colour(Enum):
    RED = 1
    BLUE = 2


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain, plain)
def test_texts_are_equal_where_values_are(a, b):
    assert as_text(a) == as_text(copy.deepcopy(a))
    if as_text(a) == as_text(b):
        assert repr(a) == repr(b)


@pytest.mark.parametrize(
    "a, b",
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.zeros(2).double()),
        (torch.zeros(2), torch.tensor([0.0, 1e-30])),
        (np.zeros(2), np.array([0, 1e-30])),
        (Options(1), Options(2)),
        (Place(1), Place(2)),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)),
        (Colour.RED, Colour.BLUE),
        (nn.ReLU, nn.GELU),
        (F.relu, F.gelu),
        ({1, 2}, {1, 3}),
        (nn.Conv2d(3, 4, 3, stride=1), nn.Conv2d(3, 4, 3, stride=2)),
        (partial(F.leaky_relu, negative_slope=0.1), partial(F.leaky_relu, negative_slope=0.2)),
        (torch.float32, torch.float64),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_differ_have_other_texts(a, b):
    assert as_text(a) != as_text(b) and as_text(a) == as_text(copy.deepcopy(a))


def test_numbers_of_numpy_and_torchs_layouts_are_the_same():
    assert as_text(np.float64(0.5)) == as_text(0.5) and as_text([1, 2]) == as_text((1, 2)) == as_text(
        torch.Size([1, 2])
    )
    x = torch.rand(2, 3, 4, 5)
    assert as_text(x) == as_text(x.contiguous(memory_format=torch.channels_last)) == as_text(nn.Parameter(x))
    assert as_text(torch.empty(3, device="meta")) == "torch.float32 (3,)"


def test_what_holds_itself_has_a_text():
    whole = {}
    whole["self"] = whole
    model = nn.Linear(1, 1)
    model.friends = [model]
    assert "..." in as_text(whole) and "..." in description(model)[""]["friends"]


def maker(scale):
    return lambda x: scale * x


LIMIT = 1


def limited(x):
    return x.clamp(max=LIMIT)


def test_functions_are_known_by_what_they_do(monkeypatch):
    assert function_facts(maker(1)) == function_facts(maker(1)) != function_facts(maker(2))
    assert function_facts(lambda x: x + 1)["code"] != function_facts(lambda x: x + 2)["code"]
    assert function_facts(lambda x: x + 1)["code"] != function_facts(lambda x: x - 1)["code"]
    assert (
        function_facts(lambda x: (lambda y: y + 1)(x))["code"] != function_facts(lambda x: (lambda y: y + 2)(x))["code"]
    )
    assert function_facts(lambda x: x.sin())["code"] != function_facts(lambda x: x.cos())["code"]
    named = maker(1)
    named.__qualname__ = "mine"
    assert function_facts(named) == {"name": "mine"}
    wrapped = [wraps(limited)(maker(scale)) for scale in (1, 2)]
    assert function_facts(wrapped[0]) != function_facts(wrapped[1])
    before = function_facts(limited)
    monkeypatch.setitem(globals(), "LIMIT", 2)
    assert function_facts(limited) != before


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_described_by_plain_texts_and_known_again(name):
    options = {"num_classes": 3} | ({"channels": 4, "cells": 3} if MODELS[name] == "nas.networks" else {})
    first, again = (create_model(name, **options) for _ in range(2))
    described = description(first)
    assert json.loads(json.dumps(described)) == described == description(again) == description(copy.deepcopy(first))
    assert difference(described, description(again.double().eval())) is None and name_of(first) == name
    assert described.keys() == dict(first.named_modules(remove_duplicate=False)).keys()


def test_models_of_the_same_shapes_differ_in_pairs():
    hans = [
        create_model(f"han_{size}", num_classes=3, widths=(8, 8, 8), feature_dim=16)
        for size in ("small", "medium", "large")
    ]
    for a in hans:
        for b in hans:
            assert (difference(description(a), description(b)) is None) == (a is b)


class Walker(nn.Module):
    def __init__(self, mode="slow"):
        super().__init__()
        self.layer, self.mode, self.steps, self._cache = nn.Linear(2, 2), mode, 0, None

    def forward(self, x):
        self.steps, self._cache, self.last = self.steps + 1, x, x.sum()
        return self.layer(x)


def test_what_changed_does_not_count_and_the_rest_does():
    model = Walker()
    before = description(model)
    model(torch.ones(1, 2))
    moved = changing(before, description(model))
    assert moved == [["", "_cache"], ["", "last"], ["", "steps"]]
    assert difference(before, description(model), moved) is None
    assert "mode is 'slow' there and 'fast' here" in difference(before, description(Walker("fast")), moved)
    kept = settled_facts(model, description(model))[""]
    assert kept == {"class": "Walker", "mode": "'slow'"}


def test_modes_hooks_and_names_are_no_part_of_a_network():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
    before = description(model)
    model.eval().register_forward_hook(lambda *_: None)
    model.made_by = {"name": "mine", "options": {}}
    assert description(model) == before and name_of(model) == "mine"
    model[1].p = 0.2
    assert "1.p is 0.1 there and 0.2 here" == difference(before, description(model))
    assert settled_facts(model, before) == settled_facts(model, description(model))


def test_modules_that_are_missing_are_named():
    two, three = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh())
    assert difference(description(two), description(three)) == "2 is a Tanh here and missing there"
    assert difference(description(three), description(two)) == "2 is a Tanh there and missing here"


def test_buffers_that_no_file_holds_count():
    first, second = nn.Module(), nn.Module()
    for module, value in ((first, 1.0), (second, 2.0)):
        module.register_buffer("graph", torch.tensor([value]), persistent=False)
        module.register_buffer("kept", torch.tensor([value]))
    assert difference(description(first), description(second)).startswith("graph is torch.float32 (1,) ")
