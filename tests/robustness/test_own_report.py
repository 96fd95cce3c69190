"""The whole report of a folder of one's own: four stems in every format, two stems, and six."""

import json

import numpy as np
import pandas as pd
import pytest
from support import SOURCES, own_folder, synthetic_stems, write_own

from lib import pipeline
from lib.models.weights import read_stems

TWO = ("vocals", "accompaniment")
SIX = ("drums", "bass", "guitar", "piano", "other", "vocals")


def outputs(notebook):
    """The text of all outputs of an executed notebook; none is an error."""
    found = [o for cell in json.loads(notebook.read_text())["cells"] for o in cell.get("outputs", [])]
    assert not any(o["output_type"] == "error" for o in found), notebook
    return " ".join("".join(o.get("text", "")) + "".join(o.get("data", {}).get("text/html", "")) for o in found)


def check(folder, stems):
    """What every report shows, whatever its stems are."""
    for step in pipeline.STEPS:
        assert outputs(folder / f"{step}.ipynb") and (folder / f"{step}.html").stat().st_size > 10_000
    assert (folder / "index.html").exists()
    table, arms = pd.read_csv(folder / "sdr_table.csv"), pd.read_csv(folder / "arms.csv")
    assert list(table.columns[: len(stems) + 2]) == ["system", *stems, "all"]
    measured = table[table["section"].str.endswith(": test")].set_index("system")
    assert list(measured.index[:4]) == [
        f"Mixture ÷ {len(stems)} as every estimate", "L1", "L1 + GAN", "L1 + GAN + cures"
    ]  # fmt: skip
    assert np.isfinite(measured.loc["L1", [*stems, "all"]].to_numpy(float)).all()
    assert list(arms["target"].unique()) == [*stems]
    assert read_stems(folder / "gan-1") == stems
    return table, json.loads((folder / "data.json").read_text()), json.loads((folder / "split.json").read_text())


def test_a_folder_in_every_format_comes_to_a_table(report_of, tmp_path):
    folder = report_of(own_folder(tmp_path / "songs", seconds=4.0))
    table, index, split = check(folder, SOURCES)
    assert {"Published, on the MUSDB18 test tracks", "Measured here, on: real excerpt"} <= set(table["section"])
    assert {name: len(names) for name, names in split["sets"].items()} == {"train": 6, "valid": 1, "test": 2}
    tracks = [track for name in split["sets"] for track in index["sets"][name]]
    assert {"At 48 kHz", "No mixture", "No vocals", "Mono", "As mp3"} < {track["name"] for track in tracks}
    said = outputs(folder / "01-data.ipynb")
    for track in tracks:
        assert track["name"] in said and all(remark in said for remark in track.get("remarks", []))
    assert len(index["refused"]) == 4 and all(said.count(line) == 2 for line in index["refused"].values())
    assert split["sets"]["train"] == [track["name"] for track in index["sets"]["train"]]


@pytest.mark.parametrize("stems", [TWO, SIX], ids=len)
def test_other_stems_come_to_a_table(report_of, tmp_path, stems):
    for k in range(4):
        music = np.concatenate([synthetic_stems(k), synthetic_stems(k + 50)])[: len(stems)]
        write_own(tmp_path / "songs" / f"Song {k}", music, stems)
    folder = report_of(tmp_path / "songs", stems=[*stems])
    table, index, _ = check(folder, stems)
    assert set(table["section"]) == {"Measured here, on: test"} and index["stems"] == [*stems]
