"""Run the report: the notebooks in order, each only when something it depends on has changed.

    python -m lib.pipeline PROFILE [name=value …]

PROFILE is a file of notebooks/profiles; name=value overrides one of its parameters (value in YAML). Executed notebooks,
their HTML and index.html go to results/<run>/. A stamp per notebook holds the hash of its source, its parameters, the
library and what came before it; a step whose stamp still fits is not repeated. All parameters are checked before the
first step. One process at a time works on a run; if it is killed, everything that it started ends too.
"""

import ast
import contextlib
import hashlib
import json
import logging
import re
import subprocess
import sys
import tempfile

from jupyter_client.manager import AsyncKernelManager

from lib.common.errors import UserError
from lib.common.files import locked, write_bytes
from lib.common.provenance import ROOT
from lib.common.untrusted import SETTINGS, parse_yaml, read_limited
from lib.data.musdb import fingerprint_folder
from lib.report.guard import check_type, nearest, notebook_parameters
from lib.report.limits import check_values
from lib.report.pages import settle, write_index, write_page

NOTEBOOKS = ROOT / "notebooks"
_CHATTER = re.compile(r"(Input|Output|Executing|Ending|Working directory|<)|\s*$")  # papermill's own log lines
LIBRARY = (".py", ".js", ".css")
# Each notebook, and those whose results it reads.
STEPS = {
    "01-data": [],
    "02-train": ["01-data"],
    "03-sdr-table": ["02-train"],
    "04-discriminator": ["02-train", "03-sdr-table"],
    "05-listen": ["02-train", "03-sdr-table"],
    "06-explore": ["02-train"],
}


class Kernel(AsyncKernelManager):
    """The process of a notebook, reached by files that only this user can open instead of ports.

    What its own machinery has to say, mostly when it ends, means nothing to a reader.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        self.transport, self.ip = "ipc", f"{self._sockets.name}/socket"

    def start_kernel(self, **options):
        return super().start_kernel(stderr=subprocess.DEVNULL, **options)


def read_profile(name, overrides=()):
    """Parameters of profile `name`, with `name=value` words over them; raises `UserError` on a bad name or word."""
    path = NOTEBOOKS / "profiles" / f"{name}.yaml"
    if path not in (profiles := sorted(path.parent.glob("*.yaml"))):
        known = ", ".join(p.stem for p in profiles)
        raise UserError(f"There is no profile {name!r} in notebooks/profiles; choose one of {known}.")
    try:
        parameters = parse_yaml(read_limited(path, SETTINGS))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML ({error}).") from error
    if not isinstance(parameters, dict):
        raise UserError(f"{path} must hold lines of the form name: value.")
    known = {}
    for step in STEPS:
        known |= notebook_parameters(NOTEBOOKS / f"{step}.ipynb")
    for word in overrides:
        parameter, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not of the form name=value.")
        try:
            parameters[parameter] = parse_yaml(text)
        except ValueError as error:
            raise UserError(f"The value of {parameter} is not valid YAML: {text!r}.") from error
    parameters = {"run": name} | parameters
    for parameter, value in parameters.items():
        if parameter not in known:
            raise UserError(f"No notebook has a parameter {parameter!r}; {nearest(str(parameter), known)}")
        annotation, _ = known[parameter]
        if ast.unparse(annotation) == "float":
            value = _number(value)
        parameters[parameter] = check_type(parameter, value, annotation)
    check_values({parameter: default for parameter, (_, default) in known.items()} | parameters)
    return parameters


def _number(value):
    """YAML takes 3e-4 for a text; people, and papermill, for a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def run(profile, overrides=()):
    """Bring results/<run>/ up to date; returns that folder. Raises `UserError` when a step stops, with its cause."""
    parameters = read_profile(profile, overrides)
    folder = ROOT / "results" / parameters["run"]
    with locked(folder):
        _bring_up_to_date(folder, parameters)
    print(f"The report: {folder / 'index.html'}")
    return folder


def _bring_up_to_date(folder, parameters):
    library = _hash(*(path.read_bytes() for path in sorted((ROOT / "lib").rglob("*")) if path.suffix in LIBRARY))
    keys, changed = {}, False
    for step, needs in STEPS.items():
        source = NOTEBOOKS / f"{step}.ipynb"
        own = {name: value for name, value in parameters.items() if name in notebook_parameters(source)}
        keys[step] = _hash(
            source.read_bytes(),
            json.dumps(own, sort_keys=True).encode(),
            library.encode(),
            *(keys[need].encode() for need in needs),
            _fingerprint(own.get("musdb_root", "embedded")).encode(),
        )
        stamp, page = folder / ".stamps" / f"{step}.json", folder / f"{step}.html"
        if stamp.exists() and stamp.read_bytes() == _stamp(keys[step]) and page.exists():
            print(f"{step}: up to date")
            continue
        print(f"{step}: running", flush=True)
        _execute(source, folder / f"{step}.ipynb", own)
        settle(folder / f"{step}.ipynb")
        write_page(folder / f"{step}.ipynb", page, STEPS)
        write_bytes(stamp, _stamp(keys[step]))
        changed = True
    if changed or not (folder / "index.html").exists():
        write_index(folder, STEPS)


def _stamp(key):
    return json.dumps(key).encode() + b"\n"


def _execute(source, output, parameters):
    """Execute a notebook to `output`; on failure the previous `output` stays, and `output`.failed shows where."""
    import papermill

    temporary, failed = output.with_name(f".{output.name}"), output.with_name(f"{output.stem}.failed.ipynb")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        how = {"log_output": True, "progress_bar": False, "kernel_manager_class": Kernel}
        papermill.execute_notebook(source, temporary, parameters, cwd=NOTEBOOKS, **how)
        temporary.replace(output)
        failed.unlink(missing_ok=True)
    except papermill.PapermillExecutionError as error:
        temporary.replace(failed)
        cause = error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}; see {failed}."
        raise UserError(f"{source.stem} stopped: {cause}") from error
    except RuntimeError as error:  # nbclient's, for a process that has ended
        raise UserError(
            f"{source.stem} stopped: its process was killed or does not answer, perhaps for want of memory "
            f"({str(error).splitlines()[0]}); run the same command again, it goes on from there."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write {output} ({error.strerror or error}); free some space, run again.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _fingerprint(root):
    """What the step depends on outside this repository."""
    return "" if root in ("embedded", "sample") else fingerprint_folder(root)


def _hash(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def main(arguments=None):
    """Command line; see the module's docstring."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("papermill").addFilter(lambda record: not _CHATTER.match(record.getMessage()))
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    run(arguments[0], arguments[1:])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped; what is finished is kept, and the same command goes on from there.")
