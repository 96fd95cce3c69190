"""Decode musdb folders, and other folders of songs with stems, into one array per track.

Folders are listed here, as `musdb.DB` runs ffprobe on every stem (60 ms each) and fails with a traceback; a test
compares the two.
"""

import hashlib
import json
import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lib.common.errors import UserError
from lib.common.files import atomic, is_litter, read_json, write_json
from lib.common.machine import cores
from lib.common.progress import progress
from lib.common.provenance import ROOT, portable
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited, regular_file
from lib.data.sound import Sound
from lib.data.tracks import CHANNELS, FULL_SCALE, SAMPLERATE, SOURCES, Track

LONGEST_NAME = 250  # bytes of a track's name: files of it end in .json, and file systems allow 255


def list_musdb(root, litter=None):
    """Files of a musdb folder: {"train": {name: path}, "valid": ..., "test": ...}.

    `path` is as of `list_tracks`: MUSDB18-HQ has folders of wav files, MUSDB18 .stem.mp4 files. The folder's own
    `musdb.yaml` names the validation tracks, else musdb's list does; if none exists, every seventh track is one.
    litter: as of `list_tracks`. Raises `UserError` if the folder is missing or holds no track, or a track's file is
    missing or empty.
    """
    root, names = find_musdb(root), [] if litter is None else litter
    found = {subset: list_tracks(root / subset, names) for subset in ("train", "test")}
    if litter is None:
        _tell(root, names)
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
        import musdb  # here, as it needs ffmpeg and seconds

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


def list_test_sets(folders, litter=None):
    """Tracks of `folders`, {name: folder}, as {name: {track: path}}; a folder that does not exist is left out.

    Folders are relative to the repository or absolute; litter: as of `list_tracks`. Raises `UserError` for a folder
    without tracks, or as `list_tracks`.
    """
    places = {name: ROOT / Path(folder).expanduser() for name, folder in folders.items()}
    found = {name: list_tracks(place, litter) for name, place in places.items() if place.is_dir()}
    if empty := [name for name, tracks in found.items() if not tracks]:
        raise UserError(
            f"The test set {empty[0]!r} holds no track; {places[empty[0]]} must hold one folder per song, with drums, "
            "bass, other and vocals as wav or flac files."
        )
    return found


def real_excerpt():
    """{name: path} of six seconds of a MUSDB18 test track, which come with the stempeg package; {} without stempeg."""
    try:
        import stempeg  # here, as it needs ffmpeg
    except ImportError:
        print("The real excerpt is left out: the package stempeg is missing.")
        return {}
    path = Path(stempeg.example_stem_path())
    return {path.name.removesuffix(".stem.mp4"): path}


def list_tracks(folder, litter=None):
    """Tracks of one folder, {name: path}, in order of their names; {} if there is no such folder.

    `path` is a .stem.mp4 file, a composed track (.npy) or a folder of drums, bass, other and vocals as wav or flac
    files; a mixture beside them is optional. What operating systems leave behind is passed over: a line says so, or the
    list `litter` takes the names. Raises `UserError` if the folder cannot be read, or a track's file is missing or
    empty.
    """
    names = [] if litter is None else litter
    try:
        tracks = _list_tracks(folder, names) if folder.is_dir() else {}
    except OSError as error:
        raise UserError(f"Cannot read {error.filename} ({error.strerror}); change its permissions.") from error
    if litter is None:
        _tell(folder, names)
    return tracks


def _tell(folder, litter):
    if litter:
        more = f" and {len(litter) - 3} more" if len(litter) > 3 else ""
        print(f"{folder}: passed over {', '.join(litter[:3])}{more}; operating systems leave them behind.")


def _list_tracks(folder, litter):
    tracks = {}
    for path in sorted(folder.iterdir()):
        if is_litter(path.name) or (path.name.startswith(".") and path.is_dir() and not _files(path)[0].exists()):
            litter.append(f"{folder.name}/{path.name.strip()}")
            continue
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link that leads nowhere; correct or remove it.")
        if path.name.endswith(".stem.mp4"):
            tracks[path.name.removesuffix(".stem.mp4")] = path
        elif path.is_dir():
            tracks[path.name] = path
        elif path.suffix == ".npy":
            tracks[path.stem] = path
        if not path.name.isprintable():
            raise UserError(f"{folder} holds {path.name!r}, a name that is no text; rename it.")
    for name, path in tracks.items():
        if (length := len(os.fsencode(name))) > LONGEST_NAME:
            raise UserError(f"The name of {path} has {length} bytes, but a track's may have {LONGEST_NAME}; rename it.")
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
    path = root / "musdb.yaml"
    if not path.is_file():
        import musdb

        path = Path(musdb.__path__[0], "configs", "mus.yaml")
    try:
        names = parse_yaml(read_limited(path, SETTINGS))["validation_tracks"]
        if not isinstance(names, list):
            raise TypeError("no list")
        return set(names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no musdb set-up with a list validation_tracks; correct or remove it.") from error


def read_track(path):
    """Decode a track of `list_tracks` to int16 (sources + 1, channels, samples), the mixture first.

    Without a mixture, it is the stems' sum. Returns (array, scale); scale: the amplitude of full scale, as in `Track`.
    It is a power of 2 above 1 if files, or the sum, exceed 1. A .stem.mp4 file keeps 1, as in musdb: decoded AAC
    exceeds full scale by its own errors, and saturates as in every 16-bit player.
    Raises `UserError` for stems that are damaged, mono, empty, of another sample rate, unequal in length or not finite,
    and for a silent mixture.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _read_array(path), 1.0
    (parts, peak), scale = _read_parts(path, 1.0), 1.0
    while peak > scale and path.is_dir():
        if peak > FULL_SCALE:
            raise UserError(f"{path} holds samples {peak:.1e} times full scale; export it again.")
        scale = 2.0 ** math.ceil(math.log2(peak))
        parts, peak = _read_parts(path, scale)
    if not parts[0].size:
        raise UserError(f"{path} holds no samples.")
    if not np.ptp(parts[0].sum(0, dtype=np.int32)):
        raise UserError(f"The mixture of {path} is silent throughout, or its sides cancel; remove the track.")
    return np.stack(parts), scale


def _read_parts(path, scale):
    """([int16 (channels, samples) of mixture and stems, full scale being `scale`], their highest amplitude)."""
    parts, peak = [], 0.0
    # One float stem at a time: tracks are decoded in parallel, and five float stems of four minutes take 400 MB.
    for audio in map(_read_file, _files(path)) if path.is_dir() else _read_stem_file(path):
        peak = float(np.max([peak, audio.max(initial=0), -audio.min(initial=0)]))  # NaN if one sample is
        if not math.isfinite(peak):
            raise UserError(f"{path} holds NaN or infinite samples; export it again.")
        parts.append(_quantised(audio, scale))
    lengths = sorted({part.shape[1] for part in parts})
    if len(lengths) > 1:
        raise UserError(f"The stems of {path} differ in length ({lengths} samples); they must be equal.")
    if len(parts) == len(SOURCES):
        total = np.sum(parts, axis=0, dtype=np.int32)
        peak = max(peak, (int(np.abs(total).max(initial=0)) + 1) * scale / FULL_SCALE)  # at full scale, it is too large
        parts.insert(0, total.astype(np.int16))
    return parts, peak


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
    with tempfile.TemporaryDirectory() as scratch:
        sound = Sound(path, Path(scratch))
        for part in sound.recordings:
            _check_format(path, part.samplerate, part.channels)
        for remark in sound.remarks:
            print(remark)
        audio, done = np.empty((sum(part.frames for part in sound.recordings), CHANNELS), np.float32), 0
        for part in sound.recordings:
            for block in sound.read(part):
                audio[done : done + len(block)] = block
                done += len(block)
    return audio


def _read_stem_file(path):
    import stempeg

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
    composed track is not copied: it stays where it is. A line says which tracks exceed full scale.
    """
    cache = Path(cache)

    def one(item):
        name, path = item
        source, note = _fingerprint(path), cache / f"{_short_hash(str(path.resolve()))}.json"
        array = path if path.suffix == ".npy" else note.with_suffix(".npy")
        if array.exists() and note.exists():
            track = read_json(note)
            if track.get("source") == source and "scale" in track:  # older notes have none: samples were clipped
                return Track(**track)
        audio, scale = read_track(path)
        if array != path:
            with atomic(array) as temporary, temporary.open("wb") as file:
                np.save(file, audio)
        mono = audio[0].astype(np.float64).mean(0) / (FULL_SCALE / scale)
        statistics = float(mono.mean()), float(mono.std())
        track = Track(name, portable(array), audio.shape[-1], *statistics, source=source, scale=scale)
        write_json(note, asdict(track))
        return track

    with ThreadPoolExecutor(cores()) as pool:
        decoded = list(progress(label, len(tracks), pool.map(one, tracks.items())))
    if loud := [track for track in decoded if track.scale > 1]:
        print(
            f"{label}: {len(loud)} of {len(tracks)} tracks exceed full scale, such as {loud[0].name}; they are kept "
            f"without clipping, in steps of {max(track.scale for track in loud) / FULL_SCALE:.1e} at most."
        )
    return decoded
