"""What the arms are worth against L1, in words: SDR and its three parts, naturalness, and the seeds it would take.

A difference counts only where its interval excludes zero; everything else is "no difference shown", which is not the
same as "no difference".
"""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain, signed
from lib.evaluation.results import ARMS, IDEAL, PERCEPTION
from lib.evaluation.stats import STEMS, bootstrap_interval, power_table, wilcoxon_holm

MEANINGS = {  # metric: what a gain means, what a loss means, and what both are about
    "SDR": ("nearer to the true stem", "farther from the true stem", "distance from the true stem"),
    "ISR": ("less sound missing or displaced", "more sound missing or displaced", "missing or displaced sound"),
    "SIR": ("less leakage", "more leakage", "leakage"),
    "SAR": ("less noise and fewer artefacts", "more noise and artefacts", "noise and artefacts"),
}


def arm_differences(tracks, metrics=("SDR",), test_set="test"):
    """Differences of every arm from L1 on `test_set`, with 95 % intervals over seeds and tracks.

    tracks: `lib.evaluation.results.arms_table`. Of high_band_ratio and auc_fresh the distance from `IDEAL` is compared,
    so that less is better. Returns a DataFrame indexed by (metric, arm, stem): difference, low, high, seeds, tracks,
    p_holm; a metric that was computed for no track is left out. Raises `UserError` without a pair of arms.
    """
    rows = tracks[tracks["test_set"] == test_set]
    rows = rows.assign(**{metric: (rows[metric] - ideal).abs() for metric, ideal in IDEAL.items()})
    base, others = rows[rows["arm"] == "l1"], rows[~rows["arm"].isin(["l1", "mixture"])]
    if base.empty or others.empty:
        raise UserError("There is no pair of arms to compare; train l1 and another arm with the same seed.")
    tables = {}
    for metric in metrics:
        for arm, other in others.groupby("arm", sort=False):
            if base[metric].notna().any() and other[metric].notna().any():
                table = bootstrap_interval(base, other, metric=metric)
                tables[metric, arm] = table.join(wilcoxon_holm(base, other, metric=metric)["p_holm"])
    return pd.concat(tables, names=["metric", "arm", "stem"]) if tables else pd.DataFrame()


def gan_helps(differences):
    """Does each arm help, stem by stem? By SDR: it helps or harms only where the interval excludes zero.

    differences: `arm_differences` with "SDR" among its metrics.
    """
    sentences = []
    for arm, table in differences.loc["SDR"].groupby("arm", sort=False):
        verdicts = []
        for stem in STEMS:
            row = table.loc[arm, stem]
            word = ("helps" if row["difference"] > 0 else "harms") if is_shown(row) else "no difference shown"
            verdicts.append(f"**{stem}: {word}** ({_interval(row)} dB)")
        sentences.append(
            f"- Does {ARMS.get(arm, arm)} help, by SDR against L1? {'; '.join(verdicts)}. {_scope(table)}."
        )
    return "\n".join(sentences)


def parts(differences):
    """What SDR, ISR, SIR and SAR did against L1, per arm and stem, a line each. differences: of all four metrics."""
    lines = []
    for arm in differences.index.unique("arm"):
        for stem in STEMS:
            shown, open_ = [], []
            for metric, (gain, loss, topic) in MEANINGS.items():
                row = differences.loc[(metric, arm, stem)]
                if is_shown(row):
                    shown.append(f"{gain if row['difference'] > 0 else loss} ({metric} {_interval(row)})")
                else:
                    open_.append(f"{topic} ({metric} {_interval(row)})")
            says = shown + ([f"no difference shown in {join(open_)}"] if open_ else [])
            lines.append(f"- **{ARMS.get(arm, arm)}, {stem}**: {'; '.join(says)}.")
    return "\n".join(lines)


def naturalness(differences):
    """In which measures of naturalness is an arm nearer to the true stems than L1? A line per arm and measure.

    differences: `arm_differences` with the metrics of `PERCEPTION`.
    """
    if differences.empty:
        return "No measure of naturalness has been computed for this run; run this notebook again."
    lines = []
    for arm in differences.index.unique("arm"):
        for metric in differences.index.unique("metric"):
            table = differences.xs((metric, arm), level=("metric", "arm"))
            groups = {"nearer": [], "farther": [], "no difference shown": []}
            for stem in ["all"] if metric == "auc_fresh" else STEMS:  # the discriminator hears all four at once
                row = table.loc[stem]
                word = ("nearer" if row["difference"] < 0 else "farther") if is_shown(row) else "no difference shown"
                groups[word].append(f"{stem} ({_interval(row)})")
            says = [f"{word}: {join(stems)}" for word, stems in groups.items() if stems]
            lines.append(f"- **{ARMS.get(arm, arm)} − L1**, {PERCEPTION[metric]}: {'; '.join(says)}.")
    return "\n".join(lines)


def power(seeds, tracks):
    """How many seeds it takes, and what the seeds of this run can show.

    seeds: `lib.evaluation.results.published_seeds`, whose spread is taken as every arm's; tracks:
    `lib.evaluation.results.arms_table`.
    """
    table = power_table(seeds[list(STEMS)])
    needed = {x: join(f"{row[x]} ({stem})" for stem, row in table.iterrows()) for x in (0.1, 0.3)}
    here = tracks.loc[tracks["arm"] == "l1", "seed"].nunique()
    enough = [x for x in table if (table[x] <= here).all()]
    able = f"enough for {enough[0]:g} dB in every stem" if enough else f"too few even for {table.columns[-1]:g} dB"
    return (
        "If seeds scatter like the five published ones, four of five experiments show a true difference of **0.1 dB** "
        f"only with {needed[0.1]} seeds per arm, and one of **0.3 dB** with {needed[0.3]}. "
        f"**This run has {here} per arm: {able}.** Arms that grow from one checkpoint may scatter less than whole "
        "trainings and then need fewer."
    )


def is_shown(row):
    """Whether the interval excludes zero, and there is anything to show in two decimals."""
    return row["low"] * row["high"] > 0 and abs(row["difference"]) >= 0.005


def _interval(row):
    return f"{signed(row['difference'])} [{plain(row['low'])}, {plain(row['high'])}]"


def _scope(table):
    """How many tracks and seeds a table of differences rests on."""
    seeds, tracks = int(table["seeds"].iloc[0]), int(table["tracks"].iloc[0])
    chance = f"{seeds} seeds" if seeds > 1 else "one seed, so the intervals know nothing of chance between seeds"
    return f"{tracks} tracks, {chance}"
