"""Count the instructions of a Python statement with valgrind's callgrind.

Wall time on a shared machine says little; the number of instructions is the same on a busy and on an idle one. The
statement runs ``n`` and then ``2n`` times in two fresh interpreters, so that start-up, imports and setup cancel out.

As a program: ``python -m tests.bench.instructions 'd["a"]' --setup 'd = {"a": 1}'``.
"""

from __future__ import annotations

import argparse
import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

_WARM = 64
"""Runs before counting starts to matter: the interpreter specialises code after a handful of passes."""

_PROGRAM = """\
import gc
{setup}
def _loop(_times):
    for _ in range(_times):
{body}
_loop({warm})
import os, subprocess
# Until now valgrind has run the program ten times as fast. Where it does not run at all, there is nothing to switch.
subprocess.run(["callgrind_control", "--instr=on", str(os.getpid())], capture_output=True)
gc.collect()
gc.disable()
_loop({times})
os._exit(0)
"""


def available() -> bool:
    """Whether ``valgrind`` is installed on this machine."""
    return shutil.which("valgrind") is not None


def instructions(
    stmt: str, setup: str = "pass", n: int = 1000, env: dict[str, str] | None = None, program: str = sys.executable
) -> float:
    """Instructions of one run of ``stmt``, the loop around it included (about 200).

    ``stmt`` and ``setup`` are source text; names that ``setup`` binds are globals of ``stmt``. The module search path
    of this process and ``env`` are passed on to ``program``, a Python interpreter. Raises ``RuntimeError`` with its
    output if it fails.

    A call of this function takes ten times as long as ``setup`` alone; an ``n`` of 1,000 is exact to a few of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Compiled once beforehand: a run that compiles modules and one that finds them compiled cannot be compared.
        _run([program], Path(folder), stmt, setup, 1, env)
        with ThreadPoolExecutor(2) as pool:
            once, twice = pool.map(lambda times: _total(program, Path(folder), stmt, setup, times, env), (n, 2 * n))
    return (twice - once) / n


@cache
def _compiled() -> str:
    """Where this process keeps what it has compiled: an SDK takes longer to compile than to be measured."""
    folder = tempfile.mkdtemp(prefix="costspan-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _total(program: str, folder: Path, stmt: str, setup: str, times: int, env: dict[str, str] | None) -> int:
    out = folder / f"callgrind.{times}"
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    _run([*valgrind, program], folder, stmt, setup, times, env)
    return max(map(int, re.findall(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)))


def _run(command: list[str], folder: Path, stmt: str, setup: str, times: int, env: dict[str, str] | None) -> None:
    body = "\n".join("        " + line for line in stmt.splitlines())
    script = folder / f"stmt{times}.py"
    script.write_text(_PROGRAM.format(setup=setup, body=body, warm=_WARM, times=times), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "PYTHONHASHSEED": "0",  # dict probing, and with it the count, is the same from run to run
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": _compiled(),
        **(env or {}),
    }
    done = subprocess.run([*command, str(script)], capture_output=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{script.read_text()}\nfailed ({done.returncode}):\n{done.stderr.decode()}")


def main() -> None:
    """Print the instructions of the statement given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stmt")
    parser.add_argument("--setup", default="pass")
    parser.add_argument("-n", type=int, default=1000)
    arguments = parser.parse_args()
    print(f"{instructions(arguments.stmt, arguments.setup, arguments.n):,.0f}")


if __name__ == "__main__":
    main()
