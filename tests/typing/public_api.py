"""The public API as a type checker sees it; mypy and pyright hold it, nothing runs it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import assert_type

import costspan
from costspan import Budget, BudgetExceeded, Cost, CostSpanProcessor


def initialise() -> None:
    assert_type(costspan.init(), None)
    costspan.init(
        budgets=[Budget("team", limit="10", scope={"team": "search"}, period="day", policy="block")],
        prices={"openai/my-model": {"input": "2.50", "output": "10"}},
        stream_usage=False,
        genai_metrics="next",
        dimensions=["costspan.team"],
    )
    assert_type(costspan.flush(), bool)
    assert_type(costspan.shutdown(), None)
    assert_type(costspan.reset(), None)


def follow() -> None:
    with costspan.track(user="u", team="t", feature="f", anything_else=1) as spent:
        assert_type(spent.cost, Decimal)
        assert_type(spent.tokens, int)
        assert_type(spent.calls, int)
    assert_type(costspan.summary()["total"]["cost"], Decimal)


@costspan.track(feature="f")
def plain(number: int) -> str:
    return str(number)


@costspan.track(feature="f")
async def coroutine(number: int) -> str:
    return str(number)


async def decorated() -> None:
    assert_type(plain(1), str)
    assert_type(await coroutine(1), str)


def limited() -> None:
    with costspan.budget("agent run", limit="0.50") as spent:
        assert_type(spent.remaining, Decimal | None)
    said = costspan.check("openai/gpt-4.1", input_tokens=100, max_tokens=10, team="search")
    assert_type(said.allowed, bool)
    assert_type(said.asked, Decimal | None)
    provider, model, reason = costspan.route("chat", complexity="low", quality="best", urgency="high")
    assert_type((provider, model, reason), tuple[str, str, str])


@costspan.budget("nightly", limit=1)
def run(number: int) -> str:
    return str(number)


def by_hand() -> None:
    cost = costspan.record("openai", "gpt-4.1", {"prompt_tokens": 1}, "openai.chat", latency=0.5, team="t")
    assert_type(cost, Cost | None)
    if cost is not None:
        assert_type(cost.usd, Decimal | None)
        assert_type(cost.total, int | None)


def estimated(instant: datetime) -> None:
    estimator = costspan.estimator(at=instant, tier="batch")
    call = estimator.call("openai/gpt-4.1", input_tokens=1_000, max_tokens=500)
    assert_type(call.expected, Cost)
    assert_type(call.p95, Cost | None)
    assert_type(estimator.conversation("openai/gpt-4.1", messages=3).turns[0].upper, Cost)
    assert_type(estimator.compare({"input": 1_000}, ["openai"]).priced[0].ratio, float | None)
    assert_type(estimator.monthly("openai/gpt-4.1", {"input": 1_000}), Cost)
    assert_type(estimator.project("12.40").expected, Decimal)


def refused(error: BudgetExceeded) -> None:
    raise error


def alone() -> CostSpanProcessor:
    return CostSpanProcessor()
