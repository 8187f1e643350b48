"""Advice as the HTTP API gives it, and what became of it: followed, or put aside."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from costspan.insight.serve.audit import writing
from costspan.insight.serve.gate import Refused
from costspan_processor.ledger.schema import advice as table

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from costspan.insight.advice import Advice
    from costspan.insight.figures import Figures
    from costspan_pricing import PriceBook

_KEPT_SECONDS: Final = 600
"""Advice rests on weeks of calls: it is not looked for with each refresh of a page."""
_DAY: Final = 86_400


class Suggestions:
    """What would cost less, by the calls of the last days."""

    def __init__(self, engine: Engine, figures: Figures, book: PriceBook) -> None:
        self._engine = engine
        self._figures = figures
        self._book = book
        self._lock = threading.Lock()
        self._found: dict[int, tuple[float, list[Advice]]] = {}

    def given(self, days: int) -> tuple[float, list[Advice]]:
        """When it was looked for, unix seconds, and what was found: what saves most first."""
        from costspan.insight.advice import advise

        # Who asks while others have it looked for waits for what they get.
        with self._lock:
            found = self._found.get(days)
            if found is None or time.time() - found[0] > _KEPT_SECONDS:
                now = time.time()
                known = self._figures.known()
                start = max(int(now) - days * _DAY, known[0] if known else int(now))
                found = now, advise(self._engine, start, int(now) + 1, book=self._book)
                self._found = {**{one: kept for one, kept in self._found.items() if len(self._found) < 8}, days: found}
            return found

    def noted(self) -> dict[str, Any]:
        """The rows of what was followed or put aside, by id."""
        with self._engine.connect() as connection:
            return {row.id: row for row in connection.execute(select(table))}

    def find(self, advice_id: str) -> Advice:
        """Advice by its id: that of now, else as it was given when somebody followed it. Raises Refused."""
        from costspan.insight.advice import Advice

        for _, found in [self.given(30), *self._found.values()]:
            for one in found:
                if one.id == advice_id:
                    return one
        row = self.noted().get(advice_id)
        if row is None:
            raise Refused(404, "there is no such suggestion")
        return Advice.from_dict(json.loads(row.advice))

    def take(self, advice_id: str, who: str) -> None:
        """Note that it has been followed, from now on; the first time counts. Raises Refused."""
        row = self.noted().get(advice_id)
        if row is None or row.taken is None:
            self._note(advice_id, taken=int(time.time()), taken_by=who, dismissed=None)

    def dismiss(self, advice_id: str) -> None:
        """Note that it is not wanted. Raises Refused."""
        self._note(advice_id, dismissed=int(time.time()))

    def _note(self, advice_id: str, **what: Any) -> None:
        one = self.find(advice_id)
        row = {"id": one.id, "given": int(time.time()), "category": one.category, "advice": json.dumps(one.as_dict())}
        change = update(table).where(table.c.id == one.id).values(**what)
        with writing(self._engine) as connection:
            if connection.execute(change).rowcount:
                return
        try:
            with writing(self._engine) as connection:
                connection.execute(table.insert().values(**row, **what))
        except IntegrityError:
            # Somebody else has just noted it.
            with writing(self._engine) as connection:
                connection.execute(change)

    def saved(self, now: float) -> list[dict[str, Any]]:
        """What was followed, and what it has saved since."""
        from costspan.insight.advice import saved_by

        return [
            {
                "id": row["id"],
                "title": row["title"],
                "taken": row["taken"],
                "taken_by": row["taken_by"],
                "saved": saved_by(self._engine, row, int(now)),
            }
            for row in self._figures.advice_taken()
        ]
