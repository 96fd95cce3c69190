"""Demucs made fast on a CPU: same weights, same mathematics, another memory layout. Start reading at `prepare.py`."""
