"""Reports: what they say of calls that are known, in every form."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.markdown import Markdown
from sqlalchemy import event

from costspan.insight.figures import Figures
from costspan.insight.report import Kind, build, stretch_of
from costspan.insight.show import write
from costspan_processor.budgets import Budget
from costspan_processor.ledger.rows import COLUMNS
from costspan_processor.ledger.store import open_ledger
from tests.insight.ledgers import ledger, rows

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp()
"""The third is half over, the month has its third day."""


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    sonnet = {"task": "summary", "feature": "search", "team": "core", "user": "ann"}  # $0.006 each
    described: list[dict[str, Any]] = [
        {"at": "2026-11-02 09:00", **sonnet},
        {"at": "2026-11-02 15:00", **sonnet},
        {"at": "2026-11-03 09:00", **sonnet, "conversation": "c1"},
        {"at": "2026-11-03 09:30", **sonnet, "conversation": "c1", "input_tokens": 3_000},  # 3,000 × 3 + 200 × 15
        {"at": "2026-11-03 10:00", "user": "=cmd|' /C calc'!A1", "task": "a|b", "model": "claude-haiku-4-5"},
        {"at": "2026-11-03 11:00", "model": "nobody-has-this-one"},
    ]
    return Figures(ledger(tmp_path / "ledger.db", described))


def of(figures: Figures, kind: Kind, day: date | None = None, **arguments: Any) -> dict[str, Any]:
    stretch = stretch_of(kind, day, NOW, "UTC") if kind in {"day", "week", "month"} else None
    return build(figures, kind, stretch=stretch, now=NOW, **arguments)


def test_a_day(figures: Figures) -> None:
    report = of(figures, "day")
    assert report["period"]["id"] == "2026-11-03"
    assert not report["period"]["complete"]
    summary = report["summary"]
    assert (summary["calls"], summary["unpriced"]) == (4, 1)
    assert summary["cost"] == Decimal("0.006") + Decimal("0.012") + Decimal("0.002")
    assert [point["calls"] for point in report["by_hour"]] == [0] * 9 + [2, 1, 1] + [0] * 12
    # By noon of the day before, one call had been made.
    assert report["previous"] == {
        "id": "2026-11-02",
        "complete": False,
        "cost": Decimal("0.006"),
        "calls": 1,
        "change": pytest.approx(0.020 / 0.006 - 1),
    }
    assert report["unpriced"] == [
        {"provider": "anthropic", "model": "nobody-has-this-one", "status": "unknown_model", "calls": 1}
    ]
    tasks = {line["name"]: (line["calls"], line["cost"]) for line in report["by_task"]}
    assert tasks == {
        "summary": (2, Decimal("0.018")),
        "a|b": (1, Decimal("0.002")),
        "(not said)": (1, None),  # its model has no price, which is not the same as free
    }
    assert sum(line["share"] for line in report["by_user"]) == pytest.approx(1)
    assert report["by_persona"] == []


def test_a_month_against_its_budgets(figures: Figures) -> None:
    budgets = [
        Budget("all", "0.04"),
        Budget("core", "0.03", scope={"team": "core"}, soft_limit="0.01"),
        Budget("each", "0.025", per="user", period="day"),
        Budget("route", 1, scope={"http.route": "/ask"}),
    ]
    lines = {line["name"]: line for line in of(figures, "month", budgets=budgets)["budgets"]}
    assert lines["all"]["spent"] == Decimal("0.032")
    assert lines["all"]["status"] == "warning"
    assert lines["all"]["tomorrow"] == round(Decimal("0.008") / 27, 12)  # of the 30 days, 27 come after today
    assert lines["core"]["status"] == "exceeded"
    assert lines["core"]["remaining"] == 0
    assert lines["each of ann"]["spent"] == Decimal("0.018")
    assert (lines["route"]["spent"], lines["route"]["status"]) == (None, "unknown")
    assert "http.route" in lines["route"]["note"]


def test_a_conversation_call_by_call(figures: Figures) -> None:
    report = of(figures, "conversation", subject="c1")
    assert [call["so_far"] for call in report["calls"]] == [Decimal("0.006"), Decimal("0.018")]
    assert report["summary"]["cost"] == Decimal("0.018")
    assert [point["start"] for point in report["by_day"]] == ["2026-11-03"]


def test_what_there_is_nothing_to_say_of(figures: Figures, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no calls of conversation 'c9'"):
        of(figures, "conversation", subject="c9")
    with pytest.raises(ValueError, match="say which session"):
        of(figures, "session")
    with pytest.raises(ValueError, match="the ledger is empty"):
        of(Figures(ledger(tmp_path / "empty.db")), "conversation", subject="c1")


def test_of_many_users_the_dearest_are_named_and_the_others_are_one_line(tmp_path: Path) -> None:
    described: list[dict[str, Any]] = [{"user": f"user {one}", "input_tokens": 1_000 * one} for one in range(1, 31)]
    everybody = of(Figures(ledger(tmp_path / "named.db", described)), "day", date(2026, 11, 2))
    *named, others = everybody["by_user"]
    assert [line["name"] for line in named] == [f"user {one}" for one in range(30, 10, -1)]
    assert (others["name"], others["calls"], others["input_tokens"]) == ("(others): 10", 10, 55_000)
    assert others["cost"] + sum(line["cost"] for line in named) == everybody["summary"]["cost"]
    # Where some calls name nobody they are a line too, and the dearest here.
    described += [{"input_tokens": 100_000}]
    first, *_, others = of(Figures(ledger(tmp_path / "some.db", described)), "day", date(2026, 11, 2))["by_user"]
    assert (first["name"], first["calls"]) == ("(not said)", 1)
    assert (others["name"], others["calls"], others["input_tokens"]) == ("(others): 11", 11, 66_000)


def test_a_report_is_of_one_state_of_the_ledger(figures: Figures, tmp_path: Path) -> None:
    """Calls that are written while it is made would make its parts more than their total."""
    quick = open_ledger(str(tmp_path / "ledger.db"))
    written = count(100)

    def write_one(*_: object) -> None:
        one = next(written)
        said = {"at": "2026-11-03 10:30", "user": "bob", "id": f"{one}:{one}", "sequence": one}
        quick.write([tuple(row[name] for name in COLUMNS) for row in rows([said])])

    event.listen(figures.engine, "after_cursor_execute", write_one)
    report = of(figures, "day")
    assert next(written) > 110
    for name in ("by_user", "by_task", "by_model", "by_hour"):
        assert sum(line["calls"] for line in report[name]) == report["summary"]["calls"] < 10
    assert of(figures, "day")["summary"]["calls"] > 10


def test_an_empty_day_has_a_report(figures: Figures) -> None:
    report = of(figures, "day", date(2026, 10, 1))
    assert report["summary"]["cost"] == 0
    assert report["by_model"] == report["top_calls"] == []
    for form in ("markdown", "html", "csv", "json"):
        assert "2026-10-01" in write(report, form) or form == "csv"


def test_json_is_exact(figures: Figures) -> None:
    report = json.loads(write(of(figures, "month"), "json"))
    assert report["summary"]["cost"] == "0.032"
    assert report["by_model"][0]["cost"] == "0.03"


def test_csv_adds_up_and_holds_no_formula(figures: Figures) -> None:
    lines = list(csv.DictReader(io.StringIO(write(of(figures, "day"), "csv"))))
    for section in ("model", "task", "user", "hour"):
        assert sum(Decimal(line["cost_usd"] or 0) for line in lines if line["section"] == section) == Decimal("0.020")
    assert "'=cmd|' /C calc'!A1" in [line["name"] for line in lines]
    assert not [line["name"] for line in lines if line["name"].startswith("=")]


def test_names_stay_in_their_cells(figures: Figures) -> None:
    markdown = write(of(figures, "day"), "markdown")
    row = next(line for line in markdown.splitlines() if "a\\|b" in line)
    assert row.count("|") - row.count("\\|") == 9


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    described = [{"at": "2026-11-03 09:00", "user": "<script>alert(1)</script>", "task": "[x](javascript:alert(1))"}]
    report = of(Figures(ledger(tmp_path / "ledger.db", described)), "day")
    page = write(report, "html")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    shown = Markdown(write(report, "markdown"))
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(shown)
    text = console.export_text(clear=False)
    assert "<script>alert(1)</script>" in text
    assert "[x](javascript:alert(1))" in text
    assert "href" not in console.export_html()
