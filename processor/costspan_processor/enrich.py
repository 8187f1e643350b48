"""`enrich()`: attributes in, the attributes of the price out. Pure, and the same for every way a call reaches us.

The engine's observer, the span processor and the collector all end here, so a call costs the same whoever saw it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing import PICO, Cost, Usage
from costspan_processor.conventions import GUESSED, INCONSISTENT, STATUS, Plain, plain_counts, read
from costspan_processor.translation import translation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import PriceBook, RateCard
    from costspan_processor.conventions import Kind, Reading

TOTAL: Final = "costspan.cost.total"
SAVINGS: Final = "costspan.cost.cache_savings"
BOOK_FIGURE: Final = "costspan.cost.book"
BOOK_VERSION: Final = "costspan.price.book"
PRICE_SOURCE: Final = "costspan.price.source"
_AMOUNT: Final = "gen_ai.usage.cost.amount"
_CURRENCY: Final = "gen_ai.usage.cost.currency"
_WHOSE: Final = "gen_ai.usage.cost.source"

_INPUT: Final = "costspan.cost.input"
_OUTPUT: Final = "costspan.cost.output"
_CACHE_READ: Final = "costspan.cost.cache_read"
_COMPONENT: Final = {
    "input": _INPUT,
    "output": _OUTPUT,
    "cache_read": _CACHE_READ,
    "cache_write": "costspan.cost.cache_write",
    "other": "costspan.cost.other",
}

PLACES: Final = {TOTAL: 0, _AMOUNT: 0, _INPUT: 1, _CACHE_READ: 2, _OUTPUT: 3, SAVINGS: 4}
"""Where in the `quote` of a `Plain` the amount of an attribute stands."""

_TAKEN_FOR: Final = {"input_audio": "input", "output_audio": "output", "cache_write_5m": "input"}

_PICO: Final = float(PICO)
"""Exact, and a float divides faster than an integer of this size."""
dollars: Final[Callable[[int], float]] = _PICO.__rtruediv__
"""USD of picodollars, as they are on a span."""


class Priced:
    """A call with its price: what counters, budgets and span attributes are all made from.

    `total` and `components` are integer picodollars; `total` is None where there is no figure. `status` is the cost's,
    unless the usage itself is an estimate. `saved` and `write_premium` are of the cache.
    """

    __slots__ = ("components", "cost", "reading", "saved", "status", "total", "write_premium")

    def __init__(self, reading: Reading | Plain, cost: Cost) -> None:
        self.reading = reading
        self.cost = cost
        self.total = cost.total
        status: str = cost.status
        self.status = "estimated" if status == "priced" and reading.kind.estimated else status
        components = self.components = cost.components
        self.saved = cost.cache_savings if "cache_read" in components else 0
        self.write_premium = cost.cache_write_premium if "cache_write" in components else 0


def assess(reading: Reading | Plain, at_ns: int, book: PriceBook, seconds: float | None = None) -> Priced | Plain:
    """Price one reading at the instant `at_ns` (unix nanoseconds).

    `seconds` is how long the call took: it costs where the model runs on hardware that is paid by the hour.
    """
    kind = reading.kind
    if isinstance(reading, Plain):
        card = card_of(kind, at_ns, book)
        if card is None:
            return Priced(reading, _no_card(kind.provider, book))
        prompt, cached, output, reasoning = reading.plain
        quote = card.quote(prompt, cached, output, reasoning)
        if quote is not None:
            reading.card = card
            reading.quote = quote
            return reading
    if reading.problem is not None:
        return Priced(reading, Cost.unpriced("invalid_usage"))
    usage = reading.usage
    cost = None
    if usage is not None:
        card = card_of(kind, at_ns, book)
        if card is not None and card.timed and seconds is not None and "compute_seconds" not in usage.quantities:
            usage += Usage.from_inclusive(extra={"compute_seconds": seconds})
        cost = _no_card(kind.provider, book) if card is None else card.cost(usage)
    for model, part in reading.parts:
        of_part = _of_part(kind, model, part, at_ns, book)
        cost = of_part if cost is None else cost + of_part
    if cost is None:
        cost = Cost.unpriced("no_usage")
    if reading.reported_cost is not None:
        # What is no amount of money leaves the book's own figure standing.
        with suppress(ValueError):
            cost = Cost.reported(reading.reported_cost, cost)
    return Priced(reading, cost)


def card_of(kind: Kind, at_ns: int, book: PriceBook) -> RateCard | None:
    """The rates of the model that answered, else of the one that was asked for; None if the book has neither."""
    newest = kind.newest
    if newest is not None and newest[0] is book and at_ns >= newest[1]:
        return newest[2]
    provider = kind.provider
    if provider is None:
        return None
    for model in (kind.response_model, kind.request_model):
        if model is not None:
            found = book.newest(provider, model, kind.tier, kind.geo)
            if found is not None:
                since, card = found
                if kind.unsaid:
                    kind.estimated = prices_apart(card, kind.unsaid)
                kind.newest = book, since, card, _forms(card, kind.estimated)
                if at_ns >= since:
                    return card
                older = book.card(provider, model, at_ns, kind.tier, kind.geo)
                if older is not None:
                    return older
    return None


def prices_apart(card: RateCard, meters: tuple[str, ...]) -> bool:
    """Whether one of the meters costs something else than the text that its tokens are taken for, if nobody tells."""
    prices = {meter: rate[:2] for meter, rate in card.rates().items()}
    return any(meter in prices and prices[meter] != prices.get(_TAKEN_FOR.get(meter, "")) for meter in meters)


def _forms(card: RateCard, estimated: bool) -> tuple[dict[str, AttributeValue], dict[str, AttributeValue]]:
    """The attributes of a quote without and with cache reads; whoever fills one in copies it first."""
    plain: dict[str, AttributeValue] = {
        STATUS: "estimated" if estimated else "priced",
        TOTAL: 0.0,
        BOOK_VERSION: card.book,
        PRICE_SOURCE: card.source,
        _AMOUNT: 0.0,
        _CURRENCY: "USD",
        _WHOSE: "local",
        _INPUT: 0.0,
        _OUTPUT: 0.0,
    }
    return plain, {**plain, _CACHE_READ: 0.0, SAVINGS: 0.0}


def _of_part(kind: Kind, model: str | None, usage: Usage, at_ns: int, book: PriceBook) -> Cost:
    if model is None:
        card = card_of(kind, at_ns, book)
    elif kind.provider is None:
        card = None
    else:
        card = book.card(kind.provider, model, at_ns, kind.tier, kind.geo)
    return _no_card(kind.provider, book) if card is None else card.cost(usage)


def _no_card(provider: str | None, book: PriceBook) -> Cost:
    return Cost.unpriced("unknown_model" if provider is not None and book.knows(provider) else "unknown_provider")


def describe(priced: Priced | Plain, proposal: bool = True) -> dict[str, AttributeValue]:
    """The span attributes of a price. USD as floats: the one place where picodollars become floats for a span.

    `proposal` adds `gen_ai.usage.cost.*`, which the GenAI conventions are still discussing. The status comes first and
    the total second, so that they are what stays where a span's attribute limit is near.
    """
    if isinstance(priced, Plain):
        newest, card, quote = priced.kind.newest, priced.card, priced.quote
        forms = newest[3] if newest is not None and newest[2] is card else _forms(card, priced.kind.estimated)
        return _fill(forms, quote, proposal)
    cost, total = priced.cost, priced.total
    usage = priced.reading.usage
    result: dict[str, AttributeValue] = {STATUS: priced.status}
    if total is not None:
        usd = result[TOTAL] = total / PICO
        if cost.book:
            result[BOOK_VERSION], result[PRICE_SOURCE] = cost.book, cost.period_source
        if proposal:
            result[_AMOUNT], result[_CURRENCY], result[_WHOSE] = usd, "USD", cost.source
        local = cost.local
        if local is None or local.total == total:
            for component, pico in priced.components.items():
                result[_COMPONENT[component]] = pico / PICO
        if local is not None and local.total is not None:
            result[BOOK_FIGURE] = local.total / PICO
        if "cache_read" in priced.components:
            result[SAVINGS] = priced.saved / PICO
    if usage is not None and usage.inconsistent:
        result[INCONSISTENT] = True
    if priced.reading.guessed:
        result[GUESSED] = True
    return result


def _fill(
    forms: tuple[dict[str, AttributeValue], dict[str, AttributeValue]],
    quote: tuple[int, int, int, int, int],
    proposal: bool,
) -> dict[str, AttributeValue]:
    """One of `_forms` with the figures of a quote. Copying one is cheaper than making its dict anew."""
    total, sent, read, received, saved = quote
    if read:
        result = forms[1].copy()
        result[_CACHE_READ] = read / _PICO
        result[SAVINGS] = saved / _PICO
    else:
        result = forms[0].copy()
    result[TOTAL] = result[_AMOUNT] = total / _PICO
    if sent:
        result[_INPUT] = sent / _PICO
    else:
        del result[_INPUT]
    if received:
        result[_OUTPUT] = received / _PICO
    else:
        del result[_OUTPUT]
    if not proposal:
        del result[_AMOUNT], result[_CURRENCY], result[_WHOSE]
    return result


def price(attributes: Mapping[str, Any], at_ns: int, book: PriceBook, seconds: float | None = None) -> Cost | None:
    """The book's cost of the call that `attributes` describe, at `at_ns` (unix ns); None if they describe no call.

    `seconds` is how long the call took, if it is known.
    """
    reading = read(attributes)
    return None if reading is None else assess(reading, at_ns, book, seconds).cost


def enrich(
    attributes: Mapping[str, Any],
    at_ns: int,
    book: PriceBook,
    # By position too: a default that is left out costs a tenth of what it does for a keyword alone.
    scope: str | None = None,
    resource: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    proposal: bool = True,
) -> dict[str, AttributeValue]:
    """The attributes to add to a span that has `attributes`, started at `at_ns` (unix nanoseconds), took `seconds`.

    `scope` names the library that made the span, `resource` holds the attributes of the service: they decide the
    dialect. Without a scope the span speaks as the GenAI conventions do.

    Empty if the span is no billed call or has been priced already (it carries `costspan.cost.status`). Never raises for
    what a span may hold: usage that cannot be is the status `invalid_usage`.
    """
    translate = None
    if scope is None:
        found = plain_counts(attributes)
    elif STATUS in attributes:
        return {}
    else:
        translate = translation(attributes, scope, resource)
        found = translate.plain_counts(attributes)
    if found is not None:
        # As below, without the object that counters and budgets need.
        kind, prompt, cached, output, reasoning = found
        newest = kind.newest
        if newest is None:
            card_of(kind, at_ns, book)
            newest = kind.newest
        if newest is not None:
            of, since, card, forms = newest
            if of is book and at_ns >= since:
                quote = card.quote(prompt, cached, output, reasoning)
                if quote is not None:
                    return _fill(forms, quote, proposal)
    if translate is not None:
        attributes = translate(attributes)
    elif STATUS in attributes:
        return {}
    reading = read(attributes)
    return {} if reading is None else describe(assess(reading, at_ns, book, seconds), proposal)
