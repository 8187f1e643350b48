"""What dashboards and rules need of a Prometheus: how long it must keep samples, how many series; and does it?"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, Protocol

from costspan.grafana.export import recording_rules, retention_seconds, rule_names, shipped, shipped_queries
from costspan.grafana.promql import seconds

Status = Literal["ok", "warning", "fault", "unknown"]

_DEFAULT_RETENTION: Final = 15 * 86400
"""What Prometheus keeps if no flag says otherwise."""
_METRIC: Final = re.compile(r"\b(?:costspan|gen_ai_client)_\w+")
_ASKED_SECONDS: Final = 30


class CheckError(Exception):
    """The server could not be asked; the text says what to do."""


class Server(Protocol):
    """What answers as the HTTP API of Prometheus does."""

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None where this server has no such page."""


class Finding(NamedTuple):
    """What was found about one need."""

    what: str
    status: Status
    found: str
    advice: str


# ---------------------------------------------------------------------- retention


def longest() -> list[tuple[str, float]]:
    """Places whose queries look back furthest, the furthest first, and how many seconds that is; each place once."""
    furthest: dict[str, float] = {}
    for query in shipped_queries():
        furthest[query.place] = max(furthest.get(query.place, 0.0), query.lookback)
    return sorted(furthest.items(), key=lambda pair: -pair[1])


# ---------------------------------------------------------------------- series


@dataclass(frozen=True)
class Fleet:
    """Who calls what."""

    models: int
    """Models in use."""
    teams: int
    features: int
    """Features over all teams: each is one team's, and uses every model."""
    processes: int
    """Processes at one time."""


class Series(NamedTuple):
    """How many series a fleet makes."""

    per_process: dict[str, int]
    """By metric, of one process that makes every kind of call."""
    recorded: int
    """What the recording rules make of them, about."""
    fleet: Fleet

    @property
    def total(self) -> int:
        return sum(self.per_process.values()) * self.fleet.processes + self.recorded


def series(fleet: Fleet) -> Series:
    """Counts what the metrics of this version make of such a fleet: the calls are made up, the counting is not."""
    from opentelemetry import context
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from costspan_pricing import PriceBook
    from costspan_processor import Processing
    from costspan_processor.attribution import attributed, attributes_of

    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    book = PriceBook.bundled()
    processing = Processing(TracerProvider(shutdown_on_exit=False), meters, book=book)
    features = max(fleet.features, fleet.teams, 1)
    providers = dict.fromkeys(("openai", "anthropic", *book.providers))
    priced = ((provider, model) for provider in providers for model in book.models(provider))
    try:
        for provider, model in islice(priced, fleet.models):
            for feature in range(features):
                team = f"team-{feature % fleet.teams}" if fleet.teams else None
                named = f"feature-{feature}" if fleet.features else None
                token = context.attach(attributed(attributes_of(team=team, feature=named))[0])
                try:
                    call = _call(provider, model)
                    decision = processing.observer.before(call, lambda: 0)
                    processing.observer.after(decision and decision.token, call, time.time_ns(), 1.0, 0.5, None)
                finally:
                    context.detach(token)
        counted: dict[str, int] = {}
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    counted[metric.name] = sum(
                        len(point.bucket_counts) + 2 if isinstance(point, HistogramDataPoint) else 1
                        for point in metric.data.data_points
                    )
    finally:
        processing.shutdown()
        meters.shutdown()
    return Series(counted, _recorded(fleet, features), fleet)


def _call(provider: str, model: str) -> dict[str, Any]:
    """A call that reads a cache."""
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "server.address": "localhost",
        "gen_ai.usage.input_tokens": 9000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 4000,
    }


def _recorded(fleet: Fleet, features: int) -> int:
    """Series of the recording rules: by the labels that they keep, or as many as what they read."""
    counts: dict[str, int] = {}
    for name, expr in recording_rules(shipped()).items():
        if kept := " ".join(re.findall(r"\bby \(([^)]*)\)", expr)):
            counts[name] = (fleet.models if "gen_ai_request_model" in kept else 1) * (
                features if "costspan_feature" in kept else 1
            )
        else:
            counts[name] = max((counts.get(read, 1) for read in re.findall(r"[\w:]+", expr)), default=1)
    return sum(counts.values())


# ---------------------------------------------------------------------- a running server


def check(url: str) -> list[Finding]:
    """Hold a Prometheus to what the shipped dashboards and rules need. Raises `CheckError` if it cannot be asked."""
    server = _Http(url)
    return [retention(server), *_rules(server), _metrics(server), _series(server)]


def retention(server: Server) -> Finding:
    """Whether a server keeps samples long enough."""
    needed = retention_seconds()
    place = longest()[0][0]
    said = (server.get("status/runtimeinfo") or {}).get("storageRetention")
    if said is None:
        return Finding("retention", "unknown", "the server does not say", f"Keep {_days(needed)}: {place} needs it.")
    kept = [seconds(part) for part in re.split(r" or |, ", said) if re.fullmatch(r"(?:[0-9]+(?:ms|[smhdwy]))+", part)]
    by_size = any(re.fullmatch(r"[0-9.]+ ?[KMGTPE]?i?B", part) for part in re.split(r" or |, ", said))
    length = kept[0] if kept else (float("inf") if by_size else _DEFAULT_RETENTION)
    if length < needed:
        return Finding(
            "retention",
            "fault",
            said,
            f"Start it with --storage.tsdb.retention.time={_days(needed)}: {place} needs it.",
        )
    if by_size:
        return Finding("retention", "warning", said, f"A limit by size may delete what {place} needs.")
    return Finding("retention", "ok", f"{said}, of which {_days(needed)} are needed", "")


def _rules(server: Server) -> list[Finding]:
    answer = server.get("rules")
    if answer is None:
        return [Finding("rules", "unknown", "the server does not say", "")]
    loaded = [rule for group in answer["groups"] for rule in group["rules"]]
    wanted = rule_names(shipped())
    missing = sorted(wanted - {rule["name"] for rule in loaded})
    failing = [rule for rule in loaded if rule["name"] in wanted and rule.get("lastError")]
    found = f"{len(wanted) - len(missing)} of {len(wanted)} names are loaded"
    advice = f"Name the exported files under rule_files; missing: {_some(missing)}." if missing else ""
    findings = [Finding("rules", "fault" if missing else "ok", found, advice)]
    findings += [Finding(f"rule {rule['name']}", "fault", "fails", rule["lastError"]) for rule in failing]
    firing = sorted({rule["name"] for rule in loaded if rule["name"] in wanted and rule.get("state") == "firing"})
    if firing:
        findings.append(Finding("alerts", "warning", f"firing: {_some(firing)}", "Their runbooks say what to do."))
    return findings


def _metrics(server: Server) -> Finding:
    named = {
        re.sub(r"_(?:bucket|sum|count)$", "", name)
        for query in shipped_queries()
        for name in _METRIC.findall(query.expr)
    }
    labels = {name for name in named if not re.search(r"_(?:total|USD|seconds|ratio|usage|duration|chunk)\b", name)}
    named -= labels
    expr = 'count by (__name__) (last_over_time({__name__=~"(costspan|gen_ai_client)_.+"}[1h]))'
    answer = server.get("query", query=expr)
    if answer is None:
        return Finding("metrics", "unknown", "the server does not say", "")
    there = {re.sub(r"_(?:bucket|sum|count)$", "", sample["metric"]["__name__"]) for sample in answer["result"]}
    missing = sorted(named - there)
    if "costspan_price_book_age_seconds" not in there:
        return Finding(
            "metrics", "fault", "none in the last hour", "Start the application; `costspan doctor` looks into it."
        )
    if "costspan_cost_USD_total" not in there:
        return Finding("metrics", "warning", "no priced call yet", "Make a call that has a price.")
    found = f"{len(named) - len(missing)} of {len(named)} metrics in the last hour"
    # Refusals, waste or a failing store have no series before they happen.
    return Finding("metrics", "ok", found, f"Not yet: {_some(missing)}." if missing else "")


def _series(server: Server) -> Finding:
    answer = server.get("query", query='count({__name__=~"(costspan|gen_ai_client)[_:].+"})')
    head = ((server.get("status/tsdb") or {}).get("headStats") or {}).get("numSeries")
    ours = int(float(answer["result"][0]["value"][1])) if answer and answer["result"] else 0
    return Finding("series", "ok", f"{ours:,} now" + (f", of {head:,} in its head" if head is not None else ""), "")


class _Http:
    """A server by its address."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CheckError(f"{url!r} is no address of a Prometheus: give one such as http://localhost:9090")
        self._url = url.rstrip("/")

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; None where this server has no such page."""
        asked = f"{self._url}/api/v1/{path}" + (f"?{urllib.parse.urlencode(parameters)}" if parameters else "")
        try:
            # The scheme is http or https, see above.
            with urllib.request.urlopen(asked, timeout=_ASKED_SECONDS) as answer:  # noqa: S310
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code in {404, 405}:
                return None
            raise CheckError(f"{self._url} answers {path} with status {error.code}: is it a Prometheus?") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise CheckError(f"{self._url} cannot be reached ({reason}): is Prometheus running there?") from None
        except ValueError:
            raise CheckError(f"{self._url} does not answer in JSON: is it a Prometheus?") from None
        if not isinstance(body, dict) or body.get("status") != "success":
            raise CheckError(f"{self._url} does not answer as a Prometheus does: give the address of its web page")
        return body["data"]


def _days(length: float) -> str:
    return f"{length / 86400:.0f}d"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
