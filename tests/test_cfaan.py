"CF-AAN: printed costs and parameters, naive loops, offsets, scales, any size, and what is refused."

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scalable_arch import create_model, load, save
from scalable_arch.cfaan import AxialAttention, AxisAttention, CoarseToFineAxial, cfaan, relative_offsets, sinusoids
from scalable_arch.nn.clips import resnet50_clips
from scalable_arch.nn.cost import measure_operations
from scalable_arch.study.printed import printed_value

tiny = {"width": 0.125, "size": (64, 32), "frames": 3, "scales": 2, "heads": 2}
MAPS = [(512, 32, 16)] * 2 + [(1024, 16, 8)] * 3  # channels, height, width at the five places, 256x128


def clips_of(batch=2, frames=3, size=(64, 32), seed=0):
    return torch.randn(batch, frames, 3, *size, generator=torch.Generator().manual_seed(seed))


def awake(model, seed=0):
    "The model with statistics and weights in all normalisations."
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


# ---- costs


def as_printed(scales=1, adds=0, position=0.0, frames=6):
    "Closed form of the printed additions: 1.5 C a pair, a term of position, one more operation a head and pair."
    total = 0
    for channels, height, width in MAPS:
        for scale in range(scales):
            h, w = height >> scale, width >> scale
            total += ((1.5 + position) * channels / scales + adds) * frames * h * w * (h + w + frames)
    return total / 1e9


@pytest.mark.parametrize(
    "options, products, everything, printed, ours",
    [  # FACTS section 5: what einsum really does, all with projections, the printed value, and its closed form
        ({"scales": 1, "heads": 1, "positions": None}, 0.36097, None, 0.361, as_printed()),
        ({"scales": 1, "heads": 8, "positions": None}, 0.36097, None, 0.361, as_printed()),
        ({"scales": 1, "heads": 8}, 0.84227, 29.03, 0.424, as_printed(1, 8, 0.25)),
        ({"scales": 2, "heads": 4}, 0.48100, 12.06, 0.245, as_printed(2, 8, 0.25)),
        ({"scales": 4, "heads": 2}, 0.24595, 6.28, 0.126, as_printed(4, 8, 0.25)),
    ],
)
def test_costs_are_those_of_the_closed_forms(options, products, everything, printed, ours):
    with torch.device("meta"):
        found = measure_operations(cfaan(**options), (6, 3, 256, 128))
    base = 6 * 4_053_270_528
    assert found["products"] / 1e9 == pytest.approx(products, rel=1e-3)
    assert everything is None or (sum(found.values()) - base) / 1e9 == pytest.approx(everything, rel=1e-3)
    assert ours == pytest.approx(printed, rel=6e-3)


def test_recomputed_additions():
    assert [as_printed(scales, 8, 0.25) for scales in (1, 2, 4)] == pytest.approx([0.42434, 0.24416, 0.12672], rel=1e-3)
    non_local = sum(1.5 * channels * (6 * height * width) ** 2 for channels, height, width in MAPS)
    waves = sum(3 * channels * 6 * height * width for channels, height, width in MAPS)
    assert (non_local / 1e9, as_printed() + waves / 1e9) == pytest.approx((17.2134, 0.37749), rel=1e-3)
    row = ("Non-local", "DL=yes; 3D self-attention; heads=1; PE=none; scales=1")
    printed = printed_value("liu_thesis_t2_08", row=row[0], group=row[1], metric="FLOPs_delta")
    assert non_local == pytest.approx(printed, rel=1e-4)


@pytest.mark.parametrize("scales, heads, millions", [(1, 8, 25.868), (2, 4, 14.898), (4, 2, 9.434)])
def test_parameters_of_the_modules(scales, heads, millions):
    count = lambda model: sum(x.numel() for x in model.parameters())
    with torch.device("meta"):
        found = count(cfaan(scales=scales, heads=heads)) - count(resnet50_clips())
    assert round(found / 1e6, 3) == millions


# ---- what the layers compute


def slow_axis(layer, x):
    "Eq. 2.5 for one sequence (L, C), sum by sum; without normalisations."
    length, head, half = len(x), layer.head, layer.head // 2
    if layer.positions == "sinusoidal":
        x = x + sinusoids(length, x.shape[1], x)
    blocks, output = layer.project(x).unflatten(1, (layer.heads, -1)), []
    zero = torch.zeros(2 * head, dtype=x.dtype)
    for m in range(layer.heads):
        q, k, v = blocks[:, m].split([half, half, head], 1)
        for o in range(length):
            offset = lambda p: max(min(p - o, layer.known - 1), 1 - layer.known) + layer.known - 1
            table = [layer.table[offset(p)] if layer.positions == "relative" else zero for p in range(length)]
            r = [row.split([half, half, head]) for row in table]
            weights = torch.stack([(q[o] @ k[p] + q[o] @ r[p][0] + k[p] @ r[p][1]).exp() for p in range(length)])
            output.append(sum(weights[p] * (v[p] + r[p][2]) for p in range(length)) / weights.sum())
    return torch.stack(output).view(layer.heads, length, head).transpose(0, 1).flatten(1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([1, 2]),
    st.sampled_from(["relative", "sinusoidal", None]),
    st.integers(0, 9),
)
def test_an_axis_is_the_sums_of_the_equation(length, known, heads, positions, seed):
    "Shorter and longer than the axis for which offsets are learned, too."
    torch.manual_seed(seed)
    layer = AxisAttention(8, heads, known, positions=positions, norm=False).double()
    x = torch.randn(2, length, 8, dtype=torch.double)
    with torch.no_grad():
        for one, sequence in zip(layer(x), x):
            assert torch.allclose(one, slow_axis(layer, sequence), atol=1e-10)


def test_normalisations_stand_where_the_release_has_them():
    layer = AxisAttention(8, 2, 5)
    sizes = [x.num_features for x in (layer.norm_project, layer.norm_logits, layer.norm_output)]
    assert sizes == [16, 6, 16]
    layer = AxisAttention(8, 2, 5, positions=None)
    sizes = [x.num_features for x in (layer.norm_project, layer.norm_logits, layer.norm_output)]
    assert sizes == [16, 2, 8]


def test_three_axes_one_after_the_other():
    torch.manual_seed(0)
    layer, maps = AxialAttention(8, 2, (4, 3, 2), norm=False).double(), torch.randn(2, 2, 8, 4, 3, dtype=torch.double)
    x = maps.permute(0, 1, 3, 4, 2).clone()
    for axis, at in (("height", 2), ("width", 3), ("time", 1)):
        moved = x.movedim(at, -2)
        lines = [slow_axis(layer.axes[axis], line) for line in moved.reshape(-1, *moved.shape[-2:])]
        x = torch.stack(lines).view(moved.shape).movedim(-2, at)
    with torch.no_grad():
        assert torch.allclose(layer(maps), x.permute(0, 1, 4, 2, 3), atol=1e-9)


def test_everything_reaches_everything():
    torch.manual_seed(0)
    layer, maps = AxialAttention(8, 2, (3, 2, 2), norm=False).double(), torch.randn(1, 2, 8, 3, 2, dtype=torch.double)
    other = maps.clone()
    other[0, 1, :, 2, 1] += 1
    assert ((layer(maps) - layer(other)).abs().amax(2) > 1e-9).all()


def test_scales_see_halved_maps():
    torch.manual_seed(0)
    layer = CoarseToFineAxial(16, (4, 4, 2), scales=2, norm=False).double()
    maps = torch.randn(1, 2, 16, 4, 4, dtype=torch.double)
    small = maps[:, :, 8:].unflatten(4, (2, 2)).unflatten(3, (2, 2)).amax((4, 6))
    expected = layer.attention[1](small).repeat_interleave(2, 3).repeat_interleave(2, 4)
    with torch.no_grad():
        assert torch.allclose(layer.scale(maps[:, :, 8:], 1), expected, atol=1e-12)
        assert torch.equal(layer.scale(maps[:, :, :8], 0), layer.attention[0](maps[:, :, :8]))


@given(st.integers(1, 12), st.integers(1, 12))
def test_offsets_beyond_the_table_are_its_ends(length, known):
    found = relative_offsets(length, known)
    assert found.shape == (length, length) and found.min() >= 0 and found.max() <= 2 * known - 2
    assert (found.diagonal() == known - 1).all()
    if length <= known:
        assert len(found.unique()) == 2 * length - 1


# ---- use


@pytest.mark.parametrize("positions", ["relative", "sinusoidal", None])
@pytest.mark.parametrize("training", [True, False])
def test_before_training_it_is_the_baseline_to_the_bit(positions, training):
    torch.manual_seed(0)
    model = cfaan(5, positions=positions, **tiny)
    base = resnet50_clips(5, width=0.125)
    base.load_state_dict({key: x for key, x in model.state_dict().items() if not key.startswith("between")})
    for one in (model, base):
        one.to(memory_format=torch.channels_last).train(training)
    found, expected = model(clips_of()), base(clips_of())
    assert torch.equal(*((x.logits[0] if training else x) for x in (found, expected)))


@pytest.mark.parametrize("frames, size", [(1, (64, 32)), (5, (64, 32)), (3, (96, 48)), (2, (50, 30))])
def test_any_number_of_frames_and_any_size(frames, size):
    model = awake(cfaan(**tiny))
    with torch.no_grad():
        found = model(clips_of(2, frames, size))
    assert found.shape == (2, 256) and found.isfinite().all()


def test_masks_weigh_the_pooling():
    model, clips = awake(cfaan(**tiny)), clips_of()
    masks = torch.zeros(2, 3, 16, 8)
    masks[0, :, :, :4] = 1
    with torch.no_grad():
        plain, masked = model(clips), model(clips, masks)
    assert masked.isfinite().all() and torch.allclose(masked[1], plain[1], atol=1e-5), "an empty mask says nothing"
    assert not torch.allclose(masked[0], plain[0], atol=1e-3)


def test_by_name_saved_and_loaded(tmp_path):
    model = awake(create_model("cfaan", num_classes=4, **tiny))
    save(tmp_path / "mine.safetensors", model)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "mine.safetensors").eval()(clips_of()), model(clips_of()))


def test_exported_with_any_number_of_clips_and_frames():
    layer = awake(CoarseToFineAxial(16, (8, 4, 4), scales=2))
    shapes = ({0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("frames", min=2, max=64)},)
    program = torch.export.export(layer, (torch.randn(3, 4, 16, 8, 4),), dynamic_shapes=shapes)
    for batch, frames in ((2, 4), (5, 7)):
        maps = torch.randn(batch, frames, 16, 8, 4)
        with torch.no_grad():
            assert torch.allclose(program.module()(maps), layer(maps), atol=1e-5)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"scales": 3}, "3 scales of 2 heads do not divide 64 channels"),
        ({"scales": 0}, "scales must be a whole number of at least 1"),
        ({"heads": 0}, "heads must be a whole number of at least 1"),
        ({"positions": "learned"}, "unknown positions 'learned'"),
        ({"frames": 0}, "frames must be a whole number of at least 1"),
    ],
)
def test_wrong_options_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        cfaan(**tiny | options)
