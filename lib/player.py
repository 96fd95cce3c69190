"""Sound in a notebook, small enough to be committed with it."""

import base64
import io
from html import escape

import numpy as np
import soundfile
from IPython.display import HTML


def player(audio, samplerate, label, seconds=10):
    """An audio player for a notebook: the first `seconds` of `audio` (channels, time) as Ogg Vorbis inside
    the page."""
    samples = np.asarray(audio, np.float32)[:, : int(seconds * samplerate)].T
    samples = samples / max(1.0, np.abs(samples).max(initial=0))  # Vorbis clips beyond full scale
    ogg = io.BytesIO()
    options = {"subtype": "VORBIS", "format": "OGG", "compression_level": 1.0}
    with soundfile.SoundFile(ogg, "w", samplerate, samples.shape[1], **options) as file:
        for start in range(0, len(samples), samplerate):  # one long write can overflow libvorbis' stack
            file.write(samples[start : start + samplerate])
    source = base64.b64encode(ogg.getvalue()).decode()
    return HTML(
        '<div style="display:flex;align-items:center;gap:12px;margin:2px 0">'
        f'<span style="min-width:11em">{escape(label)}</span>'
        f'<audio controls preload="metadata" src="data:audio/ogg;base64,{source}"></audio></div>'
    )
