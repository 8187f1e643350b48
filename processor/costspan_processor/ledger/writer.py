"""A process's way into the ledger: calls are kept where they end, and written by a thread.

Where a call ends nothing is worked out and nothing waits: it is put into a queue and counted. What the database has not
taken waits in memory, within bounds; what is dropped or lost is counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
import time
import uuid
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.ledger.counts import Counts, bury_the_dead, folder_of
from costspan_processor.ledger.rows import PLACE, Batch, Row, Rows, Totals, batch_of, rows_of, totals
from costspan_processor.ledger.store import AwayError, Ledger, LedgerError, Writer, is_about_rows, is_of_database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from costspan_processor.attribution import Attribution
    from costspan_processor.budgets.events import Event
    from costspan_processor.conventions import Plain
    from costspan_processor.enrich import Priced

_log = logging.getLogger("costspan.ledger")

FLUSH_SECONDS: Final = 1.0
"""How long a call may wait to be written, which is what a process loses that is killed."""
WAITING: Final = 50_000
"""Calls that wait in memory, at most."""
_BATCH: Final = 9_920
_AT_ONCE: Final = 64
"""Rows that are made before others may have the interpreter, who would wait for it for 5 ms else."""
_A_MOMENT: Final = 5e-5
_WORTH_A_THREAD: Final = 1_000
"""Calls that wait to become rows."""
_RETRY_SECONDS: Final = 2.0
_EXIT_SECONDS: Final = 3.0
_DEAD_EVERY: Final = 60.0
_FORGET_EVERY: Final = 3600.0
_TEXT_AT_MOST: Final = 200
_WHOLE: Final = frozenset(PLACE[name] for name in ("tags", "usage", "lines", "price_source"))
"""Columns whose texts mean nothing cut off."""

_open: weakref.WeakSet[LedgerWriter] = weakref.WeakSet()
_inherited: list[object] = []
"""Databases that a parent has open: nothing of them may be closed in its child, not even by the collector."""


def begin(
    url: str,
    *,
    service: str | None,
    data: Path | None = None,
    days: int = 0,
    own_ids: bool = True,
    before_end: Callable[[], object] = lambda: None,
) -> LedgerWriter | None:
    """A writer for the ledger at `url`; None if there can be none, which is logged. Waits for a server for 3 s at most.

    service: the name of this service. data: folder for what is kept of a database that is no file. days: after how many
    days calls are removed (0: never). own_ids: whether the tracer makes ids of its own for spans that nobody records.
    before_end: called before the last calls are written.
    """
    try:
        ledger = Ledger(url)
        try:
            # Not in the thread: a program that forks in the middle of an import has children that wait for it for ever.
            ledger.open()
        except AwayError as error:
            _log.warning("the ledger is tried again later: %s", error)
    except (LedgerError, ImportError) as error:
        _log.error("costspan: no ledger is kept: %s", error)
        return None
    writer = LedgerWriter(ledger, folder_of(ledger, data), service, days, own_ids, before_end)
    writer.start()
    return writer


class LedgerWriter:
    """Keeps calls and writes them. No method of it raises."""

    def __init__(
        self,
        ledger: Ledger,
        folder: Path | None,
        service: str | None = None,
        days: int = 0,
        own_ids: bool = True,
        before_end: Callable[[], object] = lambda: None,
        *,
        waiting: int = WAITING,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        """`folder` is where the processes of this machine keep their counts; see `begin` for the others."""
        self.ledger = ledger
        self.failed: Callable[[str, BaseException], None] = lambda _where, _error: None
        """Where errors of ours go."""
        self._folder = folder
        self._service = service
        self._days = days
        self._own_ids = own_ids
        self._before_end = before_end
        self._most = waiting
        self._pause = flush_seconds
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._stepping = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._queue: deque[tuple[Any, ...]] = deque()
        self._made: deque[tuple[Batch, Totals]] = deque()
        """Records, with what they add to totals: that too is counted beside the writing."""
        self._batch = Batch()
        self._adds: Totals | None = None
        """What is being written."""
        self._rows = 0
        """How many records wait, are being made or written."""
        self._notes: deque[tuple[str, int, str, str, str, str]] = deque(maxlen=1_000)
        self._busy = False
        self._ending = False
        self._left_out = False
        self._opened = False
        self._away = False
        self._not_before = 0.0
        self._look_for_dead = self._forget_next = 0.0
        self._sequence = 0
        self._known = 0
        self._noted = False
        """Whether the ledger knows of this writer."""
        self.who = Writer(uuid.uuid4().hex[:16], socket.gethostname(), os.getpid(), self._service, int(time.time()))
        self._make = Rows(self.who.id, self._service, self._own_ids)
        self._counts: Counts | None = None
        self._values: memoryview[int] = memoryview(bytearray(16)).cast("Q")

    def start(self) -> None:
        """Begin to count and to write."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._counts is None:
            self._counts = Counts(self._folder, self.who)
            self._values = self._counts.values
            if self._counts.problem is not None:
                self.failed("ledger.counts", self._counts.problem)
            _open.add(self)
            if "multiprocessing.util" in sys.modules:
                from multiprocessing import parent_process, util

                if parent_process() is not None:
                    # A worker of a pool ends without a look at `atexit`.
                    util.Finalize(None, self.finish, exitpriority=10)
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="costspan-ledger", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError:  # the interpreter is ending, and starts none any more
                self._ending = True

    # ---------------------------------------------------------------- where calls end

    def keep(
        self,
        priced: Priced | Plain,
        who: Attribution | None,
        at: int,
        duration: float | None,
        first_chunk: float | None,
        context: Context | None,
        attributes: Mapping[str, Any],
        span: Span | SpanContext | None = None,
        scope: str = "",
        resource: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a call that ended: the fields of a `Kept`. No I/O, and nothing of the row is made here.

        `at` is its start (unix ns), durations are seconds, `context` is that of its span. A call that we have not made
        the span of has it here, with the name of its library and the attributes of its resource.
        """
        with self._lock:
            if self._thread is None and not self._ending:
                self._start()
            values = self._values
            values[0] += 1
            waiting = len(self._queue)
            if self._left_out or waiting + self._rows >= self._most:
                values[1] += 1
                return
            # A plain tuple: to make a named one costs more than all the rest.
            self._queue.append((priced, who, at, duration, first_chunk, context, attributes, span, scope, resource))
        if waiting == _BATCH:
            self._wake.set()
        if self._ending:
            self._step()

    def note(self, event: Event) -> None:
        """Take an event of a budget, to be noted."""
        self._notes.append(
            (event.id, int(event.at.timestamp()), event.type, event.severity, event.budget, event.as_json())
        )
        if self._ending:
            self._step()
        elif self._thread is None:
            self.start()

    @property
    def dropped(self) -> int:
        """Calls that this process has dropped, since too many waited or there was no ledger to write to."""
        return self._values[1]

    @property
    def waiting(self) -> bool:
        """Whether something has not been written yet."""
        # In this order: what has left one place is in the next, or being written.
        return bool(self._queue or self._rows or self._notes or self._busy)

    def flush(self, timeout: float = 10.0) -> bool:
        """Have everything written that waits. False if it was not in `timeout` seconds."""
        until = time.monotonic() + timeout
        while self.waiting and not self._left_out:
            if self._thread is None or self._ending:
                self._step()
            self._wake.set()
            if time.monotonic() >= until:
                return not self.waiting
            time.sleep(0.005)
        return not self._left_out

    def finish(self) -> None:
        """The process ends: write what waits, and from now on at once."""
        try:
            self._before_end()
        except Exception as error:  # noqa: BLE001
            self.failed("ledger.finish", error)
        written = self.flush(_EXIT_SECONDS)
        self._ending = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_EXIT_SECONDS)
        counts = self._counts
        if counts is None or not (written and self._told_the_end()):
            return  # whoever finds the counts notes what is missing
        counts.end()

    def _told_the_end(self) -> bool:
        if not self._noted and not self._values[0]:
            return True
        try:
            with self._stepping:
                self.ledger.write([], self._state()._replace(ended=int(time.time())))
        except Exception as error:  # noqa: BLE001
            if not is_of_database(error):
                self.failed("ledger.finish", error)
            return False
        return True

    def close(self) -> None:
        """Write what waits, and leave the database."""
        self.finish()
        self.ledger.close()
        _open.discard(self)

    def after_fork(self) -> None:
        """In a forked child: the parent writes what it has kept."""
        _inherited.append(self.ledger)
        if self._counts is not None:
            self._counts.leave()
        self.ledger = self.ledger.another()
        self._begin()

    # ---------------------------------------------------------------- the thread

    def _work(self) -> None:
        while not self._ending:
            self._step()
            self._wake.wait(self._pause)
            self._wake.clear()

    def _step(self) -> None:
        """Write what waits. One at a time, and none that raises."""
        with self._stepping:
            self._busy = True
            try:
                if time.monotonic() >= self._not_before and not self._left_out:
                    self._write()
                else:
                    self._make_rows(self._most)  # which are small: that is what waits where the database is away
            except Exception as error:  # noqa: BLE001  the thread must live
                self._fell(error)
            finally:
                self._busy = False

    def _make_rows(self, most: int = _BATCH, beside: bool = False) -> None:
        made = Batch()
        left = min(len(self._queue), most)
        while left > 0:
            with self._lock:
                some = [self._queue.popleft() for _ in range(min(left, _AT_ONCE))]
                self._rows += len(some)
            left -= _AT_ONCE
            for kept in some:
                self._sequence += 1
                try:
                    made.values += self._make.record(kept, self._sequence, made.series)
                except Exception as error:  # noqa: BLE001  whatever is in a span
                    self._drop(error)
            if beside:
                time.sleep(_A_MOMENT)
        if made.values:
            self._made.append((made, totals(made)))

    def _make_rows_beside(self) -> threading.Thread | None:
        """Make rows while others are being written: the database needs no interpreter for its part."""
        thread = threading.Thread(target=self._make_rows, args=(_BATCH, True), name="costspan-ledger-rows", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending
            return None
        return thread

    def _write(self) -> None:
        if not self._opened:
            self.ledger.open()
            self._opened = True
        now = time.monotonic()
        if now >= self._look_for_dead:
            bury_the_dead(self.ledger, self._folder)
            self._look_for_dead = now + _DEAD_EVERY
        most = _BATCH
        self._make_rows()
        while self._batch.values or self._made:
            beside = self._make_rows_beside() if len(self._queue) >= _WORTH_A_THREAD else None
            try:
                most = self._write_rows(most)
            finally:
                if beside is not None:
                    beside.join()
            if not self._made:
                self._make_rows()
        while self._notes:
            some = list(self._notes)
            self.ledger.note(some)
            for _ in some:
                self._notes.popleft()
        if self._away:
            self._away = False
            _log.warning("the ledger answers again")
        if self._days and now >= self._forget_next:
            self.ledger.forget(time.time() - self._days * 86_400)
            self._forget_next = now + _FORGET_EVERY

    def _state(self) -> Writer:
        return self.who._replace(dropped=self._values[1], known=self._known)

    def _write_rows(self, most: int) -> int:
        """Write the rows that have waited longest, at most so many; returns how many to try the next time.

        A row that no database takes is found by writing fewer and fewer, and dropped.
        """
        if not self._batch.values:
            self._batch, self._adds = self._made.popleft()
            while self._made and len(self._batch) + len(self._made[0][0]) <= _BATCH:
                more, _ = self._made.popleft()
                self._batch.values += more.values
                self._batch.series |= more.series
                self._adds = None
        batch = self._batch
        while True:
            some, count = batch, min(most, len(batch))
            if count < len(batch):
                some, self._adds = batch.take(range(count)), None
            try:
                self._known += self.ledger.write_batch(some, self._state(), self._adds).known
                self._noted = True
            except Exception as error:
                if not is_about_rows(error):
                    raise
                if count > 1:
                    most = count // 2
                    continue
                (row,) = rows_of(some)
                cleaned = _clean(row)
                if row != cleaned:
                    mended = batch_of([cleaned])
                    batch.remove(1)
                    batch.values[:0] = mended.values
                    batch.series |= mended.series
                    self._adds = None
                    continue
                self._drop(error)
            else:
                with self._lock:
                    self._rows -= count
            batch.remove(count)
            return min(_BATCH, 2 * most)

    def _drop(self, error: BaseException) -> None:
        with self._lock:
            self._values[1] += 1
            self._rows -= 1
        self.failed("ledger.row", error)

    def _fell(self, error: BaseException) -> None:
        problem = error if isinstance(error, LedgerError) else self.ledger.problem(error)
        if not is_of_database(error):
            self.failed("ledger.write", error)
        if not isinstance(problem, AwayError):
            _log.error("costspan: no ledger is kept from here on: %s", problem)
            with self._lock:
                self._left_out = True
                self._values[1] += len(self._queue) + self._rows
                self._queue.clear()
                self._made.clear()
                self._batch = Batch()
                self._rows = 0
                self._notes.clear()
            return
        self._not_before = time.monotonic() + _RETRY_SECONDS
        if not self._away:
            self._away = True
            _log.warning("calls wait for the ledger: %s", problem)


def _clean(row: Row) -> Row:
    """A row whose texts any database takes, in indexes too."""
    return tuple(
        value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[: None if place in _WHOLE else _TEXT_AT_MOST]
        if isinstance(value, str)
        else value
        for place, value in enumerate(row)
    )


@atexit.register
def _finish() -> None:
    for writer in list(_open):
        writer.finish()
