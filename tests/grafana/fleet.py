"""A small company's calls, made up: through the real processor and the real Prometheus exporter, at simulated times."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from costspan_pricing import PriceBook
from costspan_processor import Budget, Processing
from costspan_processor.attribution import attributed, attributes_of, dollars
from costspan_processor.budgets import Guard
from costspan_processor.budgets.memory import MemoryStore
from tests.grafana.prometheus import History

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costspan_processor.budgets import Store

BUDGETS: Final = (
    Budget("company", Decimal(300), period="month"),
    Budget("search", Decimal(65), scope={"team": "search"}, period="day"),
    Budget("support", Decimal(64), scope={"team": "support"}, period="day"),
    Budget("experiments", Decimal("0.0001"), scope={"feature": "experiment"}, period="day", policy="block"),
)


@dataclass(frozen=True)
class Traffic:
    """A kind of call: how often a minute, how large (means), of whom."""

    provider: str
    model: str
    per_minute: float
    prompt: int
    output: int
    team: str | None = None
    feature: str | None = None
    operation: str = "chat"
    cached: float = 0.0
    written: float = 0.0
    streamed: bool = False
    failing: float = 0.004
    seconds: float = 1.6


TRAFFIC: Final = (
    Traffic("openai", "gpt-4o", 2.5, 2600, 420, "search", "answers", cached=0.45, streamed=True),
    Traffic("openai", "gpt-4o-mini", 6, 900, 160, "search", "rewrite-query", cached=0.2, seconds=0.7),
    Traffic("openai", "text-embedding-3-small", 8, 700, 0, "search", "index", "embeddings", seconds=0.2),
    Traffic(
        "anthropic", "claude-sonnet-4-5", 1.6, 5200, 700, "support", "reply", cached=0.7, written=0.08, streamed=True
    ),
    Traffic("anthropic", "claude-haiku-4-5", 3, 1500, 220, "support", "triage", cached=0.35, seconds=0.9),
    Traffic(
        "gcp.gemini", "gemini-2.5-pro", 0.8, 4200, 900, "data", "extract", "generate_content", cached=0.25, seconds=4
    ),
    Traffic("gcp.gemini", "gemini-2.5-flash", 2, 1900, 260, None, None, "generate_content", seconds=0.8),
    Traffic("openai", "gpt-7-preview", 0.1, 1200, 300, "data", "prototype"),
    # Its budget has no room for one call: each is refused.
    Traffic("openai", "gpt-4o", 0.3, 1200, 300, "data", "experiment"),
)


class Process:
    """One process of the application. Its registry is what Prometheus would scrape."""

    def __init__(self, store: Store) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self._meters = MeterProvider(
            metric_readers=[PrometheusMetricReader(registry=self.registry)],
            resource=Resource.create({"service.name": "shop"}),
        )
        book = PriceBook.bundled()
        self._processing = Processing(
            TracerProvider(),
            self._meters,
            book=book,
            # The budgets' calendar must follow the simulated time.
            guard=lambda resource, failed: Guard(
                BUDGETS, book, store, resource=resource, clock=lambda: self.now, failed=failed
            ),
        )
        self.observer = self._processing.observer

    def call(self, kind: Traffic, dice: random.Random) -> None:
        """One call, through the same door as the instrumentation's."""
        request: dict[str, Any] = {
            "gen_ai.operation.name": kind.operation,
            "gen_ai.provider.name": kind.provider,
            "gen_ai.request.model": kind.model,
            "server.address": f"api.{kind.provider}.test",
        }
        prompt = max(1, int(kind.prompt * dice.lognormvariate(-0.12, 0.5)))
        duration = kind.seconds * dice.lognormvariate(-0.12, 0.5)
        first_chunk = duration * dice.uniform(0.15, 0.4) if kind.streamed else None
        if dice.random() < kind.failing:
            end = {**request, "error.type": dice.choice(["RateLimitError", "APITimeoutError"])}
            first_chunk = None
        else:
            end = {
                **request,
                "gen_ai.response.model": kind.model,
                "gen_ai.usage.input_tokens": prompt,
            }
            if kind.output:
                end["gen_ai.usage.output_tokens"] = max(1, int(kind.output * dice.lognormvariate(-0.12, 0.5)))
            if kind.cached:
                end["gen_ai.usage.cache_read.input_tokens"] = int(prompt * min(1, kind.cached * dice.uniform(0.6, 1.3)))
            if kind.written:
                end["gen_ai.usage.cache_write.input_tokens"] = int(prompt * kind.written)
        token = otel.attach(attributed(attributes_of(team=kind.team, feature=kind.feature))[0])
        try:
            decision = self.observer.before(request, lambda: prompt * 4)
            if decision is not None and decision.refuse is not None:
                return
            at = int(self.now * 1e9)
            self.observer.after(decision and decision.token, end, at, duration, first_chunk, None)
        finally:
            otel.detach(token)

    def minute(self, dice: random.Random, load: float = 1.0) -> None:
        """The calls of a minute at a load: 1 is the mean."""
        for kind in TRAFFIC:
            expected = kind.per_minute * load
            for _ in range(int(expected) + (dice.random() < expected % 1)):
                self.call(kind, dice)

    def calls(self) -> int:
        """Calls so far, of any status."""
        return sum(sum(row.calls.values()) for row in self._processing.table.rows())

    def spent(self) -> Counter[str]:
        """What all priced calls so far have cost, by model, in picodollars."""
        cost: Counter[str] = Counter()
        for row in self._processing.table.rows():
            cost[row.request_model or ""] += sum(row.cost.values())
        return cost


def working_day(at: float) -> float:
    """The load at a time of day: little at night, most in the early afternoon (UTC)."""
    hour = at % 86400 / 3600
    return 0.35 + 1.1 * math.exp(-(((hour - 13.5) / 4.2) ** 2))


@dataclass(frozen=True)
class Story:
    """What really happened, to hold Prometheus to."""

    history: History
    end: int
    today: Decimal
    """USD since midnight UTC."""
    month_to_date: Decimal
    by_model: Mapping[str, Decimal]
    """USD since the start."""


def tell(end: int, minutes: int, seed: int = 1) -> Story:
    """Minutes of scrapes, one a minute, of two pods, until `end` (unix seconds).

    Pod a is restarted half-way; pod b comes after a third of the time and has made calls before its first scrape. They
    share the store of their budgets.
    """
    dice = random.Random(seed)
    history = History()
    store = MemoryStore()
    start = end - minutes * 60
    pods = {"a": Process(store)}
    ended: list[Process] = []
    spent: dict[int, Counter[str]] = {}
    for now in range(start, end + 1, 60):
        if now == start + minutes // 2 * 60:
            ended.append(pods["a"])
            pods["a"] = Process(store)
        if now == start + minutes // 3 * 60:
            pods["b"] = Process(store)
        for name, pod in pods.items():
            pod.now = now
            if now > start:
                pod.minute(dice, working_day(now))
            history.scrape(pod.registry, now, job="shop", instance=f"{name}:9464")
        history.add("costspan:rules:running", "unknown", "costspan:rules:running", {}, now, 1)
        spent[now] = sum((pod.spent() for pod in (*ended, *pods.values())), Counter())
    midnight = datetime.fromtimestamp(end, UTC).replace(hour=0, minute=0, second=0)

    def since(moment: datetime) -> Decimal:
        return dollars(spent[end].total() - spent.get(int(moment.timestamp()), Counter[str]()).total())

    return Story(
        history,
        end,
        today=since(midnight),
        month_to_date=since(midnight.replace(day=1)),
        by_model={model: dollars(pico) for model, pico in spent[end].items()},
    )
