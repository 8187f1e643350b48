"""Budgets on a terminal: a bar for each, coloured by how full it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from costspan.rates import show
from costspan.render import UNKNOWN, format_share, format_usd
from costspan_processor.budgets.model import as_table, local_time, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from costspan_processor.budgets import Budget
    from costspan_processor.budgets.guard import Line
    from costspan_processor.budgets.store import Balance, Hold

_SEVERITIES = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_BAR = 20


def show_list(states: Iterable[tuple[Line, Balance | None]], patterns: Iterable[tuple[Line, Balance | None]]) -> None:
    """A line for each budget, and after them those that hold for each value of something."""
    table = _table("Budget", "Period", "", "Used", "Spent", "Held", "Limit", "Policy", "Until")
    for line, balance in states:
        table.add_row(*_row(line, balance))
    for line, _ in patterns:
        row = _row(line, None)
        table.add_row(Text(f"{line.subject.budget}, each {line.budget.per}"), *row[1:])
    if table.row_count:
        show([table])


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
            table.add_row(value, *_bar(balance.spent / limit), format_usd(usd(balance.spent)), _held(balance))
        show(["", table])
    under_way = sum(not hold.expired for hold in waiting)
    never = [hold for hold in waiting if hold.expired]
    show(["", f"{under_way} calls under way"])
    if never:
        lost = format_usd(usd(sum(hold.amount for hold in never)))
        show([f"{len(never)} calls never said what they cost, and are charged at their estimates: {lost}"])
    if events:
        show([""])
        show_events(events)


def show_events(events: Sequence[Mapping[str, Any]]) -> None:
    """A line for each event, and what to do."""
    for event in events:
        at = datetime.fromisoformat(event["at"]).astimezone(UTC)
        seen = f"  (seen to by {event['acknowledged_by']})" if event["acknowledged_by"] else ""
        what = event["type"].replace("_", " ")
        if event["threshold"] is not None:
            what += f" {event['threshold']} %"
        head = Text.assemble(
            (f"{at:%Y-%m-%d %H:%M} UTC  ", "dim"),
            (f"{event['severity']:<8} ", _SEVERITIES[event["severity"]]),
            (f"{event['budget']}", "bold"),
            f"  {what}: ${event['current']} of ${event['limit']}",
            (seen, "dim"),
        )
        show([head, Text(f"    {event['advice']}", style="dim"), Text(f"    {event['id']}", style="dim")])


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
        table.add_column(column, justify="right" if column in {"Used", "Spent", "Held", "Limit"} else "left")
    return table
