"""The minutes of `make report` in an empty clone, installation included, part by part.

    python -m benchmarks.report [LOG …]

Clones this repository into a temporary folder, runs `make report` there and keeps what it prints beside the clone's
commit; or reads such logs of earlier runs. The table is written to benchmarks/report.md.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.page import write_section
from lib.common.provenance import ROOT

PART = re.compile(r"^  (\d\d-[\w-]+) +(\d+):(\d\d)$", re.MULTILINE)  # as lib.pipeline prints them
WHOLE = re.compile(r"^real\s+(\d+)m([\d.]+)s", re.MULTILINE)
COMMIT = re.compile(r"^commit (\w+)", re.MULTILINE)


def run():
    """The log of `make report` in an empty clone, with its commit and its time."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)  # noqa: S607
        log = subprocess.run(["git", "log", "-1"], cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S607
        began = time.monotonic()
        log += subprocess.run(["make", "report"], cwd=folder, check=True, capture_output=True, text=True).stdout  # noqa: S607
        minutes, seconds = divmod(time.monotonic() - began, 60)
    return f"{log}\nreal\t{minutes:.0f}m{seconds:.3f}s\n"


def row(log):
    """{part: seconds} of a log, in order, with "all" and "install and pages", and its commit."""
    parts = {name: 60 * int(minutes) + int(seconds) for name, minutes, seconds in PART.findall(log)}
    minutes, seconds = WHOLE.search(log).groups()
    whole = 60 * int(minutes) + round(float(seconds))
    return {"all": whole, "install and pages": whole - sum(parts.values())} | parts, COMMIT.search(log)[1][:10]


def main():
    """Command line; see the module's docstring."""
    rows = [row(log) for log in ([Path(name).read_text() for name in sys.argv[1:]] or [run()])]
    names = list(rows[0][0])
    lines = [f"| commit | {' | '.join(names)} |", f"|---{'|--:' * len(names)}|"]
    for parts, commit in rows:
        cells = [f"{parts[name] // 60}:{parts[name] % 60:02}" for name in names]
        lines.append(f"| {commit} | {' | '.join(cells)} |")
    write_section(Path(__file__).with_suffix(".md"), "`make report` in an empty clone, minutes and seconds", lines)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
