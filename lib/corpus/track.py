"""One track of the corpus: its name, style and singer, and the place that it is written to."""

from pathlib import Path

import numpy as np
import soundfile

from lib.common.files import writing
from lib.corpus import styles, voice
from lib.corpus.compose import Composer
from lib.corpus.render import RATE, mix
from lib.corpus.soundfont import load
from lib.corpus.sounds import Sounds

HELD_OUT = ("heldout-a", "heldout-b")  # other songs by the training's singers, in their styles
UNHEARD = ("test", "shifted")  # with instruments, kits, presets and rooms that training never hears
SPLITS = ("train", "valid", "test", "shifted", *HELD_OUT)
PLACES = {"train": "train", "valid": "train", "test": "test"}  # others: a folder of their own, as its test set
# Voices of the bank (slt, rms, kal16, awb) and factors of their formants, of all and of those above 3 kHz: from old men
# to children. No singer occurs in two of these splits.
SINGERS = {
    "train": ((0, 1, 2), ((1.0, 1.0), (0.92, 1.06), (1.08, 0.94), (1.16, 1.04), (0.86, 0.97), (1.24, 1.08), (1.34, 1.0),
                          (0.8, 1.1))),
    "valid": ((0, 1, 2), ((0.96, 0.96), (1.04, 1.08), (1.12, 1.0))),
    "test": ((3,), ((1.0, 1.0), (1.18, 1.05), (0.92, 0.95), (1.1, 0.9), (1.3, 1.0), (0.82, 1.06), (1.0, 1.14),
                    (1.24, 0.92), (0.88, 1.12), (1.12, 1.1), (1.38, 1.08), (0.95, 0.88))),
    "shifted": ((3,), ((1.14, 1.0), (0.96, 1.08), (1.05, 0.95), (1.22, 1.1), (0.85, 1.0), (1.34, 0.94))),
}  # fmt: skip
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
    letter = split[-1 if split in HELD_OUT else 0].upper()
    return f"{' '.join(artist)} - {' '.join(title)} {letter}{k + 1:03d}"


def location(root, split, seed, k, arrays):
    """Where a track is written: its folder of wav files or, with `arrays`, its .npy file."""
    return Path(root, PLACES.get(split, f"{split}/test"), name(split, seed, k) + ".npy" * arrays)


def plan(split, seed, k):
    """The style and the singer of a track; each of the split's is used once before any is used again.

    Track k of a held-out split has those of training track k.
    """
    if split in HELD_OUT:
        return plan("train", seed, k)
    menu = styles.HELD_OUT if split == "shifted" else styles.FAMILIAR
    order = generator(seed, split, k // len(menu), 2).permutation(len(menu))
    voices, shifts = SINGERS[split]
    people = len(voices) * len(shifts)
    number = generator(seed, split, k // people, 3).permutation(people)[k % people]
    return menu[order[k % len(menu)]], voice.singer(generator(seed, split, k, 4), voices, shifts, int(number))


def compose(split, seed, k, seconds):
    """The `Song` and the singer of a track. Track k of a held-out split has the sounds of training track k."""
    style, singer = plan(split, seed, k)
    sounds = Sounds(split in UNHEARD, generator(seed, "train" if split in HELD_OUT else split, k, 6))
    dense = split == "shifted"
    return Composer(style, seconds, singer["centre"], generator(seed, split, k), sounds, dense).song(), singer


def write(root, split, seed, k, seconds, font, arrays):
    """Render a track into a temporary place of `root` and move it to its own: wav files, or one array.

    The array is what `lib.data.decode.read_track` returns of the wav files. Raises `UserError` if it cannot be written.
    """
    stems = mix(*compose(split, seed, k, seconds), load(font), generator(seed, split, k, 5))
    mixture = sum(stem.astype(np.int32) for stem in stems.values()).astype(np.int16)
    final, temporary = location(root, split, seed, k, arrays), Path(root) / ".partial" / f"{split}-{k}"
    with writing(final, soundfile.LibsndfileError):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        if arrays:
            with temporary.open("wb") as file:
                np.save(file, np.stack([audio.T for audio in (mixture, *stems.values())]))
        else:
            temporary.mkdir(exist_ok=True)
            for stem, audio in {"mixture": mixture, **stems}.items():
                soundfile.write(temporary / f"{stem}.wav", audio, RATE, subtype="PCM_16")
        temporary.replace(final)
