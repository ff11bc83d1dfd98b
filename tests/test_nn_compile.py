"""Models recorded and compiled: `torch.compile` at two image sizes and two batch sizes, `torch.jit.trace`, ONNX.

One model of each kind, as small as it gets: the others of `list_models` are of the same classes, with other widths,
depths and genotypes. HDL's detector gives lists of boxes and is not compiled as a whole.
"""

import os
import shutil

import pytest
import torch

from scalable_arch import create_model
from scalable_arch.nn import efficient
from scalable_arch.nn.inference import fold_batchnorm

MODELS = {
    "han_small": dict(widths=(8,), strides=(2,), stem_width=4, feature_dim=8),
    "han_residual": dict(widths=(8,), strides=(2,), stem_width=4, feature_dim=8),
    "han_inception": dict(widths=(8,), strides=(2,), stem_width=4, feature_dim=8),
    "resnet50": dict(width=0.1, depths=(1, 1, 1, 1)),
    "mobilenet_reid": dict(width=0.05),
    "shufflenet": dict(width=0.1),
    "condensenet": dict(width=0.1),
    "resnet18_cifar": dict(width=4, depths=(1, 1)),
    "pyramidnet110_cifar": dict(depth=11, width=4, alpha=8),
    "darts_v2_cifar": dict(channels=4, cells=3),
    "darts_v1_imagenet": dict(channels=4, cells=3),
    "nasnet_cifar": dict(channels=4, cells=3),
}
SHAPES = [(4, 3, 160, 64), (3, 3, 160, 64), (3, 3, 128, 64)]


@pytest.fixture
def few_layers(monkeypatch):
    monkeypatch.setattr(efficient, "CONDENSE_STAGES", [(2, 8), (1, 16)])
    torch.manual_seed(0)


def check(recorded, model, shapes=SHAPES, tolerance=1e-5):
    for shape in shapes:
        images = torch.rand(shape)
        assert torch.allclose(recorded(images), model(images), atol=tolerance), shape


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"han_residual", "han_inception"}))
def test_every_kind_of_model_compiles_at_other_sizes(name, few_layers):
    "The graph that torch.compile makes, run as it is: what the compiler behind it makes of it is tested for HAN below."
    model = create_model(name, num_classes=3, **MODELS[name]).eval()
    torch.compiler.reset()
    with torch.no_grad():
        check(torch.compile(model, backend="eager", dynamic=True), model)


def test_regions_of_a_compiled_han_have_sizes_that_are_numbers():
    "Rounded products of symbols are more than the compiler behind the graph can order: it stopped at a second size."
    sizes = []

    def look(graph, _):
        sizes.extend(n.meta["example_value"].shape[2:] for n in graph.graph.nodes if "grid_sample" in str(n.target))
        return graph.forward

    model = create_model("han_small", num_classes=3, **MODELS["han_small"]).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, backend=look, dynamic=True)
    for shape in SHAPES:
        compiled(torch.rand(shape))
    assert all(type(side) is int for size in sizes for side in size)
    assert set(map(tuple, sizes)) == {(4 * 24, 28), (4 * 19, 28)}


@pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "explore", reason="a minute of C++: make test-all")
@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no compiler of C++")
def test_a_han_is_compiled_to_machine_code_at_other_sizes():
    torch.manual_seed(0)
    model = create_model("han_small", num_classes=3, **MODELS["han_small"]).eval()
    torch.compiler.reset()
    compiled, first = torch.compile(model), torch.rand(SHAPES[0])
    torch._dynamo.mark_dynamic(first, 0)
    assert torch.allclose(compiled(first), model(first), atol=1e-5)
    check(compiled, model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_folded_networks_are_traced(name, gradients, few_layers):
    model = create_model(name, num_classes=3, **MODELS[name]).eval()
    folded = fold_batchnorm(model)
    with torch.set_grad_enabled(gradients):
        check(torch.jit.trace(folded, (torch.rand(SHAPES[0]),)), model, SHAPES[:2])


@pytest.mark.filterwarnings("ignore")
def test_folded_networks_become_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = create_model("han_small", num_classes=3, **MODELS["han_small"]).eval()
    images = torch.rand(SHAPES[0])
    with torch.no_grad():
        torch.onnx.export(fold_batchnorm(model), (images,), tmp_path / "han.onnx", dynamo=False, opset_version=17)
        session = onnxruntime.InferenceSession(tmp_path / "han.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert abs(found - model(images).numpy()).max() < 1e-4
