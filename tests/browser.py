"""Chromium for the tests of pages: `from browser import chromium_fixture` gives a test file the fixture `chromium`."""

import contextlib
import shutil

import pytest

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
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith(allowed) or complaints.append(f"asked: {request.url}"))
    yield page
    context.close()
    assert not complaints, complaints
