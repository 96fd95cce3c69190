"""Measures of the waveform, bleedless and fullness against values that are known otherwise; all measures together."""

import numpy as np
import pytest
import torch
from auraloss.time import SISDRLoss
from torch_log_wmse import LogWMSE
from torchaudio.functional import melscale_fbanks
from torchaudio.transforms import AmplitudeToDB

from lib.evaluation import mel, waveform
from lib.evaluation.measures import FAMILIES, MEASURES, measure

RATE = 44_100


def stems(seed=0, seconds=1.5):
    return (0.1 * np.random.RandomState(seed).randn(4, 2, int(seconds * RATE))).astype(np.float32)


def waveforms(references, estimates):
    return waveform.measure(references, estimates, references.sum(0))


def test_ratios_by_hand():
    references = stems()
    energy = np.square(references, dtype=float).sum((1, 2))
    halved = waveforms(references, references / 2)
    np.testing.assert_allclose(halved["uSDR"], 10 * np.log10((energy + 1e-7) / (energy / 4 + 1e-7)))
    assert (halved["SI_SDR"] > 90).all()  # the level does not matter
    perfect = waveforms(references, references)["uSDR"]
    np.testing.assert_allclose(perfect, 10 * np.log10(energy / 1e-7), atol=1e-3)


def test_scale_invariant_sdr_is_auraloss():
    references, estimates = stems(), 0.3 * stems() + 0.05 * stems(1)
    theirs = SISDRLoss(zero_mean=False)
    flat = (torch.tensor(x).reshape(4, 1, 1, -1).double() for x in (estimates, references))
    expected = [-theirs(*pair) for pair in zip(*flat, strict=True)]
    np.testing.assert_allclose(waveforms(references, estimates)["SI_SDR"], expected, atol=1e-4)


def test_artefacts_are_what_no_combination_of_the_stems_explains():
    references = stems()
    mixing = np.random.RandomState(2).randn(4, 4).astype(np.float32)
    estimates = np.einsum("es,scn->ecn", mixing, references) + 0.02 * stems(1)
    basis = references.reshape(4, -1).T.astype(float)
    for k, found in enumerate(waveforms(references, estimates)["SI_SAR"]):
        e = estimates[k].ravel().astype(float)
        target = basis[:, k] * (basis[:, k] @ e) / (basis[:, k] @ basis[:, k])
        artefacts = e - basis @ np.linalg.lstsq(basis, e)[0]
        assert found == pytest.approx(10 * np.log10((target @ target) / (artefacts @ artefacts)), abs=1e-3)


def test_log_wmse_is_the_packages_own():
    references, estimates = stems(), stems() + 0.1 * stems(1)
    arrays = [torch.tensor(x) for x in (references.sum(0), estimates, references)]
    found = waveforms(references, estimates)["logWMSE"]
    for k in range(4):  # the package pools channels by the mean of logs
        expected = LogWMSE(sample_rate=RATE)(arrays[0][None], arrays[1][k][None, :, None], arrays[2][k][None, :, None])
        assert found[k] == pytest.approx(expected.item(), abs=1e-4)


def full(references, estimates):
    return mel.measure(references, estimates, None)


def test_bleedless_and_fullness_by_hand():
    references = stems()
    louder, softer = full(references, 2 * references), full(references, references / 2)
    step = 20 * np.log10(2)
    np.testing.assert_allclose(louder["bleedless"], 100 / (1 + step), rtol=1e-5)
    np.testing.assert_allclose(softer["fullness"], 100 / (1 + step), rtol=1e-5)
    assert (louder["fullness"] > 99.9).all() and (softer["bleedless"] > 99.9).all()


def test_bleedless_and_fullness_by_torchaudio():
    references, estimates = stems(), np.cumsum(stems(1), axis=-1) * 0.1
    filters = melscale_fbanks(2049, 0, RATE / 2, 512, RATE, "slaney", "slaney").T
    options = dict(
        n_fft=4096, hop_length=1024, window=torch.hann_window(4096), pad_mode="constant", return_complex=True
    )
    found = full(references, estimates)
    for k in range(4):
        db = [AmplitudeToDB("magnitude", 80)(filters @ torch.stft(torch.tensor(x[k]).float(), **options).abs())
              for x in (estimates, references)]  # fmt: skip
        difference = (db[0] - db[1]).flatten()
        above, below = difference[difference > 0].mean(), -difference[difference < 0].mean()
        assert found["bleedless"][k] == pytest.approx(100 / (1 + above.item()), rel=1e-3)
        assert found["fullness"][k] == pytest.approx(100 / (1 + below.item()), rel=1e-3)


def test_a_silent_stem_has_no_ratio_but_a_score_for_what_leaks_into_it():
    references = stems()
    references[1] = 0
    quiet, loud = (measure(references, references + level * stems(1), references.sum(0)) for level in (0.001, 0.1))
    nan = {name for name, value in quiet[1].items() if np.isnan(value)}
    assert nan == {"uSDR", "SI_SDR", "SI_SAR", "bleedless", "fullness", "high_band_ratio", "mrstft"}
    assert quiet[1]["logWMSE"] > loud[1]["logWMSE"] and quiet[1]["levels_2k_16k"] < loud[1]["levels_2k_16k"]
    assert not np.isnan([quiet[k][name] for k in (0, 2, 3) for name in MEASURES]).any()
    still = measure(references, 0 * references, references.sum(0))
    assert np.isfinite([value for name, value in still[0].items()]).all()  # a silent estimate has every score


def test_every_column_is_measured_and_truth_is_best():
    references = stems()
    rows = measure(references, references, references.sum(0))
    worse = measure(references, references + 0.3 * stems(1), references.sum(0))
    assert len(rows) == 4 and all(list(row) == list(MEASURES) for row in rows)
    assert len(MEASURES) == sum(len(family.COLUMNS) for family in FAMILIES), "no name is used twice"
    for name, column in MEASURES.items():
        best, other = rows[0][name], worse[0][name]
        assert (best > other) if column.higher else (best == pytest.approx(0, abs=1e-6) and abs(other) > 0)
