"""Who made a result: commit, machine and versions, written beside every figure."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def portable(path):
    """`path` as text, relative to the repository where it lies in it."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def commit():
    """The short commit hash of this checkout, with `+` when tracked library files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        # S603 does not apply: words of our own
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "lib", "notebooks"]).returncode  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed else "")


def machine():
    """CPU model and cores, and the GPU when torch sees one."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    description = f"{model}, {os.cpu_count()} cores"
    import torch  # only here: the data side needs no torch

    if torch.cuda.is_available():
        description += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return description


def made_by():
    """A dictionary to store beside a result: commit, machine, python, torch and numpy versions."""
    return {
        "commit": commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
