"""An application with costspan, for the tests of the ways of metrics: `python -m tests.grafana.application MODE`.

steady: makes calls from one line of its standard input to the next, and its metrics leave on three ways at once:
    /metrics, OTLP by gRPC and by HTTP.
many: processes of one call each, one after the other; each sends its metrics by OTLP once and is gone.
one: a real process of one call, set up by the environment and `costspan.init()` alone.
forks: two of them, forked from one that is set up so.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

import costspan
from costspan import startup
from costspan_pricing import PriceBook
from costspan_processor import Processing
from costspan_processor.attribution import attributed, attributes_of, dollars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costspan_processor.observer import CostObserver

INPUT: Final = "gen_ai.usage.input_tokens"
OUTPUT: Final = "gen_ai.usage.output_tokens"
READ: Final = "gen_ai.usage.cache_read.input_tokens"
WRITTEN: Final = "gen_ai.usage.cache_write.input_tokens"

CALLS: Final[Sequence[tuple[str | None, str | None, str, str, dict[str, Any], float | None]]] = (
    # team, feature, provider, model, how it ended, seconds to the first chunk
    ("search", "answers", "openai", "gpt-4.1", {INPUT: 2600, OUTPUT: 420, READ: 1024}, 0.3),
    ("search", "answers", "openai", "gpt-4.1-mini", {INPUT: 900, OUTPUT: 90}, None),
    ("support", "reply", "anthropic", "claude-sonnet-4-5", {INPUT: 5200, OUTPUT: 700, READ: 3000, WRITTEN: 400}, 0.6),
    ("support", "reply", "anthropic", "claude-sonnet-4-5", {"error.type": "RateLimitError"}, None),
    ("support", "reply", "anthropic", "claude-sonnet-4-5", {"error.type": "Timeout", INPUT: 900, OUTPUT: 10}, None),
    (None, None, "gcp.gemini", "gemini-2.5-flash", {INPUT: 1900, OUTPUT: 260, "costspan.stream.aborted": True}, 0.2),
    ("data", "nightly", "openai", "gpt-4.1", {INPUT: 900, OUTPUT: 60, "costspan.service_tier": "batch"}, None),
    ("data", "prototype", "openai", "gpt-7-preview", {INPUT: 1200, OUTPUT: 300}, None),
    # More tokens of the prompt from the cache than there are.
    ("data", "odd", "openai", "gpt-4.1", {INPUT: 90, OUTPUT: 60, READ: 100}, None),
    # Its budget has no room for one call.
    ("data", "experiment", "openai", "gpt-4.1", {INPUT: 1200, OUTPUT: 300}, None),
)


def call(observer: CostObserver, number: int = 0) -> None:
    """One call, through the same door as the instrumentation's."""
    team, feature, provider, model, end, first_chunk = CALLS[number]
    request = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "server.address": f"api.{provider}.test",
    }
    task, user = ("t1", "u1") if team else (None, None)
    said = attributes_of(team=team, feature=feature, task=task, user=user, session=user)
    token = context.attach(attributed(said)[0])
    try:
        decision = observer.before(request, lambda: 4000)
        if decision is None or decision.refuse is None:
            answered = {} if "error.type" in end else {"gen_ai.response.model": model}
            attributes = {**request, **answered, **end}
            observer.after(decision and decision.token, attributes, time.time_ns(), 1.2, first_chunk, None)
    finally:
        context.detach(token)


def say(**facts: Any) -> None:
    print(json.dumps(facts, default=str), flush=True)


def exporters(ways: dict[str, str]) -> list[MetricExporter]:
    return [
        grpc.OTLPMetricExporter(endpoint=ways["grpc"], insecure=True),
        http.OTLPMetricExporter(endpoint=ways["http"]),
    ]


def steady(ways: dict[str, str]) -> None:
    """Says its port, and after the calls what they cost; ends with its standard input."""
    from select import select

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    pushed = [PeriodicExportingMetricReader(exporter, 1000) for exporter in exporters(ways)]
    meters = MeterProvider(
        [PrometheusMetricReader(registry=registry), *pushed], Resource.create({"service.name": "shop"})
    )
    costspan.init(
        tracer_provider=TracerProvider(),
        meter_provider=meters,
        dimensions=["costspan.team", "costspan.feature", "costspan.task", "user.id", "session.id"],
        budgets=[
            costspan.Budget("company", Decimal(300), period="month"),
            costspan.Budget("search", Decimal(20), scope={"team": "search"}, period="day"),
            costspan.Budget("experiments", Decimal("0.0001"), scope={"feature": "experiment"}, policy="block"),
        ],
    )
    assert startup._processing is not None
    observer = startup._processing.observer
    observer.failed("made up", ValueError("for the metric of internal errors"))
    server, _ = start_http_server(0, "127.0.0.1", registry)
    say(port=server.server_port)
    sys.stdin.readline()
    while not select([sys.stdin], [], [], 0.25)[0]:
        for number in range(len(CALLS)):
            call(observer, number)
    sys.stdin.readline()
    meters.force_flush()
    say(spent=costspan.summary()["total"]["cost"])
    sys.stdin.read()


def many(ways: dict[str, str], count: int) -> None:
    """Says what the calls of all processes cost. They send that and no more, for 200 times everything is a lot."""
    sent, book, spent = exporters(ways), PriceBook.bundled(), 0
    views = [View(instrument_name="costspan.cost"), View(instrument_name="*", aggregation=DropAggregation())]
    for _ in range(count):
        reader = InMemoryMetricReader()
        resource = Resource.create({"service.name": "batch", "service.instance.id": str(uuid.uuid4())})
        meters = MeterProvider([reader], resource, shutdown_on_exit=False, views=views)
        processing = Processing(TracerProvider(shutdown_on_exit=False), meters, book=book)
        call(processing.observer)
        spent += sum(sum(row.cost.values()) for row in processing.table.rows())
        data = reader.get_metrics_data()
        assert data is not None
        for exporter in sent:
            exporter.export(data)
    say(spent=dollars(spent))


def one() -> None:
    """Says what the call cost. What it counted leaves at its end."""
    costspan.init()
    assert startup._processing is not None
    call(startup._processing.observer)
    say(spent=costspan.summary()["total"]["cost"])


def forks() -> None:
    """Two workers that are forked after the start say what their calls cost; the one that forked them makes none."""
    costspan.init()
    workers = []
    for _ in range(2):
        worker = os.fork()
        if worker == 0:
            assert startup._processing is not None
            call(startup._processing.observer)
            costspan.flush()
            say(spent=costspan.summary()["total"]["cost"])
            os._exit(0)
        workers.append(worker)
    for worker in workers:
        assert os.waitpid(worker, 0)[1] == 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["steady", to]:
            steady(json.loads(to))
        case ["many", to, count]:
            many(json.loads(to), int(count))
        case ["one"]:
            one()
        case ["forks"]:
            forks()
