"""Behaviour has not changed, or the versions say so; and the canaries notice what they are there for."""

import json
import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from functools import cache

import canaries
import numpy as np
import pytest
import torch
from canaries import CANARIES, FAMILIES, FILE, Canary, main, numbers_of, read

from scalable_arch import list_models
from scalable_arch.nas.discrete import RunningMean
from scalable_arch.nas.search import architecture_gradient
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


def swap(monkeypatch, name, change):
    "Put `change` of our one function of this name in its place, in every module that has it."
    ours = [module for path, module in sys.modules.items() if path.split(".")[0] in ("scalable_arch", "canaries")]
    (old,) = {id(module.__dict__[name]): module.__dict__[name] for module in ours if name in module.__dict__}.values()
    new = change(old)
    for module in ours:
        for key, value in list(vars(module).items()):
            if value is old:
                monkeypatch.setattr(module, key, new)
            for inner in value if isinstance(value, dict) and not key.startswith("__") else ():
                if value[inner] is old:
                    monkeypatch.setitem(value, inner, new)


@pytest.fixture
def nothing_kept():
    "No result of a faulty function is kept for others, nor one of theirs for it."

    def forget():
        for path, module in list(sys.modules.items()):
            if path.startswith("scalable_arch"):
                for value in vars(module).values():
                    getattr(value, "cache_clear", lambda: None)()

    forget()
    yield
    forget()


class NoMean(RunningMean):
    def advantage(self, reward):
        return reward


tripled = lambda old: lambda *given, **options: 3 * old(*given, **options)
detached = lambda old: lambda maps: old(maps).detach()
left_out = lambda old: lambda images, *_, **__: images
nothing = lambda old: lambda *_, **__: None

FAULTS = {  # what is wrong: the canary that must see it, the function, and what becomes of it
    "cross-entropy is tripled": ("naming", "cross_entropy", tripled),
    "a loss by its name is tripled": ("retrieval_losses", "triplet", tripled),
    "triplets are tripled": ("comparing", "triplet", tripled),
    "soft triplets are tripled": ("clip_options", "soft_triplet", tripled),
    "stripes upside down": ("attention_in_clips", "clip_stripes", lambda old: lambda *given: old(*given).flip(2)),
    "other offsets": (
        "attention_in_clips",
        "relative_offsets",
        lambda old: lambda length, known: 0 * old(length, known),
    ),
    "tracks from their middle": (
        "clip_options",
        "restricted_random",
        lambda old: lambda length, clip, *chance: 0 * old(length, clip, *chance),
    ),
    "frames are not mirrored": ("clip_options", "flip_clips", lambda old: lambda clips, _, rects: (clips, rects)),
    "normalisations are not settled": ("clip_options", "settle_norms", nothing),
    "all tracks by one rule": ("video trial", "evaluate_tracks", lambda old: lambda *x, protocol, **y: old(*x, **y)),
    "the loss of boxes is tripled": ("detection", "box_loss", tripled),
    "features and attention are detached": ("distillation", "saliency", detached),
    "nothing is distilled": ("person_search_training", "map_loss", lambda old: lambda s, t, norm: old(s, s, norm)),
    "alignment is tripled": ("alignment", "alignment_loss", tripled),
    "guidance is detached": ("guidance", "attention_vector", detached),
    "another default": (
        "retrieval_options",
        "fit",
        lambda old: lambda *given, lr=0.1, **rest: old(*given, lr=lr, **rest),
    ),
    "pairs share nothing": (
        "clusterings",
        "smooth",
        lambda old: lambda encodings, nearest, k2: old(encodings, nearest, 1),
    ),
    "all preferences are one": (
        "sgc_choices",
        "similarity_ratios",
        lambda old: lambda similarity: 0 * old(similarity) + 1,
    ),
    "weighted triplets are tripled": ("hsr_rounds", "weighted_triplet", tripled),
    "one's own camera is asked": (
        "hsr_rounds",
        "rank_lists",
        lambda old: lambda x, c, *k: old(x, np.arange(len(c)), *k),
    ),
    "classifiers of one seed": (
        "rounds_of_pseudo_labels",
        "renew_classifiers",
        lambda old: lambda model, n, seed=0: old(model, n),
    ),
    "no erasing": ("retrieval_options", "random_erasing", left_out),
    "no mirror images": ("retrieval_options", "random_flip", left_out),
    "no milestones": ("retrieval_options", "scheduled_rate", lambda old: lambda place, lr, **_: lr),
    "no other colours": ("retrieval_options", "random_colour", left_out),
    "a seed is ignored": ("retrieval_options", "epoch_seeds", lambda old: lambda seed, epoch: old(0, epoch)),
    "one shot": ("retrieval_options", "shot_groups", lambda old: lambda labels, _, chance: old(labels, 1, chance)),
    "no cutout": ("classification_options", "cutout", left_out),
    "no crops": ("classification_options", "random_crop", left_out),
    "no mirrored classes": ("classification_options", "random_flip", left_out),
    "a constant rate": ("classification_options", "scheduled_rate", lambda old: lambda place, lr, **_: lr),
    "no scales": (
        "segmentation_scales",
        "random_view",
        lambda old: lambda image, mask, crop, scales, *rest: old(image, mask, crop, (1, 1), *rest),
    ),
    "a rate of its own": ("segmentation_options", "poly_rate", lambda old: lambda step, total, lr, power: lr),
    "the second order is the first": (
        "search_options",
        "second_order_gradient",
        lambda old: lambda net, _, train, check, guidance=None: architecture_gradient(net, *check, guidance),
    ),
    "all rewards are good": ("tabular_searches", "RunningMean", lambda old: NoMean),
    "other regions": ("model.han", "region_height", lambda old: lambda number: 0.9 * old(number)),
    "boxes leave the scene": ("person_search_networks", "clip_boxes", lambda old: lambda boxes, size: boxes),
    "channels stay where they are": ("model.efficient", "channel_shuffle", left_out),
    "weights as torch draws them": ("model.cifar", "draw_weights", nothing),
    "maps get small": ("segmenter", "keep_resolution", nothing),
    "nodes hear their successors": (
        "controllers",
        "augmented_adjacency",
        lambda old: lambda edges, reading="predecessors": old(edges, reading).T,
    ),
    "no dynamic kernels": ("heterogeneous_networks", "calibrate", lambda old: lambda x, a=None, k=None, **_: old(x, a)),
    "cameras are persons": (
        "retrieval",
        "evaluate",
        lambda old: lambda **given: old(**given | {"gallery_camids": given["gallery_pids"]}),
    ),
    "junk is a person": (
        "retrieval",
        "evaluate",
        lambda old: lambda **given: old(**given | {"gallery_pids": given["gallery_pids"] % 99}),
    ),
    "another AP": ("retrieval", "scores_of_places", lambda old: lambda places, ap: old(places, "trapezoid")),
    "no expansion of queries": ("reranking", "smooth", lambda old: lambda codes, nearest, k2: old(codes, nearest, 1)),
    "boxes count twice": (
        "detector",
        "mutual_matches",
        lambda old: lambda boxes, truth, iou: np.ones(len(boxes), bool),
    ),
    "small people are as large": (
        "people_in_scenes",
        "required_overlap",
        lambda old: lambda boxes, iou: 0 * boxes[:, 0],
    ),
    "one is enough": ("naming_rightly", "named_rightly", lambda old: lambda *given, top, **rest: old(*given, **rest)),
    "all pixels count": (
        "naming_pixels",
        "confusion_matrix",
        lambda old: lambda seen, truth, *rest, ignore: old(seen, np.where(truth == ignore, 0, truth), *rest),
    ),
    "seeds do not vary": (
        "rule",
        "estimate",
        lambda old: lambda contrast: replace(old(contrast), seeds_ms=0.0),
    ),
    "a relation is reversed": (
        "rule",
        "relation_verdict",
        lambda old: lambda sign, estimate, *rest: old(sign, replace(estimate, mean=-estimate.mean), *rest),
    ),
    "people to train on are those of the test": (
        "people_to_train_on",
        "world_seed",
        lambda old: lambda name, split, *seed: old(name, "test", *seed),
    ),
    "settled on the test": ("city", "world_seed", lambda old: lambda name, split, *seed: old(name, "test", *seed)),
    "mixed people are those of the test": (
        "mixed",
        "plan_mixed",
        lambda old: lambda split, people: old("test", people),
    ),
    "the first tenth is held out": (
        "images_held_out",
        "last_tenth",
        lambda old: lambda labels: old(labels[::-1])[::-1],
    ),
    "everybody dresses alike": ("plaza", "make_person", lambda old: lambda pid, seed, crowd: old(1, seed, crowd)),
    "boxes by hand": ("people", "draw_box", lambda old: lambda *given: old(*given[:3], "labelled")),
    "no borders": (
        "masks",
        "mask_of",
        lambda old: lambda shares, samples: np.where(old(shares, samples) > 3, 0, 0).astype(np.uint8),
    ),
    "queries of one protocol": ("scenes", "choose_queries", lambda old: lambda scenes, protocol: old(scenes, "prw")),
    "all frames": ("walkers", "vtest_gallery", lambda old: lambda tracks, frames, *_: np.arange(len(frames))),
    "the first images": (
        "images_of_classes",
        "choose_subset",
        lambda old: lambda labels, limit, seed: np.arange(limit),
    ),
    "another white": ("images_from_files", "IMAGENET_STD", lambda old: (0.23, 0.224, 0.225)),
    "a search's cameras": (
        "reid trial",
        "evaluate",
        lambda old: lambda **given: old(**given | {"gallery_camids": given["gallery_pids"]}),
    ),
    "the other half of a feature": (
        "reid trial",
        "queries_of",
        lambda old: lambda found, x, part: old(found, x[:, ::-1], part),
    ),
    **{
        f"weights without seed, {name}": (
            name,
            f"untrained_{net}",
            lambda old: lambda config, n: old(config | {"seed": 0}, n),
        )
        for name, net in {
            "person search trial": "person_search_net",
            "classification trial": "classifier",
            "search trial, nge": "supernet",
            "segmentation trial": "segmenter",
        }.items()
    },
    "everything is background": (
        "segmentation trial",
        "predict_segmentation",
        lambda old: lambda *given, **rest: 0 * old(*given, **rest),
    ),
    "no embeddings": ("search trial, nge", "embeddings_of", lambda old: lambda controller: {}),
    "no regrets": ("tabular trial, macro", "regrets", lambda old: lambda table, found: 0 * old(table, found)),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_moves_its_canary(what, monkeypatch, nothing_kept):
    name, function, change = FAULTS[what]
    swap(monkeypatch, function, change)
    sentence, renewable = canaries.fault(CANARIES[name], numbers_of(CANARIES[name]), read(FILE)[name])
    assert f"canary {name} moved" in sentence and not renewable


# What a canary finds is its own


def test_a_canary_leaves_random_numbers_precision_and_cache_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    numbers = numbers_of(CANARIES["persons_as_classes"])
    assert torch.equal(torch.rand(1), expected) and torch.get_default_dtype() == torch.float32
    assert os.environ["SCALABLE_ARCH_CACHE"] == str(tmp_path) and not list(tmp_path.iterdir())
    assert numbers == found("persons_as_classes")


def test_an_error_in_a_canary_gives_precision_back():
    with pytest.raises(ZeroDivisionError):
        numbers_of(Canary("broken", ("model.han",), lambda: 1 / 0, 0))
    assert torch.get_default_dtype() == torch.float32


# The command

GUARDED = "claims.rule"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    "A function: the command with one canary of these numbers; returns (code, what the file has, what it complains of)."
    file = tmp_path / "canaries.json"
    for name in (GUARDED, "model.han"):
        monkeypatch.setitem(VERSIONS, name, 1)  # whatever they are today

    def run(*arguments, within=1e-11, **numbers):
        one = Canary("one", (GUARDED, "model.han"), lambda: numbers, within)
        monkeypatch.setattr(canaries, "CANARIES", {"one": one})
        code = main(["--file", str(file), *arguments])
        return code, read(file), capsys.readouterr().err

    return run


def test_a_new_canary_is_added_and_agrees(run):
    assert run("--check", a=1.5)[0] == 1
    code, records, complaint = run(a=1.5)
    assert code == 0 and not complaint
    assert records == {
        "one": {"versions": {name: VERSIONS[name] for name in (GUARDED, "model.han")}, "numbers": {"a": 1.5}}
    }
    assert run("--check", a=1.5) == (0, records, "")


def test_what_moved_is_refused_in_one_sentence_and_the_file_is_kept(run):
    _, before, _ = run(a=1.5, b=2.0)
    code, records, complaint = run(a=1.6, b=2.5)
    assert code == 2 and records == before
    assert complaint == (
        "canary one moved: 'a' was 1.5 and is 1.6, with 1 more of its numbers: raise the version of one of "
        f"{GUARDED}, model.han in nbs/versions.ipynb, or undo the change\n"
    )


def test_what_moved_is_renewed_once_a_version_was_raised(run, monkeypatch):
    run(a=1.5)
    raised = {GUARDED: VERSIONS[GUARDED] + 1, "model.han": VERSIONS["model.han"]}
    monkeypatch.setitem(VERSIONS, GUARDED, raised[GUARDED])
    code, _, complaint = run("--check", a=1.6)
    assert code == 1 and f"{GUARDED} was raised: renew with: python tests/canaries.py" in complaint
    code, records, _ = run(a=1.6)
    assert code == 0 and records["one"] == {"versions": raised, "numbers": {"a": 1.6}}
    assert run("--check", a=1.6)[0] == 0


def test_a_version_that_was_lowered_is_no_reason(run, monkeypatch):
    run(a=1.5)
    monkeypatch.setitem(VERSIONS, GUARDED, 0)
    assert run(a=1.6)[0] == 2


def test_a_raised_version_wants_its_numbers_renewed_even_if_none_moved(run, monkeypatch):
    run(a=1.5)
    monkeypatch.setitem(VERSIONS, "model.han", 2)
    assert run("--check", a=1.5)[0] == 1
    assert run(a=1.5)[1]["one"]["versions"]["model.han"] == 2


def test_numbers_that_agree_keep_their_digits_and_others_come_and_go(run):
    run(a=1.5, b=1.0)
    assert run("--check", a=1.5)[0] == 1
    code, records, _ = run(a=1.5 + 1e-9, c=3.0)
    assert code == 0 and records["one"]["numbers"] == {"a": 1.5, "c": 3.0}


@pytest.mark.parametrize("value, same", [(1e-12, True), (1e-10, False)])
def test_near_0_numbers_may_differ_by_what_their_canary_says(run, value, same):
    run(a=0.0)
    assert (run("--check", a=value)[0] == 0) == same
    assert run("--check", a=value, within=1e-9)[0] == 0


def test_a_canary_that_there_is_not_is_one_sentence(run):
    with pytest.raises(SystemExit, match="2"):
        main(["two"])


def test_the_command_by_itself(tmp_path):
    file, record = tmp_path / "numbers.json", read(FILE)["naming"]
    file.write_text(json.dumps({"naming": record | {"numbers": record["numbers"] | {"loss": 9.0}}}))
    command = [sys.executable, canaries.__file__, "--file", str(file), "naming", "rule"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "canary naming moved: 'loss' was 9.0 and is" in done.stderr
