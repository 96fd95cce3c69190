"""The D-probe, on signals for which the right answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from support import in_process

from lib.common.errors import UserError
from lib.data import tracks as data
from lib.demucs import Demucs, center_trim
from lib.evaluation import probe
from lib.models.weights import save_weights

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
    1/2) given their sum: no rule tells them from real stems, so a discriminator can only memorise them."""

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
    stems, estimates = probe.segments_of(tracks, Quarter(), 6, SECONDS)
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
        probe.segments_of(tuple(noise["train"]), IMITATOR, 11, SECONDS)


def cell(noise, generator=IMITATOR, **changes):
    base = dict(segments=3, error=1.0, width=8, seed=1, steps=30, passes=1, seconds=SECONDS, batch=4, lr=1e-3)
    return probe.cell(noise, generator, **(base | changes))


def test_memorisation_is_seen_where_there_is_nothing_else_to_learn(noise):
    found = cell(noise, steps=150)[-1]
    assert found["tpr_train"] == 1, "it knows every real patch that it has seen"
    # 40 segments of each kind with two overlapping patches: 4 sigma of the AUC of 40 + 40 is 0.26
    assert found["auc_heldout"] == pytest.approx(0.5, abs=0.26)
    assert found["tpr_heldout"] + found["tnr_heldout"] == pytest.approx(1, abs=0.45)  # 4 sigma, as above
    # All of the distance between real and generated is lost on others (4 sigma, as above)
    assert found["r_v_sigma"] + found["r_f"] == pytest.approx(1, abs=0.45)
    assert found["bce_heldout"] > np.log(2), "worse than a guess"


def test_each_pass_shows_every_segment_once_in_an_order_of_its_own():
    def passes(seed):
        shown = [k for batch in itertools.islice(probe.batches(9, 4, seed), 9) for k in batch]
        return [tuple(shown[k : k + 9]) for k in range(0, 36, 9)]

    assert all(sorted(part) == list(range(9)) for part in passes(1))
    assert len({*passes(1), *passes(2)}) == 8 and passes(1) == passes(1)


class Offset(Quarter):
    """The same, with a constant beside it: a difference that any segment shows."""

    def __call__(self, mixture):
        return super().__call__(mixture) + 1


def test_a_difference_that_all_segments_share_is_no_memory(noise):
    found = cell({"train": noise["valid"][:1], "valid": noise["valid"]}, generator=Offset(), segments=19)[-1]
    assert found["auc_heldout"] > 0.95 and abs(found["r_v_sigma"]) < 0.05 and abs(found["r_f"]) < 0.05


def test_of_a_generator_without_error_nothing_can_be_told(noise):
    found = cell(noise, error=0.0)[-1]
    assert found["auc_heldout"] == 0.5 and found["r_v_sigma"] is None
    assert found["tpr_heldout"] == 1 - found["tnr_heldout"]


def test_a_cell_logs_its_course_and_gives_the_same_again(noise):
    found = cell(noise, steps=60)
    assert [(row["step"], row["passes"]) for row in found] == [(step, step * 4 / 3) for step in (25, 50, 60)]
    assert list(found[0]) == [*probe.CELL, "sdr", "step", "passes", *probe.COLUMNS]
    assert [found[0][name] for name in probe.CELL] == [3, 1.0, 8, 1]
    torch.rand(3)
    assert cell(noise, steps=60) == found
    assert cell(noise, steps=60, seed=2) != found


def test_a_cell_trains_until_it_has_its_steps_and_its_passes(noise):
    assert cell(noise, steps=2, passes=20)[-1]["step"] == 15  # 20 passes over 3 segments, 4 a step


def test_half_the_error_is_six_decibels(noise):
    [whole], [half] = (cell(noise, steps=1, error=error) for error in (1.0, 0.5))
    # Of stems s, the imitator's estimates have the error s − estimate, of twice 3/4 of their power
    assert whole["sdr"] == pytest.approx(-10 * np.log10(1.5), abs=0.1)
    assert half["sdr"] - whole["sdr"] == pytest.approx(20 * np.log10(2), abs=1e-3)


@pytest.fixture
def weights(tmp_path):
    save_weights(Demucs(channels=2, depth=2, lstm_layers=0), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_cells_are_kept_until_what_they_depend_on_changes(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", in_process)
    train, trained = probe.cell, []
    monkeypatch.setattr(probe, "cell", lambda *a, **k: trained.append(k["seed"]) or train(*a, **k))

    def table(seeds, index=index, **changes):
        cells = [(4, error, 4, seed) for seed in seeds for error in (1.0, 0.4)]
        return probe.run(
            tmp_path / "map", index, weights, cells, **({"steps": 2, "passes": 1, "seconds": 0.1} | changes)
        )

    first = table([1])
    assert [*first.columns] == [*probe.CELL, "sdr", "step", "passes", *probe.COLUMNS, "machine", "commit"]
    assert first["error"].tolist() == [1.0, 0.4] and first["passes"].tolist() == [4, 4] and trained == [1, 1]
    both = table([2, 1])
    assert both["seed"].tolist() == [1, 1, 2, 2] and trained == [1, 1, 2, 2], "the first are kept"
    pd.testing.assert_frame_equal(table([2, 1]), both)
    assert len(trained) == 4
    assert len(table([1], steps=3)) == 2 and len(trained) == 6
    save_weights(Demucs(channels=3, depth=2, lstm_layers=0), weights)
    table([1], steps=3)
    assert len(trained) == 8, "other weights"
    sets, _ = data.read_index(index)
    data.write_index(tmp_path / "data.json", sets | {"valid": sets["valid"][:1]})
    table([1], tmp_path / "data.json", steps=3)
    assert len(trained) == 10, "other data"
    monkeypatch.setattr(probe, "VERSION", probe.VERSION + 1)
    table([1], tmp_path / "data.json", steps=3)
    assert len(trained) == 12, "another version"


def test_cells_of_other_settings_never_count_even_after_an_interruption(index, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "workers", in_process)
    cells, settings = [(4, 1.0, 4, 1)], {"seconds": 0.1, "passes": 1}
    before = probe.run(tmp_path, index, weights, cells, steps=2, **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(probe, "cell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        probe.run(tmp_path, index, weights, cells, steps=8, **settings)
    assert not probe.run(tmp_path, index, weights, cells, steps=8, **settings).equals(before)


@pytest.mark.parametrize("name", ["segments", "error", "width", "steps", "passes", "seconds", "batch", "lr"])
def test_a_value_out_of_range_is_refused_before_any_step(index, weights, tmp_path, name):
    place = {"segments": 0, "error": 1, "width": 2}
    cell = [0 if place.get(name) == k else value for k, value in enumerate((4, 1.0, 4, 1))]
    with pytest.raises(UserError, match=f"{name} = 0 must be above 0"):
        probe.run(tmp_path / "map", index, weights, [tuple(cell)], **({} if name in place else {name: 0}))
    assert not (tmp_path / "map").exists()


def test_too_many_segments_are_refused_before_any_step(index, weights, tmp_path):
    with pytest.raises(UserError, match="fewer than 4000; ask for fewer"):
        probe.run(tmp_path / "map", index, weights, [(4, 1.0, 4, 1), (4000, 1.0, 4, 1)], seconds=0.1)
    assert not (tmp_path / "map").exists()
