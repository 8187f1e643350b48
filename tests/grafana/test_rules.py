"""The rules, by Prometheus' own tool: each alert fires, does not fire, and is tried at its edge."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.grafana.prometheus import binary
from tests.grafana.rules import ALERTS, GRAFANA, RECORDING, rules

if TYPE_CHECKING:
    from pathlib import Path

TESTS = sorted((GRAFANA / "prometheus" / "tests").glob("*.yml"))


def promtool(*arguments: str) -> None:
    done = subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_without_lint() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS), str(RECORDING))


def test_the_example_configuration_is_valid() -> None:
    promtool("check", "config", str(GRAFANA / "prometheus" / "prometheus.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    promtool("test", "rules", str(file))


def test_every_alert_is_tried_both_ways() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for file in TESTS:
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for tried in case.get("alert_rule_test", ()):
                (fires if tried["exp_alerts"] else silent).add(tried["alertname"])
    names = {rule["alert"] for rule in rules(ALERTS)}
    assert fires == names
    assert silent == names
