"""What calls meet while the store of their budgets is away, and that no money is lost by it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import deque
from decimal import Decimal
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.budgets import Guard
from costspan_processor.budgets import accounts as parts
from costspan_processor.budgets.guard import Admission, Refusal
from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.store import Answer, Claim, Settlement
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from tests.processor.budgets.test_guard import REQUEST
from tests.processor.conftest import AT, CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costspan_pricing import PriceBook
    from tests.processor.budgets.server import RedisServer

COST = 1_600_000
"""Nanodollars of a call, which was estimated at 8,392,000."""
PERIOD = "2099"
"""Of a clock that stands: no period ends while a test runs."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that failed is asked again sooner, so that nobody waits."""
    monkeypatch.setattr(parts, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(parts, "REFRESH_SECONDS", 0.1)


class Service:
    """A process that asks a budget, as far as one test can be several."""

    def __init__(self, book: PriceBook, server: RedisServer, journal: Path, *budgets: Budget) -> None:
        self.book = book
        self.failures: list[tuple[str, BaseException]] = []
        self.guard = Guard(
            budgets,
            book,
            RedisStore(server.url),
            journal=journal,
            clock=lambda: 4_070_908_800.0,
            failed=lambda where, error: self.failures.append((where, error)),
        )

    def ask(self) -> Admission | Refusal | None:
        return self.guard.admit(REQUEST, None, lambda: 400)

    def end(self, said: Admission | Refusal | None) -> None:
        assert isinstance(said, Admission)
        reading = read(CHAT)
        assert reading is not None
        self.guard.settle(said, assess(reading, AT, self.book))

    def call(self) -> None:
        said = self.ask()
        if isinstance(said, Refusal):
            raise said.error
        self.end(said)

    def spent(self, name: str = "b") -> int:
        claim = Claim(f"{name}:{PERIOD}")
        return self.guard.store.read([claim]).balances[claim.account].spent


@pytest.fixture
def service(book: PriceBook, own_redis: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    opened: list[Service] = []

    def open_service(*budgets: Budget) -> Service:
        opened.append(Service(book, own_redis, tmp_path / "journal", *budgets))
        return opened[-1]

    yield open_service
    for one in opened:
        one.guard.close()


def budget(on_store_error: Any = None, limit: str = "1", name: str = "b") -> Budget:
    return Budget(name, limit, period="year", policy="block", on_store_error=on_store_error)


def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def journaled(folder: Path) -> list[str]:
    """The lines in all journals."""
    texts = [file.read_text() for file in (folder / "journal").glob("*.jsonl")]
    return [line for text in texts for line in text.splitlines() if line]


class TestWhileTheStoreIsAway:
    def test_each_budget_does_as_it_was_told(self, service: Callable[..., Service], own_redis: RedisServer) -> None:
        allowing = service(budget("allow"))
        denying = service(budget("deny"))
        own_redis.stop()
        allowing.call()
        with pytest.raises(BudgetExceeded, match="cannot be checked, since its store does not answer") as caught:
            denying.call()
        assert caught.value.reason == "store"

    def test_by_default_a_limit_goes_on_with_what_is_known_to_be_left(
        self, service: Callable[..., Service], own_redis: RedisServer
    ) -> None:
        here = service(budget(limit="0.02"))
        here.call()
        assert here.guard.flush()
        eventually(lambda: here.guard._accounts.balance(Claim(f"b:{PERIOD}")) == (COST, 0, 0))
        own_redis.stop()
        here.call()
        here.call()
        held = here.ask()
        assert isinstance(held, Admission), "three calls are spent, and there is room for the estimate of one more"
        with pytest.raises(BudgetExceeded) as caught:
            here.call()
        assert (caught.value.reason, caught.value.spent) == ("store", Decimal("0.0016")), "as last known"
        here.end(held)

    def test_who_knows_nothing_refuses(self, service: Callable[..., Service], own_redis: RedisServer) -> None:
        own_redis.stop()
        with pytest.raises(BudgetExceeded, match="bring the store back, or set on_store_error to 'allow'"):
            service(budget()).call()

    def test_a_budget_that_warns_lets_all_pass(self, service: Callable[..., Service], own_redis: RedisServer) -> None:
        here = service(Budget("b", "0.000001", period="year"))
        own_redis.stop()
        here.call()

    def test_what_is_left_is_shared_among_the_processes_that_were_there(
        self, service: Callable[..., Service], own_redis: RedisServer
    ) -> None:
        first, second = service(budget(limit="0.03")), service(budget(limit="0.03"))
        for one in (first, second):
            one.call()
            one.guard.flush()
            one.guard._accounts._owners = one.guard.store.renew(one.guard._accounts._owner, [], 600)
        first.guard._accounts._owners = first.guard.store.renew(first.guard._accounts._owner, [], 600)
        first.guard._accounts.look()
        second.guard._accounts.look()
        own_redis.stop()
        # 0.0268 is left, half of it for each, and a call is estimated at 0.008392.
        for one in (first, second):
            assert isinstance(one.ask(), Admission)
            assert isinstance(one.ask(), Refusal)

    def test_no_call_waits_long_and_only_the_first_ones_wait_at_all(
        self, service: Callable[..., Service], own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that is paused takes connections and never answers."""
        monkeypatch.setattr(parts, "RETRY_SECONDS", 60.0)
        here = service(budget("allow"))
        here.call()
        own_redis.send(signal.SIGSTOP)
        started = time.monotonic()
        here.call()
        first = time.monotonic() - started
        for _ in range(100):
            here.call()
        rest = time.monotonic() - started - first
        own_redis.send(signal.SIGCONT)
        assert first < 5
        assert rest < 2

    async def test_on_an_event_loop_too(self, service: Callable[..., Service], own_redis: RedisServer) -> None:
        allowing, denying = service(budget("allow")), service(budget("deny"))
        own_redis.stop()
        said = await allowing.guard.aadmit(REQUEST, None, lambda: 400)
        assert isinstance(said, Admission)
        assert isinstance(await denying.guard.aadmit(REQUEST, None, lambda: 400), Refusal)

    def test_its_gauges_are_absent_rather_than_old(
        self, service: Callable[..., Service], own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = service(budget())
        here.call()
        spent = here.guard._reader(lambda _, balance: balance.spent)
        eventually(lambda: [point.value for point in spent()] == [COST])
        own_redis.stop()
        monkeypatch.setattr("costspan_processor.budgets.guard.STALE_SECONDS", 0.3)
        eventually(lambda: spent() == [])


class TestWhenItIsBack:
    def test_everything_that_was_spent_meanwhile_is_written_once(
        self, service: Callable[..., Service], own_redis: RedisServer
    ) -> None:
        here = service(budget("allow"))
        before = here.ask()
        here.call()
        assert here.guard.flush()
        own_redis.stop(signal.SIGKILL)
        here.end(before)
        for _ in range(3):
            here.call()
        own_redis.start()
        eventually(lambda: here.guard.flush(0.1))
        eventually(lambda: here.spent() == 5 * COST)
        time.sleep(0.5)
        assert here.spent() == 5 * COST

    def test_what_a_process_could_not_write_before_it_died_another_one_writes(
        self, service: Callable[..., Service], own_redis: RedisServer, tmp_path: Path
    ) -> None:
        dying = service(budget("allow"))
        own_redis.stop()
        for _ in range(3):
            dying.call()

        eventually(lambda: len(journaled(tmp_path)) == 3)
        # As after kill -9: nothing of it runs any more, and the last line was cut off in the middle.
        dying.guard._accounts._closed = True
        dying.guard._accounts._thread.join(5)  # type: ignore[union-attr]
        dying.guard._accounts._leave_journal()
        (journal,) = (tmp_path / "journal").glob("*.jsonl")
        with journal.open("a") as file:
            file.write("\n" + json.dumps(["key", 5, []])[:-4])
        own_redis.start()
        other = service(budget("allow"))
        other.call()
        other.guard.flush()
        eventually(lambda: other.spent() == 4 * COST)
        assert list((tmp_path / "journal").iterdir()) == []

    def test_a_journal_is_left_to_the_process_that_writes_it(
        self, service: Callable[..., Service], own_redis: RedisServer, tmp_path: Path
    ) -> None:
        here, other = service(budget("allow")), service(budget("allow"))
        own_redis.stop()
        for _ in range(3):
            here.call()
        eventually(lambda: len(journaled(tmp_path)) == 3)
        # It looks for a while as if it were busy with something else.
        with here.guard._accounts._lock:
            own_redis.start()
            other.call()
            assert other.guard.flush()
            assert len(journaled(tmp_path)) == 3
        eventually(lambda: here.spent() == 4 * COST)
        assert list((tmp_path / "journal").iterdir()) == []

    def test_what_many_threads_spend_meanwhile_leaves_memory_and_is_written_once(
        self, service: Callable[..., Service], own_redis: RedisServer, tmp_path: Path
    ) -> None:
        here = service(budget("allow", limit="1000000"))
        here.call()
        assert here.guard.flush()
        own_redis.stop()

        def spend(name: str) -> None:
            for number in range(2000):
                here.guard._accounts.settle(Settlement(f"{name}-{number}", 10, (Claim(f"b:{PERIOD}"),)))

        spenders = [Thread(target=spend, args=name) for name in "abcd"]
        for spender in spenders:
            spender.start()
        for spender in spenders:
            spender.join()
        eventually(lambda: len(journaled(tmp_path)) == 8000)
        assert not here.guard._accounts._queue
        assert not here.guard.flush(0.1)
        own_redis.start()
        eventually(lambda: here.guard.flush(0.1))
        eventually(lambda: here.spent() == COST + 80_000)
        assert not here.failures

    def test_a_server_that_comes_back_empty_is_told_what_had_been_spent(
        self, service: Callable[..., Service], own_redis: RedisServer
    ) -> None:
        """It was restarted without its data: what the processes last saw is the truth."""
        first, second = service(budget()), service(budget())
        for one in (first, second, first):
            one.call()
            one.guard.flush()
        own_redis.stop(signal.SIGKILL)
        own_redis.start()
        for one in (first, second):
            accounts = one.guard._accounts
            eventually(lambda accounts=accounts: accounts._epoch == accounts.store.read(()).epoch)  # type: ignore[misc]
        assert first.spent() == 3 * COST
        second.call()
        second.guard.flush()
        assert first.spent() == 4 * COST

    def test_a_disk_that_takes_no_journal_breaks_no_call(
        self, book: PriceBook, own_redis: RedisServer, tmp_path: Path
    ) -> None:
        no_folder = tmp_path / "file"
        no_folder.write_text("")
        here = Service(book, own_redis, no_folder, budget("allow"))
        own_redis.stop()
        here.call()
        eventually(lambda: any(where == "budgets.journal" for where, _ in here.failures))
        own_redis.start()
        eventually(lambda: here.spent() == COST)
        here.guard.close()


class TestACancelledCall:
    def test_that_is_interrupted_loses_nothing_of_what_it_was_to_take_along(self, book: PriceBook) -> None:
        class Interrupted(MemoryStore):
            local = False
            asked = 0

            def reserve(self, *args: Any, **kwargs: Any) -> Answer:
                self.asked += 1
                if self.asked == 2:
                    raise KeyboardInterrupt
                return super().reserve(*args, **kwargs)

        store = Interrupted()
        accounts = parts.Accounts(store, on_balances=lambda _: None, watched=list, failed=lambda *_: None)
        request = parts.Request(Claim("a"), "allow", 4e9)
        accounts._start = lambda: None  # type: ignore[method-assign]
        accounts.reserve("first", 8, [request])
        accounts.settle(Settlement("first", 5, (request.claim,)))
        with pytest.raises(KeyboardInterrupt):
            accounts.reserve("second", 8, [request])
        assert accounts._queue == deque([Settlement("first", 5, (request.claim,))])
        assert accounts._writing == 0
        accounts.reserve("third", 8, [request])
        assert store.read([request.claim]).balances["a"] == (5, 8, 0)

    async def test_leaves_no_hold(self, service: Callable[..., Service], own_redis: RedisServer) -> None:
        here = service(budget())
        here.call()
        own_redis.send(signal.SIGSTOP)
        task = asyncio.create_task(here.guard.aadmit(REQUEST, None, lambda: 400))
        await asyncio.sleep(0.1)
        task.cancel()
        own_redis.send(signal.SIGCONT)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert here.guard.flush()
        await asyncio.sleep(0.3)
        assert here.guard.store.holds() == []
        assert here.spent() == COST
