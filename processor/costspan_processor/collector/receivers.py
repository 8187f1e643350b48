"""Receivers of OTLP over HTTP and gRPC: who may send, how much, and how each protocol puts an answer."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from aiohttp import ClientPayloadError, web
from grpc import StatusCode

from costspan_processor.collector.otlp import (
    SIGNALS,
    Answer,
    BadRequest,
    Outcome,
    Signal,
    TooLarge,
    as_json,
    decompressed,
    from_json,
    later,
)

Take = Callable[[Signal, bytes], "asyncio.Task[Answer]"]
"""Passes on a request in protobuf, to its end, even if whoever sent it hangs up."""

_BODY_SECONDS: Final = 30.0
_STREAMS: Final = 100
_FULL: Final = later("this collector has as much to do as it takes")
_UNKNOWN: Final = Answer(StatusCode.UNAUTHENTICATED, "these credentials are not known here")


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TLS:
    """PEM files. With `client_ca` a client must show a certificate that it has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises OSError, ssl.SSLError among it."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        made.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            made.verify_mode = ssl.CERT_REQUIRED
        return made

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC. Raises OSError."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            None if self.client_ca is None else self.client_ca.read_bytes(),
            require_client_auth=self.client_ca is not None,
        )


class _FullError(Exception):
    """There is no room for a request."""


class Door:
    """What every request comes through, whatever its protocol: credentials, and room for its bytes.

    `credentials` are values of the header `Authorization`; without any, all may send. `max_body` bytes of a request
    are taken, decompressed, and `max_in_flight` of all that are being worked on.
    """

    def __init__(self, take: Take, credentials: Iterable[str], max_body: int, max_in_flight: int) -> None:
        self.take: Final = take
        self.max_body: Final = max_body
        self.in_flight = 0
        """Bytes."""
        self.answers: Final[dict[tuple[Signal, Outcome], int]] = {}
        """How many requests have had which."""
        self._credentials = tuple(value.encode() for value in credentials)
        self._max_in_flight = max_in_flight

    def admits(self, authorization: str | None) -> bool:
        """Whether somebody with this header may send."""
        given = (authorization or "").encode("utf-8", "replace")
        # All of them, so that the time that it takes tells nothing.
        same = [hmac.compare_digest(given, known) for known in self._credentials]
        return any(same) or not same

    def noted(self, signal: Signal, answer: Answer) -> Answer:
        """The answer, once it is counted."""
        key = signal, answer.outcome
        self.answers[key] = self.answers.get(key, 0) + 1
        return answer

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Room for a request, until the block ends; what it gives is called with each number of bytes more."""
        taken = 0

        def more(count: int) -> None:
            nonlocal taken
            if self.in_flight + count > self._max_in_flight:
                raise _FullError
            self.in_flight += count
            taken += count

        try:
            yield more
        finally:
            self.in_flight -= taken


@asynccontextmanager
async def listen(
    app: web.Application, address: Address, tls: TLS | None = None, *, shared: bool = False, drain: float = 0.0
) -> AsyncIterator[None]:
    """An HTTP server until the block ends; then requests have `drain` seconds to end in. Raises OSError.

    `shared`: other processes listen on the same port.
    """
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=drain)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner,
            address.host,
            address.port,
            ssl_context=None if tls is None else tls.context(),
            reuse_port=shared or None,
        )
        await site.start()
        yield
    finally:
        await runner.cleanup()


# ------------------------------------------------------------------ HTTP


def over_http(door: Door, signals: Iterable[Signal]) -> web.Application:
    """`POST /v1/traces` and its like: protobuf or JSON, plain or compressed with gzip or zlib."""
    app = web.Application()
    for signal in signals:
        app.router.add_post(f"/v1/{signal}", partial(_receive, door, signal))
    return app


async def _receive(door: Door, signal: Signal, request: web.Request) -> web.Response:
    kind = request.content_type
    in_json = kind == "application/json"
    if not in_json and kind != "application/x-protobuf":
        why = f"Content-Type {kind} is not taken: send application/x-protobuf or application/json"
        return _http(signal, door.noted(signal, Answer(StatusCode.UNIMPLEMENTED, why)), in_json=False)
    if not door.admits(request.headers.get("Authorization")):
        return _http(signal, door.noted(signal, _UNKNOWN), in_json=in_json)
    try:
        with door.room() as more:
            body = await _body(door, request, more)
            if in_json:
                # Ten times as slow as all the rest.
                body = await asyncio.to_thread(from_json, signal, body)
            answer = await asyncio.shield(door.take(signal, body))
    except TooLarge as error:
        answer = Answer(StatusCode.RESOURCE_EXHAUSTED, str(error))
    except BadRequest as error:
        answer = Answer(StatusCode.INVALID_ARGUMENT, str(error))
    except _FullError:
        answer = _FULL
    except TimeoutError:
        answer = later(f"the body did not come in {_BODY_SECONDS:g} s")
    return _http(signal, door.noted(signal, answer), in_json=in_json)


async def _body(door: Door, request: web.Request, more: Callable[[int], None]) -> bytes:
    """The body of a request, decompressed. Raises BadRequest, _FullError and TimeoutError."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise BadRequest(f"Content-Encoding {encoding} is not taken: send gzip, deflate or nothing")
    too_large = TooLarge(f"the body has more than {door.max_body} bytes")
    if (request.content_length or 0) > door.max_body:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.content.iter_any():
                more(len(part))
                parts.append(part)
                size += len(part)
                if size > door.max_body:
                    raise too_large
    except ClientPayloadError as error:
        raise BadRequest(f"the body cannot be read: {error}") from None
    body = b"".join(parts)
    if encoding != "identity":
        body = decompressed(body, door.max_body)
        more(len(body))
    return body


def _http(signal: Signal, answer: Answer, *, in_json: bool) -> web.Response:
    headers = {}
    if answer.after is not None:
        headers["Retry-After"] = str(answer.delay)
    if answer.code is StatusCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if answer.code is not StatusCode.OK:
        message = answer.status()
        body = as_json(message) if in_json else message.SerializeToString()
    elif in_json:
        body = as_json(SIGNALS[signal].response.FromString(answer.response))
    else:
        body = answer.response
    kind = "application/json" if in_json else "application/x-protobuf"
    return web.Response(body=body, status=answer.http, headers=headers, content_type=kind)


# ------------------------------------------------------------------ gRPC


@asynccontextmanager
async def over_grpc(
    door: Door,
    signals: Iterable[Signal],
    address: Address,
    tls: TLS | None = None,
    *,
    shared: bool = False,
    drain: float = 0.0,
) -> AsyncIterator[None]:
    """A gRPC server until the block ends, as `listen`. Raises OSError."""
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_receive_message_length", door.max_body),
            ("grpc.max_concurrent_streams", _STREAMS),
        )
    )
    for signal in signals:
        # Without a serializer it is bytes that come and go.
        method: Any = grpc.unary_unary_rpc_method_handler(partial(_called, door, signal))
        handler = grpc.method_handlers_generic_handler(SIGNALS[signal].service, {"Export": method})
        server.add_generic_rpc_handlers((handler,))
    try:
        if tls is None:
            server.add_insecure_port(str(address))
        else:
            server.add_secure_port(str(address), tls.credentials())
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(drain)


async def _called(door: Door, signal: Signal, body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    metadata = context.invocation_metadata() or ()
    given = next((value for key, value in metadata if key == "authorization"), None)
    if not door.admits(given if isinstance(given, str) else None):
        answer = _UNKNOWN
    else:
        try:
            with ExitStack() as held:
                held.enter_context(door.room())(len(body))
                task = door.take(signal, body)
                # A client that gives up ends this function, but not what it has begun.
                task.add_done_callback(partial(_left, held.pop_all()))
                answer = await asyncio.shield(task)
        except _FullError:
            answer = _FULL
    door.noted(signal, answer)
    if answer.code is not StatusCode.OK:
        if answer.after is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", answer.status().SerializeToString()),))
        await context.abort(answer.code, answer.message)
    return answer.response


def _left(held: ExitStack, _task: asyncio.Task[Answer]) -> None:
    held.close()
