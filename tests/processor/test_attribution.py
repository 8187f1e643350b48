"""Whom a call is for, and what the block it happens in has cost so far."""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from opentelemetry import context as otel

from costspan_processor.attribution import Share, attributed, attributes_of, attribution
from tests.processor.conftest import CHAT, Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

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
