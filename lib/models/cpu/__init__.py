"""The generator at its fastest: same weights, same mathematics, other memory layout; optionally bfloat16.

    net = prepare(model, precision="bf16")  # takes mixtures and is trained like `model`, whose weights it shares

On a CPU the network of `lib.demucs` is computed by `lib.models.cpu.convolutions` and `lib.models.cpu.lstm`. On a GPU
cuDNN's layers are kept; there float32 products are TF32, and bf16 is autocast. bf16 is used for those layers alone
whose output and gradients were found right against float64 in this process: torch 2.11 has silently wrong bfloat16
layers on some CPUs.
"""

import contextlib
import copy
import ctypes
import os
import shutil

import torch
from torch import nn
from torch.nn import functional as F

from lib.common.errors import UserError
from lib.demucs import Demucs, center_trim
from lib.models.cpu import convolutions as products
from lib.models.cpu.lstm import lstm

BF16_TOLERANCE = 0.02  # relative; rounding alone makes 0.002 to 0.006
FRAMES = 24  # of a layer's output in the test of bfloat16


def keep_buffers():
    """Keep the memory of freed tensors in this process instead of returning it to the system.

    A fresh large buffer costs a page fault for every 4 KiB. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large buffer
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


def prepare(model, *, precision="fp32", compile=False, report=print):
    """A module that computes what `model` computes, faster, with its parameters, on its device.

    precision: fp32 or bf16; compile: by torch.compile (of the plain model where the device is a CPU); report: called
    with one line when layers stay in float32. Attributes of `model` are those of the result too. Raises `UserError`
    for bf16 with another network than Demucs, and when `compile` finds no C++ compiler.
    """
    device = next(model.parameters()).device
    ours = isinstance(model, Demucs) and products.cover(model.arguments)
    require(model, precision, compile)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    wrong = _wrong_in_bf16(model) if precision == "bf16" else {}
    if wrong:
        report(f"bf16 is wrong here in {', '.join(f'{k} ({v:.0%})' for k, v in wrong.items())}: left in fp32.")
    if device.type == "cpu" and ours and not compile:
        return FastDemucs(model, _layers(model).keys() - wrong.keys() if precision == "bf16" else ())
    net = Autocast(model) if precision == "bf16" and not wrong else model
    return torch.compile(net) if compile else net


def require(model, precision, compile):
    """Raise `UserError` for what `prepare` cannot do with a network such as `model`."""
    if precision == "bf16" and not (isinstance(model, Demucs) and products.cover(model.arguments)):
        raise UserError(f"precision = bf16 is not tested for {type(model).__name__}; choose fp32.")
    compiler = os.environ.get("CXX", "g++")
    if compile and not shutil.which(compiler):
        raise UserError(f"compile = true needs a C++ compiler, and {compiler} was not found; install it or set false.")


class _Around(nn.Module):
    """A module around `model` that has the attributes of `model`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


class Autocast(_Around):
    """`model` under bfloat16 autocast, with float32 estimates."""

    def forward(self, mixture):
        with torch.autocast(mixture.device.type, torch.bfloat16):
            return self.model(mixture).float()


class FastDemucs(_Around):
    """`model`, a `Demucs` on a CPU, with activations (batch, time, channels).

    bf16: names of the layers that compute in bfloat16; the others compute in float32.
    """

    def __init__(self, model, bf16=()):
        super().__init__(model)
        self.bf16 = frozenset(bf16)

    def forward(self, mixture):
        """As `Demucs.forward`."""
        x, skips = mixture.transpose(1, 2).contiguous(), []
        for level in range(self.depth):
            x = F.relu(self._layer(f"encoder.{level}.0", x))
            x = self._layer(f"encoder.{level}.2", x)
            skips.append(x)
        if self.lstm is not None:
            x = self._layer("lstm.lstm", x.transpose(0, 1))
            x = self._layer("lstm.linear", x).transpose(0, 1)
        for level in range(self.depth):
            x = x + center_trim(skips.pop().transpose(1, 2), x.shape[1]).transpose(1, 2)
            x = self._layer(f"decoder.{level}.0", x)
            x = self._layer(f"decoder.{level}.2", x)
            x = F.relu(x) if level < self.depth - 1 else x
        return self.estimates(x.transpose(1, 2).contiguous(), mixture)  # losses are slow on other orders

    def _layer(self, name, x):
        return _compute(self.get_submodule(f"model.{name}"), name, x, name in self.bf16)


def _compute(layer, name, x, bf16):
    """One layer, with its gate where it has one, of x channels last."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    if name == "lstm.lstm":
        return lstm(layer, x, dtype)
    x = x.to(dtype)
    if name == "lstm.linear":
        return F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))
    part, _, place = name.split(".")
    if place == "2" and part == "decoder":
        return products.up(x, layer)
    return products.down(x, layer) if place == "0" and part == "encoder" else products.gated(x, layer)


# The test of bfloat16


def _layers(model):
    """{name: layer} of all that may compute in bfloat16: the first and the last meet the audio, and cost little."""
    kinds = nn.Conv1d | nn.ConvTranspose1d | nn.LSTM | nn.Linear
    audio = ("encoder.0.0", f"decoder.{model.depth - 1}.2")
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds) and name not in audio}


def _wrong_in_bf16(model):
    """{name: error} of layers whose output, or a gradient, in bfloat16 is further from float64 than rounding."""
    errors = {name: bf16_error(layer, name) for name, layer in _layers(model).items()}
    return {name: error for name, error in errors.items() if not error < BF16_TOLERANCE}


def bf16_error(layer, name):
    """The largest relative error (Euclidean) of a layer's output and gradients in bfloat16, on noise.

    Computed as `prepare` would compute it: by `FastDemucs` on a CPU, under autocast on a GPU.
    """
    exact = copy.deepcopy(layer).double()
    device = layer.bias_ih_l0.device if isinstance(layer, nn.LSTM) else layer.bias.device
    generator = torch.Generator(device).manual_seed(0)
    width = getattr(layer, "in_channels", None) or getattr(layer, "in_features", None) or layer.input_size
    x = torch.randn(2, FRAMES * 4, width, generator=generator, device=device)

    def run(layer, x, cast):
        if device.type == "cpu" and cast:
            y = _compute(layer, name, x, True)
        else:
            with torch.autocast(device.type, torch.bfloat16, enabled=cast):
                y = _plain(layer, name, x)
        by_y = torch.randn(y.shape, generator=generator.manual_seed(1), device=device)
        return [y, *torch.autograd.grad(y, [x, *layer.parameters()], by_y.to(y.dtype))]

    pairs = zip(
        run(layer, x.requires_grad_(), True), run(exact, x.detach().double().requires_grad_(), False), strict=True
    )
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)


def _plain(layer, name, x):
    if isinstance(layer, nn.LSTM):
        return layer(x)[0]
    if isinstance(layer, nn.Linear):
        return layer(x)
    y = layer(x.transpose(1, 2))
    gate = name.startswith("encoder") == name.endswith(".2")
    return (F.glu(y, 1) if gate else y).transpose(1, 2)
