"""The discriminators: do these stems belong to this mixture?

A discriminator takes the mixture (batch, channels, time) and the stems (batch, sources, channels, time), real or
generated. It returns {sub-discriminator: (features, logits)}: the list of its feature maps, and logits (batch, judged,
n), where judged is 1 (all stems together: `patch`) or the number of sources (each stem by itself: `msstft`, `mpd`).

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

SOURCES, CHANNELS = 4, 2
# kernel size, stride, padding and widths (in units of `width`) of the patch discriminator's strided convolutions
KERNELS = {
    "wide": (16, 4, 6, (1, 2, 4, 8, 8)),  # a logit sees 11,260 samples (255 ms); one logit per 1,024 samples
    "pix2pix": (4, 2, 1, (1, 2, 4)),  # pix2pix's image kernel: a logit sees 70 samples (1.6 ms); one per 8 samples
}
QUIETEST = 0.01  # least level, −40 dB in a normalised track: below, the slightest error would outweigh all others


def level(mixture):
    """Return the standard deviation of each mixture (batch, channels, time), at least `QUIETEST`: (batch, 1, 1)."""
    return mixture.std(dim=(1, 2), keepdim=True).clamp(min=QUIETEST)


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


class _Convolutions(nn.Module):
    """Convolutions with leaky rectifiers and dropout between them."""

    def __init__(self, layers, dropout):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = SharedDropout(dropout)

    def forward(self, x, bias=None):
        """Return (features, logits) of x; `bias` is added to the first convolution's output."""
        features = []
        for layer in self.layers[:-1]:
            x = layer(x)
            if bias is not None and not features:
                x = x + bias
            x = self.dropout(F.leaky_relu(x, 0.2))
            features.append(x)
        return features, self.layers[-1](x)


class PatchDiscriminator(nn.Module):
    """PatchGAN along time: strided convolutions, then one logit for each patch of the excerpt.

    Source: Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (arXiv 1611.07004, section
    3.2.2 and appendix 6.1.2), in one dimension.
    """

    def __init__(self, width=64, dropout=0.0, kernel="wide"):
        super().__init__()
        size, stride, padding, growth = KERNELS[kernel]
        widths = [(1 + SOURCES) * CHANNELS, *(factor * width for factor in growth)]
        layers = [nn.Conv1d(a, b, size, stride, padding) for a, b in pairwise(widths)]
        layers += [nn.Conv1d(widths[-1], 8 * width, 4, padding=1), nn.Conv1d(8 * width, 1, 4, padding=1)]
        for layer in layers:
            # pix2pix's N(0, 0.02) relies on the batch norm after it; without one, signals would fade layer by layer.
            nn.init.kaiming_normal_(layer.weight, 0.2)
            nn.init.zeros_(layer.bias)
        self.patch = _Convolutions(layers, dropout)

    def forward(self, mixture, stems):
        return {"patch": self.patch(torch.cat([mixture, stems.flatten(1, 2)], dim=1) / level(mixture))}


class _PerStem(nn.Module):
    """Sub-discriminators that each see one stem beside the mixture, and a learned bias that names the stem.

    A subclass has `sizes`, {sub-discriminator: size}, `_layers(width)`, and `_image(pairs, size)`, what they convolve.
    """

    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.parts, self.classes = nn.ModuleDict(), nn.ModuleDict()
        for name in self.sizes:
            # The first layer has no weight normalisation: the bias is added to its output.
            first, *others = self._layers(width)
            self.parts[name] = _Convolutions([first, *map(parametrizations.weight_norm, others)], dropout)
            self.classes[name] = nn.Embedding(SOURCES, width)
            nn.init.zeros_(self.classes[name].weight)

    def forward(self, mixture, stems):
        batch, outputs = len(mixture), {}
        pairs = torch.cat([mixture[:, None].expand_as(stems), stems], dim=2) / level(mixture)[:, None]
        pairs = pairs.flatten(0, 1)  # (batch * sources, 2 * channels, time)
        for name, part in self.parts.items():
            bias = self.classes[name].weight.repeat(batch, 1)[..., None, None]  # (batch * sources, width, 1, 1)
            features, logits = part(self._image(pairs, self.sizes[name]), bias)
            outputs[name] = features, logits.view(batch, SOURCES, -1)
        return outputs


class STFTDiscriminator(_PerStem):
    """Multi-scale complex STFT discriminator, per stem.

    Source: Défossez et al., *High Fidelity Neural Audio Compression* (arXiv 2210.13438, section 3.4 and figure 2): 2-D
    convolutions over real and imaginary parts as channels, dilated along time, strided along frequency.
    """

    sizes = {f"stft {size}": size for size in (2048, 1024, 512)}

    def _layers(self, width):
        return [
            nn.Conv2d(4 * CHANNELS, width, (3, 9), padding=(1, 4)),
            *(nn.Conv2d(width, width, (3, 9), (1, 2), padding=(d, 4), dilation=(d, 1)) for d in (1, 2, 4)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, 1, 3, padding=1),
        ]

    def _image(self, pairs, size):
        """Map (n, channels, time) to (n, 2 channels, frames, bins): real and imaginary parts of the spectrum."""
        window = torch.hann_window(size, device=pairs.device)
        spectrum = torch.stft(pairs.flatten(0, 1), size, size // 4, window=window, normalized=True, return_complex=True)
        spectrum = spectrum.view(len(pairs), -1, *spectrum.shape[1:]).transpose(2, 3)
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class PeriodDiscriminator(_PerStem):
    """Multi-period discriminator, per stem: time is folded into rows of p samples and convolved along the columns.

    Source: Kong, Kim and Bae, *HiFi-GAN* (arXiv 2010.05646, section 2.3 and appendix), where `width` is 32.
    """

    sizes = {f"period {period}": period for period in (2, 3, 5, 7, 11)}

    def _layers(self, width):
        widths = [2 * CHANNELS, width, 4 * width, 16 * width, 32 * width, 32 * width]
        strides = zip(pairwise(widths), (3, 3, 3, 3, 1), strict=True)
        layers = [nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)) for (a, b), stride in strides]
        return [*layers, nn.Conv2d(32 * width, 1, (3, 1), padding=(1, 0))]

    def _image(self, pairs, size):
        """Map (n, channels, time) to (n, channels, rows, size); the end is padded by reflection."""
        return F.pad(pairs, (0, -pairs.shape[-1] % size), mode="reflect").unflatten(-1, (-1, size))


DISCRIMINATORS = {
    "patch": PatchDiscriminator,  # 8.0 M parameters at width 64
    "patch_pix2pix": partial(PatchDiscriminator, kernel="pix2pix"),
    "msstft": STFTDiscriminator,  # 0.3 M at width 32
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
