"""Budgets on a terminal: a bar for each, coloured by how full it is."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich import box
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from costspan.rates import show
from costspan.render import UNKNOWN, format_share, format_usd
from costspan_processor.budgets.model import as_table, local_time, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

    from costspan_processor.budgets import Budget
    from costspan_processor.budgets.guard import Line
    from costspan_processor.budgets.store import Balance, Hold

_SEVERITIES = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_BAR = 20
_NAME = 40
"""Longer ones go over several lines."""
_NUMBERS = {"Used", "Spent", "Held", "Limit"}


class _Fitting:
    """The first table that fits the terminal, or else the last one."""

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        free = options.update_width(10_000)
        fit = (table for table in self._tables if Measurement.get(console, free, table).maximum <= options.max_width)
        yield next(fit, self._tables[-1])


def show_list(states: Iterable[tuple[Line, Balance | None]], patterns: Iterable[tuple[Line, Balance | None]]) -> None:
    """A line for each budget, and after them those that hold for each value of something."""
    rows = [_row(line, balance) for line, balance in states]
    for line, _ in patterns:
        rows.append([Text(f"{line.subject.budget}, each {line.budget.per}"), *_row(line, None)[1:]])
    if rows:
        wide = _table("Budget", "Period", "", "Used", "Spent", "Held", "Limit", "Policy", "Until")
        narrow = _table("Budget", "Period", "Used", "Spent", "Held", "Limit")
        for row in rows:
            wide.add_row(*row)
            narrow.add_row(*row[:2], *row[3:7])
        show([_Fitting(wide, narrow)])


def show_one(
    budget: Budget,
    states: Sequence[tuple[Line, Balance | None]],
    values: Mapping[str, Balance],
    waiting: Sequence[Hold],
    events: Sequence[Mapping[str, Any]],
) -> None:
    """Everything about one budget."""
    rules = Table.grid(padding=(0, 2))
    for key, value in as_table(budget).items():
        rules.add_row(Text(key, style="dim"), Text(_shown(value)))
    show([rules, ""])
    show_list(states, ())
    if values:
        limit = states[0][0].subject.limit
        table = _table(str(budget.per), "", "Used", "Spent", "Held")
        for value, balance in values.items():
            table.add_row(Text(value), *_bar(balance.spent / limit), format_usd(usd(balance.spent)), _held(balance))
        show(["", table])
    under_way = sum(not hold.expired for hold in waiting)
    never = [hold for hold in waiting if hold.expired]
    show(["", f"{under_way} {'call' if under_way == 1 else 'calls'} under way"])
    if never:
        lost = format_usd(usd(sum(hold.amount for hold in never)))
        calls = "1 call" if len(never) == 1 else f"{len(never)} calls"
        show([f"{calls} never said what they cost, charged at the estimate: {lost}"])
    if events:
        show([""])
        show_events(events)


def show_events(events: Sequence[Mapping[str, Any]]) -> None:
    """Of each event what it is and its id; and what to do, once where it is the same for one after the other."""
    advice = None
    for event in events:
        at = datetime.fromisoformat(event["at"]).astimezone(UTC)
        seen = f"  (seen to by {event['acknowledged_by']})" if event["acknowledged_by"] else ""
        what = event["type"].replace("_", " ")
        if event["threshold"] is not None:
            what += f" {event['threshold']} %"
        if event["reason"] is not None:
            what += f" ({event['reason']})"
        head = Text.assemble(
            (f"{at:%Y-%m-%d %H:%M} UTC  ", "dim"),
            (f"{event['severity']:<8} ", _SEVERITIES[event["severity"]]),
            (event["budget"], "bold"),
            "" if event["value"] is None else f" of {event['value']}",
            f"  {what}: {format_usd(Decimal(event['current']))} of {format_usd(Decimal(event['limit']))}",
            (seen, "dim"),
        )
        show([head, _indented(Text(event["id"], style="dim"))])
        if event["advice"] != advice:
            advice = event["advice"]
            show([_indented(Text(advice))])


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 4), expand=False)


def _row(line: Line, balance: Balance | None) -> list[RenderableType]:
    subject, budget = line.subject, line.budget
    share = None if balance is None else balance.spent / subject.limit
    until = f"{local_time(line.until, budget.zone):%Y-%m-%d %H:%M %Z}"
    return [
        Text(subject.budget, style="bold"),
        subject.period,
        *_bar(share),
        UNKNOWN if balance is None else format_usd(usd(balance.spent)),
        UNKNOWN if balance is None else _held(balance),
        format_usd(usd(subject.limit)),
        budget.policy,
        until,
    ]


def _bar(share: float | None) -> tuple[RenderableType, RenderableType]:
    if share is None:
        return Text(""), Text(UNKNOWN)
    style = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
    bar = ProgressBar(total=1.0, completed=min(share, 1.0), width=_BAR, complete_style=style, finished_style=style)
    return bar, Text(format_share(share), style=style)


def _held(balance: Balance) -> str:
    return format_usd(usd(balance.held)) if balance.held else ""


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {part}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        number = column in _NUMBERS
        table.add_column(
            column, justify="right" if number else "left", no_wrap=number, overflow="fold", max_width=_NAME
        )
    return table
