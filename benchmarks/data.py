"""Loading excerpts on one core: by musdb, by soundfile, from the original's raw float files, and by lib.data.tracks.

    python -m benchmarks.data [--seconds 240] [--rounds 5]

Excerpts have 5 stems (mixture, drums, bass, other, vocals), 2 channels and 11 s, at random places of synthetic tracks
of `--seconds`; files are in the page cache. "Augmented batch" covers everything from the files to a batch of 4: 10 s of
every stem, shifted, with random channels and signs, remixed. The original-equivalent path makes one pass over tensors
for each of these, as Demucs v1 does (arXiv 1911.13254, section 5.1); `lib.data.batches.Batches` does it in reading.

All paths run by turns in every round. Time is process-CPU time, including ffmpeg's processes; a ratio is the median
over rounds of the ratio within a round. The table is printed and written to benchmarks/data.md.
"""

import argparse
import itertools
import os
import resource
import statistics
import tempfile
from pathlib import Path

import musdb
import numpy as np
import soundfile
import torch

from benchmarks.page import write_section
from lib.data.batches import Batches
from lib.data.decode import decode
from lib.data.musdb import list_musdb
from lib.data.tracks import CHANNELS, SAMPLERATE, SOURCES, Excerpts

LENGTH, SHIFT, BATCH = 11 * SAMPLERATE, SAMPLERATE, 4  # samples, samples, excerpts
NAMES = ("mixture", *SOURCES)


def make_tracks(root, seconds, count=2):
    """Write a musdb folder of wav tracks of noise under `root`; noise takes as long to read as music."""
    random = np.random.RandomState(0)
    for k in range(count):
        folder = root / "train" / f"Band {k} - Song"
        folder.mkdir(parents=True)
        stems = random.randint(-8000, 8000, (len(SOURCES), seconds * SAMPLERATE, CHANNELS)).astype(np.int16)
        for name, audio in zip(NAMES, (stems.sum(0, dtype=np.int16), *stems), strict=True):
            soundfile.write(folder / f"{name}.wav", audio, SAMPLERATE)


# Ways to read one excerpt, (stems, channels, samples) or (stems, samples, channels), float


def through_musdb(root):
    """musdb, used as its documentation shows: chunk by chunk, through the track's stems."""
    tracks = musdb.DB(str(root), is_wav=True, subsets="train").tracks

    def read(k, start):
        tracks[k].chunk_start, tracks[k].chunk_duration = start / SAMPLERATE, LENGTH / SAMPLERATE
        return tracks[k].stems

    return read


def whole_by_soundfile(folders):
    def read(k, start):
        whole = [soundfile.read(folders[k] / f"{name}.wav", dtype="float32")[0] for name in NAMES]
        return np.stack([audio[start : start + LENGTH] for audio in whole])

    return read


def excerpt_by_soundfile(folders):
    def read(k, start):
        files = [folders[k] / f"{name}.wav" for name in NAMES]
        return np.stack([soundfile.read(file, LENGTH, start, dtype="float32")[0] for file in files])

    return read


def raw_float(files):
    """The original's way: one float32 file per track, sample by sample with all stems and channels."""
    frame = len(NAMES) * CHANNELS

    def read(k, start):
        values = np.fromfile(files[k], np.float32, LENGTH * frame, offset=start * frame * 4)
        return torch.from_numpy(values).view(LENGTH, len(NAMES), CHANNELS).permute(1, 2, 0).contiguous()

    return read


def by_lib_data(tracks):
    excerpts = Excerpts(tracks, LENGTH, 1)
    first = np.cumsum([0, *(track.samples - LENGTH + 1 for track in tracks)])

    def read(k, start):
        out = np.empty((len(NAMES), CHANNELS, LENGTH), np.float32)
        for row, audio in enumerate(out):
            excerpts.read(first[k] + start, audio, row - 1)
        return out

    return read


# Ways from the files to an augmented batch


def original_batches(read, tracks, generator):
    """Normalised excerpts, then one pass over tensors for each of shift, channels, signs and remix."""

    def batch(places):
        items = [(read(k, start)[1:] - tracks[k].mean) / tracks[k].std for k, start in places]
        wav = torch.stack(items)
        items, stems, channels, length = wav.shape
        offsets = torch.randint(SHIFT, (items, stems, 1, 1), generator=generator).expand(-1, -1, channels, -1)
        wav = wav.gather(3, offsets + torch.arange(length - SHIFT))
        left = torch.randint(2, (items, stems, 1, 1), generator=generator).expand(-1, -1, -1, length - SHIFT)
        wav = wav.gather(2, torch.cat([left, 1 - left], dim=2))
        wav = wav * (2 * torch.randint(2, (items, stems, 1, 1), generator=generator) - 1).float()
        partner = torch.rand(items, stems, 1, 1, generator=generator).argsort(0)
        return wav.gather(0, partner.expand_as(wav))

    return batch


def our_batches(tracks):
    batches = Batches(Excerpts(tracks, LENGTH, SAMPLERATE), batch=BATCH, shift=SHIFT, remix_group=BATCH, seed=[0])
    steps = itertools.count()

    def run(places):
        for _ in range(len(places) // BATCH):
            batches(next(steps))

    return run


# Measurement


def one_by_one(read):
    """Read excerpts and discard each before the next: keeping them would measure memory allocation."""

    def run(places):
        for place in places:
            read(*place)

    return run


def cpu_seconds():
    """CPU time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(ways, places, rounds):
    """{way: [excerpts per CPU second in each round]}: `ways` maps a name to (function of places, excerpts)."""
    found = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, (function, count) in ways.items():
            drawn = [places() for _ in range(count)]
            began = cpu_seconds()
            function(drawn)
            found[name].append(count / (cpu_seconds() - began))
    return {name: rates[1:] for name, rates in found.items()}  # the first round opened files and filled the cache


def prepare(root, seconds):
    """Make the tracks in all forms; ({way of reading: function}, {way of batching: function}, number of tracks)."""
    make_tracks(root / "musdb", seconds)
    paths = {name: path for part in list_musdb(root / "musdb").values() for name, path in part.items()}
    tracks, folders = decode(paths, root / "decoded"), list(paths.values())
    raw = [root / f"{k}.raw" for k in range(len(tracks))]
    for file, track in zip(raw, tracks, strict=True):
        (track.audio().transpose(2, 0, 1) / np.float32(32_768)).astype(np.float32).tofile(file)
    readers = {
        "musdb, naive (`track.stems` of a chunk)": (through_musdb(root / "musdb"), 1),
        "soundfile, whole files": (whole_by_soundfile(folders), 1),
        "soundfile, excerpt": (excerpt_by_soundfile(folders), 8),
        "raw float32 files, as the original's": (raw_float(raw), 16),
        "lib.data.tracks": (by_lib_data(tracks), 32),
    }
    batchers = {
        "original-equivalent": (original_batches(raw_float(raw), tracks, torch.Generator().manual_seed(0)), BATCH),
        "lib.data.batches.Batches": (our_batches(tracks), 16 * BATCH),
    }
    return tracks, readers, batchers


def table(title, rates):
    """Rows of a Markdown table; the last way is ours."""
    *_, ours = rates
    yield f"| {title} | excerpts per CPU second | ours is faster by |"
    yield "|---|---|---|"
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates[ours], values, strict=True))
        yield f"| {name} | {statistics.median(values):.3g} | {'–' if name == ours else f'{ratio:.3g}×'} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, help="length of a track")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    random = np.random.RandomState(1)
    with tempfile.TemporaryDirectory() as root:
        tracks, readers, batchers = prepare(Path(root), arguments.seconds)

        def place():
            return random.randint(len(tracks)), random.randint(tracks[0].samples - LENGTH)

        reading = measure(
            {name: (one_by_one(read), count) for name, (read, count) in readers.items()}, place, arguments.rounds
        )
        batching = measure(batchers, place, arguments.rounds)
    lines = [*table("excerpt", reading), "", *table(f"augmented batch of {BATCH} × 4 stems × 10 s", batching)]
    print(*lines, sep="\n")
    title = f"Loading on one core: 5 stems × 2 channels × 11 s from tracks of {arguments.seconds} s, warm cache"
    write_section(Path(__file__).with_suffix(".md"), title, lines)


if __name__ == "__main__":
    main()
