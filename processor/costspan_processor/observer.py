"""What the instrumentation's engine calls before and after every call to a model.

It shares no type with us: the engine knows the shape of an observer, and this is one.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.attribution import attribution
from costspan_processor.budgets.guard import Admission, Refusal
from costspan_processor.conventions import read
from costspan_processor.enrich import assess, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from costspan_pricing import PriceBook
    from costspan_processor.attribution import Attribution
    from costspan_processor.budgets.guard import Guard
    from costspan_processor.conventions import Plain
    from costspan_processor.enrich import Priced
    from costspan_processor.ledger.writer import LedgerWriter
    from costspan_processor.metrics import Table

_log = logging.getLogger("costspan")

_FOREVER: Final = float("inf")
_NOTHING: Final[Mapping[str, AttributeValue]] = {}


def _never() -> bool:
    return False


class Call:
    """The token of a call: whom it is for, and what budgets hold for it."""

    __slots__ = ("admission", "attribution")

    def __init__(self, attribution: Attribution | None, admission: Admission | None = None) -> None:
        self.attribution = attribution
        self.admission = admission


class Decision:
    """What happens to a call.

    `refuse` is raised instead of making it, `overrides` replace request arguments, `attributes` go on its span at the
    start, `token` comes back in `after`.
    """

    __slots__ = ("attributes", "overrides", "refuse", "token")

    def __init__(
        self,
        token: Call | None,
        refuse: BaseException | None = None,
        attributes: Mapping[str, AttributeValue] = _NOTHING,
        overrides: Mapping[str, object] | None = None,
    ) -> None:
        self.token: object = token
        self.refuse = refuse
        self.overrides = overrides
        self.attributes = attributes


class CostObserver:
    """Prices every call that the engine sees, counts it, and holds it to the budgets."""

    def __init__(
        self,
        book: PriceBook,
        table: Table,
        guard: Guard | None = None,
        *,
        proposal: bool = True,
        ledger: LedgerWriter | None = None,
    ) -> None:
        self.book = book
        self.table = table
        """Replaced as a whole when a new generation starts."""
        self.guard = guard
        self.ledger = ledger
        self._proposal = proposal
        self._logged: set[str] = set()
        self._lock = threading.Lock()

    def before(
        self, attributes: Mapping[str, Any], characters: Callable[[], int], may_swap: Callable[[], bool] = _never
    ) -> Decision | None:
        """Decide about a call.

        `attributes` are its request's, `characters()` the length of its prompt's text, `may_swap()` whether its
        argument `model` can be overridden. None, the common case: nobody to attribute it to and no budget.
        """
        who = attribution()
        guard = self.guard
        if guard is None or not (guard.budgets or (who is not None and who.limits)):
            return None if who is None else Decision(Call(who))
        return _decision(who, guard.admit(attributes, who, characters, may_swap))

    async def abefore(
        self, attributes: Mapping[str, Any], characters: Callable[[], int], may_swap: Callable[[], bool] = _never
    ) -> Decision | None:
        """`before` on an event loop, which a store that does I/O does not block."""
        who = attribution()
        guard = self.guard
        if guard is None or not (guard.budgets or (who is not None and who.limits)):
            return None if who is None else Decision(Call(who))
        return _decision(who, await guard.aadmit(attributes, who, characters, may_swap))

    def after(
        self,
        token: object,
        attributes: Mapping[str, Any],
        at: int,
        duration: float | None,
        first_chunk: float | None,
        context: Context | None,
    ) -> Mapping[str, AttributeValue]:
        """Price and count a call that ended; returns what to add to its span.

        `attributes` are all that is known of the call, `at` its start (unix ns), `duration` and `first_chunk` seconds
        or None, `context` the one of its span, for exemplars. No I/O.
        """
        reading = read(attributes)
        if reading is None:
            return _NOTHING
        priced = assess(reading, at, self.book, duration)
        result = describe(priced, self._proposal)
        who = None
        admission = None
        if token is not None:
            assert isinstance(token, Call)
            who = token.attribution
            admission = token.admission
        guard = self.guard
        if guard is not None:
            if admission is not None:
                result.update(guard.settle(admission, priced))
            elif guard.budgets or (who is not None and who.limits):
                result.update(guard.charge(guard.new_key(), attributes, who, priced))
        self.count(priced, who, duration, first_chunk, context, own=True)
        ledger = self.ledger
        if ledger is not None:
            ledger.keep(priced, who, at, duration, first_chunk, context, attributes)
        return result

    def count(
        self,
        priced: Priced | Plain,
        who: Attribution | None,
        duration: float | None,
        first_chunk: float | None = None,
        context: Context | None = None,
        *,
        own: bool,
    ) -> None:
        """Add a priced call to the counters and running totals. `own`: we made its span, so its histograms are ours."""
        table = self.table
        reading = priced.reading
        kind = reading.kind
        route = table.route(kind, None if who is None else who.values(table.dimensions))
        if duration is not None and not 0 <= duration < _FOREVER:
            duration = None
        table.count(route, priced, None if duration is None else int(duration * 1e9))
        if own:
            table.record(route, priced, duration, first_chunk, context)
        if who is not None:
            tokens = sum(reading.tokens.values())
            for totals in who.totals:
                totals.add(kind.provider or "", kind.response_model or kind.request_model or "", priced.total, tokens)

    def failed(self, where: str, error: BaseException) -> None:
        """Note an error of ours: counted each time, logged (with its traceback) once a place."""
        self.table.failed(where)
        with self._lock:
            known = where in self._logged
            self._logged.add(where)
        if not known:
            _log.warning("costspan failed in %s; your call is not affected", where, exc_info=error)

    def after_fork(self) -> None:
        """In a forked child: a lock that no thread of the parent can be holding."""
        self._lock = threading.Lock()


def _decision(who: Attribution | None, said: Admission | Refusal | None) -> Decision:
    if isinstance(said, Refusal):
        return Decision(None, said.error, said.attributes)
    if said is None:
        return Decision(Call(who))
    return Decision(Call(who, said), None, said.attributes, None if said.model is None else {"model": said.model})
