"""Hear and see what the arms of a run make of a track: excerpts, their estimates, and the scores second by second."""

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import signal

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.common.provenance import ROOT
from lib.data.songs import Song
from lib.data.tracks import SAMPLERATE, SOURCES, read_index
from lib.evaluation.results import ARMS, METRICS, check_versions
from lib.evaluation.spectral import spectral_measures
from lib.models.weights import load_weights
from lib.runs.folders import arm_and_seed
from lib.runs.launch import trained
from lib.separate import separate


@dataclass(frozen=True)
class Excerpt:
    """A few seconds of a track. Audio: float32, (channels, samples); residuals are estimate − reference."""

    name: str
    begin: int  # sample of the track at which it starts
    mixture: np.ndarray
    references: dict  # {stem: audio}
    estimates: dict  # {arm: {stem: audio}}

    def residual(self, arm, stem):
        """What is wrong with an estimate: what it holds too much, and, with the sign turned, what it lacks."""
        return self.estimates[arm][stem] - self.references[stem]

    @property
    def seconds(self):
        """(first, last) second within the track."""
        return self.begin / SAMPLERATE, (self.begin + self.mixture.shape[-1]) / SAMPLERATE


def heard_arms(run):
    """{arm: <arm>-<seed>} of a run's folder: every trained arm with its lowest seed, in the order of the report."""
    first = {}
    for name in trained(run):  # sorted
        first.setdefault(arm_and_seed(name)[0], name)
    rank = list(ARMS)
    return dict(sorted(first.items(), key=lambda item: rank.index(item[0]) if item[0] in rank else len(rank)))


def pick_track(run, number):
    """Test track `number` of a run; raises `UserError` where there is none."""
    tracks = read_index(run / "data.json")[0]["test"]
    if not -len(tracks) <= number < len(tracks):
        raise UserError(f"There is no test track {number}: this run has {len(tracks)}, counted from 0.")
    return tracks[number]


def known_stems(names):
    """`names`, which must be stems; raises `UserError` for another, or none."""
    unknown = [name for name in names if name not in SOURCES]
    if unknown or not names:
        raise UserError(f"There is no stem {unknown[0] if unknown else ''!r}; choose from {', '.join(SOURCES)}.")
    return names


def excerpt(run, track, start, seconds, shifts=0, arms=None):
    """The `Excerpt` of a test track that arms of `run` have separated whole, as for their scores.

    start: second of the track, or None: where all four stems sound. shifts: as in `lib.separate.separate`.
    arms: {arm: <arm>-<seed>}, by default all of `heard_arms`.
    Raises `UserError` unless seconds are above 0.
    """
    if seconds <= 0:
        raise UserError(f"An excerpt of {seconds:g} s cannot be heard; choose seconds above 0.")
    stems, length = track.stems(), min(round(seconds * SAMPLERATE), track.samples)
    begin = liveliest(stems, length) if start is None else round(start * SAMPLERATE)
    begin = max(0, min(begin, track.samples - length))
    part = slice(begin, begin + length)
    arms = heard_arms(run) if arms is None else arms
    estimates = {arm: estimate(run / name, track, shifts)[..., part] for arm, name in arms.items()}
    return Excerpt(
        name=track.name,
        begin=begin,
        mixture=track.mixture()[:, part],
        references=dict(zip(SOURCES, stems[..., part], strict=True)),
        estimates={arm: dict(zip(SOURCES, sound, strict=True)) for arm, sound in estimates.items()},
    )


def liveliest(stems, length, hop=SAMPLERATE // 4):
    """First of the `length` samples of which the quietest quarter of the quietest of `stems` is loudest.

    stems: (sources, channels, time); each is as loud as the others over the whole track.
    """
    length = min(length, stems.shape[-1])
    power = np.square(stems).mean(axis=1)
    energy = (power / power.sum(axis=-1, keepdims=True).clip(1e-12)).cumsum(axis=-1)
    starts = np.arange(0, max(1, stems.shape[-1] - length), hop)
    corners = np.linspace(starts, starts + length - 1, 5).astype(int)  # (5, starts)
    quarters = np.diff(energy[:, corners], axis=1)  # (sources, 4, starts)
    return int(starts[quarters.min(axis=(0, 1)).argmax()])


@lru_cache(maxsize=8)
def estimate(arm_folder, track, shifts=0):
    """Estimates (sources, channels, samples) of a whole track by the weights in an arm's folder."""
    return separate(load_weights(arm_folder / "model.safetensors"), track.mixture(), shifts=shifts).numpy()


def scores(run, track, test_set="test"):
    """BSSEval of every heard arm on a track, window by window: DataFrame arm, target, second, SDR, ISR, SIR, SAR.

    A window without sound in reference or estimate holds NaN. Raises `UserError` where 03-sdr-table has not scored it.
    """
    rows = []
    for arm, name in heard_arms(run).items():
        file = run / name / "eval" / test_set / "tracks" / f"{track.name}.json"
        if not file.exists():
            raise UserError(f"{name} has no score on {track.name}; run the notebook 03-sdr-table for this run first.")
        check_versions(file.parents[1])
        for target in read_json(file)["targets"]:
            rows += [
                {"arm": arm, "target": target["name"], "second": frame["time"], **frame["metrics"]}
                for frame in target["frames"]
            ]
    return pd.DataFrame(rows)[["arm", "target", "second", *METRICS]]


def detail(part, stem):
    """How much fine detail each arm left in an excerpt's `stem`: DataFrame, a row per arm.

    Columns are those of `lib.evaluation.spectral` and `tone`, see there.
    """
    reference = part.references[stem]
    rows = {arm: spectral_measures(stems[stem], reference) for arm, stems in part.estimates.items()}
    tones = {arm: tone(stems[stem]) - tone(reference) for arm, stems in part.estimates.items()}
    return pd.DataFrame(rows).T.assign(tone=tones)


def tone(audio, hertz=SAMPLERATE / 4):
    """How far (dB) `audio` (channels, samples) stands out at `hertz`, by default a quarter of the sampling rate.

    Loudest bin within 60 Hz over the median within 2 kHz. Transposed convolutions of stride 4, as the decoder has, tend
    to hum there. Source: Pons et al., "Upsampling artifacts in neural audio synthesis" (arXiv 2010.14356).
    """
    frequencies, power = signal.welch(audio, SAMPLERATE, nperseg=min(4096, audio.shape[-1]))
    power, distance = power.mean(axis=0) + 1e-14, np.abs(frequencies - hertz)
    return 10 * np.log10(power[distance < 60].max() / np.median(power[distance < 2000]))


def compared(part, stem):
    """{row: {name: audio}} for `lib.report.audio.players`: a stem's reference, estimates and residuals."""
    arms = {arm: ARMS.get(arm, arm) for arm in part.estimates}
    return {
        f"{stem}: the true stem and its estimates": {"true stem": part.references[stem]}
        | {arms[arm]: part.estimates[arm][stem] for arm in arms},
        f"{stem}: residuals (estimate − true stem)": {arms[arm]: part.residual(arm, stem) for arm in arms},
    }


def separate_song(run, path, start, seconds):
    """{row: {name: audio}} of `seconds` of a song file, from second `start`: itself, and its stems by every arm.

    path: from here or from the repository. Raises `UserError` for what is no song, or is over before `start`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Song(ROOT / Path(path).expanduser(), Path(scratch))
        begin = round(start * SAMPLERATE)
        mixture = np.concatenate(list(file.blocks()), axis=1)[:, begin : begin + round(seconds * SAMPLERATE)]
    if not mixture.shape[1]:
        raise UserError(f"{path} lasts {file.seconds:.1f} s; choose a song_start before {start:g} s.")
    rows = {"your song": {"as it is": mixture}}
    for arm, name in heard_arms(run).items():
        estimates = separate(load_weights(run / name / "model.safetensors"), mixture).numpy()
        rows[ARMS.get(arm, arm)] = dict(zip(SOURCES, estimates, strict=True))
    return rows
