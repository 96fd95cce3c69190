"""Is the detail there? Measures of an estimate that SDR does not see: the spectrum, and above all its upper end.

    lsd_*            log-spectral distance in dB, per band; 0: the same spectrogram
    high_band_ratio  energy above 8 kHz, estimate over reference, in dB; 0: as much, negative: dull
    mrstft           multi-resolution STFT distance; 0: the same magnitudes

Source: log-spectral distance after Gray & Markel, "Distance measures for speech processing" (1976), on bins of the
STFT; multi-resolution STFT distance (Yamamoto et al., arXiv 1910.11480) by auraloss (Steinmetz & Reiss 2020).
"""

import numpy as np
import torch
from auraloss.freq import MultiResolutionSTFTLoss

from lib.data.tracks import SAMPLERATE

BANDS = {  # Hz; MUSDB18 is AAC, which leaves nothing above 16 kHz
    "lsd_0_500": (0, 500),
    "lsd_500_2k": (500, 2_000),
    "lsd_2k_8k": (2_000, 8_000),
    "lsd_8k_16k": (8_000, 16_000),
}
MEASURES = (*BANDS, "high_band_ratio", "mrstft")
HIGH = 8_000  # Hz: where the high band begins
FLOOR = 1e-10  # power of a bin, -100 dB re a full-scale sine: below lies the rounding noise of 16 bits
N_FFT, HOP = 2048, 1024  # 46 ms and 23 ms at 44.1 kHz
SECONDS = 10.0  # a track is measured in excerpts of at most this length, so that memory does not grow with it
# Half-overlapping windows: auraloss' own hops, made for speech at 24 kHz, take eight times as long for 0.1 % of change.
SIZES = [2048, 1024, 512]
_mrstft = MultiResolutionSTFTLoss(SIZES, [size // 2 for size in SIZES], SIZES)
_frequencies = np.fft.rfftfreq(N_FFT, 1 / SAMPLERATE)


@torch.no_grad()
def spectral_measures(estimate, reference):
    """{measure: value} of `estimate` against `reference`, arrays (channels, samples) at 44,100 Hz, full scale 1.

    With P the power of an STFT bin re a full-scale sine, never below -100 dB:

    lsd_*: per frame and channel sqrt(mean over the band's bins of (10 log10(P_estimate / P_reference))^2), averaged
    over the frames and channels in which some bin of the reference, of any band, exceeds -100 dB.
    high_band_ratio: 10 log10(E_estimate / E_reference), E the sum of P over those frames and the bins from 8 kHz up
    that exceed -100 dB; an estimate without any counts as a single bin at -100 dB.
    mrstft: auraloss' spectral convergence plus L1 of log magnitudes, windows of 2048, 1024 and 512 samples; the median
    over excerpts of equal length, at most 10 s, that are not silent in the reference.

    NaN where the reference is silent throughout; high_band_ratio also where it has nothing above 8 kHz.
    """
    pair = np.stack([estimate, reference]).astype(np.float32)
    distances, frames, energy = [], [], np.zeros(2)
    for excerpt in np.array_split(pair, max(1, int(np.ceil(pair.shape[-1] / (SECONDS * SAMPLERATE)))), axis=-1):
        missing = max(0, N_FFT - excerpt.shape[-1])  # the longest window must fit in
        excerpt = torch.from_numpy(np.pad(excerpt, [(0, 0), (0, 0), (0, missing)]))
        power = _power(excerpt)
        heard = (power[1] > FLOOR).any(dim=-1)  # (channels, frames)
        if heard.any():
            level = 10 * power[:, heard].log10()  # (2, frames of all channels, bins)
            squares = (level[0] - level[1]).square()
            frames.append(torch.stack([squares[:, _between(*band)].mean(dim=-1).sqrt() for band in BANDS.values()]))
            high = power[:, heard][..., _between(HIGH, np.inf)]
            high[high <= FLOOR] = 0  # or many silent bins would count as sound
            energy += high.sum(dim=(1, 2), dtype=torch.float64).numpy()
            distances.append(_mrstft(excerpt[:1], excerpt[1:]).item())
    if not distances:
        return dict.fromkeys(MEASURES, float("nan"))
    ratio = 10 * np.log10(max(energy[0], FLOOR) / energy[1]) if energy[1] else np.nan
    lsd = torch.cat(frames, dim=1).mean(dim=1).tolist()
    return dict(zip(MEASURES, (*lsd, float(ratio), float(np.median(distances))), strict=True))


def _power(signals):
    """Power re a full-scale sine, at least FLOOR: (2, channels, frames, bins) of (2, channels, samples)."""
    window = torch.hann_window(N_FFT)
    options = {"window": window, "pad_mode": "constant", "return_complex": True}
    spectrum = torch.stft(signals.flatten(0, 1), N_FFT, HOP, **options).mT.unflatten(0, signals.shape[:2])
    return ((spectrum.real.square() + spectrum.imag.square()) / (window.sum() / 2) ** 2).clamp(min=FLOOR)


def _between(low, high):
    """Which bins lie in [low, high) Hz."""
    return torch.from_numpy((_frequencies >= low) & (_frequencies < high))
