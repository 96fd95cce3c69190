"""Make the generator that this repository carries: `python -m lib.evaluation.bundle results/study/l1-42`.

Writes corpus.safetensors, the arm's weights in half precision, and corpus.json: their origin and test scores.
"""

import sys
import tempfile
from pathlib import Path

import torch

from lib.common.errors import UserError
from lib.common.files import write_bytes, write_json
from lib.common.processes import use_utf8
from lib.common.provenance import ROOT
from lib.config import read_note
from lib.data.tracks import read_index
from lib.evaluation.results import check_versions, read_museval
from lib.evaluation.score import evaluate_set
from lib.evaluation.stats import stem_table
from lib.models.weights import BUNDLED, load_weights, save_weights


def bundle(arm):
    """Write both files; raises `UserError` when `arm` or its evaluation is missing."""
    arm = Path(arm)
    about = read_note(arm)
    if not about.get("finished"):
        raise UserError(f"{arm} holds no finished training; give the folder of an arm, such as results/study/l1-42.")
    sets, digest = read_index(ROOT / about["config"]["data"])
    check_versions(arm / "eval" / "test")
    full = read_museval(arm / "eval" / "test")
    with tempfile.TemporaryDirectory() as folder:
        weights, scores = Path(folder, BUNDLED.name), Path(folder, "half precision", "eval", "test")
        save_weights(load_weights(arm / "model.safetensors"), weights, dtype=torch.float16)
        evaluate_set(sets["test"], scores, weights=weights)
        half, packed = read_museval(scores), weights.read_bytes()
    note = {
        "what": "A small Demucs v1 for `python -m lib.separate` without --checkpoint, in half precision.",
        "knows": "Only the embedded corpus (composed songs, sampled instruments, a voice made of recorded speech).",
        "made by": f"python -m lib.evaluation.bundle {arm.parent.parent.name}/{arm.parent.name}/{arm.name}",
        "profile": arm.parent.name,
        "arm and seed": arm.name,
        "trained by": about["made_by"],
        "config": about["config"],
        "data digest": digest,
        "test SDR in dB, median of frames, median of tracks": stem_table(full).round(3).to_dict(),
        "the same in half precision": stem_table(half).round(3).to_dict(),
        "largest change of any track's stem by half precision, dB": round((full["SDR"] - half["SDR"]).abs().max(), 4),
    }
    write_bytes(BUNDLED, packed)
    write_json(BUNDLED.with_suffix(".json"), note)


if __name__ == "__main__":
    use_utf8()
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        bundle(sys.argv[1])
    except UserError as error:
        sys.exit(str(error))
