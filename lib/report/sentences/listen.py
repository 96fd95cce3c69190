"""What the scores and figures of one track say, in words that are computed from them."""

from lib.common.words import join, plain, signed
from lib.evaluation.results import ARMS, METRICS
from lib.report.sentences.arms import MEANINGS

LEAST = 0.1  # dB: smaller changes are not put into words
HUM = 6.0  # dB by which a tone stands out before it is named
PARTS = METRICS[1:]


def track(scores):
    """A line per stem: what holds L1 back most, its worst second, and what the other arms changed on this one track.

    scores: `lib.report.listen.scores`. Of a track without L1 the first arm takes its place.
    """
    lines = []
    for stem, rows in scores.groupby("target", sort=False):
        medians = rows.groupby("arm", sort=False)[list(METRICS)].median()
        if medians.isna().any(axis=None):
            lines.append(f"- **{stem}**: silent here, or in an estimate of it; it has no score.")
            continue
        base = medians.iloc[0]
        weakest = base[list(PARTS)].idxmin()
        seconds = rows[rows["arm"] == medians.index[0]].dropna(subset="SDR")
        worst = seconds.loc[seconds["SDR"].idxmin()]
        line = (
            f"- **{stem}**, {_name(medians.index[0])}: SDR {plain(base['SDR'])} dB. The largest part of the error is "
            f"{MEANINGS[weakest][2]} ({_figures(base)}); the worst second is {worst['second']:.0f} "
            f"({plain(worst['SDR'])} dB)."
        )
        lines.append(line + "".join(_change(arm, row - base) for arm, row in medians.iloc[1:].iterrows()))
    return "\n".join(lines)


def detail(table, stem):
    """Which arm is nearest to the true stem's detail in this excerpt. table: `lib.report.listen.detail`."""
    table = table.dropna(subset=["lsd_8k_16k", "high_band_ratio"])
    if table.empty:
        return f"The true {stem} have nothing above 8 kHz in this excerpt: there is no detail to bring back."
    energies = join(f"{signed(value)} dB ({_name(arm)})" for arm, value in table["high_band_ratio"].items())
    distances = join(f"{plain(value)} dB ({_name(arm)})" for arm, value in table["lsd_8k_16k"].items())
    verdicts = _nearest(table["high_band_ratio"].abs(), "energy"), _nearest(table["lsd_8k_16k"], "spectrum")
    text = (
        f"In this excerpt of {stem} the energy above 8 kHz, against the true stem's, is {energies}; the log-spectral "
        f"distance from 8 to 16 kHz is {distances}. **Nearest {join(verdicts)}.** "
    )
    if humming := [f"{_name(arm)} ({signed(value)} dB)" for arm, value in table["tone"].items() if value > HUM]:
        text += (
            "But energy is not yet detail: the line at 11 kHz, a quarter of the sampling rate, is a tone that the true "
            f"{stem} do not have, as transposed convolutions of stride 4 tend to leave: {join(humming)}. "
        )
    return text + (
        "It is one excerpt of one seed; whether a difference holds over all tracks and seeds is for `03-sdr-table`."
    )


def summary(scores):
    """What holds the first arm back most, stem by stem, in one sentence. scores: `lib.report.listen.scores`."""
    arm = scores["arm"].iloc[0]
    medians = scores[scores["arm"] == arm].groupby("target", sort=False)[list(PARTS)].median().dropna()
    if medians.empty:
        return "no stem has a score"
    weakest = medians.idxmin(axis=1)
    words = [f"{MEANINGS[metric][2]} in {join(group.index)}" for metric, group in weakest.groupby(weakest)]
    return f"with {_name(arm)}, the largest part of the error is {'; '.join(words)}."


def _nearest(distances, what):
    """Which arm is nearest to the true stem, if one is by a tenth of a dB or more."""
    nearest = distances.nsmallest(2)
    if len(nearest) > 1 and nearest.iloc[1] - nearest.iloc[0] < LEAST:
        return f"in {what}: no arm plainly"
    return f"in {what}: {_name(nearest.index[0])}"


def _change(arm, change):
    """What an arm changed against the first."""
    words = [
        f"{MEANINGS[metric][0 if change[metric] > 0 else 1]} ({metric} {signed(change[metric])})"
        for metric in PARTS
        if abs(change[metric]) >= LEAST
    ]
    return f" {_name(arm)}: SDR {signed(change['SDR'])}, {join(words) if words else 'each part within 0.1 dB'}."


def _figures(row):
    return join(f"{metric} {plain(row[metric])}" for metric in PARTS)


def _name(arm):
    return ARMS.get(arm, arm)
