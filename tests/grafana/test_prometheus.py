"""The dashboard and the rules against a real Prometheus, fed by the real processor through the real exporter."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from costspan.demo.fleet import SERVICES, Clock, Story
from tests.docs.generate import collector_metrics
from tests.grafana.dashboards import BOARDS, Board, board, selectors
from tests.grafana.fleet import Told, lived, midnight, process
from tests.grafana.prometheus import serve
from tests.grafana.rules import ALERTS, RECORDING, THRESHOLDS, rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Two days and a half of calls which end 48 minutes into a month: both panels that begin at a date must cut there.
BEGIN = midnight(2026, 10, 29).replace(hour=12)
FIRST = midnight(2026, 11, 1)
END = int(FIRST.replace(minute=48).timestamp())
STORY = Story(int(BEGIN.timestamp()), END, one_call_processes=40)
MINUTES = 90
OVERVIEW = board("overview")
COLLECTORS = {"Spans, per minute", "Requests not accepted, per minute", "Requests in hand"}
"""There is none in the story; tests/collector asks a real one."""
SILENT = {"Top movers, this week against the one before", *COLLECTORS}
"""Movers need two weeks; `python -m tests.bars --only fleet` asks it over a month."""
ELSEWHERE = {"otel_metric_overflow", *(metric.prometheus for metric in collector_metrics())}
"""A label that the SDK writes where its own bound is passed, which costspan's bound keeps it from; collectors' own."""
RANGE = {"$__rate_interval": "5m", "$__range_s": "86400", "$__range": "1d", "$__interval": "1m"}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The story, with what the recording rules make of it."""
    with lived(STORY, tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def numbers(told: Told, of: Board, target: dict[str, object]) -> list[float]:
    """All values that a panel's query gives, over the last minutes of the story or at its end, NaN left out."""
    expr = of.interpolated(str(target["expr"]), RANGE)
    if target["instant"]:
        found = [float(sample["value"][1]) for sample in told.prometheus.query(expr, told.fleet.story.end)]
    else:
        series = told.prometheus.range(expr, END - MINUTES * 60, END)
        found = [float(value) for one in series for _, value in one["values"]]
    return [number for number in found if not math.isnan(number)]


def shown(told: Told, title: str, of: Board = OVERVIEW) -> list[dict[str, Any]]:
    """What a panel's query gives at the end of the story."""
    return told.prometheus.query(of.interpolated(of.expression(title), RANGE), told.fleet.story.end)


@pytest.mark.parametrize("of", BOARDS, ids=lambda of: of.name)
def test_every_panel_has_data_and_every_variable_values(told: Told, of: Board) -> None:
    silent = [
        (panel["title"], target["expr"])
        for panel in of.panels
        for target in panel["targets"]
        if not numbers(told, of, target) and panel["title"] not in SILENT
    ]
    assert not silent
    for variable in of.variables:
        selector, label = of.asked(variable)
        assert told.prometheus.get(f"label/{label}/values", **{"match[]": selector}), variable["name"]


def test_the_totals_are_true_to_the_cent(told: Told) -> None:
    """Over the end of a month, restarts at the same address, and processes that make one call and end."""
    for title in ("Spend today", "Month to date"):
        ((value,),) = ((float(sample["value"][1]),) for sample in shown(told, title))
        assert value == pytest.approx(float(told.spent_since(FIRST)), abs=1e-9)
    assert 0 < told.spent_since(FIRST) < told.spent_since(BEGIN)
    assert told.fleet.one_call_processes == 40
    for what, label in (("model", "gen_ai_request_model"), ("team", "costspan_team"), ("job", "job")):
        found = told.prometheus.query(f"sum by ({label}) (costspan:cost_USD:week_to_date)", END)
        by = {sample["metric"].get(label, ""): float(sample["value"][1]) for sample in found}
        assert by == {name: pytest.approx(float(usd), abs=1e-9) for name, usd in told.spent_by(what).items()}


def test_calls_without_a_team_are_shown(told: Told) -> None:
    teams = {sample["metric"]["costspan_team"] for sample in shown(told, "Spend by team")}
    assert teams >= {"shop", "support", "(none)"}


def test_two_processes_that_share_a_budget_are_one_bar(told: Told) -> None:
    bars = shown(told, "Budgets: used")
    assert sorted(bar["metric"]["costspan_budget_name"] for bar in bars) == sorted(
        budget.name for budget in told.fleet.budgets
    )


def test_alerts_fire_on_what_happened(told: Told) -> None:
    """At the end of the story nothing is amiss but what budgets have spent."""
    shares = [float(bar["value"][1]) for bar in shown(told, "Budgets: used")]
    expected = {
        "CostSpanBudgetExhausted" if share >= 1 else "CostSpanBudgetThreshold" for share in shares if share >= 0.5
    }
    assert expected
    fired = {rule["alert"] for rule in rules(ALERTS) if told.prometheus.query(rule["expr"], END)}
    assert fired == expected


def test_everything_that_is_named_is_emitted(told: Told) -> None:
    """No panel or rule waits for a metric or a label that the code does not make."""
    recorded = {rule["record"] for rule in rules(RECORDING, THRESHOLDS)}
    emitted = told.fleet.history.names | recorded | {"up", "ALERTS"} | ELSEWHERE
    asked = [of.interpolated(target["expr"]) for of in BOARDS for _, target in of.queries()]
    asked += [rule["expr"] for rule in rules(ALERTS, RECORDING, THRESHOLDS)]
    asked += [of.asked(variable)[0] for of in BOARDS for variable in of.variables]
    pairs = set()
    for expr in asked:
        for selector in selectors(expr):
            if selector.name and not selector.name.startswith("costspan:override:"):
                pairs |= {(selector.name, matcher.name) for matcher in selector.matchers.matchers}
                assert selector.name in emitted, selector.name
    waiting = {
        (name, label)
        for name, label in pairs
        if not {name, label} & ELSEWHERE and not told.prometheus.get(f"label/{label}/values", **{"match[]": name})
    }
    assert not waiting
    in_annotations = {
        name for rule in rules(ALERTS) for name in re.findall(r"costspan_\w+_USD", json.dumps(rule["annotations"]))
    }
    assert in_annotations <= emitted


def test_without_the_recording_rules_the_panels_estimate(tmp_path: Path) -> None:
    afternoon = int(BEGIN.replace(hour=15).timestamp())
    with lived(Story(afternoon - 5400, afternoon, one_call_processes=0), tmp_path, recorded=False) as told:
        total = sum(float(sample["value"][1]) for sample in shown(told, "Spend by model"))
    truth = float(sum(told.spent_by("model").values()))
    assert truth * 0.8 < total < truth * 1.05


def test_a_live_scrape_of_the_exporter(tmp_path: Path) -> None:
    """Prometheus itself scrapes what a process exposes, and takes the shipped rules."""
    registry = CollectorRegistry()
    clock = Clock(END)
    shop = process(STORY, MeterProvider([PrometheusMetricReader(registry=registry)]), clock)
    for call in STORY.calls(SERVICES[0], END // 3600):
        shop.call(call)
    server, _thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        config = tmp_path / "live.yml"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                    "rule_files": [str(RECORDING), str(ALERTS)],
                    "scrape_configs": [
                        {"job_name": "shop", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
                    ],
                }
            )
        )
        with serve(tmp_path / "data", config) as prometheus:
            assert prometheus.until("sum(costspan_calls_total)") == shop.calls()
            groups = prometheus.get("rules")["groups"]
            assert sum(len(group["rules"]) for group in groups) == len(rules(RECORDING)) + len(rules(ALERTS))
    finally:
        server.shutdown()
