"""Bedrock on the loopback interface: JSON with headers of its own, and event streams in AWS's binary framing."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import http_server

Event = tuple[str, Any]
"""The type of an event and what it says; `exception:` before the type makes it an error."""


@dataclass
class Bedrock:
    """The running server: its URL, what it answers, and the paths that were asked for."""

    url: str
    answer: Any = None
    events: Sequence[Event] | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Break the connection after so many events, or bytes of a body."""
    asked: list[str] = field(default_factory=list)

    def replies(self, answer: Any = None, events: Sequence[Event] | None = None, **more: Any) -> None:
        """What to answer from now on."""
        self.answer, self.events = answer, events
        self.status, self.headers, self.cut = more.get("status", 200), more.get("headers", {}), more.get("cut")


def native(*pieces: dict[str, Any]) -> list[Event]:
    """Pieces of a model's own stream, as InvokeModelWithResponseStream wraps them."""
    return [("chunk", {"bytes": base64.b64encode(json.dumps(piece).encode()).decode()}) for piece in pieces]


def framed(event: Event) -> bytes:
    """One event in the framing application/vnd.amazon.eventstream."""
    kind, says = event
    failed = kind.startswith("exception:")
    named = {
        ":message-type": "exception" if failed else "event",
        ":exception-type" if failed else ":event-type": kind.removeprefix("exception:"),
        ":content-type": "application/json",
    }
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in named.items()
    )
    payload = json.dumps(says).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


@contextmanager
def serving() -> Iterator[Bedrock]:
    """Starts the server on a free port and stops it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_PUT(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            bedrock.asked.append(self.path)
            events = bedrock.events
            if events is None:
                answer = bedrock.answer
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                sent = body[: bedrock.cut]
            else:
                body = b"".join(framed(event) for event in events)
                sent = b"".join(framed(event) for event in events[: bedrock.cut])
            self.send_response(bedrock.status)
            kind = "application/json" if events is None else "application/vnd.amazon.eventstream"
            for name, value in {"content-type": kind, "content-length": str(len(body)), **bedrock.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)
            if bedrock.cut is not None:
                self.close_connection = True
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(ValueError):  # the connection was cut, as some tests want it to be
                super().handle()

    with http_server(Handler) as url:
        bedrock = Bedrock(url)
        yield bedrock
