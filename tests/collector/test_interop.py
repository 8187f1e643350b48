"""Between the real parts: a Python SDK, the OpenTelemetry Collector, and a sink, with `costspan collector` among them.

Every span arrives, and is what it was but for the attributes that were added.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from grpc import Compression
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGRPC
from opentelemetry.exporter.otlp.proto.http import Compression as HTTPCompression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHTTP
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from costspan_processor.collector.otlp import ids_as_base64
from tests.collector.servers import Sink, collector
from tests.grafana.prometheus import free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    from opentelemetry.sdk.trace.export import SpanExporter

REQUESTS = 300
"""Each with two calls to models: 900 spans, more than one batch."""


class Stock:
    """An OpenTelemetry Collector that receives OTLP and passes it on."""

    def __init__(self, grpc: int, http: int, out: Path) -> None:
        self.grpc = grpc
        self.http = http
        self._out = out

    def spans(self, count: int) -> list[Span]:
        """What its file exporter has written, once there is so much."""
        deadline = time.monotonic() + 20
        while True:
            found: list[Span] = []
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # half of a line
                for line in self._out.read_text().split("\n"):
                    if not line:
                        continue
                    document = json.loads(line)
                    ids_as_base64(document)
                    found += spans_of(ParseDict(document, ExportTraceServiceRequest()))
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} spans came out"
            time.sleep(0.05)


@contextlib.contextmanager
def stock(folder: Path, exporters: dict[str, Any]) -> Iterator[Stock]:
    """The real collector with these exporters, and no batches: it sends when it is sent something."""
    folder.mkdir(parents=True, exist_ok=True)
    grpc, http, health = free_ports(3)
    protocols = {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}
    config = {
        "receivers": {"otlp": {"protocols": protocols}},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "exporters": exporters,
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": list(exporters)}},
        },
    }
    (folder / "stock.yaml").write_text(yaml.safe_dump(config))
    answers = f"http://127.0.0.1:{health}"
    with running("otelcol", f"--config={folder / 'stock.yaml'}", ready=answers, log=folder / "stock.log"):
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", http)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Stock(grpc, http, folder / "out.jsonl")


def spans_of(request: Any) -> list[Span]:
    """All spans of a request."""
    return [
        span
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def emit(exporter: SpanExporter) -> None:
    """A shop's requests, each with two calls to a model, as an application's SDK sends them."""
    provider = TracerProvider(resource=Resource({"service.name": "shop", "numbers": [1, 2]}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=4096, max_export_batch_size=512))
    tracer, model = provider.get_tracer("shop", "1.0"), provider.get_tracer("models", "2", attributes={"a": "b"})
    for number in range(REQUESTS):
        with tracer.start_as_current_span("request", attributes={"url.path": "/", "number": number}) as request:
            request.add_event("began", {"text": "ä\u2028"})
            for _ in range(2):
                call = model.start_span(
                    "chat gpt-4.1",
                    kind=trace.SpanKind.CLIENT,
                    links=[trace.Link(request.get_span_context(), {"why": "because"})],
                    attributes={
                        "gen_ai.operation.name": "chat",
                        "gen_ai.provider.name": "openai",
                        "gen_ai.request.model": "gpt-4.1",
                        "gen_ai.response.finish_reasons": ["stop"],
                        "gen_ai.usage.input_tokens": 1000 + number,
                        "gen_ai.usage.output_tokens": 100,
                        "gen_ai.request.temperature": 0.5,
                    },
                )
                call.set_status(trace.StatusCode.ERROR, "late")
                call.end()
    provider.shutdown()


def compared(before: list[Span], after: list[Span]) -> tuple[int, float]:
    """How many spans were given a price, and what they cost; all must be there, and else the same."""
    arrived = {(span.trace_id, span.span_id): span for span in after}
    assert len(arrived) == len(after) == len(before)
    calls, total = 0, 0.0
    for span in before:
        got = arrived[span.trace_id, span.span_id]
        added = got.attributes[len(span.attributes) :]
        del got.attributes[len(span.attributes) :]
        assert got == span
        if added:
            told = {pair.key: pair.value for pair in added}
            assert all(key.startswith("costspan.") for key in told)
            calls, total = calls + 1, total + told["costspan.cost.total"].double_value
    return calls, total


def truth() -> list[float]:
    """Calls, and dollars: $2 a million in, $8 a million out."""
    numbers = range(REQUESTS)
    return [2 * len(numbers), 2 * sum((1000 + number) * 2 + 100 * 8 for number in numbers) / 1e6]


class Recorded:
    """A copy of what an exporter sends, as protobuf."""

    def __init__(self, exporter: Any) -> None:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        self.spans: list[Span] = []
        self._exporter = exporter
        self._encode = encode_spans

    def export(self, spans: Any) -> Any:
        """Sends and keeps."""
        self.spans += spans_of(self._encode(spans))
        return self._exporter.export(spans)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)


@pytest.mark.parametrize(
    ("way", "onward"),
    [("grpc", "http/protobuf"), ("grpc-gzip", "grpc"), ("http", "grpc"), ("http-gzip", "http/protobuf")],
)
def test_from_an_sdk_through_costspan_to_the_collector(
    tmp_path: Path, way: str, onward: Literal["grpc", "http/protobuf"]
) -> None:
    with stock(tmp_path, {"file": {"path": str(tmp_path / "out.jsonl"), "flush_interval": "50ms"}}) as behind:
        port = behind.grpc if onward == "grpc" else behind.http
        environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": onward, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
        with collector(tmp_path / "ours", f"http://127.0.0.1:{port}", environment=environment) as ours:
            gzip = way.endswith("gzip")
            exporter: Any = (
                OverGRPC(f"127.0.0.1:{ours.grpc}", insecure=True, compression=Compression.Gzip if gzip else None)
                if way.startswith("grpc")
                else OverHTTP(f"{ours.url}/v1/traces", compression=HTTPCompression.Gzip if gzip else None)
            )
            recorded = Recorded(exporter)
            emit(recorded)  # type: ignore[arg-type]
            calls, total = compared(recorded.spans, behind.spans(len(recorded.spans)))
            assert [calls, total] == pytest.approx(truth(), rel=1e-12)
            counted = [line for line in ours.metrics().splitlines() if line.startswith("costspan_cost_USD_total")]
            assert sum(float(line.rpartition(" ")[2]) for line in counted) == pytest.approx(total, rel=1e-12)


PLAIN, GZIP = {"compression": "none"}, {"compression": "gzip"}


@pytest.mark.parametrize(
    ("kind", "options", "onward"),
    [
        ("otlp_grpc", PLAIN, "grpc"),
        ("otlp_grpc", GZIP, "http/protobuf"),
        ("otlp_http", PLAIN, "http/protobuf"),
        ("otlp_http", GZIP, "grpc"),
        ("otlp_http", {**PLAIN, "encoding": "json"}, "grpc"),
        ("otlp_http", {**GZIP, "encoding": "json"}, "http/protobuf"),
    ],
)
def test_from_the_collector_through_costspan_to_a_sink(
    tmp_path: Path, kind: str, options: dict[str, str], onward: Literal["grpc", "http/protobuf"]
) -> None:
    with Sink() as sink:
        port = sink.grpc if onward == "grpc" else sink.http
        environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": onward}
        with collector(tmp_path / "ours", f"http://127.0.0.1:{port}", environment=environment) as ours:
            endpoint = f"127.0.0.1:{ours.grpc}" if kind == "otlp_grpc" else ours.url
            exporter = {**options, "endpoint": endpoint, "tls": {"insecure": True}}
            with stock(tmp_path, {kind: exporter}) as before:
                recorded = Recorded(OverHTTP(f"http://127.0.0.1:{before.http}/v1/traces"))
                emit(recorded)  # type: ignore[arg-type]
                calls, total = compared(recorded.spans, sink.wait(len(recorded.spans)))
            assert [calls, total] == pytest.approx(truth(), rel=1e-12)


def test_the_collector_sends_again_what_was_not_accepted(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with collector(tmp_path / "ours", f"http://127.0.0.1:{port}") as ours:
        retry = {"initial_interval": "200ms", "max_interval": "300ms"}
        exporter = {"endpoint": ours.url, "retry_on_failure": retry}
        with stock(tmp_path, {"otlp_http": exporter}) as before:
            recorded = Recorded(OverHTTP(f"http://127.0.0.1:{before.http}/v1/traces"))
            emit(recorded)  # type: ignore[arg-type]
            time.sleep(0.5)
            with Sink(port=port) as sink:
                calls, total = compared(recorded.spans, sink.wait(len(recorded.spans)))
            assert [calls, total] == pytest.approx(truth(), rel=1e-12)
            counted = [line for line in ours.metrics().splitlines() if line.startswith("costspan_cost_USD_total")]
            # Sent several times and counted once.
            assert sum(float(line.rpartition(" ")[2]) for line in counted) == pytest.approx(total, rel=1e-12)
