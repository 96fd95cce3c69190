"""The pages that the benchmarks write: sections, each of one table and one processor, the newest first."""

import datetime
from pathlib import Path

from lib.common.files import write_bytes
from lib.common.provenance import made_by


def machine():
    """One line that says where, with what and when a section was made."""
    facts = made_by()
    return (
        f"{facts['machine']}, Python {facts['python']}, torch {facts['torch']}, NumPy {facts['numpy']}, "
        f"commit {facts['commit']}, {datetime.date.today()}"
    )


def write_section(path, title, lines):
    """Write a section of `lines` and `machine()` to the top of the page `path`.

    It takes the place of the section with this title that this kind of processor made; those of others stay, with
    their commits.
    """
    path, processor = Path(path), machine().partition(",")[0]
    head = f"# {title} ({processor})\n"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    others = [part for part in ("\n" + text).split("\n# ")[1:] if not f"# {part}".startswith(head)]
    section = "\n".join([head, *lines, "", machine(), ""])
    write_bytes(path, "\n".join([section, *(f"# {part.rstrip()}\n" for part in others)]).encode())
