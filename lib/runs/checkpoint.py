"""The files from which a training resumes: state.pt, earlier states, and the log."""

import contextlib
import json
import os

import torch

from lib.common.errors import UserError
from lib.common.files import atomic
from lib.common.untrusted import LOG, check_archive, parse_json, read_limited, regular_file
from lib.models.weights import load_weights


def save_state(folder, state, keep=1):
    """Write `state` to folder/state.pt atomically, and with `keep` ≥ 2 keep the last `keep` as state-<step>.pt too."""
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
    """The state in `path`. Raises `UserError` when it is missing, damaged or of another program; runs nothing in it."""
    try:
        with regular_file(path).open("rb") as file:
            check_archive(file)
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; train the run it belongs to first.") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        earlier = [other for other in _earlier(path.parent) if not other.samefile(path)]
        way_out = f"copy {earlier[-1].name} over it to go on from there" if earlier else "delete it to start afresh"
        raise UserError(f"{path} is damaged or not a checkpoint of this program; {way_out}.") from error


def load_parts(path, parts, device):
    """Load `parts` {name: network or optimizer} from the state in `path`; returns the state.

    Raises `UserError` as `load_state` does, and for a state that no training saved or networks of another size.
    """
    state = load_state(path, device)
    kinds = {"step": int, "seconds": float, "best": float, "sums": list, "config": dict} | dict.fromkeys(parts, dict)
    try:
        sound = all(isinstance(state[name], kind) for name, kind in kinds.items())
        if not sound or state["step"] < 0 or state["seconds"] < 0 or not state["sums"]:
            raise ValueError("wrong values")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of this program; delete it to start afresh.") from error
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} holds networks of another size than the parameters ask for; make generator, channels, depth and "
            "lstm_layers agree."
        ) from error
    return state


def load_start(place, generator, optimizer, device):
    """Start as the run in the folder `place` ended or, if `place` is a file of weights, with these and a new optimizer.

    Raises `UserError` as `load_parts` or `load_weights` does.
    """
    if place.is_file():
        generator.load_state_dict(load_weights(place).state_dict())
    else:
        load_parts(place / "state.pt", {"generator": generator, "optimizer": optimizer}, device)


def _earlier(folder):
    return sorted(folder.glob("state-*.pt"))


def append_line(log, line):
    """Append `line` (a dictionary) to a .jsonl file; raises `UserError` when it cannot be written."""
    whole = log.stat().st_size if log.exists() else 0
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(log, whole)
        raise UserError(
            f"Cannot write {log}: {error.strerror}; free some space and run again, it resumes where it was."
        ) from error


def read_log(log):
    """The lines of a training's .jsonl file as dictionaries, without a last line that was cut short.

    Raises `UserError` when the file is missing or damaged, or a line has no step.
    """
    try:
        lines = read_limited(log, LOG).splitlines(keepends=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read {log} ({reason}); train the run it belongs to, or train it again.") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.endswith(b"\n"):
                found.append(parse_json(line))
                if not isinstance(found[-1]["step"], int):
                    raise TypeError("a step is a number")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Line {number} of {log} is not one of a training's log; remove it, or train the run again."
            ) from error
    return found


def drop_lines_after(log, step):
    """Keep the lines of a .jsonl file up to `step`: a killed run may have logged more than it saved."""
    if log.exists():
        kept = [line for line in read_log(log) if line["step"] <= step]
        with atomic(log) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
