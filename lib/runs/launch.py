"""Start training processes, and keep the folders of runs apart."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import locked, write_json
from lib.common.processes import end_with_parent
from lib.common.provenance import ROOT, made_by
from lib.config import Config, read_note
from lib.data.tracks import read_index
from lib.models.weights import load_weights
from lib.runs.build import check_trainable
from lib.runs.checkpoint import read_log
from lib.runs.distributed import LOOPBACK
from lib.runs.folders import arm_and_seed


def claim(config, folder, world_size=1):
    """Make `folder` the run of `config` on `world_size` ranks; return (completed config, whether the run is finished).

    A folder that holds a run with other parameters is set aside as `folder~digest`, with the runs that branched from
    it, and comes back when those parameters are asked for again: changing a parameter never destroys a result, and no
    table mixes branches of different starts. Raises `UserError`, and changes nothing, for what cannot be trained.
    """
    folder, start = Path(folder), None
    if folder.is_file():
        raise UserError(f"{folder} is a file; choose another folder.")
    config = dataclasses.replace(config, data_digest=read_index(ROOT / config.data)[1])
    if config.start_from:
        weights = ROOT / config.start_from / "model.safetensors"
        start = load_weights(weights)  # refuses a damaged or missing one
        config = dataclasses.replace(config, start_digest=hashlib.sha256(weights.read_bytes()).hexdigest()[:16])
    wanted, present = dataclasses.asdict(config), read_note(folder)
    if not present or _with_defaults(present["config"]) != wanted:
        check_trainable(config, world_size, start)
        if present:
            _make_room(folder, wanted)
        if not folder.exists() and _aside(folder, wanted).exists():
            _aside(folder, wanted).rename(folder)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", {"config": wanted, "made_by": made_by()})
    return config, bool(read_note(folder).get("finished")) and (folder / "model.safetensors").exists()


def _make_room(folder, wanted):
    """Move the run in `folder`, and those that branched from it, out of the way of the parameters `wanted`."""
    for branch in _branches(folder):
        _set_aside(branch)
    if (folder / "state.pt").exists() or _aside(folder, wanted).exists():
        _set_aside(folder)
    else:  # a log without its weights, as in a fresh clone: nothing to keep
        (folder / "config.json").unlink()


def _with_defaults(values):
    """The parameters of an earlier run, with those that did not exist then; None where they are of another kind."""
    try:
        return dataclasses.asdict(Config.from_dict(values))
    except (TypeError, UserError):
        return None


def _branches(folder):
    """The runs beside `folder` that start from it, without those already set aside."""
    found = []
    for note in folder.parent.glob("*/config.json"):
        start = read_note(note.parent)["config"].get("start_from")
        if start and "~" not in note.parent.name and (ROOT / start).resolve() == folder.resolve():
            found.append(note.parent)
    return found


def _set_aside(folder):
    place = _aside(folder, read_note(folder)["config"])
    if place.exists():  # the same parameters and the same start, so the same run
        shutil.rmtree(place)
    folder.rename(place)


def _aside(folder, config):
    return folder.with_name(f"{folder.name}~{hashlib.sha256(json.dumps(config).encode()).hexdigest()[:8]}")


def launch(config, folder, nproc=1, *, nnodes=1, rdzv_endpoint=""):
    """Train `config` in `folder` with `nproc` processes on each of `nnodes` machines; show their lines.

    More than one run under torchrun, which starts all of them again from the last checkpoint when one dies, three
    times at most. With several machines, `rdzv_endpoint` (host:port) names this one, the others run `join`, and all
    see `folder` and the data under the same path. A finished run is not repeated, an interrupted one resumes. Raises
    `UserError` with the cause when training fails.
    """
    check_machines(nproc, nnodes, rdzv_endpoint)
    folder = Path(folder).resolve()
    with locked(folder):
        _, finished = claim(config, folder, nproc * nnodes)
    if finished:
        print(f"{folder.name}: finished before, not repeated; its log:")
        for line in read_log(folder / "metrics.jsonl"):
            print(status_line(folder.name, line, config.steps))
        return
    if nnodes > 1:
        words = f"{folder.parent} nproc={nproc} nnodes={nnodes} rdzv_endpoint={rdzv_endpoint}"
        print(
            f"waiting for {nnodes - 1} more machine(s), where you run once: python -m lib.runs.launch {words}",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as scratch:
        _run(_command(folder, nproc, nnodes, rdzv_endpoint if nnodes > 1 else f"{scratch}/ranks"), folder, nproc)


def join(run, nproc=1, *, nnodes, rdzv_endpoint, patience=600.0):
    """Take part in the trainings that another machine launches in the folder `run`, one after another.

    Returns when none has begun for `patience` seconds. Raises `UserError` when one fails.
    """
    check_machines(nproc, nnodes, rdzv_endpoint)
    waited = 0.0
    while waited < patience:
        notes = [path for path in Path(run).glob("*/config.json") if "~" not in path.parent.name]
        begun = [path for path in notes if not read_note(path.parent).get("finished")]
        if not begun:
            time.sleep(1.0)
            waited += 1.0
            continue
        folder = max(begun, key=lambda path: path.stat().st_mtime).parent.resolve()
        print(f"joining {folder.name}", flush=True)
        _run(_command(folder, nproc, nnodes, rdzv_endpoint), folder, nproc)
        waited = 0.0


def check_machines(nproc, nnodes, rdzv_endpoint):
    """Raise `UserError` for numbers of processes and machines, or an address, that cannot be."""
    if nproc < 1 or nnodes < 1:
        raise UserError(f"nproc = {nproc} and nnodes = {nnodes} must be at least 1: processes, and machines.")
    host, _, port = rdzv_endpoint.rpartition(":")
    if nnodes > 1 and not (host and port.isdecimal()):
        raise UserError(f"rdzv_endpoint = {rdzv_endpoint!r} must be host:port of the first machine.")


def _command(folder, nproc, nnodes, rdzv_endpoint):
    command = [sys.executable, "-m"]
    if nproc * nnodes > 1:
        place = ["--nnodes", str(nnodes), "--rdzv_backend", "c10d", "--rdzv_endpoint", rdzv_endpoint]
        place += ["--rdzv_id", folder.name]
        if nnodes == 1:  # they meet in a file and on the loopback: torchrun's --standalone listens to every network
            place += ["--rdzv_conf", "store_type=file", "--local_addr", LOOPBACK]
        command += ["torch.distributed.run", *place, "--nproc_per_node", str(nproc), "--max_restarts", "3", "-m"]
    return [*command, "lib.train", str(folder)]


def _run(command, folder, nproc):
    # Unless the user has said otherwise. Threads that wait by spinning make each other wait: beside other work a step
    # of two of them took five to six times as long.
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // nproc, 1)), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = (
        threads
        | os.environ
        | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # without it torch 2.11 restarts with the addresses of the dead
        }
    )
    process = subprocess.Popen(  # noqa: S603  a list of words, of which none can be an option
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=partial(end_with_parent, signal.SIGTERM),  # when killed: they save, and stop
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith(folder.name):
                print(line, end="", flush=True)
            if "UserError: " in line:  # no restart can mend it
                process.terminate()
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
    if process.returncode:
        causes = [line.split("UserError: ")[1].strip() for line in lines if "UserError: " in line]
        causes += [line.strip() for line in lines if line.startswith(str(folder)) and "and saved" in line]
        if process.returncode == -signal.SIGKILL:
            causes.append(
                f"Training in {folder} was killed, perhaps for want of memory; run again, it goes on from there."
            )
        raise UserError(causes[0] if causes else f"Training in {folder} failed:\n{''.join(lines[-30:])}")


def status_line(name, line, steps):
    """One fixed-width line that a person can follow."""
    left = (steps - line["step"]) / max(line["steps_per_second"], 1e-3)
    text = f"{name:<14} step {line['step']:>6}/{steps}  L1 {line['l1_batches']:.4f}  held-out {line['l1_heldout']:.4f}"
    if "r_v_sigma" in line:
        r_v = line["r_v_sigma"]
        text += (
            f"  D {line.get('discriminator', float('nan')):.3f}  TPR {line['tpr_train']:.2f}/{line['tpr_heldout']:.2f}"
            f"  r_v {'  –  ' if r_v is None else f'{r_v:5.2f}'}"
        )
    return f"{text}  {line['steps_per_second']:6.2f} steps/s  {int(left) // 60:>3}:{int(left) % 60:02} left"


def choose_arms(names, arms):
    """The entries of `arms` {name: parameters} that `names` asks for; raises `UserError` for an unknown name."""
    unknown = [name for name in names if name not in arms]
    if unknown:
        raise UserError(f"There is no arm {unknown[0]!r}; choose from {', '.join(arms)}.")
    return {name: arms[name] for name in names}


def trained(run):
    """Names of the finished arms (<arm>-<seed>) in a run's folder, without the common start and what was set aside.

    Raises `UserError` where there is none, or one has another form of name.
    """
    finished = [
        path.parent.name for path in Path(run).glob("*/model.safetensors") if read_note(path.parent).get("finished")
    ]
    names = [name for name in finished if "~" not in name and not name.startswith("pretrain")]
    arms = sorted(names, key=arm_and_seed)
    if not arms:
        raise UserError(f"{run} holds no trained arm; run the notebook 02-train first.")
    return arms


def main():
    """Command line: RUN_FOLDER nproc=8 nnodes=2 rdzv_endpoint=host:port, on every machine but the first."""
    run, *words = sys.argv[1:] or ["--help"]
    if run in ("-h", "--help"):
        sys.exit(f"python -m lib.runs.launch RUN_FOLDER nproc=8 nnodes=2 rdzv_endpoint=host:port\n\n{join.__doc__}")
    values = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        nproc, nnodes, rdzv_endpoint = int(values["nproc"]), int(values["nnodes"]), values["rdzv_endpoint"]
    except (KeyError, ValueError) as error:
        raise UserError(f"Missing or wrong: {error}; write nproc=8 nnodes=2 rdzv_endpoint=host:port.") from error
    join(run, nproc, nnodes=nnodes, rdzv_endpoint=rdzv_endpoint)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"UserError: {error}")
