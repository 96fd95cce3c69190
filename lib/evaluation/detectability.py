"""Can a discriminator that no generator has trained against tell estimates from real stems?"""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.files import write_json
from lib.common.provenance import made_by
from lib.data.tracks import SAMPLERATE, SOURCES
from lib.evaluation.probe import batches, build_adversary, pooled_logits
from lib.evaluation.score import Job, estimate, identity, is_current, rounded
from lib.memorisation import auc
from lib.models.weights import load_weights

VERSION = 1  # of the AUCs; see lib.evaluation.score
FOLDS, SEED = 2, 0
SECONDS = 30.0  # of each track, from its middle: all tracks are in memory at once
SEGMENT, STEPS, BATCH, WIDTH, LR = 0.5, 100, 8, 16, 3e-4  # of the discriminator's training; SEGMENT in seconds


def pending(tracks, folder, *, weights=None, shifts=0):
    """The job, if it is left, that writes `folder`/detectability.json, in a list.

    The file holds {"auc": `fresh_auc` of the estimates of `tracks`}, their inputs and version. Arguments as of
    `lib.evaluation.score.pending`. A set of one track gets no file: there is no other track to learn from.
    """
    path = Path(folder) / "detectability.json"
    wanted = {"version": VERSION} | identity(tracks, weights, shifts)
    wanted |= {"folds": FOLDS, "seed": SEED, "seconds": SECONDS}
    if len(tracks) < 2 or is_current(path, wanted):
        return []
    samples = min(SECONDS * SAMPLERATE, max(track.samples for track in tracks))
    memory = 1e9 + 64 * samples * len(tracks)  # stems and estimates, twice
    return [Job(partial(_detect, tracks, path, wanted, weights, shifts), memory)]


def _detect(tracks, path, wanted, weights, shifts):
    model, samples = load_weights(weights) if weights else None, round(SECONDS * SAMPLERATE)
    pairs = {}
    for track in tracks:
        start = max(0, (track.samples - samples) // 2)
        part = slice(start, start + samples)
        stems, mixture = track.stems()[..., part], track.mixture()[..., part]
        pairs[track.name] = stems, estimate(model, mixture, shifts, len(stems))
    values = {track: rounded(value) for track, value in fresh_auc(pairs, tracks[0].sources).items()}
    write_json(path, wanted | {"auc": values, "made_by": made_by()})


def fresh_auc(pairs, names=SOURCES):
    """{track: AUC} of a freshly trained discriminator; 0.5: real and generated stems look alike to it, 1: never.

    pairs: {track: (stems, estimates)}, arrays (sources, channels, samples); names: of the stems. A discriminator judges
    each track after training, with joint augmentation, on the other folds' tracks. Raises `UserError` for fewer tracks
    than folds, or a track below one segment.
    """
    if len(pairs) < FOLDS:
        raise UserError(f"Tracks for a fresh discriminator: {len(pairs)}, fewer than its {FOLDS} folds; evaluate more.")
    for name, (stems, _) in pairs.items():
        if stems.shape[-1] < round(SEGMENT * SAMPLERATE):
            raise UserError(f"Track {name} is shorter than a segment of {SEGMENT} s; choose shorter segments.")
    segments, found = {name: _segments(*pair) for name, pair in pairs.items()}, {}
    for fold in range(FOLDS):
        unseen = list(pairs)[fold::FOLDS]
        seen = [segments[name] for name in pairs if name not in unseen]
        stems, estimates = (torch.cat(parts) for parts in zip(*seen, strict=True))
        adversary = build_adversary(SEED, BATCH, WIDTH, LR, stems=[*names], augment_p=0.5)
        for step, chosen in enumerate(itertools.islice(batches(len(stems), BATCH, SEED), STEPS)):
            adversary.discriminator_step(step, adversary.inputs(step, stems[chosen], estimates[chosen]))
        for name in unseen:
            found[name] = float(auc(*pooled_logits(adversary, segments[name])))
    return {name: found[name] for name in pairs}


def _segments(stems, estimates):
    """Segments (count, sources, channels, samples) of a track's stems and estimates, at its mixture's level."""
    stems, estimates = (torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (stems, estimates))
    level, samples = stems.sum(0).std().clamp(min=1e-6), round(SEGMENT * SAMPLERATE)
    return [(x / level).unfold(-1, samples, samples).permute(2, 0, 1, 3) for x in (stems, estimates)]
