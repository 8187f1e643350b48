"""Python imports this before a program that `costspan run` or `costspan doctor` started, as with any `sitecustomize`.

It stands on PYTHONPATH in front of a `sitecustomize` that the environment may have, and runs that one afterwards.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _start(watcher: str, directory: str) -> None:
    try:
        import_module(watcher).watch(directory)
    except Exception as error:  # noqa: BLE001  the program must run, whatever is the matter with us
        try:
            problem = f"{sys.executable}: costspan could not start ({type(error).__name__}: {error})"
            Path(directory, f"{os.getpid()}.problem").write_text(problem, encoding="utf-8")
        except OSError:
            pass


def _run_the_shadowed() -> None:
    # The program's own sys.path is without us; PYTHONPATH stays, for its children.
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


# Nobody else means us: a test runner or a type checker that imports every file.
if __name__ == "sitecustomize":
    # The doctor's first: it sees what the other one does.
    for variable, watcher in (("COSTSPAN_DOCTOR", "costspan.doctor.witness"), ("COSTSPAN_RUN", "costspan.run")):
        if variable in os.environ:
            _start(watcher, os.environ[variable])
    _run_the_shadowed()
