"""Separation of a minute of stereo on one core: the original's code path against this project's.

    python -m benchmarks.separate [--channels 8 16 32 64] [--rounds 3 3 2 1] [--seconds 60]

`original` is what Demucs v1 does without random shifts: chunks of 10 s, one at a time, each with its true context,
through `nn.Conv1d` and `nn.LSTM`, the system's allocator. `fp32` and `bf16` are `lib.separate` on `lib.models.cpu`, its
chunks of 10 s likewise but six at once and cross-faded over 1 s: seven of them for a minute. `same chunks` is fp32
without the cross-fade: six, as the original has.

Variants run by turns, each in a fresh process on the same core with one thread; the time is process-CPU time, and a
ratio is the median of the rounds' ratios. Deviations are Euclidean, relative to `lib.separate` on the plain network
(the original's chunks begin elsewhere, which changes the output of a strided network). Weights are random, the input is
noise. Each process separates once before it is timed: a song is longer than a minute. Tables are printed and
written to benchmarks/separate.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bsseval import THREADS
from benchmarks.page import write_section
from benchmarks.train import pinned

VARIANTS = ("original", "fp32", "bf16", "same chunks")
REFERENCE = "plain network"  # once, for the deviations
CHUNK = 441_000


def original(model, mixture):
    """Estimates (sources, channels, time) of a normalised mixture (channels, time), chunk by chunk."""
    import torch

    from lib.demucs import center_trim

    length = mixture.shape[-1]
    out = torch.zeros(model.sources, *mixture.shape)
    for start in range(0, length, CHUNK):
        wanted = min(CHUNK, length - start)
        valid = model.valid_length(CHUNK)
        first = start - (valid - wanted) // 2
        inside = mixture[:, max(first, 0) : first + valid]
        chunk = torch.nn.functional.pad(inside, (max(-first, 0), max(first + valid - length, 0)))
        out[..., start : start + wanted] = center_trim(model(chunk[None])[0], wanted)
    return out


def measure(variant, channels, seconds, out):
    """CPU seconds of one separation in this process, its estimates saved to `out`."""
    import numpy as np
    import torch

    from lib.common.processes import keep_buffers
    from lib.demucs import Demucs
    from lib.models.cpu.prepare import prepare
    from lib.separate import separate

    torch.manual_seed(0)
    model = Demucs(channels=channels).eval()
    mixture = torch.randn(2, seconds * 44_100) * 0.1
    net = model
    if variant in VARIANTS[1:]:
        keep_buffers()
        net = prepare(model, precision="bf16" if variant == "bf16" else "fp32")

    def work(mixture):
        if variant == "original":
            mono = mixture.mean(0)
            mean, std = mono.mean(), mono.std(correction=0)
            return original(net, (mixture - mean) / std) * std + mean
        return separate(net, mixture, overlap=0.0 if variant == "same chunks" else 0.1)

    with torch.no_grad():
        work(mixture)  # the libraries' first use, and the allocator's
        start = time.process_time()
        estimates = work(mixture)
        spent = time.process_time() - start
    np.save(out, estimates.numpy())
    return spent


def run(variant, channels, seconds, out, core):
    """`measure` in a fresh process on `core`."""
    command = [sys.executable, "-m", "benchmarks.separate", "--worker", variant, "--channels", str(channels)]
    command += ["--seconds", str(seconds), "--out", str(out)]
    done = subprocess.run(
        command, env=os.environ | THREADS, check=True, capture_output=True, text=True, preexec_fn=pinned(core)
    )
    return json.loads(done.stdout.splitlines()[-1])


def deviation(found, wanted):
    """Relative Euclidean deviation."""
    import numpy as np

    found, wanted = np.load(found), np.load(wanted)
    return float(np.linalg.norm((found - wanted).ravel()) / np.linalg.norm(wanted.ravel()))


def table(sizes, rounds, length):
    """Lines of a Markdown table, printed as they come."""
    core = max(os.sched_getaffinity(0))
    lines = [
        "| channels | original, CPU s (real-time factor) | fp32 | bf16 | fp32, same chunks | deviation | of bf16 |",
        "|---|---|---|---|---|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    for i, channels in enumerate(sizes):
        seconds = {variant: [] for variant in VARIANTS}
        with tempfile.TemporaryDirectory() as folder:
            files = {variant: Path(folder, f"{variant}.npy") for variant in VARIANTS}
            for _ in range(rounds[min(i, len(rounds) - 1)]):
                for variant, file in files.items():
                    seconds[variant].append(run(variant, channels, length, file, core))
            reference = Path(folder, "reference.npy")
            run(REFERENCE, channels, length, reference, core)
            deviations = " | ".join(f"{deviation(files[v], reference):.0e}" for v in ("fp32", "bf16"))
        first = seconds["original"]
        ratios = " | ".join(
            f"{statistics.median(a / b for a, b in zip(first, seconds[variant], strict=True)):.2f}×"
            for variant in VARIANTS[1:]
        )
        cpu = statistics.median(first)
        lines.append(f"| {channels} | {cpu:.2f} ({cpu / length:.3f}) | {ratios} | {deviations} |")
        print(lines[-1], flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 3, 2, 1], help="for each number of channels")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--worker", choices=(*VARIANTS, REFERENCE), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, *arguments.channels, arguments.seconds, arguments.out)))
        return
    lines = table(arguments.channels, arguments.rounds, arguments.seconds)
    title = f"Separation of {arguments.seconds} s of stereo on one core"
    write_section(Path(__file__).with_suffix(".md"), title, lines)


if __name__ == "__main__":
    main()
