"""Intervals and tests over seeds and tracks: which differences are larger than noise?

A test over tracks alone ignores the variance over seeds: between two seeds of one recipe it calls 8 of 40 stem
comparisons significant. So `prediction_interval` judges one more run by the spread of the seeds, `paired_interval`
compares two arms by Student's t over their seeds, and `seeds_needed` tells how many seeds a difference takes.

An arm's seed is the seed of its pre-training: arms of one seed grew from the same weights, which pairs them.
"""

import itertools

import numpy as np
import pandas as pd
from scipy import stats

from lib.common.errors import UserError
from lib.data.tracks import SOURCES as STEMS

COLUMNS = (*STEMS, "all")  # of the published results
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


def equal_means_half_width(seeds, alike=False):
    """95 % half-width per column for the mean of as many other runs of equal spread: t · sd · sqrt(2/n).

    t has n - 1 degrees of freedom, since the spread is known from `seeds` alone; with `alike`, 2n - 2, as if the other
    runs had been seen, and had exactly the same standard deviation.
    """
    n = len(seeds)
    freedom = (n - 1) * (2 if alike else 1)
    return stats.t.ppf((1 + LEVEL) / 2, freedom) * prediction_interval(seeds)["sd"] * np.sqrt(2 / n)


def equal_means_p(value, seeds, alike=False):
    """Per column, two-sided p of `value` (Series, dB) as a mean of as many runs, as of `equal_means_half_width`."""
    n = len(seeds)
    t = (value[seeds.columns] - seeds.mean()) / (seeds.std(ddof=1) * np.sqrt(2 / n))
    return pd.Series(2 * stats.t.sf(t.abs(), (n - 1) * (2 if alike else 1)), index=seeds.columns, name="p")


def two_sided_p(value, seeds):
    """Per column, two-sided p of `value` (Series, dB) as one more run: below 0.05 outside the `prediction_interval`."""
    interval, n = prediction_interval(seeds), len(seeds)
    t = (value[interval.index] - interval["mean"]) / (interval["sd"] * np.sqrt(1 + 1 / n))
    return pd.Series(2 * stats.t.sf(t.abs(), n - 1), index=interval.index, name="p")


def stems_in(tracks):
    """Names of the stems that a table of a run's scores holds in its column `target`, in their order."""
    return list(tracks["target"].unique())


def stem_table(tracks, expected_tracks=None, metric="SDR", stems=STEMS):
    """One table row: the median over tracks of each of the `stems`, NaN left out, and "all", the stems' mean.

    tracks: DataFrame with `track`, `target` and `metric` (any column). Raises `UserError`, which names the tracks,
    unless the rows are exactly `expected_tracks` (default: those that occur) × the stems.
    """
    tracks = tracks[tracks["target"].isin(stems)]
    grid = tracks.pivot(index="track", columns="target", values=metric)
    expected = set(grid.index if expected_tracks is None else expected_tracks)
    scored = tracks.groupby("track")["target"].nunique()
    missing = sorted(expected - set(scored.index[scored == len(stems)]))
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
    row = grid[list(stems)].median()
    row["all"] = row.mean()
    return row.rename_axis(None)


def arm_means(tracks, metrics=("SDR",)):
    """`stem_table`'s "all", a column per metric and a row per (arm, seed) of `tracks`, in their order."""
    groups = tracks.groupby(["arm", "seed"], sort=False, dropna=False)
    stems = stems_in(tracks)
    rows = [(*key, *(stem_table(group, None, metric, stems)["all"] for metric in metrics)) for key, group in groups]
    return pd.DataFrame(rows, columns=["arm", "seed", *metrics]).set_index(["arm", "seed"])


def paired_interval(baseline, arm, metric="SDR"):
    """95 % interval of the table's difference `arm` - `baseline`: mean over seeds of the difference of medians.

    baseline, arm: rows of `lib.evaluation.results.measured` for one arm each, paired by (seed, track). The interval is
    Student's t over the seeds: how much other pre-trainings would change the difference on these test tracks. A
    bootstrap over two or three seeds is too narrow (`coverage`). With one seed there is no interval: `low`, `high` and
    `p` are NaN. Returns a DataFrame indexed by the stems and "all": `difference`, `low`, `high` (in the metric's unit),
    `p` (of the t test, two-sided), `seeds`, `tracks`.
    """
    before, after = _paired(baseline, arm, metric)  # (stems, seeds, tracks)
    gains = _nanmedian(after) - _nanmedian(before)  # (stems, seeds)
    mean, low, high, p = t_interval(np.vstack([gains, gains.mean(axis=0)]))
    _, seeds, tracks = before.shape
    table = {"difference": mean, "low": low, "high": high, "p": p, "seeds": seeds, "tracks": tracks}
    return pd.DataFrame(table, index=[*stems_in(baseline), "all"])


def t_interval(values):
    """(mean, low, high, p) over the last axis, by Student's t with n - 1 degrees of freedom; NaN where n is 1."""
    n, mean = values.shape[-1], values.mean(axis=-1)
    if n < 2:
        return mean, *np.full((3, *mean.shape), np.nan)
    error = values.std(axis=-1, ddof=1) / np.sqrt(n)
    half_width = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):  # no scatter: p is 0, or 1 without a difference
        p = np.where(mean == 0, 1.0, 2 * stats.t.sf(np.abs(mean) / error, n - 1))
    return mean, mean - half_width, mean + half_width, p


def coverage(seeds, sd_seed=0.06, sd_rest=0.08, tracks=24, runs=2000, resamples=400):
    """How often 95 % intervals hold the true difference, simulated: {"bootstrap": share, "t": share}.

    bootstrap: percentiles over resampled seeds. What a seed changes and what is left per track are normal, with these
    SDs in dB (of `gan` against `l1` in the first study, in the middle of the stems); the truth is 0. The
    bootstrap cannot leave the range of the seeds, and three seeds lie on one side of the truth with a chance of 1/4: so
    it covers less than 75 %, whatever the SDs.
    """
    random = np.random.default_rng(0)
    gains = sd_seed * random.normal(size=(runs, seeds, 1)) + sd_rest * random.normal(size=(runs, seeds, tracks))
    gains = np.median(gains, axis=-1)
    picked = gains[:, random.integers(seeds, size=(resamples, seeds))].mean(axis=-1)  # (runs, resamples)
    limits = np.quantile(picked, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1), t_interval(gains)[1:3]
    held = [float(np.mean((low <= 0) & (high >= 0))) for low, high in limits]
    return dict(zip(("bootstrap", "t"), held, strict=True))


def wilcoxon(baseline, arm, metric="SDR"):
    """p per stem of Wilcoxon's signed-rank test on the tracks' differences `arm` - `baseline`, averaged over seeds.

    It ignores the variance over seeds. Arguments as of `paired_interval`; returns a Series.
    """
    before, after = _paired(baseline, arm, metric)
    differences = pd.DataFrame((after - before).mean(axis=1), index=stems_in(baseline))
    # scipy returns NaN without a difference to rank
    p = [stats.wilcoxon(row.dropna()).pvalue if row.any() else 1.0 for _, row in differences.iterrows()]
    return pd.Series(p, differences.index, name="p")


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


def holm(p):
    """Adjusted p of a family (Series; Holm 1979): the i-th smallest of m times m - i, monotone, at most 1; NaN stay."""
    known = p.dropna().to_numpy()
    order = np.argsort(known, kind="stable")
    adjusted = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1)).clip(max=1)
    return pd.Series(adjusted[np.argsort(order)], p.dropna().index).reindex(p.index)


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
    stems = list(dict.fromkeys([*stems_in(baseline), *stems_in(arm)]))
    cells = pd.MultiIndex.from_product([stems, seeds, tracks], names=["target", "seed", "track"])
    grids = []
    for rows in (baseline, arm):
        values = rows.set_index(["target", "seed", "track"])[metric]
        if missing := sorted({track for _, _, track in cells.difference(values.index)}):
            raise UserError(
                f"The two arms cannot be paired: one lacks a result for {_names(missing)}; evaluate it again."
            )
        grids.append(values[cells].to_numpy(float).reshape(len(stems), len(seeds), len(tracks)))
    return grids


def _names(names):
    return ", ".join(map(repr, names)) or "no tracks at all"
