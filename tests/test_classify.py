"""Classifiers: augmentation against loops, schedules and losses by hand, runs that repeat and continue to the bit, and
what wrong input is told."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch.data.images import to_float
from scalable_arch.nas import PUBLISHED, CifarNetwork
from scalable_arch.train.classify import (
    accuracy,
    augmented_batch,
    classification_loss,
    cutout,
    fit_classifier,
    named_rightly,
    random_crop,
)
from scalable_arch.train.loop import epoch_batches
from scalable_arch.train.run import epoch_seeds
from scalable_arch.train.schedule import scheduled_rate


class Tiny(nn.Module):
    """Logits, in train mode also auxiliary ones; with batch normalisation, dropout and drop-path, all that chance and
    a checkpoint must carry."""

    def __init__(self, num_classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2))
        self.head, self.hint = nn.Linear(6, num_classes), nn.Linear(6, num_classes)
        self.drop_path_rate, self.rates = 0.25, []

    def forward(self, images):
        return self.forward_with_maps(images)[0]

    def forward_with_maps(self, images):
        maps = self.body(images)
        if self.training:
            self.rates.append(self.drop_path_rate)
            maps = maps * (torch.rand(len(maps), 1, 1, 1) >= self.drop_path_rate)
        pooled = maps.mean((2, 3))
        return (self.head(pooled), self.hint(pooled)) if self.training else self.head(pooled), [maps]


def toy(n=33):
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4
    colours = torch.tensor([[170, 100, 100], [100, 170, 100], [100, 100, 170], [150, 150, 100]])
    return (colours[labels].view(-1, 3, 1, 1) + torch.randint(-60, 60, (n, 3, 8, 6), generator=chance)).byte(), labels


IMAGES, LABELS = toy()
RECIPE = dict(epochs=4, batch_size=16, lr=0.1, cutout=3, crop_padding=2)


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# augmentation


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(0, 4), st.integers(0, 99))
def test_crops_are_windows_of_the_padded_image(number, height, width, padding, seed):
    images = torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8)
    found = random_crop(images, padding, torch.Generator().manual_seed(seed))
    tops, lefts = (
        torch.randint(0, 2 * padding + 1, (2, number, 1), generator=torch.Generator().manual_seed(seed)).flatten(1)
        if padding
        else torch.zeros(2, number, dtype=int)
    )
    for image, crop, top, left in zip(images, found, tops.tolist(), lefts.tolist()):
        padded = F.pad(image, [padding] * 4)
        assert torch.equal(crop, padded[:, top : top + height, left : left + width])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_cutout_hides_a_square_and_nothing_else(number, height, width, length, seed):
    images = torch.rand(number, 2, height, width) + 1
    found, generator = cutout(images, length, torch.Generator().manual_seed(seed)), torch.Generator().manual_seed(seed)
    rows, columns = (
        torch.randint(side, (number, 1), generator=generator).flatten().tolist() for side in (height, width)
    )
    for image, result, row, column in zip(images, found, rows, columns):
        expected = image.clone()
        top, left = row - length // 2, column - length // 2
        expected[:, max(top, 0) : max(top + length, 0), max(left, 0) : max(left + length, 0)] = 0
        assert torch.equal(result, expected) and (result == 0).any()


def test_no_augmentation_is_the_image():
    plain = augmented_batch(
        IMAGES,
        torch.tensor([3, 5]),
        {"crop_padding": 0, "flip": False, "cutout": 0},
        torch.Generator(),
        "cpu",
        torch.float32,
    )
    assert torch.equal(plain, to_float(IMAGES[[3, 5]])) and plain.is_contiguous(memory_format=torch.channels_last)


# schedule and loss


def test_rates_by_hand():
    assert [scheduled_rate(place, epochs=4, lr=1.0) for place in (0, 2)] == [1, 0.5]
    assert scheduled_rate(1, epochs=3, lr=1.0) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert [scheduled_rate(place, epochs=4, lr=1.0, schedule="linear") for place in (0, 1, 3)] == [1, 0.75, 0.25]
    assert [
        scheduled_rate(place, epochs=9, lr=1.0, schedule="steps", milestones=(2, 3), gamma=0.5) for place in (1.9, 2, 3)
    ] == [1, 0.5, 0.25]
    assert [
        scheduled_rate(place, epochs=9, lr=1.0, schedule="linear", warmup=3) for place in (0, 1, 2, 3, 6)
    ] == pytest.approx([0, 1 / 3, 2 / 3, 1, 0.5])


def test_loss_by_hand():
    logits, hints, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]]), torch.tensor([1])
    assert classification_loss(logits, None, targets).item() == pytest.approx(math.log(4 / 3))
    assert classification_loss(logits, hints, targets, 0.5).item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(2))
    smooth = -(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4))
    assert classification_loss(logits, None, targets, label_smoothing=0.2).item() == pytest.approx(smooth)


# runs


@pytest.mark.parametrize(
    "options",
    [
        dict(clip=0.05),
        dict(clip=None, schedule="linear", warmup=1, label_smoothing=0.1),
        dict(schedule="steps", milestones=(1,), momentum=0),
    ],
    ids=["cosine", "linear", "steps"],
)
def test_fit_is_the_plain_loop(options):
    ours, plain = Tiny(), Tiny()
    recipe = RECIPE | {"epochs": 2} | options
    history = fit_classifier(ours, IMAGES, LABELS, **recipe)
    plain.to(memory_format=torch.channels_last).train()
    momentum = recipe.get("momentum", 0.9)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1, momentum=momentum, weight_decay=3e-4, fused=True)
    losses = []
    for epoch in range(2):
        order, own = epoch_seeds(0, epoch)
        generator = torch.Generator().manual_seed(order)
        torch.manual_seed(own)
        batches, total = epoch_batches(LABELS, "random", 16, None, generator), 0
        assert [len(index) for index in batches] == [16, 17]  # 33 images: no batch of one
        for step, index in enumerate(batches):
            place = epoch + step / len(batches)
            schedule = {key: recipe[key] for key in ("schedule", "warmup", "milestones") if key in recipe}
            optimizer.param_groups[0]["lr"] = scheduled_rate(place, epochs=2, lr=0.1, **schedule)
            plain.drop_path_rate = 0.3 * place / 2
            batch = augmented_batch(
                IMAGES, index, {"crop_padding": 2, "flip": True, "cutout": 3}, generator, "cpu", torch.float32
            )
            loss = classification_loss(*plain(batch), LABELS[index], 0.4, recipe.get("label_smoothing", 0))
            optimizer.zero_grad()
            loss.backward()
            if recipe.get("clip", 5.0):
                nn.utils.clip_grad_norm_(plain.parameters(), recipe.get("clip", 5.0))
            optimizer.step()
            total += loss.item() * len(index) / 33
        losses.append(total)
    assert same_bits(ours, plain) and [record["loss"] for record in history] == pytest.approx(losses)
    assert ours.rates == plain.rates == pytest.approx([0, 0.075, 0.15, 0.225]) and ours.drop_path_rate == 0.25


def test_same_seed_same_bits_and_the_mode_is_given_back():
    models = [Tiny().eval() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1)):
        torch.rand(3)
        fit_classifier(model, IMAGES, LABELS, **RECIPE, seed=seed)
    assert same_bits(*models[:2]) and not same_bits(models[0], models[2]) and not models[0].training


@pytest.mark.parametrize("stopped", [1, 3])
def test_stopped_and_continued_to_the_same_bits(tmp_path, stopped):
    whole, broken, continued, states = Tiny(), Tiny(), Tiny(), []

    def stop(record):
        states.append(record)
        if len(states) == stopped:
            raise KeyboardInterrupt

    full = fit_classifier(whole, IMAGES, LABELS, **RECIPE)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier(broken, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path, on_epoch=stop)
    assert broken.drop_path_rate == 0.25
    history = fit_classifier(continued, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    without_time = lambda records: [
        {key: value for key, value in record.items() if key != "seconds"} for record in records
    ]
    assert same_bits(whole, continued) and without_time(history) == without_time(full)


def test_a_run_of_steps_may_be_asked_for_more(tmp_path):
    recipe = RECIPE | dict(schedule="steps", milestones=(1,), drop_path=0, checkpoint=tmp_path)
    longer = Tiny()
    fit_classifier(longer, IMAGES, LABELS, **recipe | {"checkpoint": None})
    fit_classifier(Tiny(), IMAGES, LABELS, **recipe | {"epochs": 2})
    continued = Tiny()
    assert len(fit_classifier(continued, IMAGES, LABELS, **recipe)) == 4 and same_bits(longer, continued)


def test_guidance_adds_to_the_loss_and_is_named(tmp_path):
    def warmth(maps, batch):
        assert batch.shape[0] == maps[0].shape[0]
        return maps[0].mean() * 100

    guided, alone = Tiny(), Tiny()
    history = fit_classifier(guided, IMAGES, LABELS, **RECIPE, guidance=warmth, checkpoint=tmp_path)
    assert history[0]["loss"] > fit_classifier(alone, IMAGES, LABELS, **RECIPE)[0]["loss"] + 1
    with torch.no_grad():
        means = [model.eval().forward_with_maps(to_float(IMAGES))[1][0].mean() for model in (guided, alone)]
    assert means[0] < means[1]
    with pytest.raises(ValueError, match="guidance='.*warmth', not guidance=None"):
        fit_classifier(Tiny(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)


def test_it_learns():
    model = Tiny()
    fit_classifier(model, IMAGES, LABELS, **RECIPE | dict(epochs=30, cutout=0, drop_path=0), auxiliary_weight=0)
    assert accuracy(model, IMAGES, LABELS) > 0.8


# another run


def cells(genotype):
    torch.manual_seed(0)
    return CifarNetwork(genotype, channels=4, cells=3, num_classes=4)


def test_another_genotype_of_the_same_shapes_is_refused(tmp_path):
    published = PUBLISHED["darts_v2"]
    nodes = [list(node) for node in published.normal]
    (name, source), (skip, other) = nodes[2]
    nodes[2] = [(name, other), (skip, source)]  # the two edges of a node change their ends
    moved = replace(published, normal=tuple(map(tuple, nodes)))
    shapes = [[tuple(x.shape) for x in cells(genotype).state_dict().values()] for genotype in (published, moved)]
    assert shapes[0] == shapes[1] and moved != published
    recipe = RECIPE | dict(epochs=1, checkpoint=tmp_path)
    fit_classifier(cells(published), IMAGES, LABELS, **recipe)
    with pytest.raises(ValueError, match="network of another structure, another CifarNetwork: genotype is Genotype"):
        fit_classifier(cells(moved), IMAGES, LABELS, **recipe)
    fit_classifier(cells(published), IMAGES, LABELS, **recipe)


class Warmth:
    "Guidance that is an object, with a teacher."

    def __init__(self, teacher, weight=1.0):
        self.teacher, self.weight = teacher, weight

    def __call__(self, maps, batch):
        with torch.no_grad():
            wanted = self.teacher(batch).mean()
        return self.weight * (maps[0].mean() - wanted).square()


def teacher(seed):
    torch.manual_seed(seed)
    return nn.Conv2d(3, 1, 1)


def test_other_guidance_of_the_same_name_is_refused(tmp_path):
    recipe = RECIPE | dict(schedule="steps", milestones=(1,), drop_path=0, checkpoint=tmp_path)
    fit_classifier(Tiny(), IMAGES, LABELS, **recipe | {"epochs": 1}, guidance=Warmth(teacher(0)))
    for other in (Warmth(teacher(1)), Warmth(teacher(0), 2.0)):
        with pytest.raises(ValueError, match="is of a run with another guidance: (teacher|weight) is "):
            fit_classifier(Tiny(), IMAGES, LABELS, **recipe, guidance=other)
    fit_classifier(Tiny(), IMAGES, LABELS, **recipe, guidance=Warmth(teacher(0)))


def test_the_shares_of_chance_change_with_the_seed():
    "Crops, mirror images and the order of the images, each by itself."
    for options in (
        dict(crop_padding=2, flip=False, cutout=0),
        dict(crop_padding=0, flip=True, cutout=0),
        dict(cutout=3),
    ):
        settings = dict(crop_padding=0, flip=False, cutout=0) | options
        batch = lambda seed: augmented_batch(
            IMAGES, torch.arange(33), settings, torch.Generator().manual_seed(seed), "cpu", torch.float32
        )
        assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))


def test_a_network_of_double_precision():
    model = Tiny().double()
    history = fit_classifier(model, IMAGES, LABELS, **RECIPE)
    assert {x.dtype for x in model.parameters()} == {torch.float64}
    single = fit_classifier(Tiny(), IMAGES, LABELS, **RECIPE)
    assert [r["loss"] for r in history] == pytest.approx([r["loss"] for r in single], rel=1e-4)
    assert any(float(torch.tensor(r["loss"], dtype=torch.float32)) != r["loss"] for r in history)
    assert 0 <= accuracy(model, IMAGES, LABELS) <= 1


# accuracy


def test_labels_to_score_come_in_any_form():
    model, column = Tiny().eval(), pd.Series([9, *LABELS.tolist()])[1:]
    assert torch.equal(named_rightly(model, IMAGES, column), named_rightly(model, IMAGES, LABELS))
    with pytest.raises(ValueError, match="not texts"):
        accuracy(model, IMAGES, [str(label) for label in LABELS.tolist()])


def test_accuracy_against_a_sort():
    model = Tiny().eval()
    with torch.no_grad():
        ranked = model(to_float(IMAGES)).argsort(1, descending=True)
    for top in (1, 2, 4, 9):
        right = torch.tensor([label in row[:top].tolist() for row, label in zip(ranked, LABELS)])
        assert torch.equal(named_rightly(model, IMAGES, LABELS, top=top, batch_size=5), right)
        assert accuracy(model, IMAGES, LABELS, top=top) == pytest.approx(right.float().mean().item())


# wrong input


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return {"logits": images.mean() * self.weight}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(schedule="cosin"), "unknown schedule 'cosin' .did you mean 'cosine'"),
        (dict(schedule="steps"), "schedule='steps' needs milestones"),
        (dict(schedule="steps", milestones=(3, 2)), "milestones must be epochs in rising order"),
        (dict(epochs=0), "epochs must be a whole number of at least 1, not 0"),
        (dict(batch_size=1), "batch_size must be a whole number of at least 2, not 1"),
        (dict(cutout=2.5), "cutout must be a whole number of at least 0, not 2.5"),
        (dict(crop_padding=-1), "crop_padding must be a whole number of at least 0, not -1"),
        (dict(warmup=4), "warmup=4 epochs must be fewer than epochs=4"),
        (dict(drop_path=1), "drop_path must be a number from 0 to 0.999, not 1"),
        (dict(auxiliary_weight=-1), "auxiliary_weight must be a number of at least 0, not -1"),
        (dict(lr=math.nan), "lr must be a number of at least 0, not nan"),
        (dict(labels=LABELS[:5]), "there must be one label an image"),
        (dict(labels=LABELS + 1), r"the model has num_classes=4, but there is a label 4: make it with num_classes=5"),
        (dict(images=IMAGES.float()), "images must be uint8 of shape"),
        (
            dict(model=nn.Flatten(), guidance=lambda maps, batch: 0),
            "a Flatten cannot be guided: it has no method forward_with_maps",
        ),
        (
            dict(model=Silent()),
            r"a classifier must return logits \(B, num_classes\), or \(logits, auxiliary logits\), for a batch of "
            r"B=16, not dict",
        ),
    ],
)
def test_mistakes_get_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        fit_classifier(**dict(model=Tiny(), images=IMAGES, labels=LABELS, **RECIPE) | change)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(
        FloatingPointError, match="at epoch 1, step 2 of 2: a smaller lr may help; no checkpoint was saved"
    ):
        fit_classifier(Tiny(), IMAGES, LABELS, **RECIPE | dict(lr=1e38, clip=None), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="top must be a whole number of at least 1"):
        accuracy(Tiny(), IMAGES, LABELS, top=0)
