"""A real collector that runs a configuration of `costspan otelcol-config`, and what comes out of it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.grafana.prometheus import free_ports, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

AT = 1_795_824_000_000_000_000
"""2026-11-28."""


class Told(NamedTuple):
    """A span as it is sent."""

    attributes: Mapping[str, Any]
    scope: str = "tests"
    at: int = AT
    resource: Mapping[str, Any] = {}


class Stock:
    """A running collector."""

    def __init__(self, folder: Path, otlp: int, prometheus: int) -> None:
        self._folder = folder
        self._otlp = otlp
        self._prometheus = prometheus
        self._sent = 0

    def priced(self, spans: Sequence[Told]) -> list[dict[str, Any]]:
        """The attributes that the spans have when they come out, in the order in which they went in."""
        request = ExportTraceServiceRequest()
        for number, told in enumerate(spans):
            span = Span(
                trace_id=(1 << 64 | self._sent + number).to_bytes(16, "big"),
                span_id=(self._sent + number + 1).to_bytes(8, "big"),
                name="chat",
                start_time_unix_nano=told.at,
                end_time_unix_nano=told.at + 10**9,
                attributes=pairs(told.attributes),
            )
            held = ResourceSpans()
            held.resource.attributes.extend(pairs({"service.name": "shop", **told.resource}))
            held.scope_spans.append(ScopeSpans(spans=[span]))
            held.scope_spans[0].scope.name = told.scope
            request.resource_spans.append(held)
        sent = urllib.request.Request(
            f"http://127.0.0.1:{self._otlp}/v1/traces",
            request.SerializeToString(),
            {"content-type": "application/x-protobuf"},
        )
        urllib.request.urlopen(sent, timeout=30).close()
        first, self._sent = self._sent, self._sent + len(spans)
        deadline = time.monotonic() + 30
        while len(out := self._out()) < self._sent:
            assert time.monotonic() < deadline, f"{len(out)} of {self._sent} spans came out"
            time.sleep(0.05)
        return [out[number + 1] for number in range(first, self._sent)]

    def _out(self) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self._folder / "out.jsonl").read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # half of a line
                    for held in json.loads(line)["resourceSpans"]:
                        assert "costspan.otelcol" not in _plain(held["resource"].get("attributes", ()))
                        for scope in held["scopeSpans"]:
                            assert not scope["scope"].get("attributes")
                            for span in scope["spans"]:
                                found[int(span["spanId"], 16)] = _plain(span.get("attributes", ()))
        return found

    def errors(self) -> list[str]:
        """What the collector has complained of."""
        return [
            line
            for line in (self._folder / "otelcol.log").read_text().splitlines()
            if "\terror\t" in line or "\twarn\t" in line
        ]

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._prometheus}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes as they are sent."""
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[_value(part) for part in value]))
    return AnyValue(string_value=str(value))


def _plain(attributes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for pair in attributes:
        for kind, value in pair["value"].items():
            plain[pair["key"]] = int(value) if kind == "intValue" else value
    return plain


OVERRIDE = """\
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
exporters:
  file: {{path: {out}, flush_interval: 50ms}}
  prometheus: {{endpoint: "127.0.0.1:{prometheus}"}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{exporters: [file, signal_to_metrics]}}
"""


@contextlib.contextmanager
def stock(config: str, folder: Path) -> Iterator[Stock]:
    """The collector with a configuration, whose spans go into a file instead of on to a backend."""
    folder.mkdir(parents=True, exist_ok=True)
    grpc, http, prometheus = free_ports(3)
    ours, changed = folder / "otelcol.yaml", folder / "changed.yaml"
    # What goes wrong in a statement is told, and the tests look for it.
    ours.write_text(config.replace("error_mode: silent", "error_mode: ignore"))
    changed.write_text(OVERRIDE.format(grpc=grpc, http=http, prometheus=prometheus, out=folder / "out.jsonl"))
    scraped = f"http://127.0.0.1:{prometheus}/metrics"
    with running("otelcol", f"--config={ours}", f"--config={changed}", ready=scraped, log=folder / "otelcol.log"):
        # Receivers start after what they lead to.
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", http)):
            assert time.monotonic() < deadline, "otelcol listens to nobody"
            time.sleep(0.05)
        yield Stock(folder, http, prometheus)
