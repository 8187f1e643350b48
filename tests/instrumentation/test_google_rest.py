"""What Google bills beside generated content: interactions, live sessions, pictures, videos, batches, caches."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from costspan_instrumentation.providers.google import GOOGLE, embeddings_usage, interactions_usage, live_usage

from .replies import Asked, replying, stream_of
from .test_google_readers import Spans

genai = pytest.importorskip("google.genai")

MODEL = "gemini-2.5-flash"
USAGE = {
    "total_input_tokens": 10,
    "total_cached_tokens": 4,
    "total_tool_use_tokens": 5,
    "total_output_tokens": 20,
    "total_thought_tokens": 7,
}
COUNTED = {
    "gen_ai.usage.input_tokens": 15,
    "gen_ai.usage.output_tokens": 27,
    "gen_ai.usage.reasoning.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 4,
}


def interaction(number: str = "i-1", status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"id": number, "object": "interaction", "status": status, "model": MODEL, "service_tier": "standard", **more}


def streamed(*texts: str, end: bool = True) -> str:
    deltas = [{"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": text}} for text in texts]
    start = {"event_type": "interaction.created", "interaction": interaction(status="in_progress")}
    whole = {"event_type": "interaction.completed", "interaction": interaction(usage=USAGE)}
    return stream_of(start, *deltas, *((whole,) if end else ()))


def reply(path: str, body: dict[str, Any]) -> Any:
    """The fake Google: what it answers to a request to this path."""
    if path.endswith("/interactions"):
        if body.get("stream"):
            return streamed("Hel", "lo")
        if body.get("background"):
            return interaction("i-later", "in_progress")
        return interaction(usage=USAGE)
    for part, answer in ANSWERS.items():
        if part in path:
            return answer
    raise AssertionError(path)


PICTURE = {"bytesBase64Encoded": "AAAA", "mimeType": "image/png"}
ANSWERS: dict[str, Any] = {
    "/interactions/i-later": interaction("i-later", usage=USAGE),
    "/interactions/i-1": interaction(usage=USAGE),
    ":predictLongRunning": {"name": "models/veo-3.1-generate-001/operations/o-1"},
    "imagen": {"predictions": [PICTURE, {"raiFilteredReason": "no"}, PICTURE]},
    "/cachedContents": {
        "name": "cachedContents/c-1",
        "model": f"models/{MODEL}",
        "createTime": "2026-08-10T23:00:00Z",
        "expireTime": "2026-08-10T23:30:00Z",
        "usageMetadata": {"totalTokenCount": 9602},
    },
    ":countTokens": {"totalTokens": 9},
    "text-embedding": {
        "predictions": [{"embeddings": {"values": [0.5], "statistics": {}}}],
        "metadata": {"billableCharacterCount": 35},
    },
}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.engine.uninstrument(GOOGLE)


@pytest.fixture
def client(server: Asked) -> Any:
    return at(server.url)


def at(url: str, **more: Any) -> Any:
    return genai.Client(http_options=genai.types.HttpOptions(base_url=url), **(more or {"api_key": "k"}))


@pytest.fixture
def vertex(server: Asked) -> Any:
    token = pytest.importorskip("google.oauth2.credentials").Credentials(token="t")
    return at(server.url, vertexai=True, project="p", location="l", credentials=token)


def told(spans: Spans) -> dict[str, Any]:
    """The attributes of the one span since the last time."""
    (span,) = spans.since()
    return dict(span.attributes or {})


def usage_in(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if ".usage." in key}


# ---------------------------------------------------------------- usage objects


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(USAGE, COUNTED, id="tools and thoughts are added, the cache is a part"),
        pytest.param(
            {
                "total_input_tokens": 9,
                "total_output_tokens": 8,
                "input_tokens_by_modality": [{"modality": "text", "tokens": 4}, {"modality": "image", "tokens": 5}],
                "tool_use_tokens_by_modality": [{"modality": "audio", "tokens": 2}],
                "output_tokens_by_modality": [{"modality": "video", "tokens": 8}],
                "cached_tokens_by_modality": [{"modality": "video", "tokens": 1}, {"modality": "document"}],
            },
            {
                "gen_ai.usage.input_tokens": 9,
                "gen_ai.usage.output_tokens": 8,
                "gen_ai.usage.image.input_tokens": 5,
                "gen_ai.usage.audio.input_tokens": 2,
                "costspan.usage.output_video": 8,
                "costspan.usage.cache_read_video": 1,
            },
            id="modalities",
        ),
        pytest.param(
            {"total_input_tokens": 1, "total_output_tokens": 2, "total_reasoning_tokens": 3},
            {
                "gen_ai.usage.input_tokens": 1,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.usage.reasoning.output_tokens": 3,
            },
            id="the older name of thoughts",
        ),
        pytest.param({"total_input_tokens": -1}, {"gen_ai.usage.input_tokens": -1}, id="a count that cannot be"),
        pytest.param(None, {}, id="none"),
    ],
)
def test_usage_of_interactions(usage: Any, attributes: dict[str, Any]) -> None:
    assert interactions_usage(usage) == attributes


def test_usage_of_a_live_session() -> None:
    usage = {
        "promptTokenCount": 9,
        "responseTokenCount": 4,
        "thoughtsTokenCount": 1,
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
        "trafficType": "ON_DEMAND_PRIORITY",
    }
    assert live_usage(usage) == {
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "gen_ai.usage.audio.output_tokens": 4,
        "costspan.service_tier": "priority",
    }
    assert live_usage(None) == embeddings_usage(None) == {}


# ---------------------------------------------------------------- interactions

with_interactions = pytest.mark.skipif(genai.__version__ < "2", reason="this version has none of these")
pytestmark = pytest.mark.filterwarnings("ignore")


@with_interactions
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_interaction_is_counted_once(client: Any, spans: Spans, is_async: bool) -> None:
    interactions = client.aio.interactions if is_async else client.interactions
    asked = {"model": MODEL, "input": "Hi", "generation_config": {"temperature": 0.5, "thinking_level": "low"}}
    made = interactions.create(**asked, previous_interaction_id="i-0", service_tier="flex")
    assert (await made if is_async else made).id == "i-1"
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "generate_content"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == MODEL
    assert attributes["gen_ai.request.reasoning.level"] == "low"
    assert attributes["gen_ai.request.previous_response.id"] == "i-0"
    assert attributes["costspan.service_tier"] == "standard"
    assert attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert usage_in(attributes) == COUNTED
    # It was counted when it was made.
    fetched = interactions.get("i-1")
    assert (await fetched if is_async else fetched).id == "i-1"
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "fetch_response"
    assert not usage_in(attributes)


@with_interactions
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_streamed_interaction(client: Any, spans: Spans, is_async: bool) -> None:
    if is_async:
        stream = await client.aio.interactions.create(model=MODEL, input="Hi", stream=True)
        events = [event async for event in stream]
    else:
        with client.interactions.create(model=MODEL, input="Hi", stream=True) as stream:
            events = list(stream)
    assert len(events) == 4
    assert type(stream).__module__.startswith("google.genai")
    attributes = told(spans)
    assert attributes["gen_ai.request.stream"] is True
    assert "gen_ai.response.time_to_first_chunk" in attributes
    assert attributes["gen_ai.response.finish_reasons"] == ("completed",)
    assert usage_in(attributes) == COUNTED


@with_interactions
def test_a_stream_that_is_left_is_estimated(client: Any, spans: Spans) -> None:
    stream = client.interactions.create(model=MODEL, input="Hi there, Google", stream=True)
    assert [next(stream).event_type for _ in range(2)] == ["interaction.created", "step.delta"]
    stream.close()
    attributes = told(spans)
    assert attributes["costspan.usage.estimated"] is True
    assert attributes["gen_ai.usage.input_tokens"] == 4
    assert attributes["gen_ai.usage.output_tokens"] == 1


@with_interactions
def test_a_background_interaction_is_counted_when_it_is_fetched(client: Any, spans: Spans) -> None:
    client.interactions.create(model=MODEL, input="Hi", background=True)
    assert not usage_in(told(spans))
    for counted in (COUNTED, {}):
        client.interactions.get("i-later")
        attributes = told(spans)
        assert usage_in(attributes) == counted
        assert attributes["gen_ai.response.model"] == MODEL


@with_interactions
def test_a_raw_interaction_is_read(client: Any, spans: Spans) -> None:
    raw = client.interactions.with_raw_response.create(model=MODEL, input="Hi")
    assert raw.parse().id == "i-1"
    assert usage_in(told(spans)) == COUNTED


@with_interactions
def test_a_failed_interaction(spans: Spans) -> None:
    client = at("http://127.0.0.1:9")
    with warnings.catch_warnings(), pytest.raises(Exception) as raised:
        client.interactions.create(model=MODEL, input="Hi", timeout=0.5)
    attributes = told(spans)
    assert attributes["error.type"]
    assert not usage_in(attributes)
    assert raised.value is not None


@pytest.mark.parametrize(
    ("model", "answer", "attributes"),
    [
        pytest.param(
            "gemini-3-flash-preview",
            {
                "usage": {
                    "grounding_tool_count": [{"type": "google_search", "count": 2}, {"type": "google_maps", "count": 1}]
                }
            },
            {"costspan.usage.web_searches": 2, "costspan.usage.maps_prompts": 1},
            id="as the usage counts",
        ),
        pytest.param(
            "gemini-3-flash-preview",
            {"steps": [{"type": "google_search_call", "arguments": {"queries": ["a", "b", "c"]}}, {"type": "thought"}]},
            {"costspan.usage.web_searches": 3},
            id="as the steps show",
        ),
        pytest.param(
            MODEL,
            {
                "steps": [
                    {"type": f"google_{kind}_call", "arguments": {"queries": ["a", "b"]}} for kind in ("search", "maps")
                ]
            },
            {"costspan.usage.grounded_prompts": 1, "costspan.usage.maps_prompts": 1},
            id="Gemini 2 bills the prompt",
        ),
    ],
)
def test_searches_of_an_interaction(model: str, answer: dict[str, Any], attributes: dict[str, Any]) -> None:
    create = next(e for e in GOOGLE.endpoints if e.method.endswith("Interactions.create"))
    assert usage_in(create.response({"status": "completed", "model": model, **answer})) == attributes


# ---------------------------------------------------------------- pictures, videos, caches, embeddings


@pytest.mark.parametrize("is_async", [False, True])
async def test_pictures_are_counted_that_were_made(vertex: Any, spans: Spans, is_async: bool) -> None:
    models = vertex.aio.models if is_async else vertex.models
    made = models.generate_images(model="imagen-4.0-generate-001", prompt="A bridge", config={"number_of_images": 3})
    assert len((await made if is_async else made).generated_images) >= 2
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "image_generation"
    assert usage_in(attributes) == {"costspan.usage.images": 2}


@pytest.mark.parametrize(
    ("config", "usage"),
    [
        ({"duration_seconds": 6, "number_of_videos": 2}, {"costspan.usage.video_seconds": 12.0}),
        (None, {"costspan.usage.video_seconds": 8.0, "costspan.usage.estimated": True}),
    ],
    ids=["as asked", "of the usual length"],
)
def test_a_video_is_priced_when_it_is_begun(vertex: Any, spans: Spans, config: Any, usage: dict[str, Any]) -> None:
    operation = vertex.models.generate_videos(model="veo-3.1-generate-001", prompt="A bridge", config=config)
    attributes = told(spans)
    assert attributes["gen_ai.response.id"] == operation.name == "models/veo-3.1-generate-001/operations/o-1"
    assert usage_in(attributes) == usage


def test_a_cache_costs_until_it_expires_and_counting_nothing(client: Any, spans: Spans) -> None:
    cache = client.caches.create(model=MODEL, config={"contents": ["A long text"], "ttl": "1800s"})
    assert cache.name == "cachedContents/c-1"
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "create_cache"
    assert attributes["gen_ai.request.model"] == MODEL
    assert usage_in(attributes) == {
        "costspan.usage.cache_storage_token_hours": 4801.0,
        "costspan.usage.estimated": True,
    }
    client.models.count_tokens(model=MODEL, contents="Hi")
    assert spans.since() == []


def test_characters_count_where_nobody_tells_tokens(vertex: Any, spans: Spans) -> None:
    vertex.models.embed_content(model="text-embedding-005", contents="Hi")
    attributes = told(spans)
    assert attributes["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert usage_in(attributes) == {"costspan.usage.characters": 35}


# ---------------------------------------------------------------- batches


def answered(tokens: int, **more: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": tokens, "candidatesTokenCount": 1, "serviceTier": "standard"}
    return {"response": {"candidates": [], "modelVersion": MODEL, "usageMetadata": usage, **more}}


def batch(state: str, *answers: dict[str, Any], kind: str = "inlinedResponses") -> dict[str, Any]:
    output = {"output": {kind: {"inlinedResponses": list(answers)}}} if answers else {}
    return {"name": "batches/b-1", "metadata": {"model": f"models/{MODEL}", "state": state, **output}}


def test_a_batch_is_counted_once_when_it_is_done(client: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "batches/b-1", batch("BATCH_STATE_PENDING"))
    client.batches.get(name="batches/b-1")
    assert told(spans)["gen_ai.operation.name"] == "fetch_response"
    done = batch("BATCH_STATE_SUCCEEDED", answered(13), {"error": {"code": 3, "message": "no"}}, answered(14))
    monkeypatch.setitem(ANSWERS, "batches/b-1", done)
    client.batches.get(name="batches/b-1")
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "generate_content"
    assert attributes["gen_ai.request.model"] == MODEL
    assert attributes["costspan.service_tier"] == "batch"
    assert usage_in(attributes) == {"gen_ai.usage.input_tokens": 27, "gen_ai.usage.output_tokens": 2}
    client.batches.get(name="batches/b-1")
    assert not usage_in(told(spans))


def test_short_prompts_of_a_batch_do_not_make_a_long_one(
    client: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [answered(tokens) for tokens in (150_000, 40_000, 60_000, 210_000, 300_000)]
    monkeypatch.setitem(ANSWERS, "batches/b-1", batch("BATCH_STATE_SUCCEEDED", *answers))
    client.batches.get(name="batches/b-1")
    attributes = told(spans)
    assert attributes["gen_ai.usage.input_tokens"] == 760_000
    shares = json.loads(attributes["costspan.usage.by_model"])
    assert [share["gen_ai.usage.input_tokens"] for share in shares] == [190_000, 60_000, 510_000]
    assert {share["model"] for share in shares} == {MODEL}


def test_a_batch_of_embeddings(client: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [{"response": {"embedding": {"values": [0.5]}, "tokenCount": count}} for count in (3, 4)]
    done = batch("BATCH_STATE_SUCCEEDED", *answers, kind="inlinedEmbedContentResponses")
    monkeypatch.setitem(ANSWERS, "batches/b-1", done)
    job = client.batches.get(name="batches/b-1")
    if not getattr(job.dest, "inlined_embed_content_responses", None):
        pytest.skip("this version drops them")
    attributes = told(spans)
    assert attributes["gen_ai.operation.name"] == "embeddings"
    assert usage_in(attributes) == {"gen_ai.usage.input_tokens": 7}


# ---------------------------------------------------------------- live sessions

TURNS = (
    {"toolCall": {"functionCalls": [{"id": "f", "name": "add", "args": {}}]}, "usageMetadata": {"promptTokenCount": 3}},
    {"serverContent": {"modelTurn": {"parts": [{"text": "Hi"}]}}},
    {
        "serverContent": {"turnComplete": True},
        "usageMetadata": {
            "promptTokenCount": 10,
            "responseTokenCount": 20,
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 15}],
        },
    },
)


@asynccontextmanager
async def speaking() -> AsyncIterator[str]:
    """A server that answers each text with the turns."""
    server = pytest.importorskip("websockets.asyncio.server")

    async def talk(socket: Any) -> None:
        await socket.recv()
        await socket.send(json.dumps({"setupComplete": {}}))
        async for _ in socket:
            for message in TURNS:
                await socket.send(json.dumps(message))

    async with server.serve(talk, "127.0.0.1", 0) as serving:
        yield f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"


async def test_each_answer_of_a_live_session_is_counted(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "gemini-live-2.5-flash-preview"
    live = pytest.importorskip("google.genai.live")
    connect = live.ws_connect
    # The SDK speaks TLS alone.
    monkeypatch.setattr(
        live,
        "ws_connect",
        lambda uri, additional_headers, **_: connect(uri.replace("wss:", "ws:"), additional_headers=additional_headers),
    )
    async with (
        speaking() as url,
        at(url).aio.live.connect(model=model, config={"response_modalities": ["AUDIO"], "temperature": 0.5}) as session,
    ):
        await session.send_client_content(turns={"role": "user", "parts": [{"text": "Hi"}]})
        messages = [message async for message in session.receive()]
    assert len(messages) == 3
    with_tools, whole = (dict(span.attributes or {}) for span in spans.since())
    assert usage_in(with_tools) == {"gen_ai.usage.input_tokens": 3}
    assert whole["gen_ai.request.model"] == model
    assert whole["gen_ai.request.temperature"] == 0.5
    assert whole["gen_ai.provider.name"] == "gcp.gemini"
    assert usage_in(whole) == {
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.audio.output_tokens": 15,
    }
