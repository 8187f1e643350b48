"""A provider's invoice beside the ledger: by day and model, and the calls that explain what differs.

`reconcile()` makes one plain dictionary. Every amount in it is exact, and always

    invoiced - ledger == explained + unexplained

for every day and model, and therefore for each day, for each model and for all of it. What is explained is only what
can be computed; calls that may be why, but by an amount that nobody knows, are listed beside it with what is at stake.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from costspan.insight.figures import HOUR, usd
from costspan.insight.reconcile.invoices import (
    Charge,
    Columns,
    Invoice,
    InvoiceError,
    day,
    month_end,
    pico_of,
    read_invoice,
)
from costspan.insight.reconcile.names import SEARCH_METERS, SEARCHES, Names, bare
from costspan.insight.reprice import Repricer, outcome, windows
from costspan_processor.budgets.periods import period_at, zone_of
from costspan_processor.ledger.schema import calls, writers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Engine

    from costspan.insight.figures import Figures
    from costspan_pricing import PriceBook

__all__ = ["CAUSES", "Columns", "Invoice", "InvoiceError", "changes", "day", "month_end", "read_invoice", "reconcile"]

CAUSES: Final[Mapping[str, str]] = {
    "unpriced": "calls that had no price, or a part of one, when they were recorded",
    "repriced": "calls that today's prices put at another amount than the one recorded",
    "duplicates": "answers that were recorded more than once",
    "batch": "batch calls: billed on the day that they ran, and in the ledger on the day that they were fetched",
    "midnight": "calls that began before midnight and ended after it",
    "credits": "credits, discounts and refunds on the invoice",
    "taxes": "taxes on the invoice",
    "other_charges": "fees and adjustments on the invoice, which are for no usage",
    "failed": "calls that failed and have no usage: the provider may have billed them",
    "retries": "failed calls that were made again within ten minutes: the provider may have billed both",
    "aborted": "streams that the application stopped reading: the provider bills all that it made",
    "estimated": "calls whose usage is an estimate, since the provider never said",
    "missing": "calls that were made and are not in the ledger: the queue was full, or the process was killed",
}
"""What may be why an invoice and the ledger differ -> that in words."""

NO_MODEL: Final = "(no model named)"
ALL_MODELS: Final = "(all models)"

_NS: Final = 10**9
_RETRIED_WITHIN: Final = 600 * _NS
_BATCH_DAYS: Final = 7
"""Days before the one on which a batch was fetched that are looked at for its bill."""
_EXAMPLES: Final = 5
_KIND_CAUSE: Final = {"credit": "credits", "tax": "taxes", "other": "other_charges"}


class _Key(NamedTuple):
    """A day, or days that the invoice does not tell apart, and a model."""

    first: date
    last: date
    provider: str
    model: str


@dataclass(slots=True)
class _Tally:
    """Calls of one cause. `explained` picodollars of the difference are due to them; `at_stake` is what may be."""

    calls: int = 0
    explained: int = 0
    at_stake: int = 0
    unknown: int = 0
    """Calls among them whose amount nobody knows."""
    dearest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, identity: str, explained: int = 0, at_stake: int = 0, *, unknown: bool = False) -> None:
        self.calls += 1
        self.explained += explained
        self.at_stake += at_stake
        self.unknown += unknown
        self._show(max(abs(explained), at_stake), identity)

    def merge(self, other: _Tally) -> None:
        self.calls += other.calls
        self.explained += other.explained
        self.at_stake += other.at_stake
        self.unknown += other.unknown
        for weight, identity in other.dearest:
            self._show(weight, identity)

    def _show(self, weight: int, identity: str) -> None:
        push = heapq.heappush if len(self.dearest) < _EXAMPLES else heapq.heappushpop
        push(self.dearest, (weight, identity))

    @property
    def examples(self) -> list[str]:
        return [identity for _, identity in sorted(self.dearest, reverse=True)]


@dataclass(slots=True)
class _Cell:
    invoiced: int = 0
    ledger: int = 0
    calls: int = 0
    figures: int = 0
    """Calls that have a figure."""
    unpriced: int = 0
    """Calls that have none, or a part of one, and did not fail: `ledger` is too low by what they cost."""
    searching: int = 0
    """Calls that are counted elsewhere, of which only the searches are here."""
    charged: bool = False
    """Whether the invoice has a line for it."""
    used: bool = False
    """Whether one of these is for usage."""
    causes: dict[str, _Tally] = field(default_factory=lambda: defaultdict(_Tally))
    moved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Picodollars of calls that the provider may have billed on another day, by cause."""

    @property
    def difference(self) -> int:
        return self.invoiced - self.ledger

    @property
    def explained(self) -> int:
        return sum(tally.explained for tally in self.causes.values())

    @property
    def unexplained(self) -> int:
        return self.difference - self.explained


def reconcile(
    figures: Figures,
    invoices: Sequence[Invoice],
    book: PriceBook,
    *,
    period: tuple[date, date] | None = None,
    where: Mapping[str, str] | None = None,
    tolerance: Decimal = Decimal(1),
    seen: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Invoices beside the ledger, ready for JSON but for its Decimals (USD).

    `period` are the first and the last day that are looked at, by default those of the invoices; days are those of the
    provider's clock. `where` narrows the ledger's side. `seen` is told how many calls more were looked at, and of how
    many. Within `tolerance` percent of the invoice, all is well. Raises
    `InvoiceError` for invoices that cannot be compared.
    """
    zones = {invoice.zone for invoice in invoices}
    if len(zones) > 1:
        raise InvoiceError(
            f"the invoices have days of several clocks ({', '.join(sorted(zones))}): reconcile each alone"
        )
    zone = zones.pop() if zones else "UTC"
    found = _Reconciliation(book, zone, Names(book))
    found.charge(invoices, period)
    found.read(figures, where or {}, seen)
    found.settle()
    return found.plain(invoices, tolerance)


class _Reconciliation:
    def __init__(self, book: PriceBook, zone: str, names: Names) -> None:
        self._book = book
        self._zone = zone
        self._names = names
        self._cells: dict[_Key, _Cell] = defaultdict(_Cell)
        self._spans: dict[str, list[tuple[date, date]]] = {}
        self._together: set[str] = set()
        """Providers whose invoice names no models."""
        self._unmatched: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._unknown_calls: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._outside = [0, 0]
        self._forgotten = [0, 0]
        self._failed: list[tuple[_Cell, str, list[bool]]] = []
        self._missing = _Tally()
        self.first = self.last = date.min
        self._start = self._end = 0
        self.expected = 0
        """Calls that are looked at."""
        self.providers: set[str] = set()

    # ---------------------------------------------------------------- the invoice's side

    def charge(self, invoices: Sequence[Invoice], period: tuple[date, date] | None) -> None:
        """Take up what was invoiced."""
        charges = [item for invoice in invoices for item in invoice.charges.items()]
        if period is None:
            if not charges:
                raise InvoiceError("the invoice has no charges for models")
            period = min(charge.first for charge, _ in charges), max(charge.last for charge, _ in charges)
        self.first, self.last = period
        within = []
        for charge, pico in charges:
            # A charge is for days; where these are partly outside, nobody can say which part of it is.
            if charge.first < self.first or charge.last > self.last:
                self._outside[0] += 1
                self._outside[1] += pico
            else:
                within.append((charge, pico))
        self.providers = {charge.provider for charge, _ in charges}
        for provider in self.providers:
            own = [charge for charge, _ in within if charge.provider == provider]
            self._spans[provider] = _merged((charge.first, charge.last) for charge in own if charge.first < charge.last)
            used = [charge for charge in own if charge.kind == "usage"]
            if used and not any(charge.name for charge in used):
                self._together.add(provider)
        for charge, pico in within:
            cell = self._cells[self._key(charge.first, charge.provider, self._charged(charge, pico))]
            cell.invoiced += pico
            cell.charged = True
            cell.used |= charge.kind == "usage"
            if (cause := _KIND_CAUSE.get(charge.kind)) is not None:
                cell.causes[cause].explained += pico

    def _charged(self, charge: Charge, pico: int) -> str:
        if charge.provider in self._together:
            return ALL_MODELS
        if not charge.name:
            return NO_MODEL
        model = self._names.of_invoice(charge.provider, charge.name)
        if model is None:
            if charge.kind == "usage":
                line = self._unmatched[charge.provider, charge.name]
                line[0] += 1
                line[1] += pico
            return bare(charge.name)
        return model

    def _key(self, at: date, provider: str, model: str) -> _Key:
        for first, last in self._spans.get(provider, ()):
            if first <= at <= last:
                return _Key(first, last, provider, model)
        return _Key(at, at, provider, model)

    # ---------------------------------------------------------------- the ledger's side

    def read(self, figures: Figures, where: Mapping[str, str], seen: Callable[[int, int], None] | None) -> None:
        """Go through the calls of the same providers and days."""
        start, end = (_second(at, self._zone) for at in (self.first, self.last + timedelta(days=1)))
        self._start, self._end = start, end
        named = figures.spent(start, end, ("provider",), where)
        own = {name: spent for (name,), spent in named.items() if self._book.canonical(name) in self.providers}
        self.expected = sum(spent.calls for spent in own.values())
        for provider in sorted(own):
            narrowed = {**where, "provider": provider}
            reader = _Reader(self, _repeated(figures.engine, start, end, provider))
            for hour in reader.read(figures, start, end, narrowed, seen):
                self._from_totals(figures, hour, narrowed)
        self._count_missing(figures.engine, start, end)

    def _from_totals(self, figures: Figures, hour: int, where: Mapping[str, str]) -> None:
        """Count an hour whose calls retention has removed: what they cost is known, and why it differs is not."""
        at = datetime.fromtimestamp(hour, zone_of(self._zone)).date()
        spent = figures.spent(max(hour, self._start), min(hour + HOUR, self._end), ("provider", "model"), where)
        for (provider, model), sums in spent.items():
            own, name, _ = self._names.of_call(provider, model or None, None)
            name = ALL_MODELS if own in self._together else name or NO_MODEL
            cell = self._cells[self._key(at, own, name)]
            cell.calls += sums.calls
            cell.ledger += sums.cost
            self._forgotten[0] += sums.calls
            self._forgotten[1] += sums.cost

    def take(self, row: Mapping[str, Any], at: date, edges: tuple[int, int], extra: bool, reprice: Repricer) -> _Cell:
        """Count one call. `edges` are the instants between which its day is, `extra` whether its answer was counted."""
        provider, model, known = self._names.of_call(row["provider"], row["response_model"], row["request_model"])
        if provider in self._together:
            model = ALL_MODELS
        elif not model:
            model = NO_MODEL
        elif not known:
            line = self._unknown_calls[provider, model]
            line[0] += 1
            line[1] += row["cost"] or 0
        key = self._key(at, provider, model)
        cell = self._cells[key]
        recorded = row["cost"]
        cell.calls += 1
        cell.figures += recorded is not None
        cell.unpriced += (recorded is None or row["status"] == "partial") and not _failed(row)
        said = outcome(row, reprice)
        searched, searches_now = _searches(row), _searches_now(said.priced, row)
        if provider in self._together or not (searched or searches_now):
            self._money(cell, row, recorded, said.total, said.kind, extra)
        else:
            # Invoices show searches apart from the model that made them.
            aside = self._cells[self._key(at, provider, SEARCHES)]
            rest = None if recorded is None else recorded - searched
            now = None if said.total is None else said.total - searches_now
            self._money(cell, row, rest, now, said.kind, extra)
            aside.searching += 1
            self._money(aside, row, searched, searches_now, said.kind, extra)
        self._doubt(cell, row, key, edges)
        return cell

    def _money(
        self, cell: _Cell, row: Mapping[str, Any], recorded: int | None, now: int | None, kind: str, extra: bool
    ) -> None:
        cell.ledger += recorded or 0
        identity = row["id"]
        if extra and recorded:
            cell.causes["duplicates"].add(identity, -recorded)
        elif _failed(row):
            pass  # that is a doubt
        elif recorded is None or row["status"] == "partial":
            cell.causes["unpriced"].add(identity, (now or 0) - (recorded or 0), unknown=kind != "found")
        elif now is not None and now != recorded:
            cell.causes["repriced"].add(identity, now - recorded)

    def _doubt(self, cell: _Cell, row: Mapping[str, Any], key: _Key, edges: tuple[int, int]) -> None:
        cost, identity = row["cost"] or 0, row["id"]
        if row["aborted"]:
            cell.causes["aborted"].add(identity, at_stake=cost, unknown=row["cost"] is None)
        elif row["status"] == "estimated":
            cell.causes["estimated"].add(identity, at_stake=cost)
        if key.first != key.last or not cost:
            return
        if row["tier"] == "batch":
            cell.causes["batch"].add(identity, at_stake=cost)
            cell.moved["batch"] += cost
        elif row["duration"] is not None and row["started"] + row["duration"] >= edges[1]:
            cell.causes["midnight"].add(identity, at_stake=cost)
            cell.moved["midnight"] += cost

    def failed(self, cell: _Cell, identity: str) -> list[bool]:
        """Remember a failed call; whoever sees it made again says so in what is returned."""
        again = [False]
        self._failed.append((cell, identity, again))
        return again

    def _count_missing(self, engine: Engine, start: int, end: int) -> None:
        c = writers.c
        lived = c.started < end, func.coalesce(c.ended, c.seen) >= start
        with engine.connect() as connection:
            for name, count in connection.execute(select(c.id, c.dropped + c.lost).where(*lived)):
                if count:
                    self._missing.calls += count
                    self._missing.unknown += count
                    self._missing.dearest.append((count, name))

    # ---------------------------------------------------------------- both together

    def settle(self) -> None:
        """Say how much each cause explains, once all is known."""
        for cell, identity, again in self._failed:
            mean = cell.ledger // cell.figures if cell.figures else 0
            cell.causes["retries" if again[0] else "failed"].add(identity, at_stake=mean, unknown=True)
        for cell in self._cells.values():
            mean = cell.ledger // cell.figures if cell.figures else 0
            if tally := cell.causes.get("unpriced"):
                tally.at_stake += mean * tally.unknown
        self._move("batch", [-days for days in range(1, _BATCH_DAYS + 1)])
        self._move("midnight", [1])
        figured = sum(cell.figures for cell in self._cells.values())
        if figured:
            self._missing.at_stake = sum(cell.ledger for cell in self._cells.values()) // figured * self._missing.calls

    def _move(self, cause: str, to: Sequence[int]) -> None:
        """Calls that were billed on another day: the ledger has too much on theirs, and too little on the other one."""
        for key in sorted(self._cells):
            cell = self._cells[key]
            left = min(cell.moved.get(cause, 0), -cell.unexplained)
            for days in to:
                other = self._cells.get(
                    key._replace(first=key.first + timedelta(days=days), last=key.last + timedelta(days=days))
                )
                moved = 0 if other is None else min(left, other.unexplained)
                if other is not None and moved > 0:
                    cell.causes[cause].explained -= moved
                    other.causes[cause].explained += moved
                    left -= moved

    def plain(self, invoices: Sequence[Invoice], tolerance: Decimal) -> dict[str, Any]:
        """All of it, ready for JSON but for its Decimals."""
        cells = {key: self._cells[key] for key in sorted(self._cells) if _counts(self._cells[key])}
        total = _total(cells.values())
        by_day: dict[tuple[date, date], list[_Cell]] = defaultdict(list)
        by_model: dict[tuple[str, str], list[_Cell]] = defaultdict(list)
        for key, cell in cells.items():
            by_day[key.first, key.last].append(cell)
            by_model[key.provider, key.model].append(cell)
        models = [
            {"provider": provider, "model": model, **_line(_total(some), tolerance)}
            for (provider, model), some in by_model.items()
        ]
        rounded = sum(invoice.lines for invoice in invoices if invoice.whole_cents)
        return {
            "period": {"first": self.first.isoformat(), "last": self.last.isoformat(), "zone": self._zone},
            "providers": sorted(self.providers),
            "invoices": [
                {
                    "source": invoice.source,
                    "form": invoice.form,
                    "lines": invoice.lines,
                    "invoiced": usd(invoice.total),
                    "left_out": {"lines": invoice.left_out, "cost": usd(invoice.left_out_pico)},
                }
                for invoice in invoices
            ],
            "forgotten": {"calls": self._forgotten[0], "cost": usd(self._forgotten[1])},
            "outside": {"charges": self._outside[0], "cost": usd(self._outside[1])},
            "book": self._book.version,
            "tolerance": tolerance,
            "total": _line(total, tolerance),
            "rounding": usd(rounded * 5 * 10**9) if rounded else None,
            "by_day": [
                {"day": _days(*ends), **_line(_total(some), tolerance)} for ends, some in sorted(by_day.items())
            ],
            "by_model": sorted(models, key=lambda line: (-abs(line["difference"]), line["provider"], line["model"])),
            "cells": [
                {"day": _days(*key[:2]), "provider": key.provider, "model": key.model, **_line(cell, tolerance)}
                for key, cell in cells.items()
            ],
            "explanations": self._explanations(cells),
            "unmatched": _named(self._unmatched, "invoiced", "charges"),
            "unknown_models": _named(self._unknown_calls, "ledger", "calls"),
            "not_invoiced": _named(
                {
                    name: [sum(cell.calls or cell.searching for cell in some), sum(cell.ledger for cell in some)]
                    for name, some in by_model.items()
                    if not any(cell.charged for cell in some)
                },
                "ledger",
                "calls",
            ),
            "not_in_ledger": _named(
                {
                    name: [1, sum(cell.invoiced for cell in some)]
                    for name, some in by_model.items()
                    if any(cell.used for cell in some) and not any(cell.calls or cell.searching for cell in some)
                },
                "invoiced",
                None,
            ),
        }

    def _explanations(self, cells: Mapping[_Key, _Cell]) -> list[dict[str, Any]]:
        lines = []
        for cause, words in CAUSES.items():
            where = [(key, cell.causes[cause]) for key, cell in cells.items() if cause in cell.causes]
            together = _Tally()
            for _, tally in where:
                together.merge(tally)
            if cause == "missing":
                together = self._missing
            if not (where or together.calls):
                continue
            weight = sum(abs(tally.explained) for _, tally in where)
            where.sort(key=lambda item: (-abs(item[1].explained), -item[1].at_stake, item[0]))
            line = {
                "cause": cause,
                "what": words,
                **_tallied(together),
                "moved": usd(weight),
                "by": [
                    {"day": _days(*key[:2]), "provider": key.provider, "model": key.model, **_tallied(tally)}
                    for key, tally in where
                ],
            }
            lines.append((weight, together.at_stake, line))
        return [line for *_, line in sorted(lines, key=lambda line: (-line[0], -line[1], line[2]["cause"]))]


class _Reader:
    """Goes through the calls of one provider, the oldest first."""

    def __init__(self, into: _Reconciliation, repeated: set[str]) -> None:
        self._into = into
        self._repeated = repeated
        self._counted: set[str] = set()
        self._waiting: dict[tuple[str, ...], tuple[int, list[bool]]] = {}
        self._reprice = Repricer(into._book)
        self._clock = zone_of(into._zone)
        self._day = date.min
        self._edges = (0, 0)

    def read(
        self, figures: Figures, start: int, end: int, where: Mapping[str, str], seen: Callable[[int, int], None] | None
    ) -> list[int]:
        """Returns the hours (the unix seconds at which they begin) that have totals and no calls any more."""
        gone: list[int] = []
        for _, rows in windows(figures, start, end, where, gone):
            for row in rows:
                self._take(row)
            if seen is not None:
                seen(len(rows), self._into.expected)
        return gone

    def _take(self, row: Mapping[str, Any]) -> None:
        started, answer = row["started"], row["response_id"]
        if not self._edges[0] <= started < self._edges[1]:
            around = period_at("day", started // _NS, self._into._zone)
            self._edges = int(around.start) * _NS, int(around.end) * _NS
            self._day = datetime.fromtimestamp(started // _NS, self._clock).date()
        extra = answer in self._repeated and answer in self._counted
        if answer in self._repeated and row["cost"]:
            self._counted.add(answer)
        cell = self._into.take(row, self._day, self._edges, extra, self._reprice)
        names = [(kind, row[kind], row["model"] or "") for kind in ("prompt", "trace_id") if row[kind] is not None]
        for name in names:
            waits = self._waiting.pop(name, None)
            if waits is not None and started - waits[0] <= _RETRIED_WITHIN:
                waits[1][0] = True
        if _failed(row):
            again = self._into.failed(cell, row["id"])
            ended = started + (row["duration"] or 0)
            self._waiting |= dict.fromkeys(names, (ended, again))


def _failed(row: Mapping[str, Any]) -> bool:
    return row["status"] == "no_usage" and row["error_type"] is not None


def _repeated(engine: Engine, start: int, end: int, provider: str) -> set[str]:
    """Ids of answers that more than one call has."""
    c = calls.c
    within = c.hour >= start // HOUR, c.hour <= (end - 1) // HOUR, c.started >= start * _NS, c.started < end * _NS
    query = select(c.response_id).where(*within, c.provider == provider, c.response_id.is_not(None))
    with engine.connect() as connection:
        return set(connection.execute(query.group_by(c.response_id).having(func.count() > 1)).scalars())


def _searches(row: Mapping[str, Any]) -> int:
    """Picodollars of a recorded call that are for searches."""
    if row["source"] != "local" or not row["cost_other"] or not row["lines"]:
        return 0
    return sum(line[5] or 0 for line in json.loads(row["lines"]) if line[1] in SEARCH_METERS)


def _searches_now(priced: Any, row: Mapping[str, Any]) -> int:
    """The same by today's book."""
    if priced is None or priced.total is None:
        return _searches(row)
    if not priced.components.get("other"):
        return 0
    return sum(line.pico or 0 for line in priced.cost.lines if line.meter in SEARCH_METERS)


def _merged(spans: Iterable[tuple[date, date]]) -> list[tuple[date, date]]:
    """Spans of days, those that overlap put together."""
    merged: list[tuple[date, date]] = []
    for first, last in sorted(set(spans)):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return merged


def _second(at: date, zone: str) -> int:
    """The unix second at which a day begins."""
    noon = datetime(at.year, at.month, at.day, 12, tzinfo=zone_of(zone)).timestamp()
    return int(period_at("day", noon, zone).start)


def _days(first: date, last: date) -> str:
    return first.isoformat() if first == last else f"{first.isoformat()}/{last.isoformat()}"


def _counts(cell: _Cell) -> bool:
    return bool(cell.calls or cell.searching or cell.charged)


def _total(cells: Iterable[_Cell]) -> _Cell:
    total = _Cell()
    for cell in cells:
        total.invoiced += cell.invoiced
        total.ledger += cell.ledger
        total.calls += cell.calls
        total.figures += cell.figures
        total.unpriced += cell.unpriced
        total.searching += cell.searching
        total.charged |= cell.charged
        for cause, tally in cell.causes.items():
            total.causes[cause].explained += tally.explained
    return total


def _line(cell: _Cell, tolerance: Decimal) -> dict[str, Any]:
    difference = cell.difference
    percent = None
    if cell.invoiced:
        percent = (Decimal(difference) * 100 / abs(cell.invoiced)).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return {
        "invoiced": usd(cell.invoiced),
        "ledger": usd(cell.ledger),
        "difference": usd(difference),
        "percent": percent,
        "explained": usd(cell.explained),
        "unexplained": usd(cell.unexplained),
        "calls": cell.calls or cell.searching,
        "unpriced": cell.unpriced,
        "within": abs(difference) * 100 <= tolerance * abs(cell.invoiced) and not (cell.unpriced and not cell.ledger),
    }


def _tallied(tally: _Tally) -> dict[str, Any]:
    return {
        "calls": tally.calls,
        "explained": usd(tally.explained),
        "at_stake": usd(tally.at_stake),
        "unknown": tally.unknown,
        "examples": tally.examples,
    }


def _named(found: Mapping[tuple[str, str], Sequence[int]], amount: str, count: str | None) -> list[dict[str, Any]]:
    ordered = sorted(found.items(), key=lambda item: (-abs(item[1][1]), item[0]))
    return [
        {"provider": provider, "model": model, **({} if count is None else {count: some}), amount: usd(pico)}
        for (provider, model), (some, pico) in ordered
    ]


# ---------------------------------------------------------------------- two of them


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two reconciliations, such as before and after a month was restated.

    `before` may come from JSON. Raises `InvoiceError` if it is none.
    """
    try:
        old, new = _figures_of(before), _figures_of(after)
        lines = []
        for key in sorted({*old, *new}):
            was, now = old.get(key, _NOTHING), new.get(key, _NOTHING)
            if was != now:
                lines.append(dict(zip(("day", "provider", "model"), key, strict=True)) | _change(was, now))
        was, now = (tuple(_pico(side["total"][name]) for name in _COMPARED) for side in (before, after))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        raise InvoiceError("this is no reconciliation: give what `costspan reconcile --json` has printed") from None
    return {"total": _change(was, now), "cells": sorted(lines, key=lambda line: -abs(line["invoiced"]["change"]))}


_COMPARED: Final = ("invoiced", "ledger", "unexplained")
_NOTHING: Final = (0, 0, 0)


def _figures_of(report: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[int, ...]]:
    return {
        (cell["day"], cell["provider"], cell["model"]): tuple(_pico(cell[name]) for name in _COMPARED)
        for cell in report["cells"]
    }


def _pico(amount: object) -> int:
    return pico_of(Decimal(str(amount)))


def _change(was: Sequence[int], now: Sequence[int]) -> dict[str, Any]:
    return {
        name: {"before": usd(one), "after": usd(other), "change": usd(other - one)}
        for name, one, other in zip(_COMPARED, was, now, strict=True)
    }
