"""Progress bars as text, for terminals, notebooks and papermill's log."""

import sys


def progress(label, total, iterable=None, initial=0, unit="tracks"):
    """A tqdm bar on standard output, redrawn every five seconds at most."""
    from tqdm import tqdm  # only here: a training draws no bar

    class Bar(tqdm):
        def __del__(self):
            """Nothing: tqdm's own prints a traceback if its constructor was interrupted."""

    return Bar(
        iterable, label, total, initial=initial, file=sys.stdout, mininterval=5,
        bar_format=f"{{desc}}: {{n_fmt}} of {{total_fmt}} {unit}, {{elapsed}} so far, {{remaining}} left",
    )  # fmt: skip
