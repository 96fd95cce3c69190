"""Every figure is drawn from fabricated data: labelled, in the colours of stem and arm, small enough to commit."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import soundfile

from lib.evaluation import results, stats
from lib.evaluation.likeness import UNITS
from lib.evaluation.measures import MEASURES
from lib.evaluation.results import METRICS, PRIMARY_DETAIL
from lib.evaluation.stats import STEMS
from lib.memorisation import SETS
from lib.report import figures
from lib.report.audio import player
from lib.report.sentences.arms import arm_differences, comparisons, verdict
from lib.report.tables import dose_table

RATE = 44_100


@pytest.fixture(autouse=True)
def style():
    figures.style.use()


def audio(seconds=6):
    """Filtered noise, a hard case for PNG."""
    random = np.random.default_rng(0)
    return {stem: 0.1 * random.normal(size=(2, int(seconds * RATE))) for stem in STEMS}


def metrics(evaluations=24):
    random = np.random.default_rng(0)
    rows = []
    for number in range(evaluations):
        row = dict.fromkeys(["l1_batches", "l1_heldout", "r_t"], 0.5 + random.normal() / 20)
        for name in SETS:
            logits = random.normal(number / 4, 2, 500)
            row |= {f"{name}_mean": logits.mean(), f"{name}_p10": -1.0, f"{name}_p90": 3.0}
        # the trainer writes null where the ratio has no denominator
        rows.append(row | {"step": 100 * number, "r_v_sigma": None if number == 0 else 0.3})
    return pd.DataFrame(rows)


def tracks(arms=("mixture", "l1", "gan", "gan-cures")):
    random = np.random.default_rng(0)
    return pd.DataFrame([
        {"test_set": "test", "arm": arm, "seed": seed, "track": f"T{t}", "target": stem}
        | dict.fromkeys((*METRICS, *MEASURES, "auc_fresh"), random.normal())
        for arm in arms for seed in (0, 1) for t in range(5) for stem in STEMS
    ])  # fmt: skip


ARMS = ("mixture", "pretrain", "l1", "gan", "gan-share-0.1", "spectral", "spectral-gan")


def likeness(songs):
    random = np.random.default_rng(songs)
    return pd.DataFrame([
        {"set": "s", "song": str(song), "stem": stem, "measure": measure, "value": random.normal(-20), "unit": unit}
        for song in range(songs) for stem in STEMS
        for measure, unit in [*UNITS.items(), ("63 Hz", "dB"), ("1000 Hz", "dB"), ("8000 Hz", "dB")]
    ])  # fmt: skip


FIGURES = {
    "stem_spectrograms": lambda: figures.data.stem_spectrograms(audio()),
    "long_term_spectra": lambda: figures.data.long_term_spectra(
        {"bass": [*audio().values()]}, {"drums": [*audio().values()]}
    ),
    "levels": lambda: figures.data.levels(
        pd.DataFrame([[-20.0, -22, -np.inf, -19], [-25, -21, -20, -30]], columns=STEMS)
    ),
    "likeness": lambda: figures.data.likeness(likeness(18), likeness(18), likeness(4)),
    "seed_noise": lambda: figures.arms.seed_noise(
        results.published_seeds(), results.published_systems().loc["Demucs v1 + GAN (first report)"]
    ),
    "measure_differences": lambda: figures.arms.measure_differences(arm_differences(tracks(), METRICS)),
    "forest": lambda: figures.arms.forest(comparisons(tracks(ARMS))),
    "forest_of_detail": lambda: figures.arms.forest(comparisons(tracks(ARMS), [PRIMARY_DETAIL]), PRIMARY_DETAIL),
    "dose_response": lambda: figures.arms.dose_response(dose_table(tracks(("l1", "gan-share-0.1", "gan-share-0.4")))),
    "perception_distortion": lambda: figures.arms.perception_distortion(tracks()),
    "learning_curves": lambda: figures.training.learning_curves({"l1-0": metrics(), "gan-0": metrics()}),
    "logit_curves": lambda: figures.training.logit_curves({"gan-1": metrics(), "gan-cures-1": metrics()}),
    "memorisation_curves": lambda: figures.training.memorisation_curves({"gan-1": metrics(), "gan-cures-1": metrics()}),
    "pull_curves": lambda: figures.training.pull_curves(
        {"gan-1": metrics().assign(discriminator=0.5, adversarial_share=0.1)}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_labelled_and_small(name):
    figure = FIGURES[name]()
    png = io.BytesIO()
    figure.savefig(png, bbox_inches="tight")
    assert len(png.getvalue()) < (120_000 if name == "likeness" else 80_000)  # twelve panels, others have six at most
    assert figure.get_suptitle().endswith("?")
    for axis in figure.axes:  # panels of a grid share the outer ones' labels
        assert axis.get_xlabel() or axis.get_ylabel() or axis.get_title("left")
        assert re.fullmatch(r"|step|logit|.+\(.+\)", axis.get_xlabel())  # with a unit in brackets where it has one


def test_learning_curves_name_an_arm_once_and_enlarge_the_arms():
    runs = {f"{arm}-{seed}": metrics() for arm in ("pretrain", "l1", "gan", "gan-cures") for seed in (1, 2)}
    figure = figures.training.learning_curves(runs)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.texts] == [
        "L1, where all arms begin",
        "L1",
        "L1 + GAN",
        "L1 + GAN + cures",
    ]
    whole, arms = figure.axes
    assert len(whole.lines) == 2 * len(runs) and len(arms.lines) == 6


def test_every_figure_is_closed_so_that_a_notebook_shows_it_once():
    import matplotlib.pyplot as plt

    figures.training.learning_curves({"l1-0": metrics()})
    assert not plt.get_fignums()


def test_one_evaluation_is_enough():
    for figure in (figures.training.logit_curves, figures.training.memorisation_curves):
        figure({"gan-1": metrics(1)}).canvas.draw()


def test_bars_of_the_seeds_are_the_interval():
    seeds = results.published_seeds()
    gan = results.published_systems().loc["Demucs v1 + GAN (first report)"]
    half = stats.prediction_interval(seeds)["half_width"]
    bars = [
        (bar.get_y(), bar.get_y() + bar.get_height()) for bar in figures.arms.seed_noise(seeds, gan).axes[0].patches
    ]
    np.testing.assert_allclose(bars, np.stack([-half, half], axis=1))


def test_perception_distortion_shows_every_seed_and_the_mean_of_every_arm():
    table = tracks()
    figure = figures.arms.perception_distortion(table)
    axis, nearer = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["mixture", "L1", "L1 + GAN", "L1 + GAN + cures"]
    seeds, mean = (scatter.get_offsets() for scatter in axis.collections[:2])  # of the mixture, the first arm
    expected = [
        [rows.pivot(index="track", columns="target", values=m).median().mean() for m in ("SDR", PRIMARY_DETAIL)]
        for _, rows in table[table["arm"] == "mixture"].groupby("seed")
    ]
    np.testing.assert_allclose(seeds, expected)
    np.testing.assert_allclose(mean, [np.mean(expected, axis=0)])
    assert [text.get_text() for text in nearer.texts] == ["gan", "gan-cures"]
    rows = comparisons(table, ["SDR", PRIMARY_DETAIL]).xs(("gan", "l1", "all"), level=("arm", "base", "stem"))
    across, along, point = nearer.collections[:3]
    np.testing.assert_allclose(point.get_offsets()[0], rows["difference"])
    np.testing.assert_allclose(across.get_segments()[0][:, 0], rows.loc["SDR", ["low", "high"]].astype(float))
    np.testing.assert_allclose(along.get_segments()[0][:, 1], rows.loc[PRIMARY_DETAIL, ["low", "high"]].astype(float))


def test_the_forest_shows_every_comparison_its_interval_and_its_verdict():
    table = comparisons(tracks(ARMS))
    figure = figures.arms.forest(table)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    spectral = "L1 + spectral loss"
    named = ["L1 + GAN", "L1 + GAN, 10% of the gradient", spectral, f"{spectral} + GAN"]
    assert names == [*named, f"{spectral} + GAN\n− {spectral}"]
    rows = table.loc["SDR"].xs("bass", level="stem")
    bass = figure.axes[1]
    assert [text.get_text() for text in bass.texts] == [verdict(row) for _, row in rows.iterrows()]
    drawn = [line.get_segments()[0][:, 0] for line in bass.collections]
    np.testing.assert_allclose(drawn, rows[["low", "high"]].astype(float))
    zone = bass.patches[0]
    assert (zone.get_x(), zone.get_x() + zone.get_width()) == (-0.1, 0.1)
    wide = table.assign(difference=0.0, low=-0.1, high=0.1)
    wide.loc[("SDR", "gan", "l1", "bass"), ["low", "high"]] = -9.0, 9.0
    wide.loc[("SDR", "spectral", "l1"), "seeds"] = 1
    figure = figures.arms.forest(wide)
    assert figure.axes[0].get_yticklabels()[-1].get_text() == spectral, "one pre-training, at the end"
    assert sorted(line.get_marker() for line in figure.axes[1].lines if line.get_marker() in "<>") == ["<", ">"]


def test_doses_are_shares_of_the_gradient_with_a_band_over_seeds():
    dose = dose_table(tracks((*ARMS, "gan-share-0.03")))
    assert dose["share"].unique().tolist() == [0, 0.03, 0.1] and len(dose) == 3 * 2 * 5
    sdr, detail = figures.arms.dose_response(dose).axes
    assert [label.get_text() for label in sdr.get_xticklabels()] == ["0 (L1)", "3 %", "10 %"]
    rows = dose[dose["stem"] == "all"].groupby("share")["SDR"]
    mean = next(line for line in sdr.lines if line.get_label() == "mean of the stems")
    np.testing.assert_allclose(mean.get_ydata(), rows.mean())
    band = sdr.collections[0].get_paths()[0].vertices
    half = stats.stats.t.ppf(0.975, 1) * rows.std() / np.sqrt(2)
    assert band[:, 1].max() == pytest.approx((rows.mean() + half).max())
    dots = [line for line in detail.lines if line.get_marker() == "o"]
    assert [len(line.get_ydata()) for line in dots] == [2, 2, 2]
    assert dose_table(tracks()).empty
    table = tracks((*ARMS, "gan-share-0.03"))
    lacking = table[(table["arm"] != "gan-share-0.03") | (table["seed"] == table["seed"].min())]
    assert set(dose_table(lacking)["seed"]) == {table["seed"].min()}, "the same pre-trainings for every dose"


def test_a_filled_mark_is_a_difference_that_excludes_zero():
    table = arm_differences(tracks(), METRICS)
    table[["difference", "low", "high"]] = 0.0, -1.0, 1.0
    table.loc[("SIR", "gan", "bass"), ["difference", "low", "high"]] = 2.0, 1.0, 3.0
    bass = figures.arms.measure_differences(table).axes[1]
    marks = [c for c in bass.collections if len(c.get_offsets()) == len(METRICS) and len(c.get_facecolors()) == 4]
    white = [[tuple(colour) == (1, 1, 1, 1) for colour in mark.get_facecolors()] for mark in marks]
    assert white == [[True, True, False, True], [True] * 4]  # gan, gan-cures


def test_colours_are_distinct_and_follow_the_arm():
    assert len(set(figures.style.COLOURS.values())) == len(figures.style.COLOURS)
    figure = figures.training.learning_curves({"gan-12": metrics()})
    assert figure.axes[0].lines[0].get_color() == figures.style.COLOURS["gan"]


def test_player_holds_ten_seconds_of_opus_and_an_escaped_label():
    sound = 3 * np.stack([np.sin(np.arange(12 * RATE) / 20), np.zeros(12 * RATE)])  # beyond full scale
    html = player(sound, RATE, "<b>drums</b>").data
    assert "&lt;b&gt;drums" in html
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])))
    assert decoded.shape == (480_000, 2) and rate == 48_000  # Opus has one rate
    assert 0.85 < np.abs(decoded[:, 0]).max() < 1.15 and decoded[:, 1].std() < 0.01  # RMS; -40 dB
