"""The parts of the documentation that the code writes.

    python -m tests.docs.generate

rewrites what stands between `<!-- generated: NAME -->` and `<!-- end -->` in the files of `docs/`. The tests say when
that is due.
"""

from __future__ import annotations

import re
import time
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import REGISTRY

from costspan.settings import variables
from costspan.startup import PROVIDERS
from costspan.tracking import track
from costspan_pricing import METERS
from costspan_processor import Budget, Processing, Settings
from costspan_processor.metrics import DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"

_PART: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

CALL: Final[dict[str, Any]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.response.model": "claude-sonnet-4-5-20250929",
    "server.address": "api.anthropic.com",
    "server.port": 8443,
    "gen_ai.usage.input_tokens": 9000,
    "gen_ai.usage.output_tokens": 200,
    "gen_ai.usage.cache_read.input_tokens": 4000,
    "gen_ai.usage.cache_write.input_tokens": 2000,
    "gen_ai.usage.reasoning.output_tokens": 100,
}
"""A call that uses enough for every metric to show."""

EMBEDDINGS: Final[dict[str, Any]] = {
    "gen_ai.operation.name": "embeddings",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "text-embedding-3-small",
    "gen_ai.response.model": "text-embedding-3-small",
    "server.address": "localhost",
    "server.port": 8080,
    "gen_ai.usage.input_tokens": 9,
}


class Metric:
    """One metric as it leaves the process."""

    def __init__(self, found: Any, prometheus: str) -> None:
        self.name: str = found.name
        self.unit: str = found.unit
        self.meaning: str = found.description.rstrip(".")
        self.prometheus = prometheus
        data = found.data
        self.kind = "histogram" if isinstance(data, Histogram) else "counter" if isinstance(data, Sum) else "gauge"
        self.labels = sorted({str(key) for point in data.data_points for key in point.attributes})


@cache
def metrics(generation: Any) -> list[Metric]:
    """Every metric that a process emits, by making it emit them; each with its name in Prometheus."""
    memory, exporter = InMemoryMetricReader(), PrometheusMetricReader()
    provider = MeterProvider([memory, exporter], resource=Resource.get_empty(), shutdown_on_exit=False)
    try:
        processing = Processing(
            TracerProvider(shutdown_on_exit=False),
            provider,
            budgets=[Budget("docs", limit=Decimal(100))],
            settings=Settings(genai_metrics=generation),
        )
        with track(team="a", feature="b", task="c"):
            for attributes in (CALL, EMBEDDINGS, {**CALL, "error.type": "Timeout"}):
                decision = processing.observer.before(attributes, lambda: 400)
                token = decision.token if decision is not None else None
                processing.observer.after(token, attributes, time.time_ns(), 1.0, 0.2, None)
        processing.table.failed("response")
        families = {family.name: family.type for family in REGISTRY.collect()}
        found = memory.get_metrics_data()
        assert found is not None
        return sorted(
            (
                Metric(metric, _in_prometheus(metric.name, families))
                for resource in found.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ),
            key=lambda metric: metric.name,
        )
    finally:
        provider.shutdown()


_SUFFIX: Final = {"counter": "_total", "histogram": "_bucket", "gauge": ""}


def _in_prometheus(name: str, families: dict[str, str]) -> str:
    """The family that the exporter made of a metric: its name with the unit behind it."""
    start = name.replace(".", "_")
    fitting = [family for family in families if family == start or family.startswith(f"{start}_")]
    family = min(fitting, key=len)
    return family + _SUFFIX[families[family]]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


_GROUPS: Final = {
    "*call*": [f"gen_ai.{name}" for name in ("operation.name", "provider.name", "request.model", "response.model")],
    "*booked on*": list(DIMENSIONS),
    "*server*": ["server.address", "server.port"],
}
"""Attributes that many metrics share, under the words that the page explains."""


def _labels(labels: list[str]) -> str:
    words = []
    for word, group in _GROUPS.items():
        if set(group) <= set(labels):
            words.append(word)
            labels = [label for label in labels if label not in group]
    return ", ".join([*words, *(f"`{label}`" for label in labels)])


def _variables() -> str:
    return _table(
        ("variable", "default", "meaning"),
        [(f"`{name}`", f"`{default}`", meaning) for name, default, meaning in variables()],
    )


def _metrics_table(generation: str, wanted: Callable[[str], bool]) -> str:
    return _table(
        ("metric", "kind", "unit", "meaning", "attributes", "in Prometheus"),
        [
            (f"`{m.name}`", m.kind, f"`{m.unit}`", m.meaning, _labels(m.labels), f"`{m.prometheus}`")
            for m in metrics(generation)
            if wanted(m.name)
        ],
    )


def _meters() -> str:
    rows = [(f"`costspan.usage.{m.id}`", m.unit, f"{m.per:,}") for m in METERS.values() if m.component == "other"]
    return _table(("attribute", "counts", "priced per"), rows)


def _providers() -> str:
    def calls(provider: Any) -> list[str]:
        return list(dict.fromkeys(endpoint.method for endpoint in provider.endpoints))

    return _table(
        ("instrumentor", "SDK", "patched methods, and their `Async` twins"),
        [(f"`{name}`", f"`{p.requires}`", _names(calls(p))) for name, p in PROVIDERS.items()],
    )


def _usage_formats() -> str:
    formats = sorted(name for provider in PROVIDERS.values() for name in provider.usage_formats)
    return _names(["otel.genai", *formats]) + "\n"


def _decisions() -> str:
    rows = []
    for file in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"* [{title}]({file.name})\n")
    return "".join(rows)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "variables": _variables,
    "metrics": lambda: _metrics_table("off", lambda name: not name.startswith("costspan.budget.")),
    "budget-metrics": lambda: _metrics_table("off", lambda name: name.startswith("costspan.budget.")),
    "genai-metrics": lambda: _metrics_table("current", lambda name: name.startswith("gen_ai.")),
    "genai-metrics-next": lambda: _metrics_table("next", lambda name: name.startswith("gen_ai.")),
    "meters": _meters,
    "providers": _providers,
    "usage-formats": _usage_formats,
    "decisions": _decisions,
}


def generated(text: str) -> str:
    """The text of a page with its generated parts as the code would write them now."""
    return _PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], text)


def pages() -> list[Path]:
    """The pages that have a generated part."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _PART.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        before = page.read_text(encoding="utf-8")
        if (after := generated(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))
