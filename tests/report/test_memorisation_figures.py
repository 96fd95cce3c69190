"""The figures of the study of memorisation, of small tables."""

import numpy as np
import pandas as pd
import pytest

from lib.report.figures import memorisation

KEY = {"tracks": 2, "minutes": 0.333, "remix": False, "width": 16, "mode": "play"}


@pytest.fixture
def onsets():
    rows = [
        KEY | {"tracks": n, "minutes": n / 6, "seed": seed, "onset_passes": 20.0 * n, "censored_passes": np.nan}
        for n in (1, 2, 4) for seed in (1, 2)
    ]  # fmt: skip
    rows += [KEY | {"tracks": 8, "minutes": 8 / 6, "seed": 1, "onset_passes": np.nan, "censored_passes": 100.0}]
    rows += [KEY | {"remix": True, "minutes": 2 / 6, "seed": 1, "onset_passes": np.nan, "censored_passes": 100.0}]
    rows += [KEY | {"mode": "rest", "minutes": 2 / 6, "seed": 1, "onset_passes": np.nan, "censored_passes": 100.0}]
    return pd.DataFrame(rows)


@pytest.fixture
def table(onsets):
    steps = pd.DataFrame(
        {"passes": [3.0, 6, 9, 12], "bce_train": [0.7, 0.5, 0.1, 0.3], "bce_heldout": [0.7, 0.6, 0.9, 1]}
    )
    return onsets.drop(columns=["onset_passes", "censored_passes"]).merge(steps, how="cross")


def title(axis):
    return axis.get_title(loc="left") or axis.get_title()


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_classical_pair_shows_medians_of_three_and_marks_the_onset(table, onsets):
    figure = memorisation.classical_pair(table, onsets, tracks=2)
    first, second = figure.axes
    assert [title(axis) for axis in (first, second)] == ["seed 1", "seed 2"]
    train, _, onset = first.lines
    np.testing.assert_allclose(train.get_ydata(), [0.6, 0.5, 0.3, 0.2])  # at the ends, of two
    assert list(onset.get_xdata()) == [40, 40]
    assert labels(figure) == ["training tracks", "held-out tracks", "onset"]


def test_the_pair_is_naive_and_cured_side_by_side(table, onsets):
    kinds = {1: "none", 2: "R1"}
    table, onsets = (rows[rows["tracks"] == 2].assign(cure=rows["seed"].map(kinds)) for rows in (table, onsets))
    table, onsets = table[table["mode"] == "play"].assign(seed=1), onsets[onsets["mode"] == "play"].assign(seed=1)
    onsets.loc[onsets["cure"] == "R1", "onset_passes"] = np.nan
    naive, cured = memorisation.classical_pair(table, onsets, by="cure").axes
    assert [title(naive), title(cured)] == ["no cure", "R1"]
    assert list(naive.lines[-1].get_xdata()) == [40, 40] and len(cured.lines) == 2


@pytest.mark.parametrize("steps", [100, 400])
def test_the_map_is_drawn_at_equal_steps_and_at_equal_passes(steps):
    rows = [
        dict(segments=count, error=error, width=width, seed=seed, sdr=8 - 10 * error, step=step,
             passes=8 * step / count, bce_train=0.1, bce_heldout=0.1 + step / steps)
        for count, last in ((8, steps), (32, 4 * steps)) for error in (1.0, 0.4)
        for seed in (1, 2) for width in (16, 32)
        for step in (25, 100, 400, 1600) if step <= last
    ]  # fmt: skip
    left, right = memorisation.regimes(pd.DataFrame(rows)).axes
    assert [title(left), title(right)] == [f"BCE gap after {steps} {unit}" for unit in ("steps", "passes")]
    assert [text.get_text() for text in left.texts[:4]] == ["1.0"] * 4
    assert [text.get_text() for text in right.texts[:4]] == ["1.0", "1.0", "4.0", "4.0"], "four times as many steps"


@pytest.mark.parametrize("fitted", [True, False])
def test_the_law_shows_censored_trainings_as_arrows(onsets, fitted):
    fits = pd.DataFrame([{"by": "tracks", "a": 3.0, "b": 1.0, "b_low": 0.9, "b_high": 1.1}, {"by": "minutes"}])
    figure = memorisation.law(onsets, fits if fitted else fits[["by"]])
    [axis] = figure.axes
    plain, arrows, _, remix = axis.collections
    assert np.isfinite(plain.get_offsets()[:, 1]).sum() == 6
    for censored in (arrows, remix):
        assert np.isfinite(np.ma.filled(censored.get_offsets(), np.nan)[:, 1]).sum() == 1
    assert len(axis.lines) == fitted


def test_the_game_has_a_panel_for_each_mode(table, onsets):
    figure = memorisation.game(table.assign(minutes=table["minutes"].round(3)), onsets)
    assert [title(axis) for axis in figure.axes] == [memorisation.MODES[k] for k in ("play", "rest")]


def test_cures_are_ranked_and_every_training_is_a_dot():
    rows = [
        dict(plan=plan, cure=cure, seed=seed, bce_train=0.1, bce_heldout=0.1 + gap, membership_auc=0.6,
             membership_null=null, auc_heldout=0.9, score=gap)
        for plan, seed in (("cures", 1), ("confirm", 4), ("confirm", 5))
        for cure, gap, null in (("none", 0.9, 0.5), ("R1", 0.1, np.nan))
    ]  # fmt: skip
    rows += [dict(plan="cures", cure="L1 alone", seed=1, l1_heldout=0.2)]
    figure = memorisation.cures(pd.DataFrame(rows))
    first = figure.axes[0]
    assert [text.get_text() for text in first.get_yticklabels()] == ["none", "R1"], "the best above"
    chosen, fresh = first.collections[:2]
    assert len(chosen.get_offsets()) == 2 and len(fresh.get_offsets()) == 4
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets()[:, 0], 0.1)


def test_cue_bars_are_medians_over_trainings():
    rows = [
        dict(cure=cure, state=state, cue=cue, share=share + shift)
        for cure, state in (("none", "before onset"), ("none", "after onset"), ("R1", "no onset"))
        for cue, share in (("mixture", 0.1), ("drums", 0.9)) for shift in (0, 0.05, 1)
    ]  # fmt: skip
    figure = memorisation.cue_bars(pd.DataFrame(rows))
    [axis] = figure.axes
    assert labels(figure) == ["naive, before or without onset", "naive, after onset", "cured, before or without onset"]
    np.testing.assert_allclose([bar.get_width() for bar in axis.patches], [0.15, 0.95] * 3)
