"""What is held before a call, spent after it, refused, and said of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.attribution import attributed, attributes_of
from costspan_processor.budgets import Guard
from costspan_processor.budgets.guard import Admission
from costspan_processor.budgets.periods import period_at
from costspan_processor.budgets.store import Balance, Claim, Store
from tests.processor.conftest import AT, CHAT, Clock, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan_pricing import PriceBook

REQUEST = {key: value for key, value in CHAT.items() if "usage" not in key and "response" not in key}
"""400 characters of prompt are 100 tokens at $2, and 1,024 tokens of answer are assumed at $8: $0.008392."""


def balance(store: Store, account: str) -> Balance:
    return store.read([Claim(account)]).balances[account]


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
        assert refusal.period_end is not None
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

    def test_a_budget_that_warns_lets_the_call_pass_and_says_that_it_is_exceeded(
        self, telemetry: Callable[..., Telemetry], caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = telemetry(budgets=[Budget("team", Decimal("0.003"))])
        states = [shop.call()["costspan.budget.status"] for _ in range(3)]
        assert states == ["warning", "exceeded", "exceeded"]
        reached = [
            record.getMessage().split(" in ")[0] for record in caplog.records if "reached" in record.getMessage()
        ]
        assert reached == [
            "budget 'team': 80 % of $0.003 reached",
            "budget 'team': 90 % of $0.003 reached",
            "budget 'team': the limit of $0.003 is reached, $0.0002 over it",
        ], "and 50 and 75 % at the level of information"

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
        assert isinstance(admission, Admission)
        guard.settle(admission, assess(reading, AT, book))
        assert balance(guard.store, "team:2026-11-23")[:2] == (1_600_000, 0)
        assert balance(guard.store, "team:2026-11-24")[:2] == (0, 8_392_000)

    def test_gauges_name_budget_and_period(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking(period="day")])
        seen = {name: points for name, points in shop.metrics().items() if name.startswith("costspan.budget.")}
        today = period_at("day", datetime.now(UTC).timestamp())
        label = (("costspan.budget.name", "team"), ("costspan.budget.period", today.id))
        assert seen == {
            "costspan.budget.limit": {label: 0.01},
            "costspan.budget.spent": {label: 0},
            "costspan.budget.held": {label: 0},
            "costspan.budget.unsettled": {label: 0},
            "costspan.budget.remaining": {label: 0.01},
            "costspan.budget.utilization.ratio": {label: 0},
            "costspan.budget.period.start": {label: today.start},
            "costspan.budget.period.end": {label: today.end},
            "costspan.budget.store.failures": {(): 0},
        }

    def test_holds_are_rounded_up_and_actuals_half_even(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(budgets=[blocking("1")])
        embed = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "acme", "gen_ai.request.model": "embed"}
        decision = shop.observer.before(embed, lambda: 1)
        assert decision is not None
        store = shop.processing.guard.store
        account = f"team:{datetime.now(UTC):%Y-%m}"
        assert balance(store, account).held == 20, "$0.02 a million is 20 nanodollars a token"
        shop.observer.after(decision.token, {**embed, "gen_ai.usage.input_tokens": 1}, AT, 0.1, None, None)
        assert balance(store, account).spent == 20
