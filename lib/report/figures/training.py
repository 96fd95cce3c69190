"""Figures of training and of the D-probe: what the losses did, and whether the discriminator memorises."""

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib.report.figures.style import COLOURS, arm_colour, arm_label, legend_below, panels

SETS = {
    "real_train": "real, training tracks",
    "real_heldout": "real, held-out tracks",
    "generated_train": "generated, training tracks",
    "generated_heldout": "generated, held-out tracks",
}
P_COLOUR = "#8A5AAB"
LOGIT_EDGES = np.linspace(-12, 12, 49)  # of the trainer's logit histograms


def learning_curves(metrics):
    """L1 loss on training and validation excerpts. metrics: {arm or arm-seed: `lib.report.tables.read_metrics`}."""
    figure, (axis,) = panels(1, 3.0, "How far has training come?")
    for arm, rows in metrics.items():
        axis.plot(rows["step"], rows["l1_heldout"], color=arm_colour(arm), label=f"{arm}, validation")
        axis.plot(rows["step"], rows["l1_batches"], color=arm_colour(arm), ls=":", label=f"{arm}, training")
    axis.set(xlabel="step", ylabel="L1 loss (mean |error|)", xlim=(0, None))
    legend_below(figure, axis, columns=6)
    return figure


def logit_curves(metrics, title="Does the discriminator tell real from generated?"):
    """Mean logit of the four sets over training with the band from the 10th to the 90th percentile.

    metrics: `lib.report.tables.read_metrics` of one GAN arm.
    """
    figure, axes = panels(2, 3.4, title, sharey=True)
    for axis, split, title in zip(axes, ("train", "heldout"), ("Training tracks", "Held-out tracks"), strict=True):
        for kind, label in (("real", "real"), ("generated", "generated")):
            name = f"{kind}_{split}"
            axis.plot(metrics["step"], metrics[f"{name}_mean"], color=COLOURS[f"{kind}_train"], label=label)
            band = metrics[f"{name}_p10"], metrics[f"{name}_p90"]
            axis.fill_between(metrics["step"], *band, color=COLOURS[f"{kind}_train"], alpha=0.15, lw=0)
        axis.axhline(0, color="#666666", lw=1)
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("logit (mean, 10–90 % band)")
    legend_below(figure, axes[0])
    return figure


def memorisation_curves(runs):
    """r_v on probabilities (0: held-out real tracks look real, 1: they look generated) and r_t of every run, and the
    augmentation probability p. runs: {<arm>-<seed>: `lib.report.tables.read_metrics`}; an arm's seeds share a
    colour."""
    contents = {
        "r_v_sigma": ("$r_v$: 0 none · 1 held-out looks generated", "$r_v$"),
        "r_t": ("$r_t$: mean sign on real training stems", "$r_t$"),
        "p": ("Joint augmentation: p", "p"),
    }
    figure, axes = _run_curves(runs, "Does the discriminator memorise its training tracks?", contents)
    axes[0].axhline(0.5, color="#666666", lw=1, ls=":", label="overfits above this")
    legend_below(figure, axes[0])
    return figure


def game_curves(runs):
    """Who pulls how hard: the adversarial share of the gradient at the estimates, the discriminator's loss and the norm
    of its gradient. runs: as `memorisation_curves`."""
    contents = {
        "adversarial_share": ("Adversarial share of the gradient", "share"),
        "discriminator": ("The discriminator's loss", "loss"),
        "discriminator_gradient": ("Norm of its gradient", "norm"),
    }
    figure, axes = _run_curves(runs, "How hard does the discriminator pull?", contents)
    legend_below(figure, axes[0])
    return figure


def _run_curves(runs, title, contents):
    """A panel for each of `contents` {figure: (title, label)}, a line for each run; nothing where it was not logged."""
    figure, axes = panels(len(contents), 3.2, title)
    for axis, (name, (panel, label)) in zip(axes, contents.items(), strict=True):
        labelled = set()
        for run, metrics in runs.items():
            arm = run.rpartition("-")[0]
            if name in metrics:
                shown = None if arm in labelled else arm_label(arm)
                axis.plot(metrics["step"], metrics[name].astype(float), color=arm_colour(arm), lw=1.2, label=shown)
                labelled.add(arm)
        axis.axhline(0, color="#666666", lw=1)
        axis.set(title=panel, xlabel="step", ylabel=label)
    return figure, axes


def probe_heatmap(table):
    """The D-probe: rows are cures, columns numbers of training segments; mean over seeds ± half their range.

    table: `lib.evaluation.probe.run`'s. r_v; r_v + r_f, the share of the distance between real and generated that is
    lost
    on held-out tracks; and the held-out detection rate of real stems. White: not run.
    """
    cures = list(dict.fromkeys(table["cure"]))
    figure, axes = panels(3, 1.4 + 0.4 * len(cures), "What does memory cost, and what cures it?")
    contents = {
        "r_v_sigma": ("$r_v$: lost by real stems", "rocket_r", 0.8),
        "memory": ("$r_v + r_f$: lost in all", "rocket_r", 0.8),
        "tpr_heldout": ("TPR on held-out tracks", "mako", 1.0),
    }
    table = table.assign(memory=table["r_v_sigma"] + table["r_f"])
    for axis, (name, (title, colours, top)) in zip(axes, contents.items(), strict=True):
        cells = table.groupby(["cure", "segments"])[name].agg(["mean", "min", "max"])
        mean = cells["mean"].unstack().loc[cures]
        spread = ((cells["max"] - cells["min"]) / 2).unstack().loc[cures]
        words = np.vectorize(lambda m, s: "" if np.isnan(m) else f"{m:.2f}\n± {s:.2f}")(mean, spread)
        sns.heatmap(
            mean, annot=words, fmt="", vmin=0, vmax=top, cmap=colours, ax=axis, cbar=False, linewidths=1,
            linecolor="white", yticklabels=axis is axes[0], annot_kws={"fontsize": 7},
        )  # fmt: skip
        axis.set(title=title, xlabel="training segments (count)", ylabel="")
        axis.grid(False)
    return figure


def probe_curves(table):
    """Without a cure: r_v, r_f and held-out rates over the number of training segments, seeds as dots."""
    figure, axes = panels(2, 3.0, "How much data does a discriminator need before it stops memorising?")
    rows = table[table["cure"] == "none"]
    contents = (
        (axes[0], {"r_v_sigma": "real_train", "r_f": "generated_train"}, "lost on held-out tracks (share)"),
        (axes[1], {"tpr_heldout": "real_heldout", "tnr_heldout": "generated_heldout"}, "recognised, held-out (share)"),
    )
    names = {
        "r_v_sigma": "real ($r_v$)",
        "r_f": "generated ($r_f$)",
        "tpr_heldout": "real (TPR)",
        "tnr_heldout": "generated (TNR)",
    }
    for axis, lines, label in contents:
        for name, colour in lines.items():
            axis.plot(rows["segments"], rows[name], "o", color=COLOURS[colour], ms=4, alpha=0.6)
            means = rows.groupby("segments")[name].mean()
            axis.plot(means.index, means, color=COLOURS[colour], label=names[name])
        axis.set(xscale="log", xlabel="training segments (count)", ylabel=label)
        axis.set_xticks(sorted(rows["segments"].unique()), sorted(rows["segments"].unique()), minor=False)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend()
    return figure


def logit_histograms(metrics, moments=4, title="How do the logits part over training?"):
    """Distribution of the logits of the four sets at `moments` evaluations spread over training.

    metrics: `lib.report.tables.read_metrics` of one GAN arm. The outermost bars hold everything beyond ±12.
    """
    chosen = np.unique(np.linspace(0, len(metrics) - 1, moments).round().astype(int))
    figure, axes = panels(len(chosen), 2.9, title, sharex=True, sharey=True)
    for axis, (_, row) in zip(axes, metrics.iloc[chosen].iterrows(), strict=True):
        for name, label in SETS.items():
            counts = np.asarray(row[f"{name}_histogram"], float)
            share = counts / max(counts.sum(), 1)
            if name.endswith("train"):
                axis.stairs(share, LOGIT_EDGES, fill=True, color=COLOURS[name], alpha=0.35, label=label)
            else:
                axis.stairs(share, LOGIT_EDGES, color=COLOURS[name], ls="--", lw=1.4, label=label)
        axis.axvline(0, color="#666666", lw=1)
        axis.set(title=f"step {row['step']:,.0f}", xlabel="logit")
    axes[0].set_ylabel("share of logits")
    legend_below(figure, axes[0])
    return figure


def heldout_curves(metrics, title="Is the discriminator right on tracks it never saw?"):
    """Loss, detection rates (with p) and ranking of the discriminator on training and on held-out tracks.

    metrics: `lib.report.tables.read_metrics` of one GAN arm. The dotted line is what guessing reaches.
    """
    figure, axes = panels(3, 3.0, title)
    rates = {"tpr": COLOURS["real_train"], "tnr": COLOURS["generated_train"]}
    contents = {
        "Cross-entropy (nats)": ({"bce": "#444444"}, np.log(2)),
        "Recognised (share)": (rates, 0.5),
        "Ranked rightly (AUC)": ({"auc": "#444444"}, 0.5),
    }
    for axis, (panel, (lines, guess)) in zip(axes, contents.items(), strict=True):
        for name, colour in lines.items():
            axis.plot(metrics["step"], metrics[f"{name}_train"], color=colour)
            axis.plot(metrics["step"], metrics[f"{name}_heldout"], color=colour, ls="--")
        axis.axhline(guess, color="#666666", lw=1, ls=":")
        axis.set(title=panel, xlabel="step")
    axes[1].plot(metrics["step"], metrics["p"], color=P_COLOUR, lw=1.2)
    key = {
        "training tracks": {"color": "#444444"},
        "held-out tracks": {"color": "#444444", "ls": "--"},
        "real (TPR)": {"color": rates["tpr"]},
        "generated (TNR)": {"color": rates["tnr"]},
        "augmentation p": {"color": P_COLOUR, "lw": 1.2},
        "guessing": {"color": "#666666", "lw": 1, "ls": ":"},
    }
    handles = [Line2D([], [], **style) for style in key.values()]
    figure.legend(handles, key, loc="outside lower center", ncols=len(key))
    return figure
