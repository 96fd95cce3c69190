"""DRAW AUDIO: an instrument that plays and shows the basic waveforms of synthesisers, and waves drawn by hand.

    from lib.draw_audio import DrawAudio
    widget = DrawAudio()     # mix, draw, play
    widget.wave              # one cycle, float32 (2048,), for lib.draw_audio.render

`python -m lib.draw_audio OUT.html` writes the same instrument as one page that needs neither Jupyter nor a network.
`signal.js` computes, `player.js` plays, `pictures.js` draws, `piano.js` and `pen.js` handle input, and `widget.js`
connects them.
"""

import re
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from lib.draw_audio.render import ENVELOPE, SIZE, checked_wave

HERE = Path(__file__).parent
FILES = ("signal", "player", "pictures", "piano", "pen", "widget")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Draw audio</title><link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark; }} body {{ margin: 0; }}
@media (min-width: 1170px) {{ body {{ padding: 20px; }} }}
{css}</style></head><body><script type="module">
{module}
new DrawAudio(document.body);
const fit = () => {{ frameElement.style.height = `${{document.body.scrollHeight}}px`; }};
if (window.frameElement) new ResizeObserver(fit).observe(document.body); // inside another page: no bar to scroll
</script></body></html>
"""


def module() -> str:
    """The instrument as one ES module: all files, without the imports between them.

    anywidget, and a page opened from disk, can load only one script.
    """
    text = "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in FILES)
    return re.sub(r'^import \{[^}]*\} from "\./\w+\.js";\n', "", text, flags=re.MULTILINE)


def standalone_page() -> str:
    """The instrument as one self-contained HTML page, for a file or the `srcdoc` of an iframe."""
    return PAGE.format(css=(HERE / "widget.css").read_text(encoding="utf-8"), module=module())


class DrawAudio(anywidget.AnyWidget):
    """The instrument in a notebook.

    wave: one cycle, float32 (2048,), sent as bytes; it can be set. envelope: attack, decay and release in seconds
    (decay and release to -60 dB), sustain from 0 to 1. Raises `traitlets.TraitError` for a wave of another form.
    """

    _esm = module()
    _css = (HERE / "widget.css").read_text(encoding="utf-8")
    wave = traitlets.Instance(np.ndarray).tag(
        sync=True,
        to_json=lambda wave, _: wave.tobytes(),
        from_json=lambda content, _: np.frombuffer(content, np.float32).copy(),
    )
    envelope = traitlets.Dict(dict(ENVELOPE)).tag(sync=True)

    @traitlets.default("wave")
    def _sine(self):
        return np.sin(2 * np.pi * np.arange(SIZE) / SIZE).astype(np.float32)

    @traitlets.validate("wave")
    def _check(self, proposal):
        try:
            return checked_wave(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from error
