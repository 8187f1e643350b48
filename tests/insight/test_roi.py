"""What pays, and when: by figures that can be checked in the head."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from costspan.insight.advice import Advice, Savings
from costspan.insight.figures import Figures, Sums
from costspan.insight.roi import feature, feature_of, payback
from tests.insight.ledgers import START, ledger

if TYPE_CHECKING:
    from pathlib import Path

ADVICE = Advice(
    id="batch-1", category="batch", subject={"task": "report"}, priority="high", title="Batch", calls=100, share=0.5,
    examples=(), savings=Savings(Decimal(200), Decimal(160), Decimal(250)), steps=(), assumes="", effort="low",
    actions=(),
)  # fmt: skip
USD = 10**12


def test_an_advice_pays_when_its_savings_have_made_up_for_the_work() -> None:
    found = payback(ADVICE, Decimal(1_000))
    assert (found.months, found.months_low, found.months_high) == (Decimal("5.0"), Decimal("4.0"), Decimal("6.3"))
    assert found.first_year == 1_400
    assert found.roi == Decimal("1.4")
    assert found.reasons == {}


def test_what_may_save_nothing_may_never_pay() -> None:
    found = payback(replace(ADVICE, savings=Savings(Decimal(200), Decimal(0), Decimal(500))), Decimal(1_000))
    assert (found.months, found.months_high) == (Decimal("5.0"), None)
    assert found.reasons == {"months_high": "it may save nothing, and so never pay"}


def test_what_is_not_known_is_absent_and_says_why() -> None:
    found = payback(ADVICE, None)
    assert (found.months, found.first_year, found.roi) == (None, None, None)
    assert set(found.reasons.values()) == {"nobody said what it costs to follow it"}
    notice = payback(replace(ADVICE, savings=None), Decimal(10))
    assert notice.reasons["months"] == "the advice has no savings: it is a notice"
    free = payback(ADVICE, Decimal(0))
    assert free.months == 0
    assert free.roi is None
    short = payback(replace(ADVICE, savings=Savings(Decimal(200), None, None)), Decimal(10))
    assert short.reasons["months_low"] == "too few days are known for bounds of the savings"
    with pytest.raises(ValueError, match="effort must be an amount in USD, 0 or more, not -1"):
        payback(ADVICE, Decimal(-1))


def test_a_feature_has_margin_return_and_break_even() -> None:
    # A month of $100 for calls, $600 of revenue and 50 users; its development cost $2,600.
    month = Sums(calls=1_000, cost=100 * USD)
    found = feature("search", month, Decimal("30.4375"), revenue=Decimal(600), users=50, development=Decimal(2_600))
    assert [found.cost, found.cost_per_user, found.profit] == [100, 2, 500]
    assert found.margin == Decimal("0.8333")
    assert found.break_even == 6  # after five months $100 are missing
    # (500 x 12 - 2,600) / (100 x 12 + 2,600)
    assert found.roi == Decimal("0.8947")
    assert found.reasons == {}


def test_a_feature_that_costs_more_than_it_brings_never_breaks_even() -> None:
    month = Sums(calls=1_000, cost=100 * USD)
    found = feature("search", month, Decimal("30.4375"), revenue=Decimal(50), users=0, development=Decimal(0))
    assert [found.profit, found.margin, found.break_even] == [-50, -1, None]
    assert found.roi == Decimal("-0.5")
    assert found.reasons == {
        "cost_per_user": "it has no users",
        "break_even": "its calls cost as much as it brings, or more: it never breaks even",
    }


def test_a_feature_of_which_nothing_was_said_has_its_cost_alone() -> None:
    found = feature("search", Sums(calls=9, cost=1 * USD, unpriced=2), Decimal(7))
    assert found.cost == Decimal("4.348214")
    assert (found.cost_per_user, found.profit, found.margin, found.roi, found.break_even) == (None,) * 5
    assert found.reasons["cost"] == "too low by what 2 calls cost that have no price, or not all of it"
    assert found.reasons["roi"] == "nobody said what it brings"
    assert (
        feature("x", Sums(), Decimal(7), revenue=Decimal(1)).reasons["roi"] == "nobody said what its development cost"
    )
    with pytest.raises(ValueError, match="users must be 0 or more, not -1"):
        feature("x", Sums(), Decimal(7), users=-1)


def test_the_cost_of_a_feature_comes_from_its_calls(tmp_path: Path) -> None:
    first = int(START.timestamp())
    calls = [
        {"at": first + number * 3_600, "feature": "search" if number % 2 else "other"} for number in range(10 * 24)
    ]  # $0.006 each
    figures = Figures(ledger(tmp_path / "ledger.db", calls))
    end = first + 10 * 86_400
    found = feature_of(figures, "search", first - 90 * 86_400, end, users=10)
    # 12 calls a day since the ledger's first one, which is ten days ago.
    assert found.cost == Decimal("0.072") * Decimal("30.4375")
    assert found.calls == 120
