"""Convolutions on a CPU, with channels last, mostly as sums of matrix products without copies.

Tensors are (batch, time, channels), float32 or bfloat16. A frame of `stride` samples is then a row, and a convolution
whose kernel is k strides long is the sum of k matrix products on the same memory, one row apart. The results of
`nn.Conv1d` and `nn.ConvTranspose1d` with the same weights differ by rounding alone. In Demucs k is 2; `conv1d` serves
the discriminators.
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


def conv1d(x, weight, bias, stride, padding):
    """Output (batch, out, frames) of a convolution whose kernel is a multiple of its stride, for x (batch, in, time).

    Channels are last in memory. On another device than a CPU, this is torch's own convolution.
    """
    if x.device.type != "cpu":
        return F.conv1d(x, weight, bias, stride, padding)
    return _Strided.apply(x, weight, bias, stride, padding)


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
        return by_x, _correlation(gradient, x, weight), gradient.sum((0, 1))


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
        by_x = _gather(gradient, weight, gradient.new_zeros(()))
        return by_x, _correlation(x, gradient, weight), gradient.sum((0, 1))


class _Strided(torch.autograd.Function):
    """`conv1d`: oneDNN's convolution forward, products of rows backward. It can be differentiated twice."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        frames = (x.shape[2] + 2 * padding - weight.shape[2]) // stride + 1
        padded = x.new_empty(len(x), (frames - 1) * stride + weight.shape[2], x.shape[1])
        end = min(padding + x.shape[2], padded.shape[1])
        padded[:, :padding], padded[:, end:] = 0, 0
        padded[:, padding:end] = x[:, :, : end - padding].transpose(1, 2)
        taps = _last(weight)  # (out, kernel, in)
        ctx.save_for_backward(x, weight, bias, padded, taps)
        ctx.stride, ctx.padding = stride, padding
        # `squeeze_`, as a view could not be changed in place by what follows
        return F.conv2d(*(v.transpose(1, 2).unsqueeze(2) for v in (padded, taps)), bias, (1, stride)).squeeze_(2)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, bias, padded, taps = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative may follow: torch's own convolution has one
            y = F.conv1d(x, weight, bias, ctx.stride, ctx.padding)
            wanted = [value for value, needed in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None
        gradient = _last(gradient)
        wide = ctx.stride * x.shape[1]
        weights = taps.flatten(1).split(wide, 1)  # one of each row of the kernel, (out, wide)
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_padded = _scatter(gradient, weights, gradient.new_zeros(()))
            by_x = by_padded.view(padded.shape).transpose(1, 2)[:, :, ctx.padding : ctx.padding + x.shape[2]]
            if unseen := x.shape[2] - by_x.shape[2]:  # samples after the last frame
                by_x = F.pad(by_x, (0, unseen))
            by_x = by_x.contiguous() if x.is_contiguous() else by_x  # the order of what comes next
        if ctx.needs_input_grad[1]:
            by_taps = torch.zeros_like(taps)
            _correlate(gradient, padded.view(len(x), -1, wide), by_taps.flatten(1).split(wide, 1))
            by_weight, by_bias = by_taps.transpose(1, 2), gradient.sum((0, 1))
        return by_x, by_weight, by_bias, None, None


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
    x = y.new_empty(len(y), frames + k - 1, weight[0].shape[1])
    x[:, frames:] = bias
    for rows, out in zip(y, x, strict=True):
        torch.addmm(bias, rows, weight[0], out=out[:frames])
        for j in range(1, k):
            out[j : j + frames].addmm_(rows, weight[j])
    return x


def _correlation(y, x, weight):
    """Gradient with respect to `weight`, float32."""
    total = torch.zeros_like(weight, dtype=torch.float32)
    _correlate(y, x, total)
    return total


def _correlate(y, x, totals):
    """Add the gradient with respect to each of the k weights, a sum over batch and frames, to `totals`."""
    frames = y.shape[1]
    for one, other in zip(y, x, strict=True):
        for j, total in enumerate(totals):
            accumulate(total, one.t(), other[j : j + frames])


def accumulate(total, a, b):
    """total += a @ b, where `total` may have a higher precision than a and b."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
