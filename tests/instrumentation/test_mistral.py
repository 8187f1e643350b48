"""What Mistral bills -> what the span says, on the real SDK over real HTTP, its versions 1 to 3."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from costspan_instrumentation.providers.mistral import MISTRAL
from costspan_instrumentation.providers.mistral.chat import chat_usage, written
from costspan_instrumentation.providers.mistral.conversations import conversation_usage
from costspan_instrumentation.providers.mistral.media import ocr_response

from .recorded import exchanges
from .replies import Asked, Refusal, replying
from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 63, "prompt_tokens_details": {"cached_tokens": 5}},
            {
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 63,
                "gen_ai.usage.cache_read.input_tokens": 5,
            },
            id="cached tokens are in the prompt",
        ),
        pytest.param(
            {"prompt_tokens": 254, "completion_tokens": 93, "num_cached_tokens": 48},
            {
                "gen_ai.usage.input_tokens": 254,
                "gen_ai.usage.output_tokens": 93,
                "gen_ai.usage.cache_read.input_tokens": 48,
            },
            id="cached tokens under another name",
        ),
        pytest.param(
            {"prompt_tokens": 8, "prompt_tokens_details": None, "prompt_token_details": {"cached_tokens": 4}},
            {"gen_ai.usage.input_tokens": 8, "gen_ai.usage.cache_read.input_tokens": 4},
            id="and under a third",
        ),
        pytest.param(
            # 9 of text, 375 of audio, which only the total contains, and which is billed as 4 seconds.
            {
                "prompt_tokens": 9,
                "completion_tokens": 201,
                "total_tokens": 585,
                "prompt_audio_seconds": 4,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 201, "costspan.usage.audio_seconds": 4},
            id="audio is billed by the second",
        ),
        pytest.param(
            {"prompt_tokens": 1, "service_tier": "priority"},
            {"gen_ai.usage.input_tokens": 1, "costspan.service_tier": "priority"},
            id="the served tier",
        ),
        pytest.param(
            {"prompt_tokens": 4, "service_tier": "standard", "prompt_audio_seconds": None, "num_cached_tokens": 0},
            {"gen_ai.usage.input_tokens": 4},
            id="what says nothing is left out",
        ),
        pytest.param(
            {"prompt_tokens": -5, "completion_tokens": "many"},
            {"gen_ai.usage.input_tokens": -5, "gen_ai.usage.output_tokens": "many"},
            id="what cannot be is passed on",
        ),
        pytest.param(None, {}, id="no usage"),
    ],
)
def test_usage(usage: Any, attributes: dict[str, Any]) -> None:
    assert chat_usage(usage) == attributes
    assert MISTRAL.usage_formats["mistral.chat"] is chat_usage


@pytest.mark.parametrize(
    ("usage", "attributes"),
    [
        pytest.param(
            # The total of this turn was 7,355: what a search found comes on top of the prompt.
            {"prompt_tokens": 188, "completion_tokens": 55, "connector_tokens": 7112, "connectors": {"web_search": 1}},
            {
                "gen_ai.usage.input_tokens": 7300,
                "gen_ai.usage.output_tokens": 55,
                "costspan.usage.web_searches": 1,
            },
            id="a search",
        ),
        pytest.param(
            {"prompt_tokens": 9, "connectors": {"code_interpreter": 2, "image_generation": 1, "my_server": 3}},
            {"gen_ai.usage.input_tokens": 9, "costspan.usage.code_executions": 2, "costspan.usage.images": 1},
            id="other tools, of which one's own are free",
        ),
        pytest.param(
            {"prompt_tokens": 9, "connector_tokens": None, "connectors": None},
            {"gen_ai.usage.input_tokens": 9},
            id="no tool",
        ),
    ],
)
def test_usage_of_conversations(usage: Any, attributes: dict[str, Any]) -> None:
    assert conversation_usage(usage) == attributes


@pytest.mark.parametrize(
    ("answer", "meter"),
    [
        ({"pages": [{"images": []}]}, "pages"),
        ({"pages": [{"images": None}], "document_annotation": None}, "pages"),
        ({"pages": [], "document_annotation": "{}"}, "annotated_pages"),
        ({"pages": [{"images": [{"id": "i", "image_annotation": "{}"}]}]}, "annotated_pages"),
    ],
)
def test_pages_that_are_annotated_have_a_price_of_their_own(answer: dict[str, Any], meter: str) -> None:
    assert ocr_response({**answer, "usage_info": {"pages_processed": 3}}) == {f"costspan.usage.{meter}": 3}


def test_what_was_written_is_text_or_parts_of_it() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "abc"}]}
    assert [written(content) for content in ("ab", [thought, {"text": "de"}], {"text": "f"}, None, [], 7)] == [
        2, 5, 1, 0, 0, 0
    ]  # fmt: skip


# ---------------------------------------------------------------- every way of calling

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "num_cached_tokens": 8}
ASK: Any = [{"role": "user", "content": "Say hello to twelve"}]


def sse(*events: dict[str, Any], name: bool = False) -> str:
    """Server events; those of conversations and of audio have names."""
    named = (f"event: {event['type']}\n" if name else "" for event in events)
    return "".join(f"{head}data: {json.dumps(event)}\n\n" for head, event in zip(named, events, strict=True))


def completion(usage: Any = USAGE) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi there"}
    body = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "mistral-small-2506"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {**body, "choices": choices, "usage": usage}


def chunks(*texts: str) -> str:
    base = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "mistral-small-2506"}
    deltas = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
    events = [{**base, "choices": [choice]} for choice in deltas]
    return sse(*events, {**base, "choices": [last], "usage": USAGE}) + "data: [DONE]\n\n"


TURN = {
    "object": "conversation.response",
    "conversation_id": "conv-1",
    "outputs": [
        {"type": "message.output", "content": "Hi", "model": "mistral-medium-2505", "id": "m", "role": "assistant"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 113, "connector_tokens": 100},
}
TURN_EVENTS = sse(
    {"type": "conversation.response.started", "conversation_id": "conv-1"},
    {"type": "message.output.delta", "id": "m", "content": "Hi", "model": "mistral-medium-2505", "role": "assistant"},
    {"type": "conversation.response.done", "usage": TURN["usage"]},
    name=True,
)
TRANSCRIPT: dict[str, Any] = {
    "model": "voxtral-mini-2602",
    "text": "Hi",
    "language": None,
    "segments": [],
    "usage": {"prompt_tokens": 5, "completion_tokens": 11, "total_tokens": 391, "prompt_audio_seconds": 3},
}
MODERATED = {"id": "m-1", "model": "mistral-moderation-2603", "results": []}


def reply(path: str, body: dict[str, Any]) -> Any:
    path = path.partition("#")[0]
    if body.get("model") == "forbidden":
        return Refusal(401, {"detail": "Unauthorized"})
    match path, body.get("stream"):
        case "/v1/chat/completions" | "/v1/agents/completions" | "/v1/fim/completions", True:
            return chunks("Hi the", "re, world!!!")
        case "/v1/chat/completions" | "/v1/agents/completions" | "/v1/fim/completions", _:
            return completion()
        case "/v1/embeddings", _:
            data = [{"object": "embedding", "embedding": [0.5], "index": 0}]
            usage = {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0}
            return {"id": "e-1", "object": "list", "data": data, "model": "mistral-embed", "usage": usage}
        case "/v1/ocr", _:
            return {"pages": [], "model": "mistral-ocr-2512", "usage_info": {"pages_processed": 3}}
        case "/v1/moderations" | "/v1/chat/moderations", _:
            return MODERATED
        case "/v1/audio/speech", True:
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            delta = {"type": "speech.audio.delta", "audio_data": "AA=="}
            return sse(delta, {"type": "speech.audio.done", "usage": usage}, name=True)
        case "/v1/audio/speech", _:
            return {"audio_data": "AA=="}
        case "/v1/audio/transcriptions", _:
            return TRANSCRIPT
        case "/v1/conversations" | "/v1/conversations/conv-1", False | None:
            return TURN
        case _:
            return TURN_EVENTS


@pytest.fixture
def server() -> Iterator[Asked]:
    with replying(reply) as asked:
        yield asked


@pytest.fixture
def watched() -> Iterator[Watched]:
    pytest.importorskip("mistralai")
    with watching(MISTRAL) as watched:
        yield watched


def a_client(server: Asked, **more: Any) -> Any:
    """One client makes both kinds of calls; before version 2 it was in the package itself."""
    try:
        sdk: Any = importlib.import_module("mistralai.client")
        kind = sdk.Mistral
    except (ImportError, AttributeError):
        kind = pytest.importorskip("mistralai").Mistral
    return kind(api_key="k", server_url=server.url, **more)


def method(client: Any, name: str, is_async: bool) -> Any:
    """A method by its path (`chat.complete`), or its asynchronous twin; skips where this version has none."""
    found = client
    for part in (name + ("_async" if is_async else "")).split("."):
        found = getattr(found, part, None)
    if found is None:
        pytest.skip(f"this version has no {name}")
    return found


def tells_details() -> bool:
    """SDKs before 1.9 drop what they do not know of a usage."""
    for module in ("mistralai.client.models", "mistralai.models"):
        try:
            usage = importlib.import_module(module).UsageInfo
        except (ImportError, AttributeError):
            continue
        return "extra" in usage.model_config
    return False


@both
async def test_a_chat(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    complete = method(client, "chat.complete", is_async)
    answer = await finished(
        complete(model="mistral-small-latest", messages=ASK, max_tokens=9, random_seed=7, stop="END"), is_async
    )
    assert answer.choices[0].message.content == "Hi there"
    told = watched.one()
    assert (told.pop("server.address"), told.pop("server.port")) == ("127.0.0.1", int(server.url.rpartition(":")[2]))
    cached = {"gen_ai.usage.cache_read.input_tokens": 8} if tells_details() else {}
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.request.model": "mistral-small-latest",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.response.id": "c-1",
        "gen_ai.response.model": "mistral-small-2506",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        **cached,
    }


@both
@pytest.mark.parametrize(
    ("name", "arguments", "operation"),
    [
        ("chat", {"model": "mistral-small-latest", "messages": ASK}, "chat"),
        ("agents", {"agent_id": "ag-1", "messages": ASK}, "chat"),
        ("fim", {"model": "codestral-2508", "prompt": "def f("}, "text_completion"),
    ],
)
async def test_completions_and_their_streams(
    server: Asked, watched: Watched, is_async: bool, name: str, arguments: dict[str, Any], operation: str
) -> None:
    client = a_client(server)
    await finished(method(client, f"{name}.complete", is_async)(**arguments), is_async)
    plain = watched.one()
    stream = await finished(method(client, f"{name}.stream", is_async)(**arguments), is_async)
    assert len(await items(stream, is_async)) == 3
    streamed = watched.one()
    assert streamed.pop("gen_ai.request.stream") is True
    assert streamed.pop("gen_ai.response.time_to_first_chunk") > 0
    assert streamed == plain
    assert plain["gen_ai.operation.name"] == operation
    # An agent's model is not asked for, and the answer names it.
    assert plain["gen_ai.request.model"] == arguments.get("model", "mistral-small-2506")
    assert (plain["gen_ai.usage.input_tokens"], plain["gen_ai.usage.output_tokens"]) == (12, 3)


def test_a_stream_that_is_left_is_estimated(server: Asked, watched: Watched) -> None:
    client = a_client(server)
    stream: Any = client.chat.stream(model="mistral-small-latest", messages=ASK)
    next(iter(stream))
    next(iter(stream))
    del stream
    # 19 characters were asked and 18 written, 4 to a token.
    assert watched.usage() == {"input_tokens": 5, "output_tokens": 5, "estimated": True}


async def test_an_async_stream_that_is_left(server: Asked, watched: Watched) -> None:
    client = a_client(server)
    stream: Any = await client.chat.stream_async(model="mistral-small-latest", messages=ASK)
    async for chunk in stream:
        assert chunk is not None
        break
    del stream
    await asyncio.sleep(0.05)  # the loop closes what was dropped
    assert watched.usage()["estimated"] is True


def test_a_stream_in_a_with_block_ends_with_it(server: Asked, watched: Watched) -> None:
    client = a_client(server)
    stream = client.chat.stream(model="mistral-small-latest", messages=ASK)
    if not hasattr(stream, "close") or not hasattr(stream, "__enter__"):
        pytest.skip("this version's streams cannot be closed")
    with stream:
        next(stream)
    assert watched.usage()["estimated"] is True


@both
async def test_a_parsed_answer_is_one_call(watched: Watched, is_async: bool) -> None:
    from pydantic import BaseModel

    class Greeting(BaseModel):
        text: str

    with replying(lambda *_: completion() | {"choices": []}) as server:
        client = a_client(server)
        parse = method(client, "chat.parse", is_async)
        await finished(parse(Greeting, model="mistral-small-latest", messages=ASK), is_async)
    assert watched.usage()["input_tokens"] == 12


@both
async def test_a_refusal_is_raised_and_not_billed(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    for name in ("chat.complete", "chat.stream"):
        with pytest.raises(Exception) as raised:
            await finished(method(client, name, is_async)(model="forbidden", messages=ASK), is_async)
        told = watched.one()
        assert told["error.type"] == type(raised.value).__name__
        assert not [key for key in told if ".usage." in key]


@both
async def test_embeddings(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    await finished(method(client, "embeddings.create", is_async)(model="mistral-embed", inputs=["Hi"]), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "embeddings"
    assert told["gen_ai.usage.input_tokens"] == 4
    assert "gen_ai.usage.output_tokens" not in told


@both
async def test_documents(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    document = {"type": "document_url", "document_url": "https://x.example/a.pdf"}
    await finished(method(client, "ocr.process", is_async)(model="mistral-ocr-latest", document=document), is_async)
    told = watched.one()
    assert (told["gen_ai.operation.name"], told["costspan.usage.pages"]) == ("ocr", 3)
    assert told["gen_ai.response.model"] == "mistral-ocr-2512"


@both
async def test_moderations_tell_no_usage(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    moderate = method(client, "classifiers.moderate", is_async)
    await finished(moderate(model="mistral-moderation-latest", inputs=["Hi"]), is_async)
    told = watched.one()
    assert told["gen_ai.operation.name"] == "moderation"
    assert told["gen_ai.response.model"] == "mistral-moderation-2603"
    assert not [key for key in told if ".usage." in key]


@both
async def test_transcriptions(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    file = {"file_name": "a.wav", "content": b"RIFF"}
    complete = method(client, "audio.transcriptions.complete", is_async)
    await finished(complete(model="voxtral-mini-latest", file=file), is_async)
    assert watched.usage() == {"input_tokens": 5, "output_tokens": 11, "audio_seconds": 3}
    events = sse(
        {"type": "transcription.text.delta", "text": "Hi"}, {**TRANSCRIPT, "type": "transcription.done"}, name=True
    )
    with replying(lambda *_: events) as streaming:
        client = a_client(streaming)
        stream = method(client, "audio.transcriptions.stream", is_async)
        assert len(await items(await finished(stream(model="voxtral-mini-latest", file=file), is_async), is_async)) == 2
    assert watched.usage() == {"input_tokens": 5, "output_tokens": 11, "audio_seconds": 3}


@both
async def test_speech_is_billed_by_what_was_to_be_said(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    complete = method(client, "audio.speech.complete", is_async)
    ask = {"model": "voxtral-mini-tts-latest", "input": "Hello twelve"}
    await finished(complete(**ask), is_async)
    assert watched.usage() == {"characters": 12}
    await items(await finished(complete(stream=True, **ask), is_async), is_async)
    assert watched.usage() == {"characters": 12}
    with pytest.raises(Exception, match="401"):
        await finished(complete(**{**ask, "model": "forbidden"}), is_async)
    assert watched.usage() == {}


@both
async def test_conversations(server: Asked, watched: Watched, is_async: bool) -> None:
    client = a_client(server)
    start = method(client, "beta.conversations.start", is_async)
    await finished(start(model="mistral-medium-latest", inputs="Hi", completion_args={"temperature": 0.5}), is_async)
    told = watched.one()
    assert told["gen_ai.conversation.id"] == "conv-1"
    assert told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.response.model"] == "mistral-medium-2505"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (110, 3)
    append = method(client, "beta.conversations.append_stream", is_async)
    stream = await finished(append(conversation_id="conv-1", inputs="And?"), is_async)
    assert len(await items(stream, is_async)) == 3
    told = watched.one()
    assert told["gen_ai.conversation.id"] == "conv-1"
    assert told["gen_ai.response.model"] == "mistral-medium-2505"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (110, 3)


@both
async def test_responses(watched: Watched, is_async: bool) -> None:
    usage = {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    }
    answer = {"id": "r-1", "object": "response", "created_at": 1, "model": "mistral-medium-2505", "output": []}
    answer |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage, "status": "completed"}
    event = {"type": "response.completed", "sequence_number": 1, "response": answer}
    with replying(lambda _, body: sse(event, name=True) if body.get("stream") else answer) as server:
        client = a_client(server)
        for stream in (False, True):
            create = method(client, "responses.create", is_async)
            result = await finished(create(model="mistral-medium-latest", input="Hi", stream=stream), is_async)
            if stream:
                await items(result, is_async)
            told = watched.one()
            assert told["gen_ai.response.model"] == "mistral-medium-2505"
            assert told["gen_ai.usage.input_tokens"] == 12
            assert told["gen_ai.usage.cache_read.input_tokens"] == 8
            assert told["gen_ai.usage.reasoning.output_tokens"] == 2


# ---------------------------------------------------------------- batches and sessions


@both
async def test_a_batch_whose_answers_come_inline_is_billed_once(watched: Watched, is_async: bool) -> None:
    job = {
        "id": "b-1",
        "object": "batch",
        "input_files": [],
        "endpoint": "/v1/chat/completions",
        "errors": [],
        "status": "RUNNING",
        "created_at": 1,
        "total_requests": 2,
        "completed_requests": 0,
        "succeeded_requests": 0,
        "failed_requests": 0,
        "model": "mistral-small-latest",
    }
    with replying(lambda *_: job) as server:
        client = a_client(server)
        get = method(client, "batch.jobs.get", is_async)
        await finished(get(job_id="b-1"), is_async)
        assert watched.spans() == []
        if not hasattr(await finished(get(job_id="b-1"), is_async), "outputs"):
            pytest.skip("this version's jobs have no answers in them")
        done = {"custom_id": "0", "response": {"status_code": 200, "body": completion()}, "error": None}
        failed = {"custom_id": "1", "response": None, "error": {"message": "no"}}
        job.update(status="SUCCESS", outputs=[done, failed, done])
        await finished(get(job_id="b-1"), is_async)
        told = watched.one()
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.request.model"] == "mistral-small-latest"
        assert told["costspan.service_tier"] == "batch"
        assert told["gen_ai.usage.input_tokens"] == 24
        assert told["gen_ai.usage.cache_read.input_tokens"] == 16
        await finished(get(job_id="b-1"), is_async)
        assert watched.usage() == {}


def test_a_live_transcription_is_billed_when_it_ends(watched: Watched) -> None:
    connection = pytest.importorskip("mistralai.extra.realtime.connection")
    connection.parse_realtime_event({"type": "transcription.text.delta", "text": "Hi"})
    assert watched.spans() == []
    event = connection.parse_realtime_event({**TRANSCRIPT, "type": "transcription.done"})
    assert event.text == "Hi"
    told = watched.one()
    assert told["gen_ai.operation.name"] == "transcription"
    assert told["gen_ai.response.model"] == "voxtral-mini-2602"
    assert told["costspan.usage.audio_seconds"] == 3


# ---------------------------------------------------------------- the SDK's own spans


def test_the_spans_of_the_sdk_do_not_count_a_call_twice(server: Asked, watched: Watched) -> None:
    telemetry = pytest.importorskip("mistralai.extra.observability.telemetry")
    client = a_client(server)
    telemetry.configure_telemetry(client, provider=watched.traces)
    client.chat.complete(model="mistral-small-latest", messages=ASK)
    list(client.chat.stream(model="mistral-small-latest", messages=ASK))
    assert [(span.instrumentation_scope or span).name for span in watched.spans()] == ["test", "test"]


def test_spans_that_go_elsewhere_are_the_applications_own(server: Asked, watched: Watched) -> None:
    telemetry = pytest.importorskip("mistralai.extra.observability.telemetry")
    client, other = a_client(server), Watched()
    telemetry.configure_telemetry(client, provider=other.traces)
    client.chat.complete(model="mistral-small-latest", messages=ASK)
    assert watched.usage()["input_tokens"] == 12
    assert other.usage()["input_tokens"] == 12


# ---------------------------------------------------------------- recorded


def call(client: Any, exchange: dict[str, Any]) -> Any:
    """The request of a recorded exchange, as far as it was kept."""
    sent, model = exchange["request"]["body"], exchange["model"]
    match exchange["api"]:
        case "mistral.batch":
            return method(client, "batch.jobs.get", False)(job_id="b-1")
        case "mistral.moderation":
            return method(client, "classifiers.moderate", False)(model=model, inputs=sent["input"])
        case "mistral.ocr":
            document = {"type": "document_url", "document_url": "https://x.example/a.pdf"}
            return method(client, "ocr.process", False)(model=model, document=document)
        case "mistral.speech":
            return method(client, "audio.speech.complete", False)(model=model, input=sent["input"])
        case _:
            file = {"file_name": "a.wav", "content": b"RIFF"}
            return method(client, "audio.transcriptions.complete", False)(model=model, file=file)


def expected(exchange: dict[str, Any]) -> dict[str, Any]:
    """What the provider bills, as the span names it."""
    usage = exchange["usage"] or {}
    if exchange["api"] == "mistral.speech":
        return {"characters": len(exchange["request"]["body"]["input"])}
    if exchange["api"] == "mistral.moderation":
        return {}  # the SDK drops it
    names = {
        "pages_processed": "pages",
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "prompt_audio_seconds": "audio_seconds",
    }
    return {names[name]: count for name, count in usage.items() if name in names}


@pytest.mark.parametrize(
    "exchange",
    exchanges("mistral.batch", "mistral.moderation", "mistral.ocr", "mistral.speech", "mistral.transcription"),
    ids=lambda exchange: exchange["id"],
)
def test_recorded(watched: Watched, exchange: dict[str, Any]) -> None:
    with replying(lambda *_: exchange["response"]["body"]) as server:
        client = a_client(server)
        call(client, exchange)
    if exchange["api"] == "mistral.batch":  # a job that is running, or whose answers are in a file
        assert watched.spans() == []
    else:
        assert watched.usage() == expected(exchange)
