"""The D-probe, where it is certain what a discriminator can know."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib import data, probe
from lib.demucs import Demucs, center_trim
from lib.errors import UserError
from lib.generators import save_weights

SECONDS = 0.1
SAMPLES = round(SECONDS * data.SAMPLERATE)


class Quarter:
    """A generator that says a quarter of the mixture four times, and loses ten samples at either side."""

    def valid_length(self, samples):
        return samples + 20

    def __call__(self, mixture):
        return (mixture[:, None] / 4).expand(-1, 4, -1, -1)[..., 10:-10]


class Imitator:
    """A generator that draws its estimates from the exact distribution of the stems (independent noise of deviation
    1/2) given their sum: no rule tells them from recorded stems, so what is learned of them can only be memory."""

    def valid_length(self, samples):
        return samples

    def __call__(self, mixture):
        seed = int(mixture.double().abs().sum() * 1e6)  # the same for the same mixture
        noise = torch.randn(len(mixture), 4, *mixture.shape[1:], generator=torch.Generator().manual_seed(seed)) / 2
        return mixture[:, None] / 4 + noise - noise.mean(1, keepdim=True)


IMITATOR = Imitator()


def noise_track(folder, name, seed, seconds):
    random = np.random.RandomState(seed)
    stems = random.randn(4, 2, round(seconds * data.SAMPLERATE)) * 2000
    audio = np.concatenate([stems.sum(0, keepdims=True), stems]).round().astype(np.int16)
    np.save(folder / f"{name}.npy", audio)
    # At twice the stems' deviation, as that of the mixture of four: stems of 1/2, a mixture of 1
    return data.Track(name, str(folder / f"{name}.npy"), audio.shape[-1], 0.0, 4000 / data.FULL_SCALE, "")


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Tracks of independent noise: 40 segments to hold out, and a few of one track to learn."""
    folder = tmp_path_factory.mktemp("noise")
    held_out = [noise_track(folder, f"held out {k}", k, 21 * SECONDS) for k in range(2)]
    return {"train": [noise_track(folder, "seen", 9, 1.0)], "valid": held_out}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(probe, "HELD_OUT", 40)


def test_segments_are_stretches_of_the_tracks_and_the_generators_estimates_of_them(index):
    tracks = tuple(data.read_index(index)[0]["train"][:2])  # of 4 s, 39 segments each
    stems, estimates = probe.segments(tracks, Quarter(), 6, SECONDS)
    assert estimates.shape == (6, 4, 2, SAMPLES) and stems.shape == (6, 4, 2, SAMPLES + 20), "ten samples of context"
    stems = center_trim(stems, estimates)
    for k, place in enumerate((0, 13, 26, 0, 13, 26)):  # every thirteenth
        track = tracks[k // 3]
        begin = place * SAMPLES + 10
        wanted = torch.from_numpy((track.stems()[..., begin : begin + SAMPLES] - track.mean) / track.std)
        torch.testing.assert_close(stems[k], wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(estimates[k], (wanted.sum(0) / 4).expand(4, -1, -1), rtol=0, atol=1e-5)


def test_too_few_segments_are_refused_in_one_sentence(noise):
    with pytest.raises(UserError, match=r"hold 10 segments of 0.1 s, fewer than 11; ask for fewer\."):
        probe.segments(tuple(noise["train"]), IMITATOR, 11, SECONDS)


def cell(noise, cure="none", generator=IMITATOR, **changes):
    base = dict(count=3, seed=1, steps=30, seconds=SECONDS, batch=4, width=8, lr=1e-3)
    return probe.cell(noise, generator, cure=cure, **(base | changes))


def test_memorisation_is_seen_where_there_is_nothing_else_to_learn(noise):
    found = cell(noise, steps=150)
    assert found["r_t"] == 1, "it knows every real patch that it has seen"
    # 40 segments of each kind with two overlapping patches: 4 sigma of the AUC of 40 + 40 is 0.26
    assert found["auc_heldout"] == pytest.approx(0.5, abs=0.26)
    assert found["tpr_heldout"] + found["tnr_heldout"] == pytest.approx(1, abs=0.45)  # 4 sigma, as above
    # All of the distance between real and generated is lost on others (4 sigma, as above)
    assert found["r_v_sigma"] + found["r_f"] == pytest.approx(1, abs=0.45)
    assert found["bce_heldout"] > np.log(2), "worse than a guess"


class Offset(Quarter):
    """The same, with a constant beside it: a difference that any segment shows."""

    def __call__(self, mixture):
        return super().__call__(mixture) + 1


def test_a_difference_that_all_segments_share_is_no_memory(noise):
    found = cell({"train": noise["valid"][:1], "valid": noise["valid"]}, generator=Offset(), count=19)
    assert found["auc_heldout"] > 0.95 and abs(found["r_v_sigma"]) < 0.05 and abs(found["r_f"]) < 0.05


def test_of_a_generator_without_error_nothing_can_be_told(noise):
    found = cell(noise, error=0.0)
    assert found["auc_heldout"] == 0.5 and found["r_v_sigma"] is None
    assert found["tpr_heldout"] == 1 - found["tnr_heldout"]


def test_a_cell_holds_what_it_promises_and_gives_the_same_again(noise):
    found = cell(noise)
    assert list(found) == ["segments", "cure", "seed", *probe.COLUMNS]
    assert (found["segments"], found["cure"], found["seed"]) == (3, "none", 1)
    torch.rand(3)
    assert cell(noise) == found
    assert cell(noise, seed=2) != found


@pytest.mark.parametrize("cure", [cure for cure in probe.CURES if cure != "none"])
def test_every_cure_changes_what_is_learned(noise, cure):
    steps = 55 if "adaptive" in cure or cure == "early stop" else 3  # these act on an evaluation, every 25 steps
    found, naive = cell(noise, cure, steps=steps), cell(noise, steps=steps)
    assert found["cure"] == cure and any(found[name] != naive[name] for name in probe.COLUMNS)
    if cure == "early stop":
        assert found["bce_heldout"] < naive["bce_heldout"], "memory makes it worse, so an earlier state was kept"


class InProcess:
    """A pool without processes."""

    def __init__(self, *_):
        self.map = map

    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda *_: None  # noqa: E731


@pytest.fixture
def weights(tmp_path):
    save_weights(Demucs(channels=2, depth=2, lstm_layers=0), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_cells_are_kept_until_what_they_depend_on_changes(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", InProcess)
    run, trained = probe.cell, []
    monkeypatch.setattr(
        probe,
        "cell",
        lambda *a, count, cure, seed, **k: trained.append(seed) or run(*a, count=count, cure=cure, seed=seed, **k),
    )

    def table(seeds, **changes):
        cells = [(4, cure, seed) for seed in seeds for cure in ("none", "LeCam")]
        return probe.run(
            tmp_path / "dprobe", index, weights, cells, **({"steps": 2, "seconds": 0.1, "width": 4} | changes)
        )

    first = table([1])
    assert [*first.columns] == ["segments", "cure", "seed", *probe.COLUMNS]
    assert first.cure.tolist() == ["none", "LeCam"] and trained == [1, 1]
    both = table([2, 1])
    assert both.seed.tolist() == [2, 2, 1, 1] and trained == [1, 1, 2, 2], "in the order asked for; the first is kept"
    pd.testing.assert_frame_equal(both[2:].reset_index(drop=True), first)
    pd.testing.assert_frame_equal(table([2, 1]), both)
    assert trained == [1, 1, 2, 2]
    table([1], steps=3)
    assert trained == [1, 1, 2, 2, 1, 1] and len(pd.read_csv(tmp_path / "dprobe" / "dprobe.csv")) == 2


def test_cells_of_other_settings_never_count_even_after_an_interruption(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", InProcess)
    cells, settings = [(4, "none", 1)], {"seconds": 0.1, "width": 4}
    before = probe.run(tmp_path, index, weights, cells, steps=2, **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(probe, "cell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        probe.run(tmp_path, index, weights, cells, steps=8, **settings)
    assert not probe.run(tmp_path, index, weights, cells, steps=8, **settings).equals(before)


def test_an_unknown_cure_and_too_many_segments_are_refused_before_any_step(index, weights, tmp_path):
    with pytest.raises(UserError, match="no cure 'prayer'; choose from none"):
        probe.run(tmp_path / "dprobe", index, weights, [(4, "prayer", 1)], steps=1, seconds=0.1)
    with pytest.raises(UserError, match="fewer than 4000; ask for fewer"):
        probe.run(tmp_path / "dprobe", index, weights, [(4, "none", 1), (4000, "none", 1)], steps=1, seconds=0.1)
    for name in ("steps", "seconds", "width", "error"):
        settings = {"steps": 1, "seconds": 0.1, name: 0}
        with pytest.raises(UserError, match=f"D-probe's {name} = 0 must be above 0"):
            probe.run(tmp_path / "dprobe", index, weights, [(4, "none", 1)], **settings)
    assert not (tmp_path / "dprobe").exists()


# A fresh discriminator


def pairs(change, tracks=4):
    """Tracks of noise of 1.8 s, and what `change` makes of them."""
    random = np.random.RandomState(0)
    made = {f"track {k}": random.randn(4, 2, 80_000).astype(np.float32) * 10.0**-k for k in range(tracks)}
    return {name: (stems, change(stems, random)) for name, stems in made.items()}


def fresh(pairs):
    return probe.fresh_auc(pairs, steps=60, seconds=SECONDS, batch=4, width=8, lr=1e-3)


def test_a_fresh_discriminator_cannot_tell_two_halves_of_one_distribution():
    # The stems in another order: as likely as they are, with the same sum
    found = fresh(pairs(lambda stems, _: stems[[2, 0, 3, 1]]))
    assert list(found) == [f"track {k}" for k in range(4)]
    # 18 segments of a track and as many estimates: 4 sigma of one track's AUC are 0.39, of the mean of four 0.2
    assert np.mean(list(found.values())) == pytest.approx(0.5, abs=0.2)


def test_a_fresh_discriminator_tells_a_clear_difference_on_tracks_that_it_never_saw():
    found = fresh(pairs(lambda stems, _: stems.mean(0, keepdims=True).repeat(4, 0)))
    assert min(found.values()) > 0.95, "at any level"


def test_one_track_is_too_few_to_judge_by_another():
    with pytest.raises(UserError, match=r"1 track\(s\) cannot be split into 2 folds; evaluate more tracks\."):
        probe.fresh_auc(pairs(lambda stems, _: stems, tracks=1))


def test_a_track_shorter_than_a_segment_is_named():
    with pytest.raises(UserError, match="Track track 0 is shorter than a segment of 2.0 s; choose shorter segments"):
        probe.fresh_auc(pairs(lambda stems, _: stems), seconds=2.0)
