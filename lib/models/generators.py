"""The generators by name: `lib.demucs.Demucs`, and two networks of torchaudio to compare it with.

    model = GENERATORS["hdemucs"](channels=48, depth=6, lstm_layers=2)
    estimates = model(mixture)  # (batch, 2, time) -> (batch, 4, 2, time or a little less), the middle of the mixture
    model.sources               # number of stems, 4 unless the argument `sources` says otherwise
    model.valid_length(n)       # shortest input for n samples of estimate
    model.margin                # samples at either end of an estimate that lack part of their context

To add a generator, write a class with this interface and add it to `GENERATORS`. Training Demucs loads no torchaudio.
"""

import math
import pickle  # only for the name of its error
import re

import torch
from torch import nn

from lib.common.errors import UserError
from lib.data.tracks import CHANNELS, SAMPLERATE
from lib.demucs import Demucs, center_trim


class _Peer(nn.Module):
    """A network that pads its input: estimates are as long as the mixture, cut to a multiple of `unit` samples."""

    audio_channels, samplerate = CHANNELS, SAMPLERATE

    def __init__(self, **arguments):
        super().__init__()
        self.arguments, self.sources, self.projection = arguments, arguments["sources"], arguments["projection"]

    def valid_length(self, length):
        return max(math.ceil(length / self.unit), 1) * self.unit

    def forward(self, mixture):
        mixture = center_trim(mixture, mixture.shape[-1] // self.unit * self.unit)
        estimates = self._estimate(mixture)
        if self.projection:
            estimates = estimates + (mixture - estimates.sum(1))[:, None] / self.sources
        return estimates


class ConvTasNet(_Peer):
    """Conv-TasNet (Luo, Mesgarani, arXiv 1809.07454) as Défossez et al. (arXiv 1911.13254) applied it to music.

    channels: of encoder and bottleneck (256 there), half of the blocks' inner channels; depth: blocks per stack, with
    dilations up to 2^(depth - 1) (10 there). torchaudio's mono first and last layer are replaced by stereo ones, as in
    the authors' repository. Frames of 20 samples need much memory: excerpts of about 2 s fit. `margin` is the reach of
    the convolutions; the normalisation covers the whole excerpt. Raises `UserError` unless `lstm_layers` is 0.
    """

    kernel_size, unit = 20, 10

    def __init__(self, *, channels, depth, lstm_layers, sources=4, projection=False):
        sizes = dict(channels=channels, depth=depth, lstm_layers=lstm_layers)
        super().__init__(**sizes, sources=sources, projection=projection)
        from torchaudio.models import ConvTasNet as Network

        if lstm_layers:
            raise UserError(f"lstm_layers = {lstm_layers} must be 0 for conv_tasnet, which has no LSTM.")
        blocks = dict(msk_num_hidden_feats=2 * channels, msk_num_layers=depth, msk_num_stacks=4, msk_activate="relu")
        widths = dict(enc_num_feats=channels, msk_num_feats=channels)
        self.network = Network(num_sources=self.sources, enc_kernel_size=self.kernel_size, **widths, **blocks)
        shape = dict(kernel_size=self.kernel_size, stride=self.unit, padding=self.unit, bias=False)
        self.network.encoder = nn.Conv1d(self.audio_channels, channels, **shape)
        self.network.decoder = nn.ConvTranspose1d(channels, self.audio_channels, **shape)
        self.margin = self.unit * (self.network.mask_generator.receptive_field // 2 + 2)

    def _estimate(self, mixture):
        frames = self.network.encoder(mixture)
        masked = self.network.mask_generator(frames) * frames[:, None]
        return self.network.decoder(masked.flatten(0, 1)).unflatten(0, (-1, self.sources))


class HDemucs(_Peer):
    """Hybrid Demucs (Défossez, arXiv 2111.03600): a waveform and a spectrogram Demucs that share their inner layers.

    channels: of the first layer of both (48 there), at least 4; depth: 6, as published for 44.1 kHz, or 5, torchaudio's
    small network; lstm_layers: 2 or 0. LSTM, attention and normalisation cover the whole excerpt. `margin`: beyond two
    windows, samples weigh less than a millionth with initial weights. Raises `UserError` for other values.
    """

    windows = {5: 1024, 6: 4096}  # by depth

    def __init__(self, *, channels, depth, lstm_layers, sources=4, projection=False):
        sizes = dict(channels=channels, depth=depth, lstm_layers=lstm_layers)
        super().__init__(**sizes, sources=sources, projection=projection)
        from torchaudio.models import HDemucs as Network

        if depth not in self.windows:
            raise UserError(f"depth = {depth} must be 5 or 6 for hdemucs, whose layers belong to its spectrogram.")
        if lstm_layers not in (0, 2):
            raise UserError(f"lstm_layers = {lstm_layers} must be 0 or 2 for hdemucs.")
        if channels < 4:
            raise UserError(f"channels = {channels} must be at least 4 for hdemucs, whose branches have a quarter.")
        window = self.windows[depth]
        self.unit, self.margin = window // 2, 2 * window  # two hops, which the inner layers merge
        options = dict(channels=channels, depth=depth, nfft=window, dconv_lstm=4 if lstm_layers else depth)
        self.network = Network([*map(str, range(sources))], **options)
        # torchaudio never uses this layer; DistributedDataParallel would wait for its gradient.
        self.network.time_encoder[-1].norm1.requires_grad_(False)

    def _estimate(self, mixture):
        return self.network(mixture)


DEEPEST = 64  # layers; with a stride of 4, more would need more samples than 64-bit integers count
GENERATORS = {"demucs": Demucs, "conv_tasnet": ConvTasNet, "hdemucs": HDemucs}


def assemble(kind, arguments, state):
    """A model of class `kind` with the constructor arguments and weights of a file.

    On the meta device, arguments that ask for more than the file holds take no memory, and no random number is drawn.
    Raises `ValueError`, or an error of `kind`, if they do not fit.
    """
    if not all(isinstance(value, int | float) for value in arguments.values()):
        raise ValueError("arguments are not numbers")
    if max(arguments.get("depth", 0), arguments.get("lstm_layers", 0)) > DEEPEST:
        raise ValueError("too many layers")
    if not all(value.is_floating_point() for value in state.values()):
        raise ValueError("weights are not floats")
    with torch.device("meta"):
        model = kind(**arguments)
    model.load_state_dict({name: value.float().contiguous() for name, value in state.items()}, assign=True)
    return model


def unreadable(path, error, what):
    """Return the `UserError` for a file that `error` kept from loading as `what`."""
    if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
        return UserError(
            f"{path} names {ascii(named[1][:80])[1:-1]}, which no {what} needs: nothing of it was run, do not use it."
        )
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"Cannot read {path}: {error.strerror}; give the path of a {what}.")
    return UserError(f"{path} is damaged or not a {what}; get it again, or give another.")
