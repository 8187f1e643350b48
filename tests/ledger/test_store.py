"""The ledger's database, SQLite and PostgreSQL alike: once is once, and totals are what is there."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, func, insert, select, text

from costspan_processor.ledger import store as store_module
from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.rows import COLUMNS, PLACE
from costspan_processor.ledger.schema import (
    MEASURES,
    SERIES,
    SPENDERS,
    audit,
    calls,
    events,
    hours,
    measured,
    metadata,
    records,
    series,
    spenders,
    writers,
)
from costspan_processor.ledger.store import (
    MIGRATIONS,
    VERSION_TABLE,
    AwayError,
    Ledger,
    LedgerError,
    Writer,
    Written,
    is_about_rows,
    open_ledger,
)
from tests.ledger.calls import AT, HOUR, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ledger.postgres import PostgreSQL

    Opener = Callable[[], Ledger]

ME = Writer("writer", "host", 7, "shop", 1_795_435_000)


def read(ledger: Ledger, table: Any, *order: str) -> list[tuple[Any, ...]]:
    with ledger.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(table).order_by(*map(text, order)))]


def same(ledger: Ledger) -> bool:
    """Whether the totals are what the calls add up to."""
    sums = [func.sum(measured()[name]) for name in MEASURES]
    with ledger.engine.connect() as connection:
        names = [series.c[name] for name in SERIES]
        measures = [hours.c[name] for name in MEASURES]
        stored = select(hours.c.hour, *names, *measures).join(series, series.c.id == hours.c.series)
        key = [calls.c.hour, *(calls.c[name] for name in SERIES)]
        by_hour = {tuple(row) for row in connection.execute(select(*key, *sums).group_by(*key))}
        by_spender = {
            (row[0], kind, *row[1:])
            for kind in SPENDERS
            for row in connection.execute(
                select(calls.c.hour, calls.c[kind], *sums)
                .where(calls.c[kind].is_not(None))
                .group_by(calls.c.hour, calls.c[kind])
            )
        }
        return by_hour == {tuple(row) for row in connection.execute(stored)} and by_spender == {
            tuple(row) for row in connection.execute(select(spenders))
        }


# ---------------------------------------------------------------------- writing


def test_what_is_written_is_what_is_read(ledger: Ledger) -> None:
    some = rows(50)
    assert ledger.write(some, ME) == Written(50, 0)
    assert read(ledger, calls, "sequence") == some
    assert same(ledger)


def test_calls_of_nobody_are_in_no_spenders_totals(ledger: Ledger) -> None:
    some = rows(3, user=None, session=None)
    assert ledger.write(some, ME) == Written(3, 0)
    assert read(ledger, spenders) == []
    assert same(ledger)


def test_a_row_that_is_there_adds_nothing(ledger: Ledger) -> None:
    some = rows(60)
    ledger.write(some[:40], ME)
    # Once more what its writer could not know to be written, and what comes twice.
    assert ledger.write([*some[20:], *some[50:]], ME) == Written(20, 10)
    assert read(ledger, calls, "sequence") == some
    assert same(ledger)


def test_another_writers_row_stays_its_own(ledger: Ledger) -> None:
    ledger.write(rows(10), ME)
    other = ME._replace(id="other")
    again = [(row[0], "other", *row[2:]) for row in rows(10)]
    assert ledger.write(again, other) == Written(0, 10)
    assert {row[PLACE["writer"]] for row in read(ledger, calls)} == {"writer"}
    told = {row[0]: row for row in read(ledger, select(writers.c.id, writers.c.written, writers.c.known).subquery())}
    assert told == {"writer": ("writer", 10, 0), "other": ("other", 0, 10)}
    assert same(ledger)


def test_it_is_noted_how_far_a_writer_is(ledger: Ledger) -> None:
    before = int(time.time())
    ledger.write(rows(3), ME)
    ledger.write(rows(2, first=3), ME._replace(dropped=4))
    ledger.write([], ME._replace(dropped=5, ended=before))
    ((id_, host, process, service, started, seen, ended, written, dropped, lost, known, removed),) = read(
        ledger, writers
    )
    assert (id_, host, process, service, started) == ME[:5]
    assert before <= seen <= time.time()
    assert (ended, written, dropped, lost, known, removed) == (before, 5, 5, 0, 0, 0)


def test_nothing_of_a_batch_is_written_if_one_row_cannot_be(ledger: Ledger) -> None:
    (bad,) = rows(1, first=9)
    bad = (*bad[: PLACE["cost"]], 2**70, *bad[PLACE["cost"] + 1 :])
    with pytest.raises(Exception) as raised:
        ledger.write([*rows(5), bad], ME)
    assert is_about_rows(raised.value)
    assert [read(ledger, table) for table in (records, series, hours, spenders, writers)] == [[]] * 5


def test_the_dead_are_buried_with_what_they_lost(ledger: Ledger) -> None:
    ledger.write(rows(10), ME)
    assert ledger.bury(ME._replace(dropped=3), kept=17) == 4
    assert ledger.bury(ME._replace(id="silent"), kept=2) == 2  # one that had written nothing yet
    told = {row[0]: row[-6:] for row in read(ledger, writers)}
    assert told["writer"][1:] == (10, 3, 4, 0, 0)
    assert told["silent"][1:] == (0, 0, 2, 0, 0)
    assert all(row[0] is not None for row in told.values())


def test_an_event_is_noted_once(ledger: Ledger) -> None:
    event = ("all:2026-11:threshold:50", 1_795_435_200, "threshold", "info", "all", "{}")
    ledger.note([event])
    ledger.note([event, ("another", *event[1:])])
    assert [row[0] for row in read(ledger, events, "id")] == ["all:2026-11:threshold:50", "another"]


def test_calls_go_and_totals_stay(ledger: Ledger) -> None:
    some = rows(2_500)  # in three hours
    ledger.write(some, ME)
    totals = read(ledger, hours), read(ledger, spenders)
    assert ledger.forget((HOUR + 2) * 3600 + 3_599) == 2_000
    assert read(ledger, calls, "sequence") == some[2_000:]
    assert (read(ledger, hours), read(ledger, spenders)) == totals
    assert read(ledger, select(writers.c.written, writers.c.removed).subquery()) == [(2_500, 2_000)]
    assert ledger.forget(0) == 0


def test_what_the_api_was_asked_goes_with_the_calls_of_its_time(ledger: Ledger) -> None:
    asked = {"key": "page", "method": "GET", "path": "/api/v1/cost/metrics", "status": 200}
    with ledger.writing() as connection:
        connection.execute(insert(audit), [{"at": HOUR * 3600 + second, **asked} for second in (0, 59, 60)])
    ledger.forget(HOUR * 3600 + 60)
    assert read(ledger, select(audit.c.at).subquery()) == [(HOUR * 3600 + 60,)]


# ---------------------------------------------------------------------- many at once


def test_many_open_a_new_ledger_at_once_and_write(url: str) -> None:
    def work(number: int) -> int:
        mine = open_ledger(url)
        try:
            writer = f"writer-{number}"
            return sum(mine.write(rows(25, writer, first), ME._replace(id=writer)).new for first in (0, 25, 50))
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [75] * 8
    ledger = open_ledger(url, create=False)
    assert len(read(ledger, calls)) == 600
    assert same(ledger)
    ledger.close()


def _process(url: str) -> int:
    ledger = open_ledger(url)
    written = sum(ledger.write(rows(200)[first : first + 40], ME).new for first in range(0, 200, 20))
    ledger.close()
    return written


def test_processes_that_write_the_same_write_it_once(url: str) -> None:
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        written = list(pool.map(_process, [url] * 3))
    ledger = open_ledger(url)
    assert len(read(ledger, calls)) == sum(written) == 200
    assert same(ledger)
    ledger.close()


def test_readers_do_not_wait_for_a_writer(ledger: Ledger, opened: Opener) -> None:
    ledger.write(rows(5), ME)
    reader = opened()
    seen = []
    with ledger.writing() as connection:
        connection.execute(records.delete())
        thread = threading.Thread(target=lambda: seen.append(len(read(reader, calls))))
        thread.start()
        thread.join(5)
    assert seen == [5]


def test_an_sqlite_that_takes_few_parameters_takes_many_rows(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.db"))
    event.listen(
        ledger.engine, "connect", lambda driver, _record: driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    )
    ledger.open()
    assert ledger.write(rows(100), ME) == Written(100, 0)
    assert verify(ledger).holds
    ledger.close()


# ---------------------------------------------------------------------- its tables


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # SQLAlchemy reads those from PostgreSQL alone
def test_migrations_make_what_the_schema_says(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_last_migration_is_the_one_that_is_asked_for() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == store_module._HEAD


def test_a_row_has_the_columns_of_the_table() -> None:
    assert tuple(calls.columns.keys()) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows(1))


def test_a_ledger_of_a_newer_costspan_is_left_alone(ledger: Ledger, url: str) -> None:
    with ledger.writing() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(LedgerError, match="newer costspan"):
        open_ledger(url)


def test_where_there_is_no_ledger_none_is_made_for_a_reader(url: str) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        open_ledger(url, create=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "a file or a URL"),
        ("sqlite://", "is a file"),
        ("mysql://host/db", "not in 'mysql'"),
        ("://", "not understood"),
        ("/no/such/folder/ledger.db", "a folder that exists"),
        ("/tmp", "a folder that exists"),
    ],
)
def test_what_is_no_ledger_is_said_in_a_line(url: str, said: str) -> None:
    with pytest.raises(LedgerError, match=said) as raised:
        open_ledger(url)
    assert "\n" not in str(raised.value)


def test_a_file_of_another_kind_is_no_ledger(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database\n" * 100)
    with pytest.raises(LedgerError, match="no ledger") as raised:
        open_ledger(str(file))
    assert not isinstance(raised.value, AwayError)
    assert file.read_text() == "not a database\n" * 100


def test_a_server_that_is_away_may_come_back() -> None:
    with pytest.raises(AwayError, match="does not answer") as raised:
        open_ledger("postgresql://somebody:secret@127.0.0.1:1/ledger")
    assert "secret" not in str(raised.value)


def test_a_file_that_is_locked_for_long_is_away(tmp_path: Path) -> None:
    ledger = open_ledger(str(tmp_path / "ledger.db"))
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception) as raised:
        ledger.write(rows(1), ME)
    assert not is_about_rows(raised.value)
    assert isinstance(ledger.problem(raised.value), AwayError)
    other.close()
    assert ledger.write(rows(1), ME).new == 1
    ledger.close()


# ---------------------------------------------------------------------- backups


def test_a_backup_is_taken_while_others_write(tmp_path: Path) -> None:
    ledger = open_ledger(str(tmp_path / "ledger.db"))
    ledger.write(rows(2_000), ME)
    stop = threading.Event()

    def write() -> None:
        other, first = open_ledger(str(tmp_path / "ledger.db")), 2_000
        while not stop.is_set():
            other.write(rows(20, first=first), ME)
            first += 20
        other.close()

    writer = threading.Thread(target=write)
    writer.start()
    ledger.backup(tmp_path / "backup.db")
    stop.set()
    writer.join()
    copy = open_ledger(str(tmp_path / "backup.db"), create=False)
    assert same(copy)
    there = read(copy, calls, "sequence")
    assert there == read(ledger, calls, "sequence")[: len(there)]
    assert len(there) >= 2_000

    # And back, into a ledger that others have open.
    ledger.forget((AT // 10**9) * 2)
    ledger.restore(tmp_path / "backup.db")
    assert read(ledger, calls, "sequence") == there
    assert same(ledger)
    copy.close()
    ledger.close()


def test_a_backup_never_replaces_a_file(tmp_path: Path) -> None:
    ledger = open_ledger(str(tmp_path / "ledger.db"))
    (tmp_path / "there").write_text("x")
    with pytest.raises(LedgerError, match="name a new file"):
        ledger.backup(tmp_path / "there")
    with pytest.raises(LedgerError, match="there is no ledger"):
        ledger.restore(tmp_path / "nowhere.db")
    with pytest.raises(LedgerError, match="no ledger"):
        ledger.restore(tmp_path / "there")
    ledger.close()


def test_a_server_has_tools_of_its_own_for_that(postgresql: PostgreSQL, tmp_path: Path) -> None:
    ledger = open_ledger(postgresql.database())
    with pytest.raises(LedgerError, match="pg_dump"):
        ledger.backup(tmp_path / "backup.db")
    with pytest.raises(LedgerError, match="pg_restore"):
        ledger.restore(tmp_path / "backup.db")
    ledger.close()
