"""The embedded corpus: songs composed from a seed, with sampled and synthesised instruments and synthetic singers.

It stands in for MUSDB18 on a machine without it, so that every step runs on music. Scores on it do not predict scores
on MUSDB18. It has musdb's folder layout.

    from lib.corpus import generate
    root = generate("data/corpus", train=40, valid=8, test=8, shifted=4, seconds=17.0, seed=1)
    musdb.DB(root, setup_file="musdb.yaml", is_wav=True, subsets="train", split="valid")
    musdb.DB(root / "shifted", setup_file="musdb.yaml", is_wav=True, subsets="test")

`compose.py` turns `styles.py` into notes; `sounds.py` says which sounds a track may use; `soundfont.py`, `synth.py`,
`voice.py` and `effects.py` turn notes into sound; `render.py` mixes the stems; `track.py` writes a track. The package
imports numpy, scipy and `lib.common` only: no torch.
"""

import contextlib
import hashlib
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import yaml

from lib.common.errors import UserError
from lib.common.files import locked, read_json, write_bytes, write_json
from lib.common.machine import cores
from lib.common.processes import keep_buffers
from lib.common.processes import workers as processes
from lib.common.progress import progress
from lib.common.provenance import portable
from lib.corpus.render import RATE, STEMS
from lib.corpus.track import HELD_OUT, SPLITS, location, name, write

CORPUS_VERSION = "2"  # change it with every change that alters a sample
SECONDS = 4, 600  # shortest and longest track
SEEDS = 0, 2**32 - 1


def default_soundfont() -> Path:
    """Path of TimGM6mb.sf2 in the package pretty_midi, which is not imported. Raises `UserError` if it is missing."""
    spec = find_spec("pretty_midi")
    for place in spec.submodule_search_locations if spec else ():
        if (path := Path(place) / "TimGM6mb.sf2").exists():
            return path
    raise UserError(
        "The SoundFont TimGM6mb.sf2 of pretty_midi is missing: pip install -r requirements.txt, or pass soundfont=."
    )


def setup(valid):
    """musdb's configuration as a dictionary, in the format of its mus.yaml; `valid` names the validation tracks."""
    stems = {stem: {stem: 1} for stem in STEMS}
    return {
        "sample_rate": 44100.0,
        "mixture": "mixture.wav",
        "sources": {stem: f"{stem}.wav" for stem in ("drums", "bass", "other", "vocals")},
        "stem_ids": {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4},
        "targets": stems
        | {"accompaniment": {"drums": 1, "bass": 1, "other": 1}, "linear_mixture": dict.fromkeys(STEMS, 1)},
        "validation_tracks": list(valid),
    }


def generate(
    root,
    *,
    train: int = 40,
    valid: int = 8,
    test: int = 8,
    shifted: int = 4,
    heldout: int = 0,
    seconds: float = 17.0,
    seed: int = 0,
    soundfont=None,
    arrays: bool = False,
    workers: int | None = None,
) -> Path:
    """Compose and render the corpus into the folder `root`; return its path.

    Writes `train/` (training and validation tracks), `test/` (other singers and sounds), `shifted/test/` (denser, in
    styles that no other track has), `heldout-a/test/` and `heldout-b/test/` (other songs by the training's singers,
    with its sounds, in its styles). Each track is a
    folder `Artist - Title` of 16-bit stereo wav files at 44.1 kHz or, with `arrays`, one file `Artist - Title.npy` that
    training reads as it is. `musdb.yaml`, in `root` and beside every other `test/`, names the validation tracks.
    `corpus.json` (parameters, version, hash) is written last: if it is there, `generate` returns at once; otherwise it
    says how much disk it will take and renders the missing tracks.

    `train`, `valid`, `test`, `shifted` and `heldout` (of each of the two) are numbers of tracks, each `seconds` long.
    On one machine the same `seed` gives the same bytes for any number of `workers` (processes; by default one per
    core); track k depends only on the seed, its split and k. `soundfont` is the path of another .sf2 file.

    Raises `UserError` if a parameter is out of range, `root` holds a corpus with other parameters, another process
    is writing to it, or the disk is full or too small.
    """
    root = Path(root)
    counts = {"train": train, "valid": valid, "test": test, "shifted": shifted}
    counts |= dict.fromkeys(HELD_OUT, heldout) if heldout else {}
    if min(counts.values()) < 0 or not sum(counts.values()):
        raise UserError(f"The corpus cannot have {counts} tracks: counts are 0 or more, and at least one is above 0.")
    for name_, value, (low, high) in (("seconds", seconds, SECONDS), ("seed", seed, SEEDS)):
        if not low <= value <= high:
            raise UserError(f"The corpus cannot have {name_}={value}: choose {low} to {high}.")
    soundfont = Path(soundfont) if soundfont else default_soundfont()
    if not soundfont.is_file():
        raise UserError(f"There is no SoundFont {soundfont}: pass the path of an .sf2 file.")
    wanted = {
        "version": CORPUS_VERSION,
        **counts,
        "seconds": float(seconds),
        "seed": int(seed),
        "soundfont": hashlib.sha256(soundfont.read_bytes()).hexdigest()[:16],
    } | ({"arrays": True} if arrays else {})
    wanted["hash"] = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    with locked(root):
        _generate(root, wanted, counts, seed, seconds, soundfont, arrays, workers or cores())
    return root


def _generate(root, wanted, counts, seed, seconds, soundfont, arrays, workers):
    check_same(root, wanted)
    if (root / "corpus.json").exists():
        return
    tracks = [(split, k) for split in SPLITS for k in range(counts.get(split, 0))]
    missing = [(split, k) for split, k in tracks if not location(root, split, seed, k, arrays).exists()]
    _check_disk(root, len(missing), seconds)
    write_json(root / "corpus.partial.json", wanted)
    shutil.rmtree(root / ".partial", ignore_errors=True)
    jobs = [(root, split, seed, k, float(seconds), soundfont, arrays) for split, k in missing]
    try:
        with _single_threaded(), processes(max(1, min(workers, len(jobs))), keep_buffers) as pool:
            list(progress("corpus", len(tracks), pool.map(_write, jobs), initial=len(tracks) - len(jobs)))
    except UserError:
        shutil.rmtree(root / ".partial", ignore_errors=True)
        raise
    text = yaml.safe_dump(setup(name("valid", seed, k) for k in range(counts["valid"])), sort_keys=False)
    for folder in (root, root / "shifted", *(root / split for split in HELD_OUT if split in counts)):
        write_bytes(folder / "musdb.yaml", text.encode())
    shutil.rmtree(root / ".partial", ignore_errors=True)
    (root / "corpus.partial.json").rename(root / "corpus.json")


def _check_disk(root, tracks, seconds):
    """Print how much disk `tracks` will take; raises `UserError` if there is not as much."""
    needed, free = (1 + len(STEMS)) * 4 * RATE * seconds * tracks / 1e9, shutil.disk_usage(root.parent).free / 1e9
    if needed > free:
        raise UserError(
            f"{root} needs {needed:.2f} GB for {tracks} tracks, but {free:.2f} GB are free; free some space, or choose "
            "fewer or shorter tracks."
        )
    print(f"{portable(root)} will take {needed:.2f} GB for {tracks} tracks.")


def check_same(root, wanted):
    """Raise `UserError` if `root` holds a corpus, complete or not, with other parameters than `wanted`."""
    for path in (root / "corpus.json", root / "corpus.partial.json"):
        if path.exists():
            found = read_json(path)
            other = [
                f"{key} {found.get(key)} instead of {wanted.get(key)}"
                for key in wanted | found
                if key != "hash" and found.get(key) != wanted.get(key)
            ]
            if other:
                raise UserError(
                    f"{root} holds a corpus with {', '.join(other)}: choose another folder or delete this one."
                )


@contextlib.contextmanager
def _single_threaded():
    """Processes started in this context compute with one thread: another number may change a product's last bits."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _write(job):
    """Write one track, in a worker process. Raises `UserError` for whatever goes wrong."""
    try:
        write(*job)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"The corpus could not be made: {reason.rstrip('.')}.") from error
