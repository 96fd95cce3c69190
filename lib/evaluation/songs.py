"""How well a generator separates songs whose stems are known; `python -m lib.evaluation.songs --help` explains it.

The measure: the SDR of every second in which a stem sounds, its median over these seconds, then over songs. Stems of
real songs rest for long: the other seconds say nothing of the stem, and BSSEval leaves a second out for all stems where
one of them is silent. In a second where all of them sound, this SDR is BSSEval's.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.common.errors import Parser, UserError
from lib.common.files import atomic
from lib.common.processes import command, keep_buffers
from lib.common.progress import progress
from lib.common.words import join, literal, plain
from lib.data.decode import read_track
from lib.data.musdb import list_tracks
from lib.data.tracks import FULL_SCALE, SAMPLERATE, SOURCES
from lib.evaluation.score import estimate
from lib.models.weights import load_generator

QUIET = -45.0  # dB: a stem whose mean square is not above it rests


def sdr_of_seconds(reference, estimate):
    """SDR in dB of one stem, (seconds,), NaN where it rests. Both arguments: (channels, samples), full scale 1.

    The rest of a second at the end is left out; a shorter song is one second.
    """
    second = min(SAMPLERATE, reference.shape[1])
    energy, error = (_mean_squares(x, second) for x in (reference, estimate - reference))
    with np.errstate(divide="ignore"):
        sounds = 10 * np.log10(energy) > QUIET
        return np.where(sounds, 10 * np.log10(energy / np.where(sounds, error, 1)), np.nan)


def _mean_squares(x, size):
    parts = x[:, : x.shape[1] // size * size].reshape(len(x), -1, size)
    return np.square(parts, dtype=np.float64).mean((0, 2))


def measure(model, folder):
    """The scores of `model`, a generator, on the songs of `folder` (as of `lib.data.musdb.list_tracks`).

    Returns a DataFrame, a row per song and stem: song, stem, sdr and mixture (the SDR of the mixture in equal parts),
    both in dB and the median over the seconds in which the stem sounds, and seconds, their number. Raises `UserError`
    if the folder holds no song.
    """
    names = getattr(model, "stems", SOURCES)
    songs, tables = list_tracks(Path(folder), names), []
    if not songs:
        raise UserError(f"{folder} holds no songs; give a folder with one folder per song, each with {join(names)}.")
    for name, path in progress("separate", len(songs), songs.items(), unit="songs"):
        audio, scale, remarks = read_track(path, names)
        for remark in remarks:
            print(remark)
        mixture, *stems = audio.astype(np.float32) / np.float32(FULL_SCALE / scale)
        estimates = estimate(model, mixture, shifts=0)
        for source, stem, separated in zip(names, stems, estimates, strict=True):
            floor = sdr_of_seconds(stem, mixture / len(stems))
            sdr = {"sdr": sdr_of_seconds(stem, separated), "mixture": floor}
            tables.append(pd.DataFrame({"song": name, "stem": source} | sdr))
    seconds = pd.concat(tables).groupby(["song", "stem"], sort=False)
    return seconds.median().assign(seconds=seconds["sdr"].count()).reset_index()


def markdown(scores):
    """The result of `measure` as a Markdown table: songs, then the median over them; the mixture's in brackets."""
    names = list(scores["stem"].unique())
    table = [f"| SDR in dB | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    groups = [
        (literal(song).replace("|", r"\|"), rows.set_index("stem")) for song, rows in scores.groupby("song", sort=False)
    ]
    medians = scores.groupby("stem")[["sdr", "mixture"]].median()
    for name, rows in [*groups, ("**median over songs**", medians)]:
        pairs = rows.loc[names, ["sdr", "mixture"]].to_numpy()
        cells = [f"{plain(sdr)} ({plain(floor)})" if not np.isnan(sdr) else "rests" for sdr, floor in pairs]
        table.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(table)


def main(arguments=None):
    """Run the command."""
    parser = Parser(
        prog="python -m lib.evaluation.songs",
        description="Separate songs whose stems are known and print the SDR of every stem: the median over the "
        f"seconds in which it is above {QUIET:g} dB, in brackets that of the mixture divided equally.",
        epilog="FOLDER holds one folder per song with the generator's stems (of the bundled model drums, bass, other "
        "and vocals) as wav, flac, mp3, ogg or m4a files, and a mixture unless it is their sum; or .stem.mp4 files.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of songs")
    parser.add_argument("--checkpoint", metavar="FILE", help="generator, as of python -m lib.separate (default: the "
                        "bundled model)")  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="write the scores of every song and stem to FILE too")
    options = parser.parse_args(arguments)
    keep_buffers()
    model = load_generator(options.checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    scores = measure(model, options.folder)
    if options.csv:
        with atomic(options.csv) as file:
            scores.to_csv(file, index=False, float_format="%.4f")
    print(markdown(scores))


if __name__ == "__main__":
    command(main)
