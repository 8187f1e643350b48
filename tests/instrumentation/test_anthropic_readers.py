"""What Anthropic reports -> what the span says, and that each billed request is counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.provider import Endpoint, Fields, Seen
from costspan_instrumentation.providers.anthropic import ANTHROPIC, messages_usage

from .recorded import events, exchanges
from .replies import Asked, replying, stream_of

CREATE, _, STREAM = ANTHROPIC.endpoints[:3]
MAKES_SPANS = find_spec("anthropic") is not None and int(version("anthropic").split(".")[0]) >= 2


def usage_of(**counts: Any) -> dict[str, Any]:
    return {"input_tokens": 10, "output_tokens": 20, **counts}


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            usage_of(),
            {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20},
            id="plain",
        ),
        pytest.param(
            # Anthropic's input excludes what was read from or written to a cache; the span's total contains it.
            usage_of(cache_read_input_tokens=100, cache_creation_input_tokens=30),
            {
                "gen_ai.usage.input_tokens": 140,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read.input_tokens": 100,
                "gen_ai.usage.cache_write.input_tokens": 30,
            },
            id="cache",
        ),
        pytest.param(
            usage_of(
                cache_creation_input_tokens=30,
                cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            ),
            {
                "gen_ai.usage.input_tokens": 40,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_write.input_tokens": 30,
                "costspan.usage.cache_write_5m": 10,
                "costspan.usage.cache_write_1h": 20,
            },
            id="cache writes by their lifetime",
        ),
        pytest.param(
            usage_of(
                output_tokens_details={"thinking_tokens": 15},
                server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1},
                service_tier="priority",
                inference_geo="us",
            ),
            {
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.reasoning.output_tokens": 15,
                "costspan.usage.web_searches": 2,
                "costspan.service_tier": "priority",
                "costspan.geo": "us",
            },
            id="what changes the price",
        ),
        pytest.param(
            usage_of(
                cache_read_input_tokens=0,
                service_tier="standard",
                inference_geo="not_available",
                server_tool_use={"web_search_requests": 0},
            ),
            {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20},
            id="what says nothing is left out",
        ),
        pytest.param(
            usage_of(service_tier="standard", speed="fast"),
            {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20, "costspan.service_tier": "fast"},
            id="fast mode",
        ),
        pytest.param(
            usage_of(
                iterations=[
                    {"type": "compaction", "input_tokens": 60_000, "output_tokens": 500, "cache_read_input_tokens": 70},
                    {"type": "message", "input_tokens": 10, "output_tokens": 20},
                ]
            ),
            {
                "gen_ai.usage.input_tokens": 60_080,
                "gen_ai.usage.output_tokens": 520,
                "gen_ai.usage.cache_read.input_tokens": 70,
            },
            id="a compaction is billed beside the message",
        ),
        pytest.param({}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert messages_usage(usage) == attributes
    assert ANTHROPIC.usage_formats["anthropic.messages"] is messages_usage


def test_an_advisor_has_a_model_and_a_price_of_its_own() -> None:
    told = messages_usage(
        usage_of(
            iterations=[
                {"type": "message", "input_tokens": 4, "output_tokens": 15},
                {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2518, "output_tokens": 22},
                {"type": "message", "input_tokens": 6, "output_tokens": 5},
            ]
        )
    )
    assert told["gen_ai.usage.input_tokens"] == 10
    assert json.loads(told["costspan.usage.iterations"]) == [
        {"model": "claude-opus-4-8", "gen_ai.usage.input_tokens": 2518, "gen_ai.usage.output_tokens": 22}
    ]


@pytest.mark.parametrize(("written", "billed"), [(0, False), (7, True)])
def test_a_model_that_declined_is_billed_for_what_it_had_written(written: int, billed: bool) -> None:
    told = messages_usage(
        usage_of(
            iterations=[
                {"type": "message", "model": "claude-fable-5", "input_tokens": 412, "output_tokens": written},
                {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 10, "output_tokens": 20},
            ]
        )
    )
    assert told["gen_ai.usage.input_tokens"] == 10
    assert ("costspan.usage.iterations" in told) is billed


@pytest.mark.parametrize("wrong", [-5, "many", float("nan"), True])
def test_a_count_that_cannot_be_is_passed_on_as_it_came(wrong: Any) -> None:
    told = messages_usage(usage_of(cache_read_input_tokens=wrong))
    assert told["gen_ai.usage.cache_read.input_tokens"] is wrong
    assert told["gen_ai.usage.input_tokens"] is wrong


# ---------------------------------------------------------------- requests, answers, streams


def test_request_attributes_leave_out_what_is_not_given() -> None:
    told = CREATE.request(
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 64,
            "temperature": 0,
            "top_k": object(),
            "stop_sequences": ["END"],
            "stream": True,
            "speed": "fast",
            "output_config": {"effort": "low"},
            "messages": [],
        }
    )
    assert told == {
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.stream": True,
        "gen_ai.request.reasoning.level": "low",
        "costspan.service_tier": "fast",
    }


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hi there"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 20},
}
STREAMED: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            **MESSAGE,
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 50, "output_tokens": 1, "inference_geo": "us"},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi there"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 20, "input_tokens": 5, "cache_read_input_tokens": None},
    },
    {"type": "message_stop"},
]


def read(endpoint: Endpoint, parts: list[Any]) -> Seen:
    seen = Seen()
    assert endpoint.chunk is not None
    for part in parts:
        # The engine decodes the events of a raw stream like this.
        endpoint.chunk(json.loads(json.dumps(part), object_hook=Fields) if type(part) is dict else part, seen)
    return seen


def test_the_end_of_a_stream_overrules_its_start_where_it_speaks() -> None:
    seen = read(STREAM, STREAMED)
    assert seen.final
    assert seen.attributes == {
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.model": "claude-sonnet-4-5-20250929",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": 55,
        "gen_ai.usage.cache_read.input_tokens": 50,
        "gen_ai.usage.output_tokens": 20,
        "costspan.geo": "us",
    }


def test_a_stream_without_its_end_keeps_what_it_told_and_is_not_final() -> None:
    seen = read(STREAM, STREAMED[:3])
    assert not seen.final
    assert seen.attributes["gen_ai.usage.input_tokens"] == 53
    assert seen.characters == len("Hi there")


@pytest.mark.parametrize("form", ["raw", "sdk"])
def test_all_that_the_model_writes_is_counted_until_its_usage_comes(form: str) -> None:
    deltas: list[dict[str, Any]] = [
        {"type": "text_delta", "text": "abc"},
        {"type": "text_delta", "text": ""},
        {"type": "thinking_delta", "thinking": "defgh"},
        {"type": "input_json_delta", "partial_json": '{"a":1}'},
        {"type": "signature_delta", "signature": "no text"},
        {"type": "citations_delta", "citation": None},
    ]
    parts: list[Any] = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    if form == "sdk":
        models, types = pytest.importorskip("anthropic._models"), pytest.importorskip("anthropic.types")
        parts = [models.construct_type(type_=types.RawMessageStreamEvent, value=part) for part in parts]
        # As an SDK does that does not know thinking: the delta has the class of another one.
        undeclared = types.TextDelta.construct(**deltas[2])
        parts.append(types.RawContentBlockDeltaEvent.construct(type="content_block_delta", delta=undeclared))
    seen = read(STREAM, parts)
    assert seen.characters == (20 if form == "sdk" else 15)
    assert seen.attributes == {}


def test_a_stream_that_another_model_finishes_is_priced_as_that_model() -> None:
    handover = {"type": "fallback", "from": {"model": "claude-fable-5"}, "to": {"model": "claude-opus-4-8"}}
    seen = read(STREAM, [STREAMED[0], {"type": "content_block_start", "index": 0, "content_block": handover}])
    assert seen.attributes["gen_ai.response.model"] == "claude-opus-4-8"


# ---------------------------------------------------------------- recorded exchanges

RECORDED = [e for e in exchanges("anthropic.messages") if e["response"]["status"] < 400]


@pytest.mark.skipif(not RECORDED, reason="no recorded exchanges here")
@pytest.mark.parametrize("exchange", RECORDED, ids=lambda exchange: exchange["id"])
def test_a_recorded_answer_reads_the_same_as_json_and_as_sdk_object(exchange: dict[str, Any]) -> None:
    models = pytest.importorskip("anthropic._models")
    beta = pytest.importorskip("anthropic.types.beta")
    body = exchange["response"]["body"]
    if exchange["stream"]:
        parts = events(body)
        objects = [models.construct_type(type_=beta.BetaRawMessageStreamEvent, value=part) for part in parts]
        told = read(CREATE, parts).attributes
        assert read(CREATE, objects).attributes == told
    else:
        told = CREATE.response(body)
        assert CREATE.response(models.construct_type(type_=beta.BetaMessage, value=body)) == told
    if usage := exchange["usage"]:
        billed = [usage, *(i for i in usage.get("iterations") or () if i["type"] == "compaction")]
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        assert told["gen_ai.usage.input_tokens"] == sum(part.get(name) or 0 for part in billed for name in names)
        assert told["gen_ai.usage.output_tokens"] == sum(part["output_tokens"] for part in billed)


# ---------------------------------------------------------------- the real SDK: one request, one count


class Failures:
    """An observer that only remembers what went wrong inside."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, BaseException]] = []

    def before(self, *_: Any) -> None:
        return None

    async def abefore(self, *_: Any) -> None:
        return None

    def after(self, *_: Any) -> dict[str, Any]:
        return {}

    def failed(self, where: str, error: BaseException) -> None:
        self.failures.append((where, error))


class Spans:
    """An engine that watches the SDK, and the spans that come out of it and of the SDK itself."""

    def __init__(self) -> None:
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.engine, self.observer = Engine(), Failures()
        self.engine.start(self.provider.get_tracer("test"), self.observer)
        self.engine.instrument(ANTHROPIC)

    def billed(self) -> list[ReadableSpan]:
        """The spans since the last time that carry tokens."""
        self.engine.drain()
        spans = self.memory.get_finished_spans()
        self.memory.clear()
        for _, failure in self.observer.failures:
            raise failure
        return [span for span in spans if "gen_ai.usage.input_tokens" in (span.attributes or {})]


def answer(path: str, body: dict[str, Any]) -> Any:
    if "count_tokens" in path:
        return {"input_tokens": 7}
    if body.get("stream") or "stream" in path:
        return stream_of(*STREAMED)
    return MESSAGE


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(answer) as asked:
        yield asked


@pytest.fixture
def spans() -> Iterator[Spans]:
    pytest.importorskip("anthropic")
    spans = Spans()
    yield spans
    spans.engine.uninstrument(ANTHROPIC)


def a_client(server: Asked, spans: Spans, name: str = "Anthropic", **access: Any) -> Any:
    """A client whose own spans, where the SDK makes some, go where ours go."""
    import anthropic

    own = {"open_telemetry": {"tracer_provider": spans.provider}} if MAKES_SPANS else {}
    access = access or {"api_key": "k"}
    return getattr(anthropic, name)(base_url=server.url, max_retries=0, **access, **own)


ASK: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def every_way(client: Any) -> Iterator[str]:
    """Makes one request after the other, each in another way that this version of the SDK has."""
    import anthropic

    plain, beta = client.messages, client.beta.messages
    yield str(plain.create(**ASK))
    yield str(list(plain.create(stream=True, **ASK)))
    with plain.stream(**ASK) as stream:
        yield stream.get_final_text()
    yield str(plain.with_raw_response.create(**ASK).parse())
    with plain.with_streaming_response.create(**ASK) as raw:
        yield str(raw.parse())
    with plain.with_streaming_response.create(stream=True, **ASK) as raw:
        yield str(list(raw.parse()))
    yield str(beta.create(**ASK))
    if hasattr(plain, "parse"):
        yield str(plain.parse(**ASK))
        yield str(beta.parse(**ASK))
    if hasattr(beta, "stream"):
        with beta.stream(**ASK) as stream:
            yield stream.get_final_text()
    if hasattr(beta, "tool_runner"):

        @anthropic.beta_tool
        def add(x: int) -> str:
            """Adds."""
            return str(x)

        yield str(beta.tool_runner(tools=[add], **ASK).until_done())
        yield str([s.get_final_message() for s in beta.tool_runner(tools=[add], stream=True, **ASK)])
    if hasattr(beta, "thread"):
        yield str(beta.thread(max_tokens=9, model="claude-sonnet-4-5").send({"role": "user", "content": "Hi"}))


def test_each_request_is_counted_once_however_it_is_made(server: Asked, spans: Spans) -> None:
    for number, said in enumerate(every_way(a_client(server, spans)), start=1):
        assert "Hi there" in said
        assert len(server.requests) == number
        (span,) = spans.billed()
        assert span.name == "chat claude-sonnet-4-5"
        assert span.attributes is not None
        assert span.attributes["gen_ai.usage.output_tokens"] == 20
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "test"


def test_the_sdk_sends_our_span_as_the_parent(server: Asked, spans: Spans) -> None:
    if not MAKES_SPANS:
        pytest.skip("this version propagates nothing itself")
    a_client(server, spans).messages.create(**ASK)
    (span,) = spans.billed()
    assert span.context is not None
    assert server.requests[0][2]["traceparent"].split("-")[2] == f"{span.context.span_id:016x}"


def test_counting_tokens_costs_nothing_and_is_not_patched(server: Asked, spans: Spans) -> None:
    client = a_client(server, spans)
    counting = client.messages if hasattr(client.messages, "count_tokens") else client.beta.messages
    assert counting.count_tokens(model="claude-sonnet-4-5", messages=ASK["messages"]).input_tokens == 7
    assert spans.billed() == []


def test_a_client_for_a_cloud_is_that_cloud(server: Asked, spans: Spans) -> None:
    pytest.importorskip("google.auth")
    vertex = a_client(server, spans, "AnthropicVertex", region="us-east5", project_id="p", access_token="t")
    # Its beta messages are a class of its own that took over the functions of the first one.
    for messages in (vertex.messages, vertex.beta.messages):
        messages.create(**ASK)
        (span,) = spans.billed()
        assert span.attributes is not None
        assert span.attributes["gen_ai.provider.name"] == "gcp.vertex_ai"


async def test_an_async_stream_is_counted_once_with_its_manager_and_without(server: Asked, spans: Spans) -> None:
    client = a_client(server, spans, "AsyncAnthropic")
    async with client.messages.stream(**ASK) as stream:
        assert await stream.get_final_text() == "Hi there"
    (span,) = spans.billed()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 55

    assert len([event async for event in await client.messages.create(stream=True, **ASK)]) == len(STREAMED)
    (span,) = spans.billed()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 55


def test_patching_is_undone_and_done_again(server: Asked, spans: Spans) -> None:
    client = a_client(server, spans)
    spans.engine.uninstrument(ANTHROPIC)
    client.messages.create(**ASK)
    assert all(span.instrumentation_scope.name != "test" for span in spans.billed() if span.instrumentation_scope)
    spans.engine.instrument(ANTHROPIC)
    client.messages.create(**ASK)
    assert len(spans.billed()) == 1
