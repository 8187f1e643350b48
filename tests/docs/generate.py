"""The parts of the documentation that the code writes.

    python -m tests.docs.generate

rewrites what stands between `<!-- generated: NAME -->` and `<!-- end -->` in the files of `docs/`. The tests say when
that is due.
"""

from __future__ import annotations

import asyncio
import re
import time
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import typer
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import REGISTRY

from costspan.cli import app
from costspan.doctor.sdks import called
from costspan.settings import variables
from costspan.startup import PROVIDERS
from costspan.tracking import track
from costspan_instrumentation import hosts, semconv
from costspan_instrumentation.provider import Endpoint
from costspan_pricing import METERS
from costspan_processor import Budget, Processing, Settings
from costspan_processor.collector.downstream import Destination
from costspan_processor.collector.receivers import Address
from costspan_processor.collector.service import Collector, Config
from costspan_processor.dialects import DIALECTS, SPELLINGS
from costspan_processor.metrics import DIMENSIONS
from tests.grafana.prometheus import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from costspan_instrumentation.provider import Provider

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
            budgets=[Budget("docs", limit=Decimal("0.0001"))],
            settings=Settings(genai_metrics=generation),
        )
        with track(team="a", feature="b", task="c"):
            odd = {**CALL, "costspan.usage.guessed": True}
            batch = {**CALL, "costspan.service_tier": "batch"}
            for attributes in (CALL, EMBEDDINGS, odd, batch, {**CALL, "error.type": "Timeout"}):
                decision = processing.observer.before(attributes, lambda: 400)
                token = decision.token if decision is not None else None
                processing.observer.after(token, attributes, time.time_ns(), 1.0, 0.2, None)
        processing.table.failed("response")
        return _emitted(memory)
    finally:
        provider.shutdown()


@cache
def collector_metrics() -> list[Metric]:
    """Those that `costspan collector` has besides, by having it pass on a request that nobody takes."""
    memory, exporter = InMemoryMetricReader(), PrometheusMetricReader()
    provider = MeterProvider([memory, exporter], resource=Resource.get_empty(), shutdown_on_exit=False)
    here, nowhere = free_ports(2)
    onward = Destination.of("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nowhere}"})
    assert onward is not None

    async def asked() -> list[Metric]:
        config = Config(None, Address("127.0.0.1", here), None)
        processing = Processing(NoOpTracerProvider(), provider, settings=Settings(genai_metrics="off"))
        collector = Collector(config, {"traces": onward}, processing, lambda _accept: (b"", ""))
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(collector.run(stop, ready.set))
        await ready.wait()
        headers = {"Content-Type": "application/x-protobuf"}
        async with aiohttp.ClientSession(headers=headers) as client:
            await client.post(f"http://127.0.0.1:{here}/v1/traces", data=b"")
        found = _emitted(memory)
        stop.set()
        await running
        return [metric for metric in found if metric.name.startswith("costspan.collector.")]

    try:
        return asyncio.run(asked())
    finally:
        provider.shutdown()


def _emitted(memory: InMemoryMetricReader) -> list[Metric]:
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


def _names(names: Iterable[str]) -> str:
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
        [(f"`{name}`", f"`{default}`" if default else "", meaning) for name, default, meaning in variables()],
    )


class Option(NamedTuple):
    """An option of `costspan collector`."""

    name: str
    variable: str
    default: str
    meaning: str


@cache
def collector_options() -> list[Option]:
    """In the order of its help."""
    command: Any = typer.main.get_command(app)
    return [
        Option(option.opts[0], option.envvar, "" if option.default is None else f"{option.default}", option.help)
        for option in command.commands["collector"].params
        if option.envvar
    ]


def serve_options() -> list[Option]:
    """The options of `costspan serve` that are variables too."""
    command: Any = typer.main.get_command(app)
    return [
        Option(option.opts[0], option.envvar, "", option.help)
        for option in command.commands["serve"].params
        if option.envvar
    ]


_TIME: Final = ("period", "day", "from", "to")
_CALLS: Final = (
    "provider", "model", "operation", "service", "tier", "team", "feature", "task", "persona", "agent", "user",
    "session", "conversation", "status", "tag",
)  # fmt: skip
"""Parameters that many paths share, under the words that the page explains."""


@cache
def api_document() -> dict[str, Any]:
    """What the HTTP API says of itself."""
    from sqlalchemy import create_engine

    from costspan.insight.serve import app as api
    from costspan.insight.serve.keys import Keys, key_of
    from costspan.settings import Settings as Environment

    served = api(create_engine("sqlite://"), keys=Keys((key_of("docs", "read", "x" * 32),)), settings=Environment())
    document: dict[str, Any] = served.openapi()
    served.close()
    return document


def _api_paths() -> str:
    rows = []
    for path, methods in api_document()["paths"].items():
        for method, operation in methods.items():
            names = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            for word, group in (("*calls*", _CALLS), ("*time*", _TIME)):
                if set(group) <= set(names):
                    names = [word, *(name for name in names if name not in group)]
            shown = [name if name.startswith("*") else f"`{name}`" for name in names]
            rows.append((f"`{method.upper()} {path}`", operation["description"].split("\n")[0], ", ".join(shown)))
    return _table(("path", "answers", "parameters"), rows)


def _api_filters() -> str:
    (one,) = api_document()["paths"]["/api/v1/cost/breakdown"].values()
    said = {parameter["name"]: parameter.get("description", "") for parameter in one["parameters"]}
    rows = [(f"`{name}`", said[name]) for name in _TIME]
    rows.append(
        (", ".join(f"`{name}`" for name in _CALLS if not said[name]), "The calls that say so; empty: that do not.")
    )
    return _table(("parameter", "meaning"), [*rows, *((f"`{name}`", said[name]) for name in _CALLS if said[name])])


def _collector_options() -> str:
    return _table(
        ("option", "variable", "default", "meaning"),
        [
            (f"`{one.name}`", f"`{one.variable}`", f"`{one.default}`" if one.default else "", one.meaning)
            for one in collector_options()
        ],
    )


def _metrics_table(found: Iterable[Metric]) -> str:
    return _table(
        ("metric", "kind", "unit", "meaning", "attributes", "in Prometheus"),
        [(f"`{m.name}`", m.kind, f"`{m.unit}`", m.meaning, _labels(m.labels), f"`{m.prometheus}`") for m in found],
    )


def _metrics_of(generation: str, start: str, *, but: str = "-") -> str:
    """The table of those whose names start with one text, but not with another."""
    found = (m for m in metrics(generation) if m.name.startswith(start) and not m.name.startswith(but))
    return _metrics_table(found)


def _meters() -> str:
    rows = [(f"`costspan.usage.{m.id}`", m.unit, f"{m.per:,}") for m in METERS.values() if m.component == "other"]
    return _table(("attribute", "counts", "priced per"), rows)


def _providers() -> str:
    return _table(
        ("instrumentor", "SDK", "operations"),
        [
            (
                f"`{name}`",
                f"`{p.requires}`",
                ", ".join(dict.fromkeys(op for call in calls(p) for op in call.operations)),
            )
            for name, p in PROVIDERS.items()
        ],
    )


# ------------------------------------------------------------------ providers


class Call:
    """One way to call a provider, from all the endpoints that a table has for it: of several versions and clients."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.operations: list[str] = []
        self.modes = dict.fromkeys(MODES, False)
        self.usage: set[str] = set()
        self.notes: list[str] = []

    def add(self, patched: Endpoint, *read: Endpoint) -> None:
        """What is `patched`, and the endpoints that its calls are `read` as."""
        owner = patched.method.rpartition(".")[0]
        asynchronous = owner.startswith(("Async", "Aio"))
        resource = ".resources." in patched.module
        self.modes["sync"] |= not asynchronous
        # The engine patches the class whose name has `Async` before it, where there is one.
        self.modes["async"] |= asynchronous or bool(owner) or bool(patched.async_method)
        self.modes["stream"] |= any(endpoint.chunk is not None for endpoint in read)
        self.modes["raw"] |= "Raw" in owner or (resource and patched.event is None)
        for endpoint in read:
            self.operations += [op for op in (endpoint.operation,) if op not in self.operations]
            self.usage |= set(usage_of(endpoint))
            self.notes += [note for note in _notes(endpoint) if note not in self.notes]


MODES: Final = ("sync", "async", "stream", "raw")


def _notes(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.ask is not None:
        yield "streams are asked for their usage"
    if endpoint.deferred:
        yield "sent when the stream is entered"
    if endpoint.billed is not None:
        yield "read from the request where the answer does not say"
    if endpoint.event is not None and endpoint.fetch:
        yield "counts when the job has ended"
    elif endpoint.event is not None:
        yield "counts what a session brings; cannot be refused"
    if endpoint.fetch:
        yield "counts once, if nobody has counted it before"


def calls(provider: Provider) -> list[Call]:
    """The calls of a provider, in the order of its table."""
    found: dict[tuple[str, str], Call] = {}
    for endpoint in provider.endpoints:
        name = called(endpoint)
        chosen: dict[str, list[Endpoint]] = {}
        for key, one in reached(endpoint.choose, Endpoint, keyed=True):
            chosen.setdefault(key, []).append(one)
        if any(key.isidentifier() for key in chosen):
            # One method for everything: what it calls are the names in its table.
            for key, read in chosen.items():
                found.setdefault((key, read[0].operation), Call(key)).add(endpoint, *read)
            continue
        call = found.setdefault((name, endpoint.operation), Call(name))
        call.add(endpoint, *(one for read in chosen.values() for one in read) if chosen else (endpoint,))
        if paths := [key for key in chosen if key]:
            note = f"of {_names(paths)}"
            call.notes += [note] if note not in call.notes else []
    return list(found.values())


def usage_of(endpoint: Endpoint) -> list[str]:
    """The attributes of usage that the readers of an endpoint may set: those whose names they use."""
    readers = (endpoint.response, endpoint.chunk, endpoint.billed)
    return [name for _, name in reached(readers, str) if name.startswith(("gen_ai.usage.", "costspan.usage."))]


def reached(thing: Any, wanted: type, *, keyed: bool = False) -> Iterator[tuple[str, Any]]:
    """Everything of a type that code can come to from `thing`: through functions, closures, tables.

    With each comes the key under which it stands in a table, if that is text and `keyed`.
    """
    seen: set[int] = set()

    def walk(thing: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(thing, wanted):
            yield key, thing
            return
        if id(thing) in seen or isinstance(thing, str):
            return
        seen.add(id(thing))
        if isinstance(thing, FunctionType):
            if thing.__module__.startswith("costspan_instrumentation"):
                yield from of_function(thing, key)
        elif isinstance(thing, partial):
            yield from walk((thing.func, thing.args, thing.keywords), key)
        elif isinstance(thing, dict):
            for name, value in thing.items():
                yield from walk(name, key)
                yield from walk(value, name if keyed and isinstance(name, str) else key)
        elif isinstance(thing, (tuple, list, set, frozenset)):
            for item in thing:
                yield from walk(item, key)

    def of_function(function: FunctionType, key: str) -> Iterator[tuple[str, Any]]:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        yield from walk((*cells, *(function.__defaults__ or ())), key)
        names = list(_names_in(function.__code__))
        modules = [
            thing
            for name in names
            if isinstance(thing := function.__globals__.get(name), ModuleType)
            and thing.__name__.startswith("costspan_instrumentation")
        ]
        for name in names:
            yield from walk(function.__globals__.get(name), key)
            for module in modules:
                yield from walk(vars(module).get(name), key)

    return walk(thing, "")


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


_GENERAL: Final = {
    "gen_ai.usage.input_tokens": "input",
    "gen_ai.usage.output_tokens": "output",
    semconv.USAGE_REPORTED_COST: "its own cost",
    semconv.USAGE_ITERATIONS: "parts with models of their own",
    semconv.USAGE_BY_MODEL: "parts with models of their own",
    semconv.USAGE_ESTIMATED: "",
}
_ORDER: Final = [value for value in vars(semconv).values() if isinstance(value, str)]


def _usage_words(usage: Iterable[str]) -> str:
    """What is read, in words: parts of a total under one word each, and cache writes with their lifetimes."""
    words: list[str] = []
    lifetimes = []
    for name in sorted(usage, key=_ORDER.index):
        short = re.sub(r"^(?:gen_ai|costspan)\.usage\.|[._](?:input_|output_)?tokens$", "", name)
        kind = re.search(r"audio(?!_seconds)|image(?!s)|video(?!_seconds)", short)
        if lifetime := re.fullmatch(r"cache_write_(\w+)", short):
            lifetimes.append(lifetime[1])
            continue
        words.append(_GENERAL.get(name, kind[0] if kind else re.sub(r"[._]", " ", short)))
    text = ", ".join(filter(None, dict.fromkeys(words)))
    return text.replace("cache write", f"cache write ({', '.join(lifetimes)})") if lifetimes else text


def _calls() -> str:
    parts = []
    for name, provider in PROVIDERS.items():
        formats = f" Usage formats: {_names(sorted(provider.usage_formats))}." if provider.usage_formats else ""
        rows = [
            (
                f"`{call.name}`",
                ", ".join(call.operations),
                *("yes" if call.modes[mode] else "" for mode in MODES),
                _usage_words(call.usage),
                "; ".join(call.notes),
            )
            for call in calls(provider)
        ]
        parts.append(
            f"### {name.removeprefix('costspan-')}\n\n"
            f"`{provider.requires}`, instrumentor `{name}`, provider `{provider.name}`.{formats}\n\n"
            + _table(("call", "operation", *MODES, "usage that its readers know", ""), rows)
        )
    return "\n".join(parts)


def _hosts() -> str:
    found: dict[str, list[str]] = {}
    for host, name in hosts.EXACT.items():
        found.setdefault(name, []).append(host)
    for suffix, name in hosts.SUFFIXES:
        found.setdefault(name, []).append(f"*{suffix}")
    return _table(("provider", "hosts"), [(f"`{name}`", _names(found[name])) for name in sorted(found)])


def _usage_formats() -> str:
    formats = sorted(name for provider in PROVIDERS.values() for name in provider.usage_formats)
    return _names(["otel.genai", *formats]) + "\n"


def _decisions() -> str:
    rows = []
    for file in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"* [{title}]({file.name})\n")
    return "".join(rows)


def _dialects() -> str:
    def whose(providers: Iterable[str]) -> str:
        return ", ".join("all" if name == "*" else name for name in sorted(providers))

    rows = []
    for dialect in DIALECTS:
        notes = []
        if dialect.outside:
            notes.append(f"cached tokens beside the input: {whose(dialect.outside)}")
        if dialect.thoughts:
            notes.append(f"reasoning beside the output: {whose(dialect.thoughts)}")
        if dialect.guess:
            notes.append("the counts decide")
        by_loss: dict[tuple[str, ...], list[str]] = {}
        for provider, texts in dialect.lost.items():
            by_loss.setdefault(texts, []).append(provider)
        lost = [f"{', '.join(texts)} ({whose(providers)})" for texts, providers in by_loss.items()]
        known = [_names(dialect.scopes)] if dialect.scopes else []
        known += [f"services {_names(dialect.services)}"] if dialect.services else []
        known += [f"spans with {_names(dialect.signs)}"] if dialect.signs else []
        rows.append((dialect.name, "; ".join(known), "; ".join(notes), "; ".join(lost)))
    return _table(("library", "known by", "counts", "leaves out"), rows)


def _spellings() -> str:
    return _table(("name", "also"), [(f"`{name}`", _names(others)) for name, others in SPELLINGS.items()])


PARTS: Final[dict[str, Callable[[], str]]] = {
    "variables": _variables,
    "collector-options": _collector_options,
    "api-paths": _api_paths,
    "api-filters": _api_filters,
    "metrics": lambda: _metrics_of("off", "", but="costspan.budget."),
    "budget-metrics": lambda: _metrics_of("off", "costspan.budget."),
    "collector-metrics": lambda: _metrics_table(collector_metrics()),
    "genai-metrics": lambda: _metrics_of("current", "gen_ai."),
    "genai-metrics-next": lambda: _metrics_of("next", "gen_ai."),
    "meters": _meters,
    "providers": _providers,
    "calls": _calls,
    "hosts": _hosts,
    "usage-formats": _usage_formats,
    "decisions": _decisions,
    "dialects": _dialects,
    "spellings": _spellings,
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
