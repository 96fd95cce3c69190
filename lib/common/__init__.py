"""What every other package may use: errors, files, limits, processes, progress, provenance, words."""

from lib.common.processes import name_home, open_streams

name_home()
open_streams()  # before this project opens any file
