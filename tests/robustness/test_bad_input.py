"""What bad input gets: one sentence, and nothing half-written. The table of it: tests/robustness/bad-input.md.

`python tests/robustness/test_bad_input.py` writes the table anew from the cases in bad_*.py beside this file.
"""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.extend(map(str, Path(__file__).resolve().parents[1:3]))  # for the command above

import bad_data
import bad_results
import bad_runs
import bad_songs
import typed
from bad_case import MINE, MINE_RUN
from support import RATE, synthetic_stems, write_track

from lib.common.files import write_bytes
from lib.data import decode, musdb
from lib.data import tracks as data
from lib.evaluation.score import museval_json
from lib.models.weights import BUNDLED

PARTS = (bad_data, bad_runs, bad_songs, bad_results)
CASES = [case for part in PARTS for case in part.CASES]
TABLE = Path(__file__).with_name("bad-input.md")
TINY = (
    "steps=2 batch=4 lr=0.003 channels=4 depth=3 lstm_layers=1 seconds=0.1 shift_seconds=0.05 stride_seconds=0.1 "
    "remix_group=2 discriminator_width=8 evaluate_every=1 evaluation_excerpts=2"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that all cases know as …, and a copy of it from which it is made anew."""
    base = tmp_path_factory.mktemp("bad-input")
    place = base / "place"
    for k, name in enumerate(("train/A - B", "train/C - D", "train/E - F", "train/G - H", "test/I - J")):
        write_track(place / "musdb" / name, synthetic_stems(k, 0.5))
    sets = {name: decode.decode(files, place / "cache-1") for name, files in musdb.list_musdb(place / "musdb").items()}
    data.write_index(place / "data.json", sets)
    soundfile.write(place / "song.wav", synthetic_stems(9, 0.5).sum(0, dtype=np.int16), RATE)
    shutil.copy(musdb.real_excerpt().popitem()[1], place / "excerpt.stem.mp4")
    (place / "locked").mkdir(mode=0o500)
    with typed.server():
        start = f"start_from={place}/study/pretrain-1"
        for arm, words in (("pretrain", ""), ("l1", start), ("gan", f"{start} adversarial_weight=0.01")):
            folder = place / "study" / f"{arm}-1"
            answer = typed.run(f"python -m lib.train {folder} data={place}/data.json {TINY} {words}", base)
            assert answer.status == 0, answer.errors
            scores = museval_json(*np.ones((4, 4, 2)))
            if arm != "pretrain":
                write_bytes(folder / "eval" / "test" / "tracks" / "I - J.json", scores.encode())
        shutil.copy(place / "data.json", place / "study" / "data.json")
        shutil.copytree(place, base / "copy")
        yield place


@pytest.fixture
def fresh(place):
    yield place
    for file in (MINE, MINE_RUN.with_name(f".{MINE_RUN.name}.lock")):
        file.unlink(missing_ok=True)
    for folder in [place, *place.rglob("*")]:
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    shutil.rmtree(place)
    shutil.copytree(place.with_name("copy"), place)


def contents(folder):
    """{path: content} of all files and folders below; locks, which stay by design, left out."""
    paths = [path for path in [*folder.rglob("*"), *BUNDLED.parent.iterdir()] if not path.name.endswith(".lock")]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def pattern(says, place):
    """The regular expression of a sentence in the table."""
    parts = re.split("(…/|…)", says)
    return "".join({"…/": re.escape(f"{place}/"), "…": ".*"}.get(part, re.escape(part)) for part in parts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_bad_input(fresh, case):
    case.make(fresh)
    before = contents(fresh)
    for name in case.names or ("",):
        command, says = (text.replace("NAME", name).replace("MINE", MINE.stem) for text in (case.typed, case.says))
        answer = typed.run(command.replace("…/", f"{fresh}/"), fresh.parent)
        assert "Traceback" not in answer.errors, answer.errors
        if case.works:
            assert answer.status == 0 and not answer.errors, answer
            assert case.check(fresh, answer)
        else:
            assert answer.status > 0, "by an exit status, not a signal"
            assert re.fullmatch(pattern(says, fresh) + "\n", answer.errors), answer.errors
    after = contents(fresh)
    assert {path: after.get(path) for path in before} == before, "what was there stays as it was"
    if not case.works:
        assert sorted(after) == sorted(before), "nothing half-written"
        assert not MINE_RUN.exists()


def table():
    """The cases as Markdown."""
    lines = [
        "# Bad input, and what it gets",
        "",
        "Written by `python tests/robustness/test_bad_input.py` from the cases that the test of that name runs. "
        "Each ends with an exit status above 0 and this one sentence, leaves nothing half-written, and changes nothing "
        "that was there. "
        "“…/” is a folder, any other “…” depends on the machine or the library that met the file; MINE is a profile "
        "or a run of one's own; where a line says “every one”, NAME is each parameter of `lib/config.py`'s Config that "
        "it can be. Calls of the library are those that the notebooks make; the pipeline prints their sentence after "
        "the notebook's name.",
    ]
    for part in PARTS:
        lines += ["", f"## {part.__doc__.splitlines()[0].partition(': ')[2].rstrip('.').capitalize()}", ""]
        lines += ["| what | as typed or called | what it gets |", "|---|---|---|"]
        lines += [f"| {_cell(case.what)} | `{_cell(case.typed)}` | {_cell(case.says)} |" for case in part.CASES]
    return "\n".join([*lines, ""])


def _cell(text):
    return text.replace("|", "\\|")


def test_the_table_is_that_of_the_cases():
    assert TABLE.read_text() == table(), "python tests/robustness/test_bad_input.py"


if __name__ == "__main__":
    TABLE.write_text(table())
