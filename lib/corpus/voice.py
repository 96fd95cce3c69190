"""Singers: a source-filter synthesis that sings melodies with the syllables of `voices.npz`.

The bank holds a WORLD analysis (Morise et al., 2016) of spoken syllables; `make_voices.py` makes it and states its
licence. A syllable is stretched to a note. For every pitch period its envelope is decoded and turned into a
minimum-phase pulse (real cepstrum, Oppenheim & Schafer). Pulses and shaped noise are added with overlap.
"""

import functools
from pathlib import Path

import numpy as np
from scipy import fft

RATE = 44_100  # hertz
FRAME_SECONDS = 0.008  # length of a frame of the bank
PULSE = 1536  # FFT size of a pulse
NOISE = 512  # samples of a noise frame; the hop is half of it
CHUNK = 512  # pulses transformed together; they fit in the cache
ZERO = 180  # code of 0 dB in the bank
TILT = (0.3, 0.0, 0.3, 1.2)  # dB per octave, added to slt, rms, kal16 and awb
HUSKY = ((0, 4000, 8000, 14_000), (0, 0, -5, -14))  # Hz, dB: the upper band of a voice is mostly noise
INHALE = (
    (0, 300, 900, 1700, 2600, 3600, 7000, 12_000, 20_000),
    (-60, -40, -22, -12, -20, -12, -18, -26, -50),
)  # Hz, dB: spectrum of a breath


@functools.cache
def bank():
    """The bank: {name: array}, and for each voice the numbers of its syllables."""
    with np.load(Path(__file__).with_name("voices.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays, [np.flatnonzero(arrays["owner"] == v) for v in range(len(arrays["voices"]))]


def decoder(size, style, colour):
    """Matrix (bands, size // 2 + 1) and offset (size // 2 + 1,) that turn a frame in dB into a spectrum in dB.

    The singer's `shift` moves the formants (1.1: up by 10 %), and `bend` moves those above 3 kHz further. The offset is
    the singer's `tilt`, in dB per octave above 500 Hz, plus `colour` (hertz, dB).
    """
    known = bank()[0]["frequencies"].astype(float)
    wanted = np.arange(size // 2 + 1) * RATE / size
    bend = np.interp(wanted, (800, 3000), (1.0, style["bend"]))
    source = np.clip(wanted / style["shift"] / bend, known[0], known[-1])
    matrix = np.stack([np.interp(source, known, one) for one in np.eye(len(known))])
    offset = style["tilt"] * np.log2(np.maximum(wanted, 500) / 500) - 60 * np.clip(1 - wanted / 80, 0, 1)
    return matrix.astype(np.float32), (offset + np.interp(wanted, *colour)).astype(np.float32)


def minimum_phase(decibels):
    """Minimum-phase spectra with magnitudes `decibels`: log magnitudes and negated phases (..., PULSE // 2 + 1).

    The real cepstrum with its causal half doubled, transformed back (Oppenheim & Schafer); a linear map.
    """
    log = decibels * np.log(10) / 20
    cepstrum = fft.irfft(log, PULSE)
    cepstrum[..., 1 : PULSE // 2] *= 2
    cepstrum[..., PULSE // 2 + 1 :] = 0
    return log.astype(np.float32), -fft.rfft(cepstrum).imag.astype(np.float32)


def timeline(notes, words, samples):
    """For every frame of a line: the row of the bank (fractional) and the gain, two arrays (frames,).

    `notes`: list of (start, duration, pitch, velocity), times in seconds; `words`: the syllable of each note. The
    onset precedes the start of the note, the vowel's nucleus is stretched, and the coda lies before the note's end.
    """
    arrays, _ = bank()
    frames = int(samples / RATE / FRAME_SECONDS) + 2
    row, gain = np.zeros(frames), np.zeros(frames)
    begins = []
    for number, ((start, _, _, _), word) in enumerate(zip(notes, words, strict=True)):
        begin = max(start / FRAME_SECONDS - 0.8 * arrays["marks"][word][0], 0)
        begins.append(max(begin, notes[number - 1][0] / FRAME_SECONDS + 6) if number else begin)
    begins.append(np.inf)
    for number, ((start, duration, _, velocity), word) in enumerate(zip(notes, words, strict=True)):
        base, begin = arrays["starts"][word], begins[number]
        nucleus, settled, _, end = (int(m) for m in arrays["marks"][word])
        stop = (start + max(duration, 0.09)) / FRAME_SECONDS
        legato = stop > begins[number + 1] - 12
        stop = begins[number + 1] if legato else stop
        lead = min(nucleus, max(start / FRAME_SECONDS - begin, 1) * 1.25)
        tail = min(end - settled, 0.5 * max(stop - start / FRAME_SECONDS, 0))
        at = np.arange(int(np.ceil(begin)), min(int(np.ceil(stop)), frames))
        row[at] = base + np.interp(
            at,
            [begin, begin + lead, max(stop - tail, begin + lead + 1), stop + 1],
            [nucleus - lead, nucleus, settled, settled + tail - 1],
        )
        fall = np.clip((stop - at) / 4.0, 0.4 if legato else 0, 1)
        gain[at] = np.clip((at - begin + 1) / 3.0, 0, 1) * fall * (velocity / 100.0) ** 1.2
    return row, gain


def pitch_curve(notes, style, random, samples):
    """Fundamental frequency (samples,) in hertz, with glides between notes, vibrato on long ones and slow drift."""
    hop = 64
    time = np.arange(0, samples + hop, hop) / RATE
    keys = np.full(len(time), float(notes[0][2]))
    deep = np.zeros(len(time))
    for number, (start, duration, key, _) in enumerate(notes):
        previous = notes[number - 1][2] if number and start - sum(notes[number - 1][:2]) < 0.25 else None
        origin = key - style["scoop"] * random.uniform(0, 1) if previous is None else previous
        since = time - start + 0.5 * style["glide"]
        at = since >= 0
        x = np.clip(since[at] / style["glide"], 0, 1)
        keys[at] = origin + (key - origin) * (3 - 2 * x) * x * x
        sung = at & (time < start + duration)
        deep[sung] = np.clip((time[sung] - start - style["delay"]) / 0.3, 0, 1) * (duration > 0.35)
    rate = style["rate"] * (1 + 0.04 * np.sin(2 * np.pi * 0.31 * time + random.uniform(0, 6)))
    keys = keys + style["depth"] * deep * np.sin(2 * np.pi * np.cumsum(rate) * hop / RATE)
    drift = np.convolve(random.randn(len(time) + 199), np.hanning(200) / np.sqrt(0.375 * 200), "valid")
    keys = keys + style["drift"] * np.clip(drift, -2, 2)
    return np.interp(np.arange(samples) / RATE, time, 440.0 * 2.0 ** ((keys - 69) / 12))


def frames_at(row, position):
    """Frames of the bank (n, bands + 1), decoded to dB, at the fractional frames `position` (n,) of a line."""
    codes = bank()[0]["codes"]
    row = row[np.clip(np.round(position).astype(int), 0, len(row) - 1)]
    low = np.minimum(row.astype(int), len(codes) - 2)
    part = (row - low)[:, None].astype(np.float32)
    return codes[low] * (1 - part) + codes[low + 1] * part - np.float32(ZERO)


def add_at(sound, starts, pieces):
    """Add `pieces` (n, size) to `sound` at sample `starts` (n,)."""
    size = pieces.shape[1]
    for start, piece in zip(starts, pieces, strict=True):
        sound[start : start + size] += piece


def sing(notes, words, style, random, samples):
    """Sing `words` on `notes` as the singer `style`; return mono audio (samples,).

    `notes`: list of (start, duration, pitch, velocity) in seconds, seconds, MIDI key and 1-127, in order of time.
    `words`: the number of a syllable for each note; None continues the syllable before it.
    """
    spoken = []
    for (start, duration, key, velocity), word in zip(notes, words, strict=True):
        if word is None and spoken and start - sum(spoken[-1][0][:2]) < 0.1:
            first, _, *rest = spoken[-1][0]
            spoken[-1] = (first, start + duration - first, *rest), spoken[-1][1]
        else:
            spoken.append(((start, duration, key, velocity), bank()[1][style["voice"]][0] if word is None else word))
    row, gain = timeline(*zip(*spoken, strict=True), samples)
    frequency = pitch_curve(notes, style, random, samples)
    phase = np.cumsum(frequency / RATE)
    ticks = np.arange(1, int(phase[-1]))
    instants = np.interp(ticks, phase, np.arange(samples))
    position = instants / RATE / FRAME_SECONDS
    nearest = np.clip(np.round(position).astype(int), 0, len(row) - 1)
    voicing = bank()[0]["voiced"][np.round(row).astype(int)] & (gain > 0)
    chosen = voicing[nearest] & (np.interp(position, np.arange(len(gain)), gain) > 1e-3)
    instants, position = instants[chosen], position[chosen]
    jitter = style["jitter"] * random.randn(len(instants))
    sound = np.zeros(samples + 2 * PULSE + 2 * NOISE, np.float32)
    matrix, offset = decoder(PULSE, style, HUSKY)
    (size, turn), (size0, turn0) = minimum_phase(matrix.astype(float)), minimum_phase(offset.astype(float))
    bins = np.arange(PULSE // 2 + 1, dtype=np.float32) * np.float32(2 * np.pi / PULSE)
    level = jitter + 20 * np.log10(np.interp(position, np.arange(len(gain)), gain) + 1e-6)
    level += 10 * np.log10(RATE / frequency[np.minimum(instants.astype(int), samples - 1)])
    whole = np.floor(instants).astype(int)
    for first in range(0, len(instants), CHUNK):
        part = slice(first, first + CHUNK)
        frame = frames_at(row, position[part])[:, :-1]
        factor = 10 ** (level[part, None] / 20).astype(np.float32)
        delay = (instants[part] - whole[part]).astype(np.float32)[:, None]
        magnitude, angle = factor * np.exp(frame @ size + size0), frame @ turn + turn0 + delay * bins
        spectrum = np.empty(magnitude.shape, np.complex64)
        spectrum.real, spectrum.imag = magnitude * np.cos(angle), -magnitude * np.sin(angle)
        add_at(sound, whole[part], fft.irfft(spectrum, PULSE, axis=1))
    noise = breath(row, gain, voicing, style, random, samples)
    sound[: len(noise)] += noise
    return sound[:samples] * np.float32(10 ** (style["level"] / 20))


def breath(row, gain, voicing, style, random, samples):
    """The noise of a line (consonants, breathiness, the upper band): white noise shaped by the bank's envelopes."""
    hop = NOISE // 2
    count = samples // hop + 4
    white = random.randn(samples + 2 * NOISE).astype(np.float32)
    position = np.arange(count) * hop / RATE / FRAME_SECONDS
    nearest = np.clip(np.round(position).astype(int), 0, len(row) - 1)
    frame = frames_at(row, position)
    matrix, offset = decoder(NOISE, style, ((0,), (0,)))
    bins = np.arange(NOISE // 2 + 1) * RATE / NOISE
    rough = np.clip(frame[:, -1:], -50, 0).astype(np.float32)
    weight = np.interp(bins, [0, 1500, 4000, 8000, 14_000], [-50, -28, -9, -1, 0]).astype(np.float32)
    voiced = np.minimum(weight + 0.4 * rough + style["breath"], 0)
    decibels = frame[:, :-1] @ matrix + offset + np.where(voicing[nearest][:, None], voiced, 0)
    level = np.interp(position, np.arange(len(gain)), gain)
    amplitude = (level[:, None] * np.exp(decibels * np.float32(np.log(10) / 20))).astype(np.float32)
    air = 10 ** (np.interp(bins / style["shift"], INHALE[0], INHALE[1]) / 20).astype(np.float32)
    silent = np.flatnonzero(np.diff(np.r_[1, gain > 0]) == -1)
    for begin in silent:  # the singer breathes in at the end of a rest
        rest = np.flatnonzero(gain[begin:] > 0)[:1] * FRAME_SECONDS
        if len(rest) and rest[0] > 0.3:
            end = begin * FRAME_SECONDS + rest[0] - 0.03
            inside = (position * FRAME_SECONDS - end) / random.uniform(0.2, min(rest[0], 0.5))
            amplitude += (
                (np.clip(1 + inside, 0, 1) ** 0.7 * (inside < 0))[:, None].astype(np.float32)
                * np.float32(style["inhale"])
                * air
            )
    window = np.sqrt(np.hanning(NOISE + 1)[:NOISE]).astype(np.float32)
    pieces = np.lib.stride_tricks.sliding_window_view(white, NOISE)[::hop][:count] * window
    pieces = fft.irfft(fft.rfft(pieces, axis=1) * amplitude[: len(pieces)], NOISE, axis=1) * window
    sound = np.zeros(samples + 4 * NOISE, np.float32)
    add_at(sound, np.arange(len(pieces)) * hop, pieces)
    return sound[NOISE // 2 :]


def singer(random, voices, shifts, number):
    """The `style` of singer `number`, as `sing` takes it.

    `voices` (numbers in the bank) and `shifts` (factors of all formants and of the upper ones) are combined in a fixed
    order, so a number always means the same singer; only the way of singing is drawn from `random`.
    """
    voice = voices[number % len(voices)]
    shift, bend = shifts[number // len(voices) % len(shifts)]
    high = shift * (1.16 if bank()[0]["voices"][voice] == "slt" else 1.0)
    return {
        "voice": voice,
        "shift": shift,
        "bend": bend,
        "name": f"{bank()[0]['voices'][voice]} x{shift:g} x{bend:g}",
        "centre": int(np.clip(round(56 + 38 * (high - 1.0) + random.randint(-4, 5)), 45, 69)),
        "tilt": random.uniform(-2.0, 2.0) + TILT[voice],
        "inhale": 10 ** random.uniform(-2.8, -1.6),
        "breath": random.uniform(-10, 8),
        "jitter": random.uniform(0.02, 0.2),
        "rate": random.uniform(4.8, 6.3),
        "depth": random.uniform(0.1, 0.45),
        "delay": random.uniform(0.1, 0.4),
        "glide": random.uniform(0.05, 0.14),
        "scoop": random.uniform(0, 3),
        "drift": random.uniform(0.02, 0.05),
        "level": -20.0,
    }


def lyrics(random, voice, count):
    """Draw `count` syllables of `voice` for `sing`; words recur, and some last for several notes."""
    own = bank()[1][voice]
    verse = own[random.randint(len(own), size=max(count // 2, 6))]
    return [
        None if random.rand() < 0.1 else int(verse[(n + 3 * (random.rand() < 0.2)) % len(verse)]) for n in range(count)
    ]
