"""Score estimates of a test set: one museval JSON file per track.

A finished track is skipped on a re-run; tracks are scored in parallel processes. `about.json` beside the files says
which tracks belong to the set, which program computed the figures, of which weights, and on which machine.
"""

import hashlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from lib import bsseval
from lib.data import SAMPLERATE, SOURCES
from lib.demucs import load_weights
from lib.errors import UserError
from lib.files import read_json, write_bytes, write_json
from lib.progress import progress
from lib.provenance import made_by
from lib.separate import separate

METRICS = ("fast", "museval")


def evaluate_set(tracks, folder, *, weights=None, metric="fast", shifts=0, workers=None):
    """Score every one of `tracks` (`data.Track`s) into `folder`/NAME.json.

    weights: a model.safetensors, or None for the mixture ÷ 4 as every estimate. metric: "fast" (`lib.bsseval`) or
    "museval". Results of other weights, another metric or other tracks in `folder` are replaced.
    Raises `UserError` for a test set without tracks or an unknown metric.
    """
    folder = Path(folder)
    if metric not in METRICS:
        raise UserError(f"metric = {metric!r} is unknown; choose one of {', '.join(METRICS)}.")
    if not tracks:
        raise UserError(f"There is no track to evaluate for {folder}; the data index holds none in this set.")
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16] if weights else "mixture / 4"
    wanted = {
        "metric": metric,
        "weights": digest,
        "shifts": shifts,
        "tracks": [track.name for track in tracks],
        "sources": [track.source for track in tracks],
    }
    about = read_json(folder / "about.json") if (folder / "about.json").exists() else {}
    if {name: about.get(name) for name in wanted} != wanted:
        for stale in folder.glob("*.json"):
            stale.unlink()
        write_json(folder / "about.json", wanted | {"made_by": made_by()})
    missing = [track for track in tracks if not _file(folder, track).exists()]
    if not missing:
        return
    jobs = [(track, _file(folder, track), weights, metric, shifts) for track in missing]
    workers = min(workers or os.cpu_count(), len(jobs), _affordable(missing, metric))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _initialise) as pool:
        list(progress(f"{folder.parent.parent.name} on {folder.name}", len(jobs), pool.map(_evaluate_track, jobs)))


def _affordable(tracks, metric):
    """How many tracks at once fit into free memory: each takes a process, and the metric's memory per second of
    audio (measured by benchmarks/bsseval.py)."""
    longest = max(track.samples for track in tracks) / SAMPLERATE
    needed = 1e9 + (22e6 if metric == "museval" else 6e6) * longest
    return max(1, int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // needed))


def _file(folder, track):
    return folder / f"{track.name}.json"


def _initialise():
    torch.set_num_threads(1)  # the tracks are what runs in parallel


def _evaluate_track(job):
    track, path, weights, metric, shifts = job
    references, mixture = track.stems(), track.mixture()
    if weights:
        estimates = separate(load_weights(weights), mixture, shifts=shifts).numpy()
    else:
        estimates = np.broadcast_to(mixture / len(SOURCES), references.shape)
    write_bytes(path, museval_json(*score(references, estimates, metric)).encode())


def score(references, estimates, metric="fast"):
    """(SDR, ISR, SIR, SAR) in dB, each (sources, windows of 1 s), of arrays (sources, channels, samples)."""
    arrays = [np.ascontiguousarray(np.asarray(x, np.float64).transpose(0, 2, 1)) for x in (references, estimates)]
    if metric == "museval":
        import museval

        return museval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)
    return bsseval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)


def museval_json(sdr, isr, sir, sar):
    """The text of a museval result file; as there, infinite figures become NaN and five decimals are kept."""

    def number(value):
        return round(float(value), 5) if np.isfinite(value) else float("nan")

    targets = [
        {
            "name": source,
            "frames": [
                {
                    "time": float(t),
                    "duration": 1.0,
                    "metrics": {
                        name: number(values[s, t])
                        for name, values in (("SDR", sdr), ("SIR", sir), ("SAR", sar), ("ISR", isr))
                    },
                }
                for t in range(sdr.shape[1])
            ],
        }
        for s, source in enumerate(SOURCES)
    ]
    return json.dumps({"targets": targets}, indent=1)
