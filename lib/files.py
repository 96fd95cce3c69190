"""Atomic writes: a reader, or a run that was stopped, never meets half a file."""

import contextlib
import json
import os
from pathlib import Path

from lib.errors import UserError


@contextlib.contextmanager
def atomic(path):
    """Yield a temporary path beside `path`; on success it is renamed over `path`, on error removed.

    Raises `UserError` when the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}; free some space or choose another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path, content: bytes):
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path, value):
    """Write `value` as indented JSON to `path` atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path):
    """The JSON value in `path`; raises `UserError` when it is missing or malformed."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} as JSON ({error}).") from error
