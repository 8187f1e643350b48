"""A guard whose accounts are in a file or on a server: what it asks of the store, and what it knows of it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.attribution import Attribution, attributes_of
from costspan_processor.budgets import Guard
from costspan_processor.budgets.guard import Admission, Refusal
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from tests.processor.budgets.test_guard import REQUEST, balance
from tests.processor.conftest import AT, CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costspan_pricing import PriceBook
    from costspan_processor.budgets import Store
    from tests.processor.budgets.server import RedisServer

COST = 1_600_000
"""Nanodollars of a call, which was estimated at 8,392,000."""


@pytest.fixture(params=["sqlite", "redis"])
def guard(request: pytest.FixtureRequest, tmp_path: Path, book: PriceBook) -> Iterator[Callable[..., Guard]]:
    namespace = uuid.uuid4().hex
    opened: list[Guard] = []

    def store() -> Store:
        if request.param == "sqlite":
            return SQLiteStore(tmp_path / "budgets.db")
        server: RedisServer = request.getfixturevalue("redis_server")
        return RedisStore(server.url, namespace)

    def open_guard(*budgets: Budget) -> Guard:
        opened.append(Guard(budgets, book, store()))
        return opened[-1]

    yield open_guard
    for one in opened:
        one.close()


def call(guard: Guard, book: PriceBook, who: Attribution | None = None) -> dict[str, object]:
    said = guard.admit(REQUEST, who, lambda: 400)
    if isinstance(said, Refusal):
        raise said.error
    assert isinstance(said, Admission)
    reading = read(CHAT)
    assert reading is not None
    return dict(guard.settle(said, assess(reading, AT, book)))


def year(limit: str = "1", **more: object) -> Budget:
    return Budget("b", limit, period="year", policy="block", **more)  # type: ignore[arg-type]


def test_calls_one_after_the_other_see_what_the_ones_before_have_cost(
    guard: Callable[..., Guard], book: PriceBook
) -> None:
    """Four estimates do not fit, but four calls and the estimate of a fifth do."""
    here = guard(year("0.0148"))
    for _ in range(4):
        call(here, book)
    assert isinstance(here.admit(REQUEST, None, lambda: 400), Admission)
    assert isinstance(here.admit(REQUEST, None, lambda: 400), Refusal)


def test_two_processes_share_what_is_left(guard: Callable[..., Guard], book: PriceBook) -> None:
    first, second = guard(year("0.0168")), guard(year("0.0168"))
    assert isinstance(first.admit(REQUEST, None, lambda: 400), Admission)
    assert isinstance(second.admit(REQUEST, None, lambda: 400), Admission)
    assert isinstance(first.admit(REQUEST, None, lambda: 400), Refusal)
    assert isinstance(second.admit(REQUEST, None, lambda: 400), Refusal)


def test_a_span_tells_what_the_budget_will_have_after_it_without_waiting_for_the_store(
    guard: Callable[..., Guard], book: PriceBook
) -> None:
    here = guard(year())
    told = [call(here, book)["costspan.budget.remaining"] for _ in range(3)]
    assert told == [0.9984, 0.9968, 0.9952]


def test_the_limit_of_each_user_is_told_of_too(guard: Callable[..., Guard], book: PriceBook) -> None:
    here = guard(year("0.011", per="user", thresholds=(20, 90)))
    for _ in range(2):
        call(here, book, Attribution(attributes_of(user="ada")))
    with pytest.raises(BudgetExceeded, match="budget 'b' of 'ada'"):
        call(here, book, Attribution(attributes_of(user="ada")))
    here.flush()
    here.events.close()
    period = here.present()[0].subject.period
    told = [record.id for record in here.store.records()]
    assert [name for name in told if "threshold" in name] == [f"b:{period}:ada:threshold:20:0.011"]


def test_a_call_asks_redis_twice_at_most(redis_server: RedisServer, book: PriceBook) -> None:
    import redis

    counting = redis.Redis.from_url(redis_server.url)

    def steps() -> int:
        found = counting.info("commandstats")
        return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "script|load"))

    here = Guard([year()], book, RedisStore(redis_server.url, uuid.uuid4().hex))
    call(here, book)
    here.flush()
    before = steps()
    for _ in range(100):
        call(here, book)
    here.flush()
    # Beside the calls, a thread reads the balances once a second.
    assert steps() - before <= 200
    account = f"b:{here.present()[0].subject.period}"
    assert balance(here.store, account) == (101 * COST, 0, 0)
    here.close()
