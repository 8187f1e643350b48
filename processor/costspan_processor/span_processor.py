"""Spans of every GenAI instrumentation in the process: whom they are for, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from costspan_pricing import PriceBook
from costspan_processor import compat
from costspan_processor.attribution import attribution, sources
from costspan_processor.compat import attributes_of
from costspan_processor.conventions import RESPONSE_ID, ROLLUP, STATUS, Plain
from costspan_processor.enrich import assess, describe, enrich
from costspan_processor.once import Once, counts_of
from costspan_processor.translation import in_convention, says_nothing
from costspan_processor.translation import told as told_by

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span
    from opentelemetry.util.types import AttributeValue

    from costspan_processor.attribution import Attribution
    from costspan_processor.observer import CostObserver


class CostSpanProcessor(compat.Ending):
    """Copies attribution onto GenAI spans and prices those that nobody has priced yet.

    Add it to a TracerProvider anywhere among the processors: every exporter sees what it adds. Alone it needs nothing
    else of costspan; with an `observer` the calls it prices are also counted and charged to budgets (never recorded in
    the `gen_ai.client.*` metrics, which are their own instrumentation's). It sees recorded spans only: a call that
    the sampler drops is not priced here.

    `counted` tells by the id of a response whether somebody else counts its call. A span about it is then marked as a
    roll-up: an SDK may record its calls itself, beside the instrumentation or inside a span of the application's.
    """

    def __init__(
        self,
        book: PriceBook | None = None,
        observer: CostObserver | None = None,
        *,
        proposal: bool = True,
        counted: Callable[[object], bool] | None = None,
    ) -> None:
        if book is None:
            book = PriceBook.bundled() if observer is None else observer.book
        self._book = book
        self._observer = observer
        self._proposal = proposal
        self._counted = counted
        super().__init__(says_nothing)
        self.once: Final = Once()
        self._waiting = self.once.above
        self._closed = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Put the attribution of the context onto a GenAI span."""
        # Every span of the program comes by here: nothing is called that can be done without.
        if not sources or self._closed:
            return
        try:
            who = attribution(parent_context)
            if who is None:
                return
            # Where the span ends, the current context may be another. And many instrumentations say only later that a
            # span is a GenAI one: then it is marked at its end.
            span._costspan_attribution = who  # type: ignore[attr-defined]
            if not says_nothing(attributes_of(span)):
                span.set_attributes(who.attributes)
        except Exception as error:  # noqa: BLE001  a span must start whatever happens here
            self._failed("processor.on_start", error)

    def ours_starts(self, span: Span) -> None:
        """A call of our own instrumentation begins."""
        self.once.ours_starts(*_ids(span))

    def ending(self, span: Span, attributes: Mapping[str, Any], passed: bool) -> None:
        """Price a span that tells of a call, unless another one does."""
        contains = bool(self._waiting) and self.once.ends(*_ids(span))
        if passed or self._closed:
            return
        try:
            new = self._enriched(span, attributes, contains)
            if new and not compat.add_when_ending(span, new):
                self._failed("processor.frozen_span", RuntimeError("this OpenTelemetry SDK lets nobody price a span"))
        except Exception as error:  # noqa: BLE001  a span must end whatever happens here
            self._failed("processor.on_ending", error)

    def _enriched(self, span: Span, attributes: Mapping[str, Any], contains: bool) -> dict[str, AttributeValue]:
        who: Attribution | None = getattr(span, "_costspan_attribution", None)
        new: dict[str, AttributeValue] = {}
        if who is not None:
            new.update((key, value) for key, value in who.attributes.items() if key not in attributes)
        scope = span.instrumentation_scope.name if span.instrumentation_scope is not None else ""
        start = span.start_time or 0
        told = (*_ids(span), scope, start, span.end_time or start, None)
        if STATUS in attributes:
            self.once.counted(told, attributes.get(RESPONSE_ID), counts_of(attributes))
            return new
        resource = span.resource.attributes
        # An agent's usage is its calls', unless nobody has seen those.
        reading, response_id = told_by(attributes, scope, resource, aggregate=not contains)
        if reading is None:
            return new
        counts = reading.input_tokens, reading.output_tokens
        if contains or self.once.repeats(told, response_id, counts) or (self._counted and self._counted(response_id)):
            return {ROLLUP: True, **new}
        if isinstance(reading, Plain) or reading.usage is not None or reading.problem is not None:
            self.once.counted(told, response_id, counts)
        duration = None if span.end_time is None else max(0, span.end_time - start) / 1e9
        priced = assess(reading, start, self._book, duration)
        result = describe(priced, self._proposal)
        observer = self._observer
        if observer is not None:
            if observer.guard is not None and (observer.guard.budgets or (who is not None and who.limits)):
                identity = span.get_span_context()
                key = f"{identity.trace_id:032x}:{identity.span_id:016x}"
                known = {**attributes, **in_convention(attributes, scope, resource)}
                result.update(observer.guard.charge(key, known, who, priced))
            observer.count(priced, who, duration, own=False)
            if observer.ledger is not None:
                observer.ledger.keep(priced, who, start, duration, None, None, attributes, span, scope, resource)
        # The price first: where a span has little room left, the first ones are those that stay.
        result.update(new)
        return result

    def _failed(self, where: str, error: BaseException) -> None:
        if self._observer is not None:
            self._observer.failed(where, error)

    def shutdown(self) -> None:
        """Let spans pass untouched from now on."""
        self._closed = True

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Nothing waits here."""
        return True


def _ids(span: Span) -> tuple[int, int | None]:
    return span.get_span_context().span_id, None if span.parent is None else span.parent.span_id


class EnrichingExporter(SpanExporter):
    """The last resort, with public API only: hands on priced copies of spans, for one exporter.

    For an SDK that lets nobody write to a span that ends, and for spans that reach an exporter on another way than
    through a TracerProvider of this process.
    """

    def __init__(self, exporter: SpanExporter, book: PriceBook | None = None, *, proposal: bool = True) -> None:
        self._exporter = exporter
        self._book = book or PriceBook.bundled()
        self._proposal = proposal

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Price the spans that need it and export all."""
        return self._exporter.export([self._priced(span) for span in spans])

    def _priced(self, span: ReadableSpan) -> ReadableSpan:
        attributes = span.attributes or {}
        try:
            start, end = span.start_time or 0, span.end_time
            seconds = None if end is None else max(0, end - start) / 1e9
            made_by = span.instrumentation_scope
            scope = made_by.name if made_by is not None else ""
            new = enrich(
                attributes,
                start,
                self._book,
                seconds=seconds,
                proposal=self._proposal,
                scope=scope,
                resource=span.resource.attributes,
            )
        except Exception:  # noqa: BLE001  a span that cannot be priced is exported as it is
            return span
        if not new:
            return span
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={**attributes, **new},
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)
