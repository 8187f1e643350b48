"""What happens inside a program that `costspan doctor` runs.

Nothing is started or changed here: the program does what it does, and a file says afterwards who patched what, who set
which provider when, and which spans were priced. A process writes its file when costspan starts in it, while calls are
counted, and when it ends.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import wrapt
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

import costspan
from costspan import startup
from costspan.doctor.others import is_genai
from costspan.doctor.sdks import coverage, package, patched
from costspan_processor.conventions import ROLLUP
from costspan_processor.enrich import TOTAL
from costspan_processor.observer import CostObserver
from costspan_processor.span_processor import CostSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_SPANS: Final = 50_000
_PAUSE: Final = 0.2
"""Seconds between two writes while calls come in."""

_RESPONSE_ID: Final = "gen_ai.response.id"
_NOT_THE_PROGRAM: Final = ("costspan", "opentelemetry", "wrapt", "importlib", "sitecustomize")


def watch(directory: str) -> None:
    """Note what happens in this process, for the doctor that has started it."""
    witness = _Witness(Path(directory))
    witness.listen()
    # Registered before the program's own: these handlers run in reverse, so ours sees what all others did.
    atexit.register(witness.write)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=witness.forked)


class _Witness:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._starting = False
        self._start: dict[str, Any] | None = None
        self._before_shutdown: dict[str, Any] | None = None
        self._set: list[dict[str, Any]] = []
        self._instrumentors: dict[str, None] = {}
        self._tracers: dict[str, tuple[weakref.ref[Any], bool]] = {}
        self._goes_to: dict[int, list[str]] = {}
        self._begin()

    def _begin(self) -> None:
        self._file = self._directory / f"{os.getpid()}-{uuid.uuid4().hex}.json"
        self._written = 0.0
        self._calls = {"own": 0, "others": 0}
        self._in_vain = 0
        self._errors: dict[str, str] = {}
        self._parents: dict[int, int | None] = {}
        self._priced: dict[int, tuple[str, str | None]] = {}
        self._scopes: dict[str, dict[str, int]] = {}

    def forked(self) -> None:
        """In a forked child: the parent's calls and spans are the parent's."""
        self._begin()

    # -------------------------------------------------------------- listening

    def listen(self) -> None:
        """Hear of what the program does with OpenTelemetry and with costspan."""
        wrapt.wrap_function_wrapper(os, "execl", _stay_first)
        wrapt.wrap_function_wrapper(startup, "start", self._around_start)
        wrapt.wrap_function_wrapper(startup, "shutdown", self._around_shutdown)
        wrapt.wrap_function_wrapper(startup, "record", _and_then(self._recorded))
        costspan.shutdown, costspan.record = startup.shutdown, startup.record
        for owner, name, note in (
            (trace, "set_tracer_provider", self._tracer_provider_set),
            (metrics, "set_meter_provider", self._meter_provider_set),
            (TracerProvider, "get_tracer", self._tracer_made),
            (TracerProvider, "add_span_processor", self._processor_added),
            (MeterProvider, "__init__", self._meter_provider_made),
            (BaseInstrumentor, "instrument", self._instrumented),
            (CostSpanProcessor, "on_start", self._span_started),
            (CostSpanProcessor, "_on_ending", self._span_ended),
            (CostObserver, "count", self._counted),
            (CostObserver, "failed", self._failed),
        ):
            wrapt.wrap_function_wrapper(owner, name, _and_then(note))

    def _around_start(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = startup._processing is None
        self._starting = True
        try:
            result = wrapped(*args, **kwargs)
        finally:
            self._starting = False
        if first and startup._processing is not None:
            budgets = startup._processing.guard.budgets
            self._start = {
                "where": f"at {line}"
                if (line := _where())
                else "by costspan run"
                if "COSTSPAN_RUN" in os.environ
                else "before the program's first line",
                "budgets": [
                    {
                        "name": b.name,
                        "limit": str(b.limit),
                        "period": b.period,
                        "policy": b.policy,
                        "scope": dict(b.scope),
                    }
                    for b in budgets
                ],
            }
            self.write()
        return result

    def _around_shutdown(self, wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with suppress(Exception):
            self._before_shutdown = self._seen()
        return wrapped(*args, **kwargs)

    def _tracer_provider_set(self, _: Any, _result: Any, values: tuple[Any, ...], _named: Any) -> None:
        self._provider_set("traces", values[0], trace.get_tracer_provider() is values[0])

    def _meter_provider_set(self, _: Any, _result: Any, values: tuple[Any, ...], _named: Any) -> None:
        self._provider_set("metrics", values[0], metrics.get_meter_provider() is values[0])

    def _provider_set(self, signal: str, provider: Any, accepted: bool) -> None:
        if not self._starting:
            late = startup._processing is not None
            self._set.append(
                {"signal": signal, "provider": _name(provider), "accepted": accepted, "late": late, "where": _where()}
            )

    def _tracer_made(self, _: Any, tracer: Any, values: tuple[Any, ...], _named: Any) -> None:
        scope = str(values[0])
        if is_genai(scope) and not scope.startswith("costspan"):
            self._tracers.setdefault(scope, (weakref.ref(tracer), startup._processing is None))

    def _processor_added(self, provider: Any, _: Any, values: tuple[Any, ...], _named: Any) -> None:
        if not isinstance(values[0], CostSpanProcessor):
            sends = getattr(values[0], "span_exporter", values[0])
            self._goes_to.setdefault(id(provider), []).append(type(sends).__name__)

    def _meter_provider_made(self, provider: Any, _: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        readers = named.get("metric_readers", values[0] if values and not named else ())
        self._goes_to[id(provider)] = [type(reader).__name__ for reader in readers]

    def _instrumented(self, instrumentor: Any, _: Any, _values: Any, _named: Any) -> None:
        name = _name(instrumentor)
        if instrumentor.is_instrumented_by_opentelemetry and not name.startswith("costspan."):
            self._instrumentors.setdefault(name)

    def _span_started(self, _: Any, _result: Any, values: tuple[Any, ...], _named: Any) -> None:
        span = values[0]
        if len(self._parents) < _MOST_SPANS:
            self._parents[span.context.span_id] = None if span.parent is None else span.parent.span_id

    def _span_ended(self, _: Any, _result: Any, values: tuple[Any, ...], _named: Any) -> None:
        span = values[0]
        attributes = span.attributes or {}
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        if "gen_ai.operation.name" not in attributes and not is_genai(scope) and scope != startup.SCOPE:
            return
        seen = self._scopes.setdefault(scope, {"spans": 0, "priced": 0, "rollups": 0})
        seen["spans"] += 1
        rollup = bool(attributes.get(ROLLUP))
        seen["rollups"] += rollup
        if attributes.get(TOTAL) and not rollup:
            seen["priced"] += 1
            if len(self._priced) < _MOST_SPANS:
                response = attributes.get(_RESPONSE_ID)
                self._priced[span.context.span_id] = (scope, str(response) if response else None)

    def _counted(self, _: Any, _result: Any, _values: Any, named: dict[str, Any]) -> None:
        self._calls["own" if named["own"] else "others"] += 1
        if time.monotonic() - self._written > _PAUSE:
            self.write()

    def _recorded(self, _: Any, _result: Any, _values: Any, _named: Any) -> None:
        self._in_vain += startup._processing is None

    def _failed(self, _: Any, _result: Any, values: tuple[Any, ...], _named: Any) -> None:
        self._errors.setdefault(values[0], f"{type(values[1]).__name__}: {values[1]}")

    # -------------------------------------------------------------- telling

    def write(self) -> None:
        """Leave what is known by now. Never raises: the program must end as it would."""
        if "costspan.cli" in sys.modules:
            return  # the command line itself, on the way to the program
        with suppress(Exception):
            seen = self._seen()
            if startup._processing is None and self._before_shutdown is not None:
                seen = self._before_shutdown
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(seen, default=str), encoding="utf-8")
            new.replace(self._file)
            self._written = time.monotonic()

    def _seen(self) -> dict[str, Any]:
        from costspan.summaries import summarise, to_json

        processing = startup._processing
        started = None
        if processing is not None and self._start is not None:
            started = {
                **self._start,
                "spans": {
                    "provider": _name(processing.tracer_provider),
                    "exporters": self._goes_to.get(id(processing.tracer_provider), []),
                },
                "metrics": {
                    "provider": _name(processing.meter_provider),
                    "readers": self._goes_to.get(id(processing.meter_provider), []),
                },
                "book": processing.book.version,
            }
        return {
            "pid": os.getpid(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
            "python": sys.version.partition(" ")[0],
            "costspan": costspan.__version__,
            "started": started,
            "sdks": list(self._sdks()),
            "calls": self._calls,
            "recorded_in_vain": self._in_vain,
            "summary": json.loads(to_json(summarise(startup.rows()))) if processing is not None else None,
            "errors": {
                place: {"count": count, "first": self._errors.get(place)}
                for place, count in (processing.table.errors() if processing is not None else {}).items()
            },
            "instrumentors": list(self._instrumentors),
            "providers_set": self._set,
            "tracers": [
                {"scope": scope, "before_init": before, "sampler": tracer.sampler.get_description()}
                for scope, (reference, before) in self._tracers.items()
                if (tracer := reference()) is not None and hasattr(tracer, "sampler")
            ],
            "scopes": self._scopes,
            "twice": self._twice(),
        }

    def _sdks(self) -> Any:
        for name, provider in startup.PROVIDERS.items():
            if any(module in sys.modules for e in provider.endpoints for module in (e.module, *e.moved_from)):
                calls = coverage(provider)
                yield {
                    "instrumentor": name,
                    "package": package(provider),
                    "patched": len(patched(calls)),
                    "unpatched": [method for call in calls for method in call["unpatched"]],
                }

    def _twice(self) -> list[dict[str, Any]]:
        """Calls that more than one priced span stands for, by who made the spans."""
        found: dict[tuple[str, str], int] = {}
        first: dict[str, int] = {}
        for span, (scope, response) in self._priced.items():
            above = self._parents.get(span)
            seen = 0
            while above is not None and above not in self._priced and seen < 1000:
                above, seen = self._parents.get(above), seen + 1
            other = None if above is None else self._priced.get(above)
            if other is None and response is not None:
                earlier = first.setdefault(response, span)
                if earlier != span and self._priced[earlier][0] != scope:
                    other = self._priced[earlier]
            if other is not None:
                pair = (other[0], scope)
                found[pair] = found.get(pair, 0) + 1
        return [{"scopes": list(pair), "calls": calls} for pair, calls in found.items()]


def _stay_first(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`opentelemetry-instrument` puts its `sitecustomize` before ours and becomes the program. Ours goes first."""
    here = str(Path(costspan.__file__).parent / "_run")
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in path:
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *(entry for entry in path if entry != here)])
    return wrapped(*args, **kwargs)


def _and_then(note: Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], None]) -> Callable[..., Any]:
    """A wrapper that calls `note(instance, result, values, named)` when the function has returned.

    `values` are all arguments in order, `named` those that were given by name. What `note` raises is lost.
    """

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = wrapped(*args, **kwargs)
        with suppress(Exception):
            note(instance, result, (*args, *kwargs.values()), kwargs)
        return result

    return wrapper


def _name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _where() -> str | None:
    """The line of the program that has called us, through whatever of ours and of OpenTelemetry."""
    frame = sys._getframe(1)
    while frame is not None:
        if not str(frame.f_globals.get("__name__")).startswith(
            _NOT_THE_PROGRAM
        ) and not frame.f_code.co_filename.startswith("<frozen"):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None
