"""Processes that do not outlive the one that needs them, and what killed ones left half-written."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from lib.common.errors import UserError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # found now: not in a child between fork and exec


def end_with_parent(by=signal.SIGKILL):
    """Have Linux send the signal `by` to this process when its parent ends, even by SIGKILL. Elsewhere: nothing.

    A worker would wait for ever for more work. It may be the `preexec_fn` of a command.
    """
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, int(by))


@contextlib.contextmanager
def workers(count, initialise=None):
    """A pool of `count` processes; each calls `initialise`. They end with this one, even when it is killed.

    Raises `UserError` when one of them is killed.
    """
    spawn = multiprocessing.get_context("spawn")  # a process with threads, or with CUDA, must not be forked
    try:
        with ProcessPoolExecutor(count, spawn, _begin, (initialise,)) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process was killed, perhaps for want of memory; run again, it goes on from there."
        ) from error


def _begin(initialise):
    end_with_parent()
    if os.getppid() != multiprocessing.parent_process().pid:  # it has ended while this process was starting
        os._exit(1)
    if initialise:
        initialise()


def mark():
    """The end of the name of what this thread of this process writes and will rename."""
    return f".{threading.get_native_id()}.{os.getpid()}.tmp"


def abandoned(paths):
    """Those of `paths` that bear the `mark` of a process that has ended."""
    return [path for path in paths if (number := path.name.split(".")[-2]).isdigit() and not _runs(int(number))]


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
