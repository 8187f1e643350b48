"""`costspan budgets`: what is spent of every budget, what happened to them, and how to change them."""

from __future__ import annotations

import getpass
import json
import logging
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, ParamSpec
from urllib.parse import unquote

import typer

from costspan.commands import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costspan.settings import Settings
    from costspan_processor.budgets import Guard
    from costspan_processor.budgets.guard import Line
    from costspan_processor.budgets.store import Balance, Record

P = ParamSpec("P")

app = typer.Typer(
    help="Budgets: what is spent of each, what happened to them, and how to change them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON; amounts are decimal text in USD.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")]

_IN_MEMORY: Final = "each process keeps its own in memory: set COSTSPAN_BUDGET_STORE to see here what they spend"
_VALUES: Final = 20
"""Values of a budget per value that `show` lists: those that have spent most."""


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are one line each."""
    command = f"costspan budgets {function.__name__.rstrip('_')}"

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from costspan_processor.budgets import StoreError

        try:
            function(*args, **kwargs)
        except (ValueError, ImportError) as error:
            fail(command, error)
        except StoreError as error:
            fail(command, error, 1)

    return run


class _State(NamedTuple):
    """A budget in its present period."""

    line: Line
    balance: Balance | None
    """None where the money is in the memory of other processes."""


@app.command("list")
@_command
def list_(as_json: Json = False) -> None:
    """What is spent of every budget in its present period."""
    settings, guard = _opened()
    states = _states(guard, [line for line in guard.present() if line.budget.per is None])
    patterns = [_State(line, None) for line in guard.present() if line.budget.per is not None]
    if as_json:
        _print([_as_json(state) for state in (*states, *patterns)])
        return
    from costspan.budgets.view import show_list

    show_list(states, patterns)
    if not guard.budgets:
        _hint(f"there are no budgets: write some into {settings.config_file} with `costspan budgets set`")
    elif guard.store.local:
        _hint(_IN_MEMORY)


@app.command()
@_command
def show(name: Name, as_json: Json = False) -> None:
    """One budget: its rules, its balances, who spends it, and what happened to it."""
    _, guard = _opened()
    # The day of a monthly budget has a name of its own in events, and is shown with its budget.
    budget = next((line.budget for line in guard.present() if name in {line.budget.name, line.subject.budget}), None)
    if budget is None:
        raise ValueError(_unknown(name, [known.name for known in guard.budgets]))
    lines = [line for line in guard.present() if line.budget is budget]
    values: dict[str, Balance] = {}
    for line in lines:
        if budget.per is not None:
            found = guard.store.accounts(f"{line.subject.account}/")
            most = sorted(found.items(), key=lambda pair: -pair[1].spent)[:_VALUES]
            values.update((unquote(account.rpartition("/")[2]), balance) for account, balance in most)
    states = [_State(line, None) for line in lines] if budget.per is not None else _states(guard, lines)
    accounts = {account for line in lines for account in (line.subject.account, *line.normal.claim.also)}
    waiting = [hold for hold in guard.store.holds() if any(one.partition("/")[0] in accounts for one in hold.accounts)]
    names = {line.subject.budget for line in lines}
    records = [record for record in guard.store.records() if _said(record)["budget"] in names]
    if as_json:
        from costspan_processor.budgets.model import as_table, plain, usd

        _print(
            {
                "budget": as_table(budget),
                "periods": [_as_json(state) for state in states],
                "values": {value: plain(usd(balance.spent)) for value, balance in values.items()},
                "under_way": sum(not hold.expired for hold in waiting),
                "never_settled": sum(hold.expired for hold in waiting),
                "events": [_event(record) for record in records],
            }
        )
        return
    from costspan.budgets.view import show_one

    show_one(budget, states, values, waiting, [_event(record) for record in records])
    if guard.store.local:
        _hint(_IN_MEMORY)


@app.command("set")
@_command
def set_(
    name: Name,
    limit: Annotated[str | None, typer.Option(metavar="USD", help="What calls may cost in a period.")] = None,
    period: Annotated[
        str | None, typer.Option(help="hour, day, week, month, year, or a window such as 90m, 24h, 7d.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="observe, warn, block or downgrade.")] = None,
    soft_limit: Annotated[str | None, typer.Option(metavar="USD", help="From here on the budget warns.")] = None,
    daily_limit: Annotated[
        str | None, typer.Option(metavar="USD", help="Of a monthly budget, a day besides; or even.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Whose calls count; may be given several times.")
    ] = None,
    per: Annotated[str | None, typer.Option(metavar="KEY", help="Each value of this has the limit for itself.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone of the calendar, such as Europe/Berlin.")] = None,
    normal_percent: Annotated[
        int | None, typer.Option(metavar="PERCENT", help="What calls without a priority may use of the limit.")
    ] = None,
    on_store_error: Annotated[str | None, typer.Option(help="allow, deny or local.")] = None,
) -> None:
    """Make a budget in the configuration file, or change the fields that are given.

    Programs that run read the file again by themselves.
    """
    from costspan.settings import load
    from costspan_processor.budgets.configuration import set_budget

    given: dict[str, Any] = {
        "limit": limit,
        "period": period,
        "policy": policy,
        "soft_limit": soft_limit,
        "daily_limit": daily_limit,
        "per": per,
        "zone": zone,
        "normal_percent": normal_percent,
        "on_store_error": on_store_error,
        "scope": None if scope is None else dict(map(_pair, scope)),
    }
    fields = {field: value for field, value in given.items() if value is not None}
    if not fields:
        raise ValueError("say what to set, such as --limit 20")
    path = load({}).config_file
    set_budget(path, {"name": name, **fields})
    typer.echo(f"{path}: budget {name!r} is set")


@app.command()
@_command
def remove(name: Name) -> None:
    """Take a budget out of the configuration file."""
    from costspan.settings import load
    from costspan_processor.budgets.configuration import remove_budget

    path = load({}).config_file
    remove_budget(path, name)
    typer.echo(f"{path}: budget {name!r} is removed; what it has spent stays in the store")


@app.command()
@_command
def events(
    everything: Annotated[bool, typer.Option("--all", help="Those that were acknowledged, too.")] = False,
    as_json: Json = False,
) -> None:
    """What happened to budgets in the last 90 days, the newest first."""
    _, guard = _opened()
    found = [_event(record) for record in guard.store.records()]
    shown = [event for event in found if everything or not event["acknowledged_by"]]
    if as_json:
        _print(shown)
        return
    from costspan.budgets.view import show_events

    show_events(shown)
    hidden = len(found) - len(shown)
    if guard.store.local:
        _hint(_IN_MEMORY)
    elif not shown:
        _hint("nothing has happened" if not hidden else f"nothing new; {hidden} are acknowledged: --all shows them")


@app.command()
@_command
def ack(
    event: Annotated[str, typer.Argument(metavar="ID", help="The event's id, or `all`.")],
    by: Annotated[str | None, typer.Option(help="Who has seen to it; by default you.")] = None,
) -> None:
    """Note that somebody has seen to an event."""
    _, guard = _opened()
    who = by or _user()
    open_ones = [record.id for record in guard.store.records() if not record.acknowledged_by]
    ids = open_ones if event == "all" else [event]
    for one in ids:
        if not guard.store.acknowledge(one, who):
            raise ValueError(f"there is no event {one!r}; `costspan budgets events` lists them")
    typer.echo(f"{len(ids)} acknowledged by {who}")


# ---------------------------------------------------------------------- what is known


def _opened() -> tuple[Settings, Guard]:
    """The budgets of this user's settings. Raises ValueError for what is wrong with them."""
    from costspan.book import price_book
    from costspan.budgets.wiring import Source
    from costspan.settings import load
    from costspan_processor.budgets import Guard
    from costspan_processor.budgets.stores import open_store

    settings = load({})
    # What is wrong is raised here, and needs not be logged too.
    logging.getLogger("costspan").addHandler(logging.NullHandler())
    book = price_book(settings)
    budgets, routing = Source(settings, book).strictly()
    return settings, Guard(budgets, book, open_store(settings.budget_store), routing=routing)


def _states(guard: Guard, lines: Sequence[Line]) -> list[_State]:
    if guard.store.local:
        return [_State(line, None) for line in lines]
    balances = guard.store.read([line.normal.claim for line in lines]).balances
    return [_State(line, balances[line.subject.account]) for line in lines]


def _as_json(state: _State) -> dict[str, Any]:
    from costspan_processor.budgets.model import plain, usd

    line, balance = state
    subject = line.subject
    found: dict[str, Any] = {
        "name": subject.budget,
        "period": subject.period,
        "start": _instant(subject.start),
        "end": _instant(line.until),
        "policy": line.budget.policy,
        "limit": plain(usd(subject.limit)),
        "soft_limit": None if subject.soft_limit is None else plain(usd(subject.soft_limit)),
        "per": line.budget.per,
    }
    for name in ("spent", "held", "unsettled"):
        found[name] = None if balance is None else plain(usd(getattr(balance, name)))
    found["remaining"] = (
        None if balance is None else plain(max(Decimal(0), usd(subject.limit - balance.spent - balance.held)))
    )
    return found


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _said(record: Record) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(record.text)
    return said


def _event(record: Record) -> dict[str, Any]:
    return {"id": record.id, **_said(record), "acknowledged_by": record.acknowledged_by or None}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # In a container, a user may have no name.
        raise ValueError("say who has seen to it: --by NAME") from None


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key or not value:
        raise ValueError(f"--scope is a name and a value, such as team=search, not {text!r}")
    return key, value


def _unknown(name: str, known: Sequence[str]) -> str:
    from costspan_pricing.words import did_you_mean

    hint = did_you_mean(name, known) or (f"; there are {', '.join(map(repr, known))}" if known else "; there is none")
    return f"there is no budget {name!r}{hint}"


def _print(value: object) -> None:
    from costspan.rates import print_json

    print_json(value)


def _hint(text: str) -> None:
    typer.echo(text, err=True)
