"""Sentences about one track, computed from its scores and spectral measures."""

from lib.common.words import join
from lib.evaluation.results import ARMS

LEAST = 0.1  # dB: smaller differences are not mentioned
HUM = 6.0  # dB: a tone that exceeds the true stem's by less is not mentioned
PARTS = {"ISR": "missing or displaced sound", "SIR": "leakage", "SAR": "noise and artefacts"}


def detail(table, stem):
    """Sentences: which arm is nearest to the true stem's fine detail. table: `lib.report.listen.detail`."""
    table = table.dropna(subset=["lsd_8k_16k", "high_band_ratio"])
    if table.empty:
        return "In this excerpt the true stem has nothing above 8 kHz, so there is no detail to restore."
    verdicts = _nearest(table["high_band_ratio"].abs(), "energy"), _nearest(table["lsd_8k_16k"], "spectrum")
    text = f"Nearest to the true stem of {stem} in this excerpt: {join(verdicts)}. "
    if humming := [_name(arm) for arm, value in table["tone"].items() if value > HUM]:
        text += (
            "Not all of the energy above 8 kHz is detail: at 11 kHz, a quarter of the sampling rate, there is a tone "
            f"that the true stem does not have, in {join(humming)}. Transposed convolutions of stride 4 tend to "
            "produce it. "
        )
    return text + "This is one excerpt and one seed; `03-sdr-table` compares the arms over all tracks and seeds."


def summary(scores):
    """A sentence: the largest part of the first arm's error in each stem. scores: `lib.report.listen.scores`."""
    arm = scores["arm"].iloc[0]
    medians = scores[scores["arm"] == arm].groupby("target", sort=False)[list(PARTS)].median().dropna()
    if medians.empty:
        return "no stem has a score"
    weakest = medians.idxmin(axis=1)
    words = [f"{PARTS[metric]} in {join(group.index)}" for metric, group in weakest.groupby(weakest)]
    return f"with {_name(arm)}, the largest part of the error is {'; '.join(words)}."


def _nearest(distances, what):
    """Name the arm that is nearest to the true stem, if the next one is at least `LEAST` farther away."""
    nearest = distances.nsmallest(2)
    if len(nearest) > 1 and nearest.iloc[1] - nearest.iloc[0] < LEAST:
        return f"no single arm in {what}"
    return f"{_name(nearest.index[0])} in {what}"


def _name(arm):
    return ARMS.get(arm, arm)
