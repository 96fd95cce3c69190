"""What a separator or a discriminator is worth: scores, spectral measures, detectability, the D-probe, statistics.

To add a measure of each track, write a module like `spectral` and name its columns in `results`. The package imports
nothing of `report`.
"""
