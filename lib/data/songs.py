"""Read songs of any format, sample rate and length; write their stems, all four or none.

Songs are processed block by block, so memory does not grow with their length. `lib.data.sound` decodes them; soxr
resamples in both directions.
"""

import contextlib
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lib.common.errors import UserError
from lib.common.files import writing
from lib.common.processes import abandoned, mark
from lib.data.sound import BLOCK, Sound, describe, ffmpeg, probe
from lib.data.tracks import SAMPLERATE, SOURCES

FORMATS = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
RATES = 1000, 1_000_000  # Hz; resampling a block from 1 Hz would make it 44,100 times as long
WAV_LIMIT = 2**32 - 2**16  # bytes; longer files become RF64, which has no such limit


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

    def blocks(self):
        """Yield float32 blocks (2, samples) at 44,100 Hz, with equal channels if the song is mono.

        Raises `UserError` if the file is damaged or ends early.
        """
        for part in self.recordings:
            channels = part.channels if part.channels <= 2 else 1
            resampler = soxr.ResampleStream(part.samplerate, SAMPLERATE, channels, dtype="float32")
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


def write_stems(song, estimates, folder, scratch, form):
    """Write `folder`/drums.wav and so on, with the song's sample rate, channels and length.

    estimates: blocks (sources, 2, samples) at 44,100 Hz; scratch: a folder on the same disk, in which all files are
    finished before they are moved to `folder`; form: a key of `FORMATS`. Returns (peaks, gain): {source: highest
    amplitude of the estimate}, and the factor on all stems, 1 unless one would clip at 16 or 24 bits.
    Raises `UserError` if the disk is full or `folder` cannot be written.
    """
    with writing(folder, soundfile.LibsndfileError):
        peaks = _write_float(song, estimates, scratch)
        gain, files = 1.0, [scratch / f"{source}.wav" for source in SOURCES]
        if form != "float":
            if max(peaks.values()) > 1:
                gain = (1 - 2.0 ** (1 - int(form))) / max(peaks.values())  # the highest of such integers
            for file in files:
                _quantise(file, gain, form)
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.replace(folder / file.name)
    return peaks, gain


def _stereo(block):
    """(frames, 1 or 2) -> (2, frames)."""
    return np.array(np.broadcast_to(block, (len(block), 2)).T, order="C")


def _write_float(song, estimates, scratch):
    """Write float stems with the song's rate, channels and length; returns {source: highest amplitude}."""
    peaks = dict.fromkeys(SOURCES, 0.0)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_create(scratch / f"{source}.wav", "FLOAT", song)) for source in SOURCES]
        for rows in _rows(song, estimates):
            for source, file, part in zip(SOURCES, files, np.split(rows, len(SOURCES), axis=1), strict=True):
                file.write(part)
                peaks[source] = max(peaks[source], float(np.abs(part).max(initial=0)))
    return peaks


def _rows(song, estimates):
    """Yield blocks (samples, sources * channels) at the song's rate, together as long; mono is the mean of both."""
    width, left = len(SOURCES) * song.channels, song.frames
    resampler = soxr.ResampleStream(SAMPLERATE, song.samplerate, width, dtype="float32")
    for block in map(np.asarray, estimates):
        block = block.mean(1, keepdims=True) if song.channels == 1 else block
        rows = resampler.resample_chunk(np.ascontiguousarray(block.reshape(width, -1).T))[:left]
        left -= len(rows)
        yield rows
    rows = resampler.resample_chunk(np.empty((0, width), np.float32), last=True)[:left]
    yield np.pad(rows, ((0, left - len(rows)), (0, 0)))  # resampling may end a few samples early


def _quantise(path, gain, form):
    """Replace a float wav file by an integer one, scaled by `gain`."""
    scale, target = 2.0 ** (int(form) - 1), path.with_suffix(".integers")
    with soundfile.SoundFile(path) as file, _create(target, FORMATS[form], file) as quantised:
        while len(block := file.read(BLOCK, always_2d=True)):
            # Integers in the upper bits are written as they are; libsndfile would scale floats by 2^n - 1, not 2^n.
            steps = np.clip(np.rint(block * (gain * scale)), -scale, scale - 1).astype(np.int32)
            quantised.write(steps << (32 - int(form)))
    target.replace(path)


def _create(path, subtype, like):
    """Open a new wav file with the sample rate and channels of `like`; RF64 if its frames exceed wav's limit."""
    kind = "RF64" if like.frames * like.channels * 4 > WAV_LIMIT else "WAV"
    return soundfile.SoundFile(path, "w", like.samplerate, like.channels, subtype, format=kind)
