"""Songs in files, and the command that separates them: real files through the real command."""

import os
import re
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.data.songs import Song
from lib.demucs import Demucs
from lib.models.weights import BUNDLED, load_generator, load_weights, save_weights
from lib.separate import separate
from lib.separate.__main__ import main
from lib.separate.stems import Form

SOURCES = ("drums", "bass", "other", "vocals")


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Weights of an untrained generator whose estimates sum to the mixture: what comes out can be checked exactly."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_weights(Demucs(channels=4, depth=4, lstm_layers=0, projection=True), path)
    return path


def tone(seconds, rate, channels, gain=0.2):
    """(samples, channels): three partials below 4 kHz, so that every rate here holds them; each channel its own.

    Its mean is zero: a mixture's mean is added to each of its estimates, as in the original."""
    t = np.arange(round(seconds * rate)) / rate
    sides = [sum(np.sin(2 * np.pi * (220 + 7 * c) * k * t + c) for k in (1, 4, 9)) for c in range(channels)]
    wave = gain / 3 * np.stack(sides, axis=1) * np.hanning(len(t))[:, None]
    return wave - wave.mean(axis=0)


def stems(folder):
    """(sources, frames, channels) and what soundfile says of the first file."""
    files = [folder / f"{source}.wav" for source in SOURCES]
    assert sorted(folder.iterdir()) == sorted(files)
    return np.stack([soundfile.read(file, always_2d=True)[0] for file in files]), soundfile.info(files[0])


def convert(source, target, *options):
    command = ["ffmpeg", "-v", "error", "-y", "-i", source, *options, target]
    subprocess.run(command, check=True)


# How far the sum of the stems may be from the mixture: at 44.1 kHz by quantisation (4 times half a step of 24 bits) and
# rounding of float32; at other rates by two resamplings too. Lossy formats are compared with what they decode to.
@pytest.mark.parametrize(
    ("name", "rate", "channels", "seconds"),
    [
        ("song.wav", 44_100, 2, 3),
        ("short.wav", 44_100, 2, 0.001),
        ("song.flac", 48_000, 2, 2),
        ("mono.mp3", 48_000, 1, 2),
        ("song.ogg", 22_050, 2, 2),
        ("odd.wav", 44_101, 1, 2),
        ("high.flac", 96_000, 2, 1),
        ("longer.wav", 96_000, 2, 96_001 / 96_000),  # there and back, the resampler returns one frame less
        ("shorter.wav", 96_000, 2, 95_999 / 96_000),  # and here one more
        ("song.m4a", 44_100, 2, 1),
    ],
)
def test_stems_have_the_songs_form_and_sum_to_it(exact, tmp_path, name, rate, channels, seconds):
    song, plain = tmp_path / name, tmp_path / "plain.wav"
    soundfile.write(plain, tone(seconds, rate, channels), rate, subtype="PCM_24")
    if song.suffix == ".m4a":  # soundfile cannot read it
        convert(plain, song)
        convert(song, plain, "-c:a", "pcm_f32le")
    elif song.suffix != ".wav":
        subtype = "PCM_24" if song.suffix == ".flac" else None  # the noise of 16 bits would reach beyond 22 kHz
        soundfile.write(song, tone(seconds, rate, channels), rate, subtype=subtype)
    else:
        song = plain.rename(song)
    assert main([str(song), "--checkpoint", str(exact), "--out", str(tmp_path / "out")]) == 0
    found, info = stems(tmp_path / "out" / song.stem)
    mixture = soundfile.read(plain if song.suffix == ".m4a" else song, always_2d=True)[0]
    assert (info.samplerate, info.channels, info.subtype) == (rate, channels, "PCM_24")
    assert found.shape[1:] == mixture.shape
    assert np.abs(found).max(axis=(1, 2)).min() > 0  # every stem holds something
    np.testing.assert_allclose(found.sum(0), mixture, rtol=0, atol=1e-6 if rate == 44_100 else 2e-5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [song.stem]


@pytest.mark.parametrize(("form", "subtype", "step"), [("16", "PCM_16", 2**-15), ("24", "PCM_24", 2**-23)])
def test_integers_are_the_floats_rounded(exact, tmp_path, form, subtype, step):
    soundfile.write(tmp_path / "song.wav", tone(1, 44_100, 2), 44_100, subtype="FLOAT")
    for name in (form, "float"):
        arguments = ["--checkpoint", str(exact), "--bits", name, "--out", str(tmp_path / name)]
        assert main([str(tmp_path / "song.wav"), *arguments]) == 0
    integers, info = stems(tmp_path / form / "song")
    floats, info_float = stems(tmp_path / "float" / "song")
    assert (info.subtype, info_float.subtype) == (subtype, "FLOAT")
    np.testing.assert_allclose(integers, floats, rtol=0, atol=step * 0.5001)


def test_clipping_is_avoided_by_one_factor_and_said(exact, tmp_path, capsys):
    soundfile.write(tmp_path / "song.wav", tone(1, 44_100, 2, gain=8), 44_100, subtype="FLOAT")
    arguments = [str(tmp_path / "song.wav"), "--checkpoint", str(exact)]
    assert main([*arguments, "--out", str(tmp_path / "float"), "--bits", "float"]) == 0
    assert "quieter" not in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "24")]) == 0
    said = float(re.search(r"all 4 stems are (\S+) dB quieter", capsys.readouterr().out)[1])
    floats, integers = (stems(tmp_path / form / "song")[0] for form in ("float", "24"))
    peak = np.abs(floats).max()
    assert peak > 1 and np.abs(integers).max() == pytest.approx(1, abs=2**-22)
    assert said == pytest.approx(20 * np.log10(peak), abs=0.06)  # printed to 0.1 dB
    np.testing.assert_allclose(integers, floats / peak, rtol=0, atol=2**-22)  # a step of 24 bits: all alike


def test_mono_is_the_mean_of_both_sides(exact, tmp_path):
    mono = tone(1, 44_100, 1)
    for name, channels in (("mono", 1), ("stereo", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.repeat(mono, channels, axis=1), 44_100, subtype="FLOAT")
        arguments = ["--checkpoint", str(exact), "--out", str(tmp_path), "--bits", "float"]
        assert main([str(tmp_path / f"{name}.wav"), *arguments]) == 0
    one, two = (stems(tmp_path / name)[0] for name in ("mono", "stereo"))
    assert np.abs(two[..., 0] - two[..., 1]).max() > 1e-3  # untrained, the sides of equal inputs differ
    np.testing.assert_allclose(one, two.mean(-1, keepdims=True), rtol=0, atol=1e-7)


def test_surround_is_mixed_down_and_said(exact, tmp_path, capsys):
    """FL, FR, FC, LFE, BL, BR: centre and surround at -3 dB, no LFE (ITU-R BS.775)."""
    six = tone(2, 44_100, 6, gain=0.1)
    soundfile.write(tmp_path / "plain.wav", six, 44_100, subtype="FLOAT")
    convert(tmp_path / "plain.wav", tmp_path / "six.wav", "-channel_layout", "5.1", "-c:a", "pcm_f32le")
    arguments = ["--checkpoint", str(exact), "--out", str(tmp_path), "--bits", "float"]
    assert main([str(tmp_path / "six.wav"), *arguments]) == 0
    assert "has 6 channels: its stereo downmix" in capsys.readouterr().out
    downmix = six[:, :2] + np.sqrt(0.5) * (six[:, 2:3] + six[:, 4:])
    np.testing.assert_allclose(stems(tmp_path / "six")[0].sum(0), downmix, rtol=0, atol=1e-6)  # float32


def test_silence_gives_four_silent_files(tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros((100_000, 2)), 48_000)
    assert main([str(tmp_path / "quiet.wav"), "--out", str(tmp_path)]) == 0
    found, _ = stems(tmp_path / "quiet")
    assert found.shape == (4, 100_000, 2) and not found.any()


def test_bundled_model_on_real_music(real_excerpt, tmp_path, capsys):
    """The mixture of a .stem.mp4 is its first stream. A model of minutes of training is better than none: the sum of
    its stems is the mixture to 10 dB, and each is nearer to the true stem than the mixture itself is."""
    import stempeg

    assert main([str(real_excerpt), "--out", str(tmp_path)]) == 0
    assert "knows only this project's composed corpus" in capsys.readouterr().out
    found, _ = stems(tmp_path / real_excerpt.name.removesuffix(".stem.mp4"))
    mixture, *references = stempeg.read_stems(str(real_excerpt))[0]
    assert np.var(found.sum(0) - mixture) < np.var(mixture) / 10
    for estimate, reference in zip(found, references, strict=True):
        assert np.var(estimate - reference) < np.var(mixture - reference)


def test_bundled_weights_are_small_and_described():
    note = read_json(BUNDLED.with_suffix(".json"))
    assert BUNDLED.stat().st_size < 10e6  # the promise of the issue
    assert {stem for song in note["songs"].values() for stem in song} == set(SOURCES)
    [channels] = {training["config"]["channels"] for training in note["mean of"].values()}
    assert load_generator().arguments["channels"] == channels


def truncated(path, rate=44_100):
    soundfile.write(path, tone(3, rate, 2) + np.random.RandomState(0).randn(3 * rate, 2) * 0.01, rate)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_bad_song_gets_its_sentence_and_the_others_go_on(exact, tmp_path, capfd):
    for name in ("before.wav", "bad.mp3", "after.wav"):
        soundfile.write(tmp_path / name, tone(0.1, 44_100, 2), 44_100)
    truncated(tmp_path / "bad.mp3")
    songs = [str(tmp_path / name) for name in ("before.wav", "bad.mp3", "after.wav")]
    assert main([*songs, "--checkpoint", str(exact), "--out", str(tmp_path / "out")]) == 1
    [line] = capfd.readouterr().err.splitlines()  # nothing of the decoder either
    assert re.search(r"bad\.mp3 is truncated: .*; get it again\.$", line)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["after", "before"]


def test_shifts_reach_the_generator(exact, tmp_path):
    song = tmp_path / "song.wav"
    soundfile.write(song, tone(0.5, 44_100, 2), 44_100, subtype="FLOAT")
    arguments = ["--checkpoint", str(exact), "--out", str(tmp_path), "--bits", "float", "--shifts", "2"]
    assert main([str(song), *arguments]) == 0
    mixture = soundfile.read(song, dtype="float32")[0].T
    wanted, plain = (separate(load_weights(exact), mixture, shifts=n).mT.numpy() for n in (2, 0))
    np.testing.assert_allclose(stems(tmp_path / "song")[0], wanted, rtol=0, atol=1e-6)
    assert np.abs(wanted - plain).max() > 1e-4


def test_weights_for_another_rate_are_refused(tmp_path):
    save_weights(Demucs(channels=4, depth=2, lstm_layers=0, samplerate=16_000), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"4 stems of 2 channel\(s\) at 16000 Hz; 4 of 2 at 44100 Hz are needed"):
        load_generator(tmp_path)


@pytest.mark.parametrize(("frames", "kind"), [(2**29 - 2**13, "WAV"), (2**29 - 2**13 + 1, "RF64")])
def test_stems_beyond_four_gigabytes_are_rf64(tmp_path, frames, kind):
    like = types.SimpleNamespace(samplerate=44_100, channels=2, frames=frames)  # of 4 bytes: 2^32 - 2^16 is the limit
    with Form("wav", "float").create(tmp_path / "stem.wav", like) as file:
        assert file.format == kind


def test_songs_of_one_name(exact, tmp_path, capsys):
    for name in ("a/song.wav", "b/Song.flac"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, tone(0.1, 44_100, 2), 44_100)
    songs = [str(tmp_path / name) for name in ("a/song.wav", "b/Song.flac")]
    assert main([*songs, "--checkpoint", str(exact), "--out", str(tmp_path / "out")]) == 1
    assert f"{songs[1]} would overwrite the stems of {songs[0]}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["song"]


def test_stems_are_replaced_only_as_a_whole(exact, tmp_path):
    song, out = tmp_path / "song.wav", tmp_path / "out"
    soundfile.write(song, tone(0.2, 44_100, 2), 44_100)
    arguments = [str(song), "--checkpoint", str(exact), "--out", str(out)]
    assert main(arguments) == 0
    (out / "song" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in (out / "song").iterdir()}
    truncated(song)
    arguments.append("--overwrite")
    assert main(arguments) == 1
    assert {path: path.read_bytes() for path in (out / "song").iterdir()} == before
    soundfile.write(song, tone(0.3, 44_100, 2), 44_100)
    assert main(arguments) == 0
    assert soundfile.info(out / "song" / "bass.wav").frames == 13_230
    assert (out / "song" / "notes.txt").read_text() == "mine" and len(list(out.iterdir())) == 1


def run(*arguments, **options):
    command = [sys.executable, "-m", "lib.separate", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes, **options)


def test_full_disk(exact, tmp_path):
    """A limit on the size of files stands for the disk's end: the system answers in the same way."""
    import resource

    soundfile.write(tmp_path / "song.wav", tone(2, 44_100, 2), 44_100, subtype="PCM_16")
    process = run(
        tmp_path / "song.wav", "--checkpoint", exact, "--out", tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )  # fmt: skip
    _, errors = process.communicate()
    assert process.returncode == 1 and len(errors.splitlines()) == 1
    assert errors.startswith(f"Cannot write {tmp_path}/out/song: ") and "free some space" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.whole
def test_interruption_leaves_nothing(exact, tmp_path):
    soundfile.write(tmp_path / "song.flac", tone(300, 44_100, 1), 44_100)
    process = run(tmp_path / "song.flac", "--checkpoint", exact, "--out", tmp_path / "out")
    assert process.stdout.read(7).strip() == "song:"  # the progress bar has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 1 and errors.startswith("Stopped;") and len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_ffmpeg(real_excerpt, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ffmpeg, which .* needs, was not found; install it"):
        Song(real_excerpt, tmp_path)
    soundfile.write(tmp_path / "song.wav", tone(1, 44_100, 2), 44_100)
    assert Song(tmp_path / "song.wav", tmp_path).channels == 2  # and it is not always needed


def test_checkpoints_of_all_kinds(exact, tmp_path, monkeypatch):
    ours = load_weights(exact)
    assert torch.equal(_first(load_generator(exact.parent)), _first(ours))
    published = types.ModuleType("demucs.model")
    published.Demucs = type("Demucs", (), {"__module__": "demucs.model"})
    monkeypatch.setitem(sys.modules, "demucs", types.ModuleType("demucs"))
    monkeypatch.setitem(sys.modules, "demucs.model", published)
    model = Demucs(channels=4, depth=2)
    arguments = {name: value for name, value in model.arguments.items() if name != "projection"}
    torch.save((published.Demucs, (), arguments, model.state_dict()), tmp_path / "demucs.bin")
    assert torch.equal(_first(load_generator(tmp_path / "demucs.bin")), _first(model))


def _first(model):
    return next(model.parameters())


# Separates a song and prints, for each part, the bytes in use and the process's peak so far, both in MB.
WATCHED = """
import ctypes, resource, sys
from lib.separate import __main__, songs

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"  # glibc's struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def watched(*arguments, **options):
    for part in stream(*arguments, **options):
        info = mallinfo()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print("part", (info.uordblks + info.hblkhd) / 1e6, peak)
        yield part

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
stream, songs.stream = songs.stream, watched
assert not __main__.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_memory_does_not_grow_with_the_song(tmp_path):
    """The bundled model on one minute and on ten.

    The bytes in use must not depend on the length. The process's peak may grow a little with it: `keep_buffers` returns
    nothing to the system, and the heap needs up to four batches of chunks (3.6 minutes) until all buffers find their
    places, which depend on what other threads do meanwhile. Estimates that were held would add 0.76 GB to the peak.
    """
    use, peak = {}, {}
    for minutes in (1, 10):
        soundfile.write(tmp_path / "song.flac", np.tile(tone(60, 44_100, 2), (minutes, 1)), 44_100)
        command = [sys.executable, "-c", WATCHED, str(tmp_path / "song.flac"), "--out", str(tmp_path), "--overwrite"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("part ")]
        use[minutes], peak[minutes] = np.array(lines, float).T
        assert soundfile.info(tmp_path / "song" / "bass.wav").frames == minutes * 60 * 44_100
    assert use[10].max() < 1.1 * use[1].max(), "MB; measured: 304 and 301"
    assert peak[10][-1] < 1.25 * peak[1][-1], (
        "MB; measured, three times: 1,053 to 1,098 and 972 to 1,001, so 1.06 to 1.10"
    )
    settled = peak[10][len(peak[10]) * 4 // 10]
    assert peak[10][-1] < 1.1 * settled, "MB; measured: 1,098 and 1,098"
