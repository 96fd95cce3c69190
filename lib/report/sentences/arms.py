"""What the arms are worth against L1: SDR and its three parts, naturalness, and the seeds that a difference takes.

A difference counts only where its interval excludes zero; everything else is "no difference shown", which is not the
same as "no difference".
"""

import pandas as pd

from lib.common.errors import UserError
from lib.common.words import join, plain, signed
from lib.evaluation import results, stats
from lib.evaluation.results import ARMS, IDEAL, PERCEPTION
from lib.evaluation.stats import COLUMNS, STEMS
from lib.report.tables import GAN

MEANINGS = {  # metric: the meaning of a gain and of a loss, and the topic of both
    "SDR": ("nearer to the true stem", "farther from the true stem", "distance from the true stem"),
    "ISR": ("less sound missing or displaced", "more sound missing or displaced", "missing or displaced sound"),
    "SIR": ("less leakage", "more leakage", "leakage"),
    "SAR": ("less noise and fewer artefacts", "more noise and artefacts", "noise and artefacts"),
}
NOT_SHOWN = "no difference shown"


def published_differences():
    """The reported GAN against the interval of one more Demucs v1 run.

    Returns a DataFrame indexed by drums … all: gan, mean, difference and half_width (dB), and whether it is inside.
    """
    interval = stats.prediction_interval(results.published_seeds())
    gan = results.published_systems().loc[GAN, list(COLUMNS)].astype(float)
    difference = gan - interval["mean"]
    return interval.assign(gan=gan, difference=difference, inside=difference.abs() <= interval["half_width"])


def seed_noise():
    """Whether the reported GAN leaves the interval of one more Demucs v1 run."""
    seeds, table = results.published_seeds(), published_differences()
    p, outside = stats.two_sided_p(table["gan"], seeds), table.index[~table["inside"]]
    text = (
        f"**{join(outside)}** left{'' if len(outside) > 1 else 's'} the interval."
        if len(outside)
        else "**None of the reported differences leaves the interval of one more run of plain Demucs v1** "
        f"(smallest p = {p.min():.2f}, {p.idxmin()})."
    )
    best, gan = seeds["bass"].idxmax(), table.loc["bass", "gan"]
    return (
        f"{text} Seed {best} alone reached {seeds.loc[best, 'bass']:.2f} dB on bass; the GAN's {gan:.2f} is no more "
        "than that. This holds if the GAN's row is one run, which its text does not say."
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
    """Whether each arm helps, harms or shows no difference by SDR, stem by stem: a line per arm.

    differences: `arm_differences` with "SDR" among its metrics.
    """
    sentences = []
    for arm, table in differences.loc["SDR"].groupby("arm", sort=False):
        rows = table.loc[arm].loc[list(STEMS)]
        verdicts = [
            f"**{stem}: {effect(row, ('helps', 'harms', NOT_SHOWN))}** ({_interval(row)} dB)"
            for stem, row in rows.iterrows()
        ]
        sentences.append(
            f"- Does {ARMS.get(arm, arm)} help, by SDR against L1? {'; '.join(verdicts)}. {_scope(table)}."
        )
    return "\n".join(sentences)


def parts(differences):
    """What SDR, ISR, SIR and SAR did against L1: a line per arm and stem. differences: of all four metrics."""
    lines = []
    for arm in differences.index.unique("arm"):
        for stem in STEMS:
            shown, not_shown = [], []
            for metric, words in MEANINGS.items():
                row = differences.loc[(metric, arm, stem)]
                word = effect(row, words)
                (not_shown if word == words[-1] else shown).append(f"{word} ({metric} {_interval(row)})")
            says = shown + ([f"{NOT_SHOWN} in {join(not_shown)}"] if not_shown else [])
            lines.append(f"- **{ARMS.get(arm, arm)}, {stem}**: {'; '.join(says)}.")
    return "\n".join(lines)


def naturalness(differences):
    """Whether an arm is nearer to the true stems than L1: a line per arm and measure.

    differences: `arm_differences` with the metrics of `PERCEPTION`.
    """
    if differences.empty:
        return "No measure of naturalness has been computed for this run; run this notebook again."
    lines = []
    for arm in differences.index.unique("arm"):
        for metric in differences.index.unique("metric"):
            table = differences.xs((metric, arm), level=("metric", "arm"))
            groups = {"nearer": [], "farther": [], NOT_SHOWN: []}
            for stem in ["all"] if metric == "auc_fresh" else STEMS:  # the discriminator hears all four at once
                row = table.loc[stem]
                groups[effect(row, ("farther", "nearer", NOT_SHOWN))].append(f"{stem} ({_interval(row)})")
            says = [f"{word}: {join(stems)}" for word, stems in groups.items() if stems]
            lines.append(f"- **{ARMS.get(arm, arm)} − L1**, {PERCEPTION[metric]}: {'; '.join(says)}.")
    return "\n".join(lines)


def power(seeds, tracks):
    """How many seeds a difference takes, and which difference the seeds of this run can show.

    seeds: `lib.evaluation.results.published_seeds`, whose spread is taken as every arm's; tracks:
    `lib.evaluation.results.arms_table`.
    """
    table = stats.power_table(seeds[list(STEMS)])
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


def _interval(row):
    return f"{signed(row['difference'])} [{plain(row['low'])}, {plain(row['high'])}]"


def _scope(table):
    """The numbers of tracks and seeds behind a table of differences."""
    seeds, tracks = int(table["seeds"].iloc[0]), int(table["tracks"].iloc[0])
    chance = f"{seeds} seeds" if seeds > 1 else "one seed, so the intervals know nothing of chance between seeds"
    return f"{tracks} tracks, {chance}"
