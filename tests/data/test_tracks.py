"""Reading musdb folders, the cache, and excerpts."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import musdb
import numpy as np
import pytest
from support import synthetic_stems, write_flac, write_track

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data.musdb import _quantised, decode, fingerprint, list_musdb, list_test_sets, list_tracks, read_track
from lib.data.tracks import SOURCES, Excerpts, read_index


def test_splits_and_audio_agree_with_musdb(musdb_folder):
    files = list_musdb(musdb_folder)
    for split in ("train", "valid"):
        theirs = musdb.DB(str(musdb_folder), setup_file="musdb.yaml", is_wav=True, subsets="train", split=split)
        assert sorted(files[split]) == sorted(track.name for track in theirs)
    theirs = musdb.DB(str(musdb_folder), is_wav=True, subsets="test")
    assert sorted(files["test"]) == sorted(track.name for track in theirs)
    track = theirs[0]
    ours = read_track(files["test"][track.name]) / 32_768
    np.testing.assert_array_equal(ours[0].T, track.audio)
    np.testing.assert_array_equal(ours[1:].transpose(0, 2, 1), np.stack([track.targets[s].audio for s in SOURCES]))


def test_stem_file_agrees_with_musdb(real_excerpt, tmp_path):
    (tmp_path / "test").mkdir()
    shutil.copy(real_excerpt, tmp_path / "test")
    [(name, path)] = list_musdb(tmp_path)["test"].items()
    theirs = musdb.DB(str(tmp_path), subsets="test")[0]
    assert name == theirs.name
    ours = read_track(path) / 32_768
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
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        decode(three, tmp_path / "cache")
    assert files(tmp_path / "cache") == ["json", "npy"], "the first track, whole, and nothing of the second"
    monkeypatch.undo()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    missing = []
    monkeypatch.setattr("lib.data.musdb.read_track", lambda path: missing.append(path.name) or read(path))
    tracks = decode(three, tmp_path / "cache")
    assert missing == ["Track 1", "Track 2"], "the first is not decoded again"
    assert "3 of 3 tracks" in capsys.readouterr().out
    for track, path in zip(tracks, three.values(), strict=True):
        np.testing.assert_array_equal(track.audio(), read(path))


def test_a_killed_decode_resumes(three, tmp_path):
    """Killed with half of the second track written: no clean-up of any kind has run."""
    program = """
import os, signal, sys
from pathlib import Path
import numpy as np
from lib.data.musdb import decode

def killed(file, audio, save=np.save, saved=[]):
    if saved:
        file.write(bytes(1000))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    saved.append(save(file, audio))

np.save = killed
folder, cache = map(Path, sys.argv[1:])
os.cpu_count = lambda: 1
decode({path.name: path for path in sorted(folder.iterdir())}, cache)
"""
    folder = three["Track 0"].parent
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "cache")], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    tracks = decode(three, tmp_path / "cache")
    for track, path in zip(tracks, three.values(), strict=True):
        np.testing.assert_array_equal(track.audio(), read_track(path))


def test_tracks_are_decoded_at_once(three, tmp_path, monkeypatch):
    together, read = threading.Barrier(3, timeout=60), read_track
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr("lib.data.musdb.read_track", lambda path: together.wait() is None or read(path))
    assert [track.name for track in decode(three, tmp_path / "cache")] == list(three)


def test_without_musdbs_names_every_seventh_track_is_held_out(tmp_path):
    (tmp_path / "train").mkdir()
    for k in range(8):
        (tmp_path / "train" / f"Track {k}.stem.mp4").write_text("not decoded here")
    files = list_musdb(tmp_path)
    assert list(files["valid"]) == ["Track 0", "Track 7"] and len(files["train"]) == 6


def test_beyond_full_scale_samples_saturate():
    loud = np.array([[1.5, -1.5], [0.5, -1.0]], np.float32)
    assert _quantised(loud, "").tolist() == [[32_767, 16_384], [-32_768, -32_768]]


def test_flac_stems_without_a_mixture_are_the_same_track_as_wav_files_with_one(tmp_path):
    stems = synthetic_stems(1, 0.5)
    write_flac(tmp_path / "in" / "Flac", stems)
    write_track(tmp_path / "in" / "Wav", stems)
    tracks = list_tracks(tmp_path / "in")
    assert list(tracks) == ["Flac", "Wav"]
    np.testing.assert_array_equal(*map(read_track, tracks.values()))


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


@pytest.mark.parametrize("peak", [8191, 8192, 30_000])
def test_stems_whose_sum_would_clip_become_quieter_together(tmp_path, peak):
    stems = np.rint(synthetic_stems(1, 0.2) * 0.2)
    stems[:, 100] = peak  # in all stems at once
    write_flac(tmp_path / "Loud", stems.astype(np.int16))
    mixture, *found = read_track(tmp_path / "Loud").astype(int)
    np.testing.assert_array_equal(mixture, sum(found))
    gain = min(32_765 / (4 * peak), 1)  # 32,767, less half a step for each of four stems
    assert mixture.max() == pytest.approx(4 * peak * gain, abs=2)
    np.testing.assert_allclose(np.stack(found).transpose(0, 2, 1), gain * stems, atol=0.51 if gain < 1 else 0)


def test_a_damaged_flac_file_is_refused(tmp_path):
    write_flac(tmp_path / "A - B", synthetic_stems(1, 0.5))
    file = tmp_path / "A - B" / "bass.flac"
    whole = bytearray(file.read_bytes())
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"Cannot read .*bass.flac"):
        read_track(tmp_path / "A - B")
    whole[21:26] = bytes([whole[21] | 15, 255, 255, 255, 255])  # the number of samples, 36 bits
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"bass.flac is truncated: its header promises more"):
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
