"""`costspan doctor`: what is in force here, what is wrong with it, and what to do about it.

`report.py` puts the report together from one file for each of its sections, and `view.py` shows it. `witness.py` works
inside a program that the doctor runs.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

DIRECTORY: Final = "COSTSPAN_DOCTOR"
"""The variable that names the directory in which processes of a program leave what they have seen."""


class Problem(NamedTuple):
    """Something that is wrong, or may be."""

    level: Literal["fault", "warning"]
    """A fault loses costs or telemetry; a warning may, or is what somebody decided."""
    about: str
    """The section of the report that it belongs to."""
    what: str
    why: str
    """Why it matters."""
    remedy: str
    """What to do about it."""
