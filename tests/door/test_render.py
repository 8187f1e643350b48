"""How money, tokens and summaries look on a terminal."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console, RenderableType

from costspan.render import (
    budget_bar,
    format_share,
    format_tokens,
    format_usd,
    session_line,
    style_of,
    summary_view,
)
from costspan.summaries import summarise
from costspan_processor.metrics import Totals

PICO = 10**12


def text_of(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(renderable)
    return console.export_text()


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        # under one cent: six decimals
        ("0", "$0.000000"),
        ("0.000001", "$0.000001"),
        ("0.0042", "$0.004200"),
        ("0.00999", "$0.009990"),
        # under one dollar: four
        ("0.01", "$0.0100"),
        ("0.15", "$0.1500"),
        ("0.99994", "$0.9999"),
        # from one dollar: two
        ("1", "$1.00"),
        ("2.45", "$2.45"),
        ("1234.5", "$1,234.50"),
        # what is shown decides, not what is behind it
        ("0.0099999", "$0.0100"),
        ("0.99999", "$1.00"),
        # half-even, from the exact decimal
        ("2.445", "$2.44"),
        ("2.435", "$2.44"),
        ("0.10005", "$0.1000"),
        # never shown as nothing
        ("0.0000001", "<$0.000001"),
        ("-0.0000001", ">-$0.000001"),
        ("-0.15", "-$0.1500"),
    ],
)
def test_an_amount(amount: str, shown: str) -> None:
    assert format_usd(Decimal(amount)) == shown


def test_no_amount_is_a_dash_and_not_a_zero() -> None:
    assert format_usd(None) == "—"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (1_234, "1.2k"),
        (15_230, "15.2k"),
        (999_949, "999.9k"),
        (999_999, "1.0M"),
        (2_450_000, "2.5M"),
        (7_200_000_000, "7.2G"),
        (7_200_000_000_000, "7200.0G"),
    ],
)
def test_a_number_of_tokens(count: int, shown: str) -> None:
    assert format_tokens(count) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "—"), (0.0, "0 %"), (0.614, "61 %"), (0.9996, "99.9 %"), (1.0, "100 %"), (1.31, "131 %")],
)
def test_a_share(share: float | None, shown: str) -> None:
    assert format_share(share) == shown


@pytest.mark.parametrize(
    ("message", "day", "style"),
    [("0.0099", "1.99", "green"), ("0.01", "2", "yellow"), ("0.10", "5", "yellow"), ("0.11", "5.01", "red")],
)
def test_colours_of_a_message_and_a_day(message: str, day: str, style: str) -> None:
    assert style_of(Decimal(message)) == style
    assert style_of(Decimal(day), per="day") == style


def test_the_line_of_a_session() -> None:
    assert session_line(Decimal("2.45"), 12, 15_230).plain == "Session: $2.45 | Calls: 12 | Tokens: 15.2k"


@pytest.mark.parametrize(
    ("spent", "says"),
    [
        ("0", ["0 %", "$0.1000 left of $0.1000"]),
        ("0.081", ["81 %", "$0.0190 left of $0.1000"]),
        ("0.1", ["100 %", "$0.000000 left of $0.1000"]),
        ("0.131", ["131 %", "$0.0310 over of $0.1000"]),
    ],
)
def test_a_budget(spent: str, says: list[str]) -> None:
    shown = text_of(budget_bar("session", Decimal(spent), Decimal("0.10")))
    assert all(part in shown for part in ["session", *says]), shown


def row(
    provider: str = "openai",
    model: str = "gpt-5.4",
    feature: str | None = None,
    calls: dict[str, int] | None = None,
    usd: str = "0",
    tokens: dict[str, int] | None = None,
    saved: str = "0",
) -> Totals:
    return Totals(
        provider=provider,
        request_model=model,
        response_model=model,
        operation="chat",
        dimensions={"costspan.feature": feature} if feature else {},
        calls=calls or {"priced": 1},
        cost={"input": int(Decimal(usd) * PICO)} if Decimal(usd) else {},
        tokens=tokens or {},
        saved=int(Decimal(saved) * PICO),
        write_premium=0,
        latency_ns=1_500_000_000,
        timed=1,
    )


def lines_of(*rows: Totals) -> dict[str, list[str]]:
    """The summary as shown: first word of each line -> the rest."""
    words = (line.split() for line in text_of(summary_view(summarise(rows))).splitlines())
    return {first: rest for first, *rest in filter(None, words)}


def test_a_summary_lists_providers_models_and_features() -> None:
    shown = lines_of(
        row(feature="planning", usd="0.5", tokens={"input": 1_000, "cache_read": 3_000, "output": 500}, saved="0.02"),
        row("anthropic", "claude-sonnet-4-6", "review", usd="1.25", tokens={"input": 2_000, "output": 1_500}),
    )
    assert shown["openai"] == ["1", "4.0k", "500", "75", "%", "$0.0200", "$0.5000"]
    assert shown["claude-sonnet-4-6"] == ["1", "2.0k", "1.5k", "0", "%", "—", "$1.25"]
    assert shown["planning"][-1] == "$0.5000"
    assert shown["total"] == ["2", "6.0k", "2.0k", "50", "%", "$0.0200", "$1.75"]
    # 1.75 over 8,000 tokens; the mean of two calls
    assert " ".join(shown["$0.2188"]) == "per 1k tokens · 4,000 tokens a call · in/out 3.0 · 1.50 s a call"


def test_what_has_no_price_is_a_dash_and_the_sum_says_that_it_is_a_lower_bound() -> None:
    shown = lines_of(
        row(usd="0.5", tokens={"input": 1_000, "output": 500}),
        row("openai", "[my]-model", calls={"unknown_model": 3}, tokens={"input": 900, "output": 100}),
    )
    assert shown["[my]-model"][-1] == "—"
    assert shown["openai"][-2:] == ["≥", "$0.5000"]
    assert shown["total"][-2:] == ["≥", "$0.5000"]
    assert " ".join(shown["3"]) == "calls not priced: openai/[my]-model (unknown_model)"


def test_a_model_that_two_providers_serve_is_told_apart() -> None:
    shown = lines_of(row("openai", "gpt-5.4"), row("azure.ai.openai", "gpt-5.4"), row("openai", "o3"))
    assert {"openai/gpt-5.4", "azure.ai.openai/gpt-5.4", "o3"} <= set(shown)


def test_a_summary_fits_a_terminal_of_eighty_columns() -> None:
    rows = [row("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "question-answering", usd="12.3", tokens={"output": 9})]
    assert max(map(len, text_of(summary_view(summarise(rows)), width=80).splitlines())) <= 80
    assert "…" not in text_of(summary_view(summarise(rows)), width=80)


def test_a_free_call_costs_nothing_and_says_so() -> None:
    shown = lines_of(row("ollama", "llama3", calls={"free": 2}, tokens={"input": 10, "output": 5}))
    assert shown["ollama"][-1] == "$0.000000"


def test_partial_and_estimated_prices_are_named() -> None:
    shown = text_of(summary_view(summarise([row(calls={"partial": 1, "estimated": 2}, usd="0.1")])))
    assert "1 call priced in part only: openai/gpt-5.4 (partial)" in shown
    assert "2 calls estimated" in shown


def test_an_empty_summary_can_be_shown() -> None:
    assert "total" in text_of(summary_view(summarise([])))
