"""Who a call is for, and what has been spent inside a block of code.

Attribution travels as a private value of the OpenTelemetry context: it follows tasks and threads as the current span
does, and it leaves the process only where a key is sent on as W3C baggage (`Exchange`). The same `attribution(context)`
serves the guard before a call, the metrics after it and the span processor, since an unsampled call reaches no span
processor.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry import baggage
from opentelemetry import context as otel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.context import Context

    from costspan_processor.budgets.guard import Line

_CONTEXT_KEY = otel.create_key("costspan-attribution")
_current = otel.get_current

KEYS: Final[Mapping[str, str]] = {
    "user": "user.id",
    "session": "session.id",
    "conversation": "gen_ai.conversation.id",
    "agent": "gen_ai.agent.name",
    "team": "costspan.team",
    "feature": "costspan.feature",
    "task": "costspan.task",
    "persona": "costspan.persona",
    "priority": "costspan.priority",
    "message": "costspan.message.id",
}
"""What a user calls it -> the span attribute that carries it."""


class Exchange(NamedTuple):
    """What attribution may cross the border of the process. Nothing does unless asked for.

    Whoever calls a service may send any baggage: `trusted` says which keys of it are believed here. Baggage goes out
    with every instrumented HTTP request, those to providers too: `sent` says which keys may. What came in as baggage
    never decides which blocking budget holds, and a priority is never taken from it.
    """

    sent: frozenset[str] = frozenset()
    trusted: frozenset[str] = frozenset()
    user_key: bytes = b""
    """With a key, users are known by the HMAC-SHA256 of their ids alone."""


VALUE_AT_MOST: Final = 128
"""Characters of a value that comes from outside or goes there; a longer one is left out."""

_exchange = Exchange()
sources: Final[set[str]] = set()
"""Where attribution has come from in this process, or may: while it is empty, no span need be asked whom it is for."""


def exchange(sent: Iterable[str] = (), trusted: Iterable[str] = (), user_key: str = "") -> None:
    """Set what may cross the border, by the names that users give (`team`, `feature`, a tag's own)."""
    global _exchange  # noqa: PLW0603  the same for the whole process
    known = frozenset(map(key_of, trusted)) - {KEYS["priority"]}
    _exchange = Exchange(frozenset(map(key_of, sent)), known, user_key.encode())
    if known:
        sources.add("baggage")


def dollars(pico: int) -> Decimal:
    """Exact USD of an amount in picodollars."""
    return Decimal(pico).scaleb(-12)


def attributes_of(**named: object) -> dict[str, str]:
    """Attributes for names as a user gives them: `team="search"` -> `costspan.team`; any other name is a tag.

    None means "not said" and is left out.
    """
    return {key_of(name): str(value) for name, value in named.items() if value is not None}


def key_of(name: str) -> str:
    """The span attribute of a name as a user gives it.

    >>> key_of("team"), key_of("tenant")
    ('costspan.team', 'costspan.tag.tenant')
    """
    return KEYS.get(name, f"costspan.tag.{name}")


class Share(NamedTuple):
    """One line of a breakdown."""

    cost: Decimal
    """USD."""
    tokens: int
    calls: int


class Totals:
    """What the calls inside one block have cost so far. Exact, and safe to read from any thread."""

    __slots__ = ("_calls", "_lock", "_pico", "_shares", "_tokens", "_unpriced", "limit")

    def __init__(self, limit: Decimal | None = None) -> None:
        self.limit: Final = limit
        """USD that the block may cost (`costspan.budget()`); None: as much as it likes."""
        self._lock = threading.Lock()
        self._pico = self._tokens = self._calls = self._unpriced = 0
        self._shares: dict[tuple[str, str], list[int]] = {}

    def add(self, provider: str, model: str, pico: int | None, tokens: int) -> None:
        """Count one call: its cost in picodollars (None: it has no price) and its input and output tokens."""
        amount = pico or 0
        with self._lock:
            self._calls += 1
            self._pico += amount
            self._tokens += tokens
            if pico is None:
                self._unpriced += 1
            share = self._shares.get((provider, model))
            if share is None:
                share = self._shares[provider, model] = [0, 0, 0]
            share[0] += amount
            share[1] += tokens
            share[2] += 1

    @property
    def cost(self) -> Decimal:
        """USD of the calls that have a price (`unpriced` counts the others)."""
        return dollars(self._pico)

    @property
    def remaining(self) -> Decimal | None:
        """USD that the block has left, never below 0; None if it has no limit."""
        return None if self.limit is None else max(Decimal(0), self.limit - self.cost)

    @property
    def tokens(self) -> int:
        """Input and output tokens, cached and reasoning ones included."""
        return self._tokens

    @property
    def calls(self) -> int:
        """Calls that ended, whether they have a price or not."""
        return self._calls

    @property
    def unpriced(self) -> int:
        """Calls without a figure: `cost` does not contain them."""
        return self._unpriced

    @property
    def breakdown(self) -> dict[tuple[str, str], Share]:
        """The same by (provider, model); the model is the one that answered, else the one asked for."""
        with self._lock:
            return {key: Share(dollars(pico), tokens, calls) for key, (pico, tokens, calls) in self._shares.items()}


class Attribution:
    """Attributes of everything that happens inside a block, and the running totals that its calls are added to."""

    __slots__ = ("_found", "attributes", "limits", "received", "totals")

    def __init__(
        self,
        attributes: Mapping[str, str],
        totals: tuple[Totals, ...] = (),
        received: frozenset[str] = frozenset(),
        limits: tuple[Line, ...] = (),
    ) -> None:
        self.attributes: Final = attributes
        self.totals: Final = totals
        self.received: Final = received
        """Keys whose values came in as baggage."""
        self.limits: Final = limits
        """Limits of the block of code and those around it (`costspan.budget()`)."""
        self._found: tuple[tuple[str, ...], tuple[str | None, ...] | None] | None = None

    def values(self, keys: tuple[str, ...]) -> tuple[str | None, ...] | None:
        """The values under `keys`, None if there is none of them. Worked out once per block, not per call."""
        found = self._found
        if found is None or found[0] is not keys:
            values = tuple(map(self.attributes.get, keys))
            found = self._found = (keys, values if any(value is not None for value in values) else None)
        return found[1]


def attribution(context: Context | None = None) -> Attribution | None:
    """The attribution in `context`, by default the current one."""
    # `get_value` does the same with one more call, and this runs for every span of the process.
    held = _current() if context is None else context
    found: Attribution | None = held.get(_CONTEXT_KEY)  # type: ignore[assignment]
    return _from_baggage(held) if found is None and _exchange.trusted else found


def _from_baggage(context: Context) -> Attribution | None:
    trusted = _exchange.trusted
    told = {
        key: _hidden(key, value)
        for key, value in baggage.get_all(context).items()
        if key in trusted and isinstance(value, str) and 0 < len(value) <= VALUE_AT_MOST
    }
    return Attribution(told, (), frozenset(told)) if told else None


def _hidden(key: str, value: str) -> str:
    if key != KEYS["user"] or not _exchange.user_key:
        return value
    return hmac.new(_exchange.user_key, value.encode(), hashlib.sha256).hexdigest()[:32]


def attributed(
    attributes: Mapping[str, str], context: Context | None = None, limit: Line | None = None
) -> tuple[Context, Totals]:
    """A context in which calls carry `attributes` over those of the surrounding block, and the totals they add up to.

    The totals of the surrounding blocks go on counting too, and their limits hold beside `limit`.
    """
    sources.add("code")
    outer = attribution(context)
    limits = () if limit is None else (limit,)
    totals = Totals(None if limit is None else limit.budget.limit)
    marks = {key: _hidden(key, value) for key, value in attributes.items()}
    if outer is None:
        inner = Attribution(marks, (totals,), limits=limits)
    else:
        inner = Attribution(
            {**outer.attributes, **marks},
            (*outer.totals, totals),
            outer.received.difference(marks),
            (*outer.limits, *limits),
        )
    result = otel.set_value(_CONTEXT_KEY, inner, context)
    for key in _exchange.sent.intersection(marks):
        if len(marks[key]) <= VALUE_AT_MOST:
            result = baggage.set_baggage(key, marks[key], result)
    return result, totals
