"`make lab`: JupyterLab opens at the index, and Run All runs it, in a real browser."
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from test_book import browser, page  # noqa: F401, fixtures

root = Path(__file__).parents[1]


def lab_command():
    "The words of the Makefile's recipe of `make lab`."
    recipe = re.search(r"^lab:.*\n\t(.+)$", (root / "Makefile").read_text(encoding="utf-8"), re.M).group(1)
    return recipe.replace("$(BIN)", str(Path(os.sys.executable).parent)).split()


@pytest.fixture
def lab(tmp_path):
    "Address of a JupyterLab on a copy of the notebooks."
    shutil.copytree(root / "nbs", tmp_path / "nbs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=secret"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
                                                                                                         "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
    server = subprocess.Popen([*lab_command(), *more], cwd=tmp_path, env=os.environ | folders, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
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


def test_lab_opens_at_the_index_and_runs_it(lab, page):  # noqa: F811
    page.set_default_timeout(90_000)
    page.goto(lab)
    page.wait_for_url("**/lab/tree/index.ipynb*")
    page.get_by_role("heading", name="scalable_arch").first.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.locator(".jp-OutputArea-output").filter(has_text="mAP").first.wait_for()
    assert page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]').count() == 0
