"""Gather the logs of a study's trainings into its tables.

memorisation.csv  an evaluation a row, of the plans law and game
onsets.csv        a training a row, of the same; the seconds that it took
law.csv           the fits to onsets.csv, by tracks and by minutes
cures.csv         a training a row, of the plans cures and confirm: medians of the last five evaluations; seconds
                  that it took
cures_steps.csv   an evaluation a row, of the same

A null needs the other seeds of a training; until they are finished it is empty.
"""

import json

import numpy as np
import pandas as pd

from lib.common.files import atomic, read_json
from lib.config import read_note
from lib.data.tracks import read_index
from lib.memorisation import diagnose
from lib.runs.checkpoint import read_log
from lib.runs.cures import ALL, L1
from lib.studies import law
from lib.studies.plans import Run, score

KEYS = ["tracks", "minutes", "remix", "width", "seed", "mode"]
MEASURES = [
    "tpr_train", "tpr_heldout", "tnr_train", "tnr_heldout", "auc_train", "auc_heldout", "bce_train", "bce_heldout",
    "membership_auc", "membership_null", "r_v_sigma", "r_f", "membership_tracks", "auc_matched", "l1_train",
    "l1_heldout",
]  # fmt: skip
MADE = ["machine", "commit"]
LAST = 5  # evaluations, of which cures.csv holds the medians
RUNS = "memorisation"  # the folder of the trainings


def gather(folder):
    """Write the tables of the trainings that are finished into `folder`; return those, as of `read_runs`."""
    runs = read_runs(folder)
    studied = [runs[name] for name in _names(folder, "law", "game") if name in runs]
    cured = [(plan, runs[name]) for plan in ("cures", "confirm") for name in _names(folder, plan) if name in runs]
    if studied:
        rows = [key(found) | line | found["made_by"] for found in studied for line in found["lines"]]
        write(folder / "memorisation.csv", rows, [*KEYS, "step", "passes", *MEASURES, *MADE])
        onsets = [key(f) | onset_row(f) | {"seconds": f["seconds"]} | f["made_by"] for f in studied]
        write(folder / "onsets.csv", onsets, [*KEYS, "onset_passes", "censored_passes", "seconds", *MADE])
        write(folder / "law.csv", fits(pd.DataFrame(onsets)), None)
    if cured:
        rows = [_cure(plan, found) for plan, found in cured]
        naive = {(row["plan"], row["pair"]): row for row in rows if row["cure"] == "none"}
        for row in rows:
            reference = naive.get((row["plan"], row["pair"]))
            row["score"] = score(row, reference) if reference and row["cure"] != L1 else np.nan
        first = ["plan", "cure", "seed", "pair"]
        write(folder / "cures.csv", rows, [*first, *MEASURES, "onset_passes", "score", "seconds", *MADE])
        steps = [_cure(plan, found) | line for plan, found in cured for line in found["lines"]]
        write(folder / "cures_steps.csv", steps, [*first, "step", "passes", *MEASURES, *MADE])
    return runs


def fits(onsets):
    """Rows of law.csv: the fit by tracks and by minutes, of the trainings that play, without remix, of one width."""
    chosen = onsets[(onsets["mode"] == "play") & ~onsets["remix"]]
    chosen = chosen[chosen["width"] == chosen["width"].min()]
    censored = chosen["onset_passes"].isna()
    passes = chosen["onset_passes"].fillna(chosen["censored_passes"])
    targets = {"tracks": law.FAR, "minutes": law.FAR * law.FAR_SECONDS / 60}
    found = {by: law.fit(chosen[by], passes, censored, at) if len(chosen) else None for by, at in targets.items()}
    known = law.determined(*found.values())
    facts = {"extrapolation": True, "determined": known}
    return [
        {"by": by, "at": targets[by]} | (one or {"runs": len(chosen), "censored": int(censored.sum())}) | facts
        for by, one in found.items()
    ]


def read_runs(folder):
    """{name: finished training} of all plans: {"run", "minutes", "seconds", "lines", "made_by"}, lines with a null."""
    runs = {name: read_run(folder / RUNS / name) for name in sorted(_names(folder))}
    runs = {name: found for name, found in runs.items() if found}
    for found in runs.values():
        _add_null(found, runs)
    return runs


def read_run(folder):
    """The finished training in `folder`, as of `read_runs` but without its null, or None."""
    note = read_note(folder)
    if not note.get("finished") or not (folder / "study.json").exists():
        return None
    study = read_json(folder / "study.json")
    run = Run(**study["run"])
    batch = note["config"]["batch"]
    lines = read_log(folder / "metrics.jsonl")
    for line in lines:
        line["passes"] = line["step"] * batch / run.pass_excerpts
    made_by = {name: note["made_by"][name] for name in MADE}
    return {"run": run, "minutes": study["minutes"], "seconds": note["seconds"], "lines": lines, "made_by": made_by}


def onset(found):
    """The line at which a training begins to overfit, or None."""
    lines = [line for line in found["lines"] if "membership_auc" in line]
    index = diagnose(lines)[1] if lines else None
    return None if index is None else lines[index]


def _names(folder, *plans):
    """The names of the trainings of some plans, or of all."""
    files = sorted((folder / RUNS).glob("plan-*.json"))
    files = [path for path in files if not plans or path.stem.removeprefix("plan-") in plans]
    return list(dict.fromkeys(name for path in files for name in json.loads(path.read_text())["runs"]))


def _add_null(found, runs):
    """Give each line its membership_null: what discriminators of other seeds say of the same tracks at that step.

    Of the trainings that differ by the seed alone, or by the number of steps too; where a cure has none,
    of naive ones.
    """
    run, label = found["run"], f"others_{found['run'].seed}"
    judges = [other for other in runs.values() if any(label in line for line in other["lines"])]

    def alike(*fields, **wanted):
        wanted |= {field: getattr(run, field) for field in fields}
        return [o for o in judges if all(getattr(o["run"], name) == value for name, value in wanted.items())]

    same = ("tracks", "seconds", "width", "mode")
    naive = alike(*same, cure="none", remix=False)
    others = alike(*same, "remix", "cure", "steps") or alike(*same, "remix", "cure") or naive
    values = {}
    for other in others:
        for line in other["lines"]:
            if label in line:
                values.setdefault(line["step"], []).append(line[label])
    for line in found["lines"]:
        if "membership_auc" in line:
            line["membership_null"] = float(np.mean(values[line["step"]])) if line["step"] in values else np.nan


def key(found):
    """What tells a training from others in memorisation.csv."""
    run = found["run"]
    return {name: getattr(run, name) for name in KEYS if name != "minutes"} | {"minutes": round(found["minutes"], 3)}


def onset_row(found):
    """{"onset_passes", "censored_passes"} of a training, one of them NaN."""
    first, last = onset(found), found["lines"][-1]
    known = {"onset_passes": round(first["passes"], 3), "censored_passes": np.nan} if first else {}
    return known or {"onset_passes": np.nan, "censored_passes": round(last["passes"], 3)}


def _cure(plan, found):
    run, lines = found["run"], found["lines"]
    name = L1 if run.mode == "l1" else ALL if run.tracks != 2 else run.cure
    medians = pd.DataFrame(lines[-LAST:]).reindex(columns=MEASURES).astype(float).median()
    start = {"plan": plan, "cure": name, "seed": run.seed, "pair": run.seed}
    end = {"onset_passes": onset_row(found)["onset_passes"], "seconds": found["seconds"]}
    return start | medians.to_dict() | end | found["made_by"]


def write(path, rows, columns):
    """Write `rows`, dictionaries, as a table of these columns, or of all; return it."""
    table = pd.DataFrame(rows)
    table = table.reindex(columns=columns) if columns else table
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table


def minutes_of(index):
    """Minutes of the training pieces of a data index."""
    return sum(track.samples for track in read_index(index)[0]["train"]) / 44_100 / 60
