"""The command line: `costspan price`, `run`, `doctor`, `demo`, `version`, and groups such as `costspan prices`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from costspan import __version__, estimate, prices
from costspan import ledger as ledger_command
from costspan.budgets import command as budgets
from costspan.collector import collector
from costspan.commands import fail, quiet_when_unread
from costspan.doctor.command import doctor
from costspan.grafana import command as grafana
from costspan.insight import command as insight
from costspan.insight import history_command as history
from costspan.insight import serve_command
from costspan.otelcol.command import otelcol_config

if TYPE_CHECKING:
    from typing import BinaryIO

    from costspan_pricing import PriceBook

app = typer.Typer(
    help="The price of every LLM call, while it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(estimate.app, name="estimate")
app.add_typer(prices.app, name="prices")
app.add_typer(budgets.app, name="budgets")
app.add_typer(ledger_command.app, name="ledger")
app.add_typer(grafana.app, name="grafana")
app.add_typer(serve_command.app, name="serve")
app.command()(collector)
app.command()(insight.report)
app.command()(history.reprice)
app.command()(history.reconcile)
app.command()(insight.top)
app.command("otelcol-config")(otelcol_config)
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(doctor)


def main() -> NoReturn:
    """The console script `costspan`. Bad input is one line on standard error and exit status 2."""
    try:
        status = app(standalone_mode=False, prog_name="costspan")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(128 + 2)
    except Exception as error:
        # Typer has its own copy of click's exceptions in some versions, and click's in others.
        say = getattr(error, "format_message", None)
        if not callable(say):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(say())
            sys.exit(0)
        command = getattr(getattr(error, "ctx", None), "command_path", "costspan")
        message = " ".join(str(say()).split()).rstrip(".")
        fail(command, f"{message}; see `{command} --help`")
    sys.exit(status if isinstance(status, int) else 0)


@app.command()
def price(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines; - or nothing is standard input.", show_default=False)
    ] = "-",
    at: Annotated[
        str | None,
        typer.Option(help="Instant (RFC 3339) of lines that name none; by default now.", metavar="INSTANT"),
    ] = None,
) -> None:
    """Price usage, a JSON line each.

    In: {provider, model, usage_format, usage}, and if you like id, at, tier and context. Out: one line with the cost.
    Exit status 1 if any line could not be read; its answer then has `error`.
    """
    from costspan.price import LineError, Pricer, instant, price_lines

    try:
        moment = time.time_ns() if at is None else instant(at)
    except LineError as error:
        fail("costspan price", f"--at: {error}")
    with quiet_when_unread(), _opened(file) as source:
        count, bad = price_lines(source, sys.stdout.buffer, Pricer(moment, _book()))
    if bad:
        fail("costspan price", f"{bad} of {count} lines could not be read; each says why under `error`", 1)


def _book() -> PriceBook:
    """The book with the layers of this user's settings; what is wrong with one of them ends the command."""
    from costspan.book import price_book
    from costspan.settings import load

    return price_book(load({}), refuse=lambda error: fail("costspan", error))


def _opened(file: str) -> BinaryIO:
    if file == "-":
        if sys.stdin.isatty():
            print("costspan price: reading JSON lines from the terminal; Ctrl-D ends them", file=sys.stderr)
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        fail("costspan price", f"{file} cannot be read ({error.strerror}): give a file of JSON lines, or -")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="The program, after two dashes: -- python app.py")
    ],
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the summary there, as JSON.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="While it runs, show on the terminal's last line what it has cost.")
    ] = False,
    ledger: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep a record of every call there: a file, or postgresql://host/database."),
    ] = None,
) -> None:
    """Run a program and say what its LLM calls cost.

    The table by provider, model and feature comes on standard error when the program ends. The program needs no change;
    its output and its exit status stay its own. Child processes are counted too.
    """
    from costspan.run import RunError, run

    try:
        status = run(command, json, live=live, ledger=ledger)
    except RunError as error:
        fail("costspan run", error, error.status)
    raise typer.Exit(status)


@app.command()
def demo(
    fast: Annotated[bool, typer.Option("--fast", help="No pauses.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else.")] = False,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the last picture there, as SVG.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Keep /metrics for Prometheus until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of --serve.")] = 9464,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=62, help="Instead: so many days of a simulated fleet, in a Prometheus.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the data of that Prometheus there.", show_default=False)
    ] = None,
) -> None:
    """Watch a conversation cost money; or see the dashboards full.

    Three real SDKs talk to a provider on this machine: no account and no network are needed.

    --days makes history: the calls of a small company, priced as they would have been, as Prometheus would have scraped
    them, with the recording rules. With --serve a Prometheus shows it, rules and alerts loaded, and the fleet goes on.
    """
    from costspan.demo import DemoError
    from costspan.demo import run as play

    if days is not None:
        others = [name for name, given in (("--fast", fast), ("--json", json), ("--svg", svg)) if given]
        _month(days, serve, port, out, others)
        return
    if out is not None:
        fail("costspan demo", "--out is where the data of --days go: give both")
    try:
        play(fast=fast or None, as_json=json, svg=svg, serve=serve, port=port)
    except DemoError as error:
        fail("costspan demo", error, 1)


def _month(days: int, serve: bool, port: int, out: Path | None, others: list[str]) -> None:
    from rich.console import Console

    from costspan.demo.live import kept, last, run
    from costspan.demo.month import MonthError

    if others:
        fail("costspan demo", f"{others[0]} is for the conversation and says nothing of --days")
    if not serve and out is None:
        fail("costspan demo", "--days needs --serve, to look at it, or --out DIR, to keep it")
    try:
        run(last(days), serve=serve, out=out, port=port, console=Console())
    except MonthError as error:
        fail("costspan demo", error, 1)
    if out is not None:
        print(f"Open it: {kept(out)}")


@app.command()
def version() -> None:
    """Print the versions of costspan and its prices."""
    print(f"costspan {__version__}, price book {_book().version}")
