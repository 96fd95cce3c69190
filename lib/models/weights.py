"""Save and load generators' weights: this project's files (safetensors), or any file that holds a generator."""

import contextlib
import json
from pathlib import Path

import safetensors.torch
import torch

from lib.common.errors import UserError
from lib.common.files import atomic, writing
from lib.common.untrusted import parse_json, regular_file
from lib.data.tracks import CHANNELS, SAMPLERATE, SOURCES, check_stems
from lib.models.generators import GENERATORS, assemble, unreadable
from lib.models.original import load_published

BUNDLED = Path(__file__).with_name("corpus.safetensors")  # the small generator in this repository


def save_weights(model, path, dtype=torch.float32):
    """Write a generator's weights, as `dtype`, and its constructor's arguments to `path` (safetensors), atomically.

    The names of its stems, `model.stems`, stand beside them unless they are `SOURCES`.
    """
    [name] = [name for name, kind in GENERATORS.items() if type(model) is kind]
    state = {key: value.to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    with atomic(path) as temporary, writing(path, safetensors.SafetensorError):
        names = {} if getattr(model, "stems", SOURCES) == SOURCES else {"stems": json.dumps(model.stems)}
        safetensors.torch.save_file(state, temporary, {name: json.dumps(model.arguments)} | names)


def load_weights(path):
    """The generator that `save_weights` wrote to `path`, on the CPU in float32; raises `UserError` for other files.

    Its attribute `stems` holds the names of the stems that it separates.
    """
    with _opened(path) as (file, name, arguments, stems):
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = assemble(GENERATORS[name], parse_json(arguments), state)
        model.stems = stems
        return model


@contextlib.contextmanager
def _opened(path):
    """Yield an open weights file, its generator's name and arguments, and the names of its stems.

    Raises `UserError` for whatever goes wrong inside.
    """
    try:
        with safetensors.safe_open(regular_file(path), framework="pt") as file:
            metadata = file.metadata()
            stems = tuple(parse_json(metadata.pop("stems"))) if "stems" in metadata else SOURCES
            check_stems(stems)
            [(name, arguments)] = metadata.items()
            yield file, name, arguments, stems
    except Exception as error:  # a damaged file may raise anything
        raise unreadable(path, error, "weights file of this project") from error


def load_generator(path=None):
    """The generator in `path`, on the CPU, with the names of its `stems`; without `path`, the small one in here.

    path: model.safetensors, the folder of an arm, or a published Demucs v1; raises `UserError` for anything else.
    """
    path, ours = _find(path)
    model = load_weights(path) if ours else load_published(path)
    model.stems = model.stems if ours else SOURCES
    if (model.sources, model.audio_channels, model.samplerate) != (len(model.stems), CHANNELS, SAMPLERATE):
        raise UserError(
            f"{path} makes {model.sources} stems of {model.audio_channels} channel(s) at {model.samplerate} Hz; "
            f"{len(model.stems)} of {CHANNELS} at {SAMPLERATE} Hz are needed."
        )
    return model


def read_stems(path=None):
    """Names of the stems that the generator in `path` separates; `path` as of `load_generator`."""
    path, ours = _find(path)
    if not ours:
        return SOURCES
    with _opened(path) as (*_, stems):
        return stems


def _find(path):
    """(the file of a generator that `path` means, whether this project wrote it)."""
    path = Path(path or BUNDLED)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        with path.open("rb") as file:
            return path, file.read(9)[8:] in (b"{", b"")  # safetensors: a JSON header after its length
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); give the path of a generator's weights.") from error
