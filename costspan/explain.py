"""`costspan prices explain`: how a usage came to its price, ready for JSON or for people."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from costspan.price import LineError, Pricer, parse
from costspan.rates import (
    day_text,
    decimal_text,
    ends_text,
    facts,
    instant_text,
    longer_text,
    multiplier_text,
    table,
    window_text,
)
from costspan_pricing import METERS, Cost
from costspan_pricing.meters import INPUT_SIDE
from costspan_pricing.timeline import patched
from costspan_pricing.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from rich.console import RenderableType

    from costspan_pricing import CostLine, PriceBook, RateCard, Usage
    from costspan_pricing.shelf import Match

_RULES: Final = {
    "listed": "a name of it that the book lists",
    "version": "a listed name with a version behind it",
    "path": "a listed name inside a path",
    "prefix": "a listed name behind a prefix",
    "suffix": "a listed name with a suffix",
    "inherited": "sold here under the name and at the price of another provider",
    "free": "the provider charges nothing for such models",
    "fallback": "not listed: the price of models that are not",
    "own": "a price of your own",
}

_FLAGS: Final = {
    "tier_unpriced": "the book has no prices for that tier: standard ones stand in",
    "fallback_price": "the model is not listed: a price for what is not stands in",
    "inconsistent": "the counts contradict each other: the remainder is taken as 0",
}


def of_usage(
    book: PriceBook, provider: str, model: str, usage: Usage, at_ns: int, tier: str | None, geo: str | None
) -> dict[str, Any]:
    """The explanation of a usage's price at an instant (unix nanoseconds), in a service tier and region."""
    cost, part = _part(book, provider, [model], usage, at_ns, tier, geo)
    return _whole(None, cost, [part])


def of_lines(source: BinaryIO, book: PriceBook, at_ns: int) -> Iterator[dict[str, Any]]:
    """An explanation for each line of usage, in the form of `costspan price`; ``at_ns`` is for lines without a time.

    Raises `LineError` that names the line.
    """
    pricer = Pricer(at_ns, book)
    for number, raw in enumerate(source, 1):
        try:
            line = parse(raw, first=number == 1)
            if line is None:
                continue
            priced, at, of = pricer.assess(line)
        except LineError as error:
            raise LineError(f"line {number}: {error}") from None
        reading = priced.reading
        kind = reading.kind
        names = [name for name in (kind.response_model, kind.request_model) if name]
        used = [([model] if model else names, usage) for model, usage in reading.parts]
        if reading.usage is not None:
            used.insert(0, (names, reading.usage))
        parts = [_part(of, kind.provider or "", models, usage, at, kind.tier, kind.geo)[1] for models, usage in used]
        yield _whole(line.get("id"), priced.cost, parts, reading.reported_cost, priced.status)


def unknown(book: PriceBook, provider: str, model: str) -> str:
    """Why a name is not found, and which are near."""
    if not book.knows(provider):
        return f"the book knows no provider {provider!r}{did_you_mean(provider, book.providers)}"
    return f"the book knows no model {model!r} of {provider}{did_you_mean(model, book.models(provider))}"


def _whole(
    name: Any, cost: Cost, parts: Sequence[Mapping[str, Any]], reported: Any = None, status: str | None = None
) -> dict[str, Any]:
    return {
        "id": name,
        "usd": _usd(cost),
        "status": status or cost.status,
        "flags": list(cost.flags),
        "reported": None if reported is None else str(reported),
        "parts": list(parts),
    }


def _part(
    book: PriceBook, provider: str, models: Sequence[str], usage: Usage, at_ns: int, tier: str | None, geo: str | None
) -> tuple[Cost, dict[str, Any]]:
    """One model's usage. ``models`` are names of that model, of which the first that the book knows decides."""
    found = ((name, book.card(provider, name, at_ns, tier, geo)) for name in models)
    model, card = next(((name, card) for name, card in found if card is not None), (models[0], None))
    match = book.match(provider, model)
    part: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "at": instant_text(at_ns),
        "tier": tier,
        "geo": geo,
        "match": None if match is None else match._asdict(),
    }
    if match is None or card is None:
        cost = Cost.unpriced("unknown_model" if book.knows(provider) else "unknown_provider")
        why = unknown(book, provider, model) if match is None else _no_price(book, match, at_ns)
        return cost, {**part, "why": why, "usd": None}
    cost = card.cost(usage)
    period = next((p for p in book.written(match) if p["from_ns"] <= at_ns < p["to_ns"]), None)
    written: Mapping[str, Any] = period or {}
    window = next((w for w in written.get("windows", ()) if w.get("name") == card.window), None)
    longer = _context_tier(written, window, card, usage)
    factors = [m for file in book.files(match.provider) for m in file.get("multipliers", ())]
    return cost, {
        **part,
        "period": None
        if period is None
        else {"from": instant_text(period["from_ns"]), "to": instant_text(period["to_ns"])},
        "layer": card.layer,
        "book": card.book,
        "source": card.source or None,
        "checked": written.get("checked"),
        "served_tier": card.tier,
        "context_tier": None if longer is None else longer_text(longer),
        "window": None if window is None else window_text(window),
        "multipliers": [multiplier_text(m) for m in factors if m["id"] in card.multipliers],
        "lines": [_line(line) for line in cost.lines],
        "usd": _usd(cost),
    }


def _context_tier(
    period: Mapping[str, Any], window: Mapping[str, Any] | None, card: RateCard, usage: Usage
) -> Mapping[str, Any] | None:
    """The prices of long prompts that hold for a usage, if any do."""
    written = period if window is None else patched(period, window)
    served = written.get("tiers", {}).get(card.tier, written)
    prompt = sum(n for m, n in usage.quantities.items() if m in METERS and METERS[m].component in INPUT_SIDE)
    exceeded = [
        tier
        for tier in served.get("context_tiers", ())
        if prompt > tier["over"] or (prompt == tier["over"] and tier.get("cmp") == "gte")
    ]
    return max(exceeded, key=lambda tier: int(tier["over"]), default=None)


def _no_price(book: PriceBook, match: Match, at_ns: int) -> str:
    """Why a known model has no price at an instant."""
    periods = book.written(match)
    for period in periods:
        if period["from_ns"] <= at_ns < period["to_ns"] and period.get("unpriced"):
            return f"{match.provider}/{match.model} has no price at that time: {period['unpriced']}"
    first = day_text(instant_text(periods[0]["from_ns"])) if periods and periods[0]["from_ns"] > at_ns else ""
    return f"{match.provider}/{match.model} has no price at that time{first and f'; the first is of {first}'}"


def _line(line: CostLine) -> dict[str, Any]:
    return {
        "model": line.model,
        "meter": line.meter,
        "quantity": int(line.quantity) if line.quantity == int(line.quantity) else float(line.quantity),
        "rate": None if line.rate is None else decimal_text(line.rate),
        "per": line.per,
        "usd": None if line.pico is None else decimal_text(Decimal(line.pico).scaleb(-12)),
    }


def _usd(cost: Cost) -> str | None:
    usd = cost.usd
    return None if usd is None else decimal_text(usd)


def view(explanation: Mapping[str, Any]) -> Iterator[RenderableType]:
    """An explanation for people."""
    from rich.text import Text

    for part in explanation["parts"]:
        yield Text(f"{part['provider']} {part['model']}", style="bold")
        yield facts(_reasons(part))
        if part.get("lines"):
            yield table(
                ("meter", "quantity", "rate", "per", "USD"),
                [
                    (
                        line["meter"],
                        f"{line['quantity']:,}",
                        line["rate"] or "—",
                        f"{line['per']:,}",
                        line["usd"] or "—",
                    )
                    for line in part["lines"]
                ],
            )
    if explanation["reported"] is not None:
        yield Text(f"the provider itself reports {explanation['reported']} USD, and that is the cost")
    if explanation["usd"] is None:
        yield Text(f"no figure: {explanation['status']}", style="magenta")
    else:
        yield Text.assemble("total ", (f"{explanation['usd']} USD", "bold"), f", {explanation['status']}")
    for flag in explanation["flags"]:
        yield Text(_flag(flag), style="yellow")
    yield Text()


def _reasons(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "at", part["at"]
    match = part["match"]
    if match is not None:
        itself = match["rule"] == "listed" and part["model"].strip().lower() == match["model"].lower()
        rule = "its name in the book" if itself else _RULES[match["rule"]]
        yield "model", f"{match['provider']}/{match['model']} ({rule})"
    if "why" in part:
        yield "why", part["why"]
        return
    if part["period"] is not None:
        yield "prices", ends_text(part["period"]["from"], part["period"]["to"])
    checked = f", checked {part['checked']}" if part["checked"] else ""
    yield "layer", f"{part['layer']}, book {part['book']}{checked}"
    if part["source"]:
        yield "source", part["source"]
    if part["tier"] or part["served_tier"] != "standard":
        asked = f" (asked: {part['tier']})" if part["tier"] and part["tier"].lower() != part["served_tier"] else ""
        yield "tier", f"{part['served_tier']}{asked}"
    if part["context_tier"]:
        yield "prompt", f"{part['context_tier']}: the prices of long prompts"
    if part["window"]:
        yield "hours", part["window"]
    for multiplier in part["multipliers"]:
        yield "factor", f"{multiplier} (it is in the rates below)"


def _flag(flag: str) -> str:
    kind, _, meter = flag.partition(":")
    if kind == "unpriced":
        return f"{flag}: {meter} has no price, and is not in the total"
    return f"{flag}: {_FLAGS[kind]}" if kind in _FLAGS else flag
