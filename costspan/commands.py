"""What commands share: a ledger that must be there, and how they end: with a line, or quietly when nobody reads on."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator


def fail(command: str, problem: object, status: int = 2) -> NoReturn:
    """End with the problem on standard error, each of its lines after the command's name, and the exit status."""
    for line in str(problem).splitlines():
        print(f"{command}: {line}", file=sys.stderr)
    sys.exit(status)


@contextmanager
def quiet_when_unread() -> Iterator[None]:
    """Whoever reads what is printed here may have enough of it: then the command ends as SIGPIPE would end it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + 13)


def ready_ledger(url: str, given: str) -> str:
    """The URL of a ledger that is there, from wherever it is opened; a mistake is told before anything runs.

    Raises ValueError that begins with `given`, where the URL is from.
    """
    try:
        from costspan_processor.ledger.store import LedgerError, open_ledger
    except ImportError:
        raise ValueError(f"{given} needs the extra of that name: pip install 'costspan[ledger]'") from None
    try:
        opened = open_ledger(url)
    except (LedgerError, ImportError) as error:
        raise ValueError(f"{given}: {error}") from None
    opened.close()
    return url if opened.path is None else str(opened.path)
