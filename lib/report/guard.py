"""The guard of the notebooks' parameters: names, types and values are checked before the first notebook runs.

papermill only warns of an unknown parameter; the guard refuses it. Ranges stand in `RULES`, those of a training in
`lib.config`. What can be trained is decided by the trainer's own
checks, on networks without memory.
"""

import ast
import difflib
import json
import re
import reprlib
from pathlib import Path

from lib import corpus
from lib.common.errors import UserError
from lib.common.files import tidy
from lib.common.provenance import ROOT
from lib.config import ABOVE_0, NOT_NEGATIVE, Config, one_of, require
from lib.data.musdb import PROVIDED
from lib.data.tracks import SAMPLERATE, SOURCES, Track, check_stems
from lib.evaluation.results import NOT_SCORED, TEST_SETS
from lib.evaluation.score import METRICS
from lib.runs.arms import ARMS
from lib.runs.build import build_batches, build_on_meta
from lib.runs.cures import changes_of
from lib.runs.launch import check_machines

TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "list": list, "dict": dict}
ENDLESS = (10_000, 10**10)  # tracks and seconds of a data set whose size is not known yet
FOLDER_NAME = r"\w[\w .+-]*"
RESERVED = ("reference", "pictures")  # folders of results/ that are not runs


def _between(low, high):
    return (lambda value: low <= value <= high), f"must be {low} to {high}"


# For everything but seeds: more is a typing error, and beyond torch's counters.
AT_MOST = (lambda value: not (isinstance(value, int | float) and value > 1e9)), "must be at most 1e+09"
SEEDS = "seed corpus_seed split_seed seeds pair_seed"
RULES = (
    (ABOVE_0, "listen_seconds pretrain_steps arm_steps lr_branch song_seconds explore_seconds pair_seconds pair_steps"),
    (NOT_NEGATIVE, "show_track arm_tracks shifts pair_tracks listen_tracks song_start"),
    (_between(1, 10_000), "train_tracks valid_tracks test_tracks"),
    (_between(0, 10_000), "shifted_tracks heldout_tracks"),
    (_between(*corpus.SECONDS), "track_seconds"),
    (_between(*corpus.SEEDS), SEEDS),
    (one_of(ARMS), "arms arms_once listen_arms"),
    (one_of(METRICS), "metric"),
)
NOT_EMPTY = "seeds arms listen_tracks"


def check_parameters(history, notebooks_folder):
    """Check the parameters of the notebook that is running; return them, {name: value}.

    history: IPython's `In`, the sources of the cells run so far. The `parameters` cell is the first in which every
    statement reads `name: type = default`; papermill's injected cell begins with "# Parameters". Where such a cell was
    edited and run again, its last values count. A name that belongs to another notebook of `notebooks_folder` passes,
    since all notebooks share one profile. Sources are parsed, never run.
    """
    declared, values = {}, {}
    for source in history:
        sheet = _declared(source)
        if sheet.keys() == (declared or sheet).keys():
            declared = sheet
            values |= {name: default for name, (_, default) in sheet.items()}
        values |= injected(source)
    check_names(values, set(declared).union(*map(notebook_parameters, tidy(Path(notebooks_folder).glob("*.ipynb")))))
    return check(declared, values)


def check_names(names, known):
    """Raise `UserError` for a name that is not among the `known` parameters."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}."
            raise UserError(f"No notebook has a parameter {name!r}; {hint}")


def check(declared, values):
    """Check `values`, or the default where one is absent, and return the values of all `declared` parameters.

    declared: {name: (annotation node, default)}. Raises `UserError` for a bad type or a value that is refused.
    """
    checked = {name: values.get(name, default) for name, (_, default) in declared.items()}
    for name, (annotation, _) in declared.items():
        if not _fits(value := checked[name], annotation):
            expected, kind = ast.unparse(annotation), type(value).__name__
            raise UserError(f"Parameter '{name}' must be {expected}, but {reprlib.repr(value)} is {kind}; correct it.")
    check_values(checked)
    return checked


def notebook_parameters(path):
    """The declared parameters of a notebook file, {name: (annotation node, default)}."""
    return next((sheet for source in code_cells(path) if (sheet := _declared(source))), {})


def code_cells(path):
    """Sources of the code cells of a notebook file; raises `UserError` when it cannot be read."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Cannot read {path} as a notebook ({error}); restore it.") from error


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
    except ValueError as error:  # an expression in the cell
        raise UserError(f"The parameters cell must hold plain values, not {source!r}.") from error


def injected(source):
    """{name: value} if `source` is the cell that papermill injects, else {}."""
    statements = ast.parse(source).body if source.startswith("# Parameters") else []
    assignments = [s for s in statements if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)]
    return {assignment.targets[0].id: _value(assignment.value) for assignment in assignments}


def _value(node):
    match node:
        case ast.Call(func=ast.Name("float"), args=[text]):  # papermill writes float('nan') and float('inf')
            return float(ast.literal_eval(text))
    return ast.literal_eval(node)


def _fits(value, annotation):
    """Whether `value` has the type of an annotation such as `int` or `list[int]`."""
    match annotation:
        case ast.Subscript(value=ast.Name("list"), slice=item):
            return isinstance(value, list) and all(_fits(element, item) for element in value)
        case ast.Name(name) if name in TYPES:
            return isinstance(value, TYPES[name]) and (name == "bool" or not isinstance(value, bool))
    raise UserError(f"The parameters cell uses a type that is not understood: {ast.unparse(annotation)}.")


def check_values(parameters):
    """Raise `UserError`, with the name and the range, for a value that no notebook can use or that contradicts others.

    parameters: {name: value}, each of its type; a parameter that is absent is not checked.
    """
    for rule, names in RULES:
        for name in names.split():
            if name in parameters:
                require(name, parameters[name], rule)
    for name in sorted(parameters.keys() - set(SEEDS.split())):
        require(name, parameters[name], AT_MOST)
    for name in NOT_EMPTY.split():
        if parameters.get(name) == []:
            raise UserError(f"{name} = [] must hold at least one value.")
    _check_stems(parameters)
    _check_places(parameters)
    _check_training(parameters)
    _check_order(parameters)


def _check_stems(p):
    if "stems" not in p:  # another notebook's parameters
        return
    check_stems(p["stems"])
    if p.get("musdb_root") in PROVIDED and p["stems"] != [*SOURCES]:
        raise UserError(
            f"stems = {p['stems']} must be {', '.join(SOURCES)} for musdb_root = {p['musdb_root']}, which holds no "
            "others; give the folder of your tracks, or leave stems out."
        )
    for name in ("listen_stems", "detail_stem"):
        if p.get(name):
            require(name, p[name], one_of(p["stems"]))


def _check_places(p):
    run = p.get("run", "quick")
    if not re.fullmatch(FOLDER_NAME, run) or run in RESERVED:
        raise UserError(f"run = {run!r} must be a folder's name, without '/', and not {' or '.join(RESERVED)}.")
    for name in ("soundfont", "song"):
        if p.get(name) and not (ROOT / Path(p[name]).expanduser()).is_file():
            raise UserError(f"{name} = {p[name]!r} is no file; give the path of one, from the repository or from /.")
    for label, path in p.get("museval_folders", {}).items():
        if not isinstance(path, str) or not (ROOT / path).is_dir():
            raise UserError(f"museval_folders: {label!r} names {path!r}, which is no folder; correct or remove it.")
    for name, path in p.get("test_sets", {}).items():
        if not isinstance(name, str) or not re.fullmatch(FOLDER_NAME, name) or name in (*TEST_SETS, *NOT_SCORED):
            raise UserError(
                f"test_sets: {name!r} must be a folder's name, without '/', and none of the sets that are there "
                f"already ({', '.join((*NOT_SCORED, *TEST_SETS))}); choose another."
            )
        if not isinstance(path, str) or not path:
            raise UserError(f"test_sets: {name!r} names {path!r}; give the path of a folder of songs.")


def _check_training(p):
    """Check the parameters of 02-train; with a composed corpus, also against its tracks."""
    config = Config.from_parameters(p, data="")
    Config.from_dict(vars(config) | p.get("cures", {}))
    nproc, nnodes = p.get("nproc", 1), p.get("nnodes", 1)
    check_machines(nproc, nnodes, p.get("rdzv_endpoint", ""))
    if "batch" not in p:  # another notebook's parameters
        return
    generator, composed = build_on_meta(config), p.get("musdb_root") == "embedded"
    count, length = (p["train_tracks"], p["track_seconds"]) if composed else ENDLESS
    samples, name = round(length * SAMPLERATE), "1 of the composed corpus"
    tracks = [Track(name=name, path="", samples=samples, mean=0.0, std=1.0, source="")] * count
    build_batches(config, generator, tracks[: p.get("arm_tracks") or None], world_size=nproc * nnodes)


def _check_order(p):
    """Check that what one notebook shows, another makes."""
    if p.get("musdb_root") == "embedded":
        for name, made in (("show_track", "train_tracks"), ("listen_tracks", "test_tracks")):
            if name in p and made in p:
                require(name, p[name], ((lambda value: value < p[made]), f"must be below {made} = {p[made]}"))  # noqa: B023
    if p.get("pair_tracks"):
        changes_of(p.get("pair_cure", "none"))
        if p.get("musdb_root") == "embedded" and p["valid_tracks"] < 2 * p["pair_tracks"] + 2:
            raise UserError(
                f"pair_tracks = {p['pair_tracks']} needs twice as many validation tracks, and two more, but "
                f"valid_tracks = {p['valid_tracks']}; raise valid_tracks, or leave the pair out with pair_tracks=0."
            )
    if {"arms", "seeds", "arm", "cured"} <= set(p):
        playing = [arm for arm in p["arms"] if arm in ARMS and ARMS[arm][0]]
        gan_runs = [f"{arm}-{seed}" for arm in playing for seed in p["seeds"]]
        for name in ("arm", "cured"):
            if p[name] not in gan_runs:
                raise UserError(
                    f"{name} = {p[name]!r}, which 04-discriminator looks at, is none of the runs with a discriminator "
                    f"that arms and seeds ask for ({', '.join(gan_runs) or 'none'}); change one of them."
                )
