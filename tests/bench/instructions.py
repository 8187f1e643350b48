"""Count the instructions of a Python statement with valgrind's callgrind.

Wall time on a shared machine says little; the number of instructions is the same on a busy and on an idle one. The
statement runs ``n`` and then ``2n`` times in two fresh interpreters, so that start-up, imports and setup cancel out.

As a program: ``python -m tests.bench.instructions 'd["a"]' --setup 'd = {"a": 1}'``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
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
gc.collect()
gc.disable()
_loop({times})
import os
os._exit(0)
"""


def available() -> bool:
    """Whether ``valgrind`` is installed on this machine."""
    return shutil.which("valgrind") is not None


def instructions(stmt: str, setup: str = "pass", n: int = 1000, env: dict[str, str] | None = None) -> float:
    """Instructions of one run of ``stmt``, the loop around it included (about 200).

    ``stmt`` and ``setup`` are source text; names that ``setup`` binds are globals of ``stmt``. The module search path
    of this process and ``env`` are passed on. Raises ``RuntimeError`` with the output of the program if it fails.

    A call of this function takes a second or two per few million instructions of import; an ``n`` of 1,000 is exact to
    a few instructions.
    """
    with ThreadPoolExecutor(2) as pool:
        once, twice = pool.map(lambda times: _total(stmt, setup, times, env), (n, 2 * n))
    return (twice - once) / n


def _total(stmt: str, setup: str, times: int, env: dict[str, str] | None) -> int:
    body = "\n".join("        " + line for line in stmt.splitlines())
    program = _PROGRAM.format(setup=setup, body=body, warm=_WARM, times=times)
    path = os.pathsep.join(p for p in sys.path if p)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        script = Path(folder) / "stmt.py"
        script.write_text(program, encoding="utf-8")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, str(script)],
            capture_output=True,
            text=True,
            check=False,
            # A fixed hash seed makes dict probing, and with it the count, the same from run to run.
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path, **(env or {})},
        )
        totals = re.findall(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE) if out.exists() else []
    if done.returncode or not totals:
        raise RuntimeError(f"callgrind run failed ({done.returncode}):\n{program}\n{done.stdout}\n{done.stderr}")
    return max(map(int, totals))


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
