"""Trials of searches, classifiers and segmentation: the same again, after a kill and from the cache; what their seeds
decide."""

import json
import shutil

import numpy as np
import pytest
import torch

from scalable_arch.data import open_source
from scalable_arch.kinds import KINDS, cell_search, classification, segmentation
from scalable_arch.kinds.classification import (
    classification_versions,
    classifier_weights_path,
    configured_genotype,
    image_sources,
    learnt_and_tested,
    trained_classifier,
    untrained_classifier,
)
from scalable_arch.kinds.weights import training_seed
from scalable_arch.nas.genotype import PUBLISHED, Genotype
from scalable_arch.train.classify import accuracy

DIGITS = {"dataset": "digits", "limit": 60, "size": 8}
RECIPE = {"epochs": 1, "batch_size": 30, "cutout": 0, "drop_path": 0.0, "crop_padding": 1}
CELLS = {
    "kind": "classification",
    "genotype": {"space": "nge", "random": 0},
    "network": {"channels": 4, "cells": 3, "auxiliary": False},
    "train": DIGITS,
    "test": {"digits": DIGITS},
    "recipe": RECIPE,
    "seed": 0,
}
SEARCH = {
    "kind": "search",
    "space": "nge",
    "controller": {"kind": "plain"},
    "supernet": {"channels": 4, "cells": 3},
    "train": DIGITS,
    "search": {"epochs": 2, "batch_size": 15},
    "embeddings": 2,
    "seed": 0,
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
TEACHER = {
    "model": "pyramidnet110_cifar",
    "options": {"depth": 11, "alpha": 6, "width": 4},
    "train": DIGITS,
    "recipe": RECIPE,
    "seed": 0,
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    "A cache for all tests here, for what is rendered."
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_weights_yet(worlds, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(worlds))
    shutil.rmtree(worlds / "models", ignore_errors=True)


def run(config, checkpoint=None):
    return KINDS[config["kind"]].run(config, checkpoint=checkpoint, given={}, progress=False)


def test_a_classifier_is_the_same_from_the_cache_and_anew():
    first = run(CELLS)
    assert run(CELLS) == first
    classifier_weights_path(CELLS).unlink()
    assert run(CELLS) == first
    model, _ = trained_classifier(CELLS)
    right = accuracy(model, *open_source(DIGITS, "test", task="classification"))
    assert first["metrics"]["digits"]["top1"] == pytest.approx(1 - right) == np.mean(first["queries"]["digits"]["top1"])
    assert first["metrics"]["digits"]["top5"] <= first["metrics"]["digits"]["top1"]


def test_weights_are_named_by_their_training_alone():
    path = classifier_weights_path(CELLS)
    assert classifier_weights_path(CELLS | {"test": {}}) == path
    assert len({path, *(classifier_weights_path(CELLS | {"seed": seed}) for seed in (1, 2))}) == 3


def test_a_segmenter_is_the_same_from_the_cache_and_anew():
    first = run(SEGMENTS)
    path = segmentation.segmenter_weights_path(SEGMENTS)
    assert path.is_file() and run(SEGMENTS) == first
    path.unlink()
    assert run(SEGMENTS) == first and set(first["metrics"]["scenes"]) == {"mIoU", "pixel_accuracy", "IoU"}


def test_a_search_that_was_killed_gives_the_same_record(monkeypatch, tmp_path):
    whole = run(SEARCH)
    steps, count = cell_search.search, []

    def killed(*args, on_epoch, **options):
        def then_die(entry):
            on_epoch(entry)
            if entry["epoch"] == 2:
                raise KeyboardInterrupt

        count.append(1)
        return steps(*args, on_epoch=then_die, **{**options, "checkpoint_every": 1})

    monkeypatch.setattr(cell_search, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        run(SEARCH, tmp_path / "training")
    monkeypatch.setattr(cell_search, "search", steps)
    assert (tmp_path / "training").is_dir() and count
    assert run(SEARCH, tmp_path / "training") == whole
    assert Genotype.from_json(whole["genotype"]).space.name == "nge"
    embeddings = whole["curves"][1]["embeddings"]["reduction"]
    assert "embeddings" not in whole["curves"][0] and np.shape(embeddings["nodes"]) == (6, 64)
    assert np.allclose(np.sum(whole["curves"][1]["probabilities"]["normal"], 1), 1, atol=1e-3)


def test_a_guided_search_follows_its_teacher():
    guided = {
        **SEARCH,
        "space": "nos",
        "controller": {"kind": "alphas"},
        "search": {"epochs": 1, "batch_size": 10, "guided": "weights"},
        "teacher": TEACHER,
        "guidance": {"weight": 10.0},
    }
    record = run(guided)
    assert Genotype.from_json(record["genotype"]).space.name == "nos"
    assert classifier_weights_path(TEACHER).is_file()
    other = run({**guided, "teacher": {**TEACHER, "seed": 1}})
    assert other["curves"][0]["loss"] != record["curves"][0]["loss"]


UNTRAINED = {
    "genotype": (untrained_classifier, {**CELLS, "genotype": PUBLISHED["darts_v2"].to_json()}),
    "model": (untrained_classifier, TEACHER),
    "supernet": (cell_search.untrained_supernet, SEARCH),
    "segmenter": (segmentation.untrained_segmenter, {**SEGMENTS, "genotype": PUBLISHED["darts_v2"].to_json()}),
}


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_seed_decides_initial_weights(name):
    (make, config), weights = UNTRAINED[name], []
    for seed, before in ((3, 0), (3, 1), (4, 1)):
        torch.manual_seed(before)  # what was drawn before must not matter
        weights.append(torch.cat([x.detach().flatten() for x in make({**config, "seed": seed}, 4).parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


FITTED = {
    "classification": (classification, "fit_classifier", CELLS, trained_classifier),
    "segmentation": (segmentation, "fit_segmentation", SEGMENTS, segmentation.trained_segmenter),
}


@pytest.mark.parametrize("kind", FITTED)
def test_a_seed_and_a_recipe_reach_the_training(monkeypatch, kind):
    module, name, config, train = FITTED[kind]
    given_to_fit = []

    def noted(model, images, truth, *, seed, checkpoint, progress, **recipe):
        given_to_fit.append((seed, recipe, images.clone()))
        return [{"epoch": 1, "loss": 0.0}]

    monkeypatch.setattr(module, name, noted)
    for seed in (3, 4):
        train({**config, "seed": seed})
    (seed, recipe, images), (other, _, others) = given_to_fit
    assert (seed, other) == tuple(training_seed({**config, "seed": given}) for given in (3, 4)) and seed != other
    assert recipe == config["recipe"]
    assert torch.equal(images, others)  # a seed is one of weights and batches


@pytest.mark.parametrize(
    "row, cells", [("nos", {"space": "nos", "random": 1}), ("darts_v2", PUBLISHED["darts_v2"].to_json())]
)
def test_genotypes_drawn_or_written_out_become_networks(row, cells):
    network = untrained_classifier({**CELLS, "genotype": cells}, 10)
    assert network.eval()(torch.rand(2, 3, 8, 8)).shape == (2, 10)
    assert ("model.nos" in classification_versions({**CELLS, "genotype": cells})) == (row == "nos")
    found = configured_genotype({"genotype": cells, "seed": 3})
    assert found == configured_genotype(
        {"genotype": json.loads(json.dumps(cells)), "seed": 3}
    ) and found.space.name == ("nos" if row == "nos" else "darts")


def test_calibrations_reach_the_network():
    config = {
        "model": "resnet18_cifar",
        "options": {"width": 16},
        "calibration": {"name": "dynamic_conv_3x3", "dilation": 2},
        "train": CELLS["train"],
        "seed": 0,
    }
    with_it, without = (
        untrained_classifier(config, 10),
        untrained_classifier({key: value for key, value in config.items() if key != "calibration"}, 10),
    )
    assert sum(p.numel() for p in with_it.parameters()) > sum(p.numel() for p in without.parameters())


@pytest.mark.parametrize(
    "dataset, used",
    [
        ("fashion_mnist", ["fashion_mnist", "persons"]),
        ("digits", ["digits", "persons"]),
        ("cifar10", ["CIFAR-10", "CIFAR-100"]),
    ],
)
def test_what_stands_in_for_what(dataset, used):
    sources, names = image_sources(dataset, size=16, people=5, shots=2)
    assert list(names.values()) == used and list(sources) == list(names) == ["CIFAR-10", "CIFAR-100"]
    for source in sources.values():
        both, limits = learnt_and_tested(source, 200, 100), (None, None) if "people" in source else (200, 100)
        assert (both["train"].get("limit"), both["test"]["test"].get("limit")) == limits
        assert source.items() <= both["train"].items() and source["size"] == 16
        quarter = learnt_and_tested(source, 200, 100, 0.25)
        assert quarter["test"] == both["test"]
        assert (quarter["train"].get("limit"), quarter["train"].get("shots")) in {(50, None), (None, 1)}
        assert ("held_out" in source) == (source.get("dataset") in ("digits", "fashion_mnist"))


@pytest.mark.parametrize(
    "config, words",
    [
        ({**SEARCH, "space": "ngee"}, "unknown space 'ngee'"),
        ({**SEARCH, "controller": {"kind": "gcn"}}, "unknown controller 'gcn'"),
        ({**CELLS, "genotype": {"space": "dart", "random": 0}}, "did you mean 'darts'"),
        ({**CELLS, "train": {"dataset": "digitz"}}, "did you mean 'digits'"),
    ],
)
def test_mistakes_in_a_configuration_are_one_sentence(config, words):
    with pytest.raises(ValueError, match=words):
        run(config)


def test_a_test_named_settle_opens_images_to_settle_on():
    held_out = DIGITS | {"held_out": True}
    record = run({**CELLS, "train": held_out, "test": {"settle": held_out, "digits": held_out}})
    opened = {
        name: len(open_source(held_out, split, task="classification")[1])
        for name, split in (("settle", "settle"), ("digits", "test"))
    }
    assert {name: len(wrong["top1"]) for name, wrong in record["queries"].items()} == opened
    assert record["queries"]["settle"]["top1"] != record["queries"]["digits"]["top1"]
