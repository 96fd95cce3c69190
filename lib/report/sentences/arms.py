"""What the arms are worth against L1: SDR, naturalness, and the seeds that a difference takes.

A difference counts only where its interval excludes zero; everything else is "no difference shown", which is not the
same as "no difference".
"""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join
from lib.evaluation import results, stats
from lib.evaluation.results import ARMS, IDEAL, PERCEPTION
from lib.evaluation.stats import COLUMNS, STEMS
from lib.report.tables import GAN

EFFECTS = ("helps", "harms", "shows no difference in")


def seed_noise():
    """Whether the reported GAN leaves the interval of one more Demucs v1 run in any stem."""
    seeds = results.published_seeds()
    gan = results.published_systems().loc[GAN, list(COLUMNS)].astype(float)
    interval, p = stats.prediction_interval(seeds), stats.two_sided_p(gan, seeds)
    outside = [stem for stem in STEMS if abs(gan[stem] - interval.loc[stem, "mean"]) > interval.loc[stem, "half_width"]]
    names = join(outside) if outside else "none"
    return (
        f"Of the differences that the first report of Demucs v1 + GAN gave, {names} leave{'s' * (len(outside) < 2)} "
        f"the 95 % interval of one more run of plain Demucs v1 (smallest p = {p.min():.2f}, {p.idxmin()}). This holds "
        "if the GAN's row is one run, which its text does not say."
    )


def arm_differences(tracks, metrics=("SDR",)):
    """Differences of every arm from L1 on the test tracks, with 95 % intervals over seeds and tracks.

    tracks: `lib.evaluation.results.arms_table`. For high_band_ratio and auc_fresh the distance from `IDEAL` is
    compared, so that less is better. Returns a DataFrame indexed by (metric, arm, stem): difference, low, high, seeds,
    tracks, p_holm; a metric that was computed for no track is left out. Raises `UserError` without a pair of arms.
    """
    rows = tracks[tracks["test_set"] == "test"]
    rows = rows.assign(**{metric: (rows[metric] - ideal).abs() for metric, ideal in IDEAL.items()})
    base, others = rows[rows["arm"] == "l1"], rows[~rows["arm"].isin(["l1", "mixture"])]
    if base.empty or others.empty:
        raise UserError("There is no pair of arms to compare; train l1 and another arm with the same seed.")
    tables = {}
    for metric in metrics:
        for arm, other in others.groupby("arm", sort=False):
            if base[metric].notna().any() and other[metric].notna().any():
                table = stats.bootstrap_interval(base, other, metric=metric)
                tables[metric, arm] = table.join(stats.wilcoxon_holm(base, other, metric=metric)["p_holm"])
    return pd.concat(tables, names=["metric", "arm", "stem"]) if tables else pd.DataFrame()


def effect(row, words):
    """The first of `words` for an increase, the second for a decrease, the last for a difference that is not shown.

    A difference is shown where the interval excludes zero and two decimals do not round it to zero.
    """
    up, down, not_shown = words
    if row["low"] * row["high"] <= 0 or abs(row["difference"]) < 0.005:
        return not_shown
    return up if row["difference"] > 0 else down


def gan_helps(differences):
    """Which stems each arm helps, harms or shows no difference in, by SDR against L1: {arm: words}.

    differences: `arm_differences` with "SDR" among its metrics.
    """
    found = {}
    for arm, table in differences.loc["SDR"].groupby("arm", sort=False):
        effects = table.loc[arm].loc[list(STEMS)].apply(effect, axis=1, words=EFFECTS)
        says = [f"{word} {join(effects.index[effects == word])}" for word in EFFECTS if (effects == word).any()]
        tracks, seeds = (int(table[name].iloc[0]) for name in ("tracks", "seeds"))
        chance = f"{seeds} seeds" if seeds > 1 else "one seed, so the intervals know nothing of chance between seeds"
        found[arm] = f"{ARMS.get(arm, arm)} {join(says)} ({tracks} tracks, {chance})"
    return found


def naturalness(differences):
    """Where each arm is nearer to the true stems than L1, or farther: DataFrame, measures × (arm, stem).

    differences: `arm_differences` with the metrics of `PERCEPTION`. An empty cell is a difference that is not shown.
    """
    if differences.empty:
        return differences
    words = differences.apply(effect, axis=1, words=("farther", "nearer", ""))
    return words.unstack(["arm", "stem"]).rename(index=PERCEPTION, columns=ARMS)


def power(seeds, tracks):
    """Which difference the seeds of this run can show.

    seeds: `lib.evaluation.results.published_seeds`, whose spread is taken as every arm's; tracks:
    `lib.evaluation.results.arms_table`.
    """
    table = stats.power_table(seeds[list(STEMS)])
    here = tracks.loc[tracks["arm"] == "l1", "seed"].nunique()
    enough = [x for x in table if (table[x] <= here).all()]
    able = f"enough for {enough[0]:g} dB in every stem" if enough else f"too few even for {table.columns[-1]:g} dB"
    return (
        f"This run has {here} per arm: {able}. Arms that grow from one checkpoint may scatter less than whole "
        "trainings and then need fewer."
    )
