"""Budgets: what is admitted, what is refused, and that no nanodollar is lost on the way."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from opentelemetry import context as otel

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.attribution import attributed, attributes_of
from costspan_processor.budgets import Claim, Guard, MemoryStore, Store, period_at
from tests.processor.conftest import AT, CHAT, Clock, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan_pricing import PriceBook

REQUEST = {key: value for key, value in CHAT.items() if "usage" not in key and "response" not in key}
"""400 characters of prompt are 100 tokens at $2, and 1,024 tokens of answer are assumed at $8: $0.008392."""


def claim(account: str = "team:2026-11", limit: int = 1000, blocking: bool = True) -> Claim:
    return Claim(account, limit, blocking, (50, 100))


class TestABudget:
    def test_limits_are_exact_however_they_are_given(self) -> None:
        assert [Budget("b", limit).limit for limit in ("0.1", 0.1, Decimal("0.1"))] == [Decimal("0.1")] * 3

    def test_scopes_are_named_as_in_track_or_as_on_the_span(self) -> None:
        scope = {"team": "search", "provider": "openai", "colour": "red", "service.name": "shop"}
        assert dict(Budget("b", Decimal(1), scope=scope).scope) == {
            "costspan.team": "search",
            "gen_ai.provider.name": "openai",
            "costspan.tag.colour": "red",
            "service.name": "shop",
        }

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"name": ""}, "a budget needs a name"),
            ({"limit": "lots"}, "budget 'b': limit must be an amount in USD, not 'lots'"),
            ({"limit": "-1"}, "limit must be an amount in USD above 0"),
            ({"limit": "NaN"}, "limit must be an amount in USD above 0"),
            ({"period": "year"}, "period must be 'day' or 'month', not 'year'"),
            ({"policy": "ask"}, "policy must be 'warn' or 'block', not 'ask'"),
            ({"thresholds": (50, 0)}, "thresholds must be whole percentages above 0"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message.replace("'", "['\"]")):
            Budget(**{"name": "b", "limit": "1", **wrong})

    def test_two_budgets_of_one_name_are_refused(self, book: PriceBook) -> None:
        with pytest.raises(ValueError, match="two budgets are named 'b'"):
            Guard([Budget("b", Decimal(1)), Budget("b", Decimal(2))], book)


class TestPeriods:
    @given(st.floats(min_value=0, max_value=4e9), st.sampled_from(["day", "month"]))
    def test_every_instant_is_in_its_period_and_periods_tile(self, at: float, kind: Any) -> None:
        period = period_at(kind, at)
        assert period.start <= at < period.end
        after, before = period_at(kind, period.end), period_at(kind, period.start - 1)
        assert after.start == period.end
        assert before.end == period.start
        assert len({before.id, period.id, after.id}) == 3

    @pytest.mark.parametrize(
        ("at", "day", "month"),
        [
            ("2026-11-23T11:00:00+00:00", "2026-11-23", "2026-11"),
            ("2028-02-29T23:59:59+00:00", "2028-02-29", "2028-02"),
            ("2026-12-31T23:59:59.999+00:00", "2026-12-31", "2026-12"),
        ],
    )
    def test_ids(self, at: str, day: str, month: str) -> None:
        instant = datetime.fromisoformat(at).timestamp()
        assert (period_at("day", instant).id, period_at("month", instant).id) == (day, month)


class TestTheStore:
    def test_a_hold_keeps_room_until_it_is_settled(self) -> None:
        store = MemoryStore()
        assert store.reserve("a", 600, [claim()], 60).admitted
        refused = store.reserve("b", 600, [claim()], 60)
        assert (refused.admitted, refused.refused_by) == (False, "team:2026-11")
        assert store.settle("a", 100).balances["team:2026-11"][:2] == (100, 0)
        assert store.reserve("b", 600, [claim()], 60).admitted

    def test_all_budgets_admit_or_none_holds_anything(self) -> None:
        store = MemoryStore()
        answer = store.reserve("a", 600, [claim("wide", 10_000), claim("narrow", 500)], 60)
        assert (answer.admitted, answer.refused_by) == (False, "narrow")
        assert store.read(["wide", "narrow"]) == {"wide": (0, 0, 0), "narrow": (0, 0, 0)}

    def test_a_budget_that_warns_never_refuses(self) -> None:
        assert MemoryStore().reserve("a", 5000, [claim(blocking=False)], 60).admitted

    def test_an_actual_above_the_limit_is_recorded_and_the_next_call_refused(self) -> None:
        store = MemoryStore()
        store.reserve("a", 900, [claim()], 60)
        assert store.settle("a", 5000).balances["team:2026-11"].spent == 5000
        assert not store.reserve("b", 1, [claim()], 60).admitted

    def test_a_call_that_costs_nothing_is_never_refused(self) -> None:
        store = MemoryStore()
        store.charge("x", 5000, [claim()])
        assert store.reserve("a", 0, [claim()], 60).admitted

    def test_a_hold_that_expires_is_charged_at_its_estimate_and_a_late_settle_replaces_that(self, clock: Clock) -> None:
        store = MemoryStore(clock)
        store.reserve("a", 600, [claim()], 60)
        clock.now += 61
        assert store.read(["team:2026-11"])["team:2026-11"] == (600, 0, 600)
        assert store.settle("a", 250).balances["team:2026-11"] == (250, 0, 0)
        assert store.settle("a", 250).balances["team:2026-11"] == (250, 0, 0)

    def test_each_threshold_is_reported_once(self) -> None:
        store = MemoryStore()
        crossed = [store.charge(str(number), 250, [claim()]).crossed for number in range(5)]
        account = "team:2026-11"
        assert crossed == [(), ((account, 50),), (), ((account, 100),), ()]

    def test_a_repeated_mutation_changes_nothing(self) -> None:
        store = MemoryStore()
        for _ in range(2):
            store.reserve("a", 600, [claim()], 60)
        for _ in range(2):
            store.settle("a", 100)
        for _ in range(2):
            store.charge("b", 7, [claim()])
        store.release("a")
        store.reserve("a", 600, [claim()], 60)
        assert store.read(["team:2026-11"])["team:2026-11"] == (107, 0, 0)

    def test_what_nobody_reserved_settles_to_nothing(self) -> None:
        store = MemoryStore()
        assert store.settle("ghost", 100).balances == {}
        assert store.release("ghost").balances == {}

    def test_no_limit_is_passed_by_threads_that_race(self) -> None:
        store = MemoryStore()
        admitted: list[str] = []

        def work(name: int) -> None:
            for number in range(50):
                key = f"{name}-{number}"
                if store.reserve(key, 7, [claim(limit=1000)], 60).admitted:
                    admitted.append(key)
                    store.settle(key, 7)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(admitted) == 142
        assert store.read(["team:2026-11"])["team:2026-11"] == (994, 0, 0)


class Conservation(RuleBasedStateMachine):
    """Any program of mutations, with repeats and expiries: the store agrees with a plain model of the money."""

    ids = st.sampled_from("abcdef")
    amounts = st.integers(0, 400)
    accounts = st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = self.make()
        self.spent = {"x": 0, "y": 0, "z": 0}
        self.holds: dict[str, tuple[int, list[str], float]] = {}
        self.finished: set[str] = set()

    def make(self) -> Store:
        return MemoryStore(self.clock)

    def held(self, account: str) -> int:
        return sum(amount for amount, names, end in self.holds.values() if account in names and end > self.clock.now)

    def orphaned(self, account: str) -> int:
        return sum(amount for amount, names, end in self.holds.values() if account in names and end <= self.clock.now)

    @rule(key=ids, amount=amounts, accounts=accounts)
    def reserve(self, key: str, amount: int, accounts: list[str]) -> None:
        answer = self.store.reserve(key, amount, [claim(name) for name in accounts], 60)
        if key in self.finished or key in self.holds:
            return
        room = all(self.spent[name] + self.orphaned(name) + self.held(name) + amount <= 1000 for name in accounts)
        assert answer.admitted == (room or amount == 0)
        if answer.admitted:
            self.holds[key] = (amount, accounts, self.clock.now + 60)

    @rule(key=ids, actual=amounts)
    def settle(self, key: str, actual: int) -> None:
        self.store.settle(key, actual)
        self.finish(key, actual)

    @rule(key=ids)
    def release(self, key: str) -> None:
        self.store.release(key)
        self.finish(key, 0)

    @rule(key=ids, amount=amounts, accounts=accounts)
    def charge(self, key: str, amount: int, accounts: list[str]) -> None:
        key = f"span-{key}"
        self.store.charge(key, amount, [claim(name) for name in accounts])
        if key not in self.finished:
            self.finished.add(key)
            for name in accounts:
                self.spent[name] += amount

    @rule(seconds=st.integers(1, 90))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def finish(self, key: str, actual: int) -> None:
        if key in self.holds:
            _, names, _ = self.holds.pop(key)
            self.finished.add(key)
            for name in names:
                self.spent[name] += actual

    @invariant()
    def agrees(self) -> None:
        for name, balance in self.store.read("xyz").items():
            assert balance == (self.spent[name] + self.orphaned(name), self.held(name), self.orphaned(name))


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def blocking(limit: str = "0.01", **more: Any) -> Budget:
    return Budget("team", Decimal(limit), policy="block", **more)


class TestTheGuard:
    def test_the_estimate_is_held_before_and_the_actual_spent_after(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking()])
        decision = shop.observer.before(REQUEST, lambda: 400)
        assert decision is not None
        gauges = shop.metrics()
        assert list(gauges["costspan.budget.held"].values()) == [0.008392]
        assert list(gauges["costspan.budget.spent"].values()) == [0]
        result = shop.observer.after(decision.token, CHAT, AT, 0.5, None, None)
        assert {key: value for key, value in result.items() if "budget" in key} == {
            "costspan.budget.status": "ok",
            "costspan.budget.name": "team",
            "costspan.budget.utilization": 0.16,
            "costspan.budget.remaining": 0.0084,
        }
        gauges = shop.metrics()
        assert list(gauges["costspan.budget.held"].values()) == [0]
        assert list(gauges["costspan.budget.spent"].values()) == [0.0016]

    @pytest.mark.parametrize(
        ("changed", "held"),
        [
            ({"gen_ai.request.max_tokens": 100}, "0.001"),
            ({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "embed"}, "0.000002"),
            ({"gen_ai.request.model": "small"}, "0.004196"),
        ],
    )
    def test_the_estimate(self, changed: dict[str, Any], held: str, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking()])
        shop.observer.before({**REQUEST, **changed}, lambda: 400)
        assert list(shop.metrics()["costspan.budget.held"].values()) == [float(held)]

    def test_a_refusal_says_everything_and_is_no_call(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking("0.009")])
        shop.call()
        decision = shop.observer.before(REQUEST, lambda: 400)
        assert decision is not None
        refusal = decision.refuse
        assert isinstance(refusal, BudgetExceeded)
        now = datetime.now(UTC)
        assert (refusal.budget, refusal.limit, refusal.spent, refusal.held, refusal.asked) == (
            "team", Decimal("0.009"), Decimal("0.0016"), Decimal(0), Decimal("0.008392"),
        )  # fmt: skip
        assert now < refusal.period_end
        assert refusal.period_end.day == 1
        assert str(refusal).startswith(
            "budget 'team' would be exceeded: $0.0016 spent and $0 held of $0.009, this call may cost $0.008392; "
        )
        assert decision.attributes == {
            "costspan.cost.status": "no_usage",
            "costspan.budget.status": "refused",
            "costspan.budget.name": "team",
            "costspan.budget.utilization": pytest.approx(0.1777, abs=1e-3),
            "costspan.budget.remaining": 0.0074,
        }
        assert sum(shop.metrics()["costspan.calls"].values()) == 1

    def test_a_refusal_survives_being_sent_to_another_process(self) -> None:
        refusal = BudgetExceeded("b", Decimal(1), Decimal(1), Decimal(0), None, datetime(2026, 12, 1, tzinfo=UTC), "m")
        copy = pickle.loads(pickle.dumps(refusal))
        assert (str(copy), copy.limit, copy.model) == (str(refusal), Decimal(1), "m")

    def test_a_budget_that_warns_lets_the_call_pass_and_says_that_it_is_exceeded(
        self, telemetry: Callable[..., Telemetry], caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = telemetry(budgets=[Budget("team", Decimal("0.003"))])
        states = [shop.call()["costspan.budget.status"] for _ in range(3)]
        assert states == ["warning", "exceeded", "exceeded"]
        assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
            f"budget 'team': {percent} % of $0.003 reached in {datetime.now(UTC):%Y-%m}"
            for percent in (50, 75, 80, 90, 100)
        ]

    def test_what_budgets_said_is_counted(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking("0.0095"), Budget("soft", Decimal("0.001"))])
        shop.call()
        with pytest.raises(BudgetExceeded):
            shop.call()
        said = {
            (dict(key)["costspan.budget.name"], dict(key)["decision"]): value
            for key, value in shop.metrics()["costspan.budget.decisions"].items()
        }
        assert said == {("team", "allowed"): 1, ("soft", "warned"): 1, ("team", "refused"): 1}

    def test_a_model_without_a_price_is_refused_by_a_budget_that_blocks(
        self, telemetry: Callable[..., Telemetry]
    ) -> None:
        shop = telemetry(budgets=[blocking()])
        with pytest.raises(BudgetExceeded, match="blocks model 'huge', which has no price") as caught:
            shop.call({"gen_ai.request.model": "huge"}, base=REQUEST)
        assert caught.value.asked is None

    def test_a_model_without_a_price_passes_a_budget_that_warns(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[Budget("team", Decimal(1))])
        result = shop.call({"gen_ai.request.model": "huge", "gen_ai.response.model": "huge"})
        assert result["costspan.cost.status"] == "unknown_model"

    @pytest.mark.parametrize(
        ("scope", "concerned"),
        [
            ({}, True),
            ({"team": "search"}, True),
            ({"team": "ads"}, False),
            ({"team": "search", "model": "large"}, True),
            ({"provider": "openai"}, False),
            ({"service": "shop"}, True),
            ({"service": "bakery"}, False),
            ({"user": "ada"}, False),
        ],
    )
    def test_scope(self, scope: dict[str, str], concerned: bool, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking("0.000001", scope=scope)])
        context, _ = attributed(attributes_of(team="search"))
        token = otel.attach(context)
        try:
            decision = shop.observer.before(REQUEST, lambda: 400)
        finally:
            otel.detach(token)
        assert decision is not None
        assert (decision.refuse is not None) == concerned

    @pytest.mark.parametrize(
        ("answer", "spent"),
        [
            ({"error.type": "BadRequestError"}, "0"),
            ({"error.type": "APITimeoutError"}, "0.0002"),
            ({"error.type": "CancelledError"}, "0.0002"),
            ({}, "0.008392"),
        ],
        ids=["refused by the provider", "nobody answered", "cancelled", "answered without usage"],
    )
    def test_a_call_that_ends_without_a_figure(
        self, answer: dict[str, Any], spent: str, telemetry: Callable[..., Telemetry]
    ) -> None:
        """A provider that says no bills nothing; where nobody answered, the prompt may have been billed."""
        shop = telemetry(budgets=[blocking()])
        decision = shop.observer.before(REQUEST, lambda: 400)
        assert decision is not None
        shop.observer.after(decision.token, {**REQUEST, **answer}, AT, 0.5, None, None)
        seen = shop.metrics()
        assert list(seen["costspan.budget.spent"].values()) == [float(spent)]
        assert list(seen["costspan.budget.held"].values()) == [0]

    def test_a_new_period_is_a_new_account_and_a_call_stays_in_the_one_it_began_in(
        self, book: PriceBook, clock: Clock
    ) -> None:
        guard = Guard([Budget("team", Decimal("0.01"), period="day", policy="block")], book, clock=clock)
        admission = guard.admit(REQUEST, None, lambda: 400)
        clock.now += 24 * 3600
        assert guard.admit(REQUEST, None, lambda: 400) is not None
        from costspan_processor.conventions import read
        from costspan_processor.enrich import assess

        reading = read(CHAT)
        assert reading is not None
        assert admission is not None
        assert not isinstance(admission, tuple)
        guard.settle(admission, assess(reading, AT, book))
        balances = guard.store.read(["team:2026-11-23", "team:2026-11-24"])
        assert balances["team:2026-11-23"][:2] == (1_600_000, 0)
        assert balances["team:2026-11-24"][:2] == (0, 8_392_000)

    def test_gauges_name_budget_and_period(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking(period="day")])
        seen = {name: points for name, points in shop.metrics().items() if name.startswith("costspan.budget.")}
        today = period_at("day", datetime.now(UTC).timestamp())
        label = (("costspan.budget.name", "team"), ("costspan.budget.period", today.id))
        assert seen == {
            "costspan.budget.limit": {label: 0.01},
            "costspan.budget.spent": {label: 0},
            "costspan.budget.held": {label: 0},
            "costspan.budget.remaining": {label: 0.01},
            "costspan.budget.utilization.ratio": {label: 0},
            "costspan.budget.period.start": {label: today.start},
            "costspan.budget.period.end": {label: today.end},
        }

    def test_a_store_over_the_network_is_never_asked_by_a_callback(self, telemetry: Callable[..., Telemetry]) -> None:
        class Remote(MemoryStore):
            local = False

        shop = telemetry(budgets=[blocking()], store=Remote())
        assert "costspan.budget.spent" not in shop.metrics(), "nothing has been read yet, so nothing is said"
        assert shop.processing.guard is not None
        shop.processing.guard.refresh()
        assert list(shop.metrics()["costspan.budget.spent"].values()) == [0]

    def test_holds_are_rounded_up_and_actuals_half_even(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking("1")])
        embed = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "acme", "gen_ai.request.model": "embed"}
        decision = shop.observer.before(embed, lambda: 1)
        assert decision is not None
        guard = shop.processing.guard
        assert guard is not None
        account = f"team:{datetime.now(UTC):%Y-%m}"
        assert guard.store.read([account])[account].held == 20, "$0.02 a million is 20 nanodollars a token"
        shop.observer.after(decision.token, {**embed, "gen_ai.usage.input_tokens": 1}, AT, 0.1, None, None)
        assert guard.store.read([account])[account].spent == 20
