"""Separate a mixture of any length with a trained generator.

Source: the original averages estimates over random shifts (Défossez et al., arXiv 1911.13254, section 5.3); chunks
with true context on both sides, cross-faded, keep memory independent of the length.
"""

import numpy as np
import torch

from lib.data import SAMPLERATE
from lib.errors import UserError


@torch.no_grad()
def separate(model, mixture, *, seconds=10.0, overlap=0.1, shifts=0, seed=0):
    """Estimates (sources, channels, time) of `mixture` (channels, time), float32, any scale.

    seconds: length of a chunk; overlap: share of a chunk that is cross-faded with its neighbour; shifts: estimates
    for so many random shifts in [0, 0.5 s) are averaged (10 in the paper; 0: one estimate, unshifted); seed: of the
    shifts. The mixture is normalised by its own mono mean and standard deviation, as the original does; silence gives
    silence. Raises `UserError` for a wrong number of channels, no samples, or NaN.
    """
    mixture = torch.as_tensor(np.asarray(mixture), dtype=torch.float32)
    if mixture.ndim != 2 or mixture.shape[0] != model.audio_channels:
        raise UserError(f"The mixture has shape {tuple(mixture.shape)}; ({model.audio_channels}, samples) is needed.")
    if not mixture.shape[1] or not torch.isfinite(mixture).all():
        raise UserError("The mixture holds no samples, or NaN or infinite ones.")
    mono = mixture.mean(0)
    mean, std = mono.mean(), mono.std(correction=0)
    if std < 1e-8:
        return torch.zeros(model.sources, *mixture.shape)
    was_training = model.training
    model.eval()
    normalised = (mixture - mean) / std
    random = np.random.RandomState(seed)
    offsets = random.randint(SAMPLERATE // 2, size=shifts) if shifts else [0]
    total = sum(
        _chunks(model, torch.nn.functional.pad(normalised, (int(k), 0)), seconds, overlap)[..., int(k) :]
        for k in offsets
    )
    model.train(was_training)
    return total / len(offsets) * std + mean


def _chunks(model, mixture, seconds, overlap):
    """Estimates chunk by chunk; a chunk sees its true neighbourhood, and zeros only beyond the ends."""
    device = next(model.parameters()).device
    total = mixture.shape[-1]
    length = min(round(seconds * SAMPLERATE), total)
    valid = model.valid_length(length + 2 * model.margin)
    fade = min(round(overlap * length), length // 2) if total > length else 0
    hop = length - fade
    context = (valid - length) // 2
    padded = torch.nn.functional.pad(mixture, (context, valid + hop))
    ramp = torch.ones(length)
    if fade:
        rise = torch.arange(1, fade + 1) / (fade + 1)
        ramp[:fade], ramp[-fade:] = rise, rise.flip(0)
    out = torch.zeros(model.sources, *mixture.shape)
    weight = torch.zeros(total)
    for start in range(0, max(total - fade, 1), hop):
        estimate = model(padded[None, :, start : start + valid].to(device))[0].cpu()
        surplus = (estimate.shape[-1] - length) // 2
        stop = min(start + length, total)
        out[..., start:stop] += (estimate[..., surplus : surplus + length] * ramp)[..., : stop - start]
        weight[start:stop] += ramp[: stop - start]
    return out / weight
