"""The process that writes tracks of the corpus for `lib.corpus.generate`: `python -m lib.corpus`.

It reads jobs, a JSON list [root, split, seed, k, seconds, soundfont] per line, and answers each with a line: `done`
or what went wrong.
"""

import json
import sys

from lib.common.errors import UserError
from lib.corpus.track import write

for line in sys.stdin:
    try:
        write(*json.loads(line))
        answer = "done"
    except UserError as error:
        answer = str(error)
    except Exception as error:  # whatever it is, the process that waits must hear of it
        answer = " ".join(f"{type(error).__name__}: {error}".split())
    print(answer, flush=True)
