"""The losses: reconstruction, adversarial, feature matching, R1 and LeCam; and the balance between them.

`outputs` are what a discriminator returns: {sub-discriminator: feature maps, logits last}. Every loss is the mean over
sub-discriminators, so that none of them counts more for having more logits.

Sources: cross-entropy and λ: Isola et al., pix2pix (arXiv 1611.07004, section 3.1). Least squares: Mao et al., LSGAN
(arXiv 1611.04076, equation 2 with a = -1, b = c = 1, so that 0 divides real from generated as it does for the other
two). Hinge: Lim and Ye, *Geometric GAN* (arXiv 1705.02894). Feature matching: Larsen et al. (arXiv 1512.09300),
normalised as in EnCodec (arXiv 2210.13438, section 3.4). R1: Mescheder et al. (arXiv 1801.04406, equation 9). LeCam:
Tseng et al. (arXiv 2104.03310, equation 4).
"""

import torch
from torch.nn import functional as F

# {name: (discriminator on real logits, discriminator on generated logits, generator on generated logits)}
GAN_LOSSES = {
    "bce": (lambda x: F.softplus(-x) / 2, lambda x: F.softplus(x) / 2, lambda x: F.softplus(-x)),
    "lsgan": (lambda x: (x - 1) ** 2 / 2, lambda x: (x + 1) ** 2 / 2, lambda x: (x - 1) ** 2 / 2),
    "hinge": (lambda x: F.relu(1 - x) / 2, lambda x: F.relu(1 + x) / 2, lambda x: -x),
}


def reconstruction_loss(estimates, stems):
    """Mean absolute error (L1) of estimates against stems, both (batch, sources, channels, time)."""
    return F.l1_loss(estimates, stems)


def discriminator_loss(real, generated, kind="bce"):
    """What the discriminator minimises, of its outputs on recorded and on generated stems."""
    cost_real, cost_generated, _ = GAN_LOSSES[kind]
    return _mean(cost_real(real[name][-1]).mean() + cost_generated(generated[name][-1]).mean() for name in real)


def adversarial_loss(generated, kind="bce"):
    """What the generator pays for being found out."""
    return _mean(GAN_LOSSES[kind][2](maps[-1]).mean() for maps in generated.values())


def feature_matching_loss(real, generated):
    """Mean absolute difference of the feature maps, in units of the recorded stems' mean magnitude; logits excluded.

    In units of each item's own: the loss of a batch is the mean of its items, on however many ranks they lie.
    """
    return _mean(
        (_size(a.detach() - b) / _size(a.detach()).clamp(min=1e-8)).mean()
        for name in real
        for a, b in zip(real[name][:-1], generated[name][:-1], strict=True)
    )


def r1_penalty(outputs, stems, level):
    """Mean squared gradient of the logits by the recorded stems they judge, which need a gradient.

    Per logit and in units of the mixture's `level` (batch, 1, 1), so that neither the excerpt's length nor its loudness
    changes its meaning; times γ/2 it is the penalty. It can be differentiated again.
    """
    penalties = []
    for maps in outputs.values():
        logits = maps[-1]
        (gradient,) = torch.autograd.grad(logits.sum(), stems, create_graph=True)
        penalties.append((gradient * level[:, None]).square().sum() / logits.numel())
    return _mean(penalties)


def lecam_penalty(real, generated, anchors):
    """Squared distance of real logits from the running mean of generated ones, and the reverse.

    anchors: {sub-discriminator: (running mean of real logits, of generated logits)}.
    """
    return _mean(
        (real[name][-1] - anchors[name][1]).square().mean() + (generated[name][-1] - anchors[name][0]).square().mean()
        for name in real
    )


def balanced_weight(share, reconstruction_norm, adversarial_norm):
    """The weight of the adversarial gradient that makes it `share` of the sum of both gradients' norms.

    Source: the balancer of Défossez et al., EnCodec (arXiv 2210.13438, equation 5); here the reconstruction keeps its
    own scale, so that an arm without a discriminator takes the same steps.
    """
    return share / (1 - share) * reconstruction_norm / max(adversarial_norm, 1e-12)


def _size(x):
    return x.abs().flatten(1).mean(1)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)
