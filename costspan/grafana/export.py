"""The files of `costspan grafana export`: dashboards, rules, provisioning, and a compose file in which all is wired."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from costspan.grafana.promql import lookback, renamed, renamed_in_template, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

Path_ = Literal["collector", "scrape", "otlp"]

IMAGES: Final = {
    "prometheus 2": "prom/prometheus:v2.42.0",
    "prometheus 3": "prom/prometheus:v3.16.0",
    "alertmanager": "prom/alertmanager:v0.33.1",
    "grafana": "grafana/grafana:12.4.3",
    "collector": "otel/opentelemetry-collector-contrib:0.161.0",
}
"""The versions that the tests run; Grafana's is that whose types the dashboards are checked against."""

SCRAPE_SECONDS: Final = 15
_DAY: Final = 86400
_HEAD: Final = "# Written by `costspan grafana export`.\n"
_SIGNAL: Final = "{receivers: [otlp], processors: [memory_limiter, batch], exporters: [debug]}"


class ExportError(Exception):
    """What was asked for cannot be had; the text says what to do."""


@dataclass(frozen=True)
class Choice:
    """What the export is for."""

    metrics: Path_ = "collector"
    """How metrics come to Prometheus: through a collector, by a scrape of the application, by its own OTLP receiver."""
    prometheus: int = 3
    """Its major version."""
    datasource: str = "prometheus"
    """The uid of Grafana's data source."""
    job_label: str = "job"
    """The label that tells services apart."""

    def __post_init__(self) -> None:
        if self.metrics == "otlp" and self.prometheus < 3:
            raise ExportError("--metrics otlp needs --prometheus 3: Prometheus 2 has no OTLP receiver that is stable")
        for option, value, shape in (
            ("--job-label", self.job_label, r"[A-Za-z_][A-Za-z0-9_]*"),
            ("--datasource", self.datasource, r"[A-Za-z0-9_-]{1,40}"),
        ):
            if not re.fullmatch(shape, value):
                raise ExportError(f"{option} {value!r} must look like {shape}")


class Query(NamedTuple):
    """A query of a panel or of a rule."""

    place: str
    """The file, and the title or the name in it."""
    expr: str
    lookback: float
    """Seconds before its evaluation of the oldest sample that it reads."""


# ---------------------------------------------------------------------- what ships


@cache
def shipped() -> Mapping[str, str]:
    """Dashboards, rules and provisioning as they ship: text by path. Raises `ExportError` if they are not there."""
    root: Traversable = package_files("costspan") / "_grafana"
    if not root.is_dir():
        root = Path(__file__).parents[2] / "grafana"  # a clone
    found = {
        f"{folder}/{file.name}": file.read_text(encoding="utf-8")
        for folder in ("dashboards", "prometheus")
        if (root / folder).is_dir()
        for file in sorted((root / folder).iterdir(), key=lambda file: file.name)
        if file.name.endswith((".json", ".yml"))
    }
    if not found:
        raise ExportError("the dashboards are missing from this installation: install the package costspan again")
    return MappingProxyType(found)


def dashboards(texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {path: json.loads(text) for path, text in texts.items() if path.startswith("dashboards/")}


def rule_files(texts: Mapping[str, str]) -> dict[str, str]:
    return {path: text for path, text in texts.items() if re.search(r"^groups:", text, re.MULTILINE)}


def queries(texts: Mapping[str, str]) -> Iterator[Query]:
    """Every query that a panel, an annotation or a rule makes."""
    for path, dashboard in dashboards(texts).items():
        lengths = _durations(dashboard)
        for title, expr in _asked(dashboard, dashboard.get("title", path)):
            yield Query(f"{Path(path).name}: {title}", expr, lookback(expr, lengths))
    for path, text in rule_files(texts).items():
        name = ""
        for is_expr, part in yaml_parts(text):
            if is_expr:
                yield Query(f"{Path(path).name}: {name}", part, lookback(part))
            elif named := re.findall(r"(?:record|alert):\s*(\S+)", part):
                name = named[-1]


def recording_rules(texts: Mapping[str, str]) -> dict[str, str]:
    """Expression by name of the recorded metric."""
    found: dict[str, str] = {}
    for text in rule_files(texts).values():
        name = ""
        for is_expr, part in yaml_parts(text):
            if is_expr and name:
                found[name] = f"{found[name]}\n{part}" if name in found else part
            elif named := re.findall(r"(?:record|alert):\s*(\S+)", part):
                name = named[-1] if f"record: {named[-1]}" in part else ""
    return found


def rule_names(texts: Mapping[str, str]) -> set[str]:
    """Names of all recorded metrics and all alerts."""
    named = re.compile(r"^ *-? *(?:record|alert): *(\S+)", re.MULTILINE)
    return {name for text in rule_files(texts).values() for name in named.findall(text)}


@cache
def shipped_queries() -> tuple[Query, ...]:
    """Every query of what ships. Raises `ExportError` if that is not there."""
    return tuple(queries(shipped()))


def retention_seconds() -> float:
    """How long Prometheus must keep samples for what ships: whole days, and one more for what is being compacted."""
    longest = max(query.lookback for query in shipped_queries())
    return (math.ceil(longest / _DAY) + 1) * _DAY


def _asked(node: Any, title: str) -> Iterator[tuple[str, str]]:
    """Titles and expressions of everything in a dashboard that asks Prometheus."""
    if isinstance(node, dict):
        title = node.get("title") or node.get("name") or title if "targets" in node or "expr" in node else title
        if isinstance(node.get("expr"), str):
            yield title, node["expr"]
        for key, value in node.items():
            if key != "templating":
                yield from _asked(value, title)
    elif isinstance(node, list):
        for value in node:
            yield from _asked(value, title)


def _durations(dashboard: Mapping[str, Any]) -> dict[str, float]:
    """How long a dashboard's variables are at most: its own range, and those that offer durations."""
    start = re.fullmatch(r"now-(\w+?)(?:/\w)?", str(dashboard.get("time", {}).get("from", "")))
    lengths = {"__range": seconds(start[1].replace("M", "d")) if start else 0.0}
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable["type"] in {"interval", "custom"} and isinstance(variable.get("query"), str):
            lengths[variable["name"]] = max(map(seconds, variable["query"].split(",")), default=0.0)
    return lengths


# ---------------------------------------------------------------------- another label for the job


def yaml_parts(text: str) -> Iterator[tuple[bool, str]]:
    """The text in parts, each an expression or what stands between. Put together they are the text again."""
    lines = text.splitlines(keepends=True)
    other: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        head = re.match(r"( *)(?:- )?expr: *([|>][-+]?)?[ \n]*", line)
        if head is None:
            other.append(line)
            continue
        indent = len(line) - len(line.lstrip(" -"))
        yield False, "".join(other) + line[: head.end()]
        expr = line[head.end() :]
        while number < len(lines) and (not lines[number].strip() or _indent(lines[number]) > indent):
            expr += lines[number]
            number += 1
        yield True, expr
        other = []
    yield False, "".join(other)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _relabelled_yaml(text: str, label: str) -> str:
    """Rules or an Alertmanager configuration with another label for the job."""
    if label == "job":
        return text
    out: list[str] = []
    for is_expr, part in yaml_parts(text):
        if is_expr:
            out.append(renamed(part, "job", label))
            continue
        # Lists of labels: group_by: [alertname, job], equal: [job]; and labels of a rule.
        lists = re.sub(
            r"((?:group_by|equal): *\[)([^\]]*)\]",
            lambda found: found[1] + re.sub(r"\bjob\b", label, found[2]) + "]",
            renamed_in_template(part, "job", label),
        )
        out.append(re.sub(r"(labels: *\{[^}]*)\bjob:", rf"\g<1>{label}:", lists))
    return "".join(out)


def _relabelled(node: Any, label: str, key: str = "") -> Any:
    """A dashboard, or a part of it, with another label for the job."""
    if isinstance(node, dict):
        if node.get("id") == "byName" and node.get("options") == "job":
            return {**node, "options": label}
        changed = {name: _relabelled(value, label, name) for name, value in node.items()}
        # Options of transformations name columns, which are labels, by their keys.
        return {label if name == "job" and key.endswith("ByName") else name: value for name, value in changed.items()}
    if isinstance(node, list):
        return [_relabelled(value, label, key) for value in node]
    if isinstance(node, str):
        if key == "expr" or (key in {"query", "definition"} and re.match(r"(label_values|query_result)\(", node)):
            return renamed(node, "job", label)
        return renamed_in_template(node, "job", label)
    return node


def _for_datasource(dashboard: dict[str, Any], uid: str) -> dict[str, Any]:
    """The dashboard with a data source chosen, which Grafana would else take the first of."""
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable["type"] == "datasource":
            variable["current"] = {"text": uid, "value": uid, "selected": True}
    return dashboard


# ---------------------------------------------------------------------- what is written


def exported(choice: Choice) -> dict[str, str]:
    """The files of the export: text by path."""
    texts = shipped()
    out: dict[str, str] = {}
    for path, dashboard in dashboards(texts).items():
        document = _for_datasource(_relabelled(dashboard, choice.job_label), choice.datasource)
        out[f"grafana/{path}"] = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    rules = rule_files(texts)
    for path, text in rules.items():
        out[path] = _relabelled_yaml(text, choice.job_label)
    alertmanager = texts["prometheus/alertmanager.yml"].replace("https://grafana.example.com", "http://localhost:3000")
    out["alertmanager/alertmanager.yml"] = _relabelled_yaml(alertmanager, choice.job_label)
    out["prometheus/prometheus.yml"] = _prometheus(choice, sorted(Path(path).name for path in rules))
    if choice.metrics == "collector":
        out["collector/otelcol.yml"] = _HEAD + _COLLECTOR
    out["grafana/provisioning/datasources/costspan.yml"] = _HEAD + _DATASOURCES.format(uid=choice.datasource)
    out["grafana/provisioning/dashboards/costspan.yml"] = _HEAD + _DASHBOARDS
    out["compose.yaml"] = _compose(choice, retention_seconds())
    return out


def write(texts: Mapping[str, str], folder: Path, *, force: bool) -> list[str]:
    """Write the files, and say which of them are new or changed. Without ``force`` nothing that differs is replaced.

    Raises `ExportError`, and has then written nothing, if there are such files or the folder cannot be written.
    """
    try:
        old = {path: _read(folder / path) for path in texts}
        changed = sorted(path for path, text in texts.items() if old[path] != text)
        theirs = [path for path in changed if old[path] is not None]
        if theirs and not force:
            raise ExportError(
                f"{folder} has other versions of {', '.join(theirs)}: nothing was written; "
                "name another directory, or replace them with --force"
            )
        for path in changed:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(texts[path], encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{error.filename or folder} cannot be written ({error.strerror})") from None
    return changed


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""


def _prometheus(choice: Choice, rules: list[str]) -> str:
    lines = [
        "global:",
        f"  scrape_interval: {SCRAPE_SECONDS}s",
        f"  evaluation_interval: {SCRAPE_SECONDS}s",
    ]
    lines += ["rule_files:", *(f"  - {name}" for name in rules)]
    lines += ["alerting:", "  alertmanagers:", "    - static_configs:", "        - targets: [alertmanager:9093]"]
    if choice.metrics == "otlp":
        promoted = dict.fromkeys((choice.job_label, choice.job_label.replace("_", ".")))
        lines += [
            "# Metrics come to /api/v1/otlp/v1/metrics. Their `job` is the service's name, their `instance` its id.",
            "otlp:",
            "  translation_strategy: UnderscoreEscapingWithSuffixes",
            "  # Tells apart what a process counts before and after a new costspan.init().",
            "  promote_scope_metadata: true",
            *([f"  promote_resource_attributes: [{', '.join(promoted)}]"] if choice.job_label != "job" else []),
            "storage:",
            "  tsdb:",
            "    # A process may send again what it could not deliver.",
            "    out_of_order_time_window: 10m",
        ]
    else:
        collector = choice.metrics == "collector"
        lines += ["scrape_configs:"]
        lines += [
            "  # The collector says itself whose metrics these are.",
            "  - job_name: collector",
            "    honor_labels: true",
        ] if collector else [
            "  # Name the job as the application: panels and alerts show it.",
            "  - job_name: my-app",
        ]  # fmt: skip
        target = "collector:8889" if collector else "host.docker.internal:9464"
        lines += ["    static_configs:", f"      - targets: [{target}]"]
        if choice.job_label != "job":
            lines += [
                "    metric_relabel_configs:" if collector else "    relabel_configs:",
                f"      - {{source_labels: [job], target_label: {choice.job_label}}}",
            ]
    return _HEAD + "\n".join(lines) + "\n"


def _compose(choice: Choice, retention: float) -> str:
    flags = [
        "--config.file=/etc/prometheus/prometheus.yml",
        "--storage.tsdb.path=/prometheus",
        f"--storage.tsdb.retention.time={retention / _DAY:.0f}d",
        *(["--web.enable-otlp-receiver"] if choice.metrics == "otlp" else []),
    ]
    prometheus = _PROMETHEUS_SERVICE.format(
        image=IMAGES[f"prometheus {choice.prometheus}"],
        flags="\n".join(f"      - {flag}" for flag in flags),
        hosts='    extra_hosts: ["host.docker.internal:host-gateway"]\n' if choice.metrics == "scrape" else "",
    )
    collector = _COLLECTOR_SERVICE.format(image=IMAGES["collector"]) if choice.metrics == "collector" else ""
    others = _OTHER_SERVICES.format(alertmanager=IMAGES["alertmanager"], grafana=IMAGES["grafana"])
    return (
        f"{_HEAD}# Start: docker compose up -d. The dashboards are at http://localhost:3000 (admin, admin).\n"
        f"services:\n{collector}{prometheus}{others}volumes:\n  prometheus:\n  alertmanager:\n  grafana:\n"
    )


_PROMETHEUS_SERVICE: Final = """\
  prometheus:
    image: {image}
    command:
{flags}
    volumes:
      - ./prometheus:/etc/prometheus:ro
      - prometheus:/prometheus
    ports: ["127.0.0.1:9090:9090"]
{hosts}    restart: unless-stopped
"""

_COLLECTOR_SERVICE: Final = """\
  collector:
    image: {image}
    command: ["--config=/etc/otelcol.yml"]
    volumes:
      - ./collector/otelcol.yml:/etc/otelcol.yml:ro
    ports: ["127.0.0.1:4317:4317", "127.0.0.1:4318:4318"]
    restart: unless-stopped
"""

_OTHER_SERVICES: Final = """\
  alertmanager:
    image: {alertmanager}
    command:
      - --config.file=/etc/alertmanager/alertmanager.yml
      - --storage.path=/alertmanager
    volumes:
      - ./alertmanager:/etc/alertmanager:ro
      - alertmanager:/alertmanager
    ports: ["127.0.0.1:9093:9093"]
    restart: unless-stopped
  grafana:
    image: {grafana}
    environment:
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: /var/lib/grafana/dashboards/costspan/overview.json
    volumes:
      - ./grafana/dashboards:/var/lib/grafana/dashboards/costspan:ro
      - ./grafana/provisioning:/etc/grafana/provisioning:ro
      - grafana:/var/lib/grafana
    ports: ["127.0.0.1:3000:3000"]
    depends_on: [prometheus]
    restart: unless-stopped
"""

_COLLECTOR: Final = f"""\
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "0.0.0.0:4317"}}
      http: {{endpoint: "0.0.0.0:4318"}}
processors:
  memory_limiter: {{check_interval: 1s, limit_percentage: 75, spike_limit_percentage: 15}}
  batch: {{}}
exporters:
  prometheus:
    endpoint: 0.0.0.0:8889
    # How long the totals of a process that has ended can still be scraped.
    metric_expiration: 10m
  # Spans and logs end here: put the exporter of your own backend in its place.
  debug: {{}}
service:
  pipelines:
    metrics: {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [prometheus]}}
    traces: {_SIGNAL}
    logs: {_SIGNAL}
"""

_DATASOURCES: Final = f"""\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: {{uid}}
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    jsonData:
      # As scrape_interval in prometheus.yml: Grafana takes $__rate_interval from it.
      timeInterval: {SCRAPE_SECONDS}s
"""

_DASHBOARDS: Final = """\
apiVersion: 1
providers:
  - name: costspan
    folder: costspan
    type: file
    allowUiUpdates: false
    options:
      path: /var/lib/grafana/dashboards/costspan
"""
