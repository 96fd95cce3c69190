"""From a seed to a song: sections, chords, grooves, lines and a melody, all as notes in seconds.

A note is a tuple (start, duration, pitch, velocity): seconds, seconds, MIDI key, 1-127.
"""

from dataclasses import dataclass, field

import numpy as np

from lib.corpus import styles

DRUMS = {"kick": 36, "snare": 38, "rim": 37, "clap": 39, "hat": 42, "open": 46, "ride": 51, "crash": 49,
         "shaker": 70, "tambourine": 54, "cowbell": 56, "conga": 63}
VELOCITY = {"X": 116, "x": 96, "o": 74, "g": 42}
PERCUSSION = {"shaker": ("xoxoxoxoxoxoxoxo", "o.x.o.x.o.x.o.x."), "tambourine": ("....x.......x...", "o.x.o.x.o.x.o.x."),
              "conga": ("x..x..x...x.xx..", "..xx..x...xx..x."), "cowbell": ("x...x...x...x...", "x.x..x.x.x..x.x."),
              "clap": ("....X.......X...",), "rim": ("...x..x...x..x..", "..x...x....x..x.")}
PHRASES = {  # two-bar rhythms of melodies: dense ones for slow songs, sparse ones for fast songs
    "dense": ("x-x-x-xxx-x-x---x-x-xx-xx-----..", "..xxx-x-xxx-x---..xxx-x-x-x-----", "x-xx-xx-x-x-x-x-x-xx-xx-x-----..",
              "xxx-x-x-xx-x-x--x-x-x-x-x-----..", "....x-xxx-x-x-x-x--x--x-x-------"),
    "middle": ("x---x-x-x---x---x-x-x-x-x-----..", "..x-x-x-x-x-x---..x-x-x-x-------", "x-x-x-x-x-----..x-x-x-x-x-----..",
               "x--x--x-x--x--x-x---x---x-------", "....x-x-x-x-x-x-x---x-x-x-----..", "x-----x-x---x---x-x-x---x-----.."),
    "sparse": ("x---x---x-----x-x---x---x-------", "x-------x---x---x---x---x-------", "....x---x---x---x-----x-x-------",
               "x-----x---x---x-x---x-----------", "x---x---x---x---x-------x-----.."),
}


@dataclass
class Part:
    """One instrument: `source` is a General MIDI program, ("kit", number) or the name of a synthesised wave."""

    stem: str
    kind: str
    source: object
    gain: float                          # decibels
    notes: list = field(default_factory=list)


@dataclass
class Song:
    """What is to be rendered; `lines` are the voices: (name, notes, syllable places) of lead, harmonies and doubles."""

    style: str
    tempo: float
    key: int
    mode: str
    seconds: float
    pump: bool
    parts: list
    lines: list


class Grid:
    """Sixteenths to seconds, with swing, and human deviations from both."""

    def __init__(self, style, random):
        self.tempo = random.uniform(*style["tempo"])
        self.step = 15.0 / self.tempo
        self.bar = style.get("steps", 16)
        self.swing = (style.get("swing", 0.0) * random.uniform(0.8, 1.1), style.get("swing16", 0.0) * random.uniform(0.5, 1.5))
        self.loose = random.uniform(0.001, 0.009) * (0.4 if style.get("electronic") else 1.0)
        self.random = random

    def seconds(self, step):
        """Time of `step` (sixteenths from the start, may be fractional)."""
        for unit, swing in zip((4, 2), self.swing, strict=True):
            beat, inside = divmod(step / unit, 1.0)
            middle = 0.5 + swing / 2
            inside = inside * middle / 0.5 if inside < 0.5 else middle + (inside - 0.5) * (1 - middle) / 0.5
            step = (beat + inside) * unit
        return step * self.step

    def note(self, start, steps, pitch, velocity, late=0.0, gate=0.95):
        """A played note: `start` and `steps` on the grid, `late` in seconds, velocity and time loosened."""
        begin = self.seconds(start) + late + self.loose * self.random.randn()
        length = max(gate * (self.seconds(start + steps) - self.seconds(start)), 0.04)
        return max(begin, 0.0), length, int(pitch), int(np.clip(velocity + 7 * self.random.randn(), 8, 127))


def pick(random, options):
    """One of `options`."""
    return options[random.randint(len(options))]


def hits(pattern, bar):
    """(step, steps, mark) of the notes of a pattern; `-` prolongs the note before it."""
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
        """Semitones above the key note of scale step `degree` (any integer)."""
        octave, step = divmod(int(degree), 7)
        return 12 * octave + self.scale[step]

    def chord(self, bar):
        """Pitch classes of the chord of `bar`, the root first."""
        degree = self.progression[bar % len(self.progression)]
        if self.dominant:
            return [(self.key + self.scale_tone(degree) + n) % 12 for n in (0, 4, 7, 10)]
        return [(self.key + self.scale_tone(degree + n)) % 12 for n in self.tones]

    def voicing(self, bar, centre, voices=4):
        """Close voicing of the chord of `bar` around `centre`, without the root where the chord has a ninth."""
        classes = self.chord(bar)
        classes = (classes[1:] if len(classes) > 4 else classes)[:voices]
        return sorted(centre - 6 + (c - centre + 6) % 12 for c in classes)


class Composer:
    """Composes one song; every method draws from the same random stream."""

    def __init__(self, name, seconds, centre, random):
        self.style, self.name, self.random, self.centre, self.length = styles.STYLES[name], name, random, centre, seconds
        self.grid = Grid(self.style, random)
        self.mode = pick(random, self.style["modes"])
        self.key = random.randint(12)
        family = "major" if self.mode in ("major", "mixolydian") else "minor"
        family = "blues" if self.style.get("blues") and random.rand() < 0.7 else family
        kinds = ("verse", "chorus", "bridge")
        self.harmony = {k: Harmony(self.style, self.key, self.mode, pick(random, styles.PROGRESSIONS[family])) for k in kinds}
        self.bars = int(np.ceil(seconds / (self.grid.bar * self.grid.step)))
        self.groove = {k: {part: pick(random, self.style.get(part, ("",))) for part in ("kick", "snare", "hat", "rim", "open", "ride")}
                       for k in kinds}
        self.sections = self.plan()

    def plan(self):
        """Sections: (kind, first bar, bars, absent stems). A stem rests now and then, never for long."""
        size = 4 if self.grid.bar * self.grid.step < 2.3 else 2
        order = ("verse", "chorus", "verse", "bridge", "chorus", "verse", "chorus", "chorus")
        offset, sections, rested = self.random.randint(len(order)), [], dict.fromkeys(("drums", "bass", "vocals"), 0)
        for n, first in enumerate(range(0, self.bars, size)):
            bars = min(size, self.bars - first)
            absent = {}
            for stem, chance in (("drums", 0.25), ("bass", 0.2), ("vocals", 0.3)):
                rest = self.random.randint(1, max(size // 2, 1) + 1)
                if self.random.rand() < chance and rested[stem] + rest <= 0.25 * self.bars and len(absent) < 2:
                    absent[stem] = rest
                    rested[stem] += rest
            sections.append((order[(n + offset) % len(order)], first, bars, absent))
        return sections

    def sounding(self, stem):
        """(bar of the song, bar of the section, kind, bars of the section) where `stem` plays."""
        for kind, first, bars, absent in self.sections:
            for bar in range(bars):
                if bar >= absent.get(stem, 0):
                    yield first + bar, bar, kind, bars

    def drums(self):
        """The kit as parts: kick, snare, cymbals with toms, percussion."""
        r, style, grid = self.random, self.style, self.grid
        kit = ("kit", pick(r, style["kits"]))
        parts = {name: Part("drums", name, kit, gain) for name, gain in
                 (("kick", 0.0), ("snare", -1.0), ("cymbals", -4.0), ("percussion", -7.0))}
        homes = {"kick": "kick", "snare": "snare", "rim": "snare", "clap": "snare", "crash": "cymbals"}
        extras = [e for e in style.get("extra", ()) if r.rand() < 0.6]
        loops = {e: pick(r, PERCUSSION[e]) for e in extras}
        late = {"snare": r.uniform(-0.004, 0.012), "hat": r.uniform(-0.004, 0.006)}
        variant = {"kick": pick(r, (35, 36)), "snare": pick(r, (38, 40)), "crash": pick(r, (49, 57))}
        riding = "ride" in style and r.rand() < 0.5

        def hit(name, step, velocity):
            home = homes.get(name, "percussion" if name in PERCUSSION else "cymbals")
            parts[home].notes.append(grid.note(step, 1, variant.get(name, DRUMS[name]), velocity, late.get(name, 0.0)))

        for bar, inside, kind, bars in self.sounding("drums"):
            start = bar * grid.bar
            patterns = dict(self.groove[kind])
            if not (riding and kind == "chorus"):
                patterns.pop("ride")
            else:
                patterns.pop("hat")
            fill = inside == bars - 1 and r.rand() < 0.6
            cut = grid.bar - (pick(r, (2, 4, 4, 8)) if fill else 0)
            for name, pattern in [*patterns.items(), *loops.items()]:
                for step, _, mark in hits(pattern, grid.bar):
                    if r.rand() < 0.03 or (step >= cut and name in ("snare", "hat", "ride")):
                        continue
                    wide = name == "hat" and mark == "X" and step % 8 == 6 and r.rand() < 0.2
                    hit("open" if wide else name, start + step, VELOCITY[mark])
            if r.rand() < 0.15:
                hit("kick", start + r.randint(grid.bar), 70)
            if inside == 0 and r.rand() < 0.75 or (style.get("crashy") and r.rand() < 0.5):
                hit("crash", start, 112)
            if fill:
                toms = pick(r, ((50, 48, 45, 43), (38, 38, 48, 43), (48, 45, 43, 41), (38, 38, 38, 40)))
                for n, step in enumerate(range(cut, grid.bar, pick(r, (1, 1, 2)))):
                    tom = toms[4 * n // max(grid.bar - cut, 1) % 4]
                    parts["snare" if tom in (38, 40) else "cymbals"].notes.append(grid.note(start + step, 1, tom, 86 + 6 * n))
        return list(parts.values())

    def bass(self):
        """The bass line."""
        r, grid = self.random, self.grid
        part = Part("bass", "bass", pick(r, self.style["bass_programs"]), 0.0)
        late, gate, low = r.uniform(-0.003, 0.009), r.uniform(0.6, 1.0), r.randint(26, 33)
        lines = {kind: pick(r, self.style["bass"]) for kind in self.harmony}
        for bar, inside, kind, bars in self.sounding("bass"):
            harmony = self.harmony[kind]
            chord, after = harmony.chord(inside), harmony.chord(inside + 1)
            root = low + (chord[0] - low) % 12
            tone = {"R": root, "8": root + 12, "3": root + (chord[1] - chord[0]) % 12, "5": root + (chord[2] - chord[0]) % 12,
                    "7": root + ((chord[3] if len(chord) > 3 else chord[0] - 2) - chord[0]) % 12, "g": root,
                    "a": low + (after[0] - low) % 12 + pick(r, (-1, 1, 2, -2))}
            pattern = lines[kind] if inside < bars - 1 or r.rand() < 0.6 else pick(r, self.style["bass"])
            for step, steps, mark in hits(pattern, grid.bar):
                ghost = mark == "g"
                part.notes.append(grid.note(bar * grid.bar + step, steps, tone[mark], 58 if ghost else 106 - 8 * (step % 4 > 0),
                                            late, 0.3 if ghost else gate))
        return part

    def layer(self, kind, programs, rhythms, gain, always):
        """One accompanying instrument of the stem `other`, playing in some kinds of section, or `always`."""
        r, grid = self.random, self.grid
        part = Part("other", kind, pick(r, programs), gain + 1.5 * r.randn())
        where = {k for k in self.harmony if r.rand() < (0.85 if k == "chorus" else 0.6) or always} or set(self.harmony)
        rhythm = {k: pick(r, rhythms) if rhythms else "" for k in self.harmony}
        centre, late = {"power": 46, "brass": 67, "arpeggio": 64}.get(kind, 60) + r.randint(-4, 5), r.uniform(-0.004, 0.01)
        strum = r.uniform(0.008, 0.022) if part.source in (24, 25, 26, 27, 28) else 0.002
        order = r.randint(4)
        if kind == "lead":
            part.notes = [n for k in self.harmony if k in where for n in self.melody(self.centre + pick(r, (5, 12)), only=k)]
            return part
        for bar, inside, section, _ in self.sounding("other"):
            if section not in where:
                continue
            keys = self.harmony[section].voicing(inside, centre, 3 if kind in ("brass", "power") else 4)
            if kind == "power":
                root = self.harmony[section].chord(inside)[0]
                root = 40 + (root - 40) % 12
                keys = [root, root + 7, root + 12]
            ladder = [*keys, *[key + 12 for key in keys]]
            ladder = (ladder, ladder[::-1], ladder + ladder[-2:0:-1], list(np.array(ladder)[[0, 3, 1, 4, 2, 5]]))[order]
            for n, (step, steps, mark) in enumerate(hits(rhythm[section], grid.bar)):
                at, velocity = bar * grid.bar + step, VELOCITY[mark] - (12 if kind == "pad" else 0)
                if kind == "arpeggio":
                    part.notes.append(grid.note(at, steps + 1, ladder[n % len(ladder)], velocity, late))
                    continue
                gate = {"stab": 0.6, "pad": 1.03}.get(kind, 0.93) * (0.35 if mark == "g" else 1.0)
                down = -1 if step % 4 >= 2 else 1
                for place, key in enumerate(keys[::down]):
                    part.notes.append(grid.note(at, steps, key, velocity, late + strum * place, gate))
        return part

    def melody(self, centre, only=None):
        """A tune around MIDI key `centre` for the singing sections, or for the sections `only`: notes in order."""
        r, grid = self.random, self.grid
        speed = "dense" if grid.tempo < 88 else "sparse" if grid.tempo > 135 else "middle"
        tunes = {}
        notes = []
        for kind, first, bars, absent in self.sections:
            if only not in (None, kind):
                continue
            if kind not in tunes:
                tunes[kind] = self.tune(kind, centre + 3 * (kind == "chorus"), pick(r, PHRASES[speed]), pick(r, PHRASES[speed]))
            for bar, step, steps, key in tunes[kind]:
                if bar < bars and (only or bar >= absent.get("vocals", 0)):
                    notes.append(grid.note((first + bar) * grid.bar + step, steps, key, 94 + 10 * (step % 4 == 0), gate=0.97))
        return sorted(notes)

    def tune(self, kind, centre, question, answer):
        """Four bars as (bar, step, steps, key): chord tones on strong beats, steps between, a turn home at the end."""
        r, harmony = self.random, self.harmony[kind]
        notes = []
        degree = 7 * ((centre - self.key) // 12) + pick(r, (0, 2, 4))
        ladder = {d: self.key + harmony.scale_tone(d) for d in range(-7, 84)}
        for phrase in range(2):
            rhythm = question if phrase == 0 or r.rand() < 0.5 else answer
            for half in range(2):
                bar = 2 * phrase + half
                for step, steps, _ in hits(rhythm[16 * half:16 * half + 16], self.grid.bar):
                    degree += pick(r, (-2, -1, -1, -1, 0, 0, 1, 1, 1, 2, 3 * (r.rand() < 0.3)))
                    degree += (ladder[degree] < centre - 6) * pick(r, (1, 2)) - (ladder[degree] > centre + 6) * pick(r, (1, 2))
                    chord = harmony.chord(bar)
                    if step % 8 == 0 or steps > 4:
                        degree = min(range(degree - 3, degree + 4),
                                     key=lambda d: (ladder[d] % 12 not in chord, abs(ladder[d] - ladder[degree])))
                    notes.append((bar, step, steps, ladder[degree]))
        return notes

    def voices(self):
        """Lead, and for some songs doubles and harmonies: (name, notes, place in the lead's text of each note)."""
        r = self.random
        lead = self.melody(self.centre)
        lines = [("lead", lead, list(range(len(lead))))]
        chorus = [(a * self.grid.bar, (a + n) * self.grid.bar) for k, a, n, _ in self.sections if k == "chorus"]
        inside = [n for n, note in enumerate(lead) if any(self.grid.seconds(a) - 0.1 <= note[0] < self.grid.seconds(b) - 0.1
                                                          for a, b in chorus)]
        third = self.harmony["chorus"]
        for name, chance in (("double", 0.4), ("double", 0.4), ("harmony", 0.45)):
            if r.rand() > chance or not inside:
                continue
            places = inside if name == "harmony" or r.rand() < 0.6 else list(range(len(lead)))
            notes = []
            for place in places:
                start, length, key, velocity = lead[place]
                if name == "harmony":
                    degree = next(d for d in range(84) if self.key + third.scale_tone(d) >= key)
                    key = self.key + third.scale_tone(degree + 2)
                notes.append((max(start + 0.012 * r.randn(), 0.0), length, key, velocity - 12))
            lines.append((name, notes, places))
        return lines

    def song(self):
        """The finished `Song`."""
        r = self.random
        menu = [n for n, layer in enumerate(self.style["layers"])]
        chosen = sorted(r.permutation(menu)[:r.randint(2, min(len(menu), 4) + 1)])
        steady = [n for n in menu if self.style["layers"][n][0] in ("chord", "pad", "arpeggio", "power")]
        base = pick(r, [n for n in chosen if n in steady] or steady)
        layers = [self.layer(*self.style["layers"][n], n == base) for n in sorted({base, *chosen})]
        parts = [*self.drums(), self.bass(), *layers]
        lines = self.voices()
        for part in parts:
            part.notes = sorted(n for n in part.notes if n[0] < self.length - 0.05)
        lines = [(name, *zip(*[(n, p) for n, p in zip(notes, places, strict=True) if n[0] < self.length - 0.3], strict=True))
                 for name, notes, places in lines if notes and notes[0][0] < self.length - 0.3]
        return Song(self.name, self.grid.tempo, self.key, self.mode, self.length, self.style.get("pump", False), [p for p in parts if p.notes], lines)
