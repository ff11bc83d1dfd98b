"""vtest: its labels and protocol, and fetching from every kind of source without a network."""

import csv
import hashlib
import io
import os
import stat
import tarfile
import threading
from collections import defaultdict

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalable_arch.cli import main
from scalable_arch.data import cache_dir, check_vtest, fetch, get_dataset, list_datasets, load_manifest, load_vtest
from scalable_arch.data.manifests import manifest_dir
from scalable_arch.data.vtest import read_tracks

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
CONTENT = b"not really a video, but the same for all" * 1000


# ---- labels and protocol


def write_video(path, frames=795, size=(768, 576)):
    """A flat grey video whose brightness tells the frame number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size)
    for number in range(1, frames + 1):
        writer.write(np.full((size[1], size[0], 3), brightness(number), np.uint8))
    writer.release()
    return path


def brightness(number):
    return 20 + number * 7 % 200


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "flat.avi")


@pytest.fixture(scope="module")
def vtest(video):
    return load_vtest(video)


def test_the_labels_are_consistent():
    tracks = read_tracks()
    assert list(tracks) == ["frame", "track", "person", "visit", "x", "y", "w", "h"]
    assert len(tracks) == 3968 and tracks.frame.min() == 1 and tracks.frame.max() == 795
    assert ((tracks.person == "?") == (tracks.visit == 0)).all()
    used, expected = tracks[tracks.person != "?"], load_manifest("vtest")["expected"]
    assert sorted(used.person.unique()) == list("ABCDEFGHIJ") and used.person.nunique() == expected["persons"]
    assert used.groupby("person").visit.nunique().sum() == expected["visits"]
    assert not used.duplicated(["frame", "person"]).any()  # nobody is in two places at once
    assert (used[["w", "h"]] > 0).all().all() and (used.x >= 0).all() and (used.x + used.w <= 768.5).all()
    for _, boxes in used.groupby("person"):  # visits follow each other
        boxes = boxes.sort_values("frame")
        assert boxes.visit.is_monotonic_increasing and set(boxes.visit) == set(range(1, boxes.visit.max() + 1))


def test_protocol_equals_one_written_by_hand(vtest):
    with (manifest_dir() / "vtest_tracks.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["person"] != "?" and int(row["frame"]) % 10 == 0]
    rows.sort(key=lambda row: (int(row["frame"]), int(row["track"])))
    visits = defaultdict(set)
    for row in rows:
        visits[row["person"]].add(row["visit"])
    assert vtest.crops.shape == (len(rows), 3, 160, 64) and vtest.crops.dtype == torch.uint8
    assert vtest.pids.tolist() == ["?ABCDEFGHIJ".index(row["person"]) for row in rows]
    assert vtest.camids.tolist() == [int(row["visit"]) for row in rows]
    assert vtest.query.tolist() == [index for index, row in enumerate(rows) if len(visits[row["person"]]) > 1]
    assert vtest.gallery.tolist() == list(range(len(rows)))
    for crop, row in zip(vtest.crops, rows):  # the crop is from the row's frame, not from a neighbour's
        assert abs(crop.float().mean().item() - brightness(int(row["frame"]))) < 2


def test_every_query_has_a_match_in_another_visit(vtest):
    for index in vtest.query.tolist():
        assert ((vtest.pids == vtest.pids[index]) & (vtest.camids != vtest.camids[index])).any()
    assert len(vtest.pids) == 388 and set(vtest.frames.tolist()) <= set(range(10, 796, 10))


def test_boxes_are_cropped_where_they_are(tmp_path, monkeypatch):
    """A frame with a white rectangle in the place of each box gives white crops; with a margin, a dark rim."""
    tracks = read_tracks()
    frame_boxes = tracks[(tracks.frame == 200) & (tracks.person != "?")]
    frame = np.zeros((576, 768, 3), np.uint8)
    for x, y, w, h in frame_boxes[["x", "y", "w", "h"]].to_numpy():
        frame[max(round(y), 0) : round(y + h), max(round(x), 0) : round(x + w)] = 255
    monkeypatch.setattr(
        "scalable_arch.data.vtest.read_frames", lambda path, wanted: ((number, frame) for number in sorted(wanted))
    )
    monkeypatch.setattr("scalable_arch.data.vtest.read_tracks", lambda: frame_boxes)
    (tmp_path / "any.avi").write_bytes(b"")
    tight, wide = (load_vtest(tmp_path / "any.avi", every=200, margin=margin).crops.float() for margin in (0, 0.3))
    assert (tight[:, :, 10:-10, 6:-6] > 250).all()
    assert (wide[:, :, 80, 32] > 250).all() and wide.mean() < 0.9 * tight.mean()


def test_a_wrong_or_missing_video_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="scalable-arch data get vtest"):
        load_vtest()
    with pytest.raises(FileNotFoundError, match="there is no video .*mine.avi"):
        load_vtest(tmp_path / "mine.avi")
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(ValueError, match="0 frames can be read, not 795"):
        load_vtest(tmp_path / "text.avi")
    with pytest.raises(ValueError, match="30 frames can be read, not 795"):
        load_vtest(write_video(tmp_path / "short.avi", frames=30))
    with pytest.raises(ValueError, match="frames are 320 x 240"):
        load_vtest(write_video(tmp_path / "small.avi", frames=30, size=(320, 240)))
    for options in (dict(every=0), dict(margin=-1), dict(size=(0, 4))):
        with pytest.raises(ValueError):
            load_vtest(tmp_path / "text.avi", **options)


def test_without_opencv_the_extra_is_named(video, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install 'scalable_arch\[video\]'"):
        load_vtest(video)


def test_a_copy_is_checked_by_its_bytes(manifest, sources, tmp_path, capsys):
    assert main(["data", "check", "vtest"]) == 2
    assert "vtest is not in the cache; fetch it once with: scalable-arch data get vtest" in capsys.readouterr().err
    cache_dir().mkdir()
    assert main(["data", "check", "vtest"]) == 2
    assert "vtest.avi is missing; fetch it with: scalable-arch data get vtest" in capsys.readouterr().out
    manifest["download"] = [sources[2]]
    get_dataset("vtest")
    assert main(["data", "check", "vtest"]) == 0 and capsys.readouterr().out.rstrip().endswith("complete")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "vtest.avi").write_bytes(CONTENT[:-1])
    assert main(["data", "check", "vtest", "--root", str(tmp_path / "own")]) == 2
    assert "is damaged or another file" in capsys.readouterr().out
    assert main(["data", "check", "vtest", "--root", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_decoded_check_reads_every_frame(manifest, video, tmp_path):
    write_video(tmp_path / "vtest.avi", frames=20)
    manifest["file"] = manifest["file"] | dict(sha256=hashlib.sha256((tmp_path / "vtest.avi").read_bytes()).hexdigest())
    assert check_vtest(tmp_path).ok
    assert "20 frames can be read, not 795" in check_vtest(tmp_path, decode=True).problems[0]
    (tmp_path / "vtest.avi").write_bytes(video.read_bytes())
    manifest["file"]["sha256"] = hashlib.sha256(video.read_bytes()).hexdigest()
    assert check_vtest(tmp_path, decode=True).table.verdict.tolist() == ["ok", "ok"]


# ---- fetching


@pytest.fixture
def manifest(monkeypatch, tmp_path):
    """vtest's manifest with the checksum of CONTENT and no sources yet; the cache is a folder of the test."""
    manifest = load_manifest("vtest") | {"download": []}
    manifest["file"] = dict(name="vtest.avi", sha256=hashlib.sha256(CONTENT).hexdigest())
    for module in ("fetch", "vtest"):
        monkeypatch.setattr(f"scalable_arch.data.{module}.load_manifest", lambda name: manifest)
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))
    return manifest


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The three kinds of sources, each holding CONTENT: fake Debian tools on the PATH, an sdist on disk, a file
    address."""
    with tarfile.open(tmp_path / "opencv-1.tar.gz", "w:gz") as archive:
        for name in ("opencv-1/setup.py", "opencv-1/opencv/samples/data/vtest.avi", "opencv-1/after"):
            entry = tarfile.TarInfo(name)
            entry.size = len(CONTENT)
            archive.addfile(entry, io.BytesIO(CONTENT))
    (tmp_path / "direct.avi").write_bytes(CONTENT)
    tools = tmp_path / "bin"
    tools.mkdir()
    write_tool(
        tools / "apt-get",
        '#!/bin/sh\n[ "$1" = update ] && { touch lists; exit 0; }\n'
        "[ -f lists ] || { echo E: Unable to locate >&2; exit 100; }\n"
        "echo deb > opencv-doc_1_all.deb\n",
    )
    write_tool(tools / "dpkg-deb", f"#!/bin/sh\ngzip -dc {tmp_path}/opencv-1.tar.gz\n")
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(
        fetch, "find_source_archive", lambda package, version: (tmp_path / f"{package}-{version}.tar.gz").as_uri()
    )
    return [
        dict(kind="debian", package="opencv-doc", member="opencv/samples/data/vtest.avi"),
        dict(kind="python", package="opencv", version="1", member="opencv/samples/data/vtest.avi"),
        dict(kind="address", url=(tmp_path / "direct.avi").as_uri()),
    ]


def write_tool(path, script):
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.skipif(os.name == "nt", reason="the fake tools are shell scripts")
def test_every_kind_of_source_delivers(manifest, sources, monkeypatch, which):
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # only root may bring the package lists up to date
    manifest["download"] = [sources[which]]
    path = get_dataset("vtest", progress=False)
    assert path == cache_dir() / "vtest.avi" and path.read_bytes() == CONTENT
    assert os.listdir(cache_dir()) == ["vtest.avi"]


def test_without_root_the_lists_are_left_alone(manifest, sources, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    manifest["download"] = [sources[0]]
    with pytest.raises(OSError, match=r"tried Debian package opencv-doc \(apt-get says: E: Unable to locate\)"):
        get_dataset("vtest")


def test_a_local_file_is_taken_and_there_already_is_nothing_to_do(manifest, tmp_path):
    own = tmp_path / "own.avi"
    own.write_bytes(CONTENT)
    path = get_dataset("vtest", from_file=own)
    when = path.stat().st_mtime_ns
    own.unlink()
    assert get_dataset("vtest", from_file=own) == path and path.stat().st_mtime_ns == when


def test_a_damaged_file_in_the_cache_is_replaced(manifest, sources):
    manifest["download"] = [sources[2]]
    cache_dir().mkdir()
    (cache_dir() / "vtest.avi").write_bytes(CONTENT[:-1])
    assert get_dataset("vtest").read_bytes() == CONTENT


def test_wrong_local_files_stop_at_once(manifest, sources, tmp_path):
    manifest["download"] = sources
    (tmp_path / "other.avi").write_bytes(b"holiday")
    with pytest.raises(ValueError, match="other.avi is not the vtest.avi that the manifest names"):
        get_dataset("vtest", from_file=tmp_path / "other.avi")
    with pytest.raises(FileNotFoundError, match="there is no file .*gone.avi"):
        get_dataset("vtest", from_file=tmp_path / "gone.avi")
    assert not (cache_dir() / "vtest.avi").exists()


def test_sources_are_tried_in_order_and_all_failures_are_told(manifest, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get
    cut = (tmp_path / "opencv-1.tar.gz").read_bytes()[:60]
    (tmp_path / "opencv-1.tar.gz").write_bytes(cut)
    (tmp_path / "direct.avi").write_bytes(b"other content")
    gone = dict(kind="address", url=(tmp_path / "gone.avi").as_uri())
    manifest["download"] = [*sources, gone]
    with pytest.raises(OSError) as caught:
        get_dataset("vtest")
    message = str(caught.value)
    for words in (
        "apt-get is not on this machine",
        "Python package opencv 1 (",
        "other content: its sha256 begins",
        "gone.avi",
        "--from FILE",
    ):
        assert words in message
    assert "\n" not in message and os.listdir(cache_dir()) == []
    (tmp_path / "direct.avi").write_bytes(CONTENT)
    assert get_dataset("vtest").read_bytes() == CONTENT  # the third source mends it


def test_an_archive_without_the_file_says_so(manifest, sources):
    manifest["download"] = [sources[1] | dict(member="opencv/none.avi")]
    with pytest.raises(OSError, match="the archive has no opencv/none.avi"):
        get_dataset("vtest")


def test_two_runs_at_once_do_not_disturb_each_other(manifest, monkeypatch):
    barrier, results = threading.Barrier(4), []

    def slow(source, out, progress):
        for start in range(0, len(CONTENT), 10000):
            barrier.wait()
            out.write(CONTENT[start : start + 10000])

    monkeypatch.setitem(fetch.FETCHERS, "slow", slow)
    monkeypatch.setattr(fetch, "describe_source", lambda source: "slow")
    manifest["download"] = [dict(kind="slow")]
    threads = [threading.Thread(target=lambda: results.append(get_dataset("vtest").read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 4 and os.listdir(cache_dir()) == ["vtest.avi"]


def test_a_stopped_run_leaves_nothing(manifest, monkeypatch):
    def stopped(source, out, progress):
        out.write(CONTENT[:100])
        raise KeyboardInterrupt

    monkeypatch.setitem(fetch.FETCHERS, "stopped", stopped)
    manifest["download"] = [dict(kind="stopped")]
    with pytest.raises(KeyboardInterrupt):
        get_dataset("vtest")
    assert os.listdir(cache_dir()) == []


def test_a_full_disk_is_told(manifest, sources, monkeypatch):
    def full(source, out, progress):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(fetch.FETCHERS, "address", full)
    manifest["download"] = [sources[2]]
    with pytest.raises(OSError, match="No space left on device"):
        get_dataset("vtest")
    assert os.listdir(cache_dir()) == []


def test_a_cache_that_cannot_be_made_is_told(manifest, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="cannot be written .*set SCALABLE_ARCH_CACHE"):
        get_dataset("vtest")


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), OSError("timed out")])
def test_a_network_that_breaks_off_is_no_disk_that_is_full(manifest, sources, monkeypatch, error):
    def broken(source, out, progress):
        out.write(CONTENT[:100])
        raise error

    monkeypatch.setitem(fetch.FETCHERS, "address", broken)
    manifest["download"] = [sources[2]]
    with pytest.raises(OSError, match="could not be fetched; tried .*(reset|timed out)") as caught:
        get_dataset("vtest")
    assert "None" not in str(caught.value) and os.listdir(cache_dir()) == []


def test_a_user_without_a_home_is_told_in_a_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("SCALABLE_ARCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    for arguments in (
        ["data", "get", "vtest"],
        ["data", "get", "fashion_mnist"],
        ["data", "check", "vtest"],
        ["data", "check", "fashion_mnist"],
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert "set SCALABLE_ARCH_CACHE to a folder that can be written" in err and err.count("\n") == 1
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path))
    for arguments in (
        ["data", "check", "market1501", "--root", "~/market"],
        ["data", "check", "prw", "--root", "~/prw"],
        ["data", "check", "cifar10", "--root", "~/cifar"],
        ["data", "check", "voc2012", "--root", "~/voc"],
        ["data", "check", "vtest", "--root", "~/vtest"],
        ["data", "get", "vtest", "--from", "~/vtest.avi"],
        ["data", "render", "market1501", "--out", "~/market", "--ids", "4"],
        ["data", "render", "prw", "--out", "~/prw", "--ids", "4"],
    ):
        assert main(arguments) == 2
        assert "the home folder in ~" in capsys.readouterr().err
    assert main(["data", "list"]) == 0


def test_pip_is_asked_and_its_silence_is_an_error(monkeypatch):
    monkeypatch.setattr(fetch, "run_tool", lambda command, folder: "\n")
    with pytest.raises(OSError, match="pip finds no source archive of x 1"):
        fetch.find_source_archive("x", "1")


def test_real_data_sets_are_not_fetched():
    for name in set(list_datasets()) - {"vtest"}:
        with pytest.raises(ValueError, match=f"{name} cannot be fetched: "):
            get_dataset(name)
    with pytest.raises(ValueError, match="did you mean 'vtest'"):
        get_dataset("vtests")


def test_the_manifest_names_four_ways_and_the_right_bytes():
    manifest = load_manifest("vtest")
    assert [source["kind"] for source in manifest["download"]] == ["debian", "python", "address"]
    assert all(source["kind"] in fetch.FETCHERS and fetch.describe_source(source) for source in manifest["download"])
    assert len(manifest["file"]["sha256"]) == 64


def test_the_cache_is_where_each_system_keeps_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SCALABLE_ARCH_CACHE", raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "scalable_arch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache" / "scalable_arch"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_dir() == tmp_path / "Library" / "Caches" / "scalable_arch"


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=5), st.integers(0, 4))
@settings(CALM, max_examples=30)
def test_a_member_is_found_wherever_it_lies(contents, wanted):
    wanted %= len(contents)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number, content in enumerate(contents):
            entry = tarfile.TarInfo(f"./top/data/{number}.avi")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    packed.seek(0)
    out = io.BytesIO()
    fetch.copy_member(packed, f"data/{wanted}.avi", "r|gz", out)
    assert out.getvalue() == contents[wanted]
