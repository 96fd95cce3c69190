"""The command that separates songs; `python -m lib.separate --help` explains it."""

import argparse
import sys
from pathlib import Path

import torch

from lib.common.errors import Parser, UserError
from lib.common.processes import command
from lib.models.weights import read_stems
from lib.separate.names import PATTERN, STDIN, check_pattern, find_songs, name_files
from lib.separate.songs import separate_all, stem_names
from lib.separate.stems import BITS


def _parser():
    parser = Parser(
        prog="python -m lib.separate",
        description="Separate songs into drums, bass, other and vocals, or the stems that the checkpoint was trained "
        "on: one file each, with the song's level, length, sample rate and number of channels (more than two are mixed "
        "down to stereo).",
        epilog="""examples:
  python -m lib.separate song.mp3
  python -m lib.separate album/ *.flac -o stems --format flac -j 2
  python -m lib.separate song.wav --two-stems vocals --name "{track} ({stem}).{ext}"
  python -m lib.separate "Band - Song.stem.mp4" --shifts 10
  cat song.wav | python -m lib.separate - --sum-to-song

A song may be wav, flac, mp3, ogg, .stem.mp4 (its mixture) or any other format that ffmpeg decodes, of any sample rate
and length. The networks work at 44,100 Hz, so the stems hold nothing above 22 kHz (with --sum-to-song, each holds an
equal share of it). A song whose stems are all there is skipped; one that fails does not keep the others from being
separated, and the exit status is then 1.
Without --checkpoint, a small model is used that was trained on this project's composed corpus only; one trained on
real music separates real music better.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("songs", nargs="+", metavar="SONG", help="audio file; a folder, for all songs in it; or - for standard input")
    add("-n", "--checkpoint", metavar="FILE", help="generator: model.safetensors of a run, its folder, or Demucs v1's "
        "published weights (.th, .th.gz); default: the bundled model")  # fmt: skip
    add("-o", "--out", default="separated", metavar="FOLDER", help="where stems go (default: %(default)s)")
    add("--name", default=PATTERN, metavar="PATTERN", help="file of each stem in that folder (default: %(default)s); "
        "the track of a folder's song is its path in the folder")  # fmt: skip
    add("--overwrite", action="store_true", help="separate songs again whose stems are there, and replace these")
    add("--two-stems", metavar="STEM", help="write STEM, one of the model's, and the sum of the others as no_STEM")
    add("--sum-to-song", action="store_true", help="give each stem an equal share of what their sum lacks of the "
        "song: files of 16 or 24 bits then add up to the song (rounded to these bits) in every sample, floats to the "
        "rounding of 32 bits")  # fmt: skip
    add("--format", choices=BITS, default="wav", help="kind of file (default: %(default)s); mp3 has 320 kbit/s")
    add("--bits", choices=BITS["wav"], help="bits per sample of wav or flac, or, in wav, 32-bit float, which cannot "
        "clip; if a stem would clip, all stems of the song become quieter by the same factor, and a line says so "
        "(default: 24)")  # fmt: skip
    add("--shifts", type=int, default=0, metavar="N", help="average over N random shifts of the song: a little "
        "better, N times slower; 10 in the paper (default: %(default)s)")  # fmt: skip
    add("--segment", type=float, default=10.0, metavar="SECONDS", help="length of the parts that are separated, six "
        "at a time; shorter ones take less memory (default: %(default)s)")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: %(default)s, "
        "which is cuda where there is a GPU)")  # fmt: skip
    add("-j", "--jobs", type=int, default=1, metavar="N", help="songs at once, each in a process with a model of its "
        "own (default: %(default)s)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="print only what fails")
    return parser


def _check(options):
    """Raise `UserError` for values that make no sense, alone or together; sets `bits` and `device` where left open."""
    if options.shifts < 0:
        raise UserError(f"--shifts {options.shifts} must be 0 or more.")
    if not 0.1 <= options.segment <= 3600:
        raise UserError(f"--segment {options.segment:g} must lie between 0.1 and 3600 seconds.")
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} must be 1 or more.")
    if options.jobs > 1 and str(STDIN) in options.songs:
        raise UserError("Standard input holds one song; leave out --jobs.")
    check_pattern(options.name)
    kind, allowed = options.format, BITS[options.format]
    if options.sum_to_song and not allowed:
        raise UserError(f"--sum-to-song needs wav or flac: {kind} changes every sample.")
    if options.bits and options.bits not in allowed:
        what = f"holds {' or '.join(allowed)} bits" if allowed else "has no bits"
        raise UserError(f"--bits {options.bits} is impossible, as {kind} {what}; change --bits or --format.")
    options.bits = options.bits or ("24" if allowed else None)
    gpu = torch.cuda.is_available()
    if options.device == "cuda" and not gpu:
        raise UserError("--device cuda is impossible, as torch sees no GPU here; choose cpu or auto.")
    options.device = "cuda" if gpu and options.device == "auto" else options.device.replace("auto", "cpu")


def _plan(options, stems):
    """([(song, {stem: file})] to separate, the number of finished songs, [the sentence of each that cannot be])."""
    jobs, finished, failures, taken = [], 0, [], {}
    for word in options.songs:
        try:
            found = find_songs(word, options.out)
        except UserError as error:
            failures.append(str(error))
            continue
        for song, folder in found:
            try:
                files = name_files(song, folder, stems, options.format, options.name)
                keys = [str(file).casefold() for file in files.values()]
                if other := next((taken[key] for key in keys if key in taken), None):
                    raise UserError(
                        f"{song} would overwrite the stems of {other}; rename one, or give it another --out."
                    )
            except UserError as error:
                failures.append(str(error))
                continue
            taken |= dict.fromkeys(keys, song)
            there = all((Path(options.out) / file).exists() for file in files.values())
            if there and song != STDIN and not options.overwrite:
                finished += 1
                if not options.quiet:
                    print(f"{song}: its stems are in {options.out} already; --overwrite separates it again.")
            else:
                jobs.append((song, files))
    return jobs, finished, failures


def _summarise(separated, finished, failures):
    """Print how the songs ended, and the sentence of each that failed."""
    counts = {"separated": separated, "there already": finished, "failed": len(failures)}
    print("Songs: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))
    for sentence in failures:
        print(f"  {sentence}")


def main(arguments=None):
    """Run the command; returns its exit status: 1 if a song could not be separated (the others were), else 0."""
    options = _parser().parse_args(arguments)
    _check(options)
    jobs, finished, failures = _plan(options, stem_names(read_stems(options.checkpoint), options.two_stems))
    for sentence in failures:
        print(sentence, file=sys.stderr)
    ended = []
    for sentence in separate_all(jobs, options):
        ended.append(sentence)
        if sentence:
            print(sentence, file=sys.stderr, flush=True)
    failures += filter(None, ended)
    separated = ended.count(None)
    if not options.quiet:
        if separated + finished + len(failures) > 1:
            _summarise(separated, finished, failures)
        if separated and not options.checkpoint:
            print("The bundled model knows only this project's composed corpus; --checkpoint FILE takes a better one.")
    return int(bool(failures))


if __name__ == "__main__":
    command(main)
