"""Discriminators: do these stems belong to this mixture?

Each takes the mixture (batch, channels, time) and stems (batch, sources, channels, time), recorded or
generated, and returns a list of feature maps with the logits last. The mixture is always seen (a conditional
GAN). There is no batch norm: two forwards of it before a backward fail under DistributedDataParallel.
"""

from functools import partial

import torch
from torch import nn

from lib.errors import UserError

# kernel size, stride, padding and widths (in units of `width`) of the strided convolutions
KERNELS = {
    "wide": (16, 4, 6, (1, 2, 4, 8, 8)),  # sees 11,260 samples (255 ms), one logit per 1,024
    "pix2pix": (4, 2, 1, (1, 2, 4)),  # the image kernel taken literally: 70 samples (1.6 ms), one logit per 8
}
# Excerpts quieter than this standard deviation are amplified no further (-40 dB in a normalised track):
# otherwise the slightest error of the generator in a silent excerpt would outweigh all others.
QUIETEST = 0.01


class PatchDiscriminator(nn.Module):
    """PatchGAN along time: strided convolutions, then one logit for each patch of `receptive_field` samples.

    Source: Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (arXiv
    1611.07004, section 3.2.2 and appendix 6.1.2), in one dimension. Raises `UserError` for a `kernel` that is
    not in `KERNELS`.
    """

    def __init__(self, sources=4, audio_channels=2, width=64, kernel="wide"):
        super().__init__()
        if kernel not in KERNELS:
            raise UserError(f"The patch discriminator has no kernel {kernel!r}; use {' or '.join(KERNELS)}.")
        size, stride, padding, growth = KERNELS[kernel]
        inputs = (1 + sources) * audio_channels
        convolutions = []
        for factor in growth:
            convolutions.append(nn.Conv1d(inputs, factor * width, size, stride, padding))
            inputs = factor * width
        convolutions.append(nn.Conv1d(inputs, 8 * width, 4, padding=1))
        convolutions.append(nn.Conv1d(8 * width, 1, 4, padding=1))
        self.layers = nn.ModuleList(convolutions)
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, 0.02)
            nn.init.zeros_(layer.bias)

    @property
    def receptive_field(self):
        """Samples that one logit depends on."""
        samples = 1
        for layer in reversed(self.layers):
            samples = (samples - 1) * layer.stride[0] + layer.kernel_size[0]
        return samples

    def forward(self, mixture, stems):
        """(batch, channels, time), (batch, sources, channels, time) -> list of feature maps
        (batch, width, frames), of which the last is the logits (batch, 1, frames)."""
        # By the level of the mixture, never of the stems: the scale must not tell recorded from generated.
        level = mixture.std(dim=(1, 2), keepdim=True).clamp(min=QUIETEST)
        x = torch.cat([mixture, stems.flatten(1, 2)], dim=1) / level
        features = []
        for layer in self.layers[:-1]:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.layers[-1](x)]


DISCRIMINATORS = {"patch": PatchDiscriminator, "patch_pix2pix": partial(PatchDiscriminator, kernel="pix2pix")}


def build(name, **arguments):
    """The discriminator called `name`; raises `UserError` for a name not in `DISCRIMINATORS`."""
    if name not in DISCRIMINATORS:
        raise UserError(f"There is no discriminator {name!r}; use {' or '.join(DISCRIMINATORS)}.")
    return DISCRIMINATORS[name](**arguments)
