"""Audio files as other programs write them: none loses sound without a word, and no whole file is refused."""

import re
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import RATE

from lib.common.errors import UserError
from lib.data.songs import Song
from lib.data.sound import Sound

SECONDS = {"a": 1.0, "b": 1.2}  # ffmpeg decodes Ogg Vorbis of one page a few samples too long or short


def noise(seconds, rate=RATE, channels=2):
    """(samples, channels) of 16 bits, below 0.3."""
    return np.random.RandomState(channels).randint(-9000, 9000, (round(seconds * rate), channels)).astype(np.int16)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder of a.wav and b.wav, and what ffmpeg makes of them when a test asks for it."""
    folder = tmp_path_factory.mktemp("parts")
    for name, seconds in SECONDS.items():
        soundfile.write(folder / f"{name}.wav", noise(seconds), RATE, subtype="PCM_16")
    return folder


def encoded(parts, name, *options):
    """The bytes of parts/`name`, encoded from the wav file of its first letter."""
    if not (parts / name).exists():
        command = ["ffmpeg", "-v", "error", "-i", parts / f"{name[0]}.wav", *options, parts / name]
        subprocess.run(command, check=True)
    return (parts / name).read_bytes()


def read(tmp_path, content, name="song"):
    """(the `Song` in a file of these bytes, its samples at 44.1 kHz (2, time))."""
    (tmp_path / name).write_bytes(content)
    with tempfile.TemporaryDirectory() as scratch:
        song = Song(tmp_path / name, Path(scratch))
        return song, np.concatenate(list(song.blocks()), axis=1)


def sizes(content, riff=None, data=None):
    """A wav file with other sizes in its header."""
    content, place = bytearray(content), content.index(b"data")
    if riff is not None:
        content[4:8] = struct.pack("<I", riff)
    if data is not None:
        content[place + 4 : place + 8] = struct.pack("<I", data)
    return bytes(content)


def piped(parts, form):
    command = ["ffmpeg", "-v", "error", "-i", parts / "a.wav", "-f", form, "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def large(parts, kind):
    """RF64 or BW64 below 4 GB, as our own separator can write it."""
    soundfile.write(parts / "rf64.wav", noise(SECONDS["a"]), RATE, subtype="PCM_16", format="RF64")
    return kind + (parts / "rf64.wav").read_bytes()[4:]


UNCOMMON = {  # {what: content of a file that holds exactly the samples of a.wav}
    "FLAC of unknown length": lambda parts: piped(parts, "flac"),
    "wav of ffmpeg in a pipe": lambda parts: piped(parts, "wav"),
    "wav of sox in a pipe": lambda parts: sizes(encoded(parts, "a.wav"), 0x7FFFF024, 0x7FFFF000),
    "wav of arecord in a pipe": lambda parts: sizes(encoded(parts, "a.wav"), 0x80000024, 0x80000000),
    "wav of a recorder that stopped": lambda parts: sizes(encoded(parts, "a.wav"), 0, 0),
    "wav whose RIFF size counts the whole file": lambda parts: sizes(
        encoded(parts, "a.wav"), len(encoded(parts, "a.wav"))
    ),
    "RF64 below 4 GB": lambda parts: large(parts, b"RF64"),
    "BW64 below 4 GB": lambda parts: large(parts, b"BW64"),
}


@pytest.mark.parametrize("what", UNCOMMON)
def test_a_header_that_does_not_know_the_length(parts, tmp_path, what):
    """In a song and in a data folder, sample by sample."""
    content = UNCOMMON[what](parts)
    song, audio = read(tmp_path, content)
    np.testing.assert_array_equal(audio.T * 32_768, noise(SECONDS["a"]))
    assert song.frames == audio.shape[1] and not song.remarks


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3", "a.m4a", "a.aiff", "a.au", "a.w64", "a.wv"])
def test_common_files_bring_no_remark(parts, tmp_path, name):
    song, audio = read(tmp_path, encoded(parts, name), name)
    assert not song.remarks and song.channels == 2
    assert audio.shape[1] == pytest.approx(RATE * SECONDS["a"], abs=2048 if name == "a.m4a" else 1)  # AAC pads


def pages(content):
    """The first byte of each Ogg page."""
    return [found.start() for found in re.finditer(rb"OggS\0", content)]


def resealed(content, page, flags, granule):
    """An Ogg file whose last page has other flags and another position, under a right checksum."""
    last = bytearray(content[page:])
    last[5], last[6:14], last[22:26] = flags, struct.pack("<q", granule), bytes(4)
    crc = 0
    for byte in last:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
    last[22:26] = struct.pack("<I", crc)
    return content[:page] + bytes(last)


def test_ogg_without_a_final_position(parts, tmp_path):
    content = encoded(parts, "a.ogg")
    song, audio = read(tmp_path, resealed(content, pages(content)[-1], 4, -1), "song.ogg")
    assert RATE * SECONDS["a"] <= audio.shape[1] < RATE * SECONDS["a"] + 1024 and not song.remarks


def test_ogg_without_an_end_is_said(parts, tmp_path):
    content = encoded(parts, "a.ogg")
    whole = resealed(content, pages(content)[-1], 0, -1)
    song, audio = read(tmp_path, whole, "song.ogg")
    assert audio.shape[1] >= RATE * SECONDS["a"] and "ends without Ogg's mark of an end" in song.remarks[0]
    for length in (pages(content)[-1], len(content) - 100):
        song, _ = read(tmp_path, content[:length], "song.ogg")
        assert "its last part may be missing" in song.remarks[0]


JOINED = [  # two files, and the rate and channels of the song they make
    (("a.ogg",), ("b.ogg",), RATE, 2),
    (("a.ogg",), ("b-48.ogg", "-ar", "48000"), 48_000, 2),
    (("a-mono.ogg", "-ac", "1"), ("b.ogg",), RATE, 2),
    (("a.ogg",), ("b.opus",), 48_000, 2),
    (("a.oga", "-c:a", "flac"), ("b.oga", "-c:a", "flac"), RATE, 2),
    (("a.mp3",), ("b.mp3",), RATE, 2),
    (("a-mono.mp3", "-ac", "1"), ("b.mp3",), RATE, 2),
    (("a.mp3",), ("b-48.mp3", "-ar", "48000"), 48_000, 2),
    (("a.flac",), ("b.flac",), RATE, 2),
    (("a.wav",), ("b.wav",), RATE, 2),
]


@pytest.mark.parametrize(("first", "second", "rate", "channels"), JOINED, ids=str)
def test_recordings_one_after_the_other_are_read_whole(parts, tmp_path, first, second, rate, channels):
    joined, audio = read(tmp_path, encoded(parts, *first) + encoded(parts, *second))
    alone = [read(tmp_path, encoded(parts, *file), file[0])[1] for file in (first, second)]
    np.testing.assert_array_equal(audio, np.concatenate(alone, axis=1))
    assert audio.shape[1] == pytest.approx(RATE * sum(SECONDS.values()), abs=2)  # one per resampling
    assert (joined.samplerate, joined.channels) == (rate, channels)
    assert joined.frames == pytest.approx(rate * sum(SECONDS.values()), abs=2)
    assert joined.remarks == [f"{tmp_path}/song holds 2 recordings, one after the other: all of them are read."]


def test_joined_mp3_without_headers_is_read_whole(parts, tmp_path):
    """Nothing marks where the second begins, but for a tag, which ffmpeg takes for a damaged frame."""
    bare = ["-write_xing", "0", "-id3v2_version", "4"]
    song, audio = read(tmp_path, encoded(parts, "a-bare.mp3", *bare) + encoded(parts, "b-bare.mp3", *bare), "song.mp3")
    assert audio.shape[1] >= RATE * sum(SECONDS.values())
    assert "is damaged in places, which are passed over (ffmpeg: Header missing" in song.remarks[0]


def test_an_ogg_of_several_streams_is_one_recording(parts, tmp_path):
    two = encoded(parts, "a-two.ogg", "-map", "0", "-map", "0")
    song, audio = read(tmp_path, two, "song.ogg")
    assert RATE * SECONDS["a"] <= audio.shape[1] < RATE * SECONDS["a"] + 1024 and not song.remarks


def test_joined_files_with_a_strange_name(parts, tmp_path):
    song, audio = read(tmp_path, encoded(parts, "a.ogg") * 2, "a,,:b #1 %d 'x'.ogg")
    assert audio.shape[1] == 2 * RATE * SECONDS["a"]


@pytest.mark.parametrize("change", [-20, 1, 50])
def test_mp3_whose_header_counts_other_frames(parts, tmp_path, change):
    content = bytearray(encoded(parts, "a.mp3"))
    place = re.search(b"Xing|Info", content).start() + 8
    count = int.from_bytes(content[place : place + 4], "big")
    content[place : place + 4] = (count + change).to_bytes(4, "big")
    song, audio = read(tmp_path, bytes(content), "song.mp3")
    assert audio.shape[1] == 1152 * count, "with the encoder's delay and padding, which only the header could tell"
    assert song.remarks == [
        f"{tmp_path}/song.mp3 holds {count} mp3 frames, not {count + change} as its header says; all are read."
    ]


def test_mp3_without_a_header_is_read_whole(parts, tmp_path):
    content = encoded(parts, "a-varied.mp3", "-write_xing", "0", "-abr", "1", "-b:a", "64k")
    song, audio = read(tmp_path, content, "song.mp3")
    assert audio.shape[1] >= RATE * SECONDS["a"] and not song.remarks


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.aiff", "a.au", "a.w64", "a.caf", "a.wv", "a.mka", "a.webm"]
)
def test_truncation_is_found(parts, tmp_path, name):
    whole = encoded(parts, name)
    with pytest.raises(UserError, match=r"is truncated: |Cannot decode .* give a whole audio file"):
        read(tmp_path, whole[: len(whole) // 2], name)


@pytest.mark.parametrize("what", ["FLAC of unknown length", "RF64 below 4 GB", "BW64 below 4 GB"])
def test_truncation_of_uncommon_files_is_found(parts, tmp_path, what):
    whole = UNCOMMON[what](parts)
    with pytest.raises(UserError, match=r"is truncated: |Cannot decode .* give a whole audio file"):
        read(tmp_path, whole[: len(whole) // 2])


def test_a_damaged_flac_is_refused(parts, tmp_path):
    content = bytearray(encoded(parts, "a.flac"))
    content[len(content) // 2] ^= 16
    with pytest.raises(UserError, match="Cannot decode .*CRC|Cannot decode .*invalid"):
        read(tmp_path, bytes(content), "song.flac")


@pytest.mark.parametrize(("channels", "form"), [(3, "WAV"), (6, "WAV"), (10, "WAV"), (17, "AU"), (6, "W64")])
def test_channels_without_a_layout_have_equal_shares(tmp_path, channels, form):
    audio = noise(0.2, channels=channels)
    soundfile.write(tmp_path / "many", audio, RATE, format=form, subtype="PCM_16")
    song = Song(tmp_path / "many", tmp_path)
    mean = np.broadcast_to(audio.mean(1) / 32_768, (2, len(audio)))
    np.testing.assert_allclose(np.concatenate(list(song.blocks()), axis=1), mean, atol=1e-6)  # float32
    assert song.channels == 2
    assert song.remarks == [
        f"{tmp_path}/many has {channels} channels without a layout: their mean is separated, and the stems sum to that."
    ]


def test_a_sound_is_given_as_it_is(tmp_path):
    soundfile.write(tmp_path / "six.wav", noise(0.1, channels=6), RATE, subtype="PCM_16")
    sound = Sound(tmp_path / "six.wav", tmp_path)
    [blocks] = sound.read(sound.recordings[0])
    np.testing.assert_array_equal(blocks * 32_768, noise(0.1, channels=6))
