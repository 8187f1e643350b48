"""The counters: exact, bounded, and right for every reader and exporter at once."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context as otel
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from costspan_processor import Processing, Settings
from costspan_processor.attribution import attributed, attributes_of
from tests.processor.conftest import AT, CHAT, Telemetry, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan_pricing import PriceBook

MODEL = (
    ("gen_ai.operation.name", "chat"),
    ("gen_ai.provider.name", "acme"),
    ("gen_ai.request.model", "large"),
    ("gen_ai.response.model", "large"),
)


def labels(*more: tuple[str, object]) -> tuple[Any, ...]:
    return tuple(sorted((*MODEL, *more)))


def test_a_call_that_failed_is_told_apart_from_one_whose_usage_is_not_known(shop: Telemetry) -> None:
    nothing = {key: value for key, value in CHAT.items() if not key.startswith("gen_ai.usage.")}
    shop.call({"error.type": "RateLimitError"}, base=nothing)
    shop.call(base=nothing)
    rows = shop.processing.table.rows()
    assert sum(row.calls["no_usage"] for row in rows) == 2
    assert sum(row.failed for row in rows) == 1


def test_what_one_call_leaves_behind(shop: Telemetry) -> None:
    shop.call()
    seen = shop.metrics()
    age = seen.pop("costspan.price_book.age")
    assert list(age) == [()]
    assert "costspan.price" in seen
    del seen["costspan.price"]
    server = ("server.address", "api.acme.test")
    assert seen == {
        "costspan.cost": {
            labels(("costspan.component", "input")): 0.0004,
            labels(("costspan.component", "cache_read")): 0.0004,
            labels(("costspan.component", "output")): 0.0008,
        },
        "costspan.tokens": {
            labels(("costspan.component", "input")): 200,
            labels(("costspan.component", "cache_read")): 800,
            labels(("costspan.component", "output")): 100,
        },
        "costspan.calls": {labels(("costspan.cost.status", "priced")): 1},
        "costspan.cache.saved": {labels(): 0.0012},
        "gen_ai.client.operation.duration": {labels(server): (1, 0.5)},
        "gen_ai.client.token.usage": {
            labels(server, ("gen_ai.token.type", "input")): (1, 1000),
            labels(server, ("gen_ai.token.type", "output")): (1, 100),
        },
    }


def test_what_the_models_in_use_cost_is_a_metric_by_service_tier(shop: Telemetry) -> None:
    assert "costspan.price" not in shop.metrics()
    shop.call()
    shop.call({"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-2024-08-06"})
    prices = {
        (told["gen_ai.request.model"], told["costspan.service_tier"], told["costspan.component"]): value
        for told, value in ((dict(key), value) for key, value in shop.metrics()["costspan.price"].items())
    }
    assert {key[1:]: value for key, value in prices.items() if key[0] == "large"} == {
        ("standard", "input"): 2,
        ("standard", "cache_read"): 0.5,
        ("standard", "cache_write"): 2.5,
        ("standard", "output"): 8,
    }
    of_openai = {key[1:]: value for key, value in prices.items() if key[0] != "large"}
    assert {tier for tier, _ in of_openai} == {"standard", "batch", "priority"}, "it has no flex prices"
    assert of_openai["batch", "output"] == of_openai["standard", "output"] / 2


def test_money_at_another_service_tier_is_told_apart(shop: Telemetry) -> None:
    shop.call()
    shop.call({"costspan.service_tier": "default"})
    assert "costspan.tier.cost" not in shop.metrics()
    for _ in range(2):
        shop.call({"costspan.service_tier": "flex"})
    assert shop.metrics()["costspan.tier.cost"] == {labels(("costspan.service_tier", "flex")): 0.0032}
    assert sum(shop.metrics()["costspan.cost"].values()) == pytest.approx(4 * 0.0016)


def test_money_without_a_whole_answer_is_told_apart(shop: Telemetry) -> None:
    shop.call()
    shop.call({"error.type": "RateLimitError"}, base={k: v for k, v in CHAT.items() if "usage" not in k})
    assert "costspan.cost.wasted" not in shop.metrics()
    shop.call({"error.type": "APIConnectionError", "costspan.usage.estimated": True})
    shop.call({"costspan.stream.aborted": True, "costspan.usage.estimated": True})
    assert shop.metrics()["costspan.cost.wasted"] == {
        labels(("costspan.reason", "failed")): 0.0016,
        labels(("costspan.reason", "aborted")): 0.0016,
    }


def test_a_cache_write_costs_a_premium(shop: Telemetry) -> None:
    shop.call({"gen_ai.usage.cache_write.input_tokens": 100})
    assert shop.metrics()["costspan.cache.write_premium"] == {labels(): 0.00005}


def test_a_call_without_a_price_is_counted_and_costs_no_zero(shop: Telemetry) -> None:
    shop.call({"gen_ai.request.model": "huge", "gen_ai.response.model": "huge"})
    seen = shop.metrics()
    assert "costspan.cost" not in seen
    ((key, count),) = seen["costspan.calls"].items()
    assert dict(key)["costspan.cost.status"] == "unknown_model"
    assert count == 1
    assert sum(seen["costspan.tokens"].values()) == 1100


@pytest.mark.parametrize(
    ("odd", "problems"),
    [
        pytest.param({}, [], id="none"),
        pytest.param({"costspan.usage.guessed": True}, ["guessed"], id="guessed"),
        pytest.param({"gen_ai.usage.cache_read.input_tokens": 1001}, ["inconsistent"], id="more cached than sent"),
        pytest.param(
            {"costspan.usage.guessed": True, "gen_ai.usage.reasoning.output_tokens": 101},
            ["guessed", "inconsistent"],
            id="both",
        ),
    ],
)
def test_calls_whose_usage_is_doubtful_are_counted(shop: Telemetry, odd: dict[str, Any], problems: list[str]) -> None:
    for _ in range(3):
        shop.call(odd)
    assert shop.metrics().get("costspan.usage.problems", {}) == {labels(("kind", problem)): 3 for problem in problems}


def test_a_failed_call_shows_its_error_in_the_duration_alone(shop: Telemetry) -> None:
    failed = {key: value for key, value in CHAT.items() if "usage" not in key and "response" not in key}
    shop.call({"error.type": "RateLimitError"}, base=failed)
    seen = shop.metrics()
    ((key, _),) = seen["gen_ai.client.operation.duration"].items()
    assert dict(key)["error.type"] == "RateLimitError"
    ((key, count),) = seen["costspan.calls"].items()
    assert (dict(key)["costspan.cost.status"], count) == ("no_usage", 1)
    assert "gen_ai.client.token.usage" not in seen
    assert "costspan.tokens" not in seen


def test_the_first_chunk_of_a_stream(shop: Telemetry) -> None:
    shop.observer.after(None, CHAT, AT, 2.0, 0.3, None)
    ((_, point),) = shop.metrics()["gen_ai.client.operation.time_to_first_chunk"].items()
    assert point == (1, 0.3)


def test_what_the_provider_charged_is_what_is_counted(shop: Telemetry) -> None:
    shop.call({"costspan.usage.reported_cost": 0.0017})
    assert shop.metrics()["costspan.cost"] == {labels(("costspan.component", "other")): 0.0017}


def test_team_feature_and_task_become_labels_and_user_does_not(shop: Telemetry) -> None:
    context, _ = attributed(attributes_of(team="search", user="ada"))
    token = otel.attach(context)
    try:
        shop.call()
    finally:
        otel.detach(token)
    seen = shop.metrics()
    assert seen["costspan.calls"] == {labels(("costspan.cost.status", "priced"), ("costspan.team", "search")): 1}
    assert all("costspan.team" not in dict(key) for key in seen["gen_ai.client.operation.duration"])


def test_the_next_generation_of_the_conventions(telemetry: Callable[..., Telemetry]) -> None:
    shop = telemetry(settings=Settings(genai_metrics="next"))
    shop.call({"gen_ai.usage.audio.input_tokens": 50, "gen_ai.usage.reasoning.output_tokens": 40})
    shop.call({"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "acme", "gen_ai.request.model": "embed",
               "gen_ai.usage.input_tokens": 10})  # fmt: skip
    seen = {name: points for name, points in shop.metrics().items() if name.startswith("gen_ai.")}
    by_modality = {
        name.removeprefix("gen_ai.client.inference.usage."): {
            dict(key)["gen_ai.token.modality"]: value for key, value in points.items()
        }
        for name, points in seen.items()
        if ".usage." in name
    }
    assert by_modality == {
        "input_tokens": {"text": 950, "audio": 50},
        "cache_read.input_tokens": {"text": 800},
        "output_tokens": {"text": 100},
        "reasoning.output_tokens": {"text": 40},
    }
    assert {name for name in seen if ".usage." not in name} == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
        "gen_ai.client.embeddings.duration",
        "gen_ai.client.embeddings.operation.input_tokens",
    }


def test_no_genai_metrics_at_all(telemetry: Callable[..., Telemetry]) -> None:
    shop = telemetry(settings=Settings(genai_metrics="off"))
    shop.call()
    assert not [name for name in shop.metrics() if name.startswith("gen_ai.")]


class TestExactness:
    def test_sixty_four_threads(self, shop: Telemetry) -> None:
        def work() -> None:
            for _ in range(100):
                shop.call()

        threads = [threading.Thread(target=work) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (row,) = shop.processing.table.rows()
        assert row.calls == {"priced": 6400}
        assert row.cost == {"input": 6400 * 400_000_000, "cache_read": 6400 * 400_000_000, "output": 6400 * 800_000_000}
        assert row.tokens == {"input": 1_280_000, "cache_read": 5_120_000, "output": 640_000}
        assert row.latency_ns == 6400 * 500_000_000

    async def test_five_hundred_tasks_each_in_its_own_block(self, shop: Telemetry) -> None:
        async def task(number: int) -> Decimal:
            context, totals = attributed(attributes_of(team=f"t{number % 5}"))
            token = otel.attach(context)
            try:
                for _ in range(3):
                    decision = await shop.observer.abefore(CHAT, lambda: 0)
                    await asyncio.sleep(0)
                    assert decision is not None
                    shop.observer.after(decision.token, CHAT, AT, 0.1, None, None)
            finally:
                otel.detach(token)
            return totals.cost

        costs = await asyncio.gather(*(task(number) for number in range(500)))
        assert set(costs) == {Decimal("0.0048")}
        rows = shop.processing.table.rows()
        assert [row.calls for row in rows] == [{"priced": 300}] * 5

    def test_a_sampler_that_drops_every_span_changes_nothing(self, book: PriceBook) -> None:
        reader = InMemoryMetricReader()
        processing = Processing(TracerProvider(sampler=ALWAYS_OFF), MeterProvider([reader]), book=book)
        processing.start()
        processing.observer.after(None, CHAT, AT, 0.5, None, None)
        assert sum(metrics_of(reader)["costspan.cost"].values()) == pytest.approx(0.0016)

    def test_no_value_is_ever_nan_or_infinite(self, shop: Telemetry) -> None:
        for duration in (float("nan"), float("inf"), -1.0):
            shop.call(duration=duration)
        (row,) = shop.processing.table.rows()
        assert (row.calls, row.timed) == ({"priced": 3}, 0)


class TestReaders:
    def test_cumulative_delta_and_prometheus_readers_agree(self, book: PriceBook) -> None:
        delta = InMemoryMetricReader(
            dict.fromkeys((Counter, ObservableCounter, Histogram), AggregationTemporality.DELTA)
        )
        cumulative = InMemoryMetricReader()
        registry = CollectorRegistry()
        prometheus = PrometheusMetricReader(registry=registry)
        processing = Processing(TracerProvider(), MeterProvider([delta, cumulative, prometheus]), book=book)
        added = 0.0
        for calls in (3, 0, 4):
            for _ in range(calls):
                processing.observer.after(None, CHAT, AT, 0.5, None, None)
            added += sum(metrics_of(delta).get("costspan.cost", {}).values())
        assert added == pytest.approx(7 * 0.0016)
        assert sum(metrics_of(cumulative)["costspan.cost"].values()) == pytest.approx(7 * 0.0016)
        assert sum(scraped(registry, "costspan_cost_USD_total").values()) == pytest.approx(7 * 0.0016)

    def test_a_view_that_drops_labels_adds_the_rows_up(self, book: PriceBook) -> None:
        reader = InMemoryMetricReader()
        views = [View(instrument_name="costspan.*", attribute_keys={"gen_ai.provider.name"})]
        processing = Processing(TracerProvider(), MeterProvider([reader], views=views), book=book)
        processing.observer.after(None, CHAT, AT, 0.5, None, None)
        processing.observer.after(None, {**CHAT, "gen_ai.response.model": "small"}, AT, 0.5, None, None)
        seen = metrics_of(reader)
        assert seen["costspan.calls"] == {(("gen_ai.provider.name", "acme"),): 2}
        assert list(seen["costspan.cost"].values()) == [pytest.approx(0.0016 + 0.0006)]

    def test_names_in_prometheus(self, book: PriceBook) -> None:
        registry = CollectorRegistry()
        processing = Processing(TracerProvider(), MeterProvider([PrometheusMetricReader(registry=registry)]), book=book)
        processing.observer.after(None, CHAT, AT, 0.5, 0.1, None)
        processing.observer.failed("reader", ValueError("x"))
        text = generate_latest(registry).decode()
        families = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
        assert {
            "costspan_cost_USD_total",
            "costspan_tokens_total",
            "costspan_calls_total",
            "costspan_cache_saved_USD_total",
            "costspan_price_book_age_seconds",
            "costspan_internal_errors_total",
            "gen_ai_client_operation_duration_seconds_count",
            "gen_ai_client_token_usage_sum",
            "gen_ai_client_operation_time_to_first_chunk_seconds_bucket",
        } <= families
        ((found, _),) = [
            item
            for item in scraped(registry, "costspan_cost_USD_total").items()
            if ("costspan_component", "output") in item[0]
        ]
        assert {
            ("gen_ai_provider_name", "acme"),
            ("gen_ai_request_model", "large"),
            ("gen_ai_response_model", "large"),
            ("gen_ai_operation_name", "chat"),
        } <= set(found)


def scraped(registry: CollectorRegistry, name: str) -> dict[frozenset[tuple[str, str]], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        frozenset(sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


class TestBounds:
    def test_a_dimension_has_a_bound_and_says_when_it_is_reached(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(settings=Settings(max_values=3))
        for number in range(10):
            context, _ = attributed(attributes_of(team=f"team-{number}"))
            token = otel.attach(context)
            shop.call()
            otel.detach(token)
        by_team = {dict(key)["costspan.team"]: value for key, value in shop.metrics()["costspan.calls"].items()}
        assert by_team == {"team-0": 1, "team-1": 1, "team-2": 1, "_overflow": 7}

    def test_the_table_has_a_bound_and_its_totals_stay_exact(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(settings=Settings(max_values=100, max_series=60))
        for number in range(100):
            shop.call({"gen_ai.request.model": f"alias-{number}"})
        seen = shop.metrics()
        assert all(len(seen[name]) <= 60 for name in ("costspan.cost", "costspan.tokens", "costspan.calls"))
        assert sum(seen["costspan.calls"].values()) == 100
        assert sum(seen["costspan.cost"].values()) == pytest.approx(100 * 0.0016)
        overflow = [key for key in seen["costspan.calls"] if ("gen_ai.request.model", "_overflow") in key]
        assert len(overflow) == 1

    def test_the_sdks_own_limit_is_never_reached(self, telemetry: Callable[..., Telemetry]) -> None:
        shop = telemetry(settings=Settings(max_values=5000))
        for number in range(2500):
            shop.call({"gen_ai.request.model": f"alias-{number}"})
        for name in ("costspan.cost", "costspan.tokens", "costspan.calls"):
            points = shop.metrics()[name]
            assert len(points) < 2000
            assert all(("otel.metric.overflow", True) not in key for key in points)


class TestGenerations:
    def test_shutdown_keeps_the_last_values_for_the_collection_that_is_still_to_come(self, shop: Telemetry) -> None:
        shop.call()
        shop.processing.shutdown()
        assert sum(shop.metrics()["costspan.calls"].values()) == 1

    def test_a_second_start_on_the_same_providers_counts_from_zero_beside_the_silent_first(
        self, book: PriceBook, shop: Telemetry
    ) -> None:
        shop.call()
        shop.processing.shutdown()
        again = Processing(shop.tracer_provider, shop.meter_provider, book=book)
        again.start()
        again.observer.after(None, CHAT, AT, 0.5, None, None)
        again.observer.after(None, CHAT, AT, 0.5, None, None)
        assert sum(shop.metrics()["costspan.calls"].values()) == 2
        assert again.table.id != shop.processing.table.id

    def test_each_generation_has_a_meter_of_its_own(self, shop: Telemetry) -> None:
        shop.call()
        data = shop.reader.get_metrics_data()
        assert data is not None
        (scope,) = data.resource_metrics[0].scope_metrics
        assert dict(scope.scope.attributes or {}) == {"costspan.generation": shop.processing.table.id}

    def test_a_resource_without_an_instance_gets_one(self, book: PriceBook) -> None:
        provider = MeterProvider([InMemoryMetricReader()], resource=Resource({"service.name": "bare"}))
        Processing(TracerProvider(), provider, book=book)
        assert provider._sdk_config.resource.attributes["service.instance.id"]

    def test_a_resource_with_an_instance_keeps_it(self, book: PriceBook) -> None:
        provider = TracerProvider(resource=Resource({"service.instance.id": "mine"}))
        Processing(provider, MeterProvider(), book=book)
        assert provider.resource.attributes["service.instance.id"] == "mine"


def test_internal_errors_are_counted_each_time_and_logged_once_a_place(
    shop: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        shop.observer.failed("reader.openai", ValueError("odd"))
    shop.observer.failed("settle", ValueError("odd"))
    errors = shop.metrics()["costspan.internal.errors"]
    assert errors == {(("costspan.where", "reader.openai"),): 3, (("costspan.where", "settle"),): 1}
    assert [record.getMessage() for record in caplog.records] == [
        "costspan failed in reader.openai; your call is not affected",
        "costspan failed in settle; your call is not affected",
    ]
