"""What watsonx counts -> what the span says, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from costspan_instrumentation.providers.watsonx import WATSONX
from costspan_instrumentation.providers.watsonx.answers import usage_of

from .recorded import events, exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

watsonx = pytest.importorskip("ibm_watsonx_ai")
models = pytest.importorskip("ibm_watsonx_ai.foundation_models")
schema = pytest.importorskip("ibm_watsonx_ai.foundation_models.schema")
errors = pytest.importorskip("ibm_watsonx_ai.wml_client_error")

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

HOST = "us-south.ml.cloud.ibm.com"
MODEL = "ibm/granite-3-8b-instruct"
ASK: Any = [{"role": "user", "content": "Say something on bridges"}]
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
WHO = {"id": "chat-1", "model_id": MODEL, "model": MODEL, "created": 1}
SAYS = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}
TOKENS = {"input_tokens": 100, "output_tokens": 20}


class _Redirected(httpx.HTTPTransport):
    """Sends what is meant for IBM's cloud to the server of the test."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(_redirected(request, self._url))


class _AsyncRedirected(httpx.AsyncHTTPTransport):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(_redirected(request, self._url))


def _redirected(request: httpx.Request, url: httpx.URL) -> httpx.Request:
    assert request.url.host == HOST
    request.url = request.url.copy_with(scheme="http", host=url.host, port=url.port)
    return request


def result(text: str, sent: int, made: int, reason: str = "eos_token") -> dict[str, Any]:
    counts = {"input_token_count": sent, "generated_token_count": made}
    return {"model_id": MODEL, "results": [{"generated_text": text, **counts, "stop_reason": reason}]}


def stream(*parts: dict[str, Any]) -> str:
    return "".join(f"id: {n}\nevent: message\ndata: {json.dumps(part)}\n\n" for n, part in enumerate(parts, 1))


PIECES = [result("", 100, 0, "not_finished"), result("They ", 0, 9, "not_finished"), result("carry.", 0, 20)]


def chunks(model: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "finish_reason": None} for text in ("They ", "carry.")
    ]
    parts[-1]["finish_reason"] = "stop"
    told = [{**WHO, "choices": [part]} for part in parts]
    return told if model == "silent" else [*told, {**WHO, "choices": [], "usage": USAGE}]


def reply(path: str, body: dict[str, Any]) -> Any:
    model = body.get("model_id") or body.get("model") or "deployed"
    if model == "nonexistent":
        return Refusal(404, {"errors": [{"code": "model_not_supported", "message": "No such model"}]})
    if "embeddings" in path and "gateway" not in path:
        vector = {"embedding": [0.5]}
        return {"model_id": model, "results": [vector] * len(body["inputs"]), "input_token_count": 9}
    if "rerank" in path:
        return {"model_id": model, "results": [{"index": 0, "score": 0.5}], "input_token_count": 43}
    if "generation_stream" in path:
        return stream(*(PIECES[:2] if model == "cut" else PIECES))
    if "generation" in path:
        return result("They carry.", 100, 20)
    streamed = "chat_stream" in path or body.get("stream")
    if "/chat" in path:
        return stream(*chunks(model)) if streamed else {**WHO, "choices": [SAYS], "usage": USAGE}
    text = {"index": 0, "text": "They carry.", "finish_reason": "stop"}
    return stream({**WHO, "choices": [text]}, {**WHO, "choices": [], "usage": USAGE}) if streamed else {
        **WHO, "choices": [text], "usage": USAGE,
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    with watching(WATSONX) as watched:
        yield watched


def an_api(url: str) -> Any:
    api = watsonx.APIClient(
        watsonx.Credentials(url=f"https://{HOST}", token="t"),
        httpx_client=httpx.Client(transport=_Redirected(url)),
        async_httpx_client=httpx.AsyncClient(transport=_AsyncRedirected(url)),
    )
    # To set it the usual way, IBM is asked for its type.
    api.default_project_id = "p1"
    return api


def a_model(server: Asked, model: str = MODEL, **more: Any) -> Any:
    return models.ModelInference(model_id=model, api_client=an_api(server.url), validate=False, max_retries=0, **more)


def a_gateway(server: Asked, **more: Any) -> Any:
    gateway = pytest.importorskip("ibm_watsonx_ai.gateway.gateway_inference")
    return gateway.GatewayInference(model=MODEL, api_client=an_api(server.url), **more)


def told_usage(told: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("gen_ai.usage."): told[key] for key in told if ".usage." in key}


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("counted", "usage"),
    [
        pytest.param(
            {"generated_token_count": 2, "input_token_count": 7},
            {"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 2},
            id="a text",
        ),
        pytest.param({"results": [], "input_token_count": 7}, {"gen_ai.usage.input_tokens": 7}, id="embeddings"),
        pytest.param({"input_token_count": "x"}, {"gen_ai.usage.input_tokens": "x"}, id="what cannot be is passed on"),
        pytest.param({}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(counted: Any, usage: dict[str, Any]) -> None:
    assert usage_of(counted) == usage
    assert WATSONX.usage_formats["watsonx.generate"] is usage_of


# ---------------------------------------------------------------- chats


@both
async def test_a_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server)
    chat = model.achat if is_async else model.chat
    answer = await finished(chat(ASK, {"max_tokens": 50, "temperature": 0.5, "seed": 3}), is_async)
    assert answer["choices"] == [SAYS]
    (span,) = watched.spans()
    assert span.name == f"chat {MODEL}"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ibm.watsonx.ai",
        "server.address": HOST,
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.response.id": "chat-1",
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
    }


@both
async def test_a_streamed_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server)
    chat = await model.achat_stream(messages=ASK) if is_async else model.chat_stream(messages=ASK)
    assert await items(chat, is_async) == chunks(MODEL)
    told = watched.one()
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.model"] == MODEL
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told_usage(told) == TOKENS


@both
async def test_a_chat_that_never_tells_is_an_estimate(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server, "silent")
    chat = await model.achat_stream(messages=ASK) if is_async else model.chat_stream(messages=ASK)
    await items(chat, is_async)
    told = watched.one()
    assert told["costspan.usage.estimated"] is True
    assert told["gen_ai.usage.output_tokens"] == 3


def test_settings_may_be_those_of_the_client_or_an_object(server: Asked, watched: Watched) -> None:
    model = a_model(server, params=schema.TextChatParameters(max_tokens=9, temperature=0.1))
    model.chat(messages=ASK)
    told = watched.one()
    assert (told["gen_ai.request.max_tokens"], told["gen_ai.request.temperature"]) == (9, 0.1)
    model.generate("Hi", schema.TextGenParameters(max_new_tokens=7, random_seed=1, top_k=2, stop_sequences=["."]))
    told = watched.one()
    assert (told["gen_ai.request.max_tokens"], told["gen_ai.request.seed"]) == (7, 1)
    assert (told["gen_ai.request.top_k"], told["gen_ai.request.stop_sequences"]) == (2, (".",))
    assert "gen_ai.request.temperature" not in told


def test_a_deployment_tells_its_model_when_it_answers(server: Asked, watched: Watched) -> None:
    model = models.ModelInference(deployment_id="d1", api_client=an_api(server.url), validate=False)
    model.chat(messages=ASK)
    told = watched.one()
    assert "gen_ai.request.model" not in told
    assert told["gen_ai.response.model"] == MODEL
    assert told_usage(told) == TOKENS


# ---------------------------------------------------------------- text


@both
async def test_generated_text(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server)
    generate = model.agenerate if is_async else model.generate
    answer = await finished(generate("Say something", {"max_new_tokens": 50}), is_async)
    assert answer == result("They carry.", 100, 20)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.request.max_tokens"] == 50
    assert told["gen_ai.response.finish_reasons"] == ("eos_token",)
    assert told_usage(told) == TOKENS


def test_text_alone_is_one_call(server: Asked, watched: Watched) -> None:
    assert a_model(server).generate_text("Say something") == "They carry."
    assert watched.usage() == TOKENS


def test_answers_to_a_list_are_added(server: Asked, watched: Watched) -> None:
    assert a_model(server).generate_text(["a", "b", "c"]) == ["They carry."] * 3
    told = watched.one()
    assert told["gen_ai.response.finish_reasons"] == ("eos_token",) * 3
    assert told_usage(told) == {"input_tokens": 300, "output_tokens": 60}


@pytest.mark.filterwarnings("ignore:In this mode")
def test_answers_to_a_list_may_come_one_by_one(server: Asked, watched: Watched) -> None:
    assert len(list(a_model(server).generate(["a", "b", "c"], async_mode=True))) == 3
    told = watched.one()
    assert told_usage(told) == {"input_tokens": 300, "output_tokens": 60}


@both
async def test_streamed_text_with_its_counts(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server)
    text = await model.agenerate_stream("Hi") if is_async else model.generate_text_stream("Hi", raw_response=True)
    assert await items(text, is_async) == PIECES
    told = watched.one()
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"] == ("eos_token",)
    assert told_usage(told) == TOKENS


@both
async def test_streamed_text_that_breaks_off_is_an_estimate(server: Asked, watched: Watched, is_async: bool) -> None:
    model = a_model(server, "cut")
    text = await model.agenerate_stream("Hi") if is_async else model.generate_text_stream("Hi", raw_response=True)
    assert len(await items(text, is_async)) == 2
    told = watched.one()
    assert told["costspan.usage.estimated"] is True
    # What was told counts, and it is more than the text so far.
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (100, 9)


def test_streamed_text_without_its_counts_is_an_estimate(server: Asked, watched: Watched) -> None:
    assert list(a_model(server).generate_text_stream("Say something")) == ["", "They ", "carry."]
    told = watched.one()
    assert told["costspan.usage.estimated"] is True
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (4, 3)


# ---------------------------------------------------------------- embeddings, scores, the gateway


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    embeddings = models.Embeddings(model_id="ibm/slate-125m-english-rtrvr-v2", api_client=an_api(server.url))
    embed = embeddings.aembed_documents if is_async else embeddings.embed_documents
    assert await finished(embed(["a", "b"]), is_async) == [[0.5], [0.5]]
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert told["gen_ai.request.model"] == "ibm/slate-125m-english-rtrvr-v2"
    assert told_usage(told) == {"input_tokens": 9}


def test_embeddings_in_batches_are_one_call(server: Asked, watched: Watched) -> None:
    embeddings = models.Embeddings(
        model_id="ibm/slate-30m-english-rtrvr-v2", api_client=an_api(server.url), batch_size=2
    )
    assert len(embeddings.embed_documents(["a", "b", "c"])) == 3
    assert watched.usage() == {"input_tokens": 18}


def test_scores(server: Asked, watched: Watched) -> None:
    rerank = models.Rerank(model_id="cross-encoder/ms-marco-minilm-l-12-v2", api_client=an_api(server.url))
    rerank.generate("capital", ["Paris"])
    told = watched.one()
    assert told["gen_ai.operation.name"] == "rerank"
    assert told_usage(told) == {"input_tokens": 43}


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("method", ["chat", "generate"])
async def test_the_gateway(server: Asked, watched: Watched, method: str, streamed: bool, is_async: bool) -> None:
    gateway = a_gateway(server, temperature=0.5)
    call = getattr(gateway, f"{'a' if is_async else ''}{method}{'_stream' if streamed else ''}")
    answer = await finished(call(ASK if method == "chat" else "Hi"), is_async)
    if streamed:
        assert await items(answer, is_async)
    told = watched.one()
    assert told["gen_ai.request.model"] == MODEL
    assert told["gen_ai.request.temperature"] == 0.5
    assert told.get("gen_ai.request.stream") is (streamed or None)
    assert told_usage(told) == TOKENS


# ---------------------------------------------------------------- failures and recordings


@both
@pytest.mark.parametrize("method", ["chat", "generate", "chat_stream"])
async def test_a_refusal_is_raised_and_not_billed(server: Asked, watched: Watched, method: str, is_async: bool) -> None:
    model = a_model(server, "nonexistent")
    call = getattr(model, f"a{method}" if is_async else method)

    async def answered() -> None:
        await items(await finished(call(ASK if "chat" in method else "Hi"), is_async), is_async)

    with pytest.raises(errors.WMLClientError):
        await answered()
    told = watched.one()
    assert told["error.type"] in {"ApiRequestFailure", "WMLClientError"}
    assert told_usage(told) == {}


@pytest.mark.parametrize("exchange", exchanges("watsonx.generate"), ids=lambda exchange: exchange["id"])
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    body, sent = exchange["response"]["body"], exchange["request"]["body"]
    with replying(lambda *_: body) as server:
        model = a_model(server, sent["model_id"])
        if exchange["stream"]:
            pieces = list(model.generate_text_stream(sent["input"], raw_response=True))
            assert pieces == events(body)
            counts = [piece["results"][0] for piece in pieces]
        else:
            counts = model.generate(sent["input"])["results"]
    assert watched.usage() == {
        "input_tokens": max(told["input_token_count"] for told in counts),
        "output_tokens": counts[-1]["generated_token_count"],
    }
