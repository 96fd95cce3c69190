"""The composer's vocabulary: rhythms on a grid with swing, keys, modes and chords.

A note is a tuple (start, duration, pitch, velocity) in seconds, seconds, MIDI key and 1-127.
"""

import numpy as np

from lib.corpus import styles

DRUMS = {"kick": 36, "snare": 38, "rim": 37, "clap": 39, "hat": 42, "open": 46, "ride": 51, "crash": 49,
         "shaker": 70, "tambourine": 54, "cowbell": 56, "conga": 63}  # General MIDI keys  # fmt: skip
VELOCITY = {"X": 116, "x": 96, "o": 74, "g": 42}
PERCUSSION = {
    "shaker": ("xoxoxoxoxoxoxoxo", "o.x.o.x.o.x.o.x."),
    "tambourine": ("....x.......x...", "o.x.o.x.o.x.o.x."),
    "conga": ("x..x..x...x.xx..", "..xx..x...xx..x."),
    "cowbell": ("x...x...x...x...", "x.x..x.x.x..x.x."),
    "clap": ("....X.......X...",),
    "rim": ("...x..x...x..x..", "..x...x....x..x."),
}
PHRASES = {  # two-bar rhythms of melodies: dense for slow songs, sparse for fast ones
    "dense": (
        "x-x-x-xxx-x-x---x-x-xx-xx-----..",
        "..xxx-x-xxx-x---..xxx-x-x-x-----",
        "x-xx-xx-x-x-x-x-x-xx-xx-x-----..",
        "xxx-x-x-xx-x-x--x-x-x-x-x-----..",
        "....x-xxx-x-x-x-x--x--x-x-------",
    ),
    "middle": (
        "x---x-x-x---x---x-x-x-x-x-----..",
        "..x-x-x-x-x-x---..x-x-x-x-------",
        "x-x-x-x-x-----..x-x-x-x-x-----..",
        "x--x--x-x--x--x-x---x---x-------",
        "....x-x-x-x-x-x-x---x-x-x-----..",
        "x-----x-x---x---x-x-x---x-----..",
    ),
    "rap": (
        "xxx.xxxxx.xx.xx.xxxxx.xxx.xxx...",
        "x.xxx.xxxxxx.x..x.xxx.xxx.xxx-..",
        "..xxxxx.xxxxx.x.xxx.xxx.xxxxx...",
        "xx.xx.xx.xx.xxx.xx.xx.xx.xxxx-..",
    ),
    "sparse": (
        "x---x---x-----x-x---x---x-------",
        "x-------x---x---x---x---x-------",
        "....x---x---x---x-----x-x-------",
        "x-----x---x---x-x---x-----------",
        "x---x---x---x---x-------x-----..",
    ),
}


class Grid:
    """Converts sixteenths to seconds, with swing and human deviations in time and velocity."""

    def __init__(self, style, random):
        self.tempo = random.uniform(*style["tempo"])
        self.step = 15.0 / self.tempo
        self.bar = style.get("steps", 16)
        self.swing = (
            style.get("swing", 0.0) * random.uniform(0.8, 1.1),
            style.get("swing16", 0.0) * random.uniform(0.5, 1.5),
        )
        self.loose = random.uniform(0.001, 0.009) * (0.4 if style.get("electronic") else 1.0)
        self.random = random
        # Bands do not keep their tempo: it sways by up to 2 % within half a minute.
        self.sway = (0.0 if style.get("electronic") else random.uniform(0, 0.02)), random.uniform(8, 30), random.rand()

    def seconds(self, step):
        """Time of `step`, in sixteenths from the start; it may be fractional."""
        for unit, swing in zip((4, 2), self.swing, strict=True):
            beat, inside = divmod(step / unit, 1.0)
            middle = 0.5 + swing / 2
            inside = inside * middle / 0.5 if inside < 0.5 else middle + (inside - 0.5) * (1 - middle) / 0.5
            step = (beat + inside) * unit
        amount, period, phase = self.sway
        turn, time = 2 * np.pi / period, step * self.step
        return time + amount / turn * (np.sin(turn * (time + phase * period)) - np.sin(2 * np.pi * phase))

    def note(self, start, steps, pitch, velocity, late=0.0, gate=0.95):
        """A note at `start` for `steps` sixteenths, `late` in seconds, with random deviations in time and velocity."""
        begin = self.seconds(start) + late + self.loose * self.random.randn()
        length = max(gate * (self.seconds(start + steps) - self.seconds(start)), 0.04)
        return max(begin, 0.0), length, int(pitch), int(np.clip(velocity + 7 * self.random.randn(), 8, 127))


def pick(random, options):
    """Draw one of `options`."""
    return options[random.randint(len(options))]


def hits(pattern, bar):
    """Yield (step, steps, mark) for each note of a pattern; `-` prolongs the note before it."""
    pattern = pattern[:bar].ljust(bar, ".")
    starts = [n for n, mark in enumerate(pattern) if mark not in ".-"]
    for n in starts:
        end = n + 1
        while end < bar and pattern[end] == "-":
            end += 1
        yield n, end - n, pattern[n]


class Harmony:
    """Key, mode and chords of a section; chord tones and scale tones as MIDI keys."""

    def __init__(self, style, key, mode, progression):
        self.key, self.scale, self.progression = key, styles.MODES[mode], progression
        self.tones, self.dominant = styles.TONES[style["tones"]], style["tones"] == "dominant"

    def scale_tone(self, degree):
        """Semitones of scale step `degree` (any integer) above the key note."""
        octave, step = divmod(int(degree), 7)
        return 12 * octave + self.scale[step]

    def chord(self, bar):
        """Pitch classes of the chord in `bar`, root first."""
        degree = self.progression[bar % len(self.progression)]
        if self.dominant:
            return [(self.key + self.scale_tone(degree) + n) % 12 for n in (0, 4, 7, 10)]
        return [(self.key + self.scale_tone(degree + n)) % 12 for n in self.tones]

    def voicing(self, bar, centre, voices=4):
        """MIDI keys of the chord in `bar`, close to `centre`; a chord with a ninth loses its root."""
        classes = self.chord(bar)
        classes = (classes[1:] if len(classes) > 4 else classes)[:voices]
        return sorted(centre - 6 + (c - centre + 6) % 12 for c in classes)
