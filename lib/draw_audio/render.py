"""A drawn wave as an instrument of the corpus: its notes, without aliasing, and a song in which it plays a stem."""

import numpy as np

from lib.common.errors import UserError
from lib.corpus import default_soundfont, soundfont
from lib.corpus.effects import RATE, decibels, loudness
from lib.corpus.render import STEMS, mix
from lib.corpus.track import compose, generator

SIZE = 2048  # samples of a cycle
FINE = 65_536  # points of a cycle for playing: the error of linear interpolation is below -70 dB
ENVELOPE = {"attack": 0.01, "decay": 0.4, "sustain": 0.7, "release": 0.3}  # seconds; sustain is a level


def checked_wave(wave):
    """Return `wave` as float32 (2048,); raise `UserError` if it is not one cycle of finite numbers."""
    wave = np.asarray(wave)
    if wave.shape != (SIZE,) or wave.dtype.kind not in "fiu" or not np.isfinite(wave).all():
        raise UserError(f"A wave is one cycle of {SIZE} finite numbers, not {wave.dtype} of shape {wave.shape}.")
    return wave.astype(np.float32)


def band_limited(wave, frequency, rate=RATE):
    """One cycle (65536,) of `wave` without offset and without harmonics above half the sample rate at `frequency`."""
    spectrum = np.fft.rfft(wave)[: SIZE // 2]
    spectrum[0] = 0
    spectrum[np.arange(SIZE // 2) * frequency >= rate / 2] = 0
    return np.fft.irfft(spectrum, FINE) * (FINE / SIZE)


def level(envelope, time, held):
    """Level (samples,), from 0 to 1, at `time` (samples,) of a note that is `held` for so many seconds.

    The attack is linear, decay and release are exponential; their times are those to -60 dB.
    """
    attack, decay, sustain, release = (envelope[name] for name in ("attack", "decay", "sustain", "release"))

    def pressed(time):
        fall = sustain + (1 - sustain) * np.exp(-np.log(1000) * np.maximum(time - attack, 0) / decay)
        return np.where(time < attack, time / attack, fall)

    late = np.maximum(time - held, 0)
    return np.where(time < held, pressed(time), pressed(np.asarray(held)) * np.exp(-np.log(1000) * late / release))


def render_notes(wave, notes, samples, envelope=ENVELOPE):
    """Play `notes`, tuples (start, duration, pitch, velocity) as in the corpus, with `wave`: float32 (samples,).

    At 44,100 Hz, as the instrument in the page plays and saves it. Raises `UserError` as `checked_wave`.
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
    """Render song `k` of a corpus' test set with `wave` playing all notes of `stem`, "bass" or "other".

    Returns {stem: float32 (2, samples)} at 44,100 Hz; the mixture is their sum and does not clip. The drawn stem is
    as loud as the one that it replaces, centred and without effects. `seed` and `k` choose the song as in
    `lib.corpus.generate`. Raises `UserError` for another stem, and as `checked_wave`.
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
