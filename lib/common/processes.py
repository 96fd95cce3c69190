"""Worker processes that end with their parent, and the temporary files of killed processes."""

import codecs
import contextlib
import ctypes
import functools
import locale
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

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

    Where processes cannot share locks, the pool is this process. Raises `UserError` if one of them is killed.
    """
    if not can_share():
        if initialise:
            initialise()
        yield SimpleNamespace(map=map)
        return
    spawn = multiprocessing.get_context("spawn")  # forking is unsafe with threads or CUDA
    try:
        with ProcessPoolExecutor(count, spawn, _begin, (initialise,)) as pool:
            yield pool
    except BrokenProcessPool as error:
        cause = "A worker process was killed, perhaps for want of memory; run again, it goes on from there."
        raise UserError(cause) from error


@functools.cache
def can_share():
    """Whether processes can share locks, for which Linux needs a writable /dev/shm; if not, a line says so, once."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:  # ImportError: a system without semaphores
        print(f"Processes cannot share locks here (/dev/shm: {error}): one process does all the work.", flush=True)
        return False
    return True


def use_utf8():
    """Start this command again in Python's UTF-8 mode if the locale is an old one, which cannot write every name.

    Also lets names of files that are no UTF-8 pass through the output as they are.
    """
    old = not sys.flags.utf8_mode and codecs.lookup(locale.getencoding()).name != "utf-8"
    if old and os.environ.get("PYTHONUTF8") != "1":  # not again, where Python was told to ignore it
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  this command itself
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")


def command(main):
    """Run `main` as a program: in UTF-8, with a `UserError` as its last line, and what it returns as its status."""
    use_utf8()
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; what is finished is kept, and the same command goes on from there.")


def open_streams():
    """Open standard streams that were closed when this process began: its files would take their numbers.

    What a closed standard error would have got goes to the output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or sys.stdout


def name_home():
    """Name a home for a user who has none, neither in HOME nor in the list of users: matplotlib asks for it."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"  # as Debian names it; programs then use temporary folders


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
