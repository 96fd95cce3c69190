"""Readers of result files: museval's, the trainer's, and the published ones.

results/<run>/<arm>-<seed>/metrics.jsonl                what training logged
results/<run>/<arm>-<seed>/eval/<test set>/             what `lib.evaluation.score` wrote
results/<run>/mixture/eval/<test set>/                  the mixture as every estimate
results/reference/                                      others' figures, with source
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.common.untrusted import parse_json, read_limited
from lib.evaluation.spectral import MEASURES
from lib.evaluation.stats import stem_table
from lib.runs.checkpoint import read_log
from lib.runs.folders import folders_in, runs_in

REFERENCE = ROOT / "results" / "reference"
METRICS = ("SDR", "ISR", "SIR", "SAR")
ARMS = {  # others go by their name
    "mixture": "Mixture ÷ 4 as every estimate",
    "l1": "L1",
    "gan": "L1 + GAN",
    "gan-cures": "L1 + GAN + cures",
}
CELLS = 2**24  # of a log's table, 128 MB; 75,000 steps evaluated every 313 make 240 lines of 60 figures
TEST_SETS = ("test", "shifted", "real excerpt")
NO_TRACKS = ("about", "detectability")  # files beside those of the tracks


def read_museval(folder):
    """A folder of museval result files (.json or .json.gz, one per track, in `folder` or `folder/test`).

    Returns a DataFrame with one row per (track, target): `SDR`, `ISR`, `SIR`, `SAR`, each the median over
    frames without NaN (museval's mark of a silent reference or estimate) in dB, and `frames`, the number of
    finite SDR frames. The track is the file's name. Raises `UserError` for a folder without results, a track
    that stands there twice, and a file that is not a museval result.
    """
    folder = Path(folder)
    files = _result_files(folder) or _result_files(folder / "test")
    if not files:
        raise UserError(f"No museval results (*.json or *.json.gz) in {folder}; check the path or evaluate first.")
    rows = []
    for file in files:
        track = re.sub(r"\.json(\.gz)?$", "", file.name)
        rows += [{"track": track, **row} for row in _read_track(file)]
    table = pd.DataFrame(rows)
    if repeated := sorted(set(table.loc[table.duplicated(["track", "target"]), "track"])):
        raise UserError(f"{folder} holds more than one result for {', '.join(repeated)}; remove all but one.")
    return table


def _result_files(folder):
    files = sorted(folder.glob("*.json")) + sorted(folder.glob("*.json.gz"))
    return [file for file in files if file.name.removesuffix(".json") not in NO_TRACKS]


def _read_track(file):
    """Rows of one museval file, a dict per target."""
    try:
        targets = parse_json(read_limited(file))["targets"]
        rows = []
        for target in targets:
            metrics = [[frame["metrics"][name] for name in METRICS] for frame in target["frames"]]
            frames = pd.DataFrame(metrics, columns=METRICS, dtype=float)
            finite = int(np.isfinite(frames["SDR"]).sum())
            rows.append({"target": target["name"], **frames.median(), "frames": finite})
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); evaluate that track again.") from error
    except (KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{file} is not a museval result (no {error}); evaluate that track again.") from error
    if not rows or not all(isinstance(row["target"], str) and row["target"].isprintable() for row in rows):
        raise UserError(f"{file} is not a museval result (no names of targets); evaluate that track again.")
    return rows


def published_seeds():
    """The five published Demucs v1 runs (seeds 42-46, trained on MUSDB18): SDR in dB, one row per seed,
    computed from per-track medians; columns drums, bass, other, vocals and all, the mean of the four."""
    tracks = published_tracks()
    return pd.DataFrame(
        {seed: stem_table(rows, expected_tracks=set(tracks["track"])) for seed, rows in tracks.groupby("seed")}
    ).T.rename_axis("seed")


def published_tracks():
    """Per-track results of those five runs, columns as in `read_museval` plus model, seed and data."""
    tracks = pd.read_csv(REFERENCE / "museval_track_medians.csv")
    return tracks[(tracks["model"] == "Demucs") & (tracks["data"] == "musdb")]


def published_systems():
    """Published SDR per system in dB, with `source` and `recomputed` ("yes", or "as reported" by that
    source)."""
    return pd.read_csv(REFERENCE / "published_sdr.csv").set_index("model")


def measured(run, test_set="test"):
    """Per-track results of every evaluated arm of `run` (a folder such as results/quick).

    Returns a DataFrame with one row per (arm, seed, track, target): test_set, arm, seed (missing for the mixture),
    track, target, SDR, ISR, SIR, SAR (dB), the measures of `lib.evaluation.spectral`, auc_fresh (of the track, the same
    for its four stems) and frames (the finite ones of SDR). What was not computed is NaN. Raises `UserError` if nothing
    was evaluated.
    """
    tables = []
    for arm, seed, folder in evaluated(run, test_set):
        table = read_museval(folder).merge(_spectral(folder), "left", on=["track", "target"])
        auc = table["track"].map(_auc(folder)).astype(float)
        labels = {"test_set": test_set, "arm": arm, "seed": seed, "auc_fresh": auc}
        tables.append(table.assign(**labels).astype({"seed": "Int64"}))
    if not tables:
        raise UserError(f"Nothing in {run} has been evaluated on '{test_set}'; run 02-train for this run first.")
    columns = ["test_set", "arm", "seed", "track", "target", *METRICS, *MEASURES, "auc_fresh", "frames"]
    return pd.concat(tables, ignore_index=True)[columns]


def arms_table(run):
    """`measured` on every test set that an arm of `run` was evaluated on, in one DataFrame."""
    test_sets = evaluated_sets(run) or ["test"]  # `measured` says what is missing
    return pd.concat([measured(run, test_set) for test_set in test_sets], ignore_index=True)


def _spectral(folder):
    """The measures of every (track, target) of an evaluated `folder`; results of old have none."""
    rows = []
    for file in folder.glob("spectral/*.json"):
        for target, values in _figures_of(file, lambda stems: stems).items():
            rows.append({"track": file.name.removesuffix(".json"), "target": target, **values})
    return pd.DataFrame(rows, columns=["track", "target", *MEASURES]).astype(dict.fromkeys(MEASURES, float))


def _auc(folder):
    """{track: held-out AUC of a fresh discriminator}, as far as it was computed."""
    file = folder / "detectability.json"
    return _figures_of(file, lambda about: {"auc": about["auc"]})["auc"] if file.exists() else {}


def _figures_of(file, pick):
    """{name: {name: figure}} that `pick` finds in a JSON file; raises `UserError` when the file is of another kind."""
    value = read_json(file)
    try:
        return {name: {key: float(x) for key, x in figures.items()} for name, figures in pick(value).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} does not hold what this program writes; remove it and evaluate again.") from error


def evaluated(run, test_set):
    """(arm, seed, folder) of the mixture and of every arm evaluated on `test_set`, in the order of `runs_in`."""
    part = Path("eval", test_set)
    found = [("mixture", pd.NA, Path(run, "mixture", part))]
    found += [(arm, seed, folder / part) for arm, seed, folder in runs_in(run, part)]
    return [entry for entry in found if _result_files(entry[2])]


def evaluated_sets(run):
    """The test sets that any arm of `run` was evaluated on, in the order of `TEST_SETS`, then by name."""
    names = {path.name for folder in folders_in(run) for path in folder.glob("eval/*") if _result_files(path)}
    if odd := [name for name in names if not re.fullmatch(r"[\w.+ -]+", name)]:
        raise UserError(f"A test set cannot be called {odd[0]!r}; rename its folder to letters, digits and spaces.")
    return [*(name for name in TEST_SETS if name in names), *sorted(names.difference(TEST_SETS))]


def read_metrics(arm_folder):
    """`metrics.jsonl` of an arm as a DataFrame, one row per evaluation; raises `UserError` as `read_log` does, and when
    there is no evaluation."""
    path = Path(arm_folder) / "metrics.jsonl"
    records = read_log(path)
    if not records:
        raise UserError(f"{path} holds no evaluation yet; train this arm first.")
    if len(records) * len(set().union(*records)) > CELLS:
        raise UserError(f"The lines of {path} have too little in common; train this arm again.")
    return pd.DataFrame(records)
