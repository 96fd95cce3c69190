"""Train and score the arms of a profile, several at a time; 02-train and 03-sdr-table find them finished.

    python -m lib.studies.worth study --jobs 2
    python -m lib.studies.worth study --jobs 16 --seconds 540 --only trainings    # beside each other on a large GPU

Pre-trainings come first, then the longest arms, then those that every seed has, then those of the first seed only.
`--only scores` scores what is trained, here or on another machine: it reads model.safetensors in the folders of the
trainings. It needs data.json (01-data or `lib.studies.data`), but no ffmpeg, musdb, museval or Jupyter.
"""

from functools import partial

import torch

from lib.common.errors import Parser, UserError
from lib.common.processes import command
from lib.common.processes import workers as processes
from lib.common.provenance import ROOT
from lib.data.tracks import read_index
from lib.evaluation import results, score
from lib.report import profile
from lib.runs.arms import plan
from lib.runs.launch import launch
from lib.studies import queue


def trainings(parameters, beside=1):
    """The `queue.Job`s that train what the `parameters` of a profile ask for; beside: how many share the cores."""
    folder, once = _folder(parameters), tuple(f"{arm}-" for arm in parameters["arms_once"])
    runs, found = plan(parameters), []
    order = {name: (bool(c.start_from), -c.steps, name.startswith(once)) for name, c in runs.items()}
    for name in sorted(runs, key=order.get):
        start = runs[name].start_from
        train = partial(launch, runs[name], folder / name, parameters["nproc"], beside=beside)
        found.append(queue.Job(name, train, (start.rpartition("/")[2],) if start else ()))
    return found


def scores(parameters, after=()):
    """The `queue.Job`s that score the mixture and the weights of each training, test set by test set.

    after: names of jobs to wait for.
    """
    folder = _folder(parameters)
    sets, _ = read_index(folder / "data.json")
    weights = {"mixture": None} | {name: folder / name / "model.safetensors" for name in plan(parameters)}
    found = []
    for kind in (kind for kind, tracks in sets.items() if tracks and kind not in results.NOT_SCORED):
        for name, file in weights.items():
            work = partial(evaluate, sets[kind], folder / name / "eval" / kind, file, parameters)
            found.append(queue.Job(f"scores of {name} on {kind}", work, {name} & {*after}))
    return found


def _folder(parameters):
    return ROOT / "results" / parameters["run"]


def evaluate(*job):
    """`score_set` in a process of its own, on one thread."""
    with processes(1, partial(torch.set_num_threads, 1)) as pool:
        list(pool.map(score_set, [job]))


def score_set(job):
    """Score weights on one test set, track by track. job: the arguments of `evaluate`."""
    tracks, folder, weights, parameters = job
    options = {"metric": parameters["metric"], "shifts": parameters["shifts"], "most_workers": 1}
    score.evaluate_set(tracks, folder, weights=weights, **options)


def main(arguments=None):
    """Run the command."""
    parser = Parser(prog="python -m lib.studies.worth", description="Train and score the arms of a profile.")
    parser.add_argument("profile", help="a file of notebooks/profiles")
    parser.add_argument("words", nargs="*", metavar="name=value", help="parameters that replace the profile's")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds; the same command goes on")
    parser.add_argument("--only", choices=("trainings", "scores"), help="do only these (default: both)")
    options = parser.parse_intermixed_args(arguments)
    parameters = profile.values(ROOT / "notebooks", options.profile, options.words)
    jobs = trainings(parameters, options.jobs) if options.only != "scores" else []
    if options.only != "trainings":
        jobs += scores(parameters, [job.name for job in jobs])
    errors = queue.run(jobs, options.jobs, options.seconds)
    if errors:
        raise UserError(f"{len(errors)} of the jobs failed: {', '.join(errors)}; the lines above say why.")


if __name__ == "__main__":
    command(main)
