"""An engine that watches the SDK of one provider, and the spans that come out of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.provider import Provider


class _Failures:
    """An observer that keeps what went wrong inside the engine."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []

    def before(self, *_: Any) -> None:
        return None

    async def abefore(self, *_: Any) -> None:
        return None

    def after(self, *_: Any) -> dict[str, Any]:
        return {}

    def failed(self, where: str, error: BaseException) -> None:
        self.failures.append(error)


class Watched:
    """The engine and its spans."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self._observer = _Failures()
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(SimpleSpanProcessor(self._memory))
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        logs = LoggerProvider(shutdown_on_exit=False)
        logs.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.engine = Engine()
        self.engine.start(self.traces.get_tracer("test"), self._observer, logger=logs.get_logger("test"))

    def spans(self) -> list[ReadableSpan]:
        """All spans since the last time. Raises what went wrong inside the engine."""
        gc.collect()
        self.engine.drain()
        spans = list(self._memory.get_finished_spans())
        self._memory.clear()
        for failure in self._observer.failures:
            raise failure
        return spans

    def one(self) -> dict[str, Any]:
        """The attributes of the only span since the last time."""
        (span,) = self.spans()
        return dict(span.attributes or {})

    def events(self) -> list[LogRecord]:
        """All events since the beginning."""
        return [log.log_record for log in self._logs.get_finished_logs()]

    def usage(self) -> dict[str, Any]:
        """What the only span since the last time says was used, without the namespaces."""
        prefixes = ("gen_ai.usage.", "costspan.usage.")
        return {
            key.removeprefix(prefix): value
            for key, value in self.one().items()
            for prefix in prefixes
            if key.startswith(prefix)
        }


@contextmanager
def watching(provider: Provider) -> Iterator[Watched]:
    """Patches the SDK as long as it lasts."""
    watched = Watched()
    watched.engine.instrument(provider)
    try:
        yield watched
    finally:
        watched.engine.uninstrument(provider)


async def finished(result: Any, is_async: bool) -> Any:
    """The result of a call, awaited if its client is asynchronous."""
    return await result if is_async else result


async def items(stream: Any, is_async: bool) -> list[Any]:
    """All chunks of a stream of either kind."""
    return [item async for item in stream] if is_async else list(stream)
