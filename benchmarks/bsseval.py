"""museval against lib.evaluation.bsseval on one core: CPU seconds and peak memory for four stereo stems.

    python -m benchmarks.bsseval [--seconds 10 30 60 240] [--repeats 3 3 2 1] [--songs FOLDER]

Noise of several lengths; then music, whose stems are more alike: a composed song of a minute and, with `--songs`, those
of a folder (as of `lib.evaluation.songs`), each as the bundled model estimates it. Both run by turns, each in a fresh
process on the same core with one thread, after a call on a short signal (imports). Time is the call's process-CPU time,
the median of the repeats. Memory is the peak resident size during the call less the resident size before it, inputs
included. The table is printed and written to benchmarks/bsseval.md.
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
    """Resident memory of this process in MiB, from which `peak` starts again."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak():
    """The largest resident memory of this process in MiB since `resident` was called."""
    return status("VmHWM")  # getrusage's starts from that of the process that started this one


def status(name):
    """A line of /proc/self/status, memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def music(folder, songs):
    """Write {name: file} of the stems and estimates, (2, 4, samples, 2), of a composed song and of those in `songs`."""
    import numpy as np

    from lib.corpus import generate
    from lib.data.decode import read_track
    from lib.data.musdb import list_tracks
    from lib.data.tracks import FULL_SCALE
    from lib.evaluation.score import estimate
    from lib.models.weights import load_generator

    root = generate(folder / "composed", train=0, valid=0, test=1, shifted=0, seconds=60.0, seed=1)
    tracks = {f"{name.strip()}, 60 s": path for name, path in (list_tracks(songs) if songs else {}).items()}
    model, files = load_generator(None), {}
    for name, path in {"composed song, 60 s": next(iter((root / "test").iterdir())), **tracks}.items():
        audio, scale, _ = read_track(path)
        mixture, *stems = audio[..., : 60 * RATE].astype(np.float32) / np.float32(FULL_SCALE / scale)
        signals = np.stack([np.stack(stems), estimate(model, mixture, shifts=0)]).transpose(0, 1, 3, 2)
        files[name] = folder / f"{len(files)}.npy"
        np.save(files[name], signals.astype(np.float64))
    return files


def measure(system, source):
    """CPU seconds, peak memory in MiB and the medians over windows of (SDR, ISR, SIR, SAR) of one call.

    source: seconds of noise, or a file of `music`.
    """
    import numpy as np

    if system == "museval":
        from museval import evaluate
    else:
        from lib.evaluation.bsseval import evaluate
    short = stems(1)
    evaluate(short[0][:1, :, :1], short[1][:1, :, :1])
    if system != "museval":  # museval's own peak on a second of stereo would stay in its heap
        evaluate(*short)
    references, estimates = stems(int(source)) if source.isdecimal() else np.load(source)
    before, start = resident(), time.process_time()
    scores = evaluate(references, estimates)
    cpu = time.process_time() - start
    return {"cpu": cpu, "mib": peak() - before, "scores": np.nanmedian(scores, axis=-1).tolist()}


def run(system, source, core):
    """`measure` in a fresh process on `core`."""
    command = [sys.executable, "-m", "benchmarks.bsseval", "--worker", system, str(source)]
    os.sched_setaffinity(0, {core})
    done = subprocess.run(command, env=os.environ | THREADS, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows(sources, repeats):
    """Rows of the table, printed as they come. sources: {name: as of `measure`}; repeats: for each."""
    core = max(os.sched_getaffinity(0))
    for (name, source), count in zip(sources.items(), repeats, strict=True):
        results = {system: [] for system in SYSTEMS}
        for _ in range(count):
            for system in SYSTEMS:
                results[system].append(run(system, source, core))
        cpu, mib = (
            [statistics.median(result[key] for result in results[system]) for system in SYSTEMS]
            for key in ("cpu", "mib")
        )
        scores = [sum(results[system][0]["scores"], []) for system in SYSTEMS]
        difference = max(abs(a - b) for a, b in zip(*scores, strict=True))
        line = f"| {name} | {cpu[0]:.1f} ({mib[0]:.0f}) | {cpu[1]:.2f} ({mib[1]:.0f}) | {cpu[0] / cpu[1]:.0f}× | "
        print(line := f"{line}{difference:.0e} |", flush=True)
        yield line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30, 60, 240])
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 3, 2, 1], help="for each length")
    parser.add_argument("--songs", type=Path, metavar="FOLDER", help="songs with stems")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(*arguments.worker)))
        return
    from benchmarks.page import write_section

    lines = [
        "| signals | museval, CPU s (peak MiB) | lib.evaluation.bsseval, CPU s (peak MiB) | ratio | "
        "largest difference, dB |",
        "|---|---|---|---|---|",
    ]
    print(*lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        noise = {f"noise, {seconds} s": seconds for seconds in arguments.seconds}
        songs = music(Path(folder), arguments.songs)
        repeats = [*arguments.repeats, *[1] * len(noise)][: len(noise)] + [2] * len(songs)
        lines += rows(noise | songs, repeats)
    write_section(Path(__file__).with_suffix(".md"), "BSSEval v4 on one core: four stereo stems", lines)


if __name__ == "__main__":
    main()
