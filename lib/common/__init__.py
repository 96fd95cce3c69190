"""What every other package may use: errors, files, limits, processes, progress, provenance, words."""

from lib.common.processes import open_streams

open_streams()  # before this project opens any file
