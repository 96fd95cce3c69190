"""Files that promise more than they hold, or never end. A separate process reads each; its memory and time are
measured."""

import gzip
import io
import json
import os
import pickle
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support import RATE, SOURCES, count_samples, legacy

from lib import config, pipeline
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data.decode import read_track
from lib.data.musdb import list_musdb
from lib.data.tracks import Track, read_index
from lib.demucs import Demucs
from lib.evaluation import results
from lib.models.weights import load_weights
from lib.runs import checkpoint

MEMORY = 500e6  # bytes; thirty times the largest JSON is 250 MB, and the least of these bombs unpacks to 3 GB
SECONDS = 15  # the slowest takes 3 here, and the machine may be busy
SPACE = 8 * 2**30  # of addresses, for the machine's sake: a reader that asks for them all has failed long before
TERA = 2**40


def profile(path):
    pipeline.NOTEBOOKS = path.parent.parent
    for notebook in (pipeline.ROOT / "notebooks").glob("*.ipynb"):
        (pipeline.NOTEBOOKS / notebook.name).symlink_to(notebook)
    return pipeline.read_profile(path.stem)


def wav_track(path):
    for name in ("mixture", *SOURCES):
        if name != path.stem:
            soundfile.write(path.parent / f"{name}.wav", np.full((100, 2), 0.1), RATE)
    return read_track(path.parent)


def musdb(path):
    (path.parent / "train" / "A - B").mkdir(parents=True)
    return list_musdb(path.parent)


READERS = {  # {name: (reader of a path, the file's name)}
    "museval": (lambda path: results.read_museval(path.parent), "A - B.json"),
    "museval.gz": (lambda path: results.read_museval(path.parent), "A - B.json.gz"),
    "metrics": (lambda path: results.read_metrics(path.parent), "metrics.jsonl"),
    "config": (lambda path: config.parse([], path.parent), "config.json"),
    "index": (read_index, "data.json"),
    "audio": (lambda path: Track("A - B", str(path), 100, 0.0, 1.0, "").audio(), "audio.npy"),
    "profile": (profile, "profiles/bomb.yaml"),
    "musdb": (musdb, "musdb.yaml"),
    "wav": (wav_track, "A - B/drums.wav"),
    "stem": (read_track, "A - B.stem.mp4"),
    "song": (count_samples, "song.wav"),
    "published": (Demucs.load_published, "demucs.th"),
    "weights": (load_weights, "model.safetensors"),
    "state": (lambda path: checkpoint.load_state(path, "cpu"), "state.pt"),
}


# What is in the files


def gzipped_zeros(size):
    part = gzip.compress(bytes(2**24))
    return part * (size // 2**24)


def zipped_zeros(size):
    """A checkpoint of one tensor whose numbers are deflated zeros."""
    packer = zlib.compressobj(wbits=-15)
    part = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # which may be repeated
    body = part * (size // 2**24) + b"\x03\0"
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("archive/data.pkl", described(numel=size // 4, size=(size // 4,)))
        archive.writestr("archive/data/0", body)
    content = bytearray(whole.getvalue())
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = content.rindex(signature)
        struct.pack_into("<H", content, start + place, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", content, start + place + 14, size)
    return bytes(content)


class Named:
    """Pickled as a name, without importing it."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return self.name


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def integer(number):
    return pickle.dumps(number, 2)[2:-1]


def described(numel=4, size=(4,), stride=(1,), keywords=b"}"):
    """The pickle of (Demucs, (), keywords, {"w": a tensor})."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + integer(size) + integer(stride) + b"\x89}tR"
    return b"\x80\x02(cdemucs.model\nDemucs\n)" + keywords + b"}" + text("w") + tensor + b"st."


def keyword(name, value):
    return b"}" + text(name) + value + b"s"


def laughing(key):
    """A pickle of forty nested values, each holding the next twice."""
    return b"\x80\x02K\0" + b"".join(b"q%ch%c\x86" % (k, k) for k in range(40)) + key


def flac(frames):
    """The beginning of a FLAC file that promises so many frames."""
    whole = io.BytesIO()
    soundfile.write(whole, np.zeros((4096, 2)), RATE, format="FLAC")
    content = bytearray(whole.getvalue())
    content[21] |= frames >> 32
    struct.pack_into(">I", content, 22, frames & 0xFFFFFFFF)
    return bytes(content)


def wav(rate=RATE, form="WAV", promised=None):
    whole = io.BytesIO()
    soundfile.write(whole, np.zeros((4096, 2), np.int16), RATE, format=form)
    content = bytearray(whole.getvalue())
    struct.pack_into("<I", content, content.index(b"fmt ") + 12, rate)
    if promised:
        struct.pack_into("<QQ", content, content.index(b"ds64") + 8, promised, promised)
        struct.pack_into("<Q", content, content.index(b"ds64") + 24, promised // 4)
    return bytes(content)


def npy(shape, kind="<i2"):
    whole = io.BytesIO()
    np.lib.format.write_array_header_1_0(whole, {"descr": kind, "fortran_order": False, "shape": shape})
    return whole.getvalue() + bytes(1000)


def safetensors(header):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
RESULT = '{"targets": [{"name": "drums", "frames": [{"metrics": {"SDR": %s, "ISR": 1, "SIR": 1, "SAR": 1}}]}]}'
ARGUMENTS = dict.fromkeys(("channels", "depth", "lstm_layers"), 2)

BOMBS = {  # {what: (reader, content)}
    "gzip of 4 GB": ("museval.gz", lambda: gzipped_zeros(2**32)),
    "16 MB of brackets": ("museval", lambda: b'{"targets": [' + b"[]," * (2**24 // 3) + b"[]]}"),
    "as many brackets as are read": ("museval", lambda: b'{"targets": [' + b"[]," * ((2**23 - 100) // 3) + b"[]]}"),
    "a million brackets deep": ("museval", lambda: b"[" * 10**6),
    "a number of a million digits": ("museval", lambda: RESULT % ("9" * 10**6)),
    "a number above all floats": ("museval", lambda: RESULT % ("9" * 400)),
    "every line another figure": (
        "metrics",
        lambda: "".join(f'{{"step": {k}, "f{k}": 1}}\n' for k in range(50_000)),
    ),
    "a line a million brackets deep": ("metrics", lambda: '{"step": 1}\n' + "[" * 10**6 + "\n{}\n"),
    "parameters nested": ("config", lambda: '{"config": ' * 10**5),
    "an index nested": ("index", lambda: '{"sets": ' * 10**5),
    "a terabyte of samples": ("audio", lambda: npy((5, 2, TERA // 20))),
    "a million dimensions": ("audio", lambda: npy((1,) * 4000)),
    "a header nested": ("audio", lambda: b"\x93NUMPY\x02\0" + struct.pack("<I", 9000) + b"(" * 9000),
    "a billion laughs in a profile": ("profile", lambda: LAUGHS),
    "itself": ("profile", lambda: "seeds: &a [*a]"),
    "a profile of 10 MB of brackets": ("profile", lambda: "[" * 10**7),
    "a profile of brackets": ("profile", lambda: "[" * (2**18 - 1)),
    "a profile of question marks": ("profile", lambda: "? " * (2**17 - 1)),
    "a profile's number of 5,000 digits": ("profile", lambda: "nproc: " + "9" * 5000),
    "a profile's number without end": ("profile", lambda: "nproc: 0x" + "f" * 10**5),
    "a profile's number of base 60": ("profile", lambda: "nproc: 1" + ":59" * 80_000),
    "a profile that is no text": ("profile", lambda: 'run: "\\ud800\\0"'),
    "a profile that runs": ("profile", lambda: "run: !!python/object/apply:os.system ['touch /tmp/ran']"),
    "a billion laughs in musdb.yaml": ("musdb", lambda: LAUGHS + "validation_tracks: *a39"),
    "musdb.yaml nested": ("musdb", lambda: "validation_tracks: " + "[" * 10**5),
    "RF64 of a terabyte": ("wav", lambda: wav(form="RF64", promised=TERA)),
    "FLAC of 2^36 samples": ("wav", lambda: flac(2**36 - 1)),
    "song, FLAC of 2^36 samples": ("song", lambda: flac(2**36 - 1)),
    "song at 1 Hz": ("song", lambda: wav(rate=1)),
    "song at 2 GHz": ("song", lambda: wav(rate=2**31 - 1)),
    "zip of 3 GB": ("published", lambda: zipped_zeros(3 * 2**30)),
    "state, zip of 3 GB": ("state", lambda: zipped_zeros(3 * 2**30)),
    "a pickle of as many memos": ("published", lambda: legacy(b"\x80\x02Nr" + struct.pack("<I", 10**9) + b".")),
    "a text of 4 GB": ("published", lambda: legacy(b"\x80\x02X\xff\xff\xff\xff.")),
    "8 GB of bytes": ("published", lambda: legacy(b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".")),
    "a terabyte of numbers": ("published", lambda: legacy(described(numel=TERA, size=(TERA,)), bytes(16))),
    "one number for a terabyte": ("published", lambda: legacy(described(size=(TERA,), stride=(0,)), bytes(16))),
    "one number for 4 GB": ("published", lambda: legacy(described(size=(2**30,), stride=(0,)), bytes(16))),
    "a key of keys": ("published", lambda: legacy(laughing(b"q\x64}h\x64K\0s."))),
    "a key a million deep": ("published", lambda: legacy(b"\x80\x02}K\0" + b"\x85" * 900_000 + b"K\0s.")),
    "a protocol within itself": (
        "published",
        lambda: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + laughing(b"."),
    ),
    "layers without end": (
        "published",
        lambda: legacy(described(keywords=keyword("depth", integer(10**9))), bytes(16)),
    ),
    "LSTM layers without end": (
        "published",
        lambda: legacy(described(keywords=keyword("lstm_layers", integer(10**9))), bytes(16)),
    ),
    "a header of exabytes": ("weights", lambda: struct.pack("<Q", 2**62) + b"{}"),
    "a header of 90 MB": ("weights", lambda: safetensors(b'{"__metadata__":{' + b'"a":"",' * 13 * 10**6 + b'"a":""}}')),
    "weights of a terabyte": (
        "weights",
        lambda: safetensors({"w": {"dtype": "F32", "shape": [TERA // 4], "data_offsets": [0, TERA]}}),
    ),
    "weights without end": (
        "weights",
        lambda: safetensors({"__metadata__": {"conv_tasnet": json.dumps(ARGUMENTS | {"depth": 10**9})}}),
    ),
    "arguments nested": ("weights", lambda: safetensors({"__metadata__": {"demucs": "[" * 10**5}})),
}  # fmt: skip


def serve():
    """For each line "reader path" on stdin, one on stdout: the kind of outcome, its text, bytes of memory, seconds."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        name, path = json.loads(line)
        if not (child := os.fork()):
            signal.alarm(SECONDS)  # ends the process
            print(json.dumps(_read(READERS[name][0], Path(path))), flush=True)
            os._exit(0)
        if status := os.waitpid(child, 0)[1]:
            print(json.dumps(("death", f"signal {status}", 0, SECONDS)), flush=True)


def _read(read, path):
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    idle, began = _status("VmRSS"), time.monotonic()
    try:
        outcome = "value", str(type(read(path)))
    except UserError as error:
        outcome = "sentence", str(error)
    except BaseException as error:
        outcome = "traceback", repr(error)[:500]
    return *outcome, _status("VmHWM") - idle, time.monotonic() - began


def _status(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.fixture(scope="module")
def reading():
    """A process that has imported everything, and forks for each file."""
    command = [sys.executable, "-c", "import test_bombs; test_bombs.serve()"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/robustness"))),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        process.stdin.close()


def check(reading, name, path):
    reading.stdin.write(json.dumps((name, str(path))) + "\n")
    kind, outcome, memory, seconds = json.loads(reading.stdout.readline())
    print(f"{name:<12} {memory / 1e6:6.0f} MB {seconds:6.2f} s  {outcome.replace(str(path.parent), '')[:150]}")
    assert kind == "sentence", outcome
    assert path.name in outcome or str(path.parent) in outcome
    assert "\n" not in outcome and len(outcome) < 1000
    assert memory < MEMORY and seconds < SECONDS


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_little_memory_and_time(reading, tmp_path, bomb):
    name, content = BOMBS[bomb]
    path = tmp_path / READERS[name][1]
    path.parent.mkdir(exist_ok=True)
    content = content()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(reading, name, path)


@pytest.mark.slow
def test_a_checkpoint_that_unpacks_to_4_gb_is_refused(reading, tmp_path):
    """Half of them are unpacked to disk, up to twice the size of the largest published checkpoint."""
    (tmp_path / "demucs.th").write_bytes(gzipped_zeros(2**32))
    check(reading, "published", tmp_path / "demucs.th")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "terabyte", "folder", "broken link", "itself"])
def test_what_is_no_file_or_never_ends_is_refused(reading, tmp_path, name, kind):
    if (name == "musdb" and kind != "terabyte") or (name == "config" and kind in ("broken link", "itself")):
        return  # is as if it were absent, which is no error
    path = tmp_path / READERS[name][1]
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "terabyte":  # of holes
        path.touch()
        os.truncate(path, TERA)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "itself" else tmp_path / "nowhere")
    check(reading, name, path)
