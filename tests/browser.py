"""Chromium for the tests of pages: `from browser import chromium_fixture` gives a test file the fixture `chromium`."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from conftest import listening

from lib.common.provenance import ROOT

FLAGS = [
    "--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


@pytest.fixture(scope="module", name="chromium")
def chromium_fixture():
    """A headless Chromium, for one test file: Playwright's event loop must not outlive it, other tests have theirs."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def watched_page(browser, allowed, **options):
    """A new page; afterwards it must have reported no error, and asked for nothing but addresses in `allowed`."""
    context = browser.new_context(**options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith(allowed) or complaints.append(f"asked: {request.url}"))
    yield page
    context.close()
    assert not complaints, complaints


def write_notebook(path, cells):
    """A notebook of code cells that have not run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab that listens on the loopback alone; yields its address and folder."""
    homes = {
        name: str(tmp_path / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
               f"--ServerApp.root_dir={tmp_path}", "--IdentityProvider.token=secret", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
               "--LabApp.extension_manager=readonly"]  # fmt: skip
    environment = os.environ | homes | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = next(found for line in server.stderr if (found := re.search(r"http://127.0.0.1:\d+/", line)))
            yield address.group(), tmp_path
            assert listening(server.pid) == {"127.0.0.1"}, "the server and its kernels"
        finally:
            server.terminate()
            server.stderr.read()
