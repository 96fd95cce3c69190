"""How large is noise, and which differences are larger: intervals and tests over seeds and tracks.

A track-level test alone is not enough: between two seeds of one recipe it calls 8 of 40 stem comparisons
significant, because it ignores the variance over seeds. So one more run is judged against the spread of the
seeds (`prediction_interval`), and two arms by resampling seeds and tracks together (`bootstrap_interval`).
"""

import warnings

import numpy as np
import pandas as pd
from scipy import stats

from lib.errors import UserError

STEMS = ("drums", "bass", "other", "vocals")
COLUMNS = (*STEMS, "all")


def prediction_interval(seeds, level=0.95):
    """Where one more run of the same recipe would fall.

    seeds: DataFrame, one row per seed and one column per figure (dB). Returns a DataFrame indexed by those
    columns: `mean`, `sd` (ddof 1) and `half_width` = t(n - 1) · sd · sqrt(1 + 1/n), all in dB. Needs two
    seeds.
    """
    n = len(seeds)
    if n < 2:
        raise UserError(f"A prediction interval needs at least two seeds, but got {n}; train another seed.")
    sd = seeds.std(ddof=1)
    half_width = stats.t.ppf((1 + level) / 2, n - 1) * sd * np.sqrt(1 + 1 / n)
    return pd.DataFrame({"mean": seeds.mean(), "sd": sd, "half_width": half_width})


def two_sided_p(value, seeds):
    """Two-sided p of `value` (Series or mapping per column, dB) being one more run of the recipe of `seeds`.

    The same t distribution as `prediction_interval`: p < 1 - level exactly where `value` leaves the interval.
    """
    interval = prediction_interval(seeds)
    n = len(seeds)
    t = (pd.Series(value)[interval.index] - interval["mean"]) / (interval["sd"] * np.sqrt(1 + 1 / n))
    return pd.Series(2 * stats.t.sf(t.abs(), n - 1), index=interval.index, name="p")


def stem_table(tracks, statistic="median", expected_tracks=None, metric="SDR"):
    """One table row: `statistic` ("median" or "mean") over tracks of each stem, and "all", the stems' mean.

    tracks: DataFrame with `track`, `target` and `metric` (dB), one row per (track, target). A stem that is
    silent throughout a track is NaN there and left out of that stem's figure. Raises `UserError`, naming the
    tracks, unless the rows are exactly `expected_tracks` (default: those that occur) × the four stems.
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
    if foreign := sorted(set(grid.index) - expected):
        raise UserError(
            f"The row holds {len(foreign)} tracks that are not in its test set ({_names(foreign)}); "
            "remove their result files or evaluate again."
        )
    row = grid[list(STEMS)].agg(statistic)
    row["all"] = row[list(STEMS)].mean()
    return row.rename(None).rename_axis(None)


def bootstrap_interval(baseline, arm, statistic="median", metric="SDR", level=0.95, resamples=10_000, random_seed=0):
    """Interval of the table's difference `arm` - `baseline`: mean over seeds of the difference of
    `statistic`s.

    baseline, arm: rows of `lib.report.measured` for one arm each, paired by (seed, track). Every resample
    draws seeds and, independently, tracks, and uses the same draw for both arms and all stems. Every seed is
    scored on the same tracks, so tracks are drawn once per resample, not anew per seed: that would average
    away the variance between tracks (Owen, "The pigeonhole bootstrap", 2007). With one seed the interval
    speaks of tracks only. Returns a DataFrame indexed by drums … all: `difference`, `low`, `high` (dB),
    `seeds`, `tracks`.
    """
    before, after = _paired(baseline, arm, metric)  # (stems, seeds, tracks)
    summarise = {"median": np.nanmedian, "mean": np.nanmean}[statistic]
    if not (np.isnan(before).any() or np.isnan(after).any()):
        summarise = {"median": np.median, "mean": np.mean}[statistic]  # ten times faster

    _, n_seeds, n_tracks = before.shape
    random = np.random.default_rng(random_seed)
    seeds = random.integers(n_seeds, size=(resamples, n_seeds, 1))
    tracks = random.integers(n_tracks, size=(resamples, 1, n_tracks))

    def differences(pick):  # (stems + all, ...) of the picked (..., seeds, tracks)
        stems = [
            (summarise(b[pick], axis=-1) - summarise(a[pick], axis=-1)).mean(axis=-1)
            for a, b in zip(before, after, strict=True)
        ]
        return np.stack([*stems, np.mean(stems, axis=0)])

    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a draw of tracks silent in a stem
        low, high = np.nanquantile(differences((seeds, tracks)), [(1 - level) / 2, (1 + level) / 2], axis=-1)
        observed = differences(...)
    return pd.DataFrame(
        {"difference": observed, "low": low, "high": high, "seeds": n_seeds, "tracks": n_tracks},
        index=list(COLUMNS),
    )


def wilcoxon_holm(baseline, arm, metric="SDR"):
    """Wilcoxon signed-rank test per stem on seed-averaged differences `arm` - `baseline`, Holm over the
    stems.

    A second opinion beside `bootstrap_interval`: it sees tracks, not the variance over seeds. Arguments as
    there. Returns a DataFrame indexed by stem: `median_difference` (dB), `tracks`, `p`, `p_holm`.
    """
    before, after = _paired(baseline, arm, metric)
    rows = []
    for difference in (after - before).mean(axis=1):
        difference = difference[~np.isnan(difference)]
        # without a difference there is nothing to rank, and scipy answers NaN
        p = stats.wilcoxon(difference).pvalue if difference.any() else 1.0
        median = np.median(difference) if difference.size else np.nan
        rows.append({"median_difference": median, "tracks": difference.size, "p": p})
    table = pd.DataFrame(rows, index=list(STEMS))
    return table.assign(p_holm=_holm(table["p"].to_numpy()))


def _holm(p):
    """Step-down adjusted p values (Holm 1979): the i-th smallest of m times m - i, made monotone, at most
    1."""
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _paired(baseline, arm, metric):
    """Both arms as arrays (stems, seeds, tracks) over the seeds they share; `UserError` if tracks differ."""
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
    """Track names for a sentence."""
    return ", ".join(repr(name) for name in names) or "no tracks at all"
