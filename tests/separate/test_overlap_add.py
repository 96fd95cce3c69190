"""Separation of any length, in chunks."""

import numpy as np
import pytest
import torch

from lib import separate as module
from lib.common.errors import UserError
from lib.demucs import Demucs
from lib.separate import measure, separate, stream


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


def test_a_constant_beside_the_mixture_is_added_to_each_estimate(model):
    mixture = noise(50_000)
    torch.testing.assert_close(separate(model, mixture + 0.5), separate(model, mixture) + 0.5, rtol=0, atol=1e-5)


def test_shifts_are_drawn_from_half_a_second(model, monkeypatch):
    offsets, chunks = set(), module._chunks
    monkeypatch.setattr(
        module, "_chunks", lambda samples, offset, *more: offsets.add(offset) or chunks(samples, offset, *more)
    )
    separate(model, noise(500), shifts=5)
    assert offsets == set(np.random.RandomState(0).randint(22_050, size=5))


def test_shifts_average_and_are_reproducible(model):
    mixture = noise(60_000)
    a, b = (separate(model, mixture, shifts=3) for _ in range(2))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert a.shape == (4, 2, 60_000) and not torch.equal(a, separate(model, mixture))


def test_the_mean_of_shifts_sums_to_the_mixture():
    model = Demucs(channels=4, depth=2, lstm_layers=0, projection=True)  # its estimates do
    mixture = noise(60_000)
    mixture -= mixture.mean()  # which is added to every estimate, as in the original
    estimates = separate(model, mixture, seconds=0.5, shifts=3)
    torch.testing.assert_close(estimates.sum(0), torch.from_numpy(mixture), rtol=0, atol=1e-6)


def test_shifts_of_what_is_shorter_than_a_chunk(model):
    estimates = separate(model, noise(500), shifts=3)
    assert estimates.shape == (4, 2, 500) and estimates.isfinite().all() and estimates.any()


@pytest.mark.parametrize("shifts", [0, 3])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5])
def test_batches_of_chunks_change_nothing(model, shifts, overlap):
    mixture = noise(133_333)
    alone = separate(model, mixture, seconds=0.4, overlap=overlap, shifts=shifts, batch=1)
    for batch in (2, 6, 100):
        together = separate(model, mixture, seconds=0.4, overlap=overlap, shifts=shifts, batch=batch)
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)  # rounding of another matrix shape


@pytest.mark.parametrize("shifts", [0, 2])
def test_a_stream_in_any_blocks_gives_what_the_array_gives(model, shifts):
    mixture, random = noise(100_000), np.random.RandomState(0)
    cuts = np.sort(random.randint(100_000, size=20))
    level = measure([mixture], "noise")
    blocks = np.split(mixture, [*cuts, cuts[-1]], axis=1)  # the last cut twice: an empty block
    parts = list(stream(model, blocks, level, seconds=0.4, shifts=shifts))
    assert len(parts) > 1
    whole = separate(model, mixture, seconds=0.4, shifts=shifts)
    torch.testing.assert_close(torch.cat(parts, -1), whole, rtol=0, atol=1e-8)


def test_a_stream_holds_little_of_a_long_mixture(model):
    """It asks for no more than the next chunks with their context, however long the mixture is."""
    chunk, batch, seconds, taken, given = 8820, 3, 60, 0, 0
    mixture = noise(44_100)

    def blocks():
        nonlocal taken
        for _ in range(seconds):
            taken += mixture.shape[1]
            yield mixture

    level = measure(blocks(), "noise")
    taken, most = 0, 0
    for part in stream(model, blocks(), level, seconds=chunk / 44_100, batch=batch):
        most = max(most, taken - given)
        given += part.shape[-1]
    assert given == seconds * 44_100
    assert most <= batch * chunk + model.valid_length(chunk + 2 * model.margin) + 44_100  # and one block


def test_level_of_blocks_is_that_of_the_whole():
    """To 1e-9, though the mean is ten thousand times the deviation."""
    mixture = noise(100_000).astype(np.float64) * 1e-3 + 1
    level = measure(np.array_split(mixture, 7, axis=1), "noise")
    mono = mixture.mean(0)
    assert level.samples == 100_000
    assert level.mean == pytest.approx(mono.mean(), rel=1e-12)
    assert level.std == pytest.approx(mono.std(), rel=1e-9)


def test_a_constant_is_silence(model):
    assert not separate(model, np.full((2, 30_000), 0.3, np.float32)).any()


def test_the_model_is_as_before_also_when_the_stream_is_left(model):
    model.train()
    level = measure([noise(90_000)], "noise")
    parts = stream(model, [noise(90_000)], level, seconds=0.5, batch=1)
    next(parts)
    assert not model.training and torch.is_grad_enabled()
    parts.close()
    assert model.training


@pytest.mark.parametrize("bad", [np.zeros((1, 100)), np.zeros((2, 0)), np.full((2, 100), np.nan), np.zeros(100)])
def test_what_cannot_be_separated_is_refused(model, bad):
    with pytest.raises(UserError):
        separate(model, bad)
