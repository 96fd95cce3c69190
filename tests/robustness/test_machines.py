"""Reports and songs on machines as clusters, containers and cron have them, by the real commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from support import RATE, tiny

from lib.common.provenance import ROOT
from lib.runs.launch import launch

USE = """import sys
sys.path.insert(0, "{root}")
from lib.report.figures import style
style.use()
print("−", sys.executable)"""
DRAW = "# A figure\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);"
EXECUTE = (
    "import sys; from pathlib import Path; from lib import pipeline; pipeline._execute(*map(Path, sys.argv[1:]), {})"
)
UNKNOWN = 54321  # a user id that no system has a name for


@pytest.fixture
def notebook(tmp_path):
    """The path of a notebook with one cell that promises a figure."""
    cells = [nbformat.v4.new_code_cell(USE.format(root=ROOT)), nbformat.v4.new_code_cell(DRAW)]
    cells[1].metadata["figure"] = "line"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "01-in.ipynb")
    return tmp_path / "01-in.ipynb"


def call(*words, before=(), cwd=ROOT, **environment):
    """The finished process of `python` with `words`; before: words of a program that starts it."""
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # which conftest sets
    command = [*before, sys.executable, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, errors="replace"
    )


def pictures(path):
    """The kinds of pictures in each cell of an executed notebook."""
    cells = nbformat.read(path, as_version=4).cells
    return [{kind for o in cell.outputs for kind in o.get("data", {}) if kind.startswith("image/")} for cell in cells]


def profile(folder):
    """A folder of IPython settings that ask for svg, and stop every kernel that reads them at start."""
    (folder / "profile_default/startup").mkdir(parents=True)
    (folder / "profile_default/ipython_kernel_config.py").write_text(
        "c.InlineBackend.figure_formats = {'svg'}\nc.IPKernelApp.matplotlib = 'agg'\n"
    )
    return str(folder)


def foreign(folder):
    """A folder of kernels, of which python3 is not Python."""
    (folder / "kernels/python3").mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (folder / "kernels/python3/kernel.json").write_text(json.dumps(spec))
    return str(folder)


def deep(folder):
    folder = folder / ("t" * 90)
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize(
    "environment",
    [
        lambda place: {"MPLBACKEND": "Agg"}, lambda place: {"IPYTHONDIR": profile(place / "ipython")},
        lambda place: {"JUPYTER_PATH": foreign(place / "jupyter")}, lambda place: {"TMPDIR": deep(place)},
        lambda place: {"LC_ALL": "C", "PYTHONUTF8": "0"}, lambda place: {"HOME": "/proc/none"},
    ],
    ids=["a backend", "a profile", "a foreign kernel", "a deep TMPDIR", "an old locale", "no home"],
)  # fmt: skip
def test_a_page_has_its_figures_on_any_machine(notebook, tmp_path, environment):
    done = call("-c", EXECUTE, notebook, tmp_path / "out.ipynb", **environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert pictures(tmp_path / "out.ipynb") == [set(), {"image/png"}]
    said = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs[-1].text
    assert said == f"− {sys.executable}\n"


@pytest.mark.parametrize(
    "environment",
    [lambda place: {"MPLBACKEND": "Agg"}, lambda place: {"IPYTHONDIR": profile(place / "ipython")}],
    ids=["a backend", "a profile"],
)
def test_papermill_by_hand_draws_the_figures_too(notebook, tmp_path, environment):
    done = call("-m", "papermill", notebook, tmp_path / "out.ipynb", **environment(tmp_path))
    assert done.returncode == 0 and pictures(tmp_path / "out.ipynb") == [set(), {"image/png"}], done.stderr


def test_a_page_without_a_figure_that_it_promises_is_an_error(notebook, tmp_path):
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].source = "# A figure\nprint('no figure')"
    nbformat.write(content, notebook)
    done = call("-c", EXECUTE, notebook, tmp_path / "out.ipynb")
    assert done.returncode and "01-in has no PNG of its figure line; " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.ipynb").exists()


def test_a_training_alone_under_a_platforms_variables(index, tmp_path):
    """Given half of them, one sentence; the launcher starts ranks of its own and passes none on."""
    words = [f"{name}={value}" for name, value in vars(tiny(index, steps=2)).items() if name in ("data", "steps")]
    done = call("-m", "lib.train", tmp_path / "l1-1", *words, WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2 and done.stderr.startswith("UserError: WORLD_SIZE is 2, but"), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_launcher_does_not_pass_a_platforms_variables_on(index, tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    launch(tiny(index, steps=2, evaluate_every=2), tmp_path / "l1-1")
    assert (tmp_path / "l1-1/model.safetensors").exists()


def song(folder, name="song.wav"):
    soundfile.write(folder / name, np.random.RandomState(0).uniform(-0.1, 0.1, (2000, 2)), RATE)
    return folder / name


def stems(folder):
    return sorted(path.name for path in folder.iterdir())


FOUR = ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]


def test_closed_streams_take_no_word_and_no_song(tmp_path):
    """As cron starts programs, or `2>&-`."""
    good, bad = song(tmp_path), tmp_path / "none.wav"
    shell = ["sh", "-c", 'exec "$@" 2>&- 0<&-', "sh"]
    done = call("-m", "lib.separate", good, bad, "-o", tmp_path / "out", before=shell)
    assert done.returncode == 1 and f"Cannot read {bad}" in done.stdout, done
    assert stems(tmp_path / "out/song") == FOUR


def test_names_and_sentences_in_an_old_locale(tmp_path):
    """A name of the song that ASCII lacks, one that is not even UTF-8, and a sentence with a minus sign."""
    songs = [song(tmp_path, "Ünï − 夜.wav"), song(tmp_path).rename(tmp_path / os.fsdecode(b"sp\xe9cial.wav"))]
    done = call("-m", "lib.separate", *songs, "-o", tmp_path / "out", LC_ALL="C", PYTHONUTF8="0", LANG="C")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert {Path(os.fsencode(p.name).decode("utf-8", "replace")).name for p in (tmp_path / "out").iterdir()} == {
        "Ünï − 夜", "sp\ufffdcial"
    }  # fmt: skip
    assert "Ünï − 夜: peaks" in done.stdout
    done = call("-m", "lib.separate", tmp_path / "é.wav", "-o", tmp_path / "out", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 1 and done.stderr.startswith(f"Cannot read {tmp_path}/é.wav")


def test_a_read_only_shared_memory(tmp_path):
    """In a mount namespace of its own, so that nobody else's /dev/shm changes."""
    private = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    songs = [song(tmp_path, f"{k}.wav") for k in range(2)]
    done = call("-m", "lib.separate", *songs, "-j", "2", "-o", tmp_path / "out", before=private)
    assert done.returncode == 0 and "one process does all the work" in done.stdout, done
    assert [stems(tmp_path / f"out/{k}") for k in range(2)] == [FOUR, FOUR]
    program = "from lib.corpus import generate; generate(sys.argv[1], train=1, valid=0, test=0, shifted=0, seconds=4.0)"
    done = call("-c", f"import sys; {program}", tmp_path / "corpus", before=private)
    assert done.returncode == 0 and (tmp_path / "corpus/corpus.json").exists(), done


def test_a_user_without_a_name_or_a_home(notebook, tmp_path):
    """As containers start programs (docker run --user 54321): by a user namespace, which maps this user to another."""
    nameless = ["unshare", "--user", f"--map-user={UNKNOWN}", f"--map-group={UNKNOWN}", "env", "-u", "USER"]
    if not shutil.which("unshare") or subprocess.run([*nameless, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    for home in (["HOME=/proc/none"], ["-u", "HOME"]):
        out = tmp_path / home[0]
        done = call("-m", "lib.separate", song(tmp_path), "-o", out / "stems", before=[*nameless, *home])
        assert done.returncode == 0 and stems(out / "stems/song") == FOUR, (home, done.stderr)
        done = call("-c", EXECUTE, notebook, out / "out.ipynb", before=[*nameless, *home])
        assert done.returncode == 0 and pictures(out / "out.ipynb")[1] == {"image/png"}, (home, done.stderr)
