"""The notebooks' guard: papermill only warns of a parameter that nobody knows; this refuses it."""

import ast
import difflib
import json
import reprlib
from pathlib import Path

from lib.common.errors import UserError
from lib.report.limits import check_values

SCALARS = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def check_parameters(history, notebooks_folder):
    """Refuse parameters that no notebook knows, and values that do not fit their annotation or that cannot be.

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
    injected = _injected(cells)
    for name in injected:
        if name not in known:
            raise UserError(f"No notebook has a parameter {name!r}; {nearest(name, known)}")
    values = {name: default for name, (_, default) in declared.items()} | injected
    check_values({name: check_type(name, values[name], annotation) for name, (annotation, _) in declared.items()})


def nearest(name, known):
    """What a person may have meant by the unknown `name`: the end of a sentence."""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else f"known are {', '.join(sorted(known))}."


def check_type(name, value, annotation):
    """`value`; raises `UserError` when it does not fit the parameter's annotation (a syntax node)."""
    if not _fits(value, annotation):
        expected, kind = ast.unparse(annotation), type(value).__name__
        raise UserError(f"Parameter '{name}' must be {expected}, but {reprlib.repr(value)} is {kind}; correct it.")
    return value


def _declared(source):
    """{name: (annotation node, default)} if `source` is a parameters cell, else {}."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # magics such as %matplotlib
        return {}
    if not all(isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name) for s in statements):
        return {}
    try:
        return {statement.target.id: (statement.annotation, _value(statement.value)) for statement in statements}
    except ValueError as error:  # somebody has written an expression into the cell
        raise UserError(f"The parameters cell must hold plain values, not {source!r}.") from error


def notebook_parameters(path):
    """The declared parameters of a notebook file, {name: (annotation node, default)}."""
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
    match node:
        case ast.Call(func=ast.Name("float"), args=[text]):  # papermill writes float('nan') and float('inf')
            return float(ast.literal_eval(text))
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
