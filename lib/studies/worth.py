"""Train and score the arms of a profile, several at a time; 02-train and 03-sdr-table find them finished.

    python -m lib.studies.worth study --jobs 2
    python -m lib.studies.worth study --jobs 12 --seconds 540 channels=16    # beside each other on a large GPU

The order is that of the profile's seeds: a pre-training, its arms, their scores. Needs no ffmpeg, musdb, museval or
Jupyter, so that it runs where only PyTorch is; 01-data's data.json must be there (`lib.studies.data` writes it too).
"""

import sys
from functools import partial

import torch

from lib.common.errors import Parser, UserError
from lib.common.processes import use_utf8
from lib.common.processes import workers as processes
from lib.common.provenance import ROOT
from lib.data.tracks import read_index
from lib.evaluation import results, score
from lib.report import profile
from lib.runs.arms import plan
from lib.runs.launch import launch
from lib.studies import queue


def jobs(parameters):
    """The `queue.Job`s of the profile with `parameters`: trainings, each followed by the scores of its weights."""
    folder = ROOT / "results" / parameters["run"]
    sets, _ = read_index(folder / "data.json")
    runs, found = plan(parameters), []
    for name, config in runs.items():
        after = (config.start_from.rpartition("/")[2],) if config.start_from else ()
        found.append(queue.Job(name, partial(launch, config, folder / name, parameters["nproc"]), after))
    systems = {"mixture": ()} | {name: (name,) for name in runs}
    for name, after in systems.items():
        weights = folder / name / "model.safetensors" if after else None
        found.append(queue.Job(f"scores of {name}", partial(evaluate, sets, folder / name, weights, parameters), after))
    return found


def evaluate(*job):
    """`score_all` in a process of its own, on one thread."""
    with processes(1, partial(torch.set_num_threads, 1)) as pool:
        list(pool.map(score_all, [job]))


def score_all(job):
    """Score weights on every test set of the index, track by track. job: the arguments of `evaluate`."""
    sets, folder, weights, parameters = job
    for test_set, tracks in sets.items():
        if tracks and test_set not in results.NOT_SCORED:
            options = {"metric": parameters["metric"], "shifts": parameters["shifts"], "most_workers": 1}
            score.evaluate_set(tracks, folder / "eval" / test_set, weights=weights, **options)


def main(arguments=None):
    """Run the command."""
    parser = Parser(prog="python -m lib.studies.worth", description="Train and score the arms of a profile.")
    parser.add_argument("profile", help="a file of notebooks/profiles")
    parser.add_argument("words", nargs="*", metavar="name=value", help="parameters that replace the profile's")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds; the same command goes on")
    options = parser.parse_args(arguments)
    parameters = profile.values(ROOT / "notebooks", options.profile, options.words)
    errors = queue.run(jobs(parameters), options.jobs, options.seconds)
    if errors:
        raise UserError(f"{len(errors)} of the jobs failed: {', '.join(errors)}; the lines above say why.")


if __name__ == "__main__":
    use_utf8()
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
