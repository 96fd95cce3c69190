"""Fixtures of all tests, and the markers that the Makefile selects by. Plain helpers: `support.py`."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import STRANGE, listening, synthetic_stems, tiny, train, write_flac, write_track

from lib.common.provenance import ROOT

os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # several tests run at once: one thread for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The smallest report: one-second test tracks are too short for a figure, so they keep their four seconds.
SMALLEST_REPORT = dict(
    seeds=[1], seed=1, nproc=1, pretrain_steps=4, arm_steps=4, batch=4, channels=4, depth=3, lstm_layers=1,
    seconds=0.3, shift_seconds=0.1, stride_seconds=0.5, adversarial_start=1, adversarial_ramp=1,
    discriminator_width=8, evaluate_every=2, evaluation_excerpts=4, arm="gan-1", cured="gan-cures-1",
    shifts=1, listen_seconds=1.0, explore_seconds=1.0, musdb_players=True, fresh_discriminator=False,
    pair_tracks=1, pair_seconds=3.0, pair_steps=12,
)  # fmt: skip
CHROMIUM_FLAGS = [
    "--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


COSTLY = {"chromium", "corpus", "own", "place", "report", "scored", "undisturbed"}  # module fixtures that take seconds


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Mark the tests that attack the program, those that open a browser, and those of a whole report.

    Tests of one file that share a costly fixture form a group: pytest-xdist runs it in one process, which makes the
    fixture once. The report, the costliest, is made first.
    """
    items.sort(key=lambda item: "report" not in item.fixturenames)
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder == "robustness":
            item.add_marker("robustness")
        if folder == "browser" or "chromium" in item.fixturenames:
            item.add_marker("browser")
        if "report" in item.fixturenames:
            item.add_marker("whole")
        if COSTLY & {*item.fixturenames}:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


# --- data ---


@pytest.fixture(scope="session")
def musdb_folder(tmp_path_factory):
    """A musdb folder of wav tracks: six for training and validation, two for testing."""
    root = tmp_path_factory.mktemp("musdb")
    for k in range(6):
        write_track(root / "train" / f"Band {k} - Song", synthetic_stems(k))
    for k in (10, 11):
        write_track(root / "test" / f"Band {k} - Song", synthetic_stems(k))
    (root / "musdb.yaml").write_text(_setup(["Band 2 - Song", "Band 5 - Song"]))
    return root


def _setup(validation):
    import musdb
    import yaml

    setup = yaml.safe_load(Path(musdb.__path__[0], "configs", "mus.yaml").read_text())
    return yaml.safe_dump(setup | {"validation_tracks": validation})


@pytest.fixture(scope="session")
def index(musdb_folder, tmp_path_factory):
    """The data index of `musdb_folder`."""
    from lib.data.decode import decode
    from lib.data.musdb import list_musdb
    from lib.data.tracks import write_index

    cache = tmp_path_factory.mktemp("cache")
    write_index(cache / "data.json", {name: decode(files, cache) for name, files in list_musdb(musdb_folder).items()})
    return cache / "data.json"


@pytest.fixture(scope="session")
def real_excerpt():
    """stempeg's six seconds of a MUSDB18 test track: a .stem.mp4 file."""
    import stempeg

    return Path(stempeg.example_stem_path())


# --- trainings and reports ---


@pytest.fixture(scope="session")
def pretrained(index, tmp_path_factory):
    """The folder of a finished run of eight steps; tests only read it."""
    folder = tmp_path_factory.mktemp("run") / "pretrain-1"
    train(tiny(index), folder)
    return folder


@pytest.fixture(scope="module")
def report(musdb_folder, tmp_path_factory):
    """A finished report of a musdb folder whose first tracks have a strange name, and of two further test sets.

    "songs" holds one song as flac files without a mixture; "gone" does not exist. Returns (run's folder, words)."""
    from lib import pipeline

    scratch = tmp_path_factory.mktemp("report")
    root, name = scratch / "musdb", f"test-{scratch.name}"
    shutil.copytree(musdb_folder, root)
    for subset, track in (("train", "Band 0 - Song"), ("test", "Band 10 - Song")):
        (root / subset / track).rename(root / subset / STRANGE)
    for k in (6, 7):  # the overfitting pair needs four validation tracks
        write_track(root / "train" / f"Band {k} - Song", synthetic_stems(k))
    (root / "musdb.yaml").write_text(_setup([f"Band {k} - Song" for k in (2, 5, 6, 7)]))
    words = [f"run={name}", f"musdb_root={root}", *(f"{key}={value}" for key, value in SMALLEST_REPORT.items())]
    words.append(f"museval_folders={json.dumps({STRANGE: 'results/reference/museval_json/OpenUnmix'})}")
    write_flac(scratch / "songs" / "A - B", synthetic_stems(20))
    further = {"songs": str(scratch / "songs"), "gone": str(scratch / "gone")}
    words.append(f"test_sets={json.dumps(further)}")
    folder = ROOT / "results" / name
    try:
        pipeline.run("quick", words)
        yield folder, words
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def report_of(tmp_path):
    """Make the smallest report of a folder of tracks: `report_of(root, **parameters)` returns the run's folder."""
    from lib import pipeline

    folder = ROOT / "results" / f"test-report-{tmp_path.name}"

    def make(root, **parameters):
        values = SMALLEST_REPORT | {"run": folder.name, "musdb_root": root} | parameters
        return pipeline.run("quick", [f"{name}={value}" for name, value in values.items()])

    yield make
    shutil.rmtree(folder, ignore_errors=True)


# --- browsers ---


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium. It ends with the test file, since other files run event loops of their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not on the path: apt-get install chromium")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab that listens on the loopback alone; yields its address and folder."""
    homes = {
        name: str(tmp_path / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
               f"--ServerApp.root_dir={tmp_path}", "--IdentityProvider.token=secret", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
               "--LabApp.extension_manager=readonly"]  # fmt: skip
    environment = os.environ | homes | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = next(found for line in server.stderr if (found := re.search(r"http://127.0.0.1:\d+/", line)))
            yield address.group(), tmp_path
            assert listening(server.pid) == {"127.0.0.1"}, "the server and its kernels"
        finally:
            server.terminate()
            server.stderr.read()
