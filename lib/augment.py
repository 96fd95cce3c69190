"""Batches of augmented excerpts as Demucs v1 trains on them.

Source: Défossez et al., arXiv 1911.13254, section 5.1: per stem a random shift up to one second, channel swap and
sign flip; then stems are permuted between the members of groups of the batch ("remix").

Every draw is a function of (seed, step) alone and made for the global batch, of which a rank takes its part: a run
resumes exactly, and any number of ranks sees the same data.
"""

import numpy as np
import torch

from lib.errors import UserError


class Batches:
    """Endless batches: `batches(step)` gives the stems (batch / world, sources, channels, time) of this rank.

    excerpts: `data.Excerpts`, each `shift` samples longer than the batch's time; batch: over all ranks; group: size
    of a remix group (0: no remix); seed: a sequence of integers. Raises `UserError` when the rank's share of the
    batch is not a multiple of the group, or the excerpts are fewer than the batch.
    """

    def __init__(self, excerpts, *, batch, shift, group, seed, rank=0, world=1, sources=4, channels=2):
        if batch % world or (group and (batch // world) % group):
            raise UserError(
                f"A batch of {batch} over {world} process(es) cannot be split into remix groups of {group}; "
                f"make batch a multiple of {max(group, 1) * world}."
            )
        if len(excerpts) < batch:
            raise UserError(f"The training tracks hold {len(excerpts)} excerpts, fewer than a batch of {batch}.")
        self.excerpts, self.batch, self.shift, self.group, self.seed = excerpts, batch, shift, group, seed
        self.first, self.local = rank * batch // world, batch // world
        self.shape = (sources, channels, excerpts.samples - shift)
        self._epoch = (None, None)

    def __call__(self, step):
        sources, channels, _ = self.shape
        random = np.random.RandomState([*self.seed, 1, step])
        shape = (self.batch, sources)
        offsets = random.randint(self.shift, size=shape) if self.shift else np.zeros(shape, int)
        orders = random.rand(*shape, channels).argsort(-1)
        signs = random.randint(2, size=shape) * 2.0 - 1
        partner = self._remix(random)
        indices = self._indices(step)
        out = torch.empty(self.local, *self.shape)
        for b, stems in enumerate(out.numpy(), self.first):
            for s, k in enumerate(partner[b]):
                self.excerpts.read(indices[k], stems[s], s, offsets[k, s], orders[k, s], signs[k, s])
        return out

    def _remix(self, random):
        """(batch, sources): from which member of the batch each stem comes."""
        sources = self.shape[0]
        if not self.group:
            return np.arange(self.batch)[:, None].repeat(sources, 1)
        groups = random.rand(self.batch // self.group, self.group, sources).argsort(1)
        return (groups + np.arange(0, self.batch, self.group)[:, None, None]).reshape(self.batch, sources)

    def _indices(self, step):
        """The excerpts of a step: consecutive places in a permutation drawn per pass over the data."""
        return [
            self._permutation(i // len(self.excerpts))[i % len(self.excerpts)]
            for i in range(step * self.batch, (step + 1) * self.batch)
        ]

    def _permutation(self, epoch):
        if self._epoch[0] != epoch:
            self._epoch = (epoch, np.random.RandomState([*self.seed, 0, epoch]).permutation(len(self.excerpts)))
        return self._epoch[1]
