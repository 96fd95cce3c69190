"""Find the tracks of musdb folders, and of other folders of songs with stems; `lib.data.decode` decodes them.

Folders are listed here, as `musdb.DB` runs ffprobe on every stem (60 ms each) and fails with a traceback; a test
compares the two.

The functions raise `UserError` for a track that cannot be used, unless they get `refused`, a dictionary that takes
{path of the track: the sentence} instead, so that the others are used.
"""

import hashlib
import json
import os
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import is_litter
from lib.common.provenance import ROOT
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited
from lib.common.words import join
from lib.data.tracks import SOURCES

PROVIDED = ("embedded", "sample")  # data sets that are no folder of the user's
SUBSETS = ("train", "valid", "test")
UNSPLIT = "tracks"  # the set of a folder without these
AUDIO = ("wav", "flac", "mp3", "ogg", "m4a")  # endings of a stem's file; where there are several, the first is read
LONGEST_NAME = 250  # bytes of a track's name: files of it end in .json, and file systems allow 255


def list_musdb(root, stems=SOURCES, litter=None, refused=None):
    """Files of a musdb folder: {"train": {name: path}, "valid": ..., "test": ...}.

    `path` is as of `list_tracks`: MUSDB18-HQ has folders of wav files, MUSDB18 .stem.mp4 files. Validation tracks are
    those in valid/; else the folder's own `musdb.yaml` names them, else musdb's list; if none of these exists, every
    seventh track is one. A folder without train/, valid/ and test/ gives {UNSPLIT: all tracks in it}.
    stems, litter: as of `list_tracks`. Raises `UserError` if the folder is missing or no track in it can be used.
    """
    root, names = find_musdb(root), [] if litter is None else litter
    problems = {} if refused is None else refused
    split = any((root / subset).is_dir() for subset in SUBSETS)
    places = {subset: root / subset for subset in SUBSETS} if split else {UNSPLIT: root}
    found = {name: list_tracks(place, stems, names, refused) for name, place in places.items()}
    if litter is None:
        _tell(root, names)
    if not any(found.values()) and problems:
        raise UserError(f"No track of musdb_root {root} can be used: {next(iter(problems.values()))}")
    if not any(found.values()):
        raise UserError(
            f"musdb_root {root} holds no track; expected {root}/train/Artist - Title/mixture.wav (wav) or "
            f"{root}/train/Artist - Title.stem.mp4 (stems), and the same under test/."
        )
    if not split or found["valid"]:
        return found
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


def list_test_sets(folders, stems=SOURCES, litter=None, refused=None):
    """Tracks of `folders`, {name: folder}, as {name: {track: path}}; a folder that does not exist is left out.

    Folders are relative to the repository or absolute; stems, litter: as of `list_tracks`. Raises `UserError` for a
    folder without tracks, or as `list_tracks`.
    """
    places = {name: ROOT / Path(folder).expanduser() for name, folder in folders.items()}
    found = {name: list_tracks(place, stems, litter, refused) for name, place in places.items() if place.is_dir()}
    if empty := [name for name, tracks in found.items() if not tracks]:
        raise UserError(
            f"The test set {empty[0]!r} holds no track; {places[empty[0]]} must hold one folder per song, with "
            f"{join(stems)} as {', '.join(AUDIO)} files."
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


def list_tracks(folder, stems=SOURCES, litter=None, refused=None):
    """Tracks of one folder, {name: path}, in order of their names; {} if there is no such folder.

    `path` is a .stem.mp4 file, a composed track (.npy) or a folder with a file of `AUDIO` for one or more of the
    `stems`; a mixture beside them is optional. What operating systems leave behind is passed over: a line says so, or
    the list `litter` takes the names. Raises `UserError` if the folder cannot be read.
    """
    names = [] if litter is None else litter
    try:
        tracks = _list_tracks(folder, stems, names, refused) if folder.is_dir() else {}
    except OSError as error:
        raise UserError(f"Cannot read {error.filename} ({error.strerror}); change its permissions.") from error
    if litter is None:
        _tell(folder, names)
    return tracks


def _tell(folder, litter):
    if litter:
        more = f" and {len(litter) - 3} more" if len(litter) > 3 else ""
        print(f"{folder}: passed over {', '.join(litter[:3])}{more}; operating systems leave them behind.")


def _list_tracks(folder, stems, litter, refused):
    tracks = {}
    for path in sorted(folder.iterdir()):
        if is_litter(path.name) or (path.name.startswith(".") and path.is_dir() and not stem_files(path, stems)):
            litter.append(f"{folder.name}/{path.name.strip()}")
        elif problem := _problem(path, stems):
            if refused is None:
                raise UserError(problem)
            refused[path] = problem
        elif path.name.endswith(".stem.mp4"):
            tracks[path.name.removesuffix(".stem.mp4")] = path
        elif path.is_dir() or path.suffix == ".npy":
            tracks[path.name if path.is_dir() else path.stem] = path
    return tracks


def _problem(path, stems):
    """The sentence on what is wrong with an entry of a folder of tracks, or None; other files are no tracks."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link that leads nowhere; correct or remove it."
    if not path.name.isprintable():
        return f"{path.parent} holds {path.name!r}, a name that is no text; rename it."
    if not path.is_dir() and not path.name.endswith((".stem.mp4", ".npy")):
        return None
    if (length := len(os.fsencode(path.name.removesuffix(".stem.mp4")))) > LONGEST_NAME:
        return f"The name of {path} has {length} bytes, but a track's may have {LONGEST_NAME}; rename it."
    if path.is_dir() and not set(stem_files(path, stems)) & set(stems):
        return f"{path} holds none of {', '.join(stems)} as {', '.join(AUDIO)} file; rename its files, or give stems."
    for file in _files(path, stems):
        if not file.is_file():
            return f"{file} is no file, or a link that leads nowhere; replace it."
        if not file.stat().st_size:
            return f"{file} is an empty file; copy it again."
    return None


def stem_files(track, stems):
    """{"mixture" or name of a stem: path} of the files that there are in the folder of a track, in this order."""
    there = {path.name.casefold(): path for path in sorted(track.iterdir(), reverse=True)}
    wanted = {name: [f"{name}.{ending}".casefold() for ending in AUDIO] for name in ("mixture", *stems)}
    found = {name: [there[file] for file in files if file in there] for name, files in wanted.items()}
    return {name: files[0] for name, files in found.items() if files}


def _files(track, stems):
    """The files of a track: the mixture and the stems that there are, or one .stem.mp4 or .npy."""
    return list(stem_files(track, stems).values()) if track.is_dir() else [track]


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


def track_fingerprint(path, stems=SOURCES):
    """Hash of the paths, sizes and times of a track's files."""
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path, stems)]
    return short_hash(json.dumps(facts))


def short_hash(text):
    """The first 16 digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(sets, stems=SOURCES):
    """Hash of the paths, sizes and times of all files of `sets`, {name: {track: path}}."""
    return short_hash("".join(track_fingerprint(path, stems) for tracks in sets.values() for path in tracks.values()))
