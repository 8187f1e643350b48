"""A provider on the loopback interface that answers what a test tells it to, over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx2

from tests.http_server import http_server


@dataclass
class Answer:
    """What to send: a JSON body, or server-sent events; `cut` breaks the connection after that many events."""

    body: Any = None
    events: list[Any] | None = None
    status: int = 200
    cut: int | None = None
    delay: float = 0.0
    raw: bytes | None = None


@dataclass
class Loopback:
    """The running server: its URL, what it answers, and the bodies that it was sent."""

    url: str
    answer: Answer = field(default_factory=Answer)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def chat(usage: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A chat completion in OpenAI's documented shape."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025-04-14"}
    return {**body, "choices": [choice], **({"usage": usage} if usage is not None else {}), **more}


def chunks(*texts: str, usage: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The events of a streamed chat completion; with `usage`, the last one carries it and no choices."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1-2025-04-14"}
    events = [{**base, "choices": [{"index": 0, "delta": {"content": t}, "finish_reason": None}]} for t in texts]
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [*events, {**base, "choices": [], "usage": usage}] if usage else events


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    """A response of OpenAI's Responses API."""
    message = {"type": "output_text", "text": "Hello", "annotations": []}
    output = [{"type": "message", "id": "m", "role": "assistant", "status": status, "content": [message]}]
    body = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4.1-2025-04-14", "status": status}
    return {**body, "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more}


@contextmanager
def serve() -> Iterator[Loopback]:
    """Starts the server on a free port and stops it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            loopback.requests.append(json.loads(self.rfile.read(length) or b"{}"))
            self._reply()

        def _reply(self) -> None:
            loopback.headers.append(dict(self.headers))
            answer = loopback.answer
            time.sleep(answer.delay)
            if answer.events is None:
                body = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
                self._head(answer.status, "application/json", len(body))
                self.wfile.write(body)
                return
            self._head(answer.status, "text/event-stream", None)
            for number, event in enumerate(answer.events):
                if number == answer.cut:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _head(self, status: int, kind: str, length: int | None) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            if length is None:
                self.send_header("transfer-encoding", "chunked")
            else:
                self.send_header("content-length", str(length))
            self.end_headers()

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    with http_server(Handler) as url:
        loopback = Loopback(url)
        yield loopback


class ToLoopback(httpx2.BaseTransport):
    """Sends an SDK's requests to the loopback server while the SDK still sees the provider's true host."""

    def __init__(self, url: str) -> None:
        self._url = httpx2.URL(url)
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        target = self._url.copy_with(raw_path=request.url.raw_path)
        return self._inner.handle_request(
            httpx2.Request(request.method, target, headers=request.headers, stream=request.stream)
        )

    def close(self) -> None:
        self._inner.close()
