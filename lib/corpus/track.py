"""One track of the corpus: its name, style and singer, and the folder that it is written to."""

from pathlib import Path

import numpy as np
import soundfile

from lib.common.files import writing
from lib.corpus import styles, voice
from lib.corpus.compose import Composer
from lib.corpus.render import RATE, mix
from lib.corpus.soundfont import load

SPLITS = ("train", "valid", "test", "shifted")
PLACES = {"train": "train", "valid": "train", "test": "test", "shifted": "shifted/test"}
# Voices of the bank (slt, rms, kal16, awb) and factors of their formants. No singer occurs in two splits.
SINGERS = {
    "train": ((0, 1, 2), (1.0, 0.92, 1.08, 1.16, 0.86, 1.24)),
    "valid": ((0, 1, 2), (0.96, 1.04, 1.12)),
    "test": ((3,), (1.0, 1.18, 0.92, 1.1)),
    "shifted": ((3,), (1.14, 0.96, 1.05, 1.22)),
}
FIRST = ("Silver", "Amber", "Hollow", "Velvet", "Paper", "Northern", "Electric", "Quiet", "Golden", "Crooked",
         "Distant", "Scarlet", "Broken", "Lucky", "Winter", "Salt")  # fmt: skip
SECOND = ("Owls", "Harbour", "Lanterns", "Foxes", "Mirrors", "Rivers", "Avenue", "Sparrows", "Engines",
          "Meadow", "Pilots", "Tigers", "Gardens", "Radio", "Bells")  # fmt: skip
THIRD = ("Slow", "Bright", "Empty", "Borrowed", "Midnight", "Sunday", "Burning", "Second", "Little", "Endless",
         "Blue", "Hidden", "Wooden", "Falling")  # fmt: skip
FOURTH = ("River", "Light", "Summer", "Letter", "Station", "Garden", "Fire", "Morning", "Window", "Heart",
          "Ocean", "Road", "Signal", "Shadow")  # fmt: skip


def generator(seed, split, k, stream=0):
    """The random stream of track `k` of `split`; no two tracks share one."""
    return np.random.RandomState([seed, SPLITS.index(split), k, stream])


def name(split, seed, k):
    """The name `Artist - Title` of a track, unique in the corpus."""
    random = generator(seed, split, k, 1)
    artist, title = (
        [words[random.randint(len(words))] for words in pair] for pair in ((FIRST, SECOND), (THIRD, FOURTH))
    )
    return f"{' '.join(artist)} - {' '.join(title)} {split[0].upper()}{k + 1:03d}"


def folder(root, split, seed, k):
    """The folder of a track."""
    return Path(root) / PLACES[split] / name(split, seed, k)


def plan(split, seed, k):
    """The style and the singer of a track; each of the split's is used once before any is used again."""
    menu = styles.HELD_OUT if split == "shifted" else styles.FAMILIAR
    order = generator(seed, split, k // len(menu), 2).permutation(len(menu))
    voices, shifts = SINGERS[split]
    people = len(voices) * len(shifts)
    number = generator(seed, split, k // people, 3).permutation(people)[k % people]
    return menu[order[k % len(menu)]], voice.singer(generator(seed, split, k, 4), voices, shifts, int(number))


def compose(split, seed, k, seconds):
    """The `Song` and the singer of a track."""
    style, singer = plan(split, seed, k)
    return Composer(style, seconds, singer["centre"], generator(seed, split, k)).song(), singer


def write(root, split, seed, k, seconds, font):
    """Render a track into a temporary folder of `root` and move it to its own folder.

    Raises `UserError` if it cannot be written.
    """
    stems = mix(*compose(split, seed, k, seconds), load(font), generator(seed, split, k, 5))
    mixture = sum(stem.astype(np.int32) for stem in stems.values()).astype(np.int16)
    place = folder(root, split, seed, k)
    temporary = Path(root) / ".partial" / f"{split}-{k}"
    with writing(place, soundfile.LibsndfileError):
        temporary.mkdir(parents=True, exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        for stem, audio in {"mixture": mixture, **stems}.items():
            soundfile.write(temporary / f"{stem}.wav", audio, RATE, subtype="PCM_16")
        temporary.replace(place)
