"""The D-probe: discriminators alone, against a generator at rest, and what they memorise.

A cell trains one discriminator on a few segments of training tracks and measures it on held-out tracks along the way.
`python -m lib.studies.overfitting FOLDER … --plan regimes` trains a map of them.
"""

import functools
import hashlib
import itertools
import math
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
from lib.config import ABOVE_0, Config, require
from lib.data.tracks import SAMPLERATE, Excerpts, read_index, stems_of
from lib.demucs import center_trim
from lib.evaluation.score import is_current
from lib.gan import Adversary
from lib.memorisation import SETS, measure
from lib.models.weights import load_weights
from lib.runs.build import build_discriminator

VERSION = 2  # of the table's values; see lib.evaluation.score
HELD_OUT = 96  # largest number of held-out segments in a measurement, and of training segments
PER_TRACK = 4  # segments per track, where there are enough tracks: 16 segments are 4 tracks
FIRST = 25  # steps before the first measurement; each further one comes after twice as many
CELL = ("segments", "error", "width", "seed")
COLUMNS = (
    "tpr_train", "tpr_heldout", "tnr_train", "tnr_heldout", "auc_train", "auc_heldout", "bce_train", "bce_heldout",
    "membership_auc", "r_v_sigma", "r_f",
)  # fmt: skip
LENGTH = {"steps": 400, "passes": 25}  # of a cell: until it has both
SETTINGS = {"seconds": 0.25, "batch": 8, "lr": 3e-4}


def run(folder, index, weights, cells, **settings):
    """Train and measure `cells`, a list of `CELL` values, in parallel; return the table <folder>/regimes.csv.

    index: a data.json; weights: of the fixed generator; settings: of `cell`, where they differ from `LENGTH` and
    `SETTINGS`. The table has a row per measurement: the cell, step, passes, sdr (of the estimates in dB, held-out),
    `COLUMNS`, machine and commit. Finished cells are kept, unless settings, data, weights or `VERSION` change, which
    regimes.json holds. Raises `UserError` before the first step for a value out of range or too few segments.
    """
    settings = LENGTH | SETTINGS | settings
    numbers = [dict(zip(CELL[:3], cell[:3], strict=True)) for cell in cells]
    for name, value in [pair for values in [settings, *numbers] for pair in values.items()]:
        require(name, value, ABOVE_0)
    folder, weights = Path(folder), Path(weights)
    sets, digest = read_index(index)
    for count, *_ in cells:
        _excerpts(_tracks(sets["train"], count), load_weights(weights), count, settings["seconds"])
    wanted = {"data": digest, "weights": hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}
    wanted = {"version": VERSION, "settings": settings | wanted}
    table, note = folder / "regimes.csv", folder / "regimes.json"
    if not is_current(note, wanted):  # before the note, or an interruption would leave rows of other settings beside it
        table.unlink(missing_ok=True)
    rows, made = pd.read_csv(table).to_dict("records") if table.exists() else [], made_by()
    write_json(note, wanted | {"made_by": made})
    done = {tuple(row[name] for name in CELL) for row in rows}
    missing = sorted((cell for cell in cells if cell not in done), key=lambda cell: -cell[0])
    jobs = [(index, weights, dict(zip(CELL, cell, strict=True)) | settings) for cell in missing]
    if jobs:
        # The cells run in parallel, each on one thread.
        with workers(min(cores(), len(jobs)), functools.partial(torch.set_num_threads, 1)) as pool:
            for found in progress("D-probe", len(jobs), pool.map(_cell, jobs), unit="cells"):
                rows += [row | {name: made[name] for name in ("machine", "commit")} for row in found]
                with atomic(table) as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
    return pd.read_csv(table)


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
def segments_of(tracks, generator, count, seconds):
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


def cell(sets, generator, *, segments, error, width, seed, steps, passes, seconds, batch, lr):
    """Train one discriminator until it has done `steps` and `passes`; return a row for each measurement.

    sets: {"train": tracks, "valid": tracks}; segments: number of training segments; error: share of the generator's
    error that stays in its estimates; below 1 the discriminator meets a better generator.
    """
    adversary = build_adversary(seed, batch, width, lr, stems=[*stems_of(sets)])
    train = segments_of(_tracks(sets["train"], segments), generator, segments, seconds)
    unseen = tuple(sets["valid"])
    held_out = segments_of(unseen, generator, min(HELD_OUT, len(_excerpts(unseen, generator, 1, seconds))), seconds)
    shown = [k * segments // min(segments, HELD_OUT) for k in range(min(segments, HELD_OUT))]
    measured = [_improved(*(part[shown] for part in train), error), _improved(*held_out, error)]
    facts = {"segments": segments, "error": error, "width": width, "seed": seed, "sdr": _sdr(*measured[1])}
    total, rows, mark = max(steps, math.ceil(passes * segments / batch)), [], FIRST
    for step, chosen in enumerate(itertools.islice(batches(segments, batch, seed), total), 1):
        given = _improved(*(part[chosen] for part in train), error)
        adversary.discriminator_step(step - 1, adversary.inputs(step - 1, *given))
        if step in (mark, total):
            mark *= 2
            logits = zip(*(pooled_logits(adversary, pair) for pair in measured), strict=True)  # real, generated
            metrics = measure(dict(zip(SETS, itertools.chain(*logits), strict=True)))
            rows.append(facts | {"step": step, "passes": step * batch / segments} | {k: metrics[k] for k in COLUMNS})
    return rows


def _sdr(stems, estimates):
    """The signal-to-distortion ratio of all segments and stems together, in dB."""
    distortion = (stems - estimates).square().sum().item()
    return 10 * math.log10(stems.square().sum().item() / distortion) if distortion else math.inf


def build_adversary(seed, batch, width, lr, **settings):
    """The patch discriminator with its optimizer; settings: stems and cures, as parameters of `Config`."""
    settings |= dict(seed=seed, batch=batch, discriminator_width=width, discriminator_lr=lr)
    config = Config(data="", adversarial_weight=1.0, **settings)
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


@torch.no_grad()
def pooled_logits(adversary, pair):
    """(real, generated) logits, flat, of all segments and sub-discriminators; pair: (stems, estimates)."""
    found = [adversary.logits(x[None], y[None], k) for k, (x, y) in enumerate(zip(*pair, strict=True))]
    return [np.concatenate([np.ravel(item[sub][half]) for item in found for sub in item]) for half in (0, 1)]
