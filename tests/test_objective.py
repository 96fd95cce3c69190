"""Losses and instruments against values computed by hand or by another program."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch.nn import functional as F

from lib import instruments
from lib.objective import adversarial_loss, discriminator_loss, reconstruction_loss


def test_losses_equal_torchs_cross_entropy_and_mean_error():
    torch.manual_seed(0)
    real, fake = torch.randn(3, 1, 7) * 4, torch.randn(3, 1, 7) * 4
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    halves = F.binary_cross_entropy_with_logits(real, one) + F.binary_cross_entropy_with_logits(fake, zero)
    torch.testing.assert_close(discriminator_loss(real, fake), halves / 2)
    torch.testing.assert_close(adversarial_loss(fake), F.binary_cross_entropy_with_logits(fake, one))
    assert reconstruction_loss(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])) == 2.5
    assert discriminator_loss(torch.zeros(2), torch.zeros(2)) == pytest.approx(np.log(2))  # guessing


def logits_of(score):
    return np.log(score / (1 - score))


def figures(real_train, real_heldout, fake_train, fake_heldout):
    values = (real_train, real_heldout, fake_train, fake_heldout)
    return instruments.measure({n: np.full(4, logits_of(v)) for n, v in zip(instruments.SETS, values, strict=True)})


def test_memorisation_ratios_by_hand():
    found = figures(0.9, 0.5, 0.1, 0.3)
    assert found["r_v_sigma"] == pytest.approx((0.9 - 0.5) / (0.9 - 0.1))
    assert found["r_f"] == pytest.approx((0.3 - 0.1) / (0.9 - 0.1))
    assert found["r_v_logit"] == pytest.approx(0.5)  # the logits lie symmetrically: half the way
    assert found["r_t"] == 1.0
    assert (found["tpr_train"], found["tpr_heldout"], found["tnr_train"], found["tnr_heldout"]) == (1, 0, 1, 1)
    assert found["bce_train"] == pytest.approx(-np.log(0.9))
    assert found["bce_heldout"] == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2)
    assert figures(0.5, 0.5, 0.5, 0.5)["r_v_sigma"] is None, "no difference between real and generated: no ratio"


def test_auc_is_mann_whitneys_u_with_ties():
    random = np.random.RandomState(0)
    a, b = random.randint(0, 9, 50) + 2.0, random.randint(0, 9, 70) * 1.0
    assert instruments.auc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (50 * 70))
    assert instruments.auc(np.ones(3), np.zeros(3)) == 1


def test_histograms_hold_every_logit():
    random = np.random.RandomState(0)
    found = instruments.measure({name: random.randn(1000) * 20 for name in instruments.SETS})
    assert all(sum(found[f"{name}_histogram"]) == 1000 for name in instruments.SETS)


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ((0.9, 0.15, 0.1, 0.1), "overfits"),
        ((0.9, 0.9, 0.1, 0.1), "dominates"),
        ((0.51, 0.51, 0.5001, 0.5001), "is too weak"),
    ],
)
def test_verdicts(scores, word):
    assert instruments.verdict(figures(*scores))[0] == word


def test_a_discriminator_that_errs_alike_everywhere_is_healthy():
    random = np.random.RandomState(0)
    real, fake = random.randn(2, 2000) + 1, random.randn(2, 2000) - 1
    found = instruments.measure(
        {"real_train": real[0], "real_heldout": real[1], "fake_train": fake[0], "fake_heldout": fake[1]}
    )
    assert instruments.verdict(found)[0] == "is healthy"
