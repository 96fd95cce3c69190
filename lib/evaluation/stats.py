"""Intervals and tests over seeds and tracks: which differences are larger than noise?

A test over tracks alone ignores the variance over seeds: between two seeds of one recipe it calls 8 of 40 stem
comparisons significant. So `prediction_interval` judges one more run by the spread of the seeds, `bootstrap_interval`
compares two arms by resampling seeds and tracks together, and `seeds_needed` tells how many seeds a difference takes.
"""

import itertools
import warnings

import numpy as np
import pandas as pd
from scipy import stats

from lib.common.errors import UserError
from lib.data.tracks import SOURCES as STEMS

COLUMNS = (*STEMS, "all")
LEVEL, POWER = 0.95, 0.8  # of intervals and tests, and the chance that a test shows a true difference


def prediction_interval(seeds):
    """The 95 % interval of one more run, given `seeds`, a row each; `UserError` for fewer than two.

    Returns a DataFrame indexed by their columns: `mean`, `sd` (ddof 1), `half_width` = t(n - 1) · sd · sqrt(1 + 1/n).
    """
    n = len(seeds)
    if n < 2:
        raise UserError(f"A prediction interval needs at least two seeds, but got {n}; train another seed.")
    sd = seeds.std(ddof=1)
    half_width = stats.t.ppf((1 + LEVEL) / 2, n - 1) * sd * np.sqrt(1 + 1 / n)
    return pd.DataFrame({"mean": seeds.mean(), "sd": sd, "half_width": half_width})


def equal_means_half_width(seeds):
    """95 % half-width per column for the mean of as many other runs of equal spread: t(2n - 2) · sd · sqrt(2/n)."""
    n = len(seeds)
    return stats.t.ppf((1 + LEVEL) / 2, 2 * n - 2) * prediction_interval(seeds)["sd"] * np.sqrt(2 / n)


def two_sided_p(value, seeds):
    """Per column, two-sided p of `value` (Series, dB) as one more run: below 0.05 outside the `prediction_interval`."""
    interval, n = prediction_interval(seeds), len(seeds)
    t = (value[interval.index] - interval["mean"]) / (interval["sd"] * np.sqrt(1 + 1 / n))
    return pd.Series(2 * stats.t.sf(t.abs(), n - 1), index=interval.index, name="p")


def stem_table(tracks, expected_tracks=None, metric="SDR"):
    """One table row: the median over tracks of each stem, NaN left out, and "all", the stems' mean.

    tracks: DataFrame with `track`, `target` and `metric` (any column). Raises `UserError`, which names the tracks,
    unless the rows are exactly `expected_tracks` (default: those that occur) × the four stems.
    """
    tracks = tracks[tracks["target"].isin(STEMS)]
    grid = tracks.pivot(index="track", columns="target", values=metric)
    expected = set(grid.index if expected_tracks is None else expected_tracks)
    scored = tracks.groupby("track")["target"].nunique()
    missing = sorted(expected - set(scored.index[scored == len(STEMS)]))
    if missing or not expected:
        raise UserError(
            f"The row is incomplete: {len(missing)} of {len(expected)} tracks lack a result for every stem "
            f"({_names(missing)}); evaluate them before comparing."
        )
    if others := sorted(set(grid.index) - expected):
        raise UserError(
            f"The row holds {len(others)} tracks that are not in its test set ({_names(others)}); "
            "remove their result files or evaluate again."
        )
    row = grid[list(STEMS)].median()
    row["all"] = row.mean()
    return row.rename_axis(None)


def arm_means(tracks, metrics=("SDR",)):
    """`stem_table`'s "all", a column per metric and a row per (arm, seed) of `tracks`, in their order."""
    groups = tracks.groupby(["arm", "seed"], sort=False, dropna=False)
    rows = [(*key, *(stem_table(group, metric=metric)["all"] for metric in metrics)) for key, group in groups]
    return pd.DataFrame(rows, columns=["arm", "seed", *metrics]).set_index(["arm", "seed"])


def bootstrap_interval(baseline, arm, metric="SDR", resamples=10_000):
    """95 % interval of the table's difference `arm` - `baseline`: mean over seeds of the difference of medians.

    baseline, arm: rows of `lib.evaluation.results.measured` for one arm each, paired by (seed, track). A resample draws
    seeds and, once for all seeds, tracks, the same for both arms and all stems: drawn per seed, the variance between
    tracks would average out (Owen, "The pigeonhole bootstrap", 2007). With one seed the interval covers chance between
    tracks only; with two or three it may be too narrow: simulated without a difference, it excluded zero in 11 and 7 %
    where seeds scatter more than tracks, and in less than 5 % otherwise. Returns a DataFrame indexed by drums … all:
    `difference`, `low`, `high` (in the metric's unit), `seeds`, `tracks`.
    """
    before, after = _paired(baseline, arm, metric)  # (stems, seeds, tracks)
    _, n_seeds, n_tracks = before.shape
    random = np.random.default_rng(0)
    seeds = random.integers(n_seeds, size=(resamples, n_seeds, 1))
    tracks = random.integers(n_tracks, size=(resamples, 1, n_tracks))

    def differences(pick):  # (stems + all, ...) of the picked (..., seeds, tracks)
        stems = [(_nanmedian(b[pick]) - _nanmedian(a[pick])).mean(axis=-1) for a, b in zip(before, after, strict=True)]
        return np.stack([*stems, np.mean(stems, axis=0)])

    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a draw of tracks silent in a stem
        low, high = np.nanquantile(differences((seeds, tracks)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
        observed = differences(...)
    table = {"difference": observed, "low": low, "high": high, "seeds": n_seeds, "tracks": n_tracks}
    return pd.DataFrame(table, index=list(COLUMNS))


def wilcoxon_holm(baseline, arm, metric="SDR"):
    """Wilcoxon signed-rank test per stem on seed-averaged differences `arm` - `baseline`, Holm over the stems.

    It ignores the variance over seeds. Arguments as of `bootstrap_interval`; returns a DataFrame, a row per stem.
    """
    before, after = _paired(baseline, arm, metric)
    differences = pd.DataFrame((after - before).mean(axis=1), index=list(STEMS))
    # scipy returns NaN without a difference to rank
    p = [stats.wilcoxon(row.dropna()).pvalue if row.any() else 1.0 for _, row in differences.iterrows()]
    table = pd.DataFrame({"median_difference": differences.median(axis=1), "p": p})
    return table.assign(p_holm=_holm(table["p"]))


def seeds_needed(sd_between_seeds, difference):
    """Number of seeds per arm that show a true `difference` with a chance of 80 % in a two-sample t test at 5 %.

    Exact, by the noncentral t distribution (Cohen, "Statistical Power Analysis", 1988, chapter 2). Arms that share
    their seeds' starting points may need fewer. Raises `UserError` unless both numbers, of one unit, are positive.
    """
    if not (sd_between_seeds > 0 and difference > 0):
        raise UserError(f"SD and difference must be positive, but are {sd_between_seeds} and {difference}.")

    def enough(n):
        freedom, shift = 2 * n - 2, difference / (sd_between_seeds * np.sqrt(2 / n))
        critical = stats.t.ppf((1 + LEVEL) / 2, freedom)
        return stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift) >= POWER

    return next(n for n in itertools.count(2) if enough(n))


def power_table(seeds):
    """`seeds_needed` for true differences in dB (columns) and the SD of each column of `seeds` (rows)."""
    differences = pd.Index([0.1, 0.2, 0.3, 0.5, 1.0], name="difference (dB)")
    rows = [[seeds_needed(sd, difference) for difference in differences] for sd in seeds.std(ddof=1)]
    return pd.DataFrame(rows, index=seeds.columns, columns=differences)


def _holm(p):
    """Step-down adjusted p values (Holm 1979): the i-th smallest of m times m - i, made monotone, at most 1."""
    return (p.sort_values() * np.arange(len(p), 0, -1)).cummax().clip(upper=1)[p.index]


def _nanmedian(values):
    """`np.nanmedian` over the last axis, much faster on short rows: NaN sorts to the end; a row of NaN gives NaN."""
    ordered, n = np.sort(values, axis=-1), (~np.isnan(values)).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, middle, -1) for middle in ((n - 1) // 2, n // 2))
    return ((low + high) / 2).squeeze(-1)


def _paired(baseline, arm, metric):
    """Both arms as arrays (stems, seeds, tracks) over the seeds that they share; `UserError` if tracks differ."""
    seeds = sorted(set(baseline["seed"]) & set(arm["seed"]))
    if not seeds:
        raise UserError("The two arms share no seed, so they cannot be compared in pairs; train a common seed.")
    tracks = sorted(set(baseline["track"]) | set(arm["track"]))
    cells = pd.MultiIndex.from_product([STEMS, seeds, tracks], names=["target", "seed", "track"])
    grids = []
    for rows in (baseline, arm):
        values = rows.set_index(["target", "seed", "track"])[metric]
        if missing := sorted({track for _, _, track in cells.difference(values.index)}):
            raise UserError(
                f"The two arms cannot be paired: one lacks a result for {_names(missing)}; evaluate it again."
            )
        grids.append(values[cells].to_numpy(float).reshape(len(STEMS), len(seeds), len(tracks)))
    return grids


def _names(names):
    return ", ".join(map(repr, names)) or "no tracks at all"
