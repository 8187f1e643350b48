"""What Azure's models bill -> what the span says and what it costs, on the real SDK over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.azure_ai import AZURE_AI
from costspan_pricing import PriceBook
from costspan_processor import Processing
from costspan_processor.enrich import enrich

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

AT = 1_795_824_000_000_000_000  # 2026-11-28
ASK: Any = {"model": "DeepSeek-V4-Pro", "messages": [{"role": "user", "content": "Say something about bridges"}]}
USAGE: dict[str, Any] = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
COUNTS = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "cache_read.input_tokens": 600,
    "reasoning.output_tokens": 40,
}
WHO: dict[str, Any] = {"id": "a-1", "created": 1, "model": "DeepSeek-V4-Pro"}
SAYS: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "They carry."}, "finish_reason": "stop"}


def stream(*texts: str, usage: bool) -> str:
    head = {**WHO, "object": "chat.completion.chunk"}
    parts: list[dict[str, Any]] = [{"index": 0, "delta": {"content": t}, "finish_reason": None} for t in texts]
    parts[-1]["finish_reason"] = "stop"
    events: list[dict[str, Any]] = [{**head, "choices": [part]} for part in parts]
    # What Azure filters comes first, in a chunk that the SDK keeps to itself.
    events.insert(0, {**head, "choices": [], "prompt_filter_results": []})
    events += [{**head, "choices": [], "usage": USAGE}] if usage else []
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def reply(path: str, body: dict[str, Any]) -> Any:
    if body.get("model") == "nonexistent":
        return Refusal(404, {"error": {"code": "unknown_model", "message": "Unknown model: nonexistent"}})
    if "embeddings" in path:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        return {"id": "e", "object": "list", "data": data, "model": body["model"], "usage": usage}
    if body.get("stream"):
        return stream("They ", "carry ", "us.", usage="stream_options" in body)
    return {**WHO, "object": "chat.completion", "choices": [SAYS], "usage": USAGE}


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("azure.ai.inference")
    with watching(AZURE_AI) as watched:
        yield watched


def a_client(server: Asked, is_async: bool = False, kind: str = "ChatCompletionsClient", **options: Any) -> Any:
    sdk = pytest.importorskip("azure.ai.inference.aio" if is_async else "azure.ai.inference")
    credential = pytest.importorskip("azure.core.credentials").AzureKeyCredential("k")
    return getattr(sdk, kind)(server.url, credential, retry_total=0, **options)


async def closed(client: Any, is_async: bool) -> None:
    await finished(client.close(), is_async)


TELL = {"stream_options": {"include_usage": True}}


@both
async def test_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    answer = await finished(client.complete(**ASK, max_tokens=9, seed=7), is_async)
    await closed(client, is_async)
    assert answer.choices[0].message.content == "They carry."
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.inference",
        "gen_ai.request.model": "DeepSeek-V4-Pro",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": "a-1",
        "gen_ai.response.model": "DeepSeek-V4-Pro",
        "gen_ai.response.finish_reasons": ("stop",),
        **{f"gen_ai.usage.{name}": count for name, count in COUNTS.items()},
    }
    # 400 at $1.74, 600 from the cache at $0.145, 100 at $3.48 a million.
    cost = enrich(told, AT, PriceBook.bundled())["costspan.cost.total"]
    assert cost == pytest.approx((400 * 1.74 + 600 * 0.145 + 100 * 3.48) / 1e6)


@both
async def test_a_stream_that_was_asked_for_its_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    chunks = await finished(client.complete(**ASK, stream=True, model_extras=TELL), is_async)
    assert [len(chunk.choices) for chunk in await items(chunks, is_async)] == [1, 1, 1, 0]
    await closed(client, is_async)
    told = watched.one()
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert {name: told[f"gen_ai.usage.{name}"] for name in COUNTS} == COUNTS
    assert "costspan.usage.estimated" not in told


@both
async def test_another_stream_is_estimated(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async)
    chunks = await items(await finished(client.complete(**ASK, stream=True), is_async), is_async)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["They ", "carry ", "us."]
    await closed(client, is_async)
    # "Say something about bridges" and "They carry us.", four characters a token.
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 4, "estimated": True}
    assert "stream_options" not in server.requests[0][1]


@both
@pytest.mark.parametrize("how", ["close", "with"])
async def test_an_abandoned_stream_ends_its_span(server: Asked, watched: Watched, is_async: bool, how: str) -> None:
    client = a_client(server, is_async)
    chunks = await finished(client.complete(**ASK, stream=True, model_extras=TELL), is_async)
    if how == "with" and not hasattr(chunks, "__aenter__" if is_async else "__enter__"):
        pytest.skip("this version's streams have no such block")
    if is_async and how == "with":
        async with chunks:
            await chunks.__anext__()
    elif is_async:
        await chunks.__anext__()
        await chunks.aclose()
    elif how == "with":
        with chunks:
            next(chunks)
    else:
        next(chunks)
        chunks.close()
    assert watched.usage() == {"input_tokens": 7, "output_tokens": 2, "estimated": True}
    await closed(client, is_async)


@both
async def test_what_the_client_was_given_holds_for_its_calls(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async, model="DeepSeek-V4-Pro", temperature=0.5, max_tokens=5)
    await finished(client.complete(messages=ASK["messages"], max_tokens=9), is_async)
    told = watched.one()
    assert told["gen_ai.request.model"] == "DeepSeek-V4-Pro"
    assert (told["gen_ai.request.temperature"], told["gen_ai.request.max_tokens"]) == (0.5, 9)
    # A body is sent as it is.
    for body in ({**ASK, "top_p": 0.5}, json.dumps({**ASK, "top_p": 0.5}).encode()):
        await finished(client.complete(body), is_async)
        told = watched.one()
        assert (told["gen_ai.request.model"], told["gen_ai.request.top_p"]) == ("DeepSeek-V4-Pro", 0.5)
        assert "gen_ai.request.temperature" not in told
    await closed(client, is_async)


def test_messages_of_the_sdk_are_measured_for_an_estimate(server: Asked, watched: Watched) -> None:
    models = pytest.importorskip("azure.ai.inference.models")
    message = models.UserMessage("Say something about bridges")
    list(a_client(server).complete(model="m", messages=[message], stream=True))
    assert watched.usage()["input_tokens"] == 7


@both
async def test_an_error_bills_nothing(server: Asked, watched: Watched, is_async: bool) -> None:
    errors = pytest.importorskip("azure.core.exceptions")
    client = a_client(server, is_async)
    with pytest.raises(errors.ResourceNotFoundError):
        await finished(client.complete(**{**ASK, "model": "nonexistent"}), is_async)
    await closed(client, is_async)
    told = watched.one()
    assert told["error.type"] == "ResourceNotFoundError"
    assert not [key for key in told if ".usage." in key]


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server, is_async, "EmbeddingsClient", dimensions=256)
    await finished(client.embed(model="embed-v-4-0", input=["bridges"]), is_async)
    await closed(client, is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "embed-v-4-0"
    assert told["gen_ai.embeddings.dimension.count"] == 256
    assert told["gen_ai.usage.input_tokens"] == 7
    assert "gen_ai.usage.output_tokens" not in told


@both
@pytest.mark.parametrize(
    ("text", "counts"),
    [(None, {"input_tokens": 7, "image.input_tokens": 7}), ("a bridge", {"input_tokens": 7})],
    ids=["an image", "an image and text"],
)
async def test_image_embeddings(
    server: Asked, watched: Watched, is_async: bool, text: str | None, counts: dict[str, int]
) -> None:
    models = pytest.importorskip("azure.ai.inference.models")
    client = a_client(server, is_async, "ImageEmbeddingsClient")
    picture = models.ImageEmbeddingInput(image="data:image/png;base64,AA==", text=text)
    await finished(client.embed(model="embed-v-4-0", input=[picture]), is_async)
    await closed(client, is_async)
    assert watched.usage() == counts


# ---------------------------------------------------------------- the SDK's own spans


def reply_for_tracing(path: str, body: dict[str, Any]) -> Any:
    """The SDK's own spans break an asynchronous stream at a chunk without choices, so the last one has both."""
    answer = reply(path, body)
    if not isinstance(answer, str):
        return answer
    *events, last, told, done, _ = answer.split("\n\n")
    whole = {**json.loads(last.removeprefix("data: ")), "usage": json.loads(told.removeprefix("data: "))["usage"]}
    return "\n\n".join([*events, f"data: {json.dumps(whole)}", done, ""])


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The SDK's own instrumentor, where the plug-in that it needs is installed."""
    pytest.importorskip("azure.core.tracing.ext.opentelemetry_span")
    instrumentor = pytest.importorskip("azure.ai.inference.tracing").AIInferenceInstrumentor()
    settings = pytest.importorskip("azure.core.settings").settings
    for module in ("azure.ai.inference", "azure.ai.inference.aio"):
        client = pytest.importorskip(module).ChatCompletionsClient
        # It gives back another object than it took, which nobody would know again.
        monkeypatch.setattr(client, "complete", vars(client)["complete"])
    settings.tracing_implementation = "opentelemetry"
    yield instrumentor
    instrumentor.uninstrument()
    settings.tracing_implementation.unset_value()


@both
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("first", ["theirs", "ours"])
async def test_what_the_sdk_records_itself_is_not_counted_again(
    tracing: Any, monkeypatch: pytest.MonkeyPatch, is_async: bool, streamed: bool, first: str
) -> None:
    if first == "theirs":
        tracing.instrument()
    with replying(reply_for_tracing) as server, watching(AZURE_AI) as watched:
        monkeypatch.setattr("opentelemetry.trace.get_tracer", lambda *_, **__: watched.traces.get_tracer("azure"))
        processing = Processing(watched.traces, counted=watched.engine.has_counted)
        processing.start()
        watched.engine.start(watched.traces.get_tracer("costspan"), processing.observer)
        tracing.instrument()
        client = a_client(server, is_async)
        answer = await finished(client.complete(**ASK, stream=streamed, model_extras=TELL), is_async)
        if streamed:
            assert len(await items(answer, is_async)) == 3
        await closed(client, is_async)
        processing.shutdown()
        spans = watched.spans()
    (counted,) = (span for span in spans if "costspan.cost.status" in (span.attributes or {}))
    assert counted.instrumentation_scope is not None
    # A stream is theirs alone.
    assert counted.instrumentation_scope.name == ("azure" if streamed else "costspan")
    told = counted.attributes or {}
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1000, 100)
    assert told["costspan.cost.status"] == "priced"
    repeated = [s.attributes or {} for s in spans if s is not counted and "gen_ai.system" in (s.attributes or {})]
    assert [attributes.get("costspan.rollup") for attributes in repeated] == ([] if streamed else [True])


@both
async def test_an_instrumentor_that_can_make_no_span_leaves_streams_to_us(
    server: Asked, watched: Watched, tracing: Any, is_async: bool
) -> None:
    pytest.importorskip("azure.core.settings").settings.tracing_implementation.unset_value()
    tracing.instrument()
    client = a_client(server, is_async)
    await items(await finished(client.complete(**ASK, stream=True, model_extras=TELL), is_async), is_async)
    await closed(client, is_async)
    assert watched.usage() == COUNTS


@both
@pytest.mark.parametrize(
    "exchange", exchanges("azure_ai.chat", "azure_ai.embeddings"), ids=lambda exchange: exchange["id"]
)
async def test_recorded_exchanges(watched: Watched, exchange: dict[str, Any], is_async: bool) -> None:
    errors = pytest.importorskip("azure.core.exceptions")
    body, status = exchange["response"]["body"], exchange["response"]["status"]
    is_chat = exchange["api"] == "azure_ai.chat"
    with replying(lambda *_: Refusal(status, body) if status >= 400 else body) as server:
        client = a_client(server, is_async, "ChatCompletionsClient" if is_chat else "EmbeddingsClient")
        method = client.complete if is_chat else client.embed
        if status >= 400:
            with pytest.raises(errors.HttpResponseError):
                await finished(method(exchange["request"]["body"]), is_async)
        else:
            answer = await finished(method(exchange["request"]["body"]), is_async)
            if exchange["stream"]:
                await items(answer, is_async)
        await closed(client, is_async)
    told, usage = watched.one(), exchange["usage"]
    assert told["gen_ai.request.model"] == exchange["request"]["body"]["model"]
    if status >= 400:
        assert told["error.type"]
        assert not [key for key in told if ".usage." in key]
        return
    assert "costspan.usage.estimated" not in told
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told.get("gen_ai.usage.output_tokens") == (usage["completion_tokens"] if is_chat else None)
    for part, name, of in (
        ("prompt", "cached_tokens", "cache_read.input_tokens"),
        ("completion", "reasoning_tokens", "reasoning.output_tokens"),
    ):
        details = usage.get(f"{part}_tokens_details") or {}
        assert told.get(f"gen_ai.usage.{of}") == (details.get(name) or None)
