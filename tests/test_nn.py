"Units, cost and ResNet against independent references."

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from scalable_arch import create_model, list_models
from scalable_arch.nn.cost import measure
from scalable_arch.nn.inference import fold_batchnorm
from scalable_arch.nn.units import ConvUnit

PRODUCTS = ("conv", "linear", "matmul", "addmm", "bmm", "einsum")


class Mixer(nn.Module):
    "Matrix products written in a forward, which a hook on layers would miss."

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 16)

    def forward(self, x):
        x = self.embed(x)
        return x @ torch.softmax(x.transpose(1, 2) @ x, -1)


NETWORKS = {
    "han_small": (lambda: create_model("han_small"), (3, 160, 64)),
    "han_inception": (lambda: create_model("han_inception", num_classes=751), (3, 160, 64)),
    "resnet50": (lambda: create_model("resnet50"), (3, 160, 64)),
    "transposed and grouped": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 4, 2, stride=2)),
        (4, 9, 9),
    ),
    "products": (Mixer, (5, 12)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_cost_agrees_with_fvcore(name):
    make, size = NETWORKS[name]
    model = make().eval()
    counts = (
        FlopCountAnalysis(model, torch.randn(1, *size))
        .unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .by_operator()
    )
    assert measure(model, size).macs == sum(counts[kind] for kind in PRODUCTS)


def test_shared_parameters_count_once_and_the_model_is_left_alone():
    layer = nn.Linear(8, 8)
    model = nn.Sequential(layer, nn.BatchNorm1d(8), layer).train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert measure(model, (8,)) == (2 * 64, 72 + 16)
    assert model.training and not model[1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("size", [3, (3, 0, 5), "3x4"])
def test_wrong_input_size(size):
    with pytest.raises((ValueError, TypeError), match="input_size"):
        measure(nn.Linear(3, 3), size)


@pytest.mark.parametrize("relu", [True, False])
def test_folding_keeps_the_outputs(relu):
    torch.manual_seed(0)
    net = nn.Sequential(ConvUnit(3, 8, 3, stride=2), ConvUnit(8, 8, 3, groups=8, relu=relu), ConvUnit(8, 5))
    for _ in range(3):
        net(torch.randn(8, 3, 20, 12) * 2 + 1)
    images = torch.randn(4, 3, 20, 12)
    with torch.no_grad():
        expected = net.eval()(images)
        folded = fold_batchnorm(net)
        assert torch.allclose(folded(images), expected, atol=1e-5)
        assert torch.allclose(folded.bfloat16()(images.bfloat16()).float(), expected, atol=0.1)
    assert torch.allclose(fold_batchnorm(net)(images), expected, atol=1e-5)  # where gradients are on, the plain path
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()), "the original keeps its BN"


def test_resnet_is_the_standard_one():
    model = create_model("resnet50")
    cost = measure(model, (3, 224, 224))
    assert cost.params == 25_557_032 and cost.macs == 4_089_184_256
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "layer4.2.bn3.running_var", "fc.bias"} <= set(
        model.state_dict()
    )
    images = torch.randn(2, 3, 64, 64)
    features = create_model("resnet50", num_classes=None).eval()(images)
    assert features.shape == (2, 2048)


def test_models_by_name():
    assert "han_large" in list_models()
    with pytest.raises(ValueError, match="unknown model 'han_big'.*choose one of: .*han_inception"):
        create_model("han_big")
    for name in ("han_small", "resnet50"):
        with pytest.raises(ValueError, match="num_classes must be at least 1"):
            create_model(name, num_classes=0)
