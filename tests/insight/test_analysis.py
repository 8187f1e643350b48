"""Series with a known answer: what analysis finds in them, and how often it finds what is not there."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from costspan.insight.analysis import Work, anomalies, efficiency, forecast, project_month, trend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USD = 10**12
MONDAY = date(2026, 3, 2)


def series(amounts: Sequence[float] | Any, start: date = MONDAY) -> dict[date, int | None]:
    return {start + timedelta(days=number): round(float(usd) * USD) for number, usd in enumerate(amounts)}


def weekend(count: int) -> Any:
    return np.array([(MONDAY + timedelta(days=number)).weekday() >= 5 for number in range(count)])


def month_end(count: int) -> Any:
    return np.array([(MONDAY + timedelta(days=number + 1)).day == 1 for number in range(count)])


# What costs look like, each of so many days, from random numbers of a fixed seed.
KINDS: dict[str, Callable[[int, np.random.Generator], Any]] = {
    "even": lambda n, random: 10 + 2 * random.standard_normal(n),
    "weekends": lambda n, random: np.where(weekend(n), 4, 12) + random.standard_normal(n),
    "weekends off": lambda n, random: np.where(weekend(n), 0, 10 + 2 * random.standard_normal(n)),
    "skewed": lambda n, random: np.array([random.gamma(0.5, 1, calls).sum() for calls in random.poisson(20, n)]),
    "growing": lambda n, random: 10 * np.exp(0.01 * np.arange(n) + 0.15 * random.standard_normal(n)),
    "wandering": lambda n, random: 20 + np.cumsum(0.3 * random.standard_normal(n)) + random.standard_normal(n),
}


# ------------------------------------------------------------------ trend


def test_a_cent_more_each_day_is_a_trend_of_a_cent() -> None:
    found = trend(series([5 + 0.01 * number for number in range(28)]))
    assert found.direction == "rising"
    assert found.slope == found.low == found.high == Decimal("0.01")
    assert (found.strength, found.days, found.weekdays) == (1.0, 28, True)


def test_a_fall_is_found_through_weekends_and_a_day_that_went_wrong() -> None:
    amounts = np.where(weekend(42), 3, 12) - 0.05 * np.arange(42)
    amounts[17] = 400
    found = trend(series(list(amounts)))
    assert found.direction == "falling"
    assert found.slope is not None
    assert float(found.slope) == pytest.approx(-0.05, abs=0.001)


def test_weekends_are_no_trend() -> None:
    assert trend(series(np.where(weekend(28), 1, 10))).direction == "flat"


def test_no_trend_is_read_from_less_than_two_weeks() -> None:
    found = trend(series([float(number) for number in range(13)]))
    assert (found.direction, found.slope) == ("unknown", None)
    assert found.reason == "only 13 days are known; a trend needs 14"


def test_the_running_day_and_days_that_are_not_known_are_left_out() -> None:
    days = series([5 + 0.01 * number for number in range(28)])
    days[MONDAY + timedelta(days=28)] = 1
    days[MONDAY + timedelta(days=10)] = None
    found = trend(days, today=MONDAY + timedelta(days=28))
    assert (found.direction, found.days) == ("rising", 27)


@pytest.mark.parametrize("kind", ["even", "weekends", "weekends off", "skewed"])
@pytest.mark.parametrize("count", [14, 30, 60])
def test_where_there_is_no_trend_one_is_seen_in_one_of_twenty_at_most(kind: str, count: int) -> None:
    random = np.random.default_rng(3)
    seen = [trend(series(np.maximum(KINDS[kind](count, random), 0))).direction for _ in range(100)]
    assert seen.count("flat") >= 90  # 95 expected; fewer than 90 would be one in fifty


# ------------------------------------------------------------------ forecast


def coverage(kind: str, count: int, horizon: int, times: int) -> dict[str, float]:
    """How often what came lay within the bounds: of single days, and of their sum."""
    random = np.random.default_rng(7)
    held = {"day 80": 0, "day 95": 0, "sum 80": 0, "sum 95": 0}
    for _ in range(times):
        amounts = np.maximum(KINDS[kind](count + horizon, random), 0)
        every = series(amounts)
        days = list(every)
        said = forecast({day: every[day] for day in days[:count]}, horizon)
        came = [Decimal(every[day] or 0).scaleb(-12) for day in days[count:]]
        assert said.total is not None
        for day, usd in zip(days[count:], came, strict=True):
            held["day 80"] += said.days[day].low_80 <= usd <= said.days[day].high_80
            held["day 95"] += said.days[day].low_95 <= usd <= said.days[day].high_95
        held["sum 80"] += said.total.low_80 <= sum(came) <= said.total.high_80
        held["sum 95"] += said.total.low_95 <= sum(came) <= said.total.high_95
    return {name: number / times / (horizon if name.startswith("day") else 1) for name, number in held.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [21, 60])
def test_bounds_hold_as_often_as_they_say(kind: str, count: int) -> None:
    found = coverage(kind, count, 7, 100)
    assert 0.74 <= found["day 80"] <= 0.86, found
    assert 0.91 <= found["day 95"] <= 0.99, found
    # A hundred sums: 0.80 +- 0.12 is three standard errors. Too wide is the smaller fault.
    assert 0.68 <= found["sum 80"] <= 0.94, found
    assert found["sum 95"] >= 0.87, found


@pytest.mark.parametrize("kind", ["even", "skewed", "growing", "wandering"])
@pytest.mark.parametrize("count", [4, 10])
def test_bounds_hold_after_a_few_days_too(kind: str, count: int) -> None:
    found = coverage(kind, count, 7, 60)
    assert 0.72 <= found["day 80"] <= 0.88, found
    assert 0.66 <= found["sum 80"] <= 0.95, found


def test_weekends_are_foreseen_once_they_were_seen_twice() -> None:
    random = np.random.default_rng(1)
    said = forecast(series(KINDS["weekends"](28, random)), 7)
    assert "weekdays" in said.basis
    assert [float(day.expected) > 8 for day in said.days.values()] == [True] * 5 + [False] * 2
    short = forecast(series(KINDS["weekends"](13, random)), 7)
    assert len({float(day.expected) > 8 for day in short.days.values()}) == 1
    assert "weekdays" not in short.basis


def test_the_end_of_the_month_is_foreseen_once_it_was_seen_twice() -> None:
    random = np.random.default_rng(1)
    amounts = 10 + random.standard_normal(85) + 20 * month_end(85)
    said = forecast(series(amounts), 7)
    assert "month ends" in said.basis
    last = said.days[date(2026, 5, 31)]
    assert last.low_80 > 25
    assert said.days[date(2026, 5, 30)].high_80 < 15


def test_the_bounds_of_a_sum_are_narrower_than_the_sum_of_bounds() -> None:
    said = forecast(series(KINDS["even"](60, np.random.default_rng(2))), 14)
    assert said.total is not None
    widths = [day.high_80 - day.low_80 for day in said.days.values()]
    assert said.total.high_80 - said.total.low_80 < sum(widths) / 2


def test_the_same_days_have_the_same_forecast_and_no_bound_is_below_nothing() -> None:
    days = series([0.2, 3, 0.1, 4, 0.3, 0, 0])
    assert forecast(days, 5) == forecast(days, 5)
    assert all(day.low_95 >= 0 for day in forecast(days, 5).days.values())
    assert "less than a week" in forecast(series([1, 2, 1, 2]), 3).basis


def test_there_is_no_forecast_from_three_days_or_from_nothing() -> None:
    said = forecast(series([1, 2, 3]), 7)
    assert (said.total, said.days) == (None, {})
    assert said.basis == "only 3 days are known; a forecast needs 4"
    assert forecast({}, 7).basis == "only 0 days are known; a forecast needs 4"
    assert forecast(series([0] * 9), 7).basis == "nothing was spent on the 9 days that are known"
    with pytest.raises(ValueError, match="horizon must be 1 day or more, not 0"):
        forecast(series([1] * 9), 0)


def test_days_that_are_all_alike_stay_so() -> None:
    said = forecast(series([5.0] * 20), 3)
    assert said.total is not None
    assert float(said.total.low_95) == pytest.approx(15, abs=0.05)
    assert float(said.total.high_95) == pytest.approx(15, abs=0.05)


# ------------------------------------------------------------------ the month


def test_a_month_is_what_was_spent_and_what_is_to_come() -> None:
    days = series([10.0] * 19, date(2026, 11, 1))
    days[date(2026, 11, 20)] = 4 * USD
    month = project_month(days, date(2026, 11, 20), 0.4)
    assert month.spent == 194
    assert month.expected is not None
    # 190 and 4 are spent, 6 of today and 100 of ten more days are to come.
    assert float(month.expected) == pytest.approx(300, abs=0.5)
    assert (month.month, month.confidence, month.history) == ("2026-11", "high", 19)


def test_a_month_is_held_by_its_bounds_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(11), 0
    for _ in range(100):
        every = series(np.maximum(KINDS["weekends"](61, random), 0), MONDAY)
        today = date(2026, 4, 12)
        seen = {day: pico for day, pico in every.items() if day < today}
        month = project_month(seen, today, 0.0)
        assert month.range is not None
        total = sum(Decimal(pico or 0).scaleb(-12) for day, pico in every.items() if day.month == 4)
        held += month.range.low_80 <= total <= month.range.high_80
    assert 68 <= held <= 95


def test_a_month_that_is_over_is_certain() -> None:
    month = project_month(series([1.0] * 31, date(2026, 10, 1)), date(2026, 11, 20), 0.5, date(2026, 10, 15))
    assert month.spent == month.expected == 31
    assert month.confidence == "certain"


def test_from_a_day_a_month_has_a_figure_and_no_bounds() -> None:
    month = project_month({date(2026, 11, 1): 8 * USD}, date(2026, 11, 2), 0.0)
    assert month.expected == 8 + 29 * 8
    assert (month.range, month.confidence) == (None, "none")
    running = project_month({date(2026, 11, 1): 4 * USD}, date(2026, 11, 1), 0.5)
    assert running.expected == 4 + 8 * Decimal("29.5")
    assert running.basis.endswith("the month goes on at the mean of today so far, and has no bounds")
    assert project_month({}, date(2026, 11, 1), 0.5).expected is None
    with pytest.raises(ValueError, match="2026-12 has not begun"):
        project_month({}, date(2026, 11, 1), 0.5, date(2026, 12, 1))


# ------------------------------------------------------------------ anomalies


def test_a_spike_and_a_gap_are_found_with_what_was_expected() -> None:
    amounts = np.where(weekend(42), 3.0, 12.0) * (1 + 0.02 * np.sin(np.arange(42)))
    amounts[23], amounts[30] = 60, 1
    spike, gap = anomalies(series(list(amounts))).found
    assert (spike.at, spike.direction) == (MONDAY + timedelta(days=23), "above")
    assert float(spike.expected) == pytest.approx(12, rel=0.03)
    assert spike.excess == spike.amount - spike.expected
    assert spike.ratio == pytest.approx(5, rel=0.03)
    assert (gap.at, gap.direction, gap.excess < 0) == (MONDAY + timedelta(days=30), "below", True)


def test_a_weekend_that_costs_as_much_as_a_workday_is_one() -> None:
    amounts = np.where(weekend(35), 2.0, 10.0) + 0.1 * np.sin(np.arange(35))
    amounts[26] = 10
    assert [found.at for found in anomalies(series(list(amounts))).found] == [MONDAY + timedelta(days=26)]


def test_hours_are_compared_with_the_same_hour() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    random = np.random.default_rng(5)
    points: dict[datetime, int | None] = {}
    for number in range(24 * 35):
        at = start + timedelta(hours=number)
        usual = 5.0 if 8 <= at.hour < 18 else 0.1
        points[at] = round(usual * float(np.exp(0.1 * random.standard_normal())) * USD)
    assert len(anomalies(points).found) <= 3
    night = start + timedelta(days=20, hours=3)
    points[night] = 2 * USD  # less than any working hour
    assert night in [found.at for found in anomalies(points).found]


@pytest.mark.parametrize("kind", ["even", "weekends", "weekends off", "skewed", "growing"])
def test_clean_days_raise_one_false_alarm_in_a_hundred_at_most(kind: str) -> None:
    random, alarms = np.random.default_rng(9), 0
    for _ in range(40):
        alarms += len(anomalies(series(np.maximum(KINDS[kind](60, random), 0))).found)
    assert alarms <= 24


def test_less_than_two_weeks_tell_nothing_of_what_is_usual() -> None:
    found = anomalies(series([1.0] * 12 + [50.0]))
    assert (found.found, found.reason) == ((), "only 13 days are known; what is usual shows from 14 on")


# ------------------------------------------------------------------ efficiency


def work(model: str, task: str = "summary", provider: str = "acme", **figures: int) -> Work:
    usual = {"calls": 100, "completed": 100, "cost": 1 * USD, "wasted": 0}
    tokens = {"input_tokens": 400_000, "cache_read_tokens": 0, "output_tokens": 50_000}
    return Work(provider, model, task, **(usual | tokens | figures))


def test_the_score_is_the_sum_that_the_guide_gives() -> None:
    large = work("large", cost=4 * USD, wasted=1 * USD, cache_read_tokens=100_000)
    small = work("small", cost=1 * USD, cache_read_tokens=200_000)
    scores = {(one.provider, one.model): one for one in efficiency([large, small])}
    one = scores["acme", "large"]
    assert (one.price, one.kept, one.cache) == (0.25, 0.75, 0.25)
    assert one.score == pytest.approx(100 * (0.5 * 0.25 + 0.3 * 0.75 + 0.2 * 0.25))
    assert one.cost_per_1k_output == Decimal("0.08")
    assert scores["acme", "small"].score == pytest.approx(100 * (0.5 + 0.3 + 0.2 * 0.5))
    assert [one.model for one in efficiency([large, small])] == ["small", None, "large"]


def test_models_are_compared_by_the_same_task_alone() -> None:
    scores = {one.model: one for one in efficiency([work("large", "think", cost=9 * USD), work("small", "sort")])}
    assert scores["large"].price is None
    assert scores["large"].cache == 0


def test_there_is_no_score_where_too_little_is_known() -> None:
    few = efficiency([work("large", calls=19, completed=19)])[0]
    assert (few.score, few.reason) == (None, "only 19 calls; a score needs 20")
    alone = efficiency([work("embed", input_tokens=5_000)])[0]
    assert alone.score is None
    assert alone.reason == "no other model does its tasks, and its prompts are too short for a cache"
    assert efficiency([work("large", cost=0)])[0].reason == "its calls have no cost"
