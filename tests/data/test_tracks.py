"""Reading musdb folders, the cache, and excerpts."""

import re
import shutil
import signal
import subprocess
import sys
import threading

import musdb
import numpy as np
import pytest
import soundfile
from support import synthetic_stems, write_flac, write_track

from lib.common.errors import UserError
from lib.common.files import read_json, tidy, write_json
from lib.common.provenance import ROOT
from lib.data.decode import _quantised, decode, read_track
from lib.data.musdb import fingerprint, list_musdb, list_test_sets, list_tracks
from lib.data.tracks import SOURCES, Excerpts, read_index, write_index


def test_splits_and_audio_agree_with_musdb(musdb_folder):
    files = list_musdb(musdb_folder)
    for split in ("train", "valid"):
        theirs = musdb.DB(str(musdb_folder), setup_file="musdb.yaml", is_wav=True, subsets="train", split=split)
        assert sorted(files[split]) == sorted(track.name for track in theirs)
    theirs = musdb.DB(str(musdb_folder), is_wav=True, subsets="test")
    assert sorted(files["test"]) == sorted(track.name for track in theirs)
    track = theirs[0]
    ours = read_track(files["test"][track.name])[0] / 32_768
    np.testing.assert_array_equal(ours[0].T, track.audio)
    np.testing.assert_array_equal(ours[1:].transpose(0, 2, 1), np.stack([track.targets[s].audio for s in SOURCES]))


def test_stem_file_agrees_with_musdb(real_excerpt, tmp_path):
    (tmp_path / "test").mkdir()
    shutil.copy(real_excerpt, tmp_path / "test")
    [(name, path)] = list_musdb(tmp_path)["test"].items()
    theirs = musdb.DB(str(tmp_path), subsets="test")[0]
    assert name == theirs.name
    ours = read_track(path)[0] / 32_768
    # 16 bits: at most half a step from the decoder's float samples
    np.testing.assert_allclose(ours[0].T, theirs.audio, atol=0.5001 / 32_768)
    for k, source in enumerate(SOURCES):
        np.testing.assert_allclose(ours[k + 1].T, theirs.targets[source].audio, atol=0.5001 / 32_768)


def test_mixture_is_the_sum_of_the_stems_and_statistics_are_the_mono_mixtures(index):
    sets, _ = read_index(index)
    assert {name: len(tracks) for name, tracks in sets.items()} == {"train": 4, "valid": 2, "test": 2}
    for track in sets["train"]:
        audio = np.asarray(track.audio(), np.int32)
        np.testing.assert_array_equal(audio[0], audio[1:].sum(0))
        mono = audio[0].mean(0) / 32_768
        assert track.mean == pytest.approx(mono.mean(), abs=1e-12)
        assert track.std == pytest.approx(mono.std(), rel=1e-9)


def test_cache_is_reused_and_notices_a_changed_source(tmp_path):
    write_track(tmp_path / "in" / "train" / "A - B", synthetic_stems(1, 1.0))
    tracks = list_musdb(tmp_path / "in")["train"]
    [first] = decode(tracks, tmp_path / "cache")
    written = (tmp_path / "cache").stat().st_mtime_ns
    [again] = decode(tracks, tmp_path / "cache")
    assert again == first and (tmp_path / "cache").stat().st_mtime_ns == written, "nothing is decoded twice"
    shutil.rmtree(tmp_path / "in")
    write_track(tmp_path / "in" / "train" / "A - B", synthetic_stems(2, 1.0))
    [changed] = decode(tracks, tmp_path / "cache")
    assert changed.std != first.std


@pytest.fixture
def three(tmp_path):
    for k in range(3):
        write_track(tmp_path / "in" / "train" / f"Track {k}", synthetic_stems(k, 0.5))
    return {path.name: path for path in sorted((tmp_path / "in" / "train").iterdir())}


def files(folder):
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


def test_an_interrupted_decode_leaves_no_half_file_and_resumes(three, tmp_path, monkeypatch, capsys):
    read, saved = read_track, []

    def interrupted(file, audio, save=np.save):
        if saved:
            file.write(b"half")
            raise KeyboardInterrupt
        saved.append(audio)
        save(file, audio)

    monkeypatch.setattr(np, "save", interrupted)
    monkeypatch.setattr("lib.data.decode.cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        decode(three, tmp_path / "cache")
    assert files(tmp_path / "cache") == ["json", "npy"], "the first track, whole, and nothing of the second"
    monkeypatch.undo()
    monkeypatch.setattr("lib.data.decode.cores", lambda: 1)
    missing = []
    monkeypatch.setattr("lib.data.decode.read_track", lambda path, stems: missing.append(path.name) or read(path))
    tracks = decode(three, tmp_path / "cache")
    assert missing == ["Track 1", "Track 2"], "the first is not decoded again"
    assert "3 of 3 tracks" in capsys.readouterr().out
    for track, path in zip(tracks, three.values(), strict=True):
        np.testing.assert_array_equal(track.audio(), read(path)[0])


def test_a_killed_decode_resumes(three, tmp_path):
    """Killed with half of the second track written: no clean-up of any kind has run."""
    program = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lib.data import decode

def killed(file, audio, save=np.save, saved=[]):
    if saved:
        file.write(bytes(1000))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(save(file, audio))

np.save = killed
folder, cache = map(Path, sys.argv[1:])
decode.cores = lambda: 1
decode.decode({path.name: path for path in sorted(folder.iterdir())}, cache)
"""
    folder = three["Track 0"].parent
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "cache")], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    tracks = decode(three, tmp_path / "cache")
    for track, path in zip(tracks, three.values(), strict=True):
        np.testing.assert_array_equal(track.audio(), read_track(path)[0])


def test_tracks_are_decoded_at_once(three, tmp_path, monkeypatch):
    together, read = threading.Barrier(3, timeout=60), read_track
    monkeypatch.setattr("lib.data.decode.cores", lambda: 3)
    monkeypatch.setattr("lib.data.decode.read_track", lambda path, stems: together.wait() is None or read(path))
    assert [track.name for track in decode(three, tmp_path / "cache")] == list(three)


def test_without_musdbs_names_every_seventh_track_is_held_out(tmp_path):
    (tmp_path / "train").mkdir()
    for k in range(8):
        (tmp_path / "train" / f"Track {k}.stem.mp4").write_text("not decoded here")
    files = list_musdb(tmp_path)
    assert list(files["valid"]) == ["Track 0", "Track 7"] and len(files["train"]) == 6


LITTER = [  # of Synology and QNAP, macOS, archives, Windows, Linux, editors
    "@eaDir", "#recycle", ".DS_Store", "._A - B.stem.mp4", "._A - B", ".Trashes", ".Trash-1000", "Icon\r", "__MACOSX",
    "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".nfs0000001",
    ".ipynb_checkpoints", ".hidden",
]  # fmt: skip


def test_what_systems_leave_behind_is_passed_over_and_said_once(tmp_path, capsys):
    track = tmp_path / "train" / "A - B"
    write_track(track, synthetic_stems(1, 0.1))
    write_track(tmp_path / "train" / ".38 Special - Song", synthetic_stems(2, 0.1))
    for folder in (tmp_path, tmp_path / "train", track):
        for name in LITTER:
            if name in (".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r") or name.endswith(".mp4"):
                (folder / name).write_bytes(b"no sound")
            else:
                (folder / name).mkdir()
                (folder / name / "mixture.db").write_bytes(b"no sound")
    found = list_musdb(tmp_path)
    assert sorted(found["train"] | found["valid"]) == [".38 Special - Song", "A - B"]
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}: passed over train/") and f"and {len(LITTER) - 3} more; operating sys" in line
    assert list_musdb(tmp_path, litter=[]) == found
    assert not capsys.readouterr().out
    assert tidy(track.iterdir()) == [track / ".hidden", *sorted(track.glob("*.wav"))]


@pytest.mark.parametrize("name", ["x" * 250, "é" * 125])
def test_a_track_may_have_a_name_of_250_bytes(tmp_path, name):
    write_track(tmp_path / "test" / name, synthetic_stems(1, 0.1))
    [track] = decode(list_musdb(tmp_path)["test"], tmp_path / "cache")
    assert track.name == name
    write_json(tmp_path / f"{name}.json", {"SDR": 1})
    assert read_json(tmp_path / f"{name}.json") == {"SDR": 1}
    (tmp_path / "test" / name).rename(tmp_path / "test" / f"{name}y")
    with pytest.raises(UserError, match="has 251 bytes, but a track's may have 250; rename it"):
        list_musdb(tmp_path)


def test_samples_beyond_full_scale_are_kept(tmp_path, capsys):
    """A float mixture's stems exceed full scale; it is stored in steps twice as large, and its sum stays exact."""
    stems = synthetic_stems(1, 0.5).astype(np.float32) / 4000 * 0.6
    stems[2] *= 2.5  # 1.5
    folder = tmp_path / "in" / "test" / "Loud"
    write_track(folder, synthetic_stems(1, 0.5))
    write_track(tmp_path / "in" / "test" / "Quiet", synthetic_stems(2, 0.5))
    peak = max(np.abs(stems).max(), np.abs(stems.sum(0)).max())
    assert 1 < peak < 4
    for name, audio in zip(("mixture", *SOURCES), (stems.sum(0), *stems), strict=True):
        soundfile.write(folder / f"{name}.wav", audio, 44_100, subtype="FLOAT")
    tracks = decode(list_musdb(tmp_path / "in")["test"], tmp_path / "cache", "test")
    said = capsys.readouterr().out
    assert re.search(r"test: 1 of 2 tracks exceed full scale, such as Loud; .* without clipping", said)
    write_index(tmp_path / "data.json", {"test": tracks})
    loud, quiet = read_index(tmp_path / "data.json")[0]["test"]
    assert (loud.scale, quiet.scale) == (2.0 ** np.ceil(np.log2(peak)), 1.0)
    half_a_step = loud.scale / 65_536
    np.testing.assert_allclose(loud.stems(), stems.transpose(0, 2, 1), rtol=0, atol=1.001 * half_a_step)
    np.testing.assert_allclose(loud.stems().sum(0), loud.mixture(), rtol=0, atol=5 * half_a_step)
    mono = stems.sum(0).mean(1)
    assert (loud.mean, loud.std) == pytest.approx((mono.mean(), mono.std()), abs=1e-5)
    out = np.empty((2, 1000), np.float32)
    Excerpts([loud], 2000, 1000).read(0, out, source=2)
    np.testing.assert_allclose(out, (loud.stems()[2, :, :1000] - loud.mean) / loud.std, rtol=0, atol=1e-5)


def test_an_older_cache_that_clipped_is_decoded_again(tmp_path):
    write_track(tmp_path / "in" / "test" / "A - B", synthetic_stems(1, 0.1))
    tracks = list_musdb(tmp_path / "in")["test"]
    decode(tracks, tmp_path / "cache")
    [note] = (tmp_path / "cache").glob("*.json")
    write_json(note, {name: value for name, value in read_json(note).items() if name != "scale"} | {"std": 9.0})
    assert decode(tracks, tmp_path / "cache")[0].std != 9.0


def test_wav_files_of_unknown_length_are_read_in_a_data_folder(tmp_path):
    stems = synthetic_stems(1, 0.1)
    write_track(tmp_path / "A - B", stems)
    bass = tmp_path / "A - B" / "bass.wav"
    for options in (["-f", "wav"], ["-f", "flac"]):
        command = ["ffmpeg", "-v", "error", "-i", tmp_path / "A - B" / "bass.wav", *options, "-"]
        bass.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        audio, scale, _ = read_track(tmp_path / "A - B")
        np.testing.assert_array_equal(audio[1:], stems.transpose(0, 2, 1))
        assert scale == 1
    bass.write_bytes(bass.read_bytes()[:-2000])
    with pytest.raises(UserError, match="Cannot decode .*bass.wav"):
        read_track(tmp_path / "A - B")


def test_decoded_stem_files_saturate():
    """AAC overshoots full scale by its own errors; musdb decodes it to 16 bits."""
    loud = np.array([[1.5, -1.5], [0.5, -1.0]], np.float32)
    assert _quantised(loud).tolist() == [[32_767, 16_384], [-32_768, -32_768]]


def test_flac_stems_without_a_mixture_are_the_same_track_as_wav_files_with_one(tmp_path):
    stems = synthetic_stems(1, 0.5)
    write_flac(tmp_path / "in" / "Flac", stems)
    write_track(tmp_path / "in" / "Wav", stems)
    tracks = list_tracks(tmp_path / "in")
    assert list(tracks) == ["Flac", "Wav"]
    flac, wav = (read_track(path).audio for path in tracks.values())
    np.testing.assert_array_equal(flac, wav)


def test_a_further_test_set_that_is_not_there_is_left_out_and_an_empty_one_is_refused(tmp_path):
    write_flac(tmp_path / "in" / "A - B", synthetic_stems(1, 0.2))
    places = {"songs": str(tmp_path / "in"), "gone": str(tmp_path / "gone")}
    assert list_test_sets(places) == {"songs": {"A - B": tmp_path / "in" / "A - B"}}
    before = fingerprint(list_test_sets(places))
    shutil.copytree(tmp_path / "in" / "A - B", tmp_path / "gone" / "C - D")
    assert list(list_test_sets(places)) == ["songs", "gone"]
    assert fingerprint(list_test_sets(places)) != before, "01-data runs again"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"The test set 'nothing' holds no track; .*empty must hold"):
        list_test_sets({"nothing": str(tmp_path / "empty")})


@pytest.mark.parametrize(("peak", "wanted"), [(8191, 1), (8192, 2), (30_000, 4)])
def test_a_sum_of_stems_beyond_full_scale_is_kept(tmp_path, peak, wanted):
    stems = np.rint(synthetic_stems(1, 0.2) * 0.2)
    stems[:, 100] = peak  # in all stems at once
    write_flac(tmp_path / "Loud", stems.astype(np.int16))
    audio, scale, _ = read_track(tmp_path / "Loud")
    mixture, *found = audio.astype(int)
    assert scale == wanted
    np.testing.assert_array_equal(mixture, sum(found))
    np.testing.assert_allclose(np.stack(found).transpose(0, 2, 1), stems / scale, rtol=0, atol=0 if scale == 1 else 0.5)


def test_a_damaged_flac_file_is_refused(tmp_path):
    write_flac(tmp_path / "A - B", synthetic_stems(1, 0.5))
    file = tmp_path / "A - B" / "bass.flac"
    whole = bytearray(file.read_bytes())
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"Cannot decode .*bass.flac"):
        read_track(tmp_path / "A - B")
    whole[21:26] = bytes([whole[21] | 15, 255, 255, 255, 255])  # the number of samples, 36 bits
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"bass.flac is truncated|Cannot decode .*bass.flac"):
        read_track(tmp_path / "A - B")


def test_excerpts_are_normalised_slices(index):
    sets, _ = read_index(index)
    excerpts = Excerpts(sets["train"], samples=44_100, stride=22_050)
    assert len(excerpts) == 4 * 7, "1 + (4 s - 1 s) / 0.5 s starts in each of four tracks"
    track, start = excerpts[8]
    assert (track, start) == (sets["train"][1], 22_050)
    assert excerpts[6] == (sets["train"][0], 6 * 22_050) and excerpts[7] == (sets["train"][1], 0)
    out = np.empty((2, 1_000), np.float32)
    excerpts.read(8, out, source=2, offset=50, order=(1, 0), sign=-1.0)
    wanted = -(track.stems()[2, ::-1, 22_100:23_100] - track.mean) / track.std
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)  # float32
