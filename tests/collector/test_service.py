"""`costspan collector` as its clients meet it: what it takes, what it answers, and what goes on."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trustme
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from costspan_processor.collector.otlp import SIGNALS, Answer, Signal, later
from tests.collector.servers import Running, Sink, collector, post
from tests.grafana.dashboards import board
from tests.grafana.prometheus import free_ports
from tests.otelcol.stock import pairs

if TYPE_CHECKING:
    from collections.abc import Iterator


def call(number: int = 1, text: str = "", **attributes: str | int) -> ExportTraceServiceRequest:
    """A request with one call to a model."""
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    scope.scope.name = "shop"
    span = scope.spans.add(name=f"chat {text}", trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"))
    span.start_time_unix_nano, span.end_time_unix_nano = 1_795_003_200 * 10**9, 1_795_003_201 * 10**9
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
        **attributes,
    }
    span.attributes.extend(pairs(told))
    return made


DOLLARS = 0.0028
"""1000 x $2 + 100 x $8, a million each."""


def dollars(span: Any) -> float | None:
    """What a span says that it cost."""
    return next((pair.value.double_value for pair in span.attributes if pair.key == "costspan.cost.total"), None)


@pytest.fixture(scope="module")
def _sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def sink(_sink: Sink) -> Sink:
    """What stands behind, empty and content."""
    _sink.requests.clear()
    _sink.delay = 0.0
    _sink.answer = lambda _arrived: Answer(StatusCode.OK)
    return _sink


@pytest.fixture(scope="module")
def over_http(_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A collector that passes on over HTTP."""
    with collector(tmp_path_factory.mktemp("http"), f"http://127.0.0.1:{_sink.http}", "--max-body=1") as running:
        yield running


@pytest.fixture(scope="module")
def over_grpc(_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A collector that passes on over gRPC."""
    environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
    folder = tmp_path_factory.mktemp("grpc")
    with collector(folder, f"http://127.0.0.1:{_sink.grpc}", "--max-body=1", environment=environment) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def running(request: pytest.FixtureRequest, sink: Sink) -> Running:
    """Both."""
    found: Running = request.getfixturevalue(f"over_{request.param}")
    return found


def export(running: Running, body: bytes, signal: Signal = "traces", **metadata: str) -> bytes:
    """Sends over gRPC; raises what it answers."""
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc}") as channel:
        method: Any = channel.unary_unary(f"/{SIGNALS[signal].service}/Export")
        answer: bytes = method(body, timeout=20, metadata=tuple(metadata.items()))
    return answer


# ------------------------------------------------------------------ what it takes


def test_a_call_gets_its_price_whichever_way_it_comes_and_goes(running: Running, sink: Sink) -> None:
    body = call(1).SerializeToString()
    in_json = json.dumps(
        {
            "resourceSpans": [
                {
                    "scopeSpans": [
                        {
                            "scope": {"name": "shop"},
                            "spans": [
                                {
                                    "traceId": "0000000000000000000000000000002a",
                                    "spanId": "000000000000002A",
                                    "name": "chat",
                                    "startTimeUnixNano": "1795003200000000000",
                                    "endTimeUnixNano": 1795003201000000000,
                                    "attributes": [
                                        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                                        {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
                                        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4.1"}},
                                        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1000"}},
                                        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 100}},
                                    ],
                                    "somethingNew": {"a": [1]},
                                }
                            ],
                        }
                    ]
                }
            ]
        }
    ).encode()
    url = f"{running.url}/v1/traces"
    assert post(url, body)[0] == 200
    assert post(url, gzip.compress(body), Content_Encoding="gzip")[0] == 200
    assert post(url, gzip.compress(body[:9]) + gzip.compress(body[9:]), Content_Encoding="gzip")[0] == 200
    assert post(url, zlib.compress(body), Content_Encoding="deflate")[0] == 200
    status, told, headers = post(url, in_json, "application/json")
    assert (status, json.loads(told), headers["Content-Type"].partition(";")[0]) == (200, {}, "application/json")
    export(running, body)
    spans = sink.spans()
    assert [dollars(span) for span in spans] == [DOLLARS] * 6
    assert spans[4].span_id == (42).to_bytes(8, "big")


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_metrics_and_logs_pass_untouched(running: Running, sink: Sink, signal: Signal) -> None:
    # Field 99 is nothing that anybody knows.
    body = b"\x0a\x02\x12\x00\x9a\x06\x04new!"
    assert post(f"{running.url}/v1/{signal}", body)[0] == 200
    export(running, body, signal)
    assert [(one.signal, one.body) for one in sink.requests] == [(signal, body)] * 2


def test_a_span_that_was_sent_again_is_priced_again_and_counted_once(running: Running, sink: Sink) -> None:
    outcome = 'costspan_collector_spans_total{costspan_outcome="repeated"'
    team = f"of-{running.grpc}"
    for _ in range(3):
        assert post(f"{running.url}/v1/traces", call(77, **{"costspan.team": team}).SerializeToString())[0] == 200
    assert [dollars(span) for span in sink.spans()] == [DOLLARS] * 3
    assert running.metric(outcome) >= 2
    counted = [line for line in running.metrics().splitlines() if "cost_USD_total" in line and team in line]
    assert sum(float(line.rpartition(" ")[2]) for line in counted) == pytest.approx(DOLLARS)


def test_the_dashboard_asks_for_what_a_collector_shows(over_http: Running, sink: Sink) -> None:
    assert post(f"{over_http.url}/v1/traces", call(78).SerializeToString())[0] == 200
    text = over_http.metrics()
    panels = {panel["title"]: panel for panel in board("health").panels}
    for title in ("Spans, per minute", "Requests not accepted, per minute", "Requests in hand"):
        (target,) = panels[title]["targets"]
        names = set(re.findall(r"costspan_collector_\w+", target["expr"]))
        assert names
        labels = set(re.findall(r"costspan_(?:outcome|signal)", target["expr"]))
        for name in names:
            assert all(f"{label}=" in line for label in labels for line in text.splitlines() if line.startswith(name))
            assert f"\n{name}{{" in text


# ------------------------------------------------------------------ what it answers

ANSWERS = {
    # Of downstream over HTTP, over gRPC: what a client of HTTP hears, what one of gRPC does.
    "busy": (later("busy", 7), 503, StatusCode.UNAVAILABLE),
    "bad": (Answer(StatusCode.INVALID_ARGUMENT, "no"), 400, StatusCode.INVALID_ARGUMENT),
    "broken": (Answer(StatusCode.INTERNAL, "oh"), 500, StatusCode.INTERNAL),
    # The collector's credentials are its operator's business: nobody else should lose data for them.
    "not let in": (Answer(StatusCode.UNAUTHENTICATED, "who?"), 503, StatusCode.UNAVAILABLE),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_the_one_from_downstream(running: Running, sink: Sink, name: str) -> None:
    said, status, code = ANSWERS[name]
    sink.answer = lambda _arrived: said
    body = call(2).SerializeToString()
    got, told, headers = post(f"{running.url}/v1/traces", body)
    assert got == status
    assert said.message in Status.FromString(told).message
    assert ("Retry-After" in headers) == (status == 503)
    with pytest.raises(grpc.RpcError) as caught:
        export(running, body)
    error: Any = caught.value
    assert error.code() is code
    assert said.message in error.details()
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    if status == 503:
        info = RetryInfo()
        assert Status.FromString(details).details[0].Unpack(info)
        assert info.retry_delay.seconds == int(headers["Retry-After"]) == (7 if name == "busy" else 1)
    assert not sink.requests


def test_what_downstream_left_out_is_told(running: Running, sink: Sink) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 1
    partial.partial_success.error_message = "too old"
    sink.answer = lambda _arrived: Answer(StatusCode.OK, response=partial.SerializeToString())
    body = call(3).SerializeToString()
    assert post(f"{running.url}/v1/traces", body)[1] == export(running, body) == partial.SerializeToString()
    in_json = post(f"{running.url}/v1/traces", b"{}", "application/json")[1]
    assert json.loads(in_json)["partialSuccess"] == {"rejectedSpans": "1", "errorMessage": "too old"}


def test_nobody_downstream_means_later(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with collector(tmp_path, f"http://127.0.0.1:{port}") as running:
        status, told, headers = post(f"{running.url}/v1/traces", call(4).SerializeToString())
        assert (status, headers["Retry-After"]) == (503, "1")
        assert f"127.0.0.1:{port}/v1/traces cannot be reached" in Status.FromString(told).message
        with pytest.raises(grpc.RpcError) as caught:
            export(running, call(4).SerializeToString())
        assert caught.value.code() is StatusCode.UNAVAILABLE
        assert running.log().count("traces are not accepted") == 1


def test_a_downstream_that_does_not_answer_means_later(over_grpc: Running, sink: Sink) -> None:
    sink.delay = 5
    started = time.monotonic()
    status, told, _ = post(f"{over_grpc.url}/v1/traces", call(5).SerializeToString())
    assert status == 503
    assert "DEADLINE_EXCEEDED" in Status.FromString(told).message
    assert time.monotonic() - started < 4


BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no protobuf": (b"\xff\xff\xff", {}, 400, "no request of OTLP"),
    "a length beyond the end": (b"\x0a\x7f\x01", {}, 400, "no request of OTLP"),
    "no gzip": (b"hello", {"Content_Encoding": "gzip"}, 400, "cannot be decompressed"),
    "half of a gzip": (gzip.compress(bytes(100))[:-9], {"Content_Encoding": "gzip"}, 400, "in the middle"),
    "unknown compression": (b"x", {"Content_Encoding": "snappy"}, 400, "Content-Encoding snappy"),
    "too large": (bytes(1 + (1 << 20)), {}, 413, "more than 1048576 bytes"),
    "a bomb": (gzip.compress(bytes(1 << 28)), {"Content_Encoding": "gzip"}, 413, "when it is decompressed"),
    "no JSON": (b"{", {"kind": "application/json"}, 400, "in JSON"),
    "other JSON": (b"[1, 2]", {"kind": "application/json"}, 400, "in JSON"),
    "deep JSON": (b'{"a":' * 100_000, {"kind": "application/json"}, 400, "nested too deeply"),
    "something else": (b"x", {"kind": "text/plain"}, 415, "send application/x-protobuf or application/json"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_body_that_is_not_what_it_should_be_is_refused_with_the_reason(
    over_http: Running, sink: Sink, name: str
) -> None:
    body, headers, status, reason = BAD[name]
    got, told, back = post(f"{over_http.url}/v1/traces", body, **headers)
    assert got == status
    message = json.loads(told)["message"] if "json" in back["Content-Type"] else Status.FromString(told).message
    assert reason in message
    assert not sink.requests


def test_a_body_that_is_none_is_refused_over_grpc_too(over_http: Running, sink: Sink) -> None:
    for body, code in ((b"\xff\xff", StatusCode.INVALID_ARGUMENT), (bytes(1 << 21), StatusCode.RESOURCE_EXHAUSTED)):
        with pytest.raises(grpc.RpcError) as caught:
            export(over_http, body)
        assert caught.value.code() is code
    assert not sink.requests


def test_what_is_beyond_the_limits_of_a_span_passes_unpriced(over_http: Running, sink: Sink) -> None:
    many = call(6, **{f"attribute.{number}": "x" for number in range(2000)})
    assert post(f"{over_http.url}/v1/traces", many.SerializeToString())[0] == 200
    assert [span.attributes for span in sink.spans()] == [many.resource_spans[0].scope_spans[0].spans[0].attributes]


# ------------------------------------------------------------------ how much at a time


def test_beyond_what_it_takes_at_a_time_clients_are_told_to_wait(tmp_path: Path, sink: Sink) -> None:
    sink.delay = 1.0
    body = call(7, "x" * 700_000).SerializeToString()
    with (
        collector(tmp_path, f"http://127.0.0.1:{sink.http}", "--max-body=1", "--max-in-flight=2") as running,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: post(f"{running.url}/v1/traces", body), range(6)))
        taken = sorted(status for status, _, _ in answers)
        # Three of 0.7 MB fit into two MiB, all at the same time.
        assert taken[:2] == [200, 200]
        assert taken[-2:] == [503, 503]
        assert all("Retry-After" in headers for status, _, headers in answers if status == 503)
        assert running.metric("costspan_collector_in_flight_bytes") == 0
        waiting = running.metric('costspan_collector_requests_total{costspan_outcome="later"')
        assert waiting == taken.count(503)
        sink.delay = 0
        assert post(f"{running.url}/v1/traces", body)[0] == 200


# ------------------------------------------------------------------ who may send


def test_only_those_with_credentials_may_send(tmp_path: Path, sink: Sink) -> None:
    known = tmp_path / "known"
    known.write_text("# the shop\nbearer s3cret\nbasic shop:pass:word\n")
    body = call(8).SerializeToString()
    downstream = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20onward,x-scope-orgid=team"}
    with collector(
        tmp_path, f"http://127.0.0.1:{sink.http}", f"--credentials={known}", environment=downstream
    ) as running:
        url = f"{running.url}/v1/traces"
        for wrong in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
            status, told, headers = post(url, body, **wrong)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "credentials" in Status.FromString(told).message
        for right in ("Bearer s3cret", "Basic c2hvcDpwYXNzOndvcmQ="):
            assert post(url, body, Authorization=right)[0] == 200
            export(running, body, authorization=right)
        with pytest.raises(grpc.RpcError) as caught:
            export(running, body)
        assert caught.value.code() is StatusCode.UNAUTHENTICATED
    assert len(sink.requests) == 4
    # What clients say stays here; downstream hears the collector's own.
    assert all(one.headers["Authorization"] == "Bearer onward" for one in sink.requests)
    assert all(one.headers["x-scope-orgid"] == "team" for one in sink.requests)


# ------------------------------------------------------------------ the end


def test_at_sigterm_what_has_begun_comes_to_its_end(tmp_path: Path, sink: Sink) -> None:
    sink.delay = 1.5
    with collector(tmp_path, f"http://127.0.0.1:{sink.http}") as running:
        answers: list[Any] = []
        senders = [
            threading.Thread(
                target=lambda: answers.append(post(f"{running.url}/v1/traces", call(9).SerializeToString())[0])
            ),
            threading.Thread(target=lambda: answers.append(export(running, call(10).SerializeToString()))),
        ]
        for sender in senders:
            sender.start()
        time.sleep(0.5)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 5
        for sender in senders:
            sender.join()
    assert sorted(map(str, answers)) == ["200", "b''"]
    assert len(sink.spans()) == 2


def test_several_workers_share_the_ports_and_one_that_dies_is_replaced(tmp_path: Path, sink: Sink) -> None:
    first, second = consecutive_ports()
    ports = [*free_ports(2), first]
    with collector(tmp_path, f"http://127.0.0.1:{sink.http}", "--workers=2", ports=ports) as running:
        admins = [f"http://127.0.0.1:{port}" for port in (first, second)]
        for admin in admins:
            ready(admin)
        for number in range(20):
            assert post(f"{running.url}/v1/traces", call(100 + number).SerializeToString())[0] == 200
        # A connection each: some went to the one, some to the other.
        seen = [running.metric("costspan_collector_requests_total", admin) for admin in admins]
        assert sum(seen) == 20
        workers = [int(pid) for pid in children(running.process.pid) if b"spawn_main" in command(pid)]
        os.kill(workers[1], signal.SIGKILL)
        deadline = time.monotonic() + 20
        while "starting another" not in running.log():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ready(admins[0])
        ready(admins[1])
        assert running.stop() == 0
        assert running.log().count("stopped") == 2


def test_workers_that_cannot_begin_end_all(tmp_path: Path) -> None:
    first, second = consecutive_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", second))
        taken.listen()
        ended = begun(tmp_path, "--workers=2", f"--admin=127.0.0.1:{first}")
    assert ended.returncode == 2
    assert f"('127.0.0.1', {second})" in ended.stderr
    assert "Traceback" not in ended.stderr


def consecutive_ports() -> tuple[int, int]:
    """Two that nobody listens on, one after the other."""
    while True:
        (port,) = free_ports(1)
        with socket.socket() as probe, contextlib.suppress(OSError, OverflowError):
            probe.bind(("127.0.0.1", port + 1))
            return port, port + 1


def ready(admin: str) -> None:
    """Waits until a worker serves."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{admin}/readyz", timeout=1) as answer:
            assert answer.read() == b"ready\n"
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[str]:
    """Processes that a process has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def command(pid: str) -> bytes:
    """What a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


# ------------------------------------------------------------------ TLS


def test_both_sides_speak_tls_with_certificates_for_both(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    mine, theirs = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    files = {"ca": authority.cert_pem, "cert": mine.cert_chain_pems[0], "key": mine.private_key_pem}
    for name, blob in {**files, "their-cert": theirs.cert_chain_pems[0], "their-key": theirs.private_key_pem}.items():
        blob.write_to_path(tmp_path / name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    mine.configure_cert(context)
    pair = [(files["key"].bytes(), files["cert"].bytes())]
    tls = {"http": context, "grpc": grpc.ssl_server_credentials(pair, files["ca"].bytes(), require_client_auth=True)}
    options = [
        f"--tls-certificate={tmp_path / 'cert'}",
        f"--tls-key={tmp_path / 'key'}",
        f"--tls-client-ca={tmp_path / 'ca'}",
    ]
    environment = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca"),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(tmp_path / "their-cert"),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "their-key"),
    }
    with Sink(tls) as sink:
        for protocol, port in (("http/protobuf", sink.http), ("grpc", sink.grpc)):
            said = {**environment, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
            with collector(
                tmp_path / protocol, f"https://127.0.0.1:{port}", *options, environment=said, scheme="https"
            ) as running:
                known = ssl.create_default_context(cafile=tmp_path / "ca")
                theirs.configure_cert(known)
                request = urllib.request.Request(
                    f"{running.url}/v1/traces", call(11).SerializeToString(), {"Content-Type": "application/x-protobuf"}
                )
                with urllib.request.urlopen(request, timeout=10, context=known) as answer:
                    assert answer.status == 200
                credentials = grpc.ssl_channel_credentials(
                    files["ca"].bytes(), theirs.private_key_pem.bytes(), theirs.cert_chain_pems[0].bytes()
                )
                with grpc.secure_channel(f"127.0.0.1:{running.grpc}", credentials) as channel:
                    method: Any = channel.unary_unary(f"/{SIGNALS['traces'].service}/Export")
                    assert method(call(12).SerializeToString(), timeout=10) == b""
                nobody = ssl.create_default_context(cafile=tmp_path / "ca")
                stranger.issue_cert("client.example").configure_cert(nobody)
                with pytest.raises(OSError, match=r"alert|reset|closed|EOF"):
                    urllib.request.urlopen(request, timeout=10, context=nobody)
        assert len(sink.spans()) == 4


# ------------------------------------------------------------------ how it is started


def begun(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A collector that is expected not to begin."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COSTSPAN_"))}
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **environment}
    ports = (f"--{name}=127.0.0.1:{port}" for name, port in zip(("grpc", "http", "admin"), free_ports(3), strict=True))
    command = [sys.executable, "-m", "costspan", "collector", *ports, *options]
    return subprocess.run(
        command, env={**clean, **given}, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


WRONG: dict[str, tuple[list[str], dict[str, str], str]] = {
    "nowhere to go": ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "set OTEL_EXPORTER_OTLP_ENDPOINT"),
    "no URL": ([], {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://"),
    "no ledger": (
        [],
        {"COSTSPAN_LEDGER": "/nowhere/ledger.db"},
        "COSTSPAN_LEDGER: the ledger /nowhere/ledger.db cannot",
    ),
    "no protocol": ([], {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "choose grpc or http/protobuf"),
    "no compression": ([], {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "choose gzip or none"),
    "no time": ([], {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "no number of seconds"),
    "no certificate": ([], {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "there is no such file"),
    "itself": (
        ["--http=127.0.0.1:4399"],
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4399"},
        "this collector itself",
    ),
    "no address": (["--grpc=4317"], {}, "--grpc 4317: this is no HOST:PORT"),
    "nothing to listen to": (["--grpc=off", "--http=off"], {}, "nothing to listen to"),
    "half of TLS": (["--tls-key=key"], {}, "go together"),
    "no key": (["--tls-key=key", "--tls-certificate=cert"], {}, "No such file"),
    "no room": (["--max-body=65"], {}, "has no room for one request"),
    "no credentials": (["--credentials=missing"], {}, "--credentials missing cannot be read"),
    "budgets of each worker": (
        ["--workers=2"],
        {"COSTSPAN_BUDGETS": '[{"name": "all", "limit": "5"}]'},
        "set COSTSPAN_BUDGET_STORE",
    ),
    "no budget": ([], {"COSTSPAN_BUDGETS": '[{"name": "all"}]'}, "limit"),
    "no store": ([], {"COSTSPAN_BUDGET_STORE": "postgres://host"}, "no store of budgets is called 'postgres:'"),
    "no prices": ([], {"COSTSPAN_PRICES": "{"}, "COSTSPAN_PRICES is no JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_said_at_once_in_one_line(tmp_path: Path, name: str) -> None:
    options, environment, reason = WRONG[name]
    ended = begun(tmp_path, *options, **environment)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert ended.stderr.startswith("costspan collector: ")
    assert ended.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for option in ("--http", "--grpc", "--admin"):
            ended = begun(tmp_path, f"{option}=127.0.0.1:{port}")
            assert ended.returncode == 2
            assert str(port) in ended.stderr
            assert "Traceback" not in ended.stderr
