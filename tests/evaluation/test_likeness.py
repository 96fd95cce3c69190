"""The measures of likeness, against stems whose properties are known."""

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import likeness

RATE = 44_100
TIME = np.arange(4 * RATE) / RATE


def stereo(mono):
    return np.stack([mono, mono])


def test_a_sine_has_the_properties_of_a_sine():
    sine = stereo(0.5 * np.sin(2 * np.pi * 1000 * TIME))
    quiet = sine * np.repeat([1, 0, 0, 0.1], RATE)
    found = likeness.measure(quiet, sine, 2 * quiet)
    assert found["crest factor"] == pytest.approx(20 * np.log10(np.sqrt(2)), abs=0.01)
    assert found["spread of levels"] == pytest.approx(10, abs=0.01)  # two seconds, 20 dB apart
    assert found["silence"] == 50
    assert found["level"] == pytest.approx(-6.02, abs=0.01)
    assert found["width"] == -120  # mono
    bands = {float(key.split()[0]): value for key, value in found.items() if key.endswith("Hz")}
    assert bands[max(bands, key=bands.get)] > -3 and 890 < max(bands, key=bands.get) < 1123


def test_onsets_are_counted():
    noise = np.random.RandomState(0).randn(len(TIME))
    hits = stereo(noise * np.exp(-(TIME % 0.5) / 0.05))
    assert likeness.measure(hits, hits, hits)["onsets"] == pytest.approx(2, abs=0.3)  # two per second
    assert likeness.measure(0.1 * stereo(noise), hits, hits)["onsets"] < 0.5


def test_what_never_sounds_has_no_properties():
    found = likeness.measure(np.zeros((2, len(TIME))), stereo(TIME), stereo(TIME))
    assert found["silence"] == 100 and np.isnan(found["crest factor"])


def test_table_and_file(tmp_path, capsys):
    random = np.random.RandomState(0)
    stems = (3000 * random.randn(4, 2, 2 * RATE)).astype(np.int16)
    np.save(tmp_path / "A - B.npy", np.stack([stems.sum(0).astype(np.int16), *stems]))
    likeness.main([f"songs={tmp_path}", "--csv", str(tmp_path / "likeness.csv")])
    table = pd.read_csv(tmp_path / "likeness.csv")
    assert list(table) == ["set", "song", "stem", "measure", "value", "unit"]
    assert set(table["stem"]) == {"drums", "bass", "other", "vocals"} and set(table["set"]) == {"songs"}
    assert (tmp_path / "likeness.json").exists() and "crest factor" in capsys.readouterr().out
