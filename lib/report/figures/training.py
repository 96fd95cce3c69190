"""Figures of training and of the D-probe: what the losses did, and whether the discriminator memorises."""

import numpy as np
import seaborn as sns
from matplotlib.ticker import NullLocator

from lib.report.figures.style import COLOURS, arm_colour, arm_label, legend_below, panels


def learning_curves(metrics):
    """L1 loss: of the whole training on batches and held-out excerpts, and of the arms alone on held-out excerpts.

    metrics: {<arm>-<seed>: `lib.evaluation.results.read_metrics`}; an arm's seeds share a colour.
    """
    figure, (whole, arms) = panels(2, 3.2, "How far did training get?")
    for name, rows in metrics.items():
        arm = name.rpartition("-")[0]
        for axis in (whole, arms)[: 1 + (arm != "pretrain")]:
            axis.plot(rows["step"], rows["l1_heldout"], color=arm_colour(name), label=arm_label(arm))
        whole.plot(rows["step"], rows["l1_batches"], color=arm_colour(name), ls=":")
    whole.set(xlabel="step", ylabel="L1 loss (mean |error|)", xlim=(0, None))
    whole.set_title("held-out tracks; dotted: training batches")
    arms.set(xlabel="step")
    arms.set_title("the arms, held-out tracks")
    handles = dict(zip(*reversed(whole.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(4, len(handles)))
    return figure


def logit_curves(runs):
    """Mean logit of real and generated stems over training, with a band from the 10th to the 90th percentile.

    runs: {<arm>-<seed>: `lib.evaluation.results.read_metrics`}, a row each; training tracks left, held-out ones right.
    """
    title = "Does the discriminator tell real from generated?"
    figure, axes = panels(2, 1.0 + 1.9 * len(runs), title, rows=len(runs), sharex=True, sharey=True)
    cells = [(run, split) for run in runs for split in ("train", "heldout")]
    for axis, (run, split) in zip(axes, cells, strict=True):
        metrics = runs[run]
        for kind in ("real", "generated"):
            mean, low, high = (metrics[f"{kind}_{split}_{statistic}"] for statistic in ("mean", "p10", "p90"))
            axis.plot(metrics["step"], mean, color=COLOURS[kind], label=kind)
            axis.fill_between(metrics["step"], low, high, color=COLOURS[kind], alpha=0.15, lw=0)
        axis.axhline(0, color="#666666", lw=1)
        axis.set_title(f"{run}, {'training' if split == 'train' else 'held-out'} tracks")
    for axis in axes[::2]:
        axis.set_ylabel("logit")
    for axis in axes[-2:]:
        axis.set_xlabel("step")
    legend_below(figure, axes[0])
    return figure


def memorisation_curves(runs):
    """r_v on probabilities and r_t of every run; an arm's seeds share a colour.

    runs: {<arm>-<seed>: `lib.evaluation.results.read_metrics`}.
    """
    contents = {
        "r_v_sigma": ("$r_v$: 0 none · 1 held-out looks generated", "$r_v$"),
        "r_t": ("$r_t$: mean sign on real training stems", "$r_t$"),
    }
    figure, axes = _run_curves(runs, "Does the discriminator memorise its training tracks?", contents)
    axes[0].axhline(0.5, color="#666666", lw=1, ls=":", label="overfits above this")
    legend_below(figure, axes[0])
    return figure


def pull_curves(runs):
    """The adversarial share of the gradient at the estimates, the discriminator's loss and the norm of its gradient.

    runs: as for `memorisation_curves`.
    """
    contents = {
        "adversarial_share": ("Adversarial share of the gradient", "share"),
        "discriminator": ("The discriminator's loss", "loss"),
        "discriminator_gradient": ("Norm of its gradient", "norm"),
    }
    figure, axes = _run_curves(runs, "How hard does the discriminator pull?", contents)
    legend_below(figure, axes[0])
    return figure


def _run_curves(runs, title, contents):
    """A panel per metric of `contents` {metric: (title, label)}, a line per run that logged it."""
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
    """Memorisation of every D-probe cell: cures × training segments, mean over seeds ± half their range.

    table: `lib.evaluation.probe.run`'s. Panels: r_v; r_v + r_f, the share of the gap between real and generated that is
    lost on held-out tracks; and the detection rate of real held-out stems. White: not run.
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
    """r_v, r_f and held-out detection rates without a cure, over the number of training segments; dots are seeds."""
    figure, axes = panels(2, 3.0, "How much data does a discriminator need before it stops memorising?")
    rows = table[table["cure"] == "none"]
    contents = {
        "lost on held-out tracks (share)": {"r_v_sigma": "real ($r_v$)", "r_f": "generated ($r_f$)"},
        "recognised, held-out (share)": {"tpr_heldout": "real (TPR)", "tnr_heldout": "generated (TNR)"},
    }
    for axis, (label, lines) in zip(axes, contents.items(), strict=True):
        for (name, line), colour in zip(lines.items(), ("real", "generated"), strict=True):
            axis.plot(rows["segments"], rows[name], "o", color=COLOURS[colour], ms=4, alpha=0.6)
            means = rows.groupby("segments")[name].mean()
            axis.plot(means.index, means, color=COLOURS[colour], label=line)
        axis.set(xscale="log", xlabel="training segments (count)", ylabel=label)
        axis.set_xticks(sorted(rows["segments"].unique()), sorted(rows["segments"].unique()), minor=False)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend()
    return figure
