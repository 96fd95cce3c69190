"""The report's figures, by subject: `figures.arms.forest(differences)`.

Every function takes data that was read elsewhere and returns a figure made by `style.panels`. It is already closed, so
that a notebook shows it once: as the last expression of a cell.

A new figure is one function here and one call in a notebook. With the metadata `"figure": "<slug>"` the cell's figure
also appears on the front page, and in the run's folder as <notebook>-<slug>.png.
"""

from lib.report.figures import arms as arms
from lib.report.figures import data as data
from lib.report.figures import listen as listen
from lib.report.figures import memorisation as memorisation
from lib.report.figures import style as style
from lib.report.figures import training as training
