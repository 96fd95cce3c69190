"""Progress of work on tracks, as text: in a terminal, a notebook's output and papermill's log alike."""

import sys

from tqdm import tqdm


def progress(label, total, iterable=None, initial=0, disable=False, unit="tracks"):
    """A tqdm bar on standard output, few lines long."""
    return tqdm(
        iterable, label, total, initial=initial, disable=disable, file=sys.stdout, mininterval=5,
        bar_format=f"{{desc}}: {{n_fmt}} of {{total_fmt}} {unit}, {{elapsed}} so far, {{remaining}} left",
    )  # fmt: skip
