"""SDKs whose streams make their chunks themselves, keep the usage, and may record their calls in a thread of their own.

As LiteLLM does, which the environment of these tests lacks.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace

from costspan_instrumentation import semconv
from costspan_instrumentation.provider import Attributes, Endpoint, Provider, Seen
from costspan_processor import Processing

from .watched import Watched, finished, items, watching

both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class Stream:
    """A stream of three texts; what they cost it knows when it has ended."""

    def __init__(self, fails: bool = False) -> None:
        self.left = ["They ", "carry ", "us."]
        self.usage: dict[str, int] | None = None
        self.fails = fails

    def __iter__(self) -> Iterator[Any]:
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    def _next(self, end: type[Exception]) -> Any:
        if self.left:
            return SimpleNamespace(text=self.left.pop(0), id="answer-1")
        if self.fails:
            raise ConnectionError("cut")
        self.usage = {"sent": 12, "got": 3}
        raise end

    def __next__(self) -> Any:
        return self._next(StopIteration)

    async def __anext__(self) -> Any:
        return self._next(StopAsyncIteration)

    def close(self) -> None:
        self.left = []


def chunk(part: Any, seen: Seen) -> bool:
    seen.characters += len(part.text)
    seen.attributes[semconv.RESPONSE_ID] = part.id
    return bool(part.text == "hidden")


def gathered(stream: Any, seen: Seen) -> None:
    if stream.usage is not None:
        seen.attributes |= {semconv.INPUT_TOKENS: stream.usage["sent"], semconv.OUTPUT_TOKENS: stream.usage["got"]}
        seen.final = True


def request(arguments: Any) -> Attributes:
    return {semconv.REQUEST_MODEL: arguments["model"], semconv.PROVIDER: "openai"}


TOY = Provider(
    name="toy",
    requires="toy",
    base_url=lambda _: None,
    iterator="__next__",
    records=True,
    endpoints=(
        Endpoint(
            "toy_sdk",
            "ask",
            semconv.CHAT,
            request,
            lambda _: {},
            chunk,
            gathered=gathered,
            async_method="aask",
            positional=("model",),
        ),
    ),
)


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("toy_sdk")

    def ask(_model: str, **stream: Any) -> Stream:
        module.current = trace.get_current_span()
        return Stream(**stream)

    async def aask(_model: str, **stream: Any) -> Stream:
        return Stream(**stream)

    module.ask, module.aask = ask, aask
    monkeypatch.setitem(sys.modules, "toy_sdk", module)
    return module


@pytest.fixture
def watched(sdk: ModuleType) -> Iterator[Watched]:
    with watching(TOY) as watched:
        yield watched


@both
async def test_the_stream_stays_the_sdks_and_is_asked_what_it_kept(sdk: Any, watched: Watched, is_async: bool) -> None:
    stream = await finished((sdk.aask if is_async else sdk.ask)("gpt-4.1"), is_async)
    assert type(stream) is Stream
    assert [part.text for part in await items(stream, is_async)] == ["They ", "carry ", "us."]
    told = watched.one()
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (12, 3)
    assert told["gen_ai.response.time_to_first_chunk"] >= 0
    assert "error.type" not in told


@both
async def test_a_broken_stream_ends_with_its_error(sdk: Any, watched: Watched, is_async: bool) -> None:
    stream = await finished((sdk.aask if is_async else sdk.ask)("gpt-4.1", fails=True), is_async)
    with pytest.raises(ConnectionError):
        await items(stream, is_async)
    told = watched.one()
    assert told["error.type"] == "ConnectionError"
    assert told["costspan.usage.estimated"] is True


def test_a_closed_and_a_dropped_stream_are_estimated(sdk: Any, watched: Watched) -> None:
    stream = sdk.ask("gpt-4.1")
    next(stream)
    stream.close()
    assert watched.usage() == {"input_tokens": 0, "output_tokens": 2, "estimated": True}
    stream = sdk.ask("gpt-4.1")
    next(stream)
    del stream
    assert watched.usage() == {"input_tokens": 0, "output_tokens": 2, "estimated": True}


def test_a_stream_of_nobodys_is_let_through_and_the_class_is_given_back(sdk: Any, watched: Watched) -> None:
    list(sdk.ask("gpt-4.1"))
    watched.spans()
    assert len(list(Stream())) == 3
    assert watched.spans() == []
    watched.engine.uninstrument(TOY)
    assert "wrapt" not in type(vars(Stream)["__next__"]).__module__
    assert len(list(sdk.ask("gpt-4.1"))) == 3
    assert watched.spans() == []


def test_a_span_that_the_sdk_makes_of_the_call_is_a_roll_up(sdk: Any, watched: Watched) -> None:
    processing = Processing(watched.traces, counted=watched.engine.has_counted)
    processing.start()
    watched.engine.start(watched.traces.get_tracer("ours"), processing.observer)
    theirs = watched.traces.get_tracer("toy")
    told: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
    }
    stream = sdk.ask("gpt-4.1")
    # The SDK would have taken our span for the application's.
    assert not sdk.current.get_span_context().is_valid
    next(stream)
    # It may record the call before the application knows that the stream has ended.
    theirs.start_span("recorded", attributes={**told, "gen_ai.response.id": "answer-1"}).end()
    list(stream)
    theirs.start_span("another", attributes={**told, "gen_ai.response.id": "answer-2"}).end()
    processing.shutdown()
    spans = {span.name: span.attributes or {} for span in watched.spans()}
    assert spans["recorded"]["costspan.rollup"] is True
    assert "costspan.cost.status" not in spans["recorded"]
    assert spans["chat gpt-4.1"]["costspan.cost.status"] == "priced"
    assert spans["another"]["costspan.cost.status"] == "priced"
