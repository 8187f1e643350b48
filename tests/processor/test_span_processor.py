"""Spans that somebody else's instrumentation made: attributed when they start, priced when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

from costspan_processor import Budget, CostSpanProcessor, Processing, compat
from costspan_processor.attribution import attributed, attributes_of
from costspan_processor.span_processor import EnrichingExporter
from tests.processor.conftest import CHAT, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan_pricing import PriceBook

REQUEST = {key: value for key, value in CHAT.items() if "usage" not in key and "response" not in key}
RESPONSE = {key: value for key, value in CHAT.items() if key not in REQUEST}


def foreign_call(provider: TracerProvider, attributes: dict[str, Any] | None = None) -> None:
    """What another instrumentation does: request attributes at the start, the rest later."""
    span = provider.get_tracer("opentelemetry.instrumentation.acme", "1.0").start_span("chat large", attributes=REQUEST)
    span.set_attributes(RESPONSE if attributes is None else attributes)
    span.end()


def test_with_the_installed_sdk_the_frozen_attributes_are_replaced() -> None:
    """The day this fails with `live`, the SDK has fixed its issue 5614 and `compat` may lose half of its code."""
    assert compat.way() == "replaced"


@pytest.mark.parametrize("position", ["first", "between", "last"])
def test_every_exporter_sees_the_price_wherever_the_processor_stands(position: str, book: PriceBook) -> None:
    provider = TracerProvider()
    simple, batched = InMemorySpanExporter(), InMemorySpanExporter()
    processors: list[SpanProcessor] = [SimpleSpanProcessor(simple), BatchSpanProcessor(batched)]
    processors.insert({"first": 0, "between": 1, "last": 2}[position], CostSpanProcessor(book))
    for processor in processors:
        provider.add_span_processor(processor)
    foreign_call(provider)
    provider.force_flush()
    for exporter in (simple, batched):
        (span,) = exporter.get_finished_spans()
        assert span.attributes is not None
        assert span.attributes["costspan.cost.total"] == 0.0016
        assert span.attributes["gen_ai.request.model"] == "large"
    provider.shutdown()


def test_it_needs_nothing_else_of_costspan() -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(CostSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    foreign_call(provider)
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["costspan.cost.status"] == "unknown_provider"


def test_a_foreign_span_is_counted_but_never_in_the_conventions_own_metrics(shop: Telemetry) -> None:
    foreign_call(shop.tracer_provider)
    seen = shop.metrics()
    assert sum(seen["costspan.cost"].values()) == pytest.approx(0.0016)
    assert not [name for name in seen if name.startswith("gen_ai.")]
    (row,) = shop.processing.table.rows()
    assert row.timed == 1


def test_a_foreign_span_is_charged_to_the_budgets(telemetry: Callable[..., Telemetry]) -> None:
    shop = telemetry(budgets=[Budget("team", "1")])
    foreign_call(shop.tracer_provider)
    (span,) = shop.spans.get_finished_spans()
    assert (span.attributes or {})["costspan.budget.status"] == "ok"
    assert list(shop.metrics()["costspan.budget.spent"].values()) == [0.0016]


def test_a_span_that_is_priced_already_is_left_alone(shop: Telemetry) -> None:
    foreign_call(shop.tracer_provider, {**RESPONSE, "costspan.cost.status": "priced", "costspan.cost.total": 5.0})
    (span,) = shop.spans.get_finished_spans()
    assert (span.attributes or {})["costspan.cost.total"] == 5.0
    assert shop.processing.table.rows() == []


def test_spans_that_are_no_model_calls_keep_their_attributes(shop: Telemetry) -> None:
    tracer = shop.tracer_provider.get_tracer("http")
    tracer.start_span("GET /", attributes={"http.request.method": "GET"}).end()
    tracer.start_span("execute_tool search", attributes={**CHAT, "gen_ai.operation.name": "execute_tool"}).end()
    for span in shop.spans.get_finished_spans():
        assert not [key for key in span.attributes or {} if key.startswith("costspan.")]


def test_attribution_reaches_every_genai_span_and_no_other(shop: Telemetry) -> None:
    tracer = shop.tracer_provider.get_tracer("any")
    context, totals = attributed(attributes_of(team="search", user="ada"))
    token = otel.attach(context)
    try:
        known = tracer.start_span("chat", attributes=REQUEST)
        agent = tracer.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"})
        late = tracer.start_span("chat")
        http = tracer.start_span("GET /", attributes={"http.request.method": "GET"})
    finally:
        otel.detach(token)
    assert isinstance(known, ReadableSpan)
    assert (known.attributes or {})["costspan.team"] == "search", "a sampler further on may want to see it"
    known.set_attributes(RESPONSE)
    late.set_attributes(CHAT)
    for span in (known, agent, late, http):
        span.end()
    teams = {span.context.span_id: (span.attributes or {}).get("user.id") for span in shop.spans.get_finished_spans()}
    assert [teams[span.get_span_context().span_id] for span in (known, agent, late, http)] == [
        "ada",
        "ada",
        "ada",
        None,
    ]
    assert (totals.calls, totals.tokens) == (2, 2200)
    (row,) = shop.processing.table.rows()
    assert row.dimensions == {"costspan.team": "search"}


def test_a_span_that_is_nearly_full_keeps_its_own_attributes_and_gets_the_status(book: PriceBook) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=len(CHAT) + 2))
    exporter = InMemorySpanExporter()
    provider.add_span_processor(CostSpanProcessor(book))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    foreign_call(provider)
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {
        **CHAT, "costspan.cost.status": "priced", "costspan.cost.total": 0.0016,
    }  # fmt: skip


def test_a_limit_on_the_length_of_values_holds(book: PriceBook) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_span_attribute_length=5))
    exporter = InMemorySpanExporter()
    provider.add_span_processor(CostSpanProcessor(book))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    foreign_call(provider)
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["costspan.cost.status"] == "price"


def test_after_shutdown_spans_pass_untouched(shop: Telemetry) -> None:
    shop.processing.shutdown()
    foreign_call(shop.tracer_provider)
    (span,) = shop.spans.get_finished_spans()
    assert "costspan.cost.status" not in (span.attributes or {})


def test_an_error_of_ours_ends_no_span_and_is_counted(shop: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(shop.observer, "count", broken)
    foreign_call(shop.tracer_provider)
    (span,) = shop.spans.get_finished_spans()
    assert span.end_time is not None
    assert shop.processing.table.errors() == {"processor.on_ending": 1}


class LiveSpan(Span):
    """A span as a fixed SDK has it: still recording inside the ending hook."""

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Any) -> None:
        self.added = dict(attributes)


def test_an_sdk_that_leaves_ending_spans_open_is_used_as_it_is_meant(shop: Telemetry) -> None:
    span = shop.tracer_provider.get_tracer("x").start_span("chat", attributes=CHAT)
    span.__class__ = LiveSpan
    assert isinstance(span, LiveSpan)
    shop.processing.span_processor._on_ending(span)
    assert span.added["costspan.cost.total"] == 0.0016


def test_the_last_resort_prices_copies_on_their_way_to_one_exporter(book: PriceBook) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(EnrichingExporter(exporter, book)))
    foreign_call(provider)
    provider.get_tracer("http").start_span("GET /").end()
    priced, plain = exporter.get_finished_spans()
    assert (priced.attributes or {})["costspan.cost.total"] == 0.0016
    assert (priced.name, priced.instrumentation_scope.name) == ("chat large", "opentelemetry.instrumentation.acme")  # type: ignore[union-attr]
    assert dict(plain.attributes or {}) == {}


# ------------------------------------------------------------------ sampling

FOREIGN = "openinference.instrumentation.groq"


def sampled(sampler: Sampler, book: PriceBook, early: bool) -> tuple[TracerProvider, InMemorySpanExporter, Processing]:
    """A program whose sampler drops spans; `early`: its instrumentation was set up before costspan."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    if early:
        provider.get_tracer(FOREIGN)
    processing = Processing(provider, MeterProvider([InMemoryMetricReader()]), book=book)
    processing.start()
    return provider, exporter, processing


@pytest.mark.parametrize("early", [False, True], ids=["set up after us", "set up before us"])
def test_a_sampler_that_drops_a_foreign_call_does_not_drop_its_money(book: PriceBook, early: bool) -> None:
    provider, exporter, processing = sampled(ParentBased(ALWAYS_OFF), book, early)
    with provider.get_tracer("http").start_as_current_span("GET /") as request:
        assert not request.is_recording()
        for _ in range(3):
            provider.get_tracer(FOREIGN).start_span("chat", attributes=dict(CHAT)).end()
    (row,) = processing.table.rows()
    assert (dict(row.calls), sum(row.cost.values())) == ({"priced": 3}, 4_800_000_000)
    assert exporter.get_finished_spans() == ()


def test_our_tracer_is_still_one_of_its_provider(book: PriceBook) -> None:
    provider, _, _ = sampled(ALWAYS_OFF, book, early=False)
    ours: Any = provider.get_tracer("costspan")
    other: Any = provider.get_tracer("mistralai_sdk_tracer")
    assert ours.span_processor is not other.span_processor
    assert other.span_processor == ours.span_processor
    assert TracerProvider().get_tracer("costspan").span_processor != ours.span_processor  # type: ignore[attr-defined]


def test_undone_the_sampler_is_the_programs_own_again(book: PriceBook) -> None:
    provider, _, processing = sampled(ALWAYS_OFF, book, early=True)
    processing.shutdown()
    tracer: Any = provider.get_tracer(FOREIGN)
    assert tracer.sampler is ALWAYS_OFF
    assert "get_tracer" not in vars(provider)
