"""The Overview dashboard as a file: what Grafana would find wrong with it, and what a reader would."""

from __future__ import annotations

import re
from typing import Any, Final

import promql_parser

from tests.grafana.dashboards import board
from tests.grafana.rules import ALERTS, GRAFANA, RECORDING, rules

MACROS: Final = {"$__rate_interval": "5m", "$__range_s": "21600", "$__range": "6h", "$__interval": "1m"}
_BOARD: Final = board("overview")


def panels() -> list[dict[str, Any]]:
    return _BOARD.panels


def variables() -> list[dict[str, Any]]:
    return _BOARD.variables


def interpolated(expr: str, macros: dict[str, str] = MACROS) -> str:
    return _BOARD.interpolated(expr, macros)


def expressions() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def test_every_alert_has_its_words_and_its_runbook() -> None:
    names = set()
    for alert in rules(ALERTS):
        name = alert["alert"]
        names.add(name)
        assert re.fullmatch(r"CostSpan([A-Z][a-z]+)+", name)
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        words = alert["annotations"]
        assert "{{" not in words["summary"], "the summary groups alerts, so it must not vary"
        assert "{{" in words["description"]
        assert words["runbook_url"] == f"https://github.com/costspan/costspan/blob/main/docs/runbooks/{name}.md"
        runbook = (GRAFANA.parent / "docs" / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
        assert runbook.startswith(f"# {name}\n")
    assert {file.stem for file in (GRAFANA.parent / "docs" / "runbooks").iterdir()} == names


def test_every_rule_parses() -> None:
    for rule in (*rules(ALERTS), *rules(RECORDING)):
        promql_parser.parse(rule["expr"])
