"`make lab`: JupyterLab opens at the index, and Run All runs it, in a real browser."

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from chapters import places
from PIL import Image
from test_book import browser, page  # noqa: F401, fixtures

from scalable_arch.study.record import read_trials

root = Path(__file__).parents[1]


def wait_until(true, seconds=300):
    "Wait until `true()`."
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def lab_command():
    "The words of the command that `make lab` runs, as make says it."
    ready = ["-o", ".venv/.ready"]  # the environment is there
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", *ready, "lab", f"BIN={Path(os.sys.executable).parent}"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.split()


@pytest.fixture
def lab(tmp_path, worlds):
    """Address of a JupyterLab on a copy of the notebooks, with an executed chapter and its picture; chapter 3 is set to
    `smoke`, and its reports and cache lie in `tmp_path`."""
    shutil.copytree(root / "nbs", tmp_path / "nbs")
    executed, pictures = tmp_path / "reports/ch3_han", tmp_path / "reports/demo/figures"
    for folder in (executed, pictures):
        folder.mkdir(parents=True)
    Image.new("RGB", (32, 16), "green").save(pictures / "ranked_lists.jpg")
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# As it was run")]), executed / "ch3_han.ipynb"
    )
    chapter = tmp_path / "nbs/ch3_han.ipynb"
    chapter.write_text(
        chapter.read_text(encoding="utf-8").replace('profile = \\"quick\\"', 'profile = \\"smoke\\"'), encoding="utf-8"
    )
    settings = tmp_path / "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # cells out of sight are in the page too
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = ["--no-browser", f"--port={port}", "--IdentityProvider.token=secret"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")} | {
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    folders |= places(tmp_path, worlds)
    server = subprocess.Popen(
        [*lab_command(), *more],
        cwd=tmp_path,
        env=os.environ | folders,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(480):
        try:
            urllib.request.urlopen(f"{address}/api?token=secret")
            break
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "JupyterLab did not start"
            time.sleep(0.25)
    yield f"{address}/?token=secret"
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


def connected(lab):
    "Whether a page talks to a kernel that is ready."
    with urllib.request.urlopen(lab.replace("/?", "/api/kernels?")) as answer:
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in json.load(answer))


def run_all(lab, page):  # noqa: F811
    "Run All, once there is a kernel: JupyterLab lets it pass in silence before."
    wait_until(lambda: connected(lab))
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def errors(page):  # noqa: F811
    "What went wrong in the notebook that is open, a text for each."
    return (
        page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')
        .filter(has_text="Traceback (most recent call last)")
        .all_inner_texts()
    )


def wait_for_output(page, text):  # noqa: F811
    "Wait until a cell has said so, and no cell failed."
    said = page.locator(".jp-OutputArea-output").filter(has_text=text)
    wait_until(lambda: said.count() or errors(page))
    assert errors(page) == []


def test_lab_opens_at_the_index_and_runs_it(lab, page):  # noqa: F811
    page.set_default_timeout(90_000)
    page.goto(lab)
    page.wait_for_url("**/lab/tree/nbs/index.ipynb*")
    page.get_by_role("heading", name="scalable_arch").first.wait_for()
    run_all(lab, page)
    wait_for_output(page, "mAP")


def test_first_page_shows_its_picture_and_leads_to_executed_chapters(lab, page):  # noqa: F811
    page.set_default_timeout(90_000)
    page.goto(lab)
    picture = page.get_by_alt_text("Ranked lists on real people")
    picture.wait_for()
    wait_until(lambda: picture.evaluate("image => image.complete"))
    assert picture.evaluate("image => image.naturalWidth") == 32, "the picture is broken"
    page.get_by_role("link", name="this notebook").click()
    page.get_by_role("heading", name="As it was run").wait_for()


def test_lab_may_run_as_root_only_where_it_is_root():
    assert ("--allow-root" in lab_command()) == (os.getuid() == 0)


def test_chapter_3_runs_in_lab_also_after_an_interruption(lab, page, tmp_path):  # noqa: F811
    page.set_default_timeout(90_000)
    page.goto(lab.replace("/?", "/lab/tree/nbs/ch3_han.ipynb?"))
    page.get_by_role("heading", name="Chapter 3").first.wait_for()
    run_all(lab, page)
    finished, record = tmp_path / "cache/trials", tmp_path / "reports/ch3_han"
    wait_until(lambda: len([*finished.glob("*.json")]) >= 3)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Interrupt Kernel", exact=True).click()
    wait_until(lambda: errors(page))
    assert "KeyboardInterrupt" in errors(page)[0]
    kept = read_trials(record)
    assert len(kept) >= 3 and not [*finished.glob("*.json")], "what was finished is on record"

    waiting = page.locator(".jp-InputPrompt").filter(has_text="[*]")
    wait_until(
        lambda: not waiting.count()
    )  # cells that still waited are given up first, and would take the beginning of the next run with them
    run_all(lab, page)
    wait_for_output(page, "exported; three images")
    again = read_trials(record)
    assert {name: again[name] for name in kept} == kept, "what was there is not run again"
