"""The detectability of estimates by a fresh discriminator."""

import numpy as np
import pytest
import torch
from support import in_process

from lib.common.errors import UserError
from lib.data import tracks as data
from lib.demucs import Demucs
from lib.evaluation import bsseval, detectability, score
from lib.evaluation.results import measured
from lib.evaluation.score import evaluate_set
from lib.gan import Adversary
from lib.models.weights import load_weights, save_weights
from lib.separate import separate

SECONDS = 0.1


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"SEGMENT": SECONDS, "STEPS": 60, "BATCH": 4, "WIDTH": 8, "LR": 1e-3}.items():
        monkeypatch.setattr(detectability, name, value)


def pairs(change, tracks=4):
    """Tracks of noise of 1.8 s, and what `change` makes of them."""
    random = np.random.RandomState(0)
    made = {f"track {k}": random.randn(4, 2, 80_000).astype(np.float32) * 10.0**-k for k in range(tracks)}
    return {name: (stems, change(stems, random)) for name, stems in made.items()}


def fresh(pairs):
    return detectability.fresh_auc(pairs)


def test_a_fresh_discriminator_cannot_tell_two_halves_of_one_distribution():
    # The stems in another order: as likely as they are, with the same sum
    found = fresh(pairs(lambda stems, _: stems[[2, 0, 3, 1]]))
    assert list(found) == [f"track {k}" for k in range(4)]
    # 18 segments of a track and as many estimates: 4 sigma of one track's AUC are 0.39, of the mean of four 0.2
    assert np.mean(list(found.values())) == pytest.approx(0.5, abs=0.2)


def test_a_fresh_discriminator_tells_a_clear_difference_on_tracks_that_it_never_saw():
    found = fresh(pairs(lambda stems, _: stems.mean(0, keepdims=True).repeat(4, 0)))
    assert min(found.values()) > 0.95, "at any level"


def test_a_fresh_discriminator_is_trained_on_every_segment_of_the_other_tracks_and_on_none_that_it_judges(monkeypatch):
    made = pairs(lambda stems, random: stems + random.randn(*stems.shape).astype(np.float32), tracks=5)
    shown, judged = {}, {}  # {adversary: segments}, real and generated
    monkeypatch.setattr(
        Adversary,
        "inputs",
        lambda adversary, _, *parts: shown.setdefault(adversary, set()).update(
            x.numpy().tobytes() for p in parts for x in p
        ),
    )
    monkeypatch.setattr(Adversary, "discriminator_step", lambda *_: None)
    logits = Adversary.logits
    monkeypatch.setattr(
        Adversary,
        "logits",
        lambda adversary, stems, estimates, index: (
            judged.setdefault(adversary, set()).update(p[0].numpy().tobytes() for p in (stems, estimates))
            or logits(adversary, stems, estimates, index)
        ),
    )
    fresh(made)
    every = {
        x.contiguous().numpy().tobytes() for pair in made.values() for p in detectability._segments(*pair) for x in p
    }
    assert len(every) == 5 * 18 * 2 and len(shown) == 2, "18 segments a track, of two kinds; two folds"
    assert shown.keys() == judged.keys()
    for adversary in shown:
        assert adversary.p == 0.5, "with joint augmentation"
        assert not shown[adversary] & judged[adversary]
        assert shown[adversary] | judged[adversary] == every, "60 batches of 4 show each of at most 54 segments"
    assert set.union(*judged.values()) == every, "each track is judged once"


def test_one_track_is_too_few_to_judge_by_another():
    with pytest.raises(UserError, match=r"fresh discriminator: 1, fewer than its 2 folds; evaluate more\."):
        fresh(pairs(lambda stems, _: stems, tracks=1))


def test_a_track_shorter_than_a_segment_is_named(monkeypatch):
    monkeypatch.setattr(detectability, "SEGMENT", 2.0)
    with pytest.raises(UserError, match="Track track 0 is shorter than a segment of 2.0 s; choose shorter segments"):
        fresh(pairs(lambda stems, _: stems))


def weights(folder, name):
    """A tiny generator's file; each call draws other weights."""
    save_weights(Demucs(channels=4, depth=2, lstm_layers=0), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def _detect(tracks, folder, **options):
    for job in detectability.pending(tracks, folder, **options):
        job.work()


def test_a_fresh_discriminator_is_asked_once_per_weights(index, tmp_path, monkeypatch):
    tracks, calls = data.read_index(index)[0]["test"], []

    def fresh_auc(pairs, names):
        calls.append({name: (stems.copy(), np.array(estimates)) for name, (stems, estimates) in pairs.items()})
        return {name: 0.75 + 0.1 * k for k, name in enumerate(pairs)}

    monkeypatch.setattr(detectability, "fresh_auc", fresh_auc)
    monkeypatch.setattr(score, "processes", in_process)
    monkeypatch.setattr(bsseval, "TAPS", 64)  # at 512 taps, these stems cost seconds
    folder = tmp_path / "run" / "l1-1" / "eval" / "test"
    mixture = tmp_path / "run" / "mixture" / "eval" / "test"
    torch.manual_seed(0)
    a, b = weights(tmp_path, "a"), weights(tmp_path, "b")
    for _ in range(2):
        _detect(tracks, folder, weights=a)
    assert len(calls) == 1 and list(calls[0]) == [track.name for track in tracks]
    stems, estimates = calls[0][tracks[0].name]
    np.testing.assert_array_equal(stems, tracks[0].stems())
    np.testing.assert_allclose(estimates, separate(load_weights(a), tracks[0].mixture()), atol=1e-6)
    _detect(tracks, folder, weights=b)
    with monkeypatch.context() as patch:
        patch.setattr(detectability, "SECONDS", 1.0)
        _detect(tracks, mixture)
    assert len(calls) == 3
    middle = (tracks[0].samples - data.SAMPLERATE) // 2
    expected = tracks[0].mixture()[:, middle : middle + data.SAMPLERATE] / 4
    np.testing.assert_allclose(calls[2][tracks[0].name][1], np.broadcast_to(expected, (4, *expected.shape)))

    evaluate_set(tracks, folder, weights=b)  # finds no file of its own and keeps the discriminator's
    with monkeypatch.context() as patch:
        patch.setattr(detectability, "VERSION", detectability.VERSION + 1)
        with pytest.raises(
            UserError, match="detectability.json is of another version .*; run the notebook 03-sdr-table"
        ):
            measured(tmp_path / "run")
        _detect(tracks, folder, weights=b)
        assert len(calls) == 4, "another version"
    _detect(tracks, folder, weights=b)
    assert len(calls) == 5
    table = measured(tmp_path / "run")
    assert table.groupby("track")["auc_fresh"].unique().map(list).to_dict() == {
        track.name: [pytest.approx(0.75 + 0.1 * k)] for k, track in enumerate(tracks)
    }
    assert len(table) == 2 * 4 and table[["SDR", "lsd_8k_16k", "mrstft"]].notna().all().all()
    evaluate_set(tracks, folder, weights=a)
    assert not (folder / "detectability.json").exists()  # it was of other weights
    _detect(tracks[:1], folder, weights=a)
    assert len(calls) == 5 and not (folder / "detectability.json").exists()
