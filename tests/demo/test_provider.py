"""The demo's loopback provider, read by the real SDK clients: what they parse, and what they are billed for.

Every test is one exchange: what goes in, the usage that comes back.
"""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from google import genai

from costspan.demo.provider import Answer, Block, DemoProvider, PromptCache, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = "A briefing that is long enough for a cache. " * 200
SIZE = len(tokens(LONG))
PONG = "Pong, and pong again."
OUT = len(tokens(PONG))
USER = len(Block("user", "ping").tokens)
"""Tokens of the question: the word, and one for the role."""


@pytest.fixture
def provider() -> Iterator[DemoProvider]:
    with DemoProvider({"ping": Answer(PONG), "think": Answer(PONG, thoughts=40)}) as provider:
        yield provider


def openai_client(provider: DemoProvider, kind: str = "OpenAI") -> Any:
    return getattr(openai, kind)(api_key="x", base_url=provider.openai, max_retries=0)


def anthropic_client(provider: DemoProvider, kind: str = "Anthropic") -> Any:
    return getattr(anthropic, kind)(api_key="x", base_url=provider.url, max_retries=0)


CHAT: dict[str, Any] = {
    "model": "gpt-4.1",
    "messages": [{"role": "system", "content": LONG}, {"role": "user", "content": "ping"}],
}
PROMPT = SIZE + 1 + USER
CACHED = (PROMPT - 1) // 128 * 128
"""What OpenAI reads from its cache when the same prompt comes again: whole blocks of 128, never all of it."""


class TestOpenAIChat:
    def test_plain(self, provider: DemoProvider) -> None:
        answer = openai_client(provider).chat.completions.create(**CHAT)
        assert answer.id.startswith("chatcmpl-")
        assert answer.model == "gpt-4.1-2025-04-14"
        assert answer.choices[0].message.content == PONG
        assert answer.choices[0].finish_reason == "stop"
        usage = answer.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (PROMPT, OUT, PROMPT + OUT)
        assert usage.prompt_tokens_details.cached_tokens == 0

    def test_the_same_prompt_again_is_cached_in_steps_of_128(self, provider: DemoProvider) -> None:
        client = openai_client(provider)
        client.chat.completions.create(**CHAT)
        assert client.chat.completions.create(**CHAT).usage.prompt_tokens_details.cached_tokens == CACHED

    def test_a_short_prompt_is_never_cached(self, provider: DemoProvider) -> None:
        client = openai_client(provider)
        short = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "ping"}]}
        client.chat.completions.create(**short)
        assert client.chat.completions.create(**short).usage.prompt_tokens_details.cached_tokens == 0

    def test_streamed_with_usage_in_a_last_chunk_of_its_own(self, provider: DemoProvider) -> None:
        chunks = list(
            openai_client(provider).chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == PONG
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], PROMPT)
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert len({chunk.id for chunk in chunks}) == 1

    def test_streamed_without_asking_for_usage_there_is_none(self, provider: DemoProvider) -> None:
        chunks = list(openai_client(provider).chat.completions.create(**CHAT, stream=True))
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)

    def test_cut_at_the_limit(self, provider: DemoProvider) -> None:
        answer = openai_client(provider).chat.completions.create(**CHAT, max_tokens=2)
        assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 2)

    async def test_async_and_streamed_async(self, provider: DemoProvider) -> None:
        async with openai_client(provider, "AsyncOpenAI") as client:
            assert (await client.chat.completions.create(**CHAT)).choices[0].message.content == PONG
            stream = await client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].usage.prompt_tokens_details.cached_tokens == CACHED


class TestOpenAIResponses:
    @pytest.fixture
    def client(self, provider: DemoProvider) -> Any:
        client = openai_client(provider)
        if not hasattr(client, "responses"):
            pytest.skip("this version has no responses API")
        return client

    def test_plain(self, client: Any) -> None:
        answer = client.responses.create(model="gpt-5.4-mini", instructions=LONG, input="ping")
        assert (answer.status, answer.output_text, answer.model) == ("completed", PONG, "gpt-5.4-mini-2026-03-17")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT, OUT)
        again = client.responses.create(model="gpt-5.4-mini", instructions=LONG, input="ping")
        assert again.usage.input_tokens_details.cached_tokens == CACHED

    def test_cut_at_the_limit(self, client: Any) -> None:
        answer = client.responses.create(model="gpt-5.4-mini", input="ping", max_output_tokens=2)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")

    def test_streamed(self, client: Any) -> None:
        said = [{"role": "user", "content": [{"type": "input_text", "text": "ping"}]}]
        events = list(client.responses.create(model="gpt-5.4-mini", input=said, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert "".join(event.delta for event in deltas) == PONG
        assert [event.type for event in events if event not in deltas] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert events[-1].response.usage.output_tokens == OUT

    def test_the_stream_helper_puts_the_response_together(self, client: Any) -> None:
        with client.responses.stream(model="gpt-5.4-mini", input="ping") as stream:
            assert stream.get_final_response().output_text == PONG


class TestOpenAIEmbeddings:
    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_vectors_of_length_one(self, provider: DemoProvider, encoding: str) -> None:
        answer = openai_client(provider).embeddings.create(
            model="text-embedding-3-small", input=["prompt caching", "other words"], encoding_format=encoding
        )
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4
        if encoding == "float":
            first, second = (item.embedding for item in answer.data)
            assert len(first) == len(second) == 1536
            assert math.hypot(*first) == pytest.approx(1)

    def test_the_client_unpacks_what_it_asked_for_packed(self, provider: DemoProvider) -> None:
        answer = openai_client(provider).embeddings.create(model="text-embedding-3-large", input="ping", dimensions=8)
        assert len(answer.data[0].embedding) == 8
        assert math.hypot(*answer.data[0].embedding) == pytest.approx(1)


def message(ttl: str | None = None, said: str = "ping") -> dict[str, Any]:
    """An Anthropic request with a breakpoint behind the briefing (1h) and one behind the question (5m)."""
    question: dict[str, Any] = {"type": "text", "text": said}
    briefing: dict[str, Any] = {"type": "text", "text": LONG}
    if ttl:
        briefing["cache_control"] = {"type": "ephemeral", "ttl": ttl}
        question["cache_control"] = {"type": "ephemeral"}
    return {
        "model": "claude-sonnet-4-6",
        "max_tokens": 100,
        "system": [briefing],
        "messages": [{"role": "user", "content": [question]}],
    }


def counts(usage: Any) -> tuple[int, int, int, int]:
    """(input, read, written for 5 minutes, written for an hour)."""
    all_of_it = usage.model_dump()
    written = all_of_it["cache_creation"]
    return (
        all_of_it["input_tokens"],
        all_of_it["cache_read_input_tokens"],
        written["ephemeral_5m_input_tokens"],
        written["ephemeral_1h_input_tokens"],
    )


class TestAnthropicMessages:
    def test_plain(self, provider: DemoProvider) -> None:
        answer = anthropic_client(provider).messages.create(**message())
        assert answer.id.startswith("msg_01")
        assert (answer.content[0].text, answer.stop_reason, answer.usage.output_tokens) == (PONG, "end_turn", OUT)
        assert answer.usage.service_tier == "standard"
        assert counts(answer.usage) == (PROMPT, 0, 0, 0)

    def test_a_conversation_writes_its_breakpoints_once_and_reads_them_afterwards(self, provider: DemoProvider) -> None:
        client = anthropic_client(provider)
        first = client.messages.create(**message("1h")).usage
        assert counts(first) == (0, 0, USER, SIZE + 1)
        assert first.cache_creation_input_tokens == PROMPT
        assert counts(client.messages.create(**message("1h")).usage) == (0, PROMPT, 0, 0)
        # the next turn: what was said before has no breakpoint any more, and is found all the same
        turn = message("1h")
        turn["messages"] = [
            {"role": "user", "content": "ping"},
            {"role": "assistant", "content": PONG},
            {"role": "user", "content": [{"type": "text", "text": "think", "cache_control": {"type": "ephemeral"}}]},
        ]
        assert counts(client.messages.create(**turn).usage) == (0, PROMPT, OUT + 1 + USER, 0)

    def test_another_model_has_a_cache_of_its_own(self, provider: DemoProvider) -> None:
        client = anthropic_client(provider)
        client.messages.create(**message("1h"))
        other = client.messages.create(**{**message("1h"), "model": "claude-haiku-4-5"})
        assert (other.model, other.usage.cache_read_input_tokens) == ("claude-haiku-4-5-20251001", 0)

    def test_streamed(self, provider: DemoProvider) -> None:
        events = list(anthropic_client(provider).messages.create(**message("1h"), stream=True))
        assert list(dict.fromkeys(event.type for event in events)) == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert counts(events[0].message.usage) == (0, 0, USER, SIZE + 1)
        assert events[0].message.usage.output_tokens == 1
        assert events[-2].usage.output_tokens == OUT

    def test_the_stream_helper_puts_the_message_together(self, provider: DemoProvider) -> None:
        with anthropic_client(provider).messages.stream(**message()) as stream:
            assert "".join(stream.text_stream) == PONG
            final = stream.get_final_message()
        assert (final.stop_reason, counts(final.usage), final.usage.output_tokens) == (
            "end_turn",
            (PROMPT, 0, 0, 0),
            OUT,
        )

    async def test_async_and_streamed_async(self, provider: DemoProvider) -> None:
        async with anthropic_client(provider, "AsyncAnthropic") as client:
            assert (await client.messages.create(**message())).content[0].text == PONG
            async with client.messages.stream(**message()) as stream:
                assert "".join([text async for text in stream.text_stream]) == PONG

    def test_cut_at_the_limit(self, provider: DemoProvider) -> None:
        answer = anthropic_client(provider).messages.create(**{**message(), "max_tokens": 2})
        assert (answer.stop_reason, answer.usage.output_tokens) == ("max_tokens", 2)


GENERATE: dict[str, Any] = {"model": "gemini-3.5-flash", "contents": "think", "config": {"system_instruction": LONG}}


class TestGemini:
    @pytest.fixture
    def client(self, provider: DemoProvider) -> Any:
        return genai.Client(api_key="x", vertexai=False, http_options={"base_url": provider.url})

    def test_plain(self, client: Any) -> None:
        answer = client.models.generate_content(**GENERATE)
        assert (answer.text, answer.candidates[0].finish_reason.value) == (PONG, "STOP")
        assert answer.model_version == "gemini-3.5-flash"
        usage = answer.usage_metadata
        assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (PROMPT, OUT, 40)
        assert usage.total_token_count == PROMPT + OUT + 40
        assert usage.cached_content_token_count is None

    def test_the_same_prompt_again_is_cached(self, client: Any) -> None:
        client.models.generate_content(**GENERATE)
        usage = client.models.generate_content(**GENERATE).usage_metadata
        assert usage.cached_content_token_count == PROMPT - 1
        assert usage.cache_tokens_details[0].token_count == PROMPT - 1

    def test_streamed(self, client: Any) -> None:
        chunks = list(client.models.generate_content_stream(**GENERATE))
        assert "".join(chunk.text for chunk in chunks) == PONG
        assert chunks[-1].usage_metadata.candidates_token_count == OUT
        assert chunks[-1].candidates[0].finish_reason.value == "STOP"

    async def test_async_and_streamed_async(self, client: Any) -> None:
        assert (await client.aio.models.generate_content(**GENERATE)).text == PONG
        chunks = [chunk async for chunk in await client.aio.models.generate_content_stream(**GENERATE)]
        assert "".join(chunk.text for chunk in chunks) == PONG

    def test_thinking_counts_against_the_limit(self, client: Any) -> None:
        config = {"system_instruction": LONG, "max_output_tokens": 42}
        answer = client.models.generate_content(**{**GENERATE, "config": config})
        assert answer.candidates[0].finish_reason.value == "MAX_TOKENS"
        assert answer.usage_metadata.candidates_token_count == 2


class TestWhatIsWrong:
    def test_an_unknown_route_is_not_found(self, provider: DemoProvider) -> None:
        with pytest.raises(openai.NotFoundError):
            openai_client(provider).images.generate(model="x", prompt="y")

    def test_a_request_that_lacks_something_is_refused(self, provider: DemoProvider) -> None:
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            anthropic_client(provider).messages.create(**{**message(), "max_tokens": "many"}, stream=True)

    def test_an_unknown_question_gets_an_answer(self, provider: DemoProvider) -> None:
        said = [{"role": "user", "content": "Who are you?"}]
        answer = openai_client(provider).chat.completions.create(model="gpt-4.1", messages=said)
        assert "one conversation only" in answer.choices[0].message.content

    def test_a_client_that_hangs_up_disturbs_nobody(
        self, provider: DemoProvider, capfd: pytest.CaptureFixture[str]
    ) -> None:
        stream = openai_client(provider).chat.completions.create(**CHAT, stream=True)
        next(stream)
        stream.close()
        with socket.create_connection(("127.0.0.1", int(provider.url.rsplit(":", 1)[1]))) as raw:
            raw.sendall(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 3\r\n\r\n{]}")
            assert raw.recv(64).startswith(b"HTTP/1.1 400")
        assert openai_client(provider).chat.completions.create(**CHAT).choices
        assert capfd.readouterr().err == ""


def test_an_entry_of_the_cache_ends_with_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("costspan.demo.provider.time.monotonic", lambda: clock)
    cache = PromptCache()
    prompt = [Block("system", LONG, "1h"), Block("user", "ping", "5m")]
    cache.explicit("model", prompt)
    clock += 301
    assert cache.explicit("model", prompt) == (SIZE + 1, {"5m": USER, "1h": 0})
    clock += 3601
    assert cache.explicit("model", prompt) == (0, {"5m": USER, "1h": SIZE + 1})


@pytest.mark.parametrize("text", ["", "Naïve café – 12,345 €\n\n", "  two  spaces ", "日本語 text", "a_b\t"])
def test_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
