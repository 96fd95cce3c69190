"""Make the generator that this repository carries: `python -m lib.evaluation.bundle results/carried/l1-42 FOLDER …`.

Writes corpus.safetensors, the training's weights in half precision, and corpus.json: their origin, and their scores on
the songs of each FOLDER (as of `lib.evaluation.songs`), none of which the training has heard.
"""

import sys
import tempfile
from pathlib import Path

import torch

from lib.common.errors import UserError
from lib.common.files import write_bytes, write_json
from lib.common.processes import command
from lib.config import read_note
from lib.evaluation.songs import QUIET, measure
from lib.models.weights import BUNDLED, load_weights, save_weights


def bundle(arm, folders):
    """Write both files; raises `UserError` when `arm` is not a finished training or a folder holds no songs."""
    arm = Path(arm)
    about = read_note(arm)
    if not about.get("finished"):
        raise UserError(f"{arm} holds no finished training; give the folder of one, such as results/carried/l1-42.")
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, BUNDLED.name)
        save_weights(load_weights(arm / "model.safetensors"), weights, dtype=torch.float16)
        tables, packed = [measure(load_weights(weights), folder) for folder in folders], weights.read_bytes()
    note = {
        "what": "A small Demucs v1 for `python -m lib.separate` without --checkpoint, in half precision.",
        "knows": "Only the embedded corpus: composed songs, sampled and synthesised instruments, voices of speech.",
        "made by": f"python -m lib.evaluation.bundle {arm.parent.parent.name}/{arm.parent.name}/{arm.name} FOLDER …",
        "trained by": about["made_by"],
        "config": about["config"],
        "measure": f"SDR in dB, median over the seconds in which the stem is above {QUIET:g} dB",
        "songs": {song: _scores(rows) for table in tables for song, rows in table.groupby("song")},
    }
    write_bytes(BUNDLED, packed)
    write_json(BUNDLED.with_suffix(".json"), note)


def _scores(rows):
    """{stem: {"sdr", "mixture"}} of one song, mixture being that of the mixture ÷ 4."""
    return rows.set_index("stem")[["sdr", "mixture"]].round(2).to_dict("index")


def main():
    """Run the command."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    bundle(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    command(main)
