"""Whom a budget stops, whom it lets pass, and what it gives instead: priorities, periods, values, cheaper models."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.attribution import Attribution, attributed, attributes_of, attribution
from costspan_processor.budgets import Guard
from costspan_processor.budgets.guard import Admission, Refusal, block
from costspan_processor.budgets.routing import Routing
from costspan_processor.conventions import read
from costspan_processor.enrich import assess
from tests.processor.budgets.test_guard import REQUEST, balance
from tests.processor.conftest import AT, CHAT, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costspan_pricing import PriceBook

CALL = Decimal("0.008392")
"""What a call of `REQUEST` is estimated at; it then costs $0.0016."""


def who(**named: object) -> Attribution:
    return Attribution(attributes_of(**named))


class Shop:
    """A guard, and calls that it is asked about."""

    def __init__(
        self, book: PriceBook, clock: Clock, *budgets: Budget, routing: Mapping[str, Any] | None = None
    ) -> None:
        self.book = book
        self.clock = clock
        checked = None if routing is None else Routing.read(routing, "costspan.toml").check(book, clock.now)
        self.guard = Guard(budgets, book, clock=clock, routing=checked)

    def ask(
        self, who: Attribution | None = None, changed: Mapping[str, Any] | None = None, swap: bool = True
    ) -> Admission | Refusal | None:
        return self.guard.admit({**REQUEST, **(changed or {})}, who, lambda: 400, lambda: swap)

    def call(self, who: Attribution | None = None, changed: Mapping[str, Any] | None = None) -> Admission:
        """A call that is made and costs what `CHAT` does."""
        said = self.ask(who, changed)
        if isinstance(said, Refusal):
            raise said.error
        assert said is not None
        reading = read({**CHAT, **(changed or {}), "gen_ai.request.model": said.model or "large"})
        assert reading is not None
        self.guard.settle(said, assess(reading, AT, self.book))
        return said

    def spent(self, account: str) -> Decimal:
        return Decimal(balance(self.guard.store, account).spent) / 10**9


@pytest.fixture
def shop(book: PriceBook, clock: Clock) -> Callable[..., Shop]:
    return lambda *budgets, **more: Shop(book, clock, *budgets, **more)


class TestPriorities:
    def test_normal_calls_are_held_to_their_share_high_ones_to_the_limit(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", CALL, policy="block", normal_percent=90))
        assert isinstance(open_shop.ask(), Refusal)
        assert isinstance(open_shop.ask(who(priority="whatever")), Refusal)
        assert isinstance(open_shop.ask(who(priority="high")), Admission)

    def test_a_critical_call_passes_is_charged_and_is_flagged(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "0.001", policy="block"))
        admitted = open_shop.call(who(priority="critical"))
        assert admitted.attributes["costspan.budget.decision"] == "bypassed"
        assert open_shop.spent("b:2026-11") == Decimal("0.0016")
        assert isinstance(open_shop.ask(who(priority="high")), Refusal), "what it spent is missing to the others"

    def test_a_critical_call_that_has_room_is_like_any_other(self, shop: Callable[..., Shop]) -> None:
        assert "costspan.budget.decision" not in shop(Budget("b", "1", policy="block")).call(
            who(priority="critical")
        ).attributes  # fmt: skip


class TestPeriods:
    def test_a_day_begins_at_midnight_of_its_zone(self, shop: Callable[..., Shop], clock: Clock) -> None:
        open_shop = shop(Budget("b", "0.009", period="day", zone="Asia/Tokyo", policy="block"))
        clock.now = datetime(2026, 11, 23, 14, 59, tzinfo=UTC).timestamp()
        open_shop.call()
        with pytest.raises(BudgetExceeded, match="until 2026-11-24 00:00 JST"):
            open_shop.call()
        clock.now += 60
        open_shop.call()
        assert (open_shop.spent("b:2026-11-23"), open_shop.spent("b:2026-11-24")) == (Decimal("0.0016"),) * 2

    def test_a_window_frees_what_was_spent_when_it_is_old_enough(self, shop: Callable[..., Shop], clock: Clock) -> None:
        open_shop = shop(Budget("b", "0.0099", period="24h", policy="block"))
        open_shop.call()
        clock.now += 23 * 3600
        with pytest.raises(BudgetExceeded):
            open_shop.call()
        clock.now += 3 * 3600
        open_shop.call()

    def test_a_month_may_be_held_to_an_even_day(self, shop: Callable[..., Shop], clock: Clock) -> None:
        open_shop = shop(Budget("b", "0.27", policy="block", daily_limit="even"))
        open_shop.call()
        with pytest.raises(BudgetExceeded, match=r"budget 'b \(daily\)' would be exceeded: .* of \$0\.009,"):
            open_shop.call()
        clock.now += 86400
        open_shop.call()
        assert open_shop.spent("b:2026-11") == Decimal("0.0032")

    def test_or_to_a_day_of_its_own(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "1", policy="block", daily_limit="0.005"))
        with pytest.raises(BudgetExceeded, match=r"\$0\.005"):
            open_shop.call()

    def test_an_even_day_of_a_short_month_is_longer(self, shop: Callable[..., Shop], clock: Clock) -> None:
        clock.now = datetime(2027, 2, 10, tzinfo=UTC).timestamp()
        with pytest.raises(BudgetExceeded, match=r"of \$0\.001,"):
            shop(Budget("b", "0.028", policy="block", daily_limit="even")).call()


class TestALimitForEachValue:
    def test_each_user_has_the_limit_for_himself(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("users", "0.009", per="user", policy="block"))
        open_shop.call(who(user="ada"))
        with pytest.raises(BudgetExceeded, match="budget 'users' of 'ada'"):
            open_shop.call(who(user="ada"))
        open_shop.call(who(user="bob/../ada"))
        assert open_shop.guard.store.accounts("users:").keys() == {"users:2026-11/ada", "users:2026-11/bob%2F..%2Fada"}

    def test_a_call_of_nobody_is_not_concerned(self, shop: Callable[..., Shop]) -> None:
        assert shop(Budget("users", "0.000001", per="user", policy="block")).ask() is None

    def test_who_came_by_baggage_chooses_no_account_of_a_budget_that_blocks(self, shop: Callable[..., Shop]) -> None:
        told = Attribution(attributes_of(user="ada"), (), frozenset({"user.id"}))
        assert shop(Budget("users", "0.000001", per="user", policy="block")).ask(told) is None


class TestABlockOfCode:
    def test_its_calls_share_its_limit_and_the_budgets_around_it_hold_too(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("all", "1", policy="block"))
        inside = Attribution({}, (), frozenset(), (block(Budget("agent", "0.0095", policy="block")),))
        open_shop.call(inside)
        with pytest.raises(BudgetExceeded, match=r"budget 'agent' would be .* until the block ends") as caught:
            open_shop.call(inside)
        assert caught.value.period_end is None
        assert balance(open_shop.guard.store, "all:2026-11")[:2] == (1_600_000, 0), "a refused call holds nothing"
        open_shop.call()

    def test_alone_it_asks_no_store(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop()
        inside = Attribution({}, (), frozenset(), (block(Budget("agent", "1", policy="block")),))
        for _ in range(3):
            open_shop.call(inside)
        assert open_shop.guard.store.holds() == []

    def test_one_that_a_budget_of_the_process_refuses_gives_its_room_back(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("all", "0.01", policy="block"))
        inside = Attribution({}, (), frozenset(), (block(Budget("agent", "0.0168", policy="block")),))
        open_shop.ask()
        with pytest.raises(BudgetExceeded, match="'all'"):
            open_shop.call(inside)
        open_shop.guard.replace((), None)
        assert isinstance(open_shop.ask(inside), Admission)
        assert isinstance(open_shop.ask(inside), Admission), "twice the estimate fits"
        assert isinstance(open_shop.ask(inside), Refusal)

    def test_blocks_nest(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop()
        outer, _ = attributed({}, limit=block(Budget("outer", "0.0115", policy="block")))
        token = otel.attach(outer)
        try:
            for name in ("first", "second"):
                inner, totals = attributed({}, limit=block(Budget(name, "1", policy="block")))
                assert totals.remaining == 1
                open_shop.call(attribution(inner))
            with pytest.raises(BudgetExceeded, match="'outer'"):
                open_shop.call(attribution(inner))
        finally:
            otel.detach(token)


PATHS = {
    "paths": {
        "acme": [
            {"above": 0.5, "model": "acme/large"},
            {"above": 0.1, "model": "acme/small"},
        ]
    },
}


class TestACheaperModel:
    def test_is_given_when_less_of_the_budget_is_left(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "0.02", policy="downgrade"), routing=PATHS)
        assert [open_shop.call().model for _ in range(3)] == [None, None, None]
        open_shop.ask()
        said = open_shop.ask()
        assert isinstance(said, Admission)
        assert said.model == "small"
        assert said.amount == 4_196_000, "and held at its own price"
        assert said.attributes == {
            "costspan.budget.asked_model": "large",
            "costspan.budget.reason": "34 % of the budget left, path acme",
            "costspan.budget.decision": "downgraded",
        }

    @pytest.mark.parametrize(
        ("changed", "swap"),
        [
            ({}, False),
            ({"gen_ai.operation.name": "embeddings"}, True),
            ({"gen_ai.request.model": "unheard-of"}, True),
            ({"gen_ai.provider.name": "openai"}, True),
        ],
        ids=["the call cannot be changed", "vectors of another model are of no use", "no path", "another provider"],
    )
    def test_is_not_given_where_it_would_not_do(
        self, changed: Mapping[str, Any], swap: bool, shop: Callable[..., Shop]
    ) -> None:
        said = shop(Budget("b", "0.000001", policy="downgrade"), routing=PATHS).ask(None, changed, swap)
        assert isinstance(said, Admission)
        assert said.model is None

    def test_a_budget_of_another_policy_changes_no_model(self, shop: Callable[..., Shop]) -> None:
        said = shop(Budget("b", "0.000001"), routing=PATHS).ask()
        assert isinstance(said, Admission)
        assert said.model is None

    def test_what_is_decided_is_counted(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "0.01", policy="downgrade"), routing=PATHS)
        open_shop.call()
        open_shop.ask()
        open_shop.ask()
        assert open_shop.guard._decisions == {("b", "allowed"): 2, ("b", "downgraded"): 1}


class TestACheck:
    def test_says_what_would_be_and_holds_nothing(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "0.01", policy="block"))
        first = open_shop.guard.check(REQUEST, None, 400)
        assert first == open_shop.guard.check(REQUEST, None, 400)
        assert (first.allowed, first.decision, first.budget, first.asked, first.remaining, first.model) == (
            True, "allowed", "b", CALL, Decimal("0.01"), "large",
        )  # fmt: skip
        assert first.reason == "'b' has $0.01 left in 2026-11"
        open_shop.call()
        second = open_shop.guard.check(REQUEST, None, 400)
        assert (second.allowed, second.decision, second.remaining) == (True, "allowed", Decimal("0.0084"))
        open_shop.call()
        third = open_shop.guard.check(REQUEST, None, 400)
        assert (third.allowed, third.decision) == (False, "refused")
        assert third.reason.startswith("budget 'b' would be exceeded")
        assert open_shop.guard._decisions == {("b", "allowed"): 2}, "a question is no decision"

    def test_of_a_model_without_a_price(self, shop: Callable[..., Shop]) -> None:
        huge = {**REQUEST, "gen_ai.request.model": "huge"}
        said = shop(Budget("b", "1", policy="block")).guard.check(huge, None, 400)
        assert (said.allowed, said.asked) == (False, None)
        assert "has no price in the book" in said.reason

    def test_tells_the_cheaper_model(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "0.01", policy="downgrade"), routing=PATHS)
        open_shop.ask()
        said = open_shop.guard.check(REQUEST, None, 400)
        assert (said.decision, said.model) == ("downgraded", "small")

    def test_where_no_budget_is_concerned(self, shop: Callable[..., Shop]) -> None:
        assert shop().guard.check(REQUEST, None, 400).reason == "no budget is concerned"


class TestLearnedLengths:
    def test_after_twenty_answers_their_lengths_are_believed(self, shop: Callable[..., Shop]) -> None:
        """A worst case for each of many parallel calls would fill a budget that has nothing spent."""
        open_shop = shop(Budget("b", "10"))
        for _ in range(20):
            open_shop.call(who(task="summary"))
        amounts = []
        for task in ("summary", "other"):
            said = open_shop.ask(who(task=task))
            assert isinstance(said, Admission)
            amounts.append(said.amount)
        assert amounts == [1_000_000, 8_392_000], "100 tokens of answer are usual for the one, nothing is of the other"

    def test_never_more_than_the_request_allows(self, shop: Callable[..., Shop]) -> None:
        open_shop = shop(Budget("b", "10"))
        for _ in range(20):
            open_shop.call()
        said = open_shop.ask(None, {"gen_ai.request.max_tokens": 10})
        assert isinstance(said, Admission)
        assert said.amount == 280_000


class TestABudgetThatOnlyObserves:
    def test_counts_and_tells_nothing(self, shop: Callable[..., Shop], caplog: pytest.LogCaptureFixture) -> None:
        open_shop = shop(Budget("b", "0.001", policy="observe"))
        open_shop.call()
        assert open_shop.spent("b:2026-11") == Decimal("0.0016")
        assert not caplog.records
        assert not open_shop.guard.store.records()
