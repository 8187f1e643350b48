"""A running `costspan collector`, and what stands behind it: a sink of OTLP that keeps what it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import grpc
from aiohttp import web
from google.protobuf.message import DecodeError

from costspan_processor.collector.otlp import SIGNALS, Answer, Signal
from tests.grafana.prometheus import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Arrived(NamedTuple):
    """A request as the sink got it."""

    signal: Signal
    body: bytes
    headers: Mapping[str, str]


class Sink:
    """An OTLP endpoint over HTTP and gRPC. It reads every request as OpenTelemetry's own classes do.

    `answer(arrived)` says what becomes of a request, `delay` how many seconds later.
    """

    def __init__(self, tls: Mapping[str, Any] | None = None, port: int | None = None) -> None:
        self.grpc, self.http = free_ports(2)
        self.http = port or self.http
        self.requests: list[Arrived] = []
        """Those that were accepted."""
        self.answer: Callable[[Arrived], Answer] = lambda _arrived: Answer(grpc.StatusCode.OK)
        self.delay = 0.0
        self._tls = tls or {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        for name, kind in SIGNALS.items():
            app.router.add_post(f"/v1/{name}", self._posted(name))
            method: Any = grpc.unary_unary_rpc_method_handler(self._called(name))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(kind.service, {"Export": method}),))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.http, ssl_context=self._tls.get("http")).start()
        address = f"127.0.0.1:{self.grpc}"
        secure = self._tls.get("grpc")
        server.add_secure_port(address, secure) if secure else server.add_insecure_port(address)
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)
        await runner.cleanup()

    def _posted(self, name: Signal) -> Callable[[web.Request], Any]:
        async def posted(request: web.Request) -> web.Response:
            answer = await self._answered(Arrived(name, await request.read(), dict(request.headers)))
            headers = {"Retry-After": str(answer.delay)} if answer.after is not None else {}
            body = answer.response if answer.outcome == "accepted" else answer.status().SerializeToString()
            return web.Response(body=body, status=answer.http, headers=headers, content_type="application/x-protobuf")

        return posted

    def _called(self, name: Signal) -> Callable[[bytes, Any], Any]:
        async def called(body: bytes, context: Any) -> bytes:
            headers = {str(key): str(value) for key, value in context.invocation_metadata()}
            answer = await self._answered(Arrived(name, body, headers))
            if answer.outcome != "accepted":
                if answer.after is not None:
                    context.set_trailing_metadata((("grpc-status-details-bin", answer.status().SerializeToString()),))
                await context.abort(answer.code, answer.message)
            return answer.response

        return called

    async def _answered(self, arrived: Arrived) -> Answer:
        await asyncio.sleep(self.delay)
        try:
            SIGNALS[arrived.signal].request.FromString(arrived.body)
        except DecodeError as error:
            return Answer(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = self.answer(arrived)
        if answer.outcome == "accepted":
            self.requests.append(arrived)
        return answer

    def spans(self) -> list[Span]:
        """Those of all requests that were accepted, in their order."""
        requests = [SIGNALS["traces"].request.FromString(one.body) for one in self.requests if one.signal == "traces"]
        return [
            span
            for request in requests
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def wait(self, spans: int, seconds: float = 20) -> list[Span]:
        """The spans, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.spans()) < spans:
            assert time.monotonic() < deadline, f"{len(found)} of {spans} spans came out"
            time.sleep(0.02)
        return found


class Running:
    """A collector that runs, by its addresses."""

    def __init__(self, process: subprocess.Popen[bytes], ports: list[int], log: Path, scheme: str) -> None:
        self.process = process
        self.grpc, http, admin = ports
        self.url = f"{scheme}://127.0.0.1:{http}"
        self.admin = f"http://127.0.0.1:{admin}"
        self._log = log

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def metrics(self, admin: str | None = None) -> str:
        """What Prometheus would scrape, of a worker."""
        with urllib.request.urlopen(f"{admin or self.admin}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def metric(self, series: str, admin: str | None = None) -> float:
        """The value of one series, by how its line begins."""
        (found,) = [line for line in self.metrics(admin).splitlines() if line.startswith(series)]
        return float(found.rpartition(" ")[2])

    def stop(self) -> int:
        """As an operator does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def collector(
    folder: Path,
    onward: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    ports: list[int] | None = None,
    scheme: str = "http",
) -> Iterator[Running]:
    """`costspan collector` in a process of its own until the block ends, with everything going on to `onward`."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = ports or free_ports(3)
    addresses = (f"--{name}=127.0.0.1:{port}" for name, port in zip(("grpc", "http", "admin"), ports, strict=True))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COSTSPAN_"))}
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": onward, "XDG_DATA_HOME": str(folder / "data"), **(environment or {})}
    log = folder / "collector.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "costspan", "collector", *addresses, *options],
            env={**clean, **said},
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    running = Running(process, ports, log, scheme)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{running.admin}/readyz", timeout=1).close()
                break
            started = process.poll() is None and time.monotonic() < deadline
            assert started, f"it did not start:\n{running.log()}"
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def post(
    url: str, body: bytes, kind: str = "application/x-protobuf", **headers: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of the answer to a request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"Content-Type": kind, **named})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)
