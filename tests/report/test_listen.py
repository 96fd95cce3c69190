"""The excerpts, players, figures, sentences and controls of 05-listen and 06-explore, with untrained separators."""

import base64
import io
import json
import re
import types

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from support import RATE, SOURCES

from lib.common.errors import UserError
from lib.data.tracks import read_index
from lib.demucs import Demucs
from lib.evaluation.score import museval_json
from lib.models.weights import load_weights, save_weights
from lib.report import explore, listen
from lib.report.audio import players
from lib.report.figures.listen import differences, high_band, spectrograms
from lib.report.sentences.listen import detail, summary
from lib.separate import separate


@pytest.fixture(scope="module")
def run(index, tmp_path_factory):
    """A run of two arms with small untrained weights, one test track scored; "gan" has two seeds."""
    run = tmp_path_factory.mktemp("listen")
    (run / "data.json").write_text(index.read_text())
    track = read_index(index)[0]["test"][0]
    for seed, name in enumerate(("gan-10", "gan-9", "l1-9")):
        torch.manual_seed(seed)
        (run / name / "eval" / "test" / "tracks").mkdir(parents=True)
        save_weights(Demucs(channels=4, depth=3, lstm_layers=1), run / name / "model.safetensors")
        (run / name / "config.json").write_text('{"config": {}, "finished": true}')
        measures = np.full((4, 4, 4), 3.0 if name == "l1-9" else 5.0)  # four measures of four stems in four seconds
        (run / name / "eval" / "test" / "tracks" / f"{track.name}.json").write_text(museval_json(*measures))
    lines = [{"step": 2, "adversarial_share": None}, {"step": 4, "adversarial_share": 0.2, "adversarial_weight": 0.05}]
    (run / "gan-9" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "l1-9" / "metrics.jsonl").write_text('{"step": 4}\n')
    return run


@pytest.fixture(scope="module")
def part(run):
    return listen.excerpt(run, listen.pick_track(run, 0), 1.0, 1.5)


def bytes_of(html):
    return [base64.b64decode(text) for text in re.findall(r"data:audio/ogg;base64,([^\"]+)", html)]


# --- excerpts ---


def test_an_excerpt_is_cut_from_the_whole_tracks_estimate(run, part):
    track = listen.pick_track(run, 0)
    assert list(part.estimates) == ["l1", "gan"] and part.seconds == (1.0, 2.5)
    cut = slice(RATE, RATE + round(1.5 * RATE))
    whole = separate(load_weights(run / "gan-9" / "model.safetensors"), track.mixture()).numpy()  # 9 is before 10
    np.testing.assert_array_equal(part.estimates["gan"]["bass"], whole[1][:, cut])
    np.testing.assert_allclose(sum(part.references.values()), part.mixture, atol=1e-6)
    again = part.references["drums"] + part.residual("l1", "drums")
    np.testing.assert_allclose(again, part.estimates["l1"]["drums"], atol=1e-7)  # float32 near 1


def test_the_excerpt_begins_where_all_stems_sound():
    stems = np.random.RandomState(0).randn(4, 2, 10 * RATE).astype(np.float32)
    stems[2] *= 0.001  # faint throughout
    stems[1, :, : 5 * RATE], stems[3, :, 8 * RATE :] = 0, 0
    begin = listen.liveliest(stems, 2 * RATE) / RATE
    assert 4.75 <= begin <= 6.25  # all four sound from 5 s to 8 s; a quarter lasts half a second
    assert listen.liveliest(stems, 20 * RATE) == 0


def test_tracks_and_scores_that_are_not_there_are_named(run):
    with pytest.raises(UserError, match="no test track 2: this run has 2"):
        listen.pick_track(run, 2)
    with pytest.raises(UserError, match="l1-9 has no score on Band 11"):
        listen.scores(run, listen.pick_track(run, 1))
    table = listen.scores(run, listen.pick_track(run, 0))
    assert len(table) == 2 * 4 * 4  # arms, stems, seconds
    assert table.groupby("arm")["SDR"].median().to_dict() == {"l1": 3.0, "gan": 5.0}


def test_only_the_arms_that_are_asked_for_are_heard(run, tmp_path):
    assert listen.heard_arms(run, ["gan"]) == {"gan": "gan-9"} and list(listen.heard_arms(run)) == ["l1", "gan"]
    assert set(listen.scores(run, listen.pick_track(run, 0), ["gan"])["arm"]) == {"gan"}
    soundfile.write(tmp_path / "song.wav", np.zeros(RATE), RATE)
    assert list(listen.separate_song(run, str(tmp_path / "song.wav"), 0.0, 0.2, ["gan"])) == ["your song", "L1 + GAN"]
    with pytest.raises(UserError, match="listen_arms .*'frozen'.*is unknown; choose one of l1, gan"):
        listen.heard_arms(run, ["frozen"])


def test_a_song_of_another_rate_is_separated_in_part(run, tmp_path):
    sound = 0.3 * np.sin(np.arange(3 * 48_000) / 30)
    soundfile.write(tmp_path / "song.wav", sound, 48_000)
    rows = listen.separate_song(run, str(tmp_path / "song.wav"), 1.0, 1.0)
    assert list(rows) == ["your song", "L1", "L1 + GAN"] and list(rows["L1"]) == list(SOURCES)
    assert rows["your song"]["mixture"].shape == rows["L1"]["drums"].shape == (2, RATE)
    with pytest.raises(UserError, match="lasts 3.0 s; choose a song_start before 7 s"):
        listen.separate_song(run, str(tmp_path / "song.wav"), 7.0, 1.0)


# --- detail and sentences ---


def test_a_tone_at_a_quarter_of_the_rate_is_measured_and_named():
    noise = 0.1 * np.random.RandomState(0).randn(2, 3 * RATE)
    sine = 0.1 * np.sin(np.pi / 2 * np.arange(3 * RATE))
    # Welch over 63 half-overlapping windows: its bins scatter by 1 dB or so; a sine of power 0.005 against 0.01 of
    # noise in 2049 bins of 10.8 Hz stands out by about 10 log10(0.5 · 2049 / 1.5) = 28 dB.
    assert listen.tone(noise) < 3 and 25 < listen.tone(noise + sine) < 31
    table = pd.DataFrame(
        {"lsd_8k_16k": [9.0, 8.0], "high_band_ratio": [-6.0, -5.95], "tone": [1.0, 16.0]}, index=["l1", "gan"]
    )
    text = detail(table, "drums")
    assert "stem of drums in this excerpt: no single arm in energy and L1 + GAN in spectrum." in text
    assert "that the true stem does not have, in L1 + GAN." in text
    assert "stride 4" not in detail(table.assign(tone=0), "drums")
    assert "stride 4" not in detail(table.assign(tone=-20), "drums")
    bright = table.assign(high_band_ratio=[-6.0, 2.0])
    assert "stem of drums in this excerpt: L1 + GAN in energy and" in detail(
        bright, "drums"
    )  # 2 dB off, not the lowest
    assert "no detail to restore" in detail(table * np.nan, "drums")


def test_the_summary_follows_the_scores():
    rows = []
    for arm, lift in (("l1", 0.0), ("gan", 1.0)):
        for second, sdr in enumerate((5.0, -2.0, 6.0)):
            values = {"SDR": sdr + lift, "ISR": 9.0, "SIR": 3.0 - 2 * lift, "SAR": 7.0 + lift / 20}
            rows.append({"arm": arm, "target": "vocals", "second": float(second)} | values)
    table = pd.DataFrame(rows)
    silent = table.assign(target="bass", SIR=np.nan)
    said = "with L1, the largest part of the error is leakage in vocals."
    assert summary(table) == summary(pd.concat([table, silent])) == said
    assert summary(silent) == "no stem has a score"


# --- players and figures ---


def test_players_hold_each_sound_once_under_an_escaped_name():
    sound = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE) * np.ones((2, 1))
    html = players({"<script>": {"a & b": sound, "quiet": sound / 100}}, RATE, seconds=1.5).data
    assert "&lt;script&gt;" in html and "a &amp; b" in html and html.count("<script>") == 1
    loud, quiet = (soundfile.read(io.BytesIO(content))[0] for content in bytes_of(html))
    assert loud.shape == (72_000, 2)  # 1.5 s at Opus' 48 kHz
    assert np.abs(np.fft.rfft(loud[:48_000, 0])).argmax() == 1000  # Hz, of one second
    assert 30 < 20 * np.log10(loud.std() / quiet.std()) < 50  # levels are kept: 40 dB apart


def test_a_perfect_estimate_differs_nowhere_and_shares_the_scale(part):
    perfect = listen.Excerpt(part.name, part.begin, part.mixture, part.references, {"l1": part.references})
    figure = differences(perfect, ["drums", "vocals"])
    meshes = [axis.collections[0] for axis in figure.axes[:2]]
    assert all(np.abs(mesh.get_array()).max() == 0 for mesh in meshes)
    figure = spectrograms(part, ["drums", "vocals"])
    images = [axis.collections[0] for axis in figure.axes[:6]]
    assert {image.get_clim() for image in images} == {(-70, 0)}
    for row in (images[:3], images[3:]):  # one scale per row: the loudest point of the row is 0 dB
        assert max(image.get_array().max() for image in row) == pytest.approx(0, abs=1e-6)


def test_the_high_band_is_enlarged_above_its_values(part):
    table = listen.detail(part, "drums")
    assert list(table.index) == ["l1", "gan"] and {"lsd_8k_16k", "high_band_ratio", "tone"} <= set(table)
    figure = high_band(part, "drums", table)
    for arm, axis in zip(table.index, figure.axes[4:], strict=True):
        assert f"log-spectral distance {table.loc[arm, 'lsd_8k_16k']:.1f} dB" in axis.get_xlabel()
        low, high = axis.get_ylim()
        assert 7_900 < low < 8_100 and 15_900 < high < 16_100


# --- controls ---


@pytest.fixture
def shown(monkeypatch):
    """All that the controls display."""
    things = []
    monkeypatch.setattr(explore, "display", things.append)
    return things


def test_controls_show_what_was_chosen(run, shown):
    controls = explore.separation(run, 1.0, audible=True)
    assert [child.description for child in controls.children[:-2]] == ["track", "arm", "stem", "from second"]
    shown.clear()  # the first values
    controls.f(track=1, arm="gan", stem="bass", start=0.5)
    assert "Band 11 - Song, bass, L1 + GAN" in shown[0].data and len(bytes_of(shown[0].data)) == 4
    axis = shown[1].axes[0]
    assert "True stem" in (axis.get_title(), axis.get_title("left"))  # the theme, once it is set, moves titles
    shown.clear()
    explore.separation(run, 1.0, audible=False)
    assert len(shown) == 1  # the figure, without players


def test_without_a_user_the_first_values_and_their_result_are_displayed(run, shown, monkeypatch):
    kernel = types.SimpleNamespace(_allow_stdin=False)  # as papermill's client sets it
    monkeypatch.setattr(explore, "get_ipython", lambda: types.SimpleNamespace(kernel=kernel))
    assert explore.augmentation(run, 1.0, audible=False) is None
    explore.greeting()
    assert shown.pop().data.startswith("A web page cannot run the controls")
    assert "stem: <b>vocals</b> · p: <b>0.3</b> · first draw: <b>0</b>" in shown[0].data and len(shown) == 3
    kernel._allow_stdin = True
    shown.clear()
    assert len(explore.augmentation(run, 1.0, audible=False).children) == 5
    explore.greeting()
    assert "web page" not in shown.pop().data


def test_controls_say_that_they_work_and_formulas_follow_the_drag(run, shown):
    words = []
    controls = explore.controls(lambda x: words.append(line.value), x=explore.slider("x", 1, 0, 3, 1))
    line = controls.children[-2]
    controls.f(x=2)
    assert words == ["working …"] and line.value == ""
    sliders = explore.gradient_share(run).children[:2]
    assert all(slider.continuous_update for slider in sliders)
    heavy = explore.separation(run, 1.0, audible=False).children[3]
    assert not heavy.continuous_update


def test_what_is_said_of_an_empty_page_is_not_said_to_a_user(run, shown, monkeypatch):
    wave = np.sin(2 * np.pi * np.arange(2048) / 2048).astype(np.float32)
    drawing = types.SimpleNamespace(wave=wave, envelope={"attack": 0.01, "decay": 0.4, "sustain": 0.7, "release": 0.3})

    def said():
        shown.clear()
        explore.drawn(run, drawing, 2.0)
        return any("Nobody drew" in getattr(thing, "data", "") for thing in shown if hasattr(thing, "data"))

    assert not said()
    kernel = types.SimpleNamespace(_allow_stdin=False)
    monkeypatch.setattr(explore, "get_ipython", lambda: types.SimpleNamespace(kernel=kernel))
    assert said()


def test_augmentation_grows_with_p_and_says_so(run, shown):
    sound = np.random.RandomState(0).randn(2, 4410).astype(np.float32)
    np.testing.assert_array_equal(explore.augmented(sound, 0.0, 3), sound)
    assert not np.allclose(explore.augmented(sound, 1.0, 3), sound, atol=0.1)
    assert explore.chances(0.5) == (
        "With p = 0.5, 4.0 of 8 operators act on an excerpt on average, and 0% of the excerpts stay unchanged."
    )
    controls = explore.augmentation(run, 1.0, audible=True)
    shown.clear()
    controls.f(stem="drums", p=0.5, draw=2)
    assert len(bytes_of(shown[0].data)) == 4 and "draw 4" in shown[0].data


def test_lambda_and_share_are_two_names_of_one_balance(run, shown):
    ratio = explore.gradient_ratio(listen_metrics := pd.DataFrame(
        {"step": [2, 4], "adversarial_share": [np.nan, 0.2], "adversarial_weight": [np.nan, 0.05]}
    ))  # fmt: skip
    assert explore.share_of(ratio, 1 / 0.05) == pytest.approx(0.2)  # what was logged
    weight = 0.3 / 0.7 / ratio  # so that weight × ratio : 1 is 0.3 : 0.7
    assert explore.share_of(ratio, 1 / weight) == pytest.approx(0.3)
    assert explore.gradient_ratio(listen_metrics[:1]) is None and explore.gradient_ratio(pd.DataFrame()) is None
    controls = explore.gradient_share(run)
    shown.clear()
    controls.f(λ=20.0, share=0.5)
    # the ratio is 5: λ = 20 gives 5 / 25, and a share of 0.5 needs λ = 5
    assert "- gan-9: λ = 20 gives the discriminator a share of 0.20; a share of 0.50 needs λ = 5." in shown[1].data
    assert "no generator has been trained" in explore.pull({}, 100, 0.1)


def test_a_drawn_wave_joins_a_song_and_is_separated(run, shown):
    wave = np.sign(np.sin(2 * np.pi * np.arange(2048) / 2048)).astype(np.float32)
    drawing = types.SimpleNamespace(wave=wave, envelope={"attack": 0.01, "decay": 0.4, "sustain": 0.7, "release": 0.3})
    controls = explore.drawn(run, drawing, 2.0)
    shown.clear()
    controls.f(stem="bass")
    assert len(bytes_of(shown[0].data)) == 4  # mixture, the sound alone, two arms
    assert "your sound alone" in shown[0].data and len(shown[1].axes) == 4  # three panels and their scale
