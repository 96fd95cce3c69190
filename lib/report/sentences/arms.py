"""What the arms are worth against L1: SDR, naturalness, and the seeds that a difference takes.

The verdicts on a difference: "helps" or "harms", where its interval excludes zero and it is at least `NEGLIGIBLE`;
"negligible", where the whole interval lies within ±`NEGLIGIBLE`; else "not decided". With one seed, which says nothing
of chance between seeds, "no verdict".
"""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join
from lib.evaluation import results, stats
from lib.evaluation.results import ARMS, IDEAL, PERCEPTION
from lib.evaluation.stats import COLUMNS, STEMS
from lib.report.tables import GAN

NEGLIGIBLE = 0.1  # dB of SDR: the least spread of a stem between the published seeds of one recipe
SAID = {  # {verdict: what an arm does to the stems that have it}
    "helps": "helps {}",
    "harms": "harms {}",
    "negligible": f"changes {{}} by less than {NEGLIGIBLE:g} dB",
    "not decided": "leaves {} undecided",
}


def seed_noise():
    """Whether the reported GAN lies outside the spread of Demucs v1 runs in any stem, as one run and as a mean."""
    seeds = results.published_seeds()
    gan = results.published_systems().loc[GAN, list(COLUMNS)].astype(float)
    interval, p = stats.prediction_interval(seeds), stats.two_sided_p(gan, seeds)

    def outside(half_width):
        stems = [stem for stem in STEMS if abs(gan[stem] - interval.loc[stem, "mean"]) > half_width[stem]]
        return f"{join(stems) if stems else 'none'} leave{'s' * (len(stems) < 2)}"

    return (
        "The first report does not say whether its row of Demucs v1 + GAN is one run or a mean. As one run, of its "
        f"differences {outside(interval['half_width'])} the 95 % interval of one more run of plain Demucs v1 (smallest "
        f"p = {p.min():.2f}, {p.idxmin()}). As the mean of {len(seeds)} runs that scatter alike, "
        f"{outside(stats.equal_means_half_width(seeds))} the interval of such a mean."
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


def verdict(row):
    """The verdict on a difference in SDR, a row of `arm_differences`; see the top of this file."""
    if row["seeds"] < 2:
        return "no verdict"
    if row["low"] * row["high"] > 0 and abs(row["difference"]) >= NEGLIGIBLE:
        return "helps" if row["difference"] > 0 else "harms"
    return "negligible" if max(-row["low"], row["high"]) <= NEGLIGIBLE else "not decided"


def verdicts(differences):
    """The verdict on every arm and stem, by SDR against L1: Series indexed by (arm, stem).

    differences: `arm_differences` with "SDR" among its metrics.
    """
    return differences.loc["SDR"].drop("all", level="stem").apply(verdict, axis=1)


def gan_helps(differences):
    """What each arm does to the stems by SDR against L1: {arm: words}. differences: as of `verdicts`."""
    found = {}
    for arm, words in verdicts(differences).groupby("arm", sort=False):
        row, stems = differences.loc["SDR", arm].iloc[0], words.loc[arm]
        says = [text.format(join(stems.index[stems == word])) for word, text in SAID.items() if (stems == word).any()]
        if row["seeds"] < 2:
            says = ["has no verdict, as one seed says nothing of chance between seeds"]
        count = f"{row['tracks']:.0f} tracks, {row['seeds']:.0f} seed{'s' if row['seeds'] > 1 else ''}"
        found[arm] = f"{ARMS.get(arm, arm)} {join(says)} ({count})"
    return found


def naturalness(differences):
    """Where each arm is nearer to the true stems than L1, or farther: DataFrame, measures × (arm, stem).

    differences: `arm_differences` with the metrics of `PERCEPTION`. A cell is empty where the interval includes zero,
    two decimals round the difference to zero, or there is one seed.
    """
    if differences.empty:
        return differences

    def word(row):
        shown = row["seeds"] > 1 and row["low"] * row["high"] > 0 and abs(row["difference"]) >= 0.005
        return ("farther" if row["difference"] > 0 else "nearer") if shown else ""

    words = differences.apply(word, axis=1)
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
