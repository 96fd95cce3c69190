"""Whatever the bytes, a reader returns a valid value or raises `UserError` with one sentence that names the file.

Valid documents, mutated: so most examples pass the first checks. The same examples in every run; FUZZ=30 in the
environment makes thirty times as many, which `make test-slow` does.
"""

import copy
import gzip
import io
import json
import math
import os
import struct
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import RATE, SOURCES, count_samples, legacy, outcome, synthetic_stems, write_track

from lib import config, pipeline
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data.decode import read_track
from lib.data.musdb import list_musdb
from lib.data.tracks import Track, read_index
from lib.demucs import Demucs
from lib.evaluation import results
from lib.models.generators import GENERATORS
from lib.models.weights import load_weights, save_weights
from lib.report.guard import notebook_parameters
from lib.runs import checkpoint

FUZZ = int(os.environ.get("FUZZ", "1"))


def examples(count):
    return settings(
        max_examples=count * FUZZ,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# Strategies

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4),
    st.sampled_from([10**400, -(10**18), math.nan, math.inf, "\0", "\ud800", "../..", "1.5", [], {}, [[]], {"": 0}]),
)  # fmt: skip


@st.composite
def altered(draw, document):
    """A JSON document with up to three of its values replaced, removed or doubled, at any depth."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        node, parent = document, None
        while isinstance(node, dict | list) and node and (parent is None or draw(st.integers(0, 3))):
            parent, key = node, draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            node = parent[key]
        if parent is None:
            return copy.deepcopy(draw(odd))
        match draw(st.integers(0, 4)):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(node))
            case _:
                parent[key] = copy.deepcopy(draw(odd))
    return document


@st.composite
def mutated(draw, whole, tokens=(b"\0", b"\xff" * 4, b"\x80", b"[", b'"', b"{")):
    """`whole` with up to four edits: bytes changed, removed, repeated or inserted, or the end cut off."""
    content = bytearray(draw(whole) if isinstance(whole, st.SearchStrategy) else whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "flip", "put", "token", "cut", "repeat", "truncate"])):
            case "flip":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "put":
                content[at:at] = draw(st.binary(max_size=8))
            case "token":
                content[at:at] = draw(st.sampled_from(tokens))
            case "cut":
                del content[at : at + length]
            case "repeat":
                content[at:at] = content[at : at + length] * draw(st.sampled_from([1, 2, 50]))
            case "truncate":
                del content[at:]
    return bytes(content)


def text(document):
    return json.dumps(document).encode()


def either(document):
    """Bytes of a JSON document, altered as a value or as bytes or as both."""
    return altered(document).map(text) | mutated(text(document)) | mutated(altered(document).map(text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# Documents

FRAME = {"time": 0.0, "duration": 1.0, "metrics": {"SDR": 1.5, "ISR": 2.0, "SIR": math.nan, "SAR": math.inf}}
MUSEVAL = {"targets": [{"name": name, "frames": [FRAME, FRAME]} for name in SOURCES]}


@examples(250)
@given(content=either(MUSEVAL), packed=st.booleans())
def test_museval(folder, content, packed):
    place = folder / f"museval-{packed}"
    place.mkdir(exist_ok=True)
    path = place / ("A - B.json" + ".gz" * packed)
    content = gzip.compress(content, 1) if packed else content
    table = outcome(lambda path: results.read_museval(path.parent), path, content, names="A - B")
    if table is not None:
        assert set(table) == {"track", "target", *results.METRICS, "frames"} and len(table)
        assert all(table[name].dtype == float for name in results.METRICS)
        table.to_csv(place / "table.csv")


@examples(60)
@given(content=mutated(gzip.compress(text(MUSEVAL))))
def test_museval_packed(folder, content):
    (folder / "packed").mkdir(exist_ok=True)
    outcome(lambda path: results.read_museval(path.parent), folder / "packed" / "A - B.json.gz", content)


LINES = [{"step": k, "l1_batches": 0.5, "parts": {"all": {"r_t": 0.1}}, "histogram": [1, 2]} for k in (1, 2, 3)]


def lines(documents):
    return b"\n".join([*map(text, documents), b""]) if isinstance(documents, list) else text(documents)


@examples(150)
@given(content=altered(LINES).map(lines) | mutated(lines(LINES)))
def test_metrics(folder, content):
    table = outcome(lambda path: results.read_metrics(path.parent), folder / "metrics.jsonl", content)
    if table is not None:
        assert table["step"].map(lambda step: isinstance(step, int)).all()


CONFIG = {"config": {"data": "results/quick/data.json", "steps": 5, "lr": 1e-3, "compile": False}, "finished": True}


@examples(150)
@given(content=either(CONFIG))
def test_config(folder, content):
    parsed = outcome(lambda path: config.parse([], path.parent), folder / "config.json", content, names="")
    assert parsed is None or isinstance(parsed, config.Config)


TRACK = {"name": "A - B", "path": "a.npy", "samples": 9, "mean": 0.0, "std": 0.5, "source": "1"}
INDEX = {"digest": "12", "sets": {"train": [TRACK, TRACK], "valid": [TRACK]}}


@examples(150)
@given(content=either(INDEX))
def test_index(folder, content):
    read = outcome(read_index, folder / "data.json", content)
    for tracks in read[0].values() if read else ():
        assert all(isinstance(track, Track) and track.samples / track.std > 0 for track in tracks)


@pytest.fixture(scope="module")
def profiles(folder):
    """A temporary notebooks folder with the real notebooks' parameters."""
    known = {}
    for step in pipeline.STEPS:
        known |= notebook_parameters(ROOT / "notebooks" / f"{step}.ipynb")
    (folder / "profiles").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "NOTEBOOKS", folder)
        patch.setattr("lib.report.profile._declared", lambda notebooks: known)
        yield folder / "profiles"


PROFILE = yaml.safe_load((ROOT / "notebooks" / "profiles" / "gpu.yaml").read_text())
YAML = [
    b"&a ",
    b"*a",
    b"!!int ",
    b"!!set ",
    b"- ",
    b"? ",
    b": ",
    b"<<: ",
    b"0x",
    b"1:59",
    b".nan",
    b"|\n ",
    b"\t",
    b"---\n",
]


@examples(200)
@given(
    content=altered(PROFILE).map(lambda value: yaml.safe_dump(value).encode(errors="surrogatepass"))
    | mutated(yaml.safe_dump(PROFILE).encode(), YAML)
    | mutated((ROOT / "notebooks/profiles/gpu.yaml").read_bytes(), YAML)
)
def test_profile(profiles, content):
    parameters = outcome(lambda path: pipeline.read_profile(path.stem), profiles / "mine.yaml", content, names="")
    if parameters is not None:
        json.dumps(parameters, sort_keys=True).encode()


@examples(150)
@given(
    word=st.text(max_size=30)
    | st.builds(
        lambda name, value: f"{name}={value}",
        st.sampled_from(sorted(PROFILE)),
        st.text(max_size=12)
        | st.sampled_from(["*a", "&a [*a]", "!!int x", "1:2:3.5", "0x" + "f" * 5000, "[" * 5000, "2024-99-99"]),
    )
)
def test_words(profiles, word):
    (profiles / "plain.yaml").write_text("seeds: [1]")
    try:
        json.dumps(pipeline.read_profile("plain", [word]), sort_keys=True).encode()
    except UserError as error:
        assert "\n" not in str(error)


MUSDB = {"samplerate": 44100, "validation_tracks": ["A - B", "C - D"]}


@examples(120)
@given(content=altered(MUSDB).map(lambda value: yaml.safe_dump(value).encode(errors="surrogatepass"))
       | mutated(yaml.safe_dump(MUSDB).encode(), YAML))  # fmt: skip
def test_musdb_settings(folder, content):
    for name in ("A - B", "C - D", "E - F"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        for stem in ("mixture", *SOURCES):
            (folder / "train" / name / f"{stem}.wav").write_bytes(b"RIFF")
    found = outcome(lambda path: list_musdb(path.parent), folder / "musdb.yaml", content)
    assert found is None or len(found["train"]) + len(found["valid"]) == 3


@examples(100)
@given(
    names=st.lists(
        st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, 47} and name.strip(b".")),
        max_size=4,
        unique=True,
    ),
    kinds=st.lists(st.sampled_from(["folder", "file", "stem"]), min_size=4, max_size=4),
)
def test_musdb_names(tmp_path_factory, names, kinds):
    root = tmp_path_factory.mktemp("names")
    (root / "train").mkdir()
    for name, kind in zip(names, kinds, strict=False):
        path = root / "train" / os.fsdecode(name + b".stem.mp4" * (kind == "stem"))
        path.mkdir() if kind == "folder" else path.touch()
    try:
        json.dumps(sorted(list_musdb(root)["train"]), ensure_ascii=False).encode()
    except UserError as error:
        assert str(root) in str(error) and str(error).isprintable()


# Numbers


def is_sound(model):
    return all(p.dtype == torch.float32 and p.device.type == "cpu" and p.is_contiguous() for p in model.parameters())


@pytest.fixture(scope="module")
def small():
    return Demucs(channels=1, depth=1, lstm_layers=1)


@pytest.fixture(scope="module")
def written(folder, small):
    """{kind: bytes} of an original checkpoint in both containers, this project's weights, and a training state."""
    original = type("Demucs", (), {"__module__": "demucs.model", "__qualname__": "Demucs"})
    save_weights(small, folder / "weights")
    checkpoint.save_state(folder, {"step": 1, "generator": small.state_dict(), "sums": [{}]})
    found = {"weights": (folder / "weights").read_bytes(), "state": (folder / "state.pt").read_bytes()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "demucs", types.ModuleType("demucs"))
        patch.setitem(sys.modules, "demucs.model", types.SimpleNamespace(Demucs=original))
        for kind, zipped in (("zip", True), ("older", False)):
            content = original, (4, 2), dict(channels=1, depth=1, lstm_layers=1), small.state_dict()
            torch.save(content, folder / kind, _use_new_zipfile_serialization=zipped)
            found[kind] = (folder / kind).read_bytes()
    return found


OPCODES = [
    bytes([code])
    for code in b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}]){\x80\x81\x82\x85\x86\x87\x88\x8a\x8c\x8f\x93\x94\x96"
]


@examples(400)
@given(draw=st.data(), kind=st.sampled_from(["zip", "older"]), packed=st.booleans())
def test_published(folder, written, draw, kind, packed):
    content = written[kind]
    if kind == "zip" and draw.draw(st.booleans()):  # within the archive, whose checksums would hide it
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        chosen = draw.draw(st.sampled_from(sorted(parts)))
        parts[chosen] = draw.draw(mutated(parts[chosen], OPCODES))
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)
        content = whole.getvalue()
    else:
        content = draw.draw(mutated(content, OPCODES))
    model = outcome(Demucs.load_published, folder / "demucs.th", gzip.compress(content, 1) if packed else content)
    assert model is None or is_sound(model)


@examples(150)
@given(draw=st.data())
def test_weights(folder, written, draw):
    model = outcome(load_weights, folder / "model.safetensors", draw.draw(mutated(written["weights"])))
    assert model is None or is_sound(model)


@examples(60)
@given(
    header=altered({"channels": 1, "depth": 1, "lstm_layers": 1, "growth": 2.0}),
    name=st.sampled_from(sorted(GENERATORS)),
)
def test_arguments_of_weights(folder, small, header, name):
    content = safetensors.torch.save(small.state_dict(), {name: json.dumps(header)})
    model = outcome(load_weights, folder / "model.safetensors", content)
    assert model is None or is_sound(model)


@examples(100)
@given(draw=st.data())
def test_state(folder, written, draw):
    (folder / "run").mkdir(exist_ok=True)
    path = folder / "run" / "state.pt"
    outcome(lambda path: checkpoint.load_state(path, "cpu"), path, draw.draw(mutated(written["state"])))


NPY = io.BytesIO()
np.save(NPY, np.ones((5, 2, 100), np.int16))


@examples(200)
@given(content=mutated(NPY.getvalue(), [b"(" * 99, b"9" * 30, b"O", b"|", b"'", b"\xff", b"PK\3\4"]))
def test_audio(folder, content):
    read = Track("A - B", str(folder / "a.npy"), 100, 0.0, 1.0, "").audio
    audio = outcome(lambda path: read(), folder / "a.npy", content)
    assert audio is None or (audio.dtype == np.int16 and audio.shape == (5, 2, 100))


def encoded(form, frames=300):
    whole = io.BytesIO()
    soundfile.write(whole, np.sin(np.arange(2 * frames)).reshape(-1, 2) / 9, RATE, format=form)
    return whole.getvalue()


FORMS = {form: encoded(form) for form in ("WAV", "RF64", "FLAC", "OGG", "AU", "CAF", "W64", "AIFF")}
CHUNKS = [b"data", b"fmt ", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x01\0\0\0"]


@pytest.fixture(scope="module")
def track(folder):
    write_track(folder / "wav" / "A - B", synthetic_stems(1, 300 / RATE))
    return folder / "wav" / "A - B"


@examples(60)  # 0.2 s each for all but WAV and RF64: ffmpeg
@given(draw=st.data(), form=st.sampled_from(["WAV", "WAV", "WAV", *FORMS]))
def test_track(track, draw, form):
    content = draw.draw(mutated(FORMS[form], CHUNKS))
    read = outcome(lambda path: read_track(path.parent), track / "drums.wav", content, names=str(track))
    assert read is None or (read[0].dtype == np.int16 and read[0].shape == (5, 2, 300) and read[1] >= 1)


@examples(25)  # the same
@given(draw=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_song(tmp_path_factory, draw, form):
    path = tmp_path_factory.mktemp("song") / "song.wav"
    read = outcome(count_samples, path, draw.draw(mutated(FORMS[form], CHUNKS)))
    assert read is None or read >= 0


@examples(5)  # 0.4 s each: ffmpeg
@given(draw=st.data())
def test_stem_file(folder, real_excerpt, draw):
    content = draw.draw(mutated(real_excerpt.read_bytes()))
    outcome(read_track, folder / "A - B.stem.mp4", content)


def test_what_is_mutated_is_valid(folder, profiles, written, track):
    """Otherwise the readers would refuse all examples above at once."""
    for read, path, content in (
        (lambda path: results.read_museval(path.parent), folder / "valid" / "A - B.json", text(MUSEVAL)),
        (lambda path: results.read_metrics(path.parent), folder / "metrics.jsonl", lines(LINES)),
        (lambda path: config.parse([], path.parent), folder / "config.json", text(CONFIG)),
        (read_index, folder / "data.json", text(INDEX)),
        (lambda path: pipeline.read_profile(path.stem), profiles / "mine.yaml", yaml.safe_dump(PROFILE).encode()),
        (Demucs.load_published, folder / "demucs.th", written["zip"]),
        (Demucs.load_published, folder / "demucs.th", written["older"]),
        (load_weights, folder / "model.safetensors", written["weights"]),
        (lambda path: checkpoint.load_state(path, "cpu"), folder / "state.pt", written["state"]),
        (lambda path: read_track(path.parent), track / "drums.wav", FORMS["WAV"]),
        (Track("A - B", str(folder / "a.npy"), 100, 0.0, 1.0, "").audio, folder / "a.npy", NPY.getvalue()),
    ):
        path.parent.mkdir(exist_ok=True)
        assert outcome(read if path.suffix != ".npy" else lambda _, read=read: read(), path, content) is not None


# Pickles that would run something: each leaves a trace if it does

CALLS = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.call",
    "torch.hub.load",
    "numpy.load",
    "torch.load",
    "pickle.loads",
    "builtins.getattr",
    "torch._utils._rebuild_tensor",
    "demucs.model.Demucs.x",
]


def streams(module, name, argument):
    """Every way for a pickle to call `module.name` with a text."""
    function, word = f"c{module}\n{name}\n".encode(), b"X" + struct.pack("<I", len(argument)) + argument
    stacked = (
        b"X" + struct.pack("<I", len(module)) + module.encode() + b"X" + struct.pack("<I", len(name)) + name.encode()
    )
    yield function + b"(" + word + b"tR"
    yield function + word + b"\x85R"
    yield b"(" + word + f"i{module}\n{name}\n".encode()
    yield b"(" + function + word + b"o"
    yield function + word + b"\x85\x81"
    yield function + word + b"\x85}\x92"
    yield stacked + b"\x93" + word + b"\x85R"
    yield function + word + b"b"
    yield b"}" + word + function + b"sb"
    yield b"ccollections\nOrderedDict\n)R}X\x0c\0\0\0__setstate__" + function + b"sb" + word + b"b"
    yield b"(X\x06\0\0\0module" + function + word + word + b"tQ" + word + b"\x85R"


@pytest.mark.parametrize("container", ["zip", "older", "pickle"])
@pytest.mark.parametrize("call", CALLS)
def test_nothing_in_a_pickle_runs(tmp_path, call, container):
    trace, (module, name) = tmp_path / "trace", call.rsplit(".", 1)
    for argument in (f"touch {trace}", f"open({str(trace)!r}, 'w')"):
        for k, stream in enumerate(streams(module, name, argument.encode())):
            pickled = b"\x80\x02" + stream + b"."
            whole = io.BytesIO()
            if container == "zip":
                with zipfile.ZipFile(whole, "w") as archive:
                    archive.writestr("archive/data.pkl", pickled)
            content = {"zip": whole.getvalue(), "older": legacy(pickled), "pickle": pickled}[container]
            path = tmp_path / f"{k}.th"
            for read in (
                Demucs.load_published,
                load_weights,
                lambda path: checkpoint.load_state(path, "cpu"),
            ):
                assert outcome(read, path, content) is None
    assert not trace.exists()


@pytest.mark.slow
def test_many_more_examples():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", __file__],
        env=os.environ | {"FUZZ": "30"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
