"""Separation of any length, in chunks."""

import numpy as np
import pytest
import torch

from lib.demucs import Demucs
from lib.errors import UserError
from lib.separate import separate


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Demucs(channels=4, depth=3, lstm_layers=0)  # without LSTM a sample depends on its neighbourhood alone


def noise(samples, seed=0):
    return np.random.RandomState(seed).randn(2, samples).astype(np.float32) * 0.1 + 0.01


@pytest.mark.parametrize("samples", [1, 100, 44_100, 44_101, 100_000, 133_333])
def test_every_length_comes_back_whole(model, samples):
    estimates = separate(model, noise(samples), seconds=1.0)
    assert estimates.shape == (4, 2, samples) and torch.isfinite(estimates).all()


def test_chunks_give_what_the_whole_gives(model):
    """The network sees a grid of 4³ samples; where chunks begin on the whole's grid, both agree to rounding."""
    mixture = noise(150_016)

    def context(samples):
        return (model.valid_length(samples + 2 * 4**3) - samples) // 2  # as `separate` asks for

    length = next(n for n in range(32_000, 40_000, 640) if (context(n) - context(150_016)) % 64 == 0)
    whole = separate(model, mixture, seconds=60)
    for overlap in (0.0, 0.1, 0.5):
        chunks = separate(model, mixture, seconds=length / 44_100, overlap=overlap)
        torch.testing.assert_close(chunks, whole, rtol=1e-4, atol=1e-6)


def test_loudness_goes_through(model):
    mixture = noise(50_000)
    torch.testing.assert_close(separate(model, mixture * 8), separate(model, mixture) * 8, rtol=1e-4, atol=1e-6)


def test_silence_gives_silence(model):
    assert not separate(model, np.zeros((2, 30_000), np.float32)).any()


def test_shifts_average_and_are_reproducible(model):
    mixture = noise(60_000)
    a, b = (separate(model, mixture, shifts=3, seed=1) for _ in range(2))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert a.shape == (4, 2, 60_000) and not torch.equal(a, separate(model, mixture))


@pytest.mark.parametrize("bad", [np.zeros((1, 100)), np.zeros((2, 0)), np.full((2, 100), np.nan), np.zeros(100)])
def test_what_cannot_be_separated_is_refused(model, bad):
    with pytest.raises(UserError):
        separate(model, bad)
