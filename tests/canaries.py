"""Canaries: tiny runs in float64, each the guard of some versions, whose numbers are committed in canaries.json.

`python tests/canaries.py` renews the numbers of those whose versions were raised, and adds new ones. Who edits a canary
itself deletes its entry in canaries.json first: it is then a new one.
"""

import argparse
import json
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from scalable_arch import caie, create_model, data, hdl, hsr, metrics, msinet, nas, nge, nos, relink, sgc, train
from scalable_arch.cdnet import CDSupernet
from scalable_arch.cfaan import POSITIONS, CoarseToFineAxial
from scalable_arch.data.sources import SCENE_WORLDS
from scalable_arch.data.track_videos import vtest_rows, vtest_truth
from scalable_arch.files import write_whole
from scalable_arch.kinds import KINDS
from scalable_arch.metrics.clusters import distance_to_source, mix_source
from scalable_arch.models import input_shape
from scalable_arch.nas.discrete import PolicyGuide
from scalable_arch.nas.search import search
from scalable_arch.nn import prune
from scalable_arch.nn.batchnorm import NormReLU
from scalable_arch.nn.clips import pool_clips
from scalable_arch.nn.deeplab import DeepLabV3
from scalable_arch.nn.detector import as_rois
from scalable_arch.nn.inference import fold_batchnorm
from scalable_arch.nn.necks import NECKS
from scalable_arch.nn.regions import RegionLoops
from scalable_arch.nn.units import BranchOutput
from scalable_arch.nvan import NonLocal
from scalable_arch.study.claims import Claim, parse_relation
from scalable_arch.study.rule import check_claim, scores_by_person
from scalable_arch.train.clips import clip_features, fit_clips, share_of_tracks_named
from scalable_arch.train.detection import identity_labels
from scalable_arch.train.pseudo import alternate, image_features
from scalable_arch.versions import versions_of

TINY = 1e-11  # what a processor may make of 0
FILE = Path(__file__).with_name("canaries.json")
CANARIES = {}


class Canary(NamedTuple):
    "A tiny run: `guards`, names of versions; `run`() -> {number: float}; `within`, by how much numbers may differ."

    name: str
    guards: tuple
    run: Callable[[], dict]
    within: float


def canary(*guards: str, within: float = TINY) -> Callable:
    "Register a function as the canary of these versions. Numbers may differ by `within`, or by a millionth."

    def register(run):
        CANARIES[run.__name__] = Canary(run.__name__, guards, run, within)
        return run

    return register


GREY = 0.02  # levels of 255: pixels are painted in float32, and a processor may round one of many to its neighbour


@contextmanager
def alone() -> Iterator[None]:
    "float64, random numbers and a cache of its own: nothing that ran before changes what a canary computes."
    usual = torch.get_default_dtype()
    with TemporaryDirectory() as cache, patch.dict(os.environ, SCALABLE_ARCH_CACHE=cache), torch.random.fork_rng([]):
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        try:
            yield
        finally:
            torch.set_default_dtype(usual)


def numbers_of(one: Canary) -> dict[str, float]:
    "{number: value} of a canary, computed now."
    with alone():
        return {name: float(torch.as_tensor(value).detach()) for name, value in one.run().items()}


# What the canaries share: random images, a toy network, and ways to make few numbers of many.


def pixels(number: int, *size: int) -> torch.Tensor:
    "Random images, uint8 (number, 3, *size), the same ones whenever they are asked for."
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(number, 3, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return (200 * smooth + 55 * torch.rand(smooth.shape, generator=generator)).byte()


def batch(number: int, *size: int) -> torch.Tensor:
    "The same images as normalised floats."
    return data.to_float(pixels(number, *size)).double()


def clips(number: int, frames: int) -> torch.Tensor:
    "The same images as clips (number, frames, 3, 64, 32)."
    return batch(number * frames, 64, 32).unflatten(0, (number, frames))


def leaves(found) -> list[torch.Tensor]:
    "All tensors in nested lists, tuples and dicts; None is left out."
    if isinstance(found, dict):
        found = found.values()
    return (
        [found] if isinstance(found, torch.Tensor) else [x for part in found if part is not None for x in leaves(part)]
    )


def probe(*found) -> float:
    "One number that a change of any element moves: their sum, with weights that no two places share."
    flat = torch.cat([torch.as_tensor(x).detach().double().flatten() for x in found])
    return (flat.nan_to_num(-1) * torch.arange(1.0, len(flat) + 1).cos()).sum().item()


def painted(images) -> dict[str, float]:
    "How bright and how rough images (N, 3, H, W) are, in grey levels, and what is where."
    x = torch.as_tensor(np.ascontiguousarray(images)).double()
    rough = ((x.diff(dim=2)).abs().mean() + x.diff(dim=3).abs().mean()).item()
    return {"bright": x.mean(), "contrast": x.std(), "rough": rough, "places": probe(x) / x.numel() ** 0.5}


def text_number(text: str) -> int:
    "A number for a text."
    return zlib.crc32(text.encode())


def gradient(value: torch.Tensor, *of) -> float:
    "A number for the gradient of a scalar; of what it does not depend on, it is 0."
    of = [x for x in of if x.requires_grad] if value.requires_grad else []
    return probe(*torch.autograd.grad(value, of, allow_unused=True, materialize_grads=True)) if of else 0.0


def of_each(run: Callable, variants: dict[str, dict]) -> dict[str, float]:
    "The numbers of a run with each of some options: {'variant number': value}; each starts from the same chance."
    found = {}
    for variant, options in variants.items():
        torch.manual_seed(0)
        found |= {f"{variant} {number}": value for number, value in run(**options).items()}
    return found


def defaults(recipe: Callable) -> dict[str, float]:
    "{'default NAME': number} of what a recipe takes where nothing else is said."
    found = {name: one.default for name, one in signature(recipe).parameters.items() if name != "checkpoint_every"}
    found = {name: value for name, value in found.items() if value not in (None, Parameter.empty)}
    return {
        f"default {name}": value if isinstance(value, int | float) else text_number(str(value))
        for name, value in found.items()
    }


class Toy(nn.Module):
    "A convolution, a normalisation, dropout, a linear layer: enough to be trained. `answer`: what its recipe expects."

    def __init__(self, answer: Callable) -> None:
        super().__init__()
        self.answer, self.drop_path_rate = answer, 0.0
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
        self.head, self.second_head = nn.Linear(6, 3), nn.Linear(6, 3)

    def features(self, images):
        return [self.body(images)]

    def forward_with_maps(self, images):
        maps = self.features(images)
        return self.answer(self, maps[0]), maps

    def forward(self, images):
        return self.forward_with_maps(images)[0]


def as_branch(toy, maps):
    embedding = maps.mean((2, 3))
    return BranchOutput((toy.head(embedding),), (embedding,)) if toy.training else F.normalize(embedding)


def as_logits(toy, maps):
    pooled = F.dropout(maps, toy.drop_path_rate, toy.training).mean((2, 3))
    return (toy.head(pooled), toy.second_head(pooled)) if toy.training else toy.head(pooled)


def as_pixels(toy, maps):
    return toy.head(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def trained(model: nn.Module, history: list[dict]) -> dict[str, float]:
    "What is left of a training: the numbers of its last epoch, and all weights."
    numbers = {name: value for name, value in history[-1].items() if isinstance(value, float) and name != "seconds"}
    return numbers | {"weights": probe(*model.state_dict().values())}


def exercised(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    "What a network gives in training and in inference, and the gradient of its weights."
    found = leaves(model.train()(x))
    slope = gradient(sum((part * part).mean() for part in found), *model.parameters())
    with torch.no_grad():
        return {"training": probe(*found), "gradient": slope, "inference": probe(*leaves(model.eval()(x)))}


LABELS, SPLITS = torch.arange(9) % 3, ("train", "settle", "test")

# Worlds and data


def set_of(found) -> dict[str, float]:
    "Numbers of a named tuple of images, persons, cameras and so on."
    return painted(found.images) | {name: probe(part) for name, part in found._asdict().items() if name != "images"}


@canary("world.people", within=GREY)
def people():
    drawn = data.render_crops(range(3), range(2), shots=2, size=(48, 24), seed=3, progress=False)
    kinds = ("detected", "labelled", "junk", "distractor")
    crop = lambda kind: np.asarray(data.render_crop(data.Shot(1, 2, 0, 1, kind), size=(48, 24)))
    shots = {kind: painted(crop(kind).transpose(2, 0, 1)[None]) for kind in kinds}
    return set_of(drawn._replace(images=drawn.images.transpose(0, 3, 1, 2))) | of_each(dict, shots)


def stand_in(name):
    "How many of what a stand-in has, and the pictures of its smallest search."
    counts = data.world_statistics(train_people=20, test_people=10).loc[name]["stand-in"]
    found = {split: data.load_world(name, split, people=2, size=(32, 16), progress=False) for split in SPLITS[1:]}
    return counts.astype(float).to_dict() | of_each(dict, {split: set_of(one) for split, one in found.items()})


for world in data.list_worlds():
    CANARIES[world] = Canary(world, (f"world.{world}", "world.people"), partial(stand_in, world), GREY)


@canary("world.gate", "world.people", within=GREY)
def people_to_train_on():
    return set_of(data.load_world("gate", "train", people=2, size=(32, 16), progress=False))


@canary("world.mixed", "world.people", within=GREY)
def mixed():
    return of_each(
        dict, {split: set_of(open_tiny({"mixed": True, "people": 2}, split, task="reid")) for split in SPLITS}
    )


@canary("world.traffic", "world.people", within=GREY)
def traffic():
    numbers = of_each(
        dict, {split: set_of(data.load_traffic(split, vehicles=2, size=(24, 32), progress=False)) for split in SPLITS}
    )
    makes = [data.make_vehicle(vid, 3) for vid in range(60)]
    numbers["makes"] = text_number(str([(one.make, one.paint, one.livery, one.roof) for one in makes]))
    return numbers


@canary("world.classes", "world.people", within=GREY)
def persons_as_classes():
    images, labels = zip(
        *(open_tiny({"people": 2, "shots": 1, "size": 16}, split, task="classification") for split in SPLITS)
    )
    return painted(torch.cat(images)) | {"labels": probe(*labels)}


def open_tiny(source, split, **task):
    return data.open_source(source, split, size=(32, 16), **task)


def scene_numbers(scenes) -> dict[str, float]:
    "Numbers of a `SceneSet`."
    pictures = torch.stack([scenes.image(number) for number in range(len(scenes))])
    return painted(pictures) | {
        "boxes": probe(*scenes.boxes),
        "pids": probe(*scenes.pids),
        "camids": probe(scenes.camids),
    }


@canary("world.scenes", "world.people", within=GREY)
def scenes():
    small = dict(people=3, scenes=4, cameras=2, size=(64, 64), progress=False)
    numbers = scene_numbers(data.load_scenes("train", **small))
    for protocol, size in (("prw", None), ("cuhk_sysu", 2)):
        numbers |= search_numbers(data.load_scenes("test", protocol=protocol, gallery_size=size, **small), protocol)
    return numbers


def search_numbers(found, name) -> dict[str, float]:
    "Numbers of a `SceneSearch`."
    galleries = [found.gallery(number) for number in range(len(found.queries))]
    asked = {"queries": probe(found.queries), "galleries": probe(*galleries)}
    return of_each(dict, {name: scene_numbers(found.scenes) | asked})


@canary("world.street", "world.yard", "world.scenes", "world.people", within=GREY)
def scenes_of_characters():
    numbers = {}
    for world, settings in SCENE_WORLDS.items():
        numbers |= {f"{world} {name}": text_number(str(value)) for name, value in flat(settings).items()}
        source = {"world": world, "people": 3, "scenes": 3}
        learnt, found = (
            data.open_source(source, split, task="person_search", size=(64, 64)) for split in ("train", "settle")
        )
        numbers |= of_each(dict, {f"{world} train": scene_numbers(learnt)}) | search_numbers(found, world)
    return numbers


@canary("world.masks", "world.scenes", "world.people", within=GREY)
def masks():
    small = dict(people=3, scenes=2, cameras=2, size=(64, 64), progress=False)

    def run(split):
        images, classes = data.load_segmentation("scenes", split=split, **small)
        return painted(images) | {f"class {kind}": (classes == kind).double().mean() for kind in (0, 1, 2, 3, 255)}

    return of_each(run, {split: {"split": split} for split in ("train", "settle", "val")})


def numbers_of_tracks(found) -> dict[str, float]:
    "Numbers of a `TrackSet`, and of the truth where it has one."
    names = ("starts", "pids", "camids", "labels", "query", "gallery", "frames", "corrected", "second")
    numbers = {name: probe(getattr(found, name)) for name in names if getattr(found, name) is not None}
    truth = (
        {} if found.truth is None else {f"truth {name}": probe(part) for name, part in found.truth._asdict().items()}
    )
    return painted(found.images(np.arange(len(found.frames)))) | numbers | truth


@canary("world.tracks", "world.people", "world.scenes", within=GREY)
def walks_past_cameras():
    def run(split="test", noise=2, world="plaza"):
        return numbers_of_tracks(data.load_tracks(world, split, people=2, frames=4, noise=noise, size=(32, 16)))

    dials = dict(drifts=1.0, switches=0.4, pairs=0.4, misses=0.3, fragments=0.6, wrong=0.3, doubles=0.3, copies=0.5)
    return of_each(
        run,
        {
            "plain": {"noise": 0},
            "noisy": {},
            "training": {"split": "train"},
            "all dials": {"noise": dials},
            "campus": {"split": "settle", "world": "campus"},
        },
    )


@canary("data.tracks", within=GREY)
def tracks_from_files():
    with TemporaryDirectory() as folder:
        for camera, track, images in (("a", "1", pixels(3, 40, 20)), ("b", "2", pixels(2, 60, 40))):
            (Path(folder) / camera / track).mkdir(parents=True)
            for number, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(
                    Path(folder) / camera / track / f"f{10 - number}.png"
                )
        found, _, _ = data.read_track_folder(folder, size=(24, 12), progress=False)
        numbers = numbers_of_tracks(found)
    clips = [data.restricted_random(7, 3), data.all_clips(7, 3), data.all_clips(7, 3, strided=False)]
    boxes, names = vtest_rows(16)
    truth = vtest_truth(boxes[:64], names[:64], boxes)
    return numbers | {"clips": probe(*clips), "vtest": probe(np.array(names)), "vtest truth": probe(*truth)}


@canary("data.images", within=GREY)
def images_from_files():
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("0.png", "1.jpg")]
        for path, image in zip(paths, pixels(2, 80, 50)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        numbers = of_each(
            lambda size: painted(data.load_images(paths, size, progress=False)),
            {"smaller": {"size": (24, 12)}, "larger": {"size": (100, 64)}},
        )
    x = data.to_float(pixels(2, 8, 8))
    return numbers | {"normalised": probe(x), "back": probe(data.to_uint8(x * 1.1))}


@canary("data.classification", within=GREY)
def images_of_classes():
    numbers = {}
    with TemporaryDirectory() as folder:
        for name in ("cifar10", "fashion_mnist", "imagenet"):
            home, pair = Path(folder) / name, (pixels(9, 32, 32), LABELS)
            data.write_classification(name, home, pair, pair)
            for split in ("train", "test"):
                images, labels = data.load_classification(name, home, split, limit=6, **SIZES.get(name, {}))
                shown = painted(images[torch.arange(6)]) | {"labels": probe(labels)}
                numbers |= {f"{name} {split} {number}": value for number, value in shown.items()}
    digits, labels = data.load_classification("digits", "", "test", limit=20, seed=1)
    return numbers | painted(digits) | {"labels": probe(labels)}


@canary("data.classification", within=GREY)
def images_held_out():
    def run(split):
        images, labels = data.load_classification("digits", "", split, limit=20, held_out=True)
        return painted(images) | {"labels": probe(labels)}

    return of_each(run, {split: {"split": split} for split in ("train", "settle")})


@canary("data.macro")
def trained_networks():
    table = data.nas_bench_macro()
    return {name: probe(getattr(table, name)) for name in ("accuracies", "params", "macs")}


SIZES = {"imagenet": {"size": 24}}


def frames_of(video, wanted):
    "In the place of the video: frames made of their number."
    for number in sorted(wanted):
        image = pixels(1, 36, 48)[0].roll((number, number), (1, 2)).repeat_interleave(16, 1).repeat_interleave(16, 2)
        yield number, image.permute(1, 2, 0).numpy()


@canary("data.vtest", within=GREY)
def walkers():
    homes = {sys.modules[load.__module__] for load in (data.load_vtest, data.load_vtest_scenes)}
    with ExitStack() as stack:
        for home in homes:
            stack.enter_context(patch.multiple(home, read_frames=frames_of, find_video=lambda video=None: video))
        crops = data.load_vtest(every=40, size=(16, 8), margin=0.1)
        found = data.load_vtest_scenes(every=100, size=(72, 96), queries_per_visit=2)
    crops = {name: probe(getattr(crops, name)) for name in ("pids", "camids", "frames", "query", "gallery")} | painted(
        crops.crops
    )
    return of_each(dict, {"crop": crops}) | search_numbers(found, "scene")


# Networks

SMALL_HAN = dict(widths=(8, 12, 16), stem_width=4, feature_dim=8)
SMALL_CELLS = dict(channels=4, cells=3, auxiliary=True)
FAMILIES = {
    "model.han": {f"han_{kind}": SMALL_HAN for kind in ("small", "medium", "large", "residual", "inception")},
    "model.resnet": {"resnet50": dict(width=1 / 16)},
    "model.efficient": {name: dict(width=1 / 8) for name in ("mobilenet", "shufflenet", "condensenet")},
    "model.embedding": {
        "resnet50_reid": dict(width=1 / 16, feature_dim=8),
        **{f"{name}_reid": dict(width=1 / 8) for name in ("mobilenet", "shufflenet", "condensenet")},
    },
    "model.necks": {"bag_of_tricks": dict(width=1 / 16)},
    "model.osnet": {f"osnet_x{width}": dict(width=1 / 8) for width in ("1_0", "0_75", "0_5", "0_25")},
    "model.cdnet": {
        name: dict(width=1 / 8)
        for family in ("cdnet", "cnet")
        for name in (family, *(f"{family}_top{k}" for k in range(1, 5)))
    },
    "model.msinet": {"msinet": dict(width=1 / 16, align=True)},
    "model.cifar": {"resnet18_cifar": dict(width=4), "pyramidnet110_cifar": dict(depth=11, alpha=6, width=4)},
    "model.classic": {
        **{name: dict(width=2) for name in ("vgg16_cifar", "vgg19_cifar")},
        **{name: dict(width=4, depths=(1, 1)) for name in ("resnet32_cifar", "resnet34_cifar", "resnet34")},
        "mobilenetv2": dict(width=0.125),
    },
    "model.cells": {
        f"{cells}_{images}": SMALL_CELLS
        for cells in ("darts_v1", "darts_v2", "nasnet", "amoebanet")
        for images in ("cifar", "imagenet")
    },
    "model.clips": {"resnet50_clips": dict(width=1 / 16)},
    "model.nvan": {"nvan": dict(width=1 / 16), "ste_nvan": dict(width=1 / 16, stripes=4)},
    "model.cfaan": {"cfaan": dict(width=1 / 8, size=(64, 32), frames=4)},
}
INSIDE = {  # what a family is made of
    "model.embedding": ("model.resnet", "model.efficient"),
    "model.necks": ("model.resnet",),
    "model.osnet": ("model.necks",),
    "model.cdnet": ("model.osnet", "model.necks"),
    "model.msinet": ("model.osnet", "model.necks"),
}
INSIDE |= {f"model.{name}": ("model.resnet", "model.clips") for name in ("clips", "nvan", "cfaan")}


def family(models):
    "All networks of a family, in training and in inference."
    x = batch(4, 64, 32) if len(input_shape(next(iter(models)))) == 3 else clips(3, 4)
    return of_each(
        lambda name, **options: exercised(create_model(name, num_classes=3, **options), x),
        {name: {"name": name, **options} for name, options in models.items()},
    )


for version, models in FAMILIES.items():
    guards = tuple(dict.fromkeys((version, *INSIDE.get(version, ()))))
    CANARIES[version] = Canary(version, guards, partial(family, models), TINY)


@canary("model.nvan", "model.cfaan", "model.clips")
def attention_in_clips():
    maps = torch.randn(2, 4, 8, 4, 2, generator=torch.Generator().manual_seed(3)).double()
    layers = {
        "non-local": partial(NonLocal, 8),
        "stripes": partial(NonLocal, 8, stripes=2),
        "windows": partial(NonLocal, 8, window=2),
        **{f"axial {kind}": partial(CoarseToFineAxial, 8, (4, 2, 3), scales=2, positions=kind) for kind in POSITIONS},
        "axial plain": partial(CoarseToFineAxial, 8, (4, 2, 3), scales=2, norm=False),
    }

    def run(make):
        layer = make().double()
        nn.init.ones_(layer.norm.weight)
        y = layer(maps)
        return {"maps": probe(y), "gradient": gradient(y.square().sum(), *layer.parameters())}

    masks = (maps[:, :, 0] > 0).double()
    masks[1] = 0
    pooled = {f"pooled {how}": probe(pool_clips(maps, masks, how)) for how in ("mean", "max")}
    return of_each(run, {name: {"make": make} for name, make in layers.items()}) | pooled


@canary("model.cdnet", "model.osnet", "model.necks")
def layers_drawn_from_all():
    x = batch(4, 32, 32)

    def run(**options):
        supernet = CDSupernet(3, width=1 / 8, **options)
        output, _ = supernet.forward_with_maps(x)
        value = train.losses.balance(output, LABELS[:4])
        return {
            "loss": value,
            "gradient": gradient(value, *supernet.controller.parameters()),
            "drawn": probe(*[layer.drawn for layer in supernet.frame.blocks]),
            "found": text_number(supernet.derive(supernet.probabilities()).to_json()),
        }

    variants = {"plain": {}, "single path": {"k": 1}, "all": {"k": None}, "cnet": {"repeats": (1,), "k": 2}}
    return of_each(run, variants | {"constant": {"unsampled": "constant"}})


@canary("model.han")
def parts_of_han():
    switches = {part: {part: False} for part in ("spatial", "channel", "regional", "interaction")}
    others = {"factored": {"factored": True}, "two regions": {"num_regions": 2}, "reduction": {"reduction": 4}}
    x = batch(4, 64, 32)

    def run(**options):
        model = create_model("han_small", num_classes=3, **SMALL_HAN, **options)
        attended = model.attend(x)
        return exercised(model, x) | {"attention": probe(*leaves(attended)), "folded": probe(fold_batchnorm(model)(x))}

    return of_each(run, switches | others)


@canary("nn.loops")
def loops():
    x = batch(4, 16, 12).contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = nn.BatchNorm2d(3)
    centres = torch.tensor([[[0.1, -0.4], [0.7, 1.2]]]).repeat(4, 1, 1).requires_grad_()
    found = {
        "norm_relu": NormReLU.apply(x, norm.weight, norm.bias, norm),
        "regions": RegionLoops.apply(x, centres, (5, 7), None),
    }
    numbers = {name: probe(y) for name, y in found.items()} | {"statistics": probe(norm.running_mean, norm.running_var)}
    for (name, y), inputs in zip(found.items(), ([norm.weight, norm.bias], [centres])):
        numbers[f"{name}, gradient"] = gradient((y * y.cos()).sum(), x, *inputs)
    return numbers


# Person search

SMALL_STUDENT = dict(num_classes=3, widths=(4, 6, 8, 8), stem_width=4, rpn_width=6, anchor_heights=(24, 40))
SMALL_TEACHER = dict(num_classes=3, width=1 / 16, anchor_heights=(24, 40))
STREET = data.SceneSet(
    names=["left", "middle", "right"],
    camids=np.array([1, 2, 1]),
    boxes=[torch.tensor([[x, 8.0, x + 14, 46], [x + 30, 20, x + 44, 58]]) for x in (4.0, 10, 18)],
    pids=[torch.tensor(pids) for pids in ([1, 2], [2, -1], [3, 1])],
    pixels=pixels(3, 64, 80),
    sizes=np.array([[64, 80]] * 3),
)


@canary("model.hdl", "model.resnet")
def person_search_networks():
    def run(make, **options):
        model = make(**options)
        scenes = model(hdl.collate_scenes(list(STREET.pixels))[0].double())
        people = model.describe(scenes.maps[-1], as_rois(STREET.boxes).double())
        seen = [*leaves(scenes), *leaves(people)]
        slope = gradient(sum((part * part).mean() for part in seen), *model.parameters())
        found = hdl.detect(model, STREET.pixels, score_threshold=0.4, progress=False)
        folded = hdl.describe_boxes(hdl.fold(model), STREET.pixels[0], STREET.boxes[0])
        matches = hdl.search_scenes(model, STREET.pixels[0], STREET.boxes[0][0], STREET.pixels, score_threshold=0)
        return {
            "training": probe(*seen),
            "gradient": slope,
            "boxes": probe(*leaves(found)),
            "folded": probe(folded),
            "similar": probe([match.similarity for match in matches]),
        }

    student, teacher = dict(make=hdl.hdl_student) | SMALL_STUDENT, dict(make=hdl.hdl_teacher) | SMALL_TEACHER
    others = {"without attention": {"attention": False}, "factored": {"factored": True}}
    return of_each(run, {"student": student, "teacher": teacher} | {k: student | v for k, v in others.items()})


def street_batch():
    "Scenes, sizes, boxes and labels as a step of training has them."
    images, sizes = hdl.collate_scenes(list(STREET.pixels))
    labels, _ = identity_labels(STREET.pids)
    return images.double(), sizes, [boxes.double() for boxes in STREET.boxes], labels


@canary("nn.prune", "model.caie", "model.classic")
def pruning():
    "Removed channels under two budgets, by loss a unit of what has still to go and by loss alone."
    x, labels = batch(4, 16, 16), torch.tensor([0, 1, 2, 0])
    make = lambda: create_model("resnet32_cifar", num_classes=3, width=4, depths=(1, 1))
    batches = lambda: iter(lambda: (x, labels), None)
    settings = dict(filters=2, steps=2, floor=0.25)

    def smaller(aware):
        model, log = caie.prune(make(), (3, 16, 16), {"macs": 0.6, "params": 0.5}, batches(), aware=aware, **settings)
        found = prune.Channels(model, (3, 16, 16))
        left = {f"left {at} {name}": share for at, entry in enumerate(log) for name, share in entry["left"].items()}
        return exercised(model, x) | left | {"cycles": float(prune.systolic_cycles(found))}

    return of_each(smaller, {"aware": {"aware": True}, "loss alone": {"aware": False}})


@canary("loss.detection", "model.hdl")
def detection():
    model = hdl.hdl_student(**SMALL_STUDENT)
    few = dict(num_anchors=12, num_proposals=20, num_rois=8)
    losses = hdl.batch_losses(model, *street_batch(), generator=torch.Generator().manual_seed(0), **few)
    total = hdl.total_loss(losses)
    return losses | {"total": total, "gradient": gradient(total, *model.parameters())}


@canary("loss.distillation")
def distillation():
    draw = lambda *shape: torch.randn(*shape, requires_grad=True)

    def network(side):
        maps, attention = (tuple(draw(2, 3, s, s) for s in (side, side // 2, side // 4)) for _ in range(2))
        return hdl.Scenes(maps, attention, None, None), hdl.People(
            draw(5, 3, 3, 3), draw(5, 3, 3, 3), None, draw(5, 4), None, None
        )

    def run(**options):
        student, teacher = network(12), network(16)
        persons = torch.tensor([True, False, True, True, False])
        losses = hdl.distillation_losses(student, teacher, persons, starts=(0.5, 0.75, 0.25), **options)
        slopes = {f"{name} gradient": gradient(loss, *leaves(student)) for name, loss in losses.items()}
        return losses | slopes | {"total": hdl.total_loss(losses)}

    variants = {"plain": {}, "literal": {"kl": "literal", "norm": "literal"}, "squared": {"norm": "squared"}}
    return of_each(run, variants | {"all levels, hot": {"levels": (0, 1, 2, 3), "temperature": 2.0}})


@canary("recipe.person_search", "loss.detection", "loss.distillation", "model.hdl", "model.resnet")
def person_search_training():
    def run(**options):
        teacher = hdl.hdl_teacher(**SMALL_TEACHER) if options.get("distill") else None
        model = hdl.hdl_student(**SMALL_STUDENT)
        few = dict(epochs=1, batch_size=2, lr=1e-3, num_anchors=12, num_proposals=20, num_rois=8)
        return trained(model, hdl.fit_person_search(model, STREET, teacher=teacher, progress=False, **few | options))

    variants = {
        "plain": {},
        "flip": {"flip": True},
        "milestones": {"milestones": (1,), "gamma": 0.5, "epochs": 2},
        "one cycle": {"schedule": "cosine", "warmup": 0.5, "nesterov": True},
        "decay": {"weight_decay": 0.1, "momentum": 0.5},
        "seed": {"seed": 1},
    }
    taught = {f"distill {name}": {"distill": (name,)} for name in hdl.DISTILLATIONS}
    return of_each(run, variants | taught) | defaults(hdl.fit_person_search)


# Losses


def branches_at_random() -> BranchOutput:
    "What a network of two branches may say of nine images."
    draw = lambda columns: tuple(torch.randn(9, columns, requires_grad=True) for _ in range(2))
    return BranchOutput(draw(3), draw(5))


def loss_numbers(loss, **options):
    output = branches_at_random()
    value = loss(output, LABELS, **options)
    return {"loss": value, "gradient": gradient(value, *leaves(output))}


@canary("loss.cross_entropy")
def naming():
    return loss_numbers(train.cross_entropy)


@canary("loss.triplet")
def comparing():
    run = partial(loss_numbers, train.triplet)
    return of_each(
        run,
        {
            "plain": {},
            "hardest": {"mining": "hardest"},
            "margin": {"margin": 0.1},
            "lengths kept": {"normalise": False},
        },
    )


@canary("loss.guidance")
def guidance():
    def run(**options):
        student, teacher = ([torch.randn(2, 3, s, s, requires_grad=True) for s in (8, 4)] for _ in range(2))
        value = nos.guidance_loss(student, teacher, **options)
        return {"loss": value, "gradient": gradient(value, *student)}

    teacher = Toy(as_logits)
    x = batch(4, 8, 8)
    student = Toy(as_logits).features(x)
    asked = {f"weight {weight}": nos.AttentionGuidance(teacher, weight=weight)(student, x) for weight in (1, 1000)}
    return of_each(run, {"code": {}, "paper": {"form": "paper"}}) | asked


@canary("loss.msinet", "loss.cross_entropy", "loss.triplet")
def alignment():
    labels, seen = LABELS[:6], msinet.SpatialAlignment(8)(torch.randn(6, 8, 4, 2))

    def run(seen=seen, **options):
        embeddings, logits = (tuple(torch.randn(6, n, requires_grad=True) for n in (4, 3)) for _ in range(2))
        output = msinet.AlignedOutput(tuple(x[:, :3] for x in logits), embeddings, seen)
        value = msinet.msinet_loss(output, labels, **options)
        return {"loss": value, "gradient": gradient(value, *embeddings, *logits)}

    readings = {"as printed": {"reading": "negatives"}, "no alignment": {"seen": None}, "weight": {"alignment": 1.0}}
    return of_each(run, {"plain": {}, "smoothing": {"label_smoothing": 0.3}} | readings)


@canary("loss.twins")
def memories_of_twins():
    def run(**options):
        memory, features = msinet.IdentityMemory(4, 5, **options), torch.randn(9, 5, requires_grad=True)
        memory.begin(torch.randn(9, 5), LABELS)
        value, logits = memory(features, LABELS)
        return {"loss": value, "gradient": gradient(value, features), "moved": probe(memory.vectors, logits[:, :3])}

    return of_each(run, {"plain": {}, "temperature": {"temperature": 0.5}, "momentum": {"momentum": 0.6}})


@canary("model.msinet", "model.osnet", "loss.twins", "recipe.search", "recipe.classification")
def searches_for_meetings():
    def run(guide="twins", **options):
        net = msinet.MSISupernet(4, width=1 / 16, guide=guide)
        labels, small = torch.arange(24) // 6, dict(epochs=1, batch_size=4, num_shots=2, crop_padding=0)
        return trained(net, msinet.search_meetings(net, pixels(24, 32, 16), labels, progress=False, **small | options))

    overlapping = {"overlap": 0.5, "seed": 1}
    variants = {"plain": {}, "shared": {"guide": "shared"}, "overlap": overlapping, "zeros": {"begin": "zeros"}}
    return of_each(run, variants)


# Recipes


class ToyObjective:
    "What rounds learn, that no version stands for."

    num_classes = 3

    def batches(self, generator):
        return torch.randperm(12, generator=generator).split(4)

    def loss(self, output, index):
        return sum(F.cross_entropy(logits, index % 3) for logits in output.logits)


@canary("recipe.pseudo")
def rounds_of_pseudo_labels():
    images, model = batch(12, 32, 16), create_model("han_small", **SMALL_HAN)
    read = lambda index, generator: images[index]
    how = dict(rounds=2, recipe={"epochs": 2, "lr": 0.1}, progress=False)
    history = alternate(model, read, lambda at, before: (ToyObjective(), {}), **how)
    losses = {f"round {row['round']}": row["curve"][-1]["loss"] for row in history}
    return losses | {"features": probe(image_features(model, read, 12))}


def said_of_twelve() -> BranchOutput:
    "What a network of two branches may say of twelve images, at random."
    return BranchOutput(*(tuple(torch.randn(2, 12, size).requires_grad_()) for size in (5, 4)))


def objective_numbers(objective, index) -> dict[str, float]:
    "The loss of an objective on what is said of twelve images, its gradient, and its first batch."
    said = said_of_twelve()
    loss = objective.loss(said, index)
    first = objective.batches(torch.Generator().manual_seed(0))[0]
    return {"loss": loss, "gradient": gradient(loss, *said.logits, *said.embeddings), "batch": probe(first)}


@canary("method.sgc")
def sgc_choices():
    features, pids, _ = groups_at_random()
    labelled = pids < 4

    def run(**options):
        found = sgc.choose(features, labelled, pids, **options)
        parts = {"labels": found.clusters.labels, "soft": found.soft, "trusted": found.trusted}
        return {name: probe(part) for name, part in parts.items()} | {"tau": found.threshold}

    found = of_each(run, {"plain": {}, "later": {"growth": -0.7}, "hard": {"soft": False}, "AP": {"guided": False}})
    round_of = sgc.PseudoPeople(torch.arange(12), torch.arange(12) // 3, torch.rand(12, 5), num_groups=2)
    begin = sgc.Beginning(range(8), torch.arange(8) // 2, range(8, 12), num_groups=2, num_shots=2)
    found |= {f"round {name}": value for name, value in objective_numbers(round_of, torch.arange(12)).items()}
    index = torch.tensor([0, 1, 2, 3, 4, 5, 8, 9, 10, 8, 9, 10])
    return found | {f"begin {name}": value for name, value in objective_numbers(begin, index).items()}


@canary("method.hsr")
def hsr_rounds():
    features, pids, camids = groups_at_random()
    numpy = features.numpy()

    def run(**options):
        how = dict(share=0.05, k1=6, k2=2, deviations=1, k=3) | options
        found = hsr.rectify(features, camids, (numpy[:, :2], numpy[:, 2:]), **how)
        return {"labels": probe(found.labels), "eps": found.clusters.eps, "lists": probe(found.lists)}

    found = of_each(run, {"plain": {}, "with a source": {"source": features_at_random(9)}, "longer": {"k": 5}})
    mined = hsr.RectifiedClusters(np.arange(12) // 3, hsr.rank_lists(numpy[:12], camids[:12], 4), num_groups=2)
    mined.shape = (2, 3)
    scores = hsr.mining_scores(hsr.rank_lists(numpy, camids, 3), pids, pids // 2)
    index = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    return found | scores | {f"round {name}": value for name, value in objective_numbers(mined, index).items()}


@canary("weights.han_small", within=1e-4)
def weights_that_ship():
    model = create_model("han_small", pretrained=True).double().eval()
    return {"features": probe(model(batch(3, 160, 64))), "weights": probe(*model.state_dict().values())}


def toy_loss(output, labels):
    "A loss that no version stands for."
    return F.mse_loss(output.logits[0], F.one_hot(labels, 3).double())


def retrieval_training(**options):
    model = Toy(as_branch)
    plain = dict(epochs=2, batch_size=4, lr=1e-2, loss=toy_loss, progress=False)
    history = train.fit(model, pixels(9, 16, 8), LABELS, **plain | options)
    return trained(model, history) | {
        "features": probe(train.extract_features(model, pixels(9, 16, 8), progress=False))
    }


@canary("recipe.retrieval")
def retrieval_options():
    return defaults(train.fit) | of_each(
        retrieval_training,
        {
            "plain": {},
            "flip": {"flip": True},
            "erasing": {"erasing": True},
            "milestones": {"milestones": (1,), "gamma": 0.5},
            "one cycle": {"schedule": "cosine", "warmup": 1, "nesterov": True},
            "colour": {"colour": 0.2},
            "two shots": {"sampler": "identity", "num_shots": 2},
            "decay": {"weight_decay": 0.1, "momentum": 0.5},
            "seed": {"seed": 1},
        },
    )


@canary("recipe.retrieval", "loss.cross_entropy", "loss.triplet", "loss.soft_triplet")
def retrieval_losses():
    smoothed = {"smoothed": {"loss": "cross_entropy", "label_smoothing": 0.1}}
    losses = ("cross_entropy", "triplet", "cross_entropy+triplet")
    return of_each(retrieval_training, {loss: {"loss": loss, "num_shots": 2} for loss in losses} | smoothed)


@canary("recipe.retrieval", "loss.balance", "model.necks")
def balanced_losses():
    maps = [torch.randn(6, c, 4, 2, generator=torch.Generator().manual_seed(c)).double() for c in (4, 6)]
    found = {}
    for name in NECKS:
        torch.manual_seed(0)
        neck = NECKS[name]((4, 6), 3, hidden=5)
        output = neck(maps)
        loss = train.losses.balance(output, LABELS[:6], label_smoothing=0.1)
        found |= {f"{name} loss": loss, f"{name} gradient": gradient(loss, *neck.parameters())}
        found |= {f"{name} feature": probe(neck.eval()(maps)), f"{name} parts": probe(*neck.pooled(maps))}
    return found


def clip_training(**options):
    starts, names = np.array([0, 1, 4, 9, 12, 14, 20]), np.array([0, 0, 1, 1, 2, 2])
    none, rects = np.zeros(6, bool), np.tile(np.float32([0, 0, 0.6, 1]), (20, 1))
    tracks = data.TrackSet(pixels(20, 32, 16), starts, names, names, names, none, none, np.arange(20), rects=rects)
    model = create_model("resnet50_clips", num_classes=3, width=1 / 16).double()
    plain = dict(frames=2, epochs=2, num_ids=2, num_shots=2, lr=1e-3, loss=toy_loss, flip=False, progress=False)
    history = fit_clips(model, tracks, **plain | options)
    found = {clips: probe(clip_features(model, tracks, frames=2, clips=clips)) for clips in ("first", "all")}
    return trained(model, history) | found | {"named": share_of_tracks_named(model, tracks, frames=2)}


@canary(
    "recipe.clips", "model.clips", "model.resnet", "loss.cross_entropy", "loss.soft_triplet", within=1e-5
)  # features are float32
def clip_options():
    return defaults(fit_clips) | of_each(
        clip_training,
        {
            "plain": {},
            "flip": {"flip": True},
            "erasing": {"erasing": True},
            "settled": {"settle_batches": 2},
            "cosine": {"schedule": "cosine", "warmup": 1},
            "decay": {"weight_decay": 0.1},
            "triplets": {"loss": "cross_entropy+soft_triplet"},
            "seed": {"seed": 1},
        },
    )


def toy_guidance(maps, images):
    "A guidance that no version stands for."
    return maps[0].square().mean() + images.mean()


def classification_training(**options):
    model = Toy(as_logits)
    plain = dict(epochs=2, batch_size=4, lr=1e-2, cutout=0, crop_padding=0, flip=False, drop_path=0.0, progress=False)
    history = train.fit_classifier(model, pixels(9, 12, 12), LABELS, **plain | options)
    return trained(model, history)


@canary("recipe.classification")
def classification_options():
    return defaults(train.fit_classifier) | of_each(
        classification_training,
        {
            "plain": {},
            "flip": {"flip": True},
            "cutout": {"cutout": 5},
            "crops": {"crop_padding": 2},
            "drop path": {"drop_path": 0.5},
            "label smoothing": {"label_smoothing": 0.1},
            "auxiliary": {"auxiliary_weight": 1.0},
            "clip": {"clip": 0.01},
            "linear": {"schedule": "linear"},
            "steps": {"schedule": "steps", "milestones": (1,), "gamma": 0.5},
            "one cycle": {"warmup": 1, "nesterov": True},
            "decay": {"weight_decay": 0.1, "momentum": 0.5},
            "guidance": {"guidance": toy_guidance},
            "seed": {"seed": 1},
        },
    )


def masks_at_random(number: int, *size: int) -> torch.Tensor:
    "Masks of three classes, and 255 here and there."
    coarse = pixels(number, *size)[:, 0] % 5
    return coarse.where(coarse < 3, 255)


def segmentation_training(ignore=255, **options):
    images, masks = pixels(5, 14, 18), masks_at_random(5, 14, 18)
    model, seen = Toy(as_pixels), masks.where(masks < min(ignore, 3), ignore)
    plain = dict(epochs=2, batch_size=2, lr=1e-2, crop=(12, 16), scales=(1, 1), flip=False, progress=False)
    return trained(model, train.fit_segmentation(model, images, seen, ignore=ignore, **plain | options))


@canary("recipe.segmentation")
def segmentation_options():
    return defaults(train.fit_segmentation) | of_each(
        segmentation_training,
        {
            "plain": {},
            "flip": {"flip": True},
            "large crops": {"crop": 20},
            "power": {"power": 0.5},
            "ignore": {"ignore": 2},
            "decay": {"weight_decay": 0.1, "momentum": 0.5},
            "seed": {"seed": 1},
        },
    )


@canary("recipe.segmentation", within=1e-4)  # images are scaled in float32 and rounded: a pixel may be another
def segmentation_scales():
    return segmentation_training(scales=(0.5, 2.0))


# Search for architectures

SPACE = nas.Space("tiny", ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"), inner_nodes=2)


def architecture_search(space=SPACE, controller=None, make=nas.Supernet, **options):
    supernet = make(space, channels=4, cells=3, num_classes=3, controller=controller and controller(space))
    plain = dict(epochs=1, batch_size=4, lr=1e-2, crop_padding=0, flip=False, progress=False)
    history = search(supernet, pixels(18, 8, 8), LABELS.repeat(2), **plain | options)
    last = history[-1]
    return trained(supernet, history) | {
        "probabilities": probe(*last["probabilities"].values()),
        "undecided": sum(last["entropy"].values()),
        "genotype": text_number(last["genotype"]),
    }


@canary("recipe.search", "recipe.classification", "model.cells")
def search_options():
    return defaults(search) | of_each(
        architecture_search,
        {
            "plain": {},
            "two epochs": {"epochs": 2},
            "second order": {"order": 2},
            "by batch": {"alternate": "batch"},
            "flip": {"flip": True},
            "crops": {"crop_padding": 2},
            "clip": {"clip": 0.01},
            "a third to validate": {"validation": 1 / 3},
            "controller's rate": {"controller_lr": 0.1, "controller_weight_decay": 0.1},
            "guided": {"guidance": toy_guidance},
            "guided weights": {"guidance": toy_guidance, "guided": "weights"},
            "seed": {"seed": 1},
        },
    )


@canary("recipe.search", "recipe.classification", "model.cells")
def searches_for_people():
    split = nas.search.split_images(LABELS.repeat(2), 2)
    people = {"num_shots": 2, "split": split}
    apart = nas.search.split_identities(LABELS.repeat(2), overlap=1 / 3)
    return of_each(
        architecture_search,
        {
            "plain": people,
            "other people": people | {"split": apart},
            "rates": people | {"lr_min": 0.005, "controller_milestones": [0]},
            "colours": people | {"colour": 0.2},
            "erasing": people | {"erasing": True},
            "losses": people | {"loss": named_squares, "architecture_loss": F.cross_entropy},
        },
    )


def named_squares(output, targets):
    "A loss that no version stands for, and what it names by."
    return F.mse_loss(output, F.one_hot(targets, 3).double()), output


@canary("recipe.search", "recipe.classification", "model.cells", "model.nge")
def search_by_embeddings():
    kinds = {"plain": nge.PlainController, "recurrent": nge.RNNController, "graph": nge.NGEController}
    small = dict(embedding=6, out=6, edge=4)
    return of_each(architecture_search, {name: {"controller": partial(kind, **small)} for name, kind in kinds.items()})


@canary("recipe.search", "recipe.classification", "model.cells", "model.nos")
def heterogeneous_search():
    operations = ("skip_connect", "sep_conv_3x3", *nas.SPACES["nos"].operations[-4:])
    space = nas.Space("tiny nos", operations, inner_nodes=2, second_tier=True, required=operations[:2])
    return of_each(architecture_search, {"plain": {"space": space, "make": nos.nos_supernet}})


@canary("model.cells")
def supernets_and_genotypes():
    x = batch(4, 16, 16)
    numbers = of_each(
        lambda space: exercised(nas.Supernet(space, channels=4, cells=3), x),
        {name: {"space": name} for name in ("nge", "darts")},
    )
    for name, space in nas.SPACES.items():
        shape = len(space.edges()), len(space.operations)
        tables = {cell: torch.rand(shape).softmax(1) for cell in ("normal", "reduction")}
        numbers |= {
            f"{name} derived": text_number(nas.derive(tables, space).to_json()),
            f"{name} drawn": text_number(nas.random_genotype(space, 1).to_json()),
        }
    costs = nas.cell_costs(nas.SPACES["darts"], channels=4, cells=3)
    return numbers | {f"cost {cell}": np.sum(table) for cell, table in costs.items()}


@canary("model.nos", "model.cells", "model.cifar")
def heterogeneous_networks():
    x, genotype = batch(4, 16, 16), nas.random_genotype(nas.SPACES["nos"], 0)
    calibrated = lambda name: create_model("resnet18_cifar", width=4, calibration=nos.self_calibration(name))
    networks = {"cifar": lambda: nos.nos_cifar(genotype, channels=4, cells=3, num_classes=3)}
    networks |= {name: partial(calibrated, name) for name in nos.SELF_CALIBRATIONS}
    supernet = lambda: nos.nos_supernet(channels=4, cells=3, num_classes=3)
    maps, kernels = (torch.randn(2, 40, side, side, requires_grad=True) for side in (6, 3))  # wide: by compiled loops
    applied = nos.apply_kernels(maps, kernels)
    wide = {"wide": probe(applied), "wide gradient": gradient((applied * applied).sum(), maps, kernels)}
    return wide | of_each(
        lambda make: exercised(make(), x),
        {name: {"make": make} for name, make in (networks | {"supernet": supernet}).items()},
    )


@canary("model.nge")
def controllers():
    space = nas.SPACES["nge"]

    def run(make, **options):
        controller = make(space, **options)
        found = leaves(controller())
        slope = gradient(sum((table * table).sum() for table in found), *controller.parameters())
        return {"logits": probe(*found), "gradient": slope, "embeddings": probe(*leaves(controller.embeddings()))}

    readings = {reading: {"make": nge.NGEController, "adjacency": reading} for reading in nge.ADJACENCIES}
    others = {"plain": {"make": nge.PlainController}, "recurrent": {"make": nge.RNNController}}
    chain = nge.chain_policy(4, range(3))
    return of_each(run, readings | others) | {"chain": probe(chain())}


@canary("model.deeplab", "model.cells")
def segmenter():
    def run(stride):
        backbone = nas.ImageNetNetwork(
            nas.PUBLISHED["darts_v2"], channels=4, cells=3, num_classes=None, output_stride=stride
        )
        return exercised(DeepLabV3(backbone, num_classes=3, channels=8, rates=(1, 2)), batch(3, 64, 64))

    return of_each(run, {f"stride {stride}": {"stride": stride} for stride in (16, 32)})


@canary("recipe.tabular")
def tabular_searches():
    sizes = (3,) * 6
    worth = np.random.default_rng(0).random((6, 3))
    reward = lambda choices: worth[np.arange(6), list(choices)].sum()

    def run(search, **options):
        found = search(sizes, reward, budget=40, **options)
        return {"choices": probe(found.choices), "rewards": found.rewards.sum()}

    evolve = dict(search=nas.regularised_evolution, population=8, sample=3)
    guide = lambda: PolicyGuide(nas.discrete.LogitsPolicy(sizes), sizes, lr=0.1)
    return of_each(
        run,
        {
            "random": dict(search=nas.random_search),
            "another seed": dict(search=nas.random_search, seed=1),
            "evolution": evolve,
            "guided": evolve | dict(guide=guide()),
            "reinforce": dict(search=nas.reinforce, lr=0.1),
            "slow mean": dict(search=nas.reinforce, lr=0.1, decay=0.5),
        },
    )


# Scores and claims


def features_at_random(number: int, length: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn(number, length))


def gallery():
    "Features of queries and gallery with persons and cameras, distractors and junk among them, and images twice."
    return dict(
        query_features=features_at_random(8),
        gallery_features=features_at_random(14).repeat(2, 1),
        query_pids=np.arange(8) % 4 + 1,
        gallery_pids=np.arange(28) % 7 - 1,
        query_camids=np.arange(8) % 3,
        gallery_camids=np.arange(28) % 3,
    )


def ranked(result):
    "Numbers of a `RetrievalResult`."
    numbers = {"mAP": result.mAP, "mINP": result.mINP, "valid": result.num_valid, "CMC": probe(result.cmc)}
    parts = [result.ap, result.inp, result.first_match, result.ranking, result.ranking_labels]
    return numbers | {"queries": probe(*(part for part in parts if part is not None))}


@canary("score.retrieval")
def retrieval():
    run = lambda **options: ranked(metrics.evaluate(**gallery(), **options))
    merged = metrics.multi_query(features_at_random(12), np.arange(12) % 3, np.arange(12) % 2)
    return of_each(run, {"plain": {}, "trapezoid": {"ap": "trapezoid"}, "lists": {"top_k": 6, "max_rank": 3}}) | {
        "multi query": probe(*merged)
    }


@canary("score.tracks")
def tracks_by_protocol():
    pids, second = np.arange(24) % 6 - 1, np.where(np.arange(24) % 7 == 0, 2, -1)
    query = (np.arange(24) % 4 == 0) & (pids > 0)
    labels = dict(
        pids=pids, camids=np.arange(24) // 6 % 3, query=query, gallery=~query, corrected=pids % 4 + 1, second=second
    )
    found = lambda protocol: ranked(metrics.evaluate_tracks(features_at_random(24), **labels, protocol=protocol))
    return of_each(found, {name: {"protocol": name} for name in metrics.PROTOCOLS})


@canary("method.relink", "world.tracks", "world.people", "world.scenes", within=GREY)
def cleaned_tracks():
    noisy = data.load_tracks("plaza", "settle", people=2, frames=8, noise=2, size=(32, 16))

    def run(recall=0.9, **options):
        found = relink.clean_tracks(noisy, relink.oracle(recall), progress=False, **options)
        told = {name: probe(np.array(found.report[name])) for name in found.report}
        return (
            numbers_of_tracks(found.tracks) | told | {"boxes": probe(found.boxes), "rects": probe(found.tracks.rects)}
        )

    return of_each(run, {"plain": {}, "blind": {"recall": 0.5}, "fickle": {"alpha": 0.1, "change": 0.2}})


@canary("score.reranking")
def reranking():
    def run(**options):
        found = metrics.rerank(features_at_random(6), features_at_random(20), k1=6, k2=3, **options)
        return {"distances": probe(found)}

    return of_each(run, {"plain": {}, "inclusive": {"inclusive": True}, "weight": {"lambda_value": 0.7}})


def detections_at_random():
    "Boxes, scores and features near those of `STREET`, and two false ones a scene."
    found = []
    for boxes in STREET.boxes:
        near = torch.cat([boxes + 4 * torch.rand(2, 4), boxes + torch.tensor([3.0, 20, 3, 5])])
        found.append((near, torch.rand(4), features_at_random(4)))
    return found


def groups_at_random():
    "Features of twelve groups of six images, their groups and cameras."
    pids, camids = np.arange(72) // 6, np.arange(72) % 3
    return torch.randn(12, 5)[pids] + 0.7 * torch.randn(72, 5), pids, camids


@canary("score.clusters")
def clusterings():
    features, pids, camids = groups_at_random()
    distances = metrics.self_jaccard(features, k1=5, k2=2)
    labels = metrics.cluster_dbscan(distances, 0.7)
    found = metrics.score_clusters(labels, pids, camids)
    mixed = mix_source(distances, distance_to_source(features, features_at_random(9)))
    return vars(found) | {
        "distances": probe(distances.data, distances.indices),
        "labels": probe(labels),
        "eps": metrics.dbscan_eps(distances, 0.05),
        "mixed": probe(mixed.data),
        "silhouettes": probe(metrics.silhouettes(distances, labels)),
    }


@canary("score.detection")
def detector():
    def run(**options):
        found = metrics.evaluate_detection(detections_at_random(), STREET.boxes, **options)
        return {"AP": found.ap, "recall": found.recall, "precision": found.precision}

    return of_each(run, {"plain": {}, "strict": {"iou_threshold": 0.75}, "sure": {"min_score": 0.5}})


@canary("score.person_search", "score.detection")
def people_in_scenes():
    def run(**options):
        found = metrics.evaluate_person_search(
            features_at_random(2),
            detections_at_random(),
            queries=np.array([[0, 0], [0, 1]]),
            truth_boxes=STREET.boxes,
            truth_pids=STREET.pids,
            camids=STREET.camids,
            ks=(1, 2),
            top_k=3,
            **options,
        )
        parts = found.ap, found.first_match, found.num_truth, found.num_found, found.ranking, found.ranking_labels
        return {"mAP": found.mAP, "CMC": probe(found.cmc), "recall": found.recall, "queries": probe(*parts)}

    protocols = {name: {"protocol": name} for name in ("cuhk_sysu", "prw", "prw_other_cameras")}
    others = {"small": {"gallery_size": 1}, "lists": {"galleries": [[1, 2], [2, 1]]}, "sure": {"min_score": 0.3}}
    return of_each(run, protocols | others)


@canary("score.classification")
def naming_rightly():
    model = Toy(as_logits)
    return {f"top {top}": train.accuracy(model, pixels(9, 8, 8), LABELS, top=top, progress=False) for top in (1, 2)}


@canary("score.segmentation")
def naming_pixels():
    images, masks = pixels(4, 12, 16), masks_at_random(4, 12, 16)
    found = metrics.evaluate_segmentation(images[:, 1] % 3, masks, 4)
    model = train.score_segmentation(Toy(as_pixels), images, masks, 3, progress=False)
    numbers = {"confusion": probe(found.confusion), "IoU": probe(found.iou)}
    return numbers | {"mIoU": found.miou, "right": found.pixel_accuracy, "model's mIoU": model.miou}


@canary("claims.rule")
def rule():
    rng = np.random.default_rng(0)
    shift = np.linspace(0, 0.5, 8)[:, None]  # seeds that vary by more than chance
    people = {"X": np.arange(24) % 9, "Y": np.arange(24) % 11}
    cells = {
        (row, "", dataset, "R1"): scores_by_person(rng.random((8, 24)) + by, people[dataset], scale=100)
        for row, by in (("a", 0.1), ("b", 0.1 + shift), ("c", 0.4))
        for dataset in people
    }
    about = {"study": "toy", "name": "", "text": "", "source": "", "metrics": ("R1",)}
    claims = [Claim(**about, relations=tuple(map(parse_relation, texts))) for texts in RELATIONS]
    found = [check_claim(claim, cells) for claim in claims]
    said = text_number(" ".join(claim["said"] for claim in found))
    bounds = {f"{name} {at}": claim["relations"][0][name] for at, claim in enumerate(found) for name in ("low", "high")}
    return bounds | {"verdicts": said}


RELATIONS = (["[b] > [a]"], ["[a] > [b]"], ["[b] > [a] + 30", "[c] > [a]"], ["[b] < 2 * [a]"], ["[a] ~ [b]"])


# Kinds of trial, from a configuration to its record

DIGITS = {"dataset": "digits", "limit": 16, "size": 8}
SCENES = {"dataset": "scenes", "scenes": 3, "people": 3, "cameras": 2, "size": [64, 64]}
STREETS = {"train": {"world": "street", "people": 3, "scenes": 4}, "size": [64, 64], "seed": 1}
SHORT = {"epochs": 1, "batch_size": 4, "lr": 1e-3}
PLAIN = {"cutout": 0, "crop_padding": 0}
CLASSIFIER = {"train": DIGITS, "test": {"digits": DIGITS}, "recipe": SHORT | PLAIN, "seed": 1}
SEARCH = {"kind": "search", "train": DIGITS, "supernet": {"channels": 4, "cells": 3}, "search": SHORT, "seed": 1}
PEOPLE_SEARCH = {
    "kind": "reid_search",
    "supernet": "cdnet",
    "options": {"k": 2, "width": 1 / 8},
    "train": {"world": "gate", "people": 3},
    "size": [32, 16],
    "split": {"by": "image", "number": 2},
    "search": SHORT | {"loss": "balance", "num_shots": 2, "alternate": "batch"},
    "seed": 1,
}
WAYS = {
    "drawn": {},
    "other people": {"split": {"by": "identity", "overlap": 0.34}},
    "random": {
        "method": "random",
        "search": {"candidates": 2, "network": {"width": 1 / 8}, "recipe": SHORT | {"loss": "balance", "num_shots": 2}},
    },
}
BEGUN = {"kind": "reid", "model": "han_small", "options": SMALL_HAN, "train": {"world": "gate", "people": 2}, "seed": 1}
BEGUN |= {"size": [64, 32], "recipe": {"epochs": 1, "batch_size": 8, "lr": 1e-5}}
CLUSTERED = {"begin": BEGUN, "target": {"target": "plaza", "people": 10}, "size": [64, 32], "share": 0.1, "seed": 1}
CLUSTERED |= {"ratio": 0.4}
TRIALS = {
    "reid trial": {
        "kind": "reid",
        "model": "han_small",
        "options": SMALL_HAN,
        "train": {"world": "gate", "people": 2},
        "search": {"gate": {"world": "gate", "people": 3}},
        "size": [64, 32],
        "recipe": {"epochs": 8, "batch_size": 8, "num_shots": 4, "lr": 1e-5, "loss": "cross_entropy+triplet"},
        "parts": ["joint", "global", "local", "joint RR", "joint MQ", "joint RR MQ"],
        "attention": True,
        "seed": 1,
    },
    "video trial": {
        "kind": "video",
        "model": "nvan",
        "options": {"width": 0.0625},
        "train": {"world": "plaza", "people": 4, "frames": 4, "noise": 2},
        "search": {"test": {"world": "plaza", "people": 3, "frames": 4, "noise": 2}},
        "size": [64, 32],
        "frames": 2,
        "base": {"epochs": 1, "num_ids": 2, "num_shots": 2, "loss": "cross_entropy"},
        "recipe": {"epochs": 1, "num_ids": 2, "num_shots": 2, "new_rate": 10.0, "settle_batches": 1},
        "frozen": "conv3_3",
        "relink": {"recall": 0.9},
        "early": True,
        "clips": "all",
        "seed": 1,
    },
    "person search trial": {
        "kind": "person_search",
        "model": "hdl_student",
        "options": {name: value for name, value in SMALL_STUDENT.items() if name != "num_classes"},
        "recipe": SHORT,
        "teacher": {
            "model": "hdl_teacher",
            "options": {name: value for name, value in SMALL_TEACHER.items() if name != "num_classes"},
            "recipe": SHORT,
        }
        | STREETS,
        "distill": ["feature", "attention", "prediction"],
        "search": {world: {"world": world, "people": 3, "scenes": 5} for world in ("street", "yard")},
        "galleries": [0, 2],
    }
    | STREETS,
    "classification trial": CLASSIFIER
    | {
        "kind": "classification",
        "model": "resnet18_cifar",
        "options": {"width": 4},
        "calibration": {"name": "channel_attention"},
    },
    "trial of cells": CLASSIFIER
    | {
        "kind": "classification",
        "genotype": {"space": "nos", "random": 0},
        "network": {"channels": 4, "cells": 3},
        "train": {"people": 3, "shots": 1, "size": 8},
        "test": {"persons": {"people": 3, "shots": 1, "size": 8}},
    },
    "msinet trial": {
        "kind": "reid",
        "model": "msinet",
        "options": {"width": 0.0625, "align": True},
        "train": {"world": "gate", "people": 3},
        "search": {"gate": {"world": "gate", "people": 3}},
        "size": [32, 16],
        "recipe": {"epochs": 1, "batch_size": 4, "num_shots": 2, "lr": 1e-3, "loss": "msinet", "sampler": "identity"},
        "seed": 1,
    },
    "msinet search trial": {
        "kind": "msinet_search",
        "supernet": {"width": 0.0625},
        "train": {"world": "gate", "people": 4},
        "size": [32, 16],
        "search": {"epochs": 1, "batch_size": 4, "num_shots": 2, "crop_padding": 0},
        "seed": 1,
    },
    **{
        f"search trial, {kind}": SEARCH | {"space": "nge", "controller": {"kind": kind}, "embeddings": 1}
        for kind in ("alphas", "plain", "rnn", "nge")
    },
    **{f"reid search trial, {way}": PEOPLE_SEARCH | options for way, options in WAYS.items()},
    "guided search trial": SEARCH
    | {
        "space": "nos",
        "teacher": CLASSIFIER | {"model": "pyramidnet110_cifar", "options": {"depth": 11, "alpha": 6, "width": 4}},
        "guidance": {"weight": 10},
    },
    "pruning trial": CLASSIFIER
    | {
        "kind": "pruning",
        "model": "resnet32_cifar",
        "options": {"width": 4, "depths": [1, 1]},
        "prune": {"targets": {"macs": 0.6}, "filters": 2, "steps": 2, "floor": 0.25, "batch_size": 4},
        "tune": SHORT | PLAIN,
    },
    "clustering trial": CLUSTERED | {"kind": "clustering", "question": "sgc", "drawn": 8},
    "clustering trial, whom to trust": CLUSTERED | {"kind": "clustering", "question": "trust", "drawn": 8},
    "clustering trial, without labels": CLUSTERED | {"kind": "clustering", "question": "hsr", "drawn": 8},
    **{
        f"adaptation trial, {method}": CLUSTERED
        | {
            "kind": "adaptation",
            "method": method,
            "search": {"test": {"target": "plaza", "people": 3}},
            "rounds": 1,
            "recipe": {"epochs": 1, "lr": 1e-5},
            "options": {},
            "source_images": 9,
        }
        for method in ("supervised", "sgc", "hsr")
    },
    "segmentation trial": {
        "kind": "segmentation",
        "genotype": {"space": "nge", "random": 0},
        "network": {"channels": 4, "cells": 3},
        "head": {"channels": 8, "rates": [1, 2]},
        "train": SCENES,
        "test": {"scenes": SCENES},
        "recipe": SHORT | {"batch_size": 3, "crop": 64, "scales": [1, 1]},
        "seed": 1,
    },
    **{
        f"tabular trial, {table}": {
            "kind": "tabular",
            "table": table,
            "searches": {
                "random": {"search": "random"},
                "evolution": {"search": "evolution", "population": 8, "sample": 3},
                **{
                    f"{search} {policy}": {"search": search, "policy": policy, "lr": 0.1, "population": 8, "sample": 3}
                    for search in ("evolution", "reinforce")
                    for policy in ("logits", "plain", "nge")
                },
            },
            "budget": 30,
            "seed": 1,
        }
        for table in ("macro", "invented")
    },
}


def flat(found, name="") -> dict:
    "{path of keys: number or text} of what JSON can hold."
    if not isinstance(found, dict | list):
        return {name: found}
    parts = found.items() if isinstance(found, dict) else enumerate(found)
    return {path: value for key, part in parts for path, value in flat(part, f"{name} {key}".strip()).items()}


def record_of(config):
    "Numbers of a trial's record: its metrics and cost, and one number for each long part."
    record = KINDS[config["kind"]].run(config, checkpoint=None, given={}, progress=False)
    shown = {part: record[part] for part in ("metrics", "cost", "params") if part in record}
    numbers = {name: value for name, value in flat(shown).items() if value is not None}
    for part in ("queries", "people", "curves", "genotype"):
        values = list(flat(record.get(part, [])).values())
        texts, rest = ([x for x in values if isinstance(x, str) is text] for text in (True, False))
        numbers |= {part: probe(rest)} if rest else {}
        numbers |= {f"{part} in words": text_number(" ".join(texts))} if texts else {}
    return numbers


for name, config in TRIALS.items():
    guards = tuple(KINDS[config["kind"]].versions(config))
    painted_there = any(guard.startswith("world") for guard in guards)
    within = (
        0.05 if config["kind"] == "adaptation" else 1e-3 if painted_there else TINY
    )  # its rounds build on each other
    CANARIES[name] = Canary(name, guards, partial(record_of, config), within)


# Comparing with what is committed, and renewing it


def read(file: Path) -> dict[str, dict]:
    "{canary: {versions, numbers}} as committed."
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def agree(one: Canary, old: float, new: float) -> bool:
    "Whether two numbers of a canary are one, whatever processor found them."
    return math.isclose(old, new, rel_tol=1e-6, abs_tol=one.within)


def fault(one: Canary, numbers: dict[str, float], record: dict | None) -> tuple[str, bool]:
    """What is wrong with a canary, a sentence that is empty where nothing is, and whether it is right to renew it:
    where it is new, or a version that it guards was raised since its `record` was committed."""
    if record is None:
        return f"canary {one.name} is new: add its numbers with: python tests/canaries.py", True
    versions, old = versions_of(one.guards), record["numbers"]
    raised = [name for name, version in versions.items() if version > record["versions"].get(name, version)]
    moved = [name for name in numbers if name in old and not agree(one, old[name], numbers[name])]
    if moved and not raised:
        first, more = moved[0], f", with {len(moved) - 1} more of its numbers" if len(moved) > 1 else ""
        return (
            f"canary {one.name} moved: {first!r} was {old[first]!r} and is {numbers[first]!r}{more}: raise the version "
            f"of one of {', '.join(versions)} in nbs/versions.ipynb, or undo the change"
        ), False
    if moved or versions != record["versions"] or numbers.keys() != old.keys():
        what = f"{', '.join(raised)} was raised" if raised else "it has other numbers or guards"
        return f"canary {one.name} is older than the code, {what}: renew with: python tests/canaries.py", True
    return "", True


def renewed(one: Canary, numbers: dict[str, float], record: dict | None) -> dict:
    "What is to be committed: numbers that agree keep their digits, so that a change of the file shows what moved."
    old = record["numbers"] if record else {}
    kept = {name: old[name] if agree(one, old.get(name, math.nan), new) else new for name, new in numbers.items()}
    return {"versions": versions_of(one.guards), "numbers": kept}


def main(arguments: list[str] | None = None) -> int:
    "The command; 0: all is well, 1: `--check` found a fault, 2: a canary moved without a raised version."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="canaries, all unless given")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument("--file", type=Path, default=FILE, help="where the numbers are")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.names) - CANARIES.keys()):
        parser.error(f"there is no canary {', '.join(unknown)}: there are {', '.join(CANARIES)}")
    records, started = read(chosen.file), time.process_time()
    found = {name: numbers_of(CANARIES[name]) for name in chosen.names or CANARIES}
    faults = {name: fault(CANARIES[name], numbers, records.get(name)) for name, numbers in found.items()}
    print(
        f"{len(found)} canaries, {time.process_time() - started:.1f} CPU seconds, float64, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    wrong = [sentence for sentence, renewable in faults.values() if sentence and (chosen.check or not renewable)]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1 if chosen.check else 2
    if not chosen.check:
        kept = {} if not chosen.names else records
        new = {name: renewed(CANARIES[name], numbers, records.get(name)) for name, numbers in found.items()}
        write_whole(chosen.file, json.dumps(kept | new, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
