"""How cost grows as the work grows: CPU seconds and memory of every stage, from small to large.

    python -m benchmarks.growth [--out benchmarks] [--tiny]

Stages: decoding a data folder and reading the tables of its scores, by tracks; reading a batch, by tracks; a training
step, by channels; separating and scoring a song, by its length. Each size runs in a fresh process on one core with one
thread, after a smaller call that loads what is loaded once; its cost is the call's process-CPU time, its memory the
peak resident size during the call less that before it. The exponent is the slope between the two largest sizes on
logarithmic scales: 1 is linear, 0 does not grow. Then two trainings of 5,000 steps with every cure, beside each other,
whose memory (RssAnon) must not grow. Writes OUT/growth.md and OUT/growth.png; `--tiny` tries it.
"""

import argparse
import collections
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.bsseval import THREADS, peak, resident, status, stems
from benchmarks.page import write_section
from benchmarks.train import make_tracks
from lib.common.files import atomic, write_bytes
from lib.common.provenance import ROOT

# stage: (what grows, its sizes, its sizes with --tiny, the exponent that is expected)
STAGES = {
    "decode a folder": ("tracks of 15 s", (1, 10, 100), (1, 2), 1),
    "read a batch": ("tracks of 15 s", (1, 10, 100), (1, 2), 0),
    "a training step": ("channels", (8, 16, 32, 64), (4, 8), 2),
    "separate a song": ("seconds", (15, 60, 300), (1, 2), 1),
    "score a song": ("seconds", (15, 60, 300), (1, 2), 1),
    "read the scores": ("tracks of 60 s", (1, 10, 100), (1, 2), 1),
}
STEPS = 5_000, 20  # of a training whose memory is watched; with --tiny
MARKS = 10  # times at which it is read
CURES = dict(
    adversarial_share=0.1, feature_matching_share=0.3, augment_p=0.3, augment_target=0.3, r1=1.0, r2=0.5, r1_every=4,
    lecam=0.3, instance_noise=0.1, dither=0.03, spectral_norm=True, dropout=0.2, projection=True, ema=0.9,
    spectral_share=0.2, stem_speed=0.1, stem_gain_db=3.0, stem_eq_db=3.0,
)  # fmt: skip
LINES = {"CPU seconds": "#000000", "peak memory": "#0072B2"}
LEAST = {"CPU seconds": 1e-3, "peak memory": 1.0}  # of what needs no memory (MiB), there is no ratio
SPARE = 0.2  # an exponent that is larger than expected by more is pointed out


def decode(folder, count):
    """Decode `count` tracks of wav files."""
    import soundfile

    from lib.data.decode import decode
    from lib.data.musdb import list_tracks

    noise = np.random.default_rng(0).integers(-8000, 8000, (15 * 44_100, 2)).astype(np.int16)
    first = folder / "first" / "0"
    first.mkdir(parents=True)
    for name in ("mixture", "drums", "bass", "other", "vocals"):
        soundfile.write(first / f"{name}.wav", noise * (4 if name == "mixture" else 1), 44_100, subtype="PCM_16")
    for k in range(1, count + 1):
        (folder / "tracks" / str(k)).mkdir(parents=True)
        for file in first.iterdir():
            os.link(file, folder / "tracks" / str(k) / file.name)
    decode(list_tracks(folder / "first"), folder / "warm")
    tracks = list_tracks(folder / "tracks")
    return lambda: decode(tracks, folder / "cache")


def load(folder, count):
    """Read 50 batches of 4 excerpts of 2 s, of `count` tracks."""
    from lib.data.batches import Batches
    from lib.data.tracks import Excerpts

    excerpts = Excerpts(make_tracks(folder, count=count, seconds=15)[:count], 3 * 44_100, 44_100)
    batches = Batches(excerpts, batch=4, shift=44_100, remix_group=4, seed=[0])
    batches(0)
    return lambda: collections.deque(map(batches, range(1, 51)), maxlen=1)


def train(folder, channels):
    """Take 3 steps of L1, 4 excerpts of 2 s, with `channels` channels."""
    from lib.config import Config
    from lib.runs.distributed import Ranks
    from lib.train import Trainer

    make_tracks(folder)
    config = Config(data=str(folder / "data.json"), batch=4, channels=channels, depth=5, seconds=2.0, steps=10**6)
    trainer = Trainer(config, folder / "run", Ranks())
    trainer.train_step()
    return lambda: [trainer.train_step() for _ in range(3)]


def separate(folder, seconds):
    """Separate noise of `seconds` with 16 channels."""
    from lib.demucs import Demucs
    from lib.models.cpu.prepare import prepare
    from lib.separate import separate

    model, mixture = prepare(Demucs(channels=16)), np.random.default_rng(0).standard_normal((2, 44_100 * seconds))
    mixture = mixture.astype(np.float32)
    separate(model, mixture[:, :44_100])
    return lambda: separate(model, mixture)


def score(folder, seconds):
    """Score four stems of `seconds`."""
    from lib.evaluation.bsseval import evaluate

    signals = stems(seconds)
    evaluate(*stems(1))
    return lambda: evaluate(*signals)


def read(folder, count):
    """Read the scores of `count` tracks of 60 s in the layout of museval."""
    from lib.evaluation.results import read_museval
    from lib.evaluation.score import museval_json

    text = museval_json(*np.random.default_rng(0).standard_normal((4, 4, 60)))
    for k in range(count):
        write_bytes(folder / "tracks" / f"{k}.json", text.encode())
    write_bytes(folder / "warm" / "0.json", text.encode())
    read_museval(folder / "warm")
    return lambda: read_museval(folder / "tracks")


WORK = dict(zip(STAGES, (decode, load, train, separate, score, read), strict=True))


def measure(stage, size):
    """(CPU seconds, peak MiB) of a stage in this process."""
    import torch

    from lib.common.processes import keep_buffers

    torch.set_num_threads(1)
    keep_buffers()
    with tempfile.TemporaryDirectory() as folder:
        call = WORK[stage](Path(folder), size)
        before, start = resident(), time.process_time()
        call()
        cpu = time.process_time() - start
        return cpu, max(peak() - before, 0)


def run(stage, size):
    """`measure` in a fresh process on the last core."""
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.growth", "--worker", stage, str(size)]
    done = subprocess.run(
        command, env=os.environ | THREADS, cwd=ROOT, check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def steady(steps):
    """MiB of RssAnon of a training with every cure after each of `MARKS` parts of its steps."""
    import torch

    from lib.common.processes import keep_buffers
    from lib.config import Config
    from lib.runs.distributed import Ranks
    from lib.runs.folders import claim
    from lib.train import Trainer

    found = []

    class Watched(Trainer):
        def save(self):
            super().save()
            if self.step % (steps // MARKS) == 0:
                found.append(status("RssAnon"))

    torch.set_num_threads(1)
    keep_buffers()
    with tempfile.TemporaryDirectory() as folder:
        make_tracks(folder)
        config = Config(
            data=str(Path(folder, "data.json")), steps=steps, batch=4, channels=4, depth=4, lstm_layers=1, seconds=0.3,
            shift_seconds=0.1, stride_seconds=0.3, discriminator_width=8, evaluate_every=max(steps // 50, 1),
            evaluation_excerpts=4, **CURES,
        )  # fmt: skip
        config, _ = claim(config, Path(folder, "run"))
        Watched(config, Path(folder, "run"), Ranks()).run()
    return found


def memory(steps):
    """Lines of Markdown of two `steady` trainings beside each other."""
    command = [sys.executable, "-m", "benchmarks.growth", "--worker", "steady", str(steps)]
    options = dict(env=os.environ | THREADS, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    started = [subprocess.Popen(command, **options) for _ in range(2)]
    runs = [json.loads(run.communicate()[0].splitlines()[-1]) for run in started]
    marks = [steps // MARKS * (k + 1) for k in range(MARKS)]
    yield f"| run, MiB after … steps | {' | '.join(f'{mark:,}' for mark in marks)} | growth per 1,000 steps |"
    yield f"|---{'|--:' * (MARKS + 1)}|"
    for number, found in enumerate(runs, 1):
        slope = 1000 * np.polyfit(marks[1:], found[1:], 1)[0]
        yield f"| {number} | {' | '.join(f'{mib:.1f}' for mib in found)} | {slope:+.2f} |"


def exponent(sizes, values):
    """Slope between the last two points on logarithmic scales."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(sizes[-1] / sizes[-2])


def lines(found):
    """Lines of Markdown of {stage: (sizes, [(CPU seconds, MiB)])}."""
    yield from ("| stage | grows with | CPU s (peak MiB) at each size | exponent | expected |", "|---|---|---|--:|--:|")
    steeper = []
    for stage, (sizes, values) in found.items():
        unit, *_, expected = STAGES[stage]
        slope = exponent(sizes, [cpu for cpu, _ in values])
        cells = ", ".join(f"{n}: {cpu:.2g} ({mib:.0f})" for n, (cpu, mib) in zip(sizes, values, strict=True))
        yield f"| {stage} | {unit} | {cells} | {slope:.2f} | {expected} |"
        steeper += [stage] if slope > expected + SPARE else []
    yield ""
    yield f"Steeper than expected by more than {SPARE}: {', '.join(steeper) or 'nothing'}."
    yield "Memory for reading a batch is pages of the tracks' files, which the system takes back when it needs them."


def draw(found, path):
    """One figure, a panel for each stage: cost in units of that of the smallest size."""
    import matplotlib.pyplot as plt

    from lib.report.figures import style

    style.use()
    figure, axes = style.panels(3, 5.2, "How cost grows as the work grows", rows=2)
    for axis, (stage, (sizes, values)) in zip(axes, found.items(), strict=True):
        unit, *_, expected = STAGES[stage]
        for (name, colour), series in zip(LINES.items(), zip(*values, strict=True), strict=True):
            if min(series) > LEAST[name]:
                axis.plot(sizes, np.divide(series, series[0]), "o-", color=colour, label=name)
        axis.plot(sizes, [(n / sizes[0]) ** expected for n in sizes], ":", color="#888888", label="expected")
        axis.set(xscale="log", yscale="log", title=stage, xlabel=unit, xticks=sizes, xticklabels=sizes)
        axis.xaxis.set_minor_locator(plt.NullLocator())
        axis.yaxis.set_major_formatter(plt.FuncFormatter(lambda y, _: f"{y:g}"))
        axis.yaxis.set_minor_formatter(plt.NullFormatter())
    axes[0].set_ylabel("ratio to the smallest")
    axes[3].set_ylabel("ratio to the smallest")
    style.legend_below(figure, axes[2])
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main(words=None):
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of growth.md and growth.png")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the program")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.worker:
        stage, size = options.worker[0], int(options.worker[1])
        print(json.dumps(steady(size) if stage == "steady" else measure(stage, size)))
        return
    found = {}
    for stage, (_, large, tiny, _) in STAGES.items():
        sizes = tiny if options.tiny else large
        found[stage] = sizes, [run(stage, size) for size in sizes]
        print(stage, found[stage], flush=True)
    draw(found, options.out / "growth.png")
    text = [*lines(found), "", "![growth](growth.png)", ""]
    text += ["Memory of a training with every cure, evaluated and saved fifty times:", "", *memory(STEPS[options.tiny])]
    write_section(options.out / "growth.md", "How cost grows, on one core", text)


if __name__ == "__main__":
    main()
