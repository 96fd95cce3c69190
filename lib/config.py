"""All parameters of a training run, in one place.

Notebook parameters, command-line words and config.json all become this dataclass; there is no other form.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from lib.discriminator import DISCRIMINATORS
from lib.errors import UserError
from lib.files import read_json


@dataclass(kw_only=True)
class Config:
    """All parameters of one run; the defaults are those of Demucs v1's paper. Raises `UserError` on a bad value."""

    data: str  # index written by 01-data, relative to the repository
    start_from: str = ""  # folder of the run whose last state this one branches from
    seed: int = 42  # of initialisation, data order and augmentation
    steps: int = 75_000  # optimizer steps
    batch: int = 64  # excerpts per step over all processes
    lr: float = 3e-4  # Adam, at the first step
    lr_final: float = 3e-4  # at the last step; cosine in between
    # generator
    channels: int = 100  # of the first layer; doubles with each
    depth: int = 6  # encoder and decoder layers
    lstm_layers: int = 2
    # excerpts
    seconds: float = 10.0  # of output; the input is longer by the context
    shift_seconds: float = 1.0  # largest random shift of a stem
    stride_seconds: float = 1.0  # between the starts of excerpts
    remix_group: int = 4  # stems are permuted within groups of this size; 0: not at all
    # adversarial part
    adversarial_weight: float = 0.0  # against L1's 1; pix2pix has 0.01 (λ = 100); 0: no discriminator
    adversarial_start: int = 0  # until this step only the discriminator plays; the generator learns from L1
    adversarial_ramp: int = 0  # steps over which the weight then grows to its full value
    discriminator: str = "patch"  # patch: wide kernels, 255 ms; patch_pix2pix: pix2pix's own, 1.6 ms
    discriminator_width: int = 64  # channels of its first layer
    discriminator_lr: float = 3e-4  # Adam
    # evaluation
    evaluate_every: int = 313  # steps between evaluations and checkpoints
    evaluation_excerpts: int = 64  # of training tracks, and as many of held-out tracks
    keep: str = "last"  # weights written at the end: last, or best (lowest held-out L1)
    # filled in by the trainer: what `data` and `start_from` held
    data_digest: str = ""
    start_digest: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float" or field.type is float:
                if isinstance(value, int) and not isinstance(value, bool):
                    value = float(value)
                    setattr(self, field.name, value)
                if not isinstance(value, float) or not math.isfinite(value):
                    raise UserError(f"{field.name} = {value!r} must be a finite number.")
            elif not isinstance(value, field.type) or isinstance(value, bool):
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
            "evaluate_every",
            "evaluation_excerpts",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise UserError(f"{name} = {getattr(self, name)} must be above 0.")
        for name in (
            "seed",
            "lr_final",
            "lstm_layers",
            "shift_seconds",
            "remix_group",
            "adversarial_weight",
            "adversarial_start",
            "adversarial_ramp",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"{name} = {getattr(self, name)} must not be negative.")
        if self.keep not in ("last", "best"):
            raise UserError(f"keep = {self.keep!r} must be last or best.")
        if self.discriminator not in DISCRIMINATORS:
            raise UserError(
                f"discriminator = {self.discriminator!r} is unknown; choose one of {', '.join(DISCRIMINATORS)}."
            )

    @classmethod
    def from_dict(cls, values):
        """A Config of a dictionary; raises `UserError` for an unknown or a missing name."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise UserError(f"Unknown training parameter {', '.join(sorted(unknown))}; see lib/train.py for all names.")
        if "data" not in values:
            raise UserError("Training parameter data is missing: the index that 01-data wrote.")
        return cls(**values)


def parse(pairs, folder):
    """The Config of `name=value` words over those of the folder's config.json; raises `UserError` on a bad word."""
    note = Path(folder, "config.json")
    values = read_json(note)["config"] if note.exists() else {}
    kinds = {field.name: field.type for field in dataclasses.fields(Config)}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in kinds:
            raise UserError(f"{pair!r} is not a parameter; write name=value, with a name of lib/train.py's Config.")
        try:
            values[name] = kinds[name](text)
        except ValueError as error:
            raise UserError(f"{name} = {text!r} must be of type {kinds[name].__name__}.") from error
    return Config.from_dict(values)
