"""Forked workers: no counter is overwritten, counted twice or lost, and nobody waits for a lock of a dead thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PREAMBLE = """
import json, os, sys, threading, time
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from costspan_pricing import PriceBook
from costspan_processor import Budget, Processing
from tests.processor.conftest import AT, CHAT, metrics_of

reader = InMemoryMetricReader()
traces, meters = TracerProvider(), MeterProvider([reader])
book = PriceBook.bundled().with_prices({"acme/large": {"input": "2", "output": "8", "cache_read": "0.5"}})
processing = Processing(traces, meters, book=book, budgets=[Budget("team", "1")])
processing.start()

def call(times):
    for _ in range(times):
        decision = processing.observer.before(CHAT, lambda: 400)
        processing.observer.after(decision.token, CHAT, AT, 0.5, None, None)

def tell(**more):
    seen = metrics_of(reader)
    scopes = [scope for resource in reader.get_metrics_data().resource_metrics for scope in resource.scope_metrics]
    print(json.dumps({
        "calls": sum(seen.get("costspan.calls", {}).values()),
        "durations": sum(count for count, _ in seen.get("gen_ai.client.operation.duration", {}).values()),
        "spent": sum(seen["costspan.budget.spent"].values()),
        "held": sum(seen["costspan.budget.held"].values()),
        "generations": sorted({scope.scope.attributes["costspan.generation"] for scope in scopes}),
        "instances": [
            traces.resource.attributes["service.instance.id"],
            meters._sdk_config.resource.attributes["service.instance.id"],
        ],
        **more,
    }), flush=True)

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid
"""


def run(script: str) -> list[dict[str, Any]]:
    """What the processes of a program told, in the order they did."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_workers_count_their_own_calls_under_their_own_identity() -> None:
    first, second, parent = run(
        """
        call(2)
        def work():
            call(3)
            tell()
        for _ in range(2):
            os.waitpid(child(work), 0)
        call(1)
        tell()
        """
    )
    assert [told["calls"] for told in (first, second, parent)] == [3, 3, 3]
    assert [told["durations"] for told in (first, second, parent)] == [3, 3, 3]
    generations = [told["generations"] for told in (first, second, parent)]
    assert generations[2] == ["0"]
    assert len({tuple(generation) for generation in generations}) == 3
    assert all(len(generation) == 1 for generation in generations)
    instances = [told["instances"] for told in (first, second, parent)]
    assert all(traces == meters for traces, meters in instances)
    assert len({traces for traces, _ in instances}) == 3


def test_a_childs_child_too() -> None:
    grandchild, middle, parent = run(
        """
        call(1)
        def inner():
            call(2)
            tell()
        def outer():
            call(4)
            os.waitpid(child(inner), 0)
            tell()
        os.waitpid(child(outer), 0)
        tell()
        """
    )
    assert [told["calls"] for told in (grandchild, middle, parent)] == [2, 4, 1]
    assert len({told["generations"][0] for told in (grandchild, middle, parent)}) == 3


def test_a_budget_in_memory_remembers_what_was_spent_but_not_the_parents_holds() -> None:
    worker, parent = run(
        """
        call(1)
        open_call = processing.observer.before(CHAT, lambda: 400)
        os.waitpid(child(lambda: (call(1), tell())), 0)
        processing.observer.after(open_call.token, CHAT, AT, 0.5, None, None)
        tell()
        """
    )
    assert (worker["spent"], worker["held"]) == (pytest.approx(0.0032), 0)
    assert (parent["spent"], parent["held"]) == (pytest.approx(0.0032), 0)


def test_forks_while_threads_call_and_collect_never_hang() -> None:
    """The locks that these threads hold when the fork comes would never be released in the child."""
    told = run(
        """
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                call(1)
        def collecting():
            while not stop.is_set():
                reader.get_metrics_data()
        threads = [threading.Thread(target=target, daemon=True) for target in (busy, collecting, collecting)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            pid = child(lambda: (call(2), tell()))
            end = time.monotonic() + 10
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(pid, 9)
                    sys.exit("a forked child hangs")
                time.sleep(0.01)
        stop.set()
        """
    )
    assert [one["calls"] for one in told] == [2] * 15
    assert len({one["generations"][0] for one in told}) == 15


def test_a_fork_before_the_application_has_a_meter_provider() -> None:
    (calls,) = run(
        """
        from opentelemetry import metrics
        other = Processing(traces, metrics.get_meter_provider())
        other.start()
        other.observer.after(None, CHAT, AT, 0.5, None, None)
        def work():
            print(json.dumps({"calls": sum(sum(row.calls.values()) for row in other.table.rows())}), flush=True)
        os.waitpid(child(work), 0)
        """
    )
    assert calls == {"calls": 0}


def test_after_shutdown_a_fork_touches_nothing() -> None:
    worker, _ = run(
        """
        call(1)
        processing.shutdown()
        os.waitpid(child(tell), 0)
        tell()
        """
    )
    assert worker["generations"] == ["0"]
