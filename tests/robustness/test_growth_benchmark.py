"""The benchmark of growth, whole, at tiny sizes."""

from benchmarks import growth


def test_it_measures_every_stage_and_draws(tmp_path):
    growth.main(["--tiny", "--out", str(tmp_path)])
    page = (tmp_path / "growth.md").read_text()
    assert all(f"| {stage} |" in page for stage in growth.STAGES) and "nan" not in page
    assert "growth per 1,000 steps" in page and all(f"\n| {run} | " in page for run in (1, 2))
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_what_grows_too_fast_is_named():
    found = {"score a song": ((10, 100), [(1.0, 1.0), (100.0, 1.0)]), "read a batch": ((10, 100), [(1.0, 1.0)] * 2)}
    *table, _, last, _ = growth.lines(found)
    assert table[2].endswith("| 2.00 | 1 |") and table[3].endswith("| 0.00 | 0 |")
    assert last == "Steeper than expected by more than 0.2: score a song."
