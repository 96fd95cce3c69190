"""The pages of a run: HTML of each notebook, and an index.html that opens from disk without a network.

    python -m lib.report.pages results/quick      # of the executed notebooks that are there; nothing runs

A page holds everything it needs: style, figures, sound, the instrument. Names of tracks and Markdown are escaped.
"""

import base64
import datetime
import io
import re
import sys
from html import escape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from lib.common.errors import UserError
from lib.common.files import tidy, write_bytes
from lib.common.provenance import ROOT, made_by
from lib.common.words import plain, signed
from lib.draw_audio import standalone_page
from lib.evaluation.results import ARMS
from lib.report.audio import SWITCH
from lib.report.guard import injected, notebook_parameters
from lib.report.sentences import answers
from lib.report.sentences.headline import findings, headline, tiles
from lib.report.tables import PUBLISHED, TEST, style_table

TITLE = "Demucs v1 + GAN: the update"
VIEW = "application/vnd.jupyter.widget-view+json"
TEMPLATE = """{% extends "basic/index.html.j2" %}
{% block input_group %}{% if cell.source %}{% set first = cell.source.split("\n")[0] %}
<details class="code"><summary>{{ (first[2:] if first.startswith("# ") else "Code") | e }}</summary>
{{ super() }}</details>{% endif %}{% endblock %}
{% block data_png %}<div class="output_png">{{ output.metadata["picture"] }}</div>{% endblock %}"""
CSS = Path(__file__).with_name("pages.css")
KEY_FIGURES = (("03-sdr-table", "seed-noise"), ("04-discriminator", "overfitting"), ("03-sdr-table", "forest-sdr"))
STEM = "vocals"  # heard on the front page
LIMITS = (
    "Networks are small, training takes minutes, and the songs are composed: this says nothing of Demucs v1 at its "
    "published size, nor of real music.",
    "The first report cannot be read; its discriminator was rebuilt from pix2pix, and its width, depth and weight are "
    "assumptions.",
    "“Not decided” is not “no effect”; few pre-trainings make wide intervals.",
    "There was no listening test.",
)


def write_page(notebook, page, steps):
    """Convert an executed notebook to one HTML file that loads nothing from elsewhere.

    steps: names of all pages of the run, in order; the page links to them, and to the index.
    """
    content, step = nbformat.read(notebook, as_version=4), Path(page).stem
    defaults = notebook_parameters(notebook)
    given = next((cell.source for cell in content.cells if "injected-parameters" in _tags(cell)), "")
    content.cells = [cell for cell in content.cells if "injected-parameters" not in _tags(cell)]
    heading = _title(content)
    for cell in content.cells:
        if "draw_audio" in _tags(cell):
            cell.outputs = [_html(instrument())]
        elif "parameters" in _tags(cell):
            cell.source, cell.outputs = "", [_html(_parameters(cell.source, defaults, given))]
        elif cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        else:
            _show_pictures(cell, heading)
            _fold_log(cell)
    exporter = HTMLExporter(raw_template=TEMPLATE, exclude_input_prompt=True, exclude_output_prompt=True)
    exporter.register_filter("markdown2html", lambda text: MarkdownWithMath(IPythonRenderer(escape=True)).render(text))
    body, _ = exporter.from_notebook_node(content)
    body = f"""<nav class="bar"><a href="index.html">← The report</a>{_all_pages(step, steps)}</nav>
<div class="beside"><nav class="contents"><b>On this page</b>{_contents(body)}</nav><main>{body}</main></div>
<nav class="bar foot">{_neighbours(step, list(steps))}</nav>"""
    write_bytes(page, _document(_title(content), body, _code_style(), "notebook").encode())


def _tags(cell):
    return cell.metadata.get("tags", [])


def _html(text):
    return nbformat.v4.new_output("display_data", {"text/html": text})


def _parameters(source, defaults, given):
    """The parameters of a page as a table: the values that were used, those that are not the default marked."""
    helps = dict(re.findall(r"^(\w+):.*?  # (.+)$", source, re.MULTILINE))
    used = injected(given)
    rows, changed = [], []
    for name, (_, default) in defaults.items():
        value = used.get(name, default)
        other = value != default
        changed += [name] * other
        value, default = repr(value), repr(default)
        mark = f"<mark>{escape(value)}</mark> instead of {escape(default)}" if other else escape(value)
        rows.append(f"<tr><th>{name}</th><td>{mark}</td><td>{escape(helps.get(name, ''))}</td></tr>")
    said = f"{len(changed)} of {len(rows)} changed: {', '.join(changed)}" if changed else f"{len(rows)}, as by default"
    return (
        f'<details class="parameters"{" open" * (len(rows) <= 8)}><summary>Parameters ({said})</summary>'
        f"<table>{''.join(rows)}</table></details>"
    )


def _show_pictures(cell, heading):
    """Make the HTML of a cell's pictures; their text for those who do not see them: its caption, else the heading."""
    first = cell.source.partition("\n")[0]
    text = first.removeprefix("# ") if first.startswith("# ") else heading
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            output.metadata["picture"] = _picture(output.data["image/png"], text)


def _picture(png, text):
    """The <img> of a base64 PNG, half the size of its pixels. A dark page inverts a figure on white and dims others."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    white = sum(image.convert("L").histogram()[250:]) > image.width * image.height / 2
    kind, source = "on-white" if white else "shades", "".join(png.split())
    size = f'width="{image.width // 2}" height="{image.height // 2}"'
    return f'<img class="{kind}" {size} alt="{escape(text)}" src="data:image/png;base64,{source}">'


def _fold_log(cell):
    """Put what a cell printed into one block; of more than three lines, only the last stands open."""
    lines = "".join(output.text for output in cell.outputs if output.output_type == "stream").splitlines()
    lines = [line for line in lines if line.strip()]
    if len(lines) > 3:
        log = f"<pre>{escape(chr(10).join(lines))}</pre>"
        log = (
            f'<details class="log"><summary>{len(lines)} lines; the last: {escape(lines[-1])}</summary>{log}</details>'
        )
        cell.outputs = [_html(log), *(output for output in cell.outputs if output.output_type != "stream")]


def _all_pages(step, steps):
    """Links to all pages by their numbers, with their questions as titles."""
    links = [
        f'<a href="{name}.html" title="{escape(_question(name))}"{" aria-current=page" * (name == step)}>'
        f"{escape(name[:2])}<span> {escape(name[3:].replace('-', ' '))}</span></a>"
        for name in steps
    ]
    return f'<span class="all">{"".join(links)}</span>'


def _neighbours(step, steps):
    """Links to the previous and the next page, the index in place of either."""
    at = steps.index(step)
    before = (steps[at - 1], f"← {_question(steps[at - 1])}") if at else ("index", "← The report")
    after = (steps[at + 1], f"{_question(steps[at + 1])} →") if at + 1 < len(steps) else ("index", "The report →")
    return "".join(f'<a href="{name}.html">{escape(text)}</a>' for name, text in (before, after))


def _question(step):
    """The title of a page, from its source."""
    source = ROOT / "notebooks" / f"{step}.ipynb"
    return _title(nbformat.read(source, as_version=4)) if source.exists() else step


def _contents(body):
    headings = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    return "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in headings)


def write_index(run, steps):
    """Write index.html of folder `run`: what was asked and found and how sure it is, then this run, then its pages."""
    run = Path(run)
    notebooks = {step: nbformat.read(run / f"{step}.ipynb", as_version=4) for step in steps}
    figures = {step: _figures(run, step, notebook) for step, notebook in notebooks.items()}
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    main = table[table["section"].isin([PUBLISHED, TEST])]
    said = "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in answers.summary().items())
    key = "".join(figures.get(step, {}).get(slug, "") for step, slug in KEY_FIGURES)
    body = f"""<main><header class="hero">
<p class="kicker">A reproducible report on music source separation</p>
<h1>{TITLE}</h1>
<dl class="lead">{said}</dl>
<nav class="jump"><a href="#answers">Answers</a><a href="#run">This run</a><a href="#figures">Figures</a>
<a href="#sdr">SDR per stem</a><a href="#limits">Limitations</a><a href="#report">The six pages</a></nav></header>
{_heard(notebooks)}
<h2 id="answers">Four answers</h2><div class="wide"><table class="answers">
<tr><th>Question</th><th>Answer</th><th>Evidence</th><th>How sure</th></tr>
{"".join(map(_answer, answers.answers()))}</table></div>
<h2 id="run">This run: “{escape(run.name)}”</h2>
<p>{escape(headline(run))} The answers above come from the larger study. SDR, mean over the stems, on the test tracks of
this run:</p>
<div class="tiles">{"".join(_tile(*tile) for tile in tiles(run, table))}</div>
<details><summary>Every finding of this run</summary>
<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in findings(run))}</ul></details>
<h2 id="figures">The argument in three figures</h2>{key}
<h2 id="sdr">SDR per stem</h2><div class="wide brief">{style_table(main).data}</div>
<p class="soft">Median over 1-s frames, then over tracks; mean over seeds. Sections have different test tracks and
different training data: compare rows within a section only.</p>
<details><summary>All systems and test sets, and how each value was computed</summary>
<div class="wide">{style_table(table).data}</div></details>
<h2 id="limits">Limitations</h2><ul>{"".join(f"<li>{limit}</li>" for limit in LIMITS)}</ul>
<h2 id="report">The six pages</h2>{"".join(_section(step, notebook) for step, notebook in notebooks.items())}
<p>DRAW AUDIO, the instrument, stands on <a href="06-explore.html">06-explore</a>: your sound joins a song, and the
separator has to find it.</p></main>
<footer class="soft foot">{_footer(run)}</footer>"""
    write_bytes(run / "index.html", _document(TITLE, body).encode())


def _answer(row):
    links = []
    for path in map(Path, row.evidence):
        page = path.suffix == ".ipynb"  # of this run
        links.append(
            f'<a href="{f"{path.stem}.html" if page else f"../../{path}"}">{path.stem if page else path.name}</a>'
        )
    cells = "".join(f"<td>{cell}</td>" for cell in (escape(row.answer), ", ".join(links), escape(row.sure)))
    return f"<tr><th>{escape(row.question)}</th>{cells}</tr>"


def _heard(notebooks):
    """A row of players from 05-listen: the mixture, and one stem as it is, by L1, and by L1 + GAN; "" without them."""
    cells = notebooks["05-listen"].cells if "05-listen" in notebooks else []
    found = {}
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        for element in re.findall(r"<audio [^>]+></audio>", output.get("data", {}).get("text/html", "")):
            row, _, name = re.search(r'aria-label="([^"]*)"', element)[1].rpartition(": ")
            found.setdefault(("mixture", "") if row == "mixture" else (row.partition(":")[0], name), element)
    wanted = {"mixture": "The mixture", "true stem": f"True {STEM}", ARMS["l1"]: "by L1", ARMS["gan"]: "by L1 + GAN"}
    keys = {name: ("mixture", "") if name == "mixture" else (STEM, name) for name in wanted}
    if not set(keys.values()) <= set(found):
        return ""
    cards = "".join(f"<div><span>{text}</span>{found[keys[name]]}</div>" for name, text in wanted.items())
    return f'<div class="players heard">{cards}</div>{SWITCH}'


def _footer(run):
    """Where the repository, the data, the licence and the other run are; when and by what this was written."""
    facts, today = made_by(), datetime.date.today()
    other = next(
        (name for name in ("study", "quick") if name != run.name and (run.parent / name / "index.html").exists()), ""
    )
    links = {"Repository": "../../README.md", "Licence: MIT": "../../LICENSE", "sdr_table.csv": "sdr_table.csv",
             "arms.csv": "arms.csv", "data of the study": "../study/onsets.csv"}  # fmt: skip
    links |= {f"The run “{other}”": f"../{other}/index.html"} if other else {}
    listed = " · ".join(f'<a href="{place}">{text}</a>' for text, place in links.items())
    return (
        f"{listed}<br>Run “{escape(run.name)}”; page written on {today.day} {today:%B %Y} by commit "
        f"{escape(facts['commit'])}."
    )


def instrument():
    """DRAW AUDIO as an element of a page: the stand-alone page within the page."""
    return f'<iframe class="instrument" title="Draw audio" srcdoc="{escape(standalone_page())}"></iframe>'


def _document(title, body, style="", kind="index"):
    """A whole HTML page; the empty icon keeps browsers from asking for one."""
    style = CSS.read_text(encoding="utf-8") + style
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body class="{kind}">
{body}
</body></html>
"""


def _code_style():
    """Colours of code, for light and dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none !important }}"


def _tile(arm, sdr, difference, low, high, word):
    """A card: an arm, its SDR, and its difference from L1 with interval and verdict, in dB; NaN: there is none."""
    text = "the loss alone"
    if not np.isnan(difference):
        interval = "" if np.isnan(low) else f" ({signed(low)} to {signed(high)})"
        text = f"{signed(difference)} dB{interval} against L1: <b>{word}</b>"
    return (
        f'<div class="tile {escape(arm)}">{escape(ARMS.get(arm, arm))}<strong>{plain(sdr)} <span>dB</span></strong>'
        f"<small>{text}</small></div>"
    )


def _section(step, notebook):
    """A notebook on the index: its title and its one sentence."""
    sentence = notebook.cells[0].source.partition("**In one sentence:** ")[2].partition("\n")[0]
    return (
        f'<section class="page"><h3><a href="{step}.html"><span class="number">{step[:2]}</span>'
        f"{escape(_title(notebook))}</a></h3><p>{escape(sentence[:1].upper() + sentence[1:])}</p></section>"
    )


def _title(notebook):
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _figures(run, step, notebook):
    """Write a notebook's figures beside the pages as <step>-<slug>.png; returns {slug: the HTML that shows it}.

    The slug is the cell's metadata "figure", the caption its first line, a comment; a second figure of a cell is
    <step>-<slug>-2.png. The page holds the figures itself; the files are for other pages, such as README.md.
    """
    shown = {}
    for cell in notebook.cells:
        if not (slug := cell.metadata.get("figure")):
            continue
        caption = cell.source.splitlines()[0].removeprefix("# ")
        images = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        for number, png in enumerate(images, 1):
            name = f"{slug}{f'-{number}' * (number > 1)}"
            write_bytes(run / f"{step}-{name}.png", base64.b64decode(png))
            link = f'<a href="{step}.html">{_picture(png, caption)}</a>'
            shown[name] = f"<figure>{link}<figcaption>{escape(caption)}</figcaption></figure>"
    for stale in {*run.glob(f"{step}-*.png")} - {run / f"{step}-{name}.png" for name in shown}:
        stale.unlink()  # at the end: on a full disk, what was there stays
    return shown


def check_figures(notebook, name):
    """Raise `UserError` if a cell with the metadata "figure" showed neither a picture nor a sentence in place of it."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        slug = cell.metadata.get("figure")
        shown = {kind for output in cell.outputs for kind in output.get("data", {})} if slug else set()
        if slug and cell.outputs and not shown & {"image/png", "text/markdown"}:
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


def write_site(run):
    """Write the page of every executed notebook in folder `run`, and index.html; raises `UserError` without any."""
    steps = [path.stem for path in tidy(run.glob("[0-9][0-9]-*.ipynb")) if not path.stem.endswith(".failed")]
    if not steps:
        raise UserError(f"{run} holds no executed notebook; run make report first, or name another run.")
    for step in steps:
        write_page(run / f"{step}.ipynb", run / f"{step}.html", steps)
    write_index(run, steps)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        write_site(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
    print(f"The pages: {Path(sys.argv[1]) / 'index.html'}")
