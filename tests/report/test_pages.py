"""The pages of a run: nothing from elsewhere, nothing executable from a name, no link into the void."""

import base64
import html
import io
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from support import crowded

from lib.common.provenance import ROOT
from lib.report import document, front_page, pages
from lib.report.sentences import answers
from lib.report.sentences.headline import headline, tiles

EVIL = "<script>alert('x')</script>"
STEPS = ["01-data", "02-train", "03-sdr-table", "04-discriminator", "05-listen"]


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
        new_code_cell("run: str = 'a'  # help\nsize: float = 1.0  # <b>metres</b>", metadata={"tags": ["parameters"]}),
        new_code_cell("# Parameters\nrun = 'a'\nsize = 2.5", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("log", outputs=[new_output("stream", text=f"step {n} {EVIL}\n") for n in range(9)]),
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
    [picture] = settled.cells[4].outputs
    image = Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert image.mode == "P" and image.size == (300, 80)
    assert "needs a running Jupyter" in settled.cells[5].outputs[0].data["text/html"]
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
    assert text.count("<iframe") == 1 and "A caption" in text


def test_a_page_shows_the_parameters_that_were_used_in_one_block(notebook):
    text = written(notebook)
    assert text.count("Parameters") == 1 and "Parameters (1 of 2 changed: size)" in text
    assert "<th>run</th><td>'a'</td><td>help</td>" in text
    assert "<mark>2.5</mark> instead of 1.0</td><td>&lt;b&gt;metres&lt;/b&gt;</td>" in text


def test_a_log_is_one_line_and_opens(notebook):
    [log] = re.findall(r'<details class="log">.*?</details>', written(notebook), re.DOTALL)
    assert "9 lines; the last: step 8" in log and log.count("step") == 10 and "<script" not in log


def test_a_page_leads_to_all_pages_and_its_pictures_say_what_they_show(notebook):
    text = written(notebook)
    for name in ("index", "04-discriminator", "05-listen", "06-explore"):
        assert f'href="{name}.html"' in text
    assert "← Does the discriminator overfit" in text and "What happens if …? →" in text
    assert [*re.findall(r'<img[^>]* alt="([^"]*)"', text.replace("\n", " "))] == ["A caption"]
    assert "← The report" in written(notebook, ["05-listen", "06-explore"])


def written(notebook, steps=("04-discriminator", "05-listen", "06-explore")):
    page = notebook.with_suffix(".html")
    pages.write_page(notebook, page, steps)
    return page.read_text()


def luminance(colour):
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_level_aa(scheme):
    """4.5 : 1 on either background; --faint is for lines alone. Code's colours on the panel."""
    css = document.CSS.read_text()
    colours = dict(re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{([^}]+)\}", css)[scheme]))
    for name in ("ink", "soft", "link"):
        assert all(contrast(colours[name], colours[ground]) >= 4.5 for ground in ("paper", "panel")), name
    assert contrast(colours["ink"], colours["mark"]) >= 4.5
    assert "color: var(--faint)" not in css.replace("border-color: var(--faint)", "")
    code = pages._code_style().split("@media")[scheme]
    found = {
        colour for colour in re.findall(r"\.highlight \.(?!hll|w )\w+ \{[^}]*?\bcolor: (#[0-9A-Fa-f]{3,6})\b", code)
    }
    assert len(found) > 5 and min(contrast(colour, colours["panel"]) for colour in found) >= 4.5


def test_figures_are_named_by_the_slug_of_their_cell(tmp_path):
    shown = [new_output("display_data", {"image/png": png()}) for _ in range(2)]
    cells = [
        new_code_cell("# One\nshow()", outputs=shown[:1], metadata={"figure": "one"}),
        new_code_cell("# Not on the front page\nshow()", outputs=shown),
        new_code_cell("# Two <b>\nshow()", outputs=shown, metadata={"figure": "two"}),
    ]
    for name in ("05-listen-old.png", "04-discriminator-one.png"):
        (tmp_path / name).touch()
    shown = front_page._figures(tmp_path, "05-listen", new_notebook(cells=cells))
    names = ["04-discriminator-one.png", "05-listen-one.png", "05-listen-two-2.png", "05-listen-two.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names  # the old one has gone
    assert list(shown) == ["one", "two", "two-2"] and "<figcaption>Two &lt;b&gt;</figcaption>" in shown["two-2"]


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
    front_page.write_index(run, STEPS)
    return run


def test_the_index_is_whole_and_its_links_lead_somewhere(run):
    text = (run / "index.html").read_text().replace(front_page.SWITCH, "")
    assert "<script" not in text and "&lt;script&gt;" in text and not re.search(r"https?://", text)
    for target in set(re.findall(r'href="([^"#]+)"', text)) - {"data:,"}:
        place = ROOT / "results" / "quick" / target if target.startswith("..") else run / target
        assert place.exists() or target == "06-explore.html", target
    for anchor in re.findall(r'href="#([^"]+)"', text):
        assert f'id="{anchor}"' in text
    assert text.count("<figure>") == len(front_page.KEY_FIGURES) and text.count('class="page"') == len(STEPS)
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', text)) == text.count("<img") > 0


def test_a_reader_first_learns_what_was_asked_and_found_and_hears_it(run):
    """The scale before the finding, what the study's tables say, and four players."""
    text = (run / "index.html").read_text()
    asked = answers.summary()
    places = [text.index(html.escape(asked[word])) for word in ("Asked", "Found", "How sure")]
    assert places == sorted(places) and asked["Found"].startswith("Everything measured here is a mini")
    assert crowded("\n\n".join(asked.values())) == []
    heard = text.index('class="players heard"')
    assert places[-1] < heard < text.index('id="answers"') and text.count("<audio") == 4
    assert headline(run) in text and "trained on" not in text[: text.index('id="answers"')]


def test_the_cards_show_the_tables_last_column_and_a_verdict(run):
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    rows = table[table["section"] == "Measured here, on: test"].set_index("system")["all"]
    first, gan, cured = tiles(run, table)
    assert (first[0], gan[0], cured[0]) == ("l1", "gan", "gan-cures") and first[1] == rows["L1"]
    assert gan[2] == pytest.approx(rows["L1 + GAN"] - rows["L1"], abs=0.0001)
    assert gan[5] == "no verdict" and np.isnan(gan[3]) and np.isnan(first[2])  # one seed has no interval
    assert "(−0.30 to −0.10) against L1: <b>harms</b>" in front_page._tile("gan", 1.0, -0.2, -0.3, -0.1, "harms")


@pytest.mark.parametrize(
    ("colour", "dark", "kind"), [("white", 0, "on-white"), ("white", 8, "shades"), ("navy", 0, "shades")]
)
def test_a_dark_page_inverts_figures_of_lines_alone(colour, dark, kind):
    """dark: height in pixels of a spectrogram in the figure."""
    png, image = io.BytesIO(), Image.new("RGB", (40, 20), colour)
    image.paste("navy", (0, 0, 40, dark))
    image.save(png, "PNG")
    shown = document.picture(base64.b64encode(png.getvalue()).decode(), '<"a">')
    assert shown.startswith(
        f'<img class="{kind}" width="20" height="10" alt="&lt;&quot;a&quot;&gt;" src="data:image/png;'
    )
