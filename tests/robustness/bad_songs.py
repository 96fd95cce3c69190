"""Bad input, part 3: songs, generators' weights, drawn pages."""

import gzip
import pickle

import numpy as np
import soundfile
import torch
from bad_case import Case, harmful, truncate
from PIL import Image
from support import RATE

from lib.demucs import Demucs
from lib.models.weights import save_weights

OUT = "--checkpoint …/study/l1-1 --out …/out"
SEPARATE = f"python -m lib.separate …/song.wav {OUT}"
LISTEN = 'listen.separate_song(Path("…/study"), "…/song.wav", START, 1.0)'
WEIGHTS = "python -m lib.separate …/song.wav --checkpoint …/weights --out …/out"
FOREIGN = "…/weights is damaged or not a Demucs v1 checkpoint; get it again, or give another."
REFUSED = "…/weights names …mkdir, which no Demucs v1 checkpoint needs: nothing of it was run, do not use it."
HARD = 'Ünï "côdé" <b>&amp; $HOME 夜'
STEMS = ("bass.wav", "drums.wav", "other.wav", "vocals.wav")


def song(samples, rate=RATE, subtype="FLOAT"):
    return lambda place: soundfile.write(place / "song.wav", samples, rate, subtype=subtype)


def sound(channels=2):
    return np.random.RandomState(0).uniform(-0.1, 0.1, (2000, channels))


def text(place):
    (place / "song.wav").write_text("la la la\n" * 500)


def flac(place):
    soundfile.write(place / "song.wav", sound().repeat(20, axis=0), RATE, format="FLAC")
    truncate(place / "song.wav")


def coded(form):
    return lambda place: soundfile.write(place / "song.wav", sound().repeat(10, axis=0), RATE, format=form)


def joined(form):
    def make(place):
        coded(form)(place)
        (place / "song.wav").write_bytes((place / "song.wav").read_bytes() * 2)

    return make


def unknown(place):
    content = bytearray((place / "song.wav").read_bytes())
    for start in (4, content.index(b"data") + 4):
        content[start : start + 4] = b"\xff\xff\xff\x7f"
    (place / "song.wav").write_bytes(content)


def unended(place):
    coded("OGG")(place)
    content = (place / "song.wav").read_bytes()
    (place / "song.wav").write_bytes(content[:-100])


def picture(place):
    Image.new("RGB", (64, 64)).save(place / "song.wav", format="png")


def loop(place):
    (place / "song.wav").unlink()
    (place / "song.wav").symlink_to("song.wav")


def folder(place):
    (place / "song.wav").unlink()
    (place / "song.wav").mkdir()


def weights(content):
    return lambda place: (place / "weights").write_bytes(content)


def malice(zipped, packed=False):
    """A checkpoint in the form of Demucs v1's, with something harmful for its class."""

    def make(place):
        torch.save((harmful(place), (), {}, {}), place / "weights", _use_new_zipfile_serialization=zipped)
        if packed:
            (place / "weights").write_bytes(gzip.compress((place / "weights").read_bytes()))

    return make


def no_numbers(place):
    model = Demucs(channels=4, depth=2)
    torch.nn.init.constant_(model.decoder[-1][-1].bias, torch.nan)
    save_weights(model, place / "weights")


def separated(name, samples, channels, silent=False):
    def check(place, answer):
        files = sorted((place / "out" / name).iterdir())
        stems = [soundfile.read(file, always_2d=True)[0] for file in files]
        right = [audio.shape == (samples, channels) and audio.any() != silent for audio in stems]
        return tuple(file.name for file in files) == STEMS and all(right)

    return check


def separated_both(place, answer):
    frames = soundfile.info(place / "out/song/bass.wav").frames
    return 40_000 <= frames < 44_000 and "holds 2 recordings, one after the other" in answer.output


CASES = [
    Case("no song", f"python -m lib.separate {OUT}", "The following arguments are required: SONG; python -m "
         "lib.separate --help explains."),
    Case("an option misspelt", f"{SEPARATE} --shift-count 3", "Unrecognized arguments: --shift-count 3; python -m "
         "lib.separate --help explains."),
    Case("-1 shifts", f"{SEPARATE} --shifts -1", "--shifts -1 must be 0 or more."),
    Case("a word for a number of shifts", f"{SEPARATE} --shifts ten", "Argument --shifts: invalid int value: 'ten'; "
         "python -m lib.separate --help explains."),
    Case("a format that is none", f"{SEPARATE} --format 32", "Argument --format: invalid choice: '32' (choose from "
         "…); python -m lib.separate --help explains."),
    Case("a song that is missing", SEPARATE, "Cannot read …/song.wav (No such file or directory); give a readable "
         "audio file.", lambda place: (place / "song.wav").unlink()),
    Case("bits that flac does not have", f"{SEPARATE} --format flac --bits float", "--bits float is impossible, as "
         "flac holds 16 or 24 bits; change --bits or --format."),
    Case("bits of an mp3", f"{SEPARATE} --format mp3 --bits 16", "--bits 16 is impossible, as mp3 has no bits; change "
         "--bits or --format."),
    Case("an mp3 that is to add up to the song", f"{SEPARATE} --format mp3 --sum-to-song", "--sum-to-song needs wav or "
         "flac: mp3 changes every sample."),
    Case("a rate that mp3 does not have", f"{SEPARATE} --format mp3", "…/song.wav has 96,000 Hz, which mp3 cannot "
         "hold; choose --format wav.", song(sound(), 96_000)),
    Case("a stem that there is none of", f"{SEPARATE} --two-stems piano", "--two-stems piano is no stem of this "
         "model; choose one of drums, bass, other, vocals."),
    Case("parts of no length", f"{SEPARATE} --segment 0", "--segment 0 must lie between 0.1 and 3600 seconds."),
    Case("no process", f"{SEPARATE} -j 0", "--jobs 0 must be 1 or more."),
    Case("files without the name of their stem", f"{SEPARATE} --name {{track}}.{{ext}}", "--name {track}.{ext} lacks "
         "{stem}; write it with {track}, {stem} and {ext}."),
    Case("files named by a field that there is none of", f"{SEPARATE} --name {{stem}}-{{year}}", "--name {stem}-{year} "
         "has {year}; write it with {track}, {stem} and {ext}."),
    Case("files named out of their folder", f"{SEPARATE} --name ../../{{stem}}", "--name ../../{stem} must name files "
         "below the folder of --out."),
    Case("a folder without songs", SEPARATE, "…/song.wav holds no songs; name a folder that does, or a file.", folder),
    Case("a song that is a link to itself", SEPARATE, "Cannot read …/song.wav (Too many levels of symbolic links); "
         "give a readable audio file.", loop),
    Case("a song that may not be read", SEPARATE, "Cannot read …/song.wav (Permission denied); give a readable audio "
         "file.", lambda place: (place / "song.wav").chmod(0)),
    Case("a song of 0 bytes", SEPARATE, "…/song.wav is an empty file; get it again.",
         lambda place: (place / "song.wav").write_bytes(b"")),
    Case("a song that is text", SEPARATE, "Cannot decode …/song.wav (ffmpeg: …); give a whole audio file.", text),
    Case("a song that is a picture", SEPARATE, "Cannot decode …/song.wav (ffmpeg: …); give a whole audio file.",
         picture),
    Case("a truncated song (wav)", SEPARATE, "…/song.wav is truncated: its header promises more than the file holds; "
         "get it again.", lambda place: truncate(place / "song.wav")),
    Case("a truncated song (flac)", SEPARATE, "Cannot decode …/song.wav (ffmpeg: …); give a whole audio file.", flac),
    Case("a truncated song (mp3)", SEPARATE, "…/song.wav is truncated: … of … mp3 frames are there; get it again.",
         lambda place: (coded("MP3")(place), truncate(place / "song.wav"))),
    Case("a truncated song (aiff)", SEPARATE, "Cannot decode …/song.wav (ffmpeg: …); give a whole audio file.",
         lambda place: (coded("AIFF")(place), truncate(place / "song.wav"))),
    Case("a truncated song (au)", SEPARATE, "…/song.wav is truncated: … of … seconds are there; get it again.",
         lambda place: (coded("AU")(place), truncate(place / "song.wav"))),
    Case("a song without samples", SEPARATE, "…/song.wav holds no samples.", song(np.zeros((0, 2)))),
    Case("a song with NaN", SEPARATE, "…/song.wav holds NaN or infinite samples; export it again.",
         song(np.full((99, 2), np.nan))),
    Case("a song with infinite samples", SEPARATE, "…/song.wav holds NaN or infinite samples; export it again.",
         song(np.full((99, 2), np.inf))),
    Case("the folder for stems is a file", SEPARATE.replace("out …/out", "out …/data.json"), "Cannot write "
         "…/data.json: File exists; free some space or choose another folder."),
    Case("the folder for stems lies below a file", SEPARATE.replace("…/out", "…/data.json/out"), "Cannot write "
         "…/data.json/out: Not a directory; free some space or choose another folder."),
    Case("the folder for stems is read-only", SEPARATE.replace("…/out", "…/locked"), "Cannot write …/locked: "
         "Permission denied; free some space or choose another folder."),
    Case("a song in the notebook that is missing", LISTEN.replace("song.wav", "no.wav").replace("START", "0.0"),
         "Cannot read …/no.wav (No such file or directory); give a readable audio file."),
    Case("a song in the notebook that is over before its excerpt", LISTEN.replace("START", "9.0"), "…/song.wav "
         "lasts 0.5 s; choose a song_start before 9 s."),
    # Weights
    Case("weights that are missing", WEIGHTS, "Cannot read …/weights (No such file or directory); give the path of "
         "a generator's weights."),
    Case("a folder without weights", SEPARATE.replace("study/l1-1", "musdb"), "Cannot read "
         "…/musdb/model.safetensors (No such file or directory); give the path of a generator's weights."),
    Case("weights of 0 bytes", WEIGHTS, "…/weights is damaged or not a weights file of this project; get it again, "
         "or give another.", weights(b"")),
    Case("weights that are text", WEIGHTS, FOREIGN, weights(b"no weights " * 99)),
    Case("truncated weights", SEPARATE, "…/study/l1-1/model.safetensors is damaged or not a weights file of this "
         "project; get it again, or give another.", lambda place: truncate(place / "study/l1-1/model.safetensors")),
    Case("truncated weights (gzip)", WEIGHTS, FOREIGN, weights(gzip.compress(bytes(999))[:-9])),
    Case("weights of another program (zip)", WEIGHTS, FOREIGN,
         lambda place: torch.save({"state_dict": {}}, place / "weights")),
    Case("a training's checkpoint for weights", WEIGHTS.replace("weights", "study/l1-1/state.pt"),
         FOREIGN.replace("weights", "study/l1-1/state.pt"), lambda place: None),
    Case("weights of a network of one channel", WEIGHTS, "…/weights makes 4 stems of 1 channel(s) at 44100 Hz; 4 of "
         "2 at 44100 Hz are needed.",
         lambda place: save_weights(Demucs(channels=4, depth=2, audio_channels=1), place / "weights")),
    Case("weights with NaN", WEIGHTS, "The generator's estimates of song are not finite; its weights are damaged.",
         no_numbers),
    Case("weights that would run a program (torch before 1.6)", WEIGHTS, REFUSED, malice(zipped=False)),
    Case("weights that would run a program (zip)", WEIGHTS, REFUSED, malice(zipped=True)),
    Case("weights that would run a program (gzip)", WEIGHTS, REFUSED, malice(zipped=False, packed=True)),
    Case("weights that would run a program (zip in gzip)", WEIGHTS, REFUSED, malice(zipped=True, packed=True)),
    Case("weights that would run a program (a bare pickle)", WEIGHTS, "…/weights ….",
         lambda place: (place / "weights").write_bytes(pickle.dumps(harmful(place)))),
    # What must work
    Case("a silent song", SEPARATE, "works: four silent stems", song(np.zeros((2000, 2))),
         separated("song", 2000, 2, silent=True)),
    Case("a song of one sample", SEPARATE, "works: four stems of one sample", song(np.full((1, 2), 0.5)),
         separated("song", 1, 2, silent=True)),
    Case("a mono song", SEPARATE, "works", song(sound(1)), separated("song", 2000, 1)),
    Case("a song of 48 kHz", SEPARATE, "works", song(sound(), 48_000), separated("song", 2000, 2)),
    Case("a song of 8 bits", SEPARATE, "works", song(sound(), subtype="PCM_U8"), separated("song", 2000, 2)),
    Case("a song of unknown length", SEPARATE, "works: it is read to its end", unknown, separated("song", 22_050, 2)),
    Case("an Ogg that does not say where it ends", SEPARATE, "works: a line says so", unended,
         lambda place, answer: "ends without Ogg's mark of an end" in answer.output),
    Case("a chained Ogg", SEPARATE, "works: both songs are read, and a line says so", joined("OGG"), separated_both),
    Case("two FLAC files joined", SEPARATE, "works: both songs are read, and a line says so", joined("FLAC"),
         separated_both),
    Case("two mp3 files joined", SEPARATE, "works: both songs are read, and a line says so", joined("MP3"),
         separated_both),
    Case("two wav files joined", SEPARATE, "works: both songs are read, and a line says so", joined("WAV"),
         separated_both),
    Case("a song of ten channels without a layout", SEPARATE, "works: their mean is separated, and a line says so",
         song(sound(10)), lambda place, answer: separated("song", 2000, 2)(place, answer)
         and "10 channels without a layout" in answer.output),
    Case("a song whose name ends in a space", f"python -m lib.separate '…/Song .wav' {OUT}", "works: its folder's does "
         "not", lambda place: (place / "song.wav").rename(place / "Song .wav"), separated("Song", 22_050, 2)),
    Case("a song whose name is hard", f"python -m lib.separate '…/{HARD}.wav' {OUT}", "works",
         lambda place: (place / "song.wav").rename(place / f"{HARD}.wav"), separated(HARD, 22_050, 2)),
    # DRAW AUDIO, and the bundled weights
    Case("no name for the drawn page", "python -m lib.draw_audio", "The following arguments are required: OUT.html; "
         "python -m lib.draw_audio --help explains."),
    Case("the drawn page lies below a file", "python -m lib.draw_audio …/song.wav/page.html", "Cannot write "
         "…/song.wav/page.html: …; free some space or choose another folder."),
    Case("the drawn page is a folder", "python -m lib.draw_audio …/study", "Cannot write …/study: Is a directory; "
         "free some space or choose another folder."),
    Case("the drawn page lies in a read-only folder", "python -m lib.draw_audio …/locked/page.html", "Cannot write "
         "…/locked/page.html: Permission denied; free some space or choose another folder."),
    Case("no run to take weights from", "python -m lib.evaluation.bundle …/nowhere --songs …/real",
         "…/nowhere holds no finished training; give the folder of one, such as results/carried/l1-42."),
]  # fmt: skip
