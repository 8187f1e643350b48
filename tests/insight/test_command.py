"""`costspan report` and `costspan top`, as people type them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.insight.ledgers import ledger

if TYPE_CHECKING:
    from pathlib import Path


def costspan(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COSTSPAN_"))}
    return subprocess.run(
        [sys.executable, "-m", "costspan", *map(str, arguments)],
        env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "100", **environment},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty days until now, in which a feature asks the dear model 30 times a day, and yesterday 300 times."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    now = datetime.now(UTC).replace(microsecond=0)
    described: list[dict[str, Any]] = []
    for ago in range(40, -1, -1):
        noon = (now - timedelta(days=ago)).replace(hour=0, minute=0, second=0).timestamp()
        times = 300 if ago == 1 else 30
        described += [
            {
                "at": min(noon + 60 * number, now.timestamp() - 1),
                "provider": "openai",
                "model": "gpt-4o",
                "task": "summary",
                "feature": "search",
                "user": f"u{number % 3}",
                "conversation": f"c{ago}",
                "input_tokens": 2_000 + 10 * (ago % 5),
            }
            for number in range(times)
        ]
    ledger(path, described)
    return path


def test_a_month_with_what_follows_from_it(month: Path) -> None:
    running = json.loads(costspan("report", "month", "--ledger", month, "--json", "--no-advice").stdout)
    assert Decimal(running["projection"]["expected"]) >= Decimal(running["summary"]["cost"])
    # On the first of a month, yesterday's calls are in the one before.
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    done = costspan("report", "month", "--date", yesterday, "--ledger", month, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["trend"]["direction"] in {"flat", "rising"}
    assert Decimal(report["forecast"]["expected"]) > 0
    assert [one["direction"] for one in report["anomalies"]["found"]] == ["above"]
    cheaper = next(one for one in report["advice"] if one["category"] == "cheaper_model")
    assert cheaper["subject"]["model"] == "gpt-4o"
    assert Decimal(cheaper["savings"]["expected"]) <= Decimal(report["advice_saves"])
    assert report["efficiency"][0]["calls"] >= 300
    assert sum(Decimal(point["cost"]) for point in report["by_day"]) == Decimal(report["summary"]["cost"])


def test_forms_and_files(month: Path, tmp_path: Path) -> None:
    text = costspan("report", "week", "--ledger", month, "--no-advice").stdout
    assert text.startswith("# The week, ")
    assert "## Advice" not in text
    page = tmp_path / "week.html"
    assert costspan("report", "week", "--ledger", month, "--format", "html", "--out", page).stdout == ""
    assert "<h2>Advice</h2>" in page.read_text(encoding="utf-8")
    by_environment = costspan("report", "conversation", "c1", "--format", "csv", COSTSPAN_LEDGER=str(month))
    assert by_environment.stdout.splitlines()[1].startswith("total,total,300,")


def test_what_a_feature_brings(month: Path) -> None:
    given = ("--revenue", "100", "--users", 50, "--development", "300")
    report = json.loads(costspan("report", "feature", "search", "--ledger", month, "--json", *given).stdout)
    roi = report["roi"]
    assert Decimal(roi["profit"]) == 100 - Decimal(roi["cost"])
    assert roi["break_even"] == math.ceil(300 / Decimal(roi["profit"]))
    text = costspan("report", "feature", "search", "--ledger", month).stdout
    assert "| profit | — | nobody said what it brings |" in text


def test_budgets_of_the_environment_are_in_it(month: Path) -> None:
    budgets = json.dumps([{"name": "all", "limit": "0.01"}])
    report = json.loads(costspan("report", "month", "--ledger", month, "--json", COSTSPAN_BUDGETS=budgets).stdout)
    assert [(line["name"], line["status"]) for line in report["budgets"]] == [("all", "exceeded")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["report", "year"], "KIND must be day, week, month, conversation, session or feature, not 'year'"),
        (["report", "day", "--date", "29.11."], "--date must be a day such as 2026-11-28, not '29.11.'"),
        (["report", "day", "--format", "pdf"], "--format must be text, markdown, json, csv or html, not 'pdf'"),
        (["report", "day", "--zone", "Mars"], "Mars"),
        (["report", "conversation"], "say which conversation"),
        (["report", "conversation", "nobody"], "no calls of conversation 'nobody'"),
        (["report", "day", "c1"], "say which with --date"),
        (["report", "day", "--revenue", "5"], "for a report of a feature"),
        (["report", "feature", "search", "--revenue", "much"], "--revenue must be an amount in USD, not 'much'"),
        (["top", "--by", "colour"], "'colour' is no column of the ledger"),
    ],
)
def test_what_makes_no_sense_is_a_line(month: Path, arguments: list[str], complaint: str) -> None:
    done = costspan(*arguments, "--ledger", month)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_where_there_is_no_ledger(tmp_path: Path) -> None:
    assert "name a ledger with --ledger, or COSTSPAN_LEDGER" in costspan("report", "day").stderr
    missing = costspan("report", "day", "--ledger", tmp_path / "none.db")
    assert (missing.returncode, "there is no ledger at" in missing.stderr) == (1, True)
    (tmp_path / "notes.txt").write_text("not a database at all, but a page of notes\n" * 50, encoding="utf-8")
    other = costspan("report", "day", "--ledger", tmp_path / "notes.txt")
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)


def test_top_looks_once_where_there_is_no_terminal(month: Path) -> None:
    done = costspan("top", "--ledger", month, "--by", "user")
    assert done.returncode == 0
    assert "u0" in done.stdout
    found = json.loads(costspan("top", "--ledger", month, "--json").stdout)
    assert found["groups"][0]["name"] == "openai/gpt-4o"
    assert found["today"]["calls"] == 30
    assert found["at"][:10] == time.strftime("%Y-%m-%d")
