"""The report's figures. Every function takes data that was read elsewhere and returns a Figure.

A figure is closed before it is returned, so that a notebook shows it once: as the last expression of a cell.
The figures that compare arms are in `lib.report.figures.arms`, those of training in `lib.report.figures.training`, the
theme in `lib.report.figures.style`; all are reached through here.
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy import signal

from lib.evaluation.stats import COLUMNS, STEMS, prediction_interval
from lib.report.audio import player
from lib.report.figures.arms import measure_differences, perception_distortion, sdr_strip
from lib.report.figures.style import COLOURS, hertz_axis, legend_below, panels, use_style
from lib.report.figures.training import (
    game_curves,
    heldout_curves,
    learning_curves,
    logit_curves,
    logit_histograms,
    memorisation_curves,
    probe_curves,
    probe_heatmap,
)

__all__ = [
    "COLOURS", "game_curves", "heldout_curves", "learning_curves", "levels", "logit_curves", "logit_histograms",
    "long_term_spectra", "measure_differences", "memorisation_curves", "perception_distortion", "player",
    "probe_curves", "probe_heatmap", "sdr_strip", "seed_noise", "stem_spectrograms", "use_style",
]  # fmt: skip


def stem_spectrograms(audio, samplerate):
    """Power spectrogram of each stem in dB below the loudest point of all, on a log-frequency axis.

    audio: {stem: array (channels, time)}, all of one length; samplerate in Hz.
    """
    edges = np.geomspace(40, samplerate / 2, 65)
    images = {}
    for stem, samples in audio.items():
        frequencies, seconds, magnitude = signal.spectrogram(
            np.mean(samples, axis=0), samplerate, nperseg=4096, noverlap=3072, mode="magnitude"
        )
        # the largest bin of each band; a band narrower than a bin (11 Hz) gets the nearest one
        bands = np.maximum.reduceat(magnitude, np.searchsorted(frequencies, edges[:-1]))
        step = max(1, len(seconds) // 100)  # no more columns than the figure has room for
        images[stem] = 20 * np.log10(bands[:, ::step] + 1e-9), seconds[::step]
    top = max(image.max() for image, _ in images.values())

    figure, axes = panels(2, 5.2, "Where does each stem have its energy?", rows=2, sharex=True, sharey=True)
    for axis, (stem, (image, seconds)) in zip(axes, images.items(), strict=True):
        mesh = axis.pcolormesh(
            seconds,
            np.sqrt(edges[1:] * edges[:-1]),
            image - top,
            vmin=-80,
            vmax=0,
            cmap=plt.get_cmap("magma", 16),
            rasterized=True,
        )
        axis.set(yscale="log", title=stem.capitalize(), xlim=(0, samples.shape[1] / samplerate))
        axis.grid(False)
        hertz_axis(axis.yaxis)
    for axis in axes[::2]:
        axis.set_ylabel("frequency (Hz)")
    for axis in axes[-2:]:
        axis.set_xlabel("time (s)")
    figure.colorbar(mesh, ax=axes, label="level (dB re loudest)", aspect=40)
    return figure


def long_term_spectra(audio, samplerate, reference=None):
    """Long-term average spectrum of each stem in third-octave bands, dB re full scale.

    audio: {stem: array (channels, time) or a list of such arrays}; samplerate in Hz; reference: a second set like
    `audio`, drawn dashed.
    """
    edges = 1000 * 2 ** (np.arange(-14, 14) / 3)
    edges = edges[edges < samplerate / 2]
    figure, (axis,) = panels(1, 3.4, "How is each stem's energy spread over frequency?")
    for tracks, style in ((audio, "-"), (reference or {}, "--")):
        for stem, samples in tracks.items():
            band_level = _third_octaves(samples if isinstance(samples, list) else [samples], samplerate, edges)
            label = stem if style == "-" else None
            axis.plot(np.sqrt(edges[1:] * edges[:-1]), band_level, style, color=COLOURS[stem], label=label)
    axis.set(xscale="log", xlabel="frequency (Hz)", ylabel="band level (dBFS)")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], axis.get_ylim()[1] - 90))  # a filtered stem falls without end
    hertz_axis(axis.xaxis)
    legend_below(figure, axis)
    return figure


def _third_octaves(tracks, samplerate, edges):
    """Power between `edges` (Hz), averaged over `tracks`, in dB."""
    power = []
    for track in tracks:
        frequencies, spectrum = signal.welch(track, samplerate, nperseg=16384, scaling="spectrum")
        power.append(np.add.reduceat(spectrum.mean(axis=0), np.searchsorted(frequencies, edges))[:-1])
    return 10 * np.log10(np.mean(power, axis=0) + 1e-12)


def levels(table):
    """Loudness of every track, per stem. table: DataFrame, one row per track, a column per stem, RMS in
    dBFS."""
    figure, (axis,) = panels(1, 2.6, "How loud is each stem, from track to track?")
    long = table[list(STEMS)].replace(-np.inf, np.nan).melt(var_name="stem", value_name="level")
    options = {"data": long, "x": "level", "y": "stem", "hue": "stem", "palette": COLOURS, "ax": axis, "legend": False}
    sns.boxplot(**options, width=0.55, fliersize=0, boxprops={"alpha": 0.25}, linewidth=1)
    sns.stripplot(**options, size=4, jitter=0.16, alpha=0.8)
    axis.set(xlabel="RMS level (dBFS)", ylabel="")
    return figure


def seed_noise(seeds, gan):
    """Is the GAN's row outside the spread of one recipe's seeds?

    seeds: `lib.report.tables.published_seeds()`; gan: Series of the reported row (dB per column).
    """
    interval = prediction_interval(seeds)
    figure, (axis,) = panels(1, 3.4, "Does the reported GAN leave the range of one more Demucs v1 run?")
    for x, column in enumerate(COLUMNS):
        mean, half_width = interval.loc[column, ["mean", "half_width"]]
        first = x == 0
        axis.bar(
            x, 2 * half_width, 0.5, bottom=-half_width, color=COLOURS[column], alpha=0.18,
            label="95 % prediction interval of one more run" if first else None,
        )  # fmt: skip
        axis.plot(
            x + np.linspace(-0.12, 0.12, len(seeds)), seeds[column] - mean, "o", color=COLOURS[column], ms=5,
            label=f"Demucs v1, seeds {seeds.index[0]}–{seeds.index[-1]}" if first else None,
        )  # fmt: skip
        axis.plot(
            x, gan[column] - mean, "D", color=COLOURS["gan"], mec="white", ms=9,
            label="Demucs v1 + GAN, as reported" if first else None,
        )  # fmt: skip
    axis.axhline(0, color="#666666", lw=1)
    axis.set_xticks(range(len(COLUMNS)), [f"{c.capitalize()}\n{interval.loc[c, 'mean']:.2f} dB" for c in COLUMNS])
    reach = 1.15 * max(interval["half_width"].max(), (gan[list(COLUMNS)] - interval["mean"]).abs().max())
    axis.set(ylabel="SDR − mean of the seeds (dB)", ylim=(-reach, reach))
    axis.grid(axis="x", visible=False)
    legend_below(figure, axis)
    return figure
