"""What advice that was followed has saved: the same work before and after, from the calls that were made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select

from costspan.insight.figures import HOUR, Figures
from costspan_processor.ledger.schema import calls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

BEFORE: Final = 28
"""Days before the advice was taken that the ones after are compared with."""
LEAST_DAYS: Final = 4
"""Days with calls that are needed on either side."""
LEAST_UNITS: Final = 20
_DAY: Final = 24
_NS: Final = 10**9


@dataclass(frozen=True)
class Saved:
    """USD that an advice has saved since it was taken; negative where the work has become dearer.

    ``low`` and ``high`` hold it with 80 % confidence, by how days differ. ``before`` and ``after`` are USD for one
    ``unit`` of the work. Without figures, ``reason`` says why.
    """

    usd: Decimal | None
    low: Decimal | None
    high: Decimal | None
    before: Decimal | None
    after: Decimal | None
    unit: str
    units: int
    """Since the advice was taken."""
    scope: Mapping[str, str]
    """Whose calls were compared."""
    reason: str | None = None


class _Side(NamedTuple):
    """The days of one side: what each cost in USD, and how much work it was."""

    costs: list[float]
    units: list[int]

    @property
    def price(self) -> float:
        return sum(self.costs) / sum(self.units)

    @property
    def variance(self) -> float:
        """Of the price, by how far days lie from it (a ratio of sums, linearised)."""
        rest = [cost - self.price * units for cost, units in zip(self.costs, self.units, strict=True)]
        count = len(rest)
        return sum(one * one for one in rest) * count / (count - 1) / sum(self.units) ** 2


def saved_by(engine: Engine, row: Mapping[str, Any], until: int) -> Saved:
    """What the advice of a row of the table `advice` has saved from when it was taken ``until`` now (unix seconds).

    Cost for a completed call before (28 days at most) and after, times the calls after; for a response cache, for a
    different prompt, since its calls are no longer made. Compared are the calls of the task if the advice has one,
    whatever their model: that it changed is what the advice did. What else changed then, prices among it, is in the
    figure too.
    """
    subject = json.loads(row["advice"])["subject"]
    scope = _scope(row["category"], subject)
    unit = "different prompt a day" if row["category"] == "response_cache" else "completed call"
    if row["category"] == "cost_per_user" or not subject:
        return _unknown("a notice saves nothing by itself", unit, scope)
    if row["taken"] is None:
        return _unknown("nobody said that it has been taken", unit, scope)
    # The hour in which it was taken belongs to neither side.
    last, first, end = row["taken"] // HOUR, -(-row["taken"] // HOUR), until // HOUR
    read = _by_prompts if row["category"] == "response_cache" else _by_calls
    before = read(engine, last - BEFORE * _DAY, last, scope)
    after = read(engine, first, first + (end - first) // _DAY * _DAY, scope)
    for side, when in ((before, "before"), (after, "after")):
        if len(side.units) < LEAST_DAYS or sum(side.units) < LEAST_UNITS:
            what = f"{len(side.units)} days with {sum(side.units)} {unit}s {when} it was taken"
            return _unknown(f"{what}; {LEAST_DAYS} days and {LEAST_UNITS} are needed", unit, scope)
    units = sum(after.units)
    saved = (before.price - after.price) * units
    freedom = min(len(before.units), len(after.units)) - 1
    z = NormalDist().inv_cdf(0.9)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    reach = t * math.sqrt(before.variance + after.variance) * units
    prices = [_decimal(side.price, "0.00000001") for side in (before, after)]
    bounds = [_decimal(saved - reach), _decimal(saved + reach)]
    return Saved(_decimal(saved), bounds[0], bounds[1], prices[0], prices[1], unit, units, scope)


def _scope(category: str, subject: Mapping[str, str]) -> dict[str, str]:
    if "task" in subject:
        return {"task": subject["task"]}
    names = {"cheaper_model": ("provider",), "provider": ()}.get(category, ("provider", "model"))
    return {name: subject[name] for name in names if name in subject}


def _by_calls(engine: Engine, first: int, end: int, scope: Mapping[str, str]) -> _Side:
    by_day: dict[int, tuple[float, int]] = {}
    for (hour,), sums in Figures(engine).sums(first * HOUR, end * HOUR, ("hour",), scope).items():
        cost, units = by_day.get((int(hour) - first) // _DAY, (0.0, 0))
        completed = sums.calls - sums.failed - sums.aborted
        by_day[(int(hour) - first) // _DAY] = cost + sums.cost / 10**12, units + completed
    return _side(list(by_day.values()))


def _by_prompts(engine: Engine, first: int, end: int, scope: Mapping[str, str]) -> _Side:
    chosen = select(
        ((calls.c.hour - first) // _DAY).label("day"), (calls.c.cost // 10**6).label("micro"), calls.c.prompt
    ).where(
        calls.c.hour >= first, calls.c.hour < end, calls.c.prompt.is_not(None),
        *(calls.c[name] == value for name, value in scope.items()),
    ).subquery()  # fmt: skip
    columns = chosen.c
    query = select(columns.day, func.sum(columns.micro), func.count(columns.prompt.distinct())).group_by(columns.day)
    with engine.connect() as connection:
        found = connection.execute(query).all()
    return _side([(int(micro or 0) / 10**6, int(units)) for _, micro, units in found])


def _side(days: Sequence[tuple[float, int]]) -> _Side:
    active = [day for day in days if day[1] > 0]
    return _Side([cost for cost, _ in active], [units for _, units in active])


def _decimal(value: float, step: str = "0.01") -> Decimal:
    return Decimal(str(value)).quantize(Decimal(step), ROUND_HALF_EVEN)


def _unknown(reason: str, unit: str, scope: Mapping[str, str]) -> Saved:
    return Saved(None, None, None, None, None, unit, 0, scope, reason)
