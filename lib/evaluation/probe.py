"""The D-probe, the quickest test of memorisation and its cures.

A cell trains one discriminator on a few training tracks, with a fixed generator, and measures it on held-out tracks.
"""

import functools
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.common import streams
from lib.common.errors import UserError
from lib.common.files import atomic, write_json
from lib.common.machine import cores
from lib.common.processes import workers
from lib.common.progress import progress
from lib.common.provenance import made_by
from lib.config import ABOVE_0, Config, one_of, require
from lib.data.tracks import SAMPLERATE, Excerpts, read_index, stems_of
from lib.demucs import center_trim
from lib.evaluation.score import check_current, is_current
from lib.gan import Adversary
from lib.memorisation import SETS, measure
from lib.models.weights import load_weights
from lib.runs.build import build_discriminator

VERSION = 1  # of the table's values; see lib.evaluation.score
HELD_OUT = 96  # largest number of held-out segments in a measurement, and of training segments
PER_TRACK = 4  # segments per track, where there are enough tracks: 16 segments are 4 tracks
MEASURED_EVERY = 25  # steps; adaptive augmentation and early stop act on these measurements
COLUMNS = ("r_v_sigma", "r_v_logit", "r_t", "tpr_heldout", "tnr_heldout", "auc_heldout", "bce_heldout", "r_f")

# Parameters of `Config`, except "remix" and "early_stop", which `cell` carries out. First each cure alone.
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

# What the cells and settings of `run` must be; `lib.report.guard` checks the parameters probe_<name> by the same rules.
RULES = dict.fromkeys(("segments", "steps", "seconds", "batch", "width", "lr", "error"), ABOVE_0)
RULES["cures"] = one_of(CURES)


def run(folder, index, weights, cells, **settings):
    """Train and measure `cells`, a list of (segments, cure, seed), in parallel; return the table <folder>/dprobe.csv.

    index: a data.json; weights: of the fixed generator; settings: as of `cell`. Finished cells are kept, unless
    settings, data, weights or `VERSION` change, which dprobe.json holds. Raises `UserError` before the first step for
    an unknown cure, a setting out of range, or too few segments.
    """
    for count, cure, _ in cells:
        for name, value in ({"segments": count, "cures": cure} | settings).items():
            if name in RULES:
                require(name, value, RULES[name])
    folder, weights = Path(folder), Path(weights)
    sets, digest = read_index(index)
    check_cells(cells, sets["train"], load_weights(weights), settings["seconds"])
    wanted = {"data": digest, "cures": CURES, "weights": hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}
    wanted = {"version": VERSION, "settings": settings | wanted}
    table, note = folder / "dprobe.csv", folder / "dprobe.json"
    if not is_current(note, wanted):  # before the note, or an interruption would leave rows of other settings beside it
        table.unlink(missing_ok=True)
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    write_json(note, wanted | {"made_by": made_by()})
    done = {(row["segments"], row["cure"], row["seed"]) for row in rows}
    missing = sorted((c for c in cells if c not in done), key=lambda c: c[0])
    jobs = [(index, weights, dict(count=n, cure=cure, seed=seed, **settings)) for n, cure, seed in missing]
    if jobs:
        # The cells run in parallel, each on one thread.
        with workers(min(cores(), len(jobs)), functools.partial(torch.set_num_threads, 1)) as pool:
            for row in progress("D-probe", len(jobs), pool.map(_cell, jobs), unit="cells"):
                rows.append(row)
                with atomic(table) as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False)
    return pd.DataFrame(rows).set_index(["segments", "cure", "seed"]).loc[cells].reset_index()


def read_probe(folder):
    """The table <folder>/dprobe.csv, None if it is missing; raises `UserError` for one of another version."""
    check_current(folder / "dprobe.json", {"version": VERSION}, "04-discriminator")
    return pd.read_csv(folder / "dprobe.csv") if (folder / "dprobe.csv").exists() else None


def check_cells(cells, tracks, generator, seconds):
    """Raise `UserError` if the training `tracks` have too few segments for one of `cells`."""
    for count, _, _ in cells:
        _excerpts(_tracks(tracks, count), generator, count, seconds)


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


@functools.lru_cache(maxsize=2)  # the held-out segments, and the training segments of one count
def segments(tracks, generator, count, seconds):
    """(stems, estimates) of `count` segments spread evenly over `tracks` (a tuple); `UserError` for too few.

    Tensors (count, sources, channels, samples), normalised as in training; the stems have the generator's context.
    """
    excerpts = _excerpts(tracks, generator, count, seconds)
    stems = torch.empty(count, len(excerpts.sources), 2, excerpts.samples)
    for k, s in np.ndindex(stems.shape[:2]):
        excerpts.read(k * len(excerpts) // count, stems[k, s].numpy(), s)
    with torch.no_grad():
        estimates = torch.cat([generator(part.sum(1)) for part in stems.split(16)])
    return stems, estimates


def cell(sets, generator, *, count, cure, seed, steps, seconds, batch=8, width=16, lr=3e-4, error=1.0):
    """Train one discriminator and measure it: {segments, cure, seed, ...COLUMNS}.

    sets: {"train": tracks, "valid": tracks}; count: number of training segments; error: share of the generator's error
    that stays in its estimates; below 1 the discriminator meets a better generator.
    """
    settings = dict(CURES[cure])
    remix, stop = settings.pop("remix", False), settings.pop("early_stop", False)
    width = round(width * settings.pop("discriminator_width", 1))
    adversary = build_adversary(seed, batch, width, lr, stems=[*stems_of(sets)], **settings)
    train = segments(_tracks(sets["train"], count), generator, count, seconds)
    unseen = tuple(sets["valid"])
    heldout = segments(unseen, generator, min(HELD_OUT, len(_excerpts(unseen, generator, 1, seconds))), seconds)
    shown = [k * count // min(count, HELD_OUT) for k in range(min(count, HELD_OUT))]
    measured = [_improved(*(part[shown] for part in train), error), _improved(*heldout, error)]
    found, lowest = None, np.inf
    for step, chosen in enumerate(itertools.islice(batches(count, batch, seed), steps)):
        stems, estimates = (part[chosen] for part in train)
        if remix:
            stems, estimates = _remix(stems, generator, seed, step)
        adversary.discriminator_step(step, adversary.inputs(step, *_improved(stems, estimates, error)))
        last = step + 1 == steps
        if last or (step + 1) % MEASURED_EVERY == 0 and (stop or adversary.config.augment_target):
            logits = zip(*(pooled_logits(adversary, pair) for pair in measured), strict=True)  # real, generated
            metrics = measure(dict(zip(SETS, itertools.chain(*logits), strict=True)))
            adversary.observe(metrics)
            if not stop or metrics["bce_heldout"] < lowest:
                found, lowest = metrics, metrics["bce_heldout"]
    return {"segments": count, "cure": cure, "seed": seed} | {column: found[column] for column in COLUMNS}


def build_adversary(seed, batch, width, lr, **settings):
    """The patch discriminator with its optimizer; settings: stems and cures, as parameters of `Config`."""
    settings |= dict(seed=seed, batch=batch, discriminator_width=width, discriminator_lr=lr)
    config = Config(data="", adversarial_weight=1.0, evaluate_every=MEASURED_EVERY, **settings)
    return Adversary(config, build_discriminator(config))


def batches(count, batch, seed):
    """Endless batches of indices: permutation after permutation, cut into batches."""
    random = np.random.RandomState([seed, streams.PROBE_ORDER])
    order = itertools.chain.from_iterable(random.permutation(count).tolist() for _ in itertools.count())
    while True:
        yield list(itertools.islice(order, batch))


def _improved(stems, estimates, share):
    """(stems, estimates) without context, with only `share` of the estimates' error."""
    stems = center_trim(stems, estimates)
    return stems, stems + share * (estimates - stems)


def _remix(stems, generator, seed, step):
    """Stems exchanged between the items of the batch, and the generator's estimates of the new mixtures."""
    random = np.random.RandomState([seed, streams.PROBE_REMIX, step])
    mixed = torch.stack([stems[random.permutation(len(stems)), s] for s in range(stems.shape[1])], dim=1)
    with torch.no_grad():
        return mixed, generator(mixed.sum(1))


@torch.no_grad()
def pooled_logits(adversary, pair):
    """(real, generated) logits, flat, of all segments and sub-discriminators; pair: (stems, estimates)."""
    found = [adversary.logits(x[None], y[None], k) for k, (x, y) in enumerate(zip(*pair, strict=True))]
    return [np.concatenate([np.ravel(item[sub][half]) for item in found for sub in item]) for half in (0, 1)]
