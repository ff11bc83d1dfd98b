"""nas.search: against loops that say what they do, and against kills, damage and nonsense."""

import json
import math
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch.nn import functional as F

from scalable_arch.data.images import to_float
from scalable_arch.nas.genotype import SPACES, Genotype, Space
from scalable_arch.nas.search import constant, halves, moved, search, split_identities, split_images, turns
from scalable_arch.nas.supernet import Supernet, plain
from scalable_arch.nge import NGEController

QUICK = dict(epochs=2, batch_size=8, lr=0.1, controller_lr=0.05, crop_padding=1, seed=3)


def digits(number=32):
    "Digits of three classes as 8x8 colour images."
    images, labels = load_digits(n_class=3, return_X_y=True)
    grey = torch.from_numpy(images[:number] * 15).to(torch.uint8).view(-1, 1, 8, 8)
    return grey.expand(-1, 3, 8, 8).contiguous(), torch.from_numpy(labels[:number])


SMALL = Space("small", ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"), inner_nodes=2)


def tiny(space=SMALL, seed=0, **options):
    torch.manual_seed(seed)
    return Supernet(space, **{"channels": 2, "cells": 3, "num_classes": 3} | options)


def without_times(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


class SlowSearch:
    "DARTS's two updates as its paper writes them, on a plain supernet, with torch's optimisers."

    def __init__(self, supernet, images, labels, lr, controller_lr):
        self.net, self.x, self.y = supernet, to_float(images).double(), labels
        self.sgd = torch.optim.SGD(supernet.weights(), lr=lr, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(
            supernet.controller.parameters(), lr=controller_lr, betas=(0.5, 0.999), weight_decay=1e-3
        )

    def loss(self, index):
        return F.cross_entropy(self.net(self.x[index]), self.y[index])

    def weights_step(self, index):
        self.net.zero_grad()
        self.loss(index).backward()
        torch.nn.utils.clip_grad_norm_(self.net.weights(), 5.0)
        self.sgd.step()

    def architecture_step(self, train, check, order):
        gradients = self.gradients(check) if order == 1 else self.look_ahead(train, check)
        for x, g in zip(self.net.controller.parameters(), gradients):
            x.grad = g
        self.adam.step()

    def gradients(self, index):
        return torch.autograd.grad(self.loss(index), list(self.net.controller.parameters()))

    def look_ahead(self, train, check):
        weights, kept = self.net.weights(), [x.data.clone() for x in self.net.weights()]
        rate = self.sgd.param_groups[0]["lr"]
        for x, g in zip(weights, torch.autograd.grad(self.loss(train), weights)):
            buffer = (
                self.sgd.state[x].get("momentum_buffer", torch.zeros_like(x))
                if x in self.sgd.state
                else torch.zeros_like(x)
            )
            x.data -= rate * (0.9 * buffer + g + 3e-4 * x.data)
        direct, along = self.gradients(check), torch.autograd.grad(self.loss(check), weights)
        step = 0.01 / math.sqrt(sum((v**2).sum().item() for v in along))
        ends = []
        for sign in (1, -1):
            for x, old, v in zip(weights, kept, along):
                x.data = old + sign * step * v
            ends.append(self.gradients(train))
        for x, old in zip(weights, kept):
            x.data = old
        return [d - rate * (up - down) / (2 * step) for d, up, down in zip(direct, *ends)]


@pytest.mark.parametrize("alternate, order", [("epoch", 1), ("batch", 2)])
def test_search_is_the_slow_loop(alternate, order):
    (images, labels), epochs, recipe = digits(30), 2, dict(lr=0.05, controller_lr=0.03)
    fast = tiny().double()
    slow = SlowSearch(plain(fast), images, labels, **recipe)
    history = search(
        fast,
        images,
        labels,
        epochs=epochs,
        batch_size=8,
        alternate=alternate,
        order=order,
        crop_padding=0,
        flip=False,
        **recipe,
    )
    train, validation = halves(30, 0.5, 0)
    for epoch in range(epochs):
        slow.sgd.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for level, index, check in turns(train, validation, dict(seed=0, batch_size=8, alternate=alternate), epoch):
            slow.weights_step(index) if level == "weights" else slow.architecture_step(index, check, order)
    for (name, a), b in zip(plain(fast).named_parameters(), slow.net.parameters()):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8), name
    table = torch.tensor(history[-1]["probabilities"]["normal"], dtype=torch.float64)
    assert torch.allclose(table, slow.net.probabilities()["normal"], atol=1e-8)


def test_every_turn_once():
    train, validation = halves(50, 0.3, seed=1)
    assert len(validation) == 15 and torch.equal(torch.cat([train, validation]).sort().values, torch.arange(50))
    for alternate in ("epoch", "batch"):
        plan = turns(train, validation, dict(seed=1, batch_size=8, alternate=alternate), epoch=0)
        used = [index for level, index, _ in plan if level == "weights"]
        assert torch.equal(torch.cat(used).sort().values, train) and min(map(len, used)) > 1
        levels = [level for level, _, _ in plan]
        assert levels == (
            ["weights"] * 5 + ["architecture"] * 2 if alternate == "epoch" else ["architecture", "weights"] * 5
        )
        assert all(
            set(check.tolist()) <= set(validation.tolist()) for level, _, check in plan if level == "architecture"
        )


CHILD = """
    import os, signal, sys
    import torch
    sys.path.insert(0, {tests!r})
    torch.set_num_threads({threads})
    from test_nas_search import *
    from test_nas_search import Killer
    saved = dict(checkpoint={folder!r}, checkpoint_every=2)
    search(tiny(), *digits(), guidance=Killer({step}), **saved, **QUICK, **{options!r})
"""


class Killer:
    "Guidance that adds nothing; at its n-th call it kills the process that runs it."

    def __init__(self, step=None):
        self.left = step

    def __call__(self, maps, batch):
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                import os

                os.kill(os.getpid(), signal.SIGKILL)
        return maps[-1].mean() * 0.0


@pytest.mark.parametrize("options, calls", [({}, 8), ({"alternate": "batch", "order": 2}, 20)])
def test_a_search_killed_at_a_random_step_ends_in_the_same_genotype(tmp_path, options, calls):
    undisturbed = tiny()
    wanted = search(undisturbed, *digits(), guidance=Killer(), **QUICK, **options)
    step = random.randint(3, calls)
    code = CHILD.format(
        tests=__file__.rpartition("/")[0],
        threads=torch.get_num_threads(),
        folder=str(tmp_path),
        step=step,
        options=options,
    )
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    resumed = tiny(
        seed=5 if list(tmp_path.glob("*.safetensors")) else 0
    )  # what the checkpoint holds must not matter any more
    found = search(resumed, *digits(), guidance=Killer(), checkpoint=tmp_path, checkpoint_every=2, **QUICK, **options)
    assert found[-1]["genotype"] == wanted[-1]["genotype"] and without_times(found) == without_times(wanted), (
        f"killed at call {step}"
    )
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), undisturbed.state_dict().values()))
    assert (
        search(tiny(), *digits(), guidance=Killer(), checkpoint=tmp_path, **QUICK, **options) == found
    )  # nothing is left to do


def test_what_an_epoch_records():
    seen, net = [], tiny("darts")
    history = search(net, *digits(), on_epoch=seen.append, progress=True, **QUICK)
    assert seen == history and json.loads(json.dumps(history)) == history
    record = history[-1]
    assert set(record) == {
        "epoch",
        "lr",
        "loss",
        "accuracy",
        "validation_loss",
        "validation_accuracy",
        "entropy",
        "genotype",
        "probabilities",
        "seconds",
    }
    assert [r["lr"] for r in history] == [0.1, 0.05]
    genotype = Genotype.from_json(record["genotype"])
    assert genotype.space == SPACES["darts"] and "none" not in {
        operation for node in genotype.normal for operation, _ in node
    }
    for cell, table in net.probabilities().items():
        assert torch.allclose(torch.tensor(record["probabilities"][cell]), table) and 0 < record["entropy"][cell] < 1
    assert all(x.requires_grad for x in net.parameters())


def test_guidance_reaches_both_levels():
    calls = []

    def guide(maps, batch):
        calls.append(([tuple(x.shape) for x in maps], batch.shape, maps[-1].requires_grad))
        return maps[0].square().mean()

    found = [search(tiny(), *digits(), guidance=guidance, **QUICK | {"epochs": 1})[-1] for guidance in (None, guide)]
    assert len(calls) == 4 and all(needs for _, _, needs in calls)
    assert calls[0][0] == [(8, 4, 8, 8), (8, 8, 4, 4), (8, 16, 2, 2)] and calls[0][1] == (8, 3, 8, 8)
    assert found[0]["probabilities"] != found[1]["probabilities"] and found[0]["loss"] != found[1]["loss"]


def test_weights_come_back_to_the_bit_and_gradients_are_asked_for_again():
    weights = [torch.randn(3, requires_grad=True), torch.randn(2, requires_grad=True)]
    before = [x.detach().clone() for x in weights]
    with pytest.raises(RuntimeError), moved(weights, [torch.ones(3), torch.ones(2)], 0.1), constant(weights):
        assert torch.allclose(weights[0], before[0] + 0.1) and not weights[0].requires_grad
        raise RuntimeError
    assert all(torch.equal(a, b) and a.requires_grad for a, b in zip(weights, before))


def test_what_is_not_finite_stops_the_search_with_one_sentence(tmp_path):
    calls = []

    def nan_later(maps, batch):
        calls.append(1)
        return maps[-1].sum() * (float("nan") if len(calls) == 6 else 0)

    with pytest.raises(
        FloatingPointError,
        match=r"the loss is nan at epoch 2, step 2 of 4, weights: .*checkpoint at epoch 2, step 1, is kept in",
    ):
        search(tiny(), *digits(), guidance=nan_later, checkpoint=tmp_path, checkpoint_every=1, **QUICK)


class Fixed(torch.nn.Module):
    def forward(self):
        return dict.fromkeys(("normal", "reduction"), torch.zeros(5, 4))


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(alternate="epochs"), "unknown alternate 'epochs' \\(did you mean 'epoch'"),
        (dict(order=3), "unknown order 3"),
        (dict(epochs=0), "epochs must be a whole number"),
        (dict(validation=1.0), "validation must be the share of images"),
        (dict(validation=0.01), "two images or more"),
        (dict(lr=-1.0), "lr must be a number of at least 0"),
        (dict(checkpoint_every=0), "checkpoint_every must be"),
    ],
)
def test_settings_that_cannot_be_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        search(tiny(), *digits(), **QUICK | change)


def test_input_that_cannot_be_is_named():
    images, labels = digits()
    with pytest.raises(ValueError, match="num_classes=2, but there is a label 2"):
        search(tiny(num_classes=2), images, labels)
    with pytest.raises(ValueError, match="Fixed has no parameters"):
        search(tiny(controller=Fixed()), images, labels)
    with pytest.raises(ValueError, match="images must be uint8"):
        search(tiny(), images.float(), labels)
    with pytest.raises(ValueError, match="at least 4 pixels"):
        search(tiny(), images[:, :, :3], labels, **QUICK)


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    images, labels = digits()
    search(tiny(), images, labels, checkpoint=tmp_path, **QUICK | {"epochs": 1})
    sentence = "is of a run with space='small', not space='darts': use that value, choose another folder"
    with pytest.raises(ValueError, match=sentence):
        search(tiny("darts"), images, labels, checkpoint=tmp_path, **QUICK | {"epochs": 1})
    with pytest.raises(ValueError, match="is of a run with channels=2, not channels=3"):
        search(tiny(channels=3), images, labels, checkpoint=tmp_path, **QUICK | {"epochs": 1})
    with pytest.raises(ValueError, match="labels="):
        search(tiny(), images, labels.flip(0), checkpoint=tmp_path, **QUICK | {"epochs": 1})
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        search(tiny(), images, labels, checkpoint=tmp_path, **QUICK | {"epochs": 1})


def graph(adjacency):
    torch.manual_seed(4)
    return NGEController(SMALL, adjacency=adjacency)


def test_a_controller_of_another_graph_is_refused(tmp_path):
    "The graph is no weight, and in no file of weights."
    once = dict(checkpoint=tmp_path, **QUICK | {"epochs": 1})
    search(tiny(controller=graph("predecessors")), *digits(), **once)
    with pytest.raises(ValueError, match="another Supernet: controller.heard is torch.float32 .* there and"):
        search(tiny(controller=graph("literal")), *digits(), **once)
    search(tiny(controller=graph("predecessors")), *digits(), **once)


def test_another_guidance_of_the_same_name_is_refused(tmp_path):
    guides = [lambda maps, batch, scale=scale: scale * maps[0].square().mean() for scale in (1, 2)]
    search(tiny(), *digits(), guidance=guides[0], checkpoint=tmp_path, **QUICK | {"epochs": 1})
    with pytest.raises(ValueError, match="is of a run with another guidance: defaults is "):
        search(tiny(), *digits(), guidance=guides[1], checkpoint=tmp_path, **QUICK | {"epochs": 1})


def test_a_space_of_one_operation_is_decided_from_the_start(tmp_path):
    net = tiny(Space("single", ("sep_conv_3x3",), inner_nodes=2))
    history = search(net, *digits(), checkpoint=tmp_path, **QUICK)
    assert [record["entropy"] for record in history] == [{"normal": 0.0, "reduction": 0.0}] * 2
    assert search(tiny(net.space), *digits(), checkpoint=tmp_path, **QUICK) == history


def test_a_supernet_of_double_precision():
    net = tiny(controller=graph("predecessors")).double()
    history = search(net, *digits(), **QUICK, alternate="batch", order=2)
    assert {x.dtype for x in net.parameters()} == {torch.float64}
    assert any(float(torch.tensor(r["loss"], dtype=torch.float32)) != r["loss"] for r in history)


def test_another_seed_makes_other_halves_and_turns():
    assert not torch.equal(halves(50, 0.5, 0)[0], halves(50, 0.5, 1)[0])
    train, validation = halves(50, 0.5, 0)
    plans = [
        turns(train, validation, dict(seed=s, batch_size=8, alternate="epoch"), e) for s, e in [(0, 0), (1, 0), (0, 1)]
    ]
    firsts = [set(plan[0][1].tolist()) for plan in plans]
    assert firsts[0] != firsts[1] and firsts[0] != firsts[2]


# People instead of classes: batches of several images of each, a split of one's own, losses of one's own


class Memory(torch.nn.Module):
    "A loss with a state: similarity to a running mean of each person's features, which every call moves."

    def __init__(self, people=4):
        super().__init__()
        self.register_buffer("rows", torch.zeros(people, 3))

    def forward(self, output, targets):
        logits = output @ self.rows.T.clone()  # the rows move before the gradient is asked for
        loss = F.cross_entropy(logits + output.sum(1, keepdim=True) * 0.01 * F.one_hot(targets, 4), targets)
        with torch.no_grad():
            self.rows[targets] = 0.2 * self.rows[targets] + 0.8 * output
        return loss, logits


class Remembering(Supernet):
    "A supernet without names of its own, whose two memories travel with it."

    num_classes = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.memories = torch.nn.ModuleDict({"weights": Memory(), "architecture": Memory()})


def remembering(seed=0):
    torch.manual_seed(seed)
    return Remembering(SMALL, channels=2, cells=3, num_classes=3)


PEOPLE = torch.arange(32) % 4


def search_people(net, **options):
    losses = dict(loss=net.memories["weights"], architecture_loss=net.memories["architecture"])
    recipe = dict(QUICK, num_shots=2, split=split_images(PEOPLE, 4), alternate="batch", **losses)
    return search(net, digits()[0], PEOPLE, **recipe | options)


def test_losses_with_memories_are_resumed_to_the_bit(tmp_path):
    undisturbed, begun, resumed = remembering(), remembering(), remembering(seed=9)
    filled = []

    def fill(net):
        def before_epoch(epoch):
            filled.append(epoch)
            net.memories["weights"].rows += 0.1

        return before_epoch

    class Stop(Exception):
        pass

    calls = []

    def stop(maps, batch):
        calls.append(1)
        if len(calls) == 7:
            raise Stop
        return maps[-1].mean() * 0.0

    wanted = search_people(undisturbed, before_epoch=fill(undisturbed), guidance=Killer())
    saved = dict(checkpoint=tmp_path, checkpoint_every=1)
    with pytest.raises(Stop):
        search_people(begun, before_epoch=fill(begun), guidance=stop, **saved)
    calls[:] = [1] * 20
    found = search_people(resumed, before_epoch=fill(resumed), guidance=stop, **saved)
    assert filled == [0, 1] * 2  # whole once; then once until it stops, and not again where it goes on
    assert without_times(found) == without_times(wanted)
    assert all(torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), undisturbed.state_dict().values()))
    assert undisturbed.memories["weights"].rows.any() and undisturbed.memories["architecture"].rows.any()


@given(st.integers(2, 6), st.integers(2, 12), st.integers(1, 5), st.integers(0, 3))
def test_a_split_by_image_gives_everybody_to_both(people, images, number, seed):
    labels = torch.arange(people).repeat(images)
    train, check = split_images(labels, number, seed=seed)
    assert torch.equal(torch.cat([train, check]).sort().values, torch.arange(len(labels)))
    assert labels[check].bincount().tolist() == [min(number, images // 2)] * people


@given(st.integers(5, 12), st.floats(0.4, 0.6), st.sampled_from([0.0, 0.4]), st.integers(0, 3))
def test_a_split_by_identity_keeps_people_apart(people, share, overlap, seed):
    labels = torch.arange(people).repeat(4)
    train, check = split_identities(labels, share, overlap=overlap, seed=seed)
    assert torch.equal(torch.cat([train, check]).sort().values, torch.arange(len(labels)))
    both = set(labels[train].tolist()) & set(labels[check].tolist())
    assert len(both) == round(people * overlap)
    for person in both:
        assert (labels[train] == person).sum() == (labels[check] == person).sum() == 2


def test_batches_show_several_images_of_each_person():
    labels = torch.arange(4).repeat(8)
    settings = dict(seed=0, batch_size=6, num_shots=3, alternate="batch")
    plan = turns(*split_identities(labels), settings, 0, labels)
    for _, index, check in plan:
        for part in (index,) if check is None else (index, check):
            assert labels[part].unique(return_counts=True)[1].tolist() == [3, 3]


def test_rates_follow_their_schedules():
    rates = []

    class Seen(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Seen)
        history = search(
            tiny(), *digits(), **QUICK | dict(epochs=4), lr_min=0.01, controller_milestones=[1, 3], guided="weights"
        )
    assert [round(r["lr"], 6) for r in history] == [
        round(0.01 + 0.09 * (1 + math.cos(math.pi * e / 4)) / 2, 6) for e in range(4)
    ]
    assert [round(x, 6) for x in rates[::2]] == [0.05, 0.005, 0.005, 0.0005]


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(num_shots=3), "batch_size=8 must be a multiple of num_shots=3"),
        (dict(batch_size=4, num_shots=4), "for two people at least"),
        (dict(num_shots=2, batch_size=16), "a batch of 8 people x 2 images needs as many people.* weights show 4"),
        (dict(num_shots=1), "num_shots must be a whole number of at least 2"),
        (dict(split=([0, 1], [1, 2])), "none twice"),
        (dict(split=([0, 1], [2, 99])), "split names image 99, but there are 32"),
        (dict(split=([0.5, 1], [2, 3])), "split must be two rows of image numbers"),
        (dict(order=2), "order=2 goes with the cross-entropy"),
        (dict(shots=4), "unknown option of a search 'shots' \\(did you mean 'num_shots'"),
        (dict(loss="tripled"), "unknown loss 'tripled'"),
        (dict(loss=lambda output, targets: output.mean(), architecture_loss=None, num_shots=None), "^$"),
    ],
)
def test_what_a_search_for_people_cannot_have_is_named(change, words):
    if words == "^$":  # logits that are there are used
        assert search_people(remembering(), **change)[-1]["accuracy"] >= 0
        return
    with pytest.raises(ValueError, match=words):
        search_people(remembering(), **change)


def test_splits_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="identity 1 has one image"):
        split_images([0, 0, 1, 2, 2])
    for share in (0, 0.1, 1.0):
        with pytest.raises(ValueError, match="leave two identities or more"):
            split_identities(torch.arange(6).repeat(2), share)
    with pytest.raises(ValueError, match="leave two identities or more"):
        split_identities([0, 0, 0, 0])
