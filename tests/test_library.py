"The library as an engineer meets it: quick to import, annotated, its examples true, its models kept in a file."

import doctest
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import scalable_arch
from scalable_arch import create_model, list_models, load, save
from scalable_arch.nn.inference import fold_batchnorm
from scalable_arch.train import save_model

TINY = {"widths": (16, 32, 48)}


def test_import_brings_nothing_that_was_not_asked_for():
    heavy = "matplotlib sklearn umap numba pandas seaborn scipy torch"
    asked = (
        "import sys, scalable_arch; scalable_arch.list_models(); "
        f"print(*sorted(set(sys.modules) & set('{heavy}'.split())))"
    )
    assert (
        subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.strip() == ""
    )
    made = asked.replace("list_models()", "create_model('han_small', num_classes=None)")
    assert subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True).stdout.split() == [
        "torch"
    ]


def test_examples_in_docstrings_are_true():
    tried = 0
    for found in pkgutil.walk_packages(scalable_arch.__path__, "scalable_arch."):
        source = Path(found.module_finder.path, found.name.rpartition(".")[2] + ".py")
        if source.is_file() and ">>> " in source.read_text(encoding="utf-8"):
            result = doctest.testmod(importlib.import_module(found.name))
            assert result.failed == 0, found.name
            tried += result.attempted
    assert tried >= 6


TYPED = sorted(Path(__file__).parent.glob("typed/*.py"))  # what users would write; mistakes in them are marked


def public_functions(package):
    """(name, function) of what a package exports: functions, and the methods of its classes that are written in the
    library."""
    for name in package.__all__:
        thing = getattr(package, name)
        if isinstance(thing, types.FunctionType):
            yield name, thing
        for key, method in vars(thing).items() if isinstance(thing, type) else ():
            function = getattr(method, "fget", None) or getattr(method, "__func__", method)
            if (
                isinstance(function, types.FunctionType)
                and function.__code__.co_filename == sys.modules[thing.__module__].__file__
                and (not key.startswith("_") or key == "__init__")
            ):
                yield f"{name}.{key}", function


@pytest.mark.parametrize("room", ["", ".data", ".metrics", ".nas", ".train"])
def test_public_surface_is_annotated(room):
    package = importlib.import_module("scalable_arch" + room)
    assert (Path(scalable_arch.__file__).parent / "py.typed").is_file()
    found, bare = 0, []
    for name, function in public_functions(package):
        arguments = [*inspect.signature(function).parameters]
        wanted = {*(arguments[1:] if "." in name and arguments[:1] in (["self"], ["cls"]) else arguments), "return"}
        bare += (
            [f"{name}({', '.join(missing)})"] if (missing := sorted(wanted - function.__annotations__.keys())) else []
        )
        found += 1
    assert found >= 4 and bare == []


@pytest.mark.parametrize("script", TYPED, ids=[path.stem for path in TYPED])
def test_users_scripts_pass_a_type_checker(script, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "mypy"
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={cache}", str(script)]
    places = os.environ | {"MYPYPATH": str(Path(scalable_arch.__file__).parents[1])}
    checked = subprocess.run(command, capture_output=True, text=True, env=places, cwd=tmp_path_factory.getbasetemp())
    assert checked.returncode == 0, checked.stdout
    assert script.read_text(encoding="utf-8").count("type: ignore[") >= 2, (
        "a script has mistakes that the checker must see"
    )


@pytest.mark.parametrize(
    "name, options",
    [
        ("han_small", TINY | {"num_classes": 3}),
        ("han_large", TINY | {"num_classes": None, "factored": True}),
        ("mobilenet_reid", {"num_classes": 4}),
        ("resnet18_cifar", {"num_classes": 7}),
    ],
)
def test_saved_model_comes_back_whole(tmp_path, name, options):
    model = create_model(name, **options)
    for buffer in model.buffers():
        buffer += 1  # running statistics are kept too
    torch.manual_seed(5)
    save(tmp_path / "model.safetensors", model)
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(torch.rand(1), torch.manual_seed(5) and torch.rand(1))  # nobody's random numbers were touched
    assert type(again) is type(model) and again.training and again.made_by == json.loads(json.dumps(model.made_by))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(x, again.state_dict()[key]) for key, x in model.state_dict().items())


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            {"num_classes": "10"},
            "num_classes must be at least 1 and whole, or None for a model without classifiers, not '10'",
        ),
        ({"num_classes": 2.5}, "not 2.5"),
        ({"num_classes": 0}, "not 0"),
        ({"num_classes": True}, "not True"),
        ({"num_clases": 5}, "han_small cannot be made with num_clases=5: .*unexpected keyword argument 'num_clases'"),
        ({"widths": 16}, "han_small cannot be made with widths=16: "),
        ({"widths": (16, 32.5, 48)}, "cannot be made with widths=\\(16, 32.5, 48\\): "),
    ],
)
def test_options_that_do_not_fit_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_model("han_small", **options)


@pytest.mark.parametrize("name", ["han_small", "resnet18_cifar"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_comes_back_in_its_precision(tmp_path, name, dtype):
    model = create_model(name, num_classes=3, **(TINY if name == "han_small" else {"width": 4})).to(dtype)
    save(tmp_path / "model.safetensors", model)
    again = load(tmp_path / "model.safetensors")
    for key, x in model.state_dict().items():
        assert again.state_dict()[key].dtype == x.dtype and torch.equal(again.state_dict()[key], x), key
    assert all(p.requires_grad and p.dtype == dtype for p in again.parameters())
    images = torch.rand(2, 3, 64, 32, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), model.eval()(images), rtol=0, atol=0, equal_nan=True)


def test_a_model_of_two_precisions_keeps_both(tmp_path):
    model = create_model("resnet18_cifar", num_classes=3, width=4).bfloat16()
    model.fc.float()
    save(tmp_path / "model.safetensors", model)
    again = load(tmp_path / "model.safetensors")
    assert (again.fc.weight.dtype, again.stem[0].weight.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("whole", [np.int64, np.uint8, np.int32])
def test_numbers_of_numpy_make_a_model_that_can_be_kept(tmp_path, whole):
    widths = tuple(whole(width) for width in TINY["widths"])
    model = create_model("han_small", num_classes=whole(10), widths=widths, spatial=np.bool_(False))
    assert model.made_by["options"] == {"num_classes": 10, "widths": TINY["widths"], "spatial": False}
    save(tmp_path / "model.safetensors", model)
    assert load(tmp_path / "model.safetensors").classifiers[0].out_features == 10
    for wrong in (np.float64(10), np.bool_(True), np.array(10), whole(0)):
        with pytest.raises(ValueError, match="num_classes must be at least 1 and whole"):
            create_model("han_small", num_classes=wrong)


def test_save_and_load_say_what_is_wrong(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="make it with create_model"):
        save(path, torch.nn.Linear(2, 2))
    model = create_model("han_small", num_classes=None, **TINY)
    with pytest.raises(ValueError, match="other layers than create_model gave it"):
        save(path, fold_batchnorm(model.eval()))
    model.made_by = {"name": "han_small", "options": {"widths": torch.ones(3)}}
    with pytest.raises(ValueError, match="not plain enough"):
        save(path, model)
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(path)
    with pytest.raises(FileNotFoundError, match="is a folder: name the file in it"):
        load(tmp_path)
    with pytest.raises(ValueError, match="save takes the path first, then the model: what came second is of type str"):
        save(model, "mine.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="weights.pt is no file that save wrote, or it is damaged$"):
        load(tmp_path / "weights.pt")
    save_model(path, model)
    with pytest.raises(ValueError, match="without the name of their model"):
        load(path)
    save_model(path, model, made_by={"name": "han_smal", "options": {}})
    with pytest.raises(ValueError, match="did you mean 'han_small'"):
        load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        load(path)


def test_every_model_remembers_how_it_was_made():
    assert {"create_model", "list_models", "load", "save"} <= set(scalable_arch.__all__)
    for name in list_models()[:3]:
        assert create_model(name, num_classes=None).made_by == {"name": name, "options": {"num_classes": None}}
