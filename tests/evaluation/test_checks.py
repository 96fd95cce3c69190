"""Known errors are what they are called, and a measure that ranks them wrongly is found."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.evaluation import bsseval, checks, measures
from lib.evaluation.measures import MEASURES
from lib.evaluation.results import METRICS, PRIMARY_DETAIL

RATE = 44_100


class Song:
    """Two seconds of a track: rumbling stems but for hissing drums; the vocals rest."""

    name, sources, samples = "Song", ("drums", "bass", "other", "vocals"), 2 * RATE

    def stems(self):
        random = np.random.RandomState(0)
        hiss = 0.1 * random.randn(4, 2, 2 * RATE)
        hiss[1:] = checks.low_pass(np.cumsum(hiss[1:], axis=-1) * 0.02)
        hiss[3] = 0
        return hiss.astype(np.float32)

    def mixture(self):
        return self.stems().sum(0)


def test_errors_are_what_they_are_called():
    stems = Song().stems()
    found = checks.degraded(stems, stems.sum(0))
    assert list(found) == ["truth", "noise", "low_passed", "mixture"]
    error = np.square(found["noise"] - stems).sum((1, 2))[:3] / np.square(stems).sum((1, 2))[:3]
    np.testing.assert_allclose(10 * np.log10(error), -30, atol=0.05)
    spectrum = np.abs(np.fft.rfft(found["low_passed"][0]))
    assert spectrum[:, 2 * 8_100 :].max() < 1e-3 * spectrum.max()
    np.testing.assert_allclose(found["mixture"][2], stems.sum(0) / 4, atol=1e-6)


def test_cells_count_where_the_low_pass_is_the_larger_error(monkeypatch):
    monkeypatch.setattr(bsseval, "TAPS", 64)  # at 512, the sines of these stems cost seconds
    rows = checks.cells([Song()])
    assert set(rows["target"]) == {"drums", "bass", "other"} and len(rows) == 12  # what rests is left out
    assert rows.groupby("target")["counts"].all().to_dict() == {"drums": True, "bass": False, "other": False}
    drums = rows[rows["target"] == "drums"].set_index("estimate")
    assert drums.loc["noise", "uSDR"] == pytest.approx(30, abs=0.1)
    # white noise loses (22.05 - 8) / 22.05 of its energy
    assert drums.loc["low_passed", "uSDR"] == pytest.approx(-10 * np.log10(14.05 / 22.05), abs=0.1)
    assert drums[PRIMARY_DETAIL].is_monotonic_increasing


def test_a_measure_passes_by_its_order_and_a_low_band_without_the_low_pass():
    good = dict(zip(checks.ESTIMATES, (0, 1, 2, 3), strict=True))
    rows = []
    for track in range(5):
        for name, error in good.items():
            value = error if track else 3 - error  # one of five is the other way round: the median holds
            row = {"track": track, "target": "drums", "estimate": name} | dict.fromkeys(METRICS, -value)
            row |= {measure: -value if column.higher else value for measure, column in MEASURES.items()}
            row |= {"lsd_2k_8k": 0 if name == "low_passed" else value, "high_band_ratio": -value}
            row["mrstft"] = {"truth": 0, "noise": 2, "low_passed": 1, "mixture": 3}[name]
            rows.append(row)
    table = checks.verdicts(pd.DataFrame(rows)).set_index("measure")
    assert (
        list(table.index[~table["passes"]]) == ["mrstft"] and table.loc["mrstft", "wrong"] == "low_passed before noise"
    )
    assert table.loc["SDR", ["truth", "noise", "low_passed", "mixture"]].tolist() == [0, -1, -2, -3]


def test_few_tracks_are_refused():
    with pytest.raises(UserError, match="at least 8"):
        checks.check([Song()])


def test_the_file_is_kept_while_it_is_current(tmp_path, monkeypatch):
    path, made = tmp_path / "checks.csv", []
    table = pd.DataFrame({"measure": ["SDR"], "truth": [1.0], "passes": [True], "wrong": [""]})
    monkeypatch.setattr(checks, "check", lambda tracks: made.append(len(tracks)) or table)
    tracks = [SimpleNamespace(name=f"T{k}", source=str(k)) for k in range(10)]
    for _ in range(2):
        pd.testing.assert_frame_equal(checks.update(tracks, path), table)
    assert made == [8]
    monkeypatch.setattr(measures, "VERSION", measures.VERSION + 1)
    checks.update(tracks, path)
    assert made == [8, 8] and checks.update(tracks[:7], path).empty
