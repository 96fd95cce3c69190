"""The losses: reconstruction (L1, spectral), adversarial, feature matching, R1, R2, LeCam; the balance of gradients.

`outputs` is what a discriminator returns, {sub-discriminator: (features, logits)}; `pairs` is {sub-discriminator:
(logits of real stems, logits of generated stems)}. Every loss is the mean over sub-discriminators, so that none counts
more for having more logits. To add an adversarial loss, add a line to `GAN_LOSSES`.

Sources: cross-entropy and λ: Isola et al., pix2pix (arXiv 1611.07004, section 3.1). Least squares: Mao et al., LSGAN
(arXiv 1611.04076, equation 2 with a = -1, b = c = 1, so that 0 separates real from generated as in the other two).
Hinge: Lim and Ye, *Geometric GAN* (arXiv 1705.02894). Relativistic: Huang et al., R3GAN (arXiv 2501.05441, equation 2),
with the real and the generated logit of the same excerpt and patch as a pair. Feature matching: Larsen et al. (arXiv
1512.09300), normalised as in EnCodec (arXiv 2210.13438, section 3.4). R1: Mescheder et al. (arXiv 1801.04406, equation
9); R2, the same at generated stems, as in R3GAN. LeCam: Tseng et al. (arXiv 2104.03310, equation 4).
"""

from functools import cache

import torch
from torch.nn import functional as F

WINDOWS = (2048, 1024, 512)  # samples, of the spectral loss

# {name: (discriminator on real logits, discriminator on generated logits, generator on generated logits)}
GAN_LOSSES = {
    "bce": (lambda x: F.softplus(-x) / 2, lambda x: F.softplus(x) / 2, lambda x: F.softplus(-x)),
    "lsgan": (lambda x: (x - 1) ** 2 / 2, lambda x: (x + 1) ** 2 / 2, lambda x: (x - 1) ** 2 / 2),
    "hinge": (lambda x: F.relu(1 - x) / 2, lambda x: F.relu(1 + x) / 2, lambda x: -x),
    "relativistic": None,  # of the difference of both logits; see the functions below
}


def reconstruction_loss(estimates, stems):
    """Mean absolute error (L1) of estimates against stems, both (batch, sources, channels, time)."""
    return F.l1_loss(estimates, stems)


def spectral_loss(estimates, stems, step):
    """Multi-resolution STFT loss: mean absolute difference of magnitudes, plus that of their logarithms.

    estimates, stems: (batch, sources, channels, time); step: chooses the resolution, as one of three in turn costs a
    third of all three and is the same on average.
    """
    return _stft_loss(WINDOWS[step % len(WINDOWS)])(estimates.flatten(1, 2), stems.flatten(1, 2))


@cache
def _stft_loss(size):
    """The loss of auraloss (Steinmetz & Reiss 2020), whose windows of `size` samples here overlap by half."""
    from auraloss.freq import STFTLoss  # only a training with this loss waits for the import

    class Magnitudes(STFTLoss):
        def stft(self, x):  # auraloss also computes a phase, which no term uses
            return _Magnitudes.apply(x, self.window, self.eps**0.5), None

    # Without spectral convergence, which divides by the energy of a stem: silence would outweigh all sound.
    return Magnitudes(size, size // 2, size, w_sc=0.0, w_log_mag=1.0, w_lin_mag=1.0)


class _Magnitudes(torch.autograd.Function):
    """Magnitudes (n, frames, bins) of x (n, time), at least `least`, windows overlapping by half; a fast gradient."""

    @staticmethod
    def forward(ctx, x, window, least):
        spectrum = torch.fft.rfft(x.unfold(-1, len(window), len(window) // 2) * window)
        real, imaginary = spectrum.real, spectrum.imag
        magnitudes = (real * real).addcmul_(imaginary, imaginary).sqrt_().clamp_(min=least)
        ctx.save_for_backward(spectrum, magnitudes, window)
        ctx.samples, ctx.least = x.shape[-1], least
        return magnitudes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        spectrum, magnitudes, window = ctx.saved_tensors
        size = len(window)
        scale = (gradient / magnitudes).masked_fill_(magnitudes <= ctx.least, 0).mul_(size / 2)
        scale[..., [0, -1]] *= 2  # the inverse counts the bins between twice
        parts = torch.fft.irfft(spectrum * scale, size).mul_(window).unflatten(-1, (2, -1))
        x = parts.new_zeros(len(parts), ctx.samples)
        hops = x[:, : (parts.shape[1] + 1) * size // 2].unflatten(1, (-1, size // 2))
        hops[:, :-1] = parts[:, :, 0]
        hops[:, 1:] += parts[:, :, 1]
        return x, None, None


def discriminator_loss(pairs, kind):
    """Return the adversarial loss of the discriminator."""
    if kind == "relativistic":
        return _mean(F.softplus(generated - real).mean() for real, generated in pairs.values())
    on_real, on_generated, _ = GAN_LOSSES[kind]
    return _mean(on_real(real).mean() + on_generated(generated).mean() for real, generated in pairs.values())


def adversarial_loss(outputs, kind, real=None):
    """Return the adversarial loss of the generator, from the outputs on generated stems.

    real: the outputs on real stems, which only "relativistic" needs.
    """
    if kind == "relativistic":
        return _mean(F.softplus(real[name][1] - logits).mean() for name, (_, logits) in outputs.items())
    return _mean(GAN_LOSSES[kind][2](logits).mean() for _, logits in outputs.values())


def feature_matching_loss(real, generated):
    """Mean absolute difference of the features of two outputs, relative to the features of real stems, per item."""

    def size(x):
        return x.abs().flatten(1).mean(1)

    return _mean(
        (size(a.detach() - b) / size(a.detach()).clamp(min=1e-8)).mean()
        for name in real
        for a, b in zip(real[name][0], generated[name][0], strict=True)
    )


def r1_penalty(outputs, stems, level):
    """R1 without its factor γ / 2: squared gradient of the summed logits by the real stems, per logit. Differentiable.

    At generated stems it is R2.

    stems: must require a gradient; level: of the mixture (batch, 1, 1); it makes the penalty independent of loudness.
    """
    penalties = []
    for _, logits in outputs.values():
        (gradient,) = torch.autograd.grad(logits.sum(), stems, create_graph=True)
        penalties.append((gradient * level[:, None]).square().sum() / logits.numel())
    return _mean(penalties)


def lecam_penalty(pairs, anchors):
    """Squared distance of real logits from the running mean of generated ones, `anchors[name][1]`, and the reverse."""
    return _mean(
        (real - anchors[name][1]).square().mean() + (generated - anchors[name][0]).square().mean()
        for name, (real, generated) in pairs.items()
    )


class Balancer:
    """Sum gradients so that each has a share of one total norm: that of the first, which is the reconstruction's.

    Norms are running means, bias-corrected. The weighted mean norms add up to that of the first
    gradient; the sum is shorter where gradients point apart.
    Source: EnCodec's balancer (arXiv 2210.13438, equation 5), whose total is a constant.
    """

    DECAY = 0.999  # of the running means

    def __init__(self, mean_over_ranks=lambda values: values):
        self.mean_over_ranks = mean_over_ranks
        self.sums = {}  # {gradient: (decayed sum of its norms, of ones)}

    def __call__(self, gradients, shares):
        """Return the sum of `gradients` {name: tensor}, and their weights. shares: {name: share}, whose sum is 1."""
        norms = self.mean_over_ranks(torch.stack([*map(item_norm, gradients.values())]))
        for name, norm in zip(gradients, norms.tolist(), strict=True):
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = self.DECAY * total + (1 - self.DECAY) * norm, self.DECAY * count + (1 - self.DECAY)
        means = {name: total / count for name, (total, count) in self.sums.items()}
        size = means[next(iter(gradients))]
        weights = {name: shares[name] * size / max(means[name], 1e-12) for name in gradients}
        return sum(weights[name] * gradient for name, gradient in gradients.items()), weights

    def state_dict(self):
        return self.sums

    def load_state_dict(self, state):
        self.sums = {name: (float(total), float(count)) for name, (total, count) in state.items()}


def item_norm(gradient):
    """Mean norm per item of a gradient (batch, …), times the batch, which undoes the mean in a loss.

    So it is the same however the batch is divided between ranks.
    """
    return gradient.flatten(1).norm(dim=1).mean() * len(gradient)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)
