"""What Bedrock reports -> what the span says, on boto3 and aiobotocore over real HTTP."""

from __future__ import annotations

import asyncio
import gc
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from costspan_instrumentation.providers.bedrock import BEDROCK, OPERATIONS
from costspan_instrumentation.providers.bedrock.counts import converse_usage, invoke_usage
from costspan_pricing import PICO, PriceBook
from costspan_processor.enrich import price

from .bedrock_server import Bedrock, native, serving
from .recorded import exchanges
from .watched import Watched, finished, items, watching

boto3 = pytest.importorskip("boto3")
botocore = pytest.importorskip("botocore")
aio = pytest.importorskip("aiobotocore.session")
Config, AioConfig = botocore.config.Config, pytest.importorskip("aiobotocore.config").AioConfig

both = pytest.mark.parametrize("is_async", [False, True], ids=["boto3", "aiobotocore"])
KEYS = {"region_name": "eu-west-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
ONCE: Any = {"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}}
ASK: Any = [{"role": "user", "content": [{"text": "Say something about bridges"}]}]
ANSWER: Any = {"message": {"role": "assistant", "content": [{"text": "They span"}]}}
HEADERS = {"x-amzn-bedrock-input-token-count": "6", "x-amzn-bedrock-output-token-count": "10"}


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Bedrock, dict[str, Any]]]:
    """The server, and a client of boto3 for every service: to make one takes longer than a test."""
    with serving() as server:
        names = {"bedrock-runtime", "bedrock-agent-runtime", "s3"} & set(boto3.Session().get_available_services())
        config = Config(**ONCE)
        yield server, {name: boto3.client(name, endpoint_url=server.url, config=config, **KEYS) for name in names}


@pytest.fixture
def server(clients: tuple[Bedrock, dict[str, Any]]) -> Bedrock:
    clients[0].asked.clear()
    return clients[0]


@pytest.fixture
def sync(clients: tuple[Bedrock, dict[str, Any]]) -> Any:
    return clients[1]["bedrock-runtime"]


@pytest.fixture
def seen() -> Iterator[Watched]:
    with watching(BEDROCK) as watched:
        yield watched


@pytest.fixture
def client(clients: tuple[Bedrock, dict[str, Any]]) -> Callable[..., Any]:
    """Makes a client of either SDK for a service."""
    server, made = clients

    @asynccontextmanager
    async def client(is_async: bool, service: str = "bedrock-runtime") -> AsyncIterator[Any]:
        if service not in made:
            pytest.skip("this version does not know the service")
        if not is_async:
            yield made[service]
            return
        config = AioConfig(**ONCE)
        async with aio.get_session().create_client(service, endpoint_url=server.url, config=config, **KEYS) as theirs:
            yield theirs

    return client


def knows(client: Any, operation: str, *fields: str) -> None:
    """Skips a test of what this version of the SDK does not know: it refuses to send it, and drops it from answers."""
    model = client.meta.service_model
    if operation not in model.operation_names:
        pytest.skip("this version does not know the operation")
    shapes = model.operation_model(operation)
    known = {*shapes.input_shape.members, *shapes.output_shape.members}
    known |= {name for shape in shapes.output_shape.members.values() for name in getattr(shape, "members", ())}
    if not known.issuperset(fields):
        pytest.skip("this version does not know the field")


async def let_go() -> None:
    """Time for what was left to be closed: by the collector, and by the event loop."""
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)


def invoke(client: Any, model: str = "anthropic.claude-haiku-4-5-20251001-v1:0", body: Any = None, **more: Any) -> Any:
    """A call with a body in the form of whoever made the model."""
    body = {"messages": [{"role": "user", "content": "Say something"}]} if body is None else body
    return client.invoke_model(modelId=model, body=json.dumps(body), **more)


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15},
            {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5},
            id="plain",
        ),
        pytest.param(
            # Bedrock's input excludes what was read from or written to a cache; the span's total contains it.
            {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 30},
            {
                "gen_ai.usage.input_tokens": 140,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.usage.cache_read.input_tokens": 100,
                "gen_ai.usage.cache_write.input_tokens": 30,
            },
            id="cache",
        ),
        pytest.param(
            {
                "inputTokens": 10,
                "outputTokens": 5,
                "cacheWriteInputTokens": 30,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}],
            },
            {
                "gen_ai.usage.input_tokens": 40,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.usage.cache_write.input_tokens": 30,
                "costspan.usage.cache_write_1h": 20,
                "costspan.usage.cache_write_5m": 10,
            },
            id="cache writes by their lifetime",
        ),
        pytest.param(
            {"inputTokens": 10, "outputTokens": 5, "cacheDetails": [{"ttl": "1h", "inputTokens": 20}]},
            {
                "gen_ai.usage.input_tokens": 30,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.usage.cache_write.input_tokens": 20,
                "costspan.usage.cache_write_1h": 20,
            },
            id="cache writes told by their lifetime alone",
        ),
        pytest.param(
            {"inputTokens": 6, "outputTokens": 3, "cacheReadInputTokenCount": 900, "cacheWriteInputTokenCount": 0},
            {
                "gen_ai.usage.input_tokens": 906,
                "gen_ai.usage.output_tokens": 3,
                "gen_ai.usage.cache_read.input_tokens": 900,
            },
            id="the other spelling",
        ),
        pytest.param(
            {"inputTokens": 10, "cacheReadInputTokens": -1, "outputTokens": "many"},
            {
                "gen_ai.usage.input_tokens": -1,
                "gen_ai.usage.output_tokens": "many",
                "gen_ai.usage.cache_read.input_tokens": -1,
            },
            id="what cannot be is passed on",
        ),
        pytest.param({"cacheDetails": [], "serverToolUsage": {}}, {}, id="nothing is not zero"),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage_of_a_conversation(usage: Any, attributes: dict[str, Any]) -> None:
    assert converse_usage(usage) == attributes


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        pytest.param({"input_tokens": 3, "cache_read_input_tokens": 50, "output_tokens": 9}, (53, 9), id="Claude"),
        pytest.param(
            # The first count is that of the model, which tells of the cache; the metrics were some 30 tokens short.
            {"input_tokens": 702, "output_tokens": 130, "inputTokenCount": 702, "outputTokenCount": 98},
            (702, 130),
            id="Claude with metrics",
        ),
        pytest.param({"inputTokens": 30, "x-amzn-bedrock-output-token-count": "51"}, (30, 51), id="Nova with headers"),
        pytest.param({"prompt_token_count": 5, "generation_token_count": 10}, (5, 10), id="Llama"),
        pytest.param({"inputTextTokenCount": 6.0, "totalOutputTextTokenCount": 3.0}, (6, 3), id="Titan, streamed"),
        pytest.param({"inputTextTokenCount": 6, "results": [{"tokenCount": 3}, {"tokenCount": 4}]}, (6, 7), id="Titan"),
        pytest.param({"inputTextTokenCount": 6}, (6, None), id="Titan embeddings"),
        pytest.param({"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}, (4, 2), id="Jamba"),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
            (9, 2),
            id="the cache is in OpenAI's input",
        ),
        pytest.param(HEADERS, (6, 10), id="headers alone"),
        pytest.param(
            {**HEADERS, "x-amzn-bedrock-cache-read-input-token-count": "4"}, (10, 10), id="headers of a cache"
        ),
        pytest.param({"results": [{"index": 1, "relevance_score": 0.5}]}, (None, None), id="scores"),
        pytest.param({}, (None, None), id="nothing"),
    ],
)
def test_usage_of_a_native_answer(usage: Any, tokens: tuple[int | None, int | None]) -> None:
    told = invoke_usage(usage)
    assert (told.get("gen_ai.usage.input_tokens"), told.get("gen_ai.usage.output_tokens")) == tokens


def test_every_recorded_usage_is_read() -> None:
    assert set(BEDROCK.usage_formats) == {"bedrock.converse", "bedrock.invoke_model"}
    for api, read in BEDROCK.usage_formats.items():
        for exchange in exchanges(api, f"{api}_stream"):
            assert ("gen_ai.usage.input_tokens" in read(exchange["usage"])) == (exchange["usage"] is not None)


# ---------------------------------------------------------------- converse


@both
async def test_a_conversation(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 45, "cacheWriteInputTokens": 30}
    server.replies({"output": ANSWER, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 9}})
    async with client(is_async) as bedrock:
        knows(bedrock, "Converse", "cacheWriteInputTokens")
        answer = await finished(
            bedrock.converse(
                modelId="eu.amazon.nova-lite-v1:0",
                messages=ASK,
                inferenceConfig={"maxTokens": 50, "temperature": 0.5, "stopSequences": ["."]},
                additionalModelRequestFields={"top_k": 3},
                guardrailConfig={"guardrailIdentifier": "g1", "guardrailVersion": "1"},
            ),
            is_async,
        )
    assert answer["output"] == ANSWER
    (span,) = seen.spans()
    assert span.name == "chat eu.amazon.nova-lite-v1:0"
    told = dict(span.attributes or {})
    port = told.pop("server.port")
    assert f"http://{told.pop('server.address')}:{port}" == server.url
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": "eu.amazon.nova-lite-v1:0",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 3,
        "gen_ai.request.stop_sequences": (".",),
        "aws.bedrock.guardrail.id": "g1",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 30,
    }


def test_the_host_names_the_region(seen: Watched) -> None:
    client = boto3.client("bedrock-runtime", config=Config(**ONCE), **KEYS)
    client.meta.events.register("before-send", lambda **_: botocore.awsrequest.AWSResponse("", 503, {}, io.BytesIO()))
    with suppress(botocore.exceptions.ClientError, AttributeError):
        client.invoke_model(modelId="meta.llama3-8b-instruct-v1:0", body="{}")
    assert seen.one()["server.address"] == "bedrock-runtime.eu-west-1.amazonaws.com"


STARTS = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hmm. "}}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "They span"}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"a":1}'}}}),
]
ENDS = [
    ("messageStop", {"stopReason": "end_turn"}),
    # The SDK drops the counts that it has no name for, and those of a service newer than itself.
    ("metadata", {"usage": {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12, "cacheReadInputTokenCount": 50}}),
]


@both
async def test_a_streamed_conversation(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies(events=[*STARTS, *ENDS])
    async with client(is_async) as bedrock:
        knows(bedrock, "ConverseStream")
        answer = await finished(bedrock.converse_stream(modelId="amazon.nova-lite-v1:0", messages=ASK), is_async)
        assert type(answer["stream"]).__name__.endswith("EventStream")
        assert not seen.spans()
        events = await items(answer["stream"], is_async)
    assert [next(iter(event)) for event in events] == [kind for kind, _ in [*STARTS, *ENDS]]
    told = seen.one()
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"] == ("end_turn",)
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert told["gen_ai.usage.input_tokens"] == 53
    assert told["gen_ai.usage.cache_read.input_tokens"] == 50
    assert told["gen_ai.usage.output_tokens"] == 9
    assert "costspan.usage.estimated" not in told


async def begun(stream: Any, is_async: bool, count: int) -> None:
    """Takes so many events and no more."""
    if is_async:
        async for _ in stream:
            count -= 1
            if not count:
                break
    else:
        for _ in range(count):
            next(iter(stream))


@both
@pytest.mark.parametrize("how", ["left", "closed", "cut", "error"])
async def test_a_stream_that_never_tells_is_an_estimate(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, how: str
) -> None:
    error = ("exception:throttlingException", {"message": "Slow down"})
    server.replies(events=[*STARTS, *([error] if how == "error" else ENDS)], cut=4 if how == "cut" else None)
    async with client(is_async) as bedrock:
        knows(bedrock, "ConverseStream")
        answer = await finished(bedrock.converse_stream(modelId="amazon.nova-lite-v1:0", messages=ASK), is_async)
        raised = None
        try:
            if how in {"cut", "error"}:
                await items(answer["stream"], is_async)
            else:
                await begun(answer["stream"], is_async, len(STARTS))
        except Exception as failure:
            raised = type(failure).__qualname__
        if how == "closed":
            answer["stream"].close()
        del answer
        await let_go()
        told = seen.one()
    assert (how != "error") or raised == "EventStreamError"
    assert told.get("error.type") == raised
    # 5 + 9 + 7 characters were written, and the prompt has 27 of them.
    assert told["gen_ai.usage.output_tokens"] == 6
    assert told["gen_ai.usage.input_tokens"] == 7
    assert told["costspan.usage.estimated"] is True


async def test_a_stream_that_nobody_reads_is_one_call_without_usage(server: Bedrock, seen: Watched, sync: Any) -> None:
    knows(sync, "ConverseStream")
    server.replies(events=[*STARTS, *ENDS])
    sync.converse_stream(modelId="amazon.nova-lite-v1:0", messages=ASK)
    sync.converse_stream(modelId="amazon.nova-lite-v1:0", messages=ASK)["stream"].close()
    spans = seen.spans()
    assert len(spans) == 2
    assert not [key for span in spans for key in span.attributes or {} if "usage" in key]


@pytest.mark.parametrize(
    ("asked", "answered", "tier"),
    [
        pytest.param({}, {}, None, id="neither says"),
        pytest.param({"serviceTier": {"type": "priority"}}, {}, "priority", id="asked for"),
        pytest.param({"serviceTier": {"type": "flex"}}, {"serviceTier": {"type": "default"}}, "default", id="served"),
        pytest.param({}, {"serviceTier": {"type": "flex"}}, "flex", id="served unasked"),
        pytest.param({"performanceConfig": {"latency": "optimized"}}, {}, "optimized", id="faster machines"),
        pytest.param(
            {"performanceConfig": {"latency": "optimized"}},
            {"performanceConfig": {"latency": "standard"}, "serviceTier": {"type": "default"}},
            "default",
            id="faster machines had no room",
        ),
        pytest.param(
            {}, {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "default"}}, "optimized",
            id="both",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_the_tier_that_was_served(
    server: Bedrock, seen: Watched, sync: Any, asked: Any, answered: Any, tier: str | None, streamed: bool
) -> None:
    usage = {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12}
    # A stream is read as it was sent.
    knows(sync, "ConverseStream" if streamed else "Converse", *asked, *(() if streamed else answered))
    if streamed:
        server.replies(events=[*STARTS, ("metadata", {"usage": usage, **answered})])
        list(sync.converse_stream(modelId="amazon.nova-pro-v1:0", messages=ASK, **asked)["stream"])
    else:
        server.replies({"output": ANSWER, "stopReason": "end_turn", "usage": usage, **answered})
        sync.converse(modelId="amazon.nova-pro-v1:0", messages=ASK, **asked)
    assert seen.one().get("costspan.service_tier") == tier


def test_a_prompt_router_says_which_model_it_took(server: Bedrock, seen: Watched, sync: Any) -> None:
    model = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-5-sonnet-20240620-v1:0"
    trace = {"promptRouter": {"invokedModelId": model}}
    knows(sync, "Converse", "promptRouter")
    server.replies({"output": ANSWER, "stopReason": "end_turn", "usage": {"inputTokens": 1}, "trace": trace})
    sync.converse(modelId="arn:aws:bedrock:us-east-1:1:default-prompt-router/anthropic.claude:1", messages=ASK)
    assert seen.one()["gen_ai.response.model"] == model


@both
async def test_an_error_status(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies(
        {"message": "Too many requests"}, status=429, headers={"x-amzn-errortype": "ThrottlingException:http://x/"}
    )
    async with client(is_async) as bedrock:
        with pytest.raises(bedrock.exceptions.ThrottlingException):
            await finished(invoke(bedrock), is_async)
    told = seen.one()
    assert told["error.type"] == "ThrottlingException"
    assert not [key for key in told if "usage" in key]


def test_retries_inside_the_sdk_are_one_call(server: Bedrock, seen: Watched) -> None:
    twice = Config(retries={"total_max_attempts": 2})
    client = boto3.client("bedrock-runtime", endpoint_url=server.url, config=twice, **KEYS)
    server.replies({"message": "Too many requests"}, status=429)
    with pytest.raises(botocore.exceptions.ClientError):
        invoke(client)
    assert len(server.asked) == 2
    assert seen.one()["error.type"]


# ---------------------------------------------------------------- invoke

CLAUDE = {
    "id": "msg_1",
    "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "They span " * 300}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 9,
    },
}
PROMPT = {"prompt": "Say something"}
TALK = {"messages": [{"role": "user", "content": "Say something"}]}
FAMILIES: list[Any] = [
    ("us.anthropic.claude-haiku-4-5-20251001-v1:0", {**TALK, "max_tokens": 7}, CLAUDE, {}, "chat", (33, 9)),
    (
        "amazon.nova-micro-v1:0",
        {**TALK, "inferenceConfig": {"max_new_tokens": 7}},
        {"output": {}, "stopReason": "end_turn", "usage": {"inputTokens": 5, "outputTokens": 10}},
        {},
        "chat",
        (5, 10),
    ),
    (
        "amazon.titan-text-express-v1",
        {"inputText": "Say something", "textGenerationConfig": {"maxTokenCount": 7}},
        {"inputTextTokenCount": 4, "results": [{"tokenCount": 2, "outputText": "It", "completionReason": "FINISH"}]},
        {},
        "text_completion",
        (4, 2),
    ),
    ("amazon.titan-embed-text-v1", {"inputText": "Say"}, {"embedding": [0.1], "inputTextTokenCount": 3}, {},
     "embeddings", (3, None)),
    ("cohere.embed-english-v3", {"texts": ["a"], "input_type": "search_query"}, {"embeddings": [[0.1]]},
     {"x-amzn-bedrock-input-token-count": "2"}, "embeddings", (2, None)),
    (
        "meta.llama3-8b-instruct-v1:0",
        {**PROMPT, "max_gen_len": 7},
        {"generation": "It", "prompt_token_count": 5, "generation_token_count": 1, "stop_reason": "stop"},
        HEADERS,
        "text_completion",
        (5, 1),
    ),
    ("mistral.mistral-7b-instruct-v0:2", {**PROMPT, "max_tokens": 7},
     {"outputs": [{"text": "It", "stop_reason": "stop"}]}, HEADERS, "text_completion", (6, 10)),
    ("cohere.command-light-text-v14", {**PROMPT, "max_tokens": 7},
     {"id": "c1", "generations": [{"text": "It", "finish_reason": "COMPLETE"}]}, HEADERS, "text_completion", (6, 10)),
    ("cohere.command-r-v1:0", {"message": "Say", "max_tokens": 7}, {"text": "It", "finish_reason": "COMPLETE"}, HEADERS,
     "chat", (6, 10)),
    ("ai21.j2-ultra-v1", {**PROMPT, "maxTokens": 7},
     {"id": 1234, "completions": [{"finishReason": {"reason": "endoftext"}}]}, HEADERS, "text_completion", (6, 10)),
    (
        "ai21.jamba-1-5-mini-v1:0",
        {**TALK, "max_tokens": 7},
        {"id": "j1", "choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
        HEADERS,
        "chat",
        (4, 2),
    ),
    ("us.deepseek.r1-v1:0", {**PROMPT, "max_tokens": 7}, {"choices": [{"text": "It", "stop_reason": "stop"}]}, HEADERS,
     "text_completion", (6, 10)),
]  # fmt: skip


@both
@pytest.mark.parametrize(("model", "body", "answer", "headers", "operation", "tokens"), FAMILIES)
async def test_every_family_of_models(
    server: Bedrock, seen: Watched, client: Any, is_async: bool,
    model: str, body: Any, answer: Any, headers: Any, operation: str, tokens: Any,
) -> None:  # fmt: skip
    server.replies(answer, headers=headers)
    async with client(is_async) as bedrock:
        result = await finished(invoke(bedrock, model, body), is_async)
        assert not seen.spans()
        assert json.loads(await finished(result["body"].read(), is_async)) == answer
    told = seen.one()
    assert told["gen_ai.operation.name"] == operation
    assert told["gen_ai.request.model"] == model
    assert told.get("gen_ai.request.max_tokens") == (None if operation == "embeddings" else 7)
    assert (told.get("gen_ai.usage.input_tokens"), told.get("gen_ai.usage.output_tokens")) == tokens
    assert ("gen_ai.response.finish_reasons" in told) == (operation != "embeddings")
    # The name in the body is not the one that Bedrock has a price for.
    assert "gen_ai.response.model" not in told


def test_what_stands_beside_the_body(server: Bedrock, seen: Watched, sync: Any) -> None:
    knows(sync, "InvokeModel", "serviceTier")
    headers = {"X-Amzn-Bedrock-PerformanceConfig-Latency": "standard", "X-Amzn-Bedrock-Service-Tier": "flex"}
    server.replies(CLAUDE, headers=headers)
    invoke(sync, guardrailIdentifier="g1", guardrailVersion="1", serviceTier="priority")["body"].read()
    told = seen.one()
    assert told["aws.bedrock.guardrail.id"] == "g1"
    assert told["costspan.service_tier"] == "flex"
    assert told["costspan.usage.cache_write_1h"] == 20
    assert told["gen_ai.response.id"] == "msg_1"


def in_parts(body: Any) -> None:
    while body.read(100):
        pass


def into_a_buffer(body: Any) -> None:
    while body.readinto(bytearray(100)):
        pass


def from_inside(body: Any) -> None:
    with body as stream:
        json.load(stream)


def from_outside(body: Any) -> None:
    with body:
        body.read()


@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.read(),
        lambda body: body.read(amt=None),
        lambda body: body.read(-1) if hasattr(body, "readinto") else body.read(),
        json.load,
        list,
        in_parts,
        into_a_buffer,
        from_inside,
        from_outside,
        lambda body: list(body.iter_lines()),
        lambda body: list(body.iter_chunks(64)),
        lambda body: [body.read(0), body.read(10), body.read()],
    ],
)
def test_a_body_is_read_in_any_way(server: Bedrock, seen: Watched, sync: Any, read: Callable[[Any], Any]) -> None:
    server.replies(CLAUDE)
    body = invoke(sync)["body"]
    assert type(body) is botocore.response.StreamingBody
    if read is into_a_buffer and not hasattr(body, "readinto"):
        pytest.skip("this version cannot")
    read(body)
    usage = seen.usage()
    assert usage["input_tokens"] == 33
    assert usage["cache_write_1h"] == 20


def test_a_body_that_nobody_holds_is_read(server: Bedrock, seen: Watched, sync: Any) -> None:
    server.replies(CLAUDE)
    assert json.loads(invoke(sync)["body"].read()) == CLAUDE
    assert seen.usage()["output_tokens"] == 9


async def entered(body: Any) -> None:
    async with body as stream:
        await stream.read()


async def awaited_in_parts(body: Any) -> None:
    while await body.read(100):
        pass


async def in_lines(body: Any) -> None:
    _ = [line async for line in body.iter_lines()]


async def in_chunks(body: Any) -> None:
    _ = [chunk async for chunk in body.iter_chunks(64)]


@pytest.mark.parametrize("read", [entered, awaited_in_parts, in_lines, in_chunks])
async def test_an_async_body_is_read_in_any_way(server: Bedrock, seen: Watched, client: Any, read: Any) -> None:
    server.replies(CLAUDE)
    async with client(True) as bedrock:
        await read((await invoke(bedrock))["body"])
        assert seen.usage()["cache_write_1h"] == 20


@both
@pytest.mark.parametrize("how", ["never", "half", "closed", "cut"])
async def test_a_body_that_is_not_read_to_its_end_counts_by_its_headers(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, how: str
) -> None:
    server.replies(CLAUDE, headers=HEADERS, cut=100 if how == "cut" else None)
    raised = None
    async with client(is_async) as bedrock:
        answer = await finished(invoke(bedrock), is_async)
        if how == "cut":
            with pytest.raises(Exception) as caught:  # of each SDK, and each version of it, its own
                await finished(answer["body"].read(), is_async)
            raised = caught.type.__qualname__
        elif how != "never":
            await finished(answer["body"].read(10), is_async)
        if how == "closed":
            answer["body"].close()
        del answer
        await let_go()
        told = seen.one()
    assert told.get("error.type") == raised
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (6, 10)
    assert "costspan.usage.estimated" not in told


@both
async def test_a_body_that_is_no_json(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies(b"no json", headers=HEADERS)
    async with client(is_async) as bedrock:
        answer = await finished(bedrock.invoke_model(modelId="a.marketplace-model", body=b"\x00\x01"), is_async)
        assert await finished(answer["body"].read(), is_async) == b"no json"
    assert seen.usage() == {"input_tokens": 6, "output_tokens": 10}


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 5, "outputTokenCount": 8}}
STREAMS: list[Any] = [
    pytest.param(
        [
            {"type": "message_start", "message": {"usage": {**CLAUDE["usage"], "output_tokens": 1}}},  # type: ignore[dict-item]
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "They span"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
            {"type": "message_stop", **METRICS},
        ],
        (33, 9, 1),
        id="Claude",
    ),
    pytest.param(
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "They span"}, "contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 5, "outputTokens": 8, "cacheReadInputTokenCount": 4}}, **METRICS},
        ],
        (9, 8, None),
        id="Nova",
    ),
    pytest.param(
        [
            {"outputText": "They span", "totalOutputTextTokenCount": None, "inputTextTokenCount": 5},
            {"outputText": "", "totalOutputTextTokenCount": 8, "completionReason": "FINISH"},
        ],
        (5, 8, None),
        id="Titan",
    ),
    pytest.param(
        [
            {"generation": "They span", "prompt_token_count": 5, "generation_token_count": 1, "stop_reason": None},
            {"generation": "", "generation_token_count": 8, "stop_reason": "stop", **METRICS},
        ],
        (5, 8, 1),
        id="Llama",
    ),
    pytest.param(
        [
            {"outputs": [{"text": "They span", "stop_reason": None}]},
            {"outputs": [{"text": "", "stop_reason": "stop"}], **METRICS},
        ],
        (5, 8, None),
        id="Mistral",
    ),
    pytest.param(
        [{"generations": [{"text": "They span", "finish_reason": "COMPLETE"}], **METRICS}], (5, 8, None), id="Command"
    ),
    pytest.param(
        [
            {"event_type": "text-generation", "text": "They span"},
            {"event_type": "stream-end", "finish_reason": "COMPLETE", **METRICS},
        ],
        (5, 8, None),
        id="Command R",
    ),
    pytest.param(
        [
            {"choices": [{"delta": {"content": "They span"}, "finish_reason": None}]},
            {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 7}, **METRICS},
        ],
        (4, 7, None),
        id="Jamba",
    ),
]


@both
@pytest.mark.parametrize(("pieces", "tokens"), STREAMS)
async def test_every_family_streamed(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, pieces: Any, tokens: Any
) -> None:
    events = native(*pieces)
    sent, received, _ = tokens
    server.replies(events=events, headers={"X-Amzn-Bedrock-Service-Tier": "flex"})
    async with client(is_async) as bedrock:
        stream = bedrock.invoke_model_with_response_stream
        answer = await finished(stream(modelId="a.model", body=json.dumps(PROMPT)), is_async)
        chunks = await items(answer["body"], is_async)
    assert [json.loads(chunk["chunk"]["bytes"]) for chunk in chunks] == pieces
    told = seen.one()
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (sent, received)
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.finish_reasons"]
    if hasattr(botocore.response.StreamingBody, "readinto"):
        assert told.get("costspan.service_tier", "flex") == "flex"
    assert "costspan.usage.estimated" not in told


@pytest.mark.parametrize(("pieces", "tokens"), STREAMS)
def test_every_family_left_after_its_first_words(
    server: Bedrock, seen: Watched, sync: Any, pieces: Any, tokens: Any
) -> None:
    if len(pieces) == 1:
        pytest.skip("it comes in one piece")
    server.replies(events=native(*pieces))
    answer = sync.invoke_model_with_response_stream(modelId="a.model", body=json.dumps({"prompt": "a" * 40}))
    for event in answer["body"]:
        if b"They span" in event["chunk"]["bytes"]:
            break
    answer["body"].close()
    usage = seen.usage()
    assert usage["estimated"] is True
    # Nine characters, or what the model has counted so far where that is more.
    assert usage["output_tokens"] == max(3, tokens[2] or 0)
    told = {"Claude": 33, "Titan": 5, "Llama": 5}
    assert usage["input_tokens"] in {10, *told.values()}


# ---------------------------------------------------------------- billed by something else than tokens


@pytest.mark.parametrize(
    ("model", "body", "answer", "images"),
    [
        ("amazon.nova-canvas-v1:0", {"imageGenerationConfig": {"quality": "premium"}}, {"images": ["a", "b"]}, 2),
        ("amazon.titan-image-generator-v2:0", {"imageGenerationConfig": {}}, {"images": ["a"], "error": None}, 1),
        ("stability.sd3-5-large-v1:0", PROMPT, {"seeds": [1], "finish_reasons": [None], "images": ["a"]}, 1),
        ("stability.sd3-5-large-v1:0", PROMPT, {"finish_reasons": ["Filter reason: prompt"], "images": [None]}, 0),
        ("stability.stable-diffusion-xl-v1", {}, {"artifacts": [{"base64": "a", "finishReason": "SUCCESS"}]}, 1),
    ],
)
def test_images(server: Bedrock, seen: Watched, sync: Any, model: str, body: Any, answer: Any, images: int) -> None:
    server.replies(answer)
    invoke(sync, model, body)["body"].read()
    told = seen.one()
    assert told["gen_ai.operation.name"] == "generate_content"
    assert told["costspan.usage.images"] == images
    assert told.get("costspan.service_tier") == ("premium" if "canvas" in model else None)


@pytest.mark.parametrize(
    ("model", "body", "usage"),
    [
        ("cohere.rerank-v3-5:0", {"query": "a", "documents": ["b"]}, {"rerank_searches": 1}),
        ("amazon.rerank-v1:0", {"query": "a", "documents": ["b"] * 350}, {"rerank_searches": 4}),
        ("amazon.titan-embed-image-v1", {"inputImage": "aGk="}, {"images": 1}),
        ("amazon.nova-2-multimodal-embeddings-v1:0", {"singleEmbeddingParams": {"image": {}}}, {}),
        ("amazon.nova-2-multimodal-embeddings-v1:0", {"singleEmbeddingParams": {"image": {"a": 1}}}, {"images": 1}),
        ("twelvelabs.marengo-embed-2-7-v1:0", {"inputType": "text", "inputText": "a"}, {"requests": 1}),
        ("twelvelabs.marengo-embed-2-7-v1:0", {"inputType": "image"}, {"images": 1}),
    ],
)
def test_what_the_request_alone_tells(
    server: Bedrock, seen: Watched, sync: Any, model: str, body: Any, usage: dict[str, int]
) -> None:
    server.replies({"results": [{"index": 0, "relevance_score": 0.5}]})
    invoke(sync, model, body)["body"].read()
    assert seen.usage() == usage
    invoke(sync, model, body)
    assert seen.usage() == usage
    # Nothing is billed that was not done.
    server.replies({"message": "No"}, status=400)
    with pytest.raises(botocore.exceptions.ClientError):
        invoke(sync, model, body)
    assert seen.usage() == {}


@both
async def test_sources_that_agents_rank(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies({"results": [{"index": 0, "relevanceScore": 0.5}]})
    text = {"type": "TEXT", "textDocument": {"text": "a bridge"}}
    source = {"type": "INLINE", "inlineDocumentSource": text}
    model = {"modelArn": "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"}
    config = {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": {"modelConfiguration": model}}
    async with client(is_async, "bedrock-agent-runtime") as agents:
        knows(agents, "Rerank")
        query = {"type": "TEXT", "textQuery": {"text": "bridges"}}
        await finished(agents.rerank(queries=[query], sources=[source] * 101, rerankingConfiguration=config), is_async)
    told = seen.one()
    assert told["gen_ai.operation.name"] == "rerank"
    assert told["gen_ai.request.model"] == model["modelArn"]
    assert told["costspan.usage.rerank_searches"] == 2


@both
@pytest.mark.parametrize(
    ("asked", "usage"),
    [
        ({"taskType": "TEXT_VIDEO", "videoGenerationConfig": {"durationSeconds": 6}}, {"video_seconds": 6}),
        ({"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": [{}, {}]}}, {"video_seconds": 12}),
        ({"prompt": "A bridge"}, {}),
    ],
)
async def test_a_video_is_counted_when_it_is_begun(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, asked: Any, usage: Any
) -> None:
    server.replies({"invocationArn": "arn:aws:bedrock:us-east-1:1:async-invoke/1"})
    async with client(is_async) as bedrock:
        knows(bedrock, "StartAsyncInvoke")
        target = {"s3OutputDataConfig": {"s3Uri": "s3://bucket"}}
        await finished(
            bedrock.start_async_invoke(modelId="amazon.nova-reel-v1:1", modelInput=asked, outputDataConfig=target),
            is_async,
        )
    told = seen.one()
    assert told["gen_ai.operation.name"] == "generate_content"
    assert {key: told[key] for key in told if "usage" in key} == {f"costspan.usage.{k}": v for k, v in usage.items()}


# ---------------------------------------------------------------- dollars


def dollars(attributes: dict[str, Any]) -> str | None:
    """What the bundled book says the call of a span cost on a day at the end of 2026."""
    at = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp()) * 10**9
    cost = price(attributes, at, PriceBook.bundled())
    return None if cost is None or cost.total is None else f"{Decimal(cost.total) / PICO:f}"


def test_what_calls_cost(server: Bedrock, seen: Watched, sync: Any) -> None:
    server.replies(CLAUDE)
    invoke(sync, "eu.anthropic.claude-haiku-4-5-20251001-v1:0")["body"].read()
    # 3 x 1.10 + 10 x 1.375 + 20 x 2.20 + 9 x 5.50 USD per million, 10 % above the global price
    assert dollars(seen.one()) == "0.00011055"

    server.replies({"images": ["a", "b"]})
    invoke(sync, "amazon.nova-canvas-v1:0", {"imageGenerationConfig": {"quality": "premium"}})["body"].read()
    assert dollars(seen.one()) == "0.12"

    server.replies({"results": []})
    invoke(sync, "cohere.rerank-v3-5:0", {"query": "a", "documents": ["b"] * 350})
    assert dollars(seen.one()) == "0.008"

    server.replies({"message": "No"}, status=400)
    with pytest.raises(botocore.exceptions.ClientError):
        invoke(sync, "cohere.rerank-v3-5:0", {"query": "a", "documents": ["b"]})
    assert dollars(seen.one()) is None

    knows(sync, "Converse", "performanceConfig")
    usage = {"inputTokens": 1000, "outputTokens": 500, "totalTokens": 1500}
    server.replies({"output": ANSWER, "stopReason": "end_turn", "usage": usage})
    faster = {"latency": "optimized"}
    sync.converse(modelId="us.amazon.nova-pro-v1:0", messages=ASK, performanceConfig=faster)
    assert dollars(seen.one()) == "0.003"


# ---------------------------------------------------------------- what is no call of a model


@both
async def test_what_is_not_billed_as_a_model_passes_through(
    server: Bedrock, seen: Watched, client: Any, is_async: bool
) -> None:
    async with client(is_async, "s3") as s3:
        server.replies(b"an object", headers={"content-type": "text/plain"})
        answer = await finished(s3.get_object(Bucket="bucket", Key="key"), is_async)
        assert await finished(answer["Body"].read(), is_async) == b"an object"
    async with client(is_async) as bedrock:
        if hasattr(bedrock, "count_tokens"):
            server.replies({"inputTokens": 11})
            asked = {"converse": {"messages": ASK}}
            answer = await finished(bedrock.count_tokens(modelId="amazon.nova-lite-v1:0", input=asked), is_async)
            assert answer["inputTokens"] == 11
        if hasattr(bedrock, "apply_guardrail"):
            server.replies({"usage": {"topicPolicyUnits": 1}, "action": "NONE", "outputs": [], "assessments": []})
            guarded = [{"text": {"text": "a"}}]
            await finished(
                bedrock.apply_guardrail(
                    guardrailIdentifier="g1", guardrailVersion="1", source="INPUT", content=guarded
                ),
                is_async,
            )
    assert seen.spans() == []


def test_the_same_operation_of_another_service_is_none(server: Bedrock, seen: Watched, clients: Any) -> None:
    s3 = clients[1]["s3"]
    assert {name for name, (service, _) in OPERATIONS.items() if service == "bedrock-runtime"} == {
        "Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "StartAsyncInvoke",
    }  # fmt: skip
    with pytest.raises(botocore.model.OperationNotFoundError):
        s3._make_api_call("Converse", {"modelId": "a"})
    with pytest.raises(botocore.model.OperationNotFoundError):
        s3._make_api_call(operation_name="Converse", api_params={})
    assert seen.spans() == []


def test_the_methods_are_put_back(server: Bedrock, sync: Any) -> None:
    owners = [(botocore.client.BaseClient, "_make_api_call"), (botocore.response.StreamingBody, "read")]
    before = [vars(owner)[name] for owner, name in owners]
    with watching(BEDROCK) as watched:
        server.replies(CLAUDE)
        invoke(sync)["body"].read()
        assert watched.one()
        held = invoke(sync)["body"]
        assert [vars(owner)[name] for owner, name in owners] != before
    assert [vars(owner)[name] for owner, name in owners] == before
    assert json.loads(held.read()) == CLAUDE
