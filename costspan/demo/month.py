"""A month of the fleet in a Prometheus: its samples by remote write, and what the recording rules make of them.

Prometheus is given the samples day by day, as if it had scraped them then, and asked after each day what the rules
would have recorded. So a rule sees what others have recorded before, as in real life.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse
from array import array
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan.grafana.export import rule_files, yaml_parts
from costspan.grafana.promql import seconds

from .fleet import DAY, HOUR
from .recorder import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .fleet import Fleet
    from .recorder import Labels, Series

LOOKBACK: Final = "21m"
"""How long a sample is shown for: longer than the scrapes of old days are apart."""
_BLOCK: Final = "54h"
"""Prometheus takes samples that are older than its newest by less than half of this: more than a day."""
_REQUEST: Final = 4_000_000
"""Bytes of samples in a request, about."""
_AT_MOST: Final = 10_000
"""Points of one series that Prometheus gives at once."""


class MonthError(Exception):
    """The history cannot be made; the message says why and what to do."""


# ------------------------------------------------------------------ when there are scrapes


class Part(NamedTuple):
    """Moments from `start` to before `end`, `step` seconds apart, all multiples of it."""

    start: int
    end: int
    step: int
    states: int = 60
    """How far apart the rules are evaluated that tell a state, such as a ratio, and no gain of a minute."""

    def moments(self) -> range:
        """Unix seconds."""
        return range(self.start, self.end, self.step)

    def days(self) -> Iterator[Part]:
        """The part in pieces that end as days do (UTC)."""
        start = self.start
        while start < self.end:
            end = min(self.end, start // DAY * DAY + DAY)
            yield self._replace(start=start, end=end)
            start = -(-end // self.step) * self.step


def grid(start: int, end: int, *, fine: int = DAY, middle: int = 7 * DAY) -> list[Part]:
    """When a history is scraped: rarely in its old days, each minute of the last `fine` seconds, up to `end`."""
    start = -(-start // 1200) * 1200
    old, late = max(start, (end - middle) // 1200 * 1200), max(start, (end - fine) // 600 * 600)
    last = max(late, (end - HOUR) // 600 * 600)
    parts = [
        Part(start, old, 1200, 1200),
        Part(old, late, 600, 600),
        Part(late, last, 60, 600),
        Part(last, end + 1, 60),
    ]
    return [part for part in parts if part.start < part.end]


# ------------------------------------------------------------------ a server


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Prometheus:
    """A Prometheus on loopback over a data directory, from `with` to its end. It scrapes nothing until `configure`."""

    def __init__(self, data: Path, *, port: int = 0, program: str = "prometheus", lookback: str = LOOKBACK) -> None:
        self._data = data
        self._program = program
        self._lookback = lookback
        self.port: Final = port or free_port()
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def __enter__(self) -> Self:
        self._data.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="costspan-prometheus-"))
        self._config = self._folder / "prometheus.yml"
        self._config.write_text("global: {}\n", encoding="utf-8")
        self._log = self._folder / "log"
        with self._log.open("w", encoding="utf-8") as log:
            self._server = subprocess.Popen(  # noqa: S603
                [
                    self._program,
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._data}",
                    "--storage.tsdb.retention.time=10y",
                    f"--storage.tsdb.min-block-duration={_BLOCK}",
                    f"--storage.tsdb.max-block-duration={_BLOCK}",
                    "--web.enable-remote-write-receiver",
                    f"--query.lookback-delta={self._lookback}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
                # Ctrl-C is for us, who then end it.
                start_new_session=True,
            )
        try:
            self._until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._server.terminate()
        try:
            self._server.wait(60)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            with suppress(OSError, http.client.HTTPException, MonthError):
                self._ask("GET", "/-/ready")
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                raise MonthError("Prometheus did not start: " + "; ".join(said))
            time.sleep(0.05)

    def configure(self, config: str) -> None:
        """Give it another configuration (YAML)."""
        self._config.write_text(config, encoding="utf-8")
        self._server.send_signal(signal.SIGHUP)

    def _ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        try:
            self._http.request(method, path, body, headers)
            answer = self._http.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise
        if answer.status >= 300:
            raise MonthError(f"Prometheus said {answer.status} to {path[:200]}: {said.decode(errors='replace')[:500]}")
        return said

    def get(self, path: str, **parameters: str | float) -> Any:
        """The data that a path of the API gives."""
        return json.loads(self._ask("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expr: str, at: float) -> list[dict[str, Any]]:
        """The vector that an expression gives at an instant."""
        found: list[dict[str, Any]] = self.get("query", query=expr, time=at)["result"]
        return found

    def range(self, expr: str, part: Part) -> Iterator[dict[str, Any]]:
        """The series that an expression gives at the moments of a part, in pieces."""
        for start in range(part.start, part.end, _AT_MOST * part.step):
            end = min(part.end - 1, start + (_AT_MOST - 1) * part.step)
            yield from self.get("query_range", query=expr, start=start, end=end, step=part.step)["result"]

    def push(self, series: Iterable[Series]) -> int:
        """Add samples, which must not be more than a day older than its newest; how many there were."""
        count = 0
        body: list[bytes] = []
        size = 0
        for one in series:
            if not one.times:
                continue
            encoded = _encoded(one)
            count += len(one.times)
            body.append(encoded)
            size += len(encoded)
            if size > _REQUEST:
                self._write(b"".join(body))
                body, size = [], 0
        if body:
            self._write(b"".join(body))
        return count

    def _write(self, message: bytes) -> None:
        # Snappy, of one literal: nothing is gained by compressing what does not leave the machine.
        packed = _varint(len(message)) + b"\xfc" + (len(message) - 1).to_bytes(4, "little") + message
        self._ask(
            "POST",
            "/api/v1/write",
            packed,
            **{
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        )


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _text(field: bytes, text: str) -> bytes:
    raw = text.encode()
    return field + _varint(len(raw)) + raw


_value: Final = struct.Struct("<d").pack


@lru_cache(maxsize=16)
def _moments(times: bytes) -> list[bytes]:
    """The second fields of samples at times (unix seconds, an array's bytes): milliseconds, as six bytes each."""
    return [b"\x10" + _varint(at * 1000) for at in array("q", times)]


@lru_cache(maxsize=50_000)
def _labels(name: str, labels: Labels) -> bytes:
    parts = []
    for label, value in sorted((("__name__", name), *labels)):
        message = _text(b"\x0a", label) + _text(b"\x12", value)
        parts.append(b"\x0a" + _varint(len(message)) + message)
    return b"".join(parts)


def _encoded(series: Series) -> bytes:
    """A `TimeSeries` of Prometheus' remote write, as a field of its `WriteRequest`."""
    moments = _moments(series.times.tobytes())
    # Moments of this century take six bytes, so all samples have one length.
    head = b"\x12" + _varint(9 + len(moments[0])) + b"\x09"
    samples = [head + _value(value) + moment for value, moment in zip(series.values, moments, strict=True)]
    message = _labels(series.name, series.labels) + b"".join(samples)
    return b"\x0a" + _varint(len(message)) + message


# ------------------------------------------------------------------ rules


class Rule(NamedTuple):
    """A recording rule."""

    name: str
    expr: str
    interval: float
    """Seconds."""


def rules(texts: Mapping[str, str]) -> list[Rule]:
    """The recording rules of files as they ship, text by path, in their order."""
    found = []
    for text in rule_files(texts).values():
        name, interval = None, 60.0
        for is_expr, part in yaml_parts(text):
            if is_expr:
                if name is not None:
                    found.append(Rule(name, part, interval))
                continue
            for key, value in re.findall(r"^[ -]*(- name|interval|record|alert): *(\S+)", part, re.MULTILINE):
                if key == "interval":
                    interval = seconds(value)
                else:
                    name = value if key == "record" else None
    return found


def record(prometheus: Prometheus, part: Part, wanted: Sequence[Rule]) -> int:
    """Add what the rules would have recorded at the moments of a part, in their order; how many samples."""
    constant = {rule.name for rule in wanted if _is_constant(rule)}
    count = 0
    for rule in wanted:
        moments = _moments_of(rule, part, constant)
        if moments is not None:
            count += prometheus.push(_recorded(prometheus, moments, rule))
    return count


_GAINS: Final = frozenset({"costspan:cost_USD:seen", "costspan:cost_USD:delta1m"})
"""What each scrape has brought: recorded for all of them."""


def _is_constant(rule: Rule) -> bool:
    """Whether it records a number, such as the one that says that the rules were running."""
    return re.fullmatch(r"\s*vector\([\d.]+\)\s*", rule.expr) is not None


def _moments_of(rule: Rule, part: Part, constant: set[str]) -> Part | None:
    """When a rule is evaluated in a part; None if what it would give is of no use."""
    if rule.name in constant:
        # Each minute, however rare the scrapes: others ask whether there was one a moment ago.
        return Part(part.start // 60 * 60, part.end, 60)
    if rule.name in _GAINS:
        return part
    ranges = [
        seconds(length)
        for name, length in re.findall(r"([\w:]+)(?:\{[^}]*\})?\[(\w+)", rule.expr)
        if name not in constant
    ]
    if part.step > 60 and any(length < part.step for length in ranges):
        # So short a range holds nothing there, or more than its own time.
        return None
    step = max(part.states, int(rule.interval) // 60 * 60)
    moments = Part(-(-part.start // step) * step, part.end, step)
    return moments if moments.start < moments.end else None


def _recorded(prometheus: Prometheus, moments: Part, rule: Rule) -> Iterator[Series]:
    history = History()
    family = history.family(rule.name, "unknown")
    for found in prometheus.range(rule.expr, moments):
        labels = {key: value for key, value in found["metric"].items() if key != "__name__"}
        group = history.group(family, labels)
        for at, value in found["values"]:
            if value != "NaN":
                group.add(int(at), float(value))
    return history.take()


# ------------------------------------------------------------------ both


def make(
    fleet: Fleet,
    parts: Sequence[Part],
    prometheus: Prometheus,
    wanted: Sequence[Rule],
    tell: Callable[[float], None] = lambda _: None,
) -> int:
    """Let the fleet live through the parts, with a scrape at each moment; how many samples that gave.

    `tell` is given the share of the time that has been lived.
    """
    count = 0
    start, end = parts[0].start, parts[-1].end
    for part in parts:
        for piece in part.days():
            for at in piece.moments():
                fleet.advance(at)
                fleet.scrape()
            count += prometheus.push(fleet.history.take())
            count += record(prometheus, piece, wanted)
            tell((piece.end - start) / (end - start))
    return count
