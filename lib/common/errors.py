"""Errors that tell the user what to do."""

import argparse


class UserError(ValueError):
    """An error outside the program. Its one sentence names the file or value and says what to do."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises `UserError` instead of exiting."""

    def error(self, message):
        raise UserError(f"{message[0].upper()}{message[1:]}; {self.prog} --help explains.")
