"""The cores and the memory that this process may use: the machine's, less what a cluster or a container allows.

Linux's control groups limit both (v1 and v2, each folder from this process's up to the root), and affinity the cores.
"""

import math
import os
from pathlib import Path

PROC, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores():
    """The number of cores that this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    for folder in _groups("cpu"):
        limit = [*_numbers(folder, "cpu.max")]  # microseconds of work in each period; v1 has two files, and -1 for none
        limit = limit or [*_numbers(folder, "cpu.cfs_quota_us"), *_numbers(folder, "cpu.cfs_period_us")]
        if len(limit) == 2 and 0 < limit[0] < math.inf:
            count = min(count, math.ceil(limit[0] / limit[1]))
    return max(count, 1)


def free_memory():
    """The bytes that this process can take without swapping, or being killed for them."""
    free = _memory("available")
    for limit, used in _memory_limits():
        free = min(free, limit - used)
    return max(free, 0)


def total_memory():
    """The bytes of memory that this process could have if nothing else ran."""
    return min([_memory("total"), *(limit for limit, _ in _memory_limits())])


def _memory(kind):
    """The bytes of memory of this machine, "total" or "available"; from the system where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        pages = {"total": "SC_PHYS_PAGES", "available": "SC_AVPHYS_PAGES"}[kind]
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    return getattr(psutil.virtual_memory(), kind)


def _memory_limits():
    """Yield (limit, used) in bytes of each control group; memory that only caches files counts as free."""
    for folder in _groups("memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            for most in _numbers(folder, limit):
                held = dict(line.split() for line in _lines(folder / "memory.stat"))
                yield most, next(_numbers(folder, usage), 0) - int(held.get(cache, 0))


def _groups(controller):
    """Yield the folders of the control groups that hold this process, the innermost first; v1 has a tree for each."""
    for line in _lines(PROC):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controller if controllers else GROUPS
        innermost = root / path.lstrip("/")
        yield from (folder for folder in (innermost, *innermost.parents) if folder.is_relative_to(root))


def _numbers(folder, name):
    """Yield the numbers of the first line of a file, "max" as infinity; none if there is no such file."""
    for line in _lines(folder / name)[:1]:
        yield from (math.inf if word == "max" else int(word) for word in line.split())


def _lines(path):
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system, or v2 without this controller
        return []
