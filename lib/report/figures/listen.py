"""Figures of what is heard: waveforms with scores, spectrograms, their differences, and the high band enlarged."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter
from scipy import signal

from lib.data.tracks import SAMPLERATE
from lib.report.figures.style import COLOURS, arm_colour, arm_label, hertz_axis, legend_below, panels

FLOOR_SDR = 10  # dB below 0 at which the axis of SDR ends: worse is just as wrong
RANGE_DB = 70  # below the loudest point of a row
BAND = (8_000, 16_000)  # Hz that are enlarged: cymbals and consonants
ENLARGED = 1.0  # seconds of it
LEVELS = 14  # colours of a spectrogram: enough for the eye, few enough for a small file


def second_by_second(track, scores, heard):
    """Each stem's waveform, and under it the SDR of every second for every arm; the seconds heard are shaded.

    track: a `lib.data.tracks.Track`; scores: `lib.report.listen.scores`; heard: (first, last) second.
    """
    stems = dict(zip(("drums", "bass", "other", "vocals"), track.stems(), strict=True))
    figure, axes = panels(4, 3.6, "When is an arm right, and when wrong?", rows=2, sharex=True, sharey="row")
    for upper, lower, (stem, audio) in zip(axes[:4], axes[4:], stems.items(), strict=True):
        parts = np.array_split(audio.mean(axis=0), min(300, audio.shape[-1]))
        seconds = np.linspace(0, track.samples / SAMPLERATE, len(parts))
        extremes = [part.min() for part in parts], [part.max() for part in parts]
        upper.fill_between(seconds, *extremes, color=COLOURS[stem], lw=0.5)
        upper.set_title(stem.capitalize())
        rows = scores[scores["target"] == stem]
        for arm, group in rows.groupby("arm", sort=False):
            lower.step(group["second"], group["SDR"], where="post", color=arm_colour(arm), lw=1.4, label=arm_label(arm))
        lower.axhline(0, color="#666666", lw=1)
        lower.set(xlabel="time (s)", xlim=(0, track.samples / SAMPLERATE), ylim=(-FLOOR_SDR, None))
        for axis in (upper, lower):
            axis.axvspan(*heard, color="#F0E442", alpha=0.35, lw=0, label="heard here", zorder=0)
    axes[0].set_ylabel("waveform")
    axes[4].set_ylabel("SDR (dB)")
    legend_below(figure, axes[4])
    return figure


def spectrograms(part, stems):
    """The true stem and every arm's estimate, one row per stem and one scale per row.

    part: a `lib.report.listen.Excerpt`; stems: which.
    """
    columns = {"true stem": part.references} | {arm_label(arm): sound for arm, sound in part.estimates.items()}
    title = "What is in the estimates?"
    figure, axes = panels(len(columns), 0.9 + 1.7 * len(stems), title, rows=len(stems), sharex=True, sharey=True)
    for row, stem in enumerate(stems):
        levels = {name: log_levels(sound[stem]) for name, sound in columns.items()}
        top = max(level.max() for level, *_ in levels.values())
        for axis, (name, (level, seconds, hertz)) in zip(axes[row * len(columns) :], levels.items(), strict=False):
            mesh = paint(axis, part.seconds[0] + seconds, hertz, level - top, "magma", -RANGE_DB, 0)
            _label(axis, stem, name, row, len(stems))
    figure.colorbar(mesh, ax=axes.tolist(), label="level (dB re loudest of the row)", aspect=30)
    return figure


def differences(part, stems):
    """Estimate against true stem, in dB: red where there is too much (leakage, noise), blue where sound is missing."""
    arms, title = list(part.estimates), "Where is too much, and where is sound missing?"
    figure, axes = panels(len(arms), 0.9 + 1.7 * len(stems), title, rows=len(stems), sharex=True, sharey=True)
    for row, stem in enumerate(stems):
        truth, seconds, hertz = log_levels(part.references[stem])
        for axis, arm in zip(axes[row * len(arms) :], arms, strict=False):
            level = log_levels(part.estimates[arm][stem])[0]
            floor = max(truth.max(), level.max()) - RANGE_DB  # what lies below is not heard
            difference = np.maximum(level, floor) - np.maximum(truth, floor)
            mesh = paint(axis, part.seconds[0] + seconds, hertz, difference, "RdBu_r", -30, 30)
            _label(axis, stem, arm_label(arm), row, len(stems))
    figure.colorbar(mesh, ax=axes.tolist(), label="estimate − true stem (dB)", aspect=30)
    return figure


def high_band(part, stem, figures):
    """The same excerpt as it is, after L1 and after the others: whole, and its high band enlarged.

    figures: `lib.report.listen.detail`, which stands under each column. The picture of pix2pix (Isola et al., arXiv
    1611.07004, figure 4) for sound: L1 alone blurs, the game is to bring detail back.
    """
    sounds = {"True stem": part.references[stem]}
    sounds |= {arm_label(arm): estimates[stem] for arm, estimates in part.estimates.items()}
    title = f"{stem.capitalize()}: does the discriminator bring detail back?"
    figure, axes = panels(len(sounds), 4.6, title, rows=2, sharey="row", gridspec_kw={"height_ratios": [1, 1.3]})
    levels = [_levels(sound, 1024, 256, part.seconds[0]) for sound in sounds.values()]
    top = max(level.max() for level, *_ in levels)
    begin = _busiest(*levels[0])
    notes = ["as it should be", *(_note(figures.loc[arm]) for arm in part.estimates)]
    columns = zip(axes[: len(sounds)], axes[len(sounds) :], sounds, levels, notes, strict=True)
    for whole, zoom, name, (level, time, hertz), note in columns:
        band, shown = _between(hertz, *BAND), _between(time, begin, begin + ENLARGED)
        paint(whole, *_shrunk(time, hertz, level - top), "magma", -90, 0)
        paint(zoom, *_shrunk(time[shown], hertz[band], (level - top)[band][:, shown]), "magma", -90, -30)
        whole.add_patch(Rectangle((begin, BAND[0]), ENLARGED, BAND[1] - BAND[0], fill=False, ec="white", lw=1.2))
        whole.set(title=name, ylim=(0, 20_000))
        zoom.set_xlabel(f"time (s)\n{note}", fontsize="small")
        for axis in (whole, zoom):
            axis.yaxis.set_major_formatter(EngFormatter(sep=""))
            axis.tick_params(labelsize="x-small")
    axes[0].set_ylabel("frequency (Hz)")
    axes[len(sounds)].set_ylabel("8–16 kHz, enlarged")
    return figure


def _note(row):
    """The figures of detail that stand under a column."""
    ratio = f"{row['high_band_ratio']:+.1f}".replace("-", "−")
    return f"log-spectral distance {row['lsd_8k_16k']:.1f} dB\nenergy above 8 kHz {ratio} dB"


def _busiest(level, time, hertz):
    """Where (s) the second begins in which the high band holds the most energy."""
    power = 10 ** (level[_between(hertz, *BAND)] / 10)
    starts = time[time <= max(time[0], time[-1] - ENLARGED)]
    return max(starts, key=lambda start: power[:, _between(time, start, start + ENLARGED)].sum())


def _between(values, low, high):
    return (values >= low) & (values < high)


def log_levels(audio, bands=56, columns=84):
    """(level in dB (bands, columns), seconds, Hz) of `audio` (channels, samples), on a log-frequency axis."""
    window = min(4096, audio.shape[-1])
    level, seconds, hertz = _levels(audio, window, window // 4)
    edges = np.geomspace(40, SAMPLERATE / 2, bands + 1)
    power = np.maximum.reduceat(level, np.searchsorted(hertz, edges[:-1]))  # of each band its largest bin
    return _pool(power, columns), _pool(seconds[None], columns)[0], np.sqrt(edges[1:] * edges[:-1])


def _levels(audio, window, hop, begin=0.0):
    """(level in dB (Hz, seconds), seconds from `begin`, Hz) of the mean of the channels' spectrograms."""
    hertz, seconds, power = signal.spectrogram(audio, SAMPLERATE, nperseg=window, noverlap=window - hop)
    return 10 * np.log10(power.mean(axis=0) + 1e-14), begin + seconds, hertz


def _pool(values, columns):
    """Means along the last axis, so that at most `columns` are left."""
    parts = np.array_split(values, min(columns, values.shape[-1]), axis=-1)
    return np.stack([part.mean(axis=-1) for part in parts], axis=-1)


def _shrunk(seconds, hertz, level, columns=90, rows=64):
    """Arguments of `paint`, pooled to the cells that a small panel can show."""
    level = _pool(_pool(level, columns).T, rows).T
    return _pool(seconds[None], columns)[0], _pool(hertz[None], rows)[0], level


def paint(axis, seconds, hertz, level, colours, low, high):
    """Draw `level` (dB) over seconds and Hz, in `LEVELS` colours between low and high."""
    axis.grid(False)
    return axis.pcolormesh(
        seconds, hertz, level, vmin=low, vmax=high, cmap=plt.get_cmap(colours, LEVELS), rasterized=True
    )  # fmt: skip


def _label(axis, stem, name, row, rows):
    axis.set_yscale("log")
    hertz_axis(axis.yaxis)
    axis.tick_params(labelsize="x-small")
    if row == 0:
        axis.set_title(name.capitalize() if name == "true stem" else name)
    if row == rows - 1:
        axis.set_xlabel("time (s)")
    if axis.get_subplotspec().is_first_col():
        axis.set_ylabel(f"{stem}\nfrequency (Hz)")
