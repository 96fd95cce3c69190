"""All parameters of a training run, in one place.

Notebook parameters, command-line words and config.json all become this dataclass. A new parameter takes one line: its
default, its range if it has one, and a comment that explains it.
"""

import dataclasses
import math
import reprlib
import sys
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.data.tracks import SAMPLERATE, SOURCES, check_stems
from lib.discriminator import DISCRIMINATORS
from lib.losses import GAN_LOSSES
from lib.models.generators import GENERATORS

# A rule: a test of the value, and how the error message ends if it fails.
ABOVE_0 = (lambda value: value > 0, "must be above 0")
NOT_NEGATIVE = (lambda value: value >= 0, "must not be negative")
SHARE = (lambda value: 0 <= value <= 1, "must be at least 0 and at most 1")
BELOW_1 = (lambda value: 0 <= value < 1, "must be at least 0 and below 1")
ONE_SAMPLE = (lambda value: value * SAMPLERATE >= 1, f"must be at least one sample, 1/{SAMPLERATE} s")
BELOW_2_32 = (lambda value: value < 2**32, "must be below 2^32")


def one_of(choices):
    """The rule that a value is one of `choices`."""
    return (lambda value: value in choices), f"is unknown; choose one of {', '.join(choices)}"


def require(name, value, *rules):
    """Raise `UserError` unless `value`, or each element of a list, keeps all `rules`."""
    for allowed, says in rules:
        if not all(map(allowed, value if isinstance(value, list) else [value])):
            raise UserError(f"{name} = {reprlib.repr(value)} {says}.")


def parameter(default, *rules):
    """A dataclass field with a default, and the rules that its value must keep."""
    return dataclasses.field(default=default, metadata={"rules": rules})


@dataclasses.dataclass(kw_only=True)
class Config:
    """All parameters of one run, with the defaults of Demucs v1's paper. Raises `UserError` on a bad value."""

    data: str  # index written by 01-data, relative to the repository
    start_from: str = ""  # folder of a run whose last state this one branches from, or a file of weights
    tracks: int = parameter(0, NOT_NEGATIVE)  # number of training tracks, from the first on; 0: all
    seed: int = parameter(42, NOT_NEGATIVE, BELOW_2_32)  # seed of initialisation, data order and augmentation
    steps: int = parameter(75_000, ABOVE_0)  # optimizer steps
    batch: int = parameter(64, ABOVE_0)  # excerpts per step over all processes
    micro_batch: int = parameter(0, NOT_NEGATIVE)  # excerpts per forward pass, to save memory; 0: all of a process
    precision: str = parameter("fp32", one_of(("fp32", "bf16")))  # fp32, or bf16 for the layers that pass a test
    compile: bool = False  # use torch.compile for the generator: minutes at the start, pays in long runs on GPUs
    lr: float = parameter(3e-4, NOT_NEGATIVE)  # learning rate at the first step; 0, with lr_final 0: G does not learn
    lr_final: float = parameter(3e-4, NOT_NEGATIVE)  # learning rate at the end of the cosine
    generator: str = parameter("demucs", one_of(GENERATORS))  # demucs, conv_tasnet or hdemucs (lib/models)
    channels: int = parameter(100, ABOVE_0)  # channels of the first layer; each further layer doubles them
    depth: int = parameter(6, ABOVE_0)  # encoder layers, and as many decoder layers
    lstm_layers: int = parameter(2, NOT_NEGATIVE)  # LSTM layers between encoder and decoder
    # excerpts
    seconds: float = parameter(10.0, ABOVE_0, ONE_SAMPLE)  # length of the output; the input is longer by the context
    shift_seconds: float = parameter(1.0, NOT_NEGATIVE)  # largest random shift of a stem
    stride_seconds: float = parameter(1.0, ABOVE_0, ONE_SAMPLE)  # time between the starts of excerpts
    remix_group: int = parameter(4, NOT_NEGATIVE)  # size of the groups within which stems are permuted; 0: no remix
    stem_speed: float = parameter(0.0, BELOW_1)  # how much faster, or slower, a stem may be played; pitch follows
    stem_gain_db: float = parameter(0.0, NOT_NEGATIVE)  # largest random gain of a stem, up or down
    stem_eq_db: float = parameter(0.0, NOT_NEGATIVE)  # largest random gain of a stem in a band, smooth over frequency
    projection: bool = False  # make the estimates sum to the mixture: each gets an equal share of the residual
    spectral_weight: float = parameter(0.0, NOT_NEGATIVE)  # weight of the multi-resolution STFT loss, where L1 has 1
    spectral_share: float = parameter(
        0.0, BELOW_1
    )  # replaces the weight if above 0: share of the reconstruction's gradient
    ema: float = parameter(0.0, BELOW_1)  # decay of the running mean of weights, which is evaluated and kept; 0: none
    # adversarial part: active when one of the first two is above 0
    adversarial_weight: float = parameter(0.0, NOT_NEGATIVE)  # weight, where L1 has 1; pix2pix has 0.01 (λ = 100)
    adversarial_share: float = parameter(
        0.0, BELOW_1
    )  # replaces the weight if above 0: share of the whole gradient (balancer)
    adversarial_loss: str = parameter("bce", one_of(GAN_LOSSES))  # bce, lsgan, hinge, relativistic
    feature_matching: float = parameter(0.0, NOT_NEGATIVE)  # weight of feature matching within the adversarial part
    feature_matching_share: float = parameter(0.0, BELOW_1)  # replaces the weight if above 0: part of adversarial_share
    adversarial_start: int = parameter(0, NOT_NEGATIVE)  # steps before the adversarial loss; D trains from the start
    adversarial_ramp: int = parameter(0, NOT_NEGATIVE)  # steps over which the weight or share then grows to its value
    discriminator: str = parameter("patch", one_of(DISCRIMINATORS))  # patch, patch_pix2pix, stft, msstft or mpd
    discriminator_width: int = parameter(64, ABOVE_0)  # channels of the discriminator's first layer
    discriminator_lr: float = parameter(3e-4, ABOVE_0)  # D's learning rate at the first step; follows lr's cosine
    discriminator_updates: float = parameter(1.0, SHARE)  # probability that a step updates the discriminator
    # cures of an overfitting or dominating discriminator
    augment_p: float = parameter(0.0, SHARE)  # probability of each joint augmentation; with a target, its first value
    augment_target: float = parameter(0.0, SHARE)  # p rises while r_v (σ) is above it, else falls; 0: p is constant
    augment_steps: int = parameter(1000, ABOVE_0)  # steps in which p would go from 0 to 1 (its limit is 0.8)
    r1: float = parameter(0.0, NOT_NEGATIVE)  # γ of the penalty on the gradient with respect to real stems
    r2: float = parameter(0.0, NOT_NEGATIVE)  # the same with respect to generated stems
    r1_every: int = parameter(16, ABOVE_0)  # steps between penalties R1 and R2, each multiplied by this (lazy)
    lecam: float = parameter(0.0, NOT_NEGATIVE)  # weight of LeCam's regulariser
    instance_noise: float = parameter(0.0, NOT_NEGATIVE)  # noise on D's stems, relative to the mixture's deviation
    dither: float = parameter(
        0.0, NOT_NEGATIVE
    )  # noise, as before, alike on real and generated stems; the mixture gets its sum
    spectral_norm: bool = False  # normalise the discriminator's convolutions by their spectral norm
    dropout: float = parameter(0.0, BELOW_1)  # dropout of the discriminator's channels
    discriminator_patience: int = parameter(0, NOT_NEGATIVE)  # evaluations without a lower BCE until D stops; 0: never
    # evaluation
    evaluate_every: int = parameter(313, ABOVE_0)  # steps between evaluations and checkpoints
    evaluation_excerpts: int = parameter(64, ABOVE_0)  # excerpts of training tracks, and as many of held-out tracks
    keep: str = parameter(
        "last", one_of(("last", "best"))
    )  # which weights are kept: the last, or the lowest held-out L1
    keep_states: int = parameter(1, ABOVE_0)  # checkpoints kept; with 2 or more, also as state-<step>.pt
    # filled in by the trainer
    stems: list = dataclasses.field(default_factory=lambda: [*SOURCES])  # names of the stems of `data`
    data_digest: str = ""  # digest of what `data` held
    start_digest: str = ""  # digest of model.safetensors in `start_from`

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is float:
                if isinstance(value, int) and not isinstance(value, bool):
                    value = float(value) if abs(value) < sys.float_info.max else math.inf
                    setattr(self, field.name, value)
                if not isinstance(value, float) or not math.isfinite(value):
                    raise UserError(f"{field.name} = {value!r} must be a finite number.")
            elif not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):
                raise UserError(f"{field.name} = {value!r} must be of type {field.type.__name__}.")
            require(field.name, value, *field.metadata.get("rules", ()))
        check_stems(self.stems)
        if self.feature_matching_share and not self.adversarial_share:
            raise UserError("feature_matching_share is a part of adversarial_share; give that too.")

    @property
    def adversarial(self):
        """Whether there is a discriminator."""
        return bool(self.adversarial_weight or self.adversarial_share)

    def without_adversary(self):
        """The same run with L1 alone: every field of the adversary and of its cures at its default."""
        fields, names = dataclasses.fields(self), [field.name for field in dataclasses.fields(self)]
        own = fields[names.index("adversarial_weight") : names.index("discriminator_patience") + 1]
        return dataclasses.replace(self, **{field.name: field.default for field in own})

    @classmethod
    def from_dict(cls, values):
        """A Config of a dictionary; raises `UserError` for an unknown or a missing name."""
        if unknown := set(values) - {field.name for field in dataclasses.fields(cls)}:
            names = ", ".join(sorted(map(str, unknown)))
            raise UserError(f"Unknown training parameter {names}; all names are in lib/config.py.")
        if "data" not in values:
            raise UserError("Training parameter data is missing: the index that 01-data wrote.")
        return cls(**values)

    @classmethod
    def from_parameters(cls, parameters, **changes):
        """A Config of the notebook parameters {name: value} that are its fields, with `changes`."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls.from_dict({name: value for name, value in parameters.items() if name in names} | changes)


def read_note(folder):
    """The content of a run's config.json: {"config": parameters, "made_by", "finished"}; {} if the file is missing."""
    path = Path(folder, "config.json")
    note = read_json(path) if path.exists() else {}
    if note != {} and not (isinstance(note, dict) and isinstance(note.get("config"), dict)):
        raise UserError(f"{path} is not the config.json of a run; restore or remove it.")
    return note


def parse(pairs, folder):
    """The Config of the folder's config.json, changed by `name=value` words; raises `UserError` on a bad word."""
    values = read_note(folder).get("config", {})
    kinds = {field.name: field.type for field in dataclasses.fields(Config)}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in kinds:
            raise UserError(f"{pair!r} is not a parameter; write name=value, with a name of lib/config.py's Config.")
        if name == "stems":
            raise UserError(f"{pair!r} cannot be chosen here: stems are those of the index data; leave it out.")
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (ValueError, KeyError) as error:
            raise UserError(f"{name} = {text!r} must be of type {kinds[name].__name__}.") from error
    return Config.from_dict(values)
