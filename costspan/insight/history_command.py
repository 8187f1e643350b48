"""`costspan reprice` and `costspan reconcile`: what is recorded, held against other prices and against an invoice."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from costspan.commands import fail, quiet_when_unread
from costspan.insight.command import Ledger, figures_of, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from costspan.insight.figures import Figures
    from costspan.insight.reconcile.invoices import Columns, Invoice
    from costspan_pricing import PriceBook

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="NAME=VALUE", help="Only such calls: team=search, model=..., tag.tenant=..."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are decimal text in USD.")]
Book = Annotated[
    str,
    typer.Option(
        "--book", metavar="FILE", help="Prices over the bundled ones, or `bundled`; by default your own book."
    ),
]

_FEW: Final = 12
"""Lines of a list that people are shown; --json has them all."""


# ---------------------------------------------------------------------- reprice


def reprice(
    book: Book = "",
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day (UTC).")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last day (UTC).")] = None,
    where: Where = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the figures into the ledger.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before.")] = False,
    as_json: Json = False,
    ledger: Ledger = "",
) -> None:
    """Price the calls of the ledger with another book, and say what differs.

    Each call costs what its own day cost by that book. --apply restates the ledger: calls and totals together, an hour
    of calls at a time. Figures that a provider sent are not touched, nor those that the other book does not have.
    """
    _fail = partial(fail, "costspan reprice")
    if yes and not apply:
        _fail("--yes is for --apply")
    if apply and as_json and not yes:
        _fail("--apply asks first, which --json cannot: add --yes")
    with reading("costspan reprice"):
        figures = figures_of(ledger)
        from costspan.insight.reprice import compare, restate

        prices, narrowed = _book(book), _where(where)
        start, end = _stretch(figures, first, last)
        total = sum(spent.calls for spent in figures.by_hour(start, end, narrowed).values())
        with _progress("Pricing") as seen:
            compared = compare(figures, prices, start, end, narrowed, lambda count: seen(count, total))
        said = compared.plain() | {"restated": None}
        said["period"] = {"first": _day_of(start), "last": _day_of(end - 1)}
        if not as_json:
            _show_repriced(said)
        if apply and compared.changes:
            if not yes:
                from costspan.rates import plural

                calls, hours = plural(compared.changes, "call"), plural(len(compared.hours), "hour")
                question = f"Restate {calls} in {hours} of this ledger?"
                if not typer.confirm(question, err=True):
                    _fail("nothing was changed", 1)
            with _progress("Restating") as seen:
                done = restate(figures, prices, start, end, narrowed, lambda count: seen(count, total))
            from costspan.insight.figures import usd

            said["restated"] = {"calls": done.calls, "hours": done.hours, "difference": usd(done.difference)}
    _end_of_reprice(said, apply, as_json)


def _end_of_reprice(said: Mapping[str, Any], apply: bool, as_json: bool) -> None:
    from costspan.insight.show import to_json
    from costspan.rates import plural, show
    from costspan.render import format_usd

    with quiet_when_unread():
        if as_json:
            print(to_json(said))
        elif said["restated"]:
            done = said["restated"]
            show([f"Restated {plural(done['calls'], 'call')}: {format_usd(done['difference'])} in all."])
        elif apply:
            show(["Nothing to restate."])
        elif said["changed"]:
            show([f"--apply would restate {plural(said['changed'], 'call')}."])


def _show_repriced(said: Mapping[str, Any]) -> None:
    from costspan.rates import plural, show, table
    from costspan.render import format_usd

    period = said["period"]
    head = f"{plural(said['calls'], 'call')} from {period['first']} to {period['last']} by the book {said['book']}"
    parts: list[RenderableType] = [head, ""]
    lines = [
        (
            f"{line['provider']}/{line['model']}",
            f"{line['calls']:,}",
            f"{line['changed']:,}",
            *(format_usd(line[name]) for name in ("recorded", "repriced", "difference")),
        )
        for line in said["by_model"]
    ]
    total = ("all", f"{said['calls']:,}", f"{said['changed']:,}")
    lines.append((*total, *(format_usd(said[name]) for name in ("recorded", "repriced", "difference"))))
    parts.append(table(("model", "calls", "changed", "recorded", "repriced", "difference"), lines))
    notes = [f"Recorded by the book {line['book'] or '(not said)'}: {plural(line['calls'], 'call')}, "
             f"{format_usd(line['cost'])}" for line in said["books"][:_FEW]]  # fmt: skip
    for key, words in (
        ("now_priced", "could not be priced and can be now"),
        ("no_longer_priced", "can no longer be priced; the recorded figure stays"),
        ("still_unpriced", "still without a price"),
    ):
        notes += [
            f"{line['provider']}/{line['model']} ({line['status']}): {plural(line['calls'], 'call')} {words}"
            + (f", {format_usd(line['cost'])}" if "cost" in line else "")
            for line in said[key][:_FEW]
        ]
    own, bare, gone = said["provider_figures"], said["without_usage"], said["forgotten"]
    if own["calls"]:
        notes.append(f"{plural(own['calls'], 'call')} with the provider's own figure ({format_usd(own['cost'])}) stay")
    if bare["calls"]:
        notes.append(f"{plural(bare['calls'], 'call')} ({format_usd(bare['cost'])}) have no usage to price, and stay")
    if gone["calls"]:
        notes.append(f"{plural(gone['calls'], 'call')} ({format_usd(gone['cost'])}) are only in the totals, and stay")
    with quiet_when_unread():
        show([*parts, "", *notes])


# ---------------------------------------------------------------------- reconcile


def reconcile(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Cost exports of providers, as CSV.", show_default=False),
    ] = None,
    openai: Annotated[bool, typer.Option("--openai", help="Ask OpenAI, with OPENAI_ADMIN_KEY.")] = False,
    anthropic: Annotated[
        bool, typer.Option("--anthropic", help="Ask Anthropic, with ANTHROPIC_ADMIN_API_KEY.")
    ] = False,
    month: Annotated[
        str | None, typer.Option(metavar="MONTH", help="Which month: 2026-11; by default what the invoice is for.")
    ] = None,
    tolerance: Annotated[str, typer.Option(metavar="PERCENT", help="Up to here a difference is none.")] = "1",
    before: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier --json of this command, or an earlier invoice: what changed."),
    ] = None,
    where: Where = None,
    date_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of a form that is not known: days.")] = None,
    cost_column: Annotated[str | None, typer.Option(metavar="NAME", help="The same: amounts in USD.")] = None,
    model_column: Annotated[str | None, typer.Option(metavar="NAME", help="The same: models.")] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="The same: whose invoice it is.")] = None,
    book: Book = "",
    as_json: Json = False,
    ledger: Ledger = "",
) -> None:
    """Set a provider's invoice beside the ledger: by day and by model, and the calls that explain what differs.

    Knows the cost exports of OpenAI, Anthropic, Google Cloud and AWS, and FOCUS. Exit status 1 if the difference is
    larger than the tolerance.
    """
    _fail = partial(fail, "costspan reconcile")
    if not (files or openai or anthropic):
        _fail("give an invoice: a CSV file, --openai or --anthropic")
    with reading("costspan reconcile"):
        allowed = _tolerance(tolerance)
        columns = _columns(date_column, cost_column, model_column, provider)
        figures = figures_of(ledger)
        from costspan.insight.reconcile import changes
        from costspan.insight.reconcile import reconcile as compare

        prices, narrowed, period = _book(book), _where(where), _month(month)
        if openai or anthropic:
            period = _over(period)
        invoices = _invoices(files or [], openai, anthropic, period, prices, columns)
        with _progress("Comparing") as seen:
            options: dict[str, Any] = {"where": narrowed, "tolerance": allowed, "seen": seen}
            found = compare(figures, invoices, prices, period=period, **options)
            if before is not None:
                found["changes"] = changes(
                    _before(before, lambda one: compare(figures, [one], prices, period=period, **options),
                            prices, columns),
                    found,
                )  # fmt: skip
    from costspan.insight.show import to_json
    from costspan.rates import show

    with quiet_when_unread():
        if as_json:
            print(to_json(found))
        else:
            show(_reconciled(found))
    if not found["total"]["within"]:
        raise typer.Exit(1)


def _invoices(
    files: Sequence[Path],
    openai: bool,
    anthropic: bool,
    period: tuple[date, date] | None,
    book: PriceBook,
    columns: Columns | None,
) -> list[Invoice]:
    from costspan.insight.reconcile import read_invoice

    invoices = [read_invoice(path, book, columns) for path in files]
    if openai or anthropic:
        from costspan.insight.reconcile.services import anthropic_costs, openai_costs

        assert period is not None
        invoices += [ask(*period) for ask, wanted in ((openai_costs, openai), (anthropic_costs, anthropic)) if wanted]
    return invoices


def _before(
    path: Path, reconciled: Callable[[Invoice], dict[str, Any]], book: PriceBook, columns: Columns | None
) -> Mapping[str, Any]:
    """An earlier reconciliation: what was printed then, or an earlier invoice beside the ledger of today."""
    from costspan.insight.reconcile import read_invoice

    try:
        with path.open("rb") as file:
            is_json = file.read(64).lstrip()[:1] == b"{"
        if is_json:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
    except OSError as error:
        raise ValueError(f"--before {path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise ValueError(f"--before {path} is no JSON that `costspan reconcile --json` has printed") from None
    return reconciled(read_invoice(path, book, columns))


def _reconciled(found: Mapping[str, Any]) -> list[RenderableType]:
    from costspan.rates import plural, table
    from costspan.render import format_usd

    period, total = found["period"], found["total"]
    stretch = period["first"] if period["first"] == period["last"] else f"{period['first']} to {period['last']}"
    parts: list[RenderableType] = [f"{', '.join(found['providers'])}, {stretch} ({period['zone']})", ""]
    for title, key in (("day", "by_day"), ("model", "by_model")):
        lines = [
            (line["day"] if key == "by_day" else f"{line['provider']}/{line['model']}", *_amounts(line))
            for line in found[key]
        ]
        parts += [table((title, *_HEADINGS), [*lines, ("all", *_amounts(total))]), ""]
    if found["explanations"]:
        rows = [
            (
                line["what"],
                f"{line['calls']:,}" if line["calls"] else "",
                format_usd(line["explained"]) if line["explained"] or line["moved"] else "",
                format_usd(line["at_stake"]) if line["at_stake"] else "unknown" if line["unknown"] else "",
                " ".join(line["examples"][:1]),
            )
            for line in found["explanations"]
        ]
        rows.append(("unexplained", "", format_usd(total["unexplained"]), "", ""))
        parts += [table(("what may be why", "calls", "explains", "at stake", "such as"), rows, left=(0, 4)), ""]
    parts += _notes(found)
    if "changes" in found:
        parts += ["", *_changed(found["changes"])]
    verdict = "within" if total["within"] else "outside"
    percent = "—" if total["percent"] is None else f"{total['percent']} %"
    parts += [
        "",
        f"{format_usd(total['invoiced'])} invoiced, {format_usd(total['ledger'])} in the ledger "
        f"({plural(total['calls'], 'call')}): {format_usd(total['difference'])} ({percent}), {verdict} the tolerance "
        f"of {found['tolerance']} %; {format_usd(total['unexplained'])} unexplained.",
    ]
    return parts


_HEADINGS: Final = ("invoiced", "ledger", "difference", "%", "explained", "unexplained", "")


def _amounts(line: Mapping[str, Any]) -> tuple[str, ...]:
    from costspan.render import format_usd

    # A group of which nothing is priced has no cost, rather than a cost of zero.
    ledger = format_usd(line["ledger"] if line["ledger"] or not line["unpriced"] else None)
    return (
        format_usd(line["invoiced"]),
        f"≥ {ledger}" if line["unpriced"] and line["ledger"] else ledger,
        format_usd(line["difference"]),
        "—" if line["percent"] is None else f"{line['percent']:+}",
        format_usd(line["explained"]) if line["explained"] else "",
        format_usd(line["unexplained"]),
        "ok" if line["within"] else "off",
    )


def _notes(found: Mapping[str, Any]) -> list[str]:
    from costspan.rates import plural
    from costspan.render import format_usd

    notes = []
    for invoice in found["invoices"]:
        left = invoice["left_out"]
        aside = f"; {plural(left['lines'], 'line')} for other services ({format_usd(left['cost'])}) left out"
        notes.append(
            f"{invoice['source']}: {invoice['form']}, {plural(invoice['lines'], 'line')}, "
            f"{format_usd(invoice['invoiced'])}{aside if left['lines'] else ''}"
        )
    outside, gone = found["outside"], found["forgotten"]
    if outside["charges"]:
        notes.append(f"{plural(outside['charges'], 'charge')} of other days ({format_usd(outside['cost'])}) left out")
    if gone["calls"]:
        notes.append(f"{plural(gone['calls'], 'call')} ({format_usd(gone['cost'])}) are only in the ledger's totals")
    if found["rounding"] is not None:
        notes.append(f"The invoice has whole cents a line: up to {format_usd(found['rounding'])} may be rounding")
    for key, amount, words in (
        ("unmatched", "invoiced", "on the invoice is no model that the book knows"),
        ("unknown_models", "ledger", "in the ledger is no model that the book knows"),
        ("not_in_ledger", "invoiced", "is on the invoice, and the ledger has no calls of it"),
        ("not_invoiced", "ledger", "is in the ledger, and not on the invoice"),
    ):
        lines = found[key]
        notes += [f"{line['provider']}/{line['model']} {words} ({format_usd(line[amount])})" for line in lines[:_FEW]]
        if len(lines) > _FEW:
            notes.append(f"... and {len(lines) - _FEW} more; --json has them all")
    return notes


def _changed(changes: Mapping[str, Any]) -> list[RenderableType]:
    from costspan.rates import table
    from costspan.render import format_usd

    def row(name: str, line: Mapping[str, Any]) -> tuple[str, ...]:
        amounts = (line[key][side] for key in ("invoiced", "ledger", "unexplained") for side in ("before", "after"))
        return name, *map(format_usd, amounts)

    lines = [row(f"{line['day']} {line['provider']}/{line['model']}", line) for line in changes["cells"]]
    if not lines:
        return ["Nothing has changed since."]
    headings = ("changed since", *(f"{name}\n{side}" for name in ("invoiced", "ledger", "unexplained")
                                   for side in ("before", "now")))  # fmt: skip
    return [table(headings, [*lines, row("all", changes["total"])])]


# ---------------------------------------------------------------------- both


def _book(name: str) -> PriceBook:
    """The book of an option. Raises BookError, a ValueError, for a file that is none."""
    from costspan.book import price_book
    from costspan.difference import BUNDLED
    from costspan.settings import load
    from costspan_pricing import PriceBook

    if name == BUNDLED:
        return PriceBook.bundled()
    if name:
        return PriceBook.bundled().with_file(Path(name).expanduser())

    def refuse(error: Exception) -> None:
        raise error

    return price_book(load({}), refuse=refuse)


def _where(pairs: Sequence[str] | None) -> dict[str, str]:
    from costspan.insight.figures import NARROWED_BY

    found = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not (name in NARROWED_BY or name.startswith("tag.")):
            raise ValueError(f"--where {pair}: it is NAME=VALUE, with one of {', '.join(NARROWED_BY)} or tag.<name>")
        found[name] = value
    return found


def _stretch(figures: Figures, first: str | None, last: str | None) -> tuple[int, int]:
    known = figures.known()
    if known is None:
        raise ValueError("the ledger is empty: nothing has been recorded yet")
    start = known[0] if first is None else _midnight(first, "--from")
    end = known[1] if last is None else _midnight(last, "--to") + 86_400
    if start >= end:
        raise ValueError(f"there is no time between {first or _day_of(start)} and {last or _day_of(end)}")
    return start, end


def _midnight(text: str, option: str) -> int:
    try:
        return int(datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC).timestamp())
    except ValueError:
        raise ValueError(f"{option} must be a day such as 2026-11-28, not {text!r}") from None


def _day_of(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).date().isoformat()


def _month(text: str | None) -> tuple[date, date] | None:
    from costspan.insight.reconcile import month_end

    if text is None:
        return None
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise ValueError(f"--month must be a month such as 2026-11, not {text!r}") from None
    return first, month_end(first)


def _over(period: tuple[date, date] | None) -> tuple[date, date]:
    """The days of a period, by default of this month, that are over: the costs of a day come with its end."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    first, last = period or (yesterday.replace(day=1), yesterday)
    if first > yesterday:
        raise ValueError(f"no day of {first:%Y-%m} is over yet, so no costs are known")
    return first, min(last, yesterday)


def _tolerance(text: str) -> Decimal:
    try:
        allowed = Decimal(text.strip().removesuffix("%").strip())
    except InvalidOperation:
        allowed = Decimal(-1)
    if not allowed.is_finite() or not 0 <= allowed <= 100:
        raise ValueError(f"--tolerance must be a percentage such as 1 or 0.5, not {text!r}")
    return allowed


def _columns(at: str | None, cost: str | None, model: str | None, provider: str | None) -> Columns | None:
    from costspan.insight.reconcile import Columns

    if at is None and cost is None and model is None and provider is None:
        return None
    if at is None or cost is None or provider is None:
        raise ValueError("a form that is not known needs --date-column, --cost-column and --provider")
    return Columns(at, cost, model, provider)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """How far it is, on a terminal that somebody looks at."""
    if not sys.stderr.isatty():
        yield lambda _count, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda count, total: progress.update(task, advance=count, total=total)
