"""Every way of calling each SDK makes exactly one span with the tokens that the SDK itself reports.

Runs against whatever versions are installed; `.ci/sdk-versions` runs it on the oldest, a middle and the newest ones.
An SDK that is missing, or a method that this version lacks, is skipped.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan.demo.provider import DemoProvider
from costspan_instrumentation.engine import Engine
from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_instrumentation.providers.google import GOOGLE
from costspan_instrumentation.providers.openai import OPENAI

ASK: Any = [{"role": "user", "content": "Say something about bridges"}]


@dataclass
class Seen:
    """The provider's address and the spans of the calls that were made to it."""

    url: str
    engine: Engine
    memory: InMemorySpanExporter

    def one(self, operation: str, tokens_in: int | None, tokens_out: int | None) -> None:
        """Exactly one span, and it says these totals."""
        gc.collect()
        self.engine.drain()
        (span,) = self.memory.get_finished_spans()
        told = dict(span.attributes or {})
        assert told["gen_ai.operation.name"] == operation
        assert (told.get("gen_ai.usage.input_tokens"), told.get("gen_ai.usage.output_tokens")) == (
            tokens_in,
            tokens_out,
        )
        assert "error.type" not in told


@pytest.fixture
def seen() -> Iterator[Seen]:
    memory = InMemorySpanExporter()
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(memory))
    engine = Engine()
    engine.start(traces.get_tracer("test"))
    for provider in (OPENAI, ANTHROPIC, GOOGLE):
        engine.instrument(provider)
    with DemoProvider({}) as provider_at:
        yield Seen(provider_at.url, engine, memory)
    for provider in (OPENAI, ANTHROPIC, GOOGLE):
        engine.uninstrument(provider)


async def finished(result: Any, is_async: bool) -> Any:
    """The result of a call, awaited if its client is asynchronous."""
    return await result if is_async else result


async def items(stream: Any, is_async: bool) -> list[Any]:
    """All chunks of a stream of either kind."""
    return [item async for item in stream] if is_async else list(stream)


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


# ---------------------------------------------------------------- openai


def openai_client(seen: Seen, is_async: bool) -> Any:
    openai = pytest.importorskip("openai")
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    return kind(base_url=f"{seen.url}/v1", api_key="k", max_retries=0)


@both
async def test_openai_chat(seen: Seen, is_async: bool) -> None:
    answer = await finished(
        openai_client(seen, is_async).chat.completions.create(model="gpt-4.1", messages=ASK), is_async
    )
    seen.one("chat", answer.usage.prompt_tokens, answer.usage.completion_tokens)


@both
async def test_openai_chat_stream(seen: Seen, is_async: bool) -> None:
    stream = await finished(
        openai_client(seen, is_async).chat.completions.create(
            model="gpt-4.1", messages=ASK, stream=True, stream_options={"include_usage": True}
        ),
        is_async,
    )
    usage = (await items(stream, is_async))[-1].usage
    seen.one("chat", usage.prompt_tokens, usage.completion_tokens)


@both
async def test_openai_chat_raw(seen: Seen, is_async: bool) -> None:
    client = openai_client(seen, is_async)
    raw = await finished(client.chat.completions.with_raw_response.create(model="gpt-4.1", messages=ASK), is_async)
    usage = raw.parse().usage
    seen.one("chat", usage.prompt_tokens, usage.completion_tokens)


@both
async def test_openai_chat_parse(seen: Seen, is_async: bool) -> None:
    client = openai_client(seen, is_async)
    completions = client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
    answer = await finished(completions.parse(model="gpt-4.1", messages=ASK), is_async)
    seen.one("chat", answer.usage.prompt_tokens, answer.usage.completion_tokens)


@both
async def test_openai_responses(seen: Seen, is_async: bool) -> None:
    client = openai_client(seen, is_async)
    if not hasattr(client, "responses"):
        pytest.skip("this version has no responses")
    answer = await finished(client.responses.create(model="gpt-4.1", input="bridges"), is_async)
    seen.one("chat", answer.usage.input_tokens, answer.usage.output_tokens)


@both
async def test_openai_responses_stream(seen: Seen, is_async: bool) -> None:
    client = openai_client(seen, is_async)
    if not hasattr(client, "responses"):
        pytest.skip("this version has no responses")
    stream = await finished(client.responses.create(model="gpt-4.1", input="bridges", stream=True), is_async)
    usage = (await items(stream, is_async))[-1].response.usage
    seen.one("chat", usage.input_tokens, usage.output_tokens)


@both
async def test_openai_embeddings(seen: Seen, is_async: bool) -> None:
    client = openai_client(seen, is_async)
    answer = await finished(client.embeddings.create(model="text-embedding-3-small", input="bridges"), is_async)
    seen.one("embeddings", answer.usage.prompt_tokens, None)


# ---------------------------------------------------------------- anthropic


def anthropic_client(seen: Seen, is_async: bool) -> Any:
    anthropic = pytest.importorskip("anthropic")
    kind = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    return kind(base_url=seen.url, api_key="k", max_retries=0)


def inclusive(usage: Any) -> int:
    """Anthropic counts what was read from and written to its cache beside the input."""
    return int(usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0))


CLAUDE: Any = {"model": "claude-sonnet-4-6", "max_tokens": 200, "messages": ASK}


@both
async def test_anthropic_messages(seen: Seen, is_async: bool) -> None:
    answer = await finished(anthropic_client(seen, is_async).messages.create(**CLAUDE), is_async)
    seen.one("chat", inclusive(answer.usage), answer.usage.output_tokens)


@both
async def test_anthropic_messages_stream(seen: Seen, is_async: bool) -> None:
    stream = await finished(anthropic_client(seen, is_async).messages.create(**CLAUDE, stream=True), is_async)
    events = await items(stream, is_async)
    start = next(event for event in events if event.type == "message_start").message.usage
    delta = next(event for event in events if event.type == "message_delta").usage
    seen.one("chat", inclusive(start), delta.output_tokens)


@both
@pytest.mark.parametrize("beta", [False, True], ids=["messages", "beta"])
async def test_anthropic_stream_helper(seen: Seen, is_async: bool, beta: bool) -> None:
    client = anthropic_client(seen, is_async)
    messages = client.beta.messages if beta else client.messages
    if not hasattr(messages, "stream"):
        pytest.skip("this version has no such helper")
    manager = messages.stream(**CLAUDE)
    if is_async:
        async with manager as stream:
            final = await stream.get_final_message()
    else:
        with manager as stream:
            final = stream.get_final_message()
    seen.one("chat", inclusive(final.usage), final.usage.output_tokens)


@both
async def test_anthropic_raw(seen: Seen, is_async: bool) -> None:
    raw = await finished(anthropic_client(seen, is_async).messages.with_raw_response.create(**CLAUDE), is_async)
    parsed = raw.parse()
    usage = (await parsed if inspect.isawaitable(parsed) else parsed).usage
    seen.one("chat", inclusive(usage), usage.output_tokens)


@both
async def test_anthropic_beta(seen: Seen, is_async: bool) -> None:
    answer = await finished(anthropic_client(seen, is_async).beta.messages.create(**CLAUDE), is_async)
    seen.one("chat", inclusive(answer.usage), answer.usage.output_tokens)


# ---------------------------------------------------------------- google-genai


def google_models(seen: Seen, is_async: bool) -> tuple[Any, Any]:
    genai = pytest.importorskip("google.genai")
    client = genai.Client(api_key="k", http_options={"base_url": seen.url})
    return client, client.aio if is_async else client


def generated(usage: Any) -> int:
    """Gemini counts thoughts beside the candidates."""
    return int((usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0))


GEMINI: Any = {"model": "gemini-2.5-flash", "contents": "bridges"}


@both
async def test_google_generate_content(seen: Seen, is_async: bool) -> None:
    _keep, client = google_models(seen, is_async)
    answer = await finished(client.models.generate_content(**GEMINI), is_async)
    seen.one("generate_content", answer.usage_metadata.prompt_token_count, generated(answer.usage_metadata))


@both
async def test_google_generate_content_stream(seen: Seen, is_async: bool) -> None:
    _keep, client = google_models(seen, is_async)
    stream = await finished(client.models.generate_content_stream(**GEMINI), is_async)
    usage = (await items(stream, is_async))[-1].usage_metadata
    seen.one("generate_content", usage.prompt_token_count, generated(usage))


@both
async def test_google_chat(seen: Seen, is_async: bool) -> None:
    _keep, client = google_models(seen, is_async)
    chat = client.chats.create(model="gemini-2.5-flash")
    answer = await finished(chat.send_message("bridges"), is_async)
    seen.one("generate_content", answer.usage_metadata.prompt_token_count, generated(answer.usage_metadata))
