"""What a configuration trains and is evaluated on, and whether it can be trained at all."""

import torch

from lib.augment import Batches
from lib.data import SAMPLERATE, Excerpts, read_index
from lib.errors import UserError
from lib.generators import build
from lib.provenance import ROOT


def network(config):
    """The generator of a configuration; raises `UserError` for sizes that it cannot have."""
    names = ("channels", "depth", "lstm_layers", "projection")
    sizes = {name: getattr(config, name) for name in names}
    try:
        return build(config.generator, **sizes)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # beyond torch's integers, or the memory
        raise UserError(
            f"A {config.generator} of channels = {config.channels}, depth = {config.depth} and lstm_layers = "
            f"{config.lstm_layers} is too large for this machine; choose smaller ones."
        ) from error


def material(config, generator, *, rank=0, world=1, ahead=False):
    """(`Batches` to train on, {"train": `Excerpts`, "heldout": `Excerpts`} to evaluate on), of one of `world` ranks.

    Raises `UserError` when there are too few tracks or too short ones, or one is missing or damaged.
    """
    c, (sets, _) = config, read_index(ROOT / config.data)
    sets = {"train": sets.get("train", [])[: c.tracks or None], "heldout": sets.get("valid", [])}
    for name, tracks in sets.items():
        if not tracks:
            raise UserError(f"There are no {name} tracks in {c.data}; both train and valid tracks are needed.")
        for track in tracks:
            track.audio()
    time, shift = generator.valid_length(round(c.seconds * SAMPLERATE)), round(c.shift_seconds * SAMPLERATE)
    batches = Batches(
        Excerpts(sets["train"], time + shift, round(c.stride_seconds * SAMPLERATE)),
        batch=c.batch,
        shift=shift,
        group=c.remix_group,
        seed=[c.seed, bool(c.start_from)],
        rank=rank,
        world=world,
        ahead=ahead,
    )
    return batches, {name: Excerpts(tracks, time, time) for name, tracks in sets.items()}


def check(config, world=1, start=None):
    """Raise `UserError` for what cannot be trained on `world` ranks, from the generator `start` if there is one.

    It costs no memory: nothing of the network is made but its shapes.
    """
    with torch.device("meta"):
        generator = network(config)
    material(config, generator, world=world)
    if start and _shapes(start) != _shapes(generator):
        raise UserError(
            f"start_from = {config.start_from} holds a network of another size than the parameters ask for; make "
            "generator, channels, depth and lstm_layers agree."
        )


def _shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}
