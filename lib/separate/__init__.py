"""Separate a mixture of any length with a trained generator, in overlapping chunks; `__main__.py` is the command.

Source: the original averages estimates over random shifts (Défossez et al., arXiv 1911.13254, section 5.3). Chunks
with true context on both sides, cross-faded, keep memory independent of the length.
"""

from collections import namedtuple

import numpy as np
import torch
from torch.nn.functional import pad

from lib.common.errors import UserError
from lib.data.tracks import SAMPLERATE
from lib.demucs import center_trim

BLOCK = 2**18  # samples that are normalised, or returned, at once


def separate(model, mixture, **options):
    """Estimates (sources, channels, time) of `mixture` (channels, time), float32, any scale; options: see `stream`.

    Raises `UserError` for a wrong number of channels, no samples, or NaN.
    """
    mixture = torch.as_tensor(np.asarray(mixture), dtype=torch.float32)
    if mixture.ndim != 2 or mixture.shape[0] != model.audio_channels:
        raise UserError(f"The mixture has shape {tuple(mixture.shape)}; ({model.audio_channels}, samples) is needed.")
    estimates, done = torch.empty(model.sources, *mixture.shape), 0
    for part in stream(model, mixture.split(BLOCK, 1), measure([mixture], "The mixture"), **options):
        estimates[..., done : done + part.shape[-1]] = part
        done += part.shape[-1]
    return estimates


# Length of a mixture, and mean and standard deviation of its mono sum
Level = namedtuple("Level", "samples mean std")


def measure(blocks, name):
    """The `Level` of a mixture given as `blocks` (channels, time), merged stably (Chan, Golub, LeVeque, 1983).

    Raises `UserError` about `name` if there are no samples, or NaN or infinite ones.
    """
    samples, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        mono = torch.as_tensor(block).double().mean(0)
        if not torch.isfinite(mono).all():
            raise UserError(f"{name} holds NaN or infinite samples; export it again.")
        if count := len(mono):
            step = mono.mean().item() - mean
            squares += mono.var(correction=0).item() * count + step**2 * samples * count / (samples + count)
            samples += count
            mean += step * count / samples
    if not samples:
        raise UserError(f"{name} holds no samples.")
    return Level(samples, mean, (squares / samples) ** 0.5)


@torch.no_grad()
def stream(model, blocks, level, *, seconds=10.0, overlap=0.1, shifts=0, batch=6):
    """Yield the estimates of a mixture of any length, (sources, channels, time), part by part.

    blocks: the mixture in parts (channels, time) of any lengths; level: of the whole mixture; seconds: length of a
    chunk; overlap: share of a chunk that is cross-faded with the next; shifts: number of random shifts in [0, 0.5 s)
    whose estimates are averaged (10 in the paper; 0: one unshifted estimate); batch: chunks per forward pass, for which
    the LSTM's weights are read once. The mixture is normalised by its own mono mean and standard deviation, as in the
    original; silence gives silence. Memory depends on `seconds` and `batch` only.
    """
    if level.std < 1e-8:
        yield from (torch.zeros(model.sources, *block.shape) for block in blocks)
        return
    offsets = np.random.RandomState(0).randint(SAMPLERATE // 2, size=shifts).tolist() if shifts else [0]
    length = min(round(seconds * SAMPLERATE), level.samples + max(offsets))
    fade = min(round(overlap * length), length // 2)
    chunks = sorted(chunk for offset in offsets for chunk in _chunks(level.samples, offset, length, fade))
    valid = model.valid_length(length + 2 * model.margin)
    normalised = ((torch.as_tensor(block) - level.mean) / level.std for block in blocks)
    inputs = _inputs(normalised, [start - (valid - length) // 2 for start, *_ in chunks], valid)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        # All groups share these buffers, as new ones would fragment the memory. `sums` begins at sample `done`.
        mixtures = torch.empty(min(batch, len(chunks)), model.audio_channels, valid)
        longest = min((batch - 1) * (length - fade) + length, level.samples)
        sums, done = torch.zeros(model.sources, model.audio_channels, longest), 0
        for first in range(0, len(chunks), batch):
            group = chunks[first : first + batch]
            for mixture in mixtures[: len(group)]:
                mixture.copy_(next(inputs))
            estimates = model(mixtures[: len(group)].to(device))
            _add(sums, done, group, center_trim(estimates, length).cpu(), fade, level.samples)
            del estimates  # frees memory for the next group
            complete = max(chunks[first + batch][0], 0) if first + batch < len(chunks) else level.samples
            parts = sums[..., : complete - done].split(BLOCK, dim=-1)
            yield from (part * (level.std / len(offsets)) + level.mean for part in parts)
            rest = sums[..., complete - done :][..., :length].clone()
            sums.zero_()[..., : rest.shape[-1]] = rest
            done = complete
    finally:
        model.train(was_training)


def _chunks(samples, offset, length, fade):
    """(start, is first, is last) of each chunk of `length` samples; the first starts `offset` samples before 0."""
    starts = range(-offset, max(samples - fade, 1 - offset), length - fade)
    return [(start, start == starts[0], start == starts[-1]) for start in starts]


def _inputs(blocks, starts, samples):
    """Yield `samples` samples of the mixture from each of the ascending `starts`, padded with zeros at its ends."""
    blocks = iter(blocks)
    held, begin = next(blocks), 0
    for start in starts:
        while begin + held.shape[-1] < start + samples and (block := next(blocks, None)) is not None:
            held = torch.cat([held, block], dim=-1)
        passed = min(max(start - begin, 0), held.shape[-1])
        held, begin = held[:, passed:], begin + passed
        before = max(-start, 0)
        part = held[:, : max(samples - before, 0)]
        yield pad(part, (before, samples - before - part.shape[-1]))


def _add(sums, done, chunks, estimates, fade, samples):
    """Add the cross-faded estimates of `chunks` to `sums`, which begin at sample `done` of `samples`."""
    length, rise = estimates.shape[-1], torch.arange(1, fade + 1) / (fade + 1)
    for (start, is_first, is_last), estimate in zip(chunks, estimates, strict=True):
        weights = torch.ones(length)
        if not is_first:
            weights[:fade] = rise
        if not is_last:
            weights[length - fade :] = rise.flip(0)
        begin, stop = max(start, 0), min(start + length, samples)
        sums[..., begin - done : stop - done] += (estimate * weights)[..., begin - start : stop - start]
