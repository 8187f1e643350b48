"""What Together bills -> what the span says and what it costs, on the real SDK over real HTTP, its versions 1 to 3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costspan_instrumentation.providers.together import TOGETHER
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = {"model": "deepseek-ai/DeepSeek-R1", "messages": [{"role": "user", "content": "Say something on bridges"}]}
USAGE: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
WHO: dict[str, Any] = {"id": "oX1", "object": "chat.completion", "created": 1, "model": "deepseek-ai/DeepSeek-R1"}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}


def chunks(kind: str, *texts: str, usage: dict[str, Any] | None = USAGE) -> str:
    """A stream whose last chunk has the usage; each has its text twice, as a completion's and as a chat's."""
    parts = [
        {"index": 0, "text": t, "delta": {"role": "assistant", "content": t}, "finish_reason": None} for t in texts
    ]
    events = [{**WHO, "object": kind, "choices": [part], "usage": None} for part in parts]
    events[-1]["choices"][0]["finish_reason"] = "eos"
    events[-1]["usage"] = usage
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def reply(path: str, body: dict[str, Any]) -> Any:
    if body.get("model") == "nonexistent":
        return Refusal(404, {"error": {"message": "Unable to access model", "type": "invalid_request_error"}})
    usage = None if body.get("model") == "silent" else USAGE
    if "chat" in path and body.get("stream"):
        return chunks("chat.completion.chunk", "They ", "carry ", "us.", usage=usage)
    if "chat" in path:
        return {**WHO, "prompt": [], "choices": [SAYS], **({"usage": usage} if usage else {})}
    if "rerank" in path:
        found = {"index": 0, "relevance_score": 0.5, "document": {}}
        return {"id": "r", "object": "rerank", "model": body["model"], "results": [found], "usage": USAGE}
    if "embeddings" in path:
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        return {"object": "list", "model": body["model"], "data": [vector], "usage": {**USAGE, "completion_tokens": 0}}
    if "images" in path:
        image = {"index": 0, "type": "url", "url": "https://example.com/a.png"}
        return {"id": "i", "object": "list", "model": body["model"], "data": [image, {**image, "index": 1}]}
    if "transcriptions" in path:
        return {"text": "Bridges.", "duration": 12.5, "language": "en", "task": "transcribe", "segments": []}
    if body.get("stream"):
        return chunks("completion.chunk", "They ", "carry ", "us.")
    choice = {"index": 0, "text": "They carry.", "finish_reason": "stop"}
    return {**WHO, "object": "text_completion", "prompt": [], "choices": [choice], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("together")
    with watching(TOGETHER) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False) -> Any:
    import together

    kind = together.AsyncTogether if is_async else together.Together
    return kind(api_key="k", base_url=f"{server.url}/v1", max_retries=0)


TOKENS = {"input_tokens": 1000, "output_tokens": 100}


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    await finished(a_client(server, is_async).chat.completions.create(**ASK), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "together"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    # $3 and $7 a million.
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == pytest.approx(0.003 + 0.0007)


@both
async def test_chat_stream(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = await finished(a_client(server, is_async).chat.completions.create(**ASK, stream=True), is_async)
    said = [chunk.choices[0].delta.content for chunk in await items(stream, is_async)]
    assert said == ["They ", "carry ", "us."]
    told = watched.one()
    assert told["gen_ai.response.finish_reasons"] == ("eos",)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_completions(server: Asked, watched: Watched, is_async: bool, streamed: bool) -> None:
    client = a_client(server, is_async)
    answer = await finished(
        client.completions.create(model="deepseek-ai/DeepSeek-R1", prompt="Bridges", stream=streamed), is_async
    )
    if streamed:
        assert len(await items(answer, is_async)) == 3
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = await finished(a_client(server, is_async).chat.completions.create(**ASK, stream=True), is_async)
    if is_async:
        async for _ in stream:
            break
        await (stream.close if hasattr(stream, "close") else stream.aclose)()
    else:
        next(iter(stream))
        stream.close()
    # "Say something on bridges" and "They ", of which each chunk has two: four characters a token.
    assert watched.usage() == {"input_tokens": 6, "output_tokens": 2, "estimated": True}


def test_a_stream_that_tells_no_usage_is_estimated(server: Asked, watched: Watched) -> None:
    list(a_client(server).chat.completions.create(**{**ASK, "model": "silent"}, stream=True))
    assert watched.usage() == {"input_tokens": 6, "output_tokens": 4, "estimated": True}


def test_an_answer_without_usage_is_not_zero(server: Asked, watched: Watched) -> None:
    a_client(server).chat.completions.create(**{**ASK, "model": "silent"})
    assert watched.usage() == {}


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    with pytest.raises(Exception, match="Unable to access model"):
        await finished(a_client(server, is_async).chat.completions.create(**{**ASK, "model": "nonexistent"}), is_async)
    told = watched.one()
    assert told["error.type"]
    assert not [key for key in told if ".usage." in key]


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.embeddings.create(model="intfloat/multilingual-e5-large-instruct", input="bridges"), is_async)
    assert watched.usage() == {"input_tokens": 1000}


@both
async def test_rerank(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.rerank.create(model="Salesforce/Llama-Rank-v1", query="q", documents=["d"]), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "rerank"
    assert told["gen_ai.usage.input_tokens"] == 1000


@both
async def test_images(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.images.generate(model="black-forest-labs/FLUX.1-schnell", prompt="A bridge", n=2), is_async)
    assert watched.usage() == {"images": 2}


@both
async def test_transcriptions(server: Asked, watched: Watched, is_async: bool, tmp_path: Path) -> None:
    client = a_client(server, is_async)
    if not hasattr(client.audio, "transcriptions"):
        pytest.skip("this version has no transcriptions")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    asked = {"model": "openai/whisper-large-v3", "file": tmp_path / "a.wav", "response_format": "verbose_json"}
    await finished(client.audio.transcriptions.create(**asked), is_async)
    assert watched.usage() == {"audio_seconds": 12.5}


def test_recorded_answers_tell_the_usage_that_was_recorded() -> None:
    readers = {"together.chat": 0, "together.completions": 2, "together.rerank": 6}
    for api, place in readers.items():
        for exchange in exchanges(api):
            usage, body = exchange["usage"], exchange["response"]["body"]
            if usage and isinstance(body, dict):
                told = TOGETHER.endpoints[place].response(body)
                assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
