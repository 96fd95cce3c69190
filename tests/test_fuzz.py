"""Whatever the bytes, a reader returns a valid value or raises `UserError` with one sentence that names the file.

Valid documents, mutated: so most examples pass the first checks. The same examples in every run; FUZZ=30 in the
environment makes thirty times as many, which `make test-slow` does.
"""

import copy
import gzip
import json
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import RATE, SOURCES, synthetic_stems, write_track
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bombs import legacy, song

from lib import checkpoint, config, data, decode, generators, pipeline, results
from lib.demucs import Demucs
from lib.errors import UserError
from lib.parameters import notebook_parameters
from lib.provenance import ROOT

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
            return draw(odd)
        match draw(st.integers(0, 4)):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(node))
            case _:
                parent[key] = draw(odd)
    return document


@st.composite
def mutated(draw, whole, tokens=(b"\0", b"\xff" * 4, b"\x80", b"[", b'"', b"{")):
    """`whole` with up to four edits: bytes changed, cut out, repeated, put in, or everything after a place removed."""
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


def outcome(read, path, content, names=None):
    """What `read` made of a file of `content`; None when it raised `UserError` in one line that names it."""
    path.write_bytes(content)
    try:
        return read(path)
    except UserError as error:
        assert (names or str(path)) in str(error) and "\n" not in str(error) and str(error)[-1] in ".?"
        return None


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


LINES = [{"step": k, "l1_train": 0.5, "parts": {"all": {"r_t": 0.1}}, "histogram": [1, 2]} for k in (1, 2, 3)]


@examples(150)
@given(content=altered(LINES).map(lambda lines: b"\n".join(map(text, lines)) if isinstance(lines, list) else text(lines))
       | mutated(b"\n".join(map(text, LINES))))  # fmt: skip
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
    read = outcome(data.read_index, folder / "data.json", content)
    for tracks in read[0].values() if read else ():
        assert all(isinstance(track, data.Track) and track.samples / track.std > 0 for track in tracks)


@pytest.fixture(scope="module")
def profiles(folder):
    """A notebooks folder of our own, with the real notebooks' parameters."""
    known = {}
    for step in pipeline.STEPS:
        known |= notebook_parameters(ROOT / "notebooks" / f"{step}.ipynb")
    (folder / "profiles").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "NOTEBOOKS", folder)
        patch.setattr(pipeline, "notebook_parameters", lambda path: known)
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
    found = outcome(lambda path: decode.list_musdb(path.parent), folder / "musdb.yaml", content)
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
        path = os.path.join(os.fsencode(root / "train"), name + b".stem.mp4" * (kind == "stem"))
        os.mkdir(path) if kind == "folder" else open(path, "wb").close()
    try:
        json.dumps(sorted(decode.list_musdb(root)["train"]), ensure_ascii=False).encode()
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
    """{container: bytes}: a published checkpoint in each, a state, and weights of ours."""
    generators.save_weights(small, folder / "weights")
    checkpoint.save_state(folder, {"step": 1, "generator": small.state_dict(), "sums": [{}]})
    found = {"weights": (folder / "weights").read_bytes(), "state": (folder / "state.pt").read_bytes()}
    whole = (
        type("Demucs", (), {"__module__": "demucs.model", "__qualname__": "Demucs"}),
        (4, 2),
        small.arguments,
        small.state_dict(),
    )
    return found
