"""Hashes of prompts: the same for the same, whatever form it comes in, and of no use without the key."""

from __future__ import annotations

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan.demo.provider import DemoProvider
from costspan.startup import PROVIDERS
from costspan_instrumentation.engine import Engine
from costspan_instrumentation.fingerprint import Fingerprints
from costspan_instrumentation.semconv import PROMPT_HASH, PROMPT_PREFIX_HASH, PROMPT_PREFIX_SHARE

CHAT = ("messages", "tools")
SYSTEM = {"role": "system", "content": "You answer in one word."}
ONE = {"role": "user", "content": "The capital of France?"}
OTHER = {"role": "user", "content": "The capital of Peru?"}
of = Fingerprints("a secret")


def test_the_same_question_is_known_again() -> None:
    asked = of(CHAT, {"messages": [SYSTEM, ONE], "model": "gpt-4.1"})
    assert of(CHAT, {"messages": ({**SYSTEM}, {**ONE}), "model": "gpt-4.1-mini"}) == asked
    other = of(CHAT, {"messages": [SYSTEM, OTHER]})
    assert other[PROMPT_HASH] != asked[PROMPT_HASH]
    assert other[PROMPT_PREFIX_HASH] == asked[PROMPT_PREFIX_HASH]
    assert asked[PROMPT_PREFIX_SHARE] == 1000 * 23 // (23 + 22)  # characters of the instruction, and of both


def test_tools_and_instructions_are_what_stands_in_front() -> None:
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    with_tools = of(CHAT, {"messages": [SYSTEM, ONE], "tools": tools})
    assert with_tools[PROMPT_PREFIX_HASH] != of(CHAT, {"messages": [SYSTEM, ONE]})[PROMPT_PREFIX_HASH]
    names = ("input", "instructions", "tools")
    one, other = (of(names, {"input": text, "instructions": "Be brief."}) for text in ("Why?", "How?"))
    assert one[PROMPT_PREFIX_HASH] == other[PROMPT_PREFIX_HASH]
    assert PROMPT_PREFIX_HASH not in of(names, {"input": "Why?"})


def test_another_key_gives_other_hashes() -> None:
    arguments = {"messages": [SYSTEM, ONE]}
    assert set(of(CHAT, arguments).values()).isdisjoint(
        {value for value in Fingerprints("another")(CHAT, arguments).values() if isinstance(value, str)}
    )


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_where_a_text_ends_matters(one: list[str], other: list[str]) -> None:
    hashes = [of(("texts",), {"texts": texts}).get(PROMPT_HASH) for texts in (one, other)]
    if any(one) and any(other):
        assert (hashes[0] == hashes[1]) == (one == other)


def test_what_can_be_read_once_is_left_alone() -> None:
    words = (word for word in ("a", "b"))
    assert of(("texts",), {"texts": words}) == {}
    assert list(words) == ["a", "b"]
    endless: list[object] = []
    endless.append(endless)
    assert of(("texts",), {"texts": endless}) == {}
    assert of(CHAT, {}) == of(CHAT, {"messages": []}) == {}


@pytest.mark.parametrize("key", ["", "a secret"])
def test_spans_of_real_clients(key: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    engine = Engine()
    engine.start(provider.get_tracer("test"), prompt_key=key)
    for name in ("costspan-openai", "costspan-anthropic"):
        engine.instrument(PROVIDERS[name])
    try:
        with DemoProvider({}) as server:
            chat = openai.OpenAI(base_url=server.openai, api_key="none", max_retries=0).chat.completions
            chat.create(model="gpt-4.1", messages=[SYSTEM, ONE])  # type: ignore[list-item]
            chat.create(model="gpt-4.1", messages=[SYSTEM, ONE])  # type: ignore[list-item]
            anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0).messages.create(
                model="claude-sonnet-4-5",
                max_tokens=9,
                system="You answer in one word.",
                messages=[ONE],  # type: ignore[list-item]
            )
    finally:
        for name in ("costspan-openai", "costspan-anthropic"):
            engine.uninstrument(PROVIDERS[name])
    found = [(span.attributes or {}).get(PROMPT_HASH) for span in exporter.get_finished_spans()]
    if key:
        assert found[0] is not None
        assert found[0] == found[1] != found[2]
        assert all((span.attributes or {}).get(PROMPT_PREFIX_HASH) for span in exporter.get_finished_spans())
    else:
        assert found == [None] * 3
