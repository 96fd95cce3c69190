"""Batches of augmented excerpts for the generator, and the joint augmentation of the discriminator's input.

Source: Défossez et al., arXiv 1911.13254, section 5.1: per stem a random shift up to one second, channel swap and
sign flip; then stems are permuted between the members of groups of the batch ("remix"). A change of a stem's speed,
of pitch and tempo together, is an addition of this repository.

Every draw depends on (seed, step) alone and covers the global batch, of which each rank takes its part: a run resumes
exactly, and any number of ranks sees the same data.

To add a joint augmentation, give it a probability and draws at the end of the draws of `JointAugmentation.__init__`
(an earlier place would change those of the others) and fold it into `matrix`, `rows` or `kept`. It must be linear.
tests/data/test_batches.py checks that for every name in its `OPERATORS`.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch

from lib.common import streams
from lib.common.errors import UserError
from lib.data.tracks import CHANNELS, SAMPLERATE


class Batches:
    """Endless batches: `batches(step)` returns this rank's stems (batch / world_size, sources, channels, time).

    excerpts: `Excerpts`, each `shift + spare` samples longer than the batch's time; batch: items over all ranks;
    remix_group: items per remix group (0: no remix); seed: integers; spare: what a stem may be faster than recorded, in
    samples of a batch's time (it is as often slower, by the same factor); prefetch: a thread prepares the next batch,
    in pinned memory if there is a GPU.
    Raises `UserError` if a rank's share is not a multiple of `remix_group`, or excerpts are too few.
    """

    def __init__(self, excerpts, *, batch, shift, remix_group, seed, spare=0, rank=0, world_size=1, prefetch=False):
        if batch % world_size or (remix_group and (batch // world_size) % remix_group):
            raise UserError(
                f"A batch of {batch} over {world_size} process(es) cannot be split into remix groups of {remix_group}; "
                f"make batch a multiple of {max(remix_group, 1) * world_size}."
            )
        if len(excerpts) < batch:
            raise UserError(f"The training tracks hold {len(excerpts)} excerpts, fewer than a batch of {batch}.")
        self.excerpts, self.batch, self.shift, self.remix_group, self.seed = excerpts, batch, shift, remix_group, seed
        self.first, self.local, self.spare = rank * batch // world_size, batch // world_size, spare
        self.shape = (len(excerpts.sources), CHANNELS, excerpts.samples - shift - spare)
        self._thread = ThreadPoolExecutor(1) if prefetch else None
        self._prepared = {}  # step: Future

    def __call__(self, step):
        if not self._thread:
            return self._fill(step, self._empty())
        # Memory is allocated here: in the thread, CUDA's current device is the first one on every rank.
        batch = self._prepared.pop(step, None) or self._thread.submit(self._fill, step, self._empty())
        self._prepared = {step + 1: self._thread.submit(self._fill, step + 1, self._empty())}
        return batch.result()

    def _empty(self):
        if self._thread and torch.cuda.is_available():
            return torch.empty(self.local, *self.shape, pin_memory=True)
        # numpy requests huge pages: a new buffer costs a third of torch's.
        return torch.from_numpy(np.empty((self.local, *self.shape), np.float32))

    def _fill(self, step, out):
        random = np.random.RandomState([*self.seed, streams.BATCH, step])
        shape = (self.batch, self.shape[0])
        offsets = random.randint(self.shift, size=shape) if self.shift else np.zeros(shape, int)
        orders = random.rand(*shape, CHANNELS).argsort(-1)
        signs = random.randint(2, size=shape) * 2.0 - 1
        partner = self._remix(random)
        lengths = self._lengths(random, shape)
        indices = self._indices(step)
        for b, stems in enumerate(out.numpy(), self.first):
            for s, k in enumerate(partner[b]):
                with _at_speed(stems[s], lengths[k, s]) as stem:
                    self.excerpts.read(indices[k], stem, s, offsets[k, s], orders[k, s], signs[k, s])
        return out

    def _lengths(self, random, shape):
        """How many samples of each stem are played in the time of a batch: (batch, sources)."""
        time = self.shape[-1]
        if not self.spare:
            return np.full(shape, time)
        return np.rint(time * (1 + self.spare / time) ** random.uniform(-1, 1, shape)).astype(int)

    def tracks(self, step):
        """Names of the tracks that this rank's stems of a step come from."""
        local = self._indices(step)[self.first : self.first + self.local]
        return sorted({self.excerpts[index][0].name for index in local})

    def _remix(self, random):
        """The index of the item that each item's stems come from: (batch, sources)."""
        if not self.remix_group:
            return np.arange(self.batch)[:, None].repeat(self.shape[0], 1)
        groups = random.rand(self.batch // self.remix_group, self.remix_group, self.shape[0]).argsort(1)
        return (groups + np.arange(0, self.batch, self.remix_group)[:, None, None]).reshape(self.batch, -1)

    def _indices(self, step):
        """Indices of a step's excerpts: consecutive in a permutation that is drawn for each pass over the data."""
        places = (divmod(i, len(self.excerpts)) for i in range(step * self.batch, (step + 1) * self.batch))
        return [_permutation((*self.seed, streams.PASS, epoch), len(self.excerpts))[i] for epoch, i in places]


@contextmanager
def _at_speed(out, length):
    """A buffer for `length` samples of a stem, which are then played in the time of `out` (channels, time)."""
    if length == out.shape[1]:
        yield out
        return
    import soxr  # which only this augmentation needs

    yield (stem := np.empty((len(out), length), np.float32))
    out[:] = soxr.resample(stem.T, length, out.shape[1]).T


@lru_cache(maxsize=2)
def _permutation(seed, count):
    return np.random.RandomState(seed).permutation(count)


EQ_POINTS = 7  # frequencies at which an equaliser's gain is drawn, evenly spaced in octaves


def _equaliser_points(samplerate):
    return np.geomspace(50, samplerate / 2, EQ_POINTS)


class StemAugmentation:
    """A random gain and equaliser for each stem of a batch, before it is mixed: `augment(step, stems)`.

    gain_db, eq_db: largest gain of a stem, and of each band of its equaliser, up or down; 0: none. stems: (batch on
    this rank, sources, channels, samples). As of the batch, draws depend on (seed, step) and cover all `batch` items.
    """

    def __init__(self, *, gain_db, eq_db, batch, seed, rank, samples, device="cpu"):
        self.gain_db, self.eq_db, self.batch, self.seed, self.rank = gain_db, eq_db, batch, seed, rank
        if eq_db:
            self.size = 2 ** (samples - 1).bit_length()
            octave = np.log(np.maximum(np.fft.rfftfreq(self.size, 1 / SAMPLERATE), 1))
            points = np.log(_equaliser_points(SAMPLERATE))
            weights = [np.interp(octave, points, row) for row in np.eye(EQ_POINTS)]
            self.weights = torch.tensor(np.stack(weights), dtype=torch.float32, device=device)

    def __call__(self, step, stems):
        if not (self.gain_db or self.eq_db):
            return stems
        random = np.random.RandomState([self.seed, streams.STEMS, step])
        draws = random.uniform(-1, 1, (self.batch, stems.shape[1], 1 + EQ_POINTS)).astype(np.float32)
        draws = torch.from_numpy(draws[self.rank * len(stems) :][: len(stems)]).to(stems.device)
        if self.gain_db:
            stems = stems * 10 ** (self.gain_db * draws[..., :1, None] / 20)
        if self.eq_db:
            response = 10 ** (self.eq_db * draws[..., 1:] @ self.weights / 20)
            spectrum = torch.fft.rfft(stems, self.size) * response[:, :, None]
            stems = torch.fft.irfft(spectrum, self.size)[..., : stems.shape[-1]]
        return stems


# Joint augmentation of the discriminator's input

SHARE_OF_CUT, EQ_DB, GAIN_DB = 0.3, 9.0, 6.0


class JointAugmentation:
    """A random linear operator per item: `augment(x)` for x (batch, any, channels, time), differentiable.

    Each of these occurs independently with probability p: a gain per channel (up to ±6 dB), polarity, channel swap,
    circular shift, equalisation (up to ±9 dB, smooth over log frequency), band-stop (an octave), phase rotation (one
    angle for all frequencies), cut-out (up to 30 % of the time). All but the cut-out are one 2 × 2 matrix and one
    filter, circular over the excerpt. The augmented stems sum to the augmented mixture.

    random: numpy RandomState, drawn from for all `batch` items, of which this rank holds `local` (a slice).
    Source: Karras et al., StyleGAN2-ADA (arXiv 2006.06676); Zhao et al., DiffAugment (arXiv 2006.10738).
    """

    def __init__(self, random, p, batch, local, samples, samplerate, device="cpu"):
        use = random.rand(batch, 8) < p  # which operators occur, per item; unused ones are drawn too
        gains = np.where(use[:, :1], 10 ** (random.uniform(-GAIN_DB, GAIN_DB, (batch, 2)) / 20), 1.0)
        sign = np.where(use[:, 1], -1.0, 1.0)
        matrix = (sign[:, None] * gains)[:, :, None] * np.where(use[:, 2, None, None], np.eye(2)[::-1], np.eye(2))
        shift = np.where(use[:, 3], random.randint(samples, size=batch), 0)
        equaliser = np.where(use[:, 4, None], random.uniform(-EQ_DB, EQ_DB, (batch, EQ_POINTS)), 0.0)
        centre = 60 * (samplerate / 2 / 120) ** random.rand(batch)
        angle = np.where(use[:, 6], random.uniform(-np.pi, np.pi, batch), 0.0)
        length = np.where(use[:, 7], random.uniform(0, SHARE_OF_CUT, batch), 0.0) * samples
        begin = random.rand(batch) * (samples - length)

        self.matrix = torch.tensor(matrix[local], dtype=torch.float32, device=device)
        time = np.arange(samples)
        kept = (time < begin[local, None]) | (time >= (begin + length)[local, None])
        self.kept = torch.tensor(kept, dtype=torch.float32, device=device)
        self.samples, self.response = samples, None
        if use[:, 3:7].any():
            hertz = np.fft.rfftfreq(samples, 1 / samplerate)
            points = _equaliser_points(samplerate)
            rows = []
            for k in range(batch)[local]:
                magnitude = 10 ** (np.interp(np.log(np.maximum(hertz, 1)), np.log(points), equaliser[k]) / 20)
                if use[k, 5]:
                    magnitude = magnitude * ((hertz < centre[k] / 2**0.5) | (hertz > centre[k] * 2**0.5))
                rows.append(magnitude * np.exp(1j * (angle[k] - 2 * np.pi * hertz / samplerate * shift[k])))
            self.response = torch.tensor(np.stack(rows), dtype=torch.complex64, device=device)

    def __call__(self, x):
        """(batch, any, channels, time) -> the same shape."""
        x = torch.einsum("bij,bsjt->bsit", self.matrix.to(x.dtype), x)
        if self.response is not None:
            response = self.response[:, None, None].to(x.dtype.to_complex())
            x = torch.fft.irfft(torch.fft.rfft(x) * response, self.samples)
        return x * self.kept[:, None, None].to(x.dtype)


def item_noise(shape, seed, items, device="cpu"):
    """Standard normal noise (items, *shape); an item's noise depends on (seed, item) alone, whichever rank draws it."""
    noise = torch.empty((len(items), *shape), device=device)
    for item, its_noise in zip(items, noise, strict=True):
        state = np.random.SeedSequence([*seed, item]).generate_state(1, np.uint64)[0]
        its_noise.normal_(generator=torch.Generator(device).manual_seed(int(state >> 1)))
    return noise
