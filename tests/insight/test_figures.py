"""Figures of a ledger: exact, the same by whatever way they are read, and tiling whatever the clocks do."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costspan.insight.figures import HOUR, Figures, Sums
from costspan_processor.budgets.periods import period_at
from tests.insight.ledgers import ledger

if TYPE_CHECKING:
    from pathlib import Path

NOVEMBER = period_at("month", datetime(2026, 11, 15, tzinfo=UTC).timestamp())


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    """Six calls: $0.006 each by Sonnet for a thousand tokens and two hundred, but for what they say."""
    described: list[dict[str, Any]] = [
        {"at": "2026-11-03 09:15", "task": "summary", "user": "ann", "session": "s1", "tags": {"tenant": "acme"}},
        {"at": "2026-11-03 09:45", "task": "summary", "user": "bob", "session": "s1"},
        {"at": "2026-11-03 18:40", "task": "answer", "user": "ann", "cache_read_tokens": 800},
        {"at": "2026-11-04 00:10", "provider": "openai", "model": "gpt-4.1"},
        {"at": "2026-11-04 00:20", "provider": "openai", "model": "gpt-unheard-of"},
        {"at": "2026-11-05 12:00", "error_type": "Timeout", "input_tokens": None, "output_tokens": None},
    ]
    return Figures(ledger(tmp_path / "ledger.db", described))


def test_a_month_by_model(figures: Figures) -> None:
    found = figures.sums(NOVEMBER.start, NOVEMBER.end, ("provider", "model"))
    assert {key: sums.usd for key, sums in found.items()} == {
        ("anthropic", "claude-sonnet-4-5"): Decimal("0.01584"),  # 2 × 0.006, and 200 × 3 + 800 × 0.30 + 200 × 15
        ("openai", "gpt-4.1"): Decimal("0.0036"),
        ("openai", "gpt-unheard-of"): Decimal(0),
    }
    unheard = found["openai", "gpt-unheard-of"]
    assert (unheard.calls, unheard.unpriced) == (1, 1)
    sonnet = found["anthropic", "claude-sonnet-4-5"]
    assert (sonnet.calls, sonnet.failed, sonnet.unpriced) == (4, 1, 0)
    assert sonnet.cache_hit_rate == 800 / 3000
    assert sonnet.latency == 1.5
    assert next(iter(found)) == ("anthropic", "claude-sonnet-4-5")  # dearest first


def test_users_and_tags(figures: Figures) -> None:
    by_user = figures.sums(NOVEMBER.start, NOVEMBER.end, ("user",))
    assert {user: sums.calls for (user,), sums in by_user.items()} == {"ann": 2, "": 3, "bob": 1}
    by_hour = figures.spent(NOVEMBER.start, NOVEMBER.end, ("hour", "user"), None)
    first = str(at("2026-11-03 09:00") // HOUR)
    assert {user: spent.calls for (hour, user), spent in by_hour.items() if hour == first} == {"ann": 1, "bob": 1}
    assert sum(spent.calls for (_, user), spent in by_hour.items() if not user) == 3
    both = figures.sums(NOVEMBER.start, NOVEMBER.end, ("user",), {"user": ("ann", "bob", "cy")})
    assert {user: sums.calls for (user,), sums in both.items()} == {"ann": 2, "bob": 1}
    assert figures.total(NOVEMBER.start, NOVEMBER.end, {"user": ("ann", "bob"), "task": "summary"}).calls == 2
    assert figures.total(NOVEMBER.start, NOVEMBER.end, {"user": "ann", "task": "answer"}).calls == 1
    assert figures.total(NOVEMBER.start, NOVEMBER.end, {"tag.tenant": "acme"}).calls == 1
    assert figures.total(NOVEMBER.start, NOVEMBER.end, {"user": ""}).calls == 3
    assert figures.total(NOVEMBER.start, NOVEMBER.end, {"task": ""}).calls == 3


def test_the_day_on_which_the_ledger_begins_is_no_whole_one(figures: Figures) -> None:
    third, fourth, fifth = (at(f"2026-11-0{day}") for day in (3, 4, 5))
    cents = {day.day: pico / 10**10 for day, pico in figures.known_days(third - 30 * 86_400, fifth + 86_400).items()}
    assert cents == {4: 0.36, 5: 0}  # the first call is of the third, at a quarter past nine
    assert [day.day for day in figures.known_days(third, fourth)] == [3]
    assert figures.known_days(third - 86_400, third) == {}


@pytest.mark.parametrize("name", ["nonsense", "user; DROP TABLE calls", "id"])
def test_what_is_no_column_is_refused(figures: Figures, name: str) -> None:
    with pytest.raises(ValueError, match="there are"):
        figures.sums(NOVEMBER.start, NOVEMBER.end, (name,))
    with pytest.raises(ValueError, match="there are"):
        figures.total(NOVEMBER.start, NOVEMBER.end, {name: "x"})


def test_a_tag_s_name_cannot_leave_its_quotes(figures: Figures) -> None:
    for name in ('tag.x"y', "tag.a'b", "tag.$", "tag.tenant') OR ('1'='1"):
        assert figures.total(NOVEMBER.start, NOVEMBER.end, {name: "acme"}).calls == 0


def test_a_day_in_a_zone_that_begins_at_half_past(figures: Figures) -> None:
    """The third in Kolkata ends at 18:30 UTC, in the middle of an hour with a call at 18:40."""
    days = figures.days(NOVEMBER.start, NOVEMBER.end, "Asia/Kolkata")
    counts = {day.day: spent.calls for day, spent in days.items() if spent.calls}
    assert counts == {3: 2, 4: 3, 5: 1}
    assert len(days) == 31  # from the first, on which November begins in London, to the one on which it ends there
    assert {
        day.day: spent.calls for day, spent in figures.days(NOVEMBER.start, NOVEMBER.end).items() if spent.calls
    } == {
        3: 3,
        4: 2,
        5: 1,
    }


def test_the_day_on_which_clocks_are_put_back(tmp_path: Path) -> None:
    figures = Figures(
        ledger(tmp_path / "ledger.db", [{"at": at("2026-10-25 00:00") + hour * HOUR} for hour in range(24)])
    )
    first, last = at("2026-10-24 12:00"), at("2026-10-26 12:00")
    counts = {day: spent.calls for day, spent in figures.days(first, last, "Europe/Berlin").items()}
    # 25 hours from 22:00 UTC on the 24th, of which the first two had no calls.
    assert counts == {date(2026, 10, 24): 0, date(2026, 10, 25): 23, date(2026, 10, 26): 1}


def test_the_dearest_calls_and_the_order_of_a_session(figures: Figures) -> None:
    dearest = figures.calls(NOVEMBER.start, NOVEMBER.end, limit=2)
    assert [row["cost"] for row in dearest] == [6_000_000_000] * 2
    assert [row["user"] for row in figures.calls(NOVEMBER.start, NOVEMBER.end, {"session": "s1"}, order="started")] == [
        "ann",
        "bob",
    ]
    assert figures.calls(at("2026-12-01"), at("2026-12-02")) == []


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (1_800, -1_800), (1_800, 0), (0, -1), (3 * HOUR + 7, -5 * HOUR)])
def test_the_dearest_of_a_stretch_that_begins_and_ends_within_an_hour(tmp_path: Path, begin: int, end: int) -> None:
    """The dearest of whole hours are known from an index; those of the hours at both ends must not be forgotten."""
    first = NOVEMBER.start
    described: list[dict[str, Any]] = [
        {"at": first + 900 * number, "cost": (number * 7_919 + 13) % 1_009 * 10**9, "session": "s"}
        for number in range(120)
    ]
    made = Figures(ledger(tmp_path / "ledger.db", described))
    start, stop = first + begin, first + 30 * HOUR + end
    expected = sorted((one["cost"] for one in described if start <= one["at"] < stop), reverse=True)
    for limit in (1, 3, 8, 40):
        assert [row["cost"] for row in made.calls(start, stop, limit=limit)] == expected[:limit]


def test_more_money_than_a_database_adds_up(tmp_path: Path) -> None:
    """Ten million dollars are more picodollars than 64 bits hold."""
    most = 10**18
    figures = Figures(
        ledger(tmp_path / "ledger.db", ({"at": NOVEMBER.start + hour * HOUR, "cost": most} for hour in range(12)))
    )
    assert figures.total(NOVEMBER.start, NOVEMBER.end).cost == 12 * most
    assert figures.spent(NOVEMBER.start, NOVEMBER.end)[()].cost == 12 * most


def test_an_empty_ledger(tmp_path: Path) -> None:
    figures = Figures(ledger(tmp_path / "ledger.db"))
    assert figures.known() is None
    assert figures.total(NOVEMBER.start, NOVEMBER.end) == Sums()
    assert figures.sums(NOVEMBER.start, NOVEMBER.end, ("model",)) == {}


_CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(at("2026-11-02 22:00"), at("2026-11-04 02:00")),
            "task": st.sampled_from(["summary", None]),
            "user": st.sampled_from(["ann", "bob", None]),
            "input_tokens": st.integers(1, 10_000),
        }
    ),
    max_size=25,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(described=_CALLS, cuts=st.lists(st.integers(at("2026-11-02 21:00"), at("2026-11-04 03:00")), max_size=4))
def test_stretches_tile_and_totals_equal_the_calls(
    tmp_path_factory: pytest.TempPathFactory, described: list[dict[str, Any]], cuts: list[int]
) -> None:
    """However time is cut, and whatever the totals are told apart by, the parts add up to the calls themselves."""
    figures = Figures(ledger(tmp_path_factory.mktemp("tile") / "ledger.db", described))
    start, end = at("2026-11-02 21:00"), at("2026-11-04 03:00")
    whole = figures.total(start, end)
    rows = figures.calls(start, end, order="started", limit=None)
    assert (whole.calls, whole.cost) == (len(described), sum(row["cost"] for row in rows))
    edges = sorted({start, *cuts, end})
    pieces = [figures.total(*ends) for ends in pairwise(edges)]
    assert sum(pieces, Sums()) == whole
    for by in (("task",), ("provider", "model"), ("hour",), ("user", "task"), ("user",), ("user", "hour")):
        assert sum(figures.sums(start, end, by).values(), Sums()) == whole
    users = Counter(call["user"] or "" for call in described)
    assert {user: spent.calls for (user,), spent in figures.spent(start, end, ("user",)).items()} == users
    by_calls = figures.total(start, end, {"message": ""})
    assert by_calls == whole
