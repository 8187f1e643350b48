"""Ledgers of both kinds, each a real one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from costspan_processor.ledger.store import Ledger, open_ledger
from tests.ledger.postgres import MISSING, PostgreSQL, binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[[], Ledger]

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One for all tests of a worker: each has databases of its own."""
    if binaries() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where there is room for a new ledger, of each kind in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def opened(url: str) -> Iterator[Opener]:
    """Opens the same ledger again and again, as processes do."""
    ledgers: list[Ledger] = []

    def another() -> Ledger:
        ledgers.append(open_ledger(url))
        return ledgers[-1]

    yield another
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(opened: Opener) -> Ledger:
    """A new ledger, of each kind in turn."""
    return opened()
