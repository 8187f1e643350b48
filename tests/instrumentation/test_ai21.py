"""What AI21 bills -> what the span says and what it costs, on the real SDK over real HTTP, its versions 2 to 4."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.ai21 import AI21
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
SAYS = {
    "index": 0,
    "message": {"role": "assistant", "content": "They carry.", "tool_calls": None},
    "logprobs": None,
    "finish_reason": "stop",
}


def stream(*texts: str) -> str:
    """Its last chunk has the usage."""
    parts: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None} for text in texts
    ]
    parts[-1]["finish_reason"] = "stop"
    events: list[dict[str, Any]] = [{"id": "chatcmpl-1", "choices": [part]} for part in parts]
    events[-1]["usage"] = USAGE
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def reply(path: str, body: dict[str, Any]) -> Any:
    assert path.endswith("/chat/completions")
    if body["model"] == "nonexistent":
        return Refusal(422, {"detail": "no such model"})
    if body.get("stream"):
        return stream("They ", "carry ", "us.")
    return {"id": "chatcmpl-1", "choices": [SAYS], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("ai21")
    with watching(AI21) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False) -> Any:
    sdk = pytest.importorskip("ai21")
    return (sdk.AsyncAI21Client if is_async else sdk.AI21Client)(api_key="k", api_host=server.url)


def asking(text: str = "Say something about bridges", role: str = "user") -> list[Any]:
    return [pytest.importorskip("ai21.models.chat").ChatMessage(role=role, content=text)]


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    answer = await finished(create(model="jamba-mini", messages=asking(), max_tokens=9, stop="END"), is_async)
    assert answer.choices[0].message.content == "They carry."
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ai21",
        "gen_ai.request.model": "jamba-mini",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
    }
    # $0.2 and $0.4 a million.
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == pytest.approx(0.0002 + 0.00004)


@both
async def test_chat_stream(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    chunks = await finished(create(model="jamba-mini", messages=asking(), stream=True), is_async)
    assert [c.choices[0].delta.content for c in await items(chunks, is_async)] == ["They ", "carry ", "us."]
    told = watched.one()
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)
    assert "costspan.usage.estimated" not in told


@pytest.mark.parametrize("model_first", [False, True], ids=["messages first", "model first"])
def test_either_of_two_arguments_may_be_the_model(model_first: bool) -> None:
    """Of the clients of one version, one has the one order and one the other."""
    (endpoint,) = AI21.endpoints
    assert endpoint.choose is not None
    given = ("jamba-mini", ["hi"]) if model_first else (["hi"], "jamba-mini")
    _, arguments = endpoint.choose(dict(zip(endpoint.positional, given, strict=False)), None) or (None, {})
    assert (arguments["model"], arguments["messages"]) == ("jamba-mini", ["hi"])


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    chunks = await finished(create(model="jamba-mini", messages=asking(), stream=True), is_async)
    if is_async:
        await chunks.__anext__()
        await chunks.close()
    else:
        next(chunks)
        chunks.close()
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 2, "estimated": True}


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool, streamed: bool) -> None:
    create = a_client(server, is_async).chat.completions.create
    with pytest.raises(pytest.importorskip("ai21.errors").AI21APIError):
        await finished(create(model="nonexistent", messages=asking(), stream=streamed), is_async)
    told = watched.one()
    assert told["error.type"]
    assert not [key for key in told if ".usage." in key]


@both
async def test_the_client_of_azure_names_its_cloud_by_the_host(watched: Watched, is_async: bool) -> None:
    sdk = pytest.importorskip("ai21")
    kind = sdk.AsyncAI21AzureClient if is_async else sdk.AI21AzureClient
    client = kind(base_url="https://jamba.eastus.models.ai.azure.com", api_key="k")
    site = watched.engine._site(AI21, client.chat.completions)
    assert (site.provider, site.host) == ("azure.ai.inference", "jamba.eastus.models.ai.azure.com")


@both
@pytest.mark.parametrize("exchange", exchanges("ai21.chat"), ids=lambda exchange: exchange["id"])
async def test_recorded_exchanges(watched: Watched, exchange: dict[str, Any], is_async: bool) -> None:
    asked = exchange["request"]["body"]
    messages = [said for message in asked["messages"] for said in asking(message["content"], message["role"])]
    with replying(lambda *_: exchange["response"]["body"]) as server:
        answer = await finished(
            a_client(server, is_async).chat.completions.create(**{**asked, "messages": messages}), is_async
        )
        if exchange["stream"]:
            await items(answer, is_async)
    told, usage = watched.one(), exchange["usage"]
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert "costspan.usage.estimated" not in told
