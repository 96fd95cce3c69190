"""Songs in files: read in any format, at any rate and length; their stems, written whole or not at all.

Everything goes block by block, so memory does not grow with the song. soundfile reads wav, flac, mp3, ogg and more;
ffmpeg converts what soundfile cannot read, and mixes more than two channels down. soxr resamples, in both directions.
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
from lib.common.processes import abandoned, mark
from lib.common.untrusted import regular_file
from lib.data.tracks import SAMPLERATE, SOURCES

FORMATS = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
RATES = 1000, 1_000_000  # Hz; a block at 1 Hz would be 44,100 times as long after resampling
BLOCK = 2**18  # frames that are read at once
WAV_LIMIT = 2**32 - 2**16  # bytes; longer files get RF64, the wav format without this limit


class Song:
    """A song in the file `path`; what soundfile cannot use directly is converted into the folder `scratch`.

    Attributes: `path`; `samplerate` (Hz), `channels` (1 or 2) and `frames`, which its stems will have; `mixed_down`,
    the number of channels of a song that had more than two, else 0. The stereo downmix is ffmpeg's for the layout:
    centre and surround channels at -3 dB, no low-frequency effects. Of several audio streams the first is used, which
    in a .stem.mp4 file is the mixture.
    Raises `UserError` for what is missing, empty, truncated or no audio, and when ffmpeg is needed and missing.
    """

    def __init__(self, path, scratch):
        self.path = Path(path)
        _check_file(self.path)
        self._file = self.path
        try:
            self._describe()
        except (soundfile.LibsndfileError, TypeError):  # the latter for a name that ends in .raw
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

    @property
    def seconds(self):
        return self.frames / self.samplerate

    def blocks(self):
        """Yield the song as the networks take it: float32 (2, samples) at 44,100 Hz, both alike if it is mono.

        Raises `UserError` when the file is damaged or ends early.
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
    """The name of a song: its file's without the extension. Raises `UserError` where a folder cannot have that name."""
    file = Path(path)
    name = file.name.removesuffix(".stem.mp4") if file.name.endswith(".stem.mp4") else file.stem
    if name in ("", ".", ".."):  # as of "...mp3": its stems would leave the folder of all stems
        raise UserError(f"{path} has no name to give to its stems; rename it.")
    return name


def decibels(amplitude):
    """An amplitude relative to full scale in dB."""
    return 20 * math.log10(amplitude) if amplitude else -math.inf


@contextlib.contextmanager
def scratch_folder(out):
    """A hidden folder in `out`, which is made if need be; it is gone afterwards, as are those of killed processes and a
    new `out` that is still empty.

    Raises `UserError` when `out` cannot be written, or its disk is full.
    """
    out = Path(out)
    new = not out.exists()
    with _writing(out):
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


def write_stems(song, estimates, folder, scratch, form="24"):
    """Write estimates of `song` to `folder`/drums.wav and so on, with the song's rate, channels and length.

    estimates: blocks (sources, 2, samples) at 44,100 Hz; form: a key of `FORMATS`. The files are finished in `scratch`,
    on the same disk, before the first is moved to `folder`. Returns (peaks, gain): {source: highest amplitude of the
    estimate} and the factor that all stems were multiplied by. It is 1, unless "16" or "24" would clip an estimate: the
    same factor for all keeps their balance, so that they still sum to the mixture, only more quietly.
    Raises `UserError` when the disk is full or `folder` cannot be written.
    """
    with _writing(folder):
        peaks = _write_float(song, estimates, scratch)
        gain = 1.0
        if form != "float":
            full = 1 - 2.0 ** (1 - int(form))  # the highest value that such integers hold
            gain = full / max(peaks.values()) if max(peaks.values()) > 1 else 1.0
            for source in SOURCES:
                _quantise(scratch / f"{source}.wav", gain, form)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for source in SOURCES:
            (scratch / f"{source}.wav").replace(Path(folder) / f"{source}.wav")
    return peaks, gain


def _check_file(path):
    """Refuse what is no readable file, is empty, or promises more than it holds."""
    try:
        with regular_file(path).open("rb") as file:
            head = file.read(8)
    except (OSError, ValueError) as error:  # the latter for a name with NUL
        reason = getattr(error, "strerror", error)
        raise UserError(f"Cannot read {path} ({reason}); give the path of a song.") from error
    if not head:
        raise UserError(f"{path} is an empty file; get it again.")
    # libsndfile silently reads what is there. A program that cannot know the length promises 4 GB.
    promised = 8 + int.from_bytes(head[4:], "little") if head[:4] == b"RIFF" else 0
    if path.stat().st_size < promised < WAV_LIMIT:
        raise UserError(f"{path} is truncated: its header promises more than the file holds; get it again.")


def _open(path):
    """`path` by soundfile, without the notes that its mp3 decoder writes to the terminal."""
    terminal = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        return soundfile.SoundFile(path)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _ffmpeg(song, source, target, *options):
    """Convert the first audio stream of `source` to `target`, a wav file of floats, and return `target`."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{source}"]
    command += ["-map", "0:a:0", *options, "-c:a", "pcm_f32le", "-rf64", "auto", f"file:{target}"]
    try:
        # S603 does not apply: names of files stand behind "file:", so none is an option or an address
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
    """Write the stems as floats, back at the song's rate, channels and length; {source: highest amplitude}."""
    resampler = soxr.ResampleStream(SAMPLERATE, song.samplerate, len(SOURCES) * song.channels, dtype="float32")
    peaks, left = dict.fromkeys(SOURCES, 0.0), song.frames
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_create(scratch / f"{source}.wav", "FLOAT", song)) for source in SOURCES]
        for rows, last in _rows(estimates, song.channels):
            rows = resampler.resample_chunk(rows, last=last)[:left]
            left -= len(rows)
            if last:  # rounding of the rates' ratio may have left the end a few samples short
                rows = np.pad(rows, ((0, left), (0, 0)))
            for source, file, part in zip(SOURCES, files, np.split(rows, len(SOURCES), axis=1), strict=True):
                file.write(part)
                peaks[source] = max(peaks[source], float(np.abs(part).max(initial=0)))
    return peaks


def _rows(estimates, channels):
    """Yield (rows, is last): the blocks as (samples, sources * channels), mono as the mean of both sides."""
    for block in estimates:
        block = np.asarray(block)
        block = block.mean(1, keepdims=True) if channels == 1 else block
        yield np.ascontiguousarray(block.reshape(len(SOURCES) * channels, -1).T), False
    yield np.empty((0, len(SOURCES) * channels), np.float32), True


def _quantise(path, gain, form):
    """Replace a wav file of floats by one of integers, `gain` times as loud."""
    scale, target = 2.0 ** (int(form) - 1), path.with_suffix(".integers")
    with soundfile.SoundFile(path) as file, _create(target, FORMATS[form], file) as quantised:
        while len(block := file.read(BLOCK, always_2d=True)):
            # Whole steps of the format in the upper bits: libsndfile's own scaling is by 2^n - 1, reading by 2^n.
            steps = np.clip(np.rint(block * (gain * scale)), -scale, scale - 1).astype(np.int32)
            quantised.write(steps << (32 - int(form)))
    target.replace(path)


def _create(path, subtype, like):
    """A new wav file with the samplerate, channels and (RF64 if wav cannot be that long) frames of `like`."""
    kind = "RF64" if like.frames * like.channels * 4 > WAV_LIMIT else "WAV"
    return soundfile.SoundFile(path, "w", like.samplerate, like.channels, subtype, format=kind)


@contextlib.contextmanager
def _writing(folder):
    """Turn what goes wrong in writing to `folder` into one sentence."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(f"Cannot write {folder} ({reason}); free some space or choose another folder.") from error
