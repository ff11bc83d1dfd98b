"The built wheel works in a clean environment, from another folder, without Jupyter."

import configparser
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

root = Path(__file__).parents[1]

USE = """
import importlib.resources, importlib.util, sys
import torch
import scalable_arch
from scalable_arch.data import list_datasets, load_manifest
from scalable_arch.study.claims import load_claims
from scalable_arch.study.printed import printed_value
from scalable_arch.metrics import evaluate

assert "site-packages" in scalable_arch.__file__
assert importlib.resources.files("scalable_arch").joinpath("py.typed").is_file()
assert not any(importlib.util.find_spec(name) for name in ("nbdev", "fastcore", "IPython", "papermill"))
model = scalable_arch.create_model("han_small", num_classes=None).eval()
with torch.inference_mode():
    features = model(torch.randn(4, 3, 160, 64))
ids = dict(query_pids=[0, 1], gallery_pids=[0, 1, 0, 1], query_camids=[0, 0], gallery_camids=[0, 0, 1, 1])
result = evaluate(features[:2], features, **ids)
assert result.num_valid == 2
assert printed_value("wei_li_thesis_t3_01", row="HAN(Large)", metric="FLOPs") == 7.01e8
assert load_claims("wei_li_thesis_t3_04")
assert {load_manifest(name)["name"] for name in list_datasets()} >= {"market1501", "msmt17"}
print(scalable_arch.__version__, "nbdev" in sys.modules)
"""


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory):
    "The python of a new environment into which only the wheel and what it requires were installed."
    folder = tmp_path_factory.mktemp("wheel")
    pip = lambda python, *words: subprocess.run(
        [python, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, words)], check=True
    )
    sources = folder / "sources"
    subprocess.run(
        ["git", "clone", "-q", root, sources], check=True
    )  # what a reader gets: nothing that git does not know
    pip(sys.executable, "wheel", "--no-deps", "-w", folder, sources)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    pip(python, "install", "-c", root / "constraints.txt", next(folder.glob("*.whl")))
    return python


def test_wheel_without_jupyter(clean_python, tmp_path):
    ran = subprocess.run([clean_python, "-c", USE], cwd=tmp_path, capture_output=True, text=True)
    version = configparser.ConfigParser(delimiters=["="])
    version.read(root / "settings.ini")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [version["DEFAULT"]["version"], "False"] and not list(tmp_path.iterdir())


def test_command_line_of_the_wheel(clean_python, tmp_path):
    ran = subprocess.run(
        [clean_python.with_name("scalable-arch"), "data", "list"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0 and "market1501" in ran.stdout
    ran = subprocess.run(
        [clean_python.with_name("scalable-arch"), "data", "check", "markt1501", "--root", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2 and "did you mean 'market1501'?" in ran.stderr and "Traceback" not in ran.stderr


def test_commands_for_own_pictures_are_in_the_wheel(clean_python, tmp_path):
    command = clean_python.with_name("scalable-arch")
    run = lambda *words: subprocess.run([command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert "# Intended use" in run("intended-use").stdout
    shipped = [path.stem for path in (root / "scalable_arch" / "weights").glob("*.safetensors")]
    table = run("models").stdout.splitlines()
    assert [line.split()[0] for line in table if " yes " in line] == sorted(shipped)
    ran = run("search", "me.jpg", "--gallery", "nowhere", "--model", "none.safetensors")
    assert ran.returncode == 2 and "there is no file none.safetensors" in ran.stderr and "Traceback" not in ran.stderr


def test_source_and_wheel_are_fit_for_an_index(tmp_path):
    sources = tmp_path / "sources"
    subprocess.run(["git", "clone", "-q", root, sources], check=True)
    subprocess.run([sys.executable, "-m", "build", "-o", tmp_path / "dist", sources], check=True, capture_output=True)
    made = sorted((tmp_path / "dist").iterdir())
    assert [path.suffix for path in made] == [
        ".whl",
        ".gz",
    ]  # the wheel is built from the source archive, so that one is whole
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *made], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_one_version_everywhere():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(root / "settings.ini")
    version = settings["DEFAULT"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    for name, line in (
        ("CITATION.cff", rf"^version: {version}$"),
        ("CHANGELOG.md", rf"^## {version}\b"),
        ("scalable_arch/__init__.py", rf'^__version__ = "{version}"$'),
    ):
        assert re.search(line, (root / name).read_text(encoding="utf-8"), re.M), name


def test_repository_stays_small():
    tracked = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout.split("\0")[:-1]
    sizes = {name: (root / name).stat().st_size for name in tracked if (root / name).is_file()}
    weights = {name: size for name, size in sizes.items() if name.startswith("scalable_arch/weights/")}
    assert sum(weights.values()) <= 8e6
    sizes = {name: size for name, size in sizes.items() if name not in weights}
    assert sum(sizes.values()) < 40e6 and max(sizes.values()) < 3e6, sorted(sizes.items(), key=lambda pair: -pair[1])[
        :5
    ]
