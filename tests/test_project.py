"""The files around the code say the same thing."""

import json
import re
from importlib import metadata

import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lib.common.provenance import ROOT
from lib.evaluation.probe import COLUMNS
from lib.evaluation.spectral import MEASURES
from lib.report.guard import notebook_parameters
from lib.report.sentences import findings
from lib.report.tables import PUBLISHED, markdown_table

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_conda_and_pip_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert {"python=3.11", "ffmpeg", "libsndfile", "pip"} <= set(packages)
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    assert pinned("requirements.txt").items() >= {"torch": "2.11.0", "torchaudio": "2.11.0"}.items()


def pinned(file):
    """{name in lower case with hyphens: version} of a file of exact pins, one per line."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    pins = [line for line in lines if line != "-c constraints.txt"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "exact pins, one per line"
    assert file == "constraints.txt" or len(pins) < len(lines), "requirements.txt names the constraints"
    return {canonical(name): version for name, _, version in (pin.partition("==") for pin in pins)}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_that_is_installed_is_pinned():
    """What the requirements ask for in turn, by the packages' own words; so an install is the same on another day."""
    direct, indirect = pinned("requirements.txt"), pinned("constraints.txt")
    assert not direct.keys() & indirect.keys()
    pins, needed, todo = direct | indirect, set(), [(name, "") for name in direct]
    while todo:
        name, extra = todo.pop()
        if (name, extra) not in needed and name != "setuptools":  # which comes with Python, like pip
            needed.add((name, extra))
            package = metadata.distribution(name)
            assert package.version == pins.get(name), f"{name} {package.version} is installed; renew constraints.txt"
            needs = package.metadata["Requires-Python"] or ""
            assert SpecifierSet(needs).contains("3.11.2"), f"{name} {package.version} needs Python {needs}"  # Debian 12
            for need in map(Requirement, package.requires or []):
                if need.marker is None or need.marker.evaluate({"extra": extra}):
                    todo += [(canonical(need.name), extra) for extra in need.extras or [""]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sources_have_no_outputs_and_explain_their_parameters(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    [parameters] = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert all(re.match(r"\w+: .+ = .+  # .+", line) for line in parameters.source.splitlines())
    shown = papermill.inspect_notebook(path)  # what `papermill --help-notebook` shows
    assert set(shown) == set(notebook_parameters(path)) and all(entry["help"] for entry in shown.values())
    assert notebook.cells[0].source.startswith("# ") and "What this shows" in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks/profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles_name_parameters_that_exist(path):
    known = {name for notebook in NOTEBOOKS for name in notebook_parameters(notebook)}
    assert set(yaml.safe_load(path.read_text())) <= known


def test_the_readme_shows_what_the_committed_results_say():
    run = ROOT / "results" / "study"
    wanted = markdown_table(pd.read_csv(run / "sdr_table.csv"), [PUBLISHED, "Measured here, on: test"])
    readme = (ROOT / "README.md").read_text()
    assert wanted in readme, f"The README's table is out of date; it should be\n{wanted}"
    for sentence in findings(run):
        assert sentence in " ".join(readme.split()), f"The README lacks this finding:\n- {sentence}"
    for path in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / path).exists(), f"The README links to {path}, which is not there"


def test_every_line_of_the_reproducibility_statement_has_its_test():
    section = (ROOT / "README.md").read_text().split("## What is the same when it is run again")[1].split("\n## ")[0]
    rows = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("|") and "`test_" in line]
    assert len(rows) >= 10
    for row in rows:
        for file, names in re.findall(r"`(test_\w+)`(?:: ([\w, ]+))?", row):
            [source] = [path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py")]
            for name in names.strip().split(", ") if names else []:
                assert f"def test_{name}(" in source, f"{file} has no test_{name}"


def test_the_readme_says_how_far_a_repetition_went():
    tables = [pd.read_csv(ROOT / "results" / run / "sdr_table.csv") for run in ("quick", "repeat")]
    one, two = (table.set_index(["section", "system"])["all"] for table in tables)
    moved = (two - one).abs().rename("moved").reset_index()
    arms, differences = moved["system"].str.startswith("L1"), moved["system"].str.startswith("Difference: ")
    said = []
    for rows in (arms, differences):
        for test_set in ("test", "real excerpt"):
            said.append(f"{moved[rows & (moved['section'] == f'Measured here, on: {test_set}')]['moved'].max():.2f} dB")
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "by up to {} on the test tracks and {} on the six seconds".format(*said[:2]) in readme, said
    assert "by up to {} and {}.".format(*said[2:]) in readme, said


def test_the_readme_shows_what_the_benchmarks_wrote():
    section = (ROOT / "README.md").read_text().split("### How fast it is")[1].split("\n## ")[0]
    written = "\n".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 20 and set(rows) <= set(written.splitlines())
    for sentence in re.findall(r"^(?:\*\*Not measured|On one machine).*", written, re.MULTILINE):
        assert sentence in " ".join(section.split())


@pytest.mark.parametrize("run", ["quick", "study"])
def test_committed_notebooks_are_executed_whole_and_small(run):
    for notebook in NOTEBOOKS:
        executed = ROOT / "results" / run / notebook.name
        assert executed.stat().st_size < 500_000
        cells = json.loads(executed.read_text())["cells"]
        assert any(cell.get("outputs") for cell in cells)
        assert not any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("run", ["quick", "study"])
def test_committed_data_are_whole(run):
    """Three seeds per cell and, in the study, per arm; every arm on the same tracks; a verdict for every game."""
    folder = ROOT / "results" / run
    cells = pd.read_csv(folder / "dprobe.csv")
    assert {"segments", "cure", "seed", *COLUMNS} == set(cells.columns)
    assert (cells.groupby(["segments", "cure"])["seed"].nunique() == 3).all() and "none" in set(cells["cure"])
    arms = pd.read_csv(folder / "arms.csv")
    assert {"arm", "seed", "track", "target", "SDR", "ISR", "SIR", "SAR", *MEASURES, "auc_fresh"} <= set(arms.columns)
    assert {"test", "shifted", "real excerpt"} == set(arms["test_set"])
    trained = arms[arms["seed"].notna()]
    assert (trained.groupby("arm")["seed"].nunique() == (3 if run == "study" else 1)).all()
    assert trained.groupby(["test_set", "arm", "seed"])["track"].nunique().groupby("test_set").nunique().eq(1).all()
    games = trained[trained["arm"] != "l1"][["arm", "seed"]].drop_duplicates()
    verdicts = json.loads((folder / "verdicts.json").read_text())
    assert set(verdicts) == {f"{arm}-{int(seed)}" for arm, seed in games.to_numpy()}
