"""What Cohere bills -> what the span says, in both versions of its API, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from costspan_instrumentation.providers.cohere import COHERE
from costspan_instrumentation.providers.cohere.answers import billed_usage

from .recorded import exchanges
from .replies import Asked, Refusal, replying, stream_of
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            # Cohere's own prompt is in `tokens` and free; the cached tokens are some of those.
            {
                "billed_units": {"input_tokens": 12, "output_tokens": 10},
                "tokens": {"input_tokens": 614, "output_tokens": 13},
                "cached_tokens": 480,
            },
            {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 10},
            id="what is billed, not what is read",
        ),
        pytest.param(
            {
                "billed_units": {"input_tokens": 83.0, "output_tokens": 109.0},
                "tokens": {"input_tokens": 379.0, "output_tokens": 164.0, "reasoning_tokens": 54},
            },
            {
                "gen_ai.usage.input_tokens": 83,
                "gen_ai.usage.output_tokens": 109,
                "gen_ai.usage.reasoning.output_tokens": 54,
            },
            id="reasoning is in the billed output",
        ),
        pytest.param(
            {"tokens": {"input_tokens": 614, "output_tokens": 13}, "cached_tokens": 480},
            {
                "gen_ai.usage.input_tokens": 614,
                "gen_ai.usage.output_tokens": 13,
                "gen_ai.usage.cache_read.input_tokens": 480,
            },
            id="tokens where nothing says what is billed",
        ),
        pytest.param(
            {"billed_units": {"input_tokens": 3, "image_tokens": 400}},
            {"gen_ai.usage.input_tokens": 403, "gen_ai.usage.image.input_tokens": 400},
            id="tokens of images come beside those of text",
        ),
        pytest.param({"billed_units": {"images": 2}}, {"costspan.usage.images": 2}, id="images"),
        pytest.param({"billed_units": {"pages": 7}}, {"costspan.usage.pages": 7}, id="pages"),
        pytest.param({"billed_units": {"search_units": 1}}, {"costspan.usage.rerank_searches": 1}, id="searches"),
        pytest.param({"search_units": 3}, {"costspan.usage.rerank_searches": 3}, id="the billed units alone"),
        pytest.param({"billed_units": {"classifications": 4}}, {"costspan.usage.classifications": 4}, id="classes"),
        pytest.param(
            {"billed_units": {"input_tokens": -1, "output_tokens": "many"}},
            {"gen_ai.usage.input_tokens": -1, "gen_ai.usage.output_tokens": "many"},
            id="what cannot be is passed on",
        ),
        pytest.param({"api_version": {"version": "1"}}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert billed_usage(usage) == attributes
    assert set(COHERE.usage_formats) == {"cohere.chat", "cohere.embed", "cohere.rerank"}
    assert set(COHERE.usage_formats.values()) == {billed_usage}


# ---------------------------------------------------------------- every way of calling

USAGE = {"billed_units": {"input_tokens": 12, "output_tokens": 10}, "tokens": {"input_tokens": 614}}
EVENTS: list[dict[str, Any]] = [
    {"type": "message-start", "id": "c-1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    *(
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}
        for text in ("Hi the", "re, world!!!")
    ),
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}},
]


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def reply(path: str, body: dict[str, Any]) -> Any:
    path = path if path.startswith("/v") else f"/v1{path}"  # oldest clients have the version in their base URL
    meta: Any = {"billed_units": {"input_tokens": 12, "output_tokens": 10}}
    if body.get("model") == "removed":
        return Refusal(404, {"message": "model 'removed' was removed"})
    match path, body.get("stream"):
        case "/v2/chat", True:
            return stream_of(*EVENTS)
        case "/v2/chat", _:
            message = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
            usage = {} if body["model"] == "silent" else {"usage": USAGE}
            return {"id": "c-1", "message": message, "finish_reason": "COMPLETE", **usage}
        case "/v1/chat", True:
            return lines(
                {"event_type": "stream-start", "generation_id": "g-1", "is_finished": False},
                {"event_type": "text-generation", "text": "Hi there, world!", "is_finished": False},
                {
                    "event_type": "stream-end",
                    "is_finished": True,
                    "finish_reason": "COMPLETE",
                    "response": {"text": "Hi", "generation_id": "g-1", "meta": meta},
                },
            )
        case "/v1/chat", _:
            return {"text": "Hi", "generation_id": "g-1", "finish_reason": "COMPLETE", "meta": meta}
        case "/v1/generate", _:
            generation = {"id": "g-2", "text": "Hi", "finish_reason": "COMPLETE"}
            return {"id": "g-1", "prompt": "x", "generations": [generation], "meta": meta}
        case "/v1/embed" | "/v2/embed", _:
            texts = body.get("texts") or []
            meta = {"api_version": {"version": "1"}, "billed_units": {"input_tokens": len(texts)}}
            if "images" in body:
                meta = {"billed_units": {"images": 1}}
            floats: Any = [[0.5] for _ in texts]
            kind = "embeddings_by_type" if body.get("embedding_types") else "embeddings_floats"
            embeddings = {"float": floats} if body.get("embedding_types") else floats
            return {"id": "e-1", "response_type": kind, "embeddings": embeddings, "texts": texts, "meta": meta}
        case "/v1/rerank" | "/v2/rerank", _:
            results = [{"index": 0, "relevance_score": 0.5}]
            return {"id": "r-1", "results": results, "meta": {"billed_units": {"search_units": 2}}}
        case "/v1/classify", _:
            return {"id": "k-1", "classifications": [], "meta": {"billed_units": {"classifications": 3}}}
        case "/v2/parse", _:
            return {"id": "p-1", "pages": [], "meta": {"billed_units": {"pages": 7}}}
        case "/v1/tokenize", _:
            return {"tokens": [1, 2], "token_strings": ["a", "b"], "meta": {"api_version": {"version": "1"}}}
        case _:
            return {"text": "Ruby is a language"}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("cohere")
    with watching(COHERE) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False, version: str = "") -> Any:
    cohere = pytest.importorskip("cohere")
    kind = getattr(cohere, ("AsyncClient" if is_async else "Client") + version, None)
    if kind is None:
        pytest.skip("this version has no version 2 of the API")
    return kind(api_key="k", base_url=server.url)


ASK: Any = [{"role": "user", "content": "Say hello to twelve"}]


@both
async def test_a_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async, "V2")
    answer = await finished(
        client.chat(model="command-a-03-2025", messages=ASK, max_tokens=9, p=0.5, stop_sequences=["END"]), is_async
    )
    assert answer.id == "c-1"
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "cohere",
        "gen_ai.request.model": "command-a-03-2025",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.id": "c-1",
        "gen_ai.response.finish_reasons": ("COMPLETE",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 10,
    }


@both
async def test_a_streamed_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = a_client(server, is_async, "V2").chat_stream(model="command-a-03-2025", messages=ASK)
    assert hasattr(stream, "asend" if is_async else "send"), "a generator stays one"
    assert len(await items(stream, is_async)) == len(EVENTS)
    told = watched.one()
    assert told["gen_ai.response.id"] == "c-1"
    assert told["gen_ai.response.finish_reasons"] == ("COMPLETE",)
    assert told["gen_ai.request.stream"] is True
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (12, 10)
    assert "costspan.usage.estimated" not in told


@both
async def test_a_stream_that_is_left_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    stream = a_client(server, is_async, "V2").chat_stream(model="command-a-03-2025", messages=ASK)
    for _ in range(4):
        await finished(stream.__anext__() if is_async else next(stream), is_async)
    with suppress(RuntimeError):  # some older versions go on when they are told to stop
        await finished(stream.aclose() if is_async else stream.close(), is_async)
    # 19 characters were asked and 18 written, 4 to a token.
    assert watched.usage() == {"input_tokens": 5, "output_tokens": 5, "estimated": True}


@both
async def test_an_answer_without_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    await finished(a_client(server, is_async, "V2").chat(model="silent", messages=ASK), is_async)
    assert watched.usage() == {}


@both
@pytest.mark.parametrize("version", ["", "V2"], ids=["v1", "v2"])
async def test_a_refusal_is_raised_and_not_billed(
    server: Asked, watched: Watched, is_async: bool, version: str
) -> None:
    client = a_client(server, is_async, version)
    ask = {"messages": ASK} if version else {"message": "Hi"}
    errors = pytest.importorskip("cohere.errors")
    with pytest.raises(errors.NotFoundError):
        await finished(client.chat(model="removed", **ask), is_async)
    with pytest.raises(errors.NotFoundError):
        await items(client.chat_stream(model="removed", **ask), is_async)
    for span in watched.spans():
        told = dict(span.attributes or {})
        assert told["error.type"] == "NotFoundError"
        assert not [key for key in told if ".usage." in key]


@both
async def test_version_1(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.chat(message="Hi", model="command-r-08-2024", k=3), is_async)
    told = watched.one()
    assert (told["gen_ai.response.id"], told["gen_ai.request.top_k"]) == ("g-1", 3)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (12, 10)
    await items(client.chat_stream(message="Hi", model="command-r-08-2024"), is_async)
    assert watched.usage() == {"input_tokens": 12, "output_tokens": 10}
    await finished(client.generate(prompt="x", model="command-light"), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.response.finish_reasons"] == ("COMPLETE",)
    await finished(client.rerank(query="x", documents=["a"], model="rerank-v3.5"), is_async)
    assert watched.usage() == {"rerank_searches": 2}
    await finished(client.classify(inputs=["x"], model="embed-english-v3.0"), is_async)
    assert watched.usage() == {"classifications": 3}


@both
async def test_version_2_beside_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async, "V2")
    await finished(client.rerank(query="x", documents=["a"], model="rerank-v3.5"), is_async)
    assert watched.usage() == {"rerank_searches": 2}
    ask = {"model": "embed-v4.0", "input_type": "search_query", "embedding_types": ["float"]}
    await finished(client.embed(texts=["a", "b"], **ask), is_async)
    told = watched.one()
    assert (told["gen_ai.operation.name"], told["gen_ai.usage.input_tokens"]) == ("embeddings", 2)
    assert told["gen_ai.request.encoding_formats"] == ("float",)
    await finished(client.embed(images=["data:image/png;base64,AA"], **ask), is_async)
    assert watched.usage() == {"images": 1}
    if hasattr(client, "parse"):
        await finished(client.parse(model="parse-v5.0", document={"type": "url", "url": "https://x.example"}), is_async)
        assert watched.usage() == {"pages": 7}


@both
async def test_texts_sent_in_batches_are_one_call(server: Asked, watched: Watched, is_async: bool) -> None:
    """Version 1 sends 96 texts a request, from threads or tasks of its own."""
    await finished(a_client(server, is_async).embed(texts=["x"] * 200, model="embed-english-v3.0"), is_async)
    assert len(server.requests) == 3
    assert watched.usage() == {"input_tokens": 200}


def test_texts_whose_embeddings_come_batch_by_batch(server: Asked, watched: Watched) -> None:
    client = a_client(server)
    if not hasattr(client, "embed_stream"):
        pytest.skip("this version has no embed_stream")
    assert len(list(client.embed_stream(texts=["x"] * 5, model="embed-english-v3.0", batch_size=2))) == 5
    sums = [(span.attributes or {})["gen_ai.usage.input_tokens"] for span in watched.spans()]
    assert sums == [2, 2, 1]


@both
async def test_raw_responses_and_clients_made_before(server: Asked, is_async: bool) -> None:
    client = a_client(server, is_async, "V2")
    if not hasattr(client, "with_raw_response"):
        pytest.skip("this version has no raw responses")
    ask = {"model": "command-a-03-2025", "messages": ASK}
    with watching(COHERE) as watched:
        await finished(client.chat(**ask), is_async)
        assert watched.usage() == {"input_tokens": 12, "output_tokens": 10}
        raw = await finished(client.with_raw_response.chat(**ask), is_async)
        assert raw.data.id == "c-1"
        assert watched.usage() == {"input_tokens": 12, "output_tokens": 10}


@both
async def test_transcribing(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    if not hasattr(client, "audio"):
        pytest.skip("this version has no audio")
    await finished(
        client.audio.transcriptions.create(model="cohere-transcribe-03-2026", language="en", file=b"RIFF"), is_async
    )
    told = watched.one()
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == (
        "transcription",
        "cohere-transcribe-03-2026",
    )
    assert not [key for key in told if ".usage." in key], "Cohere tells none"


@both
async def test_tokenizing_is_free(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    await finished(client.tokenize(text="ab", model="embed-v4.0", offline=False), is_async)
    assert len(server.requests) == 1
    assert watched.spans() == []


def test_a_client_for_a_cloud_is_that_cloud(server: Asked, watched: Watched) -> None:
    """Its SDK names Cohere's address, and turns the request around on its way."""
    cohere = pytest.importorskip("cohere")
    pytest.importorskip("boto3")
    if not hasattr(cohere, "BedrockClientV2"):
        pytest.skip("the parts of older clients are elsewhere")
    client = cohere.BedrockClient(aws_access_key="k", aws_secret_key="s", aws_region="eu-west-1")
    client._client_wrapper._base_url = server.url
    client._client_wrapper.httpx_client.httpx_client.event_hooks = {}
    client.chat(message="Hi", model="cohere.command-r-v1:0")
    told = watched.one()
    assert told["gen_ai.provider.name"] == "aws.bedrock"
    assert "server.address" not in told


# ---------------------------------------------------------------- jobs


@both
async def test_a_batch_is_billed_once_when_it_has_ended(watched: Watched, is_async: bool) -> None:
    batch = {"name": "b", "id": "b-1", "model": "embed-v4.0", "input_dataset_id": "d", "status": "BATCH_STATUS_QUEUED"}
    with replying(lambda *_: {"batch": batch}) as server:
        batches = getattr(a_client(server, is_async), "batches", None)
        if batches is None:
            pytest.skip("this version has no batches")
        await finished(batches.retrieve("b-1"), is_async)
        assert watched.spans() == []
        batch.update(status="BATCH_STATUS_COMPLETED", input_tokens="1200", output_tokens="0")
        await finished(batches.retrieve("b-1"), is_async)
        told = watched.one()
        assert told["gen_ai.operation.name"] == "embeddings"
        assert told["gen_ai.request.model"] == "embed-v4.0"
        assert told["gen_ai.usage.input_tokens"] == 1200
        assert told["costspan.service_tier"] == "batch"
        await finished(batches.retrieve("b-1"), is_async)
        told = watched.one()
        assert told["gen_ai.operation.name"] == "fetch_response"
        assert "gen_ai.usage.input_tokens" not in told


@both
async def test_an_embed_job_is_billed_when_it_is_complete(watched: Watched, is_async: bool) -> None:
    job: dict[str, Any] = {
        "job_id": "j-1",
        "status": "processing",
        "created_at": "2026-01-01T00:00:00Z",
        "input_dataset_id": "d",
        "model": "embed-v4.0",
        "truncate": "END",
    }
    with replying(lambda *_: job) as server:
        client = a_client(server, is_async)
        await finished(client.embed_jobs.get("j-1"), is_async)
        assert watched.spans() == []
        job.update(status="complete", meta={"billed_units": {"input_tokens": 700}})
        await finished(client.embed_jobs.get("j-1"), is_async)
        told = watched.one()
        assert (told["gen_ai.operation.name"], told["gen_ai.usage.input_tokens"]) == ("embeddings", 700)
        assert "costspan.service_tier" not in told


# ---------------------------------------------------------------- recorded


def expected(exchange: dict[str, Any]) -> dict[str, Any]:
    """What the provider says is billed, as the span names it."""
    units = (exchange["usage"] or {}).get("billed_units") or {}
    names = {"input_tokens": "input_tokens", "output_tokens": "output_tokens", "search_units": "rerank_searches"}
    return {names[unit]: count for unit, count in units.items() if unit in names}


@pytest.mark.parametrize(
    "exchange",
    exchanges("cohere.tokenize_v1", "cohere.transcription", "cohere.embed", "cohere.rerank", "cohere.rerank_v1"),
    ids=lambda exchange: exchange["id"],
)
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    response, sent = exchange["response"], exchange["request"]["body"]
    status, api = response["status"], exchange["api"]
    with replying(lambda *_: response["body"] if status == 200 else Refusal(status, response["body"])) as server:
        client = a_client(server, version="" if api.endswith("_v1") or api == "cohere.transcription" else "V2")
        match api:
            case "cohere.tokenize_v1":
                client.tokenize(text=sent["text"], model=sent["model"], offline=False)
                assert watched.spans() == []
                return
            case "cohere.transcription":
                if not hasattr(client, "audio"):
                    pytest.skip("this version has no audio")
                client.audio.transcriptions.create(model="cohere-transcribe-03-2026", language="en", file=b"RIFF")
            case "cohere.embed":
                ask = {"model": sent["model"], "input_type": sent["input_type"], "embedding_types": ["float"]}
                if status == 200:
                    client.embed(texts=sent["texts"], **ask)
                else:
                    with pytest.raises(pytest.importorskip("cohere.errors").NotFoundError):
                        client.embed(texts=sent["texts"], **ask)
            case _:
                client.rerank(
                    query=sent["query"], documents=sent["documents"], model=sent.get("model") or "rerank-v3.5"
                )
    assert watched.usage() == expected(exchange)
