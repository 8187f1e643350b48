"""Count the instructions of a Python statement with valgrind's callgrind.

Wall time on a shared machine says little; the number of instructions is the same on a busy and on an idle one. The
statement runs ``n`` and then ``2n`` times between three readings of the counter, so that what a reading costs cancels
out. Start-up, imports and setup are not counted at all.

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
import os, shutil
_control = shutil.which("callgrind_control")
def _tell(order):
    # A process, and nothing of Python's around it, so that each costs the same.
    if _control is not None:
        os.waitpid(os.posix_spawn(_control, [_control, order, str(os.getpid())], os.environ, file_actions=_quiet), 0)
_quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
# Until now valgrind has run the program ten times as fast. Where it does not run at all, there is nothing to switch.
_tell("--instr=on")
gc.collect()
gc.disable()
_loop({warm})
_tell("--dump")
_loop({times})
_tell("--dump")
_loop(2 * {times})
_tell("--dump")
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
        path = Path(folder)
        _compile(program, setup, tuple((env or {}).items()))
        out = path / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        _run([*valgrind, program], path, stmt, setup, n, env)
        _, once, twice = (_total(path / f"callgrind.{number}") for number in (1, 2, 3))
    return (twice - once) / n


def _total(file: Path) -> int:
    return max(map(int, re.findall(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)))


@cache
def _compile(program: str, setup: str, env: tuple[tuple[str, str], ...]) -> None:
    """Run the setup alone: to compile its modules under valgrind would take ten times as long."""
    with tempfile.TemporaryDirectory() as folder:
        _run([program], Path(folder), "pass", setup, 1, dict(env))


@cache
def _compiled() -> str:
    """Where this process keeps what it has compiled: an SDK takes longer to compile than to be measured."""
    folder = tempfile.mkdtemp(prefix="costspan-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


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
