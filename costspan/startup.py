"""Where instrumentation meets the processor: the only file that knows both, and the state of the process."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import get_logger_provider

from costspan._version import __version__
from costspan.settings import Settings, load
from costspan_instrumentation import content, semconv
from costspan_instrumentation.engine import engine
from costspan_instrumentation.providers.ai21 import AI21
from costspan_instrumentation.providers.anthropic import ANTHROPIC
from costspan_instrumentation.providers.azure_ai import AZURE_AI
from costspan_instrumentation.providers.bedrock import BEDROCK
from costspan_instrumentation.providers.cohere import COHERE
from costspan_instrumentation.providers.deepgram import DEEPGRAM
from costspan_instrumentation.providers.google import GOOGLE
from costspan_instrumentation.providers.groq import GROQ
from costspan_instrumentation.providers.huggingface import HUGGINGFACE
from costspan_instrumentation.providers.litellm import LITELLM
from costspan_instrumentation.providers.mistral import MISTRAL
from costspan_instrumentation.providers.ollama import OLLAMA
from costspan_instrumentation.providers.openai import OPENAI
from costspan_instrumentation.providers.openrouter import OPENROUTER
from costspan_instrumentation.providers.portkey import PORTKEY
from costspan_instrumentation.providers.replicate import REPLICATE
from costspan_instrumentation.providers.together import TOGETHER
from costspan_instrumentation.providers.voyage import VOYAGE
from costspan_instrumentation.providers.watsonx import WATSONX
from costspan_instrumentation.providers.writer import WRITER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from costspan_instrumentation.provider import Provider
    from costspan_pricing import Cost
    from costspan_processor import Budget, Processing
    from costspan_processor.budgets import Event
    from costspan_processor.budgets.routing import Routing
    from costspan_processor.ledger.writer import LedgerWriter
    from costspan_processor.metrics import Totals as Row

PROVIDERS: Final = {
    "costspan-openai": OPENAI,
    "costspan-anthropic": ANTHROPIC,
    "costspan-google-genai": GOOGLE,
    "costspan-bedrock": BEDROCK,
    "costspan-mistral": MISTRAL,
    "costspan-cohere": COHERE,
    "costspan-voyage": VOYAGE,
    "costspan-groq": GROQ,
    "costspan-together": TOGETHER,
    "costspan-ollama": OLLAMA,
    "costspan-huggingface": HUGGINGFACE,
    "costspan-watsonx": WATSONX,
    "costspan-replicate": REPLICATE,
    "costspan-deepgram": DEEPGRAM,
    "costspan-writer": WRITER,
    "costspan-ai21": AI21,
    "costspan-azure-ai": AZURE_AI,
    "costspan-portkey": PORTKEY,
    "costspan-openrouter": OPENROUTER,
    "costspan-litellm": LITELLM,
}
"""Name of the instrumentor -> what it patches."""

SCOPE: Final = "costspan"

_log = logging.getLogger("costspan")
_lock = threading.RLock()
_processing: Processing | None = None
_starting = False
_reset: tuple[object, dict[Any, Row]] = (None, {})
"""The table and the rows of it that `summary()` leaves out since `reset()`."""


def init(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    budgets: Sequence[Budget] = (),
    routing: Routing | None = None,
    on_budget_event: Callable[[Event], None] | None = None,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    enabled: bool | None = None,
    stream_usage: bool | None = None,
    genai_metrics: str | None = None,
    cost_attributes: bool | None = None,
    dimensions: Sequence[str] | None = None,
    max_label_values: int | None = None,
    price_file: str | os.PathLike[str] | None = None,
    model_names: Mapping[str, str] | None = None,
    baggage_sent: Sequence[str] | None = None,
    baggage_trusted: Sequence[str] | None = None,
    user_key: str | None = None,
    prompt_key: str | None = None,
    config_file: str | os.PathLike[str] | None = None,
    budget_store: str | None = None,
    ledger: str | os.PathLike[str] | None = None,
    ledger_days: int | None = None,
    notify: Sequence[str] | None = None,
) -> None:
    """Price every LLM call of this process from now on. One line at start-up; a second call changes nothing.

    tracer_provider, meter_provider: where spans and metrics go; by default the global ones, and where there are none,
        new ones made from the standard `OTEL_*` variables.
    budgets: limits that calls are held to, over those of the same names in the environment and the configuration file.
    routing: which cheaper models there are, in place of the file's.
    on_budget_event: called with each event of a budget (a threshold reached, calls refused, ...), on a thread of ours.
    prices: own prices, `{"openai/my-model": {"input": "2.50", "output": "10"}}` in USD per million tokens.
    model_names: what own names mean, `{"azure/prod-chat": "gpt-4.1"}`.
    The others are those of `costspan.Settings`; what is not given is taken from the environment.

    SDKs that are imported later are patched when they are. Never raises but for arguments that make no sense.
    """
    settings = load(
        {
            "enabled": enabled,
            "stream_usage": stream_usage,
            "genai_metrics": genai_metrics,
            "cost_attributes": cost_attributes,
            "dimensions": None if dimensions is None else tuple(dimensions),
            "max_label_values": max_label_values,
            "price_file": None if price_file is None else os.fspath(price_file),
            "model_names": None if model_names is None else tuple(f"{a}={b}" for a, b in model_names.items()),
            "baggage_sent": None if baggage_sent is None else tuple(baggage_sent),
            "baggage_trusted": None if baggage_trusted is None else tuple(baggage_trusted),
            "user_key": user_key,
            "prompt_key": prompt_key,
            "config_file": None if config_file is None else os.fspath(config_file),
            "budget_store": budget_store,
            "ledger": None if ledger is None else os.fspath(ledger),
            "ledger_days": ledger_days,
            "notify": None if notify is None else tuple(notify),
        }
    )
    with _lock:
        if not settings.enabled or _processing is not None:
            return
        start(settings, tracer_provider, meter_provider, budgets, prices, routing, on_budget_event)
        disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
        for name, provider in PROVIDERS.items():
            if name not in disabled and "*" not in disabled:
                engine.instrument(provider)


def start(
    settings: Settings,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    budgets: Sequence[Budget] = (),
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    routing: Routing | None = None,
    on_budget_event: Callable[[Event], None] | None = None,
) -> None:
    """Joins the engine to the processor and both to the providers; patches nothing. Once; `shutdown()` undoes it."""
    global _processing, _starting  # noqa: PLW0603  # the state of the process
    from costspan import telemetry
    from costspan.book import price_book
    from costspan.budgets.wiring import guard
    from costspan_processor import Processing
    from costspan_processor import Settings as ProcessorSettings
    from costspan_processor.attribution import exchange

    with _lock:
        # A configuration file that names our instrumentors comes back here while its providers are being made.
        if _processing is not None or _starting:
            return
        _starting = True
        try:
            book = price_book(settings, prices)
            traces, metrics = telemetry.providers(tracer_provider, meter_provider)
            ledger = _ledger(settings, traces)
            tell = on_budget_event
            if ledger is not None:
                tell = partial(_told, ledger.note, on_budget_event)
            processing = Processing(
                traces,
                metrics,
                book=book,
                guard=partial(guard, settings, book, budgets=budgets, routing=routing, tell=tell),
                ledger=ledger,
                settings=ProcessorSettings(
                    genai_metrics=settings.genai_metrics,
                    cost_proposal=settings.cost_attributes,
                    dimensions=settings.dimensions,
                    max_values=settings.max_label_values,
                ),
                version=__version__,
                before_collection=engine.drain,
                counted=engine.has_counted,
            )
            processing.start()
            exchange(settings.baggage_sent, settings.baggage_trusted, settings.user_key)
            tracer = traces.get_tracer(SCOPE, __version__)
            if _has_events():
                telemetry.events()
            engine.start(
                tracer, processing.observer, ask_for_usage=settings.stream_usage, prompt_key=settings.prompt_key
            )
            _processing = processing
        finally:
            _starting = False


def _ledger(settings: Settings, traces: TracerProvider) -> LedgerWriter | None:
    """The way into the ledger, if there is to be one. What is wrong with it is logged: calls go on without."""
    if not settings.ledger:
        return None
    from costspan.book import folder
    from costspan_processor.compat import resource_of

    try:
        from costspan_processor.ledger.writer import begin
    except ImportError as error:
        _log.error("costspan: no ledger is kept, it needs `pip install 'costspan[ledger]'`: %s", error)
        return None
    return begin(
        settings.ledger,
        service=resource_of(traces).get("service.name"),
        data=folder(settings).parent / "ledger",
        days=settings.ledger_days,
        own_ids=hasattr(traces, "add_span_processor"),
        before_end=engine.drain,
    )


def _told(note: Callable[[Event], None], tell: Callable[[Event], None] | None, event: Event) -> None:
    note(event)
    if tell is not None:
        tell(event)


def instrument(provider: Provider) -> None:
    """Patches one provider, starting everything else first if nobody has."""
    settings = load({})
    if settings.enabled:
        start(settings)
        engine.instrument(provider)


def uninstrument(provider: Provider) -> None:
    """Gives one provider's methods back to its SDK."""
    engine.uninstrument(provider)


def pre_instrument() -> None:
    """What `opentelemetry-instrument` runs before it loads instrumentors."""
    init()


def shutdown() -> None:
    """Undo `init()`: every patched method is the SDK's own again. What was counted is exported first."""
    global _processing  # noqa: PLW0603
    from costspan_processor.attribution import exchange

    with _lock:
        if _processing is None:
            return
        for provider in PROVIDERS.values():
            engine.uninstrument(provider)
        flush()
        _processing.shutdown()
        exchange()
        _processing = None


def flush(timeout: float = 10.0) -> bool:
    """Export all spans, metrics and events that are waiting, before the process ends. False if `timeout` s passed."""
    processing = _processing
    if processing is None:
        return True
    engine.drain()
    done = processing.guard.flush(timeout)
    if processing.ledger is not None:
        done = processing.ledger.flush(timeout) and done
    events = (get_logger_provider(),) if _has_events() else ()
    for provider in (processing.tracer_provider, processing.meter_provider, *events):
        force = getattr(provider, "force_flush", None)
        if callable(force):
            try:
                done = bool(force(int(timeout * 1000))) and done
            except Exception as error:  # noqa: BLE001  # some readers have nothing to flush and raise
                processing.observer.failed("flush", error)
                done = False
    return done


def _has_events() -> bool:
    mode = content.mode()
    return mode is not None and mode.events


def record(
    provider: str,
    model: str,
    usage: Any,
    usage_format: str = "otel.genai",
    *,
    operation: str = "chat",
    latency: float | None = None,
    **attribution: object,
) -> Cost | None:
    """Count a call that no patch saw: it is priced, metered and charged to budgets, and gets a span, like any other.

    provider, model: as a span names them (`openai`, `gpt-4.1`). usage: the provider's own usage object, or a dict of
    its fields. usage_format: whose form it is in (`openai.chat`, `anthropic.messages`, `google.generate_content`, ...;
    `otel.genai` for span attributes). latency: seconds the call took. attribution: as `costspan.track()`.

    Returns the cost (`.usd`, `.status`, `.lines`); None before `init()`. Raises ValueError for an unknown format.
    """
    from opentelemetry.trace import SpanKind, set_span_in_context

    from costspan.tracking import track
    from costspan_processor import attribution as current
    from costspan_processor import price
    from costspan_processor.observer import Call

    attributes = {
        semconv.OPERATION: operation,
        semconv.PROVIDER: provider,
        semconv.REQUEST_MODEL: model,
        **read_usage(usage, usage_format),
    }
    processing = _processing
    if processing is None:
        return None
    at = time.time_ns() - round((latency or 0.0) * 1e9)
    with track(**attribution):
        span = processing.tracer_provider.get_tracer(SCOPE, __version__).start_span(
            f"{operation} {model}", kind=SpanKind.CLIENT, attributes=attributes, start_time=at
        )
        added = processing.observer.after(Call(current()), attributes, at, latency, None, set_span_in_context(span))
        span.set_attributes(added)
        span.end()
        return price(attributes, at, processing.book, latency)


def read_usage(usage: Any, usage_format: str) -> dict[str, Any]:
    """Span attributes of a provider's raw usage object, by the readers that the instrumentation uses.

    Raises ValueError for a format that no provider has.
    """
    if usage_format == "otel.genai":
        return dict(usage)
    for provider in PROVIDERS.values():
        if usage_format in provider.usage_formats:
            return provider.usage_formats[usage_format](usage)
    formats = sorted(name for provider in PROVIDERS.values() for name in provider.usage_formats)
    raise ValueError(f"usage_format {usage_format!r} is not known; known are otel.genai, {', '.join(formats)}")


def rows() -> list[Row]:
    """What has been counted since `init()` or `reset()`, a row per provider, models, operation and attribution."""
    processing = _processing
    if processing is None:
        return []
    engine.drain()
    table, known = _reset
    found = processing.table.rows()
    if table is not processing.table or not known:
        return found
    return [left for row in found if (left := _minus(row, known.get(_key(row)))).calls]


def reset() -> None:
    """Let `summary()` begin again at zero. Metrics go on: a counter never goes backwards."""
    global _reset  # noqa: PLW0603
    processing = _processing
    if processing is not None:
        engine.drain()
        _reset = (processing.table, {_key(row): row for row in processing.table.rows()})


def _key(row: Row) -> tuple[object, ...]:
    return (row.provider, row.request_model, row.response_model, row.operation, tuple(sorted(row.dimensions.items())))


def _minus(row: Row, before: Row | None) -> Row:
    if before is None:
        return row

    def counts(now: Mapping[str, int], then: Mapping[str, int]) -> dict[str, int]:
        return {key: left for key, value in now.items() if (left := value - then.get(key, 0))}

    return row._replace(
        calls=counts(row.calls, before.calls),
        cost=counts(row.cost, before.cost),
        tokens=counts(row.tokens, before.tokens),
        saved=row.saved - before.saved,
        write_premium=row.write_premium - before.write_premium,
        latency_ns=row.latency_ns - before.latency_ns,
        timed=row.timed - before.timed,
        failed=row.failed - before.failed,
    )


# Streams that were dropped unread are ended before the providers' own exit handlers export what there is.
atexit.register(engine.drain)
