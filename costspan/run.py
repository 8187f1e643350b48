"""`costspan run`: a program as it is, and what its LLM calls have cost when it ends.

The program runs in a process of its own, with a directory in front of its PYTHONPATH from which every Python it starts
takes our `sitecustomize`. Each process keeps its counters in a file of a private directory, and the sum is shown when
the program has ended, however it ended.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager, nullcontext, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from costspan import settings, startup
from costspan.commands import ready_ledger
from costspan_processor.metrics import Totals
from costspan_processor.observer import CostObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from costspan_processor.metrics import Table

DIRECTORY: Final = "COSTSPAN_RUN"
"""The variable that names the directory in which processes leave their counters."""

_SITE = Path(__file__).parent / "_run"
_QUICK = 0.0005
_PAUSE = 20
_LONGEST_PAUSE = 0.25
"""Seconds. A write of the counters that took longer than `_QUICK` is not repeated before `_PAUSE` times as long."""


_LOOK = 0.5
"""Seconds between two looks at what a program has cost."""

_NAME_EXPORTERS = (
    "CONFIG_FILE", "TRACES_EXPORTER", "METRICS_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "EXPORTER_OTLP_TRACES_ENDPOINT",
    "EXPORTER_OTLP_METRICS_ENDPOINT",
)  # fmt: skip


class RunError(Exception):
    """The program cannot be run; the message says why. `status` is what a shell would exit with."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


# ------------------------------------------------------------------ around the program


def run(command: Sequence[str], json_file: Path | None = None, *, live: bool = False, ledger: str | None = None) -> int:
    """Run a program and report what its calls have cost; returns the exit status a shell would give.

    The report goes to standard error, and as JSON to `json_file`. `live`: while it runs, the last line of a terminal
    says what it has cost so far. `ledger`: where a record of every call is kept. Raises `RunError`.
    """
    if not hasattr(signal, "sigwait") or not hasattr(os, "posix_spawnp"):
        raise RunError("this system has no POSIX signals; call costspan.init() in the program instead")
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise RunError(f"--json {json_file} cannot be written: name a file in a directory that exists")
    if not settings.load({}).enabled:
        print("costspan run: switched off by COSTSPAN_ENABLED; the program runs as it is", file=sys.stderr, flush=True)
        return _supervised(command, os.environ)
    try:
        kept = {} if ledger is None else {"COSTSPAN_LEDGER": ready_ledger(ledger, "--ledger")}
    except ValueError as error:
        raise RunError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="costspan-run-", ignore_cleanup_errors=True) as directory:
        path = os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")]))
        with _costs_so_far(Path(directory)) if live else nullcontext() as look:
            status = _supervised(command, {**os.environ, **kept, "PYTHONPATH": path, DIRECTORY: directory}, look)
        rows = _rows(Path(directory))
        problems = [file.read_text(encoding="utf-8") for file in Path(directory).glob("*.problem")]
    if outer := os.environ.get(DIRECTORY):
        # We are ourselves part of a run.
        _Recorder(Path(outer)).write(rows)
    _report(rows, problems, json_file)
    return status


def _supervised(command: Sequence[str], environment: Mapping[str, str], look: Callable[[], None] | None = None) -> int:
    """Run a command to its end, passing on the signals that only we get, and calling `look` twice a second."""
    passed_on = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
    awaited = passed_on | {signal.SIGCHLD}
    # By default it may be dropped before anyone can wait for it.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        # Python ignores these two, and what is ignored would stay so in the program.
        child = os.posix_spawnp(
            command[0], list(command), environment, setsigmask=before, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise RunError(f"{command[0]!r} cannot be run ({error.strerror})", status) from None
    while True:
        number, alone = _next_signal(awaited, look)
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                # The signals stay blocked: from here on only the report is left, and it is short.
                return code if code >= 0 else 128 - code
        elif alone:
            os.kill(child, number)


def _next_signal(awaited: set[signal.Signals], look: Callable[[], None] | None) -> tuple[int, bool]:
    """The next signal, and whether it was sent to this process alone: Ctrl-C in a terminal reaches the program too."""
    if look is not None and hasattr(signal, "sigtimedwait"):
        while True:
            look()
            seen = signal.sigtimedwait(awaited, _LOOK)
            if seen is not None:
                return seen.si_signo, seen.si_code <= 0
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(awaited)
        return info.si_signo, info.si_code <= 0
    number = signal.sigwait(awaited)
    try:
        with Path("/dev/tty").open("rb") as terminal:
            in_front = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        in_front = False
    return number, not (in_front and number in {signal.SIGINT, signal.SIGQUIT})


@contextmanager
def _costs_so_far(directory: Path) -> Iterator[Callable[[], None]]:
    """Shows on the last line of the terminal what the program has cost, each time that it is called."""
    from costspan.summaries import summarise
    from costspan.terminal import LastLine, session_cost

    def look() -> None:
        total = summarise(_rows(directory))["total"]
        line.show(session_cost(total["cost"], total["calls"], total["tokens"]["total"]))

    with LastLine() as line:
        yield look


def _rows(directory: Path) -> list[Totals]:
    """The last whole state of every process."""
    found: dict[str, tuple[int, list[Any]]] = {}
    for file in directory.glob("*.rows[01]"):
        line, end, _ = file.read_bytes().partition(b"\n")
        checksum, _, state = line.partition(b" ")
        if end and checksum == b"%08x" % crc32(state):
            number, rows = json.loads(state)
            found[file.stem] = max(found.get(file.stem, (0, [])), (number, rows), key=itemgetter(0))
    return [Totals(*row) for _, rows in found.values() for row in rows]


def _report(rows: list[Totals], problems: list[str], json_file: Path | None) -> None:
    from rich.console import Console

    from costspan.render import summary_view
    from costspan.summaries import summarise, to_json

    summary = summarise(rows)
    console = Console(stderr=True, soft_wrap=not rows, highlight=False)
    try:
        if rows:
            console.print(summary_view(summary))
        else:
            console.print("costspan run: no call to a model was seen", markup=False)
            for problem in sorted(set(problems)):
                console.print(f"costspan run: {problem}", markup=False)
        if json_file is not None:
            json_file.write_text(to_json(summary) + "\n", encoding="utf-8")
    except OSError as error:
        # The terminal may be gone. The exit status is the program's, whatever happens to the report.
        with suppress(OSError):
            console.print(f"costspan run: the report could not be written: {error}", markup=False)


# ------------------------------------------------------------------ inside the program


def watch(directory: str) -> None:
    """Start costspan in this process, and keep in a file of `directory` what its calls cost.

    Spans and metrics go where the standard variables of the environment send them. Where those name no exporter they go
    nowhere, so that the program's own telemetry stays as it is.
    """
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    recorder = _Recorder(Path(directory))
    atexit.register(recorder.end)
    os.register_at_fork(after_in_child=recorder.forked)
    count = CostObserver.count

    @functools.wraps(count)
    def counted(observer: CostObserver, *args: Any, **kwargs: Any) -> None:
        count(observer, *args, **kwargs)
        recorder.note(observer.table)

    CostObserver.count = counted  # type: ignore[assignment,method-assign]
    if _exporters_named(os.environ):
        startup.init()
    else:
        startup.init(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    _make_way()


def _exporters_named(environ: Mapping[str, str]) -> bool:
    return any(environ.get(f"OTEL_{name}", "none").strip().lower() not in {"", "none"} for name in _NAME_EXPORTERS)


def _make_way() -> None:
    """Let a program that calls `costspan.init()` itself have its budgets, prices and providers."""
    import costspan

    init = startup.init

    @functools.wraps(init)
    def its_own(**arguments: Any) -> None:
        startup.init = costspan.init = init
        startup.shutdown()
        init(**arguments)

    startup.init = costspan.init = its_own


class _Recorder:
    """Keeps the counters of this process in a file: after every call, as long as that takes no time to speak of.

    So a process that is killed loses nothing, or a quarter of a second where there is much to write. A thread runs in
    the program for that moment alone: one that stayed would be in the way of its forks.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begin()

    def _begin(self) -> None:
        self._file = self._directory / f"{os.getpid()}-{uuid.uuid4().hex}"
        self._written = 0
        self._tables: dict[Table, None] = {}
        self._lock = threading.Lock()
        self._dirty = False
        self._later: threading.Timer | None = None
        self._not_before = 0.0
        self._ending = False

    def forked(self) -> None:
        """In a forked child: what the parent has counted is the parent's."""
        self._begin()

    def note(self, table: Table) -> None:
        """A call has been counted in `table`."""
        self._tables.setdefault(table)
        self._dirty = True
        wait = self._not_before - time.monotonic()
        if self._ending or wait <= 0 or not self._in_a_moment(wait):
            self._keep()

    def end(self) -> None:
        """The process ends: write what is left, and from now on at once."""
        self._ending = True
        self._keep()

    def _in_a_moment(self, wait: float) -> bool:
        if self._later is None:
            # Not a daemon: a process that ends waits this moment for it.
            self._later = threading.Timer(wait, self._now)
            try:
                self._later.start()
            except RuntimeError:  # too late for a new thread: the interpreter is ending
                return False
        return True

    def _now(self) -> None:
        # First of all: a call that comes from here on starts another timer, or has been seen by this one.
        self._later = None
        self._keep()

    def _keep(self) -> None:
        # Whoever comes while another thread is writing leaves it to that one.
        while self._dirty and self._lock.acquire(blocking=False):
            try:
                self._dirty = False
                began = time.monotonic()
                self.write(row for table in list(self._tables) for row in table.rows())
                took = time.monotonic() - began
                pause = 0.0 if took < _QUICK else min(_PAUSE * took, _LONGEST_PAUSE)
                self._not_before = began + took + pause
            finally:
                self._lock.release()

    def write(self, rows: Iterable[Totals]) -> None:
        """Make these rows the state of this process.

        Two files take turns, so that one is always whole. They are neither replaced nor cut, which file systems answer
        with a slow flush, nor kept open, since a program may close descriptors that it does not know.
        """
        number = self._written + 1
        state = json.dumps((number, list(rows))).encode()
        line = b"%08x %s\n" % (crc32(state), state)
        try:
            file = os.open(f"{self._file}.rows{number % 2}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.write(file, line) == len(line):
                    self._written = number
            finally:
                os.close(file)
        except OSError:
            # The run is over, and its directory gone: a program that outlives it runs on uncounted.
            pass
