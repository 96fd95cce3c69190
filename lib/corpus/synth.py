"""Synthesised instruments: waves and drum sounds.

All audio is float32 (2, samples) or (samples,) at 44,100 Hz; notes are (start, duration, pitch, velocity).
"""

import functools

import numpy as np
from scipy import signal

RATE = 44_100
WAVES = ("saw", "square", "hollow", "sub", "fm", "pluck")
TABLE = 2048


def cycle(harmonics, amplitudes):
    """One period (TABLE,) of the sum of sines with these harmonics and amplitudes."""
    spectrum = np.zeros(TABLE // 2 + 1, complex)
    spectrum[harmonics] = -1j * amplitudes
    return np.fft.irfft(spectrum).astype(np.float32) * TABLE / 2


@functools.cache
def tables(wave, pitch, bright):
    """A bright and a dark period of `wave` for MIDI key `pitch`, band-limited below 16 kHz."""
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    n = np.arange(1, max(int(16_000 / frequency), 1) + 1)
    n = n[n < TABLE // 2]
    amplitude = {
        "saw": 1.0 / n,
        "square": (n % 2) / n,
        "hollow": (n % 2) / n**2 + 0.3 * (n == 2),
        "pluck": 1.0 / n**1.2,
        "sub": 1.0 / n**3,
    }.get(wave, 1.0 / n)
    f = n * frequency
    corner = bright if wave != "sub" else bright / 4
    return cycle(n, amplitude / (1 + (f / corner) ** 2)), cycle(
        n, amplitude / (1 + (f / (corner / 6 + frequency)) ** 2)
    )


def waves(wave, notes, samples, random):
    """Play `notes` on a synthesiser, one of `WAVES` (`fm` is an electric piano): (2, samples)."""
    sound = np.zeros((2, samples + RATE), np.float32)
    bright, attack, release = random.uniform(1500, 6000), random.uniform(0.002, 0.02), random.uniform(0.05, 0.25)
    decay, sustain, detune = random.uniform(0.15, 0.8), random.uniform(0.4, 0.9), random.uniform(0, 0.12)
    index, ratio = random.uniform(1, 4), (1, 1, 2, 14)[random.randint(4)]
    if wave in ("pluck", "fm"):
        decay, sustain = random.uniform(0.15, 0.5), 0.02
    if wave in ("sub", "pluck"):
        detune = 0.0
    for start, duration, pitch, velocity in notes:
        first = int(start * RATE)
        size = min(int((duration + release) * RATE), samples + RATE - first)
        if size <= 0:
            continue
        time = np.arange(size, dtype=np.float32) / RATE
        fall = np.exp(-time / decay)
        envelope = (
            np.minimum(time / attack, 1)
            * (sustain + (1 - sustain) * fall)
            * np.clip((duration + release - time) / release, 0, 1)
        )
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        for side, cents in enumerate((-detune, detune)):
            phase = frequency * 2 ** (cents / 12) * time + random.rand()
            if wave == "fm":
                tone = np.sin(2 * np.pi * phase + index * fall * np.sin(2 * np.pi * ratio * phase))
            else:
                high, low = tables(wave, pitch, round(bright))
                place = (phase * TABLE).astype(np.int64) % TABLE
                tone = low[place] + (high[place] - low[place]) * fall
            sound[side, first : first + size] += tone * envelope * np.float32((velocity / 127) ** 1.5 * 0.3)
    return sound[:, :samples]


def drum_sounds(random):
    """Draw the sounds of an electronic drum kit: {name: (samples,)}."""

    def noise(seconds, decay, low, high, attack=0.0005):
        time = np.arange(int(seconds * RATE)) / RATE
        band = signal.butter(2, (low, high), "bandpass", fs=RATE, output="sos")
        return signal.sosfilt(band, random.randn(len(time))) * np.exp(-time / decay) * np.minimum(time / attack, 1)

    def sweep(seconds, top, bottom, fall, decay):
        time = np.arange(int(seconds * RATE)) / RATE
        phase = bottom * time + (top - bottom) * fall * (1 - np.exp(-time / fall))
        return np.sin(2 * np.pi * phase) * np.exp(-time / decay) * np.clip((seconds - time) / 0.02, 0, 1)

    def metal(seconds, decay):
        time = np.arange(int(seconds * RATE)) / RATE
        ring = sum(
            np.sign(np.sin(2 * np.pi * f * time)) for f in random.uniform(300, 900, 5) * random.uniform(0.8, 9, 5)
        )
        band = signal.butter(2, 6500, "highpass", fs=RATE, output="sos")
        return 0.25 * signal.sosfilt(band, ring) * np.exp(-time / decay)

    hat, crash = random.uniform(0.02, 0.07), random.uniform(0.4, 1.1)
    body = sweep(0.25, random.uniform(250, 400), random.uniform(150, 230), 0.02, random.uniform(0.05, 0.12))
    snare = noise(0.35, random.uniform(0.06, 0.16), 900, 16_000)
    snare[: len(body)] += random.uniform(0.5, 1.2) * body
    clap = noise(0.3, random.uniform(0.05, 0.12), 900, 9000)
    for gap in (0.011, 0.023):
        clap[int(gap * RATE) :] += noise(0.3, 0.012, 900, 9000)[: len(clap) - int(gap * RATE)]
    kick = 1.6 * sweep(
        0.6, random.uniform(120, 400), random.uniform(40, 62), random.uniform(0.01, 0.05), random.uniform(0.1, 0.35)
    )
    click = noise(0.03, 0.004, 1500, 9000)
    kick[: len(click)] += random.uniform(0.1, 0.6) * click
    bright = random.uniform(6500, 9000)
    return {
        "kick": kick,
        "snare": snare,
        "clap": clap,
        "hat": 0.5 * noise(0.25, hat, bright, 19_000) + metal(0.25, hat),
        "open": 0.5 * noise(0.6, 5 * hat, bright, 19_000) + metal(0.6, 5 * hat),
        "shaker": 0.3 * noise(0.12, 0.03, 5500, 17_000, 0.02),
        "crash": 0.5 * noise(3.0, crash, 3500, 18_500) + metal(3.0, crash),
        "ride": 0.2 * noise(1.2, 0.3, 6000, 17_000) + metal(1.2, 0.4),
    }


NAMES = {
    35: "kick",
    36: "kick",
    38: "snare",
    40: "snare",
    39: "clap",
    42: "hat",
    46: "open",
    70: "shaker",
    54: "shaker",
    51: "ride",
    49: "crash",
    57: "crash",
}


def drums(sounds, notes, samples):
    """Play drum notes with `sounds` from `drum_sounds`; notes without a sound are skipped: (samples,)."""
    result = np.zeros(samples + 4 * RATE, np.float32)
    for start, _, pitch, velocity in notes:
        if pitch in NAMES:
            shot = sounds[NAMES[pitch]]
            first = int(start * RATE)
            result[first : first + len(shot)] += shot * (velocity / 127) ** 1.6
    return result[:samples]
