"""The ledger's database: SQLite, in a file that many processes share, or PostgreSQL.

What is written is written once: rows are known by their ids, and totals grow by exactly the rows that came in, in the
same transaction.
"""

# ruff: noqa: S608  the parts that statements are put together from are all written here
from __future__ import annotations

import importlib.util
import json
import math
import os
import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import BigInteger, Boolean, Integer, create_engine, delete, event, func, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from costspan_processor.ledger.rows import Batch, batch_of, totals
from costspan_processor.ledger.schema import (
    MEASURES,
    SERIES,
    audit,
    events,
    hours,
    metadata,
    records,
    series,
    spenders,
    writers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.engine import URL

    from costspan_processor.ledger.rows import Row, Totals

VERSION_TABLE: Final = "costspan_ledger_version"
"""Where Alembic keeps the version of the tables: an application in the same database may have its own."""
MIGRATIONS: Final = Path(__file__).parent / "migrations"

_WAIT_SECONDS: Final = 5
"""How long to wait for another process of the same SQLite file."""
_CONNECT_SECONDS: Final = 3
"""How long to wait for a server to accept a connection."""
_CACHE_KIB: Final = 65_536
_PAGES_BETWEEN_CHECKPOINTS: Final = 4_000
_PARAMETERS: Final = 32_766
"""Of one statement of SQLite; old ones take 999."""
_NULL: Final = math.nan
"""What SQLite takes for NULL: for each None, Python's module asks first whether there is an adapter (0.8 us)."""
_LOCK: Final = 0x636F7374
"""PostgreSQL's advisory lock of whoever migrates: "cost"."""

_Key = tuple[int, str]
"""What a record is known by: its hour and its id."""
_SERVICE: Final = SERIES.index("service")


_migrating = threading.Lock()
"""Alembic's context is the process's."""


def _after_fork_in_child() -> None:
    global _migrating  # noqa: PLW0603
    _migrating = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class LedgerError(Exception):
    """The ledger cannot be opened or used; the message says why, and what to do."""


class AwayError(LedgerError):
    """The database does not answer; it may, later."""


class Writer(NamedTuple):
    """Who writes, as `writers` has it."""

    id: str
    host: str
    process: int
    service: str | None
    started: int
    """Unix seconds."""
    dropped: int = 0
    known: int = 0
    """Calls so far that another writer had written already."""
    ended: int | None = None


class Written(NamedTuple):
    """What became of rows: the others had been written before, by the same writer."""

    new: int
    known: int
    """Had been written by somebody else."""


def open_ledger(url: str, *, create: bool = True) -> Ledger:
    """The ledger at `url`: a path, `sqlite:///path` or `postgresql://user@host/database`; ready for use.

    Its tables are made, or brought up to date, by whichever process comes first; with `create` false there must be
    some. Raises LedgerError, or AwayError if the database does not answer, or ImportError that names the extra.
    """
    ledger = Ledger(url)
    ledger.open(create=create)
    return ledger


def _parsed(url: str) -> URL:
    text = url.strip()
    if not text:
        raise LedgerError("a ledger is a file or a URL: ledger.db, sqlite:///ledger.db or postgresql://host/database")
    if "://" not in text:
        text = f"sqlite:///{Path(text).expanduser()}"
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        raise LedgerError("the ledger's URL is not understood: sqlite:///ledger.db or postgresql://host/db") from None
    backend = {"postgres": "postgresql"}.get(parsed.get_backend_name(), parsed.get_backend_name())
    if backend == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise ImportError("a ledger in PostgreSQL needs psycopg: pip install 'costspan[postgres]'")
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise LedgerError(f"a ledger is kept in SQLite or PostgreSQL, not in {backend!r}")
    if not parsed.database or parsed.database == ":memory:":
        raise LedgerError("a ledger is a file: sqlite:///ledger.db")
    return parsed.set(drivername="sqlite", database=str(Path(parsed.database).absolute()))


class Ledger:
    """A ledger. Nothing is read or written before `open`."""

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self.backend: Final[Literal["sqlite", "postgresql"]] = (
            "sqlite" if self._url.get_backend_name() == "sqlite" else "postgresql"
        )
        self.path: Final = Path(self._url.database or "") if self.backend == "sqlite" else None
        """The file, if it is one."""
        self.name: Final = self._url.render_as_string() if self.path is None else str(self.path)
        """What to call it; without a password."""

    @cached_property
    def engine(self) -> Engine:
        """For whoever reads. Transactions begun on it write only where `writing()` began them."""
        if self.backend == "sqlite":
            engine = create_engine(
                self._url, connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": False}, pool_size=2
            )
            event.listen(engine, "connect", _sqlite_connected)
            event.listen(engine, "begin", _sqlite_begins)
            return engine
        given = self._url.query
        options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "costspan"}
        return create_engine(
            self._url,
            # A pooler between us and the server forgets what was prepared.
            connect_args={"prepare_threshold": None, **{key: options[key] for key in options.keys() - given.keys()}},
            pool_size=2,
            pool_pre_ping=True,
        )  # fmt: skip

    def another(self) -> Ledger:
        """The same ledger, with connections of its own."""
        return Ledger(self._url.render_as_string(hide_password=False))

    def open(self, *, create: bool = True) -> None:
        """See that the tables are there and up to date."""
        path = self.path
        if path is not None:
            if not path.exists() and not create:
                raise LedgerError(f"there is no ledger at {path}: name one with --ledger, or COSTSPAN_LEDGER")
            if path.is_dir() or not path.parent.is_dir():
                raise LedgerError(f"the ledger {path} cannot be made: name a file in a folder that exists")
        try:
            if path is not None:
                self._use_wal()
            self._migrate(create)
        except DBAPIError as error:
            raise self.problem(error) from error

    def _use_wal(self) -> None:
        """Readers and a writer then leave each other alone. The change itself may meet others who make it."""
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                with self.engine.connect() as connection:
                    driver: Any = connection.connection.driver_connection
                    if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                        driver.execute("PRAGMA journal_mode = WAL")
                    return
            except (sqlite3.OperationalError, DBAPIError) as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise self.problem(error) from error
                time.sleep(0.01)
            except sqlite3.DatabaseError as error:
                raise self.problem(error) from error

    def _migrate(self, create: bool) -> None:
        with self.engine.connect() as connection:
            at = self._version(connection)
        if at == _HEAD:
            return
        if at is None and not create:
            raise LedgerError(f"there is no ledger in {self.name}: `costspan ledger migrate` makes its tables")
        from alembic.config import Config
        from alembic.runtime.environment import EnvironmentContext
        from alembic.script import ScriptDirectory

        script = ScriptDirectory(str(MIGRATIONS))
        with (
            _migrating,
            self.writing() as connection,
            EnvironmentContext(
                Config(), script, fn=lambda revision, _: script._upgrade_revs("head", revision)
            ) as environment,
        ):
            if self.backend == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            at = self._version(connection)
            if at is not None and at not in {revision.revision for revision in script.walk_revisions()}:
                raise LedgerError(
                    f"the ledger {self.name} was made by a newer costspan (version {at} of its tables, {_HEAD} here): "
                    "upgrade costspan"
                )
            environment.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE)
            environment.run_migrations()

    def _version(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; others of the same SQLite file wait from its beginning."""
        with self.engine.connect().execution_options(costspan_writes=True) as connection, connection.begin():
            yield connection

    def problem(self, error: BaseException) -> LedgerError:
        """What a database's error means to people."""
        cause = getattr(error, "orig", None) or error
        said = " ".join(str(cause).split())
        if isinstance(cause, sqlite3.DatabaseError) and "not a database" in said:
            return LedgerError(f"{self.name} is no ledger: {said}")
        if "database disk image is malformed" in said:
            return LedgerError(f"{self.name} is damaged: restore a backup (`costspan ledger restore`)")
        if getattr(cause, "sqlstate", None) in {"28P01", "28000", "3D000"}:
            return LedgerError(f"{self.name} cannot be opened: {said}")
        return AwayError(f"{self.name} does not answer: {said}")

    # ---------------------------------------------------------------- writing

    def write(self, rows: Sequence[Row], writer: Writer | None = None) -> Written:
        """`write_batch` of rows of `calls`."""
        return self.write_batch(batch_of(rows), writer)

    def write_batch(self, batch: Batch, writer: Writer | None = None, adds: Totals | None = None) -> Written:
        """Insert what is not there yet, add it to the totals, and note how far its writers are; all or nothing.

        `adds` is what all of it adds to the totals, if that is known.

        Raises what the database raises: `is_about_rows` tells whether what is to be written is to blame.
        """
        with self.writing() as connection:
            fresh, there = self._insert_records(connection, batch) if len(batch) else (batch, {})
            known = len(batch) - len(fresh)
            if there:
                numbers = zip(batch.column("writer"), batch.column("sequence"), strict=True)
                ours = {key for key, number in zip(batch.keys, numbers, strict=True) if there.get(key) == number}
                known -= len(ours)
            if len(fresh):
                if adds is None or len(fresh) < len(batch):
                    adds = totals(fresh)
                used = set(fresh.column("series"))
                named = sorted((id_, *values) for values, id_ in fresh.series.items() if id_ in used)
                self._insert(connection, series, named, "ON CONFLICT (id) DO NOTHING")
                self._add(connection, hours, adds.hours)
                self._add(connection, spenders, adds.spenders)
            if len(fresh) or writer is not None:
                self._note_writers(connection, fresh, writer)
            if writer is not None:
                so_far = {"seen": int(time.time()), "dropped": writer.dropped, "known": writer.known + known}
                so_far |= {} if writer.ended is None else {"ended": writer.ended}
                connection.execute(update(writers).where(writers.c.id == writer.id).values(so_far))
        return Written(len(fresh), known)

    def _insert_records(self, connection: Connection, batch: Batch) -> tuple[Batch, dict[_Key, tuple[str, int]]]:
        """Insert records; returns those that went in, and writer and sequence of those that had been there."""
        if self.backend == "sqlite":
            # Nearly always all of them are new, and that is quicker tried than asked.
            with connection.begin_nested() as attempt:
                if self._insert_values(connection, records, batch.values, "ON CONFLICT DO NOTHING") == len(batch):
                    return batch, {}
                attempt.rollback()
            first = _first_places(batch)
            listed = "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)"
            there = _known(connection, listed, (json.dumps(list(first)),))
            fresh = batch.take(place for key, place in first.items() if key not in there)
            self._insert_values(connection, records, fresh.values)
            return fresh, there
        # Always in the same order, so that two who write the same wait for each other and not in a circle.
        first = dict(sorted(_first_places(batch).items()))
        its = batch.take(first.values())
        statement = f"{self._into(records)} ON CONFLICT DO NOTHING RETURNING hour, id"
        columns = tuple(its.column(column.name) for column in records.columns)
        new = {(hour, id_) for hour, id_ in connection.exec_driver_sql(statement, columns)}
        if len(new) == len(its):
            return its, {}
        rest = _columns([key for key in first if key not in new])
        there = _known(connection, "SELECT * FROM unnest(%s::integer[], %s::text[])", rest)
        return its.take(place for place, key in enumerate(first) if key in new), there

    def _into(self, table: Table, rows: int = 1) -> str:
        """`INSERT` of so many rows: SQLite takes them one after the other, PostgreSQL as an array a column."""
        quote = self.engine.dialect.identifier_preparer.quote
        head = f"INSERT INTO {quote(table.name)} ({', '.join(quote(column.name) for column in table.columns)})"
        if self.backend == "sqlite":
            one = f"({', '.join('?' for _ in table.columns)})"
            return f"{head} VALUES {', '.join([one] * rows)}"
        return f"{head} SELECT * FROM unnest({', '.join(f'%s::{_pg_type(column.type)}[]' for column in table.columns)})"

    def _insert(self, connection: Connection, table: Table, rows: Sequence[Row], then: str = "") -> int:
        """Insert rows, `then` being what to do about those that are there; returns how many went in."""
        if not rows:
            return 0
        if self.backend == "postgresql":
            return connection.exec_driver_sql(f"{self._into(table)} {then}", _columns(rows)).rowcount
        return self._insert_values(connection, table, [value for row in rows for value in row], then)

    def _insert_values(self, connection: Connection, table: Table, values: Sequence[Any], then: str = "") -> int:
        """The same of SQLite, of rows that are one after the other.

        In few statements: after each, a thread of the application that is busy keeps us waiting for the interpreter.
        """
        done = first = 0
        driver: Any = connection.connection.driver_connection
        width = len(table.columns)
        most = min(_PARAMETERS, driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
        size, left = most // width, len(values) // width
        while left:
            while size > left:
                size = max(1, size // 8)
            some = [
                tuple([_NULL if value is None else value for value in values[at : at + size * width]])
                for at in range(first, first + left // size * size * width, size * width)
            ]
            done += connection.exec_driver_sql(f"{self._into(table, size)} {then}", some).rowcount
            first += len(some) * size * width
            left -= len(some) * size
        return done

    def _add(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Add rows of totals to those that are there."""
        keys = ", ".join(column.name for column in table.primary_key)
        sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in MEASURES)
        self._insert(connection, table, rows, f"ON CONFLICT ({keys}) DO UPDATE SET {sums}")

    def _note_writers(self, connection: Connection, fresh: Batch, writer: Writer | None) -> None:
        """Add records to what their writers have written; `writer` is listed even if it has written none."""
        by = Counter(fresh.column("writer"))
        if writer is not None:
            by[writer.id] += 0
        now = int(time.time())
        lines = []
        for id_, count in sorted(by.items()):
            who = writer[:5] if writer is not None and id_ == writer.id else _writer_of(fresh, id_)
            lines.append((*who, now, None, count, 0, 0, 0, 0))
        then = "ON CONFLICT (id) DO UPDATE SET written = writers.written + excluded.written"
        self._insert(connection, writers, lines, then)

    def bury(self, writer: Writer, kept: int) -> int:
        """Note the end of a writer that died, which had kept so many calls; returns how many of them are lost."""
        with self.writing() as connection:
            self._note_writers(connection, Batch(), writer)
            its = writers.c.id == writer.id
            written, known = connection.execute(select(writers.c.written, writers.c.known).where(its)).one()
            lost: int = max(0, kept - written - known - writer.dropped)
            ended = {"dropped": writer.dropped, "lost": lost, "ended": int(time.time())}
            connection.execute(update(writers).where(its).values(ended))
        return lost

    def note(self, happened: Sequence[tuple[str, int, str, str, str, str]]) -> None:
        """Note events of budgets, each once: id, unix seconds, type, severity, budget, and all of it as JSON."""
        rows = [(*one, None, None) for one in happened]
        with self.writing() as connection:
            self._insert(connection, events, rows, "ON CONFLICT (id) DO NOTHING")

    def forget(self, before: float) -> int:
        """Remove the calls of the hours that ended by `before` (unix seconds); returns how many. Totals stay.

        What the HTTP API was asked before that goes too.
        """
        limit = int(before // 3600)
        removed = 0
        with self.engine.connect() as connection:
            found = connection.execute(
                select(records.c.hour).where(records.c.hour < limit).distinct().order_by(records.c.hour)
            )
            ended = list(found.scalars())
        for hour in ended:  # each on its own, so that nobody waits long
            gone: dict[str, int] = {}
            with self.writing() as connection:
                its = records.c.hour == hour
                if self.backend == "sqlite":
                    count = select(records.c.writer, func.count()).where(its).group_by(records.c.writer)
                    gone = dict(iter(connection.execute(count)))
                    connection.execute(delete(records).where(its))
                else:
                    removing = delete(records).where(its).returning(records.c.writer)
                    for writer in connection.execute(removing).scalars():
                        gone[writer] = gone.get(writer, 0) + 1
                for writer, number in sorted(gone.items()):
                    connection.execute(
                        update(writers).where(writers.c.id == writer).values(removed=writers.c.removed + number)
                    )
            removed += sum(gone.values())
        with self.writing() as connection:
            connection.execute(delete(audit).where(audit.c.at < before))
        return removed

    # ---------------------------------------------------------------- the whole of it

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file while others go on writing to it. SQLite alone."""
        if self.path is None:
            raise LedgerError(
                f"{self.name} is a server's: back it up with pg_dump, or write its calls with `costspan ledger export`"
            )
        if target.exists() or not target.absolute().parent.is_dir():
            raise LedgerError(f"{target} cannot be written: name a new file in a folder that exists")
        part = target.with_name(f"{target.name}.part")
        try:
            _copy(self.path, part)
            part.replace(target)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"the backup {target} could not be written: {error}") from error
        finally:
            part.unlink(missing_ok=True)

    def restore(self, source: Path) -> None:
        """Put a backup in the place of all that is in the ledger. SQLite alone; others may have it open."""
        if self.path is None:
            raise LedgerError(f"{self.name} is a server's: restore it with pg_restore")
        Ledger(str(source)).open(create=False)
        try:
            with sqlite3.connect(source) as connection:
                (said,) = connection.execute("PRAGMA quick_check").fetchone()
            connection.close()
            if said != "ok":
                raise LedgerError(f"{source} is damaged and was not restored: {said}")
            self.engine.dispose()
            _copy(source, self.path)
        except sqlite3.Error as error:
            raise LedgerError(f"{source} could not be restored: {error}") from error
        self.open()

    def close(self) -> None:
        """Leave the database."""
        if "engine" in self.__dict__:
            self.engine.dispose()


_HEAD: Final = "0001"
"""The version of the tables that this costspan has: the last migration's."""


def _copy(source: Path, target: Path) -> None:
    reads, writes = sqlite3.connect(source, timeout=_WAIT_SECONDS), sqlite3.connect(target, timeout=_WAIT_SECONDS)
    try:
        reads.backup(writes)
    finally:
        reads.close()
        writes.close()


def is_about_rows(error: BaseException) -> bool:
    """Whether rows cannot be written because of what is in them, and the others could."""
    if isinstance(error, (OverflowError, UnicodeError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    cause = error.orig
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return str(state)[:2] in {"22", "23", "54"}
    of_rows = ("DataError", "IntegrityError", "InterfaceError", "ProgrammingError")
    return not error.connection_invalidated and type(cause).__name__ in of_rows


def is_of_database(error: BaseException) -> bool:
    """Whether an error is the database's, and not a mistake of ours."""
    return isinstance(error, (SQLAlchemyError, LedgerError, sqlite3.Error, OSError))


def _known(connection: Connection, keys: str, parameters: tuple[Any, ...]) -> dict[_Key, tuple[str, int]]:
    """Writer and sequence of the rows that are there, of those that the question `keys` lists."""
    found = connection.exec_driver_sql(
        f"SELECT hour, id, writer, sequence FROM records WHERE (hour, id) IN ({keys})", parameters
    )
    return {(hour, id_): (writer, sequence) for hour, id_, writer, sequence in found}


def _first_places(batch: Batch) -> dict[_Key, int]:
    """Where each key is first."""
    found: dict[_Key, int] = {}
    for place, key in enumerate(batch.keys):
        found.setdefault(key, place)
    return found


def _writer_of(batch: Batch, id_: str) -> tuple[Any, ...]:
    """What is known of a writer whose calls come from another ledger."""
    its = batch.take(place for place, writer in enumerate(batch.column("writer")) if writer == id_)
    one = its.column("series")[0]
    services = (values[_SERVICE] for values, series_ in batch.series.items() if series_ == one)
    return id_, "", 0, next(services), min(its.column("started")) // 10**9


def _columns(rows: Sequence[Row]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))


def _pg_type(kind: object) -> str:
    return {BigInteger: "bigint", Integer: "integer", Boolean: "boolean"}.get(type(kind), "text")


def _sqlite_connected(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions begin where SQLAlchemy says so, those that change tables too.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BETWEEN_CHECKPOINTS}")


def _sqlite_begins(connection: Connection) -> None:
    writes = connection.get_execution_options().get("costspan_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
