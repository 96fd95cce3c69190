"""Who started whom, and who is still there."""

import time
from pathlib import Path


def family(pid):
    """{process id: its command} of `pid` and all that it started, in the order of their numbers."""
    parents, commands = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended meanwhile
            continue
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return {member: commands.get(member, "") for member in sorted(found)}


def gone(members, seconds=30):
    """Whether all of these processes end in time: one that is just starting notices when it has imported torch."""
    for _ in range(seconds * 10):
        if not any(map(_runs, members)):
            return True
        time.sleep(0.1)
    return False


def _runs(pid):
    try:  # a zombie has ended, even if nobody has asked for its status
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
