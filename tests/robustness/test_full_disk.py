"""Every kind of write meets a disk without room: one sentence, no half file, and what was there stays.

A limit on the size of files stands for the full disk: the system refuses a write in the middle, just so. The whole
report on a disk that really is full: tests/robustness/test_killed.py.
"""

import contextlib
import resource
import shutil
from functools import partial
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from support import tiny

from lib import corpus, pipeline
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.data import decode
from lib.data import tracks as data
from lib.demucs import Demucs
from lib.evaluation import probe
from lib.evaluation import score as evaluate
from lib.models.weights import save_weights
from lib.report import front_page
from lib.report import pages as site
from lib.report import tables as report
from lib.runs.checkpoint import append_line, save_state
from lib.runs.folders import claim
from lib.separate.songs import separate_song


@contextlib.contextmanager
def room(size):
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Demucs(channels=4, depth=3, lstm_layers=0)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    save_weights(network, tmp_path_factory.mktemp("weights") / "model.safetensors")
    return tmp_path_factory.getbasetemp() / "weights0" / "model.safetensors"


@pytest.fixture(scope="module")
def song(musdb_folder):
    return musdb_folder / "test" / "Band 10 - Song" / "mixture.wav"


@pytest.fixture(scope="module")
def tracks(index):
    return data.read_index(index)[0]["test"][:1]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "01-loud.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell("print('x' * 20_000)")], metadata=kernel), path)
    return path


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Without worker processes, whose start takes seconds."""
    pool = lambda *_: contextlib.nullcontext(SimpleNamespace(map=map))  # noqa: E731
    monkeypatch.setattr(evaluate, "processes", pool)
    monkeypatch.setattr(probe, "workers", pool)


def run_without(out, *kinds):
    """The committed small run in `out`, without files of these kinds."""
    return shutil.copytree(ROOT / "results" / "quick", out, ignore=shutil.ignore_patterns(*kinds), dirs_exist_ok=True)


one_song = dict(train=1, valid=0, test=0, shifted=0, seconds=4.0)
one_cell = dict(cells=[(4, 1.0, 2, 1)], steps=1, passes=1, seconds=0.1)
WRITES = {  # what is written, and the call that writes it into the folder `out`; `a` gives a fixture by its name
    "a song of the corpus": lambda out, a: partial(corpus.generate, out / "corpus", **one_song),
    "a decoded track": lambda out, a: partial(decode.decode, {"A - B": a("song").parent}, out),
    "a data index": lambda out, a: partial(data.write_index, out / "data.json", {"test": a("tracks")}),
    "a run's parameters": lambda out, a: partial(claim, tiny(a("index")), out / "l1-1"),
    "a training state": lambda out, a: partial(save_state, out, {"step": 1, "G": a("network").state_dict()}, keep=2),
    "a line of a log": lambda out, a: partial(append_line, out / "metrics.jsonl", {"step": 1, "l1_heldout": 0.25}),
    "weights": lambda out, a: partial(save_weights, a("network"), out / "model.safetensors"),
    "scores": lambda out, a: partial(evaluate.evaluate_set, a("tracks"), out / "mixture" / "eval" / "test"),
    "a D-probe": lambda out, a: partial(probe.run, out, a("index"), a("weights"), **one_cell),
    "the tables": lambda out, a: partial(report.write_tables, run_without(out, "*.csv")),
    "an executed notebook": lambda out, a: partial(pipeline._execute, a("notebook"), out / "01-loud.ipynb", {}),
    "a page": lambda out, a: partial(
        site.write_page, ROOT / "results/quick/01-data.ipynb", out / "01-data.html", ["01-data"]
    ),
    "the front page": lambda out, a: partial(front_page.write_index, run_without(out, "*.html", "*.png"), ["01-data"]),
    "stems": lambda out, a: partial(separate_song, a("network"), a("song"), out),
}


def sizes(folder):
    """{file: bytes} of all that says anything: no locks, no note that a corpus is begun, no empty log."""
    found = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return {path: n for path, n in found.items() if n and path.suffix != ".lock" and ".partial." not in path.name}


@pytest.mark.parametrize("what", WRITES)
def test_a_write_without_room_says_so_and_leaves_nothing_half(what, request, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write_one, write_two = (WRITES[what](folder, request.getfixturevalue) for folder in (one, two))
    before = sizes(two)
    write_one()
    whole = sizes(one)
    half = max(size for path, size in whole.items() if path not in before) // 2
    with room(half), pytest.raises(UserError, match="Cannot write .*free some space"):
        write_two()
    assert sizes(two).items() <= whole.items(), "whole files only"
    write_two()
    assert sizes(two).keys() == whole.keys(), "with room again it goes on"
    kept = {path: (two / path).read_bytes() for path in whole}
    with room(half), contextlib.suppress(UserError):  # what is finished is not written again
        write_two()
    assert {path: (two / path).read_bytes() for path in sizes(two)} == kept, "what was there stays"
