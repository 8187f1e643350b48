"""The rules, by Prometheus' own tool: each alert fires, does not fire, and is tried at its edge."""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import promql_parser
import pytest
import yaml

from tests.grafana.prometheus import binary
from tests.grafana.rules import ALERTS, FILES, GRAFANA, RECORDING, THRESHOLDS, needed, read, rules

if TYPE_CHECKING:
    from pathlib import Path

TESTS: Final = sorted((GRAFANA / "prometheus" / "tests").glob("*_test.yml"))
RUNBOOKS: Final = GRAFANA.parent / "docs" / "runbooks"
NAMES: Final = sorted({rule["alert"] for rule in rules(ALERTS)})
WHOLE: Final = {"thresholds_test", "CostSpanRulesAbsent"}
"""Subjects whose cases are about how the files work together."""
DASHBOARDS_PAGE: Final = GRAFANA.parent / "docs" / "dashboards.md"
DASHBOARDS: Final = {"overview", "budgets", "models", "allocation", "efficiency", "health"}

# The oldest Prometheus that the rules are for, and the present one.
tools: Final = pytest.mark.parametrize("tool", ["promtool", "promtool3"])


def cases() -> dict[str, list[dict[str, Any]]]:
    """All cases, by the alert their name begins with; those of the recording rules by their file."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in TESTS:
        content = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for case in content["tests"]:
            alert = case["name"].split()[0]
            subject = alert if alert.startswith("CostSpan") else file.stem
            found[subject].append({"file": file, "evaluation_interval": content["evaluation_interval"], **case})
    return found


CASES: Final = cases()


def run(tool: str, *arguments: str) -> None:
    # Collecting garbage less often saves a fifth of the time.
    environment = {**os.environ, "GOGC": "400"}
    done = subprocess.run([binary(tool), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@tools
def test_the_rules_are_without_lint(tool: str) -> None:
    run(tool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))


@tools
def test_the_example_configuration_is_valid(tool: str) -> None:
    run(tool, "check", "config", str(GRAFANA / "prometheus" / "prometheus.yml"))


@tools
@pytest.mark.parametrize("subject", sorted({*CASES} - WHOLE))
def test_the_rules_do_what_their_cases_say(subject: str, tool: str, tmp_path: Path) -> None:
    """With the rules that the cases need and no others, which is ten times as quick."""
    named = re.findall(r"CostSpan\w+", str(CASES[subject]))
    groups = needed({*named} | read(str(CASES[subject])))
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    for number, case in enumerate(CASES[subject]):
        test = {
            "rule_files": ["rules.yml"],
            "evaluation_interval": case["evaluation_interval"],
            "group_eval_order": [group["name"] for group in groups],
            "tests": [{key: value for key, value in case.items() if key not in {"file", "evaluation_interval"}}],
        }
        (tmp_path / f"{number}_test.yml").write_text(yaml.safe_dump(test))
    run(tool, "test", "rules", *map(str, sorted(tmp_path.glob("*_test.yml"))))


@tools
@pytest.mark.parametrize("name", ["thresholds_test", "rules_absent_test"])
def test_the_files_work_together(name: str, tool: str) -> None:
    """Alerts with overridden thresholds, and alerts without the other files: as promtool finds them in the folder."""
    run(tool, "test", "rules", str(GRAFANA / "prometheus" / "tests" / f"{name}.yml"))


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_is_tried_three_ways(alert: str) -> None:
    """It fires, with its words; it is silent; and at its edge the subject called over fires, the one called edge not.

    An edge in time is one subject that is silent at first and fires later.
    """
    ways: dict[str, list[dict[str, Any]]] = {"fires": [], "silent": [], "edge": []}
    for case in CASES[alert]:
        for way, found in ways.items():
            if re.search(rf"\b{way}\b", case["name"]):
                found.append(case)
    assert all(ways.values()), {way: len(found) for way, found in ways.items()}
    worded = [
        expected
        for case in ways["fires"]
        for tried in case.get("alert_rule_test", ())
        if tried["alertname"] == alert
        for expected in tried["exp_alerts"]
    ]
    assert worded
    assert all(expected["exp_annotations"]["description"] for expected in worded)
    for case in ways["edge"]:
        tried = [
            *(one["exp_alerts"] for one in case.get("alert_rule_test", ()) if one["alertname"] == alert),
            *(one.get("exp_samples", []) for one in case.get("promql_expr_test", ()) if alert in one["expr"]),
        ]
        assert any(tried), case["name"]
        if "edge" in str(case["input_series"]):
            assert "over" in str(tried)
            assert "edge" not in str(tried)
        else:
            assert [] in tried, case["name"]


def test_every_alert_has_its_words_and_its_runbook() -> None:
    names = set()
    for alert in rules(ALERTS):
        name = alert["alert"]
        names.add(name)
        assert re.fullmatch(r"CostSpan([A-Z][a-z]+)+", name)
        severity = alert["labels"]["severity"]
        assert severity in {"critical", "warning", "info"}
        assert {*alert["labels"]} <= {"severity", "threshold"}
        words = alert["annotations"]
        assert {*words} == {"summary", "description", "runbook_url", "dashboard_url"}
        assert "{{" not in words["summary"], "the summary groups alerts, so it must not vary"
        assert "{{" in words["description"]
        assert words["runbook_url"] == f"https://github.com/costspan/costspan/blob/main/docs/runbooks/{name}.md"
        dashboard = re.match(r"/d/costspan-(\w+)(\?|$)", words["dashboard_url"])
        assert dashboard is not None
        assert dashboard[1] in DASHBOARDS
        runbook = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        assert runbook.startswith(f"# {name}\n\n**")
        assert f"`{severity}`" in runbook, f"{name}: the runbook does not say that it is {severity}"
        assert "## What to do" in runbook
    assert {file.stem for file in RUNBOOKS.iterdir()} == names


def test_every_rule_parses() -> None:
    for rule in rules(*FILES):
        promql_parser.parse(rule["expr"])


def test_rules_read_only_what_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules(RECORDING, THRESHOLDS)}
    for rule in rules(*FILES):
        assert read(rule["expr"] + str(rule.get("annotations", ""))) <= recorded


def test_every_threshold_is_read_and_may_be_overridden() -> None:
    """And the table in the documentation gives its name, default and alerts as they are."""
    told = {
        found[1]: (found[2], re.findall(r"\[(CostSpan\w+)\]", found[4]))
        for found in re.finditer(
            r"^\| `(\w+)` \| ([\d.]+) \| (\S[^|]*) \| ([^|]+) \|",
            DASHBOARDS_PAGE.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    }
    real = {}
    for rule in rules(THRESHOLDS):
        name = rule["record"].removeprefix("costspan:threshold:")
        if name == rule["record"]:
            continue
        default = re.search(r"vector\(([\d.]+)\)", rule["expr"])
        assert default is not None
        assert len(re.findall(rf"costspan:override:{name}\b", rule["expr"])) == 2
        readers = {alert["alert"] for alert in rules(ALERTS) if re.search(rf"{rule['record']}\b", alert["expr"])}
        assert readers, f"no alert reads {name}"
        real[name] = (default[1], sorted(readers))
    assert {name: (default, sorted(alerts)) for name, (default, alerts) in told.items()} == real
