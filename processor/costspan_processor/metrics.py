"""The counters: one table of integers per MeterProvider, shown to OpenTelemetry when it asks.

`Counter.add` costs more than pricing a call, so totals are plain integers behind one lock and observable counters read
them. Only the `gen_ai.client.*` histograms record on the caller's time. Picodollars become floats at observation.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation

from costspan_pricing import PICO
from costspan_processor import conventions
from costspan_processor.compat import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider

    from costspan_processor.conventions import Kind, Plain
    from costspan_processor.enrich import Priced

Generation = Literal["current", "next", "off"]
"""Which GenAI client metrics of the conventions are emitted: those of today's releases, their successors, or none."""

SCOPE: Final = "costspan"
GENERATION_ATTRIBUTE: Final = "costspan.generation"
OVERFLOW: Final = "_overflow"
"""The value of a dimension that already has as many values as it may have."""

DIMENSIONS: Final = ("costspan.team", "costspan.feature", "costspan.task")
COMPONENT: Final = "costspan.component"
PROBLEM: Final = "kind"
REASON: Final = "costspan.reason"
_USUAL_TIERS: Final = frozenset({"default", "standard", "auto", "on_demand"})

_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105
_MODALITY = "gen_ai.token.modality"
_ROUTES_AT_MOST = 4096
_COUNTED: Final = ("calls", "cost", "tokens", "problems", "tiers", "wasted")
_SERIES_KEPT_FREE = 16
"""Room for the overflow row's own series."""

_generations = itertools.count()
_prefix = ""


def _new_process() -> None:
    # A forked worker's series must differ from its parent's and its siblings', whatever the exporter. Process ids
    # repeat from container to container, so the name is drawn at random.
    global _generations, _prefix  # noqa: PLW0603
    _prefix = uuid.uuid4().hex[:8] + "-"
    _generations = itertools.count()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_process)


class Totals(NamedTuple):
    """What one row of the table has counted. Amounts in integer picodollars, latency in nanoseconds."""

    provider: str | None
    request_model: str | None
    response_model: str | None
    operation: str
    dimensions: Mapping[str, str]
    """Attribution: `costspan.team` and the other metric dimensions."""
    calls: Mapping[str, int]
    """By `costspan.cost.status`."""
    cost: Mapping[str, int]
    """By component; calls without a figure are in `calls` alone."""
    tokens: Mapping[str, int]
    """By component."""
    saved: int
    write_premium: int
    latency_ns: int
    """Sum over the calls whose duration is known (`timed`)."""
    timed: int
    failed: int = 0
    """Calls that ended in an error and used nothing; `calls` has them under `no_usage`."""


class _Row:
    __slots__ = (
        "attributes", "calls", "cost", "dimensions", "failed", "latency_ns", "names", "observed", "premium", "problems",
        "saved", "tiers", "timed", "tokens", "wasted",
    )  # fmt: skip

    def __init__(self, names: tuple[str | None, ...], dimensions: Mapping[str, str]) -> None:
        self.names = names
        self.dimensions = dimensions
        provider, request_model, response_model, operation = names
        labels = {
            conventions.PROVIDER: provider,
            conventions.REQUEST_MODEL: request_model,
            conventions.RESPONSE_MODEL: response_model,
            conventions.OPERATION: operation,
            **dimensions,
        }
        self.attributes: dict[str, str] = {key: value for key, value in labels.items() if value is not None}
        self.calls: dict[str, int] = {}
        self.cost: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        self.problems: dict[str, int] = {}
        self.tiers: dict[str, int] = {}
        self.wasted: dict[str, int] = {}
        self.saved = self.premium = self.latency_ns = self.timed = self.failed = 0
        self.observed: dict[tuple[str, str], dict[str, str]] = {}

    def labels(self, key: str, value: str) -> dict[str, str]:
        """The row's labels and one more, kept: a collection builds no dictionary."""
        found = self.observed.get((key, value))
        if found is None:
            found = self.observed[key, value] = {**self.attributes, key: value}
        return found


class Route:
    """Everything about a kind of call that does not change from call to call: its row and ready histogram labels."""

    __slots__ = ("duration", "input", "output", "plain", "recorders", "row", "tier", "wasted")

    def __init__(
        self, row: _Row, labels: dict[str, str | int], error_type: str | None, tier: str | None, aborted: bool
    ) -> None:
        self.row = row
        self.tier = None if tier in _USUAL_TIERS else tier
        """The service tier, where it is not the usual one."""
        self.wasted = "failed" if error_type is not None else "aborted" if aborted else None
        """Why what the call cost brought no whole answer."""
        self.plain = labels
        self.duration = labels if error_type is None else {**labels, conventions.ERROR_TYPE: error_type}
        self.input = {**labels, _TOKEN_TYPE: "input"}
        self.output = {**labels, _TOKEN_TYPE: "output"}
        self.recorders: tuple[Recorder, Recorder, Recorder, Recorder] | None = None
        """Of the duration, the input and output tokens and the time to the first chunk; made at the first call."""


class Table:
    """Counts of calls, tokens and money by provider, models, operation and attribution; exact under any concurrency.

    One table is one *generation*: `shutdown` and a new `init`, and every fork, get a new table with a meter of its
    own, told apart by the scope attribute `costspan.generation`, and `close()` silences the old one. Zeroing or
    carrying over values instead would make counters go backwards or count twice.

    `dimensions` are the attribution attributes that become labels. A dimension has at most `max_values` different
    values; further ones are counted under `_overflow`. The table holds at most `max_series` series per instrument,
    below the limit of 2,000 at which the SDK would drop labels; further rows are counted in one row of `_overflow`.
    """

    def __init__(
        self,
        meter_provider: MeterProvider,
        *,
        generation: Generation = "current",
        dimensions: tuple[str, ...] = DIMENSIONS,
        max_values: int = 200,
        max_series: int = 1900,
        version: str | None = None,
        before_collection: Callable[[], None] | None = None,
    ) -> None:
        self._before_collection = before_collection
        self.dimensions: Final = dimensions
        self.id: Final = f"{_prefix}{next(_generations)}"
        self._lock = threading.Lock()
        self._rows: dict[tuple[object, ...], _Row] = {}
        self._routes: dict[tuple[Kind, tuple[str | None, ...] | None], Route] = {}
        self._seen: dict[str, set[str]] = {}
        self._max_values = max_values
        self._series_left: dict[str, int] = dict.fromkeys(_COUNTED, max_series - _SERIES_KEPT_FREE)
        self._errors: dict[str, int] = {}
        self._closed = False
        self.record: Callable[[Route, Priced | Plain, float | None, float | None, Context | None], None]
        """Record the conventions' own metrics of a call that we instrumented: seconds in all, to the first chunk."""
        self.meter: Final[Meter] = meter_provider.get_meter(SCOPE, version, attributes={GENERATION_ATTRIBUTE: self.id})
        self._instruments(generation)

    # What happens on the caller's time.

    def route(self, kind: Kind, dimensions: tuple[str | None, ...] | None) -> Route:
        """Where calls of a kind are counted. `dimensions` are the values of `self.dimensions`, None if it has none."""
        try:
            return self._routes[kind, dimensions]
        except KeyError:
            return self._new_route(kind, dimensions)

    def count(self, route: Route, priced: Priced | Plain, duration_ns: int | None) -> None:
        """Count one call. Its duration goes into the summary, not into a metric."""
        row = route.row
        status = priced.status
        with self._lock:
            calls = row.calls
            if status in calls:
                calls[status] += 1
            else:
                self._add("calls", row, status, 1)
            if status == "no_usage" and priced.reading.kind.error_type is not None:
                row.failed += 1
            if isinstance(priced, conventions.Plain):
                _, sent, read, received, saved = priced.quote
                prompt, cached, answered, _ = priced.reading.plain
                self._count(row, "input", sent, prompt - cached)
                if answered:
                    self._count(row, "output", received, answered)
                if cached:
                    self._count(row, "cache_read", read, cached)
                    row.saved += saved
            else:
                if priced.total is not None:
                    for component, pico in priced.components.items():
                        self._count(row, component, pico, 0)
                    row.saved += priced.saved
                    row.premium += priced.write_premium
                reading = priced.reading
                for component, tokens in reading.tokens.items():
                    self._count(row, component, None, tokens)
                if reading.guessed:
                    self._add("problems", row, "guessed", 1)
                if reading.usage is not None and reading.usage.inconsistent:
                    self._add("problems", row, "inconsistent", 1)
            if (route.tier is not None or route.wasted is not None) and priced.total:
                if route.tier is not None:
                    self._add("tiers", row, route.tier, priced.total)
                if route.wasted is not None:
                    self._add("wasted", row, route.wasted, priced.total)
            if duration_ns is not None:
                row.latency_ns += duration_ns
                row.timed += 1

    def count_all(
        self,
        route: Route,
        status: str,
        calls: int,
        quote: Iterable[int],
        used: tuple[int, int, int],
        latency: int,
        timed: int,
    ) -> None:
        """Count so many calls of text alone, at once.

        `quote` and `used` are sums: of what their `Plain` has for it; of prompt, cache reads and output in tokens.
        `latency` is that of the `timed` ones, in nanoseconds.
        """
        row = route.row
        total, sent, read, received, saved = quote
        prompt, cached, answered = used
        with self._lock:
            self._add("calls", row, status, calls)
            self._count(row, "input", sent, prompt - cached)
            if answered:
                self._count(row, "output", received, answered)
            if cached:
                self._count(row, "cache_read", read, cached)
                row.saved += saved
            if total and route.tier is not None:
                self._add("tiers", row, route.tier, total)
            if total and route.wasted is not None:
                self._add("wasted", row, route.wasted, total)
            row.latency_ns += latency
            row.timed += timed

    def _count(self, row: _Row, component: str, pico: int | None, tokens: int) -> None:
        if pico is not None:
            if component in row.cost:
                row.cost[component] += pico
            else:
                self._add("cost", row, component, pico)
        if tokens:
            if component in row.tokens:
                row.tokens[component] += tokens
            else:
                self._add("tokens", row, component, tokens)

    def failed(self, where: str) -> None:
        """Count an internal error of ours."""
        with self._lock:
            self._errors[where] = self._errors.get(where, 0) + 1

    # What happens when somebody looks.

    def rows(self) -> list[Totals]:
        """A consistent copy of all rows. Values only ever grow while the generation lives."""
        with self._lock:
            return [
                Totals(
                    row.names[0], row.names[1], row.names[2], row.names[3] or "", row.dimensions, dict(row.calls),
                    dict(row.cost), dict(row.tokens), row.saved, row.premium, row.latency_ns, row.timed, row.failed,
                )
                for row in self._rows.values()
            ]  # fmt: skip

    def models(self) -> set[tuple[str, str]]:
        """Provider and requested model of all calls that named both."""
        with self._lock:
            rows = self._snapshot()
        return {(row.names[0], row.names[1]) for row in rows if row.names[0] and row.names[1]}

    def errors(self) -> dict[str, int]:
        """Internal errors so far, by place."""
        with self._lock:
            return dict(self._errors)

    def close(self) -> None:
        """Fall silent: the callbacks observe nothing from now on."""
        self._closed = True

    def observe(self, read: Callable[[], Iterable[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """A callback for an instrument of this generation's meter: `read()` while it is open, then silence."""

        def callback(_options: CallbackOptions) -> Iterable[Observation]:
            if self._closed:
                return ()
            if self._before_collection is not None:
                self._before_collection()
            return read()

        return callback

    # Inside.

    def _new_route(self, kind: Kind, dimensions: tuple[str | None, ...] | None) -> Route:
        with self._lock:
            if len(self._routes) >= _ROUTES_AT_MOST:
                # Routes are only a cache over the rows; what they hold is rebuilt with the same labels.
                self._routes.clear()
            names = (
                self._bounded(conventions.PROVIDER, kind.provider),
                self._bounded(conventions.REQUEST_MODEL, kind.request_model),
                self._bounded(conventions.RESPONSE_MODEL, kind.response_model),
                self._bounded(conventions.OPERATION, kind.operation),
            )
            row = self._row(names, dimensions)
            labels: dict[str, str | int] = {
                label: value
                for label, value in (
                    (conventions.OPERATION, names[3]),
                    (conventions.PROVIDER, names[0]),
                    (conventions.REQUEST_MODEL, names[1]),
                    (conventions.RESPONSE_MODEL, names[2]),
                    (conventions.SERVER_ADDRESS, self._bounded(conventions.SERVER_ADDRESS, kind.server_address)),
                    (conventions.SERVER_PORT, kind.server_port),
                )
                if value is not None
            }
            tier = self._bounded(conventions.SERVICE_TIER, kind.tier)
            route = Route(row, labels, self._bounded(conventions.ERROR_TYPE, kind.error_type), tier, kind.aborted)
            self._routes[kind, dimensions] = route
            return route

    def _row(self, names: tuple[str | None, ...], dimensions: tuple[str | None, ...] | None) -> _Row:
        bounded: dict[str, str] = {}
        if dimensions is not None:
            for dimension, value in zip(self.dimensions, dimensions, strict=True):
                if value is not None:
                    bounded[dimension] = self._bounded(dimension, value) or OVERFLOW
        key = (*names, *bounded.items())
        row = self._rows.get(key)
        if row is None:
            if min(self._series_left.values()) <= 0:
                return self._overflow_row()
            row = self._rows[key] = _Row(names, bounded)
        return row

    def _overflow_row(self) -> _Row:
        row = self._rows.get((OVERFLOW,))
        if row is None:
            row = self._rows[OVERFLOW,] = _Row((OVERFLOW,) * 4, dict.fromkeys(self.dimensions, OVERFLOW))
        return row

    def _bounded(self, dimension: str, value: str | None) -> str | None:
        if value is None:
            return None
        seen = self._seen.setdefault(dimension, set())
        if value not in seen:
            if len(seen) >= self._max_values:
                return OVERFLOW
            seen.add(value)
        return value

    def _add(self, kind: str, row: _Row, name: str, amount: int) -> None:
        """Add to a series: a new one takes one of the places that are left, or goes to the overflow row."""
        cells: dict[str, int] = getattr(row, kind)
        if name not in cells and self._series_left[kind] <= 0:
            cells = getattr(self._overflow_row(), kind)
        if name not in cells:
            cells[name] = 0
            self._series_left[kind] -= 1
        cells[name] += amount

    def _instruments(self, generation: Generation) -> None:
        meter, observe = self.meter, self.observe
        meter.create_observable_counter(
            "costspan.cost",
            [observe(partial(self._money, "cost", COMPONENT))],
            "USD",
            "Money spent on model calls that have a price",
        )
        meter.create_observable_counter(
            "costspan.tokens",
            [observe(partial(self._counted, "tokens", COMPONENT))],
            "{token}",
            "Tokens used, each counted under one component",
        )
        meter.create_observable_counter(
            "costspan.calls",
            [observe(partial(self._counted, "calls", conventions.STATUS))],
            "{call}",
            "Model calls by the status of their price",
        )
        meter.create_observable_counter(
            "costspan.usage.problems",
            [observe(partial(self._counted, "problems", PROBLEM))],
            "{call}",
            "Model calls whose counts contradict each other, or whose counts or provider were guessed",
        )
        meter.create_observable_counter(
            "costspan.tier.cost",
            [observe(partial(self._money, "tiers", conventions.SERVICE_TIER))],
            "USD",
            "Part of the cost: calls served at another service tier than the standard one",
        )
        meter.create_observable_counter(
            "costspan.cost.wasted",
            [observe(partial(self._money, "wasted", REASON))],
            "USD",
            "Part of the cost: calls that failed, and streams that were not read to their end",
        )
        meter.create_observable_counter(
            "costspan.cache.saved", [observe(self._saved)], "USD", "Money saved by cache reads against the input rate"
        )
        meter.create_observable_counter(
            "costspan.cache.write_premium",
            [observe(self._premiums)],
            "USD",
            "Money paid for cache writes above the input rate",
        )
        meter.create_observable_counter(
            "costspan.internal.errors", [observe(self._failures)], "{error}", "Errors inside costspan, by place"
        )
        if generation == "current":
            self.record = _CurrentHistograms(meter).record
        elif generation == "next":
            self.record = _NextMetrics(meter, self).record
        else:
            self.record = _record_nothing

    def _snapshot(self) -> list[_Row]:
        return list(self._rows.values())

    def _counted(self, kind: str, key: str) -> list[Observation]:
        """The numbers of a kind, by what they are counted under."""
        with self._lock:
            return [
                Observation(count, row.labels(key, value))
                for row in self._snapshot()
                for value, count in getattr(row, kind).items()
            ]

    def _money(self, kind: str, key: str) -> list[Observation]:
        """The amounts of a kind in USD, by what they are counted under."""
        with self._lock:
            return [
                Observation(pico / PICO, row.labels(key, value))
                for row in self._snapshot()
                for value, pico in getattr(row, kind).items()
            ]

    def _saved(self) -> list[Observation]:
        with self._lock:
            return [Observation(row.saved / PICO, row.attributes) for row in self._snapshot() if row.saved]

    def _premiums(self) -> list[Observation]:
        with self._lock:
            return [Observation(row.premium / PICO, row.attributes) for row in self._snapshot() if row.premium]

    def _failures(self) -> list[Observation]:
        with self._lock:
            return [Observation(count, {"costspan.where": where}) for where, count in self._errors.items()]


class _CurrentHistograms:
    """The client metrics of today's releases of the conventions (up to 1.41)."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk of a streamed response.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    def record(
        self,
        route: Route,
        priced: Priced | Plain,
        duration: float | None,
        first_chunk: float | None,
        context: Context | None,
    ) -> None:
        recorders = route.recorders
        if recorders is None:
            recorders = route.recorders = (
                Recorder(self._duration, route.duration),
                Recorder(self._tokens, route.input),
                Recorder(self._tokens, route.output),
                Recorder(self._first_chunk, route.plain),
            )
        seconds, input_tokens, output_tokens, seconds_to_first_chunk = recorders
        if duration is not None:
            seconds(duration, context)
        reading = priced.reading
        if (tokens := reading.input_tokens) is not None:
            input_tokens(tokens, context)
        if (tokens := reading.output_tokens) is not None:
            output_tokens(tokens, context)
        if first_chunk is not None:
            seconds_to_first_chunk(first_chunk, context)


class _NextMetrics:
    """The client metrics of the conventions' own repository: usage as counters, one duration a kind of operation."""

    _USAGE: Final = {
        "input": "gen_ai.client.inference.usage.input_tokens",
        "output": "gen_ai.client.inference.usage.output_tokens",
        "cache_read": "gen_ai.client.inference.usage.cache_read.input_tokens",
        "cache_write": "gen_ai.client.inference.usage.cache_write.input_tokens",
        "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
    }
    _WHERE: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
        # meter -> the counters that contain it, each with its modality
        "input": (("input", "text"),),
        "input_audio": (("input", "audio"),),
        "input_image": (("input", "image"),),
        "input_video": (("input", "unknown"),),
        "cache_read": (("input", "text"), ("cache_read", "text")),
        "cache_read_audio": (("input", "audio"), ("cache_read", "audio")),
        "cache_read_image": (("input", "image"), ("cache_read", "image")),
        "cache_read_video": (("input", "unknown"), ("cache_read", "unknown")),
        "cache_write_5m": (("input", "text"), ("cache_write", "text")),
        "cache_write_30m": (("input", "text"), ("cache_write", "text")),
        "cache_write_1h": (("input", "text"), ("cache_write", "text")),
        "cache_write_12h": (("input", "text"), ("cache_write", "text")),
        "output": (("output", "text"),),
        "output_reasoning": (("output", "text"), ("reasoning", "text")),
        "output_audio": (("output", "audio"),),
        "output_image": (("output", "image"),),
        "output_video": (("output", "unknown"),),
    }

    def __init__(self, meter: Meter, table: Table) -> None:
        def seconds(name: str, description: str) -> Callable[..., None]:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS).record

        def tokens(name: str, description: str) -> Callable[..., None]:
            return meter.create_histogram(
                name, "{token}", description, explicit_bucket_boundaries_advisory=_TOKENS
            ).record

        self._inference = seconds("gen_ai.client.inference.duration", "Duration of inference operations.")
        self._embeddings = seconds("gen_ai.client.embeddings.duration", "Duration of embeddings operations.")
        self._first_chunk = seconds(
            "gen_ai.client.inference.time_to_first_chunk", "Time to receive the first chunk of a streamed response."
        )
        self._input = tokens("gen_ai.client.inference.operation.input_tokens", "Input tokens of one operation.")
        self._output = tokens("gen_ai.client.inference.operation.output_tokens", "Output tokens of one operation.")
        self._embedded = tokens("gen_ai.client.embeddings.operation.input_tokens", "Input tokens of one operation.")
        self._usage: dict[str, dict[tuple[object, ...], tuple[dict[str, str | int], int]]] = {
            kind: {} for kind in self._USAGE
        }
        self._lock = threading.Lock()
        for kind, name in self._USAGE.items():
            meter.create_observable_counter(name, [table.observe(self._reader(kind))], "{token}", "Tokens used.")

    def record(
        self,
        route: Route,
        priced: Priced | Plain,
        duration: float | None,
        first_chunk: float | None,
        context: Context | None,
    ) -> None:
        reading = priced.reading
        embeddings = reading.kind.operation == "embeddings"
        if duration is not None:
            (self._embeddings if embeddings else self._inference)(duration, route.duration, context)
        if embeddings:
            if reading.input_tokens is not None:
                self._embedded(reading.input_tokens, route.plain, context)
            return
        if first_chunk is not None:
            self._first_chunk(first_chunk, route.plain, context)
        if reading.input_tokens is not None:
            self._input(reading.input_tokens, route.plain, context)
        if reading.output_tokens is not None:
            self._output(reading.output_tokens, route.plain, context)
        with self._lock:
            if reading.usage is None:
                # The conventions want a failed operation to show as 0 tokens of unknown modality.
                for kind in ("input", "output"):
                    labels = {**route.plain, _MODALITY: "unknown"}
                    self._usage[kind].setdefault(tuple(labels.values()), (labels, 0))
                return
            for meter, quantity in reading.usage.quantities.items():
                for kind, modality in self._WHERE.get(meter, ()):
                    counts = self._usage[kind]
                    key = (*route.plain.values(), modality)
                    labels, count = counts.get(key) or ({**route.plain, _MODALITY: modality}, 0)
                    counts[key] = (labels, count + quantity)

    def _reader(self, kind: str) -> Callable[[], list[Observation]]:
        def read() -> list[Observation]:
            with self._lock:
                return [Observation(count, labels) for labels, count in self._usage[kind].values()]

        return read


def _record_nothing(*_: object) -> None:
    pass
