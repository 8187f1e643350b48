"""What Gemini reports -> what the span says, and that each billed request is counted once."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.provider import Seen
from costspan_instrumentation.providers.google import GOOGLE, content_usage, embeddings_usage

from .recorded import events, exchanges
from .replies import Asked, replying, stream_of

GENERATE, STREAM, EMBED = GOOGLE.endpoints[:3]


def details(**modalities: int) -> list[dict[str, Any]]:
    return [{"modality": modality, "tokenCount": count} for modality, count in modalities.items()]


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            {"promptTokenCount": 10, "candidatesTokenCount": 20, "totalTokenCount": 30},
            {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20},
            id="plain",
        ),
        pytest.param(
            # Cached tokens are part of the prompt; tool prompts stand beside it, and thoughts beside the candidates.
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 80,
                "toolUsePromptTokenCount": 7,
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 30,
            },
            {
                "gen_ai.usage.input_tokens": 107,
                "gen_ai.usage.output_tokens": 50,
                "gen_ai.usage.cache_read.input_tokens": 80,
                "gen_ai.usage.reasoning.output_tokens": 30,
            },
            id="cache, thoughts and tools",
        ),
        pytest.param(
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 40,
                "cachedContentTokenCount": 9,
                "toolUsePromptTokenCount": 5,
                "promptTokensDetails": details(TEXT=10, AUDIO=20, IMAGE=30, VIDEO=35, DOCUMENT=5),
                "toolUsePromptTokensDetails": details(IMAGE=5),
                "candidatesTokensDetails": details(TEXT=1, AUDIO=2, IMAGE=3),
                "cacheTokensDetails": details(TEXT=0, AUDIO=2, IMAGE=3, VIDEO=4),
            },
            {
                "gen_ai.usage.input_tokens": 105,
                "gen_ai.usage.output_tokens": 40,
                "gen_ai.usage.cache_read.input_tokens": 9,
                "gen_ai.usage.audio.input_tokens": 20,
                "gen_ai.usage.image.input_tokens": 35,
                "costspan.usage.input_video": 35,
                "gen_ai.usage.audio.output_tokens": 2,
                "gen_ai.usage.image.output_tokens": 3,
                "gen_ai.usage.audio.cache_read.input_tokens": 2,
                "gen_ai.usage.image.cache_read.input_tokens": 3,
                "costspan.usage.cache_read_video": 4,
            },
            id="modalities",
        ),
        pytest.param(
            {"promptTokenCount": 1, "trafficType": "ON_DEMAND"},
            {"gen_ai.usage.input_tokens": 1, "costspan.service_tier": "standard"},
            id="traffic on demand is the standard tier",
        ),
        pytest.param(
            {"promptTokenCount": 1, "trafficType": "ON_DEMAND_FLEX"},
            {"gen_ai.usage.input_tokens": 1, "costspan.service_tier": "flex"},
            id="flex traffic",
        ),
        pytest.param(
            {"promptTokenCount": 1, "trafficType": "PROVISIONED_THROUGHPUT"},
            {"gen_ai.usage.input_tokens": 1, "costspan.service_tier": "provisioned_throughput"},
            id="bought capacity",
        ),
        pytest.param(
            {"promptTokenCount": 1, "serviceTier": "priority", "trafficType": "TRAFFIC_TYPE_UNSPECIFIED"},
            {"gen_ai.usage.input_tokens": 1, "costspan.service_tier": "priority"},
            id="service tier",
        ),
        pytest.param(
            {"promptTokenCount": 1, "grounded_prompts": 1},
            {"gen_ai.usage.input_tokens": 1, "costspan.usage.grounded_prompts": 1},
            id="a grounded prompt, told with the usage",
        ),
        pytest.param(
            {"prompt_token_count": 3, "candidates_token_count": 4, "thoughts_token_count": None},
            {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4},
            id="the SDK's own spelling",
        ),
        pytest.param({"promptTokenCount": -1}, {"gen_ai.usage.input_tokens": -1}, id="a count that cannot be"),
        pytest.param({"trafficType": 1}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert content_usage(usage) == attributes
    assert GOOGLE.usage_formats["google.generate_content"] is content_usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            {"promptTokenCount": 261, "promptTokenDetails": details(IMAGE=258, TEXT=3)},
            {"gen_ai.usage.input_tokens": 261, "gen_ai.usage.image.input_tokens": 258},
            id="Gemini API",
        ),
        pytest.param(
            {"predictions": [{"statistics": {"token_count": 5.0}}, {"statistics": {"token_count": 6}}]},
            {"gen_ai.usage.input_tokens": 11},
            id="Vertex AI, text by text",
        ),
        pytest.param({}, {}, id="older SDKs drop it"),
    ],
)
def test_usage_of_embeddings(usage: Any, attributes: dict[str, Any]) -> None:
    assert embeddings_usage(usage) == attributes
    assert GOOGLE.usage_formats["google.embed_content"] is embeddings_usage


# ---------------------------------------------------------------- requests, answers, streams


def test_request_attributes() -> None:
    config = {"temperature": 0.5, "maxOutputTokens": 9, "top_k": 40.0, "candidate_count": 1, "service_tier": "flex"}
    assert GENERATE.request({"model": "models/gemini-2.5-flash", "contents": "Hi", "config": config}) == {
        "gen_ai.request.model": "models/gemini-2.5-flash",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.top_k": 40,
        "costspan.service_tier": "flex",
    }
    assert STREAM.request({"model": "gemini-2.5-flash", "config": None}) == {
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.request.stream": True,
    }


def answer(*texts: str, end: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text} for text in texts]}}
    if end:
        candidate["finishReason"] = end
    return {
        "candidates": [candidate | more.pop("candidate", {})],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 20} | more.pop("usage", {}),
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r-1",
        **more,
    }


@pytest.mark.parametrize(
    ("model", "attribute", "quantity"),
    [
        pytest.param("gemini-2.5-flash", "costspan.usage.grounded_prompts", 1, id="Gemini 2 bills the grounded prompt"),
        pytest.param("gemini-3-flash-preview", "costspan.usage.web_searches", 2, id="later models bill each search"),
    ],
)
def test_grounding_with_google_search(model: str, attribute: str, quantity: int) -> None:
    searched = {"groundingMetadata": {"webSearchQueries": ["", "largest city", "its population"]}}
    told = GENERATE.response(answer("Hi", candidate=searched, modelVersion=model))
    assert {key: value for key, value in told.items() if "prompts" in key or "searches" in key} == {attribute: quantity}
    assert not [
        key for key in GENERATE.response(answer("Hi", candidate={"groundingMetadata": {}})) if "grounded" in key
    ]


def test_the_last_usage_of_a_stream_counts() -> None:
    seen = Seen()
    assert STREAM.chunk is not None
    for number in range(3):
        STREAM.chunk(answer("Hi ", end=None, usage={"candidatesTokenCount": number}), seen)
    assert not seen.final
    assert seen.attributes["gen_ai.usage.output_tokens"] == 2
    STREAM.chunk(answer("there", usage={"thoughtsTokenCount": 5}), seen)
    assert seen.final
    assert seen.characters == len("Hi Hi Hi there")
    assert seen.attributes == {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 25,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.response.model": "gemini-2.5-flash",
        "gen_ai.response.id": "r-1",
        "gen_ai.response.finish_reasons": ("STOP",),
    }


# ---------------------------------------------------------------- recorded exchanges

RECORDED = [
    exchange
    for exchange in exchanges("google.generate_content", "vertex.generate_content")
    if exchange["response"]["status"] < 400 and "json-array-stream" not in exchange["tags"]
]


@pytest.mark.skipif(not RECORDED, reason="no recorded exchanges here")
@pytest.mark.parametrize("exchange", RECORDED, ids=lambda exchange: exchange["id"])
def test_a_recorded_answer_reads_the_same_as_json_and_as_sdk_object(exchange: dict[str, Any]) -> None:
    types = pytest.importorskip("google.genai.types")

    def sdk_object(part: dict[str, Any]) -> Any:
        return types.GenerateContentResponse._from_response(response=copy.deepcopy(part), kwargs={})

    parts = events(exchange["response"]["body"]) if exchange["stream"] else [exchange["response"]["body"]]
    told: list[dict[str, Any]] = []
    for form in (lambda part: part, sdk_object):
        seen = Seen()
        assert STREAM.chunk is not None
        for part in parts:
            STREAM.chunk(form(part), seen)
        read = seen.attributes if exchange["stream"] else GENERATE.response(form(parts[0]))
        # The SDK keeps trafficType and drops serviceTier, which it names in a header instead.
        told.append({key: value for key, value in read.items() if key != "costspan.service_tier"})
    assert told[0] == told[1]

    usage = exchange["usage"] or {}
    prompt, output = ("promptTokenCount", "toolUsePromptTokenCount"), ("candidatesTokenCount", "thoughtsTokenCount")
    assert told[0].get("gen_ai.usage.input_tokens", 0) == sum(usage.get(name) or 0 for name in prompt)
    assert told[0].get("gen_ai.usage.output_tokens", 0) == sum(usage.get(name) or 0 for name in output)


# ---------------------------------------------------------------- the real SDK: one request, one count


class Failures:
    """An observer that only remembers what went wrong inside."""

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


class Spans:
    """An engine that watches the SDK, and the spans that come out."""

    def __init__(self) -> None:
        self.memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.engine, self.observer = Engine(), Failures()
        self.engine.start(provider.get_tracer("test"), self.observer)
        self.engine.instrument(GOOGLE)

    def since(self) -> list[ReadableSpan]:
        """The spans since the last time."""
        self.engine.drain()
        spans = self.memory.get_finished_spans()
        self.memory.clear()
        for failure in self.observer.failures:
            raise failure
        return list(spans)


def reply(path: str, body: dict[str, Any]) -> Any:
    if "mbed" in path:
        return {"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 4}}
    called = any("functionResponse" in part for content in body["contents"] for part in content["parts"])
    if body.get("tools") and not called:
        call = {
            "index": 0,
            "content": {"role": "model", "parts": [{"functionCall": {"name": "add", "args": {"x": 1}}}]},
        }
        first = answer(candidate={**call, "finishReason": "STOP"})
        return stream_of(first) if "stream" in path else first
    if "stream" in path:
        return stream_of(answer("Hi ", end=None, usage={"candidatesTokenCount": 1}), answer("there"))
    return answer("Hi there")


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def spans() -> Iterator[Spans]:
    pytest.importorskip("google.genai")
    spans = Spans()
    yield spans
    spans.engine.uninstrument(GOOGLE)


@pytest.fixture
def client(server: Asked) -> Any:
    genai = pytest.importorskip("google.genai")
    return genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=server.url))


def add(x: int) -> int:
    """Adds."""
    return x + 1


MODEL = "gemini-2.5-flash"


def every_way(client: Any) -> Iterator[str]:
    """Generates content in one way after the other."""
    tools = {"tools": [add]}
    yield client.models.generate_content(model=MODEL, contents="Hi").text
    yield client.models.generate_content(model=MODEL, contents="Hi", config=tools).text
    yield "".join(c.text for c in client.models.generate_content_stream(model=MODEL, contents="Hi"))
    streamed = client.models.generate_content_stream(model=MODEL, contents="Hi", config=tools)
    yield "".join(c.candidates[0].content.parts[0].text or "" for c in streamed if c.candidates[0].content)
    chat = client.chats.create(model=MODEL)
    yield chat.send_message("Hi").text
    yield "".join(c.text for c in chat.send_message_stream("Hi"))


def test_each_request_is_counted_once_however_it_is_made(client: Any, server: Asked, spans: Spans) -> None:
    requests = 0
    for said in every_way(client):
        assert said == "Hi there"
        made = spans.since()
        # Automatic function calling makes two requests of one call, and each is billed.
        assert len(made) == len(server.requests) - requests
        requests = len(server.requests)
        for span in made:
            assert span.name == f"generate_content {MODEL}"
            assert span.attributes is not None
            assert span.attributes["gen_ai.provider.name"] == "gcp.gemini"
            assert span.attributes["gen_ai.usage.input_tokens"] == 10
            assert span.attributes["gen_ai.usage.output_tokens"] == 20
    assert requests == 8


async def test_each_async_request_is_counted_once(client: Any, server: Asked, spans: Spans) -> None:
    models, tools = client.aio.models, {"tools": [add]}
    assert (await models.generate_content(model=MODEL, contents="Hi", config=tools)).text == "Hi there"
    async for _ in await models.generate_content_stream(model=MODEL, contents="Hi", config=tools):
        pass
    async for _ in await client.aio.chats.create(model=MODEL).send_message_stream("Hi"):
        pass
    made = spans.since()
    assert len(made) == len(server.requests) == 5
    assert {dict(span.attributes or {})["gen_ai.usage.output_tokens"] for span in made} == {20}


def test_embeddings_are_one_call_in_every_version(client: Any, spans: Spans) -> None:
    client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config={"output_dimensionality": 3})
    (span,) = spans.since()
    assert span.name == "embeddings gemini-embedding-001"
    assert span.attributes is not None
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 3
    # Older versions drop the usage that the API tells, and what is not known is not 0.
    assert span.attributes.get("gen_ai.usage.input_tokens") in {4, None}


def test_an_answer_wanted_as_raw_http_is_read_all_the_same(client: Any, spans: Spans) -> None:
    types = pytest.importorskip("google.genai.types")
    if "should_return_http_response" not in types.GenerateContentConfig.model_fields:
        pytest.skip("this version has no such setting")
    config = types.GenerateContentConfig(should_return_http_response=True)
    raw = client.models.generate_content(model=MODEL, contents="Hi", config=config)
    assert json.loads(raw.sdk_http_response.body)["responseId"] == "r-1"
    (span,) = spans.since()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.output_tokens"] == 20


def test_a_stream_that_is_left_is_counted_as_far_as_it_told(client: Any, spans: Spans) -> None:
    stream = client.models.generate_content_stream(model=MODEL, contents="Hi")
    next(stream)
    stream.close()
    (span,) = spans.since()
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 10
    assert span.attributes["costspan.usage.estimated"] is True
