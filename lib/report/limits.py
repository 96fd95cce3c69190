"""What the values of the notebooks' parameters may be: said before the first notebook runs, not after an hour.

Every part of the program refuses what it cannot use. This asks all of them at once, with networks that take no memory
and tracks that hold no samples.
"""

import dataclasses
import math
import re
import reprlib
from pathlib import Path

from lib import corpus
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.config import Config
from lib.data.batches import Batches
from lib.data.tracks import SAMPLERATE, SOURCES, Excerpts, Track
from lib.evaluation.probe import CURES, check_cells
from lib.evaluation.results import ARMS
from lib.evaluation.score import METRICS
from lib.runs.build import build_on_meta
from lib.runs.launch import check_machines

MOST = 1e9  # of anything: more is a slip of the hand, and beyond what torch can count
ABOVE_0 = (
    "listen_seconds pretrain_steps arm_steps lr_branch probe_segments "
    "probe_steps probe_seconds probe_error probe_width probe_lr song_seconds explore_seconds"
)
NOT_NEGATIVE = "show_track arm_tracks shifts probe_cures_at listen_tracks song_start"
NOT_EMPTY = "seeds arms probe_segments probe_seeds listen_tracks listen_stems"
SEEDS = ("seed", "corpus_seed", "seeds", "probe_seeds")
RANGES = (
    dict.fromkeys(("train_tracks", "valid_tracks", "test_tracks"), (1, 10_000))
    | {"shifted_tracks": (0, 10_000), "track_seconds": corpus.SECONDS}
    | dict.fromkeys(SEEDS, corpus.SEEDS)
)
CHOICES = {
    "arms": tuple(arm for arm in ARMS if arm != "mixture"),
    "metric": METRICS,
    "probe_cures": tuple(CURES),
    "listen_stems": SOURCES,
    "detail_stem": SOURCES,
}
RESERVED = ("reference", "pictures")  # folders of results/ that are no runs


def check_values(parameters):
    """Refuse values that no notebook can use, and those that do not go together.

    parameters: {name: value}, each of its type; what is not given is not looked at. Raises `UserError`, which names
    the parameter and what it may be.
    """
    for names, good, what in (
        (ABOVE_0, lambda value: value > 0, "above 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "at least 0"),
    ):
        for name in names.split():
            _require(name, parameters.get(name), good, what)
    for name in sorted(parameters.keys() - set(SEEDS)):
        _require(name, parameters[name], lambda x: not (isinstance(x, int | float) and x > MOST), f"at most {MOST:g}")
    for name in NOT_EMPTY.split():
        if parameters.get(name) == []:
            raise UserError(f"{name} = [] must hold at least one value.")
    for name, (low, high) in RANGES.items():
        _require(name, parameters.get(name), lambda value, low=low, high=high: low <= value <= high, f"{low} to {high}")
    for name, choices in CHOICES.items():
        _require(name, parameters.get(name), choices.__contains__, f"among {', '.join(choices)}")
    _check_places(parameters)
    _check_training(parameters)
    _check_order(parameters)


def _require(name, value, good, what):
    """Raise `UserError` unless `good` is true of `value`, or of each of its elements; None stands for no value."""
    for item in value if isinstance(value, list) else [value]:
        if item is not None and not good(item):
            raise UserError(f"{name} = {reprlib.repr(value)} must be {what}.")


def _check_places(p):
    run = p.get("run", "quick")
    if not re.fullmatch(r"\w[\w .+-]*", run) or run in RESERVED:
        raise UserError(f"run = {run!r} must be a folder's name, without '/', and not {' or '.join(RESERVED)}.")
    for name in ("soundfont", "song"):
        if p.get(name) and not (ROOT / Path(p[name]).expanduser()).is_file():
            raise UserError(f"{name} = {p[name]!r} is no file; give the path of one, from the repository or from /.")
    for label, path in p.get("museval_folders", {}).items():
        if not isinstance(path, str) or not (ROOT / path).is_dir():
            raise UserError(f"museval_folders: {label!r} names {path!r}, which is no folder; correct or remove it.")


def _check_training(p):
    """The parameters of 02-train by the program's own checks; with a composed corpus, also against its tracks."""
    fields = {field.name for field in dataclasses.fields(Config)}
    config = Config(data="", **{name: value for name, value in p.items() if name in fields})
    if "cures" in p:
        Config.from_dict(dataclasses.asdict(config) | p["cures"])
    nproc, nnodes = p.get("nproc", 1), p.get("nnodes", 1)
    check_machines(nproc, nnodes, p.get("rdzv_endpoint", ""))
    if "batch" not in p:  # 02-train is not among the notebooks
        return
    generator = build_on_meta(config)
    shift = round(config.shift_seconds * SAMPLERATE)
    needed = generator.valid_length(round(config.seconds * SAMPLERATE)) + shift
    composed = p.get("musdb_root") == "embedded"
    count, length = (p["train_tracks"], p["track_seconds"]) if composed else (10**5, math.ceil(needed / SAMPLERATE) + 1)
    tracks = [_silence(length)] * count
    excerpts = Excerpts(tracks[: p.get("arm_tracks") or None], needed, round(config.stride_seconds * SAMPLERATE))
    Batches(
        excerpts, batch=config.batch, shift=shift, remix_group=config.remix_group, seed=[0], world_size=nproc * nnodes
    )
    if composed and "probe_segments" in p:
        cells = [(segments, "none", 0) for segments in p["probe_segments"]]
        check_cells(cells, tracks, generator, p["probe_seconds"])


def _silence(seconds):
    return Track(
        name="1 of the composed corpus", path="", samples=round(seconds * SAMPLERATE), mean=0.0, std=1.0, source=""
    )


def _check_order(p):
    """What one notebook looks at, another must have made."""
    if p.get("musdb_root") == "embedded":
        for name, of in (("show_track", "train_tracks"), ("listen_tracks", "test_tracks")):
            if name in p and of in p:
                _require(name, p[name], lambda value, of=of: value < p[of], f"below {of} = {p[of]}")
    if {"arms", "seeds", "arm", "cured"} <= set(p):
        gan_runs = [f"{arm}-{seed}" for arm in p["arms"] if arm != "l1" for seed in p["seeds"]]
        for name in ("arm", "cured"):
            if p[name] not in gan_runs:
                raise UserError(
                    f"{name} = {p[name]!r}, which 04-discriminator looks at, is none of the runs with a discriminator "
                    f"that arms and seeds ask for ({', '.join(gan_runs) or 'none'}); change one of them."
                )
