"""The bundled generator: the mean of trainings, calibrated on songs that they never heard."""

import json

import numpy as np
import pytest
import torch
from support import synthetic_stems, tiny, train, write_flac

from lib.common.errors import UserError
from lib.data.tracks import SAMPLERATE, SOURCES, read_index
from lib.demucs import Demucs
from lib.evaluation import bundle, calibrate
from lib.models.weights import load_weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = Demucs(channels=4, depth=3, lstm_layers=1).eval()
    network.stems = SOURCES
    return network


def test_a_folded_matrix_combines_the_estimates(model):
    matrix, mixture = np.random.RandomState(0).randn(4, 4), torch.randn(2, 2, model.valid_length(5000))
    with torch.no_grad():
        wanted = torch.einsum("bect,es->bsct", model(mixture), torch.from_numpy(matrix).float())
        calibrate.fold(model, matrix)
        torch.testing.assert_close(model(mixture), wanted, rtol=1e-4, atol=1e-5)


def test_no_other_combination_errs_less_and_a_calibrated_generator_errs_as_little(pretrained, index, monkeypatch):
    monkeypatch.setattr(calibrate, "QUIET", -60)  # these drums are at -50 dB
    model, tracks = load_weights(pretrained / "model.safetensors"), read_index(index)[0]["test"]

    def error(matrix):
        """Of all seconds of all stems, in which each of them sounds: squared errors over energies of the mixture."""
        total = 0
        for track in tracks:
            size = track.samples // SAMPLERATE * SAMPLERATE
            mixture, stems = track.mixture()[:, :size], track.stems()[..., :size]
            found = calibrate.estimate(model, track.mixture(), shifts=0)[..., :size]
            squares = [
                np.square(x.reshape(len(x), 2, -1, SAMPLERATE), dtype=float).sum((1, 3))
                for x in (np.einsum("ect,es->sct", found, matrix) - stems, mixture[None], stems)
            ]
            assert squares[2].min() > 1e-6 * 2 * SAMPLERATE
            total += (squares[0] / squares[1]).sum()
        return total

    matrix = calibrate.fit(model, tracks)
    best, random = error(matrix), np.random.RandomState(1)
    assert best < error(np.eye(4))
    for _ in range(4):
        assert best < error(matrix + 0.05 * np.abs(matrix).mean() * random.randn(4, 4))
    calibrate.fold(model, matrix)
    assert error(np.eye(4)) == pytest.approx(best, rel=1e-3)


def test_the_bundle_is_the_mean_of_its_trainings_and_says_where_it_comes_from(index, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "QUIET", -60)
    for seed in (1, 2):
        train(tiny(index, steps=2, seed=seed, channels=2, depth=3), tmp_path / f"l1-{seed}")
    write_flac(tmp_path / "songs" / "A", synthetic_stems(3))
    out, arms = tmp_path / "out", [str(tmp_path / f"l1-{seed}") for seed in (1, 2)]
    rest = ["--songs", str(tmp_path / "songs"), "--out", str(out)]
    bundle.main([*arms, *rest])
    one, two = (load_weights(f"{arm}/model.safetensors").state_dict() for arm in arms)
    for name, value in load_weights(out / "corpus.safetensors").state_dict().items():
        assert torch.equal(value, ((one[name] + two[name]) / 2).half().float())
    bundle.main([*arms, *rest, "--calibrate", str(index)])
    note = json.loads((out / "corpus.json").read_text())
    assert list(note["mean of"]) == arms and note["mean of"][arms[1]]["config"]["seed"] == 2
    assert np.shape(note["calibrated on"]["matrix"]) == (4, 4) and set(note["songs"]["A"]) == {*SOURCES}
    train(tiny(index, steps=2, channels=4, depth=3), tmp_path / "l1-3")
    with pytest.raises(UserError, match=r"l1-3 holds another network than .*l1-1"):
        bundle.main([*arms, str(tmp_path / "l1-3"), *rest])


def test_what_cannot_be_calibrated_says_so(pretrained, index):
    tracks = read_index(index)[0]["test"]
    with pytest.raises(UserError, match="No test song has a second in which drums sounds"):
        calibrate.fit(load_weights(pretrained / "model.safetensors"), tracks)
    for changes in ({"projection": True}, {"upsample": True}):
        with pytest.raises(UserError, match="can be calibrated"):
            calibrate.check_foldable(Demucs(channels=2, depth=2, **changes))
