"""Scores of a test set in museval's files, and the files beside them."""

import dataclasses
import json
import os

import museval
import numpy as np
import pytest
import torch
from support import in_process

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.data import tracks as data
from lib.demucs import Demucs
from lib.evaluation import bsseval, measures
from lib.evaluation import score as evaluate
from lib.evaluation.results import measured, read_museval
from lib.models.weights import save_weights


@pytest.fixture
def here(monkeypatch):
    """Tracks are scored in this process, with short filters: at 512 taps, the sines of these stems cost seconds.

    `scored` uses the real pool and the real filters.
    """
    monkeypatch.setattr(evaluate, "processes", in_process)
    monkeypatch.setattr(bsseval, "TAPS", 64)


@pytest.fixture(scope="module")
def scored(index, tmp_path_factory):
    """The mixture scored: both test tracks fast, the first by museval; and museval's (arguments, options, answer)."""
    tracks = data.read_index(index)[0]["test"]
    root, asked, judge = tmp_path_factory.mktemp("mixture") / "eval", [], museval.evaluate

    def watched(*arguments, **options):
        asked.append((arguments, options, judge(*arguments, **options)))
        return asked[-1][-1]

    evaluate.evaluate_set(tracks, root / "fast")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "processes", in_process)
        patch.setattr(museval, "evaluate", watched)
        evaluate.evaluate_set(tracks[:1], root / "museval", metric="museval")
    return tracks, root, asked


def test_files_are_those_that_museval_writes(scored):
    tracks, root, [(arguments, options, answer)] = scored
    track = tracks[0]
    references = track.stems().transpose(0, 2, 1)
    np.testing.assert_array_equal(arguments, [references, np.broadcast_to(track.mixture().T / 4, references.shape)])
    assert arguments[0].dtype == np.float64 and options == {"win": 44_100, "hop": 44_100}
    store = museval.TrackStore(track.name)
    for name, *rows in zip(data.SOURCES, *answer, strict=True):
        store.add_target(name, dict(zip(("SDR", "ISR", "SIR", "SAR"), rows, strict=True)))
    theirs, ours = json.loads(store.json), json.loads((root / "museval" / "tracks" / f"{track.name}.json").read_text())
    for target, wanted in zip(ours["targets"], theirs["targets"], strict=True):
        assert target["name"] == wanted["name"]
        for frame, other in zip(target["frames"], wanted["frames"], strict=True):
            assert (frame["time"], frame["duration"]) == (other["time"], other["duration"])
            for metric, value in other["metrics"].items():
                assert frame["metrics"][metric] == pytest.approx(value, abs=1.1e-5, nan_ok=True)  # five decimals


def test_both_metrics_give_the_same_scores(scored):
    tracks, root, _ = scored
    fast, slow = (read_museval(root / metric).set_index(["track", "target"]) for metric in ("fast", "museval"))
    assert len(fast) == 2 * len(slow) == 2 * 4
    fast = fast.loc[[tracks[0].name]]
    # dB; the mixture lies in the span of the stems, so its SAR (above 100 dB) is rounding noise in both
    np.testing.assert_allclose(np.minimum(fast, 100), np.minimum(slow, 100), atol=1e-3)


def weights(folder, name):
    """A tiny generator's file; each call draws other weights."""
    save_weights(Demucs(channels=4, depth=2, lstm_layers=0), folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def test_a_finished_track_is_skipped_and_other_weights_are_not(index, tmp_path, here):
    tracks, folder = data.read_index(index)[0]["test"], tmp_path / "l1-1" / "eval" / "test"
    torch.manual_seed(0)
    a, b = weights(tmp_path, "a"), weights(tmp_path, "b")
    (first, first_detail), (second, second_detail) = (
        (folder / "tracks" / f"{track.name}.json", folder / "spectral" / f"{track.name}.json") for track in tracks
    )
    evaluate.evaluate_set(tracks, folder, weights=a)
    os.utime(first, ns=(1, 1))
    os.utime(second_detail, ns=(1, 1))
    first_detail.unlink()  # as after an interruption
    second.unlink()
    evaluate.evaluate_set(tracks, folder, weights=a)
    assert first.stat().st_mtime_ns == second_detail.stat().st_mtime_ns == 1
    assert first_detail.exists() and second.exists()
    before = first.read_text(), first_detail.read_text()
    evaluate.evaluate_set(tracks, folder, weights=b)
    assert first.read_text() != before[0] and first_detail.read_text() != before[1]
    about = json.loads((folder / "about.json").read_text())
    assert about["tracks"] == [track.name for track in tracks] and about["metric"] == "fast"


def test_other_shifts_or_other_audio_are_scored_anew(index, tmp_path, monkeypatch, here):
    tracks, scored = data.read_index(index)[0]["test"], []

    def evaluate_track(job):
        scored.append(job[0].name)
        for file in job[1:3]:
            write_json(file, {})

    monkeypatch.setattr(evaluate, "_evaluate_track", evaluate_track)
    changed = [tracks[0], dataclasses.replace(tracks[1], source="another file of this name")]
    first, other, museval_too = {}, {"shifts": 1}, {"shifts": 1, "metric": "museval"}
    for these, how in ((tracks, first), (tracks, first), (tracks, other), (changed, other), (changed, museval_too)):
        evaluate.evaluate_set(these, tmp_path, **how)
    assert scored == [track.name for track in tracks] * 4  # all but the second time, where nothing has changed


def test_a_ratio_without_error_is_written_as_museval_does():
    text = evaluate.museval_json(*np.full((4, 4, 1), np.inf))
    assert "Infinity" not in text and np.isnan(json.loads(text)["targets"][0]["frames"][0]["metrics"]["SDR"])


def test_measures_of_the_mixture_stand_beside_every_track(scored):
    tracks, root, _ = scored
    for track in tracks:
        written = json.loads((root / "fast" / "spectral" / f"{track.name}.json").read_text())
        assert list(written) == list(data.SOURCES)
        stems, mixture = track.stems(), track.mixture()
        expected = measures.measure(stems, np.repeat(mixture[None] / 4, 4, axis=0), mixture)
        for values, row in zip(written.values(), expected, strict=True):
            assert values == pytest.approx(row, abs=1.1e-5, nan_ok=True)  # five decimals


@pytest.mark.parametrize("metric", evaluate.METRICS)
def test_a_stem_that_never_sounds_has_no_score_and_no_part_in_the_others(index, metric):
    stems = data.read_index(index)[0]["test"][0].stems()[..., :88_200].copy()
    estimates = np.repeat(stems.sum(0)[None] / 4, 4, axis=0)
    stems[1] = 0
    found = np.array(evaluate.score(stems, estimates, metric))
    assert np.isnan(found[:, 1]).all() and found.shape == (4, 4, 2)
    kept = [0, 2, 3]
    np.testing.assert_array_equal(found[:, kept], evaluate.score(stems[kept], estimates[kept], metric))


def test_a_good_estimate_scores_higher(index):
    stems = data.read_index(index)[0]["test"][0].stems()
    noisy = stems + 0.01 * np.random.RandomState(0).randn(*stems.shape).astype(np.float32)
    mixed = np.broadcast_to(stems.mean(0), stems.shape)
    assert np.nanmedian(evaluate.score(stems, noisy)[0]) > np.nanmedian(evaluate.score(stems, mixed)[0])


def test_unknown_metric_and_empty_set_are_refused(index, tmp_path):
    tracks = data.read_index(index)[0]["test"]
    with pytest.raises(UserError, match="fast, museval"):
        evaluate.evaluate_set(tracks, tmp_path, metric="guess")
    with pytest.raises(UserError, match="no track"):
        evaluate.evaluate_set([], tmp_path)


def test_a_track_may_have_any_name(index, tmp_path, here):
    tracks = [dataclasses.replace(track, name=name) for track, name in zip(
        data.read_index(index)[0]["test"], ("about", "detectability"), strict=True)]  # fmt: skip
    evaluate.evaluate_set(tracks, tmp_path / "mixture" / "eval" / "test")
    assert set(measured(tmp_path)["track"]) == {"about", "detectability"}


@pytest.mark.parametrize("module, kind", [(bsseval, "tracks"), (measures, "spectral")])
def test_results_of_another_version_are_refused_and_computed_again(index, tmp_path, monkeypatch, here, module, kind):
    tracks, folder = data.read_index(index)[0]["test"][:1], tmp_path / "mixture" / "eval" / "test"
    monkeypatch.setattr(measures, "VERSION", 1)
    evaluate.evaluate_set(tracks, folder)
    files = {kind: folder / kind / f"{tracks[0].name}.json" for kind in ("tracks", "spectral")}

    def again():
        """The kinds of files that are computed again."""
        for file in files.values():
            os.utime(file, ns=(1, 1))
        evaluate.evaluate_set(tracks, folder)
        return [kind for kind, file in files.items() if file.stat().st_mtime_ns != 1]

    about = read_json(folder / "about.json")
    write_json(folder / "about.json", {name: value for name, value in about.items() if "version" not in name})
    assert again() == [] and len(measured(tmp_path)) == 4, "a result without a version is of version 1"
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(UserError, match="about.json is of another version .*; run the notebook 03-sdr-table"):
        measured(tmp_path)
    assert again() == [kind] and len(measured(tmp_path)) == 4
