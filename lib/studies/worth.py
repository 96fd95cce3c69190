"""Train and score the arms of a profile, several at a time; 02-train and 03-sdr-table find them finished.

    python -m lib.studies.worth study --jobs 2
    python -m lib.studies.worth study --jobs 12 --seconds 540 channels=16    # beside each other on a large GPU

Pre-trainings come first, then the arms that every seed has, then those of the first seed only. It needs data.json
(01-data or `lib.studies.data`), but no ffmpeg, musdb, museval or Jupyter.
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


def jobs(parameters):
    """The `queue.Job`s of the profile with `parameters`: trainings, each followed by the scores of its weights."""
    folder = ROOT / "results" / parameters["run"]
    sets, _ = read_index(folder / "data.json")
    runs, once = plan(parameters), tuple(f"{arm}-" for arm in parameters["arms_once"])
    found = [_scores("mixture", folder, None, (), sets, parameters)]
    for name, config in sorted(runs.items(), key=lambda run: (bool(run[1].start_from), run[0].startswith(once))):
        after = (config.start_from.rpartition("/")[2],) if config.start_from else ()
        found.append(queue.Job(name, partial(launch, config, folder / name, parameters["nproc"]), after))
        found.append(_scores(name, folder, folder / name / "model.safetensors", (name,), sets, parameters))
    return found


def _scores(name, folder, weights, after, sets, parameters):
    return queue.Job(f"scores of {name}", partial(evaluate, sets, folder / name, weights, parameters), after)


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
    command(main)
