"""What every measure of an estimate says about itself."""

from typing import NamedTuple


class Column(NamedTuple):
    """A column of the arms' table."""

    label: str  # in sentences
    higher: bool = False  # a higher value is better; else a lower one, or one nearer to 0
