"""Synthesised instruments: waves, drum sounds, risers and impacts.

All audio is float32 (2, samples) or (samples,) at 44,100 Hz; notes are (start, duration, pitch, velocity).
"""

import functools

import numpy as np
from scipy import signal

from lib.corpus.sounds import parameters

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


def waves(wave, notes, samples, preset):
    """Play `notes` on a synthesiser, one of `WAVES` (`fm` is an electric piano), with the parameters of `preset`.

    Returns (2, samples).
    """
    random = parameters("synth", preset)
    sound = np.zeros((2, samples + RATE), np.float32)
    bright, attack, release = 10 ** random.uniform(2.7, 4.0), random.uniform(0.002, 0.02), random.uniform(0.03, 0.3)
    decay, sustain, detune = 10 ** random.uniform(-1.1, 0), random.uniform(0.1, 0.9), random.uniform(0, 0.18)
    index, ratio = random.uniform(1, 5), (1, 1, 2, 14, 3.5, 0.5)[random.randint(6)]
    under = random.uniform(0.2, 0.7) * (random.rand() < 0.4)  # level of an octave below
    phases, width = random.rand(2), random.uniform(0, 1)
    if wave in ("pluck", "fm"):
        decay, sustain = random.uniform(0.1, 0.5), 0.02
    if wave in ("sub", "pluck"):
        detune = 0.0
    for start, duration, pitch, velocity in notes:
        first = int(start * RATE)
        size = min(int((duration + release) * RATE), samples + RATE - first)
        if size <= 0:
            continue
        time = np.arange(size, dtype=np.float32) / np.float32(RATE)
        fall = np.exp(-time / np.float32(decay))
        envelope = np.minimum(time / np.float32(attack), 1) * (np.float32(sustain) + np.float32(1 - sustain) * fall)
        tail = min(int(release * RATE), size)
        envelope[size - tail :] *= np.linspace(1, 0, tail, dtype=np.float32)
        envelope *= np.float32((velocity / 127) ** 1.5 * 0.3)
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        if wave != "fm":
            high, low = tables(wave, pitch, round(bright))
        for side, cents in enumerate((-detune, detune)[: 1 if detune == 0 else 2]):
            phase = np.float32(frequency * 2 ** (cents / 12)) * time + np.float32(phases[side])
            if wave == "fm":
                turn = np.float32(2 * np.pi)
                tone = np.sin(turn * phase + np.float32(index) * fall * np.sin(turn * np.float32(ratio) * phase))
            else:
                place = (phase * TABLE).astype(np.int32) & (TABLE - 1)
                tone = low[place] + (high[place] - low[place]) * fall
                if under and wave in ("saw", "square"):
                    tone += np.float32(under) * low[place // 2 % TABLE]
            sound[side, first : first + size] += tone * envelope
    if detune == 0:
        sound[1] = sound[0]
    else:
        middle = sound.mean(axis=0)
        sound = middle + np.float32(width) * (sound - middle)
    return sound[:, :samples]


def noise(random, seconds, decay, low, high, attack=0.0005):
    """A burst of noise between `low` and `high` hertz that falls to 1/e in `decay` seconds."""
    time = np.arange(int(seconds * RATE)) / RATE
    band = signal.butter(2, (low, high), "bandpass", fs=RATE, output="sos")
    return signal.sosfilt(band, random.randn(len(time))) * np.exp(-time / decay) * np.minimum(time / attack, 1)


def sweep(seconds, top, bottom, fall, decay):
    """A sine that falls from `top` to `bottom` hertz within about `fall` seconds."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = bottom * time + (top - bottom) * fall * (1 - np.exp(-time / fall))
    return np.sin(2 * np.pi * phase) * np.exp(-time / decay) * np.clip((seconds - time) / 0.02, 0, 1)


def metal(random, seconds, decay, corner):
    """Square waves of unrelated pitches above `corner` hertz, as in the cymbals of drum machines."""
    time = np.arange(int(seconds * RATE)) / RATE
    ring = sum(np.sign(np.sin(2 * np.pi * f * time)) for f in random.uniform(300, 900, 5) * random.uniform(0.8, 9, 5))
    band = signal.butter(2, corner, "highpass", fs=RATE, output="sos")
    return 0.25 * signal.sosfilt(band, ring) * np.exp(-time / decay)


@functools.lru_cache(maxsize=8)
def drum_sounds(preset):
    """The sounds of the synthesised drum kit `preset`, {name: (samples,)}: short or long, dry, boxy or crushed."""
    random = parameters("kit", preset)
    u = random.uniform
    kick = 1.6 * (
        sweep(1.4, u(90, 500), u(36, 62), u(0.006, 0.06), u(0.25, 0.5))
        if random.rand() < 0.3
        else sweep(0.5, u(90, 500), u(36, 62), u(0.006, 0.06), u(0.06, 0.25))
    )
    click = noise(random, 0.03, u(0.001, 0.006), u(700, 2500), u(5000, 12_000))
    kick[: len(click)] += u(0.05, 1.0) * click
    body = sweep(0.4, u(220, 450), u(120, 260), u(0.01, 0.03), u(0.03, 0.14))
    snare = u(0.5, 1.3) * noise(random, 0.5, 10 ** u(-1.3, -0.65), u(300, 1500), u(6000, 17_000))
    snare[: len(body)] += u(0.2, 1.6) * body
    top, spread = u(2500, 11_000), u(0.008, 0.016)
    clap = noise(random, 0.4, u(0.04, 0.13), u(500, 1200), top)
    for gap in (spread, 2.1 * spread):
        clap[int(gap * RATE) :] += noise(random, 0.4, 0.012, 900, top)[: len(clap) - int(gap * RATE)]
    hat, crash, bright, hiss = 10 ** u(-1.9, -1.1), u(0.3, 1.2), u(4000, 9500), u(0.1, 0.9)
    corner, top = u(3000, 9000), u(13_000, 19_500)

    def cymbal(seconds, decay, low):
        return hiss * noise(random, seconds, decay, low, top) + (1 - hiss) * metal(random, seconds, decay, corner)

    def tom(pitch, decay):
        return sweep(0.7, 1.8 * pitch, pitch, 0.04, decay) + 0.15 * noise(random, 0.7, 0.03, 300, 5000)

    size, decay, drum = u(0.7, 1.5), u(0.08, 0.35), u(0.8, 1.4)
    bell = sum(np.sign(sweep(0.3, drum * f, drum * f, 0.01, 1.0)) for f in (560, 840))
    band = signal.butter(1, (500, 3500), "bandpass", fs=RATE, output="sos")
    sounds = {
        "kick": kick,
        "snare": snare,
        "clap": clap,
        "hat": cymbal(0.25, hat, bright),
        "open": cymbal(0.8, u(3, 9) * hat, bright),
        "shaker": 0.3 * noise(random, 0.12, u(0.01, 0.05), u(3500, 7000), 17_000, u(0.004, 0.03)),
        "crash": cymbal(3.0, crash, 0.5 * bright),
        "ride": 0.6 * cymbal(1.2, u(0.15, 0.5), 0.8 * bright),
        "low": tom(85 * size, decay),
        "middle": tom(120 * size, decay),
        "high": tom(165 * size, decay),
        "cowbell": 0.3 * signal.sosfilt(band, bell) * np.exp(-np.arange(len(bell)) / RATE / 0.07),
        "rim": sweep(0.08, u(1500, 2500), u(400, 1800), 0.004, u(0.006, 0.02)) + noise(random, 0.08, 0.006, 800, 9000),
        "conga": sweep(0.3, drum * 360, drum * 290, 0.02, u(0.05, 0.12)),
    }
    crunch = 10 ** (u(-12, 16) / 20)
    if crunch > 1:
        sounds = {name: np.tanh(crunch * sound) / np.tanh(crunch) for name, sound in sounds.items()}
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


NAMES = {
    35: "kick", 36: "kick", 37: "rim", 38: "snare", 40: "snare", 39: "clap", 42: "hat", 46: "open", 70: "shaker",
    54: "shaker", 51: "ride", 49: "crash", 57: "crash", 41: "low", 43: "low", 45: "middle", 48: "high", 50: "high",
    56: "cowbell", 63: "conga",
}  # fmt: skip


def drums(sounds, notes, samples):
    """Play drum notes with `sounds` from `drum_sounds`: (samples,). A hit ends the one before of the same sound."""
    result, following = np.zeros(samples + 4 * RATE, np.float32), {}
    for start, _, pitch, velocity in reversed(notes):
        name, first = NAMES[pitch], int(start * RATE)
        size = min(len(sounds[name]), max(following.get(name, samples + 4 * RATE) - first, 256))
        shot = sounds[name][:size] * np.float32((velocity / 127) ** 1.6)
        shot[-256:] *= np.linspace(1, 0, 256, dtype=np.float32)
        result[first : first + size] += shot
        following[name] = first
        if name == "hat":
            following["open"] = first
    return result[:samples]


def transitions(notes, samples, preset):
    """Play risers, falls, impacts and blips, by the pitch of the note (0 to 3): (2, samples)."""
    result = np.zeros((2, samples + 4 * RATE), np.float32)
    for number, (start, duration, kind, velocity) in enumerate(notes):
        random = np.random.RandomState([preset, number])
        size = int(np.clip(duration, 0.1, 3.9) * RATE)
        x = np.linspace(0, 1, size, dtype=np.float32)
        low, high = random.uniform(100, 600), random.uniform(1500, 9000)
        if kind < 2:
            x = x if kind == 0 else x[::-1]
            hiss = random.randn(2, size).astype(np.float32)
            dark = signal.lfilter([0.06], [1, -0.94], hiss, axis=1).astype(np.float32) * 3
            turns = np.cumsum(low * (high / low) ** x) / RATE
            shot = (dark + 0.3 * (hiss - dark) * x**2) * random.uniform(0, 0.6)
            shot = shot + random.uniform(0, 0.6) * np.sin(2 * np.pi * turns)
            shot = shot * x**2 * np.minimum((1 - x if kind == 0 else 1) * size / 500 + (kind == 1), 1)
        elif kind == 2:
            boom = sweep(size / RATE, 0.4 * low, 40, 0.15, 0.3 * size / RATE)
            shot = boom + 0.15 * random.randn(2, size) * np.exp(-8 * x)
        else:
            tone = np.sin(2 * np.pi * high / 4 * np.arange(size) / RATE * (1 + random.uniform(-0.3, 0.3) * x))
            shot = np.tanh(random.uniform(1, 6) * tone) * np.exp(-x * random.uniform(3, 20)) * np.ones((2, 1))
        first = int(start * RATE)
        result[:, first : first + size] += (shot * 0.3 * velocity / 127).astype(np.float32)
    return result[:, :samples]
