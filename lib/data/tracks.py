"""Decoded tracks, their index, and excerpts of them.

`lib.data.decode` decodes each track into an int16 array (sources + 1, channels, samples) on disk, which is mapped here.
"""

import hashlib
import json
import math
import re
import reprlib
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.common.provenance import ROOT
from lib.common.untrusted import regular_file

SOURCES = ("drums", "bass", "other", "vocals")  # the stems, unless the parameter `stems` names others
# Words with a meaning of their own in files and tables
NO_STEMS = ("mixture", "all", "section", "system", "tracks", "seeds", "aggregation", "data", "computed from", "metric")
SAMPLERATE = 44_100
CHANNELS = 2
FULL_SCALE = 32_768  # int16 full scale


def check_stems(stems):
    """Raise `UserError` unless `stems` are two or more names of stems, which differ and can name files."""
    for name in stems:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w +-]{0,60}", name) or name.casefold() in NO_STEMS:
            raise UserError(
                f"stems = {reprlib.repr(stems)}: {name!r} cannot name a stem; take letters, digits, spaces, '+' and "
                f"'-', and none of {', '.join(NO_STEMS)}."
            )
    if len({name.casefold() for name in stems}) < len(stems):
        raise UserError(f"stems = {reprlib.repr(stems)} holds a name twice; each stem needs a name of its own.")
    if len(stems) < 2:
        raise UserError(
            f"stems = {reprlib.repr(stems)} must hold at least two names: a mixture is the sum of its stems."
        )


@dataclass(frozen=True)
class Track:
    """One decoded track. `path`: the .npy file, relative to the repository if it lies inside."""

    name: str
    path: str
    samples: int
    mean: float  # of the mono mixture
    std: float
    source: str  # fingerprint of the files it was decoded from
    scale: float = 1.0  # amplitude of int16 full scale: above 1 if the files hold samples above 1
    remarks: tuple = ()  # sentences: what decoding did to the track
    sources: tuple = SOURCES  # names of the stems, as rows 1, 2, … of the array hold them

    @classmethod
    def from_dict(cls, facts, sources):
        """The track of `facts`, as `to_dict` returns them."""
        return cls(**facts | {"remarks": tuple(facts.get("remarks", ())), "sources": tuple(sources)})

    def to_dict(self):
        """What JSON holds of the track: no names of stems, which are its data set's, and no absent remarks."""
        facts = asdict(self) | {"remarks": list(self.remarks)}
        return {name: value for name, value in facts.items() if name != "sources" and value != []}

    def audio(self):
        """Memory map, int16, (sources + 1, channels, samples); row 0 is the mixture. Raises `UserError` if damaged."""
        try:
            audio = np.load(regular_file(ROOT / self.path), mmap_mode="r")
            if audio.dtype != np.int16 or audio.shape != (len(self.sources) + 1, CHANNELS, self.samples):
                raise ValueError("wrong type or shape")
            return audio
        except Exception as error:  # numpy parses the header as Python, which may raise anything
            raise UserError(f"Decoded track {self.path} is missing or damaged; run 01-data again.") from error

    def stems(self):
        """Float32 stems in [-scale, scale], (sources, channels, samples)."""
        return self.audio()[1:].astype(np.float32) / np.float32(FULL_SCALE / self.scale)

    def mixture(self):
        """Float32 mixture in [-scale, scale], (channels, samples)."""
        return self.audio()[0].astype(np.float32) / np.float32(FULL_SCALE / self.scale)


def write_index(path, sets, **facts):
    """Write the index of tracks that training and evaluation read.

    It holds {"digest", "stems": their names, facts, "sets": {name: [Track, ...]}}.
    """
    # The digest covers what results depend on, but not where this machine keeps the files.
    content = {name: [[t.name, t.samples, t.mean, t.std] for t in tracks] for name, tracks in sets.items()}
    stems = stems_of(sets)
    digest = hashlib.sha256(json.dumps(content if stems == SOURCES else [stems, content]).encode()).hexdigest()[:16]
    sets = {name: [track.to_dict() for track in tracks] for name, tracks in sets.items()}
    write_json(path, {"digest": digest, "stems": stems, **facts, "sets": sets})


def stems_of(sets):
    """Names of the stems of all tracks of `sets`, {name: [Track, ...]}."""
    return next((track.sources for tracks in sets.values() for track in tracks), SOURCES)


def read_index(path):
    """Return (sets {name: [Track, ...]}, digest) of an index; raises `UserError` if it is missing or malformed."""
    if not Path(path).exists():
        raise UserError(f"{path} is missing; run the notebook 01-data first.")
    index = read_json(path)
    try:
        check_stems(stems := index.get("stems", list(SOURCES)))
        sets = {name: [Track.from_dict(t, stems) for t in tracks] for name, tracks in index["sets"].items()}
        if not all(_is_sound(track) for tracks in sets.values() for track in tracks):
            raise TypeError("a malformed track")
        if odd := [t.name for tracks in sets.values() for t in tracks if Path(t.name).name != t.name]:
            raise UserError(f"{path} holds a track {odd[0]!r}, which is no file's name; run 01-data again.")
        return sets, index["digest"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no data index; run the notebook 01-data again.") from error


def _is_sound(track):
    typed = all(isinstance(getattr(track, field.name), field.type) for field in fields(track))
    return typed and track.samples > 0 and math.isfinite(track.mean) and 0 < track.std < math.inf and track.scale > 0


class Excerpts:
    """All excerpts of `samples` samples, one every `stride`: `excerpts[index]` is (track, start).

    `sources`: names of the tracks' stems.

    Raises `UserError` if a track is shorter than one excerpt.
    """

    def __init__(self, tracks, samples, stride):
        self.tracks, self.samples, self.stride = list(tracks), samples, stride
        self.sources = stems_of({"": self.tracks})
        if short := [track for track in self.tracks if track.samples < samples]:
            raise UserError(
                f"Track {short[0].name} lasts {short[0].samples / SAMPLERATE:.1f} s, less than one excerpt "
                f"({samples / SAMPLERATE:.1f} s with context and shift); choose shorter excerpts."
            )
        self._ends = np.cumsum([1 + (track.samples - samples) // stride for track in self.tracks])
        self._map = cache(Track.audio)  # opens each track once

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index):
        k = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[k - 1]) if k else 0
        return self.tracks[k], (index - first) * self.stride

    def read(self, index, out, source, offset=0, order=(0, 1), sign=1.0):
        """Copy one stem of an excerpt into `out` (channels, time), float32, normalised by its track's mean and std.

        source: index in `sources`, -1 for the mixture; offset: first sample; order: of the channels; sign: ±1.
        """
        track, start = self[index]
        row = self._map(track)[source + 1, :, start + offset : start + offset + out.shape[-1]]
        gain = sign / track.std
        for c, channel in enumerate(order):
            np.multiply(row[channel], np.float32(gain * track.scale / FULL_SCALE), out=out[c])
            out[c] -= np.float32(gain * track.mean)
