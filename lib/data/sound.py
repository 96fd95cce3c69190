"""Read audio files of any format to their true end, or say what is missing.

Headers may not know how long a file is (a program that writes to a pipe), count it in another way, or describe only
the first of several recordings. So soundfile reads wav files whose sizes agree with what is there; all others are
split where a new recording begins, and ffmpeg decodes each recording to its end.
"""

import contextlib
import json
import mmap
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import soundfile

from lib.common.errors import UserError
from lib.common.untrusted import regular_file

BLOCK = 2**18  # frames read at once
MAPPED = 2**32  # bytes; compressed sound beyond them would last days
# Seconds that the sound may be shorter than a header of these containers states: codecs pad, Matroska counts blocks.
STATED = {"flac": 1e-4, "au": 1e-4, "aiff": 1e-4, "wv": 1e-4, "matroska,webm": 0.1, "mov,mp4,m4a,3gp,3g2,mj2": 0.1}
FIRST_PAGE = re.compile(rb"OggS\0[\2\6]\0{8}")
FIRST_BLOCK = re.compile(rb"fLaC[\0\x80]\0\0\x22")
MP3 = rb"\xff[\xe2-\xff][\x10-\xef]."  # a frame's header
INFO_FRAME = re.compile(MP3 + rb"(?:.{9}|.{17}|.{32})(?:Xing|Info)(\0\0\0[\0-\x0f])", re.DOTALL)


class Recording(NamedTuple):
    """A file that soundfile reads, and what it says of it; `frames` are samples per channel."""

    file: Path
    samplerate: int
    channels: int
    frames: int


class Sound:
    """The audio file `path`; what soundfile cannot read, ffmpeg decodes into the folder `scratch`.

    Attributes: `path`; `recordings`, one after another (several if the file is chained or joined); `remarks`, sentences
    on what is unusual. Only the first audio stream is used: in a .stem.mp4 file, the mixture.
    Raises `UserError` if the file is missing, empty, truncated or not audio, or a needed ffmpeg is missing.
    """

    def __init__(self, path, scratch):
        self.path, self.remarks = Path(path), []
        self._size = _check_file(self.path)
        starts, known = _wav_starts(self.path, self._size)
        if len(starts) == 1 and known:
            with contextlib.suppress(soundfile.LibsndfileError, TypeError):  # TypeError for names that end in .raw
                self.recordings = [describe(self.path)]
                return
        starts = starts or self._starts()
        if len(starts) > 1:
            self.remarks.append(f"{path} holds {len(starts)} recordings, one after the other: all of them are read.")
        ends = [*starts[1:], self._size]
        self.recordings = [self._decode(a, b, known, scratch / f"{a}.wav") for a, b in zip(starts, ends, strict=True)]

    def read(self, recording):
        """Yield float32 blocks (frames, channels) of one recording. Raises `UserError` if it is damaged."""
        read = 0
        try:
            with soundfile.SoundFile(os.fsencode(recording.file)) as file:
                while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                    read += len(block)
                    yield block
        except soundfile.LibsndfileError as error:
            raise UserError(f"{self.path} is damaged or truncated ({error}); get it again.") from error
        if read < recording.frames:
            raise _truncated(self.path, recording.frames / recording.samplerate, read / recording.samplerate)

    @contextlib.contextmanager
    def _content(self):
        """The file's bytes, mapped, up to `MAPPED`."""
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), min(self._size, MAPPED), access=mmap.ACCESS_READ) as content,
        ):
            yield content

    def _starts(self):
        """First byte of each recording in an Ogg, FLAC or mp3 file; [0] for any other."""
        with self._content() as content:
            begin = _after_tag(content, 0)
            if FIRST_PAGE.match(content, begin):
                self._check_last_page(content)
                pages = [match.start() for match in FIRST_PAGE.finditer(content, 0, len(content) - 26)]
                follows = {_page_end(content, page) for page in pages}  # of another stream of the same recording
                return [page for page in pages if page not in follows]
            if FIRST_BLOCK.match(content, begin):
                return [0, *(match.start() for match in FIRST_BLOCK.finditer(content, begin + 1))]
            if re.match(MP3, content[begin : begin + 4], re.DOTALL):
                later = [match.start() for match in INFO_FRAME.finditer(content, begin + 1)]
                return [0, *(_before_frame(content, start) for start in later)]
        return [0]

    def _check_last_page(self, content):
        last = content.rfind(b"OggS\0", 0, len(content) - 26)
        if not content[last + 5] & 4 or _page_end(content, last) > self._size:
            self.remarks.append(f"{self.path} ends without Ogg's mark of an end: its last part may be missing.")

    def _decode(self, start, end, known, target):
        """Decode the recording in the bytes from `start` to `end` of the file to a float wav file."""
        part = "" if (start, end) == (0, self._size) else f"subfile,,start,{start},end,{end},,:"
        source = f"{part}file:{self.path}"
        facts = probe(self.path, source)
        stream, container = facts["streams"][0], facts["format"]
        options, strict = [], True
        if stream["codec_name"] == "mp3" and container["format_name"] == "mp3":
            options, strict = self._mp3(start, end, int(stream.get("nb_read_packets", 0))), False
        elif stream["codec_name"] == "flac":
            options = ["-err_detect", "crccheck+explode"]  # of frames, as libFLAC does
        elif container["format_name"] == "wav" and not known:
            strict = False  # ends where the file does, which ffmpeg reports as an error
        errors = ffmpeg(self.path, source, target, before=options, strict=strict)
        if errors and known:
            self.remarks.append(f"{self.path} is damaged in places, which are passed over (ffmpeg: {errors[0]}).")
        try:
            recording = describe(target)
        except soundfile.LibsndfileError as error:  # for a rate or a number of channels that nothing has
            raise _undecodable(self.path, [str(error)]) from error
        alone = container["nb_streams"] == 1 and container.get("duration")
        stated, there = float(stream.get("duration") or alone or 0), recording.frames / recording.samplerate
        if there < stated - STATED.get(container["format_name"], float("inf")):
            raise _truncated(self.path, stated, there)
        return recording

    def _mp3(self, start, end, packets):
        """ffmpeg's options for an mp3 recording of so many frames, whose header may count others."""
        with self._content() as content:
            begin = _after_tag(content, start)
            match = INFO_FRAME.match(content, begin)
            flags = match[1][3] if match else 0
            numbers = [int.from_bytes(content[match.end() + k : match.end() + k + 4], "big") for k in (0, 4) if match]
        if not flags & 1 or numbers[0] == packets:
            return []
        counted = numbers[0]
        if counted > packets + 1 and not (flags & 2 and begin + numbers[1] <= end):
            raise UserError(f"{self.path} is truncated: {packets} of {counted} mp3 frames are there; get it again.")
        self.remarks.append(f"{self.path} holds {packets} mp3 frames, not {counted} as its header says; all are read.")
        return ["-flags2", "+skip_manual"]  # cut nothing by that count


def probe(path, source):
    """What ffprobe says of the first audio stream of `source` and of its container; `path` names it in errors."""
    stream, container = "codec_name,channel_layout,duration,nb_read_packets", "format_name,duration,nb_streams"
    command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "a:0", "-of", "json"]
    done = _run(path, [*command, "-show_entries", f"stream={stream}:format={container}", source])
    facts = json.loads(done.stdout or "{}")
    if done.returncode or not facts.get("streams"):
        raise _undecodable(path, _lines(done))
    return facts


def ffmpeg(path, source, target, *options, before=(), strict=True):
    """Convert the first audio stream of `source` to a float wav file `target`; returns the errors it passed over.

    options: of the output; before: of the input; strict: stop at the first error; path: names the source in errors.
    """
    command = ["ffmpeg", "-nostdin", "-v", "error", *(["-xerror"] if strict else []), *before, "-guess_layout_max", "2"]
    command += ["-i", source, "-map", "0:a:0", *options, "-c:a", "pcm_f32le", "-rf64", "auto", f"file:{target}"]
    done = _run(path, command)
    if done.returncode:
        raise _undecodable(path, _lines(done))
    return _lines(done)


def _run(path, command):
    try:
        # S603 does not apply: "file:" keeps names from being options or addresses
        return subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603
    except FileNotFoundError as error:
        raise UserError(f"ffmpeg, which {path} needs, was not found; install it, or convert to stereo wav.") from error


def _lines(done):
    """What a program said, without "[name @ address]"; that it was stopped, if it said nothing."""
    lines = re.sub(r"\[[^]]* @ 0x\w+\] ", "", done.stderr).strip().split("\n")
    lines = [line.removeprefix("file:").rstrip(". ") for line in lines if line]
    return lines or ([f"stopped by signal {-done.returncode}"] if done.returncode < 0 else [])


def _undecodable(path, errors):
    reason = errors[-1] if errors else "no sound in it"
    advice = "free some space" if "No space left" in reason else "give a whole audio file"
    return UserError(f"Cannot decode {path} (ffmpeg: {reason}); {advice}.")


def _truncated(path, stated, there):
    return UserError(f"{path} is truncated: {there:.2f} of {stated:.2f} seconds are there; get it again.")


def _check_file(path):
    """The size of a file in bytes."""
    try:
        with regular_file(path).open("rb") as file:
            if file.read(1):
                return path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError for a name with NUL
        reason = getattr(error, "strerror", error)
        raise UserError(f"Cannot read {path} ({reason}); give a readable audio file.") from error
    raise UserError(f"{path} is an empty file; get it again.")


def describe(path):
    """The `Recording` in a file that soundfile reads."""
    with soundfile.SoundFile(os.fsencode(path)) as file:  # soundfile encodes no name that is not UTF-8
        return Recording(path, file.samplerate, file.channels, file.frames)


def _wav_starts(path, size):
    """(the first byte of each wav file in a file, whether they know their lengths); [] for another format.

    Raises `UserError` if a length is known, but the file is shorter.
    """
    starts, place, promised, wide = [], 0, 0, None
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            kind, length = head[:4], int.from_bytes(head[4:], "little")
            if kind in (b"RIFF", b"RF64", b"BW64"):
                starts.append(place)
                promised, length = place + 8 + length, 4
            elif not starts:
                break
            elif kind == b"ds64":
                wide = int.from_bytes(file.read(16)[8:], "little")
            elif kind == b"data":
                length = wide if length == 2**32 - 1 and wide is not None else length
                if _is_unknown(length) and (length or promised < size):
                    return starts, False
                if place + 8 + length > size:
                    raise UserError(f"{path} is truncated: its header promises more than the file holds; get it again.")
            place += 8 + length + length % 2
            file.seek(place)
    return starts, True


def _is_unknown(length):
    """Whether a chunk's length is what programs write that do not know it: 0, or nearly 2^31, 2^32 or 2^64 bytes."""
    return length == 0 or any(abs(length - limit) < 2**16 for limit in (2**31, 2**32, 2**64))


def _after_tag(content, place):
    """The first byte after an ID3v2 tag at `place`; `place` if there is none."""
    while content[place : place + 3] == b"ID3":
        size = content[place + 6 : place + 10]
        place += 10 + sum(byte << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=False))
    return place


def _before_frame(content, frame):
    """The first byte of the ID3v2 tag that ends at `frame`; `frame` if there is none."""
    tag = content.rfind(b"ID3", 0, frame)
    return tag if tag > 0 and _after_tag(content, tag) == frame else frame


def _page_end(content, page):
    """The first byte after an Ogg page."""
    segments = content[page + 26]
    return page + 27 + segments + sum(content[page + 27 : page + 27 + segments])
