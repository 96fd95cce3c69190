"""The draws of batches, joint augmentation and noise: their distributions, and that ranks and steps agree."""

import numpy as np
import pytest
import torch

from lib.common.errors import UserError
from lib.data.batches import Batches, JointAugmentation, StemAugmentation, item_noise
from lib.data.tracks import FULL_SCALE, Excerpts, Track, read_index

TIME, SHIFT = 8_000, 2_000


@pytest.fixture
def excerpts(index):
    return Excerpts(read_index(index)[0]["train"], TIME + SHIFT, 11_025)


def make(excerpts, **changes):
    return Batches(excerpts, **({"batch": 8, "shift": SHIFT, "remix_group": 4, "seed": [42, 0]} | changes))


def test_ranks_together_see_what_one_process_sees(excerpts):
    whole = make(excerpts)(3)
    parts = [make(excerpts, rank=rank, world_size=2)(3) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def test_a_step_is_a_function_of_seed_and_number(excerpts):
    batches = make(excerpts)
    first = batches(0)
    batches(1)
    torch.testing.assert_close(batches(0), first, rtol=0, atol=0)
    assert not torch.equal(batches(1), first)
    assert not torch.equal(make(excerpts, seed=[43, 0])(0), first)


def test_batches_prepared_ahead_are_the_same_in_any_order(excerpts):
    plain, prefetching = make(excerpts), make(excerpts, prefetch=True)
    passes = len(excerpts) // 8  # the thread enters the next pass over the data while this one is asked for
    for step in (0, 1, 2, 7, 3, *range(passes - 2, passes + 2)):
        assert torch.equal(prefetching(step), plain(step)), step
        assert prefetching.tracks(step) == plain.tracks(step)


def test_one_pass_shows_every_excerpt_once(excerpts):
    batches = make(excerpts)
    steps = len(excerpts) // 8
    seen = [i for step in range(steps) for i in batches._indices(step)]
    assert len(set(seen)) == len(seen)


def test_stems_are_shifted_flipped_swapped_slices_from_their_remix_group(excerpts):
    """Find every stem of a batch in the members of its group, by brute force over all possible augmentations."""
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


RAMP, FEW = 14, 10  # samples of an excerpt of `ramps`, of which FEW are shift


@pytest.fixture
def ramps(tmp_path):
    """256 excerpts of a track in which all samples of all stems and channels have different values."""
    values = 1 + np.arange(4 * 2 * 256 * RAMP, dtype=np.int16).reshape(4, 2, -1)
    np.save(tmp_path / "ramps.npy", np.concatenate([values[:1], values]))
    # This mean and deviation leave the values as they are
    track = Track("ramps", str(tmp_path / "ramps.npy"), 256 * RAMP, 0.0, 1 / FULL_SCALE, "")
    return Excerpts([track], RAMP, RAMP)


def test_each_stem_is_shifted_swapped_flipped_and_remixed_at_its_rate(ramps):
    """The value of a stem's first sample tells its excerpt, shift, channel and sign: 4 x 1,280 stems."""
    batches = make(ramps, batch=64, shift=FEW)
    stems = np.stack([batches(step).numpy() for step in range(20)])  # (steps, items, sources, channels, time)
    members = np.array([np.argsort(_whole_pass(batches, step)) % 64 for step in range(20)])  # [step, excerpt]: member
    places = np.rint(np.abs(stems)).astype(int) - 1
    source, channel, time = np.unravel_index(places, (4, 2, 256 * RAMP))
    excerpt, shift = np.divmod(time[..., 0, 0], RAMP)
    sign, swapped = np.sign(stems[..., 0, 0]), channel[..., 0, 0] == 1

    assert (source == np.arange(4)[:, None, None]).all() and (np.diff(time, axis=-1) == 1).all()
    assert (time[..., 0, :] == time[..., 1, :]).all() and (np.sign(stems) == sign[..., None, None]).all()
    assert (channel[..., 0, :] != channel[..., 1, :]).all(), "both channels are there"

    def rate(what, wanted):  # 5 sigma of as many draws
        assert what.mean() == pytest.approx(wanted, abs=5 * (wanted * (1 - wanted) / what.size) ** 0.5)

    for drawn in range(FEW):
        rate(shift == drawn, 1 / FEW)
    rate(swapped, 0.5)
    rate(sign < 0, 0.5)
    rate(swapped & (sign < 0), 0.25)
    origin = np.take_along_axis(members, excerpt.reshape(20, -1), 1).reshape(excerpt.shape)
    place = origin - np.arange(64)[:, None] // 4 * 4  # in the remix group
    for member in range(4):
        rate(place == member, 1 / 4)
    for what, chance in ((shift, 1 / FEW), (sign, 1 / 2), (swapped, 1 / 2), (origin, 1 / 4)):
        for a, b in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
            rate(what[..., a] == what[..., b], chance)  # each stem draws its own


def _whole_pass(batches, step):
    """The excerpts of the pass over the data in which a step lies, four steps each."""
    return sum((batches._indices(step // 4 * 4 + k) for k in range(4)), [])


def test_stems_are_played_faster_and_slower_within_their_limit(tmp_path):
    """Of a tone, the pitch follows the speed; the factors are as often above 1 as below, and differ within a batch."""
    samples, hertz, spare = 44_100, 2_000, 4_410
    tone = (12_000 * np.sin(2 * np.pi * hertz * np.arange(2 * samples) / samples)).astype(np.int16)
    np.save(tmp_path / "tone.npy", np.tile(tone, (5, 2, 1)))
    track = Track("tone", str(tmp_path / "tone.npy"), tone.size, 0.0, 12_000 / FULL_SCALE, "tone")
    batches = Batches(Excerpts([track], samples + spare, 4_410), batch=8, shift=0, spare=spare, remix_group=4, seed=[1])
    stems = torch.cat([batches(step) for step in range(8)])[..., 2_000:-2_000]  # less the ends, where a filter begins
    crossings = (stems[:, :, 0, 1:] * stems[:, :, 0, :-1] < 0).sum(-1).numpy().ravel()
    factors = crossings / (2 * hertz * stems.shape[-1] / samples)
    assert 1 / 1.101 < factors.min() < 0.93 and 1.07 < factors.max() < 1.101
    assert abs((factors > 1).mean() - 0.5) < 4 * 0.5 / len(factors) ** 0.5
    torch.testing.assert_close(stems.square().mean((-1, -2)), torch.full((64, 4), 0.5), rtol=0, atol=0.01)


def test_changes_of_speed_leave_the_other_draws_as_they_are(excerpts, monkeypatch):
    longer = Excerpts(excerpts.tracks, TIME + SHIFT + 800, 11_025)
    monkeypatch.setattr(Batches, "_lengths", lambda batches, random, shape: np.full(shape, TIME))
    torch.testing.assert_close(make(longer, spare=800)(3), make(excerpts)(3), rtol=0, atol=0)


def test_each_pass_has_an_order_of_its_own(ramps):
    batches = make(ramps, batch=64, shift=FEW)
    passes = [_whole_pass(batches, step) for step in (0, 4, 8)]
    assert all(sorted(order) == list(range(256)) for order in passes), "every excerpt once"
    for a, b in ((0, 1), (0, 2), (1, 2)):
        # Two random permutations agree in one place on average, in eight or more with a chance of 1e-5
        assert np.equal(passes[a], passes[b]).sum() < 8
    assert np.equal(passes[0], range(256)).sum() < 8, "nor in the order of the tracks"


def test_without_shift_and_remix_stems_stay_together(excerpts):
    plain = Excerpts(excerpts.tracks, TIME, 11_025)
    batches = make(plain, shift=0, remix_group=0)
    stems, [first, *_] = batches(0).numpy(), batches._indices(0)
    for s in range(4):
        wanted = np.empty((2, TIME), np.float32)
        plain.read(first, wanted, s)
        np.testing.assert_allclose(np.sort(np.abs(stems[0, s]).sum(1)), np.sort(np.abs(wanted).sum(1)), rtol=1e-4)


def test_a_batch_that_cannot_be_split_is_refused(excerpts):
    with pytest.raises(UserError, match="multiple of 8"):
        make(excerpts, batch=12, world_size=2)
    with pytest.raises(UserError, match="fewer than a batch"):
        make(excerpts, batch=4_000)


# Joint augmentation

OPERATORS = (
    "gain",
    "polarity",
    "channel swap",
    "circular shift",
    "equalisation",
    "band-stop",
    "phase rotation",
    "cut-out",
)
ITEMS, SAMPLES = 3, 4410  # a tenth of a second: rows of 10 Hz


class Only(np.random.RandomState):
    """Random numbers that make exactly the named operators occur in every item at p = 0.5."""

    def __init__(self, *names):
        super().__init__(0)
        self.used = np.isin(OPERATORS, names)

    def rand(self, *shape):
        draws = super().rand(*shape)
        return np.where(self.used, 0.0, 1.0) + 0 * draws if shape[1:] == (len(OPERATORS),) else draws


class Fixed(Only):
    """The same, with every other draw at `fraction` of its range."""

    def __init__(self, fraction, *names):
        super().__init__(*names)
        self.fraction = fraction

    def rand(self, *shape):
        return np.full(shape, self.fraction) if len(shape) == 1 else super().rand(*shape)

    def uniform(self, low, high, size):
        return np.full(size, low + self.fraction * (high - low))

    def randint(self, high, size):
        return np.full(size, int(self.fraction * high))


def operator(random, samples=SAMPLES, local=slice(0, ITEMS), p=0.5):
    return JointAugmentation(random, p, ITEMS, local, samples, 44_100)


def sound(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def every_combination():
    return pytest.mark.parametrize("names", [(name,) for name in OPERATORS] + [OPERATORS], ids="+".join)


@every_combination()
def test_joint_augmentation_is_linear_and_keeps_the_mixture_the_sum_of_the_stems(names):
    augment = operator(Only(*names))
    x, y = sound(ITEMS, 4, 2, SAMPLES, seed=1), sound(ITEMS, 4, 2, SAMPLES, seed=2)
    torch.testing.assert_close(augment(2 * x - 3 * y), 2 * augment(x) - 3 * augment(y), rtol=0, atol=1e-12)
    assert not torch.allclose(augment(x), x), "it does something"
    stems = x.float()
    augmented, mixture = augment(stems), augment(stems.sum(1, keepdim=True))[:, 0]
    assert augmented.dtype == torch.float32 and augmented.shape == stems.shape
    # 1e-6 of the mixture's largest sample: rounding of float32
    assert (augmented.sum(1) - mixture).abs().max() < 1e-6 * mixture.abs().max()


@every_combination()
def test_joint_augmentation_gives_the_gradient_of_its_matrix(names):
    """Its matrix, column by column from unit impulses; the gradient of <f(x), y> by x is that matrix's transpose y."""
    samples = 24
    augment = operator(Only(*names), samples)
    impulses = torch.eye(2 * samples, dtype=torch.float64).view(1, 2 * samples, 2, samples).expand(ITEMS, -1, -1, -1)
    matrix = augment(impulses).flatten(2)  # (items, input, output)
    x, y = sound(ITEMS, 1, 2, samples, seed=1).requires_grad_(), sound(ITEMS, 1, 2, samples, seed=2)
    (gradient,) = torch.autograd.grad((augment(x) * y).sum(), x)
    expected = torch.einsum("kio,ko->ki", matrix, y.flatten(1))
    torch.testing.assert_close(gradient.flatten(1), expected, rtol=0, atol=1e-12)
    assert gradient.flatten(1).any(-1).all(), "it flows in every item"


def test_without_a_chance_nothing_is_augmented():
    x = sound(ITEMS, 4, 2, SAMPLES)
    assert torch.equal(operator(np.random.RandomState(0), p=0.0)(x), x)


def test_each_operator_occurs_with_its_chance():
    """Share of 2,000 items, at p = 0.3, that polarity or channel swap changed; neither leaves an item as it was."""
    augment = JointAugmentation(np.random.RandomState(0), 0.3, 2000, slice(0, 2000), 16, 44_100)
    turned = (augment.matrix.sum((1, 2)) < 0).double().mean().item()
    swapped = (augment.matrix[:, 0, 1] != 0).double().mean().item()
    both = ((augment.matrix.sum((1, 2)) < 0) & (augment.matrix[:, 0, 1] != 0)).double().mean().item()
    assert turned == pytest.approx(0.3, abs=0.041) and swapped == pytest.approx(0.3, abs=0.041)  # 4 sigma
    assert both == pytest.approx(0.09, abs=0.026), "independently"


def test_ranks_apply_the_rows_of_the_whole_batch():
    x = sound(ITEMS, 4, 2, SAMPLES)
    whole = operator(np.random.RandomState(7))(x)
    for local in (slice(0, 1), slice(1, 3)):
        part = operator(np.random.RandomState(7), local=local)(x[local])
        torch.testing.assert_close(part, whole[local], rtol=0, atol=1e-12)
    assert not torch.allclose(operator(np.random.RandomState(8))(x), whole)


def test_gain_polarity_and_channel_swap():
    x = sound(ITEMS, 4, 2, SAMPLES)
    torch.testing.assert_close(operator(Fixed(0.75, "gain"))(x), x * 10 ** (3 / 20), rtol=1e-6, atol=0)  # +3 dB
    factors = operator(Only("gain"))(x) / x
    db = 20 * factors[:, 0, :, 0].log10()
    torch.testing.assert_close(factors, factors[:, :1, :, :1].expand_as(x), rtol=1e-9, atol=0)
    assert db.abs().max() <= 6 and db.flatten().unique().numel() == 2 * ITEMS, "of its own for item and channel"
    assert torch.equal(operator(Only("polarity"))(x), -x)
    assert torch.equal(operator(Only("channel swap"))(x), x.flip(2))


def test_circular_shift_rolls():
    x = sound(ITEMS, 4, 2, SAMPLES)
    shifted = operator(Fixed(0.3, "circular shift"))(x)
    # 1e-4: a phase of up to 1,323 turns was rounded to float32
    torch.testing.assert_close(shifted, x.roll(int(0.3 * SAMPLES), dims=-1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [4410, 4411])
def test_phase_rotation_turns_every_sine_by_one_angle(samples):
    time = torch.arange(samples, dtype=torch.float64)
    for cycles in (3, 500):
        phase = 2 * torch.pi * cycles * time / samples
        turned = operator(Fixed(0.7, "phase rotation"), samples)(torch.sin(phase).expand(ITEMS, 1, 2, samples))
        wanted = torch.sin(phase + (0.7 - 0.5) * 2 * torch.pi).expand(ITEMS, 1, 2, samples)
        torch.testing.assert_close(turned, wanted, rtol=0, atol=1e-6)


def spectrum(x):
    return torch.fft.rfft(x).abs()


def test_band_stop_removes_an_octave():
    x = sound(ITEMS, 1, 2, SAMPLES)
    ratio = spectrum(operator(Fixed(0.5, "band-stop"))(x)) / spectrum(x)
    centre = (60 * 22_050 / 2) ** 0.5  # halfway in log frequency between 60 Hz and half of Nyquist's
    hertz = 10 * torch.arange(SAMPLES // 2 + 1)
    inside = (hertz >= centre / 2**0.5) & (hertz <= centre * 2**0.5)
    torch.testing.assert_close(ratio, (~inside).double().expand_as(ratio), rtol=0, atol=1e-6)
    assert hertz[inside].max() / hertz[inside].min() == pytest.approx(2, rel=0.05)  # rows lie 10 Hz apart


def test_equalisation_is_smooth_and_within_its_decibels():
    x = sound(ITEMS, 1, 2, SAMPLES)
    db = 20 * (spectrum(operator(Only("equalisation"))(x)) / spectrum(x)).log10()
    torch.testing.assert_close(db[:, :, 0], db[:, :, 1], rtol=0, atol=1e-6)
    assert db.abs().max() <= 9 + 1e-4 and db.std() > 1
    # Seven points over log2(22,050 / 50) = 8.8 octaves, so at most 18 dB in 1.46 octaves
    octaves = torch.log2(torch.arange(5, SAMPLES // 2 + 1) / torch.arange(4, SAMPLES // 2))
    assert (db.diff(dim=-1)[..., 4:].abs() <= 18 / 1.46 * octaves + 1e-4).all()
    flat = operator(Fixed(2 / 3, "equalisation"))(x)  # +3 dB at every point
    torch.testing.assert_close(flat, x * 10 ** (3 / 20), rtol=0, atol=1e-5)


def test_cut_out_silences_the_drawn_part():
    x = sound(ITEMS, 4, 2, SAMPLES)
    length = 0.5 * 0.3 * SAMPLES
    begin = 0.5 * (SAMPLES - length)
    wanted = x.clone()
    wanted[..., int(np.ceil(begin)) : int(np.ceil(begin + length))] = 0
    assert torch.equal(operator(Fixed(0.5, "cut-out"))(x), wanted)
    silent = (operator(Only("cut-out"))(x) == 0).all(dim=(1, 2))
    for row in silent:
        where = row.nonzero().flatten()
        assert 0 < len(where) <= 0.3 * SAMPLES and where[-1] - where[0] + 1 == len(where)


# Noise


def test_noise_belongs_to_its_item_whoever_draws_it():
    whole = item_noise((3, 50), [42, 4, 7], range(8))
    torch.testing.assert_close(item_noise((3, 50), [42, 4, 7], range(4, 8)), whole[4:], rtol=0, atol=0)
    others = [item_noise((3, 50), seed, range(8)) for seed in ([43, 4, 7], [42, 4, 8])]
    for other in (*others, whole.roll(1, 0)):
        assert not (other == whole).all((1, 2)).any(), "another item, seed or step: other noise"


def test_noise_is_standard_normal():
    noise = item_noise((100, 100), [0], range(10)).double()
    # 4 sigma of 100,000 draws: 1 / 316 for the mean, 1 / 447 for the deviation
    assert noise.mean().item() == pytest.approx(0, abs=0.0127)
    assert noise.std().item() == pytest.approx(1, abs=0.0090)


def test_stems_get_gains_and_equalisers_of_their_own():
    options = dict(gain_db=6.0, eq_db=9.0, batch=4, seed=3, samples=5000)
    stems = torch.randn(4, 4, 2, 5000)
    augment = StemAugmentation(rank=0, **options)
    whole = augment(7, stems)
    halves = [StemAugmentation(rank=rank, **options)(7, part) for rank, part in enumerate(stems.split(2))]
    torch.testing.assert_close(torch.cat(halves), whole)
    assert torch.equal(augment(7, stems), whole) and not torch.equal(augment(8, stems), whole)
    torch.testing.assert_close(augment(7, 2 * stems), 2 * whole)  # linear
    levels = 20 * (whole.norm(dim=(2, 3)) / stems.norm(dim=(2, 3))).log10()
    assert levels.abs().max() < 6 + 9 and levels.std() > 1
    spectra = torch.fft.rfft(whole[0, :, 0]).abs() / torch.fft.rfft(stems[0, :, 0]).abs()
    low, high = spectra[:, 20:100].median(dim=1).values, spectra[:, 1500:2000].median(dim=1).values
    assert (20 * (low / high).log10()).std() > 1, "each stem has its own colour"
    assert StemAugmentation(rank=0, **options | {"gain_db": 0.0, "eq_db": 0.0})(7, stems) is stems


@pytest.mark.parametrize("step", range(5))
def test_a_gain_alone_stays_within_its_limit(step):
    stems = torch.ones(2, 4, 2, 100)
    gain = StemAugmentation(gain_db=3.0, eq_db=0.0, batch=2, seed=1, rank=0, samples=100)(step, stems)
    assert (gain.amax((2, 3)) == gain.amin((2, 3))).all() and (20 * gain.log10()).abs().max() <= 3.0001
