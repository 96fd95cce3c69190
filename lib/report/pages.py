"""The pages of a run: HTML of each notebook, and an index.html that opens from disk without a network.

A page holds everything it needs: style, figures, sound, the instrument. Names of tracks and Markdown are escaped.
"""

import base64
import io
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from lib.common.errors import UserError
from lib.common.files import write_bytes
from lib.common.provenance import made_by
from lib.draw_audio import standalone_page
from lib.evaluation.results import ARMS
from lib.report.sentences.headline import findings, headline, tiles
from lib.report.tables import PUBLISHED, TEST, style_table

TITLE = "Demucs v1 + GAN: the update"
VIEW = "application/vnd.jupyter.widget-view+json"
TEMPLATE = """{% extends "basic/index.html.j2" %}
{% block input_group %}{% set first = cell.source.split("\n")[0] %}
{% set defaults = "parameters" in cell.metadata.get("tags", []) %}
{% set name = "Parameters and their defaults" if defaults else "Code" %}
<details class="code"{{ " open" if defaults }}>
<summary>{{ (first[2:] if first.startswith("# ") else name) | e }}</summary>
{{ super() }}</details>{% endblock %}"""
CSS = Path(__file__).with_name("pages.css")


def write_page(notebook, page, steps):
    """Convert an executed notebook to one HTML file that loads nothing from elsewhere.

    steps: names of all pages of the run, in order; the page links to the next one and to the index.
    """
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if "draw_audio" in cell.metadata.get("tags", []):
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": instrument()})]
    exporter = HTMLExporter(raw_template=TEMPLATE, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("markdown2html", lambda text: MarkdownWithMath(IPythonRenderer(escape=True)).render(text))
    body, _ = exporter.from_notebook_node(content)
    steps = list(steps)
    following = steps[steps.index(Path(page).stem) + 1 :][:1]
    links = '<a href="index.html">← The report</a>' + "".join(f'<a href="{x}.html">{x} →</a>' for x in following)
    body = f'<nav class="bar">{links}</nav><main>{body}</main><nav class="bar foot">{links}</nav>'
    write_bytes(page, _document(_title(content), body, _code_style()).encode())


def write_index(run, steps):
    """Write index.html of folder `run`: headline, SDR table, each notebook with its figures, DRAW AUDIO."""
    run = Path(run)
    notebooks = {step: nbformat.read(run / f"{step}.ipynb", as_version=4) for step in steps}
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    main = table[table["section"].isin([PUBLISHED, TEST])]
    lead, paragraph = headline(run)
    facts = made_by()
    body = f"""<main><header class="hero">
<p class="kicker">A reproducible report on music source separation</p>
<h1>{TITLE}</h1>
<p class="lead"><b>{escape(lead)}</b> {escape(paragraph)}</p>
<div class="tiles">{"".join(_tile(*tile) for tile in tiles(table))}</div>
<small>SDR, mean over the stems, on the test tracks of this run.</small>
<nav class="jump"><a href="#sdr">SDR per stem</a><a href="#report">The report</a><a href="#draw">Draw audio</a></nav>
<details><summary>Every finding</summary>
<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in findings(run))}</ul></details></header>
<h2 id="sdr">SDR per stem</h2><div class="wide brief">{style_table(main).data}</div>
<p class="soft">Median over 1-s frames, then over tracks; mean over seeds. Sections have different test tracks and
different training data: compare rows within a section only.</p>
<details><summary>All systems and test sets, and how each value was computed</summary>
<div class="wide">{style_table(table).data}</div></details>
<h2 id="report">The report</h2>{"".join(_section(run, step, notebook) for step, notebook in notebooks.items())}
<h2 id="draw">Draw audio</h2>
<p>Mix the basic waveforms, or draw one cycle with mouse or finger, and play it. In
<a href="06-explore.html">06-explore</a> your sound joins a song, and the separator has to find it.</p>
{instrument()}</main>
<p class="soft foot">Run “{escape(run.name)}”, commit {escape(facts["commit"])}, {escape(facts["machine"])}, torch
{escape(facts["torch"])}.</p>"""
    write_bytes(run / "index.html", _document(TITLE, body).encode())


def instrument():
    """DRAW AUDIO as an element of a page: the stand-alone page within the page."""
    return f'<iframe class="instrument" title="Draw audio" srcdoc="{escape(standalone_page())}"></iframe>'


def _document(title, body, style=""):
    """A whole HTML page; the empty icon keeps browsers from asking for one."""
    style = CSS.read_text(encoding="utf-8") + style
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body>
{body}
</body></html>
"""


def _code_style():
    """Colours of code, for light and dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none !important }}"


def _tile(name, sdr, difference):
    arm = next((arm for arm, label in ARMS.items() if label == name), "")
    return (
        f'<div class="tile {arm}">{escape(name)}<b>{sdr} <span>dB</span></b>'
        f"<small>{f'{difference} dB against L1' if difference else 'the loss alone'}</small></div>"
    )


def _section(run, step, notebook):
    """A notebook on the index: its title, its one sentence, and its figures."""
    sentence = notebook.cells[0].source.partition("**In one sentence:** ")[2].partition("\n")[0]
    return (
        f'<section class="page"><h3><a href="{step}.html"><span class="number">{step[:2]}</span>'
        f"{escape(_title(notebook))}</a></h3><p>{escape(sentence[:1].upper() + sentence[1:])}</p>"
        f'<div class="strip">{_figures(run, step, notebook)}</div></section>'
    )


def _title(notebook):
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _figures(run, step, notebook):
    """Write a notebook's figures beside the pages as <step>-<slug>.png; returns the HTML that shows them.

    The slug is the cell's metadata "figure", the caption its first line, a comment; a second figure of a cell is
    <step>-<slug>-2.png. The page holds the figures itself; the files are for other pages, such as README.md.
    """
    for stale in run.glob(f"{step}-*.png"):
        stale.unlink()
    shown = []
    for cell in notebook.cells:
        if not (slug := cell.metadata.get("figure")):
            continue
        caption = escape(cell.source.splitlines()[0].removeprefix("# "))
        images = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        for number, image in enumerate(map(base64.b64decode, images), 1):
            write_bytes(run / f"{step}-{slug}{f'-{number}' * (number > 1)}.png", image)
            source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
            picture = f'<a href="{step}.html"><img alt="{caption}" src="{source}"></a>'
            shown.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return "".join(shown)


def check_figures(notebook, name):
    """Raise `UserError` if a cell with the metadata "figure" showed something, but no picture."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        slug = cell.metadata.get("figure")
        if slug and cell.outputs and not any("image/png" in output.get("data", {}) for output in cell.outputs):
            raise UserError(
                f"{name} has no PNG of its figure {slug}; remove what makes matplotlib draw elsewhere and run again."
            )


def settle(path):
    """Rewrite an executed notebook for keeping: without the state of widgets, and with small pictures."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    instead = nbformat.v4.new_output("display_data", {"text/html": "<p>The control needs a running Jupyter.</p>"})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [instead if VIEW in output.get("data", {}) else output for output in cell.outputs]
            for output in cell.outputs:
                _shrink(output)
    write_bytes(path, nbformat.writes(notebook).encode())


def _shrink(output):
    """Reduce an output's picture to 128 colours: a third of the bytes, and no visible difference."""
    if picture := output.get("data", {}).get("image/png"):
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        small = io.BytesIO()
        image.quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if small.tell() < len(picture) * 3 / 4:
            output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
