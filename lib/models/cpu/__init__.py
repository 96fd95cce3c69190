"""Demucs made fast on a CPU: same weights, same mathematics, another memory layout.

`prepare.py` returns the faster network; `convolutions.py` and `lstm.py` hold its layers. The package imports torch,
`lib.demucs` and `lib.common` only.
"""
