"""Sound in a notebook, small enough to be committed with it.

Players hold Ogg Opus (RFC 6716, RFC 7845) at about 16 kbit/s per channel, half of Vorbis' least, with the whole range
up to 20 kHz. No metric is computed from it.
"""

import base64
import io
from html import escape

import numpy as np
import soundfile
from IPython.display import HTML
from scipy import signal

OPUS_RATE = 48_000  # Hz: the only rate of a full-band Opus stream
COMPRESSION = 0.96  # libsndfile's scale: 0 (256 kbit/s per channel) to 1 (6 kbit/s)
NO_MATH = "mathjax_ignore"  # CSS class: JupyterLab sets no formulas inside, so that a $ stays a $
# A player that starts stops the others; if both play one excerpt, it continues at the same position.
SWITCH = """<script>
window.onePlayerAtATime ||= !document.addEventListener("play", ({target}) => {
  for (const other of document.querySelectorAll("audio"))
    if (other !== target && !other.paused) {
      other.pause();
      if (target.closest(".players") === other.closest(".players")) target.currentTime = other.currentTime;
    }
}, true);
</script>"""


def player(audio, samplerate, label, seconds=10):
    """A player of the first `seconds` of `audio` (channels, time), embedded in the page."""
    return HTML(
        f'<div class="{NO_MATH}" style="display:flex;align-items:center;gap:12px;margin:2px 0">'
        f'<span style="min-width:11em">{escape(label)}</span>{_element(label, audio, samplerate, seconds)}</div>'
    )


def players(rows, samplerate, seconds=10):
    """Players side by side, to be compared by switching between them while they play.

    rows: {name of a row: {name of a player: audio (channels, time)}}, all of one excerpt; samplerate in Hz.
    """
    lines = []
    for row, sounds in rows.items():
        cards = "".join(
            f'<div style="flex:1 1 150px;max-width:240px"><div style="font-size:13px">{escape(name)}</div>'
            f"{_element(f'{row}: {name}', audio, samplerate, seconds)}</div>"
            for name, audio in sounds.items()
        )
        lines.append(
            f'<div style="font-weight:600;margin:10px 0 2px">{escape(row)}</div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:6px 12px">{cards}</div>'
        )
    return HTML(f'<div class="players {NO_MATH}">{"".join(lines)}</div>{SWITCH}')


def _element(label, audio, samplerate, seconds):
    source = base64.b64encode(ogg_opus(np.asarray(audio)[:, : round(seconds * samplerate)], samplerate)).decode()
    return (
        f'<audio controls preload="metadata" style="width:100%;max-width:300px;height:36px" '
        f'aria-label="{escape(label)}" src="data:audio/ogg;base64,{source}"></audio>'
    )


def ogg_opus(audio, samplerate):
    """`audio` (channels, time) as the bytes of an Ogg Opus file, scaled down if it exceeds full scale."""
    factor = np.gcd(OPUS_RATE, samplerate)
    samples = signal.resample_poly(np.asarray(audio, np.float32), OPUS_RATE // factor, samplerate // factor, axis=-1).T
    samples = samples / max(1.0, np.abs(samples).max(initial=0))
    file = io.BytesIO()
    options = {"format": "OGG", "subtype": "OPUS", "compression_level": COMPRESSION}
    with soundfile.SoundFile(file, "w", OPUS_RATE, samples.shape[1], **options) as encoder:
        encoder.write(samples)
    return file.getvalue()
