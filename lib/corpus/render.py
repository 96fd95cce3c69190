"""Render a song to four stems: instruments, effects and the mix."""

import numpy as np

from lib.corpus import effects, soundfont, synth, voice
from lib.corpus.effects import RATE, decibels, filtered

STEMS = ("drums", "bass", "other", "vocals")
LEVELS = {  # mean levels of the stems in dB
    "band": {"drums": 3, "bass": 1, "other": -0.5, "vocals": 1},
    "electronic": {"drums": 5, "bass": 1, "other": -2, "vocals": 1},
    "dense": {"drums": 1, "bass": -1, "other": 4, "vocals": -1},
}


def instrument(part, notes, font, samples):
    """Play `notes` on the instrument of `part`: (2, samples)."""
    if part.source in synth.WAVES:
        return synth.waves(part.source, notes, samples, part.preset)
    if part.source == "transitions":
        return synth.transitions(notes, samples, part.preset)
    return soundfont.play(font, part.source, notes, samples)


def tone(random, amount=3.0):
    """Draw the bands of a gentle equaliser that removes any DC offset."""
    u = random.uniform
    return [
        ("rumble", u(16, 30), 0),
        ("low", u(80, 300), u(-amount, amount)),
        ("peak", u(200, 900), u(-amount, amount)),
        ("peak", u(1000, 4000), u(-amount, amount)),
        ("high", u(4000, 9000), u(-amount, amount)),
    ]


def drums(song, parts, font, samples, random):
    """The drum kit: sampled drums at another pitch, synthesised ones or both, through bus, distortion and room.

    Unheard kits are synthesised only.
    """
    sounds, kit = song.sounds, synth.drum_sounds(parts[0].preset)
    mixed = sounds.pick(45, ("synth", "synth", "both", "both", "sample") if song.electronic else
                        ("sample", "sample", "sample", "both", "synth"))  # fmt: skip
    mixed = "synth" if sounds.unheard else mixed
    colours = {
        "kick": [
            ("rumble", random.uniform(25, 45), 0),
            ("peak", random.uniform(65, 110), random.uniform(0, 5)),
            ("peak", 350, random.uniform(-4, 3)),
            ("peak", random.uniform(2500, 5000), random.uniform(0, 8)),
        ],
        "snare": [
            ("peak", random.uniform(160, 450), random.uniform(0, 6)),
            ("high", 4500, random.uniform(0, 7)),
            ("rumble", 90, 0),
        ],
        "cymbals": [("rumble", 60, 0), ("high", 6000, random.uniform(-2, 6)), ("peak", 700, -3)],
        "percussion": [("rumble", 150, 0), ("high", 6000, random.uniform(0, 8))],
    }
    total = np.zeros((2, samples), np.float32)
    width = random.uniform(0.0, 0.8)
    for place, part in enumerate(parts):
        beside = part.kind in ("cymbals", "percussion")
        sound, extra = np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32)
        if mixed != "synth":
            pitch = 8 * sounds.draws[46 + place] - 4
            sound = soundfont.play(font, part.source[1], part.notes, samples, drums=True, pitch=pitch) * 2.5
            middle = sound.mean(axis=0)
            sound = middle + (1.0 if beside else 0.3) * (sound - middle)
        if mixed != "sample":
            extra = synth.drums(kit, part.notes, samples)[None]
            extra = effects.panned(extra, width * random.uniform(-1, 1)) if beside else extra
            extra = 0.35 * decibels(-5 * (part.kind == "cymbals") + random.uniform(-10, 3) * (mixed == "both")) * extra
        total += decibels(part.gain + random.uniform(-2.5, 2.5)) * filtered(sound + extra, colours[part.kind])
    total *= decibels(-16 - effects.loudness(total))
    if random.rand() < (0.35 if song.electronic else 0.1):  # a loop from an old record
        total = effects.crushed(total, random.randint(1, 4), 10 ** random.uniform(1.3, 2.5))
    total = effects.compressed(total, random.uniform(-24, -14), random.uniform(1.5, 4), random.uniform(0.03, 0.15))
    total = effects.bitten(total, random.uniform(6, 24), random.uniform(200, 500), random.uniform(1500, 6000),
                           random.uniform(-30, -8))  # fmt: skip
    total = effects.driven(total, random.uniform(-9, 6))
    if song.electronic and random.rand() < 0.3:  # the treble opens in the course of a section
        total = swept(song, total, random)
    room = effects.room(sounds.preset(41), 1.2)
    return filtered(total, tone(random), room, random.uniform(-26, -11))


def swept(song, sound, random):
    """Close and open a low-pass filter over 4 to 16 beats, from a random moment on; elsewhere it is open."""
    length = 60 / song.tempo * (4, 8, 16)[random.randint(3)]
    start = random.uniform(0, max(song.seconds - length, 0))
    x = (np.arange(sound.shape[1]) / RATE - start) / length
    return effects.opened(sound, np.where((x > 0) & (x < 1), x**2, 1).astype(np.float32), random.uniform(200, 1500))


def bass(song, parts, font, samples, random):
    """The bass: the instrument, a saturated copy for the midrange and finger or pick noise, then compression."""
    if not parts:
        return np.zeros((2, samples), np.float32)
    part, synthetic = parts[0], parts[0].source in synth.WAVES
    sound = instrument(part, part.notes, font, samples).mean(axis=0, keepdims=True)
    if synthetic and random.rand() < 0.5:  # a sine below
        sound = sound + synth.waves("sub", part.notes, samples, part.preset)[:1] * random.uniform(0.5, 2)
    sound = sound * decibels(-16 - effects.loudness(np.repeat(sound, 2, axis=0)))
    clean = synthetic and random.rand() < 0.4
    if not clean:
        sound = effects.bitten(sound, random.uniform(6, 26), random.uniform(250, 900), random.uniform(1800, 8000),
                               random.uniform(-18, 0))  # fmt: skip
    if not synthetic:  # finger, pick or slap
        noise = np.zeros(samples + RATE, np.float32)
        longest = 10 ** random.uniform(2.3, 3.3)
        for start, _, _, velocity in part.notes:
            size = int(longest * random.uniform(0.5, 1)) + 16
            shot, first = random.randn(size) * np.hanning(size) * velocity / 127, int(start * RATE)
            noise[first : first + size] += shot
        noise = filtered(noise[None, :samples], [("rumble", 700, 0), ("cut", random.uniform(3000, 12_000), 0)])
        sound = sound + decibels(random.uniform(-34, -12)) * noise
    sound = effects.compressed(np.repeat(sound, 2, axis=0), random.uniform(-24, -16), random.uniform(2, 6), 0.08)
    sound = effects.driven(sound, random.uniform(-6, 8))
    if synthetic and random.rand() < 0.5:
        time = np.arange(samples) / RATE * song.tempo / 60 * (0.125, 0.5, 1, 2, 4)[random.randint(5)]
        sound = effects.opened(
            sound, (0.5 - 0.5 * np.cos(2 * np.pi * time)).astype(np.float32), 10 ** random.uniform(1.9, 2.8)
        )
    if random.rand() < 0.3:
        sound = effects.chorus(sound, random)
    room = effects.room(song.sounds.preset(42), 0.8) if random.rand() < 0.5 else None
    return filtered(sound, [*tone(random)], room, random.uniform(-36, -18))


def guitar(part, notes, font, samples, random):
    """A distorted guitar: saturation, then the response of a loudspeaker."""
    sound = instrument(part, notes, font, samples).mean(axis=0, keepdims=True)
    sound = filtered(sound, [("rumble", 120, 0), ("high", 1500, random.uniform(0, 8))])
    sound = np.tanh(decibels(random.uniform(12, 34)) * sound / (np.abs(sound).max() + 1e-6) * 0.7)
    return filtered(
        sound,
        [
            ("rumble", 75, 0),
            ("peak", 120, random.uniform(0, 4)),
            ("peak", random.uniform(2200, 3500), random.uniform(0, 6)),
            ("cut", random.uniform(4500, 7500), 0),
            ("cut", 9000, 0),
        ],
    )


def other(song, parts, font, samples, random):
    """The accompaniment: each instrument with its own panning, equaliser and effects, all in one room."""
    room = effects.room(song.sounds.preset(43), 2.8)
    step = 15 / song.tempo
    beat = int(60 / song.tempo * RATE)
    total = np.zeros((2, samples), np.float32)
    for part in parts:
        place = random.uniform(-0.8, 0.8) * (0.6 if song.electronic else 1)
        if part.kind == "power" or (part.kind == "lead" and part.source in (26, 29, 30) and random.rand() < 0.8):
            twice = part.kind == "power" and random.rand() < 0.75
            moved = [(max(s + 0.008 * random.randn(), 0), d, p, v) for s, d, p, v in part.notes]
            takes = [(part.notes, -0.9), (moved, 0.9)] if twice else [(part.notes, place / 2)]
            sound = sum(effects.panned(guitar(part, notes, font, samples, random), side) for notes, side in takes)
        else:
            sound = instrument(part, part.notes, font, samples)
            if part.kind == "transitions":
                pass
            elif part.kind in ("chord", "arpeggio", "stab") and part.source in (24, 25, 26, 27) and random.rand() < 0.4:
                moved = [(max(s + 0.01 * random.randn(), 0), d, p, v) for s, d, p, v in part.notes]
                again = instrument(part, moved, font, samples)
                sound = effects.panned(sound.mean(axis=0), -0.8) + effects.panned(again.mean(axis=0), 0.8)
            elif part.kind in ("pad", "arpeggio") and random.rand() < 0.6:
                sound = effects.chorus(sound, random)
            else:
                sound = effects.panned(sound, place)
        if part.kind in ("lead", "arpeggio", "stab") and random.rand() < 0.4:
            sound = effects.echo(sound, beat * (3, 4, 2)[random.randint(3)] // 4, random.uniform(0.2, 0.5))
        if part.source in (4, 5, 16, 17, 18, 25, 27, "fm") and random.rand() < 0.3:
            sound = effects.tremolo(sound, random.uniform(2.5, 7), random.uniform(0.3, 0.9))
        if part.source in synth.WAVES and random.rand() < 0.4:
            period = 60 / song.tempo * (8, 16, 32)[random.randint(3)]
            sway = 0.55 - 0.45 * np.cos(2 * np.pi * (np.arange(samples) / RATE / period + random.rand()))
            sound = effects.opened(sound, sway.astype(np.float32), 10 ** random.uniform(2.3, 3.1))
        if song.electronic and part.kind in ("pad", "chord") and random.rand() < 0.3:
            sound = sound * effects.gated(samples, step, random)
        if song.electronic and random.rand() < 0.2:
            sound = effects.chopped(sound, step, random, 0.1)
        if part.kind in ("lead", "arpeggio", "stab") and random.rand() < (0.3 if song.electronic else 0.1):
            sound = effects.driven(sound * decibels(-18 - effects.loudness(sound)), random.uniform(6, 20))
        level = part.gain + random.uniform(-3, 3) - 20 - effects.loudness(sound)
        wet = random.uniform(-20, -8) if part.kind in ("pad", "lead") else random.uniform(-28, -12)
        colour = [("rumble", random.uniform(20, 120), 0), ("high", random.uniform(2500, 6000), random.uniform(-3, 8))]
        colour += [("cut", random.uniform(5000, 20_000), 0)]
        colour += tone(random, 4.0)
        total += decibels(level) * filtered(sound, colour, room, wet)
    total = effects.driven(effects.compressed(total, -20, random.uniform(1.0, 2.5), 0.15), random.uniform(-6, 4))
    if song.electronic and random.rand() < 0.3:
        total = swept(song, total, random)
    return filtered(effects.excited(total, random.uniform(-44, -26)), tone(random, 1.5))


def vocals(song, singer, samples, random):
    """All sung lines of one singer, with compression, saturation, echo, equaliser and reverberation."""
    words = voice.lyrics(random, singer["voice"], 1 + max(place for _, _, places in song.lines for place in places))
    total = np.zeros((2, samples), np.float32)
    side = 1.0
    for name, notes, places in song.lines:
        style = dict(singer)
        if name != "lead":
            side = -side
            style |= {
                "depth": singer["depth"] * random.uniform(0.5, 1.2),
                "rate": random.uniform(4.8, 6.3),
                "tilt": singer["tilt"] + random.uniform(-1, 1),
            }
        sound = voice.sing(list(notes), [words[p] for p in places], style, random, samples)
        gain, place = (
            (0.0, random.uniform(-0.08, 0.08))
            if name == "lead"
            else (random.uniform(-11, -4), side * random.uniform(0.2, 0.9))
        )
        total += decibels(gain) * effects.panned(sound, place)
    total *= decibels(-18 - effects.loudness(total))
    step = 15 / song.tempo
    if song.electronic and random.rand() < 0.4:
        total = effects.chopped(total, step, random, random.uniform(0.05, 0.25))
    total = effects.compressed(total, random.uniform(-28, -20), random.uniform(2, 5), random.uniform(0.04, 0.15))
    total = effects.driven(total, random.uniform(-6, 6))
    if random.rand() < 0.4:
        total = effects.echo(
            total, int(60 / song.tempo * RATE * (1.0, 0.5, 0.75)[random.randint(3)]), random.uniform(0.1, 0.3)
        )
    if random.rand() < (0.3 if song.electronic else 0.1):  # an answer: filtered, late and wide
        late = int(60 / song.tempo * (1, 2, 4)[random.randint(3)] * RATE)
        answer = np.pad(total[:, : max(samples - late, 1)], ((0, 0), (samples - max(samples - late, 1), 0)))
        answer = effects.chopped(answer, step, random, 0.4) * effects.gated(samples, step, random)
        total = total + decibels(random.uniform(-9, -1)) * effects.panned(answer, random.uniform(-1, 1))
    if random.rand() < 0.3:
        total = effects.chorus(total, random, 10 ** random.uniform(-3, -2))
    room = effects.room(song.sounds.preset(44), 2.8)
    thin = random.rand() < (0.2 if song.electronic else 0.06)
    colour = [
        *([("rumble", random.uniform(250, 600), 0), ("cut", random.uniform(2500, 6000), 0)] if thin else []),
        ("cut", random.uniform(9000, 20_000), 0),
        ("rumble", random.uniform(80, 140), 0),
        ("peak", random.uniform(700, 2600), random.uniform(0, 8)),
        ("high", 9000, random.uniform(-3, 6)),
        *tone(random, 2.0),
    ]
    return filtered(total, colour, room, random.uniform(-24, -9))


def mix(song, singer, font, random):
    """Render `song` with the `SoundFont` `font`; return {stem: int16 (samples, 2)}, whose sum never clips.

    The levels of the stems are random. The limiter applies one gain to all stems, so the mixture remains their sum.
    """
    samples = int(round(song.seconds * RATE))
    groups = {stem: [part for part in song.parts if part.stem == stem] for stem in STEMS}
    stems = {
        name: make(song, groups[name], font, samples, random)
        for name, make in (("drums", drums), ("bass", bass), ("other", other))
    }
    stems["vocals"] = vocals(song, singer, samples, random)
    if song.pump:
        duck = effects.pump(samples, 60 / song.tempo, random.uniform(0.2, 0.8))
        stems["bass"], stems["other"] = stems["bass"] * duck, stems["other"] * duck
    levels = LEVELS["dense" if song.dense else "electronic" if song.electronic else "band"]
    for stem, level in levels.items():
        stems[stem] *= effects.faded(song.faders[stem], samples)
        stems[stem] = stems[stem] * decibels(
            level + 2.5 * np.clip(random.randn(), -2, 2) - 20 - effects.loudness(stems[stem])
        )
    whole = sum(stems.values())
    drive = decibels(random.uniform(-9, 2)) / np.percentile(np.abs(whole[:, ::7]), 99)
    gain = drive * effects.limiter(whole * drive, random.uniform(0.6, 0.95))
    stems = {name: sound * gain for name, sound in stems.items()}
    peak = max(np.abs(sound).max() for sound in [*stems.values(), sum(stems.values())])
    scale = 32_767 * min(1.0, 0.97 / peak)
    return {name: np.round(sound * scale).astype(np.int16).T for name, sound in stems.items()}
