"""Calibrate a generator on songs that it never heard: give each stem its share of what the estimates confuse.

A generator is too sure of itself with sounds that it did not learn: a synthesiser that might be a voice goes to one
stem whole. `fit` finds the linear combination of the estimates with the least squared error on such songs, one matrix
for all of them (the linear least-squares estimate; Kay, *Estimation Theory*, 1993, section 8.3), and `fold` makes it a
part of the last layer, so that the network keeps its form and its cost.
"""

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.progress import progress
from lib.data.tracks import SAMPLERATE
from lib.demucs import Demucs
from lib.evaluation.score import estimate
from lib.evaluation.songs import QUIET


def check_foldable(model):
    """Raise `UserError` unless the last layer of `model` is linear and yields its estimates."""
    if not isinstance(model, Demucs) or model.upsample or model.projection:
        raise UserError("Only a Demucs without upsample and projection can be calibrated; leave --calibrate out.")


def fit(model, tracks):
    """The matrix (estimates, stems) whose product with the estimates of `tracks` is nearest to their stems.

    As for `lib.evaluation.songs`, the seconds of a stem are those in which it sounds. They count alike: the squared
    error of each is divided by the energy of its mixture. Raises `UserError` for a damaged track, or a stem that rests
    in all of them.
    """
    stems = len(model.stems)
    squares, crossed = np.zeros((stems, stems, stems)), np.zeros((stems, stems))
    for track in progress("calibrate", len(tracks), tracks):
        mixture, wanted = track.mixture(), track.stems()
        found = estimate(model, mixture, shifts=0, sources=stems)
        for start in range(0, mixture.shape[1] - SAMPLERATE + 1, SAMPLERATE):
            second = (..., slice(start, start + SAMPLERATE))
            x, y = (sound[second].reshape(stems, -1).astype(np.float64) for sound in (found, wanted))
            sounds = np.square(y).mean(1) > 10 ** (QUIET / 10)
            energy = max(np.square(mixture[second], dtype=np.float64).sum(), y.shape[1] * 10 ** (QUIET / 10))
            squares += sounds[:, None, None] * (x @ x.T) / energy
            crossed += sounds * (x @ y.T) / energy
    if resting := [name for name, square in zip(model.stems, squares, strict=True) if not square.any()]:
        raise UserError(f"No test song has a second in which {resting[0]} sounds; leave --calibrate out.")
    columns = [
        np.linalg.lstsq(square, column, rcond=None)[0] for square, column in zip(squares, crossed.T, strict=True)
    ]
    return np.stack(columns, 1)


def fold(model, matrix):
    """Let the last layer of `model` yield, as each stem, the combination of its estimates in a column of `matrix`."""
    check_foldable(model)
    last, matrix = model.decoder[-1][-1], torch.from_numpy(matrix).float()
    with torch.no_grad():
        weight = last.weight.unflatten(1, (model.sources, model.audio_channels))
        last.weight.copy_(torch.einsum("iecl,es->iscl", weight, matrix).flatten(1, 2))
        last.bias.copy_((matrix.T @ last.bias.unflatten(0, (model.sources, model.audio_channels))).flatten())
