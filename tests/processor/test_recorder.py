"""Records under labels that stay the same leave exactly what the public way leaves, whoever collects and how."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from costspan_processor.compat import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LABELS: Mapping[str, str | int] = {"gen_ai.provider.name": "acme", "gen_ai.token.type": "input", "server.port": 8080}
VALUES = (1, 20, 300, 300, 4000)

SETUPS: dict[str, Callable[[], tuple[list[InMemoryMetricReader], list[View]]]] = {
    "cumulative": lambda: ([InMemoryMetricReader()], []),
    "delta": lambda: ([InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})], []),
    "both": lambda: (
        [InMemoryMetricReader(), InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})],
        [],
    ),
    "two readers": lambda: ([InMemoryMetricReader(), InMemoryMetricReader()], []),
    "fewer labels": lambda: (
        [InMemoryMetricReader()],
        [View(instrument_name="usage", attribute_keys={"gen_ai.provider.name"})],
    ),
    "two views": lambda: (
        [InMemoryMetricReader()],
        [
            View(instrument_name="usage"),
            View(instrument_name="usage", name="fine", aggregation=ExponentialBucketHistogramAggregation()),
        ],
    ),
    "dropped": lambda: ([InMemoryMetricReader()], [View(instrument_name="usage", aggregation=DropAggregation())]),
    "no reader": lambda: ([], []),
}


def collected(readers: list[InMemoryMetricReader]) -> list[Any]:
    """What each reader sees, without the times."""

    def timeless(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: timeless(value) for key, value in node.items() if "time_unix" not in key}
        return [timeless(item) for item in node] if isinstance(node, list) else node

    found = [reader.get_metrics_data() for reader in readers]
    return [None if data is None else timeless(json.loads(data.to_json())["resource_metrics"]) for data in found]


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS.keys())
def test_every_collection_is_the_one_of_public_records(
    setup: Callable[[], tuple[list[InMemoryMetricReader], list[View]]],
) -> None:
    seen = []
    for publicly in (True, False):
        readers, views = setup()
        provider = MeterProvider(readers, views=views)
        histogram = provider.get_meter("test").create_histogram("usage", "{token}")
        recorder = Recorder(histogram, LABELS)
        context = set_span_in_context(TracerProvider().get_tracer("test").start_span("call"))
        rounds = []
        for _ in range(3):
            for value in (*VALUES, -1, float("nan")):
                if publicly:
                    histogram.record(value, LABELS, context)
                else:
                    recorder(value, context)
            rounds.append(_without_spans(collected(readers)))
        seen.append(rounds)
    public, ours = seen
    assert ours == public


def _without_spans(node: Any) -> Any:
    """Exemplars name the span, which differs from run to run: that there is one is what counts."""
    if isinstance(node, dict):
        return {key: bool(value) if key.endswith("_id") else _without_spans(value) for key, value in node.items()}
    return [_without_spans(item) for item in node] if isinstance(node, list) else node


def test_it_is_the_short_way_that_is_taken() -> None:
    """Without it the other tests hold too, and a call costs a third more."""
    histogram = MeterProvider([InMemoryMetricReader()]).get_meter("test").create_histogram("usage")
    recorder = Recorder(histogram, LABELS)
    recorder(1)
    histogram.record = None  # type: ignore[method-assign, assignment]
    recorder(2)


def test_a_reader_that_comes_later_sees_the_later_records() -> None:
    first, second = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([first])
    recorder = Recorder(provider.get_meter("test").create_histogram("usage"), LABELS)
    for value in (1, 2):
        recorder(value)
    provider.add_metric_reader(second)
    for value in (3, 4):
        recorder(value)
    counts = [
        reader["resource_metrics"] if isinstance(reader, dict) else reader[0]["scope_metrics"][0]["metrics"][0]
        for reader in collected([first, second])
    ]
    assert [metric["data"]["data_points"][0]["count"] for metric in counts] == [4, 2]


def test_an_api_without_an_sdk_is_served_too() -> None:
    recorder = Recorder(NoOpMeterProvider().get_meter("test").create_histogram("usage"), LABELS)
    for value in (1, 2):
        recorder(value)
