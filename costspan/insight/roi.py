"""What something brings for what it costs: an advice that takes work, and a feature that is paid for.

What nobody said is not guessed: a figure that needs it is None, and ``reasons`` says what is missing. Amounts in USD;
months are those of `MONTH` days.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Final

from costspan.insight.advice.model import MONTH
from costspan.insight.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costspan.insight.advice.model import Advice
    from costspan.insight.figures import Sums

_YEAR: Final = 12
_DAY: Final = 86_400


@dataclass(frozen=True)
class Payback:
    """When an advice has paid for its work. Months are rounded to a tenth."""

    effort: Decimal | None
    months: Decimal | None
    """Until the savings have made up for the effort."""
    months_low: Decimal | None
    """The same if it saves as much as it may."""
    months_high: Decimal | None
    """The same if it saves as little; None also if it may save nothing, and so never pays."""
    first_year: Decimal | None
    """What is left of a year's savings after the effort: negative if it does not pay within one."""
    roi: Decimal | None
    """The same as a share of the effort: 2 is 200 %."""
    reasons: Mapping[str, str]
    """Figure -> why it is absent."""


def payback(advice: Advice, effort: Decimal | None) -> Payback:
    """The break-even of an advice for what it costs to follow, once, in USD.

    Raises ``ValueError`` for an effort that is negative.
    """
    if effort is not None and effort < 0:
        raise ValueError(f"effort must be an amount in USD, 0 or more, not {effort}")
    savings, missing = advice.savings, ""
    if savings is None:
        missing = "the advice has no savings: it is a notice"
    elif effort is None:
        missing = "nobody said what it costs to follow it"
    if savings is None or effort is None:
        absent: dict[str, str] = dict.fromkeys(("months", "months_low", "months_high", "first_year", "roi"), missing)
        return Payback(effort, None, None, None, None, None, absent)
    reasons: dict[str, str] = {}
    expected, low, high = (
        _months(effort, saving, name, reasons)
        for name, saving in (
            ("months", savings.expected),
            ("months_high", savings.low),
            ("months_low", savings.high),
        )
    )
    year = savings.expected * _YEAR - effort
    if not effort:
        reasons["roi"] = "it costs nothing to follow, and nothing can be divided by that"
    return Payback(effort, expected, high, low, year, _ratio(year, effort), reasons)


def _months(effort: Decimal, saving: Decimal | None, name: str, reasons: dict[str, str]) -> Decimal | None:
    if saving is None:
        reasons[name] = "too few days are known for bounds of the savings"
    elif saving <= 0:
        reasons[name] = "it may save nothing, and so never pay"
    else:
        return (effort / saving).quantize(Decimal("0.1"), ROUND_CEILING)
    return None


@dataclass(frozen=True)
class Feature:
    """What a feature costs and brings in a month, from its calls and from what was said of it."""

    name: str
    calls: int
    """In the stretch of time that was looked at."""
    cost: Decimal
    """USD a month for its calls."""
    cost_per_user: Decimal | None
    """USD for a user and month."""
    profit: Decimal | None
    """Revenue less the cost of the calls, a month."""
    margin: Decimal | None
    """Profit as a share of the revenue."""
    roi: Decimal | None
    """What is left of the profit after ``months`` once the development is paid, as a share of all that was spent."""
    months: int
    """Over which the ROI is taken."""
    break_even: int | None
    """The month, counted from 1, at whose end profits have paid for the development."""
    reasons: Mapping[str, str]
    """Figure -> why it is absent."""


def feature(
    name: str,
    sums: Sums,
    days: Decimal,
    *,
    revenue: Decimal | None = None,
    users: int | None = None,
    development: Decimal | None = None,
    months: int = _YEAR,
) -> Feature:
    """Margin, break-even and return of a feature.

    sums, days: of its calls, over so many days; `feature_of` reads them from a ledger.
    revenue: USD a month. users: those of a month. development: USD, once. months: over which the return is taken:
        ROI = (profit x months - development) / (cost x months + development).

    Raises ``ValueError`` for a negative amount, and for days or months that are none.
    """
    for what, amount in (("revenue", revenue), ("users", users), ("development", development)):
        if amount is not None and amount < 0:
            raise ValueError(f"{what} must be 0 or more, not {amount}")
    if days <= 0 or months < 1:
        raise ValueError(f"a stretch of {days} days and a return over {months} months make no sense")
    reasons: dict[str, str] = {}
    cost = (sums.usd / days * MONTH).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    if sums.unpriced:
        reasons["cost"] = f"too low by what {sums.unpriced} calls cost that have no price, or not all of it"
    if users is None:
        reasons["cost_per_user"] = "nobody said how many users it has"
    elif not users:
        reasons["cost_per_user"] = "it has no users"
    profit = None if revenue is None else revenue - cost
    if revenue is None:
        reasons |= dict.fromkeys(("profit", "margin", "roi", "break_even"), "nobody said what it brings")
    elif not revenue:
        reasons["margin"] = "it brings nothing"
    roi, break_even = None, None
    if profit is not None and development is None:
        reasons |= dict.fromkeys(("roi", "break_even"), "nobody said what its development cost")
    elif profit is not None and development is not None:
        roi = _ratio(profit * months - development, cost * months + development)
        if roi is None:
            reasons["roi"] = "nothing was spent, and nothing can be divided by that"
        if profit > 0:
            break_even = max(1, int((development / profit).to_integral_value(ROUND_CEILING)))
        else:
            reasons["break_even"] = "its calls cost as much as it brings, or more: it never breaks even"
    return Feature(
        name,
        sums.calls,
        cost,
        _usd(cost / users) if users else None,
        profit,
        _ratio(profit, revenue) if profit is not None and revenue else None,
        roi,
        months,
        break_even,
        reasons,
    )


def feature_of(
    figures: Figures,
    name: str,
    start: int,
    end: int,
    *,
    revenue: Decimal | None = None,
    users: int | None = None,
    development: Decimal | None = None,
    months: int = _YEAR,
) -> Feature:
    """`feature` of the calls that a ledger has of it between ``start`` and ``end`` (unix seconds).

    Days before the ledger's first call are left out: of them nothing is known.
    """
    known = figures.known()
    first = start if known is None else max(start, min(known[0], end - 3_600))
    days = Decimal(end - first) / _DAY
    sums = figures.total(start, end, {"feature": name})
    return feature(name, sums, days, revenue=revenue, users=users, development=development, months=months)


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    return (part / whole).quantize(Decimal("0.0001"), ROUND_HALF_EVEN) if whole else None


def _usd(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
