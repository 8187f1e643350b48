"""Ledgers for tests: calls as they are described here, with the hourly totals that belong to them.

    ledger(tmp_path / "ledger.db", [
        {"at": "2026-11-03 09:15", "task": "summary", "input_tokens": 12_000},
        {"at": "2026-11-03 09:20", "model": "claude-haiku-4-5", "error_type": "Timeout", "output_tokens": 0},
    ])

A call says what differs from `DEFAULTS`; any column of `calls` can be given. What is not given is made as a process
would have made it: the cost by the price book at that instant, ids by number. Besides the columns there are

    at            when it started: a `datetime`, "2026-11-03 09:15" (UTC) or unix seconds; by default a second after the
                  call before it
    cache_write_1h  how many of the `cache_write_tokens` are kept for an hour; the others for five minutes
    seconds       how long it took
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select, update

from costspan_pricing import PriceBook, Usage
from costspan_processor.ledger.rows import COLUMNS
from costspan_processor.ledger.schema import COMPONENTS, calls, writers
from costspan_processor.ledger.store import open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine

    from costspan_pricing import RateCard
    from costspan_processor.ledger.store import Ledger

START: Final = datetime(2026, 11, 2, 9, tzinfo=UTC)
"""When the first call is made that does not say: a Monday morning."""

DEFAULTS: Final[Mapping[str, Any]] = {
    "service": "shop",
    "provider": "anthropic",
    "model": "claude-sonnet-4-5",
    "operation": "chat",
    "input_tokens": 1_000,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "output_tokens": 200,
    "reasoning_tokens": 0,
    "seconds": 1.5,
    "aborted": False,
}
"""What a call has that does not say otherwise. $0.006 by the prices of 2026: $3 and $15 a million."""

_ASIDE: Final = frozenset({"at", "cache_write_1h", "seconds"})
_TOKENS: Final = tuple(f"{name}_tokens" for name in ("input", "cache_read", "cache_write", "output", "reasoning"))
_AT_ONCE: Final = 5_000


def ledger(path: Path | str, calls: Iterable[Mapping[str, Any]] = (), *, book: PriceBook | None = None) -> Engine:
    """An engine over a new SQLite ledger at `path` that holds these calls and their totals.

    `book` has the prices, by default the bundled ones.
    """
    opened = open_ledger(str(path))
    _fill(opened, rows(calls, book))
    return opened.engine


def rows(described: Iterable[Mapping[str, Any]], book: PriceBook | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `calls` that these calls make."""
    prices = book or PriceBook.bundled()
    priced: dict[tuple[Any, ...], dict[str, Any]] = {}
    at_ns = int(START.timestamp()) * 10**9 - 10**9
    for number, call in enumerate(described):
        unknown = call.keys() - _ASIDE - {column.name for column in _COLUMNS}
        assert not unknown, f"no column of calls: {', '.join(sorted(unknown))}"
        at_ns = _instant(call["at"]) if "at" in call else at_ns + 10**9
        yield _row(number, {**DEFAULTS, **call}, at_ns, prices, priced)


_COLUMNS: Final = tuple(calls.columns)
_EMPTY: Final[Mapping[str, Any]] = {column.name: None for column in _COLUMNS}


def _instant(at: datetime | str | float) -> int:
    if isinstance(at, str):
        at = datetime.fromisoformat(at).replace(tzinfo=UTC)
    if isinstance(at, datetime):
        return round(at.timestamp() * 1_000_000) * 1_000
    return round(at * 10**9)


def _row(
    number: int, call: dict[str, Any], at_ns: int, book: PriceBook, priced: dict[tuple[Any, ...], dict[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        **_EMPTY,
        "id": f"{number:032x}:{number:016x}",
        "writer": "test",
        "sequence": number,
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "response_id": f"answer-{number}",
        "started": at_ns,
        "hour": at_ns // (3_600 * 10**9),
        "duration": None if call["seconds"] is None else round(call["seconds"] * 10**9),
        "request_model": call["model"],
        "response_model": call["model"],
        "saved": 0,
        "write_premium": 0,
        "book": book.version,
        "source": "local",
    }
    row |= {name: value for name, value in call.items() if name not in _ASIDE}
    if isinstance(row["tags"], dict):
        row["tags"] = json.dumps(row["tags"])
    if "cost" in call:
        row["status"] = row["status"] or ("no_usage" if row["cost"] is None else "priced")
        if row["cost"] is not None and all(row[f"cost_{name}"] is None for name in COMPONENTS):
            row["cost_other"] = row["cost"]
        return row
    tokens = (*(row[name] for name in _TOKENS), call.get("cache_write_1h"))
    if not any(tokens):
        row["status"] = row["status"] or "no_usage"
        return row
    card = book.card(row["provider"], row["model"], at_ns, row["tier"], row["geo"])
    known = priced.get((card, tokens))
    if known is None:
        known = priced[card, tokens] = _price(card, tokens, book.knows(row["provider"]))
    return row | known | {name: row[name] for name in known if row[name]}


def _price(card: RateCard | None, tokens: tuple[int | None, ...], provider_known: bool) -> dict[str, Any]:
    """The columns that say what a usage cost, and why if it has no cost."""
    sent, read, written, answered, reasoning, hour = tokens
    usage = Usage.from_inclusive(sent, answered, read, written, cache_write_1h=hour, reasoning=reasoning)
    columns: dict[str, Any] = {"usage": json.dumps(dict(usage.quantities))}
    if card is None:
        return columns | {"status": "unknown_model" if provider_known else "unknown_provider"}
    cost = card.cost(usage)
    return {
        **columns,
        "status": cost.status,
        "flags": " ".join(cost.flags) or None,
        "cost": cost.total,
        **{f"cost_{name}": pico for name, pico in cost.components.items()},
        "saved": cost.cache_savings,
        "write_premium": cost.cache_write_premium,
        "layer": cost.layer,
        "price_source": cost.period_source,
        "lines": json.dumps([[*line[:2], str(line[2]), str(line[3]), *line[4:]] for line in cost.lines]),
    }


def _fill(ledger: Ledger, made: Iterable[dict[str, Any]]) -> None:
    rows = iter(made)
    while some := list(islice(rows, _AT_ONCE)):
        ledger.write([tuple(row[name] for name in COLUMNS) for row in some])
    with ledger.writing() as connection:
        seen = select(func.max(calls.c.started)).scalar_subquery()
        connection.execute(update(writers).values(host="localhost", process=1, started=0, seen=seen))
