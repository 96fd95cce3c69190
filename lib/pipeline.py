"""Run the report: the notebooks in order, each only when something it depends on has changed.

    python -m lib.pipeline PROFILE [name=value …]

PROFILE is a file of notebooks/profiles; name=value overrides one of its parameters (text as typed, others in YAML).
Executed notebooks, their HTML and index.html go to results/<run>/. A stamp per file holds a hash of what the file
depends on: for an executed notebook its source, its parameters, the modules of lib that it imports, the data and the
notebooks before it; for a page the notebook and the modules that write pages. A file whose stamp is current is not made
again.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from lib.common.errors import UserError
from lib.common.files import atomic, locked, write_bytes
from lib.common.processes import command
from lib.common.provenance import ROOT
from lib.data.musdb import PROVIDED, fingerprint, list_musdb, list_test_sets
from lib.data.tracks import SOURCES
from lib.report import profile
from lib.report.front_page import write_index
from lib.report.guard import code_cells, notebook_parameters
from lib.report.pages import check_figures, settle, write_page

NOTEBOOKS = ROOT / "notebooks"
_CHATTER = re.compile(r"(Input|Output|Executing|Ending|Working directory|<)|\s*$")  # papermill's own log lines
# Each notebook, and those whose results it reads.
STEPS = {
    "01-data": [],
    "02-train": ["01-data"],
    "03-sdr-table": ["02-train"],
    "04-discriminator": ["02-train", "03-sdr-table"],
    "05-listen": ["02-train", "03-sdr-table"],
    "06-explore": ["02-train"],
}
SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes of a socket's path, at most
# Files that a module reads from its folder.
ASSETS = {"lib.draw_audio": ("*.js", "*.css"), "lib.report.document": ("pages.css",)}


class Kernel(AsyncKernelManager):
    """A notebook's process, reached by files that only this user can open, not by ports.

    It is this Python, whatever kernel is first on Jupyter's path, and knows no IPython profile of the user.
    """

    kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
    )

    def __init__(self, **options):
        super().__init__(**options)
        self._folder = _socket_folder()
        self.transport, self.ip = "ipc", f"{self._folder.name}/socket"

    def start_kernel(self, **options):
        # Threads that spin while they wait hold up whatever runs beside them: here, eight times as long
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"IPYTHONDIR": f"{self._folder.name}/ipython"}
        # stderr: it holds only messages of Jupyter itself
        return super().start_kernel(env=environment, stderr=subprocess.DEVNULL, **options)


def _socket_folder():
    """A new temporary folder, in the first place whose path is short enough for sockets."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  the folder is new, and this user's alone
        with contextlib.suppress(OSError):
            folder = tempfile.TemporaryDirectory(prefix="kernel-", dir=place)
            if len(os.fsencode(f"{folder.name}/socket-5")) <= SOCKET_PATH:
                return folder
            folder.cleanup()
    raise UserError(f"The path {tempfile.gettempdir()} is too long for sockets; set TMPDIR to a shorter one.")


def read_profile(name, overrides=()):
    """`lib.report.profile.read` of this project's notebooks."""
    return profile.read(NOTEBOOKS, name, overrides)


def run(name, overrides=()):
    """Update results/<run>/ and return that folder. Raises `UserError` with the cause when a notebook stops."""
    parameters = read_profile(name, overrides)
    folder = ROOT / "results" / parameters["run"]
    with locked(folder):
        _update(folder, parameters)
    print(f"The report: {folder / 'index.html'}")
    return folder


def _update(folder, parameters):
    keys, pages, took = {}, _module_hash("lib.report.pages"), {}
    for step, needs in STEPS.items():
        began = time.monotonic()
        source, notebook, page = NOTEBOOKS / f"{step}.ipynb", folder / f"{step}.ipynb", folder / f"{step}.html"
        own = {name: parameters[name] for name in notebook_parameters(source) if name in parameters}
        root = own.get("musdb_root", "embedded")
        how = {"stems": own.get("stems", SOURCES), "litter": [], "refused": {}}
        tracks = {} if root in PROVIDED else list_musdb(root, **how)
        tracks |= list_test_sets(own.get("test_sets", {}), **how)
        modules = _imports("\n".join(code_cells(source)))
        keys[step] = _hash(
            source.read_bytes(),
            json.dumps(own, sort_keys=True),
            _module_hash(*modules),
            fingerprint(tracks, how["stems"]),
            *(keys[need] for need in needs),
        )
        executed = _make(notebook, keys[step], partial(_execute, source, notebook, own))
        _make(page, _hash(keys[step], pages), partial(_render, notebook, page))
        if executed:
            took[step] = divmod(round(time.monotonic() - began), 60)
        else:
            print(f"{step}: up to date")
    _make(folder / "index.html", _hash(*keys.values(), pages), partial(write_index, folder, STEPS))
    if took:
        print("Where the time went, in minutes and seconds:")
    for step, (minutes, seconds) in took.items():
        print(f"  {step:<18}{minutes:4}:{seconds:02}")


def _make(file, key, make):
    """Call `make`, which writes `file`, unless the file's stamp is `key`; returns whether it was called."""
    stamp = file.parent / ".stamps" / file.name
    if file.exists() and stamp.exists() and stamp.read_bytes() == key.encode():
        return False
    make()
    write_bytes(stamp, key.encode())
    return True


def _render(notebook, page):
    settle(notebook)
    write_page(notebook, page, STEPS)


def _module_hash(*names):
    """Hash of the modules `names`, of all that they import from lib, directly or not, and of their assets."""
    files, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        # The guard computes nothing; what is no file is a name in a module.
        if name in files or name == "lib.report.guard" or not path.is_file():
            continue
        files[name] = [path, *(file for asset in ASSETS.get(name, ()) for file in sorted(path.parent.glob(asset)))]
        waiting += _imports(path.read_text(encoding="utf-8"))
    return _hash(*(file.read_bytes() for name in sorted(files) for file in files[name]))


def _imports(source):
    """Names of the modules of lib that Python `source` may need: imported, or started as a program by their name."""
    names = set(re.findall(r"^\s*(?:from|import) (lib[.\w]*)", source, re.MULTILINE))
    names |= {f"{name}.__main__" for name in re.findall(r'"(lib[.\w]+)"', source)}
    for package, imported in re.findall(r"^\s*from (lib[.\w]*) import ([\w, ]+|\([^)]+\))", source, re.MULTILINE):
        names |= {f"{package}.{name}" for name in re.findall(r"\w+", imported)}
    parts = [name.split(".") for name in names]
    return {".".join(words[:count]) for words in parts for count in range(1, len(words) + 1)}


def _execute(source, output, parameters):
    """Execute a notebook to `output`; on failure the previous `output` stays, and `output`.failed shows where."""
    import papermill

    print(f"{source.stem}: running", flush=True)
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    how = {"log_output": True, "progress_bar": False, "kernel_manager_class": Kernel}
    with atomic(output) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # papermill's, of a name that does not end in .ipynb
        try:
            papermill.execute_notebook(source, temporary, parameters, cwd=NOTEBOOKS, **how)
            check_figures(temporary, source.stem)
        except papermill.PapermillExecutionError as error:
            temporary.replace(failed)
            cause = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}; see {failed}."
            raise UserError(f"{source.stem} stopped: {cause}") from error
        except RuntimeError as error:  # nbclient's, for a process that has ended
            raise UserError(
                f"{source.stem} stopped: its process was killed or does not answer, perhaps for want of memory "
                f"({str(error).splitlines()[0]}); run the same command again, it goes on from there."
            ) from error
    failed.unlink(missing_ok=True)


def _hash(*parts):
    parts = [hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest() for part in parts]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def main():
    """Command line; see the module's docstring."""
    name, *overrides = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("papermill").addFilter(lambda record: not _CHATTER.match(record.getMessage()))
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    run(name, _words(overrides))


def _words(arguments):
    """The words name=value of a command line; --set takes several in one string, split as a shell would."""
    if "--set" not in arguments[:-1]:
        return arguments
    place = arguments.index("--set")
    try:
        return arguments[:place] + shlex.split(arguments[place + 1]) + arguments[place + 2 :]
    except ValueError as error:
        raise UserError(
            f"SET = {arguments[place + 1]} cannot be split into words ({error}); close the quote."
        ) from error


if __name__ == "__main__":
    command(main)
