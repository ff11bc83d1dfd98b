"Loops that training runs over large maps, against torch's own operations, and where they step aside."

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from scalable_arch import create_model
from scalable_arch.han import crop_regions, sampled_regions
from scalable_arch.nn import batchnorm, regions
from scalable_arch.nn.batchnorm import NormReLU, can_loop, norm_relu
from scalable_arch.nn.inference import fold_batchnorm
from scalable_arch.nn.units import ConvUnit

LAST = torch.channels_last


@pytest.fixture
def small_maps(monkeypatch):
    "Loops also for maps of a test's size."
    monkeypatch.setattr(batchnorm, "WORTH", 1)
    torch.manual_seed(0)


def random_norm(channels, dtype=torch.float64):
    "A normalisation with scale and shift of its own."
    norm = nn.BatchNorm2d(channels).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def random_map(*shape, dtype=torch.float64, shift=5.0):
    return (3 * torch.randn(shape, dtype=dtype) + shift).to(memory_format=LAST).requires_grad_()


def relative(found, right):
    "Largest difference, against the largest number; where all are 0, as they are."
    return ((found - right).abs().max() / right.abs().max().clamp_min(1e-30)).item()


def both(norm, x, gradient):
    "(what the loops find, what torch finds): value, gradients of map, weight and bias, running statistics."
    for one, call in (
        (norm, lambda n: NormReLU.apply(x, n.weight, n.bias, n)),
        (copy.deepcopy(norm), lambda n: F.relu(n(x))),
    ):
        y = call(one)
        yield (
            y,
            *torch.autograd.grad(y, [x, one.weight, one.bias], gradient),
            one.running_mean,
            one.running_var,
        )


SHAPES = [(9, 2, 1, 1), (3, 96, 17, 13), (4, 513, 3, 5), (2, 600, 5, 5), (32, 32, 10, 4), (64, 384, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_norm_relu_is_torchs_in_double_precision(shape, threads, monkeypatch):
    monkeypatch.setattr(batchnorm, "SHARE", 64)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        x = random_map(*shape)
        for found, right in zip(*both(random_norm(shape[1]), x, torch.randn(shape, dtype=x.dtype))):
            assert found.shape == right.shape and relative(found, right) < 1e-12
    finally:
        torch.set_num_threads(usual)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(9, 12), st.integers(2, 70), st.integers(1, 12), st.integers(1, 12), st.floats(-50, 50), st.booleans()
)
def test_norm_relu_in_single_precision_is_as_near_to_the_truth(images, channels, height, width, shift, turned):
    "To 1e-6 of values, 1e-5 of gradients, or what torch itself reaches, whatever mean and layout of the gradient."
    torch.manual_seed(height * width)
    x = random_map(images, channels, height, width, dtype=torch.float32, shift=shift)
    norm, gradient = random_norm(channels, torch.float32), torch.randn(x.shape)
    gradient = gradient if turned else gradient.to(memory_format=LAST)
    wide = x.detach().double().requires_grad_()
    truth = list(both(copy.deepcopy(norm).double(), wide, gradient.double()))[1]
    ours, torchs = both(norm, x, gradient)
    for found, other, right, within in zip(ours, torchs, truth, [1e-6, 1e-5, 1e-5, 1e-5, 1e-6, 1e-6]):
        cut = (truth[0] == 0) != (found == 0) if found.shape == x.shape else torch.zeros(())  # as near to 0 as rounding
        if not cut.any():
            assert relative(found, right) < max(within * (1 + abs(shift) / 3), 4 * relative(other, right))


def test_statistics_are_nearer_to_the_truth_than_torchs():
    torch.manual_seed(0)
    x = random_map(32, 128, 20, 8, dtype=torch.float32, shift=50)
    truth = x.detach().double().mean((0, 2, 3)) * 0.1
    ours, torchs = (found[4] for found in both(nn.BatchNorm2d(128), x, torch.ones_like(x)))
    assert (ours - truth).abs().max() < (torchs - truth).abs().max()


def test_what_is_no_number_stays_so(small_maps):
    x = random_map(2, 4, 5, 5)
    with torch.no_grad():
        x[0, 1, 2, 3] = torch.nan
    y = norm_relu(random_norm(4), x)
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()
    assert torch.autograd.grad(y.sum(), x)[0][:, 1].isnan().all()


def test_norm_relu_counts_batches_and_marks_what_it_changed(small_maps):
    norm, x = random_norm(4), random_map(2, 4, 5, 5)
    before = norm.running_mean._version
    norm_relu(norm, x)
    assert norm.num_batches_tracked == 1 and norm.running_mean._version > before


def test_second_derivatives(small_maps):
    norm, x = random_norm(2), random_map(2, 2, 3, 3)
    assert torch.autograd.gradcheck(lambda x: NormReLU.apply(x, norm.weight, norm.bias, norm), x)
    assert torch.autograd.gradgradcheck(lambda x: NormReLU.apply(x, norm.weight, norm.bias, norm), x)


def frozen(norm):
    return norm.requires_grad_(False)


def listened(norm):
    norm.register_forward_hook(lambda *call: None)
    return norm


LEFT_TO_TORCH = {
    "evaluation": lambda: (random_norm(4).eval(), random_map(2, 4, 5, 5)),
    "another layout": lambda: (random_norm(4), torch.randn(2, 4, 5, 5, dtype=torch.float64)),
    "one channel": lambda: (random_norm(1), random_map(2, 1, 5, 5)),
    "one number a channel": lambda: (random_norm(4), random_map(1, 4, 1, 1)),
    "half precision": lambda: (random_norm(4, torch.bfloat16), random_map(2, 4, 5, 5, dtype=torch.bfloat16)),
    "two precisions": lambda: (random_norm(4, torch.float32), random_map(2, 4, 5, 5, dtype=torch.bfloat16)),
    "another device": lambda: (random_norm(4).to("meta"), random_map(2, 4, 5, 5).detach().to("meta")),
    "no scale": lambda: (nn.BatchNorm2d(4, affine=False).double(), random_map(2, 4, 5, 5)),
    "nothing tracked": lambda: (nn.BatchNorm2d(4, track_running_stats=False).double(), random_map(2, 4, 5, 5)),
    "means of all batches": lambda: (nn.BatchNorm2d(4, momentum=None).double(), random_map(2, 4, 5, 5)),
    "other channels": lambda: (random_norm(3), random_map(2, 4, 5, 5)),
    "another module": lambda: (nn.InstanceNorm2d(4).double(), random_map(2, 4, 5, 5)),
    "a hook": lambda: (listened(random_norm(4)), random_map(2, 4, 5, 5)),
}


@pytest.mark.parametrize("name", LEFT_TO_TORCH)
def test_what_is_left_to_torch(name, small_maps):
    assert can_loop(random_norm(4), random_map(2, 4, 5, 5)) and can_loop(frozen(random_norm(4)), random_map(2, 4, 5, 5))
    norm, x = LEFT_TO_TORCH[name]()
    assert not can_loop(norm, x)
    if name not in ("other channels", "one number a channel"):  # those get torch's sentence
        found, right = norm_relu(norm, x), F.relu(copy.deepcopy(norm)(x))
        assert found.is_meta if right.is_meta else torch.equal(found, right)
    else:
        with pytest.raises((ValueError, RuntimeError)):
            norm_relu(norm, x)


def test_small_maps_are_left_to_torch():
    assert not can_loop(random_norm(4), random_map(2, 4, 5, 5))


class Recorder(TorchDispatchMode):
    "Names of all operations that torch sees."

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_who_records_operations_sees_torchs_own(small_maps):
    unit, x = ConvUnit(3, 8, 3).to(memory_format=LAST), torch.randn(2, 3, 8, 6).to(memory_format=LAST)
    with Recorder() as recorder:
        unit(x)
    assert any("batch_norm" in name for name in recorder.names)
    traced = torch.jit.trace(unit, x, check_trace=False)
    assert "batch_norm" in str(traced.graph) or "batch_norm" in str(traced.inlined_graph)
    exported = torch.export.export(unit, (x,))
    assert "batch_norm" in str(exported.graph)
    graphs = []
    compiled = torch.compile(unit, backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    torch.compiler.reset()
    assert compiled(x).shape == (2, 8, 8, 6) and len(graphs) == 1


def test_who_transforms_functions_sees_torchs_own(small_maps):
    norm, x, seen = random_norm(4), random_map(2, 4, 5, 5).detach(), []

    def look(x):
        seen.append(can_loop(norm, x))
        return x.sum()

    torch.func.grad(look)(x)
    torch.func.vmap(look)(x[None])
    with torch.autograd.forward_ad.dual_level():
        look(torch.autograd.forward_ad.make_dual(x, x))
    assert seen == [False] * 3


def test_a_hook_on_the_relu_of_a_unit_is_called(small_maps):
    unit, calls = ConvUnit(3, 8), []
    unit[2].register_forward_hook(lambda *call: calls.append(call))
    unit(torch.randn(2, 3, 4, 4).to(memory_format=LAST))
    assert len(calls) == 1


def test_units_keep_their_names_fold_and_are_pickled(small_maps):
    unit = ConvUnit(3, 8, 3).to(memory_format=LAST)
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(unit.state_dict()) == ["0.weight", *(f"1.{name}" for name in names)]
    x = torch.randn(4, 3, 16, 8).to(memory_format=LAST)
    plain = copy.deepcopy(unit)
    ours, right = unit(x), plain[2](plain[1](plain[0](x)))
    torch.testing.assert_close(ours, right)
    again = pickle.loads(pickle.dumps(unit)).eval()
    torch.testing.assert_close(again(x), plain.eval()(x))
    with torch.no_grad():
        torch.testing.assert_close(fold_batchnorm(unit)(x), plain(x))


@pytest.mark.parametrize(
    "name", ["han_large", "resnet50_reid", "mobilenet_reid", "shufflenet_reid", "condensenet_reid"]
)
def test_a_network_learns_the_same_with_and_without_loops(name, monkeypatch):
    options = dict(widths=(8, 12, 16), stem_width=4) if name == "han_large" else dict(width=0.1)
    found = []
    for worth in (1, 10**12):
        monkeypatch.setattr(batchnorm, "WORTH", worth)
        torch.manual_seed(0)
        model = create_model(name, num_classes=3, feature_dim=8, **options).double().to(memory_format=LAST)
        x = torch.randn(4, 3, 64, 32, dtype=torch.float64).to(memory_format=LAST)
        sum(logits.square().sum() for logits in model(x).logits).backward()
        found.append([p.grad for p in model.parameters()] + [b.double() for b in model.buffers()])
    for ours, right in zip(*found):
        torch.testing.assert_close(ours, right, rtol=1e-7, atol=1e-9)


# Regions


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99)
)
def test_regions_by_rows_are_those_of_grid_sample(images, channels, height, width, number, seed):
    "Also larger than the map, beyond its rim, and far away."
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, channels, height, width, generator=generator, dtype=torch.float64).requires_grad_()
    centres = 1.5 * torch.randn(images, number, 2, generator=generator, dtype=torch.float64)
    centres[0, 0, 0] = (-1) ** seed * 10.0 ** (seed % 12)
    centres.requires_grad_()
    size = (seed % 5 + 1, seed % 7 + 1)
    found, right = (crop(x, centres, size) for crop in (crop_regions, sampled_regions))
    assert found.shape == right.shape and found.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)
    slope = torch.randn(right.shape, generator=generator, dtype=torch.float64)
    for ours, torchs in zip(*(torch.autograd.grad(y, [x, centres], slope) for y in (found, right))):
        torch.testing.assert_close(ours, torchs, rtol=1e-8, atol=1e-8)


def test_regions_in_threads_single_precision_and_no_place_at_all(monkeypatch):
    torch.manual_seed(0)
    x, centres = torch.randn(5, 8, 20, 9), torch.rand(5, 4, 2) - 0.5
    right = sampled_regions(x, centres, (6, 7))
    torch.testing.assert_close(crop_regions(x, centres, (6, 7)), right, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(batchnorm, "SHARE", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.testing.assert_close(crop_regions(x, centres, (6, 7)), right, rtol=1e-5, atol=1e-5)
    centres[:] = torch.nan
    assert not crop_regions(x, centres, (6, 7)).isinf().any()


def test_regions_have_second_derivatives():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    centres = torch.tensor([[[0.13, -0.21], [0.3, 0.4]]], dtype=torch.float64, requires_grad=True)
    crop = lambda x, centres: crop_regions(x, centres, (3, 2))
    assert torch.autograd.gradcheck(crop, (x, centres)) and torch.autograd.gradgradcheck(crop, (x, centres))
    assert torch.autograd.gradgradcheck(lambda x: crop(x, centres.detach()), x)


@pytest.mark.parametrize("maps", [torch.ones(1, 2, 6, 5).bfloat16(), torch.ones(1, 2, 6, 5, device="meta")])
def test_regions_that_are_left_to_torch(maps, monkeypatch):
    monkeypatch.setattr(regions.RegionLoops, "apply", None)  # calling it fails
    centres = torch.zeros(1, 2, 2, device=maps.device)
    assert crop_regions(maps, centres, (3, 2)).shape == (2, 2, 3, 2)
    with Recorder() as recorder:
        crop_regions(torch.ones(1, 2, 6, 5), torch.zeros(1, 2, 2), (3, 2))
    assert any("grid_sampler" in name for name in recorder.names)
