"""A process's way into the ledger: nothing is lost that is not counted, and nothing holds up a call."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from sqlalchemy import func, select

from costspan_processor.ledger.checks import verify
from costspan_processor.ledger.counts import Counts, bury_the_dead, folder_of
from costspan_processor.ledger.rows import Kept
from costspan_processor.ledger.schema import calls, writers
from costspan_processor.ledger.store import Ledger, Writer, open_ledger
from costspan_processor.ledger.writer import LedgerWriter, begin
from tests.ledger.calls import kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ledger.postgres import PostgreSQL

ROOT = Path(__file__).parents[2]


def keep(writer: LedgerWriter, one: Kept, span: Any = None) -> None:
    context = None if span is None else trace.set_span_in_context(span)
    writer.keep(*one[:5], context, one.attributes)


def read(url: str, *columns: Any) -> list[tuple[Any, ...]]:
    ledger = open_ledger(url)
    try:
        with ledger.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(select(*columns))]
    finally:
        ledger.close()


def accounts(url: str) -> list[tuple[int, int, int, int]]:
    """Written, dropped, lost and known of every writer."""
    return sorted(read(url, writers.c.written, writers.c.dropped, writers.c.lost, writers.c.known))


@pytest.fixture
def writer(url: str, tmp_path: Path) -> Iterator[LedgerWriter]:
    made = begin(url, service="shop", data=tmp_path / "data")
    assert made is not None
    yield made
    made.close()


def test_a_call_is_in_the_ledger_within_a_second_or_so(writer: LedgerWriter, url: str) -> None:
    for number in range(10):
        keep(writer, kept(number))
    until = time.monotonic() + 20
    while len(read(url, calls.c.id)) < 10:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert writer.dropped == 0


def test_flush_writes_what_waits_and_close_says_that_it_ended(writer: LedgerWriter, url: str) -> None:
    keep(writer, kept())
    assert writer.flush()
    assert accounts(url) == [(1, 0, 0, 0)]
    ((ended, host, process, service),) = read(
        url, writers.c.ended, writers.c.host, writers.c.process, writers.c.service
    )
    assert (ended, process, service) == (None, os.getpid(), "shop")
    assert host
    writer.close()
    ((ended,),) = read(url, writers.c.ended)
    assert time.time() - ended < 60


def test_one_that_kept_nothing_leaves_no_trace(url: str, tmp_path: Path) -> None:
    made = begin(url, service=None, data=tmp_path / "data")
    assert made is not None
    made.close()
    assert accounts(url) == []
    assert not list(tmp_path.rglob("*.calls"))


def test_threads_keep_calls_at_once(writer: LedgerWriter, url: str) -> None:
    def work(start: int) -> None:
        for number in range(start, start + 200):
            keep(writer, kept(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(0, 1_600, 200)))
    assert writer.flush(30)
    assert accounts(url) == [(1_600, 0, 0, 0)]
    ((least, most, different),) = read(
        url, func.min(calls.c.sequence), func.max(calls.c.sequence), func.count(calls.c.sequence.distinct())
    )
    assert (least, most, different) == (1, 1_600, 1_600)


def test_totals_hold_where_calls_end_while_others_are_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few are written, and meanwhile come many, one of which no database takes, and then more than a batch."""
    ledger = Ledger(url)
    made = LedgerWriter(ledger, None, "shop", flush_seconds=60)
    write, come = ledger.write_batch, iter((1_500, 12_000))

    def slow(*given: Any) -> Any:
        for number in range(next(come, 0)):
            call = kept(number)
            keep(made, call._replace(duration=1e11) if number == 1_000 else call)
        return write(*given)

    monkeypatch.setattr(ledger, "write_batch", slow)
    keep(made, kept())
    made.start()
    assert made.flush(60)
    made.close()
    found = verify(open_ledger(url))
    assert found.holds
    assert (found.written, found.dropped) == (1 + 1_499 + 11_999, 2)


def test_a_busy_thread_of_the_application_does_not_hold_the_writer_up(writer: LedgerWriter, url: str) -> None:
    """Whoever gives the interpreter away for a statement has it back 5 ms later: a row each would be 200 a second."""
    for number in range(4_000):
        keep(writer, kept(number))
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            pass

    busy = threading.Thread(target=compute)
    busy.start()
    try:
        assert writer.flush(10)
    finally:
        ended.set()
        busy.join()
    assert accounts(url) == [(4_000, 0, 0, 0)]


# ---------------------------------------------------------------------- whose id a call has


def test_a_call_has_the_id_of_its_span(writer: LedgerWriter, url: str) -> None:
    sampled = TracerProvider().get_tracer("x").start_span("chat")
    dropped = TracerProvider(ALWAYS_OFF).get_tracer("x").start_span("chat")
    for span in (sampled, dropped):
        keep(writer, kept(), span)
    assert writer.flush()
    found = {row[0] for row in read(url, calls.c.id)}
    contexts = [span.get_span_context() for span in (sampled, dropped)]
    assert found == {f"{context.trace_id:032x}:{context.span_id:016x}" for context in contexts}


@pytest.mark.parametrize(("sampled", "remote"), [(True, False), (True, True), (False, True)])
def test_the_span_around_calls_is_not_theirs(writer: LedgerWriter, url: str, sampled: bool, remote: bool) -> None:
    """A tracer that makes no spans hands on the one that is there: two calls in it are two calls."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    around = NonRecordingSpan(SpanContext(7, 8, remote, flags))
    with trace.use_span(around):
        for _ in range(2):
            keep(writer, kept(), trace.NoOpTracer().start_span("chat"))
    keep(writer, kept())
    assert writer.flush()
    found = read(url, calls.c.id, calls.c.trace_id, calls.c.span_id)
    assert len({row[0] for row in found}) == 3
    assert sorted((row[1] or "", row[2]) for row in found) == [("", None), (f"{7:032x}", None), (f"{7:032x}", None)]


# ---------------------------------------------------------------------- what no database takes


def test_a_row_that_no_database_takes_is_dropped_alone(
    writer: LedgerWriter, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    writer.failed = lambda where, _error: told.append(where)
    for number in range(40):
        one = kept(number)
        if number == 17:
            one = one._replace(at=2**80)
        keep(writer, one)
    assert writer.flush(30)
    writer.close()
    assert accounts(url) == [(39, 1, 0, 0)]
    assert told == ["ledger.row"]


def test_texts_that_no_database_takes_are_mended(writer: LedgerWriter, url: str) -> None:
    keep(writer, kept(0, user="a\0b", team="\ud800", session="x" * 4_000))
    keep(writer, kept(1))
    assert writer.flush(30)
    assert len(read(url, calls.c.id)) == 2
    assert writer.dropped == 0


# ---------------------------------------------------------------------- a database that is away


def test_calls_wait_for_a_database_that_is_away(postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    url = postgresql.database()
    made = LedgerWriter(Ledger(url), None, waiting=50)
    made.start()
    keep(made, kept(0))
    assert made.flush()
    postgresql.stop()
    try:
        with caplog.at_level(logging.WARNING):
            for number in range(80):
                keep(made, kept(number))
            assert not made.flush(0.5)
            assert made.dropped == 30
    finally:
        postgresql.start()
    assert made.flush(30)
    made.close()
    assert accounts(url) == [(51, 30, 0, 0)]
    assert [record.message.partition(":")[0] for record in caplog.records if record.name == "costspan.ledger"] == [
        "calls wait for the ledger",
        "the ledger answers again",
    ]


def test_one_that_cannot_be_opened_is_logged_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database\n" * 100)
    with caplog.at_level(logging.ERROR):
        assert begin(str(file), service=None) is None
        assert begin("mysql://host/db", service=None) is None
    assert [record.message for record in caplog.records if record.name == "costspan.ledger"] == [
        f"costspan: no ledger is kept: {file} is no ledger: file is not a database",
        "costspan: no ledger is kept: a ledger is kept in SQLite or PostgreSQL, not in 'mysql'",
    ]


def test_a_ledger_that_goes_bad_is_left_out_from_then_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = str(tmp_path / "ledger.db")
    made = begin(url, service=None)
    assert made is not None
    keep(made, kept(0))
    assert made.flush()
    made.ledger.close()
    for file in tmp_path.glob("ledger.db-*"):
        if file.is_file():
            file.unlink()
    Path(url).write_bytes(b"something else entirely\n" * 100)
    for number in range(1, 4):
        keep(made, kept(number))
    assert not made.flush(5)
    keep(made, kept(4))
    assert made.dropped == 4
    assert "from here on" in caplog.text
    made.close()


def test_another_processs_rows_of_the_same_spans_are_known(url: str, tmp_path: Path) -> None:
    spans = [TracerProvider().get_tracer("x").start_span("chat") for _ in range(5)]
    for _ in range(2):
        made = begin(url, service="shop", data=tmp_path)
        assert made is not None
        for number, span in enumerate(spans):
            keep(made, kept(number), span)
        made.close()
    assert accounts(url) == [(0, 0, 0, 5), (5, 0, 0, 0)]


# ---------------------------------------------------------------------- retention


def test_old_calls_leave(url: str, tmp_path: Path) -> None:
    made = begin(url, service="shop", data=tmp_path, days=30)
    assert made is not None
    now = time.time_ns()
    for age in (0, 29, 31, 400):
        keep(made, kept(age, at=now - age * 86_400 * 10**9))
    made.close()
    # The next one finds what has become old since.
    again = begin(url, service="shop", data=tmp_path, days=30)
    assert again is not None
    until = time.monotonic() + 20
    while len(read(url, calls.c.id)) > 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    again.close()
    assert read(url, writers.c.written, writers.c.removed) == [(4, 2)]


# ---------------------------------------------------------------------- forks, and processes that end

PROGRAM = """
import os, sys, time
sys.path[:0] = {path!r}
from costspan_processor.ledger.writer import begin
from tests.ledger.calls import kept
from pathlib import Path
writer = begin({url!r}, service="shop", data=Path({data!r}))
def keep(number):
    one = kept(number)
    writer.keep(*one[:7])
"""


def program(body: str, url: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    path = [str(ROOT), *(str(ROOT / floor) for floor in ("pricing", "processor"))]
    code = PROGRAM.format(path=path, url=url, data=str(tmp_path / "data")) + body
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)


def test_a_program_that_just_ends_has_written_everything(url: str, tmp_path: Path) -> None:
    done = program("for number in range(300): keep(number)\n", url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert accounts(url) == [(300, 0, 0, 0)]
    assert not list(tmp_path.rglob("*.calls"))


def test_what_a_killed_process_had_not_written_is_counted(url: str, tmp_path: Path) -> None:
    body = (
        "for number in range(40): keep(number)\nwriter.flush()\n"
        "writer._stepping.acquire()\n"  # as if the database took its time
        "for number in range(7): keep(number)\nos.kill(os.getpid(), 9)\n"
    )
    done = program(body, url, tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert accounts(url) == [(40, 0, 0, 0)]
    next_one = begin(url, service="shop", data=tmp_path / "data")
    assert next_one is not None
    until = time.monotonic() + 20
    while accounts(url) != [(40, 0, 7, 0)]:
        assert time.monotonic() < until
        time.sleep(0.05)
    next_one.close()
    assert not list(tmp_path.rglob("*.calls"))


def test_forked_children_write_for_themselves(url: str, tmp_path: Path) -> None:
    body = (
        "writer.after_fork and os.register_at_fork(after_in_child=lambda: writer.after_fork())\n"
        "for number in range(10): keep(number)\n"
        "pids = []\n"
        "for child in range(3):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        for number in range(5): keep(number)\n"
        "        sys.exit(0)\n"  # as a program ends: through `atexit`
        "    pids.append(pid)\n"
        "for pid in pids: assert os.waitpid(pid, 0)[1] == 0\n"
        "for number in range(10, 20): keep(number)\n"
    )
    done = program(body, url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert accounts(url) == [(5, 0, 0, 0)] * 3 + [(20, 0, 0, 0)]
    ids = read(url, calls.c.id)
    assert len(set(ids)) == 35


def test_a_worker_of_multiprocessing_writes_before_it_ends(url: str, tmp_path: Path) -> None:
    body = (
        "import multiprocessing\n"
        "os.register_at_fork(after_in_child=lambda: writer.after_fork())\n"
        "def work():\n    for number in range(5): keep(number)\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start(); child.join(); assert child.exitcode == 0\n"
    )
    done = program(body, url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert accounts(url) == [(5, 0, 0, 0)]


# ---------------------------------------------------------------------- the counts


def test_the_counts_of_the_living_are_left_alone(tmp_path: Path) -> None:
    ledger = open_ledger(str(tmp_path / "ledger.db"))
    folder = folder_of(ledger, None)
    counts = Counts(folder, Writer("one", "host", 1, None, 1))
    counts.values[0] = 3
    assert bury_the_dead(ledger, folder) == 0
    counts.leave()  # closes the file, as the end of the process does
    assert bury_the_dead(ledger, folder) == 3
    assert bury_the_dead(ledger, folder) == 0
    assert accounts(str(tmp_path / "ledger.db")) == [(0, 0, 3, 0)]
    ledger.close()


def test_counts_that_cannot_be_kept_in_a_file_are_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    counts = Counts(tmp_path / "file" / "folder", Writer("one", "host", 1, None, 1))
    assert isinstance(counts.problem, OSError)
    counts.values[0] += 1
    counts.end()
    counts.leave()
