"""What the providers behind Portkey bill -> what the span says and what it costs, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.portkey import PORTKEY, chat_usage
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Say something about bridges"}]}
USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 600},
}
COUNTS = {"input_tokens": 1000, "output_tokens": 100, "cache_read.input_tokens": 600}
WHO: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4.1-2025-04-14"}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}


def stream(*texts: str, **told: Any) -> str:
    head = {**WHO, "object": "chat.completion.chunk"}
    parts: list[dict[str, Any]] = [
        {"index": 0, "text": t, "delta": {"content": t}, "finish_reason": None} for t in texts
    ]
    parts[-1]["finish_reason"] = "stop"
    events: list[dict[str, Any]] = [{**head, "choices": [part]} for part in parts]
    events += [{**head, "choices": [], **told}] if told else []
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def reply(path: str, body: dict[str, Any]) -> Any:
    if body.get("model") == "nonexistent":
        return Refusal(404, {"error": {"message": "no such model", "type": "invalid_request_error"}})
    if path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 7}}
    if path == "/v1/responses":
        text = {"type": "output_text", "text": "They carry.", "annotations": []}
        said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
        usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
        return {**WHO, "id": "resp_1", "object": "response", "created_at": 1, "output": [said], "usage": usage}
    if body.get("stream"):
        asked = (body.get("stream_options") or {}).get("include_usage") or "prompts" in path
        return stream("They ", "carry ", "us.", **({"usage": USAGE} if asked else {}))
    if path == "/v1/completions":
        choice = {"index": 0, "text": "They carry.", "finish_reason": "stop"}
        return {**WHO, "object": "text_completion", "choices": [choice], "usage": USAGE}
    if "claude" in body.get("model", ""):
        usage = {**USAGE, "cache_read_input_tokens": 600, "cache_creation_input_tokens": 50, "total_tokens": 1750}
        return {**WHO, "object": "chat.completion", "choices": [SAYS], "usage": usage, "provider": "anthropic"}
    return {**WHO, "object": "chat.completion", "choices": [SAYS], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("portkey_ai")
    with watching(PORTKEY) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False, **options: Any) -> Any:
    sdk = pytest.importorskip("portkey_ai")
    kind = sdk.AsyncPortkey if is_async else sdk.Portkey
    return kind(api_key="k", base_url=f"{server.url}/v1", **options)


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 62, "cache_read_input_tokens": 40}
            | {"cache_creation_input_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}},
            {"input_tokens": 60, "output_tokens": 2, "cache_read.input_tokens": 40, "cache_write.input_tokens": 10},
            id="Anthropic's cache beside the prompt",
        ),
        pytest.param(
            {"prompt_tokens": 60, "completion_tokens": 2, "total_tokens": 62, "cache_read_input_tokens": 40}
            | {"cache_creation_input_tokens": 10},
            {"input_tokens": 60, "output_tokens": 2, "cache_read.input_tokens": 40, "cache_write.input_tokens": 10},
            id="and in it",
        ),
        pytest.param(USAGE, COUNTS, id="OpenAI's"),
        pytest.param({"prompt_tokens": 0, "cache_read_input_tokens": 0}, {"input_tokens": 0}, id="no cache"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, int]) -> None:
    assert chat_usage(usage) == {f"gen_ai.usage.{name}": count for name, count in attributes.items()}


# ---------------------------------------------------------------- every way of calling


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    answer = await finished(create(**ASK, max_tokens=9, seed=7), is_async)
    assert answer.choices[0].message.content == "They carry."
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "portkey",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4.1-2025-04-14",
        "gen_ai.response.finish_reasons": ("stop",),
        **{f"gen_ai.usage.{name}": count for name, count in COUNTS.items()},
    }
    # 400 at $2, 600 from the cache at $0.5, 100 at $8 a million.
    cost = enrich(told, AT, PriceBook.bundled())["costspan.cost.total"]
    assert cost == pytest.approx((400 * 2 + 600 * 0.5 + 100 * 8) / 1e6)


@both
async def test_a_stream_that_was_asked_for_its_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    options = {"stream": True, "stream_options": {"include_usage": True}, "seed": 7}
    chunks = await finished(create(**ASK, **options), is_async)
    assert [len(chunk.choices) for chunk in await items(chunks, is_async)] == [1, 1, 1, 0]
    told = watched.one()
    assert (told["gen_ai.request.seed"], told["gen_ai.request.stream"]) == (7, True)
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert {name: told[f"gen_ai.usage.{name}"] for name in COUNTS} == COUNTS
    assert "costspan.usage.estimated" not in told


@both
async def test_another_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    chunks = await items(await finished(create(**ASK, stream=True), is_async), is_async)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["They ", "carry ", "us."]
    assert "stream_options" not in server.requests[0][1]
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 4, "estimated": True}


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    chunks = await finished(a_client(server, is_async).chat.completions.create(**ASK, stream=True), is_async)
    if is_async:
        await chunks.__anext__()
        # In older versions it is a generator.
        await (chunks.close if hasattr(chunks, "close") else chunks.aclose)()
    else:
        next(chunks)
        chunks.close()
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 2, "estimated": True}


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_completions(server: Asked, watched: Watched, is_async: bool, streamed: bool) -> None:
    create = a_client(server, is_async).completions.create
    options = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    answer = await finished(create(model="gpt-3.5-turbo-instruct", prompt="Bridges", **options), is_async)
    if streamed:
        assert len(await items(answer, is_async)) == 4
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert {name: told[f"gen_ai.usage.{name}"] for name in COUNTS} == COUNTS


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_a_prompt_that_the_gateway_keeps(server: Asked, watched: Watched, is_async: bool, streamed: bool) -> None:
    create = a_client(server, is_async).prompts.completions.create
    answer = await finished(create(prompt_id="pp-1", variables={"on": "bridges"}, stream=streamed), is_async)
    if streamed:
        assert len(await items(answer, is_async)) == 4
    told = watched.one()
    # Which model it is for, the answer tells.
    assert "gen_ai.request.model" not in told
    assert told["gen_ai.response.model"] == "gpt-4.1-2025-04-14"
    assert {name: told[f"gen_ai.usage.{name}"] for name in COUNTS} == COUNTS


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.embeddings.create(model="text-embedding-3-small", input="bridges"), is_async)
    assert watched.usage() == {"input_tokens": 7}


@both
async def test_what_goes_through_the_copy_of_openais_sdk_is_counted_too(
    server: Asked, watched: Watched, is_async: bool
) -> None:
    client = a_client(server, is_async, provider="openai")
    if not hasattr(client, "responses"):
        pytest.skip("this version has no responses")
    await finished(client.responses.create(model="@team-one/gpt-4.1", input="Bridges"), is_async)
    told = watched.one()
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "gpt-4.1"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)
    if hasattr(client.chat.completions, "parse"):
        await finished(client.chat.completions.parse(**ASK), is_async)
        assert watched.usage() == COUNTS


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    errors = pytest.importorskip("portkey_ai._vendor.openai")
    with pytest.raises(errors.NotFoundError):
        await finished(a_client(server, is_async).chat.completions.create(**{**ASK, "model": "nonexistent"}), is_async)
    told = watched.one()
    assert told["error.type"] == "NotFoundError"
    assert not [key for key in told if ".usage." in key]


# ---------------------------------------------------------------- who is behind it


@pytest.mark.parametrize(
    ("client", "call", "provider", "model"),
    [
        pytest.param({"provider": "azure-openai"}, {}, "azure.ai.openai", "gpt-4.1", id="the client's"),
        pytest.param({"provider": "@openai"}, {}, "openai", "gpt-4.1", id="one that is told by its name"),
        pytest.param({"provider": "@team-one"}, {}, "portkey", "gpt-4.1", id="one that is not"),
        pytest.param({"virtual_key": "openai-1"}, {}, "portkey", "gpt-4.1", id="a key that the gateway keeps"),
        pytest.param({"config": "pc-1", "provider": "openai"}, {}, "portkey", "gpt-4.1", id="a kept configuration"),
        pytest.param({"config": {"provider": "bedrock"}}, {}, "aws.bedrock", "gpt-4.1", id="a configuration"),
        pytest.param(
            {"config": {"targets": [{"provider": "openai"}, {"provider": "groq"}]}, "provider": "openai"},
            {},
            "portkey",
            "gpt-4.1",
            id="a configuration with a choice",
        ),
        pytest.param(
            {"config": {"cache": {"mode": "simple"}}, "provider": "groq"},
            {},
            "groq",
            "gpt-4.1",
            id="one of other things",
        ),
        pytest.param({}, {"model": "@mistral-ai/small"}, "mistral_ai", "small", id="the model's"),
        pytest.param({"provider": "openai"}, {"model": "@a/b/c"}, "openai", "b/c", id="a model that does not tell"),
        pytest.param(
            {"provider": "openai"},
            {"extra_headers": {"X-Portkey-Provider": "together-ai"}},
            "together",
            "gpt-4.1",
            id="the call's",
        ),
    ],
)
def test_the_provider_is_the_one_behind_the_gateway(
    server: Asked, watched: Watched, client: dict[str, Any], call: dict[str, Any], provider: str, model: str
) -> None:
    # Two clients have the same address, and each its own provider.
    a_client(server, provider="cohere").chat.completions.create(**ASK)
    a_client(server, **client).chat.completions.create(**{**ASK, **call})
    first, told = (dict(span.attributes or {}) for span in watched.spans())
    assert first["gen_ai.provider.name"] == "cohere"
    assert (told["gen_ai.provider.name"], told["gen_ai.request.model"]) == (provider, model)


def with_headers(**headers: str) -> Any:
    """A client whose gateway answers with these headers."""
    import httpx

    def answered(request: httpx.Request) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(200, json=reply(request.url.path, json.loads(request.content)), headers=named)

    transport = httpx.MockTransport(answered)
    return pytest.importorskip("portkey_ai").Portkey(
        api_key="k", config="pc-1", http_client=httpx.Client(transport=transport)
    )


def test_the_gateway_says_whom_it_has_taken(watched: Watched) -> None:
    with_headers(x_portkey_provider="azure-openai").chat.completions.create(**ASK)
    told = watched.one()
    assert told["server.address"] == "api.portkey.ai"
    assert told["gen_ai.provider.name"] == "azure.ai.openai"
    # An answer that is not OpenAI's has it in its body.
    with_headers().chat.completions.create(**{**ASK, "model": "claude-sonnet-4-5"})
    told = watched.one()
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["gen_ai.usage.input_tokens"] == 1650


@pytest.mark.parametrize("status", ["HIT", "SEMANTIC HIT"])
def test_a_kept_answer_uses_nothing(watched: Watched, status: str) -> None:
    with_headers(x_portkey_cache_status=status).chat.completions.create(**ASK)
    told = watched.one()
    assert told["gen_ai.response.id"] == "chatcmpl-1"
    assert not [key for key in told if ".usage." in key]


def test_an_answer_that_was_not_kept_is_counted(watched: Watched) -> None:
    with_headers(x_portkey_cache_status="MISS").chat.completions.create(**ASK)
    assert watched.usage() == COUNTS


def test_a_stream_says_in_a_chunk_who_answers(watched: Watched) -> None:
    sent = stream("They ", usage=USAGE, provider="anthropic")
    with replying(lambda *_: sent) as server:
        list(a_client(server).chat.completions.create(**ASK, stream=True))
    assert watched.one()["gen_ai.provider.name"] == "anthropic"


@both
@pytest.mark.parametrize(
    "exchange", exchanges("portkey.chat", "portkey.completions"), ids=lambda exchange: exchange["id"]
)
async def test_recorded_exchanges(watched: Watched, exchange: dict[str, Any], is_async: bool) -> None:
    path, asked = exchange["request"]["path"], exchange["request"]["body"]
    with replying(lambda *_: exchange["response"]["body"]) as server:
        client = a_client(server, is_async)
        if "/prompts/" in path:
            call = client.prompts.completions.create(prompt_id=path.split("/")[3], **asked)
        else:
            call = client.chat.completions.create(**asked)
        await finished(call, is_async)
    told, usage = watched.one(), exchange["usage"]
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert "gen_ai.usage.cache_read.input_tokens" not in told
