"""Build the networks and the data of a configuration, and check that it can be trained."""

from functools import partial

import torch

from lib import discriminator
from lib.common.errors import UserError
from lib.common.machine import total_memory
from lib.common.provenance import ROOT
from lib.common.words import join
from lib.data.batches import Batches
from lib.data.tracks import CHANNELS, SAMPLERATE, Excerpts, read_index
from lib.models.cpu.prepare import check_supported, prepare_discriminator
from lib.models.generators import GENERATORS


def build_generator(config):
    """The generator of a configuration; raises `UserError` when it is too large for this machine."""
    names = ("channels", "depth", "lstm_layers", "projection")
    options = {name: getattr(config, name) for name in names} | {"sources": len(config.stems)}
    model = _made(partial(GENERATORS[config.generator], **options), config, "generator", *names[:-1])
    model.stems = tuple(config.stems)
    return model


def build_discriminator(config):
    """The discriminator of a configuration; raises `UserError` when it is too large for this machine."""
    c = config
    torch.manual_seed(c.seed + 1)  # initial weights do not depend on the generator's size
    options = dict(width=c.discriminator_width, dropout=c.dropout, sources=len(c.stems))
    make = partial(discriminator.build, c.discriminator, spectral_norm=c.spectral_norm, **options)
    return prepare_discriminator(_made(make, c, "discriminator", "discriminator_width"))


def _made(make, config, kind, *names):
    """The model that `make` returns; raises `UserError` when its size, set by the parameters `names`, is too large."""
    try:
        model = make()
        needed = 16 * sum(weights.numel() for weights in model.parameters())  # weights, gradients, Adam's two
        if needed > total_memory():
            raise MemoryError
        return model
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # beyond torch's integers, or the memory
        sizes = join(f"{name} = {getattr(config, name)}" for name in names)
        what = f"A {kind} ({getattr(config, kind)}) of {sizes}"
        raise UserError(f"{what} is too large for this machine; choose a smaller one.") from error


def build_data(config, generator, **place):
    """The data of one rank: (`Batches` to train on, {"train": `Excerpts`, "heldout": `Excerpts`} to evaluate on).

    place: `rank`, `world_size` and `prefetch` of `Batches`. Raises `UserError` for bad or missing tracks.
    """
    sets, _ = read_index(ROOT / config.data)
    sets = {"train": sets.get("train", [])[: config.tracks or None], "heldout": sets.get("valid", [])}
    for name, tracks in sets.items():
        if not tracks:
            raise UserError(f"There are no {name} tracks in {config.data}; both train and valid tracks are needed.")
        for track in tracks:
            track.audio()
    batches = build_batches(config, generator, sets["train"], **place)
    time = batches.shape[-1]
    return batches, {name: Excerpts(tracks, time, time) for name, tracks in sets.items()}


def build_batches(config, generator, tracks, **place):
    """The `Batches` of one rank from training `tracks`; raises `UserError` when these are too few or too short."""
    c, shift = config, round(config.shift_seconds * SAMPLERATE)
    samples = generator.valid_length(round(c.seconds * SAMPLERATE))
    spare = round(c.stem_speed * samples)
    excerpts = Excerpts(tracks, samples + shift + spare, round(c.stride_seconds * SAMPLERATE))
    options = dict(shift=shift, spare=spare, remix_group=c.remix_group, seed=[c.seed, bool(c.start_from)])
    return Batches(excerpts, batch=c.batch, **options, **place)


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

    Raises `UserError` when the generator or the discriminator cannot be trained on this machine, or the shortest
    possible estimates are too short for the discriminator.
    """
    with torch.device("meta"):
        if config.adversarial:
            model = build_discriminator(config)
            stems = torch.empty(1, len(config.stems), CHANNELS, round(config.seconds * SAMPLERATE))
            try:
                model(stems.sum(1), stems)
            except RuntimeError as error:
                raise UserError(
                    f"Excerpts of seconds = {config.seconds} are too short for the discriminator "
                    f"{config.discriminator}; choose longer ones."
                ) from error
        return build_generator(config)


def _shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}
