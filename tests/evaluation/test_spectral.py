"""Each spectral measure against a value that is known otherwise."""

import numpy as np
import pytest
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from scipy import signal

from lib.evaluation.spectral import MEASURES, spectral_measures

RATE = 44_100
SIZES = [2048, 1024, 512]
BANDS = {"lsd_0_500": (0, 500), "lsd_500_2k": (500, 2_000), "lsd_2k_8k": (2_000, 8_000), "lsd_8k_16k": (8_000, 16_000)}


def noise(seed=0, seconds=3.0):
    """White noise in stereo, far above the floor of -100 dB in every bin."""
    return 0.1 * np.random.RandomState(seed).randn(2, int(seconds * RATE))


def distance(estimate, reference):
    """What auraloss itself says."""
    loss = MultiResolutionSTFTLoss(SIZES, [size // 2 for size in SIZES], SIZES)
    return loss(*(torch.tensor(x[None], dtype=torch.float32) for x in (estimate, reference))).item()


def test_a_gain_of_two_is_six_decibels_everywhere():
    measured = spectral_measures(2 * noise(), noise())
    assert list(measured) == list(MEASURES)
    for name in (*BANDS, "high_band_ratio"):
        assert measured[name] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert measured["mrstft"] == pytest.approx(1 + np.log(2), abs=1e-3)  # convergence |2X - X| / |X| plus log 2


def test_log_spectral_distance_of_two_noises_by_scipy():
    a, b = noise(1), noise(2)
    # scipy's "spectrum" halves a sine's amplitude: twice it reads 1 for a full-scale sine
    frequencies, _, spectra = signal.stft(np.stack([a, b])[..., : 125 * 1024], RATE, nperseg=2048, noverlap=1024)
    db = 10 * np.log10(np.maximum(np.abs(2 * spectra) ** 2, 1e-10))
    measured = spectral_measures(a[:, : 125 * 1024], b[:, : 125 * 1024])
    for name, (low, high) in BANDS.items():
        band = (frequencies >= low) & (frequencies < high)
        assert measured[name] == pytest.approx(np.sqrt(((db[0] - db[1])[:, band] ** 2).mean(1)).mean(), rel=1e-3)


def test_the_floor_is_a_hundred_decibels_below_a_full_scale_sine():
    # a sine of -60 dB on bin 46 (990 Hz) fills that bin, and its neighbours 6.02 dB lower; the estimate is silent
    sine = 1e-3 * np.sin(2 * np.pi * 46 / 2048 * np.arange(RATE * 3) + np.zeros((2, 1)))
    bins = sum(500 <= k * RATE / 2048 < 2000 for k in range(1025))
    expected = np.sqrt((40**2 + 2 * (40 - 6.02) ** 2) / bins)
    assert spectral_measures(0 * sine, sine)["lsd_500_2k"] == pytest.approx(
        expected, rel=0.02
    )  # the first and last frames


def test_distance_is_auraloss_own_and_a_long_track_gets_the_median_of_its_parts():
    a, b = noise(1, 12), noise(2, 12)
    b[:, 6 * RATE :] *= 3
    first, second = (distance(a[:, part], b[:, part]) for part in (slice(6 * RATE), slice(6 * RATE, None)))
    assert abs(first - second) > 0.1
    assert spectral_measures(a[:, : 6 * RATE], b[:, : 6 * RATE])["mrstft"] == pytest.approx(first, rel=1e-6)
    assert spectral_measures(a, b)["mrstft"] == pytest.approx((first + second) / 2, rel=1e-6)  # 12 s are two parts


def test_parts_weigh_by_what_is_heard_in_them(monkeypatch):
    monkeypatch.setattr("lib.evaluation.spectral.SECONDS", 1.0)
    reference = noise()
    reference[:, RATE // 2 : 2 * RATE] = 0  # of three parts the first sounds in its first half, the second not at all
    estimate = reference.copy()
    estimate[:, 2 * RATE :] *= 4
    measured = spectral_measures(estimate, reference)
    # 1 s gives 44 frames, centred on multiples of 1024 samples and half a window of 1024 to each side; the last that
    # reaches into the first half second is number 22. Their distances are 20 log10 4 and 0.
    for name in BANDS:
        assert measured[name] == pytest.approx(20 * np.log10(4) * 44 / (44 + 23), rel=1e-3)
    # energies are added up before their ratio is taken
    assert measured["high_band_ratio"] == pytest.approx(10 * np.log10((16 * 2 + 1) / (2 + 1)), abs=0.1)
    heard = [distance(estimate[:, part], reference[:, part]) for part in (slice(RATE), slice(2 * RATE, None))]
    assert measured["mrstft"] == pytest.approx(np.mean(heard), rel=1e-5)


def test_a_part_that_failed_does_not_move_the_distance(monkeypatch):
    monkeypatch.setattr("lib.evaluation.spectral.SECONDS", 1.0)
    reference, estimate = noise(), noise()
    estimate[:, :RATE] *= 2
    estimate[:, RATE : 2 * RATE] *= 30
    # 1 + log 2 and 29 + log 30 in two parts, 0 in the third: the median
    assert spectral_measures(estimate, reference)["mrstft"] == pytest.approx(1 + np.log(2), abs=1e-3)


def test_a_low_pass_takes_away_the_share_of_the_band_that_it_cuts():
    reference = noise()
    spectrum = np.fft.rfft(reference)
    spectrum[:, np.fft.rfftfreq(reference.shape[1], 1 / RATE) >= 12_000] = 0
    measured = spectral_measures(np.fft.irfft(spectrum, reference.shape[1]), reference)
    # white noise from 8 kHz to 22.05 kHz keeps (12 - 8) / (22.05 - 8) of its power
    assert measured["high_band_ratio"] == pytest.approx(10 * np.log10(4 / 14.05), abs=0.1)
    assert measured["lsd_2k_8k"] < 0.5 and measured["lsd_8k_16k"] > 20


def test_identical_signals_are_at_no_distance_however_short():
    for samples in (1, 700, 3 * RATE):
        x = noise()[:, :samples]
        assert spectral_measures(x, x) == pytest.approx(dict.fromkeys(MEASURES, 0), abs=1e-6)


def test_silence():
    x = noise()
    assert np.isnan(list(spectral_measures(x, 0 * x).values())).all()
    quiet = spectral_measures(0 * x, x)
    assert np.isfinite(list(quiet.values())).all() and quiet["lsd_8k_16k"] > 40 and quiet["high_band_ratio"] < -40
    # what the estimate does while the reference is silent, and 0.5 s from any sound, does not count
    reference, estimate = x.copy(), x.copy()
    reference[:, : 2 * RATE], estimate[:, : 2 * RATE] = 0, 0
    estimate[:, : RATE + RATE // 2] = x[:, : RATE + RATE // 2]
    measured = spectral_measures(estimate, reference)
    assert [measured[name] for name in (*BANDS, "high_band_ratio")] == pytest.approx([0] * 5, abs=1e-6)


def test_without_treble_there_is_no_ratio():
    hum = 0.1 * np.hanning(3 * RATE) * np.sin(2 * np.pi * 100 / RATE * np.arange(3 * RATE)) * np.ones((2, 1))
    measured = spectral_measures(noise(), hum)
    assert np.isnan(measured["high_band_ratio"]) and np.isfinite(measured["lsd_8k_16k"])
