"""Read songs of any format, sample rate and length; write their stems, all four or none.

Songs are processed block by block, so memory does not grow with their length. soundfile reads wav, flac, mp3, ogg and
more; ffmpeg converts other formats and mixes more than two channels down; soxr resamples in both directions.
"""

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from lib.common.errors import UserError
from lib.common.files import writing
from lib.common.processes import abandoned, mark
from lib.common.untrusted import regular_file
from lib.data.tracks import SAMPLERATE, SOURCES

FORMATS = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
RATES = 1000, 1_000_000  # Hz; resampling a block from 1 Hz would make it 44,100 times as long
BLOCK = 2**18  # frames read at once
WAV_LIMIT = 2**32 - 2**16  # bytes; longer files become RF64, which has no such limit


class Song:
    """A song in the file `path`; where soundfile does not suffice, ffmpeg converts it into the folder `scratch`.

    Attributes: `path`; `samplerate` (Hz), `channels` (1 or 2) and `frames` of the stems to be written; `mixed_down`,
    the song's number of channels if it has more than two, else 0. ffmpeg's downmix has centre and surround channels at
    -3 dB and no low-frequency effects. Only the first audio stream is used: in a .stem.mp4 file, the mixture.
    Raises `UserError` if the file is missing, empty, truncated or not audio, or a needed ffmpeg is missing.
    """

    def __init__(self, path, scratch):
        self.path = Path(path)
        _check_file(self.path)
        self._file = self.path
        try:
            self._describe()
        except (soundfile.LibsndfileError, TypeError):  # TypeError for names that end in .raw
            self._file = _ffmpeg(self.path, self.path, scratch / "decoded.wav")
            self._describe()
        self.mixed_down = self.channels if self.channels > 2 else 0
        if self.mixed_down:
            self._file = _ffmpeg(self.path, self._file, scratch / "stereo.wav", "-ac", "2")
            self._describe()
        if not RATES[0] <= self.samplerate <= RATES[1]:
            raise UserError(f"{path} has {self.samplerate} Hz by its header, which no song has; get it again.")

    def _describe(self):
        with _open(self._file) as file:
            self.samplerate, self.channels, self.frames = file.samplerate, file.channels, file.frames

    def blocks(self):
        """Yield float32 blocks (2, samples) at 44,100 Hz, with equal channels if the song is mono.

        Raises `UserError` if the file is damaged or ends early.
        """
        resampler = soxr.ResampleStream(self.samplerate, SAMPLERATE, self.channels, dtype="float32")
        read = 0
        try:
            with _open(self._file) as file:
                while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                    read += len(block)
                    yield _stereo(resampler.resample_chunk(block))
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self.path} is damaged or truncated ({error}); get it again.") from error
        if read < self.frames:
            raise UserError(f"{self.path} is truncated: {read} of {self.frames} samples are there; get it again.")
        yield _stereo(resampler.resample_chunk(np.empty((0, self.channels), np.float32), last=True))


def song_name(path):
    """The file's name without its extension. Raises `UserError` if a folder cannot have that name."""
    file = Path(path)
    name = file.name.removesuffix(".stem.mp4") if file.name.endswith(".stem.mp4") else file.stem
    if name in ("", ".", ".."):  # such as "...mp3", whose stems would land outside the folder for stems
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


def _check_file(path):
    try:
        with regular_file(path).open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError) as error:  # ValueError for a name with NUL
        reason = getattr(error, "strerror", error)
        raise UserError(f"Cannot read {path} ({reason}); give the path of a song.") from error
    if not head:
        raise UserError(f"{path} is an empty file; get it again.")
    # libsndfile does not report that a file is too short. Programs that stream a file promise 4 GB.
    promised = 8 + int.from_bytes(head[4:], "little") if head[:4] == b"RIFF" else 0
    if path.stat().st_size < promised < WAV_LIMIT:
        raise UserError(f"{path} is truncated: its header promises more than the file holds; get it again.")


def _open(path):
    """Open `path` with soundfile, without its mp3 decoder's messages on the terminal."""
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return soundfile.SoundFile(path)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _ffmpeg(song, source, target, *options):
    """Convert the first audio stream of `source` to a float wav file `target`; returns `target`."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{source}"]
    command += ["-map", "0:a:0", *options, "-c:a", "pcm_f32le", "-rf64", "auto", f"file:{target}"]
    try:
        # S603 does not apply: "file:" keeps names from being options or addresses
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603
    except FileNotFoundError as error:
        raise UserError(f"ffmpeg, which {song} needs, was not found; install it, or convert to stereo wav.") from error
    if done.returncode:
        reason = done.stderr.strip().split("\n")[-1].removeprefix("file:").rstrip(". ")
        advice = "free some space" if "No space left" in reason else "give a whole audio file"
        raise UserError(f"Cannot decode {song} (ffmpeg: {reason}); {advice}.")
    return target


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
