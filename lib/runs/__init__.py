"""The runs of a training: their folders, what is built for them, their checkpoints, processes and launcher.

The package imports `config`, `models`, `discriminator`, `data` and `common`, and never `evaluation` or `report`.
"""
