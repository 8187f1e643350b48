"""Budgets on the wire: a call is charged once, whoever sends its span how often, and whatever dies meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.collector.servers import Running, Sink, collector, post
from tests.collector.test_service import DOLLARS, call, dollars
from tests.grafana.prometheus import binary
from tests.processor.budgets.server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

YEAR = [{"name": "all", "limit": "1000", "period": "year"}]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A store that many share."""
    binary("redis-server")
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder, "--appendonly", "yes") as server:
        yield server


def environment(store: str) -> dict[str, str]:
    """One budget for all."""
    return {"COSTSPAN_BUDGETS": json.dumps(YEAR), "COSTSPAN_BUDGET_STORE": store}


def spent(told: Mapping[str, str]) -> float:
    """What is spent of it, as `costspan budgets list` says."""
    command = [sys.executable, "-m", "costspan", "budgets", "list", "--json"]
    out = subprocess.run(command, env=dict(told), capture_output=True, text=True, check=True).stdout
    return float(json.loads(out)[0]["spent"])


def send(running: Running, number: int, **attributes: str) -> int:
    """A call's span, now, over HTTP."""
    request = call(number, **attributes)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.start_time_unix_nano, span.end_time_unix_nano = time.time_ns() - 10**9, time.time_ns()
    return post(f"{running.url}/v1/traces", request.SerializeToString())[0]


def attributes(span: Any) -> dict[str, Any]:
    """A span's, by name."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_span_is_charged_once_whoever_sends_it_to_whom(tmp_path: Path, redis: RedisServer) -> None:
    told = environment(redis.url)
    with Sink() as sink, collector(tmp_path / "a", f"http://127.0.0.1:{sink.http}", environment=told) as one:
        with (
            collector(tmp_path / "b", f"http://127.0.0.1:{sink.http}", environment=told) as other,
            ThreadPoolExecutor(8) as pool,
        ):
            numbers = [*range(1, 11)] * 4
            assert set(pool.map(lambda n: send((one, other)[n[0] % 2], n[1]), enumerate(numbers * 2))) == {200}
            # Of a process that charged it itself.
            settled = {"costspan.cost.status": "priced"}
            assert send(one, 99, **settled) == 200
        assert len(sink.spans()) == 81
        assert spent(told) == pytest.approx(10 * DOLLARS)
        last = attributes(sink.spans()[79])
        assert last["costspan.budget.name"] == "all"
        assert last["costspan.budget.status"] == "ok"
        assert last["costspan.budget.remaining"] == pytest.approx(1000 - 10 * DOLLARS, abs=10 * DOLLARS)


def test_who_comes_after_one_that_died_pays_what_it_owed(tmp_path: Path, redis: RedisServer) -> None:
    told = environment(redis.url)
    redis.stop(signal.SIGKILL)
    with Sink() as sink:
        with collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment=told) as running:
            # The store is away, and the call has been made: it is kept in a file before anybody hears of it.
            assert send(running, 1) == 200
            running.process.kill()
            running.process.wait()
        redis.start()
        assert spent(told) == 0
        with collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment=told) as running:
            deadline = time.monotonic() + 20
            while spent(told) == 0:
                assert time.monotonic() < deadline
            assert 'costspan_budget_spent_USD{costspan_budget_name="all"' in running.metrics()
        assert spent(told) == pytest.approx(DOLLARS)
        assert [dollars(span) for span in sink.spans()] == [DOLLARS]


def test_budgets_in_memory_are_those_of_one_collector(tmp_path: Path) -> None:
    with Sink() as sink:
        told = environment("memory:")
        with collector(tmp_path, f"http://127.0.0.1:{sink.http}", environment=told) as running:
            for _ in range(3):
                assert send(running, 5) == 200
            assert running.metric("costspan_budget_spent_USD") == pytest.approx(DOLLARS)
