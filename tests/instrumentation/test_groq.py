"""What Groq bills -> what the span says and what it costs, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.groq import GROQ
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = {"model": "openai/gpt-oss-120b", "messages": [{"role": "user", "content": "Say something about bridges"}]}
USAGE: dict[str, Any] = {
    "prompt_tokens": 336,
    "completion_tokens": 96,
    "total_tokens": 432,
    "prompt_tokens_details": {"cached_tokens": 256},
    "completion_tokens_details": {"reasoning_tokens": 59},
}
WHO: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "openai/gpt-oss-120b", "service_tier": "on_demand"}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}


def part(**delta: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": None}


def end(**more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return {**WHO, "object": "chat.completion.chunk", "choices": [choice], **more}


def stream(*last: dict[str, Any], **delta: Any) -> str:
    """Chunks that think, then speak, then `last` ones."""
    chunks = [{**WHO, "object": "chat.completion.chunk", "choices": [part(**d)]} for d in (delta, {"content": "They"})]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in (*chunks, *last)) + "data: [DONE]\n\n"


def shares(*counts: tuple[str, int, int]) -> dict[str, Any]:
    """`usage_breakdown` of a compound system."""
    return {
        "models": [
            {"model": model, "usage": {"prompt_tokens": sent, "completion_tokens": got, "total_tokens": sent + got}}
            for model, sent, got in counts
        ]
    }


SEARCH: dict[str, Any] = {"index": 0, "type": "search", "arguments": '{"query": "bridges"}'}
SHARES = (("meta-llama/llama-4-scout-17b-16e-instruct", 1000, 100), ("openai/gpt-oss-120b", 2000, 300))
COMPOUND_USAGE = {"prompt_tokens": 3000, "completion_tokens": 400, "total_tokens": 3400}
COMPOUND = {
    **WHO,
    "object": "chat.completion",
    "model": "groq/compound",
    "choices": [{**SAYS, "message": {**SAYS["message"], "executed_tools": [SEARCH, {**SEARCH, "type": "visit"}]}}],
    "usage": COMPOUND_USAGE,
    "usage_breakdown": shares(*SHARES),
}


def reply(path: str, body: dict[str, Any]) -> Any:
    if "embeddings" in path:
        vector = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return {"object": "list", "model": "nomic-embed-text-v1_5", "data": [vector], "usage": usage}
    if "speech" in path:
        return "RIFF: no text, and no JSON"
    if "trans" in path:
        return {"text": "Bridges.", "duration": 12.5}
    if body["model"] == "nonexistent":
        return Refusal(404, {"error": {"message": "The model does not exist", "code": "model_not_found"}})
    if body["model"] == "silent":
        return {**WHO, "object": "chat.completion", "choices": [SAYS]}
    if body["model"] == "groq/compound" and body.get("stream"):
        found = {**SEARCH, "output": "Bridges"}
        told = {"usage": COMPOUND_USAGE, "usage_breakdown": shares(*SHARES)}
        return stream(end(choices=[part(executed_tools=[found])]), end(x_groq=told), executed_tools=[SEARCH])
    if body["model"] == "groq/compound":
        return COMPOUND
    if body.get("stream"):
        return stream(end(x_groq={"id": "req_1", "usage": USAGE}), reasoning="Hm")
    return {**WHO, "object": "chat.completion", "choices": [SAYS], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("groq")
    with watching(GROQ) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False) -> Any:
    import groq

    kind = groq.AsyncGroq if is_async else groq.Groq
    return kind(api_key="k", base_url=server.url, max_retries=0)


def dollars(attributes: dict[str, Any], host: str = "api.groq.com") -> Any:
    """What the book says the call costs, had it gone to Groq."""
    return enrich({**attributes, "server.address": host}, AT, PriceBook.bundled()).get("costspan.cost.total")


CHAT = {
    "input_tokens": 336,
    "output_tokens": 96,
    "cache_read.input_tokens": 256,
    "reasoning.output_tokens": 59,
}


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    await finished(a_client(server, is_async).chat.completions.create(**ASK, max_tokens=9), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "groq"
    assert told["gen_ai.request.model"] == "openai/gpt-oss-120b"
    assert told["gen_ai.request.max_tokens"] == 9
    assert told["gen_ai.response.id"] == "chatcmpl-1"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["costspan.service_tier"] == "on_demand"
    # 80 at $0.15, 256 from the cache at $0.075, 96 at $0.60 a million.
    assert dollars(told) == pytest.approx((80 * 0.15 + 256 * 0.075 + 96 * 0.6) / 1e6)


@both
async def test_a_stream_tells_its_usage_in_a_place_of_its_own(server: Asked, watched: Watched, is_async: bool) -> None:
    chunks = await items(
        await finished(a_client(server, is_async).chat.completions.create(**ASK, stream=True), is_async), is_async
    )
    assert [chunk.choices[0].delta.content for chunk in chunks] == [None, "They", None]
    assert watched.usage() == CHAT
    assert "stream_options" not in server.requests[0][1]


def test_a_raw_response_is_counted_once(server: Asked, watched: Watched) -> None:
    raw = a_client(server).chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().usage.prompt_tokens == 336
    assert watched.usage() == CHAT


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    chunks = await finished(a_client(server, is_async).chat.completions.create(**ASK, stream=True), is_async)
    if is_async:
        await chunks.__anext__()
        await chunks.close()
    else:
        next(chunks)
        chunks.close()
    # "Say something about bridges" and "Hm", four characters a token.
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 1, "estimated": True}


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    import groq

    with pytest.raises(groq.NotFoundError):
        await finished(a_client(server, is_async).chat.completions.create(**{**ASK, "model": "nonexistent"}), is_async)
    told = watched.one()
    assert told["error.type"] == "NotFoundError"
    assert not [key for key in told if ".usage." in key]


def test_an_answer_without_usage_is_not_zero(server: Asked, watched: Watched) -> None:
    a_client(server).chat.completions.create(**{**ASK, "model": "silent"})
    assert watched.usage() == {}


# ---------------------------------------------------------------- compound systems


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_compound_system_costs_what_its_models_do(server: Asked, watched: Watched, streamed: bool) -> None:
    answer = a_client(server).chat.completions.create(**{**ASK, "model": "groq/compound"}, stream=streamed)
    if streamed:
        list(answer)
    told = watched.one()
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (3000, 400)
    # The search is one, though a stream tells of it twice.
    assert told["costspan.usage.web_searches"] == 1
    assert [share["model"] for share in json.loads(told["costspan.usage.by_model"])] == [
        model for model, _, _ in SHARES
    ]
    tokens = (1000 * 0.11 + 100 * 0.34 + 2000 * 0.15 + 300 * 0.6) / 1e6
    assert dollars(told) == pytest.approx(tokens + 0.005)


def test_shares_that_do_not_add_up_are_none() -> None:
    """As in a recorded stream, where each of four models has the usage of all four."""
    read = GROQ.endpoints[0].response
    wrong = read({**COMPOUND, "usage_breakdown": shares(("a", 3000, 400), ("b", 3000, 400))})
    assert "costspan.usage.by_model" not in wrong
    assert wrong["gen_ai.usage.input_tokens"] == 3000
    assert "costspan.usage.by_model" not in read({**COMPOUND, "usage_breakdown": None})


# ---------------------------------------------------------------- the rest


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.embeddings.create(model="nomic-embed-text-v1_5", input="bridges"), is_async)
    assert watched.usage() == {"input_tokens": 7}


@both
@pytest.mark.parametrize("kind", ["transcriptions", "translations"])
async def test_audio_is_billed_by_the_second(server: Asked, watched: Watched, is_async: bool, kind: str) -> None:
    audio = getattr(a_client(server, is_async).audio, kind)
    await finished(
        audio.create(model="whisper-large-v3", file=("a.wav", b"RIFF"), response_format="verbose_json"), is_async
    )
    told = watched.one()
    assert told["gen_ai.operation.name"] == "transcription"
    assert told["costspan.usage.audio_seconds"] == 12.5
    assert dollars(told) == pytest.approx(12.5 * 0.111 / 3600)


@both
async def test_speech_is_billed_by_the_character(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    if not hasattr(client.audio, "speech"):
        pytest.skip("this version has no speech")
    answer = await finished(
        client.audio.speech.create(model="playai-tts", input="They carry.", voice="Fritz-PlayAI"), is_async
    )
    assert (await answer.read() if is_async else answer.read()).startswith(b"RIFF")
    told = watched.one()
    assert told["costspan.usage.characters"] == 11
    assert dollars(told) == pytest.approx(11 * 50 / 1e6)


def test_recorded_answers_tell_the_usage_that_was_recorded() -> None:
    read = GROQ.endpoints[0].response
    for exchange in exchanges("groq.chat"):
        usage, body = exchange["usage"], exchange["response"]["body"]
        if usage and isinstance(body, dict):
            told = read(body)
            assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
            assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
