"""The tracks of a training, drawn by its seed, and their pieces: two thirds to train on, a third that stays unseen."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from lib.common import streams
from lib.common.errors import UserError
from lib.common.files import atomic
from lib.common.provenance import ROOT, portable
from lib.config import Config, read_note
from lib.data.tracks import SAMPLERATE, read_index, write_index

HELD_OUT = ("heldout-a", "heldout-b")
GROUP = 3  # seeds 1 to 3, 4 to 6, …: the tracks of each are judged by the others


def pool(sets, start):
    """The training tracks that the pre-training in the folder `start` has not heard; raises `UserError` for none."""
    config = Config.from_dict(read_note(start).get("config", {}))
    index = ROOT / config.data
    heard = (read_index(index)[0] if index.exists() else sets).get("train", [])[: config.tracks or None]
    names = {track.name for track in heard}
    unheard = [track for track in sets.get("train", []) if track.name not in names]
    if not unheard:
        raise UserError(
            f"The pre-training {start} has heard every training track; train one on fewer tracks (tracks=…)."
        )
    return unheard


def draw(tracks, count, seed):
    """The `count` tracks of a seed. The seeds' draws are disjoint as long as there are tracks enough."""
    order = np.random.RandomState([count, streams.STUDY_TRACKS]).permutation(len(tracks))
    return [tracks[order[(count * (seed - 1) + k) % len(tracks)]] for k in range(count)]


def group(seed):
    """The other seeds of the group of a seed."""
    first = (seed - 1) // GROUP * GROUP + 1
    return [other for other in range(first, first + GROUP) if other != seed]


def held_out(sets):
    """(set that steers, set that judges): heldout-a and heldout-b, or the halves of the validation tracks."""
    if all(sets.get(name) for name in HELD_OUT):
        return [sets[name] for name in HELD_OUT]
    halves = sets.get("valid", [])[::2], sets.get("valid", [])[1::2]
    if not all(halves):
        raise UserError("The data index holds neither heldout-a and heldout-b nor two validation tracks.")
    return list(halves)


def write_pieces(sets, tracks, count, seconds, seed, folder):
    """Write the pieces and the data index of a training on `count` of `tracks`; return the path of the index.

    seconds: the length to which each track is cut before it is split. The sets of the index: train; valid, which
    steers; heldout-b, which judges; unseen, the last thirds of the training's tracks; others-<seed>, the training
    pieces of the other seeds of the group, without tracks that this seed drew too.
    """
    folder, own = Path(folder), draw(tracks, count, seed)
    steers, judges = held_out(sets)
    index = {"train": [piece(track, seconds, 0, 2, folder) for track in own], "valid": steers, "heldout-b": judges}
    index["unseen"] = [piece(track, seconds, 2, 3, folder) for track in own]
    for other in group(seed):
        index[f"others-{other}"] = [
            piece(track, seconds, 0, 2, folder) for track in draw(tracks, count, other) if track not in own
        ]
    path = folder / f"{count}x{seconds:g}-{seed}.json"
    write_index(path, {name: found for name, found in index.items() if found})
    return path


def piece(track, seconds, first, last, folder):
    """The part of a track from `first` to `last` thirds of its first `seconds`, as a track with its own file.

    It keeps the mean and the deviation of the whole track, so that both parts are normalised alike.
    """
    third = round(seconds * SAMPLERATE) // 3
    samples = (last - first) * third
    key = f"{track.source} {track.name} {track.samples} {track.mean} {track.std} {first * third} {samples}"
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(track.audio()[..., first * third : first * third + samples]))
    name = f"{track.name}, thirds {first + 1} to {last}"
    return dataclasses.replace(track, name=name, path=portable(path), samples=samples)
