"""The pages of a run: nothing from elsewhere, nothing executable from a name, no link into the void."""

import base64
import io
import re
import shutil

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.evaluation.results import arms_table
from lib.report import pages
from lib.report.sentences.arms import arm_differences
from lib.report.sentences.headline import headline, tiles

EVIL = "<script>alert('x')</script>"
STEPS = ["01-data", "02-train", "03-sdr-table", "04-discriminator"]


def png(size=(300, 80)):
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def notebook(tmp_path):
    """An executed notebook with a hostile track name, a picture, and the instrument."""
    lonely = {pages.VIEW: {"model_id": "draw"}, "text/plain": "DrawAudio()"}
    shown = [new_output("display_data", {"image/png": png()}), new_output("execute_result", lonely)]
    cells = [
        new_markdown_cell(f"# What is {EVIL}?\n\nText.\n\n**In one sentence:** it is `x < y`."),
        new_code_cell("run: str = 'a'  # help", metadata={"tags": ["parameters"]}),
        new_code_cell("# A caption\nshow()", outputs=shown[:1], metadata={"figure": "a-slug"}),
        new_code_cell("drawing", outputs=shown[1:], metadata={"tags": ["draw_audio"]}),
        new_code_cell("name", outputs=[new_output("display_data", {"text/markdown": f"**{EVIL}**"})]),
    ]
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"draw": {"state": {}}}}}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / "05-listen.ipynb")
    return tmp_path / "05-listen.ipynb"


def test_a_kept_notebook_holds_small_pictures_and_no_widgets(notebook):
    pages.settle(notebook)
    settled = nbformat.read(notebook, as_version=4)
    nbformat.validate(settled)
    assert "widgets" not in settled.metadata and pages.VIEW not in notebook.read_text()
    [picture] = settled.cells[2].outputs
    image = Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert image.mode == "P" and image.size == (300, 80)
    assert "needs a running Jupyter" in settled.cells[3].outputs[0].data["text/html"]
    before = notebook.read_bytes()
    pages.settle(notebook)
    assert notebook.read_bytes() == before


def test_a_page_holds_everything_and_no_markup_from_names(notebook):
    pages.settle(notebook)
    page = notebook.with_suffix(".html")
    pages.write_page(notebook, page, ["04-discriminator", "05-listen", "06-explore"])
    text = page.read_text()
    outside = re.sub(r'srcdoc="[^"]*"', "", text)
    assert "<script" not in outside and "alert(" in outside  # shown as text
    assert not re.search(r'(?:src|href)="(?!data:|#|\d\d-|index\.html)', outside), "nothing from elsewhere"
    assert not re.search(r"https?://", text), "no address at all, in the instrument neither"
    assert text.count("<iframe") == 1 and "Parameters and their defaults" in text and "A caption" in text
    assert 'href="index.html"' in text and 'href="06-explore.html"' in text


def test_figures_are_named_by_the_slug_of_their_cell(tmp_path):
    shown = [new_output("display_data", {"image/png": png()}) for _ in range(2)]
    cells = [
        new_code_cell("# One\nshow()", outputs=shown[:1], metadata={"figure": "one"}),
        new_code_cell("# Not on the front page\nshow()", outputs=shown),
        new_code_cell("# Two <b>\nshow()", outputs=shown, metadata={"figure": "two"}),
    ]
    for name in ("05-listen-old.png", "04-discriminator-one.png"):
        (tmp_path / name).touch()
    html = pages._figures(tmp_path, "05-listen", new_notebook(cells=cells))
    names = ["04-discriminator-one.png", "05-listen-one.png", "05-listen-two-2.png", "05-listen-two.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names  # the old one has gone
    assert html.count("<figure>") == 3 and html.count("<figcaption>Two &lt;b&gt;</figcaption>") == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The committed report, its pages made."""
    run = tmp_path_factory.mktemp("site") / "quick"
    shutil.copytree(ROOT / "results" / "quick", run)
    table = pd.read_csv(run / "sdr_table.csv")
    table.loc[0, "system"] = EVIL
    table.to_csv(run / "sdr_table.csv", index=False)
    for step in STEPS:
        pages.write_page(run / f"{step}.ipynb", run / f"{step}.html", STEPS)
    pages.write_index(run, STEPS)
    return run


def test_the_index_is_whole_and_its_links_lead_somewhere(run):
    text = (run / "index.html").read_text()
    outside = re.sub(r'srcdoc="[^"]*"', "", text)
    assert "<script" not in outside and "&lt;script&gt;" in outside and not re.search(r"https?://", text)
    for target in set(re.findall(r'href="([^"#]+)"', outside)) - {"data:,"}:
        assert (run / target).exists() or target == "06-explore.html", target
    for anchor in re.findall(r'href="#([^"]+)"', outside):
        assert f'id="{anchor}"' in outside
    figures = outside.count("<figure>")
    assert figures == sum(len(list(run.glob(f"{step}-*.png"))) for step in STEPS) >= 10
    assert outside.count('class="page"') == len(STEPS) and "<iframe" in text


def test_the_answer_stands_first_and_follows_the_results(run):
    lead, paragraph = headline(run)
    text = (run / "index.html").read_text()
    assert text.index(lead) < text.index(paragraph[:40]) < text.index('id="sdr"')
    tracks = arms_table(run)
    rows = arm_differences(tracks).loc["SDR"].drop("all", level="stem")
    gained = (rows["low"] > 0) & (rows["difference"] >= 0.1)
    assert lead.startswith("A discriminator raised the SDR of") == gained.any()
    count = tracks.loc[tracks["test_set"] == "test", "track"].nunique()
    assert f"({count} tracks, 1 seed)" in paragraph
    overfit = sum(v["verdict"] == "overfits" for v in read_json(run / "verdicts.json").values())
    assert f"of the 2 here, {overfit or 'none'} do" in paragraph


def test_the_tiles_show_the_tables_last_column(run):
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    rows = table[table["section"] == "Measured here, on: test"].set_index("system")["all"]
    shown = {name: (sdr, difference) for name, sdr, difference in tiles(table)}
    assert list(shown) == ["L1", "L1 + GAN", "L1 + GAN + cures"] and shown["L1"] == (f"{rows['L1']:.2f}", "")
    difference = f"{rows['L1 + GAN'] - rows['L1']:+.2f}".replace("-", "−")
    assert shown["L1 + GAN"] == (f"{rows['L1 + GAN']:.2f}", difference)
