"""The example for Alertmanager, by its own tool and server: whom alerts reach, and which keep others silent."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.grafana import servers
from tests.grafana.prometheus import binary, free_ports
from tests.grafana.rules import ALERTS, GRAFANA, rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG: Final = GRAFANA / "prometheus" / "alertmanager.yml"
BUDGET: Final = {"costspan_budget_name": "company", "costspan_budget_period": "2026-11"}
NAMES: Final = {rule["alert"] for rule in rules(ALERTS)}


def amtool(*arguments: str) -> str:
    done = subprocess.run([binary("amtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_example_is_valid() -> None:
    amtool("check-config", str(CONFIG))


@pytest.mark.parametrize(
    ("alert", "severity", "receiver"),
    [
        ("CostSpanBudgetExhausted", "critical", "costspan-critical"),
        ("CostSpanSpendSpike", "warning", "costspan-warning"),
        ("CostSpanPriceBookOld", "info", "costspan-info"),
        ("HostDown", "critical", "default"),
    ],
)
def test_alerts_go_by_their_severity(alert: str, severity: str, receiver: str) -> None:
    labels = (f"alertname={alert}", f"severity={severity}")
    assert amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels) == receiver


def test_the_inhibitions_name_alerts_that_are_there() -> None:
    for rule in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["inhibit_rules"]:
        for matchers in (rule["source_matchers"], rule["target_matchers"]):
            (pattern,) = (re.split("=~?", matcher)[1].strip('"') for matcher in matchers if "alertname" in matcher)
            assert [name for name in NAMES if re.fullmatch(pattern, name)], pattern
            for part in re.findall(r"CostSpan\w+", pattern):
                assert part in NAMES | {"CostSpan"}, part


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with the example, which sends nothing anywhere: its receivers are emptied."""
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config["receivers"] = [{"name": receiver["name"]} for receiver in config["receivers"]]
    (folder / "alertmanager").mkdir()
    (folder / "alertmanager" / "alertmanager.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    with servers.alertmanager(folder, port) as url:
        yield url


def states(url: str, alerts: list[dict[str, str]]) -> dict[tuple[str, ...], str]:
    """Send alerts, and give the state of each by its labels' values, once Alertmanager has grouped them all."""
    body = json.dumps([{"labels": labels} for labels in alerts]).encode()
    request = urllib.request.Request(f"{url}/api/v2/alerts", body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    deadline = time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        told = {tuple(sorted(one["labels"].values())): one["status"]["state"] for one in found}
        wanted = [tuple(sorted(labels.values())) for labels in alerts]
        if all(told.get(one, "unprocessed") != "unprocessed" for one in wanted):
            return {one: told[one] for one in wanted}
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


def test_an_exhausted_budget_silences_what_it_would_be_warned_of(alertmanager: str) -> None:
    """Its own warnings in the same period; neither another budget's, nor that calls are refused."""
    other = {**BUDGET, "costspan_budget_name": "search"}
    told = states(
        alertmanager,
        [
            {"alertname": "CostSpanBudgetExhausted", "severity": "critical", **BUDGET},
            {"alertname": "CostSpanBudgetBurnFast", "severity": "critical", **BUDGET},
            {"alertname": "CostSpanBudgetForecastExceeded", "severity": "warning", **BUDGET},
            {"alertname": "CostSpanCallsRefused", "severity": "critical", "costspan_budget_name": "company"},
            {"alertname": "CostSpanBudgetBurnFast", "severity": "critical", **other},
            {"alertname": "CostSpanBudgetBurnSlow", "severity": "warning", **other},
            {"alertname": "CostSpanErrorRateHigh", "severity": "warning", "job": "shop"},
            {"alertname": "CostSpanErrorRateHigh", "severity": "warning", "job": "search"},
            {"alertname": "CostSpanMetricsAbsent", "severity": "warning", "job": "shop"},
        ],
    )
    active = {(*labels,) for labels, state in told.items() if state == "active"}
    assert {
        tuple(label for label in labels if label not in {"critical", "warning", "2026-11"}) for labels in active
    } == {
        ("CostSpanBudgetExhausted", "company"),
        ("CostSpanCallsRefused", "company"),
        ("CostSpanBudgetBurnFast", "search"),
        ("CostSpanErrorRateHigh", "search"),
        ("CostSpanMetricsAbsent", "shop"),
    }
