"""What OpenRouter bills -> what the span says, on its own SDK over real HTTP; of its scores, on Cohere's too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from costspan_instrumentation.providers.cohere import COHERE
from costspan_instrumentation.providers.openrouter import OPENROUTER, rerank_usage
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = {"model": "openai/gpt-4.1", "messages": [{"role": "user", "content": "Say something on bridges"}]}
USAGE: dict[str, Any] = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "cost": 0.25,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
TOLD = {
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_read.input_tokens": 40,
    "reasoning.output_tokens": 5,
    "reported_cost": 0.25,
}
WHO: dict[str, Any] = {"id": "gen-1", "created": 1, "model": "openai/gpt-4.1-2025-04-14", "provider": "OpenAI"}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}
IMAGE_USAGE: dict[str, Any] = {
    "prompt_tokens": 11,
    "completion_tokens": 1120,
    "total_tokens": 1131,
    "cost": 0.0336,
    "completion_tokens_details": {"image_tokens": 1120},
}
IMAGE_TOLD = {
    "input_tokens": 11,
    "output_tokens": 1120,
    "image.output_tokens": 1120,
    "reported_cost": 0.0336,
}
PICTURE = {"b64_json": "aGk=", "media_type": "image/png"}


def stream(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def chunks(told: bool) -> str:
    parts: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "finish_reason": None} for text in ("They ", "carry.")
    ]
    parts[-1]["finish_reason"] = "stop"
    events = [{**WHO, "object": "chat.completion.chunk", "choices": [part]} for part in parts]
    last = {**WHO, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    return stream(*events, *([last] if told else []))


def reply(path: str, body: dict[str, Any]) -> Any:
    model = str(body.get("model"))
    if "nonexistent" in model:
        return Refusal(404, {"error": {"code": 404, "message": "No such model"}})
    if "rerank" in path:
        found = {"index": 0, "relevance_score": 0.5, "document": {"text": "Paris"}}
        usage: dict[str, Any] = (
            {"total_tokens": 17, "cost": 3.4e-07} if "voyage" in model else {"search_units": 1, "cost": 0.001}
        )
        return {"id": "gen-r", "model": model.partition("/")[2], "results": [found], "usage": usage}
    if "embeddings" in path:
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 4, "total_tokens": 4, "cost": 8e-08}
        return {"object": "list", "model": model, "data": [vector], "usage": usage}
    if "images" in path and body.get("stream"):
        part = {"type": "image_generation.partial_image", "b64_json": "aA==", "partial_image_index": 0}
        done = {"type": "image_generation.completed", "created": 1, **PICTURE, "usage": IMAGE_USAGE}
        return stream(part, done)
    if "images" in path:
        counted = {} if model == "silent" else {"usage": IMAGE_USAGE}
        return {"created": 1, "data": [PICTURE, PICTURE], **counted}
    if "transcriptions" in path:
        return {"text": "They carry.", "usage": {"seconds": 3.7, "cost": 0.0004}}
    if "speech" in path:
        return "sound"
    if body.get("stream"):
        return chunks(model != "silent")
    said = {**WHO, "object": "chat.completion", "choices": [SAYS], "system_fingerprint": None}
    return said if model == "silent" else {**said, "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("openrouter")
    with watching(OPENROUTER) as watched:
        yield watched


def a_client(url: str) -> Any:
    import openrouter

    return openrouter.OpenRouter(api_key="k", server_url=f"{url}/api/v1", retry_config=None)


def call(of: Any, method: str, is_async: bool) -> Any:
    return getattr(of, f"{method}_async" if is_async else method)


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param({"search_units": 2}, {"costspan.usage.rerank_searches": 2}, id="searches"),
        pytest.param(
            {"total_tokens": 17, "cost": 3.4e-07},
            {"gen_ai.usage.input_tokens": 17, "costspan.usage.reported_cost": 3.4e-07},
            id="tokens",
        ),
        pytest.param({"total_tokens": -1}, {"gen_ai.usage.input_tokens": -1}, id="what cannot be is passed on"),
        pytest.param({}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert rerank_usage(usage) == attributes
    assert OPENROUTER.usage_formats["openrouter.rerank"] is rerank_usage


@both
async def test_a_chat_has_the_cost_that_is_told(server: Asked, watched: Watched, is_async: bool) -> None:
    answer = await finished(call(a_client(server.url).chat, "send", is_async)(**ASK, temperature=0.5), is_async)
    assert answer.choices[0].message.content == "They carry."
    (span,) = watched.spans()
    assert span.name == "chat openai/gpt-4.1"
    told = dict(span.attributes or {})
    port = told.pop("server.port")
    assert f"http://{told.pop('server.address')}:{port}" == server.url
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openrouter",
        "gen_ai.request.model": "openai/gpt-4.1",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.id": "gen-1",
        "gen_ai.response.model": "openai/gpt-4.1-2025-04-14",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "costspan.usage.reported_cost": 0.25,
    }
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == 0.25


@both
async def test_a_streamed_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = await finished(call(a_client(server.url).chat, "send", is_async)(**ASK, stream=True), is_async)
    assert type(stream).__name__.startswith("EventStream")
    said = await items(stream, is_async)
    assert [chunk.choices[0].delta.content for chunk in said[:2]] == ["They ", "carry."]
    assert len(said) == 3
    (span,) = watched.spans()
    told = dict(span.attributes or {})
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.usage.input_tokens"] == 100
    assert told["costspan.usage.reported_cost"] == 0.25
    assert "costspan.usage.estimated" not in told


@both
@pytest.mark.parametrize("how", ["silent", "closed"])
async def test_a_stream_that_never_tells_is_an_estimate(
    server: Asked, watched: Watched, how: str, is_async: bool
) -> None:
    asked = {**ASK, "model": "silent"} if how == "silent" else ASK
    stream = await finished(call(a_client(server.url).chat, "send", is_async)(**asked, stream=True), is_async)
    if how == "silent":
        await items(stream, is_async)
    else:
        await (anext(stream) if is_async else finished(next(stream), False))
        await finished(stream.close(), is_async)
    told = watched.one()
    assert told["costspan.usage.estimated"] is True
    assert told["gen_ai.usage.output_tokens"] == (3 if how == "silent" else 2)


@both
async def test_an_answer_without_usage_tells_none(server: Asked, watched: Watched, is_async: bool) -> None:
    await finished(call(a_client(server.url).chat, "send", is_async)(**{**ASK, "model": "silent"}), is_async)
    assert watched.usage() == {}


@both
@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("cohere/rerank-v3.5", {"rerank_searches": 1, "reported_cost": 0.001}),
        ("voyageai/rerank-2.5-lite", {"input_tokens": 17, "reported_cost": 3.4e-07}),
    ],
)
async def test_scores(server: Asked, watched: Watched, model: str, usage: dict[str, Any], is_async: bool) -> None:
    rerank = call(a_client(server.url).rerank, "rerank", is_async)
    await finished(rerank(model=model, query="capital", documents=["Paris"]), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "rerank"
    assert (told["gen_ai.request.model"], told["gen_ai.response.id"]) == (model, "gen-r")
    prefixes = ("gen_ai.usage.", "costspan.usage.")
    assert {key.removeprefix(p): told[key] for key in told for p in prefixes if key.startswith(p)} == usage


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_images(server: Asked, watched: Watched, streamed: bool, is_async: bool) -> None:
    generate = call(a_client(server.url).images, "generate", is_async)
    more = {"stream": True} if streamed else {}
    made = await finished(generate(model="google/gemini-3.1-flash-lite-image", prompt="A bridge", **more), is_async)
    if streamed:
        assert len(await items(made, is_async)) == 2
    (span,) = watched.spans()
    assert span.name == "image_generation google/gemini-3.1-flash-lite-image"
    assert {
        key.partition(".usage.")[2]: value for key, value in (span.attributes or {}).items() if ".usage." in key
    } == IMAGE_TOLD


@both
async def test_images_without_usage_are_counted(server: Asked, watched: Watched, is_async: bool) -> None:
    await finished(call(a_client(server.url).images, "generate", is_async)(model="silent", prompt="A"), is_async)
    assert watched.usage() == {"images": 2}


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    embed = call(a_client(server.url).embeddings, "generate", is_async)
    await finished(embed(model="openai/text-embedding-3-small", input="Hi"), is_async)
    assert watched.usage() == {"input_tokens": 4, "reported_cost": 8e-08}


@both
async def test_a_transcription(server: Asked, watched: Watched, is_async: bool) -> None:
    hear = call(a_client(server.url).stt, "create_transcription", is_async)
    await finished(hear(model="openai/whisper-1", input_audio={"data": "aGk=", "format": "wav"}), is_async)
    assert watched.usage() == {"audio_seconds": 3.7, "reported_cost": 0.0004}
    hear = call(a_client(server.url).stt, "create_transcription_multipart", is_async)
    await finished(hear(model="openai/whisper-1", file={"file_name": "a.wav", "content": b"RIFF"}), is_async)
    assert watched.usage() == {"audio_seconds": 3.7, "reported_cost": 0.0004}


@both
async def test_speech_is_counted_by_its_text(watched: Watched, is_async: bool) -> None:
    import openrouter

    def spoken(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"sound", headers={"content-type": "audio/pcm"})

    transport = httpx.MockTransport(spoken)
    client = openrouter.OpenRouter(
        api_key="k", client=httpx.Client(transport=transport), async_client=httpx.AsyncClient(transport=transport)
    )
    speak = call(client.tts, "create_speech", is_async)
    sound = await finished(speak(model="openai/gpt-4o-mini-tts", input="They span.", voice="alloy"), is_async)
    assert (await sound.aread() if is_async else sound.read()) == b"sound"
    told = watched.one()
    assert told["server.address"] == "openrouter.ai"
    assert told["gen_ai.operation.name"] == "speech"
    assert {key: told[key] for key in told if ".usage." in key} == {"costspan.usage.characters": 10}


@both
async def test_a_refusal_is_raised_and_not_billed(server: Asked, watched: Watched, is_async: bool) -> None:
    from openrouter.errors import NotFoundResponseError

    with pytest.raises(NotFoundResponseError):
        await finished(call(a_client(server.url).chat, "send", is_async)(**{**ASK, "model": "nonexistent"}), is_async)
    told = watched.one()
    assert told["error.type"] == "NotFoundResponseError"
    assert not [key for key in told if ".usage." in key]


def test_scores_by_the_sdk_of_cohere(server: Asked) -> None:
    """OpenRouter ranks at the path of Cohere's first version."""
    cohere = pytest.importorskip("cohere")
    with watching(COHERE) as watched:
        client = cohere.Client(api_key="k", base_url=f"{server.url}/api")
        client.rerank(model="cohere/rerank-v3.5", query="capital", documents=["Paris"])
        assert server.requests[0][0] == "/api/v1/rerank"
        assert watched.usage()["rerank_searches"] == 1


APIS = ("openrouter.rerank", "openrouter.images", "openrouter.chat", "openrouter.embeddings")


@pytest.mark.parametrize("exchange", exchanges(*APIS), ids=lambda exchange: exchange["id"])
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    errors = pytest.importorskip("openrouter.errors")
    response, told = exchange["response"], exchange["usage"] or {}
    streamed, api, body = exchange["stream"], exchange["api"].partition(".")[2], response["body"]
    if api == "chat" and not streamed:
        # The SDK takes no answer without it.
        body = {"system_fingerprint": None, **body}
    with replying(lambda *_: body if response["status"] == 200 else Refusal(response["status"], body)) as server:
        client = a_client(server.url)
        methods: dict[str, Any] = {
            "rerank": lambda: client.rerank.rerank(model="m", query="q", documents=["d"]),
            "images": lambda: client.images.generate(model="m", prompt="p"),
            "chat": lambda: client.chat.send(model="m", messages=ASK["messages"], stream=streamed),
            "embeddings": lambda: client.embeddings.generate(model="m", input="a"),
        }
        try:
            answer = methods[api]()
            if streamed:
                list(answer)
        except errors.OpenRouterError:
            # A stream that was cut ends in half an event, which the SDK does not take.
            assert response["status"] != 200 or "truncated" in exchange["tags"]
            assert watched.one()["error.type"]
            return
    usage = watched.usage()
    assert usage.get("input_tokens") == told.get("prompt_tokens", told.get("total_tokens"))
    assert usage.get("rerank_searches") == told.get("search_units")
    if not told.get("is_byok"):
        assert usage.get("reported_cost") == told.get("cost")
