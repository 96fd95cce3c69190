"""The study of memorisation, at a tiny size: its trainings, its tables, its law and its cues."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from support import in_process

from lib.common.errors import UserError
from lib.common.provenance import portable
from lib.config import Config
from lib.data.tracks import SAMPLERATE, read_index
from lib.evaluation import probe
from lib.memorisation import auc
from lib.runs.cures import ALL, L1
from lib.runs.distributed import Ranks
from lib.runs.folders import claim
from lib.studies import cues, law, overfitting, pieces, plans
from lib.studies.judge import JudgingTrainer, spread
from lib.studies.plans import Run

SECONDS = 3.0  # to which tracks of noise are cut
COLUMNS = [
    "tracks", "minutes", "remix", "width", "seed", "mode", "step", "passes", "tpr_train", "tpr_heldout", "tnr_train",
    "tnr_heldout", "auc_train", "auc_heldout", "bce_train", "bce_heldout", "membership_auc", "membership_null",
    "r_v_sigma", "r_f", "membership_tracks", "auc_matched", "l1_train", "l1_heldout", "machine", "commit",
]  # fmt: skip
TINY = ["seconds=0.25", "shift_seconds=0.05", "stride_seconds=0.1", "batch=4", "evaluation_excerpts=6"]
TINY += ["discriminator_width=4"]


@pytest.fixture
def here(launched_here, monkeypatch):
    monkeypatch.setattr(plans, "TRACKS", (2,))
    monkeypatch.setattr(plans, "BESIDE", (2,))
    monkeypatch.setattr(plans, "SEEDS", (1, 2))
    monkeypatch.setattr(plans, "FRESH", (4, 5))
    monkeypatch.setattr(plans, "CURES", {k: plans.CURES[k] for k in ("none", "R1", "relativistic, R1, R2")})
    return launched_here


def study(folder, noise, plan, *words):
    data, start = noise
    size = ["--seconds-of-track", str(SECONDS), "--passes", "1", "--steps", "4"]
    overfitting.main([str(folder), "--data", str(data), "--start", str(start), "--plan", plan, *size, *words, *TINY])


def table(folder, name):
    return pd.read_csv(folder / name)


@pytest.mark.whole
def test_a_study_from_its_trainings_to_its_tables(noise, here, tmp_path):
    for plan in ("law", "game", "cures", "confirm"):
        study(tmp_path, noise, plan)
    found = table(tmp_path, "memorisation.csv")
    assert list(found) == COLUMNS
    kinds = found.groupby(["mode", "tracks", "remix", "width", "minutes"]).size().index.tolist()
    two, long = round(2 * 2 / 60, 3), round(2 * 8 / 60, 3)
    assert {("play", 2, False, 4, two), ("play", 2, True, 4, two)} < set(kinds)
    assert {("play", 2, False, 8, two), ("play", 2, False, 4, long), ("rest", 2, False, 4, two)} < set(kinds)
    assert ("watch", 2, False, 4, two) in kinds
    # 2 s hold eight excerpts of 0.25 s: a pass over two tracks is 16, of which a step draws four
    rows = found[(found["tracks"] == 2) & (found["mode"] == "play") & (found["minutes"] == two)]
    assert rows["passes"].tolist() == (rows["step"] * 4 / 16).tolist() and rows["passes"].max() == 1
    numbers = found.drop(columns=["machine", "commit", "mode"]).astype(float)
    assert numbers.drop(columns=["membership_null", "r_v_sigma", "r_f"]).notna().all(axis=None)
    others = numbers["minutes"] != long  # there are but two long tracks, which every seed has heard
    assert (numbers["membership_null"].notna() == others).all(), "both seeds of each training are finished"
    resting = found[(found["mode"] == "rest") & (found["seed"] == 1)]
    assert resting["l1_heldout"].nunique() == 1, "its generator is at rest"
    onsets = table(tmp_path, "onsets.csv")
    assert onsets["seconds"].ge(0).all()
    assert len(onsets) == len(kinds) * 2 and (onsets["onset_passes"].isna() != onsets["censored_passes"].isna()).all()
    cured = table(tmp_path, "cures.csv")
    exploratory, fresh = (cured[cured["plan"] == name] for name in ("cures", "confirm"))
    assert set(exploratory["cure"]) == {*plans.CURES, ALL, L1}
    assert set(exploratory.loc[exploratory["cure"] == "none", "pair"]) == {1, 2}
    best = plans.ranking(cured).index[:2].tolist()
    assert set(fresh["cure"]) == {"none", *best} and set(fresh["pair"]) == {4, 5}
    assert fresh["membership_null"].notna().all()
    assert exploratory.loc[exploratory["cure"].isin(plans.CURES), "membership_null"].notna().all()
    alone = exploratory.set_index("cure").loc[L1]
    assert alone["l1_heldout"] > 0 and np.isnan(alone["auc_heldout"])
    overfitting.main([str(tmp_path), "--plan", "cues"])
    probed = table(tmp_path, "cues.csv")
    assert set(probed["cue"]) == {*cues.CUES} and {"none", best[0]} <= set(probed["cure"])


def test_a_null_is_what_other_discriminators_say_of_the_same_tracks(noise, here, tmp_path):
    study(tmp_path, noise, "game")
    found = table(tmp_path, "memorisation.csv").set_index(["mode", "seed", "step"])["membership_null"]
    logs = {name: tmp_path / "memorisation" / f"play-2x3-w4-4-{name}" / "metrics.jsonl" for name in (1, 2)}
    lines = {name: [json.loads(line) for line in log.read_text().splitlines()] for name, log in logs.items()}
    for line in lines[2]:
        assert found["play", 1, line["step"]] == pytest.approx(line["others_1"], rel=1e-5)
    assert "others_2" not in lines[2][0] and {"others_1", "others_3"} <= lines[2][0].keys()


@pytest.mark.whole
def test_an_interrupted_study_gives_the_table_of_an_undisturbed_one(noise, here, tmp_path):
    for name in ("whole", "stopped"):
        if name == "stopped":
            here.stop = 5
            with pytest.raises(UserError, match="1 trainings failed: play-"):
                study(tmp_path / name, noise, "law")
        study(tmp_path / name, noise, "law")
    first, second = (table(tmp_path / name, "memorisation.csv") for name in ("whole", "stopped"))
    pd.testing.assert_frame_equal(first, second)
    here.stop = 0  # a step would be interrupted
    study(tmp_path / "whole", noise, "law")


def test_the_map_of_regimes_is_one_command_that_goes_on(noise, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "SEGMENTS", (4, 8))
    monkeypatch.setattr(plans, "ERRORS", (1.0, 0.4))
    monkeypatch.setattr(plans, "WIDTHS", (2, 4))
    monkeypatch.setattr(plans, "WIDER_AT", ((8, 0.4),))
    monkeypatch.setattr(probe, "LENGTH", {"steps": 2, "passes": 2})
    monkeypatch.setattr(probe, "workers", in_process)
    study(tmp_path, noise, "regimes")
    found = table(tmp_path, "regimes.csv")
    assert len(found) == 2 * (2 * 2 + 1) and set(found["width"]) == {2, 4} and set(found["seed"]) == {1, 2}
    assert (found["passes"] >= 2).all() and found[["machine", "commit"]].notna().all(axis=None)
    monkeypatch.setattr(probe, "cell", None)
    study(tmp_path, noise, "regimes")
    pd.testing.assert_frame_equal(table(tmp_path, "regimes.csv"), found)


def test_a_training_in_its_own_process(noise, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "plan", None)
    data, start = noise
    monkeypatch.setattr(overfitting, "plan", lambda *_, settings, **__: [Run(2, SECONDS, 1, 4, 2, 16, 4)])
    study(tmp_path, noise, "game")
    assert table(tmp_path, "memorisation.csv")["step"].tolist() == [2, 4]


# Tracks


def test_seeds_draw_other_tracks_that_the_pre_training_has_not_heard(noise):
    sets, start = read_index(noise[0])[0], noise[1]
    tracks = pieces.pool(sets, start)
    assert tracks == sets["train"][4:]
    for count in (1, 2, 3):
        drawn = [track.name for seed in (1, 2, 3) for track in pieces.draw(tracks, count, seed)]
        assert len(set(drawn)) == 3 * count, "disjoint"
    assert pieces.draw(tracks, 2, 1) == pieces.draw(tracks, 2, 1)
    assert [pieces.group(seed) for seed in (1, 2, 6)] == [[2, 3], [1, 3], [4, 5]]
    with pytest.raises(UserError, match="has heard every training track"):
        pieces.pool({"train": []}, start)


def test_pieces_are_thirds_of_a_cut_track(noise, tmp_path):
    sets = read_index(noise[0])[0]
    found = read_index(pieces.write_pieces(sets, sets["train"][4:12], 2, 1.5, 1, tmp_path))[0]
    [own, _] = pieces.draw(sets["train"][4:12], 2, 1)
    third = SAMPLERATE // 2
    assert set(found) == {"train", "valid", "heldout-b", "unseen", "others-2", "others-3"}
    np.testing.assert_array_equal(found["train"][0].audio(), own.audio()[..., : 2 * third])
    np.testing.assert_array_equal(found["unseen"][0].audio(), own.audio()[..., 2 * third : 3 * third])
    assert (found["train"][0].mean, found["train"][0].std) == (own.mean, own.std)
    assert found["valid"] == sets["heldout-a"] and found["heldout-b"] == sets["heldout-b"]


def test_excerpts_overlap_only_as_much_as_their_number_asks_for(noise):
    tracks = read_index(noise[0])[0]["train"][:2]
    for count, stride in ((4, 0.8), (10, 0.4), (200, 0.1)):
        excerpts, chosen = spread(tracks, SAMPLERATE // 2, round(0.8 * SAMPLERATE), count)
        assert excerpts.stride == pytest.approx(stride * SAMPLERATE, abs=1)
        assert len(chosen) == min(count, len(excerpts)) and {excerpts[k][0].name for k in chosen} == {
            "train 0",
            "train 1",
        }


# The evaluation


def test_an_evaluation_by_hand(noise, tmp_path):
    sets = read_index(noise[0])[0]
    index = pieces.write_pieces(sets, sets["train"][4:12], 2, SECONDS, 1, tmp_path)
    run = Run(2, SECONDS, 1, 4, 2, 16, 4)
    words = {name: float(value) if "." in value else int(value) for name, value in (word.split("=") for word in TINY)}
    settings = plans.shared(Config.from_dict(json.loads((noise[1] / "config.json").read_text())["config"]), words)
    config = run.config(settings, portable(index), portable(noise[1]))
    trainer = JudgingTrainer(claim(config, tmp_path / "run")[0], tmp_path / "run", Ranks())
    metrics = trainer.evaluate()
    assert "valid" not in trainer.sets, "nothing is steered"
    real, generated, errors = {}, {}, {}
    for name, (excerpts, chosen) in trainer.sets.items():
        found = [trainer._evaluate_excerpt(excerpts, index) for index in chosen]
        errors[name] = np.mean([error for error, _ in found])
        for k, part in enumerate((real, generated)):
            part[name] = np.concatenate([np.ravel(pairs["patch"][k].detach()) for _, pairs in found])
    assert metrics["l1_heldout"] == pytest.approx(errors["heldout"], rel=1e-5)
    assert metrics["membership_auc"] == pytest.approx(auc(real["train"], real["heldout"]), abs=2e-3)
    assert metrics["membership_tracks"] == pytest.approx(auc(real["train"], real["unseen"]), abs=2e-3)
    assert metrics["others_3"] == pytest.approx(auc(real["others-3"], real["heldout"]), abs=2e-3)
    assert metrics["auc_heldout"] == pytest.approx(auc(real["heldout"], generated["heldout"]), abs=2e-3)
    assert metrics["bce_train"] == pytest.approx(
        (np.logaddexp(0, -real["train"]).mean() + np.logaddexp(0, generated["train"]).mean()) / 2, rel=1e-4
    )
    share, scaled = errors["train"] / errors["heldout"], []
    with torch.no_grad():
        for x, y in trainer._pairs("heldout"):
            assert x.shape == y.shape and (share * (y - x)).abs().mean().item() > 0
            scaled += list(trainer.adversary.discriminator(x.sum(1), x + share * (y - x))["patch"][1])
    assert metrics["auc_matched"] == pytest.approx(auc(real["heldout"], np.ravel(torch.stack(scaled))), abs=2e-3)


# Ranks of cures


def test_scores_by_hand():
    naive = {"auc_heldout": 0.9}
    row = {"bce_train": 0.2, "bce_heldout": 0.5, "membership_auc": 0.7, "membership_null": 0.6, "auc_heldout": 0.86}
    assert plans.score(row, naive) == pytest.approx(0.3 / 0.15 + 0.1 / 0.05 + 0.04 / 0.02)
    better = row | {"bce_heldout": 0.1, "membership_auc": 0.55, "auc_heldout": 0.95}
    assert plans.score(better, naive) == 0
    assert plans.score(row | {"membership_null": np.nan}, naive) == pytest.approx(2 + 4 + 2)


@pytest.mark.parametrize(
    ("best", "third"),
    [(("R1", "dither"), ["R1 + dither"]), (("R1", "R1, instance noise"), []), (("remix", "R1"), ["remix + R1"])],
)
def test_the_combination_of_the_best_is_confirmed_where_it_is_another(best, third):
    table = pd.DataFrame({"plan": "cures", "cure": [*best, "LeCam", "none"], "score": [1.0, 2.0, 3.0, 0.0]})
    sizes = dict(available={15.0: 8, 60.0: 0}, seconds=15.0, passes=1, steps=5)
    runs = plans.plan("confirm", settings=plans.shared(Config(data=""), {}), table=table, **sizes)
    wanted = ["none", *best, *third]
    assert [(run.seed, run.cure) for run in runs] == [(seed, cure) for seed in plans.FRESH for cure in wanted]


def test_cures_joined_by_plus_are_all_on():
    assert plans.changes_of("R1 + dither") == {"r1": 0.3, "dither": 0.03}


# The law


def simulate(seed, a, b, sigma, cap, counts=(1, 2, 4, 8, 16), seeds=40):
    random = np.random.RandomState(seed)
    x = np.repeat(counts, seeds)
    passes = np.exp(a + b * np.log(x) + sigma * random.randn(len(x)))
    return x, np.minimum(passes, cap), passes > cap


def test_the_fit_recovers_what_was_simulated_though_a_third_is_censored():
    x, passes, censored = simulate(0, 2.0, 0.8, 0.5, 30)
    assert 0.25 < censored.mean() < 0.5
    found = law.fit(x, passes, censored, 86)
    assert found["a"] == pytest.approx(2.0, abs=0.2) and found["b"] == pytest.approx(0.8, abs=0.15)
    assert found["sigma"] == pytest.approx(0.5, abs=0.1) and found["p_constant"] < 1e-6
    assert found["b_low"] < 0.8 < found["b_high"] and found["b_high"] - found["b_low"] < 0.5
    assert found["low"] < np.exp(2 + 0.8 * np.log(86)) < found["high"]
    dropped = law.fit(x[~censored], passes[~censored], censored[~censored], 86)
    assert dropped["b"] < 0.65, "dropped, the censored ones would flatten the law"


def test_without_censoring_it_is_least_squares():
    x, passes, censored = simulate(1, 2.0, 0.5, 0.3, np.inf, seeds=3)
    found = law.fit(x, passes, censored, 86)
    slope, start = np.polyfit(np.log(x), np.log(passes), 1)
    assert (found["b"], found["a"]) == (pytest.approx(slope, abs=1e-3), pytest.approx(start, abs=1e-3))
    residuals = np.log(passes) - start - slope * np.log(x)
    assert found["sigma"] == pytest.approx(residuals.std(), rel=1e-2)


def test_the_interval_of_the_slope_covers_it_and_a_constant_is_not_rejected():
    inside, rejected = 0, 0
    for seed in range(20):
        found = law.fit(*simulate(seed, 3.0, 0.0, 0.4, 40, seeds=3), 86)
        inside += found["b_low"] <= 0 <= found["b_high"]
        rejected += found["p_constant"] < 0.05
    assert inside >= 16 and rejected <= 4 and inside + rejected == 20, "both ask the same"


@pytest.mark.parametrize(
    ("x", "passes", "censored"),
    [
        ([1, 2, 4], [3.0, 6.0, 12.0], [False] * 3),  # without error
        ([1, 2, 4, 8, 8], [10.0, 10.0, 10.0, 100.0, 100.0], [False] * 3 + [True] * 2),  # at the first evaluation
        ([1, 1, 1, 2, 2, 2], [5.0, 9.0, 7.0, 100.0, 100.0, 100.0], [False] * 3 + [True] * 3),  # separated
        ([1, 2, 2, 2], [5.0, 5.0, 5.0, 1000.0], [False] * 3 + [True]),
    ],
)
def test_degenerate_trainings_break_nothing(x, passes, censored):
    found = law.fit(x, passes, censored, 86)
    assert found is None or (found["b_low"] <= found["b"] + 1e-6 and found["b"] - 1e-6 <= found["b_high"])
    assert law.determined(found, found) in (True, False)


def test_too_few_onsets_give_no_fit_and_wide_intervals_determine_nothing():
    assert law.fit([1, 2, 4], [3, 5, 9], [False, False, True], 86) is None
    assert law.fit([2, 2, 2], [3, 5, 9], [False] * 3, 86) is None
    narrow = {"prediction": 100.0, "low": 40.0, "high": 300.0}
    assert law.determined(narrow, narrow) and not law.determined(narrow, None)
    assert not law.determined(narrow, narrow | {"high": 401.0})
    assert not law.determined(narrow, {"prediction": 1001.0, "low": 800.0, "high": 1200.0})


# What it looks at


STEP, OFFSET, N, TIME = 2.0**-10, 0.25, 6, 4410


def shown(seed=0):
    """Real stems on a lattice, and generated ones with an error of half their size."""
    random = np.random.RandomState(seed)
    real = random.randint(-300, 300, (N, 4, 2, TIME)) * STEP - OFFSET
    generated = real + 0.05 * random.randn(*real.shape)
    real, generated = (torch.tensor(x, dtype=torch.float32) for x in (real, generated))
    return cues.Parts(real.sum(1), real, generated, torch.full((N,), STEP), torch.full((N,), OFFSET))


def shares(judge):
    return {row["cue"]: row["share"] for row in cues.probe(judge, shown())}


def test_a_discriminator_of_one_stem_sees_that_stem_alone():
    """Its logit is the error of the bass, which is the same as its difference from the lattice."""
    parts = shown()

    def judge(_, stems):  # the distance of the bass from the recorded one: 0 if real
        return 4 - 200 * (stems[:, 1] - parts.real[:, 1]).abs().mean((1, 2)).numpy()

    found = shares(judge)
    assert found["bass"] == pytest.approx(2, abs=1e-3), "exchanged, real and generated change places"
    assert all(found[stem] == pytest.approx(0, abs=1e-6) for stem in ("drums", "other", "vocals", "mixture"))


def test_a_discriminator_of_the_sum_is_blind_after_the_projection():
    def judge(mixture, stems):
        return 4 - 100 * (mixture - stems.sum(1)).abs().mean((1, 2)).numpy()

    found = shares(judge)
    assert found["sum of stems"] == pytest.approx(1, abs=1e-3)
    # The mixture of another excerpt: neither sum is right
    assert found["mixture"] == pytest.approx(1, abs=1e-3)


def test_a_discriminator_of_the_lattice_is_blind_after_rounding_or_dither():
    def judge(_, stems):
        whole = (stems + OFFSET) / STEP
        return 4 - 40 * (whole - whole.round()).abs().mean((1, 2, 3)).numpy()

    found = shares(judge)
    assert found["generated rounded"] == pytest.approx(1, abs=1e-2)
    assert found["real dithered"] == pytest.approx(1, abs=5e-2)


def test_a_discriminator_of_high_frequencies_is_blind_below_them():
    parts = shown()
    high = [cues._band(x - parts.real, 8000, 22051).square().mean() for x in (parts.real, parts.generated)]

    def judge(_, stems):
        return 4 - 8 * (cues._band(stems, 8000, 22051).square().mean((1, 2, 3)) / (1e-9 + high[1]) - 50).numpy()

    rows = cues.probe(lambda mixture, x: judge(mixture, x) / 1e3, parts, centred=True)
    found = {row["cue"]: row["share"] for row in rows}
    assert found["above 8 kHz"] == pytest.approx(1, abs=1e-3) and found["above 1 kHz"] == pytest.approx(1, abs=1e-3)
    assert found["octave at 500 Hz"] == pytest.approx(0, abs=1e-3) and found["octave at 16000 Hz"] > 1


def test_bands_add_up_to_the_signal():
    x = torch.randn(2, 4, 2, TIME)
    parts = [cues._band(x, low, high) for low, high in ((0, 1000), (1000, 8000), (8000, 22051))]
    torch.testing.assert_close(sum(parts), x, rtol=1e-4, atol=1e-5)
