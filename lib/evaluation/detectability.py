"""Can a discriminator that no generator has trained against tell estimates from real stems?

`detectability` writes <run>/<arm>-<seed>/eval/<test set>/detectability.json: {"auc": {track: AUC}}, with the inputs
and the version of these values.
"""

import itertools
from pathlib import Path

import numpy as np
import torch

from lib.common.errors import UserError
from lib.common.files import write_json
from lib.common.progress import progress
from lib.common.provenance import made_by
from lib.data.tracks import SAMPLERATE
from lib.evaluation.probe import batches, build_adversary, pooled_logits
from lib.evaluation.score import estimate, identity, rounded
from lib.evaluation.versions import is_current
from lib.memorisation import auc
from lib.models.weights import load_weights

VERSION = 1  # of the AUCs; see lib.evaluation.versions
FOLDS, SEED = 2, 0
SECONDS = 30.0  # of each track, from its middle: all tracks are in memory at once
SEGMENT, STEPS, BATCH, WIDTH, LR = 0.5, 100, 8, 16, 3e-4  # of the discriminator's training; SEGMENT in seconds


def detectability(tracks, folder, *, weights=None, shifts=0):
    """Write `folder`/detectability.json, the `fresh_auc` of the estimates of `tracks`; arguments as of `evaluate_set`.

    A finished file of the same weights and version stays. A set of one track gets no file: there is no other track to
    learn from.
    """
    if len(tracks) < 2:
        return
    path = Path(folder) / "detectability.json"
    wanted = {"version": VERSION} | identity(tracks, weights, shifts)
    wanted |= {"folds": FOLDS, "seed": SEED, "seconds": SECONDS}
    if is_current(path, wanted):
        return
    model = load_weights(weights) if weights else None
    name = f"{path.parent.parent.parent.name}, estimates for a fresh discriminator"
    pairs = {}
    for track in progress(name, len(tracks), tracks):
        start = max(0, (track.samples - round(SECONDS * SAMPLERATE)) // 2)
        part = slice(start, start + round(SECONDS * SAMPLERATE))
        stems, mixture = track.stems()[..., part], track.mixture()[..., part]
        pairs[track.name] = stems, estimate(model, mixture, shifts)
    values = {track: rounded(value) for track, value in fresh_auc(pairs).items()}
    write_json(path, wanted | {"auc": values, "made_by": made_by()})


def fresh_auc(pairs):
    """{track: AUC} of a freshly trained discriminator; 0.5: real and generated stems look alike to it, 1: never.

    pairs: {track: (stems, estimates)}, arrays (sources, channels, samples). Cross-validated by track: a discriminator
    judges each track after training, with joint augmentation, on the tracks of the other folds. Raises `UserError` for
    fewer tracks than folds, or a track shorter than a segment.
    """
    if len(pairs) < FOLDS:
        raise UserError(f"{len(pairs)} track(s) cannot be split into {FOLDS} folds; evaluate more tracks.")
    segments = {name: _segments(*pair) for name, pair in pairs.items()}
    for name, (stems, _) in segments.items():
        if not len(stems):
            raise UserError(f"Track {name} is shorter than a segment of {SEGMENT} s; choose shorter segments.")
    found = {}
    for fold in range(FOLDS):
        unseen = list(pairs)[fold::FOLDS]
        seen = [segments[name] for name in pairs if name not in unseen]
        stems, estimates = (torch.cat(parts) for parts in zip(*seen, strict=True))
        adversary = build_adversary(SEED, BATCH, WIDTH, LR, augment_p=0.5)
        for step, chosen in enumerate(itertools.islice(batches(len(stems), BATCH, SEED), STEPS)):
            adversary.discriminator_step(step, stems[chosen], estimates[chosen])
        for name in unseen:
            found[name] = float(auc(*pooled_logits(adversary, segments[name])))
    return {name: found[name] for name in pairs}


def _segments(stems, estimates):
    """Segments (count, sources, channels, samples) of a track's stems and estimates, at its mixture's level."""
    stems, estimates = (torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (stems, estimates))
    level, samples = stems.sum(0).std().clamp(min=1e-6), round(SEGMENT * SAMPLERATE)
    count = stems.shape[-1] // samples
    return [
        (x[..., : count * samples] / level).unflatten(-1, (count, samples)).permute(2, 0, 1, 3)
        for x in (stems, estimates)
    ]
