"""The three stores, each a real one: memory, a file, and a server that belongs to the test worker."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.sqlite import SQLiteStore
from tests.processor.budgets.server import MISSING, RedisServer, available

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costspan_processor.budgets.store import Store
    from tests.processor.conftest import Clock

    Opener = Callable[[], Store]

KINDS = ("memory", "sqlite", "redis")


@pytest.fixture(scope="session")
def redis_program() -> None:
    """Without the program there are no tests of Redis; where everything must run that is a failure."""
    if not available():
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)


@pytest.fixture(scope="session")
def redis_server(redis_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of a worker: they keep apart by their namespaces."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(redis_program: None, tmp_path: Path) -> Iterator[RedisServer]:
    """One for this test alone, which may stop it."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    """Opens the same store again and again, as processes do; the one in memory is the same each time."""
    kind = request.param
    if kind == "memory":
        store = MemoryStore(clock)
        yield lambda: store
        return
    opened: list[Store] = []
    if kind == "sqlite":

        def another() -> Store:
            opened.append(SQLiteStore(tmp_path / "budgets.db", clock))
            return opened[-1]
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        namespace = uuid.uuid4().hex

        def another() -> Store:
            opened.append(RedisStore(server.patient_url, namespace, clock))
            return opened[-1]

    yield another
    for one in opened:
        one.close()


@pytest.fixture
def store(opened: Opener) -> Store:
    """A new store, of each kind in turn."""
    return opened()
