"""The pages of a run: HTML of each notebook, and an index.html that opens from disk without a network.

    python -m lib.report.pages results/quick      # of the executed notebooks that are there; nothing runs

A page holds everything it needs: style, figures, sound, the instrument. Names of tracks and Markdown are escaped.
"""

import base64
import io
import re
import sys
from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from PIL import Image
from pygments.formatters import HtmlFormatter

from lib.common.errors import UserError
from lib.common.files import tidy, write_bytes
from lib.common.provenance import ROOT
from lib.draw_audio import standalone_page
from lib.report.document import document, picture, title_of
from lib.report.front_page import write_index
from lib.report.guard import injected, notebook_parameters

VIEW = "application/vnd.jupyter.widget-view+json"
TEMPLATE = """{% extends "basic/index.html.j2" %}
{% block input_group %}{% if cell.source %}{% set first = cell.source.split("\n")[0] %}
<details class="code"><summary>{{ (first[2:] if first.startswith("# ") else "Code") | e }}</summary>
{{ super() }}</details>{% endif %}{% endblock %}
{% block data_png %}<div class="output_png">{{ output.metadata["picture"] }}</div>{% endblock %}"""


def write_page(notebook, page, steps):
    """Convert an executed notebook to one HTML file that loads nothing from elsewhere.

    steps: names of all pages of the run, in order; the page links to them, and to the index.
    """
    content, step = nbformat.read(notebook, as_version=4), Path(page).stem
    defaults = notebook_parameters(notebook)
    given = next((cell.source for cell in content.cells if "injected-parameters" in _tags(cell)), "")
    content.cells = [cell for cell in content.cells if "injected-parameters" not in _tags(cell)]
    heading = title_of(content)
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
    body = re.sub(r"<td>-(?=[\d.]+</td>)", "<td>−", body)  # the sign that sentences and figures have
    body = f"""<nav class="bar"><a href="index.html">← The report</a>{_all_pages(step, steps)}</nav>
<div class="beside"><nav class="contents"><b>On this page</b>{_contents(body)}</nav><main>{body}</main></div>
<nav class="bar foot">{_neighbours(step, list(steps))}</nav>"""
    write_bytes(page, document(title_of(content), body, _code_style(), "notebook").encode())


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
            output.metadata["picture"] = picture(output.data["image/png"], text)


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
    return title_of(nbformat.read(source, as_version=4)) if source.exists() else step


def _contents(body):
    headings = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body)
    return "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in headings)


def instrument():
    """DRAW AUDIO as an element of a page: the stand-alone page within the page."""
    return f'<iframe class="instrument" title="Draw audio" srcdoc="{escape(standalone_page())}"></iframe>'


def _code_style():
    """Colours of code, for light and dark."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("xcode", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none !important }}"


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
