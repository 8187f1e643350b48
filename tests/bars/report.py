"""Shared by the measures: what a bar is, and how to run things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.bars.load import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHARED: Final = ROOT.parent / "shared"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "costspan" / "bench"
"""Environments and results of the benchmark: kept from run to run, and never inside the repository."""


class Bar(NamedTuple):
    """One bar: what was measured, what it may be, and whether it holds (None: it could not be measured)."""

    name: str
    figure: str
    limit: str
    holds: bool | None
    note: str = ""


def skipped(names: tuple[str, ...], why: str) -> Iterator[Bar]:
    for name in names:
        yield Bar(name, "-", "-", None, why)


def without_program(names: tuple[str, ...], program: str) -> Iterator[Bar]:
    holds = False if os.environ.get("CI") == "true" else None
    for name in names:
        yield Bar(name, "-", "-", holds, f"{program} is not installed")


def at_most(name: str, figure: float, limit: float, form: str = ",.0f", note: str = "") -> Bar:
    return Bar(name, format(figure, form), f"<= {limit:{form}}", figure <= limit, note)


def none_of(name: str, bad: list[str], of: str, note: str = "") -> Bar:
    return Bar(name, f"{len(bad)} of {of}", "0", not bad, "; ".join(bad[:5]) or note)


def on_path(*more: Path) -> dict[str, str]:
    """An environment in which this checkout is what `import costspan` finds."""
    here = [ROOT, *(ROOT / floor for floor in ("pricing", "instrumentation", "processor")), *more]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))}
    return {**clean, "PYTHONPATH": os.pathsep.join(map(str, here))}


def environment(folder: Path, *packages: str) -> str:
    """The interpreter of an environment with these packages, made the first time that it is asked for. Needs uv."""
    interpreter = str(folder / "bin" / "python")
    if not Path(interpreter).exists():
        subprocess.run(["uv", "venv", "-q", "-p", sys.executable, str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", interpreter, *packages], check=True)
    return interpreter


def python(*arguments: str, environment: Mapping[str, str], seconds: float = 3600, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(environment),
        cwd=folder,
        timeout=seconds,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(arguments[:3])} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout
