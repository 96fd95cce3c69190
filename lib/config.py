"""All parameters of a training run, in one place.

Notebook parameters, command-line words and config.json all become this dataclass; there is no other form.
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.data.tracks import SAMPLERATE
from lib.discriminator import DISCRIMINATORS
from lib.losses import GAN_LOSSES
from lib.models.generators import GENERATORS


@dataclass(kw_only=True)
class Config:
    """All parameters of one run; the defaults are those of Demucs v1's paper. Raises `UserError` on a bad value."""

    data: str  # index written by 01-data, relative to the repository
    start_from: str = ""  # folder of the run whose last state this one branches from
    tracks: int = 0  # only the first so many training tracks; 0: all
    seed: int = 42  # of initialisation, data order and augmentation
    steps: int = 75_000  # optimizer steps
    batch: int = 64  # excerpts per step over all processes
    micro_batch: int = 0  # at a time on one process, to save memory, for one more forward; 0: its whole part
    precision: str = "fp32"  # of the generator's layers: fp32, or bf16 where a test of each layer allows it
    compile: bool = False  # the generator by torch.compile: minutes at the start, pays in long runs on GPUs
    lr: float = 3e-4  # Adam, at the first step
    lr_final: float = 3e-4  # at the last step; cosine in between
    generator: str = "demucs"  # demucs, conv_tasnet or hdemucs; what its sizes mean to each: lib/models/generators.py
    channels: int = 100  # of the first layer; doubles with each
    depth: int = 6  # encoder and decoder layers
    lstm_layers: int = 2
    # excerpts
    seconds: float = 10.0  # of output; the input is longer by the context
    shift_seconds: float = 1.0  # largest random shift of a stem
    stride_seconds: float = 1.0  # between the starts of excerpts
    remix_group: int = 4  # stems are permuted within groups of this size; 0: not at all
    projection: bool = False  # the estimates' sum is made the mixture, by an equal share to each
    ema: float = 0.0  # decay of the running mean of the generator's weights that is evaluated and kept; 0: none
    # adversarial part: played when one of the first two is above 0
    adversarial_weight: float = 0.0  # against L1's 1; pix2pix has 0.01 (λ = 100)
    adversarial_share: float = 0.0  # above 0, instead: share of the gradient at the estimates, kept by a balancer
    adversarial_loss: str = "bce"  # bce, lsgan or hinge
    feature_matching: float = 0.0  # weight of feature matching within the adversarial part
    adversarial_start: int = 0  # until this step only the discriminator plays; the generator learns from L1
    adversarial_ramp: int = 0  # steps over which the weight or share then grows to its full value
    discriminator: str = "patch"  # patch, patch_pix2pix (pix2pix's own kernel), msstft or mpd
    discriminator_width: int = 64  # channels of its first layer
    discriminator_lr: float = 3e-4  # Adam
    discriminator_updates: float = 1.0  # chance that a step updates it
    # cures of an overfitting or dominating discriminator
    augment_p: float = 0.0  # chance of each joint augmentation; its first value where there is a target
    augment_target: float = 0.0  # r_v (σ) on held-out tracks that p is driven to; 0: p stays
    augment_steps: int = 1000  # in which a driven p goes from 0 to 1
    r1: float = 0.0  # γ of the penalty on the gradient by recorded stems
    r1_every: int = 16  # steps between its (accordingly larger) doses
    lecam: float = 0.0  # weight of LeCam's regulariser
    instance_noise: float = 0.0  # on all stems that it sees, relative to the mixture's standard deviation
    dither: float = 0.0  # the same on recorded and generated stems, and its sum on the mixture
    spectral_norm: bool = False  # of its convolutions
    dropout: float = 0.0  # of its channels
    discriminator_patience: int = 0  # evaluations without a lower held-out BCE until it stops learning; 0: never
    # evaluation
    evaluate_every: int = 313  # steps between evaluations and checkpoints
    evaluation_excerpts: int = 64  # of training tracks, and as many of held-out tracks
    keep: str = "last"  # weights written at the end: last, or best (lowest held-out L1)
    keep_states: int = 1  # checkpoints: the last, and with 2 or more so many as state-<step>.pt
    # filled in by the trainer: what `data` and `start_from` held
    data_digest: str = ""
    start_digest: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float" or field.type is float:
                if isinstance(value, int) and not isinstance(value, bool):
                    value = float(value) if abs(value) < sys.float_info.max else math.inf
                    setattr(self, field.name, value)
                if not isinstance(value, float) or not math.isfinite(value):
                    raise UserError(f"{field.name} = {value!r} must be a finite number.")
            elif not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):
                raise UserError(f"{field.name} = {value!r} must be of type {field.type.__name__}.")
        positive = (
            "steps",
            "batch",
            "lr",
            "channels",
            "depth",
            "seconds",
            "stride_seconds",
            "discriminator_width",
            "discriminator_lr",
            "augment_steps",
            "r1_every",
            "evaluate_every",
            "evaluation_excerpts",
            "keep_states",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} = {getattr(self, name)} must be above 0.")
        for name in (
            "tracks",
            "seed",
            "micro_batch",
            "lr_final",
            "lstm_layers",
            "shift_seconds",
            "remix_group",
            "adversarial_weight",
            "feature_matching",
            "adversarial_start",
            "adversarial_ramp",
            "r1",
            "lecam",
            "instance_noise",
            "dither",
            "discriminator_patience",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"{name} = {getattr(self, name)} must not be negative.")
        for name in ("seconds", "stride_seconds"):
            if getattr(self, name) * SAMPLERATE < 1:
                raise UserError(f"{name} = {getattr(self, name)} must be at least one sample, 1/{SAMPLERATE} s.")
        if self.seed >= 2**32:
            raise UserError(f"seed = {self.seed} must be below 2^32.")
        for name in ("ema", "adversarial_share", "dropout", "augment_p", "augment_target", "discriminator_updates"):
            value, full = getattr(self, name), name.startswith("augment") or name == "discriminator_updates"
            if not 0 <= value <= 1 or (value == 1 and not full):
                raise UserError(f"{name} = {value} must be at least 0 and {'at most' if full else 'below'} 1.")
        for name, choices in (
            ("keep", ("last", "best")),
            ("precision", ("fp32", "bf16")),
            ("generator", GENERATORS),
            ("discriminator", DISCRIMINATORS),
            ("adversarial_loss", GAN_LOSSES),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} = {getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}.")

    @property
    def adversarial(self):
        """Whether there is a discriminator."""
        return bool(self.adversarial_weight or self.adversarial_share)

    @classmethod
    def from_dict(cls, values):
        """A Config of a dictionary; raises `UserError` for an unknown or a missing name."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"Unknown training parameter {', '.join(sorted(unknown))}; all names are in lib/config.py.")
        if "data" not in values:
            raise UserError("Training parameter data is missing: the index that 01-data wrote.")
        return cls(**values)


def read_note(folder):
    """What a run's config.json holds: {"config": parameters, "made_by", "finished"}; {} where there is none.

    Raises `UserError` when it is malformed.
    """
    path = Path(folder, "config.json")
    note = read_json(path) if path.exists() else {}
    if note != {} and not (isinstance(note, dict) and isinstance(note.get("config"), dict)):
        raise UserError(f"{path} is not the config.json of a run; restore or remove it.")
    return note


def parse(pairs, folder):
    """The Config of `name=value` words over those of the folder's config.json; raises `UserError` on a bad word."""
    values = read_note(folder).get("config", {})
    kinds = {field.name: field.type for field in dataclasses.fields(Config)}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in kinds:
            raise UserError(f"{pair!r} is not a parameter; write name=value, with a name of lib/config.py's Config.")
        try:
            values[name] = _value(kinds[name], text)
        except ValueError as error:
            raise UserError(f"{name} = {text!r} must be of type {kinds[name].__name__}.") from error
    return Config.from_dict(values)


def _value(kind, text):
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
