"""The study of memorisation: trainings on few tracks, and the tables that they fill.

    python -m lib.studies.overfitting FOLDER --data data.json --start PRETRAIN --plan law --jobs 8 --seconds 500

FOLDER gets the tables (`lib.studies.tables`) after every training that ends, and the trainings themselves in
FOLDER/memorisation. PRETRAIN is the folder of a run that has heard only the first training tracks
(tracks=…); every training starts there, on tracks that it has not heard. Further words name=value change parameters of
`lib.config.Config` of all trainings, such as seconds=1.0.

Each training is a process, `--jobs` at a time. When `--seconds` are used up, they save and stop, and the status is 75;
the same command goes on later, skips what is finished, and adds what a larger plan asks for. The plans
are described in `lib.studies.plans`; `confirm` needs cures.csv, and `cues` what the other plans have trained.
"""

import dataclasses
import hashlib
import threading
from functools import partial
from pathlib import Path

import pandas as pd

from lib.common.errors import Parser, UserError
from lib.common.files import atomic, locked, read_json, write_json
from lib.common.processes import command
from lib.common.provenance import made_by, portable
from lib.config import Config, parse, read_note
from lib.data.tracks import SAMPLERATE, read_index, stems_of, write_index
from lib.runs.launch import launch
from lib.studies import cues, queue
from lib.studies.pieces import held_out, pool, write_pieces
from lib.studies.plans import LONG, PLANS, cells, plan, ranking, shared
from lib.studies.tables import RUNS, gather, minutes_of, onset, read_runs

DEFAULTS = dataclasses.asdict(Config(data=""))  # of parameters that an earlier version did not know


def main(words=None):
    """Command line; see the module's docstring."""
    options = _options(words)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / RUNS):
        if options.plan == "cues":
            write_cues(folder)
        elif options.plan == "regimes":
            write_regimes(folder, options)
        else:
            train_all(folder, prepare_runs(folder, options), options)


def _options(words):
    parser = Parser(prog="python -m lib.studies.overfitting", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the tables")
    parser.add_argument("changes", nargs="*", help="name=value: parameters of all trainings")
    parser.add_argument("--data", type=Path, help="index that 01-data wrote")
    parser.add_argument("--start", type=Path, help="folder of the pre-training")
    parser.add_argument("--plan", choices=PLANS, default="law")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds")
    parser.add_argument("--seconds-of-track", type=float, default=0.0, help="cut tracks to this length first")
    parser.add_argument("--passes", type=float, default=100.0, help="of the plans law and game")
    parser.add_argument("--every", type=float, default=3.0, help="passes between evaluations")
    parser.add_argument("--steps", type=int, default=500, help="of the plans cures and confirm")
    options = parser.parse_intermixed_args(words)
    if options.plan != "cues" and not (options.data and options.start):
        parser.error("--data and --start are needed")
    return options


def prepare_runs(folder, options):
    """[(Run, Config, minutes)] of the plan; also writes the pieces of its tracks and the list of its runs."""
    sets, _ = read_index(options.data)
    tracks = pool(sets, options.start)
    length = options.seconds_of_track or min(track.samples for track in tracks) / SAMPLERATE
    long_enough = {
        seconds: [track for track in tracks if track.samples >= round(seconds * SAMPLERATE)]
        for seconds in (length, LONG * length)
    }
    start = Config.from_dict(read_note(options.start)["config"])
    overrides = parse([f"data={portable(options.data)}", *options.changes], folder / "none")
    names = {word.partition("=")[0] for word in options.changes}
    settings = shared(start, {name: getattr(overrides, name) for name in names})
    table = pd.read_csv(folder / "cures.csv") if (folder / "cures.csv").exists() else None
    runs = plan(
        options.plan, available={k: len(v) for k, v in long_enough.items()}, seconds=length, settings=settings,
        passes=options.passes, steps=options.steps, every=options.every, table=table,
    )  # fmt: skip
    if options.plan == "law" and not long_enough[LONG * length]:
        print(
            f"No track lasts {LONG * length:g} s: tracks and minutes cannot be distinguished; see --seconds-of-track."
        )
    weights = options.start / "model.safetensors"
    started = hashlib.sha256(weights.read_bytes()).hexdigest()[:16] if weights.exists() else ""
    pieces, indices, found = folder / RUNS / "pieces", {}, []
    for run in runs:
        key = run.tracks, run.seconds, run.seed
        if key not in indices:
            path = write_pieces(sets, long_enough[run.seconds], *key, pieces)
            known = {"data_digest": read_index(path)[1], "start_digest": started, "stems": [*stems_of(sets)]}
            indices[key] = portable(path), minutes_of(path), known
        index, minutes, known = indices[key]
        config = run.config(settings, index, portable(options.start))
        found.append((run, dataclasses.replace(config, **known), minutes))
    write_json(folder / RUNS / f"plan-{options.plan}.json", {"runs": [run.name for run in runs]})
    return found


def train_all(folder, runs, options):
    """Train what is not finished, `options.jobs` at a time, the longest first, else in order; gather after each.

    Raises `UserError` at the end for those that failed.
    """
    turn = threading.Lock()

    def work(run, config, minutes):
        train(folder / RUNS, run, config, minutes, beside=options.jobs, quiet=True)
        with turn:
            first = onset(gather(folder)[run.name])
        says = f"overfits from pass {first['passes']:.0f}" if first else "no onset so far"
        print(f"{run.name}: {says}", flush=True)

    waiting = [job for job in runs if not is_finished(folder / RUNS, *job)]
    waiting.sort(key=lambda job: -job[0].steps)
    jobs = [queue.Job(job[0].name, partial(work, *job)) for job in waiting]
    errors = queue.run(jobs, options.jobs, options.seconds)
    gather(folder)
    if errors:
        raise UserError(f"{len(errors)} trainings failed: {', '.join(errors)}; the lines above say why.")


def train(folder, run, config, minutes, **options):
    """Train a `Run` in a process of its own, in `folder`/<name>; options: of `launch`."""
    launch(config, folder / run.name, program="lib.studies.judge", **options)
    write_json(folder / run.name / "study.json", _study(run, minutes))


def is_finished(folder, run, config, minutes):
    """Whether the training of `run` is that of `config`, and finished; its weights and state need not be there."""
    path = folder / run.name
    note, study = read_note(path), path / "study.json"
    known = study.exists() and read_json(study) == _study(run, minutes)
    return known and bool(note.get("finished")) and DEFAULTS | note["config"] == dataclasses.asdict(config)


def _study(run, minutes):
    return {"run": dataclasses.asdict(run), "minutes": minutes}


def write_regimes(folder, options):
    """Write regimes.csv: the D-probe's cells of the plan, on tracks that its generator has not heard."""
    from lib.evaluation import probe

    sets, _ = read_index(options.data)
    index = folder / RUNS / "pieces" / "regimes.json"
    write_index(index, {"train": pool(sets, options.start), "valid": held_out(sets)[1]})
    work = partial(probe.run, folder, index, options.start / "model.safetensors", cells())
    if errors := queue.run([queue.Job("regimes", work)], 1, options.seconds):
        raise errors["regimes"]


def write_cues(folder):
    """Write cues.csv: naive trainings on two tracks and the best cures, before and after onset or early and late."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cured = pd.read_csv(folder / "cures.csv") if (folder / "cures.csv").exists() else None
    best = [] if cured is None else ranking(cured).index[:2].tolist()
    wanted = {"none", *best, " + ".join(best)}
    rows, made = [], {name: value for name, value in made_by().items() if name in ("machine", "commit")}
    runs = {name: found for name, found in read_runs(folder).items() if found["run"].tracks == 2}
    width, length = (min((getattr(f["run"], name) for f in runs.values()), default=0) for name in ("width", "seconds"))
    for name, found in runs.items():
        run, marks = found["run"], sorted((folder / RUNS / name).glob("mark-*.pt"))  # one digit each
        if (
            not marks
            or run.mode != "play"
            or run.remix
            or run.cure not in wanted
            or (run.width, run.seconds) != (width, length)
        ):
            continue
        first = onset(found)
        for step, probed in _before_and_after(marks, first, device):
            state = "no onset" if first is None else "before onset" if step < first["step"] else "after onset"
            known = {"run": name, "cure": run.cure, "seed": run.seed, "step": step}
            rows += [known | {"state": state} | row | made for row in probed]
        print(f"{name}: {len(marks)} states", flush=True)
        with atomic(folder / "cues.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
    if not rows:
        raise UserError(f"{folder / RUNS} holds no state of a training on two tracks; run the plan law first.")


def _before_and_after(marks, first, device):
    """Yield (step, rows) of the last state before onset and of the last of all; without an onset, of the first."""
    steps = [cues.step_of(mark) for mark in marks]
    early = [mark for mark, step in zip(marks, steps, strict=True) if first and step < first["step"]] or marks[:1]
    for mark in dict.fromkeys([early[-1], marks[-1]]):
        yield cues.probe_state(mark, device)


if __name__ == "__main__":
    command(main)
