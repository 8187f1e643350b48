"""What a budget is, and what is refused by name when it makes no sense."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.budgets import Guard
from costspan_processor.budgets.model import as_table

if TYPE_CHECKING:
    from costspan_pricing import PriceBook


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
            ({"limit": "1e999999"}, "limit must be an amount in USD of at most 1,000,000,000"),
            ({"limit": "NaN"}, "limit must be an amount in USD above 0"),
            ({"period": "fortnight"}, "period must be"),
            ({"zone": "Mars/Olympus"}, "zone must be"),
            ({"policy": "ask"}, "policy must be 'observe' or 'warn' or 'block' or 'downgrade', not 'ask'"),
            ({"thresholds": (50, 0)}, "thresholds must be whole percentages above 0"),
            ({"soft_limit": "2"}, "soft_limit must be at most the limit of 1, not '2'"),
            ({"soft_limit": "much"}, "soft_limit must be an amount in USD, not 'much'"),
            ({"daily_limit": "0.1", "period": "week"}, "daily_limit must be left out, unless the period is 'month'"),
            ({"daily_limit": "odd"}, "daily_limit must be an amount in USD, or 'even', not 'odd'"),
            ({"daily_limit": "3"}, "daily_limit must be at most the limit of 1"),
            ({"normal_percent": 101}, "normal_percent must be a whole percentage from 1 to 100, not 101"),
            ({"normal_percent": True}, "normal_percent must be a whole percentage from 1 to 100, not True"),
            ({"per": ""}, "per must be the name of something that calls are attributed to, such as 'user'"),
            ({"on_store_error": "panic"}, "on_store_error must be 'allow' or 'deny' or 'local', not 'panic'"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message.replace("'", "['\"]")):
            Budget(**{"name": "b", "limit": "1", **wrong})

    def test_two_budgets_of_one_name_are_refused(self, book: PriceBook) -> None:
        with pytest.raises(ValueError, match="two budgets are named 'b'"):
            Guard([Budget("b", Decimal(1)), Budget("b", Decimal(2))], book)

    def test_a_blocking_budget_goes_on_by_what_it_knows_when_its_store_is_away_and_others_allow(self) -> None:
        chosen = {policy: Budget("b", 1, policy=policy).on_store_error for policy in ("observe", "warn", "block")}
        assert chosen == {"observe": "allow", "warn": "allow", "block": "local"}
        assert Budget("b", 1, policy="block", on_store_error="allow").on_store_error == "allow"

    def test_what_a_file_or_a_table_shows_of_it_makes_it_again(self) -> None:
        budget = Budget("b", "10.50", scope={"team": "search"}, period="7d", policy="block", soft_limit=8, per="user")
        table = as_table(budget)
        assert table == {
            "name": "b",
            "limit": "10.5",
            "scope": {"costspan.team": "search"},
            "period": "7d",
            "policy": "block",
            "soft_limit": "8",
            "per": "user.id",
        }
        assert Budget(**table) == budget


class TestARefusal:
    def test_it_survives_being_sent_to_another_process(self) -> None:
        refusal = BudgetExceeded("b", Decimal(1), Decimal(1), Decimal(0), None, datetime(2026, 12, 1, tzinfo=UTC), "m")
        copy = pickle.loads(pickle.dumps(refusal))
        assert (str(copy), copy.limit, copy.model, copy.reason) == (str(refusal), Decimal(1), "m", "limit")
