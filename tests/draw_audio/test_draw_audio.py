"""DRAW AUDIO in Python: its wave, notes and pages, and the wave in a song of the corpus."""

import subprocess
import sys

import numpy as np
import pytest
import traitlets
from scipy.signal import get_window

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.corpus.effects import loudness
from lib.corpus.track import compose
from lib.draw_audio import FILES, DrawAudio, module
from lib.draw_audio.render import ENVELOPE, band_limited, checked_wave, own_song, render_notes

SAW = (2 * np.arange(2048) / 2048 - 1).astype(np.float32)  # a jump: all harmonics that a cycle can hold


@pytest.mark.parametrize("key", [24, 69, 112])
def test_notes_have_no_aliases(key):
    frequency = 440 * 2 ** ((key - 69) / 12)
    steady = ENVELOPE | {"sustain": 1.0}
    note = render_notes(SAW, [(0.0, 1.5, key, 127)], 66_150, steady)[22_050:]
    spectrum = np.abs(np.fft.rfft(note * get_window("blackmanharris", len(note)))) + 1e-12
    hertz = np.fft.rfftfreq(len(note), 1 / 44_100)
    near = np.abs(hertz - np.round(hertz / frequency) * frequency) < 7  # the window's main lobe is 4 Hz to each side
    level = 20 * np.log10(spectrum / spectrum[np.abs(hertz - frequency) < 7].max())
    assert level[~near].max() < -60
    assert level[np.abs(hertz - 2 * frequency) < 7].max() == pytest.approx(
        -6, abs=0.9
    )  # a saw's second; the window's 0.83 dB


def test_a_cycle_keeps_the_harmonics_below_nyquist_and_no_offset():
    table = band_limited(SAW + 0.3, 5000)
    found = 2 * np.abs(np.fft.rfft(table)) / len(table)
    np.testing.assert_allclose(found[1:5], 2 * np.abs(np.fft.rfft(SAW))[1:5] / 2048, rtol=1e-5)
    assert found[0] < 1e-6 and found[5:].max() < 1e-6  # 5 x 5 kHz is beyond 22.05 kHz


def test_the_envelope_shapes_a_note():
    envelope = {"attack": 0.1, "decay": 0.2, "sustain": 0.5, "release": 0.3}
    sine = np.sin(2 * np.pi * np.arange(2048) / 2048)
    note = render_notes(sine, [(0.5, 1.0, 93, 127)], 2 * 44_100, envelope)
    peak = {t: np.abs(note[round(t * 44_100) :][:100]).max() for t in (0.3, 0.55, 0.6, 1.4, 1.79, 1.81)}  # four periods
    wanted = {0.3: 0, 0.55: 0.51, 0.6: 1, 1.4: 0.5, 1.79: 5e-4, 1.81: 0}  # -60 dB of 0.5 at 1.8 s, then nothing
    assert peak == pytest.approx(wanted, abs=0.02) and peak[1.79] > 0 and peak[1.81] == 0


def test_a_song_in_which_the_wave_plays_the_bass():
    own = own_song(SAW, "bass", k=1, seed=3, seconds=4.0)
    assert list(own) == ["drums", "bass", "other", "vocals"]
    assert all(audio.shape == (2, 4 * 44_100) and audio.dtype == np.float32 for audio in own.values())
    assert np.abs(sum(own.values())).max() <= 0.97 + 1e-6
    other = own_song(-np.cos(np.arange(2048) * np.pi / 1024), "bass", k=1, seed=3, seconds=4.0)
    scale = own["vocals"].std() / other["vocals"].std()  # each song is scaled so that it does not clip
    np.testing.assert_allclose(own["drums"], other["drums"] * scale, atol=1e-5)
    assert loudness(own["bass"]) == pytest.approx(loudness(other["bass"] * scale), abs=0.01)
    assert np.abs(own["bass"] - other["bass"] * scale).max() > 0.1  # another sound
    song, _ = compose("test", 3, 1, 4.0)
    [part] = [part for part in song.parts if part.stem == "bass"]
    played = render_notes(SAW, part.notes, 4 * 44_100)
    assert np.corrcoef(played, own["bass"][0])[0, 1] > 0.9999


@pytest.mark.parametrize("wave", [np.zeros(100), np.zeros((2048, 1)), np.full(2048, np.nan), ["a"] * 2048])
def test_what_is_no_wave_is_refused(wave):
    with pytest.raises(UserError, match="2048"):
        checked_wave(wave)
    with pytest.raises(UserError):
        render_notes(wave, [], 100)
    with pytest.raises(traitlets.TraitError):
        DrawAudio().wave = np.asarray(wave)


def test_only_bass_and_other_are_played():
    with pytest.raises(UserError, match="drums"):
        own_song(SAW, "drums")


def test_the_wave_travels_as_bytes():
    widget = DrawAudio()
    assert widget.get_state("wave")["wave"] == widget.wave.tobytes() and widget.wave[512] == 1
    widget.set_state({"wave": memoryview(SAW.tobytes())})
    assert np.array_equal(widget.wave, SAW) and widget.wave.dtype == np.float32
    widget.wave = SAW.astype(float) / 2
    assert widget.wave.dtype == np.float32


def test_one_module_and_one_page_that_load_nothing(tmp_path):
    assert "import" not in module().replace("important", "") and len(FILES) == len(
        list((ROOT / "lib/draw_audio").glob("*.js"))
    )
    subprocess.run([sys.executable, "-m", "lib.draw_audio", tmp_path / "page.html"], check=True, cwd=ROOT)
    page = (tmp_path / "page.html").read_text()
    assert module() in page and "http" not in page and "src=" not in page
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "lib.draw_audio", tmp_path / "file" / "page.html"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert answer.returncode and "Cannot write" in answer.stderr and "Traceback" not in answer.stderr
