"""MobileNet, ShuffleNet, CondenseNet: printed costs, slow references, and their use for matching."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch import create_model
from scalable_arch.nn.cost import measure
from scalable_arch.nn.efficient import CondensedConv, ShuffleUnit, channel_shuffle, scaled, shufflenet
from scalable_arch.train import extract_features, fit

NAMES = ("mobilenet", "shufflenet", "condensenet", "resnet50")


@pytest.mark.parametrize(
    "name, macs, params", [("mobilenet", 568_740_352, 4_231_976), ("resnet50", 4_089_184_256, 25_557_032)]
)
def test_costs_of_the_literature(name, macs, params):
    cost = measure(create_model(name), (3, 224, 224))
    assert (cost.macs, cost.params) == (macs, params)


@pytest.mark.parametrize("groups, millions", [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_shufflenet_costs_of_its_paper(groups, millions):
    "Table 2 of Zhang et al. 2018 prints 143, 140, 137, 133, 137."
    assert measure(shufflenet(groups=groups), (3, 224, 224)).macs / 1e6 == pytest.approx(millions, abs=1.5)


def test_condensenet_cost_and_parameters_of_its_paper():
    "Huang et al. 2018 print 274 M and 2.9 M; their count has the elements of ReLU and pooling in it."
    model = create_model("condensenet")
    cost = measure(model, (3, 224, 224))
    assert cost.params / 1e6 == pytest.approx(2.9, abs=0.05)
    elements = 0

    def count(module, inputs, output):
        nonlocal elements
        elements += (
            inputs[0].numel() if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.AvgPool2d)) else 0
        )  # a ReLU behind each BN

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224))
    elements += 2064 * 7 * 7  # the last pooling
    assert (cost.macs + elements) / 1e6 == pytest.approx(274, rel=0.002)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_shuffle_against_a_loop(groups, each, size):
    x = torch.rand(2, groups * each, size, size)
    expected = torch.stack([x[:, j * each + i] for i in range(each) for j in range(groups)], 1)
    assert torch.equal(channel_shuffle(x, groups), expected)
    assert torch.equal(channel_shuffle(channel_shuffle(x, groups), each), x)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2, 4]), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_condensed_convolution_against_a_masked_dense_one(groups, inputs, outputs, seed):
    torch.manual_seed(seed)
    layer = CondensedConv(groups * inputs, groups * outputs, groups).eval()
    x = torch.randn(2, groups * inputs, 3, 2)
    dense = torch.zeros(groups * outputs, groups * inputs)
    for row in range(groups * outputs):
        group = row // outputs
        for column in range(inputs):
            dense[row, layer.index[group * inputs + column]] += layer.conv.weight[row, column, 0, 0].detach()
    expected = torch.einsum("oc,bchw->bohw", dense, torch.relu(layer.norm(x)))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_unit_of_stride_two_stacks_the_pooled_input():
    unit = ShuffleUnit(6, 24, stride=2).eval()
    x = torch.rand(1, 6, 8, 4)
    assert torch.equal(unit(x)[:, :6], torch.nn.functional.avg_pool2d(x, 3, 2, 1)) and unit(x).shape == (1, 24, 4, 2)


@given(st.integers(1, 2000), st.floats(0.01, 2), st.integers(1, 12))
def test_scaled_channels_are_multiples_and_near(channels, width, divisor):
    found = scaled(channels, width, divisor)
    assert (
        found % divisor == 0
        and found >= divisor
        and abs(found - channels * width) <= max(divisor / 2 + 1e-6, divisor - channels * width)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.0625, 0.25])
def test_matching_network_learns_saves_and_describes(name, width, tmp_path):
    torch.manual_seed(0)
    model = create_model(f"{name}_reid", num_classes=4, feature_dim=16, width=width)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 64, 32), dtype=np.uint8))
    before = {key: value.clone() for key, value in model.named_parameters()}
    fit(model, images, torch.arange(8) % 4, epochs=1, batch_size=8, milestones=(), lr=0.1)
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert not still, f"no gradient reached {still}"
    features = extract_features(model, images)
    assert features.shape == (8, 16) and torch.allclose(features.norm(dim=1), torch.ones(8), atol=1e-5)
    again = create_model(f"{name}_reid", num_classes=4, feature_dim=16, width=width)
    again.load_state_dict(model.state_dict())
    assert torch.allclose(extract_features(again, images), features, atol=1e-6)
    assert create_model(f"{name}_reid", width=width).eval()(torch.rand(1, 3, 80, 32)).shape[0] == 1


@pytest.mark.parametrize(
    "options, words", [({"num_classes": 0}, "num_classes"), ({"groups": 5}, "groups must be one of")]
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        create_model("shufflenet", **options)
    with pytest.raises(ValueError, match="feature_dim"):
        create_model("mobilenet_reid", feature_dim=0)
