"""Decode musdb folders, and other folders of songs with stems, into one array per track.

Folders are listed here, as `musdb.DB` runs ffprobe on every stem (60 ms each) and fails with a traceback; a test
compares the two.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import musdb
import numpy as np
import soundfile
import stempeg

from lib.common.errors import UserError
from lib.common.files import atomic, read_json, write_json
from lib.common.progress import progress
from lib.common.provenance import ROOT, portable
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited, regular_file
from lib.data.tracks import CHANNELS, FULL_SCALE, SAMPLERATE, SOURCES, Track

LONGEST = 2**28  # frames that a flac file may promise, a hundred minutes: they are allocated at once


def list_musdb(root):
    """Files of a musdb folder: {"train": {name: path}, "valid": ..., "test": ...}.

    `path` is as of `list_tracks`: MUSDB18-HQ has folders of wav files, MUSDB18 .stem.mp4 files. The folder's own
    `musdb.yaml` names the validation tracks, else musdb's list does; if none exists, every seventh track is one.
    Raises `UserError` if the folder is missing or holds no track, or a track's file is missing or empty.
    """
    root = find_musdb(root)
    found = {subset: list_tracks(root / subset) for subset in ("train", "test")}
    if not any(found.values()):
        raise UserError(
            f"musdb_root {root} holds no track; expected {root}/train/Artist - Title/mixture.wav (wav) or "
            f"{root}/train/Artist - Title.stem.mp4 (stems), and the same under test/."
        )
    train = found["train"]
    names = sorted(_validation_names(root) & set(train)) or (sorted(train)[::7] if len(train) > 1 else [])
    valid = {name: train.pop(name) for name in names}
    return {"train": train, "valid": valid, "test": found["test"]}


def find_musdb(root):
    """The folder `root`, relative to the repository or absolute; "sample": musdb's 7-second previews, downloaded.

    Raises `UserError` if there is no such folder.
    """
    if root == "sample":
        folder = ROOT / "data" / "musdb-sample"
        try:
            musdb.DB(root=str(folder), download=True)
        except Exception as error:  # from the network, the archive or musdb
            raise UserError(
                f"musdb could not fetch its previews into {folder} ({error}); give musdb_root a folder instead."
            ) from error
        return folder
    folder = ROOT / Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"musdb_root {folder} is not a folder; give the folder that holds train/ and test/.")
    return folder


def list_test_sets(folders):
    """Tracks of `folders`, {name: folder}, as {name: {track: path}}; a folder that does not exist is left out.

    Folders are relative to the repository or absolute. Raises `UserError` for a folder without tracks, or as
    `list_tracks`.
    """
    places = {name: ROOT / Path(folder).expanduser() for name, folder in folders.items()}
    found = {name: list_tracks(place) for name, place in places.items() if place.is_dir()}
    if empty := [name for name, tracks in found.items() if not tracks]:
        raise UserError(
            f"The test set {empty[0]!r} holds no track; {places[empty[0]]} must hold one folder per song, with drums, "
            "bass, other and vocals as wav or flac files."
        )
    return found


def real_excerpt():
    """{name: path} of six seconds of a MUSDB18 test track, which come with the stempeg package."""
    path = Path(stempeg.example_stem_path())
    return {path.name.removesuffix(".stem.mp4"): path}


def list_tracks(folder):
    """Tracks of one folder, {name: path}, in order of their names; {} if there is no such folder.

    `path` is a .stem.mp4 file, a composed track (.npy) or a folder of drums, bass, other and vocals as wav or flac
    files; a mixture beside them is optional. Raises `UserError` if the folder cannot be read, or a track's file is
    missing or empty.
    """
    try:
        return _list_tracks(folder) if folder.is_dir() else {}
    except OSError as error:
        raise UserError(f"Cannot read {error.filename} ({error.strerror}); change its permissions.") from error


def _list_tracks(folder):
    tracks = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link that leads nowhere; correct or remove it.")
        if path.name.endswith(".stem.mp4"):
            tracks[path.name.removesuffix(".stem.mp4")] = path
        elif path.is_dir() and not path.name.startswith("."):
            tracks[path.name] = path
        elif path.suffix == ".npy":
            tracks[path.stem] = path
        if not path.name.isprintable():
            raise UserError(f"{folder} holds {path.name!r}, a name that is no text; rename it.")
    for file in (file for path in tracks.values() for file in _files(path)):
        if not file.is_file():
            raise UserError(f"{file} is missing; a track is drums, bass, other and vocals as wav or flac files.")
        if not file.stat().st_size:
            raise UserError(f"{file} is an empty file; copy it again.")
    return tracks


def _files(track):
    """The files of a track: the mixture, if there is one, and four stems; or one .stem.mp4 or .npy."""
    if not track.is_dir():
        return [track]
    mixture, *stems = (_file(track, name) for name in ("mixture", *SOURCES))
    return [mixture, *stems] if mixture.exists() else stems


def _file(track, name):
    wav, flac = (track / f"{name}.{form}" for form in ("wav", "flac"))
    return flac if flac.exists() and not wav.exists() else wav


def _validation_names(root):
    own = root / "musdb.yaml"
    path = own if own.is_file() else Path(musdb.__path__[0], "configs", "mus.yaml")
    try:
        names = parse_yaml(read_limited(path, SETTINGS))["validation_tracks"]
        if not isinstance(names, list):
            raise TypeError("no list")
        return set(names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no musdb set-up with a list validation_tracks; correct or remove it.") from error


def read_track(path):
    """Decode a track of `list_tracks` to int16 (sources + 1, channels, samples), the mixture first.

    Without a mixture, it is the stems' sum; if that would clip, one factor makes all of them quieter.
    Raises `UserError` for stems that are damaged, mono, empty, of another sample rate, unequal in length or not finite,
    and for a silent mixture.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _read_array(path)
    # One float stem at a time: tracks are decoded in parallel, and five float stems of four minutes take 400 MB.
    floats = map(_read_audio, _files(path)) if path.is_dir() else _read_stem_file(path)
    parts = [_quantised(audio, path) for audio in floats]
    lengths = sorted({part.shape[1] for part in parts})
    if len(lengths) > 1:
        raise UserError(f"The stems of {path} differ in length ({lengths} samples); they must be equal.")
    if lengths == [0]:
        raise UserError(f"{path} holds no samples.")
    if len(parts) == len(SOURCES):
        parts = _with_sum(parts)
    if not np.ptp(parts[0].sum(0, dtype=np.int32)):
        raise UserError(f"The mixture of {path} is silent throughout, or its sides cancel; remove the track.")
    return np.stack(parts)


def _read_array(path):
    try:
        audio = np.load(regular_file(path), mmap_mode="r")
        if audio.dtype != np.int16 or audio.ndim != 3 or audio.shape[:2] != (len(SOURCES) + 1, CHANNELS):
            raise ValueError("wrong type or shape")
        return audio
    except Exception as error:  # numpy parses the header as Python, which may raise anything
        raise UserError(f"{path} is no composed track ({error}); delete its corpus and run 01-data again.") from error


def _quantised(audio, path):
    """Float (samples, channels) -> int16 (channels, samples); `audio` is overwritten."""
    if not np.isfinite(audio).all():
        raise UserError(f"{path} holds NaN or infinite samples; export it again.")
    np.rint(np.multiply(audio, FULL_SCALE, out=audio), out=audio)
    # Decoded AAC can exceed full scale: saturate, as every 16-bit player does.
    return np.clip(audio, -FULL_SCALE, FULL_SCALE - 1, out=audio).T.astype(np.int16, order="C")


def _with_sum(stems):
    """The int16 `stems` (channels, samples) after their sum."""
    total = sum(stem.astype(np.int32) for stem in stems)
    if (peak := np.abs(total).max()) >= FULL_SCALE:
        gain = np.float32((FULL_SCALE - 1 - len(stems) / 2) / peak)  # rounding moves each by half a step at most
        stems = [np.rint(stem * gain).astype(np.int16) for stem in stems]
        total = sum(stem.astype(np.int32) for stem in stems)
    return [total.astype(np.int16), *stems]


def _read_audio(path):
    kind = path.suffix[1:]
    try:
        with regular_file(path).open("rb") as file:  # libsndfile does not report that a wav file is too short
            promised = 8 + int.from_bytes(file.read(8)[4:], "little")
        frames = soundfile.info(path).frames
        # A frame of a wav file has a byte at least; flac has no such limit.
        truncated = max(promised, frames) > path.stat().st_size if kind == "wav" else frames > LONGEST
        audio, samplerate = soundfile.read(path, 0 if truncated else -1, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:  # soundfile's errors are RuntimeErrors
        raise UserError(f"Cannot read {path} ({error}); the file is damaged or no {kind} file.") from error
    _check_format(path, samplerate, audio.shape[1])
    if truncated or len(audio) < frames:
        raise UserError(f"{path} is truncated: its header promises more than the file holds; copy it again.")
    return audio


def _read_stem_file(path):
    try:
        audio, samplerate = stempeg.read_stems(str(regular_file(path)), dtype=np.float32)
    except Exception as error:  # ffmpeg's own message is a page long
        raise UserError(f"Cannot decode {path}; the file is damaged, truncated or no .stem.mp4 file.") from error
    if audio.ndim != 3 or len(audio) != len(SOURCES) + 1:
        raise UserError(f"{path} does not hold five streams (mixture, drums, bass, other, vocals).")
    _check_format(path, int(samplerate), audio.shape[2])
    return audio


def _check_format(path, samplerate, channels):
    if samplerate != SAMPLERATE:
        raise UserError(f"{path} has {samplerate} Hz; musdb folders have {SAMPLERATE} Hz, so resample it first.")
    if channels != CHANNELS:
        raise UserError(f"{path} has {channels} channel(s); stereo is needed.")


def _fingerprint(path):
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
    return _short_hash(json.dumps(facts))


def _short_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(sets):
    """Hash of the paths, sizes and times of all files of `sets`, {name: {track: path}}."""
    return _short_hash("".join(_fingerprint(path) for tracks in sets.values() for path in tracks.values()))


def decode(tracks, cache, label="decode"):
    """Decode `tracks` {name: path} into the folder `cache`; returns a list of `Track`s in the same order.

    A track is decoded again only if its files have changed (path, size, time), so an interrupted call resumes. A
    composed track is not copied: it stays where it is.
    """
    cache = Path(cache)

    def one(item):
        name, path = item
        source, note = _fingerprint(path), cache / f"{_short_hash(str(path.resolve()))}.json"
        array = path if path.suffix == ".npy" else note.with_suffix(".npy")
        if array.exists() and note.exists() and read_json(note).get("source") == source:
            return Track(**read_json(note))
        audio = read_track(path)
        if array != path:
            with atomic(array) as temporary, temporary.open("wb") as file:
                np.save(file, audio)
        mono = audio[0].astype(np.float64).mean(0) / FULL_SCALE
        statistics = float(mono.mean()), float(mono.std())
        track = Track(name, portable(array), audio.shape[-1], *statistics, source=source)
        write_json(note, asdict(track))
        return track

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(progress(label, len(tracks), pool.map(one, tracks.items())))
