"""The whole report killed at random moments, and on a disk that fills up: run again, it ends as if nothing had been.

Each test compares with the undisturbed report that tests/test_pipeline.py makes, at its smallest size.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import family, gone

from lib.common.provenance import ROOT

BY_WHOM_AND_WHEN = ("made_by", "seconds", "steps_per_second")


def contents(folder, run=None):
    """{file: what it says} of the folder of `run`, without its name, by whom and when it was made."""
    run = run or folder.name
    found = {}
    for path in sorted(folder.rglob("*")):
        name, text = str(path.relative_to(folder)), path.read_bytes() if path.is_file() else b""
        if path.is_dir() or path.parent.name == ".stamps" or path.suffix in (".html", ".pt", ".lock"):
            found[name] = None  # its being there
        elif path.suffix in (".json", ".jsonl"):
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            found[name] = [_timeless(json.loads(line), run) for line in lines]
        elif path.suffix == ".ipynb":
            found[name] = _pictures(json.loads(text))
        else:
            found[name] = text.replace(run.encode(), b"RUN")
    return found


def _timeless(value, run):
    if isinstance(value, dict):
        return {k: _timeless(v, run) for k, v in value.items() if k not in BY_WHOM_AND_WHEN}
    if isinstance(value, list):
        return [_timeless(v, run) for v in value]
    if value != value:  # NaN, museval's mark of a silent second
        return "NaN"
    return value.replace(run, "RUN") if isinstance(value, str) else value


def _pictures(notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def start(folder, words, inside=()):
    command = [*inside, sys.executable, "-m", "lib.pipeline", "quick", *words[1:], f"run={folder.name}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


@pytest.fixture
def scratch(report):
    """A folder for another report, beside the undisturbed one."""
    folder = report[0].with_name(f"{report[0].name}-again")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_report_killed_at_twenty_random_moments_ends_the_same(report, scratch):
    """Two fifths of the kills hit the command itself, the others any process that it has started by then."""
    whole, words = report
    wanted, chance, folder = contents(whole), np.random.RandomState(20), scratch
    left, hit, finished = 20, [], 0
    while True:
        run, began = start(folder, words), time.monotonic()
        if left:
            try:
                run.wait(chance.uniform(3, 30))  # seconds; an undisturbed one takes about 80
            except subprocess.TimeoutExpired:
                members = family(run.pid)
                victim = run.pid if chance.rand() < 0.4 else chance.choice([*members])
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                    os.kill(victim, signal.SIGKILL)
                hit.append(f"{time.monotonic() - began:5.1f} s: {members[victim][:100]}")
                left -= 1
                if victim == run.pid:
                    run.wait()
                    assert gone(members), f"these go on: {family(1)}"
                    continue
        said, _ = run.communicate(timeout=300)
        if run.returncode:  # what it needed was killed, and it says so
            assert "Traceback" not in said, said
            assert "go on from there" in said or "goes on from" in said, said
            continue
        assert contents(folder) == wanted
        finished += 1
        if not left:
            break
        shutil.rmtree(folder)
    print(f"{finished} reports, killed at:", *hit, sep="\n    ")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")
def test_a_report_on_a_disk_that_fills_up_again_and_again_ends_the_same(report, scratch):
    """Its folder is a disk of 100 kB; each time it is full, it grows by a half. Mounted where nobody else sees it."""
    whole, words = report
    scratch.mkdir()
    mount = f"mount -t tmpfs -o size=100k full {scratch} && exec sleep infinity"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", mount]) as holder:  # noqa: S607  where, each system says
        try:
            inside = ["nsenter", "--mount", "--target", str(holder.pid), "env", f"--chdir={ROOT}"]
            while b"tmpfs" not in subprocess.run([*inside, "stat", "-fc", "%T", scratch], capture_output=True).stdout:
                time.sleep(0.05)
            size, full = 100, 0
            while True:
                run = start(scratch, words, inside)
                said, _ = run.communicate(timeout=300)
                if not run.returncode:
                    break
                full += 1
                assert "Traceback" not in said and "Cannot write" in said and "free some space" in said, said
                size = size * 3 // 2
                subprocess.run([*inside, "mount", "-o", f"remount,size={size}k", scratch], check=True)
            print(f"the disk was full {full} times, and held {size} kB at last")
            assert full >= 5, "from 100 kB to the megabytes of a report"
            outside = scratch.with_name(f"{scratch.name}-seen")
            subprocess.run([*inside, "cp", "-a", scratch, outside], check=True)
        finally:
            holder.kill()
    try:
        assert contents(outside, scratch.name) == contents(whole)
    finally:
        shutil.rmtree(outside)
