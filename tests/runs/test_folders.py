"""Which run a folder holds, whether it is finished, and in which order runs are read."""

import json

import pytest
from support import tiny, train, weights

from lib.common.errors import UserError
from lib.common.files import read_json, write_json
from lib.runs import folders
from lib.runs.folders import claim, folders_in, runs_in, trained


def finished(folder):
    write_json(folder / "config.json", {"config": {"data": "data.json"}, "finished": True})
    (folder / "model.safetensors").touch()


def test_runs_are_read_in_the_order_of_the_report_without_those_set_aside(tmp_path):
    for name in ("pretrain-1", "gan-cures-1", "gan-10", "gan-2", "l1-1", "gan-2~01234567"):
        finished(tmp_path / name)
    (tmp_path / "mixture").mkdir()
    (tmp_path / "data.json").touch()
    arms = ["l1-1", "gan-2", "gan-10", "gan-cures-1"]
    assert trained(tmp_path) == arms
    assert [folder.name for _, _, folder in runs_in(tmp_path, "config.json")] == [*arms, "pretrain-1"]
    assert runs_in(tmp_path, "config.json")[1] == ("gan", 2, tmp_path / "gan-2")
    assert [path.name for path in folders_in(tmp_path)] == sorted([*arms, "mixture", "pretrain-1"])


def test_a_run_of_another_version_of_the_training_is_stale(index, tmp_path, monkeypatch):
    folder, config = tmp_path / "l1-1", tiny(index, steps=2)
    train(config, folder)
    first = weights(folder)
    note = read_json(folder / "config.json")
    assert note.pop("version") == folders.VERSION
    write_json(folder / "config.json", note)
    monkeypatch.setattr(folders, "VERSION", 1)
    assert claim(config, folder)[1], "a run without a version is of the first one"
    monkeypatch.setattr(folders, "VERSION", 2)
    assert not claim(config, folder)[1] and not (folder / "model.safetensors").exists()
    assert read_json(folder / "config.json")["version"] == 2
    assert [weights(path) for path in tmp_path.glob("l1-1~*")] == [first], "set aside"
    (folder / "state.pt").touch()
    monkeypatch.setattr(folders, "VERSION", 1)
    assert claim(config, folder)[1] and weights(folder) == first, "it comes back"


def test_weights_without_their_checkpoint_are_not_lost(index, tmp_path):
    folder = tmp_path / "l1-1"
    train(tiny(index, steps=2), folder)
    first = weights(folder)
    (folder / "state.pt").unlink()
    assert not claim(tiny(index, steps=4), folder)[1]
    assert claim(tiny(index, steps=2), folder)[1] and weights(folder) == first


def test_parameters_that_are_newer_than_a_run_have_their_defaults(index, tmp_path):
    folder = tmp_path / "l1-1"
    train(tiny(index, steps=2), folder)
    note = read_json(folder / "config.json")
    del note["config"]["r1"], note["config"]["micro_batch"]
    (folder / "config.json").write_text(json.dumps(note))
    assert claim(tiny(index, steps=2), folder)[1]
    claim(tiny(index, steps=4), folder)
    assert claim(tiny(index, steps=2), folder)[1], "it comes back"


@pytest.mark.parametrize("name", ["gan", "gan-x", "-1", "a b-1"])
def test_a_run_without_arm_and_seed_is_refused(tmp_path, name):
    finished(tmp_path / name)
    with pytest.raises(UserError, match=f"An arm's folder cannot be called {name!r}"):
        trained(tmp_path)
