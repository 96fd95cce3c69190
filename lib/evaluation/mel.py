"""Bleedless and fullness: what an estimate has too much and too little, by its mel spectrogram in dB.

bleedless = 100 / (1 + mean of the bins' positive differences), fullness = 100 / (1 + mean of the negative ones'
sizes), of all bins that differ in that direction: 100 is best. Each spectrogram has its own floor, 80 dB below its
loudest bin. NaN where the reference is silent throughout.

Source: `bleed_full` in utils/metrics.py of ZFTurbo's Music-Source-Separation-Training, whose settings these are.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from torchaudio.functional import melscale_fbanks

from lib.data.tracks import SAMPLERATE
from lib.evaluation.column import Column

N_FFT, HOP, BANDS = 4096, 1024, 512
RANGE, LEAST = 80.0, 1e-10  # dB below the loudest bin; magnitude that stands for none
PART = 64  # frames at a time: little memory, and it stays in the cache
COLUMNS = {
    "bleedless": Column("Bleedless (100 is best)", higher=True),
    "fullness": Column("Fullness (100 is best)", higher=True),
}
# Slaney's scale and areas, as librosa's; nearly all weights are zero
_filters = csr_array(
    melscale_fbanks(N_FFT // 2 + 1, 0, SAMPLERATE / 2, BANDS, SAMPLERATE, "slaney", "slaney").T.numpy()
)


def measure(references, estimates, mixture):
    """{column: values of the stems}; arrays (stems, channels, samples), full scale 1."""
    rows = [_of_stem(*pair) if pair[0].any() else (np.nan, np.nan) for pair in zip(references, estimates, strict=True)]
    return dict(zip(COLUMNS, np.transpose(rows), strict=True))


def _of_stem(reference, estimate):
    difference = _decibels(estimate) - _decibels(reference)
    # every bin counts that differs at all, as there
    above, below = (
        part.sum() / max(1, (part > 0).sum()) for part in (difference.clamp(min=0), -difference.clamp(max=0))
    )
    return 100 / (1 + above.item()), 100 / (1 + below.item())


def _decibels(audio):
    """(bands, frames of all channels)."""
    audio, window = torch.from_numpy(np.array(audio, np.float32)), torch.hann_window(N_FFT)
    padded = torch.nn.functional.pad(audio, (N_FFT // 2, N_FFT // 2))
    frames = padded.unfold(-1, N_FFT, HOP).flatten(0, 1)
    spectra = (torch.fft.rfft(part * window) for part in frames.split(PART))
    magnitudes = ((x.real.square() + x.imag.square()).sqrt() for x in spectra)  # twice as fast as x.abs()
    mel = torch.from_numpy(np.concatenate([_filters @ x.T.contiguous().numpy() for x in magnitudes], axis=1))
    db = 20 * mel.clamp(min=LEAST).log10()
    return db.clamp(min=db.max() - RANGE)
