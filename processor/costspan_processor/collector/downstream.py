"""Where requests go on to: one OTLP endpoint a signal, over HTTP or gRPC, one request out for each that came in.

Nothing is queued and nothing sent again here. What downstream did not accept is not acknowledged, so whoever sent it
keeps it, and sends it again.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from opentelemetry.util.re import parse_env_headers

from costspan_processor.collector.otlp import SIGNALS, Answer, Signal, later, short

Protocols = Literal["grpc", "http/protobuf"]

_ANSWER_AT_MOST: Final = 1 << 20
_CONNECTIONS: Final = 64


class SettingError(ValueError):
    """A variable that cannot be used; the message names it and says what it could be."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a signal goes, as OpenTelemetry's standard variables for exporters say it."""

    protocol: Protocols
    endpoint: str
    """A URL; on HTTP with the whole path."""
    headers: Mapping[str, str]
    certificate: Path | None = None
    """Of whoever signs the server's; else the system's."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    compression: bool = False
    timeout: float = 10.0
    """Seconds."""

    @classmethod
    def of(cls, signal: Signal, environ: Mapping[str, str]) -> Destination | None:
        """`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and its like win over `OTEL_EXPORTER_OTLP_ENDPOINT`.

        None if neither says where to. Raises SettingError.
        """

        def read(name: str) -> tuple[str, str]:
            """The variable that holds it, and its value."""
            variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
            if not environ.get(variable, "").strip():
                variable = f"OTEL_EXPORTER_OTLP_{name}"
            return variable, environ.get(variable, "").strip()

        def file(name: str) -> Path | None:
            variable, value = read(name)
            if value and not Path(value).is_file():
                raise SettingError(f"{variable}={value}: there is no such file")
            return Path(value) if value else None

        variable, protocol = read("PROTOCOL")
        if protocol not in {"", "grpc", "http/protobuf"}:
            raise SettingError(f"{variable}={protocol}: choose grpc or http/protobuf")
        which: Protocols = "grpc" if protocol == "grpc" else "http/protobuf"
        variable, endpoint = read("ENDPOINT")
        if not endpoint:
            return None
        if "://" not in endpoint:
            # As gRPC writes addresses.
            insecure = read("INSECURE")[1].lower() == "true"
            endpoint = f"{'http' if insecure else 'https'}://{endpoint}"
        try:
            parts = urlsplit(endpoint)
            usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
        except ValueError:
            usable = False
        if not usable:
            raise SettingError(f"{variable}={endpoint}: this is no URL such as http://collector:4318")
        if which == "http/protobuf" and not variable.endswith(f"{signal.upper()}_ENDPOINT"):
            endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
        variable, compression = read("COMPRESSION")
        if compression not in {"", "none", "gzip"}:
            raise SettingError(f"{variable}={compression}: choose gzip or none")
        variable, seconds = read("TIMEOUT")
        timeout = 0.0
        with suppress(ValueError):
            timeout = float(seconds or 10)
        if not 0 < timeout < 86_400:
            raise SettingError(f"{variable}={seconds}: this is no number of seconds")
        return cls(
            which,
            endpoint,
            parse_env_headers(read("HEADERS")[1], liberal=True),
            file("CERTIFICATE"),
            file("CLIENT_CERTIFICATE"),
            file("CLIENT_KEY"),
            compression == "gzip",
            timeout,
        )


class Downstream(Protocol):
    """Sends the requests of one signal on."""

    async def send(self, body: bytes) -> Answer:
        """What became of a request. Never raises."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


def connect(signal: Signal, to: Destination) -> Downstream:
    """For the event loop that runs. Raises SettingError for certificates that cannot be used."""
    return _OverGRPC(signal, to) if to.protocol == "grpc" else _OverHTTP(to)


class _OverHTTP:
    def __init__(self, to: Destination) -> None:
        self._to = to
        headers = {"Content-Type": "application/x-protobuf", "User-Agent": "costspan-collector", **to.headers}
        if to.compression:
            headers["Content-Encoding"] = "gzip"
        context: ssl.SSLContext | bool = True
        if to.endpoint.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=to.certificate)
                if to.client_certificate:
                    context.load_cert_chain(to.client_certificate, to.client_key)
            except (OSError, ssl.SSLError) as error:
                raise SettingError(f"the certificates for {to.endpoint} cannot be used: {error}") from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
            timeout=aiohttp.ClientTimeout(total=to.timeout),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(self, body: bytes) -> Answer:
        to = self._to
        if to.compression:
            body = await asyncio.to_thread(gzip.compress, body, 1)
        try:
            async with self._session.post(to.endpoint, data=body, allow_redirects=False) as response:
                told = await response.content.read(_ANSWER_AT_MOST)
        except TimeoutError:
            return later(f"{to.endpoint} did not answer in {to.timeout:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return later(f"{to.endpoint} cannot be reached: {short(str(error) or type(error).__name__)}")
        status = response.status
        if 200 <= status < 300:
            protobuf = "json" not in response.content_type
            return Answer(StatusCode.OK, response=told if protobuf else b"")
        message = f"{to.endpoint} answered {status}{_said(told)}"
        if status in {400, 413, 415, 422}:
            return Answer(StatusCode.INVALID_ARGUMENT, message)
        # A collector that may not go in or has the wrong address is its operator's to mend: nobody else loses data.
        if status < 500 or status in {502, 503, 504}:
            return later(message, _seconds(response.headers.get("Retry-After")))
        return Answer(StatusCode.INTERNAL, message)

    async def close(self) -> None:
        await self._session.close()


_FOR_GOOD: Final = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
    }
)
_LARGE: Final = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", _ANSWER_AT_MOST))
_EAGER: Final = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 5_000))
"""gRPC itself waits up to two minutes before it looks again."""


class _OverGRPC:
    def __init__(self, signal: Signal, to: Destination) -> None:
        self._to = to
        parts = urlsplit(to.endpoint)
        secure = parts.scheme == "https"
        target = parts.netloc if parts.port else f"{parts.netloc}:{443 if secure else 4317}"
        compression = grpc.Compression.Gzip if to.compression else grpc.Compression.NoCompression
        options = (*_LARGE, *_EAGER)
        if secure:
            try:
                held = [
                    file.read_bytes() if file else None
                    for file in (to.certificate, to.client_key, to.client_certificate)
                ]
            except OSError as error:
                raise SettingError(f"the certificates for {to.endpoint} cannot be used: {error}") from None
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*held), options, compression)
        else:
            self._channel = grpc.aio.insecure_channel(target, options, compression)
        # Bytes in, bytes out.
        self._export: Any = self._channel.unary_unary(f"/{SIGNALS[signal].service}/Export")
        self._metadata = tuple((key.lower(), value) for key, value in to.headers.items())

    async def send(self, body: bytes) -> Answer:
        to = self._to
        try:
            response: bytes = await self._export(body, timeout=to.timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            message = f"{to.endpoint} answered {code.name}: {short(error.details() or '')}"
            after = _retry_info(error)
            if code in _FOR_GOOD or (code is StatusCode.RESOURCE_EXHAUSTED and after is None):
                return Answer(StatusCode.INTERNAL if code is not StatusCode.INVALID_ARGUMENT else code, message)
            return later(message, after or 1.0)
        return Answer(StatusCode.OK, response=response)

    async def close(self) -> None:
        await self._channel.close()


def _retry_info(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status, info = Status(), RetryInfo()
            try:
                status.ParseFromString(value)
                if any(detail.Unpack(info) for detail in status.details):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
            except DecodeError:
                pass
    return None


def _seconds(retry_after: str | None) -> float:
    """Of a header that may as well hold a date."""
    return min(float(retry_after), 3600.0) if retry_after and retry_after.isdigit() else 1.0


def _said(body: bytes) -> str:
    """What a body tells of a failure: a status, or text."""
    status = Status()
    try:
        status.ParseFromString(body)
        text = status.message
    except DecodeError:
        text = body.decode("utf-8", "replace")
    return f": {short(text)}" if text else ""
