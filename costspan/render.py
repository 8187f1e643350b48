"""Money, tokens and summaries on a terminal. Shared by `costspan run` and `costspan demo`."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .summaries import NO_FEATURE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from .summaries import Line, Summary

UNKNOWN = "—"
"""Stands where there is no figure: unknown is never shown as zero."""

_SMALLEST = Decimal("0.000001")


def format_usd(amount: Decimal | None) -> str:
    """An amount of USD: six decimals under a cent, four under a dollar, else two. None (no figure) is a dash.

    The amount as it is shown decides, so that $0.99999 is $1.00 and not $1.0000. What is too small for six decimals is
    not shown as zero.

    >>> [format_usd(Decimal(amount)) for amount in ("0.0042", "0.15", "2.45", "1234.5")]
    ['$0.004200', '$0.1500', '$2.45', '$1,234.50']
    >>> format_usd(Decimal("0.0000001")), format_usd(Decimal("-0.15")), format_usd(None)
    ('<$0.000001', '-$0.1500', '—')
    """
    if amount is None:
        return UNKNOWN
    sign, size = ("-" if amount < 0 else ""), abs(amount)
    if 0 < size < _SMALLEST:
        return ">-$0.000001" if sign else "<$0.000001"
    shown = size
    for places, under in ((6, Decimal("0.01")), (4, Decimal(1)), (2, None)):
        shown = size.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
        if under is None or shown < under:
            break
    return f"{sign}${shown:,f}"


def format_tokens(count: int) -> str:
    """A number of tokens in four characters or so.

    >>> [format_tokens(count) for count in (999, 1_200, 15_230, 2_450_000)]
    ['999', '1.2k', '15.2k', '2.5M']
    """
    if count < 1_000:
        return str(count)
    for size, unit in ((1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")):
        shown = round(count / size, 1)
        if shown < 1_000 or unit == "G":
            break
    return f"{shown}{unit}"


def format_share(share: float | None) -> str:
    """A share as a percentage; a dash where there is none.

    >>> format_share(0.614), format_share(0.9996), format_share(None)
    ('61 %', '99.9 %', '—')
    """
    if share is None:
        return UNKNOWN
    if 0.995 <= share < 1:
        return "99.9 %"  # a hundred is only shown for all of it
    return f"{share:.0%}".replace("%", " %")


def style_of(amount: Decimal | None, per: Literal["message", "day"] = "message") -> str:
    """The colour of an amount: green, yellow from one cent a message or two dollars a day, red above ten cents or five.

    >>> style_of(Decimal("0.0099")), style_of(Decimal("0.10")), style_of(Decimal("2.00"), per="day"), style_of(None)
    ('green', 'yellow', 'yellow', 'magenta')
    """
    if amount is None:
        return "magenta"
    low, high = (Decimal("0.01"), Decimal("0.10")) if per == "message" else (Decimal(2), Decimal(5))
    return "green" if amount < low else "yellow" if amount <= high else "red"


def money(amount: Decimal | None, per: Literal["message", "day"] | None = None) -> Text:
    """An amount as rich text, coloured by `style_of` where it belongs to a message or a day."""
    return Text(format_usd(amount), style="" if per is None else style_of(amount, per), justify="right")


def budget_bar(name: str, spent: Decimal, limit: Decimal, width: int = 24) -> RenderableType:
    """How much of a budget is used: green, yellow from 80 %, red once it is used up."""
    share = float(spent / limit) if limit else 1.0
    style = "green" if share < 0.8 else "yellow" if share < 1 else "red"
    left = f"{format_usd(limit - spent)} left" if spent <= limit else f"{format_usd(spent - limit)} over"
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(name, style="bold"),
        ProgressBar(total=1.0, completed=min(share, 1.0), width=width, complete_style=style, finished_style=style),
        Text(format_share(share), style=f"bold {style}"),
        Text(f"{left} of {format_usd(limit)}", style="dim"),
    )
    return grid


def session_line(cost: Decimal, calls: int, tokens: int) -> Text:
    """The running line of a session.

    >>> session_line(Decimal("2.45"), 12, 15_230).plain
    'Session: $2.45 | Calls: 12 | Tokens: 15.2k'
    """
    bar = (" | ", "dim")
    return Text.assemble(
        "Session: ", (format_usd(cost), "bold"), bar, "Calls: ", (str(calls), "bold"), bar,
        "Tokens: ", (format_tokens(tokens), "bold"),
    )  # fmt: skip


def summary_view(summary: Summary) -> RenderableType:
    """The whole summary: a table by provider, model and feature, the ratios, and what could not be priced."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    total = summary["total"]
    # Where the terminal is too narrow, names give way and figures do not.
    table.add_column("", Text("total", style="bold"))
    for heading, footer in zip(("calls", "input", "output", "cached", "saved", "cost"), _cells(total), strict=True):
        table.add_column(heading, footer, justify="right", no_wrap=True, footer_style="bold")
    _section(table, "by provider", summary["by_provider"])
    _section(table, "by model", _short_names(summary["by_model"]))
    if set(summary["by_feature"]) - {NO_FEATURE}:
        _section(table, "by feature", summary["by_feature"])
    return Group(table, Text(), *_notes(summary))


def _short_names(lines: Mapping[str, Line]) -> dict[str, Line]:
    """Without the provider, unless two of them serve a model of the same name."""
    short = Counter(name.partition("/")[2] for name in lines)
    return {model if short[model := name.partition("/")[2]] == 1 else name: line for name, line in lines.items()}


def _section(table: Table, title: str, lines: Mapping[str, Line]) -> None:
    table.add_row(Text(title, style="bold cyan"))
    for name, line in lines.items():
        table.add_row(Text(f" {name}", no_wrap=True, overflow="ellipsis"), *_cells(line))
    table.add_section()


def _cells(line: Line) -> tuple[Text, ...]:
    tokens = line["tokens"]
    # A group of which nothing is priced has no cost, rather than a cost of zero.
    known = line["unpriced"] < line["calls"] or line["cost"]
    cost = Text(format_usd(line["cost"] if known else None))
    if known and line["unpriced"]:
        cost = Text("≥ ") + cost
    return (
        Text(str(line["calls"])),
        Text(format_tokens(tokens["input"])),
        Text(format_tokens(tokens["output"])),
        Text(format_share(line["cache_hit_rate"])),
        Text(format_usd(line["saved"]) if line["saved"] else UNKNOWN),
        cost,
    )


def _notes(summary: Summary) -> Iterable[RenderableType]:
    efficiency = summary["efficiency"]
    ratios = []
    if (per_1k := efficiency["cost_per_1k_tokens"]) is not None:
        ratios.append(f"{format_usd(per_1k)} per 1k tokens")
    if (per_call := efficiency["tokens_per_call"]) is not None:
        ratios.append(f"{per_call:,.0f} tokens a call")
    if (ratio := efficiency["input_output_ratio"]) is not None:
        ratios.append(f"in/out {ratio:.1f}")
    if (latency := efficiency["latency"]) is not None:
        ratios.append(f"{latency:.2f} s a call")
    if ratios:
        yield Text(" · ".join(ratios), style="dim")
    if estimated := summary["statuses"].get("estimated"):
        yield Text(f"{_calls(estimated)} estimated: the provider did not say all of the usage", style="yellow")
    if failed := summary["total"]["failed"]:
        yield Text(f"{_calls(failed)} failed and cost nothing", style="yellow")
    for line in summary["unpriced"]:
        what = "priced in part only" if line["status"] == "partial" else "not priced"
        model = f"{line['provider']}/{line['model']}"
        yield Text.assemble((f"{_calls(line['calls'])} {what}: ", "yellow"), model, (f" ({line['status']})", "dim"))


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"
