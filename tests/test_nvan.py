"NVAN and STE-NVAN: printed costs and parameters, naive loops, permutations, export, memory, and what is refused."

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from scalable_arch import create_model, load, save
from scalable_arch.nn.clips import (
    ClipNet,
    TemporalPool,
    layers_in_use,
    load_imagenet,
    mask_weights,
    place_channels,
    pool_clips,
    resnet50_clips,
)
from scalable_arch.nn.cost import measure, measure_operations
from scalable_arch.nvan import PLACES, POOLED, NonLocal, clip_stripes, nvan, ste_nvan

tiny = {"width": 0.0625}
SPATIAL, TEMPORAL = {"stripes": 4}, {"pooled": POOLED}
VARIANTS = {
    "all": {},
    "one layer": {"layers": 1},
    "three layers": {"layers": 3},
    "stripes": SPATIAL,
    "windows": {"window": 2},
    "pooled": TEMPORAL,
    "stripes, pooled": SPATIAL | TEMPORAL,
    "stripes, pooled, windows": SPATIAL | TEMPORAL | {"window": 2},
}


def clips_of(batch=2, frames=4, size=(64, 32), dtype=torch.float32, seed=0):
    return torch.randn(batch, frames, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def awake(model, seed=0):
    "The model with layers that do something: their last normalisations have weight, all have statistics."
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
            if isinstance(module, NonLocal):
                module.norm.weight.normal_(generator=generator)
    return model.eval()


# ---- costs


@pytest.mark.parametrize(
    "frames, options, giga, parts",
    [  # FACTS section 5, recomputed by closed forms; 1e9 multiply-adds at 256x128
        (8, None, 32.426, None),
        (8, {}, 63.565, (10.737, 20.401)),
        (8, {"stripes": 4}, 32.665, None),
        (8, {"stripes": 8}, 32.913, None),
        (8, {"stripes": 16}, 33.433, None),
        (8, {"pooled": ("conv4_6",)}, 55.914, None),
        (8, {"pooled": POOLED}, 42.627, None),
        (8, {"pooled": POOLED, "stripes": 16}, 17.692, None),
        (8, {"pooled": POOLED, "stripes": 16, "window": 2}, 17.673, None),
        (4, {}, 16.213 + 5.100 + 5.369, (5.369, 5.100)),
        (6, {}, 24.320 + 11.476 + 8.053, (8.053, 11.476)),
    ],
)
def test_costs_are_those_of_the_closed_forms(frames, options, giga, parts):
    with torch.device("meta"):
        model = resnet50_clips() if options is None else nvan(**options)
    found = measure_operations(model, (frames, 3, 256, 128))
    assert sum(found.values()) / 1e9 == pytest.approx(giga, rel=1e-3)
    assert measure(model, (frames, 3, 256, 128)).macs == sum(found.values())
    if parts:
        assert (found["linear layers"] / 1e9, found["products"] / 1e9) == pytest.approx(parts, rel=1e-3)


def test_one_frame_costs_what_the_literature_says():
    with torch.device("meta"):
        assert measure(resnet50_clips(), (1, 3, 256, 128)).macs == 4_053_270_528


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_the_layers_are_exact(name):
    count = lambda model: sum(x.numel() for x in model.parameters())
    with torch.device("meta"):
        base, model = resnet50_clips(), nvan(**VARIANTS[name])
    assert count(base.backbone) == 23_508_032
    layers = [module for module in model.modules() if isinstance(module, NonLocal)]
    weights = sum(x.weight.numel() for layer in layers for x in (layer.theta, layer.phi, layer.g, layer.out))
    if len(layers) == 5:
        assert count(model) - count(base) == 7_358_464 and weights == 7_340_032


def test_printed_percentages_follow_from_the_printed_costs_and_not_all_from_the_text():
    assert 100 * (60.0 / 30.4 - 1) == pytest.approx(97.4, abs=0.05)  # the text: 99.3
    assert 100 * (1 - 16.5 / 60.0) == pytest.approx(72.5, abs=0.05)  # the text: 72.7
    assert 100 * (63.565 / 32.426 - 1) == pytest.approx(96.0, abs=0.05)


# ---- what the layers compute


def slow_attention(layer, tokens):
    "Eq. 2.1 on tokens (N, C), sum by sum."
    theta, phi, g = layer.theta(tokens), layer.phi(tokens), layer.g(tokens)
    rows = []
    for i in range(len(tokens)):
        weights = torch.stack([(theta[i] @ phi[j]).exp() for j in range(len(tokens))])
        rows.append(sum(weights[j] * g[j] for j in range(len(tokens))) / weights.sum())
    return layer.norm(layer.out(torch.stack(rows)))


def slow_layer(layer, maps):
    "What a `NonLocal` gives for maps (T, C, h, w), frame by frame, pixel by pixel."
    frames, _, height, width = maps.shape
    window, output = layer.window or frames, maps.clone()
    for first in range(0, frames, window):
        part, places = range(first, first + window), []
        if layer.stripes:
            rows = height // layer.stripes
            for t in part:
                places += [(t, range(k * rows, (k + 1) * rows), range(width)) for k in range(layer.stripes)]
        else:
            places = [(t, [y], [x]) for t in part for y in range(height) for x in range(width)]
        mean = lambda t, ys, xs: torch.stack([maps[t, :, y, x] for y in ys for x in xs]).mean(0)
        found = slow_attention(layer, torch.stack([mean(*place) for place in places]))
        for (t, ys, xs), value in zip(places, found):
            for y in ys:
                for x in xs:
                    output[t, :, y, x] += value
    return output


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from([None, 1]),
    st.integers(1, 2),
    st.integers(0, 9),
)
def test_the_layer_is_the_sums_of_the_equation(frames, stripes, window, width, seed):
    torch.manual_seed(seed)
    layer = awake(NonLocal(6, stripes=stripes, window=window).double(), seed)
    maps = torch.randn(2, frames, 6, 4, width, dtype=torch.double)
    with torch.no_grad():
        found = layer(maps)
        for one, maps_of_one in zip(found, maps):
            assert torch.allclose(one, slow_layer(layer, maps_of_one), atol=1e-10)


def test_stripes_are_means_of_rows():
    maps = torch.randn(2, 3, 5, 8, 4)
    found = clip_stripes(maps, 2)
    assert found.shape == (2, 3, 2, 5) and torch.allclose(found[1, 2, 1], maps[1, 2, :, 4:].mean((1, 2)), atol=1e-6)


def test_temporal_pooling_takes_the_larger_of_neighbours():
    maps = torch.randn(2, 6, 3, 2, 2)
    found = TemporalPool()(maps)
    assert torch.equal(found[:, 1], torch.maximum(maps[:, 2], maps[:, 3])) and found.shape[1] == 3


# ---- before training, and permutations


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("training", [True, False])
def test_before_training_it_is_the_baseline_to_the_bit(name, training):
    options = VARIANTS[name]
    torch.manual_seed(0)
    model = nvan(5, **tiny, **options)
    base = resnet50_clips(5, temporal="pooled" in options, **tiny)
    base.load_state_dict({key: x for key, x in model.state_dict().items() if not hidden(key)})
    for one in (model, base):
        one.to(memory_format=torch.channels_last).train(training)
    found, expected = model(clips_of()), base(clips_of())
    if training:
        assert torch.equal(found.logits[0], expected.logits[0])
        assert torch.equal(found.embeddings[0], expected.embeddings[0])
    else:
        assert torch.equal(found, expected)
    assert layers_in_use(model) == 0 == layers_in_use(base) < layers_in_use(awake(model))


hidden = lambda key: key.startswith("between")


@pytest.mark.parametrize("name", VARIANTS)
def test_only_what_pools_or_looks_through_windows_minds_the_order_of_frames(name):
    torch.manual_seed(1)
    model, clips = awake(nvan(**tiny, **VARIANTS[name]).double()), clips_of(frames=4, dtype=torch.double)
    with torch.no_grad():
        apart = (model(clips) - model(clips[:, [2, 0, 3, 1]])).abs().max()
    ordered = "pooled" in VARIANTS[name] or "window" in VARIANTS[name]
    assert (apart > 1e-6) if ordered else (apart < 1e-10)


def test_frames_see_each_other():
    model, clips = awake(nvan(**tiny)), clips_of()
    other = clips.clone()
    other[:, 3] = clips_of(seed=1)[:, 3]
    maps = [model.frame_maps(x.flatten(0, 1)).unflatten(0, (2, 4)) for x in (clips, other)]
    after = [model.between["conv3_3"](x) for x in maps]
    assert torch.equal(maps[0][:, 0], maps[1][:, 0]) and not torch.allclose(after[0][:, 0], after[1][:, 0])


# ---- pooling and masks


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 50), st.sampled_from(["mean", "max"]))
def test_masked_pooling_is_that_of_the_valid_part(frames, height, width, seed, pooling):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, frames, 5, height, width, generator=generator)
    masks = (torch.rand(3, frames, height, width, generator=generator) < 0.4).float()
    found = pool_clips(maps, masks, pooling)
    assert found.isfinite().all()
    for one, mask, value in zip(maps, masks, found):
        mask = mask if mask.any() else torch.ones_like(mask)
        seen = [frame[:, valid > 0] for frame, valid in zip(one, mask) if valid.any()]
        slow = torch.stack([x.mean(1) for x in seen]).mean(0) if pooling == "mean" else torch.cat(seen, 1).amax(1)
        assert torch.allclose(value, slow, atol=1e-5)


def test_masks_of_a_finer_grid_and_of_pooled_frames():
    masks = torch.zeros(1, 4, 8, 4)
    masks[0, 0, :4], masks[0, 1, :2] = 1, 1
    weights = mask_weights(masks, 2, (2, 1))
    assert weights[0, 0].flatten().tolist() == [1.0, 0.0], "the larger of two frames"
    assert weights[0, 1].flatten().tolist() == [0.0, 0.0], "empty, but not the whole clip"
    with pytest.raises(ValueError, match="as many frames as the clips"):
        mask_weights(masks, 3, (2, 1))


def test_a_model_takes_masks_and_full_ones_change_nothing():
    model, clips = awake(ste_nvan(stripes=4, **tiny)), clips_of()
    with torch.no_grad():
        plain, masked = model(clips), model(clips, torch.ones(2, 4, 16, 8))
        half = torch.ones(2, 4, 16, 8)
        half[..., 4:] = 0
        assert torch.allclose(plain, masked, atol=1e-5) and not torch.allclose(plain, model(clips, half), atol=1e-3)
        assert torch.allclose(model(clips, torch.zeros(2, 4, 16, 8)), plain, atol=1e-5), "no NaN"


# ---- use


def test_freezing_keeps_what_is_below_as_it_is():
    model = nvan(5, **tiny).freeze("conv3_3").train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.1)
    sum(F.cross_entropy(x, torch.tensor([0, 1])) for x in model(clips_of()).logits).backward()
    optimizer.step()
    moved = {key for key, x in model.state_dict().items() if not torch.equal(x, before[key])}
    below = [key for key in before if key.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1"))]
    below += [key for key in before if key.startswith(("backbone.layer2.0", "backbone.layer2.1", "backbone.layer2.2"))]
    assert moved and not moved & set(below) and "backbone.layer2.3.conv1.weight" in moved
    with torch.no_grad():
        maps = model.frame_maps(clips_of().flatten(0, 1)).unflatten(0, (2, 4))
        assert torch.equal(model.eval().from_maps(maps), model(clips_of()))


@pytest.mark.parametrize("name", ["resnet50_clips", "nvan", "ste_nvan"])
def test_by_name_saved_and_loaded(name, tmp_path):
    torch.manual_seed(0)
    options = {"stripes": 4} if name == "ste_nvan" else {}
    model = awake(create_model(name, num_classes=4, **tiny, **options))
    save(tmp_path / "mine.safetensors", model)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "mine.safetensors").eval()(clips_of()), model(clips_of()))


@pytest.mark.parametrize("name, multiple", [("nvan", 1), ("ste_nvan", 4)])
def test_export_with_any_number_of_clips_and_frames(name, multiple):
    options = {"stripes": 4} if name == "ste_nvan" else {}
    model = awake(create_model(name, num_classes=None, **tiny, **options))
    frames = torch.export.Dim("frames", min=2, max=64)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64), 1: multiple * frames if multiple > 1 else frames},)
    program = torch.export.export(model, (clips_of(3, 8),), dynamic_shapes=shapes)
    for batch, length in ((1, 8), (2, 12)):
        clips = clips_of(batch, length)
        with torch.no_grad():
            assert torch.allclose(program.module()(clips), model(clips), atol=1e-5)


def test_onnx_with_any_number_of_clips_and_frames(tmp_path):
    "Of what is new in the network: attention, with stripes and without, and pooling; a whole one takes a minute."
    onnxruntime = pytest.importorskip("onnxruntime")
    parts = awake(nn.Sequential(NonLocal(6), NonLocal(6, stripes=2), TemporalPool(), NonLocal(6, window=2)))
    shapes = ({0: torch.export.Dim("batch", min=1, max=64), 1: 4 * torch.export.Dim("quads", min=2, max=16)},)
    maps = torch.randn(3, 8, 6, 4, 2)
    torch.onnx.export(parts, (maps,), dynamo=True, dynamic_shapes=shapes, verbose=False).save(tmp_path / "parts.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "parts.onnx")
    for batch, length in ((1, 8), (2, 12)):
        maps = torch.randn(batch, length, 6, 4, 2)
        (found,) = session.run(None, {session.get_inputs()[0].name: maps.numpy()})
        with torch.no_grad():
            assert abs(found - parts(maps).numpy()).max() < 1e-4


def test_imagenet_weights_of_a_reader(tmp_path):
    weights = resnet50_clips(**tiny).backbone.state_dict()
    file, model = tmp_path / "resnet50.safetensors", nvan(3, **tiny)
    safetensors.torch.save_file(weights | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}, file)
    load_imagenet(model, file)
    assert all(torch.equal(model.backbone.state_dict()[key], x) for key, x in weights.items())
    with pytest.raises(ValueError, match=r"does not fit: conv1.weight is \(4, 3, 7, 7\) there and \(8, 3, 7, 7\)"):
        load_imagenet(nvan(3, width=0.125), file)
    torch.save(weights, tmp_path / "resnet50.pth")
    with pytest.raises(ValueError, match="is no file of safetensors; torchvision's is turned into one by"):
        load_imagenet(model, tmp_path / "resnet50.pth")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_imagenet(model, tmp_path / "nowhere.safetensors")


MEMORY = """
import torch
from pathlib import Path
from scalable_arch.nvan import NonLocal

def megabytes(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
layer, maps = NonLocal(64).eval(), torch.randn(1, 16, 64, 32, 16)
with torch.inference_mode():
    layer(maps[:, :1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = megabytes("VmRSS")
    layer(maps)
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as Linux says it")
def test_no_matrix_of_all_pairs_is_stored():
    "At 32x16 pixels and 16 frames it would take 8192 ** 2 floats, 268 MB; maps of this clip take 2 MB."
    ran = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 40


# ---- what is refused


@pytest.mark.parametrize(
    "make, clips, sentence",
    [
        (lambda: ste_nvan(stripes=4, **tiny), (2, 3), "frames are pooled in pairs, and there are 3"),
        (lambda: ste_nvan(stripes=4, **tiny), (2, 6), "frames are pooled in pairs, and there are 3"),
        (lambda: nvan(stripes=3, **tiny), (2, 4), "3 stripes do not divide 8 rows"),
        (lambda: nvan(window=3, **tiny), (2, 4), "windows of 3 frames do not divide a clip of 4"),
    ],
)
def test_clips_that_do_not_fit_get_one_sentence(make, clips, sentence):
    with pytest.raises(ValueError, match=sentence):
        make().eval()(clips_of(*clips))


@pytest.mark.parametrize(
    "clips, sentence",
    [
        (torch.zeros(2, 3, 64, 32), r"shape \(B, T, 3, H, W\), not \(2, 3, 64, 32\)"),
        (torch.zeros(2, 4, 3, 64, 32, dtype=torch.uint8), "convert with scalable_arch.data.to_float"),
        (torch.zeros(1, 4, 3, 64, 32), "at least two clips a batch"),
    ],
)
def test_wrong_clips_get_one_sentence(clips, sentence):
    with pytest.raises(ValueError, match=sentence):
        nvan(3, **tiny).train()(clips)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"layers": 2}, "unknown number of layers 2"),
        ({"stripes": 0}, "stripes must be a whole number of at least 1"),
        ({"pooled": ("conv5_1",)}, "unknown place to pool frames"),
        ({"layers": 1, "pooled": ("conv3_4",)}, "choose one of: conv4_6"),
        ({"pooling": "median"}, "unknown pooling 'median'"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_wrong_options_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        nvan(**options, **tiny)


def test_layers_stand_behind_the_first_place():
    with pytest.raises(ValueError, match="unknown place of a layer 'conv3_2'"):
        ClipNet(layers={"conv3_2": NonLocal(place_channels("conv3_2"))})
    assert set(PLACES[1]) < set(PLACES[3]) < set(PLACES[5]) and len(PLACES[5]) == 5


def test_a_track_of_one_frame():
    model = awake(nvan(**tiny))
    assert model(clips_of(frames=1)).shape == (2, 128) and model(clips_of(frames=1)).isfinite().all()
