"""The queue of a study's jobs."""

import subprocess
import sys
import threading

from lib.common.provenance import ROOT
from lib.studies.queue import Job, run


def test_jobs_run_in_order_after_what_they_need_and_beside_each_other(capsys):
    done, together = [], threading.Barrier(2, timeout=10)

    def work(name, meet=False):
        if meet:
            together.wait()  # two at a time, or this raises
        done.append(name)

    def fail():
        raise ValueError("broken")

    jobs = [
        Job("a", lambda: work("a", True)), Job("b", lambda: work("b", True)), Job("c", lambda: work("c"), ("a", "b")),
        Job("d", fail, ("c",)), Job("e", lambda: work("e"), ("d",)), Job("f", lambda: work("f"), ("c",)),
    ]  # fmt: skip
    errors = run(jobs, workers=2)
    assert set(done[:2]) == {"a", "b"} and done[2:] == ["c", "f"], "e needs what failed"
    assert [*errors] == ["d"] and str(errors["d"]) == "broken"
    assert "d failed: broken" in capsys.readouterr().out


def test_after_its_seconds_the_process_ends():
    program = "import time; from lib.studies.queue import *; run([Job('a', lambda: time.sleep(60))], 1, 0.5)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=40)
    assert done.returncode == 75 and "the same command goes on" in done.stdout
