"""The pages of a run: HTML of each notebook, and an index.html that opens from disk without a network."""

import base64
import io
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

from lib.files import write_bytes
from lib.provenance import made_by
from lib.readings import findings
from lib.report import style_table

STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --paper: #fff; --soft: #5b6475; --line: #d9dde5; --link: #0b62b8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --paper: #14171d; --soft: #9aa4b5; --line: #333a46; --link: #7db7f0; } }
body { margin: 0 auto; max-width: 58rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
       font: 17px/1.6 system-ui, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; } h2 { margin-top: 2.5rem; font-size: 1.3rem; }
a { color: var(--link); } .soft, figcaption { color: var(--soft); font-size: .9rem; }
figure { margin: 1.5rem 0; } figure img { width: 100%; border-radius: 6px; background: #fff; }
.wide { overflow-x: auto; } nav li { margin: .3rem 0; }
"""


def write_page(notebook, page):
    """Convert an executed notebook to one HTML file that loads nothing from elsewhere."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        mathjax_url="", require_js_url="", jquery_url="", exclude_input_prompt=True, exclude_output_prompt=True
    )
    text, _ = exporter.from_filename(str(notebook))
    write_bytes(page, text.encode())


def write_index(run, steps):
    """Write index.html of folder `run`: the findings, the SDR table, the main figures and links to the notebooks."""
    run = Path(run)
    notebooks = {step: nbformat.read(run / f"{step}.ipynb", as_version=4) for step in steps}
    links = "".join(
        f'<li><a href="{step}.html">{escape(_title(notebook))}</a> <span class="soft">{step}</span></li>'
        for step, notebook in notebooks.items()
    )
    figures = "".join(_figures(run, step, notebook) for step, notebook in notebooks.items())
    table = style_table(pd.read_csv(run / "sdr_table.csv", dtype={"seeds": str}))
    facts = made_by()
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Demucs v1 + GAN: the update</title><style>{STYLE}</style></head><body>
<h1>Demucs v1 + GAN: the update</h1>
<ul>{"".join(f"<li>{escape(sentence)}</li>" for sentence in findings(run))}</ul>
<h2>SDR per stem</h2><div class="wide">{getattr(table, "data", table)}</div>
<h2>What to look at first</h2>{figures}
<h2>The report</h2><nav><ol>{links}</ol></nav>
<p class="soft">Run “{escape(run.name)}”, commit {escape(facts["commit"])}, {escape(facts["machine"])},
torch {escape(facts["torch"])}.</p>
</body></html>
"""
    write_bytes(run / "index.html", page.encode())


def _title(notebook):
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _figures(run, step, notebook):
    """Write the pictures of the cells tagged `figure` beside the pages, and return the HTML that shows them.

    A cell's first line, a comment, is the caption. The page carries the pictures itself; the files are for others.
    """
    found = []
    for cell in notebook.cells:
        if "figure" not in cell.metadata.get("tags", []):
            continue
        caption = escape(cell.source.splitlines()[0].lstrip("# "))
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                image = base64.b64decode(output.data["image/png"])
                write_bytes(run / f"{step}-figure-{len(found) + 1}.png", image)
                source = f"data:image/png;base64,{base64.b64encode(image).decode()}"
                found.append(f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>')
    return "".join(found)


def shrink_figures(path):
    """Rewrite a notebook's pictures with a palette of 128 colours: a third of the bytes, the same to the eye."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
                small = io.BytesIO()
                image.quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
                if small.tell() < len(picture) * 3 / 4:
                    output["data"]["image/png"] = base64.b64encode(small.getvalue()).decode()
    write_bytes(path, nbformat.writes(notebook).encode())
