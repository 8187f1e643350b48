"""Budgets as the HTTP API shows and changes them, and what has happened to them."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from sqlalchemy import select, update

from costspan.budgets.wiring import Source
from costspan.insight.report import budget_lines
from costspan.insight.serve.audit import writing
from costspan.insight.serve.gate import Refused
from costspan_processor.budgets import Guard, StoreError
from costspan_processor.budgets.events import Event
from costspan_processor.budgets.model import NANO, usd
from costspan_processor.budgets.stores import open_store
from costspan_processor.ledger.schema import events

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

    from costspan.insight.figures import Figures
    from costspan.insight.serve.asked import Users
    from costspan.insight.serve.models import BudgetBody
    from costspan.settings import Settings
    from costspan_pricing import PriceBook
    from costspan_processor.budgets import Budget
    from costspan_processor.budgets.guard import Line
    from costspan_processor.budgets.store import Balance

_VALUES: Final = 20
"""Values of a budget per value that are listed: those that have spent most."""
_USER: Final = "user.id"


class _Noted(NamedTuple):
    """An event with what is known of who has seen to it."""

    key: str
    """Its own id, which may hold a user's."""
    event: Event
    acknowledged_by: str | None

    @property
    def id(self) -> str:
        """Its id in the API: fit for a path, and telling nothing."""
        return hashlib.sha256(self.key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Held:
    """The budgets of the settings: file and environment are read for each request, so that both may change."""

    def __init__(self, settings: Settings, book: PriceBook, engine: Engine, figures: Figures) -> None:
        """Raises ValueError for a store that is none, ImportError where its extra is missing."""
        self._settings = settings
        self._book = book
        self._engine = engine
        self._figures = figures
        self._guard = Guard((), book, open_store(settings.budget_store))
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give back what the store holds."""
        self._guard.store.close()

    def lines(self) -> tuple[Line, ...]:
        """The budgets that hold, in their present periods. Raises Refused if they cannot be read."""
        try:
            budgets, _ = Source(self._settings, self._book).strictly()
        except ValueError as error:
            raise Refused(409, f"the budgets cannot be read: {self._said(error)}") from None
        with self._lock:
            self._guard.replace(budgets, None)
            return self._guard.present()

    def budgets(self) -> list[Budget]:
        """Those that hold."""
        found: list[Budget] = []
        for line in self.lines():
            if line.budget not in found:
                found.append(line.budget)
        return found

    # ---------------------------------------------------------------- how they stand

    def states(self, users: Users, name: str | None = None) -> list[dict[str, Any]]:
        """The states of all budgets, or of those with a name; a monthly one may have a day of its own beside it."""
        lines = [line for line in self.lines() if name in {None, line.budget.name, line.subject.budget}]
        store = self._guard.store
        if not store.local:
            try:
                alone = [line for line in lines if line.budget.per is None]
                balances = store.read([line.normal.claim for line in alone]).balances
                return [
                    self._by_store(line, balances[line.subject.account], users)
                    if line.budget.per is None
                    else self._by_values(line, users)
                    for line in lines
                ]
            except StoreError:
                why = "the budgets' store does not answer; this is what the ledger says"
                return [self._by_ledger(line, users, why) for line in _whole(lines)]
        return [self._by_ledger(line, users, "") for line in _whole(lines)]

    def _by_store(self, line: Line, balance: Balance, users: Users) -> dict[str, Any]:
        limit = usd(line.subject.limit)
        spent, held = usd(balance.spent), usd(balance.held)
        note = f"${usd(balance.unsettled):f} of it are estimates of calls that never said" if balance.unsettled else ""
        return {
            **_fields(line, users),
            "source": "store",
            "spent": spent,
            "held": held,
            "remaining": max(Decimal(0), limit - spent - held),
            "used": float(spent / limit),
            "status": _status(line, spent),
            "tomorrow": None,
            "note": note,
            "values": [],
        }

    def _by_values(self, line: Line, users: Users) -> dict[str, Any]:
        found = self._guard.store.accounts(f"{line.subject.account}/")
        spent = {unquote(account.rpartition("/")[2]): usd(balance.spent) for account, balance in found.items()}
        return self._each(line, users, spent, "store", "")

    def _by_ledger(self, line: Line, users: Users, note: str) -> dict[str, Any]:
        told = budget_lines(self._figures, line.budget, int(time.time()))
        first = told[0]
        note = "; ".join(filter(None, (note, first["note"])))
        if line.budget.per is not None:
            start = f"{line.budget.name} of "
            spent = {
                one["name"].removeprefix(start): one["spent"]
                for one in told
                if one["name"].startswith(start) and one["spent"] is not None
            }
            return self._each(line, users, spent, "ledger", note)
        return {
            **_fields(line, users),
            **{name: first[name] for name in ("spent", "remaining", "used", "status", "tomorrow", "period")},
            "source": "ledger",
            "held": None,
            "note": note,
            "values": [],
        }

    @staticmethod
    def _each(
        line: Line, users: Users, spent: Mapping[str, Decimal], source: str, note: str
    ) -> dict[str, Any]:  # fmt: skip
        """A budget that each value of something has for itself: it stands as the fullest of them does."""
        limit = usd(line.subject.limit)
        most = sorted(spent.items(), key=lambda pair: -pair[1])[:_VALUES]
        top = most[0][1] if most else Decimal(0)
        show = users.shown if line.budget.per == _USER else str
        each = "each has the limit for itself: this is the one that has spent most"
        return {
            **_fields(line, users),
            "source": source,
            "spent": top,
            "held": None,
            "remaining": max(Decimal(0), limit - top),
            "used": float(top / limit),
            "status": _status(line, top),
            "tomorrow": None,
            "note": "; ".join(filter(None, (each if most else "", note))),
            "values": [
                {"value": show(value), "spent": amount, "used": float(amount / limit)} for value, amount in most
            ],
        }

    # ---------------------------------------------------------------- changing them

    def put(self, body: BudgetBody) -> bool:
        """Write a budget into the configuration file; returns whether it is new. Raises Refused."""
        from costspan_processor.budgets.configuration import Configuration, set_budget

        fields = body.model_dump(exclude_none=True)
        if len(fields) < 2:
            raise Refused(422, "say what to set, such as a limit")
        if self._settings.budgets:
            fixed = {
                budget.name for budget in Configuration.of_json(self._settings.budgets, "COSTSPAN_BUDGETS").budgets
            }
            if body.name in fixed:
                raise Refused(409, f"budget {body.name!r} is set by COSTSPAN_BUDGETS, which wins over the file")
        known = {line.budget.name for line in self.lines()}
        try:
            set_budget(self._settings.config_file, fields)
        except ValueError as error:
            raise Refused(422, self._said(error)) from None
        return body.name not in known

    def _said(self, error: ValueError) -> str:
        """An error without the place of the file, which is nobody's business outside."""
        text = str(error).replace(f"{self._settings.config_file}: ", "").replace(self._settings.config_file, "the file")
        return " ".join(text.split())

    # ---------------------------------------------------------------- what has happened

    def noted(self) -> list[_Noted]:
        """Events, the newest first: those of the ledger, and those that only the budgets' store has."""
        found: dict[str, _Noted] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(select(events.c.id, events.c.event, events.c.acknowledged_by)):
                if (event := _event(row.event)) is not None:
                    found[row.id] = _Noted(row.id, event, row.acknowledged_by)
        try:
            for record in self._guard.store.records():
                if (event := _event(record.text)) is not None:
                    before = found.get(record.id)
                    by = record.acknowledged_by or (None if before is None else before.acknowledged_by)
                    found[record.id] = _Noted(record.id, event, by)
        except StoreError:
            # The ledger has them too, where a process has kept one.
            pass
        return sorted(found.values(), key=lambda noted: (noted.event.at, noted.key), reverse=True)

    def acknowledge(self, event_id: str, who: str) -> str:
        """Note that somebody has seen to an event; returns who was first. Raises Refused if there is none."""
        noted = next((noted for noted in self.noted() if noted.id == event_id), None)
        if noted is None:
            raise Refused(404, "there is no such alert")
        if noted.acknowledged_by:
            return noted.acknowledged_by
        try:
            self._guard.store.acknowledge(noted.key, who)
        except StoreError:
            raise Refused(503, "the budgets' store does not answer").with_header("retry-after", "5") from None
        mine = (events.c.id == noted.key, events.c.acknowledged.is_(None))
        with writing(self._engine) as connection:
            connection.execute(
                update(events).where(*mine).values(acknowledged=int(time.time()), acknowledged_by=who)
            )  # fmt: skip
        return who

    def without_users(self) -> set[str]:
        """Names of budgets that something other than users has for itself: their events name no user."""
        return {
            name
            for line in self.lines()
            if line.budget.per not in {None, _USER}
            for name in (line.budget.name, line.subject.budget)
        }


def _whole(lines: Sequence[Line]) -> list[Line]:
    """Without the days of monthly budgets, which the ledger tells nothing of."""
    return [line for line in lines if line.subject.budget == line.budget.name]


def _fields(line: Line, users: Users) -> dict[str, Any]:
    budget = line.budget
    return {
        "name": line.subject.budget,
        "limit": Decimal(line.subject.limit).scaleb(-9),
        "soft_limit": None if line.subject.soft_limit is None else usd(line.subject.soft_limit),
        "period": f"last {budget.period}" if budget.rolling else line.subject.period,
        "kind": budget.period if line.subject.budget == budget.name else "day",
        "policy": budget.policy,
        "scope": {key: users.shown(value) if key == _USER else value for key, value in budget.scope.items()},
        "per": budget.per,
        "zone": budget.zone,
        "thresholds": list(budget.thresholds),
    }


def _status(line: Line, spent: Decimal) -> str:
    """As reports have it."""
    nano, limit, soft = spent * NANO, line.subject.limit, line.subject.soft_limit
    warns = min((percent for percent in line.budget.thresholds if percent >= 80), default=100)
    if nano >= limit:
        return "exceeded"
    return "warning" if nano * 100 >= limit * warns or (soft is not None and nano >= soft) else "ok"


def _event(text: str) -> Event | None:
    """An event as it was kept; None for one that cannot be read, of a version to come."""
    try:
        said = {key: value for key, value in json.loads(text).items() if key in Event._fields}
        for name in ("limit", "current", "remaining", "overage"):
            said[name] = Decimal(said[name])
        said["at"] = datetime.fromisoformat(said["at"])
        return Event(**said)
    except (ValueError, TypeError, KeyError, ArithmeticError, AttributeError):
        return None
