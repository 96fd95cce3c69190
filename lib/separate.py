"""Separate songs of any length with a trained generator: the mathematics, and the command.

Source: the original averages estimates over random shifts (Défossez et al., arXiv 1911.13254, section 5.3); chunks
with true context on both sides, cross-faded, keep memory independent of the length.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad

from lib.data import CHANNELS, SAMPLERATE, SOURCES
from lib.demucs import Demucs, center_trim
from lib.errors import Parser, UserError
from lib.fast import keep_buffers, prepare
from lib.generators import load_weights
from lib.progress import progress
from lib.songs import FORMATS, Song, decibels, scratch_folder, song_name, write_stems

BATCH = 6  # chunks at once: the LSTM's weights are read once for all of them
BLOCK = 2**18  # samples of an array that are normalised at once
BUNDLED = Path(__file__).with_name("weights") / "corpus.safetensors"


def separate(model, mixture, *, seconds=10.0, overlap=0.1, shifts=0, seed=0, batch=BATCH):
    """Estimates (sources, channels, time) of `mixture` (channels, time), float32, any scale.

    seconds: length of a chunk; overlap: share of a chunk that is cross-faded with its neighbour; shifts: estimates
    for so many random shifts in [0, 0.5 s) are averaged (10 in the paper; 0: one estimate, unshifted); seed: of the
    shifts; batch: chunks that the model sees at once. The mixture is normalised by its own mono mean and standard
    deviation, as the original does; silence gives silence.
    Raises `UserError` for a wrong number of channels, no samples, or NaN.
    """
    mixture = torch.as_tensor(np.asarray(mixture), dtype=torch.float32)
    if mixture.ndim != 2 or mixture.shape[0] != model.audio_channels:
        raise UserError(f"The mixture has shape {tuple(mixture.shape)}; ({model.audio_channels}, samples) is needed.")
    estimates, done = torch.empty(model.sources, *mixture.shape), 0
    for part in stream(
        model, mixture.split(BLOCK, 1), measure([mixture], "The mixture"),
        seconds=seconds, overlap=overlap, shifts=shifts, seed=seed, batch=batch,
    ):  # fmt: skip
        estimates[..., done : done + part.shape[-1]] = part
        done += part.shape[-1]
    return estimates


@dataclass(frozen=True)
class Level:
    """What must be known of a whole mixture before its first chunk: its samples, its mono mean and deviation."""

    samples: int
    mean: float
    std: float


def measure(blocks, name):
    """The `Level` of a mixture that comes in `blocks` (channels, time).

    Mean and variance are joined block by block (Chan, Golub, LeVeque, 1983): no digits are lost to a large mean.
    Raises `UserError`, which speaks of `name`, for no samples, or NaN or infinite ones.
    """
    samples, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        mono = torch.as_tensor(block).double().mean(0)
        if not torch.isfinite(mono).all():
            raise UserError(f"{name} holds NaN or infinite samples; export it again.")
        if count := len(mono):
            step = mono.mean().item() - mean
            squares += mono.var(correction=0).item() * count + step**2 * samples * count / (samples + count)
            samples += count
            mean += step * count / samples
    if not samples:
        raise UserError(f"{name} holds no samples.")
    return Level(samples, mean, (squares / samples) ** 0.5)


@torch.no_grad()
def stream(model, blocks, level, *, seconds=10.0, overlap=0.1, shifts=0, seed=0, batch=BATCH):
    """Yield the estimates of a mixture of any length, (sources, channels, time), part by part from its beginning.

    blocks: the mixture from its beginning, (channels, time) each, any lengths; level: of the whole mixture. The rest as
    in `separate`. Memory depends on `seconds` and `batch` alone: what lies before the next chunk is forgotten.
    """
    if level.std < 1e-8:
        yield from (torch.zeros(model.sources, *block.shape) for block in blocks)
        return
    offsets = np.random.RandomState(seed).randint(SAMPLERATE // 2, size=shifts).tolist() if shifts else [0]
    length = min(round(seconds * SAMPLERATE), level.samples + max(offsets))
    fade = min(round(overlap * length), length // 2)
    chunks = sorted(chunk for offset in offsets for chunk in _chunks(level.samples, offset, length, fade))
    valid = model.valid_length(length + 2 * model.margin)
    normalised = ((torch.as_tensor(block) - level.mean) / level.std for block in blocks)
    inputs = _inputs(normalised, [start - (valid - length) // 2 for start, *_ in chunks], valid)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        # The same buffers for all groups, as new ones would fragment the memory; sums are from sample `done` on.
        mixtures = torch.empty(min(batch, len(chunks)), model.audio_channels, valid)
        longest = min((batch - 1) * (length - fade) + length, level.samples)
        sums, done = torch.zeros(model.sources, model.audio_channels, longest), 0
        for first in range(0, len(chunks), batch):
            group = chunks[first : first + batch]
            for mixture in mixtures[: len(group)]:
                mixture.copy_(next(inputs))
            estimates = model(mixtures[: len(group)].to(device))
            _add(sums, done, group, center_trim(estimates, length).cpu(), fade, level.samples)
            del estimates  # much memory, which the next ones need
            complete = max(chunks[first + batch][0], 0) if first + batch < len(chunks) else level.samples
            parts = sums[..., : complete - done].split(BLOCK, dim=-1)
            yield from (part * (level.std / len(offsets)) + level.mean for part in parts)
            rest = sums[..., complete - done :][..., :length].clone()
            sums.zero_()[..., : rest.shape[-1]] = rest
            done = complete
    finally:
        model.train(was_training)


def _chunks(samples, offset, length, fade):
    """(start, is first, is last) of each chunk of `length` samples; a shift by `offset` begins so much earlier."""
    starts = range(-offset, max(samples - fade, 1 - offset), length - fade)
    return [(start, start == starts[0], start == starts[-1]) for start in starts]


def _inputs(blocks, starts, samples):
    """Yield, for each of `starts` (ascending), `samples` samples of the mixture from there, zeros beyond its ends."""
    blocks = iter(blocks)
    held, begin = next(blocks), 0
    for start in starts:
        while begin + held.shape[-1] < start + samples and (block := next(blocks, None)) is not None:
            held = torch.cat([held, block], dim=-1)
        passed = min(max(start - begin, 0), held.shape[-1])
        held, begin = held[:, passed:], begin + passed
        before = max(-start, 0)
        part = held[:, : max(samples - before, 0)]
        yield pad(part, (before, samples - before - part.shape[-1]))


def _window(length, fade, chunk):
    """Weights of a chunk's samples: with its neighbours' they sum to one."""
    _, first, last = chunk
    window, rise = torch.ones(length), torch.arange(1, fade + 1) / (fade + 1)
    if fade and not first:
        window[:fade] = rise
    if fade and not last:
        window[-fade:] = rise.flip(0)
    return window


def _add(sums, done, chunks, estimates, fade, samples):
    """Add the estimates of `chunks` to `sums`, which begin at sample `done` of `samples`."""
    length = estimates.shape[-1]
    for chunk, estimate in zip(chunks, estimates, strict=True):
        start, stop = max(chunk[0], 0), min(chunk[0] + length, samples)
        weighted = estimate * _window(length, fade, chunk)
        sums[..., start - done : stop - done] += weighted[..., start - chunk[0] : stop - chunk[0]]


def load_generator(path=None):
    """The generator in `path`, on the CPU; without one, the small one that this repository carries.

    path: a model.safetensors of this project, the folder of a run's arm, or a checkpoint of Demucs v1 as its authors
    published it; which one, its content says. Raises `UserError` for anything else.
    """
    path = Path(path or BUNDLED)
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        with path.open("rb") as file:
            ours = file.read(9)[8:] in (b"{", b"")  # the header of safetensors, after its length
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); give the path of a generator's weights.") from error
    model = load_weights(path) if ours else Demucs.load_published(path)
    if (model.sources, model.audio_channels, model.samplerate) != (len(SOURCES), CHANNELS, SAMPLERATE):
        raise UserError(
            f"{path} makes {model.sources} stems of {model.audio_channels} channel(s) at {model.samplerate} Hz; "
            f"{len(SOURCES)} of {CHANNELS} at {SAMPLERATE} Hz are needed."
        )
    return model


def separate_song(model, path, out, *, form="24", shifts=0):
    """Separate the song in the file `path` into `out`/<name of the song>/<stem>.wav, with progress and remarks.

    Arguments as in `lib.songs.write_stems` and `separate`. Raises `UserError` for a song that cannot be read, an
    estimate that is not finite, or a folder that cannot be written.
    """
    folder = Path(out) / song_name(path)
    with scratch_folder(out) as scratch:
        song = Song(path, scratch)
        level = measure(song.blocks(), str(path))
        if song.mixed_down:
            print(f"{path} has {song.mixed_down} channels: its stereo downmix is separated, and the stems sum to that.")
        estimates = _watched(stream(model, song.blocks(), level, shifts=shifts), song_name(path), level.samples)
        peaks, gain = write_stems(song, estimates, folder, scratch, form)
    print(f"{folder}: peaks of " + ", ".join(f"{source} {decibels(peak):.1f} dB" for source, peak in peaks.items()))
    if gain < 1:
        print(
            f"{folder}: all four stems are {-decibels(gain):.1f} dB quieter than in the song, because the loudest "
            f"would clip at {form} bits; their balance is kept, and --format float keeps the level too."
        )


def _watched(estimates, name, samples):
    """The parts of `estimates`, if they are finite, with a progress bar in seconds of the song."""
    done = 0
    with progress(name, round(samples / SAMPLERATE), unit="s") as bar:
        for part in estimates:
            if not torch.isfinite(part).all():
                raise UserError(f"The generator's estimates of {name} are not finite; its weights are damaged.")
            yield part
            done += part.shape[-1]
            bar.update(round(done / SAMPLERATE) - bar.n)


def _parser():
    parser = Parser(
        prog="python -m lib.separate",
        description="Separate songs into drums, bass, other and vocals: one wav file each, as loud and as long as in "
        "the song, with its sample rate and as many channels (more than two are mixed down to stereo).",
        epilog="""examples:
  python -m lib.separate song.mp3
  python -m lib.separate *.flac --checkpoint results/study/l1-42 --out stems --format float
  python -m lib.separate "Band - Song.stem.mp4" --checkpoint demucs.th.gz --shifts 10

A song may be wav, flac, mp3, ogg, .stem.mp4 (its mixture) or whatever else ffmpeg decodes, of any sample rate and
length. The networks work at 44,100 Hz, so what a song of a higher rate holds above 22 kHz is in no stem.
Without --checkpoint a small model is used that learned only from this project's composed corpus: it works at once,
and it is no match for one that learned from recorded music.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("songs", nargs="+", metavar="SONG", help="audio file")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="generator: model.safetensors of a run, the folder it lies in, or Demucs v1's published weights "
        "(.th, .th.gz) as they are; default: the model that the repository carries",
    )
    parser.add_argument("--out", default="separated", metavar="FOLDER", help="stems go to FOLDER/SONG/drums.wav … "
                        "(default: %(default)s); those of an earlier run are replaced")  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default="24", help="bits per sample of the wav files, or 32-bit "
                        "float, which cannot clip; at 16 and 24 all stems of a song become quieter by the same factor "
                        "if one would clip, and a line says so (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shifts", type=int, default=0, metavar="N", help="average over N random shifts of the song: "
                        "a little better, N times slower; 10 in the paper (default: %(default)s)")  # fmt: skip
    return parser


def main(arguments=None):
    """The command. Returns its exit status: 0, or 1 when a song could not be separated (the others were)."""
    options = _parser().parse_args(arguments)
    if options.shifts < 0:
        raise UserError(f"--shifts {options.shifts} must be 0 or more.")
    keep_buffers()
    model = prepare(load_generator(options.checkpoint).to("cuda" if torch.cuda.is_available() else "cpu"))
    taken, failed = {}, 0
    for path in options.songs:
        try:
            if other := taken.get(song_name(path).casefold()):
                raise UserError(f"{path} would overwrite the stems of {other}; rename one, or give it another --out.")
            separate_song(model, path, options.out, form=options.format, shifts=options.shifts)
            taken[song_name(path).casefold()] = path
        except UserError as error:
            failed += 1
            print(error, file=sys.stderr)
    if taken and not options.checkpoint:
        print("The bundled model knows only this project's composed corpus; --checkpoint FILE takes a better one.")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the songs that were finished are kept, and nothing half-written is left.")
