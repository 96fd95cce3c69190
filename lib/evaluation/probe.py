"""The discriminator alone, against a generator that stands still: the quickest way to see memorisation and its cures.

A cell of the D-probe trains a discriminator for a few hundred steps on some segments of a few training tracks, and
measures it on segments of tracks that it never saw. `fresh_auc` asks the reverse question with the same means: can a
discriminator that no generator has met tell its estimates from recordings?
"""

import functools
import hashlib
import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import memorisation as instruments
from lib.common import streams
from lib.common.errors import UserError
from lib.common.files import atomic, read_json, write_json
from lib.common.processes import workers
from lib.common.progress import progress
from lib.common.provenance import made_by
from lib.config import Config
from lib.data.tracks import SAMPLERATE, SOURCES, Excerpts, read_index
from lib.demucs import center_trim
from lib.gan import Adversary
from lib.models.weights import load_weights
from lib.runs.build import build_discriminator

HELD_OUT = 96  # segments at most that a cell is measured on, and as many of training tracks
PER_TRACK = 4  # segments of a track, while there are tracks enough: 16 segments are 4 tracks
MEASURED_EVERY = 25  # steps; adaptive augmentation and early stop act on these
COLUMNS = ("r_v_sigma", "r_v_logit", "r_t", "tpr_heldout", "tnr_heldout", "auc_heldout", "bce_heldout", "r_f")

# Each cure alone, then together. "remix" and "early stop" concern what is shown and for how long; the others are
# parameters of `Config`.
CURES = {
    "none": {},
    "joint augmentation, p 0.5": {"augment_p": 0.5},
    "joint augmentation, adaptive p": {"augment_target": 0.2, "augment_steps": 100},
    "R1, γ 0.01": {"r1": 0.01},
    "R1, γ 0.1": {"r1": 0.1},
    "instance noise": {"instance_noise": 0.1},
    "dither": {"dither": 0.03},
    "remix of stems": {"remix": True},
    "LeCam": {"lecam": 0.3},
    "spectral norm": {"spectral_norm": True},
    "dropout": {"dropout": 0.3},
    "quarter width": {"discriminator_width": 0.25},
    "early stop": {"early_stop": True},
    "augmentation + R1": {"augment_p": 0.5, "r1": 0.01},
    "augmentation + noise": {"augment_p": 0.5, "instance_noise": 0.1},
}


def run(folder, index, weights, cells, *, steps, seconds, **settings):
    """Train and measure all of `cells`, a list of (segments, cure, seed); returns the table in <folder>/dprobe.csv.

    index: a data.json; weights: of the generator that stands still; settings: as of `cell`. Cells run in parallel
    processes, each is written as it is finished and not repeated, unless settings, data or weights change: these and
    the machine stand in dprobe.json. Raises `UserError` before any step for an unknown cure, a setting out of range, or
    too few segments.
    """
    for name, value in {
        "steps": steps,
        "seconds": seconds,
        "segments": min(cells)[0] if cells else 0,
        **settings,
    }.items():
        if name != "name" and not value > 0:
            raise UserError(f"The D-probe's {name} = {value} must be above 0.")
    folder, weights = Path(folder), Path(weights)
    sets, digest = read_index(index)
    generator = load_weights(weights)
    check_cells(cells, sets["train"], generator, seconds)
    wanted = {"steps": steps, "seconds": seconds, **settings, "data": digest, "cures": CURES}
    wanted["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    table, note = folder / "dprobe.csv", folder / "dprobe.json"
    known = table.exists() and note.exists() and read_json(note).get("settings") == wanted
    rows = pd.read_csv(table).to_dict("records") if known else []
    if not known:  # first, or an interruption would leave the rows of other settings beside this note
        table.unlink(missing_ok=True)
    write_json(note, {"settings": wanted, "made_by": made_by()})
    done = {(row["segments"], row["cure"], row["seed"]) for row in rows}
    missing = sorted((c for c in cells if c not in done), key=lambda c: c[0])
    jobs = [
        (str(index), str(weights), dict(count=n, cure=cure, seed=seed, steps=steps, seconds=seconds, **settings))
        for n, cure, seed in missing
    ]
    if jobs:
        with workers(min(os.cpu_count(), len(jobs)), _initialise) as pool:
            for row in progress("D-probe", len(jobs), pool.map(_cell, jobs), unit="cells"):
                rows.append(row)
                with atomic(table) as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
    return pd.DataFrame(rows).set_index(["segments", "cure", "seed"]).loc[cells].reset_index()


def check_cells(cells, tracks, generator, seconds):
    """Raise `UserError` for an unknown cure in `cells`, or for training `tracks` with too few segments."""
    for count, cure, _ in cells:
        if cure not in CURES:
            raise UserError(f"There is no cure {cure!r}; choose from {', '.join(CURES)}.")
        _excerpts(_tracks(tracks, count), generator, count, seconds)


def _initialise():
    torch.set_num_threads(1)  # the cells are what runs in parallel


def _cell(job):
    index, weights, arguments = job
    return cell(*_load(index, weights), **arguments)


@functools.cache
def _load(index, weights):
    return read_index(index)[0], load_weights(weights).eval()


def _tracks(tracks, count):
    return tuple(tracks[: max(count // PER_TRACK, 1)])


def _excerpts(tracks, generator, count, seconds):
    excerpts = Excerpts(tracks, generator.valid_length(round(seconds * SAMPLERATE)), round(seconds * SAMPLERATE))
    if len(excerpts) < count:
        raise UserError(f"The tracks hold {len(excerpts)} segments of {seconds} s, fewer than {count}; ask for fewer.")
    return excerpts


@functools.lru_cache(maxsize=2)  # the held-out ones, and those of this number
def segments(tracks, generator, count, seconds):
    """`count` segments spread evenly over `tracks` (a tuple): their stems and the generator's estimates of them.

    Two tensors (count, sources, channels, samples), normalised as in training; the stems are longer by the generator's
    context on both sides. Raises `UserError` for too few segments.
    """
    excerpts = _excerpts(tracks, generator, count, seconds)
    stems = torch.empty(count, len(SOURCES), 2, excerpts.samples)
    for k, item in enumerate(stems.numpy()):
        for s in range(len(SOURCES)):
            excerpts.read(k * len(excerpts) // count, item[s], s)
    with torch.no_grad():
        estimates = torch.cat([generator(part.sum(1)) for part in stems.split(16)])
    return stems, estimates


def cell(sets, generator, *, count, cure, seed, steps, seconds, batch=8, width=16, lr=3e-4, error=1.0, name="patch"):
    """Train one discriminator and measure it: {segments, cure, seed, ...COLUMNS}.

    sets: {"train": tracks, "valid": tracks}; count: of training segments; cure: a name in `CURES`; error: the share of
    the generator's error that is left in its estimates, so that one can ask what a discriminator would do against a
    better generator (1: this one).
    """
    settings = dict(CURES[cure])
    remix, stop = settings.pop("remix", False), settings.pop("early_stop", False)
    width = round(width * settings.pop("discriminator_width", 1))
    adversary = _adversary(seed, batch, width, lr, name, **settings)
    train = segments(_tracks(sets["train"], count), generator, count, seconds)
    unseen = tuple(sets["valid"])
    heldout = segments(unseen, generator, min(HELD_OUT, len(_excerpts(unseen, generator, 1, seconds))), seconds)
    shown = [k * count // min(count, HELD_OUT) for k in range(min(count, HELD_OUT))]
    measured = [_better(*(part[shown] for part in train), error), _better(*heldout, error)]
    found, lowest = None, np.inf
    for step, chosen in enumerate(itertools.islice(_order(count, batch, seed), steps)):
        stems, estimates = (part[chosen] for part in train)
        if remix:
            stems, estimates = _remix(stems, generator, seed, step)
        adversary.discriminator_step(step, *_better(stems, estimates, error))
        last = step + 1 == steps
        if last or (step + 1) % MEASURED_EVERY == 0 and (stop or adversary.config.augment_target):
            metrics = _measure(adversary, *measured)
            adversary.observe(metrics)
            if not stop or metrics["bce_heldout"] < lowest:
                found, lowest = metrics, metrics["bce_heldout"]
    return {"segments": count, "cure": cure, "seed": seed} | {column: found[column] for column in COLUMNS}


def fresh_auc(pairs, *, folds=2, seed=0, steps=100, seconds=0.5, batch=8, width=16, lr=3e-4):
    """How well a fresh discriminator tells estimates from recordings: {track: AUC}, 0.5 = not at all, 1 = always.

    pairs: {track: (stems, estimates)}, arrays (sources, channels, samples). Cross-validated by track: each is judged by
    a discriminator that was trained, with joint augmentation, on tracks of the other folds. Raises `UserError` for
    fewer tracks than folds, or a track shorter than a segment.
    """
    if len(pairs) < folds:
        raise UserError(f"{len(pairs)} track(s) cannot be split into {folds} folds; evaluate more tracks.")
    cut = {name: _cut(*pair, round(seconds * SAMPLERATE)) for name, pair in pairs.items()}
    for name, (stems, _) in cut.items():
        if not len(stems):
            raise UserError(f"Track {name} is shorter than a segment of {seconds} s; choose shorter segments.")
    found = {}
    for fold in range(folds):
        unseen = list(pairs)[fold::folds]
        seen = [torch.cat(parts) for parts in zip(*(cut[name] for name in pairs if name not in unseen), strict=True)]
        adversary = _adversary(seed, batch, width, lr, "patch", augment_p=0.5)
        for step, chosen in enumerate(itertools.islice(_order(len(seen[0]), batch, seed), steps)):
            adversary.discriminator_step(step, *(part[chosen] for part in seen))
        for name in unseen:
            real, generated = _logits(adversary, cut[name])
            found[name] = float(instruments.auc(real.ravel(), generated.ravel()))
    return {name: found[name] for name in pairs}


def _adversary(seed, batch, width, lr, name, **settings):
    config = Config(
        data="",
        seed=seed,
        batch=batch,
        adversarial_weight=1.0,
        discriminator=name,
        discriminator_width=width,
        discriminator_lr=lr,
        evaluate_every=MEASURED_EVERY,
    )
    config = replace(config, **settings)
    return Adversary(config, build_discriminator(config))


def _order(count, batch, seed):
    """Endless batches of indices: permutation after permutation, cut into batches."""
    random = np.random.RandomState([seed, streams.PROBE_ORDER])
    pool = []
    while True:
        while len(pool) < batch:
            pool += random.permutation(count).tolist()
        yield pool[:batch]
        pool = pool[batch:]


def _better(stems, estimates, share):
    """(stems, estimates) of a generator that errs only `share` as much, without context."""
    stems = center_trim(stems, estimates)
    return stems, stems + share * (estimates - stems)


def _remix(stems, generator, seed, step):
    """Stems exchanged between the members of the batch, and the generator's estimates of the new mixtures."""
    random = np.random.RandomState([seed, streams.PROBE_REMIX, step])
    mixed = torch.stack([stems[random.permutation(len(stems)), s] for s in range(stems.shape[1])], dim=1)
    with torch.no_grad():
        return mixed, generator(mixed.sum(1))


def _measure(adversary, train, heldout):
    sets = {}
    for part, pair in (("train", train), ("heldout", heldout)):
        sets[f"real_{part}"], sets[f"generated_{part}"] = _logits(adversary, pair)
    return instruments.measure(sets)


@torch.no_grad()
def _logits(adversary, pair):
    """(real, generated) logits of all segments, sub-discriminators pooled."""
    found = [
        adversary.logits(stems[None], estimates[None], k)
        for k, (stems, estimates) in enumerate(zip(*pair, strict=True))
    ]
    return [np.concatenate([np.ravel(item[sub][half]) for item in found for sub in item]) for half in (0, 1)]


def _cut(stems, estimates, samples):
    """Segments (count, sources, channels, samples) of a track's stems and estimates, at its mixture's level."""
    stems, estimates = (torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (stems, estimates))
    level = stems.sum(0).std().clamp(min=1e-6)
    count = stems.shape[-1] // samples
    return [
        (x[..., : count * samples] / level).unflatten(-1, (count, samples)).permute(2, 0, 1, 3)
        for x in (stems, estimates)
    ]
