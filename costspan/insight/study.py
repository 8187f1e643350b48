"""What the figures of a report mean: trend, forecast, anomalies and efficiency, and the advice that follows."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from costspan.insight.advice import advise, saved_by, together
from costspan.insight.analysis import Work, anomalies, efficiency, forecast, project_month, trend
from costspan.insight.figures import HOUR
from costspan_processor.budgets.periods import period_at, zone_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costspan.insight.figures import Figures
    from costspan_pricing import PriceBook

_DAYS: Final = 120
"""Days before a report's end that forecasts rest on."""
_TREND: Final = 28
"""Days that a trend is told of."""
_DAY: Final = 86_400


def study(report: dict[str, Any], figures: Figures, start: int, end: int, *, zone: str, now: float) -> None:
    """Add to the report of a day, week or month (`start` to `end`, unix seconds) what its figures mean.

    Keys: `trend`, `forecast` (of the day after), `projection` (of the month), `anomalies`, `efficiency`. Where too
    little is known for a figure it is None, and `reason` or `basis` says why.
    """
    clock = zone_of(zone)
    moment = min(end - 1, int(now))
    today = period_at("day", moment, zone)
    this_day = datetime.fromtimestamp(moment, clock).date()
    days = figures.known_days(today.start - _DAYS * _DAY, today.end, zone)
    over = end <= now
    running = this_day + timedelta(days=1) if over else this_day
    recent = {day: cost for day, cost in days.items() if day >= this_day - timedelta(days=_TREND)}
    report["trend"] = _plain(trend(recent, today=running), "p")
    ahead = forecast(days, 1, today=running)
    after = next(iter(ahead.days.items()), None)
    report["forecast"] = {
        "day": running.isoformat(),
        **({"expected": None} if after is None else _plain_range(after[1])),
        "history": ahead.history,
        "basis": ahead.basis,
    }
    elapsed = 1.0 if over else (now - today.start) / (today.end - today.start)
    month = project_month(days, this_day, elapsed)
    bounds = {} if month.range is None else _plain_range(month.range)
    report["projection"] = {
        "month": month.month,
        "spent": month.spent,
        **bounds,
        "expected": month.expected,
        "confidence": month.confidence,
        "basis": month.basis,
    }
    report["anomalies"] = _anomalies(report, figures, days, start, end, this_day, zone, over)
    found = figures.sums(start, end, ("provider", "model", "task"))
    work = (
        Work(
            provider, model, task, sums.calls, max(0, sums.calls - sums.failed - sums.aborted), sums.cost,
            sums.wasted, sums.input_tokens, sums.cache_read_tokens, sums.output_tokens,
        )
        for (provider, model, task), sums in found.items()
    )  # fmt: skip
    report["efficiency"] = [_plain(one) for one in efficiency(work)]


def advise_on(
    report: dict[str, Any],
    figures: Figures,
    end: int,
    *,
    book: PriceBook,
    candidates: Sequence[str] = (),
    unhurried: Sequence[str] = (),
) -> None:
    """Add `advice`, of the thirty days before `end`, what of it together saves a month, and what earlier one has saved.

    `candidates` are models that are good enough, `unhurried` tasks whose answers nobody waits for.
    """
    known = figures.known()
    start = max(end - 30 * _DAY, known[0] if known else end)
    given = advise(figures.engine, start, end, book=book, candidates=candidates, unhurried=unhurried)
    report["advice"] = [one.as_dict() for one in given]
    report["advice_saves"] = together(given)
    report["advice_taken"] = [
        {"id": row["id"], "title": row["title"], "taken": row["taken"], **_plain(saved_by(figures.engine, row, end))}
        for row in figures.advice_taken()
    ]


def _anomalies(
    report: dict[str, Any],
    figures: Figures,
    days: dict[date, int],
    start: int,
    end: int,
    this_day: date,
    zone: str,
    over: bool,
) -> dict[str, Any]:
    """Days of the report that lie far from others of their kind; of a day, its hours."""
    clock = zone_of(zone)
    if report["report"] == "day":
        last = min(end, int(datetime.now(UTC).timestamp())) // HOUR * HOUR if not over else end // HOUR * HOUR
        first = last - 56 * _DAY
        known = figures.known()
        first = max(first, known[0] if known else last)
        spent = figures.by_hour(first, last)
        points = {
            datetime.fromtimestamp(second, clock): spent[second].cost if second in spent else 0
            for second in range(first // HOUR * HOUR, last, HOUR)
        }
        said = anomalies(points)
        inside = [one for one in said.found if isinstance(one.at, datetime) and start <= one.at.timestamp() < end]
    else:
        said = anomalies({day: cost for day, cost in days.items() if over or day < this_day})
        lowest = datetime.fromtimestamp(start, clock).date()
        inside = [one for one in said.found if one.at >= lowest]
    return {"found": [_plain(one) for one in inside], "compared": said.points, "reason": said.reason}


def _plain(value: Any, *without: str) -> dict[str, Any]:
    """A dataclass as JSON has it, but for its Decimals."""
    from dataclasses import asdict

    return {key: _said(item) for key, item in asdict(value).items() if key not in without}


def _said(item: Any) -> Any:
    if isinstance(item, Decimal):
        return round(item, 12)
    return item.isoformat() if isinstance(item, date) else item


def _plain_range(found: Any) -> dict[str, Decimal]:
    return {name: round(value, 12) for name, value in found._asdict().items()}
