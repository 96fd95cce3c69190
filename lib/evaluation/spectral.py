"""Spectral measures of an estimate, above all of its upper end: detail that SDR does not see.

All `COLUMNS` are 0 for the same signal; a negative high_band_ratio is a dull estimate.

Silence: a level below the floor counts as the floor, which lies `RANGE` dB (`LEVEL_RANGE` for levels_2k_16k) below
the mixture's mean level in the band. So every frame counts, also those where the reference is silent, and what leaks
into them; a stem that never sounds has a value too. What lies below the floor is masked by the mixture, or nearly so.
mrstft and high_band_ratio leave silent references out and are NaN where there is nothing else; high_band_ratio also
without energy above 8 kHz.

levels_2k_16k compares two distributions, not two spectrograms: per mel band, the mean distance between the sorted
levels of all frames (the earth mover's distance in one dimension). A distance of single bins, such as the log-spectral
distance, mean squared error or the spectral loss, is least for an estimate that is smooth where the truth is
uncertain; the distribution shows that its peaks and pauses are gone. It does not see when a level occurs: SDR does.

Sources: log-spectral distance after Gray & Markel, "Distance measures for speech processing" (1976), on bins of the
STFT; multi-resolution STFT distance (Yamamoto et al., arXiv 1910.11480) by auraloss (Steinmetz & Reiss 2020);
distance of distributions instead of signals: Blau & Michaeli (CVPR 2018); marginal statistics of band levels as what is
heard of a texture: McDermott & Simoncelli (Neuron 71, 2011).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from torchaudio.functional import melscale_fbanks

from lib.data.tracks import SAMPLERATE
from lib.evaluation.column import Column

HIGH = 8_000  # Hz: start of the high band
FLOOR = 1e-10  # power of a bin, -100 dB re a full-scale sine: below lies the rounding noise of 16 bits
# dB of the floors below the mixture's mean level. Chosen by lib.evaluation.checks on tracks of the corpus: with lower
# floors, noise that nobody hears in the mix outweighs missing treble.
RANGE, LEVEL_RANGE = 10.0, 20.0  # of a bin, and of a mel band
N_FFT, HOP = 2048, 1024  # 46 ms and 23 ms at 44.1 kHz
SECONDS = 10.0  # longest excerpt: a track is measured excerpt by excerpt, so that memory does not grow with it
LEVELS, LEVEL_BANDS = (2_000.0, 16_000.0), 40  # Hz, and mel bands: a third to an eighth of an octave
# Half-overlapping windows: auraloss' own hops, made for speech at 24 kHz, take eight times as long for 0.1 % of change.
SIZES = [2048, 1024, 512]
_mrstft = MultiResolutionSTFTLoss(SIZES, [size // 2 for size in SIZES], SIZES)
_frequencies = torch.from_numpy(np.fft.rfftfreq(N_FFT, 1 / SAMPLERATE))
_level_filters = melscale_fbanks(N_FFT // 2 + 1, *LEVELS, LEVEL_BANDS, SAMPLERATE)


class Excerpt(NamedTuple):
    """Up to `SECONDS` of a stem, first the estimate, then the reference."""

    audio: torch.Tensor  # (2, channels, samples)
    power: torch.Tensor  # (2, channels, frames, bins), at least `FLOOR`
    mixture: torch.Tensor  # the mixture's mean power, (bins,), over the whole track

    def heard(self):
        """`power` (2, frames, bins) of all channels' frames in which some bin of the reference exceeds `FLOOR`."""
        frames = self.power.flatten(1, 2)
        return frames[:, (frames[1] > FLOOR).any(dim=-1)]


class Measure(NamedTuple):
    """A column, and how it is computed."""

    label: str
    of_excerpt: Callable  # of an `Excerpt`
    of_track: Callable  # of the values of all excerpts
    of_silence: bool = False  # excerpts with a silent reference count


def _between(low, high):
    return (_frequencies >= low) & (_frequencies < high)


def _floor(mean_power, below):
    return max(FLOOR, 10 ** (-below / 10) * mean_power.mean().item())


def _log_spectral(low, high, excerpt):
    """Per frame, sqrt(mean of (10 log10(P_estimate / P_reference))²) over the bins from `low` to below `high` Hz."""
    bins = _between(low, high)
    estimate, reference = 10 * excerpt.power[..., bins].clamp(min=_floor(excerpt.mixture[bins], RANGE)).log10()
    return (estimate - reference).square().mean(dim=-1).sqrt().flatten()


def _levels(excerpt):
    """Levels (2, channels, frames, mel bands) in dB."""
    floor = _floor(excerpt.mixture @ _level_filters, LEVEL_RANGE)
    return 10 * (excerpt.power @ _level_filters).clamp(min=floor).log10()


def _distribution_distance(parts):
    estimate, reference = torch.cat(parts, dim=2).sort(dim=2).values
    return (estimate - reference).abs().mean().item()


def _mean(frames):
    return torch.cat(frames).mean().item()


def _high_energy(excerpt):
    """Energies (2,) of the bins from 8 kHz up that exceed `FLOOR`: together, silent bins would count as sound."""
    high = excerpt.heard()[..., _between(HIGH, np.inf)]
    return torch.where(high > FLOOR, high, 0).sum(dim=(1, 2), dtype=torch.float64).numpy()


def _ratio(energies):
    """In dB; an estimate without energy counts as a single bin at `FLOOR`."""
    estimate, reference = np.sum(energies, axis=0)
    return float(10 * np.log10(max(estimate, FLOOR) / reference)) if reference else np.nan


def _stft(loss, audio):
    """What `loss` calls: magnitudes as auraloss computes them, and None for the phase, which no term of it uses."""
    options = dict(window=loss.window, return_complex=True)
    spectrum = torch.stft(audio, loss.fft_size, loss.hop_size, loss.win_length, **options)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=loss.eps).sqrt(), None


for _loss in _mrstft.stft_losses:
    _loss.stft = partial(_stft, _loss)


def _stft_distance(excerpt):
    return _mrstft(excerpt.audio[:1], excerpt.audio[1:]).item()


_MEASURES = {  # bands up to 16 kHz: MUSDB18 is AAC, which leaves nothing above
    "lsd_0_500": Measure("Log-spectral distance below 500 Hz (dB)", partial(_log_spectral, 0, 500), _mean, True),
    "lsd_500_2k": Measure(
        "Log-spectral distance, 500 Hz to 2 kHz (dB)", partial(_log_spectral, 500, 2000), _mean, True
    ),
    "lsd_2k_8k": Measure("Log-spectral distance, 2 to 8 kHz (dB)", partial(_log_spectral, 2000, 8000), _mean, True),
    "lsd_8k_16k": Measure("Log-spectral distance, 8 to 16 kHz (dB)", partial(_log_spectral, 8000, 16000), _mean, True),
    "levels_2k_16k": Measure(
        "Distance of the distributions of levels, 2 to 16 kHz (dB)", _levels, _distribution_distance, True
    ),
    "high_band_ratio": Measure("Energy above 8 kHz, its distance from the true stem's (dB)", _high_energy, _ratio),
    "mrstft": Measure("Multi-resolution STFT distance", _stft_distance, np.median),
}
COLUMNS = {name: Column(measure.label) for name, measure in _MEASURES.items()}


@torch.no_grad()
def measure(references, estimates, mixture):
    """{column: values of the stems}; arrays (stems, channels, samples) and (channels, samples), full scale 1."""
    mean_power = torch.stack([_power(part).sum(dim=(0, 1)) for part in _excerpts(mixture)]).sum(dim=0)
    mean_power /= sum(len(mixture) * (part.shape[-1] // HOP + 1) for part in _excerpts(mixture))
    rows = [_of_stem(*pair, mean_power) for pair in zip(estimates, references, strict=True)]
    return {name: [row[name] for row in rows] for name in COLUMNS}


def spectral_measures(estimate, reference, mixture):
    """{column: value} of one stem; arrays (channels, samples) at 44,100 Hz, full scale 1."""
    return {name: value for name, [value] in measure(reference[None], estimate[None], mixture).items()}


def _of_stem(estimate, reference, mixture):
    found = {name: [] for name in COLUMNS}
    for audio in _excerpts(np.stack([estimate, reference])):
        excerpt = Excerpt(audio, _power(audio), mixture)
        sounds = bool((excerpt.power[1] > FLOOR).any())
        for name, values in found.items():
            if sounds or _MEASURES[name].of_silence:
                values.append(_MEASURES[name].of_excerpt(excerpt))
    return {name: _MEASURES[name].of_track(values) if values else np.nan for name, values in found.items()}


def _excerpts(audio):
    """The parts of `audio` (…, samples), as equal as can be, each at least a window long."""
    audio = np.asarray(audio, np.float32)
    for part in np.array_split(audio, max(1, int(np.ceil(audio.shape[-1] / (SECONDS * SAMPLERATE)))), axis=-1):
        missing = max(0, N_FFT - part.shape[-1])
        yield torch.from_numpy(np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, missing)]))


def _power(audio):
    """Power (…, frames, bins) of `audio` (…, samples), re a full-scale sine and at least `FLOOR`."""
    window = torch.hann_window(N_FFT)
    options = dict(n_fft=N_FFT, hop_length=HOP, window=window, pad_mode="constant", return_complex=True)
    spectrum = torch.stft(audio.flatten(0, -2), **options).mT.unflatten(0, audio.shape[:-1])
    return ((spectrum.real.square() + spectrum.imag.square()) / (window.sum() / 2) ** 2).clamp(min=FLOOR)
