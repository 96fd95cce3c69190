"""Sentences about one track, computed from its scores and spectral measures."""

from lib.common.words import join, plain, signed
from lib.evaluation.results import ARMS, METRICS
from lib.report.sentences.arms import MEANINGS

LEAST = 0.1  # dB: smaller differences are not mentioned
HUM = 6.0  # dB: a tone that exceeds the true stem's by less is not mentioned
PARTS = METRICS[1:]


def track(scores):
    """A line per stem: the largest part of L1's error, its worst second, and what the other arms changed.

    scores: `lib.report.listen.scores`. Without L1, the first arm takes its place.
    """
    lines = []
    for stem, rows in scores.groupby("target", sort=False):
        medians = rows.groupby("arm", sort=False)[list(METRICS)].median()
        if medians.isna().any(axis=None):
            lines.append(f"- **{stem}**: no score, because the stem or an estimate of it is silent.")
            continue
        base = medians.iloc[0]
        weakest = base[list(PARTS)].idxmin()
        seconds = rows[rows["arm"] == medians.index[0]].dropna(subset="SDR")
        worst = seconds.loc[seconds["SDR"].idxmin()]
        line = (
            f"- **{stem}**, {_name(medians.index[0])}: SDR {plain(base['SDR'])} dB. The largest part of the error is "
            f"{MEANINGS[weakest][2]} ({_values(base)}); the worst second is {worst['second']:.0f} "
            f"({plain(worst['SDR'])} dB)."
        )
        lines.append(line + "".join(_change(arm, row - base) for arm, row in medians.iloc[1:].iterrows()))
    return "\n".join(lines)


def detail(table, stem):
    """Sentences: which arm is nearest to the true stem's fine detail. table: `lib.report.listen.detail`."""
    table = table.dropna(subset=["lsd_8k_16k", "high_band_ratio"])
    if table.empty:
        return "In this excerpt the true stem has nothing above 8 kHz, so there is no detail to restore."
    energies = join(f"{signed(value)} dB ({_name(arm)})" for arm, value in table["high_band_ratio"].items())
    distances = join(f"{plain(value)} dB ({_name(arm)})" for arm, value in table["lsd_8k_16k"].items())
    verdicts = _nearest(table["high_band_ratio"].abs(), "energy"), _nearest(table["lsd_8k_16k"], "spectrum")
    text = (
        f"In this excerpt of {stem}, the energy above 8 kHz relative to the true stem is {energies}. The log-spectral "
        f"distance from 8 to 16 kHz is {distances}. Nearest to the true stem: {join(verdicts)}. "
    )
    if humming := [f"{_name(arm)} ({signed(value)} dB)" for arm, value in table["tone"].items() if value > HUM]:
        text += (
            "Not all of that energy is detail: at 11 kHz, a quarter of the sampling rate, there is a tone that the "
            f"true stem does not have, in {join(humming)}. Transposed convolutions of stride 4 tend to produce it. "
        )
    return text + "This is one excerpt and one seed; `03-sdr-table` compares the arms over all tracks and seeds."


def summary(scores):
    """A sentence: the largest part of the first arm's error in each stem. scores: `lib.report.listen.scores`."""
    arm = scores["arm"].iloc[0]
    medians = scores[scores["arm"] == arm].groupby("target", sort=False)[list(PARTS)].median().dropna()
    if medians.empty:
        return "no stem has a score"
    weakest = medians.idxmin(axis=1)
    words = [f"{MEANINGS[metric][2]} in {join(group.index)}" for metric, group in weakest.groupby(weakest)]
    return f"with {_name(arm)}, the largest part of the error is {'; '.join(words)}."


def _nearest(distances, what):
    """Name the arm that is nearest to the true stem, if the next one is at least `LEAST` farther away."""
    nearest = distances.nsmallest(2)
    if len(nearest) > 1 and nearest.iloc[1] - nearest.iloc[0] < LEAST:
        return f"no single arm in {what}"
    return f"{_name(nearest.index[0])} in {what}"


def _change(arm, change):
    """What an arm changed relative to the first."""
    words = [
        f"{MEANINGS[metric][0 if change[metric] > 0 else 1]} ({metric} {signed(change[metric])})"
        for metric in PARTS
        if abs(change[metric]) >= LEAST
    ]
    return f" {_name(arm)}: SDR {signed(change['SDR'])}, {join(words) if words else 'ISR, SIR and SAR within 0.1 dB'}."


def _values(row):
    return join(f"{metric} {plain(row[metric])}" for metric in PARTS)


def _name(arm):
    return ARMS.get(arm, arm)
