"""What Writer bills -> what the span says, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.writer import WRITER

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

ASK: Any = {"model": "palmyra-x5", "messages": [{"role": "user", "content": "Say something about bridges"}]}
USAGE: dict[str, Any] = {
    "prompt_tokens": 40,
    "completion_tokens": 9,
    "total_tokens": 49,
    "prompt_token_details": {"cached_tokens": 32},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
COUNTS = {
    "input_tokens": 40,
    "output_tokens": 9,
    "cache_read.input_tokens": 32,
    "reasoning.output_tokens": 4,
}
WHO: dict[str, Any] = {"id": "w-1", "created": 1, "model": "palmyra-x5", "service_tier": None}
SAYS: dict[str, Any] = {
    "index": 0,
    "message": {"role": "assistant", "content": "They carry.", "refusal": None},
    "finish_reason": "stop",
}


def stream(*texts: str, usage: bool) -> str:
    """A chat in pieces, which ends with the usage if that was asked for."""
    head = {**WHO, "object": "chat.completion.chunk", "usage": None}
    parts: list[dict[str, Any]] = [{"index": 0, "delta": {"content": t}, "finish_reason": None} for t in texts]
    parts[-1]["finish_reason"] = "stop"
    events: list[dict[str, Any]] = [{**head, "choices": [part]} for part in parts]
    events += [{**head, "choices": [], "usage": USAGE}] if usage else []
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def reply(path: str, body: dict[str, Any]) -> Any:
    if body["model"] == "nonexistent":
        return Refusal(404, {"tpe": "not_found", "errors": [{"description": "no such model"}], "extras": {}})
    if path == "/v1/completions":
        if body.get("stream"):
            return "".join(f"data: {json.dumps({'value': text})}\n\n" for text in ("They ", "carry ", "us."))
        return {"choices": [{"text": "They carry.", "log_probs": None}], "model": "palmyra-x5"}
    if body.get("stream"):
        return stream("They ", "carry ", "us.", usage=(body.get("stream_options") or {}).get("include_usage", False))
    return {**WHO, "object": "chat.completion", "choices": [SAYS], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("writerai")
    with watching(WRITER) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False, **options: Any) -> Any:
    import writerai

    kind = writerai.AsyncWriter if is_async else writerai.Writer
    return kind(api_key="k", base_url=server.url, max_retries=0, **options)


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    answer = await finished(a_client(server, is_async).chat.chat(**ASK, max_tokens=9, n=2), is_async)
    assert answer.choices[0].message.content == "They carry."
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "writer",
        "gen_ai.request.model": "palmyra-x5",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": "w-1",
        "gen_ai.response.model": "palmyra-x5",
        "gen_ai.response.finish_reasons": ("stop",),
        **{f"gen_ai.usage.{name}": count for name, count in COUNTS.items()},
    }


@both
async def test_a_stream_that_tells_its_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = await items(await finished(a_client(server, is_async).chat.chat(**ASK, **options), is_async), is_async)
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 0]
    told = watched.one()
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.usage.cache_read.input_tokens"] == 32
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (40, 9)
    assert "costspan.usage.estimated" not in told


@both
async def test_another_host_is_asked_nothing_and_the_usage_is_an_estimate(
    server: Asked, watched: Watched, is_async: bool
) -> None:
    stream = await finished(a_client(server, is_async).chat.chat(**ASK, stream=True), is_async)
    assert len(await items(stream, is_async)) == 3
    assert "stream_options" not in server.requests[0][1]
    # "Say something about bridges" and "They carry us.", four characters a token.
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 4, "estimated": True}


def at_writer(is_async: bool = False) -> tuple[Any, list[dict[str, Any]]]:
    """A client that sees Writer's own host, and the bodies that it sends there."""
    import httpx
    import writerai

    bodies: list[dict[str, Any]] = []

    def answered(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        sent = reply(request.url.path, bodies[-1])
        return httpx.Response(200, text=sent, headers={"content-type": "text/event-stream"})

    transport = httpx.MockTransport(answered)
    client: Any = (
        writerai.AsyncWriter(api_key="k", http_client=httpx.AsyncClient(transport=transport))
        if is_async
        else writerai.Writer(api_key="k", http_client=httpx.Client(transport=transport))
    )
    return client, bodies


@both
async def test_writer_is_asked_for_the_usage_and_the_extra_chunk_is_hidden(watched: Watched, is_async: bool) -> None:
    client, bodies = at_writer(is_async)
    chunks = await items(await finished(client.chat.chat(**ASK, stream=True), is_async), is_async)
    assert bodies[0]["stream_options"] == {"include_usage": True}
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["They ", "carry ", "us."]
    told = watched.usage()
    assert {name: told[name] for name in COUNTS} == COUNTS


def test_a_raw_stream_is_not_asked_since_nothing_could_be_hidden_in_it(watched: Watched) -> None:
    client, bodies = at_writer()
    with client.chat.with_streaming_response.chat(**ASK, stream=True) as raw:
        lines = [line for line in raw.iter_lines() if line]
    assert len(lines) == 3
    assert "stream_options" not in bodies[0]
    assert watched.usage()["estimated"] is True


def test_what_was_asked_by_the_application_stays(watched: Watched) -> None:
    client, _ = at_writer()
    chunks = list(client.chat.chat(**ASK, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.prompt_tokens == 40
    assert watched.usage()["input_tokens"] == 40


def test_raw_responses_are_counted_once(server: Asked, watched: Watched) -> None:
    chat = a_client(server).chat
    assert chat.with_raw_response.chat(**ASK).parse().usage.prompt_tokens == 40
    assert watched.usage() == COUNTS
    with chat.with_streaming_response.chat(**ASK) as raw:
        assert raw.json()
    assert watched.usage() == COUNTS


def test_the_helper_that_puts_a_stream_together_is_one_call(server: Asked, watched: Watched) -> None:
    chat = a_client(server).chat
    if not hasattr(chat, "stream"):
        pytest.skip("this version has no stream helper")
    with chat.stream(**ASK, stream_options={"include_usage": True}) as events:
        assert list(events)
    assert watched.one()["gen_ai.usage.input_tokens"] == 40


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = await finished(a_client(server, is_async).chat.chat(**ASK, stream=True), is_async)
    if is_async:
        await stream.__anext__()
        await stream.close()
    else:
        next(stream)
        stream.close()
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 2, "estimated": True}


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    import writerai

    with pytest.raises(writerai.NotFoundError):
        await finished(a_client(server, is_async).chat.chat(**{**ASK, "model": "nonexistent"}), is_async)
    told = watched.one()
    assert told["error.type"] == "NotFoundError"
    assert not [key for key in told if ".usage." in key]


@both
async def test_a_completion_tells_no_usage_and_is_not_zero(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.completions.create(model="palmyra-x5", prompt="Bridges", random_seed=7), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.request.seed"] == 7
    assert told["gen_ai.response.model"] == "palmyra-x5"
    assert not [key for key in told if ".usage." in key]


@both
async def test_a_streamed_completion_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    stream = await finished(client.completions.create(model="palmyra-x5", prompt="Bridges", stream=True), is_async)
    assert [chunk.value for chunk in await items(stream, is_async)] == ["They ", "carry ", "us."]
    assert watched.usage() == {"input_tokens": 2, "output_tokens": 4, "estimated": True}


@both
@pytest.mark.parametrize(
    "exchange", exchanges("writer.chat", "writer.completions"), ids=lambda exchange: exchange["id"]
)
async def test_recorded_exchanges(watched: Watched, exchange: dict[str, Any], is_async: bool) -> None:
    with replying(lambda *_: exchange["response"]["body"]) as server:
        client, asked = a_client(server, is_async), exchange["request"]["body"]
        method = client.chat.chat if exchange["api"] == "writer.chat" else client.completions.create
        answer = await finished(method(**asked), is_async)
        if exchange["stream"]:
            await items(answer, is_async)
    told, usage = watched.one(), exchange["usage"]
    assert told["gen_ai.request.model"] == asked["model"]
    if usage:
        assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
        assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
        assert "costspan.usage.estimated" not in told
    else:
        assert told.get("costspan.usage.estimated", False) is exchange["stream"]
