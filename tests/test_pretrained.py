"Weights that ship: their format, their options, what is refused, and what each model costs."

import json
import struct

import numpy as np
import pytest
import torch

from scalable_arch import create_model, load, models, save, versions
from scalable_arch.models import list_models, load_card, model_card, save_pretrained
from scalable_arch.nn.cost import measure

OPTIONS = {"num_classes": None, "widths": (16, 24, 32), "stem_width": 8, "feature_dim": 32}
CARD = {
    "trained_on": "12 simulated people",
    "people": "nobody's",
    "chosen": "epoch 1",
    "scores": [],
    "size": [160, 64],
    "cost": {"parameters": 1, "multiply-adds": 2},
    "recipe": {},
    "command": "scalable-arch weights han_small",
    "versions": {"world.mixed": 1},
}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    "A folder of weights with tiny ones of han_small, in the place of those that ship; returns the network."
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(models, "weights_dir", lambda: folder)
    torch.manual_seed(3)
    model = create_model("han_small", **OPTIONS)
    with torch.no_grad():
        for name, x in model.named_buffers():
            if name.endswith("running_var"):
                x.uniform_(0.5, 2)
    save_pretrained(folder / "han_small.safetensors", model, CARD)
    return model


images = torch.randn(3, 3, 160, 64, generator=torch.Generator().manual_seed(0))


def features(model):
    with torch.inference_mode():
        return model.eval()(images)


def test_weights_bring_their_options_and_give_the_same_features(shipped):
    model = create_model("han_small", pretrained=True)
    assert model.made_by["options"]["widths"] == [16, 24, 32]
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    assert (features(model) - features(shipped)).abs().max() < 2e-3
    assert not torch.equal(features(create_model("han_small", **OPTIONS)), features(model))


def test_matrices_are_in_half_precision_and_batch_norms_are_not(shipped):
    path = models.weights_dir() / "han_small.safetensors"
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    kinds = {name: entry["dtype"] for name, entry in head.items() if name != "__metadata__"}
    assert {kinds[name] for name in kinds if len(head[name]["shape"]) > 1} == {"F16"}
    assert {kinds[name] for name in kinds if len(head[name]["shape"]) == 1} == {"F32"}


def test_new_classifiers_on_trained_weights(shipped):
    model = create_model("han_small", pretrained=True, num_classes=7)
    assert torch.equal(features(model), features(create_model("han_small", pretrained=True)))
    assert model.train()(images).logits[0].shape == (3, 7)


def test_it_can_be_saved_and_loaded_as_any_model(shipped, tmp_path):
    model = create_model("han_small", pretrained=True)
    save(tmp_path / "mine.safetensors", model)
    assert torch.equal(features(load(tmp_path / "mine.safetensors")), features(model))
    assert torch.equal(features(load(models.weights_dir() / "han_small.safetensors")), features(model))


@pytest.mark.parametrize(
    "options, told",
    [
        ({"widths": (16, 32, 48)}, r"have widths=\[16, 24, 32\], not widths=\(16, 32, 48\): leave widths out"),
        ({"feature_dim": 1024}, "have feature_dim=32, not feature_dim=1024"),
        ({"interaction": False}, "have the usual interaction, not interaction=False"),
    ],
)
def test_other_options_are_refused_in_one_sentence(shipped, options, told):
    with pytest.raises(ValueError, match=told):
        create_model("han_small", pretrained=True, **options)


def test_the_same_options_are_welcome(shipped):
    create_model("han_small", pretrained=True, widths=(16, 24, 32), feature_dim=np.int64(32))


def test_a_model_without_weights_says_which_have_them(shipped):
    with pytest.raises(ValueError, match="there are no weights for han_large; models with weights: han_small"):
        create_model("han_large", pretrained=True)
    with pytest.raises(ValueError, match="did you mean 'han_small'"):
        model_card("han_smal")
    (models.weights_dir() / "han_small.safetensors").unlink()
    with pytest.raises(ValueError, match="models with weights: none so far"):
        create_model("han_small", pretrained=True)


def test_the_card_comes_from_the_file(shipped, tmp_path):
    card = model_card("han_small")
    assert card["model"] == "han_small" and card["trained_on"] == "12 simulated people"
    assert card["versions"] == {"model.han": versions.VERSIONS["model.han"], "world.mixed": 1}
    assert load_card(models.weights_dir() / "han_small.safetensors") == card
    save(tmp_path / "mine.safetensors", create_model("han_small", **OPTIONS))
    with pytest.raises(ValueError, match="has no card"):
        load_card(tmp_path / "mine.safetensors")


def test_weights_of_another_version_are_refused(shipped, tmp_path, monkeypatch):
    save(tmp_path / "mine.safetensors", create_model("han_small", **OPTIONS))
    monkeypatch.setitem(versions.VERSIONS, "world.mixed", 99)  # makes other weights, but these still mean the same
    create_model("han_small", pretrained=True)
    monkeypatch.setitem(versions.VERSIONS, "model.han", 99)
    with pytest.raises(ValueError, match=r"for another version of han_small: model.han 99 \(made with \d+\)"):
        create_model("han_small", pretrained=True)
    with pytest.raises(ValueError, match="for another version of han_small"):
        load(tmp_path / "mine.safetensors")


def test_a_damaged_file_is_told(shipped):
    path = models.weights_dir() / "han_small.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged or cut short"):
        create_model("han_small", pretrained=True)


@pytest.mark.parametrize("name", list_models())
def test_costs_are_what_is_counted(name):
    with torch.device("meta"):
        cost = measure(create_model(name, num_classes=None), models.input_shape(name))
    assert models.COSTS[name] == (cost.params, cost.macs) and models.MODELS[name] in models.CHAPTERS


def test_weights_that_ship_are_small_and_current():
    for name in models.list_pretrained():
        card = model_card(name)
        assert card["scores"] and card["size"] == [160, 64]
        assert create_model(name, pretrained=True).made_by["name"] == name
    assert sum(path.stat().st_size for path in models.weights_dir().glob("*")) <= 8e6
