"""Decode a musdb folder into one array per track.

The folder is listed here, as `musdb.DB` runs ffprobe on every stem (60 ms each) and fails with a traceback; a test
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

import musdb
import numpy as np
import stempeg

from lib.common.errors import UserError
from lib.common.files import atomic, is_litter, read_json, write_json
from lib.common.progress import progress
from lib.common.provenance import ROOT, portable
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited, regular_file
from lib.data.sound import Sound
from lib.data.tracks import CHANNELS, FULL_SCALE, SAMPLERATE, SOURCES, Track

LONGEST_NAME = 250  # bytes of a track's name: files of it end in .json, and file systems allow 255


def list_musdb(root):
    """Files of a musdb folder: {"train": {name: path}, "valid": ..., "test": ...}.

    `path` is a folder of wav files (MUSDB18-HQ) or a .stem.mp4 file (MUSDB18). The folder's own `musdb.yaml` names the
    validation tracks, else musdb's list does; if none of them exists, every seventh track is one.
    What operating systems leave behind is passed over, and a line says so.
    Raises `UserError` if the folder is missing or holds no track, or a track's file is missing or empty.
    """
    sets, litter = _list(root)
    if litter:
        more = f" and {len(litter) - 3} more" if len(litter) > 3 else ""
        print(f"{root}: passed over {', '.join(litter[:3])}{more}; operating systems leave them behind.")
    return sets


def _list(root):
    """(what `list_musdb` returns, the names that are passed over)."""
    root, litter = find_musdb(root), []
    try:
        found = {subset: _list_subset(root / subset, litter) for subset in ("train", "test")}
    except OSError as error:
        raise UserError(f"Cannot read {error.filename} ({error.strerror}); change its permissions.") from error
    if not any(found.values()):
        raise UserError(
            f"musdb_root {root} holds no track; expected {root}/train/Artist - Title/mixture.wav (wav) or "
            f"{root}/train/Artist - Title.stem.mp4 (stems), and the same under test/."
        )
    train = found["train"]
    names = sorted(_validation_names(root) & set(train)) or (sorted(train)[::7] if len(train) > 1 else [])
    valid = {name: train.pop(name) for name in names}
    return {"train": train, "valid": valid, "test": found["test"]}, litter


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


def real_excerpt():
    """{name: path} of six seconds of a MUSDB18 test track, which come with the stempeg package."""
    path = Path(stempeg.example_stem_path())
    return {path.name.removesuffix(".stem.mp4"): path}


def _list_subset(folder, litter):
    """{name: path} of the tracks in a folder; adds the names that are passed over to the list `litter`."""
    if not folder.is_dir():
        return {}
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
        if not path.name.isprintable():
            raise UserError(f"{folder} holds {path.name!r}, a name that is no text; rename it.")
    for name, path in tracks.items():
        if (length := len(os.fsencode(name))) > LONGEST_NAME:
            raise UserError(f"The name of {path} has {length} bytes, but a track's may have {LONGEST_NAME}; rename it.")
    for file in (file for path in tracks.values() for file in _files(path)):
        if not file.is_file():
            raise UserError(f"{file} is missing; a track is mixture, drums, bass, other and vocals as wav files.")
        if not file.stat().st_size:
            raise UserError(f"{file} is an empty file; copy it again.")
    return tracks


def _files(track):
    """The files of a track: five wav files, or one .stem.mp4."""
    return [track / f"{name}.wav" for name in ("mixture", *SOURCES)] if track.is_dir() else [track]


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
    """Decode a wav folder or .stem.mp4 file to int16 (sources + 1, channels, samples), the mixture first.

    Returns (array, scale); scale: the amplitude of full scale, as in `Track`. It is a power of 2 above 1 if a float wav
    file holds samples above 1. A .stem.mp4 file keeps 1, as in musdb: decoded AAC exceeds full scale by its own errors,
    and saturates as in every 16-bit player.
    Raises `UserError` for stems that are damaged, mono, empty, of another sample rate, unequal in length or not finite,
    and for a silent mixture.
    """
    path = Path(path)
    (parts, peak), scale = _read_parts(path, 1.0), 1.0
    if peak > FULL_SCALE:
        raise UserError(f"{path} holds samples {peak:.1e} times full scale; export it again.")
    if peak > 1 and path.is_dir():
        scale = 2.0 ** math.ceil(math.log2(peak))
        parts, _ = _read_parts(path, scale)
    lengths = sorted({part.shape[1] for part in parts})
    if len(lengths) > 1:
        raise UserError(f"The stems of {path} differ in length ({lengths} samples); they must be equal.")
    if lengths == [0]:
        raise UserError(f"{path} holds no samples.")
    if not np.ptp(parts[0].sum(0, dtype=np.int32)):
        raise UserError(f"The mixture of {path} is silent throughout, or its sides cancel; remove the track.")
    return np.stack(parts), scale


def _read_parts(path, scale):
    """([int16 (channels, samples) of mixture and stems, full scale being `scale`], their highest amplitude)."""
    parts, peak = [], 0.0
    # One float stem at a time: tracks are decoded in parallel, and five float stems of four minutes take 400 MB.
    for audio in map(_read_wav, _files(path)) if path.is_dir() else _read_stem_file(path):
        peak = float(np.max([peak, audio.max(initial=0), -audio.min(initial=0)]))  # NaN if one sample is
        if not math.isfinite(peak):
            raise UserError(f"{path} holds NaN or infinite samples; export it again.")
        parts.append(_quantised(audio, scale))
    return parts, peak


def _quantised(audio, scale=1.0):
    """Float (samples, channels) -> int16 (channels, samples), full scale being `scale`; `audio` is overwritten."""
    np.rint(np.multiply(audio, FULL_SCALE / scale, out=audio), out=audio)
    return np.clip(audio, -FULL_SCALE, FULL_SCALE - 1, out=audio).T.astype(np.int16, order="C")


def _read_wav(path):
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


def fingerprint_folder(root):
    """Hash of the paths, sizes and times of all files of a musdb folder."""
    paths = [path for tracks in _list(root)[0].values() for path in tracks.values()]
    return _short_hash("".join(map(_fingerprint, paths)))


def decode(tracks, cache, label="decode"):
    """Decode `tracks` {name: path} into the folder `cache`; returns a list of `Track`s in the same order.

    A track is decoded again only if its files have changed (path, size, time), so an interrupted call resumes. A line
    says which tracks exceed full scale.
    """
    cache = Path(cache)

    def one(item):
        name, path = item
        fingerprint, array = _fingerprint(path), cache / f"{_short_hash(str(path.resolve()))}.npy"
        note = array.with_suffix(".json")
        if array.exists() and note.exists():
            track = read_json(note)
            if track.get("source") == fingerprint and "scale" in track:  # older notes have none: samples were clipped
                return Track(**track)
        audio, scale = read_track(path)
        with atomic(array) as temporary, temporary.open("wb") as file:
            np.save(file, audio)
        mono = audio[0].astype(np.float64).mean(0) / (FULL_SCALE / scale)
        statistics = float(mono.mean()), float(mono.std())
        track = Track(name, portable(array), audio.shape[-1], *statistics, source=fingerprint, scale=scale)
        write_json(note, asdict(track))
        return track

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(progress(label, len(tracks), pool.map(one, tracks.items())))
    if loud := [track for track in decoded if track.scale > 1]:
        print(
            f"{label}: {len(loud)} of {len(tracks)} tracks exceed full scale, such as {loud[0].name}; they are kept "
            f"without clipping, in steps of {max(track.scale for track in loud) / FULL_SCALE:.1e} at most."
        )
    return decoded
