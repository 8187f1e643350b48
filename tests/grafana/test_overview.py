"""The Overview dashboard as a file: what Grafana would find wrong with it, and what a reader would."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

import promql_parser
import pytest

from tests.grafana.rules import ALERTS, GRAFANA, RECORDING, rules

FILE: Final = GRAFANA / "dashboards" / "overview.json"
MACROS: Final = {"$__rate_interval": "5m", "$__range": "6h", "$__interval": "1m"}


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def variables() -> list[dict[str, Any]]:
    return [variable for variable in dashboard()["templating"]["list"] if variable["type"] == "query"]


def interpolated(expr: str, macros: dict[str, str] = MACROS) -> str:
    """The expression as Grafana sends it with every variable at All."""
    for variable in variables():
        expr = expr.replace(f"${variable['name']}", variable["allValue"])
    for macro in sorted(macros, key=len, reverse=True):
        expr = expr.replace(macro, macros[macro])
    assert "$" not in expr, f"an unknown variable in {expr}"
    return expr


def expressions() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def selectors(expr: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(
        promql_parser.parse(expr),
        lambda node: (
            found.append(node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node)
            if isinstance(node, (promql_parser.VectorSelector, promql_parser.MatrixSelector))
            else None
        ),
    )
    return found


def test_the_committed_file_is_the_generated_one() -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("grafana_foundation_sdk")
    from grafana.generate import overview, render

    assert FILE.read_text(encoding="utf-8") == render(overview()), "run: python grafana/generate.py"


def test_it_can_be_provisioned_from_a_file_as_it_is() -> None:
    document = dashboard()
    assert document["uid"] == "costspan-overview"
    assert document["schemaVersion"] >= 41
    assert document["editable"] is False
    assert "id" not in document
    assert "__inputs" not in document
    assert document["links"]
    assert document["annotations"]["list"][0]["expr"].startswith("ALERTS")


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_every_query_asks_the_chosen_data_source() -> None:
    for panel in panels():
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    assert dashboard()["templating"]["list"][0]["type"] == "datasource"


def test_all_hides_no_money() -> None:
    """`.+` would drop every series that lacks the label: calls of no team, say."""
    assert [variable["name"] for variable in variables()] == ["job", "provider", "model", "team", "feature"]
    for variable in variables():
        assert variable["allValue"] == ".*"
        assert (variable["multi"], variable["includeAll"], variable["refresh"]) == (True, True, 2)


def test_no_two_panels_overlap() -> None:
    entries = dashboard()["panels"]
    assert len({entry["id"] for entry in entries}) == len(entries)
    taken: set[tuple[int, int]] = set()
    for entry in entries:
        at = entry["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, entry["title"]
        taken |= cells


@pytest.mark.parametrize(("title", "expr"), expressions())
def test_every_expression_parses_and_filters(title: str, expr: str) -> None:
    for selector in selectors(interpolated(expr)):
        assert "job" in {matcher.name for matcher in selector.matchers.matchers}, f"{title}: {selector}"
    if title.startswith("Budget"):
        assert "max by (costspan_budget_name, costspan_budget_period)" in expr


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_what_is_an_estimate_says_so(panel: dict[str, Any]) -> None:
    money = "USD" in json.dumps(panel["targets"]) or "calls_total" in json.dumps(panel["targets"])
    if money and re.search(r"increase\(|rate\(", json.dumps(panel["targets"])):
        assert "estimate" in panel["description"].lower()


def test_counters_are_never_added_up_raw() -> None:
    """A sum of counters falls when a process restarts."""
    for title, expr in expressions():
        raw = re.findall(r"(?<![\w(])sum[^(]*\((?:costspan|gen_ai)\w*_(?:total|count|sum|bucket)\{", expr)
        assert not raw, title


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
