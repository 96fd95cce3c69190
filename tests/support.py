"""Helpers of the tests that are not fixtures: small synthetic music, tiny trainings, processes, files, pages.

Synthetic music is quick to make, different per stem, and exact in 16 bits. Imports of the library's heavy modules stand
inside functions: `conftest` sets the number of threads before torch is loaded.
"""

import contextlib
import json
import os
import pickle
import re
import shlex
import struct
import subprocess
import time
import types
from pathlib import Path

import nbformat
import numpy as np
import psutil
import soundfile
import soxr
import typed

from lib.common.errors import UserError
from lib.common.provenance import ROOT

SOURCES = ("drums", "bass", "other", "vocals")
RATE = 44_100
# A folder's name that HTML, Markdown, LaTeX and mathtext would each interpret. A folder's name holds no slash.
STRANGE = r"""$\frac$ <img src=x onerror=alert(1)> "q" 'n &amp; *a* _b_ | `t` """
STRANGE += "[x](javascript:alert(1)) $x$ <script>alert(2)"
TIMINGS = ("seconds", "steps_per_second")


# --- music ---


def synthetic_stems(seed, seconds=4.0):
    """int16 stems (4, samples, 2): clicks of noise, a low saw, two chords, a vibrato voice."""
    random = np.random.RandomState(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    beat = (t * random.uniform(1.5, 2.5)) % 1
    note = random.uniform(45, 90)
    drums = random.randn(len(t)) * np.exp(-beat * 25)
    bass = ((t * note) % 1 - 0.5) * np.exp(-beat)
    other = sum(np.sin(2 * np.pi * note * k * t) for k in (4, 5, 6)) / 3
    vocals = sum(np.sin(2 * np.pi * (note * 6 * t + 0.4 * np.sin(5 * t)) * k) / k for k in (1, 2, 3, 4))
    mono = np.stack([drums, bass, other, vocals])
    pan = random.uniform(0.6, 1.0, size=(4, 1, 2))
    return np.rint(mono[:, :, None] * pan * 4000 / np.abs(mono).max(1)[:, None, None]).astype(np.int16)


def write_track(folder, stems):
    """Write int16 stems (4, samples, 2) and their exact sum, the mixture, as a musdb folder of wav files."""
    folder.mkdir(parents=True)
    for name, audio in zip(("mixture", *SOURCES), (stems.sum(0, dtype=np.int16), *stems), strict=True):
        soundfile.write(folder / f"{name}.wav", audio, RATE, subtype="PCM_16")


def write_flac(folder, stems):
    """Write int16 stems (4, samples, 2) alone, without their mixture, as a folder of flac files."""
    folder.mkdir(parents=True)
    for name, audio in zip(SOURCES, stems, strict=True):
        soundfile.write(folder / f"{name}.flac", audio, RATE, subtype="PCM_16")


def write_own(folder, stems, names, rate=RATE, kind="flac"):
    """Write int16 stems (n, samples, 2 or 1) as <name>.flac, or of another kind that ffmpeg writes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, audio in zip(names, stems, strict=True):
        soundfile.write(folder / f"{name}.flac", audio, rate, subtype="PCM_16")
        if kind != "flac":
            path = folder / f"{name}.flac"
            command = ["ffmpeg", "-v", "error", "-i", path, "-b:a", "256k", path.with_suffix(f".{kind}")]
            subprocess.run(command, check=True)
            path.unlink()


def own_folder(root, seconds):
    """A folder of tracks as a person may have them: nine that can be used, each in its own way, and four that cannot.

    All hold the same music, in `SOURCES`.
    """
    stems = synthetic_stems(1, seconds)
    whole = np.concatenate([stems.sum(0, dtype=np.int16)[None], stems])
    names = ("mixture", *SOURCES)
    write_own(root / "Plain", whole, names)
    fast = soxr.resample(whole.transpose(1, 0, 2).reshape(whole.shape[1], -1).astype(np.float32), RATE, 48_000)
    fast = np.rint(fast).astype(np.int16).reshape(-1, 5, 2).transpose(1, 0, 2)
    write_own(root / "At 48 kHz", fast, names, 48_000)
    write_own(root / "No mixture", stems, SOURCES)
    write_own(root / "No vocals", stems[:3], SOURCES[:3])
    write_own(root / "Mono", whole[..., :1], names)
    write_own(root / "Unequal", whole, names)
    soundfile.write(root / "Unequal" / "bass.flac", stems[1, : -RATE // 10], RATE)
    for kind in ("mp3", "ogg", "m4a"):
        write_own(root / f"As {kind}", stems, SOURCES, kind=kind)
    for name in ("Damaged", "Empty"):
        write_own(root / name, stems, SOURCES)
    bass = root / "Damaged" / "bass.flac"
    bass.write_bytes(bass.read_bytes()[: bass.stat().st_size // 2])
    (root / "Empty" / "bass.flac").write_bytes(b"")
    write_own(root / "Silent", stems * 0, SOURCES)
    (root / "Notes").mkdir()
    (root / "Notes" / "read me.txt").write_text("no track")
    return root


# --- trainings ---


def tiny(index, **changes):
    """The `Config` of a run with four channels and half-second excerpts: about 15 steps per second."""
    from lib.config import Config

    base = dict(
        data=str(index), steps=8, batch=8, lr=3e-3, lr_final=1e-3, channels=4, depth=4, lstm_layers=1, seconds=0.3,
        shift_seconds=0.2, stride_seconds=0.3, discriminator_width=8, evaluate_every=4, evaluation_excerpts=6,
    )  # fmt: skip
    return Config(**(base | changes))


def gan(index, pretrained, **changes):
    """The `Config` of a tiny GAN arm."""
    return tiny(index, start_from=str(pretrained), adversarial_weight=0.01, adversarial_start=2, **changes)


def cured(index, pretrained, **changes):
    """The `Config` of a tiny GAN arm with every cure on."""
    base = dict(
        start_from=str(pretrained), adversarial_share=0.1, feature_matching_share=0.3, adversarial_start=2,
        adversarial_ramp=4, discriminator_updates=0.8, augment_p=0.5, augment_target=0.3, augment_steps=50, r1=1.0,
        r2=0.5, r1_every=4, lecam=0.3, instance_noise=0.1, dither=0.03, spectral_norm=True, dropout=0.2,
        discriminator_patience=15, projection=True, ema=0.9, spectral_share=0.2, stem_speed=0.1, stem_gain_db=3.0,
    )  # fmt: skip
    return tiny(index, **(base | changes))


def metrics(folder):
    """The lines of a run's log, without timings."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def weights(folder):
    """The bytes of a run's weights."""
    return (folder / "model.safetensors").read_bytes()


def train(config, folder, nproc=1):
    """Train as `launch` does, in `nproc` forks of a process that has loaded torch, each on one thread.

    A launched process costs seconds more before its first step. Raises `UserError` when training fails.
    """
    from lib.runs.folders import claim

    claim(config, folder, nproc)
    program = f"torchrun --nproc_per_node {nproc}" if nproc > 1 else "python"
    with typed.server():
        answer = typed.run(f"{program} -m lib.train {shlex.quote(str(folder))}", folder.parent, limit=600)
    if answer.status:
        raise UserError(answer.errors or f"Training in {folder} ended with status {answer.status}.")


def start_training(folder, nproc, **options):
    """Start training in `folder` on `nproc` ranks as the launcher does, and return the process; its output is piped."""
    from lib.runs import launch as launcher

    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    command = launcher._command(Path(folder), nproc, 1, "", "lib.train")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes, **options)


# --- processes ---


def in_process(*_):
    """Instead of `lib.common.processes.workers`: a pool that works in this process, without seconds for its start."""
    return contextlib.nullcontext(types.SimpleNamespace(map=map))


def family(pid):
    """{process id: command} of `pid` and its descendants, sorted by id."""
    parents, commands = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ")
        except OSError:  # the process has ended meanwhile
            continue
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return {member: commands.get(member, "") for member in sorted(found)}


def gone(members, seconds=30):
    """Whether all of these processes end in time. A process that is starting imports torch before it notices."""
    for _ in range(seconds * 10):
        if not any(map(_runs, members)):
            return True
        time.sleep(0.1)
    return False


def _runs(pid):
    try:  # a zombie has ended, even if its parent has not read its status
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listening(pid):
    """The addresses at which a process and its descendants wait for connections."""
    found = set()
    for member in [(first := psutil.Process(pid)), *first.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # the process has ended meanwhile
            found |= {c.laddr.ip for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


# --- files ---


def outcome(read, path, content, names=None):
    """Write `content` to `path` and return `read(path)`; None after a `UserError` of one line that names the file.

    names: the text that the sentence must hold instead of the path.
    """
    path.write_bytes(content)
    try:
        return read(path)
    except UserError as error:
        assert (
            (str(path) if names is None else names) in str(error) and "\n" not in str(error) and str(error)[-1] in ".?"
        )
        return None


def legacy(pickled, *storages):
    """The bytes of a checkpoint in torch's container from before 1.6."""
    start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    keys = [str(k) for k in range(len(storages))]
    head = b"".join(pickle.dumps(part, 2) for part in start) + pickled + pickle.dumps(keys, 2)
    return head + b"".join(struct.pack("<q", len(numbers) // 4) + numbers for numbers in storages)


def count_samples(path):
    """Read a whole song and return its number of samples at 44,100 Hz."""
    from lib.data.songs import Song

    scratch = path.parent / "scratch"
    scratch.mkdir()
    return sum(block.shape[1] for block in Song(path, scratch).blocks())


# --- texts ---

NUMBER = re.compile(r"(?<![\w.,])(?<!\w-)[−+-]?\d[\d.,]*")  # none within a word, such as pix2pix or gan-42


def crowded(markdown, most=4):
    """The sentences of a Markdown text's prose that hold more than `most` numbers; tables and code are no prose."""
    text = re.sub(r"```.*?```|^\|.*?$|<[^>]+>|`[^`\n]+`", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]+\)", "]", text)
    sentences = re.split(r"(?<=[.!?:])\s+(?=[A-Z*])|\n\s*\n|\n(?=[-*#] )", text)
    return [sentence for sentence in sentences if len(NUMBER.findall(sentence)) > most]


# --- pages ---


@contextlib.contextmanager
def watched_page(browser, allowed, **options):
    """A new page; on leaving, it must have reported no error and requested only addresses that start with `allowed`."""
    context = browser.new_context(**options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith(allowed) or complaints.append(f"asked: {request.url}"))
    yield page
    context.close()
    assert not complaints, complaints


def write_notebook(path, cells):
    """Write a notebook of code cells that have not run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
