"Pictures without labels: rounds that stop and go on, `scalable-arch adapt`, targets, and trials of both kinds."

import json

import numpy as np
import pytest
import torch
from PIL import Image

from scalable_arch import create_model, load
from scalable_arch.cli import main
from scalable_arch.data.sources import labelled_part, open_source
from scalable_arch.kinds import KINDS
from scalable_arch.kinds import adaptation as kind
from scalable_arch.metrics import self_jaccard
from scalable_arch.models import save
from scalable_arch.own import adaptation as own
from scalable_arch.train import pseudo

SMALL = dict(widths=(8, 12, 16), stem_width=4, feature_dim=8)
BEGIN = {"kind": "reid", "model": "han_small", "options": SMALL, "train": {"world": "gate", "people": 2}, "seed": 0}
BEGIN |= {"size": [64, 32], "recipe": {"epochs": 1, "batch_size": 8, "milestones": []}}
BASE = {"begin": BEGIN, "target": {"target": "campus", "people": 8}, "size": [64, 32], "share": 0.1, "seed": 0}
ADAPT = BASE | {"kind": "adaptation", "search": {"test": {"target": "campus", "people": 3}}, "rounds": 2, "ratio": 0.4}
ADAPT |= {"recipe": {"epochs": 1, "lr": 0.01}, "options": {}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A cache of this file's own."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def crops(home, tmp_path_factory):
    "A folder of crops of six simulated people, with the camera in the name."
    folder = tmp_path_factory.mktemp("crops")
    people = open_source({"target": "campus", "people": 6}, "train", task="reid", size=(160, 64))
    for row, (image, camera) in enumerate(zip(people.images, people.camids)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"c{camera}_{row:03d}.png")
    return folder


@pytest.fixture(scope="module")
def start(home, tmp_path_factory):
    "A file with a tiny network."
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "tiny.safetensors"
    save(path, create_model("han_small", **SMALL))
    return path


# ---- data


def test_a_target_has_the_cameras_of_the_test_and_other_people(home):
    source = {"target": "campus", "people": 8}
    train, test = (open_source(source, split, task="reid", size=(32, 16)) for split in ("train", "test"))
    assert set(train.pids).isdisjoint(test.pids) and set(train.camids) == set(range(1, 9))
    settle = open_source(source | {"cameras": "settle"}, "train", task="reid", size=(32, 16))
    assert not torch.equal(train.images, settle.images) and np.array_equal(train.labels, settle.labels)
    with pytest.raises(ValueError, match="cameras"):
        open_source(source | {"cameras": "all"}, "train", task="reid", size=(32, 16))


@pytest.mark.parametrize("share, people", [(1 / 3, 250), (1 / 6, 125), (1 / 12, 63), (50, 50)])
def test_labelled_part_of_market(share, people):
    pids = np.repeat(np.arange(751), 2)
    part = labelled_part(pids, share)
    assert len(set(pids[part])) == people and set(pids[part]).isdisjoint(pids[~part])
    assert not np.array_equal(part, labelled_part(pids, share, seed=1))


@pytest.mark.parametrize("share", [1 / 12, 0, 5, 1.0])
def test_nobody_or_everybody_labelled_is_one_sentence(share):
    with pytest.raises(ValueError, match="at least one must be"):
        labelled_part(np.repeat(np.arange(5), 3), share)


def test_birds_are_read_and_each_is_sought_among_the_others(tmp_path):
    root = tmp_path / "CUB_200_2011"
    for number, species in enumerate((1, 1, 100, 101, 101, 200), 1):
        place = root / "images" / f"{species:03d}.Bird"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (40 * number, 0, 0)).save(place / f"{number}.png")
        for name, line in (("images", f"{place.name}/{number}.png"), ("image_class_labels", species)):
            with open(root / f"{name}.txt", "a") as file:
                file.write(f"{number} {line}\n")
    how = dict(task="reid", size=(16, 16), data_root=str(tmp_path))
    train, test = (open_source({"birds": "cub200"}, split, **how) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 0, 1] and test.pids.tolist() == [101, 101, 200]
    metrics = kind.retrieval_scores(test, np.eye(3, dtype=np.float32)[[0, 0, 1]], ["joint"])[0]
    assert metrics["joint"]["R1"] == 1
    (root / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(ValueError, match="different pictures"):
        open_source({"birds": "cub200"}, "train", **how)
    with pytest.raises(FileNotFoundError, match="holds no CUB_200_2011"):
        open_source({"birds": "cub200"}, "train", **how | {"data_root": str(tmp_path / "no")})


# ---- rounds


def test_classifiers_are_renewed_by_their_seed():
    for name, options in (("han_small", SMALL), ("resnet50_reid", {"width": 1 / 16})):
        model = create_model(name, num_classes=3, **options)
        weights = []
        for seed in (0, 0, 1):
            pseudo.renew_classifiers(model, 5, seed)
            logits = model.train()(torch.randn(4, 3, 64, 32)).logits
            assert all(x.shape == (4, 5) for x in logits)
            weights.append([x.clone() for key, x in model.state_dict().items() if "classif" in key])
        assert all(map(torch.equal, weights[0], weights[1])) and not all(map(torch.equal, weights[0], weights[2]))
        pseudo.renew_classifiers(model, None)
        assert not any("classif" in key for key in model.state_dict())
    with pytest.raises(ValueError, match="no classifiers to renew"):
        pseudo.renew_classifiers(torch.nn.Linear(1, 1), 2)


def test_a_han_from_a_level_on_is_the_han(home):
    torch.manual_seed(0)
    han, images = create_model("han_small", **SMALL).eval(), torch.randint(0, 256, (5, 3, 64, 32), dtype=torch.uint8)
    maps = kind.kept_maps(han, images, 2)
    upper, read = kind.UpperHAN(han, 2), kind.map_reader(maps)
    found = pseudo.image_features(upper, read, 5)
    expected = pseudo.image_features(han, kind.image_reader(images, han), 5)
    np.testing.assert_allclose(found, expected, atol=2e-2)  # maps are kept in half precision
    learns = {name for name, x in upper.named_parameters() if x.requires_grad}
    assert learns and not any("stem" in name or "blocks.0" in name or "blocks.1" in name for name in learns)
    whole = [kind.map_halves(net, one, 5) for net, one in ((upper, read), (han, kind.image_reader(images, han)))]
    np.testing.assert_allclose(whole[0], whole[1], atol=2e-2)


@pytest.mark.parametrize(
    "method, options", [("sgc", {}), ("hsr", {}), ("sgc", {"clusters": False}), ("supervised", {})]
)
def test_trials_repeat_to_the_bit_and_go_on_where_they_stopped(method, options, home, tmp_path, monkeypatch):
    config = ADAPT | {"method": method, "options": options, "along": True}
    whole = KINDS["adaptation"].run(config, checkpoint=None, given={}, progress=False)
    assert set(whole["metrics"]["test"]["joint"]) == {"R1", "mAP", "mINP"}
    if len(whole["curves"]) < 2:
        return
    fit, calls = kind.fit_objective, []
    monkeypatch.setattr(
        pseudo, "fit_objective", lambda *args, **how: calls.append(1) or stop(calls) or fit(*args, **how)
    )
    with pytest.raises(KeyboardInterrupt):
        KINDS["adaptation"].run(config, checkpoint=tmp_path, given={}, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(kind, "begun", kind.begun)
    continued = KINDS["adaptation"].run(config, checkpoint=tmp_path, given={}, progress=False)
    assert continued["metrics"] == whole["metrics"]
    assert [row["curve"] for row in continued["curves"]] == [row["curve"] for row in whole["curves"]]


def stop(calls):
    "Interrupt the second round."
    if len(calls) == 2:
        raise KeyboardInterrupt


def test_clusterings_repeat_and_say_when_nothing_fired(home):
    config = BASE | {"kind": "clustering", "drawn": 6, "ratio": 0.4}
    for question in kind.QUESTIONS:
        one, two = (KINDS["clustering"].run(config | {"question": question}) for _ in range(2))
        assert one == two and one["metrics"]
    assert "never fired" in one["idle"] and KINDS["clustering"].criterion(one) == one["idle"]
    assert one["metrics"]["before"] == one["metrics"]["after"]
    other = KINDS["clustering"].run(config | {"question": "hsr", "seed": 1})
    assert other["metrics"] != one["metrics"]


def test_a_file_of_backbone_weights_is_taken(tmp_path):
    from safetensors.torch import save_file

    given, taken = (create_model("resnet50_reid", width=1 / 16) for _ in range(2))
    save_file(dict(given.backbone.state_dict()), tmp_path / "w.safetensors")
    kind.as_given(taken, tmp_path / "w.safetensors")
    assert all(map(torch.equal, given.backbone.state_dict().values(), taken.backbone.state_dict().values()))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="missing or of another shape"):
        kind.as_given(taken, tmp_path / "bad.safetensors")


# ---- a folder of one's own


def test_adapt_a_folder(crops, start, tmp_path, capsys):
    before = sorted(path.stat().st_mtime_ns for path in crops.iterdir())
    words = [
        "adapt",
        str(crops),
        "--out",
        str(tmp_path / "mine"),
        "--init",
        str(start),
        "--rounds",
        "2",
        "--epochs",
        "1",
    ]
    assert main([*words, "--per-person", "8"]) == 0
    said = capsys.readouterr().out
    assert "round 2 of 2" in said and "agreement" in said and "mine.html" in said
    told = json.loads((tmp_path / "mine.json").read_text())
    assert len(told["rounds"]) == 2 and told["pictures"] == 72
    page = (tmp_path / "mine.html").read_text()
    assert "Before" in page and "After" in page and "round 1" in page
    assert load(tmp_path / "mine")(torch.randn(2, 3, 160, 64)).embeddings[0].shape == (2, 4)
    assert sorted(path.stat().st_mtime_ns for path in crops.iterdir()) == before
    assert main([*words, "--per-person", "8"]) == 2 and "is there already" in capsys.readouterr().err


def test_a_stopped_run_goes_on(crops, start, tmp_path, monkeypatch):
    run = dict(init=str(start), epochs=1, per_person=8, say=lambda line: None)
    whole = own.adapt_folder(crops, tmp_path / "whole", rounds=2, **run)
    calls, fit = [], pseudo.fit_objective
    monkeypatch.setattr(
        pseudo, "fit_objective", lambda *args, **how: calls.append(1) or stop(calls) or fit(*args, **how)
    )
    with pytest.raises(KeyboardInterrupt):
        own.adapt_folder(crops, tmp_path / "parts", rounds=2, **run)
    monkeypatch.undo()
    assert own.adapt_folder(crops, tmp_path / "parts", rounds=2, **run) == whole
    one, other = load(tmp_path / "whole"), load(tmp_path / "parts")
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_cameras(crops, tmp_path):
    found = own.read_unlabelled(crops)
    assert found.camids is not None and not found.notes
    without = own.read_unlabelled(crops, "none")
    assert without.camids is None and "pairs across cameras are not mined" in without.notes[0]
    assert "lies in no camera's folder" in own.read_unlabelled(crops, "folders").notes[0]
    for row in range(8):
        place = tmp_path / ("left" if row < 5 else "right")
        place.mkdir(exist_ok=True)
        Image.new("RGB", (32, 80), (20 * min(row, 6), 0, 0)).save(place / f"{row}.png")
    folders = own.read_unlabelled(tmp_path, "folders")
    assert folders.camids.tolist() == [0] * 5 + [1] * 3 and "copies" in folders.notes[-1]
    assert own.read_unlabelled(tmp_path).camids is None


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda folder: None, "there are no pictures"),
        (lambda folder: Image.new("RGB", (32, 80)).save(folder / "c1_0.png"), "at least 8 pictures"),
    ],
)
def test_a_folder_with_too_little_is_one_sentence(make, sentence, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    assert main(["adapt", str(tmp_path / "in"), "--out", str(tmp_path / "mine")]) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and "\n" not in said


def test_warnings():
    distances = self_jaccard(np.random.default_rng(0).standard_normal((20, 3)))
    say = lambda labels: own.round_warning(own.round_facts(np.array(labels), distances, None, None))
    assert "all pictures are noise" in say([-1] * 20)
    assert "one cluster holds 100 %" in say([0] * 20)
    assert "one cluster holds 60 %" in say([0] * 12 + [1] * 8)
    assert "90 % of the pictures are noise" in say([0, 1] + [-1] * 18)
    assert say([0] * 10 + [1] * 10) == ""


def test_all_noise_leaves_the_network_as_it_is(home):
    torch.manual_seed(0)
    model, images = create_model("han_small", **SMALL), torch.randint(0, 256, (12, 3, 64, 32), dtype=torch.uint8)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    lines = []
    history = own.adapt(model, images, None, rounds=2, per_person=2, say=lines.append)
    if not history[0]["clusters"]:
        assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
        assert any(line.startswith("warning: all pictures are noise") for line in lines)
    assert [row["eps"] for row in history] == [history[0]["eps"]] * 2
