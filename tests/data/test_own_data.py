"""Folders of tracks in any format, with any stems: what is done to each track, and what is refused."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from support import SOURCES, own_folder, synthetic_stems, tiny, train, write_own

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.config import parse
from lib.data.decode import decode, read_track
from lib.data.musdb import fingerprint, list_musdb
from lib.data.tracks import Excerpts, check_stems, read_index, write_index
from lib.evaluation.score import evaluate_set
from lib.models.weights import load_generator, read_stems
from lib.report import tables
from lib.report.guard import check_values
from lib.runs.folders import claim
from lib.separate.__main__ import main as separate
from lib.studies.data import split

TWO = ("vocals", "accompaniment")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """(decoded tracks {name: Track}, {name: sentence of what was refused}, the folder)."""
    root, refused = own_folder(tmp_path_factory.mktemp("own") / "songs", seconds=1.0), {}
    [(name, files)] = list_musdb(root, refused=refused).items()
    assert name == "tracks", "there is no train/, valid/ or test/"
    tracks = decode(files, root.parent / "cache", refused=refused)
    return {track.name: track for track in tracks}, {path.name: line for path, line in refused.items()}, root


def test_what_is_done_to_a_track_is_said(own):
    tracks, _, _ = own
    remarks = {name: " ".join(track.remarks) for name, track in tracks.items()}
    assert remarks["Plain"] == ""
    assert remarks["At 48 kHz"] == "mixture, drums, bass, other and vocals: resampled from 48,000 Hz."
    assert remarks["No mixture"] == "mixture: the sum of the stems."
    assert remarks["No vocals"] == "vocals: no file, so silence. mixture: the sum of the stems."
    assert remarks["Mono"] == "mixture, drums, bass, other and vocals: mono, so the same on both sides."
    assert remarks["Unequal"] == "bass: 4,410 samples of silence added at the end."
    for kind in ("mp3", "ogg", "m4a"):
        assert f"drums, bass, other and vocals: from {kind}, which is lossy." in remarks[f"As {kind}"]


def test_the_audio_is_what_was_in_the_files(own):
    tracks, _, root = own
    plain = np.asarray(tracks["Plain"].audio(), int)
    for name, track in tracks.items():
        audio = np.asarray(track.audio(), int)
        assert audio.shape == (5, 2, track.samples) and track.sources == SOURCES
        if name != "Unequal":  # its mixture holds all of the bass
            assert abs(audio[0] - audio[1:].sum(0)).max() <= 4, "the mixture is the sum, but for the rounding of each"
        if name != "Mono":
            length = min(track.samples, 44_100 - 4_410)
            for k in range(1, 5) if name != "No vocals" else (1, 2, 3):
                signal, found = (x[k, :, 2000 : length - 2000] for x in (plain, audio))
                error = found - signal
                least = 6 if name.startswith("As ") else 10 if name == "At 48 kHz" else 300  # dB; noise ends at 22 kHz
                assert 10 * np.log10(np.square(signal).mean() / (np.square(error).mean() + 1e-30)) > least, (name, k)
    assert not tracks["No vocals"].stems()[3].any()
    np.testing.assert_array_equal(*tracks["Mono"].audio().transpose(1, 0, 2))
    assert not tracks["Unequal"].stems()[1, :, -4410:].any() and tracks["Unequal"].stems()[1, :, :-4410].any()


def test_what_cannot_be_used_is_refused_and_the_others_are_not_lost(own, tmp_path):
    tracks, refused, root = own
    assert len(tracks) == 9
    assert refused.keys() == {"Damaged", "Empty", "Notes", "Silent"}
    assert str(root / "Damaged" / "bass.flac") in refused["Damaged"]
    assert refused["Empty"] == f"{root}/Empty/bass.flac is an empty file; copy it again."
    assert refused["Notes"].startswith(f"{root}/Notes holds none of drums, bass, other, vocals as wav, flac, mp3")
    assert f"The mixture of {root}/Silent is silent throughout" in refused["Silent"]
    assert not any("\n" in sentence for sentence in refused.values())
    for name in ("Damaged", "Silent"):
        with pytest.raises(UserError):
            read_track(root / name)
    with pytest.raises(UserError, match="is an empty file"):
        list_musdb(root)
    for name in tracks.keys() | {"Empty", "Damaged", "Notes"}:
        shutil.copytree(root / "Notes", tmp_path / "bad" / name)
    with pytest.raises(UserError, match=r"No track of musdb_root .*bad can be used: .*/As m4a holds none of drums"):
        list_musdb(tmp_path / "bad", refused={})


def test_it_stands_in_the_index_and_in_one_table(own, tmp_path):
    tracks, refused, root = own
    left_out = {str(root / name): sentence for name, sentence in refused.items()}
    write_index(tmp_path / "data.json", {"train": list(tracks.values())}, root=str(root), refused=left_out)
    assert read_index(tmp_path / "data.json")[0]["train"] == list(tracks.values()), "with their remarks"
    assert read_json(tmp_path / "data.json")["refused"] == left_out
    table = tables.found_tracks(tmp_path / "data.json").set_index("track")["what was done"]
    assert table.to_dict() == {n: " ".join(t.remarks) or "nothing" for n, t in tracks.items()} | refused
    assert table["No vocals"] in tables.plain_table(table.to_frame()).data, "whole"


def test_a_folder_of_ones_own_may_be_split_by_its_subfolders(tmp_path):
    for subset, names in (("train", "abc"), ("valid", "d"), ("test", "e")):
        for name in names:
            write_own(tmp_path / subset / name, synthetic_stems(1, 0.1)[:2], TWO)
    found = list_musdb(tmp_path, TWO)
    assert {subset: "".join(names) for subset, names in found.items()} == {"train": "abc", "valid": "d", "test": "e"}


def test_a_split_is_drawn_by_its_seed_alone(own):
    tracks = list(own[0].values())
    first, again, other = (split(tracks, seed) for seed in (1, 1, 2))
    assert first == again and first != other
    assert {name: len(found) for name, found in first.items()} == {"train": 6, "valid": 1, "test": 2}
    assert sorted(sum(first.values(), []), key=tracks.index) == tracks, "each in one set"
    assert {name: len(found) for name, found in split(tracks[:3], 1).items()} == {"train": 1, "valid": 1, "test": 1}


def test_a_file_that_comes_later_is_noticed(tmp_path):
    write_own(tmp_path / "in" / "A", synthetic_stems(1, 0.1), SOURCES)
    (tmp_path / "in" / "A" / "vocals.flac").rename(tmp_path / "later.flac")
    before = fingerprint(list_musdb(tmp_path / "in"))
    assert decode(list_musdb(tmp_path / "in")["tracks"], tmp_path / "cache")[0].remarks
    (tmp_path / "later.flac").rename(tmp_path / "in" / "A" / "vocals.flac")
    assert fingerprint(list_musdb(tmp_path / "in")) != before
    [track] = decode(list_musdb(tmp_path / "in")["tracks"], tmp_path / "cache")
    assert track.stems()[3].any()


def test_arrays_of_other_stems_lie_beside_each_other(tmp_path):
    write_own(tmp_path / "in" / "A", synthetic_stems(1, 0.1), SOURCES)
    found = [
        decode(list_musdb(tmp_path / "in", names)["tracks"], tmp_path / "cache", stems=names)[0]
        for names in (SOURCES, ("vocals", "drums"), ("drums", "vocals"))
    ]
    assert [track.audio().shape[0] for track in found] == [5, 3, 3]
    np.testing.assert_array_equal(found[1].stems(), found[0].stems()[[3, 0]])
    np.testing.assert_array_equal(found[2].stems(), found[0].stems()[[0, 3]])


@pytest.mark.parametrize(
    ("stems", "says"),
    [(["vocals"], "at least two names"), ([], "at least two names"), (["vocals", "Vocals"], "holds a name twice"),
     (["vocals", "mixture"], "'mixture' cannot name a stem"), (["a", "../b"], r"'\.\./b' cannot name a stem"),
     (["a", "b/c"], "'b/c' cannot name a stem"), (["a", ".b"], r"'\.b' cannot name a stem"), (["a", ""], "'' cannot"),
     (["a", "all"], "'all' cannot"), (["a", "data"], "'data' cannot")],
)  # fmt: skip
def test_names_that_no_stems_can_have_are_refused_before_work_starts(stems, says):
    with pytest.raises(UserError, match=says):
        check_stems(stems)
    with pytest.raises(UserError, match=says):
        check_values({"stems": stems, "musdb_root": "/songs"})


def test_other_stems_need_other_data_than_the_corpus(tmp_path, real_excerpt):
    with pytest.raises(UserError, match="stems = .* must be drums, bass, other, vocals for musdb_root = embedded"):
        check_values({"stems": [*TWO], "musdb_root": "embedded"})
    with pytest.raises(UserError, match=r"\.stem\.mp4 holds drums, bass, other and vocals, not vocals and accompan"):
        read_track(real_excerpt, TWO)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The index of five tracks with two stems, and the folder of a model that was trained on them."""
    place = tmp_path_factory.mktemp("two")
    for k in range(5):
        write_own(place / "in" / f"Song {k}", synthetic_stems(k, 2.0)[[3, 2]], TWO)
    files = list_musdb(place / "in", TWO)["tracks"]
    write_index(place / "data.json", split(decode(files, place / "cache", stems=TWO), 1))
    train(tiny(place / "data.json", steps=4, channels=2, depth=3, discriminator_width=4), place / "pretrain-1")
    changes = {"adversarial_weight": 0.01, "discriminator": "stft", "discriminator_width": 4, "steps": 4}
    start = {"start_from": str(place / "pretrain-1"), "channels": 2, "depth": 3}
    train(tiny(place / "data.json", **changes, **start), place / "gan-1")
    return place


@pytest.mark.whole
def test_two_stems_are_trained_scored_and_separated(two, tmp_path, capsys):
    weights = two / "gan-1" / "model.safetensors"
    assert read_stems(weights) == load_generator(weights).stems == TWO and load_generator(weights).sources == 2
    assert read_json(two / "gan-1" / "config.json")["config"]["stems"] == [*TWO]
    sets = read_index(two / "data.json")[0]
    assert Excerpts(sets["train"], 1000, 1000).sources == TWO
    evaluate_set(sets["test"], tmp_path / "gan-1" / "eval" / "test", weights=weights, most_workers=1)
    [file] = (tmp_path / "gan-1").glob("eval/test/tracks/*.json")
    assert [target["name"] for target in read_json(file)["targets"]] == [*TWO]
    soundfile.write(tmp_path / "song.wav", synthetic_stems(1, 0.5).sum(0, dtype=np.int16), 44_100)
    assert separate([str(tmp_path / "song.wav"), "-n", str(weights), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out" / "song").iterdir()} == {"vocals.wav", "accompaniment.wav"}
    with pytest.raises(UserError, match="--two-stems bass is no stem of this model; choose one of vocals, accompanim"):
        separate([str(tmp_path / "song.wav"), "-n", str(weights), "--two-stems", "bass"])


@pytest.mark.whole
def test_a_checkpoint_of_other_stems_is_refused_before_work_starts(two, index, tmp_path):
    config = tiny(index, start_from=str(two / "pretrain-1"), channels=2, depth=3)
    with pytest.raises(UserError, match=r"start_from = .* separates vocals and accompaniment, but .* hold drums"):
        claim(config, tmp_path / "l1-1")
    assert not (tmp_path / "l1-1").exists()
    with pytest.raises(UserError, match="model.safetensors separates vocals and accompaniment, but .* hold drum"):
        evaluate_set(read_index(index)[0]["test"], tmp_path / "eval", weights=two / "gan-1" / "model.safetensors")
    with pytest.raises(UserError, match="stems are those of the index data"):
        parse(["stems=a,b"], two / "gan-1")


def test_a_config_without_stems_has_the_four(pretrained, index, tmp_path):
    note = read_json(pretrained / "config.json")
    assert note["config"].pop("stems") == [*SOURCES]
    folder = shutil.copytree(pretrained, tmp_path / "pretrain-1")
    write_json(folder / "config.json", note)
    assert claim(tiny(index), folder)[1], "still finished"
    assert not list(tmp_path.glob("*~*"))


def test_a_name_in_capitals_and_the_first_of_two_formats(tmp_path):
    write_own(tmp_path / "in" / "A", synthetic_stems(1, 0.1), ("Drums", "BASS", "other", "vocals"))
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        tmp_path / "in/A/BASS.flac",
        "-af",
        "volume=0",
        tmp_path / "in/A/bass.mp3",
    ]
    subprocess.run(command, check=True)
    [track] = decode(list_musdb(tmp_path / "in")["tracks"], tmp_path / "cache")
    assert track.remarks == ("mixture: the sum of the stems.",) and track.stems()[:2].any((1, 2)).all()
