"""Readers of result files: museval's, the trainer's, and the published ones.

results/<run>/<arm>-<seed>/metrics.jsonl        the log of a training
results/<run>/<arm>-<seed>/eval/<test set>/     the files of `lib.evaluation.score` and `detectability`
results/<run>/mixture/eval/<test set>/          the same, with the mixture ÷ its stems as every estimate
results/reference/                              published values, with source

A new column of the arms' table: per stem, an entry in a family of `lib.evaluation.measures`; per track, an entry in
`PERCEPTION` and an assignment in `measured`, as auc_fresh.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from lib.common.errors import UserError
from lib.common.files import read_json, tidy
from lib.common.provenance import ROOT
from lib.common.untrusted import parse_json, read_limited
from lib.evaluation import detectability
from lib.evaluation.measures import MEASURES
from lib.evaluation.score import check_current, versions
from lib.evaluation.stats import stem_table
from lib.runs.arms import SHARES
from lib.runs.checkpoint import read_log
from lib.runs.folders import folders_in, runs_in

REFERENCE = ROOT / "results" / "reference"
METRICS = ("SDR", "ISR", "SIR", "SAR")
# Columns of perception: lower is better, or nearer to `IDEAL`. {column: its name in sentences}
PERCEPTION = {name: column.label for name, column in MEASURES.items() if not column.higher}
PERCEPTION["auc_fresh"] = "AUC of a fresh discriminator, its distance from 0.5"
IDEAL = {"high_band_ratio": 0.0, "auc_fresh": 0.5}
HIGHER = {*METRICS, *(name for name, column in MEASURES.items() if column.higher)}  # higher is better

# The measure of detail that the arms are judged by, named before any arm was scored; all others are secondary. It ranks
# the known errors of lib.evaluation.checks rightly. It is in no arm's loss (L1, multi-resolution STFT magnitudes,
# adversarial, feature matching), and of another kind: these compare point with point, where a smooth estimate wins, and
# it compares distributions of levels, which a smooth estimate gets wrong. Fullness passes too, but rewards whatever is
# added; the log-spectral distances compare point with point, as the spectral loss does.
PRIMARY_DETAIL = "levels_2k_16k"
# No evidence for an arm whose loss is of their kind: magnitudes of STFT bins
SPECTRAL_KIND = ("lsd_0_500", "lsd_500_2k", "lsd_2k_8k", "lsd_8k_16k", "mrstft")
# A fresh discriminator knows every arm's estimates (AUC 1.0), so its AUC ranks nothing and carries no claim.
SATURATED = ("auc_fresh",)
ARMS = {  # names in the report; another arm has its folder's name
    "mixture": "Mixture ÷ 4 as every estimate",
    "pretrain": "L1, where all arms begin",
    "l1": "L1",
    "l1-long": "L1, four times as long",
    "spectral": "L1 + spectral loss",
    "spectral-adv": "L1 + spectral loss + GAN without matching",
    "spectral-gan": "L1 + spectral loss + GAN",
    "frozen": "L1 + spectral loss + untrained GAN",
    "gan": "L1 + GAN",
    "gan-cures": "L1 + GAN + cures",
    **{f"gan-share-{a:g}": f"L1 + GAN, {a:.0%} of the gradient" for a in SHARES},
}
CELLS = 2**24  # largest table of a log, 128 MB; 75,000 steps evaluated every 313 make 240 lines of 60 metrics
TEST_SETS = ("test", "shifted", "real excerpt")
NOT_SCORED = ("train", "valid", "heldout-a", "heldout-b")  # the other sets of the index


def arm_names(stems):
    """`ARMS`, with the number of `stems` in the name of the mixture."""
    return ARMS | {"mixture": ARMS["mixture"].replace("4", str(len(stems)))}


def read_museval(folder):
    """Read museval result files (.json or .json.gz, one per track) in `folder`, `folder`/tracks or `folder`/test.

    Returns a DataFrame, one row per track (the file's name) and target: `METRICS`, medians in dB over frames without
    NaN (museval's mark of a silent reference or estimate), and `frames`, the number of finite SDR frames. Raises
    `UserError` for a folder without results, two files of one track, or any other file.
    """
    folder = Path(folder)
    files = next(filter(None, (_result_files(folder / place) for place in ("tracks", "", "test"))), None)
    if not files:
        raise UserError(f"No museval results (*.json or *.json.gz) in {folder}; check the path or evaluate first.")
    table = pd.DataFrame(row for file in files for row in _read_track(file))
    if repeated := sorted(set(table.loc[table.duplicated(["track", "target"]), "track"])):
        raise UserError(f"{folder} holds more than one result for {', '.join(repeated)}; remove all but one.")
    return table


def _result_files(folder):
    return tidy(folder.glob("*.json")) + tidy(folder.glob("*.json.gz"))


def _read_track(file):
    """Rows of one museval file, a dict per target."""
    track, rows = re.sub(r"\.json(\.gz)?$", "", file.name), []
    try:
        for target in parse_json(read_limited(file))["targets"]:
            metrics = [[frame["metrics"][name] for name in METRICS] for frame in target["frames"]]
            frames = pd.DataFrame(metrics, columns=METRICS, dtype=float)
            row = {"track": track, "target": target["name"], **frames.median()}
            rows.append(row | {"frames": np.isfinite(frames["SDR"]).sum()})
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); evaluate that track again.") from error
    except (KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{file} is not a museval result (no {error}); evaluate that track again.") from error
    if not rows or not all(isinstance(row["target"], str) and row["target"].isprintable() for row in rows):
        raise UserError(f"{file} is not a museval result (no names of targets); evaluate that track again.")
    return rows


def published_seeds():
    """SDR in dB of the five published Demucs v1 runs: one row (`stem_table`) per seed, 42-46."""
    tracks = published_tracks()
    rows = {seed: stem_table(group, set(tracks["track"])) for seed, group in tracks.groupby("seed")}
    return pd.DataFrame(rows).T.rename_axis("seed")


def published_tracks():
    """Per-track results of the five Demucs v1 runs on MUSDB18, columns as of `read_museval` plus model, seed, data."""
    tracks = pd.read_csv(REFERENCE / "museval_track_medians.csv")
    return tracks[(tracks["model"] == "Demucs") & (tracks["data"] == "musdb")]


def published_systems():
    """Published SDR per system in dB, with `source` and `recomputed` ("yes", or "as reported" by that source)."""
    return pd.read_csv(REFERENCE / "published_sdr.csv").set_index("model")


def measured(run, test_set="test"):
    """Per-track results of every evaluated arm of `run` (a folder such as results/quick).

    Returns a DataFrame with one row per (arm, seed, track, target): test_set, arm, seed (missing for the mixture), the
    columns of `read_museval`, those of `MEASURES`, and auc_fresh (of the whole track); NaN marks a missing value.
    Raises `UserError` without results, or for results of another version.
    """
    tables = []
    for arm, seed, folder in evaluated(run, test_set):
        check_versions(folder)
        table = read_museval(folder / "tracks").merge(_spectral(folder), "left", on=["track", "target"])
        auc = table["track"].map(_auc(folder)).astype(float)
        tables.append(table.assign(test_set=test_set, arm=arm, seed=seed, auc_fresh=auc).astype({"seed": "Int64"}))
    if not tables:
        raise UserError(f"Nothing in {run} has been evaluated on '{test_set}'; run 02-train for this run first.")
    columns = ["test_set", "arm", "seed", "track", "target", *METRICS, *MEASURES, "auc_fresh", "frames"]
    return pd.concat(tables, ignore_index=True)[columns]


def arms_table(run):
    """`measured` on every test set that an arm of `run` was evaluated on, in one DataFrame.

    A column block numbers the pre-trainings of the run: a block is one pre-training and all arms that branch from it.
    Where the results of single tracks are not kept, as in results/study: what arms.csv of `run` holds.
    """
    if not (test_sets := evaluated_sets(run)) and (table := Path(run, "arms.csv")).exists():
        return _with_blocks(pd.read_csv(table).astype({"seed": "Int64"}))
    test_sets = test_sets or ["test"]  # without results, `measured` raises
    return _with_blocks(pd.concat([measured(run, test_set) for test_set in test_sets], ignore_index=True))


def _with_blocks(tracks):
    """`tracks` with the column block after the arm: which pre-training of the run, from 1 on."""
    tracks = tracks.drop(columns="block", errors="ignore")
    block = tracks["seed"].astype(float).rank(method="dense").astype("Int64")  # the mixture has neither
    tracks.insert(tracks.columns.get_loc("seed"), "block", block)
    return tracks


def check_versions(folder):
    """Raise `UserError` if the results in `folder` (…/eval/<test set>) are of another version of this program."""
    check_current(folder / "about.json", versions(), "03-sdr-table")
    check_current(folder / "detectability.json", {"version": detectability.VERSION}, "03-sdr-table")


def _spectral(folder):
    """The spectral measures of every (track, target) of an evaluated `folder`."""
    rows = []
    for file in tidy(folder.glob("spectral/*.json")):
        for target, values in _values_of(file, read_json(file)).items():
            rows.append({"track": file.name.removesuffix(".json"), "target": target, **values})
    return pd.DataFrame(rows, columns=["track", "target", *MEASURES]).astype(dict.fromkeys(MEASURES, float))


def _auc(folder):
    """{track: held-out AUC of a fresh discriminator}; empty if it was not computed."""
    file = folder / "detectability.json"
    return _values_of(file, {"auc": read_json(file).get("auc")})["auc"] if file.exists() else {}


def _values_of(file, content):
    """`content` of a file, {name: {name: number}}; raises `UserError` when it is of another kind."""
    try:
        return {name: {key: float(x) for key, x in values.items()} for name, values in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{file} does not hold what this program writes; remove it and evaluate again.") from error


def evaluated(run, test_set):
    """(arm, seed, folder) of the mixture and of every arm evaluated on `test_set`, in the order of `runs_in`."""
    part = Path("eval", test_set)
    found = [("mixture", pd.NA, Path(run, "mixture", part))]
    found += [(arm, seed, folder / part) for arm, seed, folder in runs_in(run, part)]
    return [entry for entry in found if _result_files(entry[2] / "tracks")]


def evaluated_sets(run):
    """The test sets that any arm of `run` was evaluated on, in the order of `TEST_SETS`, then by name."""
    paths = (path for folder in folders_in(run) for path in tidy(folder.glob("eval/*")))
    names = {path.name for path in paths if _result_files(path / "tracks")}
    if odd := [name for name in names if not re.fullmatch(r"[\w.+ -]+", name)]:
        raise UserError(f"A test set cannot be called {odd[0]!r}; rename its folder to letters, digits and spaces.")
    return [*(name for name in TEST_SETS if name in names), *sorted(names.difference(TEST_SETS))]


def read_metrics(arm_folder):
    """metrics.jsonl of an arm as a DataFrame, one row per evaluation; raises `UserError` if malformed or empty."""
    path = Path(arm_folder) / "metrics.jsonl"
    records = read_log(path)
    if not records:
        raise UserError(f"{path} holds no evaluation yet; train this arm first.")
    if len(records) * len(set().union(*records)) > CELLS:
        raise UserError(f"The lines of {path} have too little in common; train this arm again.")
    return pd.DataFrame(records)
