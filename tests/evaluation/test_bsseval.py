"""lib.evaluation.bsseval against museval, window by window, on short signals: museval is slow."""

import contextlib
import warnings
from functools import partial

import museval
import numpy as np
import pytest
import stempeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from lib.common.errors import UserError
from lib.evaluation import bsseval

NOISE = 100  # dB; ratios above this, or below its negative, are rounding noise in museval and here


def stems(samples=6000, sources=2, channels=2, seed=0):
    """16-bit sources of different colour, and estimates with leakage, a wrong gain, a wrong filter and some noise."""
    rng = np.random.default_rng(seed)
    references = []
    for j in range(sources):
        noise = rng.standard_normal((samples, channels)) @ (np.eye(channels) + 0.5)
        swell = 1 + np.sin(np.arange(samples) * (j + 1) / 700)
        references.append(lfilter([1], [1, 0.3 * j - 0.8], noise, axis=0) * swell[:, None])
    references = np.round(np.array(references) * 1000) / 32768
    leakage = 0.05 * references.sum(0) + 0.001 * rng.standard_normal(references.shape)
    estimates = lfilter([0.8, 0.1], [1], references, axis=1) + leakage
    return references, np.round(estimates * 32768) / 32768


METRICS = ("SDR", "ISR", "SIR", "SAR")


def museval_scores(references, estimates, win, hop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return museval.evaluate(references, estimates, win=win, hop=hop)


def assert_equal(references, estimates, win=2000, hop=2000, tolerance=1e-3, metrics=METRICS):
    expected = museval_scores(references, estimates, win, hop)
    actual = bsseval.evaluate(references, estimates, win, hop)
    for name, theirs, ours in zip(METRICS, expected, actual, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == np.float64, name
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), name)
        if name not in metrics:
            continue
        np.testing.assert_array_equal(np.isposinf(ours), np.isposinf(theirs), name)
        np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(theirs), name)
        finite = np.isfinite(theirs)
        ours, theirs = (np.clip(scores[finite], -NOISE, NOISE) for scores in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)
    return actual


@pytest.mark.parametrize(
    "win, hop",
    [
        (2000, 2000),  # the last 1,000 samples fill no window, but count in the filters
        (2000, 700),
        (1000, 1500),
        (9000, 9000),  # longer than the signal
        (6000, 1000),
        (300, 300),  # shorter than the filters
        (90, 60),
    ],
)
def test_windows(win, hop):
    scores = assert_equal(*stems(5000 if win == 2000 else 6000), win, hop)
    assert np.isfinite(scores).all()


def test_music_like_stems_of_four_sources():
    assert_equal(*stems(44100 * 2, sources=4), win=44100, hop=44100)


@contextlib.contextmanager
def short_filters():
    """Filters of 64 taps, here and in museval, whose time grows with the cube of taps, sources and channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bsseval, "TAPS", 64)
        patch.setattr(museval.metrics, "bss_eval", partial(museval.metrics.bss_eval, filters_len=64))
        yield


@pytest.mark.parametrize("sources, channels", [(1, 2), (1, 1), (2, 1), (6, 1), (2, 3)])
def test_counts_of_sources_and_channels(sources, channels):
    with short_filters():
        scores = assert_equal(*stems(sources=sources, channels=channels))
    assert np.isposinf(scores[2]).all() == (sources == 1)  # nothing can interfere with one source


@pytest.mark.parametrize("which", ["reference", "estimate"])
def test_silent_windows_are_nan_for_all_sources(which):
    signals = dict(zip(("reference", "estimate"), stems(), strict=True))
    signals[which][1, 2000:4000] = 0
    scores = assert_equal(signals["reference"], signals["estimate"])
    assert np.isnan(scores).all(axis=(0, 1)).tolist() == [False, True, False]


def test_antiphase_counts_as_silent():
    references, estimates = stems()
    references[0, 2000:4000, 1] = -references[0, 2000:4000, 0]
    assert np.isnan(assert_equal(references, estimates)[0][:, 1]).all()


def test_identical_channels():
    references, estimates = stems()
    references[..., 1] = references[..., 0]
    assert_equal(references, estimates)
    estimates[..., 1] = estimates[..., 0]
    assert_equal(references, estimates)


def test_identical_and_delayed_sources():
    references, estimates = stems()
    references[1] = references[0]
    assert_equal(references, estimates)
    references[1, 5:] = references[0, :-5]
    assert_equal(references, estimates)


def test_hard_panned_stems():
    references, estimates = stems()
    references[0, :, 1] = references[1, :, 0] = 0
    assert_equal(references, estimates)
    estimates[0, :, 1] = estimates[1, :, 0] = 0
    assert_equal(references, estimates)


def test_perfect_estimates():
    references, estimates = stems()
    assert np.isposinf(assert_equal(references, references)[0]).all()
    estimates[0] = references[0]
    assert np.isposinf(assert_equal(references, estimates)[0]).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("samples, sources, channels", [(1, 1, 1), (300, 1, 1), (300, 2, 1), (300, 2, 2), (900, 2, 2)])
def test_fewer_samples_than_the_filters_can_tell_apart(samples, sources, channels):
    assert_equal(*stems(samples, sources, channels))


def test_long_signals_cross_the_frames_of_the_correlations():
    assert_equal(*stems(70001, channels=1), win=44100, hop=30000)
    assert_equal(*stems(70001, channels=1), win=16384, hop=9000)  # as long as those frames, but not side by side


def test_scale_and_type_of_the_input():
    references, estimates = stems()
    assert_equal(references * 1e-9, estimates * 1e-9)  # museval's eps matters here
    assert_equal(references.astype(np.float32), estimates.astype(np.float32))
    assert_equal((references * 32768).astype(np.int16), (estimates * 32768).astype(np.int16))


def test_memory_layouts_give_the_same():
    references, estimates = stems()
    expected = bsseval.evaluate(references, estimates, 2000, 2000)
    read_only = np.asfortranarray(references)
    read_only.setflags(write=False)
    backwards = np.ascontiguousarray(estimates[:, ::-1])[:, ::-1]
    np.testing.assert_array_equal(bsseval.evaluate(read_only, backwards, 2000, 2000), expected)
    tensors = torch.tensor(references), torch.tensor(estimates, requires_grad=True)
    np.testing.assert_array_equal(bsseval.evaluate(*tensors, 2000, 2000), expected)


def test_real_music():
    """Stems of the STEM file that stempeg carries, decoded from AAC and rounded to 16 bits, as recordings would be."""
    _, drums, bass, other, vocals = stempeg.read_stems(stempeg.example_stem_path(), start=2, duration=3)[0]
    sources = np.array([drums + bass + other, vocals])
    rng = np.random.default_rng(0)
    estimates = 0.8 * sources + 0.1 * sources.sum(0) + 0.001 * rng.standard_normal(sources.shape)
    references, estimates = (np.round(x * 32768) / 32768 for x in (sources, estimates))
    scaled = museval_scores(references * 0.7, estimates * 0.7, 44100, 44100)
    change = np.abs(np.subtract(scaled, museval_scores(references, estimates, 44100, 44100))).max()
    assert_equal(references, estimates, 44100, 44100, tolerance=max(1e-3, change))


def test_spectra_too_large_to_hold_change_nothing(monkeypatch):
    """Windows side by side serve the correlations where they are long enough, and all at a time where memory allows."""
    references, estimates = stems(7 * 20000 + 999, channels=1)
    expected = assert_equal(references, estimates, 20000, 20000)
    for name, value in (("GROUP_BYTES", 2**21), ("FRAME", 30000)):
        monkeypatch.setattr(bsseval, name, value)
        np.testing.assert_allclose(bsseval.evaluate(references, estimates, 20000, 20000), expected, rtol=0, atol=1e-9)


def test_dense_solvers_equal_levinson(monkeypatch):
    """What a GPU uses, and what an ill-conditioned system falls back to."""
    references, estimates = stems()
    expected = bsseval.evaluate(references, estimates, 2000, 2000)
    for solver in "_cholesky", "_lu":
        monkeypatch.setattr(bsseval, "_levinson", getattr(bsseval, solver))
        np.testing.assert_allclose(bsseval.evaluate(references, estimates, 2000, 2000), expected, rtol=0, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_equals_cpu():
    references, estimates = stems(44100 * 2, sources=4)
    expected = bsseval.evaluate(references, estimates)
    on_gpu = bsseval.evaluate(torch.tensor(references).cuda(), torch.tensor(estimates).cuda())
    np.testing.assert_allclose(on_gpu, expected, rtol=0, atol=1e-6)


def test_threads_change_rounding_only_and_runs_nothing():
    references, estimates = stems(sources=3)
    threads, scores = torch.get_num_threads(), []
    try:
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            scores.append(bsseval.evaluate(references, estimates, 2000, 2000))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(scores[1], scores[2])
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("which, name", enumerate(["reference", "estimate"]))
def test_a_silent_source_is_refused_as_museval_does(which, name):
    signals = stems()
    signals[which][1] = 0
    with pytest.raises(ValueError):
        museval_scores(*signals, 2000, 2000)
    with pytest.raises(UserError, match=f"{name} of source 1 is silent"):
        bsseval.evaluate(*signals, 2000, 2000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_samples_that_are_no_numbers_are_refused(which, value):
    signals = stems()
    signals[which][1, 17, 0] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        bsseval.evaluate(*signals, 2000, 2000)


@pytest.mark.parametrize(
    "references, estimates, options, sentence",
    [
        (np.ones((2, 9, 2)), np.ones((2, 8, 2)), {}, r"shape \(2, 9, 2\) but the estimates \(2, 8, 2\)"),
        (np.ones((2, 9)), np.ones((2, 9)), {}, r"references have shape \(2, 9\)"),
        (np.ones((2, 9, 2)), np.ones((2, 0, 2)), {}, r"estimates have shape \(2, 0, 2\)"),
        (np.ones((2, 9, 2), complex), np.ones((2, 9, 2)), {}, "complex128"),
        (np.ones((2, 9, 2)), np.ones((2, 9, 2)), {"win": 0}, "win=0"),
        (np.ones((2, 9, 2)), np.ones((2, 9, 2)), {"hop": -1}, "hop=-1"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(references, estimates, options, sentence):
    with pytest.raises(UserError, match=sentence):
        bsseval.evaluate(references, estimates, **options)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
@short_filters()
def test_any_lengths_counts_and_silences(data):
    """Mono and stereo; lengths from below the filters to several windows; stretches of silence anywhere."""
    sources, channels = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 1), (2, 2)]))
    samples = data.draw(st.integers(1, 5000))
    references, estimates = stems(samples, sources, channels, seed=data.draw(st.integers(0, 99)))
    for signals in (references, estimates):
        for source in range(sources):
            start, length = data.draw(st.integers(0, samples)), data.draw(st.sampled_from([0, 400, 1500, 3000]))
            signals[source, start : start + length] = 0
    win, hop = data.draw(st.integers(50, 1500)), data.draw(st.integers(100, 1500))
    if any((signals.sum(-1) == 0).all(1).any() for signals in (references, estimates)):
        with pytest.raises(UserError, match="silent throughout"):
            bsseval.evaluate(references, estimates, win, hop)
    else:
        # With fewer sounding samples than delayed copies the projections are not determined: museval's LU of the
        # singular matrix moves by tens of dB under a change of scale. SDR, which needs none, and the pattern hold.
        sounding = min((signal != 0).any(-1).sum() for signal in references)
        metrics = METRICS if sounding >= bsseval.TAPS * sources * channels else ("SDR",)
        assert_equal(references, estimates, win, hop, metrics=metrics)
