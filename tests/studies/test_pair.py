"""The overfitting pair of a report, at a tiny size."""

import shutil

import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.common.files import read_json
from lib.data.tracks import read_index, write_index
from lib.runs.checkpoint import read_log
from lib.studies import pair

WORDS = dict(tracks=1, seconds=3.0, steps=6, seed=1)


@pytest.fixture
def report(noise, tmp_path):
    """(folder of a report with four validation tracks, its pre-training)."""
    sets, _ = read_index(noise[0])
    write_index(tmp_path / "data.json", {"train": sets["train"][:4], "valid": sets["train"][4:8]})
    shutil.copytree(noise[1], tmp_path / "pretrain-1")
    return tmp_path, tmp_path / "pretrain-1"


def test_a_pair_from_its_tracks_to_its_table(report, launched_here, monkeypatch):
    folder, start = report
    monkeypatch.setattr(pair, "SETTINGS", pair.SETTINGS | {"seconds": 0.25, "evaluation_excerpts": 6})
    table, onsets = pair.run(folder, start, "R1", **WORDS)
    written = pd.read_csv(folder / "memorisation.csv", dtype={"commit": str})  # a name may hold digits alone
    pd.testing.assert_frame_equal(written.round(4), table.round(4), check_dtype=False)
    assert table["cure"].unique().tolist() == onsets["cure"].tolist() == ["none", "R1"]
    # 2 s hold eight excerpts of 0.25 s, of which a step draws four
    assert table["passes"].tolist() == [3.0, 3.0] and table["step"].tolist() == [6, 6]
    own, other = (read_index(folder / "memorisation" / "pieces" / f"{name}-1.json")[0] for name in ("pair", "null"))
    names = [track.name.split(",")[0] for part in (own, other) for track in part["train"]]
    held_out = [track.name for track in own["valid"] + own["heldout-b"]]
    assert len({*names, *held_out}) == 4, "no track has two tasks"
    heard = {track.name for track in read_index(folder / "data.json")[0]["train"]}
    assert not heard & {*names, *held_out}, "the pre-training has heard none of them"
    assert other["others-1"] == own["train"]
    [null] = read_log(folder / "memorisation" / "play-1x3-w16-6-2" / "metrics.jsonl")
    assert table["membership_null"].tolist() == pytest.approx([null["others_1"]] * 2)
    naive, cured = (
        read_json(folder / "memorisation" / f"play-1x3-w16-{name}6-1" / "config.json")["config"] for name in ("", "R1-")
    )
    assert {name for name in naive if naive[name] != cured[name]} == {"r1"}
    launched_here.stop = 0  # a step would be interrupted
    pd.testing.assert_frame_equal(pair.run(folder, start, "R1", **WORDS)[0], table)
    with pytest.raises(UserError, match="The overfitting pair stopped: .* stopped at step 1 of 6"):
        pair.run(folder, start, "dither", **WORDS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tracks": 2}, "is left out: it needs 6 validation tracks of 3 s, and 4 are there"),
        ({"seconds": 4.0}, "it needs 4 validation tracks of 4 s, and 0 are there"),
        ({"tracks": 0}, ""),
    ],
)
def test_without_tracks_enough_there_is_no_pair(report, changes, says, capsys):
    folder, start = report
    assert pair.run(folder, start, "R1", **(WORDS | changes)) == (None, None)
    assert says in capsys.readouterr().out and not (folder / "memorisation").exists()


def test_an_unknown_cure_is_refused_before_any_step(report):
    with pytest.raises(UserError, match="The cure 'prayer' is unknown"):
        pair.run(*report, "prayer", **WORDS)
