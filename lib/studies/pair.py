"""The overfitting pair of a report: a training on few short tracks, once without a cure and once with one.

Both start from the report's pre-training, which has heard all of its training tracks. So the tracks to train on are
drawn from the validation tracks, and others of these are held out; one of them steers a cure that reacts to
evaluations, the rest judge. A third training, without a cure on yet other tracks, gives the null: what a discriminator
that never heard the pair's tracks says of them. Excerpts, batches and tracks are shorter than in the study, so that
hundreds of steps and dozens of passes fit into a minute.
"""

import dataclasses
import hashlib
from functools import partial

import numpy as np

from lib.common import streams
from lib.common.errors import UserError
from lib.common.machine import cores
from lib.common.provenance import portable
from lib.config import Config, read_note
from lib.data.tracks import SAMPLERATE, read_index, stems_of, write_index
from lib.runs.cures import changes_of
from lib.studies import pieces, plans, queue, tables
from lib.studies.overfitting import is_finished, train
from lib.studies.tables import KEYS, MADE, MEASURES, RUNS

PARTS = {"train": (0, 2), "unseen": (2, 3)}  # thirds of a track
EVERY = 8.0  # passes between evaluations
SETTINGS = {
    "seconds": 0.5, "shift_seconds": 0.25, "stride_seconds": 0.25, "batch": 4, "evaluation_excerpts": 32,
}  # fmt: skip


def run(folder, start, cure, *, tracks, seconds, steps, seed):
    """Train the pair and its null in `folder`/memorisation, beside each other; return (table, onsets) of the pair.

    folder: of a report, with data.json; start: folder of its pre-training; cure: of `lib.runs.cures`; tracks: their
    number; seconds: the length to which they are cut. table: an evaluation a row, also written to
    `folder`/memorisation.csv; onsets: a training a row. With tracks=0, or where validation tracks are too few, both are
    None. Finished trainings are kept. Raises `UserError` for an unknown cure, and when a training fails.
    """
    changes_of(cure)
    written = _write_tracks(folder, tracks, seconds, seed) if tracks else None
    if not written:
        return None, None
    own, other = written
    settings = plans.shared(Config.from_dict(read_note(start)["config"]), SETTINGS)
    started = hashlib.sha256((start / "model.safetensors").read_bytes()).hexdigest()[:16]
    planned = []
    for index, its_seed, name in ((own, seed, "none"), (own, seed, cure), (other, seed + 1, "none")):
        one = plans.make(settings, tracks, seconds, its_seed, every=EVERY, steps=steps, cure=name)
        sets, digest = read_index(index)
        known = {"data_digest": digest, "start_digest": started, "stems": [*stems_of(sets)]}
        config = dataclasses.replace(one.config(settings, portable(index), portable(start)), **known)
        planned.append((one, config, tables.minutes_of(index)))
    missing = [job for job in planned if not is_finished(folder / RUNS, *job)]
    jobs = [queue.Job(job[0].name, partial(train, folder / RUNS, *job, beside=3)) for job in missing]
    if errors := queue.run(jobs, len(planned) if cores() > 1 else 1):
        raise UserError(f"The overfitting pair stopped: {next(iter(errors.values()))}")
    *found, null = [tables.read_run(folder / RUNS / one.name) for one, *_ in planned]
    nulls = {line["step"]: line[f"others_{seed}"] for line in null["lines"]}
    for line in [line for one in found for line in one["lines"]]:
        line["membership_null"] = nulls[line["step"]]
    rows = [_key(one) | line | one["made_by"] for one in found for line in one["lines"]]
    table = tables.write(folder / "memorisation.csv", rows, ["cure", *KEYS, "step", "passes", *MEASURES, *MADE])
    return table, tables.write(folder / RUNS / "onsets.csv", [_key(one) | tables.onset_row(one) for one in found], None)


def _write_tracks(folder, count, seconds, seed):
    """The indices of the pair and of the null, on other tracks, with the same held-out ones; None for too few."""
    tracks = [track for track in read_index(folder / "data.json")[0]["valid"] if track.samples >= seconds * SAMPLERATE]
    if len(tracks) < (needed := 2 * count + 2):
        print(
            f"The overfitting pair is left out: it needs {needed} validation tracks of {seconds:g} s, and "
            f"{len(tracks)} are there; lower pair_tracks or pair_seconds."
        )
        return None
    order = np.random.RandomState([seed, streams.STUDY_TRACKS]).permutation(len(tracks))
    tracks = [tracks[k] for k in order]
    place = folder / RUNS / "pieces"
    own, other = (
        {part: [pieces.piece(track, seconds, *thirds, place) for track in drawn] for part, thirds in PARTS.items()}
        for drawn in (tracks[:count], tracks[count : 2 * count])
    )
    held_out = {"valid": tracks[-1:], "heldout-b": tracks[2 * count : -1]}
    paths = place / f"pair-{seed}.json", place / f"null-{seed}.json"
    write_index(paths[0], own | held_out)
    write_index(paths[1], other | held_out | {f"others-{seed}": own["train"]})
    return paths


def _key(found):
    return {"cure": found["run"].cure} | tables.key(found)
