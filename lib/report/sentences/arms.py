"""What the arms are worth against each other: SDR, naturalness, and the seeds that a difference takes.

The verdicts on a difference: "helps" or "harms", where its interval excludes zero and it is at least as large as the
measure's `NEGLIGIBLE`; "negligible", where the whole interval lies within ± that; else "not decided". With one seed,
which says nothing of chance between pre-trainings, "no verdict".
"""

import re
import warnings

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join
from lib.evaluation import results, stats
from lib.evaluation.results import ARMS, HIGHER, IDEAL, PERCEPTION, PRIMARY_DETAIL, SATURATED, SPECTRAL_KIND
from lib.evaluation.stats import COLUMNS, STEMS
from lib.report.tables import GAN

# Rows are in the order in which they are shown, not in that of an index; with some hundred of them that costs nothing
warnings.filterwarnings("ignore", category=pd.errors.PerformanceWarning)
NEGLIGIBLE = {  # {measure: the least difference that is worth a word}, in its unit
    "SDR": 0.1,  # dB: the least spread of a stem between the published seeds of one recipe
    PRIMARY_DETAIL: 0.1,  # dB: noise 30 dB below the stem adds .06 to .07, mixture ÷ 4 some 3 (lib.evaluation.checks)
}
# Besides l1, against which every arm is compared: pairs that differ by the discriminator alone
PAIRS = (("spectral-gan", "spectral"), ("spectral-adv", "spectral"), ("spectral-gan", "frozen"))
NO_ARM = ("mixture", "pretrain", "branch")  # rows of the table that no training under comparison made
SAID = {  # {verdict: what an arm does to the stems that have it}; {least}: of `NEGLIGIBLE`
    "helps": "helps {stems}",
    "harms": "harms {stems}",
    "negligible": "changes {stems} by less than {least:g} dB",
    "not decided": "leaves {stems} undecided",
}
MAIN = (("gan", "l1"), ("gan-cures", "l1"), ("spectral", "l1"), ("spectral-gan", "l1"), ("spectral-gan", "spectral"))


def outside_noise():
    """The stems in which the reported GAN lies outside what chance explains: four lists.

    As one run, outside the 95 % interval of one more run of Demucs v1; as a mean of as many runs, whose spread is not
    reported; as such a mean, if these runs scattered exactly as the published ones did; and of the last, what is left
    after Holm's correction for the four stems.
    """
    seeds = results.published_seeds()
    gan = results.published_systems().loc[GAN, list(COLUMNS)].astype(float)
    interval = stats.prediction_interval(seeds)
    distance = (gan - interval["mean"]).abs()[list(STEMS)]
    widths = interval["half_width"], *(stats.equal_means_half_width(seeds, alike) for alike in (False, True))
    corrected = stats.holm(stats.equal_means_p(gan, seeds, alike=True)[list(STEMS)])
    outside = [distance > width[list(STEMS)] for width in widths]
    return tuple(list(distance.index[found]) for found in (*outside, corrected < 0.05))


def seed_noise():
    """Whether the reported GAN lies outside the spread of Demucs v1 runs in any stem, as one run and as a mean."""
    one, mean, alike, corrected = (
        f"{join(stems) if stems else 'none'} leave{'s' * (len(stems) < 2)}" for stems in outside_noise()
    )
    return (
        "The first report does not say whether its row of Demucs v1 + GAN is one run or a mean. As one run, of its "
        f"differences {one} the 95 % interval of one more run of plain Demucs v1. As the mean of five runs, {mean} "
        f"that of such a mean; if their spread was exactly that of the published five, {alike} it, and {corrected} it "
        "after a correction for four stems."
    )


def floor(tracks):
    """In which stems the arms are no better than the mixture ÷ 4 on the test tracks.

    tracks: `lib.evaluation.results.arms_table`.
    """
    rows = tracks[tracks["test_set"] == "test"]
    means = rows.groupby(["arm", "seed", "target"], dropna=False, sort=False)["SDR"].median()
    means = means.groupby(["arm", "target"], sort=False).mean().unstack("arm")
    best = means.drop(columns=[arm for arm in NO_ARM if arm in means]).max(axis=1)
    if "mixture" not in means or not len(low := best.index[best <= means["mixture"]]):
        return "In every stem an arm is better than the mixture ÷ 4."
    return f"In {join(low)} no arm is better than the mixture ÷ 4: differences between arms say nothing there."


def comparisons(tracks, metrics=("SDR",), pairs=PAIRS):
    """Differences between arms on the test tracks, with 95 % intervals over seeds: every arm − l1, then `pairs`.

    tracks: `lib.evaluation.results.arms_table`. For high_band_ratio and auc_fresh the distance from `IDEAL` is
    compared, so that less is better. Returns a DataFrame indexed by (metric, arm, base, stem) with the columns of
    `lib.evaluation.stats.paired_interval`; p_holm, its p corrected by Holm for all rows of stems with this metric,
    which are those to be shown together; and p_tracks, of Wilcoxon's test over tracks, corrected alike. A metric that
    was computed for no track is left out. Raises `UserError` without a pair of arms.
    """
    rows = tracks[tracks["test_set"] == "test"]
    rows = rows.assign(**{metric: (rows[metric] - ideal).abs() for metric, ideal in IDEAL.items() if metric in rows})
    arms = {arm: found for arm, found in rows.groupby("arm", sort=False) if arm not in NO_ARM}
    pairs = [(arm, "l1") for arm in arms if arm != "l1"] + list(pairs)
    pairs = [(arm, base) for arm, base in pairs if arm in arms and base in arms]
    if not pairs:
        raise UserError("There is no pair of arms to compare; train l1 and another arm with the same seed.")
    families = {}
    for metric in metrics:
        tables = {}
        for arm, base in pairs:
            both = arms[base], arms[arm]
            if all(found[metric].notna().any() for found in both):
                table = stats.paired_interval(*both, metric)
                tables[arm, base] = table.assign(p_tracks=stats.wilcoxon(*both, metric))
        if tables:
            family = pd.concat(tables, names=["arm", "base", "stem"])
            stems = family.drop("all", level="stem")
            families[metric] = family.assign(p_holm=stats.holm(stems["p"]), p_tracks=stats.holm(stems["p_tracks"]))
    return pd.concat(families, names=["metric"]) if families else pd.DataFrame()


def arm_differences(tracks, metrics=("SDR",)):
    """`comparisons` with l1 alone, indexed by (metric, arm, stem)."""
    table = comparisons(tracks, metrics, pairs=())
    return table.droplevel("base") if len(table) else table


def verdict(row, metric="SDR"):
    """The verdict on a difference, a row of `comparisons` of `metric`; see the top of this file."""
    if row["seeds"] < 2:
        return "no verdict"
    least = NEGLIGIBLE[metric]
    if row["low"] * row["high"] > 0 and abs(row["difference"]) >= least:
        return "helps" if (row["difference"] > 0) == (metric in HIGHER) else "harms"
    return "negligible" if max(-row["low"], row["high"]) <= least else "not decided"


def verdicts(differences, metric="SDR"):
    """The verdict on every pair and stem: Series with the index of `differences` without its metric.

    differences: `comparisons` or `arm_differences` with `metric` among its metrics.
    """
    return differences.loc[metric].drop("all", level="stem").apply(verdict, axis=1, metric=metric)


def verdict_table(differences):
    """Every pair in words: DataFrame, a row per pair and measure of `NEGLIGIBLE`, a column per stem.

    differences: `comparisons` of the measures of `NEGLIGIBLE`.
    """
    shown = [metric for metric in NEGLIGIBLE if metric in differences.index.unique("metric")]
    words = pd.concat({metric: verdicts(differences, metric) for metric in shown}, names=["measure"])
    stems = words.index.unique("stem")
    table = words.unstack("stem")[list(stems)].reindex(words.index.droplevel("stem").unique())
    pairs = [f"{ARMS.get(arm, arm)} − {ARMS.get(base, base)}" for _, arm, base in table.index]
    index = [pairs, ["detail" if metric == PRIMARY_DETAIL else metric for metric, *_ in table.index]]
    return table.set_axis(pd.MultiIndex.from_arrays(index, names=["difference", "measure"]))


def has_discriminator(arm):
    """Whether an arm learns from a discriminator."""
    return bool(re.search("gan|adv", arm))


def discriminator_alone(differences):
    """The rows of `comparisons` that differ by a discriminator alone: from l1, or from spectral."""
    arm, base = (differences.index.get_level_values(name) for name in ("arm", "base"))
    wanted = ["spectral" if name.startswith("spectral") else "l1" for name in arm]
    return differences[[has_discriminator(a) and b == w for a, b, w in zip(arm, base, wanted, strict=True)]]


def main_findings(differences):
    """A sentence per pair of `MAIN`: what its arm does to SDR and to detail, stem by stem; with one seed, one for all.

    differences: `comparisons` of SDR and `PRIMARY_DETAIL`.
    """
    if (differences["seeds"] < 2).all():
        return ["No difference between arms has a verdict here: one seed says nothing of chance between seeds."]
    sentences, pairs = [], differences.loc["SDR"].index.droplevel("stem").unique()
    for arm, base in (pair for pair in MAIN if pair in pairs):
        said = [
            f"in {name} it {_effect(differences.loc[(metric, arm, base)], metric)}"
            for metric, name in (("SDR", "SDR"), (PRIMARY_DETAIL, "detail"))
            if (metric, arm, base) in differences.index
        ]
        sentences.append(f"{ARMS.get(arm, arm)} against {ARMS.get(base, base)}: {'; '.join(said)}.")
    return sentences


def _effect(rows, metric):
    """What one arm does to the stems: its rows of `comparisons`, a row per stem."""
    words, least = rows.drop("all").apply(verdict, axis=1, metric=metric), NEGLIGIBLE[metric]
    found = [(text, words.index[words == word]) for word, text in SAID.items()]
    return join(text.format(stems=join(stems), least=least) for text, stems in found if len(stems))


def naturalness(differences, checks=None):
    """Where each arm is nearer to the true stems than l1, or farther: DataFrame, measures × (arm, stem).

    differences: `arm_differences` with the metrics of `PERCEPTION`. A cell is empty where the interval includes zero,
    two decimals round the difference to zero, there is one seed, or the measure is of the kind that the arm is trained
    on. checks: checks.csv as a DataFrame; measures that do not pass it are left out, and saturated ones.
    """
    if differences.empty:
        return differences

    def word(row):
        metric, arm, _ = row.name
        own = arm.startswith(("spectral", "frozen")) and metric in SPECTRAL_KIND
        shown = row["seeds"] > 1 and row["low"] * row["high"] > 0 and abs(row["difference"]) >= 0.005 and not own
        return ("farther" if row["difference"] > 0 else "nearer") if shown else ""

    words = differences.apply(word, axis=1).unstack(["arm", "stem"])
    if checks is not None:
        words = words[words.index.isin(checks.loc[checks["passes"], "measure"]) & ~words.index.isin(SATURATED)]
    return words.rename(index=PERCEPTION, columns=ARMS)


def coverage():
    """Why the intervals are Student's t: what the others would cover."""
    three = stats.coverage(3)
    return (
        f"Simulated with three seeds, a percentile bootstrap over them holds the truth in {three['bootstrap']:.0%} of "
        f"experiments and Student's t in {three['t']:.0%}; the intervals here are Student's t, on these test tracks."
    )


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
