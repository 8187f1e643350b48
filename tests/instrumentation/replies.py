"""A server on the loopback interface that sends fixed replies, chosen by a function of the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import http_server


@dataclass
class Asked:
    """The requests that came: path, JSON body and headers of each."""

    url: str
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)


@dataclass(frozen=True)
class Refusal:
    """A reply with another status than 200."""

    status: int
    body: Any


def stream_of(*events: dict[str, Any]) -> str:
    """Server events with their names, as Anthropic and Google send them."""
    named = ((f"event: {event['type']}\n" if "type" in event else "", event) for event in events)
    return "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in named)


@contextmanager
def replying(reply: Callable[[str, dict[str, Any]], Any]) -> Iterator[Asked]:
    """Serves `reply(path, body)`: an object is sent as JSON, text as a stream of events. A form's body is {}."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            body = json.loads(sent) if sent.startswith(b"{") else {}
            asked.requests.append((self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            answer = reply(self.path, body)
            status, answer = (answer.status, answer.body) if isinstance(answer, Refusal) else (200, answer)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if text is answer else "application/json")
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http_server(Handler) as url:
        asked = Asked(url)
        yield asked
