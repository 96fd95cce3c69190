"""Figures behind the controls of 06-explore."""

import numpy as np

from lib.report.figures.listen import RANGE_DB, log_levels, paint, paint_difference, waveform
from lib.report.figures.style import COLOURS, arm_colour, arm_label, hertz_axis, legend_below, panels


def separated(part, arm, stem):
    """A true stem, one arm's estimate of it, and their difference. part: a `lib.report.listen.Excerpt`."""
    sounds = {"True stem": part.references[stem], f"Estimate, {arm_label(arm)}": part.estimates[arm][stem]}
    levels = {name: log_levels(sound) for name, sound in sounds.items()}
    top = max(level.max() for level, *_ in levels.values())
    figure, axes = panels(3, 2.9, f"{stem.capitalize()}: what is wrong with the estimate?", sharey=True)
    for axis, (name, (level, seconds, hertz)) in zip(axes, levels.items(), strict=False):
        shown = paint(axis, part.seconds[0] + seconds, hertz, level - top, "magma", -RANGE_DB, 0)
        axis.set_title(name)
    truth, estimate = levels.values()
    difference = paint_difference(axes[2], estimate, truth, part.seconds[0])
    axes[2].set_title("Too much (red), missing (blue)")
    for axis in axes:
        axis.set(yscale="log", xlabel="time (s)")
        hertz_axis(axis.yaxis)
    axes[0].set_ylabel("frequency (Hz)")
    figure.colorbar(shown, ax=axes[:2].tolist(), label="level (dB re loudest)", aspect=25)
    figure.colorbar(difference, ax=axes[2], label="difference (dB)", aspect=25)
    return figure


def waveforms_and_spectra(sounds, title):
    """The waveform above the spectrogram of each of `sounds` {name: audio (channels, samples)}, on common scales."""
    figure, axes = panels(len(sounds), 3.6, title, rows=2, sharex=True, sharey="row")
    levels = {name: log_levels(sound) for name, sound in sounds.items()}
    top = max(level.max() for level, *_ in levels.values())
    for column, (name, sound) in enumerate(sounds.items()):
        upper, lower = axes[column], axes[column + len(sounds)]
        for channel, shade in zip(sound, ("#0072B2", "#56B4E9"), strict=False):
            waveform(upper, channel, color=shade, lw=0.4, alpha=0.8)
        level, seconds, hertz = levels[name]
        paint(lower, seconds, hertz, level - top, "magma", -RANGE_DB, 0)
        lower.set(yscale="log", xlabel="time (s)")
        hertz_axis(lower.yaxis)
        upper.set_title(name.capitalize())
    axes[0].set_ylabel("waveform")
    axes[len(sounds)].set_ylabel("frequency (Hz)")
    return figure


def share_of(ratio, λ):
    """The adversarial share of the gradient if L1 has λ times the discriminator's weight.

    ratio: `lib.report.explore.gradient_ratio`.
    """
    return ratio / (λ + ratio)


def shares(gan_runs, ratios, chosen, share):
    """The adversarial share of the gradient during training, and the share that another λ would have given.

    gan_runs: {<arm>-<seed>: `lib.evaluation.results.read_metrics`}; ratios: {<arm>-<seed>:
    `lib.report.explore.gradient_ratio`}; chosen: a λ, marked; share: drawn dotted.
    """
    figure, axes = panels(2, 3.1, "How hard does the discriminator pull?", sharey=True)
    weights = np.geomspace(1, 10_000, 200)
    for name, ratio in ratios.items():
        axes[0].plot(gan_runs[name]["step"], gan_runs[name]["adversarial_share"], "o-", ms=3, color=arm_colour(name))
        axes[1].plot(weights, share_of(ratio, weights), color=arm_colour(name), label=name)
        axes[1].plot(chosen, share_of(ratio, chosen), "o", color=arm_colour(name))
    axes[1].axvline(chosen, color="#888888", lw=1)
    for axis in axes:
        axis.axhline(share, color=COLOURS["all"], lw=1, ls=":", label=f"a share of {share:.2f}")
    axes[0].set(title="During training", xlabel="step", ylabel="adversarial share of the gradient", ylim=(0, 1))
    axes[1].set(title="With another λ", xlabel="λ: weight of L1; the discriminator has 1", xscale="log")
    legend_below(figure, axes[1])
    return figure
