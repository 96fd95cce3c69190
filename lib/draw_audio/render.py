"""A drawn wave as an instrument of the corpus: its notes without aliasing, and a song in which it plays a stem."""

import numpy as np

from lib.common.errors import UserError
from lib.corpus import default_soundfont, soundfont
from lib.corpus.effects import RATE, decibels, loudness
from lib.corpus.render import STEMS, mix
from lib.corpus.track import compose, generator

SIZE = 2048  # samples of a cycle
FINE = 65_536  # points of a cycle as it is played: linear interpolation between them errs below -70 dB
ENVELOPE = {"attack": 0.01, "decay": 0.4, "sustain": 0.7, "release": 0.3}  # seconds; sustain is a level


def checked_wave(wave):
    """`wave` as float32 (2048,); raises `UserError` when it is no such cycle."""
    wave = np.asarray(wave)
    if wave.shape != (SIZE,) or wave.dtype.kind not in "fiu" or not np.isfinite(wave).all():
        raise UserError(f"A wave is one cycle of {SIZE} finite numbers, not {wave.dtype} of shape {wave.shape}.")
    return wave.astype(np.float32)


def band_limited(wave, frequency, rate=RATE):
    """One cycle (65536,) of `wave` with the harmonics that lie below half the sample rate at `frequency`, no offset."""
    spectrum = np.fft.rfft(wave)[: SIZE // 2]
    spectrum[0] = 0
    spectrum[np.arange(SIZE // 2) * frequency >= rate / 2] = 0
    return np.fft.irfft(spectrum, FINE) * (FINE / SIZE)


def level(envelope, time, held):
    """Level in 0 ... 1 at `time` (samples,), in seconds, of a note that is `held` so long.

    A linear attack, an exponential fall to the sustain and one to silence; decay and release are the times to -60 dB.
    """
    attack, decay, sustain, release = (envelope[name] for name in ("attack", "decay", "sustain", "release"))

    def pressed(time):
        fall = sustain + (1 - sustain) * np.exp(-np.log(1000) * np.maximum(time - attack, 0) / decay)
        return np.where(time < attack, time / attack, fall)

    late = np.maximum(time - held, 0)
    return np.where(time < held, pressed(time), pressed(np.asarray(held)) * np.exp(-np.log(1000) * late / release))


def render_notes(wave, notes, samples, envelope=ENVELOPE):
    """`notes`, tuples (start, duration, pitch, velocity) as the corpus has them, played by `wave`: float32 (samples,).

    It is what the instrument in the page plays and saves, at 44,100 Hz. Raises `UserError` for a wave that is none.
    """
    wave, tables = checked_wave(wave), {}
    sound = np.zeros(samples, np.float32)
    for start, duration, pitch, velocity in notes:
        frequency, first = 440 * 2 ** ((pitch - 69) / 12), round(start * RATE)
        size = min(round((duration + envelope["release"]) * RATE), samples - first)
        if size <= 0:
            continue
        if pitch not in tables:
            tables[pitch] = band_limited(wave, frequency)
        time = np.arange(size) / RATE
        tone = np.interp(time * frequency % 1 * FINE, np.arange(FINE), tables[pitch], period=FINE)
        sound[first : first + size] += tone * level(envelope, time, duration) * (velocity / 127) ** 1.5
    return sound


def own_song(wave, stem="other", *, envelope=ENVELOPE, k=0, seed=0, seconds=10.0):
    """Song `k` of a corpus' test set in which `wave` plays all notes of `stem`, "bass" or "other".

    Returns the stems by name, float32 (2, samples) at 44,100 Hz; the mixture is their sum and does not clip. The
    drawn stem is as loud as the one that it replaces, in the middle, and dry. `seed` and `k` choose the song as in
    `lib.corpus.generate`. Raises `UserError` for another stem, or a wave that is none.
    """
    if stem not in ("bass", "other"):
        raise UserError(f"A drawn wave can play the stem bass or other, not {stem}.")
    song, singer = compose("test", seed, k, seconds)
    mixed = mix(song, singer, soundfont.load(default_soundfont()), generator(seed, "test", k, 5))
    stems = {name: np.float32(mixed[name].T / 32_768) for name in STEMS}
    notes = [note for part in song.parts if part.stem == stem for note in part.notes]
    sound = np.tile(render_notes(wave, notes, stems[stem].shape[1], envelope), (2, 1))
    stems[stem] = sound * decibels(loudness(stems[stem]) - loudness(sound))
    peak = max(np.abs(audio).max() for audio in (*stems.values(), sum(stems.values())))
    return {name: audio * np.float32(min(1.0, 0.97 / peak)) for name, audio in stems.items()}
