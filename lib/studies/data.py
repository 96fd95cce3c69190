"""The data of a profile: compose or find the tracks, decode them, write data.json.

python -m lib.studies.data study name=value …
"""

import sys
from pathlib import Path

import numpy as np

from lib import corpus
from lib.common.errors import UserError
from lib.common.files import write_json
from lib.common.processes import command
from lib.common.provenance import ROOT, made_by, portable
from lib.corpus import HELD_OUT
from lib.data import musdb
from lib.data.decode import decode
from lib.data.tracks import SOURCES, write_index
from lib.report import profile

SHARES = {"test": 0.2, "valid": 0.1}  # of the tracks of a folder without train/, valid/ and test/; at least one track


def prepare(parameters):
    """Write results/<run>/data.json for the parameters of 01-data; return the decoded tracks, {set: [Track, …]}.

    What is composed or decoded already is kept. A folder without train/, valid/ and test/ is split by `split_seed`, and
    split.json says how. Tracks that cannot be used are left out; a line and data.json say why. Raises `UserError` for a
    bad folder, no usable track in a set, or a full disk.
    """
    p, stems, refused = parameters, tuple(parameters["stems"]), {}
    run = ROOT / "results" / p["run"]
    if p["musdb_root"] == "embedded":
        sizes = {name: p[f"{name}_tracks"] for name in ("train", "valid", "test", "shifted", "heldout")}
        length, seed, font = p["track_seconds"], p["corpus_seed"], p["soundfont"]
        name = f"songs-{'-'.join(map(str, sizes.values()))}x{length:g}s-{seed}{Path(font).stem}"
        root = ROOT / "data" / f"{name}-v{corpus.CORPUS_VERSION}"
        corpus.generate(root, **sizes, seconds=length, seed=seed, soundfont=font or None, arrays=True)
    else:
        root = musdb.find_musdb(p["musdb_root"])
    files = musdb.list_musdb(root, stems, refused=refused)
    for name in ("shifted", *HELD_OUT):
        if tracks := musdb.list_tracks(root / name / "test", stems, refused=refused):
            files[name] = tracks
    if stems != SOURCES:
        print(f"The real excerpt is left out: its stems are {', '.join(SOURCES)}.")
    elif excerpt := musdb.real_excerpt():
        files["real excerpt"] = excerpt
    files |= musdb.list_test_sets(p["test_sets"], stems, refused=refused)
    for name in p["test_sets"]:
        if name not in files:
            print(f"The test set {name!r} is left out: {p['test_sets'][name]} is not there.")
    cache = ROOT / "data" / "cache"
    sets = {name: decode(tracks, cache, name, stems, refused) for name, tracks in files.items()}
    for sentence in refused.values():
        print(f"Left out: {sentence}")
    if musdb.UNSPLIT in sets:
        sets = split(sets.pop(musdb.UNSPLIT), p["split_seed"]) | sets
        names = {name: [track.name for track in sets[name]] for name in musdb.SUBSETS}
        write_json(run / "split.json", {"root": p["musdb_root"], "seed": p["split_seed"], "sets": names})
    if empty := [name for name in musdb.SUBSETS if not sets[name]]:
        why = f" ({next(iter(refused.values())).rstrip('.')})" if refused else ""
        raise UserError(
            f"{root} leaves no track for {empty[0]}{why}; give each of {', '.join(musdb.SUBSETS)} a folder with at "
            "least one track, or at least three tracks without these folders."
        )
    left_out = {portable(path): sentence for path, sentence in refused.items()}
    write_index(run / "data.json", sets, root=p["musdb_root"], refused=left_out, made_by=made_by())
    return sets


def split(tracks, seed):
    """{"train", "valid", "test": [Track, …]} of `tracks`, drawn by `seed` with `SHARES`, each in the order of names."""
    order, sets = np.random.RandomState(seed).permutation(len(tracks)).tolist(), {}
    for name, share in SHARES.items():
        count = max(1, round(share * len(tracks)))
        sets[name], order = order[:count], order[count:]
    return {name: [tracks[k] for k in sorted(sets.get(name, order))] for name in musdb.SUBSETS}


def main():
    """Run the command."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    prepare(profile.values(ROOT / "notebooks", sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    command(main)
