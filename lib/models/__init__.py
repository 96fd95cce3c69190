"""The generators by name, the files of their weights, and a faster Demucs.

`generators.py` builds a generator, `weights.py` saves and loads this project's files, `original.py` loads the original
Demucs's checkpoints, `cpu/` computes Demucs faster, and corpus.safetensors holds the bundled generator. The package
imports `lib.demucs`, `lib.data` and `lib.common` only.
"""
