"""What readers see of a run: tables, sentences, figures, players, controls, and the pages that hold them.

Everything is computed from result files. A new figure or sentence is one function in `figures` or `sentences` and one
call in a notebook; a new block of README.md is one entry in `readme.BLOCKS`.
"""
