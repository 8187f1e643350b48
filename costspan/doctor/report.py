"""The whole report, put together section by section."""

from __future__ import annotations

import logging
import os
import platform
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from costspan import __version__
from costspan.doctor import Problem, budgets, others, prices, program, sdks, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Report(NamedTuple):
    """What there is, by section, and what is wrong with it: faults first."""

    facts: dict[str, Any]
    problems: list[Problem]

    @property
    def status(self) -> str:
        """`fine`, `warnings` or `faults`."""
        levels = {problem.level for problem in self.problems}
        return "faults" if "fault" in levels else "warnings" if levels else "fine"

    def plain(self) -> dict[str, Any]:
        """The report for JSON."""
        return {"status": self.status, "problems": [p._asdict() for p in self.problems], **self.facts}


def examine(command: Sequence[str] = (), *, aside: bool = False) -> Report:
    """Look at everything here, and at a program too if a `command` is given, which is run to its end first.

    `aside` sends the program's standard output to standard error. Raises `costspan.run.RunError` if the command cannot
    be run, and nothing else: a section in which the doctor itself fails is a fault of the report.
    """
    # What is wrong with a setting is in the report.
    logging.getLogger("costspan").addHandler(logging.NullHandler())
    watched = program.watch(command, aside=aside) if command else None
    measured = watched is not None and bool(program.concerned(watched[0]))
    environ = dict(os.environ)
    problems: list[Problem] = []

    def section(about: str, look: Callable[[], tuple[Any, list[Problem]]], otherwise: Any) -> Any:
        try:
            facts, found = look()
        except Exception as error:  # noqa: BLE001  one section that fails must not take the others with it
            found = [_failed(about, error)]
            facts = otherwise
        problems.extend(found)
        return facts

    with _without_variables(), _patience():
        seen = section(sdks.ABOUT, lambda: sdks.look(environ), [])
        facts: dict[str, Any] = {
            "costspan": {"version": __version__, "python": platform.python_version()},
            "sdks": seen,
            "instrumentations": (
                other := section(others.ABOUT, lambda: others.look(environ, seen, measured=measured), [])
            ),
            "opentelemetry": section(telemetry.ABOUT, lambda: telemetry.look(environ, others=bool(other)), {}),
            **section("spans", lambda: telemetry.send(environ), {"spans": {}, "metrics": {}}),
            "prices": section(prices.ABOUT_PRICES, lambda: prices.look_at_prices(environ), {}),
            "budgets": section(budgets.ABOUT, lambda: budgets.look(environ), {}),
            "settings": section(prices.ABOUT_SETTINGS, lambda: prices.look_at_settings(environ), []),
            "program": None if watched is None else watched[0],
        }
    if watched is not None:
        problems += watched[1]
    problems.sort(key=lambda problem: problem.level != "fault")
    return Report(facts, problems)


@contextmanager
def _without_variables() -> Iterator[None]:
    """Without the variables of OpenTelemetry: what the doctor tries out needs an SDK that is on and has room."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _patience() -> Iterator[None]:
    """Tell somebody who waits at a terminal what takes the time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("importing the SDKs, to see what of them is patched"):
        yield


def _failed(about: str, error: Exception) -> Problem:
    return Problem(
        "fault",
        about,
        f"the doctor could not look at this: {type(error).__name__}: {error}",
        "What is here stays unknown.",
        "Please report it, with this line.",
    )
