"""The pages of a run: HTML of each notebook, and an index.html that opens from disk without a network.

Everything a page needs stands in it: style, pictures, sound, the instrument. What comes from a track's name or from
Markdown is escaped.
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

from lib.common.files import write_bytes
from lib.common.provenance import made_by
from lib.draw_audio import standalone_page
from lib.evaluation.results import ARMS
from lib.report.sentences import findings
from lib.report.sentences.answer import TEST, answer, tiles
from lib.report.tables import PUBLISHED, style_table

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


def write_page(notebook, page, steps=()):
    """Convert an executed notebook to one HTML file that loads nothing from elsewhere.

    steps: names of all pages of the run, in order; the page links to its neighbours and to the index.
    """
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if "draw_audio" in cell.metadata.get("tags", []):
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": instrument()})]
    exporter = HTMLExporter(raw_template=TEMPLATE, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("markdown2html", lambda text: MarkdownWithMath(IPythonRenderer(escape=True)).render(text))
    body, _ = exporter.from_notebook_node(content)
    steps, here = list(steps), Path(page).stem
    place = steps.index(here) if here in steps else 0
    following = f'<a href="{steps[place + 1]}.html">{steps[place + 1]} →</a>' if steps[place + 1 :] else ""
    links = f'<a href="index.html">← The report</a>{following}'
    bars = f'<nav class="bar">{links}</nav>', f'<nav class="bar foot">{links}</nav>'
    write_bytes(page, _document(_title(content), f"{bars[0]}<main>{body}</main>{bars[1]}", _code_style()).encode())


def write_index(run, steps):
    """Write index.html of folder `run`: the answer, the SDR table, DRAW AUDIO, and each notebook with its figures."""
    run = Path(run)
    notebooks = {step: nbformat.read(run / f"{step}.ipynb", as_version=4) for step in steps}
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    main = table[table["section"].isin([PUBLISHED, TEST])]
    headline, paragraph = answer(run)
    facts = made_by()
    body = f"""<main><header class="hero">
<p class="kicker">A reproducible report on music source separation</p>
<h1>{TITLE}</h1>
<p class="lead"><b>{escape(headline)}</b> {escape(paragraph)}</p>
<div class="tiles">{"".join(_tile(*tile) for tile in tiles(table))}</div>
<small>SDR, mean over the stems, on the test tracks of this run.</small>
<nav class="jump"><a href="#sdr">SDR per stem</a><a href="#report">The report</a><a href="#draw">Draw audio</a></nav>
<details><summary>Every finding, with its figures</summary>
<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in findings(run))}</ul></details></header>
<h2 id="sdr">SDR per stem</h2><div class="wide brief">{style_table(main).data}</div>
<p class="soft">Median over 1-s frames, then over tracks; mean over seeds. Sections have different test tracks and
different training data: compare rows within a section only.</p>
<details><summary>All systems and test sets, and how each figure came about</summary>
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
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{CSS.read_text()}{style}</style></head><body>
{body}
</body></html>
"""


def _code_style():
    """Colours of code, for light and dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none !important }}"


def _tile(name, figure, difference):
    arm = next((arm for arm, label in ARMS.items() if label == name), "")
    return (
        f'<div class="tile {arm}">{escape(name)}<b>{figure} <span>dB</span></b>'
        f"<small>{f'{difference} dB against L1' if difference else 'the loss alone'}</small></div>"
    )


def _section(run, step, notebook):
    """A notebook on the index: its title, what it says in one sentence, and its figures."""
    number, _, sentence = step[:2], *_first_cell(notebook).partition("**In one sentence:** ")[1:]
    return (
        f'<section class="page"><h3><a href="{step}.html"><span class="number">{number}</span>'
        f"{escape(_title(notebook))}</a></h3><p>{escape(_capital(sentence.splitlines()[0] if sentence else ''))}</p>"
        f'<div class="strip">{_figures(run, step, notebook)}</div></section>'
    )


def _first_cell(notebook):
    return notebook.cells[0].source


def _title(notebook):
    return _first_cell(notebook).splitlines()[0].lstrip("# ")


def _capital(text):
    return text[:1].upper() + text[1:]


def _figures(run, step, notebook):
    """Write the pictures of the cells tagged `figure` beside the pages, and return the HTML that shows them.

    A cell's first line, a comment, is the caption. The page carries the pictures itself; the files are for others.
    """
    for stale in run.glob(f"{step}-figure-*.png"):
        stale.unlink()
    found = []
    for cell in notebook.cells:
        if "figure" not in cell.metadata.get("tags", []):
            continue
        caption = cell.source.splitlines()[0]
        caption = escape(caption.lstrip("# ")) if caption.startswith("#") else escape(step)
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                image = base64.b64decode(output.data["image/png"])
                write_bytes(run / f"{step}-figure-{len(found) + 1}.png", image)
                source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
                picture = f'<a href="{step}.html"><img alt="{caption}" src="{source}"></a>'
                found.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return "".join(found)


def settle(path):
    """Rewrite an executed notebook so that it can be kept: without widgets' state, its pictures with a palette."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_still(output) for output in cell.outputs]
            for output in cell.outputs:
                _shrink(output)
    write_bytes(path, nbformat.writes(notebook).encode())


def _still(output):
    """What stays of an output: itself, or a line instead of a widget."""
    if VIEW not in output.get("data", {}):
        return output
    return nbformat.v4.new_output("display_data", {"text/html": "<p>The control needs a running Jupyter.</p>"})


def _shrink(output):
    """Give an output's picture a palette of 128 colours: a third of the bytes, the same to the eye."""
    if picture := output.get("data", {}).get("image/png"):
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        small = io.BytesIO()
        image.quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        if small.tell() < len(picture) * 3 / 4:
            output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
