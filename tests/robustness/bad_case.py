"""What the cases of bad input are made of."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lib.common.provenance import ROOT

# A profile and a run of one's own, both called MINE in the cases; several processes may run them at once.
MINE = ROOT / "notebooks" / "profiles" / f"mine-{os.getpid()}.yaml"
MINE_RUN = ROOT / "results" / MINE.stem


class Case(NamedTuple):
    """One bad input. "…/" is the folder in which every case finds the same things, a lone "…" any text.

    typed: the command, or the call that a notebook makes; says: the whole of what the error stream gets, or "works",
    and how; make: makes the input bad, given the folder; check: whether it did work, given the folder and the answer;
    names: what NAME in the command and in the sentence stands for, one after another.
    """

    what: str
    typed: str
    says: str
    make: Callable = lambda place: None
    check: Callable = lambda place, answer: True
    names: tuple = ()

    @property
    def works(self):
        return self.says.startswith("works")


def rewrite(path: Path, change: Callable):
    """Let `change` alter the JSON value in `path`."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


class Malice:
    """Unpickling it makes a file in the folder of the case."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place / "it ran"),)


def harmful(place):
    """A `Malice` that is known to act."""
    pickle.loads(pickle.dumps(Malice(place)))  # noqa: S301  our own
    (place / "it ran").rmdir()
    return Malice(place)


def truncate(path: Path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
