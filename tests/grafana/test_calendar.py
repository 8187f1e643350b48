"""Spend to date over a new year and a leap February, in a real Prometheus: promtool's own tests begin in 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from tests.grafana.backfill import Scrapes, record
from tests.grafana.prometheus import Prometheus, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP: Final = 6 * 3600
NAMES: Final = ("today", "week_to_date", "month_to_date", "last30d")


def at(day: str, hour: int = 0) -> int:
    return int(datetime.fromisoformat(f"{day}T{hour:02}:00:00").replace(tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """From November 2027 to March 2028 a dollar every six hours, with a restart at the year's end."""
    scrapes = Scrapes()
    start, end = at("2027-11-01"), at("2028-03-04")
    for number, now in enumerate(range(start, end, STEP)):
        spent = number if now < at("2028-01-01") else 1 + (now - at("2028-01-01")) // STEP
        scrapes.add("costspan_cost_USD", "counter", 'costspan_cost_USD_total{job="shop"}', now, spent)
    data = tmp_path_factory.mktemp("calendar") / "data"
    scrapes.blocks(data)
    names = ("seen", "delta1m", *NAMES)
    record(data, range(start, end, STEP), [f"costspan:cost_USD:{name}" for name in names])
    with serve(data) as server:
        yield server


@pytest.mark.parametrize(
    ("day", "hour", "today", "week", "month", "last30d"),
    [
        # The first instant of a period ends the one before. 1 January 2028 is a Saturday.
        ("2028-01-01", 0, 4, 20, 124, 120),
        ("2028-01-01", 6, 1, 21, 1, 120),
        # Monday begins a week.
        ("2028-01-03", 0, 4, 28, 8, 120),
        ("2028-01-03", 6, 1, 1, 9, 120),
        # February has 29 days.
        ("2028-02-29", 6, 1, 5, 113, 120),
        ("2028-03-01", 0, 4, 8, 116, 120),
        ("2028-03-01", 6, 1, 9, 1, 120),
    ],
)
def test_spend_to_date(
    prometheus: Prometheus, day: str, hour: int, today: float, week: float, month: float, last30d: float
) -> None:
    shown = tuple(prometheus.value(f"costspan:cost_USD:{name}", at(day, hour)) for name in NAMES)
    assert shown == (today, week, month, last30d)
