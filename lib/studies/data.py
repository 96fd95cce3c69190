"""The data of a profile: compose or find the tracks, decode them, write data.json.

python -m lib.studies.data study name=value …
"""

import sys
from pathlib import Path

from lib import corpus
from lib.common.processes import command
from lib.common.provenance import ROOT, made_by
from lib.corpus import HELD_OUT
from lib.data import musdb
from lib.data.tracks import write_index
from lib.report import profile


def prepare(parameters):
    """Write results/<run>/data.json for the parameters of 01-data; return the decoded tracks, {set: [Track, …]}.

    What is composed or decoded already is kept. Raises `UserError` for a bad folder or a full disk.
    """
    p = parameters
    if p["musdb_root"] == "embedded":
        sizes = {name: p[f"{name}_tracks"] for name in ("train", "valid", "test", "shifted", "heldout")}
        length, seed, font = p["track_seconds"], p["corpus_seed"], p["soundfont"]
        name = f"songs-{'-'.join(map(str, sizes.values()))}x{length:g}s-{seed}{Path(font).stem}"
        root = ROOT / "data" / f"{name}-v{corpus.CORPUS_VERSION}"
        corpus.generate(root, **sizes, seconds=length, seed=seed, soundfont=font or None, arrays=True)
    else:
        root = musdb.find_musdb(p["musdb_root"])
    files = musdb.list_musdb(root)
    for name in ("shifted", *HELD_OUT):
        if tracks := musdb.list_tracks(root / name / "test"):
            files[name] = tracks
    if excerpt := musdb.real_excerpt():
        files["real excerpt"] = excerpt
    files |= musdb.list_test_sets(p["test_sets"])
    for name in p["test_sets"]:
        if name not in files:
            print(f"The test set {name!r} is left out: {p['test_sets'][name]} is not there.")
    sets = {name: musdb.decode(tracks, ROOT / "data" / "cache", name) for name, tracks in files.items()}
    write_index(ROOT / "results" / p["run"] / "data.json", sets, root=p["musdb_root"], made_by=made_by())
    return sets


def main():
    """Run the command."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    prepare(profile.values(ROOT / "notebooks", sys.argv[1], sys.argv[2:]))


if __name__ == "__main__":
    command(main)
