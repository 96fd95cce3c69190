"""Score every system of a run on every test set."""

from pathlib import Path

from lib.evaluation import detectability, score
from lib.evaluation.results import NOT_SCORED


def evaluate_run(sets, folder, systems, *, metric="fast", shifts=0, fresh_discriminator=True):
    """Score `systems`, {name: weights, or None for the mixture in equal parts}, into `folder`/<name>/eval/<test set>.

    sets: {name: tracks} of an index; metric, shifts: as of `lib.evaluation.score.pending`. fresh_discriminator: whether
    a discriminator is trained anew on the estimates of each system (`lib.evaluation.detectability`). What is finished
    is kept; what is left is done in one pool of processes, the longest first.
    """
    jobs, long = [], []
    for system, weights in systems.items():
        home = Path(folder) / system / "eval"
        for name, tracks in sets.items():
            if tracks and name not in NOT_SCORED:
                jobs += score.pending(tracks, home / name, weights=weights, metric=metric, shifts=shifts)
        if fresh_discriminator:
            long += detectability.pending(sets["test"], home / "test", weights=weights, shifts=shifts)
    score.work_off(long + jobs, "scores", unit="jobs")
