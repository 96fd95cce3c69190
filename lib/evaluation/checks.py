"""Does a measure rank known errors as an ear would? `python -m lib.evaluation.checks --help` explains it.

Four estimates of every true stem, from best to worst: the stem itself; the stem with white noise 30 dB below it; the
stem without anything above 8 kHz; the mixture ÷ 4. A measure that does not rank them so carries no claim.

The order of noise and low-pass holds where the low-pass takes away more energy than the noise adds (a bass has no
treble to lose, so there the noise is the larger error): all comparisons are made on these stems. A band below 8 kHz
loses nothing by the low-pass, so for it the mixture ÷ 4 follows the noise.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from lib.common.errors import Parser, UserError
from lib.common.files import atomic
from lib.common.machine import cores
from lib.common.processes import command
from lib.common.processes import workers as processes
from lib.common.progress import progress
from lib.data.tracks import SAMPLERATE, read_index
from lib.evaluation.measures import MEASURES, measure
from lib.evaluation.results import HIGHER, METRICS
from lib.evaluation.score import affordable, memory, one_thread, score, versions

VERSION = 1  # of the known errors and their comparison
NOISE, CUT = -30.0, 8_000  # dB relative to the stem; Hz
ESTIMATES = ("truth", "noise", "low_passed", "mixture")
LEAST = 8  # tracks
BELOW = ("lsd_0_500", "lsd_500_2k", "lsd_2k_8k")  # measures of bands below `CUT`


def degraded(stems, mixture, seed=0):
    """The four `ESTIMATES` of all stems: {name: (stems, channels, samples)}, float32."""
    level = np.sqrt(np.mean(np.square(stems, dtype=np.float64), axis=(1, 2), keepdims=True)) * 10 ** (NOISE / 20)
    noise = level * np.random.default_rng(seed).standard_normal(stems.shape)
    found = (stems, stems + noise, low_pass(stems), np.broadcast_to(mixture / len(stems), stems.shape))
    return {name: np.asarray(x, np.float32) for name, x in zip(ESTIMATES, found, strict=True)}


def low_pass(audio):
    """`audio` (…, samples) without its spectrum from `CUT` up."""
    spectrum = np.fft.rfft(audio)
    spectrum[..., np.fft.rfftfreq(audio.shape[-1], 1 / SAMPLERATE) >= CUT] = 0
    return np.fft.irfft(spectrum, audio.shape[-1])


def cells(tracks):
    """All measures of the four estimates of every stem of `tracks`, without stems that never sound.

    Returns a DataFrame, a row per track, target and estimate; `counts`: whether the low-pass takes away more energy
    than the noise adds.
    """
    fitting = affordable([2 * memory(track) for track in tracks])  # four estimates of a track, not one
    with processes(min(cores(), len(tracks), fitting), one_thread) as pool:
        found = progress("check the measures", len(tracks), pool.map(_cells, enumerate(tracks)))
        return pd.DataFrame([row for rows in found for row in rows])


def _cells(job):
    number, track = job
    stems, mixture = track.stems(), track.mixture()
    estimates = degraded(stems, mixture, seed=number)
    errors = {name: np.square(x - stems, dtype=np.float64).sum((1, 2)) for name, x in estimates.items()}
    counts, rows = errors["low_passed"] > errors["noise"], []
    for name, estimate in estimates.items():
        ratios = np.array(score(stems, estimate)).clip(-100, 100)  # the truth's are infinite
        for k, measured in enumerate(measure(stems, estimate, mixture)):
            if stems[k].any():
                medians = dict(zip(METRICS, np.nanmedian(ratios[:, k], axis=-1), strict=True))
                facts = {"track": track.name, "target": track.sources[k], "estimate": name, "counts": counts[k]}
                rows.append(facts | medians | measured)
    return rows


def check(tracks):
    """The table of checks: a row per measure, with its medians for the four estimates and whether it `passes`.

    A comparison holds where the median over stems of its difference has the right sign: truth before noise, noise
    before low_passed, low_passed before mixture. Raises `UserError` for fewer than eight tracks, or if no stem has
    treble.
    """
    if len(tracks) < LEAST:
        raise UserError(
            f"There are {len(tracks)} tracks to check the measures on; give a test set of at least {LEAST}."
        )
    found = cells(tracks)
    found = found[found["counts"]]
    if found.empty:
        raise UserError(f"No stem has energy above {CUT} Hz to lose; check the measures on other tracks.")
    return verdicts(found)


def update(tracks, path):
    """The table of `check` for the first tracks, also in the file at `path`, which is kept while it is current.

    An empty table for fewer than `LEAST` tracks. The file's column `of` identifies tracks and versions.
    """
    tracks, path = tracks[:LEAST], Path(path)
    if len(tracks) < LEAST:
        return pd.DataFrame(columns=["measure", *ESTIMATES, "stems", "passes", "wrong"])
    facts = [VERSION, versions(), [[track.name, track.source] for track in tracks]]
    of = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    if path.exists():
        found = pd.read_csv(path, keep_default_na=False)
        if "of" in found and (found["of"] == of).all():
            return found.drop(columns="of")
    table = check(tracks)
    with atomic(path) as file:
        table.assign(of=of).to_csv(file, index=False, float_format="%.4f")
    return table


def verdicts(found):
    """The table of `check` from rows of `cells`."""
    rows = []
    for name in (*METRICS, *MEASURES):
        grid = found.pivot(index=["track", "target"], columns="estimate", values=name)[list(ESTIMATES)]
        worse = -grid if name in HIGHER else grid.abs()
        order = [x for x in ESTIMATES if not (name in BELOW and x == "low_passed")]
        steps = [(worse[after] - worse[before]).median() > 0 for before, after in zip(order, order[1:], strict=False)]
        wrong = [
            f"{after} before {before}"
            for before, after, right in zip(order, order[1:], steps, strict=False)
            if not right
        ]
        rows.append(
            {"measure": name}
            | grid.median().to_dict()
            | {"stems": len(grid), "passes": not wrong, "wrong": ", ".join(wrong)}
        )
    return pd.DataFrame(rows)


def main(arguments=None):
    """Run the command."""
    parser = Parser(
        prog="python -m lib.evaluation.checks",
        description="Check every measure on true stems and three known errors, and write checks.csv. A measure that "
        "ranks them wrongly carries no claim.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", metavar="DATA.JSON", help="index of tracks, as results/study/data.json")
    parser.add_argument("csv", metavar="CHECKS.CSV", help="file to write")
    parser.add_argument("--set", default="test", metavar="NAME", help="test set of the index (default: test)")
    parser.add_argument("--tracks", type=int, default=8, help="number of its first tracks (default: 8)")
    options = parser.parse_args(arguments)
    sets, _ = read_index(Path(options.index))
    if options.set not in sets:
        raise UserError(f"{options.index} has no set {options.set!r}; choose one of {', '.join(sets)}.")
    table = check(sets[options.set][: options.tracks])
    with atomic(options.csv) as file:
        table.to_csv(file, index=False, float_format="%.4f")
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    command(main)
