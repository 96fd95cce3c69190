"""Each spectral measure against a value that is known otherwise."""

import numpy as np
import pytest
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from scipy import signal, stats

from lib.evaluation import spectral
from lib.evaluation.spectral import COLUMNS

RATE = 44_100
SIZES = [2048, 1024, 512]
BANDS = {"lsd_0_500": (0, 500), "lsd_500_2k": (500, 2_000), "lsd_2k_8k": (2_000, 8_000), "lsd_8k_16k": (8_000, 16_000)}


def noise(seed=0, seconds=3.0):
    """White noise in stereo, far above the floor of -100 dB in every bin."""
    return 0.1 * np.random.RandomState(seed).randn(2, int(seconds * RATE))


def spectral_measures(estimate, reference, mixture=None):
    """By default beside a mixture so quiet that every floor lies at -100 dB."""
    return spectral.spectral_measures(estimate, reference, 1e-5 * noise(9) if mixture is None else mixture)


def distance(estimate, reference):
    """What auraloss itself says."""
    loss = MultiResolutionSTFTLoss(SIZES, [size // 2 for size in SIZES], SIZES)
    return loss(*(torch.tensor(x[None], dtype=torch.float32) for x in (estimate, reference))).item()


def test_a_gain_of_two_is_six_decibels_everywhere():
    measured = spectral_measures(2 * noise(), noise())
    assert list(measured) == list(COLUMNS)
    for name in (*BANDS, "levels_2k_16k", "high_band_ratio"):
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
    # 1 s gives 44 frames; their distances are 0, 0 and 20 log10 4
    for name in (*BANDS, "levels_2k_16k"):
        assert measured[name] == pytest.approx(20 * np.log10(4) / 3, rel=1e-3)
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
        assert spectral_measures(x, x) == pytest.approx(dict.fromkeys(COLUMNS, 0), abs=1e-6)


def test_silence():
    x = noise()
    leaks = spectral_measures(0.1 * x, 0 * x, x)  # into a stem that never sounds
    assert np.isnan([leaks.pop(name) for name in ("high_band_ratio", "mrstft")]).all()
    assert all(value > 0 for value in leaks.values())
    kept_silent = spectral_measures(0 * x, 0 * x, x)
    assert [kept_silent[name] for name in leaks] == [0] * len(leaks)
    quiet = spectral_measures(0 * x, x)
    assert np.isfinite(list(quiet.values())).all() and quiet["lsd_8k_16k"] > 40 and quiet["high_band_ratio"] < -40
    # what the estimate does while the reference is silent counts in the distances of levels, not in the energy
    reference, estimate = x.copy(), x.copy()
    reference[:, : 2 * RATE], estimate[:, : 2 * RATE] = 0, 0
    estimate[:, : RATE + RATE // 2] = x[:, : RATE + RATE // 2]
    measured = spectral_measures(estimate, reference, x)
    assert measured["high_band_ratio"] == pytest.approx(0, abs=1e-6)
    assert all(measured[name] > 1 for name in (*BANDS, "levels_2k_16k"))
    same = spectral_measures(np.zeros_like(x), np.zeros_like(x), np.zeros_like(x))
    assert [same[name] for name in leaks] == [0] * len(leaks)


def test_what_the_mixture_masks_does_not_count():
    # white noise in the mixture; the stem's noise is 30 dB below it and missing in the estimate
    x = noise()
    measured = spectral_measures(0 * x, 10**-1.5 * noise(1), x)
    assert all(measured[name] == pytest.approx(0, abs=0.01) for name in (*BANDS, "levels_2k_16k"))
    # 10 dB above the mixture, the floor is 20 dB (30 dB in mel bands) below the stem's mean level; a bin of white noise
    # has an exponential distribution of power, whose mean log lies 2.51 dB below
    measured = spectral_measures(0 * x, 10**0.5 * noise(1), x)
    assert measured["levels_2k_16k"] == pytest.approx(30, abs=1) and 17 < measured["lsd_8k_16k"] < 20


def test_distance_of_distributions_by_scipy():
    a, b = noise(1), (0.1 + np.hanning(3 * RATE)) * noise(2)
    spectra = signal.stft(np.stack([a, b])[..., : 125 * 1024], RATE, nperseg=2048, noverlap=1024)[2]
    edges = 700 * (10 ** (np.linspace(*2595 * np.log10(1 + np.array([2000, 16_000]) / 700), 42) / 2595) - 1)
    f = np.arange(1025) * RATE / 2048
    filters = [np.interp(f, edges[k : k + 3], [0, 1, 0], left=0, right=0) for k in range(40)]
    db = 10 * np.log10(np.einsum("ecft,kf->eckt", np.abs(2 * spectra) ** 2, filters))
    expected = np.mean([stats.wasserstein_distance(*db[:, c, k]) for c in range(2) for k in range(40)])
    measured = spectral_measures(a[:, : 125 * 1024], b[:, : 125 * 1024])
    assert measured["levels_2k_16k"] == pytest.approx(expected, rel=1e-3)


def test_distributions_do_not_see_when_but_see_what_is_smooth():
    pulses = noise() * (np.arange(3 * RATE) % (RATE // 2) < RATE // 16)
    backwards = spectral_measures(pulses[:, ::-1], pulses, pulses)
    assert backwards["levels_2k_16k"] < 1 < backwards["lsd_2k_8k"]
    smooth = noise() * np.sqrt(np.mean(pulses**2) / np.mean(noise() ** 2))  # of the same energy
    assert spectral_measures(smooth, pulses, pulses)["levels_2k_16k"] > 5


def test_without_treble_there_is_no_ratio():
    hum = 0.1 * np.hanning(3 * RATE) * np.sin(2 * np.pi * 100 / RATE * np.arange(3 * RATE)) * np.ones((2, 1))
    measured = spectral_measures(noise(), hum)
    assert np.isnan(measured["high_band_ratio"]) and np.isfinite(measured["lsd_8k_16k"])
