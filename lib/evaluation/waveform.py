"""Measures of the waveform over a whole track, beside BSSEval v4's medians over seconds.

`COLUMNS` are NaN where the reference is silent throughout; logWMSE alone scores such a stem: by what leaks into it.

Sources: uSDR is the SDR of the Music Demixing Challenge (Mitsufuji et al., arXiv 2108.13559); SI-SDR and SI-SAR after
Le Roux et al., "SDR: half-baked or well done?" (arXiv 1811.02508); logWMSE by Jordal and Landschoot, of its own package
torch_log_wmse, the mean over channels of the whole track.
"""

from functools import cache

import numpy as np
import torch

from lib.data.tracks import SAMPLERATE
from lib.evaluation.column import Column

EPS = 1e-7  # added to every energy, as the challenge does: a perfect estimate has a finite score
PART = SAMPLERATE // 4  # samples that are added up at a time: little memory, and it stays in the cache
COLUMNS = {
    "uSDR": Column("SDR of the whole track (dB)", higher=True),
    "SI_SDR": Column("Scale-invariant SDR (dB)", higher=True),
    "SI_SAR": Column("Scale-invariant SAR (dB)", higher=True),
    "logWMSE": Column("Logarithmic weighted squared error", higher=True),
}


def measure(references, estimates, mixture):
    """{column: values of the stems}; arrays (stems, channels, samples) and (channels, samples), full scale 1."""
    values = {**_ratios(*_products(references, estimates)), "logWMSE": _log_wmse(references, estimates, mixture)}
    silent = ~np.any(references, axis=(1, 2))
    return {name: value if name == "logWMSE" else np.where(silent, np.nan, value) for name, value in values.items()}


def _products(references, estimates):
    """Inner products of all signals, channels as one long vector: (r, r), (e, r) and (e, e) of the same stem."""
    stems = len(references)
    total = np.zeros((2 * stems, 2 * stems))
    for start in range(0, references.shape[-1], PART):
        part = (x[..., start : start + PART].reshape(stems, -1) for x in (references, estimates))
        signals = np.concatenate([*part]).astype(np.float64)
        total += signals @ signals.T
    return total[:stems, :stems], total[stems:, :stems], np.diag(total)[stems:]


def _ratios(rr, er, ee):
    """uSDR, SI_SDR and SI_SAR of every stem, by the inner products alone.

    With a = (e, r) / (r, r) the target part of e is a r. SI_SAR's artefacts are what remains of e outside the span of
    all references: (e, e) - b (r, r)⁺ b with b = (e, all r).
    """
    energy, product = np.diag(rr), np.diag(er)
    target = product**2 / np.where(energy, energy, 1)
    explained = np.einsum("er,rs,es->e", er, np.linalg.pinv(rr, hermitian=True), er)
    errors = {"uSDR": energy - 2 * product + ee, "SI_SDR": ee - target, "SI_SAR": ee - explained}
    return {
        name: 10 * np.log10(((energy if name == "uSDR" else target) + EPS) / (np.maximum(error, 0) + EPS))
        for name, error in errors.items()
    }


def _log_wmse(references, estimates, mixture):
    arrays = (torch.from_numpy(np.array(x, np.float32, ndmin=3)) for x in (mixture, estimates, references))
    mixture, estimates, references = arrays
    processed, target = (x.transpose(0, 1)[None] for x in (estimates, references))  # (1, channels, stems, samples)
    return _metric().per_stem(mixture, processed, target)[0].mean(dim=0).numpy().astype(np.float64)


@cache
def _metric():
    from torch_log_wmse import LogWMSE  # takes a second

    return LogWMSE(sample_rate=SAMPLERATE)
