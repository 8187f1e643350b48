"""OpenTelemetry: the versions, what this SDK lets anybody do with a span, and where spans and metrics go."""

from __future__ import annotations

import socket
import threading
import urllib.request
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from costspan.doctor import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Signal = Literal["traces", "metrics"]

ABOUT: Final = "opentelemetry"
SECTION: Final[Mapping[Signal, str]] = {"traces": "spans", "metrics": "metrics"}
"""Signal -> the section of the report, which is what goes out."""

_SECONDS: Final = 1.0
"""For a connection to an endpoint, its name's look-up included."""

_MOST_ATTRIBUTES: Final = 48
"""About as many attributes as a span of a call with all its costs and attribution has."""

_PACKAGES: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "opentelemetry-exporter-otlp",
)


# ------------------------------------------------------------------ the SDK


def look(environ: Mapping[str, str], *, others: bool) -> tuple[dict[str, Any], list[Problem]]:
    """The OpenTelemetry that is installed, and what its variables make of it.

    `others`: there is other instrumentation than ours, which a sampler may silence.
    """
    from costspan_processor.compat import way

    facts: dict[str, Any] = {
        "versions": {name: _version(name) for name in _PACKAGES},
        "ending_spans": way(),
        "disabled": environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
        "sampler": environ.get("OTEL_TRACES_SAMPLER", "").strip() or "parentbased_always_on",
        "sampler_drops": _drops(environ),
        "config_file": environ.get("OTEL_CONFIG_FILE", "").strip() or None,
        "distro": [
            f"{entry.dist.name} {entry.dist.version}"
            for entry in entry_points(group="opentelemetry_distro")
            if entry.dist
        ],
    }
    return facts, list(_judged(facts, environ, others))


def _drops(environ: Mapping[str, str]) -> bool:
    """Whether the sampler that the environment names drops spans.

    >>> _drops({}), _drops({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"})
    (False, True)
    """
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if sampler.endswith("traceidratio"):
        with suppress(ValueError):
            return float(environ.get("OTEL_TRACES_SAMPLER_ARG") or 1) < 1
    return bool(sampler) and not sampler.endswith("always_on")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _judged(facts: Mapping[str, Any], environ: Mapping[str, str], others: bool) -> Iterator[Problem]:
    with suppress(PackageNotFoundError):  # costspan on a path alone has no metadata
        for requirement in requires("costspan") or ():
            if ";" in requirement:
                continue  # of an extra, or of another system
            conflict = get_dependency_conflicts([requirement])
            if conflict is not None:
                yield Problem(
                    "fault",
                    ABOUT,
                    f"costspan needs {requirement}, and {conflict.found or 'it is not there'}",
                    "Parts of costspan may fail or do nothing.",
                    f"pip install '{requirement}'",
                )
    if facts["ending_spans"] == "exporter":
        yield Problem(
            "fault",
            ABOUT,
            "this OpenTelemetry SDK lets nobody add to a span that ends",
            "Spans of other instrumentations are counted, but leave the process without a price.",
            "Use the version of opentelemetry-sdk that costspan is tested with (1.45), or wrap each exporter: "
            "costspan_processor.span_processor.EnrichingExporter(exporter).",
        )
    if facts["disabled"]:
        yield Problem(
            "warning",
            ABOUT,
            "OTEL_SDK_DISABLED=true",
            "There are no spans and no metrics. `costspan.summary()` and budgets still count.",
            "If that is not meant, unset OTEL_SDK_DISABLED.",
        )
    if others and facts["sampler_drops"]:
        yield Problem(
            "warning",
            ABOUT,
            f"OTEL_TRACES_SAMPLER={facts['sampler']} drops spans",
            "Calls that costspan instruments are counted all the same. Those that another instrumentation alone sees "
            "may be missing from costs and budgets.",
            "Let costspan instrument the SDK itself, or sample in the collector and use always_on here.",
        )
    for name in ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"):
        limit = environ.get(name, "").strip()
        if limit.isdigit() and int(limit) < _MOST_ATTRIBUTES:
            yield Problem(
                "warning",
                ABOUT,
                f"{name}={limit} leaves little room on a span",
                "A span that is full drops attributes: its costs, or who the call was for. Metrics are not affected.",
                f"Allow {_MOST_ATTRIBUTES} or more; the default is 128.",
            )
    if (file := facts["config_file"]) is not None:
        yield from _file_judged(file)


def _file_judged(file: str) -> Iterator[Problem]:
    why = "Nothing is configured by it: the other OTEL_* variables hold instead."
    if find_spec("opentelemetry.configuration") is None:
        yield Problem(
            "fault", ABOUT, "OTEL_CONFIG_FILE is set, but the package that reads it is not installed", why,
            "pip install opentelemetry-configuration",
        )  # fmt: skip
    elif not Path(file).is_file():
        yield Problem(
            "fault",
            ABOUT,
            f"OTEL_CONFIG_FILE={file}: there is no such file",
            why,
            "Name a file that exists, or unset it.",
        )


# ------------------------------------------------------------------ where spans and metrics go


class _Target(NamedTuple):
    """Where an OTLP exporter connects to."""

    host: str
    port: int


def send(environ: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """The exporters of spans and of metrics, and whether anybody listens where they send."""
    facts = {}
    problems: list[Problem] = []
    for signal, what in SECTION.items():
        facts[what], found = _signal(signal, environ)
        problems += found
    if facts["spans"]["exporters"] and facts["metrics"]["origin"] is None:
        problems.append(
            Problem(
                "warning",
                "metrics",
                "spans leave the process, and metrics do not",
                "Dashboards, alerts and totals are made from the metrics; spans are sampled.",
                "Set OTEL_METRICS_EXPORTER too, to otlp or prometheus; to none if that is meant.",
            )
        )
    problems += _shared_id(facts, environ)
    return facts, [*problems, *_unanswered(facts)]


def _shared_id(facts: Mapping[str, Mapping[str, Any]], environ: Mapping[str, str]) -> Iterator[Problem]:
    """Processes that push are told apart by this attribute alone; the SDK draws one at random for each."""
    if not any(exporter["name"].startswith("otlp") for exporter in facts["metrics"]["exporters"]):
        return
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.instance.id" and value.strip():
            yield Problem(
                "warning",
                "metrics",
                f"service.instance.id is {value.strip()} for every process with this environment",
                "Counters of two processes that have the same become one series, and their totals are wrong.",
                "Leave it out of OTEL_RESOURCE_ATTRIBUTES, for the SDK draws one for each process; or have one process "
                "for each value.",
            )


def _unanswered(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Tries every endpoint once."""
    senders: dict[_Target, list[tuple[str, dict[str, Any]]]] = {}
    for what, way in facts.items():
        for exporter in way["exporters"]:
            target = exporter.pop("target")
            if target is not None:
                senders.setdefault(target, []).append((what, exporter))
    for target, sent in senders.items():
        error = _unreachable(target)
        for _, exporter in sent:
            exporter["reachable"] = error is None
        if error is not None:
            what = " and ".join(dict.fromkeys(what for what, _ in sent))
            yield Problem(
                "fault",
                sent[0][0],
                f"nobody answers at {target.host}:{target.port}, where {what} are sent: {error}",
                f"No {what} arrive anywhere: exports fail, and are dropped after some tries.",
                "Start the collector, or name another one in OTEL_EXPORTER_OTLP_ENDPOINT.",
            )


def _signal(signal: Signal, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    named = environ.get(variable, "").strip()
    origin = variable if named else None
    if not named:
        for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            if environ.get(name):
                named, origin = "otlp", name
                break
    facts: dict[str, Any] = {"origin": origin, "exporters": []}
    problems: list[Problem] = []
    file = environ.get("OTEL_CONFIG_FILE", "").strip()
    if file and not list(_file_judged(file)):
        return {**facts, "origin": "OTEL_CONFIG_FILE"}, problems
    for name in (part.strip().lower() for part in named.split(",")):
        if name and name != "none":
            exporter, found = _exporter(signal, name, variable, environ)
            facts["exporters"].append(exporter)
            problems += found
    return facts, problems


def _exporter(
    signal: Signal, name: str, variable: str, environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    about = SECTION[signal]
    protocol = None
    wanted = name
    if name == "otlp":
        protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        protocol = protocol or "grpc"
        wanted = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    elif name.startswith("otlp_proto_"):
        protocol = name.removeprefix("otlp_proto_").replace("http", "http/protobuf")
    facts: dict[str, Any] = {"name": name, "protocol": protocol, "endpoint": None, "target": None}
    facts |= {"reachable": None, "error": None}
    group = f"opentelemetry_{signal}_exporter"
    error = None
    try:
        entry = next(iter(entry_points(group=group, name=wanted)))
        entry.load()
    except StopIteration:
        error = "no package that is installed provides it"
    except Exception as failure:  # noqa: BLE001  a broken exporter must not end the report
        error = f"{type(failure).__name__}: {failure}"
    if error is not None:
        from costspan_pricing.words import did_you_mean

        hint = did_you_mean(name, {entry.name for entry in entry_points(group=group)})
        known = name == "prometheus" and signal == "metrics"
        facts["error"] = error
        return facts, [
            Problem(
                "fault",
                about,
                f"{variable} names {name!r}, which cannot be used: {error}{hint}",
                f"No {about} leave the process by it.",
                "pip install 'costspan[prometheus]'"
                if known
                else f"Install the exporter, or set {variable} to otlp, console or none.",
            )
        ]
    if name == "prometheus":
        host = environ.get("OTEL_EXPORTER_PROMETHEUS_HOST") or "localhost"
        facts["endpoint"] = f"http://{host}:{environ.get('OTEL_EXPORTER_PROMETHEUS_PORT') or 9464}/metrics"
    if protocol is None:
        return facts, []
    return facts, list(_otlp(signal, protocol, facts, environ))


def _otlp(signal: Signal, protocol: str, facts: dict[str, Any], environ: Mapping[str, str]) -> Iterator[Problem]:
    about = SECTION[signal]
    grpc = protocol == "grpc"
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    variable = own if environ.get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT"
    written = (environ.get(variable) or f"http://localhost:{4317 if grpc else 4318}").strip()
    facts["endpoint"] = written
    why = f"No {about} arrive anywhere: exports fail, and are dropped after some tries."
    if protocol not in {"grpc", "http/protobuf"}:
        yield Problem(
            "warning",
            about,
            f"the OTLP protocol {protocol!r} is not one that Python speaks",
            "http/protobuf is used in its place.",
            "Set OTEL_EXPORTER_OTLP_PROTOCOL to grpc or http/protobuf.",
        )
    if not grpc and not written.startswith(("http://", "https://")):
        yield Problem(
            "fault", about, f"{variable}={written} is no address: http:// is missing", why,
            f"Set {variable}=http://{written.partition('://')[2] or written}",
        )  # fmt: skip
        return
    target = _target(written, grpc)
    if target is None:
        yield Problem(
            "fault", about, f"{variable}={written} names no host and port", why, f"Set {variable}=http://HOST:PORT"
        )
        return
    if target.port == (4318 if grpc else 4317):
        other = "http/protobuf" if grpc else "grpc"
        yield Problem(
            "warning",
            about,
            f"{protocol} goes to port {target.port}, which is by custom the port of {other}",
            f"If that port does not speak {protocol}, no {about} arrive.",
            f"Set OTEL_EXPORTER_OTLP_PROTOCOL={other}, or use port {4317 if grpc else 4318}.",
        )
    if not grpc and variable == own and not urlsplit(written).path.strip("/"):
        yield Problem(
            "warning",
            about,
            f"{variable}={written} has no path",
            f"This variable is used as it is, unlike the one for all signals: {about} go to / and not to /v1/{signal}.",
            f"Set {variable}={written.rstrip('/')}/v1/{signal}",
        )
    if not _proxied(written, target.host):
        facts["target"] = target


def _target(endpoint: str, grpc: bool) -> _Target | None:
    """Host and port of an endpoint; gRPC takes it without a scheme too.

    >>> _target("localhost:4317", True), _target("https://otel.example/v1/traces", False)
    (_Target(host='localhost', port=4317), _Target(host='otel.example', port=443))
    """
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        port = parts.port or (443 if grpc or parts.scheme == "https" else 80)
    except ValueError:
        return None
    return _Target(parts.hostname, port) if parts.hostname else None


def _proxied(endpoint: str, host: str) -> bool:
    proxies = urllib.request.getproxies()
    proxied = proxies.get(urlsplit(endpoint).scheme) or proxies.get("all")
    return bool(proxied) and not urllib.request.proxy_bypass(host)


def _unreachable(target: _Target) -> str | None:
    """Why nobody can be reached there, None if somebody can."""
    said = [f"no answer within {_SECONDS:g} s"]

    def connect() -> None:
        try:
            socket.create_connection(target, timeout=_SECONDS).close()
        except OSError as error:
            said[0] = error.strerror or str(error)
        else:
            said[0] = ""

    # Looking up a name has no time limit of its own.
    waiting = threading.Thread(target=connect, daemon=True)
    waiting.start()
    waiting.join(_SECONDS + 0.5)
    return said[0] or None
