"""`verify` passes on what processes write, and finds whatever else has been done to a ledger."""

from __future__ import annotations

import pytest

from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.store import Ledger, Writer
from tests.ledger.calls import HOUR, rows

ME = Writer("writer", "host", 7, "shop", 1_795_435_000)


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    for first in (0, 1_000, 2_000):
        ledger.write(rows(1_000, first=first), ME)
    ledger.write(rows(10, "other"), ME._replace(id="other", dropped=3))
    ledger.bury(ME._replace(id="other", dropped=3), kept=20)
    return ledger


def test_a_ledger_that_processes_have_written_holds(filled: Ledger) -> None:
    found = verify(filled)
    assert found.holds, found.checks
    assert found[1:] == (3_010, 3_010, 0, 3, 7, 0, 1)
    assert {check.name: check.looked_at for check in found.checks if check.name != "database"} == {
        "parts of each cost": 3_010,
        "lines of each cost": 3_010,
        "series": 1,
        "hourly totals": 3,
        "totals of spenders": 75,
        "counts of writers": 2,
    }


def test_it_holds_when_retention_has_removed_calls_and_late_ones_came(filled: Ledger) -> None:
    filled.forget((HOUR + 2) * 3600)
    filled.write(rows(50, "late"), ME._replace(id="late"))
    found = verify(filled)
    assert found.holds, found.checks
    assert (found.rows, found.written, found.removed) == (1_050, 3_060, 2_010)


def test_an_empty_ledger_holds(ledger: Ledger) -> None:
    assert verify(ledger)[1:] == (0,) * 7
    assert verify(ledger).holds


@pytest.mark.parametrize(
    ("damage", "check", "said"),
    [
        ("UPDATE records SET cost = cost + 1 WHERE sequence = 5", "parts of each cost", "its components"),
        ("UPDATE records SET cost_input = cost_input + 1 WHERE sequence = 5", "parts of each cost", "its components"),
        ("UPDATE records SET lines = '[]' WHERE sequence = 5", "lines of each cost", "its lines 0"),
        ("UPDATE records SET lines = '[[1]]' WHERE sequence = 5", "lines of each cost", "cannot be read"),
        ("UPDATE records SET output_tokens = 77 WHERE sequence = 5", "hourly totals", "output_tokens"),
        ("UPDATE records SET series = 7 WHERE sequence = 5", "hourly totals", "belong to no series"),
        (
            "INSERT INTO series (id, operation, aborted, status) VALUES (7, 'chat', false, 'priced');"
            "UPDATE records SET series = 7 WHERE sequence = 5",
            "hourly totals",
            "no total",
        ),
        ("UPDATE series SET team = 'else'", "series", "says something else"),
        ("UPDATE records SET session = 'else' WHERE sequence = 5", "totals of spenders", "no total"),
        ("UPDATE hours SET cost = cost - 1", "hourly totals", "the total says cost"),
        ("UPDATE spenders SET saved = saved + 1", "totals of spenders", "the total says saved"),
        ("DELETE FROM hours", "hourly totals", "no total"),
        ("DELETE FROM series", "hourly totals", "belong to no series"),
        ("DELETE FROM records WHERE sequence = 5 AND writer = 'writer'", "counts of writers", "2999 are there"),
        ("DELETE FROM writers WHERE id = 'other'", "counts of writers", "not listed"),
        ("UPDATE records SET sequence = 6 WHERE sequence = 5", "counts of writers", "of the same number"),
        ("UPDATE hours SET calls = calls + 1", "counts of writers", "3010 rows were written"),
        ("UPDATE hours SET calls = calls + 1", "hourly totals", "calls, its total says"),
        ("DELETE FROM records", "hourly totals", "has no calls, its total says"),
    ],
)
def test_damage_is_found(filled: Ledger, damage: str, check: str, said: str) -> None:
    with filled.writing() as connection:
        for statement in damage.split(";"):
            connection.exec_driver_sql(statement)
    found = verify(filled)
    assert not found.holds
    (broken,) = (one for one in found.checks if one.name == check)
    assert any(said in problem for problem in broken.problems), found.checks
