"""Coverage-guided fuzzing of the readers that are written in Python, by atheris 3.0.0 (which requirements.txt lacks).

In a venv of its own that sees the project's packages, from the repository:

    python3.11 -m venv /tmp/atheris && /tmp/atheris/bin/pip install atheris==3.0.0
    echo "$PWD/.venv/lib/python3.11/site-packages" > /tmp/atheris/lib/python3.11/site-packages/project.pth
    PYTHONPATH=.:tests /tmp/atheris/bin/python tests/robustness/fuzz_atheris.py published -max_total_time=200 /tmp/c

The first word is a name of `TARGETS`, the others are libFuzzer's. It ends at the first input that gets a traceback.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.modules.pop("pickle", None)  # imported anew, with its branches counted
with atheris.instrument_imports(include=["lib", "pickle", "yaml", "json"], enable_loader_override=False):
    from lib import pipeline
    from lib.demucs import Demucs
    from lib.evaluation import results
    from lib.report import profile
from support import outcome  # noqa: E402

TARGETS = {
    "published": (Demucs.load_published, "demucs.th"),
    "museval": (lambda path: results.read_museval(path.parent), "A - B.json"),
    "profile": (lambda path: pipeline.read_profile(path.stem), "profiles/mine.yaml"),
}


def main():
    """Command line: TARGET [option of libFuzzer …] [folder of inputs]."""
    read, name = TARGETS[sys.argv.pop(1)]
    path = Path(tempfile.mkdtemp(dir="/dev/shm"), name)
    path.parent.mkdir(exist_ok=True)
    declared = profile._declared(pipeline.NOTEBOOKS)
    pipeline.NOTEBOOKS, profile._declared = path.parent.parent, lambda notebooks: declared

    def once(content):
        outcome(read, path, content, names="")

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
