"""The adversary: its two halves, its cures, and its exact resume."""

import copy

import pytest
import torch
from torch.nn import functional as F

from lib import gan
from lib.common import streams
from lib.config import Config
from lib.data.batches import JointAugmentation
from lib.data.tracks import SAMPLERATE
from lib.gan import HIGHEST_P, Adversary, _judge
from lib.losses import discriminator_loss
from lib.runs.build import build_discriminator

BATCH, SAMPLES = 4, 8192
EVERY_CURE = dict(
    adversarial_weight=0.0, adversarial_share=0.1, feature_matching=1.0, adversarial_start=1, adversarial_ramp=3,
    discriminator_updates=0.8, augment_p=0.5, augment_target=0.2, augment_steps=100, r1=1.0, r2=0.5, r1_every=2,
    lecam=0.3, instance_noise=0.1, dither=0.03, spectral_norm=True, dropout=0.2, discriminator_patience=3,
)  # fmt: skip


def config(**changes):
    base = dict(
        data="", seed=1, batch=BATCH, adversarial_weight=0.01, discriminator_width=8, discriminator_lr=1e-3,
        evaluate_every=10,
    )  # fmt: skip
    return Config(**(base | changes))


def adversary_of(**changes):
    chosen = config(**changes)
    return Adversary(chosen, build_discriminator(chosen))


def sounds(seed=0, batch=BATCH, samples=SAMPLES):
    """Noise with the vocals loudest, and estimates of it at half the level: easy to discriminate."""
    generator = torch.Generator().manual_seed(seed)
    stems = torch.randn(batch, 4, 2, samples, generator=generator) * torch.tensor([0.3, 0.3, 0.3, 1]).view(4, 1, 1)
    return stems, 0.5 * stems


def learn(adversary, step, stems, estimates):
    """The discriminator's half of a step."""
    return adversary.discriminator_step(step, adversary.inputs(step, stems, estimates))


def weights(adversary):
    return torch.cat([parameter.detach().flatten() for parameter in adversary.discriminator.parameters()])


def seen_by(adversary):
    """Return a list to which every forward of the discriminator appends (mixture, its sets of stems, logits)."""
    seen = []
    adversary.discriminator.register_forward_hook(
        lambda _, inputs, outputs: seen.append((inputs[0], inputs[1:], outputs["patch"][1]))
    )
    return seen


# The discriminator's half


@pytest.mark.parametrize("loss", ["bce", "lsgan", "hinge", "relativistic"])
def test_a_discriminator_learns_to_tell_real_from_generated(loss):
    adversary = adversary_of(adversarial_loss=loss, discriminator_lr=3e-4)
    losses = [learn(adversary, step, *sounds())["discriminator"].item() for step in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_first_metrics_by_hand():
    adversary = adversary_of()
    stems, estimates = sounds()
    before = copy.deepcopy(adversary.discriminator)
    metrics = learn(adversary, 0, stems, estimates)
    real, generated = (before(stems.sum(1), x)["patch"][1] for x in (stems, estimates))
    loss = (
        F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        + F.binary_cross_entropy_with_logits(generated, torch.zeros_like(generated))
    ) / 2
    loss.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in before.parameters()]).norm()
    assert metrics["discriminator"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert metrics["discriminator_gradient"].item() == pytest.approx(norm.item(), rel=1e-4)
    for parameter, moments in adversary.optimizer.state.items():
        # Adam's moments after one step: 1 - β times the gradient and its square
        torch.testing.assert_close(moments["exp_avg"], 0.5 * parameter.grad)
        torch.testing.assert_close(moments["exp_avg_sq"], 0.001 * parameter.grad.square(), rtol=1e-4, atol=0)


def test_the_same_steps_are_skipped_on_any_rank_with_the_probability_asked_for(monkeypatch):
    monkeypatch.setattr(gan, "DistributedDataParallel", lambda network, **_: network)  # there is one process
    chosen = config(discriminator_updates=0.6, batch=2 * BATCH)
    adversaries = [Adversary(chosen, build_discriminator(chosen), rank=rank, world_size=2) for rank in (0, 1)]
    steps = [[bool(learn(adversary, step, *sounds(step))) for step in range(25)] for adversary in adversaries]
    assert steps[0] == steps[1] and True in steps[0] and False in steps[0]
    draws = [adversaries[0]._random(streams.UPDATE, step).rand() < 0.6 for step in range(2000)]
    assert draws[:25] == steps[0]
    assert sum(draws) / 2000 == pytest.approx(0.6, abs=0.044)  # 4 sigma
    before = weights(adversaries[0])
    assert learn(adversaries[0], steps[0].index(False), *sounds()) == {}
    assert torch.equal(weights(adversaries[0]), before)


def test_r1_is_given_in_its_steps_alone_and_keeps_the_gradient_small():
    stems, estimates = sounds()
    naive, cured = adversary_of(), adversary_of(r1=10.0, r1_every=4)
    found = []
    for step in range(40):
        learn(naive, step, stems, estimates)
        found.append(learn(cured, step, stems, estimates).get("r1"))
    assert [k for k, penalty in enumerate(found) if penalty is not None] == list(range(0, 40, 4))

    def steepness(adversary):
        real = stems.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(adversary.discriminator(stems.sum(1), real)["patch"][1].sum(), real)
        return gradient.norm()

    assert steepness(cured) < 0.5 * steepness(naive)


def test_a_step_with_r1_adds_its_gradient_times_half_gamma_times_r1_every():
    """The gradient of a step is that of the adversarial loss plus γ / 2 · r1_every times the penalty's."""
    adversary = adversary_of(r1=0.5, r1_every=4)
    network = copy.deepcopy(adversary.discriminator)
    stems, estimates = sounds()
    learn(adversary, 4, stems, estimates)
    mixture, real = stems.sum(1), stems.clone().requires_grad_()
    judged, generated = (network(mixture, x)["patch"][1] for x in (real, estimates))
    (by_stems,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
    penalty = (by_stems * mixture.std(dim=(1, 2)).view(-1, 1, 1, 1)).square().sum() / judged.numel()
    loss = (F.softplus(-judged).mean() + F.softplus(generated).mean()) / 2
    (loss + 0.5 / 2 * 4 * penalty).backward()
    found, wanted = (
        torch.cat([parameter.grad.flatten() for parameter in part.parameters()])
        for part in (adversary.discriminator, network)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * wanted.abs().max().item())


def test_r2_is_the_penalty_at_generated_stems_in_the_steps_of_r1():
    """The gradient of a step with both is that of the adversarial loss plus those of both penalties."""
    adversary = adversary_of(r1=0.5, r2=0.25, r1_every=4)
    network = copy.deepcopy(adversary.discriminator)
    stems, estimates = sounds()
    metrics = learn(adversary, 4, stems, estimates)
    assert "r2" not in learn(adversary_of(r2=0.25, r1_every=4), 5, stems, estimates)
    mixture, sets = stems.sum(1), [x.clone().requires_grad_() for x in (stems, estimates)]
    loss = 0
    for x, sign, gamma, name in zip(sets, (-1, 1), (0.5, 0.25), ("r1", "r2"), strict=True):
        logits = network(mixture, x)["patch"][1]
        (by_stems,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        penalty = (by_stems * mixture.std(dim=(1, 2)).view(-1, 1, 1, 1)).square().sum() / logits.numel()
        assert metrics[name].item() == pytest.approx(penalty.item(), rel=1e-4)
        loss = loss + F.softplus(sign * logits).mean() / 2 + gamma / 2 * 4 * penalty
    loss.backward()
    found, wanted = (
        torch.cat([parameter.grad.flatten() for parameter in part.parameters()])
        for part in (adversary.discriminator, network)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * wanted.abs().max().item())


def test_lecam_anchors_are_running_means_of_the_logits():
    adversary = adversary_of(lecam=0.3)
    seen = seen_by(adversary)
    expected = None
    for step in range(3):
        learn(adversary, step, *sounds(step))
        real, generated = seen[-1][2].detach().unflatten(0, (-1, 2)).unbind(1)
        means = torch.stack([real.mean(), generated.mean()])
        expected = means if expected is None else 0.99 * expected + 0.01 * means
        torch.testing.assert_close(adversary.anchors["patch"], expected)
    assert len(seen) == 3, "one forward per step"


# What it sees


def test_it_sees_the_sum_of_the_stems_as_the_mixture():
    adversary = adversary_of()
    seen = seen_by(adversary)
    stems, estimates = sounds()
    learn(adversary, 0, stems, estimates)
    [(mixture, (real, generated), _)] = seen
    assert torch.equal(real, stems) and torch.equal(generated, estimates)
    torch.testing.assert_close(mixture, stems.sum(1))


@pytest.mark.parametrize("cures", [{"dither": 0.1}, {"augment_p": 0.8}, {"dither": 0.1, "augment_p": 0.8}])
def test_dither_and_augmentation_keep_the_mixture_the_sum_of_real_stems(cures):
    adversary = adversary_of(**cures)
    stems, estimates = sounds()
    mixture, real, generated = adversary.inputs(3, stems, estimates)
    assert not torch.allclose(real, stems, atol=0.01)
    torch.testing.assert_close(real.sum(1), mixture, rtol=0, atol=2e-5)  # float32, peaks of about 5
    # Both have the same dither, so their difference is the augmented difference without it
    p = adversary.p
    augment = JointAugmentation(
        adversary._random(streams.AUGMENTATION, 3), p, BATCH, slice(0, BATCH), SAMPLES, SAMPLERATE
    )
    torch.testing.assert_close(
        real - generated, augment(stems - estimates) if p else stems - estimates, rtol=0, atol=2e-5
    )


def test_instance_noise_hides_that_sum_and_differs_between_real_and_generated():
    stems, estimates = sounds()
    mixture, real, generated = adversary_of(instance_noise=0.1).inputs(3, stems, estimates)
    assert torch.equal(mixture, stems.sum(1))
    first, second = real - stems, generated - estimates
    level = stems.sum(1).std(dim=(1, 2))
    for noise in (first, second):  # 16,384 draws a stem: 4 sigma are 2.2 %
        torch.testing.assert_close(noise.std(dim=(2, 3)), 0.1 * level[:, None].expand(-1, 4), rtol=0.03, atol=0)
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.02


def test_ranks_see_their_part_of_one_batch(monkeypatch):
    monkeypatch.setattr(gan, "DistributedDataParallel", lambda network, **_: network)
    chosen = config(augment_p=0.8, dither=0.1, instance_noise=0.1)
    pair = sounds()
    whole = Adversary(chosen, build_discriminator(chosen)).inputs(5, *pair)
    for rank in (0, 1):
        local = slice(2 * rank, 2 * rank + 2)
        part = Adversary(chosen, build_discriminator(chosen), rank=rank, world_size=2).inputs(
            5, *(x[local] for x in pair)
        )
        for a, b in zip(part, whole, strict=True):
            torch.testing.assert_close(a, b[local], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "loss"), [("patch", "bce"), ("patch", "relativistic"), ("stft", "bce"), ("msstft", "bce"), ("mpd", "bce")]
)
def test_the_mean_gradient_of_two_halves_is_that_of_the_batch(name, loss):
    """So any number of ranks, whose gradients are averaged, trains as one."""
    kind = loss
    chosen = config(discriminator=name, discriminator_width=2, instance_noise=0.1, dither=0.1, augment_p=0.5)
    adversary = Adversary(chosen, build_discriminator(chosen).double())
    mixture, real, generated = (x.detach().double() for x in adversary.inputs(0, *sounds(samples=4096)))

    def gradients(part):
        adversary.discriminator.zero_grad()
        loss = discriminator_loss(_judge(adversary.discriminator, mixture[part], real[part], generated[part]), kind)
        loss.backward()
        return [parameter.grad.clone() for parameter in adversary.discriminator.parameters()]

    halves = zip(gradients(slice(2)), gradients(slice(2, 4)), strict=True)
    for (first, second), whole in zip(halves, gradients(slice(4)), strict=True):
        torch.testing.assert_close((first + second) / 2, whole, rtol=1e-9, atol=1e-12)


# The generator's half


def gradient(adversary, step, stems, estimates):
    leaf = estimates.clone().requires_grad_()
    gradients, metrics = adversary.gradients(step, adversary.inputs(step, stems, leaf), leaf)
    return gradients["adversarial"], metrics


def test_the_generators_gradient_is_that_of_the_adversarial_loss_with_matching():
    adversary = adversary_of(feature_matching=2.0)
    stems, estimates = sounds()
    found, metrics = gradient(adversary, 0, stems, estimates)
    leaf = estimates.clone().requires_grad_()
    (wanted, _), (features, logits) = (adversary.discriminator(stems.sum(1), x)["patch"] for x in (stems, leaf))
    adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    matching = sum(
        ((a - b).abs().mean((1, 2)) / a.abs().mean((1, 2))).mean() for a, b in zip(wanted, features, strict=True)
    ) / len(features)
    (adversarial + 2 * matching).backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=1e-9)
    assert metrics["adversarial"].item() == pytest.approx(adversarial.item(), rel=1e-5)
    assert metrics["feature_matching"].item() == pytest.approx(matching.item(), rel=1e-4)


def test_with_a_share_feature_matching_has_a_gradient_of_its_own():
    stems, estimates = sounds()
    leaf = estimates.clone().requires_grad_()

    def gradients(**changes):
        adversary = adversary_of(adversarial_weight=0.0, adversarial_share=0.2, **changes)
        return adversary.gradients(0, adversary.inputs(0, stems, leaf), leaf)[0]

    apart, joint = gradients(feature_matching_share=0.5), gradients(feature_matching=2.0)
    assert list(apart) == ["adversarial", "feature_matching"] and list(joint) == ["adversarial"]
    sum_of_both = apart["adversarial"] + 2 * apart["feature_matching"]
    torch.testing.assert_close(sum_of_both, joint["adversarial"], rtol=1e-4, atol=1e-9)


def test_the_relativistic_gradient_pairs_both_logits_of_an_excerpt():
    adversary = adversary_of(adversarial_loss="relativistic", dropout=0.3)
    stems, estimates = sounds()
    found, metrics = gradient(adversary, 3, stems, estimates)
    leaf = estimates.clone().requires_grad_()
    adversary._reseed_dropout(3)
    real, generated = adversary.discriminator(stems.sum(1), stems, leaf)["patch"][1].unflatten(0, (-1, 2)).unbind(1)
    loss = F.softplus(real.detach() - generated).mean()
    loss.backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-3, atol=1e-9)
    assert metrics["adversarial"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_generators_half_leaves_the_discriminator_alone():
    adversary = adversary_of(feature_matching=1.0, dropout=0.3)
    before = weights(adversary)
    gradient(adversary, 0, *sounds())
    assert torch.equal(weights(adversary), before)
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in adversary.discriminator.parameters()), "it goes on learning"


def test_a_thinned_network_finds_nothing_to_match_in_a_perfect_estimate():
    adversary = adversary_of(feature_matching=1.0, dropout=0.5)
    stems, _ = sounds()
    _, metrics = gradient(adversary, 0, stems, stems)
    assert metrics["feature_matching"] == 0, "real and generated stems meet the same network"


def test_the_gradient_flows_back_through_the_augmentation():
    adversary = adversary_of(augment_p=0.8, dropout=0.3)
    stems, estimates = sounds()
    seen = seen_by(adversary)
    learn(adversary, 2, stems, estimates)
    torch.manual_seed(0)  # other draws have no influence
    found, _ = gradient(adversary, 2, stems, estimates)
    (_, (_, before), _), (_, (generated,), _) = seen
    assert torch.equal(generated, before), "the same draw as in the discriminator's half"
    # A step that changes the loss by 0.002: above the rounding of float32, and nearly linear
    step = 0.002 / found.square().sum() * found
    lower, higher = (
        gradient(adversary, 2, stems, estimates + sign * step)[1]["adversarial"].item() for sign in (-1, 1)
    )
    assert higher - lower == pytest.approx(0.004, rel=0.05)


def test_a_discriminator_without_updates_stays_as_it_began():
    adversary = adversary_of(discriminator_updates=0.0)
    before = weights(adversary)
    assert [learn(adversary, step, *sounds(step)) for step in range(3)] == [{}, {}, {}]
    assert torch.equal(weights(adversary), before) and gradient(adversary, 0, *sounds())[0].any()


def test_warm_up_and_ramp():
    adversary = adversary_of(adversarial_start=2, adversarial_ramp=4)
    for step in range(3):
        before = weights(adversary)
        learn(adversary, step, *sounds(step))
        assert not torch.equal(weights(adversary), before), "the discriminator learns from the first step"
    found = [adversary.ramp(step) for step in range(8)]
    assert found == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1, 1])


# What an evaluation changes


def test_adaptive_p_moves_toward_its_target_and_stays_within_its_limits():
    adversary = adversary_of(augment_target=0.4, augment_steps=100)  # evaluated every 10 steps: a tenth each time
    found = []
    for r_v in [0.7] * 10 + [None] + [0.1] * 10:
        adversary.observe({"r_v_sigma": r_v, "bce_heldout": 1.0})
        found.append(adversary.p)
    up, down = [0.1 * k for k in range(1, 9)] + [HIGHEST_P] * 3, [0.7 - 0.1 * k for k in range(8)] + [0.0] * 2
    assert HIGHEST_P == 0.8 and found == pytest.approx(up + down)


def test_without_a_target_p_stays():
    adversary = adversary_of(augment_p=0.3)
    adversary.observe({"r_v_sigma": 0.9, "bce_heldout": 1.0})
    assert adversary.p == 0.3


def test_learning_stops_when_it_no_longer_helps():
    adversary = adversary_of(discriminator_patience=2)
    for bce, frozen in ((1.0, False), (1.1, False), (0.9, False), (0.9, False), (0.95, True), (0.1, True)):
        adversary.observe({"r_v_sigma": None, "bce_heldout": bce})
        assert adversary.frozen == frozen
    before = weights(adversary)
    assert learn(adversary, 0, *sounds()) == {} and torch.equal(weights(adversary), before)
    assert gradient(adversary, 0, *sounds())[0].any(), "the generator still learns from it"
    patient = adversary_of()
    for _ in range(50):
        patient.observe({"r_v_sigma": None, "bce_heldout": 1.0})
    assert not patient.frozen


@pytest.mark.parametrize(("name", "shape"), [("patch", (1, 6)), ("mpd", (4, 64))])
def test_logits_for_the_evaluation(name, shape):
    adversary = adversary_of(
        discriminator=name, discriminator_width=2, instance_noise=0.1, dropout=0.5, spectral_norm=True
    )
    stems, estimates = sounds(batch=1)
    before = {key: value.clone() for key, value in adversary.discriminator.state_dict().items()}
    with torch.no_grad():
        found, again, other = (adversary.logits(stems, estimates, index) for index in (3, 3, 4))
    assert list(found) == list(adversary.discriminator(stems.sum(1), stems))
    for sub, (real, generated) in found.items():
        assert real.shape[0] == generated.shape[0] == shape[0] and real.shape[1] == generated.shape[1] <= shape[1]
        assert torch.equal(real, again[sub][0]) and torch.equal(generated, again[sub][1]), "the same each time"
        assert not torch.equal(real, other[sub][0]), "an excerpt has its own noise"
    after = adversary_of(discriminator=name, discriminator_width=2, instance_noise=0.1, dropout=0.5, spectral_norm=True)
    after.logits(*(x.requires_grad_(False) for x in (stems, estimates)), 3)
    assert all(torch.equal(after.discriminator.state_dict()[key], value) for key, value in before.items())
    assert adversary.discriminator.training


def test_logits_of_a_batch_are_those_of_its_excerpts():
    adversary = adversary_of(instance_noise=0.1, dither=0.1)
    stems, estimates = sounds()
    with torch.no_grad():
        whole = adversary.logits_of(stems, estimates, range(5, 9))["patch"]
        for k in range(4):
            one = adversary.logits(stems[k : k + 1], estimates[k : k + 1], 5 + k)["patch"]
            for a, b in zip(whole, one, strict=True):
                torch.testing.assert_close(a[k], b, rtol=1e-4, atol=1e-5)
        for half in (0, 1):  # with the same noise
            [alone] = adversary.logits_of(stems, estimates, range(5, 9), (half,))["patch"]
            torch.testing.assert_close(alone, whole[half], rtol=1e-4, atol=1e-5)


def test_logits_for_the_evaluation_are_never_augmented():
    stems, estimates = sounds(batch=1)
    with torch.no_grad():
        plain, augmented = (adversary_of(augment_p=p).logits(stems, estimates, 3)["patch"] for p in (0.0, 0.8))
    assert all(torch.equal(a, b) for a, b in zip(plain, augmented, strict=True))
    adversary = adversary_of(augment_p=0.8)
    _, real, _ = adversary.inputs(3, *sounds())
    assert not torch.allclose(real, sounds()[0]), "its training is augmented"


# State


def advance(adversary, steps, samples):
    """Take some steps as the trainer does; return all gradients and metrics."""
    out = []
    for step in steps:
        stems, estimates = sounds(step, samples=samples)
        metrics = learn(adversary, step, stems, estimates)
        part, more = gradient(adversary, step, stems, estimates)
        out += [part, *(metrics | more).values()]
        if step % 3 == 2:
            adversary.observe({"r_v_sigma": 0.5 if step < 8 else 0.1, "bce_heldout": 1.0 + step})
    return [torch.as_tensor(value) for value in out]


@pytest.mark.parametrize(
    ("name", "width", "samples"), [("patch", 8, 8192), ("stft", 1, 2060), ("mpd", 2, 500), ("msstft", 1, 2060)]
)
def test_a_resumed_adversary_goes_on_exactly_with_every_cure_on(name, width, samples, tmp_path):
    cures = EVERY_CURE | {"discriminator": name, "discriminator_width": width}
    cures |= {"adversarial_loss": "relativistic" if name == "patch" else "bce"}
    adversary = adversary_of(**cures)
    advance(adversary, range(5), samples)
    torch.save(adversary.state_dict(), tmp_path / "adversary.pt")
    resumed = adversary_of(**cures, seed=1)
    torch.rand(7)  # the state of torch's generator does not matter
    resumed.load_state_dict(torch.load(tmp_path / "adversary.pt", weights_only=True))
    assert resumed.anchors and resumed.p != 0.5, "there was something to keep"
    wanted, found = advance(adversary, range(5, 14), samples), advance(resumed, range(5, 14), samples)
    assert len(wanted) == len(found) > 9 * 4
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    first, second = adversary.state_dict(), resumed.state_dict()
    assert adversary.frozen and [first[k] for k in ("p", "frozen", "best", "since_best")] == [
        second[k] for k in ("p", "frozen", "best", "since_best")
    ]
    for part in ("discriminator", "anchors"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
