"""What has gone wrong with the budgets of others, issue by issue, played with ours.

Each test is named after the issue that it is from; its docstring says what went wrong there. Unless it says otherwise
each runs with every kind of store: memory, an SQLite file, and a real Redis.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import redis
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from costspan_processor import Budget, BudgetExceeded, Processing
from costspan_processor.attribution import Attribution, attributes_of
from costspan_processor.budgets import Guard
from costspan_processor.budgets.guard import Admission, Refusal
from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.redis import RedisStore
from costspan_processor.budgets.store import Balance, Claim
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from tests.processor.budgets.server import Wire
from tests.processor.budgets.test_guard import REQUEST
from tests.processor.conftest import AT, CHAT, Clock, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from costspan_pricing import PriceBook
    from costspan_processor.budgets.store import Store
    from tests.processor.budgets.conftest import Opener
    from tests.processor.budgets.server import RedisServer

    Replica = Callable[..., "Service"]

HELD = 8_392_000
"""Nanodollars that a call of `REQUEST` is estimated at, with 400 characters of prompt."""
SENT = 200_000
"""What its prompt alone is estimated at."""
COST = 1_600_000
"""What it costs, if it answers as `CHAT` does."""
ASKED = Decimal("0.008392")


def who(**named: object) -> Attribution:
    return Attribution(attributes_of(**named))


class Service:
    """A process that makes calls, as far as one test can be several."""

    def __init__(self, book: PriceBook, store: Store, clock: Callable[[], float] | None, *budgets: Budget) -> None:
        self.book = book
        self.guard = Guard(budgets, book, store, clock=clock)

    def ask(
        self, attribution: Attribution | None = None, changed: Mapping[str, Any] | None = None, characters: int = 400
    ) -> Admission | Refusal | None:
        return self.guard.admit({**REQUEST, **(changed or {})}, attribution, lambda: characters)

    def end(self, said: Admission | Refusal | None, answer: Mapping[str, Any] = CHAT) -> None:
        """The call ends as `answer` says."""
        assert isinstance(said, Admission)
        reading = read(answer)
        assert reading is not None
        self.guard.settle(said, assess(reading, AT, self.book))

    def call(self, attribution: Attribution | None = None, changed: Mapping[str, Any] | None = None) -> None:
        """A call from its beginning to its end, settled before this returns."""
        said = self.ask(attribution, changed)
        if isinstance(said, Refusal):
            raise said.error
        self.end(said, {**CHAT, **(changed or {})})
        assert self.guard.flush()

    def may(self, attribution: Attribution | None = None) -> bool:
        """Whether a call would be let through; it is not made."""
        said = self.ask(attribution)
        if isinstance(said, Admission):
            self.end(said, {**REQUEST, "error.type": "BadRequestError"})
            assert self.guard.flush()
        return isinstance(said, Admission)

    def balance(self, account: str) -> Balance:
        assert self.guard.flush()
        return self.guard.store.read([Claim(account)]).balances[account]


@pytest.fixture
def replica(book: PriceBook, opened: Opener, clock: Clock) -> Iterator[Replica]:
    """Makes processes that share a store, of each kind in turn."""
    made: list[Service] = []

    def another(*budgets: Budget) -> Service:
        made.append(Service(book, opened(), clock, *budgets))
        return made[-1]

    yield another
    for one in made:
        one.guard.close()


def blocking(limit: str | Decimal, name: str = "b", **more: Any) -> Budget:
    return Budget(name, limit, policy="block", **more)


# ---------------------------------------------------------------------- holds that stay


class Test27639:
    """LiteLLM #27639: some ways for a request to end left its hold in the counter, until everybody was refused."""

    @pytest.mark.parametrize(
        ("answer", "spent"),
        [
            (CHAT, COST),
            ({**REQUEST, "error.type": "BadRequestError"}, 0),
            ({**REQUEST, "error.type": "RateLimitError"}, 0),
            ({**REQUEST, "error.type": "APITimeoutError"}, SENT),
            ({**REQUEST, "error.type": "CancelledError"}, SENT),
            ({**REQUEST, "error.type": "GeneratorExit"}, SENT),
            ({**REQUEST, "error.type": "KeyboardInterrupt"}, SENT),
            (REQUEST, HELD),
            ({**CHAT, "gen_ai.response.model": "huge", "gen_ai.request.model": "huge"}, HELD),
            ({**CHAT, "error.type": "APIError"}, COST),
        ],
        ids=[
            "answered", "refused by the provider", "rate limited", "timed out", "cancelled", "dropped stream",
            "interrupted", "no usage", "answered by a model without a price", "broke after it said its usage",
        ],
    )  # fmt: skip
    def test_litellm_27639_holds_never_leak(self, answer: Mapping[str, Any], spent: int, replica: Replica) -> None:
        """A hold that was not given back counted as money for ever."""
        shop = replica(blocking("1"), Budget("c", "1"))
        shop.end(shop.ask(), answer)
        assert [shop.balance(f"{name}:2026-11") for name in "bc"] == [(spent, 0, 0)] * 2
        assert shop.guard.store.holds() == []

    def test_litellm_27639_a_refusal_by_one_budget_holds_nothing_in_another(self, replica: Replica) -> None:
        """Counters were raised scope by scope, and those raised before a refusal stayed."""
        shop = replica(Budget("all", "1"), blocking("1", "wide"), blocking("0.001", "narrow"))
        assert not shop.may()
        assert [shop.balance(f"{name}:2026-11") for name in ("all", "wide", "narrow")] == [(0, 0, 0)] * 3


def test_litellm_29493_holds_of_a_process_that_died_end_by_themselves(replica: Replica, clock: Clock) -> None:
    """Leaked holds were cured by a switch that turns reservations off, and with them the limit."""
    dying, other = replica(blocking("0.01")), replica(blocking("0.01"))
    said = dying.ask()
    assert not other.may()
    clock.now += 601
    assert other.balance("b:2026-11") == (HELD, 0, HELD), "it may have been made, so its estimate is charged, marked"
    dying.end(said)
    assert dying.balance("b:2026-11") == (COST, 0, 0), "it had not died: what it cost takes the estimate's place"
    assert other.may()


def test_litellm_30460_what_is_written_twice_counts_once(book: PriceBook, redis_server: RedisServer) -> None:
    """A write that timed out was repeated, and had been made the first time: counters grew beyond all spending.

    The connection holds back what is sent; it arrives later, after the same has come by another way.
    """
    wire = Wire(redis_server.port)
    name = f"b{os.getpid()}{time.time_ns()}"
    shop = Service(book, RedisStore(f"redis://127.0.0.1:{wire.port}?socket_timeout=0.3"), None,
                   blocking("1", name, period="year"))  # fmt: skip
    other = RedisStore(redis_server.patient_url)
    try:
        account = f"{name}:{datetime.now(UTC).year}"
        admitted = [shop.ask() for _ in range(3)]
        shop.end(admitted[0])
        assert shop.guard.flush()
        wire.cut()
        for said in admitted[1:]:
            shop.end(said)
        assert not shop.guard.flush(1.0), "nothing comes through"
        wire.mend()
        assert shop.guard.flush(15)
        time.sleep(0.3)
        assert other.read([Claim(account)]).balances[account] == (3 * COST, 0, 0)
    finally:
        shop.guard.close()
        other.close()
        wire.close()


# ---------------------------------------------------------------------- stores that fail


def test_litellm_33923_34429_a_failed_reservation_denies(book: PriceBook, own_redis: RedisServer) -> None:
    """Fail-closed looked at the reading alone: where the store could be read but not written, calls passed.

    The server answers, and takes no writes for want of a replica.
    """
    shop = Service(book, RedisStore(own_redis.patient_url), None,
                   blocking("1", on_store_error="deny", period="year"))  # fmt: skip
    admin = redis.Redis.from_url(own_redis.url)
    try:
        assert shop.may()
        admin.config_set("min-replicas-to-write", 1)
        assert admin.ping()
        with pytest.raises(BudgetExceeded) as caught:
            shop.call()
        assert caught.value.reason == "store"
    finally:
        admin.config_set("min-replicas-to-write", 0)
        admin.close()
        shop.guard.close()


def test_litellm_discussion_50438_the_defaults_hold_in_an_outage_too(
    book: PriceBook, own_redis: RedisServer, clock: Clock
) -> None:
    """Under stress a limit held with strict settings alone: by default an outage let everything pass."""
    shop = Service(book, RedisStore(own_redis.patient_url, clock=clock), clock, blocking("0.02"))
    try:
        shop.call()
        shop.guard._accounts.look()
        own_redis.stop()
        admitted = [shop.ask() for _ in range(10)]
        spent = sum(isinstance(said, Admission) for said in admitted) * HELD + COST
        assert 0 < spent <= 20_000_000, "as many as there was room for, and no more"
    finally:
        own_redis.start()
        shop.guard.close()


def test_litellm_discussion_50438_one_call_larger_than_all_that_is_left_is_refused(replica: Replica) -> None:
    """A call of enormous size passed, since only what had been spent was compared."""
    shop = replica(blocking("0.01"))
    with pytest.raises(BudgetExceeded) as caught:
        shop.call(changed={"gen_ai.request.max_tokens": 1_000_000})
    assert caught.value.asked == Decimal("8.0002")
    assert shop.balance("b:2026-11") == (0, 0, 0)


# ---------------------------------------------------------------------- what is estimated


def test_litellm_35524_35584_a_model_without_a_price_is_not_let_through(replica: Replica) -> None:
    """A model that could not be priced was reserved nothing for, silently, and passed every limit."""
    shop = replica(blocking("100"), Budget("told", "100"))
    said = shop.ask(changed={"gen_ai.request.model": "huge"})
    assert isinstance(said, Refusal)
    assert (said.error.reason, said.error.asked) == ("price", None)
    assert shop.guard.store.holds() == []


def test_litellm_38647_worst_cases_do_not_fill_a_budget(replica: Replica) -> None:
    """Agents that ask for 32,000 tokens and use a few filled the counter to its limit with nothing spent."""
    shop = replica(blocking("2"))
    asking = {"gen_ai.request.max_tokens": 32_000}
    first = shop.ask(changed=asking)
    assert isinstance(first, Admission)
    assert shop.balance("b:2026-11") == (0, 256_200_000, 0), "what is held is no spending"
    shop.end(first)
    for _ in range(20):
        shop.call(changed=asking)
    agents = [shop.ask(changed=asking) for _ in range(50)]
    assert all(isinstance(said, Admission) for said in agents), "by what answers were, not by what they might be"
    assert shop.balance("b:2026-11")[:2] == (21 * COST, 50 * (SENT + 800_000))


class Test40002:
    """LiteLLM #40002: what was reserved went by the base price, whatever tier or length of context was asked for."""

    @staticmethod
    def reserved_and_spent(book: PriceBook, clock: Clock, tokens: int, asking: Mapping[str, Any]) -> tuple[int, int]:
        """What a call with a prompt of so many tokens holds, and what it costs if it is as long as was thought."""
        shop = Service(book, MemoryStore(clock), clock, blocking("1000"))
        asked = {**REQUEST, "gen_ai.request.max_tokens": 100, **asking}
        said = shop.guard.admit(asked, None, lambda: 4 * tokens)
        assert isinstance(said, Admission)
        reading = read({**asked, "gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": 100})
        assert reading is not None
        shop.guard.settle(said, assess(reading, int(clock.now * 10**9), book))
        return said.amount, shop.balance("b:2026-11").spent

    def test_litellm_40002_the_tier_that_is_asked_for_is_reserved(self, book: PriceBook, clock: Clock) -> None:
        """A priority call was reserved less than it cost."""
        asking = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5"}
        found = {
            tier: self.reserved_and_spent(book, clock, 1000, {**asking, "openai.request.service_tier": tier})
            for tier in ("flex", "default", "priority")
        }
        assert all(reserved == spent for reserved, spent in found.values())
        assert found["flex"] < found["default"] < found["priority"]

    def test_litellm_40002_a_long_context_is_reserved_at_its_price(self, book: PriceBook, clock: Clock) -> None:
        """A prompt above the step in the price was reserved half of what it cost."""
        asking = {"gen_ai.provider.name": "google", "gen_ai.request.model": "gemini-2.5-pro"}
        short, long = (self.reserved_and_spent(book, clock, tokens, asking) for tokens in (200_000, 200_001))
        assert short[0] == short[1]
        assert long[0] == long[1]
        assert long[0] > 1.5 * short[0]


# ---------------------------------------------------------------------- many at once


def together(number: int, do: Callable[[int], bool]) -> int:
    """Have so many threads do it at one moment; returns how many said yes."""
    gate = threading.Barrier(number)

    def one(index: int) -> bool:
        gate.wait()
        return do(index)

    with ThreadPoolExecutor(number) as pool:
        return sum(pool.map(one, range(number)))


def test_litellm_34732_calls_of_a_session_that_come_together_share_its_limit(replica: Replica) -> None:
    """All of them read the same sum below the limit before any of them had added to it."""
    budget = blocking(3 * ASKED, "sessions", per="session")
    replicas = [replica(budget), replica(budget)]
    passed = together(12, lambda index: isinstance(replicas[index % 2].ask(who(session="s1")), Admission))
    assert passed == 3
    assert replicas[0].balance("sessions:2026-11/s1") == (0, 3 * HELD, 0)
    assert replicas[0].may(who(session="s2")), "another session has its own limit"


async def test_floe_guard_18_tasks_of_one_loop_cannot_pass_together(replica: Replica) -> None:
    """The guard was asked before the call and told after it, and everything in between was free."""
    shop = replica(blocking(3 * ASKED))
    said = await asyncio.gather(*(shop.guard.aadmit(REQUEST, None, lambda: 400) for _ in range(12)))
    assert sum(isinstance(one, Admission) for one in said) == 3
    await asyncio.to_thread(shop.guard.flush)
    assert await asyncio.to_thread(shop.balance, "b:2026-11") == (0, 3 * HELD, 0)


def test_litellm_34733_what_is_spent_around_the_end_of_a_period_is_all_there(replica: Replica, clock: Clock) -> None:
    """The first answers of a new window each set the counter to their own cost, and the last one won."""
    budget = Budget("b", "1", period="day")
    replicas = [replica(budget), replica(budget)]
    clock.now = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC).timestamp()
    old = [replicas[index % 2].ask() for index in range(8)]
    clock.now += 1
    new = [replicas[index % 2].ask() for index in range(8)]

    def settled(index: int) -> bool:
        replicas[index % 2].end((*old, *new)[index])
        return True

    assert together(16, settled) == 16
    assert all(one.guard.flush() for one in replicas)
    assert [replicas[0].balance(f"b:2026-11-{day}") for day in (23, 24)] == [(8 * COST, 0, 0)] * 2


# ---------------------------------------------------------------------- new periods


def test_litellm_24675_each_users_limit_is_that_of_the_period(replica: Replica, clock: Clock) -> None:
    """What a user had spent in all his life was compared with a limit for a month."""
    shop = replica(blocking(ASKED, "users", per="user", period="month"))
    for _ in range(3):
        shop.call(who(user="ada"))
        assert not shop.may(who(user="ada"))
        clock.now += 31 * 86400
    assert shop.may(who(user="ada"))


def test_litellm_5651_a_window_of_a_day_lets_calls_pass_after_a_day(replica: Replica, clock: Clock) -> None:
    """The budget of 24 hours was never reset, and its user stayed out."""
    shop = replica(blocking(ASKED, "users", per="user", period="24h"))
    shop.call(who(user="ada"))
    began = clock.now
    while not shop.may(who(user="ada")):
        clock.now += 600
    assert 24 * 3600 <= clock.now - began <= 24 * 3600 * 1.05 + 600, "a window forgets up to 5 % late, and never early"


def test_litellm_7129_a_period_ends_even_if_no_process_was_there(replica: Replica, clock: Clock) -> None:
    """Spending was set back by a job at some hour; where it did not run, or was late, nobody got a new period."""
    before = replica(blocking(ASKED, period="day"))
    before.call()
    assert not before.may()
    before.guard.flush()
    clock.now += 86400
    after = replica(blocking(ASKED, period="day"))
    assert after.may()
    assert before.may(), "and no process needs to be started for it"


def test_litellm_39726_39729_all_replicas_see_the_new_period_at_once(replica: Replica, clock: Clock) -> None:
    """One replica reset the counter, the other kept refusing by what it remembered."""
    replicas = [replica(blocking(ASKED, period="day")) for _ in range(3)]
    replicas[0].call()
    assert [one.may() for one in replicas] == [False] * 3
    clock.now += 86400
    assert [one.may() for one in replicas] == [True] * 3


def test_litellm_27519_gauges_go_on_where_they_were_after_a_restart(
    book: PriceBook, opened: Opener, clock: Clock
) -> None:
    """The metric of what was spent began at 0 when the process began."""
    budget = blocking("1")
    before = Service(book, opened(), clock, budget)
    before.call()
    before.guard.flush()
    reader = InMemoryMetricReader()
    started = Processing(
        TracerProvider(shutdown_on_exit=False),
        MeterProvider([reader], shutdown_on_exit=False),
        book=book,
        guard=lambda resource, failed: Guard([budget], book, opened(), clock=clock),
    )
    started.start()
    started.guard.present()
    started.guard._accounts.look()
    try:
        gauges = metrics_of(reader)
        assert list(gauges["costspan.budget.spent"].values()) == [COST / 10**9]
    finally:
        started.guard._accounts.flush()
        started.span_processor.shutdown()


# ---------------------------------------------------------------------- who is asked at all


@pytest.mark.parametrize("team_first", [True, False], ids=["the team's first", "the user's first"])
def test_litellm_11962_a_users_limit_holds_beside_that_of_his_team(team_first: bool, replica: Replica) -> None:
    """Once a key had a team, its user's own limit was no more looked at."""
    own, teams = blocking(2 * ASKED, "users", per="user"), blocking("1", "team", scope={"team": "search"})
    shop = replica(*((teams, own) if team_first else (own, teams)))
    for _ in range(2):
        shop.ask(who(user="ada", team="search"))
    said = shop.ask(who(user="ada", team="search"))
    assert isinstance(said, Refusal)
    assert (said.error.budget, said.error.value) == ("users", "ada")
    assert shop.may(who(user="bob", team="search"))


def charged(shop: Service, key: str, answer: Mapping[str, Any] = CHAT) -> None:
    reading = read(answer)
    assert reading is not None
    shop.guard.charge(key, answer, None, assess(reading, AT, shop.book))
    assert shop.guard.flush()


def test_litellm_10750_13882_calls_that_nobody_asked_about_count(replica: Replica) -> None:
    """Calls by pass-through routes passed the limit: they were not held to it, nor to each other.

    Here these are calls that no patch saw: spans of others, and what `costspan.record()` is told.
    """
    shop = replica(blocking("0.011"))
    assert shop.may()
    charged(shop, "trace-1:span-1")
    charged(shop, "trace-1:span-2")
    charged(shop, "trace-1:span-2")
    assert shop.balance("b:2026-11") == (2 * COST, 0, 0), "each span once"
    assert not shop.may()


def test_litellm_12794_a_batch_counts_when_its_answers_are_read(replica: Replica) -> None:
    """Batches went by the limit unseen."""
    shop = replica(blocking("0.02"))
    batch = {**CHAT, "gen_ai.usage.input_tokens": 10_000, "gen_ai.usage.cache_read.input_tokens": 0}
    charged(shop, "batch-1", batch)
    assert shop.balance("b:2026-11").spent == 20_800_000, "above the limit: it is recorded, never cut"
    with pytest.raises(BudgetExceeded):
        shop.call()


def test_litellm_10973_what_costs_nothing_is_never_refused(book: PriceBook, opened: Opener, clock: Clock) -> None:
    """When the limit was reached, models that cost nothing were blocked too."""
    own = book.with_prices({"acme/gift": {"input": "0", "output": "0"}})
    shop = Service(own, opened(), clock, blocking("0.001"))
    charged(shop, "a")
    assert not shop.may()
    gift = {"gen_ai.request.model": "gift", "gen_ai.response.model": "gift"}
    shop.call(changed=gift)
    assert shop.balance("b:2026-11") == (COST, 0, 0)
    shop.guard.close()


# ---------------------------------------------------------------------- calls that are broken off


async def test_litellm_a_cancelled_call_pays_for_its_prompt(replica: Replica) -> None:
    """Who hung up got everything back, though the provider had read the prompt and billed it."""
    shop = replica(blocking("1"))
    said = await shop.guard.aadmit(REQUEST, None, lambda: 400)
    await asyncio.to_thread(shop.end, said, {**REQUEST, "error.type": "CancelledError"})
    assert await asyncio.to_thread(shop.balance, "b:2026-11") == (SENT, 0, 0)


async def test_litellm_a_call_cancelled_while_it_asks_leaves_no_hold(replica: Replica) -> None:
    """A request that was cancelled during its admission kept what had been reserved for it."""
    shop = replica(blocking("1"))
    task = asyncio.create_task(shop.guard.aadmit(REQUEST, None, lambda: 400))
    await asyncio.sleep(0)
    task.cancel()
    try:
        said = await task
    except asyncio.CancelledError:
        pass
    else:
        shop.end(said, {**REQUEST, "error.type": "BadRequestError"})
    await asyncio.sleep(0.05)
    assert await asyncio.to_thread(shop.balance, "b:2026-11") == (0, 0, 0)
    assert await asyncio.to_thread(shop.guard.store.holds) == []
