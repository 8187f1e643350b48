"""The wire path gives what the plain one does: every span as it was, and behind its attributes those of its price.

The plain path is OpenTelemetry's own protobuf classes and `enrich()`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.trace import NoOpTracerProvider

from costspan_pricing import PriceBook
from costspan_processor import Processing
from costspan_processor.collector import wire
from costspan_processor.collector.pricing import Pricer
from costspan_processor.enrich import enrich
from costspan_processor.translation import _MARKS

SCOPES = ("opentelemetry.instrumentation.openai_v2", "openinference.instrumentation.openai", "anybody.else", "")
NOON = 1_795_000_000 * 10**9

texts = st.text(max_size=40)
values = st.recursive(
    st.one_of(
        st.builds(lambda value: AnyValue(string_value=value), texts),
        st.builds(lambda value: AnyValue(bool_value=value), st.booleans()),
        st.builds(lambda value: AnyValue(int_value=value), st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda value: AnyValue(double_value=value), st.floats(allow_nan=False)),
        st.builds(lambda value: AnyValue(bytes_value=value), st.binary(max_size=9)),
        st.just(AnyValue()),
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: AnyValue(array_value=ArrayValue(values=items)), st.lists(inner, max_size=3)),
        st.builds(
            lambda items: AnyValue(kvlist_value=KeyValueList(values=items)),
            st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), texts, inner), max_size=3),
        ),
    ),
    max_leaves=5,
)
counts = st.one_of(
    st.builds(lambda value: AnyValue(int_value=value), st.integers(-1, 300_000)),
    st.builds(lambda value: AnyValue(string_value=str(value)), st.integers(0, 300_000)),
    values,
)
models = st.sampled_from(["gpt-4.1", "gpt-4.1-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "nobody-knows-it"])
named = {
    "gen_ai.operation.name": st.sampled_from(["chat", "embeddings", "execute_tool"]).map(
        lambda value: AnyValue(string_value=value)
    ),
    "gen_ai.provider.name": st.sampled_from(["openai", "anthropic", "gcp.gemini"]).map(
        lambda value: AnyValue(string_value=value)
    ),
    "gen_ai.request.model": models.map(lambda value: AnyValue(string_value=value)),
    "gen_ai.usage.input_tokens": counts,
    "gen_ai.usage.output_tokens": counts,
    "gen_ai.usage.cache_read.input_tokens": counts,
    "llm.token_count.prompt": counts,
    "llm.model_name": models.map(lambda value: AnyValue(string_value=value)),
    "costspan.service_tier": st.sampled_from(["batch", "priority"]).map(lambda value: AnyValue(string_value=value)),
    "costspan.cost.status": st.just(AnyValue(string_value="priced")),
    "costspan.cost.total": st.just(AnyValue(double_value=99.0)),
    "gen_ai.input.messages": st.text(min_size=100, max_size=400).map(lambda value: AnyValue(string_value=value)),
}


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """A span of any content; its trace has no other, so that its call is its own."""
    keys = draw(st.lists(st.sampled_from(sorted(named)), unique=True, max_size=len(named)))
    attributes = [KeyValue(key=key, value=draw(named[key])) for key in keys]
    attributes += draw(
        st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), texts, values), max_size=3)
    )
    span = Span(
        trace_id=draw(st.binary(min_size=16, max_size=16)),
        span_id=draw(st.binary(min_size=8, max_size=8)),
        trace_state=draw(st.sampled_from(["", "a=b"])),
        name=draw(texts),
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=draw(st.sampled_from([0, NOON])),
        attributes=draw(st.permutations(attributes)),
        flags=draw(st.sampled_from([0, 257])),
        dropped_attributes_count=draw(st.sampled_from([0, 300])),
    )
    span.end_time_unix_nano = draw(st.sampled_from([0, NOON + 10**9]))
    for name in draw(st.lists(texts, max_size=2)):
        span.events.add(name=name, time_unix_nano=NOON)
    if draw(st.booleans()):
        span.status.message = draw(texts)
    return span


@pytest.fixture(scope="module")
def processing() -> Processing:
    return Processing(NoOpTracerProvider(), MeterProvider())


@settings(max_examples=150, deadline=None)
@given(st.lists(spans(), min_size=1, max_size=4), st.sampled_from(SCOPES))
def test_the_wire_path_is_the_plain_path(processing: Processing, sent: list[Span], scope: str) -> None:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.40.0")
    of_resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = scope
    of_scope.spans.extend(sent)
    pricer = Pricer(processing.observer)
    # The second time their shapes are known, then where everything stands in them.
    for time in range(4):
        of_scope.ClearField("spans")
        of_scope.spans.extend(sent)
        for number, span in enumerate(of_scope.spans):
            span.span_id = bytes((time, number)) * 4
        got = ExportTraceServiceRequest.FromString(asyncio.run(pricer.price(request.SerializeToString())))
        for span in of_scope.spans:
            add_plainly(span, scope, processing.book)
        assert got == request
    assert processing.table.errors() == {}


def add_plainly(span: Span, scope: str, book: PriceBook) -> None:
    attributes = {pair.key: plain(pair.value) for pair in span.attributes}
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    seconds = max(0, end - start) / 1e9 if end else None
    new = enrich(attributes, start, book, scope, {"service.name": "shop"}, seconds, False)
    kept = [pair for pair in span.attributes if pair.key not in new]
    del span.attributes[:]
    span.attributes.extend(kept)
    for key, value in new.items():
        added = span.attributes.add(key=key)
        if isinstance(value, bool):
            added.value.bool_value = value
        elif isinstance(value, float):
            added.value.double_value = value
        else:
            assert isinstance(value, str)
            added.value.string_value = value


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(plain(item) for item in value.array_value.values)
    if kind == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


@given(spans())
def test_a_span_is_read_alike_in_whatever_order_its_fields_stand(span: Span) -> None:
    raw = span.SerializeToString()
    # A field that comes later on the wire than it is numbered: protobuf allows any order.
    turned = Span(attributes=span.attributes).SerializeToString()
    del span.attributes[:]
    turned += span.SerializeToString()
    for one, other in zip(parts(raw), parts(turned), strict=True):
        assert one == other


def parts(raw: bytes) -> tuple[Any, ...]:
    span = wire.open_span(raw)
    pieces = span.attributes[:]
    read = repr(wire.attributes_of(pieces)), wire.keys_of(pieces)
    return span.trace_id, span.span_id, span.parent_span_id, span.start, span.end, *read


traces = st.sampled_from([b"t" * 16, b"u" * 16])
parents = st.sampled_from([b"", b"parent!!", b"long parent"])
states = st.sampled_from(["", "a=b"])


@given(
    st.lists(
        st.tuples(traces, st.binary(min_size=8, max_size=8), parents, states, st.booleans()),
        max_size=5,
        unique_by=lambda head: head[:2],
    )
)
def test_what_spans_are_inside_is_read_of_however_many_and_whatever_begins_them(
    heads: list[tuple[bytes, bytes, bytes, str, bool]],
) -> None:
    spans = [
        Span(trace_id=trace, span_id=own, parent_span_id=parent, trace_state=state, name="a span" * many * 5)
        for trace, own, parent, state, many in heads
    ]
    raws = [span.SerializeToString() for span in spans]
    assert wire.links(raws) == {
        span.trace_id + span.span_id: span.trace_id + span.parent_span_id if span.parent_span_id else b""
        for span in spans
    }


@given(st.lists(spans(), max_size=4))
def test_the_attributes_of_many_spans_are_known_by_name(sent: list[Span]) -> None:
    of_scope = ScopeSpans(spans=sent)
    names = {pair.key for span in sent for pair in span.attributes}
    assert set(wire.names_in(of_scope.SerializeToString())) == names


def test_a_name_that_is_no_text_keeps_no_call_from_being_seen() -> None:
    odd = Span(trace_id=b"t" * 16, span_id=b"o" * 8, attributes=[KeyValue(key="###", value=AnyValue(int_value=1))])
    call = Span(trace_id=b"t" * 16, span_id=b"c" * 8, start_time_unix_nano=NOON, end_time_unix_nano=NOON + 1)
    for key, value in (("gen_ai.provider.name", "openai"), ("gen_ai.request.model", "gpt-4.1")):
        call.attributes.add(key=key).value.string_value = value
    call.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 1000
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend([odd, call])
    pricer = Pricer(Processing(NoOpTracerProvider(), MeterProvider()).observer)
    asyncio.run(pricer.price(request.SerializeToString().replace(b"###", b"#\xff#")))
    assert pricer.outcomes == {"priced": 1}


LIKE = (
    KeyValue(key="gen_ai.provider.name", value=AnyValue(string_value="openai")),
    KeyValue(key="gen_ai.usage.input_tokens", value=AnyValue(int_value=1000)),
    KeyValue(key="gen_ai.response.id", value=AnyValue(string_value="chatcmpl-1")),
    KeyValue(key="gen_ai.conversation.id", value=AnyValue(string_value="anything")),
)
_SENT, _ANSWER, _ANYTHING = [(at, len(wire.head_of(LIKE[at].key))) for at in (1, 2, 3)]


@given(st.data(), parents, states, st.booleans())
def test_a_layout_holds_for_no_span_that_protobuf_reads_otherwise(
    data: st.DataObject, parent: bytes, state: str, ended: bool
) -> None:
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, parent_span_id=parent, trace_state=state, name="chat")
    span.start_time_unix_nano, span.end_time_unix_nano = NOON, NOON + 1 if ended else 0
    span.attributes.extend(LIKE)
    raw = span.SerializeToString()
    layout: wire.Layout[str] | None = wire.Layout.of(raw, [_SENT, None], _ANSWER, [_ANYTHING])
    assert (layout is not None) == ended
    if layout is None:
        return
    told = (span.trace_id, span.span_id, parent, NOON, NOON + 1, b"\xe8\x07", b"", b"chatcmpl-1")
    assert layout.read(raw) is None
    assert layout.learn(raw, told, "alike")
    assert layout.read(raw) == ("alike", told)
    changed = bytearray(raw)
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        changed[at] = data.draw(st.sampled_from([0, 1, 8, 10, 18, 24, 57, 65, 74, 127, 128, 255]) | st.integers(0, 255))
    read = layout.read(bytes(changed))
    if read is not None:
        found = wire.open_span(bytes(changed))
        one, sent, answer, _ = pieces = found.attributes[:]
        assert one == LIKE[0].SerializeToString()
        assert [len(piece) for piece in pieces] == [pair.ByteSize() for pair in LIKE]
        assert read[1] == (
            *(found.trace_id, found.span_id, found.parent_span_id, found.start, found.end),
            *(wire.digits_of(sent, _SENT[1]), b"", wire.utf8_of(answer, _ANSWER[1])),
        )


def test_a_layout_tells_spans_apart_by_whatever_differs_in_them() -> None:
    def span(provider: str, name: str) -> bytes:
        made = Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, attributes=LIKE)
        made.start_time_unix_nano, made.end_time_unix_nano = NOON, NOON + 1
        made.attributes[0].value.string_value = provider
        return made.SerializeToString()

    kinds = [(provider, name) for provider in ("openai", "mistra", "cohere") for name in ("chat", "ask!")]
    layout: wire.Layout[tuple[str, str]] | None = wire.Layout.of(span(*kinds[0]), [_SENT], _ANSWER, [_ANYTHING])
    assert layout is not None
    told = (b"t" * 16, b"s" * 8, b"", NOON, NOON + 1, b"\xe8\x07", b"chatcmpl-1")
    for known in range(1, len(kinds) + 1):
        assert layout.learn(span(*kinds[known - 1]), told, kinds[known - 1])
        for number, kind in enumerate(kinds):
            assert layout.read(span(*kind)) == ((kind, told) if number < known else None)


@given(st.integers(0, 1 << 21))
def test_an_integer_is_read_from_up_to_three_digits(count: int) -> None:
    piece = KeyValue(key="n", value=AnyValue(int_value=count)).SerializeToString()
    digits = wire.digits_of(piece, 3)
    assert digits is not None
    assert wire.integer_of(digits) == (count if len(digits) <= 3 else None)
    # A digit that says that no other follows is the last, and what says that one does is not.
    assert wire.integer_of(b"\x01\x01\x01") is None
    assert wire.integer_of(b"\x80\x80\x80") is None


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A request with bytes changed, left out, or put in: anywhere, so in lengths and tags as well."""
    request = ExportTraceServiceRequest()
    of_scope = request.resource_spans.add().scope_spans.add()
    of_scope.scope.name = draw(st.sampled_from(SCOPES))
    of_scope.spans.extend(draw(st.lists(spans(), min_size=1, max_size=3)))
    body = bytearray(request.SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(body)


@settings(max_examples=150, deadline=None)
@given(st.lists(mangled(), min_size=1, max_size=3))
def test_bytes_of_any_kind_are_passed_on_or_refused(bodies: list[bytes]) -> None:
    pricer = Pricer(Processing(NoOpTracerProvider(), MeterProvider()).observer)
    for body in bodies:
        with suppress(wire.DecodeError):
            answer = asyncio.run(pricer.price(body))
            assert len(spans_in(answer)) == len(spans_in(body))


def spans_in(body: bytes) -> list[bytes]:
    return [
        raw
        for of_resource in wire.open_request(body).resource_spans
        for of_scope in of_resource.scope_spans
        for raw in wire.open_scope(of_scope).spans
    ]


def test_no_call_of_any_dialect_is_passed_over() -> None:
    overlooked = [mark for mark in _MARKS if not wire.may_tell_of_a_call(mark.encode())]
    assert overlooked == []


def test_a_call_is_not_passed_over_where_long_bodies_are_searched_in_pieces() -> None:
    at_seams = (b"-" * (65_536 - before) + b"service_tier" + b"-" * 100_000 for before in range(14))
    assert all(map(wire.may_tell_of_a_call, at_seams))
    assert not wire.may_tell_of_a_call(b"-" * 200_000)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_what_is_cut_off_is_refused(cut: int) -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="chat", trace_id=b"t" * 16, span_id=b"s" * 8)
    span.attributes.add(key="gen_ai.request.model").value.string_value = "gpt-4.1"
    with pytest.raises(wire.DecodeError):
        wire.open_request(request.SerializeToString()[:-cut])
