"""Which budgets hold by environment and file, and whether their store answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan.book import price_book
from costspan.budgets.wiring import Source
from costspan.doctor import Problem
from costspan.settings import Settings, load
from costspan_processor.budgets.model import as_table
from costspan_processor.budgets.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ABOUT: Final = "budgets"


def look(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    """The budgets, where they come from, the store they are kept in, and whether events reach somebody."""
    settings = load({}, environ)
    problems: list[Problem] = []
    budgets: list[dict[str, Any]] = []
    try:
        held, routing = Source(settings, price_book(settings, refuse=lambda _: None)).strictly()
        budgets = [as_table(budget) for budget in held]
    except ValueError as error:
        routing = None
        problems += [_wrong(line) for line in str(error).splitlines()]
    problems += _store(settings)
    problems += _people(settings)
    facts = {
        "file": settings.config_file,
        "file_found": Path(settings.config_file).is_file(),
        "budgets": budgets,
        "routing": routing is not None,
        "store": settings.budget_store.partition(":")[0],
        "reachable": not any(problem.what.startswith(_STORE) for problem in problems),
        "notified": len(settings.notify),
    }
    return facts, problems


_STORE: Final = "the store of the budgets"


def _wrong(what: str) -> Problem:
    return Problem(
        "fault",
        ABOUT,
        what,
        "These budgets do not hold: a program that starts now goes on without them.",
        "Correct it; a program that runs reads the file again by itself.",
    )


def _store(settings: Settings) -> Iterator[Problem]:
    from costspan_processor.budgets.stores import open_store

    try:
        store = open_store(settings.budget_store)
    except (ValueError, ImportError) as error:
        yield Problem(
            "fault",
            ABOUT,
            f"{_STORE} cannot be used: {error}",
            "Each process keeps its budgets for itself, in memory.",
            "Correct COSTSPAN_BUDGET_STORE.",
        )
        return
    try:
        store.read(())
    except StoreError as error:
        yield Problem(
            "fault",
            ABOUT,
            f"{_STORE} does not answer: {error}",
            "Budgets that block refuse calls, or go on by what each process knows (on_store_error).",
            "Bring it back, or correct COSTSPAN_BUDGET_STORE.",
        )
    finally:
        store.close()


def _people(settings: Settings) -> Iterator[Problem]:
    from costspan_processor.budgets.notify import notifier

    if not settings.notify:
        return
    try:
        notifier(settings.notify)
    except (ValueError, ImportError) as error:
        yield Problem(
            "fault",
            ABOUT,
            str(error),
            "Events of budgets are sent to nobody.",
            "Correct COSTSPAN_NOTIFY.",
        )
