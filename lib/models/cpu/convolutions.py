"""The convolutions of Demucs on a CPU, with channels last, mostly as sums of matrix products without copies.

Tensors are (batch, time, channels), float32 or bfloat16. A frame of `stride` samples is then a row, and a convolution
whose kernel is two strides long is the sum of two matrix products on the same memory, one row apart. The results of
`nn.Conv1d` and `nn.ConvTranspose1d` with the same weights differ by rounding alone.
"""

import torch
from torch.nn import functional as F

NARROW = 256  # most channels for which products beat oneDNN's convolutions; beyond, reordering the weights costs more
LINE = 128  # bytes; for shorter frames the two halves of a gated unit are computed separately, as splitting is slow
WIDE_ENOUGH = 32  # fewest input channels for which products speed up the backward pass of a float32 convolution


def down(x, conv):
    """Output of an `nn.Conv1d` whose kernel is two strides long, for x (batch, time, channels)."""
    width, channels, stride = conv.out_channels, conv.in_channels, conv.stride[0]
    if width > NARROW:
        return _last(F.conv1d(_last(x), conv.weight.to(x.dtype), conv.bias.to(x.dtype), stride))
    if channels < 8:
        return _convolve(x, conv.weight, conv.bias, stride)
    frames = (x.shape[1] - 2 * stride) // stride + 1
    rows = x[:, : (frames + 1) * stride].reshape(len(x), frames + 1, stride * channels)
    return _Windows.apply(rows, _pack(conv.weight, x.dtype), conv.bias.to(x.dtype))


def up(x, conv):
    """Output of an `nn.ConvTranspose1d` whose kernel is two strides long, for x (batch, time, channels)."""
    stride, weight, bias = conv.stride[0], conv.weight.to(x.dtype), conv.bias.to(x.dtype)
    if conv.in_channels > NARROW:
        return _last(F.conv_transpose1d(_last(x), weight, bias, stride))
    rows = _Spread.apply(x.contiguous(), _pack(conv.weight, x.dtype), bias.repeat(stride))
    return rows.view(len(x), -1, conv.out_channels)


def gated(x, conv):
    """Gated linear unit after `conv`, an `nn.Conv1d` of stride 1, for x (batch, time, channels)."""
    weight, bias = conv.weight, conv.bias
    if conv.in_channels > NARROW:
        return _last(F.glu(F.conv1d(_last(x), weight.to(x.dtype), bias.to(x.dtype)), 1))
    if conv.in_channels * x.element_size() >= LINE:
        return F.glu(_flat(x, weight, bias), -1)
    a, b = (_flat(x, *half) for half in zip(weight.chunk(2), bias.chunk(2), strict=True))
    return a * b.sigmoid()


def _flat(x, weight, bias):
    """A convolution of stride 1, before its gate."""
    if weight.shape[-1] == 1:
        return F.linear(x, weight[..., 0].to(x.dtype), bias.to(x.dtype))
    if x.dtype == torch.float32 and weight.shape[1] >= WIDE_ENOUGH:
        return _Context.apply(x, weight.permute(2, 0, 1).contiguous(), bias)
    return _convolve(x, weight, bias, 1)


def _convolve(x, weight, bias, stride):
    """oneDNN's 2-d convolution: unlike the 1-d one, it keeps the channels last."""
    weight, bias = weight.to(x.dtype).unsqueeze(2), bias.to(x.dtype)
    y = F.conv2d(x.transpose(1, 2).unsqueeze(2), weight, bias, (1, stride))
    return y.squeeze(2).transpose(1, 2)


def _last(x):
    """Swap time and channels, in memory too: operations that mix both orders are slow."""
    return x.transpose(1, 2).contiguous()


def _pack(weight, dtype):
    """Weight (a, b, two strides) -> (2, a, stride × b), the order of the rows, in one copy."""
    a, b, _ = weight.shape
    return weight.to(dtype).view(a, b, 2, -1).permute(2, 0, 3, 1).reshape(2, a, -1)


class _Windows(torch.autograd.Function):
    """y[:, t] = sum over j of x[:, t + j] @ weight[j].T + bias."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _gather(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_x = _scatter(gradient, weight, gradient.new_zeros(())) if ctx.needs_input_grad[0] else None
        return by_x, _correlate(gradient, x, weight), gradient.sum((0, 1))


class _Context(_Windows):
    """The same, with oneDNN's convolution in the forward pass."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight.permute(1, 2, 0), bias, 1)


class _Spread(torch.autograd.Function):
    """y[:, t + j] += x[:, t] @ weight[j], plus bias."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _scatter(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        return _gather(gradient, weight, gradient.new_zeros(())), _correlate(x, gradient, weight), gradient.sum((0, 1))


# Sums of matrix products of rows: x (batch, frames + k - 1, wide), y (batch, frames, narrow), weight (k, narrow, wide)


def _gather(x, weight, bias):
    k = len(weight)
    y = x.new_empty(len(x), x.shape[1] - k + 1, weight.shape[1])
    for rows, out in zip(x, y, strict=True):
        torch.addmm(bias, rows[: len(out)], weight[0].t(), out=out)
        for j in range(1, k):
            out.addmm_(rows[j : j + len(out)], weight[j].t())
    return y


def _scatter(y, weight, bias):
    k, frames = len(weight), y.shape[1]
    x = y.new_empty(len(y), frames + k - 1, weight.shape[2])
    x[:, frames:] = bias
    for rows, out in zip(y, x, strict=True):
        torch.addmm(bias, rows, weight[0], out=out[:frames])
        for j in range(1, k):
            out[j : j + frames].addmm_(rows, weight[j])
    return x


def _correlate(y, x, weight):
    """Gradient with respect to `weight`, float32: a sum over batch and frames."""
    total = torch.zeros_like(weight, dtype=torch.float32)
    frames = y.shape[1]
    for one, other in zip(y, x, strict=True):
        for j, out in enumerate(total):
            accumulate(out, one.t(), other[j : j + frames])
    return total


def accumulate(total, a, b):
    """total += a @ b, where `total` may have a higher precision than a and b."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
