"""Figures of training: what the losses did, and whether the discriminator memorises."""

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
