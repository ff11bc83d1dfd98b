"""Boxes: overlap, suppression, anchors, coding and RoIAlign against slow, obvious references."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch.nn import boxes as boxes_module
from scalable_arch.nn.boxes import (
    ANCHOR_HEIGHTS,
    anchor_boxes,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    nms,
    roi_align,
    torchvision_ops,
)


@pytest.fixture(autouse=True)
def without_torchvision(monkeypatch):
    "Ours, also on a machine that has torchvision; `boxes_module.torchvision_ops` is what the functions ask."
    monkeypatch.setattr(boxes_module, "torchvision_ops", lambda: None)


def draw_boxes(seed, n, spread=30.0, dtype=torch.float64, grid=None):
    "n boxes that overlap often; on a coarse `grid` they also coincide, touch and lose their area."
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator, dtype=dtype) * spread
    sides = torch.rand(n, 2, generator=generator, dtype=dtype) * 20
    boxes = torch.cat([corner, corner + sides], 1)
    return boxes if grid is None else (boxes / grid).round() * grid


def iou_of_two(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def slow_nms(boxes, scores, threshold):
    left, kept = sorted(range(len(boxes)), key=lambda i: (-scores[i], i)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if iou_of_two(boxes[best], boxes[i]) <= threshold]
    return kept


seeds, grids = st.integers(0, 10_000), st.sampled_from([None, 1.0, 5.0])


@given(seeds, st.integers(0, 12), st.integers(0, 12), grids)
def test_iou_against_a_loop(seed, n, m, grid):
    a, b = draw_boxes(seed, n, grid=grid), draw_boxes(seed + 1, m, grid=grid)
    iou = box_iou(a, b)
    expected = np.array([[iou_of_two(p, q) for q in b.tolist()] for p in a.tolist()]).reshape(n, m)
    np.testing.assert_allclose(iou.numpy(), expected, atol=1e-12)
    assert torch.equal(iou, box_iou(b, a).T) and (iou >= 0).all() and (iou <= 1).all()


@settings(deadline=None)  # the first call compiles
@given(seeds, st.integers(0, 40), grids, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.booleans())
def test_nms_against_a_loop(seed, n, grid, threshold, ties):
    boxes = draw_boxes(seed, n, grid=grid)
    scores = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = (scores * 4).round() if ties else scores
    kept = nms(boxes, scores, threshold)
    assert kept.tolist() == slow_nms(boxes.tolist(), scores.tolist(), threshold)


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.sampled_from([0.3, 0.5, 0.7]))
def test_nms_properties(seed, n, threshold):
    boxes, scores = draw_boxes(seed, n), torch.rand(n, generator=torch.Generator().manual_seed(seed))
    kept = nms(boxes, scores, threshold)
    overlap = box_iou(boxes, boxes)
    assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)
    assert (overlap[kept][:, kept].fill_diagonal_(0) <= threshold).all(), "kept boxes do not overlap"
    for dropped in set(range(n)) - set(kept.tolist()):
        assert ((overlap[dropped, kept] > threshold) & (scores[kept] >= scores[dropped])).any(), (
            "a better kept one covers it"
        )
    assert nms(boxes[kept], scores[kept], threshold).tolist() == list(range(len(kept))), "idempotent"


def test_nms_takes_many_boxes_of_any_precision():
    boxes, scores = draw_boxes(0, 3000, spread=600), torch.rand(3000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nms(boxes, scores, 0.5), nms(boxes, scores.double(), 0.5))
    whole = boxes.round().int()
    assert torch.equal(nms(whole, scores, 0.5), nms(whole.half(), scores.to(torch.float32), 0.5))
    assert nms(boxes.float().requires_grad_(), scores.requires_grad_(), 0.5).dtype == torch.int64


def bilinear(plane, y, x):
    "Value of a map (C, H, W) at a point, by torchvision's rule at and beyond the edges."
    height, width = plane.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return plane[:, 0, 0] * 0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    above = plane[:, y0, x0] * (1 - (x - x0)) + plane[:, y0, x1] * (x - x0)
    below = plane[:, y1, x0] * (1 - (x - x0)) + plane[:, y1, x1] * (x - x0)
    return above * (1 - (y - y0)) + below * (y - y0)


def slow_roi_align(features, rois, size, scale, ratio, aligned):
    result = features.new_zeros(len(rois), features.shape[1], *size)
    for k, (index, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0) for value in corners)
        height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        for i in range(size[0]):
            for j in range(size[1]):
                points = [
                    (y1 + height * (i + (a + 0.5) / ratio) / size[0], x1 + width * (j + (b + 0.5) / ratio) / size[1])
                    for a in range(ratio)
                    for b in range(ratio)
                ]
                result[k, :, i, j] = sum(bilinear(features[int(index)], y, x) for y, x in points) / ratio**2
    return result


def draw_rois(seed, k, batch, extent):
    "Regions of all kinds: inside, across the edge, far outside, below a pixel of the map, without area."
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(k, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.4) * extent
    kind = torch.tensor([0.0, 0.1, 1, 1])[torch.randint(4, (k, 1), generator=generator)]
    sides = torch.rand(k, 2, generator=generator, dtype=torch.float64) * extent * kind
    return torch.cat([torch.randint(batch, (k, 1), generator=generator), corner, corner + sides], 1)


@settings(max_examples=40, deadline=None)
@given(
    seeds,
    st.integers(0, 6),
    st.integers(1, 2),
    st.integers(1, 4),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_roi_align_against_a_loop(seed, k, batch, channels, size, ratio, aligned, last):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, channels, 6, 9, generator=generator, dtype=torch.float64)
    features = features.contiguous(memory_format=torch.channels_last) if last else features
    rois = draw_rois(seed, k, batch, extent=32)
    ours, slow = features.clone().requires_grad_(), features.clone().requires_grad_()
    cut, expected = (
        roi_align(ours, rois, size, 0.25, ratio, aligned),
        slow_roi_align(slow, rois, size, 0.25, ratio, aligned),
    )
    torch.testing.assert_close(cut, expected, atol=1e-9, rtol=0)
    pull = torch.randn(cut.shape, generator=generator, dtype=torch.float64)
    cut.backward(pull)
    if k:
        expected.backward(pull)
        torch.testing.assert_close(ours.grad, slow.grad, atol=1e-9, rtol=0)
    else:
        assert not ours.grad.any()


@pytest.mark.parametrize("where, value", [(-1.0, 1), (-1.001, 0), (8.0, 1), (8.001, 0)])
def test_edge_of_the_map(where, value):
    """A point counts up to -1 and up to the size of the map, both included: a region without width is a row of such
    points."""
    x = where + 0.5
    rois = torch.tensor([[0, x, 2, x, 4]], dtype=torch.float64)
    assert roi_align(torch.ones(1, 1, 8, 8, dtype=torch.float64), rois, 1, 1.0).item() == value


def test_roi_align_derivative():
    features = torch.randn(
        2, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda f: roi_align(f, draw_rois(0, 3, 2, 10), (2, 3), 0.5), (features,))


def test_roi_align_in_half_precision_keeps_positions_exact():
    features, rois = torch.randn(1, 8, 40, 60), torch.tensor([[0.0, 801.3, 402.7, 877.7, 600.1]])
    close = roi_align(features.bfloat16(), rois, 7, 1 / 16).float()
    assert (close - roi_align(features.bfloat16().float(), rois, 7, 1 / 16)).abs().max() < 0.05


@given(seeds, st.integers(0, 20), st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]))
def test_coding_is_undone(seed, n, weights):
    boxes, anchors = (
        draw_boxes(seed, n) + torch.tensor([0, 0, 1, 1]),
        draw_boxes(seed + 1, n) + torch.tensor([0, 0, 1, 1]),
    )
    deltas = encode_boxes(boxes, anchors, weights)
    torch.testing.assert_close(decode_boxes(deltas, anchors, weights), boxes, atol=1e-9, rtol=0)
    for delta, (x1, y1, x2, y2), (u1, v1, u2, v2) in zip(deltas.tolist(), boxes.tolist(), anchors.tolist()):
        expected = [
            ((x1 + x2) / 2 - (u1 + u2) / 2) / (u2 - u1),
            ((y1 + y2) / 2 - (v1 + v2) / 2) / (v2 - v1),
            np.log((x2 - x1) / (u2 - u1)),
            np.log((y2 - y1) / (v2 - v1)),
        ]
        np.testing.assert_allclose(delta, np.multiply(expected, weights), atol=1e-9)


def test_decoded_boxes_stay_finite():
    wild = decode_boxes(torch.full((1, 4), 1000.0), torch.tensor([[0.0, 0, 16, 16]]))
    assert wild.isfinite().all() and torch.allclose(wild[0, 2:] - wild[0, :2], torch.tensor(1000.0))


def test_anchors_against_a_loop():
    expected = [
        [(x + 0.5) * 8 - h / 2.44 / 2, (y + 0.5) * 8 - h / 2, (x + 0.5) * 8 + h / 2.44 / 2, (y + 0.5) * 8 + h / 2]
        for y in range(3)
        for x in range(4)
        for h in ANCHOR_HEIGHTS
    ]
    np.testing.assert_allclose(anchor_boxes((3, 4), 8).numpy(), expected, rtol=1e-5)
    assert len(ANCHOR_HEIGHTS) == 11 and ANCHOR_HEIGHTS[0] == 40 and ANCHOR_HEIGHTS[10] == pytest.approx(551.4, abs=0.1)


@given(seeds, st.integers(0, 20))
def test_clipped_boxes_lie_in_the_image(seed, n):
    boxes = draw_boxes(seed, n) - 10
    clipped = clip_boxes(boxes, (20, 25))
    assert clipped.tolist() == [[min(max(x, 0), 25 - 5 * (i % 2)) for i, x in enumerate(box)] for box in boxes.tolist()]


def test_nothing_is_a_set_of_boxes_too():
    none, one = torch.zeros(0, 4), torch.tensor([[0.0, 0, 1, 1]])
    assert box_iou(none, one).shape == (0, 1) and box_iou(one, none).shape == (1, 0)
    assert nms(none, torch.zeros(0), 0.5).tolist() == []
    assert encode_boxes(none, none).shape == decode_boxes(none, none).shape == clip_boxes(none, (4, 4)).shape == (0, 4)
    assert anchor_boxes((0, 5), 16).shape == (0, 4)
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    cut = roi_align(features, torch.zeros(0, 5), 7, 1 / 16)
    cut.sum().backward()
    assert cut.shape == (0, 3, 7, 7) and not features.grad.any()


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda b: box_iou(b[0], b), "a must be a tensor of shape (n, 4) with x1, y1, x2, y2, not (4,)"),
        (lambda b: box_iou(b, [[0, 0, 1, 1]]), "b must be a tensor of shape (n, 4) with x1, y1, x2, y2, not list"),
        (
            lambda b: nms(b[:, [2, 1, 0, 3]], torch.ones(2), 0.5),
            "boxes[0] is [10.0, 0.0, 0.0, 10.0]: x1, y1, x2, y2 must be numbers",
        ),
        (lambda b: nms(b * float("nan"), torch.ones(2), 0.5), "boxes[0] is [nan, nan, nan, nan]"),
        (lambda b: nms(b, torch.ones(3), 0.5), "scores must be a tensor of 2 numbers"),
        (lambda b: nms(b, torch.tensor([1, float("nan")]), 0.5), "scores must be a tensor of 2 numbers"),
        (
            lambda b: encode_boxes(b, b * torch.tensor([1, 1, 0, 1])),
            "anchors[0] is [0.0, 0.0, 0.0, 10.0]: x1, y1, x2, y2 must be numbers with x1 < x2",
        ),
        (lambda b: encode_boxes(b, b[:1]), "there are 2 boxes but 1 anchors"),
        (lambda b: decode_boxes(b, b[:1]), "deltas of shape (2, 4) do not fit anchors of shape (1, 4)"),
        (lambda b: roi_align(torch.ones(3, 8, 8), b, 7, 1.0), "features must have shape (B, C, H, W), not (3, 8, 8)"),
        (
            lambda b: roi_align(torch.ones(1, 3, 8, 8), b, 7, 1.0),
            "rois must have shape (K, 5) with image index, x1, y1, x2, y2, not (2, 4)",
        ),
        (
            lambda b: roi_align(torch.ones(1, 3, 8, 8), torch.tensor([[1.0, 0, 0, 4, 4]]), 7, 1.0),
            "from 0 to 0, the images of features",
        ),
        (
            lambda b: roi_align(torch.ones(1, 3, 8, 8), torch.tensor([[0.0, 4, 0, 0, 4]]), 7, 1.0),
            "rois[:, 1:][0] is [4.0, 0.0, 0.0, 4.0]",
        ),
        (
            lambda b: roi_align(torch.ones(1, 3, 8, 8), torch.zeros(1, 5), 7, 1.0, 0),
            "sampling_ratio must be a whole number from 1, not 0",
        ),
        (lambda b: anchor_boxes((2, 2), 16, [40, -1]), "anchors need a list of heights above 0"),
    ],
)
def test_wrong_boxes_are_one_sentence(wrong, sentence):
    with pytest.raises(ValueError) as stop:
        wrong(torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]]))
    assert sentence in str(stop.value) and "\n" not in str(stop.value)


def test_torchvision_is_used_where_a_reader_has_it(monkeypatch):
    asked = []
    fake = types.ModuleType("torchvision")
    fake.ops = types.SimpleNamespace(
        nms=lambda *given: asked.append(("nms", given)) or torch.tensor([1]),
        roi_align=lambda *given: asked.append(("roi_align", given)) or torch.zeros(1, 3, 7, 7),
    )
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    torchvision_ops.cache_clear()
    monkeypatch.setattr(boxes_module, "torchvision_ops", torchvision_ops)
    features, rois = torch.ones(1, 3, 8, 8), torch.tensor([[0, 0, 0, 4, 4]])
    assert nms(torch.zeros(2, 4), torch.zeros(2).double(), 0.5).tolist() == [1]
    assert roi_align(features, rois, 7, 1 / 16).shape == (1, 3, 7, 7)
    torchvision_ops.cache_clear()
    (_, (boxes, scores, threshold)), (_, (_, given, *rest)) = asked
    assert boxes.dtype == scores.dtype == torch.float64 and threshold == 0.5
    assert given.dtype == torch.float32 and rest == [(7, 7), 1 / 16, 2, True]


@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_torchvision_that_does_not_load_is_none(error, monkeypatch):
    class Refuses:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "torchvision":
                raise error("built for another torch")

    monkeypatch.setattr(sys, "meta_path", [Refuses(), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    torchvision_ops.cache_clear()
    assert torchvision_ops() is None
    torchvision_ops.cache_clear()


def test_equal_to_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    features, rois = torch.randn(2, 5, 20, 30), draw_rois(3, 50, 2, 320).float()
    for aligned in (True, False):
        expected = ops.roi_align(features, rois, (7, 5), 1 / 16, 2, aligned)
        torch.testing.assert_close(roi_align(features, rois, (7, 5), 1 / 16, 2, aligned), expected, atol=1e-4, rtol=0)
    boxes, scores = draw_boxes(0, 500, dtype=torch.float32), torch.rand(500)
    assert torch.equal(nms(boxes, scores, 0.5), ops.nms(boxes, scores, 0.5))
    torch.testing.assert_close(box_iou(boxes, boxes), ops.box_iou(boxes, boxes))
