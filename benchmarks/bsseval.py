"""museval against lib.evaluation.bsseval on one core: CPU seconds and peak memory for four stereo stems.

    python -m benchmarks.bsseval [--seconds 10 30 60 240] [--repeats 3 3 2 1]

Both run by turns, each in a fresh process on the same core with one thread, after a call on a short signal (imports).
Time is the call's process-CPU time, the median of the repeats. Memory is the peak resident size during the call less
the resident size before it, inputs included. The table is printed and written to benchmarks/bsseval.md.
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lib.common.provenance import made_by

SYSTEMS = ("museval", "lib.evaluation.bsseval")
RATE = 44100
THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


def stems(seconds):
    """Four stereo references of coloured noise, and estimates with leakage and white noise, (4, samples, 2) each."""
    import numpy as np
    from scipy.signal import lfilter

    rng = np.random.default_rng(0)
    references = np.empty((4, seconds * RATE, 2))
    for j, reference in enumerate(references):
        noise = rng.standard_normal(reference.shape) @ np.array([[1, 0.6], [0, 0.4]])
        reference[:] = np.round(lfilter([1], [1, 0.2 * j - 0.9], noise, axis=0) * 1000) / 32768
    estimates = 0.9 * references
    estimates += 0.05 * references.sum(0)
    for estimate in estimates:  # without artifacts SAR would be infinite but for rounding
        estimate += 0.001 * rng.standard_normal(estimate.shape)
    return references, estimates


def resident():
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(system, seconds):
    """CPU seconds, peak memory in MiB and the medians over windows of (SDR, ISR, SIR, SAR) of one call."""
    import numpy as np

    if system == "museval":
        from museval import evaluate
    else:
        from lib.evaluation.bsseval import evaluate
    short = stems(1)
    evaluate(short[0][:1, :, :1], short[1][:1, :, :1])
    if system != "museval":  # museval's own peak on a second of stereo would stay in its heap
        evaluate(*short)
    references, estimates = stems(seconds)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before, start = resident(), time.process_time()
    scores = evaluate(references, estimates)
    cpu = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"cpu": cpu, "mib": peak / 2**20, "scores": np.nanmedian(scores, axis=-1).tolist()}


def run(system, seconds, core):
    """`measure` in a fresh process on `core`."""
    command = [sys.executable, "-m", "benchmarks.bsseval", "--worker", system, "--seconds", str(seconds)]
    os.sched_setaffinity(0, {core})
    done = subprocess.run(command, env=os.environ | THREADS, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    """One line that says where and with what the table was made."""
    facts = made_by()
    return (
        f"{facts['machine']}, Python {facts['python']}, torch {facts['torch']}, NumPy {facts['numpy']}, "
        f"commit {facts['commit']}, {datetime.date.today()}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 60, 240])
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 3, 2, 1], help="for each length")
    parser.add_argument("--worker", choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, *arguments.seconds)))
        return
    from lib.common.files import write_bytes

    core = max(os.sched_getaffinity(0))
    lines = [
        "| length | museval, CPU s (peak MiB) | lib.evaluation.bsseval, CPU s (peak MiB) | ratio | "
        "largest difference, dB |",
        "|---|---|---|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    for i, seconds in enumerate(arguments.seconds):
        results = {system: [] for system in SYSTEMS}
        for _ in range(arguments.repeats[min(i, len(arguments.repeats) - 1)]):
            for system in SYSTEMS:
                results[system].append(run(system, seconds, core))
        cpu, mib = (
            [statistics.median(result[key] for result in results[system]) for system in SYSTEMS]
            for key in ("cpu", "mib")
        )
        scores = [sum(results[system][0]["scores"], []) for system in SYSTEMS]
        difference = max(abs(a - b) for a, b in zip(*scores, strict=True))
        lines.append(
            f"| {seconds} s | {cpu[0]:.1f} ({mib[0]:.0f}) | {cpu[1]:.2f} ({mib[1]:.0f}) | {cpu[0] / cpu[1]:.0f}× | "
            f"{difference:.0e} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(["# BSSEval v4 on one core: four stereo stems", "", *lines, "", machine(), ""])
    write_bytes(Path(__file__).with_suffix(".md"), text.encode())
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
