"""Build the networks and the data of a configuration, and check that it can be trained."""

import os
from functools import partial

import torch

from lib import discriminator
from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.common.words import join
from lib.data.batches import Batches
from lib.data.tracks import CHANNELS, SAMPLERATE, SOURCES, Excerpts, read_index
from lib.models.cpu.prepare import check_supported
from lib.models.generators import GENERATORS


def build_generator(config):
    """The generator of a configuration; raises `UserError` when it is too large for this machine."""
    names = ("channels", "depth", "lstm_layers", "projection")
    make = partial(GENERATORS[config.generator], **{name: getattr(config, name) for name in names})
    return _made(make, config, "generator", *names[:-1])


def build_discriminator(config):
    """The discriminator of a configuration; raises `UserError` when it is too large for this machine."""
    c = config
    torch.manual_seed(c.seed + 1)  # initial weights do not depend on the generator's size
    options = dict(width=c.discriminator_width, dropout=c.dropout, spectral_norm=c.spectral_norm)
    return _made(partial(discriminator.build, c.discriminator, **options), c, "discriminator", "discriminator_width")


def _made(make, config, kind, *names):
    """The model that `make` returns; raises `UserError` when its size, set by the parameters `names`, is too large."""
    try:
        model = make()
        needed = 16 * sum(weights.numel() for weights in model.parameters())  # weights, gradients, Adam's two
        if needed <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            return model
        cause = None
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # beyond torch's integers, or the memory
        cause = error
    sizes = join(f"{name} = {getattr(config, name)}" for name in names)
    raise UserError(
        f"A {kind} ({getattr(config, kind)}) of {sizes} is too large for this machine; choose a smaller one."
    ) from cause


def build_data(config, generator, *, rank=0, world_size=1, prefetch=False):
    """The data of one rank: (`Batches` to train on, {"train": `Excerpts`, "heldout": `Excerpts`} to evaluate on).

    Raises `UserError` when tracks are too few, too short, missing or damaged.
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
        remix_group=c.remix_group,
        seed=[c.seed, bool(c.start_from)],
        rank=rank,
        world_size=world_size,
        prefetch=prefetch,
    )
    return batches, {name: Excerpts(tracks, time, time) for name, tracks in sets.items()}


def check_trainable(config, world_size=1, start=None):
    """Raise `UserError` when `config` cannot be trained on `world_size` ranks, or not from the generator `start`."""
    generator = build_on_meta(config)
    check_supported(generator, config.precision, config.compile)
    build_data(config, generator, world_size=world_size)
    if start and _shapes(start) != _shapes(generator):
        raise UserError(
            f"start_from = {config.start_from} holds a network of another size than the parameters ask for; make "
            "generator, channels, depth and lstm_layers agree."
        )


def build_on_meta(config):
    """The generator on torch's meta device: shapes without memory.

    Raises `UserError` when the generator or the discriminator cannot be trained on this machine.
    """
    with torch.device("meta"):
        if config.adversarial:
            _check_length(build_discriminator(config), config)
        return build_generator(config)


def _check_length(model, config):
    """Raise `UserError` when the shortest possible estimates are too short for the discriminator `model`."""
    stems = torch.empty(1, len(SOURCES), CHANNELS, round(config.seconds * SAMPLERATE))
    try:
        model(stems.sum(1), stems)
    except RuntimeError as error:
        raise UserError(
            f"Excerpts of seconds = {config.seconds} are too short for the discriminator {config.discriminator}; "
            "choose longer ones."
        ) from error


def _shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}
