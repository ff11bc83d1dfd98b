"HAN: the printed structure, every option, export, and what it says to wrong input."

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from scalable_arch import create_model
from scalable_arch.han import HAN, SoftAttention, crop_regions, region_size
from scalable_arch.nn.cost import measure

PRINTED = {
    "han_small": 3.68e8,
    "han_medium": 5.33e8,
    "han_large": 7.01e8,
    "han_inception": 1.09e9,
    "han_residual": 1.34e9,
}
tiny = dict(widths=(8, 16, 24), stem_width=4, feature_dim=32)


@pytest.mark.parametrize("name", PRINTED)
def test_printed_costs(name):  # W Tables 3.1 and 3.7, in the convention that fits: two operations a multiply-add
    assert measure(create_model(name), (3, 160, 64)).flops == pytest.approx(PRINTED[name], rel=0.015)


def test_printed_parts():  # W sec. 3.2.2 and 3.3
    model = create_model("han_large", num_classes=751)
    assert [region_size(size, 4) for size in [(80, 32)]] == [(24, 28)]
    for level, channels in enumerate((128, 256, 384)):
        attention = model.attentions[level]
        convs = lambda module: sum(p.numel() for p in module.parameters() if p.dim() == 4)
        assert convs(attention.soft.spatial) == 10
        assert convs(attention.soft.channel) == 2 * channels**2 // 16
        assert attention.soft.blend.weight.numel() == channels**2
        assert sum(p.numel() for p in attention.hard.parameters()) == 2 * 4 * channels
    assert model.eval()(torch.randn(2, 3, 160, 64)).shape == (2, 1024)


def slow_crop(image, centre, size):
    "Read the image at every point of the region with bilinear weights, zero outside: loops only."
    (height, width), (rows, columns) = image.shape[-2:], size
    out = torch.zeros(image.shape[0], rows, columns, dtype=image.dtype)
    for i in range(rows):
        for j in range(columns):
            y = (float(centre[1]) + 1) * height / 2 - rows / 2 + i
            x = (float(centre[0]) + 1) * width / 2 - columns / 2 + j
            y0, x0 = int(y // 1), int(x // 1)
            for row, wy in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
                for column, wx in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                    if 0 <= row < height and 0 <= column < width:
                        out[:, i, j] += wy * wx * image[:, row, column]
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 7), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)
)
def test_crops_match_a_loop(seed, height, width, rows, columns, regions):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, generator=generator)
    centres = torch.rand(2, regions, 2, dtype=torch.float64, generator=generator) * 2 - 1
    crops = crop_regions(maps, centres, (rows, columns)).unflatten(0, (2, regions))
    for image, places, found in zip(maps, centres, crops):
        for centre, crop in zip(places, found):
            assert torch.allclose(crop, slow_crop(image, centre, (rows, columns)), atol=1e-9)


def test_regions_learn_from_the_loss():
    maps = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    centres = (torch.rand(2, 2, 2, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: crop_regions(maps, c, (3, 2)), centres)


@settings(max_examples=15, deadline=None)
@given(st.integers(32, 90), st.integers(16, 50), st.integers(1, 6))
def test_any_size_and_number_of_regions(height, width, regions):
    model = HAN(3, num_regions=regions, **tiny).eval()
    with torch.no_grad():
        images = torch.randn(2, 3, height, width)
        features, seen = model(images), model.attend(images)
    halves = features.unflatten(1, (2, -1)).norm(dim=2)
    assert features.shape == (2, 32) and torch.all((halves - 1).abs().lt(1e-5) | halves.eq(0))
    assert len(seen) == 3 and all(level.boxes.shape == (2, regions, 4) for level in seen)
    assert all(0.5 <= level.soft.min() and level.soft.max() < 1 + 1e-6 for level in seen)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("regional", [True, False])
@pytest.mark.parametrize("interaction", [True, False])
def test_every_subset_trains(spatial, channel, regional, interaction):
    torch.manual_seed(0)
    model = HAN(5, spatial=spatial, channel=channel, regional=regional, interaction=interaction, **tiny)
    output = model(torch.randn(4, 3, 64, 32))
    assert [x.shape for x in output.logits] == [(4, 5)] * 2 and [x.shape for x in output.embeddings] == [(4, 16)] * 2
    sum(F.cross_entropy(x, torch.arange(4)) for x in output.logits).backward()
    learns = lambda module: any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert all(learns(block) for block in [*model.global_blocks, *model.local_units, *model.heads])
    first = model.attentions[0]
    assert learns(first.hard) == regional and (first.soft is not None) == (spatial or channel)
    assert learns(model.attentions[2].hard) == (regional and interaction)  # without CAIL the lower regions are not read


def test_local_streams_share_their_weights():
    assert sum(p.numel() for p in HAN(num_regions=4).local_units.parameters()) == sum(
        p.numel() for p in HAN(num_regions=2).local_units.parameters()
    )


@pytest.mark.parametrize("options", [{}, {"spatial": False}, {"channel": False}])
def test_the_short_cut_of_the_blend_is_exact(options):
    torch.manual_seed(1)
    soft = SoftAttention(16, **options)
    x = torch.randn(3, 16, 10, 6)
    for mode in (True, False):
        soft.train(mode)
        soft.factored = False
        full = soft(x, x.mean((2, 3), keepdim=True))
        soft.factored = True
        assert torch.allclose(soft(x, x.mean((2, 3), keepdim=True)), full, atol=1e-5)
    full, short = (
        measure(create_model("han_large"), (3, 160, 64)),
        measure(create_model("han_large", factored=True), (3, 160, 64)),
    )
    assert short.macs < 0.93 * full.macs and short.params == full.params


def test_dtype_follows_the_input():
    model, images = HAN(3, **tiny).eval(), torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        full = model(images)
        for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float64, 1e-5)):
            features = copy.deepcopy(model).to(dtype)(images.to(dtype))
            assert features.dtype == dtype and torch.allclose(features.float(), full, atol=tolerance)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images).shape == (2, 32)


def test_export_with_a_dynamic_batch(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model, images = create_model("han_small", **tiny).eval(), torch.randn(4, 3, 160, 64)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (images,), dynamic_shapes=shapes)
    torch.onnx.export(model, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False).save(tmp_path / "han.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "han.onnx")
    for batch in (1, 3, 7):
        images = torch.randn(batch, 3, 160, 64)
        with torch.no_grad():
            expected = model(images)
            assert torch.allclose(program.module()(images), expected, atol=1e-5)
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert found.shape == expected.shape and abs(found - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize(
    "images, sentence",
    [
        (torch.zeros(2, 1, 64, 32), r"shape \(B, 3, H, W\), not \(2, 1, 64, 32\)"),
        (torch.zeros(3, 64, 32), r"not \(3, 64, 32\)"),
        (torch.zeros(2, 3, 64, 32, dtype=torch.uint8), "torch.uint8: convert with"),
        (torch.zeros(2, 3, 20, 10), "at least 32x16"),
        (torch.zeros(2, 3, 64, 32, dtype=torch.float64), "images are torch.float64 and the model is torch.float32"),
        (torch.zeros(1, 3, 64, 32), "at least two images a batch"),
    ],
)
def test_wrong_images_get_one_sentence(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        HAN(3, **tiny).train()(images)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"feature_dim": 7}, "feature_dim must be even"),
        ({"num_regions": 0}, "num_regions must be at least 1"),
        ({"unit": "depthwize"}, "did you mean 'depthwise'"),
    ],
)
def test_wrong_options_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        HAN(**options)
