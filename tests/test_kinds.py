"""The kinds of trial: exactly what each rests on, weights that are trained again where that has changed and only there,
and one line about each."""

import shutil
import warnings

import pytest

from scalable_arch import versions
from scalable_arch.kinds import KINDS, classification, person_search, reid, segmentation, weights
from scalable_arch.kinds.titles import model_title
from scalable_arch.models import MODELS
from scalable_arch.study.kind import Kind

DIGITS = {"dataset": "digits", "limit": 60, "size": 8}
RECIPE = {"epochs": 1, "batch_size": 30, "cutout": 0, "drop_path": 0.0, "crop_padding": 1}
REID = {
    "kind": "reid",
    "model": "han_small",
    "options": {"widths": [8, 16, 24], "stem_width": 4, "feature_dim": 32},
    "train": {"world": "plaza", "people": 4},
    "search": {"test": {"world": "plaza", "people": 4}},
    "size": [64, 32],
    "recipe": {"epochs": 1, "milestones": []},
    "keep_model": True,
    "seed": 3,
}
SCENES = {"world": "yard", "people": 4, "scenes": 4}
ON_SCENES = {"train": SCENES, "size": [96, 128], "recipe": {"epochs": 1, "batch_size": 2, "milestones": []}, "seed": 1}
STUDENT = {
    "kind": "person_search",
    "model": "hdl_student",
    "options": {"widths": [8, 16, 24, 32], "stem_width": 4, "anchor_heights": [24, 40]},
    **ON_SCENES,
    "search": {"test": SCENES},
}
TAUGHT = {
    **STUDENT,
    "teacher": {"model": "hdl_teacher", "options": {"width": 0.0625, "anchor_heights": [24, 40]}, **ON_SCENES},
    "distill": ["prediction"],
}
CELLS = {
    "kind": "classification",
    "genotype": {"space": "nge", "random": 0},
    "network": {"channels": 4, "cells": 3, "auxiliary": False},
    "train": DIGITS,
    "test": {"digits": DIGITS},
    "recipe": RECIPE,
    "seed": 0,
}
RESNET = {
    "kind": "classification",
    "model": "resnet18_cifar",
    "options": {"width": 16},
    "train": {"people": 3, "size": 16},
    "test": {"test": {"people": 3, "size": 16}},
    "recipe": RECIPE,
    "seed": 0,
}
SEARCH = {
    "kind": "search",
    "space": "nge",
    "supernet": {"channels": 4, "cells": 3},
    "train": DIGITS,
    "search": {"epochs": 1, "batch_size": 10},
    "seed": 0,
}
TEACHER = {
    "model": "pyramidnet110_cifar",
    "options": {"depth": 11, "alpha": 6, "width": 4},
    "train": DIGITS,
    "recipe": RECIPE,
    "seed": 0,
}
GUIDED = SEARCH | {
    "space": "darts",
    "search": SEARCH["search"] | {"guided": "weights"},
    "teacher": TEACHER,
    "guidance": {"weight": 10.0},
}
MASKS = {"dataset": "scenes", "scenes": 4, "people": 4, "cameras": 2, "size": [64, 64]}
SEGMENTS = {
    "kind": "segmentation",
    "genotype": {"space": "nge", "random": 0},
    "network": {"channels": 4, "cells": 3},
    "head": {"channels": 16, "rates": [1, 2, 3]},
    "train": MASKS,
    "test": {"scenes": MASKS},
    "recipe": {"epochs": 1, "batch_size": 2, "crop": [64, 64]},
    "seed": 0,
}
TABLE = {"kind": "tabular", "table": "macro", "budget": 20, "seed": 0, "searches": {"random": {"search": "random"}}}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    "A cache for all tests here, for what is rendered."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_weights_yet(worlds, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(worlds))
    shutil.rmtree(worlds / "models", ignore_errors=True)


def run(config):
    return KINDS[config["kind"]].run(config, checkpoint=None, given={}, progress=False)


def test_every_kind_is_asked_for_by_its_name():
    assert all(isinstance(kind, Kind) and kind.name == name for name, kind in KINDS.items())


PEOPLE = "kind.reid recipe.retrieval score.retrieval world.people "
ON_YARD = "kind.person_search recipe.person_search loss.detection score.detection score.person_search "
ON_YARD += "world.people world.scenes world.yard model.hdl "
NAMED = "kind.classification recipe.classification score.classification "
SEARCHED = "kind.search recipe.search recipe.classification model.cells data.classification "
GUIDANCE = "model.nos loss.guidance kind.classification model.cifar "
RESTS_ON = [
    (REID, PEOPLE + "world.plaza model.han loss.cross_entropy"),
    (REID | {"parts": ["joint", "joint RR"]}, PEOPLE + "world.plaza model.han loss.cross_entropy score.reranking"),
    (
        REID | {"train": {"mixed": True, "people": 3}, "search": {"real people": {"video": "vtest"}}},
        PEOPLE + "world.mixed data.vtest model.han loss.cross_entropy",
    ),
    (
        REID | {"model": "resnet50_reid", "recipe": {"loss": "cross_entropy+triplet"}},
        PEOPLE + "world.plaza model.embedding model.resnet loss.cross_entropy loss.triplet",
    ),
    (
        REID | {"model": "shufflenet_reid", "recipe": {"loss": "triplet"}, "search": {"test": {"world": "city"}}},
        PEOPLE + "world.plaza world.city model.embedding model.efficient loss.triplet",
    ),
    (
        REID | {"train": {"dataset": "market1501"}, "search": {"test": {"dataset": "market1501"}}},
        "kind.reid recipe.retrieval score.retrieval data.images model.han loss.cross_entropy",
    ),
    (STUDENT, ON_YARD),
    (TAUGHT, ON_YARD + "model.resnet loss.distillation"),
    (STUDENT | {"model": "hdl_teacher"}, ON_YARD + "model.resnet"),
    (STUDENT | {"search": {"test": SCENES, "real people": {"video": "vtest"}}}, ON_YARD + "data.vtest"),
    (CELLS, NAMED + "data.classification model.cells"),
    (CELLS | {"genotype": {"space": "nos", "random": 1}}, NAMED + "data.classification model.cells model.nos"),
    (RESNET, NAMED + "world.people world.classes model.cifar"),
    (
        RESNET | {"calibration": {"name": "dynamic_conv_3x3", "dilation": 1}},
        NAMED + "world.people world.classes model.cifar model.nos",
    ),
    (
        CELLS | {"test": {"persons": {"people": 3}}},
        NAMED + "data.classification world.people world.classes model.cells",
    ),
    (SEARCH, SEARCHED),
    (SEARCH | {"controller": {"kind": "rnn"}}, SEARCHED + "model.nge"),
    (SEARCH | {"space": "nos"}, SEARCHED + "model.nos"),
    (GUIDED, SEARCHED + GUIDANCE),
    (
        SEGMENTS,
        "kind.segmentation recipe.segmentation score.segmentation model.deeplab model.cells world.people world.scenes "
        "world.masks",
    ),
    (TABLE, "kind.tabular recipe.tabular data.macro"),
    (TABLE | {"table": "invented"}, "kind.tabular recipe.tabular"),
    (
        TABLE | {"searches": {"a": {"search": "reinforce", "policy": "logits"}, "b": {"policy": "nge"}}},
        "kind.tabular recipe.tabular data.macro model.nge",
    ),
]


@pytest.mark.parametrize("number", range(len(RESTS_ON)))
def test_a_trial_rests_on_just_this(number):
    config, names = RESTS_ON[number]
    assert set(versions.versions_of(KINDS[config["kind"]].versions(config))) == set(names.split())


def test_every_model_has_its_versions():
    assert all(versions.versions_of(weights.model_versions(name)) for name in MODELS)
    with pytest.raises(ValueError, match="did you mean 'han_small'"):
        weights.model_versions("han_smal")


# name: configuration, what trains it, a version to raise for training again, how many trainings that takes, one beside
TRAININGS = {
    "reid": (REID, (reid, "fit"), "loss.cross_entropy", 1, "score.retrieval"),
    "student": (TAUGHT, (person_search, "fit_person_search"), "loss.distillation", 1, "score.person_search"),
    "teacher": (TAUGHT, (person_search, "fit_person_search"), "model.resnet", 2, "score.detection"),
    "classification": (CELLS, (classification, "fit_classifier"), "model.cells", 1, "score.classification"),
    "segmentation": (SEGMENTS, (segmentation, "fit_segmentation"), "world.masks", 1, "score.segmentation"),
    "guidance": (GUIDED, (classification, "fit_classifier"), "recipe.classification", 1, "loss.guidance"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_weights_are_trained_again_where_a_version_they_rest_on_was_raised_and_only_there(monkeypatch, name):
    config, (module, fit), rests_on, trainings, beside = TRAININGS[name]
    count, train = [], getattr(module, fit)
    monkeypatch.setattr(module, fit, lambda *args, **options: count.append(1) or train(*args, **options))

    def trainings_of_a_run():
        count.clear()
        return run(config), len(count)

    first, trained = trainings_of_a_run()
    assert trained == (2 if config is TAUGHT else 1)
    assert trainings_of_a_run() == (first, 0)
    monkeypatch.setitem(versions.VERSIONS, beside, 2)
    assert trainings_of_a_run() == (first, 0)
    monkeypatch.setitem(versions.VERSIONS, rests_on, 2)
    assert trainings_of_a_run() == (first, trainings)  # the code is the same here, so the numbers are
    assert trainings_of_a_run() == (first, 0)


PATHS = {
    "reid": (REID, reid.reid_weights_path),
    "person_search": (STUDENT, person_search.person_search_weights_path),
    "classification": (CELLS, classification.classifier_weights_path),
    "segmentation": (SEGMENTS, segmentation.segmenter_weights_path),
}


@pytest.mark.parametrize("kind", PATHS)
def test_weights_that_cannot_be_used_are_trained_again_with_a_warning(kind):
    config, path_of = PATHS[kind]
    first, path = run(config), path_of(config)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"{path} is damaged or holds another network"):
        assert run(config) == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(config) == first  # the file is whole again


def test_weights_of_another_network_are_not_taken():
    run(REID)
    other = REID | {"options": {**REID["options"], "feature_dim": 16}}
    first = run(other)
    path = reid.reid_weights_path(other)
    path.write_bytes(reid.reid_weights_path(REID).read_bytes())
    with pytest.warns(UserWarning, match="another network"):
        assert run(other) == first


ABOUT = [
    (REID | {"model": "han_large"}, "HAN (Large), plaza"),
    (REID | {"model": "resnet50_reid", "train": {"mixed": True, "people": 3}}, "ResNet-50, mixed world"),
    (TAUGHT, "HDL (Student), taught by prediction, yard"),
    (CELLS | {"genotype": {"space": "nge", "random": 3}}, "cells of nge, random 3, digits"),
    (
        RESNET | {"calibration": {"name": "channel_attention"}},
        "ResNet-18 with channel_attention, dilation 1, 3 persons",
    ),
    (SEARCH, "search in nge by alphas, digits"),
    (GUIDED, "search in darts by alphas, guided by PyramidNet-110, digits"),
    (SEGMENTS, "DeepLabv3 on cells of nge, random 0, scenes"),
    (TABLE, "1 searches in NAS-Bench-Macro, 20 queries"),
]
SAID = [
    ("reid", {"test": {"joint": {"R1": 0.587, "mAP": 0.47, "mINP": 0.1}}}, "test R1 58.7, mAP 47.0"),
    (
        "reid",
        {"a": {"local": {"R1": 0.5, "mAP": 0.25}}, "b": {"joint": {"R1": 1.0, "mAP": 1.0}}},
        "a R1 50.0, mAP 25.0; b R1 100.0, mAP 100.0",
    ),
    (
        "person_search",
        {"test": {"detection": {"AP": 0.4, "recall": 0.5}, "all scenes": {"R1": 0.2, "mAP": 0.1}}},
        "test R1 20.0, mAP 10.0",
    ),
    (
        "person_search",
        {"test": {"detection": {"AP": 0.4}, "gallery 20": {"R1": 0.3, "mAP": 0.1}}},
        "test R1 30.0, mAP 10.0",
    ),
    ("classification", {"test": {"top1": 0.123, "top5": 0.01}}, "test top-1 error 12.3, top-5 error 1.0"),
    ("search", {"search": {"train": 0.7, "valid": 0.65}}, "accuracy train 70.0, valid 65.0"),
    (
        "segmentation",
        {"test": {"mIoU": 0.3, "pixel_accuracy": 0.8, "IoU": {"person": 0.1}}},
        "test mIoU 30.0, pixels right 80.0",
    ),
    ("tabular", {"evolution": {"regret": 0.047, "accuracy": 93.0}}, "regret evolution 0.05"),
]


@pytest.mark.parametrize("config, words", ABOUT)
def test_a_trial_in_a_few_words(config, words):
    assert KINDS[config["kind"]].about(config) == words


@pytest.mark.parametrize("kind, metrics, words", SAID)
def test_scores_in_one_line(kind, metrics, words):
    assert KINDS[kind].said(metrics) == words


def test_models_are_spelled_as_their_papers_do():
    assert model_title("darts_v2_imagenet") == "DARTS (V2)" and model_title("condensenet_reid") == "CondenseNet"
    assert all(model_title(name)[0].isupper() for name in MODELS)
