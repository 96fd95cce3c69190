"""Audio files and what training and separation read of them.

`musdb.py` decodes a musdb folder into arrays, `tracks.py` reads these arrays and excerpts of them, `batches.py` makes
augmented batches, and `songs.py` reads songs of any format and writes their stems. The package imports `lib.common`
only; `tracks.py` and its readers need neither musdb nor ffmpeg.
"""
