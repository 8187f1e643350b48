"""The HTTP API: what it answers, to whom, and what it never does."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as listening
from sqlalchemy import insert, select, text
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from costspan.cli import main
from costspan.insight.figures import Figures
from costspan.insight.serve import app
from costspan.insight.serve.gate import BASE, LARGEST_BODY
from costspan.insight.serve.keys import Keys, add_key, of_environment, remove_key
from costspan.settings import Settings
from costspan_processor.attribution import attributed, attributes_of, attribution, exchange
from costspan_processor.budgets.store import Record
from costspan_processor.budgets.stores import open_store
from costspan_processor.ledger.schema import audit, calls, events
from tests.bars.report import on_path
from tests.insight.ledgers import ledger
from tests.insight.served import BUDGETS, KEYS, READS, WRITES, dear, event, fill, schemathesis, serving
from tests.ledger.postgres import MISSING, PostgreSQL, binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from costspan.insight.serve.gate import Gate

    Open = Callable[..., "Api"]

DAY = "2026-11-03"
CALLS: list[dict[str, Any]] = [
    {"at": "2026-11-02 23:30", "feature": "search", "user": "ann"},
    {"at": "2026-11-03 09:15", "feature": "search", "user": "ann", "cache_read_tokens": 800},
    {"at": "2026-11-03 09:45", "feature": "summary", "user": "bob", "tags": {"tenant": "acme"}},
    {"at": "2026-11-03 18:45", "model": "claude-haiku-4-5", "team": "ml"},
    {"at": "2026-11-03 20:00", "provider": "acme", "model": "unheard-of", "user": "bob", "session": "s"},
]
COST = {"search": "0.00384", "summary": "0.006", "haiku": "0.002"}
"""USD. 200 input, 800 read and 200 output; 1,000 and 200; the same for a third of the price."""


class Api(TestClient):
    """Asks with a key, and takes JSON."""

    @property
    def gate(self) -> Gate:
        return cast("Gate", self.app)

    def json(self, path: str, status: int = 200, method: str = "GET", **more: Any) -> Any:
        answer = self.request(method, f"{BASE}/{path}", **more)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return ledger(tmp_path / "ledger.db", CALLS)


@pytest.fixture
def opened(tmp_path: Path, engine: Engine) -> Iterator[Open]:
    """Opens the API over the ledger, by default with the key that may write."""
    (tmp_path / "costspan.toml").write_text(BUDGETS)
    made = []

    def open_api(secret: str | None = WRITES, *, over: Engine = engine, store: str = "memory:", **more: Any) -> Api:
        given = Settings(config_file=str(tmp_path / "costspan.toml"), budget_store=store, **more.pop("settings", {}))
        more.setdefault("keys", Keys(of_environment({"COSTSPAN_API_KEYS": KEYS})))
        application = app(over, settings=given, **more)
        made.append(application)
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return Api(application, headers=headers, raise_server_exceptions=False)

    yield open_api
    for application in made:
        application.close()


@pytest.fixture
def api(opened: Open) -> Api:
    return opened()


# ---------------------------------------------------------------------- figures


def test_metrics_tell_of_today_the_week_the_month_and_who_spends(tmp_path: Path, opened: Open) -> None:
    now = time.time()
    recent = [{"at": now - 1, "feature": "search", "user": "ann"}, {"at": now, "provider": "acme", "model": "own"}]
    told = opened(over=ledger(tmp_path / "recent.db", recent)).json("metrics")
    for stretch in ("today", "week", "month"):
        assert (told[stretch]["cost"], told[stretch]["calls"], told[stretch]["unpriced"]) == ("0.006", 2, 1)
        assert "1 of 2 calls have no price" in told[stretch]["note"]
    assert (told["calls"], told["cache_hit_rate"], told["missing"]) == (2, 0.0, 0)
    assert [(one["name"], one["cost"]) for one in told["by_model"]] == [
        ("anthropic/claude-sonnet-4-5", "0.006"),
        ("acme/own", None),
    ]
    assert "no cost to tell" in told["by_model"][1]["note"]
    assert [one["key"] for one in told["by_user"]] == [{"user": "ann"}]
    assert [one["name"] for one in told["by_feature"]] == ["search"]


def test_an_empty_ledger_costs_nothing_and_projects_nothing(tmp_path: Path, opened: Open) -> None:
    told = opened(over=ledger(tmp_path / "empty.db")).json("metrics")
    assert not told["calls_known"]
    assert (told["today"]["cost"], told["today"]["latency"], told["cache_hit_rate"]) == ("0", None, None)
    assert told["projected"]["expected"] is None
    assert told["projected"]["note"]


def test_a_breakdown_tells_calls_apart_and_adds_up(api: Api) -> None:
    told = api.json("breakdown", params={"day": DAY, "by": "feature"})
    assert told["period"] == {
        "id": DAY, "start": "2026-11-03T00:00:00Z", "end": "2026-11-04T00:00:00Z", "zone": "UTC"
    }  # fmt: skip
    assert [(one["key"]["feature"], one["cost"]) for one in told["groups"]] == [
        ("summary", COST["summary"]),
        ("search", COST["search"]),
        ("", COST["haiku"]),
    ]
    assert told["groups"][2]["name"] == "(not said)"
    assert Decimal(told["total"]["cost"]) == sum(Decimal(cost) for cost in COST.values())
    assert sum(one["share"] for one in told["groups"]) == pytest.approx(1)
    assert told["rest"] is None


def test_a_model_comes_with_its_provider_and_what_is_beyond_the_limit_is_one_line(api: Api) -> None:
    told = api.json("breakdown", params={"day": DAY, "by": "model", "limit": 1})
    assert told["by"] == ["provider", "model"]
    assert [one["name"] for one in told["groups"]] == ["anthropic/claude-sonnet-4-5"]
    assert (told["rest"]["name"], told["rest"]["cost"], told["rest"]["calls"]) == ("2 others", COST["haiku"], 2)


def test_filters_narrow_and_are_joined(api: Api) -> None:
    def cost(**where: str) -> str:
        return str(api.json("breakdown", params={"from": "2026-11-01", "to": "2026-12-01", **where})["total"]["cost"])

    assert cost(user="ann") == "0.00984"
    assert cost(user="ann", feature="summary") == "0"
    assert cost(feature="", provider="anthropic") == COST["haiku"]
    assert cost(tag="tenant=acme") == COST["summary"]
    assert cost(team="ml") == COST["haiku"]


def test_users_without_calls_of_their_own_are_not_forgotten(api: Api) -> None:
    told = api.json("breakdown", params={"day": DAY, "by": "user"})
    assert {one["key"]["user"]: one["calls"] for one in told["groups"]} == {"ann": 1, "bob": 2, "": 1}


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ({"from": "2026-11-03", "to": "2026-11-04"}, "2026-11-03T00:00:00", "2026-11-04T00:00:00"),
        ({"from": "2026-11-03T09:30:00Z", "to": "2026-11-03T10:00:00+01:00"}, None, None),
        ({"from": "2026-11-03T09:30", "to": "2026-11-03T10:00"}, "2026-11-03T09:30:00", "2026-11-03T10:00:00"),
        ({"period": "24h", "day": DAY}, None, None),
        ({"to": DAY}, None, None),
        ({"from": "2026-02-30"}, None, None),
        ({"from": "2020-01-01", "to": "2026-01-01"}, None, None),
    ],
)
def test_a_stretch_of_time_is_read_or_refused(api: Api, asked: dict[str, str], start: str | None, end: str) -> None:
    answer = api.get(f"{BASE}/breakdown", params=asked)
    if start is None:
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    else:
        period = answer.json()["period"]
        assert (period["start"], period["end"]) == (f"{start}Z", f"{end}Z")


@pytest.mark.parametrize("period", ["today", "yesterday", "24h", "7d", "30d", "90d", "week", "month", "last_month"])
def test_named_stretches_end_now_or_are_over(api: Api, period: str) -> None:
    told = api.json("breakdown", params={"period": period})["period"]
    start, end = datetime.fromisoformat(told["start"]), datetime.fromisoformat(told["end"])
    days = {"24h": 1, "7d": 7, "30d": 30, "90d": 90, "yesterday": 1}.get(period)
    assert start < end
    assert abs(end.timestamp() - time.time()) < 60 or period in {"yesterday", "last_month"}
    if days:
        assert days - 1 <= (end - start).total_seconds() / 86400 <= days


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
def test_days_and_hours_begin_where_the_server_is(opened: Open, engine: Engine, zone: str) -> None:
    api = opened(zone=zone)
    told = api.json("breakdown", params={"from": "2026-11-02", "to": "2026-11-05", "by": "day,model"})
    start = datetime.fromisoformat(told["period"]["start"]).timestamp()
    end = datetime.fromisoformat(told["period"]["end"]).timestamp()
    days = Figures(engine).days(int(start), int(end), zone)
    by_day: dict[str, Decimal] = {}
    for one in told["groups"]:
        day = one["key"]["day"]
        by_day[day] = by_day.get(day, Decimal(0)) + Decimal(one["cost"] or 0)
    assert by_day == {str(day): spent.usd for day, spent in days.items() if spent.calls}
    assert [one["key"]["day"] for one in told["groups"]] == sorted(one["key"]["day"] for one in told["groups"])
    hours = api.json("breakdown", params={"from": "2026-11-02", "to": "2026-11-05", "by": "hour"})
    assert {datetime.fromisoformat(one["key"]["hour"]).minute for one in hours["groups"]} == {0}
    assert sum(one["calls"] for one in hours["groups"]) == told["total"]["calls"]


def test_points_of_a_trend_tile_its_total(api: Api) -> None:
    told = api.json("trend", params={"from": "2026-11-01", "to": "2026-11-11", "each": "day"})
    assert [point["start"][:10] for point in told["points"]] == [f"2026-11-{day:02}" for day in range(1, 11)]
    assert sum(Decimal(point["cost"]) for point in told["points"]) == Decimal(told["total"]["cost"])
    assert told["points"][1] == {"start": "2026-11-02T00:00:00Z", "cost": "0.006", "calls": 1}
    hourly = api.json("trend", params={"day": DAY})
    assert (hourly["each"], len(hourly["points"])) == ("hour", 24)
    assert (hourly["points"][9]["cost"], hourly["points"][9]["calls"]) == ("0.00984", 2)


def test_a_trend_says_where_days_go_what_is_unusual_and_what_comes(tmp_path: Path, opened: Open) -> None:
    now = time.time()
    days = [{"at": now - back * 86400, "cost": (100 - back) * 10**10} for back in range(60, 0, -1)]
    days.append({"at": now - 3 * 86400, "cost": 40 * 10**12})
    told = opened(over=ledger(tmp_path / "days.db", days)).json("trend", params={"period": "90d", "horizon": 5})
    assert told["trend"]["direction"] == "rising"
    assert Decimal(told["trend"]["low"]) <= Decimal(told["trend"]["slope"]) <= Decimal(told["trend"]["high"])
    assert [one["direction"] for one in told["anomalies"]] == ["above"]
    assert len(told["forecast"]) == 5
    assert Decimal(told["forecast_total"]["low_95"]) < Decimal(told["forecast_total"]["expected"])
    few = opened().json("trend", params={"day": DAY})
    assert (few["trend"]["direction"], few["trend"]["slope"]) == ("unknown", None)
    assert few["trend"]["note"]


_ONE = st.sampled_from(["provider", "model", "feature", "user", "team", "day", "tag.tenant", "status", "service"])
_FEW = st.lists(_ONE, min_size=1, max_size=2, unique=True)
_WHERE = st.fixed_dictionaries(
    {},
    optional={
        "feature": st.sampled_from(["search", "", "none such"]),
        "user": st.sampled_from(["ann", "bob", ""]),
        "provider": st.sampled_from(["anthropic", "acme"]),
    },
)
_EDGES = st.tuples(*[st.integers(0, 49).map(lambda half: f"2026-11-03T{half // 2 % 24:02}:{half % 2 * 30:02}:00Z")] * 2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(by=_FEW, where=_WHERE, limit=st.integers(1, 4), edges=_EDGES)
def test_groups_and_the_rest_are_the_total_whatever_is_asked(
    api: Api, by: list[str], where: dict[str, str], limit: int, edges: tuple[str, str]
) -> None:
    start, end = sorted(edges)
    if start == end:
        end = "2026-11-04T12:30:00Z"
    told = api.json("breakdown", params={"by": by, "limit": limit, "from": start, "to": end, **where})
    parts = [*told["groups"], *filter(None, [told["rest"]])]
    assert sum(Decimal(part["cost"] or 0) for part in parts) == Decimal(told["total"]["cost"] or 0)
    for name in ("calls", "unpriced", "input_tokens", "output_tokens"):
        assert sum(part[name] for part in parts) == told["total"][name]


def test_a_report_is_that_of_the_command_line_in_each_form(api: Api) -> None:
    told = api.json("report", params={"kind": "day", "day": DAY})
    assert (told["report"], told["summary"]["cost"]) == ("day", "0.01184")
    assert api.json("report", params={"kind": "feature", "subject": "search"})["summary"]["cost"] == "0.00984"
    for form, kind, start in (
        ("markdown", "text/markdown", "# "),
        ("csv", "text/csv", "section,"),
        ("html", "text/html", "<!"),
    ):
        answer = api.get(f"{BASE}/report", params={"kind": "day", "day": DAY, "format": form})
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.text.lower().startswith(start)
    # A call may lack whatever can be lacking.
    for form in ("markdown", "html"):
        assert (
            "unheard-of" in api.get(f"{BASE}/report", params={"kind": "session", "subject": "s", "format": form}).text
        )
    assert "no calls" in api.json("report", 404, params={"kind": "feature", "subject": "nothing"})["detail"]
    api.json("report", 422, params={"kind": "feature"})
    api.json("report", 422, params={"kind": "day", "subject": "search"})


# ---------------------------------------------------------------------- estimates


def test_an_estimate_says_what_a_call_costs_and_on_other_models(api: Api) -> None:
    body = {
        "model": "openai/gpt-4.1",
        "input_tokens": 10_000,
        "output_tokens": 500,
        "max_tokens": 1_000,
        "others": ["nobody/knows", "openai/gpt-4.1-mini"],
    }
    told = api.json("estimate", method="POST", json=body)
    assert (told["estimate"]["expected"]["usd"], told["estimate"]["upper"]["usd"]) == ("0.024", "0.028")
    assert told["estimate"]["expected"]["price_source"].startswith("https://")
    assert [one["model"] for one in told["others"]] == ["openai/gpt-4.1-mini", "nobody/knows"]
    unknown = told["others"][1]["expected"]
    assert (unknown["usd"], unknown["status"]) == (None, "unknown_provider")


def test_an_estimate_of_a_conversation_sums_its_turns(api: Api) -> None:
    talk = {"messages": 3, "system_tokens": 100, "message_tokens": 50}
    told = api.json(
        "estimate", method="POST", json={"model": "openai/gpt-4.1", "output_tokens": 10, "conversation": talk}
    )
    # 150, 210 and 270 tokens in, 10 out each.
    assert told["estimate"]["input_tokens"] == 630
    assert told["estimate"]["expected"]["usd"] == str(Decimal(630 * 2 + 30 * 8) / 10**6)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "openai/gpt-4.1"},
        {"model": "gpt-4.1/", "input_tokens": 1},
        {"model": "openai/gpt-4.1", "input_tokens": -1},
        {"model": "openai/gpt-4.1", "input_tokens": 1, "surprise": 1},
        {"model": "openai/gpt-4.1", "conversation": {"messages": 1000, "personas": 2}},
        {"model": "openai/gpt-4.1", "input_tokens": 1, "conversation": {"messages": 1}},
        {"model": "openai/\x00", "input_tokens": 1},
    ],
)
def test_an_estimate_of_nonsense_is_refused_with_a_reason(api: Api, body: dict[str, Any]) -> None:
    assert api.json("estimate", 422, method="POST", json=body)["detail"]


# ---------------------------------------------------------------------- budgets and alerts


def test_budgets_say_how_they_stand_by_the_ledger(tmp_path: Path, opened: Open) -> None:
    recent = [
        {"at": time.time(), "user": "ann", "cost": 4 * 10**10},
        {"at": time.time(), "user": "bob", "cost": 10**10},
    ]
    api = opened(over=ledger(tmp_path / "recent.db", recent))
    found = {one["name"]: one for one in api.json("budgets")["budgets"]}
    everything, users = found["all"], found["each user"]
    assert (everything["spent"], everything["limit"], everything["status"]) == ("0.05", "0.05", "exceeded")
    assert (everything["source"], everything["held"], everything["policy"]) == ("ledger", None, "block")
    assert [(one["value"], one["spent"]) for one in users["values"]] == [("ann", "0.04"), ("bob", "0.01")]
    assert found["search, a day"]["scope"] == {"costspan.feature": "search"}
    assert api.json("budgets/each%20user/status")["budgets"] == [users]
    assert api.json("budgets/nobody/status", 404)["detail"] == "there is no budget of this name"


def test_a_budget_in_a_store_that_is_shared_stands_as_the_store_says(tmp_path: Path, opened: Open) -> None:
    store = f"sqlite:///{tmp_path}/budgets.db"
    found = {one["name"]: one for one in opened(store=store).json("budgets")["budgets"]}
    assert (found["all"]["source"], found["all"]["spent"], found["all"]["held"]) == ("store", "0", "0")
    assert found["each user"]["source"] == "store"


def test_a_store_that_is_away_leaves_what_the_ledger_knows(opened: Open) -> None:
    api = opened(store="redis://127.0.0.1:1/0?socket_connect_timeout=0.2")
    one = api.json("budgets")["budgets"][0]
    assert (one["source"], one["spent"]) == ("ledger", "0") if time.gmtime().tm_mon != 11 else ("ledger", one["spent"])
    assert "does not answer" in one["note"]
    assert api.json("alerts")["alerts"] == []


def test_a_budget_is_made_and_changed_in_the_file(tmp_path: Path, api: Api) -> None:
    told = api.json("budgets", 201, method="POST", json={"name": "new", "limit": "12.50", "period": "week"})
    assert (told["budgets"][0]["name"], told["budgets"][0]["limit"]) == ("new", "12.5")
    api.json("budgets", 200, method="POST", json={"name": "new", "policy": "block"})
    found = api.json("budgets/new/status")["budgets"][0]
    assert (found["limit"], found["policy"], found["kind"]) == ("12.5", "block", "week")
    assert (tmp_path / "costspan.toml").read_text().startswith("# Kept by hand.")


@pytest.mark.parametrize("name", ['a"b', "a/b", "x] [[budgets]]", "ü 你好", "..", "'''"])
def test_any_name_of_a_budget_comes_back_as_it_was(api: Api, name: str) -> None:
    api.json("budgets", 201, method="POST", json={"name": name, "limit": "1"})
    assert name in [one["name"] for one in api.json("budgets")["budgets"]]
    path = httpx.URL("http://x").copy_with(path=f"{BASE}/budgets/{name}/status").raw_path.decode()
    if name != "..":
        assert api.get(path).json()["budgets"][0]["name"] == name


@pytest.mark.parametrize(
    "body",
    [
        {"name": "new"},
        {"name": "new", "limit": "-1"},
        {"name": "new", "limit": 5},
        {"name": "new", "limit": "5", "period": "fortnight"},
        {"name": "new", "limit": "5", "zone": "Mars/Olympus"},
        {"name": "new", "policy": "block"},
        {"name": "all", "soft_limit": "100"},
        {"name": "a\nb", "limit": "1"},
        {"name": "new", "limit": "1", "surprise": "x"},
    ],
)
def test_a_budget_of_nonsense_is_refused_and_the_file_left_alone(
    tmp_path: Path, api: Api, body: dict[str, Any]
) -> None:
    detail = api.json("budgets", 422, method="POST", json=body)["detail"]
    assert detail
    assert str(tmp_path) not in detail
    assert (tmp_path / "costspan.toml").read_text() == BUDGETS


def test_a_budget_of_the_environment_is_not_the_files_to_change(opened: Open) -> None:
    api = opened(settings={"budgets": '[{"name": "all", "limit": "7"}]'})
    assert "COSTSPAN_BUDGETS" in api.json("budgets", 409, method="POST", json={"name": "all", "limit": "9"})["detail"]


def test_alerts_of_ledger_and_store_are_listed_once_and_acknowledged_once(
    tmp_path: Path, engine: Engine, opened: Open
) -> None:
    now = datetime.now(UTC)
    first, second = event(1, now), event(2, now, severity="critical", type="exceeded")
    with engine.begin() as connection:
        connection.execute(insert(events), [first])
    url = f"sqlite:///{tmp_path}/budgets.db"
    store = open_store(url)
    for one in (first, second):
        store.post(Record(one["id"], one["event"], now.timestamp()))
    api = opened(store=url)
    told = api.json("alerts")
    assert (len(told["alerts"]), told["open"]) == (2, 2)
    one = next(alert for alert in told["alerts"] if alert["severity"] == "warning")
    assert (one["limit"], one["current"]) == ("0.05", "0.0401")
    assert "80 % of $0.05 reached" in one["message"]

    path = f"alerts/{one['id']}/acknowledge"
    opened(READS).json(path, 403, method="POST")
    assert api.json(path, method="POST")["acknowledged_by"] == "writer"
    assert api.json("alerts")["open"] == 1
    assert [alert["id"] for alert in api.json("alerts?acknowledged=true")["alerts"]] == [one["id"]]
    assert {record.id: record.acknowledged_by for record in store.records()} == {
        first["id"]: "writer",
        second["id"]: "",
    }
    with engine.connect() as connection:
        assert connection.execute(select(events.c.acknowledged_by)).scalars().all() == ["writer"]
    assert api.json(f"alerts/{'0' * 32}/acknowledge", 404, method="POST")


# ---------------------------------------------------------------------- suggestions


@pytest.fixture
def advised(tmp_path: Path, opened: Open) -> Api:
    over = ledger(tmp_path / "dear.db", dear())
    return opened(over=over)


def test_suggestions_come_with_their_arithmetic_and_what_they_pay(advised: Api) -> None:
    told = advised.json("suggestions")
    assert told["note"] == ""
    one = next(one for one in told["suggestions"] if one["category"] == "cheaper_model")
    assert one["subject"]["task"] == "summary"
    assert Decimal(one["savings"]) > 0
    assert Decimal(one["steps"][-1]["result"]) == Decimal(one["savings"])
    assert Decimal(told["together"]) >= Decimal(one["savings"])
    paid = advised.json(f"suggestions/{one['id']}/roi", params={"effort": "100"})
    assert (paid["effort"], paid["savings"]) == ("100", one["savings"])
    assert Decimal(paid["first_year"]) == Decimal(one["savings"]) * 12 - 100
    unknown = advised.json(f"suggestions/{one['id']}/roi")
    assert unknown["roi"] is None
    assert "nobody said" in unknown["reasons"]["roi"]
    advised.json("suggestions/none-such/roi", 404)
    advised.json(f"suggestions/{one['id']}/roi", 422, params={"effort": "-1"})


def test_a_suggestion_is_taken_or_dismissed_and_measured_from_then_on(advised: Api) -> None:
    one = advised.json("suggestions")["suggestions"][0]
    assert advised.json(f"suggestions/{one['id']}/dismiss", method="POST") == {
        "id": one["id"], "taken": False, "dismissed": True
    }  # fmt: skip
    assert one["id"] not in [left["id"] for left in advised.json("suggestions")["suggestions"]]
    assert one["id"] in [left["id"] for left in advised.json("suggestions?dismissed=true")["suggestions"]]
    for _ in range(2):
        advised.json(f"suggestions/{one['id']}/take", method="POST")
    told = advised.json("suggestions")
    assert next(left for left in told["suggestions"] if left["id"] == one["id"])["taken"]
    (taken,) = told["taken"]
    assert (taken["id"], taken["taken_by"], taken["saved"]["usd"]) == (one["id"], "writer", None)
    assert taken["saved"]["reason"]
    advised.json("suggestions/none-such/take", 404, method="POST")


def test_too_few_calls_suggest_nothing(api: Api) -> None:
    told = api.json("suggestions")
    assert (told["suggestions"], told["together"]) == ([], "0")
    assert told["note"]


# ---------------------------------------------------------------------- who may ask


def _operations(api: Api) -> list[tuple[str, str]]:
    paths = api.json("openapi.json")["paths"]
    found = [(method.upper(), re.sub(r"\{\w+\}", "0" * 32, path)) for path, ways in paths.items() for method in ways]
    assert len(found) >= 15
    return found


def test_nothing_but_the_page_and_the_health_is_there_for_strangers(opened: Open) -> None:
    stranger = opened(None)
    for method, path in _operations(opened()):
        answer = stranger.request(method, path, json={})
        assert answer.status_code == 401, f"{method} {path}"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
    for path in (f"{BASE}/openapi.json", "/docs", "/openapi.json", "/anything", "/page.js/", "/page.css/x"):
        assert stranger.get(path).status_code == 401, path
    for path in ("/", "/page.css", "/page.js", "/healthz"):
        assert stranger.get(path).status_code == 200
        assert stranger.post(path).status_code == 401
    assert stranger.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer ", f"Basic {WRITES}", f"Bearer {WRITES}x", f"Bearer {WRITES[:-1]}", WRITES, "Bearer null"],
)
def test_only_the_whole_key_is_a_key(opened: Open, given: str) -> None:
    assert opened(None).get(f"{BASE}/key", headers={"Authorization": given}).status_code == 401


def test_a_key_is_a_header_and_one_alone(opened: Open) -> None:
    stranger = opened(None)
    assert stranger.get(f"{BASE}/key", params={"key": WRITES, "access_token": WRITES}).status_code == 401
    twice = [("Authorization", f"Bearer {READS}"), ("Authorization", f"Bearer {WRITES}")]
    assert stranger.get(f"{BASE}/key", headers=twice).status_code == 401
    assert stranger.get(f"{BASE}/key", headers={"Authorization": f"bearer {READS}"}).json() == {
        "name": "reader",
        "scope": "read",
    }


def test_who_may_read_may_not_write(opened: Open) -> None:
    reader = opened(READS)
    for method, path in _operations(reader):
        answer = reader.request(method, path, json={})
        writes = method != "GET" and not path.endswith("/estimate")
        assert (answer.status_code == 403) == writes, f"{method} {path}: {answer.status_code}"


def test_without_keys_there_is_no_api(engine: Engine) -> None:
    with pytest.raises(ValueError, match="nobody could ask"):
        app(engine, keys=Keys())


def test_keys_of_a_file_come_and_go_while_the_server_runs(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costspan.insight.serve.keys._LOOK_SECONDS", 0)
    path = tmp_path / "deep" / "keys.json"
    secret = add_key(path, "grafana", "read")
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    api = opened(secret, keys=Keys(path=path))
    assert api.json("key") == {"name": "grafana", "scope": "read"}
    other = add_key(path, "ops", "write")
    assert api.get(f"{BASE}/key", headers={"Authorization": f"Bearer {other}"}).json()["name"] == "ops"
    remove_key(path, "grafana")
    assert api.get(f"{BASE}/key").status_code == 401
    remove_key(path, "ops")
    assert api.get(f"{BASE}/key", headers={"Authorization": f"Bearer {other}"}).status_code == 401


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x", "NAME:SCOPE:KEY"),
        ("x:read", "NAME:SCOPE:KEY"),
        (f"x:all:{READS}", "read or write"),
        ("x:read:short-and-secret", "too short"),
        (f"a b:read:{READS}", "name"),
        (f"x:read:{READS},x:write:{WRITES}", "two keys are named 'x'"),
    ],
)
def test_keys_that_make_no_sense_are_named_and_never_shown(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as raised:
        Keys(of_environment({"COSTSPAN_API_KEYS": text}))
    assert "secret" not in str(raised.value)
    assert READS not in str(raised.value)


def test_a_key_asks_so_often_and_no_more(opened: Open) -> None:
    api = opened(rate=3)
    assert [api.get(f"{BASE}/key").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert 1 <= int(api.get(f"{BASE}/key").headers["retry-after"]) <= 120
    assert api.get(f"{BASE}/key", headers={"Authorization": f"Bearer {READS}"}).status_code == 200, "another key"


def test_strangers_who_guess_are_slowed_down_and_leave_keys_alone(opened: Open, engine: Engine) -> None:
    api = opened(None)
    found = [api.get(f"{BASE}/key", headers={"Authorization": f"Bearer guess-{n}"}).status_code for n in range(70)]
    assert (found[0], found[-1]) == (401, 429)
    assert api.get(f"{BASE}/key", headers={"Authorization": f"Bearer {READS}"}).status_code == 200
    api.gate.close()
    with engine.connect() as connection:
        noted = connection.execute(select(audit.c.status).where(audit.c.key == "-")).scalars().all()
    assert set(noted) == {401}, "a flood of guesses does not fill the audit log"


def test_all_that_is_asked_is_in_the_audit_log(opened: Open, engine: Engine) -> None:
    api = opened()
    api.json("key")
    api.json("nothing", 404)
    api.json("budgets", 422, method="POST", json={"name": "x"})
    api.get(f"{BASE}/breakdown", params={"user": "a-secret-user"})
    api.get(f"{BASE}/key", headers={"Authorization": "Bearer wrong"})
    api.get("/")
    api.gate.close()
    with engine.connect() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.number)).all()
    assert [(row.key, row.method, row.path, row.status) for row in rows] == [
        ("writer", "GET", f"{BASE}/key", 200),
        ("writer", "GET", f"{BASE}/nothing", 404),
        ("writer", "POST", f"{BASE}/budgets", 422),
        ("writer", "GET", f"{BASE}/breakdown", 200),
        ("-", "GET", f"{BASE}/key", 401),
    ]
    assert all(abs(row.at - time.time()) < 60 for row in rows)


# ---------------------------------------------------------------------- what it never does


def test_every_answer_has_the_headers_that_keep_browsers_in_check(opened: Open) -> None:
    answers = [opened().get(path) for path in ("/", "/page.js", f"{BASE}/key", f"{BASE}/nothing")]
    answers.append(opened(None).get(f"{BASE}/key"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "access-control-allow-origin" not in answer.headers


def test_what_is_too_large_is_refused(api: Api) -> None:
    big = b'{"model": "' + b"x" * LARGEST_BODY + b'"}'
    assert api.post(f"{BASE}/estimate", content=big).status_code == 413

    def in_pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    assert api.post(f"{BASE}/estimate", content=in_pieces()).status_code == 413
    assert api.get(f"{BASE}/breakdown", params={"user": "x" * 5000}).status_code == 414
    assert api.get(f"{BASE}/breakdown", params={"user": "x" * 300}).status_code == 422
    assert api.get(f"{BASE}/{'x' * 3000}").status_code == 414
    assert api.get(f"{BASE}/breakdown", params={"limit": 10**9}).status_code == 422
    assert api.get(f"{BASE}/breakdown", params={"by": ["model"] * 40}).status_code == 422
    deep = "[" * 20_000 + "]" * 20_000
    assert api.post(f"{BASE}/estimate", content=deep, headers={"content-type": "application/json"}).status_code in {
        400,
        422,
    }


INJECTIONS = [
    "'; DROP TABLE calls; --",
    "' OR '1'='1",
    '" OR ""="',
    "1) UNION SELECT name FROM sqlite_master --",
    "\\'; SELECT pg_sleep(10); --",
    "%' AND 1=1 --",
    '$."x"\') OR 1=1 --',
]


@pytest.mark.parametrize("evil", INJECTIONS)
def test_no_text_becomes_sql(api: Api, engine: Engine, evil: str) -> None:
    before = _rows(engine)
    for name in ("user", "feature", "model", "session", "status", "service"):
        told = api.json("breakdown", params={"from": "2026-11-01", "to": "2026-12-01", name: evil, "by": "user"})
        assert (told["total"]["calls"], told["groups"]) == (0, [])
    api.json("breakdown", 422, params={"by": f"tag.{evil}"})
    api.json("breakdown", 422, params={"tag": f"{evil}=1"})
    assert api.json("breakdown", params={"tag": f"tenant={evil}"})["total"]["calls"] == 0
    api.json("report", 404, params={"kind": "conversation", "subject": evil})
    assert _rows(engine) == before


def _rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(calls).order_by(calls.c.id)).all())


def test_no_path_leads_to_a_file(tmp_path: Path, engine: Engine) -> None:
    def asked(path: str, secret: str) -> tuple[int, str]:
        # Clients tidy paths up; who means harm does not.
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.putheader("Authorization", f"Bearer {secret}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    with serving(tmp_path) as server:
        for path in (
            "../gate.py",
            "..%2fgate.py",
            "..%2f..%2f..%2fetc/passwd",
            "%2e%2e/gate.py",
            "page/../../api.py",
            "%00",
        ):
            for start in ("/", f"{BASE}/", "/page.css/", f"{BASE}/budgets/"):
                assert asked(start + path, "nobody")[0] == 401
                status, told = asked(start + path, READS)
                assert status == 404, start + path
                assert "root:" not in told
                assert "import" not in told


def test_postgresql_gives_the_same_answers(engine: Engine, opened: Open) -> None:
    if binaries() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    paths = [
        "metrics",
        f"breakdown?day={DAY}&by=user,day",
        "breakdown?from=2026-11-01&to=2026-12-01&by=tag.tenant",
        "breakdown?from=2026-11-01&to=2026-12-01&tag=tenant%3Dacme",
        f"trend?day={DAY}",
        "budgets",
        "alerts",
        "suggestions",
    ]
    with PostgreSQL() as server:
        there = ledger(server.database(), CALLS)
        both = [opened(over=over) for over in (engine, there)]
        for path in paths:
            ours, theirs = (_timeless(api.json(path)) for api in both)
            assert theirs == ours, path
        for evil in INJECTIONS:
            asked = {"from": "2026-11-01", "to": "2026-12-01", "user": evil, "tag": f"tenant={evil}"}
            assert both[1].json("breakdown", params=asked)["total"]["calls"] == 0
        key = both[1].json("key")
        both[1].gate.close()
        with there.connect() as connection:
            assert set(connection.execute(select(audit.c.key)).scalars()) == {key["name"]}
        there.dispose()


def _timeless(told: Any) -> Any:
    """An answer without the instants that differ from request to request."""
    return {name: value for name, value in told.items() if name not in {"at", "period", "projected"}}


def test_a_filter_that_is_misspelt_is_no_filter_that_is_left_out(api: Api) -> None:
    told = api.json("breakdown", 422, params={"modell": "gpt-4.1"})
    assert told["errors"] == [{"where": "query.modell", "what": "Extra inputs are not permitted"}]


def test_a_ledger_that_is_broken_is_told_without_sql(opened: Open, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hours RENAME TO gone"))
    api = opened()
    answer = api.get(f"{BASE}/metrics")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"
    assert not re.search(r"SELECT|sqlite|hours|Traceback", answer.text)


def test_a_mistake_of_ours_is_told_without_a_traceback(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(Figures, "missing", broken)
    answer = opened().get(f"{BASE}/metrics")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "the secret inside" in caplog.text


async def test_a_slow_question_holds_nobody_up(opened: Open, engine: Engine) -> None:
    @listening.listens_for(engine, "before_cursor_execute")
    def slow(*_: object) -> None:
        time.sleep(0.4)

    application = opened().gate
    transport = httpx.ASGITransport(application)
    headers = {"Authorization": f"Bearer {WRITES}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        asked = asyncio.create_task(client.get(f"{BASE}/breakdown"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get(f"{BASE}/key")).status_code == 200
        assert time.monotonic() - began < 0.3
        assert not asked.done()
        assert (await asked).status_code == 200


# ---------------------------------------------------------------------- users


def test_users_are_shown_as_hashes_where_that_is_asked_for(tmp_path: Path, opened: Open) -> None:
    fill(tmp_path / "users.db", 3)
    over = ledger(tmp_path / "more.db", [{"at": time.time(), "user": "ann@example.com", "conversation": "c"}])
    with over.begin() as connection:
        connection.execute(insert(events), [event(1, datetime.now(UTC), budget="each user", value="ann@example.com")])
    plain = opened(over=over)
    hidden = opened(over=over, pseudonymise=True, settings={"user_key": "a key"})
    asked = [
        "metrics",
        "breakdown?by=user&period=month",
        "breakdown?by=day&by=user&period=month",
        "report?kind=month",
        "report?kind=conversation&subject=c",
        "budgets",
        "alerts",
    ]
    for path in asked:
        assert "ann@example.com" in plain.get(f"{BASE}/{path}").text, path
        assert "ann@example.com" not in hidden.get(f"{BASE}/{path}").text, path
        join = "&" if "?" in path else "?"
        assert "ann@example.com" not in plain.get(f"{BASE}/{path}{join}pseudonymise=true").text, path
        assert "ann@example.com" not in hidden.get(f"{BASE}/{path}{join}pseudonymise=false").text, path
    # As costspan.track() would write it under the same key.
    (one,) = hidden.json("metrics")["by_user"]
    exchange(user_key="a key")
    try:
        who = attribution(attributed(attributes_of(user="ann@example.com"))[0])
        assert who is not None
        assert who.attributes["user.id"] == one["name"]
    finally:
        exchange()
    total = hidden.json("breakdown", params={"user": one["name"]})["total"]
    assert (total["calls"], total["cost"]) == (1, "0.006")
    hidden.json("breakdown", 404, params={"user": "ann@example.com"})


# ---------------------------------------------------------------------- mounted, and as a command


@pytest.mark.parametrize("outer", [FastAPI, Starlette])
def test_it_can_be_mounted_anywhere(opened: Open, engine: Engine, outer: Any) -> None:
    inner = opened().gate
    mounted = outer(routes=[Mount("/ops/cost", inner)])
    client = TestClient(mounted, headers={"Authorization": f"Bearer {WRITES}"})
    page = client.get("/ops/cost")
    assert (page.status_code, str(page.url)) == (200, "http://testserver/ops/cost/")
    for name in re.findall(r'(?:href|src)="([^#"]+)"', page.text):
        if not name.startswith("data:"):
            assert client.get(f"/ops/cost/{name}").status_code == 200
    assert client.get(f"/ops/cost{BASE}/key").json()["name"] == "writer"
    assert client.get(f"/ops/cost{BASE}/key", headers={"Authorization": ""}).status_code == 401
    assert client.get(f"{BASE}/key").status_code == 404
    inner.close()
    with engine.connect() as connection:
        assert connection.execute(select(audit.c.path)).scalars().all() == [f"{BASE}/key"] * 2


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `costspan serve` as far as it goes without listening."""
    for name in [name for name in os.environ if name.startswith("COSTSPAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["costspan", "serve", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


def test_the_command_serves_until_it_is_told_to_stop_and_loses_nothing_noted(tmp_path: Path, engine: Engine) -> None:
    with serving(tmp_path) as server:
        for _ in range(20):
            answer = httpx.get(f"{server.url}{BASE[1:]}/key", headers={"Authorization": f"Bearer {READS}"})
            assert answer.json()["name"] == "reader"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert f"{server.url} (keys: reader, writer)" in server.log.read_text()
    with engine.connect() as connection:
        assert len(connection.execute(select(audit.c.key)).all()) == 20


def test_who_has_no_key_yet_gets_one_on_this_machine_alone(tmp_path: Path, engine: Engine) -> None:
    with serving(tmp_path, keys="") as server:
        deadline = time.monotonic() + 10
        while not (found := re.search(r"#key=(\S+)", server.log.read_text())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found is not None
        answer = httpx.get(f"{server.url}{BASE[1:]}/key", headers={"Authorization": f"Bearer {found[1]}"})
        assert answer.json() == {"name": "this-session", "scope": "write"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no ledger to show"),
        (("--ledger", "nowhere/ledger.db"), "cannot be made"),
        (("--ledger", "mysql://x/y"), "SQLite or PostgreSQL"),
        (("--ledger", "new.db", "--zone", "Mars/Olympus"), "zone must be"),
        (("--ledger", "new.db", "--tls-key", "x"), "go together"),
        (("--ledger", "new.db", "--host", "0.0.0.0"), "lets others in, and there is no key"),
        (("--ledger", "new.db", "--host", "example.org"), "lets others in, and there is no key"),
        (("--ledger", "new.db", "--port", "0"), "--port"),
    ],
)
def test_what_cannot_be_served_is_one_line(serve: Callable[..., Done], arguments: tuple[str, ...], said: str) -> None:
    done = serve(*arguments)
    assert (done.status, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_keys_are_made_listed_and_removed(tmp_path: Path, serve: Callable[..., Done]) -> None:
    assert "there is no key" in serve("keys", "list").err
    made = serve("keys", "add", "grafana")
    assert (made.status, made.out[:4]) == (0, "csk_")
    assert made.out.strip() not in (tmp_path / "data" / "costspan" / "api-keys.json").read_text()
    assert "already" in serve("keys", "add", "grafana").err
    assert "read or write" in serve("keys", "add", "other", "--scope", "all").err
    (listed,) = json.loads(serve("keys", "list", "--json").out)
    assert (listed["name"], listed["scope"]) == ("grafana", "read")
    assert "grafana" in serve("keys", "list").out
    assert serve("keys", "remove", "grafana").status == 0
    gone = serve("keys", "remove", "grafana")
    assert (gone.status, "no key 'grafana'" in gone.err) == (2, True)


def test_making_a_key_needs_no_web_framework() -> None:
    code = "import sys, costspan.insight.serve.keys; print({'fastapi', 'sqlalchemy', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=on_path())
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------------- as its description says


@pytest.mark.timeout(400)
def test_the_server_keeps_to_its_description(tmp_path: Path) -> None:
    fill(tmp_path / "ledger.db", 5)
    (tmp_path / "costspan.toml").write_text(BUDGETS)
    with serving(tmp_path, "--rate", "1000000") as server:
        said = schemathesis(server.url, tmp_path, examples=10, phases="examples,fuzzing")
    assert said.returncode == 0, said.stdout[-6000:]
