"""What every test of the processor starts from: a price book, and real SDK providers whose exporters stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan_pricing import PriceBook
from costspan_processor import Processing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AT = 1_763_874_000_000_000_000
"""2025-11-23: the instant that the tests' calls are made at."""

CHAT: Mapping[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "acme",
    "gen_ai.request.model": "large",
    "gen_ai.response.model": "large",
    "server.address": "api.acme.test",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.cache_read.input_tokens": 800,
    "gen_ai.usage.output_tokens": 100,
}
"""200 input x $2 + 800 cached x $0.50 + 100 output x $8, a million each: $0.0016; the cache saved $0.0012."""


@pytest.fixture(scope="session")
def book() -> PriceBook:
    """A provider of our own invention, so that no test breaks when somebody's price changes."""
    return PriceBook.bundled().with_prices(
        {
            "acme/large": {
                "input": "2",
                "output": "8",
                "cache_read": "0.5",
                "cache_write_5m": "2.5",
                "audio_seconds": "6",
            },
            "acme/small": {"input": "1", "output": "4"},
            "acme/embed": {"input": "0.02"},
        }
    )


class Telemetry:
    """A program's OpenTelemetry set-up, with costspan's processing in it."""

    def __init__(self, book: PriceBook, **options: Any) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        resource = Resource.create({"service.name": "shop"})
        self.tracer_provider = TracerProvider(resource=resource)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meter_provider = MeterProvider([self.reader], resource=resource)
        self.processing = Processing(self.tracer_provider, self.meter_provider, book=book, **options)
        self.processing.start()
        self.observer = self.processing.observer

    def call(
        self, changed: Mapping[str, Any] | None = None, *, base: Mapping[str, Any] = CHAT, duration: float = 0.5
    ) -> Mapping[str, Any]:
        """One call, as the instrumentation's engine reports it: before, after, and what its span gets."""
        attributes = {**base, **(changed or {})}
        decision = self.observer.before(attributes, lambda: 400)
        if decision is not None and decision.refuse is not None:
            raise decision.refuse
        token = None if decision is None else decision.token
        return self.observer.after(token, attributes, AT, duration, None, None)

    def metrics(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """All points now: metric -> sorted label pairs -> value (for a histogram its count and sum)."""
        return metrics_of(self.reader)


def metrics_of(reader: InMemoryMetricReader) -> dict[str, dict[tuple[Any, ...], Any]]:
    """The points that a reader sees now."""
    found: dict[str, dict[tuple[Any, ...], Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    value = point.value if hasattr(point, "value") else (point.count, point.sum)
                    points[tuple(sorted((point.attributes or {}).items()))] = value
    return found


@pytest.fixture
def telemetry(book: PriceBook) -> Callable[..., Telemetry]:
    """Make a set-up; keyword arguments are those of `Processing`."""
    return lambda **options: Telemetry(book, **options)


@pytest.fixture
def shop(telemetry: Callable[..., Telemetry]) -> Telemetry:
    """A set-up with nothing special."""
    return telemetry()


@pytest.fixture
def clock() -> Clock:
    """A clock that moves when told to."""
    return Clock()


class Clock:
    """Seconds, by default those of 2026-11-23 12:00 UTC."""

    def __init__(self) -> None:
        self.now = 1_795_435_200.0

    def __call__(self) -> float:
        return self.now
