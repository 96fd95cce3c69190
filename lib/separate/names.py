"""Which songs a command line asks for, and the files that each is to give."""

import re
from pathlib import Path, PurePath

from lib.common.errors import UserError
from lib.common.files import is_litter
from lib.data.songs import song_name

STDIN = Path("-")
PATTERN = "{track}/{stem}.{ext}"  # of the files of stems
ENDINGS = {  # of the files in a folder that are songs; a file that is named itself may end in anything
    ".aac", ".ac3", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4",
    ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma", ".wv",
}  # fmt: skip


def find_songs(word, out):
    """[(song, folder of its stems)] of one word of the command line: a file, "-", or a folder with songs at any depth.

    The folder is relative: "." or, for songs of a folder, their place in it. What lies in `out` is no song. Raises
    `UserError` for a folder without songs.
    """
    path, out = Path(word), Path(out).resolve()
    if not path.is_dir():
        return [(path, PurePath())]
    files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS and file.is_file())
    found = [(file, file.relative_to(path)) for file in files if not file.resolve().is_relative_to(out)]
    found = [(file, name.parent) for file, name in found if not any(map(_is_hidden, name.parts))]
    if not found:
        raise UserError(f"{path} holds no songs; name a folder that does, or a file.")
    return found


def _is_hidden(name):
    return name.startswith(".") or is_litter(name)


def check_pattern(pattern):
    """Raise `UserError` unless files can be named by `pattern`, such as {track}/{stem}.{ext}."""
    unknown = sorted(set(re.findall(r"{.*?}|[{}]", pattern)) - {"{track}", "{stem}", "{ext}"})
    if unknown or "{stem}" not in pattern:
        wrong = f"has {unknown[0]}" if unknown else "lacks {stem}"
        raise UserError(f"--name {pattern} {wrong}; write it with {{track}}, {{stem}} and {{ext}}.")
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts or pattern.endswith("/"):
        raise UserError(f"--name {pattern} must name files below the folder of --out.")


def name_files(song, folder, stems, ext, pattern):
    """{stem: relative path} by `pattern`; raises `UserError` for a song without a name of its own."""
    track = folder / ("stdin" if song == STDIN else song_name(song))
    # The track's name last: what it holds is no field
    named = {stem: pattern.replace("{ext}", ext).replace("{stem}", stem) for stem in stems}
    return {stem: PurePath(name.replace("{track}", str(track))) for stem, name in named.items()}
