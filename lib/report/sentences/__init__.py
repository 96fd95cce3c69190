"""What the report's numbers say, in sentences that are computed and so stay true when parameters change.

A new sentence is one function here and one call in a notebook: `Markdown(sentences.arms.power(seeds, tracks))`. For the
front page and README.md, `headline.findings` calls it too.
"""

from IPython.display import Markdown

from lib.report.sentences import answers as answers
from lib.report.sentences import arms as arms
from lib.report.sentences import discriminator as discriminator
from lib.report.sentences import headline as headline
from lib.report.sentences import listen as listen

NOT_RUN = Markdown("*Not run here.*")  # in place of a figure whose table is missing
