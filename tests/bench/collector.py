"""Spans a second of processor time that `costspan collector` receives, prices and passes on.

    python -m tests.bench.collector

Batches of 512 spans with 15 attributes over OTLP/HTTP, in and out. The time is the collector's own.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.bars.load import ROOT
from tests.bars.report import on_path
from tests.bench.otelcol import seconds_of
from tests.collector.servers import Running, collector
from tests.grafana.prometheus import free_ports
from tests.otelcol.stock import pairs
from tests.processor.budgets.server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH: Final = 512
HERE: Final = {"PYTHONPATH": on_path()["PYTHONPATH"]}
DOLLARS: Final = 0.0028
"""Of each call: 1000 x $2 + 100 x $8, a million each."""


class Batch:
    """A request of spans with 15 attributes each; it has new ids each time that it is made.

    `calls` is the share that tells of a call. With `same` counts each costs the same.
    """

    def __init__(self, calls: float, size: int = BATCH, *, same: bool = False) -> None:
        rnd = random.Random(7)
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "shop"
        of_calls, others = resource.scope_spans.add(), resource.scope_spans.add()
        of_calls.scope.name, others.scope.name = "opentelemetry.instrumentation.openai_v2", "fastapi"
        start = time.time_ns()
        for number in range(size):
            is_call = int((number + 1) * calls) > int(number * calls)
            name, scope = ("chat gpt-4.1", of_calls) if is_call else ("GET /", others)
            span = scope.spans.add(name=name, kind=3, start_time_unix_nano=start)
            span.end_time_unix_nano = start + rnd.randrange(10**9)
            # Marks that stand nowhere else, to be found in the bytes.
            span.trace_id, span.span_id, span.parent_span_id = (_mark(number, *kind) for kind in _IDS)
            told = (
                _call(rnd, number, same)
                if is_call
                else {f"http.name.{key}": f"value {rnd.random()}" for key in range(15)}
            )
            span.attributes.extend(pairs(told))
        self.size = size
        self.calls = len(of_calls.spans)
        self._body = bytearray(request.SerializeToString())
        self._places = [
            (place, length)
            for kind, length in (*_IDS, _RESPONSE)
            for number in range(size)
            if (place := self._body.find(_mark(number, kind, length))) >= 0
        ]

    def body(self) -> bytes:
        """The request, with ids that no other has."""
        made = self._body
        ids, at = os.urandom(16 * len(self._places)), 0
        for place, length in self._places:
            # Those of responses are text.
            drawn = ids[at : at + length]
            made[place : place + length] = drawn[::2].hex().encode() if length == _RESPONSE[1] else drawn
            at += length
        return bytes(made)


_IDS: Final = ((b"T", 16), (b"S", 8), (b"P", 8))
_RESPONSE: Final = (b"R", 24)


def _mark(number: int, kind: bytes, length: int) -> bytes:
    return kind + b"~%05d" % number + b"~" * (length - 7)


def _call(rnd: random.Random, number: int, same: bool) -> dict[str, str | int]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.response.model": "gpt-4.1-2025-04-14",
        "gen_ai.response.id": f"chatcmpl-{_mark(number, *_RESPONSE).decode()}",
        "gen_ai.usage.input_tokens": 1000 if same else rnd.randrange(100, 20_000),
        "gen_ai.usage.output_tokens": 100 if same else rnd.randrange(10, 2000),
        "gen_ai.usage.cache_read.input_tokens": 0,
        "server.address": "api.openai.com",
        "server.port": 443,
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.response.finish_reasons": "stop",
        "gen_ai.conversation.id": rnd.randbytes(16).hex(),
        "costspan.team": rnd.choice("abcdef"),
        "gen_ai.output.type": "text",
    }


def ids_of(body: bytes) -> set[bytes]:
    request = ExportTraceServiceRequest.FromString(body)
    return {
        span.trace_id + span.span_id
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    }


class Client:
    """One connection, which sends a request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def send(self, body: bytes, **headers: str) -> int:
        """The status of the answer. Raises OSError and HTTPException."""
        named = {"Content-Type": "application/x-protobuf", **{key.replace("_", "-"): headers[key] for key in headers}}
        try:
            self._connection.request("POST", "/v1/traces", body, named)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return answer.status

    def deliver(self, body: bytes) -> None:
        """Sends until it is accepted, as every client does."""
        while True:
            with suppress(OSError, http.client.HTTPException):
                if self.send(body) == 200:
                    return
            time.sleep(0.05)


@contextmanager
def backend(port: int, file: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """What stands behind the collector, in a process of its own."""
    command = [sys.executable, "-m", "tests.collector.recorder", str(port), *([str(file)] if file else [])]
    with subprocess.Popen(command, cwd=ROOT, env=on_path()) as process:
        try:
            deadline = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, "the backend has ended"
                assert time.monotonic() < deadline, "the backend does not listen"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


class Rate(NamedTuple):
    """Spans a second of a collector's processor time, its memory in megabytes."""

    spans: float
    memory: float


def rate(
    calls: float, seconds: float = 5, *, in_json: bool = False, environment: Mapping[str, str] | None = None
) -> Rate:
    """What a collector of its own makes of batches so many of whose spans are calls."""
    (onward,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory() as name,
        backend(onward),
        collector(Path(name), f"http://127.0.0.1:{onward}", environment={**HERE, **(environment or {})}) as running,
    ):
        client, batch = Client(int(running.url.rpartition(":")[2])), Batch(calls)
        headers = {"Content_Type": "application/json"} if in_json else {}

        def send(seconds: float) -> int:
            sent, until = 0, time.monotonic() + seconds
            while time.monotonic() < until:
                body = batch.body()
                assert client.send(_as_json(body) if in_json else body, **headers) == 200
                sent += batch.size
            return sent

        send(2)
        before = seconds_of(running.process.pid)
        sent = send(seconds)
        return Rate(sent / (seconds_of(running.process.pid) - before), resident(running) / 1e6)


def _as_json(body: bytes) -> bytes:
    """As OTLP has it, with ids in hexadecimal."""
    document = MessageToDict(ExportTraceServiceRequest.FromString(body))
    for of_resource in document["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope.get("spans", ()):
                for key in ("traceId", "spanId", "parentSpanId"):
                    span[key] = base64.b64decode(span[key]).hex()
    return json.dumps(document).encode()


def decoding(calls: float) -> float:
    """Microseconds a span that protobuf alone needs to decode such a batch: what the machine can do at the moment."""
    body, times = Batch(calls).body(), []
    for _ in range(20):
        before = time.process_time()
        ExportTraceServiceRequest.FromString(body)
        times.append(time.process_time() - before)
    return min(times) / BATCH * 1e6


def resident(running: Running) -> int:
    """Bytes of memory that it has."""
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder), "--appendonly", "yes") as redis:
        budgets = {
            "COSTSPAN_BUDGETS": json.dumps([{"name": "all", "limit": "100000", "period": "year"}]),
            "COSTSPAN_BUDGET_STORE": redis.url,
        }
        for what, calls, in_json, environment in (
            ("every span a call", 1.0, False, None),
            ("one in ten", 0.1, False, None),
            ("none", 0.0, False, None),
            ("one in ten, in JSON", 0.1, True, None),
            ("every span a call, a budget in Redis", 1.0, False, budgets),
            ("one in ten, a budget in Redis", 0.1, False, budgets),
        ):
            found = rate(calls, in_json=in_json, environment=environment)
            beside = f"{found.memory:.0f} MB; decoding alone {decoding(calls):.2f} µs a span"
            print(f"{what:37} {found.spans:9,.0f} spans a second of CPU, {beside}", flush=True)


if __name__ == "__main__":
    main()
