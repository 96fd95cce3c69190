"""Scaling of a training step: a model of compute and all-reduce, checked on this machine and applied to 1 to 64 GPUs.

    python -m benchmarks.scaling [--channels 16] [--rounds 5]

1. Check. It times one rank alone, two ranks under DistributedDataParallel (one thread each), and the bare all-reduce of
   as many bytes, by turns, and compares the model's step for two ranks with the measured one.
2. Prediction. A step of one GPU takes its floating point operations (counted layer by layer) / (peak x share of peak).
   A ring all-reduce moves 2 (n - 1) / n of the gradients' bytes through the slowest link. Without overlap both times
   add up; with overlap, transfers during the backward pass (two thirds of the compute) cost nothing.

The constants below hold the assumptions. The table is printed and written to benchmarks/scaling.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.page import write_section
from lib.data.tracks import SAMPLERATE
from lib.demucs import Demucs
from lib.discriminator import PatchDiscriminator
from lib.losses import reconstruction_loss

CHANNELS, SECONDS, PER_GPU = 100, 10.0, 4  # the paper's model and excerpts; excerpts per GPU and step
PEAK, SHARE = 156e12, 0.12  # an A100's TF32 peak in operations per second, and the share reached (assumed)
FABRICS = {  # bytes per second through the slowest link of the ring (assumed)
    "NVSwitch, or 8 x 200 Gb/s per machine": 160e9,
    "one 200 Gb/s card per machine of 8": 25e9,
    "one 100 Gb/s card per machine of 8": 12.5e9,
}
INSIDE = 8  # GPUs that meet no such card
EPOCH = 40_000  # excerpts: two passes over some 20,000, one per second of MUSDB18's 86 training tracks
PUBLISHED_EPOCH = 947  # seconds (results/reference/training_logs.csv), on V100s
DOLLARS_PER_HOUR, MACHINE_GPUS = 55.74, 16  # a2-megagpu-16g on demand, us-central1, 2021
BACKWARD = 2 / 3  # of a step's compute


def operations(model, *inputs):
    """Floating point operations of forward and backward for one excerpt: 2 per weight and position, three times."""
    count = 0

    def hook(layer, inputs, output):
        nonlocal count
        positions = inputs[0] if isinstance(layer, nn.ConvTranspose1d) else output
        if isinstance(layer, nn.LSTM):
            length, weights = inputs[0].shape[0], [p for name, p in layer.named_parameters() if "weight" in name]
        else:
            weights = [layer.weight]
            length = positions.shape[0 if isinstance(layer, nn.Linear) else -1]
        count += 2 * length * sum(weight.numel() for weight in weights)

    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d | nn.LSTM | nn.Linear):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        model(*inputs)
    return 3 * count


def predict(compute, size, ranks, bandwidth):
    """(seconds of a step without overlap, with overlap) on `ranks` ranks; size: bytes of the gradients."""
    reduce = 2 * (ranks - 1) / ranks * size / bandwidth
    return compute + reduce, compute + max(reduce - BACKWARD * compute, 0.0)


def worker(channels, rounds):
    """Times of one rank under torchrun: {"step": [...], "reduce": [...], "bytes": int}."""
    torch.set_num_threads(1)
    if (world := int(os.environ["WORLD_SIZE"])) > 1:
        distributed.init_process_group("gloo")
    torch.manual_seed(0)
    model = Demucs(channels=channels)
    run = DistributedDataParallel(model, gradient_as_bucket_view=True) if world > 1 else model
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    mixture = torch.randn(PER_GPU, 2, model.valid_length(SAMPLERATE))
    target = torch.randn_like(run(mixture).detach())
    gradients = torch.zeros(sum(p.numel() for p in model.parameters()))
    times = {"step": [], "reduce": [], "bytes": gradients.numel() * 4}
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        optimizer.zero_grad()
        reconstruction_loss(run(mixture), target).backward()
        optimizer.step()
        middle = time.perf_counter()
        if world > 1:
            distributed.all_reduce(gradients)
        times["step"].append(middle - begun)
        times["reduce"].append(time.perf_counter() - middle)
    if world > 1:
        distributed.destroy_process_group()
    if not int(os.environ["RANK"]):
        print(json.dumps(times), flush=True)


def measure(channels, rounds, ranks):
    """`worker` on `ranks` ranks; the first round is not counted."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "-m"]
    command += ["benchmarks.scaling", "--worker", "--channels", str(channels), "--rounds", str(rounds)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    times = json.loads(done.stdout.splitlines()[-1])
    return {name: times[name][1:] if name != "bytes" else times[name] for name in times}


def check(channels, rounds):
    """Lines of the comparison of the model with two ranks here."""
    alone, together = {"step": []}, {"step": [], "reduce": []}
    for _ in range(3):  # by turns
        for found, ranks in ((alone, 1), (together, 2)):
            times = measure(channels, rounds, ranks)
            for name in found:
                found[name] += times[name]
    compute, step, reduce = (
        statistics.median(values) for values in (alone["step"], together["step"], together["reduce"])
    )
    bound, free = compute + reduce, compute + max(reduce - BACKWARD * compute, 0.0)
    yield f"Demucs with {channels} channels, {PER_GPU} one-second excerpts per rank, two cores, gloo; milliseconds:"
    yield ""
    yield "| one rank | all-reduce | two ranks, predicted with to without overlap | two ranks, measured | throughput |"
    yield "|---|---|---|---|---|"
    yield (
        f"| {1e3 * compute:.0f} | {1e3 * reduce:.0f} | {1e3 * free:.0f} to {1e3 * bound:.0f} | {1e3 * step:.0f} | "
        f"{2 * compute / step:.2f}x |"
    )


def prediction():
    """Lines of the predicted tables."""
    with torch.device("meta"):
        model, patch = Demucs(channels=CHANNELS, rescale=0), PatchDiscriminator()
        mixture = torch.empty(1, 2, model.valid_length(round(SECONDS * SAMPLERATE)))
        stems = torch.empty(1, 4, *mixture.shape[1:])
    generator, judge = operations(model, mixture), operations(patch, mixture, stems)
    work = PER_GPU * generator
    size = 4 * sum(p.numel() for p in model.parameters())
    compute = work / (PEAK * SHARE)
    yield (
        f"**Not measured.** {CHANNELS} channels, {PER_GPU} excerpts of {SECONDS:.0f} s per GPU: "
        f"{work / 1e12:.2f} TFLOP per step, {compute * 1e3:.0f} ms at {SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s (A100, "
        f"TF32); {size / 1e9:.2f} GB of gradients. Efficiency without and with overlap:"
    )
    yield ""
    counts = (1, 2, 4, 8, 16, 32, 64)
    yield "| slowest link | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in counts) + " |"
    yield "|---|" + "---|" * len(counts)
    for name, bandwidth in FABRICS.items():
        links = [bandwidth if n > INSIDE else max(FABRICS.values()) for n in counts]
        cells = [[compute / step for step in predict(compute, size, *pair)] for pair in zip(counts, links, strict=True)]
        yield f"| {name} | " + " | ".join(f"{slow:.0%} – {fast:.0%}" for slow, fast in cells) + " |"
    yield ""
    steps = [predict(compute, size, MACHINE_GPUS, bandwidth) for bandwidth in FABRICS.values()][0]
    seconds = [EPOCH / (PER_GPU * MACHINE_GPUS) * step for step in steps]
    dollars = [s / 3600 * DOLLARS_PER_HOUR for s in seconds]
    yield (
        f"On one machine with {MACHINE_GPUS} A100s (the first report's, a2-megagpu-16g at ${DOLLARS_PER_HOUR} an hour) "
        f"an epoch of {EPOCH:,} excerpts is predicted to take {seconds[1]:.0f} to {seconds[0]:.0f} s and to cost "
        f"${dollars[1]:.2f} to ${dollars[0]:.2f}; the published runs took {PUBLISHED_EPOCH} s on V100s. A "
        f"patch discriminator judges real and generated stems for its own step and generated ones for the "
        f"generator's: {3 * judge / generator:.0%} more operations."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=16, help="of the model that is timed here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.channels, arguments.rounds)
        return
    lines = []
    for part in (check(arguments.channels, arguments.rounds), ["", "## Predicted for GPUs", ""], prediction()):
        for line in part:
            print(line, flush=True)
            lines.append(line)
    write_section(Path(__file__).with_suffix(".md"), "Scaling: a model, checked on two ranks", lines)


if __name__ == "__main__":
    main()
