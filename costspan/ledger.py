"""`costspan ledger`: whether it holds together, backups, and its calls as files."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final, ParamSpec

import typer

from costspan.commands import fail, quiet_when_unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costspan_processor.ledger.store import Ledger
    from costspan_processor.ledger.transfer import Format

P = ParamSpec("P")

app = typer.Typer(
    help="The ledger: a record of every call. Checks, backups, and files of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Url = Annotated[
    str,
    typer.Option(
        "--ledger",
        metavar="URL",
        envvar="COSTSPAN_LEDGER",
        help="The ledger: a file, sqlite:///file.db or postgresql://host/database.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
First = Annotated[
    str | None, typer.Option("--from", metavar="INSTANT", help="Calls since then: 2026-11-01, or with a time (UTC).")
]
Last = Annotated[str | None, typer.Option("--to", metavar="INSTANT", help="Calls before then.")]
Form = Annotated[
    str | None,
    typer.Option("--format", metavar="FORM", help="csv, jsonl or parquet; by default as the file's name ends."),
]

_FOCUS: Final = "focus"
_EXTRA: Final = "it needs the extra of that name: pip install 'costspan[ledger]'"


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are one line each."""
    command = f"costspan ledger {function.__name__.rstrip('_')}"

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            from costspan_processor.ledger.store import AwayError, LedgerError, is_of_database
        except ImportError:
            fail(command, _EXTRA)
        try:
            with quiet_when_unread():
                function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except AwayError as error:
            fail(command, error, 1)
        except (LedgerError, ValueError, ImportError) as error:
            fail(command, error)
        except Exception as error:
            if not is_of_database(error):
                raise
            fail(command, " ".join(str(getattr(error, "orig", None) or error).split()), 1)

    return run


@app.command()
@_command
def verify(url: Url = "", as_json: Json = False) -> None:
    """Check that the database is whole, and rows, totals and the counts of processes agree.

    Exit status 1 if they do not. What processes dropped or lost is told, and is no fault of the ledger's: those calls
    have cost money that it does not have.
    """
    from costspan_processor.ledger.checks import verify as look
    from costspan_processor.ledger.counts import bury_the_dead

    with _opened(url) as ledger:
        # Of what died on this machine since somebody last looked.
        bury_the_dead(ledger, _counts(ledger))
        found = look(ledger)
    if as_json:
        _print(
            {
                "holds": found.holds,
                "checks": [check._asdict() | {"holds": not check.problems} for check in found.checks],
                **{name: value for name, value in found._asdict().items() if name != "checks"},
            }
        )
    else:
        for check in found.checks:
            typer.echo(f"{check.name:<20} {'FAILS' if check.problems else 'holds'}  {check.looked_at:,} looked at")
            for problem in check.problems:
                typer.echo(f"    {problem}")
        told = (
            f"{found.rows:,} calls",
            f"{found.removed:,} removed with time",
            f"{found.dropped:,} dropped",
            f"{found.lost:,} lost with processes that were killed",
            f"{found.known:,} came twice",
            f"{found.open_writers:,} processes have not ended",
        )
        typer.echo("; ".join(told))
    if not found.holds:
        raise typer.Exit(1)


@app.command()
@_command
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")], url: Url = "", as_json: Json = False
) -> None:
    """Copy a ledger to a new file while others write to it (SQLite; a server has pg_dump)."""
    with _opened(url) as ledger:
        ledger.backup(file)
    _done({"file": str(file), "bytes": file.stat().st_size}, f"{file}: {file.stat().st_size:,} bytes", as_json)


@app.command()
@_command
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    url: Url = "",
    replace: Annotated[bool, typer.Option("--replace", help="Give up all that is in the ledger now.")] = False,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of a ledger (SQLite; a server has pg_restore)."""
    from sqlalchemy import func, select

    from costspan_processor.ledger.schema import calls

    with _opened(url, create=True) as ledger:
        count = select(func.count()).select_from(calls)
        with ledger.engine.connect() as connection:
            there = connection.execute(count).scalar_one()
        if there and not replace:
            raise ValueError(f"{ledger.name} has {there:,} calls, which would be lost: --replace gives them up")
        ledger.restore(file)
        with ledger.engine.connect() as connection:
            rows = connection.execute(count).scalar_one()
    _done({"calls": rows, "replaced": there}, f"{rows:,} calls are in {ledger.name}", as_json)


@app.command()
@_command
def forget(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="A day or instant, or how many days back: 2026-01-01, 90d.")
    ],
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Remove the calls of the hours before a day or instant. Hourly totals stay."""
    if before.endswith("d") and before[:-1].isdecimal():
        instant = datetime.now(UTC) - timedelta(days=int(before[:-1]))
    else:
        instant = _instant(before, "BEFORE")
    with _opened(url) as ledger:
        removed = ledger.forget(instant.timestamp())
    _done({"removed": removed}, f"{removed:,} calls removed; their hourly totals stay", as_json)


@app.command()
@_command
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write; - is standard output.", show_default=False)
    ],
    url: Url = "",
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORM", help="csv, jsonl, parquet or focus; by default as the file's name ends."
        ),
    ] = None,
    first: First = None,
    last: Last = None,
    as_json: Json = False,
) -> None:
    """Write calls to a file: a row each, or in the columns of FOCUS 1.2.

    focus is CSV with a row per hour, model, meter, rate and attribution: what finance tools read.
    """
    from costspan_processor.ledger import focus, transfer

    chosen = _form(form, file, (*transfer.FORMATS, _FOCUS))
    since, until = (None if at is None else _instant(at, option) for at, option in ((first, "--from"), (last, "--to")))
    if (since is not None and _between(since)) or (until is not None and _between(until)):
        raise ValueError("--from and --to are whole hours: calls are exported by the hour")
    unpriced = 0
    with _opened(url) as ledger:
        rows = transfer.rows_of(
            ledger,
            None if since is None else int(since.timestamp()) // 3600,
            None if until is None else int(until.timestamp()) // 3600 - 1,
        )
        with _writing(file, binary=chosen == "parquet") as out:
            if chosen == _FOCUS:
                count, unpriced = focus.write(rows, out)
            else:
                count = transfer.export(rows, chosen, out)  # type: ignore[arg-type]
    said = f"{count:,} rows" + (f"; {unpriced:,} calls have no figure and are left out" if unpriced else "")
    if str(file) != "-":
        _done({"file": str(file), "rows": count, "without_figure": unpriced}, said, as_json)
    else:
        print(f"costspan ledger export: {said}", file=sys.stderr)


@app.command("import")
@_command
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `export` wrote; - is standard input.", show_default=False)
    ],
    url: Url = "",
    form: Form = None,
    as_json: Json = False,
) -> None:
    """Add the calls of a file to a ledger. What is there already stays as it is."""
    from costspan_processor.ledger import transfer

    chosen: Format = _form(form, file, transfer.FORMATS)  # type: ignore[assignment]
    with _opened(url, create=True) as ledger, _reading(file, binary=chosen == "parquet") as source:
        new, count = transfer.load(ledger, chosen, source)
    _done({"rows": count, "new": new}, f"{new:,} of {count:,} calls are new", as_json)


@app.command()
@_command
def migrate(url: Url = "", as_json: Json = False) -> None:
    """Make the tables of a ledger, or bring them up to date. Whoever writes to a ledger does that too."""
    from costspan_processor.ledger.store import VERSION_TABLE

    with _opened(url, create=True) as ledger, ledger.engine.connect() as connection:
        version = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608
    _done({"ledger": ledger.name, "version": version}, f"{ledger.name} is at version {version}", as_json)


# ---------------------------------------------------------------------- what the commands share


@contextmanager
def _opened(url: str, *, create: bool = False) -> Iterator[Ledger]:
    from costspan_processor.ledger.store import open_ledger

    if not url:
        raise ValueError("which ledger? Name one with --ledger, or COSTSPAN_LEDGER")
    ledger = open_ledger(url, create=create)
    try:
        yield ledger
    finally:
        ledger.close()


def _counts(ledger: Ledger) -> Path | None:
    from costspan.book import folder
    from costspan.settings import load
    from costspan_processor.ledger.counts import folder_of

    return folder_of(ledger, folder(load({})).parent / "ledger")


def _form(form: str | None, file: Path, known: tuple[str, ...]) -> str:
    chosen = form or file.suffix.lstrip(".").lower()
    if chosen not in known:
        which = f"--format is none of {', '.join(known)}" if form else f"{file} does not say what it is"
        raise ValueError(f"{which}: give --format {known[0]}, or another of {', '.join(known[1:])}")
    return chosen


def _instant(text: str, option: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is no day or instant, such as 2026-11-01 or 2026-11-01T12:00Z") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _between(at: datetime) -> bool:
    """Whether an instant is within an hour."""
    return at.timestamp() % 3600 != 0


@contextmanager
def _writing(file: Path, *, binary: bool) -> Iterator[IO[Any]]:
    """A file that is there only once it is whole."""
    if str(file) == "-":
        if binary:
            yield sys.stdout.buffer
        else:
            with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as out:
                yield out
        return
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") if binary else part.open("w", encoding="utf-8", newline="") as out:
            yield out
        part.replace(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be written ({error.strerror}): name a file in a folder that exists") from None
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _reading(file: Path, *, binary: bool) -> Iterator[IO[Any]]:
    if str(file) == "-":
        if binary:
            yield sys.stdin.buffer
        else:
            with open(sys.stdin.fileno(), encoding="utf-8", newline="", closefd=False) as source:
                yield source
        return
    try:
        opened = file.open("rb") if binary else file.open(encoding="utf-8", newline="")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from None
    with opened:
        yield opened


def _done(said: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        _print(said)
    else:
        typer.echo(line)


def _print(value: object) -> None:
    from costspan.rates import print_json

    print_json(value)
