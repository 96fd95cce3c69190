"""The training step against an original-equivalent path on one core, and two ranks on two cores against one on one.

    python -m benchmarks.train [--channels 8 16 32 64] [--rounds 3 3 3 2]

A step is augmentation, forward, backward and optimizer for L1, batch 4 of 99,668 samples (2 s and their context), on
noise. `original` is what Demucs v1 does: gathers for shift, channel swap and remix, `nn.Conv1d` and `nn.LSTM`, Adam
parameter by parameter, the system's allocator; its excerpts lie in memory already. `fp32` and `bf16` are this
project's: excerpts read from memory maps in one pass, `lib.models.cpu`, fused Adam. `demucs 2.0.3` is `original` with
the network of that package (`resample=False`: the same), a column only where `import demucs` finds it.

Variants run by turns, each in a fresh process on the same core with one thread; the time is process-CPU time per
step, the median of a process's steps, and a ratio is the median of the rounds' ratios. The ranks train through
`lib.train`, the time is the wall's. Tables are printed and written to benchmarks/train.md.
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

ROOT = Path(__file__).parents[1]
VARIANTS = ("original", "fp32", "bf16", "demucs 2.0.3")
BATCH, SAMPLES, SHIFT = 4, 99_668, 44_100
STEPS = {8: 10, 16: 8, 32: 4, 64: 2}  # counted in a process, after one that is not


def make_tracks(folder, count=4, seconds=12):
    """An index of decoded tracks of noise in `folder`, as lib.data.musdb writes them: `count` to train, one valid."""
    import numpy as np

    from lib.data.tracks import FULL_SCALE, Track, write_index

    random, tracks = np.random.RandomState(0), []
    for k in range(count + 1):
        stems = random.randint(-8000, 8000, size=(4, 2, seconds * 44_100)).astype(np.int16)
        path = Path(folder, f"{k}.npy")
        np.save(path, np.concatenate([stems.sum(0, dtype=np.int16)[None], stems]))
        tracks.append(Track(f"Noise {k}", str(path), stems.shape[-1], 0.0, 16_000 / 3**0.5 / FULL_SCALE, "noise"))
    write_index(Path(folder, "data.json"), {"train": tracks[:count], "valid": tracks[count:], "test": []})
    return tracks


def original_augmentation(stems):
    """(batch, sources, channels, time + shift) -> (…, time): shift, channel swap, sign and remix, one gather each."""
    import torch

    batch, sources, channels, longer = stems.shape
    time_ = longer - SHIFT
    starts = torch.randint(SHIFT, (batch, sources, 1, 1)).expand(-1, -1, channels, -1)
    stems = stems.gather(3, starts + torch.arange(time_))
    left = torch.randint(2, (batch, sources, 1, 1)).expand(-1, -1, -1, time_)
    stems = stems.gather(2, torch.cat([left, 1 - left], dim=2))
    stems = stems * (2 * torch.randint(2, (batch, sources, 1, 1)).float() - 1)
    order = torch.rand(1, batch, sources, 1, 1).argsort(1).expand(-1, -1, -1, channels, time_)
    return stems[None].gather(1, order)[0]


def original_step(model):
    """A function that takes a step like the original's."""
    import torch

    from lib.demucs import center_trim

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, foreach=False, fused=False)
    excerpts = torch.randn(BATCH, 4, 2, SAMPLES + SHIFT)

    def step(_):
        stems = original_augmentation(excerpts)
        estimates = model(stems.sum(1))
        loss = torch.nn.functional.l1_loss(estimates, center_trim(stems, estimates))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(model, precision, folder):
    """A function that takes a step like `lib.train`'s."""
    import torch

    from lib.common.processes import keep_buffers
    from lib.data.batches import Batches
    from lib.data.tracks import Excerpts
    from lib.demucs import center_trim
    from lib.losses import reconstruction_loss
    from lib.models.cpu.prepare import prepare

    keep_buffers()
    net = prepare(model, precision=precision)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    excerpts = Excerpts(make_tracks(folder), SAMPLES + SHIFT, 44_100)
    batches = Batches(excerpts, batch=BATCH, shift=SHIFT, remix_group=BATCH, seed=[0])

    def step(number):
        stems = batches(number)
        estimates = net(stems.sum(1))
        loss = reconstruction_loss(estimates, center_trim(stems, estimates))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def package_model(model):
    """The network of the package `demucs` with the weights of `model`; its outputs must be the same.

    Its second version divides the mixture by 1 + 1e-5 also where it does not normalise.
    """
    import torch
    from demucs.model import Demucs

    other = Demucs(["drums", "bass", "other", "vocals"], channels=model.arguments["channels"], resample=False)
    other.load_state_dict(model.state_dict())
    mixture = torch.randn(1, 2, model.valid_length(1000))
    with torch.no_grad():
        torch.testing.assert_close(other(mixture), model(mixture / (1e-5 + 1)), rtol=0, atol=0)
    return other


def measure(variant, channels):
    """CPU seconds of one step in this process: the median."""
    import torch

    from lib.demucs import Demucs

    torch.manual_seed(0)
    model = Demucs(channels=channels)
    with tempfile.TemporaryDirectory() as folder:
        if variant in ("fp32", "bf16"):
            step = our_step(model, variant, folder)
        else:
            step = original_step(model if variant == "original" else package_model(model))
        step(0)
        times = []
        for number in range(STEPS.get(channels, 2)):
            start = time.process_time()
            step(1 + number)
            times.append(time.process_time() - start)
    return statistics.median(times)


def run(variant, channels, core):
    """`measure` in a fresh process on `core`."""
    command = [sys.executable, "-m", "benchmarks.train", "--worker", variant, "--channels", str(channels)]
    done = subprocess.run(
        command, env=os.environ | THREADS, check=True, capture_output=True, text=True, preexec_fn=pinned(core)
    )
    return json.loads(done.stdout.splitlines()[-1])


def pinned(*cores):
    """A function that pins a child process to these cores."""
    return lambda: os.sched_setaffinity(0, cores)


def installed():
    """The variants that can be run here."""
    try:
        import demucs.model  # noqa: F401
    except ImportError:
        return VARIANTS[:-1]
    return VARIANTS


def table_of_steps(sizes, rounds):
    """Lines of a Markdown table, printed as they come."""
    variants, core = installed(), max(os.sched_getaffinity(0))
    lines = [
        f"| channels | original, CPU ms | {' | '.join(f'{v}, ratio' for v in variants[1:])} |",
        "|---" * (len(variants) + 1) + "|",
    ]
    print(*lines, sep="\n", flush=True)
    for i, channels in enumerate(sizes):
        seconds = {variant: [] for variant in variants}
        for _ in range(rounds[min(i, len(rounds) - 1)]):
            for variant in variants:
                seconds[variant].append(run(variant, channels, core))
        first = seconds["original"]
        ratios = [statistics.median(a / b for a, b in zip(first, seconds[v], strict=True)) for v in variants[1:]]
        cells = " | ".join(f"{ratio:.2f}×" for ratio in ratios)
        lines.append(f"| {channels} | {1000 * statistics.median(first):.0f} | {cells} |")
        print(lines[-1], flush=True)
    return lines


def train_ranks(ranks, folder):
    """Excerpts per second of `ranks` processes, one core and four excerpts each, by the log of `lib.train`."""
    steps, channels = 12, 16
    pairs = {
        "data": Path(folder, "data.json"), "steps": 2 * steps, "evaluate_every": steps, "batch": BATCH * ranks,
        "channels": channels, "seconds": 2.0, "evaluation_excerpts": 1,
    }  # fmt: skip
    out = Path(folder, f"run-{ranks}-{time.monotonic_ns()}")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "-m"]
    command += ["lib.train", str(out), *(f"{name}={value}" for name, value in pairs.items())]
    cores = sorted(os.sched_getaffinity(0))[-ranks:]
    subprocess.run(
        command, env=os.environ | THREADS, cwd=ROOT, check=True, capture_output=True, text=True,
        preexec_fn=pinned(*cores),
    )  # fmt: skip
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])  # the first half warms up
    return last["steps_per_second"] * BATCH * ranks


def table_of_ranks(rounds=3):
    """Lines of text about one and two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder, count=8)
        results = [[train_ranks(ranks, folder) for ranks in (1, 2)] for _ in range(rounds)]
    one, two = (statistics.median(column) for column in zip(*results, strict=True))
    ratio = statistics.median(b / a for a, b in results)
    return [
        "| ranks, one core and 4 excerpts each | excerpts per second | ratio |",
        "|---|---|---|",
        f"| 1 | {one:.1f} | |",
        f"| 2 (gloo) | {two:.1f} | {ratio:.2f}× |",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rounds", type=int, nargs="+", default=[3, 3, 3, 2], help="for each number of channels")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, *arguments.channels)))
        return
    steps = table_of_steps(arguments.channels, arguments.rounds)
    ranks = table_of_ranks() if len(os.sched_getaffinity(0)) > 1 else []
    print("", *ranks, sep="\n")
    text = [*steps, ""]
    text += ["Two ranks, 16 channels, through `lib.train`, wall time:", "", *ranks, ""] if ranks else []
    title = "The training step: batch 4 of 99,668 samples, L1, one core"
    write_section(Path(__file__).with_suffix(".md"), title, text[:-1])


if __name__ == "__main__":
    main()
