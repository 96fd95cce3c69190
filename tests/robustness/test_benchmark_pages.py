"""The pages of benchmarks: a section per table and kind of processor."""

from benchmarks import page


def test_a_section_replaces_its_own_and_keeps_those_of_other_processors(tmp_path, monkeypatch):
    path, place = tmp_path / "speed.md", ["AMD EPYC, 2 cores, commit a"]
    monkeypatch.setattr(page, "machine", lambda: place[0])
    page.write_section(path, "Steps", ["| old |"])
    page.write_section(path, "Other", ["| other |"])
    place[0] = "Intel, 2 cores, commit b"
    page.write_section(path, "Steps", ["| there |", "", "## A part"])
    place[0] = "AMD EPYC, 2 cores, commit c"
    page.write_section(path, "Steps", ["| new |"])
    assert path.read_text() == (
        "# Steps (AMD EPYC)\n\n| new |\n\nAMD EPYC, 2 cores, commit c\n\n"
        "# Steps (Intel)\n\n| there |\n\n## A part\n\nIntel, 2 cores, commit b\n\n"
        "# Other (AMD EPYC)\n\n| other |\n\nAMD EPYC, 2 cores, commit a\n"
    )
