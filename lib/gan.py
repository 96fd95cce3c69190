"""The adversary: the discriminator's step, its cures, and its gradient for the generator.

In each step, the trainer calls `inputs`, `discriminator_step`, then `gradients`; `lib.evaluation.probe` calls only the
first two.
Random draws depend on (seed, stream, step) and cover the whole batch, of which each rank takes its part: any number of
ranks trains alike, and an interrupted training resumes exactly.

To add a cure, declare its parameter in `lib.config.Config`, name it in `lib.runs.cures`, and read it here: in
`discriminator_step` if it changes the loss, in `inputs` or `_add_noise` if it changes what the discriminator sees, in
`observe` if it reacts to evaluations. What it keeps from step to step is named in `STATE`. A cure inside the network
(dropout, spectral norm) is an argument of `lib.discriminator.build`, which `lib.runs.build.build_discriminator` passes.
"""

import contextlib
import math

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lib import losses
from lib.common import streams
from lib.data.batches import JointAugmentation, item_noise
from lib.data.tracks import SAMPLERATE
from lib.discriminator import level
from lib.memorisation import pick

HIGHEST_P = 0.8  # limit of the adaptive p: above, the generator learns traces of the augmentation (StyleGAN2-ADA)
ANCHOR_DECAY = 0.99  # of the running means of LeCam
STATE = ("p", "frozen", "best", "since_best", "anchors")  # attributes that a checkpoint keeps


class Adversary:
    """The adversarial part of a run on one rank; `network` is the discriminator that `config` describes."""

    def __init__(self, config, network, *, rank=0, world_size=1, device="cpu"):
        c = self.config = config
        self.world_size, self.device = world_size, torch.device(device)
        self.items = range(rank * c.batch // world_size, (rank + 1) * c.batch // world_size)  # of the global batch
        self.discriminator = self._synchronised = network.to(self.device)
        if world_size > 1:
            self._synchronised = DistributedDataParallel(self.discriminator, broadcast_buffers=False)
        betas = (0.5, 0.999)  # pix2pix
        self.optimizer = torch.optim.Adam(network.parameters(), lr=c.discriminator_lr, betas=betas, fused=True)
        self.p = c.augment_p  # probability of each joint augmentation
        self.frozen, self.best, self.since_best = False, math.inf, 0  # early stop by the held-out cross-entropy
        self.anchors = {}  # LeCam: {sub-discriminator: (running mean of real logits, of generated logits)}

    def inputs(self, step, stems, estimates):
        """Return (mixture, stems, estimates) as the discriminator sees them in a step: jointly augmented, then noisy.

        stems, estimates: (batch, sources, channels, time); the mixture: (batch, channels, time).
        """
        if self.p:
            size = self.config.batch, slice(self.items.start, self.items.stop), stems.shape[-1]
            random = self._random(streams.AUGMENTATION, step)
            augment = JointAugmentation(random, self.p, *size, SAMPLERATE, self.device)
            stems, estimates = augment(stems), augment(estimates)
        return self._add_noise(step, stems, estimates, self.items)

    def discriminator_step(self, step, inputs):
        """Update the discriminator on `inputs`, without gradient to the estimates; return metrics, {} if it skips."""
        c = self.config
        if self.frozen or self._random(streams.UPDATE, step).rand() >= c.discriminator_updates:
            return {}
        self._reseed_dropout(step)
        mixture, real, generated = inputs
        pairs = _judge(self._synchronised, mixture, real, generated.detach())
        loss = losses.discriminator_loss(pairs, c.adversarial_loss)
        metrics = {"discriminator": loss.detach()}
        if c.lecam:
            means = torch.stack([torch.stack([logits.mean() for logits in pair]) for pair in pairs.values()]).detach()
            for name, mean in zip(pairs, mean_over_ranks(means, self.world_size), strict=True):
                self.anchors[name] = ANCHOR_DECAY * self.anchors.get(name, mean) + (1 - ANCHOR_DECAY) * mean
            loss = loss + c.lecam * losses.lecam_penalty(pairs, self.anchors)
        if c.r1 and step % c.r1_every == 0:
            real = real.detach().requires_grad_()
            # Bypasses DDP, which cannot differentiate twice; DDP still averages the gradients of the parameters.
            penalty = losses.r1_penalty(self.discriminator(mixture, real), real, level(mixture))
            loss = loss + c.r1 / 2 * c.r1_every * penalty
            metrics["r1"] = penalty.detach()
        if c.r2 and step % c.r1_every == 0:
            generated = generated.detach().requires_grad_()
            penalty = losses.r1_penalty(self.discriminator(mixture, generated), generated, level(mixture))
            loss = loss + c.r2 / 2 * c.r1_every * penalty
            metrics["r2"] = penalty.detach()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        metrics["discriminator_gradient"] = total_norm(self.discriminator)
        self.optimizer.step()
        return metrics

    def _add_noise(self, step, stems, estimates, items):
        """Return (mixture, stems, estimates) with dither and instance noise.

        The mixture is the sum of the real stems: a decoded file's own mixture has a coding error, a cue to real stems.
        """
        c, mixture = self.config, stems.sum(1)
        scale = level(mixture)[:, None] if c.dither or c.instance_noise else None
        if c.dither:
            noise = item_noise(stems.shape[1:], [c.seed, streams.DITHER, step], items, self.device)
            dither = noise.mul_(c.dither * scale)
            mixture, stems, estimates = mixture + dither.sum(1), stems + dither, estimates + dither
        if c.instance_noise:
            noise = item_noise((2, *stems.shape[1:]), [c.seed, streams.INSTANCE_NOISE, step], items, self.device)
            stems, estimates = (
                x.addcmul(c.instance_noise * scale, noise[:, k]) for k, x in enumerate((stems, estimates))
            )
        return mixture, stems, estimates

    def ramp(self, step):
        """Share of its full weight that the adversarial part has in a step: 0 before its start, 1 after its ramp."""
        c = self.config
        return min(max(step + 1 - c.adversarial_start, 0) / max(c.adversarial_ramp, 1), 1.0)

    def gradients(self, step, inputs, estimates):
        """Return the unweighted gradients of the adversarial losses, {name: tensor}, and metrics.

        estimates: the leaf with respect to which they are taken; `inputs` were made of it. "feature_matching" is a
        gradient of its own where it has a share; where it has a weight, it is a part of "adversarial".
        """
        c = self.config
        mixture, real, generated = inputs
        self._reseed_dropout(step)
        with _fixed(self.discriminator):
            outputs = self.discriminator(mixture, generated)
        wanted = None
        if c.feature_matching or c.feature_matching_share or c.adversarial_loss == "relativistic":
            self._reseed_dropout(step)
            with torch.no_grad():
                wanted = self.discriminator(mixture, real)
        found = {"adversarial": losses.adversarial_loss(outputs, c.adversarial_loss, wanted)}
        metrics = {"adversarial": found["adversarial"].detach()}
        if c.feature_matching or c.feature_matching_share:
            matching = losses.feature_matching_loss(wanted, outputs)
            metrics["feature_matching"] = matching.detach()
            if c.feature_matching_share:
                found["feature_matching"] = matching
            else:
                found["adversarial"] = found["adversarial"] + c.feature_matching * matching
        return {
            name: torch.autograd.grad(loss, estimates, retain_graph=len(found) > 1)[0] for name, loss in found.items()
        }, metrics

    def logits(self, stems, estimates, index):
        """Return {sub-discriminator: (real, generated)} for one excerpt, at most 64 logits each, (judged, n).

        stems, estimates: (1, sources, channels, time), made noisy as in training, but not augmented. index: number of
        the excerpt, which seeds the noise.
        """
        pairs = self.logits_of(stems, estimates, [index])
        return {name: tuple(logits[0] for logits in pair) for name, pair in pairs.items()}

    def logits_of(self, stems, estimates, indices, kinds=(0, 1)):
        """Return what `logits` returns, for the excerpts `indices`: (excerpts, judged, n) each.

        stems, estimates: (excerpts, sources, channels, time). kinds: (0,) judges the stems alone, (1,) the estimates.
        """
        inputs = stems.sum(1), stems, estimates
        if self.config.dither or self.config.instance_noise:
            pairs = zip(indices, stems, estimates, strict=True)
            noisy = [self._add_noise(streams.EVALUATION + k, x[None], y[None], range(1)) for k, x, y in pairs]
            inputs = [torch.cat(part) for part in zip(*noisy, strict=True)]
        self.discriminator.eval()
        found = _judge(self.discriminator, inputs[0], *(inputs[1 + kind] for kind in kinds))
        self.discriminator.train()
        return {name: tuple(pick(logits.cpu()) for logits in judged) for name, judged in found.items()}

    def observe(self, metrics):
        """Move p towards the target r_v; stop after `discriminator_patience` evaluations without a lower BCE."""
        c = self.config
        if c.augment_target and metrics["r_v_sigma"] is not None:
            change = math.copysign(c.evaluate_every / c.augment_steps, metrics["r_v_sigma"] - c.augment_target)
            self.p = min(max(self.p + change, 0.0), HIGHEST_P)
        self.since_best = 0 if metrics["bce_heldout"] < self.best else self.since_best + 1
        self.best = min(metrics["bce_heldout"], self.best)
        self.frozen |= 0 < c.discriminator_patience <= self.since_best

    def state_dict(self):
        networks = {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}
        return networks | {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state):
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in STATE:
            setattr(self, name, state[name])

    def _reseed_dropout(self, step):
        """Reseed torch so that the next forward draws the same dropout mask for D and G and on every rank."""
        torch.manual_seed(int(self._random(streams.DROPOUT, step).randint(2**31)))

    def _random(self, stream, step):
        return np.random.RandomState([self.config.seed, stream, step])


def mean_over_ranks(values, world_size):
    """Return the mean of a tensor over all ranks."""
    if world_size > 1:
        distributed.all_reduce(values)
        values = values / world_size
    return values


def total_norm(network):
    """Return the Euclidean norm of all gradients of a network."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


@contextlib.contextmanager
def _fixed(network):
    """Inside, skip gradients with respect to the weights of `network`, which cost as much as those of the inputs."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _judge(network, mixture, *stems):
    """Return {sub-discriminator: logits of each of `stems`}; by one forward, as two would synchronise ranks twice."""
    outputs = network(mixture, *stems)
    return {name: logits.unflatten(0, (-1, len(stems))).unbind(1) for name, (_, logits) in outputs.items()}
