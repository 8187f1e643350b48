"""What budgets tell: what, when, how often, to whom; and what comes of it when the store or a receiver fails."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from costspan_processor import Budget
from costspan_processor.attribution import Attribution, attributes_of
from costspan_processor.budgets import Event, Guard
from costspan_processor.budgets.guard import Admission, Refusal, block
from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.sqlite import SQLiteStore
from costspan_processor.budgets.store import Store, StoreError
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from tests.processor.conftest import AT, Clock, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costspan_pricing import PriceBook
    from tests.processor.budgets.server import RedisServer

DAY = 86400
NOON = 1_795_435_200.0
"""2026-11-23 12:00 UTC, where the tests' clock begins."""
CALL = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "acme", "gen_ai.request.model": "coin"}


@pytest.fixture(scope="session")
def coins(book: PriceBook) -> PriceBook:
    """A token of the model `coin` costs a tenth of a cent."""
    return book.with_prices({"acme/coin": {"input": "1000"}})


def who(**named: object) -> Attribution:
    return Attribution(attributes_of(**named))


class Till:
    """A process that spends from budgets, and all that it is told of them."""

    def __init__(
        self, book: PriceBook, store: Store, clock: Callable[[], float], *budgets: Budget, **more: Any
    ) -> None:
        self.book = book
        self.failures: list[tuple[str, BaseException]] = []
        self._told: list[Event] = []
        self.guard = Guard(
            budgets,
            book,
            store,
            clock=clock,
            failed=lambda where, error: self.failures.append((where, error)),
            tell=more.pop("tell", self._told.append),
            **more,
        )

    def spend(self, mills: int, attribution: Attribution | None = None) -> Till:
        """Spend so many tenths of a cent with one call, and see what is there to be told."""
        attributes = {**CALL, "gen_ai.usage.input_tokens": mills}
        reading = read(attributes)
        assert reading is not None
        self.guard.charge(self.guard.new_key(), attributes, attribution, assess(reading, AT, self.book))
        if not self.guard.store.local:
            assert self.guard.flush()
            self.guard._accounts.look()
        return self

    def ask(self, attribution: Attribution | None = None, model: str = "coin") -> Admission | Refusal | None:
        """Ask for a call of a tenth of a cent."""
        return self.guard.admit({**CALL, "gen_ai.request.model": model}, attribution, lambda: 4)

    @property
    def told(self) -> list[Event]:
        """Since the last time."""
        delivered = threading.Event()
        self.guard.events._queued(delivered.set)
        assert delivered.wait(10)
        told = self._told.copy()
        self._told.clear()
        return told

    @property
    def marks(self) -> list[tuple[str, int | None]]:
        """Types and thresholds of what was told since the last time."""
        return [(event.type, event.threshold) for event in self.told]


@pytest.fixture
def till(coins: PriceBook, clock: Clock) -> Iterator[Callable[..., Till]]:
    opened: list[Till] = []

    def another(*budgets: Budget, store: Store | None = None, **more: Any) -> Till:
        opened.append(Till(coins, store or MemoryStore(clock), clock, *budgets, **more))
        return opened[-1]

    yield another
    for one in opened:
        one.guard.close()


def budget(**fields: Any) -> Budget:
    """A dollar, that is 1,000 mills, a day."""
    return Budget(**{"name": "b", "limit": "1", "period": "day", **fields})


LATE = 0.999 * DAY
"""Of a day: whatever is spent, it is not fast."""


@pytest.fixture
def late(clock: Clock) -> Clock:
    clock.now = NOON - DAY / 2 + LATE
    return clock


@pytest.mark.usefixtures("late")
class TestThresholds:
    @pytest.mark.parametrize(
        ("spent", "marks"),
        [
            (499, []),
            (500, [("threshold", 50)]),
            (749, [("threshold", 50)]),
            (750, [("threshold", 50), ("threshold", 75)]),
            (999, [("threshold", 50), ("threshold", 75), ("threshold", 80), ("threshold", 90)]),
            (1000, [("threshold", 50), ("threshold", 75), ("threshold", 80), ("threshold", 90), ("exceeded", 100)]),
        ],
    )
    def test_are_told_when_they_are_reached_each_of_them(
        self, spent: int, marks: list[tuple[str, int]], till: Callable[..., Till]
    ) -> None:
        """A jump over several tells each, so that none that somebody waits for is hidden by a higher one."""
        shop = till(budget())
        shop.spend(spent)
        assert shop.marks == marks

    def test_are_told_once_a_period(self, till: Callable[..., Till], late: Clock) -> None:
        shop = till(budget(thresholds=(50,)))
        assert [shop.spend(250).marks for _ in range(4)] == [[], [("threshold", 50)], [], []]
        late.now += DAY
        assert [shop.spend(250).marks for _ in range(4)] == [[], [("threshold", 50)], [], []]

    def test_say_all_there_is_to_say(self, till: Callable[..., Till], late: Clock) -> None:
        shop = till(budget(thresholds=(80, 100, 150)))
        shop.spend(800)
        shop.spend(201)
        shop.spend(600)
        assert shop.told == [
            Event(
                "threshold", "warning", "b", "2026-11-23", 80, Decimal(1), Decimal("0.8"), Decimal("0.2"), Decimal(0),
                "look at what spends it: costspan budgets show 'b'", datetime.fromtimestamp(late.now, UTC),
            ),
            Event(
                "exceeded", "critical", "b", "2026-11-23", 100, Decimal(1), Decimal("1.001"), Decimal(0),
                Decimal("0.001"),
                "raise the limit, wait for the next period, or find what spent it: costspan budgets show 'b'",
                datetime.fromtimestamp(late.now, UTC),
            ),
            Event(
                "exceeded", "critical", "b", "2026-11-23", 150, Decimal(1), Decimal("1.601"), Decimal(0),
                Decimal("0.601"),
                "raise the limit, wait for the next period, or find what spent it: costspan budgets show 'b'",
                datetime.fromtimestamp(late.now, UTC),
            ),
        ]  # fmt: skip

    def test_are_the_graver_the_higher(self, till: Callable[..., Till]) -> None:
        shop = till(budget())
        shop.spend(1000)
        assert [event.severity for event in shop.told] == ["info", "info", "warning", "warning", "critical"]

    @pytest.mark.parametrize("policy", ["warn", "block", "downgrade"])
    def test_are_told_by_every_policy_but_one(self, policy: str, till: Callable[..., Till]) -> None:
        shop = till(budget(policy=policy, thresholds=(100,)), budget(name="quiet", policy="observe", soft_limit="0.1"))
        shop.spend(1000)
        assert [event.budget for event in shop.told] == ["b"]

    def test_of_a_limit_that_was_raised_are_told_again(self, till: Callable[..., Till]) -> None:
        """Somebody followed the advice, and wants to hear when that is spent too."""
        shop = till(budget(thresholds=(100,)))
        shop.spend(1000)
        shop.guard.replace([budget(thresholds=(100,), limit="2")], None)
        shop.spend(999)
        assert shop.marks == [("exceeded", 100)]
        shop.spend(1)
        (event,) = shop.told
        assert (event.limit, event.current) == (Decimal(2), Decimal(2))

    def test_of_a_limit_that_was_lowered_are_told_with_the_next_call(self, till: Callable[..., Till]) -> None:
        shop = till(budget(thresholds=(50, 100)))
        shop.spend(90)
        shop.guard.replace([budget(thresholds=(50, 100), limit="0.1")], None)
        shop.spend(1)
        assert shop.marks == [("threshold", 50)]

    def test_hold_for_each_value(self, till: Callable[..., Till]) -> None:
        shop = till(budget(per="user", thresholds=(100,)))
        for user, spent in (("ada", 999), ("bob", 1000), ("ada", 1), ("bob", 1)):
            shop.spend(spent, who(user=user))
        told = shop.told
        assert [(event.type, event.value) for event in told] == [("exceeded", "bob"), ("exceeded", "ada")]
        assert told[0].message.startswith("budget 'b' of bob: the limit of $1 is reached, $0 over it in 2026-11-23 ")

    def test_hold_for_the_day_of_a_month_by_itself(self, till: Callable[..., Till], late: Clock) -> None:
        shop = till(budget(period="month", limit="10", daily_limit="1", thresholds=(100,)))
        for _ in range(2):
            shop.spend(1000)
            assert [event.budget for event in shop.told if event.type == "exceeded"] == ["b (daily)"]
            late.now += DAY

    def test_of_a_window_are_told_once_in_its_length(self, till: Callable[..., Till], late: Clock) -> None:
        """What goes on and on is told again, but not with every stretch that the window moves along."""
        shop = till(budget(period="24h", thresholds=(50,)))
        told = []
        for _ in range(24 * 6):
            shop.spend(30)
            told += [(event.period, late.now) for event in shop.told if event.type == "threshold"]
            late.now += 3600
        assert len({period for period, _ in told}) == len(told)
        gaps = [(after - before) / 3600 for (_, before), (_, after) in pairwise(told)]
        assert all(24 <= gap <= 27 for gap in gaps), "it is looked at every hour, at a new stretch every 72 minutes"
        assert len(told) in {5, 6}

    def test_passed_by_a_call_that_ends_after_its_period_are_told_of_that(
        self, tmp_path: Path, till: Callable[..., Till], late: Clock
    ) -> None:
        shop = till(budget(thresholds=(50,)), store=SQLiteStore(tmp_path / "b.db", late))
        shop.spend(499)
        said = shop.ask()
        assert isinstance(said, Admission)
        late.now += DAY
        shop.spend(1)
        reading = read({**CALL, "gen_ai.usage.input_tokens": 1})
        assert reading is not None
        shop.guard.settle(said, assess(reading, AT, shop.book))
        assert shop.guard.flush()
        shop.guard.close()
        assert [(event.period, event.threshold) for event in shop._told] == [("2026-11-23", 50)]


@pytest.mark.usefixtures("late")
class TestASoftLimit:
    def test_is_told_when_it_is_reached_once(self, till: Callable[..., Till]) -> None:
        shop = till(budget(soft_limit="0.3", thresholds=()))
        assert [shop.spend(spent).marks for spent in (299, 1, 1)] == [[], [("soft_limit", None)], []]

    def test_says_what_is_over_it(self, till: Callable[..., Till]) -> None:
        shop = till(budget(soft_limit="0.3", thresholds=()))
        shop.spend(350)
        (event,) = shop.told
        assert (event.severity, event.limit, event.current, event.remaining, event.overage) == (
            "warning", Decimal("0.3"), Decimal("0.35"), Decimal(0), Decimal("0.05"),
        )  # fmt: skip
        assert event.message == (
            "budget 'b': the soft limit of $0.3 is reached in 2026-11-23 ($0.35 spent); use cheaper models or fewer "
            "calls, or raise the soft limit"
        )


@pytest.mark.usefixtures("late")
class TestAnExpensiveSession:
    def test_is_a_session_that_has_spent_its_limit(self, till: Callable[..., Till]) -> None:
        shop = till(budget(per="session", thresholds=(50, 100, 200)))
        shop.spend(999, who(session="s1"))
        assert shop.marks == [("threshold", 50)]
        shop.spend(1, who(session="s1"))
        (event,) = shop.told
        assert (event.type, event.severity, event.value, event.threshold) == ("expensive_session", "warning", "s1", 100)
        shop.spend(1000, who(session="s1"))
        assert shop.marks == [("exceeded", 200)]


class TestBurningFast:
    """A day's dollar lasts for the day if 1/24 of it is spent an hour."""

    @pytest.mark.parametrize(
        ("hour", "spent", "told"),
        [(1, 99, False), (1, 100, True), (12, 750, False), (12, 751, True), (20, 1000, False), (0, 1000, False)],
        ids=[
            "one call early in the day is little",
            "a tenth is not",
            "half as fast again as it may be is not yet",
            "faster is",
            "spent in time",
            "all spent, there is nothing to burn: that is told as exceeded",
        ],
    )
    def test_is_told_at_one_and_a_half_of_the_speed(
        self, hour: int, spent: int, told: bool, till: Callable[..., Till], clock: Clock
    ) -> None:
        clock.now = NOON - DAY / 2 + hour * 3600
        shop = till(budget(thresholds=()))
        shop.spend(spent)
        assert shop.marks == [("burning_fast", None)] * told

    def test_is_told_once_a_period(self, till: Callable[..., Till], clock: Clock) -> None:
        clock.now -= DAY / 2
        shop = till(budget(thresholds=()))
        assert [shop.spend(100).marks for _ in range(3)] == [[("burning_fast", None)], [], []]
        clock.now += DAY
        assert [shop.spend(100).marks for _ in range(3)] == [[("burning_fast", None)], [], []]

    def test_is_nothing_that_a_moving_window_does(self, till: Callable[..., Till]) -> None:
        shop = till(budget(period="24h", thresholds=()))
        shop.spend(999)
        assert shop.told == []


TEN_MINUTES = 600


class TestASpike:
    """A month's limit of $1,000: a hundredth of it is $10, which is more than five times the $0.23 of ten minutes."""

    @pytest.fixture
    def shop(self, till: Callable[..., Till], clock: Clock) -> Till:
        # After the middle of the month, so that nothing burns fast.
        shop: Till = till(budget(limit="1000", period="month", thresholds=()))
        return shop

    @staticmethod
    def go_on(shop: Till, clock: Clock, intervals: int, cents: int) -> None:
        """Spend so many cents in each of these stretches of ten minutes, in three calls."""
        for _ in range(intervals):
            for _ in range(3):
                shop.spend(cents * 10 // 3)
                clock.now += TEN_MINUTES / 3

    def test_is_told_once_an_hour(self, shop: Till, clock: Clock) -> None:
        self.go_on(shop, clock, 7, 300)
        assert shop.told == []
        for _ in range(2):
            shop.spend(15_001)
            assert [(event.type, event.period) for event in shop.told] == [
                ("spike", f"2026-11/{datetime.fromtimestamp(clock.now, UTC):%Y-%m-%dT%H}")
            ]
            shop.spend(20_000)
            assert shop.told == [], "not twice in an hour"
            clock.now += 3600

    def test_is_more_than_five_times_the_usual(self, shop: Till, clock: Clock) -> None:
        self.go_on(shop, clock, 7, 300)
        shop.spend(15_000)
        assert shop.told == []
        shop.spend(1)
        assert shop.marks == [("spike", None)]

    def test_is_more_than_a_hundredth_of_the_limit(self, shop: Till, clock: Clock) -> None:
        self.go_on(shop, clock, 7, 3)
        shop.spend(10_000)
        assert shop.told == []
        shop.spend(1)
        assert shop.marks == [("spike", None)]

    def test_is_none_in_the_first_hour_when_nobody_knows_what_is_usual(self, shop: Till, clock: Clock) -> None:
        self.go_on(shop, clock, 5, 30)
        shop.spend(50_000)
        assert shop.told == []

    @pytest.mark.parametrize("cents", [10, 400, 700, 900, 1_100, 2_000])
    def test_is_nothing_steady(self, cents: int, shop: Till, clock: Clock) -> None:
        """Whatever its size is beside the hundredth of the limit, by which most calls are not looked at."""
        self.go_on(shop, clock, 40, cents)
        assert [mark for mark in shop.marks if mark[0] == "spike"] == []

    def test_is_not_the_first_call_after_a_night(self, till: Callable[..., Till], clock: Clock) -> None:
        """Nothing is usual then, and a day's limit is spent in its working hours."""
        shop = till(budget(thresholds=()))
        shop.spend(1)
        clock.now += 8 * 3600
        shop.spend(30)
        assert shop.told == []
        shop.spend(10)
        assert shop.marks == [("spike", None)], "but this is a day's limit in four hours"


class TestRefused:
    def test_is_told_once_a_period(self, till: Callable[..., Till], late: Clock) -> None:
        shop = till(budget(policy="block", thresholds=(200,)))
        for _ in range(2):
            shop.spend(999)
            assert isinstance(shop.ask(), Admission)
            assert shop.told == []
            for _ in range(3):
                assert isinstance(shop.ask(), Refusal)
            (event,) = shop.told
            assert (event.type, event.severity, event.reason, event.threshold, event.current) == (
                "refused", "critical", "limit", None, Decimal("0.999"),
            )  # fmt: skip
            assert event.message == (
                f"budget 'b': calls are refused that would pass $1 in {event.period} ($0.999 spent); raise the limit, "
                "or give calls that must pass the priority 'critical'"
            )
            late.now += DAY

    def test_for_want_of_a_price_hides_no_other(self, till: Callable[..., Till], late: Clock) -> None:
        shop = till(budget(policy="block", thresholds=(200,)))
        assert isinstance(shop.ask(model="unheard-of"), Refusal)
        (event,) = shop.told
        assert event.reason == "price"
        assert event.message == (
            "budget 'b': calls of a model without a price are refused in 2026-11-23 ($0 spent); add a price for the "
            "model, or let the budget warn"
        )
        shop.spend(1000)
        assert isinstance(shop.ask(), Refusal)
        assert [event.reason for event in shop.told] == ["limit"]

    def test_for_want_of_the_store_is_told_at_once_by_each_process(
        self, own_redis: RedisServer, till: Callable[..., Till], late: Clock
    ) -> None:
        """Nobody can be asked whether it was told, and nobody wants to hear of it when it is over."""
        shops = [
            till(budget(policy="block", on_store_error="deny"), store=RedisStore(own_redis.patient_url, clock=late))
            for _ in range(2)
        ]
        own_redis.stop()
        for shop in shops:
            for _ in range(2):
                assert isinstance(shop.ask(), Refusal)
            (event,) = shop.told
            assert event.reason == "store"
            assert event.message == (
                "budget 'b': its store does not answer, and calls are refused in 2026-11-23 ($0 spent); bring the "
                "store back, or set on_store_error to 'allow'"
            )

    def test_in_a_block_of_code_is_told_by_its_error_alone(self, till: Callable[..., Till]) -> None:
        shop = till()
        limit = block(Budget("agent", "0.0001", policy="block"))
        assert isinstance(shop.ask(Attribution({}, (), frozenset(), (limit,))), Refusal)
        assert shop.told == []


class TestSeveralProcesses:
    """Two of them, on one file."""

    def test_tell_each_thing_once(self, tmp_path: Path, till: Callable[..., Till], late: Clock) -> None:
        shops = [till(budget(), store=SQLiteStore(tmp_path / "b.db", late)) for _ in range(2)]
        for _ in range(6):
            for shop in shops:
                shop.spend(100)
        for shop in shops:
            shop.guard._accounts.look()
        told = [event for shop in shops for event in shop.told]
        assert sorted((event.type, event.threshold) for event in told) == [
            ("exceeded", 100), ("threshold", 50), ("threshold", 75), ("threshold", 80), ("threshold", 90),
        ]  # fmt: skip

    def test_that_see_it_at_one_moment_tell_it_once(
        self, tmp_path: Path, till: Callable[..., Till], late: Clock
    ) -> None:
        shops = [till(budget(), store=SQLiteStore(tmp_path / "b.db", late)) for _ in range(4)]
        gate = threading.Barrier(4)

        def spend(shop: Till) -> None:
            gate.wait()
            shop.spend(300)

        threads = [threading.Thread(target=spend, args=(shop,)) for shop in shops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told = [event.id for shop in shops for event in shop.told]
        assert sorted(told) == sorted(set(told))
        assert len(told) == 5

    def test_tell_what_another_one_has_spent(self, tmp_path: Path, till: Callable[..., Till], late: Clock) -> None:
        """Its own calls are not the only ones that a process sees."""
        watching, spending = (
            till(budget(policy=policy), store=SQLiteStore(tmp_path / "b.db", late)) for policy in ("warn", "observe")
        )
        spending.spend(600)
        watching.guard._accounts.look()
        assert watching.marks == [("threshold", 50)]


class TestAStoreThatFails:
    def test_while_it_is_told_of_an_event_hears_of_it_later_and_so_do_people_once(
        self, tmp_path: Path, till: Callable[..., Till], late: Clock
    ) -> None:
        path = tmp_path / "b.db"
        shop = till(budget(thresholds=(50,)), store=SQLiteStore(path, late))
        shop.spend(1)
        with closing(sqlite3.connect(path)) as file:
            (table,) = file.execute("SELECT sql FROM sqlite_schema WHERE name = 'records'").fetchone()
            file.execute("DROP TABLE records")
        shop.spend(499)
        assert shop.told == []
        assert {(where, type(error)) for where, error in shop.failures} == {("budgets.events", StoreError)}
        with closing(sqlite3.connect(path)) as file:
            file.execute(table)
        for _ in range(3):
            shop.guard._accounts.look()
        assert shop.marks == [("threshold", 50)]


@pytest.mark.usefixtures("late")
class TestWhoIsTold:
    def test_the_log(self, till: Callable[..., Till], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "costspan.budgets")
        shop = till(budget(thresholds=(50, 80, 100)))
        shop.spend(1100)
        said = [(record.name, record.levelname, record.getMessage().partition(";")[0]) for record in caplog.records]
        assert said == [
            ("costspan.budgets", "INFO", "budget 'b': 50 % of $1 reached in 2026-11-23 ($1.1 spent)"),
            ("costspan.budgets", "WARNING", "budget 'b': 80 % of $1 reached in 2026-11-23 ($1.1 spent)"),
            ("costspan.budgets", "ERROR",
             "budget 'b': the limit of $1 is reached, $0.1 over it in 2026-11-23 ($1.1 spent)"),
        ]  # fmt: skip

    def test_opentelemetry(self, till: Callable[..., Till], late: Clock) -> None:
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        shop = till(budget(per="user", thresholds=(50, 100)), logger=lambda: logs.get_logger("costspan"))
        shop.spend(1100, who(user="ada"))
        half, whole = [log.log_record for log in exporter.get_finished_logs()]
        assert (half.event_name, half.severity_number, half.timestamp) == (
            "costspan.budget.threshold", SeverityNumber.INFO, int(late.now * 10**9),
        )  # fmt: skip
        assert (whole.event_name, whole.severity_number, whole.severity_text) == (
            "costspan.budget.exceeded", SeverityNumber.ERROR, "CRITICAL",
        )  # fmt: skip
        assert whole.body == shop.told[1].message
        assert dict(whole.attributes or {}) == {
            "costspan.budget.name": "b",
            "costspan.budget.period": "2026-11-23",
            "costspan.budget.value": "ada",
            "costspan.budget.event.type": "exceeded",
            "costspan.budget.threshold": 100,
            "costspan.budget.limit": 1.0,
            "costspan.budget.spent": 1.1,
            "costspan.budget.remaining": 0.0,
            "costspan.budget.overage": 0.1,
            "costspan.budget.event.advice": (
                "raise the limit, wait for the next period, or find what spent it: costspan budgets show 'b'"
            ),
        }

    def test_the_metrics(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[budget(limit="0.001", thresholds=(50, 80, 100), soft_limit="0.0001")])
        shop.call()
        assert shop.metrics()["costspan.budget.events"] == {
            (("costspan.budget.name", "b"), ("severity", severity), ("type", kind)): 1
            for kind, severity in (("threshold", "info"), ("threshold", "warning"), ("exceeded", "critical"),
                                   ("soft_limit", "warning"))
        }  # fmt: skip

    def test_the_application_and_people_though_one_of_them_raises(
        self, till: Callable[..., Till], caplog: pytest.LogCaptureFixture
    ) -> None:
        sent: list[Event] = []

        def broken(event: Event) -> None:
            raise RuntimeError("the application's own")

        shop = till(budget(thresholds=(80, 100)), tell=broken, notify=sent.append)
        shop.spend(1000)
        assert shop.told == []
        assert [event.threshold for event in sent] == [80, 100]
        assert [(where, str(error)) for where, error in shop.failures] == [
            ("budgets.events", "the application's own")
        ] * 2
        assert len(caplog.records) == 2

    def test_them_though_the_logger_raises(self, till: Callable[..., Till]) -> None:
        def broken() -> Any:
            class Logger:
                def emit(self, record: object) -> None:
                    raise RuntimeError("no exporter")

            return Logger()

        shop = till(budget(thresholds=(100,)), logger=broken)
        shop.spend(1000)
        assert shop.marks == [("exceeded", 100)]
        assert [str(error) for _, error in shop.failures] == ["no exporter"]

    def test_on_a_thread_of_ours(self, till: Callable[..., Till]) -> None:
        """A receiver that takes its time holds up no call."""
        go_on, threads = threading.Event(), []

        def slow(event: Event) -> None:
            threads.append(threading.current_thread().name)
            assert go_on.wait(30)

        shop = till(budget(thresholds=(100,)), tell=slow)
        shop.spend(1000)
        go_on.set()
        assert shop.told == []
        assert threads == ["costspan-events"]


@pytest.mark.usefixtures("late")
class TestARecord:
    @pytest.fixture(params=["memory", "sqlite", "redis"])
    def shop(self, request: pytest.FixtureRequest, tmp_path: Path, till: Callable[..., Till], late: Clock) -> Till:
        store: Store = MemoryStore(late)
        if request.param == "sqlite":
            store = SQLiteStore(tmp_path / "b.db", late)
        elif request.param == "redis":
            store = RedisStore(request.getfixturevalue("redis_server").patient_url, tmp_path.name, late)
        shop: Till = till(budget(thresholds=(50, 100)), store=store)
        return shop

    def test_is_kept_of_each_event(self, shop: Till) -> None:
        shop.spend(1000)
        told = shop.told
        records = {record.id: record.text for record in shop.guard.store.records()}
        assert records.keys() == {event.id for event in told}
        assert records.keys() == {"b:2026-11-23:exceeded:100:1", "b:2026-11-23:threshold:50:1"}
        assert json.loads(records["b:2026-11-23:exceeded:100:1"]) == {
            "type": "exceeded", "severity": "critical", "budget": "b", "period": "2026-11-23", "threshold": 100,
            "limit": "1", "current": "1", "remaining": "0", "overage": "0",
            "advice": told[1].advice, "at": "2026-11-23T23:58:33.600000+00:00", "value": None, "reason": None,
        }  # fmt: skip

    def test_can_be_acknowledged_and_is_not_told_again(self, shop: Till) -> None:
        shop.spend(1000)
        assert len(shop.told) == 2
        assert shop.guard.store.acknowledge("b:2026-11-23:exceeded:100:1", "ada")
        assert not shop.guard.store.acknowledge("b:2026-11-23:exceeded:100:2", "ada")
        shop.spend(1000)
        assert shop.told == []
        assert {record.id: record.acknowledged_by for record in shop.guard.store.records()} == {
            "b:2026-11-23:exceeded:100:1": "ada",
            "b:2026-11-23:threshold:50:1": "",
        }


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("spend"), st.integers(0, 1), st.integers(0, 1200)),
        st.tuples(st.just("wait"), st.sampled_from([60, 600, 3600, 30_000, DAY]), st.just(0)),
        st.tuples(st.just("limit"), st.sampled_from([1, 2, 5]), st.just(0)),
    ),
    max_size=40,
)


@given(
    program=STEPS,
    thresholds=st.lists(st.integers(1, 300), unique=True, max_size=6),
    soft=st.sampled_from([None, "0.2", "1"]),
)
def test_whatever_is_spent_nothing_is_told_twice_and_every_threshold_is_told(
    program: list[tuple[str, int, int]], thresholds: list[int], soft: str | None, coins: PriceBook
) -> None:
    """By two processes of one store, whose limit is changed now and then."""
    clock = Clock()
    store = MemoryStore(clock)
    limit = 1

    def held() -> list[Budget]:
        return [budget(limit=limit, thresholds=thresholds, soft_limit=soft)]

    tills = [Till(coins, store, clock, *held()) for _ in range(2)]
    spent: dict[str, int] = {}
    due: set[tuple[str, int, int]] = set()
    try:
        for what, first, mills in program:
            if what == "wait":
                clock.now += first
            elif what == "limit":
                limit = first
                for one in tills:
                    one.guard.replace(held(), None)
            else:
                tills[first].spend(mills)
                day = f"{datetime.fromtimestamp(clock.now, UTC):%Y-%m-%d}"
                spent[day] = spent.get(day, 0) + mills
                due |= {(day, limit, percent) for percent in thresholds if spent[day] * 100 >= limit * 1000 * percent}
        told = [event for one in tills for event in one.told]
    finally:
        for one in tills:
            one.guard.close()
    ids = [event.id for event in told]
    assert len(ids) == len(set(ids))
    reached = {
        (event.period, int(event.limit), event.threshold) for event in told if event.type in {"threshold", "exceeded"}
    }
    assert reached == due
    assert all(one.failures == [] for one in tills)
