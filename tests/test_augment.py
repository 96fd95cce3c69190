"""Batches: what is drawn, and that ranks and steps agree on it."""

import numpy as np
import pytest
import torch

from lib import data
from lib.augment import Batches
from lib.errors import UserError

TIME, SHIFT = 8_000, 2_000


@pytest.fixture
def excerpts(index):
    return data.Excerpts(data.read_index(index)[0]["train"], TIME + SHIFT, 11_025)


def make(excerpts, **changes):
    return Batches(excerpts, **({"batch": 8, "shift": SHIFT, "group": 4, "seed": [42, 0]} | changes))


def test_ranks_together_see_what_one_process_sees(excerpts):
    whole = make(excerpts)(3)
    parts = [make(excerpts, rank=rank, world=2)(3) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def test_a_step_is_a_function_of_seed_and_number(excerpts):
    batches = make(excerpts)
    first = batches(0)
    batches(1)
    torch.testing.assert_close(batches(0), first, rtol=0, atol=0)
    assert not torch.equal(batches(1), first)
    assert not torch.equal(make(excerpts, seed=[43, 0])(0), first)


def test_one_pass_shows_every_excerpt_once(excerpts):
    batches = make(excerpts)
    steps = len(excerpts) // 8
    seen = [i for step in range(steps) for i in batches._indices(step)]
    assert len(set(seen)) == len(seen)


def test_stems_are_shifted_flipped_swapped_slices_from_their_remix_group(excerpts):
    """Find every stem of a batch again in the members of its group, by brute force over what augmentation may do."""
    batches = make(excerpts)
    stems, indices = batches(2).numpy(), batches._indices(2)
    origins = np.zeros((8, 4), int)
    for b in range(8):
        for s in range(4):
            found = [k for k in range(b // 4 * 4, b // 4 * 4 + 4) if contains(excerpts, indices[k], s, stems[b, s])]
            assert len(found) == 1, "each stem comes from exactly one member of its group"
            origins[b, s] = found[0]
    for s in range(4):
        assert sorted(origins[:, s]) == list(range(8)), "remix is a permutation: nothing is lost or doubled"
    assert (origins != origins[:, :1]).any(), "stems of different tracks meet"


def contains(excerpts, index, source, audio):
    long = np.empty((2, TIME + SHIFT), np.float32)
    excerpts.read(index, long, source)
    probe = audio[:, :64]
    for flip in (long, long[::-1]):
        windows = np.lib.stride_tricks.sliding_window_view(flip, 64, axis=1)[:, :SHIFT]
        for sign in (1, -1):
            close = np.abs(windows - sign * probe[:, None]).max(axis=(0, 2)) < 1e-5
            for start in np.flatnonzero(close):
                if np.allclose(flip[:, start : start + TIME], sign * audio, atol=1e-5):
                    return True
    return False


def test_without_shift_and_remix_stems_stay_together(excerpts):
    plain = data.Excerpts(excerpts.tracks, TIME, 11_025)
    batches = make(plain, shift=0, group=0)
    stems, [first, *_] = batches(0).numpy(), batches._indices(0)
    for s in range(4):
        wanted = np.empty((2, TIME), np.float32)
        plain.read(first, wanted, s)
        np.testing.assert_allclose(np.sort(np.abs(stems[0, s]).sum(1)), np.sort(np.abs(wanted).sum(1)), rtol=1e-4)


def test_a_batch_that_cannot_be_split_is_refused(excerpts):
    with pytest.raises(UserError, match="multiple of 8"):
        make(excerpts, batch=12, world=2)
    with pytest.raises(UserError, match="fewer than a batch"):
        make(excerpts, batch=4_000)
