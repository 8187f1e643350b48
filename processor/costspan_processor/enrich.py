"""`enrich()`: attributes in, the attributes of the price out. Pure, and the same for every way a call reaches us.

The engine's observer, the span processor and the collector all end here, so a call costs the same whoever saw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from costspan_pricing import PICO, Cost
from costspan_processor.dialects import INCONSISTENT, STATUS, Reading, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import PriceBook, RateCard, Usage

TOTAL: Final = "costspan.cost.total"
SAVINGS: Final = "costspan.cost.cache_savings"
BOOK_FIGURE: Final = "costspan.cost.book"
BOOK_VERSION: Final = "costspan.price.book"
PRICE_SOURCE: Final = "costspan.price.source"

_COMPONENT: Final = {
    "input": "costspan.cost.input",
    "output": "costspan.cost.output",
    "cache_read": "costspan.cost.cache_read",
    "cache_write": "costspan.cost.cache_write",
    "other": "costspan.cost.other",
}


class Priced:
    """A call with its price: what counters, budgets and span attributes are all made from.

    `total` and `components` are integer picodollars; `total` is None where there is no figure. `status` is the cost's,
    unless the usage itself is an estimate.
    """

    __slots__ = ("components", "cost", "reading", "saved", "status", "total", "write_premium")

    def __init__(self, reading: Reading, cost: Cost) -> None:
        self.reading = reading
        self.cost = cost
        self.total = cost.total
        status = cost.status
        self.status: str = "estimated" if reading.estimated and status == "priced" else status
        components = self.components = cost.components
        # Worked out once: the span, the counters and the summary all show them.
        self.saved = cost.cache_savings if "cache_read" in components else 0
        self.write_premium = cost.cache_write_premium if "cache_write" in components else 0


def assess(reading: Reading, at_ns: int, book: PriceBook) -> Priced:
    """Price one reading at the instant `at_ns` (unix nanoseconds)."""
    cost = _of_book(reading, at_ns, book)
    if reading.reported_cost is not None:
        try:
            cost = Cost.reported(reading.reported_cost, cost)
        except ValueError:
            # What the provider sent is no amount of money; the book's own figure stands.
            pass
    return Priced(reading, cost)


def _of_book(reading: Reading, at_ns: int, book: PriceBook) -> Cost:
    if reading.problem is not None:
        return Cost.unpriced("invalid_usage")
    usage = reading.usage
    cost = None
    if usage is not None:
        card = card_of(reading, at_ns, book)
        cost = Cost.unpriced(_why_no_card(reading.provider, book)) if card is None else card.cost(usage)
    for model, part in reading.parts:
        of_part = _of_part(reading, model, part, at_ns, book)
        cost = of_part if cost is None else cost + of_part
    return Cost.unpriced("no_usage") if cost is None else cost


def card_of(reading: Reading, at_ns: int, book: PriceBook) -> RateCard | None:
    """The rates of the model that answered, else of the one that was asked for; None if the book has neither."""
    provider = reading.provider
    if provider is None:
        return None
    answered, asked = reading.response_model, reading.request_model
    card = None
    if answered is not None:
        card = book.card(provider, answered, at_ns, reading.tier, reading.geo)
    if card is None and asked is not None and asked != answered:
        card = book.card(provider, asked, at_ns, reading.tier, reading.geo)
    return card


def _of_part(reading: Reading, model: str | None, usage: Usage, at_ns: int, book: PriceBook) -> Cost:
    if model is None:
        card = card_of(reading, at_ns, book)
    elif reading.provider is None:
        card = None
    else:
        card = book.card(reading.provider, model, at_ns, reading.tier, reading.geo)
    return Cost.unpriced(_why_no_card(reading.provider, book)) if card is None else card.cost(usage)


def _why_no_card(provider: str | None, book: PriceBook) -> Literal["unknown_model", "unknown_provider"]:
    return "unknown_model" if provider is not None and book.knows(provider) else "unknown_provider"


def describe(priced: Priced, proposal: bool = True) -> dict[str, AttributeValue]:
    """The span attributes of a price. USD as floats: the one place where picodollars become floats for a span.

    `proposal` adds `gen_ai.usage.cost.*`, which the GenAI conventions are still discussing. The status comes first and
    the total second, so that they are what stays where a span's attribute limit is near.
    """
    cost = priced.cost
    total = priced.total
    result: dict[str, AttributeValue] = {STATUS: priced.status}
    if total is not None:
        result[TOTAL] = usd = total / PICO
        local = cost.local
        if proposal:
            result["gen_ai.usage.cost.amount"] = usd
            result["gen_ai.usage.cost.currency"] = "USD"
            result["gen_ai.usage.cost.source"] = cost.source
        if local is None or local.total == total:
            component = _COMPONENT
            for name, pico in priced.components.items():
                result[component[name]] = pico / PICO
        if local is not None and local.total is not None:
            result[BOOK_FIGURE] = local.total / PICO
        if "cache_read" in priced.components:
            result[SAVINGS] = priced.saved / PICO
        if version := cost.book:
            result[BOOK_VERSION] = version
            result[PRICE_SOURCE] = cost.period_source
    usage = priced.reading.usage
    if usage is not None and usage.inconsistent:
        result[INCONSISTENT] = True
    return result


def price(attributes: Mapping[str, Any], at_ns: int, book: PriceBook) -> Cost | None:
    """The book's cost of the call that `attributes` describe, at `at_ns` (unix ns); None if they describe no call."""
    reading = read(attributes)
    return None if reading is None else assess(reading, at_ns, book).cost


def enrich(
    attributes: Mapping[str, Any], at_ns: int, book: PriceBook, *, proposal: bool = True
) -> dict[str, AttributeValue]:
    """The attributes to add to a span that has `attributes` and started at `at_ns` (unix nanoseconds).

    Empty if the span is no billed call or has been priced already (it carries `costspan.cost.status`). Never raises for
    what a span may hold: usage that cannot be is the status `invalid_usage`.
    """
    if STATUS in attributes:
        return {}
    reading = read(attributes)
    return {} if reading is None else describe(assess(reading, at_ns, book), proposal)

