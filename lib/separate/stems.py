"""Write the stems of a song as wav, flac or mp3, all of them or none, with the song's rate, channels and length.

The estimates are first kept as floats in a scratch file, because the loudest sample decides whether a factor is needed
that keeps all of them below full scale. Memory does not grow with the song's length.
"""

import contextlib
import io
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from lib.common.errors import UserError
from lib.common.files import writing
from lib.data.tracks import SAMPLERATE

BITS = {"wav": ("16", "24", "float"), "flac": ("16", "24"), "mp3": ()}  # by kind of file
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT", None: "MPEG_LAYER_III"}
BLOCK = 2**16  # frames written at once
WAV_LIMIT = 2**32 - 2**16  # bytes; longer files become RF64, which has no such limit


class Form(NamedTuple):
    """How stems are written. kind: a key of `BITS`; bits: one of its values, None for mp3 (320 kbit/s, constant)."""

    kind: str = "wav"
    bits: str | None = "24"

    def check(self, song):
        """Raise `UserError` if such a file cannot have the sample rate of `song`."""
        try:
            self.create(io.BytesIO(), song).close()
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{song.path} has {song.samplerate:,} Hz, which {self.kind} cannot hold; choose --format wav."
            ) from error

    def create(self, path, song):
        """Open a new file with the sample rate and channels of `song`; RF64 if it exceeds wav's limit."""
        kind = self.kind.upper()
        if kind == "WAV" and song.frames * song.channels * 4 > WAV_LIMIT:
            kind = "RF64"
        best = {"compression_level": 0.0, "bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
        subtype = SUBTYPES[self.bits]
        return soundfile.SoundFile(path, "w", song.samplerate, song.channels, subtype, format=kind, **best)


WAV = Form()


def write_stems(song, estimates, files, scratch, form=WAV, exact=False):
    """Write the `estimates` of `song`, blocks (stems, 2, samples) at 44,100 Hz, to `files`, {stem: path}.

    scratch: a folder on the same disk, in which all files are finished before they are moved; exact: each stem gets an
    equal share of what their sum lacks of the song, at the song's own rate. Then files of 16 or 24 bits add up to the
    song, rounded to these bits, in every sample, and floats to the rounding of 32 bits (-140 dB).
    Returns (peaks, gain): {stem: highest amplitude of the estimate}, and the factor on all stems, 1 unless one would
    clip. Raises `UserError` if the disk is full or a file cannot be written.
    """
    place = next(iter(files.values())).parent
    with writing(place, soundfile.LibsndfileError):
        stored = scratch / "estimates"
        with stored.open("wb") as file:
            peak = _store(file, song, estimates, len(files), exact)
        gain = _gain(peak.max(), form, exact)
        with contextlib.ExitStack() as stack:
            written = [stack.enter_context(form.create(scratch / stem, song)) for stem in files]
            for rows in _stored(stored, (len(files) + exact, song.channels)):
                encoded = _encode(rows * gain, form, exact)
                for k, file in enumerate(written):
                    file.write(encoded[:, k])
        for stem, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            (scratch / stem).replace(path)
    return dict(zip(files, peak.tolist(), strict=True)), gain


def _store(file, song, estimates, stems, exact):
    """Write float32 rows (samples, stems, channels) to `file`, the song last if `exact`; returns each stem's peak."""
    peak = np.zeros(stems)
    rows = _rows(song, estimates, stems)
    for part, mixture in _beside(rows, song) if exact else ((part, None) for part in rows):
        if exact:
            part = part + (mixture - part.sum(1, keepdims=True)) / stems
        peak = np.maximum(peak, np.abs(part).max(axis=(0, 2), initial=0))
        file.write(np.concatenate([part, mixture], axis=1) if exact else part)
    return peak


def _beside(rows, song):
    """Yield each block of the `rows` of stems with that of the song, (samples, 1, channels), at the song's own rate."""
    blocks, held = song.blocks(song.samplerate), np.empty((0, song.channels), np.float32)
    for part in rows:
        while len(held) < len(part) and (block := next(blocks, None)) is not None:
            held = np.concatenate([held, block[: song.channels].T])
        mixture, held = held[: len(part)], held[len(part) :]
        lacking = len(part) - len(mixture)  # at the end, if recordings of several rates follow each other
        yield part, np.pad(mixture, ((0, lacking), (0, 0)))[:, None]


def _stored(path, shape):
    """Yield the rows that `_store` wrote, as float64 blocks (samples, *shape)."""
    with path.open("rb") as file:
        while len(block := np.fromfile(file, np.float32, BLOCK * np.prod(shape))):
            yield block.reshape(-1, *shape).astype(np.float64)


def _rows(song, estimates, stems):
    """Yield blocks (samples, stems, channels) at the song's rate, together as long; mono is the mean of both."""
    shape, left = (stems, song.channels), song.frames
    resampler = soxr.ResampleStream(SAMPLERATE, song.samplerate, stems * song.channels, dtype="float32")
    for block in map(np.asarray, estimates):
        block = block.mean(1, keepdims=True) if song.channels == 1 else block
        rows = resampler.resample_chunk(np.ascontiguousarray(block.reshape(stems * song.channels, -1).T))[:left]
        left -= len(rows)
        yield rows.reshape(-1, *shape)
    rows = resampler.resample_chunk(np.empty((0, stems * song.channels), np.float32), last=True)[:left]
    yield np.pad(rows, ((0, left - len(rows)), (0, 0))).reshape(-1, *shape)  # resampling may end a few samples early


def _gain(peak, form, exact):
    """The factor that keeps a `peak` below full scale: that of the highest integers, or 1 where nothing would clip."""
    if form.bits == "float":
        return 1.0
    step = 2.0 ** (1 - int(form.bits)) if form.bits else 0.0
    most = 1 - step * (1 + exact)  # exact rounding may add a step
    return most / peak if peak > (most if exact else 1) else 1.0


def _encode(rows, form, exact):
    """`rows` (samples, stems and the song if `exact`, channels) as soundfile is to write them.

    If `exact`, the running sums over the stems are rounded, and the last of them is the song: so the differences of
    neighbours, which are the integer stems, add up to it, and each is within a step of its float.
    """
    if form.bits in ("float", None):
        return rows[:, : rows.shape[1] - exact].astype(np.float32)
    scale = 2.0 ** (int(form.bits) - 1)
    if exact:
        sums = np.concatenate([rows[:, :-2].cumsum(1), rows[:, -1:]], axis=1)
        steps = np.diff(np.rint(sums * scale), axis=1, prepend=0)
    else:
        steps = np.rint(rows * scale)
    # Integers in the upper bits are written as they are; libsndfile would scale floats by 2^n - 1, not 2^n.
    return np.clip(steps, -scale, scale - 1).astype(np.int32) << (32 - int(form.bits))
