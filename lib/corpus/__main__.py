"""The worker process of `lib.corpus.generate`: `python -m lib.corpus`.

It reads one job per line, a JSON list [root, split, seed, k, seconds, soundfont], writes the track and answers with
one line: `done` or the error.
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
    except Exception as error:  # the parent waits for an answer
        answer = " ".join(f"{type(error).__name__}: {error}".split())
    print(answer, flush=True)
