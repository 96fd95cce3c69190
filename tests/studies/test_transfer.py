"""What a corpus is worth on real songs: the trainings that are planned, and the table."""

import pandas as pd
import pytest

from lib.common.errors import UserError
from lib.common.provenance import ROOT
from lib.report.tables import transfer
from lib.studies.transfer import runs, write_table


def test_a_variant_changes_both_trainings_and_starts_from_its_own(tmp_path):
    variants = {"now": ["data=results/now/data.json"], "louder": ["data=results/now/data.json", "stem_gain_db=6"]}
    found = runs(variants, [1, 2], tmp_path)
    assert [*found] == [("now", 1), ("now", 2), ("louder", 1), ("louder", 2)]
    for (variant, seed), (start, arm) in found.items():
        assert start.data == arm.data == "results/now/data.json" and start.seed == arm.seed == seed
        assert arm.start_from == str(tmp_path / variant / f"pretrain-{seed}") and not start.start_from
        assert start.stem_gain_db == arm.stem_gain_db == (6.0 if variant == "louder" else 0.0)
        assert not arm.adversarial and start.steps == 1500 and arm.steps == 300
    with pytest.raises(UserError, match="is not a parameter"):
        runs({"now": ["volume=11"]}, [1], tmp_path)


def test_the_table_has_medians_over_songs_means_over_seeds_and_their_deviation(tmp_path):
    rows = [(s, k, "drums", value + s, 0.5, 9) for s in (1, 3) for k, value in (("A", 1.0), ("B", 2.0), ("C", 6.0))]
    rows = pd.DataFrame(rows, columns=["seed", "song", "stem", "sdr", "mixture", "seconds"]).assign(set="real songs")
    tables = {("now", seed): part.drop(columns="seed") for seed, part in rows.groupby("seed")}
    write_table(tmp_path / "table.csv", tables)
    written = pd.read_csv(tmp_path / "table.csv")
    assert {"variant", "seed", "set", "song", "stem", "sdr", "mixture", "seconds", "machine", "commit"} == set(written)
    found = transfer(written, {"now": "version 2"})
    assert [*found.columns] == ["mixture ÷ 4", "version 2", "± version 2"]
    assert found.loc[("B", "drums")].tolist() == [0.5, 4.0, 1.41]  # 3 and 5
    assert found.loc[("Median over the real songs", "drums"), "version 2"] == 4.0
    assert found.loc[("Mean over all 3 songs", "drums"), "version 2"] == 5.0  # 4 and 6
    several = [("Mean over all 3 songs", "drums"), ("Median over the real songs", "drums")]
    assert [*transfer(written, {"now": "version 2"}, songs=False).index] == several
    assert (ROOT / "results" / "transfer" / "corpora.csv").exists()
