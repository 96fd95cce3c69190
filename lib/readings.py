"""What figures say, in words: sentences that are computed, so that they stay true when parameters change."""

import numpy as np
import pandas as pd

from lib.errors import UserError
from lib.instruments import SETS, verdict
from lib.results import ARMS, evaluated_sets, measured, published_seeds, published_systems, read_metrics
from lib.statistics import (
    COLUMNS,
    STEMS,
    bootstrap_interval,
    prediction_interval,
    stem_table,
    two_sided_p,
    wilcoxon_holm,
)


def _signed(value):
    return f"{value:+.2f}".replace("-", "−")


def _join(words):
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def seed_noise(seeds, gan):
    """Does the reported GAN row leave the range of one more Demucs v1 run? Arguments as `plots.seed_noise`."""
    interval, p = prediction_interval(seeds), two_sided_p(gan[list(COLUMNS)], seeds)
    outside = [c for c in COLUMNS if abs(gan[c] - interval.loc[c, "mean"]) > interval.loc[c, "half_width"]]
    nearest = p.idxmin()
    text = (
        f"**{_join(outside)}** left{'' if len(outside) > 1 else 's'} the interval."
        if outside
        else "**None of the reported differences leaves the interval of one more run of plain Demucs v1** "
        f"(smallest p = {p.min():.2f}, {nearest})."
    )
    best = seeds["bass"].idxmax()
    return (
        f"{text} Seed {best} alone reached {seeds.loc[best, 'bass']:.2f} dB on bass; the GAN's "
        f"{gan['bass']:.2f} is no more than that. This holds if the GAN's row is one run, which its text does not say."
    )


def arm_differences(tracks, test_set="test"):
    """Differences of every arm from L1 on `test_set`, in dB with 95 % intervals: one row per arm and stem."""
    rows = tracks[tracks["test_set"] == test_set]
    base, tables = rows[rows["arm"] == "l1"], []
    for arm in rows["arm"].unique():
        if arm in ("l1", "mixture") or base.empty:
            continue
        pair = base, rows[rows["arm"] == arm]
        table = bootstrap_interval(*pair).join(wilcoxon_holm(*pair)["p_holm"])
        tables.append(table.rename_axis("stem").reset_index().assign(arm=ARMS.get(arm, arm)).set_index(["arm", "stem"]))
    if not tables:
        raise UserError("There is no pair of arms to compare; train l1 and another arm with the same seed.")
    return pd.concat(tables)


def arms(tracks):
    """One sentence per arm on the test tracks: which differences from L1 exclude zero."""
    sentences = []
    for arm, table in arm_differences(tracks).groupby(level=0, sort=False):
        real = [
            f"{stem} {_signed(row['difference'])} dB"
            for (_, stem), row in table.iterrows()
            if row["low"] * row["high"] > 0
        ]
        seeds, n = int(table["seeds"].iloc[0]), int(table["tracks"].iloc[0])
        says = (
            f"the interval excludes zero for {_join(real)}"
            if real
            else "no interval excludes zero: no difference is shown"
        )
        scope = f"{seeds} seeds" if seeds > 1 else "one seed, so the intervals know nothing of chance between seeds"
        sentences.append(f"**{arm} − L1** ({n} tracks, {scope}): {says}.")
    return " ".join(sentences)


def discriminator_metrics(folder):
    """`metrics.jsonl` of an arm that has a discriminator; raises `UserError` where it has none."""
    metrics = read_metrics(folder)
    if "r_v_sigma" not in metrics:
        raise UserError(f"{folder} was trained without a discriminator; choose a GAN arm with the parameter arm.")
    return metrics


def logits(metrics):
    """What the four sets of logits say at the last evaluation."""
    last = metrics.iloc[-1]
    means = {name: _plain(last[f"{name}_mean"]) for name in SETS}
    return (
        f"At the last evaluation (step {last['step']:,.0f}) the mean logit of real stems is {means['real_train']} on "
        f"training tracks and {means['real_heldout']} on held-out ones; of generated stems {means['fake_train']} and "
        f"{means['fake_heldout']}."
    )


def diagnosis(metrics):
    """The verdict on a discriminator, with the figures that made it so."""
    word, reason = verdict(metrics.iloc[-1])
    return f"**{word[0].upper()}{word[1:]}.** {reason}"


def findings(run):
    """The answer of a run in a few sentences: seed noise, floor and arms, real excerpt, discriminator."""
    sentences = [_noise_finding()]
    tracks = pd.concat([measured(run, name) for name in evaluated_sets(run)], ignore_index=True)
    for test_set in evaluated_sets(run):
        means = _means(tracks[tracks["test_set"] == test_set])
        sentences.append(
            f"On {_set_name(test_set)}, mean SDR over the stems: "
            + ", ".join(f"{ARMS.get(arm, arm)} {_plain(value)} dB" for arm, value in means.items())
            + "."
        )
    if {"l1", "gan"} <= set(tracks["arm"]):
        sentences.append(arms(tracks).replace("**", ""))
    for folder in sorted(run.glob("*/metrics.jsonl")):
        if "~" not in folder.parent.name and "r_v_sigma" in (rows := read_metrics(folder.parent)):
            word, reason = verdict(rows.iloc[-1])
            sentences.append(f"The discriminator of {folder.parent.name} {word}: {reason[0].lower()}{reason[1:]}")
    return sentences


def _noise_finding():
    seeds, gan = published_seeds(), published_systems().loc["Demucs v1 + GAN (seed)"]
    half = prediction_interval(seeds)["half_width"]
    difference = gan[list(STEMS)].astype(float) - seeds[list(STEMS)].mean()
    inside = (difference.abs() <= half[list(STEMS)]).sum()
    return (
        "One more run of plain Demucs v1 may differ from its published mean by "
        + _join(f"±{half[stem]:.2f} dB ({stem})" for stem in STEMS)
        + f"; of the four differences that the first report of Demucs v1 + GAN gave "
        f"({', '.join(f'{stem} {_signed(difference[stem])}' for stem in STEMS)}), "
        f"{'all four' if inside == 4 else inside} lie inside."
    )


def _plain(value):
    return f"{value:.2f}".replace("-", "−")


def _set_name(test_set):
    return {
        "test": "the test tracks of this run",
        "shifted": "test tracks in styles never trained on",
        "real excerpt": "six seconds of real music",
    }.get(test_set, test_set)


def _means(rows):
    """{arm: mean over stems of the median over tracks, mean over seeds}."""
    return {
        arm: np.mean([stem_table(part)["all"] for _, part in group.groupby("seed", dropna=False)])
        for arm, group in rows.groupby("arm", sort=False)
    }
