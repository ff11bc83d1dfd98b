"""`scalable_arch.files`: what is written is there whole or not at all, locks, and the cache."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalable_arch import files
from scalable_arch.files import cache_dir, folder_lock, make_cache, new_folder, write_whole


@settings(max_examples=25, deadline=None)
@given(first=st.binary(max_size=99), second=st.binary(max_size=99) | st.text(max_size=50))
def test_what_is_written_is_read(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("files") / "file"
    assert write_whole(path, first) == path and path.read_bytes() == first
    write_whole(path, lambda file: file.write(second if isinstance(second, bytes) else second.encode()))
    assert path.read_bytes() == (second if isinstance(second, bytes) else second.encode("utf-8"))
    write_whole(str(path), second)
    assert [found.name for found in path.parent.iterdir()] == ["file"]


class Broken(Exception):
    pass


def broken(_):
    raise Broken


@pytest.mark.parametrize("how", [dict(content=broken), dict(content="new", check=broken)], ids=["content", "check"])
def test_after_an_error_all_is_as_it_was(tmp_path, how):
    write_whole(tmp_path / "file", "old")
    with pytest.raises(Broken):
        write_whole(tmp_path / "file", **how)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_gets_one_sentence(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="cannot write .*file: No space left on device$") as error:
        write_whole(tmp_path / "file", "new")
    assert error.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_an_error_of_what_is_read_is_not_explained_away(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        write_whole(tmp_path / "file", lambda file: file.write((tmp_path / "nothing").read_bytes()))


def test_a_check_sees_what_was_written(tmp_path):
    seen = []
    write_whole(
        tmp_path / "file", "new", check=lambda path: seen.append((path.read_text(), (tmp_path / "file").exists()))
    )
    assert seen == [("new", False)]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(Broken), new_folder(tmp_path / "made") as scratch:
        (scratch / "half").write_text("")
        raise Broken
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "deep" / "made") as scratch:
        (scratch / "file").write_text("x")
        assert not (tmp_path / "deep" / "made").exists()
    assert (tmp_path / "deep" / "made" / "file").read_text() == "x"
    with pytest.raises(FileExistsError, match="not empty"), new_folder(tmp_path / "deep" / "made"):
        pass
    with pytest.raises(FileExistsError), new_folder(tmp_path / "deep" / "made" / "file"):
        pass


@pytest.mark.skipif(files.fcntl is None, reason="no file locks on this platform")
def test_a_lock_is_held_until_its_process_is_dead(tmp_path):
    program = """import sys
from scalable_arch.files import folder_lock
with folder_lock(sys.argv[1]):
    print("locked", flush=True)
    input()"""
    command = [sys.executable, "-c", program, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        with pytest.raises(BlockingIOError, match=rf"another run \(process {first.pid}\) is using the folder"):
            with folder_lock(tmp_path):
                pass
        first.kill()
    with folder_lock(tmp_path / "new" / "folder"), folder_lock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"), folder_lock(tmp_path / "file"):
        pass


def test_without_file_locks_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with pytest.warns(UserWarning, match="cannot lock folders"), folder_lock(tmp_path):
        pass


def test_the_cache_is_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine" and not cache_dir().exists()
    assert make_cache() == tmp_path / "mine" and cache_dir().is_dir()
    monkeypatch.delenv("SCALABLE_ARCH_CACHE")
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "scalable_arch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError)))
    with pytest.raises(OSError, match="no home folder.*SCALABLE_ARCH_CACHE"):
        cache_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "file" / "under"))
    with pytest.raises(OSError, match="cannot be written .*set SCALABLE_ARCH_CACHE to another folder"):
        make_cache()
