"""Demucs v1, the generator: it maps the waveform of a mixture to the waveforms of its stems.

Source: Défossez, Usunier, Bottou, Bach, *Music Source Separation in the Waveform Domain* (arXiv 1911.13254). Written
anew after the authors' MIT-licensed code (commit dcee007a), with the same outputs, initial weights and state-dict keys.

    model = Demucs(channels=64)  # or Demucs.load_published("demucs.th")
    estimates = model(mixture)   # (batch, 2, time) -> (batch, 4, 2, a little less time)
"""

import math

import torch
from torch import nn


def center_trim(tensor, reference):
    """Return the middle of `tensor` along time (the last dimension), as long as `reference`, a tensor or a length.

    If the surplus is odd, the extra sample is cut from the right. Raises `ValueError` if `tensor` is shorter than
    `reference`.
    """
    length = reference if isinstance(reference, int) else reference.shape[-1]
    surplus = tensor.shape[-1] - length
    if surplus < 0:
        raise ValueError(f"cannot trim {tensor.shape[-1]} samples to {length}")
    return tensor.narrow(-1, surplus // 2, length)


class BiLSTM(nn.Module):
    """Bidirectional LSTM over time, projected back to the input's width: (batch, width, time) in and out."""

    def __init__(self, width, layers):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, bidirectional=True)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x):
        return self.linear(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)


class Demucs(nn.Module):
    """U-Net of strided convolutions on the waveform with an LSTM in the middle (paper, section 4).

    Attributes: `sources`, `audio_channels`, `samplerate`, and `arguments`, the dictionary of all keyword arguments.
    """

    def __init__(
        self,
        *,
        sources=4,  # number of stems
        audio_channels=2,
        channels=64,  # width of the first layer; 100 in the paper
        depth=6,  # number of encoder layers, and of decoder layers
        rewrite=True,  # add a convolution to each layer: of 1 frame in the encoder, of `context` in the decoder
        glu=True,  # gated linear units after these convolutions, else ReLU
        upsample=False,  # decimate and interpolate linearly, as Wave-U-Net, instead of strided convolutions
        rescale=0.1,  # initial weights are divided by sqrt(their standard deviation / this); 0: not rescaled
        kernel_size=8,
        stride=4,
        growth=2.0,  # ratio of a layer's width to that of the layer outside it
        lstm_layers=2,  # 0: no LSTM
        context=3,  # frames that the decoder's convolutions see
        samplerate=44100,  # Hz; stored, not used
        projection=False,  # not in the paper: add an equal share of the residual, so that estimates sum to the mixture
    ):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments = arguments
        self.sources, self.audio_channels, self.samplerate = sources, audio_channels, samplerate
        self.depth, self.kernel_size, self.stride, self.context = depth, kernel_size, stride, context
        self.upsample, self.projection = upsample, projection

        # The order in which the layers are made fixes their initial weights: `final`, then each encoder layer and
        # its mirror image in the decoder, then the LSTM.
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        outputs = sources * audio_channels
        self.final = nn.Conv1d(channels + audio_channels, outputs, 1) if upsample else None
        resize, step = (nn.Conv1d, 1) if upsample else (nn.ConvTranspose1d, stride)
        gates = 2 if glu else 1

        outside, width = audio_channels, channels
        for level in range(depth):
            down = [nn.Conv1d(outside, width, kernel_size, step), nn.ReLU()]
            if rewrite:
                down += [nn.Conv1d(width, gates * width, 1), nn.GLU(dim=1) if glu else nn.ReLU()]
            self.encoder.append(nn.Sequential(*down))

            up = []
            if rewrite:
                up += [nn.Conv1d(width, gates * width, context), nn.GLU(dim=1) if glu else nn.ReLU()]
            if level == 0:
                up += [resize(width, channels if upsample else outputs, kernel_size, step)]
            else:
                up += [resize(width, outside, kernel_size, step), nn.ReLU()]
            self.decoder.insert(0, nn.Sequential(*up))
            outside, width = width, int(growth * width)

        self.lstm = BiLSTM(outside, lstm_layers) if lstm_layers else None
        for layer in self.modules() if rescale else ():  # paper, "weights rescaling"
            # The meta device holds no weights; there, std would take a second.
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) and not layer.weight.is_meta:
                scale = (layer.weight.detach().std() / rescale).sqrt()
                layer.weight.data /= scale
                layer.bias.data /= scale

    @property
    def margin(self):
        """Samples at either end of an estimate where the innermost transposed convolution lacked a neighbour."""
        return self.stride**self.depth

    def valid_length(self, length):
        """Return the shortest input that every layer divides exactly and that gives at least `length` samples.

        With `upsample`, the original's formula returns more than necessary.
        """
        for _ in range(self.depth):
            if self.upsample:
                length = math.ceil(length / self.stride) + self.kernel_size - 1
            else:
                length = math.ceil((length - self.kernel_size) / self.stride) + 1
            length = max(1, length) + self.context - 1
        for _ in range(self.depth):
            if self.upsample:
                length = length * self.stride + self.kernel_size - 1
            else:
                length = (length - 1) * self.stride + self.kernel_size
        return length

    def forward(self, mixture):
        """Map a mixture (batch, audio_channels, time) to estimates (batch, sources, audio_channels, shorter time).

        Nothing is padded, so the estimates cover the middle of the mixture: compare them with its `center_trim`.
        """
        x, skips = mixture, []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
            if self.upsample:
                x = x[..., :: self.stride]
        if self.lstm is not None:
            x = self.lstm(x)
        for layer in self.decoder:
            if self.upsample:
                x = _interpolate(x, self.stride)
            x = layer(x + center_trim(skips.pop(), x))
        if self.final is not None:
            x = self.final(torch.cat([x, center_trim(mixture, x)], dim=1))
        return self.estimates(x, mixture)

    def estimates(self, x, mixture):
        """Split the last layer's output (batch, sources * audio_channels, time) into sources, and project it."""
        x = x.unflatten(1, (self.sources, self.audio_channels))
        if self.projection:
            x = x + (center_trim(mixture, x) - x.sum(1))[:, None] / self.sources
        return x

    @classmethod
    def load_published(cls, path):
        """Load a checkpoint of the original authors; see `lib.models.original.load_published`."""
        from lib.models.original import load_published

        return load_published(path)


def _interpolate(x, factor):
    """Interpolate (batch, channels, time) linearly to (batch, channels, (time - 1) * factor)."""
    fraction = torch.arange(factor, device=x.device, dtype=x.dtype) / factor
    return (x[..., :-1, None] * (1 - fraction) + x[..., 1:, None] * fraction).flatten(2)
