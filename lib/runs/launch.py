"""Start the processes of a training, on one machine or several, and say why one failed.

The training writes its exit status and the cause to a file, whose path the launcher puts into the environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from functools import partial
from pathlib import Path

from lib.common.errors import UserError
from lib.common.files import locked, read_json, write_json
from lib.common.machine import cores
from lib.common.processes import command, end_with_parent
from lib.common.provenance import ROOT
from lib.config import read_note
from lib.runs.checkpoint import read_log
from lib.runs.distributed import LOOPBACK, PLACE
from lib.runs.folders import claim, folders_in

FAILED = 2  # exit status after a `UserError`: starting again would not help
INTERRUPTED = 128 + signal.SIGTERM  # exit status of a run that saved and stopped
FAILURE_FILE = "TRAINING_FAILURE_FILE"  # environment variable


def launch(config, folder, nproc=1, *, nnodes=1, rdzv_endpoint="", without_weights=False, **options):
    """Train `config` in `folder` with `nproc` processes on each of `nnodes` machines, and print their status lines.

    More than one process run under torchrun; when one dies, it starts all of them again from the last checkpoint, at
    most three times. With several machines, `rdzv_endpoint` (host:port) names this one, the others run `join`, and all
    see `folder` and the data under the same path. without_weights: accept a finished run of which only config.json and
    the log are here, whatever its parameters. options: program, beside, quiet, as in `_run`. Raises `UserError` with
    the cause when it fails.
    """
    check_machines(nproc, nnodes, rdzv_endpoint)
    folder = Path(folder).resolve()
    finished = without_weights and read_note(folder).get("finished")
    if not finished:
        with locked(folder):
            _, finished = claim(config, folder, nproc * nnodes)
    if finished:
        print(f"{folder.name} is finished and not repeated; its log:")
        for line in read_log(folder / "metrics.jsonl"):
            print(status_line(folder.name, line, config.steps))
        return
    if nnodes > 1:
        words = f"{folder.parent} nproc={nproc} nnodes={nnodes} rdzv_endpoint={rdzv_endpoint}"
        print(f"Waiting for the other machines; on each, run: python -m lib.runs.launch {words}", flush=True)
    _run(folder, nproc, nnodes, rdzv_endpoint, **options)


def join(run, nproc=1, *, nnodes, rdzv_endpoint):
    """Take part in the trainings that another machine launches in `run`, until none has begun for ten minutes.

    Raises `UserError` when one fails.
    """
    check_machines(nproc, nnodes, rdzv_endpoint)
    last = time.monotonic()
    while time.monotonic() < last + 600:
        begun = [path for path in folders_in(run) if (note := read_note(path)) and not note.get("finished")]
        if begun:
            folder = max(begun, key=lambda path: (path / "config.json").stat().st_mtime).resolve()
            print(f"Joining {folder.name}", flush=True)
            _run(folder, nproc, nnodes, rdzv_endpoint)
            last = time.monotonic()
        time.sleep(1.0)


def check_machines(nproc, nnodes, rdzv_endpoint):
    """Raise `UserError` for impossible numbers of processes and machines, or an impossible address."""
    if nproc < 1 or nnodes < 1:
        raise UserError(f"nproc = {nproc} and nnodes = {nnodes} must be at least 1: processes, and machines.")
    host, _, port = rdzv_endpoint.rpartition(":")
    if nnodes > 1 and not (host and port.isdecimal()):
        raise UserError(f"rdzv_endpoint = {rdzv_endpoint!r} must be host:port of the first machine.")


def _command(folder, nproc, nnodes, rdzv_endpoint, program):
    torchrun = []
    if nproc * nnodes > 1:
        torchrun = ["torch.distributed.run", "--nnodes", str(nnodes), "--nproc_per_node", str(nproc)]
        torchrun += ["--rdzv_backend", "c10d", "--rdzv_endpoint", rdzv_endpoint, "--rdzv_id", folder.name]
        if nnodes == 1:  # the ranks meet in a file and on the loopback: --standalone would listen to every network
            torchrun += ["--rdzv_conf", "store_type=file", "--local_addr", LOOPBACK]
        torchrun += ["--max_restarts", "3", "-m"]
    return [sys.executable, "-m", *torchrun, program, str(folder)]


def _run(folder, nproc, nnodes, rdzv_endpoint, program="lib.train", beside=1, quiet=False):
    """Run the training in `folder` on this machine; raise `UserError` with the cause when it fails.

    program: the module that trains; beside: trainings that share the machine's cores; quiet: print no status lines.
    """
    with tempfile.TemporaryDirectory() as scratch:
        failure, lines = Path(scratch, "failure.json"), deque(maxlen=30)
        environment = {
            "OMP_NUM_THREADS": str(max(cores() // (nproc * beside), 1)),
            # Spinning threads hold each other up: beside other work, a step of two took five to six times as long
            "OMP_WAIT_POLICY": "PASSIVE",
            **{name: value for name, value in os.environ.items() if name not in PLACE},  # torchrun sets its own
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # without it torch 2.11 restarts with the addresses of the dead
            FAILURE_FILE: str(failure),
        }
        command = _command(folder, nproc, nnodes, rdzv_endpoint if nnodes > 1 else f"{scratch}/ranks", program)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        stop = partial(end_with_parent, signal.SIGTERM)  # when this process is killed, they save and stop
        process = subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=stop, **pipes)  # noqa: S603
        try:
            for line in process.stdout:
                lines.append(line)
                if line.startswith(folder.name) and not quiet:
                    print(line, end="", flush=True)
                if failure.exists() and read_json(failure)["status"] == FAILED:
                    process.terminate()  # before torchrun starts again
        finally:
            process.terminate()  # which does nothing to a process that has ended
            process.wait()
        if not process.returncode:
            return
        if failure.exists():
            raise UserError(read_json(failure)["cause"])
        how = f"failed:\n{''.join(lines)}"
        if process.returncode == -signal.SIGKILL:
            how = "was killed, perhaps for want of memory; run again, it goes on from there."
        raise UserError(f"Training in {folder} {how}")


def tell_launcher(status, cause):
    """Write why this training ends, for the `launch` that started it, if one did."""
    if path := os.environ.get(FAILURE_FILE):
        with contextlib.suppress(UserError):  # the output still says it
            write_json(path, {"status": status, "cause": cause})


def status_line(name, line, steps):
    """One fixed-width line that a person can follow. line: one of metrics.jsonl."""
    left = int((steps - line["step"]) / max(line["steps_per_second"], 1e-3))
    text = f"{name:<14} step {line['step']:>6}/{steps}  "
    text += f"L1 train {line['l1_batches']:.4f} / held-out {line['l1_heldout']:.4f}"
    if "r_v_sigma" in line:
        r_v = "  –  " if line["r_v_sigma"] is None else f"{line['r_v_sigma']:5.2f}"
        text += f"  D {line.get('discriminator', float('nan')):.3f}"
        text += f"  TPR {line['tpr_train']:.2f} / {line['tpr_heldout']:.2f}  r_v {r_v}"
    return f"{text}  {line['steps_per_second']:6.2f} steps/s  {left // 60:>3}:{left % 60:02} left"


def main():
    """Command line: RUN_FOLDER nproc=8 nnodes=2 rdzv_endpoint=host:port, on every machine but the first."""
    run, *words = sys.argv[1:] or ["--help"]
    if run in ("-h", "--help"):
        print(f"python -m lib.runs.launch RUN_FOLDER nproc=8 nnodes=2 rdzv_endpoint=host:port\n\n{join.__doc__}")
        return
    values = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        nproc, nnodes, rdzv_endpoint = int(values["nproc"]), int(values["nnodes"]), values["rdzv_endpoint"]
    except (KeyError, ValueError) as error:
        raise UserError(f"Missing or wrong: {error}; write nproc=8 nnodes=2 rdzv_endpoint=host:port.") from error
    join(run, nproc, nnodes=nnodes, rdzv_endpoint=rdzv_endpoint)


if __name__ == "__main__":
    command(main)
