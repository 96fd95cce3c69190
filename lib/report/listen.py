"""What 05-listen and 06-explore show: excerpts of test tracks, the arms' estimates of them, scores per second."""

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
from lib.config import one_of, require
from lib.data.songs import Song
from lib.data.tracks import SAMPLERATE, read_index
from lib.evaluation.results import ARMS, METRICS, check_versions
from lib.evaluation.spectral import spectral_measures
from lib.models.weights import load_weights
from lib.runs.folders import arm_and_seed, trained
from lib.separate import separate

TONE = SAMPLERATE / 4  # Hz


@dataclass(frozen=True)
class Excerpt:
    """A few seconds of a track. Audio: float32, (channels, samples)."""

    name: str
    begin: int  # first sample, counted within the track
    mixture: np.ndarray
    references: dict  # {stem: audio}
    estimates: dict  # {arm: {stem: audio}}

    def residual(self, arm, stem):
        """Estimate − reference: all that is wrong with an estimate."""
        return self.estimates[arm][stem] - self.references[stem]

    @property
    def seconds(self):
        """(start, end) within the track, in seconds."""
        return self.begin / SAMPLERATE, (self.begin + self.mixture.shape[-1]) / SAMPLERATE


def heard_arms(run, wanted=()):
    """{arm: <arm>-<seed>} of the run in folder `run`: every trained arm with its lowest seed, in the report's order.

    wanted: only these arms; raises `UserError` for one that is not trained.
    """
    first = {}
    for name in trained(run):
        first.setdefault(arm_and_seed(name)[0], name)
    for arm in wanted:
        require("listen_arms", arm, one_of(first))
    return {arm: name for arm, name in first.items() if not wanted or arm in wanted}


def pick_track(run, number):
    """Return test track `number` of a run; raises `UserError` if there is no such track."""
    tracks = read_index(run / "data.json")[0]["test"]
    if not -len(tracks) <= number < len(tracks):
        raise UserError(f"There is no test track {number}: this run has {len(tracks)}, counted from 0.")
    return tracks[number]


def excerpt(run, track, start, seconds, shifts=0, arms=None):
    """Return an `Excerpt` of a test track; the arms of `run` separate the whole track, as for their scores.

    start: in seconds; None chooses a place where all stems sound. shifts: see `lib.separate.separate`.
    arms: {arm: <arm>-<seed>}, by default `heard_arms`.
    """
    stems, length = track.stems(), min(round(seconds * SAMPLERATE), track.samples)
    begin = liveliest(stems, length) if start is None else round(start * SAMPLERATE)
    begin = max(0, min(begin, track.samples - length))
    part = slice(begin, begin + length)
    arms = heard_arms(run) if arms is None else arms
    found = {arm: estimate(run / name, track, shifts)[..., part] for arm, name in arms.items()}
    estimates = {arm: dict(zip(track.sources, sounds, strict=True)) for arm, sounds in found.items()}
    references = dict(zip(track.sources, stems[..., part], strict=True))
    return Excerpt(track.name, begin, track.mixture()[:, part], references, estimates)


def pick_stems(track, names=()):
    """The `names`, or without any the first and the last stem of `track`; raises `UserError` for an unknown one."""
    for name in names:
        require("listen_stems, detail_stem", name, one_of(track.sources))
    return list(names) or [track.sources[0], track.sources[-1]]


def liveliest(stems, length):
    """Start of the window of `length` samples in which even the quietest quarter of the quietest stem is loudest.

    stems: (sources, channels, time). Loudness is relative to each stem's energy over the whole track.
    """
    length = min(length, stems.shape[-1])
    sounding = stems[stems.any((1, 2))] if stems.any() else stems  # a stem that never sounds is quiet everywhere
    power = np.square(sounding).mean(axis=1)
    energy = (power / power.sum(axis=-1, keepdims=True).clip(1e-12)).cumsum(axis=-1)
    starts = np.arange(0, max(1, stems.shape[-1] - length), SAMPLERATE // 4)
    corners = np.linspace(starts, starts + length - 1, 5).astype(int)  # (5, starts)
    quarters = np.diff(energy[:, corners], axis=1)  # (sources, 4, starts)
    return int(starts[quarters.min(axis=(0, 1)).argmax()])


@lru_cache(maxsize=8)
def estimate(arm_folder, track, shifts):
    """Estimates (sources, channels, samples) of a whole track with the weights in an arm's folder."""
    return separate(load_weights(arm_folder / "model.safetensors"), track.mixture(), shifts=shifts).numpy()


def separate_all(run, mixture, wanted=()):
    """{arm: {stem: audio}}: the estimates of the `heard_arms` for a `mixture` (channels, samples)."""
    models = {arm: load_weights(run / name / "model.safetensors") for arm, name in heard_arms(run, wanted).items()}
    return {arm: dict(zip(m.stems, separate(m, mixture).numpy(), strict=True)) for arm, m in models.items()}


def scores(run, track, wanted=()):
    """BSSEval of the `heard_arms` on a test track: DataFrame arm, target, second, SDR, ISR, SIR, SAR (NaN: silence).

    Raises `UserError` if 03-sdr-table has not scored the track.
    """
    rows = []
    for arm, name in heard_arms(run, wanted).items():
        file = run / name / "eval" / "test" / "tracks" / f"{track.name}.json"
        if not file.exists():
            raise UserError(f"{name} has no score on {track.name}; run the notebook 03-sdr-table for this run first.")
        check_versions(file.parents[1])
        for target in read_json(file)["targets"]:
            fixed = {"arm": arm, "target": target["name"]}
            rows += [fixed | {"second": frame["time"], **frame["metrics"]} for frame in target["frames"]]
    return pd.DataFrame(rows)[["arm", "target", "second", *METRICS]]


def detail(part, stem):
    """How much fine detail each arm left in a stem of an `Excerpt`: DataFrame, one row per arm.

    Columns: `lib.evaluation.spectral.COLUMNS`, and by how many dB `tone` exceeds that of the true stem.
    """
    reference = part.references[stem]
    sounds = {arm: stems[stem] for arm, stems in part.estimates.items()}
    tones = {arm: tone(sound) - tone(reference) for arm, sound in sounds.items()}
    rows = {arm: spectral_measures(sound, reference, part.mixture) for arm, sound in sounds.items()}
    return pd.DataFrame(rows).T.assign(tone=tones)


def tone(audio):
    """Level in dB of the tone at `TONE` in `audio` (channels, samples), relative to the spectrum around it.

    The loudest bin within 60 Hz over the median within 2 kHz. Transposed convolutions of stride 4, such as the
    decoder's, tend to hum at a quarter of the sampling rate. Source: Pons et al. (arXiv 2010.14356).
    """
    frequencies, power = signal.welch(audio, SAMPLERATE, nperseg=min(4096, audio.shape[-1]))
    power, distance = power.mean(axis=0) + 1e-14, np.abs(frequencies - TONE)
    return 10 * np.log10(power[distance < 60].max() / np.median(power[distance < 2000]))


def compared(part, stem):
    """Return the rows of `lib.report.audio.players` for a stem of an `Excerpt`: its estimates and their residuals."""
    estimates = {ARMS.get(arm, arm): sounds[stem] for arm, sounds in part.estimates.items()}
    residuals = {ARMS.get(arm, arm): part.residual(arm, stem) for arm in part.estimates}
    return {
        f"{stem}: the true stem and its estimates": {"true stem": part.references[stem]} | estimates,
        f"{stem}: residuals (estimate − true stem)": residuals,
    }


def separate_song(run, path, start, seconds, wanted=()):
    """Separate `seconds` of a song file from second `start`; return the rows of `lib.report.audio.players`.

    path: absolute, or relative to the repository. Raises `UserError` for a song that ends before `start`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Song(ROOT / Path(path).expanduser(), Path(scratch))
        begin = round(start * SAMPLERATE)
        mixture = np.concatenate(list(file.blocks()), axis=1)[:, begin : begin + round(seconds * SAMPLERATE)]
    for remark in file.remarks:
        print(remark)
    if not mixture.shape[1]:
        raise UserError(f"{path} lasts {file.frames / file.samplerate:.1f} s; choose a song_start before {start:g} s.")
    estimates = separate_all(run, mixture, wanted)
    return {"your song": {"mixture": mixture}} | {ARMS.get(arm, arm): stems for arm, stems in estimates.items()}
