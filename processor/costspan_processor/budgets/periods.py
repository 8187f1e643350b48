"""Stretches of time that a limit holds for: calendar periods in a time zone, and windows that move along.

A calendar period begins at the first instant at which clocks in its zone show its beginning or something later. So
periods tile whatever the clocks do: a midnight that is skipped is the instant of the jump, one that comes twice counts
when it comes first, and a day that does not exist has no period.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from costspan_pricing.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

CALENDAR: Final = ("hour", "day", "week", "month", "year")
"""The kinds of calendar periods; a week begins on Monday."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}
_LONGEST_WINDOW: Final = 366 * 86400
_BUCKETS: Final = 24


class Period(NamedTuple):
    """A stretch of time that a limit holds for: `start` included, `end` not, in unix seconds."""

    id: str
    start: int
    end: int


def period_at(kind: str, at: float, zone: str = "UTC") -> Period:
    """The calendar period of a kind (`CALENDAR`) that contains `at` (unix seconds), in an IANA time zone.

    Its id is unique among the periods of its kind and zone: `2026`, `2026-11`, `2026-W48` (ISO 8601), `2026-11-28`,
    `2026-11-28T13+01:00`. An hour is one of the clock on the wall, and a shorter one where the clock is changed within.
    Raises ValueError as `check_period` does.

    >>> period_at("day", 1_795_904_000, "America/New_York")
    Period(id='2026-11-28', start=1795842000, end=1795928400)
    """
    clock = zone_of(zone)
    second = math.floor(at)
    if kind == "hour":
        return _hour(second, clock)
    begin = _begin(kind, _shown(second, clock))
    while True:
        following = _next(kind, begin)
        end = _first(following, clock)
        # Clocks that were put back show once more what belongs to the period before.
        if end > second:
            return Period(_id(kind, begin), _first(begin, clock), end)
        begin = following


def is_window(kind: str) -> bool:
    """Whether a kind of period is a window that moves along: a length in minutes, hours or days.

    >>> is_window("90m"), is_window("7d"), is_window("day")
    (True, True, False)
    """
    return _WINDOW.fullmatch(kind) is not None


def window_at(kind: str, at: float) -> tuple[Period, ...]:
    """The stretches that a window looks at, at `at` (unix seconds): the present one, then the older ones.

    There are at most 24, equally long and aligned to the unix epoch. The window looks at its length or at up to one
    stretch more, never at less: money is forgotten up to 5 % of the length late, never early. Raises ValueError as
    `check_period` does.

    >>> [period.id for period in window_at("1h", 1_795_904_000)[:2]]
    ['1h@2026-11-28T22:12:00Z', '1h@2026-11-28T22:09:00Z']
    """
    length = _length(kind)
    # Every length is whole minutes, so that 20 divides it at least.
    older = next(count for count in range(_BUCKETS - 1, 0, -1) if length % count == 0)
    width = length // older
    present = math.floor(at) // width * width
    return tuple(
        Period(f"{kind}@{_utc(start):%Y-%m-%dT%H:%M:%SZ}", start, start + width)
        for start in range(present, present - length - 1, -width)
    )


def check_period(kind: str, zone: str = "UTC") -> None:
    """Raise ValueError, saying what is possible, unless there are periods of this kind in this time zone."""
    if isinstance(kind, str) and is_window(kind):
        _length(kind)
        if zone != "UTC":
            raise ValueError(f"zone is for periods of the calendar: a window such as {kind!r} has none, not {zone!r}")
        return
    if kind not in CALENDAR:
        raise _no_kind(kind)
    zone_of(zone)


def _no_kind(kind: object) -> ValueError:
    return ValueError(f"period must be {', '.join(CALENDAR)} or a window such as '90m', '24h', '30d', not {kind!r}")


def _length(kind: str) -> int:
    """Seconds of a window."""
    found = _WINDOW.fullmatch(kind)
    if found is None:
        raise _no_kind(kind)
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST_WINDOW:
        raise ValueError(f"period must be a window of 366 days at most, not {kind!r}")
    return seconds


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises ValueError, saying what is meant or to be installed."""
    # Needs no time zone data, which some systems do not have.
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    # A folder of the data, such as "America", is an OSError; what is no text at all a TypeError or AttributeError.
    except (KeyError, ValueError, OSError, TypeError, AttributeError):
        known = available_timezones()
    if not known:
        raise ValueError(
            f"zone {name!r} cannot be looked up, since this system has no time zone data: pip install tzdata"
        )
    meant = did_you_mean(name, known)
    raise ValueError(f"zone must be an IANA time zone such as 'UTC' or 'Europe/Berlin', not {name!r}{meant}")


# ---------------------------------------------------------------------- the calendar of the clock on the wall


def _begin(kind: str, shown: datetime) -> datetime:
    """The beginning of the period that a clock is in, as it shows it."""
    day = shown.replace(hour=0, minute=0, second=0)
    if kind == "day":
        return day
    if kind == "week":
        return day - timedelta(days=day.weekday())
    if kind == "month":
        return day.replace(day=1)
    if kind == "year":
        return day.replace(month=1, day=1)
    raise _no_kind(kind)


def _next(kind: str, begin: datetime) -> datetime:
    if kind == "year":
        return begin.replace(year=begin.year + 1)
    if kind == "month":
        # Day 1 and 32 days on is always in the next month.
        return (begin + timedelta(days=32)).replace(day=1)
    return begin + timedelta(days=7 if kind == "week" else 1)


def _id(kind: str, begin: datetime) -> str:
    if kind == "week":
        year, week, _ = begin.isocalendar()
        return f"{year:04}-W{week:02}"
    return begin.date().isoformat()[: {"day": 10, "month": 7, "year": 4}[kind]]


# ---------------------------------------------------------------------- instants


def _first(shown: datetime, zone: tzinfo) -> int:
    """The first second at which clocks show this or something later."""
    # In a gap, fold 0 reads it by the offset before the jump, which is after it, and fold 1 the other way round.
    second = _second(shown.replace(tzinfo=zone))
    if _shown(second, zone) == shown:
        return second
    return _search(_second(shown.replace(tzinfo=zone, fold=1)), second, lambda between: _shown(between, zone) >= shown)


def _hour(second: int, zone: tzinfo) -> Period:
    offset = _offset(second, zone)
    since_full = (second + offset) % 3600
    start, end = second - since_full, second - since_full + 3600
    if _offset(start, zone) != offset:
        start = _search(start, second, lambda between: _offset(between, zone) == offset)
    if _offset(end - 1, zone) != offset:
        end = _search(second, end - 1, lambda between: _offset(between, zone) != offset)
    moment = _utc(second).astimezone(zone)
    return Period(f"{moment:%Y-%m-%dT%H}{moment.isoformat()[19:]}", start, end)


def _search(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first second at which something holds that does not at `low`, and does at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _utc(second: int) -> datetime:
    return _EPOCH + timedelta(seconds=second)


def _shown(second: int, zone: tzinfo) -> datetime:
    """What clocks in the zone show, without a zone."""
    return _utc(second).astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(second: int, zone: tzinfo) -> int:
    """Seconds that clocks in the zone are ahead of UTC."""
    return round((_utc(second).astimezone(zone).utcoffset() or timedelta()).total_seconds())


def _second(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)
