"""Losses and metrics of memorisation against values computed by hand or by another program."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from torch.nn import functional as F

from lib import memorisation
from lib.data.tracks import SOURCES
from lib.discriminator import build, level
from lib.losses import (
    Balancer,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    lecam_penalty,
    r1_penalty,
    reconstruction_loss,
    spectral_loss,
)

# Logits of two sub-discriminators, on real and on generated stems; the second has more of them
PAIRS = {
    "a": (torch.tensor([0.0, 2.0]), torch.tensor([1.0, -3.0])),
    "b": (torch.tensor([-1.0, 1.0, 3.0, 1.0]), torch.tensor([0.0, -2.0, 1.0, -1.0])),
}
GENERATED = {name: ([], generated) for name, (_, generated) in PAIRS.items()}


def test_reconstruction_is_the_mean_absolute_error():
    assert reconstruction_loss(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])) == 2.5


def test_the_spectral_loss_by_hand_takes_its_resolutions_in_turn():
    """Mean absolute differences of the magnitudes and of their logarithms; magnitudes of at least 1e-4."""
    random = np.random.RandomState(0)
    estimates, stems = random.randn(2, 3, 4, 2, 8192) * 0.3
    stems[0, 1] = 0  # a silent stem
    found = [spectral_loss(torch.tensor(estimates), torch.tensor(stems), step).item() for step in range(4)]
    for window, value in zip((2048, 1024, 512, 2048), found, strict=True):
        hann = np.hanning(window + 1)[:-1]
        sizes = []
        for x in (estimates, stems):
            frames = np.lib.stride_tricks.sliding_window_view(x, window, axis=-1)[..., :: window // 2, :]
            sizes.append(np.maximum(np.abs(np.fft.rfft(frames * hann)), 1e-4))
        a, b = sizes
        assert value == pytest.approx(np.abs(a - b).mean() + np.abs(np.log(a) - np.log(b)).mean(), rel=1e-5)


def test_the_gradient_of_the_spectral_loss_is_torchs():
    random = torch.Generator().manual_seed(0)
    estimates, stems = torch.randn(2, 2, 2, 2, 5000, generator=random, dtype=torch.float64)  # no multiple of a window
    estimates[0, 1] = 0  # silence has no direction
    estimates.requires_grad_()
    for step, window in enumerate((2048, 1024, 512)):
        hann = torch.hann_window(window)
        options = dict(window=hann.double(), center=False, return_complex=True)
        a, b = (
            torch.stft(x.flatten(0, 2), window, window // 2, **options).abs().clamp(min=1e-4)
            for x in (estimates, stems)
        )
        (wanted,) = torch.autograd.grad(F.l1_loss(a, b) + F.l1_loss(a.log(), b.log()), estimates)
        (found,) = torch.autograd.grad(spectral_loss(estimates, stems, step), estimates)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9 * wanted.abs().max().item())


def test_bce_is_torchs_cross_entropy():
    def entropy(side, target):
        found = [pair[side] for pair in PAIRS.values()]
        return sum(F.binary_cross_entropy_with_logits(x, torch.full_like(x, target)) for x in found) / 2

    torch.testing.assert_close(discriminator_loss(PAIRS, "bce"), (entropy(0, 1) + entropy(1, 0)) / 2)
    torch.testing.assert_close(adversarial_loss(GENERATED, "bce"), entropy(1, 1))
    guess = {"a": (torch.zeros(2), torch.zeros(2))}
    assert discriminator_loss(guess, "bce").item() == pytest.approx(np.log(2))


def test_lsgan_by_hand():
    real = ((1 + 1) / 2 + (4 + 0 + 4 + 0) / 4) / 2  # (x - 1)^2 of a, of b; mean over sub-discriminators
    generated = ((4 + 4) / 2 + (1 + 1 + 4 + 0) / 4) / 2  # (x + 1)^2
    fooling = ((0 + 16) / 2 + (1 + 9 + 0 + 4) / 4) / 2  # (x - 1)^2
    assert discriminator_loss(PAIRS, "lsgan").item() == pytest.approx((real + generated) / 2)
    assert adversarial_loss(GENERATED, "lsgan").item() == pytest.approx(fooling / 2)


def test_hinge_by_hand():
    real = ((1 + 0) / 2 + (2 + 0 + 0 + 0) / 4) / 2  # max(0, 1 - x)
    generated = ((2 + 0) / 2 + (1 + 0 + 2 + 0) / 4) / 2  # max(0, 1 + x)
    assert discriminator_loss(PAIRS, "hinge").item() == pytest.approx((real + generated) / 2)
    assert adversarial_loss(GENERATED, "hinge").item() == pytest.approx(-((1 - 3) / 2 + (0 - 2 + 1 - 1) / 4) / 2)


def test_relativistic_by_hand():
    """softplus of generated - real, and of real - generated, of the logits at the same place."""
    differences = {"a": [1.0, -5.0], "b": [1.0, -3.0, -2.0, -2.0]}  # generated - real
    ours, theirs = (
        sum(np.mean(np.log1p(np.exp(sign * np.array(d)))) for d in differences.values()) / 2 for sign in (1, -1)
    )
    real = {name: ([], logits) for name, (logits, _) in PAIRS.items()}
    assert discriminator_loss(PAIRS, "relativistic").item() == pytest.approx(ours)
    assert adversarial_loss(GENERATED, "relativistic", real).item() == pytest.approx(theirs)


def test_feature_matching_by_hand():
    real = {"a": ([torch.tensor([[2.0, -4.0]]), torch.tensor([[1.0]])], torch.tensor([[9.0]]))}
    generated = {"a": ([torch.tensor([[2.5, -1.0]]), torch.tensor([[0.0]])], torch.tensor([[-9.0]]))}
    # (0.5 + 3) / (2 + 4) of the first map, 1 / 1 of the second; the logits do not count
    assert feature_matching_loss(real, generated).item() == pytest.approx((3.5 / 6 + 1) / 2)


def test_feature_matching_of_a_batch_is_the_mean_of_its_items():
    """Otherwise two processes, with half of the batch each, would not train as one does."""
    torch.manual_seed(0)
    real, generated = torch.randn(2, 4, 3, 7) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    found = [
        feature_matching_loss(*({"a": ([x[part]], None)} for x in (real, generated))).item()
        for part in (slice(4), slice(2), slice(2, 4))
    ]
    assert found[0] == pytest.approx((found[1] + found[2]) / 2)


def test_feature_matching_draws_the_generated_features_alone():
    real, generated = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)
    feature_matching_loss({"a": ([real], real)}, {"a": ([generated], generated)}).backward()
    assert real.grad is None and generated.grad.item() == 0.5


def test_r1_of_a_quadratic_discriminator_and_its_gradient():
    """D(x) = k/2 |x|^2 has gradient k x; the penalty, k^2 |x level|^2, has the derivative 2 k |x level|^2 by k."""
    torch.manual_seed(0)
    stems = torch.randn(3, 4, 2, 5, dtype=torch.float64, requires_grad=True)
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    mixture_level = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    whole = (k / 2 * stems.square().sum((1, 2, 3))).view(3, 1, 1)  # one logit per item
    each = k / 2 * stems.square().flatten(2)  # forty logits per item, one per sample
    penalty = r1_penalty({"whole": ([], whole), "each": ([], each)}, stems, mixture_level)
    squares = (stems * mixture_level[:, None]).square().sum().item()
    assert penalty.item() == pytest.approx(0.7**2 * squares * (1 / 3 + 1 / 120) / 2)
    penalty.backward()
    assert k.grad.item() == pytest.approx(2 * 0.7 * squares * (1 / 3 + 1 / 120) / 2)


def test_r1_does_not_depend_on_loudness_or_length_and_can_be_descended():
    torch.manual_seed(0)
    model = build("patch", width=4)

    def penalty(stems):
        stems = stems.requires_grad_()
        return r1_penalty(model(stems.sum(1), stems), stems, level(stems.sum(1)))

    stems = torch.randn(2, 4, 2, 32768)
    before = penalty(stems.clone())
    assert penalty(7 * stems).item() == pytest.approx(before.item(), rel=1e-4)
    assert penalty(stems.tile(4)).item() == pytest.approx(before.item(), rel=0.2)  # except at the ends
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:  # the penalty does not depend on the last bias
                parameter -= 1e-4 * parameter.grad
    assert penalty(stems.clone()) < before


def test_lecam_by_hand():
    anchors = {"a": torch.tensor([0.5, -0.5]), "b": torch.tensor([1.0, 0.0])}
    # real logits against the mean of generated ones, then the reverse
    a = ((0.5**2 + 2.5**2) + (0.5**2 + 3.5**2)) / 2
    b = ((1 + 1 + 9 + 1) + (1 + 9 + 0 + 4)) / 4
    assert lecam_penalty(PAIRS, anchors).item() == pytest.approx((a + b) / 2)


def norms_of(total):
    return total.flatten(1).norm(dim=1).mean().item() * len(total)


def test_the_balancer_gives_each_gradient_its_share_of_the_first_ones_norm():
    shares = {"l1": 0.3, "spectral": 0.3, "adversarial": 0.4}
    gradients = {name: 10.0**k * torch.randn(3, 4, 2, 50) for k, name in enumerate(shares)}
    balancer = Balancer()
    for _ in range(3):  # nothing moves, so the running means are the norms
        total, found = balancer(gradients, shares)
        for name, share in shares.items():
            part = norms_of(found[name] * gradients[name])
            assert part == pytest.approx(share * norms_of(gradients["l1"]), rel=1e-4)
    torch.testing.assert_close(total, sum(found[name] * gradients[name] for name in shares))
    alike = {name: gradients["l1"] * 7.0**k for k, name in enumerate(shares)}
    torch.testing.assert_close(Balancer()(alike, shares)[0], gradients["l1"])  # one direction: the dose changes nothing


def test_the_balancer_follows_the_mean_of_norms_and_admits_a_late_gradient():
    balancer, ones = Balancer(), torch.ones(2, 1, 1, 9)  # of norm 3 per item, 6 for the batch
    balancer({"l1": ones}, {"l1": 1.0})
    _, found = balancer({"l1": 3 * ones, "adversarial": 5 * ones}, {"l1": 0.5, "adversarial": 0.5})
    mean = (0.999 * 6 + 18) / 1.999  # bias-corrected: two steps count almost alike
    assert found == pytest.approx({"l1": 0.5, "adversarial": 0.5 * mean / 30})
    silent = Balancer()({"l1": ones, "adversarial": 0 * ones}, {"l1": 0.5, "adversarial": 0.5})
    assert silent[0].isfinite().all(), "a generator that fools the discriminator entirely has no gradient"


def test_a_resumed_balancer_goes_on_exactly():
    balancer, resumed, shares = Balancer(), Balancer(), {"l1": 0.5, "adversarial": 0.5}
    batches = [{name: torch.randn(2, 1, 1, 9) for name in shares} for _ in range(4)]
    for gradients in batches[:2]:
        balancer(gradients, shares)
    resumed.load_state_dict(balancer.state_dict())
    for gradients in batches[2:]:
        assert torch.equal(balancer(gradients, shares)[0], resumed(gradients, shares)[0])


# Memorisation


def logits_of(score):
    return np.log(score / (1 - score))


def metrics(real_train, real_heldout, generated_train, generated_heldout):
    values = (real_train, real_heldout, generated_train, generated_heldout)
    return memorisation.measure({n: np.full(4, logits_of(v)) for n, v in zip(memorisation.SETS, values, strict=True)})


def test_memorisation_ratios_by_hand():
    found = metrics(0.9, 0.5, 0.1, 0.3)
    assert found["r_v_sigma"] == pytest.approx((0.9 - 0.5) / (0.9 - 0.1))
    assert found["r_f"] == pytest.approx((0.3 - 0.1) / (0.9 - 0.1))
    assert found["r_v_logit"] == pytest.approx(0.5)  # the logits lie symmetrically: half the way
    assert found["r_t"] == 1.0
    assert (found["tpr_train"], found["tpr_heldout"], found["tnr_train"], found["tnr_heldout"]) == (1, 0, 1, 1)
    assert found["confidence_train"] == pytest.approx(0.9) and found["confidence_heldout"] == pytest.approx(
        (0.5 + 0.7) / 2
    )
    assert found["bce_train"] == pytest.approx(-np.log(0.9))
    assert found["bce_heldout"] == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2)
    assert metrics(0.5, 0.5, 0.5, 0.5)["r_v_sigma"] is None, "no difference between real and generated: no ratio"
    undecided = metrics(0.9, 0.5, 0.1, 0.5)
    assert undecided["tpr_heldout"] == undecided["tnr_heldout"] == 0, "a logit of 0 is right about neither"


def test_mean_and_percentiles_by_hand():
    found = memorisation.measure({name: np.arange(101) + k for k, name in enumerate(memorisation.SETS)})
    for k, name in enumerate(memorisation.SETS):
        assert [found[f"{name}_{part}"] for part in ("p10", "mean", "p90")] == pytest.approx([10 + k, 50 + k, 90 + k])


def test_auc_is_mann_whitneys_u_with_ties():
    random = np.random.RandomState(0)
    a, b = random.randint(0, 9, 50) + 2.0, random.randint(0, 9, 70) * 1.0
    assert memorisation.auc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (50 * 70))
    assert memorisation.auc(np.ones(3), np.zeros(3)) == 1


def test_membership_accuracy_and_bce_gap_by_hand():
    found = metrics(0.9, 0.6, 0.2, 0.4)
    assert found["membership_auc"] == 1 and found["accuracy_train"] == found["accuracy_heldout"] == 1
    assert found["bce_gap"] == pytest.approx((-np.log(0.6) - np.log(0.6) + np.log(0.9) + np.log(0.8)) / 2)
    values = {"real_train": [0, 1, 2, 3], "real_heldout": [0, 2], "generated_train": [-1, 1], "generated_heldout": [1]}
    found = memorisation.measure(values)
    # pairs above: 0.5 of 0 > 0; 1 of 1 > 0; 1.5 of 2; 2 of 3, of eight
    assert found["membership_auc"] == pytest.approx((0.5 + 1 + 1.5 + 2) / 8)
    assert found["accuracy_train"] == (3 / 4 + 1 / 2) / 2 and found["accuracy_heldout"] == (1 / 2 + 0) / 2


def evaluations(count=5, **changes):
    """Evaluations of one discriminator; a change is a value, or a list of them, one for each evaluation."""
    healthy = dict(bce_train=0.4, bce_heldout=0.5, membership_auc=0.55, membership_null=0.5)
    healthy |= dict(tpr_train=0.8, tnr_train=0.8, tpr_heldout=0.7, tnr_heldout=0.9)
    columns = {k: v if isinstance(v, list) else [v] * count for k, v in (healthy | changes).items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


OVERFITTED = {"bce_heldout": 0.7, "membership_auc": 0.6}  # at the border: a gap of 0.3, and 0.1 above the null


@pytest.mark.parametrize(
    ("changes", "word", "onset"),
    [
        ({}, "is healthy", None),
        (OVERFITTED, "overfits", 0),
        (OVERFITTED | {"bce_heldout": 0.699}, "is healthy", None),
        (OVERFITTED | {"membership_auc": 0.599}, "is healthy", None),
        (OVERFITTED | {"membership_null": 0.51}, "is healthy", None),
        (OVERFITTED | {"membership_null": float("nan")}, "overfits", 0),  # an unknown null counts as 0.5
        (OVERFITTED | {"membership_null": None}, "overfits", 0),
        (OVERFITTED | {"membership_auc": 0.5, "membership_null": 0.4}, "overfits", 0),
        (OVERFITTED | {"bce_heldout": [0.5, 0.5, 0.9, 0.5, 0.5]}, "is healthy", None),  # one evaluation is none
        (OVERFITTED | {"bce_heldout": [0.5, 0.9, 0.5, 0.9, 0.5]}, "overfits", 1),  # two of three are a median
        (OVERFITTED | {"bce_heldout": [0.5, 0.5, 0.9, 0.9, 0.9]}, "overfits", 1),
        (OVERFITTED | {"bce_heldout": [0.5, 0.5, 0.5, 0.9, 0.9]}, "overfits", 2),
        (OVERFITTED | {"bce_heldout": [0.5, 0.5, 0.5, 0.5, 0.9]}, "is healthy", None),
        # Overfitting once is overfitting, whatever comes later
        (OVERFITTED | {"bce_heldout": [0.9, 0.9, 0.9, 0.5, 0.5]}, "overfits", 0),
        (OVERFITTED | {"tpr_heldout": 1.0, "tnr_heldout": 1.0}, "overfits", 0),
        ({"tpr_heldout": 0.95, "tnr_heldout": 0.95}, "dominates", None),
        ({"tpr_heldout": 0.949, "tnr_heldout": 0.95}, "is healthy", None),
        ({"tpr_heldout": [0.1, 0.1, 0.1, 1.0, 1.0], "tnr_heldout": 0.95}, "dominates", None),  # the last three
        ({"tpr_train": 0.599, "tnr_train": 0.6}, "is too weak", None),
        ({"tpr_train": 0.6, "tnr_train": 0.6}, "is healthy", None),
        ({"tpr_train": 0.2, "tnr_train": 1.0}, "is healthy", None),
    ],
)
def test_diagnoses_at_either_side_of_each_border(changes, word, onset):
    assert memorisation.diagnose(evaluations(**changes)) == (word, onset)


def test_two_evaluations_are_too_few_to_overfit():
    assert memorisation.diagnose(evaluations(2, **OVERFITTED)) == ("is healthy", None)


@pytest.mark.parametrize(
    ("logits", "word"),
    [  # real training, real held-out, generated training, generated held-out
        ((3.0, -1.0, -3.0, -3.0), "overfits"),
        ((3.0, 2.9, -3.0, -3.0), "dominates"),
        ((-1.0, -1.0, -1.0, -1.0), "is too weak"),
        ((1.0, -0.6, -1.0, -1.0), "overfits"),
        ((1.0, 0.9, -1.0, 0.5), "overfits"),  # recordings are known, and held-out estimates are not detected
        ((1.0, 1.0, -1.0, 0.5), "is healthy"),  # the gap alone is no memory of recordings
    ],
)
def test_diagnoses_of_hand_made_logits(logits, word):
    values = {n: np.full(4, v) for n, v in zip(memorisation.SETS, logits, strict=True)}
    assert memorisation.diagnose([memorisation.measure(values)] * 3)[0] == word


def test_histograms_hold_every_logit():
    random = np.random.RandomState(0)
    found = memorisation.measure({name: random.randn(1000) * 20 for name in memorisation.SETS})
    assert all(sum(found[f"{name}_histogram"]) == 1000 for name in memorisation.SETS)


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ((0.9, 0.15, 0.1, 0.1), "overfits"),
        ((0.9, 0.6, 0.1, 0.4), "overfits"),  # three eighths are lost by real stems, as much by generated ones
        ((0.97, 0.97, 0.03, 0.03), "dominates"),
        ((0.9, 0.9, 0.1, 0.1), "is healthy"),
        ((0.51, 0.51, 0.5001, 0.5001), "is too weak"),
    ],
)
def test_verdicts(scores, word):
    assert memorisation.verdict(metrics(*scores))[0] == word


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "is healthy"),
        ({"confidence_train": 0.599}, "is too weak"),
        ({"confidence_train": 0.6}, "is healthy"),
        ({"r_v_sigma": 0.499}, "is healthy"),
        ({"r_v_sigma": 0.5}, "overfits"),
        ({"r_v_sigma": 0.3, "r_f": 0.199}, "is healthy"),
        ({"r_v_sigma": 0.3, "r_f": 0.201}, "overfits"),
        ({"r_v_sigma": 0.5, "r_f": -0.4}, "overfits"),  # real stems alone
        ({"r_v_sigma": -0.1, "r_f": 0.55}, "is healthy"),  # generated stems alone do not count
        ({"confidence_heldout": 0.949}, "is healthy"),
        ({"confidence_heldout": 0.95}, "dominates"),
        # The earlier of two that apply
        ({"confidence_train": 0.599, "r_v_sigma": 0.7}, "is too weak"),
        ({"r_v_sigma": 0.5, "confidence_heldout": 0.95}, "overfits"),
        ({"r_v_sigma": None, "r_f": None, "confidence_train": 0.599}, "is too weak"),
        ({"r_v_sigma": None, "r_f": None}, "is healthy"),
    ],
)
def test_verdicts_at_either_side_of_each_threshold(changes, word):
    healthy = {"confidence_train": 0.8, "confidence_heldout": 0.7, "r_v_sigma": 0.2, "r_f": 0.0}
    assert memorisation.verdict(healthy | changes)[0] == word


def test_a_discriminator_that_errs_alike_everywhere_is_healthy():
    random = np.random.RandomState(0)
    real, generated = random.randn(2, 2000) + 1, random.randn(2, 2000) - 1
    found = memorisation.measure(
        {
            "real_train": real[0],
            "real_heldout": real[1],
            "generated_train": generated[0],
            "generated_heldout": generated[1],
        }
    )
    assert memorisation.verdict(found)[0] == "is healthy"


def test_pick_spreads_evenly():
    few = np.arange(2 * 3 * 64).reshape(2, 3, 64)
    assert memorisation.pick(few) is few
    many = torch.arange(6000).view(2, 3, 1000)
    chosen = memorisation.pick(many)
    assert chosen.shape == (2, 3, 64)
    assert torch.equal(chosen, torch.from_numpy(memorisation.pick(many.numpy()))), "of tensors and arrays alike"
    steps = chosen[1, 2].diff()
    assert chosen[0, 0, 0] == 0 and set(steps.tolist()) == {15, 16}  # 1000 / 64 = 15.6


def test_every_sub_discriminator_and_stem_is_measured_by_itself():
    """One sub-discriminator judges all stems together and is right; another judges each, and memorises the bass."""
    random = np.random.RandomState(0)
    joint = {"real": logits_of(0.9), "generated": logits_of(0.1)}
    sets = {}
    for name in memorisation.SETS:
        own = np.full((5, 4, 6), joint[name.split("_")[0]]) + random.randn(5, 4, 6) * 1e-3
        if name == "real_heldout":
            own[:, 1] = logits_of(0.3)
        sets[name] = {"joint": torch.full((5, 1, 7), joint[name.split("_")[0]]), "own": torch.from_numpy(own)}
    found = memorisation.measure_all(sets, SOURCES)
    parts = found["parts"]
    assert list(parts) == ["joint, all stems", *(f"own, {stem}" for stem in SOURCES)]
    assert all(list(part) == list(memorisation.PART_METRICS) for part in parts.values())
    assert parts["joint, all stems"]["r_v_sigma"] == pytest.approx(0, abs=1e-6)
    for stem in SOURCES:  # 1e-3: the noise above
        assert parts[f"own, {stem}"]["r_v_sigma"] == pytest.approx((0.9 - 0.3) / 0.8 if stem == "bass" else 0, abs=1e-3)
        assert parts[f"own, {stem}"]["tpr_heldout"] == (0 if stem == "bass" else 1)
    # 5 x 7 and 5 x 4 x 6 logits together, of which the bass has 5 x 6
    assert found["r_v_sigma"] == pytest.approx((0.9 - 0.3) / 0.8 * 30 / 155, abs=1e-3)
    assert found["tpr_heldout"] == pytest.approx(125 / 155) and sum(found["real_train_histogram"]) == 155
