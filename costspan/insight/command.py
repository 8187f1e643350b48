"""`costspan report` and `costspan top`: what the ledger tells, once and live."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from costspan.commands import fail, quiet_when_unread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from costspan.insight.figures import Figures
    from costspan.insight.report import Kind
    from costspan_processor.budgets import Budget

Ledger = Annotated[
    str,
    typer.Option(
        "--ledger",
        metavar="URL",
        envvar="COSTSPAN_LEDGER",
        help="The ledger: a file, sqlite:///file.db or postgresql://...",
        show_default=False,
    ),
]
Zone = Annotated[str, typer.Option(help="Time zone of days, such as Europe/Berlin.")]

_KINDS: Final = "day, week, month, conversation, session or feature"
_WIDEST: Final = 120
_FORMS: Final = "text, markdown, json, csv or html"


def report(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{_KINDS}.")],
    subject: Annotated[
        str | None, typer.Argument(metavar="ID", help="Which conversation, session or feature.", show_default=False)
    ] = None,
    day: Annotated[
        str | None,
        typer.Option("--date", metavar="DAY", help="A day in the day, week or month: 2026-11-28; by default today."),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="First day that a conversation or the like is looked at."),
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last one.")] = None,
    zone: Zone = "UTC",
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", help=f"{_FORMS}.", show_default="text on a terminal, or markdown")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there.")] = None,
    advice: Annotated[bool, typer.Option(help="With advice: what could be saved, and how.")] = True,
    candidates: Annotated[
        list[str] | None,
        typer.Option("--candidate", metavar="MODEL", help="A model that is good enough: provider/model; repeat it."),
    ] = None,
    unhurried: Annotated[
        list[str] | None,
        typer.Option("--unhurried", metavar="TASK", help="A task whose answers nobody waits for; repeat it."),
    ] = None,
    revenue: Annotated[
        str | None, typer.Option(metavar="USD", help="Of a feature: what it brings in a month.", show_default=False)
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=0, help="Of a feature: its users in a month.", show_default=False)
    ] = None,
    development: Annotated[
        str | None, typer.Option(metavar="USD", help="Of a feature: what making it has cost.", show_default=False)
    ] = None,
    ledger: Ledger = "",
) -> None:
    """Report what calls have cost: a day, a week, a month, a conversation, a session or a feature.

    With budgets, breakdowns and shares, the dearest calls, anomalies, efficiency, a forecast and advice.
    """
    from costspan.insight.report import KINDS, STRETCHES

    _fail = partial(fail, "costspan report")
    form = "json" if as_json else form or ("text" if out is None and sys.stdout.isatty() else "markdown")
    if kind not in KINDS:
        _fail(f"KIND must be {_KINDS}, not {kind!r}")
    if form not in {"text", "markdown", "json", "csv", "html"}:
        _fail(f"--format must be {_FORMS}, not {form!r}")
    if kind in STRETCHES and (subject or first or last):
        _fail(f"a report of a {kind} is of all calls in it: say which with --date")
    if kind != "feature" and not (revenue is None and users is None and development is None):
        _fail("--revenue, --users and --development are for a report of a feature")
    if kind not in STRETCHES and day:
        _fail(f"--date is for a day, week or month: a {kind} has --from and --to")
    with reading("costspan report"):
        from costspan.insight.report import build
        from costspan_processor.budgets.periods import zone_of

        zone_of(zone)
        figures = figures_of(ledger)
        now = time.time()
        stretch = _stretch(figures, kind, day, (first, last), zone, now)
        made = build(figures, kind, subject=subject, stretch=stretch, budgets=_budgets(), zone=zone, now=now)
        if kind == "feature":
            from dataclasses import asdict

            from costspan.insight.roi import feature_of

            known = figures.known() or (0, 1)
            _, start, end = stretch or ("", known[0], min(known[1], int(now) + 1))
            brought, spent = _amount(revenue, "--revenue"), _amount(development, "--development")
            made["roi"] = asdict(
                feature_of(figures, str(subject), start, end, revenue=brought, users=users, development=spent)
            )
        if stretch is not None and kind in STRETCHES:
            from costspan.book import price_book
            from costspan.insight.study import advise_on, study
            from costspan.settings import load

            study(made, figures, *stretch[1:], zone=zone, now=now)
            if advice:
                end, book = min(stretch[2], int(now) + 1), price_book(load({}))
                advise_on(made, figures, end, book=book, candidates=candidates or (), unhurried=unhurried or ())
    _put(made, form, out)


@contextmanager
def reading(command: str) -> Iterator[None]:
    """Whatever is wrong with what was asked for, or with the ledger, ends the command with a line."""
    try:
        yield
    except (ValueError, ImportError) as error:
        fail(command, error)
    except Exception as error:
        from sqlalchemy.exc import DBAPIError

        from costspan_processor.ledger.store import LedgerError

        if not isinstance(error, (DBAPIError, LedgerError)):
            raise
        fail(command, " ".join(str(getattr(error, "orig", None) or error).split()), 1)


def _stretch(
    figures: Figures, kind: Kind, day: str | None, days: tuple[str | None, str | None], zone: str, now: float
) -> tuple[str, int, int] | None:
    """What a report looks at: id, start and end; None: all that the ledger knows."""
    from costspan.insight.report import STRETCHES, stretch_of

    if kind in STRETCHES:
        return stretch_of(kind, None if day is None else _day(day, "--date"), now, zone)
    if not any(days):
        return None
    known = figures.known() or (0, 0)
    first = known[0] if days[0] is None else stretch_of("day", _day(days[0], "--from"), now, zone).start
    end = known[1] if days[1] is None else stretch_of("day", _day(days[1], "--to"), now, zone).end
    return f"{days[0] or '…'} to {days[1] or '…'}", first, max(first, end)


def _amount(text: str | None, option: str) -> Decimal | None:
    try:
        amount = None if text is None else Decimal(text)
    except InvalidOperation:
        amount = Decimal("nan")
    if amount is not None and not amount.is_finite():
        raise ValueError(f"{option} must be an amount in USD, not {text!r}")
    return amount


def _day(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} must be a day such as 2026-11-28, not {text!r}") from None


def figures_of(ledger: str) -> Figures:
    """The figures of the ledger that a command names."""
    if not ledger:
        raise ValueError(
            "name a ledger with --ledger, or COSTSPAN_LEDGER: a file, sqlite:///file.db or postgresql://..."
        )
    try:
        from costspan.insight.figures import Figures
    except ImportError as error:
        raise ImportError(f"reports need more than is installed ({error}): pip install 'costspan[report]'") from None
    return Figures.of(ledger)


def _budgets() -> Sequence[Budget]:
    """The budgets of the environment and the configuration file."""
    from costspan.book import price_book
    from costspan.budgets.wiring import Source
    from costspan.settings import load

    settings = load({})
    return Source(settings, price_book(settings)).strictly()[0]


def _put(made: dict[str, Any], form: str, out: Path | None) -> None:
    from costspan.insight.show import write

    if form == "text":
        from rich.console import Console
        from rich.markdown import Markdown

        console = Console()
        with quiet_when_unread():
            console.print(Markdown(write(made, "markdown")), width=min(console.width, _WIDEST))
        return
    text = write(made, cast("Any", form))
    if out is None:
        with quiet_when_unread():
            sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail("costspan report", f"--out {out} cannot be written ({error.strerror})")


def top(
    by: Annotated[
        str, typer.Option(help="What to group calls by: model, provider, task, feature, team, user, ...")
    ] = "model",
    seconds: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 2.0,
    lines: Annotated[int, typer.Option(min=1, max=200, help="Groups to show.")] = 15,
    zone: Zone = "UTC",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Look once, and print JSON.")] = False,
    ledger: Ledger = "",
) -> None:
    """Watch who spends: today's calls and dollars by model or whatever else, the last hour, and the budgets.

    Until Ctrl-C. Without a terminal it looks once.
    """
    from rich.console import Console
    from rich.live import Live

    with reading("costspan top"):
        figures = figures_of(ledger)
        found = _top(figures, by, lines, zone)
        if as_json:
            from costspan.insight.show import to_json

            with quiet_when_unread():
                print(to_json(found))
            return
        console = Console()
        if once or not console.is_terminal:
            console.print(_top_view(found))
            return
        with Live(_top_view(found), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(seconds)
                live.update(_top_view(_top(figures, by, lines, zone)), refresh=True)


def _top(figures: Figures, by: str, lines: int, zone: str) -> dict[str, Any]:
    from costspan.insight.figures import Sums
    from costspan.insight.report import budget_lines, groups
    from costspan_processor.budgets.periods import period_at

    now = time.time()
    today = period_at("day", now, zone)
    end = int(now) + 1
    columns = ("provider", "model") if by == "model" else (by,)
    found = figures.sums(today.start, today.end, columns)
    total = sum(found.values(), Sums())
    hour = figures.spent(end - 3600, end).get(())
    return {
        "at": datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds"),
        "today": {"id": today.id, "calls": total.calls, "cost": total.usd, "unpriced": total.unpriced},
        "last_hour": {"calls": hour.calls if hour else 0, "cost": hour.usd if hour else 0 * total.usd},
        "by": by,
        "groups": groups(found, total, lines),
        "budgets": [line for budget in _budgets() for line in budget_lines(figures, budget, end - 1)],
    }


def _top_view(found: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from costspan.rates import table
    from costspan.render import budget_bar, format_share, format_tokens, format_usd, style_of

    today, hour = found["today"], found["last_hour"]
    head = Text.assemble(
        f"{today['id']}  ", (format_usd(today["cost"]), f"bold {style_of(today['cost'], 'day')}"),
        f" in {today['calls']:,} calls",
        (f"  ({today['unpriced']:,} not priced)" if today["unpriced"] else "", "yellow"),
        f"   last hour {format_usd(hour['cost'])} in {hour['calls']:,}", (f"   {found['at']}", "dim"),
    )  # fmt: skip
    rows = [
        (
            line["name"],
            f"{line['calls']:,}",
            format_tokens(line["input_tokens"]),
            format_tokens(line["output_tokens"]),
            format_share(line["cache_hit_rate"]),
            format_usd(line["cost"]),
            format_share(line["share"]),
        )
        for line in found["groups"]
    ]
    parts: list[RenderableType] = [head, Text()]
    if rows:
        parts.append(table((f"by {found['by']}", "calls", "input", "output", "cached", "cost", "share"), rows))
    else:
        parts.append(
            Text("no calls yet today" if not today["calls"] else f"no call tells of its {found['by']}", style="dim")
        )
    bars = [line for line in found["budgets"] if line["spent"] is not None]
    if bars:
        parts += [Text(), *(budget_bar(line["name"], line["spent"], line["limit"]) for line in bars)]
    return Group(*parts)
