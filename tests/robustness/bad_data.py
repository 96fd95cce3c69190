"""Bad input, part 1: musdb folders, and what is decoded from them."""

import json
import shutil
from pathlib import Path

import numpy as np
import soundfile
from bad_case import Case, rewrite, truncate
from support import RATE

MUSDB = "python -m lib.pipeline quick run=MINE musdb_root=…/musdb"
DECODE = 'decode.decode(musdb.list_musdb("…/musdb")["test"], "…/cache")'
INDEX = "python -m lib.train …/study/l1-1 seed=2"
TRACK = "musdb/test/I - J"
BASS = f"{TRACK}/bass.wav"


def track(how, *names):
    """A change of the wav files of one track (all if none is named) by `how(samples)`: samples, or (samples, rate)."""

    def make(place):
        for path in (place / TRACK).glob("*.wav"):
            if path.stem in names or not names:
                audio, rate = soundfile.read(path)
                changed = how(audio)
                audio, rate = changed if isinstance(changed, tuple) else (changed, rate)
                soundfile.write(path, audio, rate, subtype="FLOAT")

    return make


def spoil(value):
    def change(audio):
        audio[5] = value
        return audio

    return change


def stem_file(content):
    def make(place):
        shutil.rmtree(place / TRACK)
        (place / f"{TRACK}.stem.mp4").write_bytes(content(place))

    return make


def renamed(place, name):
    (place / TRACK).rename(place / "musdb/test" / name)


def link(name, target, replaced=False):
    def make(place):
        path = place / name
        if replaced:
            path.unlink() if path.is_file() else shutil.rmtree(path)
        path.symlink_to(target)

    return make


def eight_bits(place):
    for path in (place / TRACK).glob("*.wav"):
        soundfile.write(path, soundfile.read(path)[0], RATE, subtype="PCM_U8")


def endless(place):
    """As a program in a pipe writes them."""
    for path in (place / TRACK).glob("*.wav"):
        content = bytearray(path.read_bytes())
        for start in (4, content.index(b"data") + 4):
            content[start : start + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(content)


def litter(place):
    for name in ("@eaDir", "__MACOSX", "lost+found", "._I - J"):
        (place / "musdb/test" / name).mkdir()
    for name in ("Thumbs.db", "._I - J.stem.mp4", ".DS_Store"):
        (place / "musdb/test" / name).write_bytes(b"no sound")


def above_full_scale(place, answer):
    [note] = [json.loads(path.read_text()) for path in (place / "cache").glob("*.json")]
    return note["scale"] > 1 and "1 of 1 tracks exceed full scale" in answer.output


def thousands(place):
    for k in range(3000):  # each a link to the same: what is looked up are 15,000 files
        (place / f"musdb/train/Track {k}").symlink_to("../test/I - J")


def decoded(count):
    def check(place, answer):
        notes = [json.loads(path.read_text()) for path in (place / "cache").glob("*.json")]
        whole = len(notes) == count == len(list((place / "cache").glob("*.npy")))
        return whole and all(note["std"] > 0 for note in notes)

    return check


def remarked(what):
    def check(place, answer):
        [note] = [json.loads(path.read_text()) for path in (place / "cache").glob("*.json")]
        return what in " ".join(note["remarks"])

    return check


def index(change):
    return lambda place: rewrite(place / "data.json", change)


def arrays(change):
    return lambda place: [change(path) for path in (place / "cache-1").glob("*.npy")]


CASES = [
    Case("there is no musdb folder", MUSDB, "musdb_root …/musdb is not a folder; give the folder that holds train/ "
         "and test/.", lambda place: shutil.rmtree(place / "musdb")),
    Case("the musdb folder is a file", MUSDB, "musdb_root …/musdb is not a folder; give the folder that holds train/ "
         "and test/.", lambda place: (shutil.rmtree(place / "musdb"), (place / "musdb").write_text("x"))),
    Case("the musdb folder is empty", MUSDB, "musdb_root …/musdb holds no track; expected …/musdb/train/Artist - "
         "Title/mixture.wav (wav) or …/musdb/train/Artist - Title.stem.mp4 (stems), and the same under test/.",
         lambda place: (shutil.rmtree(place / "musdb"), (place / "musdb").mkdir())),
    Case("the musdb folder is a link to itself", MUSDB, "musdb_root …/musdb is not a folder; give the folder that "
         "holds train/ and test/.", link("musdb", "musdb", replaced=True)),
    Case("a musdb folder that looks like YAML", "python -m lib.pipeline quick run=MINE 'musdb_root=…/NAME'",
         "musdb_root …/NAME is not a folder; give the folder that holds train/ and test/.",
         names=("musdb #2", "a: musdb", "7")),
    Case("musdb.yaml is no set-up", MUSDB, "…/musdb/musdb.yaml is no musdb set-up with a list validation_tracks; "
         "correct or remove it.", lambda place: (place / "musdb/musdb.yaml").write_text("sources: [")),
    Case("no track has a stem", MUSDB, "No track of musdb_root …/musdb can be used: …/musdb/train/A - B holds none of "
         "drums, bass, other, vocals as wav, flac, mp3, ogg, m4a file; rename its files, or give stems.",
         lambda place: [path.rename(path.with_stem(f"my {path.stem}")) for path in place.glob("musdb/*/*/*.wav")]),
    Case("a wav file is a folder", DECODE, f"…/{BASS} is no file, or a link that leads nowhere; replace it.",
         lambda place: ((place / BASS).unlink(), (place / BASS).mkdir())),
    Case("a wav file is a link to itself", DECODE, f"…/{BASS} is no file, or a link that leads nowhere; replace it.",
         link(BASS, "bass.wav", replaced=True)),
    Case("a track is a link to itself", DECODE, "…/musdb/train/loop is a link that leads nowhere; correct or remove "
         "it.",
         link("musdb/train/loop", "loop")),
    Case("a track is a link to the folder it lies in", DECODE, "…/musdb/train/loop holds none of drums, bass, other, "
         "vocals as wav, flac, mp3, ogg, m4a file; rename its files, or give stems.", link("musdb/train/loop", ".")),
    Case("train/ may not be read", MUSDB, "Cannot read …/musdb/train (Permission denied); change its permissions.",
         lambda place: (place / "musdb/train").chmod(0)),
    Case("a wav file of 0 bytes", DECODE, f"…/{BASS} is an empty file; copy it again.",
         lambda place: (place / BASS).write_bytes(b"")),
    Case("a wav file that is text", DECODE, f"Cannot decode …/{BASS} (ffmpeg: …); give a whole audio file.",
         lambda place: (place / BASS).write_text("no audio")),
    Case("a truncated wav file", DECODE, f"…/{BASS} is truncated: its header promises more than the file holds; get "
         "it again.", lambda place: truncate(place / BASS)),
    Case("a wav file that may not be read", DECODE, f"Cannot read …/{BASS} (…); give a readable audio file.",
         lambda place: (place / BASS).chmod(0)),
    Case("samples of a million times full scale", DECODE, f"…/{TRACK} holds samples 1.0e+06 times full scale; export "
         "it again.", track(spoil(1e6), "bass")),
    Case("a track's name of 251 bytes", DECODE, "The name of …/musdb/test/… has 251 bytes, but a track's may have 250; "
         "rename it.", lambda place: renamed(place, "x" * 251)),
    Case("wav files without samples", DECODE, f"…/{TRACK} holds no samples.", track(lambda audio: audio[:0])),
    Case("NaN samples", DECODE, f"…/{TRACK} holds NaN or infinite samples; export it again.",
         track(spoil(np.nan), "bass")),
    Case("infinite samples", DECODE, f"…/{TRACK} holds NaN or infinite samples; export it again.",
         track(spoil(np.inf), "mixture")),
    Case("a track that is silent throughout", DECODE, f"The mixture of …/{TRACK} is silent throughout, or its sides "
         "cancel; remove the track.", track(lambda audio: 0 * audio)),
    Case("a mixture whose sides cancel", DECODE, f"The mixture of …/{TRACK} is silent throughout, or its sides "
         "cancel; remove the track.", track(lambda audio: audio[:, :1] * (0.5, -0.5), "mixture")),
    Case("a .stem.mp4 of noise", DECODE, f"Cannot decode …/{TRACK}.stem.mp4; the file is damaged, truncated or no "
         ".stem.mp4 file.", stem_file(lambda place: np.random.RandomState(0).bytes(100_000))),
    Case("a truncated .stem.mp4", DECODE, f"Cannot decode …/{TRACK}.stem.mp4; the file is damaged, truncated or no "
         ".stem.mp4 file.", stem_file(lambda place: (place / "excerpt.stem.mp4").read_bytes()[:100_000])),
    Case("an empty .stem.mp4", DECODE, f"…/{TRACK}.stem.mp4 is an empty file; copy it again.",
         stem_file(lambda place: b"")),
    Case("a song with one stream as .stem.mp4", DECODE, f"…/{TRACK}.stem.mp4 does not hold five streams (mixture, "
         "drums, bass, other, vocals).", stem_file(lambda place: (place / "song.wav").read_bytes())),
    Case("the folder for decoded tracks lies below a file", DECODE.replace("cache", "song.wav/cache"), "Cannot "
         "write …/song.wav/cache/….npy: Not a directory; free some space or choose another folder."),
    Case("the folder for decoded tracks is read-only", DECODE.replace("cache", "locked/cache"), "Cannot write "
         "…/locked/cache/….npy: Permission denied; free some space or choose another folder."),
    Case("a damaged note of a decoded track", DECODE.replace("cache", "cache-1"), "Cannot read …/cache-1/….json as "
         "JSON (…); restore or remove it.",
         lambda place: [truncate(path) for path in (place / "cache-1").glob("*.json")]),
    Case("the index is missing", INDEX, "UserError: …/data.json is missing; run the notebook 01-data first.",
         lambda place: (place / "data.json").unlink()),
    Case("the index is truncated", INDEX, "UserError: Cannot read …/data.json as JSON (…); restore or remove it.",
         lambda place: truncate(place / "data.json")),
    Case("the index is a list", INDEX, "UserError: …/data.json …",
         lambda place: (place / "data.json").write_text("[1, 2]")),
    Case("the index has tracks of another kind", INDEX, "UserError: …/data.json is no data index; run the notebook "
         "01-data again.", index(lambda value: value["sets"]["train"][0].pop("samples"))),
    Case("the index has a track of -1 samples", INDEX, "UserError: …/data.json is no data index; run the notebook "
         "01-data again.", index(lambda value: value["sets"]["train"][0].update(samples=-1))),
    Case("the index says that a track has no level", INDEX, "UserError: …/data.json is no data index; run the "
         "notebook 01-data again.", index(lambda value: value["sets"]["train"][0].update(std=0.0))),
    Case("the index has text for numbers", INDEX, "UserError: …/data.json is no data index; run the notebook 01-data "
         "again.", index(lambda value: value["sets"]["train"][0].update(samples="many"))),
    Case("the index holds no validation track", INDEX, "UserError: There are no heldout tracks in …/data.json; both "
         "train and valid tracks are needed.", index(lambda value: value["sets"].update(valid=[]))),
    Case("the index has no set of validation tracks", INDEX, "UserError: There are no heldout tracks in …/data.json; "
         "both train and valid tracks are needed.", index(lambda value: value["sets"].pop("valid"))),
    Case("a decoded track is missing", INDEX, "UserError: Decoded track …/cache-1/….npy is missing or damaged; run "
         "01-data again.", arrays(Path.unlink)),
    Case("a decoded track is truncated", INDEX, "UserError: Decoded track …/cache-1/….npy is missing or damaged; run "
         "01-data again.", arrays(truncate)),
    Case("a decoded track has another shape than its index says", INDEX, "UserError: Decoded track …/cache-1/….npy "
         "is missing or damaged; run 01-data again.", arrays(lambda path: np.save(path, np.zeros((5, 9), np.int16)))),
    Case("a decoded track is a pickle", INDEX, "UserError: Decoded track …/cache-1/….npy is missing or damaged; run "
         "01-data again.", arrays(lambda path: np.save(path, np.array([{}])))),
    # What must work
    Case("one track has no bass", DECODE, "works: it is silence there, and the index says so",
         lambda place: (place / BASS).unlink(), remarked("bass: no file, so silence")),
    Case("stems of unequal length", DECODE, "works: they are padded, and the index says so",
         track(lambda audio: audio[:-7], "bass"), remarked("bass: 7 samples of silence added at the end")),
    Case("a mono stem", DECODE, "works, and the index says so", track(lambda audio: audio[:, 0], "bass"),
         remarked("bass: mono, so the same on both sides")),
    Case("a stem of 48 kHz", DECODE, "works: it is resampled, and the index says so",
         track(lambda audio: (audio, 48_000), "bass"), remarked("bass: resampled from 48,000 Hz")),
    Case("a silent stem", DECODE, "works: most songs lack one somewhere", track(lambda audio: 0 * audio, "vocals"),
         decoded(1)),
    Case("wav files of 8 bits", DECODE, "works", eight_bits, decoded(1)),
    Case("wav files of unknown length", DECODE, "works", endless, decoded(1)),
    Case("float stems above full scale", DECODE, "works: nothing is clipped, and a line says so",
         track(lambda audio: 8 * audio), above_full_scale),
    Case("what systems leave behind (@eaDir, ._name, Thumbs.db …)", DECODE, "works: it is passed over, and a line says "
         "so", litter, lambda place, answer: decoded(1)(place, answer) and "passed over test/" in answer.output),
    Case("a name of 250 bytes", DECODE, "works", lambda place: renamed(place, "x" * 250), decoded(1)),
    Case("a name with accents and other scripts", DECODE, "works",
         lambda place: renamed(place, "Beyoncé – 夜に駆ける 🎵"), decoded(1)),
    Case("a name with quotes, spaces and dollars", DECODE, "works",
         lambda place: renamed(place, "  O'Brien \"Live\" $HOME `x`  "), decoded(1)),
    Case("a name like HTML", DECODE, "works", lambda place: renamed(place, "<script>alert(1)<|script>"), decoded(1)),
    Case("a musdb folder that is read-only", DECODE, "works: it is only read",
         lambda place: [path.chmod(0o500) for path in (place / "musdb").rglob("*") if path.is_dir()], decoded(1)),
    Case("a track that is a link to another", DECODE, "works", link("musdb/test/again", "I - J"), decoded(1)),
    Case("three thousand tracks", 'musdb.fingerprint(musdb.list_musdb("…/musdb"))', "works: in seconds", thousands,
         lambda place, answer: answer.seconds < 20),
]  # fmt: skip
