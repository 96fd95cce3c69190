"""The fast network has the plain one's outputs and gradients, and uses bfloat16 only where it is right."""

import copy
import shutil
import sys

import pytest
import torch
import typed
from torch import nn
from torch.nn import functional as F

from lib.common.errors import UserError
from lib.demucs import Demucs
from lib.discriminator import PatchDiscriminator
from lib.models.cpu import convolutions
from lib.models.cpu.lstm import lstm
from lib.models.cpu.prepare import (
    BF16_TOLERANCE,
    Autocast,
    FastDemucs,
    bf16_error,
    prepare,
    prepare_discriminator,
)

SHAPES = {
    "narrow": dict(channels=4, depth=3),  # gates halved apart, no oneDNN in the backward pass
    "tile": dict(channels=32, depth=2),  # the context's backward as products, gates in one piece
    "wide": dict(channels=160, depth=2, lstm_layers=1),  # the second level is wider than `convolutions.NARROW`
    "no lstm, other stride": dict(channels=8, depth=2, lstm_layers=0, kernel_size=6, stride=3, context=5),
    "projection": dict(channels=8, depth=2, projection=True),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def results(net, mixture, like):
    """The estimates, and the gradients by every parameter of `like` and the mixture, of a random sum of estimates."""
    mixture = mixture.clone().requires_grad_()
    estimates = net(mixture)
    by_estimates = torch.randn(estimates.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad(estimates, [mixture, *like.parameters()], by_estimates.to(estimates.dtype))
    return [estimates, *gradients]


def error(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("more", [0, 5])  # also a length that leaves samples over
def test_outputs_and_gradients_are_those_of_the_plain_network(monkeypatch, shape, more):
    # Without a kink: at a value that rounding moves across zero, gradients jump
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.silu(x))
    model = Demucs(**SHAPES[shape])
    net = FastDemucs(model, ())
    mixture = torch.randn(2, 2, model.valid_length(700) + more)
    exact = copy.deepcopy(model).double()
    reference = results(exact, mixture.double(), exact)
    for ours, plain, wanted in zip(*(results(n, mixture, model) for n in (net, model)), reference, strict=True):
        assert ours.shape == wanted.shape
        assert error(ours, wanted) < 3 * error(plain, wanted) + 3e-7  # another order of sums; 2.5 units of rounding


@pytest.mark.parametrize("time, batch", [(1, 2), (2, 1), (7, 3), (70, 2)])  # the last passes `WORTH_TURNING`
@pytest.mark.parametrize("width", [3, 40])
def test_lstm_is_the_librarys(time, batch, width):
    module = nn.LSTM(width, width, 2, bidirectional=True).double()
    x = torch.randn(time, batch, width)
    single = copy.deepcopy(module).float()
    ours, wanted = results(lambda x: lstm(single, x), x, single), results(lambda x: module(x)[0], x.double(), module)
    for found, exact in zip(ours, wanted, strict=True):
        assert (found.double() - exact).norm() <= 2e-6 * exact.norm()  # zero at a first step: the recurrent gradient


def test_the_fast_network_shares_the_weights_and_shows_the_attributes():
    model = Demucs(channels=4, depth=2)
    net = FastDemucs(model, ())
    assert all(a is b for a, b in zip(net.parameters(), model.parameters(), strict=True))
    assert net.sources == 4 and net.valid_length(1000) == model.valid_length(1000)
    with pytest.raises(AttributeError, match="nothing"):
        net.nothing  # noqa: B018


@pytest.mark.parametrize(("capability", "kind"), [("AVX512", FastDemucs), ("AVX2", Demucs), ("DEFAULT", Demucs)])
def test_the_processors_flags_choose_the_layers(monkeypatch, capability, kind):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    said = []
    assert type(prepare(Demucs(channels=4, depth=2))) is kind
    assert type(prepare(Demucs(channels=4, depth=2), precision="bf16", report=said.append)) is FastDemucs
    assert any("no AVX-512" in line for line in said) == (kind is Demucs)


def test_estimates_under_autocast_are_float32():
    model = Demucs(channels=4, depth=2)
    assert Autocast(model)(torch.randn(1, 2, model.valid_length(100))).dtype == torch.float32


@pytest.mark.parametrize("other", [dict(glu=False), dict(rewrite=False), dict(upsample=True), dict(stride=2)])
def test_networks_of_other_layers_stay_as_they_are(other):
    model = Demucs(channels=4, depth=2, **other)
    assert prepare(model) is model
    with pytest.raises(UserError, match="bf16 is not tested for"):
        prepare(model, precision="bf16")


@pytest.mark.parametrize(
    ("channels", "depth"),
    [
        (8, 6),
        *((channels, 2) for channels in (16, 24)),  # torch's own strided convolutions of 16 to 24 channels are wrong
        *(pytest.param(channels, 6, marks=pytest.mark.slow) for channels in (16, 32)),  # a minute: 134 M parameters
    ],
)
def test_bf16_is_within_rounding_layer_by_layer(channels, depth):
    said = []
    net = prepare(Demucs(channels=channels, depth=depth), precision="bf16", report=said.append)
    assert not any("wrong" in line for line in said)
    assert len(net.bf16) == 4 * depth  # 2 layers a level each side, LSTM, linear, without first and last
    x = torch.randn(1, 2, net.valid_length(3000))
    with torch.no_grad():
        plain = net.model(x)
        assert 1e-4 < (net(x) - plain).norm() / plain.norm() < 0.02  # in use, and of the size of its rounding


def test_bf16_is_within_rounding_in_a_wide_lstm():
    """As wide as that of 32 channels; torch's own is wrong at this width on some CPUs."""
    assert 1e-4 < bf16_error(nn.LSTM(1024, 1024, bidirectional=True)) < BF16_TOLERANCE


def test_a_wrong_bf16_layer_stays_in_fp32_and_is_named(monkeypatch):
    right = convolutions.up

    def wrong(x, conv):
        y = right(x, conv)
        return y * (1.05 if x.dtype == torch.bfloat16 and conv.in_channels == 8 else 1)

    monkeypatch.setattr(convolutions, "up", wrong)
    said, model = [], Demucs(channels=4, depth=3)
    net = prepare(model, precision="bf16", report=said.append)
    assert "decoder.1.2 (5%)" in said[-1] and "decoder.0.2" not in said[-1]
    assert "decoder.1.2" not in net.bf16 and "decoder.0.2" in net.bf16


def test_a_wrong_bf16_gradient_alone_is_found(monkeypatch):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 1.05

    right = convolutions.gated
    monkeypatch.setattr(
        convolutions, "gated", lambda x, conv: right(Wrong.apply(x) if x.dtype == torch.bfloat16 else x, conv)
    )
    layer = Demucs(channels=4, depth=2).encoder[1][2]
    assert bf16_error(layer) == pytest.approx(0.05, abs=0.01)


def test_training_in_bf16_follows_training_in_fp32():
    model = Demucs(channels=8, depth=3)
    mixture = torch.randn(2, 2, model.valid_length(2000))
    losses = {}
    for precision in ("fp32", "bf16"):
        net = prepare(copy.deepcopy(model), precision=precision)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(10):
            loss = net(mixture).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[precision] = loss.item()
    with torch.no_grad():
        before = model(mixture).abs().mean().item()
    assert losses["fp32"] < 0.8 * before
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compilation_is_of_the_plain_network():
    net = prepare(Demucs(channels=4, depth=2), compile=True)  # compiled when it is first used
    assert isinstance(net, torch._dynamo.OptimizedModule) and isinstance(net._orig_mod, Demucs)


def test_compiling_without_a_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler was not found"):
        prepare(Demucs(channels=4, depth=2), compile=True)


BUFFERS = """
import resource, torch
from lib.common.processes import keep_buffers
if KEEP:
    keep_buffers()
for _ in range(10):
    torch.ones(2**23)  # 32 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_buffers_are_kept(tmp_path):
    with typed.server():
        kept, returned = (int(typed.run(f"KEEP = {keep}{BUFFERS}", tmp_path).output) for keep in (True, False))
    assert returned >= 20 * 16  # 32 MB in the largest pages, of 2 MiB
    assert kept < returned / 4


# The discriminators' convolutions


def derivatives(model, mixture, stems, judge):
    """Features and logits; every gradient of a sum of them; the gradients of the squared gradient by the stems (R1)."""
    stems = stems.clone().requires_grad_()
    [(features, logits)] = judge(mixture, stems).values()
    loss = (logits * torch.linspace(1, 2, logits.shape[-1], dtype=logits.dtype)).sum() + sum(
        x.square().mean() for x in features
    )
    first = torch.autograd.grad(loss, [stems, *model.parameters()])
    (by_stems,) = torch.autograd.grad(judge(mixture, stems)["patch"][1].sum(), stems, create_graph=True)
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    return [logits, *features, *first, by_stems, *torch.autograd.grad(by_stems.square().sum(), weights)]


@pytest.mark.parametrize("kernel", ["wide", "pix2pix"])
@pytest.mark.parametrize("samples", [12_000, 12_001])  # the strides of "wide" leave samples over
def test_every_gradient_of_the_patch_discriminator_is_that_of_the_plain_one(kernel, samples):
    model = PatchDiscriminator(width=8, kernel=kernel)
    for layer in model.patch.layers:
        nn.init.normal_(layer.bias, std=0.1)
    ours, exact = prepare_discriminator(copy.deepcopy(model)), copy.deepcopy(model).double()
    calls = []
    for layer in ours.patch.layers:  # the weights' gradients come from products
        layer.register_forward_hook(lambda *found: calls.append(type(found[2].grad_fn).__name__))
    stems = torch.randn(2, 4, 2, samples)
    results = [derivatives(m, stems.sum(1), stems, m) for m in (ours, model)]
    reference = derivatives(exact, stems.sum(1).double(), stems.double(), exact)
    assert set(calls) == {"_StridedBackward"}
    for found, plain, wanted in zip(*results, reference, strict=True):
        assert found.shape == wanted.shape
        assert error(found, wanted) < 3 * error(plain, wanted) + 3e-7


def test_a_discriminators_weights_that_need_no_gradient_get_none():
    x, weight = torch.randn(2, 3, 40, requires_grad=True), torch.randn(5, 3, 8)
    bias = torch.randn(5)
    y = convolutions.conv1d(x, weight, bias, 4, 2)
    assert y.grad_fn.next_functions[1][0] is None
    (found,) = torch.autograd.grad(y.square().sum(), x)
    plain = x.detach().clone().requires_grad_()
    (wanted,) = torch.autograd.grad(nn.functional.conv1d(plain, weight, bias, 4, 2).square().sum(), plain)
    torch.testing.assert_close(found, wanted)
