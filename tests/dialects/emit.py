"""Record what other emitters of GenAI spans say of calls whose usage is known: `python tests/dialects/emit.py NAME`.

For development, not for CI: it needs the emitter's own packages, each in an environment of its own, and prints the
fixture of that emitter as JSON. The SDKs talk to the server below, on the loopback interface, under the providers' own
host names (no other name resolves). What is left of the spans is in the order in which they ended; content, times,
ports and identifiers that differ from run to run are taken out.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROMPT = "Say pong."
ANSWER = "pong"
"""What is asked and answered: an attribute that holds it holds content."""

OPENAI_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 600, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
WRITTEN_USAGE: dict[str, Any] = {
    **OPENAI_USAGE,
    "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300, "audio_tokens": 0},
}
SPOKEN_USAGE = {
    **OPENAI_USAGE,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 400, "text_tokens": 600},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 150, "text_tokens": 50},
}
RESPONSES_USAGE = {
    "input_tokens": 1000,
    "output_tokens": 200,
    "total_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 600},
    "output_tokens_details": {"reasoning_tokens": 0},
}
ANTHROPIC_USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1000,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 50,
    "service_tier": "standard",
}
GEMINI_USAGE = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 100,
    "thoughtsTokenCount": 60,
    "totalTokenCount": 1160,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}],
}
HEARD_USAGE = {
    **GEMINI_USAGE,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 700}, {"modality": "AUDIO", "tokenCount": 300}],
}
BEDROCK_USAGE = {
    "inputTokens": 100,
    "outputTokens": 50,
    "totalTokens": 1450,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 300,
}

GPT41 = ("0.0027", "(1000 - 600) x $2/MTok + 600 x $0.50/MTok + 200 x $8/MTok")
TWO_TURNS = ("0.0054", f"two calls, each {GPT41[1]}")
O4_MINI = ("0.001485", "(1000 - 600) x $1.10/MTok + 600 x $0.275/MTok + 200 (50 of them reasoning) x $4.40/MTok")
PRIORITY = ("0.004725", "priority: (1000 - 600) x $3.50/MTok + 600 x $0.875/MTok + 200 x $14/MTok")
EMBEDDED = ("0.00002", "1000 x $0.02/MTok")
SONNET = (
    "0.002925",
    "100 x $3/MTok + 1000 x $0.30/MTok + 100 x $3.75/MTok (5m) + 200 x $6/MTok (1h) + 50 x $15/MTok",
)
SONNET_5M = (
    "0.002475",
    "100 x $3/MTok + 1000 x $0.30/MTok + 300 x $3.75/MTok (5m, for want of a split) + 50 x $15/MTok",
)
FLASH = ("0.000592", "(1000 - 400) x $0.30/MTok + 400 x $0.03/MTok + (100 + 60) x $2.50/MTok")
WRITTEN = ("0.00614", "100 x $4/MTok + 600 x $0.40/MTok + 300 written x $5/MTok + 200 x $20/MTok")
SPOKEN = ("0.00748", "600 x $0.60/MTok + 400 heard x $10/MTok + 50 x $2.40/MTok + 150 spoken x $20/MTok")
SEARCHED = ("0.0127", f"{GPT41[1]} + 1 search x $10/1000")
SONNET_SEARCHED = ("0.022925", f"{SONNET[1]} + 2 searches x $10/1000")
GROUNDED = ("0.035592", f"{FLASH[1]} + 1 grounded prompt x $35/1000")
HEARD = ("0.000802", "(1000 - 400 - 300) x $0.30/MTok + 400 x $0.03/MTok + 300 heard x $1/MTok + 160 x $2.50/MTok")
CONVERSED = (
    "0.0027225",
    "regional: 100 x $3.30/MTok + 1000 x $0.33/MTok + 300 x $4.125/MTok (5m) + 50 x $16.50/MTok",
)

COSTS: dict[str, tuple[str, str]] = {
    "openai-chat": GPT41,
    "openai-chat-stream": GPT41,
    "openai-responses": GPT41,
    "openai-reasoning": O4_MINI,
    "openai-priority": PRIORITY,
    "openai-embeddings": EMBEDDED,
    "anthropic-cached-chat": SONNET,
    "anthropic-cached-chat-stream": SONNET,
    "gemini-cached-chat": FLASH,
    "gemini-cached-chat-stream": FLASH,
    "openai-written-chat": WRITTEN,
    "openai-audio-chat": SPOKEN,
    "openai-searched-responses": SEARCHED,
    "anthropic-searched-chat": SONNET_SEARCHED,
    "gemini-searched-chat": GROUNDED,
    "gemini-heard-chat": HEARD,
    "openai-two-turns": TWO_TURNS,
    "openai-chat-in-a-chain": GPT41,
    "bedrock-cached-converse": CONVERSED,
    "bedrock-cached-converse-stream": CONVERSED,
}
"""Case -> what it costs, and why, where the spans tell all."""


_UNCACHED = ("0.0036", "1000 x $2/MTok + 200 x $8/MTok")


def _lost(what: str, usd: tuple[str, str] | None, real: str) -> dict[str, Any]:
    left, arithmetic = usd or (None, "")
    return {"usd": left, "arithmetic": arithmetic, "lost": what, "real_usd": real}


_NO_SPLIT = _lost("which of the cache writes are for 1h is not on the span", SONNET_5M, SONNET[0])
_NO_CACHE = _lost("cache reads are not on the span", _UNCACHED, GPT41[0])
_NO_TIER = _lost("the service tier is not on the span", GPT41, PRIORITY[0])
_NO_TOOLS = "what the provider's own tools were used for is not on the span"
_UNSEARCHED = {
    "openai-searched-responses": _lost(_NO_TOOLS, GPT41, SEARCHED[0]),
    "anthropic-searched-chat": _lost(_NO_TOOLS, SONNET, SONNET_SEARCHED[0]),
    "gemini-searched-chat": _lost(_NO_TOOLS, FLASH, GROUNDED[0]),
}
_UNWRITTEN = _lost(
    "cache writes are not on the span",
    ("0.00584", "(1000 - 600) x $4/MTok + 600 x $0.40/MTok + 200 x $20/MTok"),
    WRITTEN[0],
)
_UNSPOKEN = _lost("audio is not on the span", ("0.00108", "1000 x $0.60/MTok + 200 x $2.40/MTok"), SPOKEN[0])
_LITELLM_SEARCHED = _lost(
    "how many searches is not on the span, but the library's own figure",
    ("0.0277", f"{GPT41[1]} + $0.025"),
    SEARCHED[0],
)
_UNHEARD = _lost("audio is not on the span", FLASH, HEARD[0])
_NO_SPLITS = {"anthropic-cached-chat": _NO_SPLIT, "anthropic-cached-chat-stream": _NO_SPLIT}

LOST: dict[str, dict[str, dict[str, Any]]] = {
    "openllmetry": {
        "anthropic-cached-chat": _NO_SPLIT,
        "anthropic-cached-chat-stream": _lost(
            "which of the cache writes are for 1h is not on the span; and the output is 51, since the 1 token of"
            " message_start is added to the 50 of message_delta, which contain it",
            ("0.00249", SONNET_5M[1].replace("50 x $15", "51 x $15")),
            SONNET[0],
        ),
    },
    "openllmetry-langchain": {
        "openai-priority": _lost("neither cache reads nor the service tier are on the span", _UNCACHED, PRIORITY[0]),
        "anthropic-cached-chat": _lost(
            "cache writes are on the span as 0, since LangChain tells of them by time to live",
            ("0.00225", "(1400 - 1000) x $3/MTok + 1000 x $0.30/MTok + 50 x $15/MTok"),
            SONNET[0],
        ),
    },
    "openllmetry-llamaindex": _NO_SPLITS | {"openai-chat": _lost("there is no span", None, GPT41[0])},
    "openllmetry-agents": {"openai-chat": _lost("no usage is on any span", None, GPT41[0])},
    "openinference": _NO_SPLITS,
    "openinference-langchain": _NO_SPLITS,
    "openinference-litellm": _NO_SPLITS,
    "openinference-llamaindex": _NO_SPLITS,
    "openinference-agents": {"openai-chat": _NO_CACHE},
    "official": _NO_SPLITS,
    "official-openai-v2": {
        "openai-chat": _NO_CACHE,
        "openai-chat-stream": _NO_CACHE,
        "openai-responses": _lost("there is no span", None, GPT41[0]),
        "openai-reasoning": _lost(
            "cache reads are not on the span", ("0.00198", "1000 x $1.10/MTok + 200 x $4.40/MTok"), O4_MINI[0]
        ),
        "openai-priority": _lost(
            "cache reads are not on the span", ("0.0063", "1000 x $3.50/MTok + 200 x $14/MTok"), PRIORITY[0]
        ),
    },
    "official-agents": {
        "openai-chat": _lost("no usage is on any span", None, GPT41[0]),
        "openai-responses": _lost("no usage is on any span", None, GPT41[0]),
        "openai-two-turns": _lost("no usage is on any span", None, TWO_TURNS[0]),
    },
    "logfire": {
        "openai-priority": _NO_TIER,
        "openai-searched-responses": _UNSEARCHED["openai-searched-responses"],
        "gemini-searched-chat": _UNSEARCHED["gemini-searched-chat"],
    },
    "pydantic-ai": {
        "openai-priority": _lost(
            "the service tier is not on the span, but the library's own figure", PRIORITY, PRIORITY[0]
        ),
        "anthropic-searched-chat": _UNSEARCHED["anthropic-searched-chat"],
        "gemini-searched-chat": _lost(
            "a search is on the span, and not that it is a grounded prompt", FLASH, GROUNDED[0]
        ),
    },
    "langsmith": _UNSEARCHED | {"openai-written-chat": _UNWRITTEN, "gemini-heard-chat": _UNHEARD},
    "langfuse": {"openai-searched-responses": _UNSEARCHED["openai-searched-responses"]},
    "litellm": {"openai-searched-responses": _LITELLM_SEARCHED},
    "openlit": _NO_SPLITS
    | _UNSEARCHED
    | {
        "anthropic-searched-chat": _lost(
            "neither searches nor which of the cache writes are for 1h are on the span", SONNET_5M, SONNET_SEARCHED[0]
        ),
        "openai-audio-chat": _UNSPOKEN,
        "gemini-heard-chat": _UNHEARD,
    }
    | {"bedrock-cached-converse-stream": _lost("there is no span of the call", None, CONVERSED[0])},
    "litellm-v2": _NO_SPLITS | {"openai-priority": _NO_TIER, "openai-searched-responses": _LITELLM_SEARCHED},
    "mlflow": _UNSEARCHED
    | {
        "openai-written-chat": _UNWRITTEN,
        "openai-audio-chat": _UNSPOKEN,
        "gemini-heard-chat": _UNHEARD,
        "openai-embeddings": _lost("no usage is on the span", None, EMBEDDED[0]),
        "anthropic-cached-chat-stream": _lost("no usage is on the span", None, SONNET[0]),
        "gemini-cached-chat-stream": _lost("there is no span", None, FLASH[0]),
    },
    "strands": {"anthropic-cached-chat-stream": _NO_SPLIT},
    "strands-experimental": {"anthropic-cached-chat-stream": _NO_SPLIT},
    "xai-sdk": {
        "xai-chat-stream": _lost(
            "neither tools nor the service tier are on the span, and xAI's own figure is not either",
            ("0.001245", "as the tokens cost at the standard tier"),
            "0.001245",
        )
    },
    "semantic-kernel": {
        "openai-chat": _NO_CACHE,
        "openai-chat-stream": _NO_CACHE,
        "openai-reasoning": _lost(
            "cache reads are not on the span", ("0.00198", "1000 x $1.10/MTok + 200 x $4.40/MTok"), O4_MINI[0]
        ),
    },
}
"""Emitter -> case -> what its fixture says instead, where the spans do not tell all; `real_usd` is the call's cost."""

BEDROCK_MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_XAI_USED = {
    "prompt_tokens": 1000,
    "prompt_text_tokens": 1000,
    "cached_prompt_text_tokens": 600,
    "completion_tokens": 200,
    "reasoning_tokens": 50,
    "total_tokens": 1250,
}
_GROK = "(1000 - 600) x $1.25/MTok + 600 x $0.20/MTok + (200 + 50) x $2.50/MTok"
COSTS |= {
    "xai-chat": ("0.001245", _GROK),
    "xai-searched-chat": ("0.011245", f"{_GROK} + 2 searches x $5/1000, as xAI itself says"),
    "xai-chat-stream": ("0.001245", _GROK),
}
HOSTS = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
)


# The server.

_asked: dict[str, int] = {}


def _id(prefix: str) -> str:
    _asked[prefix] = _asked.get(prefix, 0) + 1
    return f"{prefix}{_asked[prefix]}"


def _sse(*events: dict[str, Any], done: bool = False) -> bytes:
    named = ((f"event: {event['type']}\n" if "type" in event else "", event) for event in events)
    text = "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in named)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


def _chat(body: dict[str, Any]) -> bytes | dict[str, Any]:
    model = {"gpt-4.1": "gpt-4.1-2025-04-14", "o4-mini": "o4-mini-2025-04-16"}.get(body["model"], body["model"])
    used = {"gpt-5.6-sol": WRITTEN_USAGE, "gpt-audio-mini": SPOKEN_USAGE}.get(model, OPENAI_USAGE)
    usage: dict[str, Any] = json.loads(json.dumps(used))
    usage["completion_tokens_details"]["reasoning_tokens"] = 50 if model.startswith("o4") else 0
    base = {"id": _id("chatcmpl-"), "created": 1790000000, "model": model, "system_fingerprint": "fp_1"}
    base["service_tier"] = body.get("service_tier", "default").replace("auto", "default")
    # Given a tool, the model first calls it.
    calls: list[dict[str, Any]] = []
    if body.get("tools") and not any(message["role"] == "tool" for message in body["messages"]):
        tool = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
        calls = [{"id": "call_1", "type": "function", "function": tool}]
    if not body.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []}
        if calls:
            message |= {"content": None, "tool_calls": calls}
        if "audio" in body:
            spoken = {"id": "audio_1", "data": "AAAA", "expires_at": 1790003600, "transcript": ANSWER}
            message |= {"content": None, "audio": spoken}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "tool_calls" if calls else "stop",
        }
        return {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
    base["object"] = "chat.completion.chunk"
    told = bool((body.get("stream_options") or {}).get("include_usage"))
    says: dict[str, Any] = {"tool_calls": [{"index": 0, **calls[0]}]} if calls else {"content": ANSWER}
    end_of = "tool_calls" if calls else "stop"
    deltas: list[Any] = [({"role": "assistant", "content": ""}, None), (says, None), ({}, end_of)]
    events: list[dict[str, Any]] = [
        {
            **base,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}],
            **({"usage": None} if told else {}),
        }
        for delta, end in deltas
    ]
    if told:
        events.append({**base, "choices": [], "usage": usage})
    return _sse(*events, done=True)


def _responses(body: dict[str, Any]) -> bytes | dict[str, Any]:
    text = {"type": "output_text", "text": ANSWER, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    sent = body["input"]
    told_back = isinstance(sent, list) and any(one.get("type") == "function_call_output" for one in sent)
    output: list[dict[str, Any]] = [item]
    if body.get("tools") and body["tools"][0]["type"].startswith("web_search"):
        action = {"type": "search", "query": ANSWER}
        output = [{"type": "web_search_call", "id": "ws_1", "status": "completed", "action": action}, item]
    elif body.get("tools") and not told_back:
        name = body["tools"][0]["name"]
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": "{}"}
        item["status"] = "completed"
        output = [item]
    whole = {
        "id": _id("resp_"),
        "object": "response",
        "created_at": 1790000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-4.1-2025-04-14",
        "output": output,
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "usage": RESPONSES_USAGE,
    }
    if not body.get("stream"):
        return whole
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    where = {"item_id": "msg_1", "output_index": 0}
    part = {**where, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **part, "part": {**text, "text": ""}},
        {"type": "response.output_text.delta", **part, "delta": ANSWER, "logprobs": []},
        {"type": "response.output_text.done", **part, "text": ANSWER, "logprobs": []},
        {"type": "response.content_part.done", **part, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return _sse(*({**event, "sequence_number": number} for number, event in enumerate(events)))


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    # "AACAPwAAAEA=" is [1.0, 2.0] in base64, as the SDK asks for it.
    vector: Any = "AACAPwAAAEA=" if body.get("encoding_format") == "base64" else [1.0, 2.0]
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    usage = {"prompt_tokens": 1000, "total_tokens": 1000}
    return {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}


def _messages(body: dict[str, Any]) -> bytes | dict[str, Any]:
    message: dict[str, Any] = {
        "id": _id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": ANTHROPIC_USAGE,
    }
    if body.get("tools"):
        message["content"] = [
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": ANSWER}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
            {"type": "text", "text": ANSWER},
        ]
        used = {"web_search_requests": 2, "web_fetch_requests": 0}
        message["usage"] = {**ANTHROPIC_USAGE, "server_tool_use": used}
    if not body.get("stream"):
        return message
    begun = {**message, "content": [], "stop_reason": None, "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}}
    final = {k: v for k, v in ANTHROPIC_USAGE.items() if k not in {"cache_creation", "service_tier"}}
    return _sse(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": final},
        {"type": "message_stop"},
    )


def _generate(path: str, body: dict[str, Any]) -> bytes | dict[str, Any]:
    content = {"role": "model", "parts": [{"text": ANSWER}]}
    base = {"modelVersion": "gemini-2.5-flash", "responseId": _id("gemini-response-")}
    if "stream" not in path:
        candidate: dict[str, Any] = {"content": content, "finishReason": "STOP", "index": 0}
        if body.get("tools"):
            candidate["groundingMetadata"] = {"webSearchQueries": [ANSWER], "groundingChunks": []}
        heard = any("inlineData" in part for content in body["contents"] for part in content["parts"])
        return {**base, "candidates": [candidate], "usageMetadata": HEARD_USAGE if heard else GEMINI_USAGE}
    early = {"promptTokenCount": 1000, "cachedContentTokenCount": 400, "totalTokenCount": 1000}
    return _sse(
        {**base, "candidates": [{"content": content, "index": 0}], "usageMetadata": early},
        {
            **base,
            "candidates": [
                {"content": content, "finishReason": "STOP", "index": 0},
            ],
            "usageMetadata": GEMINI_USAGE,
        },
    )


def _framed(kind: str, says: dict[str, Any]) -> bytes:
    named = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in named.items()
    )
    payload = json.dumps(says).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def _converse(path: str) -> bytes | dict[str, Any]:
    metrics = {"metrics": {"latencyMs": 10}}
    if not path.endswith("-stream"):
        message = {"role": "assistant", "content": [{"text": ANSWER}]}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": BEDROCK_USAGE, **metrics}
    return b"".join(
        (
            _framed("messageStart", {"role": "assistant"}),
            _framed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": ANSWER}}),
            _framed("contentBlockStop", {"contentBlockIndex": 0}),
            _framed("messageStop", {"stopReason": "end_turn"}),
            _framed("metadata", {"usage": BEDROCK_USAGE, **metrics}),
        )
    )


def _answer(path: str, body: dict[str, Any]) -> tuple[str, bytes | dict[str, Any]]:
    if "chat/completions" in path:
        return "text/event-stream", _chat(body)
    if path.endswith("/responses"):
        return "text/event-stream", _responses(body)
    if path.endswith("/embeddings"):
        return "text/event-stream", _embeddings(body)
    if "/messages" in path:
        return "text/event-stream", _messages(body)
    if "enerateContent" in path:
        return "text/event-stream", _generate(path, body)
    if "/converse" in path:
        return "application/vnd.amazon.eventstream", _converse(path)
    return "", {"detail": "ok"}  # somebody's telemetry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(sent) if sent.startswith(b"{") else {}
        kind, answer = _answer(self.path.partition("?")[0], body)
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", kind if isinstance(answer, bytes) else "application/json")
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-request-id", "req_1")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


_resolve = socket.getaddrinfo


def _only_loopback(host: Any, *rest: Any, **more: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name in HOSTS or name in {"127.0.0.1", "localhost", "::1", None, ""}:
        return _resolve("127.0.0.1" if name in HOSTS else host, *rest, **more)
    raise socket.gaierror(socket.EAI_NONAME, f"{name}: nothing but loopback here")


@contextmanager
def serving() -> Iterator[int]:
    """Starts the server, and sends the providers' host names there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    socket.getaddrinfo = _only_loopback
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    port = server.server_port
    os.environ.update(
        {
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"http://api.openai.com:{port}/v1",
            "ANTHROPIC_API_KEY": "k",
            "ANTHROPIC_BASE_URL": f"http://api.anthropic.com:{port}",
            "GOOGLE_API_KEY": "k",
            "GOOGLE_GEMINI_BASE_URL": f"http://generativelanguage.googleapis.com:{port}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "k",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": f"http://bedrock-runtime.us-east-1.amazonaws.com:{port}",
            "ANTHROPIC_OPEN_TELEMETRY": "false",
        }
    )
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


# The calls, by the providers' own SDKs.

ASKED: list[Any] = [{"role": "user", "content": PROMPT}]


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _openai() -> Any:
    return _module("openai").OpenAI()


def openai_chat(client: Any = None, **more: Any) -> None:
    """A chat completion."""
    (client or _openai()).chat.completions.create(**{"model": "gpt-4.1", "messages": ASKED, **more})


def openai_chat_stream(client: Any = None, **more: Any) -> None:
    """A chat completion, streamed, with its usage."""
    more = {"model": "gpt-4.1", "messages": ASKED, "stream": True, **more}
    for _ in (client or _openai()).chat.completions.create(**more, stream_options={"include_usage": True}):
        pass


def openai_responses(client: Any = None) -> None:
    """A response."""
    (client or _openai()).responses.create(model="gpt-4.1", input=PROMPT)


VOICE = {"voice": "alloy", "format": "wav"}


def openai_written(client: Any = None) -> None:
    """A chat completion by a model whose cache writes cost."""
    openai_chat(client, model="gpt-5.6-sol")


def openai_audio(client: Any = None) -> None:
    """A chat completion that hears and speaks."""
    heard = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    asked = [{"role": "user", "content": [{"type": "text", "text": PROMPT}, heard]}]
    openai_chat(client, model="gpt-audio-mini", messages=asked, modalities=["text", "audio"], audio=VOICE)


def openai_search(client: Any = None) -> None:
    """A response by a model that has searched the web."""
    (client or _openai()).responses.create(model="gpt-4.1", input=PROMPT, tools=[{"type": "web_search"}])


def openai_embeddings(client: Any = None) -> None:
    """An embedding."""
    (client or _openai()).embeddings.create(model="text-embedding-3-small", input=PROMPT)


OPENAI: dict[str, Callable[[], None]] = {
    "openai-chat": openai_chat,
    "openai-chat-stream": openai_chat_stream,
    "openai-responses": openai_responses,
    "openai-reasoning": lambda: openai_chat(model="o4-mini"),
    "openai-priority": lambda: openai_chat(service_tier="priority"),
    "openai-embeddings": openai_embeddings,
    "openai-written-chat": openai_written,
    "openai-audio-chat": openai_audio,
    "openai-searched-responses": openai_search,
}


CLAUDES_SEARCH: list[Any] = [{"type": "web_search_20250305", "name": "web_search"}]


def _claude(client: Any = None, **more: Any) -> Any:
    client = client or _module("anthropic").Anthropic()
    return client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=ASKED, **more)


def anthropic_chat() -> None:
    """A message."""
    _claude()


def anthropic_chat_stream() -> None:
    """A message, streamed."""
    for _ in _claude(stream=True):
        pass


def anthropic_search(client: Any = None) -> None:
    """A message by a model that has searched the web."""
    _claude(client, tools=CLAUDES_SEARCH)


ANTHROPIC: dict[str, Callable[[], None]] = {
    "anthropic-cached-chat": anthropic_chat,
    "anthropic-cached-chat-stream": anthropic_chat_stream,
    "anthropic-searched-chat": anthropic_search,
}


def gemini_chat() -> None:
    """A generated content."""
    client = _module("google.genai").Client(api_key="k")
    client.models.generate_content(model="gemini-2.5-flash", contents=PROMPT)


def gemini_chat_stream() -> None:
    """A generated content, streamed."""
    client = _module("google.genai").Client(api_key="k")
    for _ in client.models.generate_content_stream(model="gemini-2.5-flash", contents=PROMPT):
        pass


def gemini_search(client: Any = None) -> None:
    """A generated content that is grounded in Google's search."""
    client = client or _module("google.genai").Client(api_key="k")
    config: dict[str, Any] = {"tools": [{"google_search": {}}]}
    client.models.generate_content(model="gemini-2.5-flash", contents=PROMPT, config=config)


def gemini_heard(client: Any = None) -> None:
    """A generated content of text and audio."""
    client = client or _module("google.genai").Client(api_key="k")
    types = _module("google.genai.types")
    heard = types.Part.from_bytes(data=b"0", mime_type="audio/wav")
    client.models.generate_content(model="gemini-2.5-flash", contents=[PROMPT, heard])


GEMINI: dict[str, Callable[[], None]] = {
    "gemini-cached-chat": gemini_chat,
    "gemini-cached-chat-stream": gemini_chat_stream,
    "gemini-searched-chat": gemini_search,
    "gemini-heard-chat": gemini_heard,
}


def bedrock_converse() -> None:
    """A conversation."""
    messages = [{"role": "user", "content": [{"text": PROMPT}]}]
    _module("boto3").client("bedrock-runtime").converse(modelId=BEDROCK_MODEL, messages=messages)


def bedrock_converse_stream() -> None:
    """A conversation, streamed."""
    messages = [{"role": "user", "content": [{"text": PROMPT}]}]
    client = _module("boto3").client("bedrock-runtime")
    for _ in client.converse_stream(modelId=BEDROCK_MODEL, messages=messages)["stream"]:
        pass


BEDROCK: dict[str, Callable[[], None]] = {
    "bedrock-cached-converse": bedrock_converse,
    "bedrock-cached-converse-stream": bedrock_converse_stream,
}


# What was said of them.

_CONTENT = re.compile(
    r"\.(prompt|completion|prompts|completions|choices|candidates)\.\d+\.|^llm\.(input|output)_messages|_messages$|embeddings\.\d"
    r"|^(input|output)\.(value|mime_type)$|embedding\.vector|^(http|net|url)\.|spanInputs|spanOutputs|logfire\.json_schema"
    r"|request_data|response_data|user_agent|traceRequestId|api_key|LANGSMITH_|logfire\.(msg|metrics)$"
)
_VARIES = re.compile(
    r"^(thread|code|process|host|os|container)\.|latency|duration|time_to|time_per|ttft|_time$|timestamp|\.port$|created"
    r"|^metadata\.(?!usage_object)|run_id|trace_id|span_id|session\.id|conversation\.id|invocation_id|session_id|call_id$|\.id_hash|hidden_params"
    r"|\.version$|_version$|environment$|headers|revision_id"
)
_ASKED_IN = frozenset({"gen_ai.prompt", "langfuse.observation.input", "mlflow.spanInputs"})
"""What was asked, as JSON: of which the tools that were offered are kept."""
_KEPT = re.compile(r"response\.id$|response_id$|logfire\.msg_template$|scope|telemetry\.sdk")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ONE_OFF = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![\d.a-f])[0-9a-f]{16,}|(?<![\w:/])/(tmp|root|work|usr|home)/|"
    r"\d{4}-\d\d-\d\dT\d\d:\d\d"
)


def _tools_of(asked: Any) -> dict[str, Any]:
    """What was asked without its content."""
    if not isinstance(asked, dict):
        return {}
    inside = {"config": _tools_of(asked["config"])} if isinstance(asked.get("config"), dict) else {}
    return {key: value for key, value in asked.items() if key == "tools"} | inside


def _in_a_request(call: Callable[[], object]) -> Callable[[], object]:
    def serve() -> None:
        trace = _module("opentelemetry.trace")
        with trace.get_tracer("app").start_as_current_span("POST /ask", kind=trace.SpanKind.SERVER):
            call()

    return serve


class Recorder:
    """Keeps the spans of each case."""

    def __init__(self, emitter: str, port: int) -> None:
        self.emitter = emitter
        self.port = port
        self.cases: list[dict[str, Any]] = []
        self.finished: list[Any] = []
        self.resource: dict[str, Any] = {}
        self.made_up: dict[str, int] = {}
        self.flush: Callable[[], object] = lambda: None

    def processor(self) -> Any:
        """What to add to the emitter's tracer provider."""
        export = _module("opentelemetry.sdk.trace.export")
        finished = self.finished

        class Exporter(export.SpanExporter):  # type: ignore[misc,name-defined]
            def export(self, spans: Any) -> Any:
                finished.extend(spans)
                return export.SpanExportResult.SUCCESS

        return export.SimpleSpanProcessor(Exporter())

    def provide(self) -> Any:
        """A tracer provider of ours, the global one from now on."""
        trace = _module("opentelemetry.sdk.trace")
        provider = trace.TracerProvider()
        provider.add_span_processor(self.processor())
        _module("opentelemetry.trace").set_tracer_provider(provider)
        return provider

    def record(self, calls: Mapping[str, Callable[[], object]], **more: Any) -> None:
        """Makes each call, and keeps what was said of it."""
        if self.emitter.startswith("stack-"):
            calls = dict(calls) | {f"{name}-in-a-request": _in_a_request(call) for name, call in calls.items()}
        for name, call in calls.items():
            self.flush()
            self.finished.clear()
            _asked.clear()
            try:
                call()
            except Exception as error:  # the spans still tell something
                print(f"{self.emitter}: {name}: {type(error).__name__}: {error}", file=sys.stderr)
            self.flush()
            usd, arithmetic = COSTS[name.removesuffix("-in-a-request")]
            says = LOST.get(self.emitter, {}).get(name, {})
            self.cases.append(
                {"name": name, "usd": usd, "arithmetic": arithmetic, **more, **says, "spans": self.spans()}
            )

    def spans(self) -> list[dict[str, Any]]:
        """The spans in the order in which they ended."""
        traces = list(dict.fromkeys(span.context.trace_id for span in self.finished))
        where = {span.context.span_id: number for number, span in enumerate(self.finished)}
        told: list[dict[str, Any]] = []
        for span in self.finished:
            self.resource.update(
                {
                    k: v
                    for k, v in span.resource.attributes.items()
                    if k in {"service.name", "telemetry.sdk.name", "telemetry.distro.name"}
                }
            )
            scope = span.instrumentation_scope
            attributes = {key: self.plain(value) for key, value in (span.attributes or {}).items()}
            for key in [key for key in attributes if key.endswith(("response.id", "response_id"))]:
                attributes[key] = re.sub(
                    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", self.stable, str(attributes[key])
                )
            for key in _ASKED_IN & attributes.keys():
                try:
                    attributes[key] = json.dumps(_tools_of(json.loads(attributes[key])))
                except ValueError:
                    del attributes[key]
            one: dict[str, Any] = {
                "name": re.sub(_ONE_OFF, "…", span.name).replace(f":{self.port}", ""),
                "kind": span.kind.name,
                "scope": {"name": scope.name, "version": scope.version or ""},
                "parent": where.get(span.parent.span_id) if span.parent is not None else None,
                "attributes": {key: value for key, value in sorted(attributes.items()) if self.keeps(key, value)},
            }
            if len(traces) > 1:
                one["trace"] = traces.index(span.context.trace_id)
            if span.status.status_code.name == "ERROR":
                one["status"] = "ERROR"
            told.append(one)
        return told

    def stable(self, found: re.Match[str]) -> str:
        """An identifier that an emitter makes up, as the same one in every run."""
        number = self.made_up.setdefault(found[0], len(self.made_up) + 1)
        return f"00000000-0000-4000-8000-{number:012}"

    def plain(self, value: Any) -> Any:
        """The value as JSON has it, the server's port out of it."""
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, str):
            return re.sub(rf"http://([\w.-]+):{self.port}", r"https://\1", value).replace(f":{self.port}", "")
        return value

    @staticmethod
    def keeps(key: str, value: Any) -> bool:
        """Whether the attribute is neither content nor of this run alone."""
        text = value if isinstance(value, str) else json.dumps(value)
        if key in _ASKED_IN:
            return True
        if ANSWER in text or socket.gethostname() in text or _CONTENT.search(key):
            return False
        if _KEPT.search(key):
            return True
        return not (_VARIES.search(key) or (isinstance(value, str) and _ONE_OFF.search(value)))

    def fixture(self, packages: list[str]) -> dict[str, Any]:
        """All of it."""
        versions = {}
        for package in packages:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
        return {"emitter": self.emitter, "packages": versions, "resource": self.resource, "cases": self.cases}


def _instrument(module: str, name: str, **more: Any) -> None:
    getattr(_module(module), name)().instrument(**more)


# The emitters.


def openllmetry(recorder: Recorder) -> list[str]:
    """OpenLLMetry's instrumentations of the SDKs."""
    recorder.provide()
    _instrument("opentelemetry.instrumentation.openai", "OpenAIInstrumentor")
    _instrument("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor")
    _instrument("opentelemetry.instrumentation.google_generativeai", "GoogleGenerativeAiInstrumentor")
    _instrument("opentelemetry.instrumentation.bedrock", "BedrockInstrumentor")
    recorder.record(OPENAI | ANTHROPIC | GEMINI | BEDROCK)
    parts = ("openai", "anthropic", "google-generativeai", "bedrock")
    return [
        *(f"opentelemetry-instrumentation-{part}" for part in parts),
        "openai",
        "anthropic",
        "google-genai",
        "boto3",
    ]


def openinference(recorder: Recorder) -> list[str]:
    """OpenInference's instrumentations of the SDKs."""
    recorder.provide()
    _instrument("openinference.instrumentation.openai", "OpenAIInstrumentor")
    _instrument("openinference.instrumentation.anthropic", "AnthropicInstrumentor")
    _instrument("openinference.instrumentation.google_genai", "GoogleGenAIInstrumentor")
    _instrument("openinference.instrumentation.bedrock", "BedrockInstrumentor")
    recorder.record(OPENAI | ANTHROPIC | GEMINI | BEDROCK)
    parts = ("openai", "anthropic", "google-genai", "bedrock")
    return [
        *(f"openinference-instrumentation-{part}" for part in parts),
        "openai",
        "anthropic",
        "google-genai",
        "boto3",
    ]


def official(recorder: Recorder) -> list[str]:
    """OpenTelemetry's own instrumentations."""
    recorder.provide()
    for module in ("genai.openai", "genai.anthropic", "google_genai", "genai.bedrock"):
        _load(f"opentelemetry.instrumentation.{module}")
    recorder.record(OPENAI | ANTHROPIC | GEMINI | BEDROCK)
    parts = ("genai-openai", "genai-anthropic", "google-genai", "genai-bedrock")
    return [
        *(f"opentelemetry-instrumentation-{part}" for part in parts),
        "opentelemetry-util-genai",
        "openai",
        "anthropic",
        "google-genai",
        "boto3",
    ]


def _load(prefix: str) -> None:
    for entry in importlib.metadata.entry_points(group="opentelemetry_instrumentor"):
        if entry.value.startswith(f"{prefix}:") or entry.value.startswith(f"{prefix}."):
            entry.load()().instrument()
            return
    print(f"no instrumentor in {prefix}", file=sys.stderr)


def xai_sdk(recorder: Recorder) -> list[str]:
    """The spans that xAI's SDK makes itself. It speaks gRPC: with a server of its own."""
    recorder.provide()
    grpc, proto = _module("grpc"), _module("xai_sdk.proto")
    chats, service = proto.chat_pb2, proto.chat_pb2_grpc

    def answer(kind: Any, output: Any, ticks: int | None) -> Any:
        usage = _XAI_USED if ticks is None else _XAI_USED | {"cost_in_usd_ticks": ticks}
        return kind(id=_id("xai-"), model="grok-4.3", outputs=[output], usage=usage)

    class Chat(service.ChatServicer):  # type: ignore[misc,name-defined]
        def GetCompletion(self, asked: Any, _context: Any) -> Any:  # noqa: N802
            message = {"role": chats.ROLE_ASSISTANT, "content": ANSWER}
            ticks = 112_450_000 if asked.tools else 12_450_000
            return answer(chats.GetChatCompletionResponse, {"message": message}, ticks)

        def GetCompletionChunk(self, _asked: Any, _context: Any) -> Any:  # noqa: N802
            delta = {"role": chats.ROLE_ASSISTANT, "content": ANSWER}
            yield answer(chats.GetChatCompletionChunk, {"delta": delta}, None)

    server = grpc.server(ThreadPoolExecutor(1))
    service.add_ChatServicer_to_server(Chat(), server)
    host = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    client = _module("xai_sdk").Client(api_key="k", api_host=host, use_insecure_channel=True)

    def chat(**more: Any) -> Any:
        return client.chat.create(model="grok-4.3", messages=[_module("xai_sdk.chat").user(PROMPT)], **more)

    recorder.record(
        {
            "xai-chat": lambda: chat().sample(),
            "xai-searched-chat": lambda: chat(tools=[_module("xai_sdk.tools").web_search()]).sample(),
            "xai-chat-stream": lambda: list(chat().stream()),
        }
    )
    server.stop(None)
    return ["xai-sdk"]


def openai_v2(recorder: Recorder) -> list[str]:
    """OpenTelemetry's earlier instrumentation of OpenAI."""
    recorder.provide()
    _load("opentelemetry.instrumentation.openai_v2")
    recorder.record(OPENAI)
    return ["opentelemetry-instrumentation-openai-v2", "openai"]


def google_genai_experimental(recorder: Recorder) -> list[str]:
    """OpenTelemetry's own instrumentation of google-genai, with the newest conventions asked for."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    recorder.provide()
    _load("opentelemetry.instrumentation.google_genai")
    recorder.record(GEMINI)
    return ["opentelemetry-instrumentation-google-genai", "opentelemetry-util-genai", "google-genai"]


def anthropic_native(recorder: Recorder) -> list[str]:
    """The spans that Anthropic's SDK makes itself."""
    os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "true"
    recorder.provide()
    recorder.record(ANTHROPIC)
    return ["anthropic"]


def logfire(recorder: Recorder) -> list[str]:
    """Logfire's integrations."""
    fire = _module("logfire")
    fire.configure(send_to_logfire=False, console=False, additional_span_processors=[recorder.processor()])
    fire.instrument_openai()
    fire.instrument_anthropic()
    fire.instrument_google_genai()
    recorder.record(OPENAI | ANTHROPIC | GEMINI)
    return ["logfire", "openai", "anthropic", "google-genai", "opentelemetry-instrumentation-google-genai"]


def pong_tool() -> str:
    """Something to call."""
    return ANSWER


def _pydantic_agents(**more: Any) -> dict[str, Callable[[], object]]:
    ai = _module("pydantic_ai")

    def run(model: str, **tools: Any) -> Callable[[], object]:
        return lambda: ai.Agent(model, **tools, **more).run_sync(PROMPT)

    def search() -> Any:
        return _module("pydantic_ai.capabilities").NativeTool(_module("pydantic_ai.native_tools").WebSearchTool())

    def stream(model: str) -> Callable[[], object]:
        async def streamed() -> None:
            async with ai.Agent(model, **more).run_stream(PROMPT) as result:
                async for _ in result.stream_text():
                    pass

        return lambda: asyncio.run(streamed())

    return {
        "openai-chat": run("openai-chat:gpt-4.1"),
        "openai-chat-stream": stream("openai-chat:gpt-4.1"),
        "openai-responses": run("openai-responses:gpt-4.1"),
        "openai-two-turns": run("openai-chat:gpt-4.1", tools=[pong_tool]),
        "anthropic-cached-chat": run("anthropic:claude-sonnet-4-5"),
        "anthropic-cached-chat-stream": stream("anthropic:claude-sonnet-4-5"),
        "gemini-cached-chat": run("google:gemini-2.5-flash"),
        "openai-priority": run("openai-chat:gpt-4.1", model_settings={"openai_service_tier": "priority"}),
        "openai-written-chat": run("openai-chat:gpt-5.6-sol"),
        "openai-audio-chat": run("openai-chat:gpt-audio-mini"),
        "openai-searched-responses": run("openai-responses:gpt-4.1", capabilities=[search()]),
        "anthropic-searched-chat": run("anthropic:claude-sonnet-4-5", capabilities=[search()]),
        "gemini-searched-chat": run("google:gemini-2.5-flash", capabilities=[search()]),
        "gemini-heard-chat": lambda: ai.Agent("google:gemini-2.5-flash", **more).run_sync(
            [PROMPT, ai.BinaryContent(data=b"0", media_type="audio/wav")]
        ),
        "bedrock-cached-converse": run(f"bedrock:{BEDROCK_MODEL}"),
    }


def pydantic_ai(recorder: Recorder) -> list[str]:
    """Pydantic AI's own instrumentation: an agent's run and its model's calls."""
    recorder.provide()
    _module("pydantic_ai").Agent.instrument_all()
    recorder.record(_pydantic_agents())
    return ["pydantic-ai", "pydantic-ai-slim", "genai-prices", "openai", "anthropic", "google-genai", "boto3"]


def openlit(recorder: Recorder) -> list[str]:
    """OpenLIT, with the prices of its own file where it can have them: in thousands of tokens."""
    recorder.provide()
    prices = {
        "chat": {
            "gpt-4.1": {"promptPrice": 0.002, "completionPrice": 0.008, "cacheReadPrice": 0.0005},
            "o4-mini": {"promptPrice": 0.0011, "completionPrice": 0.0044, "cacheReadPrice": 0.000275},
            "claude-sonnet-4-5": {
                "promptPrice": 0.003,
                "completionPrice": 0.015,
                "cacheReadPrice": 0.0003,
                "cacheCreationPrice": 0.00375,
            },
            "gemini-2.5-flash": {"promptPrice": 0.0003, "completionPrice": 0.0025},
            BEDROCK_MODEL: {"promptPrice": 0.0033, "completionPrice": 0.0165},
        },
        "embeddings": {"text-embedding-3-small": 0.00002},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(prices, file)
    _module("openlit").init(disable_metrics=True, disable_events=True, pricing_json=file.name)
    recorder.record(OPENAI | ANTHROPIC | GEMINI | BEDROCK)
    return ["openlit", "openai", "anthropic", "google-genai", "boto3"]


def _litellm_calls(*, use_async: bool = False) -> dict[str, Callable[[], object]]:
    litellm = _module("litellm")
    gemini = f"{os.environ['GOOGLE_GEMINI_BASE_URL']}/v1beta/models/gemini-2.5-flash"
    os.environ["ANTHROPIC_API_BASE"] = os.environ["ANTHROPIC_BASE_URL"]
    os.environ["AWS_BEDROCK_RUNTIME_ENDPOINT"] = os.environ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"]
    os.environ["GEMINI_API_KEY"] = "k"

    def run(model: str, **more: Any) -> Callable[[], object]:
        def call() -> None:
            answer = litellm.completion(model=model, messages=ASKED, **more)
            if more.get("stream"):
                for _ in answer:
                    pass
            time.sleep(1)

        async def acall() -> None:
            answer = await litellm.acompletion(model=model, messages=ASKED, **more)
            if more.get("stream"):
                async for _ in answer:
                    pass
            await asyncio.sleep(1)

        return (lambda: asyncio.run(acall())) if use_async else call

    async def embed() -> None:
        await litellm.aembedding(model="text-embedding-3-small", input=[PROMPT])
        await asyncio.sleep(1)

    async def respond(**more: Any) -> None:
        await litellm.aresponses(model="gpt-4.1", input=PROMPT, **more)
        await asyncio.sleep(1)

    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "openai-chat": run("gpt-4.1"),
        "openai-chat-stream": run("gpt-4.1", **streamed),
        "openai-responses": lambda: asyncio.run(respond()),
        "openai-reasoning": run("o4-mini"),
        "openai-priority": run("gpt-4.1", service_tier="priority"),
        "openai-embeddings": lambda: asyncio.run(embed()),
        "anthropic-cached-chat": run("anthropic/claude-sonnet-4-5"),
        "anthropic-cached-chat-stream": run("anthropic/claude-sonnet-4-5", **streamed),
        "gemini-cached-chat": run("gemini/gemini-2.5-flash", api_base=gemini),
        "openai-written-chat": run("gpt-5.6-sol"),
        "openai-audio-chat": run("gpt-audio-mini", modalities=["text", "audio"], audio=VOICE),
        "openai-searched-responses": lambda: asyncio.run(respond(tools=[{"type": "web_search"}])),
        "anthropic-searched-chat": run("anthropic/claude-sonnet-4-5", tools=CLAUDES_SEARCH),
        "gemini-searched-chat": run("gemini/gemini-2.5-flash", api_base=gemini, tools=[{"googleSearch": {}}]),
        "bedrock-cached-converse": run(f"bedrock/converse/{BEDROCK_MODEL}"),
    }


def litellm(recorder: Recorder) -> list[str]:
    """LiteLLM's callback `otel`."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    provider = recorder.provide()
    logger = _module("litellm.integrations.opentelemetry").OpenTelemetry(tracer_provider=provider)
    _module("litellm").callbacks = [logger]
    recorder.record(_litellm_calls())
    return ["litellm", "openai"]


def litellm_v2(recorder: Recorder) -> list[str]:
    """The same, the new one, which hears of asynchronous calls alone."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_OTEL_V2"] = "true"
    provider = recorder.provide()
    logger = _module("litellm.integrations.otel.logger").OpenTelemetryV2(tracer_provider=provider)
    _module("litellm").callbacks = [logger]
    recorder.record(_litellm_calls(use_async=True))
    return ["litellm", "openai"]


def langsmith(recorder: Recorder) -> list[str]:
    """LangSmith's wrappers, exporting by OpenTelemetry."""
    os.environ["LANGSMITH_TRACING"] = "true"
    os.environ["LANGSMITH_API_KEY"] = "k"
    os.environ["LANGSMITH_ENDPOINT"] = f"http://127.0.0.1:{recorder.port}"
    provider = recorder.provide()
    client = _module("langsmith").Client(tracing_mode="otel", otel_tracer_provider=provider)

    def flush() -> None:
        client.flush()
        time.sleep(1.5)

    recorder.flush = flush
    wrappers = _module("langsmith.wrappers")
    extra = {"client": client}
    openai = wrappers.wrap_openai(_openai(), tracing_extra=extra)
    anthropic = wrappers.wrap_anthropic(_module("anthropic").Anthropic(), tracing_extra=extra)
    gemini = wrappers.wrap_gemini(_module("google.genai").Client(api_key="k"), tracing_extra=extra)
    claude = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": ASKED}
    recorder.record(
        {
            "openai-chat": lambda: openai_chat(openai),
            "openai-chat-stream": lambda: openai_chat_stream(openai),
            "openai-responses": lambda: openai_responses(openai),
            "openai-reasoning": lambda: openai_chat(openai, model="o4-mini"),
            "openai-priority": lambda: openai_chat(openai, service_tier="priority"),
            "anthropic-cached-chat": lambda: anthropic.messages.create(**claude),
            "anthropic-cached-chat-stream": lambda: list(anthropic.messages.create(stream=True, **claude)),
            "gemini-cached-chat": lambda: gemini.models.generate_content(model="gemini-2.5-flash", contents=PROMPT),
            "openai-written-chat": lambda: openai_written(openai),
            "openai-audio-chat": lambda: openai_audio(openai),
            "openai-searched-responses": lambda: openai_search(openai),
            "anthropic-searched-chat": lambda: anthropic_search(anthropic),
            "gemini-searched-chat": lambda: gemini_search(gemini),
            "gemini-heard-chat": lambda: gemini_heard(gemini),
        }
    )
    return ["langsmith", "openai", "anthropic", "google-genai"]


def langfuse(recorder: Recorder) -> list[str]:
    """Langfuse's client of OpenAI."""
    provider = recorder.provide()
    here = f"http://127.0.0.1:{recorder.port}"
    client = _module("langfuse").Langfuse(
        public_key="pk-lf-1", secret_key="sk-lf-1", base_url=here, tracer_provider=provider
    )
    recorder.flush = client.flush
    openai = _module("langfuse.openai").OpenAI()
    recorder.record(
        {
            "openai-chat": lambda: openai_chat(openai),
            "openai-chat-stream": lambda: openai_chat_stream(openai),
            "openai-responses": lambda: openai_responses(openai),
            "openai-reasoning": lambda: openai_chat(openai, model="o4-mini"),
            "openai-priority": lambda: openai_chat(openai, service_tier="priority"),
            "openai-embeddings": lambda: openai_embeddings(openai),
            "openai-written-chat": lambda: openai_written(openai),
            "openai-audio-chat": lambda: openai_audio(openai),
            "openai-searched-responses": lambda: openai_search(openai),
        }
    )
    return ["langfuse", "openai"]


def mlflow(recorder: Recorder) -> list[str]:
    """MLflow's autologging, into the global tracer provider."""
    os.environ["MLFLOW_USE_DEFAULT_TRACER_PROVIDER"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_EXPERIMENT_ID"] = "1"
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{recorder.port}"
    recorder.provide()
    flow = _module("mlflow")
    flow.openai.autolog()
    flow.anthropic.autolog()
    flow.gemini.autolog()
    flow.bedrock.autolog()
    recorder.record(OPENAI | ANTHROPIC | GEMINI | BEDROCK)
    return ["mlflow", "mlflow-tracing", "openai", "anthropic", "google-genai", "boto3"]


def _adk_run() -> None:
    agents = _module("google.adk.agents")
    runners = _module("google.adk.runners")
    types = _module("google.genai.types")

    async def run() -> None:
        agent = agents.LlmAgent(name="ponger", model="gemini-2.5-flash", instruction=PROMPT)
        runner = runners.InMemoryRunner(agent=agent, app_name="app")
        await runner.session_service.create_session(app_name="app", user_id="u", session_id="s")
        content = types.Content(role="user", parts=[types.Part(text=PROMPT)])
        async for _ in runner.run_async(user_id="u", session_id="s", new_message=content):
            pass

    asyncio.run(run())


def adk(recorder: Recorder) -> list[str]:
    """Google's Agent Development Kit."""
    recorder.provide()
    recorder.record({"gemini-cached-chat": _adk_run})
    return ["google-adk", "google-genai"]


def adk_v1(recorder: Recorder) -> list[str]:
    """The same, as it was by default before."""
    os.environ["ADK_TELEMETRY_SCHEMA_VERSION_OPT_IN"] = "1"
    return adk(recorder)


def _strands_agents() -> dict[str, Callable[[], object]]:
    sdk = _module("strands")
    tool = sdk.tool(pong_tool)

    def run(model: Callable[[], Any], **more: Any) -> Callable[[], object]:
        return lambda: sdk.Agent(model=model(), callback_handler=None, **more)(PROMPT)

    def gpt() -> Any:
        return _module("strands.models.openai").OpenAIModel(client_args={"api_key": "k"}, model_id="gpt-4.1")

    def claude() -> Any:
        model = _module("strands.models.anthropic").AnthropicModel
        return model(client_args={"api_key": "k"}, model_id="claude-sonnet-4-5", max_tokens=100)

    def bedrock() -> Any:
        return _module("strands.models.bedrock").BedrockModel(model_id=BEDROCK_MODEL, region_name="us-east-1")

    return {
        "openai-chat-stream": run(gpt),
        "openai-two-turns": run(gpt, tools=[tool]),
        "anthropic-cached-chat-stream": run(claude),
        "bedrock-cached-converse-stream": run(bedrock),
    }


def strands(recorder: Recorder) -> list[str]:
    """Strands' agents."""
    recorder.provide()
    recorder.record(_strands_agents())
    return ["strands-agents", "openai", "anthropic", "boto3"]


def strands_experimental(recorder: Recorder) -> list[str]:
    """The same, with the newest conventions asked for."""
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    return strands(recorder)


def _agents_sdk(*, chat: bool = False, tools: bool = False) -> Callable[[], object]:
    def call() -> None:
        sdk = _module("agents")
        model: Any = "gpt-4.1"
        if chat:
            model = sdk.OpenAIChatCompletionsModel(model=model, openai_client=_module("openai").AsyncOpenAI())
        agent = sdk.Agent(name="ponger", model=model, tools=[sdk.function_tool(pong_tool)] if tools else [])
        sdk.Runner.run_sync(agent, PROMPT)

    return call


AGENTS_SDK: dict[str, Callable[[], object]] = {
    "openai-responses": _agents_sdk(),
    "openai-chat": _agents_sdk(chat=True),
    "openai-two-turns": _agents_sdk(tools=True),
}


def openinference_agents(recorder: Recorder) -> list[str]:
    """OpenAI's Agents SDK by OpenInference."""
    recorder.provide()
    _instrument("openinference.instrumentation.openai_agents", "OpenAIAgentsInstrumentor")
    recorder.record(AGENTS_SDK)
    return ["openinference-instrumentation-openai-agents", "openai-agents", "openai"]


def official_agents(recorder: Recorder) -> list[str]:
    """OpenAI's Agents SDK by OpenTelemetry's own instrumentation."""
    recorder.provide()
    _load("opentelemetry.instrumentation.genai.openai_agents")
    recorder.record(AGENTS_SDK)
    return ["opentelemetry-instrumentation-genai-openai-agents", "openai-agents", "openai"]


def openllmetry_agents(recorder: Recorder) -> list[str]:
    """OpenAI's Agents SDK by OpenLLMetry."""
    recorder.provide()
    _instrument("opentelemetry.instrumentation.openai_agents", "OpenAIAgentsInstrumentor")
    recorder.record(AGENTS_SDK)
    return ["opentelemetry-instrumentation-openai-agents", "openai-agents", "openai"]


def semantic_kernel(recorder: Recorder) -> list[str]:
    """Semantic Kernel's diagnostics."""
    os.environ["SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS"] = "true"
    recorder.provide()
    open_ai = _module("semantic_kernel.connectors.ai.open_ai")
    contents = _module("semantic_kernel.contents")

    def run(model: str, *, stream: bool = False) -> Callable[[], object]:
        async def call() -> None:
            service = open_ai.OpenAIChatCompletion(ai_model_id=model, async_client=_module("openai").AsyncOpenAI())
            history = contents.ChatHistory()
            history.add_user_message(PROMPT)
            settings = open_ai.OpenAIChatPromptExecutionSettings()
            if not stream:
                await service.get_chat_message_content(history, settings)
                return
            async for _ in service.get_streaming_chat_message_content(history, settings):
                pass

        return lambda: asyncio.run(call())

    recorder.record(
        {
            "openai-chat": run("gpt-4.1"),
            "openai-chat-stream": run("gpt-4.1", stream=True),
            "openai-reasoning": run("o4-mini"),
        }
    )
    return ["semantic-kernel", "openai"]


def _langchain_calls() -> dict[str, Callable[[], object]]:
    def gpt(**more: Any) -> Any:
        return _module("langchain_openai").ChatOpenAI(model="gpt-4.1", **more)

    def claude() -> Any:
        return _module("langchain_anthropic").ChatAnthropic(model="claude-sonnet-4-5", max_tokens=100)

    def bedrock() -> Any:
        return _module("langchain_aws").ChatBedrockConverse(model=BEDROCK_MODEL, region_name="us-east-1")

    def chain() -> None:
        prompts = _module("langchain_core.prompts")
        (prompts.ChatPromptTemplate.from_messages([("user", "{asked}")]) | gpt()).invoke({"asked": PROMPT})

    def agent() -> None:
        built = _module("langchain.agents").create_agent(gpt(), tools=[pong_tool])
        built.invoke({"messages": ASKED})

    return {
        "openai-chat": lambda: gpt().invoke(PROMPT),
        "openai-chat-in-a-chain": chain,
        "openai-chat-stream": lambda: list(gpt(stream_usage=True).stream(PROMPT)),
        "openai-responses": lambda: gpt(use_responses_api=True).invoke(PROMPT),
        "openai-priority": lambda: gpt(service_tier="priority").invoke(PROMPT),
        "openai-two-turns": agent,
        "anthropic-cached-chat": lambda: claude().invoke(PROMPT),
        "bedrock-cached-converse": lambda: bedrock().invoke(PROMPT),
    }


LANGCHAIN = ["langchain", "langchain-core", "langchain-openai", "langchain-anthropic", "langchain-aws", "openai"]


def openllmetry_langchain(recorder: Recorder) -> list[str]:
    """LangChain by OpenLLMetry."""
    recorder.provide()
    _instrument("opentelemetry.instrumentation.langchain", "LangchainInstrumentor")
    recorder.record(_langchain_calls())
    return ["opentelemetry-instrumentation-langchain", *LANGCHAIN, "anthropic"]


def openinference_langchain(recorder: Recorder) -> list[str]:
    """LangChain by OpenInference."""
    recorder.provide()
    _instrument("openinference.instrumentation.langchain", "LangChainInstrumentor")
    recorder.record(_langchain_calls())
    return ["openinference-instrumentation-langchain", *LANGCHAIN, "anthropic"]


def openinference_litellm(recorder: Recorder) -> list[str]:
    """LiteLLM by OpenInference."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    recorder.provide()
    _instrument("openinference.instrumentation.litellm", "LiteLLMInstrumentor")
    recorder.record(_litellm_calls())
    return ["openinference-instrumentation-litellm", "litellm", "openai"]


def _llamaindex_calls() -> dict[str, Callable[[], object]]:
    def gpt() -> Any:
        return _module("llama_index.llms.openai").OpenAI(model="gpt-4.1", api_base=os.environ["OPENAI_BASE_URL"])

    def claude() -> Any:
        model = _module("llama_index.llms.anthropic").Anthropic
        return model(model="claude-sonnet-4-5", max_tokens=100, base_url=os.environ["ANTHROPIC_BASE_URL"])

    def asked() -> list[Any]:
        return [_module("llama_index.core.llms").ChatMessage(role="user", content=PROMPT)]

    return {
        "openai-chat": lambda: gpt().chat(asked()),
        "anthropic-cached-chat": lambda: claude().chat(asked()),
    }


LLAMAINDEX = ["llama-index-core", "llama-index-llms-openai", "llama-index-llms-anthropic", "openai", "anthropic"]


def openllmetry_llamaindex(recorder: Recorder) -> list[str]:
    """LlamaIndex by OpenLLMetry."""
    recorder.provide()
    _instrument("opentelemetry.instrumentation.llamaindex", "LlamaIndexInstrumentor")
    recorder.record(_llamaindex_calls())
    return ["opentelemetry-instrumentation-llamaindex", *LLAMAINDEX]


def openinference_llamaindex(recorder: Recorder) -> list[str]:
    """LlamaIndex by OpenInference."""
    recorder.provide()
    _instrument("openinference.instrumentation.llama_index", "LlamaIndexInstrumentor")
    recorder.record(_llamaindex_calls())
    return ["openinference-instrumentation-llama-index", *LLAMAINDEX]


# Stacks: one call that several of them describe.

_OLL = "opentelemetry.instrumentation"
_OI = "openinference.instrumentation"


def _on(*what: str) -> None:
    """Switches instrumentations on: `module:class`, or a module whose entry point to load."""
    for one in what:
        module, _, name = one.partition(":")
        if name:
            _instrument(module, name)
        else:
            _load(module)


def _stack(
    case: str, cost: tuple[str, str], what: list[str], call: Callable[[], Callable[[], object]], packages: list[str]
) -> Callable[[Recorder], list[str]]:
    def emit(recorder: Recorder) -> list[str]:
        COSTS[case] = cost
        recorder.provide()
        _on(*what)
        recorder.record({case: call()})
        return packages

    return emit


def _native(
    case: str, cost: tuple[str, str], what: list[str], packages: list[str], call: Callable[[], object] = anthropic_chat
) -> Callable[[Recorder], list[str]]:
    def emit(recorder: Recorder) -> list[str]:
        os.environ["ANTHROPIC_OPEN_TELEMETRY"] = "true"
        return _stack(case, cost, what, lambda: call, [*packages, "anthropic"])(recorder)

    return emit


def _pydantic_ai_in_logfire(recorder: Recorder) -> list[str]:
    fire = _module("logfire")
    fire.configure(send_to_logfire=False, console=False, additional_span_processors=[recorder.processor()])
    fire.instrument_pydantic_ai()
    fire.instrument_openai()
    COSTS["pydantic-ai-and-logfire-openai"] = GPT41
    recorder.record({"pydantic-ai-and-logfire-openai": _pydantic_agents()["openai-chat"]})
    return ["logfire", "pydantic-ai", "openai"]


def _litellm_otel_and(case: str, what: list[str], packages: list[str]) -> Callable[[Recorder], list[str]]:
    def emit(recorder: Recorder) -> list[str]:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        COSTS[case] = GPT41
        provider = recorder.provide()
        _on(*what)
        logger = _module("litellm.integrations.opentelemetry").OpenTelemetry(tracer_provider=provider)
        _module("litellm").callbacks = [logger]
        recorder.record({case: _litellm_calls()["openai-chat"]})
        return ["litellm", *packages, "openai"]

    return emit


_OLL_OPENAI = f"{_OLL}.openai:OpenAIInstrumentor"
_OI_OPENAI = f"{_OI}.openai:OpenAIInstrumentor"

STACKS: dict[str, Callable[[Recorder], list[str]]] = {
    "stack-litellm-openinference": _stack(
        "openinference-litellm-and-openai",
        GPT41,
        [f"{_OI}.litellm:LiteLLMInstrumentor", _OI_OPENAI],
        lambda: _litellm_calls()["openai-chat"],
        ["litellm", "openai", "openinference-instrumentation-litellm", "openinference-instrumentation-openai"],
    ),
    "stack-litellm-openllmetry": _litellm_otel_and(
        "litellm-otel-and-openllmetry-openai", [_OLL_OPENAI], ["opentelemetry-instrumentation-openai"]
    ),
    "stack-langchain-openinference": _stack(
        "openinference-langchain-and-openai",
        GPT41,
        [f"{_OI}.langchain:LangChainInstrumentor", _OI_OPENAI],
        lambda: _langchain_calls()["openai-chat-in-a-chain"],
        ["langchain-openai", "openinference-instrumentation-langchain", "openinference-instrumentation-openai"],
    ),
    "stack-langchain-openllmetry": _stack(
        "openllmetry-langchain-and-openai",
        GPT41,
        [f"{_OLL}.langchain:LangchainInstrumentor", _OLL_OPENAI],
        lambda: _langchain_calls()["openai-chat-in-a-chain"],
        ["langchain-openai", "opentelemetry-instrumentation-langchain", "opentelemetry-instrumentation-openai"],
    ),
    "stack-langchain-openllmetry-two-turns": _stack(
        "openllmetry-langchain-and-openai-two-turns",
        TWO_TURNS,
        [f"{_OLL}.langchain:LangchainInstrumentor", _OLL_OPENAI],
        lambda: _langchain_calls()["openai-two-turns"],
        ["langchain-openai", "opentelemetry-instrumentation-langchain", "opentelemetry-instrumentation-openai"],
    ),
    "stack-langchain-anthropic-openllmetry": _native(
        "openllmetry-langchain-and-anthropic-native",
        SONNET,
        [f"{_OLL}.langchain:LangchainInstrumentor"],
        ["langchain-anthropic", "opentelemetry-instrumentation-langchain"],
        lambda: _langchain_calls()["anthropic-cached-chat"](),
    ),
    "stack-agents-openinference": _stack(
        "openinference-agents-and-openai",
        GPT41,
        [f"{_OI}.openai_agents:OpenAIAgentsInstrumentor", _OI_OPENAI],
        _agents_sdk,
        ["openai-agents", "openinference-instrumentation-openai-agents", "openinference-instrumentation-openai"],
    ),
    "stack-agents-openinference-chat": _stack(
        "openinference-agents-and-openai-chat",
        GPT41,
        [f"{_OI}.openai_agents:OpenAIAgentsInstrumentor", _OI_OPENAI],
        lambda: _agents_sdk(chat=True),
        ["openai-agents", "openinference-instrumentation-openai-agents", "openinference-instrumentation-openai"],
    ),
    "stack-agents-openllmetry": _stack(
        "openllmetry-agents-and-openai",
        GPT41,
        [f"{_OLL}.openai_agents:OpenAIAgentsInstrumentor", _OLL_OPENAI],
        _agents_sdk,
        ["openai-agents", "opentelemetry-instrumentation-openai-agents", "opentelemetry-instrumentation-openai"],
    ),
    "stack-agents-official": _stack(
        "official-agents-and-openai",
        TWO_TURNS,
        [f"{_OLL}.genai.openai_agents", f"{_OLL}.genai.openai"],
        lambda: _agents_sdk(tools=True),
        [
            "openai-agents",
            "opentelemetry-instrumentation-genai-openai-agents",
            "opentelemetry-instrumentation-genai-openai",
        ],
    ),
    "stack-pydantic-ai": _pydantic_ai_in_logfire,
    "stack-anthropic-openllmetry": _native(
        "anthropic-native-and-openllmetry",
        SONNET,
        [f"{_OLL}.anthropic:AnthropicInstrumentor"],
        ["opentelemetry-instrumentation-anthropic"],
    ),
    "stack-anthropic-openllmetry-stream": _native(
        "anthropic-native-and-openllmetry-stream",
        SONNET,
        [f"{_OLL}.anthropic:AnthropicInstrumentor"],
        ["opentelemetry-instrumentation-anthropic"],
        anthropic_chat_stream,
    ),
    "stack-anthropic-openinference": _native(
        "anthropic-native-and-openinference",
        SONNET,
        [f"{_OI}.anthropic:AnthropicInstrumentor"],
        ["openinference-instrumentation-anthropic"],
    ),
    "stack-anthropic-official": _native(
        "anthropic-native-and-official",
        SONNET,
        [f"{_OLL}.genai.anthropic"],
        ["opentelemetry-instrumentation-genai-anthropic"],
    ),
    "stack-openai-official-openinference": _stack(
        "official-openai-and-openinference-openai",
        GPT41,
        [f"{_OLL}.genai.openai", _OI_OPENAI],
        lambda: openai_chat,
        ["openai", "opentelemetry-instrumentation-genai-openai", "openinference-instrumentation-openai"],
    ),
    "stack-openai-official-openinference-stream": _stack(
        "official-openai-and-openinference-openai-stream",
        GPT41,
        [f"{_OLL}.genai.openai", _OI_OPENAI],
        lambda: openai_chat_stream,
        ["openai", "opentelemetry-instrumentation-genai-openai", "openinference-instrumentation-openai"],
    ),
    "stack-llamaindex-openinference": _stack(
        "openinference-llamaindex-and-openai",
        GPT41,
        [f"{_OI}.llama_index:LlamaIndexInstrumentor", _OI_OPENAI],
        lambda: _llamaindex_calls()["openai-chat"],
        [
            "llama-index-llms-openai",
            "openinference-instrumentation-llama-index",
            "openinference-instrumentation-openai",
        ],
    ),
    "stack-strands-openinference": _stack(
        "strands-and-openinference-openai",
        TWO_TURNS,
        [_OI_OPENAI],
        lambda: _strands_agents()["openai-two-turns"],
        ["strands-agents", "openai", "openinference-instrumentation-openai"],
    ),
    "stack-strands-openllmetry-bedrock": _stack(
        "strands-and-openllmetry-bedrock",
        CONVERSED,
        [f"{_OLL}.bedrock:BedrockInstrumentor"],
        lambda: _strands_agents()["bedrock-cached-converse-stream"],
        ["strands-agents", "boto3", "opentelemetry-instrumentation-bedrock"],
    ),
    "stack-adk-official": _stack(
        "adk-and-official-google-genai",
        FLASH,
        [f"{_OLL}.google_genai"],
        lambda: _adk_run,
        ["google-adk", "google-genai", "opentelemetry-instrumentation-google-genai"],
    ),
    "stack-adk-openinference": _stack(
        "adk-and-openinference-google-genai",
        FLASH,
        [f"{_OI}.google_genai:GoogleGenAIInstrumentor"],
        lambda: _adk_run,
        ["google-adk", "google-genai", "openinference-instrumentation-google-genai"],
    ),
}

EMITTERS: dict[str, Callable[[Recorder], list[str]]] = {
    "openllmetry": openllmetry,
    "openllmetry-langchain": openllmetry_langchain,
    "openllmetry-llamaindex": openllmetry_llamaindex,
    "openllmetry-agents": openllmetry_agents,
    "openinference": openinference,
    "openinference-langchain": openinference_langchain,
    "openinference-litellm": openinference_litellm,
    "openinference-llamaindex": openinference_llamaindex,
    "openinference-agents": openinference_agents,
    "official": official,
    "official-openai-v2": openai_v2,
    "official-google-experimental": google_genai_experimental,
    "official-agents": official_agents,
    "anthropic-native": anthropic_native,
    "xai-sdk": xai_sdk,
    "logfire": logfire,
    "pydantic-ai": pydantic_ai,
    "openlit": openlit,
    "litellm": litellm,
    "litellm-v2": litellm_v2,
    "langsmith": langsmith,
    "langfuse": langfuse,
    "mlflow": mlflow,
    "adk": adk,
    "adk-v1": adk_v1,
    "strands": strands,
    "strands-experimental": strands_experimental,
    "semantic-kernel": semantic_kernel,
    **STACKS,
}


def main() -> None:
    """Prints the fixture of the emitter that the command line names, or puts its cases into the file after it."""
    name, *files = sys.argv[1:]
    with serving() as port:
        recorder = Recorder(name, port)
        packages = EMITTERS[name](recorder)
        fixture = recorder.fixture(packages)
    for file in map(Path, files):
        if name.startswith("stack-"):
            packages_of = fixture["packages"]
            fixture = (
                json.loads(file.read_text()) if file.exists() else {"emitter": "stacks", "packages": {}, "cases": []}
            )
            cases = {case["name"]: case for case in fixture["cases"]}
            cases |= {case["name"]: {**case, "packages": packages_of} for case in recorder.cases}
            fixture["cases"] = [cases[name] for name in sorted(cases)]
        file.write_text(json.dumps(fixture, indent=1, ensure_ascii=False) + "\n")
    if not files:
        print(json.dumps(fixture, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
