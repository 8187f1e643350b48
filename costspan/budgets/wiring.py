"""The guard of a process, made of what code, environment and the configuration file say."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import get_logger

from costspan.book import folder
from costspan_processor.budgets import Budget, Guard
from costspan_processor.budgets.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from costspan.settings import Settings
    from costspan_pricing import PriceBook
    from costspan_processor.budgets import Event, Store
    from costspan_processor.budgets.configuration import Watched
    from costspan_processor.budgets.routing import Routing

_log = logging.getLogger("costspan")


def guard(
    settings: Settings,
    book: PriceBook,
    resource: Mapping[str, Any],
    failed: Callable[[str, BaseException], None],
    *,
    budgets: Sequence[Budget] = (),
    routing: Routing | None = None,
    tell: Callable[[Event], None] | None = None,
) -> Guard:
    """The guard of a process, as code, environment and file say.

    What is wrong with environment or file is logged and left out: a typing error must not stop the application.
    """
    source = Source(settings, book, budgets, routing)
    held, paths = source.read()
    made = Guard(
        held,
        book,
        _store(settings.budget_store),
        routing=paths,
        resource=resource,
        journal=folder(settings).parent / "budgets",
        failed=failed,
        logger=lambda: get_logger("costspan"),
        tell=tell,
        notify=_notifier(settings.notify),
        reload=source.look,
    )
    source.changed = made.replace
    return made


class Source:
    """Where budgets come from, and whether the file among it has changed."""

    def __init__(
        self, settings: Settings, book: PriceBook, budgets: Sequence[Budget] = (), routing: Routing | None = None
    ) -> None:
        self._settings = settings
        self._book = book
        self._budgets = budgets
        self._routing = routing
        self._path = Path(settings.config_file)
        self._file: Watched | None = None
        self._looking = threading.Lock()
        self.changed: Callable[[Sequence[Budget], Routing | None], None] = lambda _budgets, _routing: None

    def read(self) -> tuple[tuple[Budget, ...], Routing | None]:
        """What holds now: code over environment over file, by the names of budgets."""
        file = self._watched()
        held = tuple(self._budgets)
        if file is not None or self._settings.budgets:
            # Most processes have neither, and these modules take as long to import as the rest of budgets.
            from costspan_processor.budgets.configuration import Configuration, merged

            environment: tuple[Budget, ...] = ()
            if self._settings.budgets:
                try:
                    environment = Configuration.of_json(self._settings.budgets, "COSTSPAN_BUDGETS").budgets
                except ValueError as error:
                    _log.error("costspan: budgets are left out, the others hold: %s", error)
            held = merged(() if file is None else file.configuration.budgets, environment, self._budgets)
        routing = self._routing or (None if file is None else file.configuration.routing)
        if routing is not None:
            try:
                routing = routing.check(self._book, time.time())
            except ValueError as error:
                _log.error("costspan: routing is left out: %s", error)
                routing = None
        return held, routing

    def strictly(self) -> tuple[tuple[Budget, ...], Routing | None]:
        """What holds by environment and file. Raises ValueError for what is wrong with them."""
        file = self._watched()
        if file is not None and file.problem:
            raise ValueError(file.problem)
        if self._settings.budgets:
            from costspan_processor.budgets.configuration import Configuration

            Configuration.of_json(self._settings.budgets, "COSTSPAN_BUDGETS")
        if file is not None and file.configuration.routing is not None:
            file.configuration.routing.check(self._book, time.time())
        return self.read()

    def _watched(self) -> Watched | None:
        """The file, once there is one."""
        if self._file is None and self._path.exists():
            from costspan_processor.budgets.configuration import Watched

            self._file = Watched(self._path)
        return self._file

    def look(self) -> None:
        """See whether the file has changed, and read it elsewhere, since a call is waiting here."""
        news = self._path.exists() if self._file is None else self._file.differs()
        if news and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="costspan-configuration", daemon=True).start()

    def _look(self) -> None:
        try:
            if self._file is None or self._file.changed():
                self.changed(*self.read())
                _log.info("costspan: %s was read again", self._settings.config_file)
        finally:
            self._looking.release()


def _store(url: str) -> Store | None:
    try:
        return open_store(url)
    except (ValueError, ImportError) as error:
        _log.error("costspan: budgets are kept in memory, of this process alone: %s", error)
        return None


def _notifier(urls: Sequence[str]) -> Callable[[Event], None] | None:
    if not urls:
        return None
    from costspan_processor.budgets.notify import notifier

    try:
        return notifier(urls)
    except (ValueError, ImportError) as error:
        _log.error("costspan: events of budgets are sent to nobody: %s", error)
        return None
