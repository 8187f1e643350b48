"""The audit log: who has asked the HTTP API for what, in the ledger's table `audit`."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from costspan_processor.ledger.schema import audit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

_log = logging.getLogger("costspan")

_WAITING_AT_MOST: Final = 10_000
_AT_ONCE: Final = 500
_TRIES: Final = 3
_LONGEST_PATH: Final = 300


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: in an SQLite ledger, one that waits for its turn at its beginning."""
    with engine.connect().execution_options(costspan_writes=True) as connection, connection.begin():
        yield connection


class Audit:
    """Writes on a thread of its own, as soon as there is something. What no ledger takes is counted in `lost`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING_AT_MOST)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.lost = 0

    def note(self, key: str, method: str, path: str, status: int) -> None:
        """Keep that a key has asked for a path, and what it was answered. Does no I/O, raises nothing."""
        row = {
            "at": int(time.time()), "key": key, "method": method[:16], "path": path[:_LONGEST_PATH], "status": status
        }  # fmt: skip
        try:
            self._begun()
            self._waiting.put_nowait(row)
        except (queue.Full, RuntimeError):
            # RuntimeError: an interpreter that ends starts no thread any more.
            self._lose(1, "the ledger is too slow, or away")

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits. What is noted afterwards starts anew."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(timeout)

    def _begun(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="costspan-audit", daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self.close)

    def _work(self) -> None:
        going = True
        while going:
            rows = [self._waiting.get()]
            while len(rows) < _AT_ONCE:
                try:
                    rows.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            going = None not in rows
            if some := [row for row in rows if row is not None]:
                self._write(some)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        for left in reversed(range(_TRIES)):
            try:
                with writing(self._engine) as connection:
                    connection.execute(insert(audit), rows)
            except SQLAlchemyError as error:
                if not left:
                    self._lose(len(rows), str(error.__cause__ or type(error).__name__))
                else:
                    time.sleep(0.2)
            else:
                return

    def _lose(self, count: int, why: str) -> None:
        with self._lock:
            first, self.lost = not self.lost, self.lost + count
        if first:
            _log.error("costspan: the audit log is not complete: %s", why)
