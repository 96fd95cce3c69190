"""The discriminators: do these stems belong to this mixture?

A discriminator takes the mixture (batch, channels, time) and one or more sets of stems (batch, sources, channels, time)
for it, real or generated. It returns {sub-discriminator: (features, logits)}: the list of its feature maps, and logits
(batch * sets, judged, n), the sets of an item side by side, where judged is 1 (all stems together: `patch`) or the
number of sources (each stem by itself: `msstft`, `mpd`).

It always sees the mixture (a conditional GAN). Mixture and stems are divided by the level of the mixture, so that real
and generated stems have the same scale. There is no batch norm, which would mix the statistics of real and generated
stems and of the ranks.

To add one, write a class here and register it in `DISCRIMINATORS`; a notebook or a command then selects it by name.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

CHANNELS = 2
# kernel size, stride, padding and widths (in units of `width`) of the patch discriminator's strided convolutions
KERNELS = {
    "wide": (16, 4, 6, (1, 2, 4, 8, 8)),  # a logit sees 11,260 samples (255 ms); one logit per 1,024 samples
    "pix2pix": (4, 2, 1, (1, 2, 4)),  # pix2pix's image kernel: a logit sees 70 samples (1.6 ms); one per 8 samples
}
SMOOTH, QUIETEST_BIN = 17, 1e-6  # bins over which a spectrum's power is averaged; least power of a bin, −60 dB
QUIETEST = 0.01  # least level, −40 dB in a normalised track: below, the slightest error would outweigh all others


def level(mixture):
    """Return the standard deviation of each mixture (batch, channels, time), at least `QUIETEST`: (batch, 1, 1)."""
    centred = mixture - mixture.mean(dim=(1, 2), keepdim=True)
    count = centred[0].numel() - 1
    return (torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True) / count**0.5).clamp(min=QUIETEST)


class SharedDropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 15, 2014) of channels of (batch, channels, ...), the same for all items.

    So real and generated stems pass through the same network, on any number of ranks with the same random state.
    """

    def __init__(self, probability):
        super().__init__()
        self.probability = probability

    def forward(self, x):
        if not self.training or not self.probability:
            return x
        kept = torch.rand(x.shape[1], device=x.device) >= self.probability
        return x * (kept / (1 - self.probability)).view(1, -1, *[1] * (x.ndim - 2))


def _initialised(layer):
    """A convolution so initialised that signals keep their scale; with N(0, 0.02), pix2pix's, they fade."""
    nn.init.kaiming_normal_(layer.weight, 0.2)
    nn.init.zeros_(layer.bias)
    return layer


class _Convolutions(nn.Module):
    """Convolutions with leaky rectifiers and dropout between them."""

    def __init__(self, layers, dropout):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = SharedDropout(dropout)

    def forward(self, x, context=None):
        """Return (features, logits) of x; `context` is added to the first convolution's output."""
        features = []
        for layer in self.layers[:-1]:
            x = layer(x)
            if context is not None and not features:
                x = x + context
            x = self.dropout(F.leaky_relu(x, 0.2, inplace=True))
            features.append(x)
        return features, self.layers[-1](x)


class PatchDiscriminator(nn.Module):
    """PatchGAN along time: strided convolutions, then one logit for each patch of the excerpt.

    Source: Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (arXiv 1611.07004, section
    3.2.2 and appendix 6.1.2), in one dimension.
    """

    def __init__(self, width=64, dropout=0.0, sources=4, kernel="wide"):
        super().__init__()
        size, stride, padding, growth = KERNELS[kernel]
        widths = [(1 + sources) * CHANNELS, *(factor * width for factor in growth)]
        layers = [nn.Conv1d(a, b, size, stride, padding) for a, b in pairwise(widths)]
        layers += [nn.Conv1d(widths[-1], 8 * width, 4, padding=1), nn.Conv1d(8 * width, 1, 4, padding=1)]
        self.patch = _Convolutions([*map(_initialised, layers)], dropout)

    def forward(self, mixture, *stems):
        sets = torch.cat([part for one in stems for part in (mixture, one.flatten(1, 2))], dim=1).div_(level(mixture))
        return {"patch": self.patch(sets.unflatten(1, (len(stems), -1)).flatten(0, 1))}


class _PerStem(nn.Module):
    """Sub-discriminators that each judge one stem, beside the mixture and the name of the stem.

    The first layer is a sum: a convolution of the stem, one of the mixture, computed once per item, and a learned bias
    per stem. A subclass has `sizes`, {sub-discriminator: size},
    `_layers(width)`, and `_images(mixture, stems, size)`, what they convolve, of all items and of all their stems.
    """

    def __init__(self, width, dropout=0.0, sources=4):
        super().__init__()
        self.parts, self.mixtures, self.names = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in self.sizes:
            # The first layer has no weight normalisation: it is a part of a sum.
            first, *others = map(_initialised, self._layers(width))
            self.parts[name] = _Convolutions([first, *map(parametrizations.weight_norm, others)], dropout)
            self.mixtures[name] = _initialised(self._layers(width)[0])
            self.mixtures[name].bias = None
            self.names[name] = nn.Embedding(sources, first.out_channels)
            nn.init.zeros_(self.names[name].weight)

    def forward(self, mixture, *stems):
        sets, outputs = torch.stack(stems, dim=1), {}  # (batch, sets, sources, channels, time)
        scale = level(mixture)
        mixture, stems = mixture / scale, (sets / scale[:, None, None]).flatten(0, 2)
        for name, part in self.parts.items():
            images = self._images(mixture, stems, self.sizes[name])
            around = self.mixtures[name](images[0])
            context = around[:, None] + self.names[name].weight[..., None, None]  # (batch, sources, …)
            context = context[:, None].expand(-1, sets.shape[1], *context.shape[1:]).flatten(0, 2)
            features, logits = part(images[1], context)
            outputs[name] = features, logits.reshape(-1, sets.shape[2], logits[0].numel())
        return outputs


def _spectrum(signals, size, hop):
    """Map (n, channels, time) to the complex spectrum (n, frames, bins, channels)."""
    window = torch.hann_window(size, device=signals.device)
    options = {"window": window, "normalized": True, "return_complex": True, "center": False}
    spectrum = torch.stft(signals.flatten(0, 1), size, hop, **options)
    return spectrum.unflatten(0, signals.shape[:2]).permute(0, 3, 2, 1).contiguous()


def _parts(spectrum):
    """Real and imaginary parts as channels: (n, 2 channels, frames, bins), channels last in memory."""
    return torch.view_as_real(spectrum).flatten(3).permute(0, 3, 1, 2)


class MultiScaleSTFTDiscriminator(_PerStem):
    """Multi-scale complex STFT discriminator, per stem.

    Source: Défossez et al., *High Fidelity Neural Audio Compression* (arXiv 2210.13438, section 3.4 and figure 2): 2-D
    convolutions over real and imaginary parts as channels, dilated along time, strided along frequency.
    """

    sizes = {f"stft {size}": size for size in (2048, 1024, 512)}

    def _layers(self, width):
        return [
            nn.Conv2d(2 * CHANNELS, width, (3, 9), padding=(1, 4)),
            *(nn.Conv2d(width, width, (3, 9), (1, 2), padding=(d, 4), dilation=(d, 1)) for d in (1, 2, 4)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, 1, 3, padding=1),
        ]

    def _images(self, mixture, stems, size):
        return [_parts(_spectrum(signals, size, size // 4)) for signals in (mixture, stems)]


class STFTDiscriminator(_PerStem):
    """Complex STFT discriminator of one scale, per stem, that a CPU can afford.

    As `MultiScaleSTFTDiscriminator`, but frames overlap by half, nothing is dilated (slow on a CPU), the first two
    layers keep every fourth frequency, and a logit judges all frequencies of nine frames. Spectra are whitened: divided
    by the mixture's level in each frequency, so that quiet high frequencies count as much as loud low ones. What it
    costs and learns: benchmarks/train.md.
    """

    sizes = {"stft 1024": 1024}

    def _layers(self, width):
        return [
            nn.Conv2d(2 * CHANNELS, width, (1, 8), (1, 4), padding=(0, 2)),
            nn.Conv2d(width, 2 * width, (3, 4), (1, 4), padding=(1, 0)),
            nn.Conv2d(2 * width, 2 * width, (3, 4), (1, 2), padding=(1, 1)),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.Conv2d(2 * width, 1, (3, 16), padding=(1, 0)),  # 16 bands are left
        ]

    def _images(self, mixture, stems, size):
        mixture, stems = (_spectrum(signals, size, size // 2) for signals in (mixture, stems))
        power = torch.view_as_real(mixture).square().sum(-1).mean((1, 3))  # (batch, bins)
        power = F.avg_pool1d(power, SMOOTH, 1, SMOOTH // 2, count_include_pad=False)
        scale = power.clamp(min=QUIETEST_BIN).rsqrt().repeat_interleave(2 * CHANNELS, dim=1)[:, None]
        images = []
        for spectrum in (mixture, stems):
            rows = torch.view_as_real(spectrum).flatten(2)  # (n, frames, bins * channels * 2)
            white = rows.unflatten(0, (len(scale), -1)) * scale[:, None]
            images.append(white.view(*spectrum.shape[:3], -1).permute(0, 3, 1, 2))
        return images


class PeriodDiscriminator(_PerStem):
    """Multi-period discriminator, per stem: time is folded into rows of p samples and convolved along the columns.

    Source: Kong, Kim and Bae, *HiFi-GAN* (arXiv 2010.05646, section 2.3 and appendix), where `width` is 32.
    """

    sizes = {f"period {period}": period for period in (2, 3, 5, 7, 11)}

    def _layers(self, width):
        widths = [CHANNELS, width, 4 * width, 16 * width, 32 * width, 32 * width]
        strides = zip(pairwise(widths), (3, 3, 3, 3, 1), strict=True)
        layers = [nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)) for (a, b), stride in strides]
        return [*layers, nn.Conv2d(32 * width, 1, (3, 1), padding=(1, 0))]

    def _images(self, mixture, stems, size):
        """(n, channels, rows, size); the end is padded by reflection."""
        padding = 0, -mixture.shape[-1] % size
        return [F.pad(signals, padding, mode="reflect").unflatten(-1, (-1, size)) for signals in (mixture, stems)]


DISCRIMINATORS = {
    "patch": PatchDiscriminator,  # 8.0 M parameters at width 64
    "patch_pix2pix": partial(PatchDiscriminator, kernel="pix2pix"),
    "stft": STFTDiscriminator,
    "msstft": MultiScaleSTFTDiscriminator,  # 0.3 M at width 32
    "mpd": PeriodDiscriminator,  # 2.6 M at width 8, a quarter of HiFi-GAN's
}


def build(name, *, spectral_norm=False, **arguments):
    """Return the discriminator `name` of `DISCRIMINATORS`; `arguments` go to its class.

    spectral_norm: divide the weights of every convolution by their largest singular value (Miyato et al., arXiv
    1802.05957), instead of weight normalisation.
    """
    model = DISCRIMINATORS[name](**arguments)
    if spectral_norm:
        for layer in [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]:
            if nn.utils.parametrize.is_parametrized(layer):
                nn.utils.parametrize.remove_parametrizations(layer, "weight")
            parametrizations.spectral_norm(layer)
    return model
