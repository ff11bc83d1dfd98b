"""Data: manifests, readers on every kind of damaged copy, decoding, batches, histograms."""

import colorsys
import json
import math
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from scalable_arch.data import (
    ImageFolder,
    check_dataset,
    colour_histogram_stripes,
    identity_batches,
    integer_labels,
    iter_image_batches,
    list_datasets,
    load_dataset,
    load_images,
    load_manifest,
    random_batches,
    random_erasing,
    random_flip,
    render_dataset,
    split_query,
    to_float,
    to_uint8,
)
from scalable_arch.data.readers import SPLITS, count_samples, image_fault, parse_name, reader_names
from scalable_arch.data.scenes import SceneSet
from scalable_arch.data.segmentation import ImageFiles, MaskFiles
from scalable_arch.errors import one_of
from scalable_arch.versions import VERSIONS

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
RENDERED = ("market1501", "dukemtmc", "cuhk03", "msmt17", "msmt17_v2")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A small rendered copy of each layout: {name: folder}."""
    root = tmp_path_factory.mktemp("rendered")
    for name in RENDERED:
        special = dict(num_distractors=3, num_junk=2) if name == "market1501" else {}
        render_dataset(
            name, root / name, num_train_ids=2, num_test_ids=2, num_cameras=2, shots=2, size=(64, 32), **special
        )
    return {name: root / name for name in RENDERED}


@pytest.fixture
def copy_of(rendered, tmp_path):
    """A copy of a rendered data set to damage: copy_of(name) -> folder."""
    return lambda name: shutil.copytree(rendered[name], tmp_path / name)


# ---- manifests


def test_manifest_counts_agree_with_the_printed_table():
    """W Table 3.2, and N for vehicles: identities and cameras of every set, images by the convention of each row."""
    for name in reader_names():
        manifest = load_manifest(name)
        for part in manifest["expected"].values() if name == "cuhk03" else [manifest["expected"]]:
            assert part["train"]["ids"] == manifest["printed"]["train_ids"]
            assert part["query"]["ids"] == manifest["printed"]["test_ids"]
            cameras = {20, 19} if name == "veri776" else {manifest["printed"]["cameras"]}  # one sees no test vehicle
            assert {part[split]["cameras"] for split in SPLITS} == cameras
            assert max(cameras) == manifest["printed"]["cameras"]
    market, cuhk03 = load_manifest("market1501")["expected"], load_manifest("cuhk03")["expected"]
    assert market["gallery"]["images"] - market["gallery"]["junk"] == 15913
    assert (cuhk03["labelled"]["train"]["images"], cuhk03["detected"]["train"]["images"]) == (7368, 7365)


def test_manifests_are_complete():
    assert set(list_datasets()) >= {*RENDERED, "vtest"}
    for name in list_datasets():
        manifest = load_manifest(name)
        assert manifest["name"] == name
        assert all(manifest[key] for key in ("title", "citation", "licence", "obtain", "notes"))
    assert "2019" in load_manifest("dukemtmc")["withdrawn"]


# ---- readers


@pytest.mark.parametrize("name", RENDERED)
def test_every_layout_is_read_sorted_and_without_touching_it(rendered, name):
    before = sorted((path, path.stat().st_mtime_ns) for path in rendered[name].rglob("*"))
    dataset = load_dataset(name, rendered[name])
    assert sorted((path, path.stat().st_mtime_ns) for path in rendered[name].rglob("*")) == before
    for split in SPLITS:
        samples = getattr(dataset, split)
        assert list(samples) == sorted(samples) and samples
        assert all(sample.path.startswith(str(rendered[name])) for sample in samples)
    assert dataset == load_dataset(name, str(rendered[name]))
    assert sorted(set(dataset.train_labels)) == list(range(dataset.num_train_pids)) and dataset.num_train_pids == 2
    assert {sample.pid for sample in dataset.query} <= {sample.pid for sample in dataset.gallery}
    assert check_dataset(name, rendered[name], decode=True).ok


def test_readers_agree_with_file_names_read_by_hand(rendered):
    dataset = load_dataset("market1501", rendered["market1501"])
    by_hand = Counter()
    for path in (rendered["market1501"] / "bounding_box_test").iterdir():
        pid, camera = path.name.split("_")[:2]
        by_hand[int(pid), int(camera.split("s")[0][1:])] += 1
    assert Counter((sample.pid, sample.camid) for sample in dataset.gallery) == by_hand
    assert sum(count for (pid, _), count in by_hand.items() if pid == 0) == 3
    assert sum(count for (pid, _), count in by_hand.items() if pid == -1) == 2

    dataset = load_dataset("msmt17", rendered["msmt17"])
    lines = [
        line.split()
        for list_file in ("list_train.txt", "list_val.txt")
        for line in (rendered["msmt17"] / list_file).read_text().splitlines()
    ]
    expected = Counter((int(pid), int(path.split("/")[-1].split("_")[2])) for path, pid in lines)
    assert Counter((sample.pid, sample.camid) for sample in dataset.train) == expected


def test_root_may_be_the_folder_above_and_boxes_choose(rendered, tmp_path):
    shutil.copytree(rendered["market1501"], tmp_path / "Market-1501-v15.09.15")
    assert len(load_dataset("market1501", tmp_path).train) == len(
        load_dataset("market1501", rendered["market1501"]).train
    )
    labelled, detected = (load_dataset("cuhk03", rendered["cuhk03"], boxes=boxes) for boxes in ("labelled", "detected"))
    assert "labeled" in labelled.train[0].path and "detected" in detected.train[0].path
    assert load_dataset("cuhk03", rendered["cuhk03"]) == labelled
    with pytest.raises(ValueError, match="did you mean 'labelled'"):
        load_dataset("cuhk03", rendered["cuhk03"], boxes="labeled")
    with pytest.raises(ValueError, match="one kind of boxes"):
        load_dataset("market1501", rendered["market1501"], boxes="detected")


def test_other_things_in_the_folder_are_passed_over(copy_of):
    root = copy_of("market1501")
    for stray in ("Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "readme.txt"):
        (root / "query" / stray).write_bytes(b"x")
    assert check_dataset("market1501", root).ok and load_dataset("market1501", root)


DAMAGES = {
    "missing folder": ("market1501", lambda root: shutil.rmtree(root / "query"), "query is missing"),
    "empty folder": ("dukemtmc", lambda root: [file.unlink() for file in (root / "query").iterdir()], "holds no image"),
    "one image missing": (
        "market1501",
        lambda root: next((root / "query").iterdir()).unlink(),
        "query has 3 images where the rendered set has 4",
    ),
    "copied twice": (
        "market1501",
        lambda root: copy_beside(root / "query", " (1).jpg"),
        "do not say person and camera",
    ),
    "two suffixes": ("market1501", lambda root: copy_beside(root / "query", ".png"), "under two suffixes"),
    "list cut": ("msmt17", lambda root: cut(root / "list_gallery.txt"), "is not 'folder/name.jpg person'"),
    "list missing": ("msmt17_v2", lambda root: (root / "list_val.txt").unlink(), "list_val.txt is missing"),
    "line twice": ("msmt17", lambda root: double_line(root / "list_query.txt"), "is listed twice"),
    "boxes missing": ("cuhk03", lambda root: shutil.rmtree(root / "labeled"), "labeled"),
    "world.json cut": ("dukemtmc", lambda root: cut(root / "world.json"), "is damaged"),
}


def copy_beside(folder, ending):
    first = sorted(folder.iterdir())[0]
    shutil.copy(first, folder / (first.stem + ending))


def cut(file):
    text = file.read_text()
    file.write_text(text[: -len(text) // 3] + "\n" + text[:7])


def double_line(file):
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_one_clear_sentence(copy_of, damage):
    name, break_it, words = DAMAGES[damage]
    root = copy_of(name)
    break_it(root)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_dataset(name, root)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    check = check_dataset(name, root)
    assert not check.ok and check.problems[0] in str(check)


def test_a_part_can_be_read_on_purpose(copy_of):
    root = copy_of("market1501")
    next((root / "query").iterdir()).unlink()
    assert len(load_dataset("market1501", root, check=False).query) == 3


def test_check_names_missing_surplus_and_empty_files(copy_of):
    root = copy_of("msmt17")
    gone = root / "test" / (root / "list_query.txt").read_text().split()[0]
    gone.unlink()
    problem = check_dataset("msmt17", root).problems[0]
    assert str(gone) in problem and "(missing)" in problem and problem.startswith("1 of")
    Image.new("RGB", (8, 16)).save(gone)
    extra = root / "train" / "0000" / "0000_999_01_0303morning_0008_0.jpg"
    extra.parent.mkdir(exist_ok=True)
    shutil.copy(gone, extra)
    assert check_dataset("msmt17", root).problems == (f"1 image files are in no list, the first is {extra}",)
    extra.unlink()
    gone.write_bytes(b"")
    assert "(empty)" in check_dataset("msmt17", root).problems[0]
    gone.write_bytes(b"no picture")
    assert check_dataset("msmt17", root).ok  # only its bytes would tell
    assert "not readable" in check_dataset("msmt17", root, decode=True).problems[0]


def test_check_says_how_many_too_many(copy_of):
    root = copy_of("market1501")
    first = sorted((root / "bounding_box_train").iterdir())[0]
    shutil.copy(first, first.with_name("0999" + first.name[4:]))
    check = check_dataset("market1501", root)
    assert check.source == "rendered" and "RENDERED" in str(check)
    assert check.problems[0].startswith("train: 3 ids where 2 are expected (1 surplus)")


def test_real_folders_are_compared_with_the_published_counts(copy_of):
    root = copy_of("dukemtmc")
    (root / "world.json").unlink()
    with pytest.raises(ValueError, match="train has 2 ids where the published set has 702"):
        load_dataset("dukemtmc", root)
    assert check_dataset("dukemtmc", root).source == "published"


def test_names_and_versions_are_not_mixed_up(rendered, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'market1501'"):
        load_dataset("market-1501", rendered["market1501"])
    with pytest.raises(ValueError, match="choose one of: cuhk03, dukemtmc, market1501, msmt17, msmt17_v2"):
        load_dataset("vtest", tmp_path)
    with pytest.raises(FileNotFoundError, match="it is msmt17_v2; load it under that name"):
        load_dataset("msmt17", rendered["msmt17_v2"])
    with pytest.raises(FileNotFoundError, match="it is msmt17; load it under that name"):
        load_dataset("msmt17_v2", rendered["msmt17"])
    with pytest.raises(ValueError, match="was written as market1501"):
        load_dataset("dukemtmc", rendered["market1501"])
    for read in (load_dataset, check_dataset):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            read("market1501", tmp_path / "nowhere")


@given(
    pid=st.one_of(st.just(-1), st.integers(0, 9999)),
    camid=st.integers(1, 15),
    sequence=st.integers(1, 6),
    frame=st.integers(0, 999999),
)
@settings(CALM)
def test_names_of_all_three_styles_parse(pid, camid, sequence, frame):
    text = "-1" if pid < 0 else f"{pid:04d}"
    for name in (
        f"{text}_c{camid}s{sequence}_{frame:06d}_01.jpg",
        f"{text}_c{camid}_f{frame:07d}.jpg",
        f"{text}_c{camid}_{frame}.png",
    ):
        assert parse_name(name) == (pid, camid)


@given(st.text(max_size=20))
@settings(CALM)
def test_no_name_breaks_the_parser(name):
    parsed = parse_name(name)
    assert parsed is None or (parsed[0] >= -1 and parsed[1] >= 0 and "_c" in name)


def test_counting_leaves_junk_and_distractors_out():
    dataset = [("a", -1, 1), ("b", 0, 2), ("c", 0, 1), ("d", 5, 3)]
    samples = [type("S", (), dict(path=path, pid=pid, camid=camid))() for path, pid, camid in dataset]
    kinds = ("ids", "images", "cameras", "distractors", "junk")
    assert count_samples(samples, kinds) == dict(ids=1, images=4, cameras=3, distractors=2, junk=1)
    assert count_samples(samples, ("ids",)) == dict(ids=2)  # person 0 is a person where no distractors are kept apart


# ---- images


@pytest.fixture
def pictures(tmp_path):
    """Ten smooth JPEGs of different sizes."""
    coarse = np.random.default_rng(1).integers(0, 255, (10, 8, 4, 3), dtype=np.uint8)
    for number, pixels in enumerate(coarse):
        Image.fromarray(pixels).resize((40 + 8 * number, 100 + 9 * number), Image.Resampling.BICUBIC).save(
            tmp_path / f"{number}.jpg", quality=95
        )
    return sorted(tmp_path.glob("*.jpg"))


def test_decoding_equals_plain_pillow(pictures):
    images = load_images(pictures, (64, 32), chunk=3)
    assert images.dtype == torch.uint8 and images.shape == (10, 3, 64, 32)
    for image, path in zip(images, pictures):
        plain = np.asarray(Image.open(path).convert("RGB").resize((32, 64), Image.Resampling.BILINEAR))
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - plain).max() <= 1


def test_big_images_stay_close_to_plain_pillow(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((512, 1024), Image.Resampling.BICUBIC).save(tmp_path / "big.jpg", quality=95)
    plain = np.asarray(Image.open(tmp_path / "big.jpg").resize((64, 160), Image.Resampling.BILINEAR)).astype(float)
    ours = load_images([tmp_path / "big.jpg"])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - plain).mean() < 2


def test_other_kinds_of_files_decode(tmp_path):
    Image.new("L", (20, 40), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (20, 40), (10, 20, 30, 255)).save(tmp_path / "alpha.png")
    Image.new("CMYK", (20, 40)).save(tmp_path / "cmyk.jpg")
    images = load_images([tmp_path / "grey.png", tmp_path / "alpha.png", tmp_path / "cmyk.jpg"], (8, 4))
    assert images[0].unique().tolist() == [77] and images[1, :, 0, 0].tolist() == [10, 20, 30] and images[2].min() > 250


@given(count=st.integers(0, 10), batch_size=st.integers(1, 12))
@settings(CALM, max_examples=20)
def test_streaming_equals_loading(tmp_path_factory, count, batch_size):
    folder = tmp_path_factory.mktemp("stream")
    for number in range(count):
        Image.new("RGB", (4, 8), (number, 0, 0)).save(folder / f"{number}.png")
    paths = sorted(folder.iterdir())
    batches = list(iter_image_batches(paths, (8, 4), batch_size))
    assert [len(batch) for batch in batches] == [
        min(batch_size, count - start) for start in range(0, count, batch_size)
    ]
    assert torch.equal(torch.cat([torch.empty(0, 3, 8, 4, dtype=torch.uint8), *batches]), load_images(paths, (8, 4)))


def test_unreadable_images_are_counted_and_named(pictures, tmp_path):
    broken = {
        "cut.jpg": pictures[0].read_bytes()[:700],
        "zero.jpg": b"",
        "text.jpg": b"no picture",
        "noise.png": b"\x89PNG\r\n\x1a\n" + bytes(90),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    bad = [tmp_path / name for name in (*broken, "gone.jpg", "folder.jpg")]
    with pytest.raises(ValueError) as caught:
        load_images([*pictures, *bad])
    message = str(caught.value)
    assert message.startswith("6 of 16 images cannot be read") and "and 1 more" in message and "\n" not in message
    assert (
        all(str(path) in message for path in bad[:5])
        and "gone.jpg (missing)" in message
        and "text.jpg (not an image)" in message
    )
    with pytest.raises(ValueError, match="cut.jpg"):
        list(iter_image_batches([*pictures, bad[0]], batch_size=4))


def test_no_permission_is_named_too(pictures, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"10 of 10 images cannot be read: .*0.jpg \(\[Errno 13\] Permission denied\)"):
        load_images(pictures)


def test_wrong_sizes_and_tensors_are_one_sentence(pictures):
    for size in ((0, 64), 160, (160,), ("a", "b"), (160, 64, 3)):
        with pytest.raises(ValueError, match=r"size is \(height, width\)"):
            load_images(pictures, size)
    for one in (pictures[0], str(pictures[0])):
        for load in (load_images, iter_image_batches):
            with pytest.raises(ValueError, match="paths must be a list of files, not one path: .'.*jpg'."):
                load(one)
    with pytest.raises(ValueError, match="batch_size"):
        iter_image_batches(pictures, batch_size=0)
    for wrong in (
        torch.zeros(2, 3, 4, 4),
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match="uint8 of shape"):
            to_float(wrong)


def test_to_float_normalises_and_comes_back():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    floats = to_float(images)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))):
        assert abs(floats[0, channel, 0, 5].item() - (5 / 255 - mean) / std) < 1e-6
    assert torch.equal(to_uint8(floats), images)


# ---- what a file holds, and which way is up


def every_reader(path, size=(8, 8)):
    """{reader: the pixels of one file as (H, W, 3)} of all readers of images."""
    scene = SceneSet(["x"], np.zeros(1, np.int64), [torch.zeros(0, 4)], [torch.zeros(0)], [str(path)], np.array([size]))
    tensors = {
        "load_images": lambda: load_images([path], size)[0],
        "iter_image_batches": lambda: next(iter_image_batches([path], size))[0],
        "ImageFolder": lambda: ImageFolder([path], size=size[0])[0],
        "SceneSet": lambda: scene.image(0),
        "ImageFiles": lambda: ImageFiles([path])[0],
    }
    return {name: (lambda read=read: read().permute(1, 2, 0).numpy()) for name, read in tensors.items()}


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
@pytest.mark.parametrize(
    "value, shown", [(0, 0), (257 * 90, 90), (257 * 90 + 128, 90), (257 * 90 + 129, 91), (65535, 255)]
)
def test_16_bit_grey_is_scaled_by_every_reader(tmp_path, ending, value, shown):
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(np.full((8, 8), value, np.uint16)).save(path)
    for name, read in every_reader(path).items():
        assert (read() == shown).all(), name
    assert image_fault(path, decode=True) is None


@pytest.mark.parametrize("dtype, kind", [(np.float32, "float"), (np.int32, "32-bit integer")])
def test_pixels_without_a_white_are_refused_by_every_reader(tmp_path, dtype, kind):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.linspace(0, 1, 64).reshape(8, 8).astype(dtype)).save(path)
    for name, read in every_reader(path).items():
        with pytest.raises(ValueError, match=f"deep.tif.*holds {kind} pixels.*save it with 8 or 16 bits") as caught:
            read()
        assert "\n" not in str(caught.value) and "damaged" not in str(caught.value), name
    assert f"holds {kind} pixels" in image_fault(path, decode=True)


def transparent(kind):
    """A picture of (8, 8) whose pixels are all transparent, over red."""
    if kind == "RGBA":
        return Image.new("RGBA", (8, 8), (255, 0, 0, 0)), {}
    if kind == "LA":
        return Image.new("LA", (8, 8), (0, 0)), {}
    if kind == "RGB":
        return Image.new("RGB", (8, 8), (255, 0, 0)), dict(transparency=(255, 0, 0))
    if kind == "L":
        return Image.new("L", (8, 8), 3), dict(transparency=3)
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image, dict(transparency=1)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "RGB", "L", "P"])
def test_what_is_transparent_is_white_to_every_reader(tmp_path, kind):
    image, options = transparent(kind)
    image.save(tmp_path / "cut.png", **options)
    for name, read in every_reader(tmp_path / "cut.png").items():
        assert (read() == 255).all(), name


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (8, 8), (200, 0, 100, 51)).save(tmp_path / "veil.png")
    for name, read in every_reader(tmp_path / "veil.png").items():
        assert np.abs(read().astype(int) - [244, 204, 224]).max() <= 1, name


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_own_pictures_are_turned_and_published_sets_are_not(tmp_path, orientation, ending):
    """A picture with a bright upper left quarter, stored in each of the eight ways."""
    upright = np.full((64, 32), 40, np.uint8)
    upright[:32, :16], upright[:32, 16:] = 220, 100
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif, path = Image.Exif(), tmp_path / f"turned.{ending}"
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(path, exif=exif, quality=95)
    corners = lambda pixels: [int(pixels[y, x].mean()) > 128 for y in (1, -2) for x in (1, -2)]
    for name, read in every_reader(path, (64, 32)).items():
        pixels = read()
        if name in ("SceneSet", "ImageFiles"):
            assert pixels.shape[:2] == stored.shape and corners(pixels) == corners(stored[..., None])
        else:
            assert corners(pixels) == [True, False, False, False], (name, orientation)
    assert torch.equal(ImageFolder([path], size=16, upright=False)[0], ImageFolder([path], size=16)[0]) == (
        orientation == 1
    )


def test_large_pictures_are_turned_before_they_are_made_small(tmp_path, monkeypatch):
    """The decoder's own reduction is asked for with the sides as they are stored."""
    smooth = np.random.default_rng(2).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    upright = Image.fromarray(smooth).resize((512, 1024), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "a.jpg", quality=95)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", quality=95, exif=exif)
    a, b = load_images([tmp_path / "a.jpg", tmp_path / "b.jpg"]).float()
    assert (a - b).abs().mean() < 2
    asked, draft = [], JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda image, *what: asked.append(what) or draft(image, *what))
    for name in ("a.jpg", "b.jpg"):
        load_images([tmp_path / name], (64, 160))
    assert asked == [("RGB", (320, 128)), ("RGB", (128, 320))]


def test_damaged_exif_data_leave_the_picture_as_it_is(tmp_path):
    image = Image.new("RGB", (8, 16), (10, 200, 30))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\xff\xff\0\0")
    image.save(tmp_path / "b.jpg", exif=b"Exif\0\0no TIFF at all")
    assert load_images([tmp_path / "a.jpg", tmp_path / "b.jpg"], (16, 8)).float().mean((2, 3))[:, 1].min() > 195


def test_one_path_is_no_list_of_paths(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    for one in (path, str(path), str(path).encode()):
        for read in (load_images, iter_image_batches, ImageFolder, ImageFiles, lambda x: MaskFiles(x, [path], 3)):
            with pytest.raises(ValueError, match="paths must be a list of files, not one path"):
                read(one)


@pytest.mark.parametrize("wrong", [-1, 0, 2.5, True, "64", None])
def test_numbers_of_things_are_whole_and_positive(tmp_path, wrong):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"]
    for call in (
        lambda: load_images(paths, chunk=wrong),
        lambda: iter_image_batches(paths, batch_size=wrong),
        lambda: ImageFolder(paths, size=wrong),
    ):
        with pytest.raises(ValueError, match=f"must be a whole number of at least 1, not {wrong!r}"):
            call()
    assert len(load_images(paths, chunk=np.int64(3))) == 1


# ---- labels


LABELS = [5, 2, 5, 9, 2, 9]


@pytest.mark.parametrize(
    "given",
    [
        LABELS,
        tuple(LABELS),
        np.array(LABELS, np.uint8),
        np.array(LABELS, np.uint64),
        np.array(LABELS, object),
        pd.Series(LABELS, index=[8, 1, 3, 9, 11, 4]),
        pd.Series([0, *LABELS])[lambda column: column > 0],
        pd.Series(LABELS, dtype="UInt16"),
        torch.tensor(LABELS, dtype=torch.int32),
        torch.tensor(LABELS, dtype=torch.uint16),
    ],
)
def test_labels_are_taken_as_people_have_them(given):
    assert integer_labels(given).tolist() == LABELS and integer_labels(given).dtype == torch.int64
    batches = lambda labels: torch.cat(list(identity_batches(labels, 2, 2, generator=torch.Generator().manual_seed(0))))
    assert torch.equal(batches(given), batches(torch.tensor(LABELS)))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (np.array(LABELS)[:, None], r"of shape \(N,\), not \(6, 1\)"),
        (pd.Series(["anna", "ben"]), "not texts"),
        (["anna", "ben"], "not texts"),
        (np.array(LABELS, float), "not float64"),
        (np.array([True, False]), "not bool"),
        (np.array([2**64 - 1, 1], np.uint64), "18446744073709551615"),
        ([2**70, 1], "not texts|64 bits"),
        (5, r"not \(\)"),
        (pd.Series([1, None]), "not float64"),
    ],
)
def test_labels_that_would_mix_persons_are_one_sentence(wrong, words):
    for call in (integer_labels, lambda labels: identity_batches(labels, 1, 1, generator=torch.Generator())):
        with pytest.raises(ValueError, match=words) as caught:
            call(wrong)
        assert "\n" not in str(caught.value)


def test_queries_are_split_by_labels_of_any_kind():
    pids, camids = [7, 7, 7, 8], [1, 1, 2, 1]
    wanted = [True, False, True, True]
    for people in (
        pids,
        np.array(pids, np.uint64) + np.uint64(2**63),
        ["a", "a", "a", "b"],
        pd.Series(pids, [4, 3, 2, 1]),
    ):
        assert split_query(people, np.array(camids)).tolist() == wanted
    near = np.array([2**63, 2**63, 2**63, 2**63 + 1], np.uint64)  # one float64
    assert split_query(near, np.array([1, 1, 2, 1])).tolist() == wanted


# ---- errors


def test_a_hint_is_never_the_value_itself():
    for value, valid in (("50", [50, 100]), (1.5, ["1.5"])):
        with pytest.raises(ValueError) as caught:
            one_of("size", value, valid)
        assert "did you mean" not in str(caught.value) and str(caught.value).startswith(
            f"unknown size {value!r}; choose"
        )
    with pytest.raises(ValueError, match="did you mean '100'"):
        one_of("size", "1000", [50, 100])


# ---- batches


@given(n=st.integers(1, 60), batch_size=st.integers(1, 20), seed=st.integers(0, 9), drop_last=st.booleans())
@settings(CALM)
def test_random_batches_visit_everything_once(n, batch_size, seed, drop_last):
    batches = [
        list(random_batches(n, batch_size, torch.Generator().manual_seed(seed), drop_last=drop_last)) for _ in range(2)
    ]
    assert all(torch.equal(one, two) for one, two in zip(*batches, strict=True))
    visited = [index for batch in batches[0] for index in batch.tolist()]
    assert len(set(visited)) == len(visited)
    assert len(visited) == (n // batch_size * batch_size if drop_last else n)
    assert all(len(batch) == batch_size for batch in batches[0][:-1])


@given(
    labels=st.lists(st.integers(0, 7), min_size=1, max_size=80),
    num_ids=st.integers(1, 5),
    num_shots=st.integers(1, 5),
    seed=st.integers(0, 9),
)
@settings(CALM)
def test_identity_batches_hold_p_persons_and_k_shots(labels, num_ids, num_shots, seed):
    def epoch():
        return list(identity_batches(labels, num_ids, num_shots, generator=torch.Generator().manual_seed(seed)))

    if len(set(labels)) < num_ids:
        with pytest.raises(ValueError, match="persons needs as many"):
            epoch()
        return
    batches, sizes = epoch(), Counter(labels)
    assert batches and all(torch.equal(one, two) for one, two in zip(batches, epoch(), strict=True))
    for batch in batches:
        persons = [labels[index] for index in batch.tolist()]
        assert Counter(persons) == dict.fromkeys(persons, num_shots) and len(set(persons)) == num_ids
        assert persons == sum(([person] * num_shots for person in dict.fromkeys(persons)), [])
    uses = Counter(index for batch in batches for index in batch.tolist())
    for index, count in uses.items():
        assert count <= max(1, math.ceil(num_shots / sizes[labels[index]]))


def test_samplers_refuse_nonsense():
    generator = torch.Generator()
    for n, batch_size in ((0, 4), (4, 0), (-1, 2)):
        with pytest.raises(ValueError, match="at least"):
            random_batches(n, batch_size, generator)
    with pytest.raises(ValueError, match="at least 1"):
        identity_batches([0, 1], 0, 4, generator=generator)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_mirrors_some_and_leaves_the_input(dtype):
    images = torch.arange(40 * 3 * 2 * 5).remainder(251).view(40, 3, 2, 5).to(dtype)
    before = images.clone()
    flipped = random_flip(images, torch.Generator().manual_seed(0))
    same = [torch.equal(a, b) for a, b in zip(flipped, images)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, images)]
    assert all(one != two for one, two in zip(same, mirrored)) and 8 < sum(mirrored) < 32
    assert torch.equal(images, before) and flipped.dtype == dtype
    assert torch.equal(random_flip(images, torch.Generator(), p=0), images)


@given(height=st.integers(4, 40), width=st.integers(4, 40), seed=st.integers(0, 50))
@settings(CALM)
def test_erasing_paints_one_rectangle(height, width, seed):
    images = torch.ones(4, 3, height, width)
    erased = random_erasing(images, torch.Generator().manual_seed(seed), p=1.0)
    for image in erased:
        hole = (image == 0).all(0)
        assert torch.equal(hole, (image == 0).any(0))
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])  # a rectangle, without gaps:
        assert all(len(line.nonzero()) == 0 or line.nonzero().flatten().diff().eq(1).all() for line in (rows, columns))
        assert hole.float().mean() <= 0.4 + 1 / min(height, width)
    assert (images == 1).all()


def test_erasing_fills_bytes_with_the_mean_colour():
    erased = random_erasing(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), torch.Generator().manual_seed(0), p=1.0)
    assert [erased[0, channel].max().item() for channel in range(3)] == [124, 116, 104]


# ---- histograms


def slow_histogram(image, num_stripes, bins):
    """Pixel by pixel with colorsys."""
    height, width, _ = image.shape
    counts = np.zeros((num_stripes, *bins))
    for y in range(height):
        for x in range(width):
            hsv = colorsys.rgb_to_hsv(*(image[y, x] / 255))
            box = tuple(min(int(value * size + 1e-9), size - 1) for value, size in zip(hsv, bins))
            counts[(y * num_stripes // height, *box)] += 1
    counts = counts.reshape(num_stripes, -1)
    return np.sqrt(counts / counts.sum(1, keepdims=True) / num_stripes).ravel()


@given(seed=st.integers(0, 1000), num_stripes=st.integers(1, 5))
@settings(CALM, max_examples=15)
def test_histograms_equal_the_slow_ones(seed, num_stripes):
    images = np.random.default_rng(seed).integers(0, 256, (2, 12, 6, 3), dtype=np.uint8)
    ours = colour_histogram_stripes(torch.from_numpy(images).permute(0, 3, 1, 2), num_stripes).numpy()
    slow = np.stack([slow_histogram(image, num_stripes, (8, 4, 4)) for image in images])
    # a pixel on the border of two boxes may fall to either side in float32: at most one in a stripe here
    assert np.abs(ours**2 - slow**2).sum() * num_stripes <= 4 / (12 // num_stripes * 6)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_histograms_refuse_floats_and_too_many_stripes():
    assert colour_histogram_stripes(torch.empty(0, 3, 12, 6, dtype=torch.uint8)).shape == (0, 6 * 128)
    with pytest.raises(ValueError, match="must be uint8"):
        colour_histogram_stripes(torch.zeros(2, 3, 12, 6))
    with pytest.raises(ValueError, match="between 1 and the image height 12"):
        colour_histogram_stripes(torch.zeros(2, 3, 12, 6, dtype=torch.uint8), num_stripes=13)


def test_a_file_in_the_place_of_a_folder_is_told(copy_of):
    for name, part in (("market1501", "query"), ("msmt17", "train"), ("cuhk03", "labeled/query")):
        root = copy_of(name)
        shutil.rmtree(root / part)
        (root / part).write_bytes(b"an archive that was not unpacked")
        problem = check_dataset(name, root).problems[0]
        assert f"{part} is a file, not a folder" in problem and "\n" not in problem
        with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
            load_dataset(name, root)
    root = copy_of("msmt17_v2")
    (root / "list_val.txt").unlink()
    (root / "list_val.txt").mkdir()
    assert "list_val.txt is a folder, not a file" in check_dataset("msmt17_v2", root).problems[0]


def test_what_cannot_be_opened_is_a_problem_and_no_traceback(copy_of, monkeypatch):
    root = copy_of("market1501")

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("scalable_arch.data.readers.os.scandir", refuse)
    assert "Permission denied" in check_dataset("market1501", root).problems[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_lists_with_a_byte_order_mark_are_read(copy_of, encoding):
    root = copy_of("msmt17")
    before = load_dataset("msmt17", root)
    for file in [*root.glob("list_*.txt"), root / "world.json"]:
        file.write_text(file.read_text(), encoding=encoding, newline="\r\n")
    assert load_dataset("msmt17", root) == before and check_dataset("msmt17", root, decode=True).ok


def test_numbers_that_fit_into_no_tensor_are_named(copy_of):
    root = copy_of("market1501")
    first = sorted((root / "query").iterdir())[0]
    first.rename(first.with_name("9" * 30 + "_c1s1_000001_00.jpg"))
    with pytest.raises(ValueError, match="do not say person and camera"):
        load_dataset("market1501", root, check=False)
    root = copy_of("msmt17")
    listing = root / "list_query.txt"
    path, _ = listing.read_text().splitlines()[0].split()
    listing.write_text(f"{path} {'9' * 30}\n")
    with pytest.raises(ValueError, match="line 1 of .*list_query.txt is not"):
        load_dataset("msmt17", root, check=False)


def test_a_world_json_without_numbers_is_damaged(copy_of):
    root = copy_of("dukemtmc")
    world = json.loads((root / "world.json").read_text())
    for wrong in ("many", None, [1]):
        world["expected"]["query"]["images"] = wrong
        (root / "world.json").write_text(json.dumps(world))
        assert "world.json is damaged" in check_dataset("dukemtmc", root).problems[0]


def test_rendered_copies_carry_the_version_of_their_world(copy_of):
    world = json.loads((copy_of("cuhk03") / "world.json").read_text())
    assert world["version"] == VERSIONS["world.people"]


def test_world_json_holds_what_the_reader_counts(rendered):
    world = json.loads((rendered["market1501"] / "world.json").read_text())
    dataset = load_dataset("market1501", rendered["market1501"])
    for split in SPLITS:
        assert count_samples(getattr(dataset, split), world["expected"][split]) == world["expected"][split]
