"""Studio effects on float32 stereo audio (2, samples) at 44,100 Hz."""

import functools

import numpy as np
from scipy import fft, ndimage, signal

from lib.corpus.sounds import parameters

RATE = 44_100
CURVE = 1024  # points of an equaliser's response, evenly spaced in octaves from 1 Hz to half the sample rate
BLOCK = 64  # samples per gain step of compressor and limiter


def decibels(value):
    """Convert decibels to an amplitude factor."""
    return np.float32(10 ** (value / 20))


def equaliser(bands, size):
    """Magnitude response (size // 2 + 1,) of an equaliser with `bands` (kind, hertz, decibels).

    Kinds: `low` and `high` are shelves, `peak` is an octave wide, `cut` and `rumble` are low-pass and high-pass
    filters of 12 dB per octave, which ignore the decibels.
    """
    octave = np.linspace(0, np.log2(RATE / 2), CURVE)
    total = np.zeros(CURVE)
    for kind, frequency, gain in bands:
        distance = octave - np.log2(frequency)
        if kind == "peak":
            total += gain * np.exp(-((distance / 0.6) ** 2))
        elif kind in ("low", "high"):
            total += gain / (1 + np.exp(np.clip(distance * (4 if kind == "low" else -4), -40, 40)))
        else:
            total -= 10 * np.log10(1 + 2.0 ** np.clip(distance * (4 if kind == "cut" else -4), -40, 40))
    response = (10 ** (total / 20)).astype(np.float32)
    low, part = places(size)
    return response[low] + np.diff(response)[low] * part


@functools.lru_cache(maxsize=4)
def places(size):
    """Positions of an FFT's bins on the equaliser's curve: index and fraction, each (size // 2 + 1,)."""
    octave = np.log2(np.maximum(np.arange(size // 2 + 1) * (RATE / size), 1.0))
    place = np.minimum(octave / np.log2(RATE / 2) * (CURVE - 1), CURVE - 1.001)
    return place.astype(np.int32), (place % 1).astype(np.float32)


def filtered(sound, bands, room=None, wet=0.0):
    """Apply an equaliser to `sound`, and add its reverberation in the `Room` at `wet` dB."""
    samples = sound.shape[-1]
    size = fft.next_fast_len(samples + (room.taps if room else 2048), real=True)
    spectrum = fft.rfft(sound, size) * equaliser(bands, size)
    if room:
        spectrum += decibels(wet) * spectrum.mean(axis=0) * room.spectrum(size)
    return fft.irfft(spectrum, size)[..., :samples]


class Room:
    """A room by its impulse response (2, taps), whose spectra are kept: several instruments stand in one room."""

    def __init__(self, response):
        self.taps = response.shape[1]
        self.spectrum = functools.cache(functools.partial(fft.rfft, response))


def room(preset, longest):
    """The `Room` of a preset, with an RT60 between 0.15 and `longest` seconds.

    Its kind is a room (early reflections, then noise that darkens), a plate (dense from the start), a hall (late, slow
    and dark) or a gated room (noise that ends abruptly).
    """
    random = parameters("room", preset)
    kind = ("room", "plate", "hall", "gated")[(0, 0, 0, 1, 1, 2, 2, 3)[random.randint(8)]]
    seconds = 0.15 + (longest - 0.15) * random.uniform(0, 1) ** (0.5 if kind == "hall" else 1.2)
    seconds = min(seconds, 0.4) if kind == "gated" else seconds
    taps = int(min(seconds, 3.0) * RATE)
    time = np.arange(taps, dtype=np.float32) / RATE
    noise = random.randn(2, taps).astype(np.float32)
    pole = {"plate": 0.4, "hall": 0.88}.get(kind, 0.75)
    dark = signal.lfilter([1 - pole], [1, -pole], noise).astype(np.float32)
    bright = random.uniform(0.3, 1.0) * (0.2 if kind == "hall" else 1.0)
    decay = 10.0 if kind == "gated" else seconds
    tail = 2 * dark * np.exp(-6.9 * time / decay) + bright * noise * np.exp(-6.9 * time / (0.35 * decay))
    tail *= np.minimum(time / {"plate": 0.001, "hall": 0.06}.get(kind, 0.01), 1)
    for side in range(2) if kind != "plate" else ():
        early = (random.uniform(0.004, 0.045, 6) * RATE).astype(int)
        tail[side, early[early < taps]] += random.uniform(1, 6)
    before = np.zeros((2, int(random.uniform(0, 0.08 if kind == "hall" else 0.03) * RATE)), np.float32)
    tail = np.concatenate([before, tail], axis=1)
    return Room(tail / np.sqrt((tail**2).sum() / 2))


def compressed(sound, threshold, ratio, release):
    """Compress `sound` above `threshold` (dB of the mean square); `release` in seconds."""
    blocks = -(-sound.shape[1] // BLOCK)
    power = np.zeros(blocks * BLOCK, np.float32)
    power[: sound.shape[1]] = (sound**2).mean(axis=0)
    pole = np.exp(-BLOCK / RATE / release)
    smooth = signal.lfilter([1 - pole], [1, -pole], power.reshape(blocks, BLOCK).mean(axis=1))
    level = 10 * np.log10(np.maximum(smooth, ndimage.uniform_filter1d(smooth, 5)) + 1e-9)
    return sound * curve(decibels(-np.maximum(level - threshold, 0) * (1 - 1 / ratio)), sound.shape[1])


def limiter(sound, ceiling):
    """Gain (samples,) that keeps `sound` below `ceiling` (amplitude) with a look-ahead of 3 ms."""
    blocks = -(-sound.shape[1] // BLOCK)
    peak = np.zeros(blocks * BLOCK, np.float32)
    peak[: sound.shape[1]] = np.abs(sound).max(axis=0)
    gain = np.minimum(1, ceiling / np.maximum(peak.reshape(blocks, BLOCK).max(axis=1), 1e-6))
    gain = ndimage.minimum_filter1d(gain, 9)
    return curve(np.minimum(gain, ndimage.uniform_filter1d(ndimage.minimum_filter1d(gain, 61), 61)), sound.shape[1])


def curve(gain, samples):
    """Interpolate a gain per `BLOCK` to a gain per sample (samples,), as `np.interp` does."""
    slope, half = np.diff(gain.astype(float)) / BLOCK, BLOCK // 2
    between = slope[:, None] * np.arange(BLOCK) + gain[:-1, None]
    return np.concatenate([np.full(half, gain[0]), between.ravel(), np.full(half, gain[-1])], dtype=np.float32)[
        :samples
    ]


def driven(sound, gain):
    """Saturate `sound` with `gain` dB, adding even and odd harmonics; the level stays roughly the same."""
    factor = decibels(gain)
    return (np.tanh(factor * sound + 0.1) - np.float32(np.tanh(0.1))) / np.tanh(factor) if gain > 0 else sound


def excited(sound, level):
    """Add treble, made by rectifying the slope of `sound`, at `level` dB: instruments sampled at 22 kHz lack it."""
    slope = np.abs(np.diff(sound, prepend=sound[:, :1]))
    treble = np.diff(slope, n=2, prepend=slope[:, :2])
    power = [float(np.mean(part[:, ::4] ** 2)) + 1e-12 for part in (sound, treble)]
    return sound + np.float32(np.sqrt(power[0] / power[1])) * decibels(level) * treble


def bitten(sound, gain, low, high, level):
    """Add a copy of `sound` between `low` and `high` hertz, saturated with `gain` dB, at `level` dB: bite and bark."""
    copy = filtered(np.tanh(decibels(gain) * sound), [("rumble", low, 0), ("cut", high, 0), ("cut", high, 0)])
    return sound + decibels(level) * copy


def crushed(sound, hold, steps):
    """Hold every sample for `hold` samples and round it to `steps` steps per unit, as an early sampler does."""
    kept = np.round(sound[:, ::hold] * np.float32(steps)) / np.float32(steps)
    return np.repeat(kept, hold, axis=1)[:, : sound.shape[1]]


def chopped(sound, step, random, chance):
    """Repeat short slices of `sound` in some beats, as a sampler does; `step`: seconds of a sixteenth."""
    result, beat = sound.copy(), 4 * step
    for number in range(int(sound.shape[1] / RATE / beat)):
        first, size = int(number * beat * RATE), int(step * (1, 1, 2, 0.5)[random.randint(4)] * RATE)
        last = min(first + int(beat * (1, 2)[random.randint(2)] * RATE), sound.shape[1])
        if random.rand() < chance and size > 64:
            slice_ = sound[:, first : first + size] * np.clip(np.linspace(size / 200, 0, size), 0, 1).astype(np.float32)
            slice_[:, :64] *= np.linspace(0, 1, 64, dtype=np.float32)
            result[:, first:last] = np.tile(slice_, (1, (last - first) // size + 1))[:, : last - first]
    return result


def gated(samples, step, random):
    """Gain (samples,) that opens and closes in a pattern of sixteenths; `step`: seconds of one."""
    pattern = (random.rand(16) < random.uniform(0.4, 0.8)).astype(float)
    place = (np.arange(-(-samples // BLOCK)) * BLOCK / RATE / step).astype(int) % 16
    return curve(ndimage.uniform_filter1d(pattern[place], 5).astype(np.float32), samples)


def faded(points, samples):
    """Gain (samples,) through `points` (seconds, decibels)."""
    seconds, levels = zip(*points, strict=True)
    return curve(decibels(np.interp((np.arange(-(-samples // BLOCK)) + 0.5) * BLOCK / RATE, seconds, levels)
                          .astype(np.float32)), samples)  # fmt: skip


def panned(sound, place):
    """Pan `sound` (2, samples) or (samples,) to `place`, -1 (left) to 1 (right), at constant power."""
    angle = (place + 1) * np.pi / 4
    gains = np.float32(np.sqrt(2)) * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)
    return gains * sound


def echo(sound, delay, feedback, repeats=3):
    """Add ping-pong repeats of the mono sum; `delay` in samples."""
    middle, result = sound.mean(axis=0), sound.copy()
    for n in range(1, repeats + 1):
        if n * delay < len(middle):
            result[n % 2, n * delay :] += feedback**n * middle[: -n * delay]
    return result


def chorus(sound, random, depth=0.0015):
    """Widen `sound`: add to each channel a copy whose delay sways around 1.6 × `depth` seconds."""
    time = np.arange(sound.shape[1])
    result = np.empty_like(sound)
    for side in range(2):
        sway = depth * (1.6 + np.sin(2 * np.pi * random.uniform(0.3, 1.2) * time / RATE + random.uniform(0, 6)))
        place = np.maximum(time - RATE * sway, 0)
        low = place.astype(int)
        delayed = np.append(np.diff(sound[side].astype(float)), 0)[low] * (place - low) + sound[side][low]
        result[side] = 0.75 * sound[side] + 0.6 * delayed
    return result


def opened(sound, gain, corner):
    """Apply a filter that opens and closes: the range above `corner` (hertz) is multiplied by `gain` (samples,)."""
    dark = filtered(sound, [("cut", corner, 0), ("cut", 1.3 * corner, 0)])
    return dark + (sound - dark) * gain


def tremolo(sound, rate, depth):
    """Modulate the level at `rate` (hertz), with the two channels in opposition."""
    sway = (0.5 * depth * np.sin(2 * np.pi * rate * np.arange(sound.shape[1]) / RATE)).astype(np.float32)
    return sound * np.stack([1 + sway, 1 - sway])


def pump(samples, beat, depth):
    """Gain (samples,) that ducks on every beat, like a side-chain compressor; `beat` in seconds."""
    inside = np.arange(samples) / RATE % beat / beat
    return (1 - depth * np.exp(-((inside / 0.3) ** 2))).astype(np.float32)


def loudness(sound):
    """Level of `sound` (2, samples) in dB over its parts that are not silent; -120 if all is silent."""
    blocks = (sound[:, : sound.shape[1] // 4410 * 4410] ** 2).reshape(2, -1, 4410).mean(axis=(0, 2))
    active = blocks[blocks > 1e-3 * blocks.max(initial=0)]
    return 10 * np.log10(active.mean() + 1e-12) if len(active) else -120.0
