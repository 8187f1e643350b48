"""What LiteLLM calls, and who bills it -> what the span says, on the real SDK over real HTTP.

LiteLLM pins other SDKs, so `.ci/sdk-versions` runs this in an environment of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_instrumentation.providers.litellm import LITELLM, whose
from costspan_instrumentation.providers.openai import OPENAI
from costspan_pricing import PriceBook
from costspan_processor import Processing
from costspan_processor.enrich import enrich
from costspan_processor.span_processor import CostSpanProcessor

from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = [{"role": "user", "content": "Say something about bridges"}]
USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 800},
}
WHO: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4.1-2025-04-14"}
CLAUDE_USAGE: dict[str, Any] = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "server_tool_use": {"web_search_requests": 2},
    "output_tokens": 20,
}
CLAUDE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "They carry."}],
    "stop_reason": "end_turn",
    "usage": CLAUDE_USAGE,
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4.1-2025-04-14",
    "status": "completed",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 100,
        "total_tokens": 1100,
        "input_tokens_details": {"cached_tokens": 800},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


def chunks(body: dict[str, Any]) -> str:
    """A stream; its usage comes in a chunk of its own, for whoever asked for it."""
    base = {**WHO, "object": "chat.completion.chunk"}
    parts = [{"index": 0, "delta": {"role": "assistant", "content": text}} for text in ("They ", "carry ", "us.")]
    events: list[dict[str, Any]] = [{**base, "choices": [{**part, "finish_reason": None}]} for part in parts]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({**base, "choices": [], "usage": USAGE})
    if body["model"] == "openai/tells-its-cost":
        events.append({**base, "choices": [], "usage": {**USAGE, "cost": 0.25}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def claude_stream() -> str:
    begin = {**CLAUDE, "content": [], "stop_reason": None, "usage": {**CLAUDE_USAGE, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begin},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "They carry."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def reply(path: str, body: dict[str, Any]) -> Any:
    if body.get("model") == "nonexistent":
        return Refusal(404, {"error": {"message": "no such model", "type": "invalid_request_error"}})
    if path.endswith("/messages"):
        return claude_stream() if body.get("stream") else CLAUDE
    if path.endswith("/responses"):
        done = {"type": "response.completed", "sequence_number": 0, "response": RESPONSE}
        return f"event: {done['type']}\ndata: {json.dumps(done)}\n\n" if body.get("stream") else RESPONSE
    if path.endswith("/embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage: dict[str, Any] = {"prompt_tokens": 1000, "total_tokens": 1000}
        return {"object": "list", "model": "text-embedding-3-small", "data": [vector], "usage": usage}
    if path.endswith("/rerank"):
        billed = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
        return {"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": billed}
    if path.endswith("/generations"):
        details = {"text_tokens": 5, "image_tokens": 0}
        usage = {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105, "input_tokens_details": details}
        return {"created": 1, "data": [{"b64_json": "aa"}], "usage": usage}
    if path.endswith("/transcriptions"):
        return {"text": "Bridges.", "duration": 12.5, "language": "en", "task": "transcribe"}
    if path.endswith("/speech"):
        return "RIFF: no text, and no JSON"
    if body.get("stream"):
        return chunks(body)
    says = {"index": 0, "message": {"role": "assistant", "content": "They carry us."}, "finish_reason": "stop"}
    usage = {**USAGE, "cost": 0.25} if body["model"] == "openai/tells-its-cost" else USAGE
    return {**WHO, "object": "chat.completion", "choices": [says], "usage": usage}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture(scope="module")
def litellm() -> Any:
    with pytest.MonkeyPatch.context() as environment:
        # Else it fetches its price table over the network when it is imported.
        environment.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        return pytest.importorskip("litellm")


@pytest.fixture
def watched(litellm: Any) -> Iterator[Watched]:
    with watching(LITELLM) as watched:
        for provider in (OPENAI, ANTHROPIC):
            watched.engine.instrument(provider)
        yield watched
        for provider in (OPENAI, ANTHROPIC):
            watched.engine.uninstrument(provider)


def to(server: Asked, **more: Any) -> dict[str, Any]:
    return {"api_base": f"{server.url}/v1", "api_key": "k", "max_retries": 0, **more}


def dollars(attributes: dict[str, Any]) -> Any:
    return enrich(attributes, AT, PriceBook.bundled()).get("costspan.cost.total")


def keeps_usage(litellm: Any) -> bool:
    """Whether streams of this version keep a usage that the application did not ask to see."""
    return hasattr(litellm.CustomStreamWrapper, "_record_usage_only_chunk")


# ---------------------------------------------------------------- chat


@both
async def test_chat_is_counted_once_though_the_openai_sdk_makes_it(
    server: Asked, litellm: Any, watched: Watched, is_async: bool
) -> None:
    call = litellm.acompletion if is_async else litellm.completion
    answer = await finished(call("openai/gpt-4.1", ASK, max_tokens=9, **to(server)), is_async)
    assert type(answer).__name__ == "ModelResponse"
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "gpt-4.1"
    assert told["gen_ai.request.max_tokens"] == 9
    assert told["gen_ai.response.model"] == "gpt-4.1-2025-04-14"
    assert (told["server.address"], str(told["server.port"])) == ("127.0.0.1", server.url.rpartition(":")[2])
    # $2, $0.50 from the cache and $8 a million: the book's prices, and not LiteLLM's.
    assert dollars(told) == pytest.approx((200 * 2 + 800 * 0.5 + 100 * 8) / 1e6)
    assert "costspan.usage.reported_cost" not in told


@both
@pytest.mark.parametrize("asked", [False, True], ids=["not asked", "asked"])
async def test_a_stream_keeps_its_type_and_shows_what_the_application_asked_for(
    server: Asked, litellm: Any, watched: Watched, is_async: bool, asked: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    call = litellm.acompletion if is_async else litellm.completion
    watched.engine.uninstrument(LITELLM)
    bare = await finished(call("deepseek/deepseek-chat", ASK, stream=True, **options, **to(server)), is_async)
    expected = [chunk.model_dump(exclude={"created"}) for chunk in await items(bare, is_async)]
    watched.engine.instrument(LITELLM)
    watched.spans()

    stream = await finished(call("deepseek/deepseek-chat", ASK, stream=True, **options, **to(server)), is_async)
    assert isinstance(stream, litellm.CustomStreamWrapper)
    assert [chunk.model_dump(exclude={"created"}) for chunk in await items(stream, is_async)] == expected
    told = watched.one()
    assert told["gen_ai.provider.name"] == "deepseek"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    if asked or keeps_usage(litellm):
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)
        assert told["gen_ai.usage.cache_read.input_tokens"] == 800
        assert "costspan.usage.estimated" not in told
    else:
        assert told["costspan.usage.estimated"] is True


@both
async def test_an_estimate_of_litellms_is_not_taken_for_the_providers_count(
    server: Asked, litellm: Any, watched: Watched, is_async: bool
) -> None:
    """Of a host that it does not know, LiteLLM asks for no usage; it counts tokens itself, and does not say so."""
    call = litellm.acompletion if is_async else litellm.completion
    stream = await finished(call("openai/some-model", ASK, stream=True, **to(server)), is_async)
    await items(stream, is_async)
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 4, "estimated": True}


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.acompletion if is_async else litellm.completion
    stream = await finished(call("deepseek/deepseek-chat", ASK, stream=True, **to(server)), is_async)
    if is_async:
        await stream.__anext__()
        await stream.aclose()
    else:
        next(stream)
        getattr(stream, "close", lambda: None)()
    del stream
    told: list[Any] = []
    for _ in range(50):
        # LiteLLM's own threads may still hold it.
        told = told or watched.spans()
        if told:
            break
        await asyncio.sleep(0.1)
    (span,) = told
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.attributes["costspan.usage.estimated"] is True


@both
async def test_an_error_bills_nothing(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.acompletion if is_async else litellm.completion
    with pytest.raises(Exception, match="no such model"):
        await finished(call("openai/nonexistent", ASK, **to(server)), is_async)
    told = watched.one()
    assert told["error.type"] in {"NotFoundError", "BadRequestError"}
    assert not [key for key in told if ".usage." in key]


def test_an_answer_that_the_application_gives_itself_is_no_call(litellm: Any, watched: Watched) -> None:
    litellm.completion("openai/gpt-4.1", ASK, mock_response="They carry us.")
    assert watched.spans() == []


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_what_anthropic_counts_beside_tokens_is_kept(
    server: Asked, litellm: Any, watched: Watched, is_async: bool, streamed: bool
) -> None:
    if not keeps_usage(litellm):
        pytest.skip("this version drops the lifetimes of cache writes")
    call = litellm.acompletion if is_async else litellm.completion
    answer = await finished(
        call("anthropic/claude-sonnet-4-5", ASK, stream=streamed, **to(server, api_base=server.url)), is_async
    )
    if streamed:
        await items(answer, is_async)
    told = watched.one()
    assert told["gen_ai.provider.name"] == "anthropic"
    assert {key.partition("usage.")[2]: value for key, value in told.items() if ".usage." in key} == {
        "input_tokens": 140,
        "output_tokens": 20,
        "cache_read.input_tokens": 100,
        "cache_write.input_tokens": 30,
        "cache_write_5m": 10,
        "cache_write_1h": 20,
        "web_searches": 2,
    }


def test_a_cost_that_the_provider_tells_is_taken_over(server: Asked, litellm: Any, watched: Watched) -> None:
    litellm.completion("openrouter/openai/tells-its-cost", ASK, **to(server))
    told = watched.one()
    assert told["gen_ai.provider.name"] == "openrouter"
    assert told["gen_ai.request.model"] == "openai/tells-its-cost"
    assert dollars(told) == 0.25
    if keeps_usage(litellm):
        list(litellm.completion("openrouter/openai/tells-its-cost", ASK, stream=True, **to(server)))
        assert dollars(watched.one()) == 0.25


def test_a_router_is_counted_once(server: Asked, litellm: Any, watched: Watched) -> None:
    deployment = {"model": "openai/gpt-4.1", **to(server)}
    router = litellm.Router(model_list=[{"model_name": "mine", "litellm_params": deployment}])
    router.completion("mine", ASK)
    assert watched.one()["gen_ai.request.model"] == "gpt-4.1"


def test_a_kept_answer_costs_nothing(server: Asked, litellm: Any, watched: Watched) -> None:
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("this version finds no kept answers without its proxy's packages")
    litellm.cache = litellm.Cache()
    try:
        for streamed in (False, True):
            for kept in (False, True):
                answer = litellm.completion("openai/gpt-4.1", ASK, caching=True, stream=streamed, **to(server))
                if streamed:
                    list(answer)
                    time.sleep(0.5)
                told = watched.one()
                assert ("gen_ai.usage.input_tokens" in told) is not kept
    finally:
        litellm.cache = None
    assert len(server.requests) == 2


# ---------------------------------------------------------------- who


@pytest.mark.parametrize(
    ("arguments", "provider", "model"),
    [
        ({"model": "azure/mine"}, "azure.ai.openai", "mine"),
        ({"model": "openrouter/openai/gpt-4.1"}, "openrouter", "openai/gpt-4.1"),
        ({"model": "bedrock/us.amazon.nova-lite-v1:0"}, "aws.bedrock", "us.amazon.nova-lite-v1:0"),
        ({"model": "openai/deepseek-chat", "api_base": "https://api.deepseek.com/v1"}, "deepseek", "deepseek-chat"),
        ({"model": "openai/any", "api_base": "http://localhost:8000/v1"}, "openai", "any"),
        ({"model": "meta-llama/Llama-3", "custom_llm_provider": "together_ai"}, "together", "meta-llama/Llama-3"),
        # LiteLLM finds out by itself, and the answer tells.
        ({"model": "gpt-4.1"}, None, "gpt-4.1"),
        ({"model": "no-provider/of-this-name"}, None, "no-provider/of-this-name"),
    ],
)
def test_the_prefix_of_a_model_tells_the_provider(
    litellm: Any, arguments: dict[str, Any], provider: str | None, model: str
) -> None:
    told = whose.request(arguments)
    assert told.get("gen_ai.provider.name") == provider
    assert told["gen_ai.request.model"] == model


@pytest.mark.parametrize(
    ("aside", "provider"),
    [
        ({"custom_llm_provider": "xai", "api_base": "https://api.x.ai/v1"}, "x_ai"),
        # Some adapters do not say who they are for.
        ({"api_base": "https://api.anthropic.com/v1/messages"}, "anthropic"),
        ({"api_base": "http://127.0.0.1:8000"}, None),
        ({"custom_llm_provider": "openai", "api_base": "https://api.deepseek.com/v1"}, "deepseek"),
        ({"custom_llm_provider": "openai"}, "openai"),
        ({}, None),
    ],
)
def test_the_answer_tells_the_provider(aside: dict[str, Any], provider: str | None) -> None:
    assert whose.answered(aside, "any").get("gen_ai.provider.name") == provider


@pytest.mark.parametrize(
    ("aside", "reported"),
    [
        ({"response_cost": 0.5}, None),
        ({"custom_llm_provider": "openai", "response_cost": 0.5}, None),
        ({"custom_llm_provider": "openrouter"}, 0.25),
        # A version that writes its own figure over the provider's keeps that one here.
        ({"custom_llm_provider": "openrouter", "upstream_usage_cost": 0.125}, 0.125),
        ({"custom_llm_provider": "openai", "upstream_usage_cost": None}, None),
        # A LiteLLM proxy tells what it charged.
        ({"additional_headers": {"llm_provider-x-litellm-response-cost": "0.75"}}, 0.75),
    ],
)
def test_litellms_own_price_is_never_taken_over(aside: dict[str, Any], reported: float | None) -> None:
    assert whose.cost({"cost": 0.25}, aside).get("costspan.usage.reported_cost") == reported


# ---------------------------------------------------------------- the rest


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_text_completions(server: Asked, litellm: Any, watched: Watched, is_async: bool, streamed: bool) -> None:
    call = litellm.atext_completion if is_async else litellm.text_completion
    asked = {"prompt": "bridges", "model": "deepseek/deepseek-chat", "stream": streamed}
    answer = await finished(call(**asked, **to(server)), is_async)
    if streamed:
        await items(answer, is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    if streamed and (is_async or not keeps_usage(litellm)):
        # The asynchronous stream hides the one that keeps the usage in a generator.
        assert told["costspan.usage.estimated"] is True
    else:
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_responses(server: Asked, litellm: Any, watched: Watched, is_async: bool, streamed: bool) -> None:
    if not callable(getattr(litellm, "responses", None)):
        pytest.skip("this version has no responses")
    call = litellm.aresponses if is_async else litellm.responses
    answer = await finished(call(input="bridges", model="openai/gpt-4.1", stream=streamed, **to(server)), is_async)
    if streamed:
        await items(answer, is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)
    assert dollars(told) == pytest.approx((200 * 2 + 800 * 0.5 + 100 * 8) / 1e6)


@both
async def test_embeddings(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.aembedding if is_async else litellm.embedding
    await finished(call("openai/text-embedding-3-small", ["bridges"], **to(server)), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert dollars(told) == pytest.approx(1000 * 0.02 / 1e6)


@both
async def test_rerank(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.arerank if is_async else litellm.rerank
    asked = {"model": "cohere/rerank-v3.5", "query": "q", "documents": ["d"]}
    await finished(call(**asked, api_base=server.url, api_key="k"), is_async)
    told = watched.one()
    assert told["gen_ai.provider.name"] == "cohere"
    assert dollars(told) == pytest.approx(0.002)


@both
async def test_images(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.aimage_generation if is_async else litellm.image_generation
    await finished(call(prompt="A bridge", model="openai/gpt-image-1", **to(server)), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "image_generation"
    if keeps_usage(litellm):
        assert dollars(told) == pytest.approx((5 * 5 + 100 * 40) / 1e6)


@both
async def test_audio(server: Asked, litellm: Any, watched: Watched, is_async: bool) -> None:
    call = litellm.atranscription if is_async else litellm.transcription
    asked = {"model": "openai/whisper-1", "file": ("a.wav", b"RIFF"), "response_format": "verbose_json"}
    await finished(call(**asked, **to(server)), is_async)
    assert watched.usage() == {"audio_seconds": 12.5}
    call = litellm.aspeech if is_async else litellm.speech
    asked = {"model": "openai/tts-1", "input": "They carry.", "voice": "alloy"}
    await finished(call(**asked, **to(server)), is_async)
    assert watched.usage() == {"characters": 11}


def test_patching_is_undone(server: Asked, litellm: Any, watched: Watched) -> None:
    watched.engine.uninstrument(LITELLM)
    litellm.completion("openai/gpt-4.1", ASK, **to(server))
    # Now the SDK below tells.
    assert watched.one()["openai.api.type"] == "chat_completions"


# ---------------------------------------------------------------- LiteLLM's own spans


def _later(tell: Any, *args: Any, **named: Any) -> None:
    time.sleep(0.2)
    tell(*args, **named)


@pytest.mark.parametrize("kind", ["completion", "stream", "embedding"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a span of the application's"])
def test_what_litellm_records_itself_is_not_counted_again(
    server: Asked, litellm: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch, kind: str, inside: bool
) -> None:
    # LiteLLM tells of a call in another thread. If that is faster than the return of the call, both are counted: known.
    threads = importlib.import_module("litellm.litellm_core_utils.thread_pool_executor").executor
    submit = threads.submit
    monkeypatch.setattr(threads, "submit", lambda tell, *args, **named: submit(_later, tell, *args, **named))
    opentelemetry = pytest.importorskip("litellm.integrations.opentelemetry")
    engine: Engine = watched.engine
    processing = Processing(watched.traces, counted=engine.has_counted)
    assert isinstance(processing.span_processor, CostSpanProcessor)
    processing.start()
    engine.start(watched.traces.get_tracer("test"), processing.observer)
    config = opentelemetry.OpenTelemetryConfig(exporter="console")
    litellm.callbacks = [opentelemetry.OpenTelemetry(config=config, tracer_provider=watched.traces)]
    tracer = watched.traces.get_tracer("application")
    try:
        with tracer.start_as_current_span("handler") if inside else nullcontext():
            if kind == "embedding":
                litellm.embedding("openai/text-embedding-3-small", ["bridges"], **to(server))
            else:
                answer = litellm.completion("openai/gpt-4.1", ASK, stream=kind == "stream", **to(server))
                list(answer) if kind == "stream" else None
            time.sleep(1)
    finally:
        litellm.logging_callback_manager._reset_all_callbacks()
        processing.shutdown()
    spans = watched.spans()
    counted = [span for span in spans if "costspan.cost.status" in (span.attributes or {})]
    assert [span.instrumentation_scope.name for span in counted if span.instrumentation_scope] == ["test"]
    told = [span for span in spans if span not in counted and "gen_ai.usage.input_tokens" in (span.attributes or {})]
    assert told
    assert all((span.attributes or {})["costspan.rollup"] is True for span in told)
