"""The calls of a ledger priced with another book: what differs, and, if that is wanted, the ledger restated.

A call is priced from what its row holds: usage, provider, models, service tier, region, instant and duration. It goes
through the same `assess()` as when it was made, so a book that has not changed gives the same figures again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy import and_, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from costspan.insight.figures import HOUR, usd
from costspan_pricing import Usage
from costspan_processor.conventions import (
    ESTIMATED,
    GEO,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_MODEL,
    SERVICE_TIER,
    Kind,
    Reading,
)
from costspan_processor.enrich import assess
from costspan_processor.ledger.rows import COLUMNS, PLACE, batch_of, lines_text, totals
from costspan_processor.ledger.schema import COMPONENTS, MEASURES, calls, hours, records, series, spenders
from costspan_processor.ledger.store import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine, Table

    from costspan.insight.figures import Figures
    from costspan_pricing import PriceBook
    from costspan_processor.enrich import Priced

REPRICED: Final = "repriced"
"""The flag of a call whose figures are not those that it was recorded with."""

_FROM_PRICES: Final = ("tier_unpriced", "fallback_price", "inconsistent", "unpriced:")
"""Flags, or how they begin, that a price brings; the others tell of the usage, and stay."""
_AT_ONCE: Final = 10_000
"""Calls that are looked at together: what is held in memory, whatever the ledger holds."""
_NS: Final = 10**9
_SECOND: Final = 1e9
_KINDS_AT_MOST: Final = 10_000
_TRIES: Final = 5


class BusyError(LedgerError):
    """Somebody else changes the same calls."""


# ---------------------------------------------------------------------- one call


class Repricer:
    """Prices rows of `calls` with a book."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._kinds: dict[tuple[Any, ...], Kind] = {}

    def price(self, row: Mapping[str, Any]) -> Priced | None:
        """The price of a call by this book; None if its row holds no usage that could be priced."""
        if row["usage"] is None:
            return None
        said = json.loads(row["usage"])
        flags = (row["flags"] or "").split()
        parts = said.pop("parts", ())
        reading = Reading()
        reading.kind = self._kind(row, "estimated" in flags)
        reading.problem = reading.reported_cost = None
        reading.guessed = "guessed" in flags
        reading.usage = _usage(said, inconsistent="inconsistent" in flags) if said or not parts else None
        reading.parts = tuple((part["model"], _usage(part["usage"])) for part in parts)
        duration = row["duration"]
        seconds = None if duration is None else duration / _SECOND
        return cast("Priced", assess(reading, row["started"], self._book, seconds))

    def _kind(self, row: Mapping[str, Any], estimated: bool) -> Kind:
        key = row["provider"], row["request_model"], row["response_model"], row["tier"], row["geo"], estimated
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _KINDS_AT_MOST:
                self._kinds.clear()
            names = PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, SERVICE_TIER, GEO, ESTIMATED
            known = {name: value for name, value in zip(names, key, strict=True) if value is not None}
            kind = self._kinds[key] = Kind(known)
        return kind


def _usage(quantities: Mapping[str, float], *, inconsistent: bool = False) -> Usage:
    """The usage of a row, whose quantities are disjoint and in the units of their meters."""
    if all(type(quantity) is int for quantity in quantities.values()) and not quantities.keys() - _WHOLE:
        return Usage(quantities, inconsistent=inconsistent)  # type: ignore[arg-type]
    usage = Usage.from_inclusive(extra=quantities)
    return Usage(usage.quantities, inconsistent=inconsistent)


_WHOLE: Final = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "output_reasoning"})
"""Meters of nearly every call, whose scale is one."""


class Outcome(NamedTuple):
    """What a book says of a recorded call."""

    kind: str
    """`same`, `changed`; `found`: it had no figure or a part of one, and has all of it now; `lost`: the other way
    round; `unpriced`: it has none now either; `provider`: the figure is the provider's own; `unknown`: there is a
    figure, and no usage to price."""
    total: int | None
    """Picodollars that the call costs if the ledger is restated: the recorded figure, unless there is a better one."""
    priced: Priced | None = None


def outcome(row: Mapping[str, Any], repricer: Repricer) -> Outcome:
    """What a book says of a recorded call, and what the call costs then.

    A figure that the book no longer has stays as it was recorded: nothing known is forgotten.
    """
    recorded = row["cost"]
    if row["source"] == "provider":
        return Outcome("provider", recorded)
    priced = repricer.price(row)
    if priced is None:
        return Outcome("unpriced" if recorded is None else "unknown", recorded)
    total, whole = priced.total, priced.status != "partial"
    was_whole = recorded is not None and row["status"] != "partial"
    if total is None or (was_whole and not whole):
        return Outcome("unpriced" if recorded is None else "lost", recorded, priced)
    if whole and not was_whole:
        return Outcome("found", total, priced)
    return Outcome("same" if total == recorded and _agrees(row, priced) else "changed", total, priced)


def _agrees(row: Mapping[str, Any], priced: Priced) -> bool:
    """Whether all that the ledger holds of a price is as the book has it, and not the total alone."""
    components = priced.components
    return (
        row["status"] == priced.status
        and all((row[f"cost_{name}"] or 0) == components.get(name, 0) for name in COMPONENTS)
        and row["saved"] == priced.saved
        and row["write_premium"] == priced.write_premium
    )


# ---------------------------------------------------------------------- all calls


def windows(
    figures: Figures, start: int, end: int, where: Mapping[str, str], gone: list[int] | None = None
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The calls of a stretch of time (unix seconds), the oldest first, a bounded number at a time, with their hour.

    `gone` gets the hours (as the unix seconds at which they begin) that have totals and no calls any more.
    """
    for second, spent in figures.by_hour(start, end, where).items():
        pieces = min(-(-spent.calls // _AT_ONCE), HOUR)
        found = False
        for first, last in pairwise(second + HOUR * number // pieces for number in range(pieces + 1)):
            within = max(first, start), min(last, end)
            if within[0] < within[1] and (rows := figures.calls(*within, where, order="started", limit=None)):
                found = True
                yield second // HOUR, rows
        if not found and gone is not None:
            gone.append(second)


@dataclass(slots=True)
class _Line:
    calls: int = 0
    changed: int = 0
    recorded: int = 0
    repriced: int = 0
    figures: int = 0
    """Calls that had a figure."""
    figures_now: int = 0


@dataclass(slots=True)
class Comparison:
    """What another book says of many calls. Amounts in picodollars."""

    book: str
    start: int
    end: int
    by_model: dict[tuple[str, str], _Line] = field(default_factory=lambda: defaultdict(_Line))
    found: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    lost: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    unpriced: dict[tuple[str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    books: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    provider: list[int] = field(default_factory=lambda: [0, 0])
    unknown: list[int] = field(default_factory=lambda: [0, 0])
    forgotten: list[int] = field(default_factory=lambda: [0, 0])
    """Calls that retention has removed: their totals stay as they are."""
    changes: int = 0
    """Calls whose row a restatement would write."""
    hours: set[int] = field(default_factory=set)
    """Hours (since 1970) that have such calls."""

    def add(self, hour: int, row: Mapping[str, Any], said: Outcome) -> None:
        """Count one call."""
        recorded = row["cost"] or 0
        name = row["provider"] or "", row["model"] or ""
        line = self.by_model[name]
        line.calls += 1
        line.recorded += recorded
        line.repriced += said.total or 0
        line.figures += row["cost"] is not None
        line.figures_now += said.total is not None
        if row["cost"] is not None:
            _count(self.books[row["book"] or ""], recorded)
        if said.kind == "provider":
            _count(self.provider, recorded)
        elif said.kind == "unknown":
            _count(self.unknown, recorded)
        elif said.kind == "found":
            _count(self.found[*name, row["status"]], said.total or 0)
        elif said.kind == "lost":
            assert said.priced is not None
            _count(self.lost[*name, said.priced.status], recorded)
        elif said.kind == "unpriced" and not (row["status"] == "no_usage" and row["error_type"] is not None):
            _count(self.unpriced[*name, row["status"] if said.priced is None else said.priced.status], 0)
        if said.kind in _WRITTEN:
            line.changed += 1
            self.changes += 1
            self.hours.add(hour)

    def plain(self) -> dict[str, Any]:
        """Ready for JSON but for its Decimals (USD); the dearest difference first."""
        lines = sorted(self.by_model.items(), key=lambda item: (-abs(item[1].repriced - item[1].recorded), item[0]))
        recorded = sum(line.recorded for line in self.by_model.values())
        repriced = sum(line.repriced for line in self.by_model.values())
        return {
            "book": self.book,
            "period": {"start": self.start, "end": self.end},
            "calls": sum(line.calls for line in self.by_model.values()),
            "changed": self.changes,
            "recorded": usd(recorded),
            "repriced": usd(repriced),
            "difference": usd(repriced - recorded),
            "by_model": [
                {
                    "provider": provider,
                    "model": model,
                    "calls": line.calls,
                    "changed": line.changed,
                    # What nobody knows is not zero.
                    "recorded": usd(line.recorded) if line.figures else None,
                    "repriced": usd(line.repriced) if line.figures_now else None,
                    "difference": usd(line.repriced - line.recorded),
                }
                for (provider, model), line in lines
            ],
            "now_priced": _named(self.found),
            "no_longer_priced": _named(self.lost),
            "still_unpriced": [{k: v for k, v in line.items() if k != "cost"} for line in _named(self.unpriced)],
            "provider_figures": {"calls": self.provider[0], "cost": usd(self.provider[1])},
            "without_usage": {"calls": self.unknown[0], "cost": usd(self.unknown[1])},
            "forgotten": {"calls": self.forgotten[0], "cost": usd(self.forgotten[1])},
            "books": [
                {"book": book, "calls": count, "cost": usd(cost)}
                for book, (count, cost) in sorted(self.books.items(), key=lambda item: (-item[1][0], item[0]))
            ],
        }


_WRITTEN: Final = frozenset({"found", "changed"})


def _count(sums: list[int], pico: int) -> None:
    sums[0] += 1
    sums[1] += pico


def _named(found: Mapping[tuple[str, str, str], list[int]]) -> list[dict[str, Any]]:
    ordered = sorted(found.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    return [
        {"provider": provider, "model": model, "status": status, "calls": count, "cost": usd(cost)}
        for (provider, model, status), (count, cost) in ordered
    ]


def compare(
    figures: Figures,
    book: PriceBook,
    start: int,
    end: int,
    where: Mapping[str, str] | None = None,
    seen: Callable[[int], None] | None = None,
) -> Comparison:
    """What a book says of the calls of a stretch of time (unix seconds); `seen` is told how many were looked at."""
    found, repricer, gone = Comparison(book.version, start, end), Repricer(book), list[int]()
    for hour, rows in windows(figures, start, end, where or {}, gone):
        for row in rows:
            found.add(hour, row, outcome(row, repricer))
        if seen is not None:
            seen(len(rows))
    for second in gone:
        spent = figures.spent(max(second, start), min(second + HOUR, end), where=where)
        for sums in spent.values():
            found.forgotten = [found.forgotten[0] + sums.calls, found.forgotten[1] + sums.cost]
    return found


# ---------------------------------------------------------------------- restating


class Restated(NamedTuple):
    """What has been written. `difference` in picodollars."""

    calls: int
    hours: int
    difference: int


def restate(
    figures: Figures,
    book: PriceBook,
    start: int,
    end: int,
    where: Mapping[str, str] | None = None,
    seen: Callable[[int], None] | None = None,
) -> Restated:
    """Write the figures of a book over those of the calls, and into the totals: all of a batch, or nothing of it.

    A second time it finds nothing to write. Raises `BusyError` where others change the same calls all the time.
    """
    repricer, written, changed, difference = Repricer(book), 0, set[int](), 0
    for hour, rows in windows(figures, start, end, where or {}):
        keys = [(row["hour"], row["id"]) for row in rows if outcome(row, repricer).kind in _WRITTEN]
        if keys:
            count, more = _restate(figures.engine, repricer, keys)
            written, difference = written + count, difference + more
            changed.add(hour)
        if seen is not None:
            seen(len(rows))
    return Restated(written, len(changed), difference)


def _restate(engine: Engine, repricer: Repricer, keys: Sequence[tuple[int, str]]) -> tuple[int, int]:
    for _ in range(_TRIES):
        try:
            # A ledger's engine takes the lock of a writer from the beginning then.
            writes = engine.connect().execution_options(costspan_writes=True)
            with writes as connection, connection.begin():
                return _write(connection, repricer, keys)
        except (_ChangedMeanwhileError, IntegrityError):
            continue
    raise BusyError("the calls are being changed by somebody else; try again when that is done")


class _ChangedMeanwhileError(Exception):
    pass


def _write(connection: Connection, repricer: Repricer, keys: Sequence[tuple[int, str]]) -> tuple[int, int]:
    before: list[tuple[Any, ...]] = []
    after: list[tuple[Any, ...]] = []
    for first in range(0, len(keys), 500):
        some = keys[first : first + 500]
        # Where rows can be locked; the view has rows of others too.
        held = select(records.c.id).where(tuple_(records.c.hour, records.c.id).in_(some)).with_for_update()
        connection.execute(held).all()
        for found in connection.execute(select(calls).where(tuple_(calls.c.hour, calls.c.id).in_(some))).mappings():
            row = dict(found)
            said = outcome(row, repricer)
            if said.kind not in _WRITTEN or said.priced is None:
                continue
            new = _columns(row, said.priced)
            before.append(tuple(row[name] for name in COLUMNS))
            after.append(tuple(new.get(name, row[name]) for name in COLUMNS))
    if not after:
        return 0, 0
    recorded, restated = batch_of(before), batch_of(after)
    columns = {f"_{name}": recorded.column(name) for name in ("hour", "id", "series", "cost")}
    columns |= {name: restated.column(name) for name in _RESTATED}
    updates = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    # Where rows cannot be locked, the figures that were read are what makes sure that nobody else was faster.
    same = and_(
        records.c.hour == bindparam("_hour"),
        records.c.id == bindparam("_id"),
        records.c.series == bindparam("_series"),
        records.c.cost.is_not_distinct_from(bindparam("_cost")),
    )
    values: dict[str, Any] = {name: bindparam(name) for name in _RESTATED}
    if connection.execute(update(records).where(same).values(values), updates).rowcount != len(updates):
        raise _ChangedMeanwhileError
    less, more = totals(recorded), totals(restated)
    _name(connection, restated.series)
    _move(connection, hours, ("hour", "series"), less.hours, more.hours)
    _move(connection, spenders, ("hour", "kind", "value"), less.spenders, more.spenders)
    cost = PLACE["cost"]
    return len(after), sum((row[cost] or 0) for row in after) - sum((row[cost] or 0) for row in before)


_RESTATED: Final = (
    "series", "cost", *(f"cost_{name}" for name in COMPONENTS), "saved", "write_premium", "lines", "cost_book",
)  # fmt: skip


def _columns(row: Mapping[str, Any], priced: Priced) -> dict[str, Any]:
    cost, components = priced.cost, priced.components
    kept = [flag for flag in (row["flags"] or "").split() if not flag.startswith(_FROM_PRICES) and flag != REPRICED]
    return {
        "status": priced.status,
        "flags": " ".join(dict.fromkeys((*cost.flags, *_inconsistent(row), *kept, REPRICED))),
        "cost": priced.total,
        **{f"cost_{name}": components.get(name) for name in COMPONENTS},
        "saved": priced.saved,
        "write_premium": priced.write_premium,
        "lines": lines_text(cost),
        "source": "local",
        "cost_book": None,
        "book": cost.book or None,
        "layer": cost.layer or None,
        "price_source": cost.period_source or None,
    }


def _inconsistent(row: Mapping[str, Any]) -> tuple[str, ...]:
    return ("inconsistent",) if "inconsistent" in (row["flags"] or "").split() else ()


def _name(connection: Connection, named: Mapping[tuple[Any, ...], int]) -> None:
    """See that series are listed: a call that has another status is in another one."""
    there = set(connection.execute(select(series.c.id).where(series.c.id.in_(named.values()))).scalars())
    missing = [(id_, *values) for values, id_ in named.items() if id_ not in there]
    if missing:
        connection.execute(insert(series), [dict(zip(series.columns.keys(), row, strict=True)) for row in missing])


def _move(
    connection: Connection,
    table: Table,
    key: Sequence[str],
    old: Sequence[Sequence[Any]],
    new: Sequence[Sequence[Any]],
) -> None:
    """Take the old figures out of the totals and put the new ones in."""
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for rows, sign in ((old, -1), (new, 1)):
        for row in rows:
            held = sums[tuple(row[: len(key)])]
            for number, figure in enumerate(row[len(key) :]):
                held[number] += sign * figure
    # In the order of their keys, so that two who do this wait for each other and not both for ever.
    adds = [
        dict(zip((*key, *MEASURES), (*place, *more), strict=True)) for place, more in sorted(sums.items()) if any(more)
    ]
    if not adds:
        return
    connection.execute(_growing(table, connection.dialect.name), adds)
    touched = sorted({add["hour"] for add in adds})
    connection.execute(delete(table).where(table.c.hour.in_(touched), table.c.calls == 0))


@cache
def _growing(table: Table, dialect: str) -> Any:
    """A statement that adds to totals; made once, since making it takes longer than executing it."""
    upsert: Any = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    grown = {name: table.c[name] + upsert.excluded[name] for name in MEASURES}
    return upsert.on_conflict_do_update(index_elements=[column.name for column in table.primary_key], set_=grown)
