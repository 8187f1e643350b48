"""What Bedrock's agents tell in their traces -> what the span says, on boto3 and aiobotocore over real HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from costspan_instrumentation.providers.bedrock import BEDROCK
from costspan_pricing import PriceBook
from costspan_processor.enrich import enrich

from .bedrock_server import Bedrock, serving
from .recorded import exchanges
from .watched import Watched, finished, items, watching

boto3 = pytest.importorskip("boto3")
botocore = pytest.importorskip("botocore")
eventstream = pytest.importorskip("botocore.eventstream")
aio = pytest.importorskip("aiobotocore.session")
Config, AioConfig = botocore.config.Config, pytest.importorskip("aiobotocore.config").AioConfig

both = pytest.mark.parametrize("is_async", [False, True], ids=["boto3", "aiobotocore"])
AT = 1_795_824_000_000_000_000  # 2026-11-28
KEYS = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
ONCE: Any = {"retries": {"total_max_attempts": 1}}
ASK: Any = {"agentId": "AAAAAAAAAA", "agentAliasId": "AAAAAAAAAA", "sessionId": "s1", "inputText": "Plan a bridge"}
KNOW: Any = {"input": {"text": "What is a bridge?"}}
HAIKU, SONNET = "global.anthropic.claude-haiku-4-5-20251001-v1:0", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SAYS = ("chunk", {"bytes": base64.b64encode(b"They span").decode()})


def traced(kind: str, **step: Any) -> tuple[str, Any]:
    return "trace", {"agentId": "AAAAAAAAAA", "sessionId": "s1", "trace": {kind: step}}


def work(trace: str, model: str | None, usage: Any, kind: str = "orchestrationTrace") -> list[tuple[str, Any]]:
    """The traces of one call of a model: what it was asked, and what it answered."""
    metadata = {"usage": usage, "totalTimeMs": 9} if usage else {"totalTimeMs": 9}
    answer = traced(kind, modelInvocationOutput={"traceId": trace, "metadata": metadata, "rawResponse": {}})
    if model is None:
        return [answer]
    return [traced(kind, modelInvocationInput={"traceId": trace, "foundationModel": model, "text": "{}"}), answer]


def tokens(sent: int, made: int) -> dict[str, int]:
    return {"inputTokens": sent, "outputTokens": made}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Bedrock, Any]]:
    with serving() as server:
        yield server, boto3.client("bedrock-agent-runtime", endpoint_url=server.url, config=Config(**ONCE), **KEYS)


@pytest.fixture
def server(running: tuple[Bedrock, Any]) -> Bedrock:
    return running[0]


@pytest.fixture
def seen() -> Iterator[Watched]:
    with watching(BEDROCK) as watched:
        yield watched


@pytest.fixture
def client(running: tuple[Bedrock, Any]) -> Any:
    """Makes a client of either SDK."""

    @asynccontextmanager
    async def client(is_async: bool) -> AsyncIterator[Any]:
        if not is_async:
            yield running[1]
            return
        config, url = AioConfig(**ONCE), running[0].url
        async with aio.get_session().create_client(
            "bedrock-agent-runtime", endpoint_url=url, config=config, **KEYS
        ) as theirs:
            yield theirs

    return client


def usage_of(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if ".usage." in key}


@both
async def test_every_call_of_a_model_is_added(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies(
        events=[
            *work("t-pre", HAIKU, tokens(400, 50), "preProcessingTrace"),
            *work("t-0", HAIKU, tokens(1000, 100)),
            traced("orchestrationTrace", rationale={"traceId": "t-0", "text": "Hmm."}),
            *work("t-1", HAIKU, tokens(2000, 50)),
            *work("t-post", HAIKU, tokens(600, 10), "postProcessingTrace"),
            SAYS,
        ]
    )
    async with client(is_async) as agents:
        answer = await finished(agents.invoke_agent(**ASK, enableTrace=True), is_async)
        assert not seen.spans()
        events = await items(answer["completion"], is_async)
    assert len(events) == 10
    assert events[-1] == {"chunk": {"bytes": b"They span"}}
    (span,) = seen.spans()
    assert span.name == "chat"
    told = dict(span.attributes or {})
    assert told["gen_ai.provider.name"] == "aws.bedrock"
    assert told["gen_ai.request.stream"] is True
    assert told["gen_ai.response.model"] == HAIKU
    assert usage_of(told) == {"gen_ai.usage.input_tokens": 4000, "gen_ai.usage.output_tokens": 210}
    # $1 and $5 a million.
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.total"] == pytest.approx(0.004 + 0.00105)


@both
async def test_each_of_several_models_has_its_price(
    server: Bedrock, seen: Watched, client: Any, is_async: bool
) -> None:
    summed = {"metadata": {"usage": tokens(2000, 200)}, "output": {"text": "Done"}}
    server.replies(
        events=[
            *work("t-0", HAIKU, tokens(1000, 100), "routingClassifierTrace"),
            # Two at work at once.
            *(first := work("t-1", SONNET, tokens(1000, 100)))[:1],
            *work("t-2", HAIKU, tokens(500, 0)),
            *first[1:],
            traced("orchestrationTrace", observation={"traceId": "t-1", "agentCollaboratorInvocationOutput": summed}),
            SAYS,
        ]
    )
    async with client(is_async) as agents:
        answer = await finished(agents.invoke_agent(**ASK, enableTrace=True), is_async)
        await items(answer["completion"], is_async)
    told = seen.one()
    assert "gen_ai.response.model" not in told
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (2500, 200)
    shares = [(HAIKU, 1500, 100), (SONNET, 1000, 100)]
    assert json.loads(told["costspan.usage.by_model"]) == [
        {"model": model, "gen_ai.usage.input_tokens": sent, "gen_ai.usage.output_tokens": made}
        for model, sent, made in shares
    ]
    # Without a promise where, $1 and $5 a million; in its region $3.30 and $16.50 a million.
    cost = enrich(told, AT, PriceBook.bundled())["costspan.cost.total"]
    assert cost == pytest.approx(0.0015 + 0.0005 + 0.0033 + 0.00165)


@both
@pytest.mark.parametrize(
    "events", [[SAYS], [*work("t-0", HAIKU, None), SAYS], []], ids=["no traces", "traces without usage", "nothing"]
)
async def test_what_is_not_told_is_not_made_up(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, events: Any
) -> None:
    server.replies(events=events)
    async with client(is_async) as agents:
        answer = await finished(agents.invoke_agent(**ASK), is_async)
        assert len(await items(answer["completion"], is_async)) == len(events)
    told = seen.one()
    assert usage_of(told) == {}
    assert enrich(told, AT, PriceBook.bundled())["costspan.cost.status"] == "no_usage"


@both
async def test_a_model_that_no_trace_names_has_no_price(
    server: Bedrock, seen: Watched, client: Any, is_async: bool
) -> None:
    server.replies(events=[*work("t-0", None, tokens(100, 10)), *work("t-1", HAIKU, tokens(1000, 100)), SAYS])
    async with client(is_async) as agents:
        answer = await finished(agents.invoke_agent(**ASK, enableTrace=True), is_async)
        await items(answer["completion"], is_async)
    told = seen.one()
    assert told["gen_ai.usage.input_tokens"] == 1100
    priced = enrich(told, AT, PriceBook.bundled())
    assert (priced["costspan.cost.status"], priced["costspan.cost.total"]) == ("partial", 0.0015)


@both
async def test_an_agent_that_is_left_has_used_what_it_told(
    server: Bedrock, seen: Watched, client: Any, is_async: bool
) -> None:
    error = ("exception:throttlingException", {"message": "Slow down"})
    server.replies(events=[*work("t-0", HAIKU, tokens(1000, 100)), error])
    async with client(is_async) as agents:
        answer = await finished(agents.invoke_agent(**ASK, enableTrace=True), is_async)
        with pytest.raises(botocore.exceptions.EventStreamError):
            await items(answer["completion"], is_async)
    told = seen.one()
    assert told["error.type"] == "EventStreamError"
    assert usage_of(told) == {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100}


@both
async def test_an_agent_of_the_call_alone_has_a_model(
    server: Bedrock, seen: Watched, client: Any, is_async: bool
) -> None:
    server.replies(events=[*work("t-0", HAIKU, tokens(10, 1)), SAYS])
    async with client(is_async) as agents:
        if not hasattr(agents, "invoke_inline_agent"):
            pytest.skip("this version does not know the operation")
        asked = agents.invoke_inline_agent(
            foundationModel=HAIKU, instruction="Answer questions on bridges, and on nothing else", sessionId="s1"
        )
        await items((await finished(asked, is_async))["completion"], is_async)
    told = seen.one()
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == HAIKU
    assert usage_of(told) == {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1}


@both
@pytest.mark.parametrize(
    "config",
    [
        {"type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": {"knowledgeBaseId": "KB12345678", "modelArn": HAIKU}},
        {"type": "EXTERNAL_SOURCES", "externalSourcesConfiguration": {"modelArn": HAIKU, "sources": []}},
    ],
    ids=["knowledge base", "documents"],
)
async def test_an_answer_from_knowledge_tells_its_model_and_no_usage(
    server: Bedrock, seen: Watched, client: Any, is_async: bool, config: Any
) -> None:
    if "externalSourcesConfiguration" in config:
        text = {"contentType": "text/plain", "data": b"They span.", "identifier": "a"}
        config["externalSourcesConfiguration"]["sources"] = [{"sourceType": "BYTE_CONTENT", "byteContent": text}]
    asked = {**KNOW, "retrieveAndGenerateConfiguration": config}
    async with client(is_async) as agents:
        server.replies({"output": {"text": "They span"}, "citations": [], "sessionId": "s1"})
        answer = await finished(agents.retrieve_and_generate(**asked), is_async)
        assert answer["output"] == {"text": "They span"}
        told = seen.one()
        assert (told["gen_ai.request.model"], usage_of(told)) == (HAIKU, {})
        if not hasattr(agents, "retrieve_and_generate_stream"):
            return
        server.replies(events=[("output", {"text": "They "}), ("output", {"text": "span"})])
        answer = await finished(agents.retrieve_and_generate_stream(**asked), is_async)
        assert len(await items(answer["stream"], is_async)) == 2
    told = seen.one()
    assert (told["gen_ai.request.model"], told["gen_ai.request.stream"], usage_of(told)) == (HAIKU, True, {})


@both
async def test_a_refusal_is_raised(server: Bedrock, seen: Watched, client: Any, is_async: bool) -> None:
    server.replies({"message": "No such agent"}, status=404, headers={"x-amzn-errortype": "ResourceNotFoundException"})
    async with client(is_async) as agents:
        with pytest.raises(botocore.exceptions.ClientError, match="No such agent"):
            await finished(agents.invoke_agent(**ASK), is_async)
    told = seen.one()
    assert told["error.type"] == "ResourceNotFoundException"
    assert usage_of(told) == {}


def test_content_may_be_recorded(server: Bedrock, client: Any, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    server.replies(events=[*work("t-0", HAIKU, tokens(10, 1)), SAYS])
    with watching(BEDROCK) as seen:
        assert len(list(running[1].invoke_agent(**ASK, enableTrace=True)["completion"])) == 3
        assert seen.one()["gen_ai.usage.input_tokens"] == 10


@pytest.mark.parametrize("exchange", exchanges("bedrock.invoke_agent"), ids=lambda exchange: exchange["id"])
def test_recorded(server: Bedrock, seen: Watched, running: Any, exchange: dict[str, Any]) -> None:
    body, sent = exchange["response"]["body"], exchange["request"]["body"]
    if not exchange["stream"]:
        server.replies(body)
        running[1].retrieve_and_generate(**sent)
        assert usage_of(seen.one()) == {}
        return
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(base64.b64decode(body))
    events = [(event.headers[":event-type"], json.loads(event.payload)) for event in buffer]
    server.replies(events=events)
    answer = running[1].invoke_agent(**{**ASK, **sent})
    assert len(list(answer["completion"])) == len(events)
    steps = [step for _, event in events for step in event.get("trace", {}).values()]
    usage = [step["modelInvocationOutput"]["metadata"]["usage"] for step in steps if "modelInvocationOutput" in step]
    assert len(usage) >= 3
    assert usage_of(seen.one()) == {
        "gen_ai.usage.input_tokens": sum(told["inputTokens"] for told in usage),
        "gen_ai.usage.output_tokens": sum(told["outputTokens"] for told in usage),
    }
