"""Everything here touches what the OpenTelemetry SDK keeps private, and nothing else in costspan does.

Why it has to: SDK 1.45 freezes a span's attributes before the ending hook runs (open-telemetry/opentelemetry-python
issue 5614), and its fork handlers leave locks and old values behind. Each function asks for what it needs and does
without if it is not there, so a newer SDK can only make it unnecessary.
"""

from __future__ import annotations

import math
import threading
from operator import attrgetter
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import get_current
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource, ServiceInstanceIdResourceDetector
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, Sampler, SamplingResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram
    from opentelemetry.sdk.trace import Span
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.util.types import Attributes, AttributeValue


Way = Literal["live", "replaced", "exporter"]
"""How a foreign span gets its price: it can still be written to when it ends; its frozen attributes are replaced; or
neither, and only an exporter can add them to a copy."""


def _public_attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


attributes_of: Final[Callable[[ReadableSpan], Mapping[str, Any]]] = (
    attrgetter("_attributes._dict")
    if isinstance(getattr(BoundedAttributes(), "_dict", None), dict)
    else _public_attributes
)
"""A span's attributes as the plain dict that the SDK keeps: ten times as fast to read as the view it shows."""


class Ending(SpanProcessor):
    """Sees spans in the one hook in which they can still be written to: those that are not `passed` by attributes."""

    def __init__(self, passed: Callable[[Mapping[str, Any]], bool]) -> None:
        self._passed = passed
        self._waiting: dict[int, None] = {}
        """Ids of spans that are seen whatever their attributes."""

    def _on_ending(self, span: Span) -> None:
        # Every span of the program comes by here. Reading the SDK's dict is ten times as fast as the view it shows.
        try:
            attributes: Mapping[str, Any] = span._attributes._dict  # type: ignore[union-attr]
        except AttributeError:
            attributes = span.attributes or {}
        passed = self._passed(attributes)
        if not passed or self._waiting:
            self.ending(span, attributes, passed)

    def ending(self, span: Span, attributes: Mapping[str, Any], passed: bool) -> None:
        """A span ends that has `attributes`. `passed`: it would not be seen if its id were not waited for."""
        raise NotImplementedError


def add_when_ending(span: Span, new: Mapping[str, AttributeValue]) -> bool:
    """Add attributes to a span inside the ending hook; False if this SDK lets nobody.

    A span that has no room for all of them gets the first ones: the SDK would drop its oldest attributes instead, the
    model's name among them.
    """
    if span.is_recording():
        span.set_attributes(_that_fit(attributes_of(span), new, getattr(span, "_attributes", None)))
        return True
    frozen = getattr(span, "_attributes", None)
    if not isinstance(frozen, BoundedAttributes):
        return False
    old = getattr(frozen, "_dict", None)
    if not isinstance(old, dict):
        return False
    added = _that_fit(old, new, frozen)
    if frozen.max_value_len is not None:
        added = {
            key: value[: frozen.max_value_len] if isinstance(value, str) else value for key, value in added.items()
        }
    # A new container and not the old one unfrozen: whoever reads the old one meanwhile sees it whole.
    thawed = BoundedAttributes(frozen.maxlen, None, immutable=True, max_value_len=frozen.max_value_len)
    thawed._dict = {**old, **added}
    thawed.dropped = frozen.dropped + len(new) - len(added)
    span._attributes = thawed
    return True


def _that_fit(
    old: Mapping[str, Any], new: Mapping[str, AttributeValue], container: BoundedAttributes | Any
) -> Mapping[str, AttributeValue]:
    most = getattr(container, "maxlen", None)
    if most is None or len(old) + len(new) <= most:
        return new
    room = most - len(old)
    fitting: dict[str, AttributeValue] = {}
    for key, value in new.items():
        if key not in old:
            if room <= 0:
                continue
            room -= 1
        fitting[key] = value
    return fitting


def way() -> Way:
    """Find out, on a span of our own that goes nowhere, how this SDK lets an ending span be written to."""
    probe = _Probe()
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(probe)
    provider.get_tracer("costspan.probe").start_span("probe").end()
    return probe.way


class _Probe(SpanProcessor):
    way: Way = "exporter"

    def __init__(self) -> None:
        self._recording = False

    def _on_ending(self, span: Span) -> None:
        self._recording = span.is_recording()
        add_when_ending(span, {"probe": True})

    def on_end(self, span: ReadableSpan) -> None:
        if (span.attributes or {}).get("probe"):
            self.way = "live" if self._recording else "replaced"


class _Measured:
    """The fields of an SDK measurement, without the check of its labels."""

    __slots__ = ("attributes", "context", "instrument", "time_unix_nano", "value")

    def __init__(
        self, value: float, at: int, instrument: Histogram, context: Context, labels: Mapping[str, str | int]
    ) -> None:
        self.value = value
        self.time_unix_nano = at
        self.instrument = instrument
        self.context = context
        self.attributes = labels


class Recorder:
    """Records values of a histogram under labels that stay the same.

    The SDK checks, copies, sorts and hashes the labels of every measurement: four fifths of what a record costs. Here
    the aggregations that the labels lead to are kept, and a measurement is handed to them as the SDK does. Wherever
    that is not possible (another SDK, delta temporality, more series than a view may have) and whenever a reader has
    come or gone, it goes the public way.
    """

    __slots__ = ("_bound", "_consumer", "_histogram", "_labels")

    def __init__(self, histogram: Histogram, labels: Mapping[str, str | int]) -> None:
        self._histogram: Any = histogram
        self._labels = labels
        self._consumer: Any = getattr(histogram, "_measurement_consumer", None)
        # The SDK's storages when this was bound, the aggregations in them (none if they cannot be kept), its filter.
        self._bound: tuple[object, tuple[Any, ...], Any] = (None, (), None)

    def __call__(self, value: float, context: Context | None = None) -> None:
        """`histogram.record(value, labels, context)`."""
        histogram, labels = self._histogram, self._labels
        storages, aggregations, sampled = self._bound
        if (
            not aggregations
            or self._consumer._reader_storages is not storages
            or not 0 <= value < math.inf
            or not histogram._is_enabled()
        ):
            histogram.record(value, labels, context)
            self._bind()
            return
        context = context or get_current()
        measured = _Measured(value, time_ns(), histogram, context, labels)
        exemplary = sampled(value, measured.time_unix_nano, labels, context)
        for aggregation in aggregations:
            aggregation.aggregate(measured, exemplary)

    def _bind(self) -> None:
        # After a public record the SDK has the aggregations, of every reader and view.
        storages: Any = getattr(self._consumer, "_reader_storages", None)
        if storages is self._bound[0]:
            return
        aggregations: tuple[Any, ...] = ()
        sampled = None
        try:
            sampled = self._consumer._sdk_config.exemplar_filter.should_sample
            aggregations = tuple(
                _aggregation_of(match, self._labels)
                for storage in storages.values()
                for match in storage._get_or_init_view_instrument_match(self._histogram)
            )
        except (AttributeError, ImportError, LookupError, TypeError):
            aggregations = ()
        self._bound = (storages, aggregations, sampled)


def _aggregation_of(match: Any, labels: Mapping[str, str | int]) -> Any:
    """Where a view of the SDK keeps what is recorded under labels; LookupError if it keeps nothing for good."""
    from opentelemetry.sdk.metrics._internal._view_instrument_match import _hash_attributes

    if match._reset_on_collect:
        raise LookupError("each collection begins with new aggregations")
    wanted = match._view._attribute_keys
    seen = dict(labels) if wanted is None else {key: value for key, value in labels.items() if key in wanted}
    return match._attributes_aggregation[_hash_attributes(seen)]


class _Recording(Sampler):
    """Another sampler, but what it drops is recorded. It is not exported: exporters take sampled spans alone."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler: Final = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        *more: Any,
        **named: Any,
    ) -> SamplingResult:
        """As the other sampler says, and never `DROP`."""
        result = self.sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, *more, **named)
        if result.decision is not Decision.DROP:
            return result
        # What is dropped comes back without the span's attributes.
        return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)

    def get_description(self) -> str:
        """The other's, marked as ours."""
        return f"costspan{{{self.sampler.get_description()}}}"


class _Told(SpanProcessor):
    """A tracer's processors, and somebody who is told of its spans as they start."""

    def __init__(self, processor: SpanProcessor, starts: Callable[[Span], None]) -> None:
        self.processor: Final = processor
        self._starts = starts

    def __eq__(self, other: object) -> bool:
        # Who asks whether two tracers are of one provider compares their processors.
        return other is self.processor or (isinstance(other, _Told) and other.processor is self.processor)

    def __hash__(self) -> int:
        return hash(self.processor)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._starts(span)
        self.processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        self.processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.processor.on_end(span)


def watch_tracers(
    provider: object, speaks: Callable[[str], bool], ours: str, starts: Callable[[Span], None]
) -> Callable[[], None]:
    """Make the tracers of scopes that speak of calls to models record what their sampler drops; returns the undoing.

    A tracer keeps the sampler that its provider had when it was made, and a sampler is not told the scope: so each
    tracer gets its own, those that are there and those to come. `starts` is told of the spans of the scope `ours`,
    which no other span of the program has to pay for. A provider that is not the SDK's stays as it is.
    """
    original = getattr(provider, "get_tracer", None)
    if not isinstance(provider, TracerProvider) or original is None:
        return lambda: None
    changed: list[Any] = []

    def watched(tracer: Any, scope: str) -> Any:
        processor, sampler = getattr(tracer, "span_processor", None), getattr(tracer, "sampler", None)
        if scope == ours and isinstance(processor, SpanProcessor) and not isinstance(processor, _Told):
            tracer.span_processor = _Told(processor, starts)
            changed.append(tracer)
        if isinstance(sampler, Sampler) and not isinstance(sampler, _Recording) and speaks(scope):
            tracer.sampler = _Recording(sampler)
            changed.append(tracer)
        return tracer

    def get_tracer(*args: Any, **kwargs: Any) -> Any:
        tracer = original(*args, **kwargs)
        scope = args[0] if args else kwargs.get("instrumenting_module_name")
        return watched(tracer, scope) if isinstance(scope, str) else tracer

    def undo() -> None:
        if vars(provider).get("get_tracer") is get_tracer:
            del provider.get_tracer
        for tracer in changed:
            if isinstance(tracer.sampler, _Recording):
                tracer.sampler = tracer.sampler.sampler
            if isinstance(tracer.span_processor, _Told):
                tracer.span_processor = tracer.span_processor.processor

    made = getattr(provider, "_tracers", None)
    for scope, tracer in list(made.items()) if isinstance(made, dict) else ():
        watched(tracer, getattr(scope, "name", ""))
    provider.get_tracer = get_tracer  # type: ignore[method-assign]
    return undo


def identify(provider: object) -> None:
    """Give a provider whose resource has no `service.instance.id` one, as the SDK does for resources it makes itself.

    Without it, two processes of one service overwrite each other's counters wherever they meet. The SDK renews it after
    a fork.
    """
    resource = getattr(provider, "resource", None) or getattr(getattr(provider, "_sdk_config", None), "resource", None)
    update = getattr(provider, "_update_resource", None)
    if isinstance(resource, Resource) and callable(update) and not resource.attributes.get(SERVICE_INSTANCE_ID):
        update(ServiceInstanceIdResourceDetector().detect())


def resource_of(provider: object) -> Mapping[str, Any]:
    """The resource attributes of a provider; empty for one that is not the SDK's."""
    resource = getattr(provider, "resource", None) or getattr(getattr(provider, "_sdk_config", None), "resource", None)
    return resource.attributes if isinstance(resource, Resource) else {}


def after_fork(meter_provider: object, scope_name: str) -> None:
    """In a forked child, make the meter provider usable and let it forget what the parent recorded under a scope.

    A thread of the parent may have been collecting, holding locks that nobody in the child will ever release; the next
    collection, or the making of an instrument, would wait for ever. And the parent's histograms would go on being
    exported by the child, under its own identity: counted twice.
    """
    meters = getattr(meter_provider, "_meters", None)
    # The API's stand-in keeps a set: it has nothing of ours in it.
    for meter in meters.values() if isinstance(meters, dict) else ():
        _renew_lock(meter, "_instrument_registration_lock")
        _renew_lock(meter, "_instrument_id_lock")
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    if consumer is None:
        return
    _renew_lock(consumer, "_lock")
    for reader, storage in getattr(consumer, "_reader_storages", {}).items():
        _renew_lock(reader, "_lock")
        _renew_lock(reader, "_export_lock")
        _renew_lock(storage, "_lock")
        matches = getattr(storage, "_instrument_view_instrument_matches", {})
        for instrument in list(matches):
            if getattr(getattr(instrument, "instrumentation_scope", None), "name", None) == scope_name:
                del matches[instrument]
                continue
            for match in matches[instrument]:
                _renew_lock(match, "_lock")
                for aggregation in list(getattr(match, "_attributes_aggregation", {}).values()):
                    _renew_lock(aggregation, "_lock")
    instruments = getattr(consumer, "_async_instruments", None)
    if isinstance(instruments, list):
        instruments[:] = [
            instrument for instrument in instruments if instrument.instrumentation_scope.name != scope_name
        ]


def _renew_lock(owner: object, name: str) -> None:
    lock = getattr(owner, name, None)
    if lock is not None:
        setattr(owner, name, threading.RLock() if isinstance(lock, type(threading.RLock())) else threading.Lock())
