"""Every measure of an estimate beside BSSEval v4: the columns, and their values for a track.

A family is a module with `COLUMNS`, {name: Column}, and `measure(references, estimates, mixture)`, which returns
{name: values of the stems}. To add a measure, add it to a family, or a family to `FAMILIES`, and raise `VERSION`.
"""

from lib.evaluation import mel, spectral, waveform

VERSION = 2  # of the values; see lib.evaluation.score
FAMILIES = (waveform, mel, spectral)
MEASURES = {name: column for family in FAMILIES for name, column in family.COLUMNS.items()}


def measure(references, estimates, mixture):
    """[{measure: value} per stem] of a track; arrays (stems, channels, samples) and the mixture (channels, samples)."""
    columns = {}
    for family in FAMILIES:
        columns |= family.measure(references, estimates, mixture)
    return [{name: float(columns[name][k]) for name in MEASURES} for k in range(len(references))]
