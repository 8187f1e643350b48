"""Spans a second of processor time that the real collector prices with a generated configuration.

    python -m tests.bench.otelcol [models ...]

Batches of 512 spans with 15 attributes over OTLP/HTTP, received, priced, counted and forwarded: all of them plain model
calls, all of them calls in the words of a library, one plain call in ten, and none. Beside each what the same collector
only passes on, without statements and metrics. The time is the collector's own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from costspan.otelcol.config import config
from costspan.otelcol.table import table
from costspan_pricing import PriceBook
from tests.grafana.prometheus import binary, free_ports
from tests.otelcol.stock import AT

if TYPE_CHECKING:
    from collections.abc import Sequence

BATCH: Final = 512
SECONDS: Final = 4.0
MODELS: Final = (
    "openai/gpt-4.1", "openai/gpt-4.1-mini", "openai/gpt-5", "openai/o3", "openai/text-embedding-3-small",
    "anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-6", "google/gemini-2.5-flash", "google/gemini-2.5-pro",
    "deepseek/deepseek-chat",
)  # fmt: skip

CALL: Final = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4.1",
    "gen_ai.response.model": "gpt-4.1-2025-04-14", "gen_ai.response.id": "chatcmpl-1", "server.port": 443,
    "server.address": "api.openai.com", "gen_ai.request.max_tokens": 800, "gen_ai.request.temperature": "0.2",
    "session.id": "s-1",
    "gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 300, "user.id": "u-1",
    "gen_ai.usage.cache_read.input_tokens": 400, "costspan.team": "search",
}  # fmt: skip
SPOKEN: Final = {
    "openinference.span.kind": "LLM", "llm.system": "openai", "llm.provider": "openai", "llm.model_name": "gpt-4.1",
    "llm.token_count.prompt": 1200, "llm.token_count.completion": 300, "llm.token_count.total": 1500,
    "llm.token_count.prompt_details.cache_read": 400, "input.mime_type": "text/plain", "output.mime_type": "text/plain",
    "llm.invocation_parameters": "{}", "session.id": "s-1", "user.id": "u-1", "tag.tags": "a", "costspan.team": "search"
}  # fmt: skip
OTHER: Final = {f"http.attribute.{number}": f"value {number}" for number in range(15)}


class Sink(BaseHTTPRequestHandler):
    """Takes everything and says so."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def batch(share: float, *, plain: bool = True) -> bytes:
    """One request of which so many spans are model calls: plain ones, or in the words of OpenInference."""
    request = ExportTraceServiceRequest()
    held = request.resource_spans.add()
    held.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    scope = held.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.genai.openai" if plain else "openinference.instrumentation.openai"
    call = CALL if plain else SPOKEN
    for number in range(BATCH):
        span = scope.spans.add(name="span", start_time_unix_nano=AT, end_time_unix_nano=AT + 10**9)
        span.trace_id, span.span_id = os.urandom(16), os.urandom(8)
        for key, value in (call if number < share * BATCH else OTHER).items():
            told = AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=str(value))
            span.attributes.append(KeyValue(key=key, value=told))
    body: bytes = request.SerializeToString()
    return body


def rate(file: Path, port: int, body: bytes) -> tuple[float, float]:
    """Spans a second of the collector's processor time, and its memory in megabytes."""
    from subprocess import DEVNULL, Popen

    server = Popen([binary("otelcol"), f"--config={file}"], stdout=DEVNULL, stderr=DEVNULL)
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        deadline = time.monotonic() + 20
        while True:
            try:
                connection.connect()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

        def send(until: float) -> int:
            sent = 0
            while time.monotonic() < until:
                connection.request("POST", "/v1/traces", body, {"content-type": "application/x-protobuf"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200
                sent += BATCH
            return sent

        send(time.monotonic() + 1)
        before = seconds_of(server.pid)
        sent = send(time.monotonic() + SECONDS)
        spent = seconds_of(server.pid) - before
        pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
        return sent / spent, pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    finally:
        server.terminate()
        server.wait(30)


def seconds_of(pid: int) -> float:
    """Of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(share: float, *, priced: bool, plain: bool = True, models: Sequence[str] = MODELS) -> tuple[float, float]:
    """`rate` of a collector with the generated file; or, if not `priced`, with its statements and metrics left out."""
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    grpc, http, scraped = free_ports(3)
    made = table(PriceBook.bundled(), models)
    whole = yaml.safe_load(config(made, f"http://127.0.0.1:{sink.server_port}", http=True))
    protocols = whole["receivers"]["otlp"]["protocols"]
    protocols["grpc"]["endpoint"], protocols["http"]["endpoint"] = f"127.0.0.1:{grpc}", f"127.0.0.1:{http}"
    whole["exporters"]["prometheus"]["endpoint"] = f"127.0.0.1:{scraped}"
    whole["exporters"]["otlp_http"]["compression"] = "none"
    whole["service"]["telemetry"] = {"metrics": {"level": "none"}}
    if not priced:
        whole["service"]["pipelines"]["traces"]["processors"].remove("transform/costspan")
        whole["service"]["pipelines"]["traces"]["exporters"].remove("signal_to_metrics")
        del whole["service"]["pipelines"]["metrics"], whole["connectors"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "otelcol.yaml"
        file.write_text(yaml.safe_dump(whole))
        try:
            return rate(file, http, batch(share, plain=plain))
        finally:
            sink.shutdown()
            sink.server_close()


def main() -> None:
    """Measure and print."""
    models = sys.argv[1:] or MODELS
    for what, share, plain in (
        ("plain calls", 1.0, True), ("in a library's words", 1.0, False), ("one in ten", 0.1, True), ("none", 0.0, True)
    ):  # fmt: skip
        # A busy machine only ever takes away.
        priced, passed = (
            max(measured(share, priced=priced, plain=plain, models=models) for _ in range(2))
            for priced in (True, False)
        )
        print(
            f"{what:20}: {priced[0]:7,.0f} spans a second of CPU, {priced[1]:.0f} MB;"
            f" passed on {passed[0]:7,.0f}, {passed[1]:.0f} MB: {priced[0] / passed[0]:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
