"""Commands: how they end."""

import pytest

from lib.common.errors import UserError
from lib.common.processes import command


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("main", "status"),
    [
        (lambda: None, None),
        (lambda: 3, 3),
        (lambda: raises(UserError("Too loud; turn it down.")), "Too loud; turn it down."),
        (
            lambda: raises(KeyboardInterrupt),
            "Stopped; what is finished is kept, and the same command goes on from there.",
        ),
    ],
)
def test_a_command_ends_in_its_status_or_in_one_sentence(main, status):
    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == status
