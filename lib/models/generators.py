"""The generators by name, and the files that their weights are kept in.

`lib.demucs.Demucs` is the report's own; beside it stand two networks of torchaudio, so that Demucs v1's neighbours can
be trained, played against a discriminator, and scored by the same program. All have one interface:

    model = build("hdemucs", channels=48, depth=6, lstm_layers=2)
    estimates = model(mixture)  # (batch, 2, time) -> (batch, 4, 2, time or a little less), the middle of the mixture
    model.valid_length(n)       # shortest input for n samples of estimate
    model.margin                # samples at either end of an estimate that lack part of their surroundings

safetensors and torchaudio are imported where they are needed: training Demucs up to its last checkpoint needs neither.
"""

import math
import pickle  # only for the name of its error
import re
from pathlib import Path

import torch
from torch import nn

from lib.common.errors import UserError
from lib.data.tracks import CHANNELS, SAMPLERATE, SOURCES
from lib.demucs import Demucs, center_trim


class _Peer(nn.Module):
    """A network that pads by itself: its estimates are as long as the mixture, which is cut to whole `unit`s."""

    sources, audio_channels, samplerate = len(SOURCES), CHANNELS, SAMPLERATE

    def __init__(self, *, channels, depth, lstm_layers, projection):
        super().__init__()
        self.arguments = dict(channels=channels, depth=depth, lstm_layers=lstm_layers, projection=projection)
        self.projection = projection

    def valid_length(self, length):
        """The shortest input for at least `length` samples of estimate: whole units."""
        return max(math.ceil(length / self.unit), 1) * self.unit

    def forward(self, mixture):
        """Mixture (batch, 2, time) -> estimates (batch, sources, 2, time, cut to whole units from both ends)."""
        mixture = center_trim(mixture, mixture.shape[-1] // self.unit * self.unit)
        estimates = self._estimate(mixture)
        if self.projection:
            estimates = estimates + (mixture - estimates.sum(1))[:, None] / self.sources
        return estimates


class ConvTasNet(_Peer):
    """Conv-TasNet (Luo, Mesgarani, arXiv 1809.07454) as Défossez et al. (arXiv 1911.13254) applied it to music.

    channels: of the encoder and of the bottleneck (256 there), half as many as the blocks have inside; depth: blocks
    per stack, with dilations up to 2^(depth - 1) (10 there); 4 stacks of them. It has no LSTM: `lstm_layers` must be 0.
    Stereo is encoded and decoded by one convolution of two channels each, as in the authors' repository: masks then
    see both sides of a panorama, which separate passes for left and right would not. torchaudio's network is mono, so
    its first and its last layer are replaced. Frames are only 20 samples long: its memory asks for excerpts of about
    2 s. Its normalisation looks at the whole excerpt, so `margin` is the reach of the convolutions only.
    Raises `UserError` for `lstm_layers`.
    """

    kernel_size, unit, stacks = 20, 10, 4

    def __init__(self, *, channels=256, depth=10, lstm_layers=0, projection=False):
        super().__init__(channels=channels, depth=depth, lstm_layers=lstm_layers, projection=projection)
        from torchaudio.models import ConvTasNet as Network

        if lstm_layers:
            raise UserError(f"lstm_layers = {lstm_layers} must be 0 for conv_tasnet, which has no LSTM.")
        self.network = Network(
            num_sources=self.sources,
            enc_kernel_size=self.kernel_size,
            enc_num_feats=channels,
            msk_num_feats=channels,
            msk_num_hidden_feats=2 * channels,
            msk_num_layers=depth,
            msk_num_stacks=self.stacks,
            msk_activate="relu",
        )
        shape = dict(kernel_size=self.kernel_size, stride=self.unit, padding=self.unit, bias=False)
        self.network.encoder = nn.Conv1d(self.audio_channels, channels, **shape)
        self.network.decoder = nn.ConvTranspose1d(channels, self.audio_channels, **shape)

    @property
    def margin(self):
        return self.unit * (self.network.mask_generator.receptive_field // 2 + 2)

    def _estimate(self, mixture):
        frames = self.network.encoder(mixture)
        masked = self.network.mask_generator(frames) * frames[:, None]
        return self.network.decoder(masked.flatten(0, 1)).unflatten(0, (-1, self.sources))


class HDemucs(_Peer):
    """Hybrid Demucs (Défossez, arXiv 2111.03600): a Demucs on the waveform and one on the spectrogram, sharing a core.

    channels: of the first layer of both (48 there), at least 4; depth: 6, the published one for 44.1 kHz with windows
    of 4,096 samples, or 5, torchaudio's small one with windows of 1,024; lstm_layers: 2 in every layer of the core
    that has them, or 0 for none. LSTM, attention and normalisation look at the whole excerpt; the rest is local: with
    initial weights, a sample farther than two windows weighs less than a millionth of a near one, which is `margin`.
    Raises `UserError` for another depth, number of LSTM layers, or fewer channels.
    """

    windows = {5: 1024, 6: 4096}  # by depth

    def __init__(self, *, channels=48, depth=6, lstm_layers=2, projection=False):
        super().__init__(channels=channels, depth=depth, lstm_layers=lstm_layers, projection=projection)
        from torchaudio.models import HDemucs as Network

        if depth not in self.windows:
            raise UserError(f"depth = {depth} must be 5 or 6 for hdemucs, whose layers belong to its spectrogram.")
        if lstm_layers not in (0, 2):
            raise UserError(f"lstm_layers = {lstm_layers} must be 0 or 2 for hdemucs.")
        if channels < 4:
            raise UserError(f"channels = {channels} must be at least 4 for hdemucs, whose branches have a quarter.")
        window = self.windows[depth]
        self.unit, self.margin = window // 2, 2 * window  # two hops, which the core joins
        self.network = Network(
            [*SOURCES], channels=channels, depth=depth, nfft=window, dconv_lstm=4 if lstm_layers else depth
        )
        # torchaudio makes this layer and never uses it; DistributedDataParallel would wait for its gradient.
        self.network.time_encoder[-1].norm1.requires_grad_(False)

    def _estimate(self, mixture):
        return self.network(mixture)


DEEPEST = 64  # layers; a stride of 4 would take more samples than there are numbers for them
GENERATORS = {"demucs": Demucs, "conv_tasnet": ConvTasNet, "hdemucs": HDemucs}


def build(name, *, channels, depth, lstm_layers, projection=False):
    """The generator `name` of `GENERATORS`; what the numbers mean to each, and which it refuses, its class says."""
    return GENERATORS[name](channels=channels, depth=depth, lstm_layers=lstm_layers, projection=projection)


def assemble(kind, arguments, state):
    """A model of class `kind` with these constructor arguments and weights.

    It is made on the meta device, so that it draws no random numbers, and a file that asks for another size than it
    holds costs no memory. Raises `ValueError`, and whatever `kind` raises, for what does not fit.
    """
    if not all(isinstance(value, int | float) for value in arguments.values()):
        raise ValueError("arguments that are no numbers")
    if max(arguments.get("depth", 0), arguments.get("lstm_layers", 0)) > DEEPEST:
        raise ValueError("layers without end")
    if not all(value.is_floating_point() for value in state.values()):
        raise ValueError("weights that are no numbers")
    with torch.device("meta"):
        model = kind(**arguments)
    model.load_state_dict({name: value.float().contiguous() for name, value in state.items()}, assign=True)
    return model


def unreadable(path, error, what):
    """The `UserError` for a file that did not load as `what`."""
    if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
        return UserError(
            f"{path} names {ascii(named[1][:80])[1:-1]}, which no {what} needs: nothing of it was run, do not use it."
        )
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"Cannot read {path}: {error.strerror}; give the path of a {what}.")
    if not Path(path).is_file():
        return UserError(f"Cannot read {path}: there is no such file; give the path of a {what}.")
    return UserError(f"{path} is damaged or not a {what}; get it again, or give another.")
