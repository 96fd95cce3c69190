"""Trials of pre-trainings: what they change, and their table."""

import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.report import profile
from lib.runs.distributed import Ranks
from lib.runs.folders import claim
from lib.studies import bases, worth
from lib.train import Trainer

TINY = (
    "steps=2 batch=4 channels=4 depth=2 lstm_layers=0 seconds=0.25 shift_seconds=0.05 stride_seconds=0.1 "
    "evaluate_every=1 evaluation_excerpts=2 remix_group=0"
)


def test_a_trial_changes_the_pre_training_of_the_first_seed_by_its_words():
    parameters = profile.values(ROOT / "notebooks", "study")
    found = bases.configs(parameters, {"as-it-is": [], "slow": ["lr=0.001", "steps=9"]})
    assert found["as-it-is"].lr == parameters["lr"] and found["as-it-is"].steps == parameters["pretrain_steps"]
    assert (found["slow"].lr, found["slow"].steps, found["slow"].seed) == (0.001, 9, parameters["seeds"][0])
    assert not found["slow"].adversarial
    with pytest.raises(UserError, match="is not a parameter"):
        bases.configs(parameters, {"loud": ["volume=11"]})
    with pytest.raises(UserError, match="rename it"):
        bases.configs(parameters, {"as it is": []})


def test_the_table_says_how_far_above_the_mixture_each_trial_came_and_finished_ones_are_kept(
    noise, tmp_path, monkeypatch
):
    trained = []

    def train(config, folder, **_):
        trained.append(folder.name)
        config, finished = claim(config, folder)
        if not finished:
            Trainer(config, folder, Ranks()).run()

    monkeypatch.setattr(bases, "launch", train)
    monkeypatch.setattr(bases, "evaluate", lambda *job: worth.score_set(job))
    words = [f"{name}:data={noise[0]} {TINY} {more}" for name, more in (("first", ""), ("wider", "channels=5"))]
    bases.main([str(tmp_path / "bases.csv"), "study", *words])
    table = pd.read_csv(tmp_path / "bases.csv").set_index("base")
    assert [*table.index] == ["first", "wider"] and (table["steps"] == 2).all()
    assert table.loc["wider", "words"].endswith("channels=5") and table["l1_heldout"].between(0, 10).all()
    above = table[[f"{stem}_above" for stem in ("drums", "bass", "other", "vocals")]]
    pd.testing.assert_series_equal(above.mean(axis=1), table["all_above"], check_names=False, atol=1e-3)
    assert trained == ["first-42", "wider-42"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")}
    bases.main([str(tmp_path / "bases.csv"), "study", *words])
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")}
