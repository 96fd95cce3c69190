"""What all pages share: the HTML around a page's content, a picture in it, and the title of a notebook."""

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

CSS = Path(__file__).with_name("pages.css")


def document(title, body, style="", kind="index"):
    """A whole HTML page; the empty icon keeps browsers from asking for one."""
    style = CSS.read_text(encoding="utf-8") + style
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head><body class="{kind}">
{body}
</body></html>
"""


def title_of(notebook):
    """The title of a notebook: its first line."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def picture(png, text):
    """The <img> of a base64 PNG, half the size of its pixels. A dark page inverts a figure of lines and dims others."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    levels, pixels = image.convert("L").histogram(), image.width * image.height
    lines = sum(levels[250:]) > pixels / 2 and sum(levels[:110]) < pixels / 10  # a spectrogram is dark
    kind, source = "on-white" if lines else "shades", "".join(png.split())
    size = f'width="{image.width // 2}" height="{image.height // 2}"'
    return f'<img class="{kind}" {size} alt="{escape(text)}" src="data:image/png;base64,{source}">'
