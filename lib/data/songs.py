"""Read songs of any format, sample rate and length; `lib.separate.stems` writes their stems.

Songs are processed block by block, so memory does not grow with their length. `lib.data.sound` decodes them; soxr
resamples in both directions.
"""

import contextlib
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soxr

from lib.common.errors import UserError
from lib.common.files import writing
from lib.common.processes import abandoned, mark
from lib.data.sound import Sound, describe, ffmpeg, probe
from lib.data.tracks import SAMPLERATE

RATES = 1000, 1_000_000  # Hz; resampling a block from 1 Hz would make it 44,100 times as long


class Song(Sound):
    """A song in the file `path`; what soundfile cannot read, ffmpeg converts into the folder `scratch`.

    Attributes: those of `Sound`; `samplerate` (Hz), `channels` (1 or 2) and `frames` of the stems to be written: the
    highest rate and number of channels of its recordings. More than two channels are mixed down to stereo: by ffmpeg if
    their layout is known (centre and surround at -3 dB, no low-frequency effects), else each side is their mean.
    """

    def __init__(self, path, scratch):
        super().__init__(path, scratch)
        self.recordings = [self._mixed_down(part, scratch) for part in self.recordings]
        if odd := [part.samplerate for part in self.recordings if not RATES[0] <= part.samplerate <= RATES[1]]:
            raise UserError(f"{path} has {odd[0]} Hz by its header, which no song has; get it again.")
        self.samplerate = max(part.samplerate for part in self.recordings)
        self.channels = min(2, max(part.channels for part in self.recordings))
        self.frames = sum(round(part.frames * self.samplerate / part.samplerate) for part in self.recordings)

    def _mixed_down(self, part, scratch):
        if part.channels <= 2:
            return part
        source = f"file:{part.file}"
        if "channel_layout" in probe(self.path, source)["streams"][0]:
            how, target = "channels: its stereo downmix is separated", scratch / f"stereo-{part.file.stem}.wav"
            ffmpeg(self.path, source, target, "-ac", "2")
            mixed = describe(target)
        else:
            how, mixed = "channels without a layout: their mean is separated", part
        self.remarks.append(f"{self.path} has {part.channels} {how}, and the stems sum to that.")
        return mixed

    def blocks(self, rate=SAMPLERATE):
        """Yield float32 blocks (2, samples) at `rate` Hz, with equal channels if the song is mono.

        Raises `UserError` if the file is damaged or ends early.
        """
        for part in self.recordings:
            channels = part.channels if part.channels <= 2 else 1
            resampler = soxr.ResampleStream(part.samplerate, rate, channels, dtype="float32")
            for block in self.read(part):
                block = block if block.shape[1] == channels else block.mean(1, keepdims=True)
                yield _stereo(resampler.resample_chunk(block))
            yield _stereo(resampler.resample_chunk(np.empty((0, channels), np.float32), last=True))


def song_name(path):
    """The file's name without its extension, and without spaces and dots at its end, which network drives do not hold.

    Raises `UserError` if nothing is left.
    """
    file = Path(path)
    name = (file.name.removesuffix(".stem.mp4") if file.name.endswith(".stem.mp4") else file.stem).rstrip(" .")
    if not name:  # such as "...mp3", whose stems would land outside the folder for stems
        raise UserError(f"{path} has no name to give to its stems; rename it.")
    return name


def decibels(amplitude):
    """An amplitude relative to full scale in dB."""
    return 20 * math.log10(amplitude) if amplitude else -math.inf


@contextlib.contextmanager
def scratch_folder(out):
    """Yield a hidden temporary folder in `out`, which is created if missing and removed if it stays empty.

    Temporary folders of killed processes are removed too. Raises `UserError` if `out` cannot be written.
    """
    out = Path(out)
    new = not out.exists()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for half in abandoned(out.glob(".separating-*.tmp")):
            shutil.rmtree(half)
        folder = tempfile.TemporaryDirectory(prefix=".separating-", suffix=mark(), dir=out)
    try:
        with folder as name:
            yield Path(name)
    finally:
        if new and not any(out.iterdir()):
            out.rmdir()


def _stereo(block):
    """(frames, 1 or 2) -> (2, frames)."""
    return np.array(np.broadcast_to(block, (len(block), 2)).T, order="C")
