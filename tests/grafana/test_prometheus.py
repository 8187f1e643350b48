"""The dashboard and the rules against a real Prometheus, fed by the real processor through the real exporter."""

from __future__ import annotations

import json
import math
import random
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest
from prometheus_client import start_http_server

from costspan_processor.budgets.memory import MemoryStore
from tests.grafana.fleet import BUDGETS, Process, Story, tell
from tests.grafana.prometheus import Prometheus, load, serve
from tests.grafana.rules import ALERTS, RECORDING, blocks, rules
from tests.grafana.test_overview import expressions, interpolated, panels, selectors, variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An hour and a half of calls which end 55 minutes into a month: both panels that begin at a date must cut there.
END = int(datetime(2026, 11, 1, 0, 55, tzinfo=UTC).timestamp())
MINUTES = 90
RANGE = {"$__rate_interval": "5m", "$__range": f"{MINUTES * 60}s", "$__interval": "60s"}


class Told(NamedTuple):
    prometheus: Prometheus
    story: Story


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The story, with what the recording rules make of it."""
    data = tmp_path_factory.mktemp("prometheus") / "data"
    story = tell(END, MINUTES)
    blocks(story, MINUTES, data)
    with serve(data) as prometheus:
        yield Told(prometheus, story)


def numbers(prometheus: Prometheus, target: dict[str, object]) -> list[float]:
    """All values that a panel's query gives over the story, NaN left out."""
    expr = interpolated(str(target["expr"]), RANGE)
    if target["instant"]:
        found = [float(sample["value"][1]) for sample in prometheus.query(expr, END)]
    else:
        series = prometheus.range(expr, END - MINUTES * 60, END)
        found = [float(value) for one in series for _, value in one["values"]]
    return [number for number in found if not math.isnan(number)]


def test_every_panel_has_data_and_every_variable_values(told: Told) -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert numbers(told.prometheus, target), f"{panel['title']}: {target['expr']}"
    for variable in variables():
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        values = told.prometheus.get(f"label/{asked[2]}/values", **{"match[]": interpolated(asked[1])})
        assert values, variable["name"]


def test_the_totals_are_true_to_the_cent(told: Told) -> None:
    """Over the end of a month, a restart at the same address, and a process that had spent before its first scrape."""
    story = told.story
    shown = {panel["title"]: panel["targets"][0]["expr"] for panel in panels()}
    today = told.prometheus.value(interpolated(shown["Spend today"], RANGE), END)
    month = told.prometheus.value(interpolated(shown["Month to date"], RANGE), END)
    assert today == pytest.approx(float(story.today), abs=1e-9)
    assert month == pytest.approx(float(story.month_to_date), abs=1e-9)
    assert 0 < story.month_to_date < sum(story.by_model.values())
    by_model = {
        sample["metric"]["gen_ai_request_model"]: float(sample["value"][1])
        for sample in told.prometheus.query(interpolated(shown["Spend by model"], RANGE), END)
    }
    assert by_model == {model: pytest.approx(float(usd), abs=1e-9) for model, usd in story.by_model.items() if usd}


def test_calls_without_a_team_are_shown(told: Told) -> None:
    (expr,) = (panel["targets"][0]["expr"] for panel in panels() if panel["title"] == "Spend by team")
    teams = {sample["metric"]["costspan_team"] for sample in told.prometheus.query(interpolated(expr, RANGE), END)}
    assert teams == {"search", "support", "data", "(none)"}


def test_two_processes_that_share_a_budget_are_one_bar(told: Told) -> None:
    (expr,) = (panel["targets"][0]["expr"] for panel in panels() if panel["title"] == "Budget utilization")
    bars = told.prometheus.query(interpolated(expr, RANGE), END)
    assert {bar["metric"]["costspan_budget_name"] for bar in bars} == {budget.name for budget in BUDGETS}
    assert {bar["metric"]["costspan_budget_period"] for bar in bars} == {"2026-11", "2026-11-01"}


def test_alerts_fire_on_what_happened(told: Told) -> None:
    fired = {rule["alert"] for rule in rules(ALERTS) if told.prometheus.query(rule["expr"], END)}
    assert fired == {"CostSpanUnpricedModel", "CostSpanCallsRefused"}


def test_everything_that_is_named_is_emitted(told: Told) -> None:
    """No panel or rule waits for a metric or a label that the code does not make."""
    recorded = {rule["record"] for rule in rules(RECORDING)}
    named = [interpolated(expr) for _, expr in expressions()]
    named += [rule["expr"] for rule in (*rules(ALERTS), *rules(RECORDING))]
    named += [interpolated(variable["query"]["query"].split("(")[1].rsplit(",", 1)[0]) for variable in variables()]
    for expr in named:
        for selector in selectors(expr):
            assert selector.name in told.story.history.names | recorded, selector.name
            for matcher in selector.matchers.matchers:
                known = told.prometheus.get(f"label/{matcher.name}/values", **{"match[]": selector.name})
                assert known, f"{selector.name} has no label {matcher.name}"
    in_annotations = {
        name for rule in rules(ALERTS) for name in re.findall(r"costspan_\w+_USD", json.dumps(rule["annotations"]))
    }
    assert in_annotations <= told.story.history.names
    labels = set(told.prometheus.get("labels"))
    legends = {
        label for panel in panels() for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    }  # fmt: skip
    assert legends <= labels


def test_without_the_recording_rules_the_panels_estimate(told: Told, tmp_path: Path) -> None:
    load(told.story.history, tmp_path / "data")
    with serve(tmp_path / "data") as prometheus:
        for panel in panels():
            for target in panel["targets"]:
                assert numbers(prometheus, target), panel["title"]
        (expr,) = (panel["targets"][0]["expr"] for panel in panels() if panel["title"] == "Spend by model")
        total = prometheus.value(f"sum({interpolated(expr, RANGE)})", END)
    truth = float(sum(told.story.by_model.values()))
    assert truth * 0.8 < total < truth * 1.05


def test_a_live_scrape_of_the_exporter(tmp_path: Path) -> None:
    """Prometheus itself scrapes what a process exposes, and takes the shipped rules."""
    process = Process(MemoryStore())
    process.now = END
    for _ in range(3):
        process.minute(random.Random(1))
    server, _thread = start_http_server(0, addr="127.0.0.1", registry=process.registry)
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
            assert prometheus.until("sum(costspan_calls_total)") == process.calls()
            groups = prometheus.get("rules")["groups"]
            assert sum(len(group["rules"]) for group in groups) == len(rules(RECORDING)) + len(rules(ALERTS))
    finally:
        server.shutdown()
