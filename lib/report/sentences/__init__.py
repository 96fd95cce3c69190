"""What figures say, in words: sentences that are computed, so that they stay true when parameters change.

Those that compare the arms are in `lib.report.sentences.arms`, those of discriminators in
`lib.report.sentences.discriminator`; all are reached through here.
"""

from lib.common.words import join, plain, signed
from lib.evaluation.probe import read_probe
from lib.evaluation.results import ARMS, arms_table, published_seeds, published_systems
from lib.evaluation.stats import COLUMNS, STEMS, arm_means, prediction_interval, two_sided_p
from lib.report.sentences.arms import PERCEPTION, arm_differences, gan_helps, naturalness, parts, power
from lib.report.sentences.discriminator import (
    diagnoses,
    discriminator_metrics,
    gan_runs,
    logits,
    outcomes,
    probe,
    verdicts,
)

__all__ = [
    "PERCEPTION", "arm_differences", "diagnoses", "discriminator_metrics", "findings", "gan_helps", "gan_runs",
    "logits", "naturalness", "outcomes", "parts", "power", "probe", "scores", "seed_noise", "verdicts",
]  # fmt: skip


def seed_noise(seeds, gan):
    """Does the reported GAN row leave the range of one more Demucs v1 run? Arguments as `plots.seed_noise`."""
    interval, p = prediction_interval(seeds), two_sided_p(gan[list(COLUMNS)], seeds)
    outside = [c for c in COLUMNS if abs(gan[c] - interval.loc[c, "mean"]) > interval.loc[c, "half_width"]]
    nearest = p.idxmin()
    text = (
        f"**{join(outside)}** left{'' if len(outside) > 1 else 's'} the interval."
        if outside
        else "**None of the reported differences leaves the interval of one more run of plain Demucs v1** "
        f"(smallest p = {p.min():.2f}, {nearest})."
    )
    best = seeds["bass"].idxmax()
    return (
        f"{text} Seed {best} alone reached {seeds.loc[best, 'bass']:.2f} dB on bass; the GAN's "
        f"{gan['bass']:.2f} is no more than that. This holds if the GAN's row is one run, which its text does not say."
    )


def findings(run):
    """The answer of a run in a few sentences: `scores`, the verdicts on its discriminators, the D-probe."""
    sentences = scores(run)
    if set(arms_table(run)["arm"]) - {"l1", "mixture"}:
        lines = diagnoses(verdicts(gan_runs(run))).splitlines()
        sentences += ["The discriminator of " + line.removeprefix("- ").replace("**", "") for line in lines]
    if (cells := read_probe(run)) is not None:
        sentences.append("A discriminator alone: " + probe(cells).replace("**", ""))
    return sentences


def scores(run):
    """What the test tracks say: seed noise, floor and arms on every test set, and whether an arm helps, per stem."""
    sentences = [_noise_finding()]
    tracks = arms_table(run)
    for test_set, rows in tracks.groupby("test_set", sort=False):
        means = arm_means(rows)["SDR"].groupby("arm", sort=False).mean()
        sentences.append(
            f"On {_set_name(test_set)}, mean SDR over the stems: "
            + ", ".join(f"{ARMS.get(arm, arm)} {plain(value)} dB" for arm, value in means.items())
            + "."
        )
    if "l1" in (trained := set(tracks["arm"])) and trained - {"l1", "mixture"}:
        lines = gan_helps(arm_differences(tracks)).splitlines()
        sentences += [line.removeprefix("- ").replace("**", "") for line in lines]
    return sentences


def _noise_finding():
    seeds, gan = published_seeds(), published_systems().loc["Demucs v1 + GAN (first report)"]
    half = prediction_interval(seeds)["half_width"]
    difference = gan[list(STEMS)].astype(float) - seeds[list(STEMS)].mean()
    inside = (difference.abs() <= half[list(STEMS)]).sum()
    return (
        "One more run of plain Demucs v1 may differ from its published mean by "
        + join(f"±{half[stem]:.2f} dB ({stem})" for stem in STEMS)
        + f"; of the four differences that the first report of Demucs v1 + GAN gave "
        f"({', '.join(f'{stem} {signed(difference[stem])}' for stem in STEMS)}), "
        f"{'all four' if inside == 4 else inside} lie inside."
    )


def _set_name(test_set):
    return {
        "test": "the test tracks of this run",
        "shifted": "test tracks in styles never trained on",
        "real excerpt": "six seconds of real music",
    }.get(test_set, test_set)
