"""The notebooks' guard: papermill only warns of a parameter that nobody knows; this refuses it."""

import ast
import difflib
import json
from pathlib import Path

from lib.errors import UserError

SCALARS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def check_parameters(history, notebooks_folder):
    """Refuse parameters that no notebook knows, and values that do not fit their annotation.

    history: IPython's `In`, the sources of the cells run so far. Its `parameters` cell is the first in which
    every statement reads `name: type = default`; papermill's injected cell begins with "# Parameters". A
    name that belongs to another notebook of `notebooks_folder` passes, since all of them share one profile.
    Sources are only parsed, never run. Raises `UserError` naming the parameter and, for a misspelt one, the
    nearest name.
    """
    cells = [source for source in history if source.strip()]
    declared = next(filter(None, map(_declared, cells)), {})
    known = set(declared)
    for notebook in sorted(Path(notebooks_folder).glob("*.ipynb")):
        known |= set(notebook_parameters(notebook))
    for name, value in _injected(cells).items():
        if name not in known:
            nearest = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(sorted(known))}."
            raise UserError(f"No notebook has a parameter '{name}'; {hint}")
        if name in declared:
            check_type(name, value, declared[name])


def check_type(name, value, annotation):
    """Raise `UserError` when `value` does not fit the parameter's annotation (a syntax node)."""
    if not _fits(value, annotation):
        expected, kind = ast.unparse(annotation), type(value).__name__
        raise UserError(f"Parameter '{name}' must be {expected}, but {value!r} is {kind}; correct it.")


def _declared(source):
    """{name: annotation node} if `source` is a parameters cell, else {}."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # magics such as %matplotlib
        return {}
    if not all(isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name) for s in statements):
        return {}
    return {statement.target.id: statement.annotation for statement in statements}


def notebook_parameters(path):
    """The declared parameters of a notebook file."""
    try:
        cells = json.loads(path.read_text())["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Cannot read {path} as a notebook ({error}); restore it.") from error
    return next(filter(None, map(_declared, sources)), {})


def _injected(cells):
    """{name: value} that papermill injected; {} in a notebook run by hand."""
    source = next((cell for cell in cells if cell.startswith("# Parameters")), "")
    return {
        statement.targets[0].id: _value(statement.value)
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node):
    if isinstance(node, ast.Call):  # papermill writes float('nan') and float('inf')
        return float(ast.literal_eval(node.args[0]))
    return ast.literal_eval(node)


def _fits(value, annotation):
    """Whether `value` is of the type that an annotation such as `list[int] | None` describes."""
    match annotation:
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Subscript(value=ast.Name("list"), slice=item):
            return isinstance(value, list) and all(_fits(element, item) for element in value)
        case ast.Subscript(value=ast.Name("dict"), slice=ast.Tuple([key, item])):
            return isinstance(value, dict) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
        case ast.Name("float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name("int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(name) if name in SCALARS:
            return isinstance(value, SCALARS[name])
    raise UserError(f"The parameters cell uses a type that is not understood: {ast.unparse(annotation)}.")
