"""What a training run leaves on disk to go on from: state.pt, earlier states, and its log."""

import contextlib
import json
import os

import torch

from lib.errors import UserError
from lib.files import atomic
from lib.untrusted import check_archive, regular_file


def save_state(folder, state, keep=1):
    """Write `state` to folder/state.pt atomically. keep: with 2 or more, so many are kept as state-<step>.pt too."""
    path = folder / "state.pt"
    with atomic(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch reports, for instance, a full disk
            raise OSError("not enough room, or no right to write") from error
    if keep > 1:
        with atomic(folder / f"state-{state['step']:07d}.pt") as temporary:
            os.link(path, temporary)  # a second name, not a second copy
        for old in _earlier(folder)[:-keep]:
            old.unlink()


def load_state(path, device):
    """The state in `path`; raises `UserError` when it is missing, damaged or foreign. Nothing in it is run."""
    try:
        with regular_file(path).open("rb") as file:
            check_archive(file)
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; train the run it belongs to first.") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        earlier = [other for other in _earlier(path.parent) if not other.samefile(path)]
        way_out = f"copy {earlier[-1].name} over it to go on from there" if earlier else "delete it to start afresh"
        raise UserError(f"{path} is damaged or not a checkpoint of this program; {way_out}.") from error


def _earlier(folder):
    return sorted(folder.glob("state-*.pt"))


def append_line(log, line):
    """Append `line` (a dictionary) to a .jsonl file; raises `UserError` when it cannot be written."""
    whole = log.stat().st_size if log.exists() else 0
    try:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(log, whole)
        raise UserError(
            f"Cannot write {log}: {error.strerror}; free some space and run again, it resumes where it was."
        ) from error


def drop_lines_after(log, step):
    """Keep the lines of a .jsonl file up to `step`: a run that was killed may have logged more than it saved."""
    if log.exists():
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        with atomic(log) as temporary:
            temporary.write_text("".join(kept))
