"""Provenance of a result: the commit, machine and versions that made it."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from lib.common.machine import cores

ROOT = Path(__file__).resolve().parents[2]
ARCHIVED = "$Format:%H$"  # git archive, which makes tarballs, writes the commit here: .gitattributes


def portable(path):
    """`path` as text, relative to the repository if it lies inside."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def made_by():
    """What is stored beside a result: {"commit", "machine", "python", "torch", "numpy"}."""
    versions = {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}
    return {"commit": _commit(), "machine": _machine()} | versions


def _commit():
    """The short commit hash, with `+` if lib or notebooks differ from it; "unknown" where git does not say.

    A tarball has no repository of its own: its commit is the one that it was made from, if it says so. A repository
    around it is of another project.
    """
    if not (ROOT / ".git").exists():
        return "unknown, from a tarball" if ARCHIVED.startswith("$") else f"{ARCHIVED[:10]}, from a tarball"
    git = ["git", "-C", str(ROOT)]
    try:
        # S603 does not apply: all words are ours
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "lib", "notebooks"]).returncode  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed else "")


def _machine():
    """CPU model, the number of cores that may be used, and the GPUs that torch sees."""
    import torch  # only here: decoding and composing need no torch

    info = Path("/proc/cpuinfo")
    named = (
        re.search(r"^model name\s*:\s*(.+)", info.read_text(encoding="utf-8"), re.MULTILINE) if info.exists() else None
    )
    cpu = named[1].strip() if named else platform.processor() or platform.machine()
    gpus = f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {cores()} cores{gpus}"
