"""The notebooks' guard refuses what papermill would only warn of."""

import json

import pytest
from support import SOURCES

from lib.common.errors import UserError
from lib.report.guard import check_parameters, check_values

PARAMETERS = """# what to run
steps: int = 400  # help
lr: float = 3e-4
musdb_root: str = ""
seeds: list[int] = [0, 1]
folders: dict = {}
fast: bool = True"""


@pytest.fixture
def notebooks(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# steps: int = 3"]},
        {"cell_type": "code", "source": ["%matplotlib inline"]},
        {"cell_type": "code", "source": ["shifts: int = 2\n", "metric: str = 'fast'"]},
        {"cell_type": "code", "source": ["hidden: int = 3"]},
    ]
    (tmp_path / "03-sdr-table.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def check(injected, notebooks):
    cells = ["", "%pylab", "import os", PARAMETERS, "# Parameters\n" + injected, "x: int = 1"]
    return check_parameters(cells, notebooks)


@pytest.mark.parametrize(
    "injected",
    ["", "steps = 4", "lr = 1", "lr = 1.5", "musdb_root = '/m'", "seeds = [3]",
     "folders = {'a': 'b'}", "fast = False", "shifts = 'of a sibling'", "metric = 'museval'"],
)  # fmt: skip
def test_known_parameters_pass(injected, notebooks):
    check(injected, notebooks)


@pytest.mark.parametrize(
    ("injected", "says"),
    [
        ("step = 4", "did you mean 'steps'"),
        ("shift = 4", "did you mean 'shifts'"),
        ("zzz = 4", "'zzz'; known are .*steps"),
        ("hidden = 4", "'hidden'"),
        ("steps = 4.5", "'steps' must be int, but 4.5 is float"),
        ("steps = True", "'steps' must be int, but True is bool"),
        ("lr = '1e-4'", "'lr' must be float"),
        ("musdb_root = 3", "must be str"),
        ("seeds = ['a']", r"must be list\[int\]"),
        ("folders = ['a']", "must be dict"),
        ("fast = 1", "must be bool"),
        ("seeds = []", "seeds = \\[\\] must hold at least one value"),
        ("steps = -1", "steps = -1 must be above 0"),
        ("lr = float('nan')", "lr = nan must be a finite number"),
    ],
)
def test_unknown_or_unfit_parameters_are_refused(injected, says, notebooks):
    with pytest.raises(UserError, match=says):
        check(injected, notebooks)


def test_the_values_that_count_are_returned(notebooks):
    defaults = {"steps": 400, "lr": 3e-4, "musdb_root": "", "seeds": [0, 1], "folders": {}, "fast": True}
    assert check("", notebooks) == defaults
    assert check("steps = 4\nshifts = 3", notebooks) == defaults | {"steps": 4}, "a sibling's parameter passes"
    edited = PARAMETERS.replace("400", "7")
    history = ["", PARAMETERS, "# Parameters\nsteps = 4\nfast = False", "import os", edited]
    assert check_parameters(history, notebooks) == defaults | {"steps": 7}


def test_a_type_that_the_guard_does_not_know_is_refused(notebooks):
    with pytest.raises(UserError, match=r"a type that is not understood: str \| None"):
        check_parameters(["x: str | None = None"], notebooks)


def test_a_track_beyond_the_composed_ones_is_refused():
    made = {"musdb_root": "embedded", "train_tracks": 3, "test_tracks": 2}
    check_values(made | {"show_track": 2, "listen_tracks": [0, 1]})
    with pytest.raises(UserError, match=r"listen_tracks = \[0, 2\] must be below test_tracks = 2"):
        check_values(made | {"listen_tracks": [0, 2]})
    with pytest.raises(UserError, match="show_track = 3 must be below train_tracks = 3"):
        check_values(made | {"show_track": 3})
    check_values(made | {"musdb_root": "sample", "show_track": 3, "listen_tracks": [2]})  # whose number is not known


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"run": "reference"}, "run = 'reference' must be a folder's name"),
        ({"test_sets": {"a/b": "/songs"}}, "test_sets: 'a/b' must be a folder's name"),
        ({"test_sets": {7: "/songs"}}, "test_sets: 7 must be a folder's name"),
        ({"test_sets": {"shifted": "/songs"}}, "test_sets: 'shifted' must be .* none of the sets that are there"),
        ({"test_sets": {"train": "/songs"}}, "test_sets: 'train' must be"),
        ({"test_sets": {"real songs": ["/songs"]}}, r"test_sets: 'real songs' names \['/songs'\]; give the path"),
        (
            {"stems": [*SOURCES], "listen_stems": ["drums", "guitar"]},
            "'guitar'\\] is unknown; choose one of drums, bass, other, vocals",
        ),
        ({"listen_seconds": 0.0}, "listen_seconds = 0.0 must be above 0"),
        ({"pair_seconds": 0.0}, "pair_seconds = 0.0 must be above 0"),
        ({"pair_tracks": 2, "pair_cure": "prayer"}, "The cure 'prayer' is unknown; choose one of none · remix · "),
        (
            {"pair_tracks": 2, "musdb_root": "embedded", "valid_tracks": 5},
            "pair_tracks = 2 needs twice as many validation tracks, and two more, but valid_tracks = 5; raise",
        ),
        ({"arm_steps": 2_000_000_000}, "arm_steps = 2000000000 must be at most 1e"),
        ({"seeds": [1, 2**32]}, "must be 0 to 4294967295"),
        ({"arms": ["l1"], "seeds": [1], "arm": "l1-1", "cured": "l1-1"}, r"arm = 'l1-1'.*\(none\)"),
    ],
)
def test_values_that_no_notebook_can_use_are_refused(values, says):
    check_values({"test_sets": {"real songs": "/a folder that is not there"}})
    check_values({"seed": 2**32 - 1, "seeds": [2**32 - 1]})  # the largest seed is above the most of anything else
    with pytest.raises(UserError, match=says):
        check_values(values)


def test_a_run_by_hand_injects_nothing_and_a_broken_notebook_is_named(notebooks):
    check_parameters(["", PARAMETERS], notebooks)
    (notebooks / "05-broken.ipynb").write_text("{")
    with pytest.raises(UserError, match="05-broken.ipynb"):
        check_parameters([PARAMETERS], notebooks)
