"""Figures that compare the arms of a run, and the published results."""

import numpy as np

from lib.evaluation.results import HIGHER, METRICS, PRIMARY_DETAIL
from lib.evaluation.stats import COLUMNS, arm_means, prediction_interval, t_interval
from lib.report.figures.style import COLOURS, arm_colour, arm_label, legend_below, panels, stem_colours
from lib.report.sentences.arms import NEGLIGIBLE, NO_ARM, verdict

SHORT = {"SDR": "SDR", PRIMARY_DETAIL: "distance of levels"}  # on axes; of levels from 2 to 16 kHz
VERDICTS = {"helps": "#0b62a3", "harms": "#b34700", "negligible": "#444444"}  # colours; the others are grey


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


def measure_differences(differences):
    """What each arm gains over L1 in SDR and its three parts, with 95 % intervals; filled marks exclude zero.

    differences: `lib.report.sentences.arms.arm_differences` of the four metrics.
    """
    arms, stems = differences.index.unique("arm"), _stems(differences)
    figure, axes = panels(len(stems), 3.2, "Which differences from L1 are larger than chance?", sharey=True)
    for axis, stem in zip(axes, stems, strict=True):
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


def _stems(differences):
    """Names of the stems of a table of differences, without the mean "all"."""
    return [stem for stem in differences.index.unique("stem") if stem != "all"]


def forest(differences, metric="SDR"):
    """Every comparison of arms, stem by stem, with its 95 % interval, the zone that is negligible, and the verdict.

    differences: `lib.report.sentences.arms.comparisons` with `metric`, one of `NEGLIGIBLE`. Below, with hollow marks,
    stand those of one pre-training. The scale follows the differences: an arrow marks an interval that goes further.
    """
    rows, stems = differences.loc[metric].drop("all", level="stem"), _stems(differences)
    pairs, least = list(rows.index.droplevel("stem").unique()), NEGLIGIBLE[metric]
    alone = {pair: (rows.loc[pair, "seeds"] < 2).all() for pair in pairs}
    pairs.sort(key=alone.get)
    title = "Which arm is better than which?" if metric == "SDR" else "Which arm has the truer detail?"
    figure, axes = panels(len(stems), 1.5 + 0.27 * len(pairs), title, sharex=True, sharey=True)
    largest, widest = rows["difference"].abs().max(), rows[["low", "high"]].abs().max().max()
    reach = max(3 * least, 1.2 * largest, min(widest, 5 * least))
    for axis, stem in zip(axes, stems, strict=True):
        axis.axvspan(-least, least, color="#DDDDDD", lw=0, zorder=0)
        axis.axvline(0, color="#666666", lw=1)
        for y, (arm, base) in enumerate(pairs):
            row, colour = rows.loc[(arm, base, stem)], arm_colour(arm)
            axis.hlines(y, row["low"], row["high"], color=colour, lw=2.2)
            for mark, edge, beyond in (("<", -reach, row["low"] < -reach), (">", reach, row["high"] > reach)):
                if beyond:
                    axis.plot(edge, y, mark, color=colour, ms=5, clip_on=False)
            axis.plot(row["difference"], y, "o", color=colour, ms=5, mfc="white" if alone[arm, base] else colour)
            word = verdict(row, metric)
            axis.text(
                1.02, y, word, transform=axis.get_yaxis_transform(), va="center", fontsize=7.5,
                color=VERDICTS.get(word, "#999999"), fontweight="bold" if word in ("helps", "harms") else None,
            )  # fmt: skip
        axis.set(title=stem.capitalize(), xlim=(-reach, reach), ylim=(len(pairs) - 0.4, -0.6))
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
    names = [[arm_label(name) for name in pair if name != "l1"] for pair in pairs]
    axes[0].set_yticks(range(len(pairs)), ["\n− ".join(name) for name in names], fontsize=7)
    better = "better →" if metric in HIGHER else "← better"
    text = f"difference in {SHORT[metric]} (dB, {better}), from L1 where no other is named; grey: within {least:g} dB"
    figure.supxlabel(text + "; hollow: one pre-training" * any(alone.values()), fontsize="medium")
    return figure


def dose_response(dose):
    """SDR and detail by the discriminator's share of the gradient: seeds as dots, their mean and its 95 % band.

    dose: `lib.report.tables.dose_table`. Coloured lines are the means of single stems.
    """
    shares = sorted(dose["share"].unique())
    colours = stem_colours([stem for stem in dose["stem"].unique() if stem != "all"])
    figure, axes = panels(2, 3.6, "How much discriminator is good?")
    for axis, metric in zip(axes, ("SDR", PRIMARY_DETAIL), strict=True):
        for stem, colour in colours.items():
            means = dose[dose["stem"] == stem].groupby("share")[metric].mean()
            axis.plot(range(len(shares)), means[shares], color=colour, lw=1, alpha=0.8, label=stem)
        rows = dose[dose["stem"] == "all"].groupby("share")[metric]
        mean, low, high = np.transpose([t_interval(rows.get_group(share).to_numpy())[:3] for share in shares])
        bottom, top = axis.get_ylim()  # of the stems: a band from two seeds may be wider than the panel
        axis.fill_between(
            range(len(shares)), low, high, color=COLOURS["all"], alpha=0.15, lw=0, label="95 % of the mean"
        )
        axis.plot(range(len(shares)), mean, color=COLOURS["all"], lw=2.4, label="mean of the stems")
        for x, share in enumerate(shares):
            seeds = rows.get_group(share)
            axis.plot(x + np.linspace(-0.08, 0.08, len(seeds)), seeds, "o", color=COLOURS["all"], ms=4)
        axis.set(ylim=(bottom, top), ylabel=f"{SHORT[metric]} (dB, {'better →' if metric in HIGHER else '← better'})")
        axis.set_xticks(range(len(shares)), ["0 (L1)" if share == 0 else f"{100 * share:g} %" for share in shares])
        axis.set_xlabel("share of the gradient (%)")
    legend_below(figure, axes[0], columns=6)
    return figure


def perception_distortion(tracks):
    """SDR (distortion) against the primary measure of detail (perception), of the mean over stems.

    Left: every seed a small dot; their mean a large one where the arm has every seed of l1. Right, nearer: differences
    from l1, paired by seed, with 95 % intervals. tracks: rows of `lib.evaluation.results.arms_table` of one test set.
    Source: Blau & Michaeli, "The perception-distortion tradeoff" (CVPR 2018).
    """
    metrics = ["SDR", PRIMARY_DETAIL]
    figure, (left, right) = panels(2, 4.6, "Is natural detail paid for with SDR?")
    means = arm_means(tracks, metrics)
    seeds = means.groupby("arm").size()
    for arm, points in means.groupby("arm", sort=False):
        whole = arm == "mixture" or len(points) >= seeds.get("l1", 1)
        left.scatter(points["SDR"], points[PRIMARY_DETAIL], s=14, color=arm_colour(arm), alpha=0.7)
        shown = points.mean() if whole else (np.nan, np.nan)
        left.scatter(*shown, s=90, color=arm_colour(arm), edgecolor="white", zorder=3, label=arm_label(arm))
    left.set(xlabel="SDR (dB, better →)", ylabel=f"{SHORT[PRIMARY_DETAIL]} (dB, ← better)")
    right.axhline(0, color="#666666", lw=1)
    right.axvline(0, color="#666666", lw=1)
    for arm in means.index.unique("arm"):
        if arm in (*NO_ARM, "l1") or "l1" not in means.index.unique("arm"):
            continue
        gains = (means.loc[arm] - means.loc["l1"]).dropna()
        (x, y), low, high, _ = t_interval(gains.to_numpy().T)
        right.hlines(y, low[0], high[0], color=arm_colour(arm), lw=1.6)
        right.vlines(x, low[1], high[1], color=arm_colour(arm), lw=1.6)
        right.scatter(x, y, s=60, color=arm_colour(arm), edgecolor="white", zorder=3)
        if max(abs(x), abs(y)) > 0.1:  # names around the crossing would lie on each other
            right.annotate(arm, (x, y), (4, 4), textcoords="offset points", fontsize=7, color=arm_colour(arm))
    for axis in (left, right):
        axis.margins(0.14)
    right.set(
        xlabel="SDR − that of L1 (dB, better →)",
        ylabel=f"{SHORT[PRIMARY_DETAIL]} − that of L1 (dB, ← better)",
    )
    legend_below(figure, left, columns=3)
    return figure
