"""The adversarial training step at the sizes of the profile quick, and what each discriminator learns in 300 updates.

    python -m benchmarks.adversarial [--rounds 5] [--before CHECKOUT]    # costs
    python -m benchmarks.adversarial --rounds 1 --slow                   # that of msstft with every cure
    python -m benchmarks.adversarial --learn results/quick/data.json     # held-out AUC; 01-data writes that file

Costs: a step of `lib.train` on noise, four excerpts of 1.5 s on one core with one thread: the L1 step, and what the
discriminators, the cures of gan-cures and the spectral loss add. Kinds run by turns, each in a fresh process; a cost is
the process-CPU time per step, the mean of 8 (2 of msstft; 16 with the cures, as R1 comes once in 16), after two that
are not counted. A ratio to the L1 step is the median of the rounds' ratios. With `--before`, all kinds that another
checkout knows run there too, in the same rounds.

Learning: each discriminator trains against the carried generator (`lib/models/corpus.safetensors`), at rest, on 512
seconds of the training tracks, eight at a time; the AUC of its logits is that of the report, on 64 seconds of the
validation tracks. Both tables are printed and replace their sections of benchmarks/train.md.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIZES = dict(channels=12, depth=5, seconds=1.5, shift_seconds=0.5, stride_seconds=0.5, batch=4)
GAN = dict(adversarial_weight=0.01, discriminator_width=16)
CURES = dict(adversarial_share=0.1, augment_target=0.3, instance_noise=0.2, r1=0.3)
KINDS = {
    "L1": {},
    "L1 + spectral loss": dict(spectral_weight=0.1),
    "patch": GAN,
    "patch, cures": GAN | CURES,
    "stft": GAN | dict(discriminator="stft"),
    "stft, cures": GAN | CURES | dict(discriminator="stft"),
    "stft + spectral loss": GAN | dict(discriminator="stft", spectral_weight=0.1),
    "msstft (width 8)": GAN | dict(discriminator="msstft", discriminator_width=8),
    "msstft (width 8), cures": GAN | CURES | dict(discriminator="msstft", discriminator_width=8),
}
SLOW = "msstft (width 8), cures"  # minutes a round: only when it is asked for
WARM_UP = 2  # steps of a process that are not counted
UPDATES, MARKS, SEEDS = 300, (50, 100, 200, 300), (0, 1)
LEARNERS = [("patch", 16, 3e-4), ("stft", 16, 3e-4)]  # name, width, learning rate


def measure(kind):
    """CPU seconds of one step in this process: the mean; None for a kind that this checkout does not know."""
    import torch

    from benchmarks.train import make_tracks
    from lib.common.errors import UserError
    from lib.config import Config
    from lib.runs.distributed import Ranks
    from lib.train import Trainer

    try:
        from lib.common.processes import keep_buffers
    except ImportError:  # an older checkout
        from lib.models.cpu.prepare import keep_buffers

    torch.set_num_threads(1)
    keep_buffers()
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder)
        try:
            config = Config(data=str(Path(folder, "data.json")), steps=10_000, **SIZES, **KINDS[kind])
        except (UserError, TypeError):
            return None
        trainer = Trainer(config, Path(folder, "run"), Ranks())
        for _ in range(WARM_UP):
            trainer.train_step()
        steps = config.r1_every if config.r1 else 2 if config.discriminator == "msstft" else 8
        start = time.process_time()
        for _ in range(steps):
            trainer.train_step()
    return (time.process_time() - start) / steps


def bound():
    """(operations of the patch discriminator in a step, and in one second of matrix products), both in 10⁹."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from lib.config import Config
    from lib.gan import Adversary
    from lib.runs.build import build_discriminator

    torch.set_num_threads(1)
    config = Config(data="", **SIZES, **GAN)
    network = build_discriminator(config)
    for layer in network.modules():  # torch's own convolutions, which its counter knows
        vars(layer).pop("_conv_forward", None)
    adversary, samples = Adversary(config, network), round(config.seconds * 44_100)
    stems, estimates = torch.randn(2, config.batch, 4, 2, samples)
    estimates = estimates.requires_grad_() * 1  # the counter takes no leaf
    with FlopCounterMode(display=False) as counter:
        inputs = adversary.inputs(0, stems, estimates)
        adversary.discriminator_step(0, inputs)
        adversary.gradients(0, inputs, estimates)
    a, b = torch.randn(2, 1024, 1024)
    speeds = []
    for _ in range(20):
        start = time.process_time()
        a @ b
        speeds.append(2 * 1024**3 / (time.process_time() - start))
    return counter.get_total_flops() / 1e9, max(speeds) / 1e9


def run(kind, checkout, core):
    """`measure`, or `bound` for "bound", in a fresh process on `core`, with the modules of `checkout`."""
    from benchmarks.bsseval import THREADS
    from benchmarks.train import pinned

    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--worker", kind]
    done = subprocess.run(
        command, env=os.environ | THREADS | {"PYTHONPATH": str(checkout)}, cwd=checkout, check=True,
        capture_output=True, text=True, preexec_fn=pinned(core),
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def table_of_costs(rounds, before, kinds):
    """Lines of a Markdown table."""
    core, checkouts = max(os.sched_getaffinity(0)), [Path(before).resolve(), ROOT] if before else [ROOT]
    seconds = {(kind, place): [] for kind in kinds for place in checkouts}
    for number in range(rounds):
        for kind, place in seconds:
            seconds[kind, place].append(run(kind, place, core))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    heads = ["before, CPU ms", "ratio to L1", "CPU ms", "ratio to L1"] if before else ["CPU ms", "ratio to L1"]
    lines = [f"| step | {' | '.join(heads)} |", f"|---{'|--:' * len(heads)}|"]
    for kind in kinds:
        cells = []
        for place in checkouts:
            found, first = seconds[kind, place], seconds["L1", place]
            if None in found:
                cells += ["–", "–"]
                continue
            ratio = statistics.median(a / b for a, b in zip(found, first, strict=True))
            cells += [f"{1000 * statistics.median(found):.0f}", f"{ratio:.2f}×"]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    if "patch" not in kinds:
        return lines
    count, speed = run("bound", ROOT, core)
    least = 1 + count / speed / statistics.median(seconds["L1", ROOT])
    text = (
        f"The patch discriminator's part of a step is {count:.1f} × 10⁹ operations. In products of 1,024² matrices "
        f"this core does {speed:.0f} × 10⁹ a second: at that speed, with nothing beside them, "
        f"{1000 * count / speed:.0f} ms. So in float32 a step with it cannot cost less than {least:.2f} L1 steps."
    )
    lines += ["", *textwrap.wrap(text, 120)]
    return lines


def table_of_learning(index):
    """Lines of a Markdown table: the held-out AUC after some updates, for each seed."""
    import torch

    from lib.config import Config
    from lib.data.tracks import read_index
    from lib.demucs import center_trim
    from lib.evaluation.probe import batches, pooled_logits, segments_of
    from lib.gan import Adversary
    from lib.memorisation import auc
    from lib.models.weights import load_weights
    from lib.runs.build import build_discriminator

    torch.set_num_threads(1)
    tracks, _ = read_index(index)
    generator = load_weights(ROOT / "lib/models/corpus.safetensors").eval()
    (stems, estimates), heldout = (
        [center_trim(stems, estimates), estimates]
        for stems, estimates in (
            segments_of(tuple(tracks[part]), generator, count, 1.0) for part, count in (("train", 512), ("valid", 64))
        )
    )
    lines = [
        f"| discriminator, width, lr | {' | '.join(f'{mark} updates' for mark in MARKS)} |",
        f"|---{'|---' * len(MARKS)}|",
    ]
    for name, width, lr in LEARNERS:
        found = {mark: [] for mark in MARKS}
        for seed in SEEDS:
            config = Config(
                data="", seed=seed, batch=8, adversarial_weight=1.0, discriminator=name, discriminator_width=width,
                discriminator_lr=lr,
            )  # fmt: skip
            adversary = Adversary(config, build_discriminator(config))
            for step, chosen in enumerate(itertools.islice(batches(len(stems), 8, seed), UPDATES), 1):
                adversary.discriminator_step(step, adversary.inputs(step, stems[chosen], estimates[chosen]))
                if step in found:
                    with torch.no_grad():
                        found[step].append(auc(*pooled_logits(adversary, heldout)))
        cells = " | ".join(", ".join(f"{value:.3f}" for value in values) for values in found.values())
        lines.append(f"| {name}, {width}, {lr:g} | {cells} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="CHECKOUT", help="folder of another version of this project")
    parser.add_argument("--slow", action="store_true", help=f"L1 and “{SLOW}” alone, in a table of their own")
    parser.add_argument("--learn", metavar="DATA.JSON", help="the learning check instead of the costs")
    parser.add_argument("--worker", choices=[*KINDS, "bound"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(bound() if arguments.worker == "bound" else measure(arguments.worker)))
        return
    from benchmarks.page import write_section

    if arguments.learn:
        lines = table_of_learning(arguments.learn)
        title = f"Held-out AUC against the carried generator at rest; seeds {', '.join(map(str, SEEDS))}"
    else:
        kinds = ["L1", SLOW] if arguments.slow else [kind for kind in KINDS if kind != SLOW]
        lines = table_of_costs(arguments.rounds, arguments.before, kinds)
        which = "slowest adversarial step" if arguments.slow else "adversarial step"
        title = f"The {which}: four excerpts of 1.5 s, 12 channels, depth 5, one core"
    print(*lines, sep="\n")
    write_section(ROOT / "benchmarks" / "train.md", title, lines)


if __name__ == "__main__":
    main()
