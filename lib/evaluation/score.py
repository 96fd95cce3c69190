"""Score estimates of a test set: one museval JSON file per track, one of naturalness, and one for the whole set.

    <folder>/<track>.json               BSSEval v4, as museval writes it
    <folder>/spectral/<track>.json   {stem: {measure: value}}, measures of `lib.evaluation.spectral`
    <folder>/detectability.json         {"auc": {track: value}}: how well a fresh discriminator tells the estimates
    <folder>/about.json                 which tracks, which program computed the figures, of which weights, where

A finished file is not made again on a re-run; tracks are scored in parallel processes.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.files import read_json, write_bytes, write_json
from lib.common.processes import workers as processes
from lib.common.progress import progress
from lib.common.provenance import made_by
from lib.data.tracks import SAMPLERATE, SOURCES
from lib.evaluation import bsseval
from lib.evaluation.probe import fresh_auc
from lib.evaluation.results import NO_TRACKS
from lib.evaluation.spectral import spectral_measures
from lib.models.cpu.prepare import keep_buffers, prepare
from lib.models.weights import load_weights
from lib.separate import separate

METRICS = ("fast", "museval")


def evaluate_set(tracks, folder, *, weights=None, metric="fast", shifts=0, workers=None):
    """Score every one of `tracks` (`data.Track`s) into `folder`.

    weights: a model.safetensors, or None for the mixture ÷ 4 as every estimate. metric: "fast"
    (`lib.evaluation.bsseval`) or "museval". Results of other weights, another metric or other tracks in `folder` are
    replaced. Raises `UserError` for a test set without tracks, a track named like another file, or an unknown metric.
    """
    folder = Path(folder)
    if metric not in METRICS:
        raise UserError(f"metric = {metric!r} is unknown; choose one of {', '.join(METRICS)}.")
    if not tracks:
        raise UserError(f"There is no track to evaluate for {folder}; the data index holds none in this set.")
    if taken := [track.name for track in tracks if track.name in NO_TRACKS]:
        raise UserError(f"A test track cannot be called {taken[0]!r}, as a file of the results is; rename it.")
    identity = _identity(tracks, weights, shifts)
    wanted = {"metric": metric} | identity
    if not _is_of(folder / "about.json", wanted):
        stale = {*folder.glob("*.json"), *folder.glob("spectral/*.json")}
        if _is_of(folder / "detectability.json", identity):  # dear, and of no metric
            stale.remove(folder / "detectability.json")
        for file in stale:
            file.unlink()
        write_json(folder / "about.json", wanted | {"made_by": made_by()})
    missing = [track for track in tracks if not all(file.exists() for file in _files(folder, track))]
    if not missing:
        return
    jobs = [(track, *_files(folder, track), weights, metric, shifts) for track in missing]
    workers = min(workers or os.cpu_count(), len(jobs), _affordable(missing, metric, weights))
    with processes(workers, _initialise) as pool:
        list(progress(f"{folder.parent.parent.name} on {folder.name}", len(jobs), pool.map(_evaluate_track, jobs)))


def detectability(tracks, folder, *, weights=None, shifts=0, folds=2, seed=0, seconds=30.0):
    """Write `folder`/detectability.json: the held-out AUC of a freshly trained discriminator on each of `tracks`.

    0.5: real and estimated stems cannot be told apart; 1: always. The discriminator (`lib.evaluation.probe.fresh_auc`)
    is trained anew on the other tracks' real and estimated stems, in `folds` parts (at most one per track). Of each
    track the middle `seconds` are used: all tracks are in memory at once. Other arguments as in `evaluate_set`. A
    finished file of the same weights and arguments stays; a set of one track has no other tracks to learn from and gets
    no file.
    """
    if len(tracks) < 2:
        return
    path = Path(folder) / "detectability.json"
    wanted = _identity(tracks, weights, shifts) | {"folds": min(folds, len(tracks)), "seed": seed, "seconds": seconds}
    if _is_of(path, wanted):
        return
    model = load_weights(weights) if weights else None
    name = f"{path.parent.parent.parent.name}, estimates for a fresh discriminator"
    pairs = {}
    for track in progress(name, len(tracks), tracks):
        start = max(0, (track.samples - round(seconds * SAMPLERATE)) // 2)
        part = slice(start, start + round(seconds * SAMPLERATE))
        stems, mixture = track.stems()[..., part], track.mixture()[..., part]
        pairs[track.name] = stems, _estimates(model, mixture, shifts)
    auc = fresh_auc(pairs, folds=wanted["folds"], seed=seed)
    write_json(path, wanted | {"auc": {track: _number(value) for track, value in auc.items()}, "made_by": made_by()})


def _identity(tracks, weights, shifts):
    """What the estimates depend on."""
    return {
        "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16] if weights else "mixture / 4",
        "shifts": shifts,
        "tracks": [track.name for track in tracks],
        "sources": [track.source for track in tracks],
    }


def _is_of(path, wanted):
    """Whether the file at `path` says that it was made of `wanted`."""
    about = read_json(path) if path.exists() else {}
    return {name: about.get(name) for name in wanted} == wanted


def _affordable(tracks, metric, weights):
    """How many tracks at once fit into free memory: each takes a process, the metric's memory per second of audio
    (measured by benchmarks/bsseval.py), and the network's, three times its weights (3.4 GB at 64 channels)."""
    longest = max(track.samples for track in tracks) / SAMPLERATE
    needed = 1e9 + (22e6 if metric == "museval" else 6e6) * longest
    needed += 3 * Path(weights).stat().st_size if weights else 0
    return max(1, int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // needed))


def _files(folder, track):
    return folder / f"{track.name}.json", folder / "spectral" / f"{track.name}.json"


def _initialise():
    torch.set_num_threads(1)  # the tracks are what runs in parallel
    keep_buffers()


def _evaluate_track(job):
    track, museval_file, spectral_file, weights, metric, shifts = job
    references, mixture = track.stems(), track.mixture()
    estimates = _estimates(load_weights(weights) if weights else None, mixture, shifts)
    if not spectral_file.exists():
        rows = {}
        for source, estimate, reference in zip(SOURCES, estimates, references, strict=True):
            rows[source] = {name: _number(value) for name, value in spectral_measures(estimate, reference).items()}
        write_json(spectral_file, rows)
    if not museval_file.exists():
        write_bytes(museval_file, museval_json(*score(references, estimates, metric)).encode())


def _estimates(model, mixture, shifts):
    """Estimates (sources, channels, samples) of `mixture`; without a model the mixture ÷ 4 as every one."""
    if model is None:
        return np.repeat(mixture[None] / len(SOURCES), len(SOURCES), axis=0)
    return separate(prepare(model), mixture, shifts=shifts).numpy()


def _number(value):
    """As museval writes it: infinite figures become NaN and five decimals are kept."""
    return round(float(value), 5) if np.isfinite(value) else float("nan")


def score(references, estimates, metric="fast"):
    """(SDR, ISR, SIR, SAR) in dB, each (sources, windows of 1 s), of arrays (sources, channels, samples)."""
    arrays = [np.ascontiguousarray(np.asarray(x, np.float64).transpose(0, 2, 1)) for x in (references, estimates)]
    if metric == "museval":
        import museval

        return museval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)
    return bsseval.evaluate(*arrays, win=SAMPLERATE, hop=SAMPLERATE)


def museval_json(sdr, isr, sir, sar):
    """The text of a museval result file."""
    targets = [
        {
            "name": source,
            "frames": [
                {
                    "time": float(t),
                    "duration": 1.0,
                    "metrics": {
                        name: _number(values[s, t])
                        for name, values in (("SDR", sdr), ("SIR", sir), ("SAR", sar), ("ISR", isr))
                    },
                }
                for t in range(sdr.shape[1])
            ],
        }
        for s, source in enumerate(SOURCES)
    ]
    return json.dumps({"targets": targets}, indent=1)
