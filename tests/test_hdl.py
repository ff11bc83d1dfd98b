"""HDL: the printed structure, each loss against a slow reference, training that resumes, detection, and what it says
to wrong input."""

import copy
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from scalable_arch import hdl
from scalable_arch.hdl import (
    DISTANCES,
    DISTILLATIONS,
    AttentionResidual,
    ShrinkingBottleneck,
    batch_losses,
    distillation_losses,
    fit_person_search,
    fold,
    hdl_student,
    hdl_teacher,
    load_backbone,
    map_loss,
    map_starts,
    prediction_loss,
    read_between,
    saliency,
    total_loss,
)
from scalable_arch.nn.boxes import box_iou, decode_boxes
from scalable_arch.nn.cost import measure
from scalable_arch.nn.detector import NoAttention, as_rois, match_boxes, propose
from scalable_arch.nn.resnet import ResNet
from scalable_arch.train.detection import (
    REFINEMENT,
    check_boxes,
    collate_scenes,
    describe_boxes,
    detect,
    draw_sample,
    identity_labels,
    read_batch,
    sample_rois,
    scene_batches,
    search_scenes,
)

HEIGHTS = (20, 40)


def tiny_student(num_classes=None, **options):
    torch.manual_seed(0)
    return hdl_student(num_classes, **{"widths": (8, 8, 16, 16), "stem_width": 4, "anchor_heights": HEIGHTS, **options})


def tiny_teacher(num_classes=None, **options):
    torch.manual_seed(1)
    return hdl_teacher(num_classes, **{"width": 1 / 32, "anchor_heights": HEIGHTS, **options})


class Toys:
    "Four noise scenes of two sizes with bright rectangles for people; the last has none."

    def __init__(self, pids=((5, -1), (5, 7), (9,), ())):
        generator = torch.Generator().manual_seed(0)
        self.names = [f"toy_{number}" for number in range(4)]
        self.images = [
            torch.randint(0, 60, (3, 64, 96 if number % 2 else 80), dtype=torch.uint8, generator=generator)
            for number in range(4)
        ]
        self.boxes = [
            torch.tensor([[8.0 + 30 * k, 10, 22 + 30 * k, 45] for k in range(len(people))]).view(-1, 4)
            for people in pids
        ]
        self.pids = [torch.tensor(people, dtype=torch.long) for people in pids]
        for image, boxes, people in zip(self.images, self.boxes, pids):
            for (x1, y1, x2, y2), pid in zip(boxes.int().tolist(), people):
                image[pid % 3, y1:y2, x1:x2] = 250

    def __len__(self):
        return len(self.images)

    def image(self, number):
        return self.images[number]


RECIPE = dict(
    epochs=2, batch_size=2, lr=0.01, milestones=(), num_rois=6, num_anchors=16, num_proposals=10, progress=False
)


class Part(nn.Module):
    def __init__(self, net, method):
        super().__init__()
        self.net, self.method = net, method

    def forward(self, x):
        return getattr(self.net, self.method)(x)


def cost(net, method, size):
    return measure(Part(net, method), size).flops


# structure


def test_printed_costs():  # W Tables 4.4 and 4.5, two operations a multiply-add, without the detection subnet
    student, teacher, plain = hdl_student(), hdl_teacher(), hdl_teacher(attention=False)
    assert cost(student, "judge", (384, 7, 7)) == pytest.approx(76.4e6, rel=0.005)
    assert cost(student, "see", (3, 800, 800)) == pytest.approx(37.5e9, rel=0.005)
    assert cost(student, "see", (3, 1080, 1920)) == pytest.approx(121.4e9, rel=0.005)
    increment = [cost(net, "see", (3, 1080, 1920)) for net in (teacher, plain)]
    assert increment[0] - increment[1] == pytest.approx(1381.6e9 - 1330.7e9, rel=0.01)
    saving = cost(teacher, "see", (3, 800, 800)) / cost(student, "see", (3, 800, 800))
    assert 2.6 < saving < 2.7
    assert [arm.blend.in_channels for arm in teacher.arms] == [256, 512, 1024, 2048]  # W sec. 4.2.5
    assert [arm.blend.in_channels for arm in student.arms] == [128, 256, 384, 512]
    assert (
        len(teacher.anchor_heights) == 11
        and teacher.detect.conv.out_channels == student.detect.conv.out_channels == 512
    )


@pytest.mark.parametrize("make", [tiny_student, tiny_teacher])
def test_shapes(make):
    model = make(3).eval()
    with torch.no_grad():
        scenes = model(torch.randn(2, 3, 64, 96))
        people = model.describe(
            scenes.maps[-1], torch.tensor([[0.0, 5, 5, 20, 50], [1, -4, 0, 96, 64], [1, 60, 20, 80, 60]])
        )
    anchors = model.anchors(scenes.maps[-1])
    assert scenes.logits.shape == (2, len(anchors), 2) and scenes.deltas.shape == (2, len(anchors), 4)
    assert people.map.shape == people.attention.shape and people.map.shape[2:] == (3, 3)
    assert people.identity.shape == (3, 3) and people.logits.shape == (3, 2) and people.deltas.shape == (3, 4)


def test_crops_shrink_without_padding():
    unit, x = ShrinkingBottleneck(8, 4).eval(), torch.randn(2, 8, 7, 7)
    with torch.no_grad():
        unit.bn3.weight.zero_()
        picked = x[:, :, [1, 3, 5]][:, :, :, [1, 3, 5]]
        shortcut = F.relu(unit.downsample[1](F.conv2d(picked, unit.downsample[0].weight)))
        assert torch.allclose(unit(x), shortcut, atol=1e-6)


@pytest.mark.parametrize("make", [tiny_student, tiny_teacher])
def test_centres_are_where_cells_look(make):
    backbone = make().backbone.eval().requires_grad_(False)
    for weight in backbone.parameters():
        weight.fill_(1 / weight[0].numel() if weight.dim() > 1 else 1.0)
    for level, step in enumerate((4, 8, 16)):
        torch.manual_seed(level)
        x = pixels = torch.rand(16, 3, 128, 128, requires_grad=True)
        for block in (backbone.stem, backbone.layer1, backbone.layer2, backbone.layer3)[: level + 2]:
            x = block(x)
        cell = x.shape[-1] // 2
        x[:, :, cell, cell].sum().backward()
        seen = pixels.grad.sum((0, 1, 2))
        looks_at = (seen * (torch.arange(128) + 0.5)).sum() / seen.sum()
        assert float(looks_at) == pytest.approx(backbone.centres[level] + step * cell, abs=0.5)


# weights of a reader


def test_torchvision_weights_load(tmp_path):
    source = ResNet(1000, width=1 / 32)
    with torch.no_grad():
        for x in source.state_dict().values():
            x.copy_(torch.rand_like(x.float()))
    weights = {name: x for name, x in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(weights, tmp_path / "resnet.safetensors")
    for given_weights in (weights, tmp_path / "resnet.safetensors", str(tmp_path / "resnet.safetensors")):
        model = tiny_teacher()
        load_backbone(model, given_weights)
        for name, x in model.backbone.state_dict().items():
            assert name.endswith("num_batches_tracked") or torch.equal(x, weights[name])


def test_weights_that_do_not_fit(tmp_path):
    model = tiny_teacher()
    before = copy.deepcopy(model.state_dict())
    (tmp_path / "old.pth").write_bytes(b"not safetensors")
    right = ResNet(None, width=1 / 32).state_dict()
    for source, words in [
        (tmp_path / "none.safetensors", "there are no weights"),
        (tmp_path / "old.pth", "no safetensors file"),
        (ResNet(None, width=1 / 16).state_dict(), "make the model with the width"),
        ({name: x for name, x in right.items() if "layer3" not in name}, "no layer3.0.conv1.weight"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load_backbone(model, source)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    with pytest.raises(ValueError, match="StudentBackbone needs weights of the same network"):
        load_backbone(tiny_student(), right)


# attention


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_attention_residual(channels, height, width, training):
    module, x = AttentionResidual(channels).train(training), torch.randn(3, channels, height, width)
    with torch.no_grad():
        attended, weights = module(x)
        module.factored = True
        again = module(x)[1]
    assert weights.shape == x.shape and weights.min() >= 0.5 and weights.max() <= 1
    assert torch.equal(attended, (1 + weights) * x)
    if not training:  # a batch's statistics of nearly constant values magnify rounding
        assert torch.allclose(again, weights, atol=1e-5)


def test_attention_can_be_left_out():
    model = tiny_student(attention=False)
    assert all(isinstance(arm, NoAttention) for arm in model.arms)
    assert model.eval()(torch.randn(1, 3, 64, 64)).attention == (None,) * 3


# scenes and boxes


def test_mean_value_padding():
    images = Toys().images
    batch, sizes = collate_scenes(images)
    assert batch.shape == (4, 3, 64, 96) and sizes == [(64, 80), (64, 96), (64, 80), (64, 96)]
    assert (batch[0, :, :, 80:] == 0).all()
    alone, _ = collate_scenes(images[:1])
    assert torch.equal(alone[0], batch[0, :, :, :80])


@pytest.mark.parametrize(
    "image, words",
    [
        (torch.zeros(3, 20, 64, dtype=torch.uint8), "20x64 pixels"),
        (torch.zeros(3, 64, 64), "torch.float32"),
        (torch.zeros(1, 64, 64, dtype=torch.uint8), r"\(1, 64, 64\)"),
        (np.zeros((64, 64, 3)), "ndarray"),
    ],
)
def test_wrong_scenes(image, words):
    for call in (
        lambda: collate_scenes([image]),
        lambda: detect(tiny_student(), [image]),
        lambda: describe_boxes(tiny_student(), image, torch.ones(1, 4)),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_wrong_batches():
    model = tiny_student()
    for batch, words in [
        (torch.zeros(3, 64, 64), "batch"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "collate_scenes"),
        (torch.zeros(1, 3, 30, 64), "30x64"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.float64), "torch.float64"),
    ]:
        with pytest.raises(ValueError, match=words):
            model(batch)


def test_wrong_boxes():
    for box, words in [
        ([5.0, 5, 5, 9], "has no area"),
        ([5.0, 9, 8, 3], "has no area"),
        ([np.nan, 5, 8, 9], "has no area"),
        ([90.0, 5, 95, 9], "lies outside the scene of 64x80"),
    ]:
        with pytest.raises(ValueError, match=f"box 1 of toy.*{words}"):
            check_boxes([[1.0, 1, 5, 5], box], (64, 80), "toy")
    assert check_boxes([[-5.0, 10, 90, 70]], (64, 80), "toy").tolist() == [[0, 10, 80, 64]]
    assert check_boxes(torch.zeros(0, 4), (64, 80), "toy").shape == (0, 4)
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        check_boxes([1.0, 2, 3, 4], (64, 80), "toy")


boxes_of = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30)), max_size=8
).map(lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32).view(-1, 4))


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@settings(max_examples=60, deadline=None)
@given(boxes_of, boxes_of, st.booleans())
def test_matching_against_loops(boxes, truth, best):
    nearest, kind = match_boxes(boxes, truth, person=0.5, background=0.3, best=best)
    table = [[overlap(a, b) for b in truth.tolist()] for a in boxes.tolist()]
    for row, overlaps in enumerate(table):
        top = max(overlaps, default=0.0)
        expected = 1 if top >= 0.5 else 0 if top < 0.3 else -1
        if best and any(v > 0 and v >= max(other[k] for other in table) - 1e-6 for k, v in enumerate(overlaps)):
            expected = 1
        margin = min(abs(top - 0.5), abs(top - 0.3))
        if margin > 1e-5:
            assert int(kind[row]) == expected
        if overlaps:
            assert overlaps[int(nearest[row])] == pytest.approx(top, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=40), st.integers(0, 20), st.integers(0, 100))
def test_samples(kinds, number, seed):
    kind = torch.tensor(kinds, dtype=torch.long)
    rows = draw_sample(kind, number, number // 2, torch.Generator().manual_seed(seed))
    persons, background = (kind == 1).sum().item(), (kind == 0).sum().item()
    drawn = kind[rows]
    assert len(set(rows.tolist())) == len(rows) and (drawn >= 0).all()
    assert (drawn == 1).sum() == min(persons, number // 2)
    assert len(rows) == min(persons, number // 2) + min(background, number - min(persons, number // 2))


def test_roi_samples_lead_back_to_the_truth():
    torch.manual_seed(0)
    toys = Toys()
    labels, known = identity_labels(toys.pids)
    assert known == [5, 7, 9] and [x.tolist() for x in labels] == [[0, -1], [0, 1], [2], []]
    proposals = [
        torch.cat([boxes + torch.randn(len(boxes), 4), torch.tensor([[60.0, 2, 70, 30]])]) for boxes in toys.boxes
    ]
    sample = sample_rois(proposals, toys.boxes, labels, number=12)
    persons = sample.kind == 1
    found = decode_boxes(sample.targets, sample.rois[persons, 1:], REFINEMENT)
    assert (
        persons.sum() == 10 and len(sample.rois) == 14
    )  # each true box and its proposal, and a background box a scene
    for (scene, *_), label, box in zip(sample.rois[persons].tolist(), sample.labels[persons].tolist(), found):
        nearest = (toys.boxes[int(scene)] - box).abs().amax(1)
        assert nearest.min() < 1e-3 and int(labels[int(scene)][nearest.argmin()]) == label
    assert (sample.labels[~persons] == -1).all()


def test_proposals_stay_inside_and_apart():
    model = tiny_student().eval()
    nn.init.normal_(model.detect.deltas.weight, std=1.0)
    nn.init.normal_(model.detect.logits.weight, std=1.0)
    batch, sizes = collate_scenes(Toys().images)
    for boxes, (height, width) in zip(propose(model, model(batch), sizes, number=20, nms_threshold=0.5), sizes):
        assert 0 < len(boxes) <= 20
        assert boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= 0.5 + 1e-6


# distillation


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(DISTANCES)), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_map_loss_against_loops(norm, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    small, large = (
        torch.randn(2, 3, height, width, generator=generator),
        torch.randn(2, 5, height, width, generator=generator),
    )
    total = 0
    for scene in range(2):
        vectors = []
        for maps in (small, large):
            cells = [
                sum(float(v) ** 2 for v in maps[scene, :, row, column])
                for row in range(height)
                for column in range(width)
            ]
            vectors.append([v / sum(c**2 for c in cells) ** 0.5 for v in cells])
        squares = [(a - b) ** 2 for a, b in zip(*vectors)]
        total += {"mean": np.mean(squares), "squared": sum(squares), "literal": sum(squares) ** 0.5}[norm] / 2 / 2
    assert map_loss(saliency(small), saliency(large), norm).item() == pytest.approx(total, abs=1e-5)
    assert map_loss(saliency(small), saliency(7 * small.flip(1)), norm).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("norm", sorted(DISTANCES))
def test_map_loss_gradients(norm):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    other = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator).square()
    assert torch.autograd.gradcheck(lambda x: map_loss(saliency(x), other, norm), maps)


def test_prediction_loss_against_torch():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    log_s, log_t = (F.log_softmax(x / 3, 1) for x in (student, teacher))
    for kl, (first, second) in {"teacher": (log_s, log_t), "literal": (log_t, log_s)}.items():
        expected = 9 * F.kl_div(first, second, reduction="batchmean", log_target=True)
        assert prediction_loss(student, teacher, temperature=3.0, kl=kl).item() == pytest.approx(
            expected.item(), rel=1e-5
        )
    assert prediction_loss(student[:0], teacher[:0]).item() == 0
    with pytest.raises(ValueError, match="did you mean 'teacher'"):
        prediction_loss(student, teacher, kl="techer")


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 2), st.integers(1, 6), st.integers(1, 6), st.integers(2, 7))
def test_reading_between_cells(first, rows, columns, side):
    maps = torch.randn(1, side, side)
    read = read_between(maps, first, (rows, columns))[0].numpy()
    down, across = ([min(first + k, side - 1) for k in range(n)] for n in (rows, columns))
    halfway = np.stack([np.interp(across, range(side), row) for row in maps[0].numpy()])
    expected = np.stack([np.interp(down, range(side), column) for column in halfway.T]).T
    assert np.allclose(read, expected, atol=1e-5)


def test_a_twin_teaches_nothing():
    model = tiny_student(3).eval()
    batch, _ = collate_scenes(Toys().images)
    scenes = model(batch)
    people = model.describe(scenes.maps[-1], as_rois([torch.tensor([[10.0, 10, 30, 50]])] * 4))
    losses = distillation_losses(
        (scenes, people),
        (scenes, people),
        torch.tensor([True, False, True, True]),
        starts=map_starts(model, model),
        levels=(0, 1, 2, 3),
    )
    assert set(losses) == set(DISTILLATIONS) and all(abs(loss.item()) < 1e-6 for loss in losses.values())


def test_total_loss_is_equation_4_10():
    losses = {
        name: torch.tensor(float(10**k))
        for k, name in enumerate(("anchor", "anchor_box", "person", "person_box", "identity", "feature", "attention"))
    }
    weigh = dict(lambda0=0.7, lambda1=3.0, lambda2=2.0)
    assert total_loss(losses, **weigh).item() == pytest.approx(1111 + 10**4 + 2e5 + 3e6)
    assert total_loss(losses | {"prediction": torch.tensor(5.0)}, **weigh).item() == pytest.approx(
        1111 + 0.3 * 10**4 + 2e5 + 3e6 + 3.5
    )


@pytest.mark.parametrize("chosen", [names for n in range(4) for names in itertools.combinations(DISTILLATIONS, n)])
def test_every_combination_of_distillations(chosen):
    toys, student, teacher = Toys(), tiny_student(3), tiny_teacher(3).eval()
    labels, _ = identity_labels(toys.pids)
    batch = read_batch(toys, labels, range(4), [False] * 4, "cpu", torch.float32)
    losses = batch_losses(
        student,
        *batch,
        teacher=teacher,
        distill=chosen,
        levels=(0, 1, 2, 3),
        num_rois=6,
        num_proposals=10,
        generator=torch.Generator().manual_seed(0),
    )
    assert set(losses) == {"anchor", "anchor_box", "person", "person_box", "identity", *chosen}
    total_loss(losses).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in student.parameters())
    assert all(x.grad is None for x in teacher.parameters())


def distilled(name, **options):
    "Losses of a batch for an untrained student, and the networks."
    toys, student, teacher = Toys(), tiny_student(3), tiny_teacher(3).eval()
    labels, _ = identity_labels(toys.pids)
    batch = read_batch(toys, labels, range(4), [False] * 4, "cpu", torch.float32)
    options = dict(num_rois=6, num_proposals=10, generator=torch.Generator().manual_seed(0)) | options
    return batch_losses(student, *batch, teacher=teacher, distill=[name], **options)[name], student, teacher


@pytest.mark.parametrize("name", DISTILLATIONS)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_each_distillation_alone_reaches_the_students_backbone(name, level):
    "What is learnt from the teacher's maps moves every block that has a part in them, and the teacher stays."
    loss, student, teacher = distilled(name, levels=[level])
    loss.backward()
    moved = lambda part: any(x.grad is not None and x.grad.any() for x in part.parameters())
    blocks = [student.backbone.stem, *(getattr(student.backbone, f"layer{k}") for k in range(1, 5))]
    reached = 5 if name == "prediction" else level + 2
    assert [moved(block) for block in blocks] == [True] * reached + [False] * (5 - reached)
    assert all(x.grad is None for x in teacher.parameters())
    if name == "attention":
        assert moved(student.arms[level])


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_the_gradient_of_a_distillation_is_that_of_its_loss(name):
    "A small step along the gradient changes the loss by what the gradient says, in double precision to four digits."
    toys, student, teacher = Toys(), tiny_student(3).double(), tiny_teacher(3).eval().double()
    labels, _ = identity_labels(toys.pids)
    batch = read_batch(toys, labels, range(3), [False] * 3, "cpu", torch.float64)

    def again():
        generator = torch.Generator().manual_seed(0)
        how = dict(num_rois=1, generator=generator)  # true boxes alone: proposals move with the weights
        return batch_losses(student, *batch, teacher=teacher, distill=[name], **how)[name]

    weight = student.backbone.stem[0].weight
    (gradient,) = torch.autograd.grad(again(), weight)
    assert gradient.any()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-7 * gradient / gradient.norm())
            ends.append(again().item())
            weight.sub_(sign * 1e-7 * gradient / gradient.norm())
    assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(gradient.norm().item(), rel=1e-4)


# training


def test_training_repeats_itself_and_resumes(tmp_path):
    def train(epochs, seed=3, **options):
        model = tiny_student(3)
        curve = fit_person_search(
            model,
            Toys(),
            teacher=teacher,
            distill=DISTILLATIONS,
            **{**RECIPE, "seed": seed, "epochs": epochs, **options},
        )
        return model.state_dict(), [
            {name: value for name, value in record.items() if name != "seconds"} for record in curve
        ]

    teacher = tiny_teacher(3).train()
    kept = copy.deepcopy(teacher.state_dict())
    (weights, curve), (again, same), (other, _) = train(2), train(2), train(2, seed=4)
    assert curve == same and all(torch.equal(weights[name], again[name]) for name in weights)
    assert any(not torch.equal(weights[name], other[name]) for name in weights)
    train(1, checkpoint=tmp_path)
    resumed, whole = train(2, checkpoint=tmp_path)
    assert whole == curve and all(torch.equal(weights[name], resumed[name]) for name in weights)
    with pytest.raises(ValueError, match="lr=0.01, not lr=0.02"):
        train(3, checkpoint=tmp_path, lr=0.02)
    assert teacher.training and all(torch.equal(x, kept[name]) for name, x in teacher.state_dict().items())


def test_training_learns_to_find():
    model, toys = tiny_student(), Toys()
    curve = fit_person_search(model, toys, **{**RECIPE, "epochs": 12, "lr": 0.03})
    assert "identity" not in curve[0] and curve[-1]["anchor"] < 0.6 * curve[0]["anchor"]


@pytest.mark.parametrize("pids", [((), (), (), ()), ((-1,), (-1, -1), (), ())])
def test_scenes_without_people_or_names(pids):
    curve = fit_person_search(tiny_student(2), Toys(pids), **{**RECIPE, "epochs": 1})
    assert curve[0]["identity"] == 0 and np.isfinite(curve[0]["loss"])


def test_mirrored_scenes():
    toys = Toys()
    labels, _ = identity_labels(toys.pids)
    plain, sizes, boxes, _ = read_batch(toys, labels, [0], [False], "cpu", torch.float32)
    mirrored, _, moved, _ = read_batch(toys, labels, [0], [True], "cpu", torch.float32)
    assert torch.equal(mirrored, plain.flip(3))
    assert torch.equal(
        moved[0], torch.stack([80 - boxes[0][:, 2], boxes[0][:, 1], 80 - boxes[0][:, 0], boxes[0][:, 3]], 1)
    )


def test_training_stops_with_a_sentence():
    toys, student, teacher = Toys(), tiny_student(3), tiny_teacher(3)
    cases = [
        (dict(distill=("prediciton",), teacher=teacher), "did you mean 'prediction'"),
        (dict(distill="feature"), "needs a teacher"),
        (dict(distill=("prediction",), teacher=tiny_teacher(4)), "tells 4 persons apart and the student 3"),
        (dict(distill=("prediction",), teacher=tiny_teacher()), "teacher names nobody"),
        (dict(distill=("attention",), teacher=tiny_teacher(3, attention=False)), "teacher has no attention"),
        (dict(distill=("feature",), teacher=teacher, norm="l2"), "unknown norm 'l2'"),
        (dict(epochs=0), "epochs must be"),
        (dict(distill=("feature",), teacher=teacher, levels=(0, 4)), "unknown level 4"),
        (dict(distill=("prediction",), teacher=teacher, kl="hinton"), "unknown kl 'hinton'"),
        (dict(batch_size=1.5), "batch_size must be"),
        (dict(seed=-1), "seed must be"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            fit_person_search(student, toys, **{**RECIPE, **options})
    with pytest.raises(ValueError, match="num_classes=2, but 3 persons"):
        fit_person_search(tiny_student(2), toys, **RECIPE)
    with pytest.raises(ValueError, match="begin behind the student's"):
        fit_person_search(teacher, toys, teacher=student, distill="feature", **RECIPE)
    toys.boxes[2] = torch.tensor([[10.0, 10, 10, 40]])
    with pytest.raises(ValueError, match="box 0 of toy_2.*has no area"):
        fit_person_search(student, toys, **RECIPE)
    nn.init.constant_(student.detect.conv.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="at epoch 1, step 1 of 2: a smaller lr may help"):
        fit_person_search(student, Toys(), **RECIPE)


def test_a_checkpoint_of_another_network(tmp_path):
    fit_person_search(tiny_student(3), Toys(), checkpoint=tmp_path, **{**RECIPE, "epochs": 1})
    with pytest.raises(ValueError, match="network of another structure"):
        fit_person_search(tiny_teacher(3), Toys(), checkpoint=tmp_path, **{**RECIPE, "epochs": 1})


def test_other_anchors_or_another_teacher_are_refused(tmp_path):
    once = {**RECIPE, "epochs": 1}
    fit_person_search(tiny_student(3), Toys(), checkpoint=tmp_path / "a", **once)
    with pytest.raises(
        ValueError, match=r"another PersonSearchNet: anchor_heights is \(20.0, 40.0\) there and \(20.0, 60.0\)"
    ):
        fit_person_search(tiny_student(3, anchor_heights=(20, 60)), Toys(), checkpoint=tmp_path / "a", **once)
    fit_person_search(tiny_student(3), Toys(), checkpoint=tmp_path / "a", **once)
    taught = dict(distill="feature", checkpoint=tmp_path / "b", **once)
    fit_person_search(tiny_student(3), Toys(), teacher=tiny_teacher(3), **taught)
    other = tiny_teacher(3)
    with torch.no_grad():
        other.backbone.conv1.weight[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="is of a run with teacher='PersonSearchNet "):
        fit_person_search(tiny_student(3), Toys(), teacher=other, **taught)
    fit_person_search(tiny_student(3), Toys(), teacher=tiny_teacher(3), **taught)


def test_every_scene_counts(tmp_path):
    once = {**RECIPE, "epochs": 1}
    fit_person_search(tiny_student(3), Toys(), checkpoint=tmp_path, **once)
    for number in range(4):
        toys = Toys()
        toys.images[number][0, 0, 0] += 1
        with pytest.raises(ValueError, match="is of a run with images="):
            fit_person_search(tiny_student(3), toys, checkpoint=tmp_path, **once)


def test_a_network_of_double_precision(tmp_path):
    teacher, found = tiny_teacher(3).double(), {}
    for dtype in (torch.float64, torch.float32):
        student = tiny_student(3).to(dtype)
        how = dict(teacher=teacher.to(dtype), distill=DISTILLATIONS)
        found[dtype] = fit_person_search(student, Toys(), **how, **{**RECIPE, "epochs": 1})[0]
        assert {x.dtype for x in student.parameters()} == {dtype}
    for name in ("anchor", "anchor_box", "person", "person_box", "identity", *DISTILLATIONS):
        assert found[torch.float64][name] == pytest.approx(found[torch.float32][name], rel=0.05), name
    (seen,) = detect(student.double(), Toys().images[0], score_threshold=0.0)
    assert {x.dtype for x in seen} == {torch.float64}
    labels, _ = identity_labels(Toys().pids)
    _, _, truth, _ = read_batch(Toys(), labels, [0], [False], "cpu", torch.float64)
    assert truth[0].dtype == student.anchors(torch.zeros(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64


def test_pids_that_are_no_integers():
    with pytest.raises(ValueError, match="pids must be integers, -1 for a person without identity, not torch.float32"):
        identity_labels([torch.tensor([1.5, 2.0])])


def test_another_seed_draws_other_batches_and_samples():
    orders = [scene_batches(40, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    kind = torch.tensor([0, 1] * 50)
    rows = [draw_sample(kind, 20, 10, torch.Generator().manual_seed(seed)).tolist() for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_a_detector_without_hdl():
    "Backbone, subnets, losses, run and search: nothing of chapter 4 is imported."
    code = """
import sys, torch
from torch import nn
from scalable_arch.nn.detector import PersonSearchNet
from scalable_arch.train.detection import detect, fit_scenes
assert "scalable_arch.hdl" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_options():
    for options, words in [
        (dict(num_classes=-1), "num_classes"),
        (dict(anchor_heights=()), "anchor_heights"),
        (dict(anchor_heights=(0,)), "anchor_heights"),
    ]:
        with pytest.raises(ValueError, match=words):
            tiny_student(**options)
    assert tiny_student(0).num_classes is None


# detection


@pytest.mark.parametrize("make", [tiny_student, tiny_teacher])
def test_detections(make):
    model, toys = make(3).train(), Toys()
    found = detect(model, toys.images, score_threshold=0.0, max_detections=5, progress=False)
    assert model.training and len(found) == 4
    for image, boxes_scores in zip(toys.images, found):
        boxes, scores, features = boxes_scores
        alone = detect(model, image, score_threshold=0.0, max_detections=5)[0]
        assert all(torch.equal(a, b) for a, b in zip(alone, boxes_scores))
        assert 0 < len(boxes) <= 5 and torch.equal(scores, scores.sort(descending=True).values)
        assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= 0.5 + 1e-6
        assert torch.allclose(features.norm(dim=1), torch.ones(len(boxes)), atol=1e-5)
        assert torch.allclose(describe_boxes(model, image, boxes), features, atol=1e-5)
    (nothing,) = detect(model, toys.images[0], score_threshold=1.1)
    assert nothing.boxes.shape == (0, 4) and nothing.features.shape == (0, model.backbone.channels[3])
    with pytest.raises(ValueError, match="has no area"):
        describe_boxes(model, toys.images[0], torch.tensor([[4.0, 4, 4, 30]]))


@pytest.mark.parametrize("make", [tiny_student, tiny_teacher])
@pytest.mark.parametrize("factored", [False, True])
def test_folding_changes_nothing(make, factored):
    model, toys = make(3, factored=factored), Toys()
    fit_person_search(model, toys, **{**RECIPE, "epochs": 1})
    batch, _ = collate_scenes(toys.images)
    folded = fold(model)
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(batch)[:1] + model(batch)[2:], folded(batch)[:1] + folded(batch)[2:]):
            for a, b in zip(ours, theirs):
                assert torch.allclose(a, b, atol=2e-4)
    boxes = torch.tensor([[5.0, 5, 25, 50], [40, 10, 70, 60]])
    assert torch.allclose(
        describe_boxes(model, toys.images[0], boxes), describe_boxes(folded, toys.images[0], boxes), atol=1e-3
    )
    assert len(list(folded.parameters())) < len(list(model.parameters()))


def test_search_finds_the_same_box_first():
    model, toys = tiny_student(3), Toys()
    fit_person_search(model, toys, **{**RECIPE, "epochs": 3})
    (found,) = detect(model, toys.images[1], score_threshold=0.0)
    matches = search_scenes(model, toys.images[1], found.boxes[0], toys.images, score_threshold=0.0)
    assert matches[0].similarity == pytest.approx(1, abs=1e-4)
    assert any(
        match.scene == 1 and torch.equal(match.box, found.boxes[0]) and match.similarity > 1 - 1e-4 for match in matches
    )
    similarities = [match.similarity for match in matches]
    assert similarities == sorted(similarities, reverse=True) and {match.scene for match in matches} == {0, 1, 2, 3}


def test_the_scene_part_exports():
    model, (batch, _) = tiny_student(3).eval(), collate_scenes(Toys().images[:1])
    program = torch.export.export(model, (batch,))
    with torch.no_grad():
        assert torch.allclose(program.module()(batch)[2], model(batch).logits, atol=1e-5)


def test_names_are_public():
    assert {"hdl_teacher", "hdl_student", "fit_person_search", "detect", "describe_boxes", "load_backbone"} <= set(
        hdl.__all__
    )
