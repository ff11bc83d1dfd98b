"""Behaviour has not changed, or the versions say so; and the canaries notice what they are there for."""

import math
import os
import platform
import subprocess
import sys
from functools import cache

import canaries
import pytest
import torch
from canaries import CANARIES, FAMILIES, FILE, numbers_of, read

from scalable_arch import list_models
from scalable_arch.versions import VERSIONS

found = cache(lambda name: numbers_of(CANARIES[name]))  # each is computed once for all tests


def test_every_version_has_a_canary_and_every_canary_guards_versions():
    guarded = {name for one in CANARIES.values() for name in one.guards}
    assert guarded == set(VERSIONS)


def test_every_model_is_exercised():
    assert {name for models in FAMILIES.values() for name in models} | {"hdl_teacher", "hdl_student"} == set(
        list_models()
    )


@pytest.mark.parametrize("name", CANARIES)
def test_canary(name):
    sentence, _ = canaries.fault(CANARIES[name], found(name), read(FILE).get(name))
    if sentence:
        pytest.fail(sentence, pytrace=False)


def test_no_canary_is_left_over():
    assert read(FILE).keys() == CANARIES.keys(), "renew with: python tests/canaries.py"


OLDER = {  # a processor as of 2013; of numba both, for the name alone leaves this processor's features
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma",
}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="this processor has no AVX-512 to switch off",
)
def test_an_older_processor_finds_the_same_numbers():
    command = [sys.executable, "-W", "ignore", canaries.__file__, "--check"]
    done = subprocess.run(command, env=os.environ | OLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "AVX2" in done.stdout


# A canary that cannot move is none


def test_all_numbers_are_numbers_and_nothing_that_learns_has_no_gradient():
    for name, record in read(FILE).items():
        for number, value in record["numbers"].items():
            assert math.isfinite(value), (name, number)
            assert value or not number.endswith("gradient"), f"{name}: {number} is 0"


def variants(numbers):
    "{variant: its numbers} of a canary that has a plain one."
    kinds = [number.removeprefix("plain ") for number in numbers if number.startswith("plain ")]
    names = {number.removesuffix(f" {kind}") for number in numbers for kind in kinds if number.endswith(f" {kind}")}
    return {
        name: [numbers.get(f"{name} {kind}") for kind in kinds] for name in names if f"{name} {kinds[0]}" in numbers
    }


def test_every_option_of_a_canary_changes_something():
    several = {name: variants(record["numbers"]) for name, record in read(FILE).items()}
    several = {name: each for name, each in several.items() if len(each) > 1}
    assert {"retrieval_options", "classification_options", "segmentation_options", "search_options"} <= several.keys()
    for name, each in several.items():
        plain = each.pop("plain")
        assert not [variant for variant, numbers in each.items() if numbers == plain], name
