"""Compose a song from a random stream: sections, chords, grooves, bass, accompaniment and melody, as notes.

A note is a tuple (start, duration, pitch, velocity) in seconds, seconds, MIDI key and 1-127.
"""

from dataclasses import dataclass, field

import numpy as np

from lib.corpus import styles
from lib.corpus.notes import DRUMS, PERCUSSION, PHRASES, VELOCITY, Grid, Harmony, hits, pick
from lib.corpus.sounds import Sounds

RESTS = {  # chance that a stem rests in a section
    "band": {"drums": 0.35, "bass": 0.3, "other": 0.2, "vocals": 0.4},
    "electronic": {"drums": 0.5, "bass": 0.7, "other": 0.5, "vocals": 0.45},
    "dense": {"drums": 0.1, "bass": 0.1, "other": 0.0, "vocals": 0.2},
}
MOST_REST = {"drums": 0.4, "bass": 0.6, "other": 0.4, "vocals": 0.4}  # share of the bars
STEADY = ("chord", "pad", "arpeggio", "power")  # kinds of layers that may carry the accompaniment alone
LONG = ("R---------------", "R-------R-------", "R-----R---------", "R-----------5---")


@dataclass
class Part:
    """One instrument and its notes.

    `source` is a General MIDI program, ("kit", number), one of `synth.WAVES` or "transitions".
    """

    stem: str
    kind: str
    source: object
    gain: float  # decibels
    preset: int = 0  # of synthesisers and synthesised kits
    notes: list = field(default_factory=list)


@dataclass
class Song:
    """A song to be rendered.

    `lines` are the sung lines: (name, notes, index of the syllable of each note). `faders` gives for every stem the
    points (seconds, decibels) of its level's course.
    """

    style: str
    tempo: float
    key: int
    mode: str
    seconds: float
    electronic: bool
    pump: bool
    dense: bool
    parts: list
    lines: list
    faders: dict
    sounds: Sounds


class Composer:
    """Composes one song. All methods draw from one random stream, so their order matters.

    A `dense` song has more layers, voices and percussion, which rest less.
    """

    def __init__(self, name, seconds, centre, random, sounds, dense=False):
        self.style, self.name, self.random = styles.STYLES[name], name, random
        self.sounds, self.dense, self.electronic = sounds, dense, bool(styles.STYLES[name].get("electronic"))
        self.centre, self.length = centre, seconds
        self.grid = Grid(self.style, random)
        self.mode = pick(random, self.style["modes"])
        self.key = random.randint(12)
        family = self.mode if self.mode in ("major", "mixolydian") else "minor"
        family = "blues" if self.style.get("blues") and random.rand() < 0.7 else family
        kinds = ("verse", "chorus", "bridge")
        self.harmony = {
            k: Harmony(self.style, self.key, self.mode, pick(random, styles.PROGRESSIONS[family])) for k in kinds
        }
        self.bars = int(np.ceil(seconds / (self.grid.bar * self.grid.step)))
        self.groove = {
            k: {
                part: pick(random, self.style.get(part, ("",)))
                for part in ("kick", "snare", "hat", "rim", "open", "ride")
            }
            for k in kinds
        }
        self.sections = self.plan()

    def plan(self):
        """List the sections: (kind, first bar, bars, {stem: bars of the section in which it rests})."""
        size = 4 if self.grid.bar * self.grid.step < 2.3 else 2
        order = ("verse", "chorus", "verse", "bridge", "chorus", "verse", "chorus", "chorus")
        offset, sections, r = self.random.randint(len(order)), [], self.random
        chances = RESTS["dense" if self.dense else "electronic" if self.electronic else "band"]
        rested = dict.fromkeys(chances, 0)
        first = 0
        while first < self.bars:
            bars = min(size // 2 if r.rand() < (0.5 if self.electronic else 0.25) else size, self.bars - first)
            absent, kind = {}, order[(len(sections) + offset) % len(order)]
            for stem in r.permutation(list(chances)):
                rest = range(bars)
                if r.rand() < 0.5:  # only at its start, or at its end
                    some = r.randint(1, max(bars // 2, 1) + 1)
                    rest = range(some) if r.rand() < 0.7 else range(bars - some, bars)
                left = (MOST_REST[stem] if self.bars > 6 else 0.25) * self.bars - rested[stem]
                if (
                    r.rand() < chances[stem] * (0.6 if kind == "chorus" else 1.2)
                    and len(rest) <= left
                    and len(absent) < 2
                ):
                    absent[stem] = set(rest)
                    rested[stem] += len(rest)
            sections.append((kind, first, bars, absent))
            first += bars
        for _, _, _, absent in sorted(sections, key=lambda section: len(section[3])):
            full = sum(bars - len(set().union(*absent.values())) for _, _, bars, absent in sections)
            if full < 0.25 * self.bars:  # a quarter of the bars has all four stems
                absent.clear()
        return sections

    def faders(self):
        """The course of every stem's level, {stem: [(seconds, decibels), ...]}: other levels, build-ups and fades."""
        r, loose = self.random, 5.0 if self.electronic else 2.0
        points = {}
        for stem in ("drums", "bass", "other", "vocals"):
            points[stem] = []
            for _, first, bars, _ in self.sections:
                begin, end = (self.grid.seconds(bar * self.grid.bar) for bar in (first, first + bars))
                start, stop = loose * np.clip(r.randn(2), -2.5, 1)
                if r.rand() > 0.25 * self.electronic:  # otherwise it rises or falls slowly
                    stop = start
                points[stem] += [(begin + 0.02, start), (max(end - 0.02, begin + 0.03), stop)]
        return points

    def sounding(self, stem):
        """Yield (bar in the song, bar in the section, kind, bars of the section) for the bars in which `stem` plays."""
        for kind, first, bars, absent in self.sections:
            for bar in range(bars):
                if bar not in absent.get(stem, ()):
                    yield first + bar, bar, kind, bars

    def drums(self):
        """The drum kit as four parts: kick, snare, cymbals with toms, percussion."""
        r, style, grid = self.random, self.style, self.grid
        kit, preset = ("kit", self.sounds.pick(0, style["kits"])), self.sounds.preset(1)
        parts = {
            name: Part("drums", name, kit, gain, preset)
            for name, gain in (("kick", -2.0), ("snare", 0.5), ("cymbals", -5.5), ("percussion", -7.0))
        }
        homes = {"kick": "kick", "snare": "snare", "rim": "snare", "clap": "snare", "crash": "cymbals"}
        extras = [e for e in style.get("extra", ()) if r.rand() < (1.0 if self.dense else 0.6)]
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
                    parts["snare" if tom in (38, 40) else "cymbals"].notes.append(
                        grid.note(start + step, 1, tom, 86 + 6 * n)
                    )
        return list(parts.values())

    def bass(self):
        """The bass part."""
        r, grid = self.random, self.grid
        part = Part("bass", "bass", self.sounds.program(2, self.style["bass_programs"]), 0.0, self.sounds.preset(3))
        late, gate, low = r.uniform(-0.003, 0.009), r.uniform(0.6, 1.0), r.randint(26, 33)
        sustained = r.rand() < 0.6
        lines = {kind: pick(r, self.style["bass"]) for kind in self.harmony}
        if r.rand() < (0.5 if self.electronic else 0.15):  # a bass of long notes
            lines = {kind: pick(r, LONG) for kind in self.harmony}
        for bar, inside, kind, bars in self.sounding("bass"):
            harmony = self.harmony[kind]
            chord, after = harmony.chord(inside), harmony.chord(inside + 1)
            root = low + (chord[0] - low) % 12
            tone = {
                "R": root,
                "8": root + 12,
                "3": root + (chord[1] - chord[0]) % 12,
                "5": root + (chord[2] - chord[0]) % 12,
                "7": root + ((chord[3] if len(chord) > 3 else chord[0] - 2) - chord[0]) % 12,
                "g": root,
                "a": low + (after[0] - low) % 12 + pick(r, (-1, 1, 2, -2)),
            }
            pattern = lines[kind] if inside < bars - 1 or r.rand() < 0.6 else pick(r, self.style["bass"])
            played = list(hits(pattern, grid.bar))
            for (step, steps, mark), (later, _, _) in zip(played, [*played[1:], (grid.bar, 0, "")], strict=True):
                ghost, start = mark == "g", bar * grid.bar + step
                steps = min(later - step, steps + 3) if sustained and not ghost else steps
                velocity = 58 if ghost else 106 - 8 * (step % 4 > 0)
                part.notes.append(grid.note(start, steps, tone[mark], velocity, late, 0.3 if ghost else gate))
        return part

    def layer(self, place, kind, programs, rhythms, gain, always):
        """One instrument of the stem `other`, `place` in its style: in some kinds of section, or in all if `always`."""
        r, grid, sounds = self.random, self.grid, self.sounds
        part = Part(
            "other", kind, sounds.program(4 + 2 * place, programs), gain + 1.5 * r.randn(), sounds.preset(5 + 2 * place)
        )
        chances = {k: 0.85 if k == "chorus" else 0.45 if self.electronic else 0.6 for k in self.harmony}
        where = {k for k, chance in chances.items() if r.rand() < chance or always} or set(self.harmony)
        rhythm = {k: pick(r, rhythms) if rhythms else "" for k in self.harmony}
        centre, late = (
            {"power": 46, "brass": 67, "arpeggio": 64}.get(kind, 60)
            + r.randint(-4, 5)
            - 12
            * (
                kind in ("pad", "arpeggio", "stab")
                and r.rand() < (0.5 if self.dense else 0.35 if self.electronic else 0.1)
            ),
            r.uniform(-0.004, 0.01),
        )
        short = r.uniform(0.2, 0.9) if self.electronic and r.rand() < 0.6 else 1.0
        strum = r.uniform(0.008, 0.022) if part.source in (24, 25, 26, 27, 28) else 0.002
        order = r.randint(4)
        if kind == "lead":
            register = r.randint(60, 77)
            part.notes = [n for k in self.harmony if k in where for n in self.melody(register, only=k)]
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
                    part.notes.append(grid.note(at, steps + 1, ladder[n % len(ladder)], velocity, late, 0.95 * short))
                    continue
                gate = {"stab": 0.6, "pad": 1.03 / short}.get(kind, 0.93) * short * (0.35 if mark == "g" else 1.0)
                down = -1 if step % 4 >= 2 else 1
                for place, key in enumerate(keys[::down]):
                    part.notes.append(grid.note(at, steps, key, velocity, late + strum * place, gate))
        return part

    def melody(self, centre, only=None):
        """A melody around MIDI key `centre`, as notes in order: for the vocals, or for sections of the kind `only`."""
        r, grid = self.random, self.grid
        rapped = only is None and r.rand() < self.style.get("rap", 0.0)
        speed = "dense" if grid.tempo < 88 else "sparse" if grid.tempo > 135 else "middle"
        phrases = PHRASES["rap" if rapped else speed]
        tunes, notes = {}, []
        for kind, first, bars, absent in self.sections:
            if only not in (None, kind):
                continue
            if kind not in tunes:
                middle = centre - 5 if rapped else centre + 3 * (kind == "chorus")
                tunes[kind] = self.tune(kind, middle, pick(r, phrases), pick(r, phrases), 2 if rapped else 6)
            for bar, step, steps, key in tunes[kind]:
                if bar < bars and (only or bar not in absent.get("vocals", ())):
                    notes.append(
                        grid.note((first + bar) * grid.bar + step, steps, key, 94 + 10 * (step % 4 == 0), gate=0.97)
                    )
        return sorted(notes)

    def tune(self, kind, centre, question, answer, reach):
        """A four-bar tune (bar, step, steps, key) around `centre` ± `reach` semitones; strong beats get chord tones."""
        r, harmony = self.random, self.harmony[kind]
        notes = []
        degree = 7 * ((centre - self.key) // 12) + pick(r, (0, 2, 4))
        ladder = {d: self.key + harmony.scale_tone(d) for d in range(-7, 84)}
        for phrase in range(2):
            rhythm = question if phrase == 0 or r.rand() < 0.5 else answer
            for half in range(2):
                bar = 2 * phrase + half
                chord = harmony.chord(bar)
                for step, steps, _ in hits(rhythm[16 * half : 16 * half + 16], self.grid.bar):
                    degree += pick(r, (-2, -1, -1, -1, 0, 0, 1, 1, 1, 2, 3 * (r.rand() < 0.3)))
                    degree += (ladder[degree] < centre - reach) * pick(r, (1, 2))
                    degree -= (ladder[degree] > centre + reach) * pick(r, (1, 2))
                    if step % 8 == 0 or steps > 4:
                        near = {d: abs(ladder[d] - ladder[degree]) for d in range(degree - 3, degree + 4)}
                        degree = min(near, key=lambda d, near=near: (ladder[d] % 12 not in chord, near[d]))
                    notes.append((bar, step, steps, ladder[degree]))
        return notes

    def voices(self):
        """The lead and, in some songs, doubles, harmonies and a choir: (name, notes, index of each note's syllable)."""
        r = self.random
        lead = self.melody(self.centre)
        lines = [("lead", lead, list(range(len(lead))))]
        chorus = [(a * self.grid.bar, (a + n) * self.grid.bar) for k, a, n, _ in self.sections if k == "chorus"]
        spans = [(self.grid.seconds(a) - 0.1, self.grid.seconds(b) - 0.1) for a, b in chorus]
        inside = [n for n, note in enumerate(lead) if any(a <= note[0] < b for a, b in spans)]
        third = self.harmony["chorus"]
        for name, chance in (("double", 0.4), ("double", 0.4), ("harmony", 0.45)):
            if r.rand() > (0.8 if self.dense else chance) or not inside:
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
        if r.rand() < (0.5 if self.dense else 0.22):
            for voice in range(r.randint(1, 3)):
                notes = [
                    self.grid.note(
                        bar * self.grid.bar,
                        self.grid.bar,
                        self.harmony[kind].voicing(inside, self.centre, 3)[voice],
                        80,
                    )
                    for bar, inside, kind, _ in self.sounding("vocals")
                    if kind != "verse"
                ]
                lines.append(("choir", notes, list(range(len(lead), len(lead) + len(notes)))))
        return lines

    def transitions(self):
        """Risers before sections, falls and impacts at their start and blips between: a part of the stem `other`."""
        r, grid = self.random, self.grid
        part = Part("other", "transitions", "transitions", r.uniform(-16, -4), self.sounds.preset(40))
        chance = 0.6 if self.electronic else 0.15
        for _, first, bars, absent in self.sections:
            if len(absent.get("other", ())) == bars:
                continue
            begin, end = (grid.seconds(bar * grid.bar) for bar in (first, first + bars))
            rise = min(grid.step * pick(r, (4, 8, 16)), end - begin, 3.9)
            blip = grid.seconds(first * grid.bar + r.randint(bars * grid.bar))
            fall = begin, r.uniform(0.5, 3)
            for kind, (at, length) in enumerate(((end - rise, rise), fall, (begin, 2.0), (blip, 0.5))):
                if r.rand() < 0.5 * chance:
                    part.notes.append((max(at, 0.0), length, kind, r.randint(60, 127)))
        return part

    def change_key(self, parts, lines):
        """Raise all notes by one to three semitones from one of the last sections on, in some songs."""
        r = self.random
        if r.rand() > 0.2 or len(self.sections) < 3:
            return
        at, up = self.grid.seconds(self.sections[-1 - r.randint(2)][1] * self.grid.bar) - 0.05, pick(r, (1, 2, 2, 3))
        for notes in [p.notes for p in parts if p.stem in ("bass", "other") and p.kind != "transitions"] + [
            notes for _, notes, _ in lines
        ]:
            notes[:] = [(s, d, key + up * (s >= at), v) for s, d, key, v in notes]

    def song(self):
        """Compose and return the `Song`."""
        r = self.random
        layers = self.style["layers"] + (styles.DENSE if self.dense else ())
        menu = list(range(len(layers)))
        least, most = (4, 7) if self.dense else (1, 4) if self.electronic else (2, min(len(menu), 4) + 1)
        chosen = sorted(r.permutation(menu)[: r.randint(least, most)])
        steady = [n for n in menu if layers[n][0] in STEADY + ("stab",) * self.electronic]
        base = pick(r, [n for n in chosen if n in steady] or steady)
        parts = [self.layer(n, *layers[n], n == base or self.dense) for n in sorted({base, *chosen})]
        parts = [*self.drums(), self.bass(), *parts, self.transitions()]
        lines = self.voices()
        self.change_key(parts, lines)
        for part in parts:
            part.notes = sorted(n for n in part.notes if n[0] < self.length - 0.05)
        lines = [
            (name, *zip(*[(n, p) for n, p in zip(notes, places, strict=True) if n[0] < self.length - 0.3], strict=True))
            for name, notes, places in lines
            if notes and notes[0][0] < self.length - 0.3
        ]
        pump = self.style.get("pump", 0.0) > r.rand()
        parts = [p for p in parts if p.notes]
        return Song(
            style=self.name,
            tempo=self.grid.tempo,
            key=self.key,
            mode=self.mode,
            seconds=self.length,
            electronic=self.electronic,
            pump=pump,
            dense=self.dense,
            parts=parts,
            lines=lines,
            faders=self.faders(),
            sounds=self.sounds,
        )
