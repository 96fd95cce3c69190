"""The files around the code say the same thing."""

import ast
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import nbformat
import pandas as pd
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lib import pipeline
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.evaluation.measures import MEASURES
from lib.report import readme
from lib.report.guard import notebook_parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_make_passes_on_what_was_typed(tmp_path):
    """A blank, a hash, a colon, a dollar and quotes reach the pipeline, in MUSDB and within quotes in SET."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "constraints.txt", "lib/__init__.py", "lib/pipeline.py", ".venv/ready"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lib/pipeline.py").write_text("import sys; print(ascii(sys.argv[1:]))")
    (tmp_path / ".venv/bin").mkdir()
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    path = '/a: b #1/$x `t` "q"'
    for typed, words in (
        ([], []),
        ([f"MUSDB={path}"], [f"musdb_root={path}"]),
        ([f"SET=song='{path}' seeds=[1,2] #2"], [f"song={path}", "seeds=[1,2]", "#2"]),
    ):
        command = [shutil.which("make"), "-s", "report", *typed]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert pipeline._words(ast.literal_eval(done.stdout)) == ["quick", *words]


def test_an_open_quote_in_set_is_said():
    with pytest.raises(UserError, match=r"SET = seed=1 song='a cannot be split .* close the quote"):
        pipeline._words(["quick", "--set", "seed=1 song='a"])


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
    """Its findings, table, benchmarks and the numbers of the repetition are generated blocks."""
    text = (ROOT / "README.md").read_text()
    assert readme.updated(text) == text, "The README is out of date; run python -m lib.report.readme"
    assert set(re.findall(r"^<!-- (\w+):start -->$", text, re.MULTILINE)) == set(readme.BLOCKS)
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).exists(), f"The README links to {path}, which is not there"


def test_a_block_is_written_between_its_markers_and_nothing_else_changes(monkeypatch):
    monkeypatch.setattr(readme, "BLOCKS", {"one": lambda: "new", "two": lambda: "| a |"})
    text = (
        "before\n<!-- one:start -->\nold\nold\n<!-- one:end -->\nbetween\n<!-- two:start -->\n<!-- two:end -->\nafter\n"
    )
    wanted = text.replace("old\nold\n", "new\n").replace("<!-- two:end", "| a |\n<!-- two:end")
    assert readme.updated(text) == readme.updated(wanted) == wanted
    for marker in ("<!-- one:start -->", "<!-- two:end -->"):
        with pytest.raises(UserError, match="lacks the markers of the block"):
            readme.updated(text.replace(marker, ""))


def test_a_line_of_a_finding_never_begins_a_list(monkeypatch):
    monkeypatch.setattr(
        readme, "findings", lambda run: [f"{'x' * length} L1 + GAN + cures" for length in range(90, 115)]
    )
    lines = readme.BLOCKS["findings"]().splitlines()
    assert max(map(len, lines)) <= 120 and len([line for line in lines if line.startswith("- ")]) == 25
    assert not [line for line in lines if re.match(r" +[-+*] ", line)]


def test_every_line_of_the_reproducibility_statement_has_its_test():
    section = (ROOT / "README.md").read_text().split("## What is the same when it is run again")[1].split("\n## ")[0]
    rows = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("|") and "`test_" in line]
    assert len(rows) >= 10
    for row in rows:
        for file, names in re.findall(r"`(test_\w+)`(?:: ([\w, ]+))?", row):
            [source] = [path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py")]
            for name in names.strip().split(", ") if names else []:
                assert f"def test_{name}(" in source, f"{file} has no test_{name}"


def test_the_readme_shows_what_the_benchmarks_wrote():
    section = (ROOT / "README.md").read_text().split("### How fast it is")[1].split("\n## ")[0]
    written = "\n".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 20 and set(rows) <= set(written.splitlines())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_of_a_page_have_names_of_their_own(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "figure" in cell.metadata]
    slugs = [cell.metadata["figure"] for cell in cells]
    assert slugs and len(set(slugs)) == len(slugs) and all(re.fullmatch(r"[a-z][a-z-]+", slug) for slug in slugs)
    assert all(cell.source.startswith("# ") for cell in cells)  # its caption
    executed = nbformat.read(ROOT / "results" / "quick" / path.name, as_version=4).cells  # some draw nothing there
    drawn = [cell.metadata["figure"] for cell in executed if "figure" in cell.metadata and cell.outputs]
    committed = {file.name for file in (ROOT / "results" / "quick").glob(f"{path.stem}-*.png")}
    assert drawn and committed == {f"{path.stem}-{slug}.png" for slug in drawn} and set(drawn) <= set(slugs)


def test_committed_notebooks_are_executed_whole_and_small():
    for notebook in NOTEBOOKS:
        executed = ROOT / "results" / "quick" / notebook.name
        assert executed.stat().st_size < 500_000
        cells = json.loads(executed.read_text())["cells"]
        assert any(cell.get("outputs") for cell in cells)
        assert not any(output["output_type"] == "error" for cell in cells for output in cell.get("outputs", []))


def test_committed_data_are_whole():
    """The overfitting pair, naive and cured; a verdict per discriminator."""
    folder = ROOT / "results" / "quick"
    pair, study = (pd.read_csv(ROOT / "results" / run / "memorisation.csv") for run in ("quick", "study"))
    assert [*pair] == ["cure", *study] and pair[["machine", "commit"]].notna().all(axis=None)
    assert pair["cure"].unique().tolist()[0] == "none" and pair["cure"].nunique() == 2
    arms = pd.read_csv(folder / "arms.csv")
    assert {"test", "shifted", "real excerpt"} == set(arms["test_set"])
    gans = arms[arms["seed"].notna() & ~arms["arm"].isin(["l1", "pretrain"])][["arm", "seed"]].drop_duplicates()
    verdicts = json.loads((folder / "verdicts.json").read_text())
    assert set(verdicts) == {f"{arm}-{int(seed)}" for arm, seed in gans.to_numpy()}


@pytest.mark.parametrize(("run", "seeds"), [("quick", 1), ("study", 2)])
def test_all_arms_are_scored_on_the_same_tracks(run, seeds):
    arms = pd.read_csv(ROOT / "results" / run / "arms.csv")
    assert {"arm", "seed", "track", "target", "SDR", "ISR", "SIR", "SAR", *MEASURES, "auc_fresh"} <= set(arms.columns)
    trained = arms[arms["seed"].notna()]
    assert (trained.groupby("arm")["seed"].nunique() == seeds).all()
    assert trained.groupby(["test_set", "arm", "seed"])["track"].nunique().groupby("test_set").nunique().eq(1).all()


def test_the_tables_of_memorisation_are_whole():
    """Every training has an onset or the pass at which it was given up, and its trajectory; its maker is named."""
    keys = ["tracks", "minutes", "remix", "width", "seed", "mode"]
    table, onsets = (pd.read_csv(ROOT / "results" / "study" / f"{name}.csv") for name in ("memorisation", "onsets"))
    assert (onsets["onset_passes"].notna() ^ onsets["censored_passes"].notna()).all()
    runs = table.groupby(keys)["passes"].max()
    assert set(runs.index) == set(onsets[keys].itertuples(index=False, name=None))
    assert runs.eq(300).all() and (onsets.groupby(keys[:4] + ["mode"])["seed"].nunique() == 3).all()
    assert table[["machine", "commit"]].notna().all().all()
