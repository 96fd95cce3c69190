"""Save and load generators' weights: this project's files (safetensors), or any file that holds a generator."""

import json
from pathlib import Path

import safetensors.torch
import torch

from lib.common.errors import UserError
from lib.common.files import atomic, writing
from lib.common.untrusted import parse_json, regular_file
from lib.data.tracks import CHANNELS, SAMPLERATE, SOURCES
from lib.models.generators import GENERATORS, assemble, unreadable
from lib.models.original import load_published

BUNDLED = Path(__file__).with_name("corpus.safetensors")  # the small generator in this repository


def save_weights(model, path, dtype=torch.float32):
    """Write a generator's weights, as `dtype`, and its constructor's arguments to `path` (safetensors), atomically."""
    [name] = [name for name, kind in GENERATORS.items() if type(model) is kind]
    state = {key: value.to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    with atomic(path) as temporary, writing(path, safetensors.SafetensorError):
        safetensors.torch.save_file(state, temporary, {name: json.dumps(model.arguments)})


def load_weights(path):
    """The generator that `save_weights` wrote to `path`, on the CPU in float32; raises `UserError` for other files."""
    try:
        with safetensors.safe_open(regular_file(path), framework="pt") as file:
            [(name, arguments)] = file.metadata().items()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return assemble(GENERATORS[name], parse_json(arguments), state)
    except Exception as error:  # a damaged file may raise anything
        raise unreadable(path, error, "weights file of this project") from error


def load_generator(path=None):
    """The generator in `path`, on the CPU; without `path`, the small one in this repository.

    path: model.safetensors, the folder of an arm, or a published Demucs v1; raises `UserError` for anything else.
    """
    path = Path(path or BUNDLED)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        with path.open("rb") as file:
            ours = file.read(9)[8:] in (b"{", b"")  # safetensors: a JSON header after its length
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); give the path of a generator's weights.") from error
    model = load_weights(path) if ours else load_published(path)
    if (model.sources, model.audio_channels, model.samplerate) != (len(SOURCES), CHANNELS, SAMPLERATE):
        raise UserError(
            f"{path} makes {model.sources} stems of {model.audio_channels} channel(s) at {model.samplerate} Hz; "
            f"{len(SOURCES)} of {CHANNELS} at {SAMPLERATE} Hz are needed."
        )
    return model
