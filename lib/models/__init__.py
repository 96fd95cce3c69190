"""The generators by name, the files of their weights, the original's checkpoints, and a faster Demucs.

corpus.safetensors holds the bundled generator.
"""
