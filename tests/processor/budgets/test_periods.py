"""Periods: they tile whatever the clocks do, and say which stretch of time a limit holds for."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costspan_processor.budgets.periods import CALENDAR, Period, check_period, is_window, period_at, window_at

FROM, TO = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1990, 2038))

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # midnight does not exist when summer time begins
    "America/Santiago",
    "Asia/Beirut",
    "Africa/Cairo",
    "America/St_Johns",  # until 2011 clocks were changed a minute past midnight, so that midnight came twice
    "Africa/Casablanca",  # four changes a year, by the moon
    "Australia/Lord_Howe",  # shifts by half an hour
    "Asia/Kathmandu",
    "Pacific/Chatham",  # changes at a quarter to
    "Pacific/Apia",  # had no 2011-12-30
    "Asia/Pyongyang",  # changed its standard time by half an hour, twice
)


def seconds(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def shown(at: int, zone: str) -> datetime:
    """What the clock on the wall shows."""
    return datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None)


@cache
def transitions(zone: str) -> tuple[int, ...]:
    """The seconds at which the clocks of a zone are changed."""

    def offset(at: int) -> timedelta | None:
        return datetime.fromtimestamp(at, ZoneInfo(zone)).utcoffset()

    found = []
    for day in range(FROM, TO, 86400):
        before, after = day, day + 86400
        if offset(before) != offset(after):
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (middle, after) if offset(middle) == offset(before) else (before, middle)
            found.append(after)
    return tuple(found)


@st.composite
def instants(draw: st.DrawFn) -> tuple[str, float]:
    """A zone and an instant, more often than not near a change of its clocks."""
    zone = draw(st.sampled_from(ZONES))
    anywhere = st.floats(FROM, TO)
    if not transitions(zone):
        return zone, draw(anywhere)
    near = st.builds(
        lambda change, away: change + away,
        st.sampled_from(transitions(zone)),
        st.sampled_from((-1, -0.5, 0, 1)) | st.integers(-7200, 7200) | st.floats(-2 * 86400, 2 * 86400),
    )
    return zone, draw(near | near | anywhere)


class TestLaws:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the changes of a zone are sought once
    @given(instants(), st.sampled_from(CALENDAR))
    def test_every_instant_is_in_one_period_and_periods_tile(self, where: tuple[str, float], kind: str) -> None:
        zone, at = where
        period = period_at(kind, at, zone)
        assert period.start <= at < period.end
        assert period_at(kind, period.start, zone) == period
        assert period_at(kind, period.end - 1, zone) == period
        after, before = period_at(kind, period.end, zone), period_at(kind, period.start - 1, zone)
        assert (before.end, after.start) == (period.start, period.end)
        assert len({before.id, period.id, after.id}) == 3

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the changes of a zone are sought once
    @given(instants(), st.sampled_from(CALENDAR[1:]))
    def test_a_period_begins_when_clocks_first_show_its_beginning(self, where: tuple[str, float], kind: str) -> None:
        zone, at = where
        period = period_at(kind, at, zone)
        beginning = {
            "day": lambda: datetime.fromisoformat(period.id),
            "week": lambda: datetime.fromisoformat(period.id + "-1"),
            "month": lambda: datetime.fromisoformat(period.id + "-01"),
            "year": lambda: datetime.fromisoformat(period.id + "-01-01"),
        }[kind]()
        assert shown(period.start, zone) >= beginning
        assert shown(period.start - 1, zone) < beginning

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the changes of a zone are sought once
    @given(instants())
    def test_an_hour_is_one_hour_of_the_clock_at_one_offset(self, where: tuple[str, float]) -> None:
        zone, at = where
        hour = period_at("hour", at, zone)
        assert hour.end - hour.start <= 3600
        moments = [datetime.fromtimestamp(second, ZoneInfo(zone)) for second in (hour.start, hour.end - 1)]
        assert {f"{moment:%Y-%m-%dT%H}{moment.isoformat()[19:]}" for moment in moments} == {hour.id}
        # It is shorter only where the clocks are changed.
        if hour.end - hour.start < 3600:
            assert {hour.start, hour.end} & set(transitions(zone))

    @pytest.mark.parametrize("zone", ["Pacific/Apia", "America/St_Johns"])
    @pytest.mark.parametrize("kind", CALENDAR[1:])
    def test_walking_through_48_years_meets_no_id_twice(self, kind: str, zone: str) -> None:
        at, met = FROM, []
        while at < TO:
            period = period_at(kind, at, zone)
            met.append(period.id)
            at = period.end
        assert len(met) == len(set(met))
        # One day is missing in Apia.
        days = (TO - FROM) // 86400 - (zone == "Pacific/Apia")
        expected = {"day": days, "week": days // 7, "month": 48 * 12, "year": 48}[kind]
        assert expected <= len(met) <= expected + 2

    @pytest.mark.parametrize("zone", ZONES)
    def test_hours_have_unique_ids_around_every_change_of_the_clocks(self, zone: str) -> None:
        for change in transitions(zone):
            at, met = change - 3 * 3600, []
            while at < change + 3 * 3600:
                hour = period_at("hour", at, zone)
                met.append(hour.id)
                at = hour.end
            assert len(met) == len(set(met))
            assert period_at("hour", change, zone).start == change


class TestTheCalendar:
    @pytest.mark.parametrize(
        ("kind", "name", "length"),
        [
            ("hour", "2026-11-28T13+01:00", 3600),
            ("day", "2026-11-28", 86400),
            ("week", "2026-W48", 7 * 86400),
            ("month", "2026-11", 30 * 86400),
            ("year", "2026", 365 * 86400),
        ],
    )
    def test_ids(self, kind: str, name: str, length: int) -> None:
        period = period_at(kind, seconds("2026-11-28T13:45", "Europe/Berlin"), "Europe/Berlin")
        assert (period.id, period.end - period.start) == (name, length)

    def test_utc_is_the_default(self) -> None:
        at = seconds("2026-11-28T13:45")
        assert period_at("hour", at) == Period("2026-11-28T13+00:00", at - 2700, at + 900)

    @pytest.mark.parametrize(
        ("day", "week"), [("2027-01-03", "2026-W53"), ("2027-01-04", "2027-W01"), ("2024-12-30", "2025-W01")]
    )
    def test_weeks_are_those_of_iso_8601(self, day: str, week: str) -> None:
        assert period_at("week", seconds(day)).id == week

    @pytest.mark.parametrize(
        ("zone", "day"),
        [
            ("America/Havana", "2026-03-08"),
            ("Asia/Beirut", "2026-03-29"),
            ("Africa/Cairo", "2026-04-24"),
            ("America/Santiago", "2026-09-06"),
        ],
    )
    def test_a_day_without_a_midnight_begins_at_one_o_clock(self, zone: str, day: str) -> None:
        period = period_at("day", seconds(f"{day}T12:00", zone), zone)
        assert (period.id, period.end - period.start) == (day, 23 * 3600)
        assert shown(period.start, zone) == datetime.fromisoformat(f"{day}T01:00")

    def test_a_midnight_that_comes_twice_counts_the_first_time(self) -> None:
        zone = "America/St_Johns"
        # At 00:01 on 7 November 2010 clocks went back to 23:01 on the day before.
        first = seconds("2010-11-07T00:00", zone)
        assert period_at("day", first, zone) == Period("2010-11-07", first, first + 25 * 3600)
        assert shown(first + 60, zone) == datetime.fromisoformat("2010-11-06T23:01")
        assert period_at("day", first + 60, zone).id == "2010-11-07"

    def test_a_midnight_within_a_jump_is_the_instant_of_the_jump(self) -> None:
        # At 23:30 on 30 March 1919 clocks went on to 00:30.
        period = period_at("day", seconds("1919-03-31T12:00", "America/Toronto"), "America/Toronto")
        assert shown(period.start - 1, "America/Toronto") == datetime.fromisoformat("1919-03-30T23:29:59")
        assert (period.id, period.end - period.start) == ("1919-03-31", 23 * 3600 + 1800)

    @pytest.mark.parametrize("kind", CALENDAR)
    def test_the_last_half_second_is_part_of_the_old_period(self, kind: str) -> None:
        midnight = seconds("2024-01-01T00:00")
        assert period_at(kind, midnight - 0.5).end == midnight
        assert period_at(kind, midnight).start == midnight

    def test_a_day_that_does_not_exist_has_no_period(self) -> None:
        before = period_at("day", seconds("2011-12-29T12:00", "Pacific/Apia"), "Pacific/Apia")
        after = period_at("day", before.end, "Pacific/Apia")
        assert (before.id, after.id) == ("2011-12-29", "2011-12-31")
        assert (before.end - before.start, after.end - after.start) == (86400, 86400)

    def test_the_month_and_the_year_go_on_over_a_day_that_does_not_exist(self) -> None:
        at, zone = seconds("2011-12-31T12:00", "Pacific/Apia"), "Pacific/Apia"
        month, year = period_at("month", at, zone), period_at("year", at, zone)
        assert (month.id, month.end - month.start) == ("2011-12", 30 * 86400)
        assert (year.id, year.end - year.start) == ("2011", 364 * 86400)

    def test_months_differ_from_their_days_by_the_change_of_the_clocks(self) -> None:
        lengths = [
            (period.end - period.start) / 3600 - 24 * 31
            for month in ("03", "10")
            for period in [period_at("month", seconds(f"2026-{month}-10"), "Europe/Berlin")]
        ]
        assert lengths == [-1, 1]


class TestHoursOfClocksThatAreChanged:
    @staticmethod
    def walk(start: str, zone: str, count: int) -> list[tuple[str, int]]:
        """Ids of the hours from an instant on, with their minutes."""
        at, found = seconds(start, zone), []
        for _ in range(count):
            hour = period_at("hour", at, zone)
            found.append((hour.id, (hour.end - hour.start) // 60))
            at = hour.end
        return found

    def test_an_hour_that_comes_twice_is_two_hours(self) -> None:
        assert self.walk("2026-10-25T01:00", "Europe/Berlin", 4) == [
            ("2026-10-25T01+02:00", 60),
            ("2026-10-25T02+02:00", 60),
            ("2026-10-25T02+01:00", 60),
            ("2026-10-25T03+01:00", 60),
        ]

    def test_an_hour_that_is_skipped_is_none(self) -> None:
        assert self.walk("2026-03-29T01:00", "Europe/Berlin", 2) == [
            ("2026-03-29T01+01:00", 60),
            ("2026-03-29T03+02:00", 60),
        ]

    def test_lord_howe_shifts_by_half_an_hour(self) -> None:
        assert self.walk("2026-04-05T01:00", "Australia/Lord_Howe", 3) == [
            ("2026-04-05T01+11:00", 60),
            ("2026-04-05T01+10:30", 30),
            ("2026-04-05T02+10:30", 60),
        ]
        assert self.walk("2026-10-04T01:00", "Australia/Lord_Howe", 3) == [
            ("2026-10-04T01+10:30", 60),
            ("2026-10-04T02+11:00", 30),
            ("2026-10-04T03+11:00", 60),
        ]

    def test_full_hours_are_those_of_the_wall(self) -> None:
        hour = period_at("hour", seconds("2026-11-28T13:10", "Asia/Kathmandu"), "Asia/Kathmandu")
        assert (hour.id, hour.start % 3600) == ("2026-11-28T13+05:45", 900)


class TestWindows:
    @given(
        st.sampled_from("mhd").flatmap(
            lambda unit: st.integers(1, {"m": 366 * 1440, "h": 366 * 24, "d": 366}[unit]).map(lambda n: f"{n}{unit}")
        ),
        st.floats(FROM, TO),
    )
    def test_a_window_looks_at_its_length_or_at_one_bucket_more(self, kind: str, at: float) -> None:
        length = int(kind[:-1]) * {"m": 60, "h": 3600, "d": 86400}[kind[-1]]
        window = window_at(kind, at)
        widths = {bucket.end - bucket.start for bucket in window}
        assert len(widths) == 1
        width = widths.pop()
        assert window[0].start <= at < window[0].end
        assert [older.end for older in window[1:]] == [newer.start for newer in window[:-1]]
        assert length <= at - window[-1].start < length + width
        assert 20 <= length / width <= 23
        assert len(window) <= 24
        assert len({bucket.id for bucket in window}) == len(window)

    @given(st.sampled_from(("90m", "24h", "7d", "30d")), st.floats(FROM, TO), st.floats(0, 30 * 86400))
    def test_a_bucket_is_the_same_from_whenever_it_is_seen(self, kind: str, at: float, later: float) -> None:
        before, after = ({bucket.id: bucket for bucket in window_at(kind, when)} for when in (at, at + later))
        assert all(after[name] == before[name] for name in before.keys() & after.keys())
        if at + later < window_at(kind, at)[0].end:
            assert before == after

    def test_the_last_half_second_is_part_of_the_old_bucket(self) -> None:
        assert [window_at("24h", at)[0].end for at in (4319.5, 4320)] == [4320, 8640]

    @pytest.mark.parametrize(
        ("kind", "minutes", "buckets"), [("90m", 4.5, 21), ("24h", 72, 21), ("7d", 480, 22), ("30d", 2160, 21)]
    )
    def test_buckets_divide_the_window(self, kind: str, minutes: float, buckets: int) -> None:
        window = window_at(kind, seconds("2026-11-28T22:13:20"))
        assert ((window[0].end - window[0].start) / 60, len(window)) == (minutes, buckets)

    def test_ids_name_the_window_so_that_another_one_has_accounts_of_its_own(self) -> None:
        at = seconds("2026-11-28T00:00:00")
        assert [window_at(kind, at)[0].id for kind in ("1d", "24h")] == [
            "1d@2026-11-28T00:00:00Z",
            "24h@2026-11-28T00:00:00Z",
        ]

    @pytest.mark.parametrize("kind", ["", "h", "0h", "-1h", "01h", "1.5h", "24H", "24h ", "1w", "day", "٣h"])
    def test_what_is_no_window(self, kind: str) -> None:
        assert not is_window(kind)
        with pytest.raises(ValueError, match="period must be hour, day, week, month, year or a window such as '90m'"):
            window_at(kind, 0)


class TestWhatIsNoPeriod:
    @pytest.mark.parametrize(("kind", "zone"), [(kind, "Asia/Beirut") for kind in CALENDAR] + [("24h", "UTC")])
    def test_what_is_one_is_let_pass(self, kind: str, zone: str) -> None:
        check_period(kind, zone)

    @pytest.mark.parametrize(
        ("kind", "zone", "message"),
        [
            ("fortnight", "UTC", "period must be hour, day, week, month, year or a window such as '90m', '24h', '30d'"),
            ("Month", "UTC", "not 'Month'"),
            (7, "UTC", "not 7"),
            (None, "UTC", "not None"),
            ("367d", "UTC", "period must be a window of 366 days at most, not '367d'"),
            ("24h", "Europe/Berlin", "zone is for periods of the calendar: a window such as '24h' has none"),
            (
                "day",
                "Europe/Berln",
                "zone must be an IANA time zone such as 'UTC' or 'Europe/Berlin', not 'Europe/Berln'; "
                "did you mean 'Europe/Berlin'",
            ),
            ("day", "America", "zone must be an IANA time zone"),
            ("day", "../../etc/passwd", "zone must be an IANA time zone"),
            ("day", "", "zone must be an IANA time zone"),
            ("day", "a\0b", "zone must be an IANA time zone"),
            ("day", "\ud800", "zone must be an IANA time zone"),
            ("day", 1, "zone must be an IANA time zone"),
            ("day", None, "zone must be an IANA time zone"),
            ("day", ["UTC"], "zone must be an IANA time zone"),
        ],
    )
    def test_what_is_none_is_refused_with_what_is_possible(self, kind: str, zone: str, message: str) -> None:
        with pytest.raises(ValueError) as refused:
            check_period(kind, zone)
        assert message in str(refused.value)

    def test_asking_for_one_that_is_none_says_the_same(self) -> None:
        with pytest.raises(ValueError, match="period must be hour, day"):
            period_at("24h", 0)
        with pytest.raises(ValueError, match="zone must be an IANA time zone"):
            period_at("day", 0, "Mars/Olympus")

    def test_a_system_without_time_zone_data_has_utc_and_says_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['tzdata'] = None\n"
            "from costspan_processor.budgets.periods import check_period, period_at\n"
            "print(period_at('day', 0).id)\n"
            "try: check_period('day', 'Europe/Berlin')\n"
            "except ValueError as error: print(error)"
        )
        out = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONTZPATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        assert out.stdout.splitlines() == [
            "1970-01-01",
            "zone 'Europe/Berlin' cannot be looked up, since this system has no time zone data: pip install tzdata",
        ]
