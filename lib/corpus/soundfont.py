"""A SoundFont 2 player in numpy: it renders the notes of a General MIDI program.

symusic 0.5.8 ignores the generators overridingRootKey and fineTune, so it plays most instruments of TimGM6mb.sf2
at the wrong pitch. This player is also stateless: the same notes always give the same bytes.
Source: SoundFont Technical Specification 2.04. Of its modulators, only velocity to loudness is implemented.
"""

import functools
import struct
from pathlib import Path

import numpy as np
from scipy import signal

from lib.common.errors import UserError

RATE = 44_100
# Generators by number (specification 8.1.2) with their defaults; times in timecents, levels in centibels.
DEFAULTS = {8: 13_500, 11: 0, 17: 0, 27: -12_000, 28: -12_000, 29: 0, 33: -12_000, 34: -12_000, 35: -12_000,
            36: -12_000, 37: 0, 38: -12_000, 40: 0, 48: 0, 51: 0, 52: 0, 54: 0, 56: 100, 57: 0, 58: -1}  # fmt: skip
FILTER, TO_FILTER, PAN, FALL, FLOOR = 8, 11, 17, 28, 29
DELAY, ATTACK, HOLD, DECAY, SUSTAIN, RELEASE, KEY_TO_DECAY = 33, 34, 35, 36, 37, 38, 40
INSTRUMENT, KEYS, VELOCITIES, ATTENUATION, COARSE, FINE, SAMPLE, LOOP, SCALE, CLASS, ROOT = (
    41, 43, 44, 48, 51, 52, 53, 54, 56, 57, 58)  # fmt: skip


def seconds(timecents):
    """Convert timecents to seconds; the smallest values mean "none" and give 1 ms."""
    return 2 ** (timecents / 1200) if timecents > -11_000 else 0.001


class SoundFont:
    """The presets of the .sf2 file `path`. Raises `UserError` if it is not a SoundFont."""

    def __init__(self, path):
        content = Path(path).read_bytes()
        if content[:4] != b"RIFF" or content[8:12] != b"sfbk":
            raise UserError(f"{path} is not a SoundFont: pass the path of an .sf2 file.")
        chunks = dict(self.chunks(content, 12))
        self.samples = np.frombuffer(chunks[b"smpl"], "<i2")
        table = {
            name: list(struct.iter_unpack(form, chunks[name]))
            for name, form in (
                (b"phdr", "<20sHHHIII"),
                (b"pbag", "<HH"),
                (b"pgen", "<HH"),
                (b"inst", "<20sH"),
                (b"ibag", "<HH"),
                (b"igen", "<HH"),
                (b"shdr", "<20sIIIIIBbHH"),
            )
        }
        self.headers = table[b"shdr"]
        instruments = [
            self.bags(table, b"ibag", b"igen", a[1], b[1], SAMPLE)
            for a, b in zip(table[b"inst"], table[b"inst"][1:], strict=False)
        ]
        self.presets = {}
        for a, b in zip(table[b"phdr"], table[b"phdr"][1:], strict=False):
            outer = self.bags(table, b"pbag", b"pgen", a[3], b[3], INSTRUMENT)
            self.presets[a[2], a[1]] = self.zones(outer, instruments)

    def chunks(self, content, start):
        """Yield (name, bytes) of the chunks from `start` on, and of those inside lists."""
        while start + 8 <= len(content):
            name, size = struct.unpack_from("<4sI", content, start)
            if name == b"LIST":
                yield from self.chunks(content[start + 8 : start + 8 + size], 4)
            else:
                yield name, content[start + 8 : start + 8 + size]
            start += 8 + size + size % 2

    def bags(self, table, bag, generators, first, last, needed):
        """The zones `first` to `last` of a preset or instrument as dictionaries, each merged with its global zone."""
        common, zones = {}, []
        for number in range(first, last):
            values = table[generators][table[bag][number][0] : table[bag][number + 1][0]]
            zone = {
                key: value if key in (INSTRUMENT, SAMPLE, KEYS, VELOCITIES) else (value ^ 0x8000) - 0x8000
                for key, value in values
            }
            if needed in zone:
                zones.append(common | zone)
            elif number == first:
                common = zone
        return zones

    def zones(self, outer, instruments):
        """The zones of a preset: the instrument's values plus the preset's, and the intersection of their ranges."""
        result = []
        for preset in outer:
            for inner in instruments[preset[INSTRUMENT]]:
                zone = DEFAULTS | inner
                for key, value in preset.items():
                    if key in DEFAULTS and key not in (LOOP, CLASS, ROOT, SCALE):
                        zone[key] += value
                for key in (KEYS, VELOCITIES):
                    low, high = (
                        max(z.get(key, 0x7F00) & 255 for z in (inner, preset)),
                        min(z.get(key, 0x7F00) >> 8 for z in (inner, preset)),
                    )
                    zone[key] = (low, high)
                result.append(zone)
        return result

    def preset(self, program, drums):
        """The zones of a General MIDI program or drum kit; if the font lacks it, those of its first one."""
        bank = 128 if drums else 0
        return self.presets.get((bank, program)) or self.presets.get((bank, 0)) or next(iter(self.presets.values()))


def struck(font, zone, key, length, pitch=0.0):
    """Play `key` on a `zone` for `length` samples, with the envelope before the release: (samples,).

    `pitch` in semitones is added to the key.
    """
    _, start, end, loop, loop_end, rate, original, cents, _, _ = font.headers[zone[SAMPLE]]
    root = zone[ROOT] if zone[ROOT] >= 0 else original
    tune = pitch + zone[COARSE] + (zone[FINE] + cents) / 100
    ratio = rate / RATE * 2 ** (((key - root) * zone[SCALE] / 100 + tune) / 12)
    looped = zone[LOOP] & 1 and loop_end > loop + 4
    if not looped:
        length = min(length, int((end - start - 2) / ratio))
    place = np.arange(max(length, 1)) * ratio
    if looped:
        place = np.where(place < loop_end - start, place, loop - start + (place - (loop - start)) % (loop_end - loop))
    low = place.astype(np.int32)
    data = font.samples[start : max(end, loop_end) + 8].astype(np.float32) / 32_768
    if looped:
        data[loop_end - start : loop_end - start + 1] = data[loop - start]
    sound = data[low] + (data[low + 1] - data[low]) * (place - low).astype(np.float32)
    time = np.arange(len(sound), dtype=np.float32) / RATE
    high = zone[FILTER] + max(zone[TO_FILTER], 0)
    calm = zone[FILTER] + zone[TO_FILTER] * (1 - min(zone[FLOOR], 1000) / 1000)
    bright = lowpass(sound, high)
    if high - calm > 600 and (fall := seconds(zone[FALL])) < 8:
        dark = lowpass(sound, calm)
        bright = dark + (bright - dark) * np.exp(-3 * time / fall)
    after = time - seconds(zone[DELAY]) - seconds(zone[ATTACK]) - seconds(zone[HOLD])
    decay = seconds(zone[DECAY] + (60 - key) * zone[KEY_TO_DECAY])
    fallen = np.minimum(np.maximum(after, 0) / decay * 100, zone[SUSTAIN] / 10)
    rise = np.clip((time - seconds(zone[DELAY])) / seconds(zone[ATTACK]), 0, 1)
    return (bright * rise * 10 ** (-(fallen + 0.04 * zone[ATTENUATION]) / 20)).astype(np.float32)


def lowpass(sound, cents):
    """Low-pass `sound`; its corner is `cents` above 8.176 Hz, the unit of SoundFonts."""
    corner = 8.176 * 2 ** (cents / 1200)
    if corner > 15_000:
        return sound
    return signal.sosfilt(butterworth(max(corner, 40)), sound).astype(np.float32)


@functools.cache
def butterworth(corner):
    """Second-order sections of a low-pass filter; its design takes as long as 50 ms of sound."""
    return signal.butter(2, corner, fs=RATE, output="sos")


@functools.lru_cache(maxsize=1)
def load(path):
    """Load the `SoundFont` in the file `path`; the last one is cached."""
    return SoundFont(path)


def play(font, program, notes, samples, drums=False, pitch=0.0):
    """Play `notes`, tuples (start, duration, pitch, velocity) in order of time, on `program`: (2, samples).

    `pitch` in semitones is added to all keys without choosing other samples.
    """
    sound = np.zeros((2, samples), np.float32)
    for zone in font.preset(program, drums):
        (lowest, highest), (softest, loudest) = zone[KEYS], zone[VELOCITIES]
        mine = [n for n in notes if lowest <= n[2] <= highest and softest <= n[3] <= loudest]
        release = min(seconds(zone[RELEASE]), 2.0)
        left, right = np.sqrt(0.5 + np.array([-1, 1]) * np.clip(zone[PAN], -500, 500) / 1000)
        fade = 10 ** (-np.arange(max(int(0.6 * release * RATE), 64), dtype=np.float32) / RATE / release * 5)
        one_shot = drums and not zone[LOOP] & 1
        held = {}
        for start, duration, key, _ in mine:
            length = 3.0 if one_shot else duration
            held[key] = max(held.get(key, 0), min(int(length * RATE) + len(fade), samples - int(start * RATE)))
        waves = {key: struck(font, zone, key, length, pitch) for key, length in held.items()}
        for number, (start, duration, key, velocity) in enumerate(mine):
            first = int(start * RATE)
            until = mine[number + 1][0] - start if zone[CLASS] and number + 1 < len(mine) else np.inf
            size = int((min(3.0 if one_shot else duration, until)) * RATE)
            wave = waves[key][: max(min(size + len(fade), samples - first), 0)] * np.float32((velocity / 127) ** 2)
            tail = wave[size:]
            tail *= fade[: len(tail)]
            part = np.float32(left) * wave
            sound[0, first : first + len(wave)] += part
            sound[1, first : first + len(wave)] += part if left == right else np.float32(right) * wave
    return sound
