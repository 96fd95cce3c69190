"""Decode the tracks that `lib.data.musdb` found, in any format, into one array per track."""

import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.common.errors import UserError
from lib.common.files import atomic, read_json, write_json
from lib.common.machine import cores
from lib.common.progress import progress
from lib.common.provenance import portable
from lib.common.untrusted import regular_file
from lib.common.words import join
from lib.data.musdb import short_hash, stem_files, track_fingerprint
from lib.data.songs import Song
from lib.data.tracks import CHANNELS, FULL_SCALE, SAMPLERATE, SOURCES, Track

LOSSY = (".mp3", ".ogg", ".m4a")


class Decoded(NamedTuple):
    """A decoded track."""

    audio: np.ndarray  # int16 (sources + 1, channels, samples), the mixture first
    scale: float  # amplitude of full scale, as in `Track`
    remarks: list  # sentences: what was done to it


def read_track(path, stems=SOURCES):
    """Decode a track of `lib.data.musdb.list_tracks`.

    A folder's files are resampled to 44,100 Hz, mono becomes stereo, a missing stem is silence, shorter files are
    padded at the end; `remarks` say so. Without a mixture, or without one of its stems, it is the stems' sum.
    `scale` is a power of 2 above 1 if files, or the sum, exceed 1. A .stem.mp4 file keeps 1, as in musdb: decoded AAC
    exceeds full scale by its own errors, and saturates as in every 16-bit player.
    Raises `UserError` for stems that are damaged, empty or not finite, for a silent mixture, and for a .stem.mp4 file
    or a composed track if `stems` are not theirs.
    """
    path = Path(path)
    if not path.is_dir() and tuple(stems) != SOURCES:
        raise UserError(f"{path} holds {join(SOURCES)}, not {join(stems)}; leave stems out, or give other tracks.")
    if path.suffix == ".npy":
        return Decoded(_read_array(path), 1.0, [])
    (parts, peak, remarks), scale = _read_parts(path, stems, 1.0), 1.0
    while peak > scale and path.is_dir():
        if peak > FULL_SCALE:
            raise UserError(f"{path} holds samples {peak:.1e} times full scale; export it again.")
        scale = 2.0 ** math.ceil(math.log2(peak))
        parts, peak, remarks = _read_parts(path, stems, scale)
    if not parts[0].size:
        raise UserError(f"{path} holds no samples.")
    if not np.ptp(parts[0].sum(0, dtype=np.int32)):
        raise UserError(f"The mixture of {path} is silent throughout, or its sides cancel; remove the track.")
    return Decoded(np.stack(parts), scale, remarks)


def _read_parts(path, stems, scale):
    """([int16 (channels, samples) of mixture and stems, full scale being `scale`], their highest amplitude, remarks)"""
    parts, peak, done = {}, 0.0, {}
    # One float stem at a time: tracks are decoded in parallel, and five float stems of four minutes take 400 MB.
    for name, audio, said in _read_folder(path, stems) if path.is_dir() else _read_stem_file(path):
        peak = float(np.max([peak, audio.max(initial=0), -audio.min(initial=0)]))  # NaN if one sample is
        if not math.isfinite(peak):
            raise UserError(f"{path} holds NaN or infinite samples; export it again.")
        parts[name] = _quantised(audio, scale)
        for what in said:
            done.setdefault(what, []).append(name)
    if not parts:
        raise UserError(f"{path} holds none of the stems {join(stems)}; remove the folder, or name its files so.")
    length = max(part.shape[1] for part in parts.values())
    for name in [name for name in stems if name not in parts]:
        parts[name] = np.zeros((CHANNELS, length), np.int16)
        done.setdefault("no file, so silence", []).append(name)
    for name, part in parts.items():
        if lacking := length - part.shape[1]:
            parts[name] = np.pad(part, ((0, 0), (0, lacking)))
            done.setdefault(f"{lacking:,} samples of silence added at the end", []).append(name)
    if "mixture" not in parts:
        total = np.sum([parts[name] for name in stems], axis=0, dtype=np.int32)
        peak = max(peak, (int(np.abs(total).max(initial=0)) + 1) * scale / FULL_SCALE)  # at full scale, it is too large
        parts["mixture"] = total.astype(np.int16)
        done["the sum of the stems"] = ["mixture"]
    remarks = [f"{join(names)}: {what}." for what, names in done.items()]
    return [parts[name] for name in ("mixture", *stems)], peak, remarks


def _read_folder(path, stems):
    """Yield (name, float32 (samples, channels), what was done to it) of the mixture and the stems in a folder."""
    files = stem_files(path, stems)
    if any(name not in files for name in stems):
        files.pop("mixture", None)  # it may hold what the stems lack
    for name, file in files.items():
        yield name, *_read_file(file)


def _read_array(path):
    try:
        audio = np.load(regular_file(path), mmap_mode="r")
        if audio.dtype != np.int16 or audio.ndim != 3 or audio.shape[:2] != (len(SOURCES) + 1, CHANNELS):
            raise ValueError("wrong type or shape")
        return audio
    except Exception as error:  # numpy parses the header as Python, which may raise anything
        raise UserError(f"{path} is no composed track ({error}); delete its corpus and run 01-data again.") from error


def _quantised(audio, scale=1.0):
    """Float (samples, channels) -> int16 (channels, samples), full scale being `scale`; `audio` is overwritten."""
    np.rint(np.multiply(audio, FULL_SCALE / scale, out=audio), out=audio)
    return np.clip(audio, -FULL_SCALE, FULL_SCALE - 1, out=audio).T.astype(np.int16, order="C")


def _read_file(path):
    """(float32 (samples, 2) at 44,100 Hz, what was done to it) of an audio file."""
    with tempfile.TemporaryDirectory() as scratch:
        song = Song(path, Path(scratch))
        audio = np.concatenate(list(song.blocks()), axis=1)
    done = [remark.rstrip(".") for remark in song.remarks]
    rates = sorted({part.samplerate for part in song.recordings} - {SAMPLERATE})
    done += [f"resampled from {rate:,} Hz" for rate in rates]
    done += ["mono, so the same on both sides"] if song.channels == 1 else []
    done += [f"from {path.suffix.lower()[1:]}, which is lossy"] if path.suffix.lower() in LOSSY else []
    return audio.T, done


def _read_stem_file(path):
    """Yield (name, float32 (samples, channels), nothing done) of the streams of a .stem.mp4 file."""
    import stempeg

    try:
        audio, samplerate = stempeg.read_stems(str(regular_file(path)), dtype=np.float32)
    except Exception as error:  # ffmpeg's own message is a page long
        raise UserError(f"Cannot decode {path}; the file is damaged, truncated or no .stem.mp4 file.") from error
    if audio.ndim != 3 or len(audio) != len(SOURCES) + 1:
        raise UserError(f"{path} does not hold five streams (mixture, drums, bass, other, vocals).")
    if samplerate != SAMPLERATE or audio.shape[2] != CHANNELS:
        found = f"{samplerate:g} Hz and {audio.shape[2]} channel(s)"
        raise UserError(f"{path} has {found}; {SAMPLERATE} Hz and {CHANNELS} channels are needed.")
    for name, stream in zip(("mixture", *SOURCES), audio, strict=True):
        yield name, stream, []


def decode(tracks, cache, label="decode", stems=SOURCES, refused=None):
    """Decode `tracks` {name: path} into the folder `cache`; returns a list of `Track`s in the same order.

    A track is decoded again only if its files have changed (path, size, time), so an interrupted call resumes. A
    composed track is not copied: it stays where it is. A line says which tracks exceed full scale. A track that cannot
    be used raises `UserError`, or is left out and stands in the dictionary `refused`, {path: sentence}.
    """
    cache = Path(cache)
    of = "" if tuple(stems) == SOURCES else "/".join(["", *stems])  # arrays of other stems have other names

    def one(item):
        name, path = item
        source, note = track_fingerprint(path, stems), cache / f"{short_hash(f'{path.resolve()}{of}')}.json"
        array = path if path.suffix == ".npy" else note.with_suffix(".npy")
        if array.exists() and note.exists():
            facts = read_json(note)
            if facts.get("source") == source and "scale" in facts:  # older notes have none: samples were clipped
                return Track.from_dict(facts, stems)
        try:
            audio, scale, remarks = read_track(path, stems)
        except UserError as error:
            if refused is None or "No space left" in str(error):
                raise
            refused[path] = str(error)
            return None
        if array != path:
            with atomic(array) as temporary, temporary.open("wb") as file:
                np.save(file, audio)
        mono = audio[0].astype(np.float64).mean(0) / (FULL_SCALE / scale)
        facts = dict(samples=audio.shape[-1], mean=float(mono.mean()), std=float(mono.std()), scale=scale)
        track = Track(name, portable(array), **facts, source=source, remarks=tuple(remarks), sources=tuple(stems))
        write_json(note, track.to_dict())
        return track

    with ThreadPoolExecutor(cores()) as pool:
        decoded = list(filter(None, progress(label, len(tracks), pool.map(one, tracks.items()))))
    if loud := [track for track in decoded if track.scale > 1]:
        print(
            f"{label}: {len(loud)} of {len(tracks)} tracks exceed full scale, such as {loud[0].name}; they are kept "
            f"without clipping, in steps of {max(track.scale for track in loud) / FULL_SCALE:.1e} at most."
        )
    return decoded
