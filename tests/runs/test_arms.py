"""The arms: what each changes against its neighbour."""

import dataclasses

import pytest

from lib.common.provenance import ROOT
from lib.report import profile
from lib.runs.arms import ARMS, LONG, plan


@pytest.fixture
def runs():
    words = ["seeds=[1, 2]", f"arms=[{', '.join(arm for arm in ARMS if arm != 'frozen')}]", "arms_once=[frozen]"]
    return plan(profile.values(ROOT / "notebooks", "quick", ["cured=gan-cures-1", "arm=gan-1", *words]))


def difference(a, b):
    a, b = dataclasses.asdict(a), dataclasses.asdict(b)
    return {name: b[name] for name in a if a[name] != b[name]}


def test_every_seed_has_a_pre_training_and_its_arms_start_from_it(runs):
    assert [name for name, config in runs.items() if not config.start_from] == ["pretrain-1", "pretrain-2"]
    for name, config in runs.items():
        seed = int(name.rpartition("-")[2])
        assert config.seed == seed and config.start_from in ("", f"results/quick/pretrain-{seed}")
    assert "frozen-1" in runs and "frozen-2" not in runs
    assert (
        len({(c.batch, c.lr, c.lr_final, c.steps) for n, c in runs.items() if n.endswith("-1") and c.start_from}) == 2
    )
    assert runs["l1-long-1"].steps == LONG * runs["l1-1"].steps


def test_each_arm_is_one_term_from_a_neighbour(runs):
    assert difference(runs["l1-1"], runs["spectral-1"]) == {"spectral_share": 0.5}
    assert difference(runs["spectral-gan-1"], runs["frozen-1"]) == {"discriminator_updates": 0.0}
    assert difference(runs["gan-1"], runs["gan-cures-1"]) == {"r1": 3.0}
    assert difference(runs["gan-1"], runs["gan-share-0.4-1"]) == {"adversarial_weight": 0.0, "adversarial_share": 0.4}
    added = difference(runs["spectral-adv-1"], runs["spectral-gan-1"])
    assert added == {"adversarial_share": 4 / 7, "feature_matching_share": 0.5}
    assert runs["gan-1"].without_adversary() == runs["l1-1"] and runs["gan-1"].adversarial


def test_feature_matching_is_added_beside_the_same_adversarial_gradient(runs):
    """L1 : spectral : adversarial : feature matching is 3 : 3 : 4, then 3 : 3 : 4 : 4."""
    for name, wanted in (("spectral-adv-1", (3, 3, 4, 0)), ("spectral-gan-1", (3, 3, 4, 4))):
        c = runs[name]
        a, p, f = c.adversarial_share, c.spectral_share, c.feature_matching_share
        shares = (1 - a) * (1 - p), (1 - a) * p, a * (1 - f), a * f
        assert [share / shares[0] * 3 for share in shares] == pytest.approx(wanted)
