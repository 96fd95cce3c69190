"""Errors that a person can act on."""


class UserError(ValueError):
    """Something outside the program is wrong: one sentence names the file or value and says what to do."""
