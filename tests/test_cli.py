"""The command line: what each command prints, and one sentence with status 2 for every mistake."""

import os
import shutil
import subprocess
import sys

import pytest

from scalable_arch import __version__, cli
from scalable_arch.cli import main
from scalable_arch.data import list_datasets


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALABLE_ARCH_CACHE", str(tmp_path / "cache"))


def mistake(capsys, *arguments):
    """Run a command that must fail by the user's mistake; returns its one sentence."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("scalable-arch: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_list_names_every_data_set(capsys):
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:]] == list_datasets()
    assert "scalable-arch data get vtest" in out and "withdrawn" in out


def test_models_lists_what_create_model_knows(capsys):
    assert main(["models"]) == 0
    assert {"han_small", "han_large"} <= set(capsys.readouterr().out.split())


def test_render_then_check(capsys, tmp_path):
    root = tmp_path / "market"
    assert (
        main(
            [
                "data",
                "render",
                "market1501",
                "--out",
                str(root),
                "--ids",
                "5",
                "--cameras",
                "2",
                "--shots",
                "2",
                "--junk",
                "1",
            ]
        )
        == 0
    )
    assert "21 images of simulated persons" in capsys.readouterr().out  # 5 persons x 2 cameras x 2 shots, 1 junk
    assert main(["data", "check", "market1501", "--root", str(root), "--decode"]) == 0
    out = capsys.readouterr().out
    assert "RENDERED" in out and out.rstrip().endswith("complete")
    assert out.splitlines()[2].split() == ["train", "ids", "3", "3", "ok"]

    first = sorted((root / "query").iterdir())[0]
    first.write_bytes(b"")
    assert main(["data", "check", "market1501", "--root", str(root)]) == 2
    assert f"{first} (empty)" in capsys.readouterr().out
    shutil.rmtree(root / "query")
    assert main(["data", "check", "market1501", "--root", str(root)]) == 2
    assert "query is missing" in capsys.readouterr().out
    assert "empty" in mistake(capsys, "data", "render", "market1501", "--out", root, "--ids", "4")


def test_mistakes_are_one_sentence(capsys, tmp_path):
    assert "did you mean 'market1501'" in mistake(capsys, "data", "check", "market", "--root", tmp_path)
    assert "there is no folder" in mistake(capsys, "data", "check", "market1501", "--root", tmp_path / "none")
    assert "unknown boxes 'both'" in mistake(capsys, "data", "check", "cuhk03", "--root", tmp_path, "--boxes", "both")
    assert "cannot be fetched" in mistake(capsys, "data", "get", "market1501")
    assert "there is no file" in mistake(capsys, "data", "get", "vtest", "--from", tmp_path / "none.avi")
    assert "--ids must be at least 2" in mistake(
        capsys, "data", "render", "market1501", "--out", tmp_path / "x", "--ids", "1"
    )
    assert "choose one of" in mistake(capsys, "data", "render", "vtest", "--out", tmp_path / "x", "--ids", "4")
    assert not (tmp_path / "x").exists()


def test_every_data_set_can_be_checked_or_says_why_not(capsys, tmp_path):
    (tmp_path / "copy").mkdir()
    for name in list_datasets():
        assert main(["data", "check", name, "--root", str(tmp_path / "copy")]) == 2
        out, err = capsys.readouterr()
        assert (out or err) and "unknown" not in err and not (out and err)
        assert main(["data", "check", name]) == 2
        err = capsys.readouterr().err
        assert any(words in err for words in ("--root FOLDER", "no copy to check", "cannot be had", "data get"))


OPTIONS = {
    "market1501": ["--scenes=3", "--height=10", "--height=192"],
    "cuhk03": ["--height=10", "--scenes=300"],
    "prw": ["--shots=4", "--junk=1", "--distractors=2", "--unseen-cameras", "--workers=2"],
    "veri776": ["--junk=1", "--distractors=1", "--height=10"],
    "cuhk_sysu": ["--shots=0"],
    "voc2012": ["--shots=4", "--unseen-cameras"],
}


@pytest.mark.parametrize("name, option", [(name, option) for name, options in OPTIONS.items() for option in options])
def test_an_option_of_another_layout_is_refused(capsys, tmp_path, name, option):
    told = mistake(capsys, "data", "render", name, "--out", tmp_path / "x", "--ids", "4", option)
    assert f"{name} knows no {option.partition('=')[0]}: leave it out" in told and not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("option", ["--cameras=0", "--cameras=-3"])
def test_no_camera_is_not_the_usual_number_of_cameras(capsys, tmp_path, name, option):
    told = mistake(capsys, "data", "render", name, "--out", tmp_path / "x", "--ids", "4", option)
    assert "cameras must be" in told and not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["prw", "cuhk_sysu", "voc2012"])
def test_a_height_that_is_too_small_is_told(capsys, tmp_path, name):
    told = mistake(capsys, "data", "render", name, "--out", tmp_path / "x", "--ids", "4", "--height", "10")
    assert "size must be (height, width) in whole pixels from 64" in told and not (tmp_path / "x").exists()


def test_a_ledger_of_nothing_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCALABLE_ARCH_REPORTS", raising=False)
    assert "holds no report" in mistake(capsys, "ledger", "--reports", tmp_path)
    assert "there is no such folder" in mistake(capsys, "ledger", "--reports", tmp_path / "none")
    monkeypatch.setattr("scalable_arch.study.reports.checkout_root", lambda: None)
    assert "give their folder with --reports" in mistake(capsys, "ledger")
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_nobody_knows_stops_before_anything_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "scalable_arch.study.reproduce.reproduce", lambda *args, **options: pytest.fail("a notebook began")
    )
    out = tmp_path / "out"
    told = mistake(capsys, "reproduce", "--chapters", "ch3_han", "--profile", "quik", "--out", out)
    assert "did you mean 'quick'" in told and "smoke, quick, desk, gpu, paper" in told and not out.exists()
    assert "unknown profile 'nope'" in mistake(capsys, "reproduce", "--chapters", "ch3_han", "--profile", "nope")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["data"],
        ["data", "gett", "vtest"],
        ["data", "render", "x", "--ids", "many"],
        ["reproduce"],
    ],
)
def test_incomplete_commands_end_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: scalable-arch" in capsys.readouterr().err


def test_ctrl_c_is_quiet_and_faults_of_ours_are_not_hidden(monkeypatch, capsys):
    def raising(error):
        def command(args):
            raise error

        return command

    monkeypatch.setattr(cli, "data_list", raising(KeyboardInterrupt()))
    assert main(["data", "list"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"
    monkeypatch.setattr(cli, "data_list", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["data", "list"])


def test_as_a_program(tmp_path):
    program = [sys.executable, "-c", "import sys; from scalable_arch.cli import main; sys.exit(main())"]
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"scalable-arch {__version__}\n")
    read, write = os.pipe()
    os.close(read)  # as `| head -0` would
    done = subprocess.run([*program, "data", "list"], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
