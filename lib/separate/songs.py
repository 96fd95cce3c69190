"""Separate songs from files to files, one after another or several at once."""

import multiprocessing
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from lib.common.errors import UserError
from lib.common.files import writing
from lib.common.machine import cores
from lib.common.processes import can_share, keep_buffers, workers
from lib.common.progress import progress
from lib.data.songs import Song, decibels, scratch_folder, song_name
from lib.data.tracks import SAMPLERATE, SOURCES
from lib.models.cpu.prepare import prepare
from lib.models.weights import load_generator
from lib.separate import measure, stream
from lib.separate.names import PATTERN, STDIN, name_files
from lib.separate.stems import WAV, Form, write_stems


def stem_names(stems, two=None):
    """The names of the stems that are written: all of a model's `stems`, or `two` and the rest.

    Raises `UserError` if `two` is none of them.
    """
    if two and two not in stems:
        raise UserError(f"--two-stems {two} is no stem of this model; choose one of {', '.join(stems)}.")
    return (two, f"no_{two}") if two else stems


def separate_song(
    model,
    path,
    out,
    files=None,
    *,
    two=None,
    form=WAV,
    exact=False,
    watch=None,
    say=print,
    **options,
):
    """Separate the song in the file `path`, or of standard input, into files below `out`.

    files: {stem: path below `out`}, by default <name of the song>/<stem>.wav; two: a stem, to write it and the sum of
    the others; form, exact: as in `lib.separate.stems.write_stems`; watch: a generator through which the estimates
    pass, such as `bar`; say: called with each remark; options: of `lib.separate.stream`.
    """
    separated = getattr(model, "stems", SOURCES)
    stems = stem_names(separated, two)
    files = files or name_files(Path(path), Path(), stems, form.kind, PATTERN)
    files = {stem: Path(out) / file for stem, file in files.items()}
    with scratch_folder(out) as scratch:
        song = _open(path, scratch)
        form.check(song)
        name = song_name(song.path)
        level = measure(song.blocks(), str(song.path))
        for remark in song.remarks:
            say(remark)
        estimates = _finite(stream(model, song.blocks(), level, **options), name)
        if two:
            estimates = map(partial(_in_two, separated.index(two)), estimates)
        if watch:
            estimates = watch(estimates, name, level.samples)
        peaks, gain = write_stems(song, estimates, files, scratch, form, exact)
    place = files[stems[0]].parent
    say(f"{place}: peaks of " + ", ".join(f"{stem} {decibels(peak):.1f} dB" for stem, peak in peaks.items()))
    if gain < 1:
        say(
            f"{place}: all {len(stems)} stems are {-decibels(gain):.2g} dB quieter than in the song, "
            f"because the loudest would clip{'; so is their sum' if exact else ''}; their balance is kept, and --bits "
            "float keeps the level too."
        )


def _open(path, scratch):
    """The `Song` in the file `path`, or of standard input, which is first copied to `scratch`."""
    if Path(path) != STDIN:
        return Song(path, scratch)
    copy = scratch / "standard input"
    with writing(scratch), copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    song = Song(copy, scratch)
    song.path = Path(copy.name)  # for sentences
    song.remarks = [remark.replace(str(copy), copy.name) for remark in song.remarks]
    return song


def _finite(estimates, name):
    """Yield the parts of `estimates`; raises `UserError` if one is not finite."""
    for part in estimates:
        if not torch.isfinite(part).all():
            raise UserError(f"The generator's estimates of {name} are not finite; its weights are damaged.")
        yield part


def _in_two(first, estimates):
    """(sources, channels, time) -> (2, channels, time): the stem number `first`, and the sum of the others."""
    others = [k for k in range(len(estimates)) if k != first]
    return torch.stack([estimates[first], estimates[others].sum(0)])


def bar(estimates, name, samples):
    """Yield the parts of `estimates` with a progress bar in seconds."""
    done = 0
    with progress(name, round(samples / SAMPLERATE), unit="s") as shown:
        for part in estimates:
            yield part
            done += part.shape[-1]
            shown.update(round(done / SAMPLERATE) - shown.n)


class Separator:
    """Separates songs by the options of the command line; see `lib.separate.__main__`."""

    def __init__(self, options, watch):
        self.options, self.watch = options, watch
        keep_buffers()
        self.model = prepare(load_generator(options.checkpoint).to(options.device))

    def __call__(self, job):
        """Separate the song of `job`, (song, {stem: file}); returns None, or the sentence of its failure."""
        options = self.options
        try:
            separate_song(
                self.model, job[0], options.out, job[1], two=options.two_stems,
                form=Form(options.format, options.bits), exact=options.sum_to_song, watch=self.watch,
                say=(lambda line: None) if options.quiet else partial(print, flush=True),
                shifts=options.shifts, seconds=options.segment,
            )  # fmt: skip
        except UserError as error:
            return str(error)


def separate_all(jobs, options):
    """Yield for each of the `jobs`, in their order, None or the sentence of its failure."""
    count = min(options.jobs, len(jobs))
    if count <= 1 or not can_share():
        yield from map(Separator(options, None if options.quiet else bar), jobs)
        return
    load_generator(options.checkpoint)  # so that a bad file is said once, and before any process starts
    stop = multiprocessing.get_context("spawn").Event()
    with workers(count, partial(_begin, options, count, stop)) as pool:
        try:
            yield from pool.map(_work, jobs)
        except KeyboardInterrupt:
            stop.set()
            raise


_separator = None  # of a worker process


def _begin(options, count, stop):
    """Make this process one of `count` workers, which leaves its song, and nothing half-written, once `stop` is set."""
    global _separator
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, cores() // count))
    _separator = Separator(options, partial(_until, stop))


def _work(job):
    return _separator(job)


def _until(stop, estimates, name, samples):
    """Yield the parts of `estimates`; raises `KeyboardInterrupt` once `stop` is set."""
    for part in estimates:
        if stop.is_set():
            raise KeyboardInterrupt
        yield part
