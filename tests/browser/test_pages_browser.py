"""The pages in a real browser, from disk: nothing fails, nothing is asked of a network, all fits, sound plays."""

import shutil

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from support import RATE, watched_page

from lib.common.provenance import ROOT
from lib.report import front_page, pages
from lib.report.audio import players

STEPS = ["01-data", "02-train", "03-sdr-table", "04-discriminator", "06-explore"]
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
LOCAL = ("file:", "data:", "about:")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The committed report with a small 06-explore: two players, a track with a hostile name, the instrument."""
    run = tmp_path_factory.mktemp("site") / "quick"
    shutil.copytree(ROOT / "results" / "quick", run)
    sound = 0.5 * np.sin(np.arange(3 * RATE) / 20) * np.ones((2, 1))
    sounds = players({"<img src=x onerror=alert(1)>": {"L1": sound, "L1 + GAN": sound / 2}}, RATE).data
    cells = [
        new_markdown_cell("# What happens if <img src=x onerror=alert(2)>?\n\n**In one sentence:** listen."),
        new_code_cell("players", outputs=[new_output("display_data", {"text/html": sounds})]),
        new_code_cell("drawing", metadata={"tags": ["draw_audio"]}),
    ]
    nbformat.write(new_notebook(cells=cells), run / "06-explore.ipynb")
    for step in STEPS:
        pages.write_page(run / f"{step}.ipynb", run / f"{step}.html", STEPS)
    front_page.write_index(run, STEPS)
    return run


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_open_from_disk_in_silence_and_fit(run, chromium, size, scheme):
    with watched_page(chromium, LOCAL, viewport=SIZES[size], color_scheme=scheme) as page:
        for name in ("index", "03-sdr-table", "06-explore"):
            page.goto((run / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size]["width"], name
            broken = "[...document.images].filter(image => !image.naturalWidth).length"
            assert page.evaluate(broken) == 0 and page.locator("h1").first.is_visible()
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, paper[4:-1].split(","))) > 380) == (scheme == "light"), paper
        # DRAW AUDIO, in the page's own frame, as high as what it shows
        frame = page.frame_locator("iframe.instrument")
        assert frame.locator("canvas").count() >= 3
        inside = frame.locator("body").evaluate("body => body.scrollHeight")
        assert 400 < inside <= page.locator("iframe.instrument").bounding_box()["height"] + 1


def test_the_index_leads_to_the_pages_and_back(run, chromium):
    with watched_page(chromium, LOCAL) as page:
        page.goto((run / "index.html").as_uri())
        page.get_by_role("link", name="Does a discriminator raise the SDR?").click()
        assert page.url.endswith("03-sdr-table.html")
        page.get_by_role("link", name="The report").first.click()
        assert page.url.endswith("index.html")


def test_players_play_from_the_file_and_take_over_from_each_other(run, chromium):
    with watched_page(chromium, LOCAL) as page:
        page.goto((run / "06-explore.html").as_uri())
        first, second = page.locator("audio").element_handles()
        first.evaluate("player => player.play()")
        page.wait_for_function("player => player.currentTime > 0.4", arg=first)
        assert first.evaluate("player => player.duration") == pytest.approx(3, abs=0.05)  # seconds, as encoded
        second.evaluate("player => player.play()")
        page.wait_for_function("player => player.currentTime > 0.4", arg=second, timeout=5_000)
        assert first.evaluate("player => player.paused") and not second.evaluate("player => player.paused")
        assert first.evaluate("player => player.currentTime") >= 0.4  # it kept its place
