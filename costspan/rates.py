"""Prices in words and tables: how `costspan prices` shows what stands in a price file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing import METERS, Usage
from costspan_pricing.timeline import ALWAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.table import Table

    from costspan_pricing import RateCard

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_WIDE: Final = 1000
"""Columns where there is no terminal: nothing is folded in a pipe."""

_LONG: Final = 500
"""Rows that are laid out for the terminal. That takes a millisecond each, so longer tables are plain."""


# ---------------------------------------------------------------------- words


def decimal_text(amount: Decimal) -> str:
    """A decimal without exponent and without zeros at its end.

    >>> decimal_text(Decimal("1E-7")), decimal_text(Decimal("2.50")), decimal_text(Decimal("10"))
    ('0.0000001', '2.5', '10')
    """
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def per_text(per: int, meter: str) -> str:
    """The units that a price is for: M for a million, h for an hour, else as many as they are.

    >>> per_text(1_000_000, "input"), per_text(3600, "audio_seconds"), per_text(1000, "requests"), per_text(1, "images")
    ('M', 'h', '1,000', 'image')
    """
    unit = METERS[meter].unit if meter in METERS else "unit"
    if per == 3600 and unit == "second":
        return "h"
    return "M" if per == 1_000_000 else unit.replace("_", " ") if per == 1 else f"{per:,}"


def unit_text(meter: str) -> str:
    """The units that prices of a meter are for, unless they say otherwise."""
    return per_text(METERS[meter].per if meter in METERS else 1, meter)


def price_text(price: Any, meter: str, *, unit: bool = True) -> str:
    """A price as a file writes it; without ``unit``, for a column whose heading has the usual one.

    >>> price_text("2", "input"), price_text("2", "input", unit=False), price_text(None, "input")
    ('2 / M', '2', '—')
    >>> price_text({"usd": "0.006", "per": 60, "minimum": "10"}, "audio_seconds", unit=False)
    '0.006 / 60, at least 10'
    """
    if price is None:
        return "—"
    if not isinstance(price, dict):
        return f"{price} / {unit_text(meter)}" if unit else str(price)
    own = per_text(price["per"], meter) if "per" in price else unit_text(meter) if unit else ""
    least = f", at least {price['minimum']}" if "minimum" in price else ""
    free = f", {price['allowance']['quantity']} a {price['allowance']['period']} free" if "allowance" in price else ""
    return f"{price['usd']}{own and f' / {own}'}{least}{free}"


def rates_text(rates: Mapping[str, Any]) -> str:
    """Rates in a line."""
    return ", ".join(f"{meter} {price_text(price, meter)}" for meter, price in rates.items())


def longer_text(tier: Mapping[str, Any]) -> str:
    """The prompts that a context tier is for."""
    return f"{'from' if tier.get('cmp') == 'gte' else 'over'} {tier['over']:,} tokens"


def window_text(window: Mapping[str, Any]) -> str:
    """A window with its hours and its zone."""
    spans = ", ".join(f"{start}–{end}" for start, end in window["spans"])
    return f"{window['name']}: {window.get('days', 'every day')} {spans} {window.get('tz', 'UTC')}"


def multiplier_text(multiplier: Mapping[str, Any]) -> str:
    """A factor, what it multiplies, and for whom.

    >>> multiplier_text({"id": "deal", "factor": "0.9", "scope": "all", "to": "2027-01-01"})
    'deal: 0.9 x all prices, to 2027-01-01'
    """
    geo = ", ".join(word.replace("*", "any region") or "no region" for word in multiplier.get("geo", ()))
    since = f", models released from {multiplier['released_from']}" if "released_from" in multiplier else ""
    ends = "".join(f", {end} {multiplier[end]}" for end in ("from", "to") if end in multiplier)
    what = "all prices" if multiplier.get("scope") == "all" else "prices of tokens"
    return f"{multiplier['id']}: {multiplier['factor']} x {what}{' in ' + geo if geo else ''}{since}{ends}"


def instant_text(at_ns: int | None) -> str | None:
    """Unix nanoseconds as RFC 3339 in UTC, to the microsecond; None where a period is open.

    >>> instant_text(1_764_331_200_000_000_000), instant_text(ALWAYS[0])
    ('2025-11-28T12:00:00Z', None)
    """
    if at_ns is None or at_ns in ALWAYS:
        return None
    return (_EPOCH + timedelta(microseconds=at_ns // 1000)).isoformat().replace("+00:00", "Z")


def day_text(instant: str | None) -> str:
    """An instant for people: its day alone, if it is midnight; empty for none."""
    return "" if instant is None else instant.removesuffix("T00:00:00Z")


def ends_text(start: str | None, end: str | None) -> str:
    """A period for people.

    >>> ends_text("2026-01-01T00:00:00Z", None), ends_text(None, "2026-01-01T16:00:00Z"), ends_text(None, None)
    ('from 2026-01-01 on', 'until 2026-01-01T16:00:00Z', 'always')
    """
    if start is None:
        return "always" if end is None else f"until {day_text(end)}"
    return f"from {day_text(start)} on" if end is None else f"{day_text(start)} to {day_text(end)}"


def plural(count: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "model"), plural(2_300, "model")
    ('1 model', '2,300 models')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------- rates


def rates_of(card: RateCard) -> dict[str, tuple[Decimal, int]]:
    """Meter -> rate in USD, and the units that it is for, of a short prompt. What costs nothing is left out."""
    lines = card.cost(Usage(dict.fromkeys(METERS, 1))).lines
    return {line.meter: (line.rate, line.per) for line in lines if line.rate}


def variants(written: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every list of rates in a period as it is written, with what it is for."""
    if written.get("rates"):
        yield "standard", written["rates"]
    for longer in written.get("context_tiers", ()):
        yield longer_text(longer), longer.get("rates", {})
    for name, tier in written.get("tiers", {}).items():
        if tier.get("rates"):
            yield name, tier["rates"]
        for longer in tier.get("context_tiers", ()):
            yield f"{name}, {longer_text(longer)}", longer.get("rates", {})
    for window in written.get("windows", ()):
        for label, rates in variants({**window, "windows": ()}):
            yield (window_text(window) if label == "standard" else f"{window['name']}, {label}"), rates


def in_order(meters: Iterable[str]) -> list[str]:
    """Meters in the order of the registry, each once."""
    order = {meter: position for position, meter in enumerate(METERS)}
    return sorted(set(meters), key=lambda meter: (order.get(meter, len(order)), meter))


# ---------------------------------------------------------------------- tables


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[int] = (0,)) -> RenderableType:
    """Rows under headings of one or more lines. Columns hold numbers, but those whose positions are in ``left``."""
    from rich import box
    from rich.table import Table

    if not terminal() or len(rows) > _LONG:
        cells = [[str(cell).replace("\n", " ") for cell in row] for row in (headings, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if number in left else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(headings):
        # Where the terminal is too narrow, names are folded and figures are not.
        in_left = number in left
        shown.add_column(
            heading,
            justify="left" if in_left else "right",
            vertical="bottom" if not in_left else "top",
            overflow="fold",
            no_wrap=not in_left,
            min_width=12 if number == 0 and any(row[0] for row in rows) else None,
        )
    for row in rows:
        shown.add_row(*row)
    return shown


def facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """What is known of something, a line each: what it is, and what it is worth."""
    from rich.table import Table
    from rich.text import Text

    pairs = list(rows)
    if not terminal():
        width = max((len(name) for name, _ in pairs), default=0)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)
    grid: Table = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(value))
    return grid


def page(address: str) -> Any:
    """Where a price is from: on a terminal the name of the host, as a link; elsewhere all of it."""
    from rich.style import Style
    from rich.text import Text

    host = address.partition("://")[2].partition("/")[0]
    return Text(host, style=Style(link=address)) if host and terminal() else address


def terminal() -> bool:
    """Whether somebody looks at the output, rather than a pipe or a file."""
    return _console().is_terminal


def columns() -> int:
    """How wide a line may be."""
    return _console().width


def show(parts: Iterable[RenderableType]) -> None:
    """Print one after the other."""
    for part in parts:
        if isinstance(part, str):
            print(part)  # it is laid out, and a console would measure it for seconds
        else:
            _console().print(part)


def print_json(value: Any) -> None:
    """Print JSON that people can read too."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


@cache
def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
