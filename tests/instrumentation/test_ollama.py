"""What Ollama tells -> what the span says, on the real SDK over real HTTP: clients, and the module's own functions."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.providers.ollama import OLLAMA, chat_usage
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = [{"role": "user", "content": "Say something about bridges"}]
DONE = {
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 17,
    "eval_count": 63,
    "total_duration": 3_722_518_334,
    "load_duration": 1_534_053_125,
    "prompt_eval_duration": 179_676_000,
    "eval_duration": 2_006_086_000,
}


def answer(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "created_at": "2026-11-28T12:00:00Z", **more}


def lines(*answers: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(one)}\n" for one in answers)


def reply(path: str, body: dict[str, Any]) -> Any:
    model = body["model"]
    told: dict[str, Any] = {"done": True} if model == "silent" else DONE
    if model == "nonexistent":
        return Refusal(404, {"error": "model 'nonexistent' not found"})
    if path == "/api/embed":
        return {"model": model, "embeddings": [[0.5]], "prompt_eval_count": 4, "total_duration": 9}
    if path == "/api/embeddings":
        return {"embedding": [0.5]}
    if path == "/api/generate":
        if not body["stream"]:
            return answer(model, response="They carry.", **told)
        return lines(answer(model, response="They ", done=False), answer(model, response="carry.", **told))
    if not body["stream"]:
        return answer(model, message={"role": "assistant", "content": "They carry."}, **told)
    said = ({"content": "They"}, {"content": " carry.", "thinking": "Hm"})
    parts = [answer(model, message={"role": "assistant", **what}, done=False) for what in said]
    return lines(*parts, answer(model, message={"role": "assistant", "content": ""}, **told))


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("ollama")
    with watching(OLLAMA) as watched:
        yield watched


def a_client(host: str, is_async: bool = False) -> Any:
    import ollama

    return (ollama.AsyncClient if is_async else ollama.Client)(host=host)


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        (DONE, {"gen_ai.usage.input_tokens": 17, "gen_ai.usage.output_tokens": 63}),
        # The whole prompt was still in memory.
        ({"eval_count": 5}, {"gen_ai.usage.output_tokens": 5}),
        ({"eval_count": "many"}, {"gen_ai.usage.output_tokens": "many"}),
        (None, {}),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert chat_usage(usage) == attributes
    assert OLLAMA.usage_formats["ollama.chat"] is chat_usage


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    options = {"num_predict": 9, "temperature": 0.5, "stop": ["."]}
    await finished(a_client(server.url, is_async).chat("llama3", ASK, options=options), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "ollama"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "llama3"
    assert told["gen_ai.request.max_tokens"] == 9
    assert told["gen_ai.request.stop_sequences"] == (".",)
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert (told["server.address"], str(told["server.port"])) == ("127.0.0.1", server.url.rpartition(":")[2])
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (17, 63)
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.status"] == "free"


def test_a_price_of_ones_own_by_the_token_misses_none_by_the_second(server: Asked, watched: Watched) -> None:
    own = {"ollama/llama3": {"input": 1, "output": 2}}
    a_client(server.url).chat(model="llama3", messages=ASK)
    priced = enrich(watched.one(), AT, PriceBook.bundled().with_prices(own))
    assert priced["costspan.cost.status"] == "priced"
    assert priced["costspan.cost.total"] == pytest.approx(143e-6)


def test_on_hardware_that_is_paid_by_the_hour_the_duration_of_the_call_costs(server: Asked, watched: Watched) -> None:
    own = {"ollama/llama3": {"compute_seconds": "1000"}}
    a_client(server.url).chat(model="llama3", messages=ASK)
    priced = enrich(watched.one(), AT, PriceBook.bundled().with_prices(own), seconds=2.0)
    assert priced["costspan.cost.total"] == pytest.approx(0.002)


@both
@pytest.mark.parametrize("method", ["chat", "generate"])
async def test_streams_stay_generators(server: Asked, watched: Watched, is_async: bool, method: str) -> None:
    asked = {"messages": ASK} if method == "chat" else {"prompt": "bridges"}
    client = a_client(server.url, is_async)
    stream = await finished(getattr(client, method)(model="llama3", stream=True, **asked), is_async)
    assert hasattr(stream, "asend" if is_async else "send")
    assert len(await items(stream, is_async)) == (3 if method == "chat" else 2)
    told = watched.one()
    assert told["gen_ai.request.stream"] is True
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (17, 63)
    assert "costspan.usage.estimated" not in told


@both
async def test_an_abandoned_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = await finished(a_client(server.url, is_async).chat(model="llama3", messages=ASK, stream=True), is_async)
    if is_async:
        await stream.__anext__()
        await stream.aclose()
    else:
        next(stream)
        stream.close()
    # "Say something about bridges", and "They": four characters a token.
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 1, "estimated": True}


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool, streamed: bool) -> None:
    import ollama

    async def ask() -> None:
        client = a_client(server.url, is_async)
        answer = await finished(client.chat(model="nonexistent", messages=ASK, stream=streamed), is_async)
        await items(answer, is_async)

    with pytest.raises(ollama.ResponseError):
        await ask()
    told = watched.one()
    assert told["error.type"] == "ResponseError"
    assert not [key for key in told if ".usage." in key]


def test_an_answer_without_usage_is_not_zero(server: Asked, watched: Watched) -> None:
    a_client(server.url).chat(model="silent", messages=ASK)
    assert watched.usage() == {}


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server.url, is_async)
    await finished(client.embed(model="nomic-embed-text", input=["bridges"]), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert told["gen_ai.usage.input_tokens"] == 4
    # The method before that one tells nothing.
    await finished(client.embeddings(model="nomic-embed-text", prompt="bridges"), is_async)
    assert watched.usage() == {}


# ---------------------------------------------------------------- the cloud


@pytest.mark.parametrize("model", ["gpt-oss:120b-cloud", "gemma4:cloud"])
def test_what_runs_in_the_cloud_says_so(server: Asked, watched: Watched, model: str) -> None:
    a_client(server.url).chat(model=model, messages=ASK)
    assert watched.one()["costspan.service_tier"] == "cloud"


def test_the_host_of_the_cloud_is_its_own(watched: Watched) -> None:
    import httpx

    sent = httpx.MockTransport(lambda _: httpx.Response(200, json=answer("gpt-oss:120b", **DONE, message=ASK[0])))
    import ollama

    ollama.Client(host="https://ollama.com", transport=sent).chat(model="gpt-oss:120b", messages=ASK)
    told = watched.one()
    assert (told["server.address"], told["costspan.service_tier"]) == ("ollama.com", "cloud")


# ---------------------------------------------------------------- the module's own functions


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "ollama"]:
        del sys.modules[name]


@pytest.fixture
def fresh(server: Asked, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """As if nobody had imported the SDK yet."""
    pytest.importorskip("ollama")
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ollama"}
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    forget()
    yield server
    forget()
    sys.modules.update(kept)


@pytest.mark.parametrize("imported", [False, True], ids=["patched first", "imported first"])
def test_functions_are_counted_and_given_back(fresh: Asked, imported: bool) -> None:
    watched = Watched()
    engine: Engine = watched.engine
    if imported:
        importlib.import_module("ollama")
    engine.instrument(OLLAMA)
    ollama: Any = importlib.import_module("ollama")
    try:
        ollama.chat(model="llama3", messages=ASK)
        assert watched.usage() == {"input_tokens": 17, "output_tokens": 63}
        list(ollama.generate(model="llama3", prompt="bridges", stream=True))
        assert watched.usage() == {"input_tokens": 17, "output_tokens": 63}
        ollama.embed(model="nomic-embed-text", input="bridges")
        assert watched.usage() == {"input_tokens": 4}
    finally:
        engine.uninstrument(OLLAMA)
    ollama.chat(model="llama3", messages=ASK)
    ollama.Client(host=fresh.url).chat(model="llama3", messages=ASK)
    assert watched.spans() == []


def test_recorded_answers_tell_the_usage_that_was_recorded() -> None:
    for exchange in exchanges("ollama.chat", "ollama.generate"):
        usage, body = exchange["usage"], exchange["response"]["body"]
        if usage and isinstance(body, dict):
            told = OLLAMA.endpoints[0].response(body)
            assert told.get("gen_ai.usage.input_tokens") == usage.get("prompt_eval_count")
            assert told["gen_ai.usage.output_tokens"] == usage["eval_count"]
