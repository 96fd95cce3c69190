"""The study of worth: what it trains and scores, and in which order."""

import pytest

from lib.common.provenance import ROOT
from lib.report import profile
from lib.runs.arms import LONG
from lib.studies import worth


@pytest.fixture
def parameters(monkeypatch):
    tracks = {name: [object()] for name in ("train", "valid", "test", "songs")}
    monkeypatch.setattr(worth, "read_index", lambda path: (tracks, "digest"))
    words = ["seeds=[1,2]", "arms=[l1,gan]", "arms_once=[l1-long,frozen]", "arm=gan-1", "cured=gan-1"]
    return profile.values(ROOT / "notebooks", "study", words)


def test_pre_trainings_come_first_then_the_longest_arm_then_those_of_every_seed(parameters):
    jobs = worth.trainings(parameters)
    names = [job.name for job in jobs]
    assert names == ["pretrain-1", "pretrain-2", "l1-long-1", "l1-1", "gan-1", "l1-2", "gan-2", "frozen-1"]
    assert LONG > 1 and all(
        job.after == (() if job.name.startswith("pre") else (f"pretrain-{job.name[-1]}",)) for job in jobs
    )


def test_every_training_and_the_mixture_are_scored_on_one_test_set_after_the_other(parameters):
    names = [job.name for job in worth.trainings(parameters)]
    jobs = worth.scores(parameters, names)
    assert [job.name for job in jobs[:2]] == ["scores of mixture on test", "scores of pretrain-1 on test"]
    assert [job.name.split(" on ")[1] for job in jobs] == ["test"] * 9 + ["songs"] * 9
    assert [job.after for job in jobs[:2]] == [set(), {"pretrain-1"}]
    assert all(job.after == set() for job in worth.scores(parameters)), "another machine has trained"


def test_a_score_is_written_where_the_report_reads_it(parameters, monkeypatch):
    found = []
    monkeypatch.setattr(worth, "evaluate", lambda *job: found.append(job))
    for job in worth.scores(parameters):
        job.work()
    assert [(job[1], job[2]) for job in found[:2]] == [
        (ROOT / "results/study/mixture/eval/test", None),
        (ROOT / "results/study/pretrain-1/eval/test", ROOT / "results/study/pretrain-1/model.safetensors"),
    ]
