"""Periods of time and what holds in them: splitting, patching and replacing, and the hours of the week inside one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import tzinfo

ALWAYS: Final = (-(2**63), 2**63)
"""First and last instant of an open period, in unix nanoseconds."""

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class BookError(ValueError):
    """Prices that cannot be read; the message names the file, provider, model, period and field."""


def nanoseconds(instant: str) -> int:
    """An RFC 3339 instant or a date (midnight UTC) as unix nanoseconds.

    >>> nanoseconds("2025-06-10T00:00:00Z") == nanoseconds("2025-06-10")
    True
    """
    moment = datetime.fromisoformat(instant)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9


def spans(periods: Iterable[Mapping[str, Any]], layer: str, where: str) -> list[dict[str, Any]]:
    """The periods of one layer, with their ends as nanoseconds and the layer's name in each.

    Raises ``BookError`` if one ends before it begins or two overlap; those that only extend may, and hold in order.
    """
    ready = [
        {
            **period,
            "layer": layer,
            "from_ns": nanoseconds(period["from"]) if period.get("from") else ALWAYS[0],
            "to_ns": nanoseconds(period["to"]) if period.get("to") else ALWAYS[1],
        }
        for period in periods
    ]
    end = ALWAYS[0]
    for period in sorted(ready, key=lambda period: int(period["from_ns"])):
        if period["to_ns"] <= period["from_ns"] or (not period.get("extends") and period["from_ns"] < end):
            raise BookError(f"{where}: the period from {period.get('from')} overlaps another or ends too early")
        if not period.get("extends"):
            end = period["to_ns"]
    return ready


def layered(lower: list[dict[str, Any]], upper: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Periods of an upper layer laid over those of a lower one.

    An upper period replaces what is below it, or with ``extends`` changes only what it names; what it does not cover in
    time stays as it was.
    """
    for period in upper:
        start, end = period["from_ns"], period["to_ns"]
        below: list[dict[str, Any]] = []
        for old in lower:
            if old["from_ns"] < start:
                below.append({**old, "to_ns": min(old["to_ns"], start)})
            if period.get("extends") and old["from_ns"] < end and old["to_ns"] > start:
                below.append(
                    {
                        **patched(old, period),
                        "from_ns": max(old["from_ns"], start),
                        "to_ns": min(old["to_ns"], end),
                        "layer": period["layer"],
                    }
                )
            if old["to_ns"] > end:
                below.append({**old, "from_ns": max(old["from_ns"], end)})
        if not period.get("extends"):
            below.append(period)
        lower = sorted(below, key=lambda span: int(span["from_ns"]))
    return lower


def cut(timeline: list[dict[str, Any]], instants: Iterable[int]) -> list[dict[str, Any]]:
    """The same periods, divided at the instants (unix nanoseconds) that fall into them."""
    for instant in instants:
        timeline = [
            part
            for period in timeline
            for part in (
                ({**period, "to_ns": instant}, {**period, "from_ns": instant})
                if period["from_ns"] < instant < period["to_ns"]
                else (period,)
            )
        ]
    return timeline


def patched(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A period or window with what a patch names in it changed: rates, fallbacks and tiers one by one, all else whole.

    >>> patched({"rates": {"input": "1", "output": "2"}, "free": False}, {"rates": {"input": "3"}})
    {'rates': {'input': '3', 'output': '2'}, 'free': False}
    """
    new = {**old, **{key: value for key, value in patch.items() if key not in _MERGED}}
    if patch.get("rates"):
        new["rates"] = {**old.get("rates", {}), **patch["rates"]}
    if patch.get("fallback"):
        new["fallback"] = {**old.get("fallback", {}), **patch["fallback"]}
    if patch.get("tiers"):
        tiers = dict(old.get("tiers", {}))
        for name, tier in patch["tiers"].items():
            tiers[name] = patched(tiers.get(name, {}), tier)
        new["tiers"] = tiers
    if patch.get("context_tiers"):
        thresholds = {tier["over"]: tier for tier in old.get("context_tiers", ())}
        for tier in patch["context_tiers"]:
            thresholds[tier["over"]] = patched(thresholds.get(tier["over"], {}), tier)
        new["context_tiers"] = list(thresholds.values())
    return new


_MERGED: Final = frozenset({"rates", "fallback", "tiers", "context_tiers", "extends", "from", "to", "from_ns", "to_ns"})


class Window(NamedTuple):
    """A stretch of the week in a time zone: minutes of the day, `start` included and `end` not, on some days.

    One that ends before it starts goes over midnight; its day is then that on which it starts.
    """

    zone: tzinfo
    days: frozenset[int]
    """Monday is 0."""
    start: int
    end: int

    def holds(self, at_ns: int) -> bool:
        """Whether the instant (unix nanoseconds) lies in it, by the clock of the zone."""
        local = datetime.fromtimestamp(at_ns // 10**9, self.zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and day in self.days
        return (minute >= self.start and day in self.days) or (minute < self.end and (day - 1) % 7 in self.days)


def windows_of(written: Mapping[str, Any], where: str) -> list[Window]:
    """The stretches of one window as a price file writes it. Raises ``BookError``."""
    from zoneinfo import ZoneInfo

    name = written.get("tz", "UTC")
    try:
        zone: tzinfo = UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise BookError(f"{where}: {name!r} is no time zone of this machine's database") from error
    return [Window(zone, days_of(written.get("days", ""), where), *map(_minute, ends)) for ends in written["spans"]]


def days_of(text: str, where: str) -> frozenset[int]:
    """Days of the week from "mon-fri" or "sat,sun"; the empty text is all of them. Raises ``BookError``.

    >>> sorted(days_of("fri-mon", "")), sorted(days_of("wed,sun", ""))
    ([0, 4, 5, 6], [2, 6])
    """
    days: set[int] = set()
    for part in text.split(",") if text else ["mon-sun"]:
        first, _, last = part.strip().lower().partition("-")
        if first not in DAYS or (last and last not in DAYS):
            raise BookError(f"{where}: {text!r} are no days of the week such as mon-fri or sat,sun")
        start = DAYS.index(first)
        length = (DAYS.index(last or first) - start) % 7 + 1
        days.update((start + step) % 7 for step in range(length))
    return frozenset(days)


def _minute(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)
