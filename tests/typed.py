"""Commands as people type them, each in a process of its own that costs milliseconds instead of the seconds of torch."""

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
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import pytest

from lib.errors import UserError
from lib.provenance import ROOT

COMMANDS = ("lib.pipeline", "lib.train", "lib.launch", "lib.separate", "lib.draw_audio", "lib.weights")
CALLED = ("config", "data", "decode", "launch", "listen", "readings", "report", "results")  # by the notebooks


class Answer(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    output: str
    errors: str


@contextlib.contextmanager
def server():
    """A process that has imported everything, of which each `run` is a fork; it has one thread."""
    context = multiprocessing.get_context("forkserver")
    called = (f"lib.{name}" for name in CALLED)
    context.set_forkserver_preload(["typed", *called, *COMMANDS, "lib.weights.__main__", "safetensors.torch", "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(Path(__file__).parent))))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    yield


def run(text, folder, limit=60):
    """The `Answer` to a command (`python -m …` or `torchrun --nproc_per_node N -m …`, quoted as in a shell) or to a call
    of the library in a notebook.

    folder: for what is printed. A `UserError` of a call ends as the pipeline would end it; ranks are as many forks.
    """
    ranks = int(text.split()[2]) if text.startswith("torchrun ") else 1
    text = re.sub(r"torchrun \S+ \d+", "python", text)
    for name in ("output", "errors"):
        (folder / name).write_text("")
    context, port = multiprocessing.get_context("forkserver"), str(_free_port())
    processes = [context.Process(target=_run, args=(text, folder, rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
    status = next((process.exitcode for process in processes if process.exitcode), 0)
    return Answer(status, *((folder / name).read_text() for name in ("output", "errors")))


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
            exec(text, {"Path": Path} | {name: importlib.import_module(f"lib.{name}") for name in CALLED})
        except UserError as error:
            sys.exit(str(error))


def _bind_permissions():
    """Give up root's right to pass over the permissions of files: tests may run as root, people do not."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())
