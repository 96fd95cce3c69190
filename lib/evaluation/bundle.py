"""Make the generator that this repository carries; `python -m lib.evaluation.bundle --help` explains it.

It writes corpus.safetensors, weights in half precision, and corpus.json, which says where they come from and how they
score on the songs of each FOLDER (`lib.evaluation.songs`). No training may have heard these songs.
"""

import tempfile
from pathlib import Path

import torch

from lib.common.errors import Parser, UserError
from lib.common.files import write_bytes, write_json
from lib.common.processes import command
from lib.common.provenance import portable
from lib.config import read_note
from lib.data.tracks import read_index, stems_of
from lib.evaluation import calibrate
from lib.evaluation.songs import QUIET, measure
from lib.models.weights import BUNDLED, load_weights, save_weights
from lib.runs.folders import check_same_stems


def average(arms):
    """The generator whose weights are the mean of those of `arms`, folders of trainings of the same network.

    Trainings that begin with the same weights stay so near to each other that their mean is a generator as well
    (Wortsman et al., *Model soups*, arXiv 2203.05482). Raises `UserError` for a folder that holds no finished training,
    or another network.
    """
    for arm in arms:
        if not read_note(arm).get("finished"):
            raise UserError(f"{arm} holds no finished training; give the folder of one, such as results/carried/l1-42.")
    models = [load_weights(Path(arm, "model.safetensors")) for arm in arms]
    kinds = [(model.arguments, model.stems) for model in models]
    if odd := [arm for arm, kind in zip(arms, kinds, strict=True) if kind != kinds[0]]:
        raise UserError(f"{odd[0]} holds another network than {arms[0]}; only the weights of one kind have a mean.")
    states = [model.state_dict() for model in models]
    models[0].load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return models[0]


def bundle(arms, folders, index=None, out=BUNDLED.parent):
    """Write both files into `out` from the mean of `arms`, calibrated on the test songs of `index` if it is given.

    Raises `UserError` as `average` does, for an `index` without test songs or with other stems, and when a folder holds
    no songs.
    """
    model, matrix = average(arms), None
    if index:
        calibrate.check_foldable(model)
        sets, digest = read_index(index)
        if not sets.get("test"):
            raise UserError(f"{index} holds no test songs; give the data.json of a run.")
        check_same_stems(model.stems, stems_of(sets), arms[0], index)
        matrix = calibrate.fit(model, sets["test"])
        calibrate.fold(model, matrix)
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, BUNDLED.name)
        save_weights(model, weights, dtype=torch.float16)
        tables, packed = [measure(load_weights(weights), folder) for folder in folders], weights.read_bytes()
    notes = {portable(arm): read_note(arm) for arm in arms}
    note = {
        "what": "A small Demucs v1 for `python -m lib.separate` without --checkpoint, in half precision.",
        "knows": "Only the embedded corpus: composed songs, sampled and synthesised instruments, voices of speech.",
        "mean of": {arm: {name: about[name] for name in ("made_by", "config")} for arm, about in notes.items()},
    }
    if index:
        note["calibrated on"] = {"test songs of": portable(index), "digest": digest, "matrix": matrix.round(4).tolist()}
    note["measure"] = f"SDR in dB, median over the seconds in which the stem is above {QUIET:g} dB"
    note["songs"] = {song: _scores(rows) for table in tables for song, rows in table.groupby("song")}
    write_bytes(Path(out, BUNDLED.name), packed)
    write_json(Path(out, BUNDLED.name).with_suffix(".json"), note)


def _scores(rows):
    """{stem: {"sdr", "mixture"}} of one song, mixture being that of the mixture ÷ 4."""
    return rows.set_index("stem")[["sdr", "mixture"]].round(2).to_dict("index")


def main(arguments=None):
    """Run the command."""
    parser = Parser(
        prog="python -m lib.evaluation.bundle",
        description="Make the generator that this repository carries from the mean of the weights of finished "
        "trainings, and measure it on real songs.",
    )
    parser.add_argument("arms", metavar="ARM", nargs="+", help="folder of a finished training: results/carried/l1-42")
    parser.add_argument("--songs", metavar="FOLDER", nargs="+", required=True, help="songs to measure it on")
    parser.add_argument("--calibrate", metavar="DATA.json", help="calibrate it on the test songs of this index")
    parser.add_argument("--out", metavar="FOLDER", default=BUNDLED.parent, help="where to write (default: lib/models)")
    options = parser.parse_args(arguments)
    bundle(options.arms, options.songs, options.calibrate, options.out)


if __name__ == "__main__":
    command(main)
