"""Figures of 05-listen: spectrograms, their differences, and the high band enlarged."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter
from scipy import signal

from lib.data.tracks import SAMPLERATE
from lib.report.figures.style import arm_label, hertz_axis, panels

RANGE_DB = 70  # dynamic range of a spectrogram; lower levels are drawn at its lower end
BAND = (8_000, 16_000)  # Hz: the enlarged band, of cymbals and consonants
ENLARGED = 1.0  # seconds: the length of the enlarged part
LEVELS = 14  # colours of a spectrogram: enough for the eye, few enough for a small file
COLUMNS, ROWS = 90, 64  # cells of a panel: no more than it has room for


def spectrograms(part, stems):
    """The true stem and every arm's estimate; each of the `stems` is a row with a scale of its own.

    part: a `lib.report.listen.Excerpt`.
    """
    columns = {"True stem": part.references} | {arm_label(arm): sound for arm, sound in part.estimates.items()}
    title = "What is in the estimates?"
    figure, axes = panels(len(columns), 0.9 + 1.7 * len(stems), title, rows=len(stems), sharex=True, sharey=True)
    for row, stem in enumerate(stems):
        levels = {name: log_levels(sound[stem]) for name, sound in columns.items()}
        top = max(level.max() for level, *_ in levels.values())
        for axis, (name, (level, seconds, hertz)) in zip(axes[row * len(columns) :], levels.items(), strict=False):
            mesh = paint(axis, part.seconds[0] + seconds, hertz, level - top, "magma", -RANGE_DB, 0)
            _label(axis, stem, name)
    figure.colorbar(mesh, ax=axes.tolist(), label="level (dB re loudest of the row)", aspect=30)
    return figure


def differences(part, stems):
    """Estimate − true stem in dB: red where there is too much sound (leakage, noise), blue where some is missing."""
    arms, title = list(part.estimates), "Where is there too much sound, and where is some missing?"
    figure, axes = panels(len(arms), 0.9 + 1.7 * len(stems), title, rows=len(stems), sharex=True, sharey=True)
    for row, stem in enumerate(stems):
        truth = log_levels(part.references[stem])
        for axis, arm in zip(axes[row * len(arms) :], arms, strict=False):
            mesh = paint_difference(axis, log_levels(part.estimates[arm][stem]), truth, part.seconds[0])
            _label(axis, stem, arm_label(arm))
    figure.colorbar(mesh, ax=axes.tolist(), label="estimate − true stem (dB)", aspect=30)
    return figure


def high_band(part, stem, table):
    """The true stem and every arm's estimate of it: the spectrogram, and its high band enlarged.

    table: `lib.report.listen.detail`, whose values stand under each column. It asks for sound what figure 4 of pix2pix
    (Isola et al., arXiv 1611.07004) shows for images: L1 alone blurs, and a discriminator brings detail back.
    """
    sounds = {"True stem": part.references[stem]}
    sounds |= {arm_label(arm): estimates[stem] for arm, estimates in part.estimates.items()}
    title = f"{stem.capitalize()}: does the discriminator bring detail back?"
    figure, axes = panels(len(sounds), 4.6, title, rows=2, sharey="row", gridspec_kw={"height_ratios": [1, 1.3]})
    levels = [_levels(sound, 1024, 256, part.seconds[0]) for sound in sounds.values()]
    top = max(level.max() for level, *_ in levels)
    begin = _busiest(*levels[0])
    notes = ["as it should be", *(_note(table.loc[arm]) for arm in part.estimates)]
    columns = zip(axes[: len(sounds)], axes[len(sounds) :], sounds, levels, notes, strict=True)
    for whole, zoom, name, (level, time, hertz), note in columns:
        band, shown = _between(hertz, *BAND), _between(time, begin, begin + ENLARGED)
        paint(whole, time, hertz, level - top, "magma", -90, 0)
        paint(zoom, time[shown], hertz[band], (level - top)[band][:, shown], "magma", -90, -30)
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
    """The values that stand under a column."""
    ratio = f"{row['high_band_ratio']:+.1f}".replace("-", "−")
    return f"log-spectral distance {row['lsd_8k_16k']:.1f} dB\nenergy above 8 kHz {ratio} dB"


def _busiest(level, time, hertz):
    """Start (s) of the part of length `ENLARGED` whose high band has the most energy."""
    power = 10 ** (level[_between(hertz, *BAND)] / 10)
    starts = time[time <= max(time[0], time[-1] - ENLARGED)]
    return max(starts, key=lambda start: power[:, _between(time, start, start + ENLARGED)].sum())


def _between(values, low, high):
    return (values >= low) & (values < high)


def waveform(axis, samples, **style):
    """Draw the waveform of `samples` (time,) as the range between the extremes of up to 300 parts."""
    parts = np.array_split(samples, min(300, len(samples)))
    seconds = np.linspace(0, len(samples) / SAMPLERATE, len(parts))
    axis.fill_between(seconds, [part.min() for part in parts], [part.max() for part in parts], **style)


def log_levels(audio):
    """(level in dB (bands, columns), seconds, Hz) of `audio` (channels, samples), on a log-frequency axis."""
    window = min(4096, audio.shape[-1])
    level, seconds, hertz = _levels(audio, window, window // 4)
    edges = np.geomspace(40, SAMPLERATE / 2, 57)
    power = np.maximum.reduceat(level, np.searchsorted(hertz, edges[:-1]))  # the largest bin of each band
    return _pool(power, COLUMNS), _pool(seconds, COLUMNS), np.sqrt(edges[1:] * edges[:-1])


def _levels(audio, window, hop, begin=0.0):
    """(level in dB (frequencies, times), times in seconds from `begin`, frequencies in Hz), averaged over channels."""
    hertz, seconds, power = signal.spectrogram(audio, SAMPLERATE, nperseg=window, noverlap=window - hop)
    return 10 * np.log10(power.mean(axis=0) + 1e-14), begin + seconds, hertz


def _pool(values, columns):
    """Average along the last axis so that at most `columns` remain."""
    parts = np.array_split(values, min(columns, values.shape[-1]), axis=-1)
    return np.stack([part.mean(axis=-1) for part in parts], axis=-1)


def paint(axis, seconds, hertz, level, colours, low, high):
    """Draw `level` (dB) over seconds and Hz, in `LEVELS` colours from low to high and at most COLUMNS × ROWS cells."""
    level = _pool(_pool(level, COLUMNS).T, ROWS).T
    axis.grid(False)
    return axis.pcolormesh(
        _pool(seconds, COLUMNS), _pool(hertz, ROWS), level, vmin=low, vmax=high, cmap=plt.get_cmap(colours, LEVELS),
        rasterized=True,
    )  # fmt: skip


def paint_difference(axis, estimate, truth, begin):
    """Draw estimate − truth, both from `log_levels`, limited to `RANGE_DB` below the louder one; begin in seconds."""
    (level, seconds, hertz), reference = estimate, truth[0]
    floor = max(level.max(), reference.max()) - RANGE_DB  # lower levels are inaudible
    difference = np.maximum(level, floor) - np.maximum(reference, floor)
    return paint(axis, begin + seconds, hertz, difference, "RdBu_r", -30, 30)


def _label(axis, stem, name):
    axis.set_yscale("log")
    hertz_axis(axis.yaxis)
    axis.tick_params(labelsize="x-small")
    if axis.get_subplotspec().is_first_row():
        axis.set_title(name)
    if axis.get_subplotspec().is_last_row():
        axis.set_xlabel("time (s)")
    if axis.get_subplotspec().is_first_col():
        axis.set_ylabel(f"{stem}\nfrequency (Hz)")
