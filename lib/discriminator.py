"""Discriminators: do these stems belong to this mixture?

Each takes the mixture (batch, channels, time) and stems (batch, sources, channels, time), recorded or generated, and
returns {name of sub-discriminator: feature maps}, a list whose last entry is the logits (batch, judged, ...): one
judgement of all stems together (`patch`) or one per stem (`msstft`, `mpd`). The mixture is always seen (a conditional
GAN). There is no batch norm: two forwards of it before a backward fail under DistributedDataParallel.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lib.common.errors import UserError

# kernel size, stride, padding and widths (in units of `width`) of the strided convolutions
KERNELS = {
    "wide": (16, 4, 6, (1, 2, 4, 8, 8)),  # sees 11,260 samples (255 ms), one logit per 1,024
    "pix2pix": (4, 2, 1, (1, 2, 4)),  # the image kernel taken literally: 70 samples (1.6 ms), one logit per 8
}
# Excerpts quieter than this standard deviation are amplified no further (-40 dB in a normalised track):
# otherwise the slightest error of the generator in a silent excerpt would outweigh all others.
QUIETEST = 0.01


def level(mixture):
    """Standard deviation of each mixture (batch, channels, time), at least `QUIETEST`: (batch, 1, 1)."""
    return mixture.std(dim=(1, 2), keepdim=True).clamp(min=QUIETEST)


class SharedDropout(nn.Module):
    """Dropout of whole channels, the same for every item: one thinned network per step.

    So the recorded and the generated member of a pair meet the same network, and any number of processes draws the
    same one, given the same state of torch's generator. Source: Srivastava et al., JMLR 15 (2014).
    """

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def forward(self, x):
        """(batch, channels, ...) -> the same; kept channels are scaled by 1 / (1 - probability)."""
        if not self.training or not self.probability:
            return x
        kept = torch.rand(x.shape[1], device=x.device) >= self.probability
        return x * (kept / (1 - self.probability)).view(1, -1, *[1] * (x.ndim - 2))


class _Convolutions(nn.Module):
    """Convolutions with leaky rectifiers and dropout between them; the feature maps, logits last."""

    def __init__(self, layers, dropout):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = SharedDropout(dropout)

    def forward(self, x):
        features = []
        for layer in self.layers[:-1]:
            x = self.dropout(F.leaky_relu(layer(x), 0.2))
            features.append(x)
        return [*features, self.layers[-1](x)]


class PatchDiscriminator(nn.Module):
    """PatchGAN along time: strided convolutions, then one logit for each patch of `receptive_field` samples.

    Source: Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (arXiv
    1611.07004, section 3.2.2 and appendix 6.1.2), in one dimension. Raises `UserError` for a `kernel` that is
    not in `KERNELS`.
    """

    def __init__(self, sources=4, audio_channels=2, width=64, kernel="wide", dropout=0.0):
        super().__init__()
        if kernel not in KERNELS:
            raise UserError(f"The patch discriminator has no kernel {kernel!r}; use {' or '.join(KERNELS)}.")
        size, stride, padding, growth = KERNELS[kernel]
        inputs = (1 + sources) * audio_channels
        layers = []
        for factor in growth:
            layers.append(nn.Conv1d(inputs, factor * width, size, stride, padding))
            inputs = factor * width
        layers.append(nn.Conv1d(inputs, 8 * width, 4, padding=1))
        layers.append(nn.Conv1d(8 * width, 1, 4, padding=1))
        for layer in layers:
            # pix2pix's N(0, 0.02) relies on the batch norm after it; without one, signals would fade layer by layer.
            nn.init.kaiming_normal_(layer.weight, 0.2)
            nn.init.zeros_(layer.bias)
        self.patch = _Convolutions(layers, dropout)

    @property
    def receptive_field(self):
        """Samples that one logit depends on."""
        samples = 1
        for layer in reversed(self.patch.layers):
            samples = (samples - 1) * layer.stride[0] + layer.kernel_size[0]
        return samples

    def forward(self, mixture, stems):
        """See the module; logits (batch, 1, frames)."""
        # By the level of the mixture, never of the stems: the scale must not tell recorded from generated.
        return {"patch": self.patch(torch.cat([mixture, stems.flatten(1, 2)], dim=1) / level(mixture))}


class _PerStem(nn.Module):
    """Sub-discriminators that see one stem beside the mixture, and know which stem it is (a learned bias per class on
    the first feature map)."""

    def __init__(self, sources):
        super().__init__()
        self.sources = sources
        self.parts, self.classes = nn.ModuleDict(), nn.ModuleDict()

    def _add(self, name, layers, dropout):
        self.parts[name] = _Convolutions(layers, dropout)
        self.classes[name] = nn.Embedding(self.sources, layers[0].out_channels)
        nn.init.zeros_(self.classes[name].weight)

    def forward(self, mixture, stems):
        """See the module; logits (batch, sources, ...)."""
        batch = len(mixture)
        pairs = torch.cat([mixture[:, None].expand_as(stems), stems], dim=2) / level(mixture)[:, None]
        pairs = pairs.flatten(0, 1)  # (batch * sources, 2 * channels, time)
        return {name: self._judge(part, name, pairs, batch) for name, part in self.parts.items()}

    def _judge(self, part, name, pairs, batch):
        first, *others = part.layers
        bias = self.classes[name].weight.repeat(batch, 1)[..., None, None]  # (batch * sources, width, 1, 1)
        x = part.dropout(F.leaky_relu(first(self._image(name, pairs)) + bias, 0.2))
        features = [x]
        for layer in others[:-1]:
            x = part.dropout(F.leaky_relu(layer(x), 0.2))
            features.append(x)
        return [*features, others[-1](x).view(batch, self.sources, -1)]


class STFTDiscriminator(_PerStem):
    """Multi-scale complex STFT discriminator, per stem.

    Source: Défossez et al., *High Fidelity Neural Audio Compression* (arXiv 2210.13438, section 3.4 and figure 2):
    2-D convolutions over real and imaginary parts as channels, dilated along time, strided along frequency.
    """

    def __init__(self, sources=4, audio_channels=2, width=32, dropout=0.0, sizes=(2048, 1024, 512)):
        super().__init__(sources)
        self.sizes = {f"stft {size}": size for size in sizes}
        for name in self.sizes:
            layers = [nn.Conv2d(4 * audio_channels, width, (3, 9), padding=(1, 4))]
            layers += [
                nn.Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4)) for d in (1, 2, 4)
            ]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)]
            # The first layer stays plain: the class bias is added to its output.
            self._add(name, [layers[0], *(parametrizations.weight_norm(layer) for layer in layers[1:])], dropout)

    def _image(self, name, pairs):
        """(n, channels, time) -> (n, 2 channels, frames, bins): real and imaginary parts."""
        size = self.sizes[name]
        window = torch.hann_window(size, device=pairs.device)
        spectrum = torch.stft(pairs.flatten(0, 1), size, size // 4, window=window, normalized=True, return_complex=True)
        spectrum = spectrum.view(len(pairs), -1, *spectrum.shape[1:]).transpose(2, 3)
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class PeriodDiscriminator(_PerStem):
    """Multi-period discriminator, per stem: time folded into rows of p samples, convolved along the columns.

    Source: Kong, Kim and Bae, *HiFi-GAN* (arXiv 2010.05646, section 2.3 and appendix), where `width` is 32.
    """

    def __init__(self, sources=4, audio_channels=2, width=8, dropout=0.0, periods=(2, 3, 5, 7, 11)):
        super().__init__(sources)
        self.periods = {f"period {period}": period for period in periods}
        for name in self.periods:
            inputs, layers = 2 * audio_channels, []
            for factor, stride in ((1, 3), (4, 3), (16, 3), (32, 3), (32, 1)):
                layers.append(nn.Conv2d(inputs, factor * width, (5, 1), (stride, 1), padding=(2, 0)))
                inputs = factor * width
            layers.append(nn.Conv2d(inputs, 1, (3, 1), padding=(1, 0)))
            self._add(name, [layers[0], *(parametrizations.weight_norm(layer) for layer in layers[1:])], dropout)

    def _image(self, name, pairs):
        """(n, channels, time) -> (n, channels, rows, period), the end padded by reflection."""
        period = self.periods[name]
        padded = F.pad(pairs, (0, -pairs.shape[-1] % period), mode="reflect")
        return padded.unflatten(-1, (-1, period))


DISCRIMINATORS = {
    "patch": PatchDiscriminator,  # 8.0 M parameters at width 64
    "patch_pix2pix": partial(PatchDiscriminator, kernel="pix2pix"),
    "msstft": STFTDiscriminator,  # 0.3 M at width 32
    "mpd": PeriodDiscriminator,  # 2.6 M at width 8, a quarter of HiFi-GAN's
}


def build(name, *, spectral_norm=False, **arguments):
    """The discriminator called `name`; `arguments` go to its class.

    spectral_norm: every convolution's largest singular value is held at 1 (Miyato et al., arXiv 1802.05957), in place
    of weight normalisation. Raises `UserError` for a name not in `DISCRIMINATORS`.
    """
    if name not in DISCRIMINATORS:
        raise UserError(f"There is no discriminator {name!r}; use {' or '.join(DISCRIMINATORS)}.")
    model = DISCRIMINATORS[name](**arguments)
    if spectral_norm:
        for layer in [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]:
            if nn.utils.parametrize.is_parametrized(layer):
                nn.utils.parametrize.remove_parametrizations(layer, "weight")
            parametrizations.spectral_norm(layer)
    return model
