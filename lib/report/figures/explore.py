"""Figures behind the controls of 06-explore."""

import numpy as np

from lib.data.tracks import SAMPLERATE
from lib.report.figures.listen import RANGE_DB, log_levels, paint
from lib.report.figures.style import COLOURS, arm_colour, arm_label, hertz_axis, legend_below, panels


def separated(part, arm, stem):
    """A stem, its estimate by one arm, and where they differ. part: a `lib.report.listen.Excerpt`."""
    sounds = {"true stem": part.references[stem], f"estimate, {arm_label(arm)}": part.estimates[arm][stem]}
    levels = {name: log_levels(sound) for name, sound in sounds.items()}
    top = max(level.max() for level, *_ in levels.values())
    figure, axes = panels(3, 2.9, f"{stem.capitalize()}: what came out?", sharey=True)
    for axis, (name, (level, seconds, hertz)) in zip(axes, levels.items(), strict=False):
        shown = paint(axis, part.seconds[0] + seconds, hertz, level - top, "magma", -RANGE_DB, 0)
        axis.set_title(name.capitalize() if name == "true stem" else name.replace("estimate", "Estimate"))
    truth, guess = (np.maximum(level, top - RANGE_DB) for level, *_ in levels.values())
    difference = paint(axes[2], part.seconds[0] + seconds, hertz, guess - truth, "RdBu_r", -30, 30)
    axes[2].set_title("Too much (red), missing (blue)")
    for axis in axes:
        axis.set(yscale="log", xlabel="time (s)")
        hertz_axis(axis.yaxis)
    axes[0].set_ylabel("frequency (Hz)")
    figure.colorbar(shown, ax=axes[:2].tolist(), label="level (dB re loudest)", aspect=25)
    figure.colorbar(difference, ax=axes[2], label="difference (dB)", aspect=25)
    return figure


def waveforms_and_spectra(sounds, title):
    """Waveform over spectrogram of each of `sounds` {name: audio (channels, samples)}, on common scales."""
    figure, axes = panels(len(sounds), 3.6, title, rows=2, sharex=True, sharey="row")
    levels = {name: log_levels(sound) for name, sound in sounds.items()}
    top = max(level.max() for level, *_ in levels.values())
    for column, (name, sound) in enumerate(sounds.items()):
        upper, lower = axes[column], axes[column + len(sounds)]
        for channel, shade in zip(sound, ("#0072B2", "#56B4E9"), strict=False):
            parts = np.array_split(channel, min(300, len(channel)))
            seconds = np.linspace(0, len(channel) / SAMPLERATE, len(parts))
            upper.fill_between(
                seconds, [x.min() for x in parts], [x.max() for x in parts], color=shade, lw=0.4, alpha=0.8
            )
        level, seconds, hertz = levels[name]
        paint(lower, seconds, hertz, level - top, "magma", -RANGE_DB, 0)
        lower.set(yscale="log", xlabel="time (s)")
        hertz_axis(lower.yaxis)
        upper.set_title(name.capitalize())
    axes[0].set_ylabel("waveform")
    axes[len(sounds)].set_ylabel("frequency (Hz)")
    return figure


def shares(gan_runs, ratios, chosen, share):
    """How hard each discriminator pulled, and how hard it would have with another λ.

    gan_runs: {<arm>-<seed>: `lib.evaluation.results.read_metrics`}; ratios: {<arm>-<seed>:
    `lib.report.explore.gradient_ratio`}; chosen: a λ; share: the one a balancer would keep, drawn dotted.
    """
    figure, axes = panels(2, 3.1, "How hard does the discriminator pull?", sharey=True)
    weights = np.geomspace(1, 10_000, 200)
    for name, ratio in ratios.items():
        axes[0].plot(gan_runs[name]["step"], gan_runs[name]["adversarial_share"], "o-", ms=3, color=arm_colour(name))
        axes[1].plot(weights, ratio / (weights + ratio), color=arm_colour(name), label=name)
        axes[1].plot(chosen, ratio / (chosen + ratio), "o", color=arm_colour(name))
    axes[1].axvline(chosen, color="#888888", lw=1)
    for axis in axes:
        axis.axhline(share, color=COLOURS["all"], lw=1, ls=":", label=f"a share of {share:.2f}")
    axes[0].set(title="as it was", xlabel="step", ylabel="adversarial share of the gradient", ylim=(0, 1))
    axes[1].set(title="as it would have been", xlabel="λ: weight of L1 against the discriminator's 1", xscale="log")
    legend_below(figure, axes[1])
    return figure
