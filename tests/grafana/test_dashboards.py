"""The dashboards as files: what Grafana would find wrong with them, what its linter would, and what a reader would.

The rules of Grafana's dashboard-linter are kept but for three: All is `.*` and not `.+`, since series without a label
must not fall out of it; there is no variable `instance`, since money is not looked at by process; and the job's All has
no value, so that it is the list of the chosen service's jobs.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from tests.docs.generate import collector_metrics, metrics
from tests.grafana.dashboards import BOARDS, FOLDER, Board, selectors
from tests.grafana.rules import RECORDING, rules

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def test_the_committed_files_are_the_generated_ones() -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("grafana_foundation_sdk")
    from grafana.generator import rendered

    assert {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()} == rendered()


def test_there_is_a_dashboard_for_each_question() -> None:
    assert {board.document["uid"] for board in BOARDS} == {
        f"costspan-{name}" for name in ("overview", "budgets", "models", "allocation", "efficiency", "health")
    }
    assert len({board.document["title"] for board in BOARDS}) == len(BOARDS)


@each_board
def test_it_is_provisioned_from_a_file_as_it_is(board: Board) -> None:
    document = board.document
    assert document["uid"] == f"costspan-{board.name}"
    assert document["schemaVersion"] >= 41
    assert document["editable"] is False
    assert "id" not in document
    assert "__inputs" not in document
    assert "__requires" not in document


@each_board
def test_it_leads_to_the_others_and_keeps_what_was_chosen(board: Board) -> None:
    (others,) = (link for link in board.document["links"] if link["type"] == "dashboards")
    assert others["tags"] == ["costspan"]
    assert "costspan" in board.document["tags"]
    assert others["includeVars"] is True
    assert others["keepTime"] is True


def test_links_lead_to_dashboards_and_variables_that_exist() -> None:
    known = {board.document["uid"]: {variable["name"] for variable in board.variables} for board in BOARDS}
    found = 0
    for board in BOARDS:
        for panel in board.panels:
            for link in panel["fieldConfig"]["defaults"].get("links") or []:
                uid, variable = re.fullmatch(r"/d/([\w-]+)\?\$\{__url_time_range\}&var-(\w+)=.+", link["url"]).groups()  # type: ignore[union-attr]
                assert variable in known[uid], link
                found += 1
    assert found


@each_board
def test_it_shows_alerts_and_budget_events_on_its_graphs(board: Board) -> None:
    by_name = {one["name"]: one["expr"] for one in board.document["annotations"]["list"]}
    assert by_name["Alerts"].startswith("ALERTS{")
    assert "costspan_budget_events_total" in by_name["Budget events"]
    for expr in by_name.values():
        selectors(board.interpolated(expr))


@each_board
def test_every_panel_says_what_it_shows_and_in_which_unit(board: Board) -> None:
    for panel in board.panels:
        assert panel["title"]
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["description"].rstrip().endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@each_board
def test_every_query_asks_the_chosen_data_source(board: Board) -> None:
    first, *_ = board.document["templating"]["list"]
    assert (first["type"], first["name"], first["query"]) == ("datasource", "datasource", "prometheus")
    for panel in board.panels:
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    for variable in board.variables:
        assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_board
def test_all_hides_no_money(board: Board) -> None:
    """`.+` would drop every series that lacks the label: calls of no team, say."""
    names = [variable["name"] for variable in board.variables]
    assert names[:2] == ["service", "job"]
    if board.name != "budgets":
        assert names[2:6] == ["provider", "model", "team", "feature"]
    for variable in board.variables:
        assert variable["label"]
        assert variable["description"]
        assert variable["refresh"] == 2, "the values are those of the time range"
        selectors(board.asked(variable)[0])
        if variable["name"] == "whatif":
            continue
        assert (variable["multi"], variable["includeAll"]) == (True, True)
        assert variable.get("allValue", "") == ("" if variable["name"] == "job" else ".*")


@each_board
def test_no_two_panels_overlap_and_no_row_has_a_hole(board: Board) -> None:
    entries = board.document["panels"]
    assert len({entry["id"] for entry in entries}) == len(entries)
    taken: set[tuple[int, int]] = set()
    for entry in entries:
        at = entry["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, entry["title"]
        taken |= cells
    assert len(taken) == 24 * (max(y for _, y in taken) + 1), "some part of the page is empty"


@each_board
def test_every_expression_parses_and_filters_by_job(board: Board) -> None:
    for title, target in board.queries():
        for selector in selectors(board.interpolated(target["expr"])):
            # How long the rules run is a fact of the Prometheus; what another model would cost is of no job.
            if selector.name == "costspan:rules:running" or "whatif" in str(target["expr"]):
                continue
            assert "job" in {matcher.name for matcher in selector.matchers.matchers}, f"{title}: {selector}"


@each_board
def test_budgets_that_several_processes_report_are_read_once(board: Board) -> None:
    for title, target in board.queries():
        for gauge in re.finditer(
            r"costspan_budget_(?:spent|held|limit|remaining|unsettled)_USD|costspan_budget_util", target["expr"]
        ):
            before = target["expr"][: gauge.start()]
            assert re.search(r"max by \(costspan_budget_name(?:, costspan_budget_period)?\) \((?:deriv\()?$", before), (
                f"{title}: {target['expr']}"
            )


@each_board
def test_rates_are_taken_over_what_the_scrape_interval_allows(board: Board) -> None:
    for title, target in board.queries():
        for window in re.findall(r"\brate\([^\[]+\[([^\]]+)\]", target["expr"]):
            assert window == "$__rate_interval", title


@each_board
def test_counters_are_never_added_up_raw(board: Board) -> None:
    """A sum of counters falls when a process restarts."""
    for title, target in board.queries():
        raw = re.findall(r"(?<![\w(])sum[^(]*\((?:costspan|gen_ai)\w*_(?:total|count|sum|bucket)\{", target["expr"])
        assert not raw, title


@pytest.mark.parametrize(
    ("board", "panel"),
    [pytest.param(board, panel, id=f"{board.name}: {panel['title']}") for board in BOARDS for panel in board.panels],
)
def test_what_is_an_estimate_says_so(board: Board, panel: dict[str, Any]) -> None:
    asked = json.dumps([target["expr"] for target in panel["targets"]])
    if "Not filtered by team" in panel["description"] and "costspan_" not in asked:
        return  # shares and percentiles of histograms
    if re.search(r"increase\(|rate\(", asked):
        assert "estimate" in panel["description"].lower()


def test_rules_that_dashboards_read_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules(RECORDING)}
    for board in BOARDS:
        for title, target in board.queries():
            for selector in selectors(board.interpolated(target["expr"])):
                if selector.name is not None and ":" in selector.name:
                    assert selector.name in recorded, f"{board.name}, {title}: {selector.name}"


NOT_CHARTED = {
    "gen_ai_client_inference_": "COSTSPAN_GENAI_METRICS=next, whose conventions still change: docs/dashboards.md",
    "gen_ai_client_embeddings_": "likewise",
}
"""Beginnings of the names of metrics that no dashboard shows, and why."""


def families(*generations: str) -> set[str]:
    """Names in Prometheus of all metrics that a process emits, histograms without their endings."""
    found = [*collector_metrics(), *(metric for name in generations for metric in metrics(name))]
    return {metric.prometheus.removesuffix("_bucket") for metric in found}


def test_every_metric_that_is_emitted_is_charted_or_left_out_on_purpose() -> None:
    asked = json.dumps([target["expr"] for board in BOARDS for _, target in board.queries()])
    asked += json.dumps([board.document["annotations"] for board in BOARDS])
    unseen = {
        name for name in families("current", "next") if not re.search(rf"\b{name}(?:_bucket|_sum|_count)?\b", asked)
    }
    assert {name for name in unseen if not name.startswith(tuple(NOT_CHARTED))} == set()
    for start in NOT_CHARTED:
        assert any(name.startswith(start) for name in unseen)


def test_nothing_is_asked_for_that_is_not_emitted() -> None:
    emitted = families("current")
    emitted |= {f"{name}{part}" for name in emitted for part in ("_bucket", "_sum", "_count")}
    elsewhere = {"ALERTS": "Prometheus' own", "target_info": "every exporter's"}
    for board in BOARDS:
        exprs = [target["expr"] for _, target in board.queries()]
        exprs += [one["expr"] for one in board.document["annotations"]["list"]]
        exprs = [board.interpolated(expr) for expr in exprs] + [board.asked(one)[0] for one in board.variables]
        for selector in (found for expr in exprs for found in selectors(expr)):
            if selector.name is not None and ":" not in selector.name:
                assert selector.name in emitted or selector.name in elsewhere, f"{board.name}: {selector.name}"
