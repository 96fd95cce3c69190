"""The adversary: the discriminator's step, its cures, and its gradient for the generator.

The trainer plays it in its loop, `lib.evaluation.probe` plays the discriminator's half alone. Every random draw is a
function of (seed, step) and made for the whole batch, of which a rank takes its part, so that any number of ranks plays
the same game and an interrupted one resumes exactly.
"""

import math

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lib import discriminator
from lib import losses as objective
from lib.data.batches import JointAugmentation, item_noise
from lib.data.tracks import SAMPLERATE
from lib.memorisation import pick

HIGHEST_P = 0.8  # of the joint augmentation: above, its traces appear in what the generator learns (StyleGAN2-ADA)
ANCHOR_DECAY, NORM_DECAY = 0.99, 0.999  # of LeCam's running means and of the balancer's


class Adversary:
    """The adversarial part of training that `config` describes, on one rank. Call `discriminator_step`, then `gradient`, once a step.

    network: the discriminator, as `lib.runs.build.build_discriminator` builds it.
    """

    def __init__(self, config, network, *, rank=0, world_size=1, device="cpu"):
        c = self.config = config
        self.world_size, self.device = world_size, torch.device(device)
        self.items = range(rank * c.batch // world_size, (rank + 1) * c.batch // world_size)  # of the global batch
        self.discriminator = network.to(self.device)
        self.optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=c.discriminator_lr, betas=(0.5, 0.999), fused=True
        )  # pix2pix's betas
        self._discriminate = self.discriminator
        if world_size > 1:
            self._discriminate = DistributedDataParallel(self.discriminator, broadcast_buffers=False)
        self.p = c.augment_p  # of each joint augmentation; follows r_v when there is a target
        self.frozen, self.best, self.since_best = False, math.inf, 0  # early stop on held-out cross-entropy
        self.anchors = {}  # LeCam: {sub-discriminator: (running mean of real logits, of generated logits)}
        self.norms = None  # balancer: running mean norms of both gradients, and their weight

    # The discriminator's half

    def discriminator_step(self, step, stems, estimates):
        """Update the discriminator on stems and (detached) estimates, (batch, sources, channels, time); metrics."""
        c = self.config
        if self.frozen or self._random(1, step).rand() >= c.discriminator_updates:
            return {}
        self._thin(step)
        mixture, real, generated = self._inputs(step, stems, estimates)
        # One forward for both: under DistributedDataParallel two would synchronise twice.
        outputs = self._discriminate(torch.cat([mixture, mixture]), torch.cat([real, generated]))
        outputs_real, outputs_generated = _halves(outputs)
        loss = objective.discriminator_loss(outputs_real, outputs_generated, c.adversarial_loss)
        metrics = {"discriminator": loss.detach()}
        if c.lecam:
            self._update_anchors(outputs_real, outputs_generated)
            loss = loss + c.lecam * objective.lecam_penalty(outputs_real, outputs_generated, self.anchors)
        if c.r1 and step % c.r1_every == 0:
            real = real.detach().requires_grad_()
            # By the bare network: the wrapper cannot differentiate twice, and still sees this gradient arrive.
            penalty = objective.r1_penalty(self.discriminator(mixture, real), real, discriminator.level(mixture))
            loss = loss + c.r1 / 2 * c.r1_every * penalty
            metrics["r1"] = penalty.detach()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        metrics["discriminator_gradient"] = total_norm(self.discriminator)
        self.optimizer.step()
        return metrics

    def _inputs(self, step, stems, estimates, items=None, p=None):
        """(mixture, stems, estimates) as the discriminator sees them: augmented jointly, dithered, made noisy.

        The mixture is the sum of the stems: a decoded recording's own mixture differs from it by its codec's error,
        which would tell recorded from generated.
        """
        c = self.config
        items, p = self.items if items is None else items, self.p if p is None else p
        if p:
            local = slice(items.start, items.stop)
            augment = JointAugmentation(
                self._random(3, step), p, c.batch, local, stems.shape[-1], SAMPLERATE, self.device
            )
            stems, estimates = augment(stems), augment(estimates)
        mixture = stems.sum(1)
        if not (c.dither or c.instance_noise):
            return mixture, stems, estimates
        level = discriminator.level(mixture)[:, None]
        if c.dither:
            dither = c.dither * level * item_noise(stems.shape[1:], [c.seed, 4, step], items, self.device)
            mixture, stems, estimates = mixture + dither.sum(1), stems + dither, estimates + dither
        if c.instance_noise:
            noise = item_noise((2, *stems.shape[1:]), [c.seed, 8, step], items, self.device)
            stems = stems + c.instance_noise * level * noise[:, 0]
            estimates = estimates + c.instance_noise * level * noise[:, 1]
        return mixture, stems, estimates

    def _update_anchors(self, real, generated):
        with torch.no_grad():
            means = torch.stack([torch.stack([real[n][-1].mean(), generated[n][-1].mean()]) for n in real])
            for name, mean in zip(real, self._mean_over_ranks(means), strict=True):
                before = self.anchors.get(name, mean)
                self.anchors[name] = ANCHOR_DECAY * before + (1 - ANCHOR_DECAY) * mean

    # The generator's half

    def gradient(self, step, stems, estimates, reconstruction):
        """The adversarial term's gradient by `estimates`, weighted, or 0 before its start; and metrics.

        estimates: a leaf that needs a gradient; reconstruction: the gradient of the reconstruction loss by it.
        """
        c, ramp = self.config, self._ramp(step)
        if not ramp:
            return 0.0, {}
        self._thin(step)
        mixture, real, generated = self._inputs(step, stems, estimates)
        outputs = self.discriminator(mixture, generated)
        loss = objective.adversarial_loss(outputs, c.adversarial_loss)
        metrics = {"adversarial": loss.detach()}
        if c.feature_matching:
            self._thin(step)
            with torch.no_grad():
                wanted = self.discriminator(mixture, real)
            matching = objective.feature_matching_loss(wanted, outputs)
            metrics["feature_matching"] = matching.detach()
            loss = loss + c.feature_matching * matching
        (gradient,) = torch.autograd.grad(loss, estimates)
        norms = self._mean_over_ranks(torch.stack([_item_norm(reconstruction), _item_norm(gradient)]))
        if c.adversarial_share:
            weight = objective.balanced_weight(ramp * c.adversarial_share, *self._running(norms))
        else:
            weight = ramp * c.adversarial_weight
        metrics["adversarial_weight"] = torch.tensor(weight, device=self.device)
        metrics["adversarial_share"] = weight * norms[1] / (norms[0] + weight * norms[1]).clamp(min=1e-12)
        return weight * gradient, metrics

    def _ramp(self, step):
        done = step - self.config.adversarial_start
        return 0.0 if done < 0 else min((done + 1) / max(self.config.adversarial_ramp, 1), 1.0)

    def _running(self, norms):
        """Bias-corrected running means of both gradients' norms."""
        norms = [*norms.tolist(), 1.0]
        before = self.norms or [0.0, 0.0, 0.0]
        self.norms = [NORM_DECAY * a + (1 - NORM_DECAY) * b for a, b in zip(before, norms, strict=True)]
        return self.norms[0] / self.norms[2], self.norms[1] / self.norms[2]

    # Evaluation

    def logits(self, stems, estimates, index):
        """{sub-discriminator: (real, generated)} for one excerpt, each (judged, at most 64) logits spread over it.

        Inputs are dithered and made noisy as in training, but not augmented. index: of the excerpt, seeds the noise.
        """
        # Noise of streams that no training step uses
        views = self._inputs(2**31 + index, stems, estimates, items=range(1), p=0.0)
        self.discriminator.eval()
        mixture, real, generated = views
        outputs = self.discriminator(torch.cat([mixture, mixture]), torch.cat([real, generated]))
        self.discriminator.train()
        return {name: tuple(pick(half[0]) for half in maps[-1].cpu().split(1)) for name, maps in outputs.items()}

    def observe(self, metrics):
        """Take note of an evaluation: the augmentation follows r_v, and learning stops when it no longer helps."""
        c = self.config
        if c.augment_target and metrics["r_v_sigma"] is not None:
            change = math.copysign(c.evaluate_every / c.augment_steps, metrics["r_v_sigma"] - c.augment_target)
            self.p = min(max(self.p + change, 0.0), HIGHEST_P)
        improved = metrics["bce_heldout"] < self.best
        self.best, self.since_best = min(metrics["bce_heldout"], self.best), 0 if improved else self.since_best + 1
        self.frozen = self.frozen or bool(c.discriminator_patience and self.since_best >= c.discriminator_patience)

    # State

    def state_dict(self):
        """Everything needed to resume."""
        names = ("p", "frozen", "best", "since_best", "anchors", "norms")
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in names},
        }

    def load_state_dict(self, state):
        """Resume from what `state_dict` returned."""
        state = dict(state)
        self.discriminator.load_state_dict(state.pop("discriminator"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        for name, value in state.items():
            setattr(self, name, value)

    def _thin(self, step):
        """Draw the shared dropout of the next forward: in a step the same for both networks' halves, on any rank."""
        torch.manual_seed(int(self._random(2, step).randint(2**31)))

    def _random(self, stream, step):
        return np.random.RandomState([self.config.seed, stream, step])

    def _mean_over_ranks(self, values):
        if self.world_size > 1:
            distributed.all_reduce(values)
            values = values / self.world_size
        return values


def total_norm(network):
    """Euclidean norm of all gradients of a network."""
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def _item_norm(gradient):
    """Mean over the batch of each item's gradient norm, as it would be for a batch of one: the same on any rank."""
    return gradient.flatten(1).norm(dim=1).mean() * len(gradient)


def _halves(outputs):
    pairs = {name: [m.chunk(2) for m in maps] for name, maps in outputs.items()}
    return ({name: [m[half] for m in maps] for name, maps in pairs.items()} for half in (0, 1))
