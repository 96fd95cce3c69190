"""Demucs v1 equals the original, number for number; its checkpoints are read without running code."""

import gzip
import itertools
import os
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.common.errors import UserError
from lib.demucs import Demucs, center_trim
from lib.models.weights import load_weights

VARIANTS = {
    "default": {},
    "upsample": dict(upsample=True),
    "relu": dict(glu=False),
    "no rewrite": dict(rewrite=False),
    "upsample, no rewrite, no lstm": dict(upsample=True, rewrite=False, lstm_layers=0),
    "no lstm": dict(lstm_layers=0),
    "one lstm layer": dict(lstm_layers=1),
    "context 1": dict(context=1),
    "other shape": dict(kernel_size=6, stride=3, context=5, sources=2, audio_channels=1, growth=1.7),
    "not rescaled": dict(rescale=0),
}
SMALL = dict(channels=4, depth=3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small(name="default"):
    return Demucs(**SMALL | VARIANTS[name])


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.arguments == other.arguments
    mixture = torch.randn(1, model.audio_channels, model.valid_length(2000))
    assert torch.equal(model(mixture), other(mixture))


# The network


@pytest.mark.parametrize(
    "channels, count",  # the original's, counted at commit dcee007a
    [(100, 648_548_208), (64, 265_679_496), (32, 66_443_592), (16, 16_622_760), (8, 4_161_624)],
)
def test_parameter_count(channels, count):
    with torch.device("meta"):  # 100 channels would take 2.6 GB
        model = Demucs(channels=channels)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_state_dict_keys():
    layers = [(part, level, layer) for part in ("encoder", "decoder") for level in range(6) for layer in (0, 2)]
    convolutions = [f"{part}.{level}.{layer}" for part, level, layer in layers]
    lstm = [
        f"lstm.lstm.{kind}_l{layer}{direction}"
        for layer, direction in itertools.product((0, 1), ("", "_reverse"))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]

    def keys(names):
        return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]

    assert list(Demucs(channels=2).state_dict()) == keys(convolutions) + lstm + keys(["lstm.linear"])
    upsampling = list(Demucs(channels=2, upsample=True).state_dict())
    assert upsampling == keys(convolutions) + keys(["final"]) + lstm + keys(["lstm.linear"])
    plain = list(Demucs(channels=2, depth=1, rewrite=False, lstm_layers=0).state_dict())
    assert plain == keys(["encoder.0.0", "decoder.0.0"])


def test_arguments_make_the_same_model():
    chosen = dict(
        sources=2, audio_channels=1, channels=3, depth=2, rewrite=False, glu=False, upsample=True, rescale=0.2,
        kernel_size=6, stride=3, growth=1.5, lstm_layers=1, context=5, samplerate=16000,
        projection=True,
    )  # fmt: skip
    model = Demucs(**chosen)
    assert model.arguments == chosen
    assert (model.sources, model.audio_channels, model.samplerate) == (2, 1, 16000)
    with pytest.raises(TypeError):
        Demucs(4)  # keywords only


def lengths(length, kernel_size, stride, depth, context):
    """(length of the estimate, whether every layer used up its input) for an input of `length`, layer by layer."""
    exact = True
    for _ in range(depth):
        if length < kernel_size:
            return 0, False
        exact &= (length - kernel_size) % stride == 0
        length = (length - kernel_size) // stride + 1
    for _ in range(depth):
        if length < context:
            return 0, False
        length = (length - context) * stride + kernel_size
    return length, exact


@pytest.mark.parametrize("length, valid", [(44100, 58708), (88200, 99668), (441000, 451924)])
def test_valid_length_of_the_original(length, valid):
    assert Demucs(channels=1).valid_length(length) == valid


@pytest.mark.parametrize("shape", [dict(), dict(context=1), dict(kernel_size=6, stride=3, context=5)])
def test_valid_length_is_the_shortest(shape):
    model = Demucs(channels=1, depth=2, **shape)
    sizes = (model.kernel_size, model.stride, model.depth, model.context)
    for wanted in range(1, 200):
        valid = model.valid_length(wanted)
        length, exact = lengths(valid, *sizes)
        assert exact and length >= wanted
        for shorter in range(valid):
            length, exact = lengths(shorter, *sizes)
            assert not exact or length < wanted
    valid = model.valid_length(150)
    assert model(torch.randn(1, 2, valid)).shape[-1] == lengths(valid, *sizes)[0]
    if model.context == 1:
        assert lengths(valid, *sizes)[0] == valid


def test_valid_length_suffices_with_upsample():
    model = small("upsample")
    for wanted in (1, 100, 1001):
        assert model(torch.randn(1, 2, model.valid_length(wanted))).shape[-1] >= wanted


def test_center_trim():
    x = torch.arange(7)
    assert center_trim(x, 4).tolist() == [1, 2, 3, 4]  # the original drops the odd one at the right
    assert center_trim(x, torch.zeros(2, 5)).tolist() == [1, 2, 3, 4, 5]
    assert torch.equal(center_trim(x, 7), x)
    with pytest.raises(ValueError):
        center_trim(x, 8)


def lstm_direction(x, weights, suffix):
    """One direction of an LSTM layer, step by step; x: (time, batch, width)."""
    w_in, w_hidden, b_in, b_hidden = (
        weights[f"lstm.lstm.{kind}_{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden = cell = x.new_zeros(x.shape[1], w_hidden.shape[1])
    outputs = []
    for step in x.flip(0) if suffix.endswith("reverse") else x:
        gates = step @ w_in.T + b_in + hidden @ w_hidden.T + b_hidden
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs[::-1] if suffix.endswith("reverse") else outputs)


def by_hand(model, x):
    """The forward pass of the paper's figure 2, in functions of the state dict alone."""
    options, weights = model.arguments, model.state_dict()
    upsample, stride, depth = options["upsample"], options["stride"], options["depth"]

    def use(function, x, name, **keywords):
        return function(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **keywords)

    def activate(x):
        return F.glu(x, dim=1) if options["glu"] else F.relu(x)

    def trim(x, length):
        start = (x.shape[-1] - length) // 2
        return x[..., start : start + length]

    mixture, skips = x, []
    for level in range(depth):
        x = F.relu(use(F.conv1d, x, f"encoder.{level}.0", stride=1 if upsample else stride))
        if options["rewrite"]:
            x = activate(use(F.conv1d, x, f"encoder.{level}.2"))
        skips.append(x)
        x = x[..., ::stride] if upsample else x
    if options["lstm_layers"]:
        x = x.permute(2, 0, 1)
        for layer in range(options["lstm_layers"]):
            both = [lstm_direction(x, weights, f"l{layer}{direction}") for direction in ("", "_reverse")]
            x = torch.cat(both, dim=2)
        x = use(F.linear, x, "lstm.linear").permute(1, 2, 0)
    for level in range(depth):
        if upsample:
            points = (x.shape[-1] - 1) * stride + 1
            x = F.interpolate(x, size=points, mode="linear", align_corners=True)[..., :-1]
        x = x + trim(skips[-1 - level], x.shape[-1])
        last = 0
        if options["rewrite"]:
            x, last = activate(use(F.conv1d, x, f"decoder.{level}.0")), 2
        if upsample:
            x = use(F.conv1d, x, f"decoder.{level}.{last}")
        else:
            x = use(F.conv_transpose1d, x, f"decoder.{level}.{last}", stride=stride)
        x = F.relu(x) if level < depth - 1 else x
    if upsample:
        x = use(F.conv1d, torch.cat([x, trim(mixture, x.shape[-1])], dim=1), "final")
    return x.reshape(len(x), options["sources"], options["audio_channels"], -1)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("more", [0, 77])  # 77: layers leave samples unused
def test_output_equals_construction_by_hand(name, more):
    model = small(name).double()
    mixture = torch.randn(2, model.audio_channels, model.valid_length(1500) + more, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(mixture), by_hand(model, mixture), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_initial_weights_are_those_of_the_original(name):
    model = small(name)
    options = model.arguments
    upsample, kernel, growth = options["upsample"], options["kernel_size"], options["growth"]
    step = 1 if upsample else options["stride"]
    gates, outputs = 2 if options["glu"] else 1, options["sources"] * options["audio_channels"]
    resize = nn.Conv1d if upsample else nn.ConvTranspose1d

    torch.manual_seed(0)  # as for `model`; the layers are made in the original's order
    made = {}
    widths = [options["audio_channels"], 4, int(4 * growth), int(int(4 * growth) * growth)]
    if upsample:
        made["final"] = nn.Conv1d(4 + options["audio_channels"], outputs, 1)
    for level, (outside, width) in enumerate(itertools.pairwise(widths)):
        made[f"encoder.{level}.0"] = nn.Conv1d(outside, width, kernel, step)
        if options["rewrite"]:
            made[f"encoder.{level}.2"] = nn.Conv1d(width, gates * width, 1)
            made[f"decoder.{2 - level}.0"] = nn.Conv1d(width, gates * width, options["context"])
        if level == 0:
            outside = width if upsample else outputs
        made[f"decoder.{2 - level}.{2 if options['rewrite'] else 0}"] = resize(width, outside, kernel, step)
    if options["rescale"]:
        for layer in made.values():
            scale = (layer.weight.detach().std() / options["rescale"]) ** 0.5
            layer.weight.data /= scale
            layer.bias.data /= scale
    if options["lstm_layers"]:
        made["lstm.lstm"] = nn.LSTM(widths[-1], widths[-1], options["lstm_layers"], bidirectional=True)
        made["lstm.linear"] = nn.Linear(2 * widths[-1], widths[-1])
    expected = {f"{path}.{key}": value for path in made for key, value in made[path].state_dict().items()}

    state = model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)


# Checkpoints of the original


CONTAINERS = ["zip", "legacy", "gzip of zip", "gzip of legacy"]


def write(content, path, container):
    """Write `content` by `torch.save`, in torch's format of then (legacy) or now (zip)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "could not retrieve source code" of classes without a file
        torch.save(content, path, _use_new_zipfile_serialization=not container.endswith("legacy"))
    if container.startswith("gzip"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A class that pickles as `demucs.model.Demucs`; the legacy container stores its source code."""
    package = tmp_path / "elsewhere" / "demucs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text("from torch import nn\n\n\nclass Demucs(nn.Module):\n    mark = 'original'\n")
    monkeypatch.syspath_prepend(package.parent)
    for name in ("demucs", "demucs.model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from demucs.model import Demucs as Original

    yield Original
    for name in ("demucs", "demucs.model"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ["default", "upsample", "other shape"])
def test_published_checkpoint_loads(original, tmp_path, monkeypatch, container, name):
    model, path = small(name), tmp_path / "model.th"
    arguments = dict(model.arguments)
    positional = [arguments.pop("sources"), arguments.pop("audio_channels")]
    write((original, positional, arguments, dict(model.state_dict())), path, container)
    assert (b"mark = 'original'" in path.read_bytes()) == (container == "legacy")

    # While loading, the package cannot be imported, nothing is written to the folder (as torch would) and no warning
    # is raised.
    monkeypatch.setitem(sys.modules, "demucs", None)
    monkeypatch.chdir(tmp_path)
    before, random = sorted(tmp_path.iterdir()), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Demucs.load_published(path)
    assert sorted(tmp_path.iterdir()) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(loaded, model)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_published_weights_of_another_precision_become_single(original, tmp_path, container, dtype):
    model, path = small().to(dtype), tmp_path / "model.th"
    write((original, (), SMALL, model.state_dict()), path, container)  # an OrderedDict this time
    assert_same(Demucs.load_published(path), model.float())


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("function", [os.system, eval, Path.touch])
@pytest.mark.parametrize("where", ["class", "keywords", "state"])
def test_other_names_are_refused_unrun(original, tmp_path, container, function, where):
    path, trace = tmp_path / "model.th", tmp_path / "trace"
    argument = {os.system: f"touch {trace}", eval: f"open({str(trace)!r}, 'w')", Path.touch: trace}[function]
    payload = Payload(function, argument)
    content = {"class": original, "positional": (), "keywords": dict(SMALL), "state": dict(small().state_dict())}
    content[where] = payload if where == "class" else content[where] | {"payload": payload}
    write(tuple(content.values()), path, container)
    with pytest.raises(UserError, match=rf"{path} names \S*(system|eval|getattr|Path)\b"):
        Demucs.load_published(path)
    assert not trace.exists()
    function(argument)  # the payload would have left its trace
    assert trace.exists()


@pytest.mark.parametrize("container", CONTAINERS)
def test_harmless_other_names_are_refused_too(original, tmp_path, container):
    path = tmp_path / "model.th"
    write((original, (), SMALL | {"growth": Fraction(2)}, small().state_dict()), path, container)
    with pytest.raises(UserError, match="names fractions.Fraction"):
        Demucs.load_published(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_truncated_checkpoint_is_refused(original, tmp_path, container):
    path = tmp_path / "model.th"
    write((original, (), dict(channels=2, depth=1), Demucs(channels=2, depth=1).state_dict()), path, container)
    whole = path.read_bytes()
    Demucs.load_published(path)
    for length in [*range(8), *range(8, len(whole) - 8, len(whole) // 60), *range(len(whole) - 8, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"{path} is damaged or not a Demucs v1 checkpoint"):
            Demucs.load_published(path)


@pytest.mark.parametrize("container", ["zip", "legacy"])
@pytest.mark.parametrize("case", ["other channels", "other keyword", "missing weight", "only a state"])
def test_contents_that_do_not_fit_are_refused(original, tmp_path, container, case):
    path, state = tmp_path / "model.th", small().state_dict()
    content = {
        "other channels": (original, (), dict(channels=5, depth=3), state),
        "other keyword": (original, (), SMALL | {"resample": True}, state),  # Demucs v2
        "missing weight": (original, (), SMALL, {key: state[key] for key in list(state)[1:]}),
        "only a state": state,
    }[case]
    write(content, path, container)
    with pytest.raises(UserError, match="is damaged or not a Demucs v1 checkpoint"):
        Demucs.load_published(path)


@pytest.mark.parametrize("load", [Demucs.load_published, load_weights])
def test_missing_files_and_files_of_other_formats(tmp_path, load):
    with pytest.raises(UserError, match="Cannot read .*absent: "):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match="Cannot read "):
        load(tmp_path)
    other = tmp_path / "other"
    for content in (b"", b"RIFF    WAVEfmt ", b"PK\x03\x04", b"\x1f\x8b\x08", b"{}" * 50, bytes(1000)):
        other.write_bytes(content)
        with pytest.raises(UserError, match="other is damaged or not a "):
            load(other)


def test_projected_estimates_sum_to_the_mixture_and_differ_from_each_other_as_before():
    torch.manual_seed(0)
    plain = Demucs(channels=4, depth=2, lstm_layers=1)
    projected = Demucs(**plain.arguments | {"projection": True})
    projected.load_state_dict(plain.state_dict())
    mixture = torch.randn(2, 2, plain.valid_length(500))
    with torch.no_grad():
        before, after = plain(mixture), projected(mixture)
    torch.testing.assert_close(after.sum(1), center_trim(mixture, after), rtol=0, atol=1e-5)
    torch.testing.assert_close(after - after[:, :1], before - before[:, :1], rtol=0, atol=1e-5)
    assert (before.sum(1) - center_trim(mixture, before)).abs().max() > 0.1, (
        "the plain estimates do not sum to the mixture"
    )
