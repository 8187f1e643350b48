"""Exact figures of any stretch of time, read from a ledger.

Whole hours come from the hourly totals, so that a month of a million calls is quick; the pieces of an hour at both ends
(a day in Kolkata begins at half past) and what totals are not told apart by come from the calls themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import JSON, cast, func, select
from sqlalchemy.exc import OperationalError

from costspan_processor.attribution import KEYS
from costspan_processor.budgets.periods import period_at, zone_of
from costspan_processor.ledger.schema import (
    ATTRIBUTION,
    COMPONENTS,
    DIMENSIONS,
    MEASURES,
    SERIES,
    SPENDERS,
    advice,
    calls,
    hours,
    measured,
    records,
    series,
    spenders,
    writers,
)
from costspan_processor.ledger.store import open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from decimal import Decimal

    from sqlalchemy import ColumnElement, Connection, Engine, Select, Table

HOUR: Final = 3600
_PICO_A_MICRO: Final = 10**6
_NS: Final = 10**9

Where = Mapping[str, "str | Sequence[str]"]
"""Columns of `calls`, or `tag.<name>`, with the value, or the values one of which, it must have; "" is "not said"."""

_MONEY: Final = {"cost", *(f"cost_{name}" for name in COMPONENTS), "saved", "write_premium", "wasted"}

COLUMNS: Final = {
    **{attribute: name for name, attribute in KEYS.items() if name in ATTRIBUTION},
    "gen_ai.provider.name": "provider",
    "gen_ai.request.model": "request_model",
    "gen_ai.response.model": "response_model",
    "gen_ai.operation.name": "operation",
    "service.name": "service",
}
"""Span attribute -> the column of `calls` that holds it."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over calls. Amounts in picodollars, `duration` in nanoseconds over the `timed` calls.

    `input_tokens` contain cache reads and writes, `output_tokens` reasoning. `unpriced` calls have no figure or only a
    part of one: `cost` is too low by what they cost. `failed` ones ended in an error and used nothing; `wasted` is what
    others cost that failed or were broken off.
    """

    calls: int = 0
    failed: int = 0
    aborted: int = 0
    unpriced: int = 0
    cost: int = 0
    cost_input: int = 0
    cost_output: int = 0
    cost_cache_read: int = 0
    cost_cache_write: int = 0
    cost_other: int = 0
    saved: int = 0
    write_premium: int = 0
    wasted: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    duration: int = 0
    timed: int = 0

    def __add__(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*(getattr(self, name) + getattr(other, name) for name in MEASURES))

    def __sub__(self, other: Sums) -> Sums:
        """What is left without the other."""
        return Sums(*(getattr(self, name) - getattr(other, name) for name in MEASURES))

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> Decimal:
        """The cost, exact."""
        return usd(self.cost)

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of the input tokens that was read from a cache; None without input tokens."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else None

    @property
    def latency(self) -> float | None:
        """Mean seconds a call, over those whose duration is known."""
        return self.duration / self.timed / _NS if self.timed else None


assert tuple(field.name for field in fields(Sums)) == MEASURES


def usd(pico: int) -> Decimal:
    """Exact USD of picodollars."""
    from decimal import Decimal

    return Decimal(pico).scaleb(-12)


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls have cost, in picodollars, and how many they were."""

    calls: int = 0
    cost: int = 0

    def __add__(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.calls + other.calls, self.cost + other.cost)

    def __sub__(self, other: Spent) -> Spent:
        """What is left without the other."""
        return Spent(self.calls - other.calls, self.cost - other.cost)

    @property
    def usd(self) -> Decimal:
        """The cost, exact."""
        return usd(self.cost)


_Amount = TypeVar("_Amount", Sums, Spent)


def dearest_first(found: Mapping[tuple[str, ...], _Amount]) -> dict[tuple[str, ...], _Amount]:
    """By what they cost, then by how many calls they are, then by name."""
    return dict(sorted(found.items(), key=lambda item: (-item[1].cost, -item[1].calls, item[0])))


class Figures:
    """Reads a ledger. `start` is included, `end` is not, both in unix seconds; `where` narrows what is looked at.

    `where` and `by` know every column of attribution and identity, and `tag.<name>`.
    """

    def __init__(self, engine: Engine, _seen: Connection | None = None) -> None:
        self.engine: Final = engine
        self._seen: Final = _seen

    @classmethod
    def of(cls, url: str) -> Figures:
        """Those of the ledger at `url` (a file, `sqlite:///file.db`, `postgresql://...`). Raises `LedgerError`."""
        return cls(open_ledger(url, create=False).engine)

    @contextmanager
    def at_once(self) -> Iterator[Figures]:
        """These figures of one state of the ledger: parts add up to their total, whatever is written meanwhile."""
        with self._reading() as connection:
            if self._seen is None and self.engine.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield Figures(self.engine, connection)

    def sums(
        self, start: int, end: int, by: Sequence[str] = (), where: Where | None = None
    ) -> dict[tuple[str, ...], Sums]:
        """Sums over the calls that started in a stretch of time, for each combination of values of `by`; dearest first.

        Values are the empty text where nothing was said. `by` takes the columns that `where` takes.
        """
        return dearest_first(self._by(Sums, start, end, tuple(by), where or {}))

    def total(self, start: int, end: int, where: Where | None = None) -> Sums:
        """All calls of a stretch of time together."""
        return self.sums(start, end, (), where).get((), Sums())

    def spent(
        self, start: int, end: int, by: Sequence[str] = (), where: Where | None = None
    ) -> dict[tuple[str, ...], Spent]:
        """`sums` of calls and cost alone, which is several times faster."""
        return dearest_first(self._by(Spent, start, end, tuple(by), where or {}))

    def by_hour(self, start: int, end: int, where: Where | None = None) -> dict[int, Spent]:
        """By the unix second at which an hour (UTC) begins; hours without calls are left out."""
        found = self.spent(start, end, ("hour",), where)
        return dict(sorted((int(hour) * HOUR, spent) for (hour,), spent in found.items()))

    def days(self, start: int, end: int, zone: str = "UTC", where: Where | None = None) -> dict[date, Spent]:
        """By each local day that begins in a stretch of time or contains its start, those without calls among them."""
        edges = [period_at("day", start, zone).start]
        while edges[-1] < end:
            edges.append(period_at("day", edges[-1], zone).end)
        clock = zone_of(zone)
        days = [datetime.fromtimestamp(edge, clock).date() for edge in edges[:-1]]
        if any(edge % HOUR for edge in edges):
            ends = zip(days, pairwise(edges), strict=True)
            return {day: self.spent(*edges, where=where).get((), Spent()) for day, edges in ends}
        found = dict.fromkeys(days, Spent())
        for second, spent in self.by_hour(edges[0], edges[-1], where).items():
            day = datetime.fromtimestamp(second, clock).date()
            found[day] += spent
        return found

    def known_days(self, start: int, end: int, zone: str = "UTC", where: Where | None = None) -> dict[date, int]:
        """Picodollars by `days`, of those known whole; the one on which the ledger begins if there is no other."""
        known = self.known()
        if known is None or end <= known[0]:
            return {}
        first = max(start, known[0])
        found = {day: spent.cost for day, spent in self.days(first, end, zone, where).items()}
        if len(found) > 1 and period_at("day", first, zone).start < known[0]:
            del found[next(iter(found))]
        return found

    def calls(
        self,
        start: int,
        end: int,
        where: Where | None = None,
        *,
        order: str = "cost",
        limit: int | None = 10,
    ) -> list[dict[str, Any]]:
        """The rows of calls: the dearest first, or (`order="started"`) the oldest."""
        c = calls.c
        conditions = self._of_these(start, end, where or {})
        query = select(calls).order_by(c.started, c.id).limit(limit)
        if order == "cost":
            query = select(calls).order_by(c.cost.desc(), c.id).limit(limit)
            conditions.append(c.cost.is_not(None))
        with self._reading() as connection:
            if order == "cost" and limit is not None:
                # What the last of them costs, or less, is read from the index alone; few rows are then left to sort.
                if not where:
                    conditions += self._dearest_hours(connection, start, end, limit)
                dearest = select(c.cost).where(*conditions).order_by(c.cost.desc()).limit(limit)
                last = connection.execute(select(func.min(dearest.subquery().c.cost))).scalar()
                conditions.append(c.cost >= (last or 0))
            return [dict(row) for row in connection.execute(query.where(*conditions)).mappings()]

    @staticmethod
    def _dearest_hours(connection: Connection, start: int, end: int, limit: int) -> list[ColumnElement[bool]]:
        """What holds of the dearest calls, by the dearest of each hour alone, which the index knows without a search.

        `limit` hours have a call that costs at least `least`: so the `limit` dearest calls cost no less.
        """
        first, last = -(-start // HOUR), end // HOUR - 1
        there = select(hours.c.hour).where(hours.c.hour.between(first, last)).distinct().subquery()
        most = select(func.max(records.c.cost)).where(records.c.hour == there.c.hour).scalar_subquery()
        found = [(hour, cost) for hour, cost in connection.execute(select(there.c.hour, most)) if cost is not None]
        found.sort(key=lambda item: -item[1])
        if len(found) <= limit:
            return []
        least = found[limit - 1][1]
        # Of the hours at both ends, some calls are not asked for: what their dearest costs says nothing.
        chosen = [first - 1, last + 1, *(hour for hour, cost in found if cost >= least)]
        # Where many hours are alike, listing them is no help.
        return [calls.c.hour.in_(chosen), calls.c.cost >= least] if len(chosen) <= 500 else [calls.c.cost >= least]

    def known(self) -> tuple[int, int] | None:
        """The unix seconds between which there are calls, whole hours; None in an empty ledger."""
        with self._reading() as connection:
            first, last = connection.execute(select(func.min(hours.c.hour), func.max(hours.c.hour))).one()
        return None if first is None else (first * HOUR, (last + 1) * HOUR)

    def missing(self) -> int:
        """Calls that were made and are not in the ledger: dropped, or lost with a process that was killed."""
        with self._reading() as connection:
            return int(connection.execute(select(func.sum(writers.c.dropped + writers.c.lost))).scalar() or 0)

    def advice_taken(self) -> list[dict[str, Any]]:
        """The rows of advice that somebody has followed, with its `title`; the latest last."""
        query = select(advice).where(advice.c.taken.is_not(None)).order_by(advice.c.taken, advice.c.id)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [{**row, "title": json.loads(row["advice"])["title"]} for row in rows]

    # Inside.

    def _reading(self) -> AbstractContextManager[Connection]:
        return self.engine.connect() if self._seen is None else nullcontext(self._seen)

    def _by(
        self, kind: type[_Amount], start: int, end: int, by: tuple[str, ...], where: Where
    ) -> dict[tuple[str, ...], _Amount]:
        found: dict[tuple[str, ...], _Amount] = {}
        left: dict[tuple[str, ...], _Amount] = {}
        with self.at_once() as seen:
            for values, measures in seen._rows([field.name for field in fields(kind)], start, end, by, where):
                key, amount = tuple("" if value is None else str(value) for value in values), kind(*measures)
                found[key] = found[key] + amount if key in found else amount
            if not where and _totals_for(by, where) is spenders:
                left = seen._by(kind, start, end, tuple(name for name in by if name not in SPENDERS), where)
        # Nobody's calls are in no row of the spenders': they are what these leave of all.
        for key, amount in found.items() if left else ():
            rest = tuple(value for name, value in zip(by, key, strict=True) if name not in SPENDERS)
            left[rest] = left.get(rest, kind()) - amount
        for rest, amount in left.items():
            if amount.calls:
                others = iter(rest)
                key = tuple("" if name in SPENDERS else next(others) for name in by)
                found[key] = found.get(key, kind()) + amount
        return found

    def _rows(
        self, names: Sequence[str], start: int, end: int, by: tuple[str, ...], where: Where
    ) -> Iterator[tuple[Sequence[Any], list[int]]]:
        """The values of `by` and the sums of the measures, one row or more for each combination of values."""
        if end <= start:
            return
        table = _totals_for(by, where)
        first, last = -(-start // HOUR), end // HOUR

        def queries(summed: _Summed) -> Iterator[Select[Any]]:
            if table is None or first >= last:
                yield self._of_calls(summed, names, start, end, by, where)
                return
            yield self._of_totals(table, summed, names, first, last, by, where)
            for edge in ((start, first * HOUR), (last * HOUR, end)):
                if edge[0] < edge[1]:
                    yield self._of_calls(summed, names, *edge, by, where)

        count = len(by)
        with self._reading() as connection:
            try:
                rows = [row for query in queries(_whole) for row in connection.execute(query)]
                told = [(row[:count], [int(value or 0) for value in row[count:]]) for row in rows]
            except OperationalError as error:
                if "integer overflow" not in str(error.orig):
                    raise
                # A sum of picodollars can be more than SQLite counts, which is slow in two parts.
                rows = [row for query in queries(_halved) for row in connection.execute(query)]
                told = [(row[:count], _joined(names, row[count:])) for row in rows]
        yield from ((values, sums) for values, sums in told if any(sums))

    def _of_totals(
        self,
        table: Table,
        summed: _Summed,
        names: Sequence[str],
        first: int,
        last: int,
        by: tuple[str, ...],
        where: Where,
    ) -> Select[Any]:
        c = table.c
        conditions: list[ColumnElement[bool]] = [c.hour >= first, c.hour < last]
        sums = list(summed({name: c[name] for name in names}))
        if table is spenders:
            kind = next(name for name in (*by, *where) if name in SPENDERS)
            keys = [c.value if name == kind else c[name] for name in by]
            conditions += [c.kind == kind, *(_is(c.value, value) for value in where.values())]
            return select(*keys, *sums).where(*conditions).group_by(*keys)
        # Said of all series too, so that SQLite goes by series, whose hours lie together, and has nothing to sort.
        conditions.append(c.series.in_(select(series.c.id).where(*self._conditions(series, where))))
        if set(by) <= {"hour"}:
            keys = [c[name] for name in by]
            return select(*keys, *sums).where(*conditions).group_by(*keys)
        # By number first, and by what it stands for after that: a number is quick to compare.
        keys = [c[name] for name in ("hour", "series") if name in {*by, "series"}]
        inner = select(*keys, *(sum_.label(f"sum{at}") for at, sum_ in enumerate(sums)))
        totals = inner.where(*conditions).group_by(*keys).subquery()
        shown = [totals.c.hour if name == "hour" else series.c[name] for name in by]
        outer = [func.sum(totals.c[f"sum{at}"]) for at in range(len(sums))]
        joined = totals.join(series, series.c.id == totals.c.series)
        return select(*shown, *outer).select_from(joined).group_by(*shown)

    def _of_calls(
        self, summed: _Summed, names: Sequence[str], start: int, end: int, by: tuple[str, ...], where: Where
    ) -> Select[Any]:
        keys = [self._column(calls, name) for name in by]
        conditions = self._of_these(start, end, where)
        return select(*keys, *summed({name: measured()[name] for name in names})).where(*conditions).group_by(*keys)

    def _of_these(self, start: int, end: int, where: Where) -> list[ColumnElement[bool]]:
        """What holds of calls that are within and are narrowed to."""
        narrow = [hours_of(name, where[name], start, end) for name in SPENDERS if where.get(name)]
        return [*narrow, *within(start, end), *self._conditions(calls, where)]

    def _conditions(self, table: Table, where: Where) -> list[ColumnElement[bool]]:
        return [_is(self._column(table, name), value) for name, value in where.items()]

    def _column(self, table: Table, name: str) -> ColumnElement[Any]:
        if name.startswith("tag."):
            key = name.removeprefix("tag.")
            if self.engine.dialect.name == "postgresql":
                return func.json_extract_path_text(cast(calls.c.tags, JSON), key)
            return func.json_extract(calls.c.tags, f'$."{key}"')
        if name not in {"hour", *NARROWED_BY}:
            raise ValueError(f"{name!r} is no column of the ledger; there are {', '.join(NARROWED_BY)}, and tag.<name>")
        return table.c[name]


def _is(column: ColumnElement[Any], value: str | Sequence[str]) -> ColumnElement[bool]:
    if not isinstance(value, str):
        return column.in_(value)
    return column == value if value else func.coalesce(column, "") == ""


def within(start: int, end: int) -> list[ColumnElement[bool]]:
    """What holds of calls that started between two instants (unix seconds, the last excluded)."""
    # Indexes begin with the hour.
    return [calls.c.hour >= start // HOUR, calls.c.hour <= (end - 1) // HOUR, *at_edges(start, end)]


def at_edges(start: int, end: int, table: Table = calls) -> list[ColumnElement[bool]]:
    """What holds of them, of all calls of these hours: nothing, where both instants begin an hour."""
    c = table.c
    return [c.started >= start * _NS] * (start % HOUR > 0) + [c.started < end * _NS] * (end % HOUR > 0)


def hours_of(kind: str, value: str | Sequence[str], start: int, end: int) -> ColumnElement[bool]:
    """What holds of calls in the hours in which a user, session or conversation had some: an index has these together.

    Between two instants (unix seconds, the last excluded).
    """
    c = spenders.c
    there = c.hour.between(start // HOUR, (end - 1) // HOUR)
    return calls.c.hour.in_(select(c.hour).where(c.kind == kind, _is(c.value, value), there))


NARROWED_BY: Final = tuple(
    dict.fromkeys((*DIMENSIONS, *ATTRIBUTION, "request_model", "response_model", "geo", "message", "error_type"))
)
"""Columns that `where` and `by` take."""


def _totals_for(by: Sequence[str], where: Where) -> Table | None:
    """The totals that are told apart by these columns; None: only the calls are."""
    names = {*by, *where} - {"hour"}
    if names <= set(SERIES):
        return hours
    # Nobody's calls are in no row of the spenders'.
    return spenders if len(names) == 1 and names <= set(SPENDERS) and all(where.values()) else None


_Summed = Callable[[Mapping[str, "ColumnElement[Any]"]], "Iterable[ColumnElement[Any]]"]


def _whole(columns: Mapping[str, ColumnElement[Any]]) -> Iterable[ColumnElement[Any]]:
    return map(func.sum, columns.values())


def _halved(columns: Mapping[str, ColumnElement[Any]]) -> Iterable[ColumnElement[Any]]:
    for name, column in columns.items():
        if name in _MONEY:
            yield func.sum(column // _PICO_A_MICRO)
            yield func.sum(column % _PICO_A_MICRO)
        else:
            yield func.sum(column)


def _joined(names: Sequence[str], halves: Sequence[Any]) -> list[int]:
    """The sums of what `_halved` gave."""
    found = (int(value or 0) for value in halves)
    return [next(found) * _PICO_A_MICRO + next(found) if name in _MONEY else next(found) for name in names]
