"""The OpenTelemetry providers that calls are sent to: those the application has, else some made from `OTEL_*`."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

_log = logging.getLogger("costspan")


def providers(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> tuple[TracerProvider, MeterProvider]:
    """The given providers, else the global ones, else new ones that become global.

    New ones follow the standard variables. Without any variable that names an exporter or an OTLP endpoint nothing is
    exported: spans and counters still exist for `costspan.summary()` and for readers that are added later.
    """
    make_traces = tracer_provider is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    # The API's stand-in for metrics has no public name.
    make_metrics = meter_provider is None and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
    if make_traces and make_metrics and (path := os.environ.get("OTEL_CONFIG_FILE")):
        make_traces = make_metrics = not _configured_by_file(path)
    if make_traces:
        trace.set_tracer_provider(_tracer_provider())
    if make_metrics:
        metrics.set_meter_provider(_meter_provider())
    return tracer_provider or trace.get_tracer_provider(), meter_provider or metrics.get_meter_provider()


def events() -> None:
    """Makes a global provider of loggers where there is none, if the standard variables say where its events go."""
    # The API's stand-in has no public name. A file that configures the SDK says for itself what becomes of events.
    if type(_logs.get_logger_provider()).__name__ != "ProxyLoggerProvider" or os.environ.get("OTEL_CONFIG_FILE"):
        return
    if exporters := _exporters("LOGS"):
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

        provider = LoggerProvider()
        for exporter in exporters:
            provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        _logs.set_logger_provider(provider)


def _configured_by_file(path: str) -> bool:
    try:
        # An optional package of its own; the import tells whether it is there.
        configuration = import_module("opentelemetry.configuration")

        configuration.configure_sdk(configuration.load_config_file(path))
    except ImportError:
        _log.error("costspan: OTEL_CONFIG_FILE needs the package opentelemetry-configuration, which is not installed")
        return False
    except Exception:  # noqa: BLE001
        _log.exception("costspan: OTEL_CONFIG_FILE %s could not be used", path)
        return False
    return True


def _tracer_provider() -> TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = SDKTracerProvider()
    for exporter in _exporters("TRACES"):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _meter_provider() -> MeterProvider:
    from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    made = _exporters("METRICS")
    return SDKMeterProvider(
        metric_readers=[m if isinstance(m, MetricReader) else PeriodicExportingMetricReader(m) for m in made]
    )


def _exporters(signal: str) -> list[Any]:
    """Exporters (or metric readers) of a signal, as its standard variables name them."""
    variable = f"OTEL_{signal}_EXPORTER"
    names = os.environ.get(variable, "")
    if not names and any(os.environ.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT") for part in ("", f"{signal}_")):
        names = "otlp"
    made = []
    for name in filter(None, (part.strip().lower() for part in names.split(","))):
        if name == "none":
            continue
        try:
            made.append(_entry_point(name, signal).load()())
        except Exception as error:  # noqa: BLE001  # an exporter that cannot be had must not stop the application
            _log.error("costspan: %s=%s cannot be used: %s", variable, name, error)
    return made


def _entry_point(name: str, signal: str) -> Any:
    if name == "otlp":
        protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
        )
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    group = f"opentelemetry_{signal.lower()}_exporter"
    for found in entry_points(group=group, name=name):
        return found
    raise LookupError(f"no package that is installed provides it (entry point group {group})")
