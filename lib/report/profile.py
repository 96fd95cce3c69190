"""Profiles: files of notebooks/profiles with parameters of the notebooks."""

import ast
import contextlib

from lib.common.errors import UserError
from lib.common.files import tidy
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited
from lib.report.guard import check, check_names, notebook_parameters


def read(notebooks, name, overrides=()):
    """Parameters of the profile `name` of a folder of notebooks, with `name=value` words over them.

    Returns those that the profile or a word gives; `values` adds the others' defaults. Raises `UserError` on a bad
    name, word or value.
    """
    path = notebooks / "profiles" / f"{name}.yaml"
    if path not in (profiles := tidy(path.parent.glob("*.yaml"))):
        known = ", ".join(p.stem for p in profiles)
        raise UserError(f"There is no profile {name!r} in notebooks/profiles; choose one of {known}.")
    try:
        parameters = parse_yaml(read_limited(path, SETTINGS))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML ({error}).") from error
    if not isinstance(parameters, dict):
        raise UserError(f"{path} must hold lines of the form name: value.")
    known = _declared(notebooks)
    for word in overrides:
        parameter, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not of the form name=value.")
        try:
            text.encode()
            parameters[parameter] = text if _kind(known, parameter) == "str" else parse_yaml(text)
        except UnicodeEncodeError as error:
            raise UserError(f"The value of {parameter} is no text: {text!r}.") from error
        except ValueError as error:
            raise UserError(f"The value of {parameter} is not valid YAML: {text!r}.") from error
    parameters = {"run": name} | parameters
    check_names(parameters, known)
    for parameter, value in parameters.items():
        if _kind(known, parameter) == "float" and isinstance(value, str):
            with contextlib.suppress(ValueError):  # YAML reads 3e-4 as text, people and papermill as a number
                parameters[parameter] = float(value)
    check(known, parameters)
    return parameters


def _kind(known, parameter):
    """The type that a notebook declares for a parameter, as text; "" for an unknown parameter."""
    return ast.unparse(known[parameter][0]) if parameter in known else ""


def values(notebooks, name, overrides=()):
    """`read`, with the default of every other parameter."""
    return check(_declared(notebooks), read(notebooks, name, overrides))


def _declared(notebooks):
    """The parameters of all notebooks, {name: (annotation node, default)}."""
    return {k: v for path in tidy(notebooks.glob("*.ipynb")) for k, v in notebook_parameters(path).items()}
