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
import typed
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support import crowded

from lib import pipeline
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.evaluation.measures import MEASURES
from lib.report import profile, readme
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
    for options, words in (
        ([], ["run=my-quick"]),  # which git ignores
        (["RUN=quick"], ["run=quick"]),
        (["PROFILE=gpu"], ["run=my-gpu"]),
        ([f"MUSDB={path}"], ["run=my-quick", f"musdb_root={path}"]),
        ([f"SET=song='{path}' seeds=[1,2] #2"], ["run=my-quick", f"song={path}", "seeds=[1,2]", "#2"]),
    ):
        command = [shutil.which("make"), "-s", "report", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert pipeline._words(ast.literal_eval(done.stdout)) == [
            "gpu" if "PROFILE=gpu" in options else "quick",
            *words,
        ]


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


@pytest.mark.parametrize("file", readme.BLOCKS)
def test_the_texts_show_what_the_committed_results_say(file):
    """Their findings, tables and benchmarks are generated blocks."""
    text = (ROOT / file).read_text()
    assert readme.updated(file, text) == text, f"{file} is out of date; run python -m lib.report.readme"
    assert set(re.findall(r"^<!-- (\w+):start -->$", text, re.MULTILINE)) == set(readme.BLOCKS[file])


TEXTS = ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("file", TEXTS)
def test_links_lead_to_files_and_pictures_say_what_they_show(file):
    """Links that start with ../../actions are GitHub's; an anchor is a heading of the file that it names."""
    text = (ROOT / file).read_text()
    sources = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in (source for source in sources if not re.match(r"https?:|\.\./\.\./actions", source)):
        path, _, anchor = target.partition("#")
        place = (ROOT / file).parent / path if path else ROOT / file
        assert place.exists(), f"{file} links to {target}, which is not there"
        headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
    assert all(alt.strip() for alt in re.findall(r"!\[([^]]*)\]", text))
    assert all('alt="' in picture for picture in re.findall(r"<img[^>]+>", text))


def test_the_readme_is_short_and_its_sentences_hold_few_numbers():
    """Counted are the words of its prose and tables; code, comments and the targets of links are not."""
    text = re.sub(r"<!--.*?-->", "", (ROOT / "README.md").read_text())
    words = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    words = re.sub(r"\]\([^)]+\)", "]", re.sub(r"^\|[-:| ]+\|$", "", words, flags=re.MULTILINE))
    assert len(re.findall(r"[^\W_][\w'.+-]*", words)) <= 900
    assert crowded(text) == []


@pytest.mark.parametrize("name", ["ci", "pages"])
def test_the_workflows_are_whole(name):
    """They cannot run here. GitHub's words: triggers, jobs, steps that use an action or run a command that is there."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert {"name", True, "permissions", "jobs"} <= set(workflow)  # YAML reads "on" as true
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        assert all(("uses" in step) ^ ("run" in step) for step in job["steps"])
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    wanted = {"ci": ".ci/run", "pages": "make pages"}[name]
    assert wanted in commands and (ROOT / ".ci/run").exists()


def test_the_citation_is_whole():
    """The keys that version 1.2.0 of the format requires, and the licence of LICENSE."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT" and (ROOT / "LICENSE").read_text().startswith("MIT")
    assert citation["title"] in (ROOT / "README.md").read_text() and all(citation["authors"])


def test_container_and_binder_install_what_make_does():
    lines = [line for line in (ROOT / "Containerfile").read_text().splitlines() if line and line[0] != "#"]
    assert [line.split()[0] for line in lines] == ["FROM", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "CMD"]
    assert all((ROOT / name).exists() for line in lines if line.startswith("COPY") for name in line.split()[1:-1])
    assert "python:3.11" in lines[0] and "RUN make .venv/ready" in lines
    here, binder = (yaml.safe_load((ROOT / f / "environment.yml").read_text()) for f in ("", ".binder"))
    assert binder["dependencies"][:-1] == here["dependencies"][:-1]
    assert binder["dependencies"][-1] == {"pip": ["-r ../requirements.txt"]}
    build = (ROOT / ".binder" / "postBuild").read_text()
    words = re.search(r"lib.pipeline quick (.+)", build)[1]
    pipeline.read_profile("quick", pipeline._words(["--set", words]))  # raises for a misspelt parameter


def test_make_alone_explains_every_target():
    done = subprocess.run([shutil.which("make"), "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert all(f"  make {name} " in done.stdout for name in phony if name not in ("ffmpeg", "chromium"))


def test_separate_is_a_command_of_any_folder(tmp_path):
    """As a link on the path, in a folder that has a lib of its own."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("raise SystemExit('the wrong lib')")
    (tmp_path / "separate").symlink_to(ROOT / "bin" / "separate")
    done = subprocess.run([tmp_path / "separate", "no-song.wav"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "no-song.wav" in done.stderr and "wrong lib" not in done.stderr


def test_git_ignores_a_run_of_ones_own_and_keeps_the_committed():
    git = [shutil.which("git"), "-C", str(ROOT)]
    if not (ROOT / ".git").exists():
        pytest.skip("not a repository")
    made = ["results/my-quick/arms.csv", "results/my-quick/gan-42/config.json", "explore/06-explore.ipynb"]
    made += ["results/quick/index.html", "results/quick/gan-42/model.safetensors"]
    found = subprocess.run([*git, "check-ignore", "--no-index", *made], capture_output=True, text=True).stdout
    assert found.split() == made
    kept = subprocess.run([*git, "ls-files", "results"], capture_output=True, text=True, check=True).stdout.splitlines()
    lost = subprocess.run([*git, "check-ignore", "--no-index", "--stdin"], input="\n".join(kept), capture_output=True,
                          text=True).stdout  # fmt: skip
    assert lost == "", "committed, but a new file beside them would be ignored"


PROGRAMS = [
    "lib.separate",
    "lib.evaluation.songs",
    "lib.studies.worth",
    "lib.studies.transfer",
    "lib.studies.overfitting",
]


@pytest.mark.parametrize("program", [*PROGRAMS, "lib.train", "lib.pipeline", "lib.draw_audio", "lib.report.pages"])
def test_examples_of_a_help_name_only_files_of_the_repository(program, tmp_path):
    with typed.server():
        answer = typed.run(f"python -m {program} --help", tmp_path)
    text = answer.output + answer.errors
    assert "python -m" in text or "usage" in text, text
    examples = [line for line in text.splitlines() if re.match(r" +(python -m|torchrun)", line)]
    for path in re.findall(r"(?:-n|--checkpoint|--data|--start|data=) ?([\w./-]+/[\w./-]+)", "\n".join(examples)):
        made = path.startswith("results/my-quick/")  # by `make report`, as the help says
        assert (ROOT / path).exists() or (made and "make report" in text), f"{program} --help: {path} is not there"


def test_a_block_is_written_between_its_markers_and_nothing_else_changes(monkeypatch):
    monkeypatch.setattr(readme, "BLOCKS", {"a.md": {"one": lambda: "new", "two": lambda: "| a |"}})
    text = (
        "before\n<!-- one:start -->\nold\nold\n<!-- one:end -->\nbetween\n<!-- two:start -->\n<!-- two:end -->\nafter\n"
    )
    wanted = text.replace("old\nold\n", "new\n").replace("<!-- two:end", "| a |\n<!-- two:end")
    assert readme.updated("a.md", text) == readme.updated("a.md", wanted) == wanted
    for marker in ("<!-- one:start -->", "<!-- two:end -->"):
        with pytest.raises(UserError, match="a.md lacks the markers of the block"):
            readme.updated("a.md", text.replace(marker, ""))


def test_a_line_of_a_finding_never_begins_a_list():
    lines = readme._bullets(f"{'x' * length} L1 + GAN + cures" for length in range(90, 115)).splitlines()
    assert max(map(len, lines)) <= 120 and len([line for line in lines if line.startswith("- ")]) == 25
    assert not [line for line in lines if re.match(r" +[-+*] ", line)]


def test_every_line_of_the_reproducibility_statement_has_its_test():
    section = (ROOT / "docs" / "reproducibility.md").read_text()
    rows = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("|") and "`test_" in line]
    assert len(rows) >= 10
    for row in rows:
        for file, names in re.findall(r"`(test_\w+)`(?:: ([\w, ]+))?", row):
            [source] = [path.read_text() for path in (ROOT / "tests").rglob(f"{file}.py")]
            for name in names.strip().split(", ") if names else []:
                assert f"def test_{name}(" in source, f"{file} has no test_{name}"


def test_the_text_on_speed_shows_what_the_benchmarks_wrote():
    section = (ROOT / "docs" / "speed.md").read_text()
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
    figures = [cell for cell in executed if "figure" in cell.metadata]
    drawn = [cell.metadata["figure"] for cell in figures if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    committed = {file.name for file in (ROOT / "results" / "quick").glob(f"{path.stem}-*.png")}
    assert drawn and committed == {f"{path.stem}-{slug}.png" for slug in drawn} and set(drawn) <= set(slugs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_sentences_of_a_page_hold_few_numbers(path):
    """What a person wrote and what a program computed, in the executed notebook."""
    cells = nbformat.read(ROOT / "results" / "quick" / path.name, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts += ["".join(data["text/markdown"]) for data in outputs if "text/markdown" in data]
    assert [sentence for text in texts for sentence in crowded(text)] == []


def test_committed_notebooks_are_executed_whole_and_small():
    for notebook in NOTEBOOKS:
        executed = ROOT / "results" / "quick" / notebook.name
        assert executed.stat().st_size < 700_000  # pictures have twice the pixels of their size
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


@pytest.mark.parametrize(("run", "seeds"), [("quick", 1), ("study", 3), ("study-half", 1)])
def test_all_arms_are_scored_on_the_same_tracks(run, seeds):
    arms = pd.read_csv(ROOT / "results" / run / "arms.csv")
    columns = {"arm", "block", "seed", "track", "target", "SDR", "ISR", "SIR", "SAR", *MEASURES, "auc_fresh"}
    assert columns <= set(arms.columns)
    trained = arms[arms["seed"].notna()]
    found = trained.groupby("arm")["seed"].nunique()
    once = profile.values(ROOT / "notebooks", "study")["arms_once"] if run == "study" else []
    assert (found.drop(index=once) == seeds).all() and (found[once] == 1).all()
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
