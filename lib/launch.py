"""Start training processes, and keep the folders of runs apart."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lib.data import read_index
from lib.demucs import load_weights
from lib.errors import UserError
from lib.files import read_json, write_json
from lib.provenance import ROOT, made_by


def claim(config, folder):
    """Make `folder` the run of `config`; True if it is finished already.

    A folder that holds a run with other parameters is set aside as `folder~digest`, with the runs that branched from
    it, and comes back when those parameters are asked for again: changing a parameter never destroys a result, and no
    table mixes branches of different starts.
    """
    folder = Path(folder)
    config = dataclasses.replace(config, data_digest=read_index(ROOT / config.data)[1])
    if config.start_from:
        weights = ROOT / config.start_from / "model.safetensors"
        load_weights(weights)  # refuses a damaged or missing one
        config = dataclasses.replace(config, start_digest=hashlib.sha256(weights.read_bytes()).hexdigest()[:16])
    wanted = dataclasses.asdict(config)
    if (folder / "config.json").exists():
        present = read_json(folder / "config.json").get("config")
        if present != wanted:
            for branch in _branches(folder):
                _set_aside(branch)
            if (folder / "state.pt").exists():
                _set_aside(folder)
            else:  # a log without its weights, as in a fresh clone: nothing to keep
                (folder / "config.json").unlink()
    if not folder.exists() and _aside(folder, wanted).exists():
        _aside(folder, wanted).rename(folder)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", {"config": wanted, "made_by": made_by()})
    note = read_json(folder / "config.json")
    return config, bool(note.get("finished")) and (folder / "model.safetensors").exists()


def _branches(folder):
    """The runs beside `folder` that start from it, without those already set aside."""
    found = []
    for note in folder.parent.glob("*/config.json"):
        start = (read_json(note).get("config") or {}).get("start_from")
        if start and "~" not in note.parent.name and (ROOT / start).resolve() == folder.resolve():
            found.append(note.parent)
    return found


def _set_aside(folder):
    place = _aside(folder, read_json(folder / "config.json").get("config"))
    if place.exists():  # the same parameters and the same start, so the same run
        shutil.rmtree(place)
    folder.rename(place)


def _aside(folder, config):
    return folder.with_name(f"{folder.name}~{hashlib.sha256(json.dumps(config).encode()).hexdigest()[:8]}")


def launch(config, folder, nproc=1):
    """Train `config` in `folder` with `nproc` processes, more than one under torch.distributed.run; show their lines.

    A finished run is not repeated, an interrupted one resumes. Raises `UserError` with the cause when training fails.
    """
    if nproc < 1:
        raise UserError(f"nproc = {nproc} must be at least 1, the number of processes.")
    _, finished = claim(config, folder)
    if finished:
        print(f"{Path(folder).name}: finished before, not repeated; its log:")
        for line in Path(folder, "metrics.jsonl").read_text().splitlines():
            print(status_line(Path(folder).name, json.loads(line), config.steps))
        return
    command = [sys.executable, "-m"]
    if nproc > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(nproc), "-m"]
    command += ["lib.train", str(Path(folder).resolve())]
    threads = max((os.cpu_count() or 1) // nproc, 1)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith(Path(folder).name):
                print(line, end="", flush=True)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
    if process.returncode:
        causes = [line for line in lines if "UserError: " in line]
        raise UserError(
            causes[0].split("UserError: ")[1].strip()
            if causes
            else f"Training in {folder} failed:\n{''.join(lines[-30:])}"
        )


def status_line(name, line, steps):
    """One fixed-width line that a person can follow."""
    left = (steps - line["step"]) / max(line["steps_per_second"], 1e-3)
    text = f"{name:<14} step {line['step']:>6}/{steps}  L1 {line['l1_train']:.4f}  held-out {line['l1_valid']:.4f}"
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
    """Names of the finished arms (<arm>-<seed>) in a run's folder, without the common start and what was set aside."""
    finished = [
        path.parent.name
        for path in Path(run).glob("*/model.safetensors")
        if read_json(path.with_name("config.json")).get("finished")
    ]
    arms = sorted(name for name in finished if "~" not in name and not name.startswith("pretrain"))
    if not arms:
        raise UserError(f"{run} holds no trained arm; run the notebook 02-train first.")
    return arms
