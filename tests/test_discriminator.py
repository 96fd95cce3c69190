"""The discriminator sees what it says it sees, at the level of the mixture."""

import pytest
import torch

from lib.discriminator import PatchDiscriminator, build
from lib.errors import UserError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(batch=2, time=16384):
    stems = torch.randn(batch, 4, 2, time, dtype=torch.float64)
    return stems.sum(1), stems


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_size():
    weights = (
        16 * (10 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 512)  # k16, 10 -> 64 -> ... -> 512 -> 512
        + 4 * (512 * 512 + 512)  # k4, 512 -> 512 -> 1
        + (64 + 128 + 256 + 512 + 512 + 512 + 1)  # biases
    )
    assert count(build("patch")) == weights == 8_009_665
    assert count(build("patch", width=16)) < 8_009_665 / 15


@pytest.mark.parametrize("kernel, field, hop", [("wide", 11260, 1024), ("pix2pix", 70, 8)])
def test_receptive_field_and_logit_rate(kernel, field, hop):
    model = PatchDiscriminator(width=2, kernel=kernel).double()
    assert model.receptive_field == field
    for parameter in model.parameters():  # no weight cancels or is too small to be seen
        torch.nn.init.uniform_(parameter, 0.1, 1)
    mixture, stems = pair(1, 32 * 1024)
    frames = model(mixture, stems)[-1].shape[-1]
    assert abs(frames - 32 * 1024 / hop) <= 2  # two stride-1 layers lose a frame each

    stems.requires_grad_()
    model(mixture, stems)[-1][0, 0, frames // 2].backward()
    seen = stems.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    assert seen[-1] - seen[0] + 1 == len(seen) == field

    longer = model(*pair(1, 64 * 1024))[-1].shape[-1]
    assert longer - frames == 32 * 1024 / hop


@pytest.mark.parametrize("kernel, maps", [("wide", 7), ("pix2pix", 5)])
def test_feature_maps_end_in_logits(kernel, maps):
    features = PatchDiscriminator(width=2, kernel=kernel).double()(*pair())
    assert len(features) == maps
    assert all(len(feature) == 2 for feature in features)
    assert features[-1].shape[1] == 1
    assert (features[-1] < 0).any() and (features[-1] > 0).any()  # logits, not rectified


def test_initial_weights():
    for name, parameter in build("patch", width=16).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 10_000:  # then the sample deviation is within 3 % (4 sigma) of the true one
            assert parameter.std().item() == pytest.approx(0.02, rel=0.03)


def test_joint_gain_does_not_matter_but_own_gain_does():
    model = build("patch", width=4).double()
    mixture, stems = pair()
    gains = torch.tensor([0.1, 10.0]).view(2, 1, 1)  # one per item
    expected = model(mixture, stems)[-1]
    torch.testing.assert_close(model(gains * mixture, gains[..., None] * stems)[-1], expected, rtol=1e-9, atol=1e-12)
    for other in (model(mixture, 0.5 * stems)[-1], model(mixture.flip(0), stems)[-1]):  # it is conditional
        assert (other - expected).abs().max() > 0.1 * expected.std()


def test_items_do_not_influence_each_other():
    model = build("patch", width=4).double()
    mixture, stems = pair()
    alone, together = model(mixture[:1], stems[:1])[-1], model(mixture, stems)[-1][:1]
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-12)


def test_silence_is_finite():
    mixture, stems = torch.zeros(1, 2, 16384), torch.zeros(1, 4, 2, 16384, requires_grad=True)
    logits = build("patch", width=4)(mixture, stems)[-1]
    logits.sum().backward()
    assert logits.isfinite().all() and stems.grad.isfinite().all()


def test_gradient_reaches_every_stem_and_weight():
    model = build("patch", width=4).double()
    mixture, stems = pair()
    stems.requires_grad_()
    model(mixture, stems)[-1].mean().backward()
    assert stems.grad.abs().amax(dim=-1).min() > 0
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_unknown_names():
    with pytest.raises(UserError, match="no discriminator 'pach'; use patch"):
        build("pach")
    with pytest.raises(UserError, match="no kernel 'narrow'; use wide or pix2pix"):
        build("patch", kernel="narrow")
