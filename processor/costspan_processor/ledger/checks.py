"""Whether a ledger holds together: its rows, its totals and the counts of its writers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, func, or_, select, union_all

from costspan_processor.ledger.schema import (
    COMPONENTS,
    MEASURES,
    SERIES,
    SPENDERS,
    calls,
    hours,
    measured,
    records,
    series,
    series_id,
    spenders,
    writers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import ColumnElement, Connection, Executable

    from costspan_processor.ledger.store import Ledger

_SHOWN: Final = 5
_AT_ONCE: Final = 2_000


class Check(NamedTuple):
    """One thing that must hold."""

    name: str
    looked_at: int
    """Rows, or what the check is about."""
    problems: list[str]
    """The first few, in words; empty if it holds."""


class Findings(NamedTuple):
    """What was found. Of calls, so far as they are known: what was dropped or lost is no fault of the ledger's."""

    checks: list[Check]
    rows: int
    written: int
    removed: int
    """By retention; their totals are there."""
    dropped: int
    """Calls that found no room or no ledger."""
    lost: int
    """Calls that waited in processes that were killed."""
    known: int
    """Calls that came twice, from two writers."""
    open_writers: int
    """Writers that have not ended: they live, or died where nobody has looked yet."""

    @property
    def holds(self) -> bool:
        """Whether there is no problem."""
        return not any(check.problems for check in self.checks)


def verify(ledger: Ledger) -> Findings:
    """Look at everything; reads all rows. Others may go on writing: all of it is one state of the ledger."""
    checks: list[Check] = []
    with ledger.engine.connect() as connection:
        if ledger.backend == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            said = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check")]
            checks.append(Check("database", 1, [] if said == ["ok"] else said[:_SHOWN]))
        rows: int = connection.execute(select(func.count()).select_from(calls)).scalar_one()
        steps: tuple[tuple[str, Callable[[Connection], tuple[int, Iterator[str]]]], ...] = (
            ("parts of each cost", _parts),
            ("lines of each cost", _lines),
            ("series", _series),
            ("hourly totals", _hours),
            ("totals of spenders", _spenders),
            ("counts of writers", _writers),
        )
        for name, step in steps:
            looked_at, problems = step(connection)
            checks.append(
                Check(name, looked_at, [problem for problem, _ in zip(problems, range(_SHOWN), strict=False)])
            )
        names = ("written", "removed", "dropped", "lost", "known")
        sums = [func.coalesce(func.sum(writers.c[name]), 0) for name in names]
        counts = connection.execute(select(*sums, func.count().filter(writers.c.ended.is_(None)))).one()
    return Findings(checks, rows, *map(int, counts))


def _parts(connection: Connection) -> tuple[int, Iterator[str]]:
    """Components add up to the cost, and what is not known has none."""
    parts = [calls.c[f"cost_{name}"] for name in COMPONENTS]
    total: ColumnElement[int] = func.coalesce(parts[0], 0)
    for part in parts[1:]:
        total += func.coalesce(part, 0)
    wrong = or_(
        and_(calls.c.cost.is_not(None), total != calls.c.cost),
        and_(calls.c.cost.is_(None), or_(*(part.is_not(None) for part in parts))),
    )
    found = connection.execute(select(calls.c.id, calls.c.cost, total).where(wrong).limit(_SHOWN)).all()
    count = connection.execute(select(func.count()).select_from(calls)).scalar_one()
    return count, (f"{id_} costs {cost} picodollars, its components {parts}" for id_, cost, parts in found)


def _lines(connection: Connection) -> tuple[int, Iterator[str]]:
    """Lines add up to the cost, or to the book's own figure where the provider's won."""
    c = calls.c
    found: list[str] = []
    looked_at = 0
    streamed = {"stream_results": True, "yield_per": _AT_ONCE}
    rows = connection.execute(select(c.id, c.cost, c.source, c.cost_book, c.lines), execution_options=streamed)
    for id_, cost, source, book, lines in rows:
        looked_at += 1
        expected = book if source == "provider" else cost
        try:
            total = sum(line[5] for line in json.loads(lines) if line[5] is not None) if lines else 0
        except (ValueError, TypeError, IndexError, KeyError):
            found.append(f"the lines of {id_} cannot be read")
        else:
            if total != (expected or 0) and (lines or source != "provider"):
                found.append(f"{id_} costs {expected} picodollars, its lines {total}")
        if len(found) >= _SHOWN:
            break
    rows.close()
    return looked_at, iter(found)


def _compared(connection: Connection, kept: Executable, added: Executable, keys: int) -> tuple[int, Iterator[str]]:
    """Totals as they are kept against what the rows add up to, where none of their calls has been removed."""
    removed = connection.execute(select(func.coalesce(func.sum(writers.c.removed), 0))).scalar_one()
    place = keys + MEASURES.index("calls")
    held: dict[tuple[Any, ...], tuple[Any, ...]] = {tuple(row[:keys]): tuple(row) for row in connection.execute(kept)}
    looked_at = len(held)

    def problems() -> Iterator[str]:
        for row in connection.execute(added):
            key = tuple(row[:keys])
            total = held.pop(key, None)
            if total is None:
                yield f"{_named(key)} has {row[place]} calls and no total"
            elif total[place] < row[place] or (total[place] > row[place] and not removed):
                yield f"{_named(key)} has {row[place]} calls, its total says {total[place]}"
            elif total[place] == row[place]:  # else retention has removed some, which the writers' counts tell of
                for name, one, other in zip(MEASURES, total[keys:], row[keys:], strict=True):
                    if int(one) != int(other):
                        yield f"{_named(key)}: the total says {name} {one}, the calls {other}"
        if not removed:
            for key, total in held.items():
                yield f"{_named(key)} has no calls, its total says {total[place]}"

    return looked_at, problems()


def _named(key: tuple[Any, ...]) -> str:
    return f"hour {key[0]} {'/'.join(str(part) or '-' for part in key[1:])}"


def _series(connection: Connection) -> tuple[int, Iterator[str]]:
    """A series is named by what it says, so that a changed one no longer bears its name."""
    values = [series.c[name] for name in SERIES]
    rows = connection.execute(select(series.c.id, *values)).all()
    return len(rows), (f"series {id_} says something else than it did" for id_, *said in rows if series_id(said) != id_)


def _hours(connection: Connection) -> tuple[int, Iterator[str]]:
    missing = 0
    for table in (records, hours):
        nameless = select(func.count()).select_from(table).where(table.c.series.not_in(select(series.c.id)))
        missing += connection.execute(nameless).scalar_one()
    if missing:
        return missing, iter([f"{missing} calls and hourly totals belong to no series"])
    kept = select(hours.c.hour, hours.c.series, *(hours.c[name] for name in MEASURES))
    of_series = records.join(series, series.c.id == records.c.series)
    known = {**dict(series.columns.items()), **dict(records.columns.items())}
    sums = [func.sum(one) for one in measured(known).values()]
    key = records.c.hour, records.c.series
    return _compared(connection, kept, select(*key, *sums).select_from(of_series).group_by(*key), 2)


def _spenders(connection: Connection) -> tuple[int, Iterator[str]]:
    from sqlalchemy import literal

    kept = select(*spenders.columns)
    added = union_all(
        *(
            select(calls.c.hour, literal(kind), calls.c[kind], *map(func.sum, measured().values()))
            .where(calls.c[kind].is_not(None))
            .group_by(calls.c.hour, calls.c[kind])
            for kind in SPENDERS
        )
    )
    return _compared(connection, kept, added, 3)


def _writers(connection: Connection) -> tuple[int, Iterator[str]]:
    """What writers have written is there, or was removed; and the totals hold as many calls as were ever written."""
    there = select(
        calls.c.writer, func.count().label("rows"), func.count(calls.c.sequence.distinct()).label("different")
    )
    rows: Mapping[str, Any] = {row.writer: row for row in connection.execute(there.group_by(calls.c.writer))}
    told = connection.execute(select(writers)).all()
    totalled = connection.execute(select(func.coalesce(func.sum(hours.c.calls), 0))).scalar_one()

    def problems() -> Iterator[str]:
        for writer in told:
            found = rows.get(writer.id)
            count = 0 if found is None else found.rows
            if count + writer.removed != writer.written:
                yield (
                    f"writer {writer.id} has written {writer.written} rows: {count} are there and {writer.removed} "
                    "were removed"
                )
            if found is not None and found.different != found.rows:
                yield f"writer {writer.id} has rows of the same number"
        for name in rows.keys() - {writer.id for writer in told}:
            yield f"{rows[name].rows} rows are of a writer that is not listed, {name}"
        written = sum(writer.written for writer in told)
        if int(totalled) != written:
            yield f"{written} rows were written, the hourly totals hold {totalled} calls"

    return len(told), problems()
