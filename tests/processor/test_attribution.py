"""Whom a call is for, and what the block it happens in has cost so far."""

from __future__ import annotations

import re
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from opentelemetry import context as otel
from opentelemetry import propagate

from costspan_processor import Budget, BudgetExceeded
from costspan_processor.attribution import VALUE_AT_MOST, Share, attributed, attributes_of, attribution, exchange
from tests.processor.conftest import CHAT, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costspan_processor import Totals


@contextmanager
def block(**named: object) -> Iterator[Totals]:
    context, totals = attributed(attributes_of(**named))
    token = otel.attach(context)
    try:
        yield totals
    finally:
        otel.detach(token)


def test_names_as_users_give_them_become_span_attributes() -> None:
    assert attributes_of(user="ada", conversation=7, team="search", colour="red", task=None) == {
        "user.id": "ada",
        "gen_ai.conversation.id": "7",
        "costspan.team": "search",
        "costspan.tag.colour": "red",
    }


def test_an_inner_block_adds_to_the_outer_one() -> None:
    with block(team="search", user="ada"), block(team="ads", task="rank"):
        who = attribution()
        assert who is not None
        assert who.attributes == {"costspan.team": "ads", "user.id": "ada", "costspan.task": "rank"}
    assert attribution() is None


def test_running_totals_of_nested_blocks(shop: Telemetry) -> None:
    with block(team="search") as outer:
        shop.call()
        with block(task="rank") as inner:
            shop.call()
            shop.call({"gen_ai.request.model": "huge", "gen_ai.response.model": "huge"})
    shop.call()
    assert (inner.cost, inner.tokens, inner.calls, inner.unpriced) == (Decimal("0.0016"), 2200, 2, 1)
    assert (outer.cost, outer.tokens, outer.calls, outer.unpriced) == (Decimal("0.0032"), 3300, 3, 1)
    assert outer.breakdown == {
        ("acme", "large"): Share(Decimal("0.0032"), 2200, 2),
        ("acme", "huge"): Share(Decimal(0), 1100, 1),
    }


def test_a_call_belongs_to_the_block_that_it_was_started_in(shop: Telemetry) -> None:
    """A stream may be read to its end long after the block, or in another thread."""
    with block(team="search") as totals:
        decision = shop.observer.before(CHAT, lambda: 0)
    assert decision is not None
    shop.observer.after(decision.token, CHAT, 0, 1.0, None, None)
    assert totals.calls == 1


def test_with_nobody_to_attribute_to_and_no_budget_there_is_nothing_to_decide(shop: Telemetry) -> None:
    assert shop.observer.before(CHAT, lambda: 0) is None


# ------------------------------------------------------------------ across processes


@pytest.fixture
def border() -> Iterator[Callable[..., None]]:
    """Sets what may cross the border of the process; closes it again."""
    yield exchange
    exchange()


def carried() -> dict[str, str]:
    """The headers of a request to another service, made in the present context."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def served(headers: dict[str, str]) -> Iterator[None]:
    """The other service, as its instrumented server handles a request."""
    token = otel.attach(propagate.extract(headers, context=otel.Context()))
    try:
        yield
    finally:
        otel.detach(token)


def test_nothing_leaves_the_process_unless_asked_for(border: Callable[..., None]) -> None:
    with block(team="search", user="ada"):
        assert "baggage" not in carried()
    border(sent=["team", "tenant"])
    with block(team="search", user="ada", tenant="acme", feature="x" * 200):
        assert sorted(carried()["baggage"].split(",")) == ["costspan.tag.tenant=acme", "costspan.team=search"]


def test_a_value_that_is_too_long_stays_here(border: Callable[..., None]) -> None:
    border(sent=["team"])
    with block(team="x" * (VALUE_AT_MOST + 1)):
        assert "baggage" not in carried()


def test_the_calls_of_a_service_downstream_carry_what_is_trusted(shop: Telemetry, border: Callable[..., None]) -> None:
    headers = {"baggage": f"costspan.team=search,costspan.priority=critical,user.id=ada,costspan.task={'x' * 200}"}
    with served(headers):
        assert attribution() is None
    border(trusted=["team", "priority", "task"])
    with served(headers):
        who = attribution()
        assert who is not None
        assert who.attributes == {"costspan.team": "search"}
        shop.call()
        with block(feature="rank"):
            shop.call()
    labels = [dict(key) for key in shop.metrics()["costspan.calls"]]
    assert [label["costspan.team"] for label in labels] == ["search", "search"]


def test_baggage_does_not_choose_the_limit_that_stops_a_caller(
    telemetry: Callable[..., Telemetry], border: Callable[..., None]
) -> None:
    border(trusted=["team"])
    budgets = [
        Budget("theirs", "0.000001", scope={"team": "search"}, policy="block"),
        Budget("watch", "1", scope={"team": "search"}, policy="warn"),
    ]
    shop = telemetry(budgets=budgets)
    with served({"baggage": "costspan.team=search"}):
        assert shop.call()["costspan.budget.name"] == "watch"
    with block(team="search"), pytest.raises(BudgetExceeded):
        shop.call()


def test_users_are_known_by_a_keyed_hash_on_request(border: Callable[..., None]) -> None:
    border(user_key="secret", sent=["user"])
    with block(user="ada", team="search"):
        who = attribution()
        assert who is not None
        hidden = who.attributes["user.id"]
        assert re.fullmatch("[0-9a-f]{32}", hidden)
        assert carried()["baggage"] == f"user.id={hidden}"
    border(user_key="other")
    with block(user="ada"):
        who = attribution()
        assert who is not None
        assert who.attributes["user.id"] not in {"ada", hidden}
