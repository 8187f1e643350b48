"""Reports: what a day, week or month, a conversation, a session or a feature has cost, and what follows from it.

`build()` makes one plain dictionary, whatever the report is shown as; `costspan.insight.show` writes it as Markdown,
JSON, CSV or HTML. Amounts are exact `Decimal`s of USD, and None where there is no figure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, get_args

from costspan.insight.figures import COLUMNS, HOUR, Spent, Sums, dearest_first, usd
from costspan_processor.budgets.periods import Period, is_window, period_at, window_at, zone_of
from costspan_processor.ledger.schema import DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costspan.insight.figures import Figures
    from costspan_processor.budgets import Budget

Kind = Literal["day", "week", "month", "conversation", "session", "feature"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
STRETCHES: Final = ("day", "week", "month")
"""Reports of a stretch of time; the others are of calls that have something in common, whenever they were made."""

NOT_SAID: Final = "(not said)"
OTHERS: Final = "(others)"
_GROUPS: Final = {
    "provider": ("provider",),
    "model": ("provider", "model"),
    "operation": ("operation",),
    "task": ("task",),
    "feature": ("feature",),
    "team": ("team",),
    "persona": ("persona",),
    "service": ("service",),
}
_VALUES: Final = 5
"""Values of a budget per value that are shown although they are far from the limit."""
_MOST: Final = 20
"""Groups that a breakdown lists by name; what is left is one line, so that shares add up to all."""


class Group(TypedDict):
    """Calls that have something in common. Tokens: input contains cache reads and writes, output reasoning."""

    name: str
    calls: int
    cost: Decimal | None
    """USD; None where none of the calls has a figure."""
    share: float | None
    """Of the whole report's cost."""
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_hit_rate: float | None
    saved: Decimal
    """USD that cache reads saved."""
    unpriced: int
    """Calls without a figure, or with a part of one: `cost` is too low by what they cost."""
    failed: int
    aborted: int
    latency: float | None
    """Mean seconds."""


class Point(TypedDict):
    """One hour or day."""

    start: str
    """The hour or day in the report's time zone, ISO 8601."""
    calls: int
    cost: Decimal


class BudgetLine(TypedDict):
    """A budget in the period that the report's end lies in."""

    name: str
    period: str
    limit: Decimal
    spent: Decimal | None
    """By the ledger; None where it cannot tell, and `note` says why."""
    remaining: Decimal | None
    used: float | None
    """Share of the limit."""
    status: str
    """`ok`, `warning` (from the budget's threshold of 80 % or its soft limit), `exceeded` or `unknown`."""
    tomorrow: Decimal | None
    """USD that may be spent on each of the days that are left after this one, if the limit is to last."""
    note: str


def stretch_of(kind: str, day: date | None, now: float, zone: str) -> Period:
    """The period that a report of a kind is about: the one with `day` in it, by default the present one."""
    if day is None:
        return period_at(kind, now, zone)
    # Noon is on the day whatever the clocks do.
    return period_at(kind, datetime(day.year, day.month, day.day, 12, tzinfo=zone_of(zone)).timestamp(), zone)


def build(
    figures: Figures,
    kind: Kind,
    *,
    subject: str | None = None,
    stretch: tuple[str, int, int] | None = None,
    budgets: Sequence[Budget] = (),
    zone: str = "UTC",
    now: float,
) -> dict[str, Any]:
    """The report of a kind, ready for JSON but for its Decimals.

    `subject` is the conversation, session or feature, `stretch` the id, start and end (unix seconds) of the time that
    is looked at; by default all that the ledger knows. Raises ValueError where there is nothing to report on.
    """
    if kind not in STRETCHES and not subject:
        raise ValueError(f"say which {kind}")
    with figures.at_once() as seen:
        return _built(seen, kind, subject, stretch, budgets, zone, now)


def _built(
    figures: Figures,
    kind: Kind,
    subject: str | None,
    stretch: tuple[str, int, int] | None,
    budgets: Sequence[Budget],
    zone: str,
    now: float,
) -> dict[str, Any]:
    where: dict[str, str] = {} if kind in STRETCHES else {kind: str(subject)}
    if stretch is None:
        known = figures.known()
        if known is None:
            raise ValueError("the ledger is empty: nothing has been recorded yet")
        stretch = ("all", *known)
    period = Period(*stretch)
    # One walk through the totals serves all that they are told apart by.
    cube = figures.sums(period.start, period.end, DIMENSIONS, where)
    total = sum(cube.values(), Sums())
    if where and not total.calls:
        raise ValueError(f"the ledger has no calls of {kind} {subject!r}" + _between(period))
    clock = zone_of(zone)
    until = min(period.end, math.ceil(now))
    report: dict[str, Any] = {
        "report": kind,
        "subject": subject,
        "period": {
            "id": period.id,
            "start": _iso(period.start, zone),
            "end": _iso(period.end, zone),
            "zone": zone,
            "complete": period.end <= now,
        },
        "generated": _iso(now, zone),
        "summary": group("total", total, total),
        "missing": figures.missing(),
        "previous": _previous(figures, kind, period, zone, total, now) if kind in STRETCHES else None,
        "budgets": [line for budget in budgets for line in budget_lines(figures, budget, until - 1)]
        if not where
        else [],
    }
    if kind == "day":
        report["by_hour"] = _hours(figures, period, clock)
    else:
        days = figures.days(period.start, period.end, zone, where)
        report["by_day"] = [Point(start=day.isoformat(), calls=s.calls, cost=s.usd) for day, s in days.items()]
        if where:
            # Of a conversation the days around it tell nothing.
            report["by_day"] = _trimmed(report["by_day"])
    for name, columns in _GROUPS.items():
        report[f"by_{name}"] = groups(together(cube, columns), total)
    report["by_user"] = _users(figures, period, where, total)
    report["unpriced"] = [
        {"provider": provider, "model": model, "status": status, "calls": sums.unpriced}
        for (provider, model, status), sums in together(cube, ("provider", "model", "status")).items()
        if sums.unpriced
    ]
    report["top_calls"] = [told(row, zone) for row in figures.calls(period.start, period.end, where)]
    if kind in {"conversation", "session"}:
        report["calls"] = _course(figures, period, where, zone)
    return report


def together(cube: Mapping[tuple[str, ...], Sums], columns: Sequence[str]) -> dict[tuple[str, ...], Sums]:
    """Sums by some of `DIMENSIONS`, of sums by all of them; dearest first."""
    places = [DIMENSIONS.index(column) for column in columns]
    found: dict[tuple[str, ...], Sums] = defaultdict(Sums)
    for values, sums in cube.items():
        found[tuple(values[place] for place in places)] += sums
    return dearest_first(found)


def groups(found: Mapping[tuple[str, ...], Sums], total: Sums, most: int = _MOST) -> list[Group]:
    """Lines of a breakdown, dearest first, that add up to the total. Empty where nobody has said any of the names."""
    if not any(any(values) for values in found):
        return []
    named = [("/".join(value or NOT_SAID for value in values), sums) for values, sums in found.items()]
    lines = [group(name, sums, total) for name, sums in named[:most]]
    if len(named) > most:
        lines.append(group(f"{OTHERS}: {len(named) - most}", sum((sums for _, sums in named[most:]), Sums()), total))
    return lines


def _users(figures: Figures, period: Period, where: Mapping[str, str], total: Sums) -> list[Group]:
    spent = {} if where else figures.spent(period.start, period.end, ("user",))
    others = len(spent) - _MOST
    if others <= 0 or ("",) in spent:
        return groups(figures.sums(period.start, period.end, ("user",), where), total)
    # Of thousands, those that are shown are summed up several times faster than all, and all have the total.
    dearest = [user for (user,) in islice(spent, _MOST)]
    found = figures.sums(period.start, period.end, ("user",), {"user": dearest})
    lines = [group(user, sums, total) for (user,), sums in found.items()]
    return [*lines, group(f"{OTHERS}: {others}", total - sum(found.values(), Sums()), total)]


def group(name: str, sums: Sums, total: Sums) -> Group:
    """A line of a breakdown."""
    known = sums.cost or sums.unpriced + sums.failed < sums.calls or not sums.calls
    return Group(
        name=name,
        calls=sums.calls,
        cost=sums.usd if known else None,
        share=sums.cost / total.cost if total.cost else None,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cache_read_tokens=sums.cache_read_tokens,
        cache_hit_rate=sums.cache_hit_rate,
        saved=usd(sums.saved),
        unpriced=sums.unpriced,
        failed=sums.failed,
        aborted=sums.aborted,
        latency=sums.latency,
    )


def told(row: Mapping[str, Any], zone: str = "UTC") -> dict[str, Any]:
    """A call as reports and the HTTP API show it: what is not known is left out."""
    found = {
        "id": row["id"],
        "at": _iso(row["started"] / 1e9, zone),
        "model": "/".join(filter(None, (row["provider"], row["model"]))) or None,
        **{
            name: row[name]
            for name in (
                "operation", "service", "user", "session", "conversation", "team", "feature", "task", "persona",
                "message", "status", "error_type", "input_tokens", "cache_read_tokens", "output_tokens",
            )
        },
        "aborted": row["aborted"] or None,
        "seconds": None if row["duration"] is None else row["duration"] / 1e9,
        "cost": None if row["cost"] is None else usd(row["cost"]),
        "book": row["book"],
        "price_source": row["price_source"],
    }  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def budget_lines(figures: Figures, budget: Budget, at: int) -> list[BudgetLine]:
    """A budget at an instant, by the ledger; one for each of the dearest values where each has the limit for itself."""
    if is_window(budget.period):
        stretches = window_at(budget.period, at)
        period = Period(f"last {budget.period}", stretches[-1].start, at + 1)
    else:
        period = period_at(budget.period, at, budget.zone)
    columns = {key: column_of(key) for key in (*budget.scope, *filter(None, (budget.per,)))}
    if unknown := [key for key, column in columns.items() if column is None]:
        note = f"the ledger does not keep {', '.join(unknown)}: see costspan budgets show {budget.name!r}"
        return [_line(budget, budget.name, period, None, at, note)]
    narrowed = {str(columns[key]): value for key, value in budget.scope.items()}
    per = None if budget.per is None else str(columns[budget.per])
    end = min(period.end, at + 1)
    if per is None:
        return [_line(budget, budget.name, period, _spent(figures, period.start, end, narrowed).cost, at, "")]
    found = figures.spent(period.start, end, (per,), narrowed)
    lines = [
        _line(budget, f"{budget.name} of {value}", period, spent.cost, at, "")
        for (value,), spent in found.items()
        if value
    ]
    lines = [*lines[:_VALUES], *(line for line in lines[_VALUES:] if line["status"] != "ok")]
    return lines or [_line(budget, budget.name, period, 0, at, f"no calls that tell of {budget.per}")]


def column_of(attribute: str) -> str | None:
    """The column, or `tag.<name>`, that holds a span attribute; None: the ledger does not keep it."""
    tag = attribute.removeprefix("costspan.tag.")
    return f"tag.{tag}" if tag != attribute else COLUMNS.get(attribute)


def _line(budget: Budget, name: str, period: Period, spent: int | None, at: int, note: str) -> BudgetLine:
    limit = budget.limit
    cost = None if spent is None else usd(spent)
    status = "unknown"
    remaining = used = tomorrow = None
    if cost is not None:
        used = float(cost / limit)
        warns = min((percent for percent in budget.thresholds if percent >= 80), default=100) / 100
        soft = budget.soft_limit is not None and cost >= budget.soft_limit
        status = "exceeded" if cost >= limit else "warning" if used >= warns or soft else "ok"
        remaining = max(Decimal(0), limit - cost)
        if budget.period in {"week", "month", "year"}:
            today = period_at("day", at, budget.zone)
            days = round((period.end - today.end) / 86400)
            tomorrow = round(remaining / days, 12) if days else None
        elif budget.period == "day":
            tomorrow = limit
    return BudgetLine(
        name=name,
        period=period.id,
        limit=limit,
        spent=cost,
        remaining=remaining,
        used=used,
        status=status,
        tomorrow=tomorrow,
        note=note,
    )


def _previous(figures: Figures, kind: str, period: Period, zone: str, total: Sums, now: float) -> dict[str, Any] | None:
    """The period before, up to the same age if this one is still going on; None where the ledger was not there yet."""
    before = period_at(kind, period.start - 1, zone)
    known = figures.known()
    if known is None or known[0] >= before.end:
        return None
    age = min(period.end, math.ceil(now)) - period.start
    end = before.end if period.end <= now else min(before.end, before.start + age)
    sums = _spent(figures, before.start, end)
    return {
        "id": before.id,
        "complete": end == before.end,
        "cost": sums.usd,
        "calls": sums.calls,
        "change": (total.cost - sums.cost) / sums.cost if sums.cost else None,
    }


def _hours(figures: Figures, period: Period, clock: Any) -> list[Point]:
    """Each hour of a day, those without calls among them; cut where the day begins or ends within one (UTC)."""
    found: list[Point] = []
    by_hour = None if period.start % HOUR else figures.by_hour(period.start, period.end)
    second = period.start
    while second < period.end:
        following = min(second + HOUR, period.end)
        sums = _spent(figures, second, following) if by_hour is None else by_hour.get(second, Spent())
        start = datetime.fromtimestamp(second, clock).isoformat()
        found.append(Point(start=start, calls=sums.calls, cost=sums.usd))
        second = following
    return found


def _spent(figures: Figures, start: int, end: int, where: Mapping[str, str] | None = None) -> Spent:
    return figures.spent(start, end, (), where).get((), Spent())


def _trimmed(points: list[Point]) -> list[Point]:
    used = [at for at, point in enumerate(points) if point["calls"]]
    return points[used[0] : used[-1] + 1] if used else []


def _course(figures: Figures, period: Period, where: Mapping[str, str], zone: str) -> list[dict[str, Any]]:
    """The calls in order, and what they have cost so far."""
    so_far = 0
    found = []
    for row in figures.calls(period.start, period.end, where, order="started", limit=1000):
        so_far += row["cost"] or 0
        found.append({**told(row, zone), "so_far": usd(so_far)})
    return found


def _between(period: Period) -> str:
    return "" if period.id == "all" else f" in {period.id}"


def _iso(second: float, zone: str) -> str:
    moment = datetime.fromtimestamp(second, UTC if zone == "UTC" else zone_of(zone))
    return (moment + timedelta(microseconds=500)).isoformat(timespec="milliseconds" if second % 1 else "seconds")
