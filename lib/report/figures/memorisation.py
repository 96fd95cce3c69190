"""Figures of the study of memorisation, from the tables of `lib.studies.tables`."""

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from lib.memorisation import ALLOWED
from lib.report.figures.style import COLOURS, legend_below, panels

RUN = ["tracks", "minutes", "remix", "width", "seed", "mode"]  # what tells trainings apart
MODES = {
    "play": "playing: the generator learns from it",
    "watch": "watching: the generator has L1 alone",
    "rest": "the generator is at rest",
}
KNOWN_SDR = {5.6: "Demucs v1", 10.0: "10 dB"}
SHOWN = {"bce_train": ("training tracks", COLOURS["real"]), "bce_heldout": ("held-out tracks", COLOURS["generated"])}


def classical_pair(table, onsets, by="seed", **which):
    """Cross-entropy of the discriminator on training and on held-out tracks over passes, a panel per seed or cure.

    table, onsets: memorisation.csv and onsets.csv, or of `lib.studies.pair.run`; by: "seed" or "cure"; which: values of
    `RUN` that choose the trainings, such as tracks=2. A line marks the onset; each point is the median of three
    evaluations.
    """
    rows = _chosen(table, {"mode": "play", "remix": False} | which)
    kinds = rows[by].drop_duplicates().tolist()
    title = "Does the discriminator know its training tracks better?"
    figure, axes = panels(len(kinds), 3.2, title, sharex=True, sharey=True)
    for axis, kind in zip(axes, kinds, strict=True):
        own = rows[rows[by] == kind]
        _pair(axis, own)
        _mark(axis, _onset_of(own, onsets[onsets[by] == kind]))
        axis.set(title=f"seed {kind}" if by == "seed" else "no cure" if kind == "none" else kind)
        axis.set(xlabel="passes over the training tracks")
    axes[0].set_ylabel("cross-entropy")
    legend_below(figure, axes[0])
    return figure


def law(onsets, fits):
    """Passes until memorisation over the number of tracks; trainings without it as arrows, and the censored fit.

    onsets, fits: onsets.csv and law.csv. Only trainings that play, of the narrowest width; with remix in outline.
    """
    rows = _chosen(onsets, {"mode": "play"})
    rows = rows[rows["width"] == rows["width"].min()].copy()
    figure, (axis,) = panels(1, 3.6, "After how many passes does the discriminator memorise?")
    place = {seed: 1 + 0.05 * (k - 1) for k, seed in enumerate(sorted(rows["seed"].unique()))}
    rows["x"] = rows["tracks"] * rows["seed"].map(place)
    lengths = sorted((rows["minutes"] / rows["tracks"]).round(2).unique())
    for remix, filled in ((False, True), (True, False)):
        for length, marker in zip(lengths, "os", strict=False):
            own = rows[(rows["remix"] == remix) & ((rows["minutes"] / rows["tracks"]).round(2) == length)]
            if own.empty:
                continue
            colour = COLOURS["gan"] if filled else COLOURS["gan-cures"]
            face = colour if filled else "none"
            label = f"{'remix, ' if remix else ''}{round(6 * length) * 10} s of each track"
            axis.scatter(
                own["x"], own["onset_passes"], marker=marker, color=colour, facecolor=face, label=label, zorder=3
            )
            axis.scatter(own["x"], own["censored_passes"], marker=r"$\uparrow$", s=90, color=colour, zorder=3)
    by = fits.set_index("by")
    if "b" in by and pd.notna(by.loc["tracks", "b"]):
        fit, x = by.loc["tracks"], np.geomspace(rows["tracks"].min(), rows["tracks"].max())
        label = f"passes ∝ tracks^{fit['b']:.2f} ({fit['b_low']:.2f} to {fit['b_high']:.2f})"
        axis.plot(x, np.exp(fit["a"] + fit["b"] * np.log(x)), color="#666666", lw=1.2, label=label.replace("-", "−"))
    ticks = sorted(rows["tracks"].unique())
    axis.set(xscale="log", yscale="log", xlabel="training tracks", ylabel="passes (arrow: not until then)")
    axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    passes = [10, 20, 50, 100, 200, 500]
    axis.set_yticks(passes, [str(number) for number in passes], minor=False)
    for one in (axis.xaxis, axis.yaxis):
        one.set_minor_locator(NullLocator())
    legend_below(figure, axis)
    return figure


def game(table, onsets, **which):
    """Cross-entropy on training and held-out tracks of the three modes, all seeds, on the same tracks."""
    rows = _chosen(table, {"tracks": 2, "remix": False} | which)
    rows = rows[(rows["width"] == rows["width"].min()) & (rows["minutes"] == rows["minutes"].min())]
    modes = [mode for mode in MODES if mode in set(rows["mode"])]
    figure, axes = panels(len(modes), 3.2, "Is it the game that makes it memorise?", sharex=True, sharey=True)
    for axis, mode in zip(axes, modes, strict=True):
        for seed, own in rows[rows["mode"] == mode].groupby("seed"):
            _pair(axis, own, first=seed == rows["seed"].min(), lw=1.1)
            _mark(axis, _onset_of(own, onsets), first=seed == rows["seed"].min())
        axis.set(title=MODES[mode], xlabel="passes")
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("cross-entropy")
    legend_below(figure, axes[0])
    return figure


def cures(table):
    """What each cure leaves, the best above: a dot per training, filled on fresh pairs of tracks.

    table: cures.csv. Dotted lines: what a claimed cure may leave.
    """
    rows = table.dropna(subset=["auc_heldout"]).copy()
    rows["gap"] = rows["bce_heldout"] - rows["bce_train"]
    rows["memory"] = rows["membership_auc"] - rows["membership_null"].fillna(0.5)
    order = rows.groupby("cure")["score"].mean().sort_values(ascending=False).index.tolist()
    contents = {
        "gap": ("BCE, held-out less training", ALLOWED["gap"]),
        "memory": ("membership AUC above its null", ALLOWED["memory"]),
        "auc_heldout": ("held-out AUC", None),
    }
    figure, axes = panels(3, 1.2 + 0.26 * len(order), "Which cure leaves the least memory?", sharey=True)
    for axis, (column, (label, allowed)) in zip(axes, contents.items(), strict=True):
        for plan, face in (("cures", "none"), ("confirm", COLOURS["gan"])):
            own = rows[rows["plan"] == plan]
            words = {"cures": "the pair that cures were chosen on", "confirm": "fresh pairs of tracks"}[plan]
            places = [order.index(cure) for cure in own["cure"]]
            axis.scatter(own[column], places, edgecolor=COLOURS["gan"], facecolor=face, s=28, label=words, zorder=3)
        if allowed is not None:
            axis.axvline(allowed, color="#666666", lw=1, ls=":")
        axis.set(xlabel=label)
    axes[0].set_yticks(range(len(order)), order)
    legend_below(figure, axes[0])
    return figure


def regimes(table):
    """Memory of a discriminator alone, by its segments and by the SDR of the estimates that it faces.

    table: regimes.csv. Left: all cells after as many steps; right: after as many passes. The narrower width.
    """
    rows = table[table["width"] == table["width"].min()].assign(gap=table["bce_heldout"] - table["bce_train"])
    ends = rows.groupby(["segments", "error", "seed"])[["step", "passes"]].max()
    figure, axes = panels(2, 4.0, "When does a discriminator alone memorise?", sharex=True, sharey=True)
    for axis, (column, word) in zip(axes, {"step": "steps", "passes": "passes"}.items(), strict=True):
        last = ends[column].min()
        near = rows[rows[column] <= last].groupby(["segments", "error", "seed"]).last()
        cells = near.groupby(["segments", "error"])[["gap", "sdr"]].mean().reset_index()
        options = {"c": cells["gap"], "cmap": "rocket_r", "vmin": 0, "vmax": 1.5, "marker": "s", "s": 700}
        axis.scatter(cells["segments"], cells["sdr"], edgecolor="white", **options)
        for segments, sdr, gap in cells[["segments", "sdr", "gap"]].itertuples(index=False):
            axis.annotate(f"{gap:.1f}", (segments, sdr), ha="center", va="center", color="white" if gap > 0.7 else "k")
        for sdr, label in ((cells["sdr"].min(), "this generator"), *KNOWN_SDR.items()):
            axis.axhline(sdr, color="#666666", lw=1, ls=":", zorder=0)
            axis.text(0.99, sdr, label, fontsize=7, va="bottom", ha="right", transform=axis.get_yaxis_transform())
        axis.margins(y=0.15)
        ticks = sorted(cells["segments"])
        axis.set(
            title=f"BCE gap after {last:.0f} {word}", xscale="log", xlabel="training segments (count)", xlim=(4, 5000)
        )
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("SDR of the estimates (dB)")
    return figure


def cue_bars(table):
    """The share of the real–generated gap that goes with each cue, naive and cured, before and after onset.

    table: cues.csv. Bars are medians over trainings, dots the trainings.
    """
    who = np.where(table["cure"] == "none", "naive", "cured")
    when = np.where(table["state"] == "after onset", "after onset", "before or without onset")
    rows = table.assign(kind=pd.Series(who, table.index) + ", " + when)
    kinds, names = sorted(set(rows["kind"]), reverse=True), list(dict.fromkeys(rows["cue"]))
    figure, (axis,) = panels(1, 1.5 + 0.3 * len(names), "What does the discriminator look at?")
    height = 0.8 / len(kinds)
    for k, kind in enumerate(kinds):
        arm, pale = "gan" if kind.startswith("naive") else "gan-cures", kind.endswith("without onset")
        own = rows[rows["kind"] == kind]
        places = np.array([names.index(cue) for cue in own["cue"]]) + height * (k - (len(kinds) - 1) / 2)
        medians = own.groupby("cue")["share"].median().reindex(names)
        middle = np.arange(len(names)) + height * (k - (len(kinds) - 1) / 2)
        axis.barh(middle, medians, height, color=COLOURS[arm], alpha=0.45 if pale else 1.0, lw=0, label=kind)
        axis.scatter(own["share"], places, color="#333333", s=6, lw=0, zorder=3)
    axis.axvline(0, color="#666666", lw=1)
    axis.set(xlabel="share of the gap that is lost", xlim=(-0.6, 2.2))
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    legend_below(figure, axis)
    return figure


def _chosen(table, which):
    for name, value in which.items():
        table = table[table[name] == value]
    return table


def _pair(axis, rows, first=True, lw=1.6):
    for column, (label, colour) in SHOWN.items():
        smooth = rows[column].rolling(3, center=True, min_periods=1).median()
        axis.plot(rows["passes"], smooth, color=colour, lw=lw, label=label if first else None)


def _onset_of(rows, onsets):
    """The onset of the training that `rows` are of, in passes; NaN if it has none."""
    found = onsets.merge(rows[RUN].drop_duplicates(), on=RUN)
    return found["onset_passes"].iloc[0] if len(found) else np.nan


def _mark(axis, passes, first=True):
    if pd.notna(passes):
        axis.axvline(passes, color="#444444", lw=1, ls="--", label="onset" if first else None)
