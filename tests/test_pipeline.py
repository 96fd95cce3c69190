"""The whole report at its smallest, through the real papermill; then what a second call, a changed parameter and a
misspelt one do."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook
from support import SOURCES, STRANGE, watched_page

from lib import pipeline
from lib.common.errors import UserError
from lib.common.files import locked
from lib.common.provenance import ROOT
from lib.common.words import literal

DANGERS = "[onerror], [src=x], a[href^=javascript]"  # what a browser would make of `STRANGE` as HTML or Markdown


def test_the_report_is_whole(report):
    folder, _ = report
    for step in pipeline.STEPS:
        cells = json.loads((folder / f"{step}.ipynb").read_text())["cells"]
        assert not any(o["output_type"] == "error" for c in cells for o in c.get("outputs", []))
        assert (folder / f"{step}.html").stat().st_size > 10_000
    table = pd.read_csv(folder / "sdr_table.csv")
    assert list(table.columns[:6]) == ["system", "drums", "bass", "other", "vocals", "all"]
    published = table.set_index("system").loc["Demucs v1"]
    assert [round(published[c], 2) for c in table.columns[1:6]] == [6.08, 5.83, 4.12, 6.29, 5.58]
    measured = table[table["section"].str.endswith(": test")]["system"].tolist()
    assert measured[:4] == ["Mixture ÷ 4 as every estimate", "L1", "L1 + GAN", "L1 + GAN + cures"]
    assert table["section"].str.endswith("real excerpt").any()
    further = table[table["section"].str.endswith(": songs")]
    assert further["system"].tolist() == measured and set(further["tracks"]) == {1}
    assert not table["section"].str.contains("gone").any()
    pair = pd.read_csv(folder / "memorisation.csv")
    assert pair["cure"].unique().tolist() == ["none", "strong R1"] and pair["step"].max() == 12
    assert set(pair["tracks"]) == {1} and pair["membership_auc"].notna().all()
    assert set(json.loads((folder / "verdicts.json").read_text())) == {"gan-1", "gan-cures-1"}
    tracks = pd.read_csv(folder / "arms.csv")
    assert set(tracks["arm"]) == {"mixture", "pretrain", "l1", "gan", "gan-cures"}
    assert set(tracks["target"]) == set(SOURCES)
    assert set(tracks["test_set"]) == {"test", "real excerpt", "songs"}
    printed = [output.get("text", "") for cell in json.loads((folder / "01-data.ipynb").read_text())["cells"]
               for output in cell.get("outputs", [])]  # fmt: skip
    assert "The test set 'gone' is left out: " in "".join(map("".join, printed))


def test_pages_load_nothing_from_elsewhere(report):
    folder, _ = report
    for page in folder.glob("*.html"):
        text = page.read_text()
        for mark in ('src="http', "src='http", 'href="http://', "@import url(http", 'link rel="stylesheet" href="http'):
            assert mark not in text, (page.name, mark)
    assert "<table" in (folder / "index.html").read_text()


def test_strange_names_are_shown_letter_by_letter(report, chromium):
    """In the notebooks' outputs, and in their pages in a browser, in which nothing of a name may run."""
    folder, _ = report
    wanted = {"01-data": 1, "03-sdr-table": 1, "05-listen": 4, "06-explore": 1, "index": 1}  # where names stand
    for step in wanted.keys() & pipeline.STEPS.keys():
        cells = json.loads((folder / f"{step}.ipynb").read_text())["cells"]
        for data in (output.get("data", {}) for cell in cells for output in cell.get("outputs", [])):
            markup = BeautifulSoup("".join(data.get("text/html", "")), "html.parser")
            assert not markup.select(DANGERS), step
            assert "$x$" not in markup.text or markup.select(".mathjax_ignore"), "no formula in JupyterLab"
            assert "onerror" not in "".join(data.get("text/markdown", "")).replace(literal(STRANGE), "")
    with watched_page(chromium, ("file:", "data:", "about:")) as page:
        for name, count in wanted.items():
            page.goto((folder / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.locator("body").text_content().count(STRANGE) >= count, name
            assert not page.locator(DANGERS).count(), name


def test_a_second_call_repeats_nothing_and_a_parameter_only_what_depends_on_it(report, capsys):
    _, words = report
    pipeline.run("quick", words)
    said = capsys.readouterr().out
    assert said.count("up to date") == len(pipeline.STEPS) and "time went" not in said
    pipeline.run("quick", [*words, "shifts=0"])
    said = capsys.readouterr().out
    assert said.count("up to date") == 3  # 01, 02 and 06, which know nothing of shifts
    assert all(f"{step}: running" in said for step in ("03-sdr-table", "04-discriminator", "05-listen"))
    times = re.findall(r"^  (\d\d-[\w-]+) +(\d+):([0-5]\d)$", said.partition("Where the time went")[2], re.MULTILINE)
    assert [step for step, *_ in times] == ["03-sdr-table", "04-discriminator", "05-listen"]
    assert any((minutes, seconds) != ("0", "00") for _, minutes, seconds in times)


def test_a_misspelt_parameter_is_refused_by_the_pipeline_and_by_papermill(report, tmp_path):
    with pytest.raises(UserError, match="arm_stepz"):
        pipeline.run("quick", ["arm_stepz=3"])
    command = [sys.executable, "-m", "papermill", "03-sdr-table.ipynb", tmp_path / "out.ipynb", "-p", "shiftz", "3"]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode and "did you mean 'shifts'?" in done.stderr


def test_a_failing_step_ends_in_its_sentence_and_keeps_what_was_there(report):
    folder, words = report
    before = (folder / "05-listen.ipynb").read_bytes()
    with pytest.raises(UserError, match="05-listen stopped: Cannot decode .*README.md .*give a whole audio file"):
        pipeline.run("quick", [*words, f"song={ROOT / 'README.md'}"])
    assert (folder / "05-listen.ipynb").read_bytes() == before
    assert (folder / "05-listen.failed.ipynb").exists()


@pytest.mark.whole
def test_notebooks_of_two_reports_run_side_by_side(tmp_path):
    """Their processes are reached by files: each has its own."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell("import time; time.sleep(2)")], metadata=kernel), tmp_path / "in")
    program = "import sys; from pathlib import Path; from lib import pipeline; "
    program += "pipeline._execute(*map(Path, sys.argv[1:]), {})"
    runs = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path / "in", tmp_path / f"{k}.ipynb"], cwd=ROOT)
        for k in range(2)
    ]
    assert [run.wait(timeout=50) for run in runs] == [0, 0]  # seconds: less than a kernel that cannot be reached waits


def test_a_second_report_in_the_same_folder_says_so_and_stops(report):
    folder, words = report
    with locked(folder), pytest.raises(UserError, match=f"{folder.name} is being worked on by process {os.getpid()}"):
        pipeline.run("quick", words)


@pytest.mark.parametrize("path", ["/music #1", "a: b", "{x: 1}", "[1]", "7", "true", "~/x", "'q'", "*a", "- x", ""])
def test_a_text_means_what_was_typed(path):
    parameters = pipeline.read_profile("quick", [f"musdb_root={path}", "seeds=[42, 43]"])
    assert parameters["musdb_root"] == path and parameters["seeds"] == [42, 43]


def test_impossible_values_are_refused_before_anything_is_made(report):
    folder, _ = report
    with pytest.raises(UserError, match="arm = 'gan-42', which 04-discriminator looks at, is none of the runs"):
        pipeline.run("quick", [f"run={folder.name}-never", "seeds=[43]"])
    assert not list(folder.parent.glob(f"*{folder.name}-never*"))


@pytest.fixture
def rerun(tmp_path, monkeypatch):
    """Update a copy of results/quick, by a copy of lib/ and notebooks/; a run returns (notebooks executed, pages).

    An "executed" notebook is the committed one. `rerun.root` is the copy's folder.
    """
    for name in ("lib", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    folder = shutil.copytree(ROOT / "results" / "quick", tmp_path / "quick")
    made = {"executed": [], "pages": []}

    def execute(source, output, parameters):
        made["executed"].append(source.stem)
        shutil.copy(ROOT / "results" / "quick" / output.name, output)

    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(pipeline, "_execute", execute)
    monkeypatch.setattr(pipeline, "write_page", lambda notebook, page, steps: page.write_text(page.stem))
    monkeypatch.setattr(pipeline, "settle", lambda notebook: made["pages"].append(notebook.stem))
    monkeypatch.setattr(pipeline, "write_index", lambda run, steps: (run / "index.html").write_text("index"))

    def run(**parameters):
        made.update(executed=[], pages=[])
        pipeline._update(folder, parameters)
        return made["executed"], made["pages"]

    run.root = tmp_path
    assert run() == ([*pipeline.STEPS], [*pipeline.STEPS])
    assert run() == ([], [])
    return run


def append(file, text="\n# a change\n"):
    file.write_text(file.read_text() + text)


@pytest.mark.parametrize("file", ["pages.css", "pages.py", "front_page.py"])
def test_a_change_of_what_writes_pages_executes_nothing(rerun, file):
    append(rerun.root / "lib" / "report" / file, "\n")
    (rerun.root / "quick" / "index.html").write_text("old")
    assert rerun() == ([], [*pipeline.STEPS])
    assert (rerun.root / "quick" / "index.html").read_text() == "index"


def test_a_module_executes_only_the_notebooks_that_import_it(rerun):
    append(rerun.root / "lib" / "report" / "explore.py")  # which only 06 imports
    executed, pages = rerun()
    assert executed == pages == ["06-explore"]
    append(rerun.root / "lib" / "draw_audio" / "piano.js")  # which 06 shows, and every page may
    assert rerun() == (["06-explore"], [*pipeline.STEPS])
    append(rerun.root / "lib" / "train.py")  # which launch starts by its name, and on whose results the others depend
    assert rerun()[0] == [*pipeline.STEPS][1:]
    append(rerun.root / "lib" / "report" / "guard.py")  # which computes nothing
    append(rerun.root / "lib" / "separate" / "__main__.py")  # which no notebook starts
    assert rerun() == ([], [])


def test_a_notebook_executes_again_for_its_source_a_parameter_or_its_upstream(rerun):
    assert rerun(song_start=1.0)[0] == ["05-listen"]
    append(rerun.root / "notebooks" / "03-sdr-table.ipynb", "\n")
    assert rerun(song_start=1.0)[0] == ["03-sdr-table", "04-discriminator", "05-listen"]
    (rerun.root / "quick" / "06-explore.html").unlink()
    assert rerun(song_start=1.0) == ([], ["06-explore"])
    (rerun.root / "quick" / "06-explore.ipynb").unlink()
    assert rerun(song_start=1.0)[0] == ["06-explore"]
