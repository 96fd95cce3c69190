"""Figures of training: what the losses did, and whether the discriminator memorises."""

import numpy as np
from matplotlib.lines import Line2D

from lib.style import COLOURS, arm_colour, legend_below, panels

SETS = {
    "real_train": "real, training tracks",
    "real_heldout": "real, held-out tracks",
    "fake_train": "generated, training tracks",
    "fake_heldout": "generated, held-out tracks",
}
LOGIT_EDGES = np.linspace(-12, 12, 49)  # of the trainer's logit histograms


def learning_curves(metrics):
    """L1 loss on training and validation excerpts. metrics: {arm or arm-seed: `lib.report.read_metrics`}."""
    figure, (axis,) = panels(1, 3.0, "How far has training come?")
    for arm, rows in metrics.items():
        axis.plot(rows["step"], rows["l1_valid"], color=arm_colour(arm), label=f"{arm}, validation")
        axis.plot(rows["step"], rows["l1_train"], color=arm_colour(arm), ls=":", label=f"{arm}, training")
    axis.set(xlabel="step", ylabel="L1 loss (mean |error|)", xlim=(0, None))
    legend_below(figure, axis, columns=6)
    return figure


def logit_curves(metrics):
    """Mean logit of the four sets over training with the band from the 10th to the 90th percentile.

    metrics: `lib.report.read_metrics` of one GAN arm.
    """
    figure, axes = panels(2, 3.4, "Does the discriminator tell real from generated?", sharey=True)
    for axis, split, title in zip(axes, ("train", "heldout"), ("Training tracks", "Held-out tracks"), strict=True):
        for kind, label in (("real", "real"), ("fake", "generated")):
            name = f"{kind}_{split}"
            axis.plot(metrics["step"], metrics[f"{name}_mean"], color=COLOURS[f"{kind}_train"], label=label)
            band = metrics[f"{name}_p10"], metrics[f"{name}_p90"]
            axis.fill_between(metrics["step"], *band, color=COLOURS[f"{kind}_train"], alpha=0.15, lw=0)
        axis.axhline(0, color="#666666", lw=1)
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("logit (mean, 10–90 % band)")
    legend_below(figure, axes[0])
    return figure


def memorisation_curves(metrics):
    """r_v on probabilities and on raw logits (0: held-out real tracks look real, 1: they look generated),
    r_t, r_f and the augmentation probability p. metrics: `lib.report.read_metrics` of one GAN arm."""
    figure, axes = panels(2, 3.4, "Does the discriminator memorise its training tracks?")
    gan = COLOURS["gan"]
    axes[0].axhspan(0.3, 0.5, color=gan, alpha=0.12, lw=0, label="target of adaptive p")
    axes[0].plot(metrics["step"], metrics["r_v_sigma"], color=gan, label="$r_v$, probabilities")
    axes[0].plot(metrics["step"], metrics["r_v_logit"], color=gan, ls="--", lw=1.2, label="$r_v$, raw logits")
    axes[1].plot(metrics["step"], metrics["r_t"], color=COLOURS["real_train"], label="$r_t$, sign on training tracks")
    axes[1].plot(metrics["step"], metrics["r_f"], color=COLOURS["fake_train"], label="$r_f$, generated")
    axes[1].plot(metrics["step"], metrics["p"], color="#777777", ls=":", label="augmentation p")
    axes[0].set(title="0: none · 1: held-out looks generated", xlabel="step", ylabel="$r_v$")
    axes[1].set(title="The other indicators", xlabel="step", ylabel="$r_t$, $r_f$, p")
    for axis in axes:
        axis.axhline(0, color="#666666", lw=1)
        axis.axhline(1, color="#666666", lw=1, ls=(0, (1, 2)))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def logit_histograms(metrics, moments=4):
    """Distribution of the logits of the four sets at `moments` evaluations spread over training.

    metrics: `lib.report.read_metrics` of one GAN arm. The outermost bars hold everything beyond ±12.
    """
    chosen = np.unique(np.linspace(0, len(metrics) - 1, moments).round().astype(int))
    figure, axes = panels(len(chosen), 2.9, "How do the logits part over training?", sharex=True, sharey=True)
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


def heldout_curves(metrics):
    """Loss, detection rates and ranking of the discriminator on training and on held-out tracks.

    metrics: `lib.report.read_metrics` of one GAN arm. The dotted line is what guessing reaches.
    """
    figure, axes = panels(3, 3.2, "Is the discriminator right on tracks it never saw?")
    rates = {"tpr": COLOURS["real_train"], "tnr": COLOURS["fake_train"]}
    contents = {
        "Cross-entropy (nats)": ({"bce": "#444444"}, np.log(2)),
        "Recognised (share)": (rates, 0.5),
        "Ranked rightly (AUC)": ({"auc": "#444444"}, 0.5),
    }
    for axis, (title, (lines, guess)) in zip(axes, contents.items(), strict=True):
        for name, colour in lines.items():
            axis.plot(metrics["step"], metrics[f"{name}_train"], color=colour)
            axis.plot(metrics["step"], metrics[f"{name}_heldout"], color=colour, ls="--")
        axis.axhline(guess, color="#666666", lw=1, ls=":")
        axis.set(title=title, xlabel="step")
    key = {
        "training tracks": {"color": "#444444"},
        "held-out tracks": {"color": "#444444", "ls": "--"},
        "real (TPR)": {"color": rates["tpr"]},
        "generated (TNR)": {"color": rates["tnr"]},
        "guessing": {"color": "#666666", "lw": 1, "ls": ":"},
    }
    handles = [Line2D([], [], **style) for style in key.values()]
    figure.legend(handles, key, loc="outside lower center", ncols=len(key))
    return figure
