"""Versions of computed results. Each module that computes some has a `VERSION`, which it stores beside them.

Raise it with every change of the module, or of code that it calls, that changes a stored value or adds one: the next
run computes these results again, and readers refuse the old ones. A file without a version is of version 1.
"""

from lib.common.errors import UserError
from lib.common.files import read_json


def is_current(path, wanted):
    """Whether the JSON file at `path` exists and holds `wanted`, {name: value}; an absent version counts as 1."""
    if not path.exists():
        return False
    found = read_json(path)
    return all(found.get(name, 1 if "version" in name else None) == value for name, value in wanted.items())


def check_current(path, versions, notebook):
    """Raise `UserError`, which names the notebook to run again, if the file at `path` holds other `versions`."""
    if path.exists() and not is_current(path, versions):
        raise UserError(
            f"{path} is of another version of this program; run the notebook {notebook} for this run again."
        )
