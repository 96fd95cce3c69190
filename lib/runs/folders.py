"""The folders of runs: their names and their order, which of them are finished, and which were set aside.

results/<run>/<arm>-<seed>/             a training
results/<run>/<arm>-<seed>~<digest>/    a training with other parameters, set aside
results/<run>/mixture/                  scores of the mixture; no training
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import tidy, write_json
from lib.common.provenance import ROOT, made_by
from lib.common.words import join
from lib.config import Config, read_note
from lib.data.tracks import read_index, stems_of
from lib.models.weights import load_weights
from lib.runs.build import check_trainable

VERSION = 2  # of the training: raise it when a fix changes the weights that the same parameters give


def arm_and_seed(name):
    """("gan", 42) of "gan-42", the name of a run's folder.

    Raises `UserError` for any other form; the allowed characters mean nothing in HTML, in a figure or in a path.
    """
    if match := re.fullmatch(r"([\w.+-]+)-(\d+)", name):
        return match[1], int(match[2])
    raise UserError(f"An arm's folder cannot be called {name!r}; rename it to letters, digits and '-', like 'gan-42'.")


def folders_in(run):
    """The folders in `run`, sorted by name, without runs that were set aside."""
    return [path for path in tidy(Path(run).glob("*")) if path.is_dir() and "~" not in path.name]


def runs_in(run, holding):
    """[(arm, seed, folder)] of the trainings in `run` that hold a file or folder `holding`.

    Arm l1 comes first, the others follow by name, each by its seeds. Raises `UserError` for a name without a seed.
    """
    folders = [path for path in folders_in(run) if (path / holding).exists() and path.name != "mixture"]
    return sorted(((*arm_and_seed(path.name), path) for path in folders), key=lambda found: (found[0] != "l1", *found))


def finished(run):
    """Names of the finished trainings in the folder `run` whose weights are there, in the order of `runs_in`."""
    return [path.name for _, _, path in runs_in(run, "model.safetensors") if read_note(path).get("finished")]


def trained(run):
    """The arms among `finished`: all but the pre-trainings. Raises `UserError` when there is none."""
    arms = [name for name in finished(run) if arm_and_seed(name)[0] != "pretrain"]
    if not arms:
        raise UserError(f"{run} holds no trained arm; run the notebook 02-train first.")
    return arms


def claim(config, folder, world_size=1):
    """Make `folder` the run of `config` on `world_size` ranks.

    Returns `config` with its digests and stems filled in, and whether this run is finished already. A run with other
    parameters or of another `VERSION` is set aside as `folder~digest`, with the runs that branched from it, and comes
    back when it is asked for again. Raises `UserError`, and changes nothing, when `config` cannot be trained.
    """
    folder, start = Path(folder), None
    if folder.is_file():
        raise UserError(f"{folder} is a file; choose another folder.")
    sets, digest = read_index(ROOT / config.data)
    config = dataclasses.replace(config, data_digest=digest, stems=[*stems_of(sets)])
    if config.start_from:
        weights = ROOT / config.start_from
        weights = weights / "model.safetensors" if not weights.is_file() else weights
        start = load_weights(weights)
        check_same_stems(start.stems, config.stems, f"start_from = {config.start_from}", config.data)
        config = dataclasses.replace(config, start_digest=hashlib.sha256(weights.read_bytes()).hexdigest()[:16])
    wanted, present = {"config": dataclasses.asdict(config), "version": VERSION}, read_note(folder)
    if not present or _identity(present) != _identity(wanted):
        check_trainable(config, world_size, start)
        earlier = _aside(folder, wanted)
        if present:
            _make_room(folder, earlier.exists())
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
    note = read_note(folder)
    if not note:
        write_json(folder / "config.json", wanted | {"made_by": made_by()})
    return config, bool(note.get("finished")) and (folder / "model.safetensors").exists()


def check_same_stems(separated, stems, place, data):
    """Raise `UserError` unless what the generator in `place` separates is the `stems` of `data`, in their order."""
    if tuple(separated) != tuple(stems):
        raise UserError(
            f"{place} separates {join(separated)}, but the tracks of {data} hold {join(stems)}; choose another, or "
            "train one on these tracks."
        )


def _identity(note):
    """What two notes of the same run have in common: parameters, with defaults for those added since, and version."""
    values, version = note["config"], note.get("version", 1)
    with contextlib.suppress(TypeError, UserError):  # parameters of another program stay as they are
        values = dataclasses.asdict(Config.from_dict(values))
    return values if version == 1 else [version, values]


def _make_room(folder, needed):
    """Set aside the run in `folder` and those that branched from it; without weights, keep it only if `needed`."""
    for path in folders_in(folder.parent):
        start = read_note(path).get("config", {}).get("start_from")
        if start and (ROOT / start).resolve() == folder.resolve():
            _set_aside(path)
    if needed or any((folder / name).exists() for name in ("state.pt", "model.safetensors")):
        _set_aside(folder)
    else:  # a log alone, as in a fresh clone
        (folder / "config.json").unlink()


def _set_aside(folder):
    place = _aside(folder, read_note(folder))
    if place.exists():  # the same parameters and the same start, so the same run
        shutil.rmtree(place)
    folder.rename(place)


def _aside(folder, note):
    digest = hashlib.sha256(json.dumps(_identity(note)).encode()).hexdigest()[:8]
    return folder.with_name(f"{folder.name}~{digest}")
