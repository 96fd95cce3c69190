"""A faster network with the same weights and outputs as a generator; optionally in bfloat16.

    net = prepare(model, precision="bf16")

On a CPU with AVX-512, `FastDemucs` computes `lib.demucs.Demucs` with the layers of `convolutions.py` and `lstm.py`;
without it they were slower than torch's own, and the generator stays as it is. On a GPU, float32 products become TF32,
and bf16 becomes autocast. Each layer computes in bfloat16 only if its output and gradients agree with float64: torch
2.11 has wrong bfloat16 layers on some CPUs, without an error.
"""

import copy
import os
import shutil
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from lib.common.errors import UserError
from lib.demucs import Demucs, center_trim
from lib.models.cpu import convolutions
from lib.models.cpu.lstm import lstm

BF16_TOLERANCE = 0.02  # relative error; rounding alone causes 0.002 to 0.006
FRAMES = 24  # frames of a layer's output in the bfloat16 check


def prepare(model, *, precision="fp32", compile=False, report=print):
    """A faster module with the same outputs, parameters, attributes and device as `model`.

    precision: "fp32" or "bf16"; compile: use torch.compile, on a CPU instead of `FastDemucs`; report: called with one
    line if layers stay in float32. Raises `UserError` where `check_supported` does.
    """
    device = next(model.parameters()).device
    check_supported(model, precision, compile)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    errors = {name: bf16_error(layer) for name, layer in _layers(model).items()} if precision == "bf16" else {}
    if errors and device.type == "cpu" and not wide_vectors():
        report("This processor has no AVX-512: bf16 takes several times as long as fp32 here.")
    wrong = {name: error for name, error in errors.items() if not error < BF16_TOLERANCE}
    if wrong:
        report(f"bf16 is wrong here in {', '.join(f'{k} ({v:.0%})' for k, v in wrong.items())}: left in fp32.")
    if device.type == "cpu" and _covered(model) and not compile and (errors or wide_vectors()):
        return FastDemucs(model, errors.keys() - wrong.keys())
    net = Autocast(model) if precision == "bf16" and not wrong else model
    return torch.compile(net) if compile else net


def wide_vectors():
    """Whether torch computes with AVX-512 here. By the processor's flags, so that a machine always takes one path."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def prepare_discriminator(network):
    """Let the 1-d convolutions of `network` compute by `convolutions.conv1d` where it is faster: on a CPU."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d) and layer.kernel_size[0] % layer.stride[0] == 0:
            layer._conv_forward = partial(convolutions.conv1d, stride=layer.stride[0], padding=layer.padding[0])
    return network


def check_supported(model, precision, compile):
    """Raise `UserError` for bf16 unless `model` is a covered Demucs, and for `compile` without a C++ compiler."""
    if precision == "bf16" and not _covered(model):
        raise UserError(f"precision = bf16 is not tested for {type(model).__name__}; choose fp32.")
    compiler = os.environ.get("CXX", "g++")
    if compile and not shutil.which(compiler):
        raise UserError(f"compile = true needs a C++ compiler, and {compiler} was not found; install it or set false.")


def _covered(model):
    """Whether the layers of `convolutions.py` and `lstm.py` can compute `model`."""
    a = model.arguments
    shape = isinstance(model, Demucs) and a["kernel_size"] == 2 * a["stride"] > 2
    return shape and a["rewrite"] and a["glu"] and not a["upsample"]


class _Wrapper(nn.Module):
    """A wrapper of `model` that also has its attributes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


class Autocast(_Wrapper):
    """`model` under bfloat16 autocast, with float32 estimates."""

    def forward(self, mixture):
        with torch.autocast(mixture.device.type, torch.bfloat16):
            return self.model(mixture).float()


class FastDemucs(_Wrapper):
    """A `Demucs` on a CPU with activations of shape (batch, time, channels); `bf16` names the layers in bfloat16."""

    def __init__(self, model, bf16):
        super().__init__(model)
        self.bf16 = frozenset(bf16)

    def forward(self, mixture):
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
        return self.estimates(x.transpose(1, 2).contiguous(), mixture)  # the losses are slow on other memory orders

    def _layer(self, name, x):
        return _compute(self.model.get_submodule(name), x, torch.bfloat16 if name in self.bf16 else torch.float32)


def _compute(layer, x, dtype):
    """Output of one layer, including the gate of a convolution of stride 1, for `x` with channels last."""
    if isinstance(layer, nn.LSTM):
        return lstm(layer, x, dtype)
    x = x.to(dtype)
    if isinstance(layer, nn.Linear):
        return F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))
    if isinstance(layer, nn.ConvTranspose1d):
        return convolutions.up(x, layer)
    return convolutions.down(x, layer) if layer.stride[0] > 1 else convolutions.gated(x, layer)


# The bfloat16 check


def _layers(model):
    """{name: layer} of all layers but the first and the last, which stay in float32: they are cheap."""
    kinds = nn.Conv1d | nn.ConvTranspose1d | nn.LSTM | nn.Linear
    audio = ("encoder.0.0", f"decoder.{model.depth - 1}.2")
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds) and name not in audio}


def bf16_error(layer):
    """Largest relative error (Euclidean norm) of a layer's bfloat16 output and gradients against float64, on noise."""
    exact = copy.deepcopy(layer).double()
    device = next(layer.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    width = getattr(layer, "in_channels", None) or getattr(layer, "in_features", None) or layer.input_size
    x = torch.randn(2, FRAMES * 4, width, generator=generator, device=device)

    def run(layer, x, cast):
        if device.type == "cpu" and cast:
            y = _compute(layer, x, torch.bfloat16)
        else:
            with torch.autocast(device.type, torch.bfloat16, enabled=cast):
                y = _plain(layer, x)
        by_y = torch.randn(y.shape, generator=generator.manual_seed(1), device=device)
        return [y, *torch.autograd.grad(y, [x, *layer.parameters()], by_y.to(y.dtype))]

    found = run(layer, x.requires_grad_(), True)
    wanted = run(exact, x.detach().double().requires_grad_(), False)
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True))


def _plain(layer, x):
    """The same as `_compute`, by torch's own layers."""
    if isinstance(layer, nn.LSTM | nn.Linear):
        y = layer(x)
        return y[0] if isinstance(layer, nn.LSTM) else y
    y = layer(x.transpose(1, 2))
    return (F.glu(y, 1) if layer.stride[0] == 1 else y).transpose(1, 2)
