"""The measure of separation on songs with stems, against values by hand."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from lib.common.errors import UserError
from lib.data.tracks import SOURCES
from lib.demucs import Demucs
from lib.evaluation import bsseval, songs
from lib.models.weights import save_weights

RATE = 44_100
# dB, of mixture ÷ 4 where n stems of equal energy sound, none correlated with another: the error of one has an energy
# of (3/4)² + (n − 1) (1/4)², where the stem has 1.
FLOOR = {n: 10 * np.log10(1 / (9 / 16 + (n - 1) / 16)) for n in (1, 2, 3, 4)}


def write_song(folder, sounding):
    """Write stems of equal energy, each in the seconds that `sounding` {stem: 0 or 1 for each second} says, as flac."""
    folder.mkdir(parents=True)
    time = np.arange(RATE) / RATE
    for number, stem in enumerate(SOURCES):
        second = 0.1 * np.sin(2 * np.pi * 100 * (number + 1) * time)  # whole periods, so uncorrelated over a second
        audio = np.concatenate([second * sounds for sounds in sounding[stem]])
        soundfile.write(folder / f"{stem}.flac", np.stack([audio, audio], 1), RATE, subtype="PCM_24")


@pytest.fixture
def folder(tmp_path):
    always = dict.fromkeys(SOURCES, (1, 1, 1))
    write_song(tmp_path / "A", always | {"bass": (0, 0, 1)})
    write_song(tmp_path / "B", always | {"bass": (0, 0, 0), "other": (1, 0, 0)})
    write_song(tmp_path / "C", always)
    return tmp_path


def test_sdr_of_each_second_and_none_where_the_stem_rests():
    level = 10 ** (np.array([-20, -20, -44.9, -45.1, -200, -20]) / 20)  # dB
    reference = np.tile(level.repeat(RATE), (2, 1))[:, : 6 * RATE - 1]  # the last second is not whole
    estimate = reference * np.array([1.1, 0.0, 1.1, 1.1, 1.1, 1.1]).repeat(RATE)[: 6 * RATE - 1]
    np.testing.assert_allclose(songs.sdr_of_seconds(reference, estimate), [20, 0, 20, np.nan, np.nan], atol=1e-9)
    np.testing.assert_allclose(songs.sdr_of_seconds(reference[:, :1000], estimate[:, :1000]), [20], atol=1e-9)
    assert songs.sdr_of_seconds(reference, reference)[0] == np.inf


def test_where_all_stems_sound_it_is_the_sdr_of_bsseval():
    random = np.random.RandomState(0)
    references, noise = random.randn(2, 4, 2, 3 * RATE)
    estimates = references + 0.3 * noise
    found = [songs.sdr_of_seconds(*pair) for pair in zip(references, estimates, strict=True)]
    sdr, *_ = bsseval.evaluate(references.transpose(0, 2, 1), estimates.transpose(0, 2, 1))
    np.testing.assert_allclose(found, sdr, rtol=1e-9)


def test_medians_are_over_the_seconds_in_which_a_stem_sounds(folder):
    scores = songs.measure(None, folder).set_index(["song", "stem"])  # the mixture ÷ 4 as estimates
    floors = {("A", "drums"): FLOOR[3], ("A", "bass"): FLOOR[4], ("B", "drums"): FLOOR[2], ("B", "other"): FLOOR[3]}
    for at, floor in floors.items():
        assert scores.loc[at, "sdr"] == scores.loc[at, "mixture"] == pytest.approx(floor, abs=1e-3)  # 16 bits
    assert np.isnan(scores.loc[("B", "bass"), "sdr"])
    assert scores["seconds"].tolist() == [3, 1, 3, 3, 3, 0, 1, 3, 3, 3, 3, 3]


def test_the_last_row_is_the_median_over_songs(folder):
    *_, last = songs.markdown(songs.measure(None, folder)).splitlines()
    # drums: 3, 2 and 4 stems sound in A, B and C; bass: 4 in A and C; other: 3, 3, 4; vocals: 3, 2, 4
    shown = [f"{FLOOR[n]:.2f} ({FLOOR[n]:.2f})" for n in (3, 4, 3, 3)]
    assert last == f"| **median over songs** | {' | '.join(shown)} |"


def test_the_command_scores_a_model_and_writes_its_table(folder, tmp_path_factory, capsys):
    place = tmp_path_factory.mktemp("out")
    torch.manual_seed(0)
    model = Demucs(channels=4, depth=2, lstm_layers=0)
    save_weights(model, place / "model.safetensors")
    file = place / "new" / "scores.csv"
    songs.main([str(folder), "--checkpoint", str(place / "model.safetensors"), "--csv", str(file)])
    written = pd.read_csv(file)
    expected = songs.measure(model, folder)
    pd.testing.assert_frame_equal(written, expected, rtol=0, atol=1e-3)
    assert not np.allclose(written["sdr"], written["mixture"], equal_nan=True)
    printed = capsys.readouterr().out
    assert songs.markdown(expected) in printed and "| rests |" in printed


def test_a_folder_without_songs_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no songs"):
            songs.measure(None, folder)
