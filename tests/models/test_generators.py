"""The other generators with Demucs's interface, and the files of all generators' weights."""

import functools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import train
from torch import nn

from lib.common.errors import UserError
from lib.config import Config
from lib.data.tracks import read_index
from lib.demucs import Demucs, center_trim
from lib.models.generators import GENERATORS
from lib.models.weights import load_weights, save_weights
from lib.separate import separate

SMALL = {
    "demucs": dict(channels=4, depth=3, lstm_layers=2),
    "conv_tasnet": dict(channels=8, depth=4, lstm_layers=0),
    "hdemucs": dict(channels=4, depth=5, lstm_layers=2),
}
PEERS = ["conv_tasnet", "hdemucs"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(name="demucs", **changes):
    return GENERATORS[name](**SMALL[name] | changes)


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert type(model) is type(other) and model.arguments == other.arguments and list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    mixture = torch.randn(1, 2, model.valid_length(2000))
    assert torch.equal(model(mixture), other(mixture))


# One interface


@pytest.mark.parametrize("name", GENERATORS)
def test_estimates_are_the_middle_of_the_mixture_and_train_every_weight(name):
    model = small(name)
    assert (model.sources, model.audio_channels, model.samplerate) == (4, 2, 44_100)
    for wanted in (1, 2_000, 13_230):
        mixture = torch.randn(2, 2, model.valid_length(wanted))
        estimates = model(mixture)
        assert estimates.shape[:3] == (2, 4, 2) and wanted <= estimates.shape[-1] <= mixture.shape[-1]
    estimates.square().mean().backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None or not weight.requires_grad, f"two processes would wait for {key}"


@pytest.mark.parametrize("name", PEERS)
def test_peers_estimates_belong_to_the_samples_that_they_stand_for(name):
    """The mixture is cut to a multiple of `unit`: its middle alone gives the same estimates."""
    model = small(name)
    mixture = torch.randn(1, 2, 8 * model.unit + 7)
    estimates = model(mixture)
    assert estimates.shape[-1] == 8 * model.unit
    assert torch.equal(estimates, model(center_trim(mixture, estimates)))


@pytest.mark.parametrize("name", PEERS)
def test_projected_estimates_of_peers_sum_to_the_mixture(name):
    plain, projected = small(name), small(name, projection=True)
    projected.load_state_dict(plain.state_dict())
    mixture = torch.randn(1, 2, projected.valid_length(4_000))
    torch.testing.assert_close(projected(mixture).sum(1), mixture, rtol=0, atol=1e-5)
    assert (plain(mixture).sum(1) - mixture).abs().max() > 0.1, "without projection they do not sum to the mixture"


def test_size_of_conv_tasnet():
    """4 stacks of `depth` blocks, twice as wide inside as outside, between an encoder and a decoder of 20 samples."""
    block = (8 * 16 + 16) + 1 + 2 * 16 + (16 * 3 + 16) + 1 + 2 * 16 + (16 * 8 + 8)  # the last adds to the masks
    residual = 16 * 8 + 8  # in all blocks but the last
    around = 2 * (2 * 8 * 20) + 2 * 8 + (8 * 8 + 8) + 1 + (8 * 4 * 8 + 4 * 8)
    found = sum(weights.numel() for weights in small("conv_tasnet").parameters())
    assert found == 4 * 4 * block + (4 * 4 - 1) * residual + around == 9_617


def test_masks_of_conv_tasnet_are_rectified():
    model = small("conv_tasnet")
    masks, frames = model.network.mask_generator, torch.randn(1, 8, 50)
    nn.init.zeros_(masks.output_conv.weight)
    for bias, mask in ((5.0, 5.0), (-5.0, 0.0)):
        nn.init.constant_(masks.output_conv.bias, bias)
        assert (masks(frames) == mask).all()


@pytest.mark.parametrize(("depth", "window", "with_lstm"), [(5, 1024, 1), (6, 4096, 2)])
def test_windows_and_lstms_of_hdemucs(depth, window, with_lstm):
    for lstm_layers in (0, 2):
        model = small("hdemucs", depth=depth, lstm_layers=lstm_layers)
        assert (model.network.nfft, model.unit, model.margin) == (window, window // 2, 2 * window)
        lstms = [layer.num_layers for layer in model.modules() if isinstance(layer, nn.LSTM)]
        assert lstms == [2] * (2 * with_lstm if lstm_layers else 0), "two per layer of the core"


def test_conv_tasnet_hears_both_channels_at_once():
    """One channel changes the estimates of the other, unlike in two mono passes."""
    model = small("conv_tasnet")
    mixture = torch.randn(1, 2, 2_000)
    other = mixture * torch.tensor([1.0, -1.0])[:, None]
    assert (model(mixture) - model(other))[:, :, 0].abs().max() > 0.01 * model(mixture).abs().max()


@pytest.mark.parametrize("name", PEERS)
def test_no_sample_beyond_the_margin_counts(name, monkeypatch):
    """Measured without the parts that cover the whole excerpt: normalisation, LSTM and attention."""
    model = small(name, channels=8).double()
    for layer in list(model.modules()):
        for key, part in list(layer.named_children()):
            if isinstance(part, nn.GroupNorm) or type(part).__name__ in ("_BLSTM", "_LocalState"):
                setattr(layer, key, nn.Identity())
    monkeypatch.setattr(torch.Tensor, "mean", lambda x, dim, keepdim: x.new_zeros(1))
    monkeypatch.setattr(torch.Tensor, "std", lambda x, dim, keepdim: x.new_ones(1))
    mixture = torch.randn(1, 2, model.valid_length(6 * model.margin), dtype=torch.float64, requires_grad=True)
    middle = mixture.shape[-1] // 2
    (gradient,) = torch.autograd.grad(model(mixture)[..., middle].sum(), mixture)
    weight = gradient.abs().sum((0, 1))
    weight = weight / weight.max()
    beyond = torch.cat([weight[: middle - model.margin], weight[middle + model.margin + 1 :]])
    assert beyond.max() < (1e-6 if name == "hdemucs" else 1e-300), "exactly 0 in a stack of convolutions"
    assert weight[middle - model.margin : middle - model.margin // 4].max() > 1e-6, (
        "and the margin is no larger than due"
    )


@pytest.mark.parametrize("name", GENERATORS)
def test_initial_weights_come_from_the_seed(name):
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(small(name).state_dict())
    first, again, other = models
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("conv_tasnet", dict(lstm_layers=2), "lstm_layers = 2 must be 0 for conv_tasnet"),
        ("hdemucs", dict(lstm_layers=1), "lstm_layers = 1 must be 0 or 2 for hdemucs"),
        ("hdemucs", dict(depth=4), "depth = 4 must be 5 or 6 for hdemucs"),
        ("hdemucs", dict(channels=3), "channels = 3 must be at least 4 for hdemucs"),
    ],
)
def test_sizes_that_a_peer_does_not_have_are_refused(name, changes, says):
    with pytest.raises(UserError, match=says):
        small(name, **changes)


def test_an_unknown_generator_is_refused():
    with pytest.raises(UserError, match="'umx' is unknown; choose one of demucs, conv_tasnet, hdemucs"):
        Config(data="x", generator="umx")


# The same harness


@pytest.mark.whole
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_with_l1_then_in_the_game_and_separates_a_track(index, tmp_path, name):
    config = dict(
        data=str(index), generator=name, steps=4, batch=4, lr=3e-3, lr_final=1e-3, seconds=0.1, shift_seconds=0.1,
        stride_seconds=0.3, discriminator_width=8, evaluate_every=2, evaluation_excerpts=4, **SMALL[name],
    )  # fmt: skip
    train(Config(**config), tmp_path / "l1-1")
    train(Config(**config, start_from=str(tmp_path / "l1-1"), adversarial_weight=0.01), tmp_path / "gan-1")
    errors = {}
    for arm in ("l1-1", "gan-1"):
        errors[arm] = [json.loads(line) for line in (tmp_path / arm / "metrics.jsonl").read_text().splitlines()]
    assert errors["l1-1"][-1]["l1_heldout"] < errors["l1-1"][0]["l1_heldout"], "two more steps lower the held-out error"
    assert all(np.isfinite(line["adversarial"]) and line["discriminator"] > 0 for line in errors["gan-1"])
    track = read_index(index)[0]["test"][0]
    before, after = (load_weights(tmp_path / arm / "model.safetensors") for arm in ("l1-1", "gan-1"))
    assert type(after) is GENERATORS[name] and after.arguments == small(name).arguments
    estimates = [separate(model, track.mixture(), seconds=1.0) for model in (before, after)]
    assert estimates[1].shape == (4, 2, track.samples) and estimates[1].isfinite().all()
    assert not torch.equal(*estimates), "the game changed the weights"


# Weights files


def upsampling():
    return Demucs(channels=4, depth=3, upsample=True)


@pytest.mark.parametrize("make", [*map(functools.partial(functools.partial, small), GENERATORS), upsampling])
def test_weights_survive_a_file(tmp_path, make):
    model, path = make(), tmp_path / "folder" / "model.safetensors"
    save_weights(model, path)
    assert_same(load_weights(path), model)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]  # no temporary file left
    first = path.read_bytes()
    save_weights(model, path)
    assert path.read_bytes() == first


def test_the_form_of_the_file_stays(tmp_path):
    """Files that exist name the generator in their metadata, with all arguments of Demucs."""
    model, path = small(), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {"demucs": json.dumps(model.arguments)})
    assert_same(load_weights(path), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision(tmp_path, dtype):
    model, path, half = small(), tmp_path / "single", tmp_path / "half"
    save_weights(model, path)
    save_weights(model, half, dtype=dtype)
    assert half.stat().st_size < 0.6 * path.stat().st_size  # half, and a header of the same size
    assert_same(load_weights(half), model.to(dtype).float())


def test_damaged_weights_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(Demucs(channels=2, depth=1), path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged or not a weights file of this project"):
            load_weights(path)
    save_file({"x": torch.zeros(1)}, path)  # sound, but somebody else's
    with pytest.raises(UserError, match="is damaged or not a weights file of this project"):
        load_weights(path)


def test_unwritable_weights(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"):
        save_weights(small(), tmp_path / "file" / "model.safetensors")


def test_loaded_weights_train(tmp_path):
    save_weights(small(), tmp_path / "model.safetensors")
    model = load_weights(tmp_path / "model.safetensors")
    mixture = torch.randn(1, 2, model.valid_length(500))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(5):
        losses.append(model(mixture).abs().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
