"""Untrusted files, read within limits: a few kilobytes can expand to terabytes, or nest deeper than the stack.

Every function raises `OSError` or `ValueError` for a bad file; the caller puts its text into a sentence with the name.
"""

import contextlib
import errno
import gzip
import json
import os
import stat
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path

DOCUMENT = 2**23  # bytes of JSON: a museval result of two hours; Python objects take up to thirty times as much
SETTINGS = 2**18  # bytes of YAML: thousands of track names; PyYAML takes 6 seconds per megabyte
LOG = 2**26  # bytes of metrics: 25,000 evaluations
CHECKPOINT = 2**31  # bytes: twice the largest published model, Demucs v1 with 100 channels
WORD = 1000  # characters of one value in YAML; Python refuses to print numbers of more than 4,300 digits


def regular_file(path):
    """Return `path` as a Path; raises `OSError` unless it is a file: reading a pipe or a device may never end."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "Not a file, but a pipe or a device")
    return path


def read_limited(path, most=DOCUMENT):
    """Return the bytes of a file, unpacked if it ends in .gz; raises `ValueError` if there are more than `most`."""
    path = regular_file(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error
    if len(content) > most:
        raise ValueError(f"it holds more than {most} bytes")
    return content


def parse_json(content):
    """Return the JSON value in `content`; raises `ValueError` if it is malformed or nests too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def parse_yaml(content):
    """Return the YAML value in `content`, limited to JSON's types; raises `ValueError` with one line."""
    try:
        return _loader()(content).get_single_data()
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    except Exception as error:  # PyYAML raises a dozen types for values such as 1:2:3 or !!int x
        raise ValueError(str(error).splitlines()[0] if str(error) else "a value is malformed") from error


@cache
def _loader():
    """A loader without aliases (ten lines of them make a billion values) and without text that cannot be written."""
    import yaml  # only here: a training reads no YAML

    class PlainLoader(yaml.SafeLoader):
        def fetch_alias(self):
            raise ValueError("it repeats a value by its *name; write the value out")

        def construct_scalar(self, node):
            text = super().construct_scalar(node)
            if len(text) > WORD or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
                raise ValueError(f"a value is longer than {WORD} characters, or no text")
            return text

    for kind in ("binary", "omap", "pairs", "set", "timestamp"):
        PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", yaml.SafeLoader.construct_undefined)
    return PlainLoader


@contextlib.contextmanager
def unpacked(path):
    """Yield a checkpoint open for reading; gzip is unpacked to disk, up to `CHECKPOINT` bytes (else `ValueError`)."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(regular_file(path).open("rb"))
        if file.read(2) == b"\x1f\x8b":  # gzip: seeking in it, as zip archives need, is slow
            packed = stack.enter_context(gzip.open(path))
            file = stack.enter_context(tempfile.TemporaryFile())
            while block := packed.read(2**20):
                file.write(block)
                if file.tell() > CHECKPOINT:
                    raise ValueError(f"it unpacks to more than {CHECKPOINT} bytes")
        file.seek(0)
        yield file


def check_archive(file):
    """Raise `ValueError` if a zip file unpacks to more than its size: torch writes each tensor once, uncompressed."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > file.seek(0, 2):
        raise ValueError("it promises more than it holds")
