"""Commands as people type them, each in a process of its own that costs milliseconds, not the seconds of torch."""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import re
import runpy
import shlex
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import pytest

from lib.common.errors import UserError
from lib.common.provenance import ROOT

PRELOADED = ("typed", "lib.separate.__main__", "safetensors.torch", "torch._dynamo")
COMMANDS = ("lib.pipeline", "lib.train", "lib.runs.launch", "lib.separate", "lib.draw_audio", "lib.evaluation.bundle")
CALLED = {  # by the notebooks
    "config": "lib.config", "data": "lib.data.tracks", "decode": "lib.data.decode", "musdb": "lib.data.musdb",
    "folders": "lib.runs.folders", "launch": "lib.runs.launch",
    "listen": "lib.report.listen", "sentences": "lib.report.sentences", "report": "lib.report.tables",
    "results": "lib.evaluation.results",
}  # fmt: skip


class Answer(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    output: str
    errors: str
    seconds: float


@contextlib.contextmanager
def server():
    """A process that has imported everything, of which each `run` is a fork; it has one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *COMMANDS, *CALLED.values()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, Path(__file__).parent))))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    yield


def run(text, folder, limit=60):
    """The `Answer` to a command, quoted as in a shell, or to a call of the library in a notebook.

    text: `python -m …`, `torchrun --nproc_per_node N -m …` (so many forks), or Python, of which a `UserError` ends as
    the pipeline would end it; folder: for what is printed; limit: in seconds.
    """
    ranks = int(text.split()[2]) if text.startswith("torchrun ") else 1
    text = re.sub(r"torchrun \S+ \d+", "python", text)
    for name in ("output", "errors"):
        (folder / name).write_text("")
    context, port = multiprocessing.get_context("forkserver"), str(_free_port())
    processes = [context.Process(target=_run, args=(text, folder, rank, ranks, port)) for rank in range(ranks)]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
    status = next((process.exitcode for process in processes if process.exitcode), 0)
    spent = time.monotonic() - began
    return Answer(status, *((folder / name).read_text() for name in ("output", "errors")), spent)


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(text, folder, rank, ranks, port):
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_APPEND | os.O_WRONLY), number)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.chdir(ROOT)
    _bind_permissions()
    if text.startswith("python -m "):
        _, _, module, *arguments = shlex.split(text)
        for name in (module, f"{module}.__main__"):  # what runs is a copy of its own
            sys.modules.pop(name, None)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        try:
            names = {"Path": Path} | {name: importlib.import_module(module) for name, module in CALLED.items()}
            exec(text, names)  # noqa: S102  a call of the table, as a notebook's cell
        except UserError as error:
            sys.exit(str(error))


def _bind_permissions():
    """Give up root's right to pass over the permissions of files: tests may run as root, people do not."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())
