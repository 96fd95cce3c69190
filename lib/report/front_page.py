"""The front page of a run: what was asked and found, how sure it is, this run, and the way to its pages."""

import base64
import datetime
import re
from html import escape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from lib.common.files import write_bytes
from lib.common.provenance import made_by
from lib.common.words import plain, signed
from lib.evaluation.results import ARMS
from lib.report.audio import SWITCH
from lib.report.document import document, picture, title_of
from lib.report.sentences import answers
from lib.report.sentences.headline import findings, headline, tiles
from lib.report.tables import PUBLISHED, TEST, style_table

TITLE = "Demucs v1 + GAN: the update"
KEY_FIGURES = (("03-sdr-table", "seed-noise"), ("04-discriminator", "overfitting"), ("03-sdr-table", "forest-sdr"))
OF_STUDY = KEY_FIGURES[2]  # taken from the study where it is there: a run of one seed has no verdicts
STEM = "vocals"  # heard on the front page
LIMITS = (
    "Networks are small, training takes minutes, and the songs are composed: this says nothing of Demucs v1 at its "
    "published size, nor of real music.",
    "The first report cannot be read; its discriminator was rebuilt from pix2pix, and its width, depth and weight are "
    "assumptions.",
    "“Not decided” is not “no effect”; few pre-trainings make wide intervals.",
    "There was no listening test.",
)


def write_index(run, steps):
    """Write index.html of folder `run`: what was asked and found and how sure it is, then this run, then its pages."""
    run = Path(run)
    notebooks = {step: nbformat.read(run / f"{step}.ipynb", as_version=4) for step in steps}
    figures = {step: _figures(run, step, notebook) for step, notebook in notebooks.items()}
    table = pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str})
    main = table[table["section"].isin([PUBLISHED, TEST])]
    said = "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in answers.summary().items())
    key = "".join(figures.get(step, {}).get(slug, "") for step, slug in KEY_FIGURES if (step, slug) != OF_STUDY)
    key += _figure_of_study() or figures.get(OF_STUDY[0], {}).get(OF_STUDY[1], "")
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
<p>{escape(headline(run))} The answers above come from the larger study, of other songs and longer trainings. SDR, mean
over the stems, on the test tracks of this run:</p>
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
    write_bytes(run / "index.html", document(TITLE, body).encode())


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
    wanted = {"mixture": "A test song", "true stem": f"Its {STEM}", ARMS["l1"]: f"{STEM.capitalize()} by L1"}
    wanted[ARMS["gan"]] = f"{wanted[ARMS['l1']]} + GAN"
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
        f"{escape(title_of(notebook))}</a></h3><p>{escape(sentence[:1].upper() + sentence[1:])}</p></section>"
    )


def _figures(run, step, notebook):
    """Write a notebook's figures beside the pages as <step>-<slug>.png; returns {slug: the HTML that shows it}.

    The slug is the cell's metadata "figure", the caption its first line, a comment; a second figure of a cell is
    <step>-<slug>-2.png. The page holds the figures itself; the files are for other pages, such as README.md.
    """
    shown = {}
    for name, caption, png in _pictures(notebook):
        write_bytes(run / f"{step}-{name}.png", base64.b64decode(png))
        shown[name] = _figure(f"{step}.html", caption, png)
    for stale in {*run.glob(f"{step}-*.png")} - {run / f"{step}-{name}.png" for name in shown}:
        stale.unlink()  # at the end: on a full disk, what was there stays
    return shown


def _pictures(notebook):
    """Yield (slug, caption, base64 PNG) of a notebook's figures."""
    for cell in notebook.cells:
        if slug := cell.metadata.get("figure"):
            caption = cell.source.splitlines()[0].removeprefix("# ")
            images = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
            for number, png in enumerate(images, 1):
                yield f"{slug}{f'-{number}' * (number > 1)}", caption, png


def _figure(page, caption, png):
    link = f'<a href="{page}">{picture(png, caption)}</a>'
    return f"<figure>{link}<figcaption>{escape(caption)}</figcaption></figure>"


def _figure_of_study():
    """The figure `OF_STUDY` of the committed study, which links to its page; "" where it is not there."""
    step, wanted = OF_STUDY
    source = answers.STUDY / f"{step}.ipynb"
    found = _pictures(nbformat.read(source, as_version=4)) if source.exists() else ()
    page = source.with_suffix(".html") if source.with_suffix(".html").exists() else source
    return next((_figure(f"../study/{page.name}", f"The study: {c}", png) for s, c, png in found if s == wanted), "")
