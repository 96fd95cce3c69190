"""What a training on one data set is worth on other songs: the same training on several sets, scored on real songs.

    python -m lib.studies.transfer OUT.csv --songs "data/real songs" --seeds 42 43 44 --jobs 2 \\
        before:data=results/before/data.json "now:data=results/quick/data.json stem_gain_db=6"

Each variant is name:words, where words are parameters of `lib.config.Config` that replace those of 02-train's defaults.
It is trained as the arm l1 of the profile quick, pre-training and arm, once per seed, beside OUT.csv. OUT.csv gets
a row per variant, seed, song and stem: the values of `lib.evaluation.songs.measure`. Finished trainings are kept.
"""

import dataclasses
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from lib.common.errors import Parser, UserError
from lib.common.files import atomic
from lib.common.processes import command, keep_buffers
from lib.common.provenance import ROOT, made_by, portable
from lib.config import parse
from lib.evaluation import songs
from lib.models.weights import load_generator
from lib.report import profile
from lib.runs.arms import plan
from lib.runs.launch import launch
from lib.studies import queue


def runs(variants, seeds, folder):
    """{(variant, seed): (`Config` of the pre-training, of the arm)}, trained in `folder`/<variant>.

    variants: {name: words name=value}. Raises `UserError` for a word that is no parameter.
    """
    words = [f"seeds={[*seeds]}", f"arm=gan-{seeds[0]}", f"cured=gan-cures-{seeds[0]}"]
    planned, found = plan(profile.values(ROOT / "notebooks", "quick", words)), {}
    for variant, given in variants.items():
        values = parse(given, folder / "none")
        changed = {word.partition("=")[0]: getattr(values, word.partition("=")[0]) for word in given}
        for seed in seeds:
            pair = [dataclasses.replace(planned[f"{name}-{seed}"], **changed) for name in ("pretrain", "l1")]
            pair[1] = dataclasses.replace(pair[1], start_from=portable(folder / variant / f"pretrain-{seed}"))
            found[variant, seed] = pair
    return found


def train(pair, folder, seed):
    """Train a pre-training and its arm in `folder`."""
    for name, config in zip(("pretrain", "l1"), pair, strict=True):
        launch(config, folder / f"{name}-{seed}")


def score(weights, folders):
    """`songs.measure` of the model in `weights` on all `folders` of songs, in one table."""
    model = load_generator(weights).to("cuda" if torch.cuda.is_available() else "cpu")
    return pd.concat([songs.measure(model, folder).assign(set=Path(folder).name) for folder in folders])


def write_table(path, tables):
    """Write the tables {(variant, seed): `score`} to `path`, with the machine and the commit."""
    made = {name: value for name, value in made_by().items() if name in ("machine", "commit")}
    rows = [table.assign(variant=variant, seed=seed) for (variant, seed), table in sorted(tables.items())]
    columns = ["variant", "seed", "set", "song", "stem", "sdr", "mixture", "seconds"]
    with atomic(path) as temporary:
        pd.concat(rows)[columns].assign(**made).to_csv(temporary, index=False, float_format="%.4f")


def main(arguments=None):
    """Run the command."""
    parser = Parser(prog="python -m lib.studies.transfer", description="The same training on several data sets.")
    parser.add_argument("table", type=Path, metavar="OUT.csv")
    parser.add_argument("variants", nargs="+", metavar="name:words")
    parser.add_argument("--songs", nargs="+", required=True, metavar="FOLDER", help="folders of songs with stems")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time (default: %(default)s)")
    options = parser.parse_args(arguments)
    keep_buffers()
    folder, tables = options.table.resolve().parent, {}
    variants = {word.partition(":")[0]: word.partition(":")[2].split() for word in options.variants}
    planned = runs(variants, options.seeds, folder)

    def work(key):
        variant, seed = key
        train(planned[key], folder / variant, seed)
        tables[key] = score(folder / variant / f"l1-{seed}" / "model.safetensors", options.songs)
        write_table(options.table, tables)

    jobs = [queue.Job(f"{variant}-{seed}", partial(work, (variant, seed))) for variant, seed in planned]
    if errors := queue.run(jobs, options.jobs):
        raise UserError(f"{len(errors)} of the trainings failed: {', '.join(errors)}; the lines above say why.")


if __name__ == "__main__":
    command(main)
