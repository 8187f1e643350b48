"""The accounts of the processes of one machine: an SQLite file, and a lock beside it that makes them queue."""

# ruff: noqa: S608  the parts that queries are put together from are all written here
from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import sys
import threading
import time
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from costspan_processor.budgets.store import (
    RECORDS_SECONDS,
    REMEMBERED_SECONDS,
    Answer,
    Balance,
    Claim,
    Hold,
    Record,
    Settlement,
    StoreError,
    packed,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
_APPLICATION: Final = 0x636F7374
"""`PRAGMA application_id` of our files: "cost"."""
_WAIT_SECONDS: Final = 4.0
"""How long to queue for the gate. SQLite waits for strangers, such as its own shell, for one second more."""
_POLL_SECONDS: Final = 0.002
_LOOK_SECONDS: Final = 0.01
"""How long the file is taken for the one of its name without looking."""
_EXPIRED_A_STEP: Final = 100
_SWEEP_EVERY: Final = 64
"""Calls settled between two looks for what is old; two rows are looked at for each."""
_FOR_EVER: Final = 2**53
_NEVER: Final = 9e99
_EMPTY: Final = Balance(0, 0, 0)

_SCHEMA: Final = f"""
CREATE TABLE accounts (name TEXT PRIMARY KEY, spent INTEGER NOT NULL, held INTEGER NOT NULL, unsettled INTEGER NOT NULL,
    floor INTEGER NOT NULL, keep_until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE calls (key TEXT PRIMARY KEY, state INTEGER NOT NULL, amount INTEGER NOT NULL, accounts TEXT NOT NULL,
    at REAL NOT NULL, keep_until INTEGER NOT NULL, due REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE settled (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (name TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE records (id TEXT PRIMARY KEY, text TEXT NOT NULL, at REAL NOT NULL, acknowledged_by TEXT NOT NULL);
CREATE TABLE store (epoch TEXT NOT NULL, due REAL NOT NULL);
INSERT INTO store VALUES ('%s', {_NEVER});
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
"""
"""Calls are those under way (`at`: when the hold expires), those never settled, and the latest of those that were
(`at`: when): these go to `settled` many at once, so that to settle changes no more pages than to reserve.

`due` is when a hold needs attention next: when it expires, then when it may be forgotten. The store has the least.
"""
_HELD: Final = 0
_EXPIRED: Final = 1
_SETTLED: Final = 2

_BOOK: Final = (
    "INSERT INTO accounts VALUES (?1, ?2, ?3, 0, 0, ?4) ON CONFLICT (name) "
    "DO UPDATE SET spent = spent + ?2, held = held + ?3, keep_until = ?4"
)
_MOVE: Final = "UPDATE accounts SET spent = spent + ?2, held = held + ?3, unsettled = unsettled + ?4 WHERE name = ?1"
_MONEY: Final = "name, spent + floor, accounts.held, unsettled"
_CALL: Final = "EXISTS (SELECT 1 FROM settled WHERE key = ?1 AND at >= ?2), state, amount, calls.accounts"
_SWEEPS: Final = (
    ("settled", "key", f"at < ?3 - {REMEMBERED_SECONDS}"),
    ("accounts", "name", "keep_until < ?3 AND held = 0"),
)
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_IOERR: "look whether the disk is full or failing",
    sqlite3.SQLITE_READONLY: "let this process write to the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "make the folder, and let this process write to it",
    sqlite3.SQLITE_CORRUPT: "move the file away, or bring back a copy",
    sqlite3.SQLITE_NOTADB: "move the file away, or bring back a copy",
    sqlite3.SQLITE_BUSY: "end the program that keeps it locked",
}


class SQLiteStore:
    """Accounts in a file, for the processes of one machine; not for a network file system.

    A step is one transaction. It is safe when a process dies at any point; when the machine loses its power, the last
    steps before may be lost. The file is opened by the first step, and again when it was deleted or has failed.
    clock: unix seconds; decides when holds expire. Raises ImportError if portalocker is missing.
    """

    local = False

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> None:
        self.now: Final = clock
        self._gate: Final = _Gate()
        self._path: Final = str(Path(path).absolute())
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._looked_for = 0.0
        self._epoch = ""
        self._settled = random.randrange(_SWEEP_EVERY)  # noqa: S311  so that short-lived processes sweep too
        self._looked_at = {table: "" for table, _, _ in _SWEEPS}
        _stores.add(self)

    def reserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        def step(now: float) -> Answer:
            self._end_all(first, now)
            (is_old, state, _, _), balances = self._look(0 if first else now, claims, key, now - REMEMBERED_SECONDS)
            if is_old or state is not None:
                return self._answer(claims, balances)
            if amount:
                for claim in claims:
                    if claim.most is not None:
                        spent, held, _ = together(claim, balances)
                        if spent + held + amount > claim.most:
                            return self._answer(claims, balances, claim.account)
            keep_until = 0
            for claim in claims:
                name = claim.account
                keep = claim.keep_until or _FOR_EVER
                keep_until = max(keep_until, keep)
                self._execute(_BOOK, (name, 0, amount, keep))
                spent, held, unsettled = balances[name]
                balances[name] = Balance(spent, held + amount, unsettled)
            expires = now + ttl
            names = packed(tuple([claim.account for claim in claims]))
            self._execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)",
                (key, _HELD, amount, names, expires, keep_until, expires),
            )
            if expires < self._due:
                self._execute("UPDATE store SET due = ?", (expires,))
            return self._answer(claims, balances)

        return self._step(step)

    async def areserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Not asyncio: there is no loop of ours to hand the work to.
            return self.reserve(key, amount, claims, ttl, first)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "costspan-budgets")
        return await loop.run_in_executor(self._worker, self.reserve, key, amount, claims, ttl, first)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        return self._step(lambda now: self._end_all(settlements, now))

    def renew(self, owner: str, keys: Sequence[str], ttl: float) -> int:
        def step(now: float) -> int:
            self._look(now)
            until = now + ttl
            for key in keys:
                self._execute(
                    "UPDATE calls SET at = max(at, ?2), due = max(at, ?2) WHERE key = ?1 AND state = ?3 AND at > ?4",
                    (key, until, _HELD, now),
                )
            self._execute("DELETE FROM owners WHERE until <= ?", (now,))
            self._execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (owner, until))
            return int(self._execute("SELECT count(*) FROM owners").fetchone()[0])

        return self._step(step)

    def read(self, claims: Iterable[Claim]) -> Answer:
        claims = tuple(claims)
        return self._step(lambda now: self._answer(claims, self._look(now, claims, whole=True)[1]))

    def restore(self, epoch: str, known: Mapping[str, int]) -> None:
        def step(_: float) -> None:
            if epoch == self._epoch:
                for name, spent in known.items():
                    self._execute(
                        "INSERT INTO accounts VALUES (?1, 0, 0, 0, ?2, ?3) "
                        "ON CONFLICT (name) DO UPDATE SET floor = max(floor, ?2)",
                        (name, spent, _FOR_EVER),
                    )

        self._step(step)

    def accounts(self, prefix: str) -> Mapping[str, Balance]:
        def step(now: float) -> Mapping[str, Balance]:
            self._look(now, whole=True)
            # No name that begins so comes after the prefix with the last character of all.
            found = self._execute(
                f"SELECT {_MONEY} FROM accounts WHERE name BETWEEN ? AND ?", (prefix, prefix + "\U0010ffff")
            )
            return {name: Balance(*money) for name, *money in found}

        return self._step(step)

    def holds(self) -> list[Hold]:
        def step(now: float) -> list[Hold]:
            self._look(now, whole=True)
            found = self._execute(
                f"SELECT key, amount, accounts, at, state FROM calls WHERE state <> {_SETTLED} ORDER BY at, key"
            )
            return [
                Hold(key, amount, _unpacked(accounts), expires, state == _EXPIRED)
                for key, amount, accounts, expires, state in found
            ]

        return self._step(step)

    def post(self, record: Record) -> bool:
        def step(now: float) -> bool:
            self._execute("DELETE FROM records WHERE at < ?", (now - RECORDS_SECONDS,))
            done = self._execute("INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", record)
            return bool(done.rowcount)

        return self._step(step)

    def records(self) -> list[Record]:
        def step(now: float) -> list[Record]:
            found = self._execute(
                "SELECT * FROM records WHERE at >= ? ORDER BY at DESC, rowid DESC", (now - RECORDS_SECONDS,)
            )
            return [Record(*row) for row in found]

        return self._step(step)

    def acknowledge(self, record_id: str, by: str) -> bool:
        def step(_: float) -> bool:
            done = self._execute("UPDATE records SET acknowledged_by = ? WHERE id = ?", (by, record_id))
            return bool(done.rowcount)

        return self._step(step)

    def after_fork(self) -> None:
        # The connection was closed before: see _before_fork.
        self._lock = threading.Lock()
        self._worker = None

    def close(self) -> None:
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None
        with self._lock:
            self._drop()

    # ---------------------------------------------------------------- inside a step

    def _step(self, work: Callable[[float], T]) -> T:
        """Do `work` in a transaction of its own; it is given the time."""
        lock = self._lock
        if not lock.acquire(True, _WAIT_SECONDS):
            raise StoreError(f"the budgets in {self._path} have been in use by another thread for {_WAIT_SECONDS:g} s")
        try:
            self._gate.enter(self._path)
            if self._connection is None or time.monotonic() >= self._looked_for:
                self._connect()
            self._execute("BEGIN IMMEDIATE")
            result = work(self.now())
            self._execute("COMMIT")
        except (sqlite3.Error, OSError, OverflowError) as error:
            self._drop()
            raise self._failed(error) from error
        except BaseException:
            self._drop()
            raise
        else:
            return result
        finally:
            self._gate.leave()
            lock.release()

    def _failed(self, error: Exception) -> StoreError:
        if isinstance(error, FileNotFoundError):
            return StoreError(f"budgets in {self._path}: there is no such folder: make it")
        # The extended code of an error has the plain one in its lowest byte.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_IOERR and isinstance(error, sqlite3.Error):
            return StoreError(f"budgets in {self._path}: {error} ({error.sqlite_errorname}): {_REMEDIES[code]}")
        remedy = _REMEDIES.get(code)
        return StoreError(f"budgets in {self._path}: {error}" + (f": {remedy}" if remedy else ""))

    def _look(
        self,
        now: float,
        claims: Sequence[Claim] = (),
        key: str | None = None,
        since: float = 0.0,
        *,
        whole: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Balance]]:
        """See to holds that are due, to some of them or, if `whole`, to all; then read, in one query.

        Returns what is known of the call of this key: whether it was settled, not before `since`, its state, amount,
        accounts; and what the accounts of the claims have, each by itself.
        """
        names = [claim.account for claim in claims]
        for claim in claims:
            if claim.also:
                names += claim.also
        query = _query(len(names))
        while True:
            rows = self._execute(query, (key, since, *names)).fetchall()
            self._due = rows[0][0]
            if self._due > now:
                break
            self._expire(now)
            # What was seen to is not to be seen to again, even if this step comes to nothing.
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")
            if not whole:
                now = 0
        balances = dict.fromkeys(names, _EMPTY)
        for _, _, _, _, _, name, spent, held, unsettled in rows:
            if name is not None:
                balances[name] = Balance(spent, held, unsettled)
        return rows[0][1:5], balances

    def _answer(
        self, claims: Sequence[Claim], balances: Mapping[str, Balance], refused_by: str | None = None
    ) -> Answer:
        return Answer(
            refused_by is None,
            refused_by,
            {claim.account: together(claim, balances) for claim in claims},
            self._epoch,
        )

    def _end_all(self, settlements: Sequence[Settlement], now: float) -> list[Answer]:
        answers = []
        for index, (key, amount, claims) in enumerate(settlements):
            call, balances = self._look(0 if index else now, claims, key, now - REMEMBERED_SECONDS)
            for name, spent, held, unsettled in self._end(key, amount, claims, call, now):
                if name in balances:
                    before = balances[name]
                    balances[name] = Balance(before.spent + spent, before.held + held, before.unsettled + unsettled)
            answers.append(self._answer(claims, balances))
        self._settled += len(settlements)
        if self._settled >= _SWEEP_EVERY:
            self._sweep(now)
        return answers

    def _end(
        self, key: str, amount: int, claims: Sequence[Claim], call: tuple[Any, ...], now: float
    ) -> list[tuple[str, int, int, int]]:
        """Settle one call; returns what that changed: account, spent, held, unsettled."""
        is_old, state, held, accounts = call
        if is_old or state == _SETTLED:
            return []
        if state is None:
            self._execute("INSERT INTO calls VALUES (?, ?, ?, '[]', ?, 0, ?)", (key, _SETTLED, amount, now, _NEVER))
            for claim in claims:
                self._execute(_BOOK, (claim.account, amount, 0, claim.keep_until or _FOR_EVER))
            return [(claim.account, amount, 0, 0) for claim in claims]
        self._execute("UPDATE calls SET state = ?2, at = ?3, due = ?4 WHERE key = ?1", (key, _SETTLED, now, _NEVER))
        spent, held, unsettled = (amount, -held, 0) if state == _HELD else (amount - held, 0, -held)
        done = [(name, spent, held, unsettled) for name in _unpacked(accounts)]
        for change in done:
            self._execute(_MOVE, change)
        return done

    def _expire(self, now: float) -> None:
        """Charge holds that have expired, forget expired ones whose accounts have gone."""
        due = self._execute(
            "SELECT key, amount, accounts, state FROM calls WHERE due <= ? ORDER BY due LIMIT ?",
            (now, _EXPIRED_A_STEP),
        ).fetchall()
        for key, amount, accounts, state in due:
            if state == _EXPIRED:
                self._execute("DELETE FROM calls WHERE key = ?", (key,))
                continue
            for name in _unpacked(accounts):
                self._execute(_MOVE, (name, amount, -amount, amount))
            # One that may be forgotten at once still waits for a while: it is due in the next step.
            self._execute("UPDATE calls SET state = ?, due = keep_until WHERE key = ?", (_EXPIRED, key))
        (self._due,) = self._execute(f"SELECT coalesce(min(due), {_NEVER}) FROM calls").fetchone()
        self._execute("UPDATE store SET due = ?", (self._due,))

    def _sweep(self, now: float) -> None:
        """Move settled calls; look at some rows for old ones. Each round goes on where the last one ended."""
        self._execute(f"INSERT OR REPLACE INTO settled SELECT key, at FROM calls WHERE state = {_SETTLED}")
        self._execute(f"DELETE FROM calls WHERE state = {_SETTLED}")
        for table, key, old in _SWEEPS:
            rows = self._execute(
                f"SELECT {key}, {old} FROM {table} WHERE {key} > ?1 ORDER BY {key} LIMIT ?2",
                (self._looked_at[table], 2 * self._settled, now),
            ).fetchall()
            self._looked_at[table] = rows[-1][0] if rows else ""
            for name, is_old in rows:
                if is_old:
                    self._execute(f"DELETE FROM {table} WHERE {key} = ?", (name,))
        self._settled = 0

    # ---------------------------------------------------------------- the file

    def _connect(self) -> None:
        """Open the file, unless it is open and still the one of this name. Called inside the gate."""
        if self._connection is not None:
            self._looked_for = time.monotonic() + _LOOK_SECONDS
            try:
                status = os.stat(self._path)  # noqa: PTH116  a third of the time of Path.stat
            except FileNotFoundError:
                pass
            else:
                if (status.st_dev, status.st_ino) == self._file:
                    return
            self._drop()
            self._gate.enter(self._path)
        with suppress(FileExistsError):
            # Closing an old file here would give up locks that SQLite has on it; this one nobody can have locked.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=rw", 1.0, isolation_level=None, check_same_thread=False, uri=True
        )
        self._connection = connection
        self._execute: Callable[..., sqlite3.Cursor] = connection.cursor().execute
        self._prepare()
        status = os.stat(self._path)  # noqa: PTH116
        self._file = (status.st_dev, status.st_ino)

    def _prepare(self) -> None:
        execute = self._execute
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        if (application, version) != (_APPLICATION, SCHEMA_VERSION):
            (tables,) = execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if application == _APPLICATION:
                raise StoreError(
                    f"the budgets in {self._path} have schema {version}, and this costspan knows {SCHEMA_VERSION}: "
                    "install the newer costspan everywhere, or use another file"
                )
            if tables:
                raise StoreError(f"{self._path} is a database of something else: name another file for the budgets")
            # Small pages: a step changes two or three, and each goes to the log as a whole.
            execute("PRAGMA page_size = 1024")
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self._path} cannot have a write-ahead log here: put it on a local disk")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA wal_autocheckpoint = 4000")
        if application != _APPLICATION:
            execute("BEGIN IMMEDIATE")
            for statement in (_SCHEMA % uuid.uuid4().hex).split(";"):
                execute(statement)
            execute("COMMIT")
        (self._epoch,) = execute("SELECT epoch FROM store").fetchone()

    def _drop(self) -> None:
        """Close everything; what was not committed is undone."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self._gate.close()


_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_stopped: list[SQLiteStore] = []


def _before_fork() -> None:
    """Close the connections: SQLite can use none of a parent, and takes its locks for those of the child."""
    for store in list(_stores):
        if store._lock.acquire(True, _WAIT_SECONDS):
            _stopped.append(store)
            store._drop()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop()._lock.release()


def _after_fork_in_child() -> None:
    _stopped.clear()
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class _Gate:
    """A lock beside the database, which makes processes queue fairly: SQLite's own waiting starves some of them.

    It is for fairness alone: if somebody deletes the lock file, transactions still exclude each other.
    """

    def __init__(self) -> None:
        self._lock, self._unlock, self._taken = _locking()
        self._descriptor: int | None = None
        self._entered = False

    def enter(self, path: str) -> None:
        """Wait for our turn. Raises StoreError after some seconds."""
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._descriptor = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock(descriptor)
        except self._taken:
            self._wait(descriptor, path)
        self._entered = True

    def _wait(self, descriptor: int, path: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            # Always as short: whoever waits longer and longer, as SQLite does, is overtaken again and again.
            time.sleep(_POLL_SECONDS * random.random())  # noqa: S311
            with suppress(self._taken):
                self._lock(descriptor)
                return
        raise StoreError(f"another process has kept {path}-lock for {_WAIT_SECONDS:g} s: end it if it hangs")

    def leave(self) -> None:
        """Let the next one in."""
        if self._entered:
            self._entered = False
            self._unlock(self._descriptor)

    def close(self) -> None:
        """Close the lock file, which unlocks it."""
        self._entered = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _locking() -> tuple[Callable[[Any], object], Callable[[Any], object], type[Exception]]:
    """How to lock a file at once or not at all, how to unlock it, and what is raised if it is locked."""
    try:
        from portalocker import AlreadyLocked, LockFlags, portalocker
    except ImportError as error:
        raise ImportError("budgets in a file need portalocker: pip install 'costspan[sqlite]'") from error
    if sys.platform == "win32":
        locker = portalocker.MsvcrtLocker()
        return partial(locker.lock, flags=LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING), locker.unlock, AlreadyLocked
    # The system's own call, which is four times as fast as the object around it.
    flock = portalocker.FlockLocker().locker
    take, give = int(LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING), int(LockFlags.UNBLOCK)
    return lambda file: flock(file, take), lambda file: flock(file, give), BlockingIOError


@cache
def _query(names: int) -> str:
    marks = ", ".join(f"?{number + 3}" for number in range(names))
    among = f"= {marks}" if names == 1 else f"IN ({marks})"
    return (
        f"SELECT store.due, {_CALL}, {_MONEY} FROM store LEFT JOIN calls ON key = ?1 LEFT JOIN accounts ON name {among}"
    )


@lru_cache(1024)
def _unpacked(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
