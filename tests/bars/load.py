"""The loads of the bars: many calls of real SDK clients over real HTTP, in a process of its own.

`run("threads", threads=64, calls=200)` starts `python -m tests.bars.load` and returns what it found.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.bars.server import (
    ANTHROPIC_MODEL,
    EMBEDDING_MODEL,
    GEMINI_MODEL,
    OPENAI_MODELS,
    serving,
    used,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

ROOT: Final = Path(__file__).resolve().parents[2]
PICO: Final = 10**12

Found = dict[str, Any]


def run(load: str, *, environment: Mapping[str, str] | None = None, **sizes: int) -> Found:
    """What the load of this name (a function below) found, run in a fresh process against a fresh server."""
    path = [str(ROOT), *(str(ROOT / floor) for floor in ("pricing", "instrumentation", "processor"))]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))}
    clean["PYTHONPATH"] = os.pathsep.join([*path, clean.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with serving() as url:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bars.load", load, url, json.dumps(sizes)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**clean, **(environment or {})},
        )
    if done.returncode:
        raise RuntimeError(f"the load {load} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


class Asked(NamedTuple):
    """One call of a load, from which follows what it must have cost."""

    model: str
    limit: int
    """`max_tokens`, from which the server derives the usage."""
    streamed: bool
    refused: bool
    """Whether the server knows no such model."""

    @staticmethod
    def numbered(worker: int, call: int) -> Asked:
        """The call of a worker: models and usage vary, each eighth is streamed and each fiftieth fails."""
        limit = 1 + (worker * 31 + call * 7) % 997
        return Asked(OPENAI_MODELS[(worker + call) % len(OPENAI_MODELS)], limit, call % 8 == 3, call % 50 == 9)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `chat.completions.create` is given."""
        # A server that is not in the list of those that are asked by default: this application asks itself.
        stream = {"stream": True, "stream_options": {"include_usage": True}} if self.streamed else {}
        messages = [{"role": "user", "content": "Is it exact?"}]
        return {
            "model": "no-such-model" if self.refused else self.model,
            "max_tokens": self.limit,
            "messages": messages,
            **stream,
        }


def cost_of(asked: Asked) -> Any:
    """The price of one call alone: no table, no lock, no telemetry."""
    from costspan_pricing import PriceBook, Usage

    card = PriceBook.bundled().card("openai", asked.model, time_ns())
    assert card is not None
    tokens = used(asked.limit)
    return card.cost(Usage.from_inclusive(input=tokens.input, cache_read=tokens.cached, output=tokens.output))


# ------------------------------------------------------------------ the loads


def threads(url: str, threads: int, calls: int) -> Found:
    """Threads with a client of their own, all calling at once."""
    import openai

    import costspan

    reader, exporter = _watched_providers()

    def work(worker: int) -> list[str]:
        mine = [Asked.numbered(worker, call) for call in range(calls)]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        with client, costspan.track(feature=f"feature-{worker % 8}") as spent:
            for asked in mine:
                with suppress(openai.NotFoundError):
                    answer = client.chat.completions.create(**asked.arguments)
                    if asked.streamed:
                        list(answer)
        return _wrong_totals(f"track() of thread {worker}", spent, mine)

    with ThreadPoolExecutor(threads) as pool:
        wrong = [line for lines in pool.map(work, range(threads)) for line in lines]
    asked = [Asked.numbered(worker, call) for worker in range(threads) for call in range(calls)]
    return {"calls": len(asked), "wrong": [*wrong, *_wrong(asked, reader, exporter)]}


def tasks(url: str, tasks: int, calls: int) -> Found:
    """Tasks of one event loop on one client, all under way at once."""
    import openai

    import costspan

    reader, exporter = _watched_providers()

    async def work(client: openai.AsyncOpenAI, worker: int) -> list[str]:
        mine = [Asked.numbered(worker, call) for call in range(calls)]
        async with costspan.track(feature=f"feature-{worker % 8}") as spent:
            for asked in mine:
                with suppress(openai.NotFoundError):
                    answer = await client.chat.completions.create(**asked.arguments)
                    if asked.streamed:
                        async for _ in answer:
                            pass
        return _wrong_totals(f"track() of task {worker}", spent, mine)

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, timeout=300) as client:
            found = await asyncio.gather(*(work(client, worker) for worker in range(tasks)))
        return [line for lines in found for line in lines]

    wrong = asyncio.run(main())
    asked = [Asked.numbered(worker, call) for worker in range(tasks) for call in range(calls)]
    return {"calls": len(asked), "wrong": [*wrong, *_wrong(asked, reader, exporter)]}


def sampling(url: str, rounds: int) -> Found:
    """Each kind of call of the three providers in turn, and all counters after each of them.

    The sampler is what `OTEL_TRACES_SAMPLER` says: the providers are those that `init()` makes itself.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    import costspan

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    costspan.init(meter_provider=MeterProvider([reader]))
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    counted = []
    kinds = _kinds(url)
    for turn in range(rounds):
        for name, call in kinds.items():
            call(1 + turn * 17)
            counters = sorted((*key, value) for key, value in _counters(reader).items())
            counted.append({"call": name, "counters": counters})
    return {"counted": counted, "spans": len(exporter.get_finished_spans())}


def memory(url: str, warm: int, calls: int) -> Found:
    """Resident memory after `warm` calls and after `calls`, with spans and metrics exported to nowhere."""
    import openai
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    import costspan

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        traces = TracerProvider()
        traces.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=nowhere, formatter=lambda _: "")))
        exporter = ConsoleMetricExporter(out=nowhere)
        metrics = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=500)])
        costspan.init(tracer_provider=traces, meter_provider=metrics)
        points = []
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            for call in range(calls):
                asked = Asked.numbered(0, call)
                with suppress(openai.NotFoundError), costspan.track(feature=f"feature-{call % 8}"):
                    answer = client.chat.completions.create(**asked.arguments)
                    if asked.streamed:
                        list(answer)
                if call + 1 in {warm, calls}:
                    costspan.flush()
                    gc.collect()
                    points.append(_resident_bytes())
        costspan.shutdown()
        metrics.shutdown()
        traces.shutdown()
    return {"before": points[0], "after": points[-1]}


# ------------------------------------------------------------------ calls of every kind


def _kinds(url: str) -> dict[str, Callable[[int], object]]:
    import anthropic
    import openai
    from google import genai

    # Any: the SDKs' overloads cannot be told from arguments in a dict.
    chat: Any = {"model": OPENAI_MODELS[0], "messages": [{"role": "user", "content": "Is it exact?"}]}
    message: Any = {"model": ANTHROPIC_MODEL, "messages": chat["messages"]}
    openai_options: Any = {"base_url": f"{url}/v1", "api_key": "x", "max_retries": 0}
    anthropic_options: Any = {"base_url": url, "api_key": "x", "max_retries": 0}
    sync_openai, sync_anthropic = openai.OpenAI(**openai_options), anthropic.Anthropic(**anthropic_options)
    google = genai.Client(api_key="x", http_options={"base_url": url})

    def unknown(_limit: int) -> None:
        with suppress(openai.NotFoundError):
            sync_openai.chat.completions.create(**{**chat, "model": "no-such-model"})

    def abandoned(limit: int) -> None:
        stream = sync_openai.chat.completions.create(**chat, max_tokens=limit, stream=True)
        next(iter(stream))
        stream.close()

    async def achat(limit: int) -> None:
        async with openai.AsyncOpenAI(**openai_options) as client:
            await client.chat.completions.create(**chat, max_tokens=limit)

    async def astream(limit: int) -> None:
        async with openai.AsyncOpenAI(**openai_options) as client:
            async for _ in await client.chat.completions.create(**chat, max_tokens=limit, stream=True):
                pass

    async def amessage(limit: int) -> None:
        async with anthropic.AsyncAnthropic(**anthropic_options) as client:
            await client.messages.create(**message, max_tokens=limit)

    def waited(call: Callable[[int], Coroutine[Any, Any, None]]) -> Callable[[int], object]:
        return lambda limit: asyncio.run(call(limit))

    return {
        "chat": lambda n: sync_openai.chat.completions.create(**chat, max_tokens=n),
        "chat, raw": lambda n: sync_openai.chat.completions.with_raw_response.create(**chat, max_tokens=n).parse(),
        "chat, streamed": lambda n: list(sync_openai.chat.completions.create(**chat, max_tokens=n, stream=True)),
        "chat, async": waited(achat),
        "chat, async, streamed": waited(astream),
        "chat, streamed, usage asked for": lambda n: list(
            sync_openai.chat.completions.create(
                **chat, max_tokens=n, stream=True, stream_options={"include_usage": True}
            )
        ),
        "chat, stream closed early": abandoned,
        "chat, unknown model": unknown,
        "responses": lambda n: sync_openai.responses.create(model=OPENAI_MODELS[1], input="Hi", max_output_tokens=n),
        "embeddings": lambda n: sync_openai.embeddings.create(
            model=EMBEDDING_MODEL, input="x" * n, encoding_format="float"
        ),
        "messages": lambda n: sync_anthropic.messages.create(**message, max_tokens=n),
        "messages, streamed": lambda n: list(sync_anthropic.messages.create(**message, max_tokens=n, stream=True)),
        "messages, async": waited(amessage),
        "generate_content": lambda n: google.models.generate_content(
            model=GEMINI_MODEL, contents="Is it exact?", config={"max_output_tokens": n}
        ),
    }


# ------------------------------------------------------------------ what came out


def _watched_providers() -> tuple[InMemoryMetricReader, InMemorySpanExporter]:
    """Providers that lose nothing, so that every span can be added up; costspan is started on them."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    import costspan

    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    costspan.init(tracer_provider=traces, meter_provider=MeterProvider([reader]))
    return reader, exporter


_LABELS: Final = ("gen_ai.request.model", "costspan.component", "costspan.cost.status", "costspan.feature")


def _counters(reader: InMemoryMetricReader) -> dict[tuple[str, ...], int]:
    """Every series of `costspan.*` that grows with calls; USD as integer picodollars, which a float holds exactly."""
    found: dict[tuple[str, ...], int] = {}
    data = reader.get_metrics_data()
    for metric in [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else ():
        if metric.name in {"costspan.cost", "costspan.tokens", "costspan.calls", "costspan.cache.saved"}:
            for point in metric.data.data_points:
                labels = point.attributes or {}
                key = (metric.name, *(str(labels.get(label, "")) for label in _LABELS))
                found[key] = round(point.value * PICO) if metric.unit == "USD" else int(point.value)  # type: ignore[union-attr]
    return found


def _wrong_totals(where: str, spent: Any, calls: Iterable[Asked]) -> list[str]:
    answered = [asked for asked in calls if not asked.refused]
    pico = sum(cost_of(asked).total for asked in answered)
    tokens = sum(used(asked.limit).input + used(asked.limit).output for asked in answered)
    expected = (pico, tokens)
    got = (int(spent.cost.scaleb(12)), spent.tokens)
    return [] if got == expected else [f"{where}: {got}, expected {expected}"]


def _wrong(calls: list[Asked], reader: InMemoryMetricReader, exporter: InMemorySpanExporter) -> list[str]:
    """Where counters or spans differ from the sum of what each call alone must give."""
    counted: Counter[tuple[str, str]] = Counter()
    for (name, model, component, status, _feature), value in _counters(reader).items():
        counted[f"{name} {component or status}".rstrip(), model] += value
    on_spans: Counter[tuple[str, str]] = Counter()
    for span in exporter.get_finished_spans():
        told = span.attributes or {}
        model = str(told["gen_ai.request.model"])
        on_spans["spans", model] += 1
        on_spans["pico", model] += round(float(told.get("costspan.cost.total", 0.0)) * PICO)  # type: ignore[arg-type]
        on_spans["input", model] += int(told.get("gen_ai.usage.input_tokens", 0))  # type: ignore[arg-type]

    expected: Counter[tuple[str, str]] = Counter()
    from_spans: Counter[tuple[str, str]] = Counter()
    for asked in calls:
        if asked.refused:
            expected["costspan.calls no_usage", "no-such-model"] += 1
            from_spans["spans", "no-such-model"] += 1
            continue
        model, tokens, cost = asked.model, used(asked.limit), cost_of(asked)
        expected["costspan.calls priced", model] += 1
        expected["costspan.cache.saved", model] += cost.cache_savings
        expected["costspan.tokens input", model] += tokens.input - tokens.cached
        expected["costspan.tokens cache_read", model] += tokens.cached
        expected["costspan.tokens output", model] += tokens.output
        for component, pico in cost.components.items():
            expected[f"costspan.cost {component}", model] += pico
        from_spans["spans", model] += 1
        from_spans["pico", model] += cost.total
        from_spans["input", model] += tokens.input
    return [
        f"{what} of {where}: {got[key]}, expected {wanted[key]}"
        for where, got, wanted in (("counters", counted, expected), ("spans", on_spans, from_spans))
        for key in sorted(got.keys() | wanted.keys())
        if got[key] != wanted[key]
        for what in [" ".join(key)]
    ]


def _resident_bytes() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell the resident memory of a process")


LOADS: Final[Mapping[str, Callable[..., Found]]] = {
    "threads": threads,
    "tasks": tasks,
    "sampling": sampling,
    "memory": memory,
}

if __name__ == "__main__":
    print(json.dumps(LOADS[sys.argv[1]](sys.argv[2], **json.loads(sys.argv[3]))))
