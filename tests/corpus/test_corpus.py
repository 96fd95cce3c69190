"""The embedded corpus: reproducible bytes, exact sums, a layout that musdb reads, instruments and voices in tune."""

import json
import shutil
import types

import musdb
import numpy as np
import pytest
import soundfile

from lib.common.errors import UserError
from lib.corpus import default_soundfont, effects, generate, render, soundfont, sounds, styles, track, voice
from lib.corpus.notes import Grid, hits
from lib.data.decode import decode, read_track
from lib.data.musdb import list_musdb, list_tracks

SMALL = {"train": 3, "valid": 1, "test": 2, "shifted": 1, "seconds": 6.0, "seed": 5}
SOURCES = ("drums", "bass", "other", "vocals")


def contents(root):
    """{relative path: bytes} of every file under `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def tracks(root):
    return sorted(path.parent for path in root.rglob("mixture.wav"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("corpus") / "one", workers=1, **SMALL)


@pytest.mark.whole
def test_same_bytes_for_any_number_of_workers(corpus, tmp_path):
    assert contents(generate(tmp_path / "two", workers=2, **SMALL)) == contents(corpus)


def test_song_depends_only_on_seed_split_and_number(corpus, tmp_path):
    few = SMALL | {"train": 0, "valid": 0, "test": 1, "shifted": 0}
    (alone,) = tracks(generate(tmp_path / "few", **few))
    assert contents(alone) == contents(corpus / "test" / alone.name)
    (other,) = tracks(generate(tmp_path / "other", **(few | {"seed": 6})))
    assert (other / "mixture.wav").read_bytes() != (alone / "mixture.wav").read_bytes()


def test_mixture_is_the_exact_sum_and_nothing_clips(corpus):
    assert len(tracks(corpus)) == 7
    for folder in tracks(corpus):
        audio = {}
        for stem in ("mixture", *SOURCES):
            info = soundfile.info(folder / f"{stem}.wav")
            assert (info.samplerate, info.channels, info.subtype, info.frames) == (44_100, 2, "PCM_16", 264_600)
            audio[stem] = soundfile.read(folder / f"{stem}.wav", dtype="int16")[0].astype(int)
            assert np.abs(audio[stem]).max() < 32_767  # never the ends of the range
            assert abs(audio[stem].mean()) < 66, "an offset above -54 dB"
        assert np.array_equal(audio["mixture"], sum(audio[stem] for stem in SOURCES))


def test_every_stem_sounds_in_most_of_a_track(corpus):
    for folder in tracks(corpus):
        for stem in SOURCES:
            audio, rate = soundfile.read(folder / f"{stem}.wav")
            blocks = (audio[: len(audio) // rate * rate] ** 2).reshape(-1, rate * 2).mean(axis=1)
            assert (blocks > 1e-6).mean() >= 0.5, f"{stem} of {folder.name} is below -60 dB in most seconds"


def test_musdb_reads_train_valid_test_and_shifted(corpus):
    def names(root, setup="musdb.yaml", **choice):
        return [t.name for t in musdb.DB(str(root), setup_file=setup, is_wav=True, **choice)]

    train, valid = (names(corpus, subsets="train", split=split) for split in ("train", "valid"))
    assert (len(train), len(valid), len(names(corpus, subsets="test"))) == (3, 1, 2)
    assert not set(train) & set(valid)
    shifted = musdb.DB(str(corpus / "shifted"), setup_file="musdb.yaml", is_wav=True, subsets="test")
    assert len(shifted) == 1
    audio = shifted[0].audio
    assert audio.shape == (264_600, 2)
    assert np.allclose(audio, shifted[0].stems[1:].sum(axis=0), atol=1e-4)  # as musdb reads the stems


def test_resumes_where_it_stopped(corpus, tmp_path):
    root = tmp_path / "half"
    shutil.copytree(corpus, root)
    before = contents(root)
    (root / "corpus.json").rename(root / "corpus.partial.json")  # as after an interruption
    (root / "musdb.yaml").unlink()
    lost, *kept = tracks(root)
    shutil.rmtree(lost)
    (root / ".partial" / "train-0").mkdir(parents=True)
    (root / ".partial" / "train-0" / "drums.wav").write_bytes(b"half a file")
    times = {path: path.stat().st_mtime_ns for folder in kept for path in folder.iterdir()}
    generate(root, workers=1, **SMALL)
    assert contents(root) == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items()), "a finished track was rendered again"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("corpus") / "arrays", workers=2, arrays=True, **SMALL)


def test_arrays_hold_what_the_wav_files_hold_and_are_not_copied(corpus, arrays, tmp_path):
    for folder in ("", "shifted"):
        (wav, composed) = (list_musdb(root / folder) for root in (corpus, arrays))
        assert {part: list(found) for part, found in wav.items()} == {part: list(f) for part, f in composed.items()}
        for part, found in composed.items():
            for name, file in found.items():
                np.testing.assert_array_equal(read_track(file)[0], read_track(wav[part][name])[0])
    (copied,), (kept,) = (
        decode(dict(list(list_tracks(root / "test").items())[:1]), tmp_path / root.name) for root in (corpus, arrays)
    )
    assert (kept.name, kept.samples, kept.mean, kept.std) == (copied.name, copied.samples, copied.mean, copied.std)
    assert kept.path == str(arrays / "test" / f"{kept.name}.npy") and not list((tmp_path / "arrays").glob("*.npy"))
    np.testing.assert_array_equal(kept.audio(), copied.audio())


def test_interrupted_arrays_resume_and_another_form_is_refused(arrays, tmp_path):
    root = tmp_path / "half"
    shutil.copytree(arrays, root)
    before = contents(root)
    (root / "corpus.json").rename(root / "corpus.partial.json")  # as after an interruption
    lost, *kept = sorted(root.rglob("*.npy"))
    lost.unlink()
    (root / ".partial").mkdir()
    (root / ".partial" / "train-0").write_bytes(b"half an array")
    times = {path: path.stat().st_mtime_ns for path in kept}
    with pytest.raises(UserError, match="arrays True instead of None"):
        generate(root, **SMALL)
    generate(root, workers=1, arrays=True, **SMALL)
    assert contents(root) == before and {path: path.stat().st_mtime_ns for path in kept} == times
    with pytest.raises(UserError, match="arrays True instead of None"):
        generate(root, **SMALL)


def test_the_disk_that_is_needed_is_said_before_and_must_be_there(corpus, tmp_path, monkeypatch, capsys):
    def room(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))

    needed = sum(path.stat().st_size - 44 for path in corpus.rglob("*.wav"))  # without their headers
    room(needed - 1)
    with pytest.raises(UserError, match="needs 0.04 GB for 7 tracks, but 0.04 GB are free"):
        generate(tmp_path / "large", **SMALL)
    assert not (tmp_path / "large").exists()
    room(needed)
    monkeypatch.setattr("lib.corpus.processes", lambda *_: pytest.fail("composing"))
    with pytest.raises(pytest.fail.Exception):
        generate(tmp_path / "large", **SMALL)
    assert "large will take 0.04 GB for 7 tracks.\n" in capsys.readouterr().out


def test_finished_corpus_returns_at_once_and_refuses_other_parameters(corpus, monkeypatch):
    monkeypatch.setattr("lib.corpus.processes", lambda *_: pytest.fail("rendered again"))
    assert generate(corpus, **SMALL) == corpus
    with pytest.raises(UserError, match="seed 5 instead of 6"):
        generate(corpus, **(SMALL | {"seed": 6}))
    with pytest.raises(UserError, match="seconds 6.0 instead of 7.0"):
        generate(corpus, **(SMALL | {"seconds": 7}))
    assert json.loads((corpus / "corpus.json").read_text())["train"] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": -1},
        {"seconds": 1},
        {"seed": -1},
        {"soundfont": "nowhere.sf2"},
        {"train": 0, "valid": 0, "test": 0, "shifted": 0},
    ],
)
def test_impossible_parameters_are_refused(tmp_path, wrong):
    with pytest.raises(UserError):
        generate(tmp_path / "never", **(SMALL | wrong))
    assert not (tmp_path / "never").exists()


def test_a_failing_worker_is_reported_and_nothing_is_called_finished(tmp_path):
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(b"no SoundFont")
    with pytest.raises(UserError, match="could not be made"):
        generate(tmp_path / "root", soundfont=broken, **SMALL)
    assert not (tmp_path / "root" / "corpus.json").exists()


def test_splits_share_no_singer_no_style_and_no_song():
    def songs(split, count):
        return [track.plan(split, 5, k) for k in range(count)]

    singers = {split: {singer["name"] for _, singer in songs(split, 60)} for split in track.SPLITS}
    assert singers["test"].isdisjoint(singers["train"] | singers["valid"])
    assert singers["shifted"].isdisjoint(singers["train"] | singers["valid"] | singers["test"])
    assert singers["valid"].isdisjoint(singers["train"])
    voices = {split: {singer["voice"] for _, singer in songs(split, 60)} for split in track.SPLITS}
    assert voices["train"].isdisjoint(voices["test"] | voices["shifted"])  # other speakers, not only other formants
    assert (
        len({singer["name"] for _, singer in songs("train", 24)}) == 24
    )  # 3 speakers × 8 pairs of formant factors, each once before any repeats
    assert len(singers["test"]) == 12
    assert {style for style, _ in songs("shifted", 60)} == set(styles.HELD_OUT)
    assert {style for style, _ in songs("train", 60)} == set(styles.FAMILIAR)
    melodies = [
        tuple(key for _, _, key, _ in track.compose(split, 5, k, 12.0)[0].lines[0][1])
        for split in track.SPLITS
        for k in range(8)
    ]
    assert len(set(melodies)) == len(melodies)
    assert len({track.name(split, 5, k) for split in track.SPLITS for k in range(200)}) == 200 * len(track.SPLITS)


def test_held_out_tracks_are_other_songs_by_the_singers_of_training(tmp_path):
    for k in (0, 17, 40):
        same = track.plan("train", 5, k)
        assert track.plan("heldout-a", 5, k) == track.plan("heldout-b", 5, k) == same
        draws = [track.compose(split, 5, k, 4.0)[0].sounds.draws for split in ("train", *track.HELD_OUT)]
        assert np.array_equal(draws[0], draws[1]) and np.array_equal(draws[0], draws[2])  # kits, presets and rooms
    one = {"train": 0, "valid": 0, "test": 0, "shifted": 0, "heldout": 1, "seconds": 4.0, "seed": 5, "arrays": True}
    root = generate(tmp_path / "held out", **one)
    songs = [list_musdb(root / split)["test"] for split in ("heldout-a", "heldout-b")]
    assert [len(found) for found in songs] == [1, 1] and not songs[0].keys() & songs[1].keys()


def test_test_and_shifted_tracks_have_sounds_that_training_never_hears():
    font, heard, rooms = soundfont.load(default_soundfont()), {}, {}
    for split in track.SPLITS:
        songs = [track.compose(split, 5, k, 8.0)[0] for k in range(len(styles.STYLES))]
        programs = {p.source for song in songs for p in song.parts if isinstance(p.source, int)}
        heard[split] = {zone[soundfont.SAMPLE] for program in programs for zone in font.preset(program, False)}
        heard[split] |= {("preset", p.preset) for song in songs for p in song.parts}
        rooms[split] = {song.sounds.preset(place) for song in songs for place in (41, 42, 43, 44)}
    unheard = heard["test"] | heard["shifted"]
    assert unheard.isdisjoint(set().union(*(heard[split] for split in ("train", "valid", *track.HELD_OUT))))
    assert (rooms["test"] | rooms["shifted"]).isdisjoint(rooms["train"] | rooms["valid"])
    song, _ = track.compose("test", 5, 0, 4.0)
    kit = [part for part in song.parts if part.stem == "drums"]
    render.drums(song, kit, None, 4 * 44_100, np.random.RandomState(0))  # synthesised, without a SoundFont


def test_every_program_of_the_styles_belongs_to_one_side():
    options = {
        program
        for style in styles.STYLES.values()
        for programs in (style["bass_programs"], *(layer[1] for layer in style["layers"] + styles.DENSE))
        for program in programs
        if isinstance(program, int)
    }
    assert options <= sounds.TWINS.keys() | sounds.SEEN.keys()
    assert not sounds.TWINS.keys() & sounds.SEEN.keys()


def test_shifted_songs_are_denser():
    def density(split):
        songs = [track.compose(split, 5, k, 15.0)[0] for k in range(12)]
        lengths = [sum(note[1] for p in song.parts if p.stem == "other" for note in p.notes) for song in songs]
        return np.mean(lengths) / 15, np.mean([len(song.parts) + len(song.lines) for song in songs])

    (notes, parts), (more_notes, more_parts) = density("test"), density("shifted")
    assert more_notes > 1.5 * notes and more_parts > parts + 2  # notes that sound at once; instruments and voices


@pytest.mark.parametrize("split", ["train", "test", "shifted"])
def test_all_stems_sound_together_in_a_quarter_of_the_bars(split):
    for k in range(30):
        style, singer = track.plan(split, 5, k)
        song = track.Composer(
            style, 15.0, singer["centre"], track.generator(5, split, k), sounds.Sounds(False, np.random)
        )
        sounding = [{bar for bar, *_ in song.sounding(stem)} for stem in SOURCES]
        assert len(set.intersection(*sounding)) >= 0.25 * song.bars


@pytest.mark.parametrize("style", styles.STYLES)
def test_every_style_gives_every_stem_notes(style):
    for number, seconds in enumerate((4.0, 6.0, 20.0, 60.0)):
        random = np.random.RandomState(number)
        song = track.Composer(style, seconds, 58, random, sounds.Sounds(number % 2, random), number == 3).song()
        assert {part.stem for part in song.parts} == {"drums", "bass", "other"}
        assert len(song.lines[0][1]) >= 2
        for notes in [part.notes for part in song.parts] + [notes for _, notes, _ in song.lines]:
            assert all(
                0 <= start < seconds and length > 0 and 0 <= key <= 127 and 1 <= velocity <= 127
                for start, length, key, velocity in notes
            )


def test_swing_delays_the_off_beat_and_a_dash_prolongs_the_note():
    grid = Grid({"tempo": (60, 60)}, np.random.RandomState(0))
    grid.sway = (0.0, 1.0, 0.0)
    grid.swing = (0.5, 0.0)  # the off-beat at 0.75 of a beat of one second
    assert [grid.seconds(step) for step in (0, 2, 4, 6)] == pytest.approx([0, 0.75, 1, 1.75])
    assert list(hits("x--.o-X", 6)) == [(0, 3, "x"), (4, 2, "o")]


def steady_pitch(sound, expected):
    """Fundamental frequency in cents relative to `expected` hertz, from the phase advance of the first harmonic."""
    hop, window = 441, np.hanning(4410)
    frames = np.lib.stride_tricks.sliding_window_view(sound, 4410)[::hop] * window
    phase = np.angle(frames @ np.exp(-2j * np.pi * expected * np.arange(4410) / 44_100))
    turns = np.diff(np.unwrap(phase)) - 2 * np.pi * expected * hop / 44_100
    turns = (turns + np.pi) % (2 * np.pi) - np.pi
    return 1200 * np.log2(1 + turns.mean() * 44_100 / (2 * np.pi * hop) / expected)


@pytest.mark.parametrize("number", range(4))
def test_singer_is_in_tune(number):
    random = np.random.RandomState(number)
    singer = voice.singer(random, range(4), ((1.0, 1.0),), number) | {"depth": 0.0, "drift": 0.0}
    words = voice.lyrics(random, singer["voice"], 3)
    notes = [
        (0.3, 1.2, singer["centre"], 100),
        (1.7, 1.2, singer["centre"] + 4, 100),
        (3.1, 1.2, singer["centre"] - 3, 100),
    ]
    sound = voice.sing(notes, words, singer, random, 4 * 44_100 + 22_050)
    again = voice.sing(notes, words, singer, np.random.RandomState(9), 4 * 44_100 + 22_050)
    assert not np.array_equal(sound, again), "another random stream must sound different"
    for start, length, key, _ in notes:
        steady = sound[int((start + 0.35 * length) * 44_100) : int((start + 0.75 * length) * 44_100)]
        assert abs(steady_pitch(steady, 440 * 2 ** ((key - 69) / 12))) < 10  # cents, the just noticeable difference


@pytest.mark.parametrize(("program", "key"), [(0, 60), (24, 52), (30, 64), (33, 33), (65, 70), (80, 76)])
def test_instruments_are_in_tune_and_end(program, key):
    font = soundfont.load(default_soundfont())
    sound = soundfont.play(font, program, [(0.1, 1.0, key, 100)], 132_300)
    frequency = 440 * 2 ** ((key - 69) / 12)
    assert abs(steady_pitch(sound.mean(axis=0)[13_230:39_690], frequency)) < 10  # cents
    assert np.abs(sound).max() > 0.02
    assert np.abs(sound[:, 110_000:]).max() < 0.01 * np.abs(sound).max(), "still sounding 1.4 s after its end"


@pytest.mark.parametrize("samples", [3, 64, 65, 44_117])
def test_a_gain_is_interpolated_to_the_bit_as_numpy_does(samples):
    gain = np.random.RandomState(0).rand(-(-samples // 64)).astype(np.float32)
    expected = np.interp(np.arange(samples), np.arange(len(gain)) * 64 + 32, gain).astype(np.float32)
    assert np.array_equal(effects.curve(gain, samples), expected)


def test_a_chorus_is_interpolated_to_the_bit_as_numpy_does():
    sound, time = np.random.RandomState(0).randn(2, 22_050).astype(np.float32), np.arange(22_050)
    random = np.random.RandomState(1)
    for side, found in enumerate(effects.chorus(sound, np.random.RandomState(1))):
        rate, phase = random.uniform(0.3, 1.2), random.uniform(0, 6)
        place = time - 44_100 * (0.0015 * (1.6 + np.sin(2 * np.pi * rate * time / 44_100 + phase)))
        expected = 0.75 * sound[side] + 0.6 * np.interp(place, time, sound[side])
        assert np.array_equal(found, expected.astype(np.float32))


def test_vocals_are_deterministic():
    takes = []
    for _ in range(2):
        song, singer = track.compose("train", 5, 0, 5.0)
        takes.append(render.vocals(song, singer, 5 * 44_100, np.random.RandomState(1)))
    assert np.array_equal(*takes)


def test_default_soundfont_is_found_without_importing_pretty_midi():
    assert default_soundfont().stat().st_size > 5e6  # TimGM6mb has 6 MB
