"""`costspan reconcile`: what a provider has charged beside what the ledger has, and why they differ."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert

from costspan.cli import main
from costspan.insight.figures import Figures
from costspan.insight.reconcile import Columns, Invoice, InvoiceError, changes, read_invoice, reconcile
from costspan.insight.reconcile.invoices import Charge
from costspan.insight.reconcile.names import Names
from costspan.insight.show import to_json
from costspan_pricing import PriceBook
from costspan_processor.ledger import focus
from costspan_processor.ledger.rows import COLUMNS
from costspan_processor.ledger.schema import records, writers
from tests.http_server import http_server
from tests.insight.ledgers import ledger

BOOK = PriceBook.bundled()
DAY = date(2026, 11, 3)
SONNET = Decimal("0.006")
"""What a call costs that says nothing else."""

ANTHROPIC = (
    "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,"
    "inference_geo,speed\n"
)


def invoice(*charged: tuple[str, str, str], provider: str = "anthropic", zone: str = "UTC") -> Invoice:
    """An invoice with these charges: day, what for, and USD."""
    made = Invoice("invoice", "test", zone)
    for at, name, usd in charged:
        day = date.fromisoformat(at)
        made.add(Charge(day, day, provider, name, "usage"), Decimal(usd))
    return made


def beside(engine: Engine, *invoices: Invoice, **options: Any) -> dict[str, Any]:
    """The invoices beside a ledger."""
    return reconcile(Figures(engine), invoices, BOOK, **options)


def causes(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The explanations by their cause."""
    return {line["cause"]: line for line in found["explanations"]}


def read(tmp_path: Path, text: str, name: str = "invoice.csv", columns: Columns | None = None) -> Invoice:
    """The invoice in a file with this text."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_invoice(tmp_path / name, BOOK, columns)


def charged(found: Invoice) -> dict[tuple[str, str, str], Decimal]:
    """The charges: days, name and kind -> USD."""
    amounts: dict[tuple[str, str, str], Decimal] = {}
    for charge, pico in found.charges.items():
        days = "/".join(dict.fromkeys((str(charge.first), str(charge.last))))
        amounts[days, charge.name, charge.kind] = Decimal(pico).scaleb(-12).normalize()
    return amounts


# ---------------------------------------------------------------------- by day and model


def test_an_invoice_that_agrees_is_within_tolerance_day_by_day(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}, {"at": "2026-11-04 23:59:59", "seconds": 0.5}])
    found = beside(
        engine, invoice(("2026-11-03", "Claude Sonnet 4.5", "0.006"), ("2026-11-04", "Claude Sonnet 4.5", "0.006"))
    )
    assert [(line["day"], line["difference"], line["within"]) for line in found["by_day"]] == [
        ("2026-11-03", 0, True),
        ("2026-11-04", 0, True),
    ]
    assert found["total"]["percent"] == 0
    assert (found["explanations"], found["unmatched"], found["not_invoiced"], found["not_in_ledger"]) == (
        [],
        [],
        [],
        [],
    )


def test_what_differs_is_unexplained_until_something_explains_it(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}])
    total = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.01")))["total"]
    assert total == {
        "invoiced": Decimal("0.01"),
        "ledger": SONNET,
        "difference": Decimal("0.004"),
        "percent": Decimal("40.00"),
        "explained": 0,
        "unexplained": Decimal("0.004"),
        "calls": 1,
        "unpriced": 0,
        "within": False,
    }


def test_only_calls_of_the_invoices_provider_and_days_are_looked_at(tmp_path: Path) -> None:
    made = [
        {"at": "2026-11-02 23:59:59"},
        {"at": "2026-11-03 00:00"},
        {"at": "2026-11-04 00:00"},
        {"at": "2026-11-03 10:00", "provider": "openai", "model": "gpt-4.1"},
        {"at": "2026-11-03 10:00", "service": "other"},
    ]
    engine = ledger(tmp_path / "ledger.db", made)
    one = invoice(("2026-11-03", "claude-sonnet-4-5", "0.006"))
    assert beside(engine, one)["total"]["calls"] == 2
    assert beside(engine, one, where={"service": "shop"})["total"]["calls"] == 1
    assert (
        beside(engine, one, where={"service": "shop"}, period=(date(2026, 11, 1), date(2026, 11, 30)))["total"]["calls"]
        == 3
    )


def test_names_of_either_side_mean_the_same_model(tmp_path: Path) -> None:
    """The response names a snapshot, the invoice adds the kind of tokens and the service tier."""
    engine = ledger(
        tmp_path / "ledger.db",
        [{"at": "2026-11-03 10:00", "provider": "openai", "model": "gpt-4.1-2025-04-14"}],
    )
    lines = ("gpt-4.1-2025-04-14, input", "gpt-4.1-2025-04-14, output", "priority | gpt-4.1-2025-04-14, cached input")
    found = beside(engine, invoice(*((f"{DAY}", line, "0.001") for line in lines), provider="openai"))
    assert [(line["model"], line["invoiced"]) for line in found["by_model"]] == [("gpt-4.1", Decimal("0.003"))]


@pytest.mark.parametrize(
    ("provider", "name", "model"),
    [
        ("openai", "gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini"),
        ("openai", "web search tool calls", "web searches"),
        ("openai", "Vector storage", None),
        ("anthropic", "Claude Haiku 4.5", "claude-haiku-4-5"),
        ("anthropic", "Claude Sonnet 4", "claude-sonnet-4-0"),
        ("anthropic", "Claude 3.5 Sonnet 2024-10-22", "claude-3-5-sonnet"),
        ("google", "Generate content output token count gemini 2.5 flash short input text", "gemini-2.5-flash"),
        ("google", "Gemini 2.5 Pro Thinking Text Output - Predictions", "gemini-2.5-pro"),
        ("google", "Generate_content image output token count for Gemini 2.5 Flash Native Image Generation",
         "gemini-2.5-flash-image"),
        ("aws", "Claude Sonnet 4.5", "claude-sonnet-4-5"),
        ("aws", "USE1-Claude3.5Sonnet-input-tokens", "claude-3-5-sonnet"),
        ("aws", "USE1-NovaLite-input-tokens", "nova-lite"),
    ],
)  # fmt: skip
def test_names_that_invoices_have(provider: str, name: str, model: str | None) -> None:
    assert Names(BOOK).of_invoice(provider, name) == model


def test_names_that_nobody_knows_are_listed_and_still_compared(tmp_path: Path) -> None:
    engine = ledger(
        tmp_path / "ledger.db", [{"at": "2026-11-03 10:00", "provider": "openai", "model": "gpt-99", "cost": 10**9}]
    )
    found = beside(
        engine,
        invoice(("2026-11-03", "gpt-99, input", "0.001"), ("2026-11-03", "Vector storage", "2"), provider="openai"),
    )
    assert [line["model"] for line in found["unmatched"]] == ["Vector storage", "gpt-99, input"]
    assert [(line["model"], line["difference"]) for line in found["by_model"]] == [("Vector storage", 2), ("gpt-99", 0)]
    assert [line["model"] for line in found["not_in_ledger"]] == ["Vector storage"]


def test_an_invoice_without_models_is_compared_by_day_alone(tmp_path: Path) -> None:
    engine = ledger(
        tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}, {"at": "2026-11-03 11:00", "model": "claude-haiku-4-5"}]
    )
    found = beside(engine, invoice(("2026-11-03", "", "0.008")))
    assert [(line["model"], line["difference"]) for line in found["by_model"]] == [("(all models)", 0)]


def test_searches_are_a_line_of_their_own_as_on_invoices(tmp_path: Path) -> None:
    usage = {"input": 1000, "web_searches": 2}
    lines = [
        ["claude-sonnet-4-5", "input", 1000, "3", 1000000, 3 * 10**9],
        ["claude-sonnet-4-5", "web_searches", 2, "10", 1000, 2 * 10**10],
    ]
    call = {"usage": json.dumps(usage), "lines": json.dumps(lines), "cost": 23 * 10**9, "cost_input": 3 * 10**9}
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00", **call, "cost_other": 2 * 10**10}])
    found = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.003"), ("2026-11-03", "web_search", "0.02")))
    assert {line["model"]: (line["ledger"], line["calls"]) for line in found["by_model"]} == {
        "claude-sonnet-4-5": (Decimal("0.003"), 1),
        "web searches": (Decimal("0.02"), 1),
    }
    assert (found["total"]["difference"], found["total"]["calls"], found["explanations"]) == (0, 1, [])


def test_charges_for_several_days_are_set_beside_all_of_these(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": f"2026-11-{day:02} 10:00"} for day in (1, 9, 30)])
    made = Invoice("invoice", "test")
    made.add(Charge(date(2026, 11, 1), date(2026, 11, 30), "anthropic", "Claude Sonnet 4.5", "usage"), Decimal("0.018"))
    found = beside(engine, made)
    assert [(line["day"], line["difference"]) for line in found["by_day"]] == [("2026-11-01/2026-11-30", 0)]


def test_days_are_those_of_the_providers_clock(tmp_path: Path) -> None:
    """Google's day begins at midnight in California: 08:00 UTC in November."""
    call = {"provider": "gcp.gemini", "model": "gemini-2.5-flash", "cost": 10**9}
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 07:59", **call}, {"at": "2026-11-03 08:00", **call}])
    pacific = "America/Los_Angeles"
    one = invoice(
        ("2026-11-02", "gemini 2.5 flash", "0.001"),
        ("2026-11-03", "gemini 2.5 flash", "0.001"),
        provider="google",
        zone=pacific,
    )
    found = beside(engine, one)
    assert [(line["day"], line["difference"]) for line in found["by_day"]] == [("2026-11-02", 0), ("2026-11-03", 0)]
    with pytest.raises(InvoiceError, match="several clocks"):
        beside(engine, one, invoice(("2026-11-03", "claude-sonnet-4-5", "1")))


# ---------------------------------------------------------------------- the calls that explain it


def test_calls_without_a_price_explain_what_today_s_prices_say_of_them(tmp_path: Path) -> None:
    """One was not in the book of its day; of the other nobody knows what it costs."""
    engine = ledger(
        tmp_path / "ledger.db",
        [
            {
                "at": "2026-11-03 10:00",
                "cost": None,
                "status": "unknown_model",
                "usage": '{"input": 1000, "output": 200}',
            },
            {"at": "2026-11-03 11:00", "model": "claude-nobody-knows"},
        ],
    )
    found = beside(
        engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.006"), ("2026-11-03", "claude-nobody-knows", "0.05"))
    )
    line = causes(found)["unpriced"]
    assert (line["calls"], line["explained"], line["unknown"]) == (2, SONNET, 1)
    assert found["total"]["unexplained"] == Decimal("0.05")
    by_model = {cell["model"]: cell["unexplained"] for cell in found["by_model"]}
    assert by_model == {"claude-sonnet-4-5": 0, "claude-nobody-knows": Decimal("0.05")}


def test_calls_recorded_at_another_price_explain_the_difference_of_prices(tmp_path: Path) -> None:
    wrong = BOOK.with_prices({"anthropic/claude-sonnet-4-5": {"input": "2"}})
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}] * 3, book=wrong)
    found = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.018")))
    assert (causes(found)["repriced"]["calls"], causes(found)["repriced"]["explained"]) == (3, Decimal("0.003"))
    assert found["total"]["unexplained"] == 0


def test_an_answer_recorded_twice_counts_once_too_often(tmp_path: Path) -> None:
    twice = {"at": "2026-11-03 10:00", "response_id": "msg_1"}
    engine = ledger(tmp_path / "ledger.db", [twice, twice | {"at": "2026-11-03 10:01"}, {"at": "2026-11-03 10:02"}])
    found = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.012")))
    line = causes(found)["duplicates"]
    assert (line["calls"], line["explained"], line["examples"]) == (1, -SONNET, [f"{1:032x}:{1:016x}"])
    assert found["total"]["unexplained"] == 0


def test_batch_calls_are_billed_on_the_day_that_they_ran(tmp_path: Path) -> None:
    batch = {"tier": "batch", "at": "2026-11-05 08:00"}
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}, batch, {"at": "2026-11-05 10:00"}])
    # A batch costs half: $0.003, run on the third and fetched on the fifth.
    found = beside(
        engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.009"), ("2026-11-05", "claude-sonnet-4-5", "0.006"))
    )
    line = causes(found)["batch"]
    assert {one["day"]: one["explained"] for one in line["by"]} == {
        "2026-11-03": Decimal("0.003"),
        "2026-11-05": Decimal("-0.003"),
    }
    assert (line["calls"], line["explained"], line["moved"]) == (1, 0, Decimal("0.006"))
    assert [cell["unexplained"] for cell in found["by_day"]] == [0, 0]


def test_calls_around_midnight_may_be_billed_on_the_next_day(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 23:59:59", "seconds": 30}, {"at": "2026-11-04 12:00"}])
    found = beside(
        engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0"), ("2026-11-04", "claude-sonnet-4-5", "0.012"))
    )
    assert causes(found)["midnight"]["moved"] == 2 * SONNET
    assert [cell["unexplained"] for cell in found["by_day"]] == [0, 0]


def test_what_may_be_why_is_listed_with_what_is_at_stake_and_explains_nothing(tmp_path: Path) -> None:
    failed = {"error_type": "APITimeoutError", "input_tokens": 0, "output_tokens": 0}
    engine = ledger(
        tmp_path / "ledger.db",
        [
            {"at": "2026-11-03 10:00", **failed},
            {"at": "2026-11-03 10:01", "prompt": "p", **failed},
            {"at": "2026-11-03 10:02", "prompt": "p"},
            {"at": "2026-11-03 10:03", "aborted": True, "output_tokens": 0},
            {"at": "2026-11-03 10:04", "status": "estimated", "cost": 10**9, "usage": None},
        ],
    )
    found = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.02")))
    told = {cause: (line["calls"], line["explained"], line["at_stake"]) for cause, line in causes(found).items()}
    # What failed may have cost as much as the mean of the others: (0.006 + 0.003 + 0.001) / 3.
    mean = Decimal("0.003333333333")
    assert told == {
        "failed": (1, 0, mean),
        "retries": (1, 0, mean),
        "aborted": (1, 0, Decimal("0.003")),
        "estimated": (1, 0, Decimal("0.001")),
    }
    assert found["total"]["unexplained"] == found["total"]["difference"] == Decimal("0.01")


def test_calls_that_never_reached_the_ledger_are_counted(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}])
    at = int(datetime(2026, 11, 3, 9, tzinfo=UTC).timestamp())
    writer = {"host": "h", "process": 1, "written": 0, "dropped": 0, "lost": 0}
    with engine.connect().execution_options(costspan_writes=True) as connection, connection.begin():
        connection.execute(insert(writers), [
            {"id": "killed", **writer, "started": at, "seen": at + 60, "lost": 2},
            {"id": "before", **writer, "started": at - 200_000, "seen": at - 190_000, "lost": 7},
        ])  # fmt: skip
    line = causes(beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.018"))))["missing"]
    assert (line["calls"], line["unknown"], line["at_stake"], line["examples"]) == (2, 2, 2 * SONNET, ["killed"])


def test_what_is_for_no_usage_is_named(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}])
    made = invoice(("2026-11-03", "claude-sonnet-4-5", "0.006"))
    for kind, usd in (("tax", "0.001"), ("credit", "-0.002"), ("other", "5")):
        made.add(Charge(DAY, DAY, "anthropic", "claude-sonnet-4-5", kind), Decimal(usd))  # type: ignore[arg-type]
    found = beside(engine, made)
    told = {cause: line["explained"] for cause, line in causes(found).items()}
    assert told == {"taxes": Decimal("0.001"), "credits": Decimal("-0.002"), "other_charges": 5}
    assert found["total"]["unexplained"] == 0


def test_calls_that_retention_removed_count_by_their_totals(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}, {"at": "2026-11-03 11:00"}])
    with engine.connect().execution_options(costspan_writes=True) as connection, connection.begin():
        connection.execute(delete(records).where(records.c.id == f"{0:032x}:{0:016x}"))
    found = beside(engine, invoice(("2026-11-03", "claude-sonnet-4-5", "0.012")))
    assert (found["total"]["calls"], found["total"]["difference"]) == (2, 0)
    assert found["forgotten"] == {"calls": 1, "cost": SONNET}


# ---------------------------------------------------------------------- the law

CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 4 * 86_400 - 1).map(lambda second: 1_793_577_600 + second),
            "model": st.sampled_from(["claude-sonnet-4-5", "claude-haiku-4-5", "claude-unknown"]),
            "input_tokens": st.integers(0, 300_000),
            "output_tokens": st.integers(0, 5_000),
        },
        optional={
            "tier": st.just("batch"),
            "aborted": st.just(True),
            "response_id": st.sampled_from(["a", "b"]),
            "error_type": st.just("Timeout"),
            "prompt": st.sampled_from(["p", "q"]),
            "seconds": st.sampled_from([1, 40_000]),
            "provider": st.sampled_from(["anthropic", "openai"]),
        },
    ),
    max_size=12,
)
CHARGES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from(
            ["Claude Sonnet 4.5", "Claude Haiku 4.5", "Claude Unheard Of", "claude-unknown", "web_search", ""]
        ),
        st.sampled_from(["usage", "usage", "tax", "credit", "other"]),
        st.decimals(-1, 3, places=15),
    ),
    max_size=10,
)
AMOUNTS = ("invoiced", "ledger", "difference", "explained", "unexplained")


@given(CALLS, CHARGES, st.sampled_from([BOOK, BOOK.with_prices({"anthropic/claude-haiku-4-5": {"output": "4"}})]))
@settings(max_examples=25, deadline=None)
def test_explained_and_unexplained_are_the_difference_and_days_and_models_tile_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[dict[str, Any]],
    charges: list[tuple[int, int, str, Any, Decimal]],
    book: PriceBook,
) -> None:
    engine = ledger(tmp_path_factory.mktemp("ledger") / "ledger.db", made, book=book)
    one = Invoice("invoice", "test")
    first = date(2026, 11, 2)
    for start, length, name, kind, usd in charges:
        days = first + timedelta(days=start), first + timedelta(days=min(start + length, 3))
        one.add(Charge(*days, "anthropic", name, kind), usd)
    one.add(Charge(first, first, "anthropic", "claude-sonnet-4-5", "usage"), Decimal(0))
    found = beside(engine, one, period=(first, first + timedelta(days=3)))
    total = found["total"]
    start = 1_793_577_600
    assert total["invoiced"] == Decimal(one.total).scaleb(-12)
    assert total["ledger"] == Figures(engine).total(start, start + 4 * 86_400, {"provider": "anthropic"}).usd
    for line in (total, *found["by_day"], *found["by_model"], *found["cells"]):
        assert line["invoiced"] - line["ledger"] == line["difference"] == line["explained"] + line["unexplained"]
    for tiles in ("by_day", "by_model", "cells"):
        for name in (*AMOUNTS, "unpriced"):
            assert sum(line[name] for line in found[tiles]) == total[name]
    assert sum(line["explained"] for line in found["explanations"]) == total["explained"]
    explained: dict[Any, Decimal] = defaultdict(Decimal)
    for line in found["explanations"]:
        assert sum(part["explained"] for part in line["by"]) == line["explained"]
        for part in line["by"]:
            explained[part["day"], part["provider"], part["model"]] += part["explained"]
    for cell in found["cells"]:
        assert explained[cell["day"], cell["provider"], cell["model"]] == cell["explained"]
    # As JSON it is the same to the last digit, so nothing has changed since.
    assert changes(json.loads(to_json(found)), found)["cells"] == []
    engine.dispose()


# ---------------------------------------------------------------------- forms


def test_anthropics_console_export(tmp_path: Path) -> None:
    text = ANTHROPIC + (
        "2026-11-03,Claude Haiku 4.5,Default,key,message,≤ 200k,input_no_cache,0.05,0.05,token,not_available,\n"
        "2026-11-03,Claude Haiku 4.5,Default,key,message,≤ 200k,output,0.02,0.02,token,not_available,\n"
        "2026-11-04,,Default,key,message,,,0.10,0.10,web_search,,\n"
    )
    found = read(tmp_path, text)
    assert (found.form, found.whole_cents) == ("Anthropic costs", True)
    assert charged(found) == {
        ("2026-11-03", "Claude Haiku 4.5", "usage"): Decimal("0.07"),
        ("2026-11-04", "web_search", "usage"): Decimal("0.1"),
    }


def test_openais_cost_export(tmp_path: Path) -> None:
    """Days without costs have empty cells."""
    text = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id,"
        "organization_id,organization_name\n"
        "1793664000,1793750400,2026-11-03T00:00:00+00:00,2026-11-04T00:00:00+00:00,0.8958740000000000,usd,"
        '"gpt-4.1-2025-04-14, input",,org-1,Personal\n'
        "1793750400,1793836800,2026-11-04T00:00:00+00:00,2026-11-05T00:00:00+00:00,,,,,,\n"
    )
    found = read(tmp_path, text)
    assert found.form == "OpenAI costs"
    assert charged(found) == {("2026-11-03", "gpt-4.1-2025-04-14, input", "usage"): Decimal("0.895874")}
    assert charged(read(tmp_path, text.replace(",", "\t").replace("14\t ", "14, "), "tabs.tsv")) == charged(found)
    (tmp_path / "zipped.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert charged(read_invoice(tmp_path / "zipped.csv.gz", BOOK)) == charged(found)


GOOGLE = (
    "Invoice number,1234,\nInvoice date,2026-11-30,\nBilling account ID,0A0A0A-0B0B0B-0C0C0C,\nCurrency,USD,\n"
    'Currency exchange rate,1,\nTotal amount due,"$1,005.72",\n'
    "Billing account name,Billing account ID,Project name,Project ID,Project hierarchy,Service description,Service ID,"
    "SKU description,SKU ID,Consumption model description,Credit type,Cost type,Usage start date,Usage end date,"
    "Usage amount,Usage unit,Unrounded Cost ($),Cost ($)\n"
    "a,0A,p,p,o,Vertex AI,S1,Gemini 2.5 Pro Text Output - Predictions,K1,Default,,Usage,2026-11-01,2026-11-30,"
    '"1,000",count,"1,000.123456","1,000.12"\n'
    "a,0A,p,p,o,Vertex AI,S1,Gemini 2.5 Pro Text Output - Predictions,K1,Default,Promotion,Usage,2026-11-01,2026-11-30,"
    ",,-0.123456,-0.12\n"
    "a,0A,p,p,o,BigQuery,S2,Analysis,K2,Default,,Usage,2026-11-01,2026-11-30,1,count,5.5,5.50\n"
    ",,,,,,,,,,,Rounding error,,,,,-0.003441,-0.00\n"
    ",,,,,,,,,,,Total,,,,,1005.5,1005.50\n"
)


def test_googles_cost_table(tmp_path: Path) -> None:
    """Headings come after the head of the invoice, the last line has the sum, and other services are left out."""
    found = read(tmp_path, GOOGLE)
    assert (found.form, found.zone) == ("Google Cloud costs", "America/Los_Angeles")
    sku = "Gemini 2.5 Pro Text Output - Predictions"
    assert charged(found) == {
        ("2026-11-01/2026-11-30", sku, "usage"): Decimal("1000.123456"),
        ("2026-11-01/2026-11-30", sku, "credit"): Decimal("-0.123456"),
    }
    assert (found.left_out, found.left_out_pico) == (1, 5_500_000_000_000)


def test_googles_report_by_day(tmp_path: Path) -> None:
    text = (
        "Date,Service description,Service ID,SKU description,SKU ID,Usage amount,Usage unit,List cost ($),"
        "Negotiated savings ($),Savings programs ($),Other savings ($),Unrounded subtotal ($),Subtotal ($)\n"
        "2026-11-03,Gemini API,AEFD,Generate content output token count gemini 2.5 flash short input text,911A,"
        '"622,403",count,1.56,0.00,0.00,0.00,1.555990,1.56\n'
    )
    name = "Generate content output token count gemini 2.5 flash short input text"
    assert charged(read(tmp_path, text)) == {("2026-11-03", name, "usage"): Decimal("1.55599")}


@pytest.mark.parametrize(
    ("headings", "product"),
    [
        ("lineItem/UsageStartDate,lineItem/LineItemType,lineItem/ProductCode,lineItem/UsageType,lineItem/UnblendedCost,"
         "lineItem/CurrencyCode,product/ProductName", "Claude Sonnet 4.5 (Amazon Bedrock Edition)"),
        ("line_item_usage_start_date,line_item_line_item_type,line_item_product_code,line_item_usage_type,"
         "line_item_unblended_cost,line_item_currency_code,product",
         '"{""product_name"": ""Claude Sonnet 4.5 (Amazon Bedrock Edition)""}"'),
    ],
    ids=["1", "2.0"],
)  # fmt: skip
def test_aws_cost_and_usage_report(tmp_path: Path, headings: str, product: str) -> None:
    text = (
        f"{headings}\n"
        f"2026-11-03T10:00:00Z,Usage,7x3k,USE1-MP:USE1_InputTokenCount-Units,0.0000300000,USD,{product}\n"
        "2026-11-03T11:00:00Z,Usage,AmazonBedrock,USE1-NovaLite-input-tokens,0.00006,USD,Amazon Bedrock\n"
        "2026-11-03T11:00:00Z,Tax,AmazonBedrock,USE1-NovaLite-input-tokens,0.00001,USD,Amazon Bedrock\n"
        "2026-11-03T12:00:00Z,Usage,AmazonS3,USE1-Requests,7,USD,Amazon Simple Storage Service\n"
    )
    found = read(tmp_path, text)
    assert charged(found) == {
        ("2026-11-03", "Claude Sonnet 4.5", "usage"): Decimal("0.00003"),
        ("2026-11-03", "USE1-NovaLite-input-tokens", "usage"): Decimal("0.00006"),
        ("2026-11-03", "USE1-NovaLite-input-tokens", "tax"): Decimal("0.00001"),
    }
    assert (found.form, found.left_out) == ("AWS Cost and Usage Report", 1)


def test_aws_cost_explorer(tmp_path: Path) -> None:
    text = (
        '"Service","S3($)","Claude Sonnet 4.5 (Amazon Bedrock Edition)($)","Total costs($)"\n'
        '"Service total","1","2.5","3.5"\n"2026-11-03","1","2","3"\n"2026-11-04","","0.5","0.5"\n'
    )
    assert charged(read(tmp_path, text)) == {
        ("2026-11-03", "Claude Sonnet 4.5", "usage"): Decimal(2),
        ("2026-11-04", "Claude Sonnet 4.5", "usage"): Decimal("0.5"),
    }
    by_month = text.replace("2026-11-03", "2026-10-01").replace("2026-11-04", "2026-11-01")
    assert next(iter(charged(read(tmp_path, by_month))))[0] == "2026-10-01/2026-10-31"


def test_focus(tmp_path: Path) -> None:
    text = (
        "BilledCost,BillingCurrency,ChargeCategory,ChargeDescription,ChargePeriodStart,ChargePeriodEnd,ProviderName,"
        "PublisherName,ServiceName,SkuId\n"
        "0.25,USD,Usage,,2026-11-03T23:00:00Z,2026-11-04T00:00:00Z,OpenAI,OpenAI,OpenAI API,"
        '"gpt-4.1-2025-04-14, input"\n'
        "0.5,USD,Usage,Claude Sonnet 4.5,2026-11-03 00:00:00 UTC,2026-11-04 00:00:00 UTC,AWS,Anthropic,"
        "Amazon Bedrock,\n"
        "0.1,USD,Tax,,2026-11-03T00:00:00Z,2026-12-01T00:00:00Z,Anthropic,Anthropic,Claude API,tax\n"
        "9,USD,Usage,,2026-11-03T00:00:00Z,2026-11-04T00:00:00Z,AWS,AWS,Amazon S3,requests\n"
    )
    found = read(tmp_path, text)
    assert (found.form, found.left_out) == ("FOCUS", 1)
    assert charged(found) == {
        ("2026-11-03", "gpt-4.1-2025-04-14, input", "usage"): Decimal("0.25"),
        ("2026-11-03", "Claude Sonnet 4.5", "usage"): Decimal("0.5"),
        ("2026-11-03/2026-11-30", "tax", "tax"): Decimal("0.1"),
    }
    assert {charge.provider for charge in found.charges} == {"openai", "aws", "anthropic"}


def test_a_ledgers_own_focus_export_is_the_ledger(tmp_path: Path) -> None:
    made: list[dict[str, Any]] = [
        {"at": "2026-11-03 10:00", "cache_read_tokens": 800, "cache_write_tokens": 100, "team": "core"},
        {"at": "2026-11-03 10:30", "model": "claude-haiku-4-5", "tier": "batch"},
        {"at": "2026-11-04 10:00", "provider": "openai", "model": "gpt-4.1-2025-04-14"},
        {"at": "2026-11-04 11:00", "provider": "gcp.gemini", "model": "gemini-2.5-flash"},
        {"at": "2026-11-04 11:00", "provider": "aws.bedrock", "model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"},
    ]
    engine = ledger(tmp_path / "ledger.db", made)
    rows = Figures(engine).calls(0, 4_000_000_000, order="started", limit=None)
    with (tmp_path / "focus.csv").open("w", encoding="utf-8") as file:
        focus.write((tuple(row[name] for name in COLUMNS) for row in rows), file)
    found = beside(engine, read_invoice(tmp_path / "focus.csv", BOOK))
    assert {(line["provider"], line["model"]): line["difference"] for line in found["by_model"]} == {
        ("anthropic", "claude-sonnet-4-5"): 0,
        ("anthropic", "claude-haiku-4-5"): 0,
        ("openai", "gpt-4.1"): 0,
        ("google", "gemini-2.5-flash"): 0,
        ("aws", "claude-sonnet-4-5"): 0,
    }
    assert (found["total"]["ledger"], found["unmatched"]) == (Figures(engine).total(0, 4_000_000_000).usd, [])


def test_a_form_of_ones_own(tmp_path: Path) -> None:
    text = "Tag,Betrag,Modell\n2026-11-03,1.50,gpt-4.1\n"
    found = read(tmp_path, text, columns=Columns("Tag", "Betrag", "Modell", "azure.ai.openai"))
    assert charged(found) == {("2026-11-03", "gpt-4.1", "usage"): Decimal("1.5")}
    assert [charge.provider for charge in found.charges] == ["azure"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invoice.csv is empty"),
        ("Tag,Betrag\n2026-11-03,1\n", "has the columns Tag, Betrag, which are no known cost export; name its"),
        (ANTHROPIC + "yesterday,m,,,,,,1,,,,\n", "invoice.csv, line 2: usage_date_utc: 'yesterday' is no day"),
        (ANTHROPIC + '2026-11-03,m,,,,,,"1,5",,,,\n', "invoice.csv, line 2: cost_usd: '1,5' is no amount"),
        (ANTHROPIC + "2026-11-03,m,,,,,,NaN,,,,\n", "cost_usd: 'NaN' is no amount"),
        (GOOGLE.replace("Currency,USD", "Currency,EUR"), "the invoice is in EUR: the ledger is in USD"),
        (GOOGLE.replace("Currency,USD,\n", "").replace("($)", "(A$)"), "the invoice is in A$"),
        ("start_time,end_time,num_model_requests,model,input_tokens\n", "OpenAI's export of usage, which has no costs"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_invoice_is_a_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvoiceError) as raised:
        read(tmp_path, text)
    assert problem.casefold() in str(raised.value).casefold()
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------- the command


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `costspan reconcile` on the ledger of the test's folder."""
    for name in list(os.environ):
        if name.startswith(("COSTSPAN_", "OPENAI_", "ANTHROPIC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*arguments: object) -> Done:
        told = ["costspan", "reconcile", *map(str, arguments), "--ledger", str(tmp_path / "ledger.db")]
        monkeypatch.setattr(sys, "argv", told)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run


def test_the_command_tells_day_model_causes_and_verdict(command: Run, tmp_path: Path) -> None:
    twice = {"at": "2026-11-03 10:00", "response_id": "msg_1"}
    ledger(tmp_path / "ledger.db", [twice, twice])
    (tmp_path / "invoice.csv").write_text(ANTHROPIC + "2026-11-03,Claude Sonnet 4.5,,,,,,0.01,,,,\n")
    done = command(tmp_path / "invoice.csv")
    lines = [line.split() for line in done.out.splitlines()]
    figures = ["$0.0100", "$0.0120", "-$0.002000", "-20.00", "-$0.006000", "$0.004000", "off"]
    assert ["2026-11-03", *figures] in lines
    assert ["anthropic/claude-sonnet-4-5", *figures] in lines
    assert ["unexplained", "$0.004000"] in lines
    assert "answers that were recorded more than once" in done.out
    assert "up to $0.005000 may be rounding" in done.out
    assert done.out.endswith(
        "$0.0100 invoiced, $0.0120 in the ledger (2 calls): -$0.002000 (-20.00 %), outside the tolerance of 1 %; "
        "$0.004000 unexplained.\n"
    )
    assert (done.status, done.err) == (1, "")
    assert command(tmp_path / "invoice.csv", "--tolerance", "20").status == 0


def test_a_month_and_what_has_changed_since_an_earlier_look(command: Run, tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [{"at": "2026-11-03 10:00"}])
    line = "2026-11-03,Claude Sonnet 4.5,,,,,,{},,,,\n2026-10-31,Claude Sonnet 4.5,,,,,,7.00,,,,\n"
    (tmp_path / "old.csv").write_text(ANTHROPIC + line.format("0.02"))
    (tmp_path / "new.csv").write_text(ANTHROPIC + line.format("0.01"))
    first = command(tmp_path / "old.csv", "--month", "2026-11", "--json")
    told = json.loads(first.out)
    assert told["period"] == {"first": "2026-11-01", "last": "2026-11-30", "zone": "UTC"}
    assert told["outside"] == {"charges": 1, "cost": "7"}
    (tmp_path / "old.json").write_text(first.out)
    for before in ("old.json", "old.csv"):
        now = json.loads(
            command(tmp_path / "new.csv", "--month", "2026-11", "--before", tmp_path / before, "--json").out
        )
        (cell,) = now["changes"]["cells"]
        assert (cell["day"], cell["model"]) == ("2026-11-03", "claude-sonnet-4-5")
        assert cell["invoiced"] == {"before": "0.02", "after": "0.01", "change": "-0.01"}
        assert cell["ledger"]["change"] == "0"
        assert now["changes"]["total"]["unexplained"] == {"before": "0.014", "after": "0.004", "change": "-0.01"}
    shown = command(tmp_path / "new.csv", "--month", "2026-11", "--before", tmp_path / "old.json").out
    assert "2026-11-03 anthropic/claude-sonnet-4-5" in shown
    (tmp_path / "other.json").write_text("{}")
    assert "this is no reconciliation" in command(tmp_path / "new.csv", "--before", tmp_path / "other.json").err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give an invoice: a CSV file, --openai or --anthropic"),
        (["nowhere.csv"], "nowhere.csv cannot be read (No such file or directory)"),
        (["--openai"], "OpenAI tells its costs to admin keys alone: put one"),
        (["--anthropic"], "into ANTHROPIC_ADMIN_API_KEY"),
        (["x.csv", "--month", "November"], "--month must be a month such as 2026-11, not 'November'"),
        (["x.csv", "--tolerance", "nan"], "--tolerance must be a percentage such as 1 or 0.5, not 'nan'"),
        (["x.csv", "--cost-column", "Cost"], "needs --date-column, --cost-column and --provider"),
    ],
)
def test_bad_input_is_a_line(command: Run, tmp_path: Path, arguments: list[str], problem: str) -> None:
    ledger(tmp_path / "ledger.db", [{}])
    done = command(*arguments)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("costspan reconcile: ")
    assert problem in done.err


# ---------------------------------------------------------------------- cost APIs


class Asked(NamedTuple):
    """A request that a server has had."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@contextmanager
def serving(answer: Callable[[Asked], tuple[int, Any]]) -> Iterator[tuple[str, list[Asked]]]:
    """A provider on the loopback interface: its URL, and what it was asked."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            request = Asked(url.path, parse_qs(url.query), {key.lower(): value for key, value in self.headers.items()})
            asked.append(request)
            status, body = answer(request)
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with http_server(Handler) as url:
        yield url, asked


def test_openais_cost_api_is_asked_page_by_page(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    at = int(datetime(2025, 11, 3, tzinfo=UTC).timestamp())

    def bucket(start: int, *costs: tuple[str, Any]) -> dict[str, Any]:
        results = [
            {"object": "organization.costs.result", "amount": {"value": value, "currency": "usd"}, "line_item": item}
            for item, value in costs
        ]
        return {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results}

    def answer(asked: Asked) -> tuple[int, Any]:
        page = {"object": "page", "has_more": False, "next_page": None}
        if "page" in asked.query:
            # A number whose float has other digits than the amount.
            return 200, page | {"data": [bucket(at + 86_400, ("gpt-4.1-2025-04-14, input", 0.1))]}
        first = bucket(at, ("gpt-4.1-2025-04-14, input", "0.0020000000"), ("gpt-4.1-2025-04-14, output", "0.0016"))
        return 200, page | {"has_more": True, "next_page": "page_2", "data": [first]}

    made = {"provider": "openai", "model": "gpt-4.1"}
    ledger(tmp_path / "ledger.db", [{"at": "2025-11-03 10:00", **made}, {"at": "2025-11-04 10:00", **made}])
    with serving(answer) as (url, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-test")
        done = command("--openai", "--month", "2025-11", "--json")
    told = json.loads(done.out)
    assert {line["day"]: line["difference"] for line in told["by_day"]} == {"2025-11-03": "0", "2025-11-04": "0.0964"}
    first, second = asked
    assert first.path == "/v1/organization/costs"
    assert first.headers["authorization"] == "Bearer sk-admin-test"
    assert first.query["start_time"] == [str(int(datetime(2025, 11, 1, tzinfo=UTC).timestamp()))]
    assert next(value for key, value in first.query.items() if key.startswith("group_by")) == ["line_item"]
    assert second.query["page"] == ["page_2"]


def test_anthropics_cost_api_is_asked_page_by_page(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anthropic")

    def item(day: int, cents: str, model: str | None, kind: str = "tokens") -> dict[str, Any]:
        starts, ends = (f"2025-11-{number:02}T00:00:00Z" for number in (day, day + 1))
        cost = {"amount": cents, "list_amount": cents, "currency": "USD", "requests": None}
        return {"starting_at": starts, "ending_at": ends, "cost": cost, "group": {"model": model, "cost_type": kind}}

    def answer(asked: Asked) -> tuple[int, Any]:
        if "page" in asked.query:
            return 200, {"data": [item(4, "1", None, "web_search")], "has_more": False, "next_page": None}
        return 200, {"data": [item(3, "0.60000", "claude-sonnet-4-5")], "has_more": True, "next_page": "page_2"}

    ledger(tmp_path / "ledger.db", [{"at": "2025-11-03 10:00"}])
    with serving(answer) as (url, asked):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_ADMIN_API_KEY", "sk-ant-admin-test")
        done = command("--anthropic", "--month", "2025-11", "--json")
    told = json.loads(done.out)
    # Amounts are cents.
    assert {line["model"]: line["invoiced"] for line in told["by_model"]} == {
        "claude-sonnet-4-5": "0.006",
        "web searches": "0.01",
    }
    assert [one.path for one in asked] == ["/v1/organizations/analytics/cost"] * 2
    assert asked[0].headers["authorization"] == "Bearer sk-ant-admin-test"
    assert asked[0].query["time_bucket_width"] == ["1d"]
    assert asked[1].query["page"] == ["page_2"]


def test_a_key_that_may_not_is_a_line(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    ledger(tmp_path / "ledger.db", [{}])
    refusal = {"error": {"message": "You have insufficient permissions", "type": "invalid_request_error"}}
    with serving(lambda _: (403, refusal)) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-test")
        done = command("--openai")
    assert done.status == 2
    assert done.err.startswith("costspan reconcile: OpenAI does not tell its costs: Error code: 403")
    assert "sk-admin" not in done.err
