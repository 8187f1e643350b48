"""Real servers on loopback; a Prometheus, and what a test asks of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS: Final = Path.home() / ".cache" / "costspan" / "servers" / "bin"
"""Where `.ci/servers` puts what Debian's release does not have."""


def binary(name: str) -> str:
    """The path of a server or tool; without it the test skips, but fails in CI."""
    found = shutil.which(name) or shutil.which(name, path=str(SERVERS))
    if found is None:
        missing = f"{name} is not installed (.ci/servers has prometheus3, promtool3, alertmanager, amtool and otelcol)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def running(name: str, *arguments: str, ready: str, log: Path) -> Iterator[None]:
    """A server until the block ends; `ready` is the address that answers once it is there."""
    with log.open("w") as out:
        server = subprocess.Popen([binary(name), *arguments], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(ready, timeout=1).close()
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(30)


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str | float) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        return answer["data"]

    def query(self, expr: str, at: float) -> list[dict[str, Any]]:
        """The vector that `expr` gives at an instant."""
        found: list[dict[str, Any]] = self.get("query", query=expr, time=at)["result"]
        return found

    def value(self, expr: str, at: float) -> float:
        """The one number that `expr` gives at an instant."""
        (sample,) = self.query(expr, at)
        return float(sample["value"][1])

    def until(self, expr: str, seconds: float = 30) -> float:
        """The number that `expr` gives now, as soon as it gives one."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expr, time.time())):
            assert time.monotonic() < deadline, f"{expr} stayed empty for {seconds} s"
            time.sleep(0.1)
        return float(found[0]["value"][1])

    def range(self, expr: str, start: float, end: float, step: float = 60) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return found


@contextlib.contextmanager
def serve(data: Path, config: Path | None = None) -> Iterator[Prometheus]:
    """A Prometheus over the data directory, on a free port; it scrapes nothing unless `config` says so."""
    data.mkdir(exist_ok=True)
    if config is None:
        config = data.parent / "prometheus.yml"
        config.write_text("global: {}\n")
    (port,) = free_ports(1)
    with running(
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        ready=f"http://127.0.0.1:{port}/-/ready",
        log=data.parent / "prometheus.log",
    ):
        yield Prometheus(port)
