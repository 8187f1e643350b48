"""What was asked and answered -> what spans and events say of it, on the real SDKs over real HTTP."""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext

from costspan_instrumentation import content
from costspan_instrumentation.content import VARIABLE, Exchange, Mode, Recording
from costspan_instrumentation.engine import _Call
from costspan_instrumentation.provider import Fields, Provider
from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_instrumentation.providers.bedrock import BEDROCK
from costspan_instrumentation.providers.cohere import COHERE
from costspan_instrumentation.providers.google import GOOGLE
from costspan_instrumentation.providers.groq import GROQ
from costspan_instrumentation.providers.huggingface import HUGGINGFACE
from costspan_instrumentation.providers.litellm import LITELLM
from costspan_instrumentation.providers.mistral import MISTRAL
from costspan_instrumentation.providers.ollama import OLLAMA
from costspan_instrumentation.providers.openai import OPENAI
from costspan_instrumentation.providers.together import TOGETHER

from .bedrock_server import native, serving
from .loopback import chat, response
from .recorded import events, exchanges
from .replies import Refusal, replying, stream_of
from .watched import Watched, watching

KEYS = {
    "input": "gen_ai.input.messages",
    "output": "gen_ai.output.messages",
    "system": "gen_ai.system_instructions",
    "tools": "gen_ai.tool.definitions",
}
HI: Any = [{"role": "user", "content": "hi"}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
PNG = base64.b64encode(b"not really an image").decode()


def text(what: str) -> dict[str, Any]:
    return {"type": "text", "content": what}


def thought(what: str) -> dict[str, Any]:
    return {"type": "reasoning", "content": what}


def call(arguments: Any = None, number: str | None = "1", name: str = "weather") -> dict[str, Any]:
    return {"type": "tool_call", "id": number, "name": name, "arguments": arguments or {"city": "Paris"}}


def result(what: Any = "rain", number: str | None = "1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_call_response", "id": number, **more, "response": what}


def said(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


def answer(reason: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "parts": list(parts), "finish_reason": reason}


TOOL = {"type": "function", "name": "weather", "description": "of a city", "parameters": SCHEMA}
USER = said("user", text("hi"))
BLOB = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": PNG}


@pytest.fixture
def on_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "SPAN_ONLY")


def content_of(watched: Watched) -> dict[str, Any]:
    """The content on the only span since the last time, under short names."""
    told = watched.one()
    return {short: json.loads(told[name]) for short, name in KEYS.items() if name in told}


# ---------------------------------------------------------------- what each provider's form becomes


def openai(url: str) -> Any:
    return pytest.importorskip("openai").OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)


def anthropic(url: str) -> Any:
    return pytest.importorskip("anthropic").Anthropic(base_url=url, api_key="k", max_retries=0)


def google(url: str) -> Any:
    genai = pytest.importorskip("google.genai")
    return genai.Client(api_key="k", http_options=genai.types.HttpOptions(base_url=url))


def mistral(url: str) -> Any:
    return pytest.importorskip("mistralai.client").Mistral(api_key="k", server_url=url)


def cohere(url: str) -> Any:
    return pytest.importorskip("cohere").ClientV2(api_key="k", base_url=url)


def groq(url: str) -> Any:
    return pytest.importorskip("groq").Groq(api_key="k", base_url=url, max_retries=0)


def together(url: str) -> Any:
    return pytest.importorskip("together").Together(api_key="k", base_url=f"{url}/v1", max_retries=0)


def ollama(url: str) -> Any:
    return pytest.importorskip("ollama").Client(host=url)


def huggingface(url: str) -> Any:
    return pytest.importorskip("huggingface_hub").InferenceClient(f"{url}/v1", token="k")


def litellm(url: str) -> Any:
    return partial(
        pytest.importorskip("litellm").completion, "openai/gpt-4.1", api_base=f"{url}/v1", api_key="k", max_retries=0
    )


def message(**said: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": "stop"}
    return chat({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, choices=[choice])


def pieces(*deltas: dict[str, Any], reason: str = "stop") -> str:
    """A stream of a chat in OpenAI's form."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    told = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return stream_of(*told, end) + "data: [DONE]\n\n"


def claude(*blocks: dict[str, Any], reason: str = "end_turn") -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    about = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "usage": usage}
    return {**about, "content": list(blocks), "stop_reason": reason, "stop_sequence": None}


def gemini(*parts: dict[str, Any], reason: str | None = "STOP") -> dict[str, Any]:
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts)}, "finishReason": reason}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1}}


FUNCTION = {"name": "weather", "arguments": '{"city": "Paris"}'}
TOOL_CALLS: Any = [{"id": "1", "type": "function", "function": FUNCTION}]
HISTORY: Any = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": None, "tool_calls": TOOL_CALLS},
    {"role": "tool", "tool_call_id": "1", "content": "rain"},
]
SAID = [said("system", text("be brief")), USER, said("assistant", call()), said("tool", result())]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA}}]
IN_PIECES: list[dict[str, Any]] = [
    {"role": "assistant", "reasoning_content": "hm"},
    {"reasoning_content": ", rain"},
    {"content": "It "},
    {"content": "rains."},
    {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
]
TOGETHER_AGAIN = answer("tool_calls", thought("hm, rain"), text("It rains."), call())

Case = tuple[Provider, Callable[[str], Any], Callable[[Any], Any], Any, dict[str, Any]]

CASES: dict[str, Case] = {
    "openai chat": (
        OPENAI,
        openai,
        lambda c: c.chat.completions.create(model="m", messages=HISTORY, tools=TOOLS),
        message(content="It rains.", reasoning_content="hm", tool_calls=TOOL_CALLS),
        {"input": SAID, "tools": [TOOL], "output": [answer("stop", thought("hm"), text("It rains."), call())]},
    ),
    "openai chat, media": (
        OPENAI,
        openai,
        lambda c: c.chat.completions.create(
            model="m",
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
                        {"type": "file", "file": {"file_id": "file-1"}},
                    ],
                }
            ],
        ),
        message(content=None, refusal="no", audio={"id": "a", "data": PNG, "transcript": "ho", "expires_at": 1}),
        {
            "input": [
                said(
                    "user",
                    BLOB,
                    {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"},
                    {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": PNG},
                    {"type": "file", "modality": "document", "file_id": "file-1"},
                )
            ],
            "output": [
                answer(
                    "stop",
                    {"type": "refusal", "content": "no"},
                    {"type": "blob", "modality": "audio", "transcript": "ho", "content": PNG},
                )
            ],
        },
    ),
    "openai chat, stream": (
        OPENAI,
        openai,
        lambda c: list(c.chat.completions.create(model="m", messages=HI, stream=True)),
        pieces(*IN_PIECES, reason="tool_calls"),
        {"input": [USER], "output": [TOGETHER_AGAIN]},
    ),
    "openai chat, raw": (
        OPENAI,
        openai,
        lambda c: c.chat.completions.with_raw_response.create(model="m", messages=HI).parse(),
        message(content="ho"),
        {"input": [USER], "output": [answer("stop", text("ho"))]},
    ),
    "openai completion": (
        OPENAI,
        openai,
        lambda c: c.completions.create(model="m", prompt="hi"),
        {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
        | {"choices": [{"index": i, "text": "ho", "finish_reason": "stop", "logprobs": None} for i in (0, 1)]},
        {"input": [USER], "output": [answer("stop", text("ho"))] * 2},
    ),
    "openai response": (
        OPENAI,
        openai,
        lambda c: c.responses.create(
            model="m",
            instructions="be brief",
            input=[
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "1", **FUNCTION},
                {"type": "function_call_output", "call_id": "1", "output": "rain"},
            ],
            tools=[TOOL, {"type": "mcp", "server_label": "s", "server_url": "http://s", "authorization": "secret"}],
        ),
        response(),
        {
            "system": [text("be brief")],
            "input": [USER, said("assistant", thought("hm"), call()), said("tool", result())],
            "tools": [TOOL, {"type": "mcp", "name": "s"}],
            "output": [answer("completed", text("Hello"))],
        },
    ),
    "openai response, stream": (
        OPENAI,
        openai,
        lambda c: list(c.responses.create(model="m", input="hi", stream=True)),
        stream_of(
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "He"},
            {"type": "response.completed", "response": response()},
        ),
        {"input": [USER], "output": [answer("completed", text("Hello"))]},
    ),
    "openai response, stream that is cut": (
        OPENAI,
        openai,
        lambda c: list(c.responses.create(model="m", input="hi", stream=True)),
        stream_of(
            {"type": "response.created", "response": response("in_progress", output=[])},
            {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
            {
                "type": "response.output_item.added",
                "output_index": 1,
                "item": {"type": "function_call", "id": "f", "call_id": "1", "name": "weather", "arguments": ""},
            },
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"city": "Par'},
        ),
        {"input": [USER], "output": [said("assistant", thought("hm"), call('{"city": "Par'))]},
    ),
    "anthropic": (
        ANTHROPIC,
        anthropic,
        lambda c: c.messages.create(
            model="m",
            max_tokens=9,
            system=[{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "hi"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                        {"type": "document", "source": {"type": "file", "file_id": "f"}},
                    ],
                },
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "weather", "input": SCHEMA}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "rain"}]},
            ],
            tools=[
                {"name": "weather", "description": "of a city", "input_schema": SCHEMA},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
        ),
        claude(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "server_tool_use", "id": "2", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "2", "content": []},
            {"type": "text", "text": "ho"},
        ),
        {
            "system": [text("be brief")],
            "input": [
                said("user", text("hi"), BLOB, {"type": "file", "modality": "document", "file_id": "f"}),
                said("assistant", call(SCHEMA)),
                said("user", result()),
            ],
            "tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}],
            "output": [
                answer(
                    "end_turn",
                    thought("hm"),
                    {"type": "redacted_thinking", "data": "x"},
                    {
                        "type": "server_tool_call",
                        "id": "2",
                        "name": "web_search",
                        "server_tool_call": {"type": "web_search", "input": {"query": "q"}},
                    },
                    {
                        "type": "server_tool_call_response",
                        "id": "2",
                        "server_tool_call_response": {"type": "web_search_tool_result", "content": []},
                    },
                    text("ho"),
                )
            ],
        },
    ),
    "anthropic, stream": (
        ANTHROPIC,
        anthropic,
        lambda c: list(c.messages.create(model="m", max_tokens=9, messages=HI, stream=True)),
        stream_of(
            {"type": "message_start", "message": {**claude(), "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "It "}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "rains."}},
            {
                "type": "content_block_start",
                "index": 2,
                "content_block": {"type": "tool_use", "id": "1", "name": "weather", "input": {}},
            },
            {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": '{"city": '},
            },
            {
                "type": "content_block_delta",
                "index": 2,
                "delta": {"type": "input_json_delta", "partial_json": '"Paris"}'},
            },
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
        ),
        {"input": [USER], "output": [answer("tool_use", thought("hm"), text("It rains."), call())]},
    ),
    "google": (
        GOOGLE,
        google,
        lambda c: c.models.generate_content(
            model="m",
            contents=[
                "hi",
                {"inline_data": {"mime_type": "image/png", "data": b"not really an image"}},
                {"role": "model", "parts": [{"function_call": {"name": "weather", "args": {"city": "Paris"}}}]},
                {"role": "user", "parts": [{"function_response": {"name": "weather", "response": {"is": "rain"}}}]},
                {
                    "role": "user",
                    "parts": [{"file_data": {"file_uri": "gs://a/b.pdf", "mime_type": "application/pdf"}}],
                },
            ],
            config={
                "system_instruction": "be brief",
                "tools": [
                    {"function_declarations": [{"name": "weather", "description": "of a city"}]},
                    {"google_search": {}},
                ],
            },
        ),
        gemini({"text": "hm", "thought": True}, {"text": "ho"}, {"functionCall": {"name": "f", "args": {"a": 1}}}),
        {
            "system": [text("be brief")],
            "input": [
                said("user", text("hi"), BLOB),
                said("assistant", call(number=None)),
                said("user", result({"is": "rain"}, None, name="weather")),
                said(
                    "user",
                    {"type": "uri", "modality": "document", "mime_type": "application/pdf", "uri": "gs://a/b.pdf"},
                ),
            ],
            "tools": [
                {"type": "function", "name": "weather", "description": "of a city"},
                {"type": "google_search", "name": "google_search"},
            ],
            "output": [answer("STOP", thought("hm"), text("ho"), call({"a": 1}, None, "f"))],
        },
    ),
    "google, stream": (
        GOOGLE,
        google,
        lambda c: list(c.models.generate_content_stream(model="m", contents="hi")),
        stream_of(
            gemini({"text": "hm", "thought": True}, reason=None),
            gemini({"text": "It "}, reason=None),
            gemini({"text": "rains."}, {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}),
        ),
        {"input": [USER], "output": [answer("STOP", thought("hm"), text("It rains."), call(number=None))]},
    ),
    "mistral": (
        MISTRAL,
        mistral,
        lambda c: c.chat.complete(model="m", messages=HISTORY, tools=TOOLS),
        message(
            content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "ho"}]
        ),
        {"input": SAID, "tools": [TOOL], "output": [answer("stop", thought("hm"), text("ho"))]},
    ),
    "mistral, stream": (
        MISTRAL,
        mistral,
        lambda c: list(c.chat.stream(model="m", messages=HI)),
        pieces(*IN_PIECES[2:4], {"tool_calls": TOOL_CALLS}, reason="tool_calls"),
        {"input": [USER], "output": [answer("tool_calls", text("It rains."), call())]},
    ),
    "cohere": (
        COHERE,
        cohere,
        lambda c: c.chat(model="m", messages=HI, tools=TOOLS),
        {
            "id": "c",
            "finish_reason": "TOOL_CALL",
            "message": {"role": "assistant", "tool_plan": "hm", "tool_calls": TOOL_CALLS},
        },
        {"input": [USER], "tools": [TOOL], "output": [answer("TOOL_CALL", thought("hm"), call())]},
    ),
    "cohere, stream": (
        COHERE,
        cohere,
        lambda c: list(c.chat_stream(model="m", messages=HI)),
        stream_of(
            {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant", "content": []}}},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "hm"}}},
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "It "}}}},
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "rains."}}}},
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {
                    "message": {
                        "tool_calls": {"id": "1", "type": "function", "function": {"name": "weather", "arguments": ""}}
                    }
                },
            },
            {
                "type": "tool-call-delta",
                "index": 0,
                "delta": {"message": {"tool_calls": {"function": {"arguments": '{"city": "Paris"}'}}}},
            },
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ),
        {"input": [USER], "output": [answer("TOOL_CALL", thought("hm"), text("It rains."), call())]},
    ),
    "groq": (
        GROQ,
        groq,
        lambda c: c.chat.completions.create(model="m", messages=HISTORY, tools=TOOLS),
        message(content="ho", reasoning="hm"),
        {"input": SAID, "tools": [TOOL], "output": [answer("stop", thought("hm"), text("ho"))]},
    ),
    "together, stream": (
        TOGETHER,
        together,
        lambda c: list(c.chat.completions.create(model="m", messages=HI, stream=True)),
        pieces(*IN_PIECES[2:], reason="tool_calls"),
        {"input": [USER], "output": [answer("tool_calls", text("It rains."), call())]},
    ),
    "ollama": (
        OLLAMA,
        ollama,
        lambda c: c.chat(model="m", messages=[{**HI[0], "images": [b"not really an image"]}], tools=TOOLS),
        {
            "model": "m",
            "done": True,
            "done_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "ho",
                "thinking": "hm",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}],
            },
        },
        {
            "input": [said("user", text("hi"), {"type": "blob", "modality": "image", "content": PNG})],
            "tools": [TOOL],
            "output": [answer("stop", thought("hm"), text("ho"), call(number=None))],
        },
    ),
    "ollama, stream": (
        OLLAMA,
        ollama,
        lambda c: list(c.chat(model="m", messages=HI, stream=True)),
        "\n".join(
            json.dumps({"model": "m", "message": {"role": "assistant", "content": piece}, "done": False})
            for piece in ("It ", "rains.")
        )
        + '\n{"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"}\n',
        {"input": [USER], "output": [answer("stop", text("It rains."))]},
    ),
    "ollama generate": (
        OLLAMA,
        ollama,
        lambda c: c.generate(model="m", prompt="hi", system="be brief"),
        {"model": "m", "response": "ho", "thinking": "hm", "done": True, "done_reason": "stop"},
        {
            "system": [text("be brief")],
            "input": [USER],
            "output": [answer("stop", thought("hm"), text("ho"))],
        },
    ),
    "huggingface": (
        HUGGINGFACE,
        huggingface,
        lambda c: c.chat_completion(messages=HISTORY, tools=TOOLS),
        message(content="ho", reasoning_content="hm"),
        {"input": SAID, "tools": [TOOL], "output": [answer("stop", thought("hm"), text("ho"))]},
    ),
    "litellm": (
        LITELLM,
        litellm,
        lambda complete: complete(messages=HISTORY, tools=TOOLS),
        message(content="It rains.", tool_calls=TOOL_CALLS),
        # LiteLLM has a reason of its own.
        {"input": SAID, "tools": [TOOL], "output": [answer("tool_calls", text("It rains."), call())]},
    ),
    "litellm, stream": (
        LITELLM,
        litellm,
        lambda complete: list(complete(messages=HI, stream=True)),
        pieces(*IN_PIECES[2:4]),
        {"input": [USER], "output": [answer("stop", text("It rains."))]},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_content_of(case: Case, on_spans: None) -> None:
    provider, client, make, reply, expected = case
    with replying(lambda _path, _body: reply) as server, watching(provider) as watched:
        make(client(server.url))
        assert content_of(watched) == expected


BEDROCK_CASES: dict[str, tuple[Callable[[Any], Any], dict[str, Any], dict[str, Any]]] = {
    "converse": (
        lambda c: c.converse(
            modelId="m",
            system=[{"text": "be brief"}],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"text": "hi"},
                        {"image": {"format": "png", "source": {"bytes": b"not really an image"}}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "1", "name": "weather", "input": {"city": "Paris"}}}],
                },
                {
                    "role": "user",
                    "content": [{"toolResult": {"toolUseId": "1", "content": [{"json": {"is": "rain"}}]}}],
                },
            ],
            toolConfig={
                "tools": [
                    {"toolSpec": {"name": "weather", "description": "of a city", "inputSchema": {"json": SCHEMA}}}
                ]
            },
        ),
        {
            "answer": {
                "output": {
                    "message": {
                        "role": "assistant",
                        "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "ho"}],
                    }
                },
                "stopReason": "end_turn",
                "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
            }
        },
        {
            "system": [text("be brief")],
            "input": [
                said("user", text("hi"), BLOB),
                said("assistant", call()),
                said("user", result({"is": "rain"})),
            ],
            "tools": [TOOL],
            "output": [answer("end_turn", thought("hm"), text("ho"))],
        },
    ),
    "converse, stream": (
        lambda c: list(
            c.converse_stream(modelId="m", messages=[{"role": "user", "content": [{"text": "hi"}]}])["stream"]
        ),
        {
            "events": [
                ("messageStart", {"role": "assistant"}),
                (
                    "contentBlockDelta",
                    {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}},
                ),
                ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "It "}}),
                ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "rains."}}),
                (
                    "contentBlockStart",
                    {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "1", "name": "weather"}}},
                ),
                (
                    "contentBlockDelta",
                    {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"city": "Paris"}'}}},
                ),
                ("messageStop", {"stopReason": "tool_use"}),
            ]
        },
        {"input": [USER], "output": [answer("tool_use", thought("hm"), text("It rains."), call())]},
    ),
    "invoke, a model of Anthropic": (
        lambda c: c.invoke_model(modelId="m", body=json.dumps({"system": "be brief", "messages": HI}))["body"].read(),
        {"answer": claude({"type": "text", "text": "ho"})},
        {"system": [text("be brief")], "input": [USER], "output": [answer("end_turn", text("ho"))]},
    ),
    "invoke, a model of Meta, streamed": (
        lambda c: list(c.invoke_model_with_response_stream(modelId="m", body=json.dumps({"prompt": "hi"}))["body"]),
        {"events": native({"generation": "It "}, {"generation": "rains.", "stop_reason": "stop"})},
        {"input": [USER], "output": [answer("stop", text("It rains."))]},
    ),
}


@pytest.mark.parametrize("name", BEDROCK_CASES)
def test_content_of_bedrock(name: str, on_spans: None) -> None:
    boto3 = pytest.importorskip("boto3")
    make, replies, expected = BEDROCK_CASES[name]
    keys = {"region_name": "eu-west-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    with serving() as server, watching(BEDROCK) as watched:
        server.replies(**replies)
        make(boto3.client("bedrock-runtime", endpoint_url=server.url, **keys))
        assert content_of(watched) == expected


# ---------------------------------------------------------------- when it is recorded, and where


@pytest.fixture
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """OpenAI's SDK, watched under the word that the test is given."""
    word = getattr(request, "param", None)
    monkeypatch.delenv(VARIABLE, raising=False)
    if word is not None:
        monkeypatch.setenv(VARIABLE, word)
    with watching(OPENAI) as found:
        yield found


def ask(url: str, **more: Any) -> Any:
    return openai(url).chat.completions.create(model="m", messages=HI, **more)


def is_content(told: Any) -> bool:
    return not KEYS.keys().isdisjoint(told) or not set(KEYS.values()).isdisjoint(told)


@pytest.mark.parametrize(
    ("watched", "on_span", "on_event"),
    [
        (None, False, False),
        ("", False, False),
        ("NO_CONTENT", False, False),
        ("true", False, False),
        ("SPAN_ONLY", True, False),
        ("event_only", False, True),
        ("Span_And_Event", True, True),
    ],
    indirect=["watched"],
)
def test_content_goes_where_the_variable_says(watched: Watched, on_span: bool, on_event: bool) -> None:
    with replying(lambda _path, body: pieces({"content": "ho"}) if body.get("stream") else message(content="ho")) as at:
        ask(at.url)
        list(ask(at.url, stream=True))
    spans, told = watched.spans(), watched.events()
    assert [is_content(span.attributes) for span in spans] == [on_span, on_span]
    assert [is_content(event.attributes) for event in told] == ([True, True] if on_event else [])


def test_a_call_is_nothing_more_than_without_where_no_content_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Watched().engine._call is _Call
    monkeypatch.setenv(VARIABLE, "SPAN_ONLY")
    assert Watched().engine._call is not _Call


PROGRAM = """
import costspan, openai, sys
costspan.init()
openai.OpenAI(base_url=sys.argv[1], api_key="k").chat.completions.create(
    model="m", messages=[{"role": "user", "content": "hi"}]
)
assert costspan.flush()
"""


def test_events_go_where_the_standard_variables_say() -> None:
    pytest.importorskip("openai")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))}
    environment = {**inherited, VARIABLE: "EVENT_ONLY", "OTEL_LOGS_EXPORTER": "console"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with replying(lambda _path, _body: message(content="ho")) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, f"{server.url}/v1"],
            capture_output=True, text=True, check=True, env=environment, timeout=60,
        )  # fmt: skip
    event = json.loads(done.stdout)
    assert event["event_name"] == content.EVENT
    assert event["attributes"]["gen_ai.output.messages"] == [answer("stop", text("ho"))]


def test_a_word_that_is_not_known_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "please")
    with caplog.at_level(logging.WARNING, "costspan"):
        assert content.mode() is content.mode() is None
    (line,) = caplog.messages
    assert all(word in line for word in (VARIABLE, "please", "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"))


@pytest.mark.parametrize("watched", ["SPAN_AND_EVENT"], indirect=True)
def test_the_event_is_the_spans_and_says_what_it_says(watched: Watched) -> None:
    with replying(lambda _path, _body: message(content="hó")) as server:
        ask(server.url, temperature=0.5, tools=TOOLS)
    (span,), (event,) = watched.spans(), watched.events()
    told, attributes = dict(event.attributes or {}), dict(span.attributes or {})
    assert event.event_name == "gen_ai.client.inference.operation.details"
    assert event.severity_number is SeverityNumber.DEBUG
    assert span.context is not None
    assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
    assert event.timestamp
    assert json.loads(json.dumps(told["gen_ai.output.messages"])) == [answer("stop", text("hó"))]
    # Structure on the event, compact JSON on the span.
    assert attributes["gen_ai.output.messages"] == (
        '[{"role":"assistant","parts":[{"type":"text","content":"hó"}],"finish_reason":"stop"}]'
    )
    for name in KEYS.values():
        assert (name in told) == (name in attributes)
    assert {name: told[name] for name in told if name not in KEYS.values()} == {
        name: value
        for name, value in attributes.items()
        if name not in KEYS.values() and name.startswith(("gen_ai.", "server."))
    }
    assert told["gen_ai.usage.input_tokens"] == 1
    assert "openai.api.type" not in told  # no attribute of the convention's event


@pytest.mark.parametrize("watched", ["SPAN_AND_EVENT"], indirect=True)
def test_a_call_that_fails_says_what_it_asked(watched: Watched) -> None:
    with (
        replying(lambda _path, _body: Refusal(400, {"error": {"message": "no"}})) as server,
        pytest.raises(Exception, match="no"),
    ):
        ask(server.url)
    (event,) = watched.events()
    assert content_of(watched) == {"input": [USER]}
    assert dict(event.attributes or {})["error.type"] == "BadRequestError"


@pytest.mark.parametrize("watched", ["SPAN_AND_EVENT"], indirect=True)
@pytest.mark.parametrize("leave", ["close", "drop"])
def test_a_stream_that_is_left_says_what_came(watched: Watched, leave: str) -> None:
    messages = [*HI]
    with replying(lambda _path, _body: pieces({"content": "It "}, {"content": "rains."})) as server:
        stream = openai(server.url).chat.completions.create(model="m", messages=messages, stream=True)
        assert next(iter(stream)).choices[0].delta.content == "It "
        messages.append({"role": "user", "content": "later"})  # the conversation goes on
        if leave == "close":
            with closing(stream):
                pass
        del stream
        gc.collect()
    assert content_of(watched) == {"input": [USER], "output": [said("assistant", text("It "))]}
    assert len(watched.events()) == 1


@pytest.mark.parametrize("watched", ["SPAN_AND_EVENT"], indirect=True)
def test_embeddings_record_no_content(watched: Watched) -> None:
    vectors = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    with replying(lambda _path, _body: vectors) as server:
        openai(server.url).embeddings.create(model="m", input="hi", encoding_format="float")
    assert not is_content(watched.one())
    assert watched.events() == []


@pytest.mark.parametrize("watched", ["SPAN_AND_EVENT"], indirect=True)
def test_the_event_does_not_depend_on_sampling(watched: Watched) -> None:
    watched.traces.sampler = ALWAYS_OFF
    watched.engine._tracer = watched.traces.get_tracer("unsampled")
    with replying(lambda _path, _body: message(content="ho")) as server:
        ask(server.url)
    assert watched.spans() == []
    assert len(watched.events()) == 1


@pytest.mark.parametrize("watched", ["SPAN_ONLY"], indirect=True)
@pytest.mark.parametrize("where", ["request_of", "answers_of", "_native"])
def test_a_failure_of_ours_reaches_the_observer_and_nobody_else(
    watched: Watched, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(where)

    monkeypatch.setattr(content, where, broken)
    with replying(lambda _path, body: pieces({"content": "ho"}) if body.get("stream") else message(content="ho")) as at:
        assert ask(at.url).choices[0].message.content == "ho"
        assert [chunk.choices[0].delta.content for chunk in ask(at.url, stream=True)] == ["ho", None]
    with pytest.raises(RuntimeError, match=where):
        watched.spans()


def test_what_is_no_content_is_not_looked_into() -> None:
    class Picture:
        def __init__(self) -> None:
            self.secret = "s"

    told = content.request_of({"contents": [Picture(), "\ud83d", ("a", "b")], "api_key": "k", "prompt": "other"})
    assert told["gen_ai.input.messages"] == [said("user", {"type": "Picture"}, *map(text, "?ab"))]


def test_the_results_of_tools_are_kept_as_they_are_where_they_are_data() -> None:
    data = [{"type": ["odd"], "big": 2**70}, {"no": None}]
    told = content.request_of({"messages": [{"role": "tool", "tool_call_id": "1", "content": data}]})
    assert told["gen_ai.input.messages"] == [
        said("tool", result([{"type": ["odd"], "big": str(2**70)}, {"no": None}]))  # no exporter takes such a number
    ]


# ---------------------------------------------------------------- recorded exchanges


class _Span(NonRecordingSpan):
    def __init__(self) -> None:
        super().__init__(SpanContext(1, 1, is_remote=False))
        self.told: dict[str, Any] = {}

    def set_attribute(self, key: str, value: Any) -> None:
        self.told[key] = json.loads(value)


CHATS = (
    *("openai.chat", "openai.responses", "openai.completions", "azure_openai.chat", "openrouter.chat", "deepseek.chat"),
    *("xai.chat", "xai.responses", "groq.chat", "together.chat", "mistral.chat", "cohere.chat", "cohere.chat_v1"),
    *("ollama.chat", "ollama.generate", "huggingface.chat", "anthropic.messages", "google.generate_content"),
    *("vertex.generate_content", "google.interactions", "bedrock.converse", "bedrock.invoke_model"),
)


@pytest.mark.parametrize("api", CHATS)
def test_every_recorded_exchange_becomes_messages(api: str) -> None:
    found = exchanges(api)
    if not found:
        pytest.skip("no recorded exchanges")
    failures: list[BaseException] = []
    recording = Recording(Mode(spans=True, events=False), logging.NOTSET, lambda _, error: failures.append(error))  # type: ignore[arg-type]
    for exchange in found:
        span, asked, reply = _Span(), exchange["request"]["body"], exchange["response"]["body"]
        heard = Exchange(recording, asked if isinstance(asked, dict) else {}, span)
        if isinstance(reply, str):
            lines = reply if "data:" in reply else "".join(f"data: {line}\n" for line in reply.splitlines())
            for event in events(lines):
                heard._heard(json.loads(json.dumps(event), object_hook=Fields))
            heard.ended()
        else:
            heard._answered({"body": reply} if api == "bedrock.invoke_model" else reply)
        for key in ("gen_ai.input.messages", "gen_ai.output.messages"):
            for one in span.told.get(key, ()):
                assert one["role"] in {"system", "developer", "user", "assistant", "tool"}, exchange["id"]
                assert all(isinstance(part["type"], str) for part in one["parts"]), exchange["id"]
                texts = [part["content"] for part in one["parts"] if part["type"] in {"text", "reasoning"}]
                assert all(isinstance(said, str) and said for said in texts), exchange["id"]
    assert failures == []
