"""`scalable_arch.train`: losses against slow references, the loop against a plain one, and what happens when things go
wrong."""

import errno
import math
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import scalable_arch
from scalable_arch import files
from scalable_arch.data.batches import identity_batches
from scalable_arch.data.images import to_float
from scalable_arch.files import folder_lock
from scalable_arch.models import create_model
from scalable_arch.train import extract_features, fit, load_checkpoint, load_model, save_checkpoint, save_model
from scalable_arch.train.checkpoint import CHECKPOINT_FILE, read_checkpoint, take_dtypes
from scalable_arch.train.inputs import as_integers, check_labels, data_settings
from scalable_arch.train.loop import epoch_batches, training_accuracy
from scalable_arch.train.losses import LOSSES, cross_entropy, cross_entropy_and_triplet, loss_by_name, triplet
from scalable_arch.train.run import epoch_seeds
from scalable_arch.train.schedule import scheduled_rate


class TwoBranches(nn.Module):
    """The smallest network that has all a checkpoint must carry: BN buffers, momentum, dropout, a layer used by two
    branches."""

    def __init__(self, num_classes=4, width=6):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2))
        head = nn.Linear(width, num_classes)
        self.heads = nn.ModuleList([head, head])

    def forward(self, x):
        x = self.conv(x)
        embeddings = (x.mean((2, 3)), x.amax((2, 3)))
        if not self.training:
            return torch.cat([F.normalize(e) for e in embeddings], 1)
        return SimpleNamespace(logits=tuple(h(e) for h, e in zip(self.heads, embeddings)), embeddings=embeddings)


def new_model(num_classes=4):
    torch.manual_seed(0)
    return TwoBranches(num_classes)


def toy(n=33):
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4
    colours = torch.tensor([[170, 100, 100], [100, 170, 100], [100, 100, 170], [150, 150, 100]])
    return (colours[labels].view(-1, 3, 1, 1) + torch.randint(-80, 80, (n, 3, 8, 6), generator=chance)).byte(), labels


IMAGES, LABELS = toy()
RECIPE = dict(epochs=4, batch_size=16, milestones=(3,), lr=0.1, flip=True, erasing=True)


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def straight():
    "A run that nothing ever stopped."
    model = new_model()
    return model, fit(model, IMAGES, LABELS, **RECIPE)


# ---- losses ----


def slow_triplet(embedding, labels, margin, mining):
    "Three loops; the mean over positive losses of all triplets, or of each anchor's hardest."
    n, losses = len(labels), []
    distance = lambda i, j: math.dist(embedding[i].tolist(), embedding[j].tolist())
    for a in range(n):
        positives = [distance(a, p) for p in range(n) if p != a and labels[p] == labels[a]]
        negatives = [distance(a, k) for k in range(n) if labels[k] != labels[a]]
        if mining == "hardest":
            positives, negatives = positives and [max(positives)], negatives and [min(negatives)]
        losses += [margin + p - k for p in positives for k in negatives if margin + p - k > 0]
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=10),
    seed=st.integers(0, 999),
    margin=st.sampled_from([0.0, 0.3, 1.5]),
    mining=st.sampled_from(["positive", "hardest"]),
    normalise=st.booleans(),
    same=st.booleans(),
)
def test_triplet_is_the_mean_of_positive_losses(labels, seed, margin, mining, normalise, same):
    labels = torch.tensor(labels)
    embeddings = tuple(
        torch.randn(len(labels), d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for d in (3, 5)
    )
    if same:
        embeddings[0][1] = embeddings[0][0]
    expected = sum(slow_triplet(F.normalize(e) if normalise else e, labels, margin, mining) for e in embeddings)
    ours = triplet(SimpleNamespace(embeddings=embeddings), labels, margin=margin, mining=mining, normalise=normalise)
    assert ours == pytest.approx(expected, abs=1e-9)


def test_triplet_gradient_is_finite_where_embeddings_coincide_and_zero_where_nothing_is_violated():
    embedding = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    triplet(SimpleNamespace(embeddings=(embedding,)), torch.tensor([0, 0, 1, 1])).backward()
    assert embedding.grad.isfinite().all() and embedding.grad.any()
    content = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], requires_grad=True)
    loss = triplet(SimpleNamespace(embeddings=(content,)), torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss == 0 and not content.grad.any()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 6), classes=st.integers(1, 5), seed=st.integers(0, 999))
def test_cross_entropy_sums_branches(n, classes, seed):
    chance = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=chance)
    logits = tuple(torch.randn(n, classes, generator=chance, dtype=torch.float64) * 3 for _ in range(2))
    share = lambda row, k: math.exp(row[k]) / sum(math.exp(v) for v in row)
    expected = sum(-math.log(share(x[i].tolist(), labels[i])) / n for x in logits for i in range(n))
    assert cross_entropy(SimpleNamespace(logits=logits), labels) == pytest.approx(expected, abs=1e-9)


def test_losses_of_a_bfloat16_model_are_summed_in_float32():
    output = SimpleNamespace(logits=(torch.randn(4, 3).bfloat16(),), embeddings=(torch.randn(4, 5).bfloat16(),))
    labels = torch.tensor([0, 0, 1, 1])
    assert {loss(output, labels).dtype for loss in LOSSES.values()} == {torch.float32}
    assert cross_entropy_and_triplet(output, labels) == cross_entropy(output, labels) + triplet(output, labels)


def test_misspelt_mining():
    with pytest.raises(ValueError, match="did you mean 'hardest'"):
        triplet(SimpleNamespace(embeddings=(torch.randn(2, 2),)), torch.tensor([0, 1]), mining="hardst")


# ---- checkpoints ----

EVERY_KIND = {
    "bfloat16": torch.randn(3, 2).bfloat16(),
    "float16": torch.randn(2).half(),
    "float64": torch.randn(2, 2).double(),
    "steps": torch.tensor(7),
    "bool": torch.tensor([True, False]),
    "uint8": torch.arange(5, dtype=torch.uint8),
    "empty": torch.empty(0, 3),
    "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "strided": torch.arange(10.0)[::3],
    "not finite": torch.tensor([math.inf, math.nan]),
    "parameter": nn.Parameter(torch.randn(2)),
}


def test_checkpoint_gives_back_every_kind_of_tensor(tmp_path):
    shared = torch.randn(4)
    tensors = EVERY_KIND | {"shared": shared, "shared again": shared, "part of shared": shared[1:3]}
    save_checkpoint(tmp_path / "file", tensors, {"epoch": 3, "about": ["ä", None, 0.1]})
    loaded, state = load_checkpoint(tmp_path / "file")
    assert state == {"epoch": 3, "about": ["ä", None, 0.1]} and loaded.keys() == tensors.keys()
    for name, x in tensors.items():
        assert loaded[name].dtype == x.dtype and loaded[name].shape == x.shape, name
        assert torch.equal(loaded[name].nan_to_num(3), x.detach().nan_to_num(3)), name


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path):
    file = tmp_path / "file"
    save_checkpoint(file, {"weight": torch.tensor([[1.5, -2.0]]), "steps": torch.tensor(7)}, {"epoch": 3})
    whole = file.read_bytes()
    damaged = [whole[:n] for n in range(len(whole))]
    damaged += [
        whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :] for i in range(len(whole)) for bit in range(8)
    ]
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"is damaged|but not a checkpoint"):
            load_checkpoint(file)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*nothing"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="checkpoint.safetensors"):
        load_checkpoint(tmp_path)
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        torch.save({"weight": torch.ones(2)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        with pytest.raises(
            ValueError, match=r"is a pickle.*not opened here.*torch.load\(path, weights_only=True\)"
        ) as error:
            load_model(tmp_path / name, new_model())
        assert "damaged" not in str(error.value) and "delete it" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + bytes(99), b"", b"a,b\n1,2\n" * 9], ids=["picture", "empty", "table"]
)
def test_nobody_is_told_to_delete_a_file_of_his_own(tmp_path, content):
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(ValueError, match="mine is damaged") as error:
        load_checkpoint(tmp_path / "mine")
    assert "delete it" not in str(error.value) and "\n" not in str(error.value)
    (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="delete it to begin anew"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "mine", {"x": torch.ones(9)}, {})
    (tmp_path / "mine").write_bytes((tmp_path / "mine").read_bytes()[:-1])
    with pytest.raises(ValueError, match="mine is damaged or cut short") as error:
        load_checkpoint(tmp_path / "mine")
    assert "delete it" not in str(error.value)


def out_of_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_disk_full_keeps_the_old_checkpoint(tmp_path, monkeypatch, call):
    save_model(tmp_path / "file", new_model(), epoch=1)
    before = (tmp_path / "file").read_bytes()
    monkeypatch.setattr(files.os, call, out_of_space)
    with pytest.raises(
        OSError, match="cannot write .*file: No space left on device; the file that was there is kept"
    ) as caught:
        save_model(tmp_path / "file", new_model(5), epoch=2)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="limits on file size are POSIX")
def test_a_write_that_breaks_off_half_way(tmp_path):
    import resource

    save_checkpoint(tmp_path / "file", {"x": torch.zeros(100)}, {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="the file that was there is kept"):
            save_checkpoint(tmp_path / "file", {"x": torch.zeros(10_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert load_checkpoint(tmp_path / "file")[1] == {"epoch": 1}


def test_model_round_trip_and_other_structures(tmp_path):
    file = tmp_path / "net.safetensors"
    source = new_model()
    with torch.no_grad():
        source.heads[0].weight.add_(1)
    save_model(file, source, num_classes=4)
    target = new_model()
    assert load_model(file, target) == {"num_classes": 4}
    assert same_bits(source, target)
    for model, sentence in [
        (new_model(5), r"heads.0.weight is \(4, 6\) there and \(5, 6\)"),
        (nn.Linear(2, 2), "the model has bias, it has not"),
        (nn.Module(), "it has conv.0.weight, the model has not"),
    ]:
        before = {name: x.clone() for name, x in model.state_dict().items()}
        with pytest.raises(ValueError, match=sentence):
            load_model(file, model)
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_keeps_its_dtype_in_the_file_and_another_is_refused(tmp_path, dtype):
    source, target = new_model().to(dtype), new_model()
    save_model(tmp_path / "net", source)
    tensors = load_checkpoint(tmp_path / "net")[0]
    assert {x.dtype for name, x in tensors.items() if "num_batches" not in name} == {dtype}
    with pytest.raises(
        ValueError, match=rf"conv.0.weight in {dtype} and the model has it in torch.float32: move the model"
    ):
        load_model(tmp_path / "net", target)
    assert same_bits(target, new_model())
    take_dtypes(target, tensors)
    load_model(tmp_path / "net", target)
    assert same_bits(source, target) and next(target.parameters()).dtype == dtype


SMALL_HAN = dict(num_classes=4, widths=(8, 8, 8), feature_dim=16)


def test_weights_of_another_network_of_the_same_shapes_are_refused(tmp_path):
    small, large = (create_model(name, **SMALL_HAN) for name in ("han_small", "han_large"))
    before = [x.clone() for x in large.state_dict().values()]
    save_model(tmp_path / "net", small)
    scalable_arch.save(tmp_path / "named", small)
    for file in ("net", "named"):
        with pytest.raises(
            ValueError, match=r"another structure, han_small, not han_large: .*stride is \(2, 2\) there and"
        ):
            load_model(tmp_path / file, large)
        assert all(torch.equal(x, y) for x, y in zip(before, large.state_dict().values()))
    load_model(tmp_path / "net", large, same_network=False)
    assert same_bits(small, large)
    with pytest.raises(ValueError, match="another han_small: interaction is True there and False here"):
        load_model(tmp_path / "net", create_model("han_small", interaction=False, **SMALL_HAN))
    save_checkpoint(tmp_path / "earlier", read_checkpoint(tmp_path / "net").tensors, {"made_by": small.made_by})
    load_model(tmp_path / "earlier", create_model("han_small", **SMALL_HAN))
    with pytest.raises(ValueError, match="han_small, not han_large; make the model"):
        load_model(tmp_path / "earlier", large)


class Counting(TwoBranches):
    "Counts its calls, keeps a cache and a diary: what a trained network has and a new one has not."

    def __init__(self):
        super().__init__()
        self.calls, self.cache, self.diary = 0, None, []

    def forward(self, x):
        self.calls, self.cache = self.calls + 1, x.detach().mean()
        self.diary.append(self.calls)
        self.late = torch.ones(self.calls)
        return super().forward(x)


def counting():
    torch.manual_seed(0)
    return Counting()


def test_what_changes_in_training_is_no_mark_of_a_network(tmp_path):
    whole, broken = counting(), counting()
    fit(whole, IMAGES, LABELS, **RECIPE)
    fit(broken, IMAGES, LABELS, **RECIPE | {"epochs": 2}, checkpoint=tmp_path / "run")
    fit(broken.eval(), IMAGES, LABELS, **RECIPE | {"epochs": 3}, checkpoint=tmp_path / "run")  # the same object
    continued = counting()
    fit(continued, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path / "run")
    assert same_bits(whole, continued)
    save_model(tmp_path / "net", whole)
    loaded = counting()
    load_model(tmp_path / "net", loaded)
    assert same_bits(whole, loaded)


# ---- the loop ----


def test_schedule_is_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[100, 200, 250], gamma=0.1)
    for epoch in range(300):
        rate = scheduled_rate(epoch, epochs=300, lr=3e-2, schedule="steps", milestones=(100, 200, 250))
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()


def test_one_cycle_is_torchs():
    "OneCycleLR from nothing and to nothing, with a straight rise, and Nesterov's momentum: ten obvious lines."
    recipe = RECIPE | dict(flip=False, erasing=False, milestones=(), schedule="cosine", warmup=1, nesterov=True)
    ours, plain = new_model(), new_model()
    ours.conv[3].p = plain.conv[3].p = 0.0
    fit(ours, IMAGES, LABELS, **recipe)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(4):
        batches = epoch_batches(LABELS, "random", 16, 4, torch.Generator().manual_seed(epoch_seeds(0, epoch)[0]))
        for step, index in enumerate(batches):
            place = epoch + step / len(batches)
            up, down = place, (1 + np.cos(np.pi * (place - 1) / 3)) / 2
            optimizer.param_groups[0]["lr"] = 0.1 * (up if place < 1 else down)
            loss = sum(nn.functional.cross_entropy(x, LABELS[index]) for x in plain(to_float(IMAGES[index])).logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, x in plain.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].float(), x.float(), rtol=1e-3, atol=1e-5), name


def test_label_smoothing_spreads_a_share():
    output = SimpleNamespace(logits=(torch.tensor([[0.0, 2.0, -1.0]]),))
    target = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    by_hand = -(target * output.logits[0].log_softmax(1)).sum()
    assert loss_by_name("cross_entropy", 0.1)(output, torch.tensor([0])).item() == pytest.approx(by_hand.item())
    for loss in ("triplet", lambda output, labels: 0):
        with pytest.raises(ValueError, match="label_smoothing=0.1 is for losses with cross_entropy"):
            loss_by_name(loss, 0.1)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (dict(schedule="cosin"), "did you mean 'cosine'"),
        (dict(warmup=9), "warmup=9 epochs must be fewer than epochs=4"),
        (dict(label_smoothing=1.0), "label_smoothing must be at least 0 and less than 1, not 1.0"),
        (dict(colour=-0.1), "colour must be at least 0 and less than 1, not -0.1"),
    ],
)
def test_settings_of_no_run(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(new_model(), IMAGES, LABELS, **RECIPE | wrong)


def test_one_cycle_is_not_continued_to_more_epochs(tmp_path):
    recipe = RECIPE | dict(schedule="cosine", epochs=2, milestones=())
    fit(new_model(), IMAGES, LABELS, **recipe, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="epochs=2, not epochs=3"):
        fit(new_model(), IMAGES, LABELS, **recipe | {"epochs": 3}, checkpoint=tmp_path)


def test_training_accuracy_is_of_eval_mode_and_leaves_the_mode():
    model = new_model()
    fit(model, IMAGES, LABELS, **RECIPE)
    model.train()
    model.conv.eval()
    before = [module.training for module in model.modules()]
    found = training_accuracy(model, IMAGES, LABELS)
    assert [module.training for module in model.modules()] == before
    with torch.inference_mode():
        features = model.eval().conv(to_float(IMAGES))
        logits = model.heads[0](features.mean((2, 3))) + model.heads[1](features.amax((2, 3)))
    assert round(found * len(LABELS)) == (logits.argmax(1) == LABELS).sum()


def test_fit_is_the_plain_loop():
    "Without dropout and augmentation: fifteen obvious lines, channels first."
    recipe = RECIPE | dict(flip=False, erasing=False)
    ours, plain = new_model(), new_model()
    ours.conv[3].p = plain.conv[3].p = 0.0
    history = fit(ours, IMAGES, LABELS, **recipe)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3], gamma=0.1)
    for epoch in range(4):
        total = right = 0
        for index in epoch_batches(LABELS, "random", 16, 4, torch.Generator().manual_seed(epoch_seeds(0, epoch)[0])):
            output = plain(to_float(IMAGES[index]))
            loss = sum(nn.functional.cross_entropy(x, LABELS[index]) for x in output.logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, right = (
                total + loss.item() * len(index),
                right + (sum(output.logits).argmax(1) == LABELS[index]).sum().item(),
            )
        assert (
            history[epoch]["loss"] == pytest.approx(total / 33, rel=1e-4) and history[epoch]["accuracy"] == right / 33
        )
        assert history[epoch]["lr"] == pytest.approx(schedule.get_last_lr()[0]) and history[epoch]["epoch"] == epoch + 1
        schedule.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 70), batch_size=st.integers(2, 40), seed=st.integers(0, 99))
def test_random_batches_hold_every_image_once_and_never_one_alone(n, batch_size, seed):
    batches = epoch_batches(
        torch.zeros(n, dtype=torch.long), "random", batch_size, 4, torch.Generator().manual_seed(seed)
    )
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    assert all(2 <= len(index) <= batch_size + 1 for index in batches)


def test_same_seed_same_bits_whatever_else_draws_numbers(straight):
    model = new_model()
    torch.rand(3)
    before = torch.get_rng_state()

    def evaluate_in_between(record):
        torch.rand(record["epoch"])
        extract_features(model, IMAGES)

    history = fit(model, IMAGES, LABELS, **RECIPE, on_epoch=evaluate_in_between)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(model, straight[0])
    untimed = lambda records: [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    assert untimed(history) == untimed(straight[1])
    other = new_model()
    fit(other, IMAGES, LABELS, **RECIPE, seed=1)
    assert not same_bits(other, straight[0])


def test_identity_batches_for_triplets_and_on_request():
    seen = []

    def spy(output, labels):
        seen.append(labels.tolist())
        return cross_entropy(output, labels)

    fit(new_model(), IMAGES, LABELS, epochs=1, batch_size=8, loss=spy, sampler="identity")
    assert seen and all(len(labels) == 8 and {labels.count(x) for x in labels} == {4} for labels in seen)
    for loss in ("triplet", "cross_entropy+triplet", partial(triplet, margin=0.5)):
        assert math.isfinite(fit(new_model(), IMAGES, LABELS, epochs=1, batch_size=8, loss=loss)[0]["loss"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_model(dtype):
    model = new_model().to(dtype)
    assert math.isfinite(fit(model, IMAGES, LABELS, epochs=1)[0]["loss"])
    assert next(model.parameters()).dtype == dtype and extract_features(model, IMAGES).dtype == torch.float32


class Recorder(TwoBranches):
    "Keeps the batches that it sees in training."

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(x.detach().clone())
        return super().forward(x)


def batches_of(**change):
    torch.manual_seed(0)
    model = Recorder()
    fit(model, IMAGES, LABELS, **RECIPE | {"epochs": 2, "flip": False, "erasing": False} | change)
    return model.batches


def test_erasing_paints_rectangles_and_changes_the_training():
    plain, erased = batches_of(), batches_of(erasing=True)
    total = sum(map(len, erased))
    originals = to_float(IMAGES).flatten(1)
    painted = 0
    for image in torch.cat(erased):
        original = IMAGES[(originals == image.flatten()).sum(1).argmax()]
        hidden = (image == 0).all(0)
        assert torch.equal(image[:, ~hidden], to_float(original)[:, ~hidden])
        if hidden.any():
            rows, columns = hidden.any(1).nonzero().flatten(), hidden.any(0).nonzero().flatten()
            assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            painted += 1
    assert 0.3 * total < painted < 0.7 * total  # half of the images, the few for which no rectangle fits aside
    assert not any((batch == 0).all(1).any() for batch in plain)
    models = [new_model() for _ in range(2)]
    for model, erasing in zip(models, (False, True)):
        fit(model, IMAGES, LABELS, **RECIPE | {"epochs": 1, "erasing": erasing})
    assert not same_bits(*models)


def test_mirroring_mirrors_half_of_the_images():
    plain, mirrored = torch.cat(batches_of()), torch.cat(batches_of(flip=True))
    sums = lambda images: images.sum((1, 2, 3)).sort()
    (_, here), (_, there) = sums(plain), sums(mirrored)
    turned = [not torch.equal(a, b) for a, b in zip(plain[here], mirrored[there])]
    assert all(torch.equal(a, b) or torch.equal(a.flip(-1), b) for a, b in zip(plain[here], mirrored[there]))
    assert 0.2 < sum(turned) / len(turned) < 0.8


def test_another_seed_or_epoch_deals_other_batches():
    def dealt(seed):
        return [set(map(tuple, batch.flatten(1).tolist())) for batch in batches_of(seed=seed)]

    first, again, other = dealt(0), dealt(0), dealt(1)
    assert first == again and first[0] != other[0] and first[1] != other[1]  # which images meet
    assert first[0] != first[2]  # in the next epoch others do


class Lazy:
    "Images that are made on the way, as a reader would."

    def __init__(self, on_read=lambda: None):
        self.on_read = on_read

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        self.on_read()
        return IMAGES[index]


def test_lazy_images_and_numpy_labels(straight):
    model = new_model()
    fit(model, Lazy(), LABELS.numpy(), **RECIPE)
    assert same_bits(model, straight[0])
    assert torch.equal(extract_features(model, Lazy()), extract_features(model, IMAGES))


def test_harmonious_attention_network_trains():
    model = create_model("han_small", num_classes=4, widths=(8, 8, 16), feature_dim=16)
    images = F.interpolate(IMAGES.float(), (32, 16)).byte()
    assert fit(model, images, LABELS, epochs=1)[0]["loss"] < 20
    assert extract_features(model, images).shape == (33, 16)


# ---- stopped and continued ----

CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_train as t
from scalable_arch import files
from scalable_arch.train import fit
reads = writes = 0
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def on_read():  # one read checks the images, one takes their fingerprint, two batches an epoch: the sixth is in epoch 2
    global reads
    reads += 1
    reads == 6 and {where!r} == "epoch" and die()

def replace(source, target):
    global writes
    writes += 1
    writes == 3 and {where!r} == "write" and die()
    rename(source, target)

rename, files.os.replace = os.replace, replace
fit(t.new_model(), t.Lazy(on_read), t.LABELS, **t.RECIPE, checkpoint={folder!r})
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("where, epochs_saved", [("epoch", 1), ("write", 2)])
def test_killed_run_continues_bit_for_bit(tmp_path, straight, where, epochs_saved):
    "kill -9 in the middle of an epoch, and between writing a checkpoint and giving it its name."
    program = CHILD.format(tests=os.path.dirname(__file__), where=where, folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert any(tmp_path.glob(f".{CHECKPOINT_FILE}.*.partial")) == (where == "write")
    assert len(load_checkpoint(tmp_path)[1]["history"]) == epochs_saved
    model = new_model()
    history = fit(model, Lazy(), LABELS, **RECIPE, checkpoint=tmp_path)
    assert same_bits(model, straight[0])
    assert [r["loss"] for r in history] == [r["loss"] for r in straight[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT_FILE, "lock"]


class Stop(Exception):
    pass


def stop_after(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise Stop

    return on_epoch


def test_run_saved_every_second_epoch_and_stopped_twice(tmp_path, straight):
    for epoch, saved in [(3, 2), (4, 4)]:
        with pytest.raises(Stop):
            fit(
                new_model(),
                IMAGES,
                LABELS,
                **RECIPE,
                checkpoint=tmp_path,
                checkpoint_every=2,
                on_epoch=stop_after(epoch),
            )
        assert len(load_checkpoint(tmp_path)[1]["history"]) == saved
    model = new_model()
    fit(model, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path, on_epoch=stop_after(4))  # nothing left to do
    assert same_bits(model, straight[0])
    loaded = new_model()
    load_model(tmp_path, loaded)
    assert same_bits(loaded, model)


def test_finished_run_can_be_lengthened_but_not_shortened(tmp_path, straight):
    fit(new_model(), IMAGES, LABELS, **RECIPE | {"epochs": 2}, checkpoint=tmp_path)
    model = new_model()
    fit(model, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    assert same_bits(model, straight[0])
    with pytest.raises(ValueError, match="has 4 epochs, more than the epochs=2 asked for"):
        fit(new_model(), IMAGES, LABELS, **RECIPE | {"epochs": 2}, checkpoint=tmp_path)


def test_checkpoint_of_other_settings_or_data_is_refused(tmp_path):
    fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    brighter, moved = IMAGES.clone(), LABELS.roll(1)
    brighter[0] += 1
    cases = [
        (IMAGES, LABELS, {"lr": 0.2}, "lr=0.1, not lr=0.2"),
        (IMAGES, LABELS, {"milestones": (2,)}, r"milestones=\[3\], not milestones=\[2\]"),
        (IMAGES, LABELS, {"loss": partial(cross_entropy_and_triplet)}, "loss='cross_entropy', not"),
        (brighter, LABELS, {}, "images="),
        (IMAGES, moved, {}, "labels="),
        (IMAGES[:32], LABELS[:32], {}, "images=|labels=|num_images=33"),
    ]
    for images, labels, change, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            fit(new_model(), images, labels, **RECIPE | change, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="a network of another structure"):
        fit(new_model(5), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    save_model(tmp_path / CHECKPOINT_FILE, new_model())
    with pytest.raises(ValueError, match="holds a model, not a training run"):
        fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    (tmp_path / CHECKPOINT_FILE).write_bytes(before[:-9])
    with pytest.raises(ValueError, match="damaged"):
        fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)


def frozen(model):
    model.conv[0].requires_grad_(False)
    return model


def with_activation(activation):
    model = new_model()
    model.conv[2] = activation
    return model


@pytest.mark.parametrize(
    "first, second, sentence",
    [
        ("han_small", "han_large", r"han_small, not han_large: .*\.stride is \(2, 2\) there and \(1, 1\) here"),
        (dict(), dict(regional=False), r"hard.locate.frozen is missing there and \('weight'\) here"),
        (dict(), dict(interaction=False), "interaction is True there and False here"),
        (dict(), dict(factored=True), "factored is False there and True here"),
    ],
    ids=["strides", "regional", "interaction", "factored"],
)
def test_a_run_of_another_han_is_refused(tmp_path, first, second, sentence):
    images = F.interpolate(IMAGES.float(), (32, 16)).byte()

    def train(option):
        torch.manual_seed(0)
        name, options = (option, {}) if isinstance(option, str) else ("han_small", option)
        model = create_model(name, **SMALL_HAN, **options)
        return fit(model, images, LABELS, epochs=1, checkpoint=tmp_path)

    train(first)
    with pytest.raises(ValueError, match=f"network of another structure, .*{sentence}") as error:
        train(second)
    assert "\n" not in str(error.value) and "choose another folder" in str(error.value)
    train(first)


@pytest.mark.parametrize(
    "other, sentence",
    [
        (lambda: frozen(new_model()), r"conv.0.frozen is missing there and \('weight'\) here"),
        (lambda: with_activation(nn.GELU()), "conv.2 is ReLU there and GELU here"),
        (lambda: with_activation(nn.LeakyReLU(0.2)), "conv.2 is ReLU there and LeakyReLU here"),
        (lambda: nn.Sequential(new_model()), "the whole is TwoBranches there and Sequential here"),
    ],
    ids=["frozen", "gelu", "leaky", "wrapped"],
)
def test_a_run_of_another_network_of_ones_own_is_refused(tmp_path, other, sentence):
    fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(other(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)


def weighted(weight):
    return lambda output, labels: weight * cross_entropy(output, labels)


class Weighted:
    "A loss that is an object, with a memory."

    def __init__(self, weight):
        self.weight, self.seen = weight, 0

    def __call__(self, output, labels):
        self.seen += 1
        return self.weight * cross_entropy(output, labels)


OTHER_LOSSES = [
    (lambda output, labels: cross_entropy(output, labels), lambda output, labels: 2 * cross_entropy(output, labels)),
    (weighted(1), weighted(2)),
    (Weighted(1), Weighted(2)),
    (partial(weighted(1)), partial(weighted(3))),
    (
        lambda output, labels, scale=1: scale * cross_entropy(output, labels),
        lambda output, labels, scale=2: scale * cross_entropy(output, labels),
    ),
]


@pytest.mark.parametrize("first, second", OTHER_LOSSES, ids=["code", "closure", "object", "partial", "default"])
def test_another_loss_of_the_same_name_is_refused_and_the_same_one_goes_on(tmp_path, first, second):
    recipe = RECIPE | {"epochs": 1}
    fit(new_model(), IMAGES, LABELS, **recipe, loss=first, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="is of a run with another loss: .*choose another folder"):
        fit(new_model(), IMAGES, LABELS, **recipe, loss=second, checkpoint=tmp_path)
    fit(new_model(), IMAGES, LABELS, **RECIPE, loss=first, checkpoint=tmp_path)


@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, 32), place=st.integers(0, 3 * 8 * 6 - 1), step=st.integers(1, 255))
def test_every_byte_of_every_image_counts(number, place, step):
    other = IMAGES.clone()
    other[number].view(-1)[place] += step
    assert data_settings(other, (8, 6), LABELS)["images"] != data_settings(IMAGES, (8, 6), LABELS)["images"]
    assert data_settings(IMAGES.clone(), (8, 6), LABELS) == data_settings(IMAGES, (8, 6), LABELS)


def test_84_of_100_images_replaced_are_noticed(tmp_path):
    images, labels = toy(100)
    other = images.clone()
    kept = torch.linspace(0, 99, 16).long()
    other[[number for number in range(100) if number not in kept.tolist()]] = 7
    fit(new_model(), images, labels, **RECIPE | {"epochs": 1}, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="is of a run with images="):
        fit(new_model(), other, labels, **RECIPE, checkpoint=tmp_path)


class Files(Lazy):
    "Images behind paths, as a reader has them; what is read is the same whatever the files hold."

    def __init__(self, folder):
        super().__init__()
        self.paths = [folder / f"{number}.png" for number in range(len(IMAGES))]


def test_files_are_known_by_name_and_size_wherever_they_lie(tmp_path):
    found = []
    for folder, change in (("here", None), ("there", None), ("other", 17)):
        (tmp_path / folder).mkdir()
        images = Files(tmp_path / folder)
        for number, path in enumerate(images.paths):
            path.write_bytes(bytes(10 + (number == change)))
        found.append(data_settings(images, (8, 6), LABELS)["images"])
    assert found[0] == found[1] != found[2]


def test_a_reader_that_draws_parts_of_pictures_is_known_again():
    class Drawing(Lazy):
        def __getitem__(self, index):
            return IMAGES[index].roll(int(torch.randint(8, ())), 2)

    torch.manual_seed(1)
    first = data_settings(Drawing(), (8, 6), LABELS)
    torch.manual_seed(2)
    assert data_settings(Drawing(), (8, 6), LABELS) == first


def test_a_checkpoint_of_an_earlier_version_is_not_continued(tmp_path):
    fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    tensors, state = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path / CHECKPOINT_FILE, tensors, {name: state[name] for name in ("settings", "history")})
    with pytest.raises(ValueError, match="by an earlier version, which did not say which network it trained"):
        fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)


def test_disk_full_in_mid_run(tmp_path, monkeypatch, straight):
    filled = lambda record: record["epoch"] == 2 and monkeypatch.setattr(files.os, "fsync", out_of_space)
    with pytest.raises(OSError, match="No space left on device; the file that was there is kept"):
        fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path, on_epoch=filled)
    monkeypatch.undo()
    assert len(load_checkpoint(tmp_path)[1]["history"]) == 2
    model = new_model()
    fit(model, IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
    assert same_bits(model, straight[0])


class Diverging:
    "Cross-entropy that is not a number at a given step."

    def __init__(self, step):
        self.left = step

    def __call__(self, output, labels):
        self.left -= 1
        return cross_entropy(output, labels) * (math.nan if self.left == 0 else 1)


def test_non_finite_loss_stops_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(
        FloatingPointError, match="the loss is nan at epoch 3, step 2 of 2: .* after epoch 2 is kept in .*safetensors"
    ):
        fit(new_model(), IMAGES, LABELS, **RECIPE, loss=Diverging(6), checkpoint=tmp_path)
    tensors, state = load_checkpoint(tmp_path)
    assert len(state["history"]) == 2 and all(x.isfinite().all() for x in tensors.values())
    with pytest.raises(FloatingPointError, match="epoch 1, step 1 of 2: .*no checkpoint was saved"):
        fit(new_model(), IMAGES, LABELS, **RECIPE, loss=Diverging(1))


def test_finite_loss_over_broken_weights_is_not_saved(tmp_path):
    no_slope = lambda output, labels: (output.logits[0].sum() * 0).sqrt()  # 0, with a gradient of 0 / 0
    with pytest.raises(FloatingPointError, match="conv.0.weight is no longer finite after epoch 1"):
        fit(new_model(), IMAGES, LABELS, **RECIPE | {"batch_size": 33}, loss=no_slope, checkpoint=tmp_path)
    assert not (tmp_path / CHECKPOINT_FILE).exists()


@pytest.mark.skipif(files.fcntl is None, reason="no file locks on this platform")
def test_second_run_in_a_folder_is_refused_until_the_first_is_dead(tmp_path):
    program = """import fcntl, os, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getpid(), file=file, end="", flush=True)
print("locked", flush=True)
input()"""
    command = [sys.executable, "-c", program, tmp_path / "lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with pytest.raises(BlockingIOError, match=rf"another run \(process {first.pid}\) is using the folder"):
            fit(new_model(), IMAGES, LABELS, **RECIPE, checkpoint=tmp_path)
        first.kill()
    fit(new_model(), IMAGES, LABELS, **RECIPE | {"epochs": 1}, checkpoint=tmp_path)
    with folder_lock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


# ---- wrong input ----

LONE_FEATURES = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 4))
NO_CLASSES = create_model("han_small", widths=(8, 8, 8), feature_dim=16)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(labels=LABELS[:-1]), r"one label an image: 33 images, labels of shape \(32,\)"),
        (dict(labels=LABELS.view(-1, 1)), "one label an image"),
        (dict(labels=LABELS.float()), "labels must be integers .* not torch.float32"),
        (dict(labels=[f"p{label}" for label in LABELS.tolist()]), "not texts: number them with"),
        (dict(labels=np.array([f"p{label}" for label in LABELS.tolist()])), "not texts: number them with"),
        (dict(labels=LABELS - 1), "label 0 is -1: number the pids anew"),
        (dict(labels=LABELS + 1), "num_classes=4, but there is a label 4: make it with num_classes=5 or more"),
        (dict(images=IMAGES[:0], labels=LABELS[:0]), "there are no images"),
        (dict(images=IMAGES[:1], labels=LABELS[:1]), "at least two images"),
        (dict(images=IMAGES.float()), r"must be uint8 of shape \(N, 3, H, W\).* torch.float32"),
        (dict(images=IMAGES[:, :1]), r"one image is torch.uint8 of shape \(1, 1, 8, 6\)"),
        (dict(model=LONE_FEATURES), "must return an object with .logits"),
        (
            dict(model=NO_CLASSES, images=F.interpolate(IMAGES.float(), (32, 16)).byte()),
            "num_classes=None makes no classifiers",
        ),
        (dict(loss="tripplet"), r"unknown loss 'tripplet' \(did you mean 'triplet'\?\); choose one of: cross_entropy"),
        (dict(sampler="identities"), r"unknown sampler 'identities' \(did you mean 'identity'\?\)"),
        (dict(loss="triplet", batch_size=30), "batch_size=30 must be a multiple of num_shots=4"),
        (dict(loss="triplet", batch_size=4), "for two people at least"),
        (dict(loss="triplet"), "num_ids=8 persons needs as many in the training set, which has 4"),
        (dict(batch_size=1), "batch_size must be a whole number of at least 2, not 1"),
        (dict(epochs=0), "epochs must be a whole number of at least 1, not 0"),
        (dict(epochs=2.5), "epochs must be a whole number of at least 1, not 2.5"),
        (dict(seed=-1), "seed must be"),
        (dict(milestones=(20, 10)), r"milestones must be epochs in rising order, not \(20, 10\)"),
        (dict(lr=-1), "learning rate"),
    ],
)
def test_wrong_input_gets_one_sentence(change, sentence):
    arguments = dict(model=new_model(), images=IMAGES, labels=LABELS, epochs=1) | change
    model = arguments["model"]
    before, mode = [x.clone() for x in model.parameters()], model.training
    with pytest.raises(ValueError, match=sentence) as caught:
        fit(**arguments)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), before)) and model.training == mode


INTEGERS = [np.int8, np.uint8, np.uint16, np.uint32, np.uint64, np.int64]
AS_PEOPLE_HAVE_THEM = {
    "filtered column": lambda x: pd.Series([9, *x.tolist()])[lambda column: column < 9],
    "nullable column": lambda x: pd.Series(x.tolist(), dtype="Int64"),
    "categories": lambda x: pd.Series(pd.Categorical(x.tolist())),
    "index": lambda x: pd.Index(x.tolist()),
    "objects": lambda x: np.array(x.tolist(), dtype=object),
    "numpy integers in a list": lambda x: list(x.numpy()),
    "tensors in a list": list,
    **{dtype.__name__: lambda x, dtype=dtype: x.numpy().astype(dtype) for dtype in INTEGERS},
    "uint16 tensor": lambda x: x.to(torch.uint16),
    "read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
}


@pytest.mark.parametrize("form", AS_PEOPLE_HAVE_THEM)
def test_labels_in_any_form_are_the_same(form):
    found = check_labels(AS_PEOPLE_HAVE_THEM[form](LABELS), len(LABELS))
    assert found.dtype == torch.int64 and torch.equal(found, LABELS)


@pytest.mark.parametrize(
    "labels, sentence",
    [
        (pd.Series(["a", "b"], dtype="string"), "not texts: number them"),
        (pd.Series(["a", "b"]), "not texts: number them"),
        (np.array(["a", "b"], dtype=object), "not texts: number them"),
        ([b"a", b"b"], "not texts: number them"),
        (pd.Series([1, None]), "not float64"),
        (pd.Series([1, None], dtype="Int64"), "not float64"),
        (np.array([1, None], dtype=object), "not None of type NoneType"),
        (np.array([1, 0.5], dtype=object), "not 0.5 of type float"),
        (np.array([1, True], dtype=object), "not True of type bool"),
        ([True, False], "not bool"),
        (np.array([1, 2**63], dtype=np.uint64), "not 9223372036854775808"),
        (np.array([1, 2**63], dtype=object), "not 9223372036854775808"),
        (np.array([1, 2**70], dtype=object), "not 1180591620717411303424"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), r"not datetime64"),
        ([[0], [1]], r"one label an image: 2 images, labels of shape \(2, 1\)"),
        ([[0], [1, 2]], "lists of different lengths"),
        (None, "not None of type NoneType"),
    ],
)
def test_labels_that_are_none_get_one_sentence(labels, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        check_labels(labels, 2)
    assert "\n" not in str(error.value)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=9))
def test_integers_come_through(values):
    assert as_integers(np.array(values, dtype=object)).tolist() == as_integers(values).tolist() == values


def test_a_batch_of_persons_takes_labels_in_one_row():
    with pytest.raises(ValueError, match=r"labels must be one whole number an item, of shape \(N,\), not \(8, 1\)"):
        identity_batches(torch.arange(8)[:, None], 2, 2, generator=torch.Generator())


def test_checkpoint_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file: checkpoints need a folder"):
        fit(new_model(), IMAGES, LABELS, epochs=1, checkpoint=tmp_path / "file")


# ---- features ----


def test_features_are_the_models_own_and_modes_are_given_back(straight):
    model = straight[0].train()
    model.conv[1].eval()
    features = extract_features(model, IMAGES, batch_size=7)
    assert model.training and model.heads[0].training and not model.conv[1].training
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(to_float(image[None])) for image in IMAGES])
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    (features * torch.ones(1, requires_grad=True)).sum().backward()  # an ordinary tensor, not one of inference mode


def test_wrong_input_to_features():
    for model, images, sentence in [
        (new_model(), IMAGES[:0], "there are no images"),
        (new_model(), IMAGES.float(), "must be uint8"),
        (nn.Conv2d(3, 2, 1), IMAGES, r"features of shape \(B, D\) for a batch of B=33, not \(33, 2, 8, 6\)"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            extract_features(model, images)
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, not 0"):
        extract_features(new_model(), IMAGES, batch_size=0)
