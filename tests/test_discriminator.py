"""The discriminators: sizes, receptive fields, features and logits, level, dropout and spectral norm."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.discriminator import PatchDiscriminator, SharedDropout, build, level

NAMES = ("patch", "stft", "msstft", "mpd")
PER_STEM = ("stft", "msstft", "mpd")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(batch=2, time=4096):
    stems = torch.randn(batch, 4, 2, time, dtype=torch.float64)
    return stems.sum(1), stems


def small(name, **arguments):
    return build(name, width=4 if name == "patch" else 2, **arguments).double()


def logits(model, mixture, *stems):
    """{sub-discriminator: logits}."""
    return {name: logits for name, (_, logits) in model(mixture, *stems).items()}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_size_of_patch():
    weights = (
        16 * (10 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 512)  # k16, 10 -> 64 -> ... -> 512 -> 512
        + 4 * (512 * 512 + 512)  # k4, 512 -> 512 -> 1
        + (64 + 128 + 256 + 512 + 512 + 512 + 1)  # biases
    )
    assert count(build("patch")) == weights == 8_009_665
    assert count(build("patch", width=16)) < 8_009_665 / 15


def test_size_of_msstft():
    each = (
        (8 * 27 * 32 + 32)  # 3 x 9: real and imaginary parts of 2 x 2 channels -> 32, and biases
        + 3 * (32 * 27 * 32 + 2 * 32)  # 3 x 9; biases, and the lengths that weight normalisation adds
        + (32 * 9 * 32 + 2 * 32)  # 3 x 3
        + (32 * 9 + 2)  # 3 x 3, to the logit
        + 4 * 32  # a bias per class
    )
    assert count(build("msstft", width=32)) == 3 * each == 299_334


def test_size_of_stft():
    weights = (
        (8 * 8 * 16 + 16)  # 1 x 8: real and imaginary parts of 2 x 2 channels -> 16, and biases
        + (16 * 12 * 32 + 2 * 32)  # 3 x 4; biases, and the lengths that weight normalisation adds
        + (32 * 12 * 32 + 2 * 32)
        + (32 * 9 * 32 + 2 * 32)  # 3 x 3
        + (32 * 48 + 2)  # 3 x 16, to the logit
        + 4 * 16  # a bias per class
    )
    assert count(build("stft", width=16)) == weights == 30_482


def test_size_of_mpd():
    widths = (8, 32, 128, 256, 256)
    each = (
        (4 * 5 * 8 + 8)  # k5: 2 x 2 channels -> 8, and biases
        + sum(a * 5 * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))  # weight normalisation as above
        + (256 * 3 + 2)  # k3, to the logit
        + 4 * 8
    )
    assert count(build("mpd", width=8)) == 5 * each == 2_577_970


@pytest.mark.parametrize(("kernel", "field", "hop"), [("wide", 11260, 1024), ("pix2pix", 70, 8)])
def test_receptive_field_and_logit_rate(kernel, field, hop):
    model = PatchDiscriminator(width=2, kernel=kernel).double()
    for parameter in model.parameters():  # no weight cancels or is too small to be seen
        torch.nn.init.uniform_(parameter, 0.1, 1)
    mixture, stems = pair(1, 32 * 1024)
    frames = logits(model, mixture, stems)["patch"].shape[-1]
    assert abs(frames - 32 * 1024 / hop) <= 2  # two stride-1 layers lose a frame each

    stems.requires_grad_()
    logits(model, mixture, stems)["patch"][0, 0, frames // 2].backward()
    seen = stems.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    assert seen[-1] - seen[0] + 1 == len(seen) == field

    longer = logits(model, *pair(1, 64 * 1024))["patch"].shape[-1]
    assert longer - frames == 32 * 1024 / hop


def test_feature_maps_of_patch_by_hand():
    model = small("patch")
    mixture, stems = pair()
    x = torch.cat([mixture, stems.flatten(1, 2)], 1) / mixture.std(dim=(1, 2), keepdim=True)
    features, judged = model(mixture, stems)["patch"]
    for k, (layer, feature) in enumerate(zip(model.patch.layers, [*features, judged], strict=True)):
        x = F.conv1d(x, layer.weight, layer.bias, layer.stride, layer.padding)
        x = torch.maximum(x, 0.2 * x) if k < 6 else x
        torch.testing.assert_close(feature, x)


@pytest.mark.parametrize("name", PER_STEM)
def test_leaky_rectifiers_of_slope_a_fifth_between_the_layers_of_each_part(name):
    model = small(name)
    for sub, (features, _) in model(*pair(time=16384)).items():
        for before, layer, after in zip(features[:-1], model.parts[sub].layers[1:-1], features[1:], strict=True):
            x = layer(before)
            torch.testing.assert_close(after, torch.maximum(x, 0.2 * x))


def test_logits_of_msstft_see_21_frames_and_one_for_each_8_bins():
    model = small("msstft")
    for sub, part in model.parts.items():
        bins = int(sub.split()[1]) // 2 + 1
        image = x = torch.randn(1, 4, 41, bins, dtype=torch.float64, requires_grad=True)
        for layer in part.layers:
            x = layer(x)
        assert x.shape == (1, 1, 41, -(-bins // 8))  # three strides of 2
        (gradient,) = torch.autograd.grad(x[0, 0, 20, 5], image)
        seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
        # 3 rows; dilations 1, 2 and 4 add 2, 4 and 8; the last two layers 2 each
        assert seen == list(range(20 - 10, 20 + 10 + 1))


def test_a_logit_of_stft_sees_9_frames_and_all_bins():
    [part] = small("stft").parts.values()
    image = x = torch.randn(1, 4, 21, 513, dtype=torch.float64, requires_grad=True)
    for layer in part.layers:
        x = layer(x)
    assert x.shape == (1, 1, 21, 1)
    (gradient,) = torch.autograd.grad(x[0, 0, 10, 0], image)
    seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert seen == list(range(10 - 4, 10 + 4 + 1))  # four layers of 3 rows
    assert gradient.abs().sum((0, 1, 2)).all()


def test_mpd_has_a_logit_for_each_81_rows():
    for sub, found in logits(small("mpd"), *pair(time=16384)).items():
        period = int(sub.split()[1])
        rows = -(-16384 // period)
        assert found.shape == (2, 4, period * -(-rows // 81))  # four strides of 3


def test_level_is_the_deviation_of_the_mixture_but_quiet_ones_are_amplified_no_further():
    mixture = torch.randn(3, 2, 4096)
    mixture *= (torch.tensor([0.5, 0.011, 0.0001]) / mixture.std(dim=(1, 2))).view(3, 1, 1)
    torch.testing.assert_close(level(mixture).flatten(), torch.tensor([0.5, 0.011, 0.01]))


@pytest.mark.parametrize(
    ("name", "subs", "maps", "judged"),
    [
        ("patch", ["patch"], 6, 1),
        ("patch_pix2pix", ["patch"], 4, 1),
        ("stft", ["stft 1024"], 4, 4),
        ("msstft", ["stft 2048", "stft 1024", "stft 512"], 5, 4),
        ("mpd", ["period 2", "period 3", "period 5", "period 7", "period 11"], 5, 4),
    ],
)
def test_every_sub_discriminator_returns_features_and_logits(name, subs, maps, judged):
    outputs = small(name)(*pair(time=16384))
    assert list(outputs) == subs
    for features, found in outputs.values():
        assert len(features) == maps
        assert all(len(feature) == 2 * (1 if judged == 1 else 4) for feature in features)
        assert found.shape[:2] == (2, judged) and found.ndim == 3
    every = torch.cat([found.flatten() for _, found in outputs.values()])
    assert (every < 0).any() and (every > 0).any()  # logits, not rectified


def sine(bin_of_512, samples=4096):
    return torch.sin(2 * torch.pi * bin_of_512 / 512 * torch.arange(samples, dtype=torch.float64))


def test_msstft_sees_the_spectrum_that_torch_computes():
    """The energy of a sine lies in the bin of its frequency, in every frame."""
    stems = torch.stack([torch.zeros(2, 4096), sine(64).expand(2, -1)])  # the second of two stems has it
    _, image = build("msstft", width=2)._images(stems.sum(0, keepdim=True), stems, 512)
    assert image.shape == (2, 4, (4096 - 512) // 128 + 1, 257) and not image[0].any()
    # A full-scale sine has half of the Hann window's sum (256), divided by sqrt(512) (normalisation)
    for real, imaginary in (image[1, :2], image[1, 2:]):  # left, right
        magnitude = (real**2 + imaginary**2).sqrt()
        wanted = torch.full_like(magnitude[:, 64], 128 / 512**0.5)
        torch.testing.assert_close(magnitude[:, 64], wanted, rtol=1e-3, atol=0)
        assert magnitude[:, 70:].max() < 1e-3 * 128 / 512**0.5


def test_stft_sees_spectra_divided_by_the_mixtures_level_in_each_band():
    """A loud low and a quiet high sine look alike; a stem of half the mixture has half its magnitude."""
    mixture = (sine(16, 8192) + 0.003 * sine(200, 8192)).expand(1, 2, -1)
    stems = torch.stack([mixture, mixture / 2], dim=1)[0]
    own, images = build("stft", width=2)._images(mixture, stems, 1024)
    assert own.shape == (1, 4, (8192 - 1024) // 512 + 1, 513)
    torch.testing.assert_close(images, torch.cat([own, own / 2]))
    magnitude = (own[0, 0] ** 2 + own[0, 1] ** 2).sqrt().mean(0)
    low, high = magnitude[32], magnitude[400]
    # The level is the root of the mean power over 17 bins, of which Hann's main lobe has 1 + 2 / 4 times the peak's
    assert low.item() == pytest.approx((17 / 1.5) ** 0.5, rel=1e-3)
    assert high.item() == pytest.approx(low.item(), rel=1e-2)
    assert magnitude[300] < 0.1, "what is below -60 dB is not raised to the level of sound"


def test_mpd_folds_time_into_rows_of_a_period():
    signal = torch.arange(11.0).view(1, 1, 11)
    for image in build("mpd", width=2)._images(signal, signal, 3):
        # Reflected at the end: 10 is followed by 9
        assert image[0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 9]]


@pytest.mark.parametrize("name", NAMES)
def test_several_sets_of_stems_are_judged_as_each_alone(name):
    model = small(name)
    mixture, stems = pair()
    other = torch.randn_like(stems)
    for sub, found in logits(model, mixture, stems, other).items():
        for k, one in enumerate((stems, other)):
            wanted = logits(model, mixture, one)[sub]
            torch.testing.assert_close(found.unflatten(0, (2, 2))[:, k], wanted, rtol=1e-9, atol=1e-12)


def test_initial_weights_keep_the_size_of_signals():
    """A leaky rectifier of slope 0.2 passes (1 + 0.04) / 2 of the power; the weights compensate for it."""
    model = build("patch", width=16)
    for layer in model.patch.layers:
        assert not layer.bias.any()
        if layer.weight.numel() > 10_000:  # then the sample deviation is within 3 % (4 sigma) of the true one
            inputs = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / 1.04 / inputs) ** 0.5, rel=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_joint_gain_does_not_matter_but_own_gain_and_the_mixture_do(name):
    model = small(name)
    mixture, stems = pair()
    gains = torch.tensor([0.1, 10.0]).view(2, 1, 1)  # one per item
    expected = logits(model, mixture, stems)
    louder = logits(model, gains * mixture, gains[..., None] * stems)
    quieter_stems, other_mixture = logits(model, mixture, 0.5 * stems), logits(model, mixture.flip(0), stems)
    for sub, wanted in expected.items():
        torch.testing.assert_close(louder[sub], wanted, rtol=1e-9, atol=1e-12)
        for other in (quieter_stems[sub], other_mixture[sub]):  # it is conditional
            assert (other - wanted).abs().max() > 0.1 * wanted.std()


@pytest.mark.parametrize("name", PER_STEM)
def test_a_change_in_one_stem_changes_the_judgement_of_that_stem_alone(name):
    model = small(name)
    mixture, stems = pair()
    before = logits(model, mixture, stems)
    changed = stems.clone()
    changed[:, 2] *= -0.5
    for sub, after in logits(model, mixture, changed).items():
        same = (after == before[sub]).all(-1)
        assert same.tolist() == [[True, True, False, True]] * 2


@pytest.mark.parametrize("name", PER_STEM)
def test_it_knows_which_stem_it_judges(name):
    model = small(name)
    mixture, stems = pair()
    stems = stems[:, :1].expand_as(stems)  # the same sound as drums, bass, other and vocals
    for found in logits(model, mixture, stems).values():  # it starts without prejudice
        # A batch's items may be summed in different orders: up to 8e-14 of the deviation in float64, over five seeds
        torch.testing.assert_close(found, found[:, :1].expand_as(found), rtol=0, atol=1e-11 * found.std().item())
    for classes in model.names.values():
        nn.init.constant_(classes.weight[1], 1.0)
    for found in logits(model, mixture, stems).values():
        others = found[:, [0, 2, 3]]
        assert ((found[:, 1] - found[:, 0]).abs().amax(-1) > 0.1 * others.std()).all()
        torch.testing.assert_close(others, found[:, :1].expand_as(others), rtol=0, atol=1e-11 * others.std().item())
    sum(found.square().sum() for found in logits(model, mixture, stems).values()).backward()
    assert all(classes.weight.grad.any(-1).all() for classes in model.names.values())


@pytest.mark.parametrize("name", NAMES)
def test_items_do_not_influence_each_other(name):
    model = small(name)
    mixture, stems = pair()
    alone, together = logits(model, mixture[:1], stems[:1]), logits(model, mixture, stems)
    for sub, found in alone.items():
        torch.testing.assert_close(found, together[sub][:1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_silence_is_finite(name):
    mixture, stems = torch.zeros(1, 2, 4096), torch.zeros(1, 4, 2, 4096, requires_grad=True)
    found = torch.cat([x.flatten() for x in logits(small(name).float(), mixture, stems).values()])
    found.sum().backward()
    assert found.isfinite().all() and stems.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_stem_and_weight(name):
    model = small(name)
    mixture, stems = pair()
    stems.requires_grad_()
    sum(found.square().sum() for found in logits(model, mixture, stems).values()).backward()
    assert stems.grad.abs().amax(dim=-1).min() > 0
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_spectral_norm_holds_the_largest_singular_value_of_every_convolution_at_1(name):
    model = small(name, spectral_norm=True)
    views = pair(1, 4096 if name == "patch" else 2100)  # the shortest that each can see
    for _ in range(120):  # one step of its power iteration each
        model(*views)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
    # Of the stem, and of the mixture
    assert len(layers) == {"patch": 7, "stft": 5 + 1, "msstft": 3 * (6 + 1), "mpd": 5 * (6 + 1)}[name]
    with torch.no_grad():
        model.eval()
        for layer in layers:
            # 1 %: the iteration converges slowly where the two largest values are close
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)
    names = {name for name, _ in model.named_parameters()}
    assert not any("original1" in name for name in names), "weight normalisation is replaced, not stacked"
    expected = logits(model, *views)
    model(*views)
    for sub, found in logits(model, *views).items():
        assert torch.equal(found, expected[sub]), "an evaluation leaves it as it is"


def test_shared_dropout_drops_the_same_whole_channels_for_every_item():
    dropout = SharedDropout(0.3)
    out = dropout(torch.ones(4, 2000, 5))
    assert torch.equal(out, out[:1, :, :1].expand_as(out)), "all items and times alike"
    kept = out[0, :, 0]
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.7]))
    assert (kept > 0).float().mean().item() == pytest.approx(0.7, abs=0.041)  # 4 sigma of 2,000 draws
    assert torch.equal(dropout.eval()(out), out)


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_batch_meet_the_same_thinned_network(name):
    model = build(name, width=8, dropout=0.5).double()  # of fewer channels all might be dropped
    mixture, stems = pair(1)
    twice = (mixture, stems, stems)
    first, second = logits(model, *twice), logits(model, *twice)
    model.eval()
    whole, again = logits(model, *twice), logits(model, *twice)
    for sub, found in first.items():
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
        assert not torch.allclose(found, second[sub]), "another forward, another network"
        assert not torch.allclose(found, whole[sub])
        assert torch.equal(whole[sub], again[sub]), "an evaluation uses the whole network"
