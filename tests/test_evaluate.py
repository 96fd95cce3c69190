"""Scores of a test set, in museval's files."""

import json
import os

import museval
import numpy as np
import pytest
import torch

from lib import data, evaluate
from lib.demucs import Demucs, save_weights
from lib.errors import UserError
from lib.results import read_museval


@pytest.fixture(scope="module")
def scored(index, tmp_path_factory):
    """The mixture scored on the two test tracks, by each metric."""
    tracks = data.read_index(index)[0]["test"]
    root = tmp_path_factory.mktemp("mixture") / "eval"
    for metric in evaluate.METRICS:
        evaluate.evaluate_set(tracks, root / metric, metric=metric)
    return tracks, root


def test_files_are_those_that_museval_writes(scored):
    tracks, root = scored
    track = tracks[0]
    references = track.stems().transpose(0, 2, 1).astype(np.float64)
    estimates = np.broadcast_to(track.mixture().T / 4, references.shape)
    store = museval.TrackStore(track.name)
    for name, *rows in zip(data.SOURCES, *museval.evaluate(references, estimates), strict=True):
        store.add_target(name, dict(zip(("SDR", "ISR", "SIR", "SAR"), rows, strict=True)))
    theirs, ours = json.loads(store.json), json.loads((root / "museval" / f"{track.name}.json").read_text())
    for target, wanted in zip(ours["targets"], theirs["targets"], strict=True):
        assert target["name"] == wanted["name"]
        for frame, other in zip(target["frames"], wanted["frames"], strict=True):
            assert (frame["time"], frame["duration"]) == (other["time"], other["duration"])
            for metric, value in other["metrics"].items():
                assert frame["metrics"][metric] == pytest.approx(value, abs=1.1e-5, nan_ok=True)  # five decimals


def test_both_metrics_give_the_same_figures(scored):
    _, root = scored
    fast, slow = (read_museval(root / metric).set_index(["track", "target"]) for metric in ("fast", "museval"))
    # dB; the mixture lies in the span of the stems, so its SAR (above 100 dB) is rounding noise in both
    np.testing.assert_allclose(np.minimum(fast, 100), np.minimum(slow, 100), atol=1e-3)


def test_a_finished_track_is_skipped_and_other_weights_are_not(index, tmp_path):
    tracks, folder = data.read_index(index)[0]["test"], tmp_path / "l1-1" / "eval" / "test"
    torch.manual_seed(0)
    save_weights(Demucs(channels=4, depth=2, lstm_layers=0), tmp_path / "a.safetensors")
    save_weights(Demucs(channels=4, depth=2, lstm_layers=0), tmp_path / "b.safetensors")
    first, second = (folder / f"{track.name}.json" for track in tracks)
    evaluate.evaluate_set(tracks, folder, weights=tmp_path / "a.safetensors")
    os.utime(first, ns=(1, 1))
    second.unlink()
    evaluate.evaluate_set(tracks, folder, weights=tmp_path / "a.safetensors")
    assert first.stat().st_mtime_ns == 1 and second.exists()
    before = first.read_text()
    evaluate.evaluate_set(tracks, folder, weights=tmp_path / "b.safetensors")
    assert first.read_text() != before
    about = json.loads((folder / "about.json").read_text())
    assert about["tracks"] == [track.name for track in tracks] and about["metric"] == "fast"


def test_a_good_estimate_scores_higher(scored):
    tracks, _ = scored
    stems = tracks[0].stems()
    noisy = stems + 0.01 * np.random.RandomState(0).randn(*stems.shape).astype(np.float32)
    mixed = np.broadcast_to(stems.mean(0), stems.shape)
    assert np.nanmedian(evaluate.score(stems, noisy)[0]) > np.nanmedian(evaluate.score(stems, mixed)[0])


def test_unknown_metric_and_empty_set_are_refused(index, tmp_path):
    tracks = data.read_index(index)[0]["test"]
    with pytest.raises(UserError, match="fast, museval"):
        evaluate.evaluate_set(tracks, tmp_path, metric="guess")
    with pytest.raises(UserError, match="no track"):
        evaluate.evaluate_set([], tmp_path)
