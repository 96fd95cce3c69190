"""The style of the report's figures: one theme, one colour per stem and per arm, one way to lay out panels."""

import itertools

import matplotlib.pyplot as plt
import seaborn as sns
from IPython import get_ipython
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from lib.data.tracks import SOURCES
from lib.evaluation.results import ARMS

# Okabe & Ito's colour-blind-safe palette: the same colour for a stem and for an arm in every figure. What the
# discriminator sees is navy (real) or ochre (generated).
COLOURS = {
    "drums": "#0072B2", "bass": "#E69F00", "other": "#009E73", "vocals": "#CC79A7", "all": "#444444",
    "mixture": "#999999", "l1": "#000000", "gan": "#D55E00", "gan-cures": "#56B4E9",
    "l1-long": "#666699", "pretrain": "#BBBBBB", "spectral": "#117733", "spectral-adv": "#AA4499",
    "spectral-gan": "#882255", "frozen": "#B8A03A", "gan-share": "#E8A27C",
    "real": "#22408C", "generated": "#94660F",
}  # fmt: skip
FURTHER = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#117733")  # of other stems
WIDTH = 9.0  # inches: 900 px of a notebook at 100 dpi


def use():
    """Set the theme of all later figures; a notebook shows them as PNG, whatever MPLBACKEND or a profile asks for.

    The PNG has twice the pixels of its size on the page, for sharp screens.
    """
    if shell := get_ipython():
        shell.run_line_magic("matplotlib", "inline")
        set_matplotlib_formats("retina")
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.8)
    plt.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 110, "figure.constrained_layout.use": True, "lines.linewidth": 1.6,
        "axes.titlesize": "medium", "axes.titlelocation": "left", "axes.edgecolor": "#666666",
        "axes.spines.top": False, "axes.spines.right": False, "grid.color": "#E6E6E6", "legend.frameon": False,
        "figure.titlesize": "large", "figure.titleweight": "bold",
    })  # fmt: skip


def panels(columns, height, title, rows=1, **options):
    """A closed figure of notebook width, and its axes (rows × columns) in reading order."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False, **options)
    plt.close(figure)
    figure.suptitle(title, x=0.01, ha="left")
    return figure, axes.ravel()


def legend_below(figure, axis, columns=4):
    """One legend for all panels, below them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def hertz_axis(axis):
    """Set ticks at 100, 200, 500, 1k … on a logarithmic axis in Hz."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def stem_colours(stems):
    """{stem: colour} of all stems of a run: those of `COLOURS`, and for others what these leave of `FURTHER`."""
    known = {stem: COLOURS[stem] for stem in stems if stem in SOURCES}
    left = itertools.cycle([colour for colour in FURTHER if colour not in known.values()])
    return {stem: known[stem] if stem in known else next(left) for stem in stems}


def arm_colour(arm):
    """Colour of an arm, also given as <arm>-<seed>; arms beyond the palette share one."""
    return COLOURS.get(arm, COLOURS.get(arm.rpartition("-")[0], "#8A5AAB"))


def arm_label(arm):
    """An arm's short name on an axis."""
    return arm if arm == "mixture" else ARMS.get(arm, arm)
