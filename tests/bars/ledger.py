"""The ledger: as quick as it must be, in agreement with spans and metrics, and whole after any `kill -9`."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.budgets.periods import period_at
from tests.bars.load import PICO, ROOT, Asked, _counters, _kinds, _watched_providers
from tests.bars.report import Bar, at_most, none_of, on_path, python, skipped, without_program
from tests.bars.server import serving
from tests.bench.instructions import available, instructions
from tests.bench.test_ledger import IMPORTS, LEDGER
from tests.bench.test_processor import SETUP
from tests.ledger.postgres import PostgreSQL, binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LEAST: Final = 20_000
"""Rows a second into SQLite."""
REPORT_SECONDS: Final = 2.0
_IDLE: Final = "with --full only: a wall time says something on an idle machine alone"
_WAITING: Final = 50_000
_MOST_CALLS: Final = 1_000_000
"""That one process of the killing may keep."""


def run(name: str, *arguments: str, seconds: float = 3600) -> Any:
    """What one of the programs below found, in a process of its own."""
    out = python("-m", "tests.bars.ledger", name, *arguments, environment=on_path(), seconds=seconds)
    return json.loads(out.splitlines()[-1])


# ---------------------------------------------------------------------- how quick it is


def rate(full: bool) -> Iterator[Bar]:
    """A month of calls from where they end to where they are committed, with all indexes: rows a second; its report."""
    if not full:
        names = ("ledger.rate.sqlite", "ledger.report.sqlite", "ledger.rate.postgresql", "ledger.report.postgresql")
        yield from skipped(names, _IDLE)
        return
    calls = _MOST_CALLS
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "ledger.db")
        found = run("rate", file, str(calls), str(_last_month()))
        plain = run("rows", str(Path(folder) / "plain.db"), str(min(calls, 100_000)))
        took, how = _reported(file)
    note = (
        f"{calls:,} calls; {found['of_processors']:,.0f} a second of processors; SQLite alone takes "
        f"{plain['of_processors']:,.0f} such rows a second of processors"
    )
    yield Bar("ledger.rate.sqlite", f"{found['rate']:,.0f}/s", f">= {LEAST:,}", found["rate"] >= LEAST, note)
    yield at_most("ledger.report.sqlite", took, REPORT_SECONDS, ".2f", f"{how}, {calls:,} calls")
    if binaries() is None:
        yield from without_program(("ledger.rate.postgresql", "ledger.report.postgresql"), "postgres")
        return
    with PostgreSQL() as server:
        url = server.database()
        found = run("rate", url, str(calls), str(_last_month()))
        took, how = _reported(url)
    note = f"{calls:,} calls; {found['of_processors']:,.0f} a second of this side's processors"
    yield Bar("ledger.rate.postgresql", f"{found['rate']:,.0f}/s", "told", True, note)
    yield Bar("ledger.report.postgresql", f"{took:.2f}", "told", True, f"{how}, {calls:,} calls")


def _last_month() -> int:
    """Its first unix second (UTC)."""
    return period_at("month", period_at("month", time.time(), "UTC").start - 1, "UTC").start


def _reported(url: str) -> tuple[float, str]:
    """How long the month's report takes with everything in it, in seconds, and with Python's start and imports.

    The best of five processes.
    """
    took, in_all = [], []
    with tempfile.TemporaryDirectory() as folder:
        # As an installed package is: compiled.
        environment = {**on_path(), "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(5):
            began = time.monotonic()
            report = Path(folder) / "report.html"
            out = python("-m", "tests.bars.ledger", "report", url, str(report), environment=environment)
            in_all.append(time.monotonic() - began)
            took.append(float(out.splitlines()[-1]))
            assert "<svg" in report.read_text()
    return min(took), f"s, a month's report with charts and advice; {min(in_all):.2f} with Python's start and imports"


def _report(url: str, file: str) -> float:
    from costspan.cli import app
    from costspan.insight import report, show, study

    assert all((report, show, study))  # they are imported before the clock runs
    day = datetime.fromtimestamp(_last_month(), UTC).date()
    began = time.monotonic()
    app(["report", "month", "--date", str(day), "--format", "html", "--ledger", url, "-o", file], standalone_mode=False)
    return time.monotonic() - began


def _made(count: int) -> list[Any]:
    """Different calls of 2,000 users, to be kept again and again at other instants."""
    from costspan_pricing import PriceBook
    from costspan_processor.attribution import Attribution, attributes_of
    from costspan_processor.conventions import read
    from costspan_processor.enrich import assess
    from tests.ledger.calls import AT

    book = PriceBook.bundled()
    chance = random.Random(9)
    calls = []
    for number in range(count):
        if number % 25 == 0:  # calls of a conversation
            who = Attribution(
                attributes_of(
                    team=f"team-{number % 8}", feature=f"feature-{number % 20}", task=f"task-{number % 10}",
                    user=f"user-{chance.randrange(2_000)}", session=f"session-{number}", conversation=f"talk-{number}",
                )
            )  # fmt: skip
        model = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o")[number % 3]
        attributes = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": model,
            "gen_ai.response.model": model, "gen_ai.response.id": f"chatcmpl-{chance.getrandbits(96):024x}",
            "server.address": "api.openai.com", "gen_ai.usage.input_tokens": 1_000 + number % 997,
            "gen_ai.usage.cache_read.input_tokens": 400, "gen_ai.usage.output_tokens": number % 311,
            "costspan.prompt.hash": f"{chance.getrandbits(64):016x}",
            "costspan.prompt.prefix_hash": f"{number % 50:016x}", "costspan.prompt.prefix_share": 0.5,
        }  # fmt: skip
        reading = read(attributes)
        assert reading is not None
        calls.append((assess(reading, AT, book), who, attributes))
    return calls


def _rate(url: str, calls: str, begin: str) -> dict[str, float]:
    from costspan_processor.ledger.store import Ledger
    from costspan_processor.ledger.writer import LedgerWriter

    made, count, first = _made(20_000), int(calls), int(begin) * 10**9
    step = 28 * 86_400 * 10**9 // count  # any month has that many days
    writer = LedgerWriter(Ledger(url), None, "shop", waiting=_WAITING)
    began, used = time.monotonic(), time.process_time()
    writer.start()
    for number in range(count):
        priced, who, attributes = made[number % len(made)]
        writer.keep(priced, who, first + number * step, 1.5, None, None, attributes)
        if number % 1_000 == 999:
            while len(writer._queue) + writer._rows > _WAITING - 2_000:
                time.sleep(0.002)
    assert writer.flush(3_000)
    took, cpu = time.monotonic() - began, time.process_time() - used
    assert writer.dropped == 0
    writer.close()
    return {"rate": count / took, "of_processors": count / cpu}


def _rows(path: str, calls: str) -> dict[str, float]:
    """The same rows into the same table by `executemany` alone: what no way to SQLite can be quicker than."""
    from costspan_processor.ledger.rows import Kept, Rows
    from costspan_processor.ledger.schema import records as table
    from costspan_processor.ledger.store import open_ledger
    from tests.ledger.calls import AT

    made, make = _made(20_000), Rows("writer", "shop")
    rows = []
    for number in range(int(calls)):
        priced, who, attributes = made[number % len(made)]
        rows.append(make.record(Kept(priced, who, AT + number * 10**9, 1.5, None, None, attributes), number, {}))
    ledger = open_ledger(path)
    statement = ledger._into(table)
    began, used = time.monotonic(), time.process_time()
    for first in range(0, len(rows), 5_000):
        with ledger.writing() as connection:
            driver: Any = connection.connection.driver_connection
            driver.executemany(statement, rows[first : first + 5_000])
    took, cpu = time.monotonic() - began, time.process_time() - used
    return {"rate": len(rows) / took, "of_processors": len(rows) / cpu}


def hot_path(full: bool) -> Iterator[Bar]:
    """Instructions that a ledger adds to a call, where it ends."""
    if not available():
        yield from without_program(("ledger.instructions",), "valgrind")
        return
    setup = SETUP + IMPORTS + LEDGER
    kept = instructions("keeps()", setup + "observer.ledger = writer\n", 1_000 if full else 400, on_path())
    without = instructions("without()", setup, 1_000 if full else 400, on_path())
    yield at_most("ledger.instructions", kept - without, 15_000)


# ---------------------------------------------------------------------- whether it agrees


def agreement(full: bool) -> Iterator[Bar]:
    """Real SDK clients in many threads: rows against spans one by one, and against counters, to the picodollar."""
    threads, calls = (64, 200) if full else (8, 25)
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        found = run("agree", url, str(Path(folder) / "ledger.db"), str(threads), str(calls))
    yield none_of(
        "ledger.agreement", found["wrong"], f"{found['calls']} calls", "rows that differ from span or counter"
    )


def _agree(url: str, file: str, threads: str, calls: str) -> dict[str, Any]:
    import openai
    from sqlalchemy import select

    import costspan
    from costspan_processor.ledger.checks import verify
    from costspan_processor.ledger.schema import calls as table
    from costspan_processor.ledger.store import open_ledger

    os.environ["COSTSPAN_LEDGER"] = file
    reader, exporter = _watched_providers()

    def work(worker: int) -> None:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        with client, costspan.track(feature=f"feature-{worker % 8}"):
            for call in range(int(calls)):
                asked = Asked.numbered(worker, call)
                with suppress(openai.NotFoundError):
                    answer = client.chat.completions.create(**asked.arguments)
                    if asked.streamed:
                        list(answer)

    with ThreadPoolExecutor(int(threads)) as pool:
        list(pool.map(work, range(int(threads))))
    for name, call in _kinds(url).items():
        with costspan.track(feature=name):
            call(17)
    assert costspan.flush(60)
    wrong: list[str] = []
    ledger = open_ledger(file)
    with ledger.engine.connect() as connection:
        rows = {row["id"]: row for row in connection.execute(select(table)).mappings()}
    spans = {}
    for span in exporter.get_finished_spans():
        context = span.get_span_context()
        assert context is not None
        spans[f"{context.trace_id:032x}:{context.span_id:016x}"] = span.attributes or {}
    wrong += [f"{id_} is a row and no span" for id_ in rows.keys() - spans.keys()]
    wrong += [f"{id_} is a span and no row" for id_ in spans.keys() - rows.keys()]
    counted: Counter[tuple[str, ...]] = Counter()
    for id_, row in rows.items():
        told = spans.get(id_, {})
        usd: Any = told.get("costspan.cost.total")
        on_span = None if usd is None else round(usd * PICO), told.get("costspan.cost.status")
        if on_span != (row["cost"], row["status"]):
            wrong.append(f"{id_}: {row['cost']} {row['status']} in the ledger, {on_span} on the span")
        labels = row["request_model"] or "", row["feature"] or ""
        counted["costspan.calls", *labels] += 1
        counted["costspan.cost", *labels] += row["cost"] or 0
        counted["costspan.cache.saved", *labels] += row["saved"]
    shown: Counter[tuple[str, ...]] = Counter()
    for (name, model, _component, _status, feature), value in _counters(reader).items():
        if name != "costspan.tokens":
            shown[name, model, feature] += value
    wrong += [
        f"{key}: {counted[key]} in the ledger, {shown[key]} on the counter"
        for key in sorted(counted.keys() | shown.keys())
        if counted[key] != shown[key]
    ]
    found = verify(ledger)
    wrong += [problem for check in found.checks for problem in check.problems]
    costspan.shutdown()
    return {"calls": len(rows), "wrong": wrong}


# ---------------------------------------------------------------------- kill -9


def kill(full: bool) -> Iterator[Bar]:
    """Processes that keep calls, each killed at random: what the ledger says of them against what they did."""
    from costspan_processor.ledger.checks import verify
    from costspan_processor.ledger.counts import bury_the_dead, folder_of
    from costspan_processor.ledger.schema import calls, writers
    from costspan_processor.ledger.store import open_ledger
    from costspan_processor.ledger.writer import FLUSH_SECONDS

    kills = 200 if full else 10
    chance = random.Random(11)
    wrong: list[str] = []
    kept = lost = 0
    ages = [0.0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "ledger.db"
        ended: dict[int, float] = {}
        for first in range(0, kills, 4):
            # Some at a time, so that they are in each other's way.
            some = [_victim(file, folder / f"{number}.truth") for number in range(first, min(first + 4, kills))]
            for offset in chance.sample(range(len(some)), len(some)):
                time.sleep(chance.random() * 1.2)
                some[offset].send_signal(signal.SIGKILL)
                some[offset].wait()
                ended[some[offset].pid] = time.monotonic()
        ledger = open_ledger(str(file))
        bury_the_dead(ledger, folder_of(ledger, None))
        found = verify(ledger)
        wrong += [problem for check in found.checks for problem in check.problems]
        from sqlalchemy import func, select

        with ledger.engine.connect() as connection:
            told = {row.process: row for row in connection.execute(select(writers)).all()}
            rows, different = connection.execute(select(func.count(), func.count(calls.c.response_id.distinct()))).one()
        if rows != different:
            wrong.append(f"{rows - different} calls were written twice")
        for number in range(kills):
            truth = _Truth(folder / f"{number}.truth")
            pid, begun, done = truth.counts[0], truth.counts[1], truth.counts[2]
            row = told.get(pid)
            counted = 0 if row is None else row.written + row.lost + row.dropped + row.known
            # Killed in the middle of keeping a call, it may or may not have kept it.
            if not done <= counted <= begun:
                wrong.append(f"process {pid} has kept {done} to {begun} calls, the ledger counts {counted}")
            if row is not None:
                kept += counted
                lost += row.lost
                if row.lost and row.written < done:
                    ages.append(ended[pid] - truth.times[row.written])
        ledger.close()
    yield none_of("ledger.kill", wrong, f"{kills} kills", f"{kept:,.0f} calls kept, {lost:,.0f} lost, each one counted")
    note = f"s that the oldest lost call had waited; the median of kills {median(ages):.2f}"
    if full:
        yield at_most("ledger.kill.age", max(ages), 2 * FLUSH_SECONDS, ".2f", note)
    else:
        yield Bar("ledger.kill.age", f"{max(ages):.2f}", "told", None, f"{note}; {_IDLE}")


class _Truth:
    """Memory that a process shares with those who judge it: its id, calls begun and kept, and when."""

    def __init__(self, file: Path) -> None:
        size = 24 + 8 * _MOST_CALLS
        with file.open("a+b") as opened:
            opened.truncate(size)
            self._map = mmap.mmap(opened.fileno(), size)
        self.counts = memoryview(self._map)[:24].cast("Q")
        self.times = memoryview(self._map)[24:].cast("d")


def _victim(ledger: Path, truth: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bars.ledger", "victim", str(ledger), str(truth)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=on_path())
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _be_a_victim(url: str, file: str) -> None:
    from costspan_processor.ledger.writer import begin
    from tests.ledger.calls import AT

    truth = _Truth(Path(file))
    truth.counts[0] = os.getpid()
    writer = begin(url, service="victim")
    assert writer is not None
    made = _made(500)
    print("ready", flush=True)
    for number in range(_MOST_CALLS):
        priced, who, attributes = made[number % len(made)]
        attributes = {**attributes, "gen_ai.response.id": f"{os.getpid()}-{file}-{number}"}
        truth.times[number] = time.monotonic()
        truth.counts[1] = number + 1
        writer.keep(priced, who, AT + number * 10**8, 1.5, None, None, attributes)
        truth.counts[2] = number + 1
        if number % 10 == 9:
            time.sleep(0.04)  # so that all of them together are no more than a busy machine writes


MEASURES: Final[Mapping[str, Callable[[bool], Iterator[Bar]]]] = {
    "ledger.rate": rate,
    "ledger.agreement": agreement,
    "ledger.kill": kill,
    "ledger.instructions": hot_path,
}
"""Name for `--only` -> what measures it."""

_PROGRAMS: Final[Mapping[str, Callable[..., Any]]] = {
    "rate": _rate,
    "report": _report,
    "rows": _rows,
    "agree": _agree,
    "victim": _be_a_victim,
}

if __name__ == "__main__":
    print(json.dumps(_PROGRAMS[sys.argv[1]](*sys.argv[2:])))
