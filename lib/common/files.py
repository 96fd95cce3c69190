"""Atomic writes, so that no reader and no resumed run finds half a file; locked folders; JSON."""

import contextlib
import fcntl
import fnmatch
import glob
import hashlib
import json
import os
from pathlib import Path

from lib.common.errors import UserError
from lib.common.processes import abandoned, mark
from lib.common.untrusted import parse_json, read_limited

# What operating systems, storage devices, archives and editors leave in folders
LITTER = (
    "._*", ".ds_store", ".appledouble", ".spotlight-*", ".fseventsd", ".temporaryitems", "icon\r", "__macosx",
    ".trash*", "$recycle.bin", "recycler", "#recycle", "system volume information", "thumbs.db", "ehthumbs*.db",
    "desktop.ini", ".directory", "@eadir", "#snapshot", ".snapshot*", "lost+found", ".nfs*", ".fuse_hidden*",
    ".stfolder", ".stversions", ".git", ".ipynb_checkpoints", "__pycache__",
)  # fmt: skip


def is_litter(name):
    """Whether a file or folder of this name was left behind by a system, so that nobody means it."""
    return any(fnmatch.fnmatchcase(name.casefold(), pattern) for pattern in LITTER)


def tidy(paths):
    """The `paths` sorted, without litter."""
    return sorted(path for path in paths if not is_litter(path.name))


@contextlib.contextmanager
def writing(path, *also):
    """Raise a `UserError` that names `path` for an `OSError`, or an error of the types `also`, in this context."""
    try:
        yield
    except (OSError, *also) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise UserError(f"Cannot write {path}: {reason}; free some space or choose another folder.") from error


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside `path`. Success renames it to `path`; an error removes it.

    Those that killed processes left are removed too. Raises `UserError` if the folder cannot be written.
    """
    path = Path(path)
    name = path.name if len(os.fsencode(path.name)) < 200 else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    temporary = path.with_name(f".{name}{mark()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for half in abandoned(path.parent.glob(f".{glob.escape(name)}.*.tmp")):
                half.unlink(missing_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder):
    """Lock `folder` until this process ends, even if it is killed; raises `UserError` if another holds the lock.

    Where the file system has no locks, a line says so, and nothing is locked.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock").open("a+")  # beside the folder, which may be renamed
    except OSError as error:
        raise UserError(f"Cannot write beside {folder}: {error.strerror}; choose another folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"{folder} is being worked on by process {lock.read().strip() or 'unknown'}; wait for it, or stop it."
            ) from error
        except OSError as error:  # ENOSYS or ENOLCK: a network file system without locks
            # A file as a lock would outlive a killed process, and keep its own next run out
            print(f"{folder} cannot be locked ({error.strerror}); do not run this twice at once.", flush=True)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def write_bytes(path, content: bytes):
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path, value):
    """Write `value` as indented JSON to `path` atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path):
    """Return the JSON object in `path`. Raises `UserError` if it is missing, malformed or not an object."""
    try:
        value = parse_json(read_limited(path))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} as JSON ({error}); restore or remove it.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no names and values, as this program writes them; restore or remove it.")
    return value
