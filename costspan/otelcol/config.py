"""The configuration file: receivers, the statements that price, the metrics, and what is said of all that."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from costspan.otelcol.ottl import (
    HELD,
    PICODOLLARS,
    REASON,
    TOKENS,
    conditions,
    habits,
    held,
    literal,
    ottl,
    plain,
    statements,
)
from costspan_processor import conventions as c
from costspan_processor.enrich import SAVINGS
from costspan_processor.metrics import COMPONENT, DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from costspan.otelcol.table import Table

_HEAD: Final = """\
# Prices of model calls for a stock OpenTelemetry Collector (contrib 0.161 or newer): traces in, the same traces with
# costspan.cost.* out, and the sums as metrics. Written by `costspan otelcol-config`; write it anew when prices change.
#
#   {models}
#   price book {version}
#
# What it does not do, and the Python package does:
#  - budgets: nothing in a collector's own language keeps a sum from one span to the next;
#  - counting once: where two libraries tell of the same call on nested spans, both are priced (agents, workflows and
#    tools are not); so are spans that come twice;
#  - audio, images, video, searches, fees of a request, hardware paid by the hour, and models that are not in this file:
#    such spans get no figure, and {status} and costspan.cost.reason say why;
#  - a provider concluded from a model's name; JSON of Langfuse, LangSmith, LiteLLM, Logfire, MLflow and a few more
#    ("unread:..." is the reason then);
#  - prices above 64 bits: a count of more than {most} tokens is refused.
# Spans that carry {status} already are left alone. Figures are exact: {pico} is the sum in integers (10^-12 USD), and
# costspan.cost.total the same in USD.
"""

_SERVICE: Final = """\
# ${{env:NAME:-value}} is set in the collector's environment, or is the value.
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "${{env:OTELCOL_GRPC:-127.0.0.1:4317}}"}}
      http: {{endpoint: "${{env:OTELCOL_HTTP:-127.0.0.1:4318}}"}}

exporters:
  {exporter}:
    endpoint: "${{env:OTELCOL_FORWARD:-{endpoint}}}"
{tls}  prometheus:
    endpoint: "${{env:OTELCOL_PROMETHEUS:-127.0.0.1:9464}}"
    metric_expiration: 960h

connectors:
  signal_to_metrics:
    spans:
{metrics}
processors:
  memory_limiter: {{check_interval: 1s, limit_percentage: 75, spike_limit_percentage: 20}}
  # Longer than a month: a series that is forgotten begins again at nothing, and all do when the collector starts.
  delta_to_cumulative: {{max_stale: 960h}}
  transform/costspan:
    error_mode: silent
    trace_statements:
{statements}
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, transform/costspan]
      exporters: [{exporter}, signal_to_metrics]
    metrics: {{receivers: [signal_to_metrics], processors: [delta_to_cumulative], exporters: [prometheus]}}
"""


def config(table: Table, endpoint: str, *, http: bool = False, insecure: bool = True) -> str:
    """The configuration as YAML. `endpoint` is where spans go on to, by OTLP over gRPC or HTTP."""
    tls = "" if http or not insecure else "    tls: {insecure: true}\n"
    head = _HEAD.format(
        models=_folded(table.models), version=table.version, status=c.STATUS, most=table.most, pico=PICODOLLARS
    )
    left = "".join(f"# Left out: {_dollars(why)}\n" for why in table.left_out)
    return (
        head
        + left
        + "\n"
        + _SERVICE.format(
            exporter="otlp_http" if http else "otlp_grpc",
            endpoint=endpoint,
            tls=tls,
            metrics=_metrics(),
            statements="".join(_groups(table)),
        )
    )


def _folded(models: Sequence[str]) -> str:
    shown = ", ".join(models[:12])
    return shown if len(models) <= 12 else f"{shown} and {len(models) - 12} more"


def _groups(table: Table) -> Iterator[str]:
    yield "      # The table: names, and picodollars a token by # tier # region, ~ periods back, L longer prompts.\n"
    yield "      - statements:\n"
    yield from _table(held(table))
    yield "      # How each library counts: cached tokens in the input or beside it, what its spans leave out.\n"
    yield "      - statements:\n"
    yield from _listed(habits())
    simple, few = plain(table)
    yield "      # Plain calls: what is left of all the statements for a call of which these conditions hold.\n"
    yield from _priced(simple, few)
    yield "      # All other calls.\n"
    yield from _priced(conditions(), statements(table))
    yield "      - statements:\n"
    yield from _listed((f'delete_key(scope.attributes, "{HELD}")',))
    yield "      - statements:\n"
    yield from _listed((f'delete_key(resource.attributes, "{HELD}")',))


_WHOLE_WORDS: Final[dict[str, Any]] = {"break_long_words": False, "break_on_hyphens": False}


def _priced(conditions: Iterable[str], parts: Mapping[str, list[str]]) -> Iterator[str]:
    yield "      - conditions:\n"
    yield "          - >-\n"
    lines = (line for condition in conditions for line in wrap(_dollars(f"and {ottl(condition)}"), 140, **_WHOLE_WORDS))
    yield "            " + "\n            ".join(lines).removeprefix("and ") + "\n"
    yield "        statements:\n"
    for title, written in parts.items():
        if written:
            yield f"          # {title[0].upper()}{title[1:]}.\n"
            yield from _listed(map(ottl, written))


def _table(value: dict[str, Any]) -> Iterator[str]:
    """One statement that a person can still read: a line a name's table or card."""
    lines = []
    for key, entries in value.items():
        body = ",\n".join(f"            {literal(name)}: {literal(entry)}" for name, entry in entries.items())
        lines.append(f"            {literal(key)}: {{\n{body}\n            }}")
    text = ",\n".join(lines)
    yield f'          - >-\n            set(resource.attributes["{HELD}"], {{\n{_dollars(text)}\n            }})\n'


def _listed(statements: Iterable[str]) -> Iterator[str]:
    for statement in statements:
        quoted = _dollars(statement).replace("'", "''")
        yield f"          - '{quoted}'\n"


def _dollars(text: str) -> str:
    """Text in which the collector expands nothing."""
    return text.replace("$", "$$")


# ---------------------------------------------------------------------- metrics


def _metrics() -> str:
    labels = (c.PROVIDER, c.REQUEST_MODEL, c.RESPONSE_MODEL, *DIMENSIONS)
    lines = []

    def metric(name: str, unit: str, description: str, value: str, where: str, extra: Sequence[str]) -> None:
        # All that is priced has an operation: where a span has none, nothing more is looked at.
        attributes = f"          - {{key: {c.OPERATION}}}\n" + "".join(
            f"          - {{key: {label}, optional: true}}\n" for label in labels
        )
        lines.append(
            f"      - name: {name}\n"
            f"        description: {description}\n"
            f'        unit: "{unit}"\n'
            f"        conditions: ['{where}']\n"
            "        include_resource_attributes:\n"
            "          - {key: service.name, optional: true}\n"
            "          - {key: service.namespace, optional: true}\n"
            "          - {key: service.instance.id, optional: true}\n"
            f"        attributes:\n{attributes}{''.join(f'          - {line}{chr(10)}' for line in extra)}"
            f"        sum: {{value: '{value}', monotonic: true}}\n"
        )

    for component in ("input", "output", "cache_read", "cache_write"):
        extra = [f"{{key: {COMPONENT}, default_value: {component}}}"]
        cost, tokens = f"costspan.cost.{component}", TOKENS[component]
        metric(
            "costspan.cost", "USD", "Money spent on model calls that have a price",
            f'attributes["{cost}"]', f'attributes["{PICODOLLARS}"] != nil and attributes["{cost}"] != nil', extra,
        )  # fmt: skip
        metric(
            "costspan.tokens", "{token}", "Tokens used, each counted under one component",
            f'attributes["{tokens}"]', f'attributes["{tokens}"] != nil', extra,
        )  # fmt: skip
    metric(
        "costspan.calls", "{call}", "Model calls by the status of their price",
        # Spans that came with a status are counted by whoever gave it to them.
        "1", f'attributes["{PICODOLLARS}"] != nil or attributes["{REASON}"] != nil', [f"{{key: {c.STATUS}}}"],
    )  # fmt: skip
    metric(
        "costspan.cache.saved", "USD", "Money saved by cache reads against the input rate",
        f'attributes["{SAVINGS}"]', f'attributes["{PICODOLLARS}"] != nil and attributes["{SAVINGS}"] != nil', [],
    )  # fmt: skip
    return "".join(lines)
