"""Figures that compare the arms of a run, and the published results."""

import numpy as np

from lib.evaluation.results import METRICS
from lib.evaluation.stats import COLUMNS, STEMS, arm_means, prediction_interval
from lib.report.figures.style import COLOURS, arm_colour, arm_label, legend_below, panels


def seed_noise(seeds, gan):
    """The reported GAN against the prediction interval of one more Demucs v1 run.

    seeds: `lib.evaluation.results.published_seeds`; gan: Series of the reported row (dB per column).
    """
    interval = prediction_interval(seeds)
    figure, (axis,) = panels(1, 3.4, "Does the reported GAN leave the range of one more Demucs v1 run?")
    for x, column in enumerate(COLUMNS):
        mean, half_width = interval.loc[column, ["mean", "half_width"]]
        axis.bar(x, 2 * half_width, 0.5, bottom=-half_width, color=COLOURS[column], alpha=0.18)
        spread = x + np.linspace(-0.12, 0.12, len(seeds))
        axis.plot(spread, seeds[column] - mean, "o", color=COLOURS[column], ms=5)
        axis.plot(x, gan[column] - mean, "D", color=COLOURS["gan"], mec="white", ms=9)
    axis.axhline(0, color="#666666", lw=1)
    axis.set_xticks(range(len(COLUMNS)), [f"{c.capitalize()}\n{interval.loc[c, 'mean']:.2f} dB" for c in COLUMNS])
    reach = 1.15 * max(interval["half_width"].max(), (gan[list(COLUMNS)] - interval["mean"]).abs().max())
    axis.set(ylabel="SDR − mean of the seeds (dB)", ylim=(-reach, reach))
    axis.grid(axis="x", visible=False)
    labels = ["95 % prediction interval of one more run"]
    labels += [f"Demucs v1, seeds {seeds.index[0]}–{seeds.index[-1]}", "Demucs v1 + GAN, as reported"]
    handles = [axis.containers[0], *axis.lines[:2]]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def sdr_strip(tracks):
    """SDR of every test track under every arm, averaged over seeds; lines join a track's points, bars are medians.

    tracks: rows of `lib.evaluation.results.arms_table`.
    """
    arms = list(tracks["arm"].unique())
    figure, axes = panels(len(STEMS), 3.2, "Which tracks gain or lose SDR, and in which stem?", sharey=True)
    for axis, stem in zip(axes, STEMS, strict=True):
        rows = tracks[tracks["target"] == stem]
        grid = rows.pivot_table(index="track", columns="arm", values="SDR")[arms]
        axis.plot(range(len(arms)), grid.T, color="#BBBBBB", lw=0.8, zorder=1)
        for x, arm in enumerate(arms):
            colour = arm_colour(arm)
            axis.scatter(np.full(len(grid), x), grid[arm], color=colour, s=16, zorder=2)
            axis.hlines(grid[arm].median(), x - 0.3, x + 0.3, color=colour, lw=3, zorder=3)
        slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(arms) > 3 else {}
        axis.set_xticks(range(len(arms)), map(arm_label, arms), **slant)
        axis.set(title=stem.capitalize(), xlim=(-0.5, len(arms) - 0.5))
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("SDR per track (dB)")
    return figure


def measure_differences(differences):
    """What each arm gains over L1 in SDR and its three parts, with 95 % intervals; filled marks exclude zero.

    differences: `lib.report.sentences.arms.arm_differences` of the four metrics.
    """
    arms = differences.index.unique("arm")
    figure, axes = panels(len(STEMS), 3.2, "Which differences from L1 are larger than chance?", sharey=True)
    for axis, stem in zip(axes, STEMS, strict=True):
        for number, arm in enumerate(arms):
            table = differences.xs((arm, stem), level=("arm", "stem")).loc[list(METRICS)]
            x = np.arange(len(METRICS)) + (number - (len(arms) - 1) / 2) * 0.24
            colour = arm_colour(arm)
            axis.vlines(x, table["low"], table["high"], color=colour, lw=2.2)
            shown = table["low"] * table["high"] > 0
            axis.scatter(
                x, table["difference"], s=34, color=np.where(shown, colour, "white"), edgecolor=colour, lw=1.6,
                zorder=3,
            )  # fmt: skip
            axis.plot([], [], "o-", color=colour, label=arm_label(arm))
        axis.axhline(0, color="#666666", lw=1)
        axis.set_xticks(range(len(METRICS)), METRICS)
        axis.set(title=stem.capitalize(), xlim=(-0.5, len(METRICS) - 0.5))
        axis.grid(axis="x", visible=False)
    axes[0].set_ylabel("difference from L1 (dB), 95 %")
    axes[-1].plot([], [], "o", color="white", mec="#333333", label="interval holds zero")
    legend_below(figure, axes[-1])
    return figure


def perception_distortion(tracks):
    """SDR (distortion) against spectral distance (perception); small dots are seeds, large ones their mean.

    tracks: rows of `lib.evaluation.results.arms_table` of one test set.
    Source: Blau & Michaeli, "The perception-distortion tradeoff" (CVPR 2018).
    """
    figure, (axis,) = panels(1, 3.8, "Is natural detail paid for with SDR?")
    for arm, points in arm_means(tracks, ["SDR", "lsd_8k_16k"]).groupby("arm", sort=False):
        axis.scatter(points["SDR"], points["lsd_8k_16k"], s=14, color=arm_colour(arm), alpha=0.7)
        axis.scatter(*points.mean(), s=90, color=arm_colour(arm), edgecolor="white", zorder=3, label=arm_label(arm))
    axis.margins(0.14)
    axis.set(xlabel="SDR (dB, better →)", ylabel="spectral distance, 8–16 kHz (dB, ← better)")
    legend_below(figure, axis)
    return figure
