"""Short trials of other pre-trainings: which one is the study of worth to stand on?

    python -m lib.studies.bases OUT.csv study --jobs 2 "as-it-is:steps=700" "bf16:steps=900 precision=bf16"

Each trial is name:words, where words are parameters of `lib.config.Config` that replace those of the profile's
pre-training; choose their steps so that all take as long. It is trained beside OUT.csv, then scored on the profile's
held-out tracks, so that no test track takes part in the choice. OUT.csv gets a row per trial: the words, the seconds of
training, the L1 errors at its end, and for each stem, and for their mean, by how many dB the median SDR lies above that
of the mixture divided equally. Finished trials are kept.
"""

import dataclasses
from functools import partial
from pathlib import Path

import pandas as pd

from lib.common.errors import Parser, UserError
from lib.common.files import atomic
from lib.common.processes import command
from lib.common.provenance import ROOT
from lib.config import parse, read_note
from lib.data.tracks import read_index
from lib.evaluation.results import measured, read_metrics
from lib.evaluation.stats import stem_table
from lib.report import profile
from lib.runs.arms import plan
from lib.runs.folders import arm_and_seed
from lib.runs.launch import launch
from lib.studies import queue
from lib.studies.worth import evaluate

HELD_OUT = "valid"  # the set of the index that chooses


def configs(parameters, trials):
    """{trial: `Config`} of the first seed's pre-training. trials: {name: [word, …]}.

    A bad name or word is a `UserError`.
    """
    seed, found = parameters["seeds"][0], {}
    base = plan(parameters)[f"pretrain-{seed}"]
    for trial, words in trials.items():
        arm_and_seed(f"{trial}-{seed}")  # which raises for a name that no folder of a run may have
        values = parse([f"data={base.data}", *words], Path(trial))
        names = [word.partition("=")[0] for word in words]
        found[trial] = dataclasses.replace(base, **{name: getattr(values, name) for name in names})
    return found


def gather(folder, trials):
    """The table of the `trials` that are scored in `folder`, in their order; trials: {name: [word, …]}."""
    scored, rows = measured(folder, HELD_OUT), []
    tables = {arm: stem_table(rows) for arm, rows in scored.groupby("arm")}
    for trial, words in trials.items():
        if trial not in tables:
            continue
        (run,) = folder.glob(f"{trial}-[0-9]*")
        note, last = read_note(run), read_metrics(run).iloc[-1]
        row = {"base": trial, "words": " ".join(words), "seed": note["config"]["seed"], "steps": int(last["step"])}
        row |= {"seconds": note["seconds"], "l1_train": last["l1_train"], "l1_heldout": last["l1_heldout"]}
        rows.append(row | {name: note["made_by"][name] for name in ("machine", "commit")})
        rows[-1] |= {f"{stem}_above": value for stem, value in (tables[trial] - tables["mixture"]).items()}
    return pd.DataFrame(rows)


def main(arguments=None):
    """Run the command."""
    parser = Parser(prog="python -m lib.studies.bases", description="Short trials of other pre-trainings.")
    parser.add_argument("table", type=Path, metavar="OUT.csv")
    parser.add_argument("profile", help="a file of notebooks/profiles, or a name with run=…")
    parser.add_argument("trials", nargs="+", metavar="name:words")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time (default: %(default)s)")
    options = parser.parse_args(arguments)
    parameters = profile.values(ROOT / "notebooks", options.profile)
    folder = options.table.resolve().parent
    trials = {name.strip(): words.split() for name, _, words in (trial.partition(":") for trial in options.trials)}
    planned = configs(parameters, trials)
    tracks = read_index(ROOT / next(iter(planned.values())).data)[0][HELD_OUT]

    def work(name, config):
        run = folder / (f"{name}-{config.seed}" if config else "mixture")
        if config:
            launch(config, run, beside=options.jobs, quiet=True)
        evaluate(tracks, run / "eval" / HELD_OUT, run / "model.safetensors" if config else None, parameters)
        with atomic(options.table) as temporary:
            gather(folder, trials).to_csv(temporary, index=False, float_format="%.4f")

    jobs = [queue.Job(name, partial(work, name, config)) for name, config in {"mixture": None, **planned}.items()]
    if errors := queue.run(jobs, options.jobs):
        raise UserError(f"{len(errors)} of the trials failed: {', '.join(errors)}; the lines above say why.")


if __name__ == "__main__":
    command(main)
