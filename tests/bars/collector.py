"""The collector: nothing lost and nothing charged twice while everything is killed, fuzzed bodies, memory, speed."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from costspan_processor.collector.otlp import SIGNALS
from tests.bars.report import Bar, at_most, none_of, on_path, python, skipped, without_program
from tests.bench import otelcol
from tests.bench.collector import DOLLARS, HERE, Batch, Client, backend, decoding, ids_of, rate, resident
from tests.collector.servers import Running, collector
from tests.grafana.prometheus import free_ports
from tests.processor.budgets.server import PROGRAM, RedisServer, available

if TYPE_CHECKING:
    from collections.abc import Iterator

# ------------------------------------------------------------------ everything is killed


class Life:
    """A process that is killed and started again."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._held = ExitStack()
        self.now: Any = None

    def start(self) -> None:
        """Until it listens."""
        self.now = self._held.enter_context(self._begin())

    def kill(self) -> None:
        """At once."""
        process = getattr(self.now, "process", self.now)
        process.kill()
        self.end()

    def end(self) -> None:
        """As it should."""
        self._held.close()


def kills(full: bool) -> Iterator[Bar]:
    """`kill -9` of collector, backend and Redis, at random, while clients send calls until they are accepted."""
    names = ("collector.kill.lost", "collector.kill.charged")
    if not available():
        yield from without_program(names, PROGRAM)
        return
    batches, size = (400, 500) if full else (80, 100)
    with (
        tempfile.TemporaryDirectory() as name,
        RedisServer(Path(name), "--appendonly", "yes", "--appendfsync", "always") as redis,
    ):
        folder = Path(name)
        ports, (onward,) = free_ports(3), free_ports(1)
        recorded = folder / "recorded"
        budgets = {
            "COSTSPAN_BUDGETS": json.dumps([{"name": "all", "limit": "100000", "period": "year"}]),
            "COSTSPAN_BUDGET_STORE": redis.url,
        }
        said = {**budgets, **HERE}
        lives = (
            Life(lambda: collector(folder, f"http://127.0.0.1:{onward}", environment=said, ports=ports)),
            Life(lambda: backend(onward, recorded)),
        )
        sent: set[bytes] = set()
        waiting = iter(range(batches))
        lock = threading.Lock()

        def send() -> None:
            client, batch = Client(ports[1]), Batch(1.0, size, same=True)
            while True:
                with lock:
                    if next(waiting, None) is None:
                        return
                body = batch.body()
                client.deliver(body)
                with lock:
                    sent.update(ids_of(body))

        for life in lives:
            life.start()
        senders = [threading.Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        rnd, killed = random.Random(8), [0, 0, 0]
        while any(sender.is_alive() for sender in senders):
            time.sleep(rnd.uniform(0.1, 1.5))
            victim = rnd.randrange(3)
            killed[victim] += 1
            if victim == 2:
                redis.stop(signal.SIGKILL)
            else:
                lives[victim].kill()
            time.sleep(rnd.uniform(0, 1))
            redis.start() if victim == 2 else lives[victim].start()
        # What was written beside a store that was away is told to it by whoever comes next.
        time.sleep(3)
        lives[0].end()
        lives[0].start()
        time.sleep(3)
        for life in lives:
            life.end()
        found = recorded.read_bytes()
        arrived = {found[at : at + 24] for at in range(0, len(found), 24)}
        lost = [f"{len(sent - arrived)} spans"] if sent - arrived else []
        note = "collector {}, backend {}, Redis {} times killed".format(*killed)
        again = len(found) // 24 - len(arrived)
        yield none_of(names[0], lost, f"{len(sent):,} acknowledged spans", f"{note}; {again:,} arrived more than once")
        told = json.loads(python("-m", "costspan", "budgets", "list", "--json", environment={**on_path(), **budgets}))
        spent = float(told[0]["spent"])
        wrong = (
            []
            if abs(spent - DOLLARS * len(sent)) < 1e-9
            else [f"${spent} is charged, ${DOLLARS * len(sent)} was spent"]
        )
        yield none_of(names[1], wrong, f"${DOLLARS * len(sent):,.2f}", "charged once each")


# ------------------------------------------------------------------ fuzz


def fuzz(full: bool) -> Iterator[Bar]:
    """Bodies that are no requests, or hardly: each gets the right status, soon, and the process stays as it is."""
    count = 100_000 if full else 3_000
    (onward,) = free_ports(1)
    rnd = random.Random(9)
    wrong: list[str] = []
    slowest, seen = 0.0, dict.fromkeys((200, 400, 413), 0)
    with (
        tempfile.TemporaryDirectory() as name,
        backend(onward, Path("/dev/null")),
        collector(Path(name), f"http://127.0.0.1:{onward}", environment=HERE) as running,
        grpc.insecure_channel(f"127.0.0.1:{running.grpc}", [("grpc.max_send_message_length", -1)]) as channel,
    ):
        export: Any = channel.unary_unary(f"/{SIGNALS['traces'].service}/Export")
        client = Client(int(running.url.rpartition(":")[2]))
        whole = [Batch(share, size).body() for share, size in ((1.0, 1), (1.0, 3), (0.5, 4), (0.0, 2))]
        client.send(whole[0])
        before = _peak(running)
        for number in range(count):
            what, body, headers, expected = _fuzzed(rnd, number, rnd.choice(whole))
            began = time.monotonic()
            if not headers and number % 20 == 0 and len(body) < 1 << 24:
                try:
                    export(body, timeout=30)
                    got = 200
                except grpc.RpcError as error:
                    codes = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.RESOURCE_EXHAUSTED: 413}
                    got = codes.get(error.code(), 0)
            else:
                try:
                    got = client.send(body, **headers)
                except (OSError, http.client.HTTPException):
                    # It hung up on a body that was too large already; the answer may be lost then.
                    got = 413 if len(body) > 1 << 24 else 0
            slowest = max(slowest, time.monotonic() - began)
            seen[got] = seen.get(got, 0) + 1
            if got not in expected:
                wrong.append(f"{what}: {got} instead of {expected}")
        alive = running.process.poll() is None and client.send(whole[0]) == 200
        grown = (_peak(running) - before) / 2**20
        errors = [line for line in running.log().splitlines() if "Traceback" in line or "costspan failed" in line]
    note = ", ".join(f"{times:,} x {status}" for status, times in sorted(seen.items()))
    yield none_of(
        "collector.fuzz.status", wrong + errors + ([] if alive else ["it has ended"]), f"{count:,} bodies", note
    )
    yield at_most("collector.fuzz.slowest", slowest, 10, ".2f", "s for an answer")
    yield at_most("collector.fuzz.memory", grown, 256, ".0f", "MiB more at its peak; one request may have 16")


def _fuzzed(rnd: random.Random, number: int, whole: bytes) -> tuple[str, bytes, dict[str, str], frozenset[int]]:
    """What is done to a body, the body, headers, and the statuses that are right for it."""
    kind = rnd.randrange(12)
    if number % 1000 == 999:
        huge = rnd.randrange(3)
        if huge == 0:
            return "huge", bytes((1 << 24) + 1), {}, frozenset({413})
        bomb = gzip.compress(bytes(1 << 27), 1)
        if huge == 1:
            return "bomb", bomb, {"Content_Encoding": "gzip"}, frozenset({413})
        return "bomb of JSON", bomb, {"Content_Encoding": "gzip", "Content_Type": "application/json"}, frozenset({413})
    in_json = {"Content_Type": "application/json"}
    if kind == 0:
        return "truncated", *_judged(whole[: rnd.randrange(len(whole))])
    if kind in {1, 2, 3}:
        mutable = bytearray(whole)
        for _ in range(rnd.choice((1, 1, 2, 8, 64))):
            mutable[rnd.randrange(len(mutable))] = rnd.randrange(256)
        return "changed bytes", *_judged(bytes(mutable))
    if kind == 4:
        at, more = rnd.randrange(len(whole)), rnd.randbytes(rnd.randrange(1, 40))
        return "more bytes", *_judged(whole[:at] + more + whole[at:])
    if kind == 5:
        return "noise", *_judged(rnd.randbytes(rnd.randrange(1, 300)))
    if kind == 6:
        return "nested values", *_judged(_nested(rnd.choice((3, 30, 90, 110, 1000, 5000))))
    if kind == 7:
        # A wrong wire type for one of the first fields of each message.
        at = rnd.randrange(min(40, len(whole)))
        return "wire type", *_judged(whole[:at] + bytes([whole[at] ^ rnd.randrange(1, 8)]) + whole[at + 1 :])
    if kind == 8:
        text = rnd.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80")) * rnd.randrange(1, 30)
        return "invalid UTF-8", *_judged(_with_text(text))
    if kind == 9:
        packed = gzip.compress(whole)
        return "half of gzip", packed[: rnd.randrange(1, len(packed))], {"Content_Encoding": "gzip"}, frozenset({400})
    if kind == 10:
        deep = rnd.choice((b'{"resourceSpans":', b"[", b'{"a":[')) * rnd.choice((10, 1000, 100_000))
        return "deep JSON", deep, in_json, frozenset({400})
    document = bytearray(json.dumps(_DOCUMENT).encode())
    for _ in range(rnd.choice((1, 2, 5))):
        document[rnd.randrange(len(document))] = rnd.randrange(32, 256)
    return "changed JSON", bytes(document), in_json, frozenset({200, 400})


_DOCUMENT: Final = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5b8efff798038103d269b633813fc60c",
                            "spanId": "eee19b7ec3c1b174",
                            "startTimeUnixNano": "1795003200000000000",
                            "attributes": [
                                {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4.1"}},
                                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1000"}},
                            ],
                        }
                    ]
                }
            ]
        }
    ]
}


def _judged(body: bytes) -> tuple[bytes, dict[str, str], frozenset[int]]:
    """A body of protobuf with the status that OpenTelemetry's own classes give it."""
    try:
        ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        return body, {}, frozenset({400})
    return body, {}, frozenset({200})


def _nested(depth: int) -> bytes:
    """A call, one attribute of which is a list in a list, so many times."""
    value = AnyValue(string_value="x").SerializeToString()
    for _ in range(depth):
        held = b"\x0a" + _varint(len(value)) + value
        value = b"\x2a" + _varint(len(held)) + held
    return _with_value(value)


def _with_text(text: bytes) -> bytes:
    return _with_value(b"\x0a" + _varint(len(text)) + text)


def _with_value(value: bytes) -> bytes:
    """A call with an attribute of this value."""
    pair = b"\x0a\x05llm.x\x12" + _varint(len(value)) + value
    span = b"\x0a\x10" + os.urandom(16) + b"\x12\x08" + os.urandom(8) + b"\x4a" + _varint(len(pair)) + pair
    scope = b"\x12" + _varint(len(span)) + span
    resource = b"\x12" + _varint(len(scope)) + scope
    return b"\x0a" + _varint(len(resource)) + resource


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def _peak(running: Running) -> int:
    """The most memory that it has had, bytes."""
    lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# ------------------------------------------------------------------ memory and speed


def memory(full: bool) -> Iterator[Bar]:
    """Resident memory over ten million spans, one in ten of which is a call, once what is remembered is full."""
    if not full:
        yield from skipped(("collector.memory",), "measured with --full: what is remembered takes a while to be full")
        return
    warm, spans = 3_000_000, 13_000_000
    (onward,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory() as name,
        backend(onward),
        collector(Path(name), f"http://127.0.0.1:{onward}", environment=HERE) as running,
    ):
        client, batch = Client(int(running.url.rpartition(":")[2])), Batch(0.1)
        held: list[int] = []
        for until in (warm, spans):
            while len(held) < until // batch.size:
                assert client.send(batch.body()) == 200
                held.append(resident(running))
        grown = (max(held[-100:]) - max(held[warm // batch.size - 100 : warm // batch.size])) / 2**20
    note = f"MiB from span {warm:,} to {spans:,}, of {held[-1] / 2**20:.0f}"
    yield at_most("collector.memory", grown, 8, ".1f", note)


def speed(full: bool) -> Iterator[Bar]:
    """Spans a second of processor time: received, priced and passed on, batches of 512 with 15 attributes each."""
    limits = {"collector.speed.calls": (1.0, 40_000), "collector.speed.mixed": (0.1, 130_000)}
    if not full:
        yield from skipped(tuple(limits), "measured with --full")
        return
    for name, (calls, limit) in limits.items():
        # A busy machine only ever takes away.
        found = max((rate(calls) for _ in range(3)), key=lambda found: found.spans)
        stock = {priced: otelcol.measured(calls, priced=priced)[0] for priced in (True, False)}
        note = (
            f"the OpenTelemetry Collector {stock[True]:,.0f} with the generated file, {stock[False]:,.0f} passing on; "
            f"{found.memory:.0f} MB; decoding alone takes {decoding(calls):.2f} µs a span here"
        )
        yield Bar(name, f"{found.spans:,.0f}", f">= {limit:,}", found.spans >= limit, note)


MEASURES: Final[dict[str, Callable[[bool], Iterator[Bar]]]] = {
    "collector.kill": kills,
    "collector.fuzz": fuzz,
    "collector.memory": memory,
    "collector.speed": speed,
}
