"""A loopback provider that is quick enough to be called by 64 threads at once, in a process of its own.

It answers the plain and streamed calls of OpenAI, Anthropic and Gemini. What an answer used follows from the request's
own limit of output tokens, so that whoever asked knows what the sum over many calls must be: see `used()`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

OPENAI_MODELS: Final = ("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o")
ANTHROPIC_MODEL: Final = "claude-sonnet-4-5"
GEMINI_MODEL: Final = "gemini-2.5-flash"
EMBEDDING_MODEL: Final = "text-embedding-3-small"


class Used(NamedTuple):
    """Tokens of one answer; `input` contains `cached`."""

    input: int
    cached: int
    output: int


def used(limit: int) -> Used:
    """What a call with `max_tokens=limit` uses. Each limit gives other numbers, so that no two calls are alike.

    >>> used(7)
    Used(input=1007, cached=448, output=7)
    """
    return Used(1000 + limit, limit % 16 * 64, limit)


@contextmanager
def serving() -> Iterator[str]:
    """Runs the provider; gives its URL, without a path."""
    command = [sys.executable, str(Path(__file__).resolve())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _openai_usage(limit: int) -> Json:
    tokens = used(limit)
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _chat(body: Json) -> Json | list[Json]:
    usage = _openai_usage(body["max_tokens"])
    common = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "Yes."}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**common, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**common, "object": "chat.completion.chunk", "choices": [choice]}

    chunks = [chunk({"role": "assistant", "content": "Y"}), chunk({"content": "es."}), chunk({}, "stop")]
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**common, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    return chunks


def _responses(body: Json) -> Json:
    tokens = used(body["max_output_tokens"])
    text = {"type": "output_text", "text": "Yes.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens.input + tokens.output,
        },
    }


def _embeddings(body: Json) -> Json:
    tokens = len(body["input"])
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


def _messages(body: Json) -> Json | list[Json]:
    tokens = used(body["max_tokens"])
    usage = {
        "input_tokens": tokens.input - tokens.cached,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": tokens.output,
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not body.get("stream"):
        return message
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Yes."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens.output}},
        {"type": "message_stop"},
    ]


def _gemini(body: Json) -> Json:
    tokens = used(body["generationConfig"]["maxOutputTokens"])
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Yes."}]}, "finishReason": "STOP"}],
        "modelVersion": GEMINI_MODEL,
        "usageMetadata": {
            "promptTokenCount": tokens.input,
            "cachedContentTokenCount": tokens.cached,
            "candidatesTokenCount": tokens.output,
            "totalTokenCount": tokens.input + tokens.output,
        },
    }


_ANSWERS = {
    "chat/completions": _chat,
    "responses": _responses,
    "embeddings": _embeddings,
    "messages": _messages,
    f"{GEMINI_MODEL}:generateContent": _gemini,
}


def _answer(path: str, body: Json) -> bytes:
    make = next((make for end, make in _ANSWERS.items() if path.partition("?")[0].endswith(end)), None)
    if make is None or body.get("model") == "no-such-model":
        error = {"error": {"message": "The model does not exist.", "type": "invalid_request_error"}}
        return _response("404 Not Found", "application/json", json.dumps(error).encode())
    made = make(body)
    if isinstance(made, dict):
        return _response("200 OK", "application/json", json.dumps(made).encode())
    events = (f"event: {event['type']}\n" if "type" in event else "" for event in made)
    lines = [f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(events, made, strict=True)]
    if "type" not in made[0]:
        lines.append("data: [DONE]\n\n")
    return _response("200 OK", "text/event-stream", "".join(lines).encode())


def _response(status: str, kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, and no more of it than the SDKs' clients need."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = int(headers.get("content-length", 0))
            if len(rest) < size:
                return
            self._received = rest[size:]
            self._transport.write(_answer(first.split()[1], json.loads(rest[:size] or b"{}")))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
