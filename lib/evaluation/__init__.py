"""Scores, measures and tests of what was trained.

`score.py` evaluates a set as museval does (`bsseval.py`), `songs.py` a folder of real songs, `spectral.py` measures
detail, `detectability.py` and `probe.py` train discriminators, `results.py` reads what was measured, `stats.py`
compares arms, and `bundle.py` makes the bundled weights. The package never imports `lib.report`.
"""
