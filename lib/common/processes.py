"""Worker processes that end with their parent, and the temporary files of killed processes."""

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
# Loaded now, as a child must not do so between fork and exec
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(by=signal.SIGKILL):
    """Make Linux send the signal `by` to this process when its parent ends, even by SIGKILL; elsewhere, do nothing."""
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, int(by))


def keep_buffers():
    """With glibc, keep the memory of freed arrays and tensors: a new large buffer costs a page fault per 4 KiB."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large buffers come from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink


@contextlib.contextmanager
def workers(count, initialise=None):
    """Yield a pool of `count` processes, each of which calls `initialise` first. They end with this process.

    Raises `UserError` if one of them is killed.
    """
    spawn = multiprocessing.get_context("spawn")  # forking is unsafe with threads or CUDA
    try:
        with ProcessPoolExecutor(count, spawn, _begin, (initialise,)) as pool:
            yield pool
    except BrokenProcessPool as error:
        cause = "A worker process was killed, perhaps for want of memory; run again, it goes on from there."
        raise UserError(cause) from error


def _begin(initialise):
    end_with_parent()
    if os.getppid() != multiprocessing.parent_process().pid:  # the parent ended while this process was starting
        os._exit(1)
    if initialise:
        initialise()


def mark():
    """Suffix for temporary names, which identifies this thread and process."""
    return f".{threading.get_native_id()}.{os.getpid()}.tmp"


def abandoned(paths):
    """The `paths` whose `mark` names a process that has ended."""
    return [path for path in paths if (number := path.name.split(".")[-2]).isdigit() and not _runs(int(number))]


def _runs(pid):
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's process
    return True
