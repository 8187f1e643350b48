"""The engine on the real OpenAI SDK over real HTTP: the application sees what it would see without us."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
from openai.resources.chat.completions import AsyncCompletions, Completions
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from costspan_instrumentation.engine import Engine
from costspan_instrumentation.providers.openai import OPENAI

from .loopback import Answer, Loopback, ToLoopback, chat, chunks, response, serve

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 8},
}
ASK: Any = [{"role": "user", "content": "Say hello to twelve"}]


@dataclass
class Said:
    """A decision of the test's observer."""

    token: object = None
    refuse: BaseException | None = None
    overrides: dict[str, object] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class Watcher:
    """An observer that remembers what it was told, and decides what a test wants."""

    def __init__(self) -> None:
        self.decision: Said | None = None
        self.after_calls: list[dict[str, Any]] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.raises: BaseException | None = None
        self.prompt_characters: list[int] = []
        self.may_swap: list[bool] = []

    def before(self, attributes: Any, characters: Callable[[], int], may_swap: Callable[[], bool]) -> Said | None:
        self.may_swap.append(may_swap())
        self.prompt_characters.append(characters())
        if self.raises:
            raise self.raises
        return self.decision

    async def abefore(
        self, attributes: Any, characters: Callable[[], int], may_swap: Callable[[], bool]
    ) -> Said | None:
        return self.before(attributes, characters, may_swap)

    def after(self, token: object, attributes: Any, at: int, duration: float, first_chunk: Any, context: Any) -> Any:
        self.after_calls.append({**attributes, "token": token, "duration": duration, "first_chunk": first_chunk})
        if self.raises:
            raise self.raises
        return {"costspan.cost.status": "priced"}

    def failed(self, where: str, error: BaseException) -> None:
        self.failures.append((where, error))


@dataclass
class Bench:
    """A provider, an engine that watches the SDK, and the spans that come out."""

    server: Loopback
    engine: Engine
    watcher: Watcher
    memory: InMemorySpanExporter

    def client(self, **more: Any) -> openai.OpenAI:
        """A client that knows the server by its own address."""
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="k", **{"max_retries": 0, **more})

    def openai_client(self) -> openai.OpenAI:
        """A client that believes to talk to api.openai.com."""
        http = openai.DefaultHttpxClient(transport=ToLoopback(self.server.url))
        return openai.OpenAI(api_key="k", max_retries=0, http_client=http)

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key="k", max_retries=0)

    def spans(self) -> list[ReadableSpan]:
        self.engine.drain()
        return list(self.memory.get_finished_spans())

    def span(self) -> ReadableSpan:
        (only,) = self.spans()
        return only


@pytest.fixture
def bench() -> Iterator[Bench]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    engine, watcher = Engine(), Watcher()
    engine.start(provider.get_tracer("test"), watcher)
    engine.instrument(OPENAI)
    with serve() as server:
        yield Bench(server, engine, watcher, memory)
    engine.uninstrument(OPENAI)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# ---------------------------------------------------------------- what a call says


def test_a_chat_call_becomes_one_client_span_with_inclusive_totals(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))

    answer = bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, max_tokens=50, n=1)

    assert answer.choices[0].message.content == "Hello there"
    span = bench.span()
    assert span.name == "chat gpt-4.1"
    assert span.kind is trace.SpanKind.CLIENT
    told = attributes(span)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "gpt-4.1"
    assert told["gen_ai.request.max_tokens"] == 50
    assert "gen_ai.request.choice.count" not in told  # 1 is the default and says nothing
    assert told["gen_ai.response.model"] == "gpt-4.1-2025-04-14"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["gen_ai.usage.input_tokens"] == 12
    assert told["gen_ai.usage.cache_read.input_tokens"] == 8
    assert told["gen_ai.usage.output_tokens"] == 3
    assert told["costspan.cost.status"] == "priced"  # what the observer adds is on the span before it ends
    assert bench.watcher.prompt_characters == [len("Say hello to twelve")]


async def test_an_async_call_says_the_same(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))

    await bench.async_client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


def test_the_span_is_current_while_the_request_is_made_and_no_longer(bench: Bench) -> None:
    seen: list[int] = []

    class Spy(ToLoopback):
        def handle_request(self, request: Any) -> Any:
            seen.append(trace.get_current_span().get_span_context().span_id)
            return super().handle_request(request)

    bench.server.answer = Answer(events=chunks("a", "b", usage=USAGE))
    client = bench.client(http_client=openai.DefaultHttpxClient(transport=Spy(bench.server.url)))

    for _ in client.chat.completions.create(model="gpt-4.1", messages=ASK, stream=True):
        assert not trace.get_current_span().get_span_context().is_valid

    context = bench.span().context
    assert context is not None
    assert seen == [context.span_id]


# ---------------------------------------------------------------- streams


def test_a_stream_is_the_sdks_own_object_and_ends_its_span_with_its_last_chunk(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hel", "lo", usage=USAGE))

    stream = bench.client().chat.completions.create(
        model="gpt-4.1", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert type(stream) is openai.Stream
    assert bench.spans() == []
    seen = list(stream)

    assert [chunk.choices[0].delta.content for chunk in seen if chunk.choices] == ["Hel", "lo", None]
    assert seen[-1].usage is not None  # the application asked for it and gets it
    told = attributes(bench.span())
    assert told["gen_ai.usage.input_tokens"] == 12
    assert told["gen_ai.request.stream"] is True
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < 60
    assert "costspan.usage.estimated" not in told


def test_openai_is_asked_for_the_usage_and_the_extra_chunk_is_hidden(bench: Bench) -> None:
    events = [{**event, "usage": event.get("usage")} for event in chunks("Hi", " there", usage=USAGE)]
    bench.server.answer = Answer(events=events)

    seen = list(bench.openai_client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))

    assert bench.server.requests[0]["stream_options"] == {"include_usage": True}
    assert all(chunk.choices for chunk in seen)
    assert all("usage" not in chunk.to_dict() for chunk in seen)  # no trace of the asking
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


def test_a_raw_stream_is_not_asked_for_what_could_not_be_hidden(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hi", " there"))

    raw = bench.openai_client().chat.completions.with_raw_response.create(model="gpt-4.1", messages=ASK, stream=True)

    assert len(list(raw.parse())) == 3
    assert "stream_options" not in bench.server.requests[0]
    assert attributes(bench.span())["costspan.usage.estimated"] is True


def test_every_chunk_is_read_whatever_it_holds_beside_its_text(bench: Bench) -> None:
    head, last = chunks("Hel")
    no_delta = {**head, "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"start_offset": 0}}]}
    two = [{"index": n, "delta": {"content": "lo there you"}, "finish_reason": None} for n in (0, 1)]
    text_and_end = {**head, "choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "length"}]}
    tool = [{"index": 0, "function": {"arguments": "{}"}}]
    tool_delta = {**head, "choices": [{"index": 0, "delta": {"tool_calls": tool}, "finish_reason": None}]}
    nothing = {**head, "choices": []}
    bench.server.answer = Answer(
        events=[head, no_delta, {**head, "choices": two}, tool_delta, nothing, text_and_end, last]
    )

    seen = list(bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))

    assert len(seen) == 7
    assert bench.watcher.failures == []
    told = attributes(bench.span())
    assert told["gen_ai.usage.output_tokens"] == 7  # 28 characters
    assert told["gen_ai.response.finish_reasons"] == ("length", "stop")


def test_each_of_several_answers_ends_by_itself(bench: Bench) -> None:
    def of(number: int, reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": number, "delta": {"content": "."}, "finish_reason": reason}]}

    head, *_ = chunks("Hello")
    end = {**head, "choices": [], "usage": USAGE}
    bench.server.answer = Answer(events=[of(0), of(1), of(1, "length"), *[of(0)] * 50, of(0, "stop"), end])

    list(bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True, n=2))

    assert attributes(bench.span())["gen_ai.response.finish_reasons"] == ("length", "stop")


def test_a_long_stream_that_is_left_is_as_long_as_its_last_chunks_are_on_average(bench: Bench) -> None:
    head, *_ = chunks("Hello")
    words = [{**head, "choices": [{"index": 0, "delta": {"content": "x" * 8}, "finish_reason": None}]}] * 500
    bench.server.answer = Answer(events=[head, *words])

    list(bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))

    told = attributes(bench.span())
    assert (told["gen_ai.usage.output_tokens"], told["costspan.usage.estimated"]) == (1002, True)


def test_usage_on_a_chunk_that_goes_on_is_the_last_word_of_a_stream_that_is_left(bench: Bench) -> None:
    head, *_ = chunks("Hello there")
    bench.server.answer = Answer(events=[head, {**head, "usage": USAGE}, head])

    with bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True) as stream:
        assert [next(stream).usage is None, next(stream).usage is None] == [True, False]

    told = attributes(bench.span())
    assert told["gen_ai.usage.output_tokens"] == 3
    assert "costspan.usage.estimated" not in told
    assert "costspan.stream.aborted" not in told


def test_a_stream_may_be_read_by_turns_with_next_and_in_loops(bench: Bench) -> None:
    texts = ("one", "two", "three", "four")
    bench.server.answer = Answer(events=chunks(*texts, usage=USAGE))
    stream = bench.client().chat.completions.create(
        model="gpt-4.1", messages=ASK, stream=True, stream_options={"include_usage": True}
    )

    seen = [next(stream)]
    for chunk in stream:
        seen.append(chunk)
        break
    assert bench.spans() == []
    seen += [next(stream), *stream]

    assert [chunk.choices[0].delta.content for chunk in seen[:4]] == list(texts)
    with pytest.raises(StopIteration):
        next(stream)
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


async def test_an_async_stream_hides_what_the_asking_caused(bench: Bench) -> None:
    events = [{**event, "usage": event.get("usage")} for event in chunks("Hi", " there", usage=USAGE)]
    sent = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, text=sent))
    client = openai.AsyncOpenAI(api_key="k", http_client=openai.DefaultAsyncHttpxClient(transport=transport))

    seen = [c async for c in await client.chat.completions.create(model="gpt-4.1", messages=ASK, stream=True)]

    assert all(chunk.choices and "usage" not in chunk.to_dict() for chunk in seen)
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


def test_an_unknown_host_is_asked_nothing_and_the_usage_is_an_estimate(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hello", " there."))

    list(bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))

    assert "stream_options" not in bench.server.requests[0]
    told = attributes(bench.span())
    assert told["costspan.usage.estimated"] is True
    assert told["gen_ai.usage.input_tokens"] == 5  # 19 characters, four a token, rounded up
    assert told["gen_ai.usage.output_tokens"] == 3  # 12 characters
    assert "costspan.stream.aborted" not in told, "it was read to its end"


def test_the_asking_can_be_switched_off(bench: Bench) -> None:
    bench.engine.ask_for_usage = False
    bench.server.answer = Answer(events=chunks("Hi"))

    list(bench.openai_client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))

    assert "stream_options" not in bench.server.requests[0]


def test_a_stream_that_is_closed_early_ends_its_span_at_once(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("one", "two", "three"))

    with bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True) as stream:
        next(iter(stream))

    (span,) = bench.memory.get_finished_spans()
    told = attributes(span)
    assert told["costspan.usage.estimated"] is True
    assert told["gen_ai.usage.output_tokens"] == 1
    assert told["costspan.stream.aborted"] is True
    assert span.status.status_code is StatusCode.UNSET


def test_a_stream_that_is_dropped_is_counted_when_something_else_happens(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("one", "two", "three"))
    stream = bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True)
    next(iter(stream))

    del stream
    gc.collect()

    assert bench.memory.get_finished_spans() == ()  # finalizers run inside other people's locks: nothing happens there
    told = attributes(bench.span())
    assert told["costspan.usage.estimated"] is True
    assert told["costspan.stream.aborted"] is True


def test_a_connection_that_breaks_raises_what_it_would_raise_and_counts_what_came(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("one two three four", "five"), cut=1)

    stream = bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True)
    with pytest.raises(Exception) as caught:
        list(stream)

    span = bench.span()
    told = attributes(span)
    assert told["error.type"] == type(caught.value).__qualname__
    assert told["gen_ai.usage.output_tokens"] == 5
    assert span.status.status_code is StatusCode.ERROR


async def test_a_task_that_is_cancelled_ends_its_span(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE), delay=5)

    task = asyncio.create_task(bench.async_client().chat.completions.create(model="gpt-4.1", messages=ASK))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert attributes(bench.span())["error.type"] == "CancelledError"


async def test_an_async_stream_that_is_left_in_the_middle(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("one", "two", "three"))

    async with await bench.async_client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True) as stream:
        async for _ in stream:
            break

    told = attributes(bench.span())
    assert told["costspan.usage.estimated"] is True
    assert told["costspan.stream.aborted"] is True


def test_the_helper_that_parses_a_stream_is_one_call(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hel", "lo", usage=USAGE))

    with bench.client().chat.completions.stream(model="gpt-4.1", messages=ASK) as events:
        for _ in events:
            pass
        final = events.get_final_completion()

    assert final.choices[0].message.content == "Hello"
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


# ---------------------------------------------------------------- raw responses


def test_a_raw_response_is_read_without_parsing_it(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))

    raw = bench.client().chat.completions.with_raw_response.create(model="gpt-4.1", messages=ASK)

    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12
    assert raw.parse().choices[0].message.content == "Hello there"


def test_a_raw_stream_is_counted_while_the_application_reads_it(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hel", "lo", usage=USAGE))

    raw = bench.client().chat.completions.with_raw_response.create(model="gpt-4.1", messages=ASK, stream=True)
    assert len(list(raw.parse())) == 4

    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


@pytest.mark.parametrize("read", ["parse", "read", "iter_lines"])
def test_a_streaming_response_is_counted_however_it_is_read(bench: Bench, read: str) -> None:
    bench.server.answer = Answer(chat(USAGE))

    with bench.client().chat.completions.with_streaming_response.create(model="gpt-4.1", messages=ASK) as raw:
        found = getattr(raw, read)()
        if read == "iter_lines":
            list(found)

    told = attributes(bench.span())
    assert told["gen_ai.usage.input_tokens"] == 12
    assert "gen_ai.response.time_to_first_chunk" not in told


async def test_an_async_streaming_response(bench: Bench) -> None:
    bench.server.answer = Answer(events=chunks("Hel", "lo", usage=USAGE))

    async with bench.async_client().chat.completions.with_streaming_response.create(
        model="gpt-4.1", messages=ASK, stream=True
    ) as raw:
        lines = [line async for line in raw.iter_lines()]

    assert any("Hel" in line for line in lines)
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12


def test_a_raw_response_that_nobody_reads_still_ends_its_span(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))

    with bench.client().chat.completions.with_streaming_response.create(model="gpt-4.1", messages=ASK) as raw:
        pass
    del raw
    gc.collect()

    assert "gen_ai.usage.input_tokens" not in attributes(bench.span())


# ---------------------------------------------------------------- answers that are wrong


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (429, "RateLimitError"), (500, "InternalServerError")],
)
def test_an_error_status_is_raised_untouched_and_not_billed(bench: Bench, status: int, error: str) -> None:
    bench.server.answer = Answer({"error": {"message": "no"}}, status=status)

    with pytest.raises(openai.APIStatusError) as caught:
        bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert type(caught.value).__name__ == error
    span = bench.span()
    assert attributes(span)["error.type"] == error
    assert span.status.status_code is StatusCode.ERROR
    assert "gen_ai.usage.input_tokens" not in attributes(span)


def test_a_timeout(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE), delay=2)

    with pytest.raises(openai.APITimeoutError):
        bench.client(timeout=0.1).chat.completions.create(model="gpt-4.1", messages=ASK)

    assert attributes(bench.span())["error.type"] == "APITimeoutError"


def test_retries_inside_the_sdk_are_one_call(bench: Bench) -> None:
    bench.server.answer = Answer({"error": {"message": "busy"}}, status=500)

    with pytest.raises(openai.InternalServerError):
        bench.client(max_retries=1).chat.completions.create(model="gpt-4.1", messages=ASK)

    assert len(bench.server.requests) == 2
    assert len(bench.spans()) == 1


@pytest.mark.parametrize(
    ("usage", "key", "value"),
    [
        ({**USAGE, "prompt_tokens": -5}, "gen_ai.usage.input_tokens", -5),
        ({**USAGE, "prompt_tokens": "many"}, "gen_ai.usage.input_tokens", "many"),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 99}}, "gen_ai.usage.cache_read.input_tokens", 99),
    ],
)
def test_usage_that_cannot_be_is_passed_on_for_pricing_to_judge(
    bench: Bench, usage: dict[str, Any], key: str, value: object
) -> None:
    bench.server.answer = Answer(chat(usage))

    bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert attributes(bench.span())[key] == value


def test_no_usage_is_no_usage(bench: Bench) -> None:
    bench.server.answer = Answer(chat(None))

    bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert "gen_ai.usage.input_tokens" not in attributes(bench.span())


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"[]", b'"text"', b"null"])
def test_a_body_that_is_no_completion_gives_what_the_sdk_makes_of_it(bench: Bench, body: bytes) -> None:
    bench.server.answer = Answer(raw=body)

    def outcome() -> object:
        try:
            return bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)
        except Exception as error:
            return type(error)

    watched = outcome()
    assert len(bench.spans()) == 1
    bench.engine.uninstrument(OPENAI)
    assert watched == outcome()


# ---------------------------------------------------------------- our own faults


def test_an_observer_that_raises_everywhere_changes_nothing(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))
    bench.watcher.raises = RuntimeError("a fault of ours")

    answer = bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert answer.usage is not None
    assert attributes(bench.span())["gen_ai.usage.input_tokens"] == 12
    assert [where for where, _ in bench.watcher.failures] == ["before", "after"]


def test_a_reader_that_raises_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from costspan_instrumentation.providers.openai import chat as table

    monkeypatch.setattr(table, "identity", lambda _: 1 / 0)
    bench.server.answer = Answer(chat(USAGE))
    assert bench.client().chat.completions.create(model="gpt-4.1", messages=ASK).usage is not None
    bench.server.answer = Answer(events=chunks("a", "b"))
    assert len(list(bench.client().chat.completions.create(model="gpt-4.1", messages=ASK, stream=True))) == 3

    assert len(bench.spans()) == 2
    assert {where for where, _ in bench.watcher.failures} == {"response", "chunk"}


# ---------------------------------------------------------------- decisions


def test_a_refused_call_is_never_sent_and_has_a_span_that_says_so(bench: Bench) -> None:
    refusal = PermissionError("over budget")
    bench.watcher.decision = Said(refuse=refusal, attributes={"costspan.budget.status": "refused"})

    with pytest.raises(PermissionError) as caught:
        bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert caught.value is refusal
    assert bench.server.requests == []
    assert bench.watcher.after_calls == []
    span = bench.span()
    assert attributes(span)["costspan.budget.status"] == "refused"
    assert attributes(span)["error.type"] == "PermissionError"


async def test_a_refused_async_call(bench: Bench) -> None:
    bench.watcher.decision = Said(refuse=PermissionError("over budget"))

    with pytest.raises(PermissionError):
        await bench.async_client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert bench.server.requests == []


def test_another_model_can_be_put_in_the_place_of_the_one_asked_for(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))
    bench.watcher.decision = Said(token="t", overrides={"model": "gpt-4.1-nano"})

    bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert bench.server.requests[0]["model"] == "gpt-4.1-nano"
    assert bench.span().name == "chat gpt-4.1-nano"
    assert bench.watcher.after_calls[0]["token"] == "t"


def test_suppressed_instrumentation_makes_no_span_but_the_money_counts(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))

    with suppress_instrumentation():
        bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert bench.spans() == []
    assert bench.watcher.after_calls[0]["gen_ai.usage.input_tokens"] == 12


# ---------------------------------------------------------------- stored responses


def test_a_background_response_is_counted_when_it_is_fetched_and_only_once(bench: Bench) -> None:
    usage = {
        "input_tokens": 12,
        "output_tokens": 3,
        "total_tokens": 15,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    client = bench.client()
    bench.server.answer = Answer(response("queued", background=True))
    client.responses.create(model="gpt-4.1", input="hi", background=True)
    client.responses.retrieve("resp_1")  # still queued
    bench.server.answer = Answer(response("completed", background=True, usage=usage))
    client.responses.retrieve("resp_1")
    client.responses.retrieve("resp_1")

    made, waiting, first, again = bench.spans()
    assert "gen_ai.usage.input_tokens" not in attributes(made)
    assert waiting.name.startswith("fetch_response")
    assert attributes(first)["gen_ai.usage.input_tokens"] == 12
    assert attributes(first)["gen_ai.operation.name"] == "chat"
    assert "gen_ai.usage.input_tokens" not in attributes(again)
    assert len(bench.watcher.after_calls) == 2  # the call that was made, and the fetch that told its usage


def test_an_ordinary_response_that_is_fetched_again_costs_nothing(bench: Bench) -> None:
    bench.server.answer = Answer(response(usage={"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}))

    bench.client().responses.retrieve("resp_1")

    assert attributes(bench.span())["gen_ai.operation.name"] == "fetch_response"
    assert bench.watcher.after_calls == []


# ---------------------------------------------------------------- coming and going


def test_uninstrument_puts_the_very_functions_back(bench: Bench) -> None:
    bench.engine.uninstrument(OPENAI)
    originals = (Completions.create, AsyncCompletions.create)
    bench.engine.instrument(OPENAI)
    assert Completions.create is not originals[0]

    bench.engine.uninstrument(OPENAI)

    assert (Completions.create, AsyncCompletions.create) == originals


def test_a_method_that_was_kept_from_before_passes_through_afterwards(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE))
    kept = bench.client().chat.completions.with_raw_response.create

    bench.engine.uninstrument(OPENAI)
    kept(model="gpt-4.1", messages=ASK)

    assert bench.spans() == []


def test_two_engines_and_a_second_instrument_patch_once(bench: Bench) -> None:
    bench.engine.instrument(OPENAI)
    bench.server.answer = Answer(chat(USAGE))

    bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    assert len(bench.spans()) == 1


def test_a_span_starts_when_its_call_starts(bench: Bench) -> None:
    bench.server.answer = Answer(chat(USAGE), delay=0.1)
    before = time.time_ns()

    bench.client().chat.completions.create(model="gpt-4.1", messages=ASK)

    span = bench.span()
    assert span.start_time is not None
    assert span.end_time is not None
    assert before <= span.start_time
    assert span.end_time - span.start_time >= 100_000_000
    assert bench.watcher.after_calls[0]["duration"] >= 0.1


def test_a_method_that_calls_another_patched_one_is_one_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Completions.create
    monkeypatch.setattr(Completions, "parse", lambda self, **kwargs: inner(self, **kwargs))
    bench.engine.uninstrument(OPENAI)
    bench.engine.instrument(OPENAI)
    bench.server.answer = Answer(chat(USAGE))

    bench.client().chat.completions.parse(model="gpt-4.1", messages=ASK)

    assert len(bench.spans()) == 1
