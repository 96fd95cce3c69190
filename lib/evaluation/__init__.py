"""Scores, measures and tests of what was trained.

`score.py` evaluates a set as museval does (`bsseval.py`), `songs.py` a folder of real songs. `measures.py` lists the
measures beside BSSEval: of the waveform (`waveform.py`), of mel spectrograms (`mel.py`) and of spectra (`spectral.py`);
`checks.py` tries them on known errors. `detectability.py` and `probe.py` train discriminators, `results.py` reads what
was measured, `stats.py` compares arms, `bundle.py` and `calibrate.py` make the bundled weights. The package never
imports `lib.report`.
"""
