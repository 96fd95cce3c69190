"""Progress of work on tracks, as text: in a terminal, a notebook's output and papermill's log alike."""

import sys

from tqdm import tqdm


def progress(label, total, iterable=None, initial=0, disable=False):
    """A tqdm bar on standard output, few lines long."""
    return tqdm(
        iterable, label, total, initial=initial, disable=disable, file=sys.stdout, mininterval=5, unit="track",
        bar_format="{desc}: {n_fmt} of {total_fmt} tracks, {elapsed} so far, {remaining} left",
    )  # fmt: skip
