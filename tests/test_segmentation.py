"""A class for every pixel: VOC's layout with SBD's, masks of the simulated world, scores, the DeepLabv3 head and its
training."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torch import nn
from torch.nn import functional as F

from scalable_arch import versions
from scalable_arch.cli import main
from scalable_arch.data import (
    check_segmentation,
    load_manifest,
    load_segmentation,
    load_voc,
    render_scene,
    render_voc,
    segmentation,
    segmentation_classes,
)
from scalable_arch.data.scenes import SQUARE, Layer, Standing, empty_place, window_of
from scalable_arch.data.segmentation import (
    IGNORE,
    class_shares,
    mask_of,
    palette,
    read_mask,
    render_masked,
    resize_pairs,
    thing_classes,
    write_mat,
    write_png,
)
from scalable_arch.metrics import evaluate_segmentation
from scalable_arch.metrics.segmentation import confusion_matrix
from scalable_arch.nn.cost import measure
from scalable_arch.nn.deeplab import ASPP, AtrousUnit, DeepLabV3
from scalable_arch.train import load_checkpoint
from scalable_arch.train.segmentation import (
    fit_segmentation,
    pixel_loss,
    poly_rate,
    predict_segmentation,
    random_view,
    score_segmentation,
)

rng = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def sentence(error):
    """The message of an error, which must be one sentence."""
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and len(text) > 30
    return text


# ---- scores


def slow_scores(predictions, masks, num_classes, ignore):
    """IoU of each class (None where neither occurs), and pixel accuracy, by counting pixel by pixel."""
    pixels = [
        (p, t)
        for prediction, mask in zip(predictions, masks)
        for p, t in zip(np.ravel(prediction).tolist(), np.ravel(mask).tolist())
        if t != ignore
    ]
    iou = []
    for c in range(num_classes):
        either = sum(p == c or t == c for p, t in pixels)
        iou.append(sum(p == c and t == c for p, t in pixels) / either if either else None)
    return iou, sum(p == t for p, t in pixels) / len(pixels)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(0, 10_000),
    st.sampled_from([255, 9]),
)
def test_scores_agree_with_counting(num_classes, sizes, seed, ignore):
    dice = np.random.default_rng(seed)
    predictions = [dice.integers(0, num_classes, size) for size in sizes]
    masks = [np.where(dice.random(size) < 0.2, ignore, dice.integers(0, num_classes, size)) for size in sizes]
    masks[0].flat[0] = 0
    iou, accuracy = slow_scores(predictions, masks, num_classes, ignore)
    result = evaluate_segmentation(predictions, [torch.from_numpy(mask) for mask in masks], num_classes, ignore=ignore)
    there = [value for value in iou if value is not None]
    assert np.isclose(result.miou, np.mean(there)) and np.isclose(result.pixel_accuracy, accuracy)
    assert [None if np.isnan(value) else round(value, 9) for value in result.iou] == [
        value if value is None else round(value, 9) for value in iou
    ]
    assert result.protocol["classes_counted"] == len(there) and result.num_images == len(sizes)
    assert result.confusion.sum() == sum((mask != ignore).sum() for mask in masks)


def test_a_matrix_has_true_classes_in_rows():
    assert confusion_matrix([[0, 2]], [[1, 1]], 3).tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]
    perfect = evaluate_segmentation(np.array([[[0, 1]]]), np.array([[[0, 1]]]), 4)
    assert (perfect.miou, perfect.pixel_accuracy) == (1.0, 1.0) and "2 of 4 classes" in str(perfect)


def test_what_cannot_be_scored_is_said():
    zeros = torch.zeros(2, 4, 4, dtype=torch.uint8)
    for wrong, words in (
        (dict(masks=zeros[:1]), "2 predictions but 1 masks"),
        (dict(masks=zeros[:, :3]), "one shape"),
        (dict(predictions=zeros.float()), "argmax"),
        (dict(masks=zeros + 3), "holds the class 3"),
        (dict(predictions=zeros + 255), "holds the class 255"),
        (dict(masks=zeros + 255), "no score"),
    ):
        with pytest.raises(ValueError) as error:
            evaluate_segmentation(**dict(predictions=zeros, masks=zeros, num_classes=3) | wrong)
        assert words in sentence(error)


# ---- VOC and SBD on disk


def test_the_palette_is_that_of_voc():
    for number, colour in {
        0: (0, 0, 0),
        1: (128, 0, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }.items():
        assert tuple(palette()[number]) == colour


def test_the_manifest_has_the_printed_numbers():
    manifest = load_manifest("voc2012")
    printed, expected = manifest["printed"], manifest["expected"]
    assert {split: expected[split]["images"] for split in expected} == {"train": 1464, "val": 1449, "trainaug": 10_582}
    assert (
        all(printed[f"{split}_images"] == expected[split]["images"] for split in expected)
        and len(segmentation_classes("voc2012")) == printed["classes"] == 21
    )


NAMES = [f"2008_{k:06d}" for k in range(12)]


@pytest.fixture
def voc(tmp_path):
    """VOC by hand: 0-2 train, 3-4 val, SBD annotates 1-9 of which 3 is val; images 40 x 30, value of a mask of VOC 10
    + k, of SBD k (k-th image)."""
    home, extra = tmp_path / "VOCdevkit" / "VOC2012", tmp_path / "benchmark_RELEASE" / "dataset"
    for folder in (home / "JPEGImages", home / "SegmentationClass", home / "ImageSets" / "Segmentation", extra / "cls"):
        folder.mkdir(parents=True)
    for k, name in enumerate(NAMES):
        Image.new("RGB", (40, 30), (20 * k, 0, 0)).save(home / "JPEGImages" / f"{name}.jpg")
    for k in range(5):
        mask = np.full((30, 40), 10 + k, np.uint8)
        mask[0] = IGNORE
        write_png(home / "SegmentationClass" / f"{NAMES[k]}.png", mask)
    for k in range(1, 10):
        boundaries = np.array([[np.zeros((30, 40), np.uint8)]], object)
        savemat(
            extra / "cls" / f"{NAMES[k]}.mat",
            {
                "GTcls": {
                    "Segmentation": np.full((30, 40), k, np.uint8),
                    "Boundaries": boundaries,
                    "CategoriesPresent": [k],
                }
            },
        )
    lists = {
        home / "ImageSets" / "Segmentation" / "train.txt": [0, 1, 2],
        home / "ImageSets" / "Segmentation" / "val.txt": [3, 4],
        extra / "train.txt": [1, 3, 5, 6, 7],
        extra / "val.txt": [2, 8, 9],
    }
    for file, numbers in lists.items():
        file.write_text("".join(f"{NAMES[k]}\n" for k in numbers))
    return tmp_path


def test_trainaug_is_the_union_without_val_and_vocs_masks_come_first(voc):
    images, masks = load_voc(voc, "trainaug", check=False)
    assert [path.stem for path in images.paths] == [NAMES[k] for k in (0, 1, 2, 5, 6, 7, 8, 9)]
    assert [int(mask[5, 5]) for mask in (masks[k] for k in range(8))] == [10, 11, 12, 5, 6, 7, 8, 9]
    assert (
        masks[0].dtype == torch.uint8
        and masks[0].shape == (30, 40)
        and (masks[0][0] == IGNORE).all()
        and (masks[3] == 5).all()
    )
    assert images[3].shape == (3, 30, 40) and abs(int(images[3][0, 0, 0]) - 100) < 6
    for split, numbers in (("train", (0, 1, 2)), ("val", (3, 4)), ("trainval", (0, 1, 2, 3, 4))):
        assert [path.stem for path in load_voc(voc, split, check=False)[0].paths] == [NAMES[k] for k in numbers]
    assert len(load_voc(voc / "VOCdevkit", "train", check=False)[0]) == 3
    with pytest.raises(ValueError, match="train has 3 images where the published set has 1,464"):
        load_voc(voc)


def test_masks_of_sbd_as_png_are_read_too(voc):
    home = voc / "VOCdevkit" / "VOC2012"
    (home / "SegmentationClassAug").mkdir()
    for k in (0, 5, 6):
        write_png(home / "SegmentationClassAug" / f"{NAMES[k]}.png", np.full((30, 40), k, np.uint8))
    (home / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("".join(f"{NAMES[k]}\n" for k in (5, 6, 0)))
    masks = load_voc(voc, "trainaug", check=False)[1]
    assert [int(masks[k][5, 5]) for k in range(len(masks))] == [10, 11, 12, 5, 6]


def test_damaged_copies_are_named(voc):
    home, extra = voc / "VOCdevkit" / "VOC2012", voc / "benchmark_RELEASE" / "dataset"
    mask, mat = home / "SegmentationClass" / f"{NAMES[1]}.png", extra / "cls" / f"{NAMES[5]}.mat"
    whole = mask.read_bytes(), mat.read_bytes()
    for path, content, words in (
        (mask, whole[0][:90], "damaged or cut short"),
        (mask, b"", "damaged or cut short"),
        (mat, whole[1][:150], "damaged or cut short"),
        (mat, b"", "damaged or cut short"),
    ):
        path.write_bytes(content)
        masks = load_voc(voc, "trainaug", check=False)[1]
        with pytest.raises(ValueError) as error:
            [masks[k] for k in range(len(masks))]
        assert str(path) in sentence(error) and words in str(error.value)
        mask.write_bytes(whole[0]), mat.write_bytes(whole[1])
    write_png(mask, np.zeros((30, 39), np.uint8))
    with pytest.raises(ValueError) as error:
        load_voc(voc, check=False)[1][1]
    assert "39 x 30 pixels, but its image" in sentence(error) and "40 x 30" in str(error.value)
    write_png(mask, np.full((30, 40), 21, np.uint8))
    with pytest.raises(ValueError, match="holds the class 21, but classes are 0 to 20 and 255"):
        load_voc(voc, check=False)[1][1]
    Image.new("RGB", (40, 30)).save(mask)
    with pytest.raises(ValueError, match="holds colours \\(RGB\\), not class numbers"):
        load_voc(voc, check=False)[1][1]
    savemat(mat, {"GTinst": {"Segmentation": 1}})
    with pytest.raises(ValueError, match="does not hold GTcls"):
        read_mask(mat)
    savemat(mat, {"GTcls": {"Boundaries": 1}})
    with pytest.raises(ValueError, match="has no mask GTcls.Segmentation"):
        read_mask(mat)
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=f"the lists name {NAMES[1]}"):
        load_voc(voc, check=False)
    (home / "ImageSets" / "Segmentation" / "train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="train.txt lists no image"):
        load_voc(voc, check=False)
    (home / "ImageSets" / "Segmentation" / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="train.txt is missing"):
        load_voc(voc, check=False)
    (extra / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match="trainaug needs SBD"):
        load_voc(voc, "trainaug", check=False)
    with pytest.raises(ValueError, match="not published"):
        load_voc(voc, "test")
    with pytest.raises(FileNotFoundError, match="JPEGImages is missing"):
        load_voc(extra, check=False)


def test_lists_that_were_cut_and_empty_files_are_told(tmp_path):
    options = dict(people=(4, 4), scenes=(2, 3), extra=3, cameras=(1, 1), size=(64, 80))
    render_voc(tmp_path / "voc", **options)
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    assert len(load_voc(tmp_path / "voc", "trainval")[0]) == 5
    listing = home / "ImageSets" / "Segmentation" / "val.txt"
    names = listing.read_text().split()
    listing.write_text("\n".join(names[:2]), encoding="utf-8-sig")
    for split, words in (("val", "val has 2 images where the rendered set has 3"), ("trainval", "4 images where .* 5")):
        with pytest.raises(ValueError, match=words):
            load_voc(tmp_path / "voc", split)
    assert [path.stem for path in load_voc(tmp_path / "voc", "val", check=False)[0].paths] == names[:2]
    listing.write_text("\n".join(names))
    for file in (home / "JPEGImages" / f"{names[0]}.jpg", home / "SegmentationClass" / f"{names[0]}.png"):
        data = file.read_bytes()
        file.write_bytes(b"")
        report = check_segmentation("voc2012", tmp_path / "voc")
        assert not report.ok and f"{file} cannot be used (empty)" in report.problems[0]
        file.write_bytes(data)
    assert check_segmentation("voc2012", tmp_path / "voc", decode=True).ok


def test_pairs_are_resized_together(voc):
    images, masks = load_voc(voc, "val", size=(15, 20), check=False)
    assert images.shape == (2, 3, 15, 20) and masks.shape == (2, 15, 20) and images.dtype == masks.dtype == torch.uint8
    assert set(masks.unique().tolist()) <= {13, 14, IGNORE}  # nearest: no class in between
    with pytest.raises(ValueError, match="size is"):
        resize_pairs(images, masks, (0, 3))


# ---- the simulated world


def test_masks_agree_with_the_scene_that_is_rendered():
    size, pids = (96, 128), [1, 2, 3, -1]
    for camid, number in ((1, 0), (1, 1), (2, 0)):
        image, mask = render_masked(pids, camid, number, size=size, seed=3)
        scene = render_scene(pids, camid, number, size=size, seed=3)
        assert (image == scene.image).all() and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2, 3, IGNORE}
        inside = np.zeros(size, bool)
        for x1, y1, x2, y2 in scene.boxes:
            inside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
        assert not (mask == 1)[~inside].any()  # nobody outside their box
        for (x1, y1, x2, y2), share in zip(scene.boxes, scene.visible):
            own = (mask == 1)[round(y1) : round(y2), round(x1) : round(x2)]
            assert share < 0.5 or own.mean() > 0.15  # and everybody in it who is seen
        assert (mask == IGNORE).mean() < 0.12
        assert set(thing_classes(camid, 3, size)) == {row for row, _ in empty_place(camid, 3, size, SQUARE)[1]}


def test_shares_are_what_laying_over_gives_pixel_by_pixel():
    window = window_of((64, 64))._replace(height=6, width=8)
    covers = [rng.choice([0, 0.5, 1], (4, 5)).astype(np.float32) for _ in range(3)]
    layer = lambda k, left, top: Layer(left, top, np.zeros((4, 5, 3), np.float32), covers[k])
    people, things = [Standing(0, 20.0, "placed", layer(0, 1, 1))], [(10.0, layer(1, -2, -1)), (30.0, layer(2, 4, 3))]
    found = class_shares(people, things, {10.0: 2, 30.0: 3}, window)
    for row, column in itertools.product(range(6), range(8)):
        pixel = [1.0, 0, 0, 0]
        for k, left, top, number in ((1, -2, -1, 2), (0, 1, 1, 1), (2, 4, 3, 3)):  # far ones first
            y, x = row - top, column - left
            cover = float(covers[k][y, x]) if 0 <= y < 4 and 0 <= x < 5 else 0.0
            pixel = [value * (1 - cover) + cover * (c == number) for c, value in enumerate(pixel)]
        assert np.allclose(found[:, row, column], pixel)
    mask = mask_of(found, 2)
    for row, column in itertools.product(range(3), range(4)):
        mean = found[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((1, 2))
        assert mask[row, column] == (mean.argmax() if mean.max() >= 0.75 else IGNORE)
    assert mask_of(np.array([[[0.25, 0.26]], [[0.75, 0.74]]]), 1).tolist() == [[1, IGNORE]]


def test_mistakes_in_loading_are_one_sentence():
    for wrong, words in (
        (dict(name="voc"), "did you mean 'voc2012'"),
        (dict(split="test"), "choose one of: train, settle, val"),
        (dict(name="voc2012"), "needs root"),
        (dict(root="x"), "leave root='x' out"),
        (dict(size=(64, 9)), "size must be"),
        (dict(people=1), "people must be"),
        (dict(name="voc2012", root="x", scenes=3), "leave them out"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            load_segmentation(**wrong)
        assert words in sentence(error)


def test_the_same_set_comes_from_the_cache_bit_for_bit(monkeypatch):
    options = dict(scenes=4, cameras=1, people=4, size=(64, 80))
    images, masks = load_segmentation(**options)
    assert images.shape == (4, 3, 64, 80) and masks.shape == (4, 64, 80) and images.dtype == masks.dtype == torch.uint8
    monkeypatch.setattr(segmentation, "render_masked", lambda *a, **k: pytest.fail("rendered again"))
    again = load_segmentation(**options)
    assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
    with pytest.raises(pytest.fail.Exception):
        load_segmentation(**options, seed=1)  # other people and cameras: rendered anew
    for world in ("world.people", "world.scenes", "world.masks"):
        with monkeypatch.context() as raised, pytest.raises(pytest.fail.Exception):
            raised.setitem(versions.VERSIONS, world, versions.VERSIONS[world] + 1)
            load_segmentation(**options)


def test_a_rendered_copy_is_read_back_and_checked(tmp_path):
    options = dict(people=(4, 4), scenes=(2, 3), extra=3, cameras=(1, 1), size=(64, 80))
    world = render_voc(tmp_path / "voc", **options)
    assert world["expected"] == {"train": {"images": 2}, "val": {"images": 3}, "trainaug": {"images": 5}} and [
        p.name for p in tmp_path.iterdir()
    ] == ["voc"]
    images, masks = load_segmentation(scenes=5, cameras=1, people=4, size=(64, 80))
    for split, count in (("train", 2), ("trainaug", 5)):
        found = load_voc(tmp_path / "voc", split)
        assert len(found[0]) == count
        for k in range(count):
            sbd = k >= 2
            assert torch.equal(found[1][k], torch.where(masks[k] == IGNORE, 0, masks[k]) if sbd else masks[k])
            assert (found[0][k].float() - images[k].float()).abs().mean() < 4  # JPEG
    assert segmentation_classes("voc2012", tmp_path / "voc") == ("background", "person", "plant", "thing")
    report = check_segmentation("voc2012", tmp_path / "voc", decode=True)
    assert report.ok and report.source == "rendered"
    with pytest.raises(FileExistsError):
        render_voc(tmp_path / "voc", **options)
    lost = next((tmp_path / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages").iterdir())
    lost.write_bytes(lost.read_bytes()[:300])
    report = check_segmentation("voc2012", tmp_path / "voc", decode=True)
    assert not report.ok and str(lost) in " ".join(report.problems)
    assert check_segmentation("voc2012", tmp_path / "voc").ok  # counts and names alone are right
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_segmentation("voc2012", tmp_path / "none")


def test_the_command_line_renders_and_checks(tmp_path, capsys):
    out = str(tmp_path / "voc")
    assert (
        main(
            [
                "data",
                "render",
                "voc2012",
                "--out",
                out,
                "--ids",
                "8",
                "--scenes",
                "2",
                "--cameras",
                "1",
                "--height",
                "64",
            ]
        )
        == 0
    )
    assert (
        "2 scenes with masks to train on, 4 with the extra ones, and 2 to validate with, simulated"
        in capsys.readouterr().out
    )
    assert main(["data", "check", "voc2012", "--root", out, "--decode"]) == 0 and "RENDERED" in capsys.readouterr().out
    assert (
        main(["data", "render", "voc2012", "--out", out, "--ids", "8"]) == 2 and "not empty" in capsys.readouterr().err
    )
    assert (
        main(["data", "render", "voc2012", "--out", out + "2", "--ids", "3"]) == 2
        and "--ids must be at least 4" in capsys.readouterr().err
    )
    assert (
        main(["data", "check", "voc2012", "--root", str(tmp_path)]) == 2
        and "JPEGImages is missing" in capsys.readouterr().out
    )


def test_masks_survive_both_kinds_of_files(tmp_path):
    mask = rng.choice([0, 1, 15, 20, IGNORE], (7, 9)).astype(np.uint8)
    write_png(tmp_path / "a.png", mask)
    write_mat(tmp_path / "a.mat", mask)
    assert (read_mask(tmp_path / "a.png") == mask).all() and (
        read_mask(tmp_path / "a.mat") == np.where(mask == IGNORE, 0, mask)
    ).all()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and image.getpalette()[45:48] == [192, 128, 128]


# ---- the head


class Backbone(nn.Module):
    """Two convolutions of stride 4, and a classifier that a head does not need."""

    feature_channels = (6, 8)

    def __init__(self):
        super().__init__()
        self.first, self.second, self.classifier = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 8, 4, 4), nn.Linear(8, 10)

    def features(self, images):
        first = self.first(images)
        return [first, self.second(F.relu(first))]


@pytest.mark.parametrize("rate", [1, 2, 5])
def test_atrous_convolutions_read_nine_places(rate):
    torch.manual_seed(0)
    unit, x = AtrousUnit(2, 3, rate=rate).eval(), torch.randn(1, 2, 7, 6)
    slow, weight = torch.zeros(1, 3, 7, 6), unit[0].weight
    for out, row, column, dy, dx in itertools.product(range(3), range(7), range(6), range(3), range(3)):
        y, z = row + (dy - 1) * rate, column + (dx - 1) * rate
        if 0 <= y < 7 and 0 <= z < 6:
            slow[0, out, row, column] += (weight[out, :, dy, dx] * x[0, :, y, z]).sum()
    assert torch.allclose(unit[0](x), slow, atol=1e-5)


@pytest.mark.parametrize("channels, width, classes", [(8, 256, 21), (5, 16, 4)])
def test_the_head_is_counted_by_hand(channels, width, classes):
    views = (1 + 9 + 9 + 9 + 1) * channels * width + 5 * 2 * width
    expected = views + 5 * width * width + 2 * width + width * classes + classes
    model = DeepLabV3(
        nn.Identity(),
        classes,
        channels,
        features=lambda backbone, images: images.repeat(1, channels, 1, 1)[:, :channels, ::16, ::16],
        channels=width,
    )
    assert measure(model, (3, 32, 48)).params == expected


def test_logits_have_the_size_of_any_image_and_the_classifier_is_gone():
    backbone = Backbone()
    model = DeepLabV3(backbone, 5, channels=4, rates=(1, 2)).eval()
    for size in ((32, 48), (33, 50), (16, 16)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 5, *size)
    assert backbone.classifier is not None and not any(
        "backbone.classifier" in name for name, _ in model.named_parameters()
    )
    maps = model.pyramid(backbone.features(torch.ones(1, 3, 32, 48))[-1])
    logits = F.interpolate(model.classifier(maps), (32, 48), mode="bilinear", align_corners=False)
    assert torch.equal(model(torch.ones(1, 3, 32, 48)), logits)


def test_the_whole_map_is_known_everywhere():
    torch.manual_seed(0)
    pyramid = ASPP(3, 32, rates=(1,)).eval()
    x = torch.randn(1, 3, 9, 9, requires_grad=True)
    pyramid(x)[0, :, 0, 0].sum().backward()
    assert (x.grad[0, :, 8, 8] != 0).any()  # the far corner, through the mean alone
    with pytest.raises(ValueError, match="at least two images"):
        pyramid.train()(torch.randn(1, 3, 4, 4))
    pyramid(torch.randn(2, 3, 4, 4))


def test_heads_that_cannot_be_made_are_named():
    for wrong, words in (
        (dict(num_classes=1), "at least 2"),
        (dict(rates=()), "rates must be"),
        (dict(rates=(1.5,)), "rates must be"),
        (dict(backbone=nn.Identity()), "has no method features"),
        (dict(backbone=nn.Identity(), features=lambda b, x: x), "pass in_channels"),
    ):
        with pytest.raises(ValueError) as error:
            DeepLabV3(**dict(backbone=Backbone()) | wrong)
        assert words in sentence(error)


# ---- training


def toy_data(n=10, seed=0):
    """Squares of class 1 (bright) on background, with a border of 255, (n, 3, 32, 40) and (n, 32, 40)."""
    dice = np.random.default_rng(seed)
    images, masks = dice.integers(0, 90, (n, 3, 32, 40), np.uint8), np.zeros((n, 32, 40), np.uint8)
    for image, mask in zip(images, masks):
        y, x = dice.integers(0, 16), dice.integers(0, 24)
        mask[max(y - 1, 0) : y + 17, max(x - 1, 0) : x + 17] = IGNORE
        mask[y : y + 16, x : x + 16], image[:, y : y + 16, x : x + 16] = 1, image[:, y : y + 16, x : x + 16] + 150
    return torch.from_numpy(images), torch.from_numpy(masks)


def toy_model(seed=0):
    torch.manual_seed(seed)
    return DeepLabV3(Small(), 2, channels=8, rates=(1, 2))


class Small(nn.Module):
    """Stride 4, eight channels."""

    feature_channels = (8,)

    def __init__(self):
        super().__init__()
        self.units = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def features(self, images):
        return self.units(images)


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


RECIPE = dict(epochs=6, batch_size=5, lr=0.1, crop=(24, 32), scales=(0.75, 1.5))


def test_a_toy_task_is_learnt_and_repeats():
    images, masks = toy_data()
    model, again, other = toy_model(), toy_model(), toy_model()
    history = fit_segmentation(model, images, masks, **RECIPE | dict(epochs=15))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and [record["epoch"] for record in history] == list(
        range(1, 16)
    )
    result = score_segmentation(model, *toy_data(seed=1), 2)
    assert result.miou > 0.8 and result.num_images == 10
    fit_segmentation(model := toy_model(), images, masks, **RECIPE)
    torch.rand(3)
    fit_segmentation(again, images, masks, **RECIPE)
    fit_segmentation(other, images, masks, **RECIPE, seed=1)
    assert same_bits(model, again) and not same_bits(model, other) and model.training


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, stop_after):
    images, masks = toy_data()
    whole = toy_model()
    history = fit_segmentation(whole, images, masks, **RECIPE)

    def stop(record):
        if record["epoch"] == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_segmentation(toy_model(), images, masks, **RECIPE, checkpoint=tmp_path, on_epoch=stop)
    continued = toy_model(seed=7)
    records = fit_segmentation(continued, images, masks, **RECIPE, checkpoint=tmp_path)
    assert same_bits(whole, continued) and [r["loss"] for r in records] == [r["loss"] for r in history]
    assert len(load_checkpoint(tmp_path)[1]["history"]) == 6
    for wrong, words in ((dict(epochs=9), "epochs=6"), (dict(lr=0.2), "lr=0.1"), (dict(seed=3), "seed=0")):
        with pytest.raises(ValueError) as error:
            fit_segmentation(toy_model(), images, masks, **RECIPE | wrong, checkpoint=tmp_path)
        assert words in sentence(error)
    with pytest.raises(ValueError, match="masks="):
        fit_segmentation(toy_model(), images, toy_data(seed=2)[1], **RECIPE, checkpoint=tmp_path)


def test_another_network_or_picture_is_refused(tmp_path):
    images, masks = toy_data(40)
    once = RECIPE | dict(epochs=1, checkpoint=tmp_path)
    fit_segmentation(toy_model(), images, masks, **once)
    spread = toy_model()
    spread.pyramid.views[1][0].dilation = spread.pyramid.views[1][0].padding = (3, 3)
    with pytest.raises(
        ValueError, match=r"network of another structure, .*padding is \(1, 1\) there and \(3, 3\) here"
    ):
        fit_segmentation(spread, images, masks, **once)
    for part, name in enumerate(("images", "masks")):
        pairs = [images.clone(), masks.clone()]
        pairs[part][1].view(-1)[0] += 1  # not among the 16 that would be read of files
        with pytest.raises(ValueError, match=f"is of a run with {name}="):
            fit_segmentation(toy_model(), *pairs, **once)
    fit_segmentation(toy_model(), images, masks, **once)


def test_a_network_of_double_precision():
    model = toy_model().double()
    history = fit_segmentation(model, *toy_data(), **RECIPE | {"epochs": 1})
    assert {x.dtype for x in model.parameters()} == {torch.float64}
    assert float(torch.tensor(history[0]["loss"], dtype=torch.float32)) != history[0]["loss"]


def test_files_train_as_tensors_do(tmp_path):
    images, masks = toy_data()
    listed = [image for image in images], [mask for mask in masks]
    a, b = toy_model(), toy_model()
    fit_segmentation(a, images, masks, **RECIPE | dict(epochs=2))
    fit_segmentation(b, *listed, **RECIPE | dict(epochs=2))
    assert same_bits(a, b)
    mixed = [images[0], images[1][:, :20]]
    found = predict_segmentation(a, mixed)
    assert [mask.shape for mask in found] == [(32, 40), (20, 40)] and torch.equal(
        found[0], predict_segmentation(a, images[:1])[0]
    )
    assert (
        torch.equal(predict_segmentation(a, images, batch_size=3), predict_segmentation(a, images, batch_size=10))
        and a.training
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.booleans()
)
def test_views_keep_image_and_mask_together(height, width, crop_height, crop_width, seed, flip):
    mask = torch.from_numpy(np.random.default_rng(seed).integers(1, 200, (height, width), np.uint8))
    image, generator = mask.expand(3, -1, -1).contiguous(), torch.Generator().manual_seed(seed)
    view, classes = random_view(image, mask, (crop_height, crop_width), (1, 1), flip, 255, generator)
    assert view.shape == (3, crop_height, crop_width) and classes.shape == (crop_height, crop_width)
    inside = classes != 255
    assert inside.sum() == min(height, crop_height) * min(width, crop_width)
    assert (view[:, inside] == classes[inside]).all() and (
        view[:, ~inside] == torch.tensor([[124], [116], [104]])
    ).all()
    if crop_height >= height and crop_width >= width:
        mirrored = classes.flip(-1)[:height, :width]
        assert torch.equal(classes[:height, :width], mask) or flip and torch.equal(mirrored, mask)


def test_scaled_views_have_no_class_in_between():
    mask = torch.tensor([[0, 0, 200, 200]] * 4, dtype=torch.uint8)
    image = torch.stack([mask] * 3)
    seen = set()
    for seed in range(30):
        view, classes = random_view(image, mask, (8, 8), (0.5, 2.0), True, 255, torch.Generator().manual_seed(seed))
        assert set(classes.unique().tolist()) <= {0, 200, 255}
        seen.add(int((classes != 255).sum()))
    assert len(seen) > 4 and max(seen) <= 64  # different scales
    flipped = [
        bool(random_view(image, mask, (4, 4), (1, 1), True, 255, torch.Generator().manual_seed(seed))[1][0, 0])
        for seed in range(40)
    ]
    assert 8 < sum(flipped) < 32


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(2, 4))
def test_the_loss_counts_only_what_counts(seed, num_classes):
    dice = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 3, 4, generator=dice)
    classes = torch.randint(0, num_classes, (2, 3, 4), generator=dice).byte()
    classes[torch.rand(2, 3, 4, generator=dice) < 0.3] = 255
    loss, right, counted = pixel_loss(logits, classes)
    values, hits = [], 0
    for b, y, x in itertools.product(range(2), range(3), range(4)):
        if classes[b, y, x] != 255:
            values.append(float(torch.logsumexp(logits[b, :, y, x], 0) - logits[b, int(classes[b, y, x]), y, x]))
            hits += int(logits[b, :, y, x].argmax() == classes[b, y, x])
    assert (
        counted == len(values)
        and right == hits
        and np.isclose(loss.item(), np.mean(values) if values else 0, atol=1e-5)
    )


def test_the_rate_falls_to_nearly_nothing_at_the_last_step():
    rates = [poly_rate(step, 50, 0.007) for step in range(50)]
    assert (
        rates[0] == 0.007
        and all(a > b > 0 for a, b in zip(rates, rates[1:]))
        and np.isclose(rates[25], 0.007 * 0.5**0.9)
    )
    assert [poly_rate(step, 4, 1.0, power=1.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    images, masks = toy_data()
    model = toy_model()
    history = fit_segmentation(
        model, images, masks, **RECIPE | dict(epochs=3)
    )  # two steps an epoch, the rate of the last one
    assert np.allclose([record["lr"] for record in history], [poly_rate(step, 6, 0.1) for step in (1, 3, 5)])


def test_mistakes_in_training_are_one_sentence(tmp_path):
    images, masks = toy_data()
    good = dict(model=toy_model(), images=images, masks=masks, **RECIPE)
    for wrong, words in (
        (dict(masks=masks[:3]), "10 images but 3 masks"),
        (dict(images=images[:1], masks=masks[:1]), "at least two images"),
        (dict(images=images.float()), "must be uint8"),
        (dict(masks=masks.long()), "masks must be uint8"),
        (dict(masks=masks[:, :9]), "size of their image"),
        (dict(masks=masks + 3), "num_classes=2"),
        (dict(crop=(3,)), "crop must be"),
        (dict(crop=-1), "crop must be"),
        (dict(scales=(0, 1)), "scales must be"),
        (dict(batch_size=1), "batch_size must be"),
        (dict(epochs=0), "epochs must be"),
        (dict(model=nn.Conv2d(3, 2, 3)), "of the size of its images"),
        (dict(model=nn.Flatten()), "logits (B, num_classes, H, W)"),
    ):
        with pytest.raises(ValueError) as error:
            fit_segmentation(**good | wrong) if "model" not in wrong else fit_segmentation(
                **good | dict(model=nn.Sequential(nn.Conv2d(3, 3, 1), wrong["model"]))
            )
        assert words in sentence(error)
    with pytest.raises(FloatingPointError) as error:
        fit_segmentation(**good | dict(lr=1e30), checkpoint=tmp_path / "run")
    assert "a smaller lr may help" in sentence(error)
    with pytest.raises(ValueError, match="there are no images"):
        predict_segmentation(toy_model(), images[:0])
    with pytest.raises(ValueError, match="batch_size must be"):
        predict_segmentation(toy_model(), images, batch_size=0)


def test_a_batch_without_a_counted_pixel_teaches_nothing():
    images, masks = toy_data(4)
    model = toy_model()
    before = {name: x.clone() for name, x in model.named_parameters()}
    history = fit_segmentation(
        model,
        images,
        torch.full_like(masks, 255),
        epochs=1,
        batch_size=4,
        lr=0.1,
        weight_decay=0,
        crop=16,
        scales=(1, 1),
    )
    assert history[0]["loss"] == 0 and all(torch.equal(before[name], x) for name, x in model.named_parameters())
