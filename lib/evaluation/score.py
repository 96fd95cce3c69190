"""Score the estimates of a test set, in a folder <run>/<arm>-<seed>/eval/<test set>.

tracks/<track>.json     BSSEval v4, as museval writes it
spectral/<track>.json   {stem: {measure: value}}, measures of `lib.evaluation.measures`
about.json              tracks, weights, metric and versions of these files, and the machine that made them

Every module that computes results stores its `VERSION` beside them. Raise it with every change of code that changes a
stored value or adds one: the next run then computes these results again, and readers refuse the old ones.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.files import read_json, write_bytes, write_json
from lib.common.machine import cores, free_memory
from lib.common.processes import keep_buffers
from lib.common.processes import workers as processes
from lib.common.progress import progress
from lib.common.provenance import made_by
from lib.data.tracks import SAMPLERATE, SOURCES
from lib.evaluation import bsseval, measures
from lib.models.cpu.prepare import prepare
from lib.models.weights import load_weights, read_stems
from lib.runs.folders import check_same_stems
from lib.separate import separate

METRICS = ("fast", "museval")


class Job(NamedTuple):
    """A piece of scoring: `work` is called without arguments and writes its files; memory: bytes that it needs."""

    work: object
    memory: float


def evaluate_set(tracks, folder, *, most_workers=None, **options):
    """Score `tracks` (a list of `lib.data.tracks.Track`) into `folder`.

    options: of `pending`. most_workers: processes at most; None: one per core.
    """
    folder = Path(folder)
    work_off(pending(tracks, folder, **options), f"{folder.parent.parent.name} on {folder.name}", most_workers)


def pending(tracks, folder, *, weights=None, metric="fast", shifts=0):
    """The jobs that are left of scoring `tracks` into `folder`, one per track.

    weights: a model.safetensors, or None for an equal share of the mixture as every estimate. metric: "fast"
    (`lib.evaluation.bsseval`) or "museval". Finished files of the same inputs and versions are kept, others removed.
    Raises `UserError` for a test set without tracks, an unknown metric, or weights for other stems than the tracks'.
    """
    folder = Path(folder)
    if metric not in METRICS:
        raise UserError(f"metric = {metric!r} is unknown; choose one of {', '.join(METRICS)}.")
    if not tracks:
        raise UserError(f"There is no track to evaluate for {folder}; the data index holds none in this set.")
    if weights:
        check_same_stems(read_stems(weights), tracks[0].sources, weights, f"the test set {folder.name}")
    estimates = identity(tracks, weights, shifts)
    about = {"metric": metric} | versions() | estimates
    for kind, names in (("tracks", ["metric", "scores_version"]), ("spectral", ["spectral_version"])):
        if not is_current(folder / "about.json", estimates | {name: about[name] for name in names}):
            for file in folder.glob(f"{kind}/*.json"):
                file.unlink()
    if not is_current(folder / "detectability.json", estimates):
        (folder / "detectability.json").unlink(missing_ok=True)
    if not is_current(folder / "about.json", about):
        write_json(folder / "about.json", about | {"made_by": made_by()})
    files = [(track, *(folder / kind / f"{track.name}.json" for kind in ("tracks", "spectral"))) for track in tracks]
    return [
        Job(partial(_evaluate_track, (*job, weights, metric, shifts)), memory(job[0], metric, weights))
        for job in files
        if not all(file.exists() for file in job[1:])
    ]


def work_off(jobs, label, most_workers=None, unit="tracks"):
    """Do `jobs`, several at a time in processes of one thread, as many as cores and memory allow."""
    if not jobs:
        return
    workers = min(most_workers or cores(), len(jobs), affordable([job.memory for job in jobs]))
    if most_workers == 1:
        list(progress(label, len(jobs), map(_work, jobs), unit=unit))
        return
    with processes(workers, one_thread) as pool:
        list(progress(label, len(jobs), pool.map(_work, jobs), unit=unit))


def affordable(needed):
    """How many jobs at once fit into free memory; needed: bytes of each."""
    return max(1, int(free_memory() // max(needed)))


def _work(job):
    job.work()


def versions():
    """The versions of scores and of the measures beside them, as about.json holds them."""
    return {"scores_version": bsseval.VERSION, "spectral_version": measures.VERSION}


def is_current(path, wanted):
    """Whether the JSON file at `path` exists and holds `wanted`, {name: value}; an absent version counts as 1."""
    if not path.exists():
        return False
    found = read_json(path)
    return all(found.get(name, 1 if "version" in name else None) == value for name, value in wanted.items())


def check_current(path, versions, notebook):
    """Raise `UserError`, which names the notebook to run again, if the file at `path` holds other `versions`."""
    if path.exists() and not is_current(path, versions):
        raise UserError(f"{path} is of another version of this program; run the notebook {notebook} again.")


def identity(tracks, weights, shifts):
    """The inputs that determine the estimates, as the files of results hold them."""
    model = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16] if weights else None
    return {
        "weights": model or f"mixture / {len(tracks[0].sources)}",
        "shifts": shifts,
        "tracks": [track.name for track in tracks],
        "sources": [track.source for track in tracks],
    }


def memory(track, metric="fast", weights=None):
    """Bytes that scoring `track` needs; arguments as of `pending`."""
    needed = 1e9 + (22e6 if metric == "museval" else 6e6) * track.samples / SAMPLERATE  # measured by benchmarks/bsseval
    return needed + (3 * Path(weights).stat().st_size if weights else 0)  # 3.4 GB at 64 channels


def one_thread():
    """Prepare a process for work that runs beside the like: one thread, and kept buffers."""
    torch.set_num_threads(1)
    keep_buffers()


def _evaluate_track(job):
    track, museval_file, spectral_file, weights, metric, shifts = job
    references, mixture = track.stems(), track.mixture()
    estimates = estimate(load_weights(weights) if weights else None, mixture, shifts, len(references))
    if not spectral_file.exists():
        measured = measures.measure(references, estimates, mixture)
        rows = [{name: rounded(value) for name, value in values.items()} for values in measured]
        write_json(spectral_file, dict(zip(track.sources, rows, strict=True)))
    if not museval_file.exists():
        write_bytes(museval_file, museval_json(*score(references, estimates, metric), track.sources).encode())


def estimate(model, mixture, shifts, sources=4):
    """Estimates (sources, channels, samples) of `mixture`; without a model, the mixture ÷ sources as every one."""
    if model is None:
        return np.repeat(mixture[None] / sources, sources, axis=0)
    return separate(prepare(model), mixture, shifts=shifts).numpy()


def rounded(value):
    """`value` as museval writes it: five decimals, NaN for infinity."""
    return round(float(value), 5) if np.isfinite(value) else float("nan")


def score(references, estimates, metric="fast"):
    """(SDR, ISR, SIR, SAR) in dB, each (sources, windows of 1 s), of arrays (sources, channels, samples).

    A source whose reference is silent throughout has NaN in every window, and no part in the others' scores.
    """
    arrays = [np.asarray(x, np.float64).transpose(0, 2, 1) for x in (references, estimates)]
    sounds = arrays[0].sum(-1).any(-1)
    arrays = [np.ascontiguousarray(x[sounds]) for x in arrays]
    if metric == "museval":
        import museval

        ratios = museval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)
    else:
        ratios = bsseval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)
    result = np.full((len(ratios), len(sounds), ratios[0].shape[1]), np.nan)
    result[:, sounds] = ratios
    return result


def museval_json(sdr, isr, sir, sar, sources=SOURCES):
    """The text of a museval result file; sources: names of the stems."""
    targets = []
    for s, source in enumerate(sources):
        columns = {"SDR": sdr[s], "SIR": sir[s], "SAR": sar[s], "ISR": isr[s]}
        rows = [{name: rounded(column[t]) for name, column in columns.items()} for t in range(len(sdr[s]))]
        frames = [{"time": float(t), "duration": 1.0, "metrics": row} for t, row in enumerate(rows)]
        targets.append({"name": source, "frames": frames})
    return json.dumps({"targets": targets}, indent=1)
