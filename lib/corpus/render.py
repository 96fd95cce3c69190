"""Render a song to four stems: instruments, effects and the mix."""

import numpy as np

from lib.corpus import effects, soundfont, synth, voice
from lib.corpus.effects import RATE, decibels, filtered

STEMS = ("drums", "bass", "other", "vocals")


def instrument(part, notes, font, samples, random):
    """Play `notes` on the instrument of `part`: (2, samples)."""
    if part.source in synth.WAVES:
        return synth.waves(part.source, notes, samples, random)
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
    """The drum kit: samples mixed with synthesised drums, then compression, saturation, equaliser and room."""
    sounds = synth.drum_sounds(random)
    electronic = random.rand() < (0.8 if parts[0].source[1] in (24, 25) else 0.15)
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
    for part in parts:
        sound = soundfont.play(font, part.source[1], part.notes, samples, drums=True) * 2.5
        middle = sound.mean(axis=0)
        sound = middle + (1.0 if part.kind in ("cymbals", "percussion") else 0.3) * (sound - middle)
        extra = synth.drums(sounds, part.notes, samples)
        if part.kind in ("cymbals", "percussion"):
            extra = effects.panned(extra, width * random.uniform(-1, 1))
            share = random.uniform(-14, -4) if electronic else random.uniform(-28, -14)
        else:
            share = random.uniform(-6, 3) if electronic else random.uniform(-26, -16)
        sound = sound * decibels(-6 if electronic else 0) + 0.35 * decibels(share) * extra
        total += decibels(part.gain + random.uniform(-2.5, 2.5)) * filtered(sound, colours[part.kind])
    total *= decibels(-16 - effects.loudness(total))
    total = effects.compressed(total, random.uniform(-24, -14), random.uniform(1.5, 4), random.uniform(0.03, 0.15))
    total = effects.driven(total, random.uniform(-4, 9))
    room = effects.room(random.uniform(0.2, 1.2), random)
    return filtered(total, tone(random), room, random.uniform(-26, -13))


def bass(song, parts, font, samples, random):
    """The bass: the instrument, a saturated copy for the midrange and finger or pick noise, then compression."""
    part = parts[0]
    sound = instrument(part, part.notes, font, samples, random).mean(axis=0, keepdims=True)
    sound = sound * decibels(-16 - effects.loudness(np.repeat(sound, 2, axis=0)))
    bite = filtered(
        np.tanh(decibels(random.uniform(6, 22)) * sound),
        [("rumble", random.uniform(250, 600), 0), ("cut", random.uniform(1800, 6000), 0)],
    )
    noise = np.zeros(samples + RATE, np.float32)
    for start, _, _, velocity in part.notes:
        size = random.randint(300, 1500)
        noise[int(start * RATE) : int(start * RATE) + size] += random.randn(size) * np.hanning(size) * velocity / 127
    noise = filtered(noise[None, :samples], [("rumble", 500, 0), ("cut", random.uniform(3000, 9000), 0)])
    sound = sound + decibels(random.uniform(-18, -3)) * bite + decibels(random.uniform(-36, -22)) * noise
    sound = effects.compressed(np.repeat(sound, 2, axis=0), random.uniform(-24, -16), random.uniform(2, 6), 0.08)
    sound = effects.driven(sound, random.uniform(-6, 8))
    if part.source in ("saw", "square") and random.rand() < 0.35:
        time = np.arange(samples) / RATE * song.tempo / 60 * (0.5, 1, 2, 4)[random.randint(4)]
        sound = effects.opened(
            sound, (0.5 - 0.5 * np.cos(2 * np.pi * time)).astype(np.float32), random.uniform(150, 400)
        )
    if random.rand() < 0.25:
        sound = effects.chorus(sound, random)
    return filtered(sound, [*tone(random)])


def guitar(part, notes, font, samples, random):
    """A distorted guitar: saturation, then the response of a loudspeaker."""
    sound = instrument(part, notes, font, samples, random).mean(axis=0, keepdims=True)
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
    room = effects.room(random.uniform(0.6, 2.6), random)
    beat = int(60 / song.tempo * RATE)
    total = np.zeros((2, samples), np.float32)
    for part in parts:
        place = random.uniform(-0.8, 0.8)
        if part.kind == "power" or (part.kind == "lead" and part.source in (29, 30)):
            twice = part.kind == "power" and random.rand() < 0.75
            moved = [(max(s + 0.008 * random.randn(), 0), d, p, v) for s, d, p, v in part.notes]
            takes = [(part.notes, -0.9), (moved, 0.9)] if twice else [(part.notes, place / 2)]
            sound = sum(effects.panned(guitar(part, notes, font, samples, random), side) for notes, side in takes)
        else:
            sound = instrument(part, part.notes, font, samples, random)
            if part.kind in ("chord", "arpeggio", "stab") and part.source in (24, 25, 26, 27) and random.rand() < 0.4:
                moved = [(max(s + 0.01 * random.randn(), 0), d, p, v) for s, d, p, v in part.notes]
                again = instrument(part, moved, font, samples, random)
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
            sound = effects.opened(sound, sway.astype(np.float32), random.uniform(400, 1200))
        level = part.gain + random.uniform(-3, 3) - 20 - effects.loudness(sound)
        wet = random.uniform(-20, -8) if part.kind in ("pad", "lead") else random.uniform(-28, -12)
        colour = [("rumble", random.uniform(60, 160), 0), ("high", random.uniform(2500, 6000), random.uniform(0, 10))]
        colour += tone(random, 4.0)
        total += decibels(level) * filtered(sound, colour, room, wet)
    total = effects.driven(effects.compressed(total, -20, random.uniform(1.2, 2.5), 0.15), random.uniform(-6, 4))
    return filtered(effects.excited(total, random.uniform(-38, -22)), tone(random, 1.5))


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
    total = effects.compressed(total, random.uniform(-28, -20), random.uniform(2, 5), random.uniform(0.04, 0.15))
    total = effects.driven(total, random.uniform(-6, 6))
    if random.rand() < 0.4:
        total = effects.echo(
            total, int(60 / song.tempo * RATE * (1.0, 0.5, 0.75)[random.randint(3)]), random.uniform(0.1, 0.3)
        )
    room = effects.room(random.uniform(0.5, 2.8), random)
    colour = [
        ("rumble", random.uniform(80, 140), 0),
        ("peak", random.uniform(1300, 3200), random.uniform(0, 6)),
        ("high", 9000, random.uniform(0, 7)),
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
        duck = effects.pump(samples, 60 / song.tempo, random.uniform(0.2, 0.7))
        stems["bass"], stems["other"] = stems["bass"] * duck, stems["other"] * duck
    for stem, level, spread in (("drums", 3, 2.5), ("bass", 1, 2.5), ("other", 0, 2.5), ("vocals", 1, 2.5)):
        stems[stem] = stems[stem] * decibels(
            level + spread * np.clip(random.randn(), -2, 2) - 20 - effects.loudness(stems[stem])
        )
    whole = sum(stems.values())
    drive = decibels(random.uniform(-9, 0)) / np.percentile(np.abs(whole[:, ::7]), 99)
    gain = drive * effects.limiter(whole * drive, random.uniform(0.6, 0.95))
    stems = {name: sound * gain for name, sound in stems.items()}
    peak = max(np.abs(sound).max() for sound in [*stems.values(), sum(stems.values())])
    scale = 32_767 * min(1.0, 0.97 / peak)
    return {name: np.round(sound * scale).astype(np.int16).T for name, sound in stems.items()}
