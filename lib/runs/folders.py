"""Names of the folders of a run."""

import re

from lib.common.errors import UserError


def arm_and_seed(name):
    """("gan", 42) of "gan-42", the name of an arm's folder.

    Raises `UserError` for one of another form: what is allowed means nothing in HTML, in a figure or in a path.
    """
    if match := re.fullmatch(r"([\w.+-]+)-(\d+)", name):
        return match[1], int(match[2])
    raise UserError(f"An arm's folder cannot be called {name!r}; rename it to letters, digits and '-', like 'gan-42'.")
