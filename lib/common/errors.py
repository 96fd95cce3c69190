"""Errors that a person can act on."""

import argparse


class UserError(ValueError):
    """Something outside the program is wrong: one sentence names the file or value and says what to do."""


class Parser(argparse.ArgumentParser):
    """A command line of which a mistake is a `UserError`, one sentence like every other."""

    def error(self, message):
        raise UserError(f"{message[0].upper()}{message[1:]}; {self.prog} --help explains.")
