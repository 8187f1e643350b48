"""What a series of costs says: its trend, what comes next, what is unusual, and who does most for the money.

Pure functions over plain data. Amounts go in as integer picodollars and come out as `Decimal` USD; what a series is too
short for is None, and ``reason`` says so. How each figure is made, and what it assumes, is in docs/analysis.md.

A series is a mapping of date to picodollars, as ledgers have it: a day between others that is not listed is one on
which nothing was spent, and None one of which nothing is known.
"""

from __future__ import annotations

import calendar
import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import product
from operator import itemgetter
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

try:
    import numpy as np
except ModuleNotFoundError:  # pragma: no cover
    raise ModuleNotFoundError("analysis needs the extra report: pip install 'costspan[report]'") from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_USD: Final = 10**12
_LOOKS_BACK: Final = 120
"""Days of the past that a forecast learns from: what was before says little of now."""


def _usd(pico: float) -> Decimal:
    return Decimal(round(pico)).scaleb(-12)


def _whole_days(days: Mapping[date, int | None], today: date | None) -> tuple[list[date], Floats]:
    """The days that are over and known, in order, and their amounts in USD: floats, since nothing is added up here."""
    listed = sorted(day for day in days if today is None or day < today)
    if not listed:
        return [], np.empty(0)
    span = (listed[-1] - listed[0]).days + 1 if today is None else (today - listed[0]).days
    every = [listed[0] + timedelta(days=number) for number in range(span)]
    known = [day for day in every if days.get(day, 0) is not None]
    return known, np.array([(days.get(day) or 0) / _USD for day in known])


# ------------------------------------------------------------------ trend


@dataclass(frozen=True)
class Trend:
    """Where a series is going. ``slope`` is USD per day and day; ``low`` and ``high`` hold it with 95 % confidence.

    ``direction`` is flat where the days prove neither a rise nor a fall, and unknown where there are too few of them.
    ``strength`` is Kendall's tau without its sign: 0 for no order in the days, 1 where each is above (below) the one
    before. ``p`` is how often days without any trend would look like this or more so.
    """

    direction: Literal["rising", "falling", "flat", "unknown"]
    days: int
    """Days that it rests on."""
    slope: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    strength: float | None = None
    p: float | None = None
    weekdays: bool = False
    """Whether each day was compared with the same weekdays alone."""
    reason: str | None = None
    """Why there is no figure."""


TREND_DAYS: Final = 14
"""The fewest days that a trend is read from: in less, a weekend at one end would be one."""


def trend(days: Mapping[date, int | None], *, today: date | None = None) -> Trend:
    """The trend of daily costs: the slope of Theil and Sen; by Mann's and Kendall's test at 5 %, whether there is one.

    Mondays are compared with Mondays alone, and so on (the seasonal test of Hirsch and Slack), so that no weekday makes
    a trend; where some weekday is known once or never, any day with any other. Where days follow the ones before them,
    as costs do, the test and the interval allow for it (lag-1 autocorrelation). ``today`` is the day that is still
    running: it is left out.

    >>> from datetime import date
    >>> trend({date(2026, 11, day): day * 10**12 for day in range(1, 15)}).direction
    'rising'
    """
    known, amounts = _whole_days(days, today)
    count = len(known)
    if count < TREND_DAYS:
        return Trend("unknown", count, reason=f"{_counted(count)}; a trend needs {TREND_DAYS}")
    if np.ptp(amounts) == 0:
        return Trend("flat", count, Decimal(0), Decimal(0), Decimal(0), 0.0, 1.0)
    at = np.array([(day - known[0]).days for day in known], float)
    by_weekday = _sees_weekdays(known)
    weekdays = np.array([day.weekday() if by_weekday else 0 for day in known])
    slopes, order, variance = [], 0, 0.0
    for weekday in np.unique(weekdays):
        when, what = at[weekdays == weekday], amounts[weekdays == weekday]
        early, late = np.triu_indices(len(when), 1)
        slopes.append((what[late] - what[early]) / (when[late] - when[early]))
        order += int(np.sign(slopes[-1]).sum())
        variance += _variance_of_order(what)
    pairs = np.sort(np.concatenate(slopes))
    slope = float(np.median(pairs))
    rest = amounts - slope * at
    for weekday in np.unique(weekdays):
        rest[weekdays == weekday] -= np.median(rest[weekdays == weekday])
    spread = math.sqrt(variance * _inflation(rest))
    p = 2 * NormalDist().cdf(-max(0, abs(order) - 1) / spread) if spread else 1.0
    # Of so many slopes in order, the bounds are as far from the middle as the test allows the order to be.
    reach = NormalDist().inv_cdf(0.975) * spread
    first, last = math.floor((len(pairs) - reach) / 2) - 1, math.ceil((len(pairs) + reach) / 2)
    low, high = pairs[max(0, first)], pairs[min(len(pairs) - 1, last)]
    direction: Literal["rising", "falling", "flat"] = "flat" if p >= 0.05 else "rising" if order > 0 else "falling"
    usd = [_usd(float(figure) * _USD) for figure in (slope, low, high)]
    return Trend(direction, count, usd[0], usd[1], usd[2], abs(order) / len(pairs), p, by_weekday)


def _variance_of_order(amounts: Floats) -> float:
    """Of Kendall's S where there is no trend, with the correction for days that cost the same."""

    def part(count: int) -> int:
        return count * (count - 1) * (2 * count + 5)

    ties = np.unique(amounts, return_counts=True)[1]
    return (part(len(amounts)) - sum(part(int(count)) for count in ties)) / 18


def _inflation(rest: Floats) -> float:
    """By how much the variance of a mean grows since days follow those before them; 1 where that is not proven."""
    rest = rest - np.median(rest)
    spread = float(rest @ rest)
    rho = float(rest[1:] @ rest[:-1]) / spread if spread > 0 else 0.0
    return 1.0 if rho < 1.645 / math.sqrt(len(rest)) else (1 + min(rho, 0.9)) / (1 - min(rho, 0.9))


def _sees_weekdays(known: Sequence[date]) -> bool:
    seen = [0] * 7
    for day in known:
        seen[day.weekday()] += 1
    return len(known) >= 14 and min(seen) >= 2


def _counted(days: int) -> str:
    return "only 1 day is known" if days == 1 else f"only {days} days are known"


# ------------------------------------------------------------------ forecast


class Range(NamedTuple):
    """USD: what is expected (more is as likely as less), and between what it lies in 80 and in 95 of 100 cases."""

    expected: Decimal
    low_80: Decimal
    high_80: Decimal
    low_95: Decimal
    high_95: Decimal


@dataclass(frozen=True)
class Forecast:
    """Days to come, and their sum. The sum has bounds of its own: days seldom are all high or all low at once."""

    days: Mapping[date, Range]
    total: Range | None
    history: int
    """Days that it rests on."""
    basis: str
    """How it was made, in words; and if there is no figure, why."""


FORECAST_DAYS: Final = 4
"""The fewest days that a forecast is made from."""

_DRAWS: Final = 4_000
_MEMORIES: Final = {0.0: 3.0, 0.05: 1.0, 0.1: 1.0, 0.2: 1.0, 0.35: 0.7, 0.5: 0.5, 0.75: 0.35, 1.0: 0.25}
"""How much of a day's surprise stays: 0 where days vary about a level, 1 where each starts from the one before. And how
much each is believed before the days speak, by which short histories go: set so that the bounds hold as often as they
say (tests/insight/test_analysis.py)."""


def forecast(days: Mapping[date, int | None], horizon: int, *, today: date | None = None) -> Forecast:
    """What the ``horizon`` days after the last one listed will cost; with ``today``, those from today on.

    A level that moves with the days (exponential smoothing), with effects of weekday, of the first and the last day of
    months and of a drift where the days show them, on the scale (as it is, square root, logarithm) on which they vary
    evenly. What the days leave open is not chosen but mixed, each by how well it foretold them; the bounds come from
    simulated futures of that mixture. Fewer than 14 days: no weekdays; fewer than 4: no forecast.

    Raises ``ValueError`` for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon must be 1 day or more, not {horizon!r}")
    known, amounts = _whole_days(days, today)
    if reason := _too_little(known, amounts):
        return Forecast({}, None, len(known), reason)
    start = today or known[-1] + timedelta(days=1)
    ahead = [start + timedelta(days=number) for number in range(horizon)]
    paths, basis = _futures(known, amounts, ahead)
    ranges = {day: _range(paths[:, number]) for number, day in enumerate(ahead)}
    return Forecast(ranges, _range(paths.sum(axis=1)), min(len(known), _LOOKS_BACK), basis)


def _too_little(known: Sequence[date], amounts: Floats) -> str:
    if len(known) < FORECAST_DAYS:
        return f"{_counted(len(known))}; a forecast needs {FORECAST_DAYS}"
    return "" if amounts.any() else f"nothing was spent on the {len(known)} days that are known"


def _range(draws: Floats) -> Range:
    low_95, low_80, expected, high_80, high_95 = np.quantile(draws, (0.025, 0.1, 0.5, 0.9, 0.975))
    return Range(*(_usd(float(figure) * _USD) for figure in (expected, low_80, high_80, low_95, high_95)))


class _Fit(NamedTuple):
    """One model's view of the past, ready to draw futures from."""

    weight: float
    scale: str
    memory: float
    columns: list[int]
    theta: Floats
    covariance: Floats
    """Of theta, in units of the error's variance."""
    squares: float
    freedom: int


def _futures(known: list[date], amounts: Floats, ahead: Sequence[date]) -> tuple[Floats, str]:
    """Simulated amounts of the days ahead, one row a future, and how they were made."""
    known, amounts = known[-_LOOKS_BACK:], amounts[-_LOOKS_BACK:]
    count, unit = len(known), float(np.mean(amounts[amounts > 0]))
    amounts = amounts / unit
    blocks = _blocks(known)
    columns = np.hstack([_columns(name, known, known[0]) for name in blocks]) if blocks else np.empty((count, 0))
    future = np.hstack([_columns(name, ahead, known[0]) for name in blocks]) if blocks else np.empty((len(ahead), 0))
    fits = _fits(amounts, columns, blocks)
    best = max(fit.weight for fit in fits)
    fits = [fit for fit in fits if fit.weight > best * 1e-3]
    # The same series has the same forecast.
    random = np.random.default_rng(count)
    shares = np.array([fit.weight for fit in fits])
    parts = random.multinomial(_DRAWS, shares / shares.sum())
    drawn = [
        _draw(fit, int(part), amounts, columns, future, random) for fit, part in zip(fits, parts, strict=True) if part
    ]
    total = shares.sum()
    seen = [
        word
        for word, of in (
            ("weekdays", ("weekday", "weekend")),
            ("a drift", ("drift",)),
            ("month ends", ("first", "last")),
        )
        if sum(fit.weight for fit in fits if _has(fit, blocks, of)) > total / 2
    ]
    what = f"{count} days" + (f", with {' and '.join(seen)}" if seen else "")
    how = f"a level that moves with the days, bounds from {_DRAWS:,} simulated futures"
    unseen = "" if count >= 7 else "; less than a week is known, so a weekend that differs is not foreseen"
    return np.vstack(drawn) * unit, f"{what}; {how}{unseen}"


def _blocks(known: Sequence[date]) -> dict[str, list[int]]:
    """The effects that so many days can tell of, each with the columns that it takes."""
    names = []
    if _sees_weekdays(known):
        names += ["weekend", "weekday"]
    if len(known) >= 14:
        names += ["drift"]
    names += [name for name in ("first", "last") if _columns(name, known, known[0]).sum() >= 2]
    blocks, start = {}, 0
    for name in names:
        width = 6 if name == "weekday" else 1
        blocks[name] = list(range(start, start + width))
        start += width
    return blocks


def _columns(name: str, days: Sequence[date], origin: date) -> Floats:
    if name == "weekday":  # six that sum to zero over a week: the level has the seventh
        return np.array([[(day.weekday() == n) - (day.weekday() == 6) for n in range(6)] for day in days], float)
    if name == "drift":
        return np.array([[(day - origin).days / 30] for day in days], float)
    if name == "weekend":
        return np.array([[day.weekday() >= 5] for day in days], float)
    return np.array([[(day if name == "first" else day + timedelta(days=1)).day == 1] for day in days], float)


def _has(fit: _Fit, blocks: Mapping[str, list[int]], names: Iterable[str]) -> bool:
    return any(name in blocks and blocks[name][-1] in fit.columns for name in names)


def _fits(amounts: Floats, columns: Floats, blocks: Mapping[str, list[int]]) -> list[_Fit]:
    """Every model with the weight that the days give it.

    Errors of one step, y[t] - level[t-1] - x[t] b, are linear in the first level and in b once the memory is fixed, so
    each model is a regression. A flat prior on level and variance, Zellner's with g = n on the effects.
    """
    count = len(amounts)
    optional = [[[], blocks["weekend"], blocks["weekday"]]] if "weekday" in blocks else []
    optional += [[[], blocks[name]] for name in ("drift", "first", "last") if name in blocks]
    sets = [[column for part in chosen for column in part] for chosen in product(*optional)]
    scaled = _scales(amounts)
    found: list[tuple[float, _Fit]] = []
    for memory, believed in _MEMORIES.items():
        filtering, first = _filter(count, memory)
        design = np.column_stack([first, filtering @ columns])
        gram = design.T @ design
        seen = {scale: filtering @ values for scale, (values, _) in scaled.items()}
        for chosen in sets:
            index = [0, *(column + 1 for column in chosen)]
            freedom = count - len(index)
            if freedom < 2:
                continue
            try:
                inverse = np.linalg.inv(gram[np.ix_(index, index)])
            except np.linalg.LinAlgError:
                continue
            believing = (
                math.log(believed) - 0.5 * math.log(gram[0, 0]) - 0.5 * len(chosen) * math.log(1 + count)
            )  # fmt: skip
            for scale, (values, jacobian) in scaled.items():
                answer = design[:, index].T @ seen[scale]
                squared, floor = float(seen[scale] @ seen[scale]), 1e-8 * max(1.0, float(values @ values))
                theta = inverse @ answer
                squares = max(floor, squared - float(theta @ answer))
                alone = max(floor, squared - float(answer[0]) ** 2 / gram[0, 0])
                shrunk = alone - count / (1 + count) * (alone - squares)
                evidence = believing + jacobian - 0.5 * (count - 1) * math.log(shrunk)
                found.append((evidence, _Fit(0, scale, memory, chosen, theta, inverse, squares, freedom)))
    best = max(evidence for evidence, _ in found)
    return [fit._replace(weight=math.exp(evidence - best)) for evidence, fit in found]


def _scales(amounts: Floats) -> dict[str, tuple[Floats, float]]:
    """The amounts on each scale that can hold them, and the logarithm of the scale's Jacobian."""
    if (amounts <= 0).any():
        return {"root": (np.sqrt(np.maximum(amounts, 0)), 0.0)}
    logs = np.log(amounts)
    scales = {"plain": (amounts, 0.0), "root": (np.sqrt(amounts), float((-0.5 * logs - math.log(2)).sum()))}
    if len(amounts) >= 14:
        scales["log"] = (logs, -float(logs.sum()))
    return scales


def _filter(count: int, memory: float) -> tuple[Floats, Floats]:
    """What makes one-step errors of a series, and how they answer to the first level."""
    steps = np.arange(count)
    first = (1.0 - memory) ** steps
    lag = steps[:, None] - steps[None, :] - 1
    passed = np.where(lag >= 0, memory * (1.0 - memory) ** np.maximum(lag, 0), 0.0)
    return np.eye(count) - passed, first


def _draw(
    fit: _Fit, draws: int, amounts: Floats, columns: Floats, future: Floats, random: np.random.Generator
) -> Floats:
    values = _scales(amounts)[fit.scale][0]
    sigma = np.sqrt(fit.squares / random.chisquare(fit.freedom, draws))[:, None]
    # By the symmetric root: a covariance that is nearly singular has one too.
    sizes, axes = np.linalg.eigh(fit.covariance)
    root = axes * np.sqrt(np.maximum(sizes, 0))
    theta = fit.theta + sigma * (random.standard_normal((draws, len(fit.theta))) @ root.T)
    count = len(values)
    weights = fit.memory * (1.0 - fit.memory) ** np.arange(count - 1, -1, -1)
    level = weights @ values + theta @ np.array([(1.0 - fit.memory) ** count, *(-weights @ columns[:, fit.columns])])
    errors = sigma * random.standard_normal((draws, len(future)))
    before = np.cumsum(errors, axis=1) - errors
    values = level[:, None] + fit.memory * before + theta[:, 1:] @ future[:, fit.columns].T + errors
    if fit.scale == "log":
        return np.asarray(np.exp(np.minimum(values, 20)))
    return np.asarray(np.maximum(values, 0) ** (2 if fit.scale == "root" else 1))


# ------------------------------------------------------------------ the month


@dataclass(frozen=True)
class MonthEnd:
    """What a calendar month will have cost at its end, in USD."""

    month: str
    """Such as 2026-11."""
    spent: Decimal
    """Of the month so far, exact."""
    expected: Decimal | None
    """At the month's end; None where nothing can be said."""
    range: Range | None
    """The same with its bounds; None where there are none."""
    confidence: Literal["certain", "high", "medium", "low", "none"]
    """By how far the bounds of 80 % lie from what is expected: within 10 %, within 30 %, further; none: no bounds."""
    history: int
    basis: str


def project_month(days: Mapping[date, int | None], today: date, elapsed: float, month: date | None = None) -> MonthEnd:
    """The total of a month: what was spent of it, the rest of today, and a forecast of its other days.

    ``days`` may hold what was spent today so far; ``elapsed`` is how much of today is over, 0 to 1. The rest of today
    is that share of a whole day like it. ``month`` is any day of the month meant, by default today's. From 1 to 3 days
    a month is expected to go on at their mean, and there are no bounds.

    Raises ``ValueError`` for an ``elapsed`` that is no share, and for a month that has not begun.
    """
    if not 0 <= elapsed <= 1:
        raise ValueError(f"elapsed must be a share of the day, 0 to 1, not {elapsed!r}")
    first = (month or today).replace(day=1)
    last = first.replace(day=calendar.monthrange(first.year, first.month)[1])
    if first > today:
        raise ValueError(f"{first:%Y-%m} has not begun: today is {today}")
    name = f"{first:%Y-%m}"
    pico = sum(days.get(first + timedelta(days=number)) or 0 for number in range((min(last, today) - first).days + 1))
    spent = _usd(pico)
    if last < today:
        return MonthEnd(name, spent, spent, Range(*[spent] * 5), "certain", 0, "the month is over")
    known, amounts = _whole_days(days, today)
    ahead = [today + timedelta(days=number) for number in range((last - today).days + 1)]
    if reason := _too_little(known, amounts):
        return _from_a_few(name, spent, list(amounts), days.get(today), elapsed, len(ahead), reason)
    paths, basis = _futures(known, amounts, ahead)
    paths[:, 0] *= 1 - elapsed
    rest = _range(paths.sum(axis=1))
    total = Range(*(spent + figure for figure in rest))
    middle = float(total.expected)
    wide = max(float(total.high_80) - middle, middle - float(total.low_80)) / middle if middle else math.inf
    confidence: Literal["high", "medium", "low"] = "high" if wide <= 0.1 else "medium" if wide <= 0.3 else "low"
    return MonthEnd(name, spent, total.expected, total, confidence, min(len(known), _LOOKS_BACK), basis)


def _from_a_few(
    name: str, spent: Decimal, amounts: list[float], today: int | None, elapsed: float, ahead: int, reason: str
) -> MonthEnd:
    """A figure without bounds, from days too few to see how they vary; from today alone, if there is no other."""
    if not amounts and today and elapsed >= 0.25:
        mean, history, of = today / _USD / elapsed, 1, "today so far"
    elif any(amounts):
        mean, history, of = sum(amounts) / len(amounts), len(amounts), "the days that are known"
    else:
        return MonthEnd(name, spent, None, None, "none", len(amounts), reason)
    expected = spent + _usd(mean * (ahead - elapsed) * _USD)
    basis = f"{reason}; the month goes on at the mean of {of}, and has no bounds"
    return MonthEnd(name, spent, expected, None, "none", history, basis)


# ------------------------------------------------------------------ anomalies


Instant = date | datetime


@dataclass(frozen=True)
class Anomaly:
    """A point that lies far from what is usual of its weekday or hour. Amounts in USD."""

    at: Instant
    amount: Decimal
    expected: Decimal
    """The median of the points that it is compared with, on their scale."""
    excess: Decimal
    """The amount less what was expected: negative where too little was spent."""
    ratio: float | None
    """The amount to what was expected; None where nothing was."""
    score: float
    """How many robust standard deviations it lies off, without sign."""
    direction: Literal["above", "below"]


@dataclass(frozen=True)
class Anomalies:
    """What was found among so many ``points``, the latest last; ``reason`` says why nothing could be looked for."""

    found: tuple[Anomaly, ...]
    points: int
    season: Literal["weekday", "weekend", "none"]
    """What points are compared by: the day of the week, or only workday and weekend; hours always by the hour too."""
    reason: str | None = None


ANOMALY_DAYS: Final = 14
"""The fewest days that tell what is usual."""

_UNUSUAL: Final = 4.5
"""Robust standard deviations. Iglewicz and Hoaglin take 3.5 for normal data; costs have longer tails."""
_NEAR: Final = 28
"""Days before and after a point that it is compared with: what was usual in spring is not in autumn."""
_MOST_EVEN: Final = 0.05
"""The least spread that is believed, as a share: of costs that are the same each day, a cent more is no alarm."""


def anomalies(points: Mapping[date, int | None] | Mapping[datetime, int | None]) -> Anomalies:
    """Days, or hours, whose cost is far from that of others of their kind: spikes and gaps.

    Each is compared with the median of the others of its weekday (and hour), 28 days around it; with less than 28 days
    known, of the other workdays or days of the weekend. How far is too far comes from all points: 4.5 times the median
    absolute deviation x 1.4826, on the scale (square root or logarithm) on which high and low levels vary alike.

    Unlike elsewhere, a point that is not listed is not known: list quiet hours with 0.
    """
    known = sorted(((_day(at), at, amount) for at, amount in points.items() if amount is not None), key=itemgetter(0))
    span = int(known[-1][0]) - int(known[0][0]) + 1 if known else 0
    if span < ANOMALY_DAYS:
        reason = f"{_counted(span)}; what is usual shows from {ANOMALY_DAYS} on"
        return Anomalies((), len(known), "none", reason)
    season: Literal["weekday", "weekend"] = "weekday" if span >= _NEAR else "weekend"
    at = np.array([day for day, _, _ in known])
    amounts = np.array([amount / _USD for _, _, amount in known])
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (_, instant, _) in enumerate(known):
        day = instant.weekday() if season == "weekday" else int(instant.weekday() >= 5)
        groups[day, instant.hour if isinstance(instant, datetime) else 0].append(number)
    best: tuple[float, Floats, Floats, Any] | None = None
    scales: list[tuple[Any, Any]] = [(np.sqrt, np.square)]
    if (amounts > 0).all():
        scales.append((np.log, np.exp))
    for there, back in scales:
        values = there(amounts)
        usual = _usual(at, values, list(groups.values()))
        slant = _slant(usual, np.abs(values - usual))
        if best is None or slant < best[0]:
            best = slant, values, usual, back
    assert best is not None
    _, values, usual, back = best
    rest = values - usual
    # Where nothing is usual, nothing says little of how points vary.
    busy = (usual != 0) | (values != 0) if back is np.square else np.isfinite(values)
    level = 1.0 if back is np.exp else float(np.median(values[busy])) / 2 if busy.any() else 0.0
    spread = max(1.4826 * _median(np.abs(rest[busy])), _MOST_EVEN * level, 1e-9)
    found = []
    for number in map(int, np.flatnonzero(np.abs(rest) > _UNUSUAL * spread)):
        _, instant, pico = known[number]
        expected = float(back(usual[number])) * _USD
        found.append(
            Anomaly(
                instant,
                _usd(pico),
                _usd(expected),
                _usd(pico - expected),
                pico / expected if expected else None,
                abs(float(rest[number])) / spread,
                "above" if rest[number] > 0 else "below",
            )
        )
    return Anomalies(tuple(found), len(known), season)


def _day(at: Instant) -> float:
    return at.toordinal() + (at.hour / 24 if isinstance(at, datetime) else 0)


def _usual(at: Floats, values: Floats, groups: Sequence[Sequence[int]]) -> Floats:
    """Of each point the median of the others in its group that are near; NaN where there are not three of them."""
    usual = np.full(len(values), np.nan)
    for group in groups:
        index = np.array(group)
        days, there = at[index], values[index]
        for place, number in enumerate(index):
            near = np.abs(days - days[place]) <= _NEAR
            near[place] = False
            if near.sum() >= 3:
                usual[number] = np.median(there[near])
    return usual


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0


def _slant(level: Floats, far: Floats) -> float:
    """How much the spread depends on the level: the correlation of their ranks, without its sign."""
    there = ~np.isnan(level)
    if there.sum() < 3 or np.ptp(level[there]) == 0:
        return 0.0
    ranks = np.array([np.argsort(np.argsort(what[there])) for what in (level, far)], float)
    return abs(float(np.corrcoef(ranks)[0, 1]))


# ------------------------------------------------------------------ efficiency


class Work(NamedTuple):
    """What calls of one provider's model did for one task: a line of `efficiency`. Costs in picodollars.

    Tokens as providers count them: input contains those read from the cache. ``wasted`` is what calls cost that failed
    or were broken off, ``completed`` how many were neither.
    """

    provider: str
    model: str
    task: str
    calls: int
    completed: int
    cost: int
    wasted: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Efficiency:
    """How much one does for the money, 0 to 100, and what it is made of. None where too little is known."""

    provider: str
    model: str | None
    """None: all models of the provider."""
    score: float | None
    price: float | None
    """0 to 1: what the cheapest who does the same tasks takes for a completed call, to what this one takes."""
    cache: float | None
    """0 to 1: the share of the input that was read from a cache; None where prompts are too short for one."""
    kept: float | None
    """0 to 1: the share of the cost that was not wasted."""
    cost_per_1k_output: Decimal | None
    """USD; told, and not part of the score: it falls with each word too many."""
    calls: int
    reason: str | None = None


EFFICIENCY_CALLS: Final = 20
"""The fewest calls that a score rests on, of a model as a whole and for a task in which it is compared."""
_CACHEABLE: Final = 1_024
"""Tokens below which no prompt is cached: the least of the limits that OpenAI and Anthropic give in their guides."""
_WEIGHTS: Final = {"price": 0.5, "kept": 0.3, "cache": 0.2}


def efficiency(lines: Iterable[Work]) -> list[Efficiency]:
    """The scores of each provider and model, the best first, those without one last.

    score = 100 x (0.5 price + 0.3 kept + 0.2 cache), over the parts that are there, their weights made to sum to 1.
    A score needs 20 calls, and a price or a cache part: not to waste is nothing to be praised for alone. The price part
    is weighted by cost over the tasks that another model does too.
    """
    given = list(lines)
    cheapest: dict[str, list[float]] = defaultdict(list)
    for line in given:
        if line.task and line.completed >= EFFICIENCY_CALLS and line.cost > 0:
            cheapest[line.task].append(line.cost / line.completed)
    by_model: dict[tuple[str, str | None], list[Work]] = defaultdict(list)
    for line in given:
        by_model[line.provider, line.model].append(line)
        by_model[line.provider, None].append(line)
    scored = [_score(provider, model, own, cheapest) for (provider, model), own in by_model.items()]
    return sorted(scored, key=lambda one: (one.score is None, -(one.score or 0), one.provider, one.model or ""))


def _score(
    provider: str, model: str | None, lines: Sequence[Work], cheapest: Mapping[str, Sequence[float]]
) -> Efficiency:
    calls, cost = sum(line.calls for line in lines), sum(line.cost for line in lines)
    sent, answered = sum(line.input_tokens for line in lines), sum(line.output_tokens for line in lines)
    read = sum(line.cache_read_tokens for line in lines)
    compared = [
        line
        for line in lines
        if line.cost > 0 and line.completed >= EFFICIENCY_CALLS and len(cheapest.get(line.task, ())) > 1
    ]
    parts: dict[str, float | None] = {"price": None, "kept": None, "cache": None}
    if compared:
        best = sum(min(cheapest[line.task]) * line.completed for line in compared)
        parts["price"] = best / sum(line.cost for line in compared)
    if cost:
        parts["kept"] = 1 - sum(line.wasted for line in lines) / cost
    if sent and (read or sent / max(calls, 1) >= _CACHEABLE):
        parts["cache"] = read / sent
    reason = None
    if calls < EFFICIENCY_CALLS:
        reason = f"only {calls} calls; a score needs {EFFICIENCY_CALLS}"
    elif not cost:
        reason = "its calls have no cost"
    elif parts["price"] is None and parts["cache"] is None:
        reason = "no other model does its tasks, and its prompts are too short for a cache"
    there = {name: part for name, part in parts.items() if part is not None}
    score = None
    if reason is None:
        score = 100 * sum(_WEIGHTS[name] * part for name, part in there.items()) / sum(_WEIGHTS[name] for name in there)
    per_1k = _usd(cost * 1_000 / answered) if answered and cost else None
    return Efficiency(provider, model, score, parts["price"], parts["cache"], parts["kept"], per_1k, calls, reason)
