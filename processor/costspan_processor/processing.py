"""The whole of the processor, built and wired; and what happens to it at shutdown and after a fork."""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation

from costspan_pricing import PriceBook
from costspan_processor import compat
from costspan_processor.budgets.guard import Guard
from costspan_processor.list_prices import ListPrices
from costspan_processor.metrics import DIMENSIONS, SCOPE, Generation, Table
from costspan_processor.observer import CostObserver
from costspan_processor.span_processor import CostSpanProcessor
from costspan_processor.translation import speaks_of_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from costspan_processor.budgets import Budget
    from costspan_processor.ledger.writer import LedgerWriter


@dataclass(frozen=True, slots=True)
class Settings:
    """How the processor behaves. The defaults are what almost everybody wants."""

    genai_metrics: Generation = "current"
    """Which generation of the conventions' client metrics is emitted: `current`, `next` or `off`."""
    cost_proposal: bool = True
    """Whether spans carry `gen_ai.usage.cost.*`, which the conventions are still discussing."""
    dimensions: tuple[str, ...] = DIMENSIONS
    """Attribution attributes that become labels of the `costspan.*` counters."""
    max_values: int = 200
    """Different values that a label may have; further ones are counted under `_overflow`."""
    max_series: int = 1900
    """Series that one counter may have; further ones are counted in one overflow row."""


_open_tables: weakref.WeakKeyDictionary[Any, Table] = weakref.WeakKeyDictionary()
"""The table that each MeterProvider shows. A new generation takes the place of the old one, which falls silent."""

_started: weakref.WeakSet[Processing] = weakref.WeakSet()


class Processing:
    """Everything that happens to a call between the instrumentation and the exporters.

    `guard` makes the guard of the budgets, given the resource's attributes and where errors go; without it one is made
    of `budgets`, with accounts in memory.

    `ledger` is given every call that is counted, and is closed with the rest.

    `before_collection` is called when metrics are about to be collected, so that what waits elsewhere is counted first.
    `clock` gives the unix seconds of whose prices and ages the gauges tell.

    `start()` adds the span processor to the tracer provider (by default the global one) and the instruments to the
    meter provider; `observer` is what the instrumentation's engine is given. The providers stay their owner's: nothing
    here flushes or shuts them down.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        book: PriceBook | None = None,
        budgets: Sequence[Budget] = (),
        guard: Callable[[Mapping[str, Any], Callable[[str, BaseException], None]], Guard] | None = None,
        ledger: LedgerWriter | None = None,
        settings: Settings = Settings(),
        version: str | None = None,
        before_collection: Callable[[], None] | None = None,
        counted: Callable[[object], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tracer_provider: Final = tracer_provider or trace.get_tracer_provider()
        self.meter_provider: Final = meter_provider or metrics.get_meter_provider()
        self.settings: Final = settings
        self.book: Final = book or PriceBook.bundled()
        self._version = version
        self._before_collection = before_collection
        self._clock = clock
        self._lock = threading.Lock()
        self._running = False
        self._unwatch: Callable[[], None] = lambda: None
        compat.identify(self.tracer_provider)
        compat.identify(self.meter_provider)
        resource = compat.resource_of(self.tracer_provider)
        self.guard: Final = (
            Guard(budgets, self.book, resource=resource, failed=self._failed)
            if guard is None
            else guard(resource, self._failed)
        )
        self.ledger: Final = ledger
        self.table = self._new_table()
        """The present generation's counters."""
        self.observer: Final = CostObserver(
            self.book, self.table, self.guard, proposal=settings.cost_proposal, ledger=ledger
        )
        if ledger is not None:
            ledger.failed = self._failed
        self.span_processor: Final = CostSpanProcessor(
            self.book, self.observer, proposal=settings.cost_proposal, counted=counted
        )

    def start(self) -> None:
        """Begin to price spans. A second call changes nothing."""
        with self._lock:
            if self._running:
                return
            self._running = True
        add = getattr(self.tracer_provider, "add_span_processor", None)
        if callable(add):
            add(self.span_processor)
            # An unsampled span reaches no span processor, and sampling must not change money.
            self._unwatch = compat.watch_tracers(
                self.tracer_provider, speaks_of_calls, SCOPE, self.span_processor.ours_starts
            )
        _started.add(self)

    def _failed(self, where: str, error: BaseException) -> None:
        self.observer.failed(where, error)

    def shutdown(self) -> None:
        """Leave spans alone from now on.

        The counters keep their last values, for the collection that is still to come; they go when a new `Processing`
        takes their place on the same meter provider.
        """
        with self._lock:
            self._running = False
        self._unwatch()
        self.span_processor.shutdown()
        _started.discard(self)
        self.guard.close()
        if self.ledger is not None:
            self.ledger.close()

    def _new_table(self) -> Table:
        settings = self.settings
        old = _open_tables.get(self.meter_provider)
        if old is not None:
            old.close()
        table = Table(
            self.meter_provider,
            generation=settings.genai_metrics,
            dimensions=settings.dimensions,
            max_values=settings.max_values,
            max_series=settings.max_series,
            version=self._version,
            before_collection=self._before_collection,
        )
        _open_tables[self.meter_provider] = table
        table.meter.create_observable_gauge(
            "costspan.price_book.age", [table.observe(self._book_age)], "s", "Age of the newest price in the book"
        )
        table.meter.create_observable_gauge(
            "costspan.price",
            [table.observe(ListPrices(self.book, table, self._clock).observations)],
            "USD",
            "List price per million tokens of the models in use, for short prompts, by service tier",
        )
        self.guard.instruments(table)
        if self.ledger is not None:
            table.meter.create_observable_counter(
                "costspan.ledger.dropped",
                [table.observe(self._ledger_dropped)],
                "{call}",
                "Calls that are not in the ledger, since too many waited for it or it could not be opened",
            )
        return table

    def _ledger_dropped(self) -> list[Observation]:
        return [] if self.ledger is None else [Observation(self.ledger.dropped)]

    def _book_age(self) -> list[Observation]:
        return [Observation(max(0.0, self._clock() - self.book.dated))]

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        compat.after_fork(self.meter_provider, SCOPE)
        self.guard.after_fork()
        self.observer.after_fork()
        if self.ledger is not None:
            self.ledger.after_fork()
        self.table = self._new_table()
        self.observer.table = self.table


def _after_fork_in_child() -> None:
    # A copy: the set must not change while it is walked, and no exception may reach the program that forks.
    for processing in list(_started):
        try:
            processing._after_fork()
        except Exception as error:  # noqa: BLE001
            processing.observer.failed("processing.after_fork", error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
