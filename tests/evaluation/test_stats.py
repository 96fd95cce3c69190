"""Intervals and tests against hand-computed cases."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.common.errors import UserError
from lib.evaluation.results import published_seeds, published_systems
from lib.evaluation.stats import (
    COLUMNS,
    STEMS,
    _nanmedian,
    arm_means,
    coverage,
    equal_means_half_width,
    equal_means_p,
    holm,
    paired_interval,
    power_table,
    prediction_interval,
    seeds_needed,
    stem_table,
    two_sided_p,
    wilcoxon,
)

GAN = published_systems().loc["Demucs v1 + GAN (first report)", list(COLUMNS)].astype(float)


def test_no_reported_difference_leaves_the_range_of_one_more_run():
    p = two_sided_p(GAN, published_seeds())
    assert p.round(2).tolist() == [0.73, 0.19, 0.19, 0.21, 0.83]


def test_p_and_interval_agree_at_the_edge():
    seeds = published_seeds()
    interval = prediction_interval(seeds)
    np.testing.assert_allclose(two_sided_p(interval["mean"] + interval["half_width"], seeds), 0.05)


@pytest.mark.parametrize("alike", [False, True])
def test_p_and_interval_of_two_means_agree_at_the_edge(alike):
    seeds = published_seeds()
    edge = seeds.mean() - equal_means_half_width(seeds, alike)
    np.testing.assert_allclose(equal_means_p(edge, seeds, alike), 0.05)


def test_a_single_seed_has_no_interval():
    with pytest.raises(UserError, match="two seeds"):
        prediction_interval(published_seeds().iloc[:1])


def arm(values):
    """Rows of one arm; values: (seeds, tracks) of SDR, the same in every stem."""
    return pd.DataFrame([
        {"seed": s, "track": f"T{t}", "target": stem, "SDR": value}
        for s, tracks in enumerate(values) for t, value in enumerate(tracks) for stem in STEMS
    ])  # fmt: skip


def test_a_constant_difference_is_certain():
    base = np.random.default_rng(0).normal(size=(3, 7))
    table = paired_interval(arm(base), arm(base + 0.25))
    np.testing.assert_allclose(table[["difference", "low", "high"]], 0.25)
    assert set(table["seeds"]) == {3} and set(table["tracks"]) == {7} and (table["p"] < 1e-9).all()
    same = paired_interval(arm(base), arm(base))
    assert (same["p"] == 1).all() and (same[["difference", "low", "high"]] == 0).all().all()


def test_the_interval_is_scipys_over_seeds():
    random = np.random.default_rng(1)
    base, other = random.normal(size=(4, 9)), random.normal(size=(4, 9))
    table = paired_interval(arm(base), arm(other))
    gains = np.median(other, axis=1) - np.median(base, axis=1)
    expected = stats.ttest_1samp(gains, 0)
    for stem in COLUMNS:  # all stems are alike, so their mean is too
        np.testing.assert_allclose(table.loc[stem, ["low", "high"]], expected.confidence_interval(0.95))
        assert table.loc[stem, "p"] == pytest.approx(expected.pvalue)


def test_the_difference_is_that_of_the_tables_rows():
    random = np.random.default_rng(1)
    base, other = arm(random.normal(size=(3, 9))), arm(random.normal(size=(3, 9)))

    def row(rows):
        return pd.DataFrame([stem_table(group) for _, group in rows.groupby("seed")]).mean()

    np.testing.assert_allclose(paired_interval(base, other)["difference"], row(other) - row(base))


def test_one_seed_has_no_interval():
    base = np.zeros((1, 4))
    table = paired_interval(arm(base), arm(base + 1))
    assert (table["difference"] == 1).all() and table[["low", "high", "p"]].isna().all().all()


def test_seeds_are_averaged_and_tracks_take_their_median():
    # per seed the medians of the gains over tracks are 0, 1 and 5: mean 2, median 1
    gains = np.array([[0.0, 0, 9], [1, 1, 9], [5, 5, 9]])
    before, after = arm(np.zeros((3, 3))), arm(gains)
    table = paired_interval(before, after)
    np.testing.assert_allclose(table["difference"], 2)
    # t(2) = 4.3027, SD = sqrt(14 / 2) = 2.6458
    np.testing.assert_allclose(table["high"] - 2, 4.3027 * (7 / 3) ** 0.5, rtol=1e-4)
    interval = prediction_interval(pd.DataFrame({"drums": [0.0, 1, 5]}))
    assert interval.loc["drums"].tolist() == pytest.approx([2, 7**0.5, 4.3027 * 7**0.5 * (4 / 3) ** 0.5], rel=1e-4)


def test_silent_stems_are_left_out():
    base = np.array([[1.0, 2.0, np.nan, 4.0], [1.0, 2.0, np.nan, 4.0]])
    np.testing.assert_allclose(paired_interval(arm(base), arm(base + 1))["difference"], 1)


@pytest.mark.parametrize("sd_seed", [0.003, 0.06, 0.12])  # of the first study's arms and stems: .003 to .116
def test_of_three_seeds_t_covers_what_it_says_and_a_bootstrap_three_quarters(sd_seed):
    three = coverage(3, sd_seed=sd_seed)
    assert 0.93 < three["t"] < 0.97 and 0.65 < three["bootstrap"] < 0.76
    many = coverage(12, sd_seed=sd_seed)
    assert 0.93 < many["t"] < 0.97 and many["bootstrap"] > 0.88


def test_other_measures_are_compared_alike():
    values = np.random.default_rng(0).normal(size=(2, 5))
    base, other = (arm(v).rename(columns={"SDR": "mrstft"}) for v in (values, values - 0.5))
    np.testing.assert_allclose(paired_interval(base, other, metric="mrstft")["high"], -0.5)


def test_a_stem_that_no_track_has_leaves_the_others_theirs():
    base = arm(np.zeros((2, 4)))
    base.loc[base["target"] == "bass", "SDR"] = np.nan
    interval = paired_interval(base, base.assign(SDR=base["SDR"] + 1))
    assert interval.loc["bass", ["difference", "low", "high"]].isna().all() and interval.loc["drums", "low"] == 1


def test_median_without_nan_is_numpys():
    values = np.random.default_rng(0).normal(size=(50, 3, 6))
    values[np.random.default_rng(1).random(values.shape) < 0.4] = np.nan
    values[0, 0], values[0, 1, 1:] = np.nan, np.nan
    with np.testing.suppress_warnings() as silence:
        silence.filter(RuntimeWarning)
        np.testing.assert_allclose(_nanmedian(values), np.nanmedian(values, axis=-1))


def test_arm_means_are_the_tables_rows_per_seed():
    rows = pd.concat(
        [arm([[1.0, 2, 9]]).assign(arm="mixture", seed=pd.NA), arm([[4.0, 5, 6], [1, 7, 8]]).assign(arm="l1")]
    )
    means = arm_means(rows.astype({"seed": "Int64"}))["SDR"]
    assert means.tolist() == [2, 5, 7] and means.index.get_level_values("arm").tolist() == ["mixture", "l1", "l1"]


# --- power ---


def test_seeds_needed_are_cohens():
    # Cohen 1988, table 2.4.1: n per group at power .80, two-sided alpha .05, for d = .2, .5, .8
    assert [seeds_needed(1, d) for d in (0.2, 0.5, 0.8)] == [394, 64, 26]
    assert seeds_needed(0.1, 10) == 2  # a t test has no degree of freedom with fewer


def test_seeds_needed_by_simulation():
    needed = seeds_needed(0.2, 0.3)
    random = np.random.default_rng(0)

    def power(n, runs=40_000):  # standard error of 0.002
        return np.mean(stats.ttest_ind(*(random.normal(m, 0.2, (n, runs)) for m in (0, 0.3))).pvalue < 0.05)

    assert power(needed) > 0.8 > power(needed - 1)


def test_power_table_by_the_published_seeds():
    table = power_table(published_seeds())
    assert list(table.index) == list(COLUMNS) and list(table.columns) == [0.1, 0.2, 0.3, 0.5, 1.0]
    # SD .1618, d = .618: 2 (1.960 + .842)^2 / d^2 = 41.1 by the normal, and Guenther's 1.960^2 / 4 on top for t
    assert table.loc["drums", 0.1] == 43
    assert (np.diff(table, axis=1) <= 0).all()


@pytest.mark.parametrize(("sd", "difference"), [(0, 0.1), (0.1, 0), (0.1, -0.1), (np.nan, 0.1)])
def test_power_of_nothing_is_refused(sd, difference):
    with pytest.raises(UserError, match="positive"):
        seeds_needed(sd, difference)


def test_wilcoxon_is_exact_and_averages_seeds_first():
    # six tracks that all gain: the smallest exact two-sided p is 2 / 2^6
    gains = np.array([[1.0, 2, 3, 4, 5, 6], [-0.5] * 6])  # means .25 ... 2.75: all positive
    np.testing.assert_allclose(wilcoxon(arm(np.zeros((2, 6))), arm(gains)), 2 / 64)
    assert (wilcoxon(arm(gains), arm(gains)) == 1).all()


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04, made monotone .04 .06 .06 .06
    np.testing.assert_allclose(holm(pd.Series([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(pd.Series([0.9, 0.5])), [1, 1])
    np.testing.assert_allclose(holm(pd.Series([0.03, np.nan, 0.01])), [0.03, np.nan, 0.02])  # a family of two


def test_arms_that_cannot_be_paired_are_refused():
    base = arm(np.zeros((1, 2)))
    with pytest.raises(UserError, match="share no seed"):
        wilcoxon(base, base.assign(seed=7))
    with pytest.raises(UserError, match="'T1'"):
        paired_interval(base, base[base["track"] == "T0"])
