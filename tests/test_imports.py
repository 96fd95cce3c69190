"""The import rules of lib/__init__.py, held against every import of every module."""

import ast
import subprocess
import sys

import pytest

from lib.common.provenance import ROOT

BASE = {"data", "common"}
CORE = ("demucs", "discriminator", "losses", "memorisation")
TRAINED = {*BASE, *CORE, "models", "gan", "config", "runs"}
MEASURED = {*TRAINED, "train", "separate", "corpus", "draw_audio"}
ALLOWED = {  # {file or package: what it may import of the others}
    "common": set(),
    "corpus": {"common"},
    "draw_audio": {"corpus", "common"},
    **dict.fromkeys(CORE, {"common.errors"}),
    "data": {"common"},
    "models": {*BASE, "demucs"},
    "gan": {*BASE, "discriminator", "losses", "memorisation"},
    "separate": {*BASE, "demucs", "models"},
    "config": {*BASE, "discriminator", "losses", "models"},
    "runs": {*BASE, "config", "discriminator", "models"},
    "train": TRAINED,
    "evaluation": MEASURED,
    "report": {*MEASURED, "evaluation"},
    "studies": {*MEASURED, "evaluation", "report"},
    "pipeline": {*MEASURED, "evaluation", "report", "studies"},
}
DELEGATED = {("demucs", "models.original"), ("losses", "auraloss")}  # allowed inside a function
PATHS = [path for path in sorted((ROOT / "lib").rglob("*.py")) if path != ROOT / "lib" / "__init__.py"]
SOURCES = {  # {module without "lib.": its text}
    ".".join(path.relative_to(ROOT / "lib").with_suffix("").parts).removesuffix(".__init__"): path.read_text()
    for path in PATHS
}


def imports(tree):
    """(dotted name, whether it stands inside a function) for each import; `from a import b` gives a.b."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what is imported"
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)


def violations(module, source):
    """What `module` imports against the rules."""
    top = module.split(".")[0]
    for imported, inside in imports(ast.parse(source)):
        package, _, rest = imported.partition(".")
        other = rest if rest in SOURCES else rest.rpartition(".")[0]
        if package != "lib":
            allowed, other = top not in CORE or package in {"numpy", "torch", *sys.stdlib_module_names}, package
        else:
            allowed = {other, other.split(".")[0]} & {top, *ALLOWED[top]}
        if not (allowed or (inside and (module, other) in DELEGATED)):
            yield imported


def test_modules_import_only_what_stands_below_them():
    assert len(SOURCES) > 40, "the modules were found"
    assert {module: found for module, source in SOURCES.items() if (found := [*violations(module, source)])} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("common.files", "import lib.data.tracks"),
        ("losses", "from lib.common.files import read_json"),
        ("losses", "from auraloss.freq import STFTLoss"),
        ("memorisation", "import pandas as pd"),
        ("demucs", "from lib.models.original import load_published"),
        ("gan", "def step():\n    from lib.report import tables"),
        ("runs.launch", "from lib import gan"),
        ("train", "from lib.evaluation.score import evaluate_set"),
        ("evaluation.score", "from lib.report import tables"),
        ("report.tables", "from lib.studies import law"),
        ("evaluation.probe", "from lib.studies import cues"),
        ("report.tables", "from lib import pipeline"),
    ],
)
def test_a_forbidden_import_is_noticed(module, source):
    assert len(list(violations(module, source))) == 1


def test_a_training_loads_no_library_of_the_report():
    program = "import sys, lib.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {"pandas", "scipy", "auraloss", "matplotlib", "IPython"} & set(done.stdout.split())
    assert not loaded


def test_a_study_needs_no_more_than_a_machine_with_a_gpu_has():
    program = (
        "import sys, lib.studies.overfitting, lib.studies.judge; print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) & {"soundfile", "musdb", "museval", "matplotlib", "IPython", "psutil", "yaml"}
    assert not loaded
