"""Trials of searches, classifiers and segmentation: the same again, after a kill and from the cache, and what they
rest on."""

import json

import numpy as np
import pytest
import torch

from scalable_arch.nas.genotype import PUBLISHED, Genotype
from scalable_arch.study import nas
from scalable_arch.study.trials import drop_checkpoint, execute
from scalable_arch.train.classify import accuracy

DIGITS = {"dataset": "digits", "limit": 60, "size": 8}
RECIPE = {"epochs": 1, "batch_size": 30, "cutout": 0, "drop_path": 0.0, "crop_padding": 1}
CELLS = {
    "run": "scalable_arch.study.nas:train_classifier",
    "genotype": {"space": "nge", "random": 0},
    "network": {"channels": 4, "cells": 3, "auxiliary": False},
    "train": DIGITS,
    "test": {"digits": DIGITS},
    "recipe": RECIPE,
    "seed": 0,
}
SEARCH = {
    "run": "scalable_arch.study.nas:find_cells",
    "space": "nge",
    "controller": {"kind": "plain"},
    "supernet": {"channels": 4, "cells": 3},
    "train": DIGITS,
    "search": {"epochs": 2, "batch_size": 15},
    "embeddings": 2,
    "seed": 0,
}
TEACHER = {
    "model": "pyramidnet110_cifar",
    "options": {"depth": 11, "alpha": 6, "width": 4},
    "train": DIGITS,
    "recipe": RECIPE,
    "seed": 0,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))


def found_again(record):
    "What a trial found, without when and where."
    return {
        key: value
        for key, value in record.items()
        if key in ("config", "metrics", "queries", "curves", "genotype", "cost", "sources")
    }


def test_a_classifier_is_the_same_from_the_cache_and_anew():
    first, cached = execute(CELLS, progress=False), execute(CELLS, progress=False)
    nas.weights_path(CELLS).unlink()
    assert found_again(first) == found_again(cached) == found_again(execute(CELLS, progress=False))
    model, _ = nas.trained(CELLS)
    images, labels = nas.labelled_images(DIGITS, "test")
    right = accuracy(model, images, labels)
    assert first["metrics"]["digits"]["top1"] == pytest.approx(1 - right) == np.mean(first["queries"]["digits"]["top1"])
    assert first["metrics"]["digits"]["top5"] <= first["metrics"]["digits"]["top1"]
    assert {"scalable_arch.nas.networks", "scalable_arch.train.classify"} <= set(
        first["sources"]
    ) and "scalable_arch.nos" not in first["sources"]


def test_weights_of_other_code_are_not_taken(monkeypatch):
    before = nas.weights_path(CELLS)
    assert nas.weights_path(CELLS | {"test": {}}) == before != nas.weights_path(CELLS | {"seed": 99})
    marks = nas.sources_of(["scalable_arch.study.nas", *nas.modules_of(CELLS)])
    monkeypatch.setattr(nas, "sources_of", lambda modules: marks | {"scalable_arch.train.classify": "0" * 12})
    assert nas.weights_path(CELLS) != before


def test_a_search_that_was_killed_gives_the_same_record(monkeypatch):
    whole = execute(SEARCH, progress=False)
    drop_checkpoint(whole["trial"])
    steps, count = nas.search, []

    def killed(*args, on_epoch, **options):
        def then_die(entry):
            on_epoch(entry)
            if entry["epoch"] == 2:
                raise KeyboardInterrupt

        count.append(1)
        return steps(*args, on_epoch=then_die, **{**options, "checkpoint_every": 1})

    monkeypatch.setattr(nas, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(SEARCH, progress=False)
    monkeypatch.setattr(nas, "search", steps)
    again = execute({**SEARCH}, progress=False)
    assert count and found_again(again) == found_again(whole)
    assert Genotype.from_json(whole["genotype"]).space.name == "nge"
    assert "embeddings" not in whole["curves"][0] and np.shape(
        whole["curves"][1]["embeddings"]["reduction"]["nodes"]
    ) == (6, 64)
    assert "scalable_arch.nge" in whole["sources"] and np.allclose(
        np.sum(whole["curves"][1]["probabilities"]["normal"], 1), 1, atol=1e-3
    )


def test_a_guided_search_has_its_teacher_in_its_name_and_its_module_in_its_sources():
    guided = {
        **SEARCH,
        "space": "nos",
        "controller": {"kind": "alphas"},
        "search": {"epochs": 1, "batch_size": 10, "guided": "weights"},
        "teacher": TEACHER,
        "guidance": {"weight": 10.0},
    }
    record = execute(guided, progress=False)
    assert Genotype.from_json(record["genotype"]).space.name == "nos" and {
        "scalable_arch.nos",
        "scalable_arch.nn.cifar",
    } <= set(record["sources"])
    other = execute({**guided, "teacher": {**TEACHER, "seed": 1}}, progress=False)
    assert other["trial"] != record["trial"] and other["curves"][0]["loss"] != record["curves"][0]["loss"]


@pytest.mark.parametrize(
    "row, cells", [("nos", {"space": "nos", "random": 1}), ("darts_v2", PUBLISHED["darts_v2"].to_json())]
)
def test_genotypes_drawn_or_written_out_become_networks(row, cells):
    network = nas.classifier_of({**CELLS, "genotype": cells}, 10)
    assert network.eval()(torch.rand(2, 3, 8, 8)).shape == (2, 10)
    assert ("scalable_arch.nos" in nas.modules_of({"genotype": cells})) == (row == "nos")
    found = nas.genotype_of({"genotype": cells, "seed": 3})
    assert found == nas.genotype_of({"genotype": json.loads(json.dumps(cells)), "seed": 3}) and found.space.name == (
        "nos" if row == "nos" else "darts"
    )


def test_calibrations_reach_the_network():
    config = {
        "model": "resnet18_cifar",
        "options": {"width": 16},
        "calibration": {"name": "dynamic_conv_3x3", "dilation": 2},
        "seed": 0,
    }
    with_it, without = (
        nas.classifier_of(config, 10),
        nas.classifier_of({key: value for key, value in config.items() if key != "calibration"}, 10),
    )
    assert sum(p.numel() for p in with_it.parameters()) > sum(p.numel() for p in without.parameters())


def test_images_are_means_of_the_pixels_they_cover():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    small = nas.resized(images, 4)
    slow = torch.stack(
        [images[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].float().mean((2, 3)) for y in range(4) for x in range(4)],
        -1,
    ).view(3, 3, 4, 4)
    assert (small.float() - slow).abs().max() <= 0.5 and nas.resized(images, None) is images


def test_persons_are_seen_by_other_cameras_in_the_test():
    (train, names), (test, again) = (
        nas.labelled_images({"people": 3, "size": 16}, split) for split in ("train", "test")
    )
    assert (
        names.unique().tolist() == again.unique().tolist() == [0, 1, 2]
        and len(train) == 2 * len(test)
        and train.shape[1:] == (3, 16, 16)
    )


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
        execute(config, progress=False)
