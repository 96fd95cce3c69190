"""Figures of the data: where each stem has its energy, and how loud it is."""

import numpy as np
import seaborn as sns
from matplotlib.ticker import NullLocator
from scipy import signal

from lib.data.tracks import SAMPLERATE
from lib.report.figures.listen import log_levels, paint
from lib.report.figures.style import COLOURS, hertz_axis, legend_below, panels, stem_colours


def stem_spectrograms(audio):
    """Power spectrogram of each stem in dB below the loudest point of all, on a log-frequency axis.

    audio: {stem: array (channels, time)}, all of one length.
    """
    spectra = {stem: log_levels(samples) for stem, samples in audio.items()}
    top = max(level.max() for level, *_ in spectra.values())
    rows = -(-len(audio) // 2)
    figure, axes = panels(2, 2.6 * rows, "Where does each stem have its energy?", rows, sharex=True, sharey=True)
    for axis in axes[len(spectra) :]:
        axis.set_visible(False)
    for axis, (stem, (level, seconds, hertz)) in zip(axes, spectra.items(), strict=False):
        mesh = paint(axis, seconds, hertz, level - top, "magma", -80, 0)
        axis.set(yscale="log", title=stem.capitalize())
        hertz_axis(axis.yaxis)
    for axis in axes[::2]:
        axis.set_ylabel("frequency (Hz)")
    for axis in axes[-2:]:
        axis.set_xlabel("time (s)")
    figure.colorbar(mesh, ax=axes, label="level (dB re loudest)", aspect=40)
    return figure


def long_term_spectra(audio, reference):
    """Long-term average spectrum of each stem in third-octave bands, dB re full scale.

    audio: {stem: list of arrays (channels, time)}, drawn solid; reference: the same, drawn dashed, or {}.
    """
    colours = stem_colours(audio | reference)
    edges = 1000 * 2 ** (np.arange(-14, 14) / 3)
    figure, (axis,) = panels(1, 3.4, "How is each stem's energy spread over frequency?")
    for stems, style in ((audio, "-"), (reference, "--")):
        for stem, tracks in stems.items():
            line = {"ls": style, "color": colours[stem], "label": stem if style == "-" else None}
            axis.plot(np.sqrt(edges[1:] * edges[:-1]), _third_octaves(tracks, edges), **line)
    axis.set(xscale="log", xlabel="frequency (Hz)", ylabel="band level (dBFS)")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], axis.get_ylim()[1] - 90))  # a filtered stem has no floor
    hertz_axis(axis.xaxis)
    legend_below(figure, axis)
    return figure


def _third_octaves(tracks, edges):
    """Power between `edges` (Hz), averaged over `tracks`, in dB."""
    power = []
    for track in tracks:
        frequencies, spectrum = signal.welch(track, SAMPLERATE, nperseg=16384, scaling="spectrum")
        power.append(np.add.reduceat(spectrum.mean(axis=0), np.searchsorted(frequencies, edges))[:-1])
    return 10 * np.log10(np.mean(power, axis=0) + 1e-12)


def levels(table):
    """Loudness of every track, per stem. table: RMS in dBFS, a row per track, a column per stem."""
    figure, (axis,) = panels(1, 2.6, "How loud is each stem, from track to track?")
    long = table.replace(-np.inf, np.nan).melt(var_name="stem", value_name="level")
    options = {"data": long, "x": "level", "y": "stem", "hue": "stem", "palette": stem_colours(table), "legend": False}
    sns.boxplot(**options, ax=axis, width=0.55, fliersize=0, boxprops={"alpha": 0.25}, linewidth=1)
    sns.stripplot(**options, ax=axis, size=4, jitter=0.16, alpha=0.8)
    axis.set(xlabel="RMS level (dBFS)", ylabel="")
    return figure


def likeness(old, new, real):
    """Properties of every stem: the corpus before and now, and real songs as black marks.

    old, new, real: tables of `lib.evaluation.likeness.table`. The first row shows the long-term spectra: median and
    the range from the tenth to the ninetieth percentile of the songs of each corpus, and a line per real song.
    """
    measures = dict.fromkeys(real.loc[~real["measure"].str.endswith(" Hz"), ["measure", "unit"]].apply(tuple, axis=1))
    sets = (("version 1", old, "#BBBBBB"), ("version 2", new, COLOURS["gan-cures"]))
    stems = list(real["stem"].unique())
    figure, axes = panels(4, 7.6, "How like real music is the corpus?", rows=1 + -(-len(measures) // 4))
    for axis, stem in zip(axes, stems, strict=False):
        for label, table, colour in sets:
            bands = _spectra(table, stem)
            low, middle, high = np.nanpercentile(bands, (10, 50, 90), axis=0)
            axis.fill_between(bands.columns, low, high, color=colour, alpha=0.35, lw=0, antialiased=False)
            axis.plot(bands.columns, middle, color=colour, label=label)
        for row in (bands := _spectra(real, stem)).to_numpy():
            axis.plot(bands.columns, row, color="black", lw=0.7, label="real song")
        axis.set(xscale="log", title=f"{stem.capitalize()}: spectrum", ylim=(-75, 0), xlabel="frequency (Hz)")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks((50, 500, 5000), ("50", "500", "5k"))
    axes[0].set_ylabel("third octave (dB re stem)")
    for axis, (measure, unit) in zip(axes[4:], measures, strict=False):
        for shift, (_, table, colour) in zip((-0.2, 0.2), sets, strict=True):
            values = [_values(table, stem, measure) for stem in stems]
            boxes = axis.boxplot(values, positions=np.arange(len(stems)) + shift, widths=0.32, patch_artist=True,
                                 showfliers=False, medianprops={"color": "#333333"})  # fmt: skip
            for box in boxes["boxes"]:
                box.set(facecolor=colour, edgecolor="#666666", alpha=0.8)
        for place, stem in enumerate(stems):
            marks = _values(real, stem, measure)
            axis.plot(np.full(len(marks), place), marks, "kx", ms=5)
        axis.set(title=measure.capitalize(), ylabel="" if unit == "1" else unit)
        if measure == "width":
            axis.set_ylim(bottom=-60)  # a mono stem has no sides
        axis.set_xticks(range(len(stems)), stems)
    for axis in axes[4 + len(measures) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.legend(known.values(), known, loc="outside lower center", ncols=len(known))
    figure.set_dpi(80)  # twelve panels at the usual resolution would make the page too large
    return figure


def _spectra(table, stem):
    """Third-octave levels of a stem in dB, a row per song, a column per frequency in Hz."""
    rows = table[(table["stem"] == stem) & table["measure"].str.endswith(" Hz")]
    bands = rows.assign(hertz=rows["measure"].str.removesuffix(" Hz").astype(float))
    return bands.pivot_table("value", "song", "hertz")


def _values(table, stem, measure):
    return table.loc[(table["stem"] == stem) & (table["measure"] == measure), "value"].dropna().to_numpy()
