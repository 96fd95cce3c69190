"""One large GPU: whether it computes what the CPU does, how fast it trains, separates, and where the time goes.

    python -m benchmarks.gpu [--out benchmarks] [--seconds 520] [--tiny]

Parts, in this order: the largest deviations of outputs and gradients of every network, and of 20 training steps of each
arm, from the CPU's, in fp32, TF32 and bf16; excerpts per second, share of the peak and peak memory of a training step
(`lib.train`, on one batch that stays on the device, excerpts of 10 s); separation of a song of four minutes and its
scores; the kernels that take most of an adversarial step. Each result is written to OUT/gpu.json as it comes, with its
commit, and OUT/gpu.md made of them all. When `--seconds` are used up, no further part begins, and the same command goes
on later; results of another machine, torch or size are dropped first. To measure anew, remove gpu.json.

It needs torch, numpy, scipy, auraloss, safetensors, soundfile, not musdb, museval or ffmpeg. `--tiny` runs all of it in
seconds at sizes that say nothing, on a CPU too, so that nothing is tried on a GPU for the first time.
"""

import argparse
import collections
import copy
import gc
import re
import statistics
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.bsseval import stems
from benchmarks.scaling import EPOCH, PUBLISHED_EPOCH, operations
from benchmarks.train import make_tracks
from lib.common.files import read_json, write_bytes, write_json
from lib.common.provenance import ROOT, made_by
from lib.config import Config
from lib.data.tracks import SAMPLERATE
from lib.demucs import Demucs
from lib.discriminator import PatchDiscriminator, build
from lib.models.cpu.prepare import prepare
from lib.runs.distributed import Ranks
from lib.separate import separate
from lib.train import Trainer

# Largest deviations that are right, of outputs and of gradients. A gradient is less exact than its network's outputs,
# since a leaky rectifier's slope jumps: on a CPU, too, some networks' gradients in fp32 deviate by 6e-4.
PRECISIONS = {"fp32": (1e-5, 2e-3), "TF32": (1e-2, 5e-2), "bf16": (0.1, 0.1)}
NETWORKS = ("generator", "patch", "stft", "msstft", "mpd")
GAN = dict(adversarial_weight=0.01, discriminator="patch")
ARMS = {
    "L1": {},
    "L1 + GAN": GAN,
    "L1 + GAN + cures": GAN | dict(instance_noise=0.2, r1=0.3, augment_p=0.3),
    "spectral + GAN": dict(spectral_share=0.5, adversarial_share=0.4, feature_matching_share=0.5, discriminator="stft"),
}
# Operations per second without sparsity, as the vendor gives them, of (TF32, bf16).
PEAKS = {"H200": (494e12, 989e12), "H100": (494e12, 989e12), "A100": (156e12, 312e12)}
FULL = dict(
    network=dict(channels=32, seconds=2.0, width=16), arms=dict(channels=12, depth=5, width=16), steps=20,
    channels=(100, 64, 32), batches=(64, 16, 4), excerpt=10.0, width=64, compiled=(100, 16), song=240, counted=5,
    tracks=40,
)  # fmt: skip
TINY = dict(
    network=dict(channels=4, seconds=0.2, width=4), arms=dict(channels=4, depth=3, width=4), steps=2,
    channels=(4,), batches=(4,), excerpt=0.3, width=4, compiled=None, song=1, counted=2,
    tracks=4,
)  # fmt: skip


def device():
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def allow_tf32(precision):
    """Let float32 products be TF32, or not; `lib.models.cpu.prepare` allows it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"


def parts(size):
    """{name of a part: function that returns its result}."""
    found = {
        f"network {name} {kind}": partial(deviations, name, kind, size) for name in NETWORKS for kind in PRECISIONS
    }
    found |= {f"steps {arm}": partial(step_deviations, arm, size) for arm in ARMS}
    found |= {f"song {channels}": partial(song, channels, size["song"]) for channels in size["channels"]}
    found["scores"] = partial(scores, size["song"])
    found["kernels"] = partial(kernels, size)
    for batch, channels, kind, arm in product(size["batches"], size["channels"], ("TF32", "bf16"), ("L1", "L1 + GAN")):
        found[f"step {channels} {batch} {arm} {kind}"] = partial(throughput, channels, batch, arm, kind, size)
    if size["compiled"]:  # last: a compilation takes a minute or more
        for arm in ("L1", "L1 + GAN"):
            name = "step {} {} {} compiled".format(*size["compiled"], arm)
            found[name] = partial(throughput, *size["compiled"], arm, "bf16", size, compile=True)
    return found


def deviations(name, precision, size):
    """Relative deviations of a network from float64 on the CPU: [outputs, all gradients together, the worst of one]."""
    torch.manual_seed(0)
    channels, seconds, width = size["network"].values()
    if name == "generator":
        network = Demucs(channels=channels)
        samples = network.valid_length(round(seconds * SAMPLERATE))
        inputs = [torch.randn(2, 2, samples)]
    else:
        network = build(name, width=width)
        samples = round(seconds * SAMPLERATE)
        inputs = [torch.randn(2, 2, samples), torch.randn(2, 4, 2, samples)]
    exact = copy.deepcopy(network).double()
    network = network.to(device())
    run = prepare(network, precision="bf16" if precision == "bf16" else "fp32") if name == "generator" else network
    allow_tf32(precision)
    cast = torch.autocast(device().type, torch.bfloat16, enabled=precision == "bf16" and name != "generator")

    def outputs(run, inputs):
        with cast:
            found = run(*inputs)
        return [found] if name == "generator" else [logits for _, logits in found.values()]

    def gradients(network, found):
        generator = torch.Generator().manual_seed(1)
        by = [torch.randn(y.shape, generator=generator).to(y) for y in found]
        return torch.autograd.grad(found, list(network.parameters()), by)

    wanted, found = outputs(exact, [x.double() for x in inputs]), outputs(run, [x.to(device()) for x in inputs])
    pairs = [*zip(gradients(network, found), gradients(exact, wanted), strict=True)]
    return [_relative(found, wanted), _relative(*zip(*pairs, strict=True)), max(_relative([a], [b]) for a, b in pairs)]


def _relative(found, wanted):
    found, wanted = (torch.cat([x.detach().double().cpu().flatten() for x in one]) for one in (found, wanted))
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def _trainer(folder, place, arm, size, **changes):
    channels, depth, width = size["arms"].values()
    values = dict(
        data=str(Path(folder, "data.json")), batch=4, channels=channels, depth=depth, seconds=1.0, shift_seconds=0.2,
        stride_seconds=1.0, discriminator_width=width, lr=3e-4, steps=10**6,
    )  # fmt: skip
    ranks = Ranks()
    ranks.device = torch.device(place)
    return Trainer(Config(**(values | ARMS[arm] | changes)), Path(folder, "run"), ranks)


def step_deviations(arm, size):
    """{precision: [largest relative deviation of the L1 loss from the CPU's in the first 5 steps, in all]}."""
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder, count=2, seconds=4)

        def losses(place, precision):
            trainer = _trainer(folder, place, arm, size, precision="bf16" if precision == "bf16" else "fp32")
            allow_tf32(precision)
            return np.array([float(trainer.train_step()["l1_batches"]) for _ in range(size["steps"])])

        wanted, found = losses("cpu", "fp32"), {}
        for precision in PRECISIONS:
            errors = abs(losses(device(), precision) / wanted - 1)
            found[precision] = [float(errors[:5].max()), float(errors.max())]
    return found


def throughput(channels, batch, arm, precision, size, compile=False):
    """{"seconds" of a step: the median, "operations" of it, "bytes" of memory at its peak}."""
    changes = dict(
        channels=channels, depth=6 if channels > 4 else 3, batch=batch, seconds=size["excerpt"], stride_seconds=0.5,
        shift_seconds=0.0, discriminator_width=size["width"], precision="bf16" if precision == "bf16" else "fp32",
        compile=compile,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder, count=2, seconds=size["tracks"])
        trainer = _trainer(folder, device(), arm, size, **changes)
        one = trainer.batches(0).to(device())
        trainer.batches = lambda step: one
        _wait(), trainer.train_step(), trainer.train_step()
        times = []
        for _ in range(size["counted"]):
            _wait()
            began = time.perf_counter()
            trainer.train_step()
            _wait()
            times.append(time.perf_counter() - began)
        peak = torch.cuda.max_memory_allocated() if device().type == "cuda" else None
        samples, depth = one.shape[-1], changes["depth"]
        with torch.device("meta"):
            mixture, both = torch.empty(1, 2, samples), torch.empty(1, 4, 2, samples)
            work = operations(Demucs(channels=channels, depth=depth, rescale=0), mixture)
            if arm != "L1":  # two sets for its own step, one for the generator's, without gradients of its weights
                work += (2 + 2 / 3) * operations(PatchDiscriminator(size["width"]), mixture, both)
    return {"seconds": statistics.median(times), "operations": batch * work, "bytes": peak}


def _wait():
    if device().type == "cuda":
        torch.cuda.synchronize()


def song(channels, seconds):
    """Seconds that the separation of a song takes, the second time."""
    torch.manual_seed(0)
    model = prepare(Demucs(channels=channels).to(device()))
    mixture = 0.1 * np.random.default_rng(0).standard_normal((2, seconds * SAMPLERATE)).astype(np.float32)
    for _ in range(2):
        began = time.perf_counter()
        separate(model, mixture)
        took = time.perf_counter() - began
    return took


def scores(seconds):
    """Seconds that BSSEval of a song's four stems takes, on the CPU."""
    from lib.evaluation.bsseval import evaluate

    began = time.perf_counter()
    evaluate(*stems(seconds))
    return time.perf_counter() - began


def kernels(size):
    """[[kernel, share of the device's time, calls]] of an adversarial step, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device().type == "cuda"
    channels = size["channels"][len(size["channels"]) // 2]
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder, count=2, seconds=size["tracks"])
        changes = dict(channels=channels, batch=size["batches"][-1], discriminator_width=size["width"])
        trainer = _trainer(folder, device(), "L1 + GAN", size, **changes)
        for _ in range(2):
            trainer.train_step()
        with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as found:
            trainer.train_step()
            _wait()
    events = [event for event in found.key_averages() if str(event.device_type).endswith("CUDA") == on_gpu]
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    total = sum(getattr(event, name) for event in events)
    events = sorted(events, key=lambda event: -getattr(event, name))[:8]
    return [[event.key, getattr(event, name) / total, event.count] for event in events]


# The page


def lines(done, size, place):
    """Lines of Markdown of the results {part: result} of the machine `place`; a part that is missing has a dash."""
    wanted = parts(size)
    yield from ("# One GPU", "")
    if missing := len(wanted.keys() - done.keys()):
        yield from (f"Its time ended before {missing} of {len(wanted)} parts were run; they have a dash or no row.", "")
    yield from ("## The same as on the CPU", "")
    yield "Relative deviations (Euclidean norm) of a network's outputs / its gradient / the worst of one parameter from"
    bounds = ", ".join(f"{outputs:g} / {gradient:g} ({kind})" for kind, (outputs, gradient) in PRECISIONS.items())
    yield f"those in float64 on the CPU. Bold: outputs / gradient deviate by more than {bounds}."
    head = [f"| {' | '.join(PRECISIONS)} |", f"|---{'|---' * len(PRECISIONS)}|"]
    yield from ("", f"| network {head[0]}", head[1])
    for name in NETWORKS:
        yield _row(name, *(_values(done.get(f"network {name} {kind}"), bounds) for kind, bounds in PRECISIONS.items()))
    yield from ("", f"Of the L1 loss from the CPU's, in the first 5 / in all {size['steps']} training steps:", "")
    yield from (f"| arm {head[0]}", head[1])
    for arm in ARMS:
        found = done.get(f"steps {arm}", {})
        yield _row(arm, *(_values(found.get(kind), (bound, bound)) for kind, (bound, _) in PRECISIONS.items()))
    yield from ("", f"## A training step: excerpts of {size['excerpt']:g} s", "")
    yield "| channels | batch | arm | precision | excerpts/s | share of peak | memory, GB |"
    yield "|--:|--:|---|---|--:|--:|--:|"
    for name in [name for name in wanted if name.startswith("step ") and name in done]:
        _, channels, batch, *arm, precision = name.split()
        yield _row(channels, batch, " ".join(arm), precision, *_speed(done[name], int(batch), precision, place))
    yield from _epoch(done)
    yield from ("", f"## A song of {size['song'] / 60:.2g} minutes", "", "| what | seconds |", "|---|--:|")
    for channels in size["channels"]:
        yield _row(f"separation, {channels} channels", _number(done.get(f"song {channels}"), ".2f"))
    yield _row("BSSEval v4 of four stems, on the CPU", _number(done.get("scores"), ".2f"))
    yield from ("", "## Where an adversarial step's time goes", "", "| kernel | share | calls |", "|---|--:|--:|")
    for name, share, calls in done.get("kernels", []):
        yield _row(f"`{name[:80]}`".replace("|", "/"), f"{share:.0%}", calls)


def _epoch(done):
    found = [
        (int(name.split()[2]) / result["seconds"], *name.split()[2::2])
        for name, result in done.items()
        if re.fullmatch(r"step 100 \d+ L1 (TF32|bf16)", name) and "seconds" in result
    ]
    if found:
        speed, batch, precision = max(found)
        yield ""
        yield (
            f"With 100 channels, L1 and {precision}, batch {batch}, an epoch of {EPOCH:,} excerpts takes "
            f"{EPOCH / speed:.0f} s here, loading not counted; the published runs took {PUBLISHED_EPOCH} s on V100s."
        )


def _speed(found, batch, precision, place):
    if "seconds" not in found:
        return found["failed"], "–", "–"
    peaks = [pair for name, pair in PEAKS.items() if name in place]
    rate = found["operations"] / found["seconds"]
    share = f"{rate / peaks[0][precision != 'TF32']:.0%}" if peaks else "–"
    memory = "–" if found["bytes"] is None else f"{found['bytes'] / 1e9:.1f}"
    return f"{batch / found['seconds']:.1f}", share, memory


def _row(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def _values(found, bounds):
    if not found or isinstance(found, dict):
        return "–"
    text = " / ".join(f"{value:.0e}" for value in found)
    return f"**{text}**" if any(value > bound for value, bound in zip(found, bounds, strict=False)) else text


def _number(value, form):
    return format(value, form) if isinstance(value, float) else "–"


def main(words=None):
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of gpu.json and gpu.md")
    parser.add_argument("--seconds", type=float, default=520.0, help="begin no further part after so many seconds")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the program")
    options = parser.parse_args(words)
    began, size = time.monotonic(), TINY if options.tiny else FULL
    here = made_by()
    facts, commit = {name: here[name] for name in ("machine", "torch")} | {"tiny": options.tiny}, here["commit"]
    path = options.out / "gpu.json"
    found = read_json(path) if path.exists() else {}
    done, commits = (found["done"], found["commits"]) if found.get("made_by") == facts else ({}, {})
    waiting = {name: part for name, part in parts(size).items() if name not in done}
    for number, (name, part) in enumerate(waiting.items()):
        if number and time.monotonic() - began > options.seconds:
            print(f"The time is used up; the same command goes on with {name!r}.")
            break
        if device().type == "cuda":
            gc.collect()  # a part that ran out of memory leaves its networks in cycles
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            done[name] = part()
        except torch.OutOfMemoryError:
            done[name] = {"failed": "out of memory"}
        commits[name] = commit
        print(f"{time.monotonic() - began:6.1f} s  {name}: {done[name]}", flush=True)
        write_json(path, {"made_by": facts, "commits": commits, "done": done})
    counts = collections.Counter(commits.values())
    where = f"{facts['machine']}, torch {facts['torch']}; parts by commit: "
    where += ", ".join(f"{count} at {commit}" for commit, count in counts.items())
    write_bytes(options.out / "gpu.md", "\n".join([*lines(done, size, facts["machine"]), "", where, ""]).encode())


if __name__ == "__main__":
    main()
