"""What the networks are trained on: reconstruction, and the adversarial game.

Source of the game: Isola et al., pix2pix, CVPR 2017 (arXiv 1611.07004), section 3.1: the generator minimises
L1 + BCE(D(generated), 1) / 100, the discriminator half of BCE(D(real), 1) + BCE(D(generated), 0).
"""

from torch.nn import functional as F


def reconstruction_loss(estimates, stems):
    """Mean absolute error (L1) of estimates against stems, both (batch, sources, channels, time)."""
    return F.l1_loss(estimates, stems)


def discriminator_loss(real, generated):
    """Half the binary cross-entropy of real logits towards 1 and generated logits towards 0."""
    return (F.softplus(-real).mean() + F.softplus(generated).mean()) / 2


def adversarial_loss(generated):
    """Binary cross-entropy of generated logits towards 1: what the generator pays for being found out."""
    return F.softplus(-generated).mean()
