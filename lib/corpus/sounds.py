"""The sounds of a song: the instruments, drum kits, synthesiser presets and rooms that a track may use.

Training, validation and held-out tracks draw familiar sounds, test and shifted tracks unheard ones. An instrument of
the SoundFont is replaced by its unheard twin, which plays other samples; its drum kits share their samples, so unheard
drums are synthesised. A preset (of synthesiser, kit or room) is a number that stands for fixed parameters.
"""

import numpy as np

# General MIDI programs: familiar, and the program or wave that replaces it in test and shifted tracks.
TWINS = {0: 6, 1: 5, 2: 5, 3: 6, 4: 5, 7: 6, 9: 10, 11: 14, 12: 13, 16: 18, 19: 17, 22: 20, 24: 46, 25: 26, 27: 26,
         28: 26, 29: 26, 30: 26, 32: 35, 33: 35, 34: 37, 36: 37, 38: "saw", 40: 42, 110: 42, 45: 46,
         48: 50, 49: 50, 51: 50, 52: 53, 56: 57, 61: 60, 62: 59, 63: 59, 65: 64, 66: 67, 71: 69, 73: 75,
         80: "square", 81: "saw", 89: "hollow", 90: "saw", 91: "saw", 95: "hollow", 98: "fm", 105: 107,
         108: 107}  # fmt: skip
SEEN = {twin: key for key, twin in reversed(TWINS.items()) if isinstance(twin, int)}
FAMILIAR, UNHEARD = range(64), range(64, 96)  # presets
DRAWS = 64  # numbers drawn per song


class Sounds:
    """The sounds of one song. Songs with equal streams `random` have equal sounds, whatever their notes.

    Every choice has a place, an integer below `DRAWS`: the same place always chooses the same sound.
    """

    def __init__(self, unheard, random):
        self.unheard, self.draws = unheard, random.rand(DRAWS)

    def pick(self, place, options):
        """Choose one of `options`."""
        return options[int(self.draws[place] * len(options))]

    def preset(self, place):
        """Choose the number of a preset."""
        return self.pick(place, UNHEARD if self.unheard else FAMILIAR)

    def program(self, place, options):
        """Choose one of `options`, General MIDI programs and names of waves, or what replaces it in this song."""
        twins = TWINS if self.unheard else SEEN
        return self.pick(place, [twins.get(option, option) for option in options])


def parameters(kind, preset):
    """The random stream of a preset's fixed parameters; `kind`: "synth", "kit" or "room"."""
    return np.random.RandomState([4711, ("synth", "kit", "room").index(kind), preset])
