"""The command that separates songs; `python -m lib.separate --help` explains it."""

import argparse
import sys
from pathlib import Path

import torch

from lib.common.errors import Parser, UserError
from lib.common.processes import keep_buffers
from lib.common.progress import progress
from lib.data.songs import FORMATS, Song, decibels, scratch_folder, song_name, write_stems
from lib.data.tracks import SAMPLERATE
from lib.models.cpu.prepare import prepare
from lib.models.weights import load_generator
from lib.separate import measure, stream


def separate_song(model, path, out, *, form="24", shifts=0):
    """Separate the song in the file `path` into `out`/<name of the song>/<stem>.wav, and print progress and remarks.

    form: as in `lib.data.songs.write_stems`; shifts: as in `lib.separate.stream`.
    """
    folder = Path(out) / song_name(path)
    with scratch_folder(out) as scratch:
        song = Song(path, scratch)
        level = measure(song.blocks(), str(path))
        for remark in song.remarks:
            print(remark)
        estimates = _watched(stream(model, song.blocks(), level, shifts=shifts), song_name(path), level.samples)
        peaks, gain = write_stems(song, estimates, folder, scratch, form)
    print(f"{folder}: peaks of " + ", ".join(f"{source} {decibels(peak):.1f} dB" for source, peak in peaks.items()))
    if gain < 1:
        print(
            f"{folder}: all four stems are {-decibels(gain):.1f} dB quieter than in the song, because the loudest "
            f"would clip at {form} bits; their balance is kept, and --format float keeps the level too."
        )


def _watched(estimates, name, samples):
    """Yield the parts of `estimates` with a progress bar in seconds; raises `UserError` if one is not finite."""
    done = 0
    with progress(name, round(samples / SAMPLERATE), unit="s") as bar:
        for part in estimates:
            if not torch.isfinite(part).all():
                raise UserError(f"The generator's estimates of {name} are not finite; its weights are damaged.")
            yield part
            done += part.shape[-1]
            bar.update(round(done / SAMPLERATE) - bar.n)


def _parser():
    parser = Parser(
        prog="python -m lib.separate",
        description="Separate songs into drums, bass, other and vocals: one wav file each, with the song's level, "
        "length, sample rate and number of channels (more than two are mixed down to stereo).",
        epilog="""examples:
  python -m lib.separate song.mp3
  python -m lib.separate *.flac --checkpoint results/study/l1-42 --out stems --format float
  python -m lib.separate "Band - Song.stem.mp4" --checkpoint demucs.th.gz --shifts 10

A song may be wav, flac, mp3, ogg, .stem.mp4 (its mixture) or any other format that ffmpeg decodes, of any sample rate
and length. The networks work at 44,100 Hz, so the stems hold nothing above 22 kHz.
Without --checkpoint, a small model is used that was trained on this project's composed corpus only; one trained on
real music separates real music better.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("songs", nargs="+", metavar="SONG", help="audio file")
    parser.add_argument("--checkpoint", metavar="FILE", help="generator: model.safetensors of a run, its folder, or "
                        "Demucs v1's published weights (.th, .th.gz); default: the bundled model")  # fmt: skip
    parser.add_argument("--out", default="separated", metavar="FOLDER", help="stems go to FOLDER/SONG/drums.wav … "
                        "(default: %(default)s) and replace those of an earlier run")  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default="24", help="bits per sample of the wav files, or 32-bit "
                        "float, which cannot clip; if a stem would clip at 16 or 24, all stems of the song become "
                        "quieter by the same factor, and a line says so (default: %(default)s)")  # fmt: skip
    parser.add_argument("--shifts", type=int, default=0, metavar="N", help="average over N random shifts of the song: "
                        "a little better, N times slower; 10 in the paper (default: %(default)s)")  # fmt: skip
    return parser


def main(arguments=None):
    """Run the command; returns its exit status: 1 if a song could not be separated (the others were), else 0."""
    options = _parser().parse_args(arguments)
    if options.shifts < 0:
        raise UserError(f"--shifts {options.shifts} must be 0 or more.")
    keep_buffers()
    model = prepare(load_generator(options.checkpoint).to("cuda" if torch.cuda.is_available() else "cpu"))
    taken, failed = {}, 0
    for path in options.songs:
        try:
            if other := taken.get(song_name(path).casefold()):
                raise UserError(f"{path} would overwrite the stems of {other}; rename one, or give it another --out.")
            separate_song(model, path, options.out, form=options.format, shifts=options.shifts)
            taken[song_name(path).casefold()] = path
        except UserError as error:
            failed += 1
            print(error, file=sys.stderr)
    if taken and not options.checkpoint:
        print("The bundled model knows only this project's composed corpus; --checkpoint FILE takes a better one.")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; the songs that were finished are kept, and nothing half-written is left.")
