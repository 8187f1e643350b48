"""What stands in front of the HTTP API: keys, limits, headers, the audit log. All that goes through has a key.

It is the outermost part, and knows of four things that need none: the page, its style and script, and `/healthz`. None
of them holds data. A path that is added behind it is closed to strangers without anybody thinking of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from costspan.insight.serve.audit import Audit
    from costspan.insight.serve.keys import Key, Keys, Scope

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_log = logging.getLogger("costspan")

BASE: Final = "/api/v1/cost"
LARGEST_BODY: Final = 64 * 1024
LONGEST_QUERY: Final = 4096
LONGEST_PATH: Final = 2048
BODY_SECONDS: Final = 10.0
STRANGERS_A_MINUTE: Final = 60
"""Requests without a valid key that one address may make."""
NOBODY: Final = "-"
"""Who made a request without a valid key, in the audit log."""

KEY: Final = "costspan.key"
"""Where the ASGI scope has the `Key` of whoever asks."""

_READING: Final = {("POST", f"{BASE}/estimate")}
"""What changes nothing although it is no GET."""

_PAGE: Final = Path(__file__).parent / "page"
_OPEN: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refused(Exception):  # noqa: N818  it is an answer
    """An answer that is not what was asked for, as RFC 9457 has it."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more
        """Further members."""
        self.headers: dict[str, str] = {}

    def with_header(self, name: str, value: str) -> Refused:
        """The same, with a header."""
        self.headers[name] = value
        return self

    def body(self) -> bytes:
        """Its problem details."""
        return json.dumps(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **self.more,
            }
        ).encode()


class Gate:
    """An ASGI application in front of another; it can be mounted under any path."""

    def __init__(
        self,
        inner: ASGI,
        keys: Keys,
        audit: Audit,
        rate: int,
        *,
        openapi: Callable[[], dict[str, Any]],
        begin: Callable[[], object],
        close: Callable[[], None],
    ) -> None:
        """`rate` is how many requests a key may make in a minute. `begin` loads what the first request would wait for.

        `close` gives back connections.
        """
        self.openapi = openapi
        """The OpenAPI document, which the API shows to whoever has a key."""
        self._inner = inner
        self._keys = keys
        self._audit = audit
        storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._rate = parse(f"{rate}/minute")
        self._strangers = parse(f"{STRANGERS_A_MINUTE}/minute")
        self._begin = begin
        self._close = close

    def close(self) -> None:
        """Write what the audit log still holds, and give back connections. A server of ours calls it at its end.

        Who mounts this application in another one calls it there: mounted applications are not told of the end.
        """
        self._audit.close()
        self._close()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        # On a thread of its own, which nobody waits for: who stops a server that has just begun need not, either.
        threading.Thread(target=self._begin, name="costspan-serve-begin", daemon=True).start()
        await receive()
        await asyncio.get_running_loop().run_in_executor(None, self.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        path, method = route_path(scope), scope["method"]
        answer = _Answer(send)
        if method in {"GET", "HEAD"} and (path in _OPEN or path in {"", "/healthz"}):
            await self._open(path, scope, answer)
            return
        who = NOBODY
        try:
            key = self._key(scope)
            who, scope[KEY] = key.name, key
            self._admit(key, method, path, scope)
            body = await _read(scope, receive)
            await self._inner(scope, _replay(body, receive), answer)
        except Refused as refused:
            await answer.refuse(refused)
        except _Gone:
            return
        except Exception:  # noqa: BLE001  whoever asked is told so, and no more
            _log.exception("costspan: %s %s failed", method, path[:LONGEST_PATH])
            if answer.status is None:
                await answer.refuse(Refused(500, "something is wrong in the server; its log says what"))
        finally:
            if answer.status is not None and (who, answer.status) != (NOBODY, 429):
                self._audit.note(who, method, path, answer.status)

    async def _open(self, path: str, scope: Mapping[str, Any], answer: _Answer) -> None:
        if path == "":
            # Mounted under a path that was asked for without the slash, by which the page finds its parts.
            await answer.send_all(307, b"", {"location": f"{scope.get('root_path', '')}/"})
            return
        if path == "/healthz":
            content, kind = b'{"status":"ok"}', "application/json"
        else:
            name, kind = _OPEN[path]
            content = (_PAGE / name).read_bytes()
        await answer.send_all(200, content, {"content-type": kind}, head=scope["method"] == "HEAD")

    def _key(self, scope: Mapping[str, Any]) -> Key:
        """Who asks. Raises Refused."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        key = None
        if len(given) == 1:
            scheme, _, secret = given[0].decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                key = self._keys.find(secret.strip())
        if key is not None:
            return key
        address = (scope.get("client") or ("", 0))[0]
        self._limit(self._strangers, f"address {address}", "too many requests without a valid key")
        why = "this key is not known" if given else "a key is needed: Authorization: Bearer csk_..."
        raise Refused(401, why).with_header("www-authenticate", 'Bearer realm="costspan"')

    def _admit(self, key: Key, method: str, path: str, scope: Mapping[str, Any]) -> None:
        """Whether somebody may ask this, now. Raises Refused."""
        self._limit(self._rate, f"key {key.name}", f"key {key.name!r} may make {self._rate.amount} requests a minute")
        if len(scope.get("query_string", b"")) > LONGEST_QUERY or len(path) > LONGEST_PATH:
            raise Refused(414, f"at most {LONGEST_QUERY} characters of query and {LONGEST_PATH} of path are read")
        reads = method in {"GET", "HEAD", "OPTIONS"} or (method, path) in _READING
        needed: Scope = "read" if reads else "write"
        if not key.may(needed):
            challenge = f'Bearer realm="costspan", error="insufficient_scope", scope="{needed}"'
            raise Refused(403, f"key {key.name!r} may {key.scope}; this needs a key that may {needed}").with_header(
                "www-authenticate", challenge
            )

    def _limit(self, rate: Any, whose: str, detail: str) -> None:
        if not self._limiter.hit(rate, whose):
            # The window slides: after a share of it there is room again.
            reset = self._limiter.get_window_stats(rate, whose).reset_time
            wait = max(1, math.ceil(reset - time.time()))
            raise Refused(429, detail).with_header("retry-after", str(wait))


class _Answer:
    """Sends an answer with our headers, and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message.get("headers", ())}
            ours = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
            message = {**message, "headers": [*message.get("headers", ()), *ours]}
        await self._send(message)

    async def send_all(self, status: int, content: bytes, headers: Mapping[str, str], *, head: bool = False) -> None:
        lines = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        lines.append((b"content-length", str(len(content)).encode()))
        await self({"type": "http.response.start", "status": status, "headers": lines})
        await self({"type": "http.response.body", "body": b"" if head else content})

    async def refuse(self, refused: Refused) -> None:
        headers = {"content-type": "application/problem+json", **refused.headers}
        await self.send_all(refused.status, refused.body(), headers)


class _Gone(Exception):  # noqa: N818  nobody is there to be told
    """The client has hung up."""


def route_path(scope: Mapping[str, Any]) -> str:
    """The path below that under which the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return str(path)


async def _read(scope: Mapping[str, Any], receive: Receive) -> bytes:
    """The whole body: it is small, or refused. Raises Refused and `_Gone`."""
    too_large = Refused(413, f"a body has at most {LARGEST_BODY} bytes")
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if said.isdigit() and int(said) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise too_large
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} seconds") from None


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
