"""Readers and tables, against hand-computed values and real museval files."""

import gzip
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.evaluation import results, stats
from lib.evaluation.measures import MEASURES
from lib.evaluation.results import REFERENCE, published_tracks
from lib.evaluation.score import versions
from lib.evaluation.stats import COLUMNS, STEMS
from lib.report import readme, tables

OPEN_UNMIX = REFERENCE / "museval_json" / "OpenUnmix"
TRACKS = ["Dawn", "Dusk <i>", "Noon"]


def museval_text(figures):
    """A museval file; figures: {target: [SDR of every frame]}, ISR, SIR and SAR being 1, 2 and 3 dB more."""
    targets = []
    for name, frames in figures.items():
        metrics = [{"SDR": f, "ISR": f + 1, "SIR": f + 2, "SAR": f + 3} for f in frames]
        targets.append({"name": name, "frames": [{"time": 0.0, "duration": 1.0, "metrics": m} for m in metrics]})
    return json.dumps({"targets": targets})


def evaluate(run, name, level, test_set="test", tracks=TRACKS, metric="fast"):
    """Fabricate an evaluated arm: stem k of track t has SDR level + k + 10 t in its every frame but a silent one."""
    folder = run / name / "eval" / test_set
    (folder / "tracks").mkdir(parents=True)
    about = {"metric": metric, "tracks": TRACKS, "made_by": {"commit": "0123456789"}} | versions()
    (folder / "about.json").write_text(json.dumps(about))
    for t, track in enumerate(tracks):
        figures = {stem: [level + k + 10 * t, math.nan] for k, stem in enumerate(STEMS)}
        (folder / "tracks" / f"{track}.json").write_text(museval_text(figures))


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "quick"
    evaluate(run, "mixture", -6)
    for seed, l1, gan in ((0, 1.0, 1.5), (1, 2.0, 1.7), (2, 3.0, 3.0)):
        evaluate(run, f"l1-{seed}", l1)
        if seed < 2:  # a seed that only one arm has
            evaluate(run, f"gan-{seed}", gan)
    evaluate(run, "l1-0", 0.0, "real excerpt", metric="museval")
    return run


# --- the published results ---


def test_published_seeds_reproduce_the_published_row():
    seeds = results.published_seeds()
    expected = {  # shared knowledge of this project, rounded to three decimals
        42: [6.245, 5.827, 3.997, 6.082, 5.538],
        43: [6.202, 5.772, 4.078, 6.488, 5.635],
        44: [6.149, 5.700, 4.265, 6.386, 5.625],
        45: [5.883, 5.713, 4.121, 6.101, 5.454],
        46: [5.942, 6.155, 4.153, 6.377, 5.657],
    }
    assert list(seeds.index) == list(expected) and list(seeds.columns) == list(COLUMNS)
    np.testing.assert_allclose(seeds, list(expected.values()), atol=5.1e-4)
    assert seeds.mean().round(2).tolist() == [6.08, 5.83, 4.12, 6.29, 5.58]  # as published
    interval = stats.prediction_interval(seeds)
    np.testing.assert_allclose(interval["sd"], [0.162, 0.187, 0.099, 0.184, 0.084], atol=5.1e-4)
    np.testing.assert_allclose(interval["half_width"], [0.49, 0.57, 0.30, 0.56, 0.26], atol=5.1e-3)


# --- museval files ---


def test_open_unmix_files_give_its_published_row():
    tracks = results.read_museval(OPEN_UNMIX)  # holds only the folder test/, of gzip files
    row = stats.stem_table(tracks, expected_tracks=set(published_tracks()["track"]))
    assert row[list(STEMS)].round(2).tolist() == [5.73, 5.23, 4.02, 6.32]
    # the same as the medians that were computed independently of this reader
    medians = pd.read_csv(REFERENCE / "museval_track_medians.csv").query("model == 'Open-Unmix'")
    both = tracks.merge(medians, on=["track", "target"], suffixes=("", "_reference"))
    assert len(both) == 200
    for metric in results.METRICS:
        np.testing.assert_allclose(both[metric], both[f"{metric}_reference"], atol=1e-5)


def test_plain_and_gzip_files_are_read_and_silent_frames_left_out(tmp_path):
    text = museval_text({"drums": [1.0, math.nan, 3.0, 8.0], "bass": [math.nan]})
    (tmp_path / "A.b.json").write_text(text)
    (tmp_path / "C.json.gz").write_bytes(gzip.compress(text.encode()))
    rows = results.read_museval(tmp_path)
    assert rows["track"].tolist() == ["A.b", "A.b", "C", "C"]
    first = rows.iloc[0]
    assert (first["SDR"], first["SAR"], first["frames"]) == (3.0, 6.0, 3)  # median of 1, 3, 8
    assert rows.iloc[1]["frames"] == 0 and math.isnan(rows.iloc[1]["SDR"])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.json", b'{"targets": [', "x.json cannot be read as JSON"),
        ("x.json.gz", b"no gzip", "x.json.gz cannot be read"),
        ("x.json", b'{"targets": [{"name": "bass", "frames": [{"metrics": {"SDR": 1}}]}]}', "no 'ISR'"),
        ("x.json", b"[]", "x.json is not a museval result"),
        ("x.txt", b"", "No museval results"),
    ],
)
def test_unreadable_results_are_named(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        results.read_museval(tmp_path)


def test_missing_folder_and_a_track_that_stands_twice(tmp_path):
    with pytest.raises(UserError, match="No museval results"):
        results.read_museval(tmp_path / "nowhere")
    text = museval_text({"drums": [1.0]})
    (tmp_path / "A.json").write_text(text)
    (tmp_path / "A.json.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(UserError, match="more than one result for A"):
        results.read_museval(tmp_path)


# --- the table ---


def test_rows_of_the_table(run):
    table = tables.sdr_table(run)
    test = table[table["section"] == "Measured here, on: test"].set_index("system")
    assert list(test.index) == [
        "Mixture ÷ 4 as every estimate", "L1", "L1 + GAN", "Difference: L1 + GAN − L1",
    ]  # fmt: skip
    # the middle track adds 10 dB and stem k adds k; "all" is the mean of the stems
    np.testing.assert_allclose(test.loc["L1", list(COLUMNS)].astype(float), [12, 13, 14, 15, 13.5])
    np.testing.assert_allclose(test.loc["L1 + GAN", "drums"], 11.6)  # the mean of 11.5 and 11.7
    # paired by the seeds both arms have, 0 and 1: the mean of +.5 and -.3
    np.testing.assert_allclose(test.iloc[3][list(COLUMNS)].astype(float), 0.1)
    assert test["seeds"].tolist() == ["none", "3 (0, 1, 2)", "2 (0, 1)", "2 (0, 1)"]
    assert set(test["tracks"]) == {3} and set(test["metric"]) == {"lib.evaluation.bsseval"}
    assert test.loc["L1", "computed from"] == "quick/l1-0, quick/l1-1, quick/l1-2 at commit 0123456789"

    published = table.head(4).set_index("system")
    np.testing.assert_allclose(published.loc["Difference", "bass"], 6.16 - 5.8332, atol=1e-4)
    assert published.loc["95 % prediction half-width", "tracks"] == 50
    excerpt = table[table["section"] == "Measured here, on: real excerpt"]
    assert excerpt["system"].tolist() == ["L1"] and excerpt["metric"].tolist() == ["museval"]


def test_seeds_are_averaged_and_stand_in_the_order_of_their_numbers(tmp_path):
    for seed, l1, gan in ((10, 0.0, 1.0), (2, 1.0, 1.0), (33, 5.0, 9.0)):
        evaluate(tmp_path, f"l1-{seed}", l1)
        evaluate(tmp_path, f"gan-{seed}", gan)
    evaluate(tmp_path, "gan-2~1", 90.0)  # set aside
    table = tables.sdr_table(tmp_path).set_index("system")
    # the middle track adds 10; means of 0, 1, 5 and of 1, 1, 9, and of the gains 1, 0, 4, whose medians are all 1
    assert table.loc["L1", "drums"] == pytest.approx(12) and table.loc["L1 + GAN", "drums"] == pytest.approx(41 / 3)
    difference = table.loc["Difference: L1 + GAN − L1"]
    assert difference["drums"] == pytest.approx(5 / 3)
    assert table.loc["L1", "seeds"] == difference["seeds"] == "3 (2, 10, 33)"
    folders = [f"{tmp_path.name}/l1-{seed}" for seed in (2, 10, 33)]
    assert table.loc["L1", "computed from"].startswith(f"{', '.join(folders)} at ")
    assert results.measured(tmp_path)["seed"].unique().tolist() == [2, 10, 33]


def test_another_systems_folder_joins_the_section_of_its_tracks(run):
    table = tables.sdr_table(run, {"UMX": OPEN_UNMIX, "again": run / "l1-0" / "eval" / "test"}).set_index("system")
    assert table.loc["UMX", "section"] == table.loc["D3Net", "section"]
    assert table.loc["again", "section"] == "Measured here, on: test" and table.loc["again", "drums"] == 11


def test_another_systems_folder_prefers_the_section_of_exactly_its_tracks(run):
    evaluate(run, "l1-0", 0.0, "shifted", tracks=["Dawn"])
    folder = run / "l1-0" / "eval" / "shifted"
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps(about | {"tracks": ["Dawn"]}))  # "test" has it too, and two more
    table = tables.sdr_table(run, {"again": folder}).set_index("system")
    assert table.loc["again", "section"] == "Measured here, on: shifted"


def test_incomplete_rows_are_refused_by_name(run, tmp_path):
    (run / "gan-1" / "eval" / "test" / "tracks" / "Noon.json").unlink()
    with pytest.raises(UserError, match="1 of 3 tracks .*'Noon'"):
        tables.sdr_table(run)
    evaluate(tmp_path, "other-0", 0.0, tracks=["Dawn"])
    (run / "gan-1").rename(tmp_path / "aside")
    with pytest.raises(UserError, match=r"'Dusk <i>', 'Noon'"):
        tables.sdr_table(run, {"other": tmp_path / "other-0" / "eval" / "test"})


def test_a_stem_that_was_not_scored_and_a_foreign_track_are_refused():
    rows = [{"track": t, "target": s, "SDR": 1.0} for t in "AB" for s in STEMS]
    with pytest.raises(UserError, match="1 of 2 tracks .*'B'"):
        stats.stem_table(pd.DataFrame(rows[:-1]))
    with pytest.raises(UserError, match="not in its test set .*'B'"):
        stats.stem_table(pd.DataFrame(rows), expected_tracks={"A"})
    with pytest.raises(UserError, match="incomplete"):
        stats.stem_table(pd.DataFrame(rows[:0], columns=["track", "target", "SDR"]))


def test_written_tables_hold_what_the_notebook_shows(run):
    table, tracks = tables.write_tables(run)
    written = pd.read_csv(run / "sdr_table.csv")
    assert list(written.columns[:6]) == ["system", *COLUMNS] and set(written) == set(table)
    np.testing.assert_allclose(written[list(COLUMNS)], table[list(COLUMNS)].astype(float), atol=1e-4)
    assert len(pd.read_csv(run / "arms.csv")) == len(tracks) == (1 + 3 + 2 + 1) * 3 * 4  # arms × tracks × stems
    assert not list(run.glob("*.tmp"))
    for folder in run.glob("*/eval"):
        shutil.rmtree(folder)
    pd.testing.assert_frame_equal(results.arms_table(run), tracks, check_exact=False, atol=1e-5)


def test_arms_table_joins_spectral_measures_by_track_and_stem_and_leaves_gaps(run):
    folder = run / "gan-1" / "eval" / "test"
    for name, value in (("Dawn", 1.0), ("Noon", 2.0)):  # "Dusk" has not been measured
        measures = {stem: dict.fromkeys(MEASURES, value + k / 10) for k, stem in enumerate(STEMS)}
        measures["vocals"]["lsd_8k_16k"] = math.nan  # a silent stem
        (folder / "spectral").mkdir(exist_ok=True)
        (folder / "spectral" / f"{name}.json").write_text(json.dumps(measures))
    (folder / "detectability.json").write_text(json.dumps({"auc": {"Dawn": 0.8, "Noon": 0.6}}))
    tables.write_tables(run)
    written = pd.read_csv(run / "arms.csv")
    expected = ["test_set", "arm", "block", "seed", "track", "target", *results.METRICS, *MEASURES, "auc_fresh"]
    assert list(written)[: len(expected)] == expected
    assert set(written["test_set"]) == {"test", "real excerpt"}
    blocks = written[written["seed"].notna()].groupby("seed")["block"].unique()
    assert blocks.tolist() == [[1], [2], [3]] and written.loc[written["seed"].isna(), "block"].isna().all()
    rows = written[(written["arm"] == "gan") & (written["seed"] == 1)].set_index(["track", "target"])
    assert rows.loc[("Noon", "other"), "mrstft"] == 2.2 and rows.loc[("Noon", "other"), "SDR"] == 1.7 + 2 + 20
    assert rows["auc_fresh"].tolist() == pytest.approx([0.8] * 4 + [math.nan] * 4 + [0.6] * 4, nan_ok=True)
    assert rows["lsd_8k_16k"].isna().sum() == 4 + 2 and written[list(MEASURES)].notna().any(axis=1).sum() == 8


def test_a_run_without_results_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="evaluated on 'test'"):
        tables.write_tables(tmp_path)


def test_html_table_escapes_names_marks_the_best_and_signs_differences(run):
    html = tables.style_table(tables.sdr_table(run, {"<script>": OPEN_UNMIX})).data
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert "<b>12.00</b>" in html and "<td>+0.10</td>" in html and "<td>−0.17</td>" in html
    assert "± 0.49" in html and "<b>8.76</b>" in html  # Hybrid Demucs' bass is best: the oracle does not compete


def test_a_difference_that_two_decimals_do_not_show_has_no_colour(run):
    table = tables.sdr_table(run)
    table.loc[table["system"].str.startswith("Difference: "), ["drums", "bass", "other"]] = 0.003, -0.003, 0.006
    html = tables.style_table(table).data
    assert "<td>+0.00</td><td>+0.00</td><td>+0.01</td>" in html


# --- a training's log ---


def test_metrics_tolerate_a_cut_last_line_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "l1_heldout": 0.5}\n{"step": 2, "l1_heldout": 0.4, "r_v_sigma": null}\n{"step": 3, "l1_'
    )
    assert results.read_metrics(tmp_path)["step"].tolist() == [1, 2]
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(UserError, match="Line 1 of .*metrics.jsonl"):
        results.read_metrics(tmp_path)
    path.write_text("")
    with pytest.raises(UserError, match="no evaluation yet"):
        results.read_metrics(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="metrics.jsonl"):
        results.read_metrics(tmp_path)


def test_a_plain_table_has_true_minus_signs_dashes_and_untouched_names():
    shown = tables.plain_table(pd.DataFrame({"name": ["-1 - Song", "B"], "dB": [-0.25, np.nan]})).data
    assert "<td>−0.25</td>" in shown and "<td>–</td>" in shown and "<td>-1 - Song</td>" in shown and "NaN" not in shown


def test_only_arms_with_every_pre_training_of_l1_compete():
    rows = pd.DataFrame({"system": ["Mixture", "L1", "L1 + GAN", "Difference: L1 + GAN − L1"], "seeds": [
        "none", "2 (1, 2)", "1 (1)", "1 (1)"]})  # fmt: skip
    assert tables.complete(rows).tolist() == [True, True, False, False]
    assert tables.complete(rows[rows["system"] != "L1"]).all(), "published systems have no L1 among them"
    lines = readme.markdown_table(rows.assign(section=tables.TEST, **dict.fromkeys(COLUMNS, 1.0))).splitlines()
    assert [line.split(" | ")[0] for line in lines[-3:]] == [
        "| Mixture", "| L1", "| Difference: L1 + GAN − L1, one pre-training"]  # fmt: skip
