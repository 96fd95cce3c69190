"""Spectral measures of an estimate, above all of its upper end: detail that SDR does not see.

All `MEASURES` are 0 for the same signal; a negative high_band_ratio is a dull estimate. To add one, write a function
and an entry in `MEASURES`, and raise `VERSION`.

Source: log-spectral distance after Gray & Markel, "Distance measures for speech processing" (1976), on bins of the
STFT; multi-resolution STFT distance (Yamamoto et al., arXiv 1910.11480) by auraloss (Steinmetz & Reiss 2020).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from auraloss.freq import MultiResolutionSTFTLoss

from lib.data.tracks import SAMPLERATE

VERSION = 1  # of the values; see lib.evaluation.score
HIGH = 8_000  # Hz: start of the high band
FLOOR = 1e-10  # power of a bin, -100 dB re a full-scale sine: below lies the rounding noise of 16 bits
N_FFT, HOP = 2048, 1024  # 46 ms and 23 ms at 44.1 kHz
SECONDS = 10.0  # longest excerpt: a track is measured excerpt by excerpt, so that memory does not grow with it
# Half-overlapping windows: auraloss' own hops, made for speech at 24 kHz, take eight times as long for 0.1 % of change.
SIZES = [2048, 1024, 512]
_mrstft = MultiResolutionSTFTLoss(SIZES, [size // 2 for size in SIZES], SIZES)
_frequencies = torch.from_numpy(np.fft.rfftfreq(N_FFT, 1 / SAMPLERATE))


class Measure(NamedTuple):
    """A column of the arms' table."""

    label: str  # in sentences
    # Of `audio` (2, channels, samples), estimate and reference, and of its `power` (2, frames, bins), that of all
    # channels' frames in which some bin of the reference exceeds `FLOOR`
    of_excerpt: Callable
    of_track: Callable  # of the values of all excerpts


def _log_spectral(low, high, audio, power):
    """Per frame, sqrt(mean of (10 log10(P_estimate / P_reference))²) over the bins from `low` to below `high` Hz."""
    estimate, reference = 10 * power[..., _between(low, high)].log10()
    return (estimate - reference).square().mean(dim=-1).sqrt()


def _mean(frames):
    return torch.cat(frames).mean().item()


def _high_energy(audio, power):
    """Energies (2,) of the bins from 8 kHz up that exceed `FLOOR`: together, silent bins would count as sound."""
    high = power[..., _between(HIGH, np.inf)]
    return torch.where(high > FLOOR, high, 0).sum(dim=(1, 2), dtype=torch.float64).numpy()


def _ratio(energies):
    """In dB; an estimate without energy counts as a single bin at `FLOOR`."""
    estimate, reference = np.sum(energies, axis=0)
    return float(10 * np.log10(max(estimate, FLOOR) / reference)) if reference else np.nan


def _between(low, high):
    return (_frequencies >= low) & (_frequencies < high)


MEASURES = {  # bands up to 16 kHz: MUSDB18 is AAC, which leaves nothing above
    "lsd_0_500": Measure("Log-spectral distance below 500 Hz (dB)", partial(_log_spectral, 0, 500), _mean),
    "lsd_500_2k": Measure("Log-spectral distance, 500 Hz to 2 kHz (dB)", partial(_log_spectral, 500, 2000), _mean),
    "lsd_2k_8k": Measure("Log-spectral distance, 2 to 8 kHz (dB)", partial(_log_spectral, 2000, 8000), _mean),
    "lsd_8k_16k": Measure("Log-spectral distance, 8 to 16 kHz (dB)", partial(_log_spectral, 8000, 16000), _mean),
    "high_band_ratio": Measure("Energy above 8 kHz, its distance from the true stem's (dB)", _high_energy, _ratio),
    "mrstft": Measure(
        "Multi-resolution STFT distance", lambda audio, _: _mrstft(audio[:1], audio[1:]).item(), np.median
    ),
}


@torch.no_grad()
def spectral_measures(estimate, reference):
    """{measure: value} of `estimate` against `reference`, arrays (channels, samples) at 44,100 Hz, full scale 1.

    Frames in which the reference is silent do not count. NaN where it is silent throughout; high_band_ratio also where
    it has nothing above 8 kHz.
    """
    window = torch.hann_window(N_FFT)
    options = dict(n_fft=N_FFT, hop_length=HOP, window=window, pad_mode="constant", return_complex=True)
    full_scale = (window.sum() / 2) ** 2  # power of a full-scale sine
    pair = np.stack([estimate, reference]).astype(np.float32)
    results = []  # one row per excerpt, one column per measure
    for audio in np.array_split(pair, max(1, int(np.ceil(pair.shape[-1] / (SECONDS * SAMPLERATE)))), axis=-1):
        missing = max(0, N_FFT - audio.shape[-1])  # the longest window must fit in
        audio = torch.from_numpy(np.pad(audio, [(0, 0), (0, 0), (0, missing)]))
        spectrum = torch.stft(audio.flatten(0, 1), **options).mT.unflatten(0, audio.shape[:2])
        power = ((spectrum.real.square() + spectrum.imag.square()) / full_scale).clamp(min=FLOOR)
        power = power[:, (power[1] > FLOOR).any(dim=-1)]  # (2, frames of all channels, bins)
        if power.shape[1]:
            results.append([measure.of_excerpt(audio, power) for measure in MEASURES.values()])
    if not results:
        return dict.fromkeys(MEASURES, float("nan"))
    columns = zip(MEASURES.items(), zip(*results, strict=True), strict=True)
    return {name: measure.of_track(column) for (name, measure), column in columns}
