"""The command that separates: its options, on real files."""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from support import RATE, SOURCES, synthetic_stems

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data.songs import Song
from lib.demucs import Demucs
from lib.models.weights import save_weights
from lib.separate import names
from lib.separate.__main__ import _parser, main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights of an untrained generator, whose estimates do not add up to the mixture."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(Demucs(channels=4, depth=3, lstm_layers=0), path)
    return str(path)


@pytest.fixture
def separate(model, tmp_path):
    """Runs the command in this process, with stems in tmp_path / "out"; returns its exit status."""
    return lambda *words: main([*map(str, words), "-n", model, "-o", str(tmp_path / "out")])


def write(path, seconds=0.2, rate=RATE, channels=2, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    mixture = synthetic_stems(seed, seconds).sum(0, dtype=np.int16)[:, :channels]
    soundfile.write(path, mixture, rate, **options)
    return path


def read(folder, stems=SOURCES, ext="wav", **options):
    """(stems, samples, channels)"""
    return np.stack([soundfile.read(folder / f"{stem}.{ext}", always_2d=True, **options)[0] for stem in stems])


def test_two_stems_are_one_and_the_sum_of_the_rest(separate, tmp_path):
    song = write(tmp_path / "song.wav")
    assert separate(song, "--bits", "float") == 0
    four = read(tmp_path / "out/song")
    shutil.rmtree(tmp_path / "out")
    assert separate(song, "--bits", "float", "--two-stems", "vocals") == 0
    assert sorted(path.name for path in (tmp_path / "out/song").iterdir()) == ["no_vocals.wav", "vocals.wav"]
    vocals, rest = read(tmp_path / "out/song", ("vocals", "no_vocals"))
    np.testing.assert_array_equal(vocals, four[3])
    np.testing.assert_allclose(rest, four[:3].sum(0), rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize(("kind", "bits"), [("wav", 16), ("flac", 16), ("wav", 24), ("flac", 24)])
@pytest.mark.parametrize(
    ("rate", "channels", "two"), [(44_100, 2, []), (48_000, 1, []), (96_000, 2, ["--two-stems", "bass"])]
)
def test_stems_add_up_to_the_song_exactly(separate, tmp_path, kind, bits, rate, channels, two):
    """Of a song of 24 bits: to it at 24 bits, to it rounded at 16."""
    random = np.random.RandomState(0)
    samples = random.randint(-(2**22), 2**22, (5001, channels)).astype(np.int32)
    soundfile.write(tmp_path / "song.flac", samples << 8, rate, subtype="PCM_24")
    assert separate(tmp_path / "song.flac", "--format", kind, "--bits", bits, "--sum-to-song", *two) == 0
    stems = ("bass", "no_bass") if two else SOURCES
    integers = read(tmp_path / "out/song", stems, kind, dtype="int32") >> (32 - bits)
    np.testing.assert_array_equal(integers.sum(0), np.rint(samples / 2 ** (24 - bits)).astype(int))
    assert (integers != integers[:1]).any(), "not shares of the song alone"


def test_floats_add_up_to_the_song_to_their_rounding(separate, tmp_path):
    song = write(tmp_path / "song.wav", rate=48_000)
    assert separate(song, "--bits", "float", "--sum-to-song") == 0
    mixture = soundfile.read(song)[0]
    np.testing.assert_allclose(read(tmp_path / "out/song").sum(0), mixture, rtol=0, atol=1e-7)


def test_stems_that_would_clip_add_up_to_a_quieter_song(separate, tmp_path, capsys):
    random = np.random.RandomState(0)
    soundfile.write(tmp_path / "song.wav", random.uniform(-4, 4, (5000, 2)), RATE, subtype="FLOAT")
    assert separate(tmp_path / "song.wav", "--bits", "16", "--sum-to-song") == 0
    quieter = float(re.search(r"are (\S+) dB quieter .*; so is their sum;", capsys.readouterr().out)[1])
    mixture = soundfile.read(tmp_path / "song.wav")[0] * 10 ** (-quieter / 20)
    found = read(tmp_path / "out/song").sum(0)
    assert quieter > 1 and np.abs(found).max() > 0.5
    np.testing.assert_allclose(found, mixture, rtol=0.02, atol=2**-14)  # the line says the factor with two digits


@pytest.mark.parametrize(("bits", "exact"), itertools.product(("16", "24"), (False, True)))
def test_exact_rounding_never_leaves_the_range(bits, exact):
    from lib.separate.stems import Form, _encode, _gain

    peak, random = 1.7, np.random.RandomState(0)
    stems = random.uniform(-peak, peak, (20_000, 4, 1))
    stems[0], stems[1] = peak, -peak
    rows = np.concatenate([stems, stems.sum(1, keepdims=True)], axis=1) if exact else stems
    form, step = Form("wav", bits), 2.0 ** (1 - int(bits))
    gain = _gain(peak, form, exact)
    written = _encode(rows * gain, form, exact) / 2.0**31
    np.testing.assert_allclose(written, stems * gain, rtol=0, atol=step * (1 + 1e-6 if exact else 0.51))


@pytest.mark.parametrize(
    ("kind", "bits", "subtype"), [("flac", "16", "PCM_16"), ("flac", "24", "PCM_24"), ("mp3", None, "MPEG_LAYER_III")]
)
def test_kinds_of_files(separate, tmp_path, kind, bits, subtype):
    song = write(tmp_path / "song.wav", seconds=1.0, rate=48_000)
    assert separate(song, "--format", kind, *(["--bits", bits] if bits else [])) == 0
    info = soundfile.info(tmp_path / f"out/song/bass.{kind}")
    assert (info.format, info.subtype, info.samplerate, info.channels) == (kind.upper(), subtype, 48_000, 2)
    assert separate(song, "--bits", "float", "--overwrite") == 0
    exact, stored = read(tmp_path / "out/song"), read(tmp_path / "out/song", ext=kind)
    assert stored.shape == exact.shape, "no sample more or less"
    if bits:
        np.testing.assert_allclose(stored, exact, rtol=0, atol=2.0 ** -int(bits) * 1.01)  # half a step
    else:
        assert np.var(stored - exact) < np.var(exact) / 100, "20 dB; another song is at 0 dB"


def test_a_rate_that_a_kind_cannot_hold_is_said_before_work(separate, tmp_path, capsys):
    song = write(tmp_path / "song.wav", rate=96_000)
    assert separate(song, "--format", "mp3") == 1
    assert capsys.readouterr().err == f"{song} has 96,000 Hz, which mp3 cannot hold; choose --format wav.\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_gives_its_songs_and_two_damaged_ones_do_not_stop_ten(model, tmp_path, capsys):
    """What systems and this program leave in a folder is not separated; a song is named by its place in the folder."""
    album = tmp_path / "album"
    songs = [write(album / f"cd {k % 2}/{k:02}.{('wav', 'flac', 'ogg')[k % 3]}", seed=k) for k in range(12)]
    songs[4].write_bytes(b"")
    songs[9].write_bytes(songs[9].read_bytes()[:2000])
    for litter in (".hidden/00.wav", "@eaDir/00.wav", "__MACOSX/._00.wav", "cover.jpg", "cd 0/._00.wav"):
        (album / litter).parent.mkdir(exist_ok=True)
        (album / litter).write_bytes(b"litter")
    assert main([str(album), "-n", model, "-o", str(album / "out")]) == 1
    said, errors = capsys.readouterr()
    assert len(errors.splitlines()) == 2 and "04.flac is an empty file" in errors and "09.wav is truncated" in errors
    assert said.splitlines()[-3:] == ["Songs: 10 separated, 2 failed", *(f"  {line}" for line in errors.splitlines())]
    done = {path.relative_to(album / "out") for path in (album / "out").rglob("bass.wav")}
    assert {str(path.parent) for path in done} == {f"cd {k % 2}/{k:02}" for k in range(12) if k not in (4, 9)}


def test_what_is_finished_is_skipped_unless_asked_for(separate, tmp_path, capsys):
    songs = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert separate(songs[0]) == 0
    bass = tmp_path / "out/a/bass.wav"
    os.utime(bass, (0, 0))
    assert separate(*songs) == 0
    said = capsys.readouterr().out
    assert f"{songs[0]}: its stems are in {tmp_path}/out already; --overwrite" in said
    assert "Songs: 1 separated, 1 there already" in said and bass.stat().st_mtime == 0
    (tmp_path / "out/a/drums.wav").unlink()  # no longer all
    assert separate(songs[0]) == 0 and bass.stat().st_mtime > 0
    os.utime(bass, (0, 0))
    assert separate(songs[0], "--overwrite") == 0 and bass.stat().st_mtime > 0


def test_names_by_a_pattern(separate, tmp_path):
    song = write(tmp_path / "{stem} {}.wav")  # of which nothing is a field
    assert separate(song, "--name", "x/{track} - {stem} [{ext}].{ext}", "--format", "flac") == 0
    assert {path.name for path in (tmp_path / "out/x").iterdir()} == {
        f"{{stem}} {{}} - {stem} [flac].flac" for stem in SOURCES
    }


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{track}.{ext}", "lacks {stem}"), ("{song}/{stem}", "has {song}"), ("{stem", "has {"),
        ("{stem.__class__}", "has {stem.__class__}"), ("/etc/{stem}", "below the folder"),
        ("../{stem}", "below the folder"), ("{stem}/", "below the folder"),
    ],
)  # fmt: skip
def test_patterns_that_are_none(pattern, says):
    with pytest.raises(UserError, match=re.escape(says)):
        names.check_pattern(pattern)


def test_songs_of_one_pattern_would_overwrite_each_other(separate, tmp_path, capsys):
    songs = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert separate(*songs, "--name", "{stem}.{ext}") == 1
    assert f"{songs[1]} would overwrite the stems of {songs[0]}" in capsys.readouterr().err


def test_segments_and_quiet(separate, tmp_path, capsys, monkeypatch):
    from lib.separate import songs

    seen, stream = [], songs.stream
    monkeypatch.setattr(songs, "stream", lambda *a, **options: seen.append(options) or stream(*a, **options))
    song = write(tmp_path / "song.wav", seconds=1.0)
    assert separate(song, "--segment", "0.25", "-q") == 0
    assert seen == [{"shifts": 0, "seconds": 0.25}]
    assert capsys.readouterr() == ("", "")
    assert separate(tmp_path / "none.wav", "-q") == 1
    assert capsys.readouterr().err.startswith("Cannot read")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--segment", "0"], "--segment 0 must lie between"), (["--segment", "nan"], "--segment nan must lie between"),
        (["-j", "0"], "--jobs 0 must be 1 or more"), (["--format", "mp3", "--bits", "16"], "mp3 has no bits"),
        (["--format", "flac", "--bits", "float"], "flac holds 16 or 24 bits"),
        (["--format", "mp3", "--sum-to-song"], "mp3 changes every sample"), (["-", "-j", "2"], "leave out --jobs"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_said_before_work(separate, words, says):
    with pytest.raises(UserError, match=says):
        separate("song.wav", *words)


def test_devices(separate, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda is impossible"):
        separate("song.wav", "--device", "cuda")
    assert separate(write(tmp_path / "song.wav"), "--device", "cpu") == 0


def command(*words):
    return [sys.executable, "-m", "lib.separate", *map(str, words)]


@pytest.mark.whole
def test_several_songs_at_once_give_the_same_files(model, tmp_path):
    songs = [write(tmp_path / f"{k}.wav", seed=k) for k in range(3)]
    songs.append(tmp_path / "none.wav")
    for out, words in (("one", []), ("two", ["-j", "2"])):
        done = subprocess.run(
            command(*songs, "-n", model, "-o", tmp_path / out, *words), cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 1 and done.stderr.startswith("Cannot read") and "3 separated, 1 failed" in done.stdout
    one, two = ({p.relative_to(tmp_path / out): p.read_bytes() for p in (tmp_path / out).rglob("*.wav")}
                for out in ("one", "two"))  # fmt: skip
    assert len(one) == 12 and one == two


@pytest.mark.whole
def test_interrupted_jobs_leave_nothing(model, tmp_path):
    songs = [tmp_path / f"{k}.flac" for k in range(3)]
    for song in songs:
        soundfile.write(song, np.tile(synthetic_stems(0, 1.0).sum(0, dtype=np.int16), (300, 1)), RATE)
    with subprocess.Popen(
        command(*songs, "-n", model, "-o", tmp_path / "out", "-j", "2", "--segment", "1"), cwd=ROOT,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 300
        while len(list((tmp_path / "out").glob(".separating-*/estimates"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and errors.startswith("Stopped;") and len(errors.splitlines()) == 1, errors
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.whole
def test_every_example_of_the_help_works_in_a_fresh_clone(tmp_path):
    """In a folder that holds the files which the repository has, and songs of the names that the examples give."""
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    for song in ("song.mp3", "song.wav", "album/one.wav", "two.flac"):
        write(tmp_path / song, rate=RATE)
    write(tmp_path / "Band - Song.wav").rename(tmp_path / "Band - Song.stem.mp4")
    examples = [line.strip() for line in _parser().epilog.splitlines() if line.startswith("  ")]
    assert len(examples) == 5
    for example in examples:
        for word in shlex.split(example):
            assert "results/" not in word and (not word.startswith("lib/") or word in tracked()), word
        line = example.replace("python ", f"{sys.executable} ")
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True)  # noqa: S602  our own
        assert done.returncode == 0, (example, done.stderr)
    assert len(list((tmp_path / "separated").rglob("*.wav"))) == 4 + 2 + 4 + 4
    assert len(list((tmp_path / "stems").rglob("*.flac"))) == 8


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.splitlines()


def test_stems_of_joined_recordings_add_up_to_all_of_them(separate, tmp_path):
    """At the highest of their rates."""
    parts = [
        write(tmp_path / f"{rate}.flac", rate=rate, channels=channels) for rate, channels in ((44_100, 1), (48_000, 2))
    ]
    joined, scratch = tmp_path / "joined.flac", tmp_path / "scratch"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    scratch.mkdir()
    assert separate(joined, "--bits", "16", "--sum-to-song") == 0
    wanted = np.concatenate([block.T for block in Song(joined, scratch).blocks(48_000)])
    found = read(tmp_path / "out/joined", dtype="int16").sum(0)
    np.testing.assert_array_equal(found, np.rint(wanted[: len(found)] * 2.0**15))
    assert len(wanted) - len(found) in (0, 1)
