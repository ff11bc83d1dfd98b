"""Images with one label each: official layouts written byte by byte, read back, damaged; the
table of NAS-Bench-Macro."""

import gzip
import hashlib
import json
import pickle
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scalable_arch.cli import main
from scalable_arch.data import (
    ImageFolder,
    check_classification,
    class_names,
    classification,
    get_files,
    load_classification,
    load_manifest,
    nas_bench_macro,
    write_classification,
)
from scalable_arch.data.classification import (
    choose_subset,
    classification_names,
    middle_box,
    random_box,
    read_binary,
    read_idx,
    read_pickled,
)

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))


def sentence(error):
    """The message of an error, which must be one sentence that names something to do."""
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text and len(text) > 30
    return text


def python2_pickle(images, labels, *, key=b"labels", called=b"numpy.core.multiarray\n_reconstruct"):
    """A batch of the Python version as Python 2's cPickle wrote it: protocol 2, byte strings, an array by
    `_reconstruct`."""
    text = lambda s: b"U" + bytes([len(s)]) + s
    number = lambda n: b"K" + bytes([n]) if n < 256 else b"M" + struct.pack("<H", n)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = (
        b"c"
        + called
        + b"\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01"
        + number(len(images))
        + b"M\x00\x0c\x86"
        + dtype
        + b"\x89T"
        + struct.pack("<i", images.size)
        + images.tobytes()
        + b"tb"
    )
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    names = b"](" + b"".join(text(b"leptodactylus_s_%06d.png" % k) for k in range(len(labels))) + b"e"
    coarse = (
        text(b"coarse_labels") + b"](" + b"".join(number(19) for _ in labels) + b"e" if key == b"fine_labels" else b""
    )
    return (
        b"\x80\x02}("
        + text(b"batch_label")
        + text(b"training batch 1 of 5")
        + coarse
        + text(key)
        + listed
        + text(b"data")
        + array
        + text(b"filenames")
        + names
        + b"u."
    )


def some_images(n, classes=10, seed=0):
    """n random images (N, 3, 32, 32) and labels in which every class occurs."""
    dice = np.random.default_rng(seed)
    return dice.integers(0, 256, (n, 3, 32, 32), np.uint8), np.resize(np.arange(classes), n).astype(np.int64)


# ---- manifests


def test_manifests_name_official_files_and_printed_numbers():
    assert classification_names() == ["cifar10", "cifar100", "digits", "fashion_mnist", "imagenet"]
    for name in ("cifar10", "cifar100"):
        manifest = load_manifest(name)
        assert manifest["expected"]["train"]["images"] == manifest["printed"]["train_images"] == 50_000
        assert manifest["expected"]["test"]["images"] == manifest["printed"]["test_images"] == 10_000
        digests = [entry.get("sha1") or entry["md5"] for entry in manifest["files"]]
        assert len(set(digests)) == len(digests) and {len(digest) for digest in digests} == {32, 40}
        assert len(class_names(name)) == manifest["expected"]["train"]["classes"] == manifest["printed"]["classes"]
    assert list(class_names("cifar100")) == sorted(class_names("cifar100"))
    assert (
        round(load_manifest("imagenet")["expected"]["train"]["images"], -4)
        == load_manifest("imagenet")["printed"]["train_images"]
        == 1_280_000
    )


# ---- CIFAR


def test_binary_records_are_read_as_their_page_describes_them():
    content = bytes(rng.integers(0, 256, 3 * 3074, np.uint8))
    images, labels = read_binary(content, "x", 2)
    for record in range(3):
        start = record * 3074
        assert labels[record] == content[start + 1]
        for channel, row, column in ((0, 0, 0), (1, 3, 7), (2, 31, 31)):
            assert images[record, channel, row, column] == content[start + 2 + channel * 1024 + row * 32 + column]


def test_a_python_batch_is_read_as_unpickling_would_read_it_but_nothing_runs():
    images, labels = some_images(300)
    content = python2_pickle(images, labels.tolist())
    truth = pickle.loads(content, encoding="latin1")  # of bytes made here
    found, found_labels = read_pickled(content, "data_batch_1", "labels")
    assert (found.reshape(-1, 3072) == truth["data"]).all() and found_labels.tolist() == truth[
        "labels"
    ] == labels.tolist()
    fine = python2_pickle(images, labels.tolist(), key=b"fine_labels")
    assert (
        read_pickled(fine, "train", "fine_labels")[1].tolist() == pickle.loads(fine, encoding="latin1")["fine_labels"]
    )


def test_a_pickle_with_a_program_in_it_is_only_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(ValueError) as error:
        read_pickled(pickle.dumps({"labels": [1, 2], "data": Evil()}, protocol=2), "data_batch_1", "labels")
    assert "not a batch of the Python version" in sentence(error) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, key, label_bytes", [("cifar10", b"labels", 1), ("cifar100", b"fine_labels", 2)])
def test_both_versions_give_the_same(tmp_path, name, key, label_bytes):
    manifest = load_manifest(name)
    images, labels = some_images(200, len(class_names(name)))
    for version, folder in zip(("binary", "python"), manifest["images"]["inner"]):
        entries = [entry for entry in manifest["files"] if entry["version"] == version and entry["split"] == "train"]
        (tmp_path / version / folder).mkdir(parents=True)
        for entry, pixels, own in zip(
            entries, np.array_split(images, len(entries)), np.array_split(labels, len(entries))
        ):
            heads = [bytes([7] * (label_bytes - 1) + [label]) for label in own]
            content = (
                b"".join(head + image.tobytes() for head, image in zip(heads, pixels))
                if version == "binary"
                else python2_pickle(pixels, own.tolist(), key=key)
            )
            (tmp_path / version / folder / entry["name"]).write_bytes(content)
        found, found_labels = load_classification(name, tmp_path / version, check=False)
        assert (
            found.dtype == torch.uint8 and (found.numpy() == images).all() and found_labels.tolist() == labels.tolist()
        )
        with pytest.raises(ValueError) as error:
            load_classification(name, tmp_path / version)
        assert entries[0]["name"] in sentence(error) and "altered" in str(error.value)


def test_damaged_batches_are_named(tmp_path):
    images, labels = some_images(50)
    write_classification("cifar10", tmp_path / "c", (images, labels), (images[:20], labels[:20]))
    third, whole = tmp_path / "c" / "data_batch_3.bin", (tmp_path / "c" / "data_batch_3.bin").read_bytes()
    for content, check, words in (
        (whole[:-1], True, "altered or cut short"),
        (whole[:-1], False, "not a number of whole records"),
        (b"", False, "0 bytes"),
        (whole[:3073], False, None),
        (bytes([whole[0] ^ 1]) + whole[1:], True, "altered"),
    ):
        third.write_bytes(content)
        if words is None:
            assert len(load_classification("cifar10", tmp_path / "c", check=False)[1]) == 41
            continue
        with pytest.raises(ValueError) as error:
            load_classification("cifar10", tmp_path / "c", check=check)
        assert words in sentence(error) and "data_batch_3.bin" in str(error.value)
    third.unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_classification("cifar10", tmp_path / "c")
    assert "data_batch_3.bin is missing" in sentence(error) and "download" in str(error.value)
    assert len(load_classification("cifar10", tmp_path / "c", "test")[0]) == 20
    for content in (python2_pickle(images[:9], labels[:9].tolist())[:-9000], b"", b"\x80\x02}q."):
        with pytest.raises(ValueError) as error:
            read_pickled(content, "data_batch_1", "labels")
        assert "data_batch_1" in sentence(error)


# ---- IDX


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_idx_arrays_come_back(shape, chance):
    array = np.array([chance.randrange(256) for _ in range(int(np.prod(shape)))], np.uint8).reshape(shape)
    content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    assert (read_idx(content, "x", len(shape)) == array).all() and read_idx(
        content, "x", len(shape)
    ).shape == array.shape
    for damaged in (content + b"\0", content[:-1] if array.size else content[:5], b"\0\0\x0d" + content[3:], b""):
        with pytest.raises(ValueError):
            read_idx(damaged, "x", len(shape))


def write_fashion(folder, images, labels, *, packed=True, split="train"):
    prefix = {"train": "train", "test": "t10k"}[split]
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (
        (f"{prefix}-images-idx3-ubyte", images),
        (f"{prefix}-labels-idx1-ubyte", labels.astype(np.uint8)),
    ):
        content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content, 1) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_padded_and_repeated(tmp_path, packed):
    grey, labels = rng.integers(0, 256, (30, 28, 28), np.uint8), some_images(30)[1]
    write_fashion(tmp_path / "FashionMNIST" / "raw", grey, labels, packed=packed)
    images, found = load_classification("fashion_mnist", tmp_path, check=False)
    assert (
        images.shape == (30, 3, 32, 32)
        and images.dtype == torch.uint8
        and images.is_contiguous()
        and found.tolist() == labels.tolist()
    )
    for channel in range(3):
        assert (images[:, channel, 2:30, 2:30].numpy() == grey).all()
    assert images.sum() == 3 * grey.astype(int).sum()  # the frame is black
    with pytest.raises(ValueError, match="altered"):
        load_classification("fashion_mnist", tmp_path)


def test_damaged_idx_files_are_named(tmp_path):
    grey, labels = rng.integers(0, 256, (30, 28, 28), np.uint8), some_images(30)[1]
    file = tmp_path / "train-images-idx3-ubyte.gz"
    write_fashion(tmp_path, grey, labels)
    whole = file.read_bytes()
    for content in (
        whole[:500],
        b"nothing",
        gzip.compress(gzip.decompress(whole)[:-5]),
        gzip.compress(gzip.decompress(whole)[4:]),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError) as error:
            load_classification("fashion_mnist", tmp_path, check=False)
        assert str(file) in sentence(error)
    for other in (grey[:29], grey[:, :27]):
        write_fashion(tmp_path, other, labels)
        with pytest.raises(ValueError) as error:
            load_classification("fashion_mnist", tmp_path, check=False)
        assert "one label an image of 28 x 28" in sentence(error)
    with pytest.raises(FileNotFoundError, match="scalable-arch data get fashion_mnist"):
        load_classification("fashion_mnist")


# ---- digits and choices


def test_digits_need_nothing_and_keep_their_order():
    from sklearn.datasets import load_digits

    (train, labels), (test, test_labels) = load_classification("digits"), load_classification("digits", split="test")
    assert train.shape == (1500, 3, 32, 32) and test.shape == (297, 3, 32, 32)
    assert torch.cat([labels, test_labels]).tolist() == load_digits().target.tolist()
    small = torch.nn.functional.avg_pool2d(train[:, :1].float(), 4)[:, 0]  # bilinear by 4 and back: nearly the same
    corner = np.corrcoef(small.flatten(1).numpy().ravel(), load_digits().images[:1500].ravel())[0, 1]
    assert corner > 0.97 and (train[:, 0] == train[:, 2]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3), st.data())
def test_subsets_are_balanced_sorted_and_nested(labels, seed, data):
    labels = np.array(labels)
    limit = data.draw(st.integers(1, len(labels)))
    chosen = choose_subset(labels, limit, seed)
    assert len(chosen) == limit and (np.diff(chosen) > 0).all()
    counts, there = np.bincount(labels[chosen], minlength=5), np.bincount(labels, minlength=5)
    unfinished = [counts[label] for label in range(5) if counts[label] < there[label]]
    assert all(
        most - 1 <= least for least in unfinished for most in counts[counts > 0]
    )  # nobody has less than another, but for the last turn
    smaller = choose_subset(labels, data.draw(st.integers(1, limit)), seed)
    assert set(smaller) <= set(chosen)


def test_limit_is_drawn_by_the_seed_and_checked():
    images, labels = load_classification("digits", limit=100, seed=1)
    assert labels.bincount().tolist() == [10] * 10 and images.is_contiguous()
    assert not torch.equal(images, load_classification("digits", limit=100, seed=2)[0])
    assert torch.equal(images, load_classification("digits", limit=100, seed=1)[0])
    for limit in (0, 1501, 2.5, "all"):
        with pytest.raises(ValueError, match="limit must be a whole number from 1 to 1,500"):
            load_classification("digits", limit=limit)


# ---- ImageNet


@pytest.fixture
def imagenet(tmp_path):
    images = [rng.integers(0, 256, (3, 40 + 8 * k, 60), np.uint8) for k in range(6)]
    for split, count in (("train", 6), ("val", 3)):
        for k in range(count):
            folder = tmp_path / "net" / split / f"n0144076{k % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[k].transpose(1, 2, 0)).save(folder / f"n0144076{k % 3}_{k}.JPEG", quality=95)
    return tmp_path / "net"


def test_imagenet_is_read_when_indexed(imagenet):
    images, labels = load_classification("imagenet", imagenet, "test", check=False, size=16)
    assert labels.tolist() == [0, 1, 2] and len(images) == 3 and isinstance(images, ImageFolder)
    assert images[0].shape == (3, 16, 16) and images[torch.tensor([2, 0])].shape == (2, 3, 16, 16)
    assert (
        torch.equal(images[[2, 0]][1], images[0])
        and torch.equal(images[-1], images[2])
        and images[:0].shape == (0, 3, 16, 16)
    )
    with Image.open(images.paths[0]) as image:
        box = middle_box(*image.size)
        cut = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    assert (
        box == (12.5, 2.5, 47.5, 37.5) and (images[0].permute(1, 2, 0).numpy() == np.asarray(cut)).all()
    )  # 7/8 of 40 in the middle of 60 x 40
    with pytest.raises(ValueError, match="train has 6 images where 1,281,167 are expected"):
        load_classification("imagenet", imagenet)


def test_random_views_follow_torchs_seed(imagenet):
    images, labels = load_classification("imagenet", imagenet, check=False, size=16, limit=4)
    assert sorted(labels.bincount().tolist()) == [1, 1, 2]
    torch.manual_seed(5)
    first = images[[0, 1]]
    torch.manual_seed(6)
    second = images[[0, 1]]
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(first, images[[1, 0]].flip(0)) and not torch.equal(
        first, second
    )  # whatever the order, whatever was drawn before


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 500), st.integers(1, 500), st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=5)
)
def test_random_boxes_lie_inside_and_have_their_area(width, height, dice):
    left, top, right, bottom = random_box(width, height, dice)
    assert -1e-6 <= left <= right <= width + 1e-6 and -1e-6 <= top <= bottom <= height + 1e-6
    wide, high = right - left, bottom - top
    fits = [
        roll
        for roll in dice
        if ((0.08 + 0.92 * roll[0]) * width * height * (3 / 4 * (16 / 9) ** roll[1])) ** 0.5 <= width
        and ((0.08 + 0.92 * roll[0]) * width * height / (3 / 4 * (16 / 9) ** roll[1])) ** 0.5 <= height
    ]
    expected = (0.08 + 0.92 * fits[0][0]) * width * height if fits else min(width, height) ** 2
    assert np.isclose(wide * high, expected) and 0.74 < wide / high < 1.35


def test_bad_imagenet_folders_are_named(imagenet):
    path = imagenet / "val" / "n01440761" / "n01440761_1.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    images, _ = load_classification("imagenet", imagenet, "test", check=False)
    with pytest.raises(ValueError) as error:
        images[torch.arange(3)]
    assert str(path) in sentence(error)
    checked = check_classification("imagenet", imagenet, decode=True)
    assert not checked.ok and str(path) in checked.problems[-1]
    path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_classification("imagenet", imagenet, "test", check=False)
    assert "n01440761 holds no image" in sentence(error)
    shutil.rmtree(imagenet / "val")
    with pytest.raises(FileNotFoundError, match="there is no folder .*val"):
        load_classification("imagenet", imagenet, "test")
    (imagenet / "val").mkdir()
    with pytest.raises(FileNotFoundError, match="no class folders"):
        load_classification("imagenet", imagenet, "test")


def test_a_class_that_is_missing_in_a_split_shifts_no_label(imagenet):
    shutil.rmtree(imagenet / "val" / "n01440761")
    images, labels = load_classification("imagenet", imagenet, "test", check=False)
    assert labels.tolist() == [0, 2] and [Path(path).parent.name for path in images.paths] == ["n01440760", "n01440762"]
    shutil.rmtree(imagenet / "train" / "n01440760")
    assert load_classification("imagenet", imagenet, "train", check=False)[1].unique().tolist() == [1, 2]
    assert load_classification("imagenet", imagenet, "test", check=False)[1].tolist() == [0, 2]
    shutil.rmtree(imagenet / "train")
    assert load_classification("imagenet", imagenet, "test", check=False)[1].tolist() == [0, 1]
    with pytest.raises(ValueError, match="test has 2 images where 50,000"):
        load_classification("imagenet", imagenet, "test")


def test_hidden_files_are_no_images(imagenet):
    before = load_classification("imagenet", imagenet, "test", check=False)[0].paths
    (imagenet / "val" / "n01440760" / "._n01440760_0.JPEG").write_bytes(b"a resource fork of macOS")
    (imagenet / "val" / "._n01440760").mkdir()
    assert load_classification("imagenet", imagenet, "test", check=False)[0].paths == before
    assert check_classification("imagenet", imagenet, decode=True).table.found.tolist() == [6, 3, 3, 3]
    for name in ("n01440760_0.JPEG", "n01440760_3.JPEG"):
        (imagenet / "train" / "n01440760" / name).rename(imagenet / "train" / "n01440760" / f"._{name}")
    with pytest.raises(FileNotFoundError, match="n01440760 holds no image"):
        load_classification("imagenet", imagenet, check=False)


def test_imagenet_is_read_as_it_is_stored(imagenet):
    """Some of its images carry an EXIF orientation that nobody's reader heeds."""
    path = imagenet / "val" / "n01440761" / "n01440761_1.JPEG"
    before = load_classification("imagenet", imagenet, "test", check=False, size=16)[0][1]
    exif = Image.Exif()
    exif[0x0112] = 6
    segment = exif.tobytes()
    length = struct.pack(">H", len(segment) + 2)
    path.write_bytes(b"\xff\xd8\xff\xe1" + length + segment + path.read_bytes()[2:])  # the same pixels
    images = load_classification("imagenet", imagenet, "test", check=False, size=16)[0]
    assert torch.equal(images[1], before) and not torch.equal(ImageFolder(images.paths, size=16)[1], before)


# ---- written copies and checks


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "imagenet"])
def test_written_copies_are_read_back_and_checked(tmp_path, name):
    train, test = some_images(40), some_images(20, seed=1)
    write_classification(name, tmp_path / "copy", train, test)
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "copy").rglob("*"))
    for split, (images, labels) in (("train", train), ("test", test)):
        found, found_labels = load_classification(name, tmp_path / "copy", split, size=32)
        assert sorted(found_labels.tolist()) == sorted(labels.tolist())
        if name.startswith("cifar"):
            assert (found.numpy() == images).all()
        elif name == "fashion_mnist":
            assert (found[:, 1, 2:30, 2:30].numpy() == images[:, 0, 2:30, 2:30]).all()
    report = check_classification(name, tmp_path / "copy", decode=True)
    assert report.ok and report.source == "rendered" and sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "copy").rglob("*")) == before
    with pytest.raises(FileExistsError):
        write_classification(name, tmp_path / "copy", train, test)
    other = "cifar10" if name != "cifar10" else "cifar100"
    with pytest.raises(ValueError, match=f"was written as {name}; load it under that name"):
        load_classification(other, tmp_path / "copy")
    (tmp_path / "copy" / "world.json").write_text("{")
    with pytest.raises(ValueError, match="world.json is damaged"):
        load_classification(name, tmp_path / "copy")


def test_what_is_written_must_fit(tmp_path):
    images, labels = some_images(20)
    for train, words in (
        ((images[:, :, :28], labels), "20, 3, 28, 32"),
        ((images, labels + 1), "labels from 0 to 9"),
        ((images, labels[:5]), "with 5 labels"),
        ((images.astype(float), labels), "float64"),
    ):
        with pytest.raises(ValueError) as error:
            write_classification("cifar10", tmp_path / "c", train, (images, labels))
        assert words in sentence(error)
    with pytest.raises(ValueError, match="choose one of: cifar10, cifar100, fashion_mnist, imagenet"):
        write_classification("digits", tmp_path / "c", (images, labels), (images, labels))
    assert not list(tmp_path.iterdir())


def test_a_check_lists_what_is_missing_and_altered(tmp_path):
    images, labels = some_images(50)
    write_classification("cifar10", tmp_path / "c", (images, labels), (images[:20], labels[:20]))
    world = json.loads((tmp_path / "c" / "world.json").read_text())
    world["expected"]["test"]["images"] = 30
    (tmp_path / "c" / "world.json").write_text(json.dumps(world))
    (tmp_path / "c" / "data_batch_5.bin").unlink()
    report = check_classification("cifar10", tmp_path / "c")
    assert report.table.verdict.tolist() == ["50 missing", "10 missing", "10 missing", "ok"] and not report.ok
    assert (
        "data_batch_5.bin is missing" in report.problems[0]
        and "test: 20 images where 30 are expected" in report.problems[1]
    )
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_classification("cifar10", tmp_path / "none")
    with pytest.raises(ValueError, match="comes with scikit-learn"):
        check_classification("digits", tmp_path)


def test_mistakes_in_the_call_are_one_sentence(tmp_path):
    for wrong, words in (
        (dict(name="cifar"), "did you mean 'cifar10'"),
        (dict(name="digits", split="val"), "choose one of: train, test"),
        (dict(name="digits", root="x"), "leave root='x' out"),
        (dict(name="cifar10"), "needs root"),
        (dict(name="cifar100", root=tmp_path / "none"), "there is no folder"),
        (dict(name="cifar100", root=tmp_path), "train.bin is missing"),
        (dict(name="imagenet", root=tmp_path), "there is no folder"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            load_classification(**wrong)
        assert words in sentence(error)


# ---- fetched


@pytest.fixture
def tiny_fashion(monkeypatch, tmp_path):
    """A Fashion-MNIST of 20 + 10 images in a folder, and a manifest that names its bytes."""
    folder, files = tmp_path / "source", []
    for split, count in (("train", 20), ("test", 10)):
        write_fashion(folder, rng.integers(0, 256, (count, 28, 28), np.uint8), some_images(count)[1], split=split)
    real = load_manifest("fashion_mnist")
    for entry in real["files"]:
        files.append(
            entry
            | {"sha256": hashlib.sha256(gzip.decompress((folder / f"{entry['name']}.gz").read_bytes())).hexdigest()}
        )
    tiny = real | {
        "files": files,
        "expected": {"train": dict(images=20, classes=10), "test": dict(images=10, classes=10)},
    }
    monkeypatch.setattr(
        classification, "load_manifest", lambda name: tiny if name == "fashion_mnist" else load_manifest(name)
    )
    return folder


def test_files_are_fetched_whole_and_unpacked(monkeypatch, tmp_path, tiny_fashion):
    asked = []
    broken = lambda source, files, folder, progress: (
        asked.append(source["kind"]) or (_ for _ in ()).throw(OSError("no network here"))
    )
    works = lambda source, files, folder, progress: asked.append(source["kind"]) or tiny_fashion
    monkeypatch.setattr(classification, "FOLDER_FETCHERS", {"debian": broken, "address": broken})
    with pytest.raises(OSError) as error:
        get_files("fashion_mnist")
    assert "Debian package dataset-fashion-mnist (no network here)" in sentence(error) and "--from FOLDER" in str(
        error.value
    )
    monkeypatch.setattr(classification, "FOLDER_FETCHERS", {"debian": broken, "address": works})
    folder = get_files("fashion_mnist")
    assert len(list(folder.iterdir())) == 4 and asked == ["debian", "address"] * 2
    assert get_files("fashion_mnist") == folder and len(asked) == 4  # nothing is fetched again
    images, labels = load_classification("fashion_mnist", split="test")
    assert images.shape == (10, 3, 32, 32) and labels.tolist() == list(range(10))


def test_files_of_ones_own_are_taken_if_they_are_right(tmp_path, tiny_fashion):
    file = tiny_fashion / "t10k-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-4], gzip.compress(b"other")):
        file.write_bytes(content)
        with pytest.raises(ValueError) as error:
            get_files("fashion_mnist", from_folder=tiny_fashion)
        assert str(file) in sentence(error)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte is missing"):
        get_files("fashion_mnist", from_folder=tiny_fashion)
    file.write_bytes(whole)
    assert all(path.suffix == "" for path in get_files("fashion_mnist", from_folder=tiny_fashion).iterdir())
    with pytest.raises(ValueError, match="choose one of: fashion_mnist"):
        get_files("cifar10")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no Debian tools here")
def test_a_debian_package_is_unpacked(monkeypatch, tmp_path, tiny_fashion):
    source = load_manifest("fashion_mnist")["download"][0]

    def download(package, folder):
        inside = tmp_path / "package" / source["folder"]
        shutil.copytree(tiny_fashion, inside)
        (tmp_path / "package" / "DEBIAN").mkdir()
        (tmp_path / "package" / "DEBIAN" / "control").write_text(
            f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
        )
        subprocess.run(
            ["dpkg-deb", "-b", str(tmp_path / "package"), str(Path(folder) / "x.deb")], check=True, capture_output=True
        )
        return Path(folder) / "x.deb"

    monkeypatch.setattr(classification, "download_package", download)
    assert len(list(get_files("fashion_mnist").iterdir())) == 4


# ---- NAS-Bench-Macro


@pytest.fixture(scope="module")
def bench():
    return nas_bench_macro()


def published_cost(choices):
    """(parameters, multiply-adds) of a network counted from its published structure: stages of 2, 3 and 3 layers, 32
    channels at the stem."""
    params, macs, channels, side = 27 * 32 + 64, 27 * 32 * 32 * 32, 32, 32
    for layer, choice in enumerate(choices):
        first = layer in (0, 2, 5)
        wide, half = (2 * channels, side // 2) if first else (channels, side)
        if choice == 0:
            params, macs = params + first * (channels * wide + 2 * wide), macs + first * channels * wide * half * half
        else:
            kernel, hidden = (3, 3 * channels) if choice == 1 else (5, 6 * channels)
            params += channels * hidden + 2 * hidden + kernel**2 * hidden + 2 * hidden + hidden * wide + 2 * wide
            macs += channels * hidden * side * side + (kernel**2 * hidden + hidden * wide) * half * half
        channels, side = wide, half
    return params + channels * 1280 + 2560 + 1280 * 10 + 10, macs + channels * 1280 * side * side + 1280 * 10


def test_the_table_holds_every_network_once(bench):
    assert bench.choices.shape == (6561, 8) and bench.accuracies.shape == (6561, 3) and len(bench) == 6561
    assert len(np.unique(bench.choices, axis=0)) == 6561 and set(np.unique(bench.choices)) == {0, 1, 2}
    assert (bench.index(bench.choices) == np.arange(6561)).all()
    assert (bench.params.min(), bench.params.max(), bench.macs.min(), bench.macs.max()) == (
        387_882,
        2_932_586,
        7_713_280,
        105_660_928,
    )
    assert np.isclose(bench.accuracies.min(), 0.4532) and np.isclose(bench.accuracies.max(), 0.9345)
    assert np.isclose(bench.mean_accuracy.mean(), 0.9024659, atol=1e-6) and bench.mean_accuracy.argmax() == bench.index(
        "22212202"
    )
    assert bench.operations == ("identity", "mb3_k3", "mb6_k5")


@pytest.mark.parametrize(
    "choices, runs, params, macs",
    [
        ("02012100", (89.47, 88.95, 89.17), 890_666, 47_327_744),
        ("11111221", (92.18, 92.22, 92.51), 2_181_386, 65_012_224),
        ("00011110", (85.37, 85.23, 85.23), 1_118_378, 31_390_208),
    ],
)
def test_rows_are_those_of_the_published_file(bench, choices, runs, params, macs):
    row = bench.index(choices)
    assert np.allclose(100 * bench.accuracies[row], runs) and (bench.params[row], bench.macs[row]) == (params, macs)
    assert row == bench.index([int(digit) for digit in choices])


def test_costs_are_those_of_the_published_structure(bench):
    for row in np.random.default_rng(0).choice(6561, 40, replace=False):
        assert (bench.params[row], bench.macs[row]) == published_cost(bench.choices[row])


def test_a_wrong_network_and_an_altered_table_are_named(bench, monkeypatch, tmp_path):
    for wrong in ("0123", [0, 1, 2, 0, 1, 2, 0, 3], [], 5):
        with pytest.raises(ValueError, match="eight choices from 0 to 2"):
            bench.index(wrong)
    (tmp_path / "nas_bench_macro.csv").write_text("choices,run_1,run_2,run_3\n00000000,99.99,99.99,99.99\n")
    monkeypatch.setattr(classification, "manifest_dir", lambda: tmp_path)
    with pytest.raises(ValueError) as error:
        nas_bench_macro()
    assert "is altered" in sentence(error)


# ---- command line


def test_the_command_line_knows_them(tmp_path, capsys, tiny_fashion):
    assert main(["data", "list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert (
        "scalable-arch data get fashion_mnist" in listed["fashion_mnist"]
        and "comes with scikit-learn" in listed["digits"]
    )
    assert "comes with this project" in listed["nas_bench_macro"] and "download it from its page" in listed["cifar10"]
    assert main(["data", "get", "fashion_mnist", "--from", str(tiny_fashion)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "cache" / "fashion_mnist")
    assert main(["data", "check", "fashion_mnist", "--root", str(tiny_fashion)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("complete")
    (tiny_fashion / "train-labels-idx1-ubyte.gz").unlink()
    assert main(["data", "check", "fashion_mnist", "--root", str(tiny_fashion)]) == 2
    assert "train-labels-idx1-ubyte is missing" in capsys.readouterr().out
    assert main(["data", "get", "cifar10"]) == 2 and "cifar-10-binary.tar.gz" in capsys.readouterr().err
    assert (
        main(["data", "check", "digits", "--root", str(tmp_path)]) == 2
        and "comes with scikit-learn" in capsys.readouterr().err
    )
