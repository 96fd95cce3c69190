"""How much songs sound like others: properties of every stem, as `python -m lib.evaluation.likeness --help` explains.

No measure knows what a record is; each is a number that differs between synthetic and recorded stems. A corpus is like
records where its songs' values surround those of the real songs.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import signal

from lib.common.errors import Parser, UserError
from lib.common.files import atomic, read_json, write_json
from lib.common.processes import command, keep_buffers
from lib.common.progress import progress
from lib.common.provenance import ROOT, made_by
from lib.data.tracks import FULL_SCALE, SAMPLERATE, SOURCES

QUIET = -45.0  # dB: a second of a stem whose mean square is not above it is silent
BANDS = 1000 * 2 ** (np.arange(-15, 14) / 3)  # edges of the third octaves, hertz
FRAME = 2048  # samples; a frame of the spectral flux
UNITS = {
    "crest factor": "dB",  # peak over root mean square, median of the seconds in which the stem sounds
    "spread of levels": "dB",  # standard deviation of the levels of these seconds
    "onsets": "1/s",  # peaks of the spectral flux per second of these seconds
    "flux": "dB",  # mean change of a third octave's level from one frame (46 ms) to the next
    "width": "dB",  # power of the sides over that of the middle
    "silence": "%",  # seconds that are silent
    "envelope with drums": "1",  # correlation of levels in 46-ms frames with those of the drums
    "level": "dB",  # power over that of the mixture
}


def decibels(power):
    """Convert power to decibels; -120 dB at least."""
    return 10 * np.log10(np.maximum(power, 1e-12))


def frames(stem):
    """Level of every third octave in every frame, in dB, at least 60 dB below the loudest: (frames, bands)."""
    _, _, spectrum = signal.stft(stem.mean(0), SAMPLERATE, nperseg=FRAME, noverlap=0, boundary=None, padded=False)
    power = np.add.reduceat(np.abs(spectrum.T) ** 2, np.unique(np.searchsorted(np.arange(FRAME // 2 + 1)
                            * SAMPLERATE / FRAME, BANDS[6:])), axis=1)[:, :-1]  # fmt: skip
    return np.maximum(decibels(power), decibels(power.max(initial=0)) - 60)


def measure(stem, drums, mixture):
    """The properties of a stem as {measure: value}; arrays: (2, samples), full scale 1. NaN: the stem is silent.

    Beside `UNITS`, they hold the long-term spectrum: "63 Hz", ...: third octaves in dB relative to the stem.
    """
    second = stem[:, : stem.shape[1] // SAMPLERATE * SAMPLERATE].reshape(2, -1, SAMPLERATE)
    power = np.square(second, dtype=np.float64).mean((0, 2))
    sounds = decibels(power) > QUIET
    if not sounds.any():
        return dict.fromkeys(UNITS, np.nan) | {"silence": 100.0}
    peak = np.abs(second).max((0, 2))
    bands = frames(stem)
    flux = np.diff(bands, axis=0)
    rise = np.maximum(flux, 0).mean(1)
    loud = np.repeat(sounds, SAMPLERATE // FRAME)[: len(rise)]
    loud = np.pad(loud, (0, len(rise) - len(loud)), constant_values=loud[-1])
    onsets, _ = signal.find_peaks(np.where(loud, rise, 0), height=3.0, distance=2)
    mid, side = np.square(stem.mean(0)).mean(), np.square((stem[0] - stem[1]) / 2).mean()
    envelopes = [decibels(np.square(x[:, : x.shape[1] // FRAME * FRAME]).reshape(2, -1, FRAME).mean((0, 2)))
                 for x in (stem, drums)]  # fmt: skip
    both = np.minimum(*envelopes) > QUIET - 15
    frequencies, spectrum = signal.welch(stem, SAMPLERATE, nperseg=16_384, scaling="spectrum")
    octaves = np.add.reduceat(spectrum.mean(0), np.searchsorted(frequencies, BANDS))[:-1]
    values = {
        "crest factor": np.median(20 * np.log10(peak[sounds]) - decibels(power[sounds])),
        "spread of levels": decibels(power[sounds]).std(),
        "onsets": len(onsets) / sounds.sum(),
        "flux": np.abs(flux[loud]).mean(),
        "width": decibels(side / mid),
        "silence": 100 * (~sounds).mean(),
        "envelope with drums": np.nan if stem is drums or both.sum() < 50
        else np.corrcoef(*(e[both] for e in envelopes))[0, 1],
        "level": decibels(np.square(stem).mean() / np.square(mixture).mean()),
    }  # fmt: skip
    centres = np.sqrt(BANDS[1:] * BANDS[:-1])
    shares = zip(centres, decibels(octaves / octaves.sum()), strict=True)
    return values | {f"{hz:.0f} Hz": share for hz, share in shares}


def table(tracks, name):
    """Measures of `tracks`, {song: path}, as of `lib.data.musdb.list_tracks` with `SOURCES`; `name`: of the set.

    Returns a DataFrame with the columns set, song, stem, measure, value and unit.
    """
    from lib.data.decode import read_track  # only here: the measures themselves need no decoder

    rows = []
    for song, path in progress("measure", len(tracks), tracks.items(), unit="songs"):
        audio, scale, _ = read_track(path)
        mixture, *stems = audio.astype(np.float32) / np.float32(FULL_SCALE / scale)
        for source, stem in zip(SOURCES, stems, strict=True):
            for key, value in measure(stem, stems[0], mixture).items():
                rows.append((name, song, source, key, value, UNITS.get(key, "dB")))
    return pd.DataFrame(rows, columns=["set", "song", "stem", "measure", "value", "unit"])


def songs(place):
    """The tracks of `place`, {song: path}: a folder of songs, the data.json of a run, or "excerpt" (the real one).

    Raises `UserError` if there are none.
    """
    from lib.data.musdb import list_tracks, real_excerpt

    if place == "excerpt":
        return real_excerpt()
    if place.endswith(".json"):
        found = {track["name"]: ROOT / track["path"] for track in read_json(Path(place))["sets"]["train"]}
    else:
        found = list_tracks(Path(place))
    if not found:
        raise UserError(f"{place} holds no songs; give a folder with one folder per song, each with its four stems.")
    return found


def main(arguments=None):
    """Run the command."""
    parser = Parser(
        prog="python -m lib.evaluation.likeness",
        description="Measure spectrum, dynamics, onsets, width, silence and levels of every stem of songs.",
        epilog="PLACE is a folder of songs with stems (wav, flac, .stem.mp4, or composed .npy), the data.json of a run "
        "(its training tracks), or the word excerpt: the real excerpt of the stempeg package.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("places", metavar="NAME=PLACE", nargs="+", help="name of the set in the table, and its songs")
    parser.add_argument("--csv", metavar="FILE", help="write every value to FILE, and who made it to FILE's .json")
    options = parser.parse_args(arguments)
    keep_buffers()
    pairs = [place.partition("=") if "=" in place else (Path(place).name, "=", place) for place in options.places]
    values = pd.concat([table(songs(place), name) for name, _, place in pairs])
    if options.csv:
        with atomic(options.csv) as file:
            values.to_csv(file, index=False, float_format="%.2f")
        write_json(Path(options.csv).with_suffix(".json"), {"made_by": made_by(), "places": options.places})
    shown = values[values["measure"].isin(UNITS)]
    medians = shown.pivot_table("value", ["measure", "stem"], "set", "median", sort=False)
    print(medians.round(1).to_string())


if __name__ == "__main__":
    command(main)
