"""Demucs v1, the generator: from the waveform of a mixture to the waveforms of its stems.

Source: Défossez, Usunier, Bottou, Bach, *Music Source Separation in the Waveform Domain* (arXiv 1911.13254),
and the authors' MIT-licensed repository at commit dcee007a. Same numbers, same initial weights from the same
seed, same state-dict keys; written anew.

    model = Demucs(channels=64)
    estimates = model(mixture)      # (batch, 2, time) -> (batch, 4, 2, a little less time)
    model = Demucs.load_published("demucs.th")
"""

import math

import torch
from torch import nn


def center_trim(tensor, reference):
    """The middle of `tensor` along time (its last dimension), as long as `reference`: a tensor or a length.

    Of an odd surplus, the right side loses one sample more. Raises `ValueError` when `tensor` is the shorter.
    """
    length = reference if isinstance(reference, int) else reference.shape[-1]
    surplus = tensor.shape[-1] - length
    if surplus < 0:
        raise ValueError(f"cannot trim {tensor.shape[-1]} samples to {length}")
    return tensor.narrow(-1, surplus // 2, length)


class BiLSTM(nn.Module):
    """Bidirectional LSTM over time, projected back to its input's width: (batch, width, time) both ways."""

    def __init__(self, width, layers):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, bidirectional=True)
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x):
        return self.linear(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)


class Demucs(nn.Module):
    """U-Net of strided convolutions on the waveform with an LSTM in the middle (paper, section 4).

    Attributes: `sources`, `audio_channels`, `samplerate`, and `arguments`, all keywords of this instance.
    """

    def __init__(
        self,
        *,
        sources=4,  # stems
        audio_channels=2,
        channels=64,  # width of the first layer; the paper's model has 100
        depth=6,  # encoder layers, and as many decoder layers
        rewrite=True,  # a 1x1 convolution in each encoder layer, one of `context` in each decoder layer
        glu=True,  # gated linear units after those, else ReLU
        upsample=False,  # Wave-U-Net: decimation and linear interpolation instead of strided convolutions
        rescale=0.1,  # pulls the initial standard deviation of the weights toward this; 0 leaves them
        kernel_size=8,
        stride=4,
        growth=2.0,  # each layer is this many times wider than the one outside it
        lstm_layers=2,  # 0: no LSTM
        context=3,  # frames that the decoder's convolution sees
        samplerate=44100,  # Hz; only carried along
        projection=False,  # not in the paper: the estimates are made to sum to the mixture, an equal share to each
    ):
        super().__init__()
        self.arguments = dict(
            sources=sources, audio_channels=audio_channels, channels=channels, depth=depth, rewrite=rewrite,
            glu=glu, upsample=upsample, rescale=rescale, kernel_size=kernel_size, stride=stride,
            growth=growth, lstm_layers=lstm_layers, context=context, samplerate=samplerate,
            projection=projection,
        )  # fmt: skip
        self.sources, self.audio_channels, self.samplerate = sources, audio_channels, samplerate
        self.depth, self.kernel_size, self.stride, self.context = depth, kernel_size, stride, context
        self.upsample, self.projection = upsample, projection

        # Layers draw their weights in the order in which they are made: `final` first, then each encoder
        # layer followed by its mirror image, then the LSTM.
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
        if rescale:
            self._rescale(rescale)

    @torch.no_grad()
    def _rescale(self, reference):
        """Divide each convolution by sqrt(std of its weights / reference) (paper, "weights rescaling")."""
        for layer in self.modules():
            # On the meta device there are no weights, and torch would take a second to find that out.
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) and not layer.weight.is_meta:
                scale = (layer.weight.std() / reference).sqrt()
                layer.weight /= scale
                layer.bias /= scale

    @property
    def margin(self):
        """Samples at either end of an estimate that lacked a neighbour in a transposed convolution."""
        return self.stride**self.depth

    def valid_length(self, length):
        """The samples to put in for at least `length` samples of estimate, with none left over in any layer.

        It is the shortest such input, except with `upsample`, where the original's formula is generous. With
        `context` 1 and no `upsample` the estimate is as long as this input.
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
        """Mixture (batch, audio_channels, time) -> estimates (batch, sources, audio_channels, shorter time).

        Nothing is padded: the estimates belong to the middle of the mixture (`center_trim` it to compare).
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
        """What the last layer made of `mixture`, (batch, sources * audio_channels, time), with the sources apart."""
        x = x.unflatten(1, (self.sources, self.audio_channels))
        if self.projection:
            x = x + (center_trim(mixture, x) - x.sum(1))[:, None] / self.sources
        return x

    @classmethod
    def load_published(cls, path):
        """The model in a checkpoint that the original wrote; see `lib.models.original.load_published`."""
        from lib.models.original import load_published

        return load_published(path)


def _interpolate(x, factor):
    """(batch, channels, time) -> (batch, channels, (time - 1) * factor), linearly."""
    fraction = torch.arange(factor, device=x.device, dtype=x.dtype) / factor
    return (x[..., :-1, None] * (1 - fraction) + x[..., 1:, None] * fraction).flatten(2)
